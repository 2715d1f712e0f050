"""What is fused has the values of what is not, on whatever device."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_l0 import fusion

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


TWO_DEVICES = """
import sys

import tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras
import numpy as np
from keras import layers

from keras_l0 import L2L0, KeepZeros, fusion, prune

keras.utils.set_random_seed(0)
inputs = keras.Input((6,))
with tf.device(sys.argv[1]):
    x = layers.Dense(5, "tanh", kernel_regularizer=L2L0(1e-3, 1e-3))(inputs)
with tf.device("CPU:1"):
    model = keras.Model(inputs, layers.Dense(4, kernel_regularizer=L2L0(1e-3, 1e-3))(x))
kernels = [layer.kernel for layer in model.layers[1:]]
assert len({kernel.value.device for kernel in kernels}) == int(sys.argv[2])
assert fusion._has_xla()
prune(model, 0.5)
before = [kernel.numpy() for kernel in kernels]
model.compile("adam", "mse")
x, y = np.random.default_rng(0).normal(size=(2, 8, 6)).astype("float32")
model.fit(x, y[:, :4], epochs=3, verbose=0, callbacks=[KeepZeros()])
for old, kernel in zip(before, kernels):
    new = kernel.numpy()
    assert ((old == 0) == (new == 0)).all()
    assert (old != new).any()
"""


@on_tensorflow
@pytest.mark.parametrize(("first", "number"), [("CPU:0", 2), ("CPU:1", 1)])
def test_zeros_are_held_on_whatever_devices_the_layers_lie(
    first: str, number: int, tmp_path: Path
) -> None:
    """XLA compiles for one device, and the step's is CPU:0."""
    script = tmp_path / "two_devices.py"
    script.write_text(TWO_DEVICES)
    command = [sys.executable, str(script), first, str(number)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


def test_a_tensorflow_without_xla_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tf = pytest.importorskip("tensorflow", reason="its error is what is caught")

    def refused(*_: Any, **__: Any) -> Any:
        raise tf.errors.InvalidArgumentError(None, None, "no compiler for this platform")

    fusion._has_xla.cache_clear()
    monkeypatch.setattr(tf, "function", refused)
    found = fusion._has_xla()
    fusion._has_xla.cache_clear()
    assert not found
