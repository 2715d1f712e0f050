"""From a goal to how many zeros in which layers."""

import math
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from keras_l0.errors import invalid_argument
from keras_l0.pruning import masks, unpruned
from keras_l0.pruning.goals import Goal
from keras_l0.pruning.quota import Quota, check_weights, zeros_in
from keras_l0.pruning.ranked import ByScore, units_in
from keras_l0.pruning.scores import Score, magnitude
from keras_l0.pruning.targets import Targets, Weight, find_targets
from keras_l0.pruning.units import SINGLE, Block, Unit
from keras_l0.text import listed


def global_plan(
    model: keras.Model,
    targets: Targets,
    goal: Goal | None,
    unit: Unit = SINGLE,
    score: Score = magnitude,
) -> list[Quota]:
    """All weights ranked together.

    Args:
        model: a built model.
        targets: its prunable weights.
        goal: how small; ``None`` for every unit, as with a pattern.
        unit: what goes together.
        score: what they are ranked by.

    Returns:
        One quota.

    Raises:
        ValueError: if the goal cannot be reached.
    """
    zeros, counted = _wanted(model, targets, goal, unit)
    if _by_reaching(goal, unit):
        groups = [targets.live]
        zeros, counted = _fewest(groups, unit, zeros - counted, lambda n: [n], score)[0], 0
    return [Quota(targets.live, zeros, counted, unit)]


def layerwise_plan(
    model: keras.Model,
    targets: Targets,
    goal: Goal | None,
    distribution: str = "uniform",
    sparsities: Mapping[str, float] | None = None,
    unit: Unit = SINGLE,
) -> list[Quota]:
    """Each layer's weights ranked by themselves.

    Args:
        model: a built model.
        targets: its prunable weights.
        goal: how small; ``None`` with ``sparsities``, or for every unit, as with a pattern.
        distribution: ``"uniform"``, one sparsity for all layers, or ``"erk"``.
        sparsities: instead, a sparsity for each layer by ``fnmatch`` patterns on its path or
            name; the first that matches counts, and a layer that none matches is left alone.
        unit: what goes together; a sparsity is a share of these.

    Returns:
        A quota for each weight tensor.

    Raises:
        ValueError: if the goal cannot be reached, or a pattern matches no layer.
    """
    live = targets.live
    if sparsities is not None:
        return _given(targets, sparsities, unit)
    zeros, counted = _wanted(model, targets, goal, unit)
    wanted = max(0.0, zeros - counted)
    shapes = [tuple(weight.variable.shape) for weight in live]
    sizes = [unit.count(shape) for shape in shapes]

    def shares(zeros: float) -> list[float]:
        if distribution == "erk":
            return masks.erk_shares(shapes, zeros, sizes)
        return masks.uniform_shares(sizes, zeros)

    sparsity = 1.0 if goal is None else goal.sparsity
    counts: Sequence[float]
    if _by_reaching(goal, unit):
        counts = _fewest([[weight] for weight in live], unit, wanted, shares)
    elif distribution == "erk" or sparsity is None:
        counts = masks.apportion(shares, round(wanted), sum(sizes))
    elif targets.frozen:
        counts = shares(wanted)  # the literature's rule: each layer rounds by itself
    else:
        counts = [sparsity * size for size in sizes]  # likewise; a quotient may miss the half
    return [Quota([weight], count, 0, unit) for weight, count in zip(live, counts, strict=True)]


def of_the_rest(targets: Targets, fraction: float) -> list[Quota]:
    """All weights ranked together: those that are zero, and this share of the others, go.

    One at least goes, if there is one.
    """
    zeros = zeros_in(targets.live)
    left = sum(weight.size for weight in targets.live) - zeros
    return [Quota(targets.live, zeros + min(left, max(1, round(fraction * left))))]


def check_live(model: keras.Model, targets: Targets) -> None:
    """Raises a ``ValueError`` unless there are weights that pruning may zero."""
    if not targets.live:
        raise invalid_argument(
            "model", "a model with weights that can be pruned", model.name, unpruned.advice(targets)
        )


def check_prunable(model: keras.Model, targets: Targets) -> None:
    """Raises a ``ValueError`` unless there are weights to prune, and they are finite."""
    check_live(model, targets)
    check_weights([Quota(targets.live, 0)])


def _wanted(
    model: keras.Model, targets: Targets, goal: Goal | None, unit: Unit
) -> tuple[float, int]:
    """How many zeros are wanted, and how many of them stand outside the live weights.

    They are units, but single weights where the goal is a compression.
    """
    check_live(model, targets)
    units = units_in(targets.live, unit)
    if goal is None:
        return units, 0
    if goal.sparsity is not None:
        counted = zeros_in(targets.frozen, unit)
        total = units + units_in(targets.frozen, unit)
        zeros = goal.sparsity * total
        if round(zeros) - counted > units:
            raise _out_of_reach("sparsity", goal.sparsity, (units + counted) / total, targets)
        return zeros, counted
    assert goal.compression is not None, "a goal has one of the two"
    room = units_in(targets.live, SINGLE)
    live = {id(weight.variable) for weight in targets.live}
    others = [w for w in find_targets(model).weights if id(w.variable) not in live]
    counted = zeros_in(others)
    parameters = model.count_params()
    left = math.floor(parameters / goal.compression)
    if parameters / (left + 1) >= goal.compression:  # the quotient was rounded down: 33 / 1.1
        left += 1
    zeros = parameters - left
    if zeros - counted > room:
        left = parameters - room - counted
        reachable = parameters / left if left else math.inf
        raise _out_of_reach("compression", goal.compression, reachable, targets)
    return zeros, counted


def _by_reaching(goal: Goal | None, unit: Unit) -> bool:
    """Whether the number of units depends on which they are: blocks have zeros, or are cut."""
    return goal is not None and goal.compression is not None and isinstance(unit, Block)


def _fewest(
    groups: Sequence[Sequence[Weight]],
    unit: Unit,
    zeros: float,
    shares: Callable[[float], Sequence[float]],
    score: Score = magnitude,
) -> list[int]:
    """How many units of each group go, those of least score, until there are so many zeros in all.

    All scores of a group are sorted: one for each block is kept, which a threshold does not need.
    """
    there, gains = 0, []
    for group in groups:
        ranked = ByScore(group, unit, score, keep=False)
        scores = np.concatenate([one.ravel() for one in ranked.scores()])
        sizes = np.concatenate([unit.scores(one.values() != 0).ravel() for one in group])
        order = np.argsort(scores, kind="stable")
        gains.append(np.concatenate([[0.0], np.cumsum(sizes[order])]))
        there += zeros_in(group)
    return masks.fewest(gains, zeros - there, shares)


def _out_of_reach(argument: str, value: float, reachable: float, targets: Targets) -> ValueError:
    advice = "More layers than those named in `layers` would have to be pruned"
    left = argument == "compression" and (targets.quantized or targets.unnamed)
    if targets.frozen or left:
        advice = unpruned.advice(targets)
    elif argument == "compression":
        advice = "Biases, normalization and embeddings count as left"
    return invalid_argument(
        argument, f"at most {reachable:.6g}, the largest reachable", value, advice
    )


def _given(targets: Targets, sparsities: Mapping[str, float], unit: Unit) -> list[Quota]:
    plan = []
    used: set[str] = set()
    for weight in targets.live:
        hits = [pattern for pattern in sparsities if weight.matches(pattern)]
        used.update(hits)
        if hits:
            zeros = sparsities[hits[0]] * unit.count(weight.variable.shape)
            plan.append(Quota([weight], zeros, unit=unit))
    for pattern in sparsities:
        if pattern not in used:
            raise invalid_argument(
                "sparsities",
                "patterns that match a layer that can be pruned",
                pattern,
                f"These can be: {listed((weight.name for weight in targets.live), most=8)}",
            )
    return plan
