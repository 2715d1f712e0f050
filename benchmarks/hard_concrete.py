"""ℓ0 regularization by hard-concrete gates, in Keras 3, for the benchmark alone.

Each weight has a gate in [0, 1] that is drawn anew in each step, and the expected number of gates
that are not zero is the penalty. The gates choose the sparsity, the penalty's strength chooses how
much.

Source: C. Louizos, M. Welling, D. Kingma, "Learning sparse neural networks through L0
regularization" (2018), equations 10 to 13; the gates start nearly open, as in T. Gale, E. Elsen,
S. Hooker, "The state of sparsity in deep neural networks" (2019).
"""

import math
from typing import Any

import keras
from keras import ops

STRETCH = (-0.1, 1.1)
TEMPERATURE = 2 / 3
FIRST = math.log(0.9 / 0.1)
RATE = 10.0
"""How much faster than weights log α moves: at Adam's own pace no gate would close in time."""


class Gated:
    """A layer whose kernel is multiplied by gates while it is called."""

    def __init__(self, *args: Any, strength: float, **how: Any) -> None:
        super().__init__(*args, **how)
        self.strength = strength
        self.noise = keras.random.SeedGenerator()
        self.gates: Any = None

    def build(self, input_shape: Any) -> None:
        """Adds what log α of each weight is made of."""
        super().build(input_shape)  # type: ignore[misc]
        self.slow_log_alpha = self.add_weight(  # type: ignore[attr-defined]
            shape=self.kernel.shape,
            initializer=keras.initializers.RandomNormal(FIRST / RATE, 0.01 / RATE),
            name="slow_log_alpha",
        )

    @property
    def log_alpha(self) -> Any:
        """Of each weight's gate: how far it is open."""
        return RATE * self.slow_log_alpha

    @property
    def kernel(self) -> Any:
        """The weights, gated while the layer is called."""
        kernel = super().kernel  # type: ignore[misc]
        return kernel if self.gates is None else kernel * self.gates

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The layer's outputs; adds the penalty."""
        noise = 0.0
        if training:
            u = keras.random.uniform(self.log_alpha.shape, 1e-6, 1 - 1e-6, seed=self.noise)
            noise = ops.log(u) - ops.log1p(-u)
        scale = TEMPERATURE if training else 1.0
        low, high = STRETCH
        s = ops.sigmoid((self.log_alpha + noise) / scale)
        self.gates = ops.clip(s * (high - low) + low, 0.0, 1.0)
        open_gates = ops.sigmoid(self.log_alpha - TEMPERATURE * math.log(-low / high))
        self.add_loss(self.strength * ops.sum(open_gates))  # type: ignore[attr-defined]
        try:
            return super().call(inputs)  # type: ignore[misc]
        finally:
            self.gates = None

    def folded(self) -> Any:
        """The weights times the gates as they are without noise."""
        low, high = STRETCH
        gates = ops.clip(ops.sigmoid(self.log_alpha) * (high - low) + low, 0.0, 1.0)
        return ops.convert_to_numpy(self.kernel * gates)


class GatedDense(Gated, keras.layers.Dense):
    """A dense layer of gated weights."""


class GatedConv2D(Gated, keras.layers.Conv2D):
    """A convolution of gated weights."""


class GatedKeras:
    """``keras`` with gates on the weights of all that is built of it."""

    def __init__(self, strength: float) -> None:
        self.layers, self._strength = self, strength

    def __getattr__(self, name: str) -> Any:
        """What Keras has under this name."""
        gated = {"Dense": GatedDense, "Conv2D": GatedConv2D}.get(name)
        if gated is None:
            return getattr(keras.layers, name, None) or getattr(keras, name)
        return lambda *args, **how: gated(*args, strength=self._strength, **how)
