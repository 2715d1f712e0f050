"""`TimeDistributed` over an unknown number of steps, for the time of a conversion."""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import keras
from keras import ops


@contextlib.contextmanager
def all_steps_at_once(model: Any) -> Iterator[None]:
    """Lets `TimeDistributed` layers apply their inner layer to all steps of all samples at once.

    With an unknown number of steps, Keras' own `call` maps over as many steps as the batch has
    samples: traced with a batch of 1 it computes the first step only. With the steps moved into
    the batch the values are the same, as the inner layer treats samples independently.

    Args:
        model: a Keras model, whose layers compute as before at the end, and after an exception.
    """
    layers = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.TimeDistributed)
        and type(layer).call is keras.layers.TimeDistributed.call
    ]
    try:
        for layer in layers:
            # Not setattr: Keras tracks what is set on a layer.
            vars(layer)["call"] = partial(_call, layer)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("call", None)


def _call(layer: Any, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
    """What `TimeDistributed.call` computes, for an unknown number of steps too."""
    if inputs.shape[1] is not None:
        return type(layer).call(layer, inputs, training=training, mask=mask)
    kwargs: dict[str, Any] = {}
    if layer.layer._call_has_mask_arg and mask is not None:
        kwargs["mask"] = _steps_as_samples(mask)
    if layer.layer._call_has_training_arg:
        kwargs["training"] = training
    outputs = layer.layer.call(_steps_as_samples(inputs), **kwargs)
    return ops.reshape(outputs, (*ops.shape(inputs)[:2], *ops.shape(outputs)[1:]))


def _steps_as_samples(tensor: Any) -> Any:
    """Shape (batch, steps, ...) to (batch · steps, ...)."""
    return ops.reshape(tensor, (-1, *ops.shape(tensor)[2:]))
