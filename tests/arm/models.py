"""The networks that are taken to the emulated processor."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from keras_l0 import prune
from keras_l0.experiments.convolutional import mobile_stack, resnet_20
from keras_l0.experiments.networks import (
    attention_classifier,
    lenet_5_caffe,
    lenet_300_100,
    lstm_classifier,
)

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
    """A stack of whose 1x1 convolutions 90 % are zeros.

    ``outputs_together`` is how many neighbours among the outputs have theirs at the same inputs.
    """
    model = mobile_stack((size, size, 3), padding=padding, widths=widths)
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D) and layer.kernel_size == (1, 1):
            in_blocks(layer, 0.9, (1, outputs_together))
    return model


SMALL = ((32, 1), (64, 2), (64, 1))


def layerwise(model: keras.Model) -> keras.Model:
    """With 90 % of each kernel zeros."""
    prune(model, 0.9, method="layerwise")
    return model


def telling(model: keras.Model) -> keras.Model:
    """An untrained classifier whose probabilities differ from input to input."""
    x = np.random.default_rng(0).normal(size=(32, *model.input_shape[1:])).astype(np.float32)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    model(x, training=True)
    top = model.layers[-1]
    logits = keras.Model(model.inputs, top.input)([x]) @ top.kernel
    scale = 0.5 / keras.ops.max(keras.ops.std(logits, axis=0))
    top.kernel.assign(top.kernel * scale)
    top.bias.assign(-keras.ops.mean(logits, axis=0) * scale)
    return model


NETWORKS: dict[str, Build] = {
    "LeNet-300-100 at 96x": lambda: compressed(lenet_300_100(), 96),
    "LeNet-5-Caffe at 359x": lambda: compressed(lenet_5_caffe(), 359),
    "fully connected in 4x1 blocks": fully_connected_in_blocks,
    "MobileNet-like, explicit padding": lambda: telling(mobile(SMALL)),
    "MobileNet-like, SAME padding": lambda: telling(mobile(SMALL, padding="same")),
    "ResNet-20": lambda: telling(layerwise(resnet_20(filters=4))),
    "LSTM": lambda: telling(layerwise(lstm_classifier((8, 8), 5, units=48))),
    "LSTM, unrolled": lambda: telling(layerwise(lstm_classifier((8, 8), 5, units=48, unroll=True))),
    "attention": lambda: telling(layerwise(attention_classifier((10, 32), 5))),
}


def fully_connected(sparsity: float, block: int = 1) -> keras.Model:
    model = keras.Sequential([keras.Input((512,)), layers.Dense(1024)])
    in_blocks(model.layers[0], sparsity, (block, 1))
    return model


ONE_LAYER: dict[str, Build] = {
    "dense, 90 % zeros": lambda: fully_connected(0.9),
    "dense, 98 % zeros": lambda: fully_connected(0.98),
    "dense, 90 % in blocks of 4": lambda: fully_connected(0.9, 4),
    "dense, 90 % in blocks of 16": lambda: fully_connected(0.9, 16),
    "convolution": lambda: layerwise(
        keras.Sequential([keras.Input((16, 16, 64)), layers.Conv2D(64, 3, padding="same")])
    ),
    "1x1 convolution over few channels": lambda: layerwise(
        keras.Sequential([keras.Input((16, 16, 4)), layers.Conv2D(512, 1)])
    ),
    "depthwise": lambda: layerwise(
        keras.Sequential([keras.Input((32, 32, 128)), layers.DepthwiseConv2D(3, padding="same")])
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
