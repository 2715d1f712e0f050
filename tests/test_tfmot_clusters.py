"""tfmot's clustering on models of Keras 3: few values, and the zeros stay."""

import importlib.util
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from strategies import assert_same_bits, numpy_weights, small_classifier

if importlib.util.find_spec("tensorflow_model_optimization") is None:
    pytest.skip('needs: pip install "keras_l0[tensorflow,tfmot]"', allow_module_level=True)

import tensorflow as tf

from keras_l0 import prune
from keras_l0.tfmot import cluster

rng = np.random.default_rng(0)
X = rng.normal(size=(64, 8, 8, 3)).astype("float32")
Y = rng.integers(0, 3, 64)


def sequential(*inner: keras.Layer, shape: Any = (12,)) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *inner], name="net")


class Batches(keras.utils.PyDataset):
    """Keras 3's own kind of data set."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return X[32 * index : 32 * index + 32], Y[32 * index : 32 * index + 32]


DATA: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "arrays": lambda: (X, Y),
    "tf.data": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(32),
    "PyDataset": Batches,
    "batches": lambda: [(X[:32], Y[:32]), (X[32:], Y[32:])],
}


@pytest.mark.parametrize("data", DATA)
def test_clusters_keep_zeros(data: str) -> None:
    model = small_classifier()
    prune(model, 0.6)
    before = numpy_weights(model)
    with pytest.warns(UserWarning, match="clusters no kernel of DepthwiseConv2D"):
        found = cluster(model, 6, DATA[data](), epochs=2, learning_rate=1e-2)
    assert_same_bits(numpy_weights(model), before)
    old = {w.path: ops.convert_to_numpy(w) for w in model.weights}
    for weight in found.weights:
        values, was = ops.convert_to_numpy(weight), old[weight.path]
        if weight.name == "kernel" and "depthwise" not in weight.path:
            assert not values[was == 0].any()
            assert len(np.unique(values)) <= 6
            assert np.corrcoef(values.ravel(), was.ravel())[0, 1] > 0.8
        elif data == "none":
            assert np.array_equal(values, was)


def test_training_moves_the_clusters() -> None:
    model = sequential(layers.Flatten(), layers.Dense(3), shape=(8, 8, 3))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    prune(model, 0.6)

    def loss(found: keras.Model) -> float:
        found.compile(loss=model.loss)
        return float(found.evaluate(X, Y, verbose=0))

    still = cluster(model, 6)
    moved = cluster(model, 6, (X, Y), epochs=20, learning_rate=1e-2)
    assert loss(moved) < 0.8 * loss(still)


def test_layers_of_a_model_inside_are_clustered() -> None:
    shared = layers.Dense(8)
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8, "relu"), shared], name="inner")
    inputs = keras.Input((8,))
    model = keras.Model(inputs, shared(inner(inputs)))
    prune(model, 0.5)
    found = cluster(model, 3)
    kernels = [ops.convert_to_numpy(w) for w in found.weights if w.name == "kernel"]
    assert len(kernels) == 2
    assert all(len(np.unique(w)) <= 3 for w in kernels)


def test_attention_and_recurrent_layers_are_clustered() -> None:
    inputs = keras.Input((5, 8))
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    model = keras.Model(inputs, layers.Bidirectional(layers.LSTM(4))(x))
    prune(model, 0.5)
    found = cluster(model, 5)
    for weight, old in zip(found.weights, model.weights, strict=True):
        values, was = ops.convert_to_numpy(weight), ops.convert_to_numpy(old)
        if weight.name.endswith("kernel"):
            assert len(np.unique(values)) <= 5
            assert not values[was == 0].any()
            assert np.corrcoef(values.ravel(), was.ravel())[0, 1] > 0.8
        else:
            assert np.array_equal(values, was)


def test_a_dense_model_is_clustered_with_a_note() -> None:
    model = sequential(layers.Dense(9))
    with pytest.warns(UserWarning, match="net has no zeros that could be kept: prune it first"):
        found = cluster(model, 4)
    assert len(np.unique(found.get_weights()[0])) <= 4


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"clusters": 2}, "`clusters`. Expected an integer >= 3. Received: clusters=2"),
        ({"clusters": 4.5}, "`clusters`. Expected an integer >= 3. Received: clusters=4.5"),
        ({"data": (X[:, :4], Y)}, "`data`. Expected examples and targets that the model"),
        ({"data": (X,)}, "`data`. Expected a tuple (x, y)"),
        ({"data": (X, Y), "epochs": 0}, "`epochs`. Expected an integer >= 1"),
        ({"epochs": 0}, "`epochs`. Expected an integer >= 1"),
        ({"data": (pair for pair in [(X, Y)]), "epochs": 2}, "gone over in each epoch"),
        ({"data": [(X[:, :4], Y)]}, "`data`. Expected batches that the model and its loss take"),
        ({"data": (X, Y), "learning_rate": -1.0}, "`learning_rate`. Expected a finite float >= 0"),
    ],
)
def test_what_does_not_cluster_is_refused_and_changes_nothing(
    arguments: dict[str, Any], text: str
) -> None:
    model = small_classifier()
    prune(model, 0.5)
    before = numpy_weights(model)
    with pytest.raises(ValueError, match="Invalid value for argument ") as error:
        cluster(model, **{"clusters": 4, **arguments})
    assert text in str(error.value)
    assert_same_bits(numpy_weights(model), before)


def test_data_for_a_model_that_is_not_compiled_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected a compiled model"):
        cluster(sequential(layers.Dense(3)), 4, (X, Y))


def test_kernels_of_few_values_stay_as_they_are() -> None:
    model = sequential(layers.Dense(30), layers.Dense(10), layers.Dense(1))
    prune(model, 0.99)
    found = cluster(model, 16)
    assert_same_bits(numpy_weights(found), numpy_weights(model))


def test_what_tfmot_does_not_cluster_is_named() -> None:
    inputs = keras.Input((5, 8))
    x = layers.SeparableConv1D(8, 2, trainable=False)(inputs)
    model = keras.Model(inputs, layers.Dense(8, dtype="float16", name="half")(x))
    prune(model, 0.5, layers="*")
    with pytest.warns(UserWarning, match="Not clustered: ") as told:
        found = cluster(model, 4)
    for text in ("a frozen SeparableConv1D", "Dense (float16)"):
        assert any(text in str(one.message) for one in told)
    assert_same_bits(numpy_weights(found), numpy_weights(model))


def test_the_weights_of_losses_count() -> None:
    inputs = keras.Input((8,))
    model = keras.Model(inputs, [layers.Dense(8, name=name)(inputs) for name in "ab"])
    prune(model, 0.5)
    model.compile("adam", ["mse", "mse"], loss_weights=[1.0, 0.0])
    x = rng.normal(size=(32, 8)).astype("float32")
    found = cluster(model, 6, (x, [x, x]), epochs=3, learning_rate=0.1)
    assert np.any(found.get_layer("a").bias.numpy() != 0)
    assert not np.any(found.get_layer("b").bias.numpy())


def test_zeros_of_what_is_not_clustered_stay() -> None:
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(20, 8, name="words"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    model.compile("adam", "mse")
    prune(model, 0.5, layers="*", method="layerwise")
    data = rng.integers(0, 20, (64, 6)), rng.normal(size=(64, 3))
    found = cluster(model, 4, data, learning_rate=1e-2)
    words, was = (one.get_layer("words").get_weights()[0] for one in (found, model))
    assert not np.array_equal(words, was)
    assert (was == 0).any()
    assert not words[was == 0].any()


def test_mixed_precision_is_for_training() -> None:
    half = layers.Dense(8, "relu", dtype="mixed_float16")
    model = sequential(half, layers.Dense(3, dtype="float32"))
    prune(model, 0.5)
    found = cluster(model, 4)
    assert [layer.dtype_policy.name for layer in found.layers] == ["mixed_float16", "float32"]
    assert all(len(np.unique(values)) <= 4 for values in numpy_weights(found))
    assert half.dtype_policy.name == "mixed_float16"


def test_weights_that_are_not_finite_are_told() -> None:
    model = small_classifier()
    prune(model, 0.5)
    with pytest.raises(RuntimeError, match="take a smaller `learning_rate`"):
        cluster(model, 4, (X, Y), epochs=3, learning_rate=1e38)


def test_a_loss_that_is_not_known_is_the_models() -> None:
    model = sequential(layers.Dense(3))
    model.compile("adam", "tversky")
    with pytest.raises(ValueError, match=r"`model`.*a loss that tf_keras has.*tversky"):
        cluster(model, 4, (X[:, 0, 0, :1].repeat(12, 1), np.ones((64, 3), "float32")))


def test_what_training_says_is_whole() -> None:
    model = small_classifier()
    prune(model, 0.5)
    with pytest.raises(ValueError, match="x sizes: 64 y sizes: 50"):
        cluster(model, 4, (X, Y[:50]))
    one_by_one = tf.data.Dataset.from_tensor_slices((X, Y))
    with pytest.raises(ValueError, match=r"found shape=\(8, 8, 3\)"):
        cluster(model, 4, one_by_one)


def mean_squared_error(y: Any, found: Any) -> Any:
    return 1000.0 * ops.mean(ops.square(y - found))


def test_a_loss_of_ones_own_is_refused() -> None:
    model = sequential(layers.Dense(3))
    model.compile("adam", mean_squared_error)
    with pytest.raises(ValueError, match="it is a function of your own"):
        cluster(model, 4, (X[:, 0, 0, :1].repeat(12, 1), np.ones((64, 3), "float32")))
