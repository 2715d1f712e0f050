"""What the experiments ask of their ``.tflite`` files: answers, times and memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_l0.export.bench import bench


def answers(path: Path, x: np.ndarray) -> np.ndarray:
    """The class of largest output for each sample, or for each of its pixels."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path), num_threads=1)
    runner.allocate_tensors()
    (given,), (taken,) = runner.get_input_details(), runner.get_output_details()
    found = []
    for sample in x:
        runner.set_tensor(given["index"], sample[None])
        runner.invoke()
        found.append(runner.get_tensor(taken["index"])[0].argmax(-1))
    return np.stack(found)


def add_timings(figures: dict[str, Any], files: Mapping[str, Path]) -> None:
    """Adds latency, also over the first file's, and the runtime's peak memory to each kind's.

    Files that are gone are those of an earlier run, and were timed by then.
    """
    if all(path.exists() for path in files.values()):
        found = bench(list(files.values()), seconds=20)
        for kind, timing in zip(files, found.timings, strict=True):
            figures[kind]["latency_ms"] = timing.latency_ms
            figures[kind]["latency_ratio"] = timing.ratio
            figures[kind]["peak_memory"] = timing.peak_memory
