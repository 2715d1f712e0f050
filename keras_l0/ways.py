"""The ways to prune that ``compress`` knows: to a number of weights, of filters, or by a metric."""

import glob
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras.regularizers import Regularizer

from keras_l0.composite import Composite, constraints
from keras_l0.errors import choice, invalid_argument
from keras_l0.filter_penalties import RedundancyPenalty
from keras_l0.models import check_finite
from keras_l0.pruning import plan, quota, scores
from keras_l0.pruning.bounds import is_loss
from keras_l0.pruning.callbacks import GlobalPrune, LayerwisePrune, RandomPrune
from keras_l0.pruning.goals import Goal
from keras_l0.pruning.iterative import FRACTION, IterativePrune
from keras_l0.pruning.neuron_callback import NeuronPrune
from keras_l0.pruning.neurons import NeuronGoal, Neurons
from keras_l0.pruning.once import METHODS, choose_score, make_plan, prune
from keras_l0.pruning.schedules import check_ramp
from keras_l0.pruning.targets import find_targets
from keras_l0.regularizers import L2L0
from keras_l0.structure.shrink import shrink

SCHEMES = ("l2l0", "redundancy")

Layers = str | Sequence[str] | None
Penalties = tuple[Regularizer | None, dict[str, Regularizer]]


class Way(ABC):
    """How ``compress`` prunes."""

    @abstractmethod
    def check(self, model: keras.Model) -> None:
        """Raises a ``ValueError`` unless the model can be pruned so far."""

    def penalties(self, model: keras.Model) -> Penalties:
        """The scheme's own: ``regularizer`` and ``overrides`` of ``regularize``."""
        return L2L0(l2=1e-5, l0=1e-5, beta=10.0), {}

    def is_penalised(self, model: keras.Model) -> bool:
        """Whether the model has penalties that do for these."""
        return any(weight.variable.regularizer for weight in find_targets(model).live)

    @abstractmethod
    def callback(self, begin: int, end: int | None) -> keras.callbacks.Callback:
        """What prunes during ``fit``."""

    @abstractmethod
    def once(self, model: keras.Model) -> None:
        """Prunes now."""

    def seeded(self, seed: int | None) -> "Way":
        """The same, with a seed in the place of one that was not given."""
        return self

    def result(self, model: keras.Model) -> keras.Model:
        """The model that comes of it."""
        return model


@dataclass(frozen=True)
class Weights(Way):
    """Single weights, to a sparsity or compression."""

    goal: Goal
    method: str
    score: Any
    seed: int | None
    layers: Layers
    power: float
    regrow: bool

    def check(self, model: keras.Model) -> None:
        targets = find_targets(model, self.layers)
        quota.check_weights(make_plan(model, targets, self.goal, self.method))

    def callback(self, begin: int, end: int | None) -> keras.callbacks.Callback:
        options: dict[str, Any] = {
            **vars(self.goal),
            "layers": self.layers,
            "begin": begin,
            "end": end,
            "power": self.power,
        }
        if self.method == "random":
            return RandomPrune(**options, seed=self.seed)
        if self.method == "layerwise":
            return LayerwisePrune(**options, regrow=self.regrow)
        return GlobalPrune(**options, regrow=self.regrow, score=self.score)

    def once(self, model: keras.Model) -> None:
        prune(
            model,
            **vars(self.goal),
            method=self.method,
            score=self.score,
            seed=self.seed,
            layers=self.layers,
        )

    def seeded(self, seed: int | None) -> Way:
        return replace(self, seed=seed) if self.method == "random" and self.seed is None else self


class Bound(Way):
    """Single weights, for as long as a metric holds."""

    def __init__(
        self,
        bound: Mapping[str, float],
        mode: str,
        fraction: float,
        score: Any,
        begin: int,
        layers: Layers,
    ) -> None:
        if not isinstance(bound, Mapping) or len(bound) != 1:
            raise invalid_argument(
                "bound", 'one metric with its bound, {"val_accuracy": 0.98}', bound
            )
        ((monitor, value),) = bound.items()
        self.layers = layers
        self.pruner = IterativePrune(
            monitor,
            value,
            mode=mode,
            fraction=fraction,
            score=score,
            begin=begin,
            layers=layers,
        )

    def check(self, model: keras.Model) -> None:
        plan.check_prunable(model, find_targets(model, self.layers))

    def check_metrics(
        self, model: keras.Model, found: Mapping[str, float], penalised: bool
    ) -> None:
        """Raises a ``ValueError`` if the metric is not among these of the model, or no measure."""
        if penalised and is_loss(self.pruner.monitor):
            raise invalid_argument(
                "bound",
                "a metric, since losses have the penalties in them",
                self.pruner.monitor,
                'Compile it as a metric too, as metrics=["mse"], or give regularizer=None',
            )
        self.pruner.set_model(model)
        self.pruner.holds({f"val_{name}": value for name, value in found.items()})

    def callback(self, begin: int, end: int | None) -> keras.callbacks.Callback:
        return self.pruner

    def once(self, model: keras.Model) -> None:
        """Nothing: the metric is looked at during ``fit`` alone."""


@dataclass(frozen=True)
class Filters(Way):
    """Whole neurons and filters, taken out at the end."""

    compression: float | None
    flops: float | None
    score: Any
    layers: Layers
    power: float

    def __post_init__(self) -> None:
        if (self.compression is None) == (self.flops is None):
            raise invalid_argument(
                "compression",
                "just one of `compression` and `flops` for whole neurons and filters",
                self.compression,
                f"And flops={self.flops!r}",
            )
        NeuronGoal(**self._goal)

    @property
    def _goal(self) -> dict[str, Any]:
        return {"compression": self.compression, "flops": self.flops, "score": self.score}

    def check(self, model: keras.Model) -> None:
        check_finite(model)
        Neurons(model, find_targets(model, self.layers)).choose(NeuronGoal(**self._goal))

    def callback(self, begin: int, end: int | None) -> keras.callbacks.Callback:
        return NeuronPrune(**self._goal, begin=begin, end=end, power=self.power, layers=self.layers)

    def once(self, model: keras.Model) -> None:
        prune(model, **self._goal, method="neuron", layers=self.layers)

    def result(self, model: keras.Model) -> keras.Model:
        return shrink(model)


class Redundancy(Filters):
    """Those most alike another first, with penalties of their own."""

    def penalties(self, model: keras.Model) -> Penalties:
        """Beside those that the model has."""
        own = {
            glob.escape(weight.path): weight.variable.regularizer
            for weight in find_targets(model).live
            if weight.variable.regularizer
        }
        added = constraints(Neurons(model, find_targets(model, self.layers)))
        for pattern in added.keys() & own.keys():
            added[pattern] = Composite([own[pattern], added[pattern]])
        return None, own | added

    def is_penalised(self, model: keras.Model) -> bool:
        return any(
            _has_redundancy(weight.variable.regularizer) for weight in find_targets(model).live
        )


def _has_redundancy(penalty: Regularizer | None) -> bool:
    parts = penalty.regularizers if isinstance(penalty, Composite) else ()
    return isinstance(penalty, RedundancyPenalty) or any(map(_has_redundancy, parts))


def default_score(scheme: str, method: str) -> str | None:
    """What a scheme and a method rank by unless told; ``None`` where nothing can be chosen."""
    if scheme == "l2l0" and method == "global":
        return scores.DEFAULT
    return "norm" if scheme == "l2l0" and method == "neuron" else None


def choose_way(
    *,
    scheme: str,
    compression: float | None,
    sparsity: float | None,
    flops: float | None,
    bound: Mapping[str, float] | None,
    mode: str,
    fraction: float,
    method: str,
    score: Any,
    warmup: int,
    ramp: int,
    finetune: int,
    finetune_penalty: bool | Regularizer,
    power: float,
    regrow: bool,
    seed: int | None,
    layers: Layers,
) -> Way:
    """The way that the arguments of ``compress`` ask for.

    Raises:
        ValueError: if one is out of its range, or they do not go together.
    """
    choice("scheme", scheme, SCHEMES)
    choice("method", method, (*METHODS, "neuron"))
    check_ramp(warmup, warmup + max(ramp, 1) - 1, 1, power, regrow=False)
    if scheme == "redundancy":
        _check_unused(
            'with scheme="redundancy"',
            sparsity=(sparsity, None),
            bound=(bound, None),
            mode=(mode, "auto"),
            fraction=(fraction, FRACTION),
            method=(method, "global"),
            score=(score, None),
            regrow=(regrow, False),
            seed=(seed, None),
        )
        return Redundancy(compression, flops, "redundancy", layers, power)
    if method == "neuron":
        _check_unused(
            'with method="neuron"',
            sparsity=(sparsity, None),
            bound=(bound, None),
            mode=(mode, "auto"),
            fraction=(fraction, FRACTION),
            regrow=(regrow, False),
            seed=(seed, None),
        )
        return Filters(compression, flops, score, layers, power)
    _check_unused('without method="neuron" or scheme="redundancy"', flops=(flops, None))
    if bound is not None:
        way = Bound(bound, mode, fraction, score, warmup, layers)
        _check_unused(
            "with a `bound`",
            compression=(compression, None),
            sparsity=(sparsity, None),
            method=(method, "global"),
            power=(power, 3.0),
            regrow=(regrow, False),
            seed=(seed, None),
            finetune_penalty=(finetune_penalty, True),
        )
        if not ramp + finetune or warmup + ramp + finetune < 2:
            raise invalid_argument(
                "ramp", "an epoch or more of `ramp` or `finetune` after a first one", ramp
            )
        return way
    goal = Goal(sparsity, compression)
    _check_unused("without a `bound`", mode=(mode, "auto"), fraction=(fraction, FRACTION))
    choose_score(method, score, seed)
    if method == "layerwise":
        _check_unused('with method="layerwise"', score=(score, None))
    if regrow and ramp < 2:
        raise invalid_argument("regrow", "False without a ramp of 2 epochs or more", regrow)
    if regrow and method == "random":
        raise invalid_argument("regrow", 'False with method="random"', regrow)
    return Weights(goal, method, score, seed, layers, power, regrow)


def _check_unused(where: str, **arguments: tuple[object, object]) -> None:
    """Raises a ``ValueError`` for an argument that would have no effect."""
    for name, (given, plain) in arguments.items():
        same = given == plain
        if not isinstance(same, bool | np.bool_) or not same:  # what an array equals is an array
            raise invalid_argument(name, f"{plain!r} {where}", given)
