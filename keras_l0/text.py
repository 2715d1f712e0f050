"""Tables and reports as plain text."""

import io
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table


def plain(*renderables: RenderableType) -> str:
    """What rich shows, as text that is the same wherever it is printed.

    No colors, no markup read out of names, and as wide as it needs to be: a table cut to a
    terminal's width loses figures.

    Example:

    >>> plain("[bold] is a name")
    '[bold] is a name'
    """
    console = Console(
        file=io.StringIO(),
        width=1000,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        markup=False,
        emoji=False,
        highlight=False,
    )
    with console.capture() as capture:
        for renderable in renderables:
            console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def first_line(error: object) -> str:
    r"""The first line of an error that has words.

    Example:

    >>> first_line(ValueError("\n  wrong shape\n  at ..."))
    'wrong shape'
    """
    return next(filter(None, map(str.strip, str(error).splitlines())), "it does not say why")


def listed(names: Iterable[str], most: int = 4) -> str:
    """Names in one line; of many the first, and how many more there are.

    Example:

    >>> listed(["a", "b", "c", "d"], most=2)
    'a, b and 2 more'
    """
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def shortened(name: str, most: int) -> str:
    """A name of at most so many characters, the middle of a longer one left out.

    Example:

    >>> shortened("block_1_expand/depthwise/kernel", 20)
    'block_1_e…ise/kernel'
    """
    if len(name) <= most:
        return name
    end = most // 2
    return f"{name[: most - end - 1]}…{name[-end:]}"


def by_reason(reasons: Mapping[str, str], most: int = 4) -> list[str]:
    """A line for each reason, with the names that have it; so many at most, then how many more.

    Example:

    >>> by_reason({"a": "frozen", "b": "no kernel", "c": "frozen"})
    ['frozen: a, c', 'no kernel: b']
    """
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return [f"{reason}: {listed(found, most)}" for reason, found in names.items()]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> str:
    """A table in plain text, its first column to the left and the others to the right.

    It fits 80 columns: long names in the first column are shortened in the middle, and columns
    that have no room beside it stand in a further table below. Figures are not cut.

    Example:

    >>> print(table(["layer", "zeros"], [["dense", "3"]]))
    ┌───────┬───────┐
    │ layer │ zeros │
    ├───────┼───────┤
    │ dense │     3 │
    └───────┴───────┘
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    names = _room_for([row[0] for row in rows], widths[0])
    parts: list[list[int]] = [[]]
    for place in range(1, len(header)):
        if parts[-1] and _width([names, *(widths[one] for one in [*parts[-1], place])]) > _COLUMNS:
            parts.append([])
        parts[-1].append(place)
    rooms = [_COLUMNS - _width([0, *(widths[place] for place in part)]) for part in parts]
    names = max(names, min(rooms))
    drawn = [
        _drawn(header, rows, part, names, title if part is parts[0] else None) for part in parts
    ]
    return plain(*drawn)


_COLUMNS = 80
# Names have so many characters at least, and at most if there are other columns.
_SHORTEST, _LONGEST = 20, 50


def _room_for(names: Sequence[str], longest: int) -> int:
    """The least room in which different names stay different."""
    for room in range(min(_SHORTEST, longest), min(_LONGEST, longest)):
        if len({shortened(name, room) for name in names}) == len(set(names)):
            return room
    return min(_LONGEST, longest)


def _width(widths: Sequence[int]) -> int:
    """Of a table with columns of these widths."""
    return sum(widths) + 3 * len(widths) + 1


def _drawn(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    columns: Sequence[int],
    names: int,
    title: str | None,
) -> Table:
    """Some columns beside the first one, whose names have room for so many characters."""
    drawn = Table(box=box.SQUARE, title=title, title_justify="left", title_style="")
    drawn.add_column(shortened(header[0], names), no_wrap=True)
    for place in columns:
        drawn.add_column(header[place], justify="right", no_wrap=True)
    for row in rows:
        drawn.add_row(shortened(row[0], names), *(row[place] for place in columns))
    return drawn
