"""How sparse a model is, in the terms that reports and logs use."""

import math
from dataclasses import dataclass

import keras
from keras import ops

from keras_l0.pruning.quota import zeros_in
from keras_l0.pruning.targets import Targets, find_targets


@dataclass(frozen=True)
class Measure:
    """A model's sparsity.

    Args:
        zeros: zeros among the weights chosen.
        sparsity: zeros over the weights chosen; 0 where there are none.
        compression: all parameters of the network over those left, where everything that is
            not prunable counts as left.
        weight_compression: prunable weights chosen over those not zero.
    """

    zeros: int
    sparsity: float
    compression: float
    weight_compression: float


def measure(model: keras.Model, targets: Targets) -> Measure:
    """Counts the zeros of a model's prunable weights."""
    zeros = zeros_in(targets.weights)
    chosen = {id(weight.variable) for weight in targets.weights}
    others = [w for w in find_targets(model).weights if id(w.variable) not in chosen]
    parameters = model.count_params()
    return Measure(
        zeros=zeros,
        sparsity=zeros / targets.size if targets.size else 0.0,
        compression=ratio(parameters, parameters - zeros - zeros_in(others)),
        weight_compression=ratio(targets.size, targets.size - zeros),
    )


def penalty(model: keras.Model) -> float:
    """The regularizers' share of the loss at this moment."""
    return sum(
        float(ops.convert_to_numpy(variable.regularizer(variable)))
        for variable in model.trainable_variables
        if variable.regularizer is not None
    )


def ratio(whole: int, left: int) -> float:
    """``whole / left``: infinite where nothing is left of something, 1 for nothing at all."""
    if left:
        return whole / left
    return math.inf if whole else 1.0
