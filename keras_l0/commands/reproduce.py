"""``keras-l0 reproduce``: experiments of the paper."""

import argparse

from keras_l0.experiments.reproduce import reproduce


def run(options: argparse.Namespace) -> int:
    """``keras-l0 reproduce``."""
    print(reproduce(options.what, options.out, quick=options.quick, workers=options.workers))
    return 0
