"""``keras-l0 demo``: a small network, trained, compressed and exported."""

import argparse

from keras_l0.commands.outputs import check_new
from keras_l0.experiments.demo import FILES, demo
from keras_l0.files import check_folder


def run(options: argparse.Namespace) -> int:
    """``keras-l0 demo``."""
    out = check_folder(options.out, "out")
    check_new("out", (out / name for name in FILES), options.overwrite)
    print(demo(options.dataset, out))
    return 0
