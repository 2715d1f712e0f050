"""Convolutional networks for small images, ready to be regularized and trained."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
from keras import layers

from keras_l0.errors import invalid_argument, is_number, one_of
from keras_l0.experiments.parts import Penalty, check_figures, softmax

Tensor: TypeAlias = Any


def resnet_20(
    input_shape: Sequence[int] = (32, 32, 3),
    classes: int = 10,
    kernel_regularizer: Penalty = None,
    filters: int = 16,
) -> keras.Model:
    """ResNet-20 for small images: three stages of three residual blocks.

    Each block has two 3×3 convolutions with batch normalization; the first one of the second
    and of the third stage halves the image and doubles the filters, its shortcut a 1×1
    convolution. On 32×32 color images and 10 classes it has 274,442 parameters, 270,896 of them
    weights.

    Args:
        input_shape: height, width and channels, which come last.
        classes: the number of classes, 1 or more.
        kernel_regularizer: the penalty on each layer's kernel.
        filters: of the first stage.

    Returns:
        The model, built and not compiled. Its outputs are probabilities.

    Raises:
        ValueError: if a figure is not a positive integer.

    Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition",
    2016, Section 4.2, with the projection shortcuts of its Section 3.3.

    Example:

    >>> resnet_20().count_params()
    274442
    """
    check_figures(input_shape, 3, classes, filters=filters)

    def convolution(x: Tensor, filters: int, size: int = 3, strides: int = 1) -> Tensor:
        return layers.Conv2D(
            filters,
            size,
            strides=strides,
            padding="same",
            data_format="channels_last",
            kernel_initializer="he_normal",
            kernel_regularizer=kernel_regularizer,
        )(x)

    def normalized(x: Tensor) -> Tensor:
        return layers.BatchNormalization(axis=-1)(x)

    inputs = keras.Input(tuple(map(int, input_shape)))
    x = layers.ReLU()(normalized(convolution(inputs, filters)))
    for stage in range(3):
        width = filters * 2**stage
        for block in range(3):
            strides = 2 if stage and not block else 1
            y = layers.ReLU()(normalized(convolution(x, width, strides=strides)))
            y = normalized(convolution(y, width))
            if strides > 1:
                x = convolution(x, width, 1, strides)
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D(data_format="channels_last")(x)
    return keras.Model(inputs, softmax(classes, kernel_regularizer)(x), name="resnet_20")


def mobile_stack(
    input_shape: Sequence[int] = (64, 64, 3),
    classes: int = 10,
    kernel_regularizer: Penalty = None,
    padding: str = "explicit",
    widths: Sequence[tuple[int, int]] = ((64, 1), (128, 2), (256, 1), (512, 2), *((512, 1),) * 5),
) -> keras.Sequential:
    """A stack as MobileNet's: 3×3 depthwise convolutions and 1×1 convolutions in turns.

    A 3×3 convolution of 32 filters and stride 2 comes first, a global average and a softmax
    last; each convolution is followed by batch normalization and ReLU6. What pads is a
    ``ZeroPadding2D`` of 1 before a convolution without padding, as XNNPACK's sparse kernels
    want it.

    Args:
        input_shape: height, width and channels, which come last.
        classes: the number of classes, 1 or more.
        kernel_regularizer: the penalty on each layer's kernel.
        padding: ``"explicit"``, or ``"same"`` for depthwise convolutions of stride 1 that pad by
            themselves, to the same effect.
        widths: for each pair of convolutions the filters of the 1×1 one and the stride of the
            depthwise one.

    Returns:
        The model, built and not compiled. Its outputs are probabilities.

    Raises:
        ValueError: if ``padding`` is another, or a figure is not a positive integer.

    Source: A. G. Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile
    Vision Applications", 2017, Section 3.

    Example:

    >>> mobile_stack().count_params()
    1544522
    """
    check_figures(input_shape, 3, classes, widths=[size for pair in widths for size in pair])
    if padding not in ("explicit", "same"):
        raise invalid_argument("padding", one_of(("explicit", "same")), padding)
    model = keras.Sequential([keras.Input(tuple(map(int, input_shape)))], name="mobile_stack")

    def add(convolution: keras.Layer, pad: bool = False) -> None:
        if pad:
            model.add(layers.ZeroPadding2D(1, data_format="channels_last"))
        model.add(convolution)
        model.add(layers.BatchNormalization(axis=-1))
        model.add(layers.ReLU(6))

    settings: dict[str, Any] = {"use_bias": False, "data_format": "channels_last"}
    of_kernel = settings | {"kernel_regularizer": kernel_regularizer}
    add(layers.Conv2D(32, 3, strides=2, **of_kernel), pad=True)
    for filters, strides in widths:
        explicit = padding == "explicit" or strides > 1
        depthwise = layers.DepthwiseConv2D(
            3,
            strides=strides,
            padding="valid" if explicit else "same",
            depthwise_regularizer=kernel_regularizer,
            **settings,
        )
        add(depthwise, pad=explicit)
        add(layers.Conv2D(filters, 1, **of_kernel))
    model.add(layers.GlobalAveragePooling2D(data_format="channels_last"))
    model.add(softmax(classes, kernel_regularizer))
    return model


def vgg_16(
    input_shape: Sequence[int] = (32, 32, 3),
    classes: int = 10,
    kernel_regularizer: Penalty = None,
    width: float = 1.0,
) -> keras.Sequential:
    """VGG-16 for small images: thirteen 3×3 convolutions, batch normalization, two dense layers.

    Of 64, 128, 256, 512 and 512 filters, halved in size by max pooling after each stage. On 32×32
    color images and 10 classes it has 15,001,418 parameters, 14,977,728 of them weights.

    Args:
        input_shape: height and width of 32 or more, and channels, which come last.
        classes: the number of classes, 1 or more.
        kernel_regularizer: the penalty on each layer's kernel.
        width: a factor for the number of filters and units, > 0.

    Returns:
        The model, built and not compiled. Its outputs are probabilities.

    Raises:
        ValueError: if a figure is not positive, or the images are too small.

    Source: K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition", 2015; with one hidden dense layer of 512 and batch normalization, as the pruning
    literature trains it on CIFAR.

    Example:

    >>> vgg_16(width=0.25).count_params()
    943322
    """
    check_figures(input_shape, 3, classes)
    if min(input_shape[:2]) < 32:
        raise invalid_argument("input_shape", "(32, 32, channels) or more", input_shape)
    if not is_number(width) or width <= 0:
        raise invalid_argument("width", "a number > 0", width)
    model = keras.Sequential([keras.Input(tuple(map(int, input_shape)))], name="vgg_16")

    def add(layer: keras.Layer) -> None:
        model.add(layer)
        model.add(layers.BatchNormalization(axis=-1))
        model.add(layers.ReLU())

    for filters, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            add(
                layers.Conv2D(
                    max(1, round(width * filters)),
                    3,
                    padding="same",
                    data_format="channels_last",
                    kernel_initializer="he_normal",
                    kernel_regularizer=kernel_regularizer,
                )
            )
        model.add(layers.MaxPooling2D(data_format="channels_last"))
    model.add(layers.Flatten(data_format="channels_last"))
    units = max(1, round(width * 512))
    add(layers.Dense(units, kernel_regularizer=kernel_regularizer))
    model.add(softmax(classes, kernel_regularizer))
    return model


def resnet_50(
    input_shape: Sequence[int] = (32, 32, 3),
    classes: int = 100,
    kernel_regularizer: Penalty = None,
    upsampling: int = 7,
) -> keras.Model:
    """ResNet-50 on small images made larger, from scratch, as the paper's authors train it.

    Bilinear upsampling, ``keras.applications``' ResNet-50 without its top, global average
    pooling, dropout of 0.25, a dense layer of 256 with batch normalization, and the softmax. On
    32×32 color images and 100 classes it has 24,138,980 parameters.

    Args:
        input_shape: height, width and channels, which come last.
        classes: the number of classes, 1 or more.
        kernel_regularizer: the penalty on each layer's kernel.
        upsampling: how many times the images are made larger, to 32 pixels or more.

    Returns:
        The model, built and not compiled. Its outputs are probabilities.

    Raises:
        ValueError: if a figure is not a positive integer.

    Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", 2016;
    what stands before and behind it, and its He normal weights, are in the authors' code.

    Example:

    >>> resnet_50(upsampling=1).count_params()
    24138980
    """
    check_figures(input_shape, 3, classes, upsampling=upsampling)
    inputs = keras.Input(tuple(map(int, input_shape)))
    x = layers.UpSampling2D(upsampling, "channels_last", "bilinear")(inputs)
    whole = keras.applications.ResNet50(include_top=False, weights=None, input_tensor=x)

    def he_normal(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if "kernel_initializer" in config:
            config["kernel_initializer"] = "he_normal"
            config["kernel_regularizer"] = kernel_regularizer
        return type(layer).from_config(config)

    body = keras.models.clone_model(whole, clone_function=he_normal)
    x = layers.GlobalAveragePooling2D(data_format="channels_last")(body.output)
    x = layers.Dropout(0.25)(x)
    x = layers.Dense(256, kernel_initializer="he_normal", kernel_regularizer=kernel_regularizer)(x)
    x = layers.ReLU()(layers.BatchNormalization(axis=-1)(x))
    return keras.Model(body.inputs, softmax(classes, kernel_regularizer)(x), name="resnet_50")
