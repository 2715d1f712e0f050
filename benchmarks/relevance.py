"""How sparse a network becomes while its accuracy holds a bound: paper A's experiment on MNIST.

The LeNets are to hold 98 %; a block of a transformer's encoder that finds the digit which occurs
twice in a sequence of six, 95 %.

All ways of a network are trained for as many epochs, at batches of 100 and Adam's rate falling
from 1e-3 to 1e-4, where the paper's stays.
``IterativePrune`` takes a tenth of what is left after each epoch whose validation accuracy holds
the bound, which is the paper's pace of 0.04 every 250 steps. LeNet-5-Caffe, which takes ten times
as long, has epochs of 125 steps, so that its pace is four times the paper's. It runs without a
penalty, with ℓ2 of two strengths, one of them the relevance penalty's γ, with the relevance penalty
at the paper's γ and α and at an α that follows the gradients, and with ℓ2-ℓ0. Beside it stands
ℓ2-ℓ0 with ``GlobalPrune``'s ramp, of which the sparsest epoch that held the bound counts::

    KERAS_BACKEND=jax python benchmarks/relevance.py lenet_300_100 attention
    KERAS_BACKEND=tensorflow python benchmarks/relevance.py lenet_5_caffe

Each cell, a seed of a way, is written as soon as it is done, and left out when run again; the table
of all is written beside the file. Test images are looked at once, at a cell's end.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from records import conclude, earlier, keep
from stretch import Stretch

from keras_l0 import L2L0, GlobalPrune, IterativePrune, RelevanceDecay, summarize
from keras_l0.experiments import datasets, networks
from keras_l0.experiments.reading import Dataset
from keras_l0.experiments.sequences import draw_sequences
from keras_l0.text import table
from keras_l0.versions import versions

RESULTS = Path(__file__).parent / "results" / "relevance.json"
MONITOR, FRACTION = "val_accuracy", 0.1
BATCH, RATE = 100, 1e-3
VALIDATION, SEQUENCES = 5_000, 20_000
GAMMA = 1e-3

Optimizer = keras.optimizers.Optimizer
Pair = tuple[Any, Any]


@dataclass(frozen=True)
class Task:
    """A network, what it is to hold, its pairs to train on, validate on and test on, and how long.

    An epoch is a pass, or ``steps`` batches; the first ones, ``dense``, prune nothing. ``ramp`` is
    the sparsity that the ramp ends with; ``without`` names ways that take too long.
    """

    build: Callable[..., keras.Model]
    bound: float
    data: Callable[[int], tuple[Pair, Pair, Pair]]
    epochs: int = 60
    dense: int = 5
    steps: int | None = None
    ramp: float = 0.998
    without: tuple[str, ...] = ()


def parts(data: Dataset) -> tuple[Pair, Pair, Pair]:
    """All but the last training images, those, and the test images, whatever the seed.

    Which images validate moves the accuracy, and with it what a bound allows, more than a seed.
    """
    x, y = data.x_train, data.y_train
    train, validation = (x[:-VALIDATION], y[:-VALIDATION]), (x[-VALIDATION:], y[-VALIDATION:])
    return train, validation, (data.x_test, data.y_test)


def images(_: int) -> tuple[Pair, Pair, Pair]:
    """MNIST's."""
    return parts(datasets.preprocess(datasets.load("mnist")))


def sequences(seed: int) -> tuple[Pair, Pair, Pair]:
    """Sequences of MNIST's digits, those to validate on of digits of their own."""
    counts = (SEQUENCES, VALIDATION, VALIDATION)
    digits = zip(parts(datasets.load("mnist")), counts, strict=True)
    drawn = [
        draw_sequences(*pair, count, 3 * seed + place) for place, (pair, count) in enumerate(digits)
    ]
    one, two, three = ((part.x, part.y) for part in drawn)
    return one, two, three


TASKS = {
    "lenet_300_100": Task(networks.lenet_300_100, 0.98, images),
    "lenet_5_caffe": Task(
        networks.lenet_5_caffe,
        0.98,
        images,
        epochs=80,
        steps=125,
        ramp=0.9995,
        without=("ℓ2, 1e-3", "relevance, α auto"),
    ),
    "attention": Task(partial(networks.attention_classifier, (6, 784)), 0.95, sequences),
}


def _relevance(alpha: float | str) -> Callable[[int, int], Optimizer]:
    return lambda epochs, steps: RelevanceDecay(
        _adam(epochs, steps), GAMMA, alpha, gamma_steps=steps
    )


def _adam(epochs: int, steps: int) -> Optimizer:
    return keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(RATE, epochs * steps, alpha=0.1)
    )


L0 = L2L0(l2=1e-5, l0=1e-5, beta=10.0)
WAYS: dict[str, tuple[Any, Callable[[int, int], Optimizer]]] = {
    "γ = 0": (None, _adam),
    "ℓ2, 1e-4": (keras.regularizers.L2(1e-4), _adam),
    "ℓ2, 1e-3": (keras.regularizers.L2(1e-3), _adam),
    "relevance, α = 1": (None, _relevance(1.0)),
    "relevance, α auto": (None, _relevance("auto")),
    "ℓ2-ℓ0, ramp": (L0, _adam),
    "ℓ2-ℓ0": (L0, _adam),
}


class Sparsest(keras.callbacks.Callback):
    """Keeps the weights of the sparsest epoch that held the bound, or of the last dense one."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.zeros, self.weights = 0.0, None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the logs, to which the callback before has added the sparsity."""
        assert logs is not None
        held = logs[MONITOR] >= self.bound or logs["sparsity"] == 0
        if held and logs["sparsity"] >= self.zeros:
            self.zeros, self.weights = logs["sparsity"], self.model.get_weights()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Gives the model these weights."""
        self.model.set_weights(self.weights)


def cell(name: str, way: str, seed: int) -> dict[str, Any]:
    """Trains and prunes one network one way."""
    task = TASKS[name]
    penalty, optimizer = WAYS[way]
    keras.utils.set_random_seed(seed)
    model = task.build(kernel_regularizer=penalty)
    (x, y), validation, test = (
        (datasets.fit_to(x, model.input_shape[1:]), y) for x, y in task.data(seed)
    )
    steps = task.steps or len(x) // BATCH
    model.compile(
        optimizer(task.epochs, steps), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    callbacks: list[Any]
    if way.endswith("ramp"):
        callbacks = [
            GlobalPrune(task.ramp, begin=task.dense, end=task.epochs - 1, score="magnitude"),
            Sparsest(task.bound),
        ]
    else:
        callbacks = [
            IterativePrune(
                MONITOR, task.bound, fraction=FRACTION, begin=task.dense, score="magnitude"
            )
        ]
    start = time.perf_counter()
    history = model.fit(
        Stretch(x, y, steps, BATCH, seed),
        epochs=task.epochs,
        validation_data=validation,
        validation_batch_size=1000,
        callbacks=callbacks,
        verbose=0,
    )
    summary = summarize(model)
    held = model.evaluate(*validation, batch_size=1000, verbose=0)[1]
    reached = np.float32(held) >= np.float32(task.bound)
    assert reached or summary.compression == 1, held
    return {
        "network": name,
        "way": way,
        "seed": seed,
        "epochs": task.epochs,
        "steps": steps,
        "compression": summary.compression,
        "weight_compression": summary.weight_compression,
        "validation": held,
        "test_error": 1 - model.evaluate(*test, batch_size=1000, verbose=0)[1],
        "prunings": int(np.count_nonzero(np.diff(history.history["sparsity"]) > 0)),
        "seconds": time.perf_counter() - start,
        "versions": versions(),
    }


def report(cells: list[dict[str, Any]]) -> str:
    """The mean and the range of the seeds."""
    rows = []
    for name, way in dict.fromkeys((one["network"], one["way"]) for one in cells):
        found = [one for one in cells if (one["network"], one["way"]) == (name, way)]
        reached = [one["compression"] for one in found]
        rows.append(
            [
                name,
                way,
                str(len(found)),
                f"{statistics.mean(reached):.1f}",
                f"{min(reached):.1f} to {max(reached):.1f}",
                f"{statistics.mean(one['weight_compression'] for one in found):.1f}",
                f"{100 * statistics.mean(one['validation'] for one in found):.2f}",
                f"{100 * statistics.mean(one['test_error'] for one in found):.2f}",
            ]
        )
    return table(
        [
            "network",
            "way",
            "seeds",
            "compression",
            "range",
            "weight compression",
            "validation %",
            "test error %",
        ],
        rows,
    )


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+", choices=TASKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", default=RESULTS, type=Path)
    options = parser.parse_args()
    cells = earlier(options.out)
    done = {(one["network"], one["way"], one["seed"]) for one in cells}
    for seed in options.seeds:
        for name in options.networks:
            for way in WAYS:
                if (name, way, seed) in done or way in TASKS[name].without:
                    continue
                cells.append(cell(name, way, seed))
                print(report(cells[-1:]), f"{cells[-1]['seconds']:.0f} s", flush=True)
                keep(options.out, cells)
    conclude(options.out, report(cells))


if __name__ == "__main__":
    main()
