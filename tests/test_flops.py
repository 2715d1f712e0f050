"""Multiply-adds are counted as by hand, and as TensorFlow's profiler does."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from keras_l0 import prune, shrink, summarize
from keras_l0.experiments.convolutional import mobile_stack, resnet_20
from keras_l0.experiments.networks import lenet_5_caffe, lenet_300_100
from keras_l0.structure.flops import uses_of_weights

CASES: dict[str, tuple[Callable[[], Any], tuple[int, ...], int]] = {
    "dense": (lambda: layers.Dense(7), (5,), 5 * 7),
    "dense on a sequence": (lambda: layers.Dense(7), (4, 5), 4 * 5 * 7),
    "convolution": (lambda: layers.Conv2D(6, 3, strides=2), (9, 9, 4), 4 * 4 * 9 * 4 * 6),
    "padded": (lambda: layers.Conv2D(6, 3, padding="same"), (9, 9, 4), 81 * 9 * 4 * 6),
    "grouped": (lambda: layers.Conv2D(6, 3, groups=2), (9, 9, 4), 49 * 9 * 2 * 6),
    "depthwise": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (9, 9, 4), 49 * 9 * 4 * 2),
    "separable": (lambda: layers.SeparableConv2D(6, 3), (9, 9, 4), 49 * (9 * 4 + 4 * 6)),
    "transposed": (lambda: layers.Conv2DTranspose(6, 3), (5, 5, 4), 25 * 9 * 4 * 6),
    "einsum": (lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3)), (4, 5), 4 * 5 * 2 * 3),
    "einsum on any axes": (lambda: layers.EinsumDense("...x,xy->...y", 7), (4, 3, 5), 12 * 5 * 7),
    "lstm": (lambda: layers.LSTM(6), (4, 5), 4 * (5 + 6) * 24),
    "both ways": (lambda: layers.Bidirectional(layers.GRU(6)), (4, 5), 2 * 4 * (5 + 6) * 18),
    "each step": (lambda: layers.TimeDistributed(layers.Dense(7)), (4, 5), 4 * 5 * 7),
    "convolutional lstm": (
        lambda: layers.ConvLSTM1D(2, 3, padding="same"),
        (4, 6, 3),
        4 * 6 * 3 * (3 + 2) * 8,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_multiply_adds_are_those_counted_by_hand(name: str) -> None:
    make, shape, wanted = CASES[name]
    inputs = keras.Input(shape)
    model = keras.Model(inputs, make()(inputs))
    assert summarize(model).flops == wanted


def test_attention_counts_its_projections() -> None:
    x = keras.Input((4, 5))
    model = keras.Model(x, layers.MultiHeadAttention(2, 3)(x, x))
    assert summarize(model).flops == 4 * (3 * 5 * 6 + 6 * 5)


def test_a_layer_used_twice_counts_twice_however_it_is_called() -> None:
    x = keras.Input((5,))
    dense = layers.Dense(5)
    model = keras.Model(x, dense(inputs=dense(x)))
    assert summarize(model).flops == 2 * 25


def test_zeros_and_dead_channels_are_told_apart() -> None:
    model = lenet_300_100()
    kernel = np.array(keras.ops.convert_to_numpy(model.get_layer("hidden_1").kernel))
    kernel[:, :100] = 0
    kernel[:50] = 0
    model.get_layer("hidden_1").kernel.assign(kernel)
    summary = summarize(model)
    assert summary.flops == 784 * 300 + 300 * 100 + 100 * 10
    assert summary.flops_nonzero == 734 * 200 + 300 * 100 + 100 * 10
    assert summary.flops_shrunk == 784 * 200 + 200 * 100 + 100 * 10
    assert summary.parameters_shrunk == shrink(model).count_params()


def test_a_model_whose_sizes_are_open_is_not_counted() -> None:
    inputs = keras.Input((None, 5))
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    assert uses_of_weights(model) is None
    assert summarize(model).flops is None
    assert "unknown" in str(summarize(model))


@pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="the profiler is TensorFlow's own"
)
@pytest.mark.parametrize("make", [lenet_300_100, lenet_5_caffe, resnet_20, mobile_stack])
def test_tensorflows_profiler_counts_twice_as_many(make: Callable[[], keras.Model]) -> None:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2_as_graph,
    )

    model = make()
    spec = tf.TensorSpec((1, *model.inputs[0].shape[1:]), "float32")
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    _, definition = convert_variables_to_constants_v2_as_graph(function)
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(definition, name="")
        builder = tf.compat.v1.profiler.ProfileOptionBuilder
        options = (
            builder(builder.float_operation())
            .with_accounted_types(["MatMul", "Conv2D", "DepthwiseConv2dNative"])
            .with_empty_output()
            .build()
        )
        found = tf.compat.v1.profiler.profile(graph, cmd="op", options=options)
    assert summarize(model).flops == found.total_float_ops / 2


def test_what_neuron_pruning_takes_is_what_the_summary_says() -> None:
    model = resnet_20(filters=8)
    before = summarize(model).flops
    prune(model, method="neuron", flops=0.3)
    small = summarize(shrink(model)).flops
    assert before is not None
    assert small is not None
    assert 0.6 < small / before <= 0.7
