"""Multiply-adds: how often each weight is used for one sample."""

import contextlib
import math
import string
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import keras
from keras import layers

Shape = tuple[int, ...]
Uses = dict[int, int]


def uses_of_weights(model: keras.Model) -> Uses | None:
    """How often each weight of a kernel is multiplied with an activation, for one sample.

    A kernel's multiply-adds are this times its size: of a convolution the places of its output,
    of a ``Dense`` the vectors it is applied to, of a recurrent layer the steps. Products of
    activations with each other, as in attention, have no weights and do not count, nor do biases,
    normalization and pooling.

    Args:
        model: a built model. Nothing is computed: its layers' calls are traced.

    Returns:
        By the id of a kernel the number; without those of layers of other kinds. ``None`` where
        the model does not tell its input shapes (a subclassed one), leaves a size open beside
        the batch, or cannot be traced.
    """
    tensors = getattr(model, "inputs", None)
    if not tensors or any(None in tensor.shape[1:] for tensor in tensors):
        return None
    given = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    inputs = keras.tree.map_structure(
        lambda tensor: keras.KerasTensor((1, *tensor.shape[1:]), dtype=tensor.dtype), given
    )
    found: Uses = {}
    with _counting(model, found):
        try:
            keras.Operation.compute_output_spec(model, inputs)
        except Exception:  # a layer that cannot be traced raises what it likes
            return None
    return found


@contextlib.contextmanager
def _counting(model: keras.Model, found: Uses) -> Iterator[None]:
    """While it lasts, the calls of layers with kernels are added up."""
    every = model._flatten_layers()
    cells = {
        id(inner)
        for layer in every
        if isinstance(layer, layers.RNN)
        for inner in layer.cell._flatten_layers()
    }
    wrapped = []
    for layer in every:
        count = next((count for kind, count in _COUNTS if isinstance(layer, kind)), None)
        if count is not None and id(layer) not in cells:
            vars(layer)["call"] = _noting(layer, count, found)
            wrapped.append(layer)
    try:
        yield
    finally:
        for layer in wrapped:
            del vars(layer)["call"]


def _noting(layer: Any, count: Callable[[Any, Shape, Shape], Uses], found: Uses) -> Any:
    """A layer's ``call`` that notes the uses of its weights."""
    call = layer.call

    def noting(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        x = args[0] if args else next(iter(kwargs.values()))
        first = keras.tree.flatten(result)[0]
        for kernel, uses in count(layer, tuple(x.shape), tuple(first.shape)).items():
            found[kernel] = found.get(kernel, 0) + uses
        return result

    return noting


def _dense(layer: Any, _x: Shape, y: Shape) -> Uses:
    return {id(layer.kernel): math.prod(y[1:-1])}


def _einsum(layer: Any, x: Shape, y: Shape) -> Uses:
    """The product of all sizes in the equation but the kernel's."""
    equation = layer.equation.replace(" ", "")
    free = (letter for letter in string.ascii_letters if letter not in equation)
    open_axes = len(x) - len(equation.partition(",")[0].replace("...", ""))
    left, right = equation.replace("...", "".join(islice(free, open_axes))).split("->")
    names, kernel = left.split(",")
    sizes = dict(zip(names, x, strict=True)) | dict(zip(right, y, strict=True))
    return {id(layer.kernel): math.prod(size for name, size in sizes.items() if name not in kernel)}


def _places(layer: Any, shape: Shape) -> int:
    return math.prod(shape[2:] if layer.data_format == "channels_first" else shape[1:-1])


def _convolution(layer: Any, _x: Shape, y: Shape) -> Uses:
    return {id(layer.kernel): _places(layer, y)}


def _transposed(layer: Any, x: Shape, _y: Shape) -> Uses:
    return {id(layer.kernel): _places(layer, x)}


def _separable(layer: Any, _x: Shape, y: Shape) -> Uses:
    places = _places(layer, y)
    return {id(layer.depthwise_kernel): places, id(layer.pointwise_kernel): places}


def _recurrent(layer: Any, x: Shape, y: Shape) -> Uses:
    """Each step uses each weight once; a convolution's at each place of the state."""
    found = {}
    for variable in layer.cell.variables:
        if variable.name.endswith("kernel"):
            state = y[1:] if layer.return_sequences else y
            places = _places(layer.cell, state) if len(variable.shape) > 2 else 1
            found[id(variable)] = x[1] * places
    return found


_COUNTS: list[tuple[Any, Callable[[Any, Shape, Shape], Uses]]] = [
    (layers.Dense, _dense),
    (layers.EinsumDense, _einsum),
    (layers.RNN, _recurrent),
    ((layers.SeparableConv1D, layers.SeparableConv2D), _separable),
    ((layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose), _transposed),
    (
        (
            layers.Conv1D,
            layers.Conv2D,
            layers.Conv3D,
            layers.DepthwiseConv1D,
            layers.DepthwiseConv2D,
        ),
        _convolution,
    ),
]
