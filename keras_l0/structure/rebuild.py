"""A new network without the channels that were cut out."""

import contextlib
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from keras.src.models import Functional, Sequential
from numpy.typing import NDArray

from keras_l0.errors import invalid_argument
from keras_l0.structure.channels import Call, Slot, Value
from keras_l0.structure.dead import Cut
from keras_l0.structure.graph import Graph, functional, has_graph, nodes_of, values_of
from keras_l0.structure.parameters import NormalizationRule
from keras_l0.structure.rules import Concatenating, Multiplying
from keras_l0.structure.table import is_sized, rule_of


class Rebuilder:
    """Builds the layers anew, each with the channels that stay, and calls them as before.

    Args:
        cut: what is taken out.
        gathered: by the id of a Dense layer, which of its inputs it is given; all by default.

    Raises:
        ValueError: if layers share a weight: each would be made anew with a copy of it.
    """

    def __init__(self, cut: Cut, gathered: dict[int, NDArray[np.intp]] | None = None) -> None:
        _check_untied(cut.graph)
        self.cut = cut
        self.gathered = gathered or {}
        self._added, self._shifted = _additions(cut)
        self._slots: dict[int, list[Slot]] = {}
        for slot in cut.graph.slots:
            self._slots.setdefault(id(slot.variable), []).append(slot)
        self._initializers: dict[int, dict[str, Any]] = {}
        self._made: dict[int, tuple[Any, Any]] = {}
        # A node of a model that is used twice has several calls: those that are needed count.
        self._calls = {
            id(call.node): call for call in cut.graph.calls if call.outputs_in(cut.needed)
        }
        self._nested = {
            id(nested.node): nested
            for nested in cut.graph.nested
            if any(id(value) in cut.needed for value in nested.outputs)
        }
        self._names: set[str] = set()

    def model(self) -> keras.Model:
        """The new model, its weights set."""
        made = self._model(self.cut.graph.model, self.cut.graph.inputs)
        pairs = [(old, new) for old, new in self._made.values() if isinstance(old, keras.Layer)]
        for old, new in [(self.cut.graph.model, made), *pairs]:
            if not old.trainable:
                new.trainable = False
        for old, new in pairs:
            if old is not new and not has_graph(old):
                self._fill(old, new)
                for one, other in zip(old._flatten_layers(), new._flatten_layers(), strict=False):
                    if other.trainable != one.trainable:  # a model's flag set that of its layers
                        other.trainable = one.trainable
        return made

    def _fill(self, old: keras.Layer, new: keras.Layer) -> None:
        """Gives a new layer the weights of the old one that stay."""
        for name, value in self._initializers.get(id(old), {}).items():
            setattr(new, name, value)
        if not any(id(variable) in self._slots for variable in old.variables):
            for one, other in zip(old._flatten_layers(), new._flatten_layers(), strict=True):
                store: dict[str, Any] = {}
                one.save_own_variables(store)
                # JAX would let both models have the same arrays, and training deletes those.
                other.load_own_variables(keras.tree.map_structure(_copied, store))
            return
        added = self._added.get(id(old))
        values = {id(variable): self._left(variable) for variable in old.variables}
        if id(old) in self.gathered:
            values[id(old.kernel)] = values[id(old.kernel)][self.gathered[id(old)]]
        if added is not None and old.bias is not None:
            values[id(old.bias)] = values[id(old.bias)] + added
        if added is None or old.bias is not None:
            for value, other in zip(values.values(), new.variables, strict=True):
                other.assign(value)
            return
        by_name = {variable.name: values[id(variable)] for variable in old.variables}
        for variable in new.variables:
            variable.assign(by_name.get(variable.name, added))

    def _left(self, variable: keras.Variable) -> NDArray[Any]:
        value = values_of(variable)
        shift = self._shifted.get(id(variable))
        if shift is not None:
            value = value + shift
        for slot in self._slots.get(id(variable), ()):
            stay = ~self.cut.gone[self.cut.graph.classes[slot.ids]]
            if not stay.all():
                value = np.compress(stay, value, slot.axis)
        return value

    def _model(self, model: Any, values: Sequence[Value]) -> Any:
        old = functional(model)
        tensors: dict[int, Any] = {}
        for tensor, value in zip(old.inputs, values, strict=True):
            tensors[id(tensor)] = self._input(tensor, value)
        inputs = keras.tree.map_structure(lambda t: tensors[id(t)], old._inputs_struct)
        for node in nodes_of(old):
            if id(node) in self._nested:
                values = self._nested[id(node)].inputs
                made = self._once(node.operation, partial(self._model, values=values))
                self._record(node, self._run(made, node, tensors), tensors)
            elif id(node) in self._calls:
                self._record(node, self._call(self._calls[id(node)], tensors), tensors)
        if isinstance(model, Sequential) and not self.gathered:
            made = self._new(model, Sequential)
            made.add(keras.tree.flatten(inputs)[0]._keras_history.operation)
            for layer in model.layers:
                made.add(self._made[id(layer)][1])
            return made
        outputs = keras.tree.map_structure(lambda t: tensors[id(t)], old._outputs_struct)
        if isinstance(model, Sequential):
            return keras.Model(inputs, outputs, name=model.name)
        return self._new(model, keras.Model, inputs, outputs)

    @staticmethod
    def _new(model: keras.Model, plain: type, *args: Any) -> Any:
        """A model of the same class, made from its inputs and outputs or its layers alone."""
        kind = type(model)
        if kind in (plain, Functional) or "__init__" not in vars(kind):
            return kind(*args, name=model.name)
        how = "inputs and outputs" if args else "layers"
        try:
            made = kind(*args, name=model.name)
        except TypeError:
            text = f"{kind.__name__} cannot be made from {how}: the shrunk model {model.name} is a"
            warnings.warn(f"{text} keras.{plain.__name__}.", stacklevel=2)
            return plain(*args, name=model.name)
        text = f"the shrunk model {model.name} is a {kind.__name__} made from its {how}"
        warnings.warn(f"{text}: all else has its default.", stacklevel=2)
        return made

    def _input(self, tensor: Any, value: Value) -> Any:
        config = tensor._keras_history.operation.get_config()
        shape = list(config["batch_shape"])
        if value.axis is not None:
            shape[value.axis] = int(np.count_nonzero(self.cut.kept(value)))
        return layers.InputLayer.from_config({**config, "batch_shape": tuple(shape)}).output

    def _record(self, node: Any, results: Any, tensors: dict[int, Any]) -> None:
        for tensor, result in zip(node.outputs, keras.tree.flatten(results), strict=True):
            tensors[id(tensor)] = result

    def _run(self, op: Any, node: Any, tensors: dict[int, Any]) -> Any:
        args, kwargs = node.arguments.fill_in(tensors)
        return op(*args, **kwargs)

    def _call(self, call: Call, tensors: dict[int, Any]) -> Any:
        spared = self.cut.spared.get(id(call.node))
        if spared:
            return self._merge(call, spared, tensors)
        op = self._once(call.op, lambda _: self._copy(call))
        kept = self.gathered.get(id(call.op))
        if kept is not None:
            (tensor,) = call.node.arguments.keras_tensors
            tensors = {**tensors, id(tensor): ops.take(tensors[id(tensor)], kept, axis=-1)}
        with contextlib.ExitStack() as stack:  # so that it is built where the old one was
            for name in (getattr(call.op, "path", None) or "").split("/")[:-1]:
                stack.enter_context(keras.name_scope(name))
            return self._run(op, call.node, tensors)

    def _merge(self, call: Call, spared: set[int], tensors: dict[int, Any]) -> Any:
        """The call without some of its operands; what they were is an offset or a factor."""
        given = call.node.arguments.keras_tensors
        rest = [tensors[id(t)] for place, t in enumerate(given) if place not in spared]
        result = rest[0]
        if len(rest) > 1:
            result = self._once(call.op, lambda _: self._copy(call))(rest)
        rule = call.rule
        if isinstance(rule, Concatenating):
            return result
        stay = self.cut.kept(call.output)
        product = isinstance(rule, Multiplying)
        numbers = np.full(int(np.count_nonzero(stay)), float(product))
        for place in spared:
            value = self.cut.facts.of(call.inputs[place]).value[stay]
            numbers = numbers * value if product else numbers + value
        is_output = any(value is call.output for value in self.cut.graph.outputs)
        if (numbers == float(product)).all():
            return layers.Identity(name=call.op.name)(result) if is_output else result
        assert call.output.axis is not None, "what has an offset has channels"
        numbers = numbers.reshape(-1, *[1] * (len(call.shape) - 1 - call.output.axis))
        scale, offset = (numbers, 0.0) if product else (1.0, numbers)
        dtype = call.op.dtype_policy if isinstance(call.op, keras.Layer) else result.dtype
        name = self._unused(f"{call.op.name}_{'scale' if product else 'offset'}")
        name = call.op.name if is_output else name
        return layers.Rescaling(scale, offset, name=name, dtype=dtype)(result)

    def _unused(self, stem: str) -> str:
        names = [stem, *(f"{stem}_{number}" for number in range(1, len(self._names) + 1))]
        name = next(name for name in names if name not in self._names)
        self._names.add(name)
        return name

    def _once(self, op: Any, make: Any) -> Any:
        if id(op) not in self._made:
            self._made[id(op)] = op, make(op)
        return self._made[id(op)][1]

    def _copy(self, call: Call) -> Any:
        """A layer of the same configuration but for its size, with the weights that stay."""
        op = call.op
        if not isinstance(op, keras.Layer) or not (op.variables or is_sized(op)):
            return op  # without a state
        changed = call.rule.config(call, self.cut.kept(call.output)) if call.output.axis else {}
        if id(op) in self._added and op.bias is None:
            changed |= call.rule.with_bias(op)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a lambda is not written down, but handed on
                config = op.get_config()
            if is_sized(op):
                config |= {
                    name: value
                    for name in config
                    if not isinstance(value := getattr(op, name, None), str) and callable(value)
                }
            made = type(op).from_config({**config, **changed})
        except Exception as error:
            if changed or is_sized(op):
                raise
            warnings.warn(
                f"The layer {op.name} cannot be made from its configuration: the shrunk model "
                f"shares it, and its weights, with the given one. {error}",
                stacklevel=2,
            )
            return op
        if is_sized(op):
            # The weights are set below: random ones first would only take time.
            self._initializers[id(op)] = {
                name: value for name, value in vars(made).items() if name.endswith("_initializer")
            }
            for name in self._initializers[id(op)]:
                setattr(made, name, _empty)
        return made


def _check_untied(graph: Graph) -> None:
    owners: dict[int, Any] = {}
    for call in graph.calls:
        for weight in getattr(call.op, "weights", ()):
            owner = owners.setdefault(id(weight), call.op)
            if owner is not call.op:
                raise invalid_argument(
                    "model",
                    "a model whose layers share no weight",
                    f"{graph.model.name}, where the layers {owner.name} and {call.op.name} share "
                    f"{weight.path}",
                    "A smaller model is made of new layers, which would have a copy each. Prune "
                    "the weights instead, or use one layer for both, as ReversibleEmbedding is",
                )


def _empty(shape: Sequence[int], dtype: Any) -> Any:
    return ops.convert_to_tensor(np.zeros(shape, np.float32), dtype)


Sums = dict[int, NDArray[np.float64]]


def _additions(cut: Cut) -> tuple[Sums, Sums]:
    """What the constants that go had added to the sums of a layer.

    Returns:
        By the id of a layer what its bias gains; and by the id of a moving mean what it gains,
        where the layer has no bias and a batch normalization is all that follows.
    """
    added: Sums = {}
    shifted: Sums = {}
    for reader in cut.facts.readers:
        op = reader.call.op
        if id(reader.call.output) not in cut.needed or id(op) in added:
            continue
        gone = cut.gone[reader.read] & reader.foldable
        sums = reader.filters.adds(np.where(gone, reader.known.value, 0.0))
        sums = np.where(cut.gone[reader.made], 0.0, sums)
        if not sums.any():
            continue
        mean = None if op.bias is not None else _mean_behind(cut, op)
        if mean is None:
            added[id(op)] = sums[~cut.gone[reader.made]]
        else:
            shifted[id(mean)] = -sums
    return added, shifted


def _mean_behind(cut: Cut, op: Any) -> keras.Variable | None:
    """The moving mean of the batch normalization that alone takes what a layer gives."""
    graph = cut.graph
    outputs = {id(call.output) for call in graph.calls if call.op is op}
    users = [call for call in graph.calls if any(id(v) in outputs for v in call.inputs)]
    followers = {id(call.op): call.op for call in users}
    if len(followers) != 1 or any(id(value) in outputs for value in graph.outputs):
        return None
    (behind,) = followers.values()
    uses = [call for call in graph.calls if call.op is behind]
    if not isinstance(rule_of(behind), NormalizationRule) or len(uses) != len(users):
        return None
    linear = op.activation is keras.activations.linear
    same = all(call.output.axis == call.inputs[0].axis for call in uses)
    return behind.moving_mean if linear and same else None


def _copied(value: Any) -> Any:
    return values_of(value) if isinstance(value, keras.Variable) else value
