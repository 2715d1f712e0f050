"""Curves of accuracy against compression: what is trained is kept, and what follows from it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_l0.experiments import curves
from keras_l0.experiments.curves import rows, run
from keras_l0.experiments.figures import (
    FIGURE_5,
    FIGURE_6,
    FIGURE_7,
    FIGURE_8,
    FIGURE_9,
    TABLE_4,
)
from keras_l0.experiments.records import Cell
from keras_l0.experiments.training import Recipe

RECIPE = Recipe("lenet_300_100", l0=1e-5, warmup=2, finetune=1, batch=50)


def cell(recipe: Recipe = RECIPE, **changes: Any) -> Cell:
    extra = {
        "dataset": "digits",
        "standardized": True,
        "images": 200,
        "tested": 100,
        "ratios": [2.0, 8.0],
    }
    return Cell("line", 0, {**recipe.settings, **extra, **changes})


def done(row: str, error: float, plain: list[float], tuned: list[float] | None = None) -> Any:
    """A run that is done, with points at 2 and 5 times."""
    points = {
        name: [
            {"error": one, "compression": by, "weight_compression": by}
            for one, by in zip(found, (2.0, 5.0), strict=True)
        ]
        for name, found in (("without FT", plain), ("with FT", tuned))
        if found is not None
    }
    settings = {"ratios": [2.0, 5.0]}
    return {
        "row": row,
        "seed": 0,
        "settings": settings,
        "result": {"error": error, "curves": points},
    }


def test_a_network_is_trained_once_and_pruned_from_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(cell(), tmp_path)
    assert list(found["curves"]) == ["without FT", "with FT"]
    for points in found["curves"].values():
        np.testing.assert_allclose([one["weight_compression"] for one in points], [2, 8], 0.01)
        assert all(0 <= one["error"] <= 100 for one in points)
    fits = []
    fit = keras.Model.fit
    monkeypatch.setattr(
        keras.Model, "fit", lambda *args, **options: fits.append(options) or fit(*args, **options)
    )
    again = run(cell(), tmp_path)
    assert again == found
    assert not fits
    for kept in tmp_path.glob("*_1.json"):  # the second curve's second point
        kept.write_text(json.dumps(json.loads(kept.read_text())[:1]))
    run(cell(), tmp_path)
    assert [options["epochs"] for options in fits] == [1]


def test_training_that_was_broken_off_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    class Stop(keras.callbacks.LearningRateScheduler):
        def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            begun.append(epoch)
            super().on_epoch_begin(epoch, logs)
            if begun == [0, 1]:
                raise KeyboardInterrupt

    monkeypatch.setattr(curves.keras.callbacks, "LearningRateScheduler", Stop)
    folder = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        run(cell(replace(RECIPE, finetune=0)), folder)
    run(cell(replace(RECIPE, finetune=0)), folder)
    assert begun == [0, 1, 1]


def test_what_is_kept_is_of_the_same_settings_alone(tmp_path: Path) -> None:
    tuned = replace(RECIPE, finetune=0)
    first = run(cell(tuned), tmp_path)
    other = run(cell(replace(tuned, l0=1e-2, rate=1e-4)), tmp_path)
    assert other["error"] != first["error"]
    assert run(cell(tuned), tmp_path) == first


def test_rows_have_the_increase_over_the_first_line() -> None:
    found = rows([done("dense", 7.0, [8.0, 20.0]), done("l0", 7.5, [7.5, 9.0], [7.0, 8.0])])
    assert [row["name"] for row in found] == [
        "dense, not pruned",
        "dense, 2x in weights, without FT",
        "dense, 5x in weights, without FT",
        "l0, not pruned",
        "l0, 2x in weights, without FT",
        "l0, 5x in weights, without FT",
        "l0, 2x in weights, with FT",
        "l0, 5x in weights, with FT",
    ]
    assert [row["increase"] for row in found] == [0, 1, 13, 0.5, 0.5, 2, 0, 1]


def test_the_increase_is_over_the_first_line_tuned_for_as_long() -> None:
    first = done("l2", 7.0, [7.0, 20.0], [6.5, 9.0])
    first["settings"]["ratios"] = [1.0, 5.0]
    for points in first["result"]["curves"].values():
        points[0]["weight_compression"] = 1.00001  # training has left a zero
    found = rows([first, done("l0", 7.5, [7.5, 9.0])])
    assert [row["increase"] for row in found] == [0.5, 0.5, 13.5, 0, 2.5, 1, 1, 2.5]


@pytest.mark.parametrize(
    ("norm", "sep", "held"),
    [(2.0, 2.0, [True, True, False]), (2.4, 1.9, [False, True, True])],
)
def test_claims_of_figures_5_and_6(norm: float, sep: float, held: list[bool]) -> None:
    cells = [
        done(line, 2.0, [3.0, 9.0], [2.0, error]) for line, error in (("NORM", norm), ("SEP", sep))
    ]
    for one in cells:
        one["result"]["curves"]["with FT"][1]["compression"] = 200.0
    checks = FIGURE_6.conclude(cells)["checks"]
    assert list(checks.values()) == [held[0], False, held[2]]
    assert list(FIGURE_5.conclude(cells)["checks"].values()) == held


@pytest.mark.parametrize(("tuned", "held"), [(8.0, [True, True]), (9.5, [False, False])])
def test_claims_of_figure_7(tuned: float, held: list[bool]) -> None:
    cells = [done("dense", 7.0, [8.0, 20.0]), done("l0", 7.5, [7.5, 9.0], [7.0, tuned])]
    cells += [done("another", 7.5, [7.5, 30.0], [7.0, 29.0])]
    assert list(FIGURE_7.conclude(cells)["checks"].values()) == held
    assert list(FIGURE_7.conclude(cells[:1])["checks"].values()) == [False, False]


@pytest.mark.parametrize(
    ("second", "held"),
    [((7.5, [7.6, 8.0]), [True, True]), ((6.5, [8.0, 9.0]), [False, False])],
)
def test_claims_of_figure_8(second: Any, held: list[bool]) -> None:
    cells = [done("0", 7.0, [7.5, 20.0]), done("1e-7", *second)]
    assert list(FIGURE_8.conclude(cells)["checks"].values()) == held


@pytest.mark.parametrize(("beta", "held"), [(13.0, True), (25.0, False)])
def test_claims_of_figure_9(beta: float, held: bool) -> None:
    lines = {"1e-7, β 5": 20.0, "1e-7, β 10": 22.0, "1e-6, β 5": 12.0, "1e-6, β 10": beta}
    cells = [done(name, 7.0, [7.5, error]) for name, error in lines.items()]
    assert list(FIGURE_9.conclude(cells)["checks"].values()) == [held]


@pytest.mark.parametrize("study", [FIGURE_5, FIGURE_6, FIGURE_7, FIGURE_8, FIGURE_9, TABLE_4])
def test_quick_runs_have_all_lines_and_few_images(study: Any) -> None:
    full, quick = study.cells(False), study.cells(True)
    assert {one.row for one in full} == {one.row for one in quick}
    assert {one.seed for one in full} == {0, 1, 2}
    assert all(one.settings["images"] == 64 for one in quick)


def test_the_report_and_the_plot_have_all_lines() -> None:
    pytest.importorskip("matplotlib")
    values = FIGURE_7.conclude([done("a", 7.0, [8.0, 20.0], [7.5, 9.0])])
    text = FIGURE_7.report(values)
    assert "| a, 5x in weights, with FT | 1 | 9.00 ± 0.00 | +2.00 | 5.00 |" in text
    assert "| Proposed (SEP), published |  |  | +1.00 | 5 |" in text
    assert [len(line.get_xdata()) for line in FIGURE_7.draw(values).lines] == [3, 3]
