"""Targets become exact numbers of zeros: by layer, by compression, and only where they can."""

import math
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops
from strategies import (
    block_oracle,
    blocks,
    blocks_of,
    dense_network,
    eighth_kernels,
    holders,
    invalid,
    kernels,
    pattern_oracle,
    smallest_oracle,
    sparsities,
)

from keras_l0 import prune
from keras_l0.pruning.goals import Goal
from keras_l0.pruning.masks import apportion, erk_shares, uniform_shares
from keras_l0.pruning.measure import measure
from keras_l0.pruning.plan import global_plan, layerwise_plan
from keras_l0.pruning.quota import missing, prune_to
from keras_l0.pruning.scores import magnitude
from keras_l0.pruning.targets import find_targets
from keras_l0.pruning.units import SINGLE, Block, Pattern, Unit
from keras_l0.pruning.unpruned import UNFREEZE

# Nothing, or more than the rounding of a quotient, which the oracles below let pass.
wishes = st.one_of(st.just(0.0), st.floats(1e-6, 1.0))


def zeros_of(model: keras.Model) -> list[int]:
    return [
        int(np.sum(ops.convert_to_numpy(layer.kernel) == 0))
        for layer in model.layers
        if hasattr(layer, "kernel")
    ]


def lenet(*sizes: int, **layer: Any) -> keras.Model:
    stack = [layers.Dense(n, name=f"d{i}", **layer) for i, n in enumerate(sizes[1:])]
    return keras.Sequential([keras.Input((sizes[0],)), *stack], name="net")


def layerwise(model: keras.Model, goal: Goal | None = None, **how: Any) -> None:
    prune_to(layerwise_plan(model, find_targets(model), goal, **how), 1.0, magnitude)


@given(arrays=kernels(), sparsity=sparsities)
@settings(max_examples=15)
def test_uniform_takes_the_rounded_share_of_each_kernel(arrays: Any, sparsity: float) -> None:
    model = dense_network([np.where(array == 0, 1, array) for array in arrays])
    layerwise(model, Goal(sparsity=sparsity))
    assert zeros_of(model) == [round(sparsity * array.size) for array in arrays]


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9, 0.99])
def test_erk_takes_its_shares_and_just_the_sum(sparsity: float) -> None:
    model = lenet(64, 30, 20, 10)
    layerwise(model, Goal(sparsity=sparsity), distribution="erk")
    shapes = [(64, 30), (30, 20), (20, 10)]
    total = sparsity * sum(math.prod(shape) for shape in shapes)
    found = zeros_of(model)
    assert sum(found) == round(total)
    for count, share in zip(found, erk_shares(shapes, total), strict=True):
        assert abs(count - share) < 1


@pytest.mark.parametrize("how", [{}, {"distribution": "erk"}])
@pytest.mark.parametrize("compression", [1.0, 3.0, 17.3])
def test_layerwise_reaches_a_compression(how: dict[str, str], compression: float) -> None:
    model = lenet(64, 30, 20, 10)
    layerwise(model, Goal(compression=compression), **how)
    assert model.count_params() - sum(zeros_of(model)) == math.floor(
        model.count_params() / compression
    )


def test_sparsities_are_given_by_pattern_and_the_first_counts() -> None:
    model = lenet(10, 10, 10, 10, 10)
    layerwise(model, sparsities={"d1": 0.25, "net/d[12]": 0.5, "d3": 0.0})
    assert zeros_of(model) == [0, 25, 50, 0]


def test_a_pattern_of_sparsities_that_matches_nothing_is_refused() -> None:
    message = invalid(
        "sparsities",
        "patterns that match a layer that can be pruned",
        "'dense'",
        "These can be: d0/kernel, d1/kernel",
    )
    with pytest.raises(ValueError, match=message):
        layerwise(lenet(4, 4, 4), sparsities={"d0": 0.5, "dense": 0.5})


@given(
    arrays=kernels(),
    compression=st.one_of(st.sampled_from([1.0, 2.0]), st.floats(1.0, 20.0)),
)
@settings(max_examples=25)
def test_a_compression_is_reached_with_as_many_weights_left_as_it_allows(
    arrays: Any, compression: float
) -> None:
    model = dense_network([np.where(array == 0, 1, array) for array in arrays])
    parameters = model.count_params()
    biases = parameters - sum(array.size for array in arrays)
    if parameters / compression < biases:
        with pytest.raises(ValueError, match=r"`compression`\. Expected at most"):
            prune(model, compression=compression)
        assert sum(zeros_of(model)) == 0
        return
    found = prune(model, compression=compression)
    left = parameters - sum(zeros_of(model))
    assert found.compression == parameters / left
    assert parameters / left >= compression * (1 - 1e-12)
    assert parameters / (left + 1) < compression


def test_a_quotient_that_is_rounded_down_takes_no_weight_too_many() -> None:
    model = dense_network([np.ones((5, 5), np.float32), np.ones((5, 1), np.float32)])
    assert model.count_params() == 36
    assert prune(model, compression=1.2).zeros == 6


def test_all_parameters_over_those_left_where_biases_and_normalization_are_left() -> None:
    model = keras.Sequential(
        [keras.Input((10,)), layers.Dense(10), layers.BatchNormalization()], name="net"
    )
    assert model.count_params() == 150
    found = prune(model, compression=2)
    assert (found.zeros, found.compression) == (75, 2.0)
    assert found.weight_compression == 4.0
    assert found.sparsity == 0.75


def with_frozen() -> keras.Model:
    model = lenet(10, 10, 10, use_bias=False)
    model.layers[0].trainable = False
    return model


def test_frozen_layers_count_as_left_and_are_named() -> None:
    model = with_frozen()
    found = prune(model, compression=1.6)
    assert zeros_of(model) == [0, 75]
    assert found.frozen == ["net/d0/kernel"]
    assert found.compression == 1.6


def test_frozen_layers_count_in_the_sparsity() -> None:
    model = with_frozen()
    found = prune(model, 0.25)
    assert zeros_of(model) == [0, 50]
    assert found.sparsity == 0.25


def test_zeros_in_frozen_layers_count() -> None:
    model = with_frozen()
    model.layers[0].kernel.assign(np.eye(10))
    found = prune(model, 0.5)
    assert zeros_of(model) == [90, 10]
    assert found.sparsity == 0.5
    assert prune(model, compression=4).compression == 4.0
    assert zeros_of(model) == [90, 60]


@pytest.mark.parametrize(
    ("goal", "argument", "largest"),
    [({"compression": 2.5}, "compression", "2"), ({"sparsity": 0.6}, "sparsity", "0.5")],
)
@pytest.mark.parametrize("method", ["global", "layerwise", "random"])
def test_what_frozen_layers_put_out_of_reach_is_refused(
    goal: dict[str, float], argument: str, largest: str, method: str
) -> None:
    model = with_frozen()
    message = invalid(
        argument,
        f"at most {largest}, the largest reachable",
        str(goal[argument]),
        f"{UNFREEZE}: 100 of 200 prunable weights are frozen, in d0",
    )
    with pytest.raises(ValueError, match=message):
        prune(model, **goal, method=method)
    assert zeros_of(model) == [0, 0]
    prune(model, **goal, method=method, layers=["d0", "d1"])
    assert measure(model, find_targets(model)).sparsity >= 0.6


def test_the_largest_reachable_is_reachable() -> None:
    model = with_frozen()
    assert prune(model, compression=2.0).compression == 2.0
    assert zeros_of(model) == [0, 100]


def test_what_biases_put_out_of_reach_is_refused() -> None:
    message = invalid(
        "compression",
        "at most 5, the largest reachable",
        "5.5",
        "Biases, normalization and embeddings count as left",
    )
    with pytest.raises(ValueError, match=message):
        prune(lenet(4, 2), compression=5.5)


def test_what_the_layers_chosen_put_out_of_reach_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^Invalid value for argument `compression`\. Expected at most 2, the "
    ):
        prune(lenet(10, 10, 10, use_bias=False), compression=3, layers="d1")


def test_a_model_without_a_kernel_is_refused() -> None:
    model = keras.Sequential([keras.Input((3,)), layers.BatchNormalization()], name="net")
    expected = "a model with weights that can be pruned"
    advice = "None of its layers has a kernel"
    with pytest.raises(ValueError, match=invalid("model", expected, "'net'", advice)):
        prune(model, 0.5)


def test_a_model_with_every_kernel_frozen_is_refused() -> None:
    model = lenet(3, 3, trainable=False)
    advice = f"{UNFREEZE}: 9 of 9 prunable weights are frozen, in d0"
    expected = "a model with weights that can be pruned"
    with pytest.raises(ValueError, match=invalid("model", expected, "'net'", advice)):
        prune(model, 0.5)


def test_a_share_of_the_target_is_rounded_exactly() -> None:
    model = lenet(10, 10)
    quotas = global_plan(model, find_targets(model), Goal(sparsity=0.9))
    for share, zeros in [(0.0, 0), (0.25, 22), (0.5, 45), (0.1, 45), (1.0, 90)]:
        prune_to(quotas, share, magnitude)
        assert zeros_of(model) == [zeros]


# Blocks.


def values_of(model: keras.Model) -> Any:
    return [ops.convert_to_numpy(layer.kernel) for layer in model.layers[1:]]


def prune_units(model: keras.Model, goal: Goal | None, unit: Unit, share: float = 1.0) -> None:
    prune_to(global_plan(model, find_targets(model), goal, unit), share, magnitude)


def grid(arrays: Any, block: tuple[int, int]) -> list[int]:
    return [len(list(blocks_of(array.shape, block))) for array in arrays]


def left_by(model: keras.Model) -> int:
    return model.count_params() - sum(zeros_of(model))


@given(arrays=eighth_kernels(), block=blocks, sparsity=sparsities)
@settings(max_examples=40)
def test_just_the_rounded_share_of_all_blocks_goes_the_smallest_first(
    arrays: Any, block: tuple[int, int], sparsity: float
) -> None:
    model = holders(arrays)
    prune_units(model, Goal(sparsity), Block(*block))
    gone = block_oracle(arrays, block, round(sparsity * sum(grid(arrays, block))))
    for kernel, array, mask in zip(values_of(model), arrays, gone, strict=True):
        np.testing.assert_array_equal(kernel, np.where(mask, 0, array))


@given(arrays=kernels(), sparsity=sparsities)
@settings(max_examples=25)
def test_blocks_of_one_weight_are_single_weights(arrays: Any, sparsity: float) -> None:
    one, other = holders(arrays), holders(arrays)
    for goal in (Goal(sparsity), Goal(compression=1 + sparsity / 4)):
        prune_units(one, goal, Block(1, 1))
        prune_units(other, goal, SINGLE)
        for ours, theirs in zip(values_of(one), values_of(other), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@given(arrays=eighth_kernels(), block=blocks, fractions=st.lists(sparsities, min_size=3))
@settings(max_examples=25)
def test_each_layer_loses_the_rounded_share_of_its_blocks(
    arrays: Any, block: tuple[int, int], fractions: list[float]
) -> None:
    given = {f"h{i}": sparsity for i, sparsity in enumerate(fractions[: len(arrays)])}
    for how, wanted in (
        ({"goal": Goal(fractions[0])}, [fractions[0]] * len(arrays)),
        ({"goal": None, "sparsities": given}, list(given.values())),
    ):
        model = holders(arrays)
        layerwise(model, **how, unit=Block(*block))
        for kernel, array, sparsity in zip(values_of(model), arrays, wanted, strict=True):
            [count] = grid([array], block)
            [mask] = block_oracle([array], block, round(sparsity * count))
            np.testing.assert_array_equal(kernel, np.where(mask, 0, array))


def test_a_layers_blocks_are_its_share_of_them_though_a_division_would_miss_a_half() -> None:
    model = holders([np.ones(45, np.float32), np.ones(8, np.float32)])
    layerwise(model, Goal(0.1), unit=Block(1, 1))
    assert zeros_of(model) == [round(4.5), round(0.8)]


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9, 0.99])
def test_erk_takes_its_shares_of_blocks_and_just_the_sum(sparsity: float) -> None:
    model = lenet(64, 30, 20, 10)
    shapes, counts = [(64, 30), (30, 20), (20, 10)], [16 * 30, 8 * 20, 5 * 10]
    plan = layerwise_plan(model, find_targets(model), Goal(sparsity), "erk", unit=Block(4, 1))
    found = [quota.count() for quota in plan]
    assert sum(found) == round(sparsity * sum(counts))
    shares = erk_shares(shapes, sparsity * sum(counts), counts)
    for count, share in zip(found, shares, strict=True):
        assert abs(count - share) < 1
    prune_to(plan, 1.0, magnitude)
    for kernel, count in zip((layer.kernel for layer in model.layers), found, strict=True):
        array = ops.convert_to_numpy(kernel)
        dead = [all(array[p] == 0 for p in places) for _, places in blocks_of(array.shape, (4, 1))]
        assert sum(dead) == count


@given(arrays=eighth_kernels(), block=blocks, wish=wishes)
@settings(max_examples=60)
def test_a_compression_is_reached_by_the_fewest_smallest_blocks(
    arrays: Any, block: tuple[int, int], wish: float
) -> None:
    model = holders(arrays)
    parameters = model.count_params()
    compression = parameters / (parameters - wish * sum(array.size for array in arrays))
    prune_units(model, Goal(compression=compression), Block(*block))
    assert parameters / left_by(model) >= compression * (1 - 1e-12)
    for count in range(sum(grid(arrays, block)) + 1):
        gone = block_oracle(arrays, block, count)
        expected = [np.where(mask, 0, array) for mask, array in zip(gone, arrays, strict=True)]
        left = parameters - sum(int(np.sum(array == 0)) for array in expected)
        if parameters / left >= compression * (1 - 1e-12):
            break
    for kernel, array in zip(values_of(model), expected, strict=True):
        np.testing.assert_array_equal(kernel, array)


@pytest.mark.parametrize("distribution", ["uniform", "erk"])
@given(arrays=eighth_kernels(), block=blocks, wish=wishes)
@settings(max_examples=30)
def test_layerwise_reaches_a_compression_by_the_fewest_blocks_of_its_distribution(
    distribution: str, arrays: Any, block: tuple[int, int], wish: float
) -> None:
    model = holders(arrays)
    parameters = model.count_params()
    compression = parameters / (parameters - wish * sum(array.size for array in arrays))
    layerwise(model, Goal(compression=compression), distribution=distribution, unit=Block(*block))
    assert parameters / left_by(model) >= compression * (1 - 1e-12)
    counts = grid(arrays, block)

    def shares(total: float) -> list[float]:
        if distribution == "erk":
            return erk_shares([array.shape for array in arrays], total, counts)
        return uniform_shares(counts, total)

    for total in range(sum(counts) + 1):
        expected = []
        apportioned = apportion(shares, total, sum(counts))
        for array, count in zip(arrays, apportioned, strict=True):
            expected.append(np.where(block_oracle([array], block, count)[0], 0, array))
        left = parameters - sum(int(np.sum(array == 0)) for array in expected)
        if parameters / left >= compression * (1 - 1e-12):
            break
    for kernel, array in zip(values_of(model), expected, strict=True):
        np.testing.assert_array_equal(kernel, array)


def test_a_compression_that_no_blocks_reach_is_refused() -> None:
    model = holders([np.ones((5, 3))])
    for goal in (global_plan, layerwise_plan):
        message = invalid(
            "compression",
            "at most 6, the largest reachable",
            "6.1",
            "Biases, normalization and embeddings count as left",
        )
        with pytest.raises(ValueError, match=message):
            goal(model, find_targets(model), Goal(compression=6.1), unit=Block(4, 1))
    prune_units(model, Goal(compression=6), Block(4, 1))
    assert zeros_of(model) == [15]


def test_a_share_of_the_blocks_is_rounded_exactly_and_zeros_stay() -> None:
    array = np.arange(1.0, 81.0).reshape(20, 4)
    for share, dead in [(0.0, 0), (0.25, 4), (0.5, 9), (1.0, 18)]:
        model = holders([array])
        prune_units(model, Goal(0.9), Block(4, 1), share)
        assert zeros_of(model)[0] == 4 * dead
    prune_units(model, Goal(0.9), Block(4, 1), 0.25)
    assert zeros_of(model)[0] == 72


def test_zero_blocks_go_first_and_count_and_scattered_zeros_do_not() -> None:
    array = np.ones((8, 2))
    array[4:, 1] = 0  # the last block
    array[0, 0] = 0  # the smallest of the others
    model = holders([array])
    prune_units(model, Goal(0.5), Block(4, 1))
    array[:4, 0] = 0
    np.testing.assert_array_equal(values_of(model)[0], array)


def with_frozen_blocks() -> keras.Model:
    model = holders([np.ones((8, 5)), np.ones((8, 5))])
    model.layers[1].trainable = False
    return model


def test_blocks_of_frozen_layers_count_as_left_unless_they_are_zero() -> None:
    model = with_frozen_blocks()
    prune_units(model, Goal(0.25), Block(4, 1))
    assert zeros_of(model) == [0, 20]
    frozen = np.ones((8, 5))
    frozen[:4, :2] = 0  # two blocks
    frozen[:2, 2] = 0  # not one
    model.layers[1].kernel.assign(frozen)
    prune_units(model, Goal(0.5), Block(4, 1))
    assert zeros_of(model) == [10, 32]
    prune_units(model, Goal(0.6), Block(4, 1))
    assert zeros_of(model) == [10, 40]
    message = invalid(
        "sparsity",
        "at most 0.6, the largest reachable",
        "0.65",
        f"{UNFREEZE}: 40 of 80 prunable weights are frozen, in h0",
    )
    with pytest.raises(ValueError, match=message):
        prune_units(model, Goal(0.65), Block(4, 1))


def test_layers_that_are_not_frozen_share_the_blocks_of_all() -> None:
    model = holders([np.ones((8, 5)), np.ones((8, 5)), np.ones((8, 10))])
    model.layers[1].trainable = False
    layerwise(model, Goal(0.3), unit=Block(4, 1))  # 12 of 40 blocks, of the 30 that are live
    assert zeros_of(model) == [0, 4 * 4, 4 * 8]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_weights_go_in_blocks_and_patterns(dtype: str) -> None:
    for goal, unit in ((Goal(0.5), Block(4, 1)), (None, Pattern(2, 4))):
        array = np.arange(1, 17).reshape(8, 2) / 4
        model = dense_network([array], dtype=dtype)
        quotas = global_plan(model, find_targets(model), goal, unit)
        assert missing(quotas) == 8
        prune_to(quotas, 1.0, magnitude)
        found = ops.convert_to_numpy(ops.cast(model.layers[-1].kernel, "float32"))
        gone = block_oracle([array], (4, 1), 2)[0] if goal else pattern_oracle(array, 2, 4)
        np.testing.assert_array_equal(found, np.where(gone, 0, array))
        assert missing(quotas) == 0


def test_all_zeros_of_frozen_layers_count_in_the_compression_of_blocks() -> None:
    model = with_frozen_blocks()
    model.layers[1].kernel.assign(np.eye(8, 5))
    prune_units(model, Goal(compression=2), Block(4, 1))
    assert zeros_of(model) == [35, 8]  # 86 parameters, 43 left


# N:M.


@pytest.mark.parametrize("layer_by_layer", [False, True])
@given(arrays=eighth_kernels(), keep=st.integers(1, 3), more=st.integers(1, 3))
@settings(max_examples=25)
def test_of_each_group_the_largest_stay_and_the_others_are_zero(
    layer_by_layer: bool, arrays: Any, keep: int, more: int
) -> None:
    model = holders(arrays)
    make = layerwise_plan if layer_by_layer else global_plan
    plan = make(model, find_targets(model), None, unit=Pattern(keep, keep + more))
    prune_to(plan, 1.0, magnitude)
    for kernel, array in zip(values_of(model), arrays, strict=True):
        gone = pattern_oracle(array, keep, keep + more)
        np.testing.assert_array_equal(kernel, np.where(gone, 0, array))
        for _, places in blocks_of(array.shape, (keep + more, 1)):
            assert sum(kernel[place] != 0 for place in places) <= keep
    assert missing(plan) == 0


@pytest.mark.parametrize("layer_by_layer", [False, True])
@given(arrays=eighth_kernels(), share=st.floats(0.0, 1.0))
@settings(max_examples=25)
def test_a_share_of_a_pattern_takes_the_smallest_of_those_that_may_go(
    layer_by_layer: bool, arrays: Any, share: float
) -> None:
    model = holders(arrays)
    make = layerwise_plan if layer_by_layer else global_plan
    prune_to(make(model, find_targets(model), None, unit=Pattern(2, 4)), share, magnitude)
    may_go = [pattern_oracle(array, 2, 4) for array in arrays]
    scores = [np.where(gone, np.abs(a), np.inf) for gone, a in zip(may_go, arrays, strict=True)]
    ranked = [[score] for score in scores] if layer_by_layer else [scores]
    masks = [
        mask
        for together in ranked
        for mask in smallest_oracle(
            together, round(share * sum(int(np.isfinite(score).sum()) for score in together))
        )
    ]
    for kernel, array, mask in zip(values_of(model), arrays, masks, strict=True):
        np.testing.assert_array_equal(kernel, np.where(mask, 0, array))


def test_frozen_layers_are_left_alone_by_a_pattern() -> None:
    model = with_frozen_blocks()
    prune_units(model, None, Pattern(2, 4))
    assert zeros_of(model) == [0, 20]


def test_a_model_without_a_kernel_has_no_pattern() -> None:
    model = keras.Sequential([keras.Input((3,)), layers.BatchNormalization()], name="net")
    with pytest.raises(ValueError, match="Expected a model with weights that can be pruned"):
        prune_units(model, None, Pattern(2, 4))


# What is missing.


@pytest.mark.parametrize("unit", [SINGLE, Block(2, 3), Block(3, 1), Pattern(1, 3)])
@given(arrays=eighth_kernels(), share=st.floats(0.0, 1.0))
@settings(max_examples=25)
def test_missing_is_what_pruning_to_the_end_would_still_take(
    unit: Unit, arrays: Any, share: float
) -> None:
    model = holders(arrays)
    goals = [None] if isinstance(unit, Pattern) else [Goal(0.7), Goal(compression=1.05)]
    for goal in goals:
        for layer, array in zip(model.layers[1:], arrays, strict=True):
            layer.kernel.assign(array)
        for make in (global_plan, layerwise_plan):
            try:
                plan = make(model, find_targets(model), goal, unit=unit)
            except ValueError:  # the compression is out of reach
                continue
            prune_to(plan, share, magnitude)
            plan = make(model, find_targets(model), goal, unit=unit)
            before, found = sum(zeros_of(model)), missing(plan)
            prune_to(plan, 1.0, magnitude)
            assert found == sum(zeros_of(model)) - before
            assert missing(make(model, find_targets(model), goal, unit=unit)) == 0


@pytest.mark.parametrize("unit", [SINGLE, Block(4, 1), Pattern(2, 4)])
def test_weights_that_are_nan_can_be_missing(unit: Unit) -> None:
    model = holders([np.full((8, 2), np.nan)])
    goal = None if isinstance(unit, Pattern) else Goal(0.5)
    assert missing(global_plan(model, find_targets(model), goal, unit)) == 8


def test_a_layer_rounds_its_own_share_and_no_quotient() -> None:
    """0.1 · 45 is a half, which rounds to even; by way of the sum of all it would be above."""
    model = keras.Sequential(
        [keras.Input((45,)), keras.layers.Dense(1), keras.layers.Dense(8, use_bias=False)]
    )
    plan = layerwise_plan(model, find_targets(model), Goal(sparsity=0.1))
    assert [quota.count() for quota in plan] == [round(0.1 * 45), round(0.1 * 8)] == [4, 1]
