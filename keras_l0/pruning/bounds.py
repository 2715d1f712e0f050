"""Whether a metric holds a bound."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_l0.errors import invalid_argument

MODES = ("auto", "min", "max")


def is_loss(name: str) -> bool:
    """Whether it is the name of a loss in the logs, of the whole or of an output."""
    return name == "loss" or name.endswith("_loss")


def holds(value: Any, bound: float, larger: bool) -> bool:
    """Whether a metric's value is at its bound or better.

    As float32, which metrics are: 285 of 300 are 0.95.

    Example:

    >>> holds(0.949999988079071, 0.95, larger=True)
    True
    """
    found, least = np.float32(value), np.float32(bound)
    return bool(found >= least if larger else found <= least)


def larger_is_better(model: keras.Model, monitor: str, mode: str = "auto") -> bool:
    """Whether a larger value of a metric in the logs is better, by ``mode`` or by the metric.

    Raises:
        ValueError: if neither tells.
    """
    if mode != "auto":
        return mode == "max"
    name = monitor.removeprefix("val_")
    if is_loss(name):
        return False
    # With several outputs the logs have the output's name before the metric's.
    mine = [one for one in _metrics(model) if f"_{name}".endswith(f"_{one.name}")]
    nearest = max(mine, key=lambda one: len(one.name), default=None)
    direction = getattr(nearest, "_direction", None)
    if direction in ("up", "down"):
        return bool(direction == "up")
    raise invalid_argument("mode", f'"min" or "max", since {monitor} does not tell', mode)


def _metrics(model: keras.Model) -> Iterator[Any]:
    """The model's metrics, those inside the containers that ``compile`` makes too."""
    for metric in model.metrics:
        yield from getattr(metric, "metrics", [metric])
