"""Quantization-aware training of models of Keras 3: the zeros and the clusters stay."""

import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from strategies import assert_same_bits, numpy_weights, small_classifier

if importlib.util.find_spec("tensorflow_model_optimization") is None:
    pytest.skip('needs: pip install "keras_l0[tensorflow,tfmot]"', allow_module_level=True)

import tf_keras

from keras_l0 import prune, shrink
from keras_l0.export import flatfile
from keras_l0.tfmot import quantize_aware, to_tf_keras
from keras_l0.tfmot.legacy import VARIABLE, toolkit, undisturbed

rng = np.random.default_rng(0)
X = rng.normal(size=(64, 8, 8, 3)).astype("float32")
Y = rng.integers(0, 3, 64)


def branching() -> keras.Model:
    """What tfmot's own training loses zeros of: before a ReLU layer, before a Concatenate, and in
    depthwise kernels."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, name="before_relu")(inputs)
    x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    sides = [layers.Conv2D(8, 1, name=f"before_concatenate_{side}")(x) for side in "ab"]
    x = layers.GlobalAveragePooling2D()(layers.Concatenate()(sides))
    model = keras.Model(inputs, layers.Dense(3, "softmax", name="last")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def kernels(model: Any) -> dict[str, Any]:
    return {
        weight.path: ops.convert_to_numpy(weight)
        for weight in model.weights
        if weight.name.endswith("kernel")
    }


def constants(path: Path) -> dict[str, Any]:
    """The int8 kernels of a dense file, by the layer."""
    model = flatfile.read(path.read_bytes())
    found = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if flatfile.has_data(model, tensor) and flatfile.type_name(tensor) == "int8":
                values = flatfile.values(model, tensor)
                if values.ndim > 1:
                    found[tensor.name.decode().partition("/")[0]] = values
    return found


def answers(path: Path, x: Any) -> Any:
    """What a file of one input and output makes of samples."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    run = interpreter.Interpreter(str(path)).get_signature_runner()
    (name,) = run.get_input_details()
    return np.concatenate([next(iter(run(**{name: one[None]}).values())) for one in x])


def their_zeros_lost(model: keras.Model) -> set[str]:
    """The kernels that lose zeros by tfmot's own pruning-preserving training."""
    before = {path: values == 0 for path, values in kernels(model).items()}
    with undisturbed():
        tfmot = toolkit()
        scheme = tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
        annotated = tfmot.quantization.keras.quantize_annotate_model(to_tf_keras(model))
        theirs = tfmot.quantization.keras.quantize_apply(annotated, scheme)
        theirs.compile(tf_keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
        theirs.fit(X, Y, epochs=2, verbose=0)
    after = {weight.name: weight.numpy() for weight in theirs.weights}
    there = {path: path.replace("depthwise/", "depthwise/depthwise_") for path in before}
    return {path for path, zero in before.items() if after[f"{there[path]}:0"][zero].any()}


def test_zeros_stay_where_tfmots_own_training_loses_them(tmp_path: Path) -> None:
    """What tensorflow/model-optimization#979 is about: kernels whose zeros change in training."""
    model = branching()
    prune(model, 0.6, method="layerwise")
    before, path = kernels(model), tmp_path / "m.tflite"
    assert {"before_relu/kernel", "depthwise/kernel"} <= their_zeros_lost(model)
    trained, report = quantize_aware(model, (X, Y), path, epochs=2, learning_rate=1e-3)
    for name, values in kernels(trained).items():
        assert np.array_equal(values == 0, before[name] == 0)  # and none came to them
        assert not np.array_equal(values, before[name])
    assert report.chosen == "int8-dense"
    found = constants(path)
    assert len(found) == len(before)
    for name, values in kernels(trained).items():
        stored = found[name.partition("/")[0]]
        order = (3, 0, 1, 2) if values.ndim == 4 else (1, 0)
        if "depthwise" in name:
            order = (3, 0, 1, 2)
        assert not stored[np.transpose(values, order).reshape(stored.shape) == 0].any()
    assert_same_bits(list(kernels(model).values()), list(before.values()))


def test_clusters_stay_too(tmp_path: Path) -> None:
    model = branching()
    prune(model, 0.6)
    before = kernels(model)
    with pytest.warns(UserWarning, match="clusters no kernel of DepthwiseConv2D"):
        trained, _ = quantize_aware(
            model, (X, Y), tmp_path / "m.tflite", clusters=5, epochs=2, learning_rate=1e-2
        )
    for name, values in kernels(trained).items():
        assert not values[before[name] == 0].any()
        assert "depthwise" in name or len(np.unique(values)) <= 5
    assert all(
        "depthwise" in name or len(np.unique(values)) <= 5
        for name, values in constants(tmp_path / "m.tflite").items()
        if name == "last"  # elsewhere each channel has a scale of its own
    )


def test_the_file_is_that_of_the_model_that_was_trained(tmp_path: Path) -> None:
    """tfmot's ranges begin at ±6 and would cut off what is sixty times as large; and the converter
    loses the factor where tfmot does not round its result."""
    inputs = keras.Input((16,))
    x = layers.Dense(32, "relu", kernel_initializer="he_normal")(inputs)
    model = keras.Model(inputs, layers.Dense(4)(layers.Rescaling(60.0)(x)))
    model.compile("adam", "mse")
    prune(model, 0.5)
    x = np.random.default_rng(1).normal(size=(200, 16)).astype("float32")
    y = model.predict(x, verbose=0)
    trained, report = quantize_aware(model, (x, y), tmp_path / "m.tflite", learning_rate=0.0)
    assert_same_bits(numpy_weights(trained), numpy_weights(model))
    found = answers(tmp_path / "m.tflite", x)
    assert np.abs(found - y).max() < 0.03 * np.abs(y).max()
    assert report.notes == ()


def test_an_activation_before_a_normalization_stays(tmp_path: Path) -> None:
    """It is dropped by tfmot's way to fold a normalization into the layer before."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    model.compile("adam", "mse")
    prune(model, 0.3)
    y = model.predict(X, verbose=0)
    _, report = quantize_aware(model, (X, y), tmp_path / "m.tflite", learning_rate=0.0)
    assert any("norm" in note for note in report.notes)
    found = answers(tmp_path / "m.tflite", X)
    assert np.corrcoef(found.ravel(), y.ravel())[0, 1] > 0.95


IDS = rng.integers(0, 20, (64, 6))


@pytest.mark.parametrize(
    ("dtype", "masked"), [("int32", False), ("int32", True), ("float32", False)]
)
def test_ids_are_not_rounded(dtype: str, masked: bool, tmp_path: Path) -> None:
    ids = IDS.astype(dtype)
    inputs = keras.Input((6,), dtype=dtype)
    x = layers.Embedding(20, 8, mask_zero=masked, name="words")(inputs)
    x = layers.GlobalAveragePooling1D()(layers.Dense(8, "relu")(x))
    model = keras.Model(inputs, layers.Dense(3)(x))
    model.compile("adam", "mse")
    prune(model, 0.3, layers="*")
    y = model.predict(ids, verbose=0)
    path = tmp_path / "m.tflite"
    _, report = quantize_aware(model, (ids, y), path, learning_rate=0.0)
    assert report is not None
    assert "tfmot quantizes no Embedding: words" in report.notes[0]
    assert len(report.notes) == 1
    assert np.abs(answers(path, ids) - y).max() < 0.05 * np.abs(y).max()
    trained, _ = quantize_aware(model, (ids, y + 1), path, learning_rate=1e-2)
    words, was = (one.get_layer("words").get_weights()[0] for one in (trained, model))
    assert (was == 0).any()
    assert not words[was == 0].any()


def test_inputs_beyond_the_data_are_not_cut_off(tmp_path: Path) -> None:
    inputs = keras.Input((12,))
    model = keras.Model(inputs, layers.Dense(3)(layers.Dense(16, "relu")(inputs)))
    model.compile("adam", "mse")
    prune(model, 0.5)
    x = rng.normal(size=(64, 12)).astype("float32")
    path, y = tmp_path / "m.tflite", model.predict(10 * x, verbose=0)
    quantize_aware(model, (x, y), path, learning_rate=0.0, check_data=10 * x)
    assert np.abs(answers(path, 10 * x) - y).max() < 0.05 * np.abs(y).max()


def test_a_model_that_rounding_changes_is_told_of(tmp_path: Path) -> None:
    """An activation's range moves by a thousandth a batch: its tail is cut off."""
    inputs = keras.Input((12,))
    model = keras.Model(inputs, layers.Dense(3, name="last")(inputs))
    model.compile("adam", "mse")
    prune(model, 0.5)
    x = rng.normal(size=(64, 12)).astype("float32")
    _, report = quantize_aware(
        model, (x, 100 + x[:, :3]), tmp_path / "m.tflite", epochs=20, learning_rate=1.0
    )
    assert report is not None
    assert any("of the returned model: train longer" in note for note in report.notes)


def test_losses_go_by_the_outputs_names(tmp_path: Path) -> None:
    inputs = keras.Input((8,))
    outputs = [layers.Dense(3, name="a")(inputs), layers.Dense(2, "sigmoid", name="b")(inputs)]
    model = keras.Model(inputs, outputs)
    model.compile("adam", {"a": "mse", "b": keras.losses.BinaryCrossentropy()})
    prune(model, 0.5)
    x = rng.normal(size=(32, 8)).astype("float32")
    data = x, {"a": x[:, :3], "b": (x[:, :2] > 0).astype("float32")}
    _, report = quantize_aware(model, data, tmp_path / "m.tflite")
    assert report is not None


def test_lists_are_of_batches_and_batches_may_be_fixed(tmp_path: Path) -> None:
    inputs = keras.Input(batch_shape=(32, 8))
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    model.compile("adam", "mse")
    prune(model, 0.5)
    x = rng.normal(size=(32, 8)).astype("float32")
    _, report = quantize_aware(model, [(x, x[:, :3])] * 2, tmp_path / "m.tflite")
    assert report is not None
    assert not any("from sample to sample" in note for note in report.notes)


def test_what_no_output_comes_from_stays_as_it_is(tmp_path: Path) -> None:
    given = keras.Input((8,))
    used, unused = layers.Dense(4, name="used")(given), layers.Dense(4, name="unused")(given)
    inner = keras.Model(given, [used, unused], name="inner")
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(2)(inner(inputs)[0]))
    model.compile("adam", "mse")
    prune(model, 0.5)
    x = rng.normal(size=(32, 8)).astype("float32")
    trained, _ = quantize_aware(model, (x, x[:, :2]), tmp_path / "m.tflite", learning_rate=1e-2)
    for name, stays in (("used", False), ("unused", True)):
        new, old = (
            one.get_layer("inner").get_layer(name).get_weights()[0] for one in (trained, model)
        )
        assert np.array_equal(new, old) == stays


def inception(inputs: Any) -> list[Any]:
    def normalized(x: Any, filters: int) -> Any:
        x = layers.Conv2D(filters, 3, padding="same")(x)
        return layers.ReLU()(layers.BatchNormalization()(x))

    sides = [normalized(inputs, 4), normalized(normalized(inputs, 5), 6), normalized(inputs, 3)]
    return [*sides, layers.AveragePooling2D(3, 1, padding="same")(inputs)]


SIDES: dict[str, Callable[[Any], list[Any]]] = {
    "a normalized one first": lambda x: inception(x)[::3],
    "four": inception,
    "one twice": lambda x: [inception(x)[0]] * 2,
}


@pytest.mark.parametrize("sides", SIDES)
def test_what_is_concatenated_keeps_its_order(sides: str, tmp_path: Path) -> None:
    """tfmot brings it into the order of layers, of which those that it replaced are the last."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Flatten()(layers.Concatenate()(SIDES[sides](inputs)))
    model = keras.Model(inputs, layers.Dense(3)(x))
    model.compile("adam", "mse")
    prune(model, 0.3)
    y = model.predict(X, verbose=0)
    quantize_aware(model, (X, y), tmp_path / "m.tflite", learning_rate=0.0)
    assert np.abs(answers(tmp_path / "m.tflite", X) - y).max() < 0.05 * np.abs(y).max()


def test_what_merely_begins_at_zero_is_trained(tmp_path: Path) -> None:
    inner = layers.Conv2D(4, 3), layers.PReLU(name="slopes"), layers.Flatten(), layers.Dense(3)
    model = keras.Sequential([keras.Input((8, 8, 3)), *inner])
    model.compile("adam", "mse")
    prune(model, 0.3)
    y = rng.normal(size=(64, 3))
    trained, _ = quantize_aware(model, (X, y), tmp_path / "m.tflite", learning_rate=1e-2)
    assert trained.get_layer("slopes").get_weights()[0].any()


def shared_with_inner() -> keras.Model:
    shared = layers.Dense(8)
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8, "relu"), shared])
    inputs = keras.Input((8,))
    return keras.Model(inputs, shared(inner(inputs)))


def operation_twice() -> keras.Model:
    given, inputs = keras.Input((8,)), keras.Input((8,))
    inner = keras.Model(given, layers.Dense(8)(given) + 1.0)
    return keras.Model(inputs, inner(inner(inputs)))


def named_like_the_input() -> keras.Model:
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="x")])
    inputs = keras.Input((8,), name="x")
    return keras.Model(inputs, layers.Dense(8)(inner(inputs)))


@pytest.mark.parametrize("make", [shared_with_inner, operation_twice, named_like_the_input])
def test_layers_of_models_inside_have_names_of_their_own(
    make: Callable[[], keras.Model], tmp_path: Path
) -> None:
    model = make()
    model.compile("adam", "mse")
    prune(model, 0.3)
    x = rng.normal(size=(64, 8)).astype("float32")
    y = model.predict(x, verbose=0)
    trained, _ = quantize_aware(model, (x, y), tmp_path / "m.tflite", learning_rate=0.0)
    assert_same_bits(numpy_weights(trained), numpy_weights(model))
    assert np.abs(answers(tmp_path / "m.tflite", x) - y).max() < 0.05 * np.abs(y).max()


def test_weights_of_one_name_are_refused(tmp_path: Path) -> None:
    inputs = keras.Input((5, 4))
    cells = [layers.LSTMCell(4, name="cell") for _ in range(2)]
    model = keras.Model(inputs, layers.RNN(cells)(inputs))
    model.compile("adam", "mse")
    prune(model, 0.3)
    x = rng.normal(size=(64, 5, 4)).astype("float32")
    with pytest.raises(ValueError, match="Name the cells inside a layer differently"):
        quantize_aware(model, (x, x[:, 0]), tmp_path / "m.tflite")


def test_losses_go_by_the_names_of_models_inside(tmp_path: Path) -> None:
    inputs = keras.Input((8,))
    heads = [
        keras.Sequential([keras.Input((8,)), layers.Dense(number)], name=name)
        for name, number in (("head", 3), ("tail", 2))
    ]
    model = keras.Model(inputs, [head(inputs) for head in heads])
    model.compile("adam", {"head": "mse", "tail": "mae"}, loss_weights={"head": 1, "tail": 0})
    prune(model, 0.3)
    x = rng.normal(size=(64, 8)).astype("float32")
    data = x, {"head": x[:, :3], "tail": x[:, :2]}
    trained, _ = quantize_aware(model, data, tmp_path / "m.tflite", learning_rate=1e-2)
    changed = [
        not np.array_equal(new, old)
        for new, old in zip(numpy_weights(trained), numpy_weights(model), strict=True)
    ]
    assert changed == [True, True, False, False]


@pytest.mark.slow
def test_what_the_converter_does_not_take_has_a_remedy(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((5, 8)), layers.LSTM(8), layers.Dense(3)])
    model.compile("adam", "mse")
    prune(model, 0.3)
    x = rng.normal(size=(64, 5, 8)).astype("float32")
    with pytest.warns(UserWarning, match="Give recurrent layers unroll=True"):
        _, report = quantize_aware(model, (x, x[:, 0, :3]), tmp_path / "m.tflite")
    assert report is None


def double() -> keras.Model:
    inputs = keras.Input((8,), dtype="float64")
    return keras.Model(inputs, layers.Dense(3, dtype="float64")(inputs))


def uneven() -> keras.Model:
    inputs = keras.Input((8,))
    return keras.Model(inputs, [layers.Dense(2)(inputs), {"k": layers.Dense(3)(inputs)}])


@pytest.mark.parametrize("make", [double, uneven])
def test_what_tfmot_does_not_take_is_refused(
    make: Callable[[], keras.Model], tmp_path: Path
) -> None:
    model = make()
    model.compile("adam", "mse")
    prune(model, 0.3)
    x = rng.normal(size=(32, 8)).astype("float32")
    y = model.predict(x, verbose=0)
    with pytest.raises(ValueError, match="a model that tfmot's quantization takes"):
        quantize_aware(model, (x, y), tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


def nested() -> keras.Model:
    """A model inside, twice, whose layer is named like one outside; frozen in part."""
    inner = keras.Sequential(
        [keras.Input((8,)), layers.Dense(8, "relu", name="one", trainable=False), layers.Dense(8)],
        name="inner",
    )
    inputs = keras.Input((8,))
    base = keras.Sequential([keras.Input((8,)), layers.Dense(8)], name="base")
    base.trainable = False
    return keras.Model(inputs, layers.Dense(4, name="one")(base(inner(inner(inputs)))))


def named_inputs() -> keras.Model:
    a, b = (keras.Input((8,), name=name) for name in "ab")
    x = layers.Concatenate()([a, b])
    return keras.Model(
        {"a": a, "b": b}, {name: layers.Dense(4, name=name)(x) for name in ("u", "v")}
    )


def transposed() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = layers.SeparableConv2D(4, 3, activation="relu", name="separable")(inputs)
    x = layers.Conv2DTranspose(4, 3)(x)
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling2D()(x)))


def unusual() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="elu", name="elu")(inputs)
    x = layers.Activation("hard_silu", name="silu")(x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


def sequences() -> keras.Model:
    inputs = keras.Input((5, 8))
    x = layers.LSTM(8, unroll=True, name="recurrent")(inputs)
    return keras.Model(inputs, layers.Dense(2)(x))


def half() -> keras.Model:
    with_policy = {"dtype": "mixed_float16"}
    inputs = keras.Input((16,))
    x = layers.Dense(32, "relu", **with_policy)(inputs)
    return keras.Model(inputs, layers.Dense(8, dtype="float32")(x))


KINDS: dict[Callable[[], keras.Model], str] = {
    nested: "",
    named_inputs: "",
    transposed: "tfmot quantizes no SeparableConv2D: separable",
    unusual: "tfmot quantizes no Conv2D with elu: elu",
    sequences: "tfmot quantizes no LSTM: recurrent",
    half: "mixed precision is for training",
}


@pytest.mark.parametrize("make", KINDS)
def test_other_models_train_and_what_stays_is_named(
    make: Callable[[], keras.Model], tmp_path: Path
) -> None:
    model = make()
    model.compile("adam", "mse")
    prune(model, 0.5, layers="*")

    def some(tensor: Any) -> Any:
        return rng.normal(size=(32, *tensor.shape[1:])).astype("float32")

    x, y = (keras.tree.map_structure(some, one) for one in (model.input, model.output))
    trained, report = quantize_aware(model, (x, y), tmp_path / "m.tflite", learning_rate=1e-2)
    assert KINDS[make] in " ".join(report.notes)
    flags = [
        [one.trainable for one in net._flatten_layers() if one.weights] for net in (trained, model)
    ]
    assert flags[0] == flags[1]
    frozen = {id(weight) for weight in model.non_trainable_weights}
    for new, old in zip(trained.weights, model.weights, strict=True):
        values, was = ops.convert_to_numpy(new), ops.convert_to_numpy(old)
        assert np.array_equal(values, was) == (id(old) in frozen), old.path
        if old.name.endswith("kernel"):
            assert not values[was == 0].any()


@pytest.mark.slow
def test_a_shrunk_network_of_applications_trains(tmp_path: Path) -> None:
    model = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=0.35, weights=None, classes=3
    )
    prune(model, 0.5, method="layerwise")
    model = shrink(model)
    model.compile("adam", "sparse_categorical_crossentropy")
    x = rng.normal(size=(32, 32, 32, 3)).astype("float32")
    zeros = {path: values == 0 for path, values in kernels(model).items()}
    trained, report = quantize_aware(model, (x, rng.integers(0, 3, 32)), tmp_path / "m.tflite")
    assert all(not values[zeros[path]].any() for path, values in kernels(trained).items())
    assert not any("in float32" in note for note in report.notes)


def test_nothing_else_of_the_process_changes(tmp_path: Path) -> None:
    before = keras.backend.backend(), keras.__version__, os.environ.get(VARIABLE)
    model = small_classifier()
    prune(model, 0.5)
    quantize_aware(model, (X, Y), tmp_path / "m.tflite")
    assert (keras.backend.backend(), keras.__version__, os.environ.get(VARIABLE)) == before
    model.fit(X, Y, epochs=1, verbose=0)


def test_a_dense_model_is_trained_with_a_note(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="has no zeros that could be kept: prune it first"):
        quantize_aware(small_classifier(), (X, Y), tmp_path / "m.tflite")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"clusters": 2}, "`clusters`. Expected an integer >= 3. Received: clusters=2"),
        ({"data": (X[:, :4], Y)}, "`data`. Expected examples and targets that the model"),
        ({"data": [(X[:, :4], Y)]}, "`data`. Expected samples of shape (None, 8, 8, 3)"),
        (
            {"data": (pair for pair in [(X, Y)]), "check_data": X, "clusters": 4},
            "`data`. Expected a data set that can be gone over twice, with `clusters`",
        ),
        ({"data": (pair for pair in [(X, Y)])}, "`check_data`. Expected samples, since `data`"),
        ({"check_data": X[:, :4]}, "`check_data`. Expected samples of shape (None, 8, 8, 3)"),
        ({"path": "nowhere/m.tflite"}, "`path`."),
        ({"epochs": 0}, "`epochs`. Expected an integer >= 1"),
        ({"learning_rate": -1.0}, "`learning_rate`. Expected a finite float >= 0"),
        ({"tolerance": 0}, "`tolerance`. Expected a positive finite number"),
        ({"optimize_for": "fun"}, "`optimize_for`. Expected "),
        ({"target": "fun"}, "`target`. Expected "),
    ],
)
def test_what_cannot_be_trained_is_refused_and_changes_nothing(
    arguments: dict[str, Any], text: str, tmp_path: Path
) -> None:
    model = small_classifier()
    prune(model, 0.5)
    before = numpy_weights(model)
    given = {"data": (X, Y), "path": tmp_path / "m.tflite", **arguments}
    with pytest.raises(ValueError, match="Invalid value for argument ") as error:
        quantize_aware(model, **given)
    assert text in str(error.value)
    assert_same_bits(numpy_weights(model), before)
    assert not list(tmp_path.iterdir())


def test_a_subclassed_model_is_refused(tmp_path: Path) -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Own()
    model.compile("adam", "mse")
    x = np.ones((4, 3), "float32")
    model(x)
    with pytest.raises(ValueError, match=re.escape("Write it as keras.Model(inputs, outputs)")):
        quantize_aware(model, (x, x), tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


def test_a_training_that_diverges_writes_nothing(tmp_path: Path) -> None:
    model = small_classifier()
    prune(model, 0.5)
    with pytest.raises(RuntimeError, match="NaN or infinite"):
        quantize_aware(model, (X, Y), tmp_path / "m.tflite", epochs=3, learning_rate=1e38)
    assert not list(tmp_path.iterdir())


def test_a_model_that_was_trained_is_not_lost_with_its_file(tmp_path: Path) -> None:
    model = small_classifier()
    prune(model, 0.5)
    (tmp_path / "m.tflite").write_bytes(b"older")
    with pytest.warns(UserWarning, match="trained, but not exported. No file was written: none is"):
        trained, report = quantize_aware(model, (X, Y), tmp_path / "m.tflite", tolerance=1e-9)
    assert report is None
    assert not np.array_equal(numpy_weights(trained)[0], numpy_weights(model)[0])
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"older"]
