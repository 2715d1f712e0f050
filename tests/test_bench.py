"""Files timed against each other."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

pytest.importorskip("tensorflow", reason="exporting needs TensorFlow")
pytest.importorskip("ai_edge_litert", reason="exporting needs LiteRT")

from keras_l0.export import runner
from keras_l0.export.bench import bench
from keras_l0.export.tflite import export_tflite


def test_a_larger_network_takes_longer_and_a_broken_file_says_why(tmp_path: Path) -> None:
    for name, units in (("small", 10), ("large", 4000)):
        model = keras.Sequential([keras.Input((400,)), layers.Dense(units)])
        export_tflite(model, tmp_path / f"{name}.tflite")
    broken = tmp_path / "broken.tflite"
    broken.write_bytes((tmp_path / "small.tflite").read_bytes()[:40])
    files = [tmp_path / "small.tflite", tmp_path / "large.tflite", broken]
    found = bench(files, seconds=0.3)
    small, large, wrong = found.timings
    assert small.ratio == 1
    assert large.ratio > 2
    assert large.quartiles_ms[0] <= large.latency_ms <= large.quartiles_ms[1]
    assert wrong.fault
    assert str(broken) in str(found)
    assert "does not run" in str(found)
    assert found.processor in str(found)


BREAKS = """
import json, os, pathlib, sys
sys.path.append(sys.argv[2])  # at the end: other modules beside it have names that others have
import runner
timed = runner._time
def breaks(paths, *arguments):
    if any(path.stem == "b" for path in paths):
        os._exit(7)
    return timed(paths, *arguments)
runner._time = breaks
print(json.dumps(runner.measure(pathlib.Path(sys.argv[1]), seconds=0.05)["files"]))
"""


def test_a_file_that_breaks_the_process_of_all_takes_no_other_with_it(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    for name in "abc":
        export_tflite(model, tmp_path / f"{name}.tflite")
    # A process of its own, since the runner forks.
    command = [sys.executable, "-c", BREAKS, str(tmp_path), str(Path(runner.__file__).parent)]
    told = subprocess.run(command, capture_output=True, check=True).stdout
    files = json.loads(told.splitlines()[-1])
    assert files["b"]["fault"] == "the interpreter crashed (exit status 7)"
    assert files["a"]["latency_ms"] > 0
    assert len(files["a"]["turns"]) == len(files["c"]["turns"]) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"paths": []}, "Expected one file or more"),
        ({"paths": ["none.tflite"]}, "Expected an existing .tflite file"),
        ({"paths": [__file__]}, "It is no TFLite flatbuffer"),
        ({"paths": [__file__], "threads": 0}, "Expected an integer >= 1"),
        ({"paths": [__file__], "seconds": 0}, "Expected a positive number"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bench(**arguments)


def test_paths_of_both_kinds_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    export_tflite(model, "here.tflite")
    (tmp_path / "there").mkdir()
    export_tflite(model, tmp_path / "there" / "other.tflite")
    found = str(bench([Path("here.tflite"), tmp_path / "there" / "other.tflite"], seconds=0.05))
    assert "here.tflite" in found
    assert "there/" in found
    assert "other.tflite" in found
