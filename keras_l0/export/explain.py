"""Layer by layer: do its zeros make the file smaller, do they make it faster, and if not, why?"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_l0.errors import invalid_argument
from keras_l0.export import flatfile
from keras_l0.export.clusters import SPARSE_FROM, cluster, entries
from keras_l0.export.convert import computing_in_float32, dense_files, require_tensorflow
from keras_l0.export.encodings import encode
from keras_l0.export.runtime import BLOCKS, ROWS
from keras_l0.export.samples import read_inputs
from keras_l0.export.sparse import RELATIVE_COST, sparse_file
from keras_l0.pruning.targets import check_built

_LAYERS = {
    "FULLY_CONNECTED": "fully connected",
    "CONV_2D": "convolution",
    "DEPTHWISE_CONV_2D": "depthwise convolution",
    "TRANSPOSE_CONV": "transposed convolution",
    "CONV_3D": "3-D convolution",
    "BATCH_MATMUL": "matrix product",
    "GATHER": "embedding",
}
_WIDTHS = {"float32": 4, "float16": 2, "int8": 1}


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
            it in float32 for size; or a ``.tflite`` file.

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
    model = flatfile.read(_content(model_or_file))
    found = []
    for graph in model.subgraphs:
        inside = _insides(model, graph)
        for op in graph.operators:
            name = flatfile.operator_name(model, op)
            if name not in _LAYERS:
                continue
            place = 0 if name == "GATHER" else 1
            source = _constant(model, graph, int(op.inputs[place]))
            if source is not None:
                found.append(_explain(model, graph, op, name, source, inside))
    return SparsityReport(tuple(found))


def _content(model_or_file: Any) -> bytes:
    if isinstance(model_or_file, keras.Model):
        check_built(model_or_file)
        inputs, _ = read_inputs(model_or_file, None)
        with computing_in_float32(model_or_file):
            dense = dense_files(model_or_file, inputs, ["float32"])["float32"]
        if isinstance(dense, str):
            raise RuntimeError(dense)
        return sparse_file(dense)[0]
    expected = "a built Keras model or a .tflite file"
    if not isinstance(model_or_file, str | os.PathLike) or not Path(model_or_file).is_file():
        raise invalid_argument("model_or_file", expected, model_or_file)
    content = Path(model_or_file).read_bytes()
    if not flatfile.is_flatbuffer(content):
        raise invalid_argument("model_or_file", expected, str(model_or_file))
    return content


def _constant(model: Any, graph: Any, tensor: int) -> int | None:
    """The constant that a tensor is or is made of by DENSIFY and DEQUANTIZE."""
    while not flatfile.has_data(model, graph.tensors[tensor]):
        makers = [op for op in graph.operators if tensor in op.outputs]
        if len(makers) != 1 or flatfile.operator_name(model, makers[0]) not in (
            "DENSIFY",
            "DEQUANTIZE",
        ):
            return None
        tensor = int(makers[0].inputs[0])
    return tensor


def _explain(
    model: Any, graph: Any, op: Any, name: str, source: int, inside: dict[int, str]
) -> LayerSparsity:
    from ai_edge_litert import schema_py_generated as schema

    tensor = graph.tensors[source]
    kinds = schema.TensorType
    kind = {kinds.FLOAT32: "float32", kinds.FLOAT16: "float16", kinds.INT8: "int8"}.get(
        tensor.type, ""
    )
    values = flatfile.stored_values(model, tensor)
    size = math.prod(int(n) for n in tensor.shape)
    sparsity = 1 - int(np.count_nonzero(values)) / size
    dense_bytes = size * _WIDTHS.get(kind, 1)
    bytes_now = flatfile.sparse_bytes(model, tensor)
    faster, reason = _speed(graph, op, name, kind, tensor, sparsity, inside)
    if bytes_now >= dense_bytes and sparsity > 0:
        reason = f"{_why_not_smaller(model, tensor, kind)}; {reason}"
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


def _why_not_smaller(model: Any, tensor: Any, kind: str) -> str:
    if kind not in _WIDTHS or tensor.sparsity is not None:
        return "stored so that zeros take as much"
    array = flatfile.values(model, tensor)
    needed = encode(array).nbytes
    if needed < array.nbytes:
        return (
            f"stored dense, though {needed:,} bytes would do: its tables or the runtime are in "
            "the way, or another tool wrote the file: export_tflite"
        )
    return f"too few zeros: stored sparse it would take {needed:,} bytes"


def _speed(
    graph: Any, op: Any, name: str, kind: str, tensor: Any, sparsity: float, inside: dict[int, str]
) -> tuple[str, str]:
    if not sparsity:
        return "no", "no zeros"
    if kind == "int8":
        return "no", "the runtime has no sparse kernels for int8: remove neurons or filters"
    if name == "FULLY_CONNECTED":
        return _fully_connected_speed(kind, tensor, sparsity)
    filters = [int(n) for n in graph.tensors[op.inputs[1]].shape]
    if name == "CONV_2D" and filters[1:3] == [1, 1]:
        reason = inside.get(id(op), "")
        if id(op) in inside and not reason:
            return "ARM", "in a whole cluster: XNNPACK's sparse kernels (off on x86 with AVX)"
        return "no", reason or (
            "no cluster of sparse convolutions begins before it: that takes a 3x3 convolution of "
            "stride 2 over 3 channels behind ZeroPadding2D(1), then 1x1 and depthwise ones only, "
            "up to a global average"
        )
    return "no", f"no sparse kernels for a {_LAYERS[name]}: remove neurons or filters"


def _fully_connected_speed(kind: str, tensor: Any, sparsity: float) -> tuple[str, str]:
    pays = {
        processor: (1 - 1 / costs[ROWS], 1 - 1 / costs[BLOCKS])
        for processor, costs in RELATIVE_COST.items()
    }
    limits = "; ".join(
        f"{name}: above {rows:.0%} of single zeros or {blocks:.0%} in blocks of 4 inputs"
        for name, (rows, blocks) in pays.items()
    )
    if kind != "float32" or tensor.sparsity is None:
        return "no", f"made dense when loaded; sparse kernels are float32's, and pay on {limits}"
    in_blocks = len(tensor.sparsity.dimMetadata) > 2
    if _is_densified(tensor):
        advice = "GlobalPrune(block=(4, 1)) and optimize_for='latency'"
        return "no", f"made dense when loaded; sparse kernels pay on {limits}: {advice}"
    faster = [name for name, limit in pays.items() if sparsity > limit[1 if in_blocks else 0]]
    form = "blocks of 4 inputs" if in_blocks else "single weights"
    reason = f"computed with as {form}; that pays on {limits}"
    return ("yes" if len(faster) == len(pays) else " ".join(faster) or "no"), reason


def _is_densified(tensor: Any) -> bool:
    """Whether the sparse form is one that only ``DENSIFY`` reads."""
    from ai_edge_litert import schema_py_generated as schema

    formats = [level.format for level in tensor.sparsity.dimMetadata]
    dense, sparse = schema.DimensionType.DENSE, schema.DimensionType.SPARSE_CSR
    in_order = list(tensor.sparsity.traversalOrder) == list(range(len(formats)))
    return not in_order or formats not in ([dense, sparse], [dense, sparse, dense])


def _insides(model: Any, graph: Any) -> dict[int, str]:
    """For each convolution behind an entry: empty, or why its cluster is not converted."""
    found: dict[int, str] = {}
    for entry in entries(model, graph):
        members, reason = cluster(model, graph, entry)
        inner = [op for op in members[1:] if flatfile.operator_name(model, op) == "CONV_2D"]
        size = kept = 0
        for op in inner:
            source = _constant(model, graph, int(op.inputs[1]))
            if source is not None:
                size += math.prod(int(n) for n in graph.tensors[source].shape)
                kept += int(np.count_nonzero(flatfile.stored_values(model, graph.tensors[source])))
        if reason:
            reason = f"its cluster of convolutions is broken: {reason}"
        elif size and 1 - kept / size <= SPARSE_FROM:
            reason = f"{1 - kept / size:.1%} zeros in its cluster: more than 2/3 are needed"
        found |= {id(op): reason for op in inner}
    return found
