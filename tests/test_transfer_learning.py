"""The code of docs/transfer_learning.md runs, and does what the page says."""

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_l0 import summarize

PAGE = (Path(__file__).parents[1] / "docs/transfer_learning.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)


def sparsity(model: keras.Model) -> float:
    return summarize(model).sparsity


def test_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for text in BLOCKS:
        if "export_tflite" in text and keras.config.backend() != "tensorflow":
            continue
        exec(compile(text, "docs/transfer_learning.md", "exec"), names)
    told = capsys.readouterr().out
    assert "207,600 of 208,880 prunable weights are frozen, in base" in told
    assert sparsity(names["model"]) == pytest.approx(0.5, abs=1e-5)
    means = [v for v in names["model"].weights if v.path.endswith("moving_mean")]
    assert len(means) > 10
    assert not any(np.any(ops.convert_to_numpy(mean)) for mean in means)  # as before training
    base = [w for w in summarize(names["frozen"]).weights if "head" not in w.path]
    assert all(weight.frozen for weight in base)
    share = sum(w.zeros for w in base) / sum(w.weights for w in base)
    assert share == pytest.approx(0.2, abs=1e-5)
    assert names["small"].count_params() < names["channels"].count_params()
    assert sparsity(names["merged"]) == pytest.approx(0.5, abs=1e-5)
    assert names["merged"].get_layer("head").lora_enabled is False
    if keras.config.backend() == "tensorflow":
        assert (tmp_path / "model.tflite").exists()
