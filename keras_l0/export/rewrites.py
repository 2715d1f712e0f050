"""Exact rewrites of a file into forms that can be stored smaller."""

from typing import Any

import numpy as np

from keras_l0.export import flatfile
from keras_l0.export.encodings import encode, encode_blocks
from keras_l0.export.runtime import BLOCK_SIZE

_WEIGHT_READERS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
# What a FullyConnected written as a sparse convolution takes besides its weights: two reshapes,
# their results and shapes, a DENSIFY, the sparsity's tables and the operators' codes, rounded up;
# and for each output, where it had no bias, that of a convolution with its scale and zero point.
_CONVOLUTION_BYTES, _BIAS_BYTES = 1000, 16
# A DEQUANTIZE and the tensor that it makes.
_DEQUANTIZE_BYTES = 100
# Of a FullyConnected with sparse blocks.
_BLOCKS_BYTES = 200


def for_any_batch(content: bytes) -> bytes:
    """Reshapes of one sample become reshapes of as many as come: (1, 784) is (-1, 784).

    A file of one sample can then be resized to any batch, as ``resize_tensor_input`` does.

    Args:
        content: a file that takes one sample at a time.

    Returns:
        The file; with a batch of 1 it computes the same.
    """
    model = flatfile.read(content)
    for graph in model.subgraphs:
        for op in graph.operators:
            if flatfile.operator_name(model, op) != "RESHAPE" or len(op.inputs) < 2:
                continue
            x, shape = (graph.tensors[place] for place in op.inputs[:2])
            if x.shape[0] != 1 or not flatfile.has_data(model, shape):
                continue
            sizes = np.array(flatfile.values(model, shape))
            if sizes[0] == 1 and (sizes > 0).all():
                sizes[0] = -1
                op.inputs = [op.inputs[0], flatfile.add_tensor(model, graph, shape, data=sizes)]
                op.builtinOptions = None  # where the sizes stand once more
    return flatfile.write(model)


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
    for graph in model.subgraphs:
        for t in range(len(graph.tensors)):
            tensor = graph.tensors[t]
            users = flatfile.readers(graph, t)
            if (
                flatfile.type_name(tensor) != "int8"
                or not flatfile.has_data(model, tensor)
                or not users
                or not all(
                    flatfile.operator_name(model, op) in _WEIGHT_READERS
                    and flatfile.type_name(graph.tensors[op.outputs[0]]) == "float32"
                    for op in users
                )
            ):
                continue
            float32 = schema.TensorType.FLOAT32
            wide = flatfile.add_tensor(model, graph, tensor, type=float32, quantization=None)
            for op in users:
                op.inputs = [wide if i == t else i for i in op.inputs]
                if hasattr(op.builtinOptions, "asymmetricQuantizeInputs"):
                    op.builtinOptions.asymmetricQuantizeInputs = False
            code = schema.BuiltinOperator.DEQUANTIZE
            graph.operators.insert(0, flatfile.operator(model, code, [t], [wide], version=2))
    return flatfile.write(model)


def small_in_float32(content: bytes) -> bytes:
    """Float16 constants become float32 where the ``DEQUANTIZE`` behind takes more than they save.

    Args:
        content: a float16 file.

    Returns:
        The file, with the same values.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = flatfile.read(content)
    for graph in model.subgraphs:
        for op in list(graph.operators):
            source = int(op.inputs[0]) if len(op.inputs) else -1
            if (
                flatfile.operator_name(model, op) != "DEQUANTIZE"
                or flatfile.type_name(graph.tensors[source]) != "float16"
                or not flatfile.has_data(model, graph.tensors[source])
                or len(flatfile.readers(graph, source)) > 1
                or int(op.outputs[0]) in graph.outputs
            ):
                continue
            values = flatfile.values(model, graph.tensors[source]).astype(np.float32)
            if values.nbytes // 2 < _DEQUANTIZE_BYTES:
                model.buffers.append(schema.BufferT(data=values.tobytes()))
                graph.tensors[op.outputs[0]].buffer = len(model.buffers) - 1
                graph.operators.remove(op)
    return flatfile.write(model)


def convolved(content: bytes) -> bytes:
    """FullyConnected operators in int8 become 1x1 convolutions where that lets them be smaller.

    The runtime takes sparse int8 weights through ``DENSIFY`` in front of a convolution, and in
    front of a FullyConnected no other than blocks of 16. Both compute the same.

    Args:
        content: an int8 file.

    Returns:
        The file, with a reshape before and after each such convolution.
    """
    model = flatfile.read(content)
    for graph in model.subgraphs:
        for op in list(graph.operators):
            if _pays_as_convolution(model, graph, op):
                _convolve(model, graph, op)
    return flatfile.write(model)


def _pays_as_convolution(model: Any, graph: Any, op: Any) -> bool:
    if flatfile.operator_name(model, op) != "FULLY_CONNECTED" or op.builtinOptions.weightsFormat:
        return False
    x, w = (graph.tensors[t] for t in op.inputs[:2])
    y = graph.tensors[op.outputs[0]]
    if {*map(flatfile.type_name, (x, w, y))} != {"int8"} or not flatfile.has_data(model, w):
        return False
    if len(flatfile.readers(graph, op.inputs[1])) > 1 or w.sparsity is not None:
        return False
    array = flatfile.values(model, w)
    otherwise = array.nbytes
    if array.shape[1] % BLOCK_SIZE["int8"] == 0:
        blocks = encode_blocks(array, BLOCK_SIZE["int8"])
        otherwise = min(otherwise, blocks.nbytes + _BLOCKS_BYTES)
    bias = 0 if _has_bias(op) else _BIAS_BYTES * array.shape[0]
    return encode(array).nbytes + _CONVOLUTION_BYTES + bias < otherwise


def _has_bias(op: Any) -> bool:
    return len(op.inputs) > 2 and int(op.inputs[2]) >= 0


def _convolve(model: Any, graph: Any, op: Any) -> None:
    from ai_edge_litert import schema_py_generated as schema

    source, weights, *bias = (int(t) for t in op.inputs)
    target = int(op.outputs[0])
    out, into = (int(size) for size in graph.tensors[weights].shape)
    pixels, maps = [-1, 1, 1, into], [-1, 1, 1, out]
    rows = int(np.prod(graph.tensors[source].shape)) // into
    x = flatfile.add_tensor(model, graph, graph.tensors[source], shape=[rows, *pixels[1:]])
    y = flatfile.add_tensor(model, graph, graph.tensors[target], shape=[rows, *maps[1:]])
    graph.tensors[weights].shape = [out, 1, 1, into]
    if not _has_bias(op):
        bias = [_zero_bias(model, graph, graph.tensors[source], graph.tensors[weights])]
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
        _reshape(model, graph, source, x, pixels),
        convolution,
        _reshape(model, graph, y, target, after),
    ]


def _zero_bias(model: Any, graph: Any, source: Any, weights: Any) -> int:
    """A bias, which an int8 convolution must have, with the scales that the delegate asks for."""
    from ai_edge_litert import schema_py_generated as schema

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


def _reshape(model: Any, graph: Any, source: int, target: int, shape: list[int]) -> Any:
    from ai_edge_litert import schema_py_generated as schema

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
