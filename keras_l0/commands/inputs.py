"""What the command line names: models, and data in the shape that they take."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

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


def load_model(path: Path, compiled: bool = False) -> keras.Model:
    """A model from a ``.keras`` file."""
    try:
        if path.suffix == ".keras":
            check_archive(path)
        return keras.models.load_model(path, compile=compiled, safe_mode=True)
    except Exception as error:  # a damaged file fails in as many ways as it has parts
        lines = [line for line in str(error).splitlines() if line.strip()]
        # A line that ends so only says that the next one is the reason.
        said = lines[: 2 if lines and lines[0].rstrip().endswith(":") else 1]
        reason = " ".join(said) or type(error).__name__
        raise invalid_argument("MODEL", "a whole .keras file", str(path), reason) from error


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
    source: str, model: keras.Model, holdout: float | None, raw: bool
) -> datasets.Dataset:
    """A data set by name, file or folder, its examples in the model's input shape."""
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
        data = datasets.preprocess(data)
    x_train = datasets.fit_to(data.x_train, shape[1:])
    return replace(data, x_train=x_train, x_test=datasets.fit_to(data.x_test, shape[1:]))
