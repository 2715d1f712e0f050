"""The LeNets, and small networks for sequences, ready to be regularized and trained."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_l0.errors import invalid_argument
from keras_l0.experiments.parts import Penalty, check_figures, positive, softmax


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
    if not positive(input_shape) or len(input_shape) == 0:
        raise invalid_argument("input_shape", "positive integers, one or more", input_shape)
    if not positive([classes]):
        raise invalid_argument("classes", "a positive integer", classes)
    if not positive(hidden):
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
    model.add(softmax(classes, kernel_regularizer))
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
    if not positive(input_shape) or len(input_shape) != 3 or min(input_shape[:2]) < 16:
        raise invalid_argument(
            "input_shape", "(height, width, channels) of (16, 16, 1) or more", input_shape
        )
    if not positive([classes]):
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
    model.add(softmax(classes, kernel_regularizer))
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
    check_figures(input_shape, 2, classes, units=units)
    return keras.Sequential(
        [
            keras.Input(tuple(map(int, input_shape))),
            layers.LSTM(
                int(units),
                unroll=unroll,
                kernel_regularizer=kernel_regularizer,
                recurrent_regularizer=kernel_regularizer,
            ),
            softmax(classes, kernel_regularizer),
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
    check_figures(input_shape, 2, classes, heads=heads, width=width)
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
    return keras.Model(inputs, softmax(classes, kernel_regularizer)(x), name="attention_classifier")
