"""Whole neurons and filters go, as many as asked for, stay zero, and can be taken out."""

import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops
from strategies import invalid

from keras_l0 import GlobalPrune, KeepZeros, NeuronPrune, prune, shrink, summarize
from keras_l0.experiments.convolutional import resnet_20
from keras_l0.experiments.networks import lenet_5_caffe

rng = np.random.default_rng(0)
X = rng.normal(size=(32, 8, 8, 3)).astype("float32")
Y = rng.normal(size=(32, 3)).astype("float32")
FIT: dict[str, Any] = {"batch_size": 16, "shuffle": False, "verbose": 0}


def net(filters: int = 8) -> keras.Model:
    """A residual network with batch normalization, without ReLU so that all of it trains."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(filters, 3, padding="same", name="first")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    y = layers.Conv2D(6, 3, activation="tanh", padding="same", name="inside")(x)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    y = layers.Conv2D(filters, 1, name="last")(y)
    x = layers.Flatten()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(3, name="top")(x))


def values(variable: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(variable, "float32"))


def dead_columns(kernel: np.ndarray) -> np.ndarray:
    """Which filters of a kernel are zero altogether."""
    return np.asarray(~kernel.reshape(-1, kernel.shape[-1]).any(axis=0))


def dead(model: keras.Model, layer: str) -> np.ndarray:
    """Which filters of a layer are zero altogether."""
    return dead_columns(values(model.get_layer(layer).kernel))


@given(units=st.lists(st.integers(2, 9), min_size=1, max_size=3), fraction=st.floats(0, 0.99))
@settings(max_examples=20)
def test_each_layer_loses_its_share_of_least_norm(units: list[int], fraction: float) -> None:
    model = keras.Sequential(
        [keras.Input((5,)), *(layers.Dense(n, "relu") for n in units), layers.Dense(2)]
    )
    before = [np.linalg.norm(values(layer.kernel), axis=0) for layer in model.layers[:-1]]
    prune(model, method="neuron", fraction=fraction)
    for layer, norms in zip(model.layers[:-1], before, strict=True):
        gone = ~values(layer.kernel).any(axis=0)
        count = min(round(fraction * len(norms)), len(norms) - 1)
        assert gone.sum() == count
        assert set(np.flatnonzero(gone)) == set(np.argsort(norms, kind="stable")[:count])
    assert values(model.layers[-1].kernel).all()
    assert [layer.units for layer in shrink(model).layers[:-1]] == [
        n - min(round(fraction * n), n - 1) for n in units
    ]


def test_layers_that_a_sum_ties_lose_the_same_channels() -> None:
    model = net()
    first, last = (
        np.square(values(model.get_layer(name).kernel)).sum((0, 1, 2)) for name in ("first", "last")
    )
    found = prune(model, method="neuron", fraction=0.5)
    gone = np.zeros(8, bool)
    gone[np.argsort(first + last)[:4]] = True
    np.testing.assert_array_equal(dead(model, "first"), gone)
    np.testing.assert_array_equal(dead(model, "last"), gone)
    norm, bias = model.get_layer("norm"), model.get_layer("last").bias
    for variable in (norm.gamma, norm.beta, norm.moving_mean, bias):
        assert not values(variable)[gone].any()
    assert dead(model, "inside").sum() == 3
    assert not values(model.get_layer("depthwise").kernel)[:, :, dead(model, "inside")].any()
    assert found.zeros == sum(
        int((values(v) == 0).sum()) for v in model.weights if v.name == "kernel"
    )
    assert prune(model, method="neuron", fraction=0.5) == found


def test_globally_ranked_the_least_of_all_go_and_each_layer_keeps_its_minimum() -> None:
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(10, name="a"), layers.Dense(10, name="b"), layers.Dense(2)]
    )
    small, large = np.full((4, 10), 0.1), np.arange(100.0).reshape(10, 10) + 1
    model.get_layer("a").kernel.assign(small)
    model.get_layer("b").kernel.assign(large)
    prune(model, method="neuron", fraction=0.6, scope="global", minimum=3)
    assert (dead(model, "a").sum(), dead(model, "b").sum()) == (7, 5)
    np.testing.assert_array_equal(np.flatnonzero(dead(model, "b")), range(5))


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("make", [lenet_5_caffe, resnet_20, net])
def test_the_share_of_multiply_adds_is_reached_by_the_smallest_fraction(
    make: Callable[[], keras.Model], scope: str
) -> None:
    model = make()
    prune(model, method="neuron", flops=0.5, scope=scope)
    summary = summarize(model)
    assert summary.flops is not None
    assert summary.flops_shrunk is not None
    left = summary.flops_shrunk / summary.flops
    assert 0.4 < left <= 0.5
    small = shrink(model)
    assert small.count_params() == summary.parameters_shrunk
    assert summarize(small).flops == summary.flops_shrunk


@pytest.mark.parametrize("score", ["norm", "redundancy"])
@pytest.mark.parametrize("make", [lenet_5_caffe, resnet_20, net])
def test_the_compression_is_reached_by_the_smallest_fraction(
    make: Callable[[], keras.Model], score: str
) -> None:
    model = make()
    prune(model, method="neuron", compression=3, score=score)
    small = shrink(model)
    assert 3 <= model.count_params() / small.count_params() < 3.6


def test_a_ramp_takes_its_share_of_the_parameters() -> None:
    model = lenet_5_caffe()
    model.compile("adam", "mse")
    left = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: left.append(shrink(model).count_params() / model.count_params())
    )
    x, y = np.ones((8, 28, 28, 1), np.float32), np.ones((8, 10), np.float32)
    pruner = NeuronPrune(compression=4, begin=0, end=2, power=1.0)
    model.fit(x, y, epochs=3, callbacks=[pruner, look], verbose=0)
    np.testing.assert_allclose(left, [0.75, 0.5, 0.25], atol=0.02)
    assert left[-1] <= 0.25


def test_a_compression_out_of_reach_is_refused_with_the_largest_that_is_not() -> None:
    model = net()
    with pytest.raises(ValueError, match=r"argument `compression`\. Expected at most") as error:
        prune(model, method="neuron", compression=1e4)
    (most,) = re.findall(r"at most ([0-9.]+),", str(error.value))
    prune(model, method="neuron", compression=float(most))


def test_maps_side_by_side_before_a_depthwise_convolution_lose_a_share_each() -> None:
    inputs = keras.Input((8, 8, 3))
    sides = [layers.Conv2D(n, 1, name=f"side{n}")(inputs) for n in (4, 12)]
    x = layers.DepthwiseConv2D(3, name="both")(layers.Concatenate()(sides))
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    small = model.get_layer("side4")
    small.kernel.assign(0.01 * values(small.kernel))
    prune(model, method="neuron", fraction=0.5)
    assert (dead(model, "side4").sum(), dead(model, "side12").sum()) == (2, 6)
    assert shrink(model).get_layer("both").kernel.shape[2] == 8


def joined() -> keras.Model:
    """Two layers side by side whose channels a sum ties to those of a third, and a small one."""
    inputs = keras.Input((6,))
    sides = [layers.Dense(units, name=f"side{units}")(inputs) for units in (24, 40)]
    whole = layers.Dense(64, name="whole")(inputs)
    x = layers.Add()([layers.Concatenate()(sides), whole])
    return keras.Model(inputs, layers.Dense(1)(layers.Dense(5, name="small")(x)))


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("goal", [{"fraction": 0.4}, {"flops": 0.3}])
@pytest.mark.parametrize("make", [lambda: resnet_20((8, 8, 3), filters=24), joined])
def test_each_layer_keeps_a_multiple_of_channels_or_all(
    make: Callable[[], keras.Model], goal: dict[str, float], scope: str
) -> None:
    model, plain = make(), make()
    plain.set_weights(model.get_weights())
    prune(plain, method="neuron", scope=scope, **goal)
    prune(model, method="neuron", scope=scope, round_to=8, **goal)
    gone = [
        (dead_columns(one), dead_columns(other))
        for one, other in zip(model.get_weights(), plain.get_weights(), strict=True)
        if one.ndim > 1
    ]
    assert all(one.sum() == 0 or (~one).sum() % 8 == 0 for one, _ in gone)
    assert any(one.any() for one, _ in gone)
    if "flops" in goal:
        summary = summarize(model)
        assert summary.flops_shrunk is not None
        assert summary.flops is not None
        assert summary.flops_shrunk <= 0.7 * summary.flops
    else:
        assert not any((one & ~other).any() for one, other in gone)


def test_layers_that_shrink_cannot_take_channels_out_of_are_left_alone_and_named() -> None:
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, name="before_norm")(inputs)
    x = layers.LayerNormalization()(x)
    # A sigmoid of zero is no zero, and what pads puts zeros around it.
    x = layers.Conv2D(8, 3, activation="sigmoid", name="before_padding")(x)
    x = layers.Conv2D(8, 3, padding="same", name="free")(x)
    x = layers.Flatten()(x)
    frozen = layers.Dense(4, name="frozen")
    frozen.trainable = False
    model = keras.Model(inputs, layers.Dense(2)(frozen(x)))
    found = prune(model, method="neuron", fraction=0.5)
    assert dead(model, "free").sum() == 4
    for name in ("before_norm", "before_padding", "frozen"):
        assert dead(model, name).sum() == 0
    assert "no constant that folds" in found.skipped["before_padding"]
    assert "is frozen" in found.skipped["frozen"]
    assert "across channels" in found.skipped["layer_normalization"]
    assert shrink(model).get_layer("free").filters == 4


def test_only_the_layers_named_lose_channels_and_of_a_group_all_must_be() -> None:
    model = net()
    found = prune(model, method="neuron", fraction=0.5, layers=["first", "inside", "depthwise"])
    assert (dead(model, "first").sum(), dead(model, "inside").sum()) == (0, 3)
    assert "not all that makes its channels" in found.skipped["first"]


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.01),
    "momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "accumulation": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "ema": lambda: keras.optimizers.Adam(0.01, use_ema=True),
}


class Channels(keras.callbacks.Callback):
    """What is zero in each variable, as each epoch begins and ends."""

    def __init__(self) -> None:
        super().__init__()
        self.began: list[list[np.ndarray]] = []
        self.ended: list[list[np.ndarray]] = []

    def zeros(self) -> list[np.ndarray]:
        return [values(variable) == 0 for variable in self.model.trainable_variables]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began.append(self.zeros())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.ended.append(self.zeros())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_channels_stay_zero_and_the_others_train(name: str) -> None:
    model = net()
    model.compile(OPTIMIZERS[name](), "mse")
    seen = Channels()
    model.fit(X, Y, epochs=6, callbacks=[NeuronPrune(0.5, begin=1, end=3, power=1.0), seen], **FIT)
    for began, ended in zip(seen.began[1:], seen.ended[1:], strict=True):
        for before, after in zip(began, ended, strict=True):
            np.testing.assert_array_equal(before, after)
    shares = [sum(int(zero.sum()) for zero in zeros) for zeros in seen.began]
    assert shares[1] < shares[2] < shares[3] == shares[5]
    assert (dead(model, "first").sum(), dead(model, "inside").sum()) == (4, 3)
    small = shrink(model)
    assert (small.get_layer("first").filters, small.get_layer("inside").filters) == (4, 3)
    np.testing.assert_allclose(
        small.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("callback", [KeepZeros, lambda: GlobalPrune(0.6, begin=0)])
def test_a_later_fit_holds_pruned_channels_too(callback: Callable[[], Any]) -> None:
    model = net()
    model.compile("adam", "mse")
    prune(model, method="neuron", fraction=0.5)
    model.fit(X, Y, epochs=2, callbacks=[callback()], **FIT)
    gone = dead(model, "first")
    assert gone.sum() >= 4
    norm = model.get_layer("norm")
    assert (values(norm.gamma) == 0).sum() == (values(norm.beta) == 0).sum() == 4
    assert (values(model.get_layer("inside").bias) == 0).sum() == 3
    assert shrink(model).get_layer("first").filters <= 4


def test_neurons_and_weights_are_pruned_together() -> None:
    model = net()
    model.compile("adam", "mse")
    callbacks = [NeuronPrune(0.5, begin=0), GlobalPrune(0.9, begin=1)]
    history = model.fit(X, Y, epochs=3, callbacks=callbacks, **FIT)
    assert history.history["sparsity"][-1] == pytest.approx(0.9, abs=1e-3)
    assert shrink(model).get_layer("first").filters <= 4


def test_a_run_that_is_resumed_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole, half = net(), net()
    half.set_weights(whole.get_weights())
    for model in (whole, half):
        model.compile(keras.optimizers.Adam(0.01), "mse")
    path = tmp_path / "half.keras"
    whole.fit(X, Y, epochs=5, callbacks=[NeuronPrune(0.5, begin=0, end=3)], **FIT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it ends less sparse than was asked for, as it should
        half.fit(X, Y, epochs=2, callbacks=[NeuronPrune(0.5, begin=0, end=3)], **FIT)
    half.save(path)
    loaded = keras.models.load_model(path)
    pruner = NeuronPrune(0.5, begin=0, end=3)
    loaded.fit(X, Y, epochs=5, initial_epoch=2, callbacks=[pruner], **FIT)
    for ours, theirs in zip(loaded.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(ours == 0, theirs == 0)


def test_a_fit_that_ends_too_soon_says_so() -> None:
    model = net()
    model.compile("adam", "mse")
    with (
        pytest.warns(UserWarning, match="it will not reach what was asked for"),
        pytest.warns(UserWarning, match="less than the"),
    ):
        model.fit(X, Y, epochs=2, callbacks=[NeuronPrune(0.5, begin=0, end=5)], **FIT)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": (
        {},
        invalid(
            "fraction",
            "just one of `fraction`, `flops` and `compression`",
            None,
            "And flops=None, compression=None",
        ),
    ),
    "both": (
        {"fraction": 0.5, "flops": 0.5},
        invalid(
            "fraction",
            "just one of `fraction`, `flops` and `compression`",
            0.5,
            "And flops=0.5, compression=None",
        ),
    ),
    "two": (
        {"flops": 0.5, "compression": 2},
        invalid(
            "fraction",
            "just one of `fraction`, `flops` and `compression`",
            None,
            "And flops=0.5, compression=2",
        ),
    ),
    "compression": ({"compression": 0.5}, invalid("compression", "a finite float >= 1", 0.5)),
    "one": ({"fraction": 1.0}, invalid("fraction", "a number in [0, 1)", 1.0)),
    "negative": ({"flops": -0.1}, invalid("flops", "a number in [0, 1)", -0.1)),
    "NaN": ({"flops": math.nan}, invalid("flops", "a number in [0, 1)", math.nan)),
    "text": ({"fraction": "half"}, invalid("fraction", "a number in [0, 1)", "'half'")),
    "scope": (
        {"fraction": 0.5, "scope": "all"},
        invalid("scope", '"layer" or "global"', "'all'"),
    ),
    "minimum": ({"fraction": 0.5, "minimum": 0}, invalid("minimum", "an integer >= 1", 0)),
    "round_to": ({"flops": 0.5, "round_to": 2.0}, invalid("round_to", "an integer >= 1", 2.0)),
    "score": (
        {"fraction": 0.5, "score": "best"},
        invalid("score", '"norm" or "redundancy"', "'best'"),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_told(name: str) -> None:
    arguments, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        NeuronPrune(**arguments)
    with pytest.raises(ValueError, match=message):
        prune(net(), method="neuron", **arguments)


def test_multiply_adds_that_cannot_go_are_refused_with_the_largest_share_that_can() -> None:
    model = net()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"argument `flops`. Expected at most 0\.\d+") as error:
        prune(model, method="neuron", flops=0.999)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    (reachable,) = re.findall(r"at most (0\.\d+)", str(error.value))
    prune(model, method="neuron", flops=float(reachable) - 1e-4)


def test_multiply_adds_of_an_open_size_are_refused() -> None:
    inputs = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.raises(ValueError, match="Give `fraction`, or build the model with a fixed input"):
        prune(model, method="neuron", flops=0.5)
    prune(model, method="neuron", fraction=0.5)
    assert summarize(model).flops is None


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x: Any) -> Any:
        return self.dense(x)


def test_a_subclassed_model_is_refused_with_what_works_instead() -> None:
    model = Subclassed()
    model(np.ones((1, 4), np.float32))
    for call in (shrink, lambda one: prune(one, method="neuron", fraction=0.5)):
        with pytest.raises(ValueError, match=r"Write it as keras\.Model\(inputs, outputs\)"):
            call(model)


@pytest.mark.parametrize("arguments", [{"sparsity": 0.5}, {"seed": 1, "fraction": 0.5}])
def test_what_does_not_go_with_neurons_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r'None with method="neuron"'):
        prune(net(), method="neuron", **arguments)


@pytest.mark.parametrize(
    "arguments",
    [{"fraction": 0.5}, {"flops": 0.5}, {"scope": "global"}, {"minimum": 2}, {"round_to": 8}],
)
def test_what_goes_with_neurons_alone_is_refused_elsewhere(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r'Expected nothing without method="neuron"'):
        prune(net(), 0.5, **arguments)


def test_a_model_none_of_whose_channels_can_go_is_told() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    with pytest.raises(ValueError, match="channels that can go"):
        prune(model, method="neuron", fraction=0.5)


STAYING: dict[str, tuple[Callable[[], tuple[Any, Any]], dict[str, str]]] = {}


def staying(lines: str) -> Callable[[Any], Any]:
    """Registers a network and the beginnings of what is said of its layers."""
    said = dict(line.strip().split(": ", 1) for line in lines.strip().splitlines())

    def register(make: Callable[[], tuple[Any, Any]]) -> Any:
        STAYING[make.__name__] = (make, said)
        return make

    return register


@staying("units: LSTM: its units carry states")
def recurrent() -> tuple[Any, Any]:
    x = keras.Input((4, 5))
    return x, layers.LSTM(6, name="units")(x)


@staying("own: Dense: its activation is not known")
def activation() -> tuple[Any, Any]:
    x = keras.Input((5,))
    return x, layers.Dense(6, activation=lambda y: y * 2, name="own")(x)


@staying("heads: MultiHeadAttention: it computes across channels")
def attention() -> tuple[Any, Any]:
    x = keras.Input((4, 5))
    return x, layers.Flatten()(layers.MultiHeadAttention(2, 3, name="heads")(x, x))


@staying(
    """normal: LayerNormalization: it computes across channels
    before: its channels hang together with some that stay"""
)
def normalized() -> tuple[Any, Any]:
    x = keras.Input((5,))
    return x, layers.LayerNormalization(name="normal")(layers.Dense(6, name="before")(x))


@staying("thrice: its channels hang together with some that stay")
def cycle() -> tuple[Any, Any]:
    x = keras.Input((8,))
    shared = layers.Dense(8, name="thrice")
    return x, shared(shared(shared(x)))


@pytest.mark.parametrize("name", STAYING)
def test_every_layer_whose_channels_stay_is_named_with_the_reason(name: str) -> None:
    make, said = STAYING[name]
    x, y = make()
    model = keras.Model(x, layers.Dense(2)(layers.Dense(8, name="free")(y)))
    skipped = prune(model, method="neuron", fraction=0.5).skipped
    assert dead(model, "free").sum() == 4
    for layer, reason in said.items():
        assert skipped[layer].startswith(reason), skipped
    with pytest.raises(ValueError, match="channels that can go") as error:
        prune(keras.Model(x, layers.Dense(2)(y)), method="neuron", fraction=0.5)
    for reason in said.values():
        assert reason in str(error.value)


def test_the_last_layer_is_not_named() -> None:
    x = keras.Input((5,))
    model = keras.Model(x, layers.Dense(3, "softmax")(layers.Dense(8, name="free")(x)))
    assert prune(model, method="neuron", fraction=0.5).skipped == {}


def test_an_activation_layer_as_activation_takes_each_element_by_itself() -> None:
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(6, activation=layers.LeakyReLU(0.1)), layers.Dense(2)]
    )
    prune(model, method="neuron", fraction=0.5)
    assert shrink(model).layers[0].units == 3


def test_a_frozen_base_is_named_once_for_all_its_layers() -> None:
    base = [layers.Dense(6, name=f"base{number}", trainable=False) for number in range(7)]
    model = keras.Sequential([keras.Input((5,)), *base, layers.Dense(2)])
    with pytest.raises(ValueError, match=r"is frozen: .*/base0, .*/base3 and 3 more"):
        prune(model, method="neuron", fraction=0.5)


GROUPS: dict[str, Callable[[], keras.Model]] = {
    "grouped": lambda: keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3),
            layers.Conv2D(8, 1, groups=2),
            layers.Conv2D(8, 1),
            layers.Flatten(),
            layers.Dense(3),
        ]
    ),
    "no bias": lambda: keras.Sequential(
        [keras.Input((5,)), layers.Dense(6, "sigmoid"), layers.Dense(2, use_bias=False)]
    ),
}


@pytest.mark.parametrize("name", GROUPS)
def test_a_summary_tells_the_parameters_that_shrink_leaves(name: str) -> None:
    keras.utils.set_random_seed(1)
    model = GROUPS[name]()
    generator = np.random.default_rng(0)
    for layer in model.layers[:-1]:
        if layer.weights:
            kernel = values(layer.kernel)
            layer.kernel.assign(kernel * (generator.random(kernel.shape[-1]) < 0.5))
    small, summary = shrink(model), summarize(model)
    assert small.count_params() < model.count_params()
    assert summary.parameters_shrunk == small.count_params()
    assert summary.flops_shrunk == summarize(small).flops


def planted(kind: str) -> keras.Model:
    """A network in which filter 7 of a layer is filter 2 times −3."""
    x = inputs = keras.Input((8, 8, 3))
    if kind == "Dense":
        x = layers.Flatten()(x)
    width = {"Dense": layers.Dense(12, name="made"), "Conv2D": layers.Conv2D(12, 3, name="made")}
    x = width.get(kind, layers.Conv2D(12, 3, name="before"))(x)
    if kind == "DepthwiseConv2D":
        x = layers.DepthwiseConv2D(3, name="made")(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    made, axis = model.get_layer("made"), -2 if kind == "DepthwiseConv2D" else -1
    kernel = np.moveaxis(values(made.kernel).copy(), axis, 0)
    kernel[7] = -3 * kernel[2]
    made.kernel.assign(np.moveaxis(kernel, 0, axis))
    return model


@pytest.mark.parametrize("kind", ["Dense", "Conv2D", "DepthwiseConv2D"])
def test_of_two_filters_that_are_alike_one_goes_first(kind: str) -> None:
    model = planted(kind)
    prune(model, method="neuron", score="redundancy", fraction=1 / 12)
    layer = "before" if kind == "DepthwiseConv2D" else "made"
    (gone,) = np.flatnonzero(dead(model, layer))
    # The norm is that of all that makes a channel, the layer before a depthwise one included.
    assert gone in ((2, 7) if kind == "DepthwiseConv2D" else (2,))
    prune(model, method="neuron", score="redundancy", fraction=11 / 12)
    assert dead(model, layer).sum() == 11


def test_a_layer_of_one_filter_is_named_and_left_alone() -> None:
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(layers.Conv2D(1, 3, name="one")(x))
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    found = prune(model, method="neuron", score="redundancy", fraction=0.5)
    assert found.skipped["one"] == "it has one filter only"


def test_one_filter_before_flatten_is_told_as_the_reason() -> None:
    parts = [keras.Input((8, 8, 3)), layers.Conv2D(1, 3), layers.Flatten(name="flat")]
    model = keras.Sequential([*parts, layers.Dense(2)])
    with pytest.raises(ValueError, match="one channel reaches it, which stays"):
        prune(model, method="neuron", score="redundancy", fraction=0.5)


def test_the_most_alike_go_in_turn_and_are_compared_anew() -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(5, name="a"), layers.Dense(1)])
    kernel = np.zeros((3, 5))
    kernel[:, 0], kernel[:, 1], kernel[:, 2] = (1, 0, 0), (2, 0, 0), (3, 0, 0)
    kernel[:, 3], kernel[:, 4] = (0, 1, 0.1), (0, 0.1, 1)
    for fraction, gone in ((0.2, {0}), (0.4, {0, 1}), (0.6, {0, 1, 4})):
        model.get_layer("a").kernel.assign(kernel)
        prune(model, method="neuron", score="redundancy", fraction=fraction)
        assert set(np.flatnonzero(dead(model, "a"))) == gone


def test_layers_are_compared_by_how_alike_their_filters_are() -> None:
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="a"), layers.Dense(4, name="b"), layers.Dense(1)]
    )
    model.get_layer("a").kernel.assign(np.eye(4))
    model.get_layer("b").kernel.assign(np.ones((4, 4)) + 0.1 * np.eye(4))
    prune(model, method="neuron", score="redundancy", scope="global", fraction=3 / 8)
    assert (dead(model, "a").sum(), dead(model, "b").sum()) == (0, 3)


def test_redundant_neurons_go_during_fit() -> None:
    model = planted("Conv2D")
    model.compile("adam", "mse")
    model.fit(X, Y, epochs=3, callbacks=[NeuronPrune(0.5, score="redundancy", begin=0)], **FIT)
    assert shrink(model).get_layer("made").filters == 6


def test_the_message_tells_what_shrink_will_leave(capsys: pytest.CaptureFixture[str]) -> None:
    model = net()
    model.compile("adam", "mse")
    pruner = NeuronPrune(compression=2, begin=0)
    model.fit(X, Y, epochs=1, callbacks=[pruner], **{**FIT, "verbose": 2})
    parameters, left = model.count_params(), shrink(model).count_params()
    assert f"of its {parameters:,} parameters {left:,} stay." in capsys.readouterr().out
