"""From a Keras model to a dense TFLite file, in this process or in one of TensorFlow's.

Run as a program, ``python -m keras_l0.export.convert FOLDER …``, this converts the model saved
in each folder on the TensorFlow backend, for a parent that runs on another one.
"""

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_l0.export.flatfile import renamed
from keras_l0.export.own_objects import imported, places_of
from keras_l0.export.reasons import nodes, reason
from keras_l0.export.samples import Arrays, ModelInputs
from keras_l0.export.tracing import convertible_calls, marked_calls

PER_TENSOR = "-per-tensor"
"""After the name of a setting: one scale for each tensor, where a channel's own costs 12 bytes."""

_NOT_LOADED = 3
_MODEL, _TASK, _CALIBRATION, _REASONS = "m.keras", "task.json", "calibration.npz", "reasons.json"
# Before the reason, among whatever else the other process prints.
_REASON = "keras_l0 could not convert: "


def require_tensorflow() -> None:
    """Raises ``ImportError`` if what converts or what runs TFLite files is missing."""
    for module in ("tensorflow", "ai_edge_litert"):
        if find_spec(module) is None:
            raise ImportError(
                f"Exporting to TFLite needs {module}. "
                "Install it with `pip install keras_l0[tensorflow]`."
            )


@contextlib.contextmanager
def computing_in_float32(model: keras.Model) -> Iterator[bool]:
    """Gives mixed-precision layers a float32 policy, and theirs back at the end.

    TFLite's operators compute in float32; the half-precision operators that a mixed
    policy would ask for do not exist there. Yields whether any layer was changed.
    """
    mixed = [
        (layer, layer.dtype_policy)
        for layer in model._flatten_layers()
        if layer.compute_dtype != layer.variable_dtype and layer.variable_dtype == "float32"
    ]
    try:
        for layer, _ in mixed:
            layer.dtype_policy = "float32"
        yield bool(mixed)
    finally:
        for layer, policy in mixed:
            layer.dtype_policy = policy


def dense_files(
    model: keras.Model,
    inputs: ModelInputs,
    settings: Sequence[str],
    calibration: list[Arrays] | None = None,
) -> dict[str, bytes | str]:
    """Converts ``model`` with dense weights, once for each setting.

    The batch is fixed (to 1, unless the model fixes another): the file is smaller and
    faster than with an open one, and recurrent layers convert only so.

    Args:
        model: a built model, on any backend.
        inputs: its inputs.
        settings: of "float32", "float16", "dynamic" and "int8", the last two also with
            ``PER_TENSOR`` behind.
        calibration: for ``int8``: batches with an array for each input.

    Returns:
        For each setting the file, its signature's names in the alphabetical order of the
        model's inputs and outputs; or why TFLite's own operators cannot express the model.

    Raises:
        ValueError: if another process cannot import a class or function in the model.
        RuntimeError: if another process cannot load the model.
    """
    return convert_all([(model, settings)], inputs, calibration)[0]


def convert_all(
    jobs: Sequence[tuple[keras.Model, Sequence[str]]],
    inputs: ModelInputs,
    calibration: list[Arrays] | None = None,
) -> list[dict[str, bytes | str]]:
    """As ``dense_files``, for several models of the same inputs, each with its settings."""
    if keras.config.backend() == "tensorflow":
        return [_convert(model, inputs, settings, calibration) for model, settings in jobs]
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(place) for place in range(len(jobs))]
        for folder, (model, settings) in zip(folders, jobs, strict=True):
            folder.mkdir()
            model.save(folder / _MODEL)
            own = places_of(folder / _MODEL, model.name)
            task = {**asdict(inputs), "settings": list(settings), "own": own}
            (folder / _TASK).write_text(json.dumps(task))
        if calibration is not None:
            np.savez(Path(name) / _CALIBRATION, **_numbered(calibration))
        child = subprocess.run(
            [sys.executable, "-m", __name__, *map(str, folders)],
            env={
                **os.environ,
                "KERAS_BACKEND": "tensorflow",
                # What can be imported here can be imported there.
                "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if child.returncode == 0:
            return [
                _read_back(folder, settings)
                for folder, (_, settings) in zip(folders, jobs, strict=True)
            ]
    reason = child.stderr.strip().rpartition(_REASON)[2].strip()
    if child.returncode == _NOT_LOADED:
        raise RuntimeError(
            "The model was saved to be converted by TensorFlow in a process of its own, and "
            f"cannot be loaded there: {reason[:300]}\nSave it, and export it on the TensorFlow "
            "backend (KERAS_BACKEND=tensorflow)."
        )
    raise RuntimeError(f"TensorFlow's process failed: {child.stderr.strip()[-500:]}")


def _read_back(folder: Path, settings: Sequence[str]) -> dict[str, bytes | str]:
    reasons = json.loads((folder / _REASONS).read_text())
    return {
        setting: reasons.get(setting) or (folder / f"{setting}.tflite").read_bytes()
        for setting in settings
    }


def _numbered(batches: list[Arrays]) -> dict[str, Any]:
    return {f"{b}:{i}": array for b, batch in enumerate(batches) for i, array in enumerate(batch)}


def _convert(
    model: keras.Model,
    inputs: ModelInputs,
    settings: Sequence[str],
    calibration: list[Arrays] | None,
) -> dict[str, bytes | str]:
    owner = serving(model, inputs, [variable.value for variable in model.variables])
    found: dict[str, bytes | str] = {}
    for setting in settings:
        with convertible_calls(model):
            function = owner.serve.get_concrete_function(*signature(inputs))
        try:
            content = convert_as(setting, function, owner, calibration)
        except Exception as error:  # the converter's are of many kinds
            found[setting] = _reason(str(error), model, inputs)
        else:
            found[setting] = renamed(content, _layers_of_scopes(function, model))
    return found


def _layers_of_scopes(function: Any, model: keras.Model) -> dict[str, str]:
    """For each name scope that reads a weight, the path of the weight's layer.

    Scopes are numbered anew at each tracing, so that ``dense_1`` may be that of ``dense``.
    """
    paths = {id(variable.value.handle): variable.path for variable in model.variables}
    found = {}
    for outer, inner in function.graph.captures:
        owner = paths.get(id(outer), "").rpartition("/")[0]
        parts = inner.name.split("/")
        last = re.escape(owner.rpartition("/")[2])
        ends = [i for i, part in enumerate(parts, 1) if re.fullmatch(rf"{last}(_\d+)?", part)]
        if owner and ends:
            found["/".join(parts[: ends[-1]])] = owner
    return found


def _reason(error: str, model: keras.Model, inputs: ModelInputs) -> str:
    owner = serving(model, inputs, [variable.value for variable in model.variables])
    with convertible_calls(model), marked_calls(model) as marked:
        function = owner.serve.get_concrete_function(*signature(inputs))
    return reason(error, function, marked, model)


def serving(model: Any, inputs: ModelInputs, held: Sequence[Any]) -> Any:
    """A module whose function ``serve`` computes a model's outputs for one batch of a file's.

    Args:
        model: of either Keras.
        inputs: its inputs.
        held: its variables, as TensorFlow has them.
    """
    import tensorflow as tf

    def serve(*tensors: Any) -> dict[str, Any]:
        outputs = keras.tree.flatten(model(inputs.pack(list(tensors)), training=False))
        # Named so that the alphabetical order, in which they come back, is the model's.
        return {f"output_{i:04}": output for i, output in enumerate(outputs)}

    owner = tf.Module()
    owner.held = held
    owner.serve = tf.function(serve)
    return owner


def signature(inputs: ModelInputs) -> list[Any]:
    """What a function takes that becomes a file, named in the order of the model's inputs."""
    import tensorflow as tf

    return [
        tf.TensorSpec((inputs.batch, *shape[1:]), dtype, name=f"input_{i:04}")
        for i, (shape, dtype) in enumerate(zip(inputs.shapes, inputs.dtypes, strict=True))
    ]


def convert_as(
    setting: str, function: Any, owner: Any, calibration: list[Arrays] | None = None
) -> bytes:
    """The file of a concrete function of TensorFlow, by one of the settings of ``dense_files``."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], owner)
    # Weights as constants, which alone can be made sparse.
    converter.experimental_enable_resource_variables = False
    if setting != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if setting == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if setting.endswith(PER_TENSOR):
        converter._experimental_disable_per_channel = True
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    if setting.startswith("int8"):
        assert calibration is not None, "int8 is asked for with calibration data"
        if has_loop(function):
            raise RuntimeError(
                "TensorFlow's calibration for int8 crashes on loops, which recurrent layers are "
                "made of. Give them unroll=True, or choose another `quantize`."
            )
        # By name: the converter has an order of its own.
        converter.representative_dataset = lambda: (
            {f"input_{i:04}": array for i, array in enumerate(batch)} for batch in calibration
        )
        # Where an operator has no int8 form it computes in float32.
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
            tf.lite.OpsSet.TFLITE_BUILTINS,
        ]
    with _without_notices():
        return bytes(converter.convert())


def has_loop(function: Any) -> bool:
    """Whether a concrete function repeats a part of itself, as recurrent layers do."""
    return any(node.op in ("While", "StatelessWhile") for node in nodes(function))


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
    """TensorFlow tells of a temporary folder that is gone again when it is read.

    And that an interpreter is deprecated, with which it runs the calibration itself.
    """
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated")
            yield
    finally:
        logger.setLevel(level)


def _main(*names: str) -> int:
    return max(_convert_in(Path(name)) for name in names)


def _convert_in(folder: Path) -> int:
    fields = json.loads((folder / _TASK).read_text())
    inputs = ModelInputs(
        names=tuple(fields["names"]),
        shapes=tuple(map(tuple, fields["shapes"])),
        dtypes=tuple(fields["dtypes"]),
        structure=fields["structure"],
    )
    try:
        own = imported(fields["own"])
        model = keras.saving.load_model(folder / _MODEL, custom_objects=own, compile=False)
    except Exception as error:
        print(f"{_REASON}{error}", file=sys.stderr)
        return _NOT_LOADED
    calibration = None
    if (folder.parent / _CALIBRATION).is_file():
        with np.load(folder.parent / _CALIBRATION) as arrays:
            count = len(arrays.files) // len(inputs.names)
            calibration = [
                [arrays[f"{b}:{i}"] for i in range(len(inputs.names))] for b in range(count)
            ]
    found = _convert(model, inputs, fields["settings"], calibration)
    reasons = {setting: result for setting, result in found.items() if isinstance(result, str)}
    (folder / _REASONS).write_text(json.dumps(reasons))
    for setting, result in found.items():
        if isinstance(result, bytes):
            (folder / f"{setting}.tflite").write_bytes(result)
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
