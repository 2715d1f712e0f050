"""Filters pruned by magnitude, by redundancy, and with gradients counted, on segmentation.

A U-Net and a MobileNetV3-Small with a decoder find MNIST digits, at half their size, on canvases,
a class for each pixel. Each is trained; then, from the same weights and for as many epochs, it is
tuned as it is, or its filters are pruned to a quarter of the parameters: those of smallest norm;
those most alike another, with the penalty on redundancy; and with gradients counted too, inside
the kernels (from filter to filter where they are 1×1), or from filter to filter in all. Only
layers that hold half a percent of the parameters or more are pruned: the thin ones at large maps
have little to give, and cost accuracy. What is left is shrunk, exported in float32, and the file
asked for every test canvas::

    KERAS_BACKEND=tensorflow python benchmarks/segmentation.py FOLDER mobile_segmenter u_net

Each seed of a network is written as soon as it is done, and left out when run again. The files are
timed in turns once all are there, which gives the runtime's peak memory too.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.regularizers import Regularizer
from records import conclude, earlier, keep
from stretch import Stretch
from tflite_files import add_timings, answers

from keras_l0 import (
    Composite,
    GradientCount,
    NeuronPrune,
    export_tflite,
    regularize,
    shrink,
)
from keras_l0.composite import COUNT, constraints
from keras_l0.experiments import datasets, segmentation
from keras_l0.experiments.reading import Dataset
from keras_l0.experiments.scenes import CLASSES, Scenes, mean_dice, mean_iou, overlaps, scenes_of
from keras_l0.pruning.neurons import Neurons
from keras_l0.pruning.targets import find_targets
from keras_l0.text import table
from keras_l0.versions import versions

RESULTS = Path(__file__).parent / "results" / "segmentation.json"
TRAIN, TEST, SIZE, BATCH, STEPS = 20_000, 1_000, 32, 32, 125
COMPRESSION, HEAVY = 4.0, 0.005

Penalties = dict[str, Regularizer]


@dataclass(frozen=True)
class Run:
    """How a network is trained: epochs whole, then before, while and after it is pruned.

    An epoch has ``STEPS`` batches. The learning rate falls from ``rate`` to 0, both times.
    """

    build: Callable[..., keras.Model]
    rate: float
    epochs: int
    warmup: int
    ramp: int
    tuning: int


RUNS = {
    "u_net": Run(segmentation.u_net, 5e-3, 10, 1, 4, 9),
    "mobile_segmenter": Run(segmentation.mobile_segmenter, 6e-3, 12, 1, 6, 13),
}


def heavy(model: keras.Model) -> list[str]:
    """The layers to prune, by path."""
    least = HEAVY * model.count_params()
    return [
        layer.path
        for layer in model.layers
        if hasattr(layer, "kernel") and layer.count_params() >= least
    ]


def _redundancy(model: keras.Model) -> Penalties:
    return constraints(Neurons(model, find_targets(model, heavy(model))), count=0.0)


def _counted(model: keras.Model) -> Penalties:
    return constraints(Neurons(model, find_targets(model, heavy(model))))


def _across(model: keras.Model) -> Penalties:
    """With gradients counted from filter to filter in every kernel."""
    return {
        pattern: Composite([penalty.regularizers[0], GradientCount(COUNT, axes="filters")])
        for pattern, penalty in _counted(model).items()
    }


WAYS: dict[str, tuple[str, Callable[[keras.Model], Penalties]]] = {
    "magnitude": ("norm", lambda _: {}),
    "redundancy": ("redundancy", _redundancy),
    "redundancy, gradients counted": ("redundancy", _counted),
    "redundancy, counted across filters": ("redundancy", _across),
}
KINDS = ("trained", "tuned", *WAYS)


def digits() -> Dataset:
    """MNIST's, each pixel the mean of two by two."""
    whole = datasets.load("mnist")

    def halved(images: np.ndarray) -> np.ndarray:
        fours = images.reshape(len(images), 14, 2, 14, 2)
        return fours.mean((2, 4)).round().astype(np.uint8)

    return replace(whole, x_train=halved(whole.x_train), x_test=halved(whole.x_test))


def fit(model: keras.Model, train: Stretch, rate: float, epochs: int, callbacks: Any = ()) -> None:
    """Trains with a falling learning rate."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * STEPS)
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy")
    model.fit(train, epochs=epochs, callbacks=list(callbacks), verbose=2)


def figures(model: keras.Model, test: Scenes, path: Path) -> dict[str, Any]:
    """Of the model, shrunk, and its file."""
    small = shrink(model)
    export_tflite(small, path, check_data=test.x[:32])
    by_keras = overlaps(test.y, small.predict(test.x, batch_size=50, verbose=0).argmax(-1), CLASSES)
    by_file = overlaps(test.y, answers(path, test.x), CLASSES)
    convolutions = [layer for layer in small.layers if type(layer) is keras.layers.Conv2D]
    return {
        "parameters": small.count_params(),
        "channels": sum(layer.filters for layer in convolutions),
        "mean_iou": mean_iou(by_keras),
        "mean_iou_file": mean_iou(by_file),
        "mean_dice": mean_dice(by_keras),
        "bytes": path.stat().st_size,
    }


def file_of(folder: Path, name: str, kind: str, seed: int) -> Path:
    """Where a network's file is kept."""
    return folder / f"{name}_{kind.replace(', ', '_').replace(' ', '_')}_{seed}.tflite"


def run(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """One seed of a network, all ways."""
    how = RUNS[name]
    start = time.perf_counter()
    train, test = scenes_of(digits(), TRAIN, TEST, seed, size=SIZE)
    batches = partial(Stretch, train.x, train.y, STEPS, BATCH)
    build = partial(how.build, (SIZE, SIZE, 1))
    keras.utils.set_random_seed(seed)
    model = build()
    fit(model, batches(2 * seed), how.rate, how.epochs)
    found = {"trained": figures(model, test, file_of(folder, name, "trained", seed))}
    trained = model.get_weights()
    more = how.warmup + how.ramp + how.tuning
    for kind in KINDS[1:]:
        model = build()
        model.set_weights(trained)
        keras.utils.set_random_seed(seed)
        callbacks = []
        if kind in WAYS:
            score, penalties = WAYS[kind]
            regularize(model, None, overrides=penalties(model))
            first, last = how.warmup, how.warmup + how.ramp - 1
            goal = {"compression": COMPRESSION, "score": score, "layers": heavy(model)}
            callbacks = [NeuronPrune(**goal, begin=first, end=last)]
        fit(model, batches(2 * seed + 1), how.rate, more, callbacks)
        found[kind] = figures(model, test, file_of(folder, name, kind, seed))
        print(name, kind, seed, found[kind], flush=True)
    return {
        "network": name,
        "seed": seed,
        "settings": {
            "canvases": TRAIN,
            "steps": STEPS,
            "batch": BATCH,
            "rate": how.rate,
            "epochs": how.epochs,
            "more": more,
            "compression": COMPRESSION,
        },
        "seconds": time.perf_counter() - start,
        "versions": versions(),
        **found,
    }


def report(runs: list[dict[str, Any]]) -> str:
    """The means of the seeds, with the range of the mean IoU."""
    rows = []
    for name in dict.fromkeys(one["network"] for one in runs):
        mine = [one for one in runs if one["network"] == name]
        for kind in KINDS:
            scores = [one[kind]["mean_iou"] for one in mine]
            columns = [[one[kind][key] for one in mine] for key in mine[0][kind]]
            rows.append(
                [
                    name,
                    kind,
                    str(len(mine)),
                    *(f"{statistics.mean(values):,.4g}" for values in columns),
                    f"{min(scores):.4f} to {max(scores):.4f}",
                ]
            )
    return table(["network", "way", "seeds", *runs[0]["trained"], "mean IoU's range"], rows)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, help="folder for the files, made where missing")
    parser.add_argument("networks", nargs="+", choices=RUNS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", default=RESULTS, type=Path)
    options = parser.parse_args()
    options.files.mkdir(parents=True, exist_ok=True)
    runs = earlier(options.out)
    done = {(one["network"], one["seed"]) for one in runs}
    for seed in options.seeds:
        for name in options.networks:
            if (name, seed) not in done:
                runs.append(run(name, seed, options.files))
                keep(options.out, runs)
    for one in runs:
        place = partial(file_of, options.files, one["network"], seed=one["seed"])
        add_timings(one, {kind: place(kind) for kind in KINDS})
    keep(options.out, runs)
    conclude(options.out, report(runs))


if __name__ == "__main__":
    main()
