"""Starts the program ``keras-l0``.

It stands outside the package because importing that imports Keras and its backend, which takes
seconds and whose native code writes to stderr: help, usage errors and the version are to come at
once, and the program's errors are to stand on stderr alone.
"""

import os
import sys

__version__ = "0.1.0"
"""Of the package: ``keras_l0.__version__``, and what setup.cfg reads."""


def main() -> int:
    """Runs the program; returns the exit status."""
    from keras_l0_parser import parser

    options = parser().parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _part_native_code_from_stderr()
    try:
        from keras_l0 import cli
    except ImportError as error:  # Keras without its backend
        print(f"keras-l0: {error}", file=sys.stderr)
        return 2
    return cli.run(options)


def _part_native_code_from_stderr() -> None:
    """Python goes on writing to stderr; what native code writes there is not seen."""
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
