"""What files.py and errors.py promise: whole or not at all, and messages that help."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_l0.errors import invalid_argument
from keras_l0.files import check_target, replacing, write_bytes, write_text


def test_text_is_written_in_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "ℓ0")
    assert (tmp_path / "a.txt").read_bytes() == b"\xe2\x84\x930"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(older=st.binary(), newer=st.binary())
def test_bytes_replace_what_was_there_and_nothing_else_is_left(
    tmp_path: Path, older: bytes, newer: bytes
) -> None:
    path = tmp_path / "model.bin"
    write_bytes(path, older)
    write_bytes(str(path), newer)
    assert path.read_bytes() == newer
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_fails_leaves_the_older_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_text("older")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ha")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_half()
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a" * 246, "a\0b"])
def test_a_name_that_no_file_can_have_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected a file's name of at most 245 bytes"):
        check_target(tmp_path / name)


def test_a_writer_that_is_interrupted_leaves_no_temporary(tmp_path: Path) -> None:
    def write_half() -> None:
        with replacing(tmp_path / "model.keras") as temporary:
            temporary.write_text("ha")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_the_older_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_text("older")
    with replacing(path) as temporary:
        temporary.write_text("newer")
        assert path.read_text() == "older"
    assert path.read_text() == "newer"


def test_the_temporary_stands_beside_the_file_and_keeps_its_suffix(tmp_path: Path) -> None:
    with replacing(tmp_path / "model.keras") as temporary:
        temporary.write_text("whole")
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".keras"
        assert temporary.name != "model.keras"


def test_a_missing_folder_is_refused_with_the_folder_to_make(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    path = folder / "a.txt"
    message = (
        "Invalid value for argument `path`. Expected a path in an existing folder. "
        f"Received: path={str(path)!r}. Make {folder} first."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        write_text(path, "")
    assert not folder.exists()


def test_a_folder_is_refused_under_the_callers_name_for_it(tmp_path: Path) -> None:
    message = (
        "Invalid value for argument `target`. Expected a file's path. "
        f"Received: target={str(tmp_path)!r}. It is a folder."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_target(tmp_path, "target")


def test_an_error_without_advice_ends_with_what_came() -> None:
    assert str(invalid_argument("sparsity", "a float in [0, 1)", 1.5)) == (
        "Invalid value for argument `sparsity`. Expected a float in [0, 1). Received: sparsity=1.5"
    )


def test_an_error_tells_what_to_do_after_what_came() -> None:
    assert str(invalid_argument("name", "a known name", "x", "Try y.")) == (
        "Invalid value for argument `name`. Expected a known name. Received: name='x'. Try y."
    )
