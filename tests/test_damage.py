"""Damaged files: a clear error or the right answer, and never a traceback, a hang or a crash."""

import json
import random
import resource
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from keras_l0 import cli, compress, explain_sparsity, prune
from keras_l0.checkpoint import read_tree
from keras_l0.commands.inputs import arrays_by_input, load_model
from keras_l0.experiments import records
from keras_l0.experiments.datasets import Dataset, load_npz
from keras_l0.export.device import read_timings
from keras_l0.resuming import Run
from keras_l0.search_result import read_settings

Files = list[tuple[str, bytes]]
FEW = 4
SETTINGS = {
    "compression": 12.5,
    "regularizer": {"l2": 1e-4, "l0": 3e-5, "beta": 10.0},
    "overrides": {"dense": {"l2": 0.0, "l0": 1e-5, "beta": 5.0}},
    "ramp": 4,
    "power": 2.5,
    "learning_rate": 0.001,
    "regrow": False,
    "shrink": True,
}
CELLS = [
    {"row": row, "seed": seed, "settings": {"rate": 0.1}, "result": {"error": 1.5}, "seconds": 2.0}
    for row in ("a", "b")
    for seed in range(3)
]


def cuts(content: bytes, count: int = 50) -> Files:
    """The file cut at random places."""
    draw = random.Random(f"cuts {len(content)}")
    lengths = [draw.randrange(len(content)) for _ in range(count)]
    return [(f"cut at {length}", content[:length]) for length in lengths]


def flips(content: bytes, count: int, together: int) -> Files:
    """Files of which so many random bytes are others."""
    found = []
    for seed in range(count):
        draw, damaged = random.Random(seed), bytearray(content)
        places = draw.sample(range(len(content)), min(together, len(content)))
        for place in places:
            damaged[place] ^= draw.randrange(1, 256)
        found.append((f"{together} flips, seed {seed}, the first at {places[0]}", bytes(damaged)))
    return found


def some(content: bytes) -> Files:
    """A few of each kind."""
    return [*cuts(content)[:FEW], *flips(content, FEW, 200), *flips(content, FEW, 1)]


def damage(content: bytes) -> Files:
    """Fifty of each kind."""
    return [*cuts(content), *flips(content, 50, 200)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole files, their weights and data larger than what is read at a time."""
    folder = tmp_path_factory.mktemp("whole")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((40,), name="x"), layers.Dense(64), layers.Dense(3)])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    model.save(folder / "m.keras")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(600, 40)).astype("float32"), rng.integers(0, 3, 600)
    np.savez(folder / "data.npz", x_train=x, y_train=y)
    np.savez_compressed(folder / "packed.npz", x_train=x, y_train=y)
    np.savez(folder / "inputs.npz", x=x)
    (folder / "settings.json").write_text(json.dumps(SETTINGS, indent=1) + "\n")
    records.write(folder / "figure1.json", "figure1", {"cells": CELLS})
    file = {"fault": "", "sha256": 64 * "a", "deviation": 0.0, "plain_deviation": 0.0}
    device = {"processor": "one", "files": {"float32-dense": {**file, "latency_ms": 1.5}}}
    (folder / "device.json").write_text(json.dumps(device, indent=2))
    return folder


@pytest.fixture(scope="module")
def tflite_file(folder: Path) -> Path:
    """A file with a dense, a sparse and a sparse 4-D tensor."""
    pytest.importorskip("tensorflow", reason="exporting needs TensorFlow")
    from keras_l0.export.tflite import export_tflite

    keras.utils.set_random_seed(0)
    hidden = [layers.Conv2D(8, 3, activation="relu"), layers.Flatten(), layers.Dense(32)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *hidden, layers.Dense(3)])
    prune(model, 0.9)
    export_tflite(model, folder / "m.tflite")
    return folder / "m.tflite"


def compressed(place: Path) -> keras.Model:
    """What comes of a run, which goes on from what stands there."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,), name="x"), layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    data = (np.eye(6, 4, dtype="float32"), np.arange(6) % 3)
    short = {"sparsity": 0.5, "warmup": 1, "ramp": 1, "finetune": 0, "verbose": 0}
    return compress(model, data, data, checkpoint_dir=place, **short).model


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Path:
    """What a run keeps."""
    compressed(folder / "run")
    return folder / "run"


@pytest.fixture(autouse=True)
def limited_memory() -> Iterator[None]:
    """What asks for all memory, since a size in the file says so, fails instead of the machine."""
    status = Path("/proc/self/statm").read_text().split()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = int(status[0]) * resource.getpagesize() + 8 * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def outcome(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """The program's status and what it said."""
    capsys.readouterr()
    status = cli.main(arguments)
    said = capsys.readouterr()
    return status, said.out, said.err


def refused(arguments: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether it failed; if so, with one line that names the file."""
    status, _, told = outcome(arguments, capsys)
    if not status:
        assert not told
        return False
    assert status == 2
    assert told.count("\n") == 1, told
    assert told.startswith("keras-l0: Invalid value for argument")
    assert name in told
    return True


def state(model: keras.Model) -> list[Any]:
    """The weights, and the optimizer's state."""
    return [*model.get_weights(), *(np.array(v) for v in model.optimizer.variables)]


def assert_summaries_right(
    damaged: Files, whole: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of each file: refused, or the same summary and the same weights."""
    right = outcome(["summary", str(whole)], capsys)
    weights = state(load_model(whole, compiled=True))
    for how, content in damaged:
        path.write_bytes(content)
        if not refused(["summary", str(path)], path.name, capsys):
            assert outcome(["summary", str(path)], capsys) == right, how
            found = state(load_model(path, compiled=True))
            assert all(map(np.array_equal, found, weights)), how


def test_a_damaged_model_is_refused_or_read_as_it_was(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = folder / "m.keras"
    damaged = damage(whole.read_bytes())
    assert_summaries_right(damaged, whole, tmp_path / "damaged.keras", capsys)


@pytest.mark.slow
def test_a_model_with_one_byte_flipped_is_refused_or_read_as_it_was(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = folder / "m.keras"
    damaged = flips(whole.read_bytes(), 200, 1)
    assert_summaries_right(damaged, whole, tmp_path / "damaged.keras", capsys)


@pytest.mark.parametrize("part", ["config.json", "metadata.json", "model.weights.h5"])
def test_a_flip_in_any_part_of_a_model_is_found(part: str, folder: Path, tmp_path: Path) -> None:
    content = bytearray((folder / "m.keras").read_bytes())
    with zipfile.ZipFile(folder / "m.keras") as archive:
        place = content.index(archive.read(part)[-64:])
    content[place + 32] ^= 1
    path = tmp_path / "damaged.keras"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a whole \.keras file.*Bad CRC-32 for file '{part}'"):
        load_model(path)


def assert_refused(
    content: bytes, path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The program refuses what is left of a file, and writes none."""
    for how, damaged in [*cuts(content)[:FEW], *flips(content, FEW, 200)]:
        path.write_bytes(damaged)
        files = {one for one in path.parent.rglob("*") if one.is_file()}
        assert refused(arguments, path.name, capsys), how
        assert {one for one in path.parent.rglob("*") if one.is_file()} == files
        assert path.read_bytes() == damaged


@pytest.mark.parametrize("name", ["m.keras", "data.npz"])
@pytest.mark.parametrize("command", ["compress", "export"])
def test_no_command_takes_a_damaged_file(
    command: str, name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"damaged{Path(name).suffix}"
    given = {one: str(folder / one) for one in ("m.keras", "data.npz")} | {name: str(path)}
    model, data = given["m.keras"], given["data.npz"]
    arguments = {
        "compress": [model, "--data", data, "--sparsity", "0.5", "--out", str(tmp_path / "out")],
        "export": [model, str(tmp_path / "m.tflite"), "--check", data],
    }
    content = (folder / name).read_bytes()
    assert_refused(content, path, [command, *arguments[command]], capsys)


def same_data(one: Dataset, other: Dataset) -> bool:
    """Whether the examples are the same."""
    arrays = ("x_train", "y_train", "x_test", "y_test")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)


def assert_read_right(
    damaged: Files, path: Path, read: Callable[[Path], Any], right: Callable[[Any], bool]
) -> int:
    """Of each file: a ``ValueError`` that names it, or what was written. How many were refused."""
    errors = 0
    for how, content in damaged:
        path.write_bytes(content)
        found, error = tried(read, path)
        if error:
            assert "Invalid value for argument" in error, how
            assert path.name in error, how
            errors += 1
        else:
            assert right(found), how
    return errors


def tried(read: Callable[[Path], Any], path: Path) -> tuple[Any, str]:
    """What was read, and what the ``ValueError`` said if there was one."""
    try:
        return read(path), ""
    except ValueError as error:
        return None, str(error) or "nothing"


@pytest.mark.parametrize("name", ["data.npz", "packed.npz"])
def test_damaged_data_are_refused_or_read_as_they_were(
    name: str, folder: Path, tmp_path: Path
) -> None:
    content, whole = (folder / name).read_bytes(), load_npz(folder / name)
    damaged = [*damage(content), *flips(content, 100, 1)]
    path = tmp_path / "damaged.npz"
    errors = assert_read_right(damaged, path, load_npz, lambda found: same_data(found, whole))
    assert errors >= 190


def test_a_header_that_asks_for_less_is_found(folder: Path, tmp_path: Path) -> None:
    """Read by it, the rest and with it the checksum would not be looked at."""
    content = (folder / "data.npz").read_bytes()
    path = tmp_path / "damaged.npz"
    for there, instead in ((b"'<i8'", b"'<i4'"), (b"(600,)", b"(100,)")):
        assert content.count(there) == 1
        path.write_bytes(content.replace(there, instead))
        with pytest.raises(ValueError, match=r"Bad CRC-32 for file 'y_train\.npy'"):
            load_npz(path)


def test_damaged_arrays_by_name_are_refused_or_read_as_they_were(
    folder: Path, tmp_path: Path
) -> None:
    """Where a name was hit that only the zip archive's own list has, there are none."""
    model, content = load_model(folder / "m.keras"), (folder / "inputs.npz").read_bytes()
    with np.load(folder / "inputs.npz") as arrays:
        x = arrays["x"]
    damaged = [*damage(content), *flips(content, 100, 1)]
    errors = assert_read_right(
        damaged,
        tmp_path / "damaged.npz",
        lambda path: arrays_by_input(str(path), model),
        lambda found: found is None or np.array_equal(found["x"], x),
    )
    assert errors >= 190


READERS: dict[str, Callable[[Path], Any]] = {
    "settings.json": read_settings,
    "figure1.json": lambda path: records.read(path, "figure1"),
    "device.json": read_timings,
}


@pytest.mark.parametrize("name", READERS)
def test_damaged_json_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    """But for the last line break, which says nothing."""
    read, content = READERS[name], (folder / name).read_bytes()
    whole, path = read(folder / name), tmp_path / name
    damaged = [*damage(content), ("empty", b""), ("null", b"null")]
    errors = assert_read_right(damaged, path, read, lambda found: repr(found) == repr(whole))
    assert errors >= 100


@pytest.mark.parametrize("name", ["settings.json", "figure1.json"])
def test_json_too_deep_to_read_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(100_000 * b"[")
    assert name in tried(READERS[name], tmp_path / name)[1]


@pytest.mark.parametrize("name", READERS)
def test_json_with_one_byte_flipped_is_refused_or_says_what_it_says(
    name: str, folder: Path, tmp_path: Path
) -> None:
    """A figure or a name that is another one now cannot be told from what was written."""
    read, content, path = READERS[name], (folder / name).read_bytes(), tmp_path / name
    for how, damaged in flips(content, 200, 1):
        path.write_bytes(damaged)
        _, error = tried(read, path)
        assert not error or "Invalid value for argument" in error, how
        assert error or json.loads(damaged), how


def test_no_command_takes_damaged_json(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = str(folder / "m.keras"), str(folder / "data.npz")
    start = ["compress", model, "--data", data, "--out", str(tmp_path / "out")]
    commands = {
        "settings.json": [*start, "--settings", str(tmp_path / "settings.json")],
        "device.json": [
            *("export", model, str(tmp_path / "m.tflite")),
            *("--timings", str(tmp_path / "device.json")),
        ],
        "figure1.json": ["reproduce", "figure1", "--out", str(tmp_path)],
    }
    for name, arguments in commands.items():
        assert_refused((folder / name).read_bytes(), tmp_path / name, arguments, capsys)


@pytest.mark.parametrize("name", ["run.json", "training.npz"])
def test_a_damaged_run_is_refused_or_gone_on_with_as_it_was(
    name: str, checkpoint: Path, tmp_path: Path
) -> None:
    content, right = (checkpoint / name).read_bytes(), compressed(checkpoint).get_weights()
    place = tmp_path / "run"
    shutil.copytree(checkpoint, place)
    errors = assert_read_right(
        some(content),
        place / name,
        lambda path: compressed(path.parent).get_weights(),
        lambda found: all(map(np.array_equal, found, right)),
    )
    assert errors >= 2 * FEW


@pytest.mark.parametrize("name", ["run.json", "training.npz"])
def test_a_run_damaged_anywhere_is_refused_or_read_as_it_was(
    name: str, checkpoint: Path, tmp_path: Path
) -> None:
    content = (checkpoint / name).read_bytes()
    shutil.copytree(checkpoint, tmp_path / "run")
    identity = json.loads((checkpoint / "run.json").read_bytes())["identity"]

    def begun(path: Path) -> Any:
        run = Run(path.parent, lambda: identity, {})
        return run.before, run.seed

    readers: dict[str, Callable[[Path], Any]] = {
        "run.json": begun,
        "training.npz": lambda path: read_tree(path, "checkpoint_dir"),
    }
    read = readers[name]
    whole = repr(read(checkpoint / name))
    damaged = [*damage(content), *flips(content, 200, 1)]
    path = tmp_path / "run" / name
    assert assert_read_right(damaged, path, read, lambda found: repr(found) == whole) >= 250


def test_a_damaged_tflite_file_is_refused_or_told_as_it_is(
    tflite_file: Path, tmp_path: Path
) -> None:
    """The format has no checksum: weights, names and options that are others look like others."""
    whole, content = explain_sparsity(tflite_file), tflite_file.read_bytes()
    assert len(whole.layers) == 3
    told = []

    def right(found: Any) -> bool:
        told.append(found)
        names = {one.layer for one in found.layers}
        return names <= {one.layer for one in whole.layers} | {"matrix product", "embedding"}

    path = tmp_path / "damaged.tflite"
    assert assert_read_right(damage(content), path, explain_sparsity, right) >= 98
    assert_read_right(flips(content, 200, 1), path, explain_sparsity, right)
    assert sum(found == whole for found in told) > len(told) / 2
    for found in told:
        assert all(0 <= one.sparsity <= 1 and one.bytes >= 0 for one in found.layers)


def test_a_shape_that_its_weights_do_not_fit_is_refused(tflite_file: Path, tmp_path: Path) -> None:
    from keras_l0.export import flatfile

    path, refusals = tmp_path / "damaged.tflite", 0
    count = len(flatfile.read(tflite_file.read_bytes()).subgraphs[0].tensors)
    for place in range(count):
        model = flatfile.read(tflite_file.read_bytes())
        tensor = model.subgraphs[0].tensors[place]
        if not flatfile.has_data(model, tensor) or len(tensor.shape) < 2:
            continue
        tensor.shape = [int(tensor.shape[0]) * 100, *map(int, tensor.shape[1:])]
        path.write_bytes(flatfile.write(model))
        with pytest.raises(ValueError, match="The file is damaged or no such"):
            explain_sparsity(path)
        refusals += 1
    assert refusals == 3


# What LiteRT itself says of files: prints those that it loads and invokes, each in a fork.
INVOKE = """
import os, sys
from ai_edge_litert.interpreter import Interpreter
for path in sys.argv[1:]:
    if not (child := os.fork()):
        interpreter = Interpreter(model_path=path)
        interpreter.allocate_tensors()
        interpreter.invoke()
        os._exit(0)
    if not os.waitpid(child, 0)[1]:
        print(path, flush=True)
"""


def assert_benched(
    damaged: Files, whole: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> int:
    """All in one call, the whole file among them. How many of the others do not run."""
    from keras_l0.export.bench import bench

    paths = [whole]
    for number, (how, content) in enumerate(damaged):
        path = folder / f"{number}.tflite"
        path.write_bytes(content)
        if content[4:8] == b"TFL3":
            paths.append(path)
        else:
            assert refused(["bench", str(path)], path.name, capsys), how
    timings = bench(paths, seconds=0.1).timings
    running = [one.path for one in timings if not one.fault]
    assert running[0] == str(whole)
    assert all(one.latency_ms > 0 for one in timings if not one.fault)
    done = subprocess.run(
        [sys.executable, "-c", INVOKE, *running], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == running
    return len(timings) - len(running)


def test_a_damaged_tflite_file_takes_no_other_with_it(
    tflite_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = tflite_file.read_bytes()
    damaged = [*cuts(content)[:30], *flips(content, 10, 200)]
    assert assert_benched(damaged, tflite_file, tmp_path, capsys) >= 20


@pytest.mark.slow
def test_no_damaged_tflite_file_takes_another_with_it(
    tflite_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = tflite_file.read_bytes()
    damaged = [*damage(content), *flips(content, 200, 1)]
    assert assert_benched(damaged, tflite_file, tmp_path, capsys) >= 100


def test_an_input_of_any_size_is_not_tried(tflite_file: Path, tmp_path: Path) -> None:
    from keras_l0.export import flatfile
    from keras_l0.export.bench import bench

    model = flatfile.read(tflite_file.read_bytes())
    graph = model.subgraphs[0]
    tensor = graph.tensors[graph.inputs[0]]
    tensor.shape = tensor.shapeSignature = [1, 2**14, 2**14, 3]
    (tmp_path / "large.tflite").write_bytes(flatfile.write(model))
    large, small = bench([tmp_path / "large.tflite", tflite_file], seconds=0.1).timings
    assert "is too large to try" in large.fault
    assert not small.fault


def test_a_file_that_goes_on_without_end_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tf = pytest.importorskip("tensorflow", reason="the file is made by TensorFlow's converter")
    from keras_l0.export import bench as module

    class Endless(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1], tf.float32, name="x")])
        def serve(self, x: Any) -> dict[str, Any]:
            return {"y": tf.while_loop(lambda y: tf.reduce_all(y < 3), lambda y: (y * 0,), [x])[0]}

    tf.saved_model.save(endless := Endless(), str(tmp_path / "m"), endless.serve)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "m"))
    (tmp_path / "endless.tflite").write_bytes(converter.convert())
    monkeypatch.setattr(module, "_LIMIT_SECONDS", 2)
    (timing,) = module.bench([tmp_path / "endless.tflite"], seconds=0.1).timings
    assert timing.fault == "it has not come to an end in 2 seconds"
