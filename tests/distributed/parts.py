"""What the runs on several devices share: a network, its data, and what is seen of them.

Each trains on one device and on several, and prints a line of JSON for each pruning callback.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from keras_l0 import L2L0, GlobalPrune, KeepZeros, LayerwisePrune, RandomPrune, compress

EPOCHS = 6
BATCH = 16

Copies = Callable[[keras.Variable], Sequence[NDArray[Any]]]
Run = tuple["Seen", list[NDArray[Any]]]

CALLBACKS: dict[str, Callable[[], KeepZeros]] = {
    "global": lambda: GlobalPrune(0.8, begin=1, end=4),
    "regrow": lambda: GlobalPrune(0.8, begin=0, end=4, regrow=True),
    "layerwise": lambda: LayerwisePrune(0.8, distribution="erk", begin=1, end=4),
    "random": lambda: RandomPrune(0.8, seed=3, begin=1, end=4),
}
OPTIMIZERS: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    # Without pruning too, its default epsilon makes full steps of gradients that are rounding.
    "adam": lambda: keras.optimizers.Adam(0.01, epsilon=1e-3),
}


def data() -> tuple[NDArray[Any], NDArray[Any]]:
    """Images of four kinds: which quarter is the brightest."""
    x = np.random.default_rng(0).random((4 * BATCH, 8, 8, 1), np.float32)
    quarters = x.reshape(-1, 2, 4, 2, 4).mean((2, 4)).reshape(-1, 4)
    return x, quarters.argmax(1)


def net(optimizer: str, normalized: bool = True) -> keras.Model:
    """A small network with an l0 penalty, from the same weights each time."""
    keras.utils.set_random_seed(1)
    after = layers.BatchNormalization(momentum=0.9) if normalized else layers.ReLU()
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            # A bias before a normalization has no gradient but rounding, which Adam makes large.
            layers.Conv2D(8, 3, use_bias=not normalized, kernel_regularizer=L2L0(1e-4, 1e-3)),
            after,
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(16, "tanh", kernel_regularizer=L2L0(1e-4, 1e-3)),
            layers.Dense(4, "softmax"),
        ]
    )
    loss = "sparse_categorical_crossentropy"
    model.compile(OPTIMIZERS[optimizer](), loss, metrics=["accuracy"])
    return model


class Seen(keras.callbacks.Callback):
    """What stands in every copy of each kernel at each epoch's beginning and end."""

    def __init__(self, copies: Copies) -> None:
        super().__init__()
        self._copies = copies
        self._digest = hashlib.sha256()
        self.masks: list[NDArray[np.bool_]] = []
        self.number = 0
        self.differ = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks after the pruning of this epoch."""
        self._look()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks after the training of this epoch."""
        self._look()

    def _look(self) -> None:
        found = []
        for kernel in [one for one in self.model.weights if one.name == "kernel"]:
            first, *others = self._copies(kernel)
            self.number = 1 + len(others)
            self.differ += sum(not np.array_equal(first, one) for one in others)
            self._digest.update(first.tobytes())
            found.append(first.ravel() == 0)
        self.masks.append(np.concatenate(found))

    @property
    def digest(self) -> str:
        """Of all that was seen: the same in each process."""
        return self._digest.hexdigest()


def fitted(model: keras.Model, callback: str, copies: Copies, **arguments: Any) -> Run:
    """What was seen during a ``fit``, and the weights at its end."""
    seen = Seen(copies)
    x, y = data()
    model.fit(
        **{"x": x, "y": y, "batch_size": BATCH, **arguments},
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[CALLBACKS[callback](), seen],
    )
    return seen, model.get_weights()


def compressed(model: keras.Model, copies: Copies) -> Run:
    """The same of a ``compress``, whose batches are the whole data: their order is its own."""
    seen = Seen(copies)
    result = compress(
        model,
        data(),
        data(),
        compression=4,
        warmup=1,
        ramp=2,
        finetune=2,
        finetune_penalty=False,
        anneal=1,
        learning_rate=0.01,
        batch_size=4 * BATCH,
        callbacks=[seen],
        verbose=0,
    )
    return seen, result.model.get_weights()


def compared(one: Run, many: Run) -> dict[str, Any]:
    """How far a run on several devices is from that on one."""
    return {
        "zeros": [int(mask.sum()) for mask in many[0].masks],
        "same_zeros": np.array_equal(one[0].masks, many[0].masks),
        "copies": many[0].number,
        "copies_that_differ": many[0].differ,
        "apart": apart(one[1], many[1]),
        "digest": many[0].digest,
    }


def apart(one: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]]) -> float:
    """The largest difference of two lists of weights."""
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))
