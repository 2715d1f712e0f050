"""Rewinding: what pruning leaves goes back to the values of an earlier epoch."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_l0.errors import invalid_argument, is_whole
from keras_l0.pruning.targets import find_targets


def check_rewind(rewind: int, warmup: int) -> None:
    """Raises a ``ValueError`` unless it is an epoch of the warmup."""
    if not is_whole(rewind) or not 0 <= rewind <= warmup:
        expected = f"None, or an integer from 0 to {warmup}, the epochs of warmup"
        raise invalid_argument("rewind", expected, rewind)


class Rewinding(keras.callbacks.Callback):
    """Notes a model's weights after an epoch of ``fit``, to go back to them.

    Each weight w that is not 0 becomes w_e, its value after ``epoch`` epochs.

    Args:
        epoch: how many epochs are to have passed, ≥ 0; at 0 the weights are the first ones.

    Source: Frankle & Carbin, "The Lottery Ticket Hypothesis" (2019); of later epochs than 0:
    Frankle et al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis" (2020).
    """

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch
        self.noted: list[Any] | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the first weights, if they are asked for."""
        if epoch == self.epoch == 0:
            self.noted = _values(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes them, if it is the epoch."""
        if epoch + 1 == self.epoch:
            self.noted = _values(self.model)

    def rewind(self, model: keras.Model, layers: str | Sequence[str] | None = None) -> bool:
        """Gives the model the weights noted, and leaves at 0 what is 0 now.

        A prunable weight or a γ that was 0 then keeps its value of now: as a 0 it would be held.

        Args:
            model: the one that was fitted.
            layers: what was pruned, as in ``prune``.

        Returns:
            Whether there were any; a warning says so if not.
        """
        if self.noted is None:  # not a reason to lose what was trained
            reason = f"Nothing is rewound: this training had no end of epoch {self.epoch}"
            warnings.warn(reason, stacklevel=3)
            return False
        prunable = {id(weight.variable) for weight in find_targets(model, layers).live}
        for weight, noted, now in zip(model.weights, self.noted, _values(model), strict=True):
            if "float" in weight.dtype:
                stays = now == 0
                if id(weight) in prunable or weight.name == "gamma":
                    stays |= noted == 0
                weight.assign(np.where(stays, now, noted))
        return True


def _values(model: keras.Model) -> list[Any]:
    # A copy: an array may share its memory with a variable that the next step overwrites.
    return [np.array(ops.convert_to_numpy(weight)) for weight in model.weights]
