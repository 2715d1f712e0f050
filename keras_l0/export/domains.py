"""Which values a model's inputs take, as far as its first layers tell."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from keras_l0.structure.graph import functional, has_graph, nodes_of

# They pass values on as they are, at inference. Operations of `keras.ops` have no public class.
_PASS = (
    layers.Identity,
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.AlphaDropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.ActivityRegularization,
)
_REARRANGE = (
    layers.Reshape,
    layers.Flatten,
    layers.Permute,
    layers.RepeatVector,
    layers.Concatenate,
    layers.Masking,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Cropping3D,
    layers.Resizing,
    layers.CenterCrop,
)
_REARRANGING_OPERATIONS = (
    "Concatenate",
    "ExpandDims",
    "Flip",
    "GetItem",
    "Reshape",
    "Squeeze",
    "Stack",
    "Transpose",
)
# Values from 0 to about 255 are pixels: a network that subtracts a mean of 110 was given those.
_PIXELS = 255.0
_LEAST_LIKE_PIXELS, _MOST_LIKE_PIXELS = 200.0, 260.0


class Domain(Protocol):
    """The values that an input takes; ``str`` says which."""

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
        """Random values."""


@dataclass(frozen=True)
class Ids:
    """Integers from ``low`` to ``high``; if ``padded``, 0 only after the others of a row."""

    low: int
    high: int
    padded: bool = False

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
        """As in ``Domain``."""
        if not self.padded or not shape or self.high < 1:
            return rng.integers(self.low, self.high + 1, size=shape)
        ids = rng.integers(1, self.high + 1, size=shape)
        lengths = rng.integers(1, shape[-1] + 1, size=(*shape[:-1], 1)) if shape[-1] else 0
        return np.where(np.arange(shape[-1]) < lengths, ids, 0)

    def __str__(self) -> str:
        return f"ids {self.low} to {self.high}"


@dataclass(frozen=True)
class Values:
    """One of these numbers."""

    values: tuple[int, ...]

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
        """As in ``Domain``."""
        return rng.choice(np.array(self.values), size=shape)

    def __str__(self) -> str:
        return f"the {len(self.values)} values of a vocabulary"


@dataclass(frozen=True)
class Range:
    """Numbers between two, which may differ along the last axes."""

    low: NDArray[Any]
    high: NDArray[Any]

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
        """As in ``Domain``."""
        low, high = _fitting(self.low, shape, np.min), _fitting(self.high, shape, np.max)
        return low + (high - low) * rng.random(shape)

    def __str__(self) -> str:
        return f"values {self.low.min():.4g} to {self.high.max():.4g}"


@dataclass(frozen=True)
class Normal:
    """Normally distributed numbers, of a mean and deviation that may differ along the last axes."""

    mean: NDArray[Any]
    deviation: NDArray[Any]

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
        """As in ``Domain``."""
        mean = _fitting(self.mean, shape, np.mean)
        return mean + _fitting(self.deviation, shape, np.mean) * rng.normal(size=shape)

    def __str__(self) -> str:
        low, high = self.mean - 2 * self.deviation, self.mean + 2 * self.deviation
        return f"normal, about {low.min():.3g} to {high.max():.3g}"


@dataclass(frozen=True)
class _Trace:
    """An input's values on their way: ``scale * x + offset`` of input ``place``.

    ``by_layer`` if a layer for it has rescaled them, ``rearranged`` if their axes are others.
    """

    place: int
    scale: NDArray[Any]
    offset: NDArray[Any]
    rearranged: bool = False
    by_layer: bool = False

    def then(self, scale: Any, offset: Any, by_layer: bool) -> "_Trace":
        scale, offset = self.constant(scale), self.constant(offset)
        return replace(
            self,
            scale=self.scale * scale,
            offset=self.offset * scale + offset,
            by_layer=self.by_layer or by_layer,
        )

    def constant(self, value: Any) -> NDArray[Any]:
        """A factor or summand; its mean where its axes are no longer those of the input."""
        array = np.asarray(keras.ops.convert_to_numpy(value), np.float64)
        return np.asarray(array.mean()) if self.rearranged and array.ndim else array

    def moved(self) -> "_Trace":
        return replace(self, rearranged=True)


def input_domains(model: keras.Model) -> list[Domain | None]:
    """For each input of a model the values that it takes; ``None`` where nothing tells.

    The graph is followed from the inputs, through layers that pass values on, to the first layer
    that tells: an ``Embedding`` (ids over its vocabulary), ``CategoryEncoding``, one-hot
    encoding, ``IntegerLookup``, ``Normalization`` and ``BatchNormalization`` (its mean and
    variance), or rescaling (the range that it maps to [0, 1] or to [-1, 1]).

    Args:
        model: any model. One without a graph, such as a subclassed one, tells nothing.
    """
    if not has_graph(model):
        return []
    main = functional(model)
    found: list[list[Domain]] = [[] for _ in main.inputs]
    one, zero = np.asarray(1.0), np.asarray(0.0)
    _follow(main, [[_Trace(place, one, zero)] for place in range(len(found))], found)
    return [_narrowest(domains) for domains in found]


def _follow(
    model: Any, entering: Sequence[list[_Trace]], found: list[list[Domain]]
) -> list[list[_Trace]]:
    """Notes what the readers of the inputs tell; gives what arrives at the outputs."""
    traces = {id(t): traces for t, traces in zip(model.inputs, entering, strict=True)}
    for node in nodes_of(model):
        given = [one for t in node.arguments.keras_tensors for one in traces.get(id(t), [])]
        if not given:
            continue
        left: list[list[_Trace]] = [[] for _ in node.outputs]
        if has_graph(node.operation):
            inner = functional(node.operation)
            into = [traces.get(id(t), []) for t in _entering(node, inner)]
            left = _follow(inner, into, found)
        else:
            passed = _passed(node, given)
            if passed is None:
                for one in given:
                    domain = _told_by(node, one)
                    if domain is not None:
                        found[one.place].append(domain)
            else:
                left = [passed for _ in node.outputs]
        for tensor, ones in zip(node.outputs, left, strict=True):
            traces[id(tensor)] = ones
    return [traces.get(id(tensor), []) for tensor in model.outputs]


def _entering(node: Any, inner: Any) -> list[Any]:
    """The tensors that a nested model is called on, in the order of its inputs."""
    arguments = node.arguments
    structure = arguments.args[0] if arguments.args else arguments.kwargs["inputs"]
    own = inner._inputs_struct
    if isinstance(structure, dict) and not isinstance(own, dict):
        return [structure[tensor.name] for tensor in inner.inputs]
    if isinstance(structure, dict):
        structure = {name: structure[name] for name in own}
    return list(keras.tree.flatten(structure))


def _passed(node: Any, given: list[_Trace]) -> list[_Trace] | None:
    """What leaves an operation that passes values on or rescales them; else ``None``."""
    op, name = node.operation, type(node.operation).__name__
    is_layer = isinstance(op, keras.Layer)
    # Random changes of images do nothing at inference.
    if isinstance(op, _PASS) or (is_layer and name.startswith("Random") and _same_shape(node)):
        return given
    if not is_layer and name == "Cast":
        return given
    if isinstance(op, _REARRANGE) or (not is_layer and name in _REARRANGING_OPERATIONS):
        return [one.moved() for one in given]
    if isinstance(op, layers.Rescaling):
        return [one.then(op.scale, op.offset, by_layer=True) for one in given]
    if not is_layer and name in ("Add", "Subtract", "Multiply", "Divide", "TrueDivide"):
        return _computed(node, name, given)
    return None


def _computed(node: Any, name: str, given: list[_Trace]) -> list[_Trace] | None:
    """After an operation on the values and a constant; ``None`` if it is another operation."""
    values = [*node.arguments.args, *node.arguments.kwargs.values()]
    if len(values) != 2 or len(node.arguments.keras_tensors) != 1:
        return None
    first = isinstance(values[0], keras.KerasTensor)
    constant = values[1] if first else values[0]
    if not first and name in ("Divide", "TrueDivide"):
        return None
    number = np.asarray(keras.ops.convert_to_numpy(constant), np.float64)
    scale, offset = {
        "Add": (1.0, number),
        "Subtract": (1.0, -number) if first else (-1.0, number),
        "Multiply": (number, 0.0),
    }.get(name, (1 / np.where(number, number, 1), 0.0))
    return [one.then(scale, offset, by_layer=False) for one in given]


def _told_by(node: Any, trace: _Trace) -> Domain | None:
    """What the first operation that does more than pass values on tells of them."""
    op = node.operation
    size = _vocabulary_size(node)
    if size is not None:
        ends = sorted(((0 - trace.offset) / trace.scale, (size - 1 - trace.offset) / trace.scale))
        low, high = (round(float(np.mean(end))) for end in ends)
        return Ids(low, high, low == 0 and bool(getattr(op, "mask_zero", False)))
    if isinstance(op, layers.IntegerLookup):
        values = tuple(map(int, op.get_vocabulary(include_special_tokens=False)))
        return Values(values) if values else None
    if isinstance(op, layers.Normalization) and not op.invert and op.mean is not None:
        mean, variance = trace.constant(op.mean), trace.constant(op.variance)
    elif isinstance(op, layers.BatchNormalization):
        axis = op.axis % len(node.outputs[0].shape)
        shape = [-1 if place == axis else 1 for place in range(len(node.outputs[0].shape))]
        mean, variance = (
            trace.constant(keras.ops.reshape(v.value, shape))
            for v in (op.moving_mean, op.moving_variance)
        )
    else:
        return _rescaled(trace)
    if _rescaled(trace) is not None:  # of pixels that become [0, 1] the range says more
        return _rescaled(trace)
    return Normal(mean, np.sqrt(np.maximum(variance, 0)))


def _vocabulary_size(node: Any) -> int | None:
    """How many ids an operation tells apart."""
    op = node.operation
    if isinstance(op, layers.Embedding):
        return int(op.input_dim)
    if isinstance(op, layers.CategoryEncoding):
        return int(op.num_tokens)
    if type(op).__name__ == "OneHot":
        return int(op.num_classes)
    if not isinstance(op, keras.Layer):
        return None
    # A layer that holds embeddings and adds an axis looks ids up, in the smallest at least.
    inside = [one for one in op._flatten_layers() if isinstance(one, layers.Embedding)]
    tensor = node.arguments.keras_tensors[0]
    adds_an_axis = len(node.outputs[0].shape) == len(tensor.shape) + 1
    return min(int(one.input_dim) for one in inside) if inside and adds_an_axis else None


def _rescaled(trace: _Trace) -> Range | None:
    """The values that ``scale * x + offset`` brings to [0, 1], or to both sides of 0."""
    scale, offset = np.broadcast_arrays(trace.scale, trace.offset)
    if not (np.isfinite(scale).all() and np.isfinite(offset).all() and scale.all()):
        return None
    if (scale == 1).all() and not offset.any():
        return None
    # Without an offset [0, 1]; a negative one takes half of the range away from what begins
    # at 0; a positive one brings what is on both sides of 0 to above it.
    size = np.abs(offset / scale)
    high = np.where(offset == 0, np.maximum(1 / np.abs(scale), 1), size)
    high = np.where(offset * scale < 0, 2 * size, high)
    low = np.where(offset * scale > 0, -size, 0.0)
    if (scale < 0).all() and (offset > 0).all():  # inverted: the largest becomes 0
        high = size
    if not low.any() and _LEAST_LIKE_PIXELS <= high.max() <= _MOST_LIKE_PIXELS:
        high = np.full_like(high, _PIXELS)
    if not trace.by_layer and high.max() < _LEAST_LIKE_PIXELS:  # arithmetic of another purpose
        return None
    return Range(np.asarray(low), np.asarray(high))


def _narrowest(domains: Sequence[Domain]) -> Domain | None:
    """Ids that all readers know, if one reads ids; else what the first tells."""
    ids = [one for one in domains if isinstance(one, Ids)]
    if ids:
        low, high = max(one.low for one in ids), min(one.high for one in ids)
        return Ids(low, max(low, high), any(one.padded for one in ids))
    return domains[0] if domains else None


def _same_shape(node: Any) -> bool:
    return bool(node.outputs[0].shape == node.arguments.keras_tensors[0].shape)


def _fitting(array: NDArray[Any], shape: tuple[int, ...], reduced: Any) -> NDArray[Any]:
    """An array that goes with a shape, or one number for all."""
    try:
        if np.broadcast_shapes(array.shape, shape) == shape:
            return array
    except ValueError:
        pass
    return np.asarray(reduced(array))
