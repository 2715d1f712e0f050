"""The data sets that everybody knows, by name; and how examples are parted and shaped."""

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_l0.errors import invalid_argument
from keras_l0.experiments.reading import ARRAYS, NO_DEMO, Arrays, draw, from_arrays
from keras_l0.experiments.reading import Dataset as Dataset
from keras_l0.experiments.reading import load_folder as load_folder
from keras_l0.experiments.reading import load_npz as load_npz

_FOLDERS = "KERAS_L0_DATA"
SHAPES = {
    "digits": (8, 8),
    "mnist": (28, 28),
    "fashion_mnist": (28, 28),
    "cifar10": (32, 32, 3),
    "cifar100": (32, 32, 3),
}


def load(name: str) -> Dataset:
    """A public data set, its images as they were published.

    ``NAME.npz`` in a folder of the environment variable ``KERAS_L0_DATA`` (one, or several
    separated as in ``PATH``) is read first, with the arrays that ``load_npz`` reads; else
    ``digits`` comes with scikit-learn, split 80 to 20 evenly over the classes, always the
    same way, and the others come from ``keras.datasets``, which may download them.

    Args:
        name: ``"digits"`` (8×8, values 0 to 16), ``"mnist"``, ``"fashion_mnist"`` (28×28),
            ``"cifar10"`` or ``"cifar100"`` (32×32×3, fine labels), values 0 to 255.

    Returns:
        The data set, its images uint8.

    Raises:
        ValueError: if the name is not known, a file is not the data set, or there is neither
            a file nor a network.
        ImportError: if ``digits`` needs scikit-learn and it is missing.

    Example:

    >>> load("digits").x_test.shape
    (360, 8, 8)
    """
    if name not in SHAPES:
        raise invalid_argument("name", f"one of {', '.join(SHAPES)}", name)
    for folder in filter(None, os.environ.get(_FOLDERS, "").split(os.pathsep)):
        path = Path(folder) / f"{name}.npz"
        if path.is_file():
            return _named(name, load_npz(path), path)
    if name == "digits":
        return _digits()
    shape = SHAPES[name]
    try:
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # keras raises a bare Exception when a download fails
        raise invalid_argument(
            "name",
            "a data set that is at hand or that keras.datasets can download",
            name,
            f"It failed ({error}). Put {name}.npz into a folder and name the folder in the "
            f"environment variable {_FOLDERS}: x_train and x_test, uint8 of shape "
            f"{_written(shape)}; y_train and y_test, integers of shape (N,).",
        ) from error
    arrays = dict(zip(ARRAYS, (x_train, y_train, x_test, y_test), strict=True))
    return _named(name, from_arrays(arrays, None, name), "keras.datasets")


def split_validation(dataset: Dataset, share: float, seed: int) -> tuple[Arrays, Arrays]:
    """Parts the training examples into training and validation; the test set is not touched.

    Args:
        dataset: the data set.
        share: the share to validate on, in (0, 1): ``round(share · N)`` examples, though at
            least one, and at least one stays for training.
        seed: the same seed parts them the same way.

    Returns:
        ``(x, y)`` to train on and ``(x, y)`` to validate on, both in random order.

    Raises:
        ValueError: if ``share`` is out of its range, or there are less than 2 examples.
    """
    return draw(dataset.x_train, dataset.y_train, share, seed, "share")


def preprocess(dataset: Dataset, pixel_range: tuple[float, float] = (0.0, 1.0)) -> Dataset:
    """The data set with its examples in float32, scaled to ``pixel_range``, as (low, high).

    ``x · (high - low) / maximum + low``, where ``maximum`` is 255 for 8-bit images and 16 for
    ``digits``. Floating examples count as scaled already, and are left as they are.

    Example:

    >>> images = preprocess(load("digits"), (-1, 1))
    >>> float(images.x_train.min()), float(images.x_train.max())
    (-1.0, 1.0)
    """
    low, high = map(np.float32, pixel_range)
    floating = dataset.x_train.dtype.kind == "f"

    def scaled(x: NDArray[Any]) -> NDArray[Any]:
        found = x.astype(np.float32)
        return found if floating else found / (np.float32(dataset.maximum) / (high - low)) + low

    x_train, x_test = scaled(dataset.x_train), scaled(dataset.x_test)
    maximum = dataset.maximum if floating else float(high)
    return replace(dataset, x_train=x_train, x_test=x_test, maximum=maximum)


def standardize(dataset: Dataset) -> Dataset:
    """The data set with each channel of the training images at mean 0 and deviation 1.

    Test images are moved and scaled by the same figures.

    Example:

    >>> images = standardize(preprocess(load("digits")))
    >>> abs(round(float(images.x_train.mean()), 3)), round(float(images.x_train.std()), 3)
    (0.0, 1.0)
    """
    x = dataset.x_train
    axes = tuple(range(x.ndim - 1)) if x.ndim == 4 else None
    mean, deviation = x.mean(axes, np.float64), x.std(axes, np.float64)
    moved = ((one - mean) / deviation for one in (x, dataset.x_test))
    x_train, x_test = (one.astype(np.float32) for one in moved)
    return replace(dataset, x_train=x_train, x_test=x_test)


def fit_to(x: NDArray[Any], input_shape: Sequence[int | None]) -> NDArray[Any]:
    """Reshapes examples to a model's input shape, without moving a value.

    Images are flattened, given a channel axis of size 1 or freed of one; flat examples are
    shaped into images. Nothing else is done: (32, 32, 3) does not become (3, 32, 32).

    Args:
        x: examples along the first axis.
        input_shape: the shape without the batch; ``None`` takes any size.

    Returns:
        ``x`` in that shape, without a copy where NumPy needs none.

    Raises:
        ValueError: if that is impossible.

    Example:

    >>> fit_to(np.zeros((5, 28, 28)), (784,)).shape
    (5, 784)
    """
    shape, wanted = x.shape[1:], tuple(input_shape)
    flat = (math.prod(shape),)
    ways = list(dict.fromkeys([shape, flat, (*shape, 1), (1, *shape)]))
    ways += [shape[:-1]] if shape[-1:] == (1,) else []
    ways += [shape[1:]] if shape[:1] == (1,) else []
    sizes = tuple(size for size in wanted if size is not None)
    if shape == flat and sizes == wanted and math.prod(sizes) == flat[0]:
        ways.append(sizes)
    for way in ways:
        if len(way) == len(wanted) and all(
            w in (None, s) for s, w in zip(way, wanted, strict=True)
        ):
            return x.reshape((len(x), *way))
    raise invalid_argument(
        "input_shape",
        f"a shape that examples of shape {shape} fit: {', '.join(map(str, ways))}",
        wanted,
    )


def _named(name: str, dataset: Dataset, received: object) -> Dataset:
    """Checks that it is the data set of that name, as far as shapes tell."""
    x, shape = dataset.x_train, SHAPES[name]
    if x.shape[1:] != shape or x.dtype != np.uint8 or dataset.x_test.dtype != np.uint8:
        raise invalid_argument(
            _FOLDERS, f"{name}.npz with uint8 images of shape {_written(shape)}", str(received)
        )
    return replace(
        dataset,
        name=name,
        classes=100 if name == "cifar100" else 10,
        maximum=16.0 if name == "digits" else 255.0,
    )


def _written(shape: tuple[int, ...]) -> str:
    return f"(N, {', '.join(map(str, shape))})"


def _digits() -> Dataset:
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError(NO_DEMO.format("The data set digits", "scikit-learn")) from error
    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        digits.images.astype(np.uint8),
        digits.target.astype(np.int64),
        test_size=0.2,
        random_state=0,
        stratify=digits.target,
    )
    return Dataset("digits", x_train, y_train, x_test, y_test, classes=10, maximum=16.0)
