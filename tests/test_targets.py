"""Prunable are the kernels, wherever they stand; all else is skipped and named."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from strategies import invalid

from keras_l0.pruning.targets import Targets, Weight, find_targets


def build(make: Callable[[Any], Any], *shape: int) -> keras.Model:
    inputs = keras.Input(shape)
    return keras.Model(inputs, make(inputs), name="net")


def names(targets: Targets) -> list[str]:
    return [weight.variable.name for weight in targets.live]


QKV = ["kernel"] * 4
RECURRENT = ["kernel", "recurrent_kernel"]
LAYERS: list[tuple[Callable[[Any], Any], tuple[int, ...], list[str]]] = [
    (lambda x: layers.Dense(2)(x), (3,), ["kernel"]),
    (lambda x: layers.EinsumDense("ab,bc->ac", output_shape=2)(x), (3,), ["kernel"]),
    (lambda x: layers.Conv1D(2, 2)(x), (4, 2), ["kernel"]),
    (lambda x: layers.Conv3D(2, 2)(x), (4, 4, 4, 1), ["kernel"]),
    (lambda x: layers.Conv2DTranspose(2, 2)(x), (4, 4, 2), ["kernel"]),
    (lambda x: layers.DepthwiseConv2D(2)(x), (4, 4, 2), ["kernel"]),
    (
        lambda x: layers.SeparableConv2D(3, 2)(x),
        (4, 4, 2),
        ["depthwise_kernel", "pointwise_kernel"],
    ),
    (lambda x: layers.LSTM(2)(x), (3, 2), RECURRENT),
    (lambda x: layers.RNN([layers.GRUCell(2), layers.LSTMCell(2)])(x), (3, 2), RECURRENT * 2),
    (lambda x: layers.Bidirectional(layers.GRU(2))(x), (3, 2), RECURRENT * 2),
    (lambda x: layers.MultiHeadAttention(2, 3)(x, x), (3, 4), QKV),
    (lambda x: layers.GroupQueryAttention(3, 2, 1)(x, x), (3, 4), QKV),
    (lambda x: layers.TimeDistributed(layers.Dense(2))(x), (3, 2), ["kernel"]),
    (lambda x: layers.BatchNormalization()(x), (3,), []),
    (lambda x: layers.LayerNormalization()(x), (3,), []),
    (lambda x: layers.PReLU()(x), (3,), []),
    (lambda x: layers.Embedding(5, 2)(x), (3,), []),
]


@pytest.mark.parametrize(("make", "shape", "expected"), LAYERS)
def test_the_kernels_of_a_layer_are_prunable_and_nothing_else(
    make: Callable[[Any], Any], shape: tuple[int, ...], expected: list[str]
) -> None:
    found = find_targets(build(make, *shape))
    assert sorted(names(found)) == sorted(expected)
    assert found.frozen == []
    assert bool(found.skipped) == (not expected)


def dense(name: str, **arguments: Any) -> keras.Layer:
    return layers.Dense(3, name=name, **arguments)


def test_nested_models_are_searched_in_the_models_order() -> None:
    inner = keras.Sequential([keras.Input((3,)), dense("b"), dense("c")], name="inner")
    model = keras.Sequential([keras.Input((3,)), dense("a"), inner, dense("d")], name="net")
    assert [weight.layer.name for weight in find_targets(model).live] == ["a", "b", "c", "d"]


def test_a_subclassed_model_is_searched() -> None:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = [dense("a"), dense("b")]
            self.head = {"out": dense("c")}

        def call(self, x: Any) -> Any:
            for block in self.blocks:
                x = block(x)
            return self.head["out"](x)

    model = Net()
    model(np.ones((1, 3), np.float32))
    assert [weight.name for weight in find_targets(model).live] == [
        "a/kernel",
        "b/kernel",
        "c/kernel",
    ]


def test_a_shared_layer_counts_once() -> None:
    one = dense("one")
    found = find_targets(build(lambda x: one(one(x)), 3))
    assert [weight.name for weight in found.live] == ["one/kernel"]
    assert found.size == 9


def mixed() -> keras.Model:
    inner = keras.Sequential([keras.Input((3,)), dense("deep"), dense("low")], name="inner")
    x = keras.Input((2,))
    y = layers.Embedding(7, 3, name="words")(x)
    y = layers.LSTM(3, name="memory", return_sequences=True)(y)
    y = layers.MultiHeadAttention(1, 3, name="look")(y, y)
    y = layers.GlobalAveragePooling1D(name="pool")(y)
    y = layers.BatchNormalization(name="norm")(inner(y))
    return keras.Model(x, dense("out")(y), name="net")


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("out", ["out/kernel"]),
        ("inner", ["deep/kernel", "low/kernel"]),
        ("inner/deep", ["deep/kernel"]),
        ("deep", ["deep/kernel"]),
        ("memory", ["lstm_cell/kernel", "lstm_cell/recurrent_kernel"]),
        ("look", ["query/kernel", "key/kernel", "value/kernel", "attention_output/kernel"]),
        ("look/key", ["key/kernel"]),
        ("words", ["words/embeddings"]),
        (["o?t", "dee*"], ["deep/kernel", "out/kernel"]),
        ("out/bias", ["out/bias"]),
        ("out/kernel", ["out/kernel"]),
        ("memory/bias", ["lstm_cell/bias"]),
        (["out", "out/bias"], ["out/kernel", "out/bias"]),
        ("norm/gamma", ["norm/gamma"]),
    ],
)
def test_patterns_choose_by_name_path_and_what_is_around(
    patterns: Any, expected: list[str]
) -> None:
    found = find_targets(mixed(), patterns)
    assert sorted(weight.name for weight in found.live) == sorted(expected)
    others = ["words", "norm", "out", "inner/low"]
    chosen = {name.split("/")[0] for name in expected}
    for other in others:
        if other.split("/")[-1] not in chosen:
            assert any(path.endswith(other) for path in found.skipped)


def test_every_layer_with_weights_is_chosen_or_skipped() -> None:
    found = find_targets(mixed(), "out")
    assert set(found.skipped.values()) == {"no pattern matches it"}
    found = find_targets(mixed())
    assert sorted(found.skipped.values()) == [
        "BatchNormalization has no kernel",
        "Embedding has no kernel",
    ]


def frozen_first() -> keras.Model:
    return keras.Sequential(
        [keras.Input((3,)), dense("first", trainable=False), dense("second")], name="net"
    )


def test_frozen_layers_count_but_are_left_alone() -> None:
    found = find_targets(frozen_first())
    assert [weight.path for weight in found.live] == ["net/second/kernel"]
    assert [weight.path for weight in found.frozen] == ["net/first/kernel"]
    assert found.size == 18


def test_patterns_include_frozen_layers() -> None:
    found = find_targets(frozen_first(), ["first"])
    assert [weight.path for weight in found.live] == ["net/first/kernel"]
    assert found.frozen == []


def test_a_frozen_model_has_all_its_layers_frozen() -> None:
    model = mixed()
    model.trainable = False
    found = find_targets(model)
    assert found.live == []
    assert len(found.frozen) == 9


def test_a_quantized_layer_is_skipped_and_named() -> None:
    model = frozen_first()
    model.layers[1].trainable = True
    model.layers[0].quantize("int8")
    found = find_targets(model)
    assert [weight.path for weight in found.live] == ["net/second/kernel"]
    assert found.frozen == []
    assert found.skipped == {"net/first": "its kernel is quantized (int8)"}


@pytest.mark.parametrize(
    ("patterns", "named"),
    [
        ("nothing", "'nothing'"),
        (["second", "x*", "y*"], "'x*'"),
        ("second/gamma", "'second/gamma'"),
        ("", "''"),
    ],
)
def test_a_pattern_that_matches_no_layer_is_refused(patterns: Any, named: str) -> None:
    message = invalid(
        "layers",
        "patterns that match a layer with weights",
        named,
        "The layers with weights are: net/first, net/second",
    )
    with pytest.raises(ValueError, match=message):
        find_targets(frozen_first(), patterns)


@pytest.mark.parametrize("bad", [[], [3], 3])
def test_what_is_no_pattern_is_refused(bad: Any) -> None:
    message = invalid("layers", "None, a pattern or a list of patterns", repr(bad))
    with pytest.raises(ValueError, match=message):
        find_targets(frozen_first(), bad)


def test_a_model_not_built_is_refused() -> None:
    message = invalid(
        "model",
        "a built model",
        "'net'",
        "Call `model.build(input_shape)`, or the model on a batch, first",
    )
    with pytest.raises(ValueError, match=message):
        find_targets(keras.Sequential([dense("a")], name="net"))


@pytest.mark.parametrize("bad", [None, "model.keras", dense])
def test_what_is_no_model_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match=invalid("model", "a keras.Model", repr(bad))):
        find_targets(bad)


def test_a_kernel_of_which_other_processes_have_parts_is_refused() -> None:
    value = SimpleNamespace(
        addressable_shards=[None], is_fully_addressable=False, is_fully_replicated=False
    )
    variable = SimpleNamespace(value=value, path="dense/kernel")
    with pytest.raises(ValueError, match="cut over several processes: train with DataParallel"):
        Weight(variable, ()).parts()


@pytest.mark.skipif(keras.config.backend() == "torch", reason="PyTorch's memory is shared anyway")
def test_weights_are_read_without_a_copy_that_training_would_change() -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    (weight,) = find_targets(model).live
    values = weight.values()
    assert np.shares_memory(values, weight.values())
    before = values.copy()
    model.compile("adam", "mse")
    model.fit(np.ones((4, 3), "float32"), np.ones((4, 2), "float32"), epochs=2, verbose=0)
    assert np.array_equal(values, before)
    assert not np.array_equal(weight.values(), before)
