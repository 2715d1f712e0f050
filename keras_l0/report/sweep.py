"""Metric against compression: how a target is chosen."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import keras

from keras_l0.data import check_compiled, evaluate, loss_name, unpack
from keras_l0.errors import choice, invalid_argument
from keras_l0.models import check_built
from keras_l0.pruning import collapse, plan, quota, variation
from keras_l0.pruning.goals import Goal
from keras_l0.pruning.measure import measure
from keras_l0.pruning.once import choose_score, make_plan
from keras_l0.pruning.scores import Array, Ranking
from keras_l0.pruning.targets import Targets, find_targets
from keras_l0.report.plots import plot_tradeoff
from keras_l0.text import table

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Point:
    """One pruning of a sweep.

    Args:
        weight: the path of the only weight tensor pruned, or ``None`` for the whole network.
        compression: all parameters of the network over those left.
        weight_compression: prunable weights over those not zero; of ``weight`` alone where
            there is one.
        metrics: what ``evaluate`` found, by name; the loss is without the penalties on weights,
            of which a pruned network has less.
        dead: what shows that pruning went too far, a sentence each: outputs that no input
            reaches, or that hardly vary between samples.
    """

    weight: str | None
    compression: float
    weight_compression: float
    metrics: dict[str, float]
    dead: list[str]


@dataclass(frozen=True)
class Sweep:
    """Metrics of a network pruned to several compressions, without training.

    Args:
        baseline: the metrics of the model as it is.
        points: one for each pruning, in the order they were asked for.
        loss_name: what the loss is called in a table; a ``test_step`` of the model's own may have
            the penalties in it.
    """

    baseline: dict[str, float]
    points: list[Point]
    loss_name: str

    def plot(self, metric: str | None = None, ax: "Axes | None" = None) -> "Axes":
        """Draws the metric against compression, a line for each weight tensor swept.

        Args:
            metric: one of the names in ``baseline``; ``None`` for the first that is not the
                loss.
            ax: where to draw; a new figure if ``None``.

        Returns:
            The axes.

        Raises:
            ValueError: if there is no such metric.
        """
        name = metric or next((name for name in self.baseline if name != "loss"), "loss")
        if name not in self.baseline:
            raise invalid_argument("metric", f"one of {', '.join(self.baseline)}", metric)
        for weight in dict.fromkeys(point.weight for point in self.points):
            pairs = [
                (point.weight_compression if weight else point.compression, point.metrics[name])
                for point in self.points
                if point.weight == weight
            ]
            line = [pair for pair in pairs if math.isfinite(pair[0])]
            baseline = self.baseline[name] if ax is None else None
            ax = plot_tradeoff(line, metric=name, label=weight, baseline=baseline, ax=ax)
        assert ax is not None, "a sweep has a point"
        if self.points[0].weight is not None:
            ax.set_xlabel("weight compression of the layer (weights / weights left)")
        return ax

    def to_dict(self) -> dict[str, Any]:
        """The sweep in plain Python values."""
        plain = asdict(self)
        for point in plain["points"]:  # None is infinite, which JSON does not know
            for name in ("compression", "weight_compression"):
                point[name] = point[name] if math.isfinite(point[name]) else None
        return plain

    def to_json(self) -> str:
        """The sweep as JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        rows = [["as it is", "", "", *(f"{value:.4f}" for value in self.baseline.values())]]
        rows += [
            [
                f"{point.weight or 'network'}{', dead' if point.dead else ''}",
                f"{point.compression:.2f}x",
                f"{point.weight_compression:.2f}x",
                *(f"{value:.4f}" for value in point.metrics.values()),
            ]
            for point in self.points
        ]
        names = [self.loss_name if name == "loss" else name for name in self.baseline]
        return table(["pruned", "compression", "weight compression", *names], rows, title="Sweep")


def sweep(
    model: keras.Model,
    validation: Any,
    *,
    compressions: Sequence[float],
    method: str = "global",
    by: str = "network",
    score: Ranking | None = None,
    seed: int | None = None,
    layers: str | Sequence[str] | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
) -> Sweep:
    """Prunes a model to several compressions, evaluates each, and leaves it as it was.

    Nothing is trained: a sweep is a lower bound on what pruning during training reaches, and
    tells which layers are sensitive.

    Args:
        model: a built and compiled model.
        validation: whatever ``evaluate`` takes: a tuple of arrays or a data set of batches.
        compressions: numbers ≥ 1. With ``by="network"`` all parameters of the network over
            those left; with ``by="layer"`` the weights of the one tensor pruned over those left.
        method: ``"global"``, ``"layerwise"`` or ``"random"``, as in ``prune``.
        by: ``"network"``, or ``"layer"``: each weight tensor in turn, the others left alone.
        score: as in ``prune``.
        seed: as in ``prune``.
        layers: as in ``prune``.
        steps: batches to evaluate, for a data set that is repeated.
        batch_size: of the evaluation, for arrays.

    Returns:
        The metrics at each compression; ``print`` shows a table, ``plot`` draws it.

    Raises:
        ValueError: if an argument is out of its range, the model is not built or not compiled,
            or a compression is out of reach.

    Warns:
        DeadNetworkWarning: once, if a pruning leaves a network without a function: outputs that
            no input reaches, or that hardly vary between samples of ``validation``.

    Example:

    >>> import numpy as np
    >>> from keras_l0 import sweep
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse", metrics=["mae"])
    >>> found = sweep(model, (np.ones((8, 4)), np.ones((8, 2))), compressions=[1, 2])
    >>> [point.compression for point in found.points]
    [1.0, 2.0]
    """
    check_built(model)
    check_compiled(model)
    if not isinstance(compressions, Sequence) or isinstance(compressions, str):
        raise invalid_argument("compressions", "a list of numbers >= 1", compressions)
    goals = [Goal(compression=compression) for compression in compressions]
    if not goals:
        raise invalid_argument("compressions", "at least one number >= 1", compressions)
    choice("by", by, ("network", "layer"))
    chosen = choose_score(method, score, seed)
    targets = find_targets(model, layers)
    plan.check_live(model, targets)
    scopes: list[tuple[str | None, Targets]] = [(None, targets)]
    if by == "layer":
        scopes = [(weight.path, Targets([weight], [], {})) for weight in targets.live]
    runs = []
    for path, scope in scopes:
        for goal in goals:
            if path is None:
                quotas = make_plan(model, scope, goal, method)
            else:  # of a layer alone the compression is that of its weights
                left = scope.size / float(goal.compression or 1)
                quotas = [quota.Quota(scope.live, scope.size - left)]
            runs.append((path, scope, quotas))
    before = [weight.values().copy() for weight in targets.live]
    baseline = evaluate(model, validation, "validation", steps=steps, batch_size=batch_size)
    varied = variation.of_data(model, unpack(validation, "validation"), batch_size)
    if varied:
        varied.note(model, baseline["loss"])
    points = []
    try:
        for path, scope, quotas in runs:
            quota.prune_to(quotas, 1.0, chosen)
            now = measure(model, scope)
            found = evaluate(model, validation, "validation", steps=steps, batch_size=batch_size)
            dead = collapse.find_dead(model, scope)
            if varied and not dead:
                dead = varied.lost(model, found["loss"])
            points.append(Point(path, now.compression, now.weight_compression, found, dead))
            _restore(targets, before)
    finally:
        _restore(targets, before)
    gone = [point for point in points if point.dead]
    if gone:
        number = f"{len(gone)} of {len(points)} prunings, the first to"
        remedy = collapse.remedy_for(score) if method == "global" and score else ""
        reached = f"{gone[0].weight_compression:.2f}x of the weights"
        collapse.warn_of_dead(f"sweep ({number} {reached})", gone[0].dead, remedy)
    return Sweep(baseline, points, loss_name(model))


def _restore(targets: Targets, values: list[Array]) -> None:
    for weight, before in zip(targets.live, values, strict=True):
        weight.variable.assign(before)
