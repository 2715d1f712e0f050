"""Many operations in one pass over their arrays, where the backend would take one for each."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras


def fused(
    function: Callable[..., Any], assigned: Sequence[keras.Variable] = ()
) -> Callable[..., Any]:
    """The function, compiled by XLA within a TensorFlow graph; elsewhere as it is.

    JAX joins operations by itself, PyTorch runs each on its own. Variables that the function
    assigns are written in place, without an array for the new value.

    Args:
        function: a function of tensors.
        assigned: the variables that it assigns. XLA takes them only from one device.
    """
    if keras.config.backend() != "tensorflow":
        return function
    import tensorflow as tf

    compiled = tf.function(function, jit_compile=True)

    def call(*args: Any) -> Any:
        # Called by itself it would be compiled for one evaluation.
        together = is_fusing() and len({each.value.device for each in assigned}) <= 1
        return (compiled if together else function)(*args)

    return call


def is_fusing() -> bool:
    """Whether operations are joined here: then many cheap ones are better than a dear one."""
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
