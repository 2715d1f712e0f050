"""What callbacks remember from one epoch to the next, such as the best value so far."""

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_l0.pruning.iterative import IterativePrune
from keras_l0.pruning.keep import KeepZeros

# They find all they need: in the weights, in the logs that are kept, in the file they append to.
_FIND_IT = (KeepZeros, keras.callbacks.History, keras.callbacks.CSVLogger)


def remembered(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """A callback's numbers and arrays of numbers, and lists of those.

    What its constructor was given is no state.
    """
    if isinstance(callback, IterativePrune):
        return callback.get_state()
    if isinstance(callback, _FIND_IT):
        return {}
    given = inspect.signature(type(callback)).parameters
    return {
        name: value
        for name, value in vars(callback).items()
        if name not in given and _is_plain(value)
    }


def remind(callback: keras.callbacks.Callback, found: Mapping[str, Any]) -> None:
    """Gives a callback what ``remembered`` found."""
    if isinstance(callback, IterativePrune):
        callback.set_state(found)
    else:
        for name, value in found.items():
            setattr(callback, name, value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, np.generic | np.ndarray):
        return value.dtype.kind in "biuf" and value.dtype.itemsize <= 8
    return value is None or isinstance(value, bool | int | float)
