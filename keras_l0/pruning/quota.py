"""How many of which weights are zero, and making it so."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from keras_l0.errors import invalid_argument
from keras_l0.pruning.ranked import ByScore, rank, units_in
from keras_l0.pruning.scores import Array, Score, magnitude
from keras_l0.pruning.selection import by_size, chunks
from keras_l0.pruning.targets import Weight
from keras_l0.pruning.units import SINGLE, Unit

KEPT = 2**22  # so many scores, of 8 bytes at most, are kept; more are computed anew in each pass


@dataclass(frozen=True)
class Quota:
    """Weights that are ranked together, and how many units of them are to be zero in the end.

    ``counted`` zeros of these stand elsewhere, in weights that pruning leaves alone.
    """

    weights: list[Weight]
    zeros: float
    counted: int = 0
    unit: Unit = SINGLE

    def count(self, share: float = 1.0) -> int:
        """The number of units that are zero once ``share`` of the target is reached."""
        return max(0, round(share * self.zeros) - self.counted)


def prune_to(plan: Sequence[Quota], share: float, score: Score) -> None:
    """Zeros the weights of least score, up to ``share`` of each quota, in place.

    Zeros that are there already stay, also where they are more than the quota.

    Raises:
        ValueError: if a weight is NaN or infinite; then nothing is changed.
    """
    check_weights(plan)
    keep = sum(units_in(quota.weights, quota.unit) for quota in plan) <= KEPT
    ranked = [rank(quota.weights, quota.unit, score, keep) for quota in plan]
    cuts = [one.cut(quota.count(share)) for quota, one in zip(plan, ranked, strict=True)]
    for one, cut in zip(ranked, cuts, strict=True):
        one.zero(cut)


def check_weights(plan: Sequence[Quota]) -> None:
    """Raises a ``ValueError`` that names the weight if one is NaN or infinite."""
    for quota in plan:
        for weight in quota.weights:
            check_finite(weight)


def check_finite(weight: Weight) -> None:
    """Raises a ``ValueError`` that names the weight if it holds NaN or infinity."""
    bad = 0
    for _, part in weight.parts():
        infinite = by_size(np.full(1, np.inf, part.dtype))
        bad += sum(int(np.count_nonzero(by_size(chunk) >= infinite)) for chunk in chunks(part))
    if bad:
        raise invalid_argument(
            "model",
            "finite weights",
            weight.path,
            f"{bad} of its {weight.size} weights are NaN or infinite",
        )


def missing(plan: Sequence[Quota]) -> int:
    """How many weights, the smallest, would still have to go for every quota to be met.

    A weight that is NaN counts as the largest: training is over when this is asked.
    """
    total = 0
    for quota in plan:
        short = max(0, quota.count() - zeros_in(quota.weights, quota.unit))
        if short and quota.unit is not SINGLE:  # of single weights it is one for each
            ranked = ByScore(quota.weights, quota.unit, _nan_last, keep=False)
            short = ranked.left(ranked.cut(quota.count()))
        total += short
    return total


def _nan_last(weights: Iterable[Array]) -> Iterator[Array]:
    """``magnitude``, infinite where a weight is NaN."""
    return (np.where(np.isnan(w), np.full((), np.inf, w.dtype), w) for w in magnitude(weights))


def zeros_in(weights: Sequence[Weight], unit: Unit = SINGLE) -> int:
    """The number of units that are exactly zero."""
    zeros = 0
    for weight in weights:
        if unit is SINGLE:
            for _, part in weight.parts():
                left = sum(np.count_nonzero(by_size(chunk)) for chunk in chunks(part))
                zeros += part.size - int(left)
        else:
            scores = unit.scores(weight.values() != 0)
            zeros += scores.size - int(np.count_nonzero(scores))
    return zeros
