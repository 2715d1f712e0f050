"""Networks of the kinds that people deploy, small enough to train in minutes, and their data.

Each is trained on a part of its data set; another part, never seen in training, is what scores are
chosen by. Test data are not read here.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
from architectures import dense_network, lenet_5_caffe
from numpy.typing import NDArray

from keras_l0.experiments.datasets import fit_to, load, preprocess

layers = keras.layers

Split = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Network:
    """A network, its data and how it is trained with Adam, whose rate falls along a cosine.

    Attributes:
        build: makes it; takes a kernel regularizer or ``None``.
        data: gives training and validation examples.
        epochs: of the first training.
        rate: Adam's learning rate at the start of that.
        batch: examples a step.
        finetune: epochs of ramp and fine-tuning after it.
    """

    build: Callable[[Any], keras.Model]
    data: Callable[[], tuple[Split, Split]]
    epochs: int
    rate: float
    batch: int
    finetune: int


def resnet_20(regularizer: Any = None) -> keras.Model:
    """He et al.'s network for CIFAR-10, of images at half their size; 0.27 million parameters."""
    inputs = keras.Input((16, 16, 3))
    x = layers.ReLU()(_normalized(inputs, 16, 3, 1, regularizer))
    for filters in (16, 32, 64):
        for block in range(3):
            strides = 2 if block == 0 and filters > 16 else 1
            past = x if strides == 1 else _normalized(x, filters, 1, strides, regularizer)
            x = layers.ReLU()(_normalized(x, filters, 3, strides, regularizer))
            x = _normalized(x, filters, 3, 1, regularizer)
            x = layers.ReLU()(layers.Add()([x, past]))
    return _classifier(inputs, x, regularizer)


def ds_cnn(regularizer: Any = None) -> keras.Model:
    """Depthwise-separable convolutions on spectrograms (Zhang et al., 2017); 24,202 parameters."""
    inputs = keras.Input((49, 32, 1))
    # 456 steps of training are few: moving averages over 10 steps follow them, those over 100 not.
    x = layers.ReLU()(_normalized(inputs, 64, (10, 4), 2, regularizer, momentum=0.9))
    for _ in range(4):
        x = _separable(x, 64, 1, regularizer, momentum=0.9)
    return _classifier(inputs, x, regularizer)


def mobilenet_like(regularizer: Any = None) -> keras.Model:
    """MobileNet's layers (Howard et al., 2017), fewer and narrower; 40,000 parameters."""
    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(_normalized(inputs, 16, 3, 2, regularizer))
    for filters, strides in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
        x = _separable(x, filters, strides, regularizer)
    return _classifier(inputs, x, regularizer)


def xception_like(regularizer: Any = None) -> keras.Model:
    """Separable convolutions beside residual ones, as in Xception (Chollet, 2017); 56,000."""
    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(_normalized(inputs, 16, 3, 2, regularizer))
    x = layers.ReLU()(_normalized(x, 16, 3, 1, regularizer))
    for filters in (32, 64, 128):
        past = _normalized(x, filters, 1, 2, regularizer)
        for activation in (True, False):
            x = layers.SeparableConv2D(
                filters,
                3,
                padding="same",
                use_bias=False,
                depthwise_regularizer=regularizer,
                pointwise_regularizer=regularizer,
            )(x)
            x = layers.BatchNormalization()(x)
            x = layers.ReLU()(x) if activation else x
        x = layers.Add()([layers.MaxPooling2D(3, 2, padding="same")(x), past])
    return _classifier(inputs, x, regularizer)


def spectrograms(audio: NDArray[Any]) -> NDArray[np.float32]:
    """Logarithmic mel spectrograms of one second of sound at 8 kHz.

    Args:
        audio: int16 of shape (n, 8000).

    Returns:
        float32 of shape (n, 49, 32, 1): frames of 32 ms every 20 ms; 32 triangular bands, equally
        wide on the mel scale, from 60 to 4000 Hz.
    """
    length, step, bands = 256, 160, 32
    starts = range(0, audio.shape[1] - length, step)
    frames = np.stack([audio[:, start : start + length] for start in starts], axis=1)
    frames = frames.astype(np.float32) / 2**15 * np.hanning(length).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=-1)) ** 2
    mel = np.linspace(*(2595 * np.log10(1 + f / 700) for f in (60, 4000)), bands + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    frequencies = np.fft.rfftfreq(length, 1 / 8000)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequencies - low) / (middle - low)
    falling = (high - frequencies) / (high - middle)
    weights = np.maximum(0, np.minimum(rising, falling))
    return np.log(power @ weights + 1e-6)[..., None].astype(np.float32)


@cache
def spoken() -> tuple[Split, Split]:
    """Spoken digits, standardized: 2,400 to train on, 300 to validate on."""
    folders = os.environ.get("KERAS_L0_DATA", "").split(os.pathsep)
    paths = [path for folder in folders if (path := Path(folder) / "fsdd.npz").is_file()]
    if not paths:
        raise ValueError("Put the folder of fsdd.npz into the variable KERAS_L0_DATA.")
    with np.load(paths[0]) as arrays:
        x, y = spectrograms(arrays["x_train"]), arrays["y_train"].astype(np.int64)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = ((x - x.mean()) / x.std())[order], y[order]
    return (x[:2400], y[:2400]), (x[2400:], y[2400:])


def _images(name: str, shape: tuple[int, ...], train: int) -> Callable[[], tuple[Split, Split]]:
    """The first images of a data set to train on, the last 2,000 of its training images to look."""

    @cache
    def split() -> tuple[Split, Split]:
        data = preprocess(load(name))
        x, y = data.x_train, data.y_train.ravel().astype(np.int64)
        if x.shape[1:3] == (32, 32) and shape[0] == 16:  # the mean of each 2x2 pixels
            x = x.reshape(len(x), 16, 2, 16, 2, -1).mean((2, 4))
        x = fit_to(x, shape)
        return (x[:train], y[:train]), (x[-2000:], y[-2000:])

    return split


def _normalized(
    x: Any, filters: int, size: Any, strides: int, regularizer: Any, momentum: float = 0.99
) -> Any:
    convolution = layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_regularizer=regularizer,
    )
    return layers.BatchNormalization(momentum=momentum)(convolution(x))


def _separable(x: Any, filters: int, strides: int, regularizer: Any, momentum: float = 0.99) -> Any:
    depthwise = layers.DepthwiseConv2D(
        3, strides=strides, padding="same", use_bias=False, depthwise_regularizer=regularizer
    )
    x = layers.ReLU()(layers.BatchNormalization(momentum=momentum)(depthwise(x)))
    return layers.ReLU()(_normalized(x, filters, 1, 1, regularizer, momentum))


def _classifier(inputs: Any, x: Any, regularizer: Any) -> keras.Model:
    dense = layers.Dense(10, activation="softmax", kernel_regularizer=regularizer)
    return keras.Model(inputs, dense(layers.GlobalAveragePooling2D()(x)))


def _lenet_300_100(regularizer: Any = None) -> keras.Model:
    return dense_network(keras, regularizer, inputs=784, hidden=(300, 100))


def _lenet_5_caffe(regularizer: Any = None) -> keras.Model:
    return lenet_5_caffe(keras, regularizer)


_CIFAR = _images("cifar10", (32, 32, 3), 10_000)
_HALVED = _images("cifar10", (16, 16, 3), 5_000)
_MNIST = _images("mnist", (784,), 20_000)
_SQUARE_MNIST = _images("mnist", (28, 28, 1), 20_000)

NETWORKS = {
    "lenet_300_100": Network(_lenet_300_100, _MNIST, 8, 1e-3, 100, 6),
    "lenet_5_caffe": Network(_lenet_5_caffe, _SQUARE_MNIST, 4, 1e-3, 100, 6),
    "ds_cnn": Network(ds_cnn, spoken, 12, 2e-3, 64, 8),
    "mobilenet_like": Network(mobilenet_like, _CIFAR, 10, 2e-3, 64, 6),
    "xception_like": Network(xception_like, _CIFAR, 8, 2e-3, 64, 10),
    "resnet_20": Network(resnet_20, _HALVED, 8, 2e-3, 64, 10),
}
"""Each as it is trained for the comparison of scores."""
