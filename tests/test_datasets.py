"""Data sets are what their files hold, and files that are not data sets are refused."""

import re
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_l0.experiments.datasets import (
    Dataset,
    fit_to,
    load,
    load_folder,
    load_npz,
    preprocess,
    split_validation,
)

same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)


def arrays(train: int = 20, test: int = 5, shape: tuple[int, ...] = (28, 28)) -> dict[str, Any]:
    """Images whose every value is their own number, so that labels can be followed."""

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.arange(count, dtype=np.uint8)
        return np.broadcast_to(numbers.reshape(-1, *[1] * len(shape)), (count, *shape)), numbers

    (x_train, y_train), (x_test, y_test) = part(train), part(test)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def saved(path: Path, **contents: Any) -> Path:
    np.savez_compressed(path, **contents)
    return path


def a_dataset(examples: int) -> Dataset:
    x = np.arange(examples)[:, None] * np.ones((1, 2))
    return Dataset("numbers", x, np.arange(examples), x[:1], np.arange(1), examples, 1.0)


def test_digits_come_evenly_split_and_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="digits come with scikit-learn (keras_l0[demo])")
    monkeypatch.delenv("KERAS_L0_DATA", raising=False)
    one, two = load("digits"), load("digits")
    assert one.x_train.shape == (1437, 8, 8)
    assert one.x_test.shape == (360, 8, 8)
    assert (one.x_train.dtype, one.x_train.max(), one.maximum) == (np.uint8, 16, 16.0)
    assert (one.y_train.dtype, one.classes, one.name) == (np.int64, 10, "digits")
    shares = np.bincount(one.y_test) / (np.bincount(one.y_train) + np.bincount(one.y_test))
    assert np.abs(shares - 0.2).max() < 0.01
    np.testing.assert_array_equal(one.x_test, two.x_test)


def test_mnist_is_whole() -> None:
    try:
        mnist = load("mnist")
    except ValueError as error:
        pytest.skip(f"needs mnist.npz in a folder of KERAS_L0_DATA, or a network: {error}")
    assert mnist.x_train.shape == (60000, 28, 28)
    assert mnist.x_test.shape == (10000, 28, 28)
    assert np.bincount(mnist.y_test).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009
    ]  # fmt: skip
    assert preprocess(mnist).x_train.mean() == pytest.approx(0.13066, abs=1e-5)


def test_a_named_file_is_found_in_the_second_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    saved(tmp_path / "two" / "mnist.npz", **arrays(9, 3))
    folders = [tmp_path / "missing", tmp_path / "one", tmp_path / "two"]
    separator = ";" if sys.platform == "win32" else ":"
    monkeypatch.setenv("KERAS_L0_DATA", separator.join(map(str, folders)))
    mnist = load("mnist")
    assert mnist.x_train.shape == (9, 28, 28)
    assert (mnist.name, mnist.classes, mnist.maximum) == ("mnist", 10, 255.0)


def test_a_digits_file_has_the_maximum_of_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "digits.npz", **arrays(shape=(8, 8)))
    monkeypatch.setenv("KERAS_L0_DATA", str(tmp_path))
    assert load("digits").maximum == 16.0


def test_a_file_that_is_another_data_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "cifar10.npz", **arrays())
    monkeypatch.setenv("KERAS_L0_DATA", str(tmp_path))
    message = (
        "Invalid value for argument `KERAS_L0_DATA`. Expected cifar10.npz with uint8 images of "
        f"shape (N, 32, 32, 3). Received: KERAS_L0_DATA={str(path)!r}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load("cifar10")


def test_the_other_data_sets_come_from_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    found = arrays(shape=(32, 32, 3))
    train, test = (
        (found["x_train"], found["y_train"][:, None]),
        (found["x_test"], found["y_test"][:, None]),
    )
    monkeypatch.delenv("KERAS_L0_DATA", raising=False)
    monkeypatch.setattr(keras.datasets.cifar100, "load_data", lambda: (train, test))
    cifar = load("cifar100")
    assert (cifar.y_train.shape, cifar.classes) == ((20,), 100)


def test_without_file_or_network_the_error_tells_what_to_put_where(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_network() -> None:
        raise Exception("URL fetch failure")

    monkeypatch.delenv("KERAS_L0_DATA", raising=False)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", no_network)
    message = (
        "Invalid value for argument `name`. Expected a data set that is at hand or that "
        "keras.datasets can download. Received: name='cifar10'. It failed (URL fetch failure). "
        "Put cifar10.npz into a folder and name the folder in the environment variable "
        "KERAS_L0_DATA: x_train and x_test, uint8 of shape (N, 32, 32, 3); y_train and y_test, "
        "integers of shape (N,)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load("cifar10")


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    message = (
        "Invalid value for argument `name`. Expected one of digits, mnist, fashion_mnist, "
        "cifar10, cifar100. Received: name='imagenet'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load("imagenet")


def test_digits_without_scikit_learn_tell_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERAS_L0_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    message = "The data set digits needs scikit-learn. Run `pip install keras_l0[demo]`."
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        load("digits")


def test_a_file_with_test_arrays_is_read_as_it_is(tmp_path: Path) -> None:
    contents = arrays(20, 5, (3,))
    contents["y_train"] = contents["y_train"][:, None]
    dataset = load_npz(saved(tmp_path / "mine.npz", **contents, note=np.array("unread")))
    np.testing.assert_array_equal(dataset.x_train, contents["x_train"])
    np.testing.assert_array_equal(dataset.y_train, np.arange(20))
    np.testing.assert_array_equal(dataset.x_test, contents["x_test"])
    assert (dataset.name, dataset.classes, dataset.maximum) == ("mine", 20, 255.0)


@pytest.mark.parametrize(("holdout", "held"), [(None, 2), (0.25, 5), (0.01, 1), (0.99, 19)])
def test_without_test_arrays_a_share_is_held_out_the_same_each_time(
    tmp_path: Path, holdout: float | None, held: int
) -> None:
    contents = arrays(20, 5, (3,))
    path = saved(tmp_path / "mine.npz", x_train=contents["x_train"], y_train=contents["y_train"])
    one, two = load_npz(path, holdout), load_npz(str(path), holdout)
    assert len(one.x_test) == held
    assert sorted([*one.y_train, *one.y_test]) == list(range(20))
    np.testing.assert_array_equal(one.x_train[:, 0], one.y_train)
    np.testing.assert_array_equal(one.x_test[:, 0], one.y_test)
    np.testing.assert_array_equal(one.y_test, two.y_test)
    assert one.classes == 20


@pytest.mark.parametrize(
    ("dtype", "maximum"), [(np.uint16, 65535.0), (np.int64, 255.0), (np.float32, 1.0)]
)
def test_the_maximum_follows_the_dtype(tmp_path: Path, dtype: type, maximum: float) -> None:
    contents = arrays(4, 2, (3,))
    for key in ("x_train", "x_test"):
        contents[key] = contents[key].astype(dtype)
    assert load_npz(saved(tmp_path / "mine.npz", **contents)).maximum == maximum


PARTS = "as many examples in x_train, of shape (N, ...), as labels in y_train"
LABELS = "y_train with one integer from 0 for each example"


@pytest.mark.parametrize(
    ("changes", "expected", "advice"),
    [
        (
            {"y_test": None},
            "arrays x_train and y_train, and both or neither of x_test and y_test",
            ". Missing: y_test.",
        ),
        (
            {"x_train": None, "y_train": None},
            "arrays x_train and y_train, and both or neither of x_test and y_test",
            ". Missing: x_train, y_train.",
        ),
        ({"y_train": np.arange(3)}, PARTS, ". Their shapes are (20, 28, 28) and (3,)."),
        ({"x_train": np.zeros(20)}, PARTS, ". Their shapes are (20,) and (20,)."),
        ({"y_train": np.eye(20)}, LABELS, ""),
        ({"y_train": np.arange(20) / 2}, LABELS, ""),
        ({"y_train": np.arange(20) - 1}, LABELS, ""),
        ({"y_train": np.zeros(0, int)}, LABELS, ""),
        (
            {"x_test": np.zeros((5, 28, 28))},
            "x_train and x_test with examples of one shape and dtype",
            "",
        ),
        (
            {"x_test": np.zeros((5, 28), np.uint8)},
            "x_train and x_test with examples of one shape and dtype",
            "",
        ),
        (
            {"x_train": np.full((20, 4), 256)},
            "x_train of finite floats, of uint16, or of integers from 0 to 255",
            "",
        ),
        (
            {"x_train": np.full((20, 4), np.nan)},
            "x_train of finite floats, of uint16, or of integers from 0 to 255",
            "",
        ),
        (
            {"x_train": np.full((20, 4), "a")},
            "x_train of finite floats, of uint16, or of integers from 0 to 255",
            "",
        ),
    ],
)
def test_arrays_that_make_no_data_set_are_refused(
    tmp_path: Path, changes: dict[str, Any], expected: str, advice: str
) -> None:
    contents = {key: value for key, value in (arrays() | changes).items() if value is not None}
    path = saved(tmp_path / "mine.npz", **contents)
    message = (
        f"Invalid value for argument `path`. Expected {expected}. "
        f"Received: path={str(path)!r}{advice}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_npz(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    message = (
        "Invalid value for argument `path`. Expected an existing .npz file. "
        f"Received: path={str(path)!r}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_npz(path)


def assert_unreadable(path: Path) -> None:
    """``path`` is refused, by its name and with the reason that NumPy gave."""
    with pytest.raises(ValueError, match=r"^Invalid value for argument `path`") as error:
        load_npz(path)
    assert str(error.value) == (
        "Invalid value for argument `path`. Expected a whole .npz file of arrays that are not "
        f"pickled. Received: path={str(path)!r}. Reason: {error.value.__cause__}."
    )


def test_pickled_arrays_are_refused_unread(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    trap = np.array([Trap()], dtype=object)
    np.savez(tmp_path / "mine.npz", x_train=trap, y_train=np.zeros(1, int))
    assert_unreadable(tmp_path / "mine.npz")
    assert not (tmp_path / "sprung").exists()


def test_an_npy_file_is_no_npz_file(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.zeros(3))
    assert_unreadable(tmp_path / "mine.npy")


@same_folder
@given(share=st.floats(0, 0.999))
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, share: float) -> None:
    whole = saved(tmp_path / "whole.npz", **arrays(6, 2, (4,))).read_bytes()
    path = tmp_path / "mine.npz"
    path.write_bytes(whole[: int(share * len(whole))])
    assert_unreadable(path)


@pytest.mark.parametrize("holdout", [0.0, 1.0, -0.5, float("nan")])
def test_a_holdout_that_is_no_share_is_refused(tmp_path: Path, holdout: float) -> None:
    path = saved(tmp_path / "mine.npz", x_train=np.zeros((4, 2)), y_train=np.arange(4))
    message = (
        "Invalid value for argument `holdout`. Expected a float in (0, 1). "
        f"Received: holdout={holdout}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_npz(path, holdout)


def test_a_holdout_beside_test_arrays_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.npz", **arrays())
    message = (
        "Invalid value for argument `holdout`. Expected None, as the file has its own test "
        "arrays. Received: holdout=0.2"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_npz(path, 0.2)


def test_one_example_cannot_be_parted(tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.npz", x_train=np.zeros((1, 2)), y_train=np.zeros(1, int))
    message = (
        "Invalid value for argument `holdout`. Expected 2 examples or more to part. "
        "Received: holdout=0.1. There is 1."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_npz(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 4×6 images, cat 10, 11, 12 and dog 200, 201, each of one gray."""
    image = pytest.importorskip("PIL.Image", reason="images need Pillow (keras_l0[demo])")
    root = tmp_path / "pets"
    for name, grays in (("dog", (200, 201)), ("cat", (10, 11, 12))):
        (root / name).mkdir(parents=True)
        for gray in grays:
            image.fromarray(np.full((4, 6), gray, np.uint8)).save(root / name / f"{gray}.PNG")
    (root / "cat" / "notes.txt").write_text("passed over")
    (root / ".hidden").mkdir()
    return root


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_folder_is_read_class_by_class(folder: Path, channels: int) -> None:
    dataset = load_folder(folder, (2, 3), channels, holdout=0.4)
    assert dataset.x_train.shape == (3, 2, 3, channels)
    assert dataset.x_test.shape == (2, 2, 3, channels)
    assert dataset.x_train.dtype == np.uint8
    assert (dataset.name, dataset.classes, dataset.maximum) == ("pets", 2, 255.0)
    grays = np.concatenate([dataset.x_train, dataset.x_test])[:, 0, 0, 0]
    labels = np.concatenate([dataset.y_train, dataset.y_test])
    assert sorted(zip(grays, labels, strict=True)) == [
        (10, 0), (11, 0), (12, 0), (200, 1), (201, 1)
    ]  # fmt: skip


def test_an_image_that_cannot_be_read_is_named(folder: Path) -> None:
    path = folder / "dog" / "bad.png"
    path.write_bytes((folder / "dog" / "200.PNG").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"^Invalid value for argument `path`") as error:
        load_folder(folder, (4, 6), 1)
    assert str(error.value) == (
        "Invalid value for argument `path`. Expected images that Pillow can read. "
        f"Received: path={str(path)!r}. Reason: {error.value.__cause__}."
    )


def test_an_image_of_sixteen_bits_is_refused_rather_than_clipped(folder: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = folder / "dog" / "deep.png"
    image.fromarray(np.full((4, 6), 40000, np.uint16)).save(path)
    message = (
        "Invalid value for argument `path`. Expected images of 8 bits for each channel. "
        f"Received: path={str(path)!r}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_folder(folder, (4, 6), 1)


def test_folders_without_images_are_refused(folder: Path) -> None:
    (folder / "emu").mkdir()
    message = "Invalid value for argument `path`. Expected {}. Received: path={!r}"
    cases = {
        folder: ("images in each class' folder", str(folder / "emu")),
        folder / "emu": ("a folder with one folder for each class", str(folder / "emu")),
        folder / "gnu": ("an existing folder", str(folder / "gnu")),
    }
    for path, case in cases.items():
        with pytest.raises(ValueError, match=f"^{re.escape(message.format(*case))}$"):
            load_folder(path, (4, 6), 1)


@pytest.mark.parametrize(
    ("size", "channels", "message"),
    [
        (
            (4, 6),
            2,
            "Invalid value for argument `channels`. Expected 1, 3 or 4. Received: channels=2",
        ),
        (
            (0, 6),
            1,
            "Invalid value for argument `image_size`. Expected (height, width), both 1 or more. "
            "Received: image_size=(0, 6)",
        ),
    ],
)
def test_an_image_shape_that_cannot_be_is_refused(
    tmp_path: Path, size: tuple[int, int], channels: int, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_folder(tmp_path, size, channels)


def test_images_without_pillow_tell_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "PIL", None)
    message = "Reading images needs Pillow. Run `pip install keras_l0[demo]`."
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        load_folder(tmp_path, (4, 6), 1)


@given(st.integers(2, 200), st.floats(0.001, 0.999), st.integers(0, 2**32 - 1))
def test_the_validation_split_is_a_partition_of_the_training_examples(
    examples: int, share: float, seed: int
) -> None:
    (x, y), (x_held, y_held) = split_validation(a_dataset(examples), share, seed)
    assert sorted([*y, *y_held]) == list(range(examples))
    assert len(y_held) == min(max(round(share * examples), 1), examples - 1)
    np.testing.assert_array_equal(x[:, 0], y)
    np.testing.assert_array_equal(x_held[:, 0], y_held)


def test_the_validation_split_follows_the_seed() -> None:
    dataset = a_dataset(50)
    drawn = [split_validation(dataset, 0.2, seed)[1][1].tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_a_validation_share_out_of_range_is_refused() -> None:
    message = "Invalid value for argument `share`. Expected a float in (0, 1). Received: share=1"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        split_validation(a_dataset(4), 1, 0)


def test_preprocessing_scales_by_the_maximum_once() -> None:
    x = np.array([[0, 8, 16]], np.uint8)
    labels = np.zeros(1, np.int64)
    dataset = preprocess(Dataset("digits", x, labels, x, labels, 10, 16.0))
    for scaled in (dataset, preprocess(dataset)):
        for found in (scaled.x_train, scaled.x_test):
            assert found.dtype == np.float32
            assert found.tolist() == [[0.0, 0.5, 1.0]]


@pytest.mark.parametrize(
    ("shape", "wanted", "found"),
    [
        ((28, 28), (784,), (784,)),
        ((32, 32, 3), (3072,), (3072,)),
        ((28, 28), (28, 28, 1), (28, 28, 1)),
        ((28, 28), (None, None, 1), (28, 28, 1)),
        ((28, 28), (1, 28, 28), (1, 28, 28)),
        ((28, 28, 1), (28, 28), (28, 28)),
        ((1, 28, 28), (28, 28), (28, 28)),
        ((784,), (28, 28, 1), (28, 28, 1)),
        ((32, 32, 3), (32, 32, 3), (32, 32, 3)),
        ((32, 32, 3), (None, None, 3), (32, 32, 3)),
    ],
)
def test_examples_fit_a_models_input_and_keep_their_order(
    shape: tuple[int, ...], wanted: tuple[int | None, ...], found: tuple[int, ...]
) -> None:
    x = np.arange(2 * np.prod(shape)).reshape(2, *shape)
    fitted = fit_to(x, wanted)
    assert fitted.shape == (2, *found)
    np.testing.assert_array_equal(fitted.ravel(), x.ravel())


def test_no_examples_fit_too() -> None:
    assert fit_to(np.zeros((0, 28, 28)), (784,)).shape == (0, 784)


@pytest.mark.parametrize(
    ("shape", "wanted", "ways"),
    [
        ((2, 3), (3, 2), "(2, 3), (6,), (2, 3, 1), (1, 2, 3)"),
        ((2, 3), (7,), "(2, 3), (6,), (2, 3, 1), (1, 2, 3)"),
        ((4, 4, 3), (3, 4, 4), "(4, 4, 3), (48,), (4, 4, 3, 1), (1, 4, 4, 3)"),
        ((4, 4, 1), (4, 4, 3), "(4, 4, 1), (16,), (4, 4, 1, 1), (1, 4, 4, 1), (4, 4)"),
        ((6,), (None, 3), "(6,), (6, 1), (1, 6)"),
    ],
)
def test_an_input_shape_that_would_mix_values_is_refused_with_those_that_fit(
    shape: tuple[int, ...], wanted: tuple[int | None, ...], ways: str
) -> None:
    message = (
        f"Invalid value for argument `input_shape`. Expected a shape that examples of shape "
        f"{shape} fit: {ways}. Received: input_shape={wanted}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit_to(np.zeros((2, *shape)), wanted)
