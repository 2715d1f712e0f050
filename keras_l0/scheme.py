"""The scheme in one call: penalised training, pruning, fine tuning, export."""

import json
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras.regularizers import Regularizer

from keras_l0.attach import regularize
from keras_l0.data import check_compiled, evaluate, unpack
from keras_l0.errors import invalid_argument, is_whole
from keras_l0.export.tflite import CALIBRATED, ExportReport, check_export, export_tflite
from keras_l0.pruning import plan
from keras_l0.pruning.callbacks import GlobalPrune, LayerwisePrune, RandomPrune
from keras_l0.pruning.goals import Goal
from keras_l0.pruning.iterative import FRACTION, IterativePrune
from keras_l0.pruning.keep import KeepZeros
from keras_l0.pruning.once import choose_score, make_plan, prune
from keras_l0.pruning.schedules import check_ramp
from keras_l0.pruning.targets import find_targets
from keras_l0.regularizers import L2L0
from keras_l0.report.summary import Summary, summarize
from keras_l0.text import table
from keras_l0.versions import versions


@dataclass(frozen=True)
class Report:
    """What ``compress`` did and reached.

    Args:
        before: loss and metrics on the validation data of the model as it was given.
        trained: the same after the penalised training, before any pruning; ``None`` if there
            was no such training.
        after: the same at the end.
        summary: the weights at the end.
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
        model: the model that was given, now sparse.
        history: Keras' history of all epochs.
        report: the figures; ``print`` shows them.
    """

    model: keras.Model
    history: keras.callbacks.History
    report: Report


def compress(
    model: keras.Model,
    train: Any,
    validation: Any,
    *,
    compression: float | None = None,
    sparsity: float | None = None,
    bound: Mapping[str, float] | None = None,
    fraction: float = FRACTION,
    regularizer: Regularizer | str | None = "auto",
    scale: str | None = None,
    overrides: Mapping[str, Regularizer | None] | None = None,
    method: str = "global",
    warmup: int = 10,
    ramp: int = 20,
    finetune: int = 10,
    finetune_penalty: bool = True,
    power: float = 3.0,
    regrow: bool = False,
    seed: int | None = None,
    layers: str | Sequence[str] | None = None,
    batch_size: int | None = None,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    class_weight: dict[int, float] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: str | int = "auto",
    export: str | os.PathLike[str] | None = None,
    quantize: str | None = None,
    optimize_for: str = "size",
) -> Result:
    """Trains with the ℓ2-ℓ0 penalty, prunes gradually, fine-tunes, and exports if asked to.

    ``warmup`` epochs train with the penalty; ``ramp`` epochs prune step by step while the
    penalty is on, which keeps more accuracy than pruning once; ``finetune`` epochs train what
    is left, the zeros held. ``ramp=0`` is the paper's own scheme: prune once, then fine-tune.
    The model is trained in place, with the optimizer it was compiled with.

    With a ``bound`` the network becomes as sparse as it can be instead: after ``warmup`` epochs,
    ``ramp`` + ``finetune`` epochs prune with ``IterativePrune`` for as long as the metric holds.

    Args:
        model: a compiled model, trained or not.
        train: what ``fit`` takes: a tuple ``(x, y)`` or ``(x, y, sample_weight)`` of arrays,
            or a ``tf.data`` dataset, a ``PyDataset``, a PyTorch ``DataLoader``.
        validation: the same, to evaluate on.
        compression: all parameters of the network over those left, ≥ 1.
        sparsity: instead: zeros over all prunable weights, in [0, 1).
        bound: instead: a validation metric's name in the logs with the least it may be, or the
            most if smaller is better, as in ``{"val_accuracy": 0.98}``.
        fraction: with a bound, of the weights that are left how many go at a time, in (0, 1).
        regularizer: what ``regularize`` puts on the kernels. ``"auto"`` keeps the penalties
            that the model has, or else takes ``L2L0(l2=1e-5, l0=1e-5, beta=10)``; ``None``
            trains without.
        scale: as in ``regularize``, for a ``regularizer`` that is given or chosen here.
        overrides: as in ``regularize``, likewise.
        method: ``"global"``, ``"layerwise"`` or ``"random"``.
        warmup: epochs of training before the first pruning, ≥ 0.
        ramp: epochs over which the sparsity grows; 0 prunes once.
        finetune: epochs after the last pruning, ≥ 0.
        finetune_penalty: whether the penalty stays on while fine tuning. If not, it is taken
            off the model for good.
        power: the ramp's degree.
        regrow: whether weights may grow back until the ramp's last tenth.
        seed: for ``method="random"``.
        layers: only these are pruned, as in ``prune``.
        batch_size: for arrays.
        steps_per_epoch: for a data set that is repeated.
        validation_steps: likewise.
        class_weight: as in ``fit``.
        callbacks: further ones, such as a learning-rate schedule.
        verbose: as in ``fit``.
        export: where to write the sparse ``.tflite`` file; it is checked on ``validation``. If
            it is refused, a warning and the report say why.
        quantize: of the export, as in ``export_tflite``; ``"int8"`` and ``"auto"`` take ranges
            from ``train``.
        optimize_for: of the export, likewise.

    Returns:
        The model, its history and a report.

    Raises:
        ValueError: if an argument is out of its range or the target is out of reach, before
            training; if the model is not compiled.
        ImportError: if ``export`` is given and TensorFlow or LiteRT is missing, before training.

    Example:

    >>> import numpy as np
    >>> from keras_l0 import compress
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> data = (np.ones((32, 8)), np.ones((32, 1)))
    >>> result = compress(model, data, data, compression=4, warmup=1, ramp=2, finetune=1, verbose=0)
    >>> round(result.report.summary.compression, 1)
    4.0

    Source: the paper, sections 3.3 and 4; the gradual ramp is ours, after Zhu & Gupta (2017).
    """
    settings = {
        name: _plain(value) for name, value in locals().items() if name not in _NOT_SETTINGS
    }
    check_compiled(model)
    for name, value in (("warmup", warmup), ("ramp", ramp), ("finetune", finetune)):
        if not is_whole(value) or value < 0:
            raise invalid_argument(name, "a number of epochs, an integer >= 0", value)
    iterative = None
    if bound is not None:
        iterative = _iterative(bound, fraction, warmup, layers)
        unused: dict[str, tuple[Any, Any]] = {
            "compression": (compression, None),
            "sparsity": (sparsity, None),
            "method": (method, "global"),
            "power": (power, 3.0),
            "regrow": (regrow, False),
            "finetune_penalty": (finetune_penalty, True),
        }
        for argument, (given, plain) in unused.items():
            if given != plain:
                raise invalid_argument(argument, f"{plain!r} with a `bound`", given)
    elif fraction != FRACTION:
        raise invalid_argument("fraction", f"{FRACTION} without a `bound`", fraction)
    goal = None if iterative else Goal(sparsity, compression)
    if iterative and not ramp + finetune:
        raise invalid_argument("ramp", "an epoch or more of `ramp` or `finetune`", ramp)
    choose_score(method, "magnitude", seed)
    check_ramp(warmup, warmup + max(ramp, 1) - 1, 1, power, regrow=False)
    if regrow and ramp < 2:
        raise invalid_argument("regrow", "False without a ramp of 2 epochs or more", regrow)
    if regrow and method == "random":
        raise invalid_argument("regrow", 'False with method="random"', regrow)
    if export is not None:
        check_export(export, quantize, "export", optimize_for)
    fit_arguments = unpack(train, "train") | {
        "batch_size": batch_size,
        "steps_per_epoch": steps_per_epoch,
        "class_weight": class_weight,
        # A tf.data dataset or a DataLoader shuffles by itself, and Keras warns of any attempt.
        "shuffle": isinstance(train, tuple | keras.utils.PyDataset),
        "validation_data": validation,
        "validation_steps": validation_steps,
        "verbose": verbose,
    }
    was_built = model.built
    if was_built:
        _check_goal(model, layers, goal, method)
    before = evaluate(
        model, validation, "validation", steps=validation_steps, batch_size=batch_size
    )
    if not was_built:  # the evaluation has built it
        _check_goal(model, layers, goal, method)
    if iterative:  # a metric that is not there is told now, not after the warmup
        iterative.set_model(model)
        iterative.holds(before | {f"val_{name}": value for name, value in before.items()})
    _penalise(model, regularizer, scale, overrides)
    began = time.perf_counter()

    what: dict[str, Any] = {"compression": compression, "sparsity": sparsity, "layers": layers}
    when: dict[str, Any] = {
        "begin": warmup,
        "end": warmup + ramp - 1 if ramp else None,
        "power": power,
    }
    pruner: keras.callbacks.Callback
    if iterative:
        pruner = iterative
    elif method == "random":
        pruner = RandomPrune(**what, **when, seed=seed)
    else:
        kind = GlobalPrune if method == "global" else LayerwisePrune
        pruner = kind(**what, **when, regrow=regrow)
    one_fit = iterative is not None or (finetune_penalty and finetune > 0)
    first = warmup + ramp + (finetune if one_fit else 0)
    history = keras.callbacks.History()
    if first:
        added = [pruner] if ramp or one_fit else []
        history = model.fit(epochs=first, callbacks=[*added, *callbacks], **fit_arguments)
    if not (ramp or one_fit):
        prune(model, sparsity, compression=compression, method=method, seed=seed, layers=layers)
    if finetune and not one_fit:
        regularize(model, None)
        history = _joined(
            history,
            model.fit(
                epochs=first + finetune,
                initial_epoch=first,
                callbacks=[KeepZeros(layers), *callbacks],
                **fit_arguments,
            ),
        )
    after = evaluate(model, validation, "validation", steps=validation_steps, batch_size=batch_size)
    exported, refusal = None, None
    if export is not None:
        try:
            exported = export_tflite(
                model,
                export,
                quantize=quantize,
                optimize_for=optimize_for,
                calibration=train if quantize in CALIBRATED else None,
                check_data=validation,
            )
        except (RuntimeError, ValueError) as error:  # not a reason to lose what was trained
            refusal = str(error)
            warnings.warn(f"The model is compressed, but not exported. {refusal}", stacklevel=2)
    report = Report(
        before=before,
        trained=_metrics_at(history, warmup - 1, after),
        after=after,
        summary=summarize(model),
        export=exported,
        export_refusal=refusal,
        settings=settings,
        versions=versions(),
        seconds=time.perf_counter() - began,
    )
    return Result(model, history, report)


_NOT_SETTINGS = ("model", "train", "validation", "callbacks", "export")


def _iterative(
    bound: Mapping[str, float], fraction: float, begin: int, layers: str | Sequence[str] | None
) -> IterativePrune:
    """The callback that prunes while a metric holds."""
    if not isinstance(bound, Mapping) or len(bound) != 1:
        raise invalid_argument("bound", 'one metric with its bound, {"val_accuracy": 0.98}', bound)
    ((monitor, value),) = bound.items()
    return IterativePrune(monitor, value, fraction=fraction, begin=begin, layers=layers)


def _check_goal(
    model: keras.Model, layers: str | Sequence[str] | None, goal: Goal | None, method: str
) -> None:
    """Raises a ``ValueError`` unless the model can be pruned so far, and its weights are finite."""
    targets = find_targets(model, layers)
    if goal is None:
        plan.check_prunable(model, targets)
    else:
        plan.check_weights(make_plan(model, targets, goal, method))


def _plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, Regularizer):
        return {"name": type(value).__name__, **value.get_config()}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _penalise(
    model: keras.Model,
    regularizer: Regularizer | str | None,
    scale: str | None,
    overrides: Mapping[str, Regularizer | None] | None,
) -> None:
    if isinstance(regularizer, str):
        if regularizer != "auto":
            raise invalid_argument("regularizer", '"auto", None or a Regularizer', regularizer)
        has_one = any(weight.variable.regularizer for weight in find_targets(model).live)
        if scale is None and not overrides and has_one:
            return
        regularizer = L2L0(l2=1e-5, l0=1e-5, beta=10.0)
    regularize(model, regularizer, scale=scale, overrides=overrides)


def _joined(
    first: keras.callbacks.History, second: keras.callbacks.History
) -> keras.callbacks.History:
    """One history of two fits, one after the other; a log that only one has is cut short."""
    joined = keras.callbacks.History()
    joined.epoch = [*getattr(first, "epoch", []), *second.epoch]
    joined.params = second.params
    for name in {**first.history, **second.history}:
        joined.history[name] = [*first.history.get(name, []), *second.history.get(name, [])]
    return joined


def _metrics_at(
    history: keras.callbacks.History, epoch: int, like: Mapping[str, float]
) -> dict[str, float] | None:
    """The validation metrics of an epoch, if it was trained."""
    epochs = getattr(history, "epoch", [])
    if epoch not in epochs:
        return None
    place = epochs.index(epoch)
    return {name: float(history.history[f"val_{name}"][place]) for name in like}
