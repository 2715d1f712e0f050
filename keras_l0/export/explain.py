"""Layer by layer: do its zeros make the file smaller, do they make it faster, and if not, why?"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_l0.errors import invalid_argument
from keras_l0.export import flatfile
from keras_l0.export.clusters import sparse_convolutions
from keras_l0.export.convert import computing_in_float32, dense_files, require_tensorflow
from keras_l0.export.cost import PROCESSORS, pays_from
from keras_l0.export.encodings import encode
from keras_l0.export.runtime import BLOCK_SIZE, BLOCKS, ROWS
from keras_l0.export.samples import read_inputs
from keras_l0.export.sparse import sparse_file
from keras_l0.models import check_built, check_finite

_LAYERS = {
    "FULLY_CONNECTED": "fully connected",
    "CONV_2D": "convolution",
    "DEPTHWISE_CONV_2D": "depthwise convolution",
    "TRANSPOSE_CONV": "transposed convolution",
    "CONV_3D": "3-D convolution",
    "BATCH_MATMUL": "matrix product",
    "GATHER": "embedding",
}
_ENCODED = ("float32", "float16", "int8")


@dataclass(frozen=True)
class LayerSparsity:
    """What one layer's zeros bring.

    Attributes:
        name: of its weights in the file.
        layer: what it is, such as ``"fully connected"``.
        sparsity: zeros over all its weights.
        bytes: of its weights in the file.
        dense_bytes: of its weights if all were stored.
        faster: whether the runtime's kernels make use of the zeros: ``"yes"``, ``"no"``, or on
            which processor; by its sources and by instructions counted under emulation. What
            is said of ARM cannot be measured on x86 with AVX.
        reason: why, and what the user can do.
    """

    name: str
    layer: str
    sparsity: float
    bytes: int
    dense_bytes: int
    faster: str
    reason: str

    @property
    def smaller(self) -> bool:
        """Whether the zeros make the file smaller."""
        return self.bytes < self.dense_bytes


@dataclass(frozen=True)
class SparsityReport:
    """What each layer's zeros bring; ``print`` shows one line for each."""

    layers: tuple[LayerSparsity, ...]

    def __str__(self) -> str:
        return "\n".join(
            f"{one.name} ({one.layer}): {one.sparsity:.1%} zeros, {one.bytes:,} of "
            f"{one.dense_bytes:,} bytes, faster: {one.faster}; {one.reason}"
            for one in self.layers
        )


def explain_sparsity(model_or_file: keras.Model | str | os.PathLike[str]) -> SparsityReport:
    """Tells layer by layer what zeros bring on LiteRT, and what stands in the way.

    Args:
        model_or_file: a built Keras model, which is looked at as ``export_tflite`` would write
            it in float32 for size, before it takes apart what would go wrong on ARM; or a
            ``.tflite`` file.

    Returns:
        A line for each layer with weights.

    Raises:
        ValueError: if the model is not built or a file is none of TFLite's.
        ImportError: if LiteRT, or for a model TensorFlow, is not installed.
        RuntimeError: if the model cannot be converted.

    Example:

    >>> from keras_l0 import explain_sparsity, prune
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    >>> _ = prune(model, 0.9)
    >>> explain_sparsity(model).layers[0].smaller
    True

    Source: XNNPACK's ``src/subgraph.c`` and ``src/configs/spmm-config.c`` and LiteRT's
    ``tflite/kernels/fully_connected.cc`` for what has sparse kernels.
    """
    require_tensorflow()
    if isinstance(model_or_file, keras.Model):
        return _explain_file(_converted(model_or_file))
    expected = "a built Keras model or a .tflite file"
    if not isinstance(model_or_file, str | os.PathLike):
        raise invalid_argument("model_or_file", expected, model_or_file)
    try:
        return _explain_file(Path(model_or_file).read_bytes())
    except Exception as error:  # of many kinds, where bytes are missing or wrong
        raise invalid_argument(
            "model_or_file",
            expected,
            str(model_or_file),
            f"The file is damaged or no such: {error}",
        ) from error


def _converted(model: keras.Model) -> bytes:
    check_built(model)
    check_finite(model)
    if not getattr(model, "inputs", None):
        raise invalid_argument(
            "model_or_file",
            "a model that tells its input shapes, or a .tflite file",
            model.name,
            "Export it with check_data, and give the file",
        )
    inputs, _ = read_inputs(model, None)
    with computing_in_float32(model):
        dense = dense_files(model, inputs, ["float32"])["float32"]
    if isinstance(dense, str):
        raise RuntimeError(dense)
    return sparse_file(dense)[0]


def _explain_file(content: bytes) -> SparsityReport:
    if not flatfile.is_flatbuffer(content):
        raise ValueError("it does not begin as a TFLite file does")
    model = flatfile.read(content)
    found = []
    for graph in model.subgraphs:
        sparse = sparse_convolutions(model, graph)
        for op in graph.operators:
            name = flatfile.operator_name(model, op)
            if name not in _LAYERS:
                continue
            place = 0 if name == "GATHER" else 1
            tensor = flatfile.constant_behind(model, graph, int(op.inputs[place]))
            if tensor is not None:
                found.append(_explain(model, graph, op, name, tensor, sparse))
    return SparsityReport(tuple(found))


def _explain(
    model: Any, graph: Any, op: Any, name: str, tensor: Any, sparse: Mapping[int, str]
) -> LayerSparsity:
    size = math.prod(int(n) for n in tensor.shape)
    stored = flatfile.stored_values(model, tensor)
    if flatfile.type_name(tensor) and stored.size != _stored_size(tensor):
        raise ValueError(f"{stored.size} values are stored of a tensor of shape {tensor.shape}")
    sparsity = 1 - int(np.count_nonzero(stored)) / size
    dense_bytes = size * stored.itemsize
    bytes_now = flatfile.sparse_bytes(model, tensor)
    faster, reason = "no", "no zeros"
    if sparsity and name == "FULLY_CONNECTED":
        faster, reason = _fully_connected_speed(graph, op, tensor, sparsity)
    elif sparsity:
        faster, reason = _convolution_speed(graph, op, name, sparse)
    if bytes_now >= dense_bytes and sparsity > 0:
        reason = f"{_why_not_smaller(model, tensor)}; {reason}"
    return LayerSparsity(
        # Fused layers' names stand one after the other; the last part is an operator's.
        name=(tensor.name or b"").decode().partition(";")[0].rpartition("/")[0] or "(no name)",
        layer=_LAYERS[name],
        sparsity=sparsity,
        bytes=bytes_now,
        dense_bytes=dense_bytes,
        faster=faster,
        reason=reason,
    )


def _stored_size(tensor: Any) -> int:
    """How many values are stored by the tensor's shape and, of a sparse one, by its tables."""
    sizes = [int(n) for n in tensor.shape]
    if tensor.sparsity is None:
        return math.prod(sizes)
    dense = [int(level.denseSize) for level in tensor.sparsity.dimMetadata]
    # A sparse level need not tell its size, and blocks have a level more.
    if all(dense) and math.prod(dense) != math.prod(sizes):
        raise ValueError(f"its levels are {dense} of a tensor of shape {sizes}")
    nodes = 1
    for level in tensor.sparsity.dimMetadata:
        if level.arraySegments is None:
            nodes *= int(level.denseSize)
            continue
        segments = np.asarray(level.arraySegments.values, np.int64)
        places = np.asarray(level.arrayIndices.values, np.int64)
        ends = (0, len(places))
        if len(segments) != nodes + 1 or (segments[0], segments[-1]) != ends:
            raise ValueError(f"{len(segments)} segments of {len(places)} indices at {nodes} nodes")
        if (np.diff(segments) < 0).any() or not (places >= 0).all():
            raise ValueError("its segments or indices run backwards")
        if level.denseSize and not (places < level.denseSize).all():
            raise ValueError("an index is outside")
        nodes = len(places)
    return nodes


def _why_not_smaller(model: Any, tensor: Any) -> str:
    if tensor.sparsity is not None:
        return "stored so that zeros take as much"
    if flatfile.type_name(tensor) not in _ENCODED:
        return "of a type that is not stored sparse"
    array = flatfile.values(model, tensor)
    needed = encode(array).nbytes
    if needed < array.nbytes:
        return (
            f"stored dense ({needed:,} bytes would do, and a sparse tensor's tables, "
            "where the runtime takes them: export_tflite)"
        )
    return f"too few zeros: stored sparse it would take {needed:,} bytes"


def _convolution_speed(
    graph: Any, op: Any, name: str, sparse: Mapping[int, str]
) -> tuple[str, str]:
    filters = [int(n) for n in graph.tensors[op.inputs[1]].shape]
    if name != "CONV_2D" or filters[1:3] != [1, 1]:
        return "no", f"no sparse kernels for a {_LAYERS[name]}: prune filters instead"
    if flatfile.type_name(graph.tensors[op.outputs[0]]) != "float32":
        return "no", "sparse kernels of convolutions are float32's: remove filters"
    if id(op) not in sparse:
        return "no", (
            "no cluster of sparse convolutions begins before it: that takes a 3x3 convolution of "
            "stride 2 over 3 channels behind ZeroPadding2D(1), then 1x1 and depthwise ones only, "
            "up to a global average"
        )
    if sparse[id(op)]:
        return "no", sparse[id(op)]
    return "ARM", "in a whole cluster: XNNPACK's sparse kernels (off on x86 with AVX)"


def _fully_connected_speed(graph: Any, op: Any, tensor: Any, sparsity: float) -> tuple[str, str]:
    x, weights = graph.tensors[op.inputs[0]], graph.tensors[op.inputs[1]]
    kind = flatfile.type_name(weights)
    if kind == "int8" and flatfile.type_name(x) == "float32":
        kind = "int8 in float32"
    size, inputs = BLOCK_SIZE[flatfile.type_name(weights)], int(weights.shape[1])
    limits = {
        form: {processor: pays_from(processor, kind, form, inputs) for processor in PROCESSORS}
        for form in (ROWS, BLOCKS)
    }
    pays = "; ".join(
        f"zeros{f' in blocks of {size} inputs' * (form == BLOCKS)} make it faster from "
        + ", ".join(f"{limit:.0%} on {name}" for name, limit in of_form.items() if limit < 1)
        for form, of_form in limits.items()
        if min(of_form.values()) < 1
    )
    if weights.sparsity is None:
        how = "dense weights" if tensor.sparsity is None else "made dense when loaded"
        advice = f": GlobalPrune(block=({size}, 1)) and optimize_for='latency'"
        return "no", f"{how}; {pays + advice if pays else 'zeros cannot make it faster'}"
    form = BLOCKS if len(weights.sparsity.dimMetadata) > 2 else ROWS
    faster = [name for name, limit in limits[form].items() if sparsity > limit]
    how = f"computed with as {'blocks' if form == BLOCKS else 'single weights'}"
    verdict = "yes" if len(faster) == len(PROCESSORS) else " ".join(faster) or "no"
    return verdict, f"{how}; {pays or 'zeros cannot make it faster'}"
