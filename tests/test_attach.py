"""regularize() acts at once, on every kind of layer, and stays with the model in files."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from strategies import invalid

from keras_l0 import L2L0, regularize

PENALTY = L2L0(l2=0.25, l0=0.5, beta=10)


def network(**first: Any) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, name="first", **first),
            layers.BatchNormalization(name="norm"),
            layers.Dense(2, name="out"),
        ],
        name="net",
    )


def penalty_of(*variables: keras.Variable) -> float:
    """Equation 17 with the factors of PENALTY, in float64."""
    total = 0.0
    for variable in variables:
        w = ops.convert_to_numpy(variable).astype(np.float64)
        total += 0.25 * np.sum(w * w) + 0.5 * np.sum(1 - np.exp(-10 * np.abs(w)))
    return total


def kernels(model: keras.Model) -> dict[str, keras.Variable]:
    return {v.path: v for v in model.variables if v.name.endswith("kernel")}


def loss_of(model: keras.Model) -> float:
    return float(sum(ops.convert_to_numpy(loss) for loss in model.losses))


def build(make: Callable[[Any], Any], *shape: int) -> keras.Model:
    inputs = keras.Input(shape)
    return keras.Model(inputs, make(inputs), name="net")


def nested(x: Any) -> Any:
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="deep")], name="inner")
    return layers.Dense(2, name="out")(inner(x))


def shared(x: Any) -> Any:
    layer = layers.Dense(3, name="shared")
    return layer(layer(x))


LAYERS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...], int]] = {
    "Dense": (lambda x: layers.Dense(2)(x), (3,), 1),
    "EinsumDense": (lambda x: layers.EinsumDense("ab,bc->ac", output_shape=2)(x), (3,), 1),
    "Conv2D": (lambda x: layers.Conv2D(2, 2)(x), (4, 4, 2), 1),
    "Conv1DTranspose": (lambda x: layers.Conv1DTranspose(2, 2)(x), (4, 2), 1),
    "DepthwiseConv2D": (lambda x: layers.DepthwiseConv2D(2)(x), (4, 4, 2), 1),
    "SeparableConv2D": (lambda x: layers.SeparableConv2D(3, 2)(x), (4, 4, 2), 2),
    "LSTM": (lambda x: layers.LSTM(2)(x), (3, 2), 2),
    "GRU": (lambda x: layers.GRU(2)(x), (3, 2), 2),
    "SimpleRNN": (lambda x: layers.SimpleRNN(2)(x), (3, 2), 2),
    "Bidirectional": (lambda x: layers.Bidirectional(layers.LSTM(2))(x), (3, 2), 4),
    "MultiHeadAttention": (lambda x: layers.MultiHeadAttention(2, 3)(x, x), (3, 4), 4),
    "GroupQueryAttention": (lambda x: layers.GroupQueryAttention(3, 2, 1)(x, x), (3, 4), 4),
    "TimeDistributed": (lambda x: layers.TimeDistributed(layers.Dense(2))(x), (3, 2), 1),
    "a nested model": (nested, (3,), 2),
    "a shared layer": (shared, (3,), 1),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_kernel_is_penalized_once_and_the_file_keeps_it(name: str, tmp_path: Path) -> None:
    make, shape, count = LAYERS[name]
    model = build(make, *shape)
    done = regularize(model, PENALTY)
    assert len(done.penalized) == count
    assert set(done.penalized) == set(kernels(model))
    assert all(found is PENALTY for found in done.penalized.values())
    assert done.unsaved == []
    expected = penalty_of(*kernels(model).values())
    assert loss_of(model) == pytest.approx(expected, rel=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loss_of(loaded) == pytest.approx(expected, rel=1e-5)
    regularize(loaded, None)
    assert loaded.losses == []


@pytest.mark.parametrize("fitted", [False, True])
def test_it_takes_effect_in_the_very_next_evaluate_and_fit(fitted: bool) -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x, y = np.zeros((4, 3), np.float32), np.zeros((4, 2), np.float32)
    if fitted:
        model.fit(x, y, verbose=0)
        assert model.evaluate(x, y, verbose=0) == 0.0
    regularize(model, PENALTY)
    before = ops.convert_to_numpy(model.layers[0].kernel).copy()
    expected = penalty_of(model.layers[0].kernel)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)
    history = model.fit(x, y, verbose=0).history
    assert history["loss"] == pytest.approx([expected], rel=1e-5)
    slope = 0.5 * before + 5 * np.sign(before) * np.exp(-10 * np.abs(before))
    after = ops.convert_to_numpy(model.layers[0].kernel).copy()
    np.testing.assert_allclose(after, before - 0.1 * slope, rtol=1e-4, atol=1e-6)
    regularize(model, None)
    assert model.fit(x, y, verbose=0).history["loss"] == [0.0]
    assert model.evaluate(x, y, verbose=0) == 0.0
    np.testing.assert_array_equal(ops.convert_to_numpy(model.layers[0].kernel), after)


def test_the_report_names_each_kernel_and_what_was_skipped() -> None:
    model = network(trainable=False)
    done = regularize(model, PENALTY)
    assert done.penalized == {"net/out/kernel": PENALTY}
    assert done.skipped["net/first"] == "it is frozen"
    assert done.skipped["net/norm"] == "BatchNormalization has no kernel"
    assert str(done).splitlines() == [
        "net/out/kernel: L2L0(l2=0.25, l0=0.5, beta=10)",
        "skipped, it is frozen: net/first",
        "skipped, BatchNormalization has no kernel: net/norm",
    ]
    assert model.layers[0].kernel.regularizer is None


def test_biases_normalization_and_embeddings_are_left_alone() -> None:
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Embedding(5, 4, embeddings_regularizer="l2"),
            layers.Flatten(),
            layers.Dense(2, bias_regularizer="l2"),
        ]
    )
    regularize(model, None)
    assert len(model.losses) == 2
    regularize(model, PENALTY)
    assert len(model.losses) == 3


def test_it_takes_the_place_of_what_was_there() -> None:
    model = network(kernel_regularizer="l2")
    regularize(model, PENALTY)
    assert loss_of(model) == pytest.approx(penalty_of(*kernels(model).values()), rel=1e-5)
    assert model.layers[0].kernel_regularizer is PENALTY


def test_keras_own_regularizers_are_accepted(tmp_path: Path) -> None:
    model = network()
    regularize(model, keras.regularizers.L2(0.5))
    expected = 0.5 * sum(np.sum(ops.convert_to_numpy(v) ** 2) for v in kernels(model).values())
    assert loss_of(model) == pytest.approx(expected, rel=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loss_of(loaded) == pytest.approx(expected, rel=1e-5)


def conv_and_dense() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(2, 3, name="conv_1"),
            layers.Conv2D(4, 3, name="conv_2"),
            layers.Flatten(name="flat"),
            layers.Dense(8, name="dense_1"),
            layers.Dense(3, name="dense_2"),
        ],
        name="net",
    )


@pytest.mark.parametrize(("scale", "scaled"), [("layer_size", True), ("layer_size_l0", False)])
def test_norm_scales_by_the_root_of_the_size_over_the_largest_of_the_kind(
    scale: str, scaled: bool
) -> None:
    done = regularize(conv_and_dense(), PENALTY, scale=scale)
    factors = {
        "net/conv_1/kernel": math.sqrt(18 / 72),
        "net/conv_2/kernel": 1.0,
        "net/dense_1/kernel": 1.0,
        "net/dense_2/kernel": math.sqrt(24 / 128),
    }
    assert set(done.penalized) == set(factors)
    for path, factor in factors.items():
        found = done.penalized[path].get_config()
        assert found == pytest.approx(
            {"l2": 0.25 * (factor if scaled else 1), "l0": 0.5 * factor, "beta": 10.0}
        )


def test_norm_scales_the_penalty_of_the_loss() -> None:
    model = network()
    regularize(model, keras.regularizers.L2(1.0), scale="layer_size")
    first, out = (ops.convert_to_numpy(v) for v in kernels(model).values())
    expected = np.sum(first**2) + math.sqrt(16 / 32) * np.sum(out**2)
    assert loss_of(model) == pytest.approx(expected, rel=1e-5)


def test_the_largest_is_the_largest_penalized() -> None:
    done = regularize(
        conv_and_dense(), PENALTY, scale="layer_size", overrides={"dense_1": None, "conv_2": None}
    )
    assert done.penalized["net/dense_2/kernel"].get_config()["l0"] == pytest.approx(0.5)
    assert done.penalized["net/conv_1/kernel"].get_config()["l0"] == pytest.approx(0.5)
    assert done.penalized["net/dense_1/kernel"] is None


def test_a_dense_layer_in_a_block_named_after_convolutions_is_still_dense() -> None:
    class ConvBlock(layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="block")
            self.conv = layers.Conv1D(4, 3, name="conv")
            self.dense = layers.Dense(2, name="dense")

        def build(self, shape: Any) -> None:
            self.conv.build(shape)
            self.dense.build((None, 4))

        def call(self, x: Any) -> Any:
            return self.dense(self.conv(x))

        def compute_output_shape(self, shape: Any) -> Any:
            return (shape[0], shape[1] - 2, 2)

    model = build(lambda x: ConvBlock()(x), 5, 2)
    done = regularize(model, L2L0(l0=0.5), scale="layer_size")
    assert [found.l0 for found in done.penalized.values()] == [0.5, 0.5]


def test_an_override_may_name_one_kernel_of_a_layer() -> None:
    model = keras.Sequential([keras.Input((4, 3)), keras.layers.LSTM(2, name="lstm")], name="net")
    done = regularize(model, None, overrides={"lstm/recurrent_kernel": PENALTY})
    kernels = {path.rpartition("/")[2]: penalty for path, penalty in done.penalized.items()}
    assert kernels == {"kernel": None, "recurrent_kernel": PENALTY}


def test_overrides_are_not_scaled() -> None:
    own = L2L0(l0=0.125)
    done = regularize(network(), PENALTY, scale="layer_size", overrides={"out": own})
    assert done.penalized["net/out/kernel"] is own


def test_of_several_overrides_the_first_that_matches_counts() -> None:
    one, two = L2L0(l0=0.125), L2L0(l0=0.25)
    overrides = {"net/first": one, "f*": two, "o?t": None}
    done = regularize(network(), PENALTY, overrides=overrides)
    assert done.penalized == {"net/first/kernel": one, "net/out/kernel": None}


def test_none_as_an_override_takes_the_penalty_off_that_layer() -> None:
    model = network(kernel_regularizer="l2")
    regularize(model, PENALTY, overrides={"first": None})
    assert model.layers[0].kernel_regularizer is None
    assert loss_of(model) == pytest.approx(penalty_of(model.layers[2].kernel), rel=1e-5)


def test_a_pattern_of_an_enclosing_layer_reaches_those_inside() -> None:
    done = regularize(build(nested, 3), PENALTY, overrides={"inner": None})
    assert sorted(done.penalized.values(), key=str) == [PENALTY, None]


@pytest.mark.parametrize("pattern", ["nothing", "norm", "first/bias"])
def test_a_pattern_that_matches_no_layer_with_a_kernel_is_refused(pattern: str) -> None:
    model = network()
    message = invalid(
        "overrides",
        "patterns that match a layer with a kernel to train",
        repr(pattern),
        "These have one: net/first, net/out",
    )
    with pytest.raises(ValueError, match=message):
        regularize(model, PENALTY, overrides={"first": None, pattern: None})
    assert model.losses == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"regularizer": "l2"},
            invalid("regularizer", "None or a keras.regularizers.Regularizer", "'l2'"),
        ),
        (
            {"overrides": {"out": 0.5}},
            invalid("overrides['out']", "None or a keras.regularizers.Regularizer", "0.5"),
        ),
        (
            {"scale": "size"},
            invalid("scale", 'None, "layer_size" or "layer_size_l0"', "'size'"),
        ),
        (
            {"scale": "layer_size_l0", "regularizer": keras.regularizers.L2(0.1)},
            invalid(
                "scale",
                "None, since the regularizer has no factor that it scales",
                "'layer_size_l0'",
            ),
        ),
        ({"model": 3}, invalid("model", "a keras.Model", "3")),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    model = network()
    with pytest.raises(ValueError, match=message):
        regularize(**{"model": model, "regularizer": PENALTY} | arguments)
    assert model.losses == []


def test_scale_needs_a_built_model() -> None:
    model = keras.Sequential([layers.Dense(2)], name="net")
    message = invalid(
        "model",
        "a built model",
        "'net'",
        "Call `model.build(input_shape)`, or the model on a batch, first",
    )
    with pytest.raises(ValueError, match=message):
        regularize(model, PENALTY, scale="layer_size")


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: layers.Dense(2), (3,)),
        (lambda: layers.SeparableConv2D(3, 2), (4, 4, 2)),
        (lambda: layers.LSTM(2), (3, 2)),
        (lambda: layers.Bidirectional(layers.GRU(2)), (3, 2)),
    ],
)
def test_on_a_model_not_built_it_takes_effect_once_it_is(
    make: Callable[[], Any], shape: tuple[int, ...]
) -> None:
    model = keras.Sequential([make(), layers.Flatten(), layers.Dense(2, name="out")])
    assert not model.built
    regularize(model, PENALTY, overrides={"out": None})
    model.build((None, *shape))
    *penalized, out = kernels(model).values()
    assert loss_of(model) == pytest.approx(penalty_of(*penalized), rel=1e-5)
    assert out.regularizer is None


@keras.saving.register_keras_serializable("test_attach")
class Attends(keras.Model):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 3, name="attention")

    def call(self, x: Any) -> Any:
        return self.attention(x, x)


def test_attention_in_a_model_not_built_is_penalized_and_said_not_to_be_saved() -> None:
    model = Attends(name="net")
    done = regularize(model, PENALTY)
    model(np.zeros((1, 3, 4), np.float32))
    assert loss_of(model) == pytest.approx(penalty_of(*kernels(model).values()), rel=1e-5)
    assert len(done.unsaved) == len(done.penalized) == 1
    again = regularize(model, PENALTY)
    assert len(again.unsaved) == 4
    assert f"not kept in files, regularize again after load: {again.unsaved[0]}, " in str(again)


@keras.saving.register_keras_serializable("test_attach")
class Block(layers.Layer):
    """A layer whose configuration says nothing of the layer inside."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = layers.Dense(2, name="dense")

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, x: Any) -> Any:
        return self.dense(x)


def test_what_a_file_will_not_keep_is_said(tmp_path: Path) -> None:
    model = build(lambda x: Block(name="block")(x), 3)
    done = regularize(model, PENALTY)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert bool(loaded.losses) != bool(done.unsaved)


def test_a_quantized_layer_is_skipped_and_named() -> None:
    model = network()
    model.layers[0].quantize("int8")
    done = regularize(model, PENALTY)
    assert done.penalized == {"net/out/kernel": PENALTY}
    assert done.skipped["net/first"] == "its kernel is quantized (int8)"


@pytest.mark.parametrize("part", ["query", "key", "value", "attention_output"])
def test_a_pattern_that_names_one_projection_of_an_attention_layer_is_not_widened(
    part: str,
) -> None:
    model = build(LAYERS["MultiHeadAttention"][0], 3, 4)
    try:
        done = regularize(model, PENALTY, overrides={f"*/{part}": None})
    except ValueError as error:
        assert "overrides" in str(error)  # noqa: PT017 (refusing it is as good)
    else:
        off = [path for path, penalty in done.penalized.items() if penalty is None]
        assert [path.split("/")[-2] for path in off] == [part]


def test_it_takes_effect_in_a_model_around_the_one_regularized() -> None:
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(2)], name="inner")
    model = keras.Sequential([keras.Input((3,)), inner], name="outer")
    model.compile("sgd", "mse")
    x, y = np.zeros((2, 3)), np.zeros((2, 2))
    model.evaluate(x, y, verbose=0)
    regularize(model, PENALTY, overrides={"inner": L2L0(l2=0.25, l0=0.5)})
    expected = penalty_of(*kernels(model).values())
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("direction", ["forward*", "backward*"])
def test_a_file_keeps_what_is_on_one_direction_alone_or_it_is_said(
    direction: str, tmp_path: Path
) -> None:
    model = build(lambda x: layers.Bidirectional(layers.GRU(2, name="gru"))(x), 3, 2)
    done = regularize(model, PENALTY, overrides={direction: None})
    assert [path for path, found in done.penalized.items() if found is None] != []
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    kept = loss_of(loaded) == pytest.approx(loss_of(model), rel=1e-5)
    assert kept == (done.unsaved == [])


@pytest.mark.parametrize(
    ("argument", "bad"),
    [("overrides", ["first"]), ("overrides", "first"), ("scale", ["layer_size"])],
)
def test_arguments_of_another_kind_are_refused_in_the_one_form(argument: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=rf"^Invalid value for argument `{argument}`\. Expected "):
        regularize(network(), PENALTY, **{argument: bad})
