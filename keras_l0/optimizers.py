"""Relevance decay: weights that the loss hardly feels decay, those that it feels do not.

Source: A. Bonetta, M. Ribero, R. Cancelliere, "Regularization-based pruning of irrelevant weights
in deep neural architectures", Applied Intelligence (2022), as in the authors' code; the rule
``"lobster"`` is that of E. Tartaglione et al., "LOss-Based SensiTivity rEgulaRization" (2022).
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_l0.errors import at_least, choice, invalid_argument, is_finite, is_number, is_whole

RULES = ("relevance", "lobster")
VARIABLES = ("prunable", "all")

_QUANTILE = 0.5
# How far one step may move the running quantile's logarithm.
_PACE = 0.1
# The least α, by which |g| is divided: in float32 a smaller one may come to 0.
_LEAST = 1e-12


@keras.saving.register_keras_serializable(package="keras_l0")
class RelevanceDecay(keras.optimizers.Optimizer):
    """An optimizer around another one, which lets irrelevant weights decay.

    The gradient g = ∂L/∂w that comes in goes to the inner optimizer as::

        g + 2 γ · exp(−|g| / α) · w

    which is the gradient of the penalty γ · Σ exp(−|g|/α) · w² with g held constant. A weight of
    small gradient decays as under ℓ2 of strength γ, one of large gradient hardly. It takes no
    further backward pass, and happens inside the compiled step on every backend.

    All that the inner optimizer does comes after it: accumulating gradients, where each batch's
    own gradient decides, clipping, momentum, weight decay. ``L`` includes the penalties of
    regularizers. With loss scaling this one goes inside:
    ``LossScaleOptimizer(RelevanceDecay(...))``, as ``compile`` does by itself.

    Args:
        optimizer: the inner optimizer, or its name. Its learning rate is this one's.
        gamma: γ, a finite float ≥ 0; with 0 the step is the inner optimizer's.
        alpha: α, a finite float ≥ 1e-12 of the size of |g|, beyond which a weight counts as
            relevant; or ``"auto"``: for each variable the ``quantile`` of its |g|, followed from
            step to step. Under α ≫ |g| it is plain ℓ2.
        variables: ``"prunable"``, those whose name ends in ``kernel``; or ``"all"`` that are
            trained, as in the authors' code.
        rule: ``"relevance"``; or ``"lobster"``, whose factor is max(0, 1 − |g|/α) instead of
            exp(−|g|/α): with ``SGD`` of rate η and α = 1 it is LOBSTER with λ = 2ηγ.
        quantile: for ``alpha="auto"``: the share of weights with |g| ≤ α, in (0, 1).
        gamma_steps: the steps over which γ falls linearly to 0, at the beginning and after each
            ``reset()``, as ``IterativePrune`` calls it; ``None`` for a constant γ.
        name: the optimizer's name.

    Raises:
        ValueError: if an argument is out of its range, or the optimizer is a ``RelevanceDecay`` or
            a ``LossScaleOptimizer`` already.

    Example:

    >>> from keras_l0 import RelevanceDecay
    >>> optimizer = RelevanceDecay(keras.optimizers.Adam(1e-3), gamma=1e-3, alpha="auto")
    >>> float(optimizer.learning_rate) == float(optimizer.inner_optimizer.learning_rate)
    True
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer | str,
        gamma: float,
        alpha: float | str,
        *,
        variables: str = "prunable",
        rule: str = "relevance",
        quantile: float = _QUANTILE,
        gamma_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        inner, decay = _inner(optimizer), at_least("gamma", gamma, 0.0)
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = inner
        if not (
            alpha == "auto" if isinstance(alpha, str) else is_finite(alpha) and alpha >= _LEAST
        ):
            raise invalid_argument("alpha", f'a finite float >= {_LEAST:g}, or "auto"', alpha)
        choice("variables", variables, VARIABLES)
        choice("rule", rule, RULES)
        if not is_number(quantile) or not 0 < quantile < 1:
            raise invalid_argument("quantile", "a float in (0, 1)", quantile)
        if alpha != "auto" and quantile != _QUANTILE:
            raise invalid_argument("quantile", f'{_QUANTILE} unless alpha="auto"', quantile)
        if gamma_steps is not None and (not is_whole(gamma_steps) or gamma_steps < 1):
            raise invalid_argument("gamma_steps", "None or an integer >= 1", gamma_steps)
        self.gamma, self.alpha = decay, alpha if isinstance(alpha, str) else float(alpha)
        self.chosen, self.rule, self.quantile = variables, rule, float(quantile)
        self.gamma_steps = None if gamma_steps is None else int(gamma_steps)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Makes the variables that belong to these of a model."""
        self._since_reset = self.add_variable(
            (), dtype="int", aggregation="only_first_replica", name="steps_since_reset"
        )
        # By place, in words: TensorFlow exports no attribute that has other keys.
        self._alphas = {
            str(place): self.add_variable((), dtype="float32", aggregation="mean", name="alpha")
            for place, variable in enumerate(variables)
            if self.alpha == "auto" and self._decays(variable)
        }
        self.inner_optimizer.build(variables)
        super().build(variables)

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """One step of the inner optimizer, on the gradients with the decay in them."""
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            if not self.built and len(grads):
                self.build(trainable_variables)
        variables = trainable_variables or self._trainable_variables
        # What is wrong with them the inner optimizer tells.
        known = all(self._var_key(one) in self._trainable_variables_indices for one in variables)
        if self.gamma and known and len(grads) == len(variables):
            grads = self._decayed(list(grads), variables)
        self.inner_optimizer.apply(grads, trainable_variables)
        if len(grads):
            self._since_reset.assign_add(1)

    def reset(self) -> None:
        """Sets γ back to where it began, if it falls."""
        if self.built:
            self._since_reset.assign(0)

    def _decays(self, variable: keras.Variable) -> bool:
        if self._overwrite_variable_with_gradient(variable):
            return False
        return self.chosen == "all" or variable.name.endswith("kernel")

    def _decayed(self, grads: list[Any], variables: Sequence[keras.Variable]) -> list[Any]:
        chosen = [
            place
            for place, (g, variable) in enumerate(zip(grads, variables, strict=True))
            if g is not None and self._decays(variable)
        ]
        scale = self.loss_scale_factor or 1.0
        whole, replicas = _over_replicas([ops.convert_to_tensor(grads[place]) for place in chosen])
        for place, g in zip(chosen, whole, strict=True):
            variable = variables[place]
            w = ops.convert_to_tensor(variable)
            size = ops.abs(g) / scale if scale != 1 else ops.abs(g)
            strength = ops.cast(self._gamma() * (2 * scale / replicas), w.dtype)
            decay = strength * self._factor(size, variable) * w
            grads[place] = ops.convert_to_tensor(grads[place]) + decay
        return grads

    def _gamma(self) -> Any:
        if self.gamma_steps is None:
            return self.gamma
        done = ops.cast(self._since_reset, "float32") / self.gamma_steps
        return self.gamma * ops.maximum(0.0, 1.0 - done)

    def _factor(self, size: Any, variable: keras.Variable) -> Any:
        """How irrelevant each weight is, from 0 to 1."""
        alpha = self._follow(size, variable) if self.alpha == "auto" else self.alpha
        # In float16 a small alpha would be 0.
        x = ops.cast(size, keras.backend.result_type(size.dtype, "float32")) / alpha
        factor = ops.exp(-x) if self.rule == "relevance" else ops.relu(1.0 - x)
        return ops.cast(factor, size.dtype)

    def _follow(self, size: Any, variable: keras.Variable) -> Any:
        """The running quantile, after a step towards this batch's.

        Robbins and Monro's, on the logarithm: it grows where too few are below it.
        """
        running = self._alphas[str(self._get_variable_index(variable))]
        size = ops.cast(size, "float32")
        old = ops.convert_to_tensor(running)
        below = ops.mean(ops.cast(size <= old, "float32"))
        moved = ops.maximum(old * ops.exp(_PACE * (self.quantile - below)), _LEAST)
        first = ops.maximum(ops.mean(size), _LEAST)
        running.assign(ops.where(old == 0, first, moved))
        return ops.convert_to_tensor(running)

    @property
    def variables(self) -> list[keras.Variable]:
        """Its own and the inner optimizer's."""
        return [*self._variables, *self.inner_optimizer.variables]

    @property
    def learning_rate(self) -> Any:
        """The inner optimizer's."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def iterations(self) -> Any:
        """The inner optimizer's."""
        return self.inner_optimizer.iterations

    @property
    def loss_scale_factor(self) -> float | None:
        """The inner optimizer's."""
        return self.inner_optimizer.loss_scale_factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, factor: float | None) -> None:
        if hasattr(self, "inner_optimizer"):  # not yet while Keras' own arguments are set
            self.inner_optimizer.loss_scale_factor = factor

    @property
    def _model_variables_moving_average(self) -> list[keras.Variable]:
        """The inner optimizer's: ``SwapEMAWeights`` looks behind one wrapper, loss scaling's."""
        return self.inner_optimizer._model_variables_moving_average

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """What the inner optimizer does at the end of training."""
        self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "name": self.name,
            "optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            "gamma": self.gamma,
            "alpha": self.alpha,
            "variables": self.chosen,
            "rule": self.rule,
            "quantile": self.quantile,
            "gamma_steps": self.gamma_steps,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "RelevanceDecay":
        """The optimizer that ``get_config`` described."""
        inner = keras.saving.deserialize_keras_object(config["optimizer"], custom_objects)
        return cls(**{**config, "optimizer": inner})


def _inner(optimizer: keras.optimizers.Optimizer | str) -> keras.optimizers.Optimizer:
    try:
        inner = keras.optimizers.get(optimizer)
    except (ValueError, KeyError, TypeError):  # by what a dictionary lacks
        raise invalid_argument("optimizer", "a Keras optimizer or its name", optimizer) from None
    if not isinstance(inner, keras.optimizers.Optimizer):
        raise invalid_argument("optimizer", "a Keras optimizer or its name", optimizer)
    if isinstance(inner, RelevanceDecay):
        raise invalid_argument(
            "optimizer", "one without a RelevanceDecay around it", inner, "It is wrapped already"
        )
    if isinstance(inner, keras.optimizers.LossScaleOptimizer):
        raise invalid_argument(
            "optimizer",
            "one without loss scaling",
            inner,
            "Write LossScaleOptimizer(RelevanceDecay(inner, ...)), or leave it to compile",
        )
    return inner


def _over_replicas(grads: list[Any]) -> tuple[list[Any], int]:
    """Gradients summed over the replicas, and how many there are.

    TensorFlow alone hands each replica the gradients of its own part of a batch, and sums them
    later; a decay that is not linear in them needs the sum.
    """
    if keras.backend.backend() != "tensorflow":
        return grads, 1
    import tensorflow as tf

    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas == 1:
        return grads, 1
    return tf.distribute.get_replica_context().all_reduce("sum", grads), replicas
