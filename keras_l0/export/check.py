"""Does a TFLite file run, is it right, and how fast is it?"""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_l0.export.samples import Arrays

_ROUNDS = 15
_ROUND_SECONDS = 0.004
_TOTAL_SECONDS = 1.0


def run(
    content: bytes, inputs: tuple[str, ...], outputs: tuple[str, ...], batches: list[Arrays]
) -> list[Arrays]:
    """Runs a file in the default interpreter, as a device would.

    Args:
        content: the file, with one signature.
        inputs: the signature's input names, in the order of the arrays.
        outputs: its output names, in the order wanted.
        batches: for each run an array for each input.

    Returns:
        For each run an array for each output.

    Raises:
        RuntimeError: if the interpreter cannot prepare or run the file.
        ValueError: if the interpreter cannot read it.
    """
    runner = _interpreter(content).get_signature_runner()
    results = (runner(**dict(zip(inputs, batch, strict=True))) for batch in batches)
    return [[np.array(result[name]) for name in outputs] for result in results]


def deviation(expected: list[Arrays], received: list[Arrays]) -> float:
    r"""The largest deviation over the largest output.

    .. math:: \max |y - \hat y| \; / \; \max |y|

    over all batches and elements of an output, the largest of the outputs; the numerator alone
    where all :math:`y` of an output are 0.

    Args:
        expected: the outputs :math:`y`, finite, for each batch and output.
        received: the outputs :math:`\hat y`, in the same order.

    Returns:
        The deviation; infinite where ``received`` has another shape or is not finite.
    """
    worst = 0.0
    for wanted, got in zip(zip(*expected, strict=True), zip(*received, strict=True), strict=True):
        largest, scale = 0.0, 0.0
        for y, y_hat in zip(wanted, got, strict=True):
            if y.shape != y_hat.shape or not np.isfinite(y_hat).all():
                return float("inf")
            if y.size:
                difference = y.astype(np.float64) - y_hat.astype(np.float64)
                largest = max(largest, float(np.abs(difference).max()))
                scale = max(scale, float(np.abs(y.astype(np.float64)).max()))
        worst = max(worst, largest / (scale or 1.0))
    return worst


def latencies(contents: list[bytes], inputs: tuple[str, ...], batch: Arrays) -> list[list[float]]:
    """Milliseconds of one invocation, for each file and turn, on one thread.

    The files take turns, so that a slow moment of the machine meets all of them, and
    each turn is as many invocations as take some milliseconds, the clock being coarse
    for a small network. All take about a second, or one turn each where a single
    invocation takes longer. Compare two files by the ratios of their turns: a machine that
    is shared has fast and slow moments, and each file's median may fall into another.

    Args:
        contents: the files.
        inputs: their signatures' input names, in the order of the arrays.
        batch: an array for each input.

    Returns:
        The turns of each file, in the order of the files.
    """
    invokers = [_prepared(content, inputs, batch) for content in contents]
    repeats = []
    for interpreter in invokers:
        seconds = _seconds(interpreter, 1)
        repeats.append(max(1, round(_ROUND_SECONDS / max(seconds, 1e-7))))
    turns: list[list[float]] = [[] for _ in contents]
    start = time.perf_counter()
    for _ in range(_ROUNDS):
        for turn, interpreter, count in zip(turns, invokers, repeats, strict=True):
            turn.append(_seconds(interpreter, count) / count * 1e3)
        if time.perf_counter() - start > _TOTAL_SECONDS:
            break
    return turns


def _flat(batches: list[Arrays]) -> list[NDArray[Any]]:
    return [array for batch in batches for array in batch]


def _interpreter(content: bytes, threads: int | None = None) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_content=content, num_threads=threads)


def _prepared(content: bytes, inputs: tuple[str, ...], batch: Arrays) -> Any:
    interpreter = _interpreter(content, threads=1)
    tensors = interpreter.get_signature_runner().get_input_details()
    for name, array in zip(inputs, batch, strict=True):
        interpreter.resize_tensor_input(tensors[name]["index"], array.shape)
    interpreter.allocate_tensors()
    for name, array in zip(inputs, batch, strict=True):
        interpreter.set_tensor(tensors[name]["index"], array)
    interpreter.invoke()
    return interpreter


def _seconds(interpreter: Any, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        interpreter.invoke()
    return time.perf_counter() - start
