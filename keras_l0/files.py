"""Files that are written whole or not at all."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from keras_l0.errors import invalid_argument

# What common file systems allow, in bytes.
_LONGEST_NAME = 255


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside ``path``, and renames it to ``path`` at the end.

    A reader sees the older file or the new one, never a part. If the block raises,
    the temporary file is removed and the older file is untouched. The temporary name
    keeps the suffixes, since Keras chooses the format by them.

    Args:
        path: the file to write. Its folder must exist.

    Raises:
        ValueError: if ``path`` is a folder, or its folder is missing or cannot be written.
    """
    target = check_target(path)
    temporary = target.with_name(f".{secrets.token_hex(4)}-{target.name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def check_target(path: str | os.PathLike[str], argument: str = "path") -> Path:
    """The path, if a file can stand there.

    Args:
        path: the file to write.
        argument: what the caller calls it, for the error.

    Raises:
        ValueError: if it is no path, is a folder, or its folder is missing or cannot be written.
    """
    if not isinstance(path, str | os.PathLike):
        raise invalid_argument(argument, "a file's path", path)
    target = Path(path)
    # Beside the file stands a temporary one, whose name has ten characters more.
    if "\0" in str(target) or len(target.name.encode()) > _LONGEST_NAME - 10:
        raise invalid_argument(
            argument, f"a file's name of at most {_LONGEST_NAME - 10} bytes", str(target)
        )
    if target.is_dir():
        raise invalid_argument(argument, "a file's path", str(target), "It is a folder.")
    if not target.parent.is_dir():
        raise invalid_argument(
            argument, "a path in an existing folder", str(target), f"Make {target.parent} first."
        )
    check_writable(target.parent, argument, "a path in a folder that can be written", str(target))
    return target


def check_folder(path: str | os.PathLike[str], argument: str) -> Path:
    """The folder, made where it is missing.

    Args:
        path: the folder.
        argument: what the caller calls it, for the error.

    Raises:
        ValueError: if it is no path, cannot be made or cannot be written.
    """
    if not isinstance(path, str | os.PathLike):
        raise invalid_argument(argument, "a folder's path", path)
    folder, expected = Path(path), "a folder that can be written"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise invalid_argument(argument, expected, str(path), f"{error.strerror}") from error
    check_writable(folder, argument, expected, str(path))
    return folder


def check_writable(folder: Path, argument: str, expected: str, received: str) -> None:
    """Raises the ``ValueError`` so worded unless a file can be made in the folder."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise invalid_argument(argument, expected, received, f"{error.strerror}") from error


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes ``data`` to ``path``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes ``text`` to ``path`` in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())
