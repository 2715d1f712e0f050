"""Which packages a result was made with."""

import importlib.metadata
import platform

PACKAGES = (
    "keras_l0",
    "keras",
    "numpy",
    "tensorflow",
    "tensorflow-cpu",
    "ai-edge-litert",
    "jax",
    "torch",
)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that are installed, without importing them."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
