"""The masks are those of a stable sort, and the shares of layers add up to the whole."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from strategies import (
    blocks,
    blocks_of,
    eighths,
    pattern_oracle,
    shapes,
    smallest,
    smallest_oracle,
    sparsities,
    weights,
)

from keras_l0.pruning.masks import (
    apportion,
    beyond_pattern,
    block_grid,
    block_sums,
    erk_shares,
    fewest,
    spread_blocks,
    uniform_shares,
)


@pytest.fixture(autouse=True)
def fresh_keras() -> None:
    """In place of conftest's: nothing here knows Keras."""


Arrays = list[NDArray[np.float32]]


def sizes(arrays: Arrays) -> int:
    return sum(array.size for array in arrays)


@given(arrays=weights(), sparsity=sparsities)
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
def test_a_higher_count_takes_all_that_a_lower_one_took(
    arrays: Arrays, data: st.DataObject
) -> None:
    high = data.draw(st.integers(0, sizes(arrays)))
    low = data.draw(st.integers(0, high))
    pairs = zip(smallest(arrays, low), smallest(arrays, high), strict=True)
    assert all(np.all(more | ~less) for less, more in pairs)


@given(arrays=weights(), data=st.data())
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


exact = shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=eighths))


@given(array=exact, block=blocks)
def test_each_block_has_the_sum_of_its_weights_also_at_the_edge(
    array: NDArray[np.float32], block: tuple[int, int]
) -> None:
    sums = block_sums(array, block)
    assert sums.dtype == np.float64
    assert sums.shape == block_grid(array.shape, block)
    expected = [sum(float(array[p]) for p in places) for _, places in blocks_of(array.shape, block)]
    assert sums.ravel().tolist() == expected
    counts = block_sums(np.ones(array.shape, bool), block)
    assert counts.sum() == array.size
    assert counts.ravel().tolist() == [len(p) for _, p in blocks_of(array.shape, block)]


def test_a_sum_of_large_weights_is_finite_and_of_small_ones_is_not_zero() -> None:
    large = np.full((4, 1), np.finfo(np.float32).max, np.float32)
    small = np.array([[0.0], [1e-45], [0.0], [0.0]], np.float32)
    assert np.isfinite(block_sums(large, (4, 1)))
    assert block_sums(small, (4, 1)) > 0


@given(shape=shapes, block=blocks, data=st.data())
def test_a_mask_of_blocks_is_spread_over_just_their_weights(
    shape: tuple[int, ...], block: tuple[int, int], data: st.DataObject
) -> None:
    gone = data.draw(hnp.arrays(bool, block_grid(shape, block)))
    mask = spread_blocks(gone, block, shape)
    assert mask.shape == shape
    assert mask.dtype == bool
    for own, places in blocks_of(shape, block):
        assert all(mask[place] == gone[own] for place in places)


@given(array=exact, keep=st.integers(1, 6), more=st.one_of(st.integers(1, 6), st.just(10**30)))
def test_beyond_a_pattern_are_all_but_the_largest_of_each_group(
    array: NDArray[np.float32], keep: int, more: int
) -> None:
    found = beyond_pattern(np.abs(array), keep, keep + more)
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, pattern_oracle(array, keep, keep + more))


def test_groups_lie_along_the_input_axis() -> None:
    array = np.array([[1.0, 9.0], [2.0, 8.0], [3.0, 7.0], [4.0, 6.0], [5.0, 5.0]])
    gone = [[True, False], [True, False], [False, True], [False, True], [False, False]]
    assert beyond_pattern(array, 2, 4).tolist() == gone
    assert beyond_pattern(array[:, 0], 2, 4).tolist() == [row[0] for row in gone]


def test_booleans_rank_as_numbers_in_a_group_cut_short() -> None:
    array = np.array([True, True, False, True, True, False, True])
    assert beyond_pattern(array, 2, 4).tolist() == [True, False, True, False, False, True, False]


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


@given(layers=layer_shapes, sparsity=sparsities, block=blocks)
def test_erk_of_blocks_keeps_densities_of_blocks_in_proportion(
    layers: list[tuple[int, ...]], sparsity: float, block: tuple[int, int]
) -> None:
    counts = [math.prod(block_grid(shape, block)) for shape in layers]
    zeros = sparsity * sum(counts)
    shares = erk_shares(layers, zeros, counts)
    assert math.fsum(shares) == pytest.approx(zeros, rel=1e-9, abs=1e-9)
    factors = []
    for shape, count, share in zip(layers, counts, shares, strict=True):
        assert -1e-9 <= share <= count + 1e-9
        if count and share > 1e-9 * count:
            factors.append((1 - share / count) / (sum(shape) / math.prod(shape)))
    if factors:
        np.testing.assert_allclose(factors, factors[0], rtol=1e-6, atol=1e-9)


@given(layers=layer_shapes, sparsity=sparsities)
def test_erk_of_blocks_of_one_weight_is_that_of_weights_to_the_last_bit(
    layers: list[tuple[int, ...]], sparsity: float
) -> None:
    sizes = [math.prod(shape) for shape in layers]
    zeros = sparsity * sum(sizes)
    assert erk_shares(layers, zeros, sizes) == erk_shares(layers, zeros)


gains_of_layers = st.lists(
    st.lists(st.integers(0, 5), max_size=12).map(lambda sizes: np.cumsum([0, *sizes])),
    min_size=1,
    max_size=4,
)


@given(gains=gains_of_layers, wanted=st.floats(-0.1, 1.0))
@settings(max_examples=300)
def test_the_fewest_are_found_as_by_trying_one_after_the_other(
    gains: list[NDArray[np.int64]], wanted: float
) -> None:
    sizes = [len(gain) - 1 for gain in gains]
    asked = wanted * sum(int(gain[-1]) for gain in gains)

    def shares(total: float) -> list[float]:
        return uniform_shares(sizes, total)

    for total in range(sum(sizes) + 1):
        counts = apportion(shares, total, sum(sizes))
        if sum(gain[count] for gain, count in zip(gains, counts, strict=True)) >= asked:
            break
    assert fewest(gains, asked, shares) == counts


@pytest.mark.parametrize("distribution", ["uniform", "erk"])
@given(shapes=st.lists(hnp.array_shapes(max_dims=3, max_side=4), min_size=1, max_size=6))
@settings(max_examples=20)
def test_apportioned_counts_sum_to_the_total_are_near_the_shares_and_never_fall(
    distribution: str, shapes: list[tuple[int, ...]]
) -> None:
    sizes = [math.prod(shape) for shape in shapes]

    def shares(total: float) -> list[float]:
        uniform = distribution == "uniform"
        return uniform_shares(sizes, total) if uniform else erk_shares(shapes, total)

    before = [0] * len(sizes)
    for total in range(sum(sizes) + 1):
        counts = apportion(shares, total, sum(sizes))
        assert sum(counts) == total
        for count, share, size, less in zip(counts, shares(total), sizes, before, strict=True):
            assert less <= count <= size
            # Half of itself, and what all the halves move the sparsity that they share.
            assert abs(count - share) <= 0.5 + len(sizes) / 2
        before = counts
    assert before == sizes


def test_no_count_falls_where_the_largest_remainder_lets_one_fall() -> None:
    """Of 11 zeros the middle layer's share has the largest remainder, of 16 the smallest."""
    found = [apportion(lambda n: uniform_shares([12, 1, 12], n), n, 25)[1] for n in range(26)]
    assert found == [0] * 13 + [1] * 13


def test_of_those_that_grow_at_once_the_earlier_come_first() -> None:
    found = [apportion(lambda n: uniform_shares([1, 3, 1, 1], n), n, 6) for n in range(7)]
    assert found[1:5] == [[0, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
