"""The guide for tfmot's users is true: each row is run on both sides."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

if importlib.util.find_spec("tensorflow_model_optimization") is None:
    pytest.skip('needs: pip install "keras_l0[tensorflow,tfmot]"', allow_module_level=True)

import keras_l0
from keras_l0.tfmot import from_tf_keras, to_tf_keras
from keras_l0.tfmot.legacy import legacy_keras, toolkit, undisturbed

GUIDE = (Path(__file__).parents[1] / "docs/from_tfmot.md").read_text()
ROWS = [(left, right) for left, right in re.findall(r"^\| `(.*?)` \| `(.*?)` \|", GUIDE, re.M)]
X = np.random.default_rng(0).normal(size=(32, 16)).astype("float32")
Y = np.random.default_rng(1).normal(size=(32, 4)).astype("float32")
STEPS = 2


def network() -> keras.Model:
    """Two layers whose kernels have whole blocks and groups."""
    layers = keras.layers
    return keras.Sequential([keras.Input((16,)), layers.Dense(8, "relu"), layers.Dense(4)])


def row(call: str) -> tuple[str, str]:
    """The row whose left side has this call."""
    (found,) = [(left, right) for left, right in ROWS if call in left]
    return found


class Both:
    """A network in either Keras, and what rows make of them."""

    def __init__(self, tmp_path: Path) -> None:
        model = network()
        tfmot = toolkit().sparsity.keras
        folder = {"log_dir": str(tmp_path)}
        here = {name: getattr(keras_l0, name) for name in keras_l0.__all__}
        self.theirs = {**vars(tfmot), **folder, "x": X, "y": Y, "steps": STEPS}
        self.theirs["model"] = to_tf_keras(model)
        self.ours: dict[str, Any] = {**here, **folder, "keras": keras, "x": X, "y": Y}
        self.ours["model"] = model

    def run(self, call: str) -> None:
        """Runs a row on both sides."""
        left, right = row(call)
        with undisturbed():
            exec(left, self.theirs)
        exec(right, self.ours)

    def fit(self, epochs: int) -> None:
        """Trains without a change of weights, but for those that go."""
        fit: dict[str, Any] = {"batch_size": 16, "epochs": epochs, "verbose": 0}
        tfmot = toolkit().sparsity.keras
        with undisturbed():
            model = self.theirs["model"]
            model.compile(legacy_keras().optimizers.SGD(0.0), "mse")
            model.fit(X, Y, callbacks=[tfmot.UpdatePruningStep()], **fit)
        self.ours["model"].compile(keras.optimizers.SGD(0.0), "mse")
        self.ours["model"].fit(X, Y, callbacks=[self.ours["callback"]], **fit)

    def kernels(self) -> list[tuple[Any, Any]]:
        """Each kernel as tfmot has it, and as ours."""
        theirs = from_tf_keras(self.theirs["model"])
        return [
            (a, b)
            for a, b in zip(theirs.get_weights(), self.ours["model"].get_weights(), strict=True)
            if a.ndim > 1
        ]


def same_weights_go(both: Both, call: str) -> None:
    both.run(call)
    both.fit(epochs=1)
    for theirs, ours in both.kernels():
        assert np.mean(ours == 0) == 0.5
        assert np.array_equal(theirs, ours)


def constant(both: Both) -> None:
    same_weights_go(both, "ConstantSparsity(0.5, 0, frequency=1))")


def ramp(both: Both) -> None:
    both.run("PolynomialDecay")
    both.fit(epochs=5)
    for theirs, ours in both.kernels():
        assert np.mean(ours == 0) == round(0.8 * ours.size) / ours.size
        assert np.array_equal(theirs, ours)


def blocks(both: Both) -> None:
    same_weights_go(both, "block_size=(4, 1)")


def groups(both: Both) -> None:
    same_weights_go(both, "sparsity_m_by_n=(2, 4)")


def training(both: Both) -> None:
    both.run("ConstantSparsity(0.5, 0, frequency=1))")
    with undisturbed():
        both.theirs["model"].compile("sgd", "mse")
    both.ours["model"].compile("sgd", "mse")
    both.run("UpdatePruningStep()")
    for theirs, ours in both.kernels():
        assert np.mean(theirs == 0) == np.mean(ours == 0) == 0.5


def stripping(both: Both) -> None:
    both.run("ConstantSparsity(0.5, 0, frequency=1))")
    both.fit(epochs=1)
    wrapped = from_tf_keras(both.theirs["model"])
    both.run("strip_pruning")
    stripped = from_tf_keras(both.theirs["model"])
    for a, b in zip(wrapped.get_weights(), stripped.get_weights(), strict=True):
        assert np.array_equal(a, b)
    assert [np.mean(ours == 0) for _, ours in both.kernels()] == [0.5, 0.5]


def summaries(both: Both) -> None:
    both.run("PruningSummaries")
    model = both.ours["model"]
    model.compile("sgd", "mse")
    callbacks = [keras_l0.GlobalPrune(0.5, begin=0), both.ours["summaries"]]
    model.fit(X, Y, epochs=1, verbose=0, callbacks=callbacks)
    head, _ = (Path(both.ours["log_dir"]) / "log.csv").read_text().splitlines()
    assert set(head.split(",")) >= {"sparsity", "compression", "penalty"}


def latency(both: Both) -> None:
    both.run("PruneForLatencyOnXNNPack")
    with undisturbed(), pytest.raises(ValueError, match="Could not find"):
        both.theirs["policy"].ensure_model_supports_pruning(both.theirs["model"])
    assert len(str(both.ours["lines"]).splitlines()) >= 2


CHECKS: dict[str, Callable[[Both], None]] = {
    "ConstantSparsity(0.5, 0, frequency=1))": constant,
    "PolynomialDecay": ramp,
    "UpdatePruningStep()": training,
    "strip_pruning": stripping,
    "PruningSummaries": summaries,
    "block_size=(4, 1)": blocks,
    "sparsity_m_by_n=(2, 4)": groups,
    "PruneForLatencyOnXNNPack": latency,
}


@pytest.mark.filterwarnings("ignore:`layer.")
@pytest.mark.parametrize("call", CHECKS)
def test_a_row_of_the_guide(call: str, tmp_path: Path) -> None:
    CHECKS[call](Both(tmp_path))


def test_every_row_is_checked() -> None:
    assert {row(call) for call in CHECKS} == set(ROWS)
    assert len(GUIDE.split("|---|---|---|")[1].strip().split("\n\n")[0].splitlines()) == len(ROWS)
