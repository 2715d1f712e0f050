"""A pruned network beside a narrower one: MobileNetV2 on CIFAR-10, both of half the multiply-adds.

MobileNetV2 of width 0.35 is trained, pruned to half of its multiply-adds, to any counts of channels
and to multiples of 8, tuned and shrunk; beside it the widest MobileNetV2 that has no more
multiply-adds is trained from scratch for as many epochs in all. All are exported with int8 weights
and arithmetic, and the files compared::

    KERAS_BACKEND=tensorflow python benchmarks/narrower.py FOLDER

Each seed is written as soon as it is done, and left out when run again. The files are timed in
turns once all seeds are there, and again whenever the program is run.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from neurons import RESULTS, Augmented, data
from records import conclude, earlier, keep
from tflite_files import add_timings, answers

from keras_l0 import NeuronPrune, export_tflite, shrink, summarize
from keras_l0.experiments.parts import shorten_memory
from keras_l0.text import table
from keras_l0.versions import versions

WIDTH, FLOPS = 0.35, 0.5
IMAGES, EPOCHS, TUNING = 20_000, 16, 8
PRUNED = {"pruned": 1, "pruned to multiples of 8": 8}
KINDS = ("whole", *PRUNED, "narrower")


def mobilenet(width: float) -> keras.Model:
    """MobileNetV2 for images of 32×32."""
    return shorten_memory(
        keras.applications.MobileNetV2(
            input_shape=(32, 32, 3), alpha=width, weights=None, classes=10
        )
    )


def multiply_adds(model: keras.Model) -> int:
    """For one image."""
    found = summarize(model).flops
    assert found is not None
    return found


def narrower(most: int) -> keras.Model:
    """The widest MobileNetV2 of at most so many multiply-adds."""
    widths = np.arange(WIDTH, 0.05, -0.01)
    return next(model for model in map(mobilenet, widths) if multiply_adds(model) <= most)


def fit(model: keras.Model, arrays: Any, seed: int, epochs: int, callbacks: Any = ()) -> None:
    """Trains with a falling learning rate."""
    batches = Augmented(*arrays[:2], seed)
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, epochs * len(batches))
    model.compile(
        keras.optimizers.AdamW(schedule, 1e-4),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(batches, epochs=epochs, callbacks=list(callbacks), verbose=2)


def figures(model: keras.Model, arrays: Any, path: Path) -> dict[str, Any]:
    """Of the model and its int8 file, which is asked for every test image."""
    x, _, x_test, y_test = arrays
    export_tflite(
        model, path, quantize="int8", calibration=x[:256], check_data=x[:64], tolerance=0.5
    )
    return {
        "multiply_adds": multiply_adds(model),
        "parameters": model.count_params(),
        "accuracy": model.evaluate(x_test, y_test, batch_size=500, verbose=0)[1],
        "accuracy_int8": float(np.mean(answers(path, x_test) == y_test)),
        "bytes": path.stat().st_size,
    }


def file_of(folder: Path, kind: str, seed: int) -> Path:
    """Where a network's int8 file is kept."""
    return folder / f"{kind.replace(' ', '_')}_{seed}.tflite"


def run(seed: int, folder: Path) -> dict[str, Any]:
    """One seed: the whole network, pruned, and the narrower one."""
    start = time.perf_counter()
    arrays = data(IMAGES)
    keras.utils.set_random_seed(seed)
    whole = mobilenet(WIDTH)
    fit(whole, arrays, seed, EPOCHS)
    found = {"whole": figures(whole, arrays, file_of(folder, "whole", seed))}
    trained = whole.get_weights()
    for kind, round_to in PRUNED.items():
        whole.set_weights(trained)
        fit(whole, arrays, seed, TUNING, [NeuronPrune(flops=FLOPS, round_to=round_to, begin=0)])
        found[kind] = figures(shrink(whole), arrays, file_of(folder, kind, seed))
    keras.utils.set_random_seed(seed)
    small = narrower(found["pruned"]["multiply_adds"])
    fit(small, arrays, seed, EPOCHS + TUNING)
    found["narrower"] = figures(small, arrays, file_of(folder, "narrower", seed))
    return {
        "seed": seed,
        "settings": {"images": IMAGES, "epochs": EPOCHS, "tuning": TUNING, "flops": FLOPS},
        "seconds": time.perf_counter() - start,
        "versions": versions(),
        **found,
    }


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, help="folder for the int8 files, made where missing")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default=RESULTS / "narrower.json", type=Path)
    options = parser.parse_args()
    options.files.mkdir(parents=True, exist_ok=True)
    runs = earlier(options.out)
    for seed in range(options.seeds):
        if seed not in {one["seed"] for one in runs}:
            runs.append(run(seed, options.files))
            keep(options.out, runs)
    for one in runs:
        add_timings(one, {kind: file_of(options.files, kind, one["seed"]) for kind in KINDS})
    keep(options.out, runs)
    rows = []
    for kind in KINDS:
        columns = [[one[kind][name] for one in runs] for name in runs[0][kind]]
        rows.append([kind, *(f"{statistics.mean(values):,.4g}" for values in columns)])
    text = table(["mean of seeds", *runs[0]["whole"]], rows)
    conclude(options.out, f"{text}\n{len(runs)} seeds")


if __name__ == "__main__":
    main()
