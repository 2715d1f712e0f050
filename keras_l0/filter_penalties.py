"""Penalties on the filters of a kernel: how often they change, and how much they are alike.

Source: our reading of A. A. Khan, S. S. Naqvi, A. Robles-Kelly, E. Meijering, "Neural network
compression by reducing redundancy and counting gradients", of which the abstract alone was at
hand. Counting follows L. Xu et al., "Image smoothing via L0 gradient minimization" (2011), with
the exponential surrogate of ``L2L0``.
"""

import warnings
from typing import Any

import keras
from keras import ops

from keras_l0.errors import at_least, choice, invalid_argument, is_whole

AXES = ("spatial", "filters")


@keras.saving.register_keras_serializable(package="keras_l0")
class GradientCount(keras.regularizers.Regularizer):
    """A smooth count of the places where a convolution kernel changes.

    For a kernel w of shape (places…, in, out) it is::

        weight · Σ (1 − exp(−β · Σ_d |∂_d w|))

    where ∂_d is the forward difference along the axis d inside the kernel, 0 at its last place,
    and the sum is over all weights. With ``axes="spatial"`` the d are the places: a filter that is
    constant counts 0, one with a single step counts about the length of its edge. With
    ``axes="filters"`` d is the filters' axis, from one filter to the next, for 1×1 and dense
    kernels, which have no places. A kernel is known by its shape alone: give ``"spatial"`` to
    convolutions only, for it takes a query kernel (in, heads, size) for one of places.

    Args:
        weight: a finite float ≥ 0.
        beta: β, a finite float ≥ 1: how sharply a change is told from none.
        axes: ``"spatial"`` or ``"filters"``.
        axis: of the filters: −1, the last one, for dense layers and convolutions; −2 for depthwise
            and transposed ones.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import numpy as np
    >>> from keras_l0 import GradientCount
    >>> step = np.zeros((3, 3, 1, 1), "float32")
    >>> step[:, 2] = 9
    >>> round(float(GradientCount(1.0)(step)), 3)
    3.0
    """

    def __init__(
        self, weight: float, beta: float = 10.0, axes: str = "spatial", axis: int = -1
    ) -> None:
        self.weight = at_least("weight", weight, 0.0)
        self.beta = at_least("beta", beta, 1.0)
        choice("axes", axes, AXES)
        self.axes, self.axis = axes, _filters_axis(axis)
        self._told = False

    def __call__(self, x: Any) -> Any:
        """The penalty of a kernel, a scalar of its dtype."""
        w = ops.convert_to_tensor(x)
        rank = len(w.shape)
        among = range(rank - 2) if self.axes == "spatial" else [rank + self.axis]
        along = [axis for axis in among if w.shape[axis] > 1]
        if not along:
            self._tell(tuple(w.shape))
            return ops.zeros((), w.dtype)
        change = sum(_differences(w, axis) for axis in along)
        return self.weight * ops.sum(1.0 - ops.exp(-self.beta * change))

    def _tell(self, shape: tuple[int, ...]) -> None:
        """Once, however many kernels have nothing to count."""
        if not self._told:
            self._told = True
            other = AXES[1 - AXES.index(self.axes)]
            warnings.warn(
                f"GradientCount: a kernel of shape {shape} has one place only along its "
                f'{self.axes} axes, and counts nothing. Use axes="{other}" for such layers.',
                stacklevel=3,
            )

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"weight": self.weight, "beta": self.beta, "axes": self.axes, "axis": self.axis}

    def __repr__(self) -> str:
        return (
            f"GradientCount({self.weight:g}, beta={self.beta:g}, axes={self.axes!r}, "
            f"axis={self.axis})"
        )


@keras.saving.register_keras_serializable(package="keras_l0")
class RedundancyPenalty(keras.regularizers.Regularizer):
    """A penalty on filters of a layer that are alike.

    With ŵ_i the n filters of a kernel, each flattened and divided by its norm, it is the mean
    squared cosine of two different ones::

        weight · Σ_{i≠j} (ŵ_i · ŵ_j)² / (n (n − 1))

    A filter that is zero has a cosine of 0 with any, and a kernel of one filter has no penalty.
    As a cosine does not feel a filter's size, the gradient of a small filter is large, as
    1/‖w_i‖: keep ``weight`` small where filters shrink.

    Args:
        weight: a finite float ≥ 0.
        axis: of the filters, as in ``GradientCount``.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> from keras_l0 import RedundancyPenalty
    >>> round(float(RedundancyPenalty(1.0)(ops.convert_to_tensor([[1.0, -3.0], [1.0, -3.0]]))), 3)
    1.0
    """

    def __init__(self, weight: float, axis: int = -1) -> None:
        self.weight = at_least("weight", weight, 0.0)
        self.axis = _filters_axis(axis)

    def __call__(self, x: Any) -> Any:
        """The penalty of a kernel, a scalar of its dtype."""
        w = ops.moveaxis(ops.convert_to_tensor(x), self.axis, 0)
        count = w.shape[0]
        if count < 2:
            return ops.zeros((), w.dtype)
        w = ops.reshape(w, (count, -1))
        squares = ops.sum(ops.square(w), axis=1, keepdims=True)
        live = ops.cast(squares > 0, w.dtype)
        unit = w * live / ops.sqrt(squares + (1.0 - live))
        cosines = ops.matmul(unit, ops.transpose(unit))
        others = ops.sum(ops.square(cosines)) - ops.sum(live)
        return self.weight * others / (count * (count - 1))

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"weight": self.weight, "axis": self.axis}

    def __repr__(self) -> str:
        return f"RedundancyPenalty({self.weight:g}, axis={self.axis})"


def _filters_axis(axis: int) -> int:
    if not is_whole(axis) or axis not in (-1, -2):
        raise invalid_argument("axis", "-1 or -2", axis)
    return int(axis)


def _differences(w: Any, axis: int) -> Any:
    """|∂w| along an axis, 0 at its last place."""
    count = w.shape[axis]
    ahead = ops.take(w, [*range(1, count), count - 1], axis=axis)
    return ops.abs(ahead - w)
