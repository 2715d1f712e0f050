"""A summary's figures are the counts, and it says which compression is which."""

import json
import math
import re
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_l0.report.summary import entropy_bound, summarize


def dense_model(kernel: np.ndarray, **layer: Any) -> keras.Model:
    """One Dense layer named dense with this kernel and a bias of zeros."""
    dense = keras.layers.Dense(kernel.shape[1], name="dense", **layer)
    model = keras.Sequential([keras.Input((kernel.shape[0],)), dense], name="model")
    dense.kernel.assign(kernel)
    return model


def test_totals_are_the_counts() -> None:
    summary = summarize(dense_model(np.array([[1.0, 0.0, -0.0], [0.0, 2.0, 0.0]])))
    assert summary.parameters == 9
    assert summary.prunable == 6
    assert summary.zeros == 4
    assert summary.left == 5
    assert summary.sparsity == 4 / 6
    assert summary.compression == 9 / 5
    assert summary.weight_compression == 3.0
    assert summary.bytes_dense == 36
    assert summary.bytes_entropy_bound == pytest.approx(3 * 4 + 2 * 4 + math.log2(15) / 8)


def test_a_row_tells_of_its_weight() -> None:
    (row,) = summarize(dense_model(np.array([[1.0, 0.0], [0.0, 0.0]]))).weights
    assert (row.path, row.shape, row.dtype) == ("model/dense/kernel", (2, 2), "float32")
    assert (row.weights, row.zeros, row.sparsity, row.frozen) == (4, 3, 0.75, False)
    assert row.bytes_dense == 16
    assert row.bytes_entropy_bound == (2 + 32) / 8


def test_zeros_of_what_is_not_prunable_count_as_left() -> None:
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, name="dense"), keras.layers.BatchNormalization()]
    )
    model.layers[0].kernel.assign(np.ones((3, 2)))
    summary = summarize(model)
    assert summary.parameters == 6 + 2 + 8
    assert summary.zeros == 0
    assert summary.left == 16
    assert summary.skipped == {
        model.layers[1].path: "BatchNormalization has no kernel",
    }


def test_a_frozen_layer_counts_as_it_is_and_is_marked() -> None:
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(2, use_bias=False, name="first", trainable=False),
            keras.layers.Dense(2, use_bias=False, name="second"),
        ],
        name="model",
    )
    model.layers[0].kernel.assign(np.eye(2))
    model.layers[1].kernel.assign(np.ones((2, 2)))
    summary = summarize(model)
    assert [(row.path, row.frozen) for row in summary.weights] == [
        ("model/first/kernel", True),
        ("model/second/kernel", False),
    ]
    assert (summary.zeros, summary.compression) == (2, 8 / 6)
    assert "first/kernel (frozen)" in str(summary)


def test_a_shared_layer_counts_once() -> None:
    shared = keras.layers.Dense(2, use_bias=False)
    one, two = keras.Input((2,)), keras.Input((2,))
    model = keras.Model([one, two], keras.layers.Add()([shared(one), shared(two)]))
    shared.kernel.assign(np.eye(2))
    summary = summarize(model)
    assert (len(summary.weights), summary.parameters, summary.prunable) == (1, 4, 4)


def test_nan_is_not_zero() -> None:
    summary = summarize(dense_model(np.array([[math.nan, 0.0], [math.inf, 1.0]])))
    assert summary.zeros == 1


@pytest.mark.parametrize(("dtype", "size"), [("float16", 2), ("bfloat16", 2), ("float32", 4)])
def test_bytes_follow_the_dtype_of_the_variable(dtype: str, size: int) -> None:
    summary = summarize(dense_model(np.eye(3), dtype=dtype))
    assert summary.weights[0].dtype == dtype
    assert summary.weights[0].zeros == 6
    assert summary.bytes_dense == 12 * size


def test_a_network_of_zeros_is_compressed_infinitely_and_json_says_null() -> None:
    summary = summarize(dense_model(np.zeros((2, 2)), use_bias=False))
    assert summary.weight_compression == math.inf
    assert summary.compression == math.inf
    found = json.loads(summary.to_json())
    assert found["weight_compression"] is None
    assert found["compression"] is None
    assert "inf×" in str(summary)


def test_a_network_without_prunable_weights_is_not_compressed() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()])
    summary = summarize(model)
    assert (summary.sparsity, summary.compression, summary.weight_compression) == (0.0, 1.0, 1.0)


def test_json_holds_the_attributes() -> None:
    summary = summarize(dense_model(np.array([[1.0, 0.0], [0.0, 0.0]])))
    assert json.loads(summary.to_json()) == {
        "name": "model",
        "parameters": 6,
        "left": 3,
        "prunable": 4,
        "zeros": 3,
        "sparsity": 0.75,
        "compression": 2.0,
        "weight_compression": 4.0,
        "bytes_dense": 24,
        "bytes_entropy_bound": 8 + 4.25,
        "flops": 4,
        "flops_nonzero": 1,
        "flops_shrunk": 4,
        "parameters_shrunk": 6,
        "weights": [
            {
                "path": "model/dense/kernel",
                "shape": [2, 2],
                "dtype": "float32",
                "weights": 4,
                "zeros": 3,
                "sparsity": 0.75,
                "compression": 4.0,
                "bytes_dense": 16,
                "bytes_entropy_bound": 4.25,
                "flops": 4,
                "flops_nonzero": 1,
                "flops_shrunk": 4,
                "frozen": False,
            }
        ],
        "skipped": {},
    }


def test_the_text_names_both_compressions(monkeypatch: pytest.MonkeyPatch) -> None:
    # Colors asked for by the environment would put escapes into the text.
    monkeypatch.setenv("FORCE_COLOR", "1")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="d")], name="m")
    model.add(keras.layers.BatchNormalization(name="[red]norm"))
    model.layers[0].kernel.assign(np.array([[1.0, 0.0], [0.0, 0.0]]))
    # TensorFlow traces no layer of such a name.
    dense, nonzero = ("unknown",) * 2 if keras.config.backend() == "tensorflow" else ("4", "1")
    lines = str(summarize(model)).replace("│", "").splitlines()
    drawn = [" ".join(line.split()) for line in lines if not set(line) & set("┌├└")]
    assert drawn == [
        "m: prunable weights",
        "weight shape dtype weights zeros sparsity compression",
        "d/kernel 2×2 float32 4 3 75.00% 4.00×",
        "weight dense entropy bound multiply-adds non-zero",
        f"d/kernel 16 bytes 5 bytes {dense} {nonzero}",
        "parameters 14",
        "parameters left 11",
        "prunable weights 4",
        "zeros 3",
        "sparsity (zeros / prunable weights) 75.00%",
        "compression (all parameters) 1.27×",
        "weight compression (prunable weights) 4.00×",
        "size, dense 56 bytes",
        "size at the entropy bound 45 bytes",
        f"multiply-adds for one sample {dense}",
        f"multiply-adds without zeros {nonzero}",
        f"multiply-adds after shrink {dense}",
        "parameters after shrink 14",
        "Not pruned by default:",
        "BatchNormalization has no kernel: m/[red]norm",
    ]


def test_a_model_that_is_not_built_is_refused() -> None:
    model = keras.Sequential([keras.layers.Dense(2)], name="model")
    message = "Invalid value for argument `model`. Expected a built model. Received: model='model'"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        summarize(model)


@given(
    st.integers(1, 2000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
    st.integers(1, 64),
)
def test_the_entropy_bound_is_its_formula(counts: tuple[int, int], bits: int) -> None:
    weights, nonzero = counts
    exact = (math.log2(math.comb(weights, nonzero)) + bits * nonzero) / 8
    assert entropy_bound(weights, nonzero, bits) == pytest.approx(exact, rel=1e-12, abs=1e-9)


@given(st.integers(0, 2**31), st.sampled_from([8, 16, 32]))
def test_the_entropy_bound_is_exact_where_all_or_none_is_zero(weights: int, bits: int) -> None:
    assert entropy_bound(weights, 0, bits) == 0
    assert entropy_bound(weights, weights, bits) == weights * bits / 8


@given(
    st.integers(0, 2**16).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
    st.sampled_from([16, 32, 64]),
)
def test_the_entropy_bound_is_no_more_than_dense_up_to_two_to_the_bits_weights(
    counts: tuple[int, int], bits: int
) -> None:
    weights, nonzero = counts
    assert entropy_bound(weights, nonzero, bits) <= weights * bits / 8 + 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (-1, 0, 8),
            "Invalid value for argument `weights`. Expected an integer of 0 or more. "
            "Received: weights=-1",
        ),
        (
            (4, 5, 8),
            "Invalid value for argument `nonzero`. Expected an integer from 0 to weights=4. "
            "Received: nonzero=5",
        ),
        (
            (4, 2, 0),
            "Invalid value for argument `bits`. Expected an integer of 1 or more. Received: bits=0",
        ),
    ],
)
def test_counts_that_cannot_be_are_refused(arguments: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        entropy_bound(*arguments)
