"""Changes to how a model's layers and operations are traced, for the time of a conversion."""

import contextlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import keras
from keras import ops
from keras.src.ops.numpy import Argmax, Argmin  # the operations in a graph have no public name

from keras_l0.structure.graph import functional, has_graph

_MARK = "keras_l0.{}."
_MARKED = re.compile(r"keras_l0\.(\d+)\.")


@contextlib.contextmanager
def convertible_calls(model: keras.Model) -> Iterator[None]:
    """Lets a model be traced with the same values, but in a form that converts right.

    ``TimeDistributed`` over an unknown number of steps: Keras' own ``call`` maps over as many
    steps as the batch has samples, so that a trace with a batch of 1 computes the first step only.
    The steps are moved into the batch instead; the inner layer treats samples independently.

    ``keras.ops.argmax`` and ``argmin`` as operations of the graph: Keras orders -0.0 before 0.0
    with bitwise operations, which TFLite lacks. Without them, the two are equal.

    Args:
        model: its layers and operations compute as before at the end, and after an exception.
    """

    def replacement(op: Any, call: Callable[..., Any]) -> Callable[..., Any] | None:
        if getattr(type(op), "call", None) is keras.layers.TimeDistributed.call:
            return partial(_all_steps, op, call)
        if type(op) in (Argmax, Argmin):
            return partial(_first_extreme, op)
        return None

    with _replaced(model, replacement):
        yield


@contextlib.contextmanager
def marked_calls(model: keras.Model) -> Iterator[list[Any]]:
    """Lets the names of all nodes of a trace tell the layers and operations that they belong to.

    Yields what ``owners`` needs to read them. Models with a graph of their own are no owners.
    """
    marked: list[Any] = []

    def replacement(op: Any, call: Callable[..., Any]) -> Callable[..., Any] | None:
        if has_graph(op):
            return None
        marked.append(op)
        return partial(_in_scope, _MARK.format(len(marked) - 1), call)

    with _replaced(model, replacement):
        yield marked


def owners(name: str, marked: list[Any]) -> list[Any]:
    """The layers and operations that a node is in, by its name, the innermost last."""
    return [marked[int(place)] for place in _MARKED.findall(name)]


@contextlib.contextmanager
def _replaced(
    model: keras.Model, replacement: Callable[[Any, Callable[..., Any]], Any]
) -> Iterator[None]:
    """Puts another ``call`` on the layers and operations for which one is given."""
    missing = object()
    before = []
    try:
        for op in _operations(model):
            other = replacement(op, op.call)
            if other is not None:
                before.append((op, vars(op).get("call", missing)))
                vars(op)["call"] = other  # not setattr: Keras tracks what is set on a layer
        yield
    finally:
        for op, call in before:
            if call is missing:
                del vars(op)["call"]
            else:
                vars(op)["call"] = call


def _operations(model: keras.Model) -> list[Any]:
    """All layers, and all operations of ``keras.ops`` in graphs, each once."""
    found = {id(layer): layer for layer in model._flatten_layers()}
    for layer in list(found.values()):
        if has_graph(layer):
            found |= {id(op): op for op in functional(layer).operations}
    return list(found.values())


def _in_scope(scope: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    import tensorflow as tf

    with tf.name_scope(scope):
        return call(*args, **kwargs)


def _all_steps(
    layer: Any,
    call: Callable[..., Any],
    inputs: Any,
    training: bool | None = None,
    mask: Any = None,
) -> Any:
    """What ``TimeDistributed.call`` computes, for an unknown number of steps too."""
    if inputs.shape[1] is not None:
        return call(inputs, training=training, mask=mask)
    kwargs: dict[str, Any] = {}
    if layer.layer._call_has_mask_arg and mask is not None:
        kwargs["mask"] = _steps_as_samples(mask)
    if layer.layer._call_has_training_arg:
        kwargs["training"] = training
    outputs = layer.layer.call(_steps_as_samples(inputs), **kwargs)
    return ops.reshape(outputs, (*ops.shape(inputs)[:2], *ops.shape(outputs)[1:]))


def _steps_as_samples(tensor: Any) -> Any:
    """Shape (batch, steps, ...) to (batch · steps, ...)."""
    return ops.reshape(tensor, (-1, *ops.shape(tensor)[2:]))


def _first_extreme(op: Any, x: Any) -> Any:
    """The position of the first largest or smallest value, as TensorFlow alone computes it."""
    import tensorflow as tf

    find = tf.argmax if isinstance(op, Argmax) else tf.argmin
    if op.axis is not None:
        found = find(x, axis=op.axis, output_type=tf.int32)
        return tf.expand_dims(found, op.axis) if op.keepdims else found
    found = find(tf.reshape(x, [-1]), output_type=tf.int32)
    return tf.reshape(found, [1] * len(x.shape)) if op.keepdims else found
