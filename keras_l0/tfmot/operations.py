"""What a model computes without a layer, in the other Keras."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_l0.errors import invalid_argument
from keras_l0.tfmot.layers import NEW, OLD, activation_of, named
from keras_l0.tfmot.legacy import legacy_keras

_MERGING = {"Add", "Subtract", "Multiply", "Maximum", "Minimum"}
"""Operations on two tensors that are layers in tf_keras."""

_BEHIND: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "Add": lambda constant: (1.0, constant),
    "Subtract": lambda constant: (1.0, -constant),
    "Multiply": lambda constant: (constant, 0.0),
    "Divide": lambda constant: (1.0 / constant, 0.0),
    "TrueDivide": lambda constant: (1.0 / constant, 0.0),
}
"""Scale and offset of a tensor with a constant behind it."""

_BEFORE: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    **{name: _BEHIND[name] for name in ("Add", "Multiply")},
    "Subtract": lambda constant: (-1.0, constant),
}
"""The same with the constant before it."""

_ACTIVATIONS = {
    "Relu": "relu",
    "Relu6": "relu6",
    "Selu": "selu",
    "Silu": "silu",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "Softsign": "softsign",
}
"""Operations without settings, by the activations that they are."""

_NEW = {
    "math.add": "add",
    "__operators__.add": "add",
    "math.subtract": "subtract",
    "math.multiply": "multiply",
    "math.divide": "divide",
    "math.truediv": "divide",
    "math.maximum": "maximum",
    "math.minimum": "minimum",
    "nn.relu": "relu",
    "nn.relu6": "relu6",
    "math.sigmoid": "sigmoid",
    "math.tanh": "tanh",
    "nn.silu": "silu",
    "math.softplus": "softplus",
    "nn.softmax": "softmax",
}
"""What is in ``keras.ops`` of that which is in ``tf``."""


def to_old(op: Any, args: Sequence[Any], kwargs: Mapping[str, Any], name: str | None = None) -> Any:
    """An operation of Keras 3 on tensors of tf_keras, as a layer of its name or another.

    Raises:
        ValueError: if it has none.
    """
    made = None if kwargs else _layer(op, args, name or op.name)
    if made is None:
        raise invalid_argument(
            "model",
            "operations on floats that have a layer in tf_keras",
            f"{op.name}, a {type(op).__name__}",
            "Write it as a layer of keras.layers",
        )
    layer, inputs = made
    return layer(inputs)


def _layer(op: Any, args: Sequence[Any], name: str) -> tuple[Any, Any] | None:
    """The layer of tf_keras that does what an operation does, and what it is called on."""
    layers, kind = legacy_keras().layers, type(op).__name__
    constants = [_constant(given) for given in args]
    tensors = [given for given, number in zip(args, constants, strict=True) if number is None]
    if not tensors or not all(tf.is_tensor(one) and one.dtype.is_floating for one in tensors):
        return None  # a list of tensors, or what a slice is made of
    how = {"name": name, "dtype": tensors[0].dtype.name}
    if len(args) == 1:
        if kind in _ACTIVATIONS:
            return layers.Activation(activation_of(_ACTIVATIONS[kind], OLD), **how), args[0]
        if kind == "Gelu" and not op.approximate:
            return layers.Activation("gelu", **how), args[0]
        if kind == "Softmax" and op.axis is not None:
            return layers.Softmax(op.axis, **how), args[0]
        return (layers.ELU(op.alpha, **how), args[0]) if kind == "Elu" else None
    if len(args) != 2:
        return None
    if len(tensors) == 2:
        alike = len({(tensor.dtype, len(tensor.shape)) for tensor in tensors}) == 1
        return (getattr(layers, kind)(**how), tensors) if kind in _MERGING and alike else None
    behind = constants[0] is None
    table, constant = (_BEHIND, constants[1]) if behind else (_BEFORE, constants[0])
    if kind not in table or np.ndim(constant) >= len(tensors[0].shape):
        return None  # that would be an operation on the examples' axis
    if "Divide" in kind and not np.all(constant):
        return None
    return layers.Rescaling(*table[kind](constant), **how), tensors[0]


def to_new(layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """An operation of TensorFlow on tensors of Keras 3.

    Raises:
        ValueError: if ``keras.ops`` has none.
    """
    symbol = getattr(layer, "symbol", type(layer).__name__)
    if symbol not in _NEW:
        raise invalid_argument(
            "model",
            "operations that are in keras.ops",
            f"{layer.name}, which is tf.{symbol}",
            "Write it as a layer of tf_keras.layers",
        )
    function = getattr(keras.ops, _NEW[symbol])
    given = [value for name, value in kwargs.items() if name != "name"]
    with named(layer, NEW):
        return function(*map(_plain, args), *map(_plain, given))


def _plain(given: Any) -> Any:
    """A constant as NumPy has it, or a tensor."""
    return given.numpy() if isinstance(given, tf.Tensor) else given


def _constant(given: Any) -> Any:
    """A number or an array that is known now; ``None`` for a tensor that is not."""
    if isinstance(given, keras.Variable):
        given = given.numpy()
    try:
        found = np.asarray(given, np.float32)
    except (NotImplementedError, TypeError, ValueError):
        return None
    return float(found) if found.ndim == 0 else found
