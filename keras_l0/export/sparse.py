"""A dense TFLite file rewritten with its constants in sparse form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_l0.export import flatfile
from keras_l0.export.cost import DENSE, fully_connected_cost
from keras_l0.export.encodings import Encoding, Level, encode, encode_blocks, encode_rows
from keras_l0.export.runtime import (
    BLOCK_SIZE,
    BLOCKS,
    DENSIFY,
    ROWS,
    SPARSE_FULLY_CONNECTED,
    reading,
)

# A sparse form must cost less than this share of dense weights' cost, which is an estimate.
_CLEARLY_LESS = 0.8


@dataclass(frozen=True)
class SparseTensor:
    """A constant that the file holds in sparse form.

    Attributes:
        name: the tensor's name in the file.
        shape: its shape in the file, where Dense kernels are ``(out, in)``.
        zeros: how many of its values are zero.
        dense_bytes: bytes of all its values.
        encoded_bytes: bytes of values, segments and indices in sparse form.
        encoding: the order of its dimensions and which are compressed.
        form: ``"densify"``, or ``"rows"`` or ``"blocks"``, which the runtime computes with.
    """

    name: str
    shape: tuple[int, ...]
    zeros: int
    dense_bytes: int
    encoded_bytes: int
    encoding: str
    form: str


@dataclass(frozen=True)
class _Choice:
    """One way to store a constant: in a sparse form, or dense where ``encoding`` is ``None``."""

    form: str
    encoding: Encoding | None
    nbytes: int
    cost: float


def sparse_file(content: bytes, prefer: str = "size") -> tuple[bytes, list[SparseTensor]]:
    """The file with constants in the sparse form that serves best, of those the runtime takes.

    A form that the operator computes with replaces the weights where they are. Any other is
    turned by an operator ``DENSIFY`` at its graph's beginning into the dense tensor that its
    readers read; what the operator, the second tensor and the sparsity tables take is counted
    against it.

    Args:
        content: a dense TFLite file.
        prefer: ``"size"``, the fewest bytes for each constant; ``"arm"`` or ``"x86"``, the least
            estimated time on that processor where the runtime computes with a sparse form, and
            the fewest bytes elsewhere.

    Returns:
        The bytes of the new file and what became sparse in it, in the file's order.
    """
    model = flatfile.read(content)
    described = []
    for places in flatfile.weights_of(model):
        graph, tensor = places[0]
        array = flatfile.values(model, model.subgraphs[graph].tensors[tensor])
        readings = [reading(model, model.subgraphs[g], t) for g, t in places]
        forms = frozenset.intersection(*(one.forms for one in readings))
        kind = readings[0].kind if prefer != "size" and forms & {ROWS, BLOCKS} else None
        tensors = [model.subgraphs[g].tensors[t] for g, t in places]
        choices = _choices(array, tensors, forms, kind, prefer)
        best = min(choices, key=lambda choice: (choice.cost, choice.nbytes))
        if best.encoding is None:
            continue
        for g, t in places:
            described.append(_describe(model.subgraphs[g].tensors[t], array, best))
            _store(model, g, t, best)
    return flatfile.write(model), described


def _choices(
    array: NDArray[Any],
    tensors: Sequence[Any],
    forms: frozenset[str],
    kind: str | None,
    processor: str,
) -> list[_Choice]:
    """The ways to store a constant, dense first; of no ``kind`` all are taken to cost the same."""

    def cost(form: str, stored: int) -> float:
        if kind is None:
            return 0.0
        full = fully_connected_cost(processor, kind, form, array.shape[0], stored)
        return full * (_CLEARLY_LESS if form == DENSE else 1)

    choices = [_Choice("", None, array.nbytes, cost(DENSE, array.size))]
    if not forms or array.all():
        return choices
    encodings: dict[str, Encoding] = {}
    if DENSIFY in forms:
        encodings[DENSIFY] = encode(array)
    if ROWS in forms:
        encodings[ROWS] = encode_rows(array)
    if BLOCKS in forms and array.shape[1] % BLOCK_SIZE[array.dtype.name] == 0:
        encodings[BLOCKS] = encode_blocks(array, BLOCK_SIZE[array.dtype.name])
    for form, encoding in encodings.items():
        densify = form == DENSIFY
        added = sum(_added_bytes(tensor, encoding, densify) for tensor in tensors)
        choices.append(
            _Choice(
                form,
                encoding,
                encoding.values.nbytes + added,
                cost(DENSE, array.size) if densify else cost(form, encoding.values.size),
            )
        )
    return choices


def _describe(tensor: Any, array: NDArray[Any], choice: _Choice) -> SparseTensor:
    assert choice.encoding is not None, "only sparse forms are described"
    return SparseTensor(
        name=(tensor.name or b"").decode(),
        shape=array.shape,
        zeros=int((array == 0).sum()),
        dense_bytes=array.nbytes,
        encoded_bytes=choice.encoding.nbytes,
        encoding=choice.encoding.name,
        form=choice.form,
    )


def _store(model: Any, graph_index: int, tensor_index: int, choice: _Choice) -> None:
    from ai_edge_litert import schema_py_generated as schema

    assert choice.encoding is not None, "only sparse forms are stored"
    graph = model.subgraphs[graph_index]
    tensor = graph.tensors[tensor_index]
    if choice.form == DENSIFY:
        dense = flatfile.add_tensor(model, graph, tensor)
        for operator in flatfile.readers(graph, tensor_index):
            operator.inputs = [dense if t == tensor_index else t for t in operator.inputs]
        # The readers' scales are the dense tensor's.
        tensor.quantization = None
        code = schema.BuiltinOperator.DENSIFY
        graph.operators.insert(0, flatfile.operator(model, code, [tensor_index], [dense]))
    else:
        code = schema.BuiltinOperator.FULLY_CONNECTED
        for operator in flatfile.readers(graph, tensor_index):
            operator.opcodeIndex = flatfile.operator_code(model, code, SPARSE_FULLY_CONNECTED)
    tensor.sparsity = _sparsity(choice.encoding)
    model.buffers.append(schema.BufferT(data=choice.encoding.values.tobytes()))
    tensor.buffer = len(model.buffers) - 1


def _added_bytes(tensor: Any, encoding: Encoding, densify: bool) -> int:
    """Bytes of the tables, segments and indices that the sparse form adds, at most."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    tables = [_sparsity(encoding)]
    if densify:
        tables += [
            schema.TensorT(shape=tensor.shape, type=tensor.type, hasRank=tensor.hasRank),
            schema.OperatorT(inputs=[0], outputs=[0]),
        ]
    return sum(len(flatbuffer_utils.convert_object_to_bytearray(table)) for table in tables)


def _sparsity(encoding: Encoding) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.SparsityParametersT(
        traversalOrder=list(encoding.order),
        blockMap=None if encoding.block is None else [encoding.block[0]],
        dimMetadata=[_dimension(level) for level in encoding.levels],
    )


def _dimension(level: Level) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    if level.segments is None or level.indices is None:
        return schema.DimensionMetadataT(format=schema.DimensionType.DENSE, denseSize=level.size)
    return schema.DimensionMetadataT(
        format=schema.DimensionType.SPARSE_CSR,
        # Not read by the runtime for a sparse dimension, but by tools that print the file.
        denseSize=level.size,
        **_index_vector("arraySegments", level.segments),
        **_index_vector("arrayIndices", level.indices),
    )


def _index_vector(field: str, numbers: NDArray[np.integer]) -> dict[str, Any]:
    from ai_edge_litert import schema_py_generated as schema

    tables = {
        np.dtype(np.uint8): (schema.SparseIndexVector.Uint8Vector, schema.Uint8VectorT),
        np.dtype(np.uint16): (schema.SparseIndexVector.Uint16Vector, schema.Uint16VectorT),
        np.dtype(np.int32): (schema.SparseIndexVector.Int32Vector, schema.Int32VectorT),
    }
    kind, table = tables[numbers.dtype]
    return {f"{field}Type": kind, field: table(values=numbers)}
