"""The paper's Experiment 1, Figures 3 and 4: four penalties, three ways to prune, fine tuning."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_l0.data import evaluate
from keras_l0.experiments import datasets
from keras_l0.experiments.records import Cell, Values
from keras_l0.experiments.study import Cells, Study, markdown_table
from keras_l0.experiments.training import Pair, Recipe, build
from keras_l0.models import compile_like
from keras_l0.pruning.keep import KeepZeros
from keras_l0.pruning.once import prune
from keras_l0.report.plots import figure_axes, plot_tradeoff

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = {"global": "GP", "layerwise": "LP", "random": "RP"}
TUNINGS = {False: "without FT", True: "with FT"}
_SPARSE, _OTHERS = ("ℓ0", "ℓ2-ℓ0"), ("ℓ1", "ℓ2")
_GOOD = 10.0  # the compression at which ℓ0 is to lose less than a percent without FT
_VALIDATION = 5_000

# As many strengths for each norm; which of them is taken, validation images decide.
_STRENGTHS: dict[str, list[dict[str, float]]] = {
    "ℓ1": [{"l1": 1e-5}, {"l1": 3e-5}, {"l1": 1e-4}, {"l1": 3e-4}],
    "ℓ2": [{"l2": 1e-5}, {"l2": 1e-4}, {"l2": 3e-4}, {"l2": 1e-3}],
    "ℓ0": [{"l0": 3e-6}, {"l0": 1e-5}, {"l0": 3e-5}, {"l0": 1e-4}],
    "ℓ2-ℓ0": [{"l2": 1e-4, "l0": strength} for strength in (3e-6, 1e-5, 3e-5, 1e-4)],
}


def cells(quick: bool) -> list[Cell]:
    """One for each norm and seed."""
    size = (
        {"images": 4_000, "epochs": 2, "tuned": 20, "ratios": [2, 10, 50]}
        if quick
        else {"images": 20_000, "epochs": 10, "tuned": 100, "ratios": [2, 5, 10, 20, 50, 100, 200]}
    )
    return [
        Cell(norm, seed, {"strengths": strengths[-2:] if quick else strengths, **size})
        for seed in range(1 if quick else 3)
        for norm, strengths in _STRENGTHS.items()
    ]


def run(cell: Cell) -> Values:
    """Trains with each strength, and prunes the network of the best one in all ways.

    The best is that whose mean accuracy on validation images over all compressions, pruned
    globally and not tuned, is the largest.
    """
    settings = cell.settings
    data = datasets.preprocess(datasets.load("mnist"))
    rest, count = len(data.x_train) - _VALIDATION, settings["images"]
    x = datasets.fit_to(data.x_train, (28, 28, 1))
    train, validation = (x[:count], data.y_train[:count]), (x[rest:], data.y_train[rest:])
    test = (datasets.fit_to(data.x_test, (28, 28, 1)), data.y_test)
    best: tuple[float, Values, keras.Model] | None = None
    for strength in settings["strengths"]:
        keras.utils.set_random_seed(cell.seed)
        recipe = replace(_RECIPE, **strength)
        model = build(recipe, (28, 28, 1), data.classes)
        model.fit(*train, epochs=settings["epochs"], batch_size=recipe.batch, verbose=0)
        curve = _curve(model, cell, "global", None, validation)
        score = float(np.mean(curve))
        if best is None or score > best[0]:
            best = score, strength, model
    assert best is not None, "a norm has strengths"
    _, strength, model = best
    return {
        "strength": strength,
        "accuracy": evaluate(model, test, "test")["accuracy"],
        "curves": {
            f"{short} {TUNINGS[tuned]}": _curve(model, cell, method, train if tuned else None, test)
            for tuned in TUNINGS
            for method, short in METHODS.items()
        },
    }


def conclude(done: Cells) -> Values:
    """The curves' means over seeds, and the paper's claims on their means over compressions."""
    ratios = done[0]["settings"]["ratios"]
    norms = list(dict.fromkeys(one["row"] for one in done))
    names = list(done[0]["result"]["curves"])
    rows = []
    for norm in norms:
        mine = [one["result"] for one in done if one["row"] == norm]
        for name in names:
            curve = np.mean([one["curves"][name] for one in mine], axis=0)
            rows.append(
                {
                    "name": f"{norm}, {name}",
                    "norm": norm,
                    "way": name,
                    "seeds": [one["seed"] for one in done if one["row"] == norm],
                    "unpruned": float(np.mean([one["accuracy"] for one in mine])),
                    "accuracies": curve.tolist(),
                    "mean_accuracy": float(curve.mean()),
                }
            )
    return {"ratios": ratios, "rows": rows, "checks": _claims(rows, ratios)}


def _claims(rows: Sequence[Values], ratios: Sequence[float]) -> dict[str, bool]:
    mean = {(row["norm"], row["way"]): row["mean_accuracy"] for row in rows}
    norms = list(dict.fromkeys(row["norm"] for row in rows))
    found: dict[str, bool] = {}
    for text in TUNINGS.values():
        found[f"GP and LP above RP for each norm, {text}"] = all(
            min(mean[norm, f"GP {text}"], mean[norm, f"LP {text}"]) > mean[norm, f"RP {text}"]
            for norm in norms
        )
        for short in METHODS.values():
            way = f"{short} {text}"
            sparse, others = ([mean[norm, way] for norm in part] for part in (_SPARSE, _OTHERS))
            if short == "RP":
                found[f"ℓ0 and ℓ2-ℓ0 below ℓ1 and ℓ2, {way}"] = max(sparse) < min(others)
            else:
                found[f"ℓ0 and ℓ2-ℓ0 above ℓ1 and ℓ2, {way}"] = min(sparse) > max(others)
    found["fine tuning better in all cases"] = all(
        mean[norm, f"{short} with FT"] > mean[norm, f"{short} without FT"]
        for norm in norms
        for short in METHODS.values()
    )
    place = list(ratios).index(_GOOD)
    found[f"ℓ0 and ℓ2-ℓ0 lose less than 1 % at {_GOOD:g} x, GP without FT"] = all(
        row["unpruned"] - row["accuracies"][place] < 0.01
        for row in rows
        if row["norm"] in _SPARSE and row["way"] == "GP without FT"
    )
    return found


def _curve(
    model: keras.Model, cell: Cell, method: str, train: Pair | None, held: Pair
) -> list[float]:
    """Accuracies at each compression, each pruned from the same weights, and tuned if asked to."""
    before, found = model.get_weights(), []
    for ratio in cell.settings["ratios"]:
        seed = cell.seed if method == "random" else None
        score = "magnitude" if method == "global" else None
        prune(model, sparsity=1 - 1 / ratio, method=method, score=score, seed=seed)
        if train is not None:
            keras.utils.set_random_seed(cell.seed)
            compile_like(model, model)  # an optimizer that remembers no other point
            count = cell.settings["tuned"] * _RECIPE.batch
            model.fit(
                *(one[:count] for one in train),
                batch_size=_RECIPE.batch,
                callbacks=[KeepZeros()],
                verbose=0,
            )
        found.append(evaluate(model, held, "test")["accuracy"])
        model.set_weights(before)
    return found


def report(values: Values) -> str:
    """The mean accuracies over seeds as a table."""
    header = ["accuracy, %", "not pruned", *(f"{ratio:g}x" for ratio in values["ratios"]), "mean"]
    rows = []
    for row in values["rows"]:
        accuracies = (row["unpruned"], *row["accuracies"], row["mean_accuracy"])
        rows.append([row["name"], *(f"{100 * one:.1f}" for one in accuracies)])
    return markdown_table(header, rows)


def draw(values: Values) -> "Axes":
    """Figure 3 above, without fine tuning, and Figure 4 below, with it."""
    axes = figure_axes(len(TUNINGS), len(METHODS))
    ways = [f"{short} {text}" for text in TUNINGS.values() for short in METHODS.values()]
    for ax, way in zip(axes, ways, strict=True):
        for row in values["rows"]:
            if row["way"] == way:
                points = list(zip(values["ratios"], row["accuracies"], strict=True))
                plot_tradeoff(points, metric="test accuracy", label=row["norm"], ax=ax)
        ax.set_title(way)
        ax.set_xlabel("all weights / weights left")
        ax.set_ylim(0, 1.02)
    return axes[0]


_RECIPE = Recipe("lenet_5_caffe")

EXPERIMENT_1 = Study(
    "Experiment 1: LeNet-5-Caffe on MNIST, accuracy against compression",
    cells,
    run,
    conclude,
    report,
    draw,
)
