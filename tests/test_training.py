"""Recipes: what they train, prune and measure."""

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from keras_l0 import L2L0, prune, summarize
from keras_l0.experiments import datasets
from keras_l0.experiments.training import NETWORKS, Recipe, measure, train

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
    found = summarize(train(RECIPE, 0, data, data, 10))
    assert found.zeros == round(0.9 * found.prunable)


def test_a_seed_gives_the_same_network_again_and_another_one_another(
    data: tuple[Any, Any],
) -> None:
    one, same, other = (train(RECIPE, seed, data, data, 10).get_weights() for seed in (0, 0, 1))
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
    assert penalties(train(recipe, 0, data, data, 10)) == wanted


def test_norm_scales_the_penalty_by_layer(data: tuple[Any, Any]) -> None:
    recipe = replace(RECIPE, scale="layer_size_l0", warmup=1, ramp=0, finetune=0)
    found = [penalty and penalty["l0"] for penalty in penalties(train(recipe, 0, data, data, 10))]
    sizes = np.array([64 * 300, 300 * 100, 100 * 10])
    np.testing.assert_allclose(found, 1e-5 * np.sqrt(sizes / sizes.max()), rtol=1e-6)


def test_what_is_dead_does_not_count_as_left(data: tuple[Any, Any]) -> None:
    model = NETWORKS["lenet_300_100"]((8, 8), 10)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    prune(model, method="neuron", fraction=0.5)
    found = measure(model, data)
    left = 64 * 150 + 150 + 150 * 50 + 50 + 50 * 10 + 10
    assert found["compression"] == pytest.approx(model.count_params() / left)
    # What reads a dead neuron is not zero, though shrink takes it out.
    assert found["weight_compression"] == pytest.approx(
        (64 * 300 + 300 * 100 + 1000) / (64 * 150 + 300 * 50 + 1000)
    )
    assert 0 <= found["error"] <= 100
    assert isinstance(RECIPE.penalty, L2L0)
