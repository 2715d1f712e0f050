"""IterativePrune prunes while a metric holds, and ends with the sparsest weights that held it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from strategies import assert_same_bits, invalid, numpy_weights

from keras_l0 import L2L0, IterativePrune, RelevanceDecay, prune

rng = np.random.default_rng(0)
X = rng.normal(size=(32, 10)).astype("float32")
Y = (X[:, :1] + X[:, 1:2] > 0).astype("float32")
FIT: dict[str, Any] = {"batch_size": 16, "shuffle": False, "verbose": 0}


def net(optimizer: Any = "adam", **compiled: Any) -> keras.Model:
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(9, "tanh"), layers.Dense(1)])
    model.compile(optimizer, "mse", **compiled)
    return model


class Says(keras.callbacks.Callback):
    """Puts a metric of given values into the logs, and keeps each epoch's weights."""

    def __init__(self, values: Sequence[float], name: str = "val_score") -> None:
        super().__init__()
        self.values, self.name = values, name
        self.weights: list[Any] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs[self.name] = self.values[epoch]
        self.weights.append(numpy_weights(self.model))


def run(values: Sequence[float], **given: Any) -> tuple[keras.Model, Says, list[float]]:
    model, says = net(), Says(values)
    arguments: dict[str, Any] = {"bound": 0.8, "fraction": 0.5, "mode": "max", **given}
    callback = IterativePrune("val_score", **arguments)
    history = model.fit(X, Y, epochs=len(values), callbacks=[says, callback], **FIT)
    return model, says, history.history["sparsity"]


def test_it_prunes_the_epoch_after_each_one_that_holds() -> None:
    model, says, sparsity = run([0.7, 0.8, 0.9, 0.7, 0.75, 0.81, 0.7])
    # Of 99 weights half of what is left goes: 50, 24, and 12, rounded to even.
    np.testing.assert_allclose(np.array(sparsity) * 99, [0, 0, 50, 74, 74, 74, 86], rtol=1e-6)
    assert_same_bits(numpy_weights(model), says.weights[5])


def test_smaller_may_be_better_and_only_every_other_epoch_looked_at() -> None:
    model, says, sparsity = run([9.0, 0.1, 9.0, 0.8, 0.1, 0.9], mode="min", every=2)
    np.testing.assert_allclose(np.array(sparsity) * 99, [0, 0, 50, 50, 74, 74], rtol=1e-6)
    assert_same_bits(numpy_weights(model), says.weights[3])


def test_epochs_before_the_first_that_may_prune_are_not_looked_at() -> None:
    _, _, sparsity = run([0.9, 0.9, 0.9, 0.9], begin=3)
    np.testing.assert_allclose(np.array(sparsity) * 99, [0, 0, 0, 50], rtol=1e-6)


def test_what_is_zero_stays_zero_while_it_trains_on() -> None:
    _, says, _ = run([0.9, 0.7, 0.7, 0.7])
    zeros = [says.weights[epoch][0] == 0 for epoch in (1, 3)]
    np.testing.assert_array_equal(*zeros)
    assert zeros[0].any()
    assert (says.weights[1][0] != says.weights[3][0]).any()


def test_a_bound_that_is_never_held_prunes_nothing_and_says_so() -> None:
    with pytest.warns(UserWarning, match=r"val_score never held its bound of 0\.8"):
        model, says, sparsity = run([0.1, 0.2, 0.79])
    assert sparsity == [0.0] * 3
    assert_same_bits(numpy_weights(model), says.weights[-1])


def test_a_bound_is_held_by_a_metric_that_equals_it_in_float32() -> None:
    _, _, sparsity = run([float(np.float32(0.95)), 0.9], bound=0.95)
    assert sparsity[1] > 0


def test_pruning_ends_where_nothing_is_left() -> None:
    model, _, sparsity = run([0.9] * 6, fraction=0.99)
    assert sparsity[-1] == 1.0
    assert not numpy_weights(model)[0].any()


def test_the_direction_is_that_of_the_metric() -> None:
    data = {"validation_data": (X, Y), **FIT}
    for metric, bound in (("accuracy", 0.0), ("mse", 1e6), ("loss", 1e6)):
        model = net(metrics=["accuracy", "mse"])
        callback = IterativePrune(f"val_{metric}", bound)
        history = model.fit(X, Y, epochs=2, callbacks=[callback], **data)
        assert history.history["sparsity"][1] > 0, metric
    with pytest.raises(ValueError, match='Expected "min" or "max", since val_score'):
        net().fit(X, Y, callbacks=[Says([1.0]), IterativePrune("val_score", 0.5)], **FIT)


def test_a_metric_that_is_not_in_the_logs_is_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"in the logs: loss, .*Give `fit` validation_data"):
        net().fit(X, Y, callbacks=[IterativePrune("val_loss", 0.5)], **FIT)


class KilledError(RuntimeError):
    """The end of a process."""


class Kill(keras.callbacks.Callback):
    """Breaks a fit off at the beginning of an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.at = epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.at:
            raise KilledError


class KillAtEnd(Kill):
    """Kills the run at the end of an epoch, when all other callbacks are done with it."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        pass

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.at:
            raise KilledError


@pytest.mark.parametrize(
    "kill",
    [*map(Kill, range(1, 6)), *map(KillAtEnd, range(6))],
    ids=lambda kill: type(kill).__name__ + str(kill.at),
)
def test_a_run_that_is_killed_and_resumed_ends_as_one_that_was_not(
    kill: Kill, tmp_path: Path
) -> None:
    values = [0.9, 0.9, 0.7, 0.9, 0.7, 0.7]
    wanted, _, _ = run(values)

    def start(*kill: Any) -> keras.Model:
        model = net()
        callbacks = [
            keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False),
            Says(values),
            IterativePrune(
                "val_score", 0.8, fraction=0.5, mode="max", path=tmp_path / "kept.weights.h5"
            ),
            *kill,
        ]
        model.fit(X, Y, epochs=6, callbacks=callbacks, **FIT)
        return model

    with pytest.raises(KilledError):
        start(kill)
    assert_same_bits(numpy_weights(start()), numpy_weights(wanted))


def test_what_one_model_held_is_not_given_to_another() -> None:
    callback = IterativePrune("val_score", 0.8, fraction=0.5, mode="max")
    net().fit(X, Y, epochs=2, callbacks=[Says([0.9, 0.9]), callback], **FIT)
    other, says = net(), Says([0.0, 0.0, 0.1, 0.2])
    with pytest.warns(UserWarning, match="never held"):
        other.fit(X, Y, epochs=4, initial_epoch=2, callbacks=[says, callback], **FIT)
    assert_same_bits(numpy_weights(other), says.weights[-1])


def test_a_kernel_of_zeros_is_trained_until_it_is_pruned() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1, kernel_initializer="zeros")])
    model.compile("adam", "mse")
    says = Says([0.1, 0.9, 0.9])
    callback = IterativePrune("val_score", 0.8, fraction=0.5, mode="max")
    history = model.fit(X, Y, epochs=3, callbacks=[says, callback], **FIT)
    np.testing.assert_allclose(history.history["sparsity"], [0.0, 0.0, 0.5])
    assert (says.weights[0][0] != 0).all()


def test_zeros_that_the_model_came_with_are_held_from_the_first_step_on() -> None:
    model = net()
    prune(model, 0.3)
    zeros = model.get_weights()[0] == 0
    says = Says([0.1, 0.1])
    with pytest.warns(UserWarning, match="zeros were there before"):
        model.fit(
            X,
            Y,
            epochs=2,
            callbacks=[says, IterativePrune("val_score", 0.8, mode="max")],
            **FIT,
        )
    assert zeros.any()
    np.testing.assert_array_equal(says.weights[-1][0] == 0, zeros)


@pytest.mark.parametrize("content", ["garbage", "another model's", "cut"])
def test_a_file_that_cannot_be_read_is_told_and_changes_nothing(
    content: str, tmp_path: Path
) -> None:
    path = tmp_path / "kept.weights.h5"

    def pruner() -> IterativePrune:
        return IterativePrune("val_score", 0.8, mode="max", path=path)

    if content == "another model's":
        other = keras.Sequential([keras.Input((10,)), layers.Dense(3), layers.Dense(1)])
        other.compile("adam", "mse")
        other.fit(X, Y, epochs=1, callbacks=[Says([0.9]), pruner()], **FIT)
    else:
        net().fit(X, Y, epochs=1, callbacks=[Says([0.9]), pruner()], **FIT)
        whole = path.read_bytes()
        path.write_bytes(b"garbage" if content == "garbage" else whole[: len(whole) // 2])
    model = net()
    before = numpy_weights(model)
    with pytest.raises(ValueError, match="Invalid value for argument `path`"):
        model.fit(X, Y, epochs=3, initial_epoch=1, callbacks=[Says([0.9] * 3), pruner()], **FIT)
    assert_same_bits(numpy_weights(model), before)


def test_a_fit_without_validation_data_says_so() -> None:
    with pytest.warns(UserWarning, match="there was nothing to validate on"):
        net().fit(X, Y, epochs=2, callbacks=[IterativePrune("val_loss", 1.0, begin=5)], **FIT)


def test_a_second_fit_goes_on_from_what_held() -> None:
    model, callback = net(), IterativePrune("val_score", 0.8, fraction=0.5, mode="max")
    model.fit(X, Y, epochs=2, callbacks=[Says([0.9, 0.9]), callback], **FIT)
    says = Says([0.0, 0.0, 0.1, 0.2])
    held = numpy_weights(model)
    model.fit(X, Y, epochs=4, initial_epoch=2, callbacks=[says, callback], **FIT)
    assert_same_bits(numpy_weights(model), held)


def test_a_fit_broken_off_can_be_restored() -> None:
    model, callback = net(), IterativePrune("val_score", 0.8, fraction=0.5, mode="max")
    says = Says([0.9, 0.9, 0.9])
    with pytest.raises(KilledError):
        model.fit(X, Y, epochs=3, callbacks=[says, callback, Kill(2)], **FIT)
    callback.restore()
    assert_same_bits(numpy_weights(model), says.weights[1])
    with pytest.raises(ValueError, match="one that held its bound"):
        IterativePrune("val_score", 0.8).restore()


def test_gamma_begins_again_with_each_pruning() -> None:
    model = net(RelevanceDecay("adam", 0.01, "auto", gamma_steps=100))
    steps = []

    class Notes(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            steps.append(int(keras.ops.convert_to_numpy(self.model.optimizer._since_reset)))

    callbacks = [
        Says([0.7, 0.9, 0.7, 0.7]),
        IterativePrune("val_score", 0.8, mode="max"),
        Notes(),
    ]
    model.fit(X, Y, epochs=4, callbacks=callbacks, **FIT)
    assert steps == [2, 4, 2, 4]


def test_any_score_and_some_layers_and_a_penalty_beside() -> None:
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(9, "tanh", kernel_regularizer=L2L0(1e-4, 1e-4), name="first"),
            layers.Dense(1, name="last"),
        ]
    )
    model.compile("adam", "mse")
    callback = IterativePrune(
        "val_score", 0.8, fraction=0.5, mode="max", score=lambda w: -np.abs(w), layers="first"
    )
    model.fit(X, Y, epochs=2, callbacks=[Says([0.9, 0.9]), callback], **FIT)
    first, _, last, _ = model.get_weights()
    assert (first == 0).sum() == 45
    assert last.all()


def test_an_earlier_runs_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "kept.weights.h5"
    run([0.9, 0.9], path=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="a new file, since this fit begins at epoch 0"):
        run([0.9, 0.9], path=path)
    assert path.read_bytes() == before


def test_a_file_that_was_kept_for_another_bound_or_metric_is_refused(tmp_path: Path) -> None:
    model, path = net(), tmp_path / "kept.weights.h5"
    model.fit(
        X,
        Y,
        epochs=2,
        callbacks=[Says([0.9, 0.9]), IterativePrune("val_score", 0.8, mode="max", path=path)],
        **FIT,
    )
    more = {"epochs": 3, "initial_epoch": 2, **FIT}
    for monitor, bound in (("val_score", 0.95), ("val_other", 0.8)):
        callback = IterativePrune(monitor, bound, mode="max", path=path)
        with pytest.raises(
            ValueError, match=r"Expected a file of weights that hold .*'value': 0.9"
        ):
            model.fit(X, Y, callbacks=[Says([0.9] * 3, monitor), callback], **more)
    callback = IterativePrune("val_score", 0.85, mode="max", path=path)
    model.fit(X, Y, callbacks=[Says([0.9] * 3), callback], **more)
    plain = tmp_path / "plain.weights.h5"
    model.save_weights(plain)
    callback = IterativePrune("val_score", 0.8, mode="max", path=plain)
    with pytest.raises(ValueError, match="It is none of IterativePrune"):
        model.fit(X, Y, callbacks=[Says([0.9] * 3), callback], **more)


def test_a_fit_that_ends_before_it_looks_says_so() -> None:
    for given in ({"every": 5}, {"begin": 5}):
        with pytest.warns(UserWarning, match="val_score was never looked at"):
            run([0.9, 0.9], **given)


def test_zeros_of_before_are_not_called_nothing() -> None:
    model = net()
    prune(model, 0.5)
    callback = IterativePrune("val_score", 0.8, mode="max")
    with pytest.warns(UserWarning, match="its 50 zeros were there before"):
        model.fit(X, Y, epochs=1, callbacks=[Says([0.1]), callback], **FIT)


def test_what_is_wrong_with_the_metric_is_told_after_the_first_epoch() -> None:
    epochs = []
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, _: epochs.append(epoch))
    callbacks = [IterativePrune("val_score", 0.5, every=4), count]
    with pytest.raises(ValueError, match=r"in the logs: .*val_loss"):
        net().fit(X, Y, epochs=8, validation_data=(X, Y), callbacks=callbacks, **FIT)
    assert epochs == []


def test_the_direction_is_known_with_several_outputs() -> None:
    inputs = keras.Input((10,))
    outputs = {name: layers.Dense(1, name=name)(inputs) for name in ("a", "b")}
    y = {"a": Y, "b": Y}
    for monitor in ("val_a_loss", "val_b_accuracy", "val_a_mse"):
        model = keras.Model(inputs, outputs)
        metrics = {"a": ["mse"], "b": ["accuracy"]}
        model.compile("adam", {"a": "mse", "b": "mse"}, metrics=metrics)
        bound = 0.0 if "accuracy" in monitor else 1e6
        history = model.fit(
            X,
            y,
            epochs=2,
            validation_data=(X, y),
            callbacks=[IterativePrune(monitor, bound)],
            **FIT,
        )
        assert history.history["sparsity"][1] > 0, monitor


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "monitor": ({"monitor": ""}, invalid("monitor", "a metric's name in the logs", "''")),
    "bound": ({"bound": math.nan}, invalid("bound", "a finite float", math.nan)),
    "huge bound": ({"bound": 10**400}, "Expected a finite float"),
    "array": ({"mode": np.array(["min", "max"])}, 'Expected "auto", "min" or "max"'),
    "fraction": ({"fraction": 1.0}, invalid("fraction", "a float in (0, 1)", 1.0)),
    "none": ({"fraction": 0}, invalid("fraction", "a float in (0, 1)", 0)),
    "mode": ({"mode": "up"}, invalid("mode", '"auto", "min" or "max"', "'up'")),
    "begin": ({"begin": -1}, invalid("begin", "an integer >= 0", -1)),
    "every": ({"every": 0}, invalid("every", "an integer >= 1", 0)),
    "path": (
        {"path": "kept.keras"},
        invalid("path", r"a file's path that ends in .weights.h5", "'kept.keras'"),
    ),
    "score": ({"score": "best"}, 'Expected "lamp" or "magnitude", or a function'),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_told(name: str) -> None:
    given, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        IterativePrune(**{"monitor": "val_loss", "bound": 0.5, **given})
