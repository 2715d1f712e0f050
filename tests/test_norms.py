"""Experiment 1: what is trained and pruned, and what is claimed of it."""

from typing import Any

import keras
import numpy as np
import pytest

from keras_l0.experiments import datasets, norms
from keras_l0.experiments.networks import lenet_5_caffe
from keras_l0.experiments.norms import EXPERIMENT_1, METHODS, TUNINGS, cells, run
from keras_l0.experiments.reading import Dataset
from keras_l0.experiments.records import Cell

WAYS = [f"{short} {text}" for text in TUNINGS.values() for short in METHODS.values()]
RATIOS = [2, 10, 50]


def done(norm: str, seed: int, **curves: list[float]) -> dict[str, Any]:
    """A run that is done; ways that are not named have the accuracies that all claims want."""
    sparse = norm in ("ℓ0", "ℓ2-ℓ0")
    found = {}
    for way in WAYS:
        level = (0.995 if sparse else 0.9) if "RP" not in way else (0.3 if sparse else 0.4)
        found[way] = [level + (0.001 if "with FT" in way else 0)] * 3
    found |= {name.replace("_", " "): curve for name, curve in curves.items()}
    return {
        "row": norm,
        "seed": seed,
        "settings": {"ratios": RATIOS},
        "result": {"strength": {}, "accuracy": 0.996, "curves": found},
    }


def conclude(**curves: list[float]) -> dict[str, Any]:
    others = [done(norm, seed) for norm in ("ℓ1", "ℓ2", "ℓ2-ℓ0") for seed in (0, 1)]
    return EXPERIMENT_1.conclude([*others, done("ℓ0", 0, **curves), done("ℓ0", 1, **curves)])


def test_all_claims_hold_where_they_should() -> None:
    found = conclude()
    assert len(found["checks"]) == 10
    assert all(found["checks"].values())
    assert len(found["rows"]) == 4 * 6
    assert found["rows"][0]["seeds"] == [0, 1]


@pytest.mark.parametrize(
    ("curves", "broken"),
    [
        (
            {"RP_without_FT": [0.999] * 3},
            ["GP and LP above RP", "below ℓ1 and ℓ2, RP without", "fine tuning better"],
        ),
        ({"GP_with_FT": [0.8] * 3}, ["above ℓ1 and ℓ2, GP with FT", "fine tuning better"]),
        ({"LP_without_FT": [0.5] * 3}, ["above ℓ1 and ℓ2, LP without FT"]),
        ({"GP_without_FT": [0.995, 0.98, 0.995]}, ["lose less than 1 % at 10 x"]),
    ],
)
def test_a_claim_that_does_not_hold_is_told(
    curves: dict[str, list[float]], broken: list[str]
) -> None:
    checks = conclude(**curves)["checks"]
    failed = [claim for claim, holds in checks.items() if not holds]
    assert len(failed) == len(broken)
    for part in broken:
        assert any(part in claim for claim in failed), (part, failed)


def test_each_norm_has_the_same_budget() -> None:
    for quick in (False, True):
        found = cells(quick)
        assert len({len(one.settings["strengths"]) for one in found}) == 1
        assert {one.row for one in found} == {"ℓ1", "ℓ2", "ℓ0", "ℓ2-ℓ0"}


@pytest.mark.slow
def test_the_strength_is_chosen_on_validation_images_and_every_curve_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((80, 28, 28)).astype(np.float32)
    y = np.arange(80) % 10
    test = rng.random((20, 28, 28)).astype(np.float32)
    data = Dataset("mnist", x, y, test, np.zeros(20, int), 10, 1.0)
    monkeypatch.setattr(datasets, "load", lambda _: data)
    monkeypatch.setattr(norms, "_VALIDATION", 20)
    looked: list[str] = []
    curve = norms._curve

    def noted(model: keras.Model, cell: Cell, method: str, train: Any, held: Any) -> list[float]:
        looked.append("validation" if np.array_equal(held[1], y[60:]) else "test")
        found = curve(model, cell, method, train, held)
        return [float(len(looked) == 2)] * 2 if len(looked) < 3 else found

    monkeypatch.setattr(norms, "_curve", noted)
    size = {"images": 60, "epochs": 1, "tuned": 1, "ratios": [2, 10]}
    strengths = [{"l0": 1e-5}, {"l0": 1e-4}]
    found = run(Cell("ℓ0", 0, {"strengths": strengths, **size}))
    assert found["strength"] == {"l0": 1e-4}
    assert list(found["curves"]) == WAYS
    assert all(len(one) == 2 for one in found["curves"].values())
    assert looked == ["validation"] * 2 + ["test"] * 6
    assert lenet_5_caffe((28, 28, 1), 10).count_params() == 431_080


def test_the_plot_has_figures_3_and_4() -> None:
    pytest.importorskip("matplotlib")
    figure = EXPERIMENT_1.draw({**conclude(), "ratios": RATIOS}).figure
    assert [ax.get_title() for ax in figure.axes] == WAYS
    assert all(len(ax.lines) == 4 for ax in figure.axes)
    assert "| ℓ0, GP with FT | 99.6 | 99.6 | 99.6 | 99.6 | 99.6 |" in EXPERIMENT_1.report(
        {**conclude(), "ratios": RATIOS}
    )
