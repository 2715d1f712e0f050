"""From a goal to how many zeros in which layers, and doing it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from keras_l0.errors import invalid_argument
from keras_l0.pruning import masks
from keras_l0.pruning.goals import Goal
from keras_l0.pruning.scores import Array, Score
from keras_l0.pruning.targets import Targets, Weight, find_targets, matches


@dataclass(frozen=True)
class Quota:
    """Weights that are ranked together, and how many of them are to be zero in the end.

    ``counted`` zeros of these stand elsewhere, in weights that pruning leaves alone.
    """

    weights: list[Weight]
    zeros: float
    counted: int = 0

    def count(self, share: float = 1.0) -> int:
        """The number of zeros once ``share`` of the target is reached."""
        return max(0, round(share * self.zeros) - self.counted)


def global_plan(model: keras.Model, targets: Targets, goal: Goal) -> list[Quota]:
    """All weights ranked together."""
    zeros, counted = _wanted(model, targets, goal)
    return [Quota(targets.live, zeros, counted)]


def layerwise_plan(
    model: keras.Model,
    targets: Targets,
    goal: Goal | None,
    distribution: str = "uniform",
    sparsities: Mapping[str, float] | None = None,
) -> list[Quota]:
    """Each layer's weights ranked by themselves.

    Args:
        model: a built model.
        targets: its prunable weights.
        goal: how small; ``None`` with ``sparsities``.
        distribution: ``"uniform"``, one sparsity for all layers, or ``"erk"``.
        sparsities: instead, a sparsity for each layer by ``fnmatch`` patterns on its path or
            name; the first that matches counts, and a layer that none matches is left alone.

    Returns:
        A quota for each weight tensor.

    Raises:
        ValueError: if the goal cannot be reached, or a pattern matches no layer.
    """
    live = targets.live
    if sparsities is not None:
        return _given(targets, sparsities)
    assert goal is not None, "a plan without sparsities has a goal"
    zeros, counted = _wanted(model, targets, goal)
    wanted = max(0.0, zeros - counted)
    sizes = [weight.size for weight in live]
    if distribution == "erk":
        shares = masks.erk_shares([tuple(weight.variable.shape) for weight in live], wanted)
    else:
        shares = masks.uniform_shares(sizes, wanted)
        if goal.sparsity is not None:  # the literature's rule: each layer rounds by itself
            return [Quota([weight], share) for weight, share in zip(live, shares, strict=True)]
    counts = masks.apportion(shares, round(wanted))
    return [Quota([weight], count) for weight, count in zip(live, counts, strict=True)]


def prune_to(plan: Sequence[Quota], share: float, score: Score) -> None:
    """Zeros the weights of least score, up to ``share`` of each quota, in place.

    Zeros that are there already stay, also where they are more than the quota.

    Raises:
        ValueError: if a weight is NaN or infinite; then nothing is changed.
    """
    found = check_weights(plan)
    masks_of = [
        masks.smallest(score(values), quota.count(share))
        for quota, values in zip(plan, found, strict=True)
    ]
    for quota, values, gone in zip(plan, found, masks_of, strict=True):
        for weight, w, mask in zip(quota.weights, values, gone, strict=True):
            if np.any(mask & (w != 0)):
                weight.variable.assign(np.where(mask, np.zeros((), w.dtype), w))


def check_weights(plan: Sequence[Quota]) -> list[list[Array]]:
    """The weights of each quota, found to be finite.

    Raises:
        ValueError: if a weight is NaN or infinite.
    """
    found = [[weight.values() for weight in quota.weights] for quota in plan]
    for quota, values in zip(plan, found, strict=True):
        for weight, w in zip(quota.weights, values, strict=True):
            check_finite(weight, w)
    return found


def zeros_in(weights: Sequence[Weight]) -> int:
    """The number of weights that are exactly zero."""
    return sum(int(np.count_nonzero(weight.values() == 0)) for weight in weights)


def check_finite(weight: Weight, values: np.ndarray) -> None:
    """Raises a ``ValueError`` that names the weight if it holds NaN or infinity."""
    bad = int(values.size - np.count_nonzero(np.isfinite(values)))
    if bad:
        raise invalid_argument(
            "model",
            "finite weights",
            weight.path,
            f"{bad} of its {values.size} weights are NaN or infinite",
        )


def check_live(model: keras.Model, targets: Targets) -> None:
    """Raises a ``ValueError`` unless there are weights that pruning may zero."""
    if not targets.live:
        raise invalid_argument(
            "model",
            "a model with weights that can be pruned",
            model.name,
            "Every kernel is frozen: name layers in `layers` to prune them all the same"
            if targets.frozen
            else "None of its layers has a kernel",
        )


def _wanted(model: keras.Model, targets: Targets, goal: Goal) -> tuple[float, int]:
    """How many zeros are wanted, and how many of them stand outside the live weights."""
    check_live(model, targets)
    room = sum(weight.size for weight in targets.live)
    if goal.sparsity is not None:
        counted = zeros_in(targets.frozen)
        zeros = goal.sparsity * targets.size
        if round(zeros) - counted > room:
            reachable = (room + counted) / targets.size
            raise _out_of_reach("sparsity", goal.sparsity, reachable, targets)
        return zeros, counted
    assert goal.compression is not None, "a goal has one of the two"
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


def _out_of_reach(argument: str, value: float, reachable: float, targets: Targets) -> ValueError:
    advice = "More layers than those named in `layers` would have to be pruned"
    if targets.frozen:
        names = ", ".join(sorted({weight.name for weight in targets.frozen}))
        advice = f"Frozen weights are left alone: {names}. `layers` includes them"
    elif argument == "compression":
        advice = "Biases, normalization and embeddings count as left"
    return invalid_argument(
        argument, f"at most {reachable:.6g}, the largest reachable", value, advice
    )


def _given(targets: Targets, sparsities: Mapping[str, float]) -> list[Quota]:
    plan = []
    used: set[str] = set()
    for weight in targets.live:
        hits = [pattern for pattern in sparsities if matches(weight.lineage, pattern)]
        used.update(hits)
        if hits:
            plan.append(Quota([weight], sparsities[hits[0]] * weight.size))
    for pattern in sparsities:
        if pattern not in used:
            raise invalid_argument(
                "sparsities",
                "patterns that match a layer that can be pruned",
                pattern,
                f"These can be: {', '.join(weight.name for weight in targets.live)}",
            )
    return plan
