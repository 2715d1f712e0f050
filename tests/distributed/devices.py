"""Trains on one of four host devices and on all, by Keras' distributions on JAX.

Arguments: ``data`` for ``DataParallel`` or ``model`` for ``ModelParallel`` with kernels that are
cut in two, the optimizer, and the callbacks, ``compress``, ``shrink`` or ``ties``.
"""

import json
import sys
from typing import Any

import keras
import numpy as np
from keras.distribution import DataParallel, DeviceMesh, LayoutMap, ModelParallel
from numpy.typing import NDArray
from parts import apart, compared, compressed, data, fitted, net

from keras_l0 import prune, shrink, summarize
from keras_l0.pruning.targets import Weight


def copies(variable: keras.Variable) -> list[NDArray[Any]]:
    """The value on each device; of a kernel that is cut, the whole by each row of devices."""
    parts: dict[str, list[NDArray[Any]]] = {}
    for shard in variable.value.addressable_shards:
        parts.setdefault(str(shard.index), []).append(np.asarray(shard.data))
    if len(parts) == 1:
        (found,) = parts.values()
        return found
    return [np.concatenate(whole, -1) for whole in zip(*parts.values(), strict=True)]


def parallel(kind: str) -> DataParallel | ModelParallel:
    """The distribution over all devices."""
    if kind == "data":
        return DataParallel()
    layouts = LayoutMap(DeviceMesh((2, 2), ["batch", "model"]))
    layouts[".*conv2d.*kernel"] = (None, None, None, "model")
    layouts[".*dense.*kernel"] = (None, "model")
    return ModelParallel(layout_map=layouts, batch_dim_name="batch")


def cut(model: keras.Model) -> list[int]:
    """Into how many parts each kernel is cut."""
    kernels = [one for one in model.weights if one.name == "kernel"]
    return [len({str(s.index) for s in one.value.addressable_shards}) for one in kernels]


def shrunk(model: keras.Model) -> dict[str, Any]:
    """What pruning at once, summary and shrinking say of it."""
    pruned = prune(model, 0.5)
    neurons = prune(model, method="neuron", fraction=0.5, round_to=2)
    summary, small = summarize(model), shrink(model)
    x, _ = data()
    outputs = [one.predict(x, verbose=0) for one in (model, small)]
    prune(model, method="neuron", fraction=0.6, layers="conv*")
    try:
        shrink(model)
        error = ""
    except ValueError as refused:
        error = str(refused)
    return {
        "odd": error,
        "zeros": [pruned.zeros, neurons.zeros],
        "summary": summary.to_dict(),
        "cut": [cut(model), cut(small)],
        "shapes": [list(one.shape) for one in small.weights],
        "apart": apart(outputs[:1], outputs[1:]),
    }


def ties(model: keras.Model) -> dict[str, Any]:
    """The zeros of pruning weights of few values at once, and whether a kernel was gathered."""
    rng = np.random.default_rng(0)
    gathered = []
    values = Weight.values

    def told(weight: Weight) -> NDArray[np.floating]:
        gathered.append(weight.path)
        return values(weight)

    Weight.values = told  # type: ignore[method-assign]
    found = []
    for sparsity in (0.1, 0.33, 0.6, 0.95):
        for one in model.weights:
            if one.name == "kernel":
                one.assign(rng.integers(-3, 4, one.shape) / 4)
        pruned = prune(model, sparsity)
        kernels = [one for one in model.weights if one.name == "kernel"]
        found.append([pruned.zeros, [np.asarray(one).tolist() for one in kernels]])
    Weight.values = values  # type: ignore[method-assign]
    return {"found": found, "gathered": len(gathered), "cut": cut(model)}


def main() -> None:
    """Prints a line for each callback."""
    kind, optimizer, *callbacks = sys.argv[1:]
    distribution = parallel(kind)
    for callback in callbacks:
        runs = []
        for over in (None, distribution):
            keras.distribution.set_distribution(over)
            model = net(optimizer)
            if callback in ("shrink", "ties"):
                print(json.dumps(shrunk(model) if callback == "shrink" else ties(model)))
            elif callback == "compress":
                runs.append(compressed(model, copies))
            else:
                runs.append(fitted(model, callback, copies))
        if runs:
            print(json.dumps({**compared(*runs), "cut": cut(model)}))


if __name__ == "__main__":
    main()
