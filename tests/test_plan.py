"""Targets become exact numbers of zeros: by layer, by compression, and only where they can."""

import math
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops
from strategies import dense_network, invalid, kernels, sparsities

from keras_l0 import prune
from keras_l0.pruning.goals import Goal
from keras_l0.pruning.masks import erk_shares
from keras_l0.pruning.measure import measure
from keras_l0.pruning.plan import global_plan, layerwise_plan, prune_to
from keras_l0.pruning.scores import magnitude
from keras_l0.pruning.targets import find_targets


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
@settings(max_examples=15, deadline=None)
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
@settings(max_examples=25, deadline=None)
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
        "Frozen weights are left alone: d0/kernel. `layers` includes them",
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
    advice = "Every kernel is frozen: name layers in `layers` to prune them all the same"
    expected = "a model with weights that can be pruned"
    with pytest.raises(ValueError, match=invalid("model", expected, "'net'", advice)):
        prune(model, 0.5)


def test_a_share_of_the_target_is_rounded_exactly() -> None:
    model = lenet(10, 10)
    quotas = global_plan(model, find_targets(model), Goal(sparsity=0.9))
    for share, zeros in [(0.0, 0), (0.25, 22), (0.5, 45), (0.1, 45), (1.0, 90)]:
        prune_to(quotas, share, magnitude)
        assert zeros_of(model) == [zeros]
