"""How sparse a network becomes while its accuracy holds a bound: paper A's experiment on MNIST.

The LeNets are to hold 98 %; a block of a transformer's encoder that finds the digit which occurs
twice in a sequence of six, 95 %.

Every network is trained for as many epochs at Adam 1e-3 and batches of 100. ``IterativePrune``
takes a tenth of what is left after each epoch whose validation accuracy holds the bound, which is
the paper's pace of 0.04 every 250 steps. It runs without a penalty, with ℓ2 of two strengths, one
of them the relevance penalty's γ, with the relevance penalty at the paper's γ and α and at an α
that follows the gradients, and with ℓ2-ℓ0. Beside it stands ℓ2-ℓ0 with ``GlobalPrune``'s ramp, of
which the sparsest epoch that held the bound counts::

    KERAS_BACKEND=tensorflow python benchmarks/relevance.py lenet_300_100 lenet_5_caffe attention

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

from keras_l0 import L2L0, GlobalPrune, IterativePrune, RelevanceDecay, summarize
from keras_l0.experiments import datasets, networks
from keras_l0.experiments.sequences import draw_sequences
from keras_l0.text import table
from keras_l0.versions import versions

RESULTS = Path(__file__).parent / "results" / "relevance.json"
MONITOR, FRACTION = "val_accuracy", 0.1
BATCH, RATE, DENSE = 100, 1e-3, 5
VALIDATION, SEQUENCES = 5_000, 20_000
GAMMA = 1e-3

Optimizer = keras.optimizers.Optimizer
Pair = tuple[Any, Any]


@dataclass(frozen=True)
class Task:
    """A network, what it is to hold, and its pairs to train on, validate on and test on."""

    build: Callable[..., keras.Model]
    bound: float
    data: Callable[[int], tuple[Pair, Pair, Pair]]


def images(seed: int) -> tuple[Pair, Pair, Pair]:
    """MNIST's."""
    data = datasets.preprocess(datasets.load("mnist"))
    train, validation = datasets.split_validation(data, VALIDATION / len(data.x_train), seed=seed)
    return train, validation, (data.x_test, data.y_test)


def sequences(seed: int) -> tuple[Pair, Pair, Pair]:
    """Sequences of MNIST's digits, those to validate on of digits of their own."""
    data = datasets.load("mnist")
    train, validation = datasets.split_validation(data, VALIDATION / len(data.x_train), seed=seed)
    parts = (
        draw_sequences(*train, SEQUENCES, 3 * seed),
        draw_sequences(*validation, VALIDATION, 3 * seed + 1),
        draw_sequences(data.x_test, data.y_test, VALIDATION, 3 * seed + 2),
    )
    one, two, three = ((part.x, part.y) for part in parts)
    return one, two, three


TASKS = {
    "lenet_300_100": Task(networks.lenet_300_100, 0.98, images),
    "lenet_5_caffe": Task(networks.lenet_5_caffe, 0.98, images),
    "attention": Task(partial(networks.attention_classifier, (6, 784)), 0.95, sequences),
}


def _relevance(alpha: float | str) -> Callable[[int], Optimizer]:
    return lambda steps: RelevanceDecay(
        keras.optimizers.Adam(RATE), GAMMA, alpha, gamma_steps=steps
    )


def _adam(_: int) -> Optimizer:
    return keras.optimizers.Adam(RATE)


L0 = L2L0(l2=1e-5, l0=1e-5, beta=10.0)
WAYS: dict[str, tuple[Any, Callable[[int], Optimizer]]] = {
    "γ = 0": (None, _adam),
    "ℓ2, 1e-4": (keras.regularizers.L2(1e-4), _adam),
    "ℓ2, 1e-3": (keras.regularizers.L2(1e-3), _adam),
    "relevance, α = 1": (None, _relevance(1.0)),
    "relevance, α auto": (None, _relevance("auto")),
    "ℓ2-ℓ0, ramp": (L0, _adam),
    "ℓ2-ℓ0": (L0, _adam),
}


class Sparsest(keras.callbacks.Callback):
    """Keeps the weights of the sparsest epoch that held the bound."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.zeros, self.weights = -1.0, None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the logs, to which the callback before has added the sparsity."""
        assert logs is not None
        if logs[MONITOR] >= self.bound and logs["sparsity"] >= self.zeros:
            self.zeros, self.weights = logs["sparsity"], self.model.get_weights()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Gives the model these weights."""
        if self.weights is not None:
            self.model.set_weights(self.weights)


def cell(name: str, way: str, seed: int, epochs: int) -> dict[str, Any]:
    """Trains and prunes one network one way."""
    task = TASKS[name]
    penalty, optimizer = WAYS[way]
    keras.utils.set_random_seed(seed)
    model = task.build(kernel_regularizer=penalty)
    (x, y), validation, test = (
        (datasets.fit_to(x, model.input_shape[1:]), y) for x, y in task.data(seed)
    )
    model.compile(
        optimizer(len(x) // BATCH), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    callbacks: list[Any]
    if way.endswith("ramp"):
        callbacks = [
            GlobalPrune(0.998, begin=DENSE, end=epochs - 1),
            Sparsest(task.bound),
        ]
    else:
        callbacks = [IterativePrune(MONITOR, task.bound, fraction=FRACTION, begin=DENSE)]
    start = time.perf_counter()
    history = model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=epochs,
        validation_data=validation,
        callbacks=callbacks,
        verbose=0,
    )
    summary = summarize(model)
    held = model.evaluate(*validation, batch_size=1000, verbose=0)[1]
    assert np.float32(held) >= np.float32(task.bound), held
    return {
        "network": name,
        "way": way,
        "seed": seed,
        "epochs": epochs,
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
                f"{100 * statistics.mean(one['validation'] for one in found):.2f}",
                f"{100 * statistics.mean(one['test_error'] for one in found):.2f}",
            ]
        )
    return table(
        ["network", "way", "seeds", "compression", "range", "validation %", "test error %"], rows
    )


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=120, help="(%(default)s)")
    parser.add_argument("--out", default=RESULTS, type=Path)
    options = parser.parse_args()
    cells = earlier(options.out)
    done = {(one["network"], one["way"], one["seed"]) for one in cells}
    for seed in range(options.seeds):
        for name in options.networks:
            for way in WAYS:
                if (name, way, seed) in done:
                    continue
                cells.append(cell(name, way, seed, options.epochs))
                print(report(cells[-1:]), f"{cells[-1]['seconds']:.0f} s", flush=True)
                keep(options.out, cells)
    conclude(options.out, report(cells))


if __name__ == "__main__":
    main()
