"""RelevanceDecay is the formula on every backend, and otherwise the inner optimizer."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.typing import NDArray
from strategies import invalid

from keras_l0 import KeepZeros, RelevanceDecay, prune

Array = NDArray[np.float64]
rng = np.random.default_rng(0)
X = rng.normal(size=(16, 6)).astype("float32")
Y = rng.normal(size=(16, 2)).astype("float32")
FIT: dict[str, Any] = {"batch_size": 8, "shuffle": False, "verbose": 0}


def net() -> keras.Model:
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((6,)), layers.Dense(5, "tanh"), layers.Dense(2)])


def gradients(weights: list[Array], x: Array, y: Array) -> list[Array]:
    """Of the mean squared error of ``net``, in float64."""
    first, offset, last, end = weights
    hidden = np.tanh(x @ first + offset)
    error = 2 * (hidden @ last + end - y) / y.size
    inner = error @ last.T * (1 - hidden**2)
    return [x.T @ inner, inner.sum(0), hidden.T @ error, error.sum(0)]


def factor(rule: str, size: Array, alpha: float) -> Array:
    return np.exp(-size / alpha) if rule == "relevance" else np.maximum(0, 1 - size / alpha)


class Sgd:
    """Plain gradient descent, in float64."""

    def step(self, w: Array, g: Array, place: int) -> Array:
        return w - 0.1 * g


class Adam:
    """Adam of Keras' defaults but for a rate of 0.01, in float64."""

    def __init__(self) -> None:
        self.moments: dict[int, tuple[int, Any, Any]] = {}

    def step(self, w: Array, g: Array, place: int) -> Array:
        count, first, second = self.moments.get(place, (0, 0.0, 0.0))
        count, first, second = count + 1, 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        self.moments[place] = count, first, second
        rate = 0.01 * math.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        return w - rate * first / (np.sqrt(second) + 1e-7)


INNER: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "SGD": (lambda: keras.optimizers.SGD(0.1), Sgd),
    "Adam": (lambda: keras.optimizers.Adam(0.01), Adam),
}


@pytest.mark.parametrize("gamma_steps", [None, 5])
@pytest.mark.parametrize("variables", ["prunable", "all"])
@pytest.mark.parametrize("rule", ["relevance", "lobster"])
@pytest.mark.parametrize("inner", INNER)
def test_steps_are_those_of_the_formula(
    inner: str, rule: str, variables: str, gamma_steps: int | None
) -> None:
    make, reference = INNER[inner]
    model, oracle = net(), reference()
    optimizer = RelevanceDecay(
        make(), 0.05, 0.1, rule=rule, variables=variables, gamma_steps=gamma_steps
    )
    model.compile(optimizer, "mse")
    weights = [w.astype(np.float64) for w in model.get_weights()]
    model.fit(X, Y, epochs=4, **FIT)
    for step in range(8):
        half = slice(8 * (step % 2), 8 * (step % 2) + 8)
        found = gradients(weights, X[half].astype(np.float64), Y[half].astype(np.float64))
        gamma = 0.05 * (1.0 if gamma_steps is None else max(0.0, 1 - step / gamma_steps))
        for place, g in enumerate(found):
            w = weights[place]
            if variables == "all" or place in (0, 2):
                g = g + 2 * gamma * factor(rule, np.abs(g), 0.1) * w
            weights[place] = oracle.step(w, g, place)
    for found_, wanted in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(found_, wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("alpha", [0.1, "auto"])
def test_without_gamma_it_is_the_inner_optimizer_bit_for_bit(alpha: float | str) -> None:
    plain, wrapped = net(), net()
    plain.compile(keras.optimizers.Adam(0.01), "mse")
    wrapped.compile(RelevanceDecay(keras.optimizers.Adam(0.01), 0.0, alpha), "mse")
    for model in (plain, wrapped):
        model.fit(X, Y, epochs=3, **FIT)
    for one, other in zip(plain.get_weights(), wrapped.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
def test_an_automatic_alpha_comes_to_the_quantile(quantile: float) -> None:
    sizes = np.abs(rng.standard_normal((40, 50))).astype("float32") ** 3 * 1e-4
    variable = keras.Variable(np.ones((40, 50), "float32"), name="kernel")
    optimizer = RelevanceDecay(keras.optimizers.SGD(0.0), 1e-3, "auto", quantile=quantile)
    optimizer.build([variable])
    for _ in range(600):
        optimizer.apply([ops.convert_to_tensor(sizes)], [variable])
    (alpha,) = (float(ops.convert_to_numpy(a)) for a in optimizer._alphas.values())
    below = float(np.mean(sizes <= alpha))
    assert below == pytest.approx(quantile, abs=0.03)


def test_an_automatic_alpha_survives_gradients_that_are_zero() -> None:
    variable = keras.Variable(np.ones((3, 4), "float32"), name="kernel")
    optimizer = RelevanceDecay(keras.optimizers.SGD(0.5), 0.1, "auto")
    optimizer.build([variable])
    for _ in range(3):
        optimizer.apply([ops.zeros((3, 4))], [variable])
    np.testing.assert_allclose(ops.convert_to_numpy(variable), 0.9**3, rtol=1e-5)


def one_step(optimizer: Any, grads: list[NDArray[Any]]) -> NDArray[Any]:
    """What a kernel of 1, 2, 3 is after the optimizer was given these gradients."""
    variable = keras.Variable(np.array([[1.0, 2.0, 3.0]], "float32"), name="kernel")
    optimizer.build([variable])
    for g in (ops.convert_to_tensor(g.astype("float32")) for g in grads):
        if keras.backend.backend() == "jax":  # whose optimizers are without a state in a fit
            state = [ops.convert_to_tensor(v) for v in optimizer.variables]
            new, state = optimizer.stateless_apply(state, [g], [ops.convert_to_tensor(variable)])
            for v, value in zip([variable, *optimizer.variables], [*new, *state], strict=True):
                v.assign(value)
        else:
            optimizer.apply([g], [variable])
    return ops.convert_to_numpy(variable)


W = np.array([[1.0, 2.0, 3.0]])
G = np.array([[0.01, -0.1, 1.0]])


def decayed(g: NDArray[Any]) -> NDArray[Any]:
    return g + 2 * 0.1 * np.exp(-np.abs(g) / 0.1) * W


def test_gradients_are_clipped_after_the_decay() -> None:
    optimizer = RelevanceDecay(keras.optimizers.SGD(1.0, clipvalue=0.15), 0.1, 0.1)
    np.testing.assert_allclose(one_step(optimizer, [G]), W - np.clip(decayed(G), -0.15, 0.15), 1e-5)


def test_of_accumulated_gradients_each_is_decayed_by_its_own() -> None:
    inner = keras.optimizers.SGD(1.0, gradient_accumulation_steps=2)
    wanted = W - (decayed(G) + decayed(-3 * G)) / 2
    np.testing.assert_allclose(
        one_step(RelevanceDecay(inner, 0.1, 0.1), [G, -3 * G]), wanted, rtol=1e-5
    )


def test_scaled_losses_are_unscaled_first() -> None:
    wanted = one_step(RelevanceDecay(keras.optimizers.SGD(1.0), 0.1, 0.1), [G])
    outside = keras.optimizers.LossScaleOptimizer(
        RelevanceDecay(keras.optimizers.SGD(1.0, loss_scale_factor=8.0), 0.1, 0.1),
        initial_scale=64.0,
    )
    np.testing.assert_allclose(one_step(outside, [64 * G]), wanted, rtol=1e-5)
    within = RelevanceDecay(keras.optimizers.SGD(1.0, loss_scale_factor=64.0), 0.1, 0.1)
    assert within.scale_loss(2.0) == 128.0
    np.testing.assert_allclose(one_step(within, [64 * G]), wanted, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_variable_without_a_gradient_stays() -> None:
    one, other = (keras.Variable(np.ones((2, 2), "float32"), name="kernel") for _ in range(2))
    optimizer = RelevanceDecay(keras.optimizers.SGD(1.0), 0.1, 0.1)
    optimizer.build([one, other])
    optimizer.apply([None, ops.zeros((2, 2))], [one, other])
    np.testing.assert_array_equal(ops.convert_to_numpy(one), 1.0)
    np.testing.assert_allclose(ops.convert_to_numpy(other), 0.8, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.1, "auto"])
def test_a_saved_run_goes_on_as_one_that_was_not(alpha: float | str, tmp_path: Path) -> None:
    model = net()
    inner = keras.optimizers.Adam(0.01)
    given = {"quantile": 0.3} if alpha == "auto" else {}
    model.compile(RelevanceDecay(inner, 0.05, alpha, gamma_steps=20, **given), "mse")
    model.fit(X, Y, epochs=2, **FIT)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert isinstance(loaded.optimizer, RelevanceDecay)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    for one in (model, loaded):
        one.fit(X, Y, epochs=2, **FIT)
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_gamma_falls_and_begins_again_at_a_reset() -> None:
    variable = keras.Variable(np.ones((1, 1), "float32"), name="kernel")
    optimizer = RelevanceDecay(keras.optimizers.SGD(0.5), 0.2, 1.0, gamma_steps=2)
    optimizer.build([variable])
    factors = []
    for step in range(6):
        if step == 4:
            optimizer.reset()
        before = float(ops.convert_to_numpy(variable)[0, 0])
        optimizer.apply([ops.zeros((1, 1))], [variable])
        factors.append(float(ops.convert_to_numpy(variable)[0, 0]) / before)
    np.testing.assert_allclose(factors, [0.8, 0.9, 1.0, 1.0, 0.8, 0.9], rtol=1e-5)


def test_the_learning_rate_is_the_inner_one() -> None:
    optimizer = RelevanceDecay("sgd", 0.1, 0.1)
    optimizer.learning_rate = 0.25
    assert float(optimizer.inner_optimizer.learning_rate) == 0.25
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    optimizer = RelevanceDecay(keras.optimizers.SGD(schedule), 0.0, 0.1)
    one_step(optimizer, [G, G])
    assert int(optimizer.iterations) == 2
    assert float(optimizer.learning_rate) == pytest.approx(0.125)


def test_what_is_zero_is_held_at_zero() -> None:
    model = net()
    model.compile(RelevanceDecay(keras.optimizers.Adam(0.01), 0.05, "auto"), "mse")
    prune(model, 0.5)
    before = model.get_weights()[0] == 0
    model.fit(X, Y, epochs=3, callbacks=[KeepZeros()], **FIT)
    np.testing.assert_array_equal(model.get_weights()[0] == 0, before)


def test_it_trains_in_mixed_precision_and_with_embeddings() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            layers.Embedding(7, 4),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    model.compile(RelevanceDecay("adam", 1e-3, "auto", variables="all"), "mse")
    tokens = np.random.default_rng(0).integers(0, 7, (16, 3))
    history = model.fit(tokens, Y, epochs=3, **FIT)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert np.isfinite(history.history["loss"]).all()


def test_averaged_weights_are_swapped_in_mixed_precision_too() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential([keras.Input((6,)), layers.Dense(2)])
    inner = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5)
    model.compile(RelevanceDecay(inner, 1e-3, "auto"), "mse")
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    model.fit(X, Y, epochs=2, callbacks=[swap], **FIT)
    averages = inner._model_variables_moving_average
    for weight, average in zip(model.weights, averages, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), ops.convert_to_numpy(average))


REPLICAS = """
import keras, numpy as np, tensorflow as tf
from keras_l0 import RelevanceDecay
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
rng = np.random.default_rng(0)
x, y = rng.normal(size=(16, 6)).astype("f"), rng.normal(size=(16, 2)).astype("f")
found = []
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
        model.compile(RelevanceDecay(keras.optimizers.SGD(0.1), 0.5, 0.1, gamma_steps=9), "mse")
    model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
    found.append(model.get_weights())
for one, other in zip(*found):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
"""


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="MirroredStrategy is TensorFlow's"
)
def test_replicas_take_the_step_that_one_device_would() -> None:
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def wrapped() -> Any:
    return RelevanceDecay("sgd", 0.1, 0.1)


def test_numbers_of_numpy_are_plain_ones_in_the_configuration() -> None:
    given = {"alpha": np.float32(0.5), "quantile": np.float64(0.5), "gamma_steps": np.int64(7)}
    optimizer = RelevanceDecay("sgd", np.float32(0.25), **given)
    config = {**optimizer.get_config(), "optimizer": None}
    json.dumps(config)
    assert (config["gamma"], config["alpha"], config["gamma_steps"]) == (0.25, 0.5, 7)


@pytest.mark.parametrize("alpha", [1e-9, "auto"])
def test_a_gradient_of_zero_harms_nothing_in_float16(alpha: Any) -> None:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(2, dtype="float16")])
    optimizer = RelevanceDecay(keras.optimizers.SGD(1e-3), 1e-3, alpha)
    model.compile(optimizer, "mse", auto_scale_loss=False)
    model.fit(np.zeros((8, 6), np.float32), np.zeros((8, 2), np.float32), verbose=0)
    assert all(np.isfinite(w).all() for w in model.get_weights())


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "gamma": ({"gamma": -1e-3}, invalid("gamma", "a finite float >= 0", -1e-3)),
    "NaN": ({"gamma": math.nan}, invalid("gamma", "a finite float >= 0", math.nan)),
    "alpha": ({"alpha": -1.0}, invalid("alpha", 'a finite float >= 1e-12, or "auto"', -1.0)),
    "tiny alpha": ({"alpha": 1e-40}, "Expected a finite float >= 1e-12"),
    "huge alpha": ({"alpha": 10**400}, "Expected a finite float >= 1e-12"),
    "huge gamma": ({"gamma": 10**400}, "Expected a finite float >= 0"),
    "no optimizer": ({"optimizer": {"a": 1}}, "Expected a Keras optimizer or its name"),
    "no alpha": ({"alpha": 0}, invalid("alpha", 'a finite float >= 1e-12, or "auto"', 0)),
    "word": ({"alpha": "best"}, invalid("alpha", 'a finite float >= 1e-12, or "auto"', "'best'")),
    "variables": ({"variables": "some"}, invalid("variables", '"prunable" or "all"', "'some'")),
    "rule": ({"rule": "l2"}, invalid("rule", '"relevance" or "lobster"', "'l2'")),
    "idle quantile": ({"quantile": 0.3}, 'Expected 0.5 unless alpha="auto"'),
    "quantile": ({"quantile": 1.0}, invalid("quantile", "a float in (0, 1)", 1.0)),
    "steps": ({"gamma_steps": 0}, invalid("gamma_steps", "None or an integer >= 1", 0)),
    "array": ({"alpha": np.ones(2)}, 'Expected a finite float >= 1e-12, or "auto"'),
    "rules": ({"rule": np.ones(2)}, 'Expected "relevance" or "lobster"'),
    "name": ({"optimizer": "best"}, "Expected a Keras optimizer or its name"),
    "nothing": ({"optimizer": None}, "Expected a Keras optimizer or its name"),
    "twice": ({"optimizer": wrapped}, "It is wrapped already"),
    "scaled": (
        {"optimizer": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())},
        r"Write LossScaleOptimizer\(RelevanceDecay\(inner, ...\)\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_told(name: str) -> None:
    given, message = BAD[name]
    given = {key: value() if callable(value) else value for key, value in given.items()}
    with pytest.raises(ValueError, match=message):
        RelevanceDecay(**{"optimizer": "sgd", "gamma": 0.1, "alpha": 0.1, **given})


def test_gradients_that_do_not_fit_are_told_of_as_by_the_inner_optimizer() -> None:
    optimizer = RelevanceDecay("sgd", 0.1, "auto")
    with pytest.raises(ValueError, match="must already be built"):
        optimizer.apply([ops.zeros(2)])
    optimizer.apply([])
    variables = [keras.Variable(np.ones(2), dtype="float32", name="kernel") for _ in range(3)]
    optimizer.apply([ops.ones(2)] * 2, variables[:2])
    with pytest.raises(ValueError, match="Received a list of 1 gradients"):
        optimizer.apply([ops.ones(2)])
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.apply([ops.ones(2)], variables[2:])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow writes it")
def test_a_model_trained_with_it_can_be_exported(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(RelevanceDecay("adam", 1e-3, "auto"), "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
    model.export(tmp_path / "saved", verbose=False)
    assert (tmp_path / "saved" / "saved_model.pb").is_file()
