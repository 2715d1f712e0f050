"""How long it takes to import keras_l0 beside Keras alone, and to ask the program for its help.

Each is a process of its own, in turns; what ``import keras_l0`` and the help add is timed inside a
process that has imported Keras already, since whole processes vary by more.

    python benchmarks/start_up.py --rounds 9
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import page
from records import RESULTS, update

PYTHON = sys.executable
ADDED = "import keras, time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
HELP = "from keras_l0_parser import parser; parser().format_help()"
WAYS = {
    "import keras": [PYTHON, "-c", "import keras"],
    "import keras_l0": [PYTHON, "-c", "import keras_l0"],
    "keras-l0 --help": [str(Path(PYTHON).with_name("keras-l0")), "--help"],
    "import keras_l0, added": [PYTHON, "-c", ADDED.format("import keras_l0")],
    "keras-l0 --help, added": [PYTHON, "-c", ADDED.format(HELP)],
}


def measure(backend: str, rounds: int) -> dict[str, Any]:
    """Seconds of each, in each round."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(1 + rounds):
        for name, command in WAYS.items():
            start = time.perf_counter()
            run = subprocess.run(
                command, capture_output=True, text=True, check=True, env=environment
            )
            took = time.perf_counter() - start
            if number:  # the first turn fills the disk's cache
                seconds[name].append(float(run.stdout) if "added" in name else took)
    return {"backend": backend, "seconds": seconds}


def main() -> None:
    """Measures, keeps and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", default=["tensorflow", "jax"])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "start_up.json")
    options = parser.parse_args()
    for backend in options.backends:
        row = measure(backend, options.rounds)
        update(options.out, ("backend",), row)
        found = {name: statistics.median(seconds) for name, seconds in row["seconds"].items()}
        print(backend, *(f"  {name}: {seconds:.3f} s" for name, seconds in found.items()), sep="\n")
    page.update(options.out)


if __name__ == "__main__":
    main()
