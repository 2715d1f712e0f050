"""The learning rate in ``compress``: held, falling, and back in the end."""

from typing import Any

import keras
import numpy as np
import pytest

from keras_l0 import compress
from keras_l0.annealing import annealed

X = np.random.default_rng(0).random((20, 6), np.float32)
EPOCHS: dict[str, Any] = {"warmup": 1, "ramp": 1, "finetune": 4, "verbose": 0}


class Rates(keras.callbacks.Callback):
    """Notes the rate of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.seen.append(round(float(self.model.optimizer.learning_rate), 5))


def net(rate: Any = 0.01) -> keras.Model:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


@pytest.mark.parametrize("penalty", [True, False])
@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [0.01] * 6),
        ({"learning_rate": 0.02}, [0.02] * 6),
        ({"anneal": 1}, [0.01, 0.01, 0.00854, 0.005, 0.00146, 0.0001]),
        ({"learning_rate": 0.1, "anneal": 2}, [0.1, 0.1, 0.05, 0.001, 0.05, 0.001]),
    ],
)
def test_the_rate_of_each_epoch_and_after(
    options: dict[str, Any], wanted: list[float], penalty: bool
) -> None:
    model, rates = net(), Rates()
    compress(
        model,
        (X, X[:, :2]),
        (X, X[:, :2]),
        sparsity=0.5,
        callbacks=[rates],
        finetune_penalty=penalty,
        **options,
        **EPOCHS,
    )
    assert rates.seen == wanted
    after = float(model.optimizer.learning_rate)
    assert after == pytest.approx(options.get("learning_rate", 0.01))


@pytest.mark.parametrize(("epochs", "cycles"), [(10, 3), (10, 4), (6, 4), (7, 7), (5, 1)])
def test_each_fall_ends_at_a_hundredth_and_there_are_as_many_as_asked(
    epochs: int, cycles: int
) -> None:
    rates = [annealed(1.0, epoch, 2, 2 + epochs, cycles) for epoch in range(2, 2 + epochs)]
    assert rates.count(0.01) == cycles
    assert rates[-1] == 0.01
    assert all(0.01 <= rate < 1 for rate in rates)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"anneal": -1}, "an integer >= 0"),
        ({"anneal": 1.5}, "an integer >= 0"),
        ({"anneal": 5}, "at most 4, the epochs of fine tuning"),
        ({"learning_rate": 0.0}, "a finite float > 0"),
        ({"learning_rate": float("nan")}, "a finite float > 0"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    model = net()
    with pytest.raises(ValueError, match=message):
        compress(model, (X, X[:, :2]), (X, X[:, :2]), sparsity=0.5, **options, **EPOCHS)
    assert model.layers[0].kernel.regularizer is None


@pytest.mark.parametrize("options", [{"anneal": 1}, {"learning_rate": 0.1}])
def test_an_optimizer_with_a_schedule_is_told(options: dict[str, Any]) -> None:
    model = net(keras.optimizers.schedules.CosineDecay(0.1, 100))
    with pytest.raises(ValueError, match="a number as learning rate"):
        compress(model, (X, X[:, :2]), (X, X[:, :2]), sparsity=0.5, **options, **EPOCHS)
