"""A tensor's bytes: from a NumPy array to TFLite's sparse form and back.

TFLite walks through a sparse tensor one dimension at a time, in a traversal order that
is free. Each dimension is a level of a tree: a *dense* level keeps all its positions,
a *sparse* one (compressed sparse rows) keeps for each node above it only the positions
below which something is not zero. The file's one reader, the operator ``DENSIFY``,
takes every order and every mixture of levels.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_l0.errors import invalid_argument

# 120 orders of 32 mixtures each: past this rank the search would take seconds.
_LARGEST_SEARCHED_RANK = 5
_BLOCK_SIZES = (2, 4, 8, 16)
# A block spares at most its neighbours' indices, four bytes each: less than half of what is kept.
_LARGEST_FILL = 1.5

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Level:
    """One dimension of the tree; dense where ``segments`` and ``indices`` are ``None``.

    The children of node ``i`` of the level above are
    ``indices[segments[i]:segments[i + 1]]``.
    """

    size: int
    segments: NDArray[np.integer] | None = None
    indices: NDArray[np.integer] | None = None


@dataclass(frozen=True, eq=False)
class Encoding:
    """A sparse tensor: the tree's levels, from the top, and the values of its leaves.

    Attributes:
        shape: the tensor's.
        order: which dimension each level walks along; a block's inner dimension counts as
            ``len(shape)`` and comes last.
        levels: from the top.
        values: of the leaves, in the order they are walked.
        block: ``(axis, size)`` if ``size`` neighbours along ``axis`` are kept or left out
            together, or ``None``.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    levels: tuple[Level, ...]
    values: NDArray[Any]
    block: tuple[int, int] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of values, segments and indices, without the file's own tables."""
        arrays = [a for level in self.levels for a in (level.segments, level.indices)]
        return self.values.nbytes + sum(a.nbytes for a in arrays if a is not None)

    @property
    def name(self) -> str:
        """The order of dimensions and their formats, as in ``"0:dense 1:sparse"``."""
        formats = ("dense" if level.indices is None else "sparse" for level in self.levels)
        outer = zip(self.order, formats, strict=True)
        text = " ".join(f"{axis}:{form}" for axis, form in outer if axis < len(self.shape))
        return (
            text
            if self.block is None
            else f"{text} blocks of {self.block[1]} along {self.block[0]}"
        )


def encode(array: NDArray[Any]) -> Encoding:
    r"""The smallest sparse form of ``array``.

    With :math:`P_l` the nodes above level :math:`l`, :math:`d_l` its size and
    :math:`U_l` the distinct positions on the levels down to :math:`l` below which
    something is not zero, the levels cost

    .. math:: \text{dense: } 0, \quad P_{l+1} = P_l d_l \qquad
              \text{sparse: } (P_l + 1)\, b(U_l) + U_l\, b(d_l - 1), \quad P_{l+1} = U_l

    bytes, where :math:`b(m) \in \{1, 2, 4\}` is the width of the narrowest type that
    holds :math:`m`, and the values cost :math:`P_n` times their own width. All orders
    and mixtures with a sparse level are compared, up to rank 5; above, only the last
    dimension is compressed. Blocks of 2, 4, 8 or 16 along one axis are compared too,
    wherever the array's zeros come in such blocks. At equal size the first in that
    order is taken.

    Args:
        array: floating numbers or int8 of rank 1 or more, with at least one element.
            ``-0.0`` counts as a zero, NaN does not.

    Returns:
        The encoding. An array of nothing but zeros keeps one of them, since the runtime
        takes an empty buffer for no constant at all.

    Raises:
        ValueError: if ``array`` is of another type, has rank 0 or no elements.

    Example:

    >>> kernel = np.zeros((300, 10), np.float32)
    >>> kernel[7, [1, 4]] = 5.0
    >>> encoding = encode(kernel)
    >>> encoding.name, encoding.nbytes, kernel.nbytes
    ('0:sparse 1:sparse', 16, 12000)
    >>> bool((decode(encoding) == kernel).all())
    True
    """
    kept = _kept(array)
    found = [_encode_as(array, kept, *_smallest_layout(kept, array.dtype.itemsize))]
    if array.ndim < _LARGEST_SEARCHED_RANK:
        for block in _promising_blocks(kept):
            blocked, kept_blocks = _in_blocks(array, kept, block)
            order, sparse = _smallest_layout(kept_blocks[..., 0], array.dtype.itemsize * block[1])
            found.append(
                _encode_as(
                    blocked, kept_blocks, (*order, array.ndim), (*sparse, False), array.shape, block
                )
            )
    return min(found, key=lambda encoding: encoding.nbytes)


def encode_rows(array: NDArray[Any]) -> Encoding:
    """Compressed sparse rows: the last of two dimensions is sparse.

    LiteRT's float32 FullyConnected computes with it as it is.

    Example:

    >>> encode_rows(np.array([[0.0, 2.0], [0.0, 0.0]], np.float32)).name
    '0:dense 1:sparse'
    """
    return _encode_as(array, _kept(array), (0, 1), (False, True))


def encode_blocks(array: NDArray[Any], size: int) -> Encoding:
    """Compressed sparse rows of blocks of ``size`` neighbours along the last of two dimensions.

    LiteRT's FullyConnected computes with it as it is: float32 with ``size=4``, int8 with 16.

    Args:
        array: of rank 2, its last dimension a multiple of ``size``: the runtime would drop
            the rest without a word.
        size: of a block.

    Example:

    >>> encode_blocks(np.eye(2, 4, dtype=np.float32), 4).nbytes
    37
    """
    if array.shape[1] % size:
        raise invalid_argument("array", f"columns that are a multiple of {size}", array.shape)
    block = (1, size)
    return _encode_as(
        *_in_blocks(array, _kept(array), block), (0, 1, 2), (False, True, False), array.shape, block
    )


def decode(encoding: Encoding) -> NDArray[Any]:
    """The array that ``encoding`` stands for, zeros as ``+0.0``."""
    # Nodes as flat positions within the levels so far, in the order they are walked.
    nodes = np.zeros(1, np.int64)
    for level in encoding.levels:
        if level.segments is None or level.indices is None:
            nodes = _all_children(nodes, level.size)
        else:
            ends = level.segments.astype(np.int64)
            parents = np.repeat(nodes, ends[1:] - ends[:-1])
            nodes = parents * level.size + level.indices
    walked = np.zeros([level.size for level in encoding.levels], encoding.values.dtype)
    walked.flat[nodes] = encoding.values
    array = walked.transpose(np.argsort(encoding.order))
    if encoding.block is not None:
        array = np.moveaxis(array, -1, encoding.block[0] + 1)
    return array.reshape(encoding.shape)


def _kept(array: NDArray[Any]) -> Mask:
    """Where something is stored: what is not zero, or one zero of an array without any."""
    known = np.issubdtype(array.dtype, np.floating) or array.dtype == np.int8
    if array.ndim == 0 or array.size == 0 or not known:
        raise invalid_argument(
            "array",
            "floating numbers or int8 of rank 1 or more, not empty",
            f"{array.dtype} of shape {array.shape}",
        )
    kept = array != 0
    if not kept.any():
        kept.flat[0] = True
    return kept


def _in_blocks(
    array: NDArray[Any], kept: Mask, block: tuple[int, int]
) -> tuple[NDArray[Any], Mask]:
    """The array with a block's elements on a last axis of their own, kept if one of them is."""
    axis, size = block
    split = (*array.shape[:axis], array.shape[axis] // size, size, *array.shape[axis + 1 :])
    blocked = np.moveaxis(array.reshape(split), axis + 1, -1)
    split_kept = np.moveaxis(kept.reshape(split), axis + 1, -1)
    return blocked, np.broadcast_to(np.any(split_kept, -1, keepdims=True), blocked.shape)


def _promising_blocks(kept: Mask) -> Iterator[tuple[int, int]]:
    """Blocks in which little would be stored that is zero."""
    count = np.count_nonzero(kept)
    for axis, length in enumerate(kept.shape):
        for size in _BLOCK_SIZES:
            if length % size == 0:
                stored = np.count_nonzero(
                    kept.reshape(*kept.shape[:axis], length // size, size, -1).any(axis=axis + 1)
                )
                if stored * size > _LARGEST_FILL * count:
                    break  # and larger blocks would store more
                yield axis, size


def _encode_as(
    array: NDArray[Any],
    kept: Mask,
    order: tuple[int, ...],
    sparse: tuple[bool, ...],
    shape: tuple[int, ...] | None = None,
    block: tuple[int, int] | None = None,
) -> Encoding:
    kept = kept.transpose(order)
    nodes = np.zeros(1, np.int64)
    levels = []
    for depth, (size, is_sparse) in enumerate(zip(kept.shape, sparse, strict=True)):
        if not is_sparse:
            levels.append(Level(size))
            nodes = _all_children(nodes, size)
            continue
        in_use = kept.any(axis=tuple(range(depth + 1, kept.ndim)))
        parents, indices = np.nonzero(in_use.reshape(-1, size)[nodes])
        segments = np.searchsorted(parents, np.arange(len(nodes) + 1))
        nodes = nodes[parents] * size + indices
        levels.append(
            Level(
                size,
                segments.astype(_index_type(len(nodes))),
                indices.astype(_index_type(size - 1)),
            )
        )
    values = array.transpose(order).ravel()[nodes]
    # -0.0 becomes +0.0; adding that would do, but not with a signaling NaN.
    values = np.where(values == 0, array.dtype.type(0), values)
    return Encoding(shape or array.shape, order, tuple(levels), values, block)


def _all_children(nodes: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    return (nodes[:, None] * size + np.arange(size)).ravel()


def _smallest_layout(kept: Mask, itemsize: int) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    in_use = _positions_in_use(kept)
    sizes = {
        layout: _layout_bytes(kept.shape, *layout, in_use, itemsize)
        for layout in _layouts(kept.ndim)
    }
    return min(sizes, key=sizes.__getitem__)


def _positions_in_use(kept: Mask) -> dict[frozenset[int], int]:
    """For each set of axes, the positions on them at or below which something is kept.

    It depends on which axes are above, not on their order: one look at the array for
    each set serves all orders.
    """
    axes = range(kept.ndim)
    return {
        above: int(kept.any(axis=tuple(a for a in axes if a not in above)).sum())
        for depth in range(1, kept.ndim + 1)
        for above in map(frozenset, itertools.combinations(axes, depth))
    }


def _layouts(rank: int) -> Iterator[tuple[tuple[int, ...], tuple[bool, ...]]]:
    rows = tuple(range(rank))
    if rank > _LARGEST_SEARCHED_RANK:
        yield rows, (False,) * (rank - 1) + (True,)
        return
    for order in itertools.permutations(rows):
        for sparse in itertools.product((False, True), repeat=rank):
            if any(sparse):
                yield order, sparse


def _layout_bytes(
    shape: tuple[int, ...],
    order: tuple[int, ...],
    sparse: tuple[bool, ...],
    in_use: dict[frozenset[int], int],
    itemsize: int,
) -> int:
    nodes, total = 1, 0
    for depth, (axis, is_sparse) in enumerate(zip(order, sparse, strict=True)):
        if not is_sparse:
            nodes *= shape[axis]
            continue
        used = in_use[frozenset(order[: depth + 1])]
        total += (nodes + 1) * _index_type(used).itemsize
        total += used * _index_type(shape[axis] - 1).itemsize
        nodes = used
    return total + nodes * itemsize


def _index_type(largest: int) -> np.dtype[np.integer]:
    return np.dtype(np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.int32)
