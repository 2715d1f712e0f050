"""Neurons pruned (NP), and weights of the rest too (NP+GP): accuracy against multiply-adds.

A network is trained with a penalty, ℓ2 alone or ℓ2-ℓ0; its filters are pruned to a share of the
multiply-adds and it is tuned; then 90 % of the weights left are pruned and it is tuned again.
Each cell, a seed of a penalty, is written as soon as it is done, and left out when run again; the
table of all is written beside the file.

On two cores, some hours::

    KERAS_BACKEND=tensorflow python benchmarks/neurons.py small_vgg resnet_20

The paper's Table 7 itself is ``keras-l0 reproduce table7``.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from records import conclude, earlier, keep

from keras_l0 import L2L0, GlobalPrune, NeuronPrune, regularize, shrink, summarize
from keras_l0.experiments import convolutional, datasets
from keras_l0.experiments.augmentation import Augmented
from keras_l0.text import table
from keras_l0.versions import versions

RESULTS = Path(__file__).parent / "results"
FLOPS = (0.25, 0.5, 0.75)
PENALTIES = {"l2": L2L0(l2=1e-4), "l2-l0": L2L0(l2=1e-4, l0=1e-6, beta=10.0)}


@dataclass(frozen=True)
class Run:
    """How a network is trained: epochs dense and after each pruning, and on how many images."""

    build: Callable[[], keras.Model]
    epochs: int
    tuning: int
    images: int
    seeds: int


RUNS = {
    "small_vgg": Run(lambda: convolutional.vgg_16(width=0.25), 12, 4, 10_000, 3),
    "resnet_20": Run(convolutional.resnet_20, 6, 2, 8_000, 3),
}


def data(images: int) -> tuple[np.ndarray, ...]:
    """CIFAR-10 with each channel standardized: so many training images, and all test images."""
    found = datasets.standardize(datasets.preprocess(datasets.load("cifar10")))
    return found.x_train[:images], found.y_train[:images], found.x_test, found.y_test


def cell(name: str, penalty: str, seed: int) -> dict[str, Any]:
    """Trains, prunes and measures: one seed with one penalty."""
    run = RUNS[name]
    keras.utils.set_random_seed(seed)
    x, y, x_test, y_test = data(run.images)
    model = run.build()
    regularize(model, PENALTIES[penalty])
    start = time.perf_counter()
    rows = []

    def train(epochs: int, rate: float, callbacks: list[Any]) -> None:
        batches = Augmented(x, y, 128, "shifted", seed)
        steps = epochs * len(batches)
        schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
        model.compile(
            keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        model.fit(batches, epochs=epochs, callbacks=callbacks, verbose=2)

    def note(method: str, flops: float) -> None:
        summary = summarize(model)
        assert summary.flops is not None
        assert summary.flops_shrunk is not None
        zeros = summarize(shrink(model))
        rows.append(
            {
                "method": method,
                "flops_asked": flops,
                "flops_reduction": 1 - summary.flops_shrunk / summary.flops,
                "parameters": summary.parameters_shrunk,
                "compression": summary.parameters / zeros.left,
                "accuracy": model.evaluate(x_test, y_test, batch_size=500, verbose=0)[1],
            }
        )

    train(run.epochs, 1e-3, [])
    note("dense", 0.0)
    dense = model.get_weights()
    for flops in FLOPS:
        model.set_weights(dense)
        train(run.tuning, 5e-4, [NeuronPrune(flops=flops, begin=0)])
        note("NP", flops)
        live = 1 - summarize(model).sparsity
        target = GlobalPrune(
            1 - 0.1 * live, begin=0, end=max(0, run.tuning // 2 - 1), score="magnitude"
        )
        train(run.tuning, 5e-4, [NeuronPrune(flops=flops, begin=0), target])
        note("NP+GP", flops)
    return {
        "network": name,
        "penalty": penalty,
        "seed": seed,
        "settings": {k: v for k, v in asdict(run).items() if k != "build"}
        | {"l2": PENALTIES[penalty].l2, "l0": PENALTIES[penalty].l0},
        "seconds": time.perf_counter() - start,
        "versions": versions(),
        "rows": rows,
    }


def report(cells: list[dict[str, Any]]) -> str:
    """Means and standard deviations over the seeds."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for one in cells:
        for row in one["rows"]:
            key = (one["network"], row["method"], row["flops_asked"], one["penalty"])
            found.setdefault(key, []).append(row)
    lines = []
    for (network, method, _, penalty), rows in sorted(found.items()):
        accuracies = [100 * row["accuracy"] for row in rows]
        spread = statistics.stdev(accuracies) if len(rows) > 1 else 0.0
        lines.append(
            [
                network,
                method,
                penalty,
                f"{100 * statistics.mean(row['flops_reduction'] for row in rows):.1f} %",
                f"{statistics.mean(row['compression'] for row in rows):.1f}",
                f"{statistics.mean(accuracies):.2f} ± {spread:.2f}",
                str(len(rows)),
            ]
        )
    header = ["network", "method", "penalty", "multiply-adds gone", "compression", "accuracy, %"]
    return table([*header, "seeds"], lines)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+", choices=RUNS)
    parser.add_argument("--out", default=RESULTS / "neurons.json", type=Path)
    parser.add_argument("--seeds", type=int, help="how many; each network's own number by default")
    options = parser.parse_args()
    cells = earlier(options.out)
    for name in options.networks:
        for seed in range(options.seeds or RUNS[name].seeds):
            for penalty in PENALTIES:
                key = (name, penalty, seed)
                if key not in {(c["network"], c["penalty"], c["seed"]) for c in cells}:
                    cells.append(cell(*key))
                    keep(options.out, cells)
    conclude(options.out, report(cells))


if __name__ == "__main__":
    main()
