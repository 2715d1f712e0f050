"""Data come in whatever form Keras takes, and a model must be compiled to be evaluated."""

from typing import Any

import keras
import numpy as np
import pytest
from strategies import invalid

from keras_l0.data import check_compiled, evaluate, loss_name, unpack

X, Y = np.ones((6, 2), np.float32), np.arange(6, dtype=np.float32)[:, None]


class Batches(keras.utils.PyDataset):
    def __init__(self, *arrays: Any) -> None:
        super().__init__()
        self.arrays = arrays

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return tuple(array[2 * index : 2 * index + 2] for array in self.arrays)


def model() -> keras.Model:
    dense = keras.layers.Dense(1, kernel_initializer="ones", use_bias=False)
    made = keras.Sequential([keras.Input((2,)), dense], name="net")
    made.compile("sgd", "mse", metrics=["mae"])
    return made


def test_a_tuple_is_x_y_and_sample_weight() -> None:
    assert unpack((1, 2), "train") == {"x": 1, "y": 2}
    assert unpack((1, 2, 3), "train") == {"x": 1, "y": 2, "sample_weight": 3}


@pytest.mark.parametrize("data", [Batches(X, Y), [1, 2], X])
def test_all_else_is_a_data_set(data: Any) -> None:
    assert list(unpack(data, "train")) == ["x"]
    assert unpack(data, "train")["x"] is data


@pytest.mark.parametrize(
    ("data", "received"),
    [
        (None, "None"),
        ((1,), "'a tuple of 1'"),
        ((), "'a tuple of 0'"),
        ((1, 2, 3, 4), "'a tuple of 4'"),
    ],
)
def test_no_data_and_other_tuples_are_refused(data: Any, received: str) -> None:
    expected = "a tuple (x, y) or (x, y, sample_weight), or a data set of batches"
    with pytest.raises(ValueError, match=invalid("validation", expected, received)):
        unpack(data, "validation")


@pytest.mark.parametrize("data", [(X, Y), Batches(X, Y)])
def test_metrics_come_by_name_as_floats(data: Any) -> None:
    found = evaluate(model(), data, "validation", batch_size=None)
    errors = 2 - Y
    assert found == pytest.approx({"loss": np.mean(errors**2), "mae": np.mean(np.abs(errors))})
    assert all(type(value) is float for value in found.values())


@pytest.mark.parametrize("form", [lambda *a: a, Batches])
def test_sample_weights_count(form: Any) -> None:
    weights = np.array([1, 0, 0, 0, 0, 0], np.float32)
    assert evaluate(model(), form(X, Y, weights), "validation")["loss"] == pytest.approx(4 / 6)


def test_steps_stop_the_evaluation() -> None:
    assert evaluate(model(), Batches(X, Y), "validation", steps=1)["loss"] == pytest.approx(2.5)


def test_a_model_not_compiled_is_refused() -> None:
    bare = keras.Sequential([keras.layers.Dense(1)], name="net")
    message = invalid(
        "model",
        "a compiled model",
        "'net'",
        "Call `model.compile(optimizer, loss, metrics)` first",
    )
    with pytest.raises(ValueError, match=message):
        check_compiled(bare)
    with pytest.raises(ValueError, match=invalid("model", "a keras.Model", "'net'")):
        check_compiled("net")
    check_compiled(model())


class Own(keras.Model):
    """Tests itself, with the penalties in its loss or without any loss."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1, kernel_initializer="ones", kernel_regularizer="l2")
        self.named = name

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def test_step(self, *arguments: Any) -> Any:
        return {self.named: 2.0, "further": 1.0}


@pytest.mark.skipif(keras.config.backend() == "jax", reason="test_step has another form there")
@pytest.mark.parametrize("name", ["loss", "distance"])
def test_a_test_step_of_ones_own_says_what_it_says(name: str) -> None:
    own = Own(name)
    own.compile("sgd", "mse")
    assert evaluate(own, (X, Y), "validation") == {name: 2.0, "further": 1.0}
    assert loss_name(own) != loss_name(model())
