"""Keras 3 networks made small: regularization, pruning, sparse TFLite files."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

# What files of models name: Keras finds these classes once they are imported.
from keras_l0.composite import Composite as Composite
from keras_l0.filter_penalties import GradientCount as GradientCount
from keras_l0.filter_penalties import RedundancyPenalty as RedundancyPenalty
from keras_l0.optimizers import RelevanceDecay as RelevanceDecay
from keras_l0.regularizers import L2L0 as L2L0
from keras_l0.regularizers import largest_alpha as largest_alpha
from keras_l0.regularizers import scaling_factor as scaling_factor
from keras_l0.regularizers import zero_attraction as zero_attraction
from keras_l0_start import __version__ as __version__

if _TYPE_CHECKING:
    from keras_l0.attach import regularize as regularize
    from keras_l0.export.explain import explain_sparsity as explain_sparsity
    from keras_l0.export.tflite import export_tflite as export_tflite
    from keras_l0.pruning.callbacks import GlobalPrune as GlobalPrune
    from keras_l0.pruning.callbacks import LayerwisePrune as LayerwisePrune
    from keras_l0.pruning.callbacks import RandomPrune as RandomPrune
    from keras_l0.pruning.collapse import DeadNetworkWarning as DeadNetworkWarning
    from keras_l0.pruning.iterative import IterativePrune as IterativePrune
    from keras_l0.pruning.keep import KeepZeros as KeepZeros
    from keras_l0.pruning.neuron_callback import NeuronPrune as NeuronPrune
    from keras_l0.pruning.once import prune as prune
    from keras_l0.report.summary import summarize as summarize
    from keras_l0.report.sweep import sweep as sweep
    from keras_l0.scheme import compress as compress
    from keras_l0.structure.shrink import shrink as shrink

# The same for Python: read when a name is first asked for, so that the import itself is quick.
_HOMES = {
    "DeadNetworkWarning": "pruning.collapse",
    "GlobalPrune": "pruning.callbacks",
    "IterativePrune": "pruning.iterative",
    "KeepZeros": "pruning.keep",
    "LayerwisePrune": "pruning.callbacks",
    "NeuronPrune": "pruning.neuron_callback",
    "RandomPrune": "pruning.callbacks",
    "compress": "scheme",
    "explain_sparsity": "export.explain",
    "export_tflite": "export.tflite",
    "prune": "pruning.once",
    "regularize": "attach",
    "shrink": "structure.shrink",
    "summarize": "report.summary",
    "sweep": "report.sweep",
}

__all__ = [
    "L2L0",
    "Composite",
    "GradientCount",
    "RedundancyPenalty",
    "RelevanceDecay",
    "largest_alpha",
    "scaling_factor",
    "zero_attraction",
    *_HOMES,
]


def __getattr__(name: str) -> _Any:
    """A public name that was not asked for before."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(_import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """All public names."""
    return sorted({*globals(), *__all__})
