"""The commands of ``keras-l0``, their options and their help; the standard library alone.

It stands outside the package because importing that imports Keras, which takes seconds: help and
usage errors are to answer at once. So choices are written out here, and a test compares them with
the library's.
"""

import argparse
import math
from typing import NoReturn

import keras_l0_start

DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
DEMOS = ("digits", "mnist")
METHODS = ("global", "layerwise", "random", "neuron")
MODES = ("auto", "min", "max")
OBJECTIVES = ("size", "download", "latency")
QUANTIZE = ("float16", "dynamic", "int8", "auto")
SCALES = ("layer_size", "layer_size_l0")
SCORES = ("lamp", "magnitude")
CHANNEL_SCORES = ("norm", "redundancy")
SETTINGS = (
    "l2 l0 beta scale method score mode fraction warmup ramp finetune power regrow "
    "learning_rate anneal rewind batch_size"
).split()
"""Options of compress that a file of settings gives instead."""
STUDIES = (
    "figure1 figure2 table1 experiment1 table2 table3 table3_further table4 table5 table6 table7 "
    "figure5 figure6 figure7 figure8 figure9 ablation figure7_small figure8_small figure9_small"
).split()
TARGETS = ("arm", "host")
COMPRESSIONS = (10.0, 100.0)
FRACTION = 0.1
RAMP = (5, 30)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with status 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser() -> Parser:
    """The parser of the program; ``command`` of what it parses names the command."""
    whole = Parser(
        prog="keras-l0", description="Prunes Keras 3 models and writes small .tflite files."
    )
    version = f"keras-l0 {keras_l0_start.__version__}"
    whole.add_argument("--version", action="version", version=version, help="print the version")
    commands = whole.add_subparsers(
        title="commands", dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )
    for name, (needed, text, add_options) in COMMANDS.items():
        usage = f"keras-l0 {name} {needed} [options]".replace("  ", " ")
        command = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", usage=usage
        )
        add_options(command)
    return whole


def _demo(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--dataset",
        choices=DEMOS,
        default="digits",
        help="the images to train on; digits takes a minute (%(default)s)",
    )
    to.add_argument(
        "--out", default="demo-out", help="folder that the files are written to (%(default)s)"
    )
    _add_overwrite(to)


def _compress(to: argparse.ArgumentParser) -> None:
    _add_model(to, "a compiled model, trained or not: a .keras file")
    _add_data(to, "--data", "what to train, validate and test on", required=True)
    target = _goal(to)
    target.add_argument(
        "--compression",
        type=float,
        help="how much smaller: all parameters over those left, 20 for a twentieth",
    )
    target.add_argument(
        "--sparsity", type=float, help="the share of the prunable weights that become 0"
    )
    target.add_argument(
        "--flops",
        type=float,
        help="with --method neuron: the share of the multiply-adds to remove",
    )
    target.add_argument(
        "--bound",
        metavar="METRIC=VALUE",
        type=_bound,
        help="prune for as long as this validation metric holds, as val_accuracy=0.98",
    )
    target.add_argument(
        "--settings",
        metavar="FILE",
        help="the settings that `keras-l0 search` found, its best.json",
    )
    _add_mode(to)
    to.add_argument(
        "--fraction",
        type=float,
        default=FRACTION,
        help="with --bound: share of the remaining weights that is pruned per step (%(default)s); "
        "smaller takes more epochs and goes further",
    )
    to.add_argument(
        "--out", required=True, help="folder for model.keras, model.tflite and report.json"
    )
    _add_split(to)
    to.add_argument(
        "--l2", type=float, default=1e-5, help="ℓ2 penalty, against overfitting (%(default)s)"
    )
    to.add_argument(
        "--l0",
        type=float,
        default=1e-5,
        help="ℓ0 penalty, which pulls small weights to zero before they are pruned (%(default)s)",
    )
    to.add_argument(
        "--beta",
        type=float,
        default=10.0,
        help="how narrowly the ℓ0 penalty acts around zero; larger is narrower (%(default)s)",
    )
    to.add_argument(
        "--scale",
        choices=SCALES,
        help="multiply both penalties, or ℓ0 alone, by √(n / n of the largest layer) for a layer "
        "of n weights, so that small layers are penalized less",
    )
    to.add_argument(
        "--method",
        choices=METHODS,
        default="global",
        help="what is ranked together: all weights, those of a layer, none (random), or whole "
        "neurons and filters, which are then removed and make the model faster (%(default)s)",
    )
    _add_score(to)
    to.add_argument(
        "--warmup",
        type=int,
        default=10,
        help="epochs of training with the penalties before any pruning (%(default)s)",
    )
    to.add_argument(
        "--ramp",
        type=int,
        default=20,
        help="epochs over which pruning is spread; more keeps more accuracy, 0 prunes at once "
        "(%(default)s)",
    )
    to.add_argument(
        "--finetune",
        type=int,
        default=10,
        help="epochs of training what is left, to regain accuracy (%(default)s)",
    )
    to.add_argument(
        "--power",
        type=float,
        default=3.0,
        help="shape of the ramp: 1 is linear, larger prunes more at its beginning (%(default)s)",
    )
    to.add_argument(
        "--regrow",
        action="store_true",
        help="let pruned weights grow back until the ramp's last tenth, which corrects early "
        "choices",
    )
    to.add_argument(
        "--learning-rate", type=float, help="for the optimizer, instead of the one it has"
    )
    to.add_argument(
        "--anneal",
        type=int,
        default=0,
        help="how often the learning rate falls from its start to a hundredth of it while fine "
        "tuning; 0 keeps it constant (%(default)s)",
    )
    to.add_argument(
        "--rewind",
        type=int,
        metavar="EPOCHS",
        help="fine-tune from the values that the weights had after so many epochs (0 to --warmup), "
        "instead of their last ones",
    )
    to.add_argument("--batch-size", type=int, help="examples in a training step (32)")
    again = to.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="go on with a run of the same command that was killed; start it if there is none",
    )
    _add_overwrite(again)
    _add_quantize(to)
    to.set_defaults(settable={name: to.get_default(name) for name in SETTINGS})


def _summary(to: argparse.ArgumentParser) -> None:
    _add_model(to, "a .keras file")
    _add_json(to)


def _prune(to: argparse.ArgumentParser) -> None:
    _add_model(to, "a .keras file")
    to.add_argument("out", metavar="OUT", help="the .keras file to write the pruned model to")
    target = _goal(to)
    target.add_argument(
        "--sparsity", type=float, help="the share of the prunable weights that become 0"
    )
    target.add_argument(
        "--compression", type=float, help="all parameters over those left, 20 for a twentieth"
    )
    target.add_argument(
        "--fraction",
        type=float,
        help="with --method neuron: the share of each layer's channels to zero",
    )
    target.add_argument(
        "--flops",
        type=float,
        help="with --method neuron: the share of the multiply-adds that `keras-l0 "
        "shrink` can then remove",
    )
    to.add_argument(
        "--method",
        choices=METHODS,
        default="global",
        help="what is ranked together: all weights, those of a layer, none (random), or whole "
        "neurons and filters (%(default)s)",
    )
    _add_score(to)
    _add_layers(to)
    to.add_argument(
        "--seed", type=int, help="for --method random: the same seed prunes the same weights"
    )
    _add_overwrite(to)


def _shrink(to: argparse.ArgumentParser) -> None:
    _add_model(to, "a pruned model: a .keras file")
    to.add_argument("out", metavar="OUT", help="the .keras file to write the smaller model to")
    _add_overwrite(to)


def _sweep(to: argparse.ArgumentParser) -> None:
    _add_model(to, "a compiled and trained model: a .keras file")
    _add_data(to, "--data", "what to evaluate on: its validation part is used", required=True)
    _add_split(to)
    to.add_argument(
        "--compressions",
        type=float,
        nargs="+",
        required=True,
        metavar="NUMBER",
        help="how far to prune, as 2 5 10; of the network, or with --by layer of each layer",
    )
    to.add_argument(
        "--by",
        choices=("network", "layer"),
        default="network",
        help="prune the whole network, or one layer at a time to see which are sensitive "
        "(%(default)s)",
    )
    to.add_argument(
        "--method",
        choices=METHODS[:-1],
        default="global",
        help="what is ranked together: all weights, those of a layer, or none (%(default)s)",
    )
    to.add_argument("--score", choices=SCORES, help=_SCORE)
    _add_layers(to)
    to.add_argument(
        "--seed", type=int, help="for --method random: the same seed prunes the same weights"
    )
    to.add_argument("--batch-size", type=int, help="examples evaluated at a time (32)")
    to.add_argument(
        "--plot", metavar="FILE", help="draw the first metric against compression, as a .png file"
    )
    _add_json(to)
    _add_overwrite(to)


def _export(to: argparse.ArgumentParser) -> None:
    _add_model(to, "a .keras file")
    to.add_argument("out", metavar="OUT", help="the .tflite file to write")
    _add_quantize(to)
    _add_data(
        to,
        "--check",
        "what the file's outputs are compared with the model's on, instead of random inputs; "
        "--quantize int8 takes its number ranges from it",
    )
    to.add_argument(
        "--target",
        choices=TARGETS,
        default="arm",
        help="which processor's speed counts with --optimize-for latency: a phone's, or that of "
        "this machine (%(default)s)",
    )
    to.add_argument(
        "--no-shrink",
        action="store_true",
        help="leave neurons and filters in the file that have no effect",
    )
    to.add_argument(
        "--tolerance",
        type=float,
        help="for a classifier the share of samples whose class may change, else how far the "
        "outputs may deviate, as a share of the largest output; a file that differs more is "
        "refused",
    )
    to.add_argument(
        "--keep-candidates",
        metavar="DIR",
        help="also write every file that was built there, with a script that times them on a "
        "device",
    )
    to.add_argument(
        "--timings",
        metavar="FILE",
        help="choose by what that script measured on the device",
    )
    _add_json(to)
    _add_overwrite(to)


def _explain(to: argparse.ArgumentParser) -> None:
    _add_model(to, "a .keras or .tflite file")


def _reproduce(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "what", metavar="WHAT", choices=STUDIES, help=f"the experiment: {', '.join(STUDIES)}"
    )
    to.add_argument(
        "--quick", action="store_true", help="train for a few epochs only, to see that it runs"
    )
    to.add_argument(
        "--out",
        default="results",
        help="folder for the results; runs that it has already are not made again (%(default)s)",
    )
    to.add_argument(
        "--workers", type=int, default=1, help="networks trained at the same time (%(default)s)"
    )


def _search(to: argparse.ArgumentParser) -> None:
    _add_model(to, "a compiled model: a .keras file")
    _add_data(to, "--data", "what to train and validate on", required=True)
    _add_split(to)
    to.add_argument(
        "--bound",
        metavar="METRIC=VALUE",
        type=_bound,
        required=True,
        help="what must hold, as val_accuracy=0.98: the best settings are those that compress "
        "most while it does",
    )
    _add_mode(to)
    to.add_argument(
        "--out", required=True, help="folder for best.json, search.json, search.log and search.png"
    )
    to.add_argument(
        "--trials",
        type=int,
        default=40,
        help="trainings with one penalty for all layers, scaled by their size (%(default)s)",
    )
    to.add_argument(
        "--sep-trials",
        type=int,
        default=0,
        help="further trainings that start from the best of these and give each layer a penalty "
        "of its own (%(default)s)",
    )
    to.add_argument(
        "--compression",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=COMPRESSIONS,
        help="between which compressions to search (10 100)",
    )
    to.add_argument(
        "--ramp",
        type=int,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=RAMP,
        help="between which numbers of pruning epochs to search (5 30)",
    )
    to.add_argument(
        "--warmup", type=int, default=10, help="epochs of training before pruning (%(default)s)"
    )
    to.add_argument(
        "--finetune", type=int, default=20, help="epochs of training after pruning (%(default)s)"
    )
    to.add_argument(
        "--batch-size", type=int, default=32, help="examples in a training step (%(default)s)"
    )
    to.add_argument(
        "--workers", type=int, default=1, help="trials trained at the same time (%(default)s)"
    )
    to.add_argument(
        "--storage",
        help="where trials are kept, so that several machines can share them: a file or a "
        "database URL (OUT/search.log)",
    )
    to.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the settings that are drawn; give each machine another one (%(default)s)",
    )
    _add_overwrite(to)


def _bench(to: argparse.ArgumentParser) -> None:
    to.add_argument("files", metavar="FILE", nargs="+", help=".tflite files to compare")
    to.add_argument(
        "--threads", type=int, default=1, help="threads that the runtime may use (%(default)s)"
    )
    to.add_argument(
        "--seconds",
        type=float,
        default=2.0,
        help="how long to measure, all files together; longer is more exact (%(default)s)",
    )


COMMANDS = {
    "demo": ("", "train, compress and export a small network, to see what it does", _demo),
    "compress": (
        "MODEL --data DATA --out OUT GOAL",
        "train, prune and fine-tune a compiled model, and export it",
        _compress,
    ),
    "summary": ("MODEL", "show a model's weights, zeros and size", _summary),
    "prune": (
        "MODEL OUT GOAL",
        "set the least important weights of a model to zero, without training",
        _prune,
    ),
    "shrink": (
        "MODEL OUT",
        "remove the neurons and filters of a model that have no effect",
        _shrink,
    ),
    "sweep": (
        "MODEL --data DATA --compressions NUMBER ...",
        "evaluate a model pruned to several compressions, without training",
        _sweep,
    ),
    "export": (
        "MODEL OUT",
        "write a .tflite file, compared with the model before it is kept",
        _export,
    ),
    "explain": ("MODEL", "tell layer by layer what zeros bring in a .tflite file", _explain),
    "search": (
        "MODEL --data DATA --bound BOUND --out OUT",
        "find good settings for compress by trying them",
        _search,
    ),
    "bench": ("FILE ...", "measure the speed of .tflite files against each other", _bench),
    "reproduce": ("WHAT", "repeat an experiment of the paper", _reproduce),
}
"""By name what a command needs, what it is for, and what adds its options; each is a module of
``keras_l0.commands``."""


def _add_model(to: argparse.ArgumentParser, text: str) -> None:
    to.add_argument("model", metavar="MODEL", help=text)
    to.add_argument(
        "--import",
        dest="imports",
        metavar="MODULE",
        action="append",
        default=[],
        help="a module or .py file of your own with the layers, losses or metrics that MODEL "
        "uses; may be given several times",
    )


def _add_data(to: argparse.ArgumentParser, name: str, purpose: str, required: bool = False) -> None:
    by_input = "" if required else ", or a .npz file with an array for each input's name"
    to.add_argument(
        name,
        metavar="DATA",
        required=required,
        help=f"{purpose}: a .npz file with x_train and y_train, a folder with one folder of "
        f"images for each class, {', '.join(DATASETS)}{by_input}",
    )
    pixels = to.add_mutually_exclusive_group()
    pixels.add_argument(
        "--pixel-range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="the range that integer pixels are scaled to, as -1 1: that which MODEL was trained "
        "with (0 1, or not scaled if MODEL begins with a Rescaling layer for them)",
    )
    pixels.add_argument(
        "--raw", action="store_true", help="leave integer pixels as they are, not scaled"
    )


def _goal(to: argparse.ArgumentParser) -> "argparse._MutuallyExclusiveGroup":
    """The group of the options of which one says how far to prune."""
    group = to.add_argument_group("GOAL, one of these")
    return group.add_mutually_exclusive_group(required=True)


def _add_split(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--holdout",
        type=float,
        help="share of the examples kept for the final test, where DATA has no test arrays (0.1)",
    )
    to.add_argument(
        "--validation",
        type=float,
        default=0.1,
        help="share of the training examples to validate on instead of training (%(default)s)",
    )


def _add_mode(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--mode",
        choices=MODES,
        default="auto",
        help="with --bound: whether a smaller (min) or larger (max) metric is better; auto knows "
        "it of Keras' own metrics (%(default)s)",
    )


_SCORE = (
    "how a weight's importance is measured: its magnitude, or lamp, its square over those of all "
    "larger weights of the layer"
)


def _add_score(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--score",
        choices=(*SCORES, *CHANNEL_SCORES),
        help=f"{_SCORE}; with --method neuron norm, the size of a channel's weights, or "
        "redundancy, how much it differs from its layer's others",
    )


def _add_layers(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--layers",
        nargs="+",
        metavar="PATTERN",
        help="prune only layers whose name or path matches, as 'conv*'",
    )


def _add_quantize(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--quantize",
        choices=QUANTIZE,
        help="how the .tflite file stores numbers: float16; dynamic (int8 weights); int8 "
        "throughout; or auto, the best that is still right (float32)",
    )
    to.add_argument(
        "--optimize-for",
        choices=OBJECTIVES,
        default="size",
        help="what the best .tflite file is: the smallest, the smallest after gzip, or the "
        "fastest (%(default)s)",
    )


def _add_json(to: argparse.ArgumentParser) -> None:
    to.add_argument("--json", action="store_true", help="print JSON, for other programs to read")


def _add_overwrite(to: "argparse._ActionsContainer") -> None:
    to.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files that exist; without it nothing is overwritten",
    )


def _bound(text: str) -> dict[str, float]:
    """A metric and its bound, from ``METRIC=VALUE``."""
    name, _, value = text.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not name or not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"expected METRIC=VALUE, as val_accuracy=0.98, not {text}")
    return {name: number}
