"""Training and validation data, in whatever form Keras takes it."""

from typing import Any

import keras
import numpy as np

from keras_l0.errors import invalid_argument, whole_at_least
from keras_l0.models import has_own_test
from keras_l0.pruning.measure import penalty


def unpack(data: Any, argument: str) -> dict[str, Any]:
    """The arguments ``x``, ``y`` and ``sample_weight`` of ``fit`` and ``evaluate``.

    Args:
        data: a tuple ``(x, y)`` or ``(x, y, sample_weight)`` of arrays, or a ``tf.data``
            dataset, a ``PyDataset``, a PyTorch ``DataLoader`` or another iterable of batches.
        argument: the argument's name, for the error.

    Returns:
        The arguments that there are.

    Raises:
        ValueError: if there are no data, or a tuple is not of two or three.

    Example:

    >>> unpack(([1], [2]), "train")
    {'x': [1], 'y': [2]}
    """
    if data is None or (isinstance(data, tuple) and len(data) not in (2, 3)):
        raise invalid_argument(
            argument,
            "a tuple (x, y) or (x, y, sample_weight), or a data set of batches",
            data if data is None else f"a tuple of {len(data)}",
        )
    if not isinstance(data, tuple):
        return {"x": data}
    named = dict(zip(("x", "y", "sample_weight"), data, strict=False))
    return {
        name: given for name, given in named.items() if name != "sample_weight" or given is not None
    }


def fit_data(data: Any, argument: str) -> dict[str, Any]:
    """As ``unpack``, with ``fit``'s ``shuffle``."""
    # A tf.data dataset or a DataLoader shuffles by itself, and Keras warns of any attempt.
    shuffle = isinstance(data, tuple | keras.utils.PyDataset)
    return {**unpack(data, argument), "shuffle": shuffle}


def evaluate(
    model: keras.Model,
    data: Any,
    argument: str,
    *,
    steps: int | None = None,
    batch_size: int | None = None,
) -> dict[str, float]:
    """The loss and metrics of a compiled model, without a progress bar.

    The loss is without the penalties on weights, so that it can be compared with the loss of the
    same model under other penalties, or pruned: what ``model.evaluate`` gives less the sum of
    the regularizers of trainable weights. What layers and users add to the loss otherwise, as
    activity regularizers do, stays in it. A model with a ``test_step`` of its own gives what that
    gives, with a loss or without.

    Raises:
        ValueError: if there are no data, or a count is none.
    """
    for name, count in (("steps", steps), ("batch_size", batch_size)):
        if count is not None:
            whole_at_least(name, count, 1)
    arguments = unpack(data, argument)
    found = model.evaluate(
        **arguments, steps=steps, batch_size=batch_size, verbose=0, return_dict=True
    )
    metrics = {name: float(value) for name, value in found.items()}
    if has_own_test(model):
        return metrics
    return metrics | {"loss": metrics["loss"] - penalty(model)}


def loss_name(model: keras.Model) -> str:
    """What the loss that ``evaluate`` gives is called in a table."""
    return "loss of test_step" if has_own_test(model) else "loss without penalties"


def check_compiled(model: keras.Model) -> None:
    """Raises a ``ValueError`` unless ``compile`` was called."""
    if not isinstance(model, keras.Model):
        raise invalid_argument("model", "a keras.Model", model)
    if not model.compiled:
        raise invalid_argument(
            "model",
            "a compiled model",
            model.name,
            "Call `model.compile(optimizer, loss, metrics)` first",
        )


def check_taken(model: keras.Model, data: Any, argument: str) -> None:
    """Raises a ``ValueError`` now, and not after hours, if the model does not take these arrays."""
    if not isinstance(data, tuple):
        return
    try:  # no evaluate: one that fails on JAX leaves the model without its weights
        first = keras.tree.map_structure(lambda array: np.asarray(array[:1]), data)
        one = unpack(first, argument)
        outputs = model(one["x"], training=False)
        model.compute_loss(x=one["x"], y=one["y"], y_pred=outputs, training=False)
    except Exception as error:  # backends have kinds of their own
        expected = "examples and targets that the model and its loss take"
        shapes = keras.tree.map_structure(np.shape, data)
        reason = str(error).strip().splitlines()[0]
        raise invalid_argument(argument, expected, f"arrays {shapes}", reason) from None
