"""How many weights go, and which: pure functions on arrays."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def smallest(scores: Sequence[NDArray[np.floating]], count: int) -> list[Mask]:
    """Marks the ``count`` smallest of all scores taken together.

    Ties are broken by position: of equal scores the earlier goes, array by array, each in
    row-major order.

    Args:
        scores: arrays of any shapes, without NaN.
        count: how many to mark, from 0 to the number of all.

    Returns:
        A boolean array for each of ``scores``, True where the weight goes.

    Example:

    >>> smallest([np.array([3.0, 1.0]), np.array([1.0, 2.0])], 1)
    [array([False,  True]), array([False, False])]
    """
    if not scores:
        return []
    flat = np.concatenate([score.ravel() for score in scores])
    gone = np.zeros(flat.size, bool)
    if count > 0:
        threshold = np.partition(flat, count - 1)[count - 1]
        gone = flat < threshold
        ties = np.flatnonzero(flat == threshold)
        gone[ties[: count - np.count_nonzero(gone)]] = True
    parts = np.split(gone, np.cumsum([score.size for score in scores])[:-1])
    return [part.reshape(score.shape) for part, score in zip(parts, scores, strict=True)]


def uniform_shares(sizes: Sequence[int], zeros: float) -> list[float]:
    """The same sparsity for every layer: each gives ``zeros · size / sum(sizes)``.

    Example:

    >>> uniform_shares([100, 300], 200)
    [50.0, 150.0]
    """
    total = sum(sizes)
    return [zeros / total * size if total else 0.0 for size in sizes]


def erk_shares(shapes: Sequence[tuple[int, ...]], zeros: float) -> list[float]:
    """Erdős–Rényi-kernel: a layer's density is proportional to (Σ dims)/(Π dims).

    A layer whose density would pass 1 stays dense, and the others share what is left
    (Evci et al., "Rigging the Lottery", 2020).

    Args:
        shapes: the layers' kernel shapes.
        zeros: how many weights go in all, at most the number of all.

    Returns:
        The number of zeros for each layer, as a float; their sum is ``zeros``.

    Example:

    >>> [round(share) for share in erk_shares([(784, 300), (300, 100), (100, 10)], 200_000)]
    [187574, 12426, 0]
    """
    sizes = [math.prod(shape) for shape in shapes]
    keep = sum(sizes) - zeros
    dense = {i for i, size in enumerate(sizes) if size == 0}
    while True:
        rest = [i for i in range(len(sizes)) if i not in dense]
        left = keep - sum(sizes[i] for i in dense)
        raw = sum(sum(shapes[i]) for i in rest)
        factor = left / raw if raw else 0.0
        full = {i for i in rest if factor * sum(shapes[i]) > sizes[i]}
        if not full:
            break
        dense |= full
    return [0.0 if i in dense else size - factor * sum(shapes[i]) for i, size in enumerate(sizes)]


def apportion(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers near ``shares`` whose sum is ``total``, by the largest remainder.

    Example:

    >>> apportion([1.5, 1.5], 3)
    [2, 1]
    """
    counts = [math.floor(share) for share in shares]
    order = sorted(range(len(shares)), key=lambda i: (counts[i] - shares[i], i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts
