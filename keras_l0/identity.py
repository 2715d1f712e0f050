"""What a run of training is told from others by."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np


def identity(
    model: keras.Model,
    settings: Mapping[str, Any],
    callbacks: Sequence[keras.callbacks.Callback],
    **data: Any,
) -> dict[str, Any]:
    """What makes a run this one: model, data, settings, callbacks and backend.

    Args:
        model: built and compiled; its layers are known by their classes and by the numbers and
            names of their configuration, so are loss and optimizer, but for the learning rate.
        settings: as JSON can hold them.
        callbacks: known by their classes.
        data: arrays are known by what is in them, all else by its class.
    """
    shapes = [(tuple(one.shape), one.dtype) for one in model.variables]
    return {
        "model": f"{model.count_params():,} parameters, {digest([repr(shapes).encode()])}",
        "network": digest([repr([_traits(one) for one in model._flatten_layers()]).encode()]),
        "loss": [_traits(one) for one in keras.tree.flatten(getattr(model, "loss", None))],
        "optimizer": _traits(model.optimizer),
        "backend": keras.config.backend(),
        "callbacks": [type(callback).__name__ for callback in callbacks],
        **settings,
        **{name: _fingerprint(given) for name, given in data.items()},
    }


# What does not make another run: a rate that callbacks change, names that Keras counts up.
_CHANGES = ("name", "learning_rate", "trainable", "seed")


def _traits(one: Any) -> dict[str, Any]:
    """The class of a layer, loss or optimizer, with the numbers and names it was made with."""
    if isinstance(one, str):
        return {"name": one}
    try:
        config = one.get_config()
    except Exception:  # a function has none, and a layer of the user's own may raise any
        config = {}
    return {
        "class": getattr(one, "__name__", type(one).__name__),
        **{
            name: value
            for name, value in config.items()
            if name not in _CHANGES and isinstance(value, bool | int | float | str)
        },
    }


def _fingerprint(data: Any) -> str:
    return f"arrays {digest(_contents(data))}" if isinstance(data, tuple) else type(data).__name__


def _contents(arrays: Any) -> Iterator[Any]:
    for one in map(np.asarray, keras.tree.flatten(arrays)):
        if one.dtype == object:  # texts, whose addresses are others in each process
            one = one.astype(str)
        yield repr((one.shape, one.dtype.str)).encode()
        # Not copied where it lies in one piece; hashlib knows bytes alone.
        yield np.ascontiguousarray(one).reshape(-1).view(np.uint8)


def digest(parts: Iterable[Any]) -> str:
    """A hash of bytes, the same in every process."""
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(part)
    return found.hexdigest()
