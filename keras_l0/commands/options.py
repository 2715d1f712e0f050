"""Options that several commands have."""

import argparse
import math

from keras_l0.errors import invalid_argument
from keras_l0.experiments.datasets import SHAPES
from keras_l0.export.tflite import OBJECTIVES, QUANTIZE


def add_data(parser: argparse.ArgumentParser, name: str, required: bool = False) -> None:
    """Data by a name, a file or a folder."""
    parser.add_argument(
        name,
        metavar="DATA",
        required=required,
        help="a .npz file, a folder with one folder of images a class, or "
        + ", ".join(SHAPES)
        + "; for an export also a .npz file with an array for each input's name" * (not required),
    )
    parser.add_argument(
        "--raw", action="store_true", help="leave integer pixels as they are, not scaled to [0, 1]"
    )


def add_split(parser: argparse.ArgumentParser) -> None:
    """How they are parted."""
    parser.add_argument(
        "--holdout", type=float, help="share to test on where DATA has no test arrays (0.1)"
    )
    parser.add_argument(
        "--validation",
        type=float,
        default=0.1,
        help="share of the rest to validate on (%(default)s)",
    )


def add_quantize(parser: argparse.ArgumentParser) -> None:
    """Of which kind the .tflite file is, and what it is to be best at."""
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


def read_bound(text: str) -> dict[str, float]:
    """A metric and its bound, from ``METRIC=VALUE``."""
    name, _, value = text.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not name or not math.isfinite(number):
        raise invalid_argument("bound", "METRIC=VALUE, as val_accuracy=0.98", text)
    return {name: number}
