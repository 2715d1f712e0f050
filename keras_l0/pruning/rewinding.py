"""Rewinding: what pruning leaves goes back to the values of an earlier epoch."""

import warnings
from typing import Any

import keras
import numpy as np
from keras import ops


class Rewinding(keras.callbacks.Callback):
    """Notes a model's weights at the end of an epoch of ``fit``, to go back to them.

    Args:
        model: the model that is fitted.
        epoch: how many epochs are to have passed, ≥ 0; at 0 the weights are those of now.

    Source: Frankle & Carbin, "The Lottery Ticket Hypothesis" (2019); of later epochs than 0:
    Frankle et al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis" (2020).
    """

    def __init__(self, model: keras.Model, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch
        self.noted = None if epoch else _values(model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes them, if it is the epoch."""
        if epoch + 1 == self.epoch:
            self.noted = _values(self.model)

    def rewind(self, model: keras.Model) -> None:
        """Gives the model the weights noted, and leaves at 0 what is 0 now."""
        if self.noted is None:  # not a reason to lose what was trained
            warnings.warn(
                f"Nothing is rewound: the training went on from a backup after epoch {self.epoch}",
                stacklevel=3,
            )
            return
        for weight, noted, now in zip(model.weights, self.noted, _values(model), strict=True):
            if "float" in weight.dtype:
                weight.assign(np.where(now == 0, now, noted))


def _values(model: keras.Model) -> list[Any]:
    # A copy: an array may share its memory with a variable that the next step overwrites.
    return [np.array(ops.convert_to_numpy(weight)) for weight in model.weights]
