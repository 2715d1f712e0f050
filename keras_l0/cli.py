"""The program ``keras-l0``."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from keras_l0.cli_inputs import arrays_by_input, existing_file, load_data, load_model
from keras_l0.data import check_compiled, evaluate
from keras_l0.errors import invalid_argument, whole_at_least
from keras_l0.experiments import datasets
from keras_l0.experiments.demo import RECIPES
from keras_l0.experiments.demo import demo as run_demo
from keras_l0.experiments.reproduce import STUDIES
from keras_l0.experiments.reproduce import reproduce as run_reproduce
from keras_l0.export.bench import bench as run_bench
from keras_l0.export.tflite import (
    CALIBRATED,
    OBJECTIVES,
    QUANTIZE,
    TARGETS,
    check_export,
    export_tflite,
)
from keras_l0.files import check_folder, check_target, replacing, write_text
from keras_l0.pruning.goals import Goal
from keras_l0.pruning.iterative import FRACTION, MODES
from keras_l0.pruning.scores import NAMED
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
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
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
    model = load_model(path, compiled=True)
    data = load_data(options.data, model, options.holdout, options.raw)
    check_compiled(model)
    check_export(out / "model.tflite", options.quantize)
    train, validation = datasets.split_validation(data, options.validation, seed=0)
    test = (data.x_test, data.y_test)
    before = evaluate(model, test, "data")
    result = run_compress(
        model,
        train,
        validation,
        mode=options.mode,
        fraction=options.fraction,
        method=options.method,
        score=options.score,
        **settings,
    )
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
    print(report)
    rows = [[name, f"{before[name]:.4f}", f"{after[name]:.4f}"] for name in after]
    print(table(["test", "given", "compressed"], rows))
    print(
        "Files: " + ", ".join(str(out / n) for n in ("model.keras", "model.tflite", "report.json"))
    )


def _settings(options: argparse.Namespace) -> Settings:
    """The arguments that a search finds: from its file, or from the options."""
    if options.settings is not None:
        for name, default in options.searched.items():
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
        **{name: getattr(options, name) for name in _SEARCHED if name not in penalty.get_config()},
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


def _take_part(options: argparse.Namespace, start: Found | None, seed: int) -> SearchResult:
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
        seed=seed,
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


# Options of compress that a search finds.
_SEARCHED = (
    "l2 l0 beta scale warmup ramp finetune power regrow learning_rate anneal batch_size".split()
)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="keras-l0", description="Keras 3 networks made small, and proven to run.")
    commands = parser.add_subparsers(title="commands", required=True, parser_class=_Parser)

    one = commands.add_parser("demo", help="train, compress and export a small network")
    one.add_argument("--dataset", choices=tuple(RECIPES), default="digits")
    one.add_argument("--out", default="demo-out", help="folder for the files (%(default)s)")
    one.set_defaults(command=demo)

    one = commands.add_parser("compress", help="compress a compiled model and export it")
    one.add_argument("model", metavar="MODEL", help="a compiled model, a .keras file")
    _add_data(one, "--data", required=True)
    target = one.add_mutually_exclusive_group(required=True)
    target.add_argument("--compression", type=float, help="all parameters over those left")
    target.add_argument("--sparsity", type=float, help="zeros over all prunable weights")
    target.add_argument(
        "--bound",
        metavar="METRIC=VALUE",
        help="as sparse as it can be while this holds, as val_accuracy=0.98",
    )
    target.add_argument("--settings", metavar="FILE", help="what a search has found, its best.json")
    one.add_argument(
        "--mode",
        choices=MODES,
        default="auto",
        help="with --bound, what is better; by the metric (%(default)s)",
    )
    one.add_argument(
        "--fraction",
        type=float,
        default=FRACTION,
        help="with --bound, pruned at a time (%(default)s)",
    )
    one.add_argument("--out", required=True, help="folder for the files")
    _add_split(one)
    one.add_argument("--l2", type=float, default=1e-5, help="α_ℓ2 (%(default)s)")
    one.add_argument("--l0", type=float, default=1e-5, help="α_ℓ0 (%(default)s)")
    one.add_argument("--beta", type=float, default=10.0, help="β (%(default)s)")
    one.add_argument("--scale", choices=("layer_size", "layer_size_l0"), help="NORM")
    one.add_argument("--method", choices=("global", "layerwise", "random"), default="global")
    one.add_argument("--score", choices=tuple(NAMED), default="magnitude", help="what goes first")
    one.add_argument("--warmup", type=int, default=10, help="epochs before pruning (%(default)s)")
    one.add_argument(
        "--ramp", type=int, default=20, help="epochs of pruning, 0 for once (%(default)s)"
    )
    one.add_argument("--finetune", type=int, default=10, help="epochs after it (%(default)s)")
    one.add_argument("--power", type=float, default=3.0, help="the ramp's degree (%(default)s)")
    one.add_argument("--regrow", action="store_true", help="weights may grow back in the ramp")
    one.add_argument("--learning-rate", type=float, help="the optimizer's, if not its own")
    one.add_argument(
        "--anneal", type=int, default=0, help="falls of it while fine tuning (%(default)s)"
    )
    one.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    _add_quantize(one)
    one.set_defaults(command=compress, searched={name: one.get_default(name) for name in _SEARCHED})

    one = commands.add_parser("summary", help="count a model's zeros")
    one.add_argument("model", metavar="MODEL", help="a .keras file")
    one.add_argument("--json", action="store_true", help="for programs")
    one.set_defaults(command=summary)

    one = commands.add_parser("export", help="write a sparse .tflite file that has been run")
    one.add_argument("model", metavar="MODEL", help="a .keras file")
    one.add_argument("out", metavar="OUT", help="the .tflite file")
    _add_quantize(one)
    _add_data(one, "--check")
    one.add_argument(
        "--target", choices=TARGETS, default="arm", help="where it is to run (%(default)s)"
    )
    one.add_argument("--no-shrink", action="store_true", help="leave dead channels in it")
    one.add_argument("--tolerance", type=float, help="largest deviation over largest output")
    one.add_argument(
        "--keep-candidates", metavar="DIR", help="for all candidates and a script to measure them"
    )
    one.add_argument(
        "--timings", metavar="FILE", help="what that script wrote on a device: choose by it"
    )
    one.add_argument("--json", action="store_true", help="for programs")
    one.set_defaults(command=export)

    one = commands.add_parser("reproduce", help="make an experiment of the paper again")
    one.add_argument("what", metavar="WHAT", help=", ".join(STUDIES))
    one.add_argument("--quick", action="store_true", help="on few epochs")
    one.add_argument("--out", default="results", help="folder for the files (%(default)s)")
    one.add_argument(
        "--workers", type=int, default=1, help="processes that train side by side (%(default)s)"
    )
    one.set_defaults(command=reproduce)

    one = commands.add_parser("search", help="find settings for compress, on validation data")
    one.add_argument("model", metavar="MODEL", help="a compiled model, a .keras file")
    _add_data(one, "--data", required=True)
    _add_split(one)
    one.add_argument(
        "--bound",
        metavar="METRIC=VALUE",
        required=True,
        help="the best settings are the most compressed ones that hold it, as val_accuracy=0.98",
    )
    one.add_argument("--mode", choices=MODES, default="auto", help="what is better (%(default)s)")
    one.add_argument("--out", required=True, help="folder for the files")
    one.add_argument(
        "--trials", type=int, default=40, help="with one penalty, scaled: NORM (%(default)s)"
    )
    one.add_argument(
        "--sep-trials", type=int, default=0, help="layer by layer from there: SEP (%(default)s)"
    )
    one.add_argument(
        "--compression",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=Space().compression,
        help="the goals (%(default)s)",
    )
    one.add_argument(
        "--ramp",
        type=int,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=Space().ramp,
        help="epochs of pruning (%(default)s)",
    )
    one.add_argument("--warmup", type=int, default=10, help="epochs before it (%(default)s)")
    one.add_argument("--finetune", type=int, default=20, help="epochs after it (%(default)s)")
    one.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    one.add_argument("--workers", type=int, default=1, help="processes side by side (%(default)s)")
    one.add_argument(
        "--storage", help="a file or database URL that machines share (OUT/search.log)"
    )
    one.set_defaults(command=search)

    one = commands.add_parser("bench", help="time .tflite files against each other")
    one.add_argument("files", metavar="FILE", nargs="+", help="a .tflite file")
    one.add_argument("--threads", type=int, default=1, help="(%(default)s)")
    one.add_argument("--seconds", type=float, default=2.0, help="for all files (%(default)s)")
    one.set_defaults(command=bench)
    return parser


def _add_data(parser: argparse.ArgumentParser, name: str, required: bool = False) -> None:
    parser.add_argument(
        name,
        metavar="DATA",
        required=required,
        help="a .npz file, a folder with one folder of images a class, or "
        + ", ".join(datasets.SHAPES)
        + "; for an export also a .npz file with an array for each input's name" * (not required),
    )
    parser.add_argument(
        "--raw", action="store_true", help="leave integer pixels as they are, not scaled to [0, 1]"
    )


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--holdout", type=float, help="share to test on where DATA has no test arrays (0.1)"
    )
    parser.add_argument(
        "--validation",
        type=float,
        default=0.1,
        help="share of the rest to validate on (%(default)s)",
    )


def _add_quantize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quantize",
        choices=QUANTIZE,
        help="of the .tflite file's weights; int8 takes ranges from the training data",
    )
    parser.add_argument(
        "--optimize-for",
        choices=OBJECTIVES,
        default="size",
        help="the .tflite file, the file after gzip, or its latency (%(default)s)",
    )
