"""``keras-l0 bench``: .tflite files against each other."""

import argparse

from keras_l0.errors import invalid_argument
from keras_l0.export.bench import bench


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("files", metavar="FILE", nargs="+", help="a .tflite file")
    parser.add_argument("--threads", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="for all files (%(default)s)")


def run(options: argparse.Namespace) -> None:
    """``keras-l0 bench``."""
    found = bench(options.files, threads=options.threads, seconds=options.seconds)
    print(found)
    broken = [one.path for one in found.timings if one.fault]
    if broken:
        raise invalid_argument("FILE", "files that the runtime runs", ", ".join(broken))
