"""Trains one network by one method, as ``accuracy.py`` asks for it, and says how right it is.

It runs in the environment of the library that is asked for. A job comes as JSON on standard input,
what came of it goes as JSON to standard output.
"""

import itertools
import json
import os
import sys
from typing import Any

import numpy as np
from architectures import ARCHITECTURES

Job = dict[str, Any]


def initial(model: Any, seed: int) -> None:
    """Glorot's uniform kernels, the same in each Keras; all else begins as Keras has it."""
    rng = np.random.default_rng(seed)
    for layer in kernels(model):
        shape = tuple(layer.kernel.shape)
        area = int(np.prod(shape[:-2]))
        limit = np.sqrt(6 / (area * (shape[-2] + shape[-1])))
        layer.kernel.assign(rng.uniform(-limit, limit, shape).astype(np.float32))


def kernels(model: Any) -> list[Any]:
    """The layers that have a kernel, out of their wrappers."""
    inner = [getattr(layer, "layer", layer) for layer in model.layers]
    return [layer for layer in inner if getattr(layer, "kernel", None) is not None]


def batches(x: Any, y: Any, job: Job) -> Any:
    """The examples of all epochs, each in another order, the same in each Keras."""
    import tensorflow as tf

    orders = [
        np.random.default_rng((job["seed"], epoch)).permutation(len(x))
        for epoch in range(job["epochs"])
    ]
    kept = np.concatenate([order[: job["steps"] * job["batch"]] for order in orders])
    places = tf.data.Dataset.from_tensor_slices(kept).batch(job["batch"])
    given = tf.constant(x), tf.constant(y)  # as constants of the map they were copied each time
    still = tf.data.Options()
    still.autotune.enabled = False  # at the end its thread may sleep for half a minute
    found = places.map(lambda place: tuple(tf.gather(one, place) for one in given)).prefetch(2)
    return found.with_options(still)


def ours(job: Job) -> tuple[Any, Any, list[Any]]:
    """Keras 3, a model that is regularized, and our pruning."""
    import keras

    from keras_l0 import L2L0, GlobalPrune

    keras.utils.set_random_seed(job["seed"])
    regularizer = L2L0(l2=job["l2"], l0=job["l0"], beta=job["beta"])
    if not job["l0"]:
        regularizer = keras.regularizers.L2(job["l2"])
    model = ARCHITECTURES[job["network"]].build(keras, regularizer)
    initial(model, job["seed"])
    prune = GlobalPrune(job["sparsity"], begin=job["begin"], end=job["end"], score="magnitude")
    return keras, model, [prune]


def gates(job: Job) -> tuple[Any, Any, list[Any]]:
    """Keras 3 and a model of hard-concrete gates."""
    import keras
    from hard_concrete import GatedKeras

    keras.utils.set_random_seed(job["seed"])
    model = ARCHITECTURES[job["network"]].build(GatedKeras(job["strength"]))
    initial(model, job["seed"])
    return keras, model, []


def tfmot(job: Job) -> tuple[Any, Any, list[Any]]:
    """tf_keras and a model under tfmot's pruning, each layer to its own sparsity."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow_model_optimization as tfmot
    import tf_keras

    tf_keras.utils.set_random_seed(job["seed"])
    dense = ARCHITECTURES[job["network"]].build(tf_keras, tf_keras.regularizers.L2(job["l2"]))
    steps = job["steps"]
    wanted = iter(job.get("sparsities") or itertools.repeat(job["sparsity"]))

    def pruned(layer: Any) -> Any:
        if not hasattr(layer, "kernel"):
            return layer
        schedule = tfmot.sparsity.keras.PolynomialDecay(
            initial_sparsity=0.0,
            final_sparsity=min(next(wanted), 1 - 1e-6),  # it takes no 1
            begin_step=(job["begin"] - 1) * steps,
            end_step=job["end"] * steps,
            frequency=steps,  # at each epoch's beginning, to the share that ours has then
        )
        return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule)

    model = tf_keras.models.clone_model(dense, clone_function=pruned)
    initial(model, job["seed"])
    return tf_keras, model, [tfmot.sparsity.keras.UpdatePruningStep()]


def plain(keras: Any, model: Any, job: Job) -> Any:
    """A model without wrappers, gates and penalties, of the same outputs."""
    found = ARCHITECTURES[job["network"]].build(keras)
    pairs = zip(kernels(model), kernels(found), strict=True)
    for old, new in pairs:
        new.kernel.assign(old.folded() if hasattr(old, "folded") else np.asarray(old.kernel))
        if new.bias is not None:
            new.bias.assign(np.asarray(old.bias))
    for old, new in zip(model.layers, found.layers, strict=True):
        if "BatchNormalization" in type(new).__name__:
            new.set_weights(old.get_weights())
    return found


def right(model: Any, x: Any, y: Any) -> float:
    """The share of examples that a model is right about; ``evaluate`` would tune a data set."""
    parts = np.array_split(x, len(x) // 500)
    found = [np.asarray(model(part, training=False)).argmax(-1) for part in parts]
    return float(np.mean(np.concatenate(found) == y))


def main() -> None:
    """Trains, and prints what came of it."""
    job: Job = json.load(sys.stdin)
    data = np.load(job["data"])
    job["steps"] = len(data["x"]) // job["batch"]
    make = {"tfmot": tfmot, "tfmot-layers": tfmot, "hard-concrete": gates}.get(job["method"], ours)
    keras, model, callbacks = make(job)
    rate = keras.optimizers.schedules.CosineDecay(job["rate"], job["epochs"] * job["steps"])
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    model.fit(
        batches(data["x"], data["y"], job),
        epochs=job["epochs"],
        steps_per_epoch=job["steps"],
        verbose=0,
        callbacks=callbacks,
    )
    model = plain(keras, model, job)
    accuracy = right(model, data["x_seen"], data["y_seen"])
    weights = [np.asarray(layer.kernel) for layer in kernels(model)]
    zeros = [int(np.count_nonzero(w == 0)) for w in weights]
    reached = sum(zeros) / sum(w.size for w in weights)
    if make is not gates and abs(reached - job["sparsity"]) > 1e-3:
        raise SystemExit(f"{job['method']} reached a sparsity of {reached}, not {job['sparsity']}")
    layers = [zero / w.size for zero, w in zip(zeros, weights, strict=True)]
    print(json.dumps({"accuracy": accuracy, "reached": reached, "layers": layers}))


if __name__ == "__main__":
    main()
