"""Files of one operator that reads sparse weights, to try what a runtime takes."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from keras_l0.export import flatfile, sparse
from keras_l0.export.check import Samples
from keras_l0.export.encodings import Encoding, Level, encode, encode_blocks, encode_rows
from keras_l0.export.runtime import BLOCK_SIZE, BLOCKS, DENSIFY, ROWS, reading

FORMS = (DENSIFY, ROWS, BLOCKS)

_WEIGHT_SCALE, _INPUT_SCALE, _OUTPUT_SCALE = 0.01, 0.03, 0.06
_SAME = schema.Padding.SAME


@dataclass(frozen=True)
class _Operator:
    """One operator: shapes, options, and the versions that do float32 and int8.

    ``channels`` is the axis of the weights along which the converter gives int8 ones a scale
    each, and along which there are biases; ``None`` for one scale and no biases.
    """

    x: tuple[int, ...]
    weights: tuple[int, ...]
    y: tuple[int, ...]
    options: Any
    versions: tuple[int, int]
    channels: int | None = None


_OPERATORS = {
    "FULLY_CONNECTED": _Operator(
        (1, 64), (32, 64), (1, 32), schema.FullyConnectedOptionsT(), (1, 4), channels=0
    ),
    "CONV_2D": _Operator(
        (1, 6, 6, 16),
        (32, 3, 3, 16),
        (1, 6, 6, 32),
        schema.Conv2DOptionsT(_SAME, strideW=1, strideH=1),
        (1, 3),
        channels=0,
    ),
    "DEPTHWISE_CONV_2D": _Operator(
        (1, 6, 6, 64),
        (1, 3, 3, 64),
        (1, 6, 6, 64),
        schema.DepthwiseConv2DOptionsT(_SAME, strideW=1, strideH=1, depthMultiplier=1),
        (1, 3),
        channels=3,
    ),
    "TRANSPOSE_CONV": _Operator(
        (1, 6, 6, 16),
        (32, 3, 3, 16),
        (1, 12, 12, 32),
        schema.TransposeConvOptionsT(_SAME, strideW=2, strideH=2),
        (3, 3),
        channels=0,
    ),
    "CONV_3D": _Operator(
        (1, 4, 4, 4, 16),
        (3, 3, 3, 16, 32),
        (1, 4, 4, 4, 32),
        schema.Conv3DOptionsT(_SAME, strideD=1, strideW=1, strideH=1),
        (1, 1),
    ),
    "BATCH_MATMUL": _Operator(
        (1, 7, 64), (1, 64, 32), (1, 7, 32), schema.BatchMatMulOptionsT(), (1, 2)
    ),
    "GATHER": _Operator((1, 7), (50, 32), (1, 7, 32), schema.GatherOptionsT(), (1, 2)),
    "ADD": _Operator((1, 40, 64), (40, 64), (1, 40, 64), schema.AddOptionsT(), (1, 2)),
}

_KINDS = ("float32", "float16", "int8 to float32", "int8 in float32", "int8")
_MISSING = {
    ("int8", "CONV_3D"),
    *(("int8 in float32", operator) for operator in ("CONV_3D", "GATHER", "ADD")),
}
PAIRS = [pair for pair in itertools.product(_KINDS, _OPERATORS) if pair not in _MISSING]
"""Kinds of weights and operators: all that the runtime has."""


def tolerance(kind: str) -> float:
    """For the kinds that round as they compute, a hundredth or two int8 steps of the output."""
    return {"int8": 0.03, "int8 in float32": 0.01}.get(kind, 1e-5)


def one_operator_file(kind: str, operator: str) -> bytes:
    """A file of one operator, from an input ``x`` to an output ``y``, its weights dense.

    Three of four blocks of 16 along the weights' last axis are zeros, and half of the rest.

    Args:
        kind: of weights.
        operator: that reads them, with the kind one of ``PAIRS``.
    """
    one = _OPERATORS[operator]
    model = schema.ModelT(version=3, operatorCodes=[], buffers=[schema.BufferT()])
    graph = schema.SubGraphT(tensors=[], operators=[])
    model.subgraphs = [graph]
    is_gather, is_int8 = operator == "GATHER", kind == "int8"
    computed = np.int8 if is_int8 else np.float32
    x = _tensor(graph, one.x, np.int32 if is_gather else computed, _scales(_INPUT_SCALE, zero=-20))
    # What is looked up keeps its scale.
    y = _tensor(
        graph,
        one.y,
        computed,
        _scales(_WEIGHT_SCALE) if is_gather else _scales(_OUTPUT_SCALE, zero=10),
    )
    weights = _weights(model, graph, kind, one)
    inputs = [weights, x] if is_gather else [x, weights]
    if operator == "TRANSPOSE_CONV":
        inputs = [_constant(model, graph, np.array(one.y, np.int32)), weights, x]
    if one.channels is not None:
        bias = np.linspace(-1, 1, one.weights[one.channels], dtype=np.float32)
        scale = _INPUT_SCALE * _WEIGHT_SCALE
        bias = (bias / scale).astype(np.int32) if is_int8 else bias
        inputs.append(_constant(model, graph, bias, _scales(scale, 0, bias.size)))
    options = type(one.options).__name__.removesuffix("T")
    graph.operators.append(
        flatfile.operator(
            model,
            getattr(schema.BuiltinOperator, operator),
            inputs,
            [y],
            one.versions[is_int8],
            builtinOptionsType=getattr(schema.BuiltinOptions, options),
            builtinOptions=one.options,
        )
    )
    graph.inputs, graph.outputs = [x], [y]
    names = [schema.TensorMapT("x", x)], [schema.TensorMapT("y", y)]
    model.signatureDefs = [schema.SignatureDefT(*names, "serving_default")]
    return flatfile.write(model)


def in_form(content: bytes, form: str) -> bytes:
    """``one_operator_file`` with its weights in a sparse form, whether that can work or not."""
    model = flatfile.read(content)
    (graph,) = model.subgraphs
    place = _place_of_weights(graph)
    tensor = graph.tensors[place]
    encoding = _encoded(flatfile.values(model, tensor), form)
    (reader,) = flatfile.readers(graph, place)
    if form == DENSIFY or flatfile.operator_name(model, reader) == "FULLY_CONNECTED":
        sparse._store(model, 0, place, sparse._Choice(form, encoding, 0, 0.0))
    else:
        tensor.sparsity = sparse._sparsity(encoding)
        model.buffers.append(schema.BufferT(data=encoding.values.tobytes()))
        tensor.buffer = len(model.buffers) - 1
    return flatfile.write(model)


def forms_taken(content: bytes) -> frozenset[str]:
    """From what the exporter would choose for the weights of ``one_operator_file``."""
    model = flatfile.read(content)
    (graph,) = model.subgraphs
    return reading(model, graph, _place_of_weights(graph)).forms


def samples(content: bytes, count: int = 4) -> Samples:
    """For ``one_operator_file``; expected is what the interpreter without delegate computes."""
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    runner = interpreter.get_signature_runner()
    detail = runner.get_input_details()["x"]
    high = {np.int8: 100, np.int32: 50}.get(detail["dtype"], 2)
    low = 0 if detail["dtype"] is np.int32 else -high
    rng = np.random.default_rng(1)
    inputs = [rng.uniform(low, high, detail["shape"]) for _ in range(count)]
    batches = [[x.astype(detail["dtype"])] for x in inputs]
    return Samples(("x",), ("y",), batches, [[runner(x=x)["y"]] for (x,) in batches])


def _weights(model: Any, graph: Any, kind: str, one: _Operator) -> int:
    """The tensor that the operator reads, behind ``DEQUANTIZE`` where the kind asks for it."""
    rng = np.random.default_rng(0)
    blocks = rng.random((*one.weights[:-1], one.weights[-1] // 16)) < 0.25
    kept = np.repeat(blocks, 16, axis=-1) & (rng.random(one.weights) < 0.5)
    whole: NDArray[Any] = kept * rng.integers(-127, 128, one.weights)
    dtype = {"float32": np.float32, "float16": np.float16}.get(kind, np.int8)
    scales = None
    if dtype is np.int8:
        many = 1 if one.channels is None else one.weights[one.channels]
        scales = _scales(_WEIGHT_SCALE, one.channels or 0, many)
    else:
        whole = whole * _WEIGHT_SCALE
    weights = _constant(model, graph, whole.astype(dtype), scales, _NAME)
    if kind not in ("float16", "int8 to float32"):
        return weights
    wide = _tensor(graph, one.weights, np.float32)
    version = 3 if kind == "float16" else 2
    code = schema.BuiltinOperator.DEQUANTIZE
    graph.operators.append(flatfile.operator(model, code, [weights], [wide], version))
    return wide


_NAME = b"weights"


def _place_of_weights(graph: Any) -> int:
    return next(i for i, tensor in enumerate(graph.tensors) if tensor.name == _NAME)


def _encoded(array: NDArray[Any], form: str) -> Encoding:
    """Rows and blocks lie along the last axis; all axes before it are dense."""
    if form == DENSIFY:
        return encode(array)
    matrix = array.reshape(-1, array.shape[-1])
    size = BLOCK_SIZE["int8" if array.dtype == np.int8 else "float32"]
    flat = encode_rows(matrix) if form == ROWS else encode_blocks(matrix, size)
    levels = (*(Level(size) for size in array.shape[:-1]), *flat.levels[1:])
    block = None if form == ROWS else (array.ndim - 1, size)
    return Encoding(array.shape, tuple(range(len(levels))), levels, flat.values, block)


def _tensor(graph: Any, shape: Any, dtype: Any, scales: Any = None, buffer: int = 0) -> int:
    """A new tensor; only integers take ``scales``."""
    types = {"float32": "FLOAT32", "float16": "FLOAT16", "int32": "INT32", "int8": "INT8"}
    name = types[np.dtype(dtype).name]
    graph.tensors.append(
        schema.TensorT(
            shape=list(shape),
            type=getattr(schema.TensorType, name),
            buffer=buffer,
            quantization=scales if name == "INT8" or (buffer and name == "INT32") else None,
            hasRank=True,
        )
    )
    return len(graph.tensors) - 1


def _constant(
    model: Any, graph: Any, array: NDArray[Any], scales: Any = None, name: bytes | None = None
) -> int:
    model.buffers.append(schema.BufferT(data=array.tobytes()))
    place = _tensor(graph, array.shape, array.dtype, scales, len(model.buffers) - 1)
    graph.tensors[place].name = name
    return place


def _scales(scale: float, axis: int = 0, many: int = 1, zero: int = 0) -> Any:
    return schema.QuantizationParametersT(
        scale=(scale * np.linspace(1, 2, many)).astype(np.float32),
        zeroPoint=np.full(many, zero, np.int64),
        quantizedDimension=axis,
    )
