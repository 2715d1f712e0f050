"""What a search found: its trials, the front among them, and their settings."""

import inspect
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_l0.errors import invalid_argument
from keras_l0.pruning.bounds import holds
from keras_l0.regularizers import L2L0
from keras_l0.report.plots import plot_tradeoff
from keras_l0.scheme import NOT_SETTINGS, compress
from keras_l0.text import table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Settings = dict[str, Any]


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


def read_settings(source: str | os.PathLike[str] | Mapping[str, Any]) -> Settings:
    """The arguments of ``compress`` from plain values: of a trial, or of a JSON file that holds it.

    Where no ``score`` is noted it is ``"magnitude"``, as when searches noted none.

    Raises:
        ValueError: if the file is none, or what it holds.

    Example:

    >>> read_settings({"regularizer": {"l2": 0.0, "l0": 1e-05, "beta": 10.0}, "ramp": 4})
    {'regularizer': L2L0(l2=0, l0=1e-05, beta=10), 'ramp': 4, 'score': 'magnitude'}
    """
    try:
        plain = source if isinstance(source, Mapping) else json.loads(Path(source).read_text())
        if not isinstance(plain, Mapping):
            raise TypeError(f"It holds a {type(plain).__name__}, not names with values")
        settings = dict(plain)
        if "method" not in settings and "scheme" not in settings:
            settings.setdefault("score", "magnitude")  # as 0.1.0 ranked, which noted none
        parameters = inspect.signature(compress).parameters.values()
        defaults = {
            one.name: one.default
            for one in parameters
            if one.kind == one.KEYWORD_ONLY and one.name not in NOT_SETTINGS
        }
        unknown = settings.keys() - defaults
        if unknown:
            raise KeyError(f"compress has no setting {', '.join(sorted(unknown))}")
        for name, value in settings.items():
            kind = type(defaults[name])
            if kind in (bool, int) and type(value) is not kind:
                raise TypeError(f"{name} is {value!r}, not of type {kind.__name__}")
        if settings.get("regularizer") is not None:
            settings["regularizer"] = L2L0(**settings["regularizer"])
        if settings.get("overrides") is not None:
            settings["overrides"] = {
                pattern: L2L0(**values) for pattern, values in settings["overrides"].items()
            }
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        RecursionError,
    ) as error:
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


def _in_words(trial: Found) -> str:
    """The settings in one line."""
    settings = trial.settings
    parts = [f"{name} {value:.2g}" for name, value in settings["regularizer"].items()]
    if settings.get("overrides"):
        parts = ["layer by layer"]
    parts += [f"rate {settings['learning_rate']:.2g}", f"ramp {settings['ramp']}"]
    return ", ".join([*parts, f"power {settings['power']:.2g}"])
