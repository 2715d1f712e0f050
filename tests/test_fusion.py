"""What is fused has the values of what is not, on whatever device."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_l0 import KeepZeros, fusion, prune

on_tensorflow = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="the others have nothing to fuse here"
)


def test_a_function_is_the_same_called_by_itself() -> None:
    w = ops.convert_to_tensor(np.array([1.0, -2.0], np.float32))
    found = fusion.fused(lambda x: ops.sum(ops.square(x)))(w)
    assert float(found) == 5.0


def test_operations_are_joined_by_jax_and_in_tensorflows_graphs() -> None:
    assert fusion.is_fusing() == (keras.config.backend() == "jax")
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        assert tf.function(fusion.is_fusing)()


@on_tensorflow
@pytest.mark.parametrize("has_xla", [True, False])
def test_a_function_is_compiled_in_the_graph(
    has_xla: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    monkeypatch.setattr(fusion, "_has_xla", lambda: has_xla)
    step = tf.function(fusion.fused(lambda x: tf.reduce_sum(x * x)))
    w = tf.constant([1.0, -2.0])
    assert float(step(w)) == 5.0
    nodes = step.get_concrete_function(w).graph.as_graph_def().node
    assert any("_XlaMustCompile" in node.attr for node in nodes) == has_xla


def by_numpy(x: Any) -> Any:
    """What it is given, out of a function of NumPy, which XLA does not compile."""
    import tensorflow as tf

    return tf.ensure_shape(tf.numpy_function(lambda x: x, [x], x.dtype), x.shape)


class OwnRule(keras.optimizers.SGD):
    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(by_numpy(gradient), variable, learning_rate)


class OwnSchedule(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step: Any) -> Any:
        return by_numpy(ops.convert_to_tensor(0.1)) / (1.0 + ops.cast(step, "float32"))

    def get_config(self) -> dict[str, Any]:
        return {}


class OwnStep(keras.Model):
    def train_step(self, data: Any) -> Any:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = self.compute_loss(data[0], data[1], self(data[0]))
        variables = [one.value for one in self.trainable_weights]
        grads = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(grads, variables, strict=True))
        return {"loss": loss}


@on_tensorflow
@pytest.mark.parametrize(
    ("what", "compiles"),
    [
        ("Keras' own", True),
        ("a schedule of Keras'", True),
        ("several optimizers", True),
        ("an optimizer", False),
        ("one of several optimizers", False),
        ("a schedule", False),
        ("a function for the rate", False),
        ("a constraint", False),
        ("sparse gradients", False),
        ("TensorFlow's variables", False),
        ("eagerly", False),
        ("small arrays", False),
        ("accumulated gradients", False),
        ("averages that replace the weights", False),
    ],
)
def test_a_step_is_compiled_unless_it_has_what_xla_may_not_know(
    what: str, compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate: Any = {
        "a schedule of Keras'": keras.optimizers.schedules.CosineDecay(0.1, 8),
        "a schedule": OwnSchedule(),
        "a function for the rate": lambda: by_numpy(ops.convert_to_tensor(0.1)),
    }.get(what, 0.1)
    more: dict[str, Any] = {
        "accumulated gradients": {"gradient_accumulation_steps": 2},
        "averages that replace the weights": {"use_ema": True, "ema_overwrite_frequency": 2},
    }.get(what, {})
    optimizer: Any = (OwnRule if what == "an optimizer" else keras.optimizers.SGD)(rate, **more)
    dense = layers.Dense(4, kernel_constraint=by_numpy if what == "a constraint" else "unit_norm")
    if "several optimizers" in what:
        other = OwnRule(0.1) if what.startswith("one") else keras.optimizers.Adam(0.1)
        parts = keras.optimizers.OptimizerMap(optimizer, {".*bias": other})
        optimizer = keras.optimizers.MultiOptimizer(parts)
    inputs = keras.Input((6,))
    if what == "sparse gradients":
        x = layers.Flatten()(layers.Embedding(5, 3)(inputs))
    else:
        x = layers.Dense(5, "tanh")(inputs)
    model = (OwnStep if what == "TensorFlow's variables" else keras.Model)(inputs, dense(x))
    prune(model, 0.5)
    model.compile(optimizer, "mse", run_eagerly=what == "eagerly")
    before = model.get_weights()
    if what != "small arrays":
        monkeypatch.setattr(fusion, "_WORTH_IT", 0)
    answers: list[bool] = []
    known = fusion._compiles
    monkeypatch.setattr(
        fusion, "_compiles", lambda *args: answers.append(known(*args)) or answers[-1]
    )
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (8, 6)).astype("float32"), rng.normal(size=(8, 4))
    model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[KeepZeros()])
    assert set(answers) == {compiles}
    for old, new in zip(before, model.get_weights(), strict=True):
        assert (old != new).any()
        if old.ndim > 1:
            np.testing.assert_array_equal(new == 0, old == 0)


@on_tensorflow
@pytest.mark.parametrize(("size", "calls"), [(128 * 128, 1), (128 * 128 - 1, 0)])
def test_a_step_of_large_arrays_is_one_call_of_xla(size: int, calls: int) -> None:
    import tensorflow as tf

    w, optimizer = keras.Variable(np.ones(size, np.float32)), keras.optimizers.SGD(0.5)
    optimizer.build([w])

    @tf.function
    def step(grad: Any) -> None:
        fusion.fused_update(lambda grad: optimizer.apply([grad], [w]), [grad], [w], optimizer)

    grad = tf.range(size, dtype=tf.float32)
    step(grad)
    np.testing.assert_array_equal(w, 1.0 - 0.5 * np.arange(size))
    nodes = step.get_concrete_function(grad).graph.as_graph_def().node
    assert sum("_XlaMustCompile" in node.attr for node in nodes) == calls


@on_tensorflow
def test_a_step_without_gradients_does_nothing() -> None:
    import tensorflow as tf

    called: list[tuple[Any, ...]] = []
    optimizer = keras.optimizers.SGD()
    tf.function(
        lambda: fusion.fused_update(lambda *grads: called.append(grads), [], [], optimizer)
    )()
    assert called == [()]


def assert_runs(text: str, folder: Path, *arguments: str) -> None:
    """The program ends well, in a process of its own: it changes what TensorFlow is."""
    script = folder / "program.py"
    script.write_text(text)
    command = [sys.executable, str(script), *arguments]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


WATCHED = """
import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_l0 import L2L0, KeepZeros, fusion, prune

fusion._WORTH_IT = 0
x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
for watched in (True, False, True):
    if watched:
        tf.debugging.enable_check_numerics()
    else:
        tf.debugging.disable_check_numerics()
    assert tf.function(fusion.is_fusing)() != watched
    dense = layers.Dense(5, "tanh", kernel_regularizer=L2L0(1e-3, 1e-3))
    model = keras.Sequential([keras.Input((6,)), dense])
    prune(model, 0.5)
    model.compile("adam", "mse")
    model.fit(x, x[:, :5], epochs=2, verbose=0, callbacks=[KeepZeros()])
    assert (dense.kernel.numpy() == 0).sum() == 15
"""


@on_tensorflow
def test_nothing_is_compiled_while_tensorflow_checks_numbers(tmp_path: Path) -> None:
    assert_runs(WATCHED, tmp_path)


TWO_DEVICES = """
import sys

import tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras
import numpy as np
from keras import layers

from keras_l0 import L2L0, KeepZeros, fusion, prune



class LastLayer(keras.Model):
    def train_step(self, data):
        weights = self.layers[-1].trainable_weights
        with tf.GradientTape() as tape:
            loss = self.compute_loss(*data, self(data[0]))
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return {"loss": loss}


keras.utils.set_random_seed(0)
inputs = keras.Input((6,))
with tf.device(sys.argv[1]):
    x = layers.Dense(5, "tanh", kernel_regularizer=L2L0(1e-3, 1e-3))(inputs)
with tf.device(sys.argv[2]):
    outputs = layers.Dense(4, kernel_regularizer=L2L0(1e-3, 1e-3))(x)
model = (LastLayer if "last" in sys.argv else keras.Model)(inputs, outputs)
kernels = [layer.kernel for layer in model.layers[1:]]
assert len({kernel.value.device for kernel in kernels}) == len(set(sys.argv[1:3]))
assert fusion._has_xla()
fusion._WORTH_IT = 0
prune(model, 0.5)
before = [kernel.numpy() for kernel in kernels]
model.compile("adam", "mse")
x, y = np.random.default_rng(0).normal(size=(2, 8, 6)).astype("float32")
model.fit(x, y[:, :4], epochs=3, verbose=0, callbacks=[KeepZeros()])
for old, kernel in zip(before, kernels):
    new = kernel.numpy()
    assert ((old == 0) == (new == 0)).all()
    assert (old != new).any() == ("last" not in sys.argv or kernel is kernels[-1])
"""


@on_tensorflow
@pytest.mark.parametrize(
    ("first", "second", "trained"),
    [("CPU:0", "CPU:1", "all"), ("CPU:1", "CPU:1", "all"), ("CPU:1", "CPU:0", "last")],
)
def test_zeros_are_held_on_whatever_devices_the_layers_lie(
    first: str, second: str, trained: str, tmp_path: Path
) -> None:
    """XLA compiles for one device, and the step's is CPU:0."""
    assert_runs(TWO_DEVICES, tmp_path, first, second, trained)


STRATEGY = """
import tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras
import numpy as np
from keras import layers

from keras_l0 import L2L0, KeepZeros, fusion, prune

fusion._WORTH_IT = 0
keras.utils.set_random_seed(0)
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    dense = layers.Dense(5, "tanh", kernel_regularizer=L2L0(1e-3, 1e-3))
    model = keras.Sequential([keras.Input((6,)), dense])
    model.compile("adam", "mse")
prune(model, 0.5)
before = dense.kernel.numpy()
x, y = np.random.default_rng(0).normal(size=(2, 8, 6)).astype("float32")
model.fit(x, y[:, :5], epochs=3, verbose=0, callbacks=[KeepZeros()])
after = dense.kernel.numpy()
assert ((before == 0) == (after == 0)).all()
assert (before != after).any()
"""


@on_tensorflow
def test_zeros_are_held_on_several_replicas(tmp_path: Path) -> None:
    assert_runs(STRATEGY, tmp_path)


def test_a_tensorflow_without_xla_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tf = pytest.importorskip("tensorflow", reason="its error is what is caught")

    def refused(*_: Any, **__: Any) -> Any:
        raise tf.errors.InvalidArgumentError(None, None, "no compiler for this platform")

    fusion._has_xla.cache_clear()
    monkeypatch.setattr(tf, "function", refused)
    found = fusion._has_xla()
    fusion._has_xla.cache_clear()
    assert not found
