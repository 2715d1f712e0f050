"""The scheme in one call: the target is reached, and nothing is touched when it cannot be."""

import json
import math
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_l0 import L2L0, Composite, GlobalPrune, regularize
from keras_l0.pruning.unpruned import UNFREEZE
from keras_l0.scheme import Result, compress

BACKEND = keras.backend.backend()
rng = np.random.default_rng(0)
X = rng.normal(size=(64, 12)).astype("float32")
Y = rng.integers(0, 3, 64)
PARAMETERS = 131
SHORT: dict[str, Any] = {"warmup": 1, "ramp": 2, "finetune": 1, "batch_size": 16, "verbose": 0}


def net(compiled: bool = True, **dense: Any) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(8, "tanh", name="first", **dense),
            layers.Dense(3, "softmax", name="second", **dense),
        ],
        name="net",
    )
    if compiled:
        model.compile(
            keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
    return model


def zeros(model: keras.Model) -> dict[str, int]:
    return {
        layer.name: int((ops.convert_to_numpy(layer.kernel) == 0).sum()) for layer in model.layers
    }


def by_predictions(model: keras.Model, weights: Any = None) -> dict[str, float]:
    """Loss and accuracy, from what the model predicts: no penalties are in them."""
    found = model.predict(X, verbose=0).astype(np.float64)
    losses = -np.log(found[np.arange(len(Y)), Y])
    weighted = losses if weights is None else losses * weights
    return {"loss": float(weighted.mean()), "accuracy": float((found.argmax(1) == Y).mean())}


def assert_reached(result: Result, compression: float, epochs: int) -> None:
    left = int(PARAMETERS // compression)
    assert sum(zeros(result.model).values()) == PARAMETERS - left
    assert result.report.summary.compression == pytest.approx(PARAMETERS / left)
    assert result.history.epoch == list(range(epochs))
    for name, values in result.history.history.items():
        if name not in ("sparsity", "compression", "penalty"):
            assert len(values) == epochs, name


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({}, id="global"),
        pytest.param({"method": "layerwise"}, id="layerwise"),
        pytest.param({"method": "random", "seed": 1}, id="random"),
        pytest.param({"regrow": True, "ramp": 3}, id="regrow"),
        pytest.param({"score": "lamp"}, id="lamp"),
        pytest.param({"score": np.square, "ramp": 0}, id="a score of one's own, once"),
        pytest.param({"ramp": 0}, id="the paper's: once"),
        pytest.param({"warmup": 0}, id="no warmup"),
        pytest.param({"finetune": 0}, id="no fine tuning"),
        pytest.param({"ramp": 0, "finetune": 0}, id="once, at the end"),
        pytest.param({"finetune_penalty": False}, id="fine tuning without the penalty"),
        pytest.param({"finetune_penalty": False, "ramp": 0}, id="once, then without"),
        pytest.param({"regularizer": None}, id="no penalty"),
    ],
)
def test_the_target_is_reached_and_the_history_has_every_epoch(arguments: dict[str, Any]) -> None:
    model = net()
    given = {**SHORT, **arguments}
    result = compress(model, (X, Y), (X, Y), compression=4, **given)
    assert result.model is model
    assert_reached(result, 4, given["warmup"] + given["ramp"] + given["finetune"])
    assert (result.report.trained is None) == (given["warmup"] == 0)
    assert result.report.after == pytest.approx(by_predictions(model), rel=1e-4)
    json.loads(result.report.to_json())
    assert str(result.report)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"sparsity": 0.5, "ramp": 0}, id="once"),
        pytest.param({"sparsity": 0.5, "ramp": 2}, id="a ramp"),
        pytest.param({"bound": {"val_accuracy": 0.0}, "fraction": 0.5, "ramp": 1}, id="a bound"),
    ],
)
def test_what_the_score_has_least_goes_first(arguments: dict[str, Any]) -> None:
    options = {"warmup": 0, "finetune": 1, "regularizer": None, "batch_size": 20, "verbose": 0}
    model = net()
    model.compile(keras.optimizers.SGD(1e-6), "mse", metrics=["accuracy"])
    y = np.eye(3, dtype=np.float32)[Y]
    largest = [np.abs(layer.get_weights()[0]).max() for layer in model.layers]
    compress(model, (X, y), (X, y), score=lambda w: -np.abs(w), **{**options, **arguments})
    for layer, value in zip(model.layers, largest, strict=True):
        assert np.abs(layer.get_weights()[0]).max() < value


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"compression": 3}, id="compression"),
        pytest.param({"compression": 3, "ramp": 0}, id="once"),
        pytest.param({"compression": 3, "finetune": 0}, id="not tuned"),
        pytest.param({"compression": 3, "finetune_penalty": False}, id="penalty off"),
        pytest.param({"bound": {"val_accuracy": 0.0}, "fraction": 0.4}, id="bound"),
    ],
)
def test_what_is_dead_goes_before_fine_tuning(arguments: dict[str, Any]) -> None:
    given, options = net(), {**SHORT, **arguments}
    first, second = given.layers
    first.kernel.assign(ops.convert_to_numpy(first.kernel) * ([1e-6] + [1.0] * 7))
    second.kernel.assign(ops.convert_to_numpy(second.kernel) * ([[1e-6]] + [[1.0]] * 7))
    given.compile(  # a rate that leaves the first neuron the one that goes
        keras.optimizers.SGD(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    result = compress(given, (X, Y), (X, Y), shrink=True, **options)
    assert result.model.count_params() < given.count_params() == PARAMETERS
    summary = result.report.summary
    assert sum(zeros(given).values()) == summary.zeros
    assert sum(np.count_nonzero(w) for w in result.model.get_weights()[::2]) <= (
        summary.prunable - summary.zeros
    )
    epochs = sum(options[name] for name in ("warmup", "ramp", "finetune"))
    assert result.history.epoch == list(range(epochs))
    assert result.report.after == pytest.approx(by_predictions(result.model), rel=1e-4)
    penalised = [layer.kernel.regularizer is not None for layer in result.model.layers]
    off = not options.get("finetune_penalty", True) and options["finetune"]
    assert penalised == [not off] * 2


class Weights(keras.callbacks.Callback):
    """Notes the weights at the begin of each epoch, and the optimizer's steps and rate."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, list[Any]] = {}
        self.optimizer: dict[int, tuple[int, float]] = {}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.seen[epoch] = [np.array(ops.convert_to_numpy(one)) for one in self.model.weights]
        optimizer = self.model.optimizer
        self.optimizer[epoch] = int(optimizer.iterations), float(optimizer.learning_rate)


def normalized() -> keras.Model:
    found = [layers.Dense(8, "tanh"), layers.BatchNormalization(), layers.Dense(3, "softmax")]
    model = keras.Sequential([keras.Input((12,)), *found])
    # By its name: an optimizer made anew would have this one's rate.
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="0"),
        pytest.param({"rewind": 1}, id="1"),
        pytest.param({"rewind": 3}, id="3"),
        pytest.param({"rewind": 4, "warmup": 5, "ramp": 0}, id="pruned once"),
        pytest.param({"ramp": 3, "regrow": True, "warmup": 2}, id="growing back"),
        pytest.param({"finetune_penalty": False}, id="penalty off"),
        pytest.param({"finetune_train": (X, Y)}, id="other examples"),
    ],
)
def test_what_is_left_goes_back_to_an_earlier_epoch(options: dict[str, Any]) -> None:
    model, noted = normalized(), Weights()
    options = {"warmup": 3, "ramp": 2, "rewind": 0, **options}
    result = compress(
        model,
        (X, Y),
        (X, Y),
        sparsity=0.7,
        finetune=2,
        learning_rate=0.02,
        batch_size=16,
        verbose=0,
        callbacks=[noted],
        **options,
    )
    assert result.history.epoch == list(range(7))
    assert result.report.summary.sparsity == pytest.approx(0.7, abs=0.01)
    pruned = [
        ((end == 0) if end.ndim == 2 else np.zeros(end.shape, bool)) for end in model.get_weights()
    ]
    assert sum(map(np.sum, pruned)) == result.report.summary.zeros
    for then, now, zero in zip(noted.seen[options["rewind"]], noted.seen[5], pruned, strict=True):
        np.testing.assert_array_equal(now, np.where(zero, 0, then))
    assert noted.optimizer[5] == (0, pytest.approx(0.02))
    assert result.report.settings["rewind"] == options["rewind"]


def test_what_began_as_zero_is_not_held_there() -> None:
    model = net(kernel_initializer="zeros")
    given = np.linspace(-1, 1, 12 * 8, dtype=np.float32).reshape(12, 8)
    model.layers[0].kernel.assign(given)
    compress(model, (X, Y), (X, Y), sparsity=0.5, method="layerwise", rewind=0, **SHORT)
    assert zeros(model) == {"first": 48, "second": 12}


def test_rewound_and_shrunk() -> None:
    model, noted = net(), Weights()
    first = np.array(model.layers[0].get_weights()[0])
    model.layers[0].kernel.assign(first * ([1e-6] + [1.0] * 7))
    model.layers[1].kernel.assign(
        np.array(model.layers[1].get_weights()[0]) * ([[1e-6]] + [[1.0]] * 7)
    )
    model.compile(
        keras.optimizers.SGD(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    options = {**SHORT, "compression": 3, "rewind": 0, "shrink": True, "callbacks": [noted]}
    result = compress(model, (X, Y), (X, Y), **options)
    assert result.model.count_params() < PARAMETERS
    left = result.model.layers[0].kernel.shape[1]
    assert noted.seen[3][0].shape == (12, left)
    values = noted.seen[3][0]
    assert np.isin(values[values != 0], noted.seen[0][0]).all()


def test_the_redundancy_scheme_rewinds_too() -> None:
    model, noted = net(), Weights()
    options = {**SHORT, "compression": 2, "scheme": "redundancy", "rewind": 0}
    result = compress(model, (X, Y), (X, Y), callbacks=[noted], **options)
    assert result.model.count_params() <= PARAMETERS / 2
    now, then = noted.seen[3][0], noted.seen[0][0]
    np.testing.assert_array_equal(now, np.where(now == 0, 0, then))
    assert 0 < np.count_nonzero(now == 0) < now.size


def test_a_training_that_ends_before_the_epoch_is_not_rewound() -> None:
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            self.model.stop_training = epoch == 0

    noted = Weights()
    options = {**SHORT, "warmup": 3, "ramp": 0, "compression": 3, "rewind": 2}
    options["callbacks"] = [noted, Stop()]
    with pytest.warns(UserWarning, match="Nothing is rewound: this training had no end of epoch 2"):
        compress(net(), (X, Y), (X, Y), **options)
    assert noted.optimizer[3][0] > 0


@pytest.mark.parametrize("options", [{"shrink": True}, {"finetune_penalty": False}])
def test_a_new_optimizer_has_the_learning_rate_that_was_asked_for(options: dict[str, Any]) -> None:
    class Rates(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            seen.append(float(self.model.optimizer.learning_rate))

    seen: list[float] = []
    model = net()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    options = {**SHORT, "compression": 3, "learning_rate": 0.02, "callbacks": [Rates()], **options}
    compress(model, (X, Y), (X, Y), **options)
    assert seen == pytest.approx([0.02] * 4)


@pytest.mark.parametrize("shrink", [False, True])
@pytest.mark.parametrize("ramp", [0, 2])
def test_fine_tuning_may_have_examples_of_its_own(ramp: int, shrink: bool) -> None:
    model = net()
    model.compile(keras.optimizers.Adam(0.05), "categorical_crossentropy", metrics=["accuracy"])
    first, second = (np.tile(np.eye(3, dtype=np.float32)[one], (64, 1)) for one in (0, 1))
    result = compress(
        model,
        (X, first, np.ones(64, np.float32)),
        (X, second),
        sparsity=0.5,
        finetune_train=(X, second),
        shrink=shrink,
        **{**SHORT, "ramp": ramp, "warmup": 4, "finetune": 8},
    )
    found = result.history.history["val_accuracy"]
    assert found[3] < 0.2
    assert found[-1] > 0.8
    assert len(found) == 12 + ramp
    assert sum(zeros(result.model).values()) > 0
    assert result.report.settings["finetune_train"] is True


def test_fine_tuning_on_other_examples_holds_the_zeros_of_biases() -> None:
    model = net()
    bias = model.layers[0].bias
    bias.assign(np.linspace(0.1, 0.8, 8))
    arguments = {**SHORT, "ramp": 0, "finetune": 2, "layers": ["first/bias"], "sparsity": 0.5}
    compress(model, (X, Y), (X, Y), finetune_train=(X, Y), **arguments)
    assert (ops.convert_to_numpy(bias) == 0).sum() == 4


def test_a_network_that_has_collapsed_is_tuned_as_it_is() -> None:
    model = net()
    first, _ = model.layers
    first.kernel.assign(first.kernel * 1e-3)  # so that all of it goes
    options = {**SHORT, "warmup": 0, "ramp": 0, "shrink": True, "regularizer": None}
    options["score"] = "magnitude"
    with pytest.warns(UserWarning, match="Nothing dead is taken out"):
        result = compress(model, (X, Y), (X, Y), sparsity=0.82, **options)
    assert result.model is model
    assert result.history.epoch == [0]


def test_a_model_that_cannot_be_shrunk_is_told_before_training() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3, "softmax")

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Own()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model(X)
    before = model.get_weights()
    with pytest.raises(ValueError, match="Sequential or Functional"):
        compress(model, (X, Y), (X, Y), compression=2, shrink=True, **SHORT)
    assert all(map(np.array_equal, before, model.get_weights()))


@pytest.mark.parametrize("finetune", [0, 3])
def test_with_a_bound_it_is_as_sparse_as_the_metric_allows(finetune: int) -> None:
    model = net()
    given = {**SHORT, "ramp": 6, "finetune": finetune}
    result = compress(model, (X, Y), (X, Y), bound={"val_accuracy": 0.4}, fraction=0.5, **given)
    assert result.history.epoch == list(range(7 + finetune))
    assert result.history.history["sparsity"][0] == 0
    assert result.report.after["accuracy"] >= 0.4
    held = [
        sparsity
        for sparsity, accuracy in zip(
            result.history.history["sparsity"],
            result.history.history["val_accuracy"],
            strict=True,
        )
        if accuracy >= 0.4
    ]
    assert result.report.summary.sparsity == pytest.approx(max(held))
    assert max(held) > 0
    json.loads(result.report.to_json())


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"compression": 2}, id="compression"),
        pytest.param({"flops": 0.5}, id="flops"),
        pytest.param({"compression": 2, "ramp": 0}, id="once"),
        pytest.param({"compression": 2, "ramp": 0, "finetune": 0}, id="once, at the end"),
        pytest.param({"flops": 0.5, "finetune_penalty": False}, id="tuned without the penalty"),
    ],
)
def test_the_redundancy_scheme_gives_a_smaller_network(arguments: dict[str, Any]) -> None:
    model = net()
    given = {**SHORT, **arguments}
    result = compress(model, (X, Y), (X, Y), scheme="redundancy", **given)
    assert result.history.epoch == list(range(given["warmup"] + given["ramp"] + given["finetune"]))
    # A unit has 16 of the 131 parameters, and 15 of the 120 multiply-adds.
    assert result.model.get_layer("first").units == (4 if "flops" in arguments else 3)
    summary = result.report.summary
    assert summary.parameters == PARAMETERS
    assert summary.parameters_shrunk == result.model.count_params()
    np.testing.assert_allclose(
        result.model.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-4, atol=1e-6
    )
    penalty = model.get_layer("first").kernel.regularizer
    assert isinstance(penalty, Composite) != ("finetune_penalty" in arguments)
    assert model.get_layer("second").kernel.regularizer is None
    json.loads(result.report.to_json())


class Scaled(keras.losses.Loss):
    """A loss that Keras cannot make again, as users write them."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def call(self, y: Any, found: Any) -> Any:
        return self.factor * keras.losses.sparse_categorical_crossentropy(y, found)


def test_a_loss_that_cannot_be_made_again_loses_nothing() -> None:
    model = net(compiled=False)
    model.compile("adam", Scaled(2.0))
    with pytest.warns(UserWarning, match="compile"):
        result = compress(model, (X, Y), (X, Y), scheme="redundancy", compression=2, **SHORT)
    assert result.model.get_layer("first").units == 3
    assert result.report.after["loss"] > 0


def test_a_metric_of_ones_own_has_a_mode() -> None:
    def share(y: Any, found: Any) -> Any:
        return ops.mean(
            ops.cast(ops.cast(ops.argmax(found, -1), "int32") == ops.cast(y, "int32"), "float32")
        )

    model = net(compiled=False)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=[share])
    arguments = {**SHORT, "bound": {"val_share": 0.0}, "mode": "max"}
    assert compress(model, (X, Y), (X, Y), **arguments).report.summary.sparsity > 0


def test_penalties_of_ones_own_go_before_those_of_the_redundancy_scheme() -> None:
    model, own = net(), L2L0(l2=1e-3)
    options = {**SHORT, "overrides": {"first": own}}
    compress(model, (X, Y), (X, Y), scheme="redundancy", compression=2, **options)
    assert model.get_layer("first").kernel.regularizer is own


def test_the_redundancy_scheme_adds_its_penalties_to_those_of_the_model() -> None:
    model, own = net(), L2L0(l2=1e-3)
    regularize(model, own)
    for _ in range(2):  # a second time adds nothing
        compress(model, (X, Y), (X, Y), scheme="redundancy", compression=2, **SHORT)
    penalty = model.get_layer("first").kernel.regularizer
    assert isinstance(penalty, Composite)
    assert [type(one) for one in penalty.regularizers] == [L2L0, Composite]
    assert isinstance(model.get_layer("second").kernel.regularizer, L2L0)


def test_a_bound_is_on_validation_data() -> None:
    with pytest.raises(
        ValueError, match=r"in the logs: val_accuracy, val_loss\. Received: monitor='accuracy'"
    ):
        compress(net(), (X, Y), (X, Y), **{**SHORT, "bound": {"accuracy": 0.5}})


def test_the_ramp_prunes_between_warmup_and_fine_tuning() -> None:
    result = compress(net(), (X, Y), (X, Y), sparsity=0.8, **{**SHORT, "power": 1.0})
    assert result.history.history["sparsity"] == [0.0, 0.4, 0.8, 0.8]


def test_without_a_ramp_all_is_pruned_at_the_first_epoch_of_fine_tuning() -> None:
    result = compress(net(), (X, Y), (X, Y), sparsity=0.8, **{**SHORT, "ramp": 0, "finetune": 2})
    assert result.history.history["sparsity"] == [0.0, 0.8, 0.8]


def test_the_penalty_is_on_to_the_end_unless_it_is_to_be_off() -> None:
    for stays in (True, False):
        model = net()
        compress(model, (X, Y), (X, Y), sparsity=0.5, finetune_penalty=stays, **SHORT)
        penalties = [layer.kernel.regularizer for layer in model.layers]
        if stays:
            assert [p.get_config() for p in penalties] == [L2L0(1e-5, 1e-5, 10.0).get_config()] * 2
            assert all(layer.kernel_regularizer is not None for layer in model.layers)
        else:
            assert penalties == [None, None]
            assert [layer.kernel_regularizer for layer in model.layers] == [None, None]


@pytest.mark.parametrize("shrink", [False, True])
def test_fine_tuning_may_have_a_penalty_of_its_own(shrink: bool) -> None:
    tuned = L2L0(l2=1e-3)
    options = {**SHORT, "sparsity": 0.5, "shrink": shrink, "finetune_penalty": tuned}
    penalty = L2L0(l0=1e-4)
    result = compress(net(), (X, Y), (X, Y), regularizer=penalty, scale="layer_size", **options)
    first, second = (layer.kernel for layer in result.model.layers)
    assert first.regularizer.get_config() == tuned.get_config()
    ratio = (math.prod(second.shape) / math.prod(first.shape)) ** 0.5
    assert second.regularizer.l2 == pytest.approx(1e-3 * ratio)
    assert result.report.settings["finetune_penalty"]["l2"] == 1e-3


def test_the_penalties_a_model_has_are_kept() -> None:
    penalty = keras.regularizers.L2(0.01)
    model = net(kernel_regularizer=penalty)
    compress(model, (X, Y), (X, Y), sparsity=0.5, **SHORT)
    assert [layer.kernel.regularizer for layer in model.layers] == [penalty, penalty]


def test_penalty_scale_and_overrides_are_those_of_regularize() -> None:
    model = net()
    compress(
        model,
        (X, Y),
        (X, Y),
        sparsity=0.5,
        regularizer=L2L0(l2=1e-3),
        scale="layer_size",
        overrides={"second": None},
        **SHORT,
    )
    assert model.get_layer("first").kernel.regularizer.get_config()["l2"] == pytest.approx(1e-3)
    assert model.get_layer("second").kernel.regularizer is None


def test_the_report_tells_before_trained_and_after_with_the_settings() -> None:
    model = net()
    before = by_predictions(model)
    result = compress(model, (X, Y), (X, Y), compression=4, regularizer=L2L0(l0=1e-4), **SHORT)
    report = json.loads(result.report.to_json())
    assert report["before"] == pytest.approx(before, rel=1e-4)
    assert report["trained"]["accuracy"] == result.history.history["val_accuracy"][0]
    assert report["settings"]["compression"] == 4
    assert report["settings"]["warmup"] == 1
    assert report["settings"]["regularizer"]["l0"] == 1e-4
    assert report["versions"]["keras"] == keras.__version__
    assert report["export"] is None
    assert report["seconds"] > 0


def test_a_report_of_numpy_numbers_is_json_too() -> None:
    result = compress(net(), (X, Y), (X, Y), compression=np.float32(4), **SHORT)
    assert json.loads(result.report.to_json())["settings"]["compression"] == 4


def test_only_the_layers_named_are_pruned() -> None:
    model = net()
    compress(model, (X, Y), (X, Y), sparsity=0.5, layers="second", **SHORT)
    assert zeros(model) == {"first": 0, "second": 12}


def test_further_callbacks_run_in_every_epoch() -> None:
    class Count(keras.callbacks.Callback):
        epochs = 0

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.epochs += 1

    counter = Count()
    arguments = {**SHORT, "finetune_penalty": False, "finetune": 2}
    compress(net(), (X, Y), (X, Y), sparsity=0.5, callbacks=[counter], **arguments)
    assert counter.epochs == 5


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"compression": 2}, id="compression"),
        pytest.param({"flops": 0.5, "ramp": 0}, id="once"),
        pytest.param({"flops": 0.5, "score": "redundancy"}, id="redundancy"),
        pytest.param({"flops": 0.5, "shrink": True}, id="shrunk before tuning"),
        pytest.param({"flops": 0.5, "regularizer": None, "finetune": 0}, id="no penalty"),
    ],
)
def test_neurons_are_taken_out_of_the_result(arguments: dict[str, Any]) -> None:
    model = net()
    given = {**SHORT, **arguments}
    result = compress(model, (X, Y), (X, Y), method="neuron", **given)
    assert result.history.epoch == list(range(given["warmup"] + given["ramp"] + given["finetune"]))
    # A unit has 16 of the 131 parameters, and 15 of the 120 multiply-adds.
    assert result.model.get_layer("first").units == (4 if "flops" in arguments else 3)
    assert result.model.count_params() == result.report.summary.parameters_shrunk
    assert result.report.settings["method"] == "neuron"
    penalty = result.model.get_layer("first").kernel.regularizer
    assert isinstance(penalty, L2L0) != ("regularizer" in arguments)
    assert result.report.after == pytest.approx(by_predictions(result.model), rel=1e-4)


def test_neurons_of_smallest_norm_go() -> None:
    model = net()
    kernel = ops.convert_to_numpy(model.get_layer("first").kernel) * np.arange(1, 9) ** 2
    model.get_layer("first").kernel.assign(kernel)
    model.compile(
        keras.optimizers.SGD(1e-6), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    result = compress(model, (X, Y), (X, Y), method="neuron", flops=0.5, **SHORT)
    left = ops.convert_to_numpy(result.model.get_layer("first").kernel)
    np.testing.assert_allclose(left, kernel[:, 4:], rtol=1e-3, atol=1e-4)


class Noisy(layers.Layer):
    """A loss of the user's own, which is no penalty on weights."""

    def call(self, x: Any) -> Any:
        self.add_loss(0.25 + 0.0 * ops.mean(x))
        return x


def active(penalty: Any) -> keras.Model:
    """A network with penalties on kernels and biases and losses of other kinds."""
    own: dict[str, Any] = {"kernel_regularizer": penalty, "bias_regularizer": penalty}
    first = layers.Dense(8, "tanh", activity_regularizer=penalty and "l2", **own)
    found = [first, Noisy(), layers.Dense(3, "softmax", kernel_regularizer=penalty)]
    model = keras.Sequential([keras.Input((12,)), *found])
    model.compile(
        keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


@pytest.mark.parametrize("kind", ["plain", "l2", "layers of the user's own losses"])
def test_losses_in_the_report_are_without_the_penalties_on_weights_alone(kind: str) -> None:
    own = kind.startswith("layers")
    model = active(keras.regularizers.L2(0.1)) if own else net()
    if kind == "l2":
        regularize(model, keras.regularizers.L2(0.5))
    before = model.evaluate(X, Y, verbose=0, return_dict=True)["loss"]
    penalties = sum(
        float(ops.convert_to_numpy(weight.regularizer(weight)))
        for weight in model.trainable_variables
        if weight.regularizer
    )
    options = {**SHORT, "regularizer": L2L0(l2=0.3, l0=0.01)}
    result = compress(model, (X, Y), (X, Y), compression=2, **options)
    report = result.report
    assert report.before["loss"] == pytest.approx(before - penalties, rel=1e-4)
    if not own:
        assert report.after["loss"] == pytest.approx(by_predictions(model)["loss"], rel=1e-4)
    else:
        assert report.after["loss"] > by_predictions(model)["loss"] + 0.25
    # The history is Keras' own, with the penalties.
    last = result.history.history["val_loss"][-1]
    assert last == pytest.approx(
        model.evaluate(X, Y, verbose=0, return_dict=True)["loss"], rel=1e-4
    )
    assert last > report.after["loss"] + 0.01
    assert "loss without penalties" in str(report)


@pytest.mark.parametrize("ramp", [0, 2])
def test_the_loss_after_the_penalised_training_is_without_its_penalties(ramp: int) -> None:
    class Noted(keras.callbacks.Callback):
        loss = 0.0

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                self.loss = by_predictions(self.model)["loss"]

    noted = Noted()
    options = {**SHORT, "warmup": 2, "ramp": ramp, "regularizer": L2L0(l2=0.3, l0=0.01)}
    result = compress(net(), (X, Y), (X, Y), compression=4, callbacks=[noted], **options)
    assert result.report.trained is not None
    assert result.report.trained["loss"] == pytest.approx(noted.loss, rel=1e-4)


class Batches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        batch = slice(16 * index, 16 * (index + 1))
        return X[batch], Y[batch]


def test_data_may_be_a_tuple_with_sample_weights_and_class_weights() -> None:
    weights = np.linspace(0.5, 1.5, 64).astype("float32")
    result = compress(net(), (X, Y, weights), (X, Y, weights), compression=4, **SHORT)
    assert_reached(result, 4, 4)
    assert result.report.after == pytest.approx(by_predictions(result.model, weights), rel=1e-4)
    class_weight = {0: 1.0, 1: 2.0, 2: 0.5}
    result = compress(net(), (X, Y), (X, Y), compression=4, class_weight=class_weight, **SHORT)
    assert_reached(result, 4, 4)
    json.loads(result.report.to_json())


def test_data_may_be_a_py_dataset() -> None:
    arguments = {**SHORT, "batch_size": None}
    assert_reached(compress(net(), Batches(), Batches(), compression=4, **arguments), 4, 4)


# Keras tells so of its own default.
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
def test_data_may_be_a_torch_data_loader() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pairs = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    loader = torch.utils.data.DataLoader(pairs, batch_size=16)
    arguments = {**SHORT, "batch_size": None}
    assert_reached(compress(net(), loader, loader, compression=4, **arguments), 4, 4)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data is tried on its own backend")
@pytest.mark.parametrize("finetune_penalty", [True, False])
def test_data_may_be_a_repeated_tf_dataset(finetune_penalty: bool) -> None:
    import tensorflow as tf

    endless = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16).repeat()
    arguments = {**SHORT, "batch_size": None, "finetune_penalty": finetune_penalty}
    result = compress(
        net(), endless, endless, compression=4, steps_per_epoch=4, validation_steps=4, **arguments
    )
    assert_reached(result, 4, 4)


def test_the_compressed_model_is_saved_and_loaded(tmp_path: Path) -> None:
    model = compress(net(), (X, Y), (X, Y), compression=4, **SHORT).model
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert zeros(loaded) == zeros(model)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the export needs TensorFlow in this process")
def test_the_export_is_written_and_in_the_report(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    path = tmp_path / "m.tflite"
    result = compress(net(), (X, Y), (X, Y), compression=4, export=path, **SHORT)
    assert_reached(result, 4, 4)
    assert path.exists()
    report = json.loads(result.report.to_json())
    assert report["export"]["bytes"] == path.stat().st_size


# What is refused: the whole message, and a model as it was.


def frozen() -> keras.Model:
    model = net()
    model.get_layer("first").trainable = False
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


INVALID: dict[str, tuple[Any, dict[str, Any], str]] = {
    "not compiled": (
        lambda: net(compiled=False),
        {"compression": 4},
        "Invalid value for argument `model`. Expected a compiled model. Received: model='net'. "
        "Call `model.compile(optimizer, loss, metrics)` first.",
    ),
    "warmup": (
        net,
        {"compression": 4, "warmup": -1},
        "Invalid value for argument `warmup`. Expected a number of epochs, an integer >= 0. "
        "Received: warmup=-1",
    ),
    "finetune_penalty": (
        net,
        {"compression": 4, "finetune_penalty": "l2"},
        "Invalid value for argument `finetune_penalty`. Expected True, False or a Regularizer. "
        "Received: finetune_penalty='l2'",
    ),
    "ramp": (
        net,
        {"compression": 4, "ramp": 1.5},
        "Invalid value for argument `ramp`. Expected a number of epochs, an integer >= 0. "
        "Received: ramp=1.5",
    ),
    "finetune": (
        net,
        {"compression": 4, "finetune": True},
        "Invalid value for argument `finetune`. Expected a number of epochs, an integer >= 0. "
        "Received: finetune=True",
    ),
    "rewind": (
        net,
        {"compression": 4, "rewind": 2},
        "Invalid value for argument `rewind`. Expected None, or an integer from 0 to 1, the "
        "epochs of warmup. Received: rewind=2",
    ),
    "rewind and a backup": (
        net,
        {
            "compression": 4,
            "rewind": 1,
            "callbacks": [keras.callbacks.BackupAndRestore("unused")],
        },
        "Invalid value for argument `rewind`. Expected None beside BackupAndRestore. Received: "
        "rewind=1. It would put back the weights of an epoch by itself.",
    ),
    "rewind with a bound": (
        net,
        {"bound": {"val_accuracy": 0.5}, "rewind": 0},
        "Invalid value for argument `rewind`. Expected None with a `bound`. Received: rewind=0",
    ),
    "rewind and no fine tuning": (
        net,
        {"compression": 4, "rewind": 0, "finetune": 0},
        "Invalid value for argument `rewind`. Expected None without epochs of fine tuning. "
        "Received: rewind=0",
    ),
    "compression": (
        net,
        {"compression": 0.9},
        "Invalid value for argument `compression`. Expected a finite float >= 1. "
        "Received: compression=0.9",
    ),
    "neither": (
        net,
        {},
        "Invalid value for argument `sparsity`. Expected just one of `sparsity` and "
        "`compression`. Received: sparsity=None. And compression=None.",
    ),
    "both": (
        net,
        {"compression": 4, "sparsity": 0.5},
        "Invalid value for argument `sparsity`. Expected just one of `sparsity` and "
        "`compression`. Received: sparsity=0.5. And compression=4.",
    ),
    "out of reach": (
        net,
        {"compression": 100},
        "Invalid value for argument `compression`. Expected at most 11.9091, the largest "
        "reachable. Received: compression=100. Biases, normalization and embeddings count as "
        "left.",
    ),
    "out of reach of what is not frozen": (
        frozen,
        {"compression": 2},
        "Invalid value for argument `compression`. Expected at most 1.2243, the largest "
        f"reachable. Received: compression=2. {UNFREEZE}: 96 of 120 prunable weights are frozen, "
        "in first.",
    ),
    "bound and compression": (
        net,
        {"compression": 4, "bound": {"val_accuracy": 0.5}},
        "Invalid value for argument `compression`. Expected None with a `bound`. "
        "Received: compression=4",
    ),
    "bounds": (
        net,
        {"bound": {"val_accuracy": 0.5, "val_loss": 1.0}},
        'Invalid value for argument `bound`. Expected one metric with its bound, {"val_accuracy": '
        "0.98}. Received: bound={'val_accuracy': 0.5, 'val_loss': 1.0}",
    ),
    "bound on another metric": (
        net,
        {"bound": {"val_auc": 0.5}},
        "Invalid value for argument `monitor`. Expected a metric that is in the logs: "
        "val_accuracy, val_loss. Received: monitor='val_auc'. Give `fit` "
        "validation_data, with validation_freq=1, and `compile` the metric.",
    ),
    "bound on the loss": (
        net,
        {"bound": {"val_loss": 0.5}},
        "Invalid value for argument `bound`. Expected a metric, since losses have the penalties in "
        "them. Received: bound='val_loss'. Compile it as a metric too, as metrics=[\"mse\"], or "
        "give regularizer=None.",
    ),
    "mode": (
        net,
        {"compression": 4, "mode": "max"},
        "Invalid value for argument `mode`. Expected 'auto' without a `bound`. "
        "Received: mode='max'",
    ),
    "bound without epochs": (
        net,
        {"bound": {"val_accuracy": 0.5}, "ramp": 0, "finetune": 0},
        "Invalid value for argument `ramp`. Expected an epoch or more of `ramp` or `finetune` "
        "after a first one. Received: ramp=0",
    ),
    "bound without an epoch to look at": (
        net,
        {"bound": {"val_accuracy": 0.5}, "warmup": 0, "ramp": 1, "finetune": 0},
        "Invalid value for argument `ramp`. Expected an epoch or more of `ramp` or `finetune` "
        "after a first one. Received: ramp=1",
    ),
    "fraction": (
        net,
        {"compression": 4, "fraction": 0.5},
        "Invalid value for argument `fraction`. Expected 0.1 without a `bound`. "
        "Received: fraction=0.5",
    ),
    "method": (
        net,
        {"compression": 4, "method": "neat"},
        'Invalid value for argument `method`. Expected "global", "layerwise", "random" or '
        "\"neuron\". Received: method='neat'",
    ),
    "scheme": (
        net,
        {"compression": 4, "scheme": "neat"},
        'Invalid value for argument `scheme`. Expected "l2l0" or "redundancy". '
        "Received: scheme='neat'",
    ),
    "flops": (
        net,
        {"flops": 0.5},
        'Invalid value for argument `flops`. Expected None without method="neuron" or '
        'scheme="redundancy". Received: flops=0.5',
    ),
    "redundancy to a sparsity": (
        net,
        {"sparsity": 0.5, "scheme": "redundancy"},
        'Invalid value for argument `sparsity`. Expected None with scheme="redundancy". '
        "Received: sparsity=0.5",
    ),
    "redundancy to nothing": (
        net,
        {"scheme": "redundancy"},
        "Invalid value for argument `compression`. Expected just one of `compression` and `flops` "
        "for whole neurons and filters. Received: compression=None. And flops=None.",
    ),
    "neurons to a sparsity": (
        net,
        {"sparsity": 0.5, "method": "neuron"},
        'Invalid value for argument `sparsity`. Expected None with method="neuron". '
        "Received: sparsity=0.5",
    ),
    "neurons to both": (
        net,
        {"compression": 2, "flops": 0.5, "method": "neuron"},
        "Invalid value for argument `compression`. Expected just one of `compression` and `flops` "
        "for whole neurons and filters. Received: compression=2. And flops=0.5.",
    ),
    "neurons by lamp": (
        net,
        {"flops": 0.5, "score": "lamp", "method": "neuron"},
        'Invalid value for argument `score`. Expected "norm" or "redundancy". '
        "Received: score='lamp'",
    ),
    "neurons by a bound": (
        net,
        {"bound": {"val_accuracy": 0.5}, "method": "neuron"},
        'Invalid value for argument `bound`. Expected None with method="neuron". '
        "Received: bound={'val_accuracy': 0.5}",
    ),
    "redundancy out of reach": (
        net,
        {"scheme": "redundancy", "flops": 0.99},
        "Invalid value for argument `flops`. Expected at most 0.875, the largest reachable. "
        "Received: flops=0.99. What is left alone stays, and `minimum` and `round_to` in each "
        "layer.",
    ),
    "redundancy scaled": (
        net,
        {"scheme": "redundancy", "flops": 0.5, "scale": "layer_size"},
        "Invalid value for argument `scale`. Expected None for the penalties of "
        "scheme=\"redundancy\". Received: scale='layer_size'",
    ),
    "score": (
        net,
        {"compression": 4, "score": "snip"},
        'Invalid value for argument `score`. Expected "lamp" or "magnitude", or a function of a '
        "weight tensor. Received: score='snip'",
    ),
    "score within layers": (
        net,
        {"compression": 4, "score": "lamp", "method": "layerwise"},
        'Invalid value for argument `score`. Expected None with method="layerwise". '
        "Received: score='lamp'",
    ),
    "score of filters": (
        net,
        {"flops": 0.5, "score": "lamp", "scheme": "redundancy"},
        'Invalid value for argument `score`. Expected None with scheme="redundancy". '
        "Received: score='lamp'",
    ),
    "finetune_train": (
        net,
        {"compression": 4, "finetune_train": (X,)},
        "Invalid value for argument `finetune_train`. Expected a tuple (x, y) or "
        "(x, y, sample_weight), or a data set of batches. "
        "Received: finetune_train='a tuple of 1'",
    ),
    "finetune_train for nothing": (
        net,
        {"compression": 4, "finetune_train": (X, Y), "finetune": 0},
        "Invalid value for argument `finetune_train`. Expected None without epochs of fine "
        "tuning. Received: finetune_train='data'",
    ),
    "finetune_train with a bound": (
        net,
        {"bound": {"val_accuracy": 0.5}, "finetune_train": (X, Y)},
        "Invalid value for argument `finetune_train`. Expected None with a `bound`. "
        "Received: finetune_train='data'",
    ),
    "finetune_train with weights twice": (
        net,
        {
            "compression": 4,
            "finetune_train": (X, Y, np.ones(64)),
            "class_weight": {0: 1.0, 1: 2.0, 2: 1.0},
        },
        "Invalid value for argument `finetune_train`. Expected (x, y) beside `class_weight`. "
        "Received: finetune_train='(x, y, w)'",
    ),
    "seed": (
        net,
        {"compression": 4, "seed": 1},
        'Invalid value for argument `seed`. Expected None with method="global". Received: seed=1',
    ),
    "regrow": (
        net,
        {"compression": 4, "regrow": True, "ramp": 0},
        "Invalid value for argument `regrow`. Expected False without a ramp of 2 epochs or more. "
        "Received: regrow=True",
    ),
    "regrow with random": (
        net,
        {"compression": 4, "regrow": True, "method": "random"},
        'Invalid value for argument `regrow`. Expected False with method="random". '
        "Received: regrow=True",
    ),
    "regularizer": (
        net,
        {"compression": 4, "regularizer": "l2"},
        'Invalid value for argument `regularizer`. Expected "auto", None or a Regularizer. '
        "Received: regularizer='l2'",
    ),
    "shrink": (
        net,
        {"compression": 4, "shrink": "yes"},
        "Invalid value for argument `shrink`. Expected a bool. Received: shrink='yes'",
    ),
    "an array": (
        net,
        {"compression": 4, "fraction": np.ones(2)},
        "Invalid value for argument `fraction`. Expected 0.1 without a `bound`. "
        "Received: fraction=array([1., 1.])",
    ),
    "layers": (
        net,
        {"compression": 4, "layers": "third"},
        "Invalid value for argument `layers`. Expected patterns that match a layer with "
        "weights. Received: layers='third'. The layers with weights are: net/first, net/second.",
    ),
    "overrides": (
        net,
        {"compression": 4, "overrides": {"third": None}},
        "Invalid value for argument `overrides`. Expected patterns that match a layer with a "
        "kernel to train. Received: overrides='third'. These have one: net/first, net/second.",
    ),
    "train": (
        net,
        {"compression": 4, "train": (X,)},
        "Invalid value for argument `train`. Expected a tuple (x, y) or (x, y, sample_weight), "
        "or a data set of batches. Received: train='a tuple of 1'",
    ),
    "validation": (
        net,
        {"compression": 4, "validation": None},
        "Invalid value for argument `validation`. Expected a tuple (x, y) or "
        "(x, y, sample_weight), or a data set of batches. Received: validation=None",
    ),
}


@pytest.mark.parametrize("case", INVALID)
def test_what_is_wrong_is_told_before_training_and_the_model_is_as_it_was(case: str) -> None:
    make, given, message = INVALID[case]
    model = make()
    before = model.get_weights()
    data = {"train": (X, Y), "validation": (X, Y)}
    arguments = {**SHORT, **data, **given}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        compress(model, **arguments)
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [layer.kernel_regularizer for layer in model.layers] == [None, None]
    assert [layer.kernel.regularizer for layer in model.layers] == [None, None]


@pytest.mark.parametrize("x", [X, X[:, :5]])
def test_examples_that_could_not_be_tuned_on_are_refused_before_training(x: Any) -> None:
    model = net()
    before = model.get_weights()
    # Either rows of probabilities for a loss that takes integers, or too few features.
    y = np.full((64, 3), 1 / 3, np.float32) if x is X else Y
    with pytest.raises(ValueError, match=r"^Invalid value for argument `finetune_train`"):
        compress(model, (X, Y), (X, Y), compression=4, finetune_train=(x, y), **SHORT)
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_export_to_no_folder_is_refused_before_training(tmp_path: Path) -> None:
    model = net()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"^Invalid value for argument `export`"):
        compress(model, (X, Y), (X, Y), compression=4, export=tmp_path / "no" / "m.tflite", **SHORT)
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_nan_is_refused_before_training() -> None:
    model = net()
    weights = model.get_weights()
    weights[0][0, 0] = np.nan
    model.set_weights(weights)
    with pytest.raises(ValueError, match="are NaN or infinite"):
        compress(model, (X, Y), (X, Y), compression=4, **SHORT)
    with pytest.raises(ValueError, match="are NaN or infinite"):
        model.fit(X, Y, verbose=0, callbacks=[GlobalPrune(0.5, begin=0, end=99)], epochs=100)
