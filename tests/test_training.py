"""Recipes: what they train, prune and measure."""

import json
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from keras_l0 import shrink, summarize
from keras_l0.distillation import soft_targets
from keras_l0.experiments import datasets, training
from keras_l0.experiments.augmentation import Augmented
from keras_l0.experiments.training import Recipe, Teacher, build, measure, train

RECIPE = Recipe(
    "lenet_300_100",
    l2=1e-5,
    l0=1e-5,
    warmup=1,
    ramp=2,
    finetune=1,
    weight_compression=10.0,
)


@pytest.fixture(scope="module")
def data() -> tuple[Any, Any]:
    """Some of scikit-learn's digits."""
    found = datasets.preprocess(datasets.load("digits"))
    return found.x_train[:200], found.y_train[:200]


def penalties(model: keras.Model) -> list[dict[str, float] | None]:
    """Of each kernel."""
    return [
        layer.kernel.regularizer and layer.kernel.regularizer.get_config()
        for layer in model.layers
        if hasattr(layer, "kernel")
    ]


def test_a_network_has_the_compression_that_its_recipe_asks_for(data: tuple[Any, Any]) -> None:
    found = summarize(train(RECIPE, 0, data, data, 10).model)
    assert found.zeros == round(0.9 * found.prunable)


def test_a_seed_gives_the_same_network_again_and_another_one_another(
    data: tuple[Any, Any],
) -> None:
    one, same, other = (
        train(RECIPE, seed, data, data, 10).model.get_weights() for seed in (0, 0, 1)
    )
    assert all(map(np.array_equal, one, same))
    assert not all(map(np.array_equal, one, other))


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, [{"l2": 1e-5, "l0": 1e-5, "beta": 10.0}] * 3),
        ({"l1": 1e-6}, [{"l1": pytest.approx(1e-6)}] * 3),
        ({"l2": 0.0, "l0": 0.0}, [None] * 3),
        (
            {"overrides": {"output": {"l2": 1e-4, "l0": 0.0, "beta": 5.0}}},
            [
                *[{"l2": 1e-5, "l0": 1e-5, "beta": 10.0}] * 2,
                {"l2": 1e-4, "l0": 0.0, "beta": 5.0},
            ],
        ),
    ],
)
def test_the_penalty_is_the_recipes(
    changes: dict[str, Any], wanted: list[Any], data: tuple[Any, Any]
) -> None:
    recipe = replace(RECIPE, **changes, warmup=1, ramp=0, finetune=0)
    assert penalties(train(recipe, 0, data, data, 10).model) == wanted


def test_norm_scales_the_penalty_by_layer(data: tuple[Any, Any]) -> None:
    recipe = replace(RECIPE, scale="layer_size_l0", warmup=1, ramp=0, finetune=0)
    model = train(recipe, 0, data, data, 10).model
    found = [penalty and penalty["l0"] for penalty in penalties(model)]
    sizes = np.array([64 * 300, 300 * 100, 100 * 10])
    np.testing.assert_allclose(found, 1e-5 * np.sqrt(sizes / sizes.max()), rtol=1e-6)


def test_what_is_dead_does_not_count_as_left(data: tuple[Any, Any]) -> None:
    recipe = replace(RECIPE, weight_compression=30.0, finetune=2)
    results = [train(replace(recipe, shrink=early), 0, data, data, 10) for early in (False, True)]
    whole, small = (one.model for one in results)
    assert small.count_params() < whole.count_params()
    unpruned = summarize(build(RECIPE, data[0].shape[1:], 10))
    found = [measure(one, unpruned, data) for one in results]
    dense, left = whole.count_params(), summarize(shrink(whole)).left
    assert left < summarize(whole).left
    assert found[0]["compression"] == pytest.approx(dense / left)
    assert found[1]["compression"] == found[0]["compression"]
    for one in found:
        assert one["weight_compression"] == pytest.approx(30, rel=0.01)
        assert 0 <= one["error"] <= 100


def test_a_network_is_trained_and_tuned_on_images_that_are_changed(
    data: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    fit = keras.Model.fit
    monkeypatch.setattr(
        keras.Model, "fit", lambda *args, **to: given.append(to["x"]) or fit(*args, **to)
    )
    recipe = replace(RECIPE, augmentation="nudged")
    whole, tuned = (
        train(one, 0, data, data, 10).model.get_weights()
        for one in (replace(recipe, augmentation="none"), recipe)
    )
    assert not all(map(np.array_equal, whole, tuned))
    assert all(isinstance(one, Augmented) for one in given[len(given) // 2 :])
    assert not any(isinstance(one, Augmented) for one in given[: len(given) // 2])


def test_a_network_is_tuned_on_what_a_teacher_with_dropout_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    data = rng.random((100, 28, 28), np.float32), np.arange(100) % 10
    taught: list[keras.Model] = []
    given: list[dict[str, Any]] = []
    teach, compress = Teacher.train, training.compress
    monkeypatch.setattr(Teacher, "train", lambda *args: taught.append(teach(*args)) or taught[0])
    monkeypatch.setattr(
        training, "compress", lambda *args, **to: given.append(to) or compress(*args, **to)
    )
    recipe = replace(RECIPE, teacher=Teacher(temperature=4.0, epochs=1), shrink=True)
    assert Recipe(**json.loads(json.dumps(recipe.settings))).settings == json.loads(
        json.dumps(recipe.settings)
    )
    result = train(recipe, 0, data, data, 10)
    (teacher,) = taught
    rates = [one.rate for one in teacher.layers if isinstance(one, keras.layers.Dropout)]
    assert rates == [0.3, 0.5]
    assert teacher.count_params() == 431_080
    _, soft = given[0]["finetune_train"]
    wanted = soft_targets(teacher, data[0][..., None], data[1], temperature=4.0)
    np.testing.assert_allclose(soft, wanted)
    found = measure(result, summarize(build(recipe, (28, 28), 10)), data)
    assert found["error"] == pytest.approx(100 * (1 - result.report.after["accuracy"]))
    assert found["weight_compression"] == pytest.approx(10, rel=1e-3)


def test_a_network_may_be_made_small_before_its_ramp(data: tuple[Any, Any]) -> None:
    recipe = replace(RECIPE, first=20.0, ramp=6, weight_compression=60.0, power=1.0, tuned_l2=1e-3)
    result = train(recipe, 0, data, data, 10)
    dense = summarize(build(recipe, data[0].shape[1:], 10))
    begun = result.report.summary
    assert begun.parameters < dense.parameters
    assert begun.prunable - begun.zeros == pytest.approx(dense.prunable / 60, abs=1)
    assert result.history.epoch == list(range(7))  # the ramp's six and one of fine tuning
    found = measure(result, dense, data)
    assert found["weight_compression"] == pytest.approx(60, rel=0.01)
    assert found["compression"] == dense.parameters / summarize(shrink(result.model)).left
    assert penalties(result.model) == [{"l2": 1e-3, "l0": 1e-5, "beta": 10.0}] * 3


def test_a_first_pruning_and_rewinding_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"`rewind`. Expected None with a first pruning"):
        replace(RECIPE, rewind=0, first=2.0)
