"""``keras-l0 demo``: a small network, trained, compressed and exported."""

import argparse

from keras_l0.experiments.demo import RECIPES, demo
from keras_l0.files import check_folder


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--dataset", choices=tuple(RECIPES), default="digits")
    parser.add_argument("--out", default="demo-out", help="folder for the files (%(default)s)")


def run(options: argparse.Namespace) -> None:
    """``keras-l0 demo``."""
    out = check_folder(options.out, "out")
    print(demo(options.dataset, out))
