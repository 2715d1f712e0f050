"""Where the k smallest of many numbers end, found by counting.

Nothing is brought together and nothing sorted, but some thousandths of the numbers. A sample says
between which two the threshold must lie; one pass over the numbers, array by array, counts those
below, and brings together those between. If the sample misled, or too many are equal, the bits say
it: each further pass counts the numbers by the next 16 bits of those whose bits so far are the
threshold's, as in a radix sort that begins at the highest digit. So a billion numbers take little
more memory than a million.

Sources: R. Floyd, R. Rivest, "Expected time bounds for selection" (1975), for the sample.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Keys = NDArray[np.unsignedinteger]
Order = Callable[[Array], Keys]

CHUNK = 2**17  # a processor's cache holds so many numbers and what is made of them
FEW = 2**24  # bytes of keys that are brought together at most
SAMPLE = 2**20  # numbers
_DIGIT = 16


def by_size(x: Array) -> Keys:
    """Unsigned integers in the order of |x|, equal just where that is; 0 for 0 and −0.

    Args:
        x: floats, without NaN.

    Example:

    >>> keys = by_size(np.array([1.0, -0.0, -2.0], np.float32))
    >>> bool(keys[1] == 0 < keys[0] < keys[2])
    True
    """
    bits = _bits(x)
    return bits + bits  # the sign, the highest bit, is lost


def by_value(x: Array) -> Keys:
    """Unsigned integers in the order of x, equal just where that is.

    Args:
        x: floats, without NaN.

    Example:

    >>> keys = by_value(np.array([1.0, -3.0, -0.0, 0.0], np.float32))
    >>> bool(keys[1] < keys[2] == keys[3] < keys[0])
    True
    """
    bits = _bits(x + x.dtype.type(0))  # −0 becomes 0
    sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
    return np.where(bits & sign, ~bits, bits | sign)


def chunks(array: Array) -> Iterator[Array]:
    """An array's values in row-major order, in parts that fit into a cache."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        yield flat[start : start + CHUNK]


@dataclass(frozen=True)
class Cut:
    """Where the k smallest end: all with a key below ``key`` go, and the first ``ties`` at it."""

    key: int = 0
    ties: int = 0


def find_cut(arrays: Callable[[], Iterable[Array]], total: int, count: int, order: Order) -> Cut:
    """Finds where the ``count`` smallest end.

    Args:
        arrays: goes over all of them once more: arrays of floats of one dtype, any shapes.
        total: how many numbers they have.
        count: how many are the smallest, from 0 to ``total``.
        order: ``by_size`` or ``by_value``.

    Example:

    >>> scores = [np.array([3.0, 1.0]), np.array([1.0, 2.0])]
    >>> find_cut(lambda: scores, 4, 2, by_value).ties
    2
    """
    if count == 0:
        return Cut()
    low, high = None, None
    if total * 8 > FEW:
        low, high = _guess(arrays(), total, count, order)
    return _between(arrays(), low, high, count, order) or _by_digits(arrays, count, order)


def marked(arrays: Iterable[Array], cut: Cut, order: Order) -> Iterator[NDArray[np.bool_]]:
    """Which of each array's values go: those below a cut, and the first of those at it."""
    left = cut.ties
    for array in arrays:
        gone = np.empty(array.shape, bool)
        for chunk, here in zip(chunks(array), chunks(gone), strict=True):
            keys = order(chunk)
            np.less(keys, cut.key, out=here)
            if left:
                ties = np.flatnonzero(keys == cut.key)[:left]
                here[ties] = True
                left -= ties.size
        yield gone


def zeroed(array: Array, cut: Cut, order: Order) -> tuple[Array, int]:
    """A copy with zeros below a cut and for the first of those at it; how many of these it had."""
    copy = np.empty(array.shape, array.dtype)
    bits = f"u{array.dtype.itemsize}"
    left = cut.ties
    for chunk, new in zip(chunks(array), chunks(copy), strict=True):
        keys = order(chunk)
        np.multiply(chunk.view(bits), keys >= cut.key, out=new.view(bits))
        if left:
            ties = np.flatnonzero(keys == cut.key)[:left]
            new[ties] = 0
            left -= ties.size
    return copy, cut.ties - left


def _guess(
    arrays: Iterable[Array], total: int, count: int, order: Order
) -> tuple[int | None, int | None]:
    """Two keys between which the threshold lies, most likely; None for no bound."""
    every = -(-total // SAMPLE)
    random = np.random.default_rng(0)
    sample = np.concatenate([order(_sample(array.reshape(-1), every, random)) for array in arrays])
    share = (count - 0.5) / total
    # Five times the standard deviation of how many of a sample are below the threshold.
    margin = 5 * math.sqrt(sample.size * share * (1 - share)) + 1
    low, high = (math.floor(share * sample.size + side) for side in (-margin, margin))
    sample.partition([max(0, low), min(high, sample.size - 1)])
    return (
        int(sample[low]) if low >= 0 else None,
        int(sample[high]) if high < sample.size else None,
    )


def _sample(flat: Array, every: int, random: np.random.Generator) -> Array:
    """One of each so many numbers, drawn: at equal steps some columns would be left out."""
    places = np.arange(0, flat.size, every)
    places += random.integers(0, every, places.size)
    return flat[places[places < flat.size]]


def _between(
    arrays: Iterable[Array], low: int | None, high: int | None, count: int, order: Order
) -> Cut | None:
    """The cut, if its key lies between these two, and not too many others do."""
    fewer = number = 0
    found: list[Keys] = []
    for array in arrays:
        for chunk in chunks(array):
            keys = order(chunk)
            within = np.ones(keys.shape, bool) if low is None else keys >= low
            fewer += keys.size - int(np.count_nonzero(within))
            if high is not None:
                within &= keys <= high
            keys = keys[within]
            number += keys.size
            if number * keys.itemsize <= FEW:
                found.append(keys)
    rank = count - 1 - fewer
    if not 0 <= rank < number:
        return None
    if low == high is not None:
        return Cut(high, rank + 1)
    if number * keys.itemsize > FEW:
        return None
    together = np.concatenate(found)
    together.partition(rank)
    key = together[rank]
    return Cut(int(key), rank + 1 - int(np.count_nonzero(together[:rank] < key)))


def _by_digits(arrays: Callable[[], Iterable[Array]], count: int, order: Order) -> Cut:
    """The cut, by as many passes as the keys have digits of 16 bits."""
    rank, prefix, known, bits = count - 1, 0, 0, _DIGIT
    while known < bits:
        found = np.zeros(2**_DIGIT, np.int64)
        for array in arrays():
            for chunk in chunks(array):
                keys = order(chunk)
                bits = 8 * keys.itemsize
                if known:
                    keys = keys[keys >> (bits - known) == prefix]
                digits = (keys >> (bits - known - _DIGIT) & 0xFFFF).astype(np.intp)
                found += np.bincount(digits, minlength=found.size)
        sums = np.cumsum(found)
        digit = int(np.searchsorted(sums, rank, side="right"))
        rank -= int(sums[digit] - found[digit])
        prefix, known = prefix << _DIGIT | digit, known + _DIGIT
    return Cut(prefix, rank + 1)


def _bits(x: Array) -> Keys:
    """The bits of floats as unsigned integers; of floats of one byte those of their float32."""
    wide = x.astype(np.float32) if x.dtype.itemsize < 2 else x
    return wide.view(f"u{wide.dtype.itemsize}")
