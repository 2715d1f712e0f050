"""Zeros that an epoch lost although they were held, and weights that no held step changed."""

import zlib
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_l0.pruning.holding import Hold

_RESTORED = "The zeros are restored at the end of each epoch instead."


class EpochStart:
    """What an epoch begins with: zeros that are held, and the steps of each optimizer.

    Args:
        hold: holds the zeros through the optimizers.
        names: of the hold's optimizers.
        zeros: variables with a mask, True where they are zero and stay so.
        watched: variables of which ``cause`` finds out whether the epoch changed them; it takes
            a checksum of each.
    """

    def __init__(
        self,
        hold: Hold,
        names: Sequence[str],
        zeros: Sequence[tuple[keras.Variable, NDArray[np.bool_]]],
        watched: Sequence[keras.Variable] = (),
    ) -> None:
        self._hold, self._names, self._zeros = hold, names, zeros
        self._watched, self._sums = watched, _checksums(watched)
        self._steps = [part.steps() for part in hold.parts]

    def restore(self) -> int:
        """Sets to zero again what was zero, and tells how many weights were not."""
        lost = 0
        for variable, mask in self._zeros:
            values = ops.convert_to_numpy(variable)
            changed = int(np.count_nonzero(values[mask]))
            if changed:
                variable.assign(np.where(mask, np.zeros((), values.dtype), values))
                lost += changed
        return lost

    def cause(self, lost: int) -> str | None:
        """Why zeros were lost, or cannot be held, as far as it was observed, and what helps.

        Args:
            lost: how many zeros the epoch lost.

        Returns:
            ``None`` if none were lost and nothing was observed that would lose them.
        """
        parts = self._hold.parts
        made = [part.steps() - before for part, before in zip(parts, self._steps, strict=True)]
        counts = [f"{name} made {n} steps" for name, n in zip(self._names, made, strict=True)]
        steps = ", ".join(counts) or "the model has no Keras optimizer"
        stepped = [part for part, n in zip(parts, made, strict=True) if n]
        trained = lost or self._sums != _checksums(self._watched)
        if trained and not stepped:
            return (
                f"in this epoch {steps}, but weights changed, so something else trains them, and "
                f"zeros cannot be held in each step. {_RESTORED} To hold them, train with a Keras "
                "optimizer that is an attribute of the model."
            )
        if not all(part.is_on() for part in parts):
            return (
                "the hook of this callback is not in the optimizer any more, as happens if another "
                f"`fit` of this model began during this one. {_RESTORED}"
            )
        if any(not part.called for part in stepped):
            return (
                f"in this epoch {steps}, but the hook in its `apply` was not called, as happens if "
                f"train_step was traced before this fit. {_RESTORED} To hold zeros in each step, "
                "do not wrap train_step in tf.function, or wrap it anew before each fit."
            )
        if lost:
            return (
                f"in this epoch {steps}, but something else than these steps changed weights. "
                f"{_RESTORED} To hold them, change weights only by Keras optimizers that are "
                "attributes of the model."
            )
        return None


def _checksums(variables: Sequence[keras.Variable]) -> list[int]:
    return [zlib.crc32(ops.convert_to_numpy(variable).tobytes()) for variable in variables]
