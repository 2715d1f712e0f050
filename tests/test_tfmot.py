"""Models go to tf_keras and come back, and tfmot does its part there: the zeros stay."""

import importlib.util
import itertools
import os
import random
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from strategies import assert_same_bits, invalid, numpy_weights, small_classifier

if importlib.util.find_spec("tensorflow_model_optimization") is None:
    pytest.skip('needs: pip install "keras_l0[tensorflow,tfmot]"', allow_module_level=True)

import tensorflow as tf

import keras_l0
from keras_l0 import prune
from keras_l0.experiments import convolutional, networks, segmentation
from keras_l0.tfmot import L2L0, cluster, from_tf_keras, quantize_aware, to_tf_keras
from keras_l0.tfmot.legacy import legacy_keras, toolkit, undisturbed

rng = np.random.default_rng(0)
X = rng.normal(size=(64, 8, 8, 3)).astype("float32")
Y = rng.integers(0, 3, 64)
IMAGE = {"weights": None, "input_shape": (64, 64, 3), "classes": 5}


def sequential(*inner: keras.Layer, shape: Any = (12,), dtype: str = "float32") -> keras.Model:
    return keras.Sequential([keras.Input(shape, dtype=dtype), *inner], name="net")


def branches() -> keras.Model:
    """A model inside, a shared layer, operations, two inputs and outputs in dicts."""
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(6, "relu"), layers.Dense(4)])
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
    shared = layers.Dense(4, kernel_regularizer=keras_l0.L2L0(1e-4, 1e-4))
    x, y = inner(a), inner(b)
    z = shared(x) + shared(y) * 2.0 - 1.0
    both = layers.Concatenate()([1.0 - z, ops.maximum(x, y), z / 4.0])
    outputs = {"o": layers.Dense(2)(both), "p": ops.silu(ops.relu(z))}
    return keras.Model({"a": a, "b": b}, outputs)


def attention() -> keras.Model:
    inputs = keras.Input((5, 4))
    return keras.Model(inputs, layers.MultiHeadAttention(2, 3)(inputs, inputs))


def partly_frozen() -> keras.Model:
    model = sequential(
        layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
        layers.RNN([layers.SimpleRNNCell(4), layers.SimpleRNNCell(4)]),
        shape=(5, 4),
    )
    model.layers[0].forward_layer.trainable = False
    model.layers[1].cell.cells[0].trainable = False
    return model


def operations() -> keras.Model:
    """Operations with constants before and behind, and with settings of their own."""
    inputs = keras.Input((3, 3))  # as many examples as there are columns
    x = inputs - np.array([1.0, 2.0, 3.0], "float32")
    x = ops.subtract(np.array([1.0, 2.0, 3.0], "float32"), x) * ops.convert_to_tensor(2.0)
    x = ops.elu(ops.softmax(x, axis=1), alpha=0.3)
    return keras.Model(inputs, (1.0 - x) / np.array([[1.0, 2.0, 4.0]], "float32"))


def masks() -> keras.Model:
    inputs = keras.Input((8,), dtype="int32")
    return keras.Model(inputs, layers.LSTM(4)(layers.Embedding(9, 4, mask_zero=True)(inputs)))


def states() -> keras.Model:
    inputs = keras.Input((5, 4))
    _, *state = layers.LSTM(3, return_state=True)(inputs)
    return keras.Model(inputs, layers.LSTM(3)(inputs, initial_state=state))


def trained_in_the_graph() -> keras.Model:
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.BatchNormalization()(inputs, training=True))


def ordered() -> keras.Model:
    a = keras.Input((4,))
    named = OrderedDict(z=layers.Dense(3)(a), a=layers.Dense(3)(a))
    inner = keras.Model(a, named)
    inputs = keras.Input((4,))
    found = inner(inputs)
    return keras.Model(inputs, layers.Concatenate()([found["z"] * 2.0, found["a"]]))


def samples(model: keras.Model) -> Any:
    """Three inputs of a model, in its structure."""

    def sample(tensor: Any) -> Any:
        shape = (3, *(side or 8 for side in tensor.shape[1:]))
        if "int" in tensor.dtype:
            return rng.integers(0, 9, shape).astype(tensor.dtype)
        return rng.normal(size=shape).astype(tensor.dtype)

    one = len(model.inputs) == 1
    return keras.tree.map_structure(sample, model.inputs[0] if one else model.input)


def outputs(model: Any, x: Any) -> list[Any]:
    found = keras.tree.flatten(model(x, training=False))
    return [np.asarray(ops.convert_to_numpy(one), np.float64) for one in found]


def worn(model: keras.Model) -> keras.Model:
    """The model with other biases and statistics than it begins with."""
    model.set_weights(
        [
            w if w.ndim > 1 else np.abs(w) + 0.1 * rng.random(w.shape).astype(w.dtype)
            for w in model.get_weights()
        ]
    )
    return model


MODELS: dict[str, Callable[..., keras.Model]] = {
    "lenet_5_caffe": networks.lenet_5_caffe,
    "resnet_20": convolutional.resnet_20,
    "u_net": segmentation.u_net,
    "mobilenet_v2": lambda: keras.applications.MobileNetV2(alpha=0.35, **IMAGE),
    "mobilenet_v3": lambda: keras.applications.MobileNetV3Small(**IMAGE),
    "efficientnet_b0": lambda: keras.applications.EfficientNetB0(**IMAGE),
    "branches": branches,
    "attention": attention,
    "recurrent": lambda: sequential(
        layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
        layers.GRU(4, return_sequences=True),
        layers.RNN([layers.LSTMCell(3), layers.SimpleRNNCell(2)]),
        shape=(5, 4),
    ),
    "embedding": lambda: sequential(
        layers.Embedding(20, 4), layers.GlobalAveragePooling1D(), shape=(5,), dtype="int32"
    ),
    "convolutions": lambda: sequential(
        layers.SeparableConv2D(4, 3),
        layers.LeakyReLU(0.1),
        layers.Conv2DTranspose(3, 3, strides=2),
        layers.UpSampling2D(interpolation="bilinear"),
        layers.PReLU(shared_axes=[1, 2]),
        layers.SpatialDropout2D(0.1),
        layers.DepthwiseConv2D(3, padding="same"),
        layers.GroupNormalization(3),
        shape=(8, 8, 3),
    ),
    "sequences": lambda: sequential(
        layers.TimeDistributed(layers.Dense(3)),
        layers.LayerNormalization(),
        layers.Conv1D(3, 2, padding="causal"),
        layers.ELU(),
        layers.Reshape((3, 5)),
        layers.Permute((2, 1)),
        shape=(5, 4),
    ),
    "activations": lambda: sequential(
        *(
            layers.Dense(3, activation=name)
            for name in ("hard_silu", "gelu", "silu", "leaky_relu", "relu6", "log_softmax")
        ),
        layers.Activation("hard_sigmoid"),
        layers.Activation("log_sigmoid"),
    ),
    "random": lambda: sequential(
        layers.RandomFlip(),
        layers.RandomRotation(0.1),
        layers.RandomZoom(0.1),
        layers.RandomContrast(0.1),
        shape=(8, 8, 3),
    ),
    "partly frozen": lambda: partly_frozen(),
    "operations": lambda: operations(),
    "masks": lambda: masks(),
    "states": lambda: states(),
    "training in the graph": lambda: trained_in_the_graph(),
    "ordered outputs": lambda: ordered(),
    "settings": lambda: sequential(
        layers.Dense(
            3,
            kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2),
            kernel_constraint=keras.constraints.MaxNorm(2.0),
            activity_regularizer="l2",
            kernel_initializer="he_normal",
        ),
        layers.Dense(3, trainable=False),
        layers.Dense(3, dtype="mixed_float16"),
    ),
}


@pytest.mark.filterwarnings("ignore:.*mixed_float16")
@pytest.mark.parametrize("name", MODELS)
def test_a_model_there_and_back_has_the_same_outputs_and_weights(name: str) -> None:
    model = worn(MODELS[name]())
    before, x = numpy_weights(model), samples(model)
    old = to_tf_keras(model)
    back = from_tf_keras(old)
    assert_same_bits(numpy_weights(model), before)
    assert_same_bits(numpy_weights(back), before)
    for there, here, wanted in zip(
        outputs(old, x), outputs(back, x), outputs(model, x), strict=True
    ):
        np.testing.assert_allclose(there, wanted, rtol=0, atol=1e-5)
        np.testing.assert_allclose(here, wanted, rtol=0, atol=1e-5)
    assert [w.trainable for w in back.weights] == [w.trainable for w in model.weights]
    assert old.name == back.name == model.name


def test_penalties_go_along() -> None:
    old = to_tf_keras(branches())
    (there,) = [x for layer in old.layers if (x := getattr(layer, "kernel_regularizer", None))]
    assert isinstance(there, L2L0)
    back = from_tf_keras(old)
    (here,) = [x for layer in back.layers if (x := getattr(layer, "kernel_regularizer", None))]
    assert here.get_config() == {"l2": 1e-4, "l0": 1e-4, "beta": 10.0}


def own(name: str) -> Callable[[Any], Any]:
    """A function that has a built-in's name."""

    def function(x: Any) -> Any:
        return x * 0.0 + 7.0

    function.__name__ = name
    return function


@keras.saving.register_keras_serializable("Mine")
class L2(keras.regularizers.Regularizer):
    """A regularizer that has a built-in's name."""

    def __call__(self, x: Any) -> Any:
        return ops.sum(x)

    def get_config(self) -> dict[str, Any]:
        return {}


def integers() -> keras.Model:
    inputs = keras.Input((4,), dtype="int32")
    return keras.Model(inputs, inputs + 1)


def approximate() -> keras.Model:
    inputs = keras.Input((4,))
    return keras.Model(inputs, ops.gelu(inputs, approximate=True))


class Subclass(keras.Model):
    """A model without a graph."""

    def __init__(self) -> None:
        super().__init__(name="sub")
        self.dense = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.dense(x)


def with_lora() -> keras.Model:
    model = sequential(layers.Dense(3, name="dense"))
    model.layers[0].enable_lora(2)
    return model


def operating(operation: Callable[[Any], Any]) -> keras.Model:
    keras.utils.clear_session(free_memory=False)  # for the operations' names
    inputs = keras.Input((4,))
    return keras.Model(inputs, operation(inputs))


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (lambda: sequential(layers.RMSNormalization(name="rms")), "rms, a RMSNormalization"),
        (lambda: sequential(layers.Lambda(lambda x: x, name="code")), "write it as layers"),
        (lambda: sequential(layers.Dense(2, "sparsemax")), "no activation sparsemax"),
        (with_lora, "lora_rank=2"),
        (integers, "operations on floats"),
        (approximate, "operations on floats"),
        (lambda: sequential(layers.Dense(2, own("gelu"))), "a function of your own, gelu"),
        (lambda: sequential(layers.Dense(2, kernel_regularizer=L2())), "none of Keras 3's own"),
        (lambda: operating(ops.flip), "Write it as a layer of keras.layers"),
        (lambda: operating(lambda x: x[:, 0]), "get_item, a GetItem"),
        (lambda: operating(lambda x: ops.stack([x, x])), "stack, a Stack"),
        (lambda: operating(lambda x: x / 0.0), "true_divide, a TrueDivide"),
        (lambda: keras.Sequential([layers.Dense(2)], name="net"), "Expected a built model"),
        (lambda: None, "Expected a keras.Model"),
    ],
)
def test_what_has_no_counterpart_is_named(model: Callable[[], Any], text: str) -> None:
    given = model()
    with pytest.raises(ValueError, match=r"Invalid value for argument `model`\. ") as error:
        to_tf_keras(given)
    assert text in str(error.value)


def test_a_subclassed_model_is_refused_with_what_works() -> None:
    model = Subclass()
    model(np.ones((1, 3), "float32"))
    with pytest.raises(ValueError, match=r"Write it as keras.Model\(inputs, outputs\)"):
        to_tf_keras(model)


def old_network(*inner: Any) -> Any:
    keras_2 = legacy_keras()
    return keras_2.Sequential([keras_2.Input((6,)), *inner], name="old")


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (lambda k: old_network(k.layers.ThresholdedReLU(name="t")), "t, a ThresholdedReLU"),
        (lambda k: old_network(k.layers.Activation("hard_sigmoid")), "another formula"),
        (lambda k: old_network(k.layers.Dense(2, own("relu"))), "a function of your own, relu"),
        (lambda k: called_in_training(k, True), "Call it without"),
        (lambda k: old_network(k.layers.Discretization(num_bins=3)), "the bins that it adapted"),
        (lambda k: k.Sequential([k.layers.Dense(2)], name="n"), "Sequential or Functional model"),
        (lambda k: small_classifier(), "a tf_keras.Model"),  # noqa: ARG005
    ],
)
def test_what_does_not_come_over_is_named(model: Callable[[Any], Any], text: str) -> None:
    with undisturbed():
        given = model(legacy_keras())
    with pytest.raises(ValueError, match=r"Invalid value for argument `model`\. ") as error:
        from_tf_keras(given)
    assert text in str(error.value)


def called_in_training(k: Any, training: bool) -> Any:
    inputs = k.Input((6,))
    return k.Model(inputs, k.layers.BatchNormalization(name="bn")(inputs, training=training))


def test_training_false_in_a_graph_is_told() -> None:
    with undisturbed():
        given = called_in_training(legacy_keras(), False)
    with pytest.warns(UserWarning, match="bn was called with training=False, which Keras 3"):
        from_tf_keras(given)
    with undisturbed():
        k = legacy_keras()
        inputs = k.Input((6,))
        given = k.Model(inputs, k.layers.Dropout(0.5, name="drop")(inputs, training=False))
    with pytest.warns(UserWarning, match="drop was called with .* leave its dropout out"):
        from_tf_keras(given)


def test_what_keras_2_writes_comes_over() -> None:
    keras_2 = legacy_keras()
    with undisturbed():
        inputs = keras_2.Input((6,))
        x = keras_2.layers.Embedding(20, 4, input_length=6)(inputs)
        x = 1.0 - keras_2.layers.Flatten(name="block/flat")(x)
        x = keras_2.layers.Dense(3, tf.nn.relu)(x + tf.constant([2.0]))
        old = keras_2.Model(inputs, tf.nn.softmax(x, axis=1))
    x = rng.integers(0, 19, (3, 6)).astype("float32")
    np.testing.assert_allclose(outputs(from_tf_keras(old), x), outputs(old, x), rtol=1e-5)


def test_what_tfmot_pruned_comes_over_with_its_zeros() -> None:
    keras_2, sparsity = legacy_keras(), toolkit().sparsity.keras
    with undisturbed():
        schedule = sparsity.ConstantSparsity(0.75, 0, end_step=4, frequency=1)
        dense = old_network(keras_2.layers.Dense(8, "relu"), keras_2.layers.Dense(3))
        wrapped = sparsity.prune_low_magnitude(dense, pruning_schedule=schedule)
        wrapped.compile(keras_2.optimizers.SGD(0.1, momentum=0.9), "mse")
        x, y = rng.normal(size=(64, 6)).astype("float32"), np.ones((64, 3), "float32")
        wrapped.fit(x, y, epochs=3, verbose=0, callbacks=[sparsity.UpdatePruningStep()])
    # What the last step moved is not yet masked in tfmot's own weights.
    kernel = wrapped.layers[0].layer.kernel
    kernel.assign(kernel + 0.5)
    found = from_tf_keras(wrapped)
    assert [layer.name for layer in found.layers] == [layer.name for layer in dense.layers]
    for w in found.get_weights()[::2]:
        assert np.mean(w == 0) == 0.75


@pytest.mark.filterwarnings("ignore:Not clustered")
def test_neither_keras_disturbs_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = keras.backend.backend()
    model = small_classifier()
    calls = itertools.product((to_tf_keras, lambda model: cluster(model, 8, (X, Y))), (None, "0"))
    for call, variable in calls:
        monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
        if variable is not None:
            monkeypatch.setenv("TF_USE_LEGACY_KERAS", variable)
        prune(model, 0.5)
        state = random.getstate()
        call(model)
        assert random.getstate() == state
        assert os.environ.get("TF_USE_LEGACY_KERAS") == variable
        assert keras.backend.backend() == backend
        assert keras.__version__.startswith("3.")
        assert tf.keras.Model is keras.Model
        assert model.fit(X, Y, verbose=0).history["loss"]


def test_a_model_of_any_backend_trains_for_int8(tmp_path: Path) -> None:
    model = sequential(layers.Dense(8, "relu"), layers.Dense(3))
    model.compile("adam", "mse")
    prune(model, 0.5)
    x = rng.normal(size=(64, 12)).astype("float32")
    trained, report = quantize_aware(
        model, (x, x[:, :3]), tmp_path / "m.tflite", clusters=6, learning_rate=1e-2
    )
    assert report is not None
    for new, old in zip(numpy_weights(trained), numpy_weights(model), strict=True):
        assert not np.array_equal(new, old)
        assert new.ndim == 1 or (not new[old == 0].any() and len(np.unique(new)) <= 6)


def test_what_is_not_installed_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    with pytest.raises(ImportError, match=r'pip install "keras_l0\[tensorflow,tfmot\]"'):
        legacy_keras()


def test_the_penalty_is_that_of_keras_3() -> None:
    w = np.array([[0.0, 1e-4, -0.3], [2.0, -1.0, 0.01]], np.float32)
    there, here = L2L0(0.5, 0.25, 12.0), keras_l0.L2L0(0.5, 0.25, 12.0)
    np.testing.assert_allclose(float(there(w)), float(ops.convert_to_numpy(here(w))), rtol=1e-6)
    variable = tf.Variable(w)
    with tf.GradientTape() as tape:
        found = there(variable)
    slope = 2 * 0.5 * w + 0.25 * 12 * np.sign(w) * np.exp(-12 * np.abs(w))
    np.testing.assert_allclose(tape.gradient(found, variable), slope, rtol=1e-6)
    with pytest.raises(ValueError, match=invalid("beta", "a finite float >= 1", "0.5")):
        L2L0(beta=0.5)


def test_the_penalty_trains_and_is_kept_in_files(tmp_path: Any) -> None:
    keras_2 = legacy_keras()
    with undisturbed():
        layer = keras_2.layers.Dense(3, kernel_regularizer=L2L0(1e-3, 1e-4))
        model = old_network(layer)
        model.compile("sgd", "mse")
        model.fit(np.ones((4, 6), "float32"), np.ones((4, 3), "float32"), verbose=0)
        model.save(tmp_path / "old.keras")
        again = keras_2.models.load_model(tmp_path / "old.keras")
    wanted = {"l2": 1e-3, "l0": 1e-4, "beta": 10.0}
    assert again.layers[0].kernel_regularizer.get_config() == wanted
