"""Training a model of tf_keras on the data and by the loss of its counterpart in Keras 3."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_l0.data import check_compiled, check_taken, unpack
from keras_l0.errors import at_least, invalid_argument, whole_at_least
from keras_l0.tfmot.layers import NEW, OLD, rebuilt
from keras_l0.tfmot.legacy import legacy_keras


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a counterpart is trained.

    Args:
        epochs: passes over the data, >= 1.
        learning_rate: Adam's, >= 0.

    Raises:
        ValueError: if one is out of its range.
    """

    epochs: int
    learning_rate: float

    def __post_init__(self) -> None:
        whole_at_least("epochs", self.epochs, 1)
        at_least("learning_rate", self.learning_rate, 0.0)


class Training:
    """What a counterpart is trained on, and by which loss.

    Args:
        model: compiled, for its loss.
        data: what ``fit`` takes of it.
        how: how long and how fast.

    Raises:
        ValueError: if the model is not compiled, does not take the data, or has a loss that
            tf_keras has not.
    """

    def __init__(self, model: keras.Model, data: Any, how: Schedule) -> None:
        check_compiled(model)
        self._arguments = unpack(data, "data")
        check_taken(model, data, "data")
        if isinstance(data, Iterator) and how.epochs > 1:
            raise invalid_argument(
                "data", "a data set that can be gone over in each epoch", type(data).__name__
            )
        self._how = how
        self._loss = keras.tree.map_structure(_loss, model.loss)
        self._loss_weights = model._compile_config.config.get("loss_weights")

    def run(self, old: Any, callbacks: Sequence[Any] = ()) -> None:
        """Trains a counterpart.

        Args:
            old: of tf_keras, with the layers' outputs of the model.
            callbacks: of tf_keras.

        Raises:
            ValueError: if it does not take a batch of a data set.
        """
        adam = legacy_keras().optimizers.Adam(self._how.learning_rate)
        old.compile(adam, self._loss, loss_weights=self._loss_weights)
        given = self._arguments
        if "y" in given:
            given = keras.tree.map_structure(np.asarray, given)
        once = "y" in given or isinstance(given["x"], tf.data.Dataset)
        for _ in range(1 if once else self._how.epochs):
            data = given if once else {"x": _batches(given["x"])}
            try:
                epochs = self._how.epochs if once else 1
                old.fit(**data, epochs=epochs, callbacks=[*callbacks], verbose=0)
            except Exception as error:  # TensorFlow has kinds of its own
                raise invalid_argument(
                    "data",
                    "batches that the model and its loss take",
                    type(data["x"]).__name__,
                    _reason(error),
                ) from None


def _reason(error: Exception) -> str:
    """What an error of tf_keras says, without where it was raised and what it was called on."""
    words = str(error).rpartition("Error: ")[2].partition("Call arguments received")[0].split()
    return shorten(" ".join(words), 300) or type(error).__name__


def _batches(data: Any) -> Iterator[Any]:
    """One pass over a data set of another kind than TensorFlow's."""
    indexed = isinstance(data, keras.utils.PyDataset)
    for batch in (data[place] for place in range(data.num_batches)) if indexed else data:
        yield keras.tree.map_structure(np.asarray, tuple(batch))
    if indexed:
        data.on_epoch_end()


def _loss(given: Any) -> Any:
    """A loss in tf_keras: of the same name, or of the same class."""
    if given is None:
        return None
    try:
        if isinstance(given, str):
            legacy_keras().losses.get(given)
            return given
        if isinstance(given, keras.losses.Loss):
            return rebuilt(type(given), given.get_config(), NEW, OLD)
        name = str(given.__name__)
        if getattr(keras.losses, name, None) is given:
            return getattr(legacy_keras().losses, name)
        reason = "it is a function of your own"
    except (AttributeError, TypeError, ValueError) as error:
        reason = str(error)
    name = getattr(given, "name", getattr(given, "__name__", given))
    raise invalid_argument("model", "a loss that tf_keras has", f"compiled with {name}", reason)
