"""What may follow a pruning: nothing, clustering, int8 weights, or training for them.

LeNet-5-Caffe on MNIST and ResNet-8 on CIFAR-10 are trained with ``L2L0`` and pruned by
``GlobalPrune``, and what is dead is taken out; from each such network come six files, the smallest
that export finds of each:

- ``pruned``: float32;
- ``clustered``: float32, at most 16 values a kernel, by ``keras_l0.tfmot.cluster``;
- ``int8``: ``export_tflite`` with ``quantize="int8"``, no further training;
- ``clustered, int8``: the clustered network likewise;
- ``PQAT``: ``keras_l0.tfmot.quantize_aware``;
- ``PCQAT``: the same with 16 clusters.

Clusters are trained for as many epochs as quantization. All test images are asked of each file.

    python benchmarks/after_pruning.py --networks lenet_5_caffe
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import page
from architectures import ARCHITECTURES
from records import RESULTS, earlier, update
from tflite_files import answers

from keras_l0 import L2L0, GlobalPrune, explain_sparsity, export_tflite, shrink
from keras_l0.experiments.datasets import fit_to, load, preprocess
from keras_l0.experiments.parts import shorten_memory
from keras_l0.export.figures import ExportReport
from keras_l0.pruning.targets import find_targets
from keras_l0.tfmot import cluster, quantize_aware

SEEDS = (0, 1, 2)
CLUSTERS, TUNING, RATE = 16, 2, 1e-4
L2, L0 = 1e-4, 3e-6
SETUPS = {
    "lenet_5_caffe": {"data": "mnist", "images": 50_000, "epochs": 8, "end": 5, "sparsity": 0.95},
    "resnet_8": {"data": "cifar10", "images": 10_000, "epochs": 15, "end": 10, "sparsity": 0.8},
}

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def arrays(network: str) -> Arrays:
    """Training and test images, and their classes."""
    setup, shape = SETUPS[network], ARCHITECTURES[network].input_shape
    data = preprocess(load(setup["data"]))
    x, y = data.x_train[: setup["images"]], data.y_train[: setup["images"]]
    return fit_to(x, shape), y.ravel(), fit_to(data.x_test, shape), data.y_test.ravel()


def pruned(network: str, seed: int, data: Arrays) -> keras.Model:
    """A network that was trained, pruned and shrunk."""
    setup = SETUPS[network]
    keras.utils.set_random_seed(seed)
    model = shorten_memory(ARCHITECTURES[network].build(keras, L2L0(l2=L2, l0=L0)))
    batch = ARCHITECTURES[network].batch
    steps = setup["epochs"] * (len(data[0]) // batch)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    prune = GlobalPrune(setup["sparsity"], begin=2, end=setup["end"], score="magnitude")
    x, y = data[:2]
    model.fit(x, y, batch, epochs=setup["epochs"], callbacks=[prune], verbose=0)
    small = shrink(model)
    small.compile("adam", model.loss)
    return small


def lost(before: keras.Model, after: keras.Model) -> int:
    """How many of a network's zeros are none in another."""
    pairs = zip(find_targets(before).weights, find_targets(after).weights, strict=True)
    return sum(int(np.count_nonzero(new.values()[old.values() == 0])) for old, new in pairs)


def zeros(path: Path) -> float:
    """The share of zeros among a file's weights."""
    layers = explain_sparsity(path).layers
    total = sum(one.dense_bytes for one in layers)
    return sum(one.sparsity * one.dense_bytes for one in layers) / total


def run(network: str, seed: int, out: Path) -> None:
    """One seed: trains, and writes a row for each file."""
    data = arrays(network)
    x, y, x_test, y_test = data
    model = pruned(network, seed, data)
    tuned: dict[str, Any] = {"epochs": TUNING, "learning_rate": RATE}
    loose: dict[str, Any] = {"tolerance": 0.5, "check_data": x[:64]}

    def keep(kind: str, found: keras.Model, path: Path, report: ExportReport) -> None:
        row = {
            "network": network,
            "kind": kind,
            "seed": seed,
            "settings": {**SETUPS[network], **tuned, "clusters": CLUSTERS, "l2": L2, "l0": L0},
            "accuracy": float(np.mean(answers(path, x_test) == y_test)),
            "bytes": report.bytes,
            "gzip_bytes": report.gzip_bytes,
            "zeros": zeros(path),
            "zeros_lost": lost(model, found),
        }
        update(out, ("network", "kind", "seed"), row)
        print({name: row[name] for name in list(row) if name != "settings"}, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"

        def export(kind: str, found: keras.Model, quantize: str | None) -> None:
            calibration = x[:256] if quantize else None
            report = export_tflite(found, path, quantize=quantize, calibration=calibration, **loose)
            keep(kind, found, path, report)

        clustered = cluster(model, CLUSTERS, (x, y), **tuned)
        export("pruned", model, None)
        export("clustered", clustered, None)
        export("int8", model, "int8")
        export("clustered, int8", clustered, "int8")
        for kind, clusters in (("PQAT", None), ("PCQAT", CLUSTERS)):
            found, report = quantize_aware(model, (x, y), path, clusters=clusters, **tuned, **loose)
            keep(kind, found, path, report)


def main() -> None:
    """Measures the seeds that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=SETUPS, default=list(SETUPS))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--out", type=Path, default=RESULTS / "after_pruning.json")
    options = parser.parse_args()
    done = [(row["network"], row["seed"]) for row in earlier(options.out) if row["kind"] == "PCQAT"]
    for network in options.networks:
        for seed in options.seeds:
            if (network, seed) not in done:
                run(network, seed, options.out)
    page.update(options.out)


if __name__ == "__main__":
    main()
