"""Zeros that stay zero: a hook around the optimizer's step.

What is zero before a step is zero after it, also a weight that a step happened to put at exactly
zero, as may be in bfloat16. The hook stands around ``apply`` of the innermost
optimizer, so that it is traced into the compiled train step on every backend and comes after
momentum, weight decay, constraints and accumulated gradients. No mask is stored: the zeros
are the mask. A resumed run needs nothing but the weights, and nothing is retraced when the
zeros change.

Biases and normalizations of pruned channels are held too, though not every zero of theirs: an
unpruned channel's bias starts from zero. Which ones are is a small mask for each, found anew
from the zeros at every epoch's beginning.

Whether zeros are held is a variable, and so are the masks, so that nothing is retraced when they
change. They belong to no model and no optimizer, except on JAX: only there are they tracked by
the optimizer, and hidden while it is saved or loaded. Files have the optimizer's own variables
and no other.
"""

import contextlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_l0.fusion import fused_update

_HOLDS = "_keras_l0_holds"

# What the switch of a hold says: which value is held. No weight has the other one.
_ZERO = 0.0
_NOTHING = 3e38

# JAX carries only the model's and the optimizer's variables into a compiled step; any other would
# be a constant in it. TensorFlow reads variables inside the step wherever they belong, and once
# one has been deleted from an optimizer, it refuses to write a SavedModel or Checkpoint of it.
_IS_TRACKED = keras.config.backend() == "jax"


class Hold:
    """Holds the zeros of some weights through the steps of optimizers, once switched on.

    Several holds on one optimizer add up. Each weight is held by the optimizers that step it.

    Args:
        optimizers: all that may train the model; a wrapper such as ``LossScaleOptimizer`` is
            followed to its inner optimizer.
        variables: the weights whose zeros are held.
        pinned: variables of which only those zeros are held that ``pin`` says.
    """

    def __init__(
        self,
        optimizers: Sequence[keras.optimizers.Optimizer],
        variables: Sequence[keras.Variable],
        pinned: Sequence[keras.Variable] = (),
    ) -> None:
        self.variables = list(variables)
        self.parts = [_Part(optimizer, self.variables, pinned) for optimizer in optimizers]

    def switch(self, on: bool) -> None:
        """Begins or ends the holding, from the next step on."""
        for part in self.parts:
            part.held.assign(_ZERO if on else _NOTHING)

    def pin(self, masks: Sequence[tuple[keras.Variable, NDArray[np.bool_]]]) -> None:
        """Which entries of the pinned variables are held, from the next step on."""
        found = {id(variable): mask for variable, mask in masks}
        for part in self.parts:
            for variable, free in part.pins:
                mask = found.get(id(variable), np.zeros(free.shape, bool))
                free.assign(np.logical_not(mask).astype(np.float32))

    def zero_averages(self) -> None:
        """Sets the moving averages of ``use_ema`` to zero where their weights are zero now.

        ``SwapEMAWeights`` exchanges both, after this callback in some orders of the list.
        """
        for part in self.parts:
            for variable in self.variables:
                for average in _averages(part.inner, variable):
                    w = ops.convert_to_tensor(variable)
                    value = ops.convert_to_tensor(average)
                    average.assign(ops.where(ops.equal(w, 0), ops.zeros((), value.dtype), value))

    def release(self) -> None:
        """Takes the hooks off; the optimizers are as they were before."""
        for part in self.parts:
            part.release()


class _Part:
    """What a hold adds to one optimizer.

    Attributes:
        called: whether the hook has run since it was put on. A step that was traced before then
            does not run it.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        variables: Sequence[keras.Variable],
        pinned: Sequence[keras.Variable],
    ) -> None:
        self.called = False
        self.variables = variables
        self._chain = chain(optimizer)
        self.inner = inner = self._chain[-1]
        self.held = _variable((), "held_value")
        self.held.assign(_NOTHING)
        self.pins = [(variable, _variable(variable.shape, "free_channels")) for variable in pinned]
        if _IS_TRACKED:
            for own in self.own():
                inner._track_variable(own)
        parts = vars(inner).setdefault(_HOLDS, [])
        parts.append(self)
        if len(parts) == 1:
            vars(inner)["apply"] = _holding(inner.apply, inner)
            if _IS_TRACKED:
                for link in self._chain:
                    for name in ("save_own_variables", "load_own_variables"):
                        vars(link)[name] = _hiding(getattr(link, name), inner)

    def release(self) -> None:
        parts = vars(self.inner)[_HOLDS]
        parts.remove(self)
        if _IS_TRACKED:
            for own in self.own():
                self.inner._untrack_variable(own)
        if not parts:
            del vars(self.inner)[_HOLDS], vars(self.inner)["apply"]
            if _IS_TRACKED:
                for link in self._chain:
                    del vars(link)["save_own_variables"], vars(link)["load_own_variables"]

    def is_on(self) -> bool:
        """Whether the hook is on the optimizer."""
        return self in vars(self.inner).get(_HOLDS, [])

    def steps(self) -> int:
        """How many steps the optimizer has made in its life, accumulated gradients included."""
        return int(ops.convert_to_numpy(self.inner._iterations))

    def masks(self, stepped: Container[Any]) -> list[tuple[keras.Variable, Any]]:
        """Each variable with its mask, false where it is held, in the step that is traced.

        Args:
            stepped: keys of the variables that the step may change.
        """
        masks = []
        for variable in self.variables:
            if self.inner._var_key(variable) in stepped:
                w = ops.convert_to_tensor(variable)
                masks.append((variable, ops.not_equal(w, ops.cast(self.held, w.dtype))))
        return masks + [
            (variable, ops.cast(free, "bool"))
            for variable, free in self.pins
            if self.inner._var_key(variable) in stepped
        ]

    def own(self) -> list[keras.Variable]:
        """The switch and the masks."""
        return [self.held, *(free for _, free in self.pins)]


def own_variables(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The optimizer's variables, those that holds have added left out."""
    added = {id(own) for own in _added(chain(optimizer)[-1])}
    return [variable for variable in optimizer.variables if id(variable) not in added]


def _variable(shape: Sequence[int], name: str) -> keras.Variable:
    return keras.Variable(
        "ones",
        shape=tuple(shape),
        dtype="float32",
        trainable=False,
        aggregation="only_first_replica",
        name=name,
    )


def _added(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """What the holds of an innermost optimizer have added to its variables."""
    if not _IS_TRACKED:
        return []
    return [own for part in vars(optimizer).get(_HOLDS, []) for own in part.own()]


def optimizers_of(model: keras.Model) -> dict[str, keras.optimizers.Optimizer]:
    """The Keras optimizers of a model, each by the name of the attribute that has it.

    Those are ``model.optimizer`` and all in the attributes of the model and its layers, also in
    lists, tuples and dictionaries. Parts of a ``MultiOptimizer`` are not counted by themselves.
    """
    found: dict[str, keras.optimizers.Optimizer] = {}
    seen: set[int] = set()

    def visit(value: Any, name: str) -> None:
        if isinstance(value, keras.optimizers.Optimizer):
            inner = chain(value)[-1]
            if id(inner) not in seen:
                seen.update(map(id, (inner, *getattr(inner, "optimizers", ()))))
                found[name] = value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
            for key, one in pairs:
                visit(one, f"{name}[{key!r}]")

    visit(getattr(model, "optimizer", None), "model.optimizer")
    for layer in model._flatten_layers():
        owner = "model" if layer is model else layer.name
        for name, value in list(vars(layer).items()):
            if not name.startswith("_self_"):  # TensorFlow's records of what is tracked
                visit(value, f"{owner}.{name}")
    return found


def chain(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """The optimizer and those inside it, outermost first."""
    chain = [optimizer]
    while hasattr(chain[-1], "inner_optimizer"):
        chain.append(chain[-1].inner_optimizer)
    return chain


def _holding(
    apply: Callable[..., None], optimizer: keras.optimizers.Optimizer
) -> Callable[..., None]:
    """``apply`` with the zeros held, both in one pass where that pays."""

    def holding_apply(grads: Any, trainable_variables: Any = None) -> None:
        parts: list[_Part] = vars(optimizer)[_HOLDS]
        variables = None if trainable_variables is None else list(trainable_variables)
        known = [*optimizer._trainable_variables, *(variables or ())]
        stepped = {optimizer._var_key(one): one for one in known}
        for part in parts:
            part.called = True

        def update(*grads: Any) -> None:
            masks = [pair for part in parts for pair in part.masks(stepped)]
            apply(list(grads), variables)
            for variable, mask in masks:
                for held in (variable, *_averages(optimizer, variable)):
                    value = ops.convert_to_tensor(held)
                    held.assign(ops.where(mask, value, ops.zeros((), held.dtype)))

        own = [one for part in parts for one in part.own()]
        fused_update(update, list(grads), list(stepped.values()), optimizer, own)

    return holding_apply


def _averages(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable
) -> Iterator[keras.Variable]:
    """The moving averages that ``use_ema`` will put in the variable's place."""
    for part in (optimizer, *getattr(optimizer, "optimizers", ())):  # a MultiOptimizer has parts
        place = part._trainable_variables_indices.get(part._var_key(variable))
        if getattr(part, "use_ema", False) and place is not None:
            yield part._model_variables_moving_average[place]


def _hiding(
    method: Callable[[Any], None], optimizer: keras.optimizers.Optimizer
) -> Callable[[Any], None]:
    """A method that saves or loads, run while the switches are out of the variables."""

    def hiding(store: Any) -> None:
        with _without_switches(optimizer):
            method(store)

    return hiding


@contextlib.contextmanager
def _without_switches(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    switches = _added(optimizer)
    for switch in switches:
        optimizer._untrack_variable(switch)
    try:
        yield
    finally:
        for switch in switches:
            optimizer._track_variable(switch)
