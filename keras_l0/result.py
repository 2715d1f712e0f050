"""What ``compress`` gives back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras.regularizers import Regularizer

from keras_l0.export.tflite import ExportReport
from keras_l0.report.summary import Summary
from keras_l0.text import table


@dataclass(frozen=True)
class Report:
    """What ``compress`` did and reached.

    Args:
        before: loss and metrics on the validation data of the model as it was given.
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
        rows = [
            [metric, *(f"{metrics[metric]:.4f}" for metrics in there.values())]
            for metric in self.after
        ]
        text = table(["validation", *there], rows)
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
    history: keras.callbacks.History, epoch: int, like: Mapping[str, float]
) -> dict[str, float] | None:
    """The validation metrics of an epoch, if it was trained."""
    epochs = getattr(history, "epoch", [])
    if epoch not in epochs:
        return None
    place = epochs.index(epoch)
    return {name: float(history.history[f"val_{name}"][place]) for name in like}
