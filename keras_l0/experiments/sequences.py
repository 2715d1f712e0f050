"""Sequences of digits of which one occurs twice: which one?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_l0.errors import invalid_argument, whole_at_least
from keras_l0.experiments.scenes import check_digits


@dataclass(frozen=True)
class Sequences:
    """Steps, float32 in [0, 1] of shape (n, length, pixels), and classes, int32 (n,)."""

    x: NDArray[np.float32]
    y: NDArray[np.int32]


def draw_sequences(
    images: NDArray[Any], labels: NDArray[Any], count: int, seed: int, length: int = 6
) -> Sequences:
    """Images of digits in a row, all different ones but for one that occurs twice: the class.

    To find it, steps must be compared with each other, which is what attention does.

    Args:
        images: uint8 of shape (n, height, width), MNIST's for one.
        labels: from 0 to 9, of shape (n,), with each digit among them.
        count: how many sequences, ≥ 1.
        seed: an integer ≥ 0; the same seed gives the same sequences.
        length: of a sequence, from 2 to 11.

    Returns:
        The sequences; a step is an image as one row.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> digits = np.arange(10, dtype=np.uint8).reshape(10, 1, 1)
    >>> sequences = draw_sequences(digits, np.arange(10), count=1, seed=0, length=4)
    >>> np.rint(255 * sequences.x[0, :, 0]).astype(int), int(sequences.y[0])
    (array([4, 2, 6, 4]), 4)
    """
    check_digits(images, labels)
    for name, value, least in (("count", count, 1), ("seed", seed, 0), ("length", length, 2)):
        whole_at_least(name, value, least)
    if length > 11:
        raise invalid_argument("length", "an integer <= 11, since 10 digits are different", length)
    places = [np.flatnonzero(labels == digit) for digit in range(10)]
    if missing := [digit for digit, found in enumerate(places) if not len(found)]:
        raise invalid_argument("labels", "each digit among them", f"none of {missing}")
    rng = np.random.default_rng(seed)
    digits = np.array([rng.permutation(10)[: length - 1] for _ in range(count)])
    y = digits[:, 0]
    shown = rng.permuted(np.column_stack([digits, y]), axis=1)
    chosen = np.vectorize(lambda digit: places[digit][rng.integers(len(places[digit]))])(shown)
    x = images.reshape(len(images), -1)[chosen]
    return Sequences((x / np.float32(255)).astype(np.float32), y.astype(np.int32))
