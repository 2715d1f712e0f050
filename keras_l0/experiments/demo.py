"""The demonstration: a real data set, from training to a sparse file, and one table."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from keras_l0.attach import regularize
from keras_l0.data import evaluate
from keras_l0.experiments import datasets
from keras_l0.experiments.networks import lenet_300_100
from keras_l0.export.tflite import ExportReport, check_export, export_tflite
from keras_l0.files import replacing, write_text
from keras_l0.regularizers import L2L0
from keras_l0.report.plots import plot_tradeoff, require_matplotlib, save_figure
from keras_l0.report.summary import Summary
from keras_l0.report.sweep import Sweep, sweep
from keras_l0.scheme import compress
from keras_l0.text import table


@dataclass(frozen=True)
class Recipe:
    """How LeNet-300-100 is trained and pruned on one data set.

    Chosen on a validation split of the training data.

    Args:
        sparsity: zeros over all weights in the end.
        train: epochs before pruning, with the penalty on.
        ramp: epochs of pruning.
        finetune: epochs after it, the learning rate falling along a cosine.
        learning_rate: of Adam.
        batch_size: examples a step.
        regularizer: the penalty.
        scale: of the penalty, as in ``regularize``.
        power: the ramp's degree.
        regrow: whether weights may grow back during the ramp.
    """

    sparsity: float
    train: int
    ramp: int
    finetune: int
    learning_rate: float
    batch_size: int
    regularizer: L2L0
    scale: str | None = None
    power: float = 3.0
    regrow: bool = False


RECIPES = {
    "digits": Recipe(
        sparsity=0.95,
        train=30,
        ramp=30,
        finetune=30,
        learning_rate=2e-3,
        batch_size=64,
        regularizer=L2L0(l2=1e-5, l0=1e-5, beta=10),
    ),
    "mnist": Recipe(
        sparsity=1 - 1 / 90.5,
        train=10,
        ramp=60,
        finetune=40,
        learning_rate=2e-3,
        batch_size=100,
        regularizer=L2L0(l2=5e-5, l0=2e-5, beta=10),
        scale="layer_size",
        power=6.0,
        regrow=True,
    ),
}


def demo(name: str, out: Path, recipe: Recipe | None = None, verbose: str | int = "auto") -> str:
    """Trains, compresses and exports LeNet-300-100, and leaves the files in a folder.

    Args:
        name: a data set of ``RECIPES``.
        out: the folder for ``model.keras``, ``model.tflite``, ``report.json`` and
            ``tradeoff.png``; it must exist.
        recipe: instead of the data set's own.
        verbose: as in ``fit``.

    Returns:
        The table of what was reached.

    Raises:
        ValueError: if there is no recipe for the data set, or its data are not to be had.
        ImportError: if a package is missing.
    """
    recipe = recipe or RECIPES[name]
    check_export(out / "model.tflite", None)
    require_matplotlib()
    keras.utils.set_random_seed(0)
    data = datasets.preprocess(datasets.load(name))
    train, validation = datasets.split_validation(data, 1 / 12, seed=0)
    test = (data.x_test, data.y_test)
    model = lenet_300_100(data.x_train.shape[1:], data.classes)
    model.compile(
        keras.optimizers.Adam(recipe.learning_rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    regularize(model, recipe.regularizer, scale=recipe.scale)
    _say(verbose, f"Training on {len(train[0]):,} images of {name} with {recipe.regularizer}")
    model.fit(
        *train,
        validation_data=validation,
        epochs=recipe.train,
        batch_size=recipe.batch_size,
        verbose=verbose,
    )
    before = evaluate(model, test, "test")
    reach = 1 / (1 - recipe.sparsity)
    at_once = sweep(model, validation, compressions=_ladder(1, reach))
    _say(verbose, f"Pruning to a sparsity of {recipe.sparsity:.4f}, and fine tuning")
    result = compress(
        model,
        train,
        validation,
        sparsity=recipe.sparsity,
        warmup=0,
        ramp=recipe.ramp,
        finetune=recipe.finetune,
        power=recipe.power,
        regrow=recipe.regrow,
        batch_size=recipe.batch_size,
        anneal=1,
        verbose=verbose,
    )
    after = evaluate(model, test, "test")
    # The model is safe before the export has a chance to fail.
    with replacing(out / "model.keras") as temporary:
        model.save(temporary)
    exported = export_tflite(model, out / "model.tflite", check_data=validation)
    here = result.report.summary.compression
    further = sweep(model, validation, compressions=_ladder(here, 2 * here))
    report = replace(result.report, export=exported).to_dict() | {
        "dataset": name,
        "test_before": before,
        "test_after": after,
        "sweep_dense": at_once.to_dict(),
        "sweep_compressed": further.to_dict(),
    }
    write_text(out / "report.json", json.dumps(report, indent=2))
    _draw(at_once, further, out / "tradeoff.png")
    return _table(name, before, after, result.report.summary, exported, out)


def _say(verbose: str | int, text: str) -> None:
    if verbose:
        print(f"\n{text}")


def _ladder(first: float, last: float, steps: int = 8) -> list[float]:
    """Compressions from ``first`` to ``last``, evenly spaced on a logarithmic axis."""
    return [first * (last / first) ** (step / (steps - 1)) for step in range(steps)]


def _draw(at_once: Sweep, further: Sweep, path: Path) -> None:
    curves = {"trained, then pruned at once": at_once, "compressed by keras_l0": further}
    ax = None
    for label, found in curves.items():
        points = [(point.compression, point.metrics["accuracy"]) for point in found.points]
        ax = plot_tradeoff(points, metric="validation accuracy", label=label, ax=ax)
    assert ax is not None, "there are two curves"
    save_figure(ax, path)


def _table(
    name: str,
    before: dict[str, float],
    after: dict[str, float],
    summary: Summary,
    export: ExportReport,
    out: Path,
) -> str:
    rows = [
        ["test accuracy", f"{before['accuracy']:.2%}", f"{after['accuracy']:.2%}"],
        ["sparsity", f"{0:.2%}", f"{summary.sparsity:.2%}"],
        ["compression, all parameters", "1.0x", f"{summary.compression:.1f}x"],
        ["compression, weights alone", "1.0x", f"{summary.weight_compression:.1f}x"],
        ["tflite file, bytes", f"{export.dense_bytes:,}", f"{export.bytes:,}"],
        ["latency, ms", f"{export.dense_latency_ms:.4f}", f"{export.latency_ms:.4f}"],
        ["latency, sparse file over dense", "", f"{export.latency_ratio:.2f}"],
        *([file, "", str(out / file)] for file in FILES),
    ]
    return table([f"LeNet-300-100 on {name}", "dense", "compressed"], rows)


FILES = ("model.keras", "model.tflite", "report.json", "tradeoff.png")
