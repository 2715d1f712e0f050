"""Plots of a metric against compression. They take and return matplotlib ``Axes``."""

import math
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from keras_l0.errors import invalid_argument
from keras_l0.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BASELINE = "not pruned"
_NO_MATPLOTLIB = "Plots need matplotlib. Run `pip install keras_l0[plot]`."


def require_matplotlib() -> None:
    """Raises an ``ImportError`` that tells what to install, if matplotlib is missing."""
    if find_spec("matplotlib") is None:
        raise ImportError(_NO_MATPLOTLIB)


def plot_tradeoff(
    points: Sequence[tuple[float, float]],
    *,
    metric: str,
    label: str | None = None,
    baseline: float | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws a metric against compression, on a logarithmic compression axis.

    Several calls on the same ``ax`` add curves, each in a color of its own. No pyplot is
    used, so neither a display nor a backend is touched; in a notebook that has run
    ``%matplotlib inline``, show ``ax.figure``.

    Args:
        points: pairs of compression (above 0, finite) and the metric's value (finite), in
            any order.
        metric: what the values are, the vertical axis' name, as in ``"test accuracy"``.
        label: the curve's name in the legend; without one it is not in the legend.
        baseline: the metric of the dense network, drawn as a dashed line; give it once.
        ax: where to draw; ``None`` makes a new figure.

    Returns:
        ``ax``, or the new figure's ``Axes``.

    Raises:
        ValueError: if ``points`` is empty, or a figure is out of its range.
        ImportError: if matplotlib is missing.

    Example:

    >>> ax = plot_tradeoff([(1, 0.98), (10, 0.97)], metric="test accuracy", label="global")
    >>> ax = plot_tradeoff([(1, 0.98), (10, 0.90)], metric="test accuracy", label="random", ax=ax)
    >>> len(ax.lines)
    2
    """
    pairs = sorted((float(compression), float(value)) for compression, value in points)
    if not pairs or not all(0 < c < math.inf and math.isfinite(v) for c, v in pairs):
        raise invalid_argument(
            "points", "one or more pairs (compression above 0, value), all finite", points
        )
    if baseline is not None and not math.isfinite(baseline):
        raise invalid_argument("baseline", "None or a finite number", baseline)
    require_matplotlib()
    from matplotlib import ticker

    ax = ax or new_axes()
    compressions, values = zip(*pairs, strict=True)
    ax.plot(compressions, values, marker="o", markersize=5, linewidth=1.8, label=label)
    if baseline is not None:
        ax.axhline(baseline, color="0.35", linestyle="--", linewidth=1.2, label=_BASELINE)
    ax.set_xscale("log")
    low, high = ax.dataLim.intervalx
    # Between close compressions the ticks 1, 2, 5 would leave the axis all but bare.
    even = ticker.MaxNLocator(nbins=8, steps=[1, 2, 5, 10])
    close = low < high < 4 * low
    ax.xaxis.set_major_locator(even if close else ticker.LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    ax.set_xlabel("compression (all parameters / parameters left)")
    ax.set_ylabel(metric)
    named = sorted(zip(*ax.get_legend_handles_labels(), strict=True), key=_comes_last)
    if named:
        ax.legend(*zip(*named, strict=True), frameon=False)
    return ax


def new_axes() -> "Axes":
    """Bare axes in a figure of their own, in the style of all plots here.

    Raises:
        ImportError: if matplotlib is missing.
    """
    return figure_axes(1, 1)[0]


def figure_axes(rows: int, columns: int) -> "list[Axes]":
    """The bare axes of one figure, row by row, in the style of all plots here.

    Raises:
        ImportError: if matplotlib is missing.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    size = (6.4, 4.0) if rows * columns == 1 else (4.2 * columns, 3.4 * rows)
    figure = Figure(figsize=size, layout="constrained")
    found = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in found:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.8)
    return found


def save_figure(ax: "Axes", path: str | os.PathLike[str]) -> None:
    """Writes the figure that ``ax`` stands in, whole or not at all.

    Args:
        ax: any ``Axes`` of the figure.
        path: the file; its suffix chooses the format, ``.png``, ``.svg``, ``.pdf`` and others.

    Raises:
        ValueError: if matplotlib does not write such files, or the folder is missing.
        OSError: if the file cannot be written.
    """
    # The canvas belongs to the whole figure, even where `ax` stands in a subfigure.
    canvas = ax.figure.canvas
    formats = canvas.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in formats:
        names = ", ".join(f".{name}" for name in sorted(formats))
        raise invalid_argument("path", f"a path that ends in one of {names}", os.fspath(path))
    with replacing(path) as temporary:
        try:
            canvas.figure.savefig(temporary, dpi=150)
        except AttributeError as error:
            # Of a full disk, from which matplotlib's writer of PDFs stumbles on.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _comes_last(entry: tuple[object, str]) -> bool:
    """Whether a legend's entry is a baseline's: the curves are named before it."""
    return entry[1] == _BASELINE
