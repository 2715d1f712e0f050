"""Which weights matter least: a score for each weight, the smallest go first."""

import secrets
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from keras_l0.errors import invalid_argument, is_whole

Array = NDArray[np.floating]
Score = Callable[[Sequence[Array]], list[Array]]


def magnitude(weights: Sequence[Array]) -> list[Array]:
    """|w|, in float32 where the weights are narrower.

    Example:

    >>> magnitude([np.array([-2.0, 1.0])])
    [array([2., 1.])]
    """
    return [np.abs(w if w.dtype.itemsize > 4 else w.astype(np.float32)) for w in weights]


def random(seed: int) -> Score:
    """A score that is uniform in [0, 1), the same at every call, and -1 for a zero.

    So zeros go first, and a higher sparsity takes all that a lower one took.

    Args:
        seed: of NumPy's default generator.

    Returns:
        The score.
    """

    def score(weights: Sequence[Array]) -> list[Array]:
        generator = np.random.default_rng(seed)
        return [np.where(w == 0, -1.0, generator.random(w.shape)) for w in weights]

    return score


def custom(function: Callable[[Array], Array]) -> Score:
    """A score from a function of one weight tensor; zeros go first whatever it says.

    Args:
        function: takes a weight tensor, gives an array of its shape without NaN.

    Returns:
        The score; it raises ``ValueError`` where the function gives anything else.
    """

    def score(weights: Sequence[Array]) -> list[Array]:
        found = []
        for w in weights:
            values = np.asarray(function(w.copy()), np.float64)
            if values.shape != w.shape or np.isnan(values).any():
                raise invalid_argument(
                    "score", f"a function that gives {w.shape} numbers for {w.shape}", values.shape
                )
            found.append(np.where(w == 0, -np.inf, values))
        return found

    return score


def check_seed(seed: int | None) -> int:
    """The seed, drawn where none is given."""
    if seed is None:
        return secrets.randbits(32)
    if not is_whole(seed) or seed < 0:
        raise invalid_argument("seed", "None or an integer >= 0", seed)
    return int(seed)
