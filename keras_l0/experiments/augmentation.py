"""Images changed at random for training, by Keras' own layers, a batch at a time."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from keras_l0.errors import choice

Array = NDArray[Any]


def _shifted(seed: int) -> list[keras.Layer]:
    """Shifts by up to 4 of 32 pixels and flips, as He et al. (2016) train on CIFAR."""
    return [
        layers.RandomTranslation(0.125, 0.125, fill_mode="constant", seed=seed),
        layers.RandomFlip("horizontal", seed=seed),
    ]


def _warped(seed: int) -> list[keras.Layer]:
    """What the paper's authors train ResNet-50 with: 10° of rotation, a tenth of all else."""
    return [
        layers.RandomRotation(10 / 360, fill_mode="nearest", seed=seed),
        layers.RandomZoom(0.1, 0.1, fill_mode="nearest", seed=seed),
        layers.RandomTranslation(0.1, 0.1, fill_mode="nearest", seed=seed),
        layers.RandomShear(0.1, 0.1, fill_mode="nearest", seed=seed),
        layers.RandomFlip("horizontal", seed=seed),
    ]


AUGMENTATIONS: dict[str, Callable[[int], list[keras.Layer]]] = {
    "none": lambda _: [],
    "shifted": _shifted,
    "warped": _warped,
}


class Augmented(keras.utils.PyDataset):
    """Examples in batches, in another order in each epoch, their images changed at random.

    Args:
        x: float images, channels last.
        y: labels.
        batch: examples a batch; the last one has what is left.
        augmentation: a name of ``AUGMENTATIONS``.
        seed: of the order and the changes.

    Raises:
        ValueError: if the augmentation is not known.

    Example:

    >>> images = np.zeros((10, 32, 32, 3), "float32")
    >>> [len(x) for x, _ in Augmented(images, np.arange(10), 4, "shifted", seed=0)]
    [4, 4, 2]
    """

    def __init__(self, x: Array, y: Array, batch: int, augmentation: str, seed: int) -> None:
        super().__init__()
        choice("augmentation", augmentation, tuple(AUGMENTATIONS))
        self.x, self.y, self.batch, self.seed = x, y, batch, seed
        self.layers = AUGMENTATIONS[augmentation](seed)
        self.epoch = -1
        self.on_epoch_begin()

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch)

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        chosen = self.order[index * self.batch : (index + 1) * self.batch]
        x = self.x[chosen]
        for layer in self.layers:
            x = keras.ops.convert_to_numpy(layer(x, training=True))
        return x, self.y[chosen]

    def on_epoch_begin(self) -> None:
        """Draws the epoch's order."""
        self.epoch += 1
        self.order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.x))
