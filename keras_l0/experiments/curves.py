"""Accuracy against compression of networks trained once: Figures 7 to 9 and Tables 4 to 6."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_l0.annealing import annealed
from keras_l0.data import evaluate
from keras_l0.experiments import datasets, published
from keras_l0.experiments.augmentation import Augmented
from keras_l0.experiments.records import Cell, Values
from keras_l0.experiments.study import Cells, Study, markdown_table, name_of
from keras_l0.experiments.training import Recipe, build, left_of
from keras_l0.files import replacing, write_text
from keras_l0.models import compile_like
from keras_l0.pruning.keep import KeepZeros
from keras_l0.pruning.once import prune
from keras_l0.report.plots import plot_tradeoff
from keras_l0.report.summary import summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Lines = Mapping[str, Recipe]
Tuning = Callable[[keras.Model], None]
Claims = Callable[[Sequence[Values]], dict[str, bool]]


def run(cell: Cell, folder: Path) -> Values:
    """Trains a network, and prunes it at each compression, from the same weights each time.

    What is trained is kept in ``folder`` after each epoch, and a run that was broken off goes on
    from there. The recipe's ``warmup`` epochs train, its rate falling along half a cosine; with
    ``finetune`` epochs there is a second curve, each point of it tuned for as long.
    """
    settings = dict(cell.settings)
    extra = {name: settings.pop(name) for name in ("dataset", "images", "tested", "ratios")}
    recipe = Recipe(**settings)
    data = datasets.standardize(datasets.preprocess(datasets.load(extra["dataset"])))
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
    dense = evaluate(model, test, "test")["accuracy"]
    ways: dict[str, Tuning | None] = {"without FT": None}
    if recipe.finetune:
        ways["with FT"] = partial(tune, recipe=recipe, batches=batches)
    return {
        "error": 100 * (1 - dense),
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
            keras.callbacks.BackupAndRestore(f"{path}_backup"),
            keras.callbacks.LearningRateScheduler(
                lambda epoch, _: annealed(recipe.rate, epoch, 0, recipe.warmup)
            ),
        ],
        verbose=0,
    )
    with replacing(trained) as temporary:
        model.save_weights(temporary)


def tune(model: keras.Model, recipe: Recipe, batches: Augmented) -> None:
    """Trains what is left, the rate falling, its zeros held."""
    compile_like(model, model)  # each point with an optimizer that remembers no other
    model.fit(
        batches,
        epochs=recipe.finetune,
        callbacks=[
            KeepZeros(),
            keras.callbacks.LearningRateScheduler(
                lambda epoch, _: annealed(recipe.rate, epoch, 0, recipe.finetune)
            ),
        ],
        verbose=0,
    )


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
    found = json.loads(kept.read_text()) if kept.exists() else []
    for ratio in ratios[len(found) :]:
        prune(model, sparsity=1 - 1 / ratio)
        if tuned is not None:
            tuned(model)
        found.append(
            {
                "error": 100 * (1 - evaluate(model, test, "test")["accuracy"]),
                "compression": model.count_params() / left_of(model),
                "weight_compression": summarize(model).weight_compression,
            }
        )
        model.set_weights(before)
        write_text(kept, json.dumps(found))
    return found


def rows(done: Cells) -> list[Values]:
    """For each line of a figure, with and without fine tuning, each point's mean over the seeds.

    ``increase`` is the error over that of the first line's network, which nothing has pruned.
    """
    found: list[Values] = []
    dense = statistics.mean(one["result"]["error"] for one in done if one["row"] == done[0]["row"])
    for line in dict.fromkeys(one["row"] for one in done):
        mine = [one for one in done if one["row"] == line]
        seeds = [one["seed"] for one in mine]
        errors = [one["result"]["error"] for one in mine]
        found.append(_row(f"{line}, not pruned", line, "", seeds, errors, 1.0, 1.0, dense))
        for way in mine[0]["result"]["curves"]:
            for points in zip(*(one["result"]["curves"][way] for one in mine), strict=True):
                errors = [point["error"] for point in points]
                whole, weights = (
                    statistics.mean(point[name] for point in points)
                    for name in ("compression", "weight_compression")
                )
                name = f"{line}, {weights:.3g}x in weights, {way}"
                found.append(_row(name, line, way, seeds, errors, whole, weights, dense))
    return found


def _row(
    name: str,
    line: str,
    way: str,
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
        "seeds": seeds,
        "error_mean": statistics.mean(errors),
        "error_std": statistics.stdev(errors) if len(errors) > 1 else 0.0,
        "increase": statistics.mean(errors) - dense,
        "compression": compression,
        "weight_compression": weight_compression,
    }


def _cells(
    lines: Lines, dataset: str, ratios: Sequence[float], seeds: Sequence[int], quick: bool
) -> list[Cell]:
    size: Values = {"images": None, "tested": None}
    if quick:
        seeds, ratios, size = seeds[:1], ratios[::3], {"images": 64, "tested": 64}
        lines = {
            name: replace(recipe, warmup=1, finetune=min(recipe.finetune, 1), batch=32)
            for name, recipe in lines.items()
        }
    return [
        Cell(name, seed, {**recipe.settings, "dataset": dataset, "ratios": list(ratios), **size})
        for seed in seeds
        for name, recipe in lines.items()
    ]


def _conclude(done: Cells, claims: Claims, peers: Sequence[Values]) -> Values:
    found = rows(done)
    return {"rows": found, "published": list(peers), "checks": claims(found)}


def _report(values: Values) -> str:
    ours = [
        [
            row["name"],
            str(len(row["seeds"])),
            f"{row['error_mean']:.2f} ± {row['error_std']:.2f}",
            f"{row['increase']:+.2f}",
            f"{row['compression']:.2f}",
        ]
        for row in values["rows"]
    ]
    theirs = [
        [f"{peer['name']}, published", "", "", f"{peer['increase']:+.2f}", peer["compression"]]
        for peer in values["published"]
    ]
    header = ["row", "seeds", "test error %", "increase", "compression"]
    return markdown_table(header, [*ours, *([*row[:4], f"{row[4]:g}"] for row in theirs)])


def _draw(values: Values) -> "Axes":
    ax, points = None, values["rows"]
    for line, way in dict.fromkeys((row["line"], row["way"]) for row in points if row["way"]):
        mine = [row for row in points if row["line"] == line and row["way"] in ("", way)]
        pairs = [(row["compression"], 100 - row["error_mean"]) for row in mine]
        ax = plot_tradeoff(pairs, metric="test accuracy, %", label=f"{line}, {way}", ax=ax)
    assert ax is not None, "there is a line"
    return ax


def _reached(found: Sequence[Values], line: str, loss: float = 1.0) -> float:
    """The largest compression of a line that costs so much of its own accuracy, or less."""
    mine = [row for row in found if row["line"] == line]
    least = next(row["error_mean"] for row in mine if not row["way"])
    return max(row["compression"] for row in mine if row["error_mean"] <= least + loss)


def _first_errors(found: Sequence[Values]) -> dict[str, float]:
    """Of each line before pruning."""
    return {row["line"]: row["error_mean"] for row in found if not row["way"]}


def _fivefold(found: Sequence[Values]) -> dict[str, bool]:
    """Figure 7 and Table 5."""
    tuned = [row for row in found if row["way"] == "with FT" and row["weight_compression"] >= 4.9]
    plain = {
        (row["line"], row["weight_compression"]): row["error_mean"]
        for row in found
        if row["way"] == "without FT"
    }
    return {
        "5 times at 1.1 % more error or less, with FT": any(
            row["increase"] <= 1.1 for row in tuned
        ),
        "FT better at each of these compressions": bool(tuned)
        and all(row["error_mean"] < plain[row["line"], row["weight_compression"]] for row in tuned),
    }


def _larger_strength(found: Sequence[Values]) -> dict[str, bool]:
    """Figure 8 and Table 6: the lines are of rising α_ℓ0."""
    errors = _first_errors(found)
    reached = [_reached(found, line) for line in errors]
    first = list(errors.values())
    return {
        "a larger α_ℓ0 reaches more compression within 1 %": reached == sorted(reached)
        and reached[0] < reached[-1],
        "a larger α_ℓ0 has a lower accuracy before pruning": first == sorted(first),
    }


def _beta_matters_little(found: Sequence[Values]) -> dict[str, bool]:
    """Figure 9: of each α_ℓ0 there is a line with β 5 and one with 10, in this order."""
    reached = [_reached(found, line) for line in _first_errors(found)]
    pairs = list(zip(reached[::2], reached[1::2], strict=True))
    return {
        "β of 5 and of 10 reach alike compressions within 1 %, by a factor of 2": all(
            max(pair) <= 2 * min(pair) for pair in pairs
        )
    }


def _study(
    title: str,
    lines: Lines,
    dataset: str,
    ratios: Sequence[float],
    claims: Claims,
    peers: Sequence[Values] = (),
) -> Study:
    return Study(
        title,
        partial(_cells, lines, dataset, ratios, range(3)),
        run,
        partial(_conclude, claims=claims, peers=peers),
        _report,
        _draw,
        folder=True,
    )


_VGG = Recipe(
    "vgg_16",
    l2=1e-4,
    scale="layer_size",
    rate=1e-3,
    batch=128,
    warmup=150,
    augmentation="shifted",
)
_RESNET_20 = replace(_VGG, network="resnet_20", finetune=40, warmup=160)
_RESNET_50 = replace(_VGG, network="resnet_50", warmup=100, augmentation="warped")
_RATIOS = (1.5, 2.0, 3.0, 4.0, 5.0, 6.5, 8.0, 10.0, 12.5, 16.0, 20.0, 25.0, 32.0, 40.0)

FIGURE_7 = _study(
    "Figure 7 and Table 5: ResNet-20 on CIFAR-10",
    {
        "dense, l2": replace(_RESNET_20, finetune=0),
        "NORM": replace(_RESNET_20, l0=1e-6),
        "NORM of l0 alone": replace(_RESNET_20, l0=1e-6, scale="layer_size_l0"),
    },
    "cifar10",
    (2.0, 3.0, 4.0, 5.0, 6.0, 8.0),
    _fivefold,
    published.TABLE_5,
)
FIGURE_8 = _study(
    "Figure 8 and Table 6: VGG-16 on CIFAR-100",
    {f"α_ℓ0 {l0:g}": replace(_VGG, l0=l0) for l0 in (0.0, 1e-7, 2.5e-7, 5e-7)},
    "cifar100",
    _RATIOS,
    _larger_strength,
    published.TABLE_6,
)
FIGURE_9 = _study(
    "Figure 9: ResNet-50 on CIFAR-100",
    {
        f"α_ℓ0 {l0:g}, β {beta:g}": replace(_RESNET_50, l0=l0, beta=beta)
        for l0 in (1e-7, 5e-7, 1e-6)
        for beta in (5.0, 10.0)
    },
    "cifar100",
    _RATIOS,
    _beta_matters_little,
)
TABLE_4 = _study(
    "Table 4: VGG-16 on CIFAR-10",
    {
        "dense, l2": _VGG,
        "NORM": replace(_VGG, l0=2.5e-7, finetune=40),
        "NORM of l0 alone": replace(_VGG, l0=2.5e-7, finetune=40, scale="layer_size_l0"),
    },
    "cifar10",
    (5.0, 7.0, 10.0, 15.0, 20.0, 25.0),
    lambda found: {
        "6.92 times at 0.41 % more error or less": _within(found, 6.92, 0.41),
        "14.76 times at 0.7 % more error or less": _within(found, 14.76, 0.7),
    },
    published.TABLE_4,
)


def _within(found: Sequence[Values], compression: float, increase: float) -> bool:
    return any(row["compression"] >= compression and row["increase"] <= increase for row in found)
