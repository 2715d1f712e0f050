"""Run under emulation: one TFLite file, checked and measured, told as a line of JSON.

    python guest.py FILE SAMPLES

SAMPLES is what ``keras_l0/export/runner.py`` reads: arrays ``input:NAME`` and ``output:NAME``,
their first axis the run.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

# At the end: a module beside it has the name of one of Python's own.
sys.path.append(str(Path(__file__).parents[2] / "keras_l0" / "export"))
from runner import deviation


def main(path: str, samples: str) -> dict[str, Any]:
    """The fields of ``emulation.OnArm``, but for the instructions, which the host counts."""
    with np.load(samples) as archive:
        arrays = dict(archive)
    inputs = {name[6:]: array for name, array in arrays.items() if name.startswith("input:")}
    expected = {name[7:]: array for name, array in arrays.items() if name.startswith("output:")}
    found: dict[str, Any] = {}
    try:
        for key, kind in (
            ("plain_deviation", OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES),
            ("deviation", OpResolverType.AUTO),
        ):
            interpreter = Interpreter(
                model_path=path, num_threads=1, experimental_op_resolver_type=kind
            )
            received = _outputs(interpreter, inputs)
            found[key] = deviation(list(expected.values()), [received[name] for name in expected])
    except (RuntimeError, ValueError) as error:
        return {"fault": " ".join(str(error).split()), **found}
    return {"fault": "", **found, **_timed(interpreter)}


def _outputs(interpreter: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    # The interpreter cannot be invoked by itself for as long as the runner exists.
    runner = interpreter.get_signature_runner()
    runs = [
        runner(**{name: array[i] for name, array in inputs.items()})
        for i in range(len(next(iter(inputs.values()))))
    ]
    return {name: np.stack([run[name] for run in runs]) for name in runs[0]}


def _timed(interpreter: Any) -> dict[str, Any]:
    """Milliseconds of an invocation, and marks for the host to count instructions from.

    Between the last two marks is one invocation more than between the first two; so what the
    marks and the loop cost goes away in the difference.
    """
    turns = []
    os.getppid()
    for count in (1, 2):
        for _ in range(count):
            start = time.perf_counter()
            interpreter.invoke()
            turns.append(time.perf_counter() - start)
        os.getppid()
    return {"milliseconds": min(turns) * 1e3}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
