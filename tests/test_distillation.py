"""Soft targets: the formula, whatever form the labels have, and what is wrong told."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from strategies import invalid

from keras_l0.distillation import soft_targets

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
Y = np.arange(6) % 3


def teacher(activation: str | None = "softmax", **dense: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation, **dense)])
    model.layers[0].bias.assign([0.5, 0.0, -0.5])
    return model


@pytest.mark.parametrize(("weight", "temperature"), [(0.5, 2.0), (1.0, 1.0), (0.0, 3), (0.9, 0.5)])
def test_the_formula(weight: float, temperature: float) -> None:
    model = teacher()
    logits = X @ model.layers[0].get_weights()[0] + [0.5, 0.0, -0.5]
    level = np.exp(logits / temperature)
    level /= level.sum(axis=1, keepdims=True)
    wanted = (1 - weight) * np.eye(3)[Y] + weight * level
    found = soft_targets(model, X, Y, weight=weight, temperature=temperature, batch_size=4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_labels_may_be_a_column_or_one_hot() -> None:
    wanted = soft_targets(teacher(), X, Y)
    for y in (Y[:, None], np.eye(3)[Y]):
        np.testing.assert_array_equal(soft_targets(teacher(), X, y), wanted)


def test_pixels_may_have_classes() -> None:
    x = X.reshape(2, 3, 4)
    found = soft_targets(teacher_of_pixels(), x, Y.reshape(2, 3))
    np.testing.assert_allclose(found.reshape(6, 3), soft_targets(teacher(), X, Y), atol=1e-6)


def two_heads() -> keras.Model:
    inputs = keras.Input((4,))
    return keras.Model(inputs, [layers.Dense(3, "softmax")(inputs) for _ in range(2)])


def teacher_of_pixels() -> keras.Model:
    model = keras.Sequential([keras.Input((3, 4)), layers.Dense(3, "softmax")])
    model.set_weights(teacher().get_weights())
    return model


def test_a_certain_teacher_gives_no_nan() -> None:
    model = teacher(kernel_initializer=keras.initializers.Constant(0))
    model.layers[0].bias.assign([1e4, 0.0, -1e4])
    assert np.isfinite(soft_targets(model, X, Y)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": 1.5}, invalid("weight", "a number in [0, 1]", "1.5")),
        ({"weight": None}, invalid("weight", "a number in [0, 1]", "None")),
        ({"temperature": 0}, invalid("temperature", "a number > 0", "0")),
        ({"y": Y + 1}, invalid("y", "classes from 0 to 2", "3")),
        ({"y": Y - 1}, invalid("y", "classes from 0 to 2", "-1")),
        (
            {"y": Y[:5]},
            invalid(
                "y",
                "integers of shape (6,) or one-hot rows of shape (6, 3)",
                "'int64 of shape (5,)'",
            ),
        ),
        (
            {"teacher": teacher(activation=None)},
            invalid(
                "teacher", "a model of one output that is probabilities, of softmax", "'logits'"
            ),
        ),
        (
            {"teacher": two_heads()},
            invalid(
                "teacher", "a model of one output that is probabilities, of softmax", "'logits'"
            ),
        ),
        (
            {"y": np.full((6, 3), -7.0)},
            invalid(
                "y",
                "integers of shape (6,) or one-hot rows of shape (6, 3)",
                "'float64 of shape (6, 3)'",
            ),
        ),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"teacher": teacher(), "x": X, "y": Y, **changes}
    given["teacher"].name = "logits"
    with pytest.raises(ValueError, match=message):
        soft_targets(**given)
