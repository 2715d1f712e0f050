"""What a model computes without a layer, in the other Keras."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_l0.errors import invalid_argument
from keras_l0.tfmot.layers import OLD, activation_of
from keras_l0.tfmot.legacy import legacy_keras

_MERGING = {"Add", "Subtract", "Multiply", "Maximum", "Minimum"}
"""Operations on two tensors that are layers in tf_keras."""

_RESCALING: dict[str, Callable[[float], tuple[float, float]]] = {
    "Add": lambda number: (1.0, number),
    "Subtract": lambda number: (1.0, -number),
    "Multiply": lambda number: (number, 0.0),
    "Divide": lambda number: (1.0 / number, 0.0),
    "TrueDivide": lambda number: (1.0 / number, 0.0),
}
"""Scale and offset of a tensor with a number behind it."""

_SWITCHED: dict[str, Callable[[float], tuple[float, float]]] = {
    **{name: _RESCALING[name] for name in ("Add", "Multiply")},
    "Subtract": lambda number: (-1.0, number),
}
"""The same with the number before it."""

_ACTIVATIONS = {
    "Relu": "relu",
    "Relu6": "relu6",
    "Elu": "elu",
    "Selu": "selu",
    "Gelu": "gelu",
    "Silu": "swish",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Softmax": "softmax",
}

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


def to_old(op: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """An operation of Keras 3 on tensors of tf_keras, as a layer.

    Raises:
        ValueError: if it has none.
    """
    layers = legacy_keras().layers
    kind = type(op).__name__
    if kind in _ACTIVATIONS and len(args) == 1:
        function = activation_of(_ACTIVATIONS[kind], OLD)
        return layers.Activation(function, name=op.name)(args[0])
    if len(args) == 2 and not kwargs:
        numbers = [_number(given) for given in args]
        for table, number, tensor in (
            (_RESCALING, numbers[1], args[0]),
            (_SWITCHED, numbers[0], args[1]),
        ):
            if number is not None and kind in table:
                return layers.Rescaling(*table[kind](number), name=op.name)(tensor)
        if kind in _MERGING and numbers == [None, None]:
            return getattr(layers, kind)(name=op.name)(list(args))
    raise invalid_argument(
        "model",
        "operations that have a layer in tf_keras",
        f"{op.name}, a {kind}",
        "Write it as a layer of keras.layers",
    )


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
    given = {name: value for name, value in kwargs.items() if name != "name"}
    return getattr(keras.ops, _NEW[symbol])(*args, *given.values())


def _number(given: Any) -> float | None:
    """A number, if it is one."""
    if isinstance(given, int | float | np.ndarray | np.generic) and np.ndim(given) == 0:
        return float(given)
    return None
