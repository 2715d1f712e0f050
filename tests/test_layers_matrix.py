"""Every layer that has a kernel: pruned exactly, held, saved, loaded and trained on."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from by_hand import BACKEND
from keras import layers, ops
from matrix import History, check_life, check_saved, fit, zeros

from keras_l0 import GlobalPrune
from keras_l0.pruning.targets import find_targets

# Makes a layer's outputs from its inputs, which have this shape.
Case = tuple[Callable[[Any], Any], tuple[int, ...]]


def attended(layer: keras.Layer, x: Any) -> Any:
    return layer(x, x)


def layer(kind: str, *arguments: Any, **named: Any) -> Callable[[Any], Any]:
    made = partial(getattr(layers, kind), *arguments, **named)
    if kind.endswith("Attention"):
        return lambda x: attended(made(), x)
    return lambda x: made()(x)


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {
        "Dense": (layer("Dense", 4), (5,)),
        "EinsumDense": (layer("EinsumDense", "ab,bc->ac", output_shape=4), (5,)),
        "MultiHeadAttention": (layer("MultiHeadAttention", 2, 3), (3, 4)),
        "GroupQueryAttention": (layer("GroupQueryAttention", 3, 2, 1), (3, 4)),
        "Bidirectional": (lambda x: layers.Bidirectional(layers.LSTM(2))(x), (3, 2)),
        "TimeDistributed": (lambda x: layers.TimeDistributed(layers.Dense(3))(x), (3, 2)),
        "RNN": (lambda x: layers.RNN([layers.GRUCell(2), layers.LSTMCell(2)])(x), (3, 2)),
        "Embedding": (layer("Embedding", 6, 3, name="words"), (3,)),
    }
    for kind in ("SimpleRNN", "LSTM", "GRU"):
        found[kind] = layer(kind, 3), (3, 2)
    for rank in (1, 2, 3):
        space = (3,) * rank
        found[f"Conv{rank}D"] = layer(f"Conv{rank}D", 3, 2), (*space, 2)
        found[f"Conv{rank}DTranspose"] = layer(f"Conv{rank}DTranspose", 3, 2), (*space, 2)
        found[f"ConvLSTM{rank}D"] = layer(f"ConvLSTM{rank}D", 2, 2), (2, *space, 1)
        if rank < 3:
            found[f"DepthwiseConv{rank}D"] = layer(f"DepthwiseConv{rank}D", 2), (*space, 3)
            found[f"SeparableConv{rank}D"] = layer(f"SeparableConv{rank}D", 3, 2), (*space, 2)
    return found


CASES = cases()
# What has a name like theirs, and why it is not among them.
OTHERS = {
    "AdditiveAttention": "no kernel",
    "Attention": "no kernel",
    "StackedRNNCells": "within RNN",
    "SimpleRNNCell": "within SimpleRNN",
    "LSTMCell": "within LSTM",
    "GRUCell": "within GRU",
    "ReversibleEmbedding": "as Embedding",
}


def test_no_layer_of_keras_is_left_out() -> None:
    named = re.compile("Conv|Dense|Attention|LSTM|GRU|RNN|Embedding|Distributed|Bidirectional")
    known = {getattr(layers, name) for name in [*CASES, *OTHERS]}
    left = {
        name
        for name, kind in vars(layers).items()
        if named.search(name) and isinstance(kind, type) and kind not in known
    }
    assert not left


def network(names: list[str]) -> tuple[keras.Model, list[np.ndarray]]:
    """The layers side by side, and inputs for it."""
    rng = np.random.default_rng(0)
    inputs, branches, data = [], [], []
    for name in names:
        make, shape = CASES[name]
        words = name == "Embedding"
        inputs.append(keras.Input(shape, dtype="int32" if words else "float32"))
        branches.append(layers.Flatten()(make(inputs[-1])))
        x = rng.integers(0, 6, (16, *shape)) if words else rng.normal(size=(16, *shape))
        data.append(x.astype("int32" if words else "float32"))
    joined = layers.Concatenate()(branches) if len(names) > 1 else branches[0]
    return keras.Model(inputs, layers.Dense(2, name="head")(joined)), data


def check(names: list[str], policy: str, path: Path, *, further: bool) -> None:
    keras.config.set_dtype_policy(policy)
    model, x = network(names)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    y = np.random.default_rng(1).normal(size=(16, 2)).astype("float32")
    chosen = "words" if names == ["Embedding"] else None

    def train(model: keras.Model, callback: keras.callbacks.Callback, epochs: int) -> History:
        return fit(model, callback, (x, y), epochs, chosen)

    check_life(model, train, x, path, chosen=chosen, each=True, further=further)


FAMILIES = {
    "dense": ["Dense", "EinsumDense", "TimeDistributed"],
    "convolutions": [name for name in CASES if "Conv" in name and "LSTM" not in name],
    "attention": ["MultiHeadAttention", "GroupQueryAttention"],
    "recurrent": ["SimpleRNN", "LSTM", "GRU", "Bidirectional"],
    "convolutional recurrent": ["ConvLSTM2D"],
    "embedding": ["Embedding"],
}
POLICIES = ["float32", "mixed_float16", "mixed_bfloat16"]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_kernel_of_a_family_is_pruned_held_and_saved(family: str, tmp_path: Path) -> None:
    check(FAMILIES[family], "float32", tmp_path / "m.keras", further=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "policy"),
    [
        (name, policy)
        for i, name in enumerate(CASES)
        for j, policy in enumerate(POLICIES)
        if BACKEND == "tensorflow" or i % 3 == j  # elsewhere each layer in one precision
    ],
)
def test_each_layer_by_itself_works_in_every_precision(
    name: str, policy: str, tmp_path: Path
) -> None:
    check([name], policy, tmp_path / "m.keras", further=True)


def test_a_quantized_dense_is_skipped_and_named_and_the_rest_is_pruned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its kernel is of integers, which do not train; its file is the model all the same."""
    first = layers.Dense(6, "tanh", name="quantized")
    model = keras.Sequential([keras.Input((5,)), first, layers.Dense(4), layers.Dense(2)])
    first.quantize("int8")
    model.compile("sgd", "mse")
    reason = "its kernel is quantized (int8)"
    assert find_targets(model).skipped == {first.path: reason}
    before = ops.convert_to_numpy(first._kernel)
    x = np.random.default_rng(0).normal(size=(16, 5)).astype("float32")
    callback = GlobalPrune(0.8, begin=0)
    model.fit(x, x[:, :2], epochs=2, callbacks=[callback], verbose=2)
    assert "GlobalPrune: skipped, the kernel is quantized: quantized." in capsys.readouterr().out
    after = ops.convert_to_numpy(first._kernel)
    np.testing.assert_array_equal(after, before)
    found = zeros(model)
    assert sum(int(zero.sum()) for zero in found.values()) == round(0.8 * (24 + 8))
    check_saved(model, x, tmp_path / "m.keras")
