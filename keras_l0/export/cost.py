"""What a file costs on a processor where it cannot be run: instructions on a phone, estimated.

The figures of ARM were counted in LiteRT 2.3's build for 64-bit ARM under emulation of a
Cortex-A76 (``make test-arm`` holds them against what is executed): instructions for one
multiplication by a weight, in fully connected layers of 128 x 1024 to 2048 x 256 with 80 to 99 %
zeros, in 3x3 filters over 64 channels of 16 x 16, in 3x3 depthwise filters over 128 channels of
32 x 32, and in 1x1 filters over 256 channels of 16 x 16 with 90 % zeros, one by one; zeros in
pairs of outputs take fewer. Those of x86 were timed in the same fully connected layers.
"""

import math
from typing import Any

import numpy as np

from keras_l0.export import flatfile
from keras_l0.export.clusters import sparse_convolutions
from keras_l0.export.runtime import BLOCKS, ROWS

DENSE = "dense"
"""Beside ``ROWS`` and ``BLOCKS``: all weights of a FullyConnected, as they are."""

# For each weight that is stored, and for each row of weights, an output's: instructions on 64-bit
# ARM, nanoseconds on x86 with AVX-512.
_FULLY_CONNECTED: dict[str, dict[tuple[str, str], tuple[float, float]]] = {
    "arm": {
        ("float32", DENSE): (0.47, 0),
        ("float32", ROWS): (14.0, 19),
        ("float32", BLOCKS): (3.25, 22),
        ("int8 in float32", DENSE): (0.20, 0),
        ("int8 in float32", BLOCKS): (0.47, 30),
        ("int8", DENSE): (0.15, 0),
        ("int8", BLOCKS): (1.14, 70),
    },
    "x86": {
        ("float32", DENSE): (0.045, 0),
        ("float32", ROWS): (0.9, 1.2),
        ("float32", BLOCKS): (0.22, 1.3),
        ("int8 in float32", DENSE): (0.012, 0),
        ("int8", DENSE): (0.011, 0),
    },
}
PROCESSORS = tuple(_FULLY_CONNECTED)
"""For which sparse forms can be weighed against dense weights."""

# For each multiplication and for each output.
_CONVOLUTION = {"float32": (0.33, 2.5), "int8 in float32": (0.078, 7.5), "int8": (0.086, 3.0)}
_DEPTHWISE = {"float32": 0.86, "int8 in float32": 1.13, "int8": 1.0}
_SPARSE_CONVOLUTION = 0.72
# Of a RESHAPE, whatever its shape; and of a DENSIFY in a loop's body, which is called each time.
_CALL = 75


def fully_connected_cost(processor: str, kind: str, form: str, rows: int, stored: int) -> float:
    """What a FullyConnected costs for one input, in a unit of the processor's own.

    Args:
        processor: of ``PROCESSORS``.
        kind: of weights, as in ``runtime.TAKES``.
        form: ``DENSE``, ``ROWS`` or ``BLOCKS``.
        rows: of the weights, its outputs.
        stored: weights that are stored.

    Returns:
        The cost; infinite where the form was not seen to pay on that processor.
    """
    weight, row = _FULLY_CONNECTED[processor].get((kind, form), (math.inf, 0))
    return stored * weight + rows * row


def pays_from(processor: str, kind: str, form: str, inputs: int) -> float:
    """The share of zeros above which a sparse form costs less than dense weights; 1 for never."""
    dense = fully_connected_cost(processor, kind, DENSE, 1, inputs)
    empty = fully_connected_cost(processor, kind, form, 1, 0)
    full = fully_connected_cost(processor, kind, form, 1, inputs)
    return 1 - max(0.0, dense - empty) / (full - empty) if math.isfinite(full) else 1.0


def arm_instructions(content: bytes) -> float:
    """The instructions that one invocation spends on multiplying by weights, estimated.

    Args:
        content: a TFLite file.

    Returns:
        The estimate. What a network does besides multiplying and reshaping is the same in all
        its files, and left out.
    """
    model = flatfile.read(content)
    total = 0.0
    for place, graph in enumerate(model.subgraphs):
        sparse = sparse_convolutions(model, graph)
        for op in graph.operators:
            name = flatfile.operator_name(model, op)
            if name == "FULLY_CONNECTED":
                total += _fully_connected(model, graph, op)
            elif name == "CONV_2D":
                total += _convolution(model, graph, op, sparse.get(id(op)) == "")
            elif name == "DEPTHWISE_CONV_2D":
                total += _places(graph, op) * _size(graph, op) * _DEPTHWISE[_kind(graph, op)]
            elif name == "RESHAPE" or (name == "DENSIFY" and place > 0):
                total += _CALL
    return total


def _fully_connected(model: Any, graph: Any, op: Any) -> float:
    weights, kind = graph.tensors[op.inputs[1]], _kind(graph, op)
    outputs = int(weights.shape[0])
    inputs = math.prod(map(int, graph.tensors[op.outputs[0]].shape)) // outputs
    form, stored = DENSE, _size(graph, op)
    if weights.sparsity is not None:
        form = BLOCKS if len(weights.sparsity.dimMetadata) > 2 else ROWS
        stored = flatfile.stored_values(model, weights).size
    elif inputs > 1:
        return _matrix_product(kind, inputs, stored, outputs)
    return inputs * fully_connected_cost("arm", kind, form, outputs, stored)


def _convolution(model: Any, graph: Any, op: Any, sparse: bool) -> float:
    places, kind = _places(graph, op), _kind(graph, op)
    filters = int(graph.tensors[op.outputs[0]].shape[-1])
    if sparse:
        weights = flatfile.constant_behind(model, graph, int(op.inputs[1]))
        kept = int(np.count_nonzero(flatfile.stored_values(model, weights)))
        return places * (kept * _SPARSE_CONVOLUTION + filters * _CONVOLUTION["float32"][1])
    if places > 1:
        return _matrix_product(kind, places, _size(graph, op), filters)
    # A matrix times a vector.
    return fully_connected_cost("arm", kind, DENSE, 1, _size(graph, op))


def _matrix_product(kind: str, inputs: int, weights: int, outputs: int) -> float:
    each, output = _CONVOLUTION[kind]
    return inputs * (weights * each + outputs * output)


def _kind(graph: Any, op: Any) -> str:
    x, weights = (flatfile.type_name(graph.tensors[t]) for t in op.inputs[:2])
    return weights if weights == x else "int8 in float32"


def _size(graph: Any, op: Any) -> int:
    return math.prod(map(int, graph.tensors[op.inputs[1]].shape))


def _places(graph: Any, op: Any) -> int:
    """How often a filter is applied."""
    return math.prod(map(int, graph.tensors[op.outputs[0]].shape[:-1]))
