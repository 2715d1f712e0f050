"""Images of several digits with a class for each pixel, and how well pixels are told apart."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_l0.errors import invalid_argument, whole_at_least
from keras_l0.experiments.reading import Dataset

BACKGROUND = 0
CLASSES = 11
"""The background, and a class for each digit: that of a 3 is 4."""

_INK = 64  # of 255: a pixel that is as dark belongs to the digit


@dataclass(frozen=True)
class Scenes:
    """Images, float32 in [0, 1] of shape (n, size, size, 1), and classes, int32 (n, size, size)."""

    x: NDArray[np.float32]
    y: NDArray[np.int32]


def draw_scenes(
    images: NDArray[Any], labels: NDArray[Any], count: int, seed: int, size: int = 64, most: int = 4
) -> Scenes:
    """Canvases with one to ``most`` digits each, at random places, a later one over the earlier.

    Args:
        images: uint8 of shape (n, height, width), light on dark, as MNIST's.
        labels: from 0 to 9, of shape (n,).
        count: how many canvases, ≥ 1.
        seed: an integer ≥ 0; the same seed gives the same canvases.
        size: height and width of a canvas, not less than a digit's.
        most: the most digits on one, ≥ 1.

    Returns:
        The canvases; a pixel's class is 0 for the background, else its digit + 1.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> digit = np.full((1, 8, 8), 255, np.uint8)
    >>> scenes = draw_scenes(digit, np.array([3]), count=2, seed=0, size=16)
    >>> scenes.x.shape, sorted(map(int, np.unique(scenes.y)))
    ((2, 16, 16, 1), [0, 4])
    """
    check_digits(images, labels)
    for name, value, least in (
        ("count", count, 1),
        ("seed", seed, 0),
        ("size", size, max(images.shape[1:3])),
        ("most", most, 1),
    ):
        whole_at_least(name, value, least)
    rng = np.random.default_rng(seed)
    height, width = images.shape[1:3]
    x = np.zeros((count, size, size), np.uint8)
    y = np.zeros((count, size, size), np.int32)
    for place in range(count):
        for _ in range(rng.integers(1, most + 1)):
            chosen = rng.integers(len(images))
            top, left = rng.integers(size - height + 1), rng.integers(size - width + 1)
            window = (place, slice(top, top + height), slice(left, left + width))
            ink = images[chosen] >= _INK
            x[window] = np.where(ink, images[chosen], x[window])
            y[window] = np.where(ink, int(labels[chosen]) + 1, y[window])
    return Scenes((x / 255.0).astype(np.float32)[..., None], y)


def check_digits(images: NDArray[Any], labels: NDArray[Any]) -> None:
    """Raises a ``ValueError`` unless they are images of digits, and which digits they are."""
    drawn = isinstance(images, np.ndarray) and images.ndim == 3 and images.dtype == np.uint8
    if not drawn or not len(images):
        received = getattr(images, "shape", type(images).__name__), getattr(images, "dtype", None)
        raise invalid_argument("images", "uint8 of shape (n, height, width), n >= 1", received)
    wanted = f"{len(images)} integers from 0 to 9, one for each image"
    if np.shape(labels) != (len(images),):
        raise invalid_argument("labels", wanted, f"shape {np.shape(labels)}")
    if not set(np.unique(labels)) <= set(range(10)):
        raise invalid_argument("labels", wanted, np.unique(labels).tolist())


def scenes_of(dataset: Dataset, train: int, test: int, seed: int, **options: int) -> list[Scenes]:
    """Canvases of a data set's training digits, and of its test digits."""
    return [
        draw_scenes(dataset.x_train, dataset.y_train.ravel(), train, 2 * seed, **options),
        draw_scenes(dataset.x_test, dataset.y_test.ravel(), test, 2 * seed + 1, **options),
    ]


def overlaps(
    wanted: NDArray[Any], found: NDArray[Any], classes: int = CLASSES
) -> NDArray[np.int64]:
    """How many pixels of each class are found as each: rows what they are, columns as what.

    Raises:
        ValueError: if the shapes differ, or a class is not from 0 to ``classes`` − 1.
    """
    if wanted.shape != found.shape:
        raise invalid_argument("found", f"the shape of `wanted`, {wanted.shape}", found.shape)
    for name, values in (("wanted", wanted), ("found", found)):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise invalid_argument(
                name, f"classes from 0 to {classes - 1}", np.unique(values).tolist()
            )
    pairs = wanted.ravel().astype(np.int64) * classes + found.ravel()
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def mean_iou(counts: NDArray[np.int64]) -> float:
    """The mean over classes of |A ∩ B| / |A ∪ B|, from ``overlaps``; of those that occur.

    Example:

    >>> mean_iou(overlaps(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2))
    0.5833333333333333
    """
    both, either = np.diag(counts), counts.sum(0) + counts.sum(1) - np.diag(counts)
    return float(np.mean(both[either > 0] / either[either > 0]))


def mean_dice(counts: NDArray[np.int64]) -> float:
    """The mean over classes of 2 |A ∩ B| / (|A| + |B|), from ``overlaps``; of those that occur.

    Example:

    >>> mean_dice(overlaps(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2))
    0.7333333333333334
    """
    both, sizes = np.diag(counts), counts.sum(0) + counts.sum(1)
    return float(np.mean(2 * both[sizes > 0] / sizes[sizes > 0]))
