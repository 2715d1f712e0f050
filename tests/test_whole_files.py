"""Files are whole or absent: out of space or killed at any moment, the older file stands."""

import contextlib
import errno
import gc
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from keras_l0 import IterativePrune, cli
from keras_l0.checkpoint import write_tree
from keras_l0.commands import compress
from keras_l0.experiments import records
from keras_l0.export import device, runner
from keras_l0.export.candidates import Candidate
from keras_l0.export.check import Samples
from keras_l0.files import InMemory, replacing, write_bytes, write_text
from keras_l0.pruning.targets import find_targets
from keras_l0.report.plots import plot_tradeoff, save_figure
from keras_l0.studies import finished, open_study

OLDER = b"older"


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A file that this process writes can have so many bytes, as on a disk that is full then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def network() -> keras.Model:
    """A compiled model of 40 inputs and 3 classes."""
    hidden = layers.Dense(64, name="hidden")
    parts = [keras.Input((40,), name="x"), hidden, layers.Dense(3, name="y")]
    model = keras.Sequential(parts, name="net")
    adam = keras.optimizers.Adam(name="adam")  # a file's size goes by names too
    model.compile(adam, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    return model


def write_model(path: Path) -> None:
    with replacing(path) as temporary:
        network().save(temporary)


def write_weights(path: Path) -> None:
    """What ``IterativePrune`` writes after an epoch that holds its bound."""
    prune = IterativePrune("accuracy", 0.5, mode="max", path=path)
    prune.set_model(network())
    prune._targets = find_targets(prune.model)
    prune._keep(0.75)


def write_state(path: Path) -> None:
    weights = network().get_weights()
    write_tree(path, {"epoch": 3, "weights": weights, "logs": [[0, {"loss": 0.5}]]})


def write_candidates(path: Path) -> None:
    keep(path.parent, [Candidate("float32-dense", "float32", b"TFL3" * 500)])


def keep(folder: Path, candidates: list[Candidate]) -> None:
    x, y = [np.ones((1, 40), np.float32)], [np.ones((1, 3), np.float32)]
    device.keep(folder, candidates, Samples(("x",), ("y",), [x, x], [y, y]))


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.txt": lambda path: write_text(path, "newer\n" * 500),
    "a.bin": lambda path: write_bytes(path, b"newer" * 500),
    "a.json": lambda path: records.write(path, "a", {"cells": ["newer"] * 50}),
    "a.keras": write_model,
    "a.weights.h5": write_weights,
    "training.npz": write_state,
    "a.png": lambda path: save_figure(plot_tradeoff([(1, 0.9), (4, 0.8)], metric="error"), path),
    "a.svg": lambda path: save_figure(plot_tradeoff([(1, 0.9), (4, 0.8)], metric="error"), path),
    "float32-dense.tflite": write_candidates,
    "samples.npz": lambda path: keep(path.parent, []),
    "measure.py": write_candidates,
}


@pytest.mark.parametrize("name", WRITERS)
def test_out_of_space_the_older_file_stands(name: str, tmp_path: Path) -> None:
    path = tmp_path / "folder" / name
    path.parent.mkdir()
    WRITERS[name](path)
    size = path.stat().st_size
    beside = {one: one.read_bytes() for one in path.parent.iterdir()}
    path.write_bytes(OLDER)
    beside[path] = OLDER
    for room in (0, size // 2, size - 1):
        with (
            pytest.raises(OSError, match=f"^.Errno {errno.EFBIG}. .*File too large") as error,
            largest_file(room),
        ):
            WRITERS[name](path)
        assert Path(error.value.filename).parent == path.parent
        assert Path(error.value.filename) in beside, "a temporary file's name says nothing"
        assert {one: one.read_bytes() for one in path.parent.iterdir()} == beside
    WRITERS[name](path)
    assert path.stat().st_size > len(OLDER)


@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"
)
def test_a_pdf_out_of_space_leaves_the_older_file(tmp_path: Path) -> None:
    """matplotlib stumbles on from the error, and leaves its file for Python to close."""
    path = tmp_path / "a.pdf"
    path.write_bytes(OLDER)
    told = ""
    with largest_file(2000):
        try:
            save_figure(plot_tradeoff([(1, 0.9), (4, 0.8)], metric="error"), path)
        except OSError as error:
            told = str(error)
    gc.collect()
    assert told == f"[Errno {errno.EFBIG}] Not written: File too large: '{path}'"
    assert path.read_bytes() == OLDER
    assert list(tmp_path.iterdir()) == [path]


def test_on_a_device_out_of_space_the_older_figures_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script has no files to run: what it writes is what counts."""
    monkeypatch.setattr(runner, "measure", lambda *_: {"processor": "one" * 200, "files": {}})
    path = tmp_path / "device.json"
    path.write_bytes(OLDER)
    arguments = [str(tmp_path), "--out", str(path)]
    with pytest.raises(SystemExit, match="2"), largest_file(100):
        runner.main(arguments)
    assert capsys.readouterr().err == f"{path} is not written: File too large\n"
    assert path.read_bytes() == OLDER
    assert list(tmp_path.iterdir()) == [path]
    assert runner.main(arguments) == 0
    assert json.loads(path.read_text())["files"] == {}


def test_weights_made_in_memory_are_those_that_keras_writes(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "a.weights.h5"
    memory = InMemory()
    model.save_weights(memory)
    write_bytes(path, memory.getvalue())
    other = network()
    other.load_weights(path)
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match=r"other\.txt") as error,
        replacing(tmp_path / "a.txt"),
    ):
        (tmp_path / "other.txt").read_bytes()
    assert error.value.filename == str(tmp_path / "other.txt")


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 64 KiB that has no room left, in a namespace of its own."""
    point = tmp_path_factory.mktemp("disk")
    script = 'mount -t tmpfs -o size=64k tmpfs "$1" && echo ready && exec sleep 600'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(point)]
    try:
        inside = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except FileNotFoundError:
        pytest.skip("a small file system needs the program `unshare`")
    with inside:
        assert inside.stdout is not None
        assert inside.stderr is not None
        if inside.stdout.readline() != "ready\n":
            pytest.skip(f"this system lets no user mount a file system: {inside.stderr.read()}")
        try:
            # The mount is seen through the process that lives beside it.
            yield Path(f"/proc/{inside.pid}/root{point}")
        finally:
            inside.kill()


def fill(disk: Path, left: int = 0) -> None:
    """Takes all room of a file system, and gives so many bytes back."""
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass
    os.truncate(disk / "filler", (disk / "filler").stat().st_size - left)


@pytest.mark.parametrize(
    ("name", "room"),
    [
        ("a.bin", 0),
        ("a.json", 0),
        ("a.keras", 0),
        ("a.keras", 8192),
        ("a.weights.h5", 8192),
        ("training.npz", 4096),
        ("a.png", 4096),
    ],
)
def test_on_a_full_disk_the_older_file_stands(name: str, room: int, full_disk: Path) -> None:
    path = full_disk / name
    write_bytes(path, OLDER)
    fill(full_disk, room)
    try:
        with pytest.raises(OSError, match="Not written: No space left on device") as error:
            WRITERS[name](path)
        assert error.value.filename == str(path)
        assert path.read_bytes() == OLDER
        assert {one.name for one in full_disk.iterdir()} == {"filler", name}
    finally:
        (full_disk / "filler").unlink()
        path.unlink()


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a call that fails with status 2."""
    capsys.readouterr()
    assert cli.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines(keepends=True)
    told = [line for line in lines if not line.startswith("keras-l0: warning")]
    assert len(told) == 1, lines
    return told[0]


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """A model's file, and the option with data."""
    network().save(tmp_path / "given.keras")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 40)).astype("float32"), np.arange(60) % 3
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y)
    return [str(tmp_path / "given.keras"), "--data", str(tmp_path / "data.npz")]


@pytest.fixture
def full_after(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Any, str, list[str]], str]:
    """What a call says that finds no room for a file of 1,000 bytes after a module's function."""
    pytest.importorskip("tensorflow", reason="exporting needs TensorFlow")

    def told(module: Any, name: str, arguments: list[str]) -> str:
        function = getattr(module, name)
        with contextlib.ExitStack() as until_the_end:

            def full(*given: Any, **options: Any) -> Any:
                found = function(*given, **options)
                until_the_end.enter_context(largest_file(1000))
                return found

            monkeypatch.setattr(module, name, full)
            return fails(arguments, capsys)

    return told


def test_an_export_out_of_space_leaves_the_older_file(
    given: list[str], tmp_path: Path, full_after: Callable[[Any, str, list[str]], str]
) -> None:
    from keras_l0.export import best

    path = tmp_path / "out" / "m.tflite"
    path.parent.mkdir()
    path.write_bytes(OLDER)
    told = full_after(best, "choose", ["export", given[0], str(path), "--overwrite"])
    assert told == f"keras-l0: [Errno {errno.EFBIG}] Not written: File too large: '{path}'\n"
    assert path.read_bytes() == OLDER
    assert list(path.parent.iterdir()) == [path]


def test_compress_out_of_space_leaves_the_older_files(
    given: list[str], tmp_path: Path, full_after: Callable[[Any, str, list[str]], str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    names = ["model.keras", "model.tflite", "report.json"]
    for name in names:
        (out / name).write_bytes(OLDER)
    short = ["--warmup", "0", "--ramp", "2", "--finetune", "0", "--overwrite"]
    arguments = ["compress", *given, "--sparsity", "0.5", "--out", str(out), *short]
    told = full_after(compress, "compress", arguments)
    assert f"Not written: File too large: '{out / 'model.keras'}'" in told
    assert [(out / name).read_bytes() for name in names] == [OLDER] * 3
    assert not list(out.glob(".*"))


def trial(place: str, value: float) -> None:
    """One trial of a search, with what a search keeps of it."""
    pytest.importorskip("optuna", reason="a search needs Optuna")
    study = open_study(place, "norm", True, 0, {"l0": [0, 1]})
    one = study.ask()
    one.suggest_float("l0", 0, 1)
    one.set_user_attr("settings", {"ramp": 3, "note": "x" * 200})
    study.tell(one, [value, 2.0])


def values(place: str) -> list[float]:
    return [one.values[0] for one in finished(open_study(place, "norm", True, 0, {"l0": [0, 1]}))]


def trials_until_full(place: str, path: Path, room: int) -> int:
    """How many trials there is room for, in so many bytes more."""
    with largest_file(path.stat().st_size + room):
        for count in range(100):
            try:
                trial(place, 0.25)
            except Exception as error:
                told = getattr(error, "filename", "") or repr(error.__cause__)
                if told != str(path) and "sqlite" not in told:
                    raise
                return count
    pytest.fail("there was room for all")


@pytest.mark.parametrize(
    ("storage", "rooms"), [("{}/s.log", (0, 1, 50, 150, 300, 450)), ("sqlite:///{}/s.db", (0,))]
)
def test_a_search_out_of_space_keeps_its_trials_and_goes_on(
    storage: str, rooms: tuple[int, ...], tmp_path: Path
) -> None:
    place = storage.format(tmp_path)
    trial(place, 0.5)
    (path,) = tmp_path.iterdir()
    done = [0.5]
    for room in rooms:
        done += [0.25] * trials_until_full(place, path, room)
        assert values(place) == done
    trial(place, 0.75)
    assert values(place) == [*done, 0.75]


def test_a_search_that_was_cut_off_anywhere_goes_on(tmp_path: Path) -> None:
    place, path = str(tmp_path / "s.log"), tmp_path / "s.log"
    trial(place, 0.5)
    one = path.stat().st_size
    trial(place, 0.25)
    whole = path.read_bytes()
    for length in (0, 1, 8, 30, one // 2, one - 1, one, one + 9, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:length])
        before = [0.5] * (length >= one)
        assert values(place) == before, length
        trial(place, 0.75)
        assert values(place) == [*before, 0.75], length


def test_a_search_whose_file_is_damaged_says_so(tmp_path: Path) -> None:
    place, path = str(tmp_path / "s.log"), tmp_path / "s.log"
    trial(place, 0.5)
    whole = path.read_bytes().splitlines(keepends=True)
    for line in (b"{\n", b"\x00\xff\n", b"[]\n", b'{"op_code":99}\n', b'{"op_code":4}\n'):
        path.write_bytes(b"".join([*whole[:2], line, *whole[2:]]))
        with pytest.raises(ValueError, match=r"Expected a whole file of a search.*s\.log"):
            values(place)


def test_a_lock_that_a_killed_search_left_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a relative path too, for which Optuna's own lock would wait without end."""
    from keras_l0 import studies

    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    trial("out/s.log", 0.5)
    (tmp_path / "out/s.log.lock").symlink_to(tmp_path / "out/s.log")
    monkeypatch.setattr(studies, "_LOCKED_SECONDS", 3)
    trial("out/s.log", 0.25)
    assert values("out/s.log") == [0.5, 0.25]


# When a process is killed: at that share of the file, or about its end.
MOMENTS: tuple[float | str, ...] = (0.0, 0.001, 0.5, 0.999, "fsync", "replace", "replaced")
KILLED_WRITERS = [
    *("a.txt", "a.bin", "a.json", "a.keras", "a.png", "a.weights.h5", "training.npz"),
    *("float32-dense.tflite", "samples.npz"),
]
# Bytes that a search's file may have: more than it has for the one, which only grows.
ROOMS = {"{}/s.log": (0, 1, 60, 200, 330), "sqlite:///{}/s.db": (-(10**9), -40_000)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process that is killed is a fork")
def test_a_killed_process_leaves_the_older_file_or_the_new_one(tmp_path: Path) -> None:
    """The killed ones are forks of one process, that has nothing but this thread."""
    pytest.importorskip("optuna", reason="a search needs Optuna")
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        env={**os.environ, "KERAS_BACKEND": "numpy"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == len(MOMENTS) * len(KILLED_WRITERS) + sum(map(len, ROOMS.values()))
    assert {name: one for name, one in found.items() if one != "as it should be"} == {}


def killed_at(moment: int | str, write: Callable[[], None]) -> int:
    """The signal that ended a process in its writing: at a byte of a file, or at a call."""
    child = os.fork()
    if child:
        return os.WTERMSIG(os.waitpid(child, 0)[1])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replace = Path.replace

    def end(*_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    def replace_and_end(path: Path, target: Path) -> None:
        replace(path, target)
        end()

    if isinstance(moment, int):
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # which Python ignores
        resource.setrlimit(resource.RLIMIT_FSIZE, (moment, moment))
    elif moment == "fsync":
        os.fsync = end
    else:
        Path.replace = {"replace": end, "replaced": replace_and_end}[moment]  # type: ignore
    try:
        write()
    finally:
        os._exit(0)


def what_is_left(folder: Path, name: str, moment: float | str) -> str:
    """Writes a file over an older one, killed at that moment, and once more to the end."""
    path = folder / f"{moment} {name}" / name
    path.parent.mkdir()
    WRITERS[name](path)
    size, others = path.stat().st_size, {*path.parent.iterdir()}
    path.write_bytes(OLDER)
    when = moment if isinstance(moment, str) else round(moment * size)
    by = killed_at(when, lambda: WRITERS[name](path))
    if by != (signal.SIGKILL if isinstance(moment, str) else signal.SIGXFSZ):
        return f"it ended by signal {by}"
    if moment == "replaced":
        if path.stat().st_size != size:
            return "the new file is not whole"
    elif path.read_bytes() != OLDER:
        return "the older file is gone"
    beside = [one.name for one in path.parent.iterdir() if one not in others]
    if len(beside) > 1 or not all(one.startswith(".") and one.endswith(name) for one in beside):
        return f"beside it stand {beside}"
    WRITERS[name](path)
    return "as it should be" if path.stat().st_size == size else "another size"


def what_is_left_of_a_search(folder: Path, storage: str, room: int) -> str:
    """Two trials, a third one that is killed, and a fourth."""
    (folder := folder / f"search {room}").mkdir()
    place = storage.format(folder)
    trial(place, 0.5)
    trial(place, 0.25)
    (path,) = folder.iterdir()
    by = killed_at(max(path.stat().st_size + room, 0), lambda: trial(place, 0.75))
    kept = values(place)
    if by != signal.SIGXFSZ or kept != [0.5, 0.25]:
        return f"killed by {by}, it has {kept}"
    trial(place, 1.0)
    return "as it should be" if values(place) == [*kept, 1.0] else "it does not go on"


if __name__ == "__main__":
    from keras_l0 import studies

    studies._LOCKED_SECONDS = 1
    here = Path(sys.argv[1])
    told = {
        f"{name}, {moment}": what_is_left(here, name, moment)
        for name in KILLED_WRITERS
        for moment in MOMENTS
    }
    for storage, rooms in ROOMS.items():
        for room in rooms:
            told[f"{storage}, {room}"] = what_is_left_of_a_search(here, storage, room)
    print(json.dumps(told))
