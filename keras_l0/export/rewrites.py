"""Exact rewrites of a file into forms that can be stored smaller."""

from typing import Any

import numpy as np

from keras_l0.export import flatfile
from keras_l0.export.encodings import encode

_WEIGHT_READERS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
# Two reshapes, their results and shapes, and the operators' codes: what a FullyConnected
# written as a convolution takes besides its weights, rounded up.
_CONVOLUTION_BYTES = 800


def widened(content: bytes) -> bytes:
    """Int8 weights in front of float32 operators are widened to float32 when the file is loaded.

    A dynamic-range file quantizes each input to int8 and multiplies with int8; this one
    multiplies in float32 with the same weights. It is what lets them be sparse: the default
    delegate does not prepare dynamic-range operators whose weights come out of ``DENSIFY``.

    Args:
        content: a dynamic-range file.

    Returns:
        The file with a ``DEQUANTIZE`` behind each such constant.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = flatfile.read(content)
    kinds = schema.TensorType
    for graph in model.subgraphs:
        for t in range(len(graph.tensors)):
            tensor = graph.tensors[t]
            users = flatfile.readers(graph, t)
            if (
                tensor.type != kinds.INT8
                or not flatfile.has_data(model, tensor)
                or not users
                or not all(
                    flatfile.operator_name(model, op) in _WEIGHT_READERS
                    and graph.tensors[op.outputs[0]].type == kinds.FLOAT32
                    for op in users
                )
            ):
                continue
            wide = flatfile.add_tensor(model, graph, tensor, type=kinds.FLOAT32, quantization=None)
            for op in users:
                op.inputs = [wide if i == t else i for i in op.inputs]
                if hasattr(op.builtinOptions, "asymmetricQuantizeInputs"):
                    op.builtinOptions.asymmetricQuantizeInputs = False
            code = schema.BuiltinOperator.DEQUANTIZE
            graph.operators.insert(0, flatfile.operator(model, code, [t], [wide], version=2))
    return flatfile.write(model)


def convolved(content: bytes) -> bytes:
    """FullyConnected operators in int8 become 1x1 convolutions where that lets them be smaller.

    The runtime takes sparse int8 weights through ``DENSIFY`` in front of a convolution, and in
    front of a FullyConnected not. Both compute the same.

    Args:
        content: an int8 file.

    Returns:
        The file, with a reshape before and after each such convolution.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = flatfile.read(content)
    for graph in model.subgraphs:
        for op in list(graph.operators):
            if _pays_as_convolution(model, graph, op):
                _convolve(model, graph, op, schema)
    return flatfile.write(model)


def _pays_as_convolution(model: Any, graph: Any, op: Any) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    if flatfile.operator_name(model, op) != "FULLY_CONNECTED" or op.builtinOptions.weightsFormat:
        return False
    x, w = (graph.tensors[t] for t in op.inputs[:2])
    y = graph.tensors[op.outputs[0]]
    int8 = schema.TensorType.INT8
    if {x.type, w.type, y.type} != {int8} or not flatfile.has_data(model, w):
        return False
    if len(flatfile.readers(graph, op.inputs[1])) > 1 or w.sparsity is not None:
        return False
    array = flatfile.values(model, w)
    return encode(array).nbytes + _CONVOLUTION_BYTES < array.nbytes


def _convolve(model: Any, graph: Any, op: Any, schema: Any) -> None:
    source, weights, *bias = (int(t) for t in op.inputs)
    target = int(op.outputs[0])
    out, into = (int(size) for size in graph.tensors[weights].shape)
    pixels, maps = [-1, 1, 1, into], [-1, 1, 1, out]
    rows = int(np.prod(graph.tensors[source].shape)) // into
    x = flatfile.add_tensor(model, graph, graph.tensors[source], shape=[rows, *pixels[1:]])
    y = flatfile.add_tensor(model, graph, graph.tensors[target], shape=[rows, *maps[1:]])
    graph.tensors[weights].shape = [out, 1, 1, into]
    if not bias or bias[0] < 0:
        bias = [_zero_bias(model, graph, graph.tensors[source], graph.tensors[weights], schema)]
    after = [-1, *map(int, graph.tensors[target].shape[1:])]
    code = schema.BuiltinOperator.CONV_2D
    convolution = flatfile.operator(
        model,
        code,
        [x, weights, bias[0]],
        [y],
        version=3,
        builtinOptionsType=schema.BuiltinOptions.Conv2DOptions,
        builtinOptions=schema.Conv2DOptionsT(
            padding=schema.Padding.VALID,
            strideW=1,
            strideH=1,
            dilationWFactor=1,
            dilationHFactor=1,
            fusedActivationFunction=op.builtinOptions.fusedActivationFunction,
        ),
    )
    place = graph.operators.index(op)
    graph.operators[place : place + 1] = [
        _reshape(model, graph, source, x, pixels, schema),
        convolution,
        _reshape(model, graph, y, target, after, schema),
    ]


def _zero_bias(model: Any, graph: Any, source: Any, weights: Any, schema: Any) -> int:
    """A bias, which an int8 convolution must have, with the scales that the delegate asks for."""
    scales = np.asarray(weights.quantization.scale) * source.quantization.scale[0]
    return flatfile.add_tensor(
        model,
        graph,
        weights,
        shape=[int(weights.shape[0])],
        type=schema.TensorType.INT32,
        quantization=schema.QuantizationParametersT(
            scale=scales.astype(np.float32), zeroPoint=np.zeros(len(scales), np.int64)
        ),
        data=np.zeros(int(weights.shape[0]), np.int32),
    )


def _reshape(
    model: Any, graph: Any, source: int, target: int, shape: list[int], schema: Any
) -> Any:
    sizes = flatfile.add_tensor(
        model,
        graph,
        graph.tensors[source],
        shape=[len(shape)],
        type=schema.TensorType.INT32,
        quantization=None,
        data=np.array(shape, np.int32),
    )
    return flatfile.operator(model, schema.BuiltinOperator.RESHAPE, [source, sizes], [target])
