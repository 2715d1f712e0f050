"""From a Keras model to a dense TFLite file, in this process or in one of TensorFlow's.

Run as a program, ``python -m keras_l0.export.convert MODEL INPUTS OUT QUANTIZE``, this
converts a saved model on the TensorFlow backend for a parent that runs on another one.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras

from keras_l0.export.samples import ModelInputs

_UNKNOWN_CLASS = 3
_NOT_CONVERTED = 4
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


def dense_file(model: keras.Model, inputs: ModelInputs, quantize: str | None) -> bytes:
    """Converts ``model`` with dense weights.

    The batch is fixed (to 1, unless the model fixes another): the file is smaller and
    faster than with an open one, and recurrent layers convert only so.

    Args:
        model: a built model, on any backend.
        inputs: its inputs.
        quantize: ``None`` for float32 weights, ``"float16"`` for 16-bit ones.

    Returns:
        The file, its signature's names in the alphabetical order of the model's inputs
        and outputs.

    Raises:
        RuntimeError: if TFLite's own operators cannot express the model, or another
            process cannot load it.
    """
    if keras.config.backend() == "tensorflow":
        return _convert(model, inputs, quantize)
    with tempfile.TemporaryDirectory() as folder:
        saved, described, out = (Path(folder, name) for name in ("m.keras", "in.json", "out"))
        model.save(saved)
        described.write_text(json.dumps(asdict(inputs)))
        package_parent = str(Path(__file__).parents[2])
        child = subprocess.run(
            [sys.executable, "-m", __name__, saved, described, out, quantize or "float32"],
            env={
                **os.environ,
                "KERAS_BACKEND": "tensorflow",
                "PYTHONPATH": os.pathsep.join(
                    filter(None, [package_parent, os.environ.get("PYTHONPATH")])
                ),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if child.returncode == 0:
            return out.read_bytes()
    reason = child.stderr.strip().rpartition(_REASON)[2].strip()
    if child.returncode == _UNKNOWN_CLASS:
        raise RuntimeError(
            "The model was saved to be converted by TensorFlow in a process of its own, and "
            f"cannot be loaded there: {reason}\nA class or function of your own is "
            "not known there: save the model, and export it on the TensorFlow backend "
            "(KERAS_BACKEND=tensorflow)."
        )
    raise RuntimeError(reason if child.returncode == _NOT_CONVERTED else child.stderr.strip())


def _convert(model: keras.Model, inputs: ModelInputs, quantize: str | None) -> bytes:
    import tensorflow as tf

    def serve(*tensors: Any) -> dict[str, Any]:
        outputs = keras.tree.flatten(model(inputs.pack(list(tensors)), training=False))
        # Named so that the alphabetical order, in which they come back, is the model's.
        return {f"output_{i:04}": output for i, output in enumerate(outputs)}

    specs = [
        tf.TensorSpec((inputs.batch, *shape[1:]), dtype, name=f"input_{i:04}")
        for i, (shape, dtype) in enumerate(zip(inputs.shapes, inputs.dtypes, strict=True))
    ]
    owner = tf.Module()
    owner.held = [variable.value for variable in model.variables]
    owner.serve = tf.function(serve)
    try:
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [owner.serve.get_concrete_function(*specs)], owner
        )
        # Weights as constants, which alone can be made sparse.
        converter.experimental_enable_resource_variables = False
        if quantize == "float16":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        with _without_notices():
            return bytes(converter.convert())
    except Exception as error:
        raise RuntimeError(
            f"The model cannot be converted to TFLite's own operators: {error}"
        ) from error


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
    """TensorFlow tells of a temporary folder that is gone again when it is read."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _main(saved: str, described: str, out: str, quantize: str) -> int:
    fields = json.loads(Path(described).read_text())
    inputs = ModelInputs(
        names=tuple(fields["names"]),
        shapes=tuple(map(tuple, fields["shapes"])),
        dtypes=tuple(fields["dtypes"]),
        structure=fields["structure"],
    )
    try:
        model = keras.saving.load_model(saved, compile=False)
    except Exception as error:
        print(f"{_REASON}{error}", file=sys.stderr)
        return _UNKNOWN_CLASS
    try:
        content = _convert(model, inputs, None if quantize == "float32" else quantize)
    except RuntimeError as error:
        print(f"{_REASON}{error}", file=sys.stderr)
        return _NOT_CONVERTED
    Path(out).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
