"""From a Keras model to a sparse TFLite file that has been run and found right."""

import math
import os
import zlib
from statistics import median
from typing import Any

import keras
import numpy as np

from keras_l0.errors import invalid_argument, is_number
from keras_l0.export import check
from keras_l0.export.convert import computing_in_float32, dense_file, require_tensorflow
from keras_l0.export.figures import ExportReport as ExportReport
from keras_l0.export.figures import processor
from keras_l0.export.samples import Arrays, ModelInputs, read_inputs, unique
from keras_l0.export.sparse import SparseTensor, named_file, sparse_file
from keras_l0.files import check_target, replacing
from keras_l0.pruning.targets import check_built
from keras_l0.versions import versions

# A sparse file computes with the dense one's very weights, and differs at most by the order
# of additions. Weights read wrong can hide below a tolerance that is meant for rounding.
_SAME_WEIGHTS_TOLERANCE = 1e-4
_TOLERANCES = {None: 1e-3, "float16": 1e-2}


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    quantize: str | None = None,
    check_data: Any = None,
    tolerance: float | None = None,
) -> ExportReport:
    r"""Writes ``model`` as a ``.tflite`` file, its zeros left out, after running it.

    Each constant is stored in sparse form where that makes the file smaller, and
    ``DENSIFY`` operators make it dense again when the file is loaded: a smaller file, not
    less memory or time. The file is run by the default LiteRT interpreter, which is held
    against the model's own outputs :math:`y`:

    .. math:: \max |y - \hat y| \; / \; \max |y| \le \text{tolerance}

    for each output.

    A sparse file that runs wrong is replaced by the dense one if that is right. The
    file takes one sample at a time, as on a device, unless the model's batch size is
    fixed. A mixed-precision model is taken, and compared, as computing in float32.
    Works on every Keras backend; off TensorFlow the model is saved and converted by
    another process.

    Args:
        model: a built model of any kind.
        path: the file to write, in an existing folder. An older one is replaced at the
            end, or left as it is.
        quantize: ``None`` for float32 weights, ``"float16"`` for weights of 16 bits that
            are computed with in float32.
        check_data: samples to compare on, in any form that ``fit`` takes, ``y`` ignored;
            the first 256 are run. ``None`` for 16 random ones with a fixed seed. A
            subclassed model needs it, since it does not tell its input shapes.
        tolerance: the largest deviation allowed, positive. ``None`` for 1e-3, or 1e-2
            with ``"float16"``.

    Returns:
        The file's figures beside those of the dense file.

    Raises:
        ValueError: if an argument is wrong, or a weight is NaN or infinite.
        ImportError: if TensorFlow or LiteRT is not installed.
        RuntimeError: if the model cannot be converted, or the file does not run or
            deviates too much.

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
    limit = _TOLERANCES[quantize] if tolerance is None else float(tolerance)
    inputs, batches = read_inputs(model, check_data)
    # The path is checked before the work, and nothing is left there if the work fails.
    with replacing(path) as temporary:
        with computing_in_float32(model) as was_mixed:
            outputs, expected = _keras_outputs(model, inputs, batches)
            converted = dense_file(model, inputs, quantize)
        dense = named_file(converted, inputs.names, outputs)
        content, deviation, tensors, notes = _proven(
            dense, inputs, outputs, batches, expected, limit
        )
        if was_mixed:
            notes += ("The model's mixed precision is for training; the file computes in float32.",)
        turns, dense_turns = check.latencies([content, dense], inputs.names, batches[0])
        temporary.write_bytes(content)
    return ExportReport(
        path=os.fspath(path),
        quantize=quantize,
        bytes=len(content),
        gzip_bytes=len(zlib.compress(content, 9)),
        dense_bytes=len(dense),
        dense_gzip_bytes=len(zlib.compress(dense, 9)),
        latency_ms=median(turns),
        dense_latency_ms=median(dense_turns),
        latency_ratio=median(a / b for a, b in zip(turns, dense_turns, strict=True)),
        deviation=deviation,
        tolerance=limit,
        checked_samples=len(batches) * inputs.batch,
        sparse=tuple(tensors),
        notes=notes,
        versions=versions(),
        processor=processor(),
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
    if not (quantize is None or quantize == "float16"):
        raise invalid_argument("quantize", 'None or "float16"', quantize)
    require_tensorflow()


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


def _proven(
    dense: bytes,
    inputs: ModelInputs,
    outputs: tuple[str, ...],
    batches: list[Arrays],
    expected: list[Arrays],
    tolerance: float,
) -> tuple[bytes, float, list[SparseTensor], tuple[str, ...]]:
    """The sparse file if it is smaller and right, else the dense one if that is right."""

    def run(content: bytes) -> list[Arrays] | str:
        try:
            return check.run(content, inputs.names, outputs, batches)
        except (RuntimeError, ValueError) as error:
            return f"the default interpreter does not run it: {error}"

    def fault(received: list[Arrays] | str, wanted: list[Arrays], limit: float, what: str) -> str:
        if isinstance(received, str):
            return received
        deviation = check.deviation(wanted, received)
        if deviation <= limit:
            return ""
        return f"its outputs deviate from {what}. Deviation {deviation:.3g}, tolerance {limit:.3g}."

    from_dense = run(dense)
    if reason := fault(from_dense, expected, tolerance, "the Keras model's"):
        raise RuntimeError(f"The exported file was refused, and not written: {reason}")
    assert not isinstance(from_dense, str)
    sparse, tensors = sparse_file(dense)
    notes: tuple[str, ...] = ()
    if len(sparse) < len(dense):
        from_sparse = run(sparse)
        reason = fault(from_sparse, expected, tolerance, "the Keras model's") or fault(
            from_sparse, from_dense, _SAME_WEIGHTS_TOLERANCE, "the dense file's"
        )
        if not reason:
            assert not isinstance(from_sparse, str)
            return sparse, check.deviation(expected, from_sparse), tensors, ()
        notes = (f"The sparse file was refused and the dense one kept: {reason}",)
    return dense, check.deviation(expected, from_dense), [], notes
