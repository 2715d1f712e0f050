"""The learning rate: held, and then falling while a network is fine-tuned."""

import bisect
import math

import keras

from keras_l0.errors import invalid_argument, is_finite, whole_at_least

_LAST = 0.01


def annealed(rate: float, epoch: int, begin: int, end: int, cycles: int = 1) -> float:
    """The rate of an epoch: held before ``begin``, then falling to a hundredth, ``cycles`` times.

    Each fall goes along half a cosine, and the next begins anew, as in Loshchilov & Hutter,
    "SGDR: stochastic gradient descent with warm restarts" (2017).

    Example:

    >>> [round(annealed(1.0, epoch, begin=1, end=6, cycles=2), 2) for epoch in range(6)]
    [1.0, 0.5, 0.01, 0.75, 0.25, 0.01]
    """
    if epoch < begin:
        return rate
    borders = [begin + round(cycle * (end - begin) / cycles) for cycle in range(cycles + 1)]
    cycle = min(bisect.bisect_right(borders, epoch), cycles)
    first, after = borders[cycle - 1], borders[cycle]
    way = (epoch - first + 1) / (after - first)
    return rate * max(_LAST, 0.5 * (1 + math.cos(math.pi * min(way, 1.0))))


def start_rate(
    model: keras.Model, learning_rate: float | None, anneal: int, finetune: int
) -> float | None:
    """Sets the optimizer's rate, and gives it back; ``None`` if compress is to leave it alone.

    Raises:
        ValueError: if an argument is out of its range, or the optimizer follows a schedule.
    """
    whole_at_least("anneal", anneal, 0)
    if anneal > finetune:
        raise invalid_argument("anneal", f"at most {finetune}, the epochs of fine tuning", anneal)
    if learning_rate is not None and not (is_finite(learning_rate) and learning_rate > 0):
        raise invalid_argument("learning_rate", "None or a finite float > 0", learning_rate)
    if learning_rate is None and not anneal:
        return None
    rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    try:
        model.optimizer.learning_rate = rate = rate if learning_rate is None else learning_rate
    except TypeError:  # Keras' own word that a schedule is not to be set
        raise invalid_argument(
            "anneal" if anneal else "learning_rate",
            "0 and None for an optimizer with a LearningRateSchedule",
            anneal or learning_rate,
            "Compile the model with a number as learning rate",
        ) from None
    return float(rate)


def callbacks(
    rate: float | None, begin: int, end: int, anneal: int
) -> list[keras.callbacks.Callback]:
    """What lets the rate fall during ``fit``, if it is to."""
    if rate is None or not anneal:
        return []
    return [
        keras.callbacks.LearningRateScheduler(
            lambda epoch, _: annealed(rate, epoch, begin, end, anneal)
        )
    ]
