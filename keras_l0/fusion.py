"""Many operations in one pass over their arrays, where the backend would take one for each."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

# Weights a variable, in the mean of a step: with fewer, what XLA takes for each variable costs
# more than the passes that it saves.
_WORTH_IT = 2**14


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


def fused_update(
    update: Callable[..., None],
    grads: Sequence[Any],
    variables: Sequence[keras.Variable],
    optimizer: keras.optimizers.Optimizer,
    read: Sequence[keras.Variable] = (),
) -> None:
    """``update(*grads)``, which steps the optimizer: within a TensorFlow graph compiled by XLA.

    Keras' optimizers take a dozen passes over their arrays there. A step of small arrays runs as
    it is, and so does one with something that XLA may not know or would be slow at.

    Args:
        update: assigns the variables.
        grads: its arguments; ``None`` for a variable without one.
        variables: all that it assigns, except the optimizer's.
        optimizer: the innermost one.
        read: further variables that it reads.
    """
    if keras.config.backend() != "tensorflow" or not _compiles(grads, variables, optimizer, read):
        update(*grads)
        return
    import tensorflow as tf

    with tf.device(variables[0].value.device):
        tf.function(update, jit_compile=True, autograph=False)(*grads)


def _compiles(
    grads: Sequence[Any],
    variables: Sequence[keras.Variable],
    optimizer: keras.optimizers.Optimizer,
    read: Sequence[keras.Variable],
) -> bool:
    """Whether a step in a graph is of large arrays, dense, on one device, and Keras' own.

    A class of somebody else may have operations that XLA does not know.
    """
    import tensorflow as tf

    if not is_fusing() or tf.distribute.has_strategy():
        return False
    if any(isinstance(grad, tf.IndexedSlices) for grad in grads):
        return False
    if not all(isinstance(one, keras.Variable) for one in variables):
        return False  # a step of the user's own may hand over TensorFlow's variables
    if not variables or sum(math.prod(one.shape) for one in variables) < _WORTH_IT * len(variables):
        return False
    parts = [optimizer, *getattr(optimizer, "optimizers", ())]  # a MultiOptimizer has parts
    if any(part.gradient_accumulation_steps or part.ema_overwrite_frequency for part in parts):
        return False  # XLA copies all arrays through what happens in some steps only
    devices = {one.value.device for one in (*variables, *optimizer.variables, *read)}
    run = [*parts, *(part._learning_rate for part in parts), *(one.constraint for one in variables)]
    modules = {type(one).__module__.split(".")[0] for one in run if one is not None}
    return len(devices) == 1 and modules == {"keras"}


def is_fusing() -> bool:
    """Whether operations are joined, as by ``jax.jit`` and by XLA in a TensorFlow graph.

    Then many that are cheap cost less than a dear one.
    """
    if keras.config.backend() != "tensorflow":
        return bool(keras.config.backend() == "jax")
    import tensorflow as tf

    return not tf.executing_eagerly() and not _is_watched() and _has_xla()


def _is_watched() -> bool:
    """Whether TensorFlow puts operations of its own behind each, which XLA does not know.

    ``tf.debugging.enable_check_numerics`` has it do so.
    """
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        tf.constant(0.0)
    return len(graph.get_operations()) > 1


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
