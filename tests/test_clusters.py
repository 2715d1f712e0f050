"""Clusters of sparse convolutions are used whole or not at all."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

pytest.importorskip("tensorflow", reason="exporting needs TensorFlow")
pytest.importorskip("ai_edge_litert", reason="exporting needs LiteRT")

from keras_l0.export import check, flatfile
from keras_l0.export.clusters import cluster, disarm, entries, would_crash
from keras_l0.export.convert import dense_files
from keras_l0.export.rewrites import widened
from keras_l0.export.samples import read_inputs
from keras_l0.export.sparse import sparse_file

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow",
    reason="what it covers does not depend on the backend, and each conversion off "
    "TensorFlow starts a process of 10 s",
)


def stack(*middle: keras.Layer, entry: str = "valid", size: int = 32) -> keras.Model:
    """An entry that fits unless ``entry`` is "same", then ``middle`` and a classifier."""
    padding = [layers.ZeroPadding2D(1)] if entry == "valid" else []
    first = layers.Conv2D(16, 3, strides=2, padding=entry, activation="relu")
    end = [layers.GlobalAveragePooling2D(), layers.Dense(5)]
    return keras.Sequential([keras.Input((size, size, 3)), *padding, first, *middle, *end])


def converted(model: keras.Model) -> bytes:
    inputs, _ = read_inputs(model, None)
    content = dense_files(model, inputs, ["float32"])["float32"]
    assert isinstance(content, bytes)
    return content


def reasons(model: keras.Model) -> list[str]:
    file = flatfile.read(converted(model))
    (graph,) = file.subgraphs
    return [cluster(file, graph, entry)[1] for entry in entries(file, graph)]


def point() -> keras.Layer:
    return layers.Conv2D(24, 1, activation="relu")


@pytest.mark.parametrize(
    "middle",
    [
        lambda: [point()],
        lambda: [point(), layers.DepthwiseConv2D(3, padding="same"), point()],
        lambda: [layers.DepthwiseConv2D(5, padding="same"), layers.ReLU(6), point()],
        lambda: [layers.ZeroPadding2D(1), layers.DepthwiseConv2D(3, strides=2), point()],
    ],
)
def test_a_whole_cluster_is_left_as_it_is(middle: Callable[[], list[keras.Layer]]) -> None:
    content = converted(stack(*middle()))
    assert reasons(stack(*middle())) == [""]
    assert disarm(content) == (content, [])


@pytest.mark.parametrize(
    ("middle", "culprit"),
    [
        (lambda: [point(), layers.MaxPooling2D(), point()], "MAX_POOL_2D"),
        (lambda: [point(), layers.DepthwiseConv2D(3, strides=2, padding="same")], "DEPTHWISE"),
        (lambda: [point(), layers.Conv2D(8, 3, padding="same"), point()], "CONV_2D"),
        (lambda: [point(), layers.GlobalAveragePooling2D(keepdims=True), point()], "MEAN"),
    ],
)
def test_a_broken_cluster_is_taken_apart(
    middle: Callable[[], list[keras.Layer]], culprit: str
) -> None:
    """By another operator of the same values, which the delegate does not fold."""
    model = stack(*middle())
    content = converted(model)
    changed, (reason,) = disarm(content)
    assert culprit in reason
    names = [
        flatfile.operator_name(file, op)
        for file in [flatfile.read(changed)]
        for op in file.subgraphs[0].operators
    ]
    assert names.count("PADV2") == 1
    file = flatfile.read(changed)
    assert entries(file, file.subgraphs[0]) == []
    inputs, batches = read_inputs(model, None)
    expected = [[np.asarray(model(x[0]))] for x in batches]
    samples = check.Samples(inputs.names, ("out",), batches, expected)
    found = check.measure({"m": flatfile.named(changed, inputs.names, ("out",))}, samples)["m"]
    assert found.fault == ""
    assert found.deviation < 1e-5


def test_a_branch_to_an_output_breaks_a_cluster() -> None:
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, strides=2)(layers.ZeroPadding2D(1)(inputs))
    x = point()(x)
    model = keras.Model(inputs, [layers.GlobalAveragePooling2D()(x), point()(x)])
    assert "one of the model's outputs" in reasons(model)[0]


def test_a_mean_of_kept_dimensions_that_is_an_output_breaks_a_cluster() -> None:
    """On ARM it would come out with its channels first."""
    model = stack(point())
    mean = layers.GlobalAveragePooling2D(keepdims=True)(model.layers[-3].output)
    assert "one of the model's outputs" in reasons(keras.Model(model.inputs, mean))[0]


@pytest.mark.parametrize("model", [stack(point(), entry="same"), stack(point(), size=33)])
def test_a_network_without_an_entry_has_no_cluster(model: keras.Model) -> None:
    assert reasons(model) == []


def test_int8_weights_beside_densify_and_a_mean_are_refused() -> None:
    """Dynamic-range weights as they are, and the same widened to float32."""
    model = stack(point())
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            kernel = keras.ops.convert_to_numpy(layer.kernel).copy()
            kernel[np.random.default_rng(0).random(kernel.shape) < 0.9] = 0
            layer.kernel.assign(kernel)
    more = [layers.Dense(600), layers.Dense(5)]
    model = keras.Sequential([keras.Input((32, 32, 3)), *model.layers, *more])
    inputs, _ = read_inputs(model, None)
    content = dense_files(model, inputs, ["dynamic"])["dynamic"]
    assert isinstance(content, bytes)
    assert not would_crash(content)
    assert would_crash(sparse_file(content)[0])
    assert not would_crash(sparse_file(widened(content))[0])
