"""Sparsity and both compressions are the design's counts."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from keras import layers
from strategies import dense_network, kernels

from keras_l0 import L2L0
from keras_l0.pruning.measure import measure, penalty, ratio
from keras_l0.pruning.targets import find_targets


@given(arrays=kernels())
@settings(max_examples=15)
def test_zeros_sparsity_and_compressions_are_counted(arrays: list[np.ndarray]) -> None:
    model = dense_network(arrays)
    found = measure(model, find_targets(model))
    size = sum(array.size for array in arrays)
    zeros = sum(int(np.sum(array == 0)) for array in arrays)
    biases = sum(array.shape[1] for array in arrays)
    assert (found.zeros, found.sparsity) == (zeros, zeros / size)
    assert found.compression == (size + biases) / (size + biases - zeros)
    assert found.weight_compression == (size / (size - zeros) if zeros < size else math.inf)


def test_zeros_outside_the_weights_chosen_count_in_the_compression_alone() -> None:
    model = dense_network([np.eye(2, dtype=np.float32)] * 2, use_bias=False)
    found = measure(model, find_targets(model, "d1"))
    assert (found.zeros, found.sparsity, found.weight_compression) == (2, 0.5, 2.0)
    assert found.compression == 8 / 4


def test_biases_normalization_and_their_zeros_count_as_left() -> None:
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2), layers.BatchNormalization()])
    model.layers[0].kernel.assign(np.eye(2))
    assert measure(model, find_targets(model)).compression == (4 + 2 + 8) / (14 - 2)


def test_a_model_without_weights_has_a_sparsity_of_0_and_compressions_of_1() -> None:
    model = keras.Sequential([keras.Input((2,)), layers.Flatten()])
    found = measure(model, find_targets(model))
    assert (found.zeros, found.sparsity) == (0, 0.0)
    assert (found.compression, found.weight_compression) == (1.0, 1.0)


def test_the_penalty_is_the_sum_of_the_regularizers_of_what_trains() -> None:
    model = dense_network(
        [np.ones((2, 2), np.float32), np.ones((3, 1), np.float32)],
        kernel_regularizer=L2L0(l2=0.5),
        bias_regularizer="l2",
    )
    assert penalty(model) == pytest.approx(0.5 * 7)
    model.get_layer("d0").trainable = False
    assert penalty(model) == pytest.approx(0.5 * 3)


def test_no_regularizer_is_a_penalty_of_0() -> None:
    assert penalty(dense_network([np.ones((2, 2), np.float32)])) == 0.0


def test_ratios_at_nothing() -> None:
    assert (ratio(6, 4), ratio(3, 0), ratio(0, 0), ratio(0, 2)) == (1.5, math.inf, 1.0, 0.0)
