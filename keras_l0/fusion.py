"""Many operations in one pass over their arrays, where the backend would take one for each."""

import functools
from collections.abc import Callable
from typing import Any

import keras


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of tensors, compiled by XLA within a TensorFlow graph; elsewhere as it is.

    JAX joins operations by itself, PyTorch runs each on its own.
    """
    if keras.config.backend() != "tensorflow":
        return function
    import tensorflow as tf

    compiled = tf.function(function, jit_compile=True, autograph=False)

    def call(*args: Any) -> Any:
        return (compiled if is_fusing() else function)(*args)

    return call


def is_fusing() -> bool:
    """Whether operations are joined, as by ``jax.jit`` and by XLA in a TensorFlow graph.

    Then many that are cheap cost less than a dear one.
    """
    if keras.config.backend() != "tensorflow":
        return bool(keras.config.backend() == "jax")
    import tensorflow as tf

    return not tf.executing_eagerly() and _has_xla()


@functools.cache
def _has_xla() -> bool:
    """Whether this TensorFlow compiles by XLA, which not every build of it does."""
    import tensorflow as tf

    try:
        with tf.init_scope():
            tf.function(tf.exp, jit_compile=True)(0.0)
    except (tf.errors.OpError, NotImplementedError):
        return False
    return True
