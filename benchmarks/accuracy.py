"""How right networks are at a sparsity: ours, tfmot's, and by hard-concrete gates.

Each method trains the same network from the same weights, on the same batches, with Adam at 1e-3,
for as many epochs and along the same cubic ramp:

- ``l2``: an ℓ2 penalty and ``GlobalPrune``;
- ``l2-l0``: ``L2L0`` and ``GlobalPrune``;
- ``tfmot``: an ℓ2 penalty and ``prune_low_magnitude``, as its guide shows it: one sparsity for all
  layers;
- ``tfmot-layers``: the same, but each layer has the sparsity that ``l2-l0`` ended with, so that
  what global ranking brings and what ℓ0 brings are told apart;
- ``hard-concrete``: Louizos et al.'s gates, which choose the sparsity themselves by a strength.

Strengths are chosen by ``--choose`` on 10,000 images held back from the training data, for each
method and network with one seed at a sparsity of 97 %; test images are seen by the cells alone.
Cells that were not measured come first, then the oldest, until the minutes are over.

    python benchmarks/accuracy.py --choose
    python benchmarks/accuracy.py --minutes 15 --workers 2
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import page
import peers
from architectures import ARCHITECTURES
from records import RESULTS, earlier, update

from keras_l0.experiments.datasets import fit_to, load, preprocess

SPARSITIES = (0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
SEEDS = (0, 1, 2)
METHODS = ("l2", "l2-l0", "tfmot", "tfmot-layers", "hard-concrete")
CELL = ("network", "method", "asked", "seed")
TRIED = ("network", "method", "l2", "l0")
LOCK = threading.Lock()
CHOICE = RESULTS / "accuracy_choice.json"
HELD_BACK = 10_000
AT = 0.97
BETA = 10.0


@dataclass(frozen=True)
class Setup:
    """What a network is trained on, and for how long."""

    data: str
    images: int
    epochs: int
    begin: int
    end: int


SETUPS = {
    "lenet_300_100": Setup("mnist", 50_000, 15, 3, 10),
    "lenet_5_caffe": Setup("mnist", 50_000, 10, 2, 7),
    "resnet_8": Setup("cifar10", 20_000, 15, 3, 10),
}

L2S = (1e-6, 1e-5, 1e-4)
L0S = (1e-6, 1e-5, 1e-4)
STRENGTHS = (1e-6, 3e-6, 1e-5, 3e-5)


def write_data(network: str, seen: str, path: Path) -> None:
    """The images that are trained on, and those that are looked at afterwards."""
    setup = SETUPS[network]
    data = preprocess(load(setup.data))
    x, y = data.x_train, data.y_train
    train = slice(0, min(setup.images, len(x) - HELD_BACK))
    looked = data.x_test, data.y_test
    if seen == "validation":
        looked = x[-HELD_BACK:], y[-HELD_BACK:]
    shape = ARCHITECTURES[network].input_shape
    np.savez(
        path,
        x=fit_to(x[train], shape),
        y=y[train].ravel().astype(np.int64),
        x_seen=fit_to(looked[0], shape),
        y_seen=looked[1].ravel().astype(np.int64),
    )


def train(job: dict[str, Any]) -> dict[str, Any]:
    """What came of a job, trained in a process of its own on one core."""
    python = peers.PYTHON if job["method"].startswith("tfmot") else Path(sys.executable)
    alone = {
        "KERAS_BACKEND": "tensorflow" if job["method"].startswith("tfmot") else "jax",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    }
    start = time.monotonic()
    run = subprocess.run(
        [str(python), str(Path(__file__).with_name("accuracy_worker.py"))],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        env={**os.environ, **alone},
        check=False,
    )
    if run.returncode:
        raise RuntimeError(f"{job}: {run.stderr[-2000:]}")
    seconds = round(time.monotonic() - start, 1)
    return {**json.loads(run.stdout.splitlines()[-1]), "seconds": seconds}


def job(network: str, method: str, sparsity: float, seed: int, **settings: Any) -> dict[str, Any]:
    """What the worker is told of one training."""
    setup = SETUPS[network]
    return {
        "network": network,
        "method": method,
        "sparsity": sparsity,
        "seed": seed,
        "epochs": setup.epochs,
        "begin": setup.begin,
        "end": setup.end,
        **settings,
    }


def candidates(network: str) -> Iterator[dict[str, Any]]:
    """The settings that are tried on validation images."""
    for l2 in L2S:
        yield job(network, "tfmot", AT, 0, l2=l2)
        for l0 in (0.0, *L0S):
            yield job(network, "l2-l0" if l0 else "l2", AT, 0, l2=l2, l0=l0, beta=BETA)


def choose(network: str, workers: int, theirs: dict[str, str]) -> None:
    """Tries what was not tried yet."""
    done = [tuple(row[name] for name in TRIED) for row in earlier(CHOICE)]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        data = Path(folder) / "data.npz"
        write_data(network, "validation", data)

        def attempt(one: dict[str, Any]) -> None:
            row = {name: one.get(name) for name in TRIED}
            if tuple(row.values()) not in done:
                found = train({**one, "data": str(data)})
                keep(CHOICE, TRIED, {**row, **found}, theirs)

        list(pool.map(attempt, candidates(network)))


def settings(network: str, method: str) -> dict[str, Any]:
    """The best of those that were tried for a method on a network."""
    name = "tfmot" if method == "tfmot-layers" else method
    rows = [row for row in earlier(CHOICE) if (row["network"], row["method"]) == (network, name)]
    if not rows:
        raise SystemExit(f"Nothing was chosen for {network}: run benchmarks/accuracy.py --choose.")
    best = max(rows, key=lambda row: row["accuracy"])
    return {"l2": best["l2"], "l0": best["l0"] or 0.0, "beta": BETA}


def cells(network: str) -> Iterator[dict[str, Any]]:
    """All that is to be measured on a network; what another needs comes before it."""
    for seed in SEEDS:
        for sparsity in SPARSITIES:
            for method in METHODS[:-1]:
                yield {"network": network, "method": method, "asked": sparsity, "seed": seed}
        for strength in STRENGTHS:
            yield {"network": network, "method": "hard-concrete", "asked": strength, "seed": seed}


def measure(cell: dict[str, Any], data: Path, out: Path, theirs: dict[str, str]) -> None:
    """Trains one cell and keeps what came of it."""
    network, method, asked, seed = (cell[name] for name in CELL)
    if method == "hard-concrete":
        given = job(network, method, 0.0, seed, strength=asked)
    else:
        given = job(network, method, asked, seed, **settings(network, method))
    if method == "tfmot-layers":
        same = {**cell, "method": "l2-l0"}
        found = _rows(out, same)
        if not found:  # another worker may be at it still
            measure(same, data, out, theirs)
            found = _rows(out, same)
        given["sparsities"] = found[0]["layers"]
    keep(out, CELL, {**cell, **train({**given, "data": str(data)})}, theirs)
    print(network, method, asked, seed, flush=True)


def _rows(out: Path, cell: dict[str, Any]) -> list[dict[str, Any]]:
    """What is there of a cell."""
    return [row for row in earlier(out) if all(row[name] == cell[name] for name in CELL)]


def keep(out: Path, names: tuple[str, ...], row: dict[str, Any], theirs: dict[str, str]) -> None:
    """Writes a row, one thread at a time."""
    with LOCK:
        update(out, names, row, **theirs)


def main() -> None:
    """Chooses, or measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=SETUPS, default=list(SETUPS))
    parser.add_argument("--choose", action="store_true", help="try strengths on validation images")
    parser.add_argument("--minutes", type=float, default=12, help="when to end (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "accuracy.json")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    theirs = peers.versions()
    if options.choose:
        for network in options.networks:
            choose(network, options.workers, theirs)
        return
    rows = {tuple(row[name] for name in CELL): row["day"] for row in earlier(options.out)}
    found = [cell for network in options.networks for cell in cells(network)]
    found = [cell for cell in found if theirs or not cell["method"].startswith("tfmot")]
    # Those that were never measured have no day, and come first; sorting keeps the order of a day.
    found.sort(key=lambda cell: rows.get(tuple(cell[name] for name in CELL), ""))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.workers) as pool:
        paths = {network: Path(folder) / f"{network}.npz" for network in options.networks}
        for network, path in paths.items():
            write_data(network, "test", path)

        def attempt(cell: dict[str, Any]) -> bool:
            begins = time.monotonic() < deadline
            if begins:
                measure(cell, paths[cell["network"]], options.out, theirs)
            return begins

        begun = sum(pool.map(attempt, found))
    print(f"{begun} of {len(found)} cells were measured.")
    page.main()


if __name__ == "__main__":
    main()
