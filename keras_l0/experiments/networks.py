"""The paper's networks, built and ready to be regularized and trained."""

from collections.abc import Sequence
from numbers import Integral

import keras
from keras import layers

from keras_l0.errors import invalid_argument


def lenet_300_100(
    input_shape: Sequence[int] = (784,),
    classes: int = 10,
    kernel_regularizer: keras.regularizers.Regularizer | str | None = None,
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
    kernel_regularizer: keras.regularizers.Regularizer | str | None = None,
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


def _softmax(
    classes: int, kernel_regularizer: keras.regularizers.Regularizer | str | None
) -> keras.Layer:
    # Probabilities stay in float32 under mixed precision, as Keras advises: float16 would
    # round the small ones to zero and the loss with them.
    return layers.Dense(
        int(classes),
        activation="softmax",
        kernel_regularizer=kernel_regularizer,
        dtype="float32",
        name="output",
    )


def _positive(sizes: Sequence[int]) -> bool:
    return all(
        isinstance(size, Integral) and not isinstance(size, bool) and size > 0 for size in sizes
    )
