"""The paper's Table 7: neurons of VGG-16 pruned (NP), and weights of the rest too (NP+GP)."""

import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from keras_l0.experiments import datasets, published
from keras_l0.experiments.augmentation import Augmented
from keras_l0.experiments.curves import error, train_once, tune
from keras_l0.experiments.records import Cell, Values, read_points
from keras_l0.experiments.study import Cells, Study, error_of, in_words, markdown_table, name_of
from keras_l0.experiments.training import Recipe, build, left_of
from keras_l0.files import write_text
from keras_l0.pruning.once import prune
from keras_l0.report.plots import plot_tradeoff
from keras_l0.report.summary import summarize
from keras_l0.structure.shrink import shrink

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A share of the multiply-adds that goes with neurons, and the compression that weights go to then.
_GOALS = ((0.2775, 9.21), (0.427, 18.38))
_UNPRUNED = {"flops_reduction": 0.0, "compression": 1.0, "weight_compression": 1.0}
_RECIPE = Recipe(
    "vgg_16",
    l2=1e-4,
    l0=2.5e-7,
    scale="layer_size",
    rate=1e-3,
    batch=128,
    warmup=100,
    finetune=10,
    augmentation="shifted",
)


def cells(quick: bool) -> list[Cell]:
    """One for each seed."""
    settings = _RECIPE.settings | {"images": None, "tested": None}
    if quick:
        settings |= {"warmup": 1, "finetune": 1, "batch": 64, "images": 128, "tested": 128}
    return [Cell("VGG-16", seed, settings) for seed in range(1 if quick else 3)]


def run(cell: Cell, folder: Path) -> Values:
    """Trains, prunes neurons, shrinks and tunes, then weights of what is left, and tunes again.

    What is trained is kept in ``folder``, and each goal's points; a run that was broken off goes on
    from there. The error before pruning is of the network tuned for as long.
    """
    settings = dict(cell.settings)
    images, tested = settings.pop("images"), settings.pop("tested")
    recipe = Recipe(**settings)
    data = datasets.standardize(datasets.preprocess(datasets.load("cifar10")))
    test = data.x_test[:tested], data.y_test[:tested]
    batches = Augmented(
        data.x_train[:images],
        data.y_train[:images],
        recipe.batch,
        recipe.augmentation,
        cell.seed,
    )
    keras.utils.set_random_seed(cell.seed)
    model = build(recipe, data.x_train.shape[1:], data.classes)
    name = name_of(cell.key)
    train_once(model, recipe, batches, folder / name)
    whole = summarize(model)
    assert whole.flops, "the network's input size is fixed"
    before, kept = model.get_weights(), folder / f"{name}.json"
    points: Values = read_points(kept, {})
    for share, compression in _GOALS[len(points) // 2 :]:
        prune(model, method="neuron", flops=share)
        small = shrink(model)
        model.set_weights(before)
        fewer = summarize(small).flops
        assert fewer, "as before"
        for way in ("NP", "NP+GP"):
            if way == "NP+GP":
                left = model.count_params() / compression
                least = max(1.0, small.count_params() / left)
                prune(small, compression=least, score="magnitude")
            tune(small, recipe, batches)
            pruned = summarize(small)
            points[f"{way}, {share:.2%} of multiply-adds"] = {
                "error": error(small, test),
                "flops_reduction": 100 * (1 - fewer / whole.flops),
                "compression": model.count_params() / left_of(small),
                "weight_compression": whole.prunable / (pruned.prunable - pruned.zeros),
            }
        write_text(kept, json.dumps(points))
    tune(model, recipe, batches)
    return {"error": error(model, test), "points": points}


def conclude(done: Cells) -> Values:
    """The rows' means over seeds."""
    results = [one["result"] for one in done]
    rows = []
    for name in ("dense", *results[0]["points"]):
        mine = [one if name == "dense" else one["points"][name] for one in results]
        errors = [one["error"] for one in mine]
        rows.append(
            {
                "name": name,
                "seeds": [one["seed"] for one in done],
                **error_of(errors),
                "increase": statistics.mean(errors) - statistics.mean(o["error"] for o in results),
                **{
                    figure: statistics.mean(one.get(figure, unpruned) for one in mine)
                    for figure, unpruned in _UNPRUNED.items()
                },
            }
        )
    return {
        "rows": rows,
        "published": published.TABLE_7,
        "checks": {
            f"{peer['name']}: {peer['flops_reduction']} % fewer multiply-adds and "
            f"{peer['compression']} times at {peer['increase']} % more error or less": any(
                row["increase"] <= peer["increase"]
                and row["flops_reduction"] >= peer["flops_reduction"]
                and row["compression"] >= peer["compression"]
                for row in rows
            )
            for peer in published.TABLE_7
            if peer["name"].startswith("Proposed")
        },
    }


def report(values: Values) -> str:
    """The rows beside the published ones."""
    lines = [
        [
            row["name"] if "seeds" in row else f"{row['name']}, published",
            in_words(row) if "seeds" in row else "",
            f"{row['increase']:+.2f}",
            f"{row['flops_reduction']:.1f}",
            f"{row['compression']:.2f}",
        ]
        for row in (*values["rows"], *values["published"])
    ]
    header = ["row", "test error %", "increase", "fewer multiply-adds %", "compression"]
    return markdown_table(header, lines)


def draw(values: Values) -> "Axes":
    """By how much the error grows, against compression."""
    ax = None
    for label, rows in (("here", values["rows"][1:]), ("published", values["published"])):
        points = [(row["compression"], row["increase"]) for row in rows]
        ax = plot_tradeoff(points, metric="increase of the test error, %", label=label, ax=ax)
    assert ax is not None, "there are two"
    for line in ax.lines:
        line.set_linestyle("none")
    return ax


TABLE_7 = Study(
    "Table 7: neurons of VGG-16 on CIFAR-10, and weights of the rest",
    cells,
    run,
    conclude,
    report,
    draw,
    folder=True,
)
