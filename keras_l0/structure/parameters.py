"""The rules of layers with weights of other kinds: recurrent, embeddings, normalization, PReLU."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_l0.structure.channels import Book, Call, Known, Value
from keras_l0.structure.filters import Filtering, Filters
from keras_l0.structure.rules import Rule, Same, Weights


class RecurrentRule(Rule):
    """LSTM, GRU, SimpleRNN: their inputs may go, their units stay."""

    why = "its units carry states"

    def tie(self, call: Call, book: Book) -> Value:
        x, *states = call.inputs
        for state in states:
            book.lock(state)
        call.read = book.along(call, x, len(x.shape) - 1)
        book.attach(call.op.cell.kernel, 0, call.read)
        book.leave(call, self.why)
        return Value(call.shape)

    def filters(self, op: Any, w: Weights) -> Filters:
        """What the units read; only what is zero can be left out."""
        kernel = w(op.cell.kernel)
        return Filters(kernel != 0, np.zeros(kernel.shape, np.float32), True)

    known_inputs = staticmethod(Filtering.known_inputs)

    def is_fixed(self, call: Call, found: Sequence[Known], w: Weights) -> bool:
        x = self.known_inputs(call, found)
        return len(found) == 1 and not self.filters(call.op, w).reads[~x.constant].any()


class EmbeddingRule(Rule):
    """``Embedding``: (vocabulary, out)."""

    def tie(self, call: Call, book: Book) -> Value:
        for value in call.inputs:
            book.lock(value)
        ids = book.makes(call.op.embeddings, 1)
        return Value(call.shape, len(call.shape) - 1, ids)

    def known(self, call: Call, found: Sequence[Known], w: Weights) -> Known:
        rows = w(call.op.embeddings)
        return Known((rows == rows[0]).all(axis=0), rows[0].astype(np.float64))

    def config(self, call: Call, kept: NDArray[np.bool_]) -> dict[str, Any]:
        return {"output_dim": int(np.count_nonzero(kept))}


class NormalizationRule(Same):
    """``BatchNormalization``: γ · (x − μ) / √(σ² + ε) + β, at inference, for each channel.

    In training μ is a constant's own value.
    """

    def tie(self, call: Call, book: Book) -> Value:
        (x,) = call.inputs
        axis = call.op.axis % len(x.shape)
        ids = book.along(call, x, axis)
        book.attach(call.op.moving_variance, 0, ids)
        # A channel that is zero has a mean of zero; without a gamma that is what keeps it zero.
        book.attach(call.op.moving_mean, 0, ids, "shifts")
        for variable in [call.op.gamma] * call.op.scale + [call.op.beta] * call.op.center:
            book.attach(variable, 0, ids, "shifts")
        return x.like(call.shape, axis) if x.axis == axis else Value(call.shape)

    def known(self, call: Call, found: Sequence[Known], w: Weights) -> Known:
        op, x = call.op, found[0]
        mean, variance = w(op.moving_mean), w(op.moving_variance)
        gamma = w(op.gamma) if op.scale else np.ones(mean.shape)
        beta = w(op.beta) if op.center else np.zeros(mean.shape)
        mean = x.value if call.trains else mean
        value = gamma * ((x.value - mean) / np.sqrt(variance + op.epsilon)) + beta
        return Known(x.constant | (gamma == 0), np.where(gamma == 0, beta, value))


class PReLURule(Same):
    """``PReLU``: a slope for each element, or shared along axes."""

    def tie(self, call: Call, book: Book) -> Value:
        (x,) = call.inputs
        if x.axis is None:
            return Value(call.shape)
        if call.op.alpha.shape[x.axis - 1] == len(x.ids):
            book.attach(call.op.alpha, x.axis - 1, x.ids)
        return x.like(call.shape, x.axis)

    def known(self, call: Call, found: Sequence[Known], w: Weights) -> Known:
        (x,), (value,) = found, call.inputs
        assert value.axis is not None, "it has channels"
        slopes = np.moveaxis(w(call.op.alpha), value.axis - 1, -1)
        slopes = slopes.reshape(-1, slopes.shape[-1])
        slope = np.broadcast_to(slopes[0], x.value.shape)
        even = (slopes == slopes[0]).all(0) | (x.value >= 0)
        return Known(x.constant & even, np.where(x.value < 0, slope * x.value, x.value))
