"""What the command line names: models, and data in the shape that they take."""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_l0.commands.imports import own_objects
from keras_l0.errors import invalid_argument
from keras_l0.experiments import datasets
from keras_l0.files import check_archive
from keras_l0.models import check_built


def existing_file(text: str, argument: str) -> Path:
    """The path of a file that is there."""
    path = Path(text)
    if not path.is_file():
        raise invalid_argument(argument, "an existing file", text)
    return path


def load_model(path: Path, compiled: bool = False, imports: Sequence[str] = ()) -> keras.Model:
    """A model from a ``.keras`` file.

    Args:
        path: the file.
        compiled: whether to compile it as it was when it was saved.
        imports: modules to import first, for classes of the user's own.

    Raises:
        ValueError: if the file is not whole, or names a class that is not known.
    """
    own = own_objects(imports)
    try:
        if path.suffix == ".keras":
            check_archive(path)
        return keras.models.load_model(path, own, compile=compiled, safe_mode=True)
    except Exception as error:  # a damaged file fails in as many ways as it has parts
        unknown = _UNKNOWN.search(str(error))
        if unknown:
            raise invalid_argument(
                "MODEL",
                "a whole .keras file of known layers, losses and metrics",
                str(path),
                f"It uses {unknown[1]!r}, which is not known. If you trust it, name the module or "
                ".py file that defines it by --import MODULE",
            ) from error
        lines = [line for line in str(error).splitlines() if line.strip()]
        # A line that ends so only says that the next one is the reason.
        said = lines[: 2 if lines and lines[0].rstrip().endswith(":") else 1]
        reason = " ".join(said) or type(error).__name__
        raise invalid_argument("MODEL", "a whole .keras file", str(path), reason) from error


# What Keras says of a class or function that a file names, and that is none of its own.
_UNKNOWN = re.compile(
    r"(?:Could not locate (?:class|function) '|Unknown [\w ]+: '|"
    r"Cannot deserialize object of type `|"
    r"Could not interpret [\w ]+ identifier: \{[^{}]*'class_name': ')([\w.>-]+)"
)


def arrays_by_input(source: str, model: keras.Model) -> dict[str, NDArray[Any]] | None:
    """The arrays of an ``.npz`` file that has one for each input's name; ``None`` of any other."""
    if not Path(source).is_file():
        return None
    names = [tensor.name for tensor in model.inputs or ()]
    try:
        check_archive(source)
        with np.load(source, allow_pickle=False) as arrays:
            if names and set(names) <= set(arrays.files):
                return {name: arrays[name] for name in names}
    except Exception as error:  # a damaged file fails in as many ways as it has parts
        raise invalid_argument("check", "a whole .npz file", source, str(error)) from error
    return None


def load_data(
    source: str,
    model: keras.Model,
    holdout: float | None,
    raw: bool,
    pixel_range: Sequence[float] | None = None,
) -> datasets.Dataset:
    """A data set by name, file or folder, its examples in the model's input shape.

    Args:
        source: the name, file or folder.
        model: that takes them.
        holdout: the share of the examples to test on, where there are none for that.
        raw: whether to leave integer pixels as they are.
        pixel_range: what integer pixels are scaled to; ``None`` for 0 to 1, or for the values
            that they have if the model begins with a ``Rescaling`` for these.

    Raises:
        ValueError: if there are no such data, or the model does not take them.
    """
    check_built(model)
    shape = model.input_shape
    if not isinstance(shape, tuple):
        raise invalid_argument(
            "MODEL",
            "a model with one input",
            f"input shapes {shape}",
            "For an export, --check takes an .npz file with an array for each input's name",
        )
    if source in datasets.SHAPES:
        data = datasets.load(source)
    elif Path(source).is_dir():
        if len(shape) != 4 or None in shape[1:]:
            raise invalid_argument(
                "DATA", "a .npz file, since the model takes no images of fixed size", source
            )
        data = datasets.load_folder(source, shape[1:3], shape[3], holdout)
    else:
        data = datasets.load_npz(source, holdout)
    if not raw:
        data = datasets.preprocess(data, _checked_range(pixel_range, data, model))
    x_train = datasets.fit_to(data.x_train, shape[1:])
    return replace(data, x_train=x_train, x_test=datasets.fit_to(data.x_test, shape[1:]))


def _checked_range(
    given: Sequence[float] | None, data: datasets.Dataset, model: keras.Model
) -> tuple[float, float]:
    if given is None:
        return (0.0, data.maximum if _takes_pixels(model, data.maximum) else 1.0)
    low, high = given
    if not -np.inf < low < high < np.inf:
        raise invalid_argument("pixel_range", "LOW HIGH, two finite numbers, LOW < HIGH", given)
    if data.x_train.dtype.kind == "f":
        raise invalid_argument(
            "pixel_range",
            "nothing for floating examples, which are taken as they are",
            given,
            "Scale them in the file",
        )
    return low, high


def _takes_pixels(model: keras.Model, maximum: float) -> bool:
    """Whether a ``Rescaling`` before any weights brings 0 to ``maximum`` to a few units."""
    for layer in _in_order(model):
        if isinstance(layer, keras.layers.Rescaling):
            return bool(np.max(np.abs(layer.scale)) * maximum <= _UNITS)
        if layer.weights:
            return False
    return False


def _in_order(model: keras.Model) -> Iterator[keras.Layer]:
    """The layers of a model, and of models in it, from its inputs on."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _in_order(layer)
        else:
            yield layer


# Rescaling(1 / 127.5) of 8-bit pixels brings them into a range of 2.
_UNITS = 4.0


def warn_of_chance(model: keras.Model, data: datasets.Dataset) -> None:
    """Says on stderr if a classifier names classes no better than one that always says the same.

    Nothing is said of a model whose outputs are not one number for each class.

    Args:
        model: takes ``data``.
        data: of whose test examples the first ones are looked at.
    """
    x, y = data.x_test[:_LOOKED_AT], data.y_test[:_LOOKED_AT]
    outputs = model.predict(x, verbose=0)
    classes = np.shape(outputs)[-1] if isinstance(outputs, np.ndarray) else 0
    if np.shape(outputs) != (len(x), classes) or classes < max(2, data.classes):
        return
    accuracy = float((outputs.argmax(axis=1) == y).mean())
    most = float(np.bincount(y).max()) / len(y)
    if accuracy <= most:
        print(
            f"keras-l0: warning: the given model is no better than chance on {data.name}: its "
            f"accuracy is {accuracy:.1%}, and the most frequent of {data.classes} classes makes up "
            f"{most:.1%} of {len(y):,} test examples. If it was trained, check whether it was on "
            f"inputs from {x.min():g} to {x.max():g} as here (--pixel-range), and on these labels.",
            file=sys.stderr,
        )


_LOOKED_AT = 1000
