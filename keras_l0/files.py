"""Files that are written whole or not at all."""

import contextlib
import io
import os
import secrets
import tempfile
import zipfile
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
        OSError: if the file cannot be written, as where the disk is full. It names ``path``.
    """
    target = check_target(path)
    temporary = target.with_name(f".{secrets.token_hex(4)}-{target.name}")
    try:
        with naming(target, temporary):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(target: Path, temporary: Path | None = None) -> Iterator[None]:
    """Names the file in an ``OSError`` that names none, or its temporary one."""
    try:
        yield
    except OSError as error:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        if names and str(temporary) not in names:
            raise
        reason = " ".join((error.strerror or str(error)).split())
        raise OSError(error.errno, f"Not written: {reason}", str(target)) from error


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
    if not isinstance(path, str | os.PathLike) or path == "":
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


class InMemory(io.BytesIO):
    """Where Keras' ``save_weights`` can write.

    HDF5 crashes the process when the disk is full: its files are made here, and then written.
    """

    def __str__(self) -> str:
        return "memory.weights.h5"  # Keras looks at the suffix


def check_archive(path: str | os.PathLike[str]) -> None:
    """Raises an error unless every member of a zip archive has its checksum.

    Reading does not tell: what is read in part or out of order is not checked.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"Bad CRC-32 for file {damaged!r}")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes ``text`` to ``path`` in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())
