"""What can be asked for, and what cannot."""

import math
from typing import Any

import pytest
from strategies import invalid

from keras_l0.pruning.goals import Goal, global_goal, layerwise_goal


@pytest.mark.parametrize("bad", [-0.1, 1, 1.0, 1.5, math.nan, math.inf, True, "0.5"])
def test_a_sparsity_out_of_range_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match=invalid("sparsity", "a float in [0, 1)", repr(bad))):
        Goal(sparsity=bad)


@pytest.mark.parametrize("bad", [0.99, 0, -2, math.nan, math.inf, True, "2"])
def test_a_compression_out_of_range_is_refused(bad: Any) -> None:
    message = invalid("compression", "a finite float >= 1", repr(bad))
    with pytest.raises(ValueError, match=message):
        Goal(compression=bad)


@pytest.mark.parametrize(("sparsity", "compression"), [(None, None), (0.5, 2.0), (0.0, 1)])
def test_just_one_goal_is_given(sparsity: Any, compression: Any) -> None:
    message = invalid(
        "sparsity",
        "just one of `sparsity` and `compression`",
        repr(sparsity),
        f"And compression={compression!r}",
    )
    with pytest.raises(ValueError, match=message):
        Goal(sparsity, compression)


NOT_BESIDE = "None beside `sparsity`, `compression` or `distribution`"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.5, None, "even", None), invalid("distribution", '"uniform" or "erk"', "'even'")),
        ((0.5, None, "uniform", {"a": 0.5}), invalid("sparsities", NOT_BESIDE, "{'a': 0.5}")),
        ((None, 2.0, "uniform", {"a": 0.5}), invalid("sparsities", NOT_BESIDE, "{'a': 0.5}")),
        ((None, None, "erk", {"a": 0.5}), invalid("sparsities", NOT_BESIDE, "{'a': 0.5}")),
        (
            (None, None, "uniform", {}),
            invalid("sparsities", "a dict from pattern to sparsity", "{}"),
        ),
        (
            (None, None, "uniform", [0.5]),
            invalid("sparsities", "a dict from pattern to sparsity", "[0.5]"),
        ),
        (
            (None, None, "uniform", {"a": 1.0}),
            invalid("sparsities['a']", "a float in [0, 1)", "1.0"),
        ),
    ],
)
def test_layerwise_goals_that_make_no_sense_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layerwise_goal(*arguments)


def test_sparsities_are_a_goal_by_themselves() -> None:
    assert layerwise_goal(None, None, "uniform", {"a": 0.5}) is None
    assert layerwise_goal(0.5, None, "erk", None) == Goal(sparsity=0.5)


FIXES = "It fixes the sparsity"


@pytest.mark.parametrize("goal", [(0.5, None), (None, 2.0), (0.0, None), (0.5, 2.0)])
def test_a_pattern_beside_another_goal_is_refused(goal: Any) -> None:
    message = invalid("pattern", "None beside `sparsity` or `compression`", "'2:4'", FIXES)
    with pytest.raises(ValueError, match=message):
        global_goal(*goal, "2:4")
    with pytest.raises(ValueError, match=message):
        layerwise_goal(*goal, "uniform", None, "2:4")


@pytest.mark.parametrize("how", [("erk", None), ("uniform", {"a": 0.5}), ("uniform", {})])
def test_a_pattern_beside_a_distribution_is_refused(how: Any) -> None:
    message = invalid("pattern", "None beside `distribution` or `sparsities`", "'2:4'", FIXES)
    with pytest.raises(ValueError, match=message):
        layerwise_goal(None, None, *how, "2:4")


def test_a_pattern_is_a_goal_by_itself() -> None:
    assert global_goal(None, None, "2:4") is None
    assert layerwise_goal(None, None, "uniform", None, "2:4") is None
    assert global_goal(0.5, None, None) == Goal(sparsity=0.5)
