"""The command line: help and usage errors come at once, and its choices are the library's."""

import argparse
import inspect
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import keras_l0
import keras_l0_parser
from keras_l0 import cli, versions
from keras_l0.experiments import datasets
from keras_l0.experiments.demo import RECIPES
from keras_l0.experiments.reproduce import STUDIES
from keras_l0.export.tflite import OBJECTIVES, QUANTIZE, TARGETS
from keras_l0.pruning import channel_scores, once, scores
from keras_l0.pruning.bounds import MODES
from keras_l0.pruning.iterative import FRACTION
from keras_l0.search_space import Space

ROOT = Path(keras_l0.__file__).parent.parent

# A process in which an import of Keras, or of what Keras computes with, is an error.
PROBE = """
import sys
for name in ("keras", "keras_l0", "numpy", "tensorflow", "jax", "torch", "rich"):
    sys.modules[name] = None
sys.argv = ["keras-l0", *sys.argv[1:]]
import keras_l0_start
sys.exit(keras_l0_start.main())
"""


def started(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The program where Keras cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"},
    )


@pytest.mark.parametrize("command", ["", *keras_l0_parser.COMMANDS])
def test_help_needs_no_keras(command: str) -> None:
    done = started(*([command] if command else []), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    names = keras_l0_parser.COMMANDS if not command else ()
    assert all(f"\n    {name}" in done.stdout for name in names)


USAGE = {
    "no command": ([], "the following arguments are required: COMMAND"),
    "unknown command": (["frobnicate"], "invalid choice: 'frobnicate'"),
    "missing argument": (["prune", "m.keras"], "the following arguments are required: OUT"),
    "missing target": (
        ["compress", "m.keras", "--data", "d", "--out", "o"],
        "one of the arguments --compression --sparsity --flops --bound --settings is required",
    ),
    "unknown option": (["summary", "m.keras", "--jsn"], "unrecognized arguments: --jsn"),
    "bad choice": (
        ["export", "m.keras", "m.tflite", "--quantize", "int4"],
        "--quantize: invalid choice: 'int4'",
    ),
    "no number": (["bench", "m.tflite", "--threads", "two"], "--threads: invalid int value: 'two'"),
    "bad bound": (
        ["search", "m.keras", "--data", "d", "--out", "o", "--bound", "val_accuracy=high"],
        "--bound: expected METRIC=VALUE, as val_accuracy=0.98, not val_accuracy=high",
    ),
    "two ways to scale": (
        [
            "sweep",
            "m.keras",
            "--data",
            "d",
            "--compressions",
            "2",
            "--raw",
            "--pixel-range",
            "-1",
            "1",
        ],
        "--pixel-range: not allowed with argument --raw",
    ),
    "resume and overwrite": (
        [
            "compress",
            "m.keras",
            "--data",
            "d",
            "--out",
            "o",
            "--sparsity",
            "0.5",
            "--resume",
            "--overwrite",
        ],
        "--overwrite: not allowed with argument --resume",
    ),
}


@pytest.mark.parametrize("case", USAGE)
def test_a_usage_error_needs_no_keras_and_is_one_line_and_status_2(case: str) -> None:
    arguments, message = USAGE[case]
    done = started(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("keras-l0")
    assert message in done.stderr
    assert " --help)" in done.stderr


def test_help_comes_within_half_a_second() -> None:
    def seconds() -> float:
        began = time.perf_counter()
        started("compress", "--help")
        return time.perf_counter() - began

    assert min(seconds() for _ in range(5)) < 0.5


def test_the_version_is_one() -> None:
    done = started("--version")
    assert (done.returncode, done.stdout) == (0, f"keras-l0 {keras_l0.__version__}\n")
    assert versions.versions()["keras_l0"] == keras_l0.__version__
    assert "version = attr: keras_l0_start.__version__" in (ROOT / "setup.cfg").read_text()


def test_choices_and_defaults_are_those_of_the_library() -> None:
    assert set(keras_l0_parser.DATASETS) == set(datasets.SHAPES)
    assert tuple(RECIPES) == keras_l0_parser.DEMOS
    assert (*once.METHODS, "neuron") == keras_l0_parser.METHODS
    assert keras_l0_parser.MODES == MODES
    assert keras_l0_parser.OBJECTIVES == OBJECTIVES
    assert keras_l0_parser.QUANTIZE == QUANTIZE
    assert keras_l0_parser.TARGETS == TARGETS
    assert set(keras_l0_parser.SCORES) == set(scores.NAMED)
    assert set(keras_l0_parser.CHANNEL_SCORES) == set(channel_scores.SCORES)
    assert [*STUDIES] == keras_l0_parser.STUDIES
    assert Space().compression == keras_l0_parser.COMPRESSIONS
    assert Space().ramp == keras_l0_parser.RAMP
    assert keras_l0_parser.FRACTION == FRACTION


def test_the_defaults_of_compress_are_those_of_the_function() -> None:
    call = ["compress", "m.keras", "--data", "d", "--out", "o", "--sparsity", "0.5"]
    options = cli.parser().parse_args(call)
    function = inspect.signature(keras_l0.compress).parameters
    for name, value in options.settable.items():
        if name in ("l2", "l0", "beta", "score"):  # the penalty's; None, for the function's own
            continue
        assert value == function[name].default, name


@pytest.mark.parametrize("command", keras_l0_parser.COMMANDS)
def test_each_command_has_a_module_and_each_option_a_help(command: str) -> None:
    assert (ROOT / "keras_l0" / "commands" / f"{command}.py").is_file()
    whole = cli.parser()
    (commands,) = (one for one in whole._actions if isinstance(one, argparse._SubParsersAction))
    for action in commands.choices[command]._actions:
        assert action.help, action.dest
        # More than its name said again.
        assert len(action.help.split()) > 2 or action.dest == "model", action.dest


@pytest.mark.parametrize(
    ("given", "expected"), [(["-1", "1"], [-1.0, 1.0]), (["-0.5", "-.25"], [-0.5, -0.25])]
)
def test_a_pixel_range_may_be_negative(given: list[str], expected: list[float]) -> None:
    call = ["sweep", "m.keras", "--data", "d", "--compressions", "2", "--pixel-range", *given]
    assert cli.parser().parse_args(call).pixel_range == expected
