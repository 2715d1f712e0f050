"""What zeros bring, layer by layer."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

pytest.importorskip("tensorflow", reason="exporting needs TensorFlow")
pytest.importorskip("ai_edge_litert", reason="exporting needs LiteRT")

from keras_l0 import explain_sparsity, export_tflite, prune

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow",
    reason="what it covers does not depend on the backend, and each conversion off "
    "TensorFlow starts a process of 10 s",
)


def test_each_kind_of_layer_has_its_line(tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.ZeroPadding2D(1),
            layers.Conv2D(32, 3, strides=2, name="entry"),
            layers.Conv2D(64, 1, name="point"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(200, name="wide"),
            layers.Dense(3, name="top"),
        ]
    )
    prune(model, 0.9, layers=["point", "entry"], method="layerwise")
    prune(model, 0.99, layers="wide")
    report = explain_sparsity(model)
    entry, point, wide, top = report.layers
    assert [one.layer for one in report.layers] == [
        "convolution",
        "convolution",
        "fully connected",
        "fully connected",
    ]
    assert ["entry" in entry.name, "point" in point.name, "wide" in wide.name] == [True] * 3
    assert entry.faster == "no"
    assert point.faster == "ARM"
    assert "made dense when loaded" in wide.reason
    assert top.reason == "no zeros"
    assert [one.smaller for one in report.layers] == [True, True, True, False]
    assert wide.sparsity == pytest.approx(0.99, abs=1e-4)
    assert len(str(report).splitlines()) == 4
    path = tmp_path / "m.tflite"
    export_tflite(model, path, shrink=False)
    assert explain_sparsity(path) == report
    export_tflite(model, path, optimize_for="latency", shrink=False)
    assert explain_sparsity(path).layers[2].faster == "yes"


def test_what_stands_in_the_way_is_told() -> None:
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2)(layers.ZeroPadding2D(1)(inputs))
    x = layers.MaxPooling2D()(layers.Conv2D(64, 1, name="point")(x))
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    model.get_layer("point").kernel.assign(np.zeros((1, 1, 8, 64)))
    (point,) = (one for one in explain_sparsity(model).layers if "point" in one.name)
    assert point.faster == "no"
    assert "MAX_POOL_2D cannot be part of it" in point.reason


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64)])
    path = tmp_path / "m.tflite"
    export_tflite(model, path)
    content = path.read_bytes()
    for length in (8, 9, 100, len(content) // 2):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="The file is damaged or no such"):
            explain_sparsity(path)


@pytest.mark.parametrize("what", [3, "none.tflite", "9" * 500, __file__])
def test_something_else_is_refused(what: object) -> None:
    with pytest.raises(ValueError, match=r"a built Keras model or a \.tflite file"):
        explain_sparsity(what)  # type: ignore[arg-type]
