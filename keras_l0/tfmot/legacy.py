"""tf_keras and tfmot in a process that has Keras 3, neither disturbing the other.

tfmot sets ``TF_USE_LEGACY_KERAS`` when it is imported, and ``tf.keras`` becomes the one Keras or
the other when it is first read: it is read before, and the variable is put back behind.
tf_keras draws the seeds of its initializers from Python's ``random``, whose state is put back too.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

VARIABLE = "TF_USE_LEGACY_KERAS"


@contextmanager
def undisturbed() -> Iterator[None]:
    """Puts the process' environment and Python's random numbers back as they were."""
    before, state = os.environ.get(VARIABLE), random.getstate()
    try:
        yield
    finally:
        random.setstate(state)
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


def legacy_keras() -> Any:
    """The module ``tf_keras``.

    Raises:
        ImportError: if it is not installed; the command that installs it.
    """
    return _import("tf_keras")


def toolkit() -> Any:
    """The module ``tensorflow_model_optimization``.

    Raises:
        ImportError: if it is not installed; the command that installs it.
    """
    legacy_keras()
    return _import("tensorflow_model_optimization")


def _import(name: str) -> Any:
    try:
        import tensorflow

        _ = tensorflow.keras.Model
        with undisturbed():
            return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"The bridge to tfmot needs {error.name or name}. Run: "
            'pip install "keras_l0[tensorflow,tfmot]"'
        ) from error
