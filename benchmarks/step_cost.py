"""What a training step costs with L2L0 and held zeros, or with RelevanceDecay.

It stands beside one with Keras' own L2, or with the inner optimizer alone.

Two fits run in turns in one process, an epoch of each at a time, so that a drift of the
machine's speed hits both; each epoch's time over its neighbour's gives a ratio, and the median
of the ratios is printed. Only the batches count: what callbacks do between epochs does not.

    KERAS_BACKEND=jax python benchmarks/step_cost.py lenet_5_caffe
    KERAS_BACKEND=jax python benchmarks/step_cost.py lenet_5_caffe --what relevance
"""

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_l0 import L2L0, GlobalPrune, RelevanceDecay
from keras_l0.experiments import networks
from keras_l0.versions import versions

BATCH = 100


@dataclass(frozen=True)
class Kind:
    """How a model is trained; each part is made anew for each model."""

    regularizer: Callable[[], keras.regularizers.Regularizer | None] = lambda: None
    optimizer: Callable[[], keras.optimizers.Optimizer] = keras.optimizers.Adam
    callbacks: Callable[[], list[Any]] = list


L2 = Kind(lambda: keras.regularizers.L2(1e-5))
PAIRS = {
    "l2l0": (
        L2,
        Kind(
            lambda: L2L0(l2=1e-5, l0=1e-5, beta=10),
            callbacks=lambda: [GlobalPrune(0.9, begin=0)],
        ),
    ),
    "relevance": (Kind(), Kind(optimizer=lambda: RelevanceDecay("adam", 1e-3, 1e-4))),
    "relevance-auto": (Kind(), Kind(optimizer=lambda: RelevanceDecay("adam", 1e-3, "auto"))),
    "l2": (Kind(), L2),
}


class Turns:
    """Lets one of two threads run at a time; the other waits at its epoch's end."""

    def __init__(self) -> None:
        self._gates = [threading.Semaphore(1), threading.Semaphore(0)]

    def take(self, place: int) -> None:
        """Waits for the turn."""
        self._gates[place].acquire()

    def hand_over(self, place: int) -> None:
        """Gives the turn to the other."""
        self._gates[1 - place].release()


class Stopwatch(keras.callbacks.Callback):
    """Times the batches of each epoch, when it is its turn."""

    def __init__(self, turns: Turns, place: int) -> None:
        super().__init__()
        self.turns, self.place = turns, place
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Waits, then starts the watch."""
        self.turns.take(self.place)
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Notes the time, which is the epoch's if the batch was its last."""
        self.ended = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Reads the watch and hands over."""
        self.seconds.append(self.ended - self.began)
        self.turns.hand_over(self.place)


def measure(network: str, what: str, epochs: int, steps: int) -> dict[str, object]:
    """The ratios of step times, the second kind over the first."""
    rng = np.random.default_rng(0)
    turns = Turns()
    watches = [Stopwatch(turns, place) for place in range(2)]
    threads = []
    for kind, watch in zip(PAIRS[what], watches, strict=True):
        model = getattr(networks, network)(kernel_regularizer=kind.regularizer())
        model.compile(kind.optimizer(), "sparse_categorical_crossentropy", metrics=["accuracy"])
        x = rng.random((BATCH * steps, *model.input_shape[1:]), np.float32)
        y = rng.integers(0, 10, BATCH * steps)
        options = {"batch_size": BATCH, "epochs": epochs, "verbose": 0, "shuffle": False}
        arguments = {"callbacks": [*kind.callbacks(), watch], **options}
        threads.append(threading.Thread(target=model.fit, args=(x, y), kwargs=arguments))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    plain, ours = (watch.seconds[3:] for watch in watches)  # the first epochs compile
    ratios = [b / a for a, b in zip(plain, ours, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    return {
        "network": network,
        "what": what,
        "backend": keras.backend.backend(),
        "ratio_median": statistics.median(ratios),
        "ratio_quartiles": [quartiles[0], quartiles[2]],
        "first_ms_per_step": 1000 * statistics.median(plain) / steps,
        "second_ms_per_step": 1000 * statistics.median(ours) / steps,
        "epochs": len(ratios),
        "steps": steps,
        "versions": versions(),
    }


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=("lenet_300_100", "lenet_5_caffe"))
    parser.add_argument("--what", choices=PAIRS, default="l2l0", help="(%(default)s)")
    parser.add_argument("--epochs", type=int, default=43)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    print(
        json.dumps(measure(options.network, options.what, options.epochs, options.steps), indent=2)
    )


if __name__ == "__main__":
    main()
