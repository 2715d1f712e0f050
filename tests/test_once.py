"""prune() zeroes just what was asked for, the same on every backend, or changes nothing."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops
from numpy.typing import NDArray
from strategies import (
    FLOAT32_MAX,
    FLOAT64,
    assert_same_bits,
    dense_network,
    invalid,
    kernels,
    numpy_weights,
    seeds,
    smallest_oracle,
    sparsities,
)

from keras_l0 import prune
from keras_l0.pruning.scores import lamp

METHODS = ["global", "layerwise", "random"]
Arrays = list[NDArray[np.float32]]


def kernels_of(model: keras.Model) -> Arrays:
    """The kernels, in the model's order."""
    return [np.array(ops.convert_to_numpy(v)) for v in model.weights if v.name.endswith("kernel")]


def scored(arrays: Arrays, score: str | None) -> Arrays:
    """By magnitude, or by the default."""
    return [np.abs(array) for array in arrays] if score else list(lamp(arrays))


@pytest.mark.parametrize("score", [None, "magnitude"])
@given(arrays=kernels(), sparsity=sparsities)
@settings(max_examples=25)
def test_global_zeroes_the_first_of_a_stable_sort_and_nothing_else(
    score: str | None, arrays: Arrays, sparsity: float
) -> None:
    model = dense_network(arrays)
    total = sum(array.size for array in arrays)
    there = sum(int(np.sum(array == 0)) for array in arrays)
    found = prune(model, sparsity, score=score)
    wanted = max(round(sparsity * total), there)
    assert found.zeros == wanted
    assert found.sparsity == wanted / total
    gone = smallest_oracle(scored(arrays, score), wanted)
    for kernel, array, mask in zip(kernels_of(model), arrays, gone, strict=True):
        np.testing.assert_array_equal(kernel, np.where(mask, 0, array))


@given(arrays=kernels(), pair=st.tuples(sparsities, sparsities), seed=seeds)
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=8)
def test_pruning_again_changes_nothing_and_more_keeps_none_that_less_dropped(
    method: str, arrays: Arrays, pair: tuple[float, float], seed: int
) -> None:
    how = {"method": method, "seed": seed if method == "random" else None}
    low, high = sorted(pair)
    model = dense_network(arrays)
    first = prune(model, low, **how)
    less = kernels_of(model)
    assert prune(model, low, **how) == first
    assert_same_bits(kernels_of(model), less)
    prune(model, high, **how)
    stepwise = kernels_of(model)
    assert all(np.all((more == 0) | (few != 0)) for few, more in zip(less, stepwise, strict=True))
    for kernel, array in zip(kernels_of(model), arrays, strict=True):
        np.testing.assert_array_equal(kernel[kernel != 0], array[kernel != 0])
    for kernel, array in zip(model.layers[-len(arrays) :], arrays, strict=True):
        kernel.kernel.assign(array)
    prune(model, high, **how)
    for at_once, twice in zip(kernels_of(model), stepwise, strict=True):
        np.testing.assert_array_equal(at_once, twice)


NETWORKS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "convolutions": (
        lambda x: layers.Dense(3)(layers.Flatten()(layers.SeparableConv2D(3, 2)(x))),
        (5, 5, 2),
    ),
    "recurrent": (lambda x: layers.Dense(3)(layers.Bidirectional(layers.LSTM(3))(x)), (4, 3)),
    "attention": (lambda x: layers.Dense(3)(layers.MultiHeadAttention(2, 3)(x, x)), (4, 3)),
    "nested": (
        lambda x: layers.Dense(3)(
            keras.Sequential([keras.Input((6,)), layers.Dense(5), layers.Dense(4)])(x)
        ),
        (6,),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("fill", ["random", "equal"])
@pytest.mark.parametrize("score", [None, "magnitude"])
def test_real_networks_are_pruned_as_the_stable_sort_says(
    name: str, fill: str, score: str | None
) -> None:
    make, shape = NETWORKS[name]
    inputs = keras.Input(shape)
    model = keras.Model(inputs, make(inputs))
    generator = np.random.default_rng(0)
    for variable in model.weights:
        w = generator.normal(size=variable.shape) if fill == "random" else np.ones(variable.shape)
        variable.assign(w)
    before = kernels_of(model)
    total = sum(kernel.size for kernel in before)
    gone = smallest_oracle(scored(before, score), round(0.63 * total))
    assert prune(model, 0.63, score=score).zeros == round(0.63 * total)
    for kernel, w, mask in zip(kernels_of(model), before, gone, strict=True):
        np.testing.assert_array_equal(kernel, np.where(mask, 0, w))
    others = [v for v in model.weights if not v.name.endswith("kernel")]
    assert all(np.all(ops.convert_to_numpy(v) != 0) for v in others)


def test_random_takes_the_same_weights_on_every_backend() -> None:
    arrays = [np.ones((3, 4), np.float32), np.ones((4, 2), np.float32)]
    model = dense_network(arrays)
    prune(model, 0.5, method="random", seed=7)
    generator = np.random.default_rng(7)
    scores = [generator.random(array.shape) for array in arrays]
    for kernel, mask in zip(kernels_of(model), smallest_oracle(scores, 10), strict=True):
        np.testing.assert_array_equal(kernel == 0, mask)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("kernel", "sparsity", "zeros"),
    [
        ([[3.0]], 0.4, 0),
        ([[3.0]], 0.6, 1),
        ([[2.0, 2.0], [2.0, 2.0]], 0.5, 2),
        ([[0.0, 0.0], [0.0, 0.0]], 0.5, 4),
        ([[1e-45, -1e-45], [3e-45, 1e-40]], 0.75, 3),
        ([[1.0, 2.0, 3.0, 4.0, 5.0]], 0.5, 2),
        ([[FLOAT32_MAX, -FLOAT32_MAX]], 0.5, 1),
    ],
)
def test_odd_kernels_are_pruned_exactly(
    method: str, kernel: list[list[float]], sparsity: float, zeros: int
) -> None:
    model = dense_network([np.array(kernel, np.float32)])
    assert prune(model, sparsity, method=method).zeros == zeros
    assert np.sum(kernels_of(model)[0] == 0) == zeros


def test_of_denormals_the_smaller_go() -> None:
    model = dense_network([np.array([[3e-45, -1e-45, 1e-40, 1.0]], np.float32)])
    prune(model, 0.5)
    assert (kernels_of(model)[0] == 0).tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", FLOAT64])
def test_weights_of_other_dtypes_are_pruned_exactly_and_keep_their_dtype(dtype: str) -> None:
    model = dense_network([np.arange(1, 13).reshape(3, 4) / 4], dtype=dtype)
    assert prune(model, 0.5).zeros == 6
    kernel = model.layers[-1].kernel
    assert keras.backend.standardize_dtype(kernel.dtype) == dtype
    found = ops.convert_to_numpy(ops.cast(kernel, "float32")).ravel()
    assert found.tolist() == [0] * 6 + [i / 4 for i in range(7, 13)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("method", METHODS)
def test_weights_not_finite_are_refused_and_nothing_is_changed(method: str, bad: float) -> None:
    second = np.ones((2, 3), np.float32)
    second[1, 2] = bad
    model = dense_network([np.ones((2, 2), np.float32), second])
    before = numpy_weights(model)
    expected = "finite weights"
    advice = "1 of its 6 weights are NaN or infinite"
    with pytest.raises(ValueError, match=invalid("model", expected, "'d1/kernel'", advice)):
        prune(model, 0.5, method=method)
    assert_same_bits(numpy_weights(model), before)


def test_a_score_of_ones_own_ranks() -> None:
    model = dense_network([np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)])
    prune(model, 0.5, score=lambda w: -w)
    assert kernels_of(model)[0].tolist() == [[1.0, 2.0, 0.0, 0.0]]


@pytest.mark.parametrize("method", ["global", "layerwise"])
def test_a_score_that_fails_leaves_the_model_as_it_was(method: str) -> None:
    model = dense_network([np.ones((2, 2), np.float32), np.ones((2, 3), np.float32)])
    before = numpy_weights(model)
    expected = "a function that gives (2, 3) numbers above -inf for (2, 3)"
    with pytest.raises(ValueError, match=invalid("score", expected, "(2, 2)")):
        prune(model, 0.5, method=method, score=lambda w: w[:, :2])
    assert_same_bits(numpy_weights(model), before)


def test_a_score_that_writes_into_its_argument_does_not_change_the_weights() -> None:
    def score(w: NDArray[np.float32]) -> NDArray[np.float32]:
        if w.flags.writeable:
            w *= -1
        return np.abs(w)

    model = dense_network([np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)])
    prune(model, 0.5, score=score)
    assert kernels_of(model)[0].tolist() == [[0.0, 0.0, 3.0, 4.0]]


def test_layers_chosen_are_pruned_alone() -> None:
    model = dense_network([np.ones((2, 2), np.float32), np.ones((2, 3), np.float32)])
    found = prune(model, 0.5, layers="d1")
    assert [int(np.sum(kernel == 0)) for kernel in kernels_of(model)] == [0, 3]
    assert (found.zeros, found.sparsity) == (3, 0.5)
    assert found.skipped == {"d0": "no pattern matches it"}


def test_embeddings_and_biases_are_pruned_by_request() -> None:
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Embedding(5, 2, name="words"),
            layers.Flatten(),
            layers.Dense(4, name="dense", bias_initializer="ones"),
        ]
    )
    assert prune(model, 0.5, layers=["words", "dense/bias"]).zeros == 7
    assert np.all(kernels_of(model)[0] != 0)


def test_a_quantized_layer_is_skipped_and_named() -> None:
    model = dense_network([np.ones((2, 2), np.float32), np.ones((2, 3), np.float32)])
    model.get_layer("d0").quantize("int8")
    found = prune(model, 0.5)
    assert found.zeros == 3
    assert found.skipped == {"d0": "its kernel is quantized (int8)"}


def test_no_seed_takes_others_each_time() -> None:
    picks = set()
    for _ in range(3):
        model = dense_network([np.ones((20, 20), np.float32)])
        prune(model, 0.5, method="random")
        picks.add(kernels_of(model)[0].tobytes())
    assert len(picks) == 3


SCORE = '"lamp" or "magnitude", or a function of a weight tensor'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.0}, invalid("sparsity", "a float in [0, 1)", "1.0")),
        ({"compression": 0.5}, invalid("compression", "a finite float >= 1", "0.5")),
        (
            {},
            invalid(
                "sparsity",
                "just one of `sparsity` and `compression`",
                "None",
                "And compression=None",
            ),
        ),
        (
            {"sparsity": 0.5, "compression": 2},
            invalid(
                "sparsity", "just one of `sparsity` and `compression`", "0.5", "And compression=2"
            ),
        ),
        ({"sparsity": 0.5, "score": "size"}, invalid("score", SCORE, "'size'")),
        (
            {"sparsity": 0.5, "score": "norm", "method": "random"},
            invalid("score", 'None with method="random"', "'norm'"),
        ),
        (
            {"sparsity": 0.5, "seed": 1},
            invalid("seed", 'None with method="global"', "1"),
        ),
        (
            {"sparsity": 0.5, "seed": 0, "method": "layerwise"},
            invalid("seed", 'None with method="layerwise"', "0"),
        ),
        (
            {"sparsity": 0.5, "seed": -1, "method": "random"},
            invalid("seed", "None or an integer >= 0", "-1"),
        ),
        (
            {"sparsity": 0.5, "seed": True, "method": "random"},
            invalid("seed", "None or an integer >= 0", "True"),
        ),
        ({"sparsity": 0.5, "model": 3}, invalid("model", "a keras.Model", "3")),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    model = dense_network([np.ones((2, 2), np.float32)])
    with pytest.raises(ValueError, match=message):
        prune(**{"model": model} | arguments)
    assert np.all(kernels_of(model)[0] == 1)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^Invalid value for argument `method`\. Expected .global"
    ):
        prune(dense_network([np.ones((2, 2), np.float32)]), 0.5, method="all")


def test_a_model_not_built_is_refused() -> None:
    advice = "Call `model.build(input_shape)`, or the model on a batch, first"
    message = invalid("model", "a built model", "'net'", advice)
    with pytest.raises(ValueError, match=message):
        prune(keras.Sequential([layers.Dense(1)], name="net"), 0.5)
