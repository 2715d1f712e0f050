"""The graph finds the channels that go together: real networks lose just what it says."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from networks_strategy import randomize
from numpy.typing import NDArray
from strategies import assert_same_bits, numpy_weights

from keras_l0 import shrink
from keras_l0.experiments.convolutional import resnet_20
from keras_l0.experiments.networks import lenet_5_caffe, lenet_300_100
from keras_l0.structure.dead import find_cut
from keras_l0.structure.graph import Graph
from keras_l0.structure.shrink import values_of

Tensor = Any


def small_vgg() -> keras.Model:
    """Convolutions in three stages, two dense layers."""
    model = keras.Sequential([keras.Input((16, 16, 3))], name="vgg")
    for width in (8, 12, 16):
        for _ in range(2):
            model.add(layers.Conv2D(width, 3, padding="same"))
            model.add(layers.BatchNormalization())
            model.add(layers.ReLU())
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(32, "relu"))
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(10))
    return model


def small_unet() -> keras.Model:
    """Two levels down and up again, what goes down put beside what comes up."""

    def block(x: Tensor, width: int) -> Tensor:
        for _ in range(2):
            x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        return x

    inputs = keras.Input((16, 16, 3))
    first = block(inputs, 6)
    second = block(layers.MaxPooling2D()(first), 10)
    x = block(layers.MaxPooling2D()(second), 14)
    x = layers.Conv2DTranspose(10, 2, strides=2, padding="same")(x)
    x = block(layers.Concatenate()([x, second]), 10)
    x = layers.Conv2D(6, 2, padding="same")(layers.UpSampling2D()(x))
    x = block(layers.Concatenate()([first, x]), 6)
    return keras.Model(inputs, layers.Conv2D(2, 1)(x), name="unet")


def application(name: str, size: int = 64) -> keras.Model:
    """A network of keras.applications, its outputs before the softmax."""
    kind = getattr(keras.applications, name)
    return kind(weights=None, classes=10, input_shape=(size, size, 3), classifier_activation=None)


def vary(model: keras.Model) -> None:
    """Gives normalizations scales and offsets of all sizes."""
    generator = np.random.default_rng(1)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            if layer.scale:
                layer.gamma.assign(generator.uniform(0.7, 1.3, layer.gamma.shape))
            if layer.center:
                layer.beta.assign(generator.uniform(-0.3, 0.3, layer.beta.shape))


def settle(model: keras.Model, x: NDArray[Any]) -> None:
    """Makes the outputs tell inputs apart: all normalizations take the statistics of ``x``.

    A network that was not trained gives nearly the same for any input.
    """
    found = [one for one in model._flatten_layers() if isinstance(one, layers.BatchNormalization)]
    momenta = [layer.momentum for layer in found]
    for layer in found:
        layer.momentum = 0.0
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.train_on_batch(x, np.zeros((len(x), *model.output_shape[1:])))
    for layer, momentum in zip(found, momenta, strict=True):
        layer.momentum = momentum


def kill(graph: Graph) -> NDArray[np.bool_]:
    """Zeroes 30 to 70 % of the channels of each group, with all that is added to them."""
    generator = np.random.default_rng(0)
    gone = np.zeros(graph.count, bool)
    for group in graph.groups:
        count = len(group.channels)
        share = int(generator.integers(int(0.3 * count), int(0.7 * count) + 1))
        gone[generator.permutation(group.channels)[: min(share, count - 1)]] = True
    for slot in graph.slots:
        if slot.role != "reads":
            value = np.array(ops.convert_to_numpy(slot.variable))
            np.moveaxis(value, slot.axis, 0)[gone[graph.classes[slot.ids]]] = 0
            slot.variable.assign(value)
    return gone


def outputs(model: keras.Model, x: NDArray[Any]) -> NDArray[np.floating]:
    return np.asarray(model.predict(x, verbose=0))


def check(model: keras.Model, scale: float, directory: Any) -> None:
    """All that must hold of a network of which channels were killed and which was shrunk."""
    shape = model.input_shape[1:]
    generator = np.random.default_rng(2)
    x = (generator.uniform(size=(4, *shape)) * scale).astype("float32")
    x *= generator.uniform(0.2, 1, (4, *[1] * len(shape))).astype("float32")
    vary(model)
    graph = Graph(model)
    killed = kill(graph)
    settle(model, x)
    assert 0.2 < killed.sum() / sum(len(group.channels) for group in graph.groups) < 0.8
    wanted = outputs(model, x)
    largest = np.abs(wanted).max()
    assert np.ptp(wanted, axis=0).max() > 0.01 * largest
    cut = find_cut(graph, values_of)
    assert not (killed & ~cut.gone).any()
    small = shrink(model)
    predicted = graph.parameters(cut.gone)
    assert small.count_params() == sum(predicted[id(variable)] for variable in model.weights)
    assert small.count_params() < 0.8 * model.count_params()
    assert {one.name for one in small.layers} <= {one.name for one in model.layers}
    left = Graph(small)
    assert left.count == int(np.sum(~cut.gone))
    small.save(directory / "small.keras")
    loaded = keras.models.load_model(directory / "small.keras", compile=False)
    assert_same_bits(numpy_weights(loaded), numpy_weights(small))
    assert np.abs(outputs(loaded, x) - wanted).max() <= 1e-4 * largest
    small.compile("sgd", loss="mse")
    before = numpy_weights(small)
    loss = small.train_on_batch(x, np.zeros_like(wanted))
    assert np.isfinite(loss)
    assert any(not np.array_equal(a, b) for a, b in zip(before, numpy_weights(small), strict=True))


NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "lenet_300_100": lenet_300_100,
    "lenet_5_caffe": lenet_5_caffe,
    "vgg": small_vgg,
    "unet": small_unet,
    "resnet_20": lambda: resnet_20((16, 16, 3), filters=6),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_lose_what_was_killed_and_their_outputs_stay(name: str, tmp_path: Any) -> None:
    if keras.config.backend() == "jax" and name in ("vgg", "unet", "resnet_20"):
        pytest.skip("JAX compiles each operation of each shape, which takes a minute")
    check(NETWORKS[name](), 1.0, tmp_path)


# Pixels from 0 to 255 for those that scale them themselves.
APPLICATIONS = {
    "MobileNetV2": 1.0,
    "MobileNetV3Small": 255.0,
    "EfficientNetB0": 255.0,
    "DenseNet121": 1.0,
    "Xception": 1.0,
    "ResNet50": 1.0,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_applications_lose_what_was_killed_and_their_outputs_stay(name: str, tmp_path: Any) -> None:
    size = 75 if name == "Xception" else 64
    check(application(name, size), APPLICATIONS[name], tmp_path)


# Which layers hang together.


def group_of(model: keras.Model, layer: keras.Layer) -> set[str]:
    """The layers that must lose the same channels as this one."""
    (group,) = (
        group
        for group in Graph(model).groups
        if any(slot.variable is layer.kernel for slot in group.slots)
    )
    return {slot.variable.path.rpartition("/")[0] for slot in group.slots}


def sizes(model: keras.Model, layer: keras.Layer, lost: int) -> dict[str, tuple[int, int]]:
    """How large each variable is before and after a layer loses so many channels."""
    graph = Graph(model)
    (group,) = (
        group
        for group in graph.groups
        if any(slot.variable is layer.kernel for slot in group.slots)
    )
    gone = np.zeros(graph.count, bool)
    gone[group.channels[:lost]] = True
    after = graph.parameters(gone)
    pairs = {v.path: (int(np.prod(v.shape)), after[id(v)]) for v in model.weights}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def test_a_flatten_takes_all_places_of_a_channel_along() -> None:
    x = keras.Input((4, 4, 3))
    first = layers.Conv2D(6, 3, padding="same", name="first")
    last = layers.Dense(5, name="last")
    model = keras.Model(x, last(layers.Flatten()(layers.MaxPooling2D()(first(x)))))
    assert sizes(model, first, 2) == {
        "first/kernel": (9 * 3 * 6, 9 * 3 * 4),
        "first/bias": (6, 4),
        "last/kernel": (24 * 5, 16 * 5),
    }


def test_branches_of_a_sum_lose_the_same() -> None:
    x = keras.Input((4, 4, 3))
    one, other = (layers.Conv2D(6, 3, padding="same", name=name) for name in ("one", "other"))
    y = layers.Add()([one(x), layers.BatchNormalization(name="norm")(other(x))])
    last = layers.Conv2D(2, 1, name="last")
    model = keras.Model(x, last(y))
    assert group_of(model, one) == {"one", "other"}
    assert set(sizes(model, one, 1)) == {
        *(f"{name}/{part}" for name in ("one", "other") for part in ("kernel", "bias")),
        *(f"norm/{part}" for part in ("gamma", "beta", "moving_mean", "moving_variance")),
        "last/kernel",
    }


def test_sides_of_a_concatenation_lose_their_own() -> None:
    x = keras.Input((5,))
    one, other = layers.Dense(6, name="one"), layers.Dense(4, name="other")
    model = keras.Model(x, layers.Dense(3, name="last")(layers.Concatenate()([one(x), other(x)])))
    assert group_of(model, one) == {"one"}
    assert sizes(model, one, 2)["last/kernel"] == (30, 24)
    assert sizes(model, other, 3)["last/kernel"] == (30, 21)


def test_a_depthwise_convolution_goes_with_what_it_reads() -> None:
    x = keras.Input((4, 4, 3))
    first = layers.Conv2D(6, 1, name="first")
    depthwise = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")
    model = keras.Model(x, layers.Conv2D(2, 1, name="last")(depthwise(first(x))))
    assert sizes(model, first, 1) == {
        "first/kernel": (18, 15),
        "first/bias": (6, 5),
        "depthwise/kernel": (108, 90),
        "depthwise/bias": (12, 10),
        "last/kernel": (24, 20),
    }


def test_groups_of_a_convolution_lose_the_same_places() -> None:
    x = keras.Input((4, 4, 3))
    first = layers.Conv2D(6, 1, name="first")
    grouped = layers.Conv2D(4, 1, groups=2, name="grouped")
    model = keras.Model(x, layers.Conv2D(2, 1, name="last")(grouped(first(x))))
    assert sizes(model, first, 1) == {
        "first/kernel": (18, 12),
        "first/bias": (6, 4),
        "grouped/kernel": (12, 8),
    }
    assert sizes(model, grouped, 1) == {
        "grouped/kernel": (12, 6),
        "grouped/bias": (4, 2),
        "last/kernel": (8, 4),
    }


def test_a_layer_used_twice_loses_for_both_uses() -> None:
    x = keras.Input((5,))
    one, other = layers.Dense(4, name="one"), layers.Dense(4, name="other")
    shared = layers.Dense(3, name="shared")
    y = layers.Concatenate()([shared(one(x)), shared(other(x))])
    model = keras.Model(x, layers.Dense(2, name="last")(y))
    assert group_of(model, one) == {"one", "other"}
    assert sizes(model, shared, 1)["last/kernel"] == (12, 8)


@pytest.mark.parametrize(
    "layer",
    [
        layers.LayerNormalization,
        layers.UnitNormalization,
        layers.Softmax,
        lambda name: layers.Lambda(lambda x: x, name=name),
        lambda name: layers.Activation("softmax", name=name),
    ],
)
def test_a_layer_that_mixes_channels_keeps_them_and_is_named(layer: Any) -> None:
    x = keras.Input((5,))
    first, last = layers.Dense(4, name="first"), layers.Dense(3, name="second")
    model = keras.Model(x, layers.Dense(2)(last(layer(name="mixing")(first(x)))))
    graph = Graph(model)
    assert [slot.variable.path for group in graph.groups for slot in group.slots] == [
        "second/kernel"
    ]
    assert list(graph.left_alone) == ["mixing", "first"]


def test_inputs_and_outputs_keep_their_channels() -> None:
    x = keras.Input((5,))
    assert Graph(keras.Model(x, layers.Dense(3)(x))).groups == []
    y = layers.Dense(5)(x)
    assert Graph(keras.Model(x, layers.Dense(3)(x + y))).groups == []


def test_an_untouched_network_stays_as_it_is() -> None:
    model = small_unet()
    randomize(model, np.random.default_rng(0))
    assert shrink(model).count_params() == model.count_params()
