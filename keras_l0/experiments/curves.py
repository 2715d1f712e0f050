"""Accuracy against compression of networks trained once, each point pruned from one network."""

import json
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_l0 import annealing
from keras_l0.data import evaluate
from keras_l0.experiments import datasets
from keras_l0.experiments.augmentation import Augmented
from keras_l0.experiments.records import Cell, Values, read_points
from keras_l0.experiments.study import Cells, error_of, in_words, markdown_table, name_of
from keras_l0.experiments.training import Recipe, build, left_of
from keras_l0.files import InMemory, write_bytes, write_text
from keras_l0.models import compile_like
from keras_l0.pruning.keep import KeepZeros
from keras_l0.pruning.once import prune
from keras_l0.report.plots import plot_tradeoff
from keras_l0.report.summary import summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Tuning = Callable[[keras.Model], None]


def run(cell: Cell, folder: Path) -> Values:
    """Trains a network, and prunes it at each compression, from the same weights each time.

    What is trained is kept in ``folder`` after each epoch, and a run that was broken off goes on
    from there. The recipe's ``warmup`` epochs train, its rate falling along half a cosine; with
    ``finetune`` epochs there is a second curve, each point of it tuned for as long.
    """
    settings = dict(cell.settings)
    names = ("dataset", "standardized", "images", "tested", "ratios")
    extra = {name: settings.pop(name) for name in names}
    recipe = Recipe(**settings)
    data = datasets.preprocess(datasets.load(extra["dataset"]))
    if extra["standardized"]:
        data = datasets.standardize(data)
    keras.utils.set_random_seed(cell.seed)
    model = build(recipe, data.x_train.shape[1:], data.classes)
    x, y = data.x_train[: extra["images"]], data.y_train[: extra["images"]]
    test = (
        datasets.fit_to(data.x_test, model.input_shape[1:])[: extra["tested"]],
        data.y_test[: extra["tested"]],
    )
    batches = Augmented(
        datasets.fit_to(x, model.input_shape[1:]), y, recipe.batch, recipe.augmentation, cell.seed
    )
    name = name_of(cell.key)
    train_once(model, recipe, batches, folder / name)
    before = error(model, test)
    ways: dict[str, Tuning | None] = {"without FT": None}
    if recipe.finetune:
        ways["with FT"] = partial(tune, recipe=recipe, batches=batches)
    return {
        "error": before,
        "curves": {
            way: _points(model, extra["ratios"], test, folder / f"{name}_{place}.json", tuned)
            for place, (way, tuned) in enumerate(ways.items())
        },
    }


def train_once(model: keras.Model, recipe: Recipe, batches: Augmented, path: Path) -> None:
    """Trains the model, or gives it the weights that an earlier run has trained.

    ``path`` has no suffix: there stand ``.weights.h5`` in the end, and ``_backup`` until then.
    """
    trained = path.with_name(f"{path.name}.weights.h5")
    if trained.exists():
        model.optimizer.build(model.trainable_variables)  # whose state is in the file too
        model.load_weights(trained)
        return
    model.fit(
        batches,
        epochs=recipe.warmup,
        callbacks=[
            keras.callbacks.BackupAndRestore(f"{path}_backup", double_checkpoint=True),
            *annealing.callbacks(recipe.rate, 0, recipe.warmup, 1),
        ],
        verbose=0,
    )
    memory = InMemory()
    model.save_weights(memory)
    write_bytes(trained, memory.getvalue())


def tune(model: keras.Model, recipe: Recipe, batches: Augmented) -> None:
    """Trains what is left, the rate falling, its zeros held."""
    compile_like(model, model)  # each point with an optimizer that remembers no other
    model.fit(
        batches,
        epochs=recipe.finetune,
        callbacks=[KeepZeros(), *annealing.callbacks(recipe.rate, 0, recipe.finetune, 1)],
        verbose=0,
    )


def error(model: keras.Model, test: tuple[Any, Any]) -> float:
    """The share of wrong answers, in percent."""
    return 100 * (1 - evaluate(model, test, "test", batch_size=1_000)["accuracy"])


def _points(
    model: keras.Model,
    ratios: Sequence[float],
    test: tuple[Any, Any],
    kept: Path,
    tuned: Tuning | None,
) -> list[dict[str, float]]:
    """The error in percent and the compressions at each ratio of weights.

    Each point is in the file ``kept`` as soon as it is there, and not made again.
    """
    before = model.get_weights()
    found: list[dict[str, float]] = read_points(kept, [])
    for ratio in ratios[len(found) :]:
        prune(model, sparsity=1 - 1 / ratio, score="magnitude")
        if tuned is not None:
            tuned(model)
        found.append(
            {
                "error": error(model, test),
                "compression": model.count_params() / left_of(model),
                "weight_compression": summarize(model).weight_compression,
            }
        )
        model.set_weights(before)
        write_text(kept, json.dumps(found))
    return found


def rows(done: Cells) -> list[Values]:
    """For each line of a figure, with and without fine tuning, each point's mean over the seeds.

    ``ratio`` is the compression of weights that was asked for: training may leave zeros of its own,
    so ``weight_compression`` can be more. ``increase`` is the error over that of the first line's
    network, which nothing has pruned, tuned for as long where a ratio of 1 is among its points.
    """
    found: list[Values] = []
    dense = _dense([one for one in done if one["row"] == done[0]["row"]])
    for line in dict.fromkeys(one["row"] for one in done):
        mine = [one for one in done if one["row"] == line]
        seeds = [one["seed"] for one in mine]
        errors = [one["result"]["error"] for one in mine]
        found.append(_row(f"{line}, not pruned", line, "", 1.0, seeds, errors, 1.0, 1.0, dense))
        for way in mine[0]["result"]["curves"]:
            curves = (one["result"]["curves"][way] for one in mine)
            for ratio, *points in zip(mine[0]["settings"]["ratios"], *curves, strict=True):
                errors = [point["error"] for point in points]
                whole, weights = (
                    statistics.mean(point[name] for point in points)
                    for name in ("compression", "weight_compression")
                )
                name = f"{line}, {weights:.3g}x in weights, {way}"
                found.append(_row(name, line, way, ratio, seeds, errors, whole, weights, dense))
    return found


def _dense(done: Cells) -> float:
    """The mean error without pruning, after fine tuning if there was some at a ratio of 1."""
    tuned = [
        point["error"]
        for one in done
        for ratio, point in zip(
            one["settings"]["ratios"], one["result"]["curves"].get("with FT", ()), strict=False
        )
        if ratio == 1
    ]
    return statistics.mean(tuned or [one["result"]["error"] for one in done])


def _row(
    name: str,
    line: str,
    way: str,
    ratio: float,
    seeds: list[int],
    errors: list[float],
    compression: float,
    weight_compression: float,
    dense: float,
) -> Values:
    return {
        "name": name,
        "line": line,
        "way": way,
        "ratio": ratio,
        "seeds": seeds,
        **error_of(errors),
        "increase": statistics.mean(errors) - dense,
        "compression": compression,
        "weight_compression": weight_compression,
    }


def report(values: Values) -> str:
    """The rows as a table, the published figures below."""
    ours = [
        [
            row["name"],
            str(len(row["seeds"])),
            in_words(row),
            f"{row['increase']:+.2f}",
            f"{row['compression']:.2f}",
        ]
        for row in values["rows"]
    ]
    theirs = [
        [
            f"{peer['name']}, published",
            "",
            "",
            f"{peer['increase']:+.2f}",
            f"{peer['compression']:g}",
        ]
        for peer in values["published"]
    ]
    header = ["row", "seeds", "test error %", "increase", "compression"]
    return markdown_table(header, [*ours, *theirs])


def draw(values: Values) -> "Axes":
    """A curve for each line, with and without fine tuning."""
    ax, points = None, values["rows"]
    for line, way in dict.fromkeys((row["line"], row["way"]) for row in points if row["way"]):
        mine = [row for row in points if row["line"] == line and row["way"] in ("", way)]
        pairs = [(row["compression"], 100 - row["error_mean"]) for row in mine]
        ax = plot_tradeoff(pairs, metric="test accuracy, %", label=f"{line}, {way}", ax=ax)
    assert ax is not None, "there is a line"
    return ax
