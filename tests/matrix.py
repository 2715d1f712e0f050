"""The models of the matrix, and what each must hold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from by_hand import OwnStep, loop
from keras import layers, ops

from keras_l0 import GlobalPrune, KeepZeros, LayerwisePrune
from keras_l0.pruning.targets import find_targets

Zeros = dict[str, np.ndarray]
History = tuple[list[Zeros], list[Zeros]]

_rng = np.random.default_rng(0)
X = _rng.normal(size=(16, 5)).astype("float32")
Y = _rng.normal(size=(16, 2)).astype("float32")
TWO = {"one": X, "two": X[::-1].copy()}, {"left": Y, "right": -Y}
BATCH = 8


@keras.saving.register_keras_serializable("matrix")
class Subclassed(keras.Model):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        # Named, so that a MultiOptimizer, which goes by names, finds them in a loaded model.
        self.block = [layers.Dense(6, "tanh", name="dense"), layers.LayerNormalization()]
        self.head = layers.Dense(2, name="head")

    def call(self, inputs: Any, training: bool = False) -> Any:
        for layer in self.block:
            inputs = layer(inputs, training=training)
        return self.head(inputs)


# The models.


def sequential() -> keras.Model:
    return keras.Sequential([keras.Input((5,)), layers.Dense(6, "tanh"), layers.Dense(2)])


def functional(kind: type[keras.Model] = keras.Model) -> keras.Model:
    inputs = keras.Input((5,))
    x = layers.Dense(5, "tanh")(inputs)
    x = layers.BatchNormalization()(layers.Add()([inputs, x]))
    return kind(inputs, layers.Dense(2)(x))


def subclassed() -> keras.Model:
    model = Subclassed()
    model(X[:1])
    return model


def nested() -> keras.Model:
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(4, "tanh")])
    middle = keras.Sequential([inner, layers.Dropout(0.1), layers.Dense(3)])
    inputs = keras.Input((5,))
    return keras.Model(inputs, layers.Dense(2)(middle(inputs)))


def shared() -> keras.Model:
    inputs = keras.Input((5,))
    twice = layers.Dense(5, "tanh")
    return keras.Model(inputs, layers.Dense(2)(twice(twice(inputs))))


def several() -> keras.Model:
    one, two = keras.Input((5,), name="one"), keras.Input((5,), name="two")
    x = layers.Concatenate()([layers.Dense(3, "tanh")(one), layers.Dense(3, "tanh")(two)])
    outputs = {"left": layers.Dense(2, name="left")(x), "right": layers.Dense(2, name="right")(x)}
    return keras.Model({"one": one, "two": two}, outputs)


MODELS: dict[str, Callable[[], keras.Model]] = {
    "sequential": sequential,
    "functional": functional,
    "subclassed": subclassed,
    "nested": nested,
    "shared layer": shared,
    "several inputs and outputs": several,
    "own train_step": lambda: functional(OwnStep),
    "own loop": sequential,
}
# How each trains, and what it must hold.


def fit(
    model: keras.Model,
    callback: keras.callbacks.Callback,
    data: tuple[Any, Any],
    epochs: int,
    chosen: str | None = None,
) -> History:
    """The zeros at each epoch's beginning, once it is pruned, and at its end."""
    recorder = Recorder(chosen)
    model.fit(
        *data,
        epochs=epochs,
        batch_size=BATCH,
        shuffle=False,
        verbose=0,
        callbacks=[callback, recorder],
    )
    return recorder.began, recorder.ended


def fit_by_hand(
    model: keras.Model, callback: keras.callbacks.Callback, mode: str, epochs: int
) -> History:
    """The same, of a loop written by hand."""
    batches = [(X[i : i + BATCH], Y[i : i + BATCH]) for i in range(0, len(X), BATCH)]
    seen = loop(model, callback, batches, epochs, mode, zeros)
    return seen[::2], seen[1::2]


class Recorder(keras.callbacks.Callback):
    def __init__(self, chosen: str | None) -> None:
        super().__init__()
        self.chosen = chosen
        self.began: list[Zeros] = []
        self.ended: list[Zeros] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began.append(zeros(self.model, self.chosen))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.ended.append(zeros(self.model, self.chosen))


def zeros(model: keras.Model, chosen: str | None = None) -> Zeros:
    """Where each prunable weight is zero; by position, for a loaded model has other paths."""
    weights = find_targets(model, chosen).live
    return {f"{i} {w.variable.name}": w.values() == 0 for i, w in enumerate(weights)}


def assert_same(found: Zeros, expected: Zeros) -> None:
    assert found.keys() == expected.keys()
    for name, zero in expected.items():
        np.testing.assert_array_equal(found[name], zero, err_msg=name)


def state(model: keras.Model) -> list[np.ndarray]:
    return [ops.convert_to_numpy(variable) for variable in model.optimizer.variables]


def outputs(model: keras.Model, x: Any) -> list[np.ndarray]:
    found = model(keras.tree.map_structure(ops.convert_to_tensor, x), training=False)
    return [ops.convert_to_numpy(ops.cast(y, "float32")) for y in keras.tree.flatten(found)]


def assert_held(found: Zeros, expected: Zeros, forgets: bool = False) -> None:
    if forgets:
        found = {name: zero & expected[name] for name, zero in found.items()}
    assert_same(found, expected)


def check_life(
    model: keras.Model,
    train: Callable[[keras.Model, keras.callbacks.Callback, int], History],
    x: Any,
    path: Path,
    *,
    chosen: str | None = None,
    each: bool = False,
    forgets: bool = False,
    further: bool = True,
) -> None:
    """Prunes, tunes, saves, loads and tunes again a compiled model.

    Args:
        train: trains a model with a callback for so many epochs.
        x: inputs.
        path: where to save it.
        chosen: which layers are pruned.
        each: whether each is pruned by itself.
        forgets: whether the optimizer itself makes zeros.
        further: whether to tune again.
    """
    sizes = [zero.size for zero in zeros(model, chosen).values()]
    assert sizes
    kind = LayerwisePrune if each else GlobalPrune
    began, ended = train(model, kind(0.8, begin=0, end=1, power=1.0, layers=chosen), 2)
    for share, one in zip((0.5, 1.0), began, strict=True):
        counts = [int(zero.sum()) for zero in one.values()]
        if each:
            assert counts == [round(share * 0.8 * size) for size in sizes], list(one)
        else:
            assert sum(counts) == round(share * 0.8 * sum(sizes))
    for one, other in zip(began, ended, strict=True):
        assert_held(other, one, forgets)
    before = model.get_weights()
    check_tuned(model, train, 2, chosen, forgets)
    moved = [np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert any(moved), "nothing trains: that zeros are held says nothing"

    loaded = check_saved(model, x, path, chosen)
    if further:
        check_tuned(loaded, train, 1, chosen, forgets)


def check_tuned(
    model: keras.Model, train: Any, epochs: int, chosen: str | None, forgets: bool
) -> None:
    pruned = zeros(model, chosen)
    began, ended = train(model, KeepZeros(chosen), epochs)
    assert_same(began[0], pruned)
    for one, other in zip(began, ended, strict=True):
        assert_held(other, one, forgets)
    assert_same(zeros(model, chosen), ended[-1])


def check_saved(model: keras.Model, x: Any, path: Path, chosen: str | None = None) -> keras.Model:
    """Saves and loads a model: the loaded one is the same, its optimizer too."""
    model.save(path)
    loaded = keras.models.load_model(path)
    assert_same(zeros(loaded, chosen), zeros(model, chosen))
    for ours, theirs in zip(outputs(loaded, x), outputs(model, x), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(state(loaded), state(model), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return loaded
