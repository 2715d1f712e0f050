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

import numpy as np
from numpy.typing import NDArray

from keras_l0.errors import invalid_argument

# 120 orders of 32 mixtures each: past this rank the search would take seconds.
_LARGEST_SEARCHED_RANK = 5


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
class CsrEncoding:
    """A sparse tensor: the tree's levels, from the top, and the values of its leaves."""

    shape: tuple[int, ...]
    order: tuple[int, ...]
    levels: tuple[Level, ...]
    values: NDArray[np.floating]

    @property
    def nbytes(self) -> int:
        """Bytes of values, segments and indices, without the file's own tables."""
        arrays = [a for level in self.levels for a in (level.segments, level.indices)]
        return self.values.nbytes + sum(a.nbytes for a in arrays if a is not None)

    @property
    def name(self) -> str:
        """The order of dimensions and their formats, as in ``"0:dense 1:sparse"``."""
        formats = ("dense" if level.indices is None else "sparse" for level in self.levels)
        return " ".join(f"{axis}:{form}" for axis, form in zip(self.order, formats, strict=True))


def encode(array: NDArray[np.floating]) -> CsrEncoding:
    r"""The smallest sparse form of ``array``.

    With :math:`P_l` the nodes above level :math:`l`, :math:`d_l` its size and
    :math:`U_l` the distinct positions on the levels down to :math:`l` below which
    something is not zero, the levels cost

    .. math:: \text{dense: } 0, \quad P_{l+1} = P_l d_l \qquad
              \text{sparse: } (P_l + 1)\, b(U_l) + U_l\, b(d_l - 1), \quad P_{l+1} = U_l

    bytes, where :math:`b(m) \in \{1, 2, 4\}` is the width of the narrowest type that
    holds :math:`m`, and the values cost :math:`P_n` times their own width. All orders
    and mixtures with a sparse level are compared, up to rank 5; above, only the last
    dimension is compressed. At equal size the first in that order is taken.

    Args:
        array: floating numbers of rank 1 or more, with at least one element.
            ``-0.0`` counts as a zero, NaN does not.

    Returns:
        The encoding. An array of nothing but zeros keeps one of them, since the runtime
        takes an empty buffer for no constant at all.

    Raises:
        ValueError: if ``array`` is not floating, has rank 0 or no elements.

    Example:

    >>> kernel = np.zeros((300, 10), np.float32)
    >>> kernel[7, [1, 4]] = 5.0
    >>> encoding = encode(kernel)
    >>> encoding.name, encoding.nbytes, kernel.nbytes
    ('0:sparse 1:sparse', 16, 12000)
    >>> bool((decode(encoding) == kernel).all())
    True
    """
    if array.ndim == 0 or array.size == 0 or not np.issubdtype(array.dtype, np.floating):
        raise invalid_argument(
            "array",
            "floating numbers of rank 1 or more, not empty",
            f"{array.dtype} of shape {array.shape}",
        )
    kept = array != 0
    if not kept.any():
        kept.flat[0] = True
    order, sparse = _smallest_layout(kept, array.dtype.itemsize)
    return _encode_as(array, kept, order, sparse)


def decode(encoding: CsrEncoding) -> NDArray[np.floating]:
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
    return walked.transpose(np.argsort(encoding.order))


def _encode_as(
    array: NDArray[np.floating],
    kept: NDArray[np.bool_],
    order: tuple[int, ...],
    sparse: tuple[bool, ...],
) -> CsrEncoding:
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
    # Adding +0.0 turns a stored -0.0 into +0.0 and changes nothing else.
    return CsrEncoding(array.shape, order, tuple(levels), values + array.dtype.type(0))


def _all_children(nodes: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    return (nodes[:, None] * size + np.arange(size)).ravel()


def _smallest_layout(
    kept: NDArray[np.bool_], itemsize: int
) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    in_use = _positions_in_use(kept)
    sizes = {
        layout: _layout_bytes(kept.shape, *layout, in_use, itemsize)
        for layout in _layouts(kept.ndim)
    }
    return min(sizes, key=sizes.__getitem__)


def _positions_in_use(kept: NDArray[np.bool_]) -> dict[frozenset[int], int]:
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
