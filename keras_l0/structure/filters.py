"""The rules of layers with weights: which channels they read and make."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_l0.structure.channels import LOCKED, Book, Call, Known, Value, unknown
from keras_l0.structure.rules import (
    Mixing,
    Rule,
    Weights,
    applied,
    channel_axis,
    is_elementwise,
)


@dataclass(frozen=True)
class Filters:
    """What a layer makes of its input channels.

    Attributes:
        reads: of shape (in, out), whether an output has a weight other than zero for an input.
        sums: of the same shape, what an input that is 1 everywhere adds to an output, where
            nothing is padded.
        padded: whether zeros stand at the edges, so that a constant input gives no constant.
    """

    reads: NDArray[np.bool_]
    sums: NDArray[np.floating]
    padded: bool

    def passes(self, x: Known) -> NDArray[np.bool_]:
        """Which inputs add the same at each place."""
        return x.zero if self.padded else x.constant

    def adds(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """What constant inputs add to each output."""
        there = np.flatnonzero(value)
        return value[there] @ self.sums[there].astype(np.float64)


class Filtering(Rule):
    """A rule for a layer whose outputs are sums over its inputs: Dense, convolutions."""

    size_name = "filters"
    reads_axis, makes_axis = -2, -1

    def kernel(self, op: Any) -> keras.Variable:
        """The variable whose axes are input and output channels."""
        return op.kernel

    def filters(self, op: Any, w: Weights) -> Filters:
        """What the layer makes of its inputs."""
        kernel = np.moveaxis(w(self.kernel(op)), (self.reads_axis, self.makes_axis), (-2, -1))
        kernel = kernel.reshape(-1, *kernel.shape[-2:])
        if len(kernel) == 1:
            return Filters(kernel[0] != 0, kernel[0], self.padded(op))
        return Filters((kernel != 0).any(0), kernel.sum(0), self.padded(op))

    def padded(self, op: Any) -> bool:
        """Whether it reads zeros beyond the edges."""
        return False

    def axis(self, call: Call, shape: Sequence[Any]) -> int:
        """The axis of the channels in the input or the output."""
        return len(shape) - 1

    def tie(self, call: Call, book: Book) -> Value:
        (x,) = call.inputs
        call.read = book.along(call, x, self.axis(call, x.shape))
        ids = self.tie_weights(call.op, call.read, book)
        if call.op.bias is not None:
            book.attach(call.op.bias, 0, ids, "shifts")
        if not is_elementwise(call.op.activation):
            book.leave(call, "its activation is not known to take each element by itself")
            book.tie(ids, LOCKED)
        return Value(call.shape, self.axis(call, call.shape), ids)

    def tie_weights(self, op: Any, read: NDArray[np.intp], book: Book) -> NDArray[np.intp]:
        """Ties the kernel's axes to what it reads; gives the channels that it makes."""
        kernel = self.kernel(op)
        rank = len(kernel.shape)
        book.attach(kernel, self.reads_axis % rank, read)
        return book.makes(kernel, self.makes_axis % rank)

    def known(self, call: Call, found: Sequence[Known], w: Weights) -> Known:
        filters = self.filters(call.op, w)
        x = self.known_inputs(call, found)
        constant = np.logical_not(filters.reads[~filters.passes(x)].any(axis=0))
        value = filters.adds(x.value)
        if call.op.bias is not None:
            value = value + w(call.op.bias)
        if not is_elementwise(call.op.activation) and not constant.all():
            return unknown(len(constant))
        return Known(constant, applied(call.op.activation, np.where(constant, value, 0.0)))

    @staticmethod
    def known_inputs(call: Call, found: Sequence[Known]) -> Known:
        """What is known of the channels that are read."""
        assert call.read is not None, "a layer with filters reads"
        count = len(call.read)
        return found[0] if len(found[0].constant) == count else unknown(count)

    def config(self, call: Call, kept: NDArray[np.bool_]) -> dict[str, Any]:
        return {self.size_name: int(np.count_nonzero(kept))}

    def with_bias(self, op: Any) -> dict[str, Any]:
        """What gives the layer a bias."""
        return {"use_bias": True}


class DenseRule(Filtering):
    """``Dense``: kernel (in, out), on the last axis."""

    size_name = "units"


class EinsumRule(Filtering):
    """``EinsumDense`` where it is a ``Dense`` on the last axis."""

    def tie(self, call: Call, book: Book) -> Value:
        left, _, right = call.op.equation.replace(" ", "").replace("...", "_").partition("->")
        x, _, kernel = left.partition(",")
        dense = len(kernel) == 2 and x[-1:] == kernel[0] and right == x[:-1] + kernel[1]
        if (
            not dense
            or kernel[1] in x
            or (call.op.bias is not None and len(call.op.bias.shape) > 1)
        ):
            return Mixing().tie(call, book)
        return super().tie(call, book)

    def config(self, call: Call, kept: NDArray[np.bool_]) -> dict[str, Any]:
        sizes = call.op.partial_output_shape
        return {"output_shape": (*sizes[:-1], int(np.count_nonzero(kept)))}

    def with_bias(self, op: Any) -> dict[str, Any]:
        return {"bias_axes": op.equation.strip()[-1]}


class ConvRule(Filtering):
    """Convolutions: kernel (places…, in / groups, out).

    In a grouped one the channels of the same place in each group go together; where each input
    is a group of its own, an input and its outputs.
    """

    def axis(self, call: Call, shape: Sequence[Any]) -> int:
        return channel_axis(call.op, len(shape))

    def padded(self, op: Any) -> bool:
        return op.padding != "valid" and any(size > 1 for size in op.kernel_size)

    def tie_weights(self, op: Any, read: NDArray[np.intp], book: Book) -> NDArray[np.intp]:
        if op.groups == 1:
            return super().tie_weights(op, read, book)
        kernel = self.kernel(op)
        rank, outputs = len(kernel.shape), kernel.shape[-1]
        if op.groups == len(read):
            return book.makes(kernel, rank - 1, np.repeat(read, outputs // op.groups))
        rows = read.reshape(op.groups, -1)
        for row in rows[1:]:
            book.tie(rows[0], row)
        book.attach(kernel, rank - 2, rows[0])
        return book.makes(kernel, rank - 1, np.tile(book.fresh(outputs // op.groups), op.groups))

    def filters(self, op: Any, w: Weights) -> Filters:
        inner = super().filters(op, w)
        if op.groups == 1:
            return inner
        rows, columns = inner.reads.shape[0], inner.reads.shape[1] // op.groups
        block = np.kron(np.eye(op.groups, dtype=bool), np.ones((rows, columns), bool))
        return Filters(
            np.tile(inner.reads, (op.groups, 1)) & block,
            np.tile(inner.sums, (op.groups, 1)) * block,
            inner.padded,
        )

    def config(self, call: Call, kept: NDArray[np.bool_]) -> dict[str, Any]:
        found = super().config(call, kept)
        if call.op.groups > 1 and call.op.groups == len(call.inputs[0].ids):
            found["groups"] = found["filters"] * call.op.groups // len(kept)
        return found


class TransposeRule(ConvRule):
    """Transposed convolutions: kernel (places…, out, in). Their edges differ from the inside."""

    reads_axis, makes_axis = -1, -2

    def padded(self, op: Any) -> bool:
        return True

    def tie_weights(self, op: Any, read: NDArray[np.intp], book: Book) -> NDArray[np.intp]:
        return Filtering.tie_weights(self, op, read, book)

    def filters(self, op: Any, w: Weights) -> Filters:
        return Filtering.filters(self, op, w)

    def config(self, call: Call, kept: NDArray[np.bool_]) -> dict[str, Any]:
        return Filtering.config(self, call, kept)


class DepthwiseRule(ConvRule):
    """Depthwise convolutions: kernel (places…, in, multiplier); an input goes with its outputs."""

    def tie_weights(self, op: Any, read: NDArray[np.intp], book: Book) -> NDArray[np.intp]:
        kernel = self.kernel(op)
        book.makes(kernel, len(kernel.shape) - 2, read)
        return np.repeat(read, kernel.shape[-1])

    def filters(self, op: Any, w: Weights) -> Filters:
        kernel = w(self.kernel(op))
        inputs, multiplier = kernel.shape[-2:]
        flat = kernel.reshape(-1, inputs, multiplier)
        own = np.repeat(np.eye(inputs, dtype=bool), multiplier, axis=1)
        return Filters(own & (flat != 0).any(0).ravel(), own * flat.sum(0).ravel(), self.padded(op))

    def config(self, call: Call, kept: NDArray[np.bool_]) -> dict[str, Any]:
        return {}


class SeparableRule(ConvRule):
    """A depthwise convolution and one of 1×1 in a layer."""

    def kernel(self, op: Any) -> keras.Variable:
        return op.pointwise_kernel

    def tie_weights(self, op: Any, read: NDArray[np.intp], book: Book) -> NDArray[np.intp]:
        depthwise, pointwise = op.depthwise_kernel, op.pointwise_kernel
        rank = len(depthwise.shape)
        book.attach(depthwise, rank - 2, read)
        book.attach(pointwise, rank - 2, np.repeat(read, depthwise.shape[-1]))
        return book.makes(pointwise, rank - 1)

    def filters(self, op: Any, w: Weights) -> Filters:
        depthwise = w(op.depthwise_kernel)
        inputs, multiplier = depthwise.shape[-2:]
        depthwise = depthwise.reshape(-1, inputs, multiplier)
        pointwise = w(op.pointwise_kernel).reshape(inputs, multiplier, -1)
        reads = ((depthwise != 0).any(0)[..., None] & (pointwise != 0)).any(1)
        sums = np.einsum("im,imo->io", depthwise.sum(0), pointwise)
        return Filters(reads, sums, self.padded(op))

    def config(self, call: Call, kept: NDArray[np.bool_]) -> dict[str, Any]:
        return {"filters": int(np.count_nonzero(kept))}
