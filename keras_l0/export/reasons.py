"""Why a model cannot be converted, in the names that it has in the model."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_l0.export.tracing import owners
from keras_l0.text import first_line, listed

_OPERATIONS = Path(inspect.getfile(keras.Operation)).parent


def reason(error: str, function: Any, marked: list[Any], model: keras.Model) -> str:
    """Why there is no file, with the layers and operations that are in the way.

    Args:
        error: what TensorFlow's converter said.
        function: a concrete function of the model, traced in ``marked_calls``.
        marked: what ``marked_calls`` gave.
        model: the model.
    """
    if re.search(r"'tf\.TensorList\w+' op requires element_shape to be static", error):
        inside = [
            found
            for node in nodes(function)
            if node.op.startswith("TensorList")
            for found in owners(node.name, marked)
            if isinstance(found, keras.layers.TimeDistributed)
        ]
        if inside:
            return (
                f"TFLite has no loop for what is inside {listed(_named(inside))}, a "
                "TimeDistributed with an unknown number of steps. Fix that number in the model, "
                "keras.Input((steps, ...)), or give a recurrent layer inside unroll=True."
            )
    kinds = set(re.findall(r"'tf\.(\w+)' op is neither", error))
    kinds = (kinds - {"Placeholder"}) or kinds  # tables that other operations read
    quantized = [
        one
        for one in model._flatten_layers()
        if getattr(one, "quantization_mode", None) is not None
    ]
    if quantized:
        return (
            f"TFLite cannot express {listed(_named(quantized))}, quantized by Keras. Export the "
            'model as it was before `quantize`, with quantize="int8" or "dynamic" of '
            f"export_tflite. The converter says: {first_line(error)}"
        )
    if not kinds:
        return f"The model cannot be converted to TFLite's own operators: {first_line(error)}"
    described = []
    for kind in sorted(kinds):
        names = list(dict.fromkeys(_users(kind, function, marked)))
        described.append(f"{kind}, which {listed(names)} needs" if names else kind)
    dtypes = sorted({v.dtype for v in model.variables if "float" in v.dtype} - {"float32"})
    advice = (
        f"Its weights are {', '.join(dtypes)}, and TFLite computes in float32: build the model "
        'with dtype="float32" and set its weights.'
        if dtypes
        else "Replace it by other operations, or export the part of the model in front of it or "
        "behind it, keras.Model(inputs, outputs), and compute it outside of the file."
    )
    return f"TFLite has no operator for {'; '.join(described)}. {advice}"


def nodes(function: Any) -> list[Any]:
    """The nodes of a concrete function, with those of the functions that it calls."""
    definition = function.graph.as_graph_def()
    return [*definition.node, *(n for f in definition.library.function for n in f.node_def)]


def _users(kind: str, function: Any, marked: list[Any]) -> Iterator[str]:
    calls = {op.name: _call_of_keras(op) for op in function.graph.get_operations()}
    for node in nodes(function):
        if node.op == kind:
            for name in _named(owners(node.name, marked)[-1:]):
                call = calls.get(node.name) if name.startswith("the layer") else None
                yield f"{name} ({call})" if call else name


def _named(found: list[Any]) -> list[str]:
    kinds = ["layer" if isinstance(one, keras.Layer) else "operation" for one in found]
    names = [f"the {kind} {one.name}" for kind, one in zip(kinds, found, strict=True)]
    return list(dict.fromkeys(names))


def _call_of_keras(operation: Any) -> str | None:
    """The function of ``keras.ops`` that made an operation of TensorFlow."""
    for frame in reversed(operation.traceback or []):
        if Path(frame.filename).parent == _OPERATIONS and hasattr(keras.ops, frame.name):
            return f"keras.ops.{frame.name}"
    return None
