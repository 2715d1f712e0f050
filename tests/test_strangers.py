"""Files from strangers run no code: safe mode, no pickles, no evaluated strings."""

import ast
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from keras.src.saving.serialization_lib import in_safe_mode

import keras_l0
from keras_l0 import cli, summarize
from keras_l0.commands.inputs import arrays_by_input, load_model
from keras_l0.experiments import datasets, records
from keras_l0.export.device import read_timings
from keras_l0.search_result import read_settings

WEIGHTS = "model.weights.h5"


def sprung(marker: str) -> None:
    """What a file may not get called."""
    Path(marker).touch()


class Trap:
    """Springs when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (sprung, (str(self.marker),))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that is there when code has run."""
    return tmp_path / "sprung"


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A file without guile, and data beside it."""
    model = keras.Sequential([keras.Input((4,), name="x"), layers.Dense(8, name="first")])
    model.add(layers.Dense(3))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "m.keras")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)).astype("float32"), np.arange(60) % 3
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y)
    return tmp_path / "m.keras"


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a call that fails with status 2, but for warnings."""
    capsys.readouterr()
    assert cli.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines(keepends=True)
    told = "".join(line for line in lines if "no better than chance" not in line)
    assert told.count("\n") == 1, told
    assert told.startswith("keras-l0: Invalid value for argument"), told
    return told


def changed(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The ``.keras`` file with other members, their checksums right."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    other = path.with_name("other.keras")
    with zipfile.ZipFile(other, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return other


def with_layer(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The file with the first Dense layer's entry changed."""

    def rewrite(members: dict[str, bytes]) -> None:
        config = json.loads(members["config.json"])
        (layer,) = (one for one in config["config"]["layers"] if "first" in str(one["config"]))
        change(layer)
        members["config.json"] = json.dumps(config).encode()

    return changed(path, rewrite)


def commands(path: Path, folder: Path) -> list[list[str]]:
    """The calls that read a model."""
    data = str(folder / "data.npz")
    return [
        ["summary", str(path)],
        ["export", str(path), str(folder / "m.tflite")],
        ["compress", str(path), "--data", data, "--sparsity", "0.5", "--out", str(folder / "out")],
    ]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.usefixtures("model_file")
def test_a_lambda_layer_is_refused_unread(
    suffix: str,
    marker: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, name = tmp_path / f"lambda{suffix}", str(marker)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    model.add(layers.Lambda(lambda x: (open(name, "w").close(), x)[1]))  # noqa: PTH123
    model.save(path)
    marker.unlink()
    for arguments in commands(path, tmp_path):
        assert "lambda" in refused(arguments, capsys)
    assert not marker.exists()
    # The trap is one: who trusts the file has it sprung.
    keras.models.load_model(path, safe_mode=False, compile=False)(np.zeros((1, 4)))
    assert marker.exists()


CLASSES = [
    ("os", "system", {"command": "touch {marker}"}),
    ("subprocess", "Popen", {"args": ["touch", "{marker}"]}),
    ("builtins", "exec", {"source": "open('{marker}', 'w')"}),
    ("builtins", "eval", {"expression": "open('{marker}', 'w')"}),
    ("pathlib", "Path", {"path": "{marker}"}),
    ("evil", "Evil", {}),
    ("keras_l0.files", "write_text", {"path": "{marker}", "text": ""}),
    ("keras", "src.saving.saving_lib.load_model", {"filepath": "{marker}", "safe_mode": False}),
    ("keras.config", "enable_unsafe_deserialization", {}),
    ("keras.utils", "get_file", {"fname": "{marker}", "origin": "file:///etc/hostname"}),
    ("keras.saving", "load_model", {"filepath": "{marker}", "safe_mode": False}),
    ("keras.layers", "TFSMLayer", {"filepath": "{marker}"}),
    ("keras.layers", "TorchModuleWrapper", {"module": "{pickle}"}),
]


def planted(value: Any, marker: Path) -> Any:
    """The values with the marker's path in them."""
    text = json.dumps(value).replace("{pickle}", pickle.dumps(Trap(marker)).hex())
    return json.loads(text.replace("{marker}", str(marker)))


@pytest.fixture
def evil(tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that lies where it would be found."""
    (tmp_path / "evil.py").write_text(
        f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Evil: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("evil")
@pytest.mark.parametrize(("module", "name", "config"), CLASSES)
def test_a_class_from_anywhere_is_neither_imported_nor_called(
    module: str,
    name: str,
    config: dict[str, Any],
    model_file: Path,
    marker: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def change(layer: dict[str, Any]) -> None:
        layer |= {"module": module, "class_name": name, "registered_name": None}
        layer["config"] = planted({"name": "first", **config}, marker)

    path = with_layer(model_file, change)
    assert "a whole .keras file" in refused(["summary", str(path)], capsys)
    assert not marker.exists()
    assert in_safe_mode() in (None, True)


FUNCTIONS = [
    "os.system",
    "exec",
    "__import__('os').system('touch {marker}')",
    {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
    {"module": "builtins", "class_name": "function", "config": "exec", "registered_name": "exec"},
    {"module": "evil", "class_name": "function", "config": "Evil", "registered_name": "Evil"},
    {"class_name": "__lambda__", "config": {"value": "4wEAAAA=", "defaults": None}},
    {"class_name": "__method__", "config": {"name": "system", "module": "os"}},
]


@pytest.mark.usefixtures("evil")
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_from_anywhere_is_neither_imported_nor_called(
    function: Any, model_file: Path, marker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(layer: dict[str, Any]) -> None:
        layer["config"]["activation"] = planted(function, marker)

    path = with_layer(model_file, change)
    assert "a whole .keras file" in refused(["summary", str(path)], capsys)
    assert not marker.exists()


def test_a_vocabulary_of_another_file_is_not_read(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret.txt").write_text("secret\n")

    def change(layer: dict[str, Any]) -> None:
        layer |= {"class_name": "StringLookup", "module": "keras.layers", "registered_name": None}
        layer["config"] = {"name": "first", "vocabulary": str(tmp_path / "secret.txt")}

    path = with_layer(model_file, change)
    assert "a whole .keras file" in refused(["summary", str(path)], capsys)


def rewritten(content: bytes, change: Callable[[h5py.Group], None]) -> bytes:
    """The weights' file with the group of the first kernel changed."""
    memory = io.BytesIO(content)
    with h5py.File(memory, "r+") as file:
        kernels = [one["vars"] for one in file["layers"].values() if one["vars/0"].shape == (4, 8)]
        change(kernels[0])
    return memory.getvalue()


def links(folder: Path) -> dict[str, Callable[[h5py.Group], None]]:
    """Ways in which a kernel's values come from another file."""
    with h5py.File(folder / "other.h5", "w") as file:
        file["0"] = np.ones((4, 8), np.float32)
    (folder / "raw").write_bytes(np.ones((4, 8), np.float32).tobytes())
    virtual = h5py.VirtualLayout((4, 8), "f4")
    virtual[:] = h5py.VirtualSource(str(folder / "other.h5"), "0", (4, 8))
    raw = [(str(folder / "raw"), 0, 4 * 8 * 4)]

    def replace(make: Callable[[h5py.Group], object]) -> Callable[[h5py.Group], None]:
        def change(group: h5py.Group) -> None:
            del group["0"]
            make(group)

        return change

    other = h5py.ExternalLink(str(folder / "other.h5"), "/0")
    return {
        "external link": replace(lambda group: group.__setitem__("0", other)),
        "soft link": replace(lambda group: group.__setitem__("0", h5py.SoftLink("/elsewhere"))),
        "external": replace(lambda g: g.create_dataset("0", (4, 8), "f4", external=raw)),
        "virtual": replace(lambda group: group.create_virtual_dataset("0", virtual)),
    }


@pytest.mark.parametrize("how", ["external link", "soft link", "external", "virtual"])
def test_weights_come_from_no_other_file(
    how: str, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = links(tmp_path)[how]

    def rewrite(members: dict[str, bytes]) -> None:
        members[WEIGHTS] = rewritten(members[WEIGHTS], change)

    path = changed(model_file, rewrite)
    assert "Not allowed" in refused(["summary", str(path)], capsys)


def test_a_pickled_array_of_weights_is_refused_unread(
    model_file: Path, marker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = io.BytesIO()
    np.savez(memory, __root__=np.array([Trap(marker)], object))

    def rewrite(members: dict[str, bytes]) -> None:
        del members[WEIGHTS]
        members["model.weights.npz"] = memory.getvalue()

    path = changed(model_file, rewrite)
    assert "a whole .keras file" in refused(["summary", str(path)], capsys)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["../outside.txt", "assets/../../outside.txt", "{}/outside.txt"])
def test_a_file_writes_none_elsewhere(
    name: str, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keras takes the parts that it knows, and puts the others in a folder of its own."""
    path = changed(
        model_file, lambda members: members.update({name.format(tmp_path): b"", "assets/a": b""})
    )
    before = sorted(tmp_path.parent.rglob("*"))
    cli.main(["summary", str(path)])
    assert sorted(tmp_path.parent.rglob("*")) == before
    assert not Path("/outside.txt").exists()
    capsys.readouterr()


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_pickled_data_are_refused_unread(
    kind: str,
    model_file: Path,
    marker: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    traps = np.array([Trap(marker)] * 60, object)
    path = tmp_path / f"mnist.{kind}"
    if kind == "npz":
        np.savez(path, x=traps, x_train=traps[:, None], y_train=np.arange(60) % 3)
    else:
        np.save(path, traps)
    model, data = str(model_file), str(path)
    compress = ["compress", model, "--sparsity", "0.5", "--out", str(tmp_path / "out"), "--data"]
    assert path.name in refused([*compress, data], capsys)
    assert path.name in refused(
        ["export", model, str(tmp_path / "m.tflite"), "--check", data], capsys
    )
    with pytest.raises(ValueError, match=r"whole \.npz file"):
        arrays_by_input(data, load_model(model_file))
    if kind == "npz":
        monkeypatch.setenv("KERAS_L0_DATA", str(tmp_path))
        with pytest.raises(ValueError, match="not pickled"):
            datasets.load("mnist")
    assert not marker.exists()
    np.load(path, allow_pickle=True)["x" if kind == "npz" else 0]
    assert marker.exists(), "the trap is none"


CODE = "__import__('pathlib').Path({marker!r}).touch()"
ODD = [
    *({name: CODE} for name in ("score", "method", "scheme", "ramp", "mode", "regularizer")),
    {"regularizer": {"l2": CODE, "l0": 0.0, "beta": 1.0}},
    {"regularizer": ["l2"]},
    {"overrides": {"first": CODE}},
    {"overrides": [CODE]},
    {"ramp": 2.5},
    {"ramp": {"a": 1}},
    {"warmup": -1},
    {"warmup": 1e400},
    {"compression": "10"},
    {"compression": True, "sparsity": [0.5]},
    {"learning_rate": {"module": "os", "class_name": "system", "config": {}}},
    {"learning_rate": "0.1"},
    {"power": None},
    {"regrow": 1},
    {"shrink": "yes"},
    {"model": "m.keras"},
    {"train": [[1], [2]]},
    {"__class__": "x"},
    [["ramp", 2]],
    "ramp",
    None,
    [],
    7,
]


@pytest.mark.parametrize("settings", ODD)
def test_settings_of_odd_types_are_refused_and_not_evaluated(
    settings: Any,
    model_file: Path,
    marker: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "settings.json"
    goal = {} if isinstance(settings, dict) and "compression" in settings else {"sparsity": 0.5}
    content = {**goal, "warmup": 0, "ramp": 2, "finetune": 0}
    odd = {**content, **settings} if isinstance(settings, dict) else settings
    path.write_text(json.dumps(odd).replace("{marker!r}", repr(str(marker))))
    arguments = ["compress", str(model_file), "--data", str(tmp_path / "data.npz")]
    refused([*arguments, "--out", str(tmp_path / "out"), "--settings", str(path)], capsys)
    assert not marker.exists()
    assert not (tmp_path / "out" / "model.keras").exists()


@pytest.mark.parametrize(
    "cells", [None, "abc", 3, {}, ["abc"], [{}], [{"row": "a"}], [{"row": 1, "seed": []}, None]]
)
def test_results_of_odd_types_are_refused(cells: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    records.write(path, "x", {"cells": cells})
    with pytest.raises(ValueError, match=r"a folder whose x\.json is a result of x"):
        records.read(path, "x")


@pytest.mark.parametrize("files", [None, "a", {"a": None}, {"a": {"fault": 0}}, {"a": [1]}])
def test_timings_of_odd_types_are_refused(files: Any, tmp_path: Path) -> None:
    path = tmp_path / "device.json"
    path.write_text(json.dumps({"processor": "x", "files": files}))
    with pytest.raises(ValueError, match=r"a file that measure\.py wrote"):
        read_timings(path)


def test_settings_are_read_as_what_they_say() -> None:
    assert read_settings({"score": "lamp", "ramp": 4}) == {"score": "lamp", "ramp": 4}


NEVER = {"eval", "exec", "__import__", "enable_unsafe_deserialization"}
MODULES = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}


def faults(source: str) -> list[str]:
    """What a source file must not have."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in NEVER and not (name == "eval" and isinstance(node.func, ast.Attribute)):
                found.append(name)
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                if (keyword.arg, value) in (("allow_pickle", True), ("safe_mode", False)):
                    found.append(f"{keyword.arg}={value}")
        elif isinstance(node, ast.Import):
            found += [one.name for one in node.names if one.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "") in MODULES:
            found.append(str(node.module))
    return found


def test_the_sources_neither_unpickle_nor_evaluate() -> None:
    root = Path(keras_l0.__file__).parent
    sources = sorted(root.rglob("*.py"))
    assert len(sources) > 80
    assert {str(path): bad for path in sources if (bad := faults(path.read_text()))} == {}
    traps = "import pickle\neval('1')\nnp.load(f, allow_pickle=True)\nload(f, safe_mode=False)"
    assert len(faults(traps)) == 4


def test_a_file_without_guile_is_read(model_file: Path) -> None:
    path = with_layer(changed(model_file, lambda _: None), lambda _: None)
    assert summarize(load_model(path)).parameters == 4 * 8 + 8 + 8 * 3 + 3
