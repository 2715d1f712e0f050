"""Batches of arrays in an order that can be had again."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_l0.errors import invalid_argument


class Shuffled(keras.utils.PyDataset):
    """Shuffled batches whose order is a function of a seed and the epoch alone.

    Keras' own order of epoch e depends on the epochs before it; this one is the same in a
    process that begins at epoch e. Each pass over the arrays has an order of its own.

    Args:
        arrays: a tuple of arrays, or of nests of arrays, of one length n.
        batch_size: examples a batch, ≥ 1; the last of a pass may be smaller.
        seed: of NumPy's generator, an integer ≥ 0.
        steps: batches an epoch; ``None`` for one pass.

    Example:

    >>> x = np.arange(4)
    >>> first, again = (Shuffled((x,), 3, seed=0) for _ in range(2))
    >>> again.epoch = first.epoch = 7
    >>> [batch.tolist() for (batch,) in first] == [batch.tolist() for (batch,) in again]
    True
    """

    def __init__(
        self, arrays: tuple[Any, ...], batch_size: int, seed: int, steps: int | None = None
    ) -> None:
        super().__init__()
        # Of lists TensorFlow makes no batches.
        self._arrays = keras.tree.lists_to_tuples(keras.tree.map_structure(_array, arrays))
        self._examples = len(keras.tree.flatten(self._arrays)[0])
        self._batch_size, self._seed = batch_size, seed
        self._batches = math.ceil(self._examples / batch_size)
        self._steps = steps or self._batches
        self._order = -1, np.arange(0)  # of a pass
        self.epoch = 0

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> Any:
        if index >= self._steps:
            raise IndexError(index)
        passes, batch = divmod(self.epoch * self._steps + index, self._batches)
        drawn, order = self._order  # together: workers may be several threads
        if passes != drawn:
            order = np.random.default_rng([self._seed, passes]).permutation(self._examples)
            self._order = passes, order
        chosen = order[batch * self._batch_size : (batch + 1) * self._batch_size]
        return keras.tree.map_structure(lambda array: array[chosen], self._arrays)


def arrays_of(data: Mapping[str, Any], argument: str) -> tuple[Any, ...] | None:
    """The arrays among the arguments of ``fit``, for ``Shuffled``; ``None`` for a data set.

    Args:
        data: ``x``, ``y`` and ``sample_weight`` of arrays; ``x`` alone of a data set.
        argument: what the caller calls it, for the error.

    Raises:
        ValueError: if an array is not of numbers.
    """
    if "y" not in data:
        return None
    arrays = tuple(data[name] for name in ("x", "y", "sample_weight") if name in data)
    if len(arrays) == 2 and arrays[1] is None:
        arrays = arrays[:1]
    for given in keras.tree.flatten(arrays):
        array = np.asarray(given)
        if not array.ndim or array.dtype.kind not in "biufV":
            raise invalid_argument(
                argument,
                "arrays of numbers beside `checkpoint_dir`",
                type(given).__name__,
                "Give a data set whose batches come in the same order in each process",
            )
    return arrays


def _array(given: Any) -> Any:
    """As NumPy's, floats in Keras' precision, as ``fit`` makes them."""
    array = np.asarray(given)
    return array.astype(keras.config.floatx(), copy=False) if array.dtype.kind == "f" else array
