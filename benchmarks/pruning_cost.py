"""What a pruning costs, in time and memory, beside the obvious way and a copy of the weights.

A network of Dense layers is pruned to 90 % zeros by ``keras_l0.prune``, and by bringing all
magnitudes together and ``numpy.partition``; its weights are put back after each. Each network is
measured in a process of its own, the ways in turns. Extra memory is the peak of the process during
a pruning, less what it had before.

    python benchmarks/pruning_cost.py
    python benchmarks/pruning_cost.py --sizes 25000000 --ways global obvious --out some.json
"""

import argparse
import ctypes
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import memory
import numpy as np
import page
from records import RESULTS, earlier, update

from keras_l0.pruning.targets import find_targets

SPARSITY = 0.9
LAYERS = 10
SIZES = (1_000_000, 10_000_000, 25_000_000, 100_000_000, 1_000_000_000)
WAYS = ("pass", "copy", "obvious", "global", "lamp", "layerwise", "random", "blocks", "neurons")
LARGE = 200_000_000
"""From so many weights on each is measured once, and the obvious way, which wants most, not."""


def network(size: int, dtype: str) -> Any:
    """Ten Dense layers side by side, of so many weights in all, and one neuron behind them."""
    side = math.isqrt(size // LAYERS)
    inputs = keras.Input((side,), dtype=dtype)
    dense = [keras.layers.Dense(side, use_bias=False, dtype=dtype) for _ in range(LAYERS)]
    together = keras.layers.Concatenate(dtype=dtype)([layer(inputs) for layer in dense])
    return keras.Model(inputs, keras.layers.Dense(1, use_bias=False, dtype=dtype)(together))


def obvious(kernels: Sequence[Any]) -> None:
    """Pruning as it is written by hand."""
    from keras import ops

    values = [ops.convert_to_numpy(kernel) for kernel in kernels]
    flat = np.concatenate([np.abs(w).ravel() for w in values])
    threshold = np.partition(flat, round(SPARSITY * flat.size) - 1)[round(SPARSITY * flat.size) - 1]
    for kernel, w in zip(kernels, values, strict=True):
        kernel.assign(np.where(np.abs(w) <= threshold, np.zeros((), w.dtype), w))


def one_pass(values: Sequence[Any]) -> None:
    """Reads all weights once."""
    for w in values:
        w.view(f"u{w.dtype.itemsize}").max()


def masked_copy(values: Sequence[Any]) -> None:
    """Copies all weights, those below 0.5 as zeros."""
    for w in values:
        np.where(w > w.dtype.type(0.5), w, w.dtype.type(0))


def ways(model: Any) -> dict[str, Callable[[], Any]]:
    """Each way of pruning to be measured, by its name."""
    from keras_l0 import prune
    from keras_l0.pruning import plan, quota, scores, units
    from keras_l0.pruning.goals import Goal

    kernels = [layer.kernel for layer in model.layers if layer.weights]

    def blocks() -> None:
        found = find_targets(model)
        quotas = plan.global_plan(model, found, Goal(SPARSITY), units.Block(4, 1))
        quota.prune_to(quotas, 1.0, scores.magnitude)

    return {
        "obvious": lambda: obvious(kernels),
        "global": lambda: prune(model, SPARSITY, score="magnitude"),
        "lamp": lambda: prune(model, SPARSITY, score="lamp"),
        "layerwise": lambda: prune(model, SPARSITY, method="layerwise"),
        "random": lambda: prune(model, SPARSITY, method="random", seed=1),
        "blocks": blocks,
        "neurons": lambda: prune(model, method="neuron", fraction=0.5),
    }


def cell(size: int, dtype: str, names: Sequence[str], rounds: int) -> dict[str, Any]:
    """Seconds and extra MiB of each way on a network, in turns."""
    model = network(size, dtype)
    kernels = [layer.kernel for layer in model.layers if layer.weights]
    rng = np.random.default_rng(0)
    weights = find_targets(model).live
    pruning = ways(model)
    found: dict[str, Any] = {"weights": sum(math.prod(kernel.shape) for kernel in kernels)}
    found["seconds"] = {name: [] for name in names}
    found["extra_mib"] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            for kernel in kernels:
                values = rng.standard_normal(kernel.shape, np.float32)
                kernel.assign(values.astype(kernel.numpy().dtype, copy=False))
            del values
            run = pruning.get(name)
            if run is None:  # what needs the weights in NumPy, which is not timed
                base = {"pass": one_pass, "copy": masked_copy}[name]
                run = partial(base, [weight.values() for weight in weights])
            before = _settle()
            start = time.perf_counter()
            run()
            found["seconds"][name].append(time.perf_counter() - start)
            found["extra_mib"][name].append(memory.mib("VmHWM") - before)
            del run
    found["peak_mib"] = memory.mib("VmHWM")
    return found


def _settle() -> float:
    """MiB of this process now, from where its peak counts anew."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed before is not to be used unseen
    Path("/proc/self/clear_refs").write_text("5")
    return memory.mib("VmRSS")


def main() -> None:
    """Measures each network in a process of its own, and keeps its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "pruning_cost.json")
    parser.add_argument("--cell", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        (size,), (dtype,) = options.sizes, options.dtypes
        print(json.dumps(cell(size, dtype, options.ways, options.rounds)))
        return
    backend = keras.config.backend()
    done = [(row["size"], row["dtype"], row["backend"]) for row in earlier(options.out)]
    asked = itertools.product(options.sizes, options.dtypes, [backend])
    if set(options.ways) < set(WAYS) and set(asked) & set(done):
        parser.error(f"{options.out} has more ways than these: give another --out.")
    for size in options.sizes:
        for dtype in options.dtypes:
            large = size > LARGE
            names = [name for name in options.ways if not large or name != "obvious"]
            command = [sys.executable, __file__, "--cell", "--sizes", str(size), "--dtypes", dtype]
            command += ["--ways", *names, "--rounds", str(1 if large else options.rounds)]
            quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": backend}
            run = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **quiet}
            )
            row = {
                "size": size,
                "dtype": dtype,
                "backend": backend,
                **json.loads(run.stdout.splitlines()[-1]),
            }
            update(options.out, ("size", "dtype", "backend"), row)
            print(size, dtype, *(f"\n  {name}: {_told(row, name)}" for name in names))
    page.update(options.out)


def _told(row: dict[str, Any], name: str) -> str:
    seconds = statistics.median(row["seconds"][name])
    return f"{seconds:.4f} s, {statistics.median(row['extra_mib'][name]):.0f} MiB more"


if __name__ == "__main__":
    main()
