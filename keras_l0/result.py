"""What ``compress`` gives back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras.regularizers import Regularizer

from keras_l0.export.tflite import ExportReport
from keras_l0.models import has_own_test
from keras_l0.pruning.measure import penalty
from keras_l0.pruning.variation import Variation
from keras_l0.report.summary import Summary
from keras_l0.text import listed, shortened, table


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
        dead: what shows that pruning went too far, a sentence each: outputs that no input
            reaches, or that hardly vary between validation samples. None: a success.
        loss_name: what the loss is called in a table; a ``test_step`` of the model's own may have
            the penalties in it.
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
    dead: list[str]
    loss_name: str

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
        rows = metric_rows(list(there.values()), self.loss_name)
        text = table(["validation", *there], rows)
        dead = [f"Pruning went too far: {listed(self.dead, most=2)}."] if self.dead else []
        parts = [*dead, text, str(self.summary), *([str(self.export)] if self.export else [])]
        return "\n".join(parts)


@dataclass(frozen=True)
class Result:
    """The compressed model, how it came about, and what it reached.

    Args:
        model: the model that was given, now sparse; with ``shrink``, ``method="neuron"`` or
            ``scheme="redundancy"`` a new one, shrunk.
        history: Keras' history of all epochs.
        report: the figures; ``print`` shows them.
    """

    model: keras.Model
    history: keras.callbacks.History
    report: Report


class AsTrained(keras.callbacks.Callback):
    """Notes what a network was like at the end of an epoch, before it is pruned.

    To stand before what changes weights at an epoch's end.

    Args:
        epoch: the epoch.
        variation: what notes how its outputs vary, if there is anything.

    Attributes:
        penalty: the sum of the penalties on weights, as they are in the validation loss; 0 before,
            and with a ``test_step`` of the model's own.
    """

    def __init__(self, epoch: int, variation: Variation | None) -> None:
        super().__init__()
        self.epoch, self.variation, self.penalty = epoch, variation, 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes them."""
        if epoch == self.epoch:
            self.penalty = 0.0 if has_own_test(self.model) else penalty(self.model)
            if self.variation and logs and "val_loss" in logs:
                self.variation.note(self.model, float(logs["val_loss"]) - self.penalty)


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
    """The validation metrics of an epoch, if it was trained, a loss without its penalties."""
    epochs = getattr(history, "epoch", [])
    if epoch not in epochs:
        return None
    place = epochs.index(epoch)
    found = {name: float(history.history[f"val_{name}"][place]) for name in like}
    return {name: value - penalties if name == "loss" else value for name, value in found.items()}


def metric_rows(stages: Sequence[Mapping[str, float]], loss_name: str) -> list[list[str]]:
    """A row of a table for each metric, a column for each stage."""
    names = {name: loss_name if name == "loss" else shortened(name, 20) for name in stages[-1]}
    return [[text, *(f"{metrics[name]:.4f}" for metrics in stages)] for name, text in names.items()]
