"""Labelled images, from files, folders or their public homes. Nothing is written here."""

import math
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_l0.errors import invalid_argument

Arrays = tuple[NDArray[Any], NDArray[Any]]

_FOLDERS = "KERAS_L0_DATA"
_NO_DEMO = "{} needs {}. Run `pip install keras_l0[demo]`."
_SHAPES = {
    "digits": (8, 8),
    "mnist": (28, 28),
    "fashion_mnist": (28, 28),
    "cifar10": (32, 32, 3),
    "cifar100": (32, 32, 3),
}
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_COLORS = {1: "grayscale", 3: "rgb", 4: "rgba"}
_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"}


@dataclass(frozen=True)
class Dataset:
    """Examples and their classes, for training and for testing.

    ``x_train`` and ``x_test`` have the examples along the first axis, their values from 0 to
    ``maximum`` (floating ones as their author scaled them, and then it is 1); ``y_train`` and
    ``y_test`` are 1-D int64, from 0 to ``classes - 1``.
    """

    name: str
    x_train: NDArray[Any]
    y_train: NDArray[Any]
    x_test: NDArray[Any]
    y_test: NDArray[Any]
    classes: int
    maximum: float


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
    if name not in _SHAPES:
        raise invalid_argument("name", f"one of {', '.join(_SHAPES)}", name)
    for folder in filter(None, os.environ.get(_FOLDERS, "").split(os.pathsep)):
        path = Path(folder) / f"{name}.npz"
        if path.is_file():
            return _named(name, load_npz(path), path)
    if name == "digits":
        return _digits()
    shape = _SHAPES[name]
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
    arrays = dict(zip(_ARRAYS, (x_train, y_train, x_test, y_test), strict=True))
    return _named(name, _from_arrays(arrays, None, name), "keras.datasets")


def load_npz(path: str | os.PathLike[str], holdout: float | None = None) -> Dataset:
    """A data set from an ``.npz`` file. Pickled arrays are refused.

    Args:
        path: a file with ``x_train`` (N, ...) and ``y_train`` (N,) or (N, 1), integers from
            0, and with ``x_test`` and ``y_test``, or without both. Integer examples count as
            images of 0 to 255 (uint16: 0 to 65535), floating ones as scaled already.
        holdout: where the file has no test arrays, the share of examples to test on, in
            (0, 1); 0.1 when ``None``. They are drawn at random, always the same way.

    Returns:
        The data set, named for the file; ``classes`` is the largest label plus 1.

    Raises:
        ValueError: if the file is missing, not whole, or has not such arrays, or if it has
            test arrays and ``holdout`` is given.
    """
    file = os.fspath(path)
    if not Path(file).is_file():
        raise invalid_argument("path", "an existing .npz file", file)
    try:
        if not zipfile.is_zipfile(file):
            raise ValueError("no zip archive, or cut short")
        with np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in _ARRAYS if key in archive.files}
    except Exception as error:  # numpy, zipfile and zlib each raise kinds of their own
        raise invalid_argument(
            "path", "a whole .npz file of arrays that are not pickled", file, f"Reason: {error}."
        ) from error
    return replace(_from_arrays(arrays, holdout, file), name=Path(file).stem)


def load_folder(
    path: str | os.PathLike[str],
    image_size: tuple[int, int],
    channels: int,
    holdout: float | None = None,
) -> Dataset:
    """A data set from a folder that holds one folder of images for each class.

    The classes are numbered in the order of the folders' names. Images lie directly in them,
    as bmp, gif (its first frame), jpeg, png or webp; other files and hidden folders are
    passed over. Images of another size are resized, bilinearly.

    Args:
        path: the folder.
        image_size: height and width of the images returned.
        channels: 1 (gray), 3 (RGB) or 4 (RGBA).
        holdout: the share of the images to test on, in (0, 1); 0.1 when ``None``. They are
            drawn at random, always the same way.

    Returns:
        The data set, named for the folder: uint8, (N, height, width, channels).

    Raises:
        ValueError: if a folder is missing or empty, an image cannot be read, or an argument
            is out of its range.
        ImportError: if Pillow is missing.
    """
    root = Path(path)
    if len(image_size) != 2 or min(image_size) < 1:
        raise invalid_argument("image_size", "(height, width), both 1 or more", image_size)
    if channels not in _COLORS:
        raise invalid_argument("channels", "1, 3 or 4", channels)
    if not root.is_dir():
        raise invalid_argument("path", "an existing folder", str(root))
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not folders:
        raise invalid_argument("path", "a folder with one folder for each class", str(root))
    images, labels = [], []
    for label, folder in enumerate(folders):
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)
        if not files:
            raise invalid_argument("path", "images in each class' folder", str(folder))
        images += [_read_image(file, image_size, _COLORS[channels]) for file in files]
        labels += [label] * len(files)
    pixels = np.stack(images).reshape((-1, *image_size, channels))
    arrays = {"x_train": pixels, "y_train": np.array(labels)}
    dataset = _from_arrays(arrays, holdout, str(root))
    return replace(dataset, name=root.resolve().name, classes=len(folders))


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
    return _part(dataset.x_train, dataset.y_train, share, seed, "share")


def preprocess(dataset: Dataset) -> Dataset:
    """The data set with its examples in float32, scaled into [0, 1]: ``x / maximum``.

    ``maximum`` is 255 for 8-bit images, 16 for ``digits``, 1 for what was scaled already,
    so that doing it twice changes nothing.
    """
    scale = np.float32(dataset.maximum)
    return replace(
        dataset,
        x_train=dataset.x_train.astype(np.float32) / scale,
        x_test=dataset.x_test.astype(np.float32) / scale,
        maximum=1.0,
    )


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


def _from_arrays(arrays: dict[str, Any], holdout: float | None, source: str) -> Dataset:
    """Checks the arrays that came from ``source``, and holds test examples out if need be."""

    def refused(expected: str, advice: str = "") -> ValueError:
        return invalid_argument("path", expected, source, advice)

    tested = "x_test" in arrays or "y_test" in arrays
    missing = [key for key in _ARRAYS[: 4 if tested else 2] if key not in arrays]
    if missing:
        raise refused(
            "arrays x_train and y_train, and both or neither of x_test and y_test",
            f"Missing: {', '.join(missing)}.",
        )
    if tested and holdout is not None:
        raise invalid_argument("holdout", "None, as the file has its own test arrays", holdout)
    for part in ("train", "test") if tested else ("train",):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if y.ndim != 1 or y.dtype.kind not in "iu" or not len(y) or y.min() < 0:
            raise refused(f"y_{part} with one integer from 0 for each example")
        if x.ndim < 2 or len(x) != len(y):
            raise refused(
                f"as many examples in x_{part}, of shape (N, ...), as labels in y_{part}",
                f"Their shapes are {x.shape} and {y.shape}.",
            )
        if (x.shape[1:], x.dtype) != (arrays["x_train"].shape[1:], arrays["x_train"].dtype):
            raise refused("x_train and x_test with examples of one shape and dtype")
        if _maximum(x) is None:
            raise refused(f"x_{part} of finite floats, of uint16, or of integers from 0 to 255")
        arrays[f"y_{part}"] = y.astype(np.int64)
    x_train, y_train = arrays["x_train"], arrays["y_train"]
    if tested:
        test: Arrays = arrays["x_test"], arrays["y_test"]
    else:
        share = 0.1 if holdout is None else holdout
        (x_train, y_train), test = _part(x_train, y_train, share, 0, "holdout")
    classes = 1 + max(int(y_train.max()), int(test[1].max()))
    maximum = _maximum(x_train) or 1.0
    return Dataset(source, x_train, y_train, *test, classes=classes, maximum=maximum)


def _maximum(x: NDArray[Any]) -> float | None:
    """The largest value that examples of such a dtype can have; None where they are refused."""
    if x.dtype.kind == "f":
        return 1.0 if np.isfinite(x).all() else None
    if x.dtype == np.uint16:
        return 65535.0
    # Integers wider than a byte, as JSON or a list gives them, are taken for bytes.
    bytes_ = x.dtype.kind in "iu" and (not x.size or (x.min() >= 0 and x.max() <= 255))
    return 255.0 if bytes_ else None


def _part(
    x: NDArray[Any], y: NDArray[Any], share: float, seed: int, argument: str
) -> tuple[Arrays, Arrays]:
    """Draws ``share`` of the examples at random; the rest comes first."""
    if not 0 < share < 1:
        raise invalid_argument(argument, "a float in (0, 1)", share)
    if len(x) < 2:
        raise invalid_argument(argument, "2 examples or more to part", share, f"There is {len(x)}.")
    drawn = min(max(round(share * len(x)), 1), len(x) - 1)
    order = np.random.default_rng(seed).permutation(len(x))
    rest, part = order[drawn:], order[:drawn]
    return (x[rest], y[rest]), (x[part], y[part])


def _read_image(file: Path, size: tuple[int, int], color: str) -> NDArray[np.uint8]:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(_NO_DEMO.format("Reading images", "Pillow")) from error
    try:
        with Image.open(file) as image:
            mode = image.mode
        pixels = keras.utils.load_img(
            file, color_mode=color, target_size=size, interpolation="bilinear"
        )
        values = np.asarray(pixels).astype(np.uint8)
    except Exception as error:  # Pillow's decoders raise kinds of their own
        raise invalid_argument(
            "path", "images that Pillow can read", str(file), f"Reason: {error}."
        ) from error
    if mode.startswith(("I", "F")):
        # Pillow would clip everything above 255 to white.
        raise invalid_argument("path", "images of 8 bits for each channel", str(file))
    return values


def _named(name: str, dataset: Dataset, received: object) -> Dataset:
    """Checks that it is the data set of that name, as far as shapes tell."""
    x, shape = dataset.x_train, _SHAPES[name]
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
        raise ImportError(_NO_DEMO.format("The data set digits", "scikit-learn")) from error
    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        digits.images.astype(np.uint8),
        digits.target.astype(np.int64),
        test_size=0.2,
        random_state=0,
        stratify=digits.target,
    )
    return Dataset("digits", x_train, y_train, x_test, y_test, classes=10, maximum=16.0)
