"""What ``compress`` gives back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras.regularizers import Regularizer

from keras_l0.export.tflite import ExportReport
from keras_l0.pruning.measure import penalty
from keras_l0.report.summary import Summary
from keras_l0.text import shortened, table


@dataclass(frozen=True)
class Report:
    """What ``compress`` did and reached.

    Args:
        before: loss and metrics on the validation data of the model as it was given. Here and in
            the next two the loss is without the penalties on weights, unlike in the history: they
            are others before and after.
        trained: the same after the penalised training, before any pruning; ``None`` if there
            was no such training.
        after: the same at the end.
        summary: the weights at the end, of the model that was given: what of it is zero, and what
            is left of it once it is shrunk.
        export: the exported file's report, or ``None``.
        export_refusal: why there is none though one was asked for.
        settings: the arguments.
        versions: of the packages that did it.
        seconds: how long it took.
    """

    before: dict[str, float]
    trained: dict[str, float] | None
    after: dict[str, float]
    summary: Summary
    export: ExportReport | None
    export_refusal: str | None
    settings: dict[str, Any]
    versions: dict[str, str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The report in plain Python values, for JSON."""
        parts = {
            name: value for name, value in vars(self).items() if name not in ("summary", "export")
        }
        export = self.export.to_dict() if self.export else None
        return {**parts, "summary": self.summary.to_dict(), "export": export}

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        stages = {"given": self.before, "trained": self.trained, "compressed": self.after}
        there = {name: metrics for name, metrics in stages.items() if metrics is not None}
        text = table(["validation", *there], metric_rows(list(there.values())))
        return "\n".join([text, str(self.summary), *([str(self.export)] if self.export else [])])


@dataclass(frozen=True)
class Result:
    """The compressed model, how it came about, and what it reached.

    Args:
        model: the model that was given, now sparse; with ``scheme="redundancy"`` a new one, shrunk.
        history: Keras' history of all epochs.
        report: the figures; ``print`` shows them.
    """

    model: keras.Model
    history: keras.callbacks.History
    report: Report


class PenaltyAt(keras.callbacks.Callback):
    """Notes the penalties on weights at the end of an epoch, as they are in its validation loss.

    To stand before what changes weights at an epoch's end.

    Args:
        epoch: the epoch.

    Attributes:
        penalty: their sum; 0 before.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch, self.penalty = epoch, 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes them."""
        if epoch == self.epoch:
            self.penalty = penalty(self.model)


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, Regularizer):
        return {"name": type(value).__name__, **value.get_config()}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    if callable(value):
        return f"function {getattr(value, '__name__', repr(value))}"
    return value.item() if isinstance(value, np.generic) else value


def joined(
    first: keras.callbacks.History, second: keras.callbacks.History
) -> keras.callbacks.History:
    """One history of two fits, one after the other; a log that only one has is cut short."""
    joined = keras.callbacks.History()
    joined.epoch = [*getattr(first, "epoch", []), *second.epoch]
    joined.params = second.params
    for name in {**first.history, **second.history}:
        joined.history[name] = [*first.history.get(name, []), *second.history.get(name, [])]
    return joined


def metrics_at(
    history: keras.callbacks.History, epoch: int, like: Mapping[str, float], penalties: float
) -> dict[str, float] | None:
    """The validation metrics of an epoch, if it was trained, the loss without its penalties."""
    epochs = getattr(history, "epoch", [])
    if epoch not in epochs:
        return None
    place = epochs.index(epoch)
    found = {name: float(history.history[f"val_{name}"][place]) for name in like}
    return found | {"loss": found["loss"] - penalties}


def metric_rows(stages: Sequence[Mapping[str, float]]) -> list[list[str]]:
    """A row of a table for each metric, a column for each stage."""
    names = {name: shortened(name, 20) for name in stages[-1]} | {"loss": "loss without penalties"}
    return [[text, *(f"{metrics[name]:.4f}" for metrics in stages)] for name, text in names.items()]
