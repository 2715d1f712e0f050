"""Which packages a result was made with."""

import importlib.metadata
import platform

from keras_l0_start import __version__

PACKAGES = (
    "keras",
    "numpy",
    "tensorflow",
    "tensorflow-cpu",
    "ai-edge-litert",
    "jax",
    "torch",
)


def versions() -> dict[str, str]:
    """Those of Python, of this package and of others that are installed, without importing them."""
    found = {"python": platform.python_version(), "keras_l0": __version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
