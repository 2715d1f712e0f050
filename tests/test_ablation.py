"""The ablation: each row changes one thing, and the test set is not read."""

import numpy as np
import pytest

from keras_l0.experiments import ablation, datasets
from keras_l0.experiments.ablation import ABLATION, cells, run
from keras_l0.experiments.datasets import Dataset
from keras_l0.experiments.records import Cell
from keras_l0.experiments.training import Recipe


def test_each_row_changes_one_part_of_the_whole() -> None:
    whole, *others = (one.settings for one in cells(False) if one.seed == 0)
    changed = [{name for name in whole if one[name] != whole[name]} for one in others]
    once = {"warmup", "ramp", "regrow"}
    assert changed[0] == once
    assert all(len(names) == 1 for names in changed[1:])
    assert len({min(names) for names in changed[1:]}) >= 7
    quick = cells(True)
    assert [one.row for one in quick] == [one.row for one in cells(False) if one.seed == 0]
    assert all(one.settings["ramp"] <= 6 for one in quick)


def test_it_validates_on_training_images_that_it_does_not_train_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = np.random.default_rng(0).random((60, 28, 28)).astype(np.float32)
    y = np.arange(60) % 10
    data = Dataset("mnist", x, y, x[:0], y[:0], 10, 1.0)
    monkeypatch.setattr(datasets, "load", lambda _: data)
    monkeypatch.setattr(ablation, "_VALIDATION", 20)
    given: list[object] = []
    held: list[tuple[np.ndarray, np.ndarray]] = []
    train, measure = ablation.train, ablation.measure

    def noted(recipe: Recipe, seed: int, *rest: object) -> object:
        given.extend(rest)
        return train(recipe, seed, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ablation, "train", noted)
    monkeypatch.setattr(ablation, "measure", lambda *args: held.append(args[-1]) or measure(*args))
    recipe = Recipe("lenet_300_100", l0=1e-5, warmup=1, weight_compression=4.0)
    found = run(Cell("whole", 0, {**recipe.settings, "images": 30}))
    assert found["weight_compression"] == pytest.approx(4, rel=1e-3)
    np.testing.assert_array_equal(given[0][0], x[:30])
    np.testing.assert_array_equal(held[0][0], x[40:])


def test_the_increase_is_seed_by_seed() -> None:
    pytest.importorskip("matplotlib")

    def done(row: str, seed: int, error: float) -> dict[str, object]:
        result = {"error": error, "compression": 97.0, "weight_compression": 103.0}
        return {"row": row, "seed": seed, "settings": {}, "result": result}

    runs = [done("whole", 0, 2.0), done("LAMP", 0, 2.1), done("whole", 1, 2.2)]
    values = ABLATION.conclude([*runs, done("LAMP", 1, 2.1)])
    line = "| LAMP | 2 | 2.10 ± 0.00 | +0.10, -0.10 | 97.0 |"
    assert line in ABLATION.report(values)
    ax = ABLATION.draw(values)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["LAMP", "whole"]
