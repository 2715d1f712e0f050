"""The paper's networks have the paper's sizes."""

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from keras_l0.experiments.convolutional import mobile_stack, resnet_20, resnet_50, vgg_16
from keras_l0.experiments.networks import (
    attention_classifier,
    lenet_5_caffe,
    lenet_300_100,
    lstm_classifier,
)
from keras_l0.pruning.targets import find_targets


def shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    return {layer.name: tuple(layer.kernel.shape) for layer in model.layers if layer.weights}


def test_lenet_300_100_has_the_papers_parameters() -> None:
    model = lenet_300_100()
    assert model.count_params() == 266_610
    assert shapes(model) == {"hidden_1": (784, 300), "hidden_2": (300, 100), "output": (100, 10)}


def test_lenet_5_caffe_has_the_papers_parameters() -> None:
    model = lenet_5_caffe()
    assert model.count_params() == 431_080
    assert shapes(model) == {
        "conv_1": (5, 5, 1, 20),
        "conv_2": (5, 5, 20, 50),
        "hidden": (800, 500),
        "output": (500, 10),
    }


def test_lenet_5_caffe_has_its_only_relu_behind_the_dense_layer() -> None:
    activations = {
        layer.name: layer.activation.__name__ for layer in lenet_5_caffe().layers if layer.weights
    }
    assert activations == {
        "conv_1": "linear",
        "conv_2": "linear",
        "hidden": "relu",
        "output": "softmax",
    }


def test_lenet_300_100_has_relu_in_every_hidden_layer() -> None:
    activations = [layer.activation.__name__ for layer in lenet_300_100(hidden=(5, 4, 3)).layers]
    assert activations == ["relu", "relu", "relu", "softmax"]


def test_images_are_flattened_in_front_of_the_dense_layers() -> None:
    model = lenet_300_100((8, 8, 1), classes=3, hidden=(5,))
    assert isinstance(model.layers[0], keras.layers.Flatten)
    assert shapes(model) == {"hidden_1": (64, 5), "output": (5, 3)}
    assert model.output_shape == (None, 3)


def test_resnet_20_has_the_papers_parameters() -> None:
    """About 274 thousand in 22 layers, the shortcuts' two among them."""
    model = resnet_20()
    assert model.count_params() == 274_442
    kernels = [layer for layer in model.layers if hasattr(layer, "kernel")]
    assert len(kernels) == 22
    assert sum(int(np.prod(layer.kernel.shape)) for layer in kernels) == 270_896


def test_a_mobile_stack_pads_to_the_same_effect_in_both_ways() -> None:
    explicit, same = mobile_stack((32, 32, 3)), mobile_stack((32, 32, 3), padding="same")
    same.set_weights(explicit.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    outputs = [model.predict(x, verbose=0) for model in (explicit, same)]
    np.testing.assert_allclose(*outputs, atol=1e-6)
    names = [type(layer).__name__ for layer in same.layers]
    assert names.count("ZeroPadding2D") == 3
    assert names.count("DepthwiseConv2D") == 9


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (lenet_300_100, (64,)),
        (lenet_5_caffe, (16, 16, 2)),
        (resnet_20, (12, 12, 2)),
        (mobile_stack, (16, 16, 3)),
        (lstm_classifier, (5, 3)),
        (attention_classifier, (5, 3)),
    ],
)
def test_outputs_are_probabilities(
    network: Callable[..., keras.Model], shape: tuple[int, ...]
) -> None:
    outputs = network(shape, classes=3).predict(np.ones((2, *shape), np.float32), verbose=0)
    assert outputs.shape == (2, 3)
    np.testing.assert_allclose(outputs.sum(axis=1), 1.0, atol=1e-5)


def test_outputs_are_float32_under_mixed_precision() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = lenet_300_100((4,), hidden=(3,))
    assert [layer.compute_dtype for layer in model.layers] == ["bfloat16", "float32"]


@pytest.mark.parametrize(
    "network",
    [
        lenet_300_100,
        lenet_5_caffe,
        resnet_20,
        mobile_stack,
        lstm_classifier,
        attention_classifier,
    ],
)
def test_the_regularizer_reaches_every_kernel_and_no_other_weight(
    network: Callable[..., keras.Model],
) -> None:
    model = network(kernel_regularizer=keras.regularizers.L1(0.1))
    penalized = {weight.path for weight in model.weights if weight.regularizer is not None}
    assert penalized == {weight.path for weight in find_targets(model).weights}


def test_numpys_integers_are_integers() -> None:
    assert lenet_300_100(np.array([4]), classes=np.int64(2)).input_shape == (None, 4)


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        (
            lenet_300_100,
            {"input_shape": (28, None)},
            "Invalid value for argument `input_shape`. Expected positive integers, one or more. "
            "Received: input_shape=(28, None)",
        ),
        (
            lenet_300_100,
            {"input_shape": ()},
            "Invalid value for argument `input_shape`. Expected positive integers, one or more. "
            "Received: input_shape=()",
        ),
        (
            lenet_300_100,
            {"classes": 0},
            "Invalid value for argument `classes`. Expected a positive integer. "
            "Received: classes=0",
        ),
        (
            lenet_300_100,
            {"hidden": (300, 1.5)},
            "Invalid value for argument `hidden`. Expected positive integers. "
            "Received: hidden=(300, 1.5)",
        ),
        (
            lenet_5_caffe,
            {"input_shape": (28, 15, 1)},
            "Invalid value for argument `input_shape`. Expected (height, width, channels) of "
            "(16, 16, 1) or more. Received: input_shape=(28, 15, 1)",
        ),
        (
            lenet_5_caffe,
            {"classes": True},
            "Invalid value for argument `classes`. Expected a positive integer. "
            "Received: classes=True",
        ),
        (
            resnet_20,
            {"input_shape": (32, 32)},
            "Invalid value for argument `input_shape`. Expected 3 positive integers. "
            "Received: input_shape=(32, 32)",
        ),
        (
            mobile_stack,
            {"padding": "valid"},
            'Invalid value for argument `padding`. Expected "explicit" or "same". '
            "Received: padding='valid'",
        ),
        (
            mobile_stack,
            {"widths": [(64, 0)]},
            "Invalid value for argument `widths`. Expected a positive integer. "
            "Received: widths=[64, 0]",
        ),
        (
            lstm_classifier,
            {"units": 1.5},
            "Invalid value for argument `units`. Expected a positive integer. Received: units=1.5",
        ),
        (
            attention_classifier,
            {"heads": 3},
            "Invalid value for argument `width`. Expected a multiple of 3 heads. "
            "Received: width=64",
        ),
    ],
)
def test_a_bad_argument_is_named(
    network: Callable[..., keras.Model], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        network(**arguments)


def test_vgg_16_has_about_fifteen_million_parameters() -> None:
    model = vgg_16()
    assert model.count_params() == 15_001_418
    assert find_targets(model).size == 14_977_728
    assert vgg_16(width=0.01).count_params() > 0
    with pytest.raises(ValueError, match=r"argument `width`\. Expected a number > 0"):
        vgg_16(width=0)
    with pytest.raises(ValueError, match="argument `input_shape`"):
        vgg_16((28, 28, 1))


def test_resnet_50_has_its_parameters_and_starts_he_normal() -> None:
    penalty = keras.regularizers.L2(1e-4)
    model = resnet_50((8, 8, 3), 100, penalty, upsampling=4)
    assert model.count_params() == 24_138_980
    assert model.output_shape == (None, 100)
    (kernel,) = (layer.kernel for layer in model.layers if layer.name == "conv2_block1_2_conv")
    assert keras.ops.convert_to_numpy(kernel).std() == pytest.approx(
        (2 / (9 * 64)) ** 0.5, rel=0.02
    )
    assert kernel.regularizer is penalty
