"""The bridge to tfmot: models over to tf_keras and back, and what tfmot alone offers.

Nothing is imported before it is asked for; the extra ``keras_l0[tfmot]`` installs what it needs.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from keras_l0.tfmot.clustering import cluster as cluster
    from keras_l0.tfmot.quantizing import quantize_aware as quantize_aware
    from keras_l0.tfmot.rebuild import from_tf_keras as from_tf_keras
    from keras_l0.tfmot.rebuild import to_tf_keras as to_tf_keras
    from keras_l0.tfmot.regularizer import L2L0 as L2L0

_HOMES = {
    "L2L0": "regularizer",
    "cluster": "clustering",
    "from_tf_keras": "rebuild",
    "quantize_aware": "quantizing",
    "to_tf_keras": "rebuild",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> _Any:
    """A public name that was not asked for before."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _import_module(f"{__name__}.legacy").legacy_keras()  # an error with what is to be installed
    found = getattr(_import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """All public names."""
    return sorted({*globals(), *__all__})
