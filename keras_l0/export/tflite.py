"""From a Keras model to a TFLite file that has been run and found right."""

import math
import os
import zlib
from collections.abc import Sequence
from statistics import median
from typing import Any

import keras
import numpy as np

from keras_l0.errors import invalid_argument, is_number
from keras_l0.export import check, runner
from keras_l0.export.candidates import KINDS, Candidate, candidates, settings_of
from keras_l0.export.check import Measured
from keras_l0.export.convert import computing_in_float32, dense_files, require_tensorflow
from keras_l0.export.figures import CandidateFigures
from keras_l0.export.figures import ExportReport as ExportReport
from keras_l0.export.flatfile import named
from keras_l0.export.samples import Arrays, ModelInputs, read_inputs, unique
from keras_l0.files import check_target, replacing
from keras_l0.pruning.targets import check_built
from keras_l0.versions import versions

# A sparse file computes with the dense one's very weights, and differs at most by the order
# of additions. Weights read wrong can hide below a tolerance that is meant for rounding.
_SAME_WEIGHTS_TOLERANCE = 1e-4
_TOLERANCES = {"float32": 1e-3, "float16": 1e-2, "dynamic": 0.1, "int8": 0.1}
_OBJECTIVES = ("size", "download", "latency")


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    quantize: str | None = None,
    optimize_for: str = "size",
    calibration: Any = None,
    check_data: Any = None,
    tolerance: float | None = None,
) -> ExportReport:
    r"""Writes ``model`` as the ``.tflite`` file that is best for a purpose, its zeros left out.

    Several files are built: dense, and with each constant in the sparse form that the runtime
    takes and that serves the purpose. Each is run by the default LiteRT interpreter and by the
    plain one, without delegate, and held against the model's own outputs :math:`y`:

    .. math:: \max |y - \hat y| \; / \; \max |y| \le \text{tolerance}

    for each output. The best of those that are right is written; the report lists all.

    The file takes one sample at a time, as on a device, unless the model's batch size is
    fixed. A mixed-precision model is taken, and compared, as computing in float32.
    Works on every Keras backend; off TensorFlow the model is saved and converted by
    another process.

    Args:
        model: a built model of any kind.
        path: the file to write, in an existing folder. An older one is replaced at the
            end, or left as it is.
        quantize: ``None`` for float32 weights; ``"float16"`` for weights of 16 bits that
            are computed with in float32; ``"dynamic"`` for int8 weights; ``"int8"`` for int8
            weights and computing in int8, which needs ``calibration``; ``"auto"`` for the best
            of all these, ``"int8"`` among them if there is ``calibration``. Zeros are exactly
            zero in each.
        optimize_for: ``"size"``, the smallest file; ``"download"``, the smallest after gzip;
            ``"latency"``, the fastest on this machine, one thread.
        calibration: samples from which ``"int8"`` takes the range of each tensor, in any form
            that ``fit`` takes, ``y`` ignored; the first 256 are used.
        check_data: samples to compare on, likewise. ``None`` for 16 random ones with a fixed
            seed. A subclassed model needs it, since it does not tell its input shapes.
        tolerance: the largest deviation allowed, positive. ``None`` for 1e-3 in float32, 1e-2
            with ``"float16"``, 0.1 with int8 weights; each kind its own with ``"auto"``.

    Returns:
        The file's figures beside those of the dense file of its kind, and all candidates'.

    Raises:
        ValueError: if an argument is wrong, or a weight is NaN or infinite.
        ImportError: if TensorFlow or LiteRT is not installed.
        RuntimeError: if the model cannot be converted, or no file runs and deviates little
            enough.

    Example:

    >>> import tempfile
    >>> from keras_l0 import export_tflite, prune
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    >>> _ = prune(model, 0.9)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = export_tflite(model, f"{folder}/model.tflite")
    >>> report.bytes < report.dense_bytes / 2
    True
    """
    _require_valid(model, tolerance)
    check_export(path, quantize)
    if optimize_for not in _OBJECTIVES:
        raise invalid_argument("optimize_for", '"size", "download" or "latency"', optimize_for)
    kinds = _kinds(quantize, calibration)
    inputs, batches = read_inputs(model, check_data)
    ranges = None if calibration is None else _calibration(model, calibration, inputs)
    limits = {kind: tolerance or _TOLERANCES[kind] for kind in kinds}
    # The path is checked before the work, and nothing is left there if the work fails.
    with replacing(path) as temporary:
        with computing_in_float32(model) as was_mixed:
            outputs, expected = _keras_outputs(model, inputs, batches)
            settings = [setting for kind in kinds for setting in settings_of(kind)]
            converted = dense_files(model, inputs, settings, ranges)
        dense = {
            setting: named(content, inputs.names, outputs)
            for setting, content in converted.items()
            if isinstance(content, bytes)
        }
        if not dense:
            raise RuntimeError(next(text for text in converted.values() if isinstance(text, str)))
        built = candidates(dense, optimize_for)
        measured = check.measure(
            {one.name: one.content for one in built}, inputs.names, outputs, batches, expected
        )
        refusals = {one.name: _refusal(one, measured, limits[one.kind]) for one in built}
        right = [one for one in built if not refusals[one.name]]
        figures = tuple(_figures(one, measured[one.name], refusals[one.name]) for one in built)
        if not right:
            raise RuntimeError(_none_is_right(figures, limits))
        chosen = min(right, key=lambda one: _rank(one, measured[one.name], optimize_for))
        temporary.write_bytes(chosen.content)
    reference = next(one for one in built if one.kind == chosen.kind and not one.sparse)
    notes = [*chosen.notes]
    notes += [
        f"{setting} is not among the candidates. {reason}"
        for setting, reason in converted.items()
        if isinstance(reason, str)
    ]
    if was_mixed:
        notes.append("The model's mixed precision is for training; the file computes in float32.")
    if not chosen.sparse and (refused := [name for name, why in refusals.items() if why]):
        notes.append(f"The dense file was kept, since these were refused: {', '.join(refused)}.")
    of = {one.name: one for one in figures}
    turns = zip(measured[chosen.name].turns, measured[reference.name].turns, strict=True)
    return ExportReport(
        path=os.fspath(path),
        quantize=quantize,
        optimize_for=optimize_for,
        chosen=chosen.name,
        candidates=figures,
        bytes=len(chosen.content),
        gzip_bytes=of[chosen.name].gzip_bytes,
        dense_bytes=len(reference.content),
        dense_gzip_bytes=of[reference.name].gzip_bytes,
        latency_ms=median(measured[chosen.name].turns),
        dense_latency_ms=median(measured[reference.name].turns),
        latency_ratio=median(a / b for a, b in turns),
        deviation=measured[chosen.name].deviation,
        tolerance=limits[chosen.kind],
        checked_samples=len(batches) * inputs.batch,
        sparse=chosen.sparse,
        notes=tuple(notes),
        versions=versions(),
        processor=runner.processor(),
    )


def check_export(
    path: str | os.PathLike[str], quantize: str | None, argument: str = "path"
) -> None:
    """Whether an export could begin: worth asking before a long training.

    Args:
        path: the file to write.
        quantize: as in ``export_tflite``.
        argument: what the caller calls ``path``, for the error.

    Raises:
        ValueError: if an argument is wrong.
        ImportError: if TensorFlow or LiteRT is not installed.
    """
    check_target(path, argument)
    if quantize is not None and quantize not in QUANTIZE:
        choices = ", ".join(f'"{kind}"' for kind in QUANTIZE)
        raise invalid_argument("quantize", f"None or one of {choices}", quantize)
    require_tensorflow()


QUANTIZE = (*KINDS[1:], "auto")
"""What ``quantize`` may be beside ``None``."""


def _require_valid(model: Any, tolerance: Any) -> None:
    check_built(model)
    if tolerance is not None and not (is_number(tolerance) and 0 < tolerance < math.inf):
        raise invalid_argument("tolerance", "a positive finite number or None", tolerance)
    for weight in model.weights:
        values = keras.ops.convert_to_numpy(weight)
        if "float" in weight.dtype and not np.isfinite(values.astype(np.float32)).all():
            raise invalid_argument(
                "model",
                "finite weights",
                model.name,
                f"Its weight {weight.path} holds NaN or infinite values.",
            )


def _kinds(quantize: str | None, calibration: Any) -> list[str]:
    if quantize == "int8" and calibration is None:
        raise invalid_argument(
            "calibration",
            'samples with quantize="int8"',
            None,
            "The range of each tensor is taken from them: give a hundred of the training data",
        )
    if quantize == "auto":
        return [kind for kind in KINDS if kind != "int8" or calibration is not None]
    return [quantize or "float32"]


def _calibration(model: keras.Model, calibration: Any, inputs: ModelInputs) -> list[Arrays]:
    found, batches = read_inputs(model, calibration, "calibration")
    if found.shapes != inputs.shapes:
        raise invalid_argument(
            "calibration", f"samples of shape {inputs.shapes}", f"samples of shape {found.shapes}"
        )
    return batches


def _keras_outputs(
    model: keras.Model, inputs: ModelInputs, batches: list[Arrays]
) -> tuple[tuple[str, ...], list[Arrays]]:
    names: tuple[str, ...] = ()
    expected = []
    for batch in batches:
        tensors = [keras.ops.convert_to_tensor(array) for array in batch]
        result = model(inputs.pack(tensors), training=False)
        names = names or _output_names(model, result)
        expected.append([keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(result)])
    if not all(np.isfinite(array).all() for batch in expected for array in batch):
        raise RuntimeError(
            "The Keras model's own outputs are NaN or infinite on `check_data`: "
            "no file can be compared with them."
        )
    return names, expected


def _output_names(model: keras.Model, result: Any) -> tuple[str, ...]:
    paths = [path for path, _ in keras.tree.flatten_with_path(result)]
    names = getattr(model, "output_names", None)
    if isinstance(model, keras.Sequential):
        names = [model.layers[-1].name]
    if not names or len(names) != len(paths):
        names = ["_".join(map(str, path)) if path else "output" for path in paths]
        names = [f"output_{name}" if name.isdigit() else name for name in names]
    return unique(names)


def _refusal(one: Candidate, measured: dict[str, Measured], limit: float) -> str:
    """Empty, or why this candidate cannot be chosen."""
    found = measured[one.name]
    if found.fault:
        return f"the runtime does not run it: {found.fault}"
    if found.deviation > limit:
        return (
            f"its outputs deviate from the Keras model's by {found.deviation:.3g} "
            f"of the largest, and {limit:.3g} is allowed"
        )
    if one.same_as and not measured[one.same_as].fault:
        apart = runner.deviation(measured[one.same_as].outputs, found.outputs)
        if apart > _SAME_WEIGHTS_TOLERANCE:
            return f"its outputs deviate from the dense file's by {apart:.3g} of the largest"
    return ""


def _none_is_right(figures: Sequence[CandidateFigures], limits: dict[str, float]) -> str:
    closest = min(
        (one for one in figures if one.deviation is not None),
        key=lambda one: one.deviation or 0.0,
        default=None,
    )
    if closest is None:
        return f"No file was written. {figures[0].name}: {figures[0].refusal}."
    return (
        f"No file was written: none is within the tolerance of {limits[closest.kind]:.3g}. The "
        f"closest, {closest.name}, deviates by {closest.deviation:.3g}: allow that much by "
        "`tolerance`, or choose another `quantize`."
    )


def _rank(one: Candidate, measured: Measured, optimize_for: str) -> tuple[float, ...]:
    """The smaller, the better."""
    size, packed = len(one.content), len(zlib.compress(one.content, 9))
    if optimize_for == "latency":
        return (median(measured.turns), size)
    return (size, packed) if optimize_for == "size" else (packed, size)


def _figures(one: Candidate, found: Measured, refusal: str) -> CandidateFigures:
    return CandidateFigures(
        name=one.name,
        kind=one.kind,
        bytes=len(one.content),
        gzip_bytes=len(zlib.compress(one.content, 9)),
        latency_ms=median(found.turns) if found.turns else None,
        peak_memory=found.peak_memory,
        deviation=None if found.fault else found.deviation,
        refusal=refusal,
    )
