"""Images changed at random for training, by Keras' own layers."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from keras_l0.errors import choice

Array = NDArray[Any]

_BLOCK = 10_000  # images that a layer changes at once: each call costs time of its own


def _shifted(seed: int) -> list[keras.Layer]:
    """Shifts by up to 4 of 32 pixels and flips, as He et al. (2016) train on CIFAR."""
    return [
        layers.RandomTranslation(0.125, 0.125, fill_mode="constant", seed=seed),
        layers.RandomFlip("horizontal", seed=seed),
    ]


def _nudged(seed: int) -> list[keras.Layer]:
    """Shifts by up to 1 of 28 pixels, for digits."""
    return [layers.RandomTranslation(1 / 28, 1 / 28, fill_mode="constant", seed=seed)]


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
    "nudged": _nudged,
    "shifted": _shifted,
    "warped": _warped,
}


class Augmented(keras.utils.PyDataset):
    """Examples in batches, in another order in each epoch, their images changed at random.

    Args:
        x: float images, channels last, or without an axis for them.
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
        place = slice(index * self.batch, (index + 1) * self.batch)
        return self.images[place], self.y[self.order[place]]

    def on_epoch_begin(self) -> None:
        """Draws the epoch's order and images."""
        self.epoch += 1
        self.order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.x))
        self.images = self.x[self.order]
        for begin in range(0, len(self.images) if self.layers else 0, _BLOCK):
            block = self.images[begin : begin + _BLOCK]
            block[:] = self._changed(block)

    def _changed(self, images: Array) -> Array:
        whole = images.reshape(*images.shape[:3], -1)  # with an axis for the channels
        for layer in self.layers:
            whole = layer(whole, training=True)
        return keras.ops.convert_to_numpy(whole).reshape(images.shape)
