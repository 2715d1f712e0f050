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
        model: built and compiled.
        settings: as JSON can hold them.
        callbacks: known by their classes.
        data: arrays are known by what is in them, all else by its class.
    """
    shapes = [(tuple(one.shape), one.dtype) for one in model.variables]
    return {
        "model": f"{model.count_params():,} parameters, {_digest([repr(shapes).encode()])}",
        "optimizer": type(model.optimizer).__name__,
        "backend": keras.config.backend(),
        "callbacks": [type(callback).__name__ for callback in callbacks],
        **settings,
        **{name: _fingerprint(given) for name, given in data.items()},
    }


def _fingerprint(data: Any) -> str:
    return f"arrays {_digest(_contents(data))}" if isinstance(data, tuple) else type(data).__name__


def _contents(arrays: Any) -> Iterator[Any]:
    for one in map(np.asarray, keras.tree.flatten(arrays)):
        if one.dtype == object:  # texts, whose addresses are others in each process
            one = one.astype(str)
        yield repr((one.shape, one.dtype.str)).encode()
        # Not copied where it lies in one piece; hashlib knows bytes alone.
        yield np.ascontiguousarray(one).reshape(-1).view(np.uint8)


def _digest(parts: Iterable[Any]) -> str:
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(part)
    return found.hexdigest()
