"""Networks that are the same in Keras 3 and in tf_keras: each is made of the module it is given."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

Keras = Any
"""The module ``keras`` or ``tf_keras``."""


@dataclass(frozen=True)
class Architecture:
    """A network, its inputs' shape and the batch it is trained on."""

    build: Callable[..., Any]
    input_shape: tuple[int, ...]
    batch: int


def dense_network(
    keras: Keras, regularizer: Any = None, *, inputs: int, hidden: tuple[int, int]
) -> Any:
    """Two hidden layers of ReLU units and a softmax."""
    dense = _dense(keras, regularizer)
    given = x = keras.Input((inputs,))
    for units in hidden:
        x = dense(units, activation="relu")(x)
    return keras.Model(given, dense(10, activation="softmax")(x))


def lenet_5_caffe(keras: Keras, regularizer: Any = None) -> Any:
    """431,080 parameters."""
    conv, dense = _conv(keras, regularizer), _dense(keras, regularizer)
    inputs = x = keras.Input((28, 28, 1))
    for filters in (20, 50):
        x = conv(filters, 5)(x)
        x = keras.layers.MaxPooling2D(2)(x)
    x = dense(500, activation="relu")(keras.layers.Flatten()(x))
    return keras.Model(inputs, dense(10, activation="softmax")(x))


def vgg_9(keras: Keras, regularizer: Any = None) -> Any:
    """Eight convolutions and a dense layer on 32x32 images; 4.7 million parameters."""
    conv, dense = _conv(keras, regularizer), _dense(keras, regularizer)
    inputs = x = keras.Input((32, 32, 3))
    for filters in (64, 128, 256, 512):
        for _ in range(2):
            x = conv(filters, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, dense(10, activation="softmax")(x))


def resnet_8(keras: Keras, regularizer: Any = None, *, side: int = 32) -> Any:
    """He et al.'s CIFAR-10 network with one block in each of three stages; 78,714 parameters."""
    conv, dense = _conv(keras, regularizer), _dense(keras, regularizer)

    def normalized(filters: int, size: int, strides: int, x: Any) -> Any:
        x = conv(filters, size, strides=strides, padding="same", use_bias=False)(x)
        return keras.layers.BatchNormalization()(x)

    inputs = keras.Input((side, side, 3))
    x = keras.layers.ReLU()(normalized(16, 3, 1, inputs))
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        past = x if strides == 1 else normalized(filters, 1, strides, x)
        x = keras.layers.ReLU()(normalized(filters, 3, strides, x))
        x = normalized(filters, 3, 1, x)
        x = keras.layers.ReLU()(keras.layers.Add()([x, past]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, dense(10, activation="softmax")(x))


def attention(keras: Keras, regularizer: Any = None, *, width: int, blocks: int) -> Any:
    """Blocks of one-headed attention and two dense layers on sequences, as in a transformer."""
    dense, norm = _dense(keras, regularizer), keras.layers.LayerNormalization
    inputs = keras.Input((32, width))
    x = inputs
    for _ in range(blocks):
        seen = norm()(x)
        query, key, value = (dense(width)(seen) for _ in range(3))
        x = keras.layers.Add()([x, dense(width)(keras.layers.Attention()([query, value, key]))])
        inner = dense(4 * width, activation="relu")(norm()(x))
        x = keras.layers.Add()([x, dense(width)(inner)])
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, dense(10, activation="softmax")(x))


_LENET = partial(dense_network, inputs=784, hidden=(300, 100))
_HALVED_RESNET = partial(resnet_8, side=16)
_WIDE = partial(dense_network, inputs=1024, hidden=(4096, 4096))
_SMALL_ATTENTION = partial(attention, width=64, blocks=2)
_LARGE_ATTENTION = partial(attention, width=512, blocks=3)

ARCHITECTURES = {
    "lenet_300_100": Architecture(_LENET, (784,), 100),
    "wide_dense": Architecture(_WIDE, (1024,), 100),
    "lenet_5_caffe": Architecture(lenet_5_caffe, (28, 28, 1), 100),
    "resnet_8": Architecture(resnet_8, (32, 32, 3), 100),
    "resnet_8_halved": Architecture(_HALVED_RESNET, (16, 16, 3), 50),
    "vgg_9": Architecture(vgg_9, (32, 32, 3), 16),
    "attention_64": Architecture(_SMALL_ATTENTION, (32, 64), 32),
    "attention_512": Architecture(_LARGE_ATTENTION, (32, 512), 8),
}


def _dense(keras: Keras, regularizer: Any) -> Callable[..., Any]:
    return lambda *args, **how: keras.layers.Dense(*args, kernel_regularizer=regularizer, **how)


def _conv(keras: Keras, regularizer: Any) -> Callable[..., Any]:
    return lambda *args, **how: keras.layers.Conv2D(*args, kernel_regularizer=regularizer, **how)
