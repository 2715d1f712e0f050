"""What a file costs on a phone's processor, where it cannot be run: instructions, estimated.

The figures were counted in LiteRT 2.3's build for 64-bit ARM under emulation of a Cortex-A76
(``make test-arm`` counts them anew): instructions executed for one multiplication by a weight,
in layers of 512 x 1024, of 3x3 filters over 64 channels of 16 x 16, of 3x3 depthwise filters over
128 channels of 32 x 32, and of 1x1 filters over 256 channels of 16 x 16 with 90 % zeros.
"""

import math
from typing import Any

import numpy as np

from keras_l0.export import flatfile
from keras_l0.export.clusters import SPARSE_FROM, cluster, entries

_FULLY_CONNECTED = {"float32": 0.47, "dynamic": 0.20, "int8": 0.15}
_ROWS, _BLOCKS = 14.3, 3.5
_CONVOLUTION = {"float32": 0.33, "dynamic": 0.13, "int8": 0.09}
_DEPTHWISE = {"float32": 0.86, "dynamic": 1.13, "int8": 1.0}
_SPARSE_CONVOLUTION = 0.72


def arm_instructions(content: bytes) -> float:
    """The instructions that one invocation spends on multiplying by weights, estimated.

    Args:
        content: a TFLite file.

    Returns:
        The estimate. What a network does besides is the same in all its files, and left out.
    """
    model = flatfile.read(content)
    total = 0.0
    for graph in model.subgraphs:
        stored = _stored_values(model, graph)
        sparse = _sparse_convolutions(model, graph, stored)
        for op in graph.operators:
            name = flatfile.operator_name(model, op)
            if len(op.inputs) > 1 and int(op.inputs[1]) in stored:
                total += _cost(graph, op, name, stored, sparse)
    return total


def _cost(graph: Any, op: Any, name: str, stored: dict[int, Any], sparse: set[int]) -> float:
    from ai_edge_litert import schema_py_generated as schema

    weights = graph.tensors[op.inputs[1]]
    output = [int(size) for size in graph.tensors[op.outputs[0]].shape]
    int8 = schema.TensorType.INT8
    kind = "float32"
    if weights.type == int8:
        kind = "int8" if graph.tensors[op.inputs[0]].type == int8 else "dynamic"
    size, count = math.prod(int(n) for n in weights.shape), stored[int(op.inputs[1])][0]
    if name == "FULLY_CONNECTED":
        rows = math.prod(output) // int(weights.shape[0])
        if weights.sparsity is None:
            return rows * size * _FULLY_CONNECTED[kind]
        return rows * count * (_BLOCKS if len(weights.sparsity.dimMetadata) > 2 else _ROWS)
    if name == "CONV_2D":
        places = math.prod(output[:-1])
        if id(op) in sparse:
            return places * count * _SPARSE_CONVOLUTION
        # One place has the cost of a matrix times a vector.
        return places * size * (_CONVOLUTION if places > 1 else _FULLY_CONNECTED)[kind]
    if name == "DEPTHWISE_CONV_2D":
        return math.prod(output[:-1]) * size * _DEPTHWISE[kind]
    return 0.0


def _stored_values(model: Any, graph: Any) -> dict[int, tuple[int, bool]]:
    """For each weight tensor: how many values are not zero, and whether a DENSIFY makes it."""
    found: dict[int, tuple[int, bool]] = {}
    for t, tensor in enumerate(graph.tensors):
        data = model.buffers[tensor.buffer].data
        if data is not None and len(data):
            if tensor.sparsity is None:
                count = int(np.count_nonzero(flatfile.values(model, tensor)))
            else:
                count = int(np.count_nonzero(flatfile.stored_values(model, tensor)))
            found[t] = (count, False)
    for op in graph.operators:
        name = flatfile.operator_name(model, op)
        if name in ("DENSIFY", "DEQUANTIZE") and int(op.inputs[0]) in found:
            count, densified = found[int(op.inputs[0])]
            found[int(op.outputs[0])] = (count, densified or name == "DENSIFY")
    return found


def _sparse_convolutions(model: Any, graph: Any, stored: dict[int, tuple[int, bool]]) -> set[int]:
    """The 1x1 convolutions, by identity, that the delegate computes with sparse kernels."""
    found: set[int] = set()
    if not any(densified for _, densified in stored.values()):
        return found
    for entry in entries(model, graph):
        members, reason = cluster(model, graph, entry)
        inner = [
            op
            for op in members[1:]
            if flatfile.operator_name(model, op) == "CONV_2D" and int(op.inputs[1]) in stored
        ]
        size = sum(math.prod(map(int, graph.tensors[op.inputs[1]].shape)) for op in inner)
        kept = sum(stored[int(op.inputs[1])][0] for op in inner)
        if not reason and size and 1 - kept / size > SPARSE_FROM:
            found |= {id(op) for op in inner}
    return found
