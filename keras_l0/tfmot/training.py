"""Training a model of tf_keras on the data and by the loss of its counterpart in Keras 3."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_l0.data import check_compiled, check_taken, unpack
from keras_l0.errors import at_least, invalid_argument, whole_at_least
from keras_l0.tfmot.layers import NEW, OLD, rebuilt
from keras_l0.tfmot.legacy import legacy_keras


class Training:
    """How a counterpart is trained: for how long, how fast, on what, by which loss.

    Args:
        model: compiled, for its loss.
        data: what ``fit`` takes of it.
        epochs: passes over the data, >= 1.
        learning_rate: Adam's, > 0.

    Raises:
        ValueError: if the model is not compiled, does not take the data, or has a loss that
            tf_keras has not; if a number is out of its range.
    """

    def __init__(self, model: keras.Model, data: Any, epochs: int, learning_rate: float) -> None:
        check_compiled(model)
        self._arguments = unpack(data, "data")
        check_taken(model, data, "data")
        self._epochs = whole_at_least("epochs", epochs, 1)
        self._rate = at_least("learning_rate", learning_rate, 0.0)
        self._loss = _mapped(_loss, model.loss)

    def run(self, old: Any) -> None:
        """Trains a counterpart."""
        old.compile(legacy_keras().optimizers.Adam(self._rate), self._loss)
        given = self._arguments
        if "y" in given or isinstance(given["x"], tf.data.Dataset):
            old.fit(**given, epochs=self._epochs, verbose=0)
            return
        for _ in range(self._epochs):
            old.fit(_batches(given["x"]), verbose=0)


def _batches(data: Any) -> Iterator[Any]:
    """One pass over a data set of another kind than TensorFlow's."""
    places = range(len(data)) if isinstance(data, keras.utils.PyDataset) else None
    for batch in data if places is None else (data[place] for place in places):
        yield keras.tree.map_structure(np.asarray, tuple(batch))
    if places is not None:
        data.on_epoch_end()


def _loss(given: Any) -> Any:
    """A loss in tf_keras: of the same name, or of the same class."""
    if given is None or isinstance(given, str):
        return given
    try:
        if isinstance(given, keras.losses.Loss):
            return rebuilt(type(given), given.get_config(), NEW, OLD)
        return getattr(legacy_keras().losses, given.__name__)
    except (AttributeError, TypeError, ValueError) as error:
        raise invalid_argument(
            "model", "a model compiled with a loss that tf_keras has", given, str(error)
        ) from None


def _mapped(function: Callable[[Any], Any], given: Any) -> Any:
    """Of one loss, a list of losses or a dict of them."""
    if isinstance(given, Mapping):
        return {name: _mapped(function, one) for name, one in given.items()}
    if isinstance(given, list | tuple):
        return [_mapped(function, one) for one in given]
    return function(given)
