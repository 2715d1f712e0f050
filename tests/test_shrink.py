"""shrink() gives a smaller network with the same outputs, or says why there is none."""

from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from keras import layers, ops
from networks_strategy import Network, draw_network, randomize, zero
from numpy.typing import NDArray
from strategies import assert_same_bits, numpy_weights

from keras_l0 import prune, shrink

Tensor = Any
VECTORS = np.random.default_rng(1).normal(size=(6, 5)).astype("float32")
ROWS = np.random.default_rng(2).normal(size=(6, 4, 5)).astype("float32")


def assert_close(found: NDArray[Any], wanted: NDArray[Any]) -> None:
    """Fails unless they are equal within 1e-4 of the largest."""
    assert found.shape == wanted.shape
    largest = max(np.abs(wanted).max(initial=0), 1e-3)
    assert np.abs(found - wanted).max(initial=0) <= 1e-4 * largest


def biases_added(old: keras.Model, new: keras.Model) -> int:
    """The sizes of biases that layers have only in the new model."""
    had = {
        layer.name
        for layer in old._flatten_layers()
        if any(variable.name == "bias" for variable in layer.variables)
    }
    return sum(
        int(np.prod(variable.shape))
        for layer in new._flatten_layers(recursive=True)
        if not getattr(layer, "layers", None) and layer.name not in had
        for variable in layer.variables
        if variable.name == "bias"
    )


def check_law(network: Network) -> None:
    """A smaller model with the same outputs; or an error, and then an output is constant."""
    assume(network.spread > 1e-2)
    model, before = network.model, numpy_weights(network.model)
    wanted = network.outputs(model, network.inputs)
    assert all(np.isfinite(each).all() for each in wanted)
    assume(all(np.abs(each).max() < 1e4 for each in wanted))
    try:
        small = shrink(model)
    except ValueError as error:
        if "outputs that depend on the inputs" not in str(error):
            raise
        others = network.outputs(model, network.other)
        assert any(
            np.allclose(one, other, rtol=0, atol=1e-5 * max(1, np.abs(one).max()))
            and np.ptp(one, axis=0).max() <= 1e-5 * max(1, np.abs(one).max())
            for one, other in zip(wanted, others, strict=True)
        )
        return
    assert_same_bits(numpy_weights(model), before)
    for inputs in (network.inputs, network.other):
        wanted = network.outputs(model, inputs)
        for one, other in zip(network.outputs(small, inputs), wanted, strict=True):
            assert_close(one, other)
    assert [tensor.shape for tensor in small.inputs] == [tensor.shape for tensor in model.inputs]
    assert [tensor.shape for tensor in small.outputs] == [tensor.shape for tensor in model.outputs]
    old_names = {layer.name for layer in model._flatten_layers()}
    old_names |= {operation.name for operation in model.operations}
    added = {layer.name for layer in small._flatten_layers()} - old_names
    assert all(name.endswith(("_offset", "_scale")) for name in added), added
    assert small.count_params() <= model.count_params() + biases_added(model, small)
    again = shrink(small)
    assert [layer.name for layer in again._flatten_layers()] == [
        layer.name for layer in small._flatten_layers()
    ]
    assert_same_bits(numpy_weights(again), numpy_weights(small))


# A network takes a second or more: simpler failing ones are not looked for, which takes hours.
LAWS = settings(
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@given(data=st.data())
@settings(LAWS, max_examples=20)
def test_the_outputs_of_random_networks_stay(data: st.DataObject) -> None:
    check_law(draw_network(data.draw))


@pytest.mark.slow
@given(data=st.data())
@settings(LAWS, max_examples=500)
def test_the_outputs_of_many_random_networks_stay(data: st.DataObject) -> None:
    check_law(draw_network(data.draw))


def made(inputs: Any, outputs: Any, seed: int = 0) -> keras.Model:
    """A model with random weights."""
    model = keras.Model(inputs, outputs, name="net")
    randomize(model, np.random.default_rng(seed))
    return model


def shrunk(model: keras.Model, x: Any) -> keras.Model:
    """The smaller model, once it is seen that its outputs are the same, and tell inputs apart."""
    before = numpy_weights(model)
    wanted = keras.tree.map_structure(ops.convert_to_numpy, model(x))
    small = shrink(model)
    found = keras.tree.map_structure(ops.convert_to_numpy, small(x))
    keras.tree.assert_same_structure(found, wanted)
    pairs = zip(keras.tree.flatten(found), keras.tree.flatten(wanted), strict=True)
    for one, other in pairs:
        assert np.ptp(other, axis=0).max() > 1e-2 * np.abs(other).max()
        assert_close(one, other)
    assert_same_bits(numpy_weights(model), before)
    return small


def numbers(variable: keras.Variable) -> NDArray[Any]:
    return np.array(ops.convert_to_numpy(variable))


# What is folded, and into what.


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "softplus"])
def test_a_constant_is_folded_into_the_bias_of_what_reads_it(activation: str) -> None:
    x = keras.Input((5,))
    first, second = layers.Dense(4, activation), layers.Dense(3)
    model = made(x, second(first(x)))
    zero(first, [1, 3], bias=0.5)
    small = shrunk(model, VECTORS)
    assert [layer.units for layer in small.layers[1:]] == [2, 3]
    assert np.array_equal(numbers(small.layers[1].kernel), numbers(first.kernel)[:, [0, 2]])
    assert np.array_equal(numbers(small.layers[2].kernel), numbers(second.kernel)[[0, 2]])
    constant = float(ops.convert_to_numpy(keras.activations.get(activation)(np.float32([0.5])))[0])
    wanted = numbers(second.bias) + constant * numbers(second.kernel)[[1, 3]].sum(0)
    np.testing.assert_allclose(numbers(small.layers[2].bias), wanted, rtol=1e-6)


def test_a_constant_is_folded_into_the_moving_mean_of_the_normalization_behind() -> None:
    x = keras.Input((6, 6, 3))
    first = layers.Conv2D(4, 3)
    second = layers.Conv2D(5, 3, use_bias=False)
    normalization = layers.BatchNormalization()
    y = normalization(second(first(x)))
    model = made(x, layers.GlobalAveragePooling2D()(y))
    zero(first, [0], bias=2.0)
    small = shrunk(model, np.random.default_rng(0).normal(size=(6, 6, 6, 3)))
    assert small.get_layer(second.name).bias is None
    mean = numbers(normalization.moving_mean) - 2 * numbers(second.kernel)[:, :, 0].sum((0, 1))
    found = numbers(small.get_layer(normalization.name).moving_mean)
    np.testing.assert_allclose(found, mean, rtol=1e-5)


LINEAR = {
    "Dense": lambda: layers.Dense(3, use_bias=False),
    "EinsumDense": lambda: layers.EinsumDense("abc,cd->abd", (4, 3)),
    "Conv1D": lambda: layers.Conv1D(3, 2, use_bias=False),
    "SeparableConv1D": lambda: layers.SeparableConv1D(3, 2, use_bias=False),
    "DepthwiseConv1D": lambda: layers.DepthwiseConv1D(2, use_bias=False),
}


@pytest.mark.parametrize("kind", LINEAR)
def test_a_layer_without_a_bias_is_given_one_for_a_constant(kind: str) -> None:
    x = keras.Input((4, 5))
    first, second = layers.Dense(4), LINEAR[kind]()
    model = made(x, layers.Dense(2)(second(first(x))))
    zero(first, [1], bias=0.75)
    small = shrunk(model, ROWS)
    assert small.get_layer(first.name).units == 3


def test_a_negative_constant_stays_before_slopes_that_differ_from_place_to_place() -> None:
    x = keras.Input((4, 5))
    first = layers.Dense(4)
    model = made(x, layers.Dense(3)(layers.PReLU()(first(x))))
    zero(first, [0, 2], bias=-0.5)
    assert shrunk(model, ROWS).get_layer(first.name).units == 4


BETWEEN = {
    "BatchNormalization": lambda: layers.BatchNormalization(),
    "BatchNormalization alone": lambda: layers.BatchNormalization(scale=False, center=False),
    "PReLU": lambda: layers.PReLU(shared_axes=[1]),
    "PReLU of all": lambda: layers.PReLU(shared_axes=[1, 2]),
    "LeakyReLU": lambda: layers.LeakyReLU(0.3),
    "AveragePooling1D": lambda: layers.AveragePooling1D(2, padding="same"),
    "UpSampling1D": lambda: layers.UpSampling1D(2),
    "Flatten": lambda: layers.Flatten(),
}


@pytest.mark.parametrize("kind", BETWEEN)
def test_a_constant_passes_what_stands_between(kind: str) -> None:
    x = keras.Input((4, 5))
    first = layers.Dense(4)
    model = made(x, layers.Dense(3)(BETWEEN[kind]()(first(x))))
    zero(first, [0, 2], bias=-0.5)
    assert shrunk(model, ROWS).get_layer(first.name).units == 2


def test_a_constant_stays_where_what_reads_it_pads() -> None:
    x = keras.Input((6, 6, 3))
    first = layers.Conv2D(4, 3, padding="same")
    model = made(x, layers.Conv2D(2, 3, padding="same")(first(x)))
    zero(first, [0], bias=0.0)
    images = np.random.default_rng(0).normal(size=(6, 6, 6, 3))
    assert shrunk(model, images).get_layer(first.name).filters == 3
    first.bias.assign(np.ones(4))
    assert shrunk(model, images).get_layer(first.name).filters == 4


def test_what_nothing_reads_goes_and_all_that_only_it_reads() -> None:
    x = keras.Input((5,))
    first, second, third = layers.Dense(6), layers.Dense(4, "relu"), layers.Dense(3)
    model = made(x, third(second(first(x))))
    kernel = numbers(third.kernel)
    kernel[1:3] = 0
    third.kernel.assign(kernel)
    kernel = numbers(second.kernel)
    kernel[0, [0, 3]] = 0  # the first one is read only by what nobody reads
    second.kernel.assign(kernel)
    small = shrunk(model, VECTORS)
    assert [layer.units for layer in small.layers[1:]] == [5, 2, 3]


def test_a_residual_channel_that_only_its_own_branch_reads_goes() -> None:
    x = keras.Input((5,))
    first, second, third, last = (layers.Dense(n) for n in (4, 3, 4, 2))
    y = first(x)
    model = made(x, last(layers.Add()([y, third(second(y))])))
    for layer in (second, third):  # the first channels read each other and nothing else
        kernel = numbers(layer.kernel)
        kernel[0, 1:] = 0
        kernel[1:, 0] = 0
        layer.kernel.assign(kernel)
    kernel = numbers(last.kernel)
    kernel[0] = 0
    last.kernel.assign(kernel)
    small = shrunk(model, VECTORS)
    units = {layer.name: layer.units for layer in small.layers if hasattr(layer, "units")}
    assert [units[layer.name] for layer in (first, second, third)] == [3, 2, 3]


def test_an_embedding_loses_columns_that_are_zero() -> None:
    x = keras.Input((4,), dtype="int32")
    embedding = layers.Embedding(7, 5)
    model = made(x, layers.Dense(2)(layers.Flatten()(embedding(x))))
    table = numbers(embedding.embeddings)
    table[:, [1, 2]] = 0
    embedding.embeddings.assign(table)
    small = shrunk(model, np.random.default_rng(0).integers(0, 7, (6, 4)))
    assert small.get_layer(embedding.name).output_dim == 3


def test_what_ties_channels_only_where_nothing_is_needed_ties_them_no_more() -> None:
    x = keras.Input((5,))
    shared, dead = layers.Dense(4), layers.Dense(3)
    y = layers.Dense(3)(shared(x))
    z = dead(layers.LayerNormalization()(shared(x * 2.0)))  # here no channel may go
    model = made(x, layers.Dense(2)(layers.Add()([y, z])))
    zero(shared, [0, 1], bias=0.5)
    zero(dead)
    assert shrunk(model, VECTORS).get_layer(shared.name).units == 2


def test_a_recurrent_layer_that_reads_constants_alone_gives_no_output() -> None:
    x = keras.Input((4, 5))
    first, cell = layers.Dense(4), layers.LSTM(3)
    model = made(x, [cell(first(x)), layers.Dense(2)(x)])
    zero(first, [0, 1], bias=0.5)
    kernel = numbers(cell.cell.kernel)
    kernel[2:] = 0  # it reads constants alone
    cell.cell.kernel.assign(kernel)
    with pytest.raises(ValueError, match="outputs that depend on the inputs"):
        shrink(model)


# A branch that is constant.

SKIPS = {
    "Add": layers.Add,
    "Multiply": layers.Multiply,
    "Concatenate": layers.Concatenate,
    "Average": layers.Average,
    "Subtract": layers.Subtract,
    "Maximum": layers.Maximum,
}


@pytest.mark.parametrize("constant", [0.0, 0.75])
@pytest.mark.parametrize("kind", SKIPS)
@pytest.mark.parametrize("last", [False, True])
def test_a_dead_branch_beside_a_skip_is_folded_away(kind: str, constant: float, last: bool) -> None:
    if kind == "Multiply" and constant == 0:
        pytest.skip("the product is zero too")
    x = keras.Input((5,))
    body, before, dead = layers.Dense(4, "relu"), layers.Dense(3, "tanh"), layers.Dense(4)
    y = SKIPS[kind](name="join")([body(x), dead(before(x))])
    model = made(x, y if last else layers.Dense(2)(y))
    zero(dead, bias=constant)
    small = shrunk(model, VECTORS)
    assert small.count_params() < model.count_params()
    names = {layer.name for layer in small.layers}
    assert body.name in names
    if kind in ("Add", "Multiply"):
        assert not names & {dead.name, before.name}
        added = {"Add": "join_offset", "Multiply": "join_scale"}[kind]
        if constant and not last:
            assert names - {layer.name for layer in model.layers} == {added}
        else:  # an output keeps its name
            assert names <= {layer.name for layer in model.layers}


def test_branches_folded_away_at_both_uses_of_a_layer() -> None:
    x = keras.Input((5,))
    add, one, other = layers.Add(), layers.Dense(3), layers.Dense(3)
    y = add([layers.Dense(3, "relu")(x), one(x)])
    y = add([layers.Dense(3, "relu")(y), other(y)])
    model = made(x, layers.Dense(2)(y))
    zero(one, bias=0.5)
    zero(other, bias=0.25)
    shrunk(model, VECTORS)


def test_outputs_keep_their_names_where_a_branch_is_folded_away() -> None:
    for constant in (0.0, 0.5):
        x = keras.Input((5,))
        dead = layers.Dense(3)
        model = made(x, layers.Add(name="out")([layers.Dense(3)(x), dead(x)]))
        zero(dead, bias=constant)
        model.compile("sgd", loss={"out": "mse"})
        small = shrunk(model, VECTORS)
        assert small.output_names == ["out"]
        small.fit(VECTORS, VECTORS[:, :3], verbose=0)


def test_a_use_of_a_nested_model_may_be_folded_away() -> None:
    for place in (0, 1):
        x = keras.Input((5,))
        inner = keras.Sequential([keras.Input((5,)), layers.Dense(4, "relu")])
        branches = [layers.Dense(3), layers.Dense(3)]
        pair = zip(branches, (x, x * 2.0), strict=True)
        y = layers.Add()([dense(inner(tensor)) for dense, tensor in pair])
        model = made(x, layers.Dense(2)(y))
        zero(branches[place], bias=0.5)
        shrunk(model, VECTORS)


@pytest.mark.parametrize("kind", ["model", "Reshape", "Rescaling"])
def test_what_is_used_twice_and_has_sizes_but_no_weights_fits_both_uses(kind: str) -> None:
    x, z = keras.Input((5,)), keras.Input((6,))
    shared = {
        "model": keras.Model(z, ops.relu(z) + 1.0),
        "Reshape": layers.Reshape((1, 6)),
        "Rescaling": layers.Rescaling([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
    }[kind]
    one, other = layers.Dense(6), layers.Dense(6)
    pair = [layers.Dense(2)(shared(one(x))), layers.Dense(2)(shared(other(x)))]
    model = made(x, pair)
    zero(one, [0, 1], bias=0.5)
    zero(other, [2], bias=0.5)
    shrunk(model, VECTORS)


def test_an_input_that_is_no_longer_read_stays() -> None:
    x, z = keras.Input((5,), name="x"), keras.Input((5,), name="z")
    dead = layers.Dense(3)
    model = made([x, z], layers.Dense(2)(layers.Add()([layers.Dense(3)(x), dead(z)])))
    zero(dead)
    small = shrunk(model, [VECTORS, VECTORS])
    assert [tensor.name for tensor in small.inputs] == ["x", "z"]


# What no rule follows is left as it is.


class Times(layers.Layer):
    """Its own weights, one for each channel, and no rule."""

    def build(self, shape: Any) -> None:
        self.factor = self.add_weight(shape=shape[-1:], name="factor")

    def call(self, x: Tensor) -> Tensor:
        return x * self.factor + ops.flip(x, -1)


OPAQUE = {
    "x + vector": lambda x: x + np.arange(1, 5, dtype="float32"),
    "x * vector": lambda x: x * np.arange(1, 5, dtype="float32"),
    "flip": lambda x: ops.flip(x, -1),
    "softmax activation": lambda x: layers.Activation("softmax")(x),
    "Softmax": lambda x: layers.Softmax()(x),
    "custom activation": lambda x: layers.Activation(lambda x: ops.flip(x, -1))(x),
    "LayerNormalization": lambda x: layers.LayerNormalization()(x),
    "BatchNormalization along rows": lambda x: layers.BatchNormalization(axis=1)(x),
    "pooling across channels": lambda x: layers.AveragePooling1D(
        3, 1, "same", data_format="channels_first"
    )(x),
    "Rescaling of rows": lambda x: layers.Rescaling(np.arange(1.0, 5.0)[:, None], np.ones((4, 1)))(
        x
    ),
    "EinsumDense of rows": lambda x: layers.EinsumDense("abc,bd->adc", (4, 4))(x),
    "EinsumDense of both": lambda x: layers.EinsumDense("abc,bcde->ade", (4, 4))(x),
    "own layer": lambda x: Times()(x),
    "Lambda": lambda x: layers.Lambda(lambda x: ops.flip(x, -1))(x),
    "attention": lambda x: layers.MultiHeadAttention(2, 3)(x, x),
    "crop of channels": lambda x: layers.Permute((2, 1))(
        layers.Cropping1D(1)(layers.Permute((2, 1))(x))
    ),
    "up-sampling of channels": lambda x: layers.GlobalMaxPooling1D(
        data_format="channels_first", keepdims=True
    )(layers.UpSampling1D(2)(layers.Permute((2, 1))(x))),
    "mean": lambda x: ops.mean(x, -1, keepdims=True) + x,
    "split": lambda x: ops.concatenate(ops.split(x, 2, -1)[::-1], -1),
    "matmul": lambda x: ops.matmul(ops.transpose(x, (0, 2, 1)), x),
    "ConvLSTM1D": lambda x: layers.ConvLSTM1D(4, 1)(x[:, None]),
}


@pytest.mark.parametrize("name", OPAQUE)
def test_what_goes_through_anything_else_stays_and_the_outputs_too(name: str) -> None:
    x = keras.Input((4, 5))
    first, second = layers.Dense(4, "relu"), layers.Dense(3, "tanh")
    model = made(x, layers.Dense(2)(second(OPAQUE[name](first(x)))), seed=3)
    zero(first, [0, 1], bias=0.5)
    kernel = numbers(second.kernel)  # a unit that reads dead channels alone
    kernel[2:, 0] = 0
    second.kernel.assign(kernel)
    shrunk(model, ROWS)


@pytest.mark.parametrize("where", ["input", "channels"])
def test_a_rescaling_of_each_channel_is_followed(where: str) -> None:
    x = keras.Input((4, 5))
    first = layers.Dense(5)
    rescaling = layers.Rescaling(np.arange(1.0, 6.0), -np.arange(1.0, 6.0))
    y = first(rescaling(x)) if where == "input" else rescaling(first(x))
    model = made(x, layers.Dense(2)(y))
    zero(first, [0, 1], bias=0.5)
    assert shrunk(model, ROWS).get_layer(first.name).units == 3


# What is carried over.


def test_the_compilation_is_carried_over() -> None:
    x = keras.Input((5,))
    first = layers.Dense(4, "relu")
    model = made(x, layers.Dense(2)(first(x)))
    zero(first, [0])
    model.compile(keras.optimizers.SGD(0.125, momentum=0.5), loss="mae", metrics=["mse"])
    model.fit(VECTORS, VECTORS[:, :2], verbose=0)
    zero(first, [0])
    small = shrunk(model, VECTORS)
    assert isinstance(small.optimizer, keras.optimizers.SGD)
    assert float(ops.convert_to_numpy(small.optimizer.learning_rate)) == 0.125
    assert small.optimizer.momentum == 0.5
    wanted = model.evaluate(VECTORS, VECTORS[:, :2], verbose=0, return_dict=True)
    found = small.evaluate(VECTORS, VECTORS[:, :2], verbose=0, return_dict=True)
    assert sorted(found) == sorted(wanted)
    assert found == pytest.approx(wanted, rel=1e-4)


def test_a_model_not_compiled_is_not_compiled_after() -> None:
    x = keras.Input((5,))
    assert not shrink(made(x, layers.Dense(2)(x))).compiled


def test_regularizers_constraints_and_trainable_flags_are_carried_over() -> None:
    x = keras.Input((5,))
    frozen = layers.Dense(4, "relu", trainable=False, name="frozen")
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="inner")], name="block")
    penalized = layers.Dense(
        2, kernel_regularizer=keras.regularizers.L2(0.25), bias_constraint="non_neg", name="last"
    )
    model = made(x, penalized(inner(frozen(x))))
    inner.layers[0].trainable = False
    zero(frozen, [0])
    zero(inner.layers[0], [1])
    small = shrunk(model, VECTORS)
    assert isinstance(small.get_layer("last").kernel_regularizer, keras.regularizers.L2)
    assert isinstance(small.get_layer("last").bias_constraint, keras.constraints.NonNeg)
    assert float(small.get_layer("last").kernel_regularizer.l2) == 0.25
    assert len(small.losses) == 1
    assert not small.get_layer("frozen").trainable
    assert not small.get_layer("block").layers[0].trainable
    assert [v.path for v in small.trainable_variables] == [
        v.path for v in model.trainable_variables
    ]


def test_a_frozen_model_inside_stays_frozen() -> None:
    x = keras.Input((5,))
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(4, name="inner")], name="block")
    model = made(x, layers.Dense(2)(inner(x)))
    zero(inner.layers[0], [1])
    inner.trainable = False
    small = shrunk(model, VECTORS)
    assert small.trainable
    assert not small.get_layer("block").trainable
    assert len(small.trainable_variables) == 2


@pytest.mark.parametrize("constant", [0.0, 0.5])
def test_dtype_policies_are_carried_over(constant: float) -> None:
    x = keras.Input((5,))
    half = {"dtype": "mixed_float16"}
    dead = layers.Dense(4, **half)
    y = layers.Add(name="join", **half)([layers.Dense(4, "relu", **half)(x), dead(x)])
    model = made(x, layers.Dense(2, **half)(y))
    zero(dead, bias=constant)
    wanted = ops.convert_to_numpy(model(VECTORS)).astype("float32")
    small = shrink(model)
    found = ops.convert_to_numpy(small(VECTORS)).astype("float32")
    assert np.abs(found - wanted).max() < 0.01 * np.abs(wanted).max()
    assert [layer.dtype_policy.name for layer in small.layers[1:]] == ["mixed_float16"] * (
        3 if constant else 2
    )
    assert all(variable.dtype == "float32" for variable in small.variables)
    assert small.output.dtype == model.output.dtype


def test_the_dtype_of_an_output_stays_where_a_branch_is_folded_away() -> None:
    x = keras.Input((5,))
    half = {"dtype": "mixed_float16"}
    dead = layers.Dense(4, **half)
    y = layers.Add(**half)([layers.Dense(4, **half)(x), dead(x)])
    model = made(x, y)
    zero(dead, bias=0.5)
    assert shrink(model).output.dtype == model.output.dtype == "float16"


def test_paths_are_carried_over() -> None:
    block = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, name="dead"), layers.Dense(6)], name="block"
    )
    x = keras.Input((5,))
    model = made(x, layers.Dense(2)(block(layers.Dense(6)(x))))
    zero(block.get_layer("dead"), [0])
    paths = [variable.path for variable in model.weights]
    assert [variable.path for variable in shrink(model).weights] == paths


def test_names_and_nested_structure_are_carried_over() -> None:
    x = keras.Input((5,), name="x")
    innermost = keras.Sequential([keras.Input((4,)), layers.Dense(6, "relu", name="a")], name="s")
    z = keras.Input((5,))
    inner = keras.Model(z, innermost(layers.Dense(4, name="b")(z)), name="f")
    model = made(x, layers.Dense(2, name="c")(inner(x)))
    zero(innermost.layers[0], [0, 1], bias=0.5)
    small = shrunk(model, VECTORS)
    assert small.name == "net"
    assert [layer.name for layer in small.layers] == ["x", "f", "c"]
    assert type(small.get_layer("f")) is type(inner)
    assert isinstance(small.get_layer("f").get_layer("s"), keras.Sequential)
    assert small.get_layer("f").get_layer("s").layers[0].units == 4


def test_a_sequential_model_stays_one() -> None:
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4), layers.Dense(2)], name="net")
    zero(model.layers[0], [0])
    small = shrunk(model, VECTORS)
    assert type(small) is keras.Sequential
    assert small.layers[0].units == 3


def test_inputs_and_outputs_by_name_stay() -> None:
    tensors = {"a": keras.Input((5,), name="a"), "b": keras.Input((5,), name="b")}
    first = layers.Dense(4, "relu", name="first")
    y = layers.Concatenate()([first(tensors["a"]), layers.Dense(3)(tensors["b"])])
    outputs = {"one": layers.Dense(2)(y), "rest": [layers.Dense(3)(y), first(tensors["a"] * 2.0)]}
    model = made(tensors, outputs)
    model.get_layer("first").kernel.assign(np.eye(5, 4))
    zero(first, [])
    shrunk(model, {"a": VECTORS, "b": VECTORS})


def test_a_class_of_ones_own_with_a_graph_stays() -> None:
    class Own(keras.Model):
        pass

    x = keras.Input((5,))
    first = layers.Dense(4)
    model = Own(x, layers.Dense(2)(first(x)))
    zero(first, [0])
    assert type(shrunk(model, VECTORS)) is Own


def test_the_old_model_still_works_and_can_be_saved(tmp_path: Any) -> None:
    x = keras.Input((5,))
    first = layers.Dense(4)
    model = made(x, layers.Dense(2)(ops.relu(first(x)) * 2.0 + x[:, :4]))
    zero(first, [0])
    wanted, config = ops.convert_to_numpy(model(VECTORS)), model.get_config()
    small = shrink(model)
    assert model.get_config() == config
    model.save(tmp_path / "old.keras")
    small.save(tmp_path / "new.keras")
    for name in ("old.keras", "new.keras"):
        loaded = keras.models.load_model(tmp_path / name)
        assert_close(ops.convert_to_numpy(loaded(VECTORS)), wanted)


# Bad input.


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`model`. Expected a keras.Model"):
        shrink(3)


def test_a_model_not_built_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected a built model.*model\.build"):
        shrink(keras.Sequential([layers.Dense(3)]))


@pytest.mark.parametrize("inside", [False, True])
def test_a_subclassed_model_is_refused_with_what_works_instead(inside: bool) -> None:
    class Subclassed(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x: Tensor) -> Tensor:
            return self.dense(x)

    model = Subclassed()
    model(VECTORS)
    if inside:  # there it is a layer as any other
        x = keras.Input((5,))
        first = layers.Dense(5)
        with pytest.warns(UserWarning, match="subclassed cannot be made from its configuration"):
            small = shrink(whole := made(x, model(first(x))))
        for one, other in zip(
            small.predict(VECTORS, verbose=0), whole.predict(VECTORS, verbose=0), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=1e-6)
        return
    with pytest.raises(ValueError, match=r"keras\.Model\(inputs, outputs\).*prune"):
        shrink(model)


class WithoutShape(layers.Layer):
    """Computes, but does not tell the shape of what it computes."""

    def call(self, x: Tensor) -> Tensor:
        return x * 2

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("kind", ["WithoutShape", "TorchModuleWrapper"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_layer_without_an_output_shape_is_named_and_not_called_a_subclassed_model(
    kind: str, place: int
) -> None:
    if kind == "TorchModuleWrapper":
        torch = pytest.importorskip("torch")
        if keras.config.backend() != "torch":
            pytest.skip("it computes on PyTorch only")
        layer = layers.TorchModuleWrapper(torch.nn.Linear(5, 5), name="wrapped")
    else:
        layer = WithoutShape(name="wrapped")
    stack = [layers.Dense(5), layers.Dense(3)]
    model = keras.Sequential([keras.Input((5,)), *stack[:place], layer, *stack[place:]])
    model(VECTORS)
    for work in (shrink, partial(prune, method="neuron", fraction=0.5)):
        with pytest.raises(ValueError, match=rf"layer wrapped \({kind}\).*Prune") as caught:
            work(model)
        assert "subclassed" not in str(caught.value)
    assert prune(model, 0.5).sparsity == 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(bad: float) -> None:
    x = keras.Input((5,))
    model = made(x, layers.Dense(2, name="sick")(x))
    model.get_layer("sick").bias.assign([0.0, bad])
    with pytest.raises(ValueError, match=r"finite weights.*sick"):
        shrink(model)


DEAD = {
    "dense": lambda x, dead: layers.Dense(2)(dead(x)),
    "twice": lambda x, dead: layers.Dense(2)(dead(dead(x))),
    "mixed": lambda x, dead: layers.Dense(2)(layers.LayerNormalization()(dead(x))),
    "flat": lambda x, dead: layers.Dense(2)(layers.Flatten()(dead(x))),
    "recurrent": lambda x, dead: layers.LSTM(3)(dead(x)),
    "product": lambda x, dead: layers.Multiply()([layers.Dense(5)(x), dead(x)]),
    "last": lambda x, dead: dead(x),
}


@pytest.mark.parametrize("name", DEAD)
def test_an_output_that_depends_on_no_input_is_an_error_that_names_the_layer(name: str) -> None:
    x = keras.Input((4, 5))
    dead = layers.Dense(5, name="culprit")
    model = made(x, [DEAD[name](x, dead), layers.Dense(2)(x)])
    zero(dead, bias=0.0)
    culprit = "multiply" if name == "product" else "culprit"
    with pytest.raises(ValueError, match=rf"outputs that depend on the inputs.*{culprit}"):
        shrink(model)


def test_a_layer_without_a_configuration_is_shared_and_named() -> None:
    class Own(layers.Layer):
        def __init__(self, units: int) -> None:
            super().__init__(name="odd")
            self.dense = layers.Dense(units)

        def call(self, x: Tensor) -> Tensor:
            return self.dense(x)

    x = keras.Input((5,))
    model = made(x, layers.Dense(2)(Own(3)(x)))
    with pytest.warns(UserWarning, match="layer odd cannot be made from its configuration"):
        small = shrink(model)
    assert small.get_layer("odd") is model.get_layer("odd")


def mean_of_squares(y: Tensor, z: Tensor) -> Tensor:
    return ops.mean((y - z) ** 2)


class Counted(keras.metrics.Mean):
    """A metric that no one has registered."""


def test_losses_and_metrics_of_ones_own_are_carried_over() -> None:
    x = keras.Input((5,))
    model = made(x, layers.Dense(2)(layers.Dense(4, name="dead")(x)))
    zero(model.get_layer("dead"), [0])
    metric = keras.metrics.MeanMetricWrapper(mean_of_squares, name="own")
    model.compile("sgd", mean_of_squares, metrics=[metric, lambda y, z: ops.mean(y - z)])
    y = np.zeros((6, 2), "float32")
    wanted = model.evaluate(VECTORS, y, verbose=0)
    small = shrink(model)
    np.testing.assert_allclose(small.evaluate(VECTORS, y, verbose=0), wanted, rtol=1e-5)
    small.fit(VECTORS, y, verbose=0)
    assert small.optimizer is not model.optimizer


def test_a_metric_that_cannot_be_made_anew_leaves_the_model_uncompiled_and_says_so() -> None:
    class Odd(keras.metrics.Mean):
        def __init__(self, needed: int) -> None:
            super().__init__(name="odd")

    x = keras.Input((5,))
    model = made(x, layers.Dense(2)(layers.Dense(4, name="dead")(x)))
    zero(model.get_layer("dead"), [0])
    model.compile("sgd", "mse", metrics=[Odd(3)])
    with pytest.warns(UserWarning, match="shrunk, but not compiled"):
        assert not shrink(model).compiled


TOKENS = np.array([[1, 2, 0, 0, 0], [3, 1, 4, 2, 0], [5, 6, 7, 8, 1]])


@pytest.mark.filterwarnings("ignore:Layer 'inner':UserWarning")
@pytest.mark.parametrize("after", ["LSTM", "Dense"])
def test_a_mask_that_enters_a_nested_model_is_followed(after: str) -> None:
    z = keras.Input((5, 6))
    pooled = layers.GlobalAveragePooling1D()
    last = layers.LSTM(4)(z) if after == "LSTM" else pooled(layers.Dense(4)(z))
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 6, mask_zero=True, name="words")(tokens)
    model = made(tokens, layers.Dense(2)(keras.Model(z, last, name="inner")(x)))
    words = model.get_layer("words").embeddings
    words.assign(ops.convert_to_numpy(words) * [0, 0, 1, 1, 1, 1])
    small = shrunk(model, TOKENS)
    assert small.get_layer("words").output_dim == 4


@pytest.mark.parametrize("unread", ["reader is dead", "no reader"])
def test_an_output_of_a_nested_model_that_nobody_reads_keeps_a_channel(unread: str) -> None:
    z = keras.Input((5,))
    a = layers.Dense(6, activation="relu")(z)
    two = keras.Model(z, [layers.Dense(4, name="side")(a), a], name="two")
    x = keras.Input((5,))
    side, main = two(x)
    y = layers.Dense(2)(main)
    if unread == "reader is dead":
        y = layers.Add()([y, layers.Dense(2, name="dead")(side)])
    model = made(x, y)
    if unread == "reader is dead":
        zero(model.get_layer("dead"))
    small = shrunk(model, VECTORS)
    assert small.count_params() < model.count_params()


@pytest.mark.parametrize("dead", ["first", "second"])
@pytest.mark.parametrize("masks", [(False, True), (True, False), (True, True)])
def test_a_dead_branch_stays_where_masks_meet(masks: tuple[bool, bool], dead: str) -> None:
    tokens = [keras.Input((5,), dtype="int32") for _ in range(2)]
    names = ("first", "second")
    embedded = [
        layers.Embedding(9, 4, mask_zero=mask, name=name)(x)
        for mask, name, x in zip(masks, names, tokens, strict=True)
    ]
    x = layers.GlobalAveragePooling1D()(layers.Add()(embedded))
    model = made(tokens, layers.Dense(2)(x))
    embeddings = model.get_layer(dead).embeddings
    embeddings.assign(np.zeros(embeddings.shape))
    other = TOKENS[:, ::-1].copy()
    shrunk(model, [TOKENS, other])


def test_what_normalizes_by_the_batch_at_all_times_does_so_after() -> None:
    x = keras.Input((5,))
    y = layers.BatchNormalization()(layers.Dense(6, name="dead")(x), training=True)
    model = made(x, layers.Dense(3)(y))
    zero(model.get_layer("dead"), [0, 1], bias=2.0)
    small = shrink(model)
    assert small.get_layer("dead").units == 4
    assert_close(ops.convert_to_numpy(small(VECTORS)), ops.convert_to_numpy(model(VECTORS)))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["Dropout", "GaussianNoise"])
@pytest.mark.parametrize("constant", [0.0, 5.0])
def test_a_constant_under_noise_that_is_always_on_is_none(
    constant: float, kind: str, nested: bool
) -> None:
    x = keras.Input((5,))
    noise = getattr(layers, kind)(0.5)
    if nested:
        z = keras.Input((6,))
        y = keras.Model(z, noise(z))(layers.Dense(6, name="dead")(x), training=True)
    else:
        y = noise(layers.Dense(6, name="dead")(x), training=True)
    model = made(x, layers.Dense(3)(y))
    zero(model.get_layer("dead"), [0, 1], bias=constant)
    goes = constant == 0 and kind == "Dropout"
    assert shrink(model).get_layer("dead").units == (4 if goes else 6)


def test_dropout_of_whole_channels_still_trains() -> None:
    x = keras.Input((4, 5))
    y = layers.Dropout(0.5, noise_shape=(None, 1, 6))(layers.Dense(6, name="dead")(x))
    model = made(x, layers.Dense(3)(y))
    zero(model.get_layer("dead"), [0, 1], bias=0.0)
    small = shrunk(model, ROWS)
    small(ROWS, training=True)
    assert [layer.noise_shape for layer in small.layers if hasattr(layer, "noise_shape")] == [
        (None, 1, 4)
    ]


def test_a_nested_model_may_be_given_a_constant() -> None:
    a, b = keras.Input((8,)), keras.Input((8,))
    inner = keras.Model([a, b], layers.Dense(6)(layers.Add()([a, b])), name="inner")
    x = keras.Input((5,))
    y = inner([layers.Dense(8, "relu", name="dead")(x), ops.ones((1, 8))])
    model = made(x, layers.Dense(2)(y))
    zero(model.get_layer("dead"), [0, 1], bias=0.0)
    shrunk(model, VECTORS)


def test_a_frozen_layer_inside_a_layer_stays_frozen() -> None:
    x = keras.Input((4, 5))
    attention = layers.MultiHeadAttention(2, 3)
    model = made(x, layers.Dense(2, name="last")(attention(layers.Dense(6, name="dead")(x), x)))
    attention._query_dense.trainable = False
    zero(model.get_layer("dead"), [0])
    small = shrunk(model, ROWS)
    assert len(small.trainable_weights) == len(model.trainable_weights)


class Stack(keras.Sequential):
    """A Sequential of one's own."""

    def train_step(self, *args: Any) -> Any:
        return super().train_step(*args)


class Sized(keras.Sequential):
    """One that is not made from its layers alone."""

    def __init__(self, stack: list[Any], size: int = 3, **kwargs: Any) -> None:
        super().__init__(stack, **kwargs)
        self.size = size


def test_a_sequential_class_of_ones_own_stays_and_says_what_it_lost() -> None:
    stack = [keras.Input((5,)), layers.Dense(6, name="dead"), layers.Dense(2)]
    model = Stack(stack)
    zero(model.get_layer("dead"), [0, 1], bias=0.0)
    assert type(shrunk(model, VECTORS)) is Stack
    other = Sized([keras.Input((5,)), layers.Dense(6, name="dead"), layers.Dense(2)])
    zero(other.get_layer("dead"), [0, 1], bias=0.0)
    with pytest.warns(UserWarning, match="Sized cannot be made from layers"):
        small = shrink(other)
    assert type(small) is keras.Sequential


def test_means_and_moves_by_operations_are_followed() -> None:
    x = keras.Input((6, 6, 3))
    y = layers.Conv2D(8, 3, name="dead", activation=layers.LeakyReLU(0.1))(x)
    gate = layers.Dense(8, "sigmoid")(ops.mean(y, axis=[1, 2], keepdims=True))
    y = ops.multiply(y, gate)
    y = ops.squeeze(ops.expand_dims(ops.transpose(y, [0, 2, 1, 3]), 1), 1)
    model = made(x, layers.Dense(2)(ops.max(y, axis=(1, -2))))
    zero(model.get_layer("dead"), [0, 1, 2], bias=0.0)
    images = np.random.default_rng(3).normal(size=(4, 6, 6, 3)).astype("float32")
    assert shrunk(model, images).get_layer("dead").filters == 5


@keras.saving.register_keras_serializable(package="keras_l0_tests")
class Transposed(layers.Layer):
    """Multiplies by the transposed kernel of another layer."""

    def __init__(self, dense: layers.Dense, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = dense

    def call(self, x: Tensor) -> Tensor:
        return ops.matmul(x, ops.transpose(self.dense.kernel))


class TransposedVariable(layers.Layer):
    """Multiplies by a transposed variable of another layer; it has no configuration."""

    def __init__(self, kernel: keras.Variable, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel = kernel

    def call(self, x: Tensor) -> Tensor:
        return ops.matmul(x, ops.transpose(self.kernel))


def tied(kind: str) -> keras.Model:
    """Two uses of one weight, of which four channels are dead."""
    words = kind in ("embedding", "reversible embedding")
    start = keras.Input((4,), dtype="int32") if words else keras.Input((3, 20))
    first = layers.Dense(8, "relu", name="first")
    if kind == "reversible embedding":
        first = layers.ReversibleEmbedding(20, 8, name="first")
    elif kind == "embedding":
        first = layers.Embedding(20, 8, name="first")
    hidden = first(start)
    hidden = layers.Dense(8, "relu", name="hidden")(hidden)
    if kind == "reversible embedding":
        end = first(hidden, reverse=True)
    elif kind in ("embedding", "variable"):
        variable = first.embeddings if words else first.kernel
        end = TransposedVariable(variable, name="second")(hidden)
    elif kind == "wrapper":
        again = layers.Dense(20)(hidden)
        end = layers.TimeDistributed(first, name="second")(again)
    else:
        end = Transposed(first, name="second")(hidden)
    model = keras.Model(start, end)
    kernel, bias = model.get_layer("hidden").get_weights()
    model.get_layer("hidden").set_weights([kernel * (np.arange(8) > 3), bias])
    return model


@pytest.mark.parametrize("kind", ["layer", "variable", "embedding", "wrapper"])
def test_layers_that_share_a_weight_are_named_and_the_model_is_not_shrunk(kind: str) -> None:
    with pytest.raises(ValueError, match=r"first and second share first/\w+.*Prune the weights"):
        shrink(tied(kind))


def test_one_layer_that_is_used_in_two_ways_is_no_larger_after() -> None:
    model = tied("reversible embedding")
    small = shrink(model)
    assert small.count_params() <= model.count_params()
    words = np.random.default_rng(0).integers(0, 20, (3, 4))
    assert_close(
        ops.convert_to_numpy(small(words)),
        ops.convert_to_numpy(model(words)),
    )


def test_training_the_small_model_leaves_the_given_one_its_weights() -> None:
    """On JAX, ``fit`` deletes arrays of before: none may be shared, of whatever layer."""
    inputs = keras.Input((6,))
    x = keras.layers.LayerNormalization()(keras.layers.Dense(8, "relu")(inputs))
    x = keras.layers.Reshape((2, 4))(x)
    x = keras.layers.Flatten()(keras.layers.MultiHeadAttention(1, 2)(x, x))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    data = np.ones((4, 6), "float32")
    before = model.predict(data, verbose=0)
    small = shrink(model)
    small.compile("sgd", "mse")
    small.fit(data, np.zeros((4, 2)), epochs=2, verbose=0)
    np.testing.assert_array_equal(model.predict(data, verbose=0), before)
