"""``keras-l0 bench``: .tflite files against each other."""

import argparse

from keras_l0.errors import invalid_argument
from keras_l0.export.bench import bench


def run(options: argparse.Namespace) -> int:
    """``keras-l0 bench``."""
    found = bench(options.files, threads=options.threads, seconds=options.seconds)
    print(found)
    broken = [one.path for one in found.timings if one.fault]
    if broken:
        raise invalid_argument("FILE", "files that the runtime runs", ", ".join(broken))
    return 0
