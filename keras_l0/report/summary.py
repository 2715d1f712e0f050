"""What a model's weights are made of: zeros, compression, bytes."""

import json
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_l0.errors import invalid_argument
from keras_l0.models import check_finite
from keras_l0.pruning.measure import ratio
from keras_l0.pruning.targets import Weight, find_targets
from keras_l0.report.summary_text import as_text
from keras_l0.structure.flops import uses_of_weights
from keras_l0.structure.shrink import last_cut


def summarize(model: keras.Model, layers: str | Sequence[str] | None = None) -> "Summary":
    """Counts the zeros of a model's prunable weights, and what they are worth.

    Nothing is changed. A frozen layer's weights count as they are, zeros included; ``NaN``
    is not zero. Multiply-adds are those of weights with activations for one sample, each counted
    once (a profiler that counts two operations gives twice as many); products of activations with
    each other, as in attention, do not count, nor do biases, normalization and pooling.

    Args:
        model: a built model.
        layers: which weights count as prunable, by patterns as in ``prune``; ``None`` for all
            kernels. The zeros of others are not counted.

    Returns:
        The figures; print them, or take them from the attributes or from ``to_dict()``.

    Raises:
        ValueError: if ``model`` is not a Keras model or is not built, or a pattern matches no
            layer that has weights.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="dense")])
    >>> model.layers[0].set_weights([np.array([[1, 0, 0], [0, 2, 0]]), np.zeros(3)])
    >>> summary = summarize(model)
    >>> summary.zeros, summary.compression, summary.weight_compression
    (4, 1.8, 3.0)
    """
    targets = find_targets(model, layers)
    order = {id(variable): place for place, variable in enumerate(model.weights)}
    chosen = sorted(targets.weights, key=lambda weight: order[id(weight.variable)])
    prunable = {id(weight.variable) for weight in chosen}
    others = [variable for variable in model.weights if id(variable) not in prunable]
    uses = uses_of_weights(model) or {}
    small = _shrunk(model)
    sizes = None if small is None else {v.path: math.prod(v.shape) for v in small.weights}
    return Summary(
        name=model.name,
        weights=tuple(_summarize_weight(weight, uses, sizes) for weight in chosen),
        parameters=model.count_params(),
        bytes_other=sum(math.prod(v.shape) * _bits(v) // 8 for v in others),
        skipped=dict(targets.skipped),
        parameters_shrunk=None if small is None else small.count_params(),
    )


def entropy_bound(weights: int, nonzero: int, bits: int) -> float:
    """The bytes that a lossless code of the zeros' places needs on average, at the least.

    ``(log2 C(N, n) + bits · n) / 8``, with ``N`` weights, ``n`` of them not zero: the first
    term says which are not zero, every such choice being as likely as another, the second
    what they are. No sparse format is smaller unless the zeros stand in a pattern or the
    values repeat. It passes the dense size where ``N > 2^bits`` and few weights are zero.

    Args:
        weights: the number of weights ``N``, 0 or more.
        nonzero: those not zero, ``n``, from 0 to ``N``.
        bits: the bits of one weight, 1 or more.

    Returns:
        Bytes, not rounded; exact where all weights or none are zero.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> entropy_bound(8, 0, 32), entropy_bound(8, 8, 32)
    (0.0, 32.0)
    >>> round(entropy_bound(1000, 100, 32), 1)
    458.1
    """
    if weights < 0:
        raise invalid_argument("weights", "an integer of 0 or more", weights)
    if not 0 <= nonzero <= weights:
        raise invalid_argument("nonzero", f"an integer from 0 to weights={weights}", nonzero)
    if bits < 1:
        raise invalid_argument("bits", "an integer of 1 or more", bits)
    if nonzero in (0, weights):
        return bits * nonzero / 8
    choices = (
        math.lgamma(weights + 1) - math.lgamma(nonzero + 1) - math.lgamma(weights - nonzero + 1)
    )
    return (choices / math.log(2) + bits * nonzero) / 8


@dataclass(frozen=True)
class WeightSummary:
    """One prunable weight tensor: its path, shape and dtype, and how many entries are zero.

    ``uses`` is how often each weight is multiplied for one sample, ``None`` where that is not
    known; ``weights_shrunk`` the number of weights after ``shrink``, ``None`` likewise.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    bits: int
    weights: int
    zeros: int
    frozen: bool
    uses: int | None = None
    weights_shrunk: int | None = None

    @property
    def flops(self) -> int | None:
        """Multiply-adds for one sample, zeros included."""
        return None if self.uses is None else self.uses * self.weights

    @property
    def flops_nonzero(self) -> int | None:
        """Those with weights that are not zero."""
        return None if self.uses is None else self.uses * (self.weights - self.zeros)

    @property
    def flops_shrunk(self) -> int | None:
        """Those left after ``shrink``, zeros included."""
        if self.uses is None or self.weights_shrunk is None:
            return None
        return self.uses * self.weights_shrunk

    @property
    def sparsity(self) -> float:
        """Zeros over weights; 0 where there are no weights."""
        return self.zeros / self.weights if self.weights else 0.0

    @property
    def compression(self) -> float:
        """Weights over those not zero; infinite where all are zero."""
        return ratio(self.weights, self.weights - self.zeros)

    @property
    def bytes_dense(self) -> int:
        """The bytes of all its weights, zeros included."""
        return self.weights * self.bits // 8

    @property
    def bytes_entropy_bound(self) -> float:
        """The bytes that ``entropy_bound`` gives."""
        return entropy_bound(self.weights, self.weights - self.zeros, self.bits)

    def to_dict(self) -> dict[str, Any]:
        """The figures under the attributes' names, ready for JSON."""
        return {
            "path": self.path,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "weights": self.weights,
            "zeros": self.zeros,
            "sparsity": self.sparsity,
            "compression": _finite(self.compression),
            "bytes_dense": self.bytes_dense,
            "bytes_entropy_bound": self.bytes_entropy_bound,
            "flops": self.flops,
            "flops_nonzero": self.flops_nonzero,
            "flops_shrunk": self.flops_shrunk,
            "frozen": self.frozen,
        }


@dataclass(frozen=True)
class Summary:
    """A model's figures: one row for each prunable weight tensor, and the totals.

    ``parameters`` is ``model.count_params()``; ``bytes_other`` the bytes of everything not
    prunable; ``skipped`` tells of each layer without prunable weights why.
    ``parameters_shrunk`` is ``parameters`` after ``shrink``, ``None`` where that cannot be done.
    """

    name: str
    weights: tuple[WeightSummary, ...]
    parameters: int
    bytes_other: int
    skipped: dict[str, str]
    parameters_shrunk: int | None = None

    @property
    def flops(self) -> int | None:
        """Multiply-adds for one sample; ``None`` if those of a weight tensor are not known."""
        return _total(weight.flops for weight in self.weights)

    @property
    def flops_nonzero(self) -> int | None:
        """Those with weights that are not zero."""
        return _total(weight.flops_nonzero for weight in self.weights)

    @property
    def flops_shrunk(self) -> int | None:
        """Those left after ``shrink``."""
        return _total(weight.flops_shrunk for weight in self.weights)

    @property
    def prunable(self) -> int:
        """The number of prunable weights."""
        return sum(weight.weights for weight in self.weights)

    @property
    def zeros(self) -> int:
        """The number of prunable weights that are zero."""
        return sum(weight.zeros for weight in self.weights)

    @property
    def sparsity(self) -> float:
        """Zeros over prunable weights; 0 where there are none."""
        return self.zeros / self.prunable if self.prunable else 0.0

    @property
    def left(self) -> int:
        """The parameters left; everything not prunable counts as left."""
        return self.parameters - self.zeros

    @property
    def compression(self) -> float:
        """All parameters over those left; infinite where none is left."""
        return ratio(self.parameters, self.left)

    @property
    def weight_compression(self) -> float:
        """Prunable weights over those not zero; infinite where all are zero."""
        return ratio(self.prunable, self.prunable - self.zeros)

    @property
    def bytes_dense(self) -> int:
        """The bytes of all parameters, zeros included."""
        return self.bytes_other + sum(weight.bytes_dense for weight in self.weights)

    @property
    def bytes_entropy_bound(self) -> float:
        """The bytes at the entropy bound; everything not prunable counts dense."""
        return self.bytes_other + sum(weight.bytes_entropy_bound for weight in self.weights)

    def to_dict(self) -> dict[str, Any]:
        """The figures under the attributes' names, ready for JSON; ``None`` is infinite."""
        return {
            "name": self.name,
            "parameters": self.parameters,
            "left": self.left,
            "prunable": self.prunable,
            "zeros": self.zeros,
            "sparsity": self.sparsity,
            "compression": _finite(self.compression),
            "weight_compression": _finite(self.weight_compression),
            "bytes_dense": self.bytes_dense,
            "bytes_entropy_bound": self.bytes_entropy_bound,
            "flops": self.flops,
            "flops_nonzero": self.flops_nonzero,
            "flops_shrunk": self.flops_shrunk,
            "parameters_shrunk": self.parameters_shrunk,
            "weights": [weight.to_dict() for weight in self.weights],
            "skipped": dict(self.skipped),
        }

    def to_json(self) -> str:
        """``to_dict()`` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        return as_text(self)


def _shrunk(model: keras.Model) -> keras.Model | None:
    """The model that ``shrink`` makes; ``None`` for one that cannot be shrunk."""
    try:
        check_finite(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about the new model, which is not kept
            return last_cut(model).graph.model
    except ValueError:
        return None


def _total(figures: Iterable[int | None]) -> int | None:
    found = list(figures)
    return None if None in found else sum(figure for figure in found if figure is not None)


def _summarize_weight(
    weight: Weight, uses: Mapping[int, int], sizes: Mapping[str, int] | None
) -> WeightSummary:
    values = weight.values()
    return WeightSummary(
        path=weight.path,
        shape=tuple(weight.variable.shape),
        dtype=keras.backend.standardize_dtype(weight.variable.dtype),
        bits=_bits(weight.variable),
        weights=values.size,
        zeros=values.size - int(np.count_nonzero(values)),
        frozen=weight.frozen,
        uses=uses.get(id(weight.variable)),
        weights_shrunk=None if sizes is None else sizes.get(weight.path, 0),
    )


def _bits(variable: keras.Variable) -> int:
    """The bits of one entry: a dtype's name tells them ("bfloat16"), save for a bool's eight."""
    width = re.search(r"\d+", keras.backend.standardize_dtype(variable.dtype))
    return int(width.group()) if width else 8


def _finite(ratio: float) -> float | None:
    return ratio if math.isfinite(ratio) else None
