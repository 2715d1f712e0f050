"""The plots of ``benchmarks/README.md``: each is written beside the results, and linked."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from records import RESULTS
from tables import step_ratios

from keras_l0.report.plots import figure_axes, save_figure

Row = dict[str, Any]
GROWING = 9_000_000
"""Weights from which on a pruning's time is theirs, and not that of what it does once."""


def accuracy(rows: Sequence[Row]) -> str:
    """The mean accuracy against what is left, for each network."""
    networks = list(dict.fromkeys(row["network"] for row in rows))
    axes = figure_axes(1, len(networks))
    for ax, network in zip(axes, networks, strict=True):
        for method in dict.fromkeys(row["method"] for row in rows):
            mine = [r for r in rows if (r["network"], r["method"]) == (network, method)]
            points = []
            for asked in sorted({row["asked"] for row in mine}):
                here = [row for row in mine if row["asked"] == asked]
                means = [
                    statistics.mean(row[name] for row in here) for name in ("reached", "accuracy")
                ]
                points.append((100 * (1 - means[0]), 100 * (1 - means[1])))
            style = "x:" if method == "hard-concrete" else "o-"
            x, y = zip(*sorted(points), strict=True) if points else ((), ())
            ax.plot(x, y, style, label=method, markersize=4)
        ax.set(xscale="log", yscale="log", title=network, xlabel="weights left, %")
        ax.set_ylabel("test error, %")
    axes[-1].legend(frameon=False)
    return _saved(axes[0], "accuracy", "Test error against the weights that are left")


def steps(rows: Sequence[Row]) -> str:
    """Each kind's time over that of ℓ2."""
    (ax,) = figure_axes(1, 1)
    kinds = list(dict.fromkeys(name for row in rows for name in step_ratios(row)))
    width = 0.8 / len(kinds)
    for place, kind in enumerate(kinds):
        found = [statistics.median(step_ratios(row).get(kind, [math.nan])) for row in rows]
        at = np.arange(len(rows)) + (place - len(kinds) / 2) * width
        ax.bar(at, found, width, label=kind)
    ax.set_xticks(np.arange(len(rows)), [row["network"] for row in rows], rotation=20)
    ax.axhline(1.0, color="black", linewidth=0.8)
    ax.set_ylabel("a step's time over that with ℓ2")
    ax.legend(frameon=False, fontsize=7, ncols=2)
    return _saved(ax, "step_cost", "What a training step costs over one with an ℓ2 penalty")


def prunings(rows: Sequence[Row]) -> tuple[dict[str, float], str]:
    """The exponent of each way's time against size, fitted from ``GROWING``; the plot of all."""
    (ax,) = figure_axes(1, 1)
    mine = [
        row for row in rows if (row["dtype"], row["backend"]) == ("float32", rows[0]["backend"])
    ]
    exponents = {}
    for name in dict.fromkeys(name for row in mine for name in row["seconds"]):
        points = [
            (row["weights"], statistics.median(row["seconds"][name]))
            for row in mine
            if name in row["seconds"]
        ]
        ax.plot(*zip(*sorted(points), strict=True), "o-", label=name, markersize=4)
        large = [point for point in points if point[0] >= GROWING]
        if len(large) > 1:
            x, y = np.log(np.array(large)).T
            exponents[name] = float(np.polyfit(x, y, 1)[0])
    ax.set(xscale="log", yscale="log", xlabel="weights, float32", ylabel="s")
    ax.legend(frameon=False)
    return exponents, _saved(ax, "pruning_cost", "Time of a pruning against the number of weights")


def _saved(ax: Any, name: str, title: str) -> str:
    save_figure(ax, RESULTS / f"{name}.png")
    return f"![{title}](results/{name}.png)\n"
