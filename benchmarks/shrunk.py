"""What taking dead neurons out saves of a network whose weights were pruned.

The trained and pruned LeNet-300-100 that ``benchmarks/export.py --models FOLDER`` keeps is shrunk
and exported with and without shrinking; the float32 files take turns on one thread::

    python benchmarks/shrunk.py FOLDER/LeNet-300-100_at_96x.keras
"""

import argparse
import json
import tempfile
from pathlib import Path

import keras

from keras_l0 import export_tflite, shrink
from keras_l0.export.bench import bench
from keras_l0.files import write_text
from keras_l0.versions import versions

RESULTS = Path(__file__).parent / "results" / "shrunk.json"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    model = keras.saving.load_model(options.model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dense, shrunk = folder / "dense", folder / "shrunk"
        export_tflite(model, folder / "m.tflite", shrink=False, keep_candidates=dense)
        export_tflite(model, folder / "m.tflite", keep_candidates=shrunk)
        files = [dense / "float32-dense.tflite", shrunk / "shrunk-float32-dense.tflite"]
        whole, small = bench(files, seconds=20).timings
        fast = export_tflite(model, folder / "m.tflite", optimize_for="latency")
        half = export_tflite(model, folder / "m.tflite", quantize="float16")
        kept = export_tflite(model, folder / "m.tflite", quantize="float16", shrink=False)
    found = {
        "parameters": model.count_params(),
        "parameters_shrunk": shrink(model).count_params(),
        "parameters_in_file": {one.chosen: one.parameters for one in (half, fast)},
        "float32_dense_latency_ms": whole.latency_ms,
        "float32_shrunk_latency_ms": small.latency_ms,
        "float32_latency_ratio": small.ratio,
        "float16_bytes": half.bytes,
        "float16_bytes_unshrunk": kept.bytes,
        "versions": versions(),
    }
    write_text(options.out, json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
