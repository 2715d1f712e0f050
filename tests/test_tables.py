"""Tables of the paper: what is made of their runs."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_l0.experiments import published
from keras_l0.experiments.networks import lenet_300_100
from keras_l0.experiments.tables import TABLE_2, _export, rows


def cell(row: str, seed: int, error: float, compression: float) -> dict[str, Any]:
    """A run that is done."""
    result = {"error": error, "compression": compression, "weight_compression": 2 * compression}
    return {"row": row, "seed": seed, "settings": {}, "result": result}


def test_a_row_is_the_mean_of_its_seeds() -> None:
    found = rows([cell("a", 0, 1.0, 90.0), cell("b", 0, 3.0, 5.0), cell("a", 1, 2.0, 92.0)])
    assert found == [
        {
            "name": "a",
            "seeds": [0, 1],
            "errors": [1.0, 2.0],
            "error_mean": 1.5,
            "error_std": pytest.approx(0.5**0.5),
            "compression": 91.0,
            "weight_compression": 182.0,
        },
        {
            "name": "b",
            "seeds": [0],
            "errors": [3.0],
            "error_mean": 3.0,
            "error_std": 0.0,
            "compression": 5.0,
            "weight_compression": 10.0,
        },
    ]


@pytest.mark.parametrize(
    ("compression", "error", "held"),
    [
        (96.0, 1.95, [True, False, False]),
        (120.0, 1.77, [True] * 3),
        (95.0, 1.0, [False, True, False]),
    ],
)
def test_a_target_is_reached_by_one_row_in_both(
    compression: float, error: float, held: list[bool]
) -> None:
    found = TABLE_2.conclude([cell("a", 0, error, compression), cell("b", 0, 1.0, 2.0)])
    assert list(found["checks"].values()) == held
    assert found["published"] == published.TABLE_2


def test_full_runs_have_five_seeds_and_quick_ones_few_epochs() -> None:
    full, quick = TABLE_2.cells(False), TABLE_2.cells(True)
    assert {one.seed for one in full} == set(range(5))
    assert {one.row for one in full} == {one.row for one in quick}
    assert len(full) == 5 * len(quick)
    epochs = [
        sum(sum(one.settings[name] for name in ("warmup", "ramp", "finetune")) for one in cells)
        for cells in (full, quick)
    ]
    assert epochs[1] < epochs[0] / 40


def test_the_report_and_the_plot_have_ours_and_theirs() -> None:
    pytest.importorskip("matplotlib")
    values = TABLE_2.conclude([cell("ours", 0, 1.9, 96.0), cell("ours", 1, 2.0, 96.0)])
    text = TABLE_2.report(values)
    assert "| ours | 2 | 1.95 ± 0.07 | 96.0 | 192.0 |" in text
    assert "| CPA, published |  | 1.77 | 85 |  |" in text
    assert [len(line.get_xdata()) for line in TABLE_2.draw(values).lines] == [1, 15]


def test_the_file_of_a_run_takes_any_batch_of_pixels(tmp_path: Path) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    model = lenet_300_100((28, 28), 10)
    x = np.random.default_rng(0).random((7, 28, 28), np.float32)
    _export(model, tmp_path / "net.tflite", x)
    wanted = keras.ops.convert_to_numpy(model(x))
    for batch in (1, 7):
        runtime = litert.Interpreter(str(tmp_path / "net.tflite"))
        place = runtime.get_input_details()[0]["index"]
        runtime.resize_tensor_input(place, [batch, 28, 28])
        runtime.allocate_tensors()
        runtime.set_tensor(place, x[:batch])
        runtime.invoke()
        found = runtime.get_tensor(runtime.get_output_details()[0]["index"])
        np.testing.assert_allclose(found, wanted[:batch], atol=2e-3)
