"""Which weights matter least: a score for each weight, the smallest go first.

A score goes over weight tensors and gives, one by one, arrays of their shapes.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keras_l0.errors import invalid_argument, is_whole

Array = NDArray[np.floating]
Score = Callable[[Iterable[Array]], Iterator[Array]]
Ranking = str | Callable[[Array], Array]
"""What users give: a name in ``NAMED``, or a function from a tensor to scores of its shape."""


def magnitude(weights: Iterable[Array]) -> Iterator[Array]:
    """|w|, in float32 where the weights are narrower.

    Example:

    >>> list(magnitude([np.array([-2.0, 1.0])]))
    [array([2., 1.])]
    """
    for w in weights:
        yield np.abs(w if w.dtype.itemsize > 4 else w.astype(np.float32))


def lamp(weights: Iterable[Array]) -> Iterator[Array]:
    """w² over the sum of v² of all v of the same tensor with |v| ≥ |w|: LAMP, in float64.

    The largest weight of each tensor has 1, so that none loses all; of equal ones the earlier
    has less. Source: J. Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning"
    (2021).

    Example:

    >>> list(lamp([np.array([3.0, -4.0]), np.array([0.5, 0.0])]))
    [array([0.36, 1.  ]), array([1., 0.])]
    """
    for w in weights:
        sizes = np.abs(w).ravel()
        order = np.argsort(sizes, kind="stable")
        score = np.zeros(sizes.size)
        score[order] = lamp_of_sorted(sizes[order])
        yield score.reshape(w.shape)


def lamp_of_sorted(sizes: Array) -> Array:
    """LAMP of |w| in ascending order, in float64: ascending too.

    Example:

    >>> lamp_of_sorted(np.array([3.0, 4.0]))
    array([0.36, 1.  ])
    """
    squares = sizes.astype(np.float64)
    squares /= squares.max(initial=0.0) or 1.0  # no square falls to 0
    np.square(squares, out=squares)
    rest = np.cumsum(squares[::-1])[::-1]
    return np.divide(squares, rest, out=squares, where=rest > 0)


NAMED: dict[str, Score] = {"lamp": lamp, "magnitude": magnitude}
"""Scores by the names that users give."""

DEFAULT = "lamp"
"""What weights of a whole network are ranked by unless the user says otherwise."""


def random(seed: int) -> Score:
    """A score that is uniform in [0, 1), the same at every call, and -1 for a zero.

    So zeros go first, and a higher sparsity takes all that a lower one took.

    Args:
        seed: of NumPy's default generator.

    Returns:
        The score.
    """

    def score(weights: Iterable[Array]) -> Iterator[Array]:
        generator = np.random.default_rng(seed)
        for w in weights:
            yield np.where(w == 0, -1.0, generator.random(w.shape))

    return score


@dataclass(frozen=True)
class Custom:
    """A score from a function of one weight tensor; zeros go first whatever it says.

    Args:
        function: takes a weight tensor, gives an array of its shape, of numbers above −∞.

    Raises:
        ValueError: when it is called, where the function gives anything else.
    """

    function: Callable[[Array], Array]

    def __call__(self, weights: Iterable[Array]) -> Iterator[Array]:
        """The scores."""
        for w in weights:
            values = np.asarray(self.function(w.copy()), np.float64)
            if values.shape != w.shape or not (values > -np.inf).all():
                raise invalid_argument(
                    "score",
                    f"a function that gives {w.shape} numbers above -inf for {w.shape}",
                    values.shape,
                )
            yield np.where(w == 0, -np.inf, values)


def check_seed(seed: int | None) -> int:
    """The seed, drawn where none is given."""
    if seed is None:
        return secrets.randbits(32)
    if not is_whole(seed) or seed < 0:
        raise invalid_argument("seed", "None or an integer >= 0", seed)
    return int(seed)
