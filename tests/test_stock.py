"""Where TensorFlow's own converter goes wrong on zeros, and what is exported here does not."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

pytest.importorskip("tensorflow", reason="exporting needs TensorFlow")
pytest.importorskip("ai_edge_litert", reason="exporting needs LiteRT")
if keras.config.backend() != "tensorflow":
    pytest.skip("what it covers does not depend on the backend", allow_module_level=True)

from stock import runnable, samples_of, stock_file

from keras_l0 import export_tflite
from keras_l0.experiments.networks import lenet_300_100
from keras_l0.export.check import Measured, measure

X = np.random.default_rng(1).normal(size=(20, 256)).astype(np.float32)


def fully_connected() -> keras.Model:
    return keras.Sequential(
        [keras.Input((256,)), layers.Dense(128, activation="relu"), layers.Dense(10)]
    )


def with_zeros(model: keras.Model, sparsity: float, block: int = 1) -> keras.Model:
    """With kernels of random weights, their zeros in blocks along the inputs."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        inputs, outputs = layer.kernel.shape
        kept = rng.random((inputs // block, outputs)) >= sparsity
        kernel = rng.normal(size=(inputs, outputs)) / inputs**0.5
        layer.kernel.assign(kernel * np.repeat(kept, block, axis=0))
        layer.bias.assign(rng.normal(size=outputs) * 0.1)
    return model


def files(kind: str, model: keras.Model, path: Path) -> dict[str, bytes]:
    """The converter's dense and sparse file, and ours."""
    x = np.resize(X, (20, *model.input_shape[1:]))
    found = {
        "dense": stock_file(model, kind, sparse=False, calibration=x),
        "sparse": stock_file(model, kind, sparse=True, calibration=x),
    }
    export_tflite(
        model,
        path,
        quantize=None if kind == "float32" else kind,
        calibration=x if kind == "int8" else None,
        check_data=x,
    )
    found["ours"] = path.read_bytes()
    assert all(isinstance(content, bytes) for content in found.values()), found
    return found


def run(found: dict[str, bytes], model: keras.Model) -> dict[str, Measured]:
    x = np.resize(X, (20, *model.input_shape[1:]))
    return measure({name: runnable(file) for name, file in found.items()}, samples_of(model, x))


@pytest.mark.parametrize(
    ("kind", "block", "wrong"),
    [
        ("float16", 4, "deviates"),
        ("dynamic", 1, "fails"),
        ("dynamic", 16, "deviates"),
        ("int8", 1, "fails"),
    ],
    ids=["float16 blocks: NaN", "int8 weights", "int8 weights in blocks", "int8"],
)
def test_a_sparse_file_that_the_converter_breaks_is_right_here(
    kind: str, block: int, wrong: str, tmp_path: Path
) -> None:
    model = with_zeros(fully_connected(), 0.9, block)
    found = files(kind, model, tmp_path / "m.tflite")
    seen = run(found, model)
    assert seen["dense"].deviation < 0.1, "the test's own network does not convert"
    assert len(found["sparse"]) < len(found["dense"])
    if wrong == "fails":
        assert seen["sparse"].fault
    else:
        assert not seen["sparse"].fault
        assert seen["sparse"].deviation > 0.5
    assert seen["ours"].fault == ""
    assert seen["ours"].deviation < (0.01 if kind == "float16" else 0.1)
    assert len(found["ours"]) < len(found["dense"]) / 1.5


def test_int8_files_that_the_converter_makes_grow_do_not_grow_here(tmp_path: Path) -> None:
    """It writes a constant sparse from 30 % zeros on, which in int8 is too early."""
    model = with_zeros(fully_connected(), 0.4)
    found = files("int8", model, tmp_path / "m.tflite")
    assert len(found["sparse"]) > len(found["dense"])
    assert len(found["ours"]) <= len(found["dense"])


def test_a_float32_file_is_not_twice_as_large_as_it_need_be(tmp_path: Path) -> None:
    """At 98 % single zeros the converter takes blocks, and stores mostly zeros in them."""
    model = with_zeros(lenet_300_100(), 1 - 1 / 96)
    found = files("float32", model, tmp_path / "m.tflite")
    seen = run(found, model)
    assert seen["sparse"].deviation < 1e-3
    assert seen["ours"].deviation < 1e-3
    assert len(found["sparse"]) > 2 * len(found["ours"])
