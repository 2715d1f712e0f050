"""What an export compares on, by which rule, and what its report says of it."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

pytest.importorskip("tensorflow", reason="exporting needs TensorFlow")
pytest.importorskip("ai_edge_litert", reason="exporting needs LiteRT")
if keras.config.backend() != "tensorflow":
    pytest.skip("what it covers does not depend on the backend", allow_module_level=True)

from keras_l0 import prune
from keras_l0.export import runner, sparse
from keras_l0.export.bench import Bench, Timing
from keras_l0.export.figures import CandidateFigures, ExportReport
from keras_l0.export.tflite import export_tflite

X = np.random.default_rng(0).random((64, 12)).astype(np.float32)


def regression(scale: float = 1.0, offset: float = 0.0) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((12,)), layers.Dense(32, "relu"), layers.Dense(2)])
    model.layers[0].kernel.assign(model.layers[0].kernel / scale)
    model.layers[0].bias.assign(-keras.ops.sum(model.layers[0].kernel, axis=0) * offset)
    return model


def classifier(units: int = 40) -> keras.Model:
    """Sure of its classes on inputs of [0, 1]."""
    keras.utils.set_random_seed(0)
    hidden = layers.Dense(
        units, "relu", kernel_initializer=keras.initializers.RandomNormal(stddev=3)
    )
    return keras.Sequential([keras.Input((12,)), hidden, layers.Dense(4, "softmax")])


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e3, 5e3), (1e-2, -1e-2)])
def test_calibration_samples_are_compared_on_without_check_data(
    scale: float, offset: float, tmp_path: Path
) -> None:
    """Where int8 was calibrated, and nowhere else, an int8 file is right."""
    x = X * scale + offset
    report = export_tflite(
        regression(scale, offset), tmp_path / "m.tflite", quantize="int8", calibration=x
    )
    assert report.compared_on == "64 samples of `calibration`"
    assert report.checked_samples == 64
    assert report.deviation < 0.05
    assert report.notes == ()


@pytest.mark.parametrize("build", [regression, classifier])
def test_auto_takes_what_a_named_kind_takes(build: Any, tmp_path: Path) -> None:
    how: dict[str, Any] = {"calibration": X, "check_data": X[:32]}
    kinds: dict[str, ExportReport] = {}
    for kind in (None, "float16", "dynamic", "int8"):
        kinds[kind or "float32"] = export_tflite(
            build(), tmp_path / "m.tflite", quantize=kind, **how
        )
    auto = export_tflite(build(), tmp_path / "m.tflite", quantize="auto", **how)
    assert auto.bytes == min(one.bytes for one in kinds.values())
    assert not [one for one in auto.candidates if one.refusal]
    assert auto.compared_on == "32 samples of `check_data`"
    assert auto.tolerance == kinds[auto.kind].tolerance
    assert (auto.disagreement is None) == (build is regression)


def test_a_sparse_file_of_wrong_weights_is_refused_for_a_classifier_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it names the same classes."""

    def wrong(encode: Any, array: Any) -> Any:
        return encode(np.where(array != 0, array * np.float32(1.01), array).astype(array.dtype))

    model = classifier(units=400)
    prune(model, 0.8, method="layerwise")
    kernel = model.layers[-1].kernel
    kernel.assign(0.02 * kernel)  # or all probabilities would be 0 and 1, and no weight matter
    for name in ("encode", "encode_rows"):
        monkeypatch.setattr(sparse, name, partial(wrong, getattr(sparse, name)))
    report = export_tflite(model, tmp_path / "m.tflite", check_data=X, shrink=False)
    (refused,) = (one for one in report.candidates if one.refusal)
    assert refused.name == "float32-sparse"
    assert refused.disagreement is not None
    assert refused.disagreement <= 1 / 64
    assert "deviate from the dense file's" in refused.refusal
    assert report.chosen == "float32-dense"


def test_all_latencies_are_of_the_same_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the dense float32 file of the model as given among them."""
    seen: list[Any] = []
    from keras_l0.export import best

    judge = best.judge
    monkeypatch.setattr(best, "judge", lambda *a: seen.append(a[1]) or judge(*a))
    model = classifier()
    report = export_tflite(model, tmp_path / "m.tflite", quantize="float16", check_data=X)
    measured = seen[0]
    assert set(measured) == {one.name for one in report.candidates} | {"reference"}
    ours, theirs = measured[report.chosen].turns, measured["reference"].turns
    ratios = np.array(ours) / np.array(theirs)
    assert report.float32_latency_ratio == pytest.approx(np.median(ratios))
    assert report.latency_ms == pytest.approx(np.median(ours))
    assert report.dense_float32_latency_ms == pytest.approx(np.median(theirs))
    low, high = report.float32_latency_ratio_quartiles
    assert ratios.min() <= low <= report.float32_latency_ratio <= high <= ratios.max()
    whole = export_tflite(model, tmp_path / "w.tflite", check_data=X, shrink=False)
    assert report.dense_float32_bytes == whole.dense_bytes == whole.dense_float32_bytes
    assert whole.float32_latency_ratio == whole.latency_ratio


def test_a_device_that_gives_another_class_refuses_a_file(tmp_path: Path) -> None:
    model, folder, out = classifier(), tmp_path / "kept", tmp_path / "device.json"
    how: dict[str, Any] = {"check_data": X, "shrink": False}
    export_tflite(model, tmp_path / "m.tflite", keep_candidates=folder, **how)
    found = runner.measure(folder, seconds=0.05)
    file = found["files"]["float32-dense"]
    right = file["classes"]
    assert len(right) == 16
    for changed, refusal in ((1, None), (2, "another class for 12.50%")):
        file["classes"] = [(c + 1) % 4 if i < changed else c for i, c in enumerate(right)]
        out.write_text(json.dumps(found))
        if refusal is None:
            export_tflite(model, tmp_path / "m.tflite", timings=out, **how)
        else:
            with pytest.raises(RuntimeError, match=refusal):
                export_tflite(model, tmp_path / "m.tflite", timings=out, **how)
    del file["classes"]
    out.write_text(json.dumps(found))
    with pytest.raises(RuntimeError, match="measure it again"):
        export_tflite(model, tmp_path / "m.tflite", timings=out, **how)


def figures(name: str) -> CandidateFigures:
    kind = "int8" if "int8" in name else "dynamic"
    size = 123_456_789
    return CandidateFigures(name, kind, size, size, 1234.5678, 1.2e10, size, 1.2e-7, 0.1234, "")


REPORT = ExportReport(
    path="m.tflite",
    quantize="auto",
    optimize_for="latency",
    target="arm",
    chosen_by="instructions estimated for ARM",
    chosen="gathered-dynamic-per-tensor-fast-arm",
    candidates=tuple(
        map(figures, ["gathered-dynamic-per-tensor-fast-arm", "shrunk-int8-sparse", "int8-dense"])
    ),
    bytes=123_456_789,
    gzip_bytes=123_456_789,
    parameters=123_456_789,
    dense_parameters=123_456_789,
    dense_bytes=123_456_789,
    dense_gzip_bytes=123_456_789,
    dense_float32_bytes=1_123_456_789,
    dense_float32_gzip_bytes=1_123_456_789,
    latency_ms=1234.5678,
    dense_latency_ms=1234.5678,
    dense_float32_latency_ms=1234.5678,
    latency_ratio=0.987,
    latency_ratio_quartiles=(0.95, 1.01),
    float32_latency_ratio=12.345,
    float32_latency_ratio_quartiles=(12.2, 12.9),
    deviation=1.2e-5,
    disagreement=0.0123,
    tolerance=0.0156,
    checked_samples=64,
    compared_on="64 samples of `check_data`",
    sparse=(),
    notes=(),
    versions={},
    processor="a processor",
)


def test_reports_fit_80_columns_and_name_what_was_compared() -> None:
    text = str(REPORT)
    assert max(map(len, text.splitlines())) <= 80
    assert "dense float32" in text
    assert "dense dynamic" in text
    assert "12.20 to 12.90" in text
    assert "compared on 64 samples of `check_data`\nanother class for 1.23% of" in text
    other = str(replace(REPORT, disagreement=None, dense_float32_bytes=None))
    assert "deviation 1.2e-05 of at most 0.016" in other
    assert json.loads(json.dumps(REPORT.to_dict())) == REPORT.to_dict()


def test_a_bench_of_long_paths_fits_80_columns() -> None:
    folder = "/a/very/long/path/of/a/folder/that/nobody/wants/to/read/in/a/table"
    names = ["mobilenet_v3_small_pruned_and_shrunk.tflite", "other.tflite"]
    timings = tuple(
        Timing(f"{folder}/{name}", 123_456_789, "", 1234.56, (1200.12, 1300.45), 0.98, 2**30)
        for name in names
    )
    lines = str(Bench(timings, 1, "a processor")).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("other.tflite" in line for line in lines)
    assert len(str(Bench(timings[:1], 1, "a processor")).splitlines()) > 4
