"""The networks that are taken to the emulated processor."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from keras_l0 import prune
from keras_l0.experiments.networks import lenet_5_caffe, lenet_300_100

Build = Callable[[], keras.Model]


def compressed(model: keras.Model, times: float) -> keras.Model:
    """One of so many weights left, random ones, and scaled so that inputs still tell at the end.

    A small layer keeps a larger share, as it does in training.
    """
    rng = np.random.default_rng(0)

    def score(weights: NDArray[Any]) -> NDArray[Any]:
        return 1 / (rng.random(weights.shape) * weights.size**0.5)

    prune(model, 1 - 1 / times, score=score)
    for layer in model.layers:
        if layer.weights:
            kernel = keras.ops.convert_to_numpy(layer.kernel)
            layer.kernel.assign(kernel * (kernel.size / np.count_nonzero(kernel)) ** 0.5)
            layer.bias.assign(rng.normal(size=layer.bias.shape) * 0.1)
    return model


def in_blocks(layer: keras.Layer, sparsity: float, block: tuple[int, int]) -> None:
    """Of a kernel's blocks, inputs by outputs, leaves random ones."""
    rows, columns = layer.kernel.shape[-2] // block[0], layer.kernel.shape[-1] // block[1]
    kept = np.zeros(rows * columns)
    kept[: round((1 - sparsity) * kept.size)] = (1 - sparsity) ** -0.5
    shuffled = np.random.default_rng(0).permutation(kept).reshape(rows, columns)
    layer.kernel.assign(layer.kernel * np.kron(shuffled, np.ones(block)))


def fully_connected_in_blocks() -> keras.Model:
    """90 % of the kernels' weights are zeros, 4 inputs of an output together."""
    hidden = [layers.Dense(512, activation="relu") for _ in range(3)]
    model = keras.Sequential([keras.Input((512,)), *hidden, layers.Dense(10)])
    for layer in hidden:
        in_blocks(layer, 0.9, (4, 1))
    return model


def mobile(
    widths: tuple[tuple[int, int], ...],
    size: int = 32,
    padding: str = "explicit",
    outputs_together: int = 1,
) -> keras.Model:
    """As MobileNet: depthwise convolutions, and 1x1 ones of which 90 % are zeros.

    With ``padding="same"`` those of stride 1 pad by themselves. ``outputs_together`` is how many
    neighbours among the outputs have their zeros at the same inputs.
    """
    entry = [layers.ZeroPadding2D(1), layers.Conv2D(32, 3, strides=2), layers.ReLU(6)]
    stack: list[keras.Layer] = [keras.Input((size, size, 3)), *entry]
    points = [layers.Conv2D(filters, 1) for filters, _ in widths]
    for point, (_, stride) in zip(points, widths, strict=True):
        if padding == "same" and stride == 1:
            stack += [layers.DepthwiseConv2D(3, padding="same")]
        else:
            stack += [layers.ZeroPadding2D(1), layers.DepthwiseConv2D(3, strides=stride)]
        stack += [layers.ReLU(6), point, layers.ReLU(6)]
    model = keras.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(10)])
    for point in points:
        in_blocks(point, 0.9, (1, outputs_together))
    return model


SMALL = ((32, 1), (64, 2), (64, 1))


def resnet_20() -> keras.Model:
    """Of a quarter of the filters."""

    def convolution(x: Any, filters: int, stride: int = 1) -> Any:
        x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(convolution(inputs, 4))
    for filters in (4, 8, 16):
        for _ in range(3):
            stride = filters // x.shape[-1]
            y = layers.ReLU()(convolution(x, filters, stride))
            y = convolution(y, filters)
            if stride > 1:
                x = layers.Conv2D(filters, 1, strides=stride)(x)
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(10)(x))
    prune(model, 0.9, method="layerwise")
    return model


def lstm(unroll: bool = False) -> keras.Model:
    recurrent = layers.LSTM(48, unroll=unroll)
    model = keras.Sequential([keras.Input((8, 8)), recurrent, layers.Dense(5)])
    prune(model, 0.9, method="layerwise")
    return model


def attention() -> keras.Model:
    inputs = keras.Input((10, 32))
    x = layers.LayerNormalization()(inputs + layers.MultiHeadAttention(4, 16)(inputs, inputs))
    model = keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))
    prune(model, 0.9, method="layerwise")
    return model


NETWORKS: dict[str, Build] = {
    "LeNet-300-100 at 96x": lambda: compressed(lenet_300_100(), 96),
    "LeNet-5-Caffe at 359x": lambda: compressed(lenet_5_caffe(), 359),
    "fully connected in 4x1 blocks": fully_connected_in_blocks,
    "MobileNet-like, explicit padding": lambda: mobile(SMALL),
    "MobileNet-like, SAME padding": lambda: mobile(SMALL, padding="same"),
    "ResNet-20": resnet_20,
    "LSTM": lstm,
    "LSTM, unrolled": lambda: lstm(unroll=True),
    "attention": attention,
}

ONE_LAYER: dict[str, Build] = {
    "dense": lambda: keras.Sequential([keras.Input((512,)), layers.Dense(1024)]),
    "convolution": lambda: keras.Sequential(
        [keras.Input((16, 16, 64)), layers.Conv2D(64, 3, padding="same")]
    ),
    "depthwise": lambda: keras.Sequential(
        [keras.Input((32, 32, 128)), layers.DepthwiseConv2D(3, padding="same")]
    ),
}


def point() -> keras.Layer:
    return layers.Conv2D(32, 1, activation="relu")


def behind_an_entry(*following: keras.Layer, size: int = 32) -> keras.Model:
    """Behind what begins a cluster of sparse convolutions, and a convolution for it."""
    first = layers.Conv2D(32, 3, strides=2, activation="relu")
    entry = [keras.Input((size, size, 3)), layers.ZeroPadding2D(1), first, point()]
    model = keras.Sequential([*entry, *following])
    for layer in model.layers:
        if getattr(layer, "kernel_size", None) == (1, 1):
            in_blocks(layer, 0.9, (1, 1))
    return model


def classifier() -> list[keras.Layer]:
    return [layers.GlobalAveragePooling2D(), layers.Dense(10)]


def with_a_second_output() -> keras.Model:
    model = behind_an_entry(*classifier())
    branch = layers.Conv2D(16, 1)
    outputs = [*model.outputs, branch(model.layers[-3].output)]
    in_blocks(branch, 0.9, (1, 1))
    return keras.Model(model.inputs, outputs)


def depthwise(padding: str) -> keras.Layer:
    return layers.DepthwiseConv2D(3, strides=2, padding=padding)


def mean() -> keras.Layer:
    return layers.GlobalAveragePooling2D(keepdims=True)
