"""Exported files beside the best that TensorFlow's own converter makes of the same networks.

Each network is trained, pruned and exported for each kind of weights and each objective; every
file, the converter's among them, runs in one process of its own, without the delegate too, is
held against Keras' outputs, and is timed in turns with the others.

    KERAS_L0_DATA=... KERAS_BACKEND=jax python benchmarks/export.py --models /tmp/models --train
    KERAS_L0_DATA=... python benchmarks/export.py --models /tmp/models

The first line trains, on any backend; the second measures, and trains what is missing.
"""

import argparse
import json
import math
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import keras
import numpy as np
from stock import KINDS, runnable, samples_of, stock_file

from keras_l0 import L2L0, GlobalPrune, export_tflite, regularize
from keras_l0.experiments import convolutional, datasets, networks
from keras_l0.export import check, runner
from keras_l0.files import write_text
from keras_l0.text import table
from keras_l0.versions import versions

TOLERANCES = {"float32": 1e-3, "float16": 1e-2, "dynamic": 0.1, "int8": 0.1}
OBJECTIVES = ("size", "download", "latency")
SAMPLES = 32
RESULTS = Path(__file__).with_name("results") / "export.json"


@dataclass(frozen=True)
class Case:
    """A network, what it is trained on, and how far it is pruned.

    ``epochs`` are those of training, of pruning and of fine tuning; ``examples`` how many of the
    training set are used, all by default.
    """

    build: Callable[[], keras.Model]
    data: str
    sparsity: float
    epochs: tuple[int, int, int]
    examples: int | None = None
    fit: dict[str, Any] = field(default_factory=dict)
    regularizer: L2L0 = field(default_factory=lambda: L2L0(l2=5e-5, l0=2e-5, beta=10))
    scale: str | None = "layer_size"


CASES = {
    "LeNet-300-100 at 96x": Case(
        networks.lenet_300_100,
        "mnist",
        1 - 2773 / 266_200,
        (10, 30, 20),
        fit={"power": 6.0, "regrow": True},
    ),
    "LeNet-300-100, 4x1 blocks at 90 %": Case(
        networks.lenet_300_100, "mnist", 0.9, (5, 10, 5), fit={"block": (4, 1)}
    ),
    "LeNet-5-Caffe at 359x": Case(
        networks.lenet_5_caffe, "mnist", 1 - 1200 / 430_500, (4, 14, 8), fit={"power": 6.0}
    ),
    "MobileNet-like at 90 %": Case(
        lambda: convolutional.mobile_stack((32, 32, 3)), "cifar10", 0.9, (2, 2, 2), 10_000
    ),
    "MobileNet-like, SAME padding, at 90 %": Case(
        lambda: convolutional.mobile_stack((32, 32, 3), padding="same"),
        "cifar10",
        0.9,
        (1, 1, 1),
        5_000,
    ),
    "ResNet-20 at 90 %": Case(convolutional.resnet_20, "cifar10", 0.9, (1, 2, 1), 5_000),
    "LSTM at 90 %": Case(networks.lstm_classifier, "mnist", 0.9, (2, 3, 1), 20_000),
    "attention at 90 %": Case(networks.attention_classifier, "mnist", 0.9, (2, 3, 1), 20_000),
}


@dataclass(frozen=True)
class Row:
    """A file's figures; ``deviation`` and ``latency_ms`` are ``None`` where it does not run."""

    name: str
    kind: str
    bytes: int
    gzip_bytes: int
    deviation: float | None
    latency_ms: float | None
    over_dense: float | None
    fault: str

    @property
    def right(self) -> bool:
        """Whether it may be used."""
        return self.deviation is not None and self.deviation <= TOLERANCES[self.kind]


def trained(name: str, case: Case, folder: Path) -> keras.Model:
    """The network out of the folder, or trained, pruned and put there."""
    path = folder / f"{name.replace(' ', '_').replace('%', 'percent')}.keras"
    if path.is_file():
        return keras.saving.load_model(path)
    keras.utils.set_random_seed(0)
    model = case.build()
    model.compile(
        keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    regularize(model, case.regularizer, scale=case.scale)
    data = datasets.preprocess(datasets.load(case.data))
    x = datasets.fit_to(data.x_train, model.input_shape[1:])[: case.examples]
    before, during, after = case.epochs
    model.fit(
        x,
        data.y_train[: case.examples],
        batch_size=100,
        epochs=before + during + after,
        callbacks=[
            GlobalPrune(
                case.sparsity, begin=before, end=before + during - 1, **case.fit, score="magnitude"
            ),
            keras.callbacks.LearningRateScheduler(
                lambda epoch: 2e-3 * min(1.0, (before + during + after - epoch) / (after + 1))
            ),
        ],
        verbose=2,
    )
    folder.mkdir(exist_ok=True)
    model.save(path)
    return model


def compare(model: keras.Model, case: Case) -> dict[str, Any]:
    """All files of one network, in turns."""
    data = datasets.preprocess(datasets.load(case.data))
    x = datasets.fit_to(data.x_train, model.input_shape[1:])
    check_data, calibration = x[-SAMPLES:], x[:SAMPLES]
    contents: dict[str, bytes] = {}
    reasons: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        for kind in KINDS:
            for sparse in (False, True):
                file = stock_file(model, kind, sparse, calibration)
                label = f"{kind} stock {'sparse' if sparse else 'dense'}"
                if isinstance(file, bytes):
                    contents[label] = file
                else:
                    reasons[label] = file
            for objective in OBJECTIVES:
                path, kept = Path(name) / "m.tflite", Path(name) / f"{kind} {objective}"
                try:
                    export_tflite(
                        model,
                        path,
                        quantize=None if kind == "float32" else kind,
                        optimize_for=objective,
                        shrink=False,  # the very network that the converter gets
                        calibration=calibration if kind == "int8" else None,
                        check_data=check_data,
                        keep_candidates=kept,
                    )
                except RuntimeError as error:
                    reasons[f"{kind} {objective}"] = str(error)
                    continue
                contents.setdefault(f"{kind} dense", (kept / f"{kind}-dense.tflite").read_bytes())
                contents[f"{kind} {objective}"] = path.read_bytes()
    stems = {f"{place:03}": label for place, label in enumerate(contents)}
    found = check.measure(
        {stem: runnable(contents[label]) for stem, label in stems.items()},
        samples_of(model, check_data),
    )
    measured = {label: found[stem] for stem, label in stems.items()}
    rows = []
    for label, content in contents.items():
        kind, seen = label.split()[0], measured[label]
        dense = measured.get(f"{kind} dense", seen)
        ran = bool(seen.turns)
        rows.append(
            Row(
                name=label,
                kind=kind,
                bytes=len(content),
                gzip_bytes=len(zlib.compress(content, 9)),
                deviation=None if seen.fault else seen.deviation,
                latency_ms=median(seen.turns) if ran else None,
                over_dense=median(a / b for a, b in zip(seen.turns, dense.turns, strict=True))
                if ran and dense.turns
                else None,
                fault=seen.fault,
            )
        )
    return {
        "accuracy": _accuracy(model, data),
        **_entropy(model),
        "refused": reasons,
        "files": [asdict(row) for row in rows],
        "summary": _verdict(rows),
    }


def _accuracy(model: keras.Model, data: datasets.Dataset) -> float:
    """On the last 2,000 training images: nothing is chosen or claimed by it."""
    x = datasets.fit_to(data.x_train, model.input_shape[1:])[-2000:]
    classes = model.predict(x, batch_size=100, verbose=0).argmax(axis=1)
    return float(np.mean(classes == data.y_train[-2000:]))


def _entropy(model: keras.Model) -> dict[str, Any]:
    """Bytes that places of zeros and 16-bit values take at least, over all kernels at once."""
    kernels = [w for layer in model._flatten_layers() for w in layer._trainable_variables]
    kernels = [keras.ops.convert_to_numpy(w) for w in kernels if "kernel" in w.path]
    size = sum(kernel.size for kernel in kernels)
    kept = sum(int(np.count_nonzero(kernel)) for kernel in kernels)
    log2 = [math.lgamma(n + 1) / math.log(2) for n in (size, kept, size - kept)]
    return {
        "weights": size,
        "kept": kept,
        "entropy_bytes": (log2[0] - log2[1] - log2[2] + 16 * kept) / 8,
    }


def _verdict(rows: list[Row]) -> list[dict[str, Any]]:
    """For each kind ours beside the smallest right file of the converter."""
    found = []
    for kind in KINDS:
        of_kind = {row.name.removeprefix(f"{kind} "): row for row in rows if row.kind == kind}
        stock = [row for name, row in of_kind.items() if name.startswith("stock") and row.right]
        if "size" not in of_kind:
            continue
        best = min(stock, key=lambda row: row.bytes) if stock else None
        found.append(
            {
                "kind": kind,
                "stock": best.name.removeprefix(f"{kind} stock ") if best else "none is right",
                "stock_bytes": best.bytes if best else None,
                "dense_bytes": of_kind["dense"].bytes,
                "bytes": of_kind["size"].bytes,
                "stock_gzip_bytes": min((row.gzip_bytes for row in stock), default=None),
                "dense_gzip_bytes": of_kind["dense"].gzip_bytes,
                "gzip_bytes": of_kind["download"].gzip_bytes,
                "stock_over_dense": min(
                    (row.over_dense or math.inf for row in stock), default=None
                ),
                "over_dense": of_kind["latency"].over_dense,
                "all_right": all(of_kind[objective].right for objective in OBJECTIVES),
            }
        )
    return found


def main() -> None:
    """Measures, prints the tables and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"all by default, of: {', '.join(CASES)}")
    parser.add_argument("--models", type=Path, required=True, help="folder of trained networks")
    parser.add_argument("--train", action="store_true", help="train what is missing, no more")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the results' JSON file")
    options = parser.parse_args()
    results = json.loads(options.out.read_text())["results"] if options.out.is_file() else {}
    for name in options.names or CASES:
        model = trained(name, CASES[name], options.models)
        if options.train:
            continue
        results[name] = compare(model, CASES[name])
        lines = [
            [
                one["kind"],
                f"{_text(one['stock_bytes'], ',')} ({one['stock']})",
                f"{one['dense_bytes']:,}",
                f"{one['bytes']:,}",
                _text(one["stock_gzip_bytes"], ","),
                f"{one['gzip_bytes']:,}",
                _text(one["stock_over_dense"], ".2f"),
                f"{one['over_dense']:.2f}",
                "yes" if one["all_right"] else "NO",
            ]
            for one in results[name]["summary"]
        ]
        header = ["weights", "stock, bytes", "dense", "ours", "stock, gzip", "ours"]
        header += ["stock, latency over dense", "ours", "right"]
        bound = results[name]["entropy_bytes"]
        print(table(header, lines, f"{name}; 16-bit entropy bound {bound:,.0f} bytes"), flush=True)
        content = {"versions": versions(), "processor": runner.processor(), "results": results}
        options.out.parent.mkdir(exist_ok=True)
        write_text(options.out, json.dumps(content, indent=1) + "\n")


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


if __name__ == "__main__":
    main()
