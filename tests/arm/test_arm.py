"""What is exported is right on a phone's processor too, and faster where that is claimed."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

pytest.importorskip("tensorflow", reason="exporting needs TensorFlow")
pytest.importorskip("ai_edge_litert", reason="exporting needs LiteRT")
if keras.config.backend() != "tensorflow":
    pytest.skip("what it covers does not depend on the backend", allow_module_level=True)

from operators import PAIRS, forms_taken, in_form, one_operator_file, samples, tolerance

from arm.emulation import OnArm
from arm.models import (
    NETWORKS,
    ONE_LAYER,
    Build,
    behind_an_entry,
    classifier,
    depthwise,
    fully_connected_in_blocks,
    mean,
    mobile,
    point,
    telling,
    with_a_second_output,
)
from keras_l0 import export_tflite
from keras_l0.export.figures import ExportReport
from keras_l0.export.sparse import sparse_file

pytestmark = pytest.mark.arm

OnArmRun = Callable[..., OnArm]


def exported(
    model: keras.Model, folder: Path, kind: str | None = None, shrink: bool = False
) -> ExportReport:
    """Exports with all candidates kept in the folder, beside what they are to compute.

    For latency, for which there are those of the other objectives too.
    """
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20, *model.input_shape[1:])).astype(np.float32)
    return export_tflite(
        model,
        folder / "exported.tflite",
        quantize=kind,
        optimize_for="latency",
        calibration=x if kind == "int8" else None,
        check_data=x[:3],
        shrink=shrink,
        keep_candidates=folder,
    )


KINDS = (None, "float16", "dynamic", "int8")
# What int8 cannot be of a loop, it is of an unrolled one.
LOOPED = {("LSTM", "int8"), *(("LSTM, unrolled", kind) for kind in KINDS[:3])}


@pytest.mark.parametrize(
    ("network", "kind"), [pair for pair in product(NETWORKS, KINDS) if pair not in LOOPED]
)
def test_all_that_may_be_exported_is_right(
    network: str, kind: str | None, tmp_path: Path, on_arm: OnArmRun
) -> None:
    """What any objective may choose, with the default delegate and without."""
    report = exported(NETWORKS[network](), tmp_path, kind)
    with np.load(tmp_path / "samples.npz") as arrays:
        for name in [name for name in arrays if name.startswith("output:")]:
            spread = np.ptp(arrays[name], axis=0).max() / np.abs(arrays[name]).max()
            assert spread > report.tolerance, "all inputs have nearly the same output"
    chosen = [one.name for one in report.candidates if not one.refusal]
    assert any("-dense" not in name for name in chosen), report
    dense = None
    for name in chosen:
        found = on_arm(tmp_path / f"{name}.tflite", over=dense)
        dense = dense or found
        assert found.is_right(report.tolerance), found


@pytest.mark.parametrize("kind", KINDS)
def test_a_shrunk_network_is_right_and_so_is_one_whose_inputs_are_gathered(
    kind: str | None, tmp_path: Path, on_arm: OnArmRun
) -> None:
    model = NETWORKS["LeNet-300-100 at 96x"]()
    report = exported(model, tmp_path, kind, shrink=True)
    right = [one.name for one in report.candidates if not one.refusal]
    for variant in ("shrunk-", "gathered-"):
        assert any(name.startswith(variant) for name in right)
    for name in right:
        found = on_arm(tmp_path / f"{name}.tflite")
        assert found.is_right(report.tolerance), found


@pytest.mark.parametrize(
    ("padding", "together", "times"),
    [("explicit", 1, 3.5), ("explicit", 2, 4.0), ("same", 2, 4.0), ("same", 4, 3.8)],
)
def test_zeros_in_1x1_convolutions_save_instructions(
    padding: str, together: int, times: float, tmp_path: Path, on_arm: OnArmRun
) -> None:
    """Single zeros took 3.83 times fewer, pairs of outputs 4.81, four outputs together 4.04.

    At the widths of MobileNet v1 itself, of 224 x 224 pixels, it was 3.34, 4.31 and 3.79.
    """
    widths = ((64, 1), (128, 2), (256, 1), (512, 2)) + ((512, 1),) * 5
    report = exported(telling(mobile(widths, 64, padding, together)), tmp_path)
    assert not any("comparison is weak" in note for note in report.notes), report
    dense = on_arm(tmp_path / "float32-dense.tflite")
    found = on_arm(tmp_path / f"{report.chosen}.tflite", over=dense)
    assert found.is_right(report.tolerance)
    assert dense.work_over(found) >= times


def test_fully_connected_layers_in_blocks_take_fewer_instructions(
    tmp_path: Path, on_arm: OnArmRun
) -> None:
    report = exported(fully_connected_in_blocks(), tmp_path)
    assert {tensor.form for tensor in report.sparse} == {"blocks"}
    dense = on_arm(tmp_path / "float32-dense.tflite")
    found = on_arm(tmp_path / f"{report.chosen}.tflite", over=dense)
    assert dense.work_over(found) >= 1.2


@pytest.mark.parametrize("kind", [None, "dynamic", "int8"])
@pytest.mark.parametrize("layer", ONE_LAYER)
def test_estimated_instructions_are_near_those_executed(
    layer: str, kind: str | None, tmp_path: Path, on_arm: OnArmRun
) -> None:
    """What an export goes by where it cannot run the file on the target."""
    report = exported(ONE_LAYER[layer](), tmp_path, kind)
    for one in report.candidates:
        executed = on_arm(tmp_path / f"{one.name}.tflite").instructions
        assert executed, "this test needs the counter, and a C compiler for it"
        assert 2 / 3 < one.arm_instructions / executed < 3 / 2


@pytest.mark.parametrize(
    "build",
    [
        lambda: behind_an_entry(depthwise("same"), point(), *classifier()),
        # On an odd size the converter writes an explicit padding as SAME.
        lambda: behind_an_entry(
            layers.ZeroPadding2D(1), depthwise("valid"), point(), *classifier(), size=34
        ),
        lambda: behind_an_entry(layers.MaxPooling2D(), point(), *classifier()),
        lambda: behind_an_entry(mean(), point(), layers.Flatten(), layers.Dense(10)),
        with_a_second_output,
    ],
    ids=["SAME-stride-2", "odd-stride-2", "max-pooling", "behind-the-mean", "second-output"],
)
def test_what_would_go_wrong_is_taken_apart(build: Build, tmp_path: Path, on_arm: OnArmRun) -> None:
    """Without it the same sparse weights are wrong, which x86 with AVX does not show."""
    report = exported(build(), tmp_path)
    assert report.sparse
    assert "where they would go wrong" in " ".join(report.notes)
    assert on_arm(tmp_path / f"{report.chosen}.tflite").is_right(report.tolerance)
    dense = (tmp_path / "float32-dense.tflite").read_bytes()
    left = tmp_path / "left-as-it-is.tflite"
    left.write_bytes(sparse_file(dense)[0])
    assert not on_arm(left).is_right(10 * report.tolerance)


@pytest.mark.parametrize(
    ("kind", "operator", "form"),
    [(*pair, form) for pair in PAIRS for form in sorted(forms_taken(one_operator_file(*pair)))],
)
def test_what_the_table_says_the_runtime_takes_is_right(
    kind: str, operator: str, form: str, tmp_path: Path, on_arm: OnArmRun
) -> None:
    dense = one_operator_file(kind, operator)
    samples(dense).save(tmp_path / "samples.npz")
    (tmp_path / "file.tflite").write_bytes(in_form(dense, form))
    found = on_arm(tmp_path / "file.tflite")
    assert found.is_right(tolerance(kind)), found
