"""Every model in every setting: exact sparsity, held zeros, files that are the model."""

import inspect
import itertools
import os
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import by_hand
import keras
import numpy as np
import pytest
from by_hand import BACKEND
from keras import ops
from matrix import MODELS, TWO, History, X, Y, check_life, fit, fit_by_hand

from keras_l0.pruning import holding

Cell = tuple[str, str, str, str]  # model, policy, optimizer, mode

POLICIES = ["float32", "mixed_float16", "mixed_bfloat16"]
MODES: dict[str, dict[str, Any]] = {
    "jit": {"jit_compile": True},
    "eager": {"run_eagerly": True},
    "default": {},  # on JAX that is jit, on TensorFlow without a GPU a graph, on PyTorch eager
}
if BACKEND == "torch":
    del MODES["jit"]  # torch.compile takes a minute; test_holding.py has a slow test of it

_RATE = 0.05
_OTHERS: dict[str, Callable[[Any], Any]] = {
    # With Keras' own epsilon_1 it brings NaN to a pruned network: see below.
    "Adafactor": lambda kind: kind(_RATE, epsilon_1=1e-15),
    "LossScaleOptimizer": lambda kind: kind(keras.optimizers.Adam(_RATE)),
    "MultiOptimizer": lambda kind: kind(
        keras.optimizers.OptimizerMap(
            keras.optimizers.Adam(_RATE), {".*dense/.*": keras.optimizers.SGD(_RATE, momentum=0.9)}
        )
    ),
}
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    name: partial(_OTHERS.get(name, lambda kind: kind(_RATE)), kind)
    for name, kind in sorted(vars(keras.optimizers).items())
    if isinstance(kind, type)
    and issubclass(kind, keras.optimizers.Optimizer)
    and kind is not keras.optimizers.Optimizer
}
AXES: list[list[str]] = [list(MODELS), POLICIES, list(OPTIMIZERS), list(MODES)]
# Whose zeros may become more: a weight without a gradient they set to zero; see below.
FORGETS = {"Ftrl", "ScheduleFreeAdamW"}


def whole() -> list[Cell]:
    """Every cell."""
    return [(a, b, c, d) for a, b, c, d in itertools.product(*AXES)]


def row() -> list[Cell]:
    """As few cells as there are optimizers, with every value of every axis."""
    modes = [*MODES, *list(MODES)[-2:] * 2]  # the slow one is the rarest
    return [
        (_nth(MODELS, i), _nth(POLICIES, i), optimizer, _nth(modes, i))
        for i, optimizer in enumerate(OPTIMIZERS)
    ]


def main_rows() -> list[Cell]:
    """Every model in every precision; every optimizer and mode somewhere."""
    return [
        (model, policy, _nth(OPTIMIZERS, 3 * i + j), _nth(MODES, i + j))
        for i, model in enumerate(MODELS)
        for j, policy in enumerate(POLICIES)
    ]


def pairs() -> list[Cell]:
    """Cells with every pair of values of two axes: of the slow mode as few as can be."""

    def mode(i: int, j: int) -> str:
        if i == j % len(MODELS):
            return "jit"
        return "default" if (i + j) % 4 == 1 else "eager"

    return [
        (model, _nth(POLICIES, i + j), optimizer, mode(i, j))
        for i, model in enumerate(MODELS)
        for j, optimizer in enumerate(OPTIMIZERS)
    ]


def _nth(values: Iterable[str], n: int) -> str:
    values = list(values)
    return values[n % len(values)]


def check_cell(cell: Cell, path: Path, *, further: bool = True) -> None:
    name, policy, optimizer, mode = cell
    keras.config.set_dtype_policy(policy)
    model = MODELS[name]()
    data = TWO if name == "several inputs and outputs" else (X, Y)
    model.compile(OPTIMIZERS[optimizer](), "mse", **MODES[mode])

    def train(model: keras.Model, callback: keras.callbacks.Callback, epochs: int) -> History:
        if name == "own loop":
            return fit_by_hand(model, callback, mode, epochs)
        return fit(model, callback, data, epochs)

    check_life(model, train, data[0], path, forgets=optimizer in FORGETS, further=further)


# `KERAS_L0_MATRIX=whole` takes every cell instead: hours.
SLOW = {"tensorflow": pairs, "jax": main_rows, "torch": row}[BACKEND]()
if os.environ.get("KERAS_L0_MATRIX") == "whole":
    SLOW = whole()


@pytest.mark.parametrize("cell", row(), ids=", ".join)
def test_every_value_of_every_axis_works(cell: Cell, tmp_path: Path) -> None:
    check_cell(cell, tmp_path / "m.keras", further=False)


@pytest.mark.slow
@pytest.mark.parametrize("cell", SLOW, ids=", ".join)
def test_the_values_work_together(cell: Cell, tmp_path: Path) -> None:
    check_cell(cell, tmp_path / "m.keras")


def test_the_quick_row_has_every_value() -> None:
    for axis, values in zip(zip(*row(), strict=True), AXES, strict=True):
        assert set(axis) == set(values)


@pytest.mark.skipif(BACKEND == "torch", reason="the slow rows run elsewhere")
@pytest.mark.parametrize("axes", itertools.combinations(range(4), 2))
def test_the_slow_rows_have_every_pair(axes: tuple[int, int]) -> None:
    one, other = axes
    expected = set(itertools.product(AXES[one], AXES[other]))
    assert {(cell[one], cell[other]) for cell in pairs()} == expected
    if axes == (0, 1):
        assert {cell[:2] for cell in main_rows()} == expected
        for axis in range(4):
            assert {cell[axis] for cell in main_rows()} == set(AXES[axis])


# What Keras' optimizers do to pruned networks by themselves.


def stepped(optimizer: keras.optimizers.Optimizer, gradient: list[list[float]]) -> np.ndarray:
    weights = keras.Variable(np.ones((2, 2), np.float32))
    optimizer.apply([ops.convert_to_tensor(gradient, "float32")], [weights])
    return ops.convert_to_numpy(weights)


def test_ftrl_sets_a_weight_that_has_had_no_gradient_to_zero() -> None:
    """So a pruned network, where units are dead, gets more zeros than were asked for."""
    after = stepped(keras.optimizers.Ftrl(0.1), [[0.0, 0.5], [0.5, 0.5]])
    assert after[0, 0] == 0
    assert np.count_nonzero(after) == 3


def test_adafactor_is_nan_where_a_row_and_a_column_have_no_gradient() -> None:
    """Its second moment there is the product of two epsilons, which float32 has not."""
    gradient = [[0.0, 0.0], [0.0, 1.0]]
    assert np.isnan(stepped(keras.optimizers.Adafactor(0.1), gradient)).any()
    assert np.isfinite(stepped(keras.optimizers.Adafactor(0.1, epsilon_1=1e-15), gradient)).all()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="on the others it starts from the weights")
@pytest.mark.parametrize("built", [False, True])
def test_schedule_free_adamw_throws_the_weights_away_in_a_compiled_step(built: bool) -> None:
    """Its momentum is to start as the weights are, and starts as 0 unless it is built before."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.ScheduleFreeAdamW(1e-3), "mse")
    if built:
        model.optimizer.build(model.trainable_variables)
    (before, _), x = model.get_weights(), np.ones((8, 4), np.float32)
    model.fit(x, np.zeros((8, 3)), batch_size=8, epochs=1, verbose=0)
    moved = np.abs(model.get_weights()[0] - before).max()
    assert moved < 1.1e-3 if built else moved > 0.1


def test_the_loop_that_is_tried_is_the_one_of_the_docs() -> None:
    text = (Path(__file__).parents[1] / "docs/promises.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    lines = [line.split("#")[0].rstrip() for line in block.splitlines()]
    source = inspect.getsource(by_hand.loop).splitlines()
    places = [source.index(f"    {line}") for line in lines if "..." not in line]
    assert places == sorted(places)


# What makes the checks fail.


@pytest.mark.filterwarnings("ignore:GlobalPrune. this fit ends")
def test_a_cell_fails_where_zeros_are_not_held(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(holding, "_holding", lambda apply, _: apply)
    for model in ("sequential", "own loop"):
        lost = "Arrays are not equal|zeros were lost"
        with pytest.raises((AssertionError, UserWarning), match=lost):
            check_cell((model, "float32", "SGD", "eager"), tmp_path / "m.keras")
