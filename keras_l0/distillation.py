"""Knowledge distillation: what a network that is larger thinks of the examples, as targets."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_l0.errors import invalid_argument, is_finite


def soft_targets(
    teacher: keras.Model,
    x: Any,
    y: NDArray[Any],
    *,
    weight: float = 0.5,
    temperature: float = 2.0,
    batch_size: int = 256,
) -> NDArray[np.float32]:
    """Targets for a classifier that are partly the labels, and partly what a teacher says.

    q = (1 − weight) · onehot(y) + weight · softmax(log p / temperature), where p is what the
    teacher puts out. Train on them with a categorical cross-entropy; ``compress`` takes them as
    ``finetune_train=(x, q)``, and labels as one-hot rows beside them. A teacher that knows all
    its training examples by heart adds nothing to the labels: train it with dropout.

    Args:
        teacher: a model whose outputs are probabilities of shape ``(..., classes)``, such as the
            network before it was pruned.
        x: the examples, as arrays that ``teacher.predict`` takes.
        y: their labels: integers of shape ``(...)`` or ``(..., 1)``, or one-hot rows.
        weight: the teacher's share, in [0, 1].
        temperature: above 1 it levels the teacher's probabilities, > 0.
        batch_size: examples at a time.

    Returns:
        Rows that add up to 1, float32 of shape ``(..., classes)``.

    Raises:
        ValueError: if a number is out of its range, the teacher's outputs are no probabilities, or
            the labels are none of its classes, or more or fewer than its outputs.

    Example:

    >>> teacher = keras.Sequential([keras.Input((2,)), keras.layers.Softmax()])
    >>> x = np.log([[0.8, 0.2], [0.5, 0.5]])
    >>> soft_targets(teacher, x, np.array([0, 1]), temperature=1.0).round(2).tolist()
    [[0.8999999761581421, 0.10000000149011612], [0.25, 0.75]]

    Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network" (2015).
    """
    if not is_finite(weight) or not 0 <= weight <= 1:
        raise invalid_argument("weight", "a number in [0, 1]", weight)
    if not is_finite(temperature) or temperature <= 0:
        raise invalid_argument("temperature", "a number > 0", temperature)
    outputs = teacher.predict(x, batch_size=batch_size, verbose=0)
    single = not isinstance(outputs, list | tuple | dict)
    p = np.asarray(outputs, np.float64) if single else np.zeros(1)
    if p.ndim < 2 or not _are_shares(p):
        expected = "a model of one output that is probabilities, of softmax"
        raise invalid_argument("teacher", expected, teacher.name)
    level = np.log(np.maximum(p, np.finfo(np.float32).tiny)) / temperature
    level = np.exp(level - level.max(axis=-1, keepdims=True))
    level /= level.sum(axis=-1, keepdims=True)
    return ((1 - weight) * _one_hot(np.asarray(y), p.shape) + weight * level).astype(np.float32)


def _are_shares(rows: NDArray[Any]) -> bool:
    """Whether each row adds up to 1, as narrow floats do, and nothing is negative."""
    return bool(rows.min() >= 0 and np.allclose(rows.sum(axis=-1), 1, atol=0.02))


def _one_hot(y: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Labels as rows of a shape."""
    if y.shape == shape and _are_shares(y.astype(np.float64)):
        return y
    if y.shape not in (shape[:-1], (*shape[:-1], 1)) or y.dtype.kind not in "iu":
        expected = f"integers of shape {shape[:-1]} or one-hot rows of shape {shape}"
        raise invalid_argument("y", expected, f"{y.dtype} of shape {y.shape}")
    if y.min() < 0 or y.max() >= shape[-1]:
        worst = int(y.min()) if y.min() < 0 else int(y.max())
        raise invalid_argument("y", f"classes from 0 to {shape[-1] - 1}", worst)
    return keras.utils.to_categorical(y.reshape(shape[:-1]), shape[-1])
