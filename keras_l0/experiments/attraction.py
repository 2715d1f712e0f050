"""The paper's Table 1 and Figures 1 and 2: how the three norms pull a weight to zero."""

from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_l0.experiments.records import Cell, Values
from keras_l0.experiments.study import Cells, Study, markdown_table
from keras_l0.regularizers import L2L0, largest_alpha, scaling_factor, zero_attraction
from keras_l0.report.plots import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RATE, _ALPHA, _BETA = 0.04, 0.01, 5.0
_FIRST_STEP = 2e-4  # of each norm's curve in Figure 1


def penalty(norm: str, alpha: float, beta: float | None) -> Any:
    """The regularizer of a norm."""
    if norm == "l1":
        return keras.regularizers.L1(alpha)
    return L2L0(l2=alpha) if norm == "l2" else L2L0(l0=alpha, beta=float(beta or 1.0))


def _draw(values: Values, x: str, y: str, label: str, scale: str = "linear") -> "Axes":
    """A curve for each cell."""
    ax = new_axes()
    for one in values["cells"]:
        ax.plot(one["result"][x], one["result"][y], label=one["row"])
    ax.set(xscale=scale, yscale=scale, xlabel=x, ylabel=label)
    ax.legend(frameon=False)
    return ax


def _table_cells(_: bool) -> list[Cell]:
    return [
        Cell(norm, settings={"alpha": _ALPHA, "learning_rate": _RATE, "beta": beta})
        for norm, beta in (("l2", None), ("l1", None), ("l0", _BETA))
    ]


def _one_step(cell: Cell) -> Values:
    """The formulas of a norm at some weights, beside a step of Keras' own SGD on its penalty."""
    options = dict(cell.settings)
    alpha, rate, beta = options["alpha"], options["learning_rate"], options["beta"]
    w = np.array([0.01, 0.1, 0.5, 1.0])
    model = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(4, kernel_regularizer=penalty(cell.row, alpha, beta)),
        ]
    )
    model.set_weights([w[None], np.zeros(4)])
    # The penalty alone: a loss of zero, whatever comes.
    model.compile(keras.optimizers.SGD(rate), loss=lambda _, found: 0.0 * found)
    model.fit(np.zeros((1, 1)), np.zeros((1, 4)), verbose=0)
    return {
        "w": w.tolist(),
        "attraction": zero_attraction(w, alpha, rate, cell.row, beta).tolist(),
        "measured": (model.get_weights()[0][0] - w).tolist(),
        "scaling_factor": scaling_factor(w, alpha, rate, cell.row, beta).tolist(),
        "largest_alpha": largest_alpha(w, rate, cell.row, beta).tolist(),
    }


def _table_report(values: Values) -> str:
    rows = [
        [one["row"], *(f"{figure:.6g}" for figure in figures)]
        for one in values["cells"]
        for figures in zip(*one["result"].values(), strict=True)
    ]
    return markdown_table(["norm", *values["cells"][0]["result"]], rows)


def _measured(cells: Cells) -> Values:
    """Whether each norm's step is the formula's, to float32."""
    return {
        "checks": {
            f"{one['row']}: a step of SGD is the formula's": bool(
                np.allclose(one["result"]["measured"], one["result"]["attraction"], atol=1e-6)
            )
            for one in cells
        }
    }


TABLE_1 = Study(
    "The three norms' zero attraction, scaling factor and bound of α, beside a step of SGD",
    _table_cells,
    _one_step,
    _measured,
    _table_report,
    partial(_draw, x="w", y="largest_alpha", label="largest α that still shrinks w", scale="log"),
)


def _decay_cells(quick: bool) -> list[Cell]:
    """α such that the first step is alike; a larger step is a shorter run."""
    step = 10 * _FIRST_STEP if quick else _FIRST_STEP
    slopes = {"l2": 2.0, "l1": 1.0, "l0": _BETA * np.exp(-_BETA)}
    return [
        Cell(
            norm,
            settings={
                "alpha": float(step / (_RATE * slope)),
                "learning_rate": _RATE,
                "beta": _BETA if norm == "l0" else None,
                "steps": int(3 / step),
            },
        )
        for norm, slope in slopes.items()
    ]


def _decay(cell: Cell) -> Values:
    """A weight of 1, step by step under the penalty alone."""
    options = dict(cell.settings)
    steps = options.pop("steps")
    w = [1.0]
    for _ in range(steps):
        w.append(w[-1] + float(zero_attraction(w[-1], norm=cell.row, **options)))
    small = np.flatnonzero(np.abs(w) < _SMALL)
    shown = np.linspace(0, steps, 101).round().astype(int)
    return {
        "steps": shown.tolist(),
        "w": [w[step] for step in shown],
        "steps_until_small": int(small[0]) if len(small) else None,
    }


_SMALL = 0.1


def _order(cells: Cells) -> Values:
    until = {one["row"]: one["result"]["steps_until_small"] or np.inf for one in cells}
    first = until["l0"] < until["l1"] < until["l2"]
    return {"checks": {f"under l0 |w| falls below {_SMALL} first, then l1, then l2": bool(first)}}


def _decay_report(values: Values) -> str:
    rows = [
        [
            one["row"],
            f"{one['settings']['alpha']:.3g}",
            f"{one['settings']['steps']:,}",
            str(one["result"]["steps_until_small"] or "not yet"),
            f"{one['result']['w'][-1]:.4f}",
        ]
        for one in values["cells"]
    ]
    return markdown_table(["norm", "α", "steps", f"until |w| < {_SMALL}", "w at the end"], rows)


FIGURE_1 = Study(
    "A weight of 1 under each norm alone, α such that the first step is alike",
    _decay_cells,
    _decay,
    _order,
    _decay_report,
    partial(_draw, x="steps", y="w", label="w"),
)


def _curve_cells(_: bool) -> list[Cell]:
    """η and α are the paper's; it does not say which two β."""
    return [
        Cell(f"β = {beta:g}", settings={"alpha": _ALPHA, "learning_rate": _RATE, "beta": beta})
        for beta in (5.0, 10.0)
    ]


def _curve(cell: Cell) -> Values:
    w = np.linspace(-1, 1, 201)
    return {"w": w.tolist(), "attraction": zero_attraction(w, norm="l0", **cell.settings).tolist()}


def _steeper(cells: Cells) -> Values:
    small, large = (one["result"]["attraction"] for one in cells)
    at = {0.05: 105, 0.5: 150}  # where in the curves these weights are
    return {
        "checks": {
            "a larger β pulls small weights more": small[at[0.05]] > large[at[0.05]],
            "and large ones less": small[at[0.5]] < large[at[0.5]],
        }
    }


def _curve_report(values: Values) -> str:
    rows = [
        [one["row"], *(f"{one['result']['attraction'][place]:.3g}" for place in (101, 110, 150))]
        for one in values["cells"]
    ]
    return markdown_table(["zero attraction", "w = 0.01", "w = 0.1", "w = 0.5"], rows)


FIGURE_2 = Study(
    "The zero attraction of ℓ0 against the weight, for two β",
    _curve_cells,
    _curve,
    _steeper,
    _curve_report,
    partial(_draw, x="w", y="attraction", label="zero attraction"),
)
