"""``keras-l0 reproduce``: experiments of the paper."""

import argparse

from keras_l0.experiments.reproduce import STUDIES, reproduce


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("what", metavar="WHAT", help=", ".join(STUDIES))
    parser.add_argument("--quick", action="store_true", help="on few epochs")
    parser.add_argument("--out", default="results", help="folder for the files (%(default)s)")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes that train side by side (%(default)s)"
    )


def run(options: argparse.Namespace) -> None:
    """``keras-l0 reproduce``."""
    print(reproduce(options.what, options.out, quick=options.quick, workers=options.workers))
