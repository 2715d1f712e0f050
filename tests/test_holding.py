"""What is zero stays zero, and the optimizer and the compiled step stay what they were."""

import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_l0 import L2L0, GlobalPrune, KeepZeros, fusion, prune

BACKEND = keras.backend.backend()
Kernels = dict[str, np.ndarray]
rng = np.random.default_rng(0)
X = rng.normal(size=(32, 12)).astype("float32")
Y = rng.normal(size=(32, 3)).astype("float32")
FIT: dict[str, Any] = {"batch_size": 16, "shuffle": False, "verbose": 0}


@pytest.fixture(
    params=["plain", "compiled"] if BACKEND == "tensorflow" else ["plain"], autouse=True
)
def step(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow compiles a held step of large arrays; those here are small."""
    if request.param == "compiled":
        monkeypatch.setattr(fusion, "_WORTH_IT", 0)


def net(**dense: Any) -> keras.Model:
    # tanh: with relu a unit may be dead, and its weights would not train.
    return keras.Sequential(
        [keras.Input((12,)), layers.Dense(8, "tanh", **dense), layers.Dense(3, **dense)]
    )


def kernels(model: keras.Model) -> Kernels:
    """Every kernel, read through the model: on JAX only that is up to date during an epoch."""
    return {
        weight.path: ops.convert_to_numpy(ops.cast(weight, "float32"))
        for weight in model.weights
        if weight.name.endswith("kernel")
    }


class Recorder(keras.callbacks.Callback):
    """Keeps the kernels of each epoch: after the callbacks before it have begun it, and ended."""

    def __init__(self) -> None:
        super().__init__()
        self.began: list[Kernels] = []
        self.ended: list[Kernels] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began.append(kernels(self.model))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.ended.append(kernels(self.model))


def zeros_of(found: Kernels) -> int:
    return sum(int((w == 0).sum()) for w in found.values())


def assert_same_zeros(before: Kernels, after: Kernels) -> None:
    assert before.keys() == after.keys()
    for path, w in before.items():
        np.testing.assert_array_equal(after[path] == 0, w == 0, err_msg=path)


def assert_trained(before: Kernels, after: Kernels, share: float = 0.7) -> None:
    for path, w in before.items():
        live = w != 0
        moved = np.mean(after[path][live] != w[live]) if live.any() else 1.0
        assert moved >= share, f"{path}: only {moved:.0%} of the weights left train"


def fit_pruned(
    model: keras.Model, x: Any = X, y: Any = Y, *, epochs: int = 21, sparsity: float = 0.5
) -> Recorder:
    """One epoch dense, so that momenta are warm, then pruned, then 20 epochs more."""
    recorder = Recorder()
    model.fit(x, y, epochs=epochs, callbacks=[GlobalPrune(sparsity, begin=1), recorder], **FIT)
    return recorder


def assert_holds(
    model: keras.Model, x: Any = X, y: Any = Y, *, epochs: int = 21, share: float = 0.7
) -> None:
    recorder = fit_pruned(model, x, y, epochs=epochs)
    pruned = recorder.began[1]
    size = sum(w.size for w in pruned.values())
    assert zeros_of(pruned) == round(0.5 * size)
    for ended in recorder.ended[1:]:
        assert_same_zeros(pruned, ended)
    assert_same_zeros(pruned, kernels(model))  # and what fit does after its last epoch
    assert_trained(pruned, kernels(model), share)


optimizers = keras.optimizers
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adam": lambda: optimizers.Adam(0.01),
    "adamw": lambda: optimizers.AdamW(0.01, weight_decay=0.01),
    "adam amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True),
    "adamax": lambda: optimizers.Adamax(0.01),
    "nadam": lambda: optimizers.Nadam(0.01),
    "sgd": lambda: optimizers.SGD(0.01),
    "sgd nesterov": lambda: optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "sgd weight decay": lambda: optimizers.SGD(0.01, momentum=0.9, weight_decay=0.01),
    "lion": lambda: optimizers.Lion(0.001),
    "rmsprop": lambda: optimizers.RMSprop(0.01, momentum=0.9, centered=True),
    "adagrad": lambda: optimizers.Adagrad(0.01),
    "adadelta": lambda: optimizers.Adadelta(0.1),
    "adafactor": lambda: optimizers.Adafactor(0.01),
    "ftrl": lambda: optimizers.Ftrl(0.01),
    "lamb": lambda: optimizers.Lamb(0.01),
    "muon": lambda: optimizers.Muon(0.01),
    "schedule-free adamw": lambda: optimizers.ScheduleFreeAdamW(0.01),
    "clipnorm": lambda: optimizers.Adam(0.01, clipnorm=0.1),
    "global clipnorm": lambda: optimizers.SGD(0.01, momentum=0.9, global_clipnorm=0.1),
    "gradient accumulation": lambda: optimizers.Adam(0.01, gradient_accumulation_steps=3),
    "learning-rate schedule": lambda: optimizers.SGD(
        optimizers.schedules.CosineDecay(0.05, 60), momentum=0.9
    ),
    "ema": lambda: optimizers.Adam(0.01, use_ema=True),
    "ema that overwrites": lambda: optimizers.Adam(
        0.01, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=5
    ),
    "ema and accumulation": lambda: optimizers.SGD(
        0.01, momentum=0.9, use_ema=True, gradient_accumulation_steps=2
    ),
    "loss scale": lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.01)),
    "loss scale with ema": lambda: optimizers.LossScaleOptimizer(
        optimizers.Adam(0.01, use_ema=True)
    ),
    "one for each layer": lambda: optimizers.MultiOptimizer(
        optimizers.OptimizerMap(
            optimizers.Adam(0.01), {".*dense_1/.*": optimizers.SGD(0.01, momentum=0.9)}
        )
    ),
    "one for each layer with ema": lambda: optimizers.MultiOptimizer(
        optimizers.OptimizerMap(
            optimizers.Adam(0.01, use_ema=True),
            {".*dense_1/.*": optimizers.SGD(0.01, use_ema=True)},
        )
    ),
}


RARE = {
    *("adam amsgrad", "adamax", "nadam", "adadelta", "adafactor", "ftrl", "lamb", "muon"),
    *("clipnorm", "loss scale", "sgd weight decay", "adam"),
    *("schedule-free adamw", "learning-rate schedule", "ema and accumulation", "sgd"),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in RARE else ()) for name in OPTIMIZERS],
)
def test_zeros_are_the_same_ones_20_epochs_after_pruning(name: str) -> None:
    model = net()
    model.compile(OPTIMIZERS[name](), "mse")
    assert_holds(model)


def test_zeros_are_held_where_the_gradients_are_nan() -> None:
    model = net()
    model.compile("sgd", "mse")
    prune(model, 0.5)
    before = kernels(model)
    model.fit(X, np.full_like(Y, np.nan), epochs=1, callbacks=[KeepZeros()], **FIT)
    for path, values in kernels(model).items():
        assert (values[before[path] == 0] == 0).all()
        assert np.isnan(values[before[path] != 0]).all()


def test_zeros_are_lost_without_the_callback() -> None:
    """So that the tests above can fail."""
    model = net()
    model.compile("adam", "mse")
    prune(model, 0.5)
    model.fit(X, Y, epochs=1, **FIT)
    assert zeros_of(kernels(model)) == 0


def test_zeros_are_held_in_bfloat16_weights_too() -> None:
    """There a step may put a live weight at exactly zero, and then it is held as well."""
    keras.config.set_dtype_policy("bfloat16")
    model = net()
    # Adam's beta_2 is 1 in bfloat16, and nothing would train.
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    recorder = fit_pruned(model, X, Y, epochs=21)
    for path, values in kernels(model).items():
        assert (values[recorder.began[1][path] == 0] == 0).all()
    assert zeros_of(kernels(model)) < 0.6 * sum(w.size for w in kernels(model).values())


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_zeros_are_held_in_mixed_precision(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    model = net()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (
        policy == "mixed_float16"
    )
    assert_holds(model)


TORCH_COMPILE = pytest.mark.skipif(
    BACKEND == "torch", reason="Keras compiles with torch.compile, which takes a minute"
)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"run_eagerly": True}, id="eagerly"),
        pytest.param({"jit_compile": True}, id="jit", marks=TORCH_COMPILE),
        pytest.param({"jit_compile": False}, id="no jit"),
        pytest.param({"steps_per_execution": 4}, id="several steps at once"),
        pytest.param(
            {"steps_per_execution": 2, "jit_compile": True}, id="jit, two", marks=TORCH_COMPILE
        ),
    ],
)
def test_zeros_are_held_however_the_step_runs(arguments: dict[str, Any]) -> None:
    if BACKEND == "torch" and "steps_per_execution" in arguments:
        pytest.skip("Keras on PyTorch has no steps_per_execution")
    model = net()
    model.compile(keras.optimizers.Adam(0.01), "mse", **arguments)
    assert_holds(model)


@pytest.mark.slow  # torch.compile takes a minute
@pytest.mark.skipif(BACKEND != "torch", reason="the others are not slow")
@pytest.mark.filterwarnings("ignore")  # torch's own, of the compiler at hand
def test_zeros_are_held_by_torch_compile() -> None:
    model = net()
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse", jit_compile=True)
    assert_holds(model)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"kernel_constraint": "max_norm"}, id="MaxNorm"),
        pytest.param({"kernel_constraint": "unit_norm"}, id="UnitNorm"),
        pytest.param({"kernel_regularizer": "l2"}, id="L2"),
        pytest.param({"kernel_regularizer": L2L0(l2=1e-3, l0=1e-3)}, id="L2L0"),
    ],
)
def test_zeros_are_held_under_a_constraint_or_penalty(arguments: dict[str, Any]) -> None:
    model = net(**arguments)
    model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.01), "mse")
    assert_holds(model)


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.block = [layers.Dense(8, "tanh"), layers.LayerNormalization()]
        self.head = layers.Dense(3)

    def call(self, inputs: Any, training: bool = False) -> Any:
        for layer in self.block:
            inputs = layer(inputs, training=training)
        return self.head(inputs)


def subclassed() -> keras.Model:
    model = Subclassed()
    model(X[:1])
    return model


def conv() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((12,)),
            layers.Reshape((4, 3, 1)),
            layers.Conv2D(4, 2, padding="same", activation="tanh"),
            layers.DepthwiseConv2D(2, padding="same", activation="tanh"),
            layers.SeparableConv2D(4, 2, padding="same", activation="tanh"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def recurrent() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((12,)),
            layers.Reshape((4, 3)),
            layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
            layers.GRU(3),
            layers.Dense(3),
        ]
    )


def attention() -> keras.Model:
    inputs = keras.Input((12,))
    x = layers.Reshape((4, 3))(inputs)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 3)(x, x)])
    x = layers.EinsumDense("abc,cd->abd", (4, 4))(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def shared() -> keras.Model:
    inputs = keras.Input((12,))
    twice = layers.Dense(12, "tanh")
    return keras.Model(inputs, layers.Dense(3)(twice(twice(inputs))))


def nested() -> keras.Model:
    inner = keras.Sequential([keras.Input((12,)), layers.Dense(6, "tanh"), layers.Dense(6)])
    inputs = keras.Input((12,))
    return keras.Model(
        inputs, layers.Dense(3)(keras.Sequential([inner, layers.Dropout(0.1)])(inputs))
    )


@pytest.mark.parametrize(
    "make", [conv, recurrent, attention, shared, nested, subclassed], ids=lambda make: make.__name__
)
def test_zeros_are_held_in_any_model(make: Callable[[], keras.Model]) -> None:
    model = make()
    model.compile(keras.optimizers.Adam(0.01), "mse")
    assert_holds(model, epochs=8)


def test_zeros_are_held_with_several_inputs_and_outputs() -> None:
    one, two = keras.Input((12,), name="one"), keras.Input((12,), name="two")
    x = layers.Concatenate()([layers.Dense(4, "tanh")(one), layers.Dense(4, "tanh")(two)])
    model = keras.Model(
        {"one": one, "two": two},
        {"left": layers.Dense(3, name="left")(x), "right": layers.Dense(3, name="right")(x)},
    )
    model.compile("adam", {"left": "mse", "right": "mae"}, loss_weights={"left": 1.0, "right": 0.5})
    assert_holds(model, {"one": X, "two": X[::-1].copy()}, {"left": Y, "right": -Y}, epochs=8)


class OwnStep(keras.Model):
    """A train step written by hand, as the guides of Keras do it on each backend."""

    def train_step(self, *arguments: Any) -> Any:
        return getattr(self, f"_{BACKEND}_step")(*arguments)

    def _tensorflow_step(self, data: Any) -> Any:
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(self(x, training=True) - y))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}

    def _torch_step(self, data: Any) -> Any:
        import torch

        x, y = data
        self.zero_grad()
        loss = ops.mean(ops.square(self(x, training=True) - y))
        loss.backward()
        with torch.no_grad():
            self.optimizer.apply(
                [v.value.grad for v in self.trainable_weights], self.trainable_weights
            )
        return {"loss": loss}

    def _jax_step(self, state: Any, data: Any) -> Any:
        import jax

        trainable, others, optimizer_state, metrics = state
        x, y = data

        def loss_of(values: Any) -> Any:
            outputs, updated = self.stateless_call(values, others, x, training=True)
            return ops.mean(ops.square(outputs - y)), updated

        (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        trainable, optimizer_state = self.optimizer.stateless_apply(
            optimizer_state, gradients, trainable
        )
        return {"loss": loss}, (trainable, others, optimizer_state, metrics)


def test_zeros_are_held_by_a_custom_train_step() -> None:
    inputs = keras.Input((12,))
    model = OwnStep(inputs, layers.Dense(3)(layers.Dense(8, "tanh")(inputs)))
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    assert_holds(model)


def test_fine_tuning_holds_the_zeros_that_prune_made() -> None:
    model = net()
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(X, Y, epochs=1, **FIT)
    prune(model, 0.7)
    before = kernels(model)
    model.fit(X, Y, epochs=20, callbacks=[KeepZeros()], **FIT)
    assert_same_zeros(before, kernels(model))
    assert_trained(before, kernels(model))


def test_only_the_layers_named_are_held() -> None:
    model = net()
    model.compile(keras.optimizers.Adam(0.01), "mse")
    prune(model, 0.5)
    before = kernels(model)
    named, other = before
    model.fit(X, Y, epochs=2, callbacks=[KeepZeros(layers="dense")], **FIT)
    after = kernels(model)
    assert_same_zeros({named: before[named]}, {named: after[named]})
    assert not (after[other] == 0).any()


def test_the_same_weights_go_on_training_as_if_the_zeros_were_not_there() -> None:
    """Held zeros change nothing else: the run equals one of a mask multiplied in by hand."""
    model, masked = net(), net()
    masked.set_weights(model.get_weights())
    for each in (model, masked):
        each.compile(keras.optimizers.SGD(0.05), "mse")
        prune(each, 0.5)
    masks = [w != 0 for w in masked.get_weights()]
    model.fit(X, Y, epochs=3, callbacks=[KeepZeros()], **FIT)
    for _ in range(3):
        for start in (0, 16):
            batch = slice(start, start + 16)
            masked.train_on_batch(X[batch], Y[batch])
            weights = masked.get_weights()
            masked.set_weights(
                [w * m if w.ndim > 1 else w for w, m in zip(weights, masks, strict=True)]
            )
    for ours, theirs in zip(model.get_weights(), masked.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


# Nothing is retraced.


class Counting(layers.Layer):
    """Counts how often Python runs its call: once for each trace of a compiled step."""

    traces = 0

    def call(self, inputs: Any) -> Any:
        try:
            np.asarray(inputs)  # the outputs of a pruned network are looked at without tracing
        except Exception:
            Counting.traces += 1
        return inputs


def traces_of(
    callbacks: Sequence[keras.callbacks.Callback], built: bool = False, **compiled: Any
) -> int:
    keras.utils.clear_session()
    model = keras.Sequential(
        [keras.Input((12,)), layers.Dense(8, "tanh"), Counting(), layers.Dense(3)]
    )
    model.compile("adam", "mse", **compiled)
    if built:
        model.optimizer.build(model.trainable_variables)
    Counting.traces = 0
    model.fit(X, Y, epochs=6, validation_data=(X, Y), callbacks=list(callbacks), **FIT)
    return Counting.traces


@pytest.mark.skipif(BACKEND == "torch", reason="Keras on PyTorch traces nothing: it runs eagerly")
@pytest.mark.parametrize("compiled", [{}, {"steps_per_execution": 2}], ids=["plain", "two steps"])
def test_pruning_traces_no_more_than_a_callback_that_does_nothing(
    compiled: dict[str, Any],
) -> None:
    """Less than Keras alone, if the optimizer is not built: it makes its state in the step."""
    plain = traces_of([keras.callbacks.Callback()], built=True, **compiled)
    assert 0 < plain < 12, "more would mean that nothing is compiled"
    for callbacks in (
        [GlobalPrune(0.8, begin=0, end=4)],
        [GlobalPrune(0.8, begin=2, end=4)],
        [GlobalPrune(0.8, begin=0, end=4, regrow=True)],
        [KeepZeros(), GlobalPrune(0.8, begin=1, layers="dense")],
    ):
        assert traces_of(callbacks, **compiled) == plain


# The optimizer and the files.


def optimizer_state(optimizer: keras.optimizers.Optimizer) -> list[tuple[str, np.ndarray]]:
    return [(v.name, ops.convert_to_numpy(v)) for v in optimizer.variables]


def assert_same_state(
    one: list[tuple[str, np.ndarray]], other: list[tuple[str, np.ndarray]]
) -> None:
    # By position: a layer's path, and so a name, is another after loading.
    assert [value.shape for _, value in one] == [value.shape for _, value in other]
    for (name, expected), (_, received) in zip(one, other, strict=True):
        np.testing.assert_array_equal(received, expected, err_msg=name)


STATEFUL = ["adam", "sgd nesterov", "gradient accumulation", "ema", "loss scale"]


@pytest.mark.parametrize("name", ["nadam", "adafactor", "sgd"])
def test_the_optimizers_variables_have_the_names_that_keras_gives_them(name: str) -> None:
    found = []
    for callbacks in ([], [KeepZeros()]):
        keras.utils.clear_session()
        model = net()
        model.compile(name, "mse")
        model.fit(X, Y, epochs=1, callbacks=callbacks, **FIT)
        found.append([variable.path for variable in model.optimizer.variables])
    assert found[0] == found[1]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the others' `fit` fails then without us")
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_a_model_that_was_frozen_as_a_whole_trains_when_it_is_not() -> None:
    model = net()
    prune(model, 0.5)
    model.trainable = False
    model.compile("adam", "mse")
    model.fit(X, Y, callbacks=[KeepZeros()], **FIT)
    model.trainable = True
    before = kernels(model)
    model.fit(X, Y, callbacks=[KeepZeros()], **FIT)
    assert_same_zeros(before, kernels(model))
    assert_trained(before, kernels(model), share=0.4)


@pytest.mark.parametrize("name", STATEFUL)
def test_the_optimizer_is_as_it_was_after_fit(name: str) -> None:
    found = []
    for callback in (keras.callbacks.Callback(), GlobalPrune(0.5, begin=0)):
        keras.utils.clear_session()
        model = net()
        model.compile(OPTIMIZERS[name](), "mse")
        model.fit(X, Y, epochs=1, callbacks=[callback], **FIT)
        variables = [(v.name, tuple(v.shape)) for v in model.optimizer.variables]
        found.append((variables, [set(vars(link)) for link in links(model.optimizer)]))
    assert found[0] == found[1]


def links(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    inner = getattr(optimizer, "inner_optimizer", None)
    return [optimizer] if inner is None else [optimizer, inner]


class States(keras.callbacks.Callback):
    """Keeps the optimizer's own state at the end of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[list[tuple[str, np.ndarray]]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        own = [
            (name, value)
            for name, value in optimizer_state(self.model.optimizer)
            if name not in ("held_value", "free_channels")
        ]
        self.states.append(own)


@pytest.mark.parametrize("name", STATEFUL)
@pytest.mark.parametrize("pruner_first", [True, False], ids=["pruner first", "checkpoint first"])
def test_a_file_of_each_epoch_is_sparse_and_loads_with_the_optimizer_state(
    name: str, pruner_first: bool, tmp_path: Path
) -> None:
    if not pruner_first and name != "adam":
        pytest.skip("the order is tried with one optimizer")
    model = net()
    model.compile(OPTIMIZERS[name](), "mse")
    pruner: list[Any] = [GlobalPrune(0.8, begin=1, end=3, power=1.0)]
    saver: list[Any] = [keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras")), States()]
    callbacks = pruner + saver if pruner_first else saver + pruner
    model.fit(X, Y, epochs=5, callbacks=callbacks, **FIT)
    size = sum(w.size for w in kernels(model).values())
    states = saver[1].states
    for epoch, share in enumerate([0, 1 / 3, 2 / 3, 1, 1]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = keras.models.load_model(tmp_path / f"{epoch + 1}.keras")
        assert zeros_of(kernels(loaded)) == round(share * 0.8 * size)
        assert_same_state(states[epoch], optimizer_state(loaded.optimizer))


def test_a_file_from_mid_training_trains_on_as_the_model_itself(tmp_path: Path) -> None:
    whole, half = net(), net()
    half.set_weights(whole.get_weights())
    for model in (whole, half):
        model.compile(keras.optimizers.Adam(0.01), "mse")
    path = tmp_path / "half.keras"
    whole.fit(X, Y, epochs=6, callbacks=[GlobalPrune(0.8, begin=0, end=4)], **FIT)
    checkpoint = keras.callbacks.ModelCheckpoint(str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it ends less sparse than was asked for, as it should
        half.fit(X, Y, epochs=3, callbacks=[GlobalPrune(0.8, begin=0, end=4), checkpoint], **FIT)
    loaded = keras.models.load_model(path)
    loaded.fit(X, Y, epochs=6, initial_epoch=3, callbacks=[GlobalPrune(0.8, begin=0, end=4)], **FIT)
    for ours, theirs in zip(loaded.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(ours == 0, theirs == 0)


PLAIN_LOADER = """
import sys, warnings
warnings.simplefilter("error", UserWarning)
import keras
model = keras.models.load_model(sys.argv[1])
assert not any(name.startswith("keras_l0") for name in sys.modules), "keras_l0 was imported"
print(len(model.optimizer.variables), int(model.optimizer.iterations))
"""


def test_a_file_from_mid_training_loads_where_keras_l0_was_never_imported(tmp_path: Path) -> None:
    model = net()
    model.compile("adam", "mse")
    path = str(tmp_path / "m.keras")
    saver = keras.callbacks.ModelCheckpoint(path)
    model.fit(X, Y, epochs=2, callbacks=[GlobalPrune(0.8, begin=0), saver], **FIT)
    run = subprocess.run(
        [sys.executable, "-c", PLAIN_LOADER, path], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(len(model.optimizer.variables)), "4"]


@pytest.mark.parametrize("pruner_first", [True, False], ids=["pruner first", "backup first"])
@pytest.mark.parametrize("killed_at", [2, 5])
def test_a_run_that_was_killed_and_restored_ends_as_one_that_was_not(
    pruner_first: bool, killed_at: int, tmp_path: Path
) -> None:
    def fresh() -> keras.Model:
        keras.utils.set_random_seed(1)
        keras.utils.clear_session()
        model = net()
        model.compile(keras.optimizers.Adam(0.01), "mse")
        return model

    def callbacks() -> list[keras.callbacks.Callback]:
        both = [GlobalPrune(0.8, begin=1, end=4), keras.callbacks.BackupAndRestore(tmp_path / "b")]
        return both if pruner_first else both[::-1]

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == killed_at:
                raise KeyboardInterrupt

    whole = fresh()
    expected = whole.fit(X, Y, epochs=7, callbacks=callbacks(), **FIT).history
    shutil.rmtree(tmp_path / "b", ignore_errors=True)
    with pytest.raises(KeyboardInterrupt):
        fresh().fit(X, Y, epochs=7, callbacks=[*callbacks(), Kill()], **FIT)
    again = fresh()
    history = again.fit(X, Y, epochs=7, callbacks=callbacks(), **FIT)
    assert history.epoch == list(range(killed_at, 7))
    assert history.history["sparsity"] == expected["sparsity"][killed_at:]
    for ours, theirs in zip(again.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(ours == 0, theirs == 0)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert_same_state_closely(whole.optimizer, again.optimizer)


def assert_same_state_closely(
    one: keras.optimizers.Optimizer, other: keras.optimizers.Optimizer
) -> None:
    pairs = zip(optimizer_state(one), optimizer_state(other), strict=True)
    for (name, expected), (_, received) in pairs:
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6, err_msg=name)


# After fit, and after a fit that was broken off.


def test_the_next_fit_is_plain_keras_again() -> None:
    model = net()
    model.compile("adam", "mse")
    model.fit(X, Y, epochs=1, callbacks=[GlobalPrune(0.5, begin=0)], **FIT)
    assert zeros_of(kernels(model)) > 0
    model.fit(X, Y, epochs=1, **FIT)
    assert zeros_of(kernels(model)) == 0


class Break(keras.callbacks.Callback):
    def __init__(self, error: type[BaseException], where: str) -> None:
        super().__init__()
        self.error = error
        setattr(self, where, self._break)

    def _break(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            raise self.error("broken off")


@pytest.mark.parametrize("where", ["on_epoch_begin", "on_epoch_end", "on_train_batch_end"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_a_fit_was_broken_off_all_works_as_if_it_had_not_been(
    error: type[BaseException], where: str, tmp_path: Path
) -> None:
    if error is RuntimeError and where != "on_epoch_end":
        pytest.skip("one kind of error at each place is enough")
    model = net()
    model.compile("adam", "mse")
    with pytest.raises(error, match="broken off"):
        model.fit(X, Y, epochs=4, callbacks=[GlobalPrune(0.5, begin=0), Break(error, where)], **FIT)
    path = tmp_path / "after.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    own = [tuple(v.shape) for v in loaded.optimizer.variables]
    before = kernels(model)
    # With our callback: its own hold, and no other.
    model.fit(X, Y, epochs=2, callbacks=[KeepZeros()], **FIT)
    assert zeros_of(kernels(model)) == zeros_of(before) == 60
    assert [tuple(v.shape) for v in model.optimizer.variables] == own
    model.fit(X, Y, epochs=1, **FIT)
    assert zeros_of(kernels(model)) == 0


def test_a_plain_fit_after_one_that_was_broken_off_works_and_saves(tmp_path: Path) -> None:
    model = net()
    model.compile("adam", "mse")
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            X,
            Y,
            epochs=4,
            callbacks=[GlobalPrune(0.5, begin=0), Break(KeyboardInterrupt, "on_epoch_end")],
            **FIT,
        )
    history = model.fit(X, Y, epochs=2, **FIT)
    assert np.isfinite(history.history["loss"]).all()
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_plain_fit_after_one_that_was_broken_off_holds_no_zeros() -> None:
    model = net()
    model.compile("adam", "mse")
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            X,
            Y,
            epochs=4,
            callbacks=[GlobalPrune(0.5, begin=0), Break(KeyboardInterrupt, "on_epoch_end")],
            **FIT,
        )
    model.fit(X, Y, epochs=1, **FIT)
    assert zeros_of(kernels(model)) == 0
