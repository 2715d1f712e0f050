"""Networks that give each pixel of an image a class."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
from keras import layers

from keras_l0.attach import regularize
from keras_l0.errors import invalid_argument, is_number
from keras_l0.experiments.parts import Penalty, check_figures, shorten_memory

Tensor: TypeAlias = Any


def u_net(
    input_shape: Sequence[int] = (64, 64, 1),
    classes: int = 11,
    kernel_regularizer: Penalty = None,
    filters: int = 16,
    depth: int = 3,
) -> keras.Model:
    """U-Net: convolutions down to small maps and up again, each size's maps handed across.

    Each size has two 3×3 convolutions with batch normalization; of the paper's it differs in
    padding, so that the output has the input's size, in normalizing, and in its width.

    Args:
        input_shape: height, width and channels, which come last.
        classes: the number of classes, 1 or more.
        kernel_regularizer: the penalty on each layer's kernel.
        filters: at the full size; each smaller size has twice as many.
        depth: how often the size is halved, which height and width must allow.

    Returns:
        The model, built and not compiled. Its outputs are probabilities at each pixel.

    Raises:
        ValueError: if a figure is not a positive integer, or a size cannot be halved so often.

    Source: O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical
    Image Segmentation", 2015.

    Example:

    >>> u_net().count_params()
    489291
    """
    check_figures(input_shape, 3, classes, filters=filters, depth=depth)
    _check_halving(input_shape, 2**depth)

    def block(x: Tensor, filters: int) -> Tensor:
        for _ in range(2):
            x = _convolution(x, filters, kernel_regularizer)
        return x

    inputs = keras.Input(tuple(map(int, input_shape)))
    x, across = inputs, []
    for level in range(depth):
        x = block(x, filters * 2**level)
        across.append(x)
        x = layers.MaxPooling2D(data_format="channels_last")(x)
    x = block(x, filters * 2**depth)
    for level in reversed(range(depth)):
        x = layers.UpSampling2D(data_format="channels_last")(x)
        x = layers.Concatenate()([across[level], x])
        x = block(x, filters * 2**level)
    return keras.Model(inputs, _pixels(x, classes, kernel_regularizer), name="u_net")


def mobile_segmenter(
    input_shape: Sequence[int] = (64, 64, 1),
    classes: int = 11,
    kernel_regularizer: Penalty = None,
    width: float = 1.0,
) -> keras.Model:
    """MobileNetV3-Small as an encoder, with a decoder that hands each size's maps across.

    The decoder goes up by factors of two from 1/16 of the size to the whole; on the way it joins
    the encoder's last maps of each size, and has a 3×3 depthwise and a 1×1 convolution there.

    Args:
        input_shape: height and width, multiples of 32, and channels, which come last.
        classes: the number of classes, 1 or more.
        kernel_regularizer: the penalty on each kernel.
        width: the encoder's α, > 0.

    Returns:
        The model, built and not compiled. Its outputs are probabilities at each pixel.

    Raises:
        ValueError: if a figure is out of its range.

    Source: A. Howard et al., "Searching for MobileNetV3", 2019, from ``keras.applications``; the
    decoder is ours.

    Example:

    >>> mobile_segmenter().count_params()
    284235
    """
    check_figures(input_shape, 3, classes)
    _check_halving(input_shape, 32)
    if not is_number(width) or not 0 < width < math.inf:
        raise invalid_argument("width", "a finite float > 0", width)
    encoder = shorten_memory(
        keras.applications.MobileNetV3Small(
            input_shape=tuple(map(int, input_shape)),
            alpha=width,
            include_top=False,
            weights=None,
            include_preprocessing=False,
        )
    )
    last = {
        layer.output.shape[1]: layer.output
        for layer in encoder.layers
        if len(layer.output.shape) == 4
    }
    smallest, *sizes = (int(input_shape[0]) // factor for factor in (16, 8, 4, 2))
    x = last[smallest]
    for size in sizes:
        x = layers.Concatenate()([_up(x), last[size]])
        x = _separable(x, 256 * smallest // size)
    x = _up(x)
    model = keras.Model(encoder.input, _pixels(x, classes, None), name="mobile_segmenter")
    if kernel_regularizer is not None:
        regularize(model, keras.regularizers.get(kernel_regularizer))
    return model


def _convolution(x: Tensor, filters: int, kernel_regularizer: Penalty, size: int = 3) -> Tensor:
    x = layers.Conv2D(
        filters,
        size,
        padding="same",
        data_format="channels_last",
        use_bias=False,
        kernel_initializer="he_normal",
        kernel_regularizer=kernel_regularizer,
    )(x)
    return layers.ReLU()(layers.BatchNormalization(axis=-1)(x))


def _up(x: Tensor) -> Tensor:
    return layers.UpSampling2D(data_format="channels_last", interpolation="bilinear")(x)


def _separable(x: Tensor, filters: int) -> Tensor:
    x = layers.DepthwiseConv2D(3, padding="same", data_format="channels_last", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(axis=-1)(x))
    return _convolution(x, filters, None, 1)


def _pixels(x: Tensor, classes: int, kernel_regularizer: Penalty) -> Tensor:
    """Probabilities at each pixel, in float32 under mixed precision."""
    return layers.Conv2D(
        int(classes),
        1,
        activation="softmax",
        data_format="channels_last",
        kernel_regularizer=kernel_regularizer,
        dtype="float32",
        name="output",
    )(x)


def _check_halving(input_shape: Sequence[int], factor: int) -> None:
    if any(size % factor for size in input_shape[:2]):
        raise invalid_argument(
            "input_shape", f"a height and a width that are multiples of {factor}", input_shape
        )
