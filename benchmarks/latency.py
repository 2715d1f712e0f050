"""What neuron pruning does to latency: the time of each file next to its multiply-adds.

Networks with random weights, since only shapes matter, have their filters pruned to three shares
of the multiply-adds, to any counts of channels and to multiples of 8, and are shrunk; the dense
``.tflite`` files, float32 and int8, take turns on one thread, and the median ratio over the whole
network's file stands beside that of the multiply-adds::

    KERAS_BACKEND=tensorflow python benchmarks/latency.py

Each network is written as soon as it is done, and left out when run again.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from narrower import multiply_adds
from records import conclude

from keras_l0 import export_tflite, prune, shrink
from keras_l0.experiments import convolutional
from keras_l0.export.bench import bench
from keras_l0.files import write_text
from keras_l0.text import table
from keras_l0.versions import versions

RESULTS = Path(__file__).parent / "results" / "latency.json"
FLOPS = (0.25, 0.5, 0.75)
ROUND_TO = (1, 8)
KINDS = {"float32": None, "int8": "int8"}
NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "VGG-16, 32x32": convolutional.vgg_16,
    "ResNet-20, 32x32": convolutional.resnet_20,
    "MobileNetV2, 224x224": lambda: keras.applications.MobileNetV2(weights=None),
}


def measured(name: str, seconds: float) -> list[dict[str, Any]]:
    """A row for each kind of file, share of the multiply-adds and rounding."""
    settings = [(0.0, 1), *((flops, to) for flops in FLOPS for to in ROUND_TO)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, quantize in KINDS.items():
            left: list[float] = []
            files: list[Path] = []
            for place, (flops, round_to) in enumerate(settings):
                keras.utils.set_random_seed(0)
                model = NETWORKS[name]()
                whole = multiply_adds(model)
                if flops:
                    prune(model, method="neuron", flops=flops, round_to=round_to)
                    model = shrink(model)
                left.append(multiply_adds(model) / whole)
                images = np.random.default_rng(0).normal(size=(8, *model.input_shape[1:]))
                images = images.astype(np.float32)
                kept = Path(folder) / f"{kind}_{place}"
                export_tflite(
                    model,
                    Path(folder) / "chosen.tflite",
                    quantize=quantize,
                    calibration=images if quantize else None,
                    tolerance=100.0,  # random weights: only shapes matter
                    shrink=False,
                    keep_candidates=kept,
                )
                files.append(kept / f"{kind}-dense.tflite")
            timings = bench(files, seconds=seconds).timings
            rows += [
                {
                    "network": name,
                    "kind": kind,
                    "flops_asked": flops,
                    "round_to": round_to,
                    "multiply_adds": share,
                    "latency": one.ratio,
                    "latency_ms": one.latency_ms,
                    "bytes": one.bytes,
                }
                for (flops, round_to), share, one in zip(settings, left, timings, strict=True)
            ]
    return rows


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--seconds", type=float, default=20.0, help="of timing for each kind")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    for name in options.networks:
        if name not in {row["network"] for row in rows}:
            rows += measured(name, options.seconds)
            write_text(options.out, json.dumps({"versions": versions(), "rows": rows}, indent=1))
    lines = [
        [
            row["network"],
            row["kind"],
            str(row["round_to"]),
            f"{row['multiply_adds']:.3f}",
            f"{row['latency']:.3f}",
            f"{row['latency_ms']:.3f}",
            f"{row['bytes']:,}",
        ]
        for row in rows
    ]
    text = table(["network", "kind", "round to", "multiply-adds", "latency", "ms", "bytes"], lines)
    conclude(options.out, text)


if __name__ == "__main__":
    main()
