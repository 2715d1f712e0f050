"""How long an export of a network of 25 million weights takes, beside TensorFlow's converter.

ResNet-50 with 90 % of each kernel zeros is converted by the stock converter (with
``EXPERIMENTAL_SPARSITY``) and exported, which builds, runs, compares and times all candidates, in
turns.

    python benchmarks/export_time.py --rounds 3
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import page
from records import RESULTS, update
from stock import stock_file

from keras_l0 import export_tflite, prune


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "export_time.json")
    options = parser.parse_args()
    model = keras.applications.ResNet50(weights=None)
    prune(model, 0.9, method="layerwise")
    none = np.zeros((0,), np.float32)
    stock, ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            start = time.perf_counter()
            file = stock_file(model, "float32", sparse=True, calibration=none)
            stock.append(time.perf_counter() - start)
            start = time.perf_counter()
            report = export_tflite(model, Path(folder) / "m.tflite")
            ours.append(time.perf_counter() - start)
    row = {
        "network": model.name,
        "parameters": model.count_params(),
        "stock_seconds": stock,
        "stock_bytes": len(file),
        "export_seconds": ours,
        "export_bytes": report.bytes,
    }
    update(options.out, ("network",), row)
    ratio = statistics.median(a / b for a, b in zip(ours, stock, strict=True))
    print(f"{model.name}: {ratio:.2f} times as long, {report.bytes:,} bytes, not {len(file):,}.")
    page.update(options.out)


if __name__ == "__main__":
    main()
