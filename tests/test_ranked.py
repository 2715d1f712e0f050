"""Weights of several tensors are ranked together, one tensor at a time."""

import tracemalloc
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray
from strategies import Holder, block_oracle, holders, smallest_oracle

from keras_l0 import prune
from keras_l0.pruning import plan, quota, selection
from keras_l0.pruning.goals import Goal
from keras_l0.pruning.scores import Custom, Score, lamp, magnitude, random
from keras_l0.pruning.targets import Weight, find_targets
from keras_l0.pruning.units import SINGLE, Block, Pattern, Unit

SHAPES = [(7, 3), (11,), (2, 3, 4, 5), (0, 4), ()]


def arrays() -> list[NDArray[np.float32]]:
    """Weights of few values, which each float dtype has."""
    rng = np.random.default_rng(0)
    return [np.asarray(rng.integers(-4, 5, shape) / 4, np.float32) for shape in SHAPES]


def kernels(model: keras.Model) -> list[NDArray[Any]]:
    held = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
    return [ops.convert_to_numpy(ops.cast(one, "float32")) for one in held]


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    "dtypes",
    [["float16"] * 5, ["bfloat16"] * 5, ["bfloat16", "float32", "float16", "bfloat16", "float32"]],
    ids=["half", "brain", "mixed"],
)
def test_narrow_weights_and_those_of_several_dtypes_are_ranked_together(
    dtypes: list[str], sparsity: float
) -> None:
    given = arrays()
    inputs = keras.Input((1,))
    outputs = [
        Holder(kernel, dtype=dtype)(inputs) for kernel, dtype in zip(given, dtypes, strict=True)
    ]
    model = keras.Model(inputs, outputs)
    count = round(sparsity * sum(array.size for array in given))
    prune(model, sparsity, score="magnitude")
    masks = smallest_oracle([np.abs(array) for array in given], count)
    for found, array, gone in zip(kernels(model), given, masks, strict=True):
        np.testing.assert_array_equal(found, np.where(gone, 0, array))


@pytest.mark.parametrize("score", [magnitude, lamp, random(3)], ids=["size", "lamp", "random"])
@pytest.mark.parametrize(
    "unit", [SINGLE, Block(2, 2), Pattern(2, 4)], ids=["single", "block", "2:4"]
)
def test_scores_that_are_not_kept_give_the_same(
    score: Score, unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for kept in (quota.KEPT, 0):
        monkeypatch.setattr(quota, "KEPT", kept)
        model = holders(arrays()[:4])
        goal = None if isinstance(unit, Pattern) else Goal(0.6)
        quotas = plan.global_plan(model, find_targets(model), goal, unit)
        quota.prune_to(quotas, 0.8, score)
        found.append(kernels(model))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    if unit == Block(2, 2) and score is magnitude:
        count = quotas[0].count(0.8)
        masks = block_oracle(arrays()[:4], (2, 2), count)
        for one, array, gone in zip(found[0], arrays(), masks, strict=False):
            np.testing.assert_array_equal(one, np.where(gone, 0, array))


def test_a_users_function_is_asked_once_for_each_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "KEPT", 0)
    rng, asked = np.random.default_rng(0), []

    def moody(w: NDArray[Any]) -> NDArray[Any]:
        asked.append(w.shape)
        return rng.random(w.shape)

    model = holders([np.ones((5, 4)), np.ones(7)])
    assert prune(model, 0.5, score=moody).zeros == round(0.5 * 27)
    assert asked == [(5, 4), (7,)]


def test_nothing_is_pruned_where_a_users_function_fails_for_a_later_tensor() -> None:
    model = holders([np.ones((5, 4)), np.ones(7)])
    with pytest.raises(ValueError, match="score"):
        prune(model, 0.5, score=lambda w: w if w.ndim == 2 else w[:1], method="layerwise")
    assert all(kernel.all() for kernel in kernels(model))


@pytest.mark.parametrize("ways", ["together", "each for itself"])
@pytest.mark.parametrize(
    "score", [magnitude, random(3), Custom(np.abs)], ids=["size", "random", "user"]
)
def test_memory_is_that_of_one_tensor_whatever_the_number(
    score: Score, ways: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "KEPT", 500_000)  # less than the few tensors have
    for name, size in (("FEW", 2**19), ("SAMPLE", 2**15)):
        monkeypatch.setattr(selection, name, size)
    # Backends may keep the very array that is assigned, which is then the weights themselves.
    monkeypatch.setattr(Weight, "assign", lambda *_: None)

    def extra(number: int) -> int:
        rng = np.random.default_rng(0)
        model = holders([rng.random((500, 400), np.float32) for _ in range(number)])
        quotas = plan.global_plan(model, find_targets(model), Goal(0.9), SINGLE)
        if ways == "each for itself":
            weights = quotas[0].weights
            quotas = [quota.Quota([weight], 0.9 * weight.size) for weight in weights]
        tracemalloc.start()
        quota.prune_to(quotas, 1.0, score)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = extra(3), extra(24)
    if isinstance(score, Custom):  # whose scores are kept, since it may say something else
        assert many - few > 20 * 8 * 200_000
    else:
        assert many < 1.2 * few
