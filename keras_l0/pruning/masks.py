"""How many weights go, and which: pure functions on arrays."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def block_sums(values: NDArray[Any], block: tuple[int, int]) -> NDArray[np.float64]:
    """The sum over each block of an array's last two axes.

    Block (i, j) of each matrix is ``values[..., i·rows : (i+1)·rows, j·columns : (j+1)·columns]``,
    smaller at the edge; an array of rank 1 is taken as n rows of one column.

    Args:
        values: numbers or booleans, of any shape.
        block: rows and columns of a block, ≥ 1.

    Returns:
        The sums in float64, of shape ``block_grid(values.shape, block)``.

    Example:

    >>> block_sums(np.array([[1, 2], [3, 4], [5, 6]]), (2, 1))
    array([[4., 6.],
           [5., 6.]])
    """
    matrices = values.reshape(matrix_shape(values.shape))
    rows, columns = _clipped(block, matrices.shape)
    sums = np.add.reduceat(
        matrices, np.arange(0, matrices.shape[-2], rows), axis=-2, dtype=np.float64
    )
    return np.add.reduceat(sums, np.arange(0, matrices.shape[-1], columns), axis=-1)


def spread_blocks(gone: Mask, block: tuple[int, int], shape: Sequence[int]) -> Mask:
    """Each block's value at each of its weights: the inverse of the way from weights to blocks.

    Args:
        gone: a value for each block, of shape ``block_grid(shape, block)``.
        block: rows and columns of a block, ≥ 1.
        shape: that of the weights.

    Returns:
        An array of that shape.

    Example:

    >>> spread_blocks(np.array([[False, True], [True, False]]), (2, 1), (3, 2))
    array([[False,  True],
           [False,  True],
           [ True, False]])
    """
    *_, height, width = matrices = matrix_shape(shape)
    rows, columns = _clipped(block, matrices)
    tall = np.repeat(gone, rows, axis=-2)[..., :height, :]
    return np.repeat(tall, columns, axis=-1)[..., :width].reshape(shape)


def block_grid(shape: Sequence[int], block: tuple[int, int]) -> tuple[int, ...]:
    """How many blocks there are along each axis.

    Example:

    >>> block_grid((3, 3, 6, 8), (4, 1))
    (3, 3, 2, 8)
    """
    *leading, height, width = matrix_shape(shape)
    return (*leading, -(-height // block[0]), -(-width // block[1]))


def matrix_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape as one of matrices: with fewer than two axes, all in one column.

    Example:

    >>> matrix_shape((5,))
    (5, 1)
    """
    return tuple(shape) if len(shape) > 1 else (math.prod(shape), 1)


def beyond_pattern(scores: NDArray[Any], keep: int, of: int) -> Mask:
    """Marks in each group of ``of`` consecutive scores all but the ``keep`` largest.

    Groups lie along the axis before the last, or along the only one; an incomplete group at
    the edge keeps ``keep`` at most. Of equal scores the earlier goes.

    Args:
        scores: numbers or booleans, of any shape.
        keep: N, ≥ 1.
        of: M, > N.

    Returns:
        A boolean array of the same shape, True where the weight is to go.

    Example:

    >>> beyond_pattern(np.array([4.0, 3.0, 2.0, 1.0, 6.0, 5.0]), 2, 4)
    array([False, False,  True,  True, False, False])
    """
    *leading, height, width = matrix_shape(scores.shape)
    of = min(of, max(1, height))
    groups = -(-height // of)
    # What fills the last group is smaller than any score: it goes first, in no score's place.
    dtype = np.promote_types(scores.dtype, np.float16)
    filled = np.full((*leading, groups * of, width), -np.inf, dtype)
    least = np.nextafter(filled.dtype.type(-np.inf), filled.dtype.type(0))
    filled[..., :height, :] = np.maximum(scores.reshape(*leading, height, width), least)
    order = np.argsort(filled.reshape(*leading, groups, of, width), axis=-2, kind="stable")
    gone = np.zeros(order.shape, bool)
    np.put_along_axis(gone, order[..., : max(0, of - keep), :], True, axis=-2)
    return gone.reshape(filled.shape)[..., :height, :].reshape(scores.shape)


def _clipped(block: tuple[int, int], shape: Sequence[int]) -> tuple[int, int]:
    """The block cut to a matrix of this shape, which changes none of its blocks."""
    return min(block[0], max(1, shape[-2])), min(block[1], max(1, shape[-1]))


def uniform_shares(sizes: Sequence[int], zeros: float) -> list[float]:
    """The same sparsity for every layer: each gives ``zeros · size / sum(sizes)``.

    Example:

    >>> uniform_shares([100, 300], 200)
    [50.0, 150.0]
    """
    total = sum(sizes)
    return [zeros / total * size if total else 0.0 for size in sizes]


def erk_shares(
    shapes: Sequence[tuple[int, ...]], zeros: float, sizes: Sequence[int] | None = None
) -> list[float]:
    """Erdős–Rényi-kernel: a layer's density is proportional to (Σ dims)/(Π dims).

    A layer whose density would pass 1 stays dense, and the others share what is left
    (Evci et al., "Rigging the Lottery", 2020).

    Args:
        shapes: the layers' kernel shapes.
        zeros: how many weights go in all, at most the number of all.
        sizes: where other things are counted than weights, such as blocks: how many there are
            in each layer. The density is that of these.

    Returns:
        The number of zeros for each layer, as a float; their sum is ``zeros``.

    Example:

    >>> [round(share) for share in erk_shares([(784, 300), (300, 100), (100, 10)], 200_000)]
    [187574, 12426, 0]
    """
    if sizes is None:
        sizes = [math.prod(shape) for shape in shapes]
    raws = [
        sum(shape) * (size / math.prod(shape)) if size else 0.0
        for shape, size in zip(shapes, sizes, strict=True)
    ]
    keep = sum(sizes) - zeros
    dense = {i for i, size in enumerate(sizes) if size == 0}
    while True:
        rest = [i for i in range(len(sizes)) if i not in dense]
        left = keep - sum(sizes[i] for i in dense)
        raw = sum(raws[i] for i in rest)
        factor = left / raw if raw else 0.0
        full = {i for i in rest if factor * raws[i] > sizes[i]}
        if not full:
            break
        dense |= full
    return [0.0 if i in dense else size - factor * raws[i] for i, size in enumerate(sizes)]


def apportion(shares: Callable[[float], Sequence[float]], total: int, most: int) -> list[int]:
    """Whole numbers near the shares of a total, whose sum is that total.

    They are ``round(shares(t))``, halves up, at the t at which these sum to ``total``. So none
    falls when the total grows, as with the largest remainder it may (the Alabama paradox):
    what is pruned on a ramp stays pruned. Of those that grow at one t the first come first.

    Args:
        shares: the shares of a total, none falling when it grows.
        total: from 0 to ``most``.
        most: the sum of all there are, which are ``shares(most)``.

    Example:

    >>> apportion(lambda total: [total / 2, total / 2], 3, 8)
    [2, 1]
    """

    def rounded(t: float) -> list[int]:
        return [math.floor(share + 0.5) for share in shares(t)]

    low, high = 0.0, float(most if total else 0)
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if sum(rounded(middle)) < total else (low, middle)
    counts, above = rounded(low), rounded(high)
    for i, bound in enumerate(above):
        counts[i] += max(0, min(bound - counts[i], total - sum(counts)))
    return counts


def fewest(
    gains: Sequence[NDArray[np.floating]], wanted: float, shares: Callable[[float], Sequence[float]]
) -> list[int]:
    """The least total whose parts, apportioned by ``shares``, gain what is wanted.

    Args:
        gains: for each layer what its 0, 1, 2 … smallest units gain, never falling.
        wanted: the sum to be gained, at most that of all units.
        shares: the layers' shares of a total; each grows with it.

    Returns:
        How many units of each layer.

    Example:

    >>> fewest([np.array([0, 4, 8]), np.array([0, 4, 5])], 5, lambda n: [n / 2, n / 2])
    [1, 1]
    """
    most = sum(len(gain) - 1 for gain in gains)

    def reached(total: int) -> bool:
        counts = apportion(shares, total, most)
        return sum(gain[count] for gain, count in zip(gains, counts, strict=True)) >= wanted

    return apportion(shares, bisect_left(range(most), True, key=reached), most)
