"""Plain values and arrays in one file, whole or refused."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_l0.errors import invalid_argument
from keras_l0.files import check_archive, replacing

# What tells a place in the tree where an array goes.
_ARRAY = "array in the file"


def write_tree(path: str | os.PathLike[str], tree: Any) -> None:
    """Writes a tree of dicts, lists, arrays and plain values to an ``.npz`` file.

    The arrays may be of any dtype, bfloat16 too. The file has a checksum of each part.

    Args:
        path: the file; an older one stays until the new one is whole.
        tree: its dicts have names as keys.

    Raises:
        OSError: if it cannot be written; the older file is untouched.

    Example:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tree(f"{folder}/state.npz", {"epoch": 3, "weights": [np.zeros(2)]})
    ...     read_tree(f"{folder}/state.npz")
    {'epoch': 3, 'weights': [array([0., 0.])]}
    """
    parts: dict[str, Any] = {}

    def planted(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            name = f"array{len(parts)}"
            # As bytes, since NumPy's files know no bfloat16.
            parts[name] = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
            # Of bfloat16 and its like only the name says what they are.
            kind = value.dtype.name if value.dtype.kind == "V" else value.dtype.str
            return {_ARRAY: name, "dtype": kind, "shape": list(value.shape)}
        if isinstance(value, Mapping):
            return {name: planted(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [planted(item) for item in value]
        return value.item() if isinstance(value, np.generic) else value

    text = json.dumps(planted(tree))
    with replacing(path) as temporary:
        np.savez(temporary, tree=np.frombuffer(text.encode(), np.uint8), **parts)


def read_tree(path: str | os.PathLike[str], argument: str = "path") -> Any:
    """The tree of a file that ``write_tree`` wrote; tuples are lists now.

    Raises:
        ValueError: if the file is damaged, or none of these.
    """
    try:
        check_archive(path)
        # Opened here, since NumPy leaves a file open that it cannot read.
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:

            def grown(value: Any) -> Any:
                if isinstance(value, list):
                    return [grown(item) for item in value]
                if not isinstance(value, dict):
                    return value
                if _ARRAY not in value:
                    return {name: grown(item) for name, item in value.items()}
                raw = file[value[_ARRAY]]
                return raw.view(np.dtype(value["dtype"])).reshape(value["shape"])

            return grown(json.loads(file["tree"].tobytes()))
    except Exception as error:  # zipfile and NumPy raise every kind for a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise invalid_argument(
            argument, "a whole file of a run's state", str(path), reason
        ) from error
