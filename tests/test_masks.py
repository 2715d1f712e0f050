"""The masks are those of a stable sort, and the shares of layers add up to the whole."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import shapes, smallest_oracle, sparsities, weights

from keras_l0.pruning.masks import apportion, erk_shares, smallest, uniform_shares


@pytest.fixture(autouse=True)
def fresh_keras() -> None:
    """In place of conftest's: nothing here knows Keras."""


Arrays = list[NDArray[np.float32]]


def sizes(arrays: Arrays) -> int:
    return sum(array.size for array in arrays)


@given(arrays=weights(), sparsity=sparsities)
@settings(deadline=None)
def test_exactly_the_rounded_share_goes_and_of_equals_the_earlier(
    arrays: Arrays, sparsity: float
) -> None:
    scores = [np.abs(array) for array in arrays]
    count = round(sparsity * sizes(arrays))
    found = smallest(scores, count)
    assert sum(int(mask.sum()) for mask in found) == count
    for mask, expected in zip(found, smallest_oracle(scores, count), strict=True):
        assert mask.dtype == bool
        assert mask.shape == expected.shape
        np.testing.assert_array_equal(mask, expected)


@given(arrays=weights(), data=st.data())
@settings(deadline=None)
def test_a_higher_count_takes_all_that_a_lower_one_took(
    arrays: Arrays, data: st.DataObject
) -> None:
    high = data.draw(st.integers(0, sizes(arrays)))
    low = data.draw(st.integers(0, high))
    pairs = zip(smallest(arrays, low), smallest(arrays, high), strict=True)
    assert all(np.all(more | ~less) for less, more in pairs)


@given(arrays=weights(), data=st.data())
@settings(deadline=None)
def test_what_goes_is_nowhere_larger_than_what_stays(arrays: Arrays, data: st.DataObject) -> None:
    masks = smallest(arrays, data.draw(st.integers(0, sizes(arrays))))
    gone = [a[m] for a, m in zip(arrays, masks, strict=True)]
    left = [a[~m] for a, m in zip(arrays, masks, strict=True)]
    assert max((g.max() for g in gone if g.size), default=-np.inf) <= min(
        (x.min() for x in left if x.size), default=np.inf
    )


@pytest.mark.parametrize("count", range(7))
def test_of_equal_scores_the_earlier_go_array_by_array_in_row_major_order(count: int) -> None:
    order = np.asfortranarray(np.ones((2, 2)))
    found = smallest([order, np.ones((0, 3)), np.ones(2)], count)
    assert np.concatenate([mask.ravel() for mask in found]).tolist() == [
        i < count for i in range(6)
    ]


def test_zero_and_minus_zero_are_equal_scores() -> None:
    assert smallest([np.array([0.0, -0.0, 0.0])], 1)[0].tolist() == [True, False, False]


def test_infinite_scores_have_their_order() -> None:
    found = smallest([np.array([np.inf, 1.0, -np.inf])], 2)
    assert found[0].tolist() == [False, True, True]


def test_no_arrays_give_no_masks() -> None:
    assert smallest([], 0) == []


def test_one_weight_goes_or_stays() -> None:
    assert smallest([np.array(3.0)], 0)[0].tolist() is False
    assert smallest([np.array(3.0)], 1)[0].tolist() is True


def test_the_scores_are_left_as_they_were() -> None:
    scores = [np.array([3.0, 1.0, 2.0]), np.array([0.5])]
    smallest(scores, 2)
    assert [score.tolist() for score in scores] == [[3.0, 1.0, 2.0], [0.5]]


sizes_of_layers = st.lists(st.integers(0, 1000), min_size=1, max_size=6)


@given(layers=sizes_of_layers, sparsity=sparsities)
def test_uniform_shares_are_one_sparsity_for_all(layers: list[int], sparsity: float) -> None:
    zeros = sparsity * sum(layers)
    for size, share in zip(layers, uniform_shares(layers, zeros), strict=True):
        assert share == pytest.approx(sparsity * size, rel=1e-12)


layer_shapes = st.lists(shapes.filter(lambda shape: len(shape) > 0), min_size=1, max_size=5)


@given(layers=layer_shapes, sparsity=sparsities)
def test_erk_densities_are_in_proportion_and_at_most_1(
    layers: list[tuple[int, ...]], sparsity: float
) -> None:
    counts = [math.prod(shape) for shape in layers]
    zeros = sparsity * sum(counts)
    shares = erk_shares(layers, zeros)
    assert math.fsum(shares) == pytest.approx(zeros, rel=1e-9, abs=1e-9)
    factors = []
    raws_of_dense = []
    for shape, size, share in zip(layers, counts, shares, strict=True):
        assert -1e-9 <= share <= size + 1e-9
        if size == 0:
            continue
        raw = sum(shape) / size
        if share > 1e-9 * size:
            factors.append((1 - share / size) / raw)
        else:
            raws_of_dense.append(raw)
    # One factor for all layers that lose any; a dense layer would pass 1 with it.
    if factors:
        np.testing.assert_allclose(factors, factors[0], rtol=1e-6, atol=1e-9)
        assert all(raw * factors[0] >= 1 - 1e-6 for raw in raws_of_dense)


def test_erk_of_lenet_300_100_is_the_formula() -> None:
    layers = [(784, 300), (300, 100), (100, 10)]
    zeros = 200_000
    shares = erk_shares(layers, zeros)
    # The last one's density would be above 1: it stays dense, the others share the rest.
    factor = (266_200 - zeros - 1000) / (1084 + 400)
    np.testing.assert_allclose(shares, [235_200 - factor * 1084, 30_000 - factor * 400, 0.0])


def test_erk_of_a_convolution_counts_all_its_dimensions() -> None:
    shares = erk_shares([(3, 3, 64, 128), (3, 3, 128, 256)], 300_000)
    left = [73_728 - shares[0], 294_912 - shares[1]]
    assert left[0] / left[1] == pytest.approx(198 / 390)


@given(data=st.data())
def test_apportioned_counts_are_the_shares_rounded_and_sum_to_the_total(
    data: st.DataObject,
) -> None:
    layers = data.draw(sizes_of_layers)
    shares = uniform_shares(layers, data.draw(sparsities) * sum(layers))
    total = round(math.fsum(shares))
    counts = apportion(shares, total)
    assert sum(counts) == total
    for count, share, size in zip(counts, shares, layers, strict=True):
        assert math.floor(share) <= count <= math.ceil(share) <= size


def test_of_equal_remainders_the_earlier_is_rounded_up() -> None:
    assert apportion([0.5, 1.5, 0.5, 0.5], 2) == [1, 1, 0, 0]
