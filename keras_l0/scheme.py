"""The scheme in one call: penalised training, pruning, fine tuning, export."""

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import keras
from keras.regularizers import Regularizer

from keras_l0 import annealing
from keras_l0.attach import regularize
from keras_l0.batches import arrays_of
from keras_l0.data import check_compiled, check_taken, evaluate, fit_data, loss_name, unpack
from keras_l0.errors import invalid_argument, is_whole, whole_at_least
from keras_l0.export.exportable import check_expressible
from keras_l0.export.tflite import CALIBRATED, check_export, export_tflite
from keras_l0.identity import identity
from keras_l0.models import check_recompiles, check_renewable, renew_optimizer
from keras_l0.pruning import collapse, variation
from keras_l0.pruning.iterative import FRACTION
from keras_l0.pruning.keep import KeepZeros
from keras_l0.pruning.rewinding import Rewinding, check_rewind
from keras_l0.pruning.scores import Ranking
from keras_l0.pruning.targets import as_patterns, find_targets, matches, names_variable, walk
from keras_l0.report.summary import summarize
from keras_l0.result import AsTrained, Report, Result, joined, metrics_at, plain
from keras_l0.resuming import Run, check_restored_once
from keras_l0.structure.graph import Graph
from keras_l0.structure.shrink import shrink as take_out_dead
from keras_l0.versions import versions
from keras_l0.ways import Bound, Way, choose_way, default_score


def compress(
    model: keras.Model,
    train: Any,
    validation: Any,
    *,
    scheme: str = "l2l0",
    compression: float | None = None,
    sparsity: float | None = None,
    flops: float | None = None,
    bound: Mapping[str, float] | None = None,
    mode: str = "auto",
    fraction: float = FRACTION,
    regularizer: Regularizer | str | None = "auto",
    scale: str | None = None,
    overrides: Mapping[str, Regularizer | None] | None = None,
    method: str = "global",
    score: Ranking | None = None,
    warmup: int = 10,
    ramp: int = 20,
    finetune: int = 10,
    finetune_penalty: bool | Regularizer = True,
    finetune_train: Any = None,
    power: float = 3.0,
    regrow: bool = False,
    learning_rate: float | None = None,
    anneal: int = 0,
    rewind: int | None = None,
    shrink: bool = False,
    seed: int | None = None,
    layers: str | Sequence[str] | None = None,
    batch_size: int | None = None,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    class_weight: dict[int, float] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
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

    ``scheme="redundancy"`` takes whole neurons and filters instead, those first that are most
    alike another one of their layer, and ``shrink`` takes them out of the model in the result.
    Its penalties are composite constraints, a ``RedundancyPenalty`` and a ``GradientCount`` on
    each kernel whose filters can go, which lessen what pruning takes.

    With a ``bound`` the network becomes as sparse as it can be instead: after ``warmup`` epochs,
    ``ramp`` + ``finetune`` epochs prune with ``IterativePrune`` for as long as the metric holds.

    Args:
        model: a compiled model, trained or not.
        train: what ``fit`` takes: a tuple ``(x, y)`` or ``(x, y, sample_weight)`` of arrays,
            or a ``tf.data`` dataset, a ``PyDataset``, a PyTorch ``DataLoader``.
        validation: the same, to evaluate on.
        scheme: ``"l2l0"`` or ``"redundancy"``.
        compression: all parameters of the network over those left, ≥ 1.
        sparsity: instead: zeros over all prunable weights, in [0, 1).
        flops: with ``method="neuron"`` or ``scheme="redundancy"`` instead of a compression: the
            share of multiply-adds that go, in [0, 1).
        bound: instead: a validation metric's name in the logs with the least it may be, or the
            most if smaller is better, as in ``{"val_accuracy": 0.98}``. No loss, unless
            ``regularizer`` is ``None``: penalties are in it.
        mode: with a bound, ``"max"`` if larger is better, ``"min"`` if smaller is, ``"auto"`` to
            go by the metric.
        fraction: with a bound, of the weights that are left how many go at a time, in (0, 1).
        regularizer: what ``regularize`` puts on the kernels. ``"auto"`` keeps the penalties
            that the model has, or else takes ``L2L0(l2=1e-5, l0=1e-5, beta=10)``; with
            ``scheme="redundancy"`` its own stand beside those; ``None`` trains without.
        scale: as in ``regularize``, for a ``regularizer`` that is given or chosen here.
        overrides: as in ``regularize``, likewise.
        method: ``"global"``, ``"layerwise"`` or ``"random"`` for single weights; ``"neuron"`` for
            whole neurons and filters, as in ``NeuronPrune``, which are taken out of the result:
            to a ``compression`` or ``flops``.
        score: what ``method="global"`` and a ``bound`` rank by, as in ``GlobalPrune``; with
            ``method="neuron"`` ``"norm"`` or ``"redundancy"``. ``None`` for the default:
            ``"lamp"``, for neurons ``"norm"``.
        warmup: epochs of training before the first pruning, ≥ 0.
        ramp: epochs over which the sparsity grows; 0 prunes once.
        finetune: epochs after the last pruning, ≥ 0.
        finetune_penalty: whether the penalty stays on while fine tuning, or the one that takes its
            place, under the same ``scale``. If not, it is taken off the model for good.
        finetune_train: what to train on while fine tuning, if not on ``train``: the examples with
            the ``soft_targets`` of a teacher, say. Callbacks then see two calls of ``fit``.
        power: the ramp's degree.
        regrow: whether weights may grow back until the ramp's last tenth.
        learning_rate: of the optimizer, a float > 0; ``None`` for the one it has.
        anneal: how many times the rate falls along half a cosine to a hundredth while fine
            tuning; 0 leaves it. In the end the optimizer has the rate that it began with.
        rewind: for fine tuning, what is left goes back to its values after so many epochs, an
            integer from 0 to ``warmup``: kernels, biases and normalizations, with the optimizer's
            state as at first. ``None`` for no such thing; not with a ``bound``, without
            fine tuning or beside ``BackupAndRestore``. Callbacks then see two calls of ``fit``.
        shrink: whether all that is dead is taken out before fine tuning, which is faster then;
            with a bound, at the end.
        seed: for ``method="random"``.
        layers: only these are pruned, as in ``prune``.
        batch_size: for arrays.
        steps_per_epoch: for a data set that is repeated; of ``finetune_train`` too.
        validation_steps: likewise.
        class_weight: as in ``fit``.
        callbacks: further ones, such as a learning-rate schedule.
        checkpoint_dir: a folder for the whole state of the training, written anew at each epoch's
            end. Called again with the same arguments, after a kill at whatever moment, ``compress``
            goes on from there and ends with the same weights; once it has ended, it trains no
            more. A data set must give the batches of an epoch whatever came before, and the weights
            are then those of a run without the folder. Arrays are shuffled by a seed that is kept
            there, in another order than Keras shuffles them in, so that the weights differ from
            those of a run without the folder as those of two seeds do. Callbacks get their numbers
            and arrays back. Not beside ``BackupAndRestore``.
        verbose: as in ``fit``.
        export: where to write the sparse ``.tflite`` file; it is checked on ``validation``. If
            it is refused, a warning and the report say why.
        quantize: of the export, as in ``export_tflite``; ``"int8"`` and ``"auto"`` take ranges
            from ``train``.
        optimize_for: of the export, likewise.

    Returns:
        The model, its history and a report. With ``shrink``, ``method="neuron"`` or
        ``scheme="redundancy"`` the model is a new one, shrunk. That which was given has zeros in
        the place of what is gone; with ``shrink`` it is as it was before fine tuning, rewound or
        not. The report's losses are without the penalties on weights, which differ before and
        after; the history's are Keras' own, with them.

    Raises:
        ValueError: if an argument is out of its range or the target is out of reach, before
            training; if the model is not compiled; if ``checkpoint_dir`` holds another run or a
            damaged file.
        ImportError: if ``export`` is given and TensorFlow or LiteRT is missing, before training.

    Warns:
        DeadNetworkWarning: if the pruned network has no function any more: when a pruning leaves
            it so, and at the end, where ``dead`` in the report says so too.

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
    Rewinding: Frankle & Carbin, "The Lottery Ticket Hypothesis" (2019).
    """
    if score is None and isinstance(scheme, str) and isinstance(method, str):
        score = default_score(scheme, method)
    settings = {name: plain(value) for name, value in locals().items() if name not in NOT_SETTINGS}
    settings["finetune_train"] = finetune_train is not None
    check_compiled(model)
    for name, value in (("warmup", warmup), ("ramp", ramp), ("finetune", finetune)):
        if not is_whole(value) or value < 0:
            raise invalid_argument(name, "a number of epochs, an integer >= 0", value)
    for name, count in (  # `evaluate` looks at the batch size
        ("steps_per_epoch", steps_per_epoch),
        ("validation_steps", validation_steps),
    ):
        if count is not None:
            whole_at_least(name, count, 1)
    if not isinstance(shrink, bool):
        raise invalid_argument("shrink", "a bool", shrink)
    if not isinstance(finetune_penalty, bool | Regularizer):
        raise invalid_argument("finetune_penalty", "True, False or a Regularizer", finetune_penalty)
    way = choose_way(
        scheme=scheme,
        compression=compression,
        sparsity=sparsity,
        flops=flops,
        bound=bound,
        mode=mode,
        fraction=fraction,
        method=method,
        score=score,
        warmup=warmup,
        ramp=ramp,
        finetune=finetune,
        finetune_penalty=finetune_penalty,
        power=power,
        regrow=regrow,
        seed=seed,
        layers=layers,
    )
    if scale is not None and regularizer == "auto" and scheme == "redundancy":
        raise invalid_argument("scale", 'None for the penalties of scheme="redundancy"', scale)
    if export is not None:
        check_export(export, quantize, "export", optimize_for)
        check_expressible(model)
    callbacks = [] if callbacks is None else keras.tree.flatten(callbacks)
    if not all(isinstance(one, keras.callbacks.Callback) for one in callbacks):
        raise invalid_argument("callbacks", "a list of Keras callbacks", callbacks)
    check_restored_once(callbacks, rewind=rewind, checkpoint_dir=checkpoint_dir)
    if rewind is not None:
        check_rewind(rewind, warmup)
        _only_tuning(way, finetune, "rewind", rewind)
    trained_on = fit_data(train, "train")
    tuned_on = trained_on
    if finetune_train is not None:
        _only_tuning(way, finetune, "finetune_train", "data")
        tuned_on = fit_data(finetune_train, "finetune_train")
        if class_weight and "sample_weight" in tuned_on:
            raise invalid_argument("finetune_train", "(x, y) beside `class_weight`", "(x, y, w)")
    fit_arguments = {
        "batch_size": batch_size,
        "steps_per_epoch": steps_per_epoch,
        "class_weight": class_weight,
        "validation_data": validation,
        "validation_steps": validation_steps,
        "verbose": verbose,
    }
    was_built = model.built
    if was_built:
        _check_model(model, way, shrink, rewind is not None)
    before = evaluate(
        model, validation, "validation", steps=validation_steps, batch_size=batch_size
    )
    if not was_built:  # the evaluation has built it
        _check_model(model, way, shrink, rewind is not None)
    if finetune_train is not None:
        check_taken(model, finetune_train, "finetune_train")
    if isinstance(way, Bound):
        way.check_metrics(model, before, regularizer is not None)
    if checkpoint_dir is not None:  # refused now, and not when the model is changed
        arrays_of(trained_on, "train")
        arrays_of(tuned_on, "finetune_train")
    rate = annealing.start_rate(model, learning_rate, anneal, finetune)
    data = {"train": train, "validation": validation, "finetune_train": finetune_train}
    same = {name: value for name, value in settings.items() if name not in _MAY_CHANGE}
    run = Run(checkpoint_dir, partial(identity, model, same, callbacks, **data), before)
    way = way.seeded(run.seed)
    _penalise(model, way, regularizer, scale, overrides)
    began = time.perf_counter()

    last = warmup + ramp + finetune
    callbacks = [*annealing.callbacks(rate, warmup + ramp, last, anneal), *callbacks]
    tuned_with = finetune_penalty if isinstance(finetune_penalty, Regularizer) else None
    stays = finetune_penalty and tuned_with is None
    alike = stays and not shrink and finetune_train is None and rewind is None
    one_fit = isinstance(way, Bound) or (alike and finetune > 0)
    first = last if one_fit else warmup + ramp
    rewinding = None if rewind is None or not first else Rewinding(rewind)
    varied = variation.of_data(model, unpack(validation, "validation"), batch_size)
    if varied:
        varied.note(model, before["loss"])
    noted = AsTrained(warmup - 1, varied)
    history = keras.callbacks.History()
    if first:
        end = warmup + ramp - 1 if ramp else None
        added: list[keras.callbacks.Callback] = [noted]
        if ramp or one_fit:
            pruning = way.callback(warmup, end)
            pruning.reminds = one_fit or not finetune  # the fine tuning to come keeps the zeros
            added.append(pruning)
        added += [rewinding] if rewinding else []
        history = run.fit(
            model,
            "training",
            trained_on,
            begin=0,
            end=first,
            callbacks=[*added, *callbacks],
            **fit_arguments,
        )
    if not (ramp or one_fit):
        way.once(model)
    summary = summarize(model)
    if rewinding and rewinding.rewind(model, layers):
        renew_optimizer(model)
    if shrink:
        try:
            model = take_out_dead(model)
        except ValueError as error:  # not a reason to lose what was trained
            warnings.warn(f"Nothing dead is taken out. {error}", stacklevel=2)
    if finetune and not one_fit:
        if not stays:
            regularize(model, tuned_with, scale=scale if tuned_with else None)
        history = joined(
            history,
            run.fit(
                model,
                "tuning",
                tuned_on,
                begin=first,
                end=last,
                callbacks=[*_holding(model, layers), *callbacks],
                **fit_arguments,
            ),
        )
    if rate is not None:
        model.optimizer.learning_rate = rate
    after = evaluate(model, validation, "validation", steps=validation_steps, batch_size=batch_size)
    dead = collapse.find_dead(model, find_targets(model))
    if varied and not dead and not isinstance(way, Bound):  # there the metric says it
        dead = varied.lost(model, after["loss"])
    collapse.warn_of_dead("compress", dead)
    name = loss_name(model)
    try:
        model = way.result(model)
    except ValueError as error:  # not a reason to lose what was trained
        warnings.warn(f"Nothing dead is taken out. {error}", stacklevel=2)
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
        before=run.before,
        trained=metrics_at(history, warmup - 1, after, noted.penalty),
        after=after,
        summary=summary,
        export=exported,
        export_refusal=refusal,
        settings=settings,
        versions=versions(),
        seconds=run.seconds + time.perf_counter() - began,
        dead=dead,
        loss_name=name,
    )
    return Result(model, history, report)


# Arguments that are data, or say where files are written.
NOT_SETTINGS = (
    "model",
    "train",
    "validation",
    "finetune_train",
    "callbacks",
    "checkpoint_dir",
    "export",
)
# What a run may be told otherwise when it goes on.
_MAY_CHANGE = ("verbose", "quantize", "optimize_for")


def _only_tuning(way: Way, finetune: int, argument: str, value: Any) -> None:
    """Raises a ``ValueError`` unless there is a fine tuning, which the argument is for."""
    if not finetune or isinstance(way, Bound):
        where = "with a `bound`" if finetune else "without epochs of fine tuning"
        raise invalid_argument(argument, f"None {where}", value)


def _check_model(model: keras.Model, way: Way, shrink: bool, rewind: bool) -> None:
    """Raises a ``ValueError`` unless the model can be pruned so far, shrunk and rewound."""
    way.check(model)
    if shrink:
        Graph(model)
        check_recompiles(model)
    if rewind:
        check_renewable(model)


def _holding(model: keras.Model, layers: str | Sequence[str] | None) -> list[KeepZeros]:
    """What holds the zeros of the layers named that shrinking has left."""
    if layers is None:
        return [KeepZeros()]
    found = [
        one
        for one in as_patterns(layers)
        if any(
            matches(line, one) or any(names_variable(one, line, variable) for variable in own)
            for line, own in walk(model)
        )
    ]
    return [KeepZeros(found)] if found else []


def _penalise(
    model: keras.Model,
    way: Way,
    regularizer: Regularizer | str | None,
    scale: str | None,
    overrides: Mapping[str, Regularizer | None] | None,
) -> None:
    if isinstance(regularizer, str):
        if regularizer != "auto":
            raise invalid_argument("regularizer", '"auto", None or a Regularizer', regularizer)
        if scale is None and not overrides and way.is_penalised(model):
            return
        regularizer, chosen = way.penalties(model)
        overrides = {**(overrides or {}), **chosen}
    regularize(model, regularizer, scale=scale, overrides=overrides)
