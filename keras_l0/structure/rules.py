"""How operations without filters of their own pass channels on: one rule for each kind.

A rule says which channels come out of an operation (``tie``), what is known of those that are
constant (``known``), and what its configuration is once channels are gone (``config``).
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from keras_l0.structure.channels import Book, Call, Known, Value, unknown

Weights = Callable[[keras.Variable], NDArray[Any]]
"""What a variable holds, or would hold."""

_ELEMENTWISE = (
    "relu leaky_relu relu6 celu elu selu softplus softsign squareplus soft_shrink sparse_plus "
    "silu gelu tanh tanh_shrink threshold sigmoid sparse_sigmoid exponential hard_sigmoid "
    "hard_silu hard_tanh hard_shrink linear mish log_sigmoid"
).split()


class Rule:
    """A rule for one kind of operation. This one: nothing is known, so all channels stay."""

    why = "no rule for it is known"

    def tie(self, call: Call, book: Book) -> Value:
        """The output, its channels tied to those of the inputs."""
        makes = isinstance(call.op, keras.Layer) and call.op.trainable_variables
        if makes or any(value.axis is not None for value in call.inputs):
            book.leave(call, self.why)
        for value in call.inputs:
            book.lock(value)
        return Value(call.shape)

    def known(self, call: Call, found: Sequence[Known], w: Weights) -> Known:
        """What is known of the output's channels, if it has any, given what is of the inputs'."""
        return unknown(len(call.output.ids))

    def is_fixed(self, call: Call, found: Sequence[Known], w: Weights) -> bool:
        """Whether an output without channels that could go is the same for any input."""
        return False

    def config(self, call: Call, kept: NDArray[np.bool_]) -> dict[str, Any]:
        """The entries of the configuration that change, if these of the output's channels stay."""
        return {}


class Altered(Rule):
    """A layer that computes otherwise than its type says: quantized, or with LoRA."""

    def __init__(self, why: str) -> None:
        self.why = why


class Mixing(Rule):
    """What computes each channel from all of them, so that none may go."""

    why = "it computes across channels"


class Attending(Mixing):
    """``MultiHeadAttention``, ``GroupQueryAttention``: weighted means of values, then a Dense."""

    def is_fixed(self, call: Call, found: Sequence[Known], w: Weights) -> bool:
        return not all(
            w(part.kernel).any() for part in (call.op._value_dense, call.op._output_dense)
        )


class Single(Rule):
    """What moves the elements of one channel, which has to stay."""

    why = "one channel reaches it, which stays"


class Same(Rule):
    """Channels pass, and constants with them, whichever axis they lie along: dropout."""

    def tie(self, call: Call, book: Book) -> Value:
        (x,) = call.inputs
        return Value(call.shape) if x.axis is None else x.like(call.shape, x.axis)

    def known(self, call: Call, found: Sequence[Known], w: Weights) -> Known:
        return found[0]


class Dropping(Same):
    """Dropout: what is zero stays zero, and in training nothing else is a constant."""

    def known(self, call: Call, found: Sequence[Known], w: Weights) -> Known:
        return Known(found[0].zero, found[0].value) if call.trains else found[0]

    def config(self, call: Call, kept: NDArray[np.bool_]) -> dict[str, Any]:
        sizes = list(getattr(call.op, "noise_shape", None) or [])
        assert call.output.axis is not None, "what has channels to go has an axis"
        if not sizes or sizes[call.output.axis] in (None, 1):
            return {}
        sizes[call.output.axis] = int(np.count_nonzero(kept))
        return {"noise_shape": tuple(sizes)}


class Noisy(Same):
    """Noise: in training nothing is a constant."""

    def known(self, call: Call, found: Sequence[Known], w: Weights) -> Known:
        return unknown(len(call.output.ids)) if call.trains else found[0]


class Reducing(Same):
    """The mean, the largest or the smallest along axes that are not the channels'."""

    def tie(self, call: Call, book: Book) -> Value:
        (x,) = call.inputs
        axes = range(len(x.shape)) if call.op.axis is None else np.ravel(call.op.axis)
        reduced = {int(axis) % len(x.shape) for axis in axes}
        if x.axis is None or x.axis in reduced:
            return Rule().tie(call, book)
        before = 0 if call.op.keepdims else sum(axis < x.axis for axis in reduced)
        return x.like(call.shape, x.axis - before)


class Spatial(Same):
    """As ``Same``, but along the axis that the layer takes for the channels': pooling, cropping."""

    def tie(self, call: Call, book: Book) -> Value:
        (x,) = call.inputs
        axis = channel_axis(call.op, len(x.shape))
        if x.axis != axis:
            return Rule().tie(call, book)
        # A global pooling leaves the channels alone.
        return x.like(call.shape, axis if len(call.shape) == len(x.shape) else 1)


class Padding(Spatial):
    """As ``Spatial``, but what surrounds is zero."""

    def known(self, call: Call, found: Sequence[Known], w: Weights) -> Known:
        return Known(found[0].zero, found[0].value)


class Elementwise(Same):
    """One function of each element."""

    def known(self, call: Call, found: Sequence[Known], w: Weights) -> Known:
        return Known(found[0].constant, applied(call.on, found[0].value))


class Activation(Elementwise):
    """As ``Elementwise``, if the function is one."""

    def tie(self, call: Call, book: Book) -> Value:
        if not is_elementwise(call.op.activation):
            return Mixing().tie(call, book)
        return super().tie(call, book)


class Scaling(Same):
    """``Rescaling``: x · scale + offset, each a number or one for each channel."""

    def tie(self, call: Call, book: Book) -> Value:
        (x,) = call.inputs
        if any(_place(numbers, x) is None for numbers in (call.op.scale, call.op.offset)):
            return Rule().tie(call, book)
        return super().tie(call, book)

    def known(self, call: Call, found: Sequence[Known], w: Weights) -> Known:
        scale, offset = (
            np.ravel(np.asarray(numbers, np.float64)) for numbers in (call.op.scale, call.op.offset)
        )
        return Known(found[0].constant, found[0].value * scale + offset)

    def config(self, call: Call, kept: NDArray[np.bool_]) -> dict[str, Any]:
        found = {}
        for name in ("scale", "offset"):
            numbers = np.asarray(getattr(call.op, name))
            place = _place(numbers, call.output)
            if place is not None and place >= 0:
                found[name] = np.compress(kept, numbers, place).tolist()
        return found


class Moving(Rule):
    """What puts elements elsewhere: flatten, reshape, permute, repeat."""

    def tie(self, call: Call, book: Book) -> Value:
        if len(call.inputs[0].ids) == 1 and call.inputs[0].axis is not None:
            return Single().tie(call, book)
        moved = _moved(call)
        if moved is None:
            return super().tie(call, book)
        axis, places = moved
        return Value(call.shape, axis, call.inputs[0].ids[places])

    def known(self, call: Call, found: Sequence[Known], w: Weights) -> Known:
        moved = _moved(call)
        assert moved is not None, "it has been followed"
        return found[0].at(moved[1])

    def config(self, call: Call, kept: NDArray[np.bool_]) -> dict[str, Any]:
        if not isinstance(call.op, layers.Reshape) or call.output.axis is None:
            return {}
        sizes = list(call.op.target_shape)
        if sizes[call.output.axis - 1] != -1:
            sizes[call.output.axis - 1] = int(np.count_nonzero(kept))
        return {"target_shape": tuple(sizes)}


class Merging(Rule):
    """What computes one tensor from several, element by element."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function = function

    def tie(self, call: Call, book: Book) -> Value:
        if len(call.inputs) == 1:  # with a number beside it
            return Elementwise().tie(call, book) if _numbers(call) else Rule().tie(call, book)
        axis = next((value.axis for value in call.inputs if value.axis is not None), None)
        if axis is None or any(len(value.shape) != len(call.shape) for value in call.inputs):
            return Rule().tie(call, book)
        size = call.shape[axis]
        wide = [value for value in call.inputs if value.shape[axis] == size]
        ids = [book.along(call, value, axis) for value in wide]
        for value in call.inputs:
            if value not in wide:
                book.leave(call, "it takes one channel for many")
                book.lock(value)
        for other in ids[1:]:
            book.tie(ids[0], other)
        return Value(call.shape, axis, ids[0])

    def known(self, call: Call, found: Sequence[Known], w: Weights) -> Known:
        if len(call.inputs) == 1:
            return Elementwise().known(call, found, w)
        return self._joined(self._beside(call, found))

    def _joined(self, found: Sequence[Known]) -> Known:
        result = found[0]
        for other in found[1:]:
            value = self.function(result.value, other.value)
            result = Known(result.constant & other.constant, value)
        return result

    @staticmethod
    def _beside(call: Call, found: Sequence[Known]) -> list[Known]:
        """As many channels of each as the output has."""
        size = len(call.output.ids)
        return [
            one if value.axis == call.output.axis and len(value.ids) == size else unknown(size)
            for value, one in zip(call.inputs, found, strict=True)
        ]


class Multiplying(Merging):
    """A product: zero where one factor is."""

    def __init__(self) -> None:
        super().__init__(np.multiply)

    def _joined(self, found: Sequence[Known]) -> Known:
        both = super()._joined(found)
        zero = np.any([one.zero for one in found], axis=0)
        return Known(both.constant | zero, np.where(zero, 0.0, both.value))


class Averaging(Merging):
    """The mean of several tensors."""

    def __init__(self) -> None:
        super().__init__(np.add)

    def _joined(self, found: Sequence[Known]) -> Known:
        total = super()._joined(found)
        return Known(total.constant, total.value / len(found))


class Concatenating(Rule):
    """Tensors side by side."""

    def tie(self, call: Call, book: Book) -> Value:
        axis = call.op.axis % len(call.shape)
        if axis == 0 or any(value.shape[axis] is None for value in call.inputs):
            return super().tie(call, book)
        ids = np.concatenate([book.along(call, value, axis) for value in call.inputs])
        return Value(call.shape, axis, ids)

    def known(self, call: Call, found: Sequence[Known], w: Weights) -> Known:
        axis = call.op.axis % len(call.shape)
        sides = [
            one if value.axis == axis else unknown(value.shape[axis] or 0)
            for value, one in zip(call.inputs, found, strict=True)
        ]
        return Known(
            np.concatenate([one.constant for one in sides]),
            np.concatenate([one.value for one in sides]),
        )


def channel_axis(op: Any, rank: int) -> int:
    """The axis that a layer takes for the channels'; the last where it has no ``data_format``."""
    return 1 if getattr(op, "data_format", None) == "channels_first" else rank - 1


def is_elementwise(activation: Any) -> bool:
    """Whether it is one of Keras' functions that take each element by itself."""
    if type(activation) in (layers.ReLU, layers.LeakyReLU, layers.ELU):
        return True
    name = getattr(activation, "__name__", "")
    return name in _ELEMENTWISE and activation is getattr(keras.activations, name)


def applied(function: Callable[[Any], Any], value: NDArray[np.float64]) -> NDArray[np.float64]:
    """A function of a row of numbers, computed as the network computes it."""
    x = ops.convert_to_tensor(value.astype(np.float32)[None])
    return ops.convert_to_numpy(function(x))[0].astype(np.float64)


def _place(numbers: Any, x: Value) -> int | None:
    """The axis of the numbers that is the channels'; -1 for one number, None for others."""
    shape = np.shape(numbers)
    if np.size(numbers) == 1:
        return -1
    place = None if x.axis is None else x.axis - len(x.shape) + len(shape)
    if place is None or not 0 <= place < len(shape):
        return None
    alone = all(size == 1 for at, size in enumerate(shape) if at != place)
    return place if alone and shape[place] == len(x.ids) else None


def _numbers(call: Call) -> bool:
    """Whether all that a call is given beside its tensor are numbers."""
    args, kwargs = call.node.arguments.fill_in({id(call.node.arguments.keras_tensors[0]): 0})
    return all(np.isscalar(value) for value in keras.tree.flatten((args, kwargs)))


def _moved(call: Call) -> tuple[int, NDArray[np.intp]] | None:
    """The axis of the output along which the channels lie, and which ones, by position."""
    x = call.inputs[0]
    if x.axis is None:
        return None
    sizes = [1, *(size or 2 for size in x.shape[1:])]
    along = np.arange(len(x.ids)).reshape([-1 if at == x.axis else 1 for at in range(len(sizes))])
    places = np.broadcast_to(along, sizes).astype(np.int32)
    out = ops.convert_to_numpy(call.on(ops.convert_to_tensor(places)))
    for axis in range(1, out.ndim):
        lines = np.moveaxis(out, axis, -1).reshape(-1, out.shape[axis])
        if np.ptp(lines[0]) and (lines == lines[0]).all() and call.shape[axis] == len(lines[0]):
            return axis, lines[0].astype(np.intp)
    return None
