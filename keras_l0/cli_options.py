"""The options of the program ``keras-l0``."""

import argparse
from collections.abc import Callable, Mapping
from typing import NoReturn

from keras_l0.experiments import datasets
from keras_l0.experiments.demo import RECIPES
from keras_l0.experiments.reproduce import STUDIES
from keras_l0.export.tflite import OBJECTIVES, QUANTIZE, TARGETS
from keras_l0.pruning.bounds import MODES
from keras_l0.pruning.iterative import FRACTION
from keras_l0.pruning.scores import NAMED
from keras_l0.search import Space

Command = Callable[[argparse.Namespace], None]


# Options of compress that are arguments of it, which a file of settings gives instead.
SETTINGS = (
    "l2 l0 beta scale method score mode fraction warmup ramp finetune power regrow "
    "learning_rate anneal rewind batch_size"
).split()


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser_for(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The parser of the program, whose options have as ``command`` what is to be called."""
    parser = _Parser(prog="keras-l0", description="Keras 3 networks made small, and proven to run.")
    parts = parser.add_subparsers(title="commands", required=True, parser_class=_Parser)

    one = parts.add_parser("demo", help="train, compress and export a small network")
    one.add_argument("--dataset", choices=tuple(RECIPES), default="digits")
    one.add_argument("--out", default="demo-out", help="folder for the files (%(default)s)")
    one.set_defaults(command=commands["demo"])

    one = parts.add_parser("compress", help="compress a compiled model and export it")
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
    one.add_argument("--score", choices=tuple(NAMED), default="magnitude", help="(%(default)s)")
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
    one.add_argument(
        "--rewind",
        type=int,
        metavar="EPOCHS",
        help="what is left goes back to its values after so many, 0 to --warmup",
    )
    one.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    one.add_argument(
        "--resume",
        action="store_true",
        help="go on where a run of the same command was killed, or begin if there is none",
    )
    _add_quantize(one)
    one.set_defaults(
        command=commands["compress"], settable={name: one.get_default(name) for name in SETTINGS}
    )

    one = parts.add_parser("summary", help="count a model's zeros")
    one.add_argument("model", metavar="MODEL", help="a .keras file")
    one.add_argument("--json", action="store_true", help="for programs")
    one.set_defaults(command=commands["summary"])

    one = parts.add_parser("export", help="write a sparse .tflite file that has been run")
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
    one.set_defaults(command=commands["export"])

    one = parts.add_parser("reproduce", help="make an experiment of the paper again")
    one.add_argument("what", metavar="WHAT", help=", ".join(STUDIES))
    one.add_argument("--quick", action="store_true", help="on few epochs")
    one.add_argument("--out", default="results", help="folder for the files (%(default)s)")
    one.add_argument(
        "--workers", type=int, default=1, help="processes that train side by side (%(default)s)"
    )
    one.set_defaults(command=commands["reproduce"])

    one = parts.add_parser("search", help="find settings for compress, on validation data")
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
    one.add_argument(
        "--seed", type=int, default=0, help="of the draws, another on each machine (%(default)s)"
    )
    one.set_defaults(command=commands["search"])

    one = parts.add_parser("bench", help="time .tflite files against each other")
    one.add_argument("files", metavar="FILE", nargs="+", help="a .tflite file")
    one.add_argument("--threads", type=int, default=1, help="(%(default)s)")
    one.add_argument("--seconds", type=float, default=2.0, help="for all files (%(default)s)")
    one.set_defaults(command=commands["bench"])
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
