"""L2L0 is the paper's penalty on every backend, and Table 1 tells what gradient descent does."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops
from numpy.typing import NDArray
from strategies import invalid

from keras_l0 import L2L0, fusion, largest_alpha, regularizers, scaling_factor, zero_attraction

Factors = tuple[float, float, float]


@pytest.fixture(autouse=True)
def fresh_keras() -> None:
    """In place of conftest's: no layer is named here, and clearing a session takes long."""
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)


FACTORS: list[Factors] = [
    (1e-5, 1e-5, 10.0),
    (0.3, 0.0, 10.0),
    (0.0, 0.7, 1.0),
    (2.0, 0.5, 1e6),
    (1e-8, 1e3, 100.0),
]


def penalty_oracle(w: NDArray[Any], l2: float, l0: float, beta: float) -> float:
    """Equation 17 in float64."""
    w = np.asarray(w, np.float64)
    return float(l2 * np.sum(w * w) + l0 * np.sum(-np.expm1(-beta * np.abs(w))))


def gradient_oracle(w: NDArray[Any], l2: float, l0: float, beta: float) -> NDArray[np.float64]:
    """The derivative of equation 17 in float64."""
    w = np.asarray(w, np.float64)
    return 2 * l2 * w + l0 * beta * np.sign(w) * np.exp(-beta * np.abs(w))


@functools.lru_cache(maxsize=1)
def in_training(regularizer: L2L0) -> Callable[[Any], Any]:
    """The penalty as a compiled step has it, which on TensorFlow is another one."""
    if keras.backend.backend() != "tensorflow":
        return regularizer
    import tensorflow as tf

    return tf.function(regularizer)


def value(regularizer: L2L0, w: NDArray[Any]) -> float:
    return float(ops.convert_to_numpy(in_training(regularizer)(ops.convert_to_tensor(w))))


def gradient(function: Callable[[Any], Any], w: NDArray[Any], dtype: str = "float32") -> Any:
    """The gradient of a scalar function of one tensor, by the backend's own means."""
    x = ops.cast(ops.convert_to_tensor(w), dtype)
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(x)
                found = function(x)
            return tape.gradient(found, x)
        case "jax":
            import jax

            return jax.grad(function)(x)
        case _:
            x = x.detach().clone().requires_grad_(True)
            function(x).backward()
            return x.grad


def gradient_of(regularizer: L2L0, w: NDArray[Any]) -> NDArray[np.float32]:
    return ops.convert_to_numpy(gradient(in_training(regularizer), w))


def spread(low: float, high: float, count: int = 400) -> NDArray[np.float32]:
    """Weights of both signs whose sizes are spread evenly in the logarithm."""
    sizes = np.geomspace(low, high, count)
    return np.where(np.arange(count) % 2, -sizes, sizes).astype(np.float32)


@pytest.mark.parametrize("factors", FACTORS)
def test_value_is_equation_17_in_float64(factors: Factors) -> None:
    w = np.random.default_rng(0).normal(0, 0.1, (30, 20)).astype(np.float32)
    assert value(L2L0(*factors), w) == pytest.approx(penalty_oracle(w, *factors), rel=1e-6)


def test_value_of_a_kernel_of_a_real_layers_size_is_right() -> None:
    w = np.random.default_rng(0).normal(0, 0.05, (784, 300)).astype(np.float32)
    for factors in [(1.0, 0.0, 10.0), (0.0, 1.0, 10.0)]:
        assert value(L2L0(*factors), w) == pytest.approx(penalty_oracle(w, *factors), rel=1e-6)


@given(
    w=hnp.arrays(
        np.float32,
        st.sampled_from([(), (0,), (1,), (7,), (3, 2), (2, 3, 2), (2, 0, 3), (1, 2, 2, 3)]),
        elements=st.floats(-8.0, 8.0, width=32, allow_subnormal=False),
    ),
    l2=st.sampled_from([0.0, 1e-6, 0.5]),
    l0=st.sampled_from([0.0, 1e-6, 0.5]),
    beta=st.sampled_from([1.0, 10.0, 333.0]),
)
@settings(max_examples=25)
def test_value_and_gradient_are_right_for_any_shape(
    w: NDArray[np.float32], l2: float, l0: float, beta: float
) -> None:
    regularizer = L2L0(l2, l0, beta)
    expected = penalty_oracle(w, l2, l0, beta)
    assert value(regularizer, w) == pytest.approx(expected, rel=2e-6, abs=1e-36)
    found = gradient_of(regularizer, w)
    assert found.shape == w.shape
    np.testing.assert_allclose(found, gradient_oracle(w, l2, l0, beta), rtol=1e-5, atol=1e-36)


@pytest.mark.parametrize("factors", FACTORS)
def test_gradient_is_the_formula_in_float64(factors: Factors) -> None:
    w = spread(1e-6, 85 / factors[2])  # exp(-88) is 0 in float32
    expected = gradient_oracle(w, *factors)
    np.testing.assert_allclose(gradient_of(L2L0(*factors), w), expected, rtol=1e-6)


@pytest.mark.parametrize("factors", [(0.3, 0.0, 10.0), (0.0, 0.7, 1.0), (0.2, 0.5, 10.0)])
def test_gradient_agrees_with_finite_differences(factors: Factors) -> None:
    w = np.array([-0.8, -0.3, -0.05, 0.04, 0.2, 0.9], np.float32)
    step = 0.01
    differences = [
        (value(L2L0(*factors), w[i : i + 1] + step) - value(L2L0(*factors), w[i : i + 1] - step))
        / (2 * step)
        for i in range(w.size)
    ]
    np.testing.assert_allclose(gradient_of(L2L0(*factors), w), differences, rtol=5e-3, atol=1e-4)


@pytest.mark.parametrize("factors", [*FACTORS, (0.0, 1.0, 1e6)])
def test_gradient_is_exactly_0_at_0(factors: Factors) -> None:
    w = np.array([0.0, -0.0, 0.3, 0.0], np.float32)
    found = gradient_of(L2L0(*factors), w)
    assert found[[0, 1, 3]].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("beta", [1.0, 10.0, 1e6])
@pytest.mark.parametrize("exponent", [-30, -15, -3, 0, 15, 20, 30])
def test_l0_is_right_wherever_the_weight_lies(exponent: int, beta: float) -> None:
    w = np.array([10.0**exponent], np.float32)
    regularizer = L2L0(l0=1.0, beta=beta)
    expected = penalty_oracle(w, 0, 1.0, beta)
    assert value(regularizer, w) == pytest.approx(expected, rel=1e-6)
    slope = gradient_oracle(w, 0, 1.0, beta)
    np.testing.assert_allclose(gradient_of(regularizer, w), slope, rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize("beta", [1.0, 10.0, 1e6])
def test_l0_keeps_its_digits_where_one_minus_exp_would_cancel(beta: float) -> None:
    regularizer = L2L0(l0=1.0, beta=beta)
    for w in spread(1e-9 / beta, 10.0 / beta, 60):
        expected = penalty_oracle(w, 0, 1.0, beta)
        assert value(regularizer, np.array([w])) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("exponent", [-18, -9, 0, 9, 18])
def test_l2_is_right_wherever_float32_holds_the_square(exponent: int) -> None:
    w = np.array([10.0**exponent, -(10.0**exponent)], np.float32)
    regularizer = L2L0(l2=0.5)
    assert value(regularizer, w) == pytest.approx(penalty_oracle(w, 0.5, 0, 10), rel=1e-6)
    np.testing.assert_allclose(
        gradient_of(regularizer, w), gradient_oracle(w, 0.5, 0, 10), rtol=1e-6
    )


@pytest.mark.parametrize("weight", [1e-30, 1.0, 1e18, 1e30])
def test_the_default_gives_a_tensor_of_0(weight: float) -> None:
    found = L2L0()(np.array([weight], np.float32))
    assert keras.ops.is_tensor(found)
    assert found.shape == ()
    assert float(found) == 0.0
    assert gradient_of(L2L0(), np.array([weight], np.float32)).tolist() == [0.0]


def test_the_default_arguments_are_those_of_the_design() -> None:
    assert L2L0().get_config() == {"l2": 0.0, "l0": 0.0, "beta": 10.0}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_weights_are_penalized_in_float32(dtype: str) -> None:
    # 300² is beyond float16, and 2e-4 · 1e-3 below what it holds.
    w = np.array([300.0, 0.25, -0.25, 1e-3], np.float32)
    narrow = ops.cast(w, dtype)
    regularizer = L2L0(l2=2e-4, l0=1e-3, beta=10)
    found = regularizer(narrow)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    exact = ops.convert_to_numpy(ops.cast(narrow, "float32"))
    assert float(found) == pytest.approx(penalty_oracle(exact, 2e-4, 1e-3, 10), rel=1e-6)
    slope = gradient(regularizer, w, dtype)
    assert keras.backend.standardize_dtype(slope.dtype) == dtype
    np.testing.assert_allclose(
        ops.convert_to_numpy(ops.cast(slope, "float32")),
        gradient_oracle(exact, 2e-4, 1e-3, 10),
        rtol=1e-2,
    )


def test_gradient_is_scaled_by_what_stands_around_the_penalty() -> None:
    w = np.array([0.1, -0.2], np.float32)
    regularizer = L2L0(l2=0.1, l0=0.2, beta=5)
    found = ops.convert_to_numpy(gradient(lambda x: 3.0 * regularizer(x), w))
    np.testing.assert_allclose(found, 3 * gradient_oracle(w, 0.1, 0.2, 5), rtol=1e-5)


def test_config_round_trip_gives_the_same_regularizer() -> None:
    regularizer = L2L0(l2=1e-5, l0=3e-6, beta=7)
    config = regularizer.get_config()
    assert config == {"l2": 1e-5, "l0": 3e-6, "beta": 7.0}
    assert all(type(part) is float for part in config.values())
    again = keras.regularizers.deserialize(keras.regularizers.serialize(regularizer))
    assert type(again) is L2L0
    assert again.get_config() == config


def test_numpy_numbers_are_kept_as_plain_floats() -> None:
    config = L2L0(np.float32(0.5), np.int64(1), np.float64(2.5)).get_config()
    assert config == {"l2": 0.5, "l0": 1.0, "beta": 2.5}
    assert all(type(part) is float for part in config.values())


def test_the_name_in_files_is_keras_l0_l2l0() -> None:
    found = keras.saving.serialize_keras_object(L2L0(l0=1e-5))
    assert found["registered_name"] == "keras_l0>L2L0"


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_a_model_is_saved_and_loaded_with_it(policy: str, tmp_path: Path) -> None:
    keras.config.set_dtype_policy(policy)
    layer = keras.layers.Dense(3, kernel_regularizer=L2L0(0.25, 0.5, 20))
    model = keras.Sequential([keras.Input((4,)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[0].kernel_regularizer) is L2L0
    assert loaded.layers[0].kernel_regularizer.get_config() == {"l2": 0.25, "l0": 0.5, "beta": 20}
    (loss,) = loaded.losses
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    expected = penalty_oracle(ops.convert_to_numpy(layer.kernel), 0.25, 0.5, 20)
    assert float(ops.convert_to_numpy(loss)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_penalty_takes_part_in_the_training_loss_and_the_step(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    layer = keras.layers.Dense(2, use_bias=False, kernel_regularizer=L2L0(0.25, 0.5, 10))
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = ops.convert_to_numpy(layer.kernel).copy()
    history = model.fit(np.zeros((4, 3)), np.zeros((4, 2)), batch_size=4, verbose=0)
    (loss,) = history.history["loss"]
    assert loss == pytest.approx(penalty_oracle(before, 0.25, 0.5, 10), rel=1e-5)
    expected = before - 0.1 * gradient_oracle(before, 0.25, 0.5, 10)
    np.testing.assert_allclose(ops.convert_to_numpy(layer.kernel), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["l2", "l0"])
@pytest.mark.parametrize("bad", [-1e-9, math.nan, math.inf, True, "1e-5", None])
def test_a_bad_factor_is_refused(name: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=invalid(name, "a finite float >= 0", repr(bad))):
        L2L0(**{name: bad})


@pytest.mark.parametrize("bad", [0.999, 0, -10, math.nan, math.inf, False, "10", None])
def test_a_bad_beta_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match=invalid("beta", "a finite float >= 1", repr(bad))):
        L2L0(beta=bad)


# The paper's Table 1, once more, written from the paper.
TABLE_1: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "l2": (
        lambda w, a, n, _: -2 * n * a * w,
        lambda w, a, n, _: np.full_like(w, 1 - 2 * n * a),
        lambda w, n, _: np.full_like(w, 1 / n),
    ),
    "l1": (
        lambda w, a, n, _: -n * a * np.sign(w),
        lambda w, a, n, _: 1 - n * a / np.abs(w),
        lambda w, n, _: 2 * np.abs(w) / n,
    ),
    "l0": (
        lambda w, a, n, b: -n * a * b * np.sign(w) * np.exp(-b * np.abs(w)),
        lambda w, a, n, b: 1 - n * a * b * np.exp(-b * np.abs(w)) / np.abs(w),
        lambda w, n, b: 2 * np.abs(w) / (n * b * np.exp(-b * np.abs(w))),
    ),
}
NORMS = [("l2", None), ("l1", None), ("l0", 1.0), ("l0", 5.0), ("l0", 10.0)]


@pytest.mark.parametrize(("norm", "beta"), NORMS)
def test_the_functions_give_table_1(norm: str, beta: float | None) -> None:
    w = np.array([[-1.5, -0.3], [-0.01, 0.02], [0.4, 2.0]])
    attraction, factor, bound = TABLE_1[norm]
    np.testing.assert_allclose(
        zero_attraction(w, 0.01, 0.04, norm, beta), attraction(w, 0.01, 0.04, beta), rtol=1e-12
    )
    np.testing.assert_allclose(
        scaling_factor(w, 0.01, 0.04, norm, beta), factor(w, 0.01, 0.04, beta), rtol=1e-12
    )
    np.testing.assert_allclose(largest_alpha(w, 0.04, norm, beta), bound(w, 0.04, beta), rtol=1e-12)


@pytest.mark.parametrize("beta", [5.0, 10.0])
def test_the_l0_attraction_of_figure_2_is_greatest_next_to_zero_and_none_at_it(
    beta: float,
) -> None:
    w = np.linspace(0.0, 1.0, 101)
    pull = -zero_attraction(w, 0.01, 0.04, "l0", beta)
    assert pull[0] == 0.0
    assert np.all(np.diff(pull[1:]) < 0)
    assert np.all(pull[1:] < 0.04 * 0.01 * beta)
    np.testing.assert_array_equal(zero_attraction(-w, 0.01, 0.04, "l0", beta), pull)


def regularizer_of(norm: str, alpha: float, beta: float | None) -> Any:
    match norm:
        case "l2":
            return L2L0(l2=alpha)
        case "l1":
            return keras.regularizers.L1(alpha)
        case _:
            return L2L0(l0=alpha, beta=beta)


def descend(cases: list[tuple[float, Any]], rate: float, steps: int) -> NDArray[np.float64]:
    """Plain gradient descent by Keras on penalties alone: each weight after each step."""
    x = keras.Input((1,))
    layers = [keras.layers.Dense(1, use_bias=False, kernel_regularizer=r) for _, r in cases]
    model = keras.Model(x, [layer(x) for layer in layers])
    model.set_weights([np.array([[w]], np.float32) for w, _ in cases])
    model.compile(keras.optimizers.SGD(rate), "mse")
    track = [np.ravel(model.get_weights())]
    nothing = np.zeros((1, 1), np.float32)
    for _ in range(steps):
        model.train_on_batch(nothing, [nothing] * len(cases))
        track.append(np.ravel(model.get_weights()))
    return np.array(track, np.float64)


@pytest.mark.parametrize(("norm", "beta"), NORMS)
def test_a_weight_shrinks_in_a_step_just_if_alpha_is_below_the_bound(
    norm: str, beta: float | None
) -> None:
    rate = 0.04
    pairs = [(w, share) for w in (-0.5, 0.1, 0.8) for share in (0.3, 0.99, 1.01, 2.0)]
    alphas = [share * float(largest_alpha(w, rate, norm, beta)) for w, share in pairs]
    cases = [(w, regularizer_of(norm, a, beta)) for (w, _), a in zip(pairs, alphas, strict=True)]
    before, after = descend(cases, rate, 1)
    for (w, share), alpha, old, new in zip(pairs, alphas, before, after, strict=True):
        factor = float(scaling_factor(w, alpha, rate, norm, beta))
        assert new / old == pytest.approx(factor, rel=1e-4)
        assert (abs(factor) < 1) == (share < 1)
        assert (abs(new) < abs(old)) == (share < 1)


@given(
    w=st.floats(1e-4, 3.0) | st.floats(-3.0, -1e-4),
    rate=st.floats(1e-4, 1.0),
    case=st.sampled_from(NORMS),
    share=st.floats(0.01, 5.0).filter(lambda share: abs(share - 1) > 1e-9),
)
def test_the_scaling_factor_is_below_1_just_if_alpha_is_below_the_bound(
    w: float, rate: float, case: tuple[str, float | None], share: float
) -> None:
    alpha = share * float(largest_alpha(w, rate, *case))
    assert (abs(float(scaling_factor(w, alpha, rate, *case))) < 1) == (share < 1)


def test_under_l0_alone_a_weight_ends_in_an_oscillation_about_zero() -> None:
    rate, alpha, beta = 0.04, 0.01, 10.0
    penalty = L2L0(l0=alpha, beta=beta)
    track = descend([(0.1, penalty), (-0.07, penalty)], rate, 120)
    for path in track.T:
        caught = alpha > largest_alpha(path, rate, "l0", beta)
        assert not caught[0]  # large enough at first to be drawn in steadily
        first = int(np.argmax(caught))
        assert caught.any()
        assert np.all(np.diff(np.abs(path[: first + 1])) < 0)
        tail = path[first:]
        assert np.all(tail != 0)
        assert {-1.0, 1.0} <= set(np.sign(tail[-40:]))
        assert np.abs(tail).max() <= rate * alpha * beta
        # Under the bound the next step throws it over zero, and further out.
        for i in np.flatnonzero(caught[:-1]):
            assert np.sign(path[i + 1]) == -np.sign(path[i])
            assert abs(path[i + 1]) >= abs(path[i])


@pytest.mark.parametrize(("norm", "beta"), NORMS)
def test_at_zero_there_is_no_pull_and_no_ratio(norm: str, beta: float | None) -> None:
    zero = np.zeros(2)
    assert zero_attraction(zero, 0.1, 0.1, norm, beta).tolist() == [0.0, 0.0]
    assert np.isnan(scaling_factor(zero, 0.1, 0.1, norm, beta)).all()
    assert largest_alpha(zero, 0.1, norm, beta).tolist() == [10.0 if norm == "l2" else 0.0] * 2


@pytest.mark.parametrize("w", [1e-320, 5e-324, 1e-300, 70.0, 71.0, 74.0, 80.0])
@pytest.mark.parametrize(("norm", "beta"), [("l2", None), ("l1", None), ("l0", 10.0)])
def test_the_ends_of_float64_pass_without_a_warning(
    w: float, norm: str, beta: float | None
) -> None:
    for sign in (1.0, -1.0):
        assert np.isfinite(zero_attraction(sign * w, 0.01, 0.1, norm, beta))
        assert scaling_factor(sign * w, 0.01, 0.1, norm, beta) <= 1.0
        assert largest_alpha(sign * w, 0.1, norm, beta) >= 0.0


def test_no_alpha_is_too_large_where_the_pull_underflows() -> None:
    assert largest_alpha(1e4, 0.1, "l0", 10.0) == math.inf


Function = Callable[..., Any]


def attraction(**arguments: Any) -> Any:
    return zero_attraction(**{"w": 0.5, "alpha": 0.1, "learning_rate": 0.1} | arguments)


def factor(**arguments: Any) -> Any:
    return scaling_factor(**{"w": 0.5, "alpha": 0.1, "learning_rate": 0.1} | arguments)


def bound(**arguments: Any) -> Any:
    return largest_alpha(**{"w": 0.5, "learning_rate": 0.1} | arguments)


@pytest.mark.parametrize("function", [attraction, factor, bound])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "l3"}, invalid("norm", '"l2", "l1" or "l0"', "'l3'")),
        ({"norm": None}, invalid("norm", '"l2", "l1" or "l0"', "None")),
        ({"norm": "l0"}, invalid("beta", 'a finite float >= 1 for norm="l0"', "None")),
        ({"norm": "l0", "beta": 0.5}, invalid("beta", "a finite float >= 1", "0.5")),
        ({"norm": "l0", "beta": math.inf}, invalid("beta", "a finite float >= 1", "inf")),
        (
            {"norm": "l2", "beta": 5.0},
            invalid("beta", 'None, since norm="l2" has none', "5.0"),
        ),
        (
            {"norm": "l1", "beta": 5.0},
            invalid("beta", 'None, since norm="l1" has none', "5.0"),
        ),
        *(
            (
                {"norm": "l2", "learning_rate": bad},
                invalid("learning_rate", "a finite float > 0", repr(bad)),
            )
            for bad in (0.0, -0.1, math.nan, math.inf, "0.1", True)
        ),
    ],
)
def test_table_1_refuses_bad_arguments(
    function: Function, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        function(**arguments)


@pytest.mark.parametrize("function", [attraction, factor])
@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, True, "0.1"])
def test_table_1_refuses_a_bad_alpha(function: Function, bad: Any) -> None:
    with pytest.raises(ValueError, match=invalid("alpha", "a finite float >= 0", repr(bad))):
        function(norm="l2", alpha=bad)


@pytest.mark.parametrize("function", [attraction, factor, bound])
def test_a_learning_rate_may_be_a_numpy_number(function: Function) -> None:
    found = function(norm="l2", learning_rate=np.float32(0.5))
    np.testing.assert_allclose(found, function(norm="l2", learning_rate=0.5), rtol=1e-12)


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="the others have none")
@pytest.mark.parametrize("shape", [(6, None), (None, 3), (None, None)])
def test_a_size_may_be_unknown_when_the_step_is_traced(shape: tuple[int | None, ...]) -> None:
    import tensorflow as tf

    w = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    regularizer = L2L0(1e-3, 1e-2, 12.0)
    traced = tf.function(regularizer, input_signature=[tf.TensorSpec(shape, "float32")])
    np.testing.assert_allclose(float(traced(w)), value(regularizer, w), rtol=1e-6)
    found = tf.function(
        lambda w: gradient(regularizer, w), input_signature=[tf.TensorSpec(shape, "float32")]
    )(w)
    np.testing.assert_allclose(found, gradient_oracle(w, 1e-3, 1e-2, 12.0), rtol=1e-6)


@pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="the others join operations by themselves"
)
def test_the_penalty_is_the_same_where_tensorflow_has_no_xla(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import tensorflow as tf

    has_xla = fusion._has_xla
    w = keras.Variable(np.random.default_rng(0).normal(size=(30, 7)).astype(np.float32))

    def evaluated() -> Any:
        with tf.GradientTape() as tape:
            value = L2L0(1e-3, 1e-2, 12.0)(w)
        return tf.concat([[value], tf.reshape(tape.gradient(value, w.value), [-1])], 0)

    found = [evaluated().numpy()]  # eagerly, where nothing is compiled
    for has in (True, False):
        monkeypatch.setattr(fusion, "_has_xla", lambda has=has: has)
        regularizers._functions.cache_clear()
        found.append(tf.function(evaluated)().numpy())
    regularizers._functions.cache_clear()
    for one in found[1:]:
        np.testing.assert_allclose(one, found[0], rtol=1e-6)
    assert has_xla()


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="compiled by TensorFlow")
def test_one_compilation_serves_all_strengths(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    made = []
    monkeypatch.setattr(regularizers, "fused", lambda f: made.append(tf.function(f)) or made[-1])
    regularizers._functions.cache_clear()
    w = keras.Variable(np.ones((3, 2), np.float32))
    found = [float(tf.function(L2L0(l2, 1e-2, 12.0))(w)) for l2 in (1e-3, 2e-3, 3e-3)]
    regularizers._functions.cache_clear()
    assert len(set(found)) == 3
    assert [f.experimental_get_tracing_count() for f in made] == [1, 0]
