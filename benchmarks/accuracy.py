"""How right networks are at a sparsity: ours, tfmot's, and by hard-concrete gates.

Each method trains the same network from the same weights, on the same batches, for as many epochs,
on TensorFlow, with Adam whose rate falls from 1e-3 to 0 along a cosine; all but the gates prune
along the same cubic ramp, at the beginning of the same epochs:

- ``l2``: an ℓ2 penalty and ``GlobalPrune``;
- ``l2-l0``: ``L2L0`` and ``GlobalPrune``;
- ``tfmot``: an ℓ2 penalty and ``prune_low_magnitude``, as its guide shows it: one sparsity for all
  layers;
- ``tfmot-layers``: the same, but each layer has the sparsity that ``l2-l0`` ended with, so that
  what global ranking brings and what ℓ0 brings are told apart;
- ``hard-concrete``: Louizos et al.'s gates, which choose the sparsity themselves by a strength.

The ResNet sees CIFAR-10's images at half their size, so that a training takes under a minute.

Strengths are chosen by ``--choose`` on 10,000 images held back from the training data, the best of
six for each method and network, at 95 % for up to 95 % and at 98 % for more, of the gates none;
test images are seen by the cells alone. Which two of ℓ2 are tried beside three of ℓ0 is each
network's own. Cells that were not measured, or by other settings, come first, then the oldest,
until the minutes are over; a new cell drops those that it cannot be held against. A network whose
strengths are not chosen is skipped.

    python benchmarks/accuracy.py --choose
    python benchmarks/accuracy.py --minutes 15 --workers 2
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import page
import peers
from architectures import ARCHITECTURES
from records import RESULTS, earlier, update
from records import keep as keep_rows

from keras_l0.experiments.datasets import fit_to, load, preprocess

SPARSITIES = (0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
SEEDS = (0, 1, 2)
METHODS = ("l2", "l2-l0", "tfmot", "tfmot-layers", "hard-concrete")
CELL = ("network", "method", "asked", "seed")
TRIED = ("network", "method", "l2", "l0", "asked")
ALIKE = ("images", "batch", "epochs", "begin", "end", "rate")
STRENGTH = ("l2", "l0", "beta")
LOCK = threading.Lock()
CHOICE = RESULTS / "accuracy_choice.json"
HELD_BACK = 10_000
AT = (0.95, 0.98)
"""Sparsities at which strengths are tried: the first for all up to it, the second for more."""
BETA = 10.0
RATE = 1e-3


@dataclass(frozen=True)
class Setup:
    """What a network is trained on, and for how long."""

    data: str
    images: int
    epochs: int
    begin: int
    end: int


SETUPS = {
    "lenet_300_100": Setup("mnist", 50_000, 20, 2, 12),
    "lenet_5_caffe": Setup("mnist", 50_000, 8, 2, 5),
    "resnet_8_halved": Setup("cifar10", 10_000, 15, 3, 10),
}

L2 = (3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
L0 = (1e-6, 3e-6, 1e-5)
"""Strengths that are tried: of ℓ2 all, or two beside each of ℓ0."""
BESIDE_L0 = {
    "lenet_300_100": (3e-5, 1e-4),
    "lenet_5_caffe": (3e-5, 1e-4),
    "resnet_8_halved": (3e-4, 1e-3),
}

STRENGTHS = (3e-6, 1e-5, 3e-5, 1e-4, 3e-4)
"""Of the gates."""


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
        x=shown(x[train], shape),
        y=y[train].ravel().astype(np.int64),
        x_seen=shown(looked[0], shape),
        y_seen=looked[1].ravel().astype(np.int64),
    )


def written(networks: Sequence[str], folder: Path) -> dict[str, Path]:
    """The files of what networks are trained and tested on, of those whose data are at hand."""
    found = {}
    for network in networks:
        path = folder / f"{network}.npz"
        try:
            write_data(network, "test", path)
        except ValueError as error:
            print(f"{network} is skipped: {error}")
        else:
            found[network] = path
    return found


def shown(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Images as a network takes them: those of twice its size with the mean of each 2x2 pixels."""
    if len(shape) == 3 and x.shape[1:3] == (2 * shape[0], 2 * shape[1]):
        x = x.reshape(len(x), shape[0], 2, shape[1], 2, -1).mean((2, 4))
    return fit_to(x, shape)


def train(job: dict[str, Any]) -> dict[str, Any]:
    """What came of a job, trained in a process of its own on one core."""
    python = peers.PYTHON if job["method"].startswith("tfmot") else Path(sys.executable)
    alone = {
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
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
        "images": setup.images,
        "batch": ARCHITECTURES[network].batch,
        "epochs": setup.epochs,
        "begin": setup.begin,
        "end": setup.end,
        "rate": RATE,
        **settings,
    }


def strengths(network: str, method: str) -> list[tuple[float, float]]:
    """The strengths of ℓ2 and ℓ0 that are tried for a method, six for each."""
    l2_and_l0 = BESIDE_L0[network], L0
    return list(itertools.product(*(l2_and_l0 if method == "l2-l0" else (L2, (0.0,)))))


def tries(network: str, method: str) -> Iterator[dict[str, Any]]:
    """What is tried for a method on validation images."""
    for (l2, l0), asked in itertools.product(strengths(network, method), AT):
        yield job(network, method, asked, 0, l2=l2, l0=l0, beta=BETA)


def tried(network: str, method: str) -> list[dict[str, Any]]:
    """What came of the tries of a method by now, with the layers that ours has now."""
    planned = list(tries(network, method))
    rows = [row for row in earlier(CHOICE) if row["settings"] in planned]
    if method != "tfmot-layers" or not rows:
        return rows
    layers = {asked: best(network, "l2-l0", asked)["layers"] for asked in AT}
    return [row for row in rows if alike(row["layers"], layers[row["asked"]])]


def best(network: str, method: str, asked: float) -> dict[str, Any]:
    """What came of the best strengths for a sparsity."""
    at = AT[0] if asked <= AT[0] else AT[1]
    rows = [row for row in tried(network, method) if row["asked"] == at]
    return max(rows, key=lambda row: row["accuracy"])


def is_chosen(network: str) -> bool:
    """Whether all that was to be tried on a network was, but for tfmot where there is none."""
    left = [m for m in METHODS[:-1] if len(tried(network, m)) < len(list(tries(network, m)))]
    return not [m for m in left if not m.startswith("tfmot") or peers.PYTHON.exists()]


def choose(network: str, workers: int, theirs: dict[str, str]) -> None:
    """Tries what was not tried yet."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        data = Path(folder) / "data.npz"
        write_data(network, "validation", data)

        def attempt(one: dict[str, Any]) -> None:
            more: dict[str, Any] = {"data": str(data)}
            if one["method"] == "tfmot-layers":
                more["sparsities"] = best(network, "l2-l0", one["sparsity"])["layers"]
            row = {**{name: one[name] for name in TRIED[:-1]}, "asked": one["sparsity"]}
            row["settings"] = one
            keep(CHOICE, TRIED, {**row, **train({**one, **more})}, theirs)

        for methods in METHODS[:3], METHODS[3:4]:  # the layers of one come from another
            todo = []
            for method in methods:
                if theirs or not method.startswith("tfmot"):
                    done = [row["settings"] for row in tried(network, method)]
                    todo += [one for one in tries(network, method) if one not in done]
            list(pool.map(attempt, todo))


def settings(cell: dict[str, Any]) -> dict[str, Any]:
    """What a cell is trained by."""
    network, method, asked, seed = (cell[name] for name in CELL)
    if method == METHODS[-1]:
        return job(network, method, 0.0, seed, strength=asked)
    chosen = best(network, method, asked)
    return job(network, method, asked, seed, l2=chosen["l2"], l0=chosen["l0"], beta=BETA)


def cells(networks: Iterable[str]) -> Iterator[dict[str, Any]]:
    """All that is to be measured, the sparsest first; what another needs comes before it."""
    for asked in sorted(SPARSITIES, reverse=True):
        for network, seed, method in itertools.product(networks, SEEDS, METHODS[:-1]):
            yield {"network": network, "method": method, "asked": asked, "seed": seed}
    for asked, network, seed in itertools.product(STRENGTHS, networks, SEEDS):
        yield {"network": network, "method": METHODS[-1], "asked": asked, "seed": seed}


def measure(cell: dict[str, Any], data: Path, out: Path, theirs: dict[str, str]) -> None:
    """Trains one cell and keeps what came of it, and what it was trained by."""
    given = settings(cell)
    more: dict[str, Any] = {"data": str(data)}
    if cell["method"] == "tfmot-layers":
        same = {**cell, "method": "l2-l0"}
        if not is_there(out, same):  # another worker may be at it still
            measure(same, data, out, theirs)
        more["sparsities"] = row_of(out, same)["layers"]
    row = {**cell, **train({**given, **more}), "settings": given}
    keep(out, CELL, row, theirs)
    with LOCK:
        keep_rows(out, [old for old in earlier(out) if agree(old, row)])
    print(*(cell[name] for name in CELL), flush=True)


def agree(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two rows can stand in one table: trained alike, and seeds of a cell as strongly."""
    if old["network"] != new["network"]:
        return True
    seeds = all(old[name] == new[name] for name in ("method", "asked"))
    names = [*ALIKE, *(STRENGTH if seeds else ())]
    return all(old["settings"].get(name) == new["settings"].get(name) for name in names)


def row_of(out: Path, cell: dict[str, Any]) -> dict[str, Any]:
    """What came of a cell; empty where it was not measured."""
    rows = [row for row in earlier(out) if all(row[name] == cell[name] for name in CELL)]
    return rows[0] if rows else {}


def is_there(out: Path, cell: dict[str, Any]) -> bool:
    """Whether a cell was measured, by the settings that it has now."""
    row = row_of(out, cell)
    if row.get("settings") != settings(cell):
        return False
    if cell["method"] != "tfmot-layers":
        return True
    layers = row_of(out, {**cell, "method": "l2-l0"}).get("layers")
    return layers is not None and alike(row["layers"], layers)


def alike(theirs: Sequence[float], ours: Sequence[float]) -> bool:
    """Whether layers of tfmot's have the sparsities of ours, but for how it rounds them."""
    return np.allclose(theirs, ours, atol=2e-3)


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
    networks = [network for network in options.networks if is_chosen(network)]
    for network in set(options.networks) - set(networks):
        print(f"{network} is skipped: `python {sys.argv[0]} --choose --networks {network}` first.")

    def measured(cell: dict[str, Any]) -> str:
        return row_of(options.out, cell)["day"] if is_there(options.out, cell) else ""

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.workers) as pool:
        paths = written(networks, Path(folder))
        found = [cell for cell in cells(paths) if theirs or not cell["method"].startswith("tfmot")]
        found.sort(key=measured)  # which keeps the order among those of a day

        def attempt(cell: dict[str, Any]) -> bool:
            begins = time.monotonic() < deadline
            if begins:
                measure(cell, paths[cell["network"]], options.out, theirs)
            return begins

        begun = sum(pool.map(attempt, found))
    print(f"{begun} of {len(found)} cells were measured.")
    page.update(options.out)


if __name__ == "__main__":
    main()
