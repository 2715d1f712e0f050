"""What goes together: single weights, blocks of them, or some of each N:M group."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_l0.errors import invalid_argument, is_whole
from keras_l0.pruning import masks
from keras_l0.pruning.masks import Mask


class Unit:
    """Single weights: each is ranked, counted and zeroed by itself.

    Another unit says how many of it a weight tensor has, turns the scores of the weights into
    scores of its own, and a mask of its own into one of the weights.
    """

    def count(self, shape: Sequence[int]) -> int:
        """How many units of a weight tensor may go."""
        return math.prod(shape)

    def scores(self, scores: NDArray[Any]) -> NDArray[Any]:
        """The units' scores, in the order that breaks ties; all zero scores give a zero."""
        return scores

    def mask(self, gone: Mask, shape: Sequence[int]) -> Mask:
        """The weights that go, of a tensor of this shape, where these units go."""
        return gone


SINGLE = Unit()


@dataclass(frozen=True)
class Block(Unit):
    """Blocks over a kernel's last two axes, by the sum of their scores.

    Args:
        rows: how many weights along the axis before the last, ≥ 1.
        columns: how many along the last, ≥ 1. Incomplete blocks at the edge count as blocks.

    Example:

    >>> Block(4, 1).count((3, 3, 6, 8))
    144
    """

    rows: int
    columns: int

    def count(self, shape: Sequence[int]) -> int:
        """How many blocks there are."""
        return math.prod(masks.block_grid(shape, (self.rows, self.columns)))

    def scores(self, scores: NDArray[Any]) -> NDArray[Any]:
        """The sum over each block; what is −∞ counts for nothing, unless all of it is."""
        sides = self.rows, self.columns
        if not np.any(least := scores == -np.inf):
            return masks.block_sums(scores, sides)
        sums = masks.block_sums(np.where(least, 0, scores), sides)
        return np.where(masks.block_sums(~least, sides) > 0, sums, -np.inf)

    def mask(self, gone: Mask, shape: Sequence[int]) -> Mask:
        """Every weight of the blocks that go."""
        return masks.spread_blocks(gone, (self.rows, self.columns), shape)


@dataclass(frozen=True)
class Pattern(Unit):
    """Of each ``of`` consecutive weights along the input axis the ``keep`` largest stay.

    The others are the units: single weights that may go, and all of them in the end.

    Args:
        keep: N, 0 < N < M.
        of: M.

    Example:

    >>> Pattern(2, 4).count((10, 8))
    32
    """

    keep: int
    of: int

    def count(self, shape: Sequence[int]) -> int:
        """How many weights are beyond the pattern."""
        *leading, height, width = masks.matrix_shape(shape)
        groups, rest = divmod(height, self.of)
        column = groups * (self.of - self.keep) + max(0, rest - self.keep)
        return math.prod(leading) * width * column

    def scores(self, scores: NDArray[Any]) -> NDArray[Any]:
        """The scores of those that may go; infinite for those that stay."""
        return np.where(masks.beyond_pattern(scores, self.keep, self.of), scores, np.inf)


def choose_unit(block: Sequence[int] | None, pattern: str | None) -> Unit:
    """The unit that the arguments ``block`` and ``pattern`` ask for.

    Raises:
        ValueError: if one is out of its range, or both are given.

    Example:

    >>> choose_unit(None, "2:4")
    Pattern(keep=2, of=4)
    """
    if pattern is not None:
        found = re.fullmatch("([0-9]+):([0-9]+)", pattern) if isinstance(pattern, str) else None
        keep, of = (int(side) for side in found.groups()) if found else (0, 0)
        if not 0 < keep < of:
            raise invalid_argument("pattern", 'None or "N:M" with integers 0 < N < M', pattern)
        if block is not None:
            raise invalid_argument("block", "None beside `pattern`", block)
        return Pattern(keep, of)
    if block is None:
        return SINGLE
    if (
        not isinstance(block, (tuple, list))
        or len(block) != 2
        or not all(is_whole(side) and side >= 1 for side in block)
    ):
        raise invalid_argument("block", "None or a pair of integers >= 1", block)
    return Block(int(block[0]), int(block[1]))
