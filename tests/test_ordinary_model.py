"""What Keras and the backend do with a model works after our callbacks as after a plain fit."""

import copy
import functools
import importlib.util
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from keras_l0 import (
    GlobalPrune,
    IterativePrune,
    KeepZeros,
    LayerwisePrune,
    NeuronPrune,
    RandomPrune,
    RelevanceDecay,
    compress,
    prune,
)

BACKEND = keras.backend.backend()
pytestmark = pytest.mark.filterwarnings("ignore")  # the exporters' own
rng = np.random.default_rng(0)
X = rng.normal(size=(16, 6)).astype("float32")
Y = rng.normal(size=(16, 2)).astype("float32")
FIT: dict[str, Any] = {"batch_size": 16, "shuffle": False, "verbose": 0}
Operation = Callable[[keras.Model, Path], Any]


def net(optimizer: Any = "adam", eager: bool = True) -> keras.Model:
    """Trained eagerly where all of a table is tried: tracing each step would take minutes."""
    inputs = keras.Input((6,))
    x = layers.BatchNormalization()(layers.Dense(8, "relu")(inputs))
    x = layers.Add()([x, layers.Dense(8, "tanh")(x)])
    model = keras.Model(inputs, layers.Dense(2)(x))
    model.compile(optimizer, "mse", run_eagerly=eager)
    return model


def load(model: keras.Model, path: Path) -> None:
    """The file has the variables of a plain model and its optimizer, and no others."""
    model.save(path / "m.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = keras.models.load_model(path / "m.keras")
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def weights(model: keras.Model, path: Path) -> None:
    model.save_weights(path / "m.weights.h5")
    model.load_weights(path / "m.weights.h5")


def checkpoint(model: keras.Model, path: Path) -> None:
    import tensorflow as tf

    tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(str(path / "checkpoint"))


def saved_model(model: keras.Model, path: Path) -> None:
    import tensorflow as tf

    tf.saved_model.save(model, str(path / "tf"))


def converter(model: keras.Model, _: Path) -> None:
    import tensorflow as tf

    tf.lite.TFLiteConverter.from_keras_model(model).convert()


QUICK: dict[str, Operation] = {
    "save": load,
    "save_weights": weights,
    "clone_model": lambda model, _: keras.models.clone_model(model)(X),
    "deepcopy": lambda model, _: copy.deepcopy(model),
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),
    **({"Checkpoint": checkpoint} if BACKEND == "tensorflow" else {}),
}
SLOW: dict[str, Operation] = {
    "export": lambda model, path: model.export(path / "saved", verbose=False),
    **(
        {
            "litert": lambda m, path: m.export(path / "m.tflite", format="litert", verbose=False),
            "tf.saved_model": saved_model,
            "TFLiteConverter": converter,
        }
        if BACKEND == "tensorflow"
        else {}
    ),
}
# They change the model, and so come last.
CHANGING: dict[str, Operation] = {
    "fit": lambda model, _: model.fit(X, Y, **FIT),
    "train_on_batch": lambda model, _: model.train_on_batch(X, Y),
    "compile": lambda model, _: model.compile("sgd", "mse", run_eagerly=True),
    "fit after compile": lambda model, _: model.fit(X, Y, **FIT),
    "quantize": lambda model, _: model.quantize("int8"),
    "save of the quantized": lambda model, path: model.save(path / "int8.keras"),
}


def outcomes(model: keras.Model, path: Path, operations: dict[str, Operation]) -> dict[str, str]:
    """What each operation raises."""
    found = {}
    for name, operation in operations.items():
        try:
            operation(model, path)
            found[name] = "works"
        except Exception as error:
            found[name] = type(error).__name__
    return found


class During(keras.callbacks.Callback):
    """Does something at the end of the last epoch."""

    def __init__(self, do: Callable[[], Any]) -> None:
        super().__init__()
        self._do = do

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.params["epochs"] - 1:
            self._do()


def interrupt(error: type[BaseException]) -> None:
    raise error("broken off")


STATES = ("during", "after", "RuntimeError", "KeyboardInterrupt")


def in_state(
    state: str,
    model: keras.Model,
    callbacks: list[keras.callbacks.Callback],
    path: Path,
    operations: dict[str, Operation],
) -> dict[str, str]:
    fit = functools.partial(model.fit, X, Y, epochs=2, validation_data=(X, Y), **FIT)
    found: dict[str, str] = {}
    if state == "during":
        during = During(lambda: found.update(outcomes(model, path, operations)))
        fit(callbacks=[*callbacks, during])
        assert found
        return found
    if state == "after":
        fit(callbacks=callbacks)
    else:
        error = {"RuntimeError": RuntimeError, "KeyboardInterrupt": KeyboardInterrupt}[state]
        with pytest.raises(error, match="broken off"):
            fit(callbacks=[*callbacks, During(lambda: interrupt(error))])
    return outcomes(model, path, operations)


# Those whose code around fit is not that of another one.
DIFFERENT = ("several", "GlobalPrune to a compression", "IterativePrune")
CALLBACKS: dict[str, Callable[[], list[keras.callbacks.Callback]]] = {
    "GlobalPrune": lambda: [GlobalPrune(0.5)],
    "GlobalPrune to a compression": lambda: [GlobalPrune(compression=2.0)],
    "LayerwisePrune": lambda: [LayerwisePrune(0.5)],
    "RandomPrune": lambda: [RandomPrune(0.5, seed=0)],
    "NeuronPrune": lambda: [NeuronPrune(0.25)],
    "KeepZeros": lambda: [KeepZeros()],
    "IterativePrune": lambda: [IterativePrune("val_loss", 1e9)],
    "several": lambda: [KeepZeros(), NeuronPrune(0.25), GlobalPrune(0.6)],
}


def expected(state: str, path: Path, operations: dict[str, Operation]) -> dict[str, str]:
    path = path / "plain"
    path.mkdir()
    found = in_state(state, net(), [], path, operations)
    for name in ("save", "save_weights", "deepcopy", "pickle", "fit"):
        assert found.get(name, "works") == "works", "the comparison says nothing"
    return found


@pytest.mark.parametrize("state", STATES)
def test_copies_and_files_work_as_after_a_plain_fit(state: str, tmp_path: Path) -> None:
    operations = {**QUICK, **CHANGING}
    plain = expected(state, tmp_path, operations)
    for name in CALLBACKS if state in ("after", "KeyboardInterrupt") else DIFFERENT:
        path = tmp_path / name
        path.mkdir()
        # Half of the time is that of quantize.
        tried = operations if name in DIFFERENT else {**QUICK, "fit": CHANGING["fit"]}
        found = in_state(state, net(), CALLBACKS[name](), path, tried)
        assert found == {one: plain[one] for one in tried}, name


@pytest.mark.parametrize(
    ("state", "name"),
    [
        *((state, "several") for state in STATES),
        ("after", "IterativePrune"),
    ],
)
@pytest.mark.skipif(BACKEND == "torch", reason="Keras exports a SavedModel of TensorFlow and JAX")
def test_exports_work_as_after_a_plain_fit(state: str, name: str, tmp_path: Path) -> None:
    model = net(eager=False)
    found = in_state(state, model, CALLBACKS[name](), tmp_path, SLOW)
    assert found == dict.fromkeys(SLOW, "works")


@pytest.mark.parametrize("state", ["during", "after"])
def test_relevance_decay_changes_nothing_of_it(state: str, tmp_path: Path) -> None:
    operations = {**QUICK, **CHANGING}
    if state == "after" and BACKEND == "tensorflow":
        operations = {**SLOW, **operations}
    plain = expected(state, tmp_path, operations)
    model = net(RelevanceDecay("adam", 1e-3, "auto"))
    assert in_state(state, model, [GlobalPrune(0.5)], tmp_path, operations) == plain


@pytest.mark.parametrize("shrink", [False, True])
def test_compress_gives_an_ordinary_model(shrink: bool, tmp_path: Path) -> None:
    given = net()
    asked: dict[str, Any] = (
        {"compression": 1.3, "scheme": "redundancy"} if shrink else {"sparsity": 0.5}
    )
    asked |= {"warmup": 1, "ramp": 1, "finetune": 1, "verbose": 0}
    result = compress(given, (X, Y), (X, Y), shrink=shrink, **asked)
    operations = {**QUICK, **CHANGING}
    if BACKEND == "tensorflow" and not shrink:
        operations = {**SLOW, **operations}
    plain = expected("after", tmp_path, operations)
    for place, model in enumerate({id(one): one for one in (given, result.model)}.values()):
        path = tmp_path / str(place)
        path.mkdir()
        assert outcomes(model, path, operations) == plain


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_other_formats_of_export_work_after_pruning(format: str, tmp_path: Path) -> None:
    needed = {"onnx": "tf2onnx", "openvino": "openvino"}[format]
    if BACKEND == "torch" or importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed: Keras cannot write {format} here")
    model = net()
    model.fit(X, Y, epochs=2, callbacks=[GlobalPrune(0.5)], **FIT)
    model.export(tmp_path / format, format=format, verbose=False)


@pytest.mark.parametrize("state", STATES[1:])
def test_nothing_is_left_on_the_model_or_optimizer_after_the_next_fit(
    state: str, tmp_path: Path
) -> None:
    model = net()
    model.fit(X, Y, validation_data=(X, Y), **FIT)
    before = set(vars(model)), set(vars(model.optimizer)), set(vars(model.history))
    in_state(state, model, CALLBACKS["several"](), tmp_path, {})
    model.fit(X, Y, validation_data=(X, Y), **FIT)
    after = set(vars(model)), set(vars(model.optimizer)), set(vars(model.history))
    assert [sorted(b ^ a) for b, a in zip(before, after, strict=True)] == [[], [], []]


def test_a_fit_within_a_fit_ends_the_hold_and_zeros_are_restored() -> None:
    model = net(eager=False)
    prune(model, 0.5)
    zeros = [weight == 0 for weight in model.get_weights() if weight.ndim == 2]

    class Within(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                self.model.fit(X, Y, **FIT)
                self.model.make_train_function()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, Y, epochs=3, callbacks=[KeepZeros(), Within()], **FIT)
    found = [weight == 0 for weight in model.get_weights() if weight.ndim == 2]
    for before, after in zip(zeros, found, strict=True):
        np.testing.assert_array_equal(before, after)
    told = [str(one.message) for one in caught if str(one.message).startswith("KeepZeros")]
    assert len(told) == 1
    assert "another `fit` of this model began during this one" in told[0]
