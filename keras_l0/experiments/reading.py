"""Labelled images from files and folders of one's own."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_l0.errors import invalid_argument
from keras_l0.files import check_archive

Arrays = tuple[NDArray[Any], NDArray[Any]]

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
NO_DEMO = "{} needs {}. Run `pip install keras_l0[demo]`."
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
        check_archive(file)
        with np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in ARRAYS if key in archive.files}
    except Exception as error:  # numpy, zipfile and zlib each raise kinds of their own
        raise invalid_argument(
            "path", "a whole .npz file of arrays that are not pickled", file, f"Reason: {error}."
        ) from error
    return replace(from_arrays(arrays, holdout, file), name=Path(file).stem)


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
    dataset = from_arrays(arrays, holdout, str(root))
    return replace(dataset, name=root.resolve().name, classes=len(folders))


def from_arrays(arrays: dict[str, Any], holdout: float | None, source: str) -> Dataset:
    """Checks the arrays that came from ``source``, and holds test examples out if need be."""

    def refused(expected: str, advice: str = "") -> ValueError:
        return invalid_argument("path", expected, source, advice)

    tested = "x_test" in arrays or "y_test" in arrays
    missing = [key for key in ARRAYS[: 4 if tested else 2] if key not in arrays]
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
        (x_train, y_train), test = draw(x_train, y_train, share, 0, "holdout")
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


def draw(
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
        raise ImportError(NO_DEMO.format("Reading images", "Pillow")) from error
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
