"""Pruning once and now."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from keras_l0.errors import choice, invalid_argument, one_of
from keras_l0.models import check_finite
from keras_l0.pruning import collapse, plan, quota, scores
from keras_l0.pruning.goals import Goal
from keras_l0.pruning.measure import Measure, measure
from keras_l0.pruning.neurons import NeuronGoal, Neurons
from keras_l0.pruning.targets import Targets, find_targets
from keras_l0.text import listed, shortened, table

METHODS = ("global", "layerwise", "random")
"""Those that take single weights; ``"neuron"`` takes whole channels."""


@dataclass(frozen=True)
class Pruned(Measure):
    """What ``prune`` did: the sparsity reached, what was left alone, and whether it went too far.

    Args:
        frozen: paths of frozen weights, which count as left.
        skipped: paths of layers that have nothing to prune, with the reason; with
            ``method="neuron"`` also of those whose channels were left alone.
        dead: what shows that the network has no function any more, a sentence each: outputs
            that no input reaches, or in a subclassed model kernels of zeros alone.
    """

    frozen: list[str]
    skipped: dict[str, str]
    dead: list[str]

    def __str__(self) -> str:
        """A small table."""
        rows = [
            ["zeros", f"{self.zeros:,}"],
            ["sparsity", f"{self.sparsity:.2%}"],
            ["compression", f"{self.compression:.2f}x"],
            ["weight compression", f"{self.weight_compression:.2f}x"],
        ]
        left_alone = {"frozen weights": self.frozen, "skipped layers": self.skipped}
        lines = [
            f"{len(paths)} {what}: {listed((shortened(path, 18) for path in paths), most=2)}"
            for what, paths in left_alone.items()
            if paths
        ]
        if self.dead:
            lines.append(f"Pruning went too far: {listed(self.dead, most=2)}.")
        return "\n".join([table(["", "pruned"], rows), *lines])


def prune(
    model: keras.Model,
    sparsity: float | None = None,
    *,
    compression: float | None = None,
    method: str = "global",
    score: scores.Ranking | None = None,
    seed: int | None = None,
    layers: str | Sequence[str] | None = None,
    fraction: float | None = None,
    flops: float | None = None,
    scope: str = "layer",
    minimum: int = 1,
    round_to: int = 1,
) -> Pruned:
    """Sets the weights that matter least to zero: once, now, in place.

    Zeros that the model has already count, and stay. A ``fit`` afterwards keeps them zero
    with ``KeepZeros()``.

    Args:
        model: a built model; it need not be compiled.
        sparsity: zeros over all prunable weights chosen, in [0, 1): just ``round(s · n)`` are
            zero afterwards; of equal ones the earlier go first.
        compression: instead: all parameters of the network over those left, ≥ 1. With
            ``method="neuron"`` those are left that ``shrink`` leaves.
        method: ``"global"`` ranks all weights together, ``"layerwise"`` each layer's by
            themselves at one sparsity, ``"random"`` takes any of the network; ``"neuron"`` takes
            whole neurons and filters, which ``shrink`` then removes. It needs a Sequential or
            Functional model, and ``fraction``, ``flops`` or ``compression``.
        score: ``"lamp"`` or ``"magnitude"``, as in ``GlobalPrune``, or a function from a weight
            tensor (NumPy) to scores of its shape; the smallest go first. For neurons ``"norm"``
            or ``"redundancy"``, as in ``NeuronPrune``. ``None`` for the default: ``"lamp"``,
            with ``method="layerwise"`` ``"magnitude"``, for neurons ``"norm"``.
        seed: for ``method="random"``, an integer ≥ 0; ``None`` draws one.
        layers: ``fnmatch`` patterns on a layer's path or name, or one: only these are pruned,
            frozen ones too. ``None`` for every prunable weight that is not frozen. A variable's
            name may follow: ``"*/*kernel"`` is every kernel, ``["*/*kernel", "*/w2"]`` also
            the matrices ``w2`` of custom layers.
        fraction: for ``method="neuron"``: the share of channels that are zero afterwards, in
            [0, 1), of each layer or group of layers that hang together.
        flops: instead: the share of the multiply-adds that go, in [0, 1), with the smallest
            fraction that reaches it.
        scope: ``"layer"``, or ``"global"`` to rank the channels of all groups together.
        minimum: how many channels stay in each layer, ≥ 1.
        round_to: each layer keeps a multiple of so many channels, ≥ 1, or all that it has.

    Returns:
        The sparsity and compression reached, frozen weights and skipped layers; ``print`` shows
        a small table.

    Raises:
        ValueError: if an argument is out of its range, the model is not built, a pattern
            matches no layer, the target is out of reach, or a weight is not finite; the
            model is unchanged then.

    Warns:
        DeadNetworkWarning: if what is left has no function any more; ``dead`` in what is returned
            says the same.

    Example:

    >>> from keras_l0 import prune
    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(4)])
    >>> prune(model, 0.75).zeros
    30

    Source: the paper's GP, LP and RP (section 4.1), and NP (section 4.6).
    """
    choice("method", method, (*METHODS, "neuron"))
    if method == "neuron":
        if sparsity is not None:
            raise invalid_argument(
                "sparsity",
                'None with method="neuron"',
                sparsity,
                "Give `fraction`, `flops` or `compression`",
            )
        if seed is not None:
            raise invalid_argument("seed", 'None with method="neuron"', seed)
        by = "norm" if score is None else score
        goal = NeuronGoal(fraction, flops, compression, scope, minimum, by, round_to)
        return _prune_neurons(model, goal, layers)
    for name, value, unset in (
        ("fraction", fraction, None),
        ("flops", flops, None),
        ("scope", scope, "layer"),
        ("minimum", minimum, 1),
        ("round_to", round_to, 1),
    ):
        if type(value) is not type(unset) or value != unset:
            raise invalid_argument(name, 'nothing without method="neuron"', value)
    asked = Goal(sparsity, compression)
    chosen = choose_score(method, score, seed)
    targets = find_targets(model, layers)
    quota.prune_to(make_plan(model, targets, asked, method), 1.0, chosen)
    return _report(model, targets, targets.skipped)


def _prune_neurons(
    model: keras.Model, goal: NeuronGoal, layers: str | Sequence[str] | None
) -> Pruned:
    targets = find_targets(model, layers)
    check_finite(model)
    neurons = Neurons(model, targets)
    neurons.zero(neurons.choose(goal))
    return _report(model, targets, {**targets.skipped, **neurons.left_alone})


def _report(model: keras.Model, targets: Targets, skipped: dict[str, str]) -> Pruned:
    dead = collapse.find_dead(model, targets)
    collapse.warn_of_dead("prune", dead, stacklevel=4)
    return Pruned(
        **vars(measure(model, targets)),
        frozen=[weight.path for weight in targets.frozen],
        skipped=skipped,
        dead=dead,
    )


def choose_score(method: str, score: scores.Ranking | None, seed: int | None) -> scores.Score:
    """The score that a method ranks by; with ``None`` its default.

    Raises:
        ValueError: if an argument is out of its range, or they do not go together.
    """
    choice("method", method, METHODS)
    if method == "random":
        if score is not None:
            raise invalid_argument("score", 'None with method="random"', score)
        return scores.random(scores.check_seed(seed))
    if seed is not None:
        raise invalid_argument("seed", f'None with method="{method}"', seed)
    if score is None:  # within a tensor both rank alike, and magnitudes need no sorting
        score = "magnitude" if method == "layerwise" else scores.DEFAULT
    if callable(score):
        return scores.Custom(score)
    if not isinstance(score, str) or score not in scores.NAMED:
        raise invalid_argument(
            "score", f"{one_of(tuple(scores.NAMED))}, or a function of a weight tensor", score
        )
    return scores.NAMED[score]


def make_plan(model: keras.Model, targets: Targets, goal: Goal, method: str) -> list[quota.Quota]:
    """How many zeros in which weights, by a method's rule."""
    if method == "layerwise":
        return plan.layerwise_plan(model, targets, goal)
    return plan.global_plan(model, targets, goal)
