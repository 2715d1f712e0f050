"""What cannot be exported is refused early, by the names that it has in the model."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

pytest.importorskip("tensorflow", reason="exporting needs TensorFlow")
pytest.importorskip("ai_edge_litert", reason="exporting needs LiteRT")

from keras_l0.export import convert, tflite
from keras_l0.export.tflite import export_tflite

ON_TENSORFLOW = keras.config.backend() == "tensorflow"
only_on_tensorflow = pytest.mark.skipif(
    not ON_TENSORFLOW, reason="layers for text and what TFLite lacks are TensorFlow's"
)


def words(*, name: str = "words") -> keras.layers.Layer:
    return layers.StringLookup(vocabulary=["a", "b"], name=name)


def sentences() -> keras.Model:
    vectorize = layers.TextVectorization(
        vocabulary=["a", "b"], output_sequence_length=4, name="vectorize"
    )
    return keras.Sequential(
        [
            keras.Input((), dtype="string", name="sentence"),
            vectorize,
            layers.Embedding(4, 2),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def text_and_numbers() -> keras.Model:
    text = keras.Input((3,), dtype="string", name="sentence")
    numbers = keras.Input((2,), name="numbers")
    embedded = layers.Embedding(4, 2)(words()(text))
    joined = layers.Concatenate()([layers.Flatten()(embedded), numbers])
    return keras.Model({"numbers": numbers, "sentence": text}, layers.Dense(2)(joined))


def hashed_text() -> keras.Model:
    text = keras.Input((3,), dtype="string", name="sentence")
    hashed = layers.Embedding(5, 2)(layers.Hashing(5, name="hashes")(text))
    return keras.Model(text, layers.Dense(2)(layers.Flatten()(hashed)))


TEXT = {
    sentences: (["a b", "b", "a b a"], 'model.get_layer("vectorize").output'),
    text_and_numbers: (None, '[model.get_layer("words").output, model.inputs[0]]'),
    hashed_text: ([["a", "b", "c"]] * 3, 'model.get_layer("hashes").output'),
}


@only_on_tensorflow
@pytest.mark.parametrize("build", TEXT)
@pytest.mark.parametrize("given", [False, True])
def test_text_is_refused_before_any_work_with_a_remedy_that_works(
    build: Callable[[], keras.Model],
    given: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = build()
    data, behind = TEXT[build]
    check_data = np.array(data, object) if given else None
    with monkeypatch.context() as patched:
        patched.setattr(tflite, "read_inputs", lambda *_: pytest.fail("data were drawn"))
        with pytest.raises(ValueError, match="sentence") as caught:
            export_tflite(model, tmp_path / "m.tflite", check_data=check_data)
    message = str(caught.value)
    remedy = f"keras.Model({behind}, model.outputs)"
    assert remedy in message
    assert "check_data" not in message
    assert len(message) < 600
    part = eval(remedy)  # what the message tells to write
    data = [np.array([[1, 2, 3, 1]]) % 3] if build is sentences else [np.array([[1, 2, 0]])]
    data += [np.ones((1, 2), "float32")] * (len(part.inputs) - 1)
    report = export_tflite(part, tmp_path / "m.tflite", check_data=data)
    assert report.deviation < 1e-3


@only_on_tensorflow
def test_text_in_a_nested_or_subclassed_model_and_text_that_comes_out_are_refused(
    tmp_path: Path,
) -> None:
    text = keras.Input((3,), dtype="string", name="sentence")
    nested = keras.Model(text, layers.Dense(2)(hashed_text()(text)))

    class Subclassed(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.words = words()

        def call(self, x: Any) -> Any:
            return self.words(x)

    subclassed = Subclassed()
    subclassed(ops.convert_to_tensor(np.array([["a"]])))
    numbers = keras.Input((3,))
    named = layers.StringLookup(vocabulary=["a", "b"], invert=True, name="names")
    classes = keras.Model(numbers, named(layers.Dense(3)(numbers)))
    for model, name in ((nested, "sentence"), (subclassed, "words"), (classes, "names")):
        with pytest.raises(ValueError, match=rf"(text input|layer for text) {name}.*Build a model"):
            export_tflite(model, tmp_path / "m.tflite")


@pytest.mark.parametrize(
    "layer",
    [
        lambda stateful: layers.LSTM(2, stateful=stateful, name="states"),
        lambda stateful: layers.GRU(2, stateful=stateful, unroll=True, name="states"),
        lambda stateful: layers.Bidirectional(
            layers.SimpleRNN(2, stateful=stateful, name="states"), name="both"
        ),
        lambda stateful: keras.Sequential([layers.LSTM(2, stateful=stateful, name="states")]),
    ],
)
def test_a_stateful_layer_is_named_with_a_remedy_that_works(
    layer: Callable[[bool], keras.layers.Layer], tmp_path: Path
) -> None:
    def build(stateful: bool) -> keras.Model:
        start = keras.Input(batch_shape=(1, 4, 3))
        return keras.Model(start, layers.Dense(2)(layer(stateful)(start)))

    model = build(True)
    with pytest.raises(ValueError, match=r"states have stateful=True.*stateful=False") as caught:
        export_tflite(model, tmp_path / "m.tflite")
    assert len(str(caught.value)) < 600
    without = build(False)
    without.set_weights(model.get_weights())
    if ON_TENSORFLOW:
        assert export_tflite(without, tmp_path / "m.tflite").deviation < 1e-3


@keras.saving.register_keras_serializable(package="keras_l0_tests")
class Classify(layers.Layer):
    """Calls an operation that TFLite lacks."""

    def call(self, x: Any) -> Any:
        return ops.erfinv(ops.tanh(x))


def with_operation(apply: Callable[[Any], Any], name: str = "functional") -> keras.Model:
    start = keras.Input((4,))
    return keras.Model(start, apply(layers.Dense(4)(start)), name=name)


def squares(x: Any) -> Any:
    return ops.reshape(x, (-1, 2, 2))


@only_on_tensorflow
@pytest.mark.parametrize(
    ("build", "named"),
    [
        (
            lambda: with_operation(lambda x: ops.erfinv(ops.tanh(x))),
            "Erfinv, which the operation erfinv needs",
        ),
        (
            lambda: with_operation(lambda x: with_operation(lambda y: ops.inv(squares(y)))(x)),
            "MatrixInverse, which the operation inv needs",
        ),
        (
            lambda: with_operation(lambda x: layers.Dense(2)(Classify(name="classify")(x))),
            r"Erfinv, which the layer classify \(keras.ops.erfinv\) needs",
        ),
        (
            lambda: keras.Sequential(
                [
                    keras.Input((3,), dtype="int32"),
                    layers.IntegerLookup(vocabulary=[3, 5], name="numbers"),
                    layers.Embedding(4, 2),
                ]
            ),
            "LookupTableFindV2, which the layer numbers needs",
        ),
        (
            lambda: keras.Sequential(
                [
                    keras.Input((3,), dtype="int32"),
                    layers.Hashing(4, name="hashes"),
                    layers.Embedding(4, 2),
                ]
            ),
            "AsString, which the layer hashes needs",
        ),
    ],
)
def test_what_tflite_lacks_is_named_as_in_the_model(
    build: Callable[[], keras.Model], named: str, tmp_path: Path
) -> None:
    model = build()
    with pytest.raises(RuntimeError, match=named) as caught:
        export_tflite(model, tmp_path / "m.tflite")
    assert "layer functional" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert not [layer for layer in model._flatten_layers() if "call" in vars(layer)]


@only_on_tensorflow
@pytest.mark.parametrize(
    "apply",
    [
        lambda x: ops.argmax(x, axis=-1),
        lambda x: ops.argmin(x, axis=1, keepdims=True),
        lambda x: ops.cast(ops.argmax(squares(x), axis=1), "float32"),
        lambda x: with_operation(lambda y: ops.argmax(y, axis=-1))(x),
    ],
)
def test_argmax_and_argmin_in_the_graph_are_exported(
    apply: Callable[[Any], Any], tmp_path: Path
) -> None:
    model = with_operation(apply)
    assert export_tflite(model, tmp_path / "m.tflite").deviation == 0


off_tensorflow = pytest.mark.skipif(
    ON_TENSORFLOW, reason="TensorFlow's models are converted in this process"
)


@keras.saving.register_keras_serializable(package="keras_l0_tests")
def doubled(x: Any) -> Any:
    return ops.relu(x) * 2


def unregistered(x: Any) -> Any:
    return ops.relu(x) * 3


class Unregistered(layers.Layer):
    """Found by its module and name."""

    def call(self, x: Any) -> Any:
        return x + 1


def local_layer() -> keras.layers.Layer:
    @keras.saving.register_keras_serializable(package="keras_l0_tests")
    class Local(layers.Layer):
        def call(self, x: Any) -> Any:
            return x

    return Local(name="mine")


@off_tensorflow
@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (partial(layers.Dense, 2, activation=unregistered, name="mine"), "unregistered"),
        (lambda: layers.Lambda(unregistered, name="mine"), "unregistered"),
        (lambda: layers.Lambda(lambda x: x, name="mine"), "a lambda"),
        (lambda: layers.Dense(2, activation=lambda x: x, name="mine"), "a lambda"),
        (local_layer, "Local"),
        (lambda: keras.Sequential([local_layer()]), "Local"),
    ],
)
def test_what_another_process_cannot_import_is_named_before_it_starts(
    layer: Callable[[], keras.layers.Layer],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layer()])
    monkeypatch.setattr(convert.subprocess, "run", lambda *_, **__: pytest.fail("it started"))
    with pytest.raises(ValueError, match=rf"mine uses {named}'\. .*top level of a mod") as caught:
        export_tflite(model, tmp_path / "m.tflite")
    assert len(str(caught.value)) < 600
    assert list(tmp_path.iterdir()) == []


@off_tensorflow
def test_own_layers_and_functions_of_a_module_are_imported_by_the_other_process(
    tmp_path: Path,
) -> None:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, activation=doubled),
            Unregistered(),
            # Its configuration is one value, as that of a lambda for an activation.
            layers.Dense(
                2, kernel_regularizer="l2", bias_initializer=keras.initializers.Constant(0.1)
            ),
        ]
    )
    assert export_tflite(model, tmp_path / "m.tflite").deviation < 1e-3


@off_tensorflow
def test_a_wrapper_that_tensorflow_cannot_compute_is_named(tmp_path: Path) -> None:
    if keras.config.backend() == "torch":
        torch = pytest.importorskip("torch")
        wrapper = layers.TorchModuleWrapper(torch.nn.Linear(4, 4), name="inside")
    else:
        wrapper = layers.JaxLayer(lambda inputs: inputs * 2, name="inside")
    model = keras.Sequential([keras.Input((4,)), wrapper, layers.Dense(2)])
    model(np.ones((1, 4), "float32"))
    kind = type(wrapper).__name__
    for given in (model, keras.Sequential([model])):
        given(np.ones((1, 4), "float32"))
        with pytest.raises(ValueError, match=rf"the layer inside \({kind}\).*[Bb]uild"):
            export_tflite(given, tmp_path / "m.tflite")


@only_on_tensorflow
def test_a_saved_model_and_a_function_of_jax_in_a_layer_are_exported(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
    inner.export(tmp_path / "inner", verbose=False)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.TFSMLayer(tmp_path / "inner", call_endpoint="serve"),
            layers.JaxLayer(lambda inputs: inputs * 2),
            layers.Dense(2),
        ]
    )
    assert export_tflite(model, tmp_path / "m.tflite").deviation < 1e-3
