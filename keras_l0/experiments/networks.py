"""The paper's networks, built and ready to be regularized and trained."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any, TypeAlias

import keras
from keras import layers

from keras_l0.errors import invalid_argument, one_of

Penalty: TypeAlias = keras.regularizers.Regularizer | str | None
Tensor: TypeAlias = Any


def lenet_300_100(
    input_shape: Sequence[int] = (784,),
    classes: int = 10,
    kernel_regularizer: Penalty = None,
    hidden: Sequence[int] = (300, 100),
) -> keras.Sequential:
    """LeNet-300-100: two hidden layers of ReLU units and a softmax.

    On 784 inputs and 10 classes it has 266,610 parameters, 266,200 of them weights. The
    layers are named ``hidden_1``, ``hidden_2`` and ``output``.

    Args:
        input_shape: an example's shape, without the batch; of rank 2 or more it is flattened.
        classes: the number of classes, 1 or more.
        kernel_regularizer: the penalty on each layer's kernel.
        hidden: the hidden layers' units.

    Returns:
        The model, built and not compiled. Its outputs are probabilities.

    Raises:
        ValueError: if a shape, ``classes`` or ``hidden`` is not made of positive integers.

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to
    Document Recognition", 1998, Section III.C.4.

    Example:

    >>> lenet_300_100().count_params()
    266610
    """
    if not _positive(input_shape) or len(input_shape) == 0:
        raise invalid_argument("input_shape", "positive integers, one or more", input_shape)
    if not _positive([classes]):
        raise invalid_argument("classes", "a positive integer", classes)
    if not _positive(hidden):
        raise invalid_argument("hidden", "positive integers", hidden)
    model = keras.Sequential([keras.Input(tuple(map(int, input_shape)))], name="lenet_300_100")
    if len(input_shape) > 1:
        model.add(layers.Flatten(name="flatten"))
    for place, units in enumerate(hidden, start=1):
        model.add(
            layers.Dense(
                int(units),
                activation="relu",
                kernel_regularizer=kernel_regularizer,
                name=f"hidden_{place}",
            )
        )
    model.add(_softmax(classes, kernel_regularizer))
    return model


def lenet_5_caffe(
    input_shape: Sequence[int] = (28, 28, 1),
    classes: int = 10,
    kernel_regularizer: Penalty = None,
) -> keras.Sequential:
    """LeNet-5 as Caffe has it, which the pruning literature calls LeNet-5-Caffe.

    20 and 50 filters of 5×5 without padding, each followed by max pooling of 2×2, then 500
    ReLU units and a softmax. As in Caffe's model the convolutions have no activation: the
    one ReLU follows the dense layer. On 28×28 gray images and 10 classes it has 431,080
    parameters, 430,500 of them weights. The layers with weights are named ``conv_1``,
    ``conv_2``, ``hidden`` and ``output``.

    Args:
        input_shape: height and width of 16 or more, then the channels; channels come last.
        classes: the number of classes, 1 or more.
        kernel_regularizer: the penalty on each layer's kernel.

    Returns:
        The model, built and not compiled. Its outputs are probabilities.

    Raises:
        ValueError: if the images are too small, or a figure is not a positive integer.

    Source: Caffe, ``examples/mnist/lenet.prototxt``.

    Example:

    >>> lenet_5_caffe().count_params()
    431080
    """
    if not _positive(input_shape) or len(input_shape) != 3 or min(input_shape[:2]) < 16:
        raise invalid_argument(
            "input_shape", "(height, width, channels) of (16, 16, 1) or more", input_shape
        )
    if not _positive([classes]):
        raise invalid_argument("classes", "a positive integer", classes)
    model = keras.Sequential([keras.Input(tuple(map(int, input_shape)))], name="lenet_5_caffe")
    for place, filters in enumerate((20, 50), start=1):
        model.add(
            layers.Conv2D(
                filters,
                5,
                padding="valid",
                data_format="channels_last",
                kernel_regularizer=kernel_regularizer,
                name=f"conv_{place}",
            )
        )
        model.add(layers.MaxPooling2D(2, data_format="channels_last", name=f"pool_{place}"))
    model.add(layers.Flatten(data_format="channels_last", name="flatten"))
    model.add(
        layers.Dense(500, activation="relu", kernel_regularizer=kernel_regularizer, name="hidden")
    )
    model.add(_softmax(classes, kernel_regularizer))
    return model


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
    _check(input_shape, 3, classes, filters=filters)

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
    return keras.Model(inputs, _softmax(classes, kernel_regularizer)(x), name="resnet_20")


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
    _check(input_shape, 3, classes, widths=[size for pair in widths for size in pair])
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
    model.add(_softmax(classes, kernel_regularizer))
    return model


def lstm_classifier(
    input_shape: Sequence[int] = (28, 28),
    classes: int = 10,
    kernel_regularizer: Penalty = None,
    units: int = 128,
    unroll: bool = False,
) -> keras.Sequential:
    """An LSTM over a sequence, its last state classified; over the rows of an image, say.

    Args:
        input_shape: steps, and values of each.
        classes: the number of classes, 1 or more.
        kernel_regularizer: the penalty on each layer's kernels, the recurrent one too.
        units: of the LSTM.
        unroll: whether the steps are written out, without a loop.

    Returns:
        The model, built and not compiled. Its outputs are probabilities.

    Raises:
        ValueError: if a figure is not a positive integer.

    Example:

    >>> lstm_classifier().count_params()
    81674
    """
    _check(input_shape, 2, classes, units=units)
    return keras.Sequential(
        [
            keras.Input(tuple(map(int, input_shape))),
            layers.LSTM(
                int(units),
                unroll=unroll,
                kernel_regularizer=kernel_regularizer,
                recurrent_regularizer=kernel_regularizer,
            ),
            _softmax(classes, kernel_regularizer),
        ],
        name="lstm_classifier",
    )


def attention_classifier(
    input_shape: Sequence[int] = (28, 28),
    classes: int = 10,
    kernel_regularizer: Penalty = None,
    heads: int = 4,
    width: int = 64,
) -> keras.Model:
    """One block of a transformer's encoder over a sequence, its average classified.

    Args:
        input_shape: steps, and values of each.
        classes: the number of classes, 1 or more.
        kernel_regularizer: the penalty on each layer's kernels.
        heads: of the attention.
        width: of each step inside; each head has a share of it.

    Returns:
        The model, built and not compiled. Its outputs are probabilities.

    Raises:
        ValueError: if a figure is not a positive integer, or ``width`` no multiple of ``heads``.

    Source: A. Vaswani et al., "Attention Is All You Need", 2017, Section 3.1.

    Example:

    >>> attention_classifier().count_params()
    52490
    """
    _check(input_shape, 2, classes, heads=heads, width=width)
    if width % heads:
        raise invalid_argument("width", f"a multiple of {heads} heads", width)

    def dense(units: int, activation: str | None = None) -> keras.Layer:
        return layers.Dense(int(units), activation, kernel_regularizer=kernel_regularizer)

    inputs = keras.Input(tuple(map(int, input_shape)))
    x = dense(width)(inputs)
    attention = layers.MultiHeadAttention(
        heads, width // heads, kernel_regularizer=kernel_regularizer
    )
    x = layers.LayerNormalization()(layers.Add()([x, attention(x, x)]))
    y = dense(width)(dense(4 * width, "relu")(x))
    x = layers.LayerNormalization()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(
        inputs, _softmax(classes, kernel_regularizer)(x), name="attention_classifier"
    )


def _softmax(classes: int, kernel_regularizer: Penalty) -> keras.Layer:
    # Probabilities stay in float32 under mixed precision, as Keras advises: float16 would
    # round the small ones to zero and the loss with them.
    return layers.Dense(
        int(classes),
        activation="softmax",
        kernel_regularizer=kernel_regularizer,
        dtype="float32",
        name="output",
    )


def _check(input_shape: Sequence[int], rank: int, classes: int, **figures: Any) -> None:
    if not _positive(input_shape) or len(input_shape) != rank:
        raise invalid_argument("input_shape", f"{rank} positive integers", input_shape)
    for name, value in {"classes": classes, **figures}.items():
        if not _positive(value if isinstance(value, list) else [value]):
            raise invalid_argument(name, "a positive integer", value)


def _positive(sizes: Sequence[int]) -> bool:
    return all(
        isinstance(size, Integral) and not isinstance(size, bool) and size > 0 for size in sizes
    )
