"""What is not pruned is named, with the reason and the remedy, in a few lines."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_l0 import (
    L2L0,
    GlobalPrune,
    IterativePrune,
    KeepZeros,
    LayerwisePrune,
    NeuronPrune,
    prune,
    regularize,
    summarize,
)
from keras_l0.pruning.targets import UNNAMED, find_targets
from keras_l0.structure.shrink import shrink

X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
Y = X[:, :2]


class Two(layers.Layer):
    """A kernel and a further matrix."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 8), name="kernel")
        self.w2 = self.add_weight(shape=(8, 8), name="w2")

    def call(self, x: Any) -> Any:
        return ops.relu(x @ self.kernel) @ self.w2


class Mixer(layers.Layer):
    """Matrices without a kernel, and what is no matrix or no weight of a product."""

    def build(self, shape: Any) -> None:
        width = shape[-1]
        self.wq = self.add_weight(shape=(width, width), name="wq")
        self.wk = self.add_weight(shape=(width, width), name="wk")
        self.token = self.add_weight(shape=(1, width), name="token")
        self.head_bias = self.add_weight(shape=(2, width), name="head_bias")
        self.positions = self.add_weight(shape=(4, width), name="position_embedding")
        self.state = self.add_weight(shape=(4, width), name="state", trainable=False)
        self.gamma = self.add_weight(shape=(2, width), name="gamma")

    def call(self, x: Any) -> Any:
        return (x @ self.wq) @ self.wk + self.token


def sequential(*parts: keras.Layer, width: int = 6) -> keras.Model:
    model = keras.Sequential([keras.Input((width,)), *parts], name="net")
    model.compile("sgd", "mse")
    return model


def two() -> keras.Model:
    return sequential(Two(name="two"), layers.Dense(2, name="out"))


def nested() -> keras.Model:
    inner = keras.Sequential([keras.Input((6,)), Two(name="two")], name="inner")
    return sequential(inner, layers.Dense(2, name="out"))


def shared() -> keras.Model:
    layer = Two(name="two")
    x = keras.Input((8,))
    return keras.Model(x, layers.Dense(2, name="out")(layer(layer(x))), name="net")


def without_kernel() -> keras.Model:
    return sequential(Mixer(name="mix"), layers.Dense(2, name="out"))


def matrices(model: keras.Model) -> dict[str, keras.Variable]:
    return {v.path: v for v in model.variables if v.name in ("w2", "wq", "wk")}


def zeros(variable: keras.Variable) -> int:
    return int(np.sum(ops.convert_to_numpy(variable) == 0))


@pytest.mark.parametrize("make", [two, nested, shared, without_kernel])
def test_further_matrices_are_named_everywhere_and_nothing_else_is(
    make: Callable[[], keras.Model],
) -> None:
    model = make()
    expected = dict.fromkeys(matrices(model), UNNAMED)
    assert find_targets(model).skipped == expected
    assert prune(model, 0.5).skipped == expected
    assert summarize(model).skipped == expected
    assert all(path in str(summarize(model)) for path in expected)
    done = regularize(model, L2L0(l0=1e-3))
    assert done.skipped.keys() == expected.keys()
    assert all(path in str(done) for path in expected)
    assert all(zeros(variable) == 0 for variable in matrices(model).values())


KERAS_OWN: list[tuple[Callable[[Any], Any], tuple[int, ...]]] = [
    (lambda x: layers.MultiHeadAttention(2, 3)(x, x), (3, 4)),
    (lambda x: layers.GRU(3)(x), (3, 4)),
    (lambda x: layers.Bidirectional(layers.LSTM(3))(x), (3, 4)),
    (lambda x: layers.SpectralNormalization(layers.Dense(3))(x), (4,)),
    (lambda x: layers.PReLU()(x), (4, 4)),
    (lambda x: layers.LayerNormalization(axis=[1, 2])(x), (4, 4)),
    (lambda x: layers.Embedding(5, 4)(x), (4,)),
    (lambda x: layers.ReversibleEmbedding(5, 4, tie_weights=False)(x), (4,)),
    (lambda x: layers.SeparableConv1D(3, 2)(x), (4, 4)),
]


@pytest.mark.parametrize(("make", "shape"), KERAS_OWN)
def test_layers_of_keras_have_no_further_matrices(
    make: Callable[[Any], Any], shape: tuple[int, ...]
) -> None:
    x = keras.Input(shape)
    assert find_targets(keras.Model(x, make(x))).unnamed == []


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (None, ["two/kernel", "out/kernel"]),
        ("*/w2", ["two/w2"]),
        ("two/w2", ["two/w2"]),
        (["*/*kernel", "*/w2"], ["two/kernel", "two/w2", "out/kernel"]),
        (["two", "two/w2"], ["two/kernel", "two/w2"]),
        ("two", ["two/kernel"]),
        ("*/*kernel", ["two/kernel", "out/kernel"]),
    ],
)
@pytest.mark.parametrize("make", [two, nested, shared])
def test_a_matrix_is_pruned_by_its_name(
    make: Callable[[], keras.Model], patterns: Any, expected: list[str]
) -> None:
    model = make()
    found = prune(model, 0.5, layers=patterns)
    names = [weight.name for weight in find_targets(model, patterns).live]
    assert names == expected
    assert found.sparsity == pytest.approx(0.5, abs=0.01)
    assert summarize(model, patterns).zeros == found.zeros


def test_all_kernels_by_name_are_neither_embeddings_nor_biases() -> None:
    x = keras.Input((3,))
    y = layers.LSTM(3, name="memory")(layers.Embedding(7, 3, name="words")(x))
    model = keras.Model(x, layers.Dense(2, name="out", trainable=False)(y))
    names = [weight.name for weight in find_targets(model, "*/*kernel").live]
    assert names == ["lstm_cell/kernel", "lstm_cell/recurrent_kernel", "out/kernel"]
    assert [w.name for w in find_targets(model, "*/recurrent*kernel").live] == names[1:2]


def test_the_callback_names_them_prunes_them_on_request_and_holds_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = two()
    model.fit(X, Y, callbacks=[GlobalPrune(0.5, begin=0)], verbose=2)
    told = capsys.readouterr().out
    assert (
        'GlobalPrune: not pruned, the name does not end in "kernel": two/w2. '
        'layers=["*/*kernel", "*/w2"] prunes them too.' in told
    )
    patterns = ["*/*kernel", "*/w2"]
    callback = LayerwisePrune(sparsities={"*/w2": 0.75}, begin=0, layers=patterns)
    model.fit(X, Y, callbacks=[callback], verbose=0)
    assert zeros(model.layers[0].w2) == 48
    capsys.readouterr()
    model.fit(X, Y, epochs=2, callbacks=[KeepZeros(patterns)], verbose=2)
    assert zeros(model.layers[0].w2) == 48
    assert "not kept" not in capsys.readouterr().out
    model.fit(X, Y, callbacks=[KeepZeros()], verbose=2)
    told = 'KeepZeros: zeros of two/w2 are not kept; layers=["*/*kernel", "*/w2"] keeps them.'
    assert told in capsys.readouterr().out
    assert zeros(model.layers[0].w2) < 48


def test_an_override_penalizes_a_matrix_by_its_name() -> None:
    model = two()
    penalty = L2L0(l0=0.1)
    done = regularize(model, None, overrides={"*/w2": penalty})
    assert done.penalized["net/two/w2"] is penalty
    assert done.skipped == {}
    assert done.unsaved == ["net/two/w2"]
    w = ops.convert_to_numpy(model.layers[0].w2)
    loss = float(ops.convert_to_numpy(sum(model.losses)))
    assert loss == pytest.approx(0.1 * np.sum(1 - np.exp(-10 * np.abs(w))), rel=1e-5)


def test_a_frozen_custom_layer_is_reported_as_frozen() -> None:
    model = without_kernel()
    model.layers[0].trainable = False
    done = regularize(model, L2L0(l0=1e-3))
    assert done.skipped == dict.fromkeys(matrices(model), "it is frozen")
    assert prune(model, 0.5).skipped == dict.fromkeys(matrices(model), UNNAMED)


def base() -> keras.Model:
    """A base of many layers, as in transfer learning, and a new head."""
    long = [layers.Dense(6, "relu", name=f"block_{n}_of_a_rather_long_name") for n in range(12)]
    inner = keras.Sequential([keras.Input((6,)), *long], name="base")
    inner.trainable = False
    return sequential(inner, layers.Dense(2, name="head"))


def partly() -> keras.Model:
    model = base()
    for layer in model.layers[0].layers[-2:]:
        layer.trainable = True
    return model


def all_of_it() -> keras.Model:
    model = base()
    model.trainable = False
    return model


def flat() -> keras.Model:
    return sequential(
        *[layers.Dense(6, name=f"a_layer_of_the_base_{n}", trainable=False) for n in range(40)],
        layers.Dense(2, name="head"),
    )


ATTEMPTS: dict[str, Callable[[keras.Model], Any]] = {
    "sparsity": lambda model: prune(model, 0.9),
    "layerwise": lambda model: prune(model, 0.9, method="layerwise"),
    "compression": lambda model: prune(model, compression=8),
    "GlobalPrune": lambda model: model.fit(X, Y, callbacks=[GlobalPrune(0.9)], verbose=0),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize(
    ("make", "where"),
    [
        (base, "12 × 36 of 444 in base"),
        (partly, "10 × 36 of 444 in block_0_of_a_rather_long_name"),
        (all_of_it, "444 of 444 in base, head"),
        (flat, "40 × 36 of 1,452 in a_layer_of_the_base_0"),
    ],
)
def test_a_frozen_base_is_told_in_a_few_lines_the_remedy_first(
    make: Callable[[], keras.Model], where: str, attempt: str
) -> None:
    model = make()
    before = model.get_weights()
    with pytest.raises(ValueError, match="trainable=True") as raised:
        ATTEMPTS[attempt](model)
    text = str(raised.value)
    assert len(text) <= 600
    assert "Set trainable=True, or pass layers=" in text[:300]
    share, _, names = where.partition(" in ")
    frozen, _, total = share.partition(" of ")
    count = int(np.prod([int(part) for part in frozen.replace(",", "").split(" × ")]))
    assert f"{count:,} of {total} prunable weights are frozen, in {names}" in text
    assert all(map(np.array_equal, model.get_weights(), before))
    assert prune(model, 0.9, layers="*/*kernel").sparsity == pytest.approx(0.9, abs=0.01)


def test_an_error_with_every_reason_is_short() -> None:
    def name(kind: str, number: int) -> str:
        return f"a_rather_long_name_of_a_{kind}_layer_{number}"

    frozen = [layers.Dense(6, name=name("frozen", n), trainable=False) for n in range(6)]
    lora, integers = (
        [layers.Dense(6, name=name(kind, n)) for n in range(6)] for kind in ("lora", "int8")
    )
    custom = [Mixer(name=name("custom", n)) for n in range(6)]
    model = sequential(*frozen, *lora, *integers, *custom)
    for layer in lora:
        layer.enable_lora(1)
    for layer in integers:
        layer.quantize("int8")
    for goal in ({"sparsity": 0.9}, {"compression": 9}):
        with pytest.raises(ValueError, match="Set trainable=True, or pass layers=") as raised:
            prune(model, **goal)
        assert len(str(raised.value)) <= 600


@pytest.mark.parametrize("make", [base, all_of_it, flat])
def test_channels_of_a_frozen_base_are_told_with_the_remedy(
    make: Callable[[], keras.Model],
) -> None:
    for attempt in (
        lambda model: prune(model, method="neuron", fraction=0.5),
        lambda model: model.fit(X, Y, callbacks=[NeuronPrune(0.5)], verbose=0),
    ):
        with pytest.raises(ValueError, match="Set trainable=True, or pass layers=") as raised:
            attempt(make())
        assert len(str(raised.value)) <= 600
    assert prune(make(), method="neuron", fraction=0.5, layers="*/*kernel").zeros > 0


def test_a_frozen_base_is_one_name_in_the_note_of_a_callback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    base().fit(X, Y, callbacks=[GlobalPrune(0.01, begin=0)], verbose=2)
    told = capsys.readouterr().out.splitlines()
    assert "GlobalPrune: frozen, left alone and counted as left: base." in told


@pytest.mark.parametrize("make", [base, flat])
def test_lists_of_layers_are_cut_short(make: Callable[[], keras.Model]) -> None:
    for attempt in (
        lambda model: prune(model, 0.5, layers="nothing"),
        lambda model: regularize(model, None, overrides={"nothing": None}),
        lambda model: model.fit(
            X, Y, callbacks=[LayerwisePrune(sparsities={"nothing": 0.5})], verbose=0
        ),
    ):
        with pytest.raises(ValueError, match="nothing") as raised:
            attempt(make())
        assert len(str(raised.value)) <= 600
    done = regularize(make(), L2L0(l0=1e-3))
    assert max(map(len, str(done).splitlines())) <= 200
    assert len(str(done).splitlines()) == 2


@pytest.fixture
def integers() -> Callable[[str], keras.Model]:
    def make(mode: str) -> keras.Model:
        model = sequential(layers.Dense(8, "relu", name="first"), layers.Dense(2, name="out"))
        for layer in model.layers:
            layer.quantize(mode)
        model.compile("sgd", "mse")
        return model

    return make


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_pruning_after_quantize_is_told_plainly(
    mode: str, integers: Callable[[str], keras.Model]
) -> None:
    model = integers(mode)
    for attempt in (
        lambda: prune(model, 0.5),
        lambda: prune(model, compression=2, layers="*"),
        *(
            lambda callback=callback: model.fit(X, Y, callbacks=[callback], verbose=0)
            for callback in (GlobalPrune(0.5), LayerwisePrune(0.5), IterativePrune("loss", 9.0))
        ),
    ):
        with pytest.raises(ValueError, match="Prune before `quantize`") as raised:
            attempt()
        assert "first, out" in str(raised.value)
        assert len(str(raised.value)) <= 300
    with pytest.raises(ValueError, match=rf"it is quantized \({mode}\): .*first"):
        prune(model, method="neuron", fraction=0.5)
    reason = f"its kernel is quantized ({mode})"
    assert f"{reason}: net/first, net/out" in str(summarize(model))
    assert f"{reason}: net/first, net/out" in str(regularize(model, L2L0(l0=1e-3)))
    model.fit(X, Y, callbacks=[KeepZeros()], verbose=0)
    expected = model.predict(X, verbose=0)
    assert np.array_equal(shrink(model).predict(X, verbose=0), expected)


def test_kernels_that_float8_leaves_as_they_are_are_pruned(
    integers: Callable[[str], keras.Model],
) -> None:
    model = integers("float8")
    assert prune(model, 0.5).sparsity == 0.5
    assert find_targets(model).skipped == {}
