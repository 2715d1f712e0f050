"""Sparse convolutions of the runtime on phones: where they work, and where they go wrong.

The default delegate (XNNPACK) turns a cluster of operators to channels-first, with sparse
kernels for its 1x1 convolutions, if the file has a ``DENSIFY`` and more than two thirds of
their weights are zeros: on ARM always, on x86 only without AVX. The cluster begins at an
*entry*, a 3x3 convolution of stride 2 over 3 channels with an explicit padding of 1, and there
must be an exit (``MEAN``) somewhere. It is not asked whether the cluster itself ends at one: the
outputs of an unfinished cluster are read in the wrong order, and the file's outputs are wrong.

The conditions are those of XNNPACK's ``xnn_check_nchw_compatibility`` and
``xnn_subgraph_rewrite_for_nchw`` (``src/subgraph.c``), narrowed to what is sure to fit.
"""

import math
from typing import Any

import numpy as np

from keras_l0.export import flatfile

# More of a cluster's 1x1 weights than this are zeros, or its kernels stay dense.
_SPARSE_FROM = 2 / 3

_ELEMENTWISE = ("RELU", "RELU6", "HARD_SWISH", "LOGISTIC")
# What the delegate does not count to a cluster behind its exit. A 1x1 convolution there joins it,
# and then the file does not prepare.
_LEAVES_CLUSTER = {"RESHAPE", "SQUEEZE"}
_ACTIVATIONS = 4  # NONE, RELU, RELU_N1_TO_1, RELU6


def entries(model: Any, graph: Any) -> list[Any]:
    """The operators at which the delegate begins a cluster."""
    return [op for op in graph.operators if _is_entry(model, graph, op)]


def cluster(model: Any, graph: Any, entry: Any) -> tuple[list[Any], str]:
    """The operators from an entry on, and why the delegate would get them wrong.

    Args:
        model: of which the graph is.
        graph: with the entry.
        entry: of ``entries``.

    Returns:
        The cluster's operators; and a reason, empty if the cluster is whole: everything that
        reads a result of it is in it, up to the ``MEAN`` at its end.
    """
    members, known = [entry], {int(entry.outputs[0])}
    queue = [entry]
    while queue:
        op = queue.pop(0)
        output = int(op.outputs[0])
        name = flatfile.operator_name(model, op)
        if name == "MEAN":
            behind = [flatfile.operator_name(model, o) for o in flatfile.readers(graph, output)]
            if len(graph.tensors[output].shape) == 4:
                if output in graph.outputs:
                    return members, "MEAN with kept dimensions is one of the model's outputs"
                if not set(behind) <= _LEAVES_CLUSTER:
                    return members, f"MEAN with kept dimensions is read by {' and '.join(behind)}"
            continue
        if output in graph.outputs:
            return members, f"the output of {name} is one of the model's outputs"
        for reader in flatfile.readers(graph, output):
            if any(reader is member for member in members):
                continue
            if not _fits(model, graph, reader):
                reason = f"{flatfile.operator_name(model, reader)} cannot be part of it"
                return members, reason
            step = _after_padding(model, graph, reader)
            members.append(step)
            known.add(int(step.outputs[0]))
            queue.append(step)
    for op in members[1:]:
        for t in _moving_inputs(model, graph, op):
            if t not in known:
                return members, "one of its operators reads a tensor from outside"
    return members, ""


def sparse_convolutions(model: Any, graph: Any) -> dict[int, str]:
    """The convolutions behind an entry, by identity, with why they have no sparse kernels.

    Args:
        model: of which the graph is.
        graph: with the convolutions.

    Returns:
        For each an empty text if the delegate computes with its zeros, else the reason.
    """
    found: dict[int, str] = {}
    densify = any(flatfile.operator_name(model, op) == "DENSIFY" for op in graph.operators)
    for entry in entries(model, graph):
        members, reason = cluster(model, graph, entry)
        inner = [op for op in members[1:] if flatfile.operator_name(model, op) == "CONV_2D"]
        weights = [flatfile.constant_behind(model, graph, int(op.inputs[1])) for op in inner]
        stored = [(w, flatfile.stored_values(model, w)) for w in weights if w is not None]
        size = sum(math.prod(map(int, w.shape)) for w, _ in stored)
        zeros = 1 - sum(np.count_nonzero(values) for _, values in stored) / max(size, 1)
        if reason:
            reason = f"its cluster of convolutions is broken: {reason}"
        elif not densify:
            reason = "no constant of the file is stored sparse, for which the runtime looks first"
        elif zeros <= _SPARSE_FROM:
            reason = f"{zeros:.1%} zeros in its cluster: more than 2/3 are needed"
        found |= {id(op): reason for op in inner}
    return found


def disarm(content: bytes) -> tuple[bytes, list[str]]:
    """The file such that the delegate leaves alone each cluster that it would get wrong.

    The padding before the entry becomes a ``PADV2`` with a constant of 0, the same values, which
    the delegate does not fold into the convolution.

    Args:
        content: a TFLite file.

    Returns:
        The file, and a reason for each cluster that was taken apart.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = flatfile.read(content)
    reasons = []
    for graph in model.subgraphs:
        for entry in entries(model, graph):
            _, reason = cluster(model, graph, entry)
            if not reason:
                continue
            reasons.append(reason)
            padding = _padding_before(model, graph, entry)
            tensor = graph.tensors[padding.outputs[0]]
            zero = flatfile.add_tensor(
                model, graph, tensor, shape=[1], quantization=None, data=np.zeros(1, np.float32)
            )
            padding.opcodeIndex = flatfile.operator_code(model, schema.BuiltinOperator.PADV2, 1)
            padding.inputs = [*padding.inputs, zero]
            padding.builtinOptionsType = schema.BuiltinOptions.PadV2Options
            padding.builtinOptions = schema.PadV2OptionsT()
    return (flatfile.write(model) if reasons else content), reasons


def would_crash(content: bytes) -> bool:
    """Whether the delegate would crash on ARM as it counts the zeros of int8 weights.

    Where a file has a ``DENSIFY`` and a float32 ``MEAN``, it counts the zeros of every fully
    connected operator and 1x1 convolution, and reads int8 ones as it cannot.
    """
    model = flatfile.read(content)
    for graph in model.subgraphs:
        names = [flatfile.operator_name(model, op) for op in graph.operators]
        exits = any(
            name == "MEAN" and _is_float(graph, op.outputs[0])
            for name, op in zip(names, graph.operators, strict=True)
        )
        int8 = any(
            name in ("FULLY_CONNECTED", "CONV_2D")
            and flatfile.type_name(graph.tensors[op.inputs[1]]) == "int8"
            for name, op in zip(names, graph.operators, strict=True)
        )
        if "DENSIFY" in names and exits and int8:
            return True
    return False


def _is_entry(model: Any, graph: Any, op: Any) -> bool:
    if flatfile.operator_name(model, op) != "CONV_2D" or not _is_float(graph, op.outputs[0]):
        return False
    options = op.builtinOptions
    return (
        tuple(graph.tensors[op.inputs[1]].shape[1:]) == (3, 3, 3)
        and (options.strideH, options.strideW) == (2, 2)
        and (options.dilationHFactor, options.dilationWFactor) == (1, 1)
        and _padding_before(model, graph, op) is not None
        and _pads(model, graph, _padding_before(model, graph, op)) == 1
    )


def _fits(model: Any, graph: Any, op: Any) -> bool:
    """Whether the operator, or the one behind it if it is a padding, is sure to be converted."""
    name = flatfile.operator_name(model, op)
    if not _is_float(graph, op.outputs[0]):
        return False
    shape = graph.tensors[op.outputs[0]].shape
    options = op.builtinOptions
    if name == "PAD":
        step = _after_padding(model, graph, op)
        return step is not op and _fits(model, graph, step)
    if name == "CONV_2D":
        filters = graph.tensors[op.inputs[1]].shape
        source = graph.tensors[op.inputs[0]].shape
        return (
            tuple(filters[1:3]) == (1, 1)
            and filters[3] == source[3]
            and (options.strideH, options.strideW) == (1, 1)
            and options.fusedActivationFunction < _ACTIVATIONS
        )
    if name == "DEPTHWISE_CONV_2D":
        return _depthwise_fits(model, graph, op)
    if name == "ADD":
        inputs = _moving_inputs(model, graph, op)
        return (
            len(set(inputs)) == 2
            and all(tuple(graph.tensors[t].shape) == tuple(shape) for t in inputs)
            and len(shape) == 4
            and options.fusedActivationFunction < _ACTIVATIONS
        )
    if name == "MEAN":
        axes = graph.tensors[op.inputs[1]]
        rank4 = len(graph.tensors[op.inputs[0]].shape) == 4
        return rank4 and sorted(flatfile.values(model, axes).ravel().tolist()) == [1, 2]
    return name in _ELEMENTWISE and len(shape) == 4


def _depthwise_fits(model: Any, graph: Any, op: Any) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    options = op.builtinOptions
    _, height, width, _ = graph.tensors[op.inputs[1]].shape
    stride = options.strideH
    if (
        options.depthMultiplier != 1
        or (options.dilationHFactor, options.dilationWFactor) != (1, 1)
        or options.strideW != stride
        or options.fusedActivationFunction >= _ACTIVATIONS
        or (height, width) not in ((3, 3), (5, 5))
    ):
        return False
    if options.padding == schema.Padding.SAME:
        return bool(stride == 1)
    before = _padding_before(model, graph, op)
    return stride in (1, 2) and before is not None and _pads(model, graph, before) == height // 2


def _padding_before(model: Any, graph: Any, op: Any) -> Any:
    """The ``PAD`` that the delegate folds into a VALID convolution, or ``None``."""
    from ai_edge_litert import schema_py_generated as schema

    if op.builtinOptions.padding != schema.Padding.VALID:
        return None
    source = int(op.inputs[0])
    for other in graph.operators:
        if source in other.outputs:
            alone = len(flatfile.readers(graph, source)) == 1 and source not in graph.outputs
            is_padding = flatfile.operator_name(model, other) == "PAD"
            return other if is_padding and alone else None
    return None


def _pads(model: Any, graph: Any, padding: Any) -> int | None:
    """By how much a ``PAD`` pads height and width on each side; ``None`` if unevenly."""
    tensor = graph.tensors[padding.inputs[1]]
    if not flatfile.has_data(model, tensor):
        return None
    amounts = flatfile.values(model, tensor).tolist()
    if len(amounts) != 4 or amounts[0] != [0, 0] or amounts[3] != [0, 0]:
        return None
    sides = {*amounts[1], *amounts[2]}
    return int(sides.pop()) if len(sides) == 1 else None


def _after_padding(model: Any, graph: Any, op: Any) -> Any:
    """The convolution that a ``PAD`` is folded into, or the operator itself."""
    if flatfile.operator_name(model, op) != "PAD":
        return op
    following = flatfile.readers(graph, int(op.outputs[0]))
    if len(following) == 1 and flatfile.operator_name(model, following[0]) == "DEPTHWISE_CONV_2D":
        return following[0]
    return op


def _moving_inputs(model: Any, graph: Any, op: Any) -> list[int]:
    """The inputs that are no constants, a folded padding's own input in its stead."""
    found = []
    for t in map(int, op.inputs):
        if t < 0 or flatfile.constant_behind(model, graph, t) is not None:
            continue
        source = next((o for o in graph.operators if t in o.outputs), None)
        if source is not None and flatfile.operator_name(model, source) == "PAD":
            t = int(source.inputs[0])
        found.append(t)
    return found


def _is_float(graph: Any, tensor: int) -> bool:
    return flatfile.type_name(graph.tensors[tensor]) == "float32"
