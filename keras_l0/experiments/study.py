"""What an experiment of the paper is: its runs, and what becomes of them."""

import hashlib
import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_l0.experiments.records import Cell, Values

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Cells = Sequence[Mapping[str, Any]]
"""Those that are done: key, ``result``, ``seconds``, ``versions``."""


@dataclass(frozen=True)
class Study:
    """An experiment of the paper.

    Args:
        title: what it shows.
        cells: its runs; on few epochs, if it is to be quick.
        run: makes one, a function of a module.
        folder: whether ``run`` takes a ``folder`` too, for what it keeps on the way and the run's
            ``.tflite`` file, under ``name_of`` it; ``conclude`` then says as ``exported`` which
            row's files are to be published.
        conclude: from all cells to what the result file has beside them.
        report: the same as Markdown.
        draw: the plot.
    """

    title: str
    cells: Callable[[bool], list[Cell]]
    run: Callable[..., Values]
    conclude: Callable[[Cells], Values]
    report: Callable[[Values], str]
    draw: Callable[[Values], "Axes"]
    folder: bool = False


def name_of(cell: Mapping[str, Any]) -> str:
    """A file name, without a suffix, for what belongs to a run of these settings alone.

    Args:
        cell: its ``row``, ``seed`` and ``settings``.

    Example:

    >>> name_of({"row": "NORM, 90 x", "seed": 3, "settings": {"l0": 1e-5}})
    'NORM_90_x_3_42c86386'
    """
    settings = json.dumps(cell["settings"], sort_keys=True)
    row = re.sub(r"\W+", "_", cell["row"])
    return f"{row}_{cell['seed']}_{hashlib.sha256(settings.encode()).hexdigest()[:8]}"


def error_of(errors: Sequence[float]) -> Values:
    """What a row says of its seeds' errors: their mean, and the sample's standard deviation.

    Example:

    >>> error_of([1.5, 2.0, 2.5])
    {'error_mean': 2.0, 'error_std': 0.5}
    """
    spread = statistics.stdev(errors) if len(errors) > 1 else 0.0
    return {"error_mean": statistics.mean(errors), "error_std": spread}


def in_words(row: Values) -> str:
    """A row's error with its spread."""
    return f"{row['error_mean']:.2f} ± {row['error_std']:.2f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""A table in Markdown, its first column to the left and the others to the right.

    Example:

    >>> print(markdown_table(["row", "error"], [["|w|", "1.9"]]))
    | row | error |
    |---|---:|
    | \|w\| | 1.9 |
    """
    lines = [" | ".join(text.replace("|", r"\|") for text in line) for line in (header, *rows)]
    rule = "|".join(["---", *("---:" for _ in header[1:])])
    first, *others = (f"| {line} |" for line in lines)
    return "\n".join([first, f"|{rule}|", *others])
