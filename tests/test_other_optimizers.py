"""Zeros are held or restored whichever optimizer trains, and what is said was observed."""

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_l0 import GlobalPrune, KeepZeros, NeuronPrune, prune
from keras_l0.pruning.holding import optimizers_of

BACKEND = keras.backend.backend()
rng = np.random.default_rng(0)
X = rng.normal(size=(32, 12)).astype("float32")
Y = rng.normal(size=(32, 3)).astype("float32")
FIT: dict[str, Any] = {"batch_size": 16, "shuffle": False, "verbose": 0}
TENSORFLOW = pytest.mark.skipif(BACKEND != "tensorflow", reason="written in TensorFlow")
SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam


def net(kind: type[keras.Model] = keras.Model) -> keras.Model:
    inputs = keras.Input((12,))
    x = layers.BatchNormalization()(layers.Dense(8, "tanh")(inputs))
    model = kind(inputs, layers.Dense(3)(x))
    model.compile(SGD(0.05, momentum=0.9), "mse")
    return model


def kernels(model: keras.Model) -> list[np.ndarray]:
    return [ops.convert_to_numpy(w) for w in model.weights if w.name == "kernel"]


def sparsity(model: keras.Model) -> float:
    found = kernels(model)
    return sum(int((w == 0).sum()) for w in found) / sum(w.size for w in found)


def told(model: keras.Model, callbacks: list[Any], **fit: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, Y, callbacks=callbacks, **{**FIT, **fit})
    names = ("KeepZeros", "GlobalPrune", "NeuronPrune")
    return [str(w.message) for w in caught if str(w.message).startswith(names)]


class Ended(keras.callbacks.Callback):
    """Keeps the sparsity before each validation and at each epoch's end."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[float] = []

    def on_test_begin(self, logs: Any = None) -> None:
        self.found.append(sparsity(self.model))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.found.append(sparsity(self.model))


# Held.


PLACES: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any], tuple[Any, Any]]]] = {
    "list": (lambda g, d: [g, d], lambda found: (found[0], found[1])),
    "tuple": (lambda g, d: (g, d), lambda found: (found[0], found[1])),
    "dict": (lambda g, d: {"g": g, "d": d}, lambda found: (found["g"], found["d"])),
    "nested": (
        lambda g, d: {"all": [{"g": g}, (d,)]},
        lambda found: (found["all"][0]["g"], found["all"][1][0]),
    ),
}


def gan(place: str) -> keras.Model:
    """Two networks that two optimizers train in turn, as in the guides of Keras."""
    import tensorflow as tf

    class Gan(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.generator = keras.Sequential(
                [keras.Input((4,)), layers.Dense(8, "tanh"), layers.Dense(12)]
            )
            self.discriminator = keras.Sequential(
                [keras.Input((12,)), layers.Dense(8, "tanh"), layers.Dense(1)]
            )

        def call(self, x: Any) -> Any:
            return self.discriminator(x)

        def train_step(self, data: Any) -> Any:
            x, z = data[0], tf.random.normal((16, 4))
            own = (
                (self.g_optimizer, self.d_optimizer)
                if place == "attribute"
                else PLACES[place][1](self.optimizers)
            )
            with tf.GradientTape() as tape:
                loss = ops.mean(self.discriminator(self.generator(z)) ** 2)
                loss += ops.mean((self.discriminator(x) - 1) ** 2)
            weights = self.discriminator.trainable_variables
            own[1].apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            with tf.GradientTape() as tape:
                loss = ops.mean((self.discriminator(self.generator(z)) - 1) ** 2)
            weights = self.generator.trainable_variables
            own[0].apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            return {"loss": loss}

    model = Gan()
    model.compile(loss="mse")
    if place == "attribute":
        model.g_optimizer, model.d_optimizer = Adam(0.01), SGD(0.05, momentum=0.9)
    else:
        model.optimizers = PLACES[place][0](Adam(0.01), SGD(0.05, momentum=0.9))
    model(X[:1])
    return model


@TENSORFLOW
@pytest.mark.parametrize("place", ["attribute", *PLACES])
def test_zeros_are_held_by_each_of_a_gans_optimizers(place: str) -> None:
    model = gan(place)
    names = list(optimizers_of(model))
    assert len(names) == 3
    assert all(name.startswith(("model.optimizer", "model.g_", "model.d_")) for name in names)
    pruner = GlobalPrune(0.75, begin=1)
    assert told(model, [pruner], epochs=4) == []
    for network in (model.generator, model.discriminator):
        assert 0.5 < sparsity(network) < 1
    assert sparsity(model) == 0.75


def test_zeros_are_held_by_an_optimizer_that_has_parts_and_is_an_attribute() -> None:
    parts = [Adam(0.01), SGD(0.05, momentum=0.9)]
    model = net()
    model.compile(
        keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(parts[0], {f".*{model.layers[-1].name}/.*": parts[1]})
        ),
        "mse",
    )
    model.parts = parts  # of the one above: they are found once
    assert list(optimizers_of(model)) == ["model.optimizer"]
    prune(model, 0.5)
    assert told(model, [KeepZeros()], epochs=2) == []
    assert sparsity(model) == 0.5


def test_optimizers_of_inner_models_are_found_once() -> None:
    inner = net()
    model = keras.Sequential([inner, layers.Dense(2)])
    model.compile(keras.optimizers.LossScaleOptimizer(SGD(0.1)), "mse")
    model.again = {"same": model.optimizer.inner_optimizer, "inner": inner.optimizer}
    assert len(optimizers_of(model)) == 2


@pytest.mark.parametrize("swap_on_epoch", [True, False])
@pytest.mark.parametrize("order", [1, -1], ids=["pruner first", "last"])
@pytest.mark.parametrize("pruner", [GlobalPrune(0.75, begin=1, end=2), NeuronPrune(0.5, begin=1)])
def test_averages_that_are_swapped_in_are_sparse(
    pruner: GlobalPrune | NeuronPrune, order: int, swap_on_epoch: bool
) -> None:
    model = net()
    model.compile(Adam(0.01, use_ema=True), "mse")
    ended = Ended()
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=swap_on_epoch)
    callbacks = [*[pruner, swap][::order], ended]
    assert told(model, callbacks, epochs=4, validation_data=(X, Y)) == []
    asked = 0.75 if isinstance(pruner, GlobalPrune) else 0.4
    assert sparsity(model) >= asked
    assert min(ended.found[-2:]) >= asked


# Not held, and restored.


class Raw(keras.Model):
    """Steps its weights without a Keras optimizer, as other libraries' optimizers do."""

    def train_step(self, *arguments: Any) -> Any:
        return getattr(self, f"_{BACKEND}_step")(*arguments)

    def _tensorflow_step(self, data: Any) -> Any:
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(self(x, training=True) - y))
        weights = self.trainable_variables
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.value.assign_sub(0.05 * gradient)
        return {"loss": loss}

    def _torch_step(self, data: Any) -> Any:
        import torch

        x, y = data
        own = torch.optim.SGD([weight.value for weight in self.trainable_variables], 0.05)
        own.zero_grad()
        loss = ops.mean(ops.square(self(x, training=True) - y))
        loss.backward()
        own.step()
        return {"loss": loss}

    def _jax_step(self, state: Any, data: Any) -> Any:
        import jax

        trainable, others, optimizer_state, metrics = state
        x, y = data

        def loss_of(values: Any) -> Any:
            outputs, updated = self.stateless_call(values, others, x, training=True)
            return ops.mean(ops.square(outputs - y)), updated

        (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        stepped = [w - 0.05 * g for w, g in zip(trainable, gradients, strict=True)]
        return {"loss": loss}, (stepped, others, optimizer_state, metrics)


UNUSED = (
    "in this epoch model.optimizer made 0 steps, but weights changed, so something else trains "
    "them, and zeros cannot be held in each step. The zeros are restored at the end of each epoch "
    "instead. To hold them, train with a Keras optimizer that is an attribute of the model."
)


def test_zeros_that_no_keras_optimizer_holds_are_restored_and_it_is_said_once() -> None:
    model = net(Raw)
    prune(model, 0.5)
    before, ended = kernels(model), Ended()
    callbacks = [KeepZeros(), GlobalPrune(0.5), ended]
    found = told(model, callbacks, epochs=3, validation_data=(X, Y))
    assert found == [f"KeepZeros: 60 zeros were lost: {UNUSED}"]
    assert ended.found == [0.5] * 6
    for w, now in zip(before, kernels(model), strict=True):
        np.testing.assert_array_equal(w == 0, now == 0)
        assert not np.array_equal(w, now)


def test_it_is_said_after_the_first_epoch_when_nothing_is_pruned_yet() -> None:
    model = net(Raw)
    said = []

    class Noting(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            said.append(sum("zeros cannot be held" in str(one.message) for one in caught))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, Y, epochs=4, callbacks=[GlobalPrune(0.5, begin=2, end=3), Noting()], **FIT)
    assert f"GlobalPrune: {UNUSED}" in [str(one.message) for one in caught]
    assert said == [0, 1, 1, 1]
    assert sparsity(model) == 0.5


@pytest.mark.skipif(BACKEND == "jax", reason="Keras on JAX needs an optimizer")
def test_a_model_compiled_without_an_optimizer_is_told_that_it_has_none() -> None:
    model = net(Raw)
    model.compile(None, "mse")
    prune(model, 0.5)
    (said,) = told(model, [KeepZeros()], epochs=2)
    assert "in this epoch the model has no Keras optimizer, but weights changed" in said
    assert sparsity(model) == 0.5


@TENSORFLOW
def test_a_step_that_was_traced_before_is_named_as_such() -> None:
    import tensorflow as tf

    model = net()
    model.train_step = tf.function(model.train_step)
    model.fit(X, Y, **FIT)
    prune(model, 0.5)
    (said,) = told(model, [KeepZeros()], epochs=2)
    assert "60 zeros were lost: in this epoch model.optimizer made 2 steps" in said
    assert "was not called, as happens if train_step was traced before this fit" in said
    assert sparsity(model) == 0.5


class Assigning(keras.Model):
    """Changes a weight beside its optimizer's steps."""

    def train_step(self, *arguments: Any) -> Any:
        found = super().train_step(*arguments)
        if BACKEND == "jax":
            logs, (trainable, *others) = found
            return logs, ([w + 0.01 for w in trainable], *others)
        for weight in self.trainable_variables:
            weight.assign(weight + 0.01)
        return found


def test_weights_that_are_assigned_beside_the_optimizer_are_told_apart() -> None:
    model = net(Assigning)
    prune(model, 0.5)
    (said,) = told(model, [KeepZeros()], epochs=2)
    assert "model.optimizer made 2 steps, but something else than these steps changed" in said
    assert sparsity(model) == 0.5


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
@pytest.mark.parametrize("case", ["accumulates", "no gradient", "plain", "loss scale"])
def test_nothing_is_said_of_an_optimizer_that_works(case: str) -> None:
    optimizer: Any = {
        "accumulates": lambda: Adam(gradient_accumulation_steps=100),
        "no gradient": lambda: SGD(0.0),
        "plain": lambda: SGD(0.1),
        "loss scale": lambda: keras.optimizers.LossScaleOptimizer(SGD(0.1)),
    }[case]()
    model = net()
    model.compile(optimizer, "mse")
    prune(model, 0.5)
    assert told(model, [KeepZeros()], epochs=2, validation_data=(X, Y)) == []
    assert sparsity(model) == 0.5


def test_weights_replaced_between_epochs_are_told_of() -> None:
    model = net()
    dense = model.get_weights()
    prune(model, 0.5)

    class Replace(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                self.model.set_weights(dense)

    (said,) = told(model, [KeepZeros(), Replace()], epochs=4)
    assert said.endswith(
        "less than the 0.5000 asked for. Between epochs 1 and 2, weights were replaced: of 60 "
        "zeros 0 were left."
    )


# Layers that are frozen or freed during fit.


class Toggle(keras.callbacks.Callback):
    def __init__(self, *values: bool) -> None:
        super().__init__()
        self.values = values

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        for layer in self.model.layers[:2]:
            layer.trainable = self.values[epoch]


@pytest.mark.skipif(BACKEND == "jax", reason="a plain fit fails then on JAX, in Keras")
@pytest.mark.parametrize(
    "callback",
    [
        KeepZeros(),
        GlobalPrune(0.6, begin=0, end=2),
        NeuronPrune(0.5, begin=0, end=2),
    ],
)
@pytest.mark.parametrize("first", [True, False], ids=["pruner first", "last"])
@pytest.mark.parametrize("values", [(True, False, True), (False, True, True)])
def test_layers_may_be_frozen_and_freed_by_a_callback(
    values: tuple[bool, ...], first: bool, callback: Any
) -> None:
    model = net()
    prune(model, 0.4)
    zeros = [w == 0 for w in kernels(model)]
    callbacks = [callback, Toggle(*values)][:: 1 if first else -1]
    assert told(model, callbacks, epochs=3) == []
    for before, w in zip(zeros, kernels(model), strict=True):
        assert (w[before] == 0).all()
    gone = (kernels(model)[0] == 0).all(0)
    assert gone.any() == isinstance(callback, NeuronPrune)
    bias = ops.convert_to_numpy(model.layers[1].bias)
    assert (bias[gone] == 0).all()


@pytest.mark.skipif(BACKEND != "jax", reason="a plain fit works on the others")
@pytest.mark.parametrize("callbacks", [[], [KeepZeros()]], ids=["plain", "ours"])
def test_on_jax_that_ends_in_the_error_of_a_plain_fit(callbacks: list[Any]) -> None:
    model = net()
    with pytest.raises(ValueError, match=r"shape=\(8,\), Received: value.shape=\(12, 8\)"):
        model.fit(X, Y, epochs=3, callbacks=[*callbacks, Toggle(True, False, True)], **FIT)


@TENSORFLOW
def test_a_layer_that_was_frozen_at_first_keeps_its_zeros_when_it_is_freed() -> None:
    model = net()
    prune(model, 0.5)
    zeros = [w == 0 for w in kernels(model)]
    model.layers[1].trainable = False
    model.compile("adam", "mse")
    model.optimizer.build([w for layer in model.layers for w in layer._trainable_variables])
    assert told(model, [Toggle(True, True), KeepZeros()], epochs=2) == []
    for before, w in zip(zeros, kernels(model), strict=True):
        np.testing.assert_array_equal(w == 0, before)


# No epochs.


@pytest.mark.parametrize(
    "callback", [KeepZeros(), GlobalPrune(0.5), GlobalPrune(0.5, begin=3), NeuronPrune(0.5)]
)
def test_a_fit_of_no_epochs_does_what_a_plain_one_does(callback: Any) -> None:
    model = net()
    before = model.get_weights()
    assert told(model, [callback], epochs=0) == []
    for w, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(w, now)
    assert told(model, [KeepZeros()], epochs=1) == []


# The reminder.


@pytest.mark.parametrize(
    ("callbacks", "times"),
    [
        ([GlobalPrune(0.5, begin=0)], 1),
        ([NeuronPrune(0.25, begin=0), GlobalPrune(0.5, begin=0)], 1),
        ([KeepZeros()], 0),
        ([KeepZeros(), GlobalPrune(0.5, begin=0)], 0),
    ],
)
def test_the_reminder_of_keep_zeros_comes_once_and_not_if_it_was_used(
    callbacks: list[Any], times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    keras.config.enable_interactive_logging()
    model = net()
    model.fit(X, Y, epochs=2, callbacks=callbacks, batch_size=16, verbose=2)
    assert capsys.readouterr().out.count("KeepZeros()]") == times
