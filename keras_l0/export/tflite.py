"""From a Keras model to a TFLite file that has been run and found right."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_l0.errors import choice, invalid_argument, is_number, one_of
from keras_l0.export import check
from keras_l0.export.best import best_of, notes_on
from keras_l0.export.candidates import GATHERED, KINDS, SHRUNK, WHOLE, settings_of
from keras_l0.export.choice import chosen_by, report_on
from keras_l0.export.convert import computing_in_float32, convert_all, require_tensorflow
from keras_l0.export.device import read_timings
from keras_l0.export.exportable import check_expressible
from keras_l0.export.figures import ExportReport as ExportReport
from keras_l0.export.flatfile import named
from keras_l0.export.limits import Limits
from keras_l0.export.samples import Arrays, ModelInputs, described, output_names, read_inputs
from keras_l0.files import check_folder, check_target, replacing
from keras_l0.models import check_built, check_finite
from keras_l0.pruning.targets import find_targets
from keras_l0.structure.dead import inputs_read
from keras_l0.structure.shrink import last_cut, rebuilt

QUANTIZE = (*KINDS[1:], "auto")
"""What ``quantize`` may be beside ``None``."""

CALIBRATED = ("int8", "auto")
"""Of these, what takes the ranges of tensors from ``calibration``."""

OBJECTIVES = ("size", "download", "latency")
"""What ``optimize_for`` may be."""

TARGETS = ("arm", "host")
"""What ``target`` may be."""
# A network that kept a larger part than this is not converted as a whole, but in float32.
_NEARLY_WHOLE = 0.9


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    quantize: str | None = None,
    optimize_for: str = "size",
    shrink: bool = True,
    calibration: Any = None,
    check_data: Any = None,
    tolerance: float | None = None,
    target: str = "arm",
    timings: str | os.PathLike[str] | None = None,
    keep_candidates: str | os.PathLike[str] | None = None,
) -> ExportReport:
    r"""Writes ``model`` as the ``.tflite`` file that is best for a purpose, its zeros left out.

    Several files are built: dense, and with each constant in the sparse form that the runtime
    takes and that serves the purpose. Each is run by the default LiteRT interpreter and by the
    plain one, without delegate, and compared with the model's own outputs :math:`y`. The best of
    those that are right is written; the report lists all. A file is right if

    - for a classifier, a model with one output of which each row is probabilities (not negative,
      with a sum of 1), the share of samples whose class, the largest of a row, changes is at most
      ``tolerance``. A change between two classes whose probabilities differ by less than the
      resolution of the kind is not counted.
    - for any other model, logits included, each output has

      .. math:: \max |y - \hat y| \; / \; \max |y| \le \text{tolerance}

    and, for both, no output deviates by as much as it differs between samples (root mean
    squares). The resolutions are 1e-6 of the largest number for float32, :math:`2^{-11}` for
    float16, and :math:`2^{-8}` with int8 weights. An output that differs between samples by less
    than four times that, as of an untrained network, is held to ``tolerance`` alone, and the
    report says that the comparison is weak.

    The encoding of zeros is checked apart from that: a sparse file must compute what the dense
    one of the same weights does, to 1e-4 of the largest output, or to 0.02 where the runtime
    computes with sparse int8 weights.

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
            ``"latency"``, the fastest with one thread.
        shrink: whether dead channels are taken out first, as ``shrink`` does; where a first
            ``Dense`` layer does not read all of the inputs, files that gather those that it reads
            are among the candidates. What is written is compared with ``model`` itself.
        calibration: samples from which ``"int8"`` takes the range of each tensor, in any form
            that ``fit`` takes, ``y`` ignored; the first 256 are used.
        check_data: samples to compare on, likewise. ``None`` for those of ``calibration``; without
            these for 16 random ones with a fixed seed, of values that the first layers imply: ids
            over the vocabulary of an ``Embedding``, pixels of the range that a ``Rescaling``
            expects, the mean and variance of a ``Normalization``; else standard normal, or 0 and
            1 for integers. A subclassed model needs it, since it does not tell its input shapes.
        tolerance: positive. For a classifier the largest share of samples whose class changes;
            ``None`` for 0.01, but one sample of 10 or more. For any other model the largest
            deviation; ``None`` for 1e-3 in float32, 1e-2 with ``"float16"``, 0.1 with int8
            weights, whether the kind was named or tried by ``"auto"``.
        target: for ``"latency"``, where the file is to run: ``"arm"``, a phone; or ``"host"``,
            a machine as this one. Files are timed here in any case, but on another processor than
            ARM, the choice for ``"arm"`` goes by the instructions that it would execute there,
            estimated.
        timings: a file that the script of ``keep_candidates`` wrote on a device: the choice goes
            by it, and a candidate that does not run or deviates there is refused.
        keep_candidates: a folder, made where it is missing, for all candidates,
            ``samples.npz`` with inputs and expected outputs, and ``measure.py``, which checks and
            times them on a device with nothing but NumPy and LiteRT:
            ``python measure.py . --out device.json``.

    Returns:
        The file's figures beside those of the dense float32 file of the model as given and of
        the dense file of its kind, and all candidates'.

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
    check_exportable(model, tolerance)
    if not isinstance(shrink, bool):
        raise invalid_argument("shrink", "True or False", shrink)
    check_export(path, quantize, optimize_for=optimize_for)
    choice("target", target, TARGETS)
    device = None if timings is None else read_timings(timings)
    kinds = _kinds(quantize, calibration)
    argument = _compared_on(check_data, calibration)
    given = calibration if argument == "calibration" else check_data
    inputs, batches = read_inputs(model, given, argument or "check_data")
    ranges = None
    if calibration is not None:
        same = given is calibration
        ranges = batches if same else _calibration(model, calibration, inputs)
    count = len(batches) * inputs.batch
    compared_on = described(model, inputs, count, argument)
    kept = None if keep_candidates is None else check_folder(keep_candidates, "keep_candidates")
    # The path is checked before the work, and nothing is left there if the work fails.
    with replacing(path) as temporary:
        with computing_in_float32(model) as was_mixed:
            outputs, expected = _keras_outputs(model, inputs, batches)
            variants, unshrunk = _variants(model) if shrink else ({WHOLE: model}, "")
            results = convert_all(
                [(one, _settings(name, variants, kinds)) for name, one in variants.items()],
                inputs,
                ranges,
            )
        converted = {
            f"{name}{setting}": content
            for name, result in zip(variants, results, strict=True)
            for setting, content in result.items()
        }
        dense = {
            setting: named(content, inputs.names, outputs)
            for setting, content in converted.items()
            if isinstance(content, bytes)
        }
        # The whole network in float32 is there to be compared with, if not as a candidate.
        reference = dense.get("float32")
        if "float32" not in kinds:
            dense.pop("float32", None)
        if not dense:
            raise RuntimeError(next(text for text in converted.values() if isinstance(text, str)))
        samples = check.Samples(inputs.names, outputs, batches, expected)
        limits = Limits.of(tolerance, samples)
        best = best_of(
            dense,
            samples,
            limits,
            optimize_for,
            target,
            compared_on=compared_on,
            reference=reference,
            device=device,
            kept=kept,
        )
        chosen = best.chosen
        temporary.write_bytes(chosen.candidate.content)
    notes = [*chosen.candidate.notes]
    if unshrunk:
        notes.append(f"The network was not shrunk. {unshrunk}")
    notes += [
        f"{setting} is not among the candidates. {reason}"
        for setting, reason in converted.items()
        if isinstance(reason, str)
    ]
    if was_mixed:
        notes.append("The model's mixed precision is for training; the file computes in float32.")
    if not find_targets(model).weights:
        notes.append("The model has no prunable layer: its file is dense.")
    notes += notes_on(chosen, best.judged, samples)
    return report_on(
        chosen,
        best.judged,
        best.reference,
        path=os.fspath(path),
        quantize=quantize,
        optimize_for=optimize_for,
        target=target,
        chosen_by=chosen_by(optimize_for, target, device),
        parameters=variants[chosen.candidate.variant].count_params(),
        dense_parameters=model.count_params(),
        limits=limits,
        checked_samples=count,
        compared_on=compared_on,
        notes=tuple(notes),
    )


def check_export(
    path: str | os.PathLike[str],
    quantize: str | None,
    argument: str = "path",
    optimize_for: str = "size",
) -> None:
    """Whether an export could begin: worth asking before a long training.

    Args:
        path: the file to write.
        quantize: as in ``export_tflite``.
        argument: what the caller calls ``path``, for the error.
        optimize_for: as in ``export_tflite``.

    Raises:
        ValueError: if an argument is wrong.
        ImportError: if TensorFlow or LiteRT is not installed.
    """
    check_target(path, argument)
    if quantize is not None and not (isinstance(quantize, str) and quantize in QUANTIZE):
        raise invalid_argument("quantize", f"None, {one_of(QUANTIZE)}", quantize)
    choice("optimize_for", optimize_for, OBJECTIVES)
    require_tensorflow()


def check_exportable(model: Any, tolerance: Any) -> None:
    """Raises a ``ValueError`` if a model or a tolerance is none that an export takes."""
    check_built(model)
    check_expressible(model)
    if tolerance is not None and not (is_number(tolerance) and 0 < tolerance < math.inf):
        raise invalid_argument("tolerance", "a positive finite number or None", tolerance)
    check_finite(model)


def _compared_on(check_data: Any, calibration: Any) -> str | None:
    """The argument that files are compared on; ``None`` for random samples."""
    if check_data is not None:
        return "check_data"
    return None if calibration is None else "calibration"


def _variants(model: keras.Model) -> tuple[dict[str, keras.Model], str]:
    """The network, and without its dead channels and inputs if it has any; or why not."""
    variants = {WHOLE: model}
    try:
        cut = last_cut(model)
        smaller = cut.graph.model
        if smaller is not model:
            variants[SHRUNK] = smaller
        read = inputs_read(cut)
        if read:
            variants[GATHERED] = rebuilt(cut, read)
    except ValueError as error:
        return {WHOLE: model}, str(error)
    return variants, ""


def _settings(
    name: str, variants: Mapping[str, keras.Model], kinds: Sequence[str]
) -> Sequence[str]:
    """What a variant is converted with."""
    if name != WHOLE:
        return [setting for kind in kinds for setting in settings_of(kind)]
    smaller = variants.get(SHRUNK)
    wanted = [s for kind in kinds for s in settings_of(kind)] if smaller is None else list(kinds)
    # Another conversion of nearly the same network would take the time of another export.
    model = variants[WHOLE]
    if smaller is not None and smaller.count_params() > _NEARLY_WHOLE * model.count_params():
        wanted = []
    return list(dict.fromkeys(["float32", *wanted]))


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
        names = names or output_names(model, result)
        expected.append([keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(result)])
    check.require_finite(expected)
    return names, expected
