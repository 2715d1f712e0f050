"""Search for the penalty's and the ramp's settings: a metric against compression, by Optuna."""

import glob
import inspect
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_l0.attach import regularize
from keras_l0.data import check_compiled, evaluate
from keras_l0.errors import choice, invalid_argument, is_finite, is_whole, whole_at_least
from keras_l0.models import check_built, check_finite, check_recompiles, copy_of
from keras_l0.pruning import plan
from keras_l0.pruning.goals import Goal
from keras_l0.pruning.iterative import MODES, holds, larger_is_better
from keras_l0.pruning.once import make_plan
from keras_l0.pruning.targets import Weight, find_targets, names_down
from keras_l0.regularizers import L2L0
from keras_l0.report.plots import plot_tradeoff
from keras_l0.report.summary import summarize
from keras_l0.scheme import compress
from keras_l0.structure.graph import Graph
from keras_l0.structure.shrink import shrink
from keras_l0.studies import FAILED, done, finished, open_study
from keras_l0.text import table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from optuna import Trial

Settings = dict[str, Any]
Range = tuple[float, float]

_FACTORS = ("l2", "l0", "beta")
_FIXED: Settings = {
    "scale": "layer_size",
    "warmup": 10,
    "finetune": 20,
    "regrow": True,
    "anneal": 1,
    "batch_size": None,
}


@dataclass(frozen=True)
class Space:
    """What is searched: of each setting the least and the largest value, alike for a fixed one.

    All but ``ramp`` are drawn on a logarithmic scale, unless the range begins at 0.

    Args:
        compression: all parameters over those left, the goal, ≥ 1.
        l2: α_ℓ2 of ``L2L0``, ≥ 0.
        l0: α_ℓ0, ≥ 0.
        beta: β, ≥ 1.
        learning_rate: the optimizer's, > 0.
        ramp: epochs of pruning, whole numbers ≥ 0.
        power: the ramp's degree, > 0.
        factor: what a layer's α_ℓ2, α_ℓ0 and β are multiplied by in the search for SEP, > 0.

    Raises:
        ValueError: if a range is none, or out of its setting's.
    """

    compression: Range = (10.0, 100.0)
    l2: Range = (1e-6, 1e-3)
    l0: Range = (1e-6, 1e-3)
    beta: Range = (5.0, 40.0)
    learning_rate: Range = (5e-4, 5e-3)
    ramp: tuple[int, int] = (5, 30)
    power: Range = (1.0, 8.0)
    factor: Range = (0.25, 4.0)

    def __post_init__(self) -> None:
        least = {"compression": 1.0, "beta": 1.0, "l2": 0.0, "l0": 0.0, "ramp": 0.0}
        for field in fields(self):
            value = getattr(self, field.name)
            bound = least.get(field.name, math.ulp(0.0))
            number = is_whole if field.name == "ramp" else is_finite
            if (
                not isinstance(value, tuple | list)
                or len(value) != 2
                or not all(number(one) for one in value)
                or not bound <= value[0] <= value[1]
            ):
                kind = "whole numbers" if field.name == "ramp" else "finite numbers"
                raise invalid_argument(
                    f"space.{field.name}",
                    f"(low, high), two {kind} with {bound:g} <= low <= high",
                    value,
                )
            object.__setattr__(self, field.name, tuple(value))


@dataclass(frozen=True)
class Found:
    """One of the settings tried, and what came of it.

    Args:
        study: the name of the study.
        number: of the trial in it.
        value: the validation metric.
        compression: all parameters over those left, after ``shrink``.
        settings: arguments of ``compress``, in plain values; ``read_settings`` makes them whole.
    """

    study: str
    number: int
    value: float
    compression: float
    settings: Settings


@dataclass(frozen=True)
class SearchResult:
    """What a search found; ``print`` shows its front.

    Args:
        metric: the name of the metric.
        larger_is_better: whether more of it is better.
        trials: all that have been finished, in the order of their numbers.
    """

    metric: str
    larger_is_better: bool
    trials: tuple[Found, ...]

    @property
    def front(self) -> list[Found]:
        """Those that no other one beats in both, the least compressed first."""
        found: list[Found] = []
        for trial in sorted(self.trials, key=lambda one: (-one.compression, self._loss(one))):
            if not found or self._loss(trial) < self._loss(found[-1]):
                found.append(trial)
        return found[::-1]

    def best(self, bound: float) -> Found:
        """The most compressed one whose metric holds a bound; the best metric's, if none does.

        Raises:
            ValueError: if nothing was found.
        """
        if not self.trials:
            raise invalid_argument("trials", "one or more that were finished", 0)
        holding = [one for one in self.front if holds(one.value, bound, self.larger_is_better)]
        return holding[-1] if holding else self.front[0]

    def _loss(self, trial: Found) -> float:
        return -trial.value if self.larger_is_better else trial.value

    def to_dict(self) -> dict[str, Any]:
        """All of it in plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [
            [
                f"{one.study} {one.number}",
                f"{one.value:.4f}",
                f"{one.compression:.1f}x",
                _in_words(one),
            ]
            for one in self.front
        ]
        return table(["trial", f"validation {self.metric}", "compression", "settings"], rows)


def search(
    model: keras.Model,
    train: Any,
    validation: Any,
    *,
    trials: int = 40,
    space: Space | None = None,
    start: Mapping[str, Any] | None = None,
    metric: str = "accuracy",
    mode: str = "auto",
    scale: str | None = _FIXED["scale"],
    warmup: int = _FIXED["warmup"],
    finetune: int = _FIXED["finetune"],
    regrow: bool = _FIXED["regrow"],
    anneal: int = _FIXED["anneal"],
    batch_size: int | None = _FIXED["batch_size"],
    storage: str | os.PathLike[str] = "search.log",
    name: str = "search",
    seed: int = 0,
    verbose: int = 1,
) -> SearchResult:
    """Tries settings of ``compress``, and finds those with the best metric at each compression.

    Each trial is a whole ``compress`` of a copy of the model. The settings of the next are drawn
    by a multi-objective tree-structured Parzen estimator from what the earlier ones reached: the
    penalty with its NORM scaling, the learning rate, the ramp and the goal. With ``start``, which
    a search before has found, they are each layer's own α_ℓ2, α_ℓ0 and β instead, the paper's
    SEP: those of ``start`` times a factor for each; its other settings stay, but for the
    compression, which is searched too.

    Every finished trial is in the storage at once. A search that is called again goes on from
    there, and several processes or machines that name one storage share its trials.

    Args:
        model: a built and compiled model that ``shrink`` takes, trained or not; it is left as it
            is.
        train: as in ``compress``.
        validation: as in ``compress``; the metric is measured on it. Do not give test data.
        trials: how many are to be done in the storage, those among them that failed: whose weights
            went to NaN, or whose outputs no longer depend on the inputs. No process begins one
            beyond.
        space: the ranges; ``None`` for those of ``Space()``.
        start: the settings of a trial, from which SEP starts.
        metric: a metric that the model was compiled with, or ``"loss"``, which has penalties in it.
        mode: ``"max"`` if larger is better, ``"min"`` if smaller is, ``"auto"`` to go by the
            metric.
        scale: as in ``regularize``; not with ``start``.
        warmup: as in ``compress``, as are the following; not with ``start``.
        finetune: epochs after the ramp.
        regrow: whether weights may grow back in a ramp of two epochs or more.
        anneal: how often the learning rate falls while fine tuning.
        batch_size: for arrays.
        storage: a file, made where it is missing, or the URL of a database, as
            ``"sqlite:///search.db"``, for what Optuna can reach.
        name: of the study in the storage.
        seed: of the draws, an integer ≥ 0: another for each process that shares a storage.
            Training itself begins from the same one in each trial.
        verbose: 1 prints a line after each trial, 0 nothing.

    Returns:
        All trials of the study that are finished.

    Raises:
        ValueError: if an argument is out of its range, the metric is none of the model's, a
            compression is out of reach, with ``start`` a layer has no name that copies of the
            model keep, or the storage has a study of this name that searches
            something else: it is left as it is.
        ImportError: if Optuna is missing.

    Example::

        found = search(model, (x, y), (x_val, y_val), trials=40)
        best = found.best(0.98)
        compress(model, (x, y), (x_val, y_val), **read_settings(best.settings))

    Source: Akiba et al., "Optuna" (2019); NORM and SEP are the paper's, section 4.2.
    """
    if find_spec("optuna") is None:
        raise ImportError("Search needs Optuna. Run `pip install keras_l0[search]`.")
    check_compiled(model)
    check_built(model)
    whole_at_least("trials", trials, 1)
    whole_at_least("seed", seed, 0)
    choice("mode", mode, MODES)
    Graph(model)  # what each trial would fail at is said before the first
    check_recompiles(model)
    space = space or Space()
    fixed: Settings = {
        "scale": scale,
        "warmup": whole_at_least("warmup", warmup, 0),
        "finetune": whole_at_least("finetune", finetune, 0),
        "regrow": regrow,
        "anneal": whole_at_least("anneal", anneal, 0),
        "batch_size": batch_size,
    }
    drawn: _Norm | _Sep
    if start is None:
        # What regularize says of the scale, it says now and not in a trial.
        regularize(copy_of(model), L2L0(l0=space.l0[1]), scale=scale)
        drawn = _Norm(space, fixed)
    else:
        for argument, value in fixed.items():
            if value != _FIXED[argument]:
                raise invalid_argument(argument, "what `start` says, given nowhere else", value)
        drawn = _Sep(space, dict(start), _penalties(model, start))
    _check_reach(model, space)
    larger = larger_is_better(model, _known(model, validation, metric), mode)
    study = open_study(
        storage,
        name,
        larger,
        seed,
        {
            **drawn.description,
            "metric": metric,
            "larger_is_better": larger,
            "model": [list(weight.shape) for weight in model.weights],
            "examples": [
                len(data[0]) if isinstance(data, tuple) else None for data in (train, validation)
            ],
        },
    )

    def objective(trial: "Trial") -> tuple[float, float]:
        settings = drawn.settings(trial)
        trial.set_user_attr("settings", settings)
        try:
            value, compression = _tried(model, train, validation, settings, metric)
        except _FailedError as error:
            trial.set_user_attr(FAILED, str(error))
            if verbose:
                print(f"{name}, trial {trial.number} failed: {error}")
            raise
        if verbose:
            print(f"{name}, trial {trial.number}: {metric} {value:.4f} at {compression:.1f}x")
        return value, compression

    while done(study) < trials:
        study.optimize(objective, n_trials=1, catch=(_FailedError,))
    return SearchResult(
        metric,
        larger,
        tuple(
            Found(name, one.number, one.values[0], one.values[1], one.user_attrs["settings"])
            for one in finished(study)
        ),
    )


def read_settings(source: str | os.PathLike[str] | Mapping[str, Any]) -> Settings:
    """The arguments of ``compress`` from plain values: of a trial, or of a JSON file that holds it.

    Raises:
        ValueError: if the file is none, or what it holds.

    Example:

    >>> read_settings({"regularizer": {"l2": 0.0, "l0": 1e-05, "beta": 10.0}, "ramp": 4})
    {'regularizer': L2L0(l2=0, l0=1e-05, beta=10), 'ramp': 4}
    """
    try:
        plain = source if isinstance(source, Mapping) else json.loads(Path(source).read_text())
        settings = dict(plain)
        unknown = settings.keys() - inspect.signature(compress).parameters
        if unknown:
            raise KeyError(f"compress has no {', '.join(sorted(unknown))}")
        if settings.get("regularizer") is not None:
            settings["regularizer"] = L2L0(**settings["regularizer"])
        if settings.get("overrides") is not None:
            settings["overrides"] = {
                pattern: L2L0(**values) for pattern, values in settings["overrides"].items()
            }
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise invalid_argument(
            "settings", "those of a trial, or a JSON file that holds them", source, str(error)
        ) from None
    return settings


def plot_front(result: SearchResult) -> "Axes":
    """Draws all trials, and the front among them as a line.

    Raises:
        ImportError: if matplotlib is missing.
    """
    metric = f"validation {result.metric}"
    points = [(one.compression, one.value) for one in result.trials]
    ax = plot_tradeoff(points, metric=metric, label="tried")
    ax.lines[0].set(linestyle="none", alpha=0.4)
    points = [(one.compression, one.value) for one in result.front]
    return plot_tradeoff(points, metric=metric, label="not beaten in both", ax=ax)


class _Norm:
    """One penalty for all layers, scaled by their size."""

    def __init__(self, space: Space, fixed: Settings) -> None:
        self.space, self.fixed = space, fixed
        self.description = {"ranges": asdict(space), "fixed": fixed}

    def settings(self, trial: "Trial") -> Settings:
        drawn = {
            name: _draw(trial, name, getattr(self.space, name))
            for name in ("compression", "l2", "l0", "beta", "learning_rate", "power")
        }
        penalty = {name: drawn.pop(name) for name in _FACTORS}
        ramp = trial.suggest_int("ramp", *self.space.ramp)
        regrow = self.fixed["regrow"] and ramp > 1  # there is nothing to grow back in
        return {**self.fixed, **drawn, "ramp": ramp, "regrow": regrow, "regularizer": penalty}


class _Sep:
    """A penalty for each layer: that of ``start`` times factors of its own."""

    def __init__(self, space: Space, start: Settings, penalties: dict[str, L2L0]) -> None:
        self.space, self.start, self.penalties = space, start, penalties
        ranges = {"compression": space.compression, "factor": space.factor}
        self.description = {"ranges": ranges, "start": start, "kernels": list(penalties)}

    def settings(self, trial: "Trial") -> Settings:
        overrides: Settings = {}
        for path, penalty in self.penalties.items():
            values = {
                name: getattr(penalty, name) * _draw(trial, f"{path}/{name}", self.space.factor)
                for name in _FACTORS
            }
            overrides[glob.escape(path)] = {**values, "beta": max(1.0, values["beta"])}
        return {
            **self.start,
            "compression": _draw(trial, "compression", self.space.compression),
            "scale": None,
            "overrides": overrides,
        }


class _FailedError(Exception):
    """Settings have ruined a network: one trial less, and not the whole night's."""


def _draw(trial: "Trial", name: str, range_: Range) -> float:
    low, high = range_
    return trial.suggest_float(name, low, high, log=low > 0)


def _penalties(model: keras.Model, start: Mapping[str, Any]) -> dict[str, L2L0]:
    """The penalty of each kernel under these settings, by the names that lead to it."""
    settings = read_settings(start)
    if settings.get("regularizer") is None:
        raise invalid_argument("start", "settings with a regularizer", dict(start))
    copy = copy_of(model)
    attached = regularize(
        copy,
        settings["regularizer"],
        scale=settings.get("scale"),
        overrides=settings.get("overrides"),
    )
    named = {_name(weight): weight.path for weight in find_targets(copy).live}
    if strange := named.keys() - map(_name, find_targets(model).live):
        expected = "layers with names that its copies keep (a `name` in their constructor)"
        raise invalid_argument("model", expected, min(strange))
    penalties = {name: attached.penalized.get(path) for name, path in named.items()}
    # The first pattern that matches counts, and a layer's matches those of the same name inside.
    deepest = sorted(penalties.items(), key=lambda one: -one[0].count("/"))
    return {name: one for name, one in deepest if isinstance(one, L2L0)}


def _name(weight: Weight) -> str:
    """The names that lead to a weight, by which ``overrides`` knows it in each copy."""
    return f"{names_down(weight.lineage)}/{weight.variable.name}"


def _tried(
    model: keras.Model, train: Any, validation: Any, settings: Settings, metric: str
) -> tuple[float, float]:
    """The metric and the compression that settings come to."""
    keras.utils.set_random_seed(0)
    copy = copy_of(model)
    try:
        result = compress(copy, train, validation, **read_settings(settings), verbose=0)
        left = summarize(shrink(result.model)).left
    except ValueError as error:
        if _is_sound(copy):
            raise
        raise _FailedError(str(error)) from error
    return result.report.after[metric], model.count_params() / max(left, 1)


def _is_sound(model: keras.Model) -> bool:
    """Whether its weights are finite, and its outputs depend on its inputs."""
    try:
        check_finite(model)
        shrink(model)
    except ValueError:
        return False
    return True


def _check_reach(model: keras.Model, space: Space) -> None:
    """Raises a ``ValueError`` now, and not hours later, if the largest goal is out of reach."""
    goal = Goal(compression=space.compression[1])
    plan.check_weights(make_plan(model, find_targets(model), goal, "global"))


def _known(model: keras.Model, validation: Any, metric: str) -> str:
    """The metric's name, if it is among those of the model."""
    there = evaluate(model, validation, "validation")
    if metric not in there:
        raise invalid_argument("metric", f"one of {', '.join(there)}", metric)
    return metric


def _in_words(trial: Found) -> str:
    """The settings in one line."""
    settings = trial.settings
    penalty = settings["regularizer"]
    parts = [f"{name} {penalty[name]:.2g}" for name in _FACTORS]
    if settings.get("overrides"):
        parts = ["layer by layer"]
    parts += [f"rate {settings['learning_rate']:.2g}", f"ramp {settings['ramp']}"]
    return ", ".join([*parts, f"power {settings['power']:.2g}"])
