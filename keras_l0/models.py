"""What must hold of a model before anything is done with it, and compiling one like another."""

import contextlib
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_l0.errors import invalid_argument


def check_built(model: keras.Model) -> None:
    """Raises a ``ValueError`` unless ``model`` is a Keras model whose weights exist."""
    if not isinstance(model, keras.Model):
        raise invalid_argument("model", "a keras.Model", model)
    if not model.built:
        raise invalid_argument(
            "model",
            "a built model",
            model.name,
            "Call `model.build(input_shape)`, or the model on a batch, first",
        )


def check_finite(model: keras.Model) -> None:
    """Raises a ``ValueError`` if a weight of ``model`` is NaN or infinite."""
    for weight in model.weights:
        values = ops.convert_to_numpy(weight)
        if "float" in weight.dtype and not np.isfinite(values.astype(np.float32)).all():
            raise invalid_argument(
                "model",
                "finite weights",
                model.name,
                f"Its weight {weight.path} holds NaN or infinite values.",
            )


def layer_path(layer: keras.Layer) -> str:
    """The layer's path in the model, or its name where it has none yet."""
    return layer.path or layer.name


def has_own_test(model: keras.Model) -> bool:
    """Whether the model has a ``test_step`` of its own, whose data and loss may be anything."""
    return getattr(model.test_step, "__func__", None) is not keras.Model.test_step


def check_recompiles(model: keras.Model) -> None:
    """Raises a ``ValueError`` if a loss, metric or optimizer of the model cannot be made anew."""
    try:
        keras.tree.map_structure(_anew, dict(model._compile_config.config))
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise invalid_argument(
            "model", "a model compiled with what has a get_config", model.name, str(error)
        ) from None


def check_renewable(model: keras.Model) -> None:
    """Raises a ``ValueError`` if the model's optimizer cannot be made anew."""
    try:
        _anew(model.optimizer)
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise invalid_argument(
            "model", "a model whose optimizer has a get_config", model.name, str(error)
        ) from None


def renew_optimizer(model: keras.Model) -> None:
    """Puts the optimizer's state back to what it is at first, at the learning rate of now."""
    fresh = _anew(model.optimizer)
    fresh.build(model.trainable_variables)
    for variable, first in zip(model.optimizer.variables, fresh.variables, strict=True):
        variable.assign(first)


def copy_of(model: keras.Model) -> keras.Model:
    """The same model once more, with its weights, compiled likewise.

    Raises:
        ValueError: if a part of it cannot be made anew.
    """
    check_recompiles(model)
    try:
        with _own_functions(model), same_place(model):
            copy = keras.models.clone_model(model)
    except (NotImplementedError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise invalid_argument(
            "model", "a model that keras.models.clone_model copies", model.name, reason
        ) from None
    copy.set_weights(model.get_weights())
    compile_like(model, copy)
    return copy


def compile_like(old: keras.Model, new: keras.Model) -> None:
    """Compiles a model with what another one was compiled with, its optimizer starting anew.

    Raises:
        AttributeError, TypeError, ValueError: if a part of that cannot be made anew.
    """
    with _own_functions(old), same_place(new):
        new.compile(**keras.tree.map_structure(_anew, dict(old._compile_config.config)))
        new.optimizer.build(new.trainable_variables)


def same_place(model: keras.Model) -> contextlib.AbstractContextManager[Any]:
    """A scope in which what is made stands where a model does: a strategy of TensorFlow's."""
    strategy = getattr(model, "_distribute_strategy", None)
    return strategy.scope() if strategy else contextlib.nullcontext()


def _own_functions(model: keras.Model) -> Any:
    """A scope in which the functions that a model was compiled with need no registered name."""
    noted = keras.tree.flatten(dict(model._compile_config.config))
    return keras.saving.custom_object_scope(
        {one.__name__: one for one in map(_function, noted) if one}
    )


def _function(given: Any) -> Any:
    """The function that a loss or metric is made of."""
    found = getattr(given, "_fn", None) or getattr(given, "fn", None) or given
    return found if hasattr(found, "__name__") else None


def _anew(given: Any) -> Any:
    """A loss, metric or optimizer of the same configuration; all else as it is."""
    if isinstance(given, keras.Loss | keras.Metric | keras.optimizers.Optimizer):
        return type(given).from_config(given.get_config())
    return given
