"""Activations that Keras 3 has and tf_keras has not, or has by another formula, for tf_keras."""

from typing import Any

import tensorflow as tf

from keras_l0.tfmot.legacy import legacy_keras

_registered = legacy_keras().saving.register_keras_serializable("keras_l0")


@_registered
def hard_sigmoid(x: Any) -> Any:
    """``relu6(x + 3) / 6``; that of tf_keras is ``clip(0.2 x + 0.5, 0, 1)``."""
    return tf.nn.relu6(x + 3.0) / 6.0


@_registered
def hard_silu(x: Any) -> Any:
    """``x relu6(x + 3) / 6``, hard swish."""
    return x * hard_sigmoid(x)


@_registered
def relu6(x: Any) -> Any:
    """``min(max(x, 0), 6)``."""
    return tf.nn.relu6(x)


@_registered
def leaky_relu(x: Any) -> Any:
    """``x``, and ``0.2 x`` below 0."""
    return tf.nn.leaky_relu(x, 0.2)


@_registered
def log_sigmoid(x: Any) -> Any:
    """``log(1 / (1 + exp(-x)))``."""
    return tf.math.log_sigmoid(x)


@_registered
def log_softmax(x: Any) -> Any:
    """The logarithm of softmax over the last axis."""
    return tf.nn.log_softmax(x)


FUNCTIONS = {
    function.__name__: function
    for function in (hard_sigmoid, hard_silu, relu6, leaky_relu, log_sigmoid, log_softmax)
}
