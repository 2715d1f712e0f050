"""Weights that are ranked together: where the least end, and making those zero.

One weight tensor at a time is looked at, and of one that is cut over devices one part at a time:
what has to be known of all of them together are counts.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from keras_l0.pruning.masks import Mask
from keras_l0.pruning.scores import Array, Custom, Score, lamp, lamp_of_sorted, magnitude
from keras_l0.pruning.selection import Cut, Keys, by_size, by_value, find_cut, marked, zeroed
from keras_l0.pruning.targets import Part, Weight
from keras_l0.pruning.units import SINGLE, Block, Unit

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
            shares = self._shares(cut.key, left, weight, parts)
            for number, share in enumerate(shares):
                parts[number], taken = self._zeroed(parts[number], Cut(cut.key, share))
                left -= taken
            weight.assign(parts)

    def _zeroed(self, part: Part, cut: Cut) -> tuple[Part, int]:
        place, w = part
        copy, taken = zeroed(w, cut, self._keys)
        return (place, copy), taken

    def _shares(self, key: int, left: int, weight: Weight, parts: Sequence[Part]) -> Sequence[int]:
        """How many at the cut go from each part: those that come first in the whole tensor."""
        if not left or len(parts) == 1:
            return [left] * len(parts)
        shape = weight.variable.shape
        places = [
            _in_whole(np.flatnonzero(self._keys(w) == key), w.shape, place, shape)
            for place, w in parts
        ]
        first = np.sort(np.concatenate(places))[:left]
        return [int(np.isin(at, first).sum()) for at in places]

    def _keys(self, w: Array) -> Keys:
        return by_size(w.astype(self._dtype, copy=False))

    def _parts(self) -> Iterator[Array]:
        return (part for weight in self._weights for _, part in weight.parts())


class ByScore:
    """Units of weights, those of least score first."""

    def __init__(self, weights: Sequence[Weight], unit: Unit, score: Score, keep: bool) -> None:
        self._weights, self._unit, self._score = weights, unit, score
        self._dtype = _common(weights)
        self._total = units_in(weights, unit)
        # A function of the user's may say something else when it is asked again.
        self._kept = list(self._computed()) if keep or isinstance(score, Custom) else None

    def cut(self, count: int) -> Cut:
        """Where the ``count`` least end."""
        return find_cut(self.scores, self._total, count, by_value)

    def zero(self, cut: Cut) -> None:
        """Zeros the weights of the units that go, in place."""
        for weight, w, gone in self._gone(cut):
            if gone.any():
                weight.assign([((), np.where(gone, np.zeros((), w.dtype), w))])

    def left(self, cut: Cut) -> int:
        """How many weights that are not zero are in the units that go."""
        return sum(int(np.count_nonzero(w[gone])) for _, w, gone in self._gone(cut))

    def _gone(self, cut: Cut) -> Iterator[tuple[Weight, Array, Mask]]:
        """Each weight, its values, and which of them go."""
        for weight, gone in zip(self._weights, marked(self.scores(), cut, by_value), strict=True):
            w = weight.values()
            yield weight, w, self._unit.mask(gone, w.shape)

    def scores(self) -> Iterator[Array]:
        """The score of each unit, one array for each weight."""
        return self._computed() if self._kept is None else iter(self._kept)

    def _computed(self) -> Iterator[Array]:
        values = (weight.values().astype(self._dtype, copy=False) for weight in self._weights)
        if self._score is lamp and isinstance(self._unit, Block):
            # A block is as large as its norm, and is compared with the tensor's other blocks.
            squares = (self._unit.scores(np.square(w, dtype=np.float64)) for w in values)
            return lamp(map(np.sqrt, squares))
        return map(self._unit.scores, self._score(values))


class ByLamp:
    """Single weights, those of least LAMP score first: of each tensor its smallest.

    In a tensor the scores rise with |w|, so that no weight's own score is needed: sorted, they
    say how many of each tensor go.
    """

    def __init__(self, weights: Sequence[Weight], keep: bool) -> None:
        self._weights = weights
        self._kept = list(self._computed()) if keep else None

    def cut(self, count: int) -> Cut:
        """Where the ``count`` least end."""
        return find_cut(self._scores, sum(w.size for w in self._weights), count, by_value)

    def zero(self, cut: Cut) -> None:
        """Zeros what goes, in place."""
        gone = marked(self._scores(), cut, by_value)
        for weight, mask in zip(self._weights, gone, strict=True):
            smallest = BySize([weight])
            smallest.zero(smallest.cut(int(np.count_nonzero(mask))))

    def _scores(self) -> Iterator[Array]:
        return self._computed() if self._kept is None else iter(self._kept)

    def _computed(self) -> Iterator[Array]:
        for weight in self._weights:
            parts = magnitude(part for _, part in weight.parts())
            sizes = np.concatenate([part.ravel() for part in parts])
            sizes.sort()
            yield lamp_of_sorted(sizes)


def rank(
    weights: Sequence[Weight], unit: Unit, score: Score, keep: bool
) -> BySize | ByLamp | ByScore:
    """The units of some weights, those of least score first; ``keep`` their scores or not."""
    if score is magnitude and unit is SINGLE:
        return BySize(weights)
    if score is lamp and unit is SINGLE:
        return ByLamp(weights, keep)
    return ByScore(weights, unit, score, keep)


def units_in(weights: Sequence[Weight], unit: Unit) -> int:
    """How many units some weights have."""
    return sum(unit.count(weight.variable.shape) for weight in weights)


def _common(weights: Sequence[Weight]) -> np.dtype[np.floating]:
    """A dtype that has all values of these: theirs, or float32 or wider."""
    dtypes = {weight.dtype for weight in weights}
    if len(dtypes) == 1:
        return dtypes.pop()
    return np.dtype(np.float64 if any(dtype.itemsize > 4 for dtype in dtypes) else np.float32)


def _in_whole(
    at: Places, part: Sequence[int], place: Sequence[slice], shape: Sequence[int]
) -> Places:
    """Where the entries of a part stand in the whole tensor."""
    axes = zip(np.unravel_index(at, part), place, strict=True)
    return np.ravel_multi_index([axis + (cut.start or 0) for axis, cut in axes], shape)
