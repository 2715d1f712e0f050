"""Weights that are ranked together: where the least end, and making those zero.

One weight tensor at a time is looked at, and of one that is cut over devices one part at a time:
what has to be known of all of them together are counts.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from keras_l0.pruning.scores import Array, Custom, Score, magnitude
from keras_l0.pruning.selection import Cut, Keys, by_size, by_value, find_cut, marked, zeroed
from keras_l0.pruning.targets import Part, Weight
from keras_l0.pruning.units import SINGLE, Unit

KEPT = 2**22  # so many scores, of 8 bytes at most, are kept; more are computed anew in each pass

Places = NDArray[np.intp]


class BySize:
    """Single weights, the smallest first, where they lie."""

    def __init__(self, weights: Sequence[Weight]) -> None:
        self._weights = weights
        self._dtype = _common(weights)

    def cut(self, count: int) -> Cut:
        """Where the ``count`` smallest end."""
        return find_cut(self._parts, sum(w.size for w in self._weights), count, self._keys)

    def zero(self, cut: Cut) -> None:
        """Zeros what goes, in place."""
        if not cut.key:  # what goes is zero already
            return
        left = cut.ties
        for weight in self._weights:
            parts = weight.parts()
            found = [zeroed(w, Cut(cut.key, left), self._keys) for _, w in parts]
            taken = _first(left, weight, parts, [ties for _, ties in found])
            for (copy, _), ties in zip(found, taken, strict=True):
                copy.reshape(-1)[ties] = 0
            left -= sum(ties.size for ties in taken)
            pairs = zip(parts, found, strict=True)
            weight.assign([(place, copy) for (place, _), (copy, _) in pairs])

    def _keys(self, w: Array) -> Keys:
        return by_size(w.astype(self._dtype, copy=False))

    def _parts(self) -> Iterator[Array]:
        return (part for weight in self._weights for _, part in weight.parts())


class ByScore:
    """Units of weights, those of least score first."""

    def __init__(self, weights: Sequence[Weight], unit: Unit, score: Score) -> None:
        self._weights, self._unit, self._score = weights, unit, score
        self._dtype = _common(weights)
        self._total = sum(unit.count(weight.variable.shape) for weight in weights)
        # A function of the user's may say something else when it is asked again.
        keep = isinstance(score, Custom) or self._total <= KEPT
        self._kept = list(self._computed()) if keep else None

    def cut(self, count: int) -> Cut:
        """Where the ``count`` least end."""
        return find_cut(self._scores, self._total, count, by_value)

    def zero(self, cut: Cut) -> None:
        """Zeros the weights of the units that go, in place."""
        for weight, gone in zip(self._weights, marked(self._scores(), cut, by_value), strict=True):
            if gone.any():
                w = weight.values()
                mask = self._unit.mask(gone, w.shape)
                weight.assign([((), np.where(mask, np.zeros((), w.dtype), w))])

    def _scores(self) -> Iterator[Array]:
        return self._computed() if self._kept is None else iter(self._kept)

    def _computed(self) -> Iterator[Array]:
        values = (weight.values().astype(self._dtype, copy=False) for weight in self._weights)
        return map(self._unit.scores, self._score(values))


def rank(weights: Sequence[Weight], unit: Unit, score: Score) -> BySize | ByScore:
    """The units of some weights, those of least score first."""
    if score is magnitude and unit is SINGLE:
        return BySize(weights)
    return ByScore(weights, unit, score)


def _common(weights: Sequence[Weight]) -> np.dtype[np.floating]:
    """A dtype that has all values of these: theirs, or float32 or wider."""
    dtypes = {weight.dtype for weight in weights}
    if len(dtypes) == 1:
        return dtypes.pop()
    return np.dtype(np.float64 if any(dtype.itemsize > 4 for dtype in dtypes) else np.float32)


def _first(
    number: int, weight: Weight, parts: Sequence[Part], ties: Sequence[Places]
) -> Sequence[Places]:
    """Those of a tensor's ties that come first, in row-major order of the whole."""
    if sum(at.size for at in ties) <= number:
        return ties
    if len(parts) == 1:
        return [ties[0][:number]]
    shape = weight.variable.shape
    positions = [
        _in_whole(at, part.shape, place, shape)
        for at, (place, part) in zip(ties, parts, strict=True)
    ]
    last = np.sort(np.concatenate(positions))[number - 1]
    return [at[where <= last] for at, where in zip(ties, positions, strict=True)]


def _in_whole(
    at: Places, part: Sequence[int], place: Sequence[slice], shape: Sequence[int]
) -> Places:
    """Where the entries of a part stand in the whole tensor."""
    axes = zip(np.unravel_index(at, part), place, strict=True)
    return np.ravel_multi_index([axis + (cut.start or 0) for axis, cut in axes], shape)
