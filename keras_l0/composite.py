"""Several penalties of a kernel as one, and those of the redundancy scheme."""

import glob
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras.regularizers import Regularizer

from keras_l0.errors import invalid_argument
from keras_l0.filter_penalties import GradientCount, RedundancyPenalty

if TYPE_CHECKING:
    from keras_l0.pruning.neurons import Neurons

REDUNDANCY, COUNT = 1e-1, 1e-6
"""The scheme's weights of the two penalties, if nothing else is said."""


@keras.saving.register_keras_serializable(package="keras_l0")
class Composite(Regularizer):
    """The sum of several regularizers of one kernel: ``Σ_i R_i(w)``.

    Args:
        regularizers: one or more ``keras.regularizers.Regularizer``.

    Raises:
        ValueError: if they are none, or not regularizers.

    Example:

    >>> from keras_l0 import Composite, GradientCount, RedundancyPenalty
    >>> both = Composite([RedundancyPenalty(0.1), GradientCount(1e-6)])
    >>> layer = keras.layers.Conv2D(8, 3, kernel_regularizer=both)
    """

    def __init__(self, regularizers: Sequence[Regularizer]) -> None:
        listed = isinstance(regularizers, Sequence) and len(regularizers) > 0
        if not listed or not all(isinstance(one, Regularizer) for one in regularizers):
            raise invalid_argument(
                "regularizers", "a list of keras.regularizers.Regularizer", regularizers
            )
        self.regularizers = list(regularizers)

    def __call__(self, x: Any) -> Any:
        """The penalty of a kernel, a scalar."""
        first, *others = (one(x) for one in self.regularizers)
        return sum(others, first)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"regularizers": [keras.regularizers.serialize(one) for one in self.regularizers]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Composite":
        """From what ``get_config`` gave."""
        return cls([keras.regularizers.deserialize(one) for one in config["regularizers"]])

    def __repr__(self) -> str:
        return f"Composite({self.regularizers!r})"


def constraints(
    neurons: "Neurons", redundancy: float = REDUNDANCY, count: float = COUNT
) -> dict[str, Regularizer]:
    """The redundancy scheme's penalties, for the kernels of all channels that can be pruned.

    Each has a ``RedundancyPenalty`` of its filters and a ``GradientCount`` of its places; of its
    filters where it has one place only, as 1×1 and dense kernels do. What is frozen, which no
    penalty moves, has none, nor have embeddings, which ``regularize`` leaves alone.

    Args:
        neurons: of the model.
        redundancy: the weight of the first.
        count: that of the second.

    Returns:
        ``overrides`` for ``regularize``, a pattern for each kernel.
    """
    found: dict[str, Regularizer] = {}
    for group in neurons.groups:
        for slot in group.slots:
            if not (slot.variable.trainable and slot.variable.name.endswith("kernel")):
                continue
            shape = slot.variable.shape
            axes = "spatial" if max(shape[:-2], default=1) > 1 else "filters"
            axis = slot.axis - len(shape)
            found[glob.escape(slot.variable.path)] = Composite(
                [
                    RedundancyPenalty(redundancy, axis),
                    GradientCount(count, axes=axes, axis=axis),
                ]
            )
    return found
