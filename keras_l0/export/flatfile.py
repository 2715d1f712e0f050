"""A TFLite file as the runtime's own flatbuffer classes: reading, writing, and small edits.

The classes are generated and have no types: models, graphs, operators and tensors are ``Any``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The schema asks for it (`force_align`), and the runtime maps constants in place.
_BUFFER_ALIGNMENT = 16
# A code above it does not fit the field that older readers look at.
_LAST_DEPRECATED_CODE = 127
# Its version and options, for statistics of its own.
_OF_THE_CONVERTER = b"CONVERSION_METADATA"


def read(content: bytes) -> Any:
    """The file as an object tree."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(content)


def is_flatbuffer(content: bytes) -> bool:
    """Whether it begins as a TFLite file does."""
    return content[4:8] == b"TFL3"


def write(model: Any) -> bytes:
    """The file's bytes, each distinct buffer once, and no buffer or tensor that nothing uses."""
    from ai_edge_litert.tools import flatbuffer_utils

    for g, graph in enumerate(model.subgraphs):
        _drop_unused_tensors(model, graph, g)
    owners = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    owners += model.metadata or []
    kept: dict[bytes, int] = {b"": 0}
    for owner in owners:
        data = model.buffers[owner.buffer].data
        owner.buffer = kept.setdefault(b"" if data is None else bytes(data), len(kept))
    model.buffers = [_Buffer(data) for data in kept]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _drop_unused_tensors(model: Any, graph: Any, place: int) -> None:
    signatures = [one for one in model.signatureDefs or [] if one.subgraphIndex == place]
    entries = [e for one in signatures for e in (*one.inputs, *one.outputs)]
    lists = [(graph, "inputs"), (graph, "outputs")]
    fields = ("inputs", "outputs", "intermediates")
    lists += [(op, name) for op in graph.operators for name in fields]
    used = {int(t) for owner, name in lists for t in _ids(owner, name)}
    used |= {int(entry.tensorIndex) for entry in entries}
    if used >= set(range(len(graph.tensors))):
        return
    kept = sorted(used - {-1})
    new = {old: t for t, old in enumerate(kept)} | {-1: -1}
    for owner, name in lists:
        if getattr(owner, name) is not None:
            setattr(owner, name, [new[int(t)] for t in _ids(owner, name)])
    for entry in entries:
        entry.tensorIndex = new[int(entry.tensorIndex)]
    graph.tensors = [graph.tensors[old] for old in kept]


def _ids(owner: Any, name: str) -> Any:
    found = getattr(owner, name)
    return () if found is None else found


def named(content: bytes, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> bytes:
    """The file with the model's names and order of inputs and outputs, without unread parts.

    The order is set in the graph as well as in the signature, so that the interpreter's
    `get_input_details()` and `get_output_details()` list them as the model does.

    The parts that the runtime does not read are all names but those of inputs, outputs and
    weights of rank 2 or more, which in a small network are a tenth of the file; empty tables;
    and what the converter says of itself.

    Args:
        content: a TFLite file with one signature, its names in alphabetical order
            those of the inputs and outputs in the model's order.
        inputs: the model's input names.
        outputs: the model's output names.

    Returns:
        The file's bytes.
    """
    model = read(content)
    (signature,) = model.signatureDefs
    graph = model.subgraphs[signature.subgraphIndex]
    for side, names in (("inputs", inputs), ("outputs", outputs)):
        entries = sorted(getattr(signature, side), key=lambda entry: entry.name)
        for entry, name in zip(entries, names, strict=True):
            entry.name = graph.tensors[entry.tensorIndex].name = name.encode()
        setattr(signature, side, entries)
        setattr(graph, side, [int(entry.tensorIndex) for entry in entries])
    for graph in model.subgraphs:
        edges = {*graph.inputs, *graph.outputs}
        for t, tensor in enumerate(graph.tensors):
            if t not in edges and (not has_data(model, tensor) or len(tensor.shape) < 2):
                tensor.name = None
            if tensor.quantization and not any(
                value is not None and np.any(value) for value in vars(tensor.quantization).values()
            ):
                tensor.quantization = None
    model.description = None
    model.metadata = [one for one in model.metadata or [] if one.name != _OF_THE_CONVERTER]
    return write(model)


def renamed(content: bytes, layers: Mapping[str, str]) -> bytes:
    """The file with its tensors' names, of which fused ones have several, beginning as given.

    Args:
        content: a TFLite file.
        layers: for the beginning of a name, up to a slash, another beginning.

    Returns:
        The file's bytes.
    """
    model = read(content)

    def new(name: str) -> str:
        for old in sorted(layers, key=len, reverse=True):
            if name == old or name.startswith(f"{old}/"):
                return layers[old] + name[len(old) :]
        return name

    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.name:
                tensor.name = ";".join(map(new, tensor.name.decode().split(";"))).encode()
    return write(model)


def operator_name(model: Any, operator: Any) -> str:
    """The operator's builtin name, such as ``"FULLY_CONNECTED"``; or its custom one."""
    from ai_edge_litert.tools import flatbuffer_utils

    return str(flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex))


def readers(graph: Any, tensor: int) -> list[Any]:
    """The operators that read a tensor."""
    return [operator for operator in graph.operators if tensor in operator.inputs]


def has_data(model: Any, tensor: Any) -> bool:
    """Whether the tensor is a constant."""
    return model.buffers[tensor.buffer].data is not None


def values(model: Any, tensor: Any) -> NDArray[Any]:
    """A dense constant's values, a view of its buffer."""
    return stored_values(model, tensor).reshape(tensor.shape)


def stored_values(model: Any, tensor: Any) -> NDArray[Any]:
    """What a constant's buffer holds, one after the other: of a sparse one, what is stored."""
    data = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.uint8)
    # Of a type without a name the bytes are counted: nothing is computed with them here.
    return data.view(np.dtype(type_name(tensor) or "uint8").newbyteorder("<"))


def type_name(tensor: Any) -> str:
    """NumPy's name of a tensor's type; empty for one that no weights or sizes have."""
    from ai_edge_litert import schema_py_generated as schema

    kinds = schema.TensorType
    names = {
        kinds.FLOAT32: "float32",
        kinds.FLOAT16: "float16",
        kinds.INT8: "int8",
        kinds.INT32: "int32",
        kinds.INT64: "int64",
    }
    return names.get(tensor.type, "")


def constant_behind(model: Any, graph: Any, tensor: int) -> Any:
    """The constant that a tensor is, or is made of by DENSIFY and DEQUANTIZE; or ``None``."""
    while tensor >= 0 and not has_data(model, graph.tensors[tensor]):
        makers = [op for op in graph.operators if tensor in op.outputs]
        if len(makers) != 1 or operator_name(model, makers[0]) not in ("DENSIFY", "DEQUANTIZE"):
            return None
        tensor = int(makers[0].inputs[0])
    return graph.tensors[tensor] if tensor >= 0 else None


def sparse_bytes(model: Any, tensor: Any) -> int:
    """Bytes of a constant's values, and of the segments and indices of a sparse one."""
    total = len(model.buffers[tensor.buffer].data)
    for level in tensor.sparsity.dimMetadata if tensor.sparsity else ():
        for numbers in (level.arraySegments, level.arrayIndices):
            if numbers is not None:
                total += np.asarray(numbers.values).nbytes
    return total


def add_tensor(model: Any, graph: Any, like: Any, **fields: Any) -> int:
    """Adds a tensor without a name, of the type and shape of another but for ``fields``.

    ``data``, an array, makes it a constant.
    """
    from ai_edge_litert import schema_py_generated as schema

    data = fields.pop("data", None)
    settings = {
        "shape": like.shape,
        "type": like.type,
        "hasRank": like.hasRank,
        "quantization": like.quantization,
        "buffer": 0,
    } | fields
    if data is not None:
        model.buffers.append(schema.BufferT(data=data.tobytes()))
        settings["buffer"] = len(model.buffers) - 1
    graph.tensors.append(schema.TensorT(**settings))
    return len(graph.tensors) - 1


def operator(
    model: Any, code: int, inputs: list[int], outputs: list[int], version: int = 1, **options: Any
) -> Any:
    """An operator of a builtin code, its code added to the model's where it is missing."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.OperatorT(
        opcodeIndex=operator_code(model, code, version), inputs=inputs, outputs=outputs, **options
    )


def operator_code(model: Any, code: int, version: int) -> int:
    """The place of a builtin code in the model's list, added where it is missing."""
    from ai_edge_litert import schema_py_generated as schema

    for place, known in enumerate(model.operatorCodes):
        if (known.builtinCode, known.version) == (code, version):
            return place
    model.operatorCodes.append(
        schema.OperatorCodeT(
            deprecatedBuiltinCode=min(code, _LAST_DEPRECATED_CODE),
            version=version,
            builtinCode=code,
        )
    )
    return len(model.operatorCodes) - 1


def weights_of(model: Any) -> list[list[tuple[int, int]]]:
    """For each buffer of which nothing but weights are made, their places: graph and tensor.

    Those of one shape and type stand together. Metadata, variables, inputs and outputs, and what
    is sparse already, are no weights.
    """
    users: dict[Any, list[tuple[int, int]]] = {}
    refused = {entry.buffer for entry in model.metadata or []}
    for g, graph in enumerate(model.subgraphs):
        taken = {t for operator in graph.operators for t in operator.inputs}
        edges = {*graph.inputs, *graph.outputs}
        for t, tensor in enumerate(graph.tensors):
            shape = () if tensor.shape is None else tuple(map(int, tensor.shape))
            users.setdefault((tensor.buffer, tensor.type, shape), []).append((g, t))
            wrong = not shape or tensor.isVariable or tensor.sparsity
            if wrong or t in edges or t not in taken:
                refused.add(tensor.buffer)
    return [
        places
        for (buffer, _, _), places in users.items()
        if buffer not in refused and model.buffers[buffer].data is not None
    ]


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
