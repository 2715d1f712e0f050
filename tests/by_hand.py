"""Training steps and a training loop written by hand, as the guides of Keras do it."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import keras
from keras import ops

BACKEND = keras.backend.backend()
Seen = TypeVar("Seen")


def scaled_loss(model: keras.Model, x: Any, y: Any, outputs: Any) -> Any:
    return model.optimizer.scale_loss(model.compute_loss(x, y, outputs))


def tensorflow_step(model: keras.Model, x: Any, y: Any) -> Any:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = scaled_loss(model, x, y, model(x, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply(gradients, model.trainable_variables)
    return loss


def torch_step(model: keras.Model, x: Any, y: Any) -> Any:
    import torch

    model.zero_grad()
    loss = scaled_loss(model, x, y, model(x, training=True))
    loss.backward()
    with torch.no_grad():
        gradients = [weight.value.grad for weight in model.trainable_weights]
        model.optimizer.apply(gradients, model.trainable_weights)
    return loss


def jax_step(model: keras.Model, state: Any, x: Any, y: Any) -> Any:
    import jax

    trainable, others, optimizer = state

    def loss_of(values: Any) -> Any:
        outputs, updated = model.stateless_call(values, others, x, training=True)
        mapping = list(zip(model.optimizer.variables, optimizer, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return scaled_loss(model, x, y, outputs), updated

    (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable)
    trainable, optimizer = model.optimizer.stateless_apply(optimizer, gradients, trainable)
    return loss, (trainable, others, optimizer)


@keras.saving.register_keras_serializable("matrix")
class OwnStep(keras.Model):
    """A model with a ``train_step`` of its own."""

    def train_step(self, *arguments: Any) -> Any:
        if BACKEND != "jax":
            step = tensorflow_step if BACKEND == "tensorflow" else torch_step
            return {"loss": step(self, *arguments[0])}
        (*state, metrics), data = arguments
        loss, state = jax_step(self, state, *data)
        return {"loss": loss}, (*state, metrics)


def loop(
    model: keras.Model,
    callback: keras.callbacks.Callback,
    batches: Sequence[tuple[Any, Any]],
    epochs: int,
    mode: str,
    look: Callable[[keras.Model], Seen],
) -> list[Seen]:
    """Trains with the hook of `docs/promises.md`: what ``look`` sees at each epoch's ends."""
    if not model.optimizer.built:  # a LossScaleOptimizer built again has two variables more
        model.optimizer.build(model.trainable_variables)
    hook = keras.callbacks.CallbackList([callback], add_history=True, model=model, epochs=epochs)
    hook.on_train_begin()
    step = compiled(model, mode)
    seen = []
    for epoch in range(epochs):
        hook.on_epoch_begin(epoch)
        seen.append(look(model))
        if BACKEND == "jax":
            state = [[v.value for v in variables] for variables in stateful(model)]
        for x, y in batches:
            if BACKEND == "jax":
                _, state = step(state, x, y)
            else:
                step(ops.convert_to_tensor(x), ops.convert_to_tensor(y))
        if BACKEND == "jax":
            for variables, values in zip(stateful(model), state, strict=True):
                for variable, value in zip(variables, values, strict=True):
                    variable.assign(value)
        seen.append(look(model))
    hook.on_train_end()
    return seen


def stateful(model: keras.Model) -> list[list[keras.Variable]]:
    return [model.trainable_variables, model.non_trainable_variables, model.optimizer.variables]


def compiled(model: keras.Model, mode: str) -> Callable[..., Any]:
    """The step by hand, as the mode says: on PyTorch always eager."""
    if BACKEND == "jax":
        import jax

        def pure(state: Any, x: Any, y: Any) -> Any:
            return jax_step(model, state, x, y)

        return pure if mode == "eager" else jax.jit(pure)
    if BACKEND == "torch":
        return lambda x, y: torch_step(model, x, y)
    import tensorflow as tf

    def step(x: Any, y: Any) -> Any:
        return tensorflow_step(model, x, y)

    return step if mode == "eager" else tf.function(step, jit_compile=mode == "jit" or None)
