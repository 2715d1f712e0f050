"""Candidates for the score that ``GlobalPrune`` ranks by unless told: which weights each zeroes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_l0.pruning import masks, scores

Array = NDArray[Any]
Scores = Sequence[Array]
Shares = Callable[[Scores, float], Sequence[float]]
"""Gives each kernel its share of so many zeros."""


def uniform(kernels: Scores, zeros: float) -> Sequence[float]:
    """One sparsity for all kernels."""
    return masks.uniform_shares([w.size for w in kernels], zeros)


def erk(kernels: Scores, zeros: float) -> Sequence[float]:
    """Erdős–Rényi-kernel densities (Evci et al., 2020)."""
    return masks.erk_shares([w.shape for w in kernels], zeros)


def magnitude(kernels: Scores) -> Scores:
    """|w|."""
    return [np.abs(w) for w in kernels]


def lamp(kernels: Scores) -> Scores:
    """Lee et al., 2021: w² over the sum of all squares of the kernel that are as large."""
    return list(scores.lamp(kernels))


def kernel_rms(kernels: Scores) -> Scores:
    """|w| over the root mean square of its kernel."""
    return [np.abs(w) / np.sqrt(np.mean(np.square(w)) or 1.0) for w in kernels]


def channel_rms(kernels: Scores) -> Scores:
    """|w| over the root mean square of the weights that make its output channel."""
    found = []
    for w in kernels:
        depthwise = w.ndim == 4 and w.shape[-1] == 1
        axes = (0, 1) if depthwise else tuple(range(w.ndim - 1))
        rms = np.sqrt(np.mean(np.square(w), axis=axes, keepdims=True))
        found.append(np.abs(w) / np.where(rms > 0, rms, 1.0))
    return found


def fan_in(kernels: Scores) -> Scores:
    """|w| times the root of the number of weights that make an output channel."""
    found = []
    for w in kernels:
        depthwise = w.ndim == 4 and w.shape[-1] == 1
        inputs = w.shape[0] * w.shape[1] if depthwise else w.size // w.shape[-1]
        found.append(np.abs(w) * np.sqrt(inputs))
    return found


def smallest(values: Scores, zeros: int) -> Scores:
    """Marks so many of the smallest of all arrays; of equal ones the first."""
    flat = np.concatenate([array.ravel() for array in values])
    gone = np.zeros(flat.size, bool)
    gone[np.argsort(flat, kind="stable")[:zeros]] = True
    parts = np.split(gone, np.cumsum([array.size for array in values])[:-1])
    return [part.reshape(array.shape) for part, array in zip(parts, values, strict=True)]


def ranked(score: Callable[[Scores], Scores]) -> Callable[[Scores, float], Scores]:
    """Zeroes the weights of least score in the network as a whole."""
    return lambda kernels, sparsity: smallest(
        score(kernels), round(sparsity * sum(w.size for w in kernels))
    )


def floored(share: float, rule: Shares) -> Callable[[Scores, float], Scores]:
    """By magnitude, but each kernel keeps at least ``share`` of what a rule would leave it."""

    def choose(kernels: Scores, sparsity: float) -> Scores:
        found = []
        counts = rule(kernels, sparsity * sum(w.size for w in kernels))
        for w, zeros in zip(kernels, counts, strict=True):
            keep = int(np.ceil(share * (w.size - zeros)))
            values = np.abs(w).astype(np.float64).ravel()
            values[np.argsort(-values, kind="stable")[:keep]] = np.inf
            found.append(values.reshape(w.shape))
        return smallest(found, round(sparsity * sum(w.size for w in kernels)))

    return choose


def layerwise(rule: Shares) -> Callable[[Scores, float], Scores]:
    """By magnitude within each kernel, which loses what a rule says."""

    def choose(kernels: Scores, sparsity: float) -> Scores:
        counts = rule(kernels, sparsity * sum(w.size for w in kernels))
        pairs = zip(kernels, counts, strict=True)
        return [smallest([np.abs(w)], round(count))[0] for w, count in pairs]

    return choose


CANDIDATES: Mapping[str, Callable[[Scores, float], Scores]] = {
    "magnitude": ranked(magnitude),
    "lamp": ranked(lamp),
    "kernel rms": ranked(kernel_rms),
    "channel rms": ranked(channel_rms),
    "fan-in": ranked(fan_in),
    "floor 0.3": floored(0.3, uniform),
    "floor 0.5": floored(0.5, uniform),
    "floor 0.7": floored(0.7, uniform),
    "erk floor 0.3": floored(0.3, erk),
    "erk floor 0.5": floored(0.5, erk),
    "erk floor 0.7": floored(0.7, erk),
    "erk": layerwise(erk),
    "layerwise": layerwise(uniform),
}
"""Each takes kernels and a sparsity, and marks the weights that go."""
