"""What the networks of the experiments share."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any, TypeAlias

import keras
from keras import layers

from keras_l0.errors import invalid_argument

Penalty: TypeAlias = keras.regularizers.Regularizer | str | None


def softmax(classes: int, kernel_regularizer: Penalty) -> keras.Layer:
    """The last layer."""
    # Probabilities stay in float32 under mixed precision, as Keras advises: float16 would
    # round the small ones to zero and the loss with them.
    return layers.Dense(
        int(classes),
        activation="softmax",
        kernel_regularizer=kernel_regularizer,
        dtype="float32",
        name="output",
    )


def shorten_memory(model: keras.Model) -> keras.Model:
    """Gives batch normalization a momentum of 0.9.

    The 0.999 of ``keras.applications`` is for longer runs: after some thousand steps the moving
    moments are still those of the start.
    """
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.9
    return model


def check_figures(input_shape: Sequence[int], rank: int, classes: int, **figures: Any) -> None:
    """Raises a ``ValueError`` unless all are positive integers, as many as there should be."""
    if not positive(input_shape) or len(input_shape) != rank:
        raise invalid_argument("input_shape", f"{rank} positive integers", input_shape)
    for name, value in {"classes": classes, **figures}.items():
        if not positive(value if isinstance(value, list) else [value]):
            raise invalid_argument(name, "a positive integer", value)


def positive(sizes: Sequence[int]) -> bool:
    """Whether all are positive integers."""
    return all(
        isinstance(size, Integral) and not isinstance(size, bool) and size > 0 for size in sizes
    )
