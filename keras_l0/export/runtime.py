"""What the LiteRT runtime takes: which sparse form of which weights in front of which operator.

``tests/test_runtime.py`` tries every kind, operator and form, and fails when the runtime has
changed its mind.
"""

from dataclasses import dataclass
from typing import Any

from keras_l0.export import flatfile

DENSIFY = "densify"
"""Any sparse form, made dense when the file is loaded by an operator ``DENSIFY``."""

ROWS = "rows"
"""Compressed sparse rows of single weights that the operator computes with."""

BLOCKS = "blocks"
"""Compressed sparse rows of blocks along the inputs that the operator computes with."""

BLOCK_SIZE = {"float32": 4, "int8": 16}
"""Weights in a block of ``BLOCKS``."""

SPARSE_FULLY_CONNECTED = 8
"""The operator's version by which the default delegate leaves sparse weights to the kernel that
can read them; any other it takes for dense."""

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
_DENSIFIED = frozenset({DENSIFY})
_WIDENED = dict.fromkeys(("FULLY_CONNECTED", *_CONVOLUTIONS, "BATCH_MATMUL", "ADD"), _DENSIFIED)
_DIRECT = frozenset({DENSIFY, ROWS, BLOCKS})

TAKES: dict[str, dict[str, frozenset[str]]] = {
    # Computed with as they are. A WHILE, whose first states may be constants, takes no DENSIFY.
    "float32": _WIDENED
    | dict.fromkeys(("CONV_3D", "GATHER"), _DENSIFIED)
    | {"FULLY_CONNECTED": _DIRECT},
    # Widened to float32 by DEQUANTIZE when the file is loaded. In front of an operator that the
    # default delegate leaves to the runtime, such as an embedding (GATHER), it takes the DENSIFY
    # and leaves the DEQUANTIZE behind, which then reads memory that was never written.
    "float16": _WIDENED,
    "int8 to float32": _WIDENED,
    # Multiplied with a float32 input that is quantized to int8 for it.
    "int8 in float32": {"FULLY_CONNECTED": frozenset({BLOCKS}), "DEPTHWISE_CONV_2D": _DENSIFIED},
    # Multiplied with int8. In front of a FullyConnected the default delegate refuses DENSIFY.
    "int8": {
        "FULLY_CONNECTED": frozenset({BLOCKS}),
        **dict.fromkeys((*_CONVOLUTIONS, "BATCH_MATMUL", "GATHER", "ADD"), _DENSIFIED),
    },
}
"""For each kind of weights and each operator that reads them, the forms that run and are right,
with the default delegate and without any."""


@dataclass(frozen=True)
class Reading:
    """How a constant is read.

    Attributes:
        kind: as in ``TAKES``; empty for one that is not a weight.
        operators: the names of the operators that compute with it.
        is_matrix: whether all of them take it as their second operand, and it has rank 2, as
            the weights of a FullyConnected.
    """

    kind: str
    operators: frozenset[str]
    is_matrix: bool = False

    @property
    def forms(self) -> frozenset[str]:
        """The sparse forms that all of its readers take."""
        if self.kind not in TAKES or not self.operators:
            return frozenset()
        taken = [TAKES[self.kind].get(name, frozenset()) for name in self.operators]
        direct = frozenset() if self.is_matrix else frozenset({ROWS, BLOCKS})
        return frozenset.intersection(*taken) - direct


def reading(model: Any, graph: Any, tensor: int) -> Reading:
    """How a graph's operators read a constant, through ``DEQUANTIZE`` where there is one."""
    kind = flatfile.type_name(graph.tensors[tensor])
    found = flatfile.readers(graph, tensor)
    is_matrix = len(graph.tensors[tensor].shape) == 2 and all(
        list(op.inputs).index(tensor) == 1 for op in found
    )
    widened = [op for op in found if flatfile.operator_name(model, op) == "DEQUANTIZE"]
    if widened and len(widened) == len(found):
        outputs = [op.outputs[0] for op in widened]
        if any(output in graph.outputs for output in outputs):
            return Reading("", frozenset())
        kind = "int8 to float32" if kind == "int8" else kind
        found = [op for output in outputs for op in flatfile.readers(graph, output)]
    elif kind == "float16":
        return Reading("", frozenset())
    elif kind == "int8" and any(
        flatfile.type_name(graph.tensors[op.outputs[0]]) == "float32" for op in found
    ):
        kind = "int8 in float32"
    return Reading(kind, frozenset(flatfile.operator_name(model, op) for op in found), is_matrix)
