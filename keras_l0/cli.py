"""The program ``keras-l0``."""

import argparse
import json
import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_l0.cli_inputs import arrays_by_input, existing_file, load_data, load_model
from keras_l0.cli_options import SETTINGS, parser_for
from keras_l0.data import check_compiled, evaluate
from keras_l0.errors import invalid_argument, whole_at_least
from keras_l0.experiments import datasets
from keras_l0.experiments.demo import demo as run_demo
from keras_l0.experiments.reproduce import reproduce as run_reproduce
from keras_l0.export.bench import bench as run_bench
from keras_l0.export.tflite import (
    CALIBRATED,
    check_export,
    export_tflite,
)
from keras_l0.files import check_folder, check_target, replacing, write_text
from keras_l0.pruning.goals import Goal
from keras_l0.regularizers import L2L0
from keras_l0.report.plots import require_matplotlib, save_figure
from keras_l0.report.summary import summarize
from keras_l0.scheme import compress as run_compress
from keras_l0.search import Found, SearchResult, Settings, Space, plot_front, read_settings
from keras_l0.search import search as run_search
from keras_l0.text import table
from keras_l0.workers import worker_pool


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program.

    Args:
        arguments: the command line without the program's name; ``sys.argv`` if ``None``.

    Returns:
        The exit status: 0, or 2 after one line on stderr.
    """
    called = (demo, compress, summary, export, search, bench, reproduce)
    options = parser_for({one.__name__: one for one in called}).parse_args(arguments)
    try:
        options.command(options)
    except Exception as error:  # backends have kinds of their own, and nobody is above this
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"keras-l0: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("keras-l0: interrupted", file=sys.stderr)
        return 130
    return 0


def demo(options: argparse.Namespace) -> None:
    """``keras-l0 demo``."""
    out = check_folder(options.out, "out")
    print(run_demo(options.dataset, out))


def compress(options: argparse.Namespace) -> None:
    """``keras-l0 compress``."""
    path = existing_file(options.model, "MODEL")
    if (Path(options.out) / "model.keras").resolve() == path.resolve():
        raise invalid_argument("out", "a folder other than MODEL's", options.out)
    settings = _settings(options)
    out = check_folder(options.out, "out")
    kept, ended = out / "checkpoint", out / ".checkpoint-ended"
    shutil.rmtree(ended, ignore_errors=True)  # a kill may have left some of it
    if kept.exists() and not options.resume:
        raise invalid_argument(
            "out",
            "a folder without an unfinished run",
            options.out,
            f"Go on with it by --resume, or remove {kept} to begin anew",
        )
    keras.utils.set_random_seed(0)  # the same command, the same network
    model = load_model(path, compiled=True)
    data = load_data(options.data, model, options.holdout, options.raw)
    check_compiled(model)
    check_export(out / "model.tflite", options.quantize)
    train, validation = datasets.split_validation(data, options.validation, seed=0)
    test = (data.x_test, data.y_test)
    before = evaluate(model, test, "data")
    result = run_compress(model, train, validation, checkpoint_dir=kept, **settings)
    model = result.model  # a new one, if the settings shrink it
    after = evaluate(model, test, "data")
    # The model is safe before the export has a chance to fail.
    with replacing(out / "model.keras") as temporary:
        model.save(temporary)
    exported = export_tflite(
        model,
        out / "model.tflite",
        quantize=options.quantize,
        optimize_for=options.optimize_for,
        calibration=train if options.quantize in CALIBRATED else None,
        check_data=validation,
    )
    report = replace(result.report, export=exported)
    figures = report.to_dict() | {"test_before": before, "test_after": after}
    write_text(out / "report.json", json.dumps(figures, indent=2))
    kept.rename(ended)  # at once, so that no half of it is ever gone on with
    shutil.rmtree(ended)
    print(report)
    rows = [[name, f"{before[name]:.4f}", f"{after[name]:.4f}"] for name in after]
    print(table(["test", "given", "compressed"], rows))
    print(
        "Files: " + ", ".join(str(out / n) for n in ("model.keras", "model.tflite", "report.json"))
    )


def _settings(options: argparse.Namespace) -> Settings:
    """The arguments of compress, from a file that a search wrote, or from the options."""
    if options.settings is not None:
        for name, default in options.settable.items():
            if getattr(options, name) != default:
                raise invalid_argument(
                    name, f"{default} beside --settings, which say it", getattr(options, name)
                )
        return read_settings(existing_file(options.settings, "settings"))
    penalty = L2L0(options.l2, options.l0, options.beta)
    bound = None if options.bound is None else _bound(options.bound)
    if bound is None:
        Goal(options.sparsity, options.compression)
    return {
        "compression": options.compression,
        "sparsity": options.sparsity,
        "bound": bound,
        "regularizer": penalty if options.l2 or options.l0 else None,
        **{name: getattr(options, name) for name in SETTINGS if name not in penalty.get_config()},
    }


def summary(options: argparse.Namespace) -> None:
    """``keras-l0 summary``."""
    model = load_model(existing_file(options.model, "MODEL"))
    found = summarize(model)
    print(found.to_json() if options.json else found)


def export(options: argparse.Namespace) -> None:
    """``keras-l0 export``."""
    path = existing_file(options.model, "MODEL")
    check_target(options.out, "OUT")
    model = load_model(path)
    check: Any = None
    calibration: Any = None
    if options.check is None and options.quantize == "int8":
        raise invalid_argument(
            "check",
            "DATA with --quantize int8",
            None,
            "Ranges are taken from its training examples",
        )
    named = None if options.check is None else arrays_by_input(options.check, model)
    if named is not None:
        check, calibration = named, named if options.quantize in CALIBRATED else None
    elif options.check is not None:
        data = load_data(options.check, model, None, options.raw)
        check = (data.x_test, data.y_test)
        # The training data are what ranges are to be taken from; the test data are held against.
        if options.quantize in CALIBRATED:
            calibration = (data.x_train, data.y_train)
    report = export_tflite(
        model,
        options.out,
        quantize=options.quantize,
        optimize_for=options.optimize_for,
        shrink=not options.no_shrink,
        calibration=calibration,
        check_data=check,
        tolerance=options.tolerance,
        target=options.target,
        timings=options.timings,
        keep_candidates=options.keep_candidates,
    )
    print(json.dumps(report.to_dict(), indent=2) if options.json else report)


def search(options: argparse.Namespace) -> None:
    """``keras-l0 search``."""
    ((_, bound),) = _bound(options.bound).items()
    whole_at_least("workers", options.workers, 1)
    whole_at_least("sep_trials", options.sep_trials, 0)
    whole_at_least("seed", options.seed, 0)
    require_matplotlib()
    existing_file(options.model, "MODEL")
    out = check_folder(options.out, "out")
    if options.storage is None:
        options.storage = str(out / "search.log")
    found = _search(options, None)
    if options.sep_trials:
        sep = _search(options, found.best(bound))
        found = replace(found, trials=(*found.trials, *sep.trials))
    best = found.best(bound)
    write_text(out / "search.json", json.dumps(found.to_dict(), indent=1) + "\n")
    write_text(out / "best.json", json.dumps(best.settings, indent=1) + "\n")
    save_figure(plot_front(found), out / "search.png")
    print(found)
    print(
        f"The most compressed one that holds {options.bound}, or the one that comes nearest: "
        f"{best.study} {best.number}, {found.metric} {best.value:.4f} at {best.compression:.1f}x"
    )
    print("Files: " + ", ".join(str(out / n) for n in ("best.json", "search.json", "search.png")))


def _search(options: argparse.Namespace, start: Found | None) -> SearchResult:
    """One study, shared by the workers."""
    if options.workers > 1:
        with worker_pool(options.workers) as pool:
            list(pool.map(partial(_take_part, options, start), range(1, options.workers + 1)))
    return _take_part(options, start, 0)


def _take_part(options: argparse.Namespace, start: Found | None, worker: int) -> SearchResult:
    ((metric, _),) = _bound(options.bound).items()
    model = load_model(Path(options.model), compiled=True)
    data = load_data(options.data, model, options.holdout, options.raw)
    train, validation = datasets.split_validation(data, options.validation, seed=0)
    own: dict[str, Any] = (
        {
            "name": "norm",
            "trials": options.trials,
            "warmup": options.warmup,
            "finetune": options.finetune,
            "batch_size": options.batch_size,
        }
        if start is None
        else {
            # Another start, after more trials or with another bound, is another study.
            "name": f"sep from {start.number}",
            "trials": options.sep_trials,
            "start": start.settings,
        }
    )
    return run_search(
        model,
        train,
        validation,
        space=Space(compression=tuple(options.compression), ramp=tuple(options.ramp)),
        metric=metric.removeprefix("val_"),
        mode=options.mode,
        storage=options.storage,
        seed=int(np.random.SeedSequence((options.seed, worker)).generate_state(1)[0]),
        **own,
    )


def bench(options: argparse.Namespace) -> None:
    """``keras-l0 bench``."""
    found = run_bench(options.files, threads=options.threads, seconds=options.seconds)
    print(found)
    broken = [one.path for one in found.timings if one.fault]
    if broken:
        raise invalid_argument("FILE", "files that the runtime runs", ", ".join(broken))


def reproduce(options: argparse.Namespace) -> None:
    """``keras-l0 reproduce``."""
    print(run_reproduce(options.what, options.out, quick=options.quick, workers=options.workers))


def _bound(text: str) -> dict[str, float]:
    """A metric and its bound, from ``METRIC=VALUE``."""
    name, _, value = text.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not name or not math.isfinite(number):
        raise invalid_argument("bound", "METRIC=VALUE, as val_accuracy=0.98", text)
    return {name: number}
