"""A network that pruning leaves without a function is named when it happens."""

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers
from networks_strategy import draw_network

from keras_l0 import (
    GlobalPrune,
    IterativePrune,
    LayerwisePrune,
    RandomPrune,
    cli,
    compress,
    prune,
    sweep,
)
from keras_l0.pruning.collapse import DeadNetworkWarning
from keras_l0.pruning.variation import Variation, of_data

X = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
Y = X[:, :2]
EXAMPLES = 25 if keras.config.backend() == "tensorflow" else 5  # the others compile for long
IMAGES = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")


def scaled(model: keras.Model, **factors: float) -> keras.Model:
    """A model whose kernels of these layers are smaller than all others."""
    for name, factor in factors.items():
        for variable in model.get_layer(name).trainable_variables:
            if "kernel" in variable.name:
                variable.assign(variable * factor)
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def chain() -> keras.Model:
    """Its first layer is the one that pruning empties."""
    parts = [layers.Dense(4, name="first"), layers.Dense(40, name="middle"), layers.Dense(2)]
    return scaled(keras.Sequential([keras.Input((8,)), *parts]), first=1e-4)


def depthwise() -> keras.Model:
    """A depthwise convolution and batch normalizations, as in a MobileNet."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(32, 1, use_bias=False, name="pointwise")(x)
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x))
    return scaled(keras.Model(inputs, layers.Dense(2)(x)), depthwise=1e-4)


def recurrent() -> keras.Model:
    """A GRU: both of its matrices are small, and only that of its inputs matters."""
    inputs = keras.Input((5, 3))
    x = layers.GRU(4, name="gru")(inputs)
    return scaled(keras.Model(inputs, layers.Dense(60)(x)), gru=1e-4)


def attention() -> keras.Model:
    """Attention without a way around it: no values, no answer."""
    inputs = keras.Input((5, 8))
    x = layers.Dense(8, name="embed")(inputs)
    x = layers.MultiHeadAttention(2, 4, name="attend")(x, x)
    x = layers.GlobalAveragePooling1D()(x)
    return scaled(keras.Model(inputs, layers.Dense(200)(x)), attend=1e-4)


def residual(*names: str) -> keras.Model:
    """Two branches; pruning empties those that are named."""
    inputs = keras.Input((8,))
    left = layers.Dense(8, name="left")(inputs)
    right = layers.Dense(8, name="right")(inputs)
    x = layers.ReLU()(layers.Add()([left, right]))
    model = keras.Model(inputs, layers.Dense(80, name="head")(x))
    return scaled(model, **dict.fromkeys(names, 1e-4))


def around() -> keras.Model:
    """An empty layer beside which its input goes on."""
    inputs = keras.Input((8,))
    x = layers.Add()([layers.Dense(8, name="branch")(inputs), inputs])
    return scaled(keras.Model(inputs, layers.Dense(80)(x)), branch=1e-4)


def two_outputs() -> keras.Model:
    """One of its two outputs is emptied."""
    inputs = keras.Input((8,))
    outputs = [layers.Dense(4, name="weak")(inputs), layers.Dense(60, name="strong")(inputs)]
    return scaled(keras.Model(inputs, outputs), weak=1e-4)


class Subclassed(keras.Model):
    """Has no graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = layers.Dense(4, name="first"), layers.Dense(40, name="last")

    def call(self, x: Any) -> Any:
        return self.last(self.first(x))


class Own(layers.Layer):
    """A layer that no rule knows."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    def call(self, x: Any) -> Any:
        return keras.ops.matmul(x, self.kernel)


def sequence(layer: keras.Layer) -> keras.Model:
    """A layer of another layer, or without a rule, through which everything goes."""
    inputs = keras.Input((5, 3))
    x = layers.Flatten()(layer(inputs))
    return scaled(keras.Model(inputs, layers.Dense(60)(x)), **{layer.name: 1e-4})


def subclassed() -> keras.Model:
    """Its first layer is emptied."""
    model = Subclassed()
    model(X)
    return scaled(model, first=1e-4)


def warnings_of(call: Callable[[], Any]) -> list[str]:
    """What a call says of dead networks."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(one.message) for one in caught if one.category is DeadNetworkWarning]


DEAD = {
    "chain": (chain, 0.9, "first"),
    "depthwise": (depthwise, 0.4, "depthwise"),
    "recurrent": (recurrent, 0.4, "gru"),
    "attention": (attention, 0.3, "attend"),
    "both branches": (lambda: residual("left", "right"), 0.3, "left"),
    "an output": (two_outputs, 0.1, "weak"),
    "subclassed": (subclassed, 0.3, "first"),
    "in both directions": (
        lambda: sequence(layers.Bidirectional(layers.LSTM(4), name="both")),
        0.35,
        "both",
    ),
    "at each step": (
        lambda: sequence(layers.TimeDistributed(layers.Dense(4), name="each")),
        0.1,
        "each",
    ),
    "an equation": (
        lambda: sequence(layers.EinsumDense("abc,cd->adb", (4, 5), name="einsum")),
        0.1,
        "einsum",
    ),
    "a layer of one's own": (lambda: sequence(Own(name="own")), 0.1, "own"),
}
ALIVE = {
    "chain": (chain, 0.05),
    "depthwise": (depthwise, 0.1),
    "one branch": (lambda: residual("left"), 0.2),
    "a way around": (around, 0.2),
    "an output": (two_outputs, 0.03),
    "subclassed": (subclassed, 0.05),
}


@pytest.mark.parametrize("name", DEAD)
def test_prune_names_the_layer_that_gives_a_constant(name: str) -> None:
    build, sparsity, layer = DEAD[name]
    model = build()
    with pytest.warns(
        DeadNetworkWarning, match=rf"prune: pruning went too far: .*{layer}"
    ) as caught:
        found = prune(model, sparsity, score="magnitude")
    (told,) = (one for one in caught if one.category is DeadNetworkWarning)
    assert len(str(told.message)) < 600
    assert told.filename == __file__
    assert found.dead
    assert "went too far" in str(found)


@pytest.mark.parametrize("name", ALIVE)
def test_an_empty_layer_that_is_not_on_every_path_is_no_matter(name: str) -> None:
    build, sparsity = ALIVE[name]
    model = build()
    found: list[Any] = []
    assert not warnings_of(lambda: found.append(prune(model, sparsity, score="magnitude")))
    assert not found[0].dead
    assert "too far" not in str(found[0])


def test_an_output_that_is_dead_is_told_from_one_that_is_not() -> None:
    with pytest.warns(DeadNetworkWarning):
        found = prune(two_outputs(), 0.1, score="magnitude")
    assert found.dead == [
        "output 0 is the same for any input, since what layer weak gives is constant"
    ]


@pytest.mark.parametrize("build", [chain, subclassed])
def test_a_callback_warns_once_in_the_epoch_that_prunes(build: Callable[[], Any]) -> None:
    model, epochs = build(), []
    note = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: epochs.append(epoch))

    def fit() -> None:
        pruner = GlobalPrune(0.5, begin=1, end=2, score="magnitude")
        model.fit(X, X[:, :1], epochs=4, callbacks=[note, pruner], verbose=0)

    with warnings.catch_warnings():
        warnings.simplefilter("error", DeadNetworkWarning)
        with pytest.raises(DeadNetworkWarning, match=r"GlobalPrune: .*first"):
            fit()
    assert epochs[-1] == 1
    model = build()
    assert len(warnings_of(fit)) == 1


def test_other_callbacks_warn_too() -> None:
    def emptied() -> keras.Model:
        return scaled(chain(), first=0.0)

    for pruner in (LayerwisePrune(0.5, begin=0, end=1), RandomPrune(0.5, begin=0, end=1, seed=0)):
        model = emptied()
        told = warnings_of(
            lambda: model.fit(X, Y, epochs=2, callbacks=[pruner], verbose=0)  # noqa: B023
        )
        assert len(told) == 1
        assert told[0].startswith(type(pruner).__name__)
    model = chain()
    iterative = IterativePrune("val_mae", 1e9, fraction=0.5, score="magnitude", begin=0)
    data = {"validation_data": (X, Y), "epochs": 3, "verbose": 0}
    told = warnings_of(lambda: model.fit(X, Y, callbacks=[iterative], **data))
    assert len(told) == 1
    assert told[0].startswith("IterativePrune")
    assert "first" in told[0]


@given(data=st.data())
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
def test_an_output_that_is_called_dead_is_the_same_for_any_input(data: st.DataObject) -> None:
    network = draw_network(data.draw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeadNetworkWarning)
        sparsity = data.draw(st.sampled_from([0.5, 0.8, 0.95]))
        dead = prune(network.model, sparsity, score="magnitude").dead
    outputs = network.outputs(network.model, network.inputs)
    others = network.outputs(network.model, network.other)
    for sentence in dead:
        for place in map(int, re.findall(r"\d+", sentence.split(" the same ")[0])):
            both = np.concatenate([outputs[place], others[place]])
            np.testing.assert_allclose(both, np.broadcast_to(both[:1], both.shape), atol=1e-5)


def faint(bias: float) -> keras.Model:
    """What is left of its first layer's kernel once half is pruned is lost beside a large bias."""
    model = keras.Sequential([keras.Input((8,)), layers.Dense(1, name="one"), layers.Dense(2)])
    kernel = np.full((8, 1), 1e-6, "float32")
    kernel[0] = 1.0
    model.layers[0].set_weights([kernel, np.full(1, bias, "float32")])
    model.layers[1].set_weights([np.ones((1, 2), "float32"), np.zeros(2, "float32")])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


class Emptying(keras.callbacks.Callback):
    """Stands for an epoch of training that leaves this much of the first layer's kernel."""

    def __init__(self, factor: float, epoch: int) -> None:
        super().__init__()
        self.factor, self.epoch = factor, epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.now = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.now == self.epoch:
            kernel = self.model.layers[0].kernel
            kernel.assign(kernel * self.factor)


def told_in_fit(model: keras.Model, factor: float, begin: int, data: Any) -> list[str]:
    """What two epochs say, of which the one that prunes ends with less of a kernel."""
    callbacks = [Emptying(factor, begin), LayerwisePrune(0.5, begin=begin, end=begin)]
    arguments = {"epochs": 2, "batch_size": 32, "verbose": 0, "validation_data": data}
    return warnings_of(lambda: model.fit(X, Y, callbacks=callbacks, **arguments))


def test_outputs_that_hardly_vary_between_validation_samples_are_named() -> None:
    (told,) = told_in_fit(faint(0.0), 0.01, 1, (X, Y))
    assert "LayerwisePrune: pruning went too far: output 0 hardly varies between" in told
    assert len(told) < 600
    (told,) = told_in_fit(faint(1.0), 1e-9, 0, (X, Y))  # nothing to compare with
    assert "output 0 is the same for each of 32 samples" in told
    assert not told_in_fit(faint(0.0), 0.01, 1, None)  # nothing to look at
    assert not told_in_fit(faint(0.0), 0.5, 1, (X, Y))
    assert not told_in_fit(faint(0.0), 0.01, 0, (X, Y))  # small, but all that there is


@pytest.mark.parametrize(
    ("x", "model"),
    [
        # Samples in the order of their classes, of which the first are all alike.
        (np.repeat(X[:2], 500, axis=0), faint(0.0)),
        # A regression far from zero.
        (X, faint(1000.0)),
        # Samples that are the same.
        (np.ones_like(X), faint(0.0)),
    ],
)
def test_outputs_that_vary_as_their_inputs_do_are_no_matter(x: Any, model: keras.Model) -> None:
    assert not told_in_fit(model, 1.0, 0, (x, np.zeros((len(x), 2))))
    assert not told_in_fit(model, 1.0, 1, (x, np.zeros((len(x), 2))))


def test_variation_is_compared_with_that_before() -> None:
    model = faint(0.0)
    variation = Variation(X)
    variation.note(model, 1.0)
    assert not variation.lost(model, 2.0)
    model.layers[0].kernel.assign(model.layers[0].kernel * 0.2)
    assert not variation.lost(model, 2.0)
    model.layers[0].kernel.assign(model.layers[0].kernel * 0.2)
    assert "before pruning" in variation.lost(model, 2.0)[0]
    assert not variation.lost(model, 0.5)  # smaller outputs may be better ones
    assert variation.lost(model, float("nan"))


class Sequence(keras.utils.PyDataset):
    """Twenty batches, of which it counts those that were read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []

    def __len__(self) -> int:
        return 20

    def __getitem__(self, place: int) -> Any:
        self.read.append(place)
        return X + place, Y


def test_samples_are_from_all_over_the_data() -> None:
    model = faint(0.0)
    spread = np.repeat(np.arange(100.0, dtype="float32"), 32)[:, None] * np.ones(8, "float32")
    variation = of_data(model, {"x": spread, "y": spread[:, :2]}, None)
    assert variation is not None
    seen = np.unique(keras.ops.convert_to_numpy(variation._samples))
    assert seen.min() == 0
    assert seen.max() == 99
    assert len(seen) == 16
    batches = Sequence()
    assert of_data(model, {"x": batches}, None) is not None
    assert batches.read[0] == 0
    assert batches.read[-1] == 19
    assert len(batches.read) == 16


def test_what_cannot_be_sampled_is_left_alone() -> None:
    class Own(keras.Sequential):
        def test_step(self, *_: Any) -> Any:
            return {}

    pairs = iter([(X, Y)])
    assert of_data(faint(0.0), {"x": pairs}, None) is None
    assert next(pairs)[0] is X
    assert of_data(Own([keras.Input((8,)), layers.Dense(2)]), {"x": X, "y": Y}, None) is None
    text = np.array([["a"], ["b"]])
    assert of_data(faint(0.0), {"x": text, "y": Y[:2]}, None) is None
    fixed = keras.Sequential([keras.Input(batch_shape=(4, 8)), layers.Dense(2)])
    variation = of_data(fixed, {"x": X, "y": Y}, 4)
    if variation is not None:  # as many samples as such a model does not take
        variation.note(fixed, 1.0)
        assert variation.lost(fixed, 2.0) == []


def test_looking_at_the_outputs_changes_nothing_in_the_model() -> None:
    class Counting(layers.Layer):
        def build(self, shape: Any) -> None:
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x: Any) -> Any:
            self.calls.assign_add(1.0)
            return x

    model = keras.Sequential([keras.Input((8,)), Counting(), layers.Dense(2)])
    before = model.get_weights()
    variation = Variation(X)
    variation.note(model, 1.0)
    assert variation._before
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_data_loader_draws_the_same_numbers_afterwards() -> None:
    torch = pytest.importorskip("torch")
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y)), 8, shuffle=True
    )
    before = torch.get_rng_state()
    assert of_data(faint(0.0), {"x": loader}, None) is not None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("pruner", "remedy"),
    [
        (GlobalPrune(0.5, begin=0, score="magnitude"), 'score="lamp"'),
        (LayerwisePrune(0.5, begin=0), 'distribution="erk"'),
        (LayerwisePrune(0.5, distribution="erk", begin=0), None),
        (GlobalPrune(0.5, begin=0), None),
    ],
)
def test_the_advice_is_none_that_was_taken(pruner: Any, remedy: str | None) -> None:
    model = scaled(chain(), first=0.0)
    (told,) = warnings_of(lambda: model.fit(X, Y, callbacks=[pruner], verbose=0))
    for name in ('score="lamp"', 'distribution="erk"'):
        assert (name in told) == (name == remedy)


def test_sweep_marks_dead_points_and_warns_once() -> None:
    model, found = chain(), []
    before = model.get_weights()
    call = {"compressions": [1.01, 1.5, 2.0], "score": "magnitude"}
    told = warnings_of(lambda: found.append(sweep(model, (X, Y), **call)))
    assert len(told) == 1
    assert "2 of 3 prunings" in told[0]
    assert "first" in told[0]
    assert [bool(point.dead) for point in found[0].points] == [False, True, True]
    assert str(found[0]).count("network, dead") == 4  # two rows in each of two tables
    assert json.loads(found[0].to_json())["points"][2]["dead"]
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_compress_does_not_report_a_dead_network_as_a_success() -> None:
    short = {"warmup": 1, "ramp": 1, "finetune": 1, "regularizer": None, "verbose": 0}
    found: list[Any] = []
    model = chain()
    told = warnings_of(
        lambda: found.append(
            compress(model, (X, Y), (X, Y), sparsity=0.5, score="magnitude", **short)
        )
    )
    assert [text.split(":")[0] for text in told] == ["GlobalPrune", "compress"]
    assert "first" in found[0].report.dead[0]
    assert str(found[0].report).startswith("Pruning went too far: output 0")
    assert json.loads(found[0].report.to_json())["dead"]
    fine = compress(chain(), (X, Y), (X, Y), sparsity=0.05, score="magnitude", **short).report
    assert fine.dead == []
    assert "too far" not in str(fine)


def test_neurons_of_a_dead_network_stay_where_they_are() -> None:
    model = scaled(chain(), first=0.0)
    model.optimizer.learning_rate = 0.0
    short = {"warmup": 1, "ramp": 1, "finetune": 1, "regularizer": None, "verbose": 0}
    with pytest.warns(UserWarning, match="Nothing dead is taken out"):
        result = compress(model, (X, Y), (X, Y), method="neuron", flops=0.3, **short)
    assert result.model is model
    assert result.report.dead


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="the program runs one backend")
def test_the_program_ends_with_status_1_and_names_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out, small = tmp_path / "given.keras", tmp_path / "out", tmp_path / "small.keras"
    model = chain()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.save(given)
    classes = np.arange(len(X)) % 2
    np.savez(tmp_path / "data.npz", x_train=X, y_train=classes, x_test=X, y_test=classes)
    score = ["--score", "magnitude"]
    with pytest.warns(DeadNetworkWarning):
        assert cli.main(["prune", str(given), str(small), "--sparsity", "0.5", *score]) == 1
    printed = capsys.readouterr().out
    assert "went too far" in printed
    assert str(small) in printed
    assert small.exists()

    call = ["compress", str(given), "--data", str(tmp_path / "data.npz"), "--sparsity", "0.5"]
    call += ["--warmup", "1", "--ramp", "1", "--finetune", "1", "--out", str(out), *score]
    with pytest.warns(DeadNetworkWarning):
        assert cli.main(call) == 1
    printed = capsys.readouterr().out
    assert "Pruning went too far" in printed
    for name in ("model.keras", "model.tflite", "report.json"):
        assert str(out / name) in printed
        assert (out / name).exists()
    assert cli.main([*call, "--resume"]) == 1  # finished, and no better
