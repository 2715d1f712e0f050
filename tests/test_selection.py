"""The k smallest are those of a stable sort, in whatever parts and digits they are counted."""

import tracemalloc
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import FLOAT32_MAX, smallest, smallest_oracle, weights

from keras_l0.pruning import selection
from keras_l0.pruning.selection import Cut, by_size, by_value, find_cut, zeroed

Array = NDArray[Any]

DTYPES = [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]
VALUES = [0.0, 2.0**-9, 0.5, 0.75, 1.0, 1.5, 2.0, 256.0]  # each dtype has all of these


@pytest.fixture(autouse=True)
def fresh_keras() -> None:
    """In place of conftest's: nothing here knows Keras."""


@pytest.fixture(
    params=[(2**17, 2**24, 2**20), (3, 2**24, 2**20), (3, 24, 7), (2**17, 24, 7), (3, 0, 3)],
    ids=str,
)
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many numbers are looked at at once, brought together, and in a sample."""
    for name, size in zip(("CHUNK", "FEW", "SAMPLE"), request.param, strict=True):
        monkeypatch.setattr(selection, name, size)


@pytest.mark.parametrize("dtype", DTYPES)
def test_keys_have_the_order_of_the_sizes_and_of_the_values(dtype: Any) -> None:
    rising = np.array([-value for value in VALUES[:0:-1]] + VALUES, dtype)
    assert np.all(np.diff(by_value(rising).astype(object)) > 0)
    sizes = by_size(rising).astype(object)
    assert sizes.tolist() == sizes[::-1].tolist()
    assert np.all(np.diff(sizes[len(VALUES) - 1 :]) > 0)
    assert sizes[len(VALUES) - 1] == 0


def test_keys_tell_neighbours_apart_and_no_zeros() -> None:
    edges = [1e-45, 1e-40, 1e-38, 1.0, FLOAT32_MAX, np.inf]
    x = np.array([[e, -e, np.nextafter(np.float32(e), np.float32(0))] for e in edges], np.float32)
    for key in (by_size, by_value):
        keys = key(x)
        assert np.all(keys[:, 0] > keys[:, 2])
        zero, minus = key(np.array([0.0, -0.0], np.float32))
        assert zero == minus < keys[0, 0]
    assert np.array_equal(by_size(x)[:, 0], by_size(x)[:, 1])
    assert np.all(by_value(x)[:, 1] < by_value(np.zeros(1, np.float32)))


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@given(arrays=weights(), data=st.data())
@settings(max_examples=30)
def test_the_smallest_are_those_of_a_stable_sort(
    dtype: Any, arrays: list[Array], data: st.DataObject
) -> None:
    with np.errstate(over="ignore"):  # some are infinite in float16
        scores = [array.astype(dtype) for array in arrays]
    count = data.draw(st.integers(0, sum(score.size for score in scores)))
    wanted = smallest_oracle([score.astype(np.float64) for score in scores], count)
    for mask, expected in zip(smallest(scores, count), wanted, strict=True):
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("order", [by_size, by_value])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_cut_is_at_the_last_that_goes(order: Any, dtype: Any) -> None:
    """Numbers that differ in each of their digits alone, and each three times."""
    bits = 8 * np.dtype(dtype).itemsize
    one = np.ones(1, dtype).view(f"u{bits // 8}")
    different = np.concatenate([one + (1 << shift) for shift in range(0, bits - 12, 5)])
    rng = np.random.default_rng(0)
    x = rng.permutation(np.repeat(different, 3)).view(dtype)
    sorted_keys = np.sort(order(x))
    for count in range(x.size + 1):
        cut = find_cut(lambda: [x[:5], x[5:]], x.size, count, order)
        if not count:
            assert cut == Cut(0, 0)
            continue
        assert cut.key == sorted_keys[count - 1]
        assert cut.ties == count - np.count_nonzero(sorted_keys < cut.key)
        copy, taken = zeroed(x, Cut(cut.key, x.size), order)
        np.testing.assert_array_equal(copy, np.where(order(x) <= cut.key, 0, x))
        assert taken == np.count_nonzero(order(x) == cut.key)
        copy, taken = zeroed(x, cut, order)
        gone = np.argsort(order(x), kind="stable")[:count]
        expected = x.copy()
        expected[gone] = 0
        np.testing.assert_array_equal(copy, expected)
        assert taken == cut.ties


@pytest.mark.parametrize("count", [1, 500, 65_000, 130_000, 199_999, 200_000])
@pytest.mark.parametrize("even", [False, True])
def test_a_sample_that_misleads_costs_passes_and_nothing_else(
    count: int, even: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers of a sample are larger than all others, or they are as the others are."""
    monkeypatch.setattr(selection, "FEW", 2**18)
    monkeypatch.setattr(selection, "SAMPLE", 2**12)
    monkeypatch.setattr(selection, "_sample", lambda flat, every, _: flat[::every])
    x = np.random.default_rng(0).random(200_000, np.float32)
    every = 49  # of which one is in the sample
    if not even:
        x[::every] += 1
    passes = []

    def arrays() -> list[Array]:
        passes.append(1)
        return [x[: every * 1000], x[every * 1000 :]]

    cut = find_cut(arrays, x.size, count, by_size)
    assert cut.key == np.sort(by_size(x))[count - 1]
    misled = not even and count < x.size - x[::every].size
    assert len(passes) == (4 if misled else 2)


def test_a_sample_has_weights_of_each_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "FEW", 2**18)
    monkeypatch.setattr(selection, "SAMPLE", 2**16)
    x = np.random.default_rng(0).random((1024, 192), np.float32)  # one of three is in the sample
    x[:, ::3] += 1
    passes = []

    def arrays() -> list[Array]:
        passes.append(1)
        return [x]

    cut = find_cut(arrays, x.size, x.size // 2, by_size)
    assert cut.key == np.sort(by_size(x), axis=None)[x.size // 2 - 1]
    assert len(passes) == 2


def test_memory_does_not_grow_with_the_number_of_arrays() -> None:
    def peak(number: int) -> int:
        def arrays() -> Iterator[Array]:
            for seed in range(number):
                yield np.random.default_rng(seed).random((1000, 300), np.float32)

        tracemalloc.start()
        find_cut(arrays, number * 300_000, number * 200_000, by_size)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(5), peak(40)
    assert many < 1.05 * few
    assert many < 2**24
