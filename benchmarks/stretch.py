"""Epochs of a set length, whatever the number of samples."""

from typing import Any

import keras
import numpy as np


class Stretch(keras.utils.PyDataset):
    """Epochs of so many batches, each drawn anew from all samples, none twice in an epoch."""

    def __init__(self, x: Any, y: Any, steps: int, batch: int, seed: int) -> None:
        super().__init__()
        self.x, self.y, self.steps, self.batch = x, y, steps, batch
        self._draws = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[Any, Any]:
        rows = self._order[step * self.batch : (step + 1) * self.batch]
        return self.x[rows], self.y[rows]

    def on_epoch_end(self) -> None:
        """Draws the next epoch's samples."""
        self._order = self._draws.permutation(len(self.x))[: self.steps * self.batch]
