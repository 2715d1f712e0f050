"""The penalty and its gradient have their digits wherever a float32 or float16 weight may lie."""

import decimal
import math
from decimal import Decimal
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops
from numpy.typing import NDArray
from test_regularizers import gradient, gradient_of, gradient_oracle, penalty_oracle, spread, value

from keras_l0 import L2L0, largest_alpha, scaling_factor, zero_attraction

RIGHT = 1e-6
# Below it float32 has fewer digits, and compilers for speed take it for 0.
TINY = float(np.finfo(np.float32).tiny)
BETAS = [1.0, 3.3, 10.0, 333.3, 1e3, 123456.7, 1e6]


@pytest.fixture(autouse=True)
def fresh_keras() -> None:
    """In place of conftest's: no layer is named here, and clearing a session takes long."""
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)


def assert_gradient(w: NDArray[Any], l2: float, l0: float, beta: float) -> None:
    found = gradient_of(L2L0(l2, l0, beta), w)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    exact = gradient_oracle(w, l2, l0, beta)
    # exp(-βw) may be so small; the gradient has l0 β times as much.
    smallest = TINY * (l0 * beta + 1)
    assert (np.abs(found - exact) <= RIGHT * np.abs(exact) + smallest).all()


@pytest.mark.parametrize("beta", BETAS)
def test_the_l0_terms_gradient_is_right_from_1e_minus_30_to_1e30(beta: float) -> None:
    w = spread(1e-30, 1e30, 6000)
    where_it_bends = spread(1e-3 / beta, 200.0 / beta, 6000)
    for weights in (w, where_it_bends, np.float32([0.0, -0.0, 3e38, -3e38, TINY])):
        assert_gradient(weights, 0.0, 1.0, beta)


@pytest.mark.parametrize("beta", BETAS)
def test_the_l0_terms_value_is_right_from_1e_minus_30_to_1e30(beta: float) -> None:
    penalty = L2L0(l0=1.0, beta=beta)
    for w in [*spread(1e-30, 1e30, 61), *spread(1e-3 / beta, 200.0 / beta, 61)]:
        found = value(penalty, np.array([w]))
        assert found == pytest.approx(penalty_oracle(w, 0.0, 1.0, beta), rel=RIGHT, abs=0), w


@pytest.mark.parametrize("l2", [1.0, 0.37])
def test_the_l2_term_is_right_from_1e_minus_18_to_1e18(l2: float) -> None:
    w = spread(1e-18, 1e18, 4001)
    assert_gradient(w, l2, 0.0, 10.0)
    for weight in w[::50]:
        found = value(L2L0(l2=l2), np.array([weight]))
        exact = penalty_oracle(weight, l2, 0.0, 10.0)
        assert found == pytest.approx(exact, rel=RIGHT, abs=0), weight


sizes = st.one_of(
    st.floats(float(np.float32(1e-18)), float(np.float32(1e18)), width=32),
    st.floats(2**-10, 2**6, width=32),
    st.floats(-18, 18).map(lambda e: float(np.float32(10.0**e))),
)
signed = st.one_of(st.just(0.0), sizes, sizes.map(lambda w: -w))
factors = st.one_of(st.just(0.0), st.floats(1e-8, 10.0))


@given(
    # Few shapes: each is compiled anew.
    w=hnp.arrays(np.float32, st.sampled_from([(1,), (3, 4), (2, 2, 2, 3)]), elements=signed),
    l2=factors,
    l0=factors,
    beta=st.one_of(st.sampled_from(BETAS), st.floats(1.0, 1e6)),
)
@settings(max_examples=60)
@example(w=np.float32([6.6]), l2=0.0, l0=1e-5, beta=13.2)
def test_value_and_gradient_are_right_for_any_weights_and_factors(
    w: NDArray[np.float32], l2: float, l0: float, beta: float
) -> None:
    exact = penalty_oracle(w, l2, l0, beta)
    found = value(L2L0(l2, l0, beta), w)
    assert math.isfinite(found)
    assert found == pytest.approx(exact, rel=RIGHT, abs=TINY * (l0 * beta + 1) * w.size)
    assert_gradient(w, l2, l0, beta)


def test_every_float16_weight_has_its_penalty_and_the_nearest_float16_gradient() -> None:
    narrow = np.arange(2**16, dtype=np.uint16).view(np.float16)
    narrow = narrow[np.isfinite(narrow)]
    for l2, l0, beta in [(2e-4, 1e-3, 10.0), (0.0, 1.0, 1.0), (0.1, 0.01, 1e6)]:
        penalty = L2L0(l2, l0, beta)
        held = ops.convert_to_tensor(narrow)
        found = penalty(held)
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        exact = penalty_oracle(narrow, l2, l0, beta)
        assert float(ops.convert_to_numpy(found)) == pytest.approx(exact, rel=RIGHT, abs=0)
        slope = ops.convert_to_numpy(gradient(penalty, narrow, "float16"))
        assert slope.dtype == np.float16
        assert np.isfinite(slope).all()
        # Half a unit in the last of float16's 11 digits, and half of its smallest number.
        half = float(np.finfo(np.float16).eps) / 2
        np.testing.assert_allclose(
            slope.astype(np.float64),
            gradient_oracle(narrow, l2, l0, beta),
            rtol=half + RIGHT,
            atol=float(np.finfo(np.float16).smallest_subnormal) / 2 * (1 + RIGHT),
        )


# The paper's Table 1, in 50 decimal digits.


def attraction_oracle(w: float, alpha: float, rate: float, norm: str, beta: float) -> Decimal:
    sign = Decimal((w > 0) - (w < 0))
    scale = -Decimal(rate) * Decimal(alpha)
    match norm:
        case "l2":
            return 2 * scale * Decimal(w)
        case "l1":
            return scale * sign
        case _:
            return scale * Decimal(beta) * sign * (-Decimal(beta) * abs(Decimal(w))).exp()


any_weight = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(1e-12, 1e3)


@given(
    w=st.one_of(any_weight, st.floats(-3.0, 3.0)),
    alpha=st.one_of(st.just(0.0), positive),
    rate=positive,
    norm=st.sampled_from(["l2", "l1", "l0"]),
    beta=st.one_of(st.sampled_from(BETAS), st.floats(1.0, 1e6)),
)
@settings(max_examples=300)
@example(w=5e-324, alpha=1.0, rate=1.0, norm="l0", beta=10.0)
@example(w=-1.7e308, alpha=1e-3, rate=1e-2, norm="l2", beta=10.0)
def test_table_1_is_right_to_12_digits_for_any_weight(
    w: float, alpha: float, rate: float, norm: str, beta: float
) -> None:
    given_beta = beta if norm == "l0" else None
    with decimal.localcontext(decimal.Context(prec=50, Emin=-(10**9), Emax=10**9)):
        pull = attraction_oracle(w, alpha, rate, norm, beta)
        exact = float(pull) if abs(pull) <= Decimal(np.finfo(np.float64).max) else None
        factor = float(1 + pull / Decimal(w)) if w and exact is not None else None
    if exact is None:  # a step beyond float64
        return
    found = float(zero_attraction(w, alpha, rate, norm, given_beta))
    # What underflows loses digits, and then is multiplied by α, β and the rate.
    underflow = 5e-324 * (1 + alpha * rate * beta) * 4
    assert found == pytest.approx(exact, rel=1e-12, abs=underflow)
    assert found * w <= 0
    assert float(zero_attraction(-w, alpha, rate, norm, given_beta)) == -found
    if factor is not None and abs(w) > 1e-290 and abs(factor) < 1e300:
        ratio = float(scaling_factor(w, alpha, rate, norm, given_beta))
        assert ratio == pytest.approx(factor, rel=1e-11, abs=1e-11)
        bound = float(largest_alpha(w, rate, norm, given_beta))
        if not alpha * (1 - 1e-9) < bound < alpha * (1 + 1e-9):
            assert (abs(ratio) < 1) <= (alpha < bound)


@pytest.mark.parametrize("beta", BETAS)
def test_a_step_of_the_penalty_is_the_zero_attraction(beta: float) -> None:
    w = spread(1e-6 / beta, 80.0 / beta, 1000)
    pull = zero_attraction(w, 0.01, 0.5, "l0", beta)
    found = -0.5 * gradient_of(L2L0(l0=0.01, beta=beta), w)
    assert (np.abs(found - pull) <= RIGHT * np.abs(pull)).all()
    pull = zero_attraction(w, 0.01, 0.5, "l2")
    np.testing.assert_allclose(-0.5 * gradient_of(L2L0(l2=0.01), w), pull, rtol=RIGHT)
