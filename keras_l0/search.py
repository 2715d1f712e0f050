"""Search for the penalty's and the ramp's settings: a metric against compression, by Optuna."""

import math
import os
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import keras

from keras_l0.attach import regularize
from keras_l0.data import check_compiled, evaluate
from keras_l0.errors import choice, invalid_argument, whole_at_least
from keras_l0.models import check_built, check_finite, check_recompiles, copy_of
from keras_l0.pruning import quota
from keras_l0.pruning.bounds import MODES, larger_is_better
from keras_l0.pruning.collapse import DeadNetworkWarning
from keras_l0.pruning.goals import Goal
from keras_l0.pruning.once import make_plan
from keras_l0.pruning.scores import DEFAULT
from keras_l0.pruning.targets import Weight, find_targets, names_down
from keras_l0.regularizers import L2L0
from keras_l0.report.summary import summarize
from keras_l0.scheme import compress
from keras_l0.search_result import Found, SearchResult, Settings, plot_front, read_settings
from keras_l0.search_space import Norm, Sep, Space
from keras_l0.structure.graph import Graph
from keras_l0.structure.shrink import shrink
from keras_l0.studies import FAILED, done, finished, open_study

if TYPE_CHECKING:
    from optuna import Trial

__all__ = [
    "Found",
    "SearchResult",
    "Settings",
    "Space",
    "plot_front",
    "read_settings",
    "search",
]

_FIXED: Settings = {
    "scale": "layer_size",
    "warmup": 10,
    "finetune": 20,
    "regrow": True,
    "anneal": 1,
    "batch_size": None,
    "score": DEFAULT,
}


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
        metric: a metric that the model was compiled with, or ``"loss"``, without the penalties on
            weights.
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
        "score": DEFAULT,
    }
    drawn: Norm | Sep
    if start is None:
        # What regularize says of the scale, it says now and not in a trial.
        regularize(copy_of(model), L2L0(l0=space.l0[1]), scale=scale)
        drawn = Norm(space, fixed)
    else:
        for argument, value in fixed.items():
            if value != _FIXED[argument]:
                raise invalid_argument(argument, "what `start` says, given nowhere else", value)
        drawn = Sep(space, dict(start), _penalties(model, start))
    _check_reach(model, space)
    larger = larger_is_better(model, _known(model, validation, metric), mode)
    study = open_study(
        storage,
        name,
        larger,
        seed,
        {
            **drawn.description,
            "score": DEFAULT if start is None else read_settings(start).get("score"),
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


class _FailedError(Exception):
    """Settings have ruined a network: one trial less, and not the whole night's."""


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
        with warnings.catch_warnings():  # that a trial goes too far is what its metric says
            warnings.simplefilter("ignore", DeadNetworkWarning)
            result = compress(copy, train, validation, **read_settings(settings), verbose=0)
        left = summarize(shrink(result.model)).left
    except ValueError as error:
        if _is_sound(copy):
            raise
        raise _FailedError(str(error)) from error
    value = result.report.after[metric]
    if not math.isfinite(value):  # Optuna would not count the trial, and the search never end
        raise _FailedError(f"{metric} is {value} on the validation data")
    return value, model.count_params() / max(left, 1)


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
    quota.check_weights(make_plan(model, find_targets(model), goal, "global"))


def _known(model: keras.Model, validation: Any, metric: str) -> str:
    """The metric's name, if it is among those of the model."""
    there = evaluate(model, validation, "validation")
    if metric not in there:
        raise invalid_argument("metric", f"one of {', '.join(there)}", metric)
    return metric
