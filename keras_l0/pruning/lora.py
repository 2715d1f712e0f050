"""LoRA (Keras' ``enable_lora``): a layer computes with its kernel plus a low-rank product."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


def is_changed(layer: keras.Layer, variable: keras.Variable) -> bool:
    """Whether LoRA is enabled on the layer, and changes this kernel or can do so in training.

    Keras merges the product into the kernel of a file, but a loaded model has LoRA still: its
    factors are zero, and the momentum of a loaded optimizer alone makes them other than zero.
    """
    name = _name_of(layer, variable)
    if name is None:
        return False
    factors = [getattr(layer, f"lora_{name}_{factor}") for factor in "ab"]
    return any(one.trainable or np.any(ops.convert_to_numpy(one)) for one in factors)


def merged(layer: keras.Layer, variable: keras.Variable) -> NDArray[Any]:
    """What the layer computes with: ``kernel + alpha / rank · a · b``."""
    name = _name_of(layer, variable)
    assert name is not None, "only asked for a variable that LoRA changes"
    return np.asarray(ops.convert_to_numpy(ops.cast(getattr(layer, name), variable.dtype)))


def _name_of(layer: keras.Layer, variable: keras.Variable) -> str | None:
    """The name of the property that adds LoRA's product to the variable."""
    if not getattr(layer, "lora_enabled", False):
        return None
    names = ("kernel", "embeddings")
    return next((name for name in names if getattr(layer, f"_{name}", None) is variable), None)
