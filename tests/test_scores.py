"""A score ranks weights, zeros first, and says what it cannot rank."""

import keras
import numpy as np
import pytest
from hypothesis import given
from keras import ops
from numpy.typing import NDArray
from strategies import FLOAT64, invalid, seeds, weights

from keras_l0.pruning.scores import Custom, check_seed, lamp, magnitude, random


@pytest.fixture(autouse=True)
def fresh_keras() -> None:
    """In place of conftest's: these are functions of arrays."""


Arrays = list[NDArray[np.float32]]


@given(arrays=weights())
def test_magnitude_is_the_absolute_value(arrays: Arrays) -> None:
    for score, array in zip(magnitude(arrays), arrays, strict=True):
        np.testing.assert_array_equal(score, np.abs(array))
        assert score.dtype == np.float32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", FLOAT64])
def test_magnitude_is_float32_or_wider(dtype: str) -> None:
    tensor = ops.cast(ops.convert_to_tensor(np.array([-2.0, 0.5])), dtype)
    (score,) = magnitude([ops.convert_to_numpy(tensor)])
    wide = keras.backend.standardize_dtype(tensor.dtype) == "float64"
    assert score.dtype == (np.float64 if wide else np.float32)
    assert score.tolist() == [2.0, 0.5]


@given(arrays=weights(), seed=seeds)
def test_random_ranks_zeros_first_and_all_else_by_the_seed_alone(arrays: Arrays, seed: int) -> None:
    score = random(seed)
    found = score(arrays)
    again = random(seed)([np.where(array == 0, 0, 2 * np.sign(array)) for array in arrays])
    for values, same, repeated, array in zip(found, again, score(arrays), arrays, strict=True):
        np.testing.assert_array_equal(values, same)
        np.testing.assert_array_equal(values, repeated)
        assert np.all(values[array == 0] == -1)
        assert np.all((values[array != 0] >= 0) & (values[array != 0] < 1))


def test_random_differs_from_seed_to_seed_and_is_uniform() -> None:
    ones = np.ones(10_000)
    (one,), (two,) = random(1)([ones]), random(2)([ones])
    assert np.mean(one == two) < 0.01
    assert one.mean() == pytest.approx(0.5, abs=0.02)
    assert np.quantile(one, [0.1, 0.9]).tolist() == pytest.approx([0.1, 0.9], abs=0.02)


def test_custom_ranks_zeros_first_whatever_the_function_says() -> None:
    (found,) = Custom(lambda w: -np.abs(w))([np.array([3.0, 0.0, -1.0, -0.0])])
    assert found.tolist() == [-3.0, -np.inf, -1.0, -np.inf]


def test_custom_takes_a_list_and_integers() -> None:
    (found,) = Custom(lambda w: [1, 2])([np.array([3.0, 4.0])])  # noqa: ARG005
    assert found.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("function", "received"),
    [
        (lambda w: w[:1], "(1, 3)"),
        (lambda w: w.sum(), "()"),
        (lambda w: np.full(w.shape, np.nan), "(2, 3)"),
        (lambda w: np.full(w.shape, -np.inf), "(2, 3)"),  # which is that of zeros
    ],
)
def test_custom_refuses_other_shapes_and_what_ranks_with_zeros(
    function: object, received: str
) -> None:
    expected = "a function that gives (2, 3) numbers above -inf for (2, 3)"
    with pytest.raises(ValueError, match=invalid("score", expected, received)):
        next(Custom(function)([np.ones((2, 3))]))


@pytest.mark.parametrize("seed", [0, 7, 2**63])
def test_a_seed_is_kept(seed: int) -> None:
    assert check_seed(seed) == seed


def test_no_seed_draws_another_each_time() -> None:
    assert len({check_seed(None) for _ in range(5)}) > 1


@pytest.mark.parametrize("bad", [-1, 1.0, True, "1"])
def test_a_bad_seed_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=invalid("seed", "None or an integer >= 0", repr(bad))):
        check_seed(bad)


def test_lamp_is_its_formula_for_each_tensor_by_itself() -> None:
    rng = np.random.default_rng(0)
    tensors = [rng.normal(size=(4, 5)), rng.normal(size=7) * 1e-6]
    tensors[0][0, 0] = 0.0
    for w, found in zip(tensors, lamp(tensors), strict=True):
        wanted = [u**2 / sum(v**2 for v in w.ravel() if abs(v) >= abs(u)) for u in w.ravel()]
        np.testing.assert_allclose(found.ravel(), wanted, rtol=1e-12)
        assert found.max() == 1.0
    assert [found.shape for found in lamp([np.zeros((2, 3))])] == [(2, 3)]
    assert not next(lamp([np.zeros((2, 3))])).any()
    assert next(lamp([np.array([1e-200, 0.0, 2e-200])])).tolist() == [0.2, 0.0, 1.0]
