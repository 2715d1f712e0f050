"""What a search draws: the ranges, NORM's settings and SEP's."""

import glob
import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from keras_l0.errors import invalid_argument, is_finite, is_whole
from keras_l0.regularizers import L2L0
from keras_l0.search_result import Settings

if TYPE_CHECKING:
    from optuna import Trial

Range = tuple[float, float]

_FACTORS = ("l2", "l0", "beta")


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


class Norm:
    """One penalty for all layers, scaled by their size."""

    def __init__(self, space: Space, fixed: Settings) -> None:
        self.space, self.fixed = space, fixed
        self.description = {"ranges": asdict(space), "fixed": fixed}

    def settings(self, trial: "Trial") -> Settings:
        """The arguments of ``compress`` that a trial draws, in plain values."""
        drawn = {
            name: _draw(trial, name, getattr(self.space, name))
            for name in ("compression", "l2", "l0", "beta", "learning_rate", "power")
        }
        penalty = {name: drawn.pop(name) for name in _FACTORS}
        ramp = trial.suggest_int("ramp", *self.space.ramp)
        regrow = self.fixed["regrow"] and ramp > 1  # there is nothing to grow back in
        return {**self.fixed, **drawn, "ramp": ramp, "regrow": regrow, "regularizer": penalty}


class Sep:
    """A penalty for each layer: that of ``start`` times factors of its own."""

    def __init__(self, space: Space, start: Settings, penalties: dict[str, L2L0]) -> None:
        self.space, self.start, self.penalties = space, start, penalties
        ranges = {"compression": space.compression, "factor": space.factor}
        self.description = {"ranges": ranges, "start": start, "kernels": list(penalties)}

    def settings(self, trial: "Trial") -> Settings:
        """As in ``Norm``."""
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


def _draw(trial: "Trial", name: str, range_: Range) -> float:
    low, high = range_
    return trial.suggest_float(name, low, high, log=low > 0)
