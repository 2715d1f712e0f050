"""Quantization-aware training that keeps zeros and clusters: tfmot's, for Keras 3."""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_l0.errors import choice, invalid_argument
from keras_l0.export import check
from keras_l0.export.best import best_of, notes_on
from keras_l0.export.choice import chosen_by, report_on
from keras_l0.export.convert import (
    computing_in_float32,
    convert_as,
    dense_files,
    has_loop,
    serving,
    signature,
)
from keras_l0.export.figures import ExportReport
from keras_l0.export.flatfile import named, renamed
from keras_l0.export.limits import Limits
from keras_l0.export.runner import deviation
from keras_l0.export.samples import Arrays, ModelInputs, described, output_names, read_inputs
from keras_l0.export.tflite import TARGETS, check_export, check_exportable
from keras_l0.files import replacing
from keras_l0.structure.graph import functional
from keras_l0.text import by_reason, first_line
from keras_l0.tfmot.clustering import cluster, copied, note_dense, prunable
from keras_l0.tfmot.legacy import legacy_keras, undisturbed
from keras_l0.tfmot.rebuild import flattened
from keras_l0.tfmot.rounding import begin_ranges, rounding
from keras_l0.tfmot.training import Schedule, Training


def quantize_aware(
    model: keras.Model,
    data: Any,
    path: str | os.PathLike[str],
    *,
    clusters: int | None = None,
    epochs: int = 1,
    learning_rate: float = 1e-4,
    check_data: Any = None,
    tolerance: float | None = None,
    optimize_for: str = "size",
    target: str = "arm",
) -> tuple[keras.Model, ExportReport | None]:
    """Trains the model as it will compute in int8, and writes the int8 ``.tflite`` file.

    tfmot's quantization-aware training: weights and activations are rounded to 8 bits where they
    are used, and the weights underneath are trained. After each batch what was zero is zero again
    in every kernel and embedding; with ``clusters``, weights that were equal
    become their mean. Ranges of activations begin at those of ``check_data``.

    The file is found like that of ``export_tflite``: dense and with its zeros left out, each run
    and held against the trained, rounding model. Of layers that tfmot does not quantize
    the results are rounded; their weights stay in float32, and are named in the report.

    Args:
        model: a built and compiled model of Keras 3 that ``to_tf_keras`` takes, on any backend.
        data: what ``fit`` takes: a tuple ``(x, y)`` or ``(x, y, sample_weight)`` of arrays, or a
            data set of batches.
        path: the file to write, in an existing folder.
        clusters: values a kernel, >= 3: the model is clustered first, as by ``cluster``.
        epochs: passes over the data, >= 1; with ``clusters`` as many before, to train those.
        learning_rate: Adam's, >= 0.
        check_data: samples to compare on, in any form that ``fit`` takes, ``y`` ignored. ``None``
            for the first 256 of ``data``.
        tolerance: as in ``export_tflite``, for ``"int8"``.
        optimize_for: ``"size"``, ``"download"`` or ``"latency"``, as in ``export_tflite``.
        target: ``"arm"`` or ``"host"``, as in ``export_tflite``.

    Returns:
        The trained model in Keras 3, in floating point and not compiled, and the file's report;
        ``None`` and a warning if no file runs and deviates little enough. The given model is
        unchanged.

    Raises:
        ImportError: if tfmot or LiteRT is not installed; the command that installs it.
        ValueError: if an argument is wrong, the model has no counterpart in tf_keras or does
            not take the data.
        RuntimeError: if the outputs of the trained model are NaN or infinite.

    Example:

    >>> import keras, numpy, tempfile
    >>> from keras_l0 import prune
    >>> from keras_l0.tfmot import quantize_aware
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    >>> model.compile("adam", "mse")
    >>> _ = prune(model, 0.9)
    >>> x = numpy.random.default_rng(0).normal(size=(100, 64))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     trained, report = quantize_aware(model, (x, x), f"{folder}/model.tflite")
    >>> report.bytes < report.dense_bytes
    True

    Source: the training is that of tensorflow-model-optimization, its "PQAT" and "PCQAT" but for
    how zeros and clusters are kept.
    """
    check_exportable(model, tolerance)
    functional(model)  # an error where it has no graph
    check_export(path, "int8", optimize_for=optimize_for)
    choice("target", target, TARGETS)
    how = Schedule(epochs, learning_rate)
    training = Training(model, data, how)
    if clusters is not None and isinstance(data, Iterator):
        raise invalid_argument(
            "data",
            "a data set that can be gone over twice, with `clusters`",
            type(data).__name__,
            "Give arrays, or `cluster` the model first",
        )
    given, argument = _samples(data, check_data)
    inputs, batches = read_inputs(model, given, argument)
    compared_on = described(model, inputs, len(batches) * inputs.batch, argument)
    with computing_in_float32(model):
        try:
            whole = dense_files(model, inputs, ["float32"])["float32"]
        except RuntimeError as error:  # the report has no dense float32 file then
            whole = str(error)
    start = model
    if clusters is None:
        note_dense(model)
    else:
        start = cluster(model, clusters, data, epochs=epochs, learning_rate=learning_rate)
    with undisturbed():
        with computing_in_float32(start) as was_mixed:
            flat, variables = flattened(start)
        form, left = rounding(flat)
        begin_ranges(form, flat, inputs, batches)
        # What no output comes from is in the flat model alone.
        _check_names(variables)
        there = {one.name: one for one in (*variables.values(), *form.weights)}
        held = [
            _held(there[variables[id(one.variable)].name], one.values(), clusters)
            for one in prunable(start)
        ]
        if isinstance(form.output, list):  # for losses by the names of models inside, now gone
            form.output_names = list(model.output_names)
        training.run(form, [_after_each_batch(held)])
        trained = copied(start)
        for old, new in zip(start.weights, trained.weights, strict=True):
            new.assign(there[variables[id(old)].name].numpy())
        owner = serving(form, inputs, form.variables)
        function = owner.serve.get_concrete_function(*signature(inputs))
        samples = _asked(function, inputs, batches, _output_names(model))
        limits = Limits.of(tolerance, samples)
        try:
            with replacing(path) as temporary:
                dense = {"int8": _converted(function, owner, form, samples)}
                best = best_of(
                    dense,
                    samples,
                    limits,
                    optimize_for,
                    target,
                    compared_on=compared_on,
                    reference=_named(whole, samples),
                )
                temporary.write_bytes(best.chosen.candidate.content)
        except RuntimeError as error:  # not a reason to lose what was trained
            warnings.warn(f"The model is trained, but not exported. {error}", stacklevel=2)
            return trained, None
    chosen = best.chosen
    notes = [*chosen.candidate.notes, *notes_on(chosen, best.judged, samples)]
    apart = _apart(trained, inputs, samples)
    if apart > limits.deviation("int8"):
        notes.append(
            f"Rounded, the model's outputs deviate by {apart:.2g} of the largest from those of the "
            "returned model: train longer, or give `check_data` like `data`."
        )
    if left:
        notes.append(f"Weights in float32: {'; '.join(by_reason(left))}.")
    if was_mixed:
        notes.append("The model's mixed precision is for training; the file computes in int8.")
    return trained, report_on(
        chosen,
        best.judged,
        best.reference,
        path=os.fspath(path),
        quantize="int8",
        optimize_for=optimize_for,
        target=target,
        chosen_by=chosen_by(optimize_for, target, None),
        parameters=model.count_params(),
        dense_parameters=model.count_params(),
        limits=limits,
        checked_samples=samples.count,
        compared_on=compared_on,
        notes=tuple(notes),
    )


def _samples(data: Any, check_data: Any) -> tuple[Any, str]:
    """What files are compared on, and which argument it is."""
    if check_data is not None:
        return check_data, "check_data"
    if isinstance(data, Iterator):
        raise invalid_argument(
            "check_data", "samples, since `data` can be gone over once", None, "Give some"
        )
    return iter(data) if isinstance(data, list) else data, "data"  # a list is one of batches


def _named(content: bytes | str, samples: check.Samples) -> bytes | None:
    """The dense float32 file of the model as given, or ``None`` if it has none."""
    return None if isinstance(content, str) else named(content, samples.inputs, samples.outputs)


def _check_names(variables: Mapping[int, Any]) -> None:
    """Raises a ``ValueError`` for variables of one name, which tfmot could not tell apart."""
    names = [one.name for one in variables.values()]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise invalid_argument(
            "model",
            "layers whose weights have a name each",
            f"two named {twice[0]}",
            "Name the cells inside a layer differently",
        )


def _output_names(model: keras.Model) -> tuple[str, ...]:
    return output_names(model, getattr(model, "_outputs_struct", model.outputs))


def _apart(trained: keras.Model, inputs: ModelInputs, samples: check.Samples) -> float:
    """How far the rounding model's outputs are from those of the model that is returned."""
    x = [np.concatenate(arrays) for arrays in zip(*samples.batches, strict=True)]
    size = inputs.shapes[0][0] or 32
    found = keras.tree.flatten(trained.predict(inputs.pack(x), batch_size=size, verbose=0))
    wanted = [np.concatenate(arrays) for arrays in zip(*samples.expected, strict=True)]
    return deviation(tuple(wanted), tuple(found))


def _held(variable: Any, values: NDArray[Any], clusters: int | None) -> Callable[[], None]:
    """What puts a kernel's zeros back, and its equal weights to their mean if they are clusters."""
    distinct, labels = np.unique(values, return_inverse=True)
    if clusters is None or len(distinct) > clusters:
        kept = tf.constant(values != 0)
        return lambda: variable.assign(tf.where(kept, variable, tf.zeros_like(variable)))
    places = tf.constant(labels.ravel(), tf.int32)
    zero = tf.constant(distinct == 0)

    def hold() -> None:
        means = tf.math.unsorted_segment_mean(tf.reshape(variable, [-1]), places, len(distinct))
        means = tf.where(zero, tf.zeros_like(means), means)
        variable.assign(tf.reshape(tf.gather(means, places), variable.shape))

    return hold


def _after_each_batch(held: Sequence[Callable[[], None]]) -> Any:
    """A callback of tf_keras that calls all."""

    @tf.function(autograph=False)
    def hold() -> None:
        for one in held:
            one()

    return legacy_keras().callbacks.LambdaCallback(on_train_batch_end=lambda *_: hold())


def _asked(
    function: Any, inputs: ModelInputs, batches: list[Arrays], outputs: tuple[str, ...]
) -> check.Samples:
    """What a file is to give, by the model that was trained."""
    found = [function(*map(tf.constant, batch)) for batch in batches]
    expected = [[one[name].numpy() for name in sorted(one)] for one in found]
    check.require_finite(expected)
    return check.Samples(inputs.names, outputs, batches, expected)


def _converted(function: Any, owner: Any, form: Any, samples: check.Samples) -> bytes:
    """The dense file.

    Raises:
        RuntimeError: if TFLite's operators cannot express it.
    """
    try:
        content = convert_as("dynamic", function, owner)  # whose ranges are in it already
    except Exception as error:  # the converter's are of many kinds
        hint = " Give recurrent layers unroll=True." if has_loop(function) else ""
        raise RuntimeError(f"The converter does not take it: {first_line(error)}{hint}") from error
    wrapped = [layer.layer.name for layer in form.layers if hasattr(layer, "layer")]
    content = renamed(content, {f"{form.name}/{name}": name for name in wrapped})
    return named(content, samples.inputs, samples.outputs)
