"""Table 7: neurons go, then weights, and the claims are the published figures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_l0.experiments import convolutional, datasets, structural, training
from keras_l0.experiments.reading import Dataset
from keras_l0.experiments.records import Cell
from keras_l0.experiments.structural import TABLE_7, run


@pytest.mark.slow
def test_neurons_go_and_then_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (48, 32, 32, 3)).astype(np.uint8)
    data = Dataset("cifar10", x, np.arange(48) % 10, x[:16], np.arange(16) % 10, 10, 255.0)
    monkeypatch.setattr(datasets, "load", lambda _: data)
    narrow = {"vgg_16": lambda shape, classes: convolutional.vgg_16(shape, classes, width=0.125)}
    monkeypatch.setattr(training, "NETWORKS", narrow)
    (cell,) = TABLE_7.cells(True)
    found = run(Cell(cell.row, 0, {**cell.settings, "batch": 16}), tmp_path)
    points = list(found["points"].values())
    asked = [27.75, 27.75, 42.7, 42.7]
    assert all(one["flops_reduction"] >= by for one, by in zip(points, asked, strict=True))
    assert points[1]["compression"] >= 9.2 > points[0]["compression"] > 1
    assert points[3]["compression"] >= 18.3 > points[2]["compression"] > points[0]["compression"]
    (kept,) = tmp_path.glob("VGG_16_0_*.json")
    kept.write_text(json.dumps(dict(list(found["points"].items())[:2])))
    tuned = structural.tune
    calls: list[int] = []
    monkeypatch.setattr(
        structural, "tune", lambda *args: calls.append(args[0].count_params()) or tuned(*args)
    )
    again = run(Cell(cell.row, 0, {**cell.settings, "batch": 16}), tmp_path)
    assert list(again["points"]) == list(found["points"])
    assert len(calls) == 3  # the second goal's two, and the whole network


def test_the_claims_are_the_published_figures_and_the_table_has_both() -> None:
    pytest.importorskip("matplotlib")

    def done(seed: int, compression: float) -> Any:
        point = {"error": 7.2, "flops_reduction": 27.8, "compression": compression}
        point["weight_compression"] = compression
        return {"seed": seed, "result": {"error": 7.0, "points": {"NP": point}}}

    values = TABLE_7.conclude([done(0, 1.4), done(1, 1.6)])
    assert list(values["checks"].values()) == [True, False, False, False]
    assert values["rows"][1]["seeds"] == [0, 1]
    text = TABLE_7.report(values)
    assert "| NP | 7.20 ± 0.00 | +0.20 | 27.8 | 1.50 |" in text
    assert "| Proposed (NP), published |  | +0.49 | 42.7 | 1.70 |" in text
    assert [len(line.get_xdata()) for line in TABLE_7.draw(values).lines] == [1, 5]
