"""A fit that ends less sparse than was asked for says so, and one that does not is silent."""

import re
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_l0 import DeadNetworkWarning, GlobalPrune, KeepZeros, LayerwisePrune, prune

rng = np.random.default_rng(0)
X = rng.normal(size=(32, 12)).astype("float32")
Y = rng.normal(size=(32, 3)).astype("float32")
NAMES = ("GlobalPrune", "KeepZeros", "LayerwisePrune")
FIT: dict[str, Any] = {"batch_size": 16, "shuffle": False, "verbose": 0}


def net() -> keras.Model:
    model = keras.Sequential(
        [keras.Input((12,)), layers.Dense(8, "tanh"), layers.Dense(3)], name="net"
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def sparsity(model: keras.Model) -> float:
    found = [ops.convert_to_numpy(w) for w in model.weights if w.name == "kernel"]
    return sum(int((w == 0).sum()) for w in found) / sum(w.size for w in found)


class Best(keras.callbacks.Callback):
    """Makes one epoch the best, whatever the loss."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.best = epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        logs["figure"] = 0.0 if epoch == self.best else 1.0 + epoch


def told(model: keras.Model, callbacks: list[Any], **fit: Any) -> list[str]:
    """The warnings of a fit, all of which are to be UserWarnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, Y, callbacks=callbacks, **{**FIT, **fit})
    ours = [w for w in caught if str(w.message).startswith(NAMES)]
    ours = [w for w in ours if w.category is not DeadNetworkWarning]
    assert all(w.category is UserWarning for w in ours)
    return [str(w.message) for w in ours]


def stopper(**arguments: Any) -> keras.callbacks.Callback:
    return keras.callbacks.EarlyStopping(
        "figure", mode="min", restore_best_weights=True, **arguments
    )


@pytest.mark.parametrize(
    ("compiled", "history", "message"),
    [
        (
            False,
            True,
            "a model with its optimizer. Received: model='by_hand'. Call `model.compile(",
        ),
        (True, False, "a model with its history. Received: model='by_hand'. Give `add_history=Tr"),
    ],
)
def test_a_loop_by_hand_that_lacks_what_fit_has_is_told(
    compiled: bool, history: bool, message: str
) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="by_hand")
    if compiled:
        model.compile("sgd", "mse")
    hook = keras.callbacks.CallbackList([GlobalPrune(0.5)], add_history=history, model=model)
    with pytest.raises(ValueError, match=re.escape(message)):
        hook.on_train_begin()


ORDERS = pytest.mark.parametrize("pruner_first", [True, False], ids=["pruner first", "last"])


@ORDERS
@pytest.mark.parametrize("patience", [2, 99], ids=["stopped", "at the end"])
def test_best_weights_restored_from_before_the_ramps_end_are_told_of(
    pruner_first: bool, patience: int
) -> None:
    model = net()
    pruner = GlobalPrune(0.8, begin=1, end=2, power=1.0)
    others = [Best(1), stopper(patience=patience)]
    found = told(model, [pruner, *others] if pruner_first else [*others, pruner], epochs=5)
    assert sparsity(model) == 0.4
    assert found == [
        "GlobalPrune: this fit ends with a sparsity of 0.4000, less than the 0.8000 asked for. "
        "The last epoch ended with 0.8000, and weights were replaced after it. If "
        "EarlyStopping(restore_best_weights=True) did so, give it start_from_epoch=2."
    ]


@ORDERS
def test_the_advice_of_that_warning_is_right(pruner_first: bool) -> None:
    model = net()
    pruner = GlobalPrune(0.8, begin=1, end=2)
    others = [Best(3), stopper(patience=1, start_from_epoch=2)]
    found = told(model, [pruner, *others] if pruner_first else [*others, pruner], epochs=6)
    assert found == []
    assert sparsity(model) == 0.8


@ORDERS
def test_a_fit_stopped_before_the_ramps_end_is_told_of(pruner_first: bool) -> None:
    model = net()
    pruner = GlobalPrune(0.8, begin=0, end=3, power=1.0)
    others = [Best(0), keras.callbacks.EarlyStopping("figure", mode="min", patience=1)]
    found = told(model, [pruner, *others] if pruner_first else [*others, pruner], epochs=6)
    assert found == [
        "GlobalPrune: this fit ends with a sparsity of 0.4000, less than the 0.8000 asked for. "
        "Pruning ends at epoch 3, and the last one was 1."
    ]


@ORDERS
def test_a_best_file_from_before_the_ramps_end_is_told_of(
    pruner_first: bool, tmp_path: Path
) -> None:
    path = str(tmp_path / "best.keras")
    model = net()
    pruner = GlobalPrune(0.8, begin=1, end=3, power=1.0)
    others = [
        Best(2),
        keras.callbacks.ModelCheckpoint(path, "figure", mode="min", save_best_only=True),
    ]
    found = told(model, [pruner, *others] if pruner_first else [*others, pruner], epochs=5)
    assert sparsity(model) == 0.8
    saved = sparsity(keras.models.load_model(path))
    assert saved == round(0.8 * 2 / 3 * 120) / 120
    assert found == [
        f"GlobalPrune: {path} was saved with a sparsity of {saved:.4f}, less than the 0.8000 "
        "asked for: it holds an epoch from before pruning ended. Save the model after fit, or "
        "choose the best epoch in a second fit with KeepZeros()."
    ]


@ORDERS
def test_the_best_file_of_a_second_fit_with_keep_zeros_is_sparse(
    pruner_first: bool, tmp_path: Path
) -> None:
    path = str(tmp_path / "best.weights.h5")
    model = net()
    assert told(model, [GlobalPrune(0.8)], epochs=3) == []
    others = [
        Best(0),
        keras.callbacks.ModelCheckpoint(
            path, "figure", mode="min", save_best_only=True, save_weights_only=True
        ),
        stopper(patience=1),
    ]
    callbacks = [KeepZeros(), *others] if pruner_first else [*others, KeepZeros()]
    assert told(model, callbacks, epochs=4) == []
    assert sparsity(model) == 0.8
    model.load_weights(path)
    assert sparsity(model) == 0.8


def test_the_files_of_each_epoch_are_not_told_of_where_the_last_is_sparse(tmp_path: Path) -> None:
    saver = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch:02d}.keras"))
    assert told(net(), [GlobalPrune(0.8), saver], epochs=5) == []


def test_an_end_beyond_the_last_epoch_is_told_of_at_the_beginning_and_at_the_end() -> None:
    found = told(net(), [GlobalPrune(0.8, begin=0, end=3, power=1.0)], epochs=3)
    assert found == [
        "GlobalPrune: pruning ends at epoch 3, but this fit ends at epoch 2 (epochs count from "
        "0): it will not reach what was asked for.",
        "GlobalPrune: this fit ends with a sparsity of 0.6000, less than the 0.8000 asked for. "
        "Pruning ends at epoch 3, and the last one was 2.",
    ]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("regrow", [False, True])
def test_nothing_is_told_when_all_is_well(regrow: bool, frozen: bool) -> None:
    model = net()
    if frozen:
        model.layers[1].trainable = False
        model.compile("adam", "mse")
    target = 0.15 if frozen else 0.8
    assert told(model, [GlobalPrune(target, regrow=regrow)], epochs=4) == []
    assert sparsity(model) == target


UNITS = pytest.mark.parametrize(
    ("how", "target"),
    [
        ({"sparsity": 0.8, "block": (4, 1)}, 0.8),
        ({"compression": 3, "block": (4, 1)}, 88 / 120),  # of 131 parameters 43 are left
        ({"pattern": "2:4"}, 0.5),
    ],
    ids=["blocks", "blocks to a compression", "pattern"],
)
KINDS = pytest.mark.parametrize("kind", [GlobalPrune, LayerwisePrune])


@KINDS
@UNITS
@pytest.mark.parametrize("regrow", [False, True])
def test_nothing_is_told_when_blocks_or_a_pattern_are_reached(
    kind: Any, how: Any, target: float, regrow: bool, tmp_path: Path
) -> None:
    model = net()
    saver = keras.callbacks.ModelCheckpoint(str(tmp_path / "last.keras"))
    assert told(model, [kind(**how, regrow=regrow), saver], epochs=5) == []
    assert sparsity(model) == pytest.approx(target, abs=5 / 120)  # ±1 by each layer's rounding
    assert told(model, [KeepZeros()], epochs=1) == []


@KINDS
@UNITS
def test_blocks_or_a_pattern_not_reached_are_told_of_with_what_is_missing(
    kind: Any, how: Any, target: float
) -> None:
    model = net()
    pruner = kind(**how, begin=1, end=2, power=1.0)
    [found] = told(model, [pruner, Best(1), stopper(patience=99)], epochs=5)
    figures = re.findall(r"0\.\d{4}", found)
    assert found.startswith(f"{kind.__name__}: this fit ends with a sparsity of {figures[0]}, less")
    assert float(figures[0]) == pytest.approx(sparsity(model), abs=1e-4)
    assert 0 < float(figures[0]) < float(figures[1])
    assert float(figures[1]) == pytest.approx(target, abs=5 / 120)


@pytest.mark.parametrize(
    "how",
    [
        {"sparsity": 0.8, "block": (4, 1)},
        {"compression": 3, "block": (4, 1)},
        {"pattern": "2:4"},
    ],
)
@pytest.mark.parametrize(("epoch", "stale"), [(2, True), (3, False), (4, False)])
def test_a_file_without_the_blocks_or_the_pattern_is_told_of(
    how: Any, epoch: int, stale: bool, tmp_path: Path
) -> None:
    path = str(tmp_path / "best.keras")
    best = keras.callbacks.ModelCheckpoint(path, "figure", mode="min", save_best_only=True)
    found = told(
        net(), [GlobalPrune(**how, begin=1, end=3, power=1.0), Best(epoch), best], epochs=5
    )
    assert len(found) == stale
    assert all(text.startswith(f"GlobalPrune: {path} was saved with a spars") for text in found)


@pytest.mark.parametrize(
    ("how", "zero_rows"),
    [
        ({"sparsity": 0.5, "block": (4, 1)}, [1, 2, 3, 5, 6, 7, 9, 10, 11]),
        ({"pattern": "2:4"}, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
    ids=["blocks", "pattern"],
)
def test_zeros_that_make_no_block_and_no_pattern_hide_nothing(
    how: Any, zero_rows: list[int], tmp_path: Path
) -> None:
    path = str(tmp_path / "first.keras")
    for epochs, short in ((1, True), (4, False)):
        model = net()
        for layer in model.layers:
            w = ops.convert_to_numpy(layer.kernel).copy()
            w[[row for row in zero_rows if row < len(w)]] = 0
            layer.kernel.assign(w)
        assert sparsity(model) > 0.6  # more than the end of pruning asks for
        saver = keras.callbacks.ModelCheckpoint(path, "figure", mode="min", save_best_only=True)
        pruner = GlobalPrune(**how, begin=0, end=2, power=1.0)
        found = told(model, [pruner, Best(0), saver], epochs=epochs)
        assert any("ends with a sparsity of" in text for text in found) == short
        assert any("was saved with a sparsity of" in text for text in found)


def test_weights_that_became_nan_are_no_error_at_the_end_of_fit() -> None:
    class Diverge(keras.callbacks.Callback):
        def on_train_end(self, logs: Any = None) -> None:
            for weight in self.model.trainable_weights:
                weight.assign(np.full(weight.shape, np.nan))

    for how in ({"sparsity": 0.5}, {"sparsity": 0.5, "block": (4, 1)}, {"pattern": "2:4"}):
        [found] = told(net(), [GlobalPrune(**how), Diverge()], epochs=2)
        assert "ends with a sparsity of 0.0000, less than the 0.5000 asked for" in found


class PutBack(keras.callbacks.Callback):
    """Takes the zeros away when training is over, as another callback might."""

    def on_train_end(self, logs: Any = None) -> None:
        for weight in self.model.trainable_weights:
            weight.assign(np.ones(weight.shape))


@ORDERS
def test_zeros_that_another_callback_took_away_are_told_of_by_keep_zeros(
    pruner_first: bool,
) -> None:
    model = net()
    prune(model, 0.5)
    callbacks: list[Any] = [KeepZeros(), PutBack()]
    found = told(model, callbacks if pruner_first else callbacks[::-1], epochs=2)
    assert found == [
        "KeepZeros: this fit ends with a sparsity of 0.0000, less than the 0.5000 asked for. "
        "The last epoch ended with 0.5000, and weights were replaced after it."
    ]


def test_the_end_of_fit_says_how_the_zeros_are_kept_where_fit_is_not_silent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = (
        "GlobalPrune: 96 of 120 weights are zero: sparsity 0.8000, compression 3.7x. A further "
        "fit keeps them zero only with callbacks=[keras_l0.KeepZeros()]."
    )
    for verbose in (2, 1, 0):
        net().fit(X, Y, epochs=1, callbacks=[GlobalPrune(0.8)], **{**FIT, "verbose": verbose})
        lines = re.split(r"[\r\n]+", capsys.readouterr().out)
        assert (expected in lines) == (verbose > 0), f"verbose={verbose}: {lines}"


def test_a_fit_that_warns_does_not_praise_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="it will not reach|less than the"):
        net().fit(
            X, Y, epochs=1, callbacks=[GlobalPrune(0.8, begin=0, end=1)], **{**FIT, "verbose": 2}
        )
    assert "weights are zero" not in capsys.readouterr().out


def test_the_model_is_as_it_was_after_fit() -> None:
    model = net()
    before = set(vars(model))
    history = model.fit(X, Y, epochs=1, callbacks=[GlobalPrune(0.8), KeepZeros()], **FIT)
    left = set(vars(model)) - before
    assert not {"save", "save_weights"} & set(vars(model))
    assert not any(name.startswith("_keras_l0") for name in left)
    assert "on_train_end" not in vars(history)


def test_files_saved_in_a_fit_that_was_broken_off_trouble_no_later_one(tmp_path: Path) -> None:
    class Break(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            raise KeyboardInterrupt

    model = net()
    saver = keras.callbacks.ModelCheckpoint(str(tmp_path / "m.keras"))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, epochs=5, callbacks=[GlobalPrune(0.8), saver, Break()], **FIT)
    assert told(model, [GlobalPrune(0.8)], epochs=3) == []
    assert not {"save", "save_weights"} & set(vars(model))
