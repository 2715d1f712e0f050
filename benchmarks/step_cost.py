"""What a training step costs: plain, with Keras' L2, with L2L0, with held zeros, and with tfmot.

Each kind trains in a process of its own, an epoch of a few steps at a time, all in turns, so that a
drift of the machine's speed hits all; a turn counts by its median step, a ratio is that of
neighbours, and their median counts. Only the steps are timed, not what callbacks do between epochs.
tfmot runs in ``.peers``, which ``make peers`` makes.

    python benchmarks/step_cost.py
    python benchmarks/step_cost.py --kinds l2 relevance --backends jax --out relevance.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import page
import peers
from architectures import ARCHITECTURES
from records import RESULTS, earlier, update
from tables import THEIRS, step_ratios

KINDS = ("plain", "l2", "l2l0", "l2l0-held", "relevance", "relevance-auto")
USUAL = KINDS[:4]
STEPS = {
    "lenet_300_100": 101,
    "wide_dense": 3,
    "lenet_5_caffe": 9,
    "vgg_9": 3,
    "attention_64": 31,
    "attention_512": 3,
}
COMPILING = 3  # the first turns compile, and prune


class Worker:
    """A process that trains when it has the turn."""

    def __init__(self, network: str, kind: str, backend: str | None) -> None:
        python = peers.PYTHON if backend is None else Path(sys.executable)
        script = Path(__file__).with_name("step_worker.py")
        command = [str(python), str(script), network, kind, str(STEPS[network])]
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": backend or "tensorflow"}
        self.name = kind if backend is None else f"{kind} {backend}"
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, as long as the process
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **quiet},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def tell(self, word: str) -> dict[str, Any]:
        """Gives the turn, or ends it; what the process answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        status = self._process.wait()
        self._errors.seek(0)
        raise RuntimeError(f"{self.name} ended with status {status}: {self._errors.read()[-2000:]}")


def measure(
    network: str, kinds: list[str], backends: list[str], theirs: bool, rounds: int
) -> dict[str, Any]:
    """Seconds a step of each kind, in each round, and what each used."""
    workers = [Worker(network, kind, backend) for backend in backends for kind in kinds]
    workers += [Worker(network, kind, None) for kind in THEIRS if theirs]
    seconds: dict[str, list[list[float]]] = {worker.name: [] for worker in workers}
    for number in range(COMPILING + rounds):
        for worker in workers:
            found = worker.tell("go")["seconds"]
            if number >= COMPILING:
                seconds[worker.name].append(found)
    return {
        "network": network,
        "steps": STEPS[network],
        "batch": ARCHITECTURES[network].batch,
        "seconds": seconds,
        "used": {worker.name: worker.tell("end") for worker in workers},
    }


def main() -> None:
    """Measures and keeps each network's figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(USUAL))
    parser.add_argument(
        "--backends", nargs="+", choices=("tensorflow", "jax"), default=["tensorflow", "jax"]
    )
    parser.add_argument("--rounds", type=int, default=11, help="turns of each (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "step_cost.json")
    options = parser.parse_args()
    theirs = peers.versions()
    asked = {f"{kind} {backend}" for kind in options.kinds for backend in options.backends}
    asked |= set(THEIRS if theirs else ())
    for row in earlier(options.out):
        if row["network"] in options.networks and not asked >= set(row["seconds"]):
            parser.error(f"{options.out} has more kinds than these: give another --out.")
    for network in options.networks:
        row = measure(network, options.kinds, options.backends, bool(theirs), options.rounds)
        update(options.out, ("network",), row, **theirs)
        for name, found in step_ratios(row).items():
            print(f"{network}, {name}: {statistics.median(found):.3f} of L2's time")
    page.update(options.out)


if __name__ == "__main__":
    main()
