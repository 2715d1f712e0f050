"""A dense TFLite file rewritten: constants in sparse form, names, no unused bytes."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_l0.export.encodings import CsrEncoding, Level, encode

# The schema asks for it (`force_align`), and the runtime maps constants in place.
_BUFFER_ALIGNMENT = 16
# Of float16 weights that are densified and dequantized, LiteRT 2.3 gave these operators the
# right values. GATHER (an embedding) reads memory that was never written: the XNNPACK
# delegate takes the DENSIFY and leaves the DEQUANTIZE after it behind.
_FLOAT16_READERS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")


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
    """

    name: str
    shape: tuple[int, ...]
    zeros: int
    dense_bytes: int
    encoded_bytes: int
    encoding: str


def named_file(content: bytes, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> bytes:
    """The file with these names in its signature and without what nothing reads.

    That is names of intermediate results, which in a small network are a tenth of the
    file, and empty tables.

    Args:
        content: a TFLite file with one signature, its names in alphabetical order
            those of the inputs and outputs in the model's order.
        inputs: the model's input names.
        outputs: the model's output names.

    Returns:
        The file's bytes.
    """
    model = _read(content)
    (signature,) = model.signatureDefs
    for entries, names in ((signature.inputs, inputs), (signature.outputs, outputs)):
        by_name = sorted(entries, key=lambda entry: entry.name)
        for entry, name in zip(by_name, names, strict=True):
            entry.name = name.encode()
    for graph in model.subgraphs:
        edges = {*graph.inputs, *graph.outputs}
        for t, tensor in enumerate(graph.tensors):
            if t not in edges and model.buffers[tensor.buffer].data is None:
                tensor.name = None
            if tensor.quantization and not any(
                value is not None and np.any(value) for value in vars(tensor.quantization).values()
            ):
                tensor.quantization = None
    return _write(model)


def sparse_file(content: bytes) -> tuple[bytes, list[SparseTensor]]:
    """The file with each constant in sparse form for which that takes fewer bytes.

    Such a constant keeps its name; an operator ``DENSIFY`` at its graph's beginning
    turns it into the dense tensor that its consumers read. What the operator, the
    second tensor and the sparsity tables take is counted against it.

    Args:
        content: a dense TFLite file.

    Returns:
        The bytes of the new file and what became sparse in it, in the file's order.
    """
    model = _read(content)
    described = []
    for buffer, places in _weight_buffers(model).items():
        encoded = [encode(_values(model, model.subgraphs[graph].tensors[t])) for graph, t in places]
        sparse_bytes = encoded[0].values.nbytes + sum(
            _added_bytes(model.subgraphs[graph].tensors[t], encoding)
            for (graph, t), encoding in zip(places, encoded, strict=True)
        )
        if sparse_bytes >= len(model.buffers[buffer].data):
            continue
        for (graph, t), encoding in zip(places, encoded, strict=True):
            described.append(_describe(model, model.subgraphs[graph].tensors[t], encoding))
            _densify(model, graph, t, encoding)
    return _write(model), described


def _read(content: bytes) -> Any:  # the generated schema has no types
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(content)


def _write(model: Any) -> bytes:
    """The file's bytes, each distinct buffer once and none that nothing refers to."""
    from ai_edge_litert.tools import flatbuffer_utils

    owners = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    owners += model.metadata or []
    kept: dict[bytes, int] = {b"": 0}
    for owner in owners:
        data = model.buffers[owner.buffer].data
        owner.buffer = kept.setdefault(b"" if data is None else bytes(data), len(kept))
    model.buffers = [_Buffer(data) for data in kept]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


@dataclass(frozen=True)
class _Buffer:
    """A buffer's data, packed at the alignment that the generated classes leave out."""

    data: bytes

    def Pack(self, builder: Any) -> int:  # noqa: N802, the generated classes' name
        from ai_edge_litert import schema_py_generated as schema

        vector = None
        if self.data:
            builder.Prep(_BUFFER_ALIGNMENT, len(self.data))
            vector = builder.CreateByteVector(self.data)
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))


def _weight_buffers(model: Any) -> dict[int, list[tuple[int, int]]]:
    """Buffers that only floating constants read, and where: graph and tensor."""
    from ai_edge_litert import schema_py_generated as schema

    users: dict[int, list[tuple[int, int]]] = defaultdict(list)
    refused = {entry.buffer for entry in model.metadata or []}
    for g, graph in enumerate(model.subgraphs):
        read = {t for operator in graph.operators for t in operator.inputs}
        edges = {*graph.inputs, *graph.outputs}
        for t, tensor in enumerate(graph.tensors):
            users[tensor.buffer].append((g, t))
            if (
                tensor.type not in (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16)
                or not tensor.shape
                or tensor.isVariable
                or tensor.sparsity is not None
                or t in edges
                or t not in read
                or (tensor.type == schema.TensorType.FLOAT16 and not _may_densify(model, graph, t))
            ):
                refused.add(tensor.buffer)
    return {
        buffer: places
        for buffer, places in users.items()
        if buffer not in refused and model.buffers[buffer].data is not None
    }


def _may_densify(model: Any, graph: Any, tensor: int) -> bool:
    """Whether all that read a float16 constant dequantize it for operators that take it."""
    from ai_edge_litert.tools import flatbuffer_utils

    def readers(t: int) -> list[tuple[str | None, Any]]:
        return [
            (flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex), operator)
            for operator in graph.operators
            if t in operator.inputs
        ]

    return all(
        name == "DEQUANTIZE"
        and operator.outputs[0] not in graph.outputs
        and all(name in _FLOAT16_READERS for name, _ in readers(operator.outputs[0]))
        for name, operator in readers(tensor)
    )


def _values(model: Any, tensor: Any) -> NDArray[np.floating]:
    from ai_edge_litert import schema_py_generated as schema

    width = np.float32 if tensor.type == schema.TensorType.FLOAT32 else np.float16
    data = bytes(model.buffers[tensor.buffer].data)
    return np.frombuffer(data, np.dtype(width).newbyteorder("<")).reshape(tensor.shape)


def _describe(model: Any, tensor: Any, encoding: CsrEncoding) -> SparseTensor:
    values = _values(model, tensor)
    return SparseTensor(
        name=tensor.name.decode(),
        shape=values.shape,
        zeros=int((values == 0).sum()),
        dense_bytes=values.nbytes,
        encoded_bytes=encoding.nbytes,
        encoding=encoding.name,
    )


def _densify(model: Any, graph_index: int, tensor_index: int, encoding: CsrEncoding) -> None:
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[graph_index]
    sparse = graph.tensors[tensor_index]
    dense_index = len(graph.tensors)
    graph.tensors.append(_dense_twin(sparse))
    for operator in graph.operators:
        operator.inputs = [dense_index if t == tensor_index else t for t in operator.inputs]
    graph.operators.insert(0, _operator(_densify_code(model), tensor_index, dense_index))
    sparse.sparsity = _sparsity(encoding)
    model.buffers.append(schema.BufferT(data=encoding.values.tobytes()))
    sparse.buffer = len(model.buffers) - 1


def _added_bytes(tensor: Any, encoding: CsrEncoding) -> int:
    """Bytes of the tables, segments and indices that the sparse form adds, at most."""
    from ai_edge_litert.tools import flatbuffer_utils

    tables = (_sparsity(encoding), _dense_twin(tensor), _operator(0, 0, 0))
    return sum(len(flatbuffer_utils.convert_object_to_bytearray(table)) for table in tables)


def _dense_twin(tensor: Any) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.TensorT(shape=tensor.shape, type=tensor.type, buffer=0, hasRank=tensor.hasRank)


def _operator(code: int, source: int, target: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.OperatorT(opcodeIndex=code, inputs=[source], outputs=[target])


def _densify_code(model: Any) -> int:
    from ai_edge_litert import schema_py_generated as schema

    densify = schema.BuiltinOperator.DENSIFY
    codes = [code.builtinCode for code in model.operatorCodes]
    if densify not in codes:
        model.operatorCodes.append(
            schema.OperatorCodeT(deprecatedBuiltinCode=densify, version=1, builtinCode=densify)
        )
        codes.append(densify)
    return codes.index(densify)


def _sparsity(encoding: CsrEncoding) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.SparsityParametersT(
        traversalOrder=list(encoding.order),
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
