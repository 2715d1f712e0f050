"""Files timed against each other."""

from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

pytest.importorskip("tensorflow", reason="exporting needs TensorFlow")
pytest.importorskip("ai_edge_litert", reason="exporting needs LiteRT")

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
