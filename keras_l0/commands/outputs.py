"""The files that the program writes."""

from collections.abc import Iterable
from pathlib import Path

import keras

from keras_l0.errors import invalid_argument
from keras_l0.files import check_target, replacing
from keras_l0.text import listed


def check_new(argument: str, paths: Iterable[Path], overwrite: bool) -> None:
    """Raises a ``ValueError`` if a file would be overwritten without ``--overwrite``.

    Args:
        argument: what names the files.
        paths: they.
        overwrite: whether ``--overwrite`` was given.
    """
    there = [str(path) for path in paths if path.exists()]
    if there and not overwrite:
        raise invalid_argument(
            argument,
            "files that do not exist yet",
            listed(there),
            "Give --overwrite to replace what exists, or another name",
        )


def check_new_model(path: str, overwrite: bool) -> Path:
    """The path of a ``.keras`` file to be written.

    Raises:
        ValueError: if it cannot be written there, is no ``.keras`` file, or exists.
    """
    target = check_target(path, "OUT")
    if target.suffix != ".keras":
        raise invalid_argument("OUT", "a path that ends in .keras", path)
    check_new("OUT", [target], overwrite)
    return target


def save_model(model: keras.Model, path: Path) -> None:
    """Writes a ``.keras`` file, whole or not at all."""
    with replacing(path) as temporary:
        model.save(temporary)
