"""The ℓ2-ℓ0 penalty on layers of tf_keras."""

from typing import Any

import tensorflow as tf

from keras_l0.errors import at_least
from keras_l0.tfmot.legacy import legacy_keras

_keras = legacy_keras()


@_keras.saving.register_keras_serializable("keras_l0")
class L2L0(_keras.regularizers.Regularizer):  # type: ignore[name-defined]
    """``keras_l0.L2L0`` for a layer of tf_keras: the same formula, arguments and config.

    ``l2 * sum(w**2) + l0 * sum(1 - exp(-beta * abs(w)))``

    Args:
        l2: α_ℓ2 >= 0.
        l0: α_ℓ0 >= 0.
        beta: β >= 1.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> from keras_l0.tfmot import L2L0
    >>> float(L2L0(l2=0.5)([3.0]))
    4.5

    Source: Oliveira, Batista and Seara, equations 10, 11 and 17.
    """

    def __init__(self, l2: float = 0.0, l0: float = 0.0, beta: float = 10.0) -> None:
        self.l2 = at_least("l2", l2, 0.0)
        self.l0 = at_least("l0", l0, 0.0)
        self.beta = at_least("beta", beta, 1.0)

    def __call__(self, x: Any) -> Any:
        """The penalty of a weight tensor, a scalar of its dtype."""
        w = tf.convert_to_tensor(x)
        near = -tf.math.expm1(-self.beta * tf.abs(w))
        return self.l2 * tf.reduce_sum(w * w) + self.l0 * tf.reduce_sum(near)

    def get_config(self) -> dict[str, float]:
        """The arguments, plain floats."""
        return {"l2": self.l2, "l0": self.l0, "beta": self.beta}
