"""The program: what it writes, and that an error is one line and status 2."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_l0 import cli, prune
from keras_l0.commands import imports, search
from keras_l0.commands.inputs import load_data, warn_of_chance
from keras_l0.experiments import datasets
from keras_l0.regularizers import L2L0

SMALL = ["--warmup", "1", "--ramp", "2", "--finetune", "1"]


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A small compiled model of 4 inputs and 3 classes."""
    layers = [keras.Input((4,)), keras.layers.Dense(16, "relu", kernel_regularizer=L2L0(l0=1e-5))]
    model = keras.Sequential([*layers, keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)  # else Keras warns when it loads the file
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    """Sixty examples for it."""
    rng = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    np.savez(path, x_train=rng.random((60, 4), np.float32), y_train=np.arange(60) % 3)
    return path


def fails(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a call that fails with status 2."""
    capfd.readouterr()
    try:
        status = cli.main(arguments)
    except SystemExit as stop:
        status = int(stop.code or 0)
    captured = capfd.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith(NOISE)]
    lines = [line for line in lines if not line.startswith("keras-l0: warning")]
    assert status == 2
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("keras-l0")
    return lines[0]


# What native code of the backends says on stderr when it starts in a process of ours: the
# program hushes it before it imports them, which a test that has imported them cannot.
NOISE = ("WARNING: All log", "I0000", "W0000", "E0000", "INFO: Created TensorFlow Lite")


def test_compress_leaves_a_model_a_file_and_a_report(
    model_file: Path, data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / "here"
    arguments = ["compress", str(model_file), "--data", str(data_file), "--compression", "2"]
    options = ["--score", "lamp", "--rewind", "0", "--out", str(out), *SMALL]
    assert cli.main([*arguments, *options]) == 0
    assert {path.name for path in out.iterdir()} == {"model.keras", "model.tflite", "report.json"}
    report = json.loads((out / "report.json").read_text())
    assert report["summary"]["compression"] >= 2
    assert report["settings"]["score"] == "lamp"
    assert report["settings"]["rewind"] == 0
    assert report["export"]["bytes"] == (out / "model.tflite").stat().st_size
    assert set(report["test_after"]) == {"accuracy", "loss"}
    model = keras.models.load_model(out / "model.keras")
    assert np.count_nonzero(model.layers[0].kernel.numpy() == 0) > 0
    assert "compression" in capsys.readouterr().out


@pytest.mark.slow
def test_search_finds_settings_that_compress_takes(
    model_file: Path, data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found"
    files = [str(model_file), "--data", str(data_file)]
    arguments = ["search", *files, "--bound", "val_accuracy=0.1", "--out", str(out)]
    arguments += ["--trials", "2", "--sep-trials", "1", "--compression", "1.2", "1.3"]
    arguments += ["--ramp", "1", "1", "--warmup", "1", "--finetune", "1", "--workers", "2"]
    assert cli.main(arguments) == 0
    assert {path.name for path in out.iterdir()} == {
        *("best.json", "search.json", "search.log", "search.png")
    }
    found = json.loads((out / "search.json").read_text())
    norm, sep = sorted({one["study"] for one in found["trials"]})
    assert norm == "norm"
    assert sep.startswith("sep from ")
    assert "holds val_accuracy=0.1" in capsys.readouterr().out
    layerwise = tmp_path / "layerwise.json"
    layerwise.write_text(json.dumps(found["trials"][-1]["settings"]))
    for file in (layerwise, out / "best.json"):
        settings = ["--settings", str(file), "--overwrite"]
        status = cli.main(["compress", *files, *settings, "--out", str(tmp_path / "small")])
        assert status == 0, capsys.readouterr().err
    report = json.loads((tmp_path / "small/report.json").read_text())
    best = json.loads((out / "best.json").read_text())
    assert report["settings"]["learning_rate"] == best["learning_rate"]
    assert report["summary"]["compression"] >= best["compression"]
    for option, value in (("--ramp", "3"), ("--score", "lamp"), ("--rewind", "0")):
        arguments = ["compress", *files, *settings, option, value, "--out", str(tmp_path / "small")]
        assert "beside --settings" in fails(arguments, capsys)


def test_compress_with_a_bound(model_file: Path, data_file: Path, tmp_path: Path) -> None:
    arguments = ["compress", str(model_file), "--data", str(data_file), "--fraction", "0.5"]
    assert (
        cli.main([*arguments, "--bound", "val_accuracy=0", "--out", str(tmp_path / "o"), *SMALL])
        == 0
    )
    report = json.loads((tmp_path / "o/report.json").read_text())
    assert report["settings"]["bound"] == {"val_accuracy": 0.0}
    assert report["summary"]["sparsity"] >= 0.5


def test_summary_tells_zeros_as_a_table_and_as_json(
    model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = keras.models.load_model(model_file)
    prune(model, 0.5)
    model.save(model_file)
    assert cli.main(["summary", str(model_file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["zeros"] == 56
    assert cli.main(["summary", str(model_file)]) == 0
    assert "50.00%" in capsys.readouterr().out


def test_export_writes_a_file_checked_on_the_data(
    model_file: Path, data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.tflite"
    arguments = ["export", str(model_file), str(out), "--check", str(data_file), "--json"]
    assert cli.main([*arguments, "--quantize", "float16"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bytes"] == out.stat().st_size
    assert report["quantize"] == "float16"


def test_export_takes_an_array_for_each_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [keras.Input((4,), name=name) for name in ("left", "right")]
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Concatenate()(inputs)))
    model.save(tmp_path / "two.keras")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", left=rng.normal(size=(9, 4)), right=rng.normal(size=(9, 4)))
    arguments = ["export", str(tmp_path / "two.keras"), str(tmp_path / "two.tflite"), "--json"]
    assert cli.main([*arguments, "--quantize", "int8", "--check", str(tmp_path / "x.npz")]) == 0
    assert json.loads(capsys.readouterr().out)["checked_samples"] == 9
    np.savez(tmp_path / "x.npz", left=rng.normal(size=(9, 4)))
    assert cli.main([*arguments, "--overwrite", "--check", str(tmp_path / "x.npz")]) == 2
    assert "an array for each input's name" in capsys.readouterr().err


def test_bench_of_a_file_that_does_not_run_fails(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.tflite"
    assert cli.main(["export", str(model_file), str(out)]) == 0
    assert cli.main(["bench", str(out), "--seconds", "0.1"]) == 0
    broken = tmp_path / "cut.tflite"
    broken.write_bytes(out.read_bytes()[:100])
    assert cli.main(["bench", str(out), str(broken), "--seconds", "0.1"]) == 2
    found = capsys.readouterr()
    assert "does not run" in found.out
    assert "Expected files that the runtime runs" in found.err


def test_a_folder_of_images_is_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 255, (6, 6, 3)).astype("uint8")
            keras.utils.save_img(tmp_path / "images" / name / f"{number}.png", pixels, scale=False)
    layers = [keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")]
    model = keras.Sequential(layers)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    arguments = ["compress", str(tmp_path / "model.keras"), "--data", str(tmp_path / "images")]
    out = tmp_path / "out"
    assert cli.main([*arguments, "--sparsity", "0.5", "--out", str(out), *SMALL]) == 0
    assert json.loads((out / "report.json").read_text())["summary"]["zeros"] == 108


def test_workers_and_machines_of_a_search_draw_by_seeds_of_their_own(
    model_file: Path, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Drawn(Exception):  # noqa: N818
        pass

    def draw(*_: object, seed: int, **__: object) -> None:
        raise Drawn(seed)

    monkeypatch.setattr(search, "search", draw)
    files = [str(model_file), "--data", str(data_file), "--out", str(tmp_path / "out")]
    seeds = []
    for seed in "0", "1":
        options = cli.parser().parse_args(
            ["search", *files, "--bound", "val_accuracy=0", "--seed", seed]
        )
        for worker in 0, 1:
            with pytest.raises(Drawn) as drawn:
                search._take_part(options, None, worker)
            seeds.append(drawn.value.args[0])
    assert len(set(seeds)) == 4


def test_prune_and_shrink_write_models_and_show_tables(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = keras.models.load_model(model_file)
    by_weight = str(tmp_path / "weights.keras")
    assert cli.main(["prune", str(model_file), by_weight, "--sparsity", "0.5"]) == 0
    assert "50.00%" in capsys.readouterr().out
    model = keras.models.load_model(by_weight)
    assert sum(np.count_nonzero(w == 0) for w in model.get_weights()[::2]) == 56
    assert model.compiled
    one = str(tmp_path / "one.keras")
    layer = ["--layers", given.layers[1].name, "--method", "layerwise"]
    assert cli.main(["prune", str(model_file), one, "--sparsity", "0.25", *layer]) == 0
    first, second = keras.models.load_model(one).get_weights()[::2]
    assert (np.count_nonzero(first == 0), np.count_nonzero(second == 0)) == (0, 12)
    by_channel, small = str(tmp_path / "channels.keras"), str(tmp_path / "small.keras")
    neurons = ["--method", "neuron", "--fraction", "0.25", "--score", "redundancy"]
    assert cli.main(["prune", str(model_file), by_channel, *neurons]) == 0
    capsys.readouterr()
    assert cli.main(["shrink", by_channel, small]) == 0
    assert keras.models.load_model(small).layers[0].units == 12
    said = capsys.readouterr().out
    assert "131" in said  # parameters of what was given
    assert f"{keras.models.load_model(small).count_params()}" in said
    for now, before in zip(
        keras.models.load_model(model_file).get_weights(), given.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(now, before)


def test_sweep_shows_a_table_json_and_a_plot(
    model_file: Path, data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "sweep.png"
    arguments = ["sweep", str(model_file), "--data", str(data_file), "--compressions", "1.5", "2"]
    assert cli.main([*arguments, "--by", "layer", "--plot", str(plot)]) == 0
    assert plot.stat().st_size > 1000
    table = capsys.readouterr().out
    assert "1.50x" in table
    assert max(map(len, table.splitlines())) <= 80
    assert cli.main([*arguments, "--json", "--score", "lamp"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [round(point["compression"], 1) for point in found["points"]] == [1.5, 2.0]


def test_explain_takes_a_model_and_a_file(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["explain", str(model_file)]) == 0
    first = capsys.readouterr().out
    assert first.count("fully connected") == 2
    assert cli.main(["export", str(model_file), str(tmp_path / "m.tflite")]) == 0
    capsys.readouterr()
    assert cli.main(["explain", str(tmp_path / "m.tflite")]) == 0
    assert capsys.readouterr().out.count("fully connected") == 2


def test_compress_removes_neurons_and_says_when_it_is_finished(
    model_file: Path,
    data_file: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    arguments = ["compress", str(model_file), "--data", str(data_file), "--out", str(out), *SMALL]
    neurons = ["--method", "neuron", "--flops", "0.5"]
    assert cli.main([*arguments, *neurons]) == 0
    assert keras.models.load_model(out / "model.keras").layers[0].units == 8
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert "Give --overwrite to replace what exists" in fails([*arguments, *neurons], capfd)
    assert cli.main([*arguments, *neurons, "--resume"]) == 0
    assert "the run is finished, there is nothing to resume" in capfd.readouterr().out
    other = ["--method", "neuron", "--flops", "0.25", "--resume"]
    assert "The finished run there has flops=0.5, this one 0.25" in fails(
        [*arguments, *other], capfd
    )
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


OWN = """
import keras
from keras import ops

{register}
class Doubled(keras.layers.Layer):
    def call(self, x):
        return x * 2

{register}
def halves(y, found):
    return ops.mean(keras.losses.sparse_categorical_crossentropy(y, found)) / 2
"""


def forget(module: str) -> None:
    """As in a process that has not imported the module."""
    sys.modules.pop(module)
    known = keras.saving.get_custom_objects()
    for name in [name for name in known if name.startswith("own>")]:
        known.pop(name)


@pytest.mark.parametrize("register", ["", "@keras.saving.register_keras_serializable('own')"])
@pytest.mark.parametrize("by", ["module", "file"])
def test_custom_classes_are_named_and_found_by_import(
    register: str,
    by: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"own_{by}_{bool(register)}"
    Path(f"{name}.py").write_text(OWN.format(register=register))
    given = name if by == "module" else f"{name}.py"
    own = imports.own_objects([given])
    model = keras.Sequential([keras.Input((4,)), own["Doubled"](), keras.layers.Dense(3)])
    model.compile("adam", own["halves"])
    model.optimizer.build(model.trainable_variables)
    model.save("model.keras")
    forget(name)
    message = fails(["summary", "model.keras"], capfd)
    assert "It uses '" in message
    assert "Doubled'" in message
    assert "--import MODULE" in message
    assert len(message) < 600
    assert cli.main(["summary", "model.keras", "--import", given]) == 0
    forget(name)
    assert (
        cli.main(["prune", "model.keras", "o.keras", "--sparsity", "0.5", "--import", given]) == 0
    )
    forget(name)


class Strange(keras.regularizers.Regularizer):
    """Of the user's own, and not registered."""

    def __call__(self, x: object) -> float:
        return 0.0

    def get_config(self) -> dict[str, object]:
        return {}


def strange(x: object) -> object:
    return x


@pytest.mark.parametrize("use", ["kernel_regularizer", "activation"])
def test_other_custom_objects_are_named_too(
    use: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = {use: strange if use == "activation" else Strange()}
    path = tmp_path / "m.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, **own)]).save(path)
    message = fails(["export", str(path), str(tmp_path / "m.tflite")], capfd)
    assert f"It uses '{'strange' if use == 'activation' else 'Strange'}'" in message
    assert cli.main(["summary", str(path), "--import", __file__]) == 0, capfd.readouterr().err


def test_what_cannot_be_imported_is_named(
    model_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_module_anywhere")
    for name in ("no_such_module_anywhere", str(broken), str(tmp_path / "none.py")):
        message = fails(["summary", str(model_file), "--import", name], capfd)
        assert "argument `import`. Expected a module that can be imported" in message
        assert name in message


def test_a_module_may_have_objects_and_dataclasses_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own_objects.py").write_text(
        "from __future__ import annotations\n"
        "import dataclasses, keras\n"
        "@dataclasses.dataclass\n"
        "class Settings:\n"
        "    rate: float = 0.1\n"
        "class Layer(keras.layers.Layer): pass\n"
        "layer = Layer()\n"
        "settings = Settings()\n"
    )
    assert set(imports.own_objects(["own_objects.py"])) == {"Settings", "Layer"}
    assert imports.own_objects(["own_objects.py"])["Layer"] is sys.modules["own_objects"].Layer
    forget("own_objects")
    Path("json.py").write_text("")
    with pytest.raises(ValueError, match=r"another module is called json: rename the file"):
        imports.own_objects(["json.py"])
    Path("own_broken.py").write_text("raise RuntimeError('no')")
    with pytest.raises(ValueError, match="RuntimeError: no"):
        imports.own_objects(["own_broken.py"])
    assert "own_broken" not in sys.modules


@pytest.fixture
def pixels(tmp_path: Path) -> Path:
    """Images of 8 bits whose class is their brightness."""
    y = np.arange(200) % 2
    x = np.random.default_rng(0).integers(0, 100, (200, 4)) + 155 * y[:, None]
    np.savez(tmp_path / "pixels.npz", x_train=x.astype(np.uint8), y_train=y)
    return tmp_path / "pixels.npz"


def by_brightness(low: float, high: float, *layers: keras.Layer) -> keras.Model:
    """Tells two classes apart by whether inputs are above the middle of a range."""
    middle = (low + high) / 2
    last = keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((4,)), *layers, last])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(True), metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    last.set_weights([np.array([[0.0, 1.0]] * 4), np.array([4 * middle, 0.0])])
    return model


SCALED = {
    "0 to 1": (by_brightness, (0, 1), [], []),
    "-1 to 1": (by_brightness, (-1, 1), [], ["--pixel-range", "-1", "1"]),
    "raw": (by_brightness, (0, 255), [], ["--raw"]),
    "0 to 255": (by_brightness, (0, 255), [], ["--pixel-range", "0", "255"]),
    "Rescaling to 0 to 1": (by_brightness, (0, 1), [(1 / 255, 0)], []),
    "Rescaling to -1 to 1": (by_brightness, (-1, 1), [(1 / 127.5, -1)], []),
    "Rescaling of 0 to 1": (by_brightness, (-1, 1), [(2, -1)], []),
}


@pytest.mark.parametrize("case", SCALED)
def test_pixels_are_scaled_as_the_model_takes_them(
    case: str, pixels: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build, (low, high), scales, options = SCALED[case]
    model = build(low, high, *(keras.layers.Rescaling(*scale) for scale in scales))
    model.save(tmp_path / "m.keras")
    call = ["sweep", str(tmp_path / "m.keras"), "--data", str(pixels), "--compressions", "1"]
    assert cli.main([*call, "--json", *options]) == 0
    said = capfd.readouterr()
    assert json.loads(said.out)["baseline"]["accuracy"] == 1.0
    assert "no better than chance" not in said.err


def test_a_rescaling_in_a_nested_model_counts_and_one_behind_weights_does_not(
    pixels: Path,
) -> None:
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Rescaling(1 / 255)])
    behind = [keras.layers.Dense(4, trainable=False), keras.layers.Rescaling(1 / 255)]
    for layers, expected in (([inner], 255.0), (behind, 1.0), ([], 1.0)):
        model = by_brightness(0, 1, *layers)
        data = load_data(str(pixels), model, None, raw=False)
        assert data.maximum == expected
        assert data.x_train.max() <= expected
        assert data.x_train.dtype == np.float32


def test_a_pixel_range_of_floats_or_upside_down_is_refused(
    model_file: Path, data_file: Path, pixels: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    call = ["sweep", str(model_file), "--compressions", "2", "--data"]
    message = fails([*call, str(data_file), "--pixel-range", "-1", "1"], capfd)
    assert "floating examples, which are taken as they are" in message
    message = fails([*call, str(pixels), "--pixel-range", "1", "-1"], capfd)
    assert "two finite numbers, LOW < HIGH" in message


@pytest.mark.parametrize("wrong", ["pixel range", "labels", "dead"])
def test_a_model_no_better_than_chance_is_warned_of(
    wrong: str, pixels: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = by_brightness(0, 255 if wrong == "pixel range" else 1)
    if wrong == "labels":
        model.layers[-1].set_weights([np.array([[1.0, 0.0]] * 4), np.array([0.0, 2.0])])
    if wrong == "dead":
        model.layers[-1].set_weights([np.zeros((4, 2)), np.array([0.0, 1.0])])
    model.save(tmp_path / "m.keras")
    call = ["sweep", str(tmp_path / "m.keras"), "--data", str(pixels), "--compressions", "1"]
    assert cli.main([*call, "--json"]) == 0
    said = capfd.readouterr()
    json.loads(said.out)
    assert "keras-l0: warning: the given model is no better than chance on pixels" in said.err
    assert "--pixel-range" in said.err


def test_nothing_is_said_of_a_model_whose_outputs_are_no_classes(
    capfd: pytest.CaptureFixture[str],
) -> None:
    labels = np.arange(20) % 4
    data = datasets.Dataset("d", np.zeros((20, 4)), labels, np.zeros((20, 4)), labels, 4, 1.0)
    inputs = keras.Input((4,))
    dense = keras.layers.Dense
    one, few = (keras.Sequential([keras.Input((4,)), dense(units)]) for units in (1, 3))
    several = keras.Model(inputs, [dense(4)(inputs), dense(4)(inputs)])
    places = keras.Sequential([keras.Input((4,)), keras.layers.Reshape((2, 2)), dense(4)])
    for model in (one, few, several, places):
        warn_of_chance(model, data)
    assert "warning: the given" not in capfd.readouterr().err


@pytest.mark.usefixtures("data_file")
def test_nothing_is_overwritten_without_being_told_to(
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(model_file.parent)
    folder = Path("made")
    folder.mkdir()
    names = "m.keras m.tflite m.png best.json search.json model.tflite report.json".split()
    for name in names:
        (folder / name).write_text("older")
    (folder / "candidates").mkdir()
    (folder / "candidates" / "float32-dense.tflite").write_text("older")
    names.append("candidates/float32-dense.tflite")
    model, data = "model.keras", ["--data", "data.npz"]
    commands = [
        ["prune", model, "made/m.keras", "--sparsity", "0.5"],
        ["prune", model, model, "--sparsity", "0.5"],
        ["shrink", model, "made/m.keras"],
        ["sweep", model, *data, "--compressions", "2", "--plot", "made/m.png"],
        ["export", model, "made/m.tflite"],
        ["export", model, "made/n.tflite", "--keep-candidates", "made/candidates"],
        ["search", model, *data, "--bound", "val_accuracy=0", "--out", "made"],
        ["compress", model, *data, "--sparsity", "0.5", "--out", "made"],
        ["demo", "--out", "made"],
    ]
    before = model_file.read_bytes()
    for arguments in commands:
        message = fails(arguments, capfd)
        assert "Expected files that do not exist yet" in message
        assert "--overwrite" in message
    assert all((folder / name).read_text() == "older" for name in names)
    assert model_file.read_bytes() == before
    assert {path.name for path in folder.iterdir()} == {*names[:-1], "candidates"}
    for arguments in commands[:5]:
        assert cli.main([*arguments, "--overwrite"]) == 0, capfd.readouterr().err
    assert all((folder / name).stat().st_size > 5 for name in names[:3])
    assert model_file.read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune", "model.keras", "out.h5", "--sparsity", "0.5"], "a path that ends in .keras"),
        (["prune", "model.keras", "o.keras", "--sparsity", "0.5", "--method", "neuron"], "None"),
        (["prune", "model.keras", "o.keras", "--flops", "0.5"], 'nothing without method="neuron"'),
        (["prune", "model.keras", "no/o.keras", "--sparsity", "0.5"], "Make no first"),
        (["explain", "none.tflite"], "`MODEL`. Expected an existing file"),
        (["summary", "none.keras"], "argument `MODEL`. Expected an existing file"),
        (["summary", "broken.keras"], "argument `MODEL`. Expected a whole .keras file"),
        (["compress", "model.keras"], "the following arguments are required"),
        (["export", "model.keras", "m.tflite", "--quantize", "int8"], "DATA with --quantize int8"),
        (["export", "model.keras", "m.tflite", "--timings", "none"], "`timings`. Expected a file"),
        (
            "search model.keras --data digits --bound a=1 --out out --seed -1".split(),
            "`seed`. Expected an integer >= 0",
        ),
        (["bench", "none.tflite"], "`paths`. Expected an existing .tflite file"),
        (["bench", "broken.keras"], "It is no TFLite flatbuffer"),
    ],
)
def test_an_error_is_one_line_and_status_2(
    arguments: list[str],
    message: str,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(model_file.parent)
    whole = model_file.read_bytes()
    Path("broken.keras").write_bytes(whole[: len(whole) // 2])
    assert message in fails(arguments, capfd)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--compression", "0.5"],
            "`compression`. Expected a finite float >= 1. Received: compression=0.5",
        ),
        (["--sparsity", "1"], "`sparsity`. Expected a float in [0, 1). Received: sparsity=1.0"),
        (["--compression", "1000"], "the largest reachable"),
        (["--bound", "high"], "--bound: expected METRIC=VALUE, as val_accuracy=0.98, not high"),
        (["--bound", "val_auc=0.5"], "a metric that is in the logs"),
        (
            ["--sparsity", "0.5", "--l0", "-1"],
            "`l0`. Expected a finite float >= 0. Received: l0=-1.0",
        ),
        (["--sparsity", "0.5", "--ramp", "-1"], "`ramp`"),
        (["--sparsity", "0.5", "--holdout", "2"], "`holdout`"),
        (["--sparsity", "0.5", "--data", "none.npz"], "`path`. Expected an existing .npz file"),
        (["--sparsity", "0.5", "--data", "partial.npz"], "Missing: y_train"),
        (["--sparsity", "0.5", "--data", "cut.npz"], "Expected a whole .npz file"),
        (
            ["--sparsity", "0.5", "--out", "model.keras"],
            "`out`. Expected a folder that can be written",
        ),
    ],
)
def test_bad_input_to_compress_leaves_nothing_behind(
    options: list[str],
    message: str,
    model_file: Path,
    data_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(model_file.parent)
    np.savez("partial.npz", x_train=np.zeros((4, 4)))
    Path("cut.npz").write_bytes(data_file.read_bytes()[:200])
    before = model_file.read_bytes()
    arguments = ["compress", "model.keras", "--data", "data.npz", "--out", "out"]
    assert message in fails([*arguments, *options], capfd)
    assert model_file.read_bytes() == before
    assert not Path("out").exists() or not list(Path("out").iterdir())


def test_a_model_not_compiled_is_refused(
    data_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plain.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save(path)
    arguments = ["compress", str(path), "--data", str(data_file), "--sparsity", "0.5"]
    assert "Expected a compiled model" in fails([*arguments, "--out", str(tmp_path / "o")], capfd)


def test_a_failed_export_keeps_the_older_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "line.keras")
    out = tmp_path / "older.tflite"
    out.write_bytes(b"older")
    given = str(tmp_path / "line.keras")
    arguments = ["export", given, str(out), "--quantize", "float16", "--overwrite"]
    assert "tolerance" in fails([*arguments, "--tolerance", "1e-30"], capfd)
    assert out.read_bytes() == b"older"


def test_a_model_with_code_in_it_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lambda.keras"
    layers = [keras.Input((4,)), keras.layers.Lambda(lambda x: x + 1), keras.layers.Dense(2)]
    keras.Sequential(layers).save(path)
    assert "safe_mode" in fails(["summary", str(path)], capfd)


def run_installed(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The program as it is installed, in a process of its own."""
    program = Path(sys.executable).with_name("keras-l0")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_a_command_that_cannot_be_read_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "keras_l0.commands.summary", None)
    assert "keras_l0.commands.summary" in fails(["summary", "some.keras"], capfd)


def test_the_program_says_nothing_on_stderr_but_its_error() -> None:
    done = run_installed("summary", "none.keras")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_the_program_says_nothing_on_stderr_when_all_is_well(model_file: Path) -> None:
    done = run_installed("summary", str(model_file))
    assert (done.returncode, done.stderr) == (0, "")
    assert "weight compression" in done.stdout
