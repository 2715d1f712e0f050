"""Starts the program ``keras-l0``.

It stands outside the package because importing that imports Keras and its backend, whose
native code greets with a dozen lines on stderr; the program's errors are to stand there alone.
"""

import contextlib
import os
import sys
from collections.abc import Iterator


def main() -> int:
    """Runs the program; returns the exit status."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _hushed():
        from keras_l0 import cli
    return cli.main()


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Nothing written to stderr's file descriptor is seen, by native code either."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
