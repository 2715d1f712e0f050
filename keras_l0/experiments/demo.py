"""The demonstration: a real data set, from training to a sparse file, and one table."""

import json
from dataclasses import replace
from pathlib import Path

import keras

from keras_l0.data import evaluate
from keras_l0.experiments import datasets
from keras_l0.experiments.training import Recipe, build
from keras_l0.export.tflite import ExportReport, check_export, export_tflite
from keras_l0.files import replacing, write_text
from keras_l0.report.plots import plot_tradeoff, require_matplotlib, save_figure
from keras_l0.report.summary import Summary
from keras_l0.report.sweep import Sweep, sweep
from keras_l0.scheme import compress
from keras_l0.text import table

# Chosen on a validation split of the training data.
RECIPES = {
    "digits": Recipe(
        "lenet_300_100",
        l2=1e-5,
        l0=1e-5,
        rate=2e-3,
        batch=64,
        warmup=30,
        ramp=30,
        finetune=30,
        weight_compression=20.0,
    ),
    "mnist": Recipe(
        "lenet_300_100",
        l2=5e-5,
        l0=2e-5,
        scale="layer_size",
        rate=2e-3,
        warmup=10,
        ramp=60,
        finetune=40,
        power=6.0,
        regrow=True,
        weight_compression=90.5,
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
    model = build(recipe, data.x_train.shape[1:], data.classes)
    _say(verbose, f"Training on {len(train[0]):,} images of {name} with {recipe.penalty}")
    model.fit(
        *train,
        validation_data=validation,
        epochs=recipe.warmup,
        batch_size=recipe.batch,
        verbose=verbose,
    )
    before = evaluate(model, test, "test")
    reach = recipe.weight_compression
    at_once = sweep(model, validation, compressions=_ladder(1, reach), score=recipe.score)
    _say(verbose, f"Pruning to a sparsity of {1 - 1 / reach:.4f}, and fine tuning")
    result = compress(model, train, validation, **recipe.pruning | {"warmup": 0}, verbose=verbose)
    model = result.model  # a new one, if the recipe shrinks it
    after = evaluate(model, test, "test")
    # The model is safe before the export has a chance to fail.
    with replacing(out / "model.keras") as temporary:
        model.save(temporary)
    exported = export_tflite(model, out / "model.tflite", check_data=validation)
    here = result.report.summary.compression
    further = sweep(model, validation, compressions=_ladder(here, 2 * here), score=recipe.score)
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
