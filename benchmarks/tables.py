"""Markdown tables whose rows can be pointed at, and the figures in them."""

import itertools
import re
import statistics
from collections.abc import Sequence
from typing import Any

THEIRS = ("tf_keras-l2", "tfmot")
"""The kinds of training steps that run on tf_keras."""

Line = tuple[str, Sequence[str]]
"""A table's row: its name among the anchors, and its cells."""


def table(anchor: str, head: Sequence[str], lines: Sequence[Line]) -> str:
    """A table; a row has the id ``anchor-name``, of small letters, digits, dots and dashes.

    Example:

    >>> print(table("t", ["a"], [("At 90 %, int8", ["1"])]).splitlines()[-1])
    | <a id="t-at-90-int8"></a>1 |
    """
    names = [re.sub("[^a-z0-9.]+", "-", f"{anchor} {name}".lower()).strip("-") for name, _ in lines]
    rows = [
        [f'<a id="{name}"></a>{cells[0]}', *cells[1:]]
        for name, (_, cells) in zip(names, lines, strict=True)
    ]
    parts = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(part)} |\n" for part in parts)


def from_text(anchor: str, text: str) -> str:
    r"""The tables of a result's text, in Markdown or drawn by boxes, with numbered rows.

    Example:

    >>> print(from_text("t", "| a | b |\n|---|---:|\n| x | 1 |"))
    | a | b |
    | --- | ---: |
    | <a id="t-1"></a>x | 1 |
    <BLANKLINE>
    """
    tables: list[list[list[str]]] = []
    after_table = False
    for line in map(str.strip, text.splitlines()):
        is_row = line[:1] in ("|", "│")
        if is_row and not after_table:
            tables.append([])
        if is_row and not re.fullmatch("[|: -]+", line):
            tables[-1].append([cell.strip() for cell in re.split("[|│]", line)[1:-1]])
        after_table = is_row or line[:1] == "├"
    number = itertools.count(1)
    return "\n".join(
        table(anchor, head, [(str(next(number)), cells) for cells in rows])
        for head, *rows in tables
    )


def spread(ratios: Sequence[float]) -> str:
    """The median, and the quartiles where there are several.

    Example:

    >>> spread([1.0, 2.0, 3.0])
    '2.00 (1.50 to 2.50)'
    """
    if len(ratios) < 2:
        return f"{ratios[0]:.2f}"
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def over(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """Each over its neighbour."""
    return [one / other for one, other in zip(ours, others, strict=True)]


def step_ratios(row: dict[str, Any]) -> dict[str, list[float]]:
    """Each kind's time over that of ℓ2 on the same Keras and backend, turn by turn."""
    turns = _turns(row)
    found = {}
    for name, mine in turns.items():
        base = "tf_keras-l2" if name in THEIRS else f"l2 {name.split()[-1]}"
        if base in turns:
            found[name] = over(mine, turns[base])
    return found


def over_tfmot(row: dict[str, Any], name: str) -> list[float]:
    """A kind's time over that of tfmot's pruned step, turn by turn."""
    turns = _turns(row)
    return over(turns[name], turns["tfmot"])


def _turns(row: dict[str, Any]) -> dict[str, list[float]]:
    """The median step of each kind's turns."""
    return {
        name: [statistics.median(steps) for steps in seconds]
        for name, seconds in row["seconds"].items()
    }
