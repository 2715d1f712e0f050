"""Models over from Keras 3 to tf_keras, and back."""

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_l0.errors import invalid_argument
from keras_l0.models import check_built
from keras_l0.structure.graph import functional
from keras_l0.tfmot.layers import (
    NEW,
    OLD,
    Side,
    as_made,
    copy_weights,
    counterpart,
    named,
    unwrapped,
)
from keras_l0.tfmot.legacy import legacy_keras, undisturbed
from keras_l0.tfmot.operations import to_new, to_old


def to_tf_keras(model: keras.Model) -> Any:
    """The same model in tf_keras: the same layers, weights and outputs.

    What is computed without a layer becomes layers: ``x + 3.0`` a ``Rescaling``, ``x + y`` an
    ``Add``. The optimizer does not come along.

    Args:
        model: a built Sequential or Functional model of Keras 3, on any backend; models inside,
            shared layers, several inputs and outputs included.

    Returns:
        A ``tf_keras.Model``, not compiled. The given model is unchanged.

    Raises:
        ImportError: if tf_keras is not installed; the command that installs it.
        ValueError: if the model has no graph, or a layer has no counterpart; the layer's name.

    Example:

    >>> import keras
    >>> from keras_l0.tfmot import to_tf_keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> type(to_tf_keras(model)).__module__.partition(".")[0]
    'tf_keras'
    """
    check_built(model)
    functional(model)  # an error where it has no graph
    with undisturbed():
        return _Rebuilding(NEW, OLD, to_old).model(model)


def flattened(model: keras.Model) -> tuple[Any, dict[int, Any]]:
    """The same model in tf_keras without models inside: their layers stand in it.

    Returns:
        The model; and its variables by the ``id`` of those of the given model.

    Raises:
        ImportError, ValueError: as ``to_tf_keras``.
    """
    check_built(model)
    with undisturbed():
        rebuilding = _Rebuilding(NEW, OLD, to_old, flat=True)
        found = rebuilding.model(functional(model))
    return found, rebuilding.variables()


def from_tf_keras(model: Any) -> keras.Model:
    """The same model in Keras 3: the same layers, weights and outputs.

    ``prune_low_magnitude``'s wrappers are taken off, and what their masks held at zero is zero.
    Names lose their slashes, which Keras 3 does not take. A normalization or a dropout that was
    called with ``training=False`` in the graph is told of: in Keras 3 it is to be frozen, or left
    out, instead.

    Args:
        model: a built Sequential or Functional ``tf_keras.Model``; models inside, shared layers,
            several inputs and outputs included.

    Returns:
        A model of Keras 3, not compiled. The given model is unchanged.

    Raises:
        ImportError: if tf_keras is not installed; the command that installs it.
        ValueError: if the model has no graph, or a layer has no counterpart; the layer's name.
    """
    tf_keras = legacy_keras()
    if not isinstance(model, tf_keras.Model):
        raise invalid_argument("model", "a tf_keras.Model", model)
    if not getattr(model, "_is_graph_network", False):
        raise invalid_argument(
            "model",
            "a Sequential or Functional model that is built",
            f"{model.name}, a {type(model).__name__}",
            "Write it as tf_keras.Model(inputs, outputs), or build it",
        )
    with undisturbed():
        return _Rebuilding(OLD, NEW, to_new).model(model)


@dataclass(frozen=True)
class _Call:
    """A use of a layer or an operation, and the tensors that came of it."""

    op: Any
    args: Any
    kwargs: Any
    outputs: Sequence[Any]


class _Rebuilding:
    """One model on its way; what is shared is made once."""

    def __init__(
        self, source: Side, target: Side, operation: Callable[..., Any], flat: bool = False
    ) -> None:
        self._source, self._target, self._operation = source, target, operation
        self._flat = flat
        self._made: dict[int, Any] = {}
        self._names: set[str] = set()
        self._pairs: list[tuple[Any, Any]] = []

    def model(self, old: Any) -> Any:
        """The counterpart of a model."""
        sequential = isinstance(old, self._source.keras.Sequential)
        new = self._sequential(old) if sequential else self._functional(old)
        new._trainable = old.trainable  # each layer has its own already
        return new

    def _sequential(self, old: Any) -> Any:
        inputs = [self._input(tensor) for tensor in old.inputs]
        layers = [self._layer(layer) for layer in old.layers]
        new = self._target.keras.Sequential([*inputs, *layers], name=old.name)
        for layer, other in zip(old.layers, layers, strict=True):
            self._fill(layer, other)
        return new

    def variables(self) -> dict[int, Any]:
        """What was made of each variable, by its ``id``."""
        made = (zip(as_made(old), as_made(new), strict=True) for old, new in self._pairs)
        return {id(variable): other for pairs in made for variable, other in pairs}

    def _functional(self, old: Any) -> Any:
        inputs = [self._input(tensor) for tensor in old.inputs]
        there = self._followed(old, inputs)
        ends = keras.tree.map_structure(there, _ends(old))
        return self._target.keras.Model(*ends, name=old.name)

    def _followed(self, old: Any, inputs: Iterable[Any]) -> Callable[[Any], Any]:
        """For each tensor of a model what is made of it, from these inputs on."""
        tensors = {id(tensor): other for tensor, other in zip(old.inputs, inputs, strict=True)}

        def there(given: Any) -> Any:
            return tensors.get(id(given), given)

        for call in _needed(map(self._plain, _calls(old)), _ends(old)[1]):
            args = keras.tree.map_structure(there, call.args)
            kwargs = keras.tree.map_structure(there, call.kwargs)
            if self._flat and isinstance(call.op, self._source.keras.Model):
                outputs = self._inlined(call.op, args, kwargs)
            elif isinstance(call.op, self._source.keras.layers.Layer) and not _is_operation(
                call.op
            ):
                layer = self._layer(call.op)
                with named(call.op, self._target):
                    outputs = layer(*args, **kwargs)
                self._fill(call.op, layer)
            else:
                anew = {"name": self._free(call.op.name)} if self._flat else {}
                outputs = self._operation(call.op, args, kwargs, **anew)
            pairs = zip(call.outputs, keras.tree.flatten(outputs), strict=True)
            tensors.update((id(tensor), other) for tensor, other in pairs)
        return there

    def _inlined(self, old: Any, args: Any, kwargs: Any) -> Any:
        """What a model inside makes of its inputs, layer by layer."""
        if kwargs:
            raise invalid_argument(
                "model", "models inside that are called with inputs alone", f"{old.name}, {kwargs}"
            )
        main = functional(old)
        there = self._followed(main, keras.tree.flatten(args))
        return keras.tree.map_structure(there, _ends(main)[1])

    def _plain(self, call: _Call) -> _Call:
        """A call without what the other Keras does by itself, or would do otherwise."""
        args, kwargs = call.args, {k: v for k, v in call.kwargs.items() if v is not None}
        if self._source is NEW:
            kwargs.pop("training", None)  # the call of the model overrides it
            made = [getattr(x, "_keras_mask", None) for x in keras.tree.flatten(args)]
            if "mask" in kwargs and any(kwargs["mask"] is mask for mask in made):
                del kwargs["mask"]  # computed anew
            return replace(call, kwargs=kwargs)
        if "training" in kwargs:
            self._settle_training(call.op, kwargs.pop("training"))
        recurrent = self._source.keras.layers.RNN, self._source.keras.layers.Bidirectional
        if isinstance(call.op, recurrent) and args and isinstance(args[0], list | tuple):
            first, *kwargs["initial_state"] = args[0]
            args = (first, *args[1:])
        return replace(call, args=args, kwargs=kwargs)

    def _settle_training(self, op: Any, training: Any) -> None:
        """What ``training`` in a graph of tf_keras is in Keras 3, where the call overrides it."""
        inner = [type(one).__name__ for one in op._flatten_layers()]
        differs = [name for name in inner if "Dropout" in name or "Normalization" in name]
        if training is True and differs:
            raise invalid_argument(
                "model",
                "layers that are called without training=True, which Keras 3 would not keep to",
                op.name,
                "Call it without",
            )
        advice = []
        if "BatchNormalization" in inner and op.trainable:
            advice.append("set its `trainable` to False for the statistics to stay")
        if any("Dropout" in name for name in inner):
            advice.append("leave its dropout out")
        if training is False and advice:
            warnings.warn(
                f"{op.name} was called with training=False, which Keras 3 does not keep to while "
                f"it trains: {' and '.join(advice)}.",
                stacklevel=6,
            )

    def _layer(self, old: Any) -> Any:
        if id(old) not in self._made:
            inner = unwrapped(old)
            if isinstance(inner, self._source.keras.Model):
                made = self.model(inner)
            else:
                made = counterpart(inner, self._source, self._target)
                if self._flat:
                    made._name = self._free(made.name)
            self._made[id(old)] = made
        return self._made[id(old)]

    def _free(self, name: str) -> str:
        """The name, with a number behind where another layer has it."""
        numbered = (f"{name}_{number}" for number in itertools.count(1))
        free = next(one for one in itertools.chain([name], numbered) if one not in self._names)
        self._names.add(free)
        return free

    def _fill(self, old: Any, new: Any) -> None:
        if not isinstance(old, self._source.keras.Model):
            copy_weights(old, new)
            self._pairs.append((old, new))

    def _input(self, old: Any) -> Any:
        dtype = getattr(old.dtype, "name", old.dtype)
        name = old._keras_history[0].name.replace("/", "_")
        self._names.add(name)
        return self._target.keras.Input(batch_shape=tuple(old.shape), dtype=dtype, name=name)


def _calls(model: Any) -> Iterator[_Call]:
    """The uses of layers and operations, each after those that it needs."""
    by_depth = model._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if node.is_input:
                continue
            if hasattr(node, "operation"):
                given = node.arguments
                yield _Call(node.operation, given.args, given.kwargs, node.outputs)
            else:
                args, kwargs = node.call_args, node.call_kwargs
                yield _Call(node.layer, args, kwargs, keras.tree.flatten(node.outputs))


def _needed(calls: Iterable[_Call], outputs: Any) -> list[_Call]:
    """The calls that outputs come from."""
    wanted = {id(tensor) for tensor in keras.tree.flatten(outputs)}
    found: list[_Call] = []
    for call in reversed(list(calls)):
        if any(id(tensor) in wanted for tensor in call.outputs):
            found.append(call)
            wanted |= {id(given) for given in keras.tree.flatten((call.args, call.kwargs))}
    return found[::-1]


def _ends(model: Any) -> tuple[Any, Any]:
    """The structures of a model's inputs and outputs."""
    if isinstance(model, keras.Model):
        return model._inputs_struct, model._outputs_struct
    return model._nested_inputs, model._nested_outputs


def _is_operation(layer: Any) -> bool:
    """Whether tf_keras made the layer for an operation that was called on a tensor."""
    return hasattr(layer, "symbol") or type(layer).__name__ == "SlicingOpLambda"
