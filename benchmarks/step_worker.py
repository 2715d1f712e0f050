"""Trains a network epoch by epoch as it is told, and says how long each epoch's steps took.

Begun by ``step_cost.py`` in the environment of the kind that is measured. At each epoch's beginning
it reads a line: ``go``, or ``end``, at which it prints what it has used and ends. A step's time is
that until its loss is there.

    python benchmarks/step_worker.py NETWORK KIND STEPS
"""

import json
import os
import sys
import time
from typing import Any

import memory
import numpy as np
from architectures import ARCHITECTURES, Architecture

L2 = 1e-5
SPARSITY = 0.9


def ours(kind: str, architecture: Architecture) -> tuple[Any, Any, Any, list[Any]]:
    """Keras 3, a model, its optimizer and callbacks."""
    import keras

    from keras_l0 import L2L0, GlobalPrune, RelevanceDecay

    regularizer: Any = None
    optimizer: Any = keras.optimizers.Adam()
    callbacks: list[Any] = []
    if kind == "l2":
        regularizer = keras.regularizers.L2(L2)
    elif kind in ("l2l0", "l2l0-held"):
        regularizer = L2L0(l2=L2, l0=1e-5, beta=10)
    elif kind.startswith("relevance"):
        alpha = "auto" if kind.endswith("auto") else 1e-4
        optimizer = RelevanceDecay("adam", 1e-3, alpha)
    if kind == "l2l0-held":
        callbacks = [GlobalPrune(SPARSITY, begin=0, end=2, score="magnitude")]
    return keras, architecture.build(keras, regularizer), optimizer, callbacks


def theirs(kind: str, architecture: Architecture) -> tuple[Any, Any, Any, list[Any]]:
    """tf_keras, a model, pruned by tfmot or not, its optimizer and callbacks."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tf_keras

    model = architecture.build(tf_keras, tf_keras.regularizers.L2(L2))
    if kind == "tf_keras-l2":
        return tf_keras, model, tf_keras.optimizers.Adam(), []
    import tensorflow_model_optimization as tfmot

    schedule = tfmot.sparsity.keras.ConstantSparsity(SPARSITY, begin_step=0)
    kinds = (tf_keras.layers.Dense, tf_keras.layers.Conv2D)

    def pruned(layer: Any) -> Any:
        if not isinstance(layer, kinds):
            return layer
        return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule)

    model = tf_keras.models.clone_model(model, clone_function=pruned)
    return tf_keras, model, tf_keras.optimizers.Adam(), [tfmot.sparsity.keras.UpdatePruningStep()]


def main() -> None:
    """Trains until told to end."""
    network, kind, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
    architecture = ARCHITECTURES[network]
    make = theirs if kind in ("tf_keras-l2", "tfmot") else ours
    keras, model, optimizer, callbacks = make(kind, architecture)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    compute_loss, traces = model.compute_loss, [0]

    def counting(*args: Any, **kwargs: Any) -> Any:
        traces[0] += 1  # Python is here only while a step is traced
        return compute_loss(*args, **kwargs)

    model.compute_loss = counting

    class Turns(keras.callbacks.Callback):  # type: ignore[misc,name-defined]
        first = 0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if sys.stdin.readline().strip() != "go":
                used = {"traces": self.first, "retraces": traces[0] - self.first}
                print(json.dumps({**used, "peak_mib": memory.mib("VmHWM")}), flush=True)
                os._exit(0)
            self.seconds: list[float] = []
            self.began = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            float(np.asarray(logs["loss"]))
            now = time.perf_counter()
            self.seconds.append(now - self.began)
            self.began = now

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.first = self.first or traces[0]
            print(json.dumps({"seconds": self.seconds}), flush=True)

    rng = np.random.default_rng(0)
    number = architecture.batch * steps
    x = rng.random((number, *architecture.input_shape), np.float32)
    y = rng.integers(0, 10, number)
    data: dict[str, Any] = {"x": x, "y": y, "batch_size": architecture.batch, "shuffle": False}
    if make is theirs or keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # What `fit` makes of arrays has threads of its own, which stall where others are in turn.
        one = tf.data.Dataset.from_tensors((x[: architecture.batch], y[: architecture.batch]))
        data = {"x": one.repeat(steps)}
    model.fit(**data, epochs=10**6, verbose=0, callbacks=[*callbacks, Turns()])


if __name__ == "__main__":
    main()
