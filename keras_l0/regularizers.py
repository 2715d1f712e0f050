"""The penalty of ℓ2-ℓ0 regularization, and the paper's Table 1 as functions.

Source: Oliveira, Batista, Seara: "On the Compression of Neural Networks Using ℓ0-Norm
Regularization and Weight Pruning", Neural Networks 171 (2024); equation numbers are its.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import ArrayLike, NDArray

from keras_l0.errors import at_least, choice, invalid_argument, is_finite
from keras_l0.fusion import fused, is_fusing

NORMS = ("l2", "l1", "l0")
LN2 = math.log(2.0)
EXP_IS_ZERO = 127 * LN2  # exp(-127 ln 2) is less than any normal float32


@keras.saving.register_keras_serializable(package="keras_l0")
class L2L0(keras.regularizers.Regularizer):
    """A regularizer that applies an ℓ2 penalty and a smooth count of the weights.

    The penalty (eq. 10, 11, 17) is::

        l2 * sum(w ** 2) + l0 * sum(1 - exp(-beta * abs(w)))

    There is no factor ½. The second sum approaches the number of non-zero weights (the
    ℓ0 norm) as ``beta`` grows. The gradient is
    ``2 * l2 * w + l0 * beta * sign(w) * exp(-beta * abs(w))``, and 0 at ``w == 0``: it pulls
    small weights to zero and leaves large ones alone, which ``l2`` looks after.

    The paper's analysis is of plain gradient descent. An adaptive optimizer such as Adam
    rescales the pull together with the loss' gradient.

    Args:
        l2: α_ℓ2, a finite float ≥ 0.
        l0: α_ℓ0, a finite float ≥ 0.
        beta: β, a finite float ≥ 1: how sharply zero is told from non-zero. The pull
            reaches to about ``|w| = 3 / beta``.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> layer = keras.layers.Dense(3, kernel_regularizer=L2L0(l2=1e-5, l0=1e-5, beta=10))
    >>> float(L2L0(l0=0.5, beta=10)(np.array([0.0, 5.0, -5.0], "float32")))
    1.0
    """

    def __init__(self, l2: float = 0.0, l0: float = 0.0, beta: float = 10.0) -> None:
        self.l2 = at_least("l2", l2, 0.0)
        self.l0 = at_least("l0", l0, 0.0)
        self.beta = at_least("beta", beta, 1.0)

    def __call__(self, x: Any) -> Any:
        """The penalty of ``x``: a scalar tensor, float32 also where ``x`` is narrower."""
        x = ops.convert_to_tensor(x)
        if keras.backend.standardize_dtype(x.dtype) != "float64":
            x = ops.cast(x, "float32")
        return _penalty(x, self.l2, self.l0, self.beta)

    def get_config(self) -> dict[str, float]:
        """The constructor's arguments."""
        return {"l2": self.l2, "l0": self.l0, "beta": self.beta}

    def __repr__(self) -> str:
        return f"L2L0(l2={self.l2:g}, l0={self.l0:g}, beta={self.beta:g})"


def _penalty(w: Any, l2: float, l0: float, beta: float) -> Any:
    """The penalty, with a gradient of its own.

    Left to automatic differentiation the gradient loses its digits on some backends, which
    take the derivative of ``expm1`` as ``expm1(x) + 1``.
    """
    value, slope = _functions(l2 > 0.0, l0 > 0.0, beta)
    # Tensors, so that what is compiled serves all strengths.
    strengths = [ops.convert_to_tensor(strength, w.dtype) for strength in (l2, l0)]

    @ops.custom_gradient
    def penalty(w: Any) -> Any:
        def gradient(*args: Any, upstream: Any = None) -> Any:
            return slope(w, *strengths, args[0] if upstream is None else upstream)

        return value(w, *strengths), gradient

    return penalty(w)


@functools.lru_cache(maxsize=128)  # a search draws ever new β
def _functions(has_l2: bool, has_l0: bool, beta: float) -> tuple[Callable[..., Any], ...]:
    """The penalty and its gradient, both functions of the weights and α_ℓ2 and α_ℓ0.

    A part that is off is left out: weights may be so large that their squares are infinite.
    """

    def value(w: Any, l2: Any, l0: Any) -> Any:
        parts = []
        if has_l2:
            parts.append(l2 * ops.square(w))
        if has_l0:
            parts.append(l0 * _counted(w, beta))
        return _total(sum(parts[1:], parts[0])) if parts else ops.zeros((), w.dtype)

    def slope(w: Any, l2: Any, l0: Any, scale: Any) -> Any:
        parts = []
        if has_l2:
            parts.append((2.0 * l2 * scale) * w)
        if has_l0:
            parts.append((l0 * beta * scale) * _slope(w, beta))
        return sum(parts[1:], parts[0]) if parts else ops.zeros_like(w)

    return fused(value), fused(slope)


def _counted(w: Any, beta: float) -> Any:
    """``1 - exp(-beta * abs(w))``."""
    if keras.config.backend() == "tensorflow" and is_fusing() and _in_float32(w):
        p, m = _decay(ops.abs(w), beta)  # in half the time of its `expm1`
        return (1.0 - p) - p * m
    # Not `abs`: XLA would write out what the value and the gradient have in common.
    return -ops.expm1(-beta * ops.maximum(w, -w))


def _slope(w: Any, beta: float) -> Any:
    """``sign(w) * exp(-beta * abs(w))``."""
    size = ops.abs(w)
    if not _in_float32(w):
        return ops.sign(w) * ops.exp(-beta * size)
    p, m = _decay(size, beta)
    return ops.sign(w) * (p * (1.0 + m))


def _in_float32(x: Any) -> bool:
    return keras.backend.standardize_dtype(x.dtype) == "float32"


def _decay(size: Any, beta: float) -> tuple[Any, Any]:
    """Such p and m that ``exp(-beta * size) = p * (1 + m)``, for sizes ≥ 0 in float32.

    ``exp`` turns a rounding of its argument x into a relative error of up to x times that. So
    ``p = 2 ** -k`` and ``m = expm1(k ln 2 - beta * size)``, with a whole k: the difference is small
    and, in two parts, exact (Cody and Waite, 1980).
    """
    half_life = LN2 / beta
    mantissa, exponent = math.frexp(half_life)
    upper = math.ldexp(round(mantissa * 2**17), exponent - 17)  # k has 7 of float32's 24 digits
    size = ops.minimum(size, EXP_IS_ZERO / beta)
    k = ops.round(size * (1.0 / half_life))
    rest = beta * ((k * upper - size) + k * (half_life - upper))
    # The last digits of 1.5 · 2²³ − k are −k: moved to where a float32 has its exponent.
    # A last axis of a known size is what `view` asks for.
    bits = ops.left_shift(ops.view(ops.expand_dims(1.5 * 2**23 - k, -1), "int32"), 23)
    return ops.squeeze(ops.view(bits + (127 << 23), "float32"), -1), _expm1(rest)


@functools.cache  # when a penalty is first evaluated: the import is to be quick
def _series() -> list[float]:
    """The coefficients of ``expm1(x) / x`` for ``|x| <= ln 2 / 2``."""
    found = Chebyshev.interpolate(lambda x: np.expm1(x) / x, 5, (-LN2 / 2, LN2 / 2))  # never at 0
    return [float(coefficient) for coefficient in found.convert(kind=Polynomial).coef]


def _expm1(x: Any) -> Any:
    """``expm1`` for ``|x| <= ln 2 / 2``, to 2e-8."""
    if not is_fusing():
        return ops.expm1(x)
    # XLA would write out what it takes for dear, where several results need it.
    *lower, total = _series()
    for coefficient in reversed(lower):
        total = total * x + coefficient
    return total * x


def _total(x: Any) -> Any:
    """The sum of all, over the leading axes first: compilers make vectors of that."""
    return ops.sum(ops.sum(x, axis=tuple(range(len(x.shape) - 1))))


def zero_attraction(
    w: ArrayLike, alpha: float, learning_rate: float, norm: str, beta: float | None = None
) -> NDArray[np.float64]:
    """What one step of gradient descent on the penalty alone adds to each weight.

    With η the learning rate (Table 1): ``-2 η α w`` for ℓ2, ``-η α sign(w)`` for ℓ1,
    ``-η α β sign(w) exp(-β|w|)`` for ℓ0.

    Args:
        w: weights, any shape.
        alpha: α ≥ 0, the penalty's factor.
        learning_rate: η > 0.
        norm: ``"l2"``, ``"l1"`` or ``"l0"``.
        beta: β ≥ 1, for ``"l0"`` and only there.

    Returns:
        Float64, of the shape of ``w``.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> float(zero_attraction(0.5, alpha=0.25, learning_rate=0.5, norm="l2"))
    -0.125
    """
    factor = at_least("alpha", alpha, 0.0)
    rate, steepness, slope = _rate_and_slope(_array(w), learning_rate, norm, beta)
    with np.errstate(over="ignore"):
        return -(rate * factor * steepness) * slope


def scaling_factor(
    w: ArrayLike, alpha: float, learning_rate: float, norm: str, beta: float | None = None
) -> NDArray[np.float64]:
    """λ = w⁺/w, the factor of one step by the penalty alone (eq. 15 and Table 1).

    ``1 - 2ηα`` for ℓ2, ``1 - ηα/|w|`` for ℓ1, ``1 - ηαβ exp(-β|w|)/|w|`` for ℓ0. A weight
    shrinks while |λ| < 1.

    Args:
        w: weights, any shape.
        alpha: α ≥ 0, the penalty's factor.
        learning_rate: η > 0.
        norm: ``"l2"``, ``"l1"`` or ``"l0"``.
        beta: β ≥ 1, for ``"l0"`` and only there.

    Returns:
        Float64, of the shape of ``w``; ``nan`` where ``w`` is 0, which has no ratio.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> float(scaling_factor(0.5, alpha=0.1, learning_rate=0.1, norm="l2"))
    0.98
    """
    weights = _array(w)
    step = zero_attraction(weights, alpha, learning_rate, norm, beta)
    with np.errstate(invalid="ignore", over="ignore"):
        return 1.0 + step / weights


def largest_alpha(
    w: ArrayLike, learning_rate: float, norm: str, beta: float | None = None
) -> NDArray[np.float64]:
    """The bound that α must stay below for a weight still to shrink (eq. 16 and Table 1).

    ``1/η`` for ℓ2, ``2|w|/η`` for ℓ1, ``2|w| / (ηβ exp(-β|w|))`` for ℓ0. It falls to 0 with
    ``|w|`` for ℓ1 and ℓ0: under a fixed α small weights end in an oscillation about zero
    (section 3.2).

    Args:
        w: weights, any shape.
        learning_rate: η > 0.
        norm: ``"l2"``, ``"l1"`` or ``"l0"``.
        beta: β ≥ 1, for ``"l0"`` and only there.

    Returns:
        Float64, of the shape of ``w``; ``inf`` where no α is too large in float64.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> float(largest_alpha(0.5, learning_rate=0.1, norm="l1"))
    10.0
    """
    weights = _array(w)
    rate, steepness, slope = _rate_and_slope(weights, learning_rate, norm, beta)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if norm == "l2":
            return np.full(weights.shape, np.float64(1.0) / rate)
        bound = 2.0 * np.abs(weights) / (rate * steepness * np.abs(slope))
    return np.where(weights == 0.0, 0.0, bound)


def _array(w: ArrayLike) -> NDArray[np.float64]:
    try:
        found = np.asarray(w)
        if not np.iscomplexobj(found):  # of which NumPy would only warn
            return np.asarray(found, np.float64)
    except (TypeError, ValueError, OverflowError):
        pass
    raise invalid_argument("w", "weights, an array of real numbers", w)


def _rate_and_slope(
    w: NDArray[np.float64], learning_rate: float, norm: str, beta: float | None
) -> tuple[float, float, NDArray[np.float64]]:
    """η, and in two factors ∂Ω/∂w of the norm's penalty with α = 1, the arguments checked."""
    if not is_finite(learning_rate) or learning_rate <= 0.0:
        raise invalid_argument("learning_rate", "a finite float > 0", learning_rate)
    rate = float(learning_rate)
    choice("norm", norm, NORMS)
    if norm != "l0":
        if beta is not None:
            raise invalid_argument("beta", f'None, since norm="{norm}" has none', beta)
        return (rate, 2.0, w) if norm == "l2" else (rate, 1.0, np.sign(w))
    if beta is None:
        raise invalid_argument("beta", 'a finite float >= 1 for norm="l0"', beta)
    sharpness = at_least("beta", beta, 1.0)
    with np.errstate(over="ignore"):
        return rate, sharpness, np.sign(w) * np.exp(-sharpness * np.abs(w))
