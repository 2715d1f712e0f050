"""What must hold of a model before anything is done with it."""

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
