"""When pruning happens: the ramp of the sparsity over epochs."""

import math
from dataclasses import dataclass

from keras_l0.errors import invalid_argument, is_number, is_whole, whole_at_least


@dataclass(frozen=True)
class Ramp:
    """A polynomial ramp from no pruning to all of it, over epochs counted from 0.

    At epoch e the share of the target that is reached is::

        1 - (1 - (e - begin + 1) / (end - begin + 1)) ** power

    so that epoch ``end`` always prunes to the whole target. With ``power=3`` it is the cubic
    ramp of Zhu & Gupta, "To prune, or not to prune" (2017). Pruning happens at ``begin``,
    every ``every`` epochs from there, and at ``end``.

    Args:
        begin: the first epoch that prunes, ≥ 0.
        end: the last one, ≥ ``begin``.
        every: epochs from one pruning to the next, ≥ 1.
        power: the polynomial's degree, > 0; larger is steeper at the beginning.

    Example:

    >>> ramp = Ramp(begin=2, end=5, power=1.0)
    >>> [ramp.share(epoch) for epoch in range(8)]
    [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """

    begin: int
    end: int
    every: int = 1
    power: float = 3.0

    def prunes(self, epoch: int) -> bool:
        """Whether weights are pruned at the beginning of this epoch."""
        regular = self.begin <= epoch <= self.end and (epoch - self.begin) % self.every == 0
        return regular or epoch == self.end

    def share(self, epoch: int) -> float:
        """The share of the target reached by the last pruning up to this epoch."""
        if epoch < self.begin:
            return 0.0
        if epoch >= self.end:
            return 1.0
        last = epoch - (epoch - self.begin) % self.every
        way = (last - self.begin + 1) / (self.end - self.begin + 1)
        return 1.0 - math.pow(1.0 - way, self.power)

    @property
    def last_tenth(self) -> int:
        """The epoch from which zeros are held when weights may grow back."""
        length = self.end - self.begin + 1
        return min(self.end, self.begin + -(-9 * length // 10))


def check_ramp(begin: int | None, end: int | None, every: int, power: float, regrow: bool) -> None:
    """Raises a ``ValueError`` for a ramp that makes no sense."""
    for name, value in (("begin", begin), ("end", end)):
        if value is not None and (not is_whole(value) or value < 0):
            raise invalid_argument(name, "None or an epoch, an integer >= 0", value)
    if end is not None and begin is None:
        raise invalid_argument("begin", f"an epoch <= end={end}", begin)
    if begin is not None and end is not None and begin > end:
        raise invalid_argument("begin", f"an epoch <= end={end}", begin)
    whole_at_least("every", every, 1)
    if not is_number(power) or not 0 < power < 1e6:
        raise invalid_argument("power", "a float in (0, 1e6)", power)
    if not isinstance(regrow, bool):
        raise invalid_argument("regrow", "a bool", regrow)
    if regrow and begin is not None and (end is None or end == begin):
        raise invalid_argument(
            "regrow", "False, since begin without a later end prunes once", regrow, "Give `end`"
        )


def resolve(begin: int | None, end: int | None, every: int, power: float, epochs: int) -> Ramp:
    """The ramp of a ``fit`` of ``epochs`` epochs.

    With neither ``begin`` nor ``end`` it goes from 20 % to 75 % of the epochs: training
    first, fine tuning last. ``begin`` alone prunes once.

    Example:

    >>> resolve(None, None, 1, 3.0, epochs=100)
    Ramp(begin=20, end=75, every=1, power=3.0)
    """
    if begin is None:
        return Ramp(epochs // 5, min(3 * epochs // 4, epochs - 1), every, power)
    return Ramp(begin, begin if end is None else end, every, power)
