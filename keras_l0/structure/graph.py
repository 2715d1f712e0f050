"""The dependency graph: which channels of a network must go together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.models import Functional, Sequential  # what a graph is read from has no public name
from numpy.typing import NDArray

from keras_l0.errors import invalid_argument
from keras_l0.structure.channels import LOCKED, Book, Call, Ids, Slot, Value
from keras_l0.structure.rules import Rule
from keras_l0.structure.table import is_sized, rule_of


@dataclass(frozen=True)
class Nested:
    """A call of a model inside the model; ``others`` are its further tensors, such as a mask."""

    node: Any
    inputs: list[Value]
    outputs: list[Value]
    others: list[Value]


@dataclass(frozen=True)
class Group:
    """Channels whose layers hang together.

    Attributes:
        slots: the axes of variables that make the channels.
        channels: the classes that may go; one of ``slots`` has each of them at least once.
    """

    slots: tuple[Slot, ...]
    channels: Ids


class Graph:
    """The channels of a Sequential or Functional model, nested models included.

    Attributes:
        calls: the uses of layers and operations, each after those that it needs.
        nested: the uses of models inside.
        inputs: the model's input tensors.
        outputs: its output tensors.
        constants: tensors that are given to a model inside, and computed from nothing.
        has_masks: whether a tensor has a mask.
        classes: for each id of a channel the number of its class; 0 may not go.
        slots: the axes of variables that go with channels.
        left_alone: paths of layers whose channels stay, with the reason.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.calls: list[Call] = []
        self.nested: list[Nested] = []
        self._book = Book()
        self.constants: list[Value] = []
        self.has_masks = False
        self._entered: dict[int, list[Value]] = {}
        self._used: dict[int, Value] = {}
        main = functional(model)
        self.inputs = [Value(tuple(tensor.shape)) for tensor in main.inputs]
        self.outputs = self._walk(main, self.inputs)
        self.slots = list(self._book.slots.values())
        self.left_alone = self._reasons(self._book.classes())
        for value in self.outputs:
            self._book.lock(value)
        self.classes = self._book.classes()
        self.count = int(self.classes.max(initial=0)) + 1

    def _reasons(self, classes: Ids) -> dict[str, str]:
        """Why layers keep their channels, but for those whose channels are outputs."""
        found = {
            getattr(call.op, "path", "") or call.op.name: f"{type(call.op).__name__}: {why}"
            for call, why in self._book.left
            if call.output not in self.outputs
        }
        last = {
            id(v)
            for c in self.calls
            if c.output in self.outputs
            for v in getattr(c.op, "variables", ())
        }
        for slot in self.slots:
            locked = slot.role == "makes" and (classes[slot.ids] == LOCKED).all()
            if locked and id(slot.variable) not in last:
                layer = slot.variable.path.rpartition("/")[0]
                found.setdefault(layer, "its channels hang together with some that stay")
        return found

    def _walk(self, model: Any, inputs: list[Value], trains: bool | None = None) -> list[Value]:
        """Takes down the calls of a functional on these values; gives its outputs."""
        values = {id(tensor): value for tensor, value in zip(model.inputs, inputs, strict=True)}
        for node in nodes_of(model):
            given = [values[id(tensor)] for tensor in node.arguments.keras_tensors]
            tensors = (*node.arguments.keras_tensors, *node.outputs)
            self.has_masks |= any(
                getattr(tensor, "_keras_mask", None) is not None for tensor in tensors
            )
            training = _training(node) if trains is None else trains
            if has_graph(node.operation):
                inner = functional(node.operation)
                entering = self._entering(inner, node, given)
                others = [value for value in given if value not in entering]
                for value in others:
                    self._book.lock(value)
                outputs = self._walk(inner, entering, training)
                self.nested.append(Nested(node, entering, outputs, others))
            else:
                outputs = self._call(node, given, training)
            for tensor, value in zip(node.outputs, outputs, strict=True):
                values[id(tensor)] = value
        return [values[id(tensor)] for tensor in model.outputs]

    def _entering(self, inner: Any, node: Any, given: list[Value]) -> list[Value]:
        """The values in the order of a nested model's inputs, tied to those of earlier calls."""
        by_tensor = {
            id(tensor): value
            for tensor, value in zip(node.arguments.keras_tensors, given, strict=True)
        }
        args, kwargs = node.arguments.args, node.arguments.kwargs
        structure = args[0] if args else kwargs["inputs"]
        if isinstance(structure, dict):  # a model takes the arrays of its inputs by name too
            own = inner._inputs_struct
            names = own if isinstance(own, dict) else [t.name for t in keras.tree.flatten(own)]
            structure = {name: structure[name] for name in names}
            structure = structure if isinstance(own, dict) else list(structure.values())
        ordered = []
        for tensor in keras.tree.flatten(structure):
            if id(tensor) not in by_tensor:
                self.constants.append(Value(tuple(tensor.shape)))
            ordered.append(by_tensor.get(id(tensor)) or self.constants[-1])
        first = self._entered.setdefault(id(inner), ordered)
        for value, earlier in zip(ordered, first, strict=True):
            if value.axis == earlier.axis:
                self._book.tie(value.ids, earlier.ids)
            else:
                self._book.lock(value)
                self._book.lock(earlier)
        return ordered

    def _call(self, node: Any, inputs: list[Value], trains: bool | None) -> list[Value]:
        first, *rest = node.outputs
        call = Call(node, inputs, tuple(first.shape), rule_of(node.operation), bool(trains))
        try:
            call.output = call.rule.tie(call, self._book)
        except (TypeError, ValueError, AttributeError, LookupError):  # arguments as no rule knows
            call.rule, call.read = Rule(), None
            call.output = call.rule.tie(call, self._book)
        self._same_size(call)
        call.others = [Value(tuple(tensor.shape)) for tensor in rest]
        self.calls.append(call)
        return [call.output, *call.others]

    def _same_size(self, call: Call) -> None:
        """What is used twice has one size."""
        earlier = self._used.setdefault(id(call.op), call.output)
        if is_sized(call.op) and earlier.axis is not None:
            if call.output.axis == earlier.axis and len(call.output.ids) == len(earlier.ids):
                self._book.tie(call.output.ids, earlier.ids)
            else:
                self._book.leave(call, "it is used again for channels of another kind")
                self._book.lock(call.output)
                self._book.lock(earlier)

    def classes_of(self, value: Value) -> Ids:
        """The classes of a tensor's channels, by position."""
        return self.classes[value.ids]

    @cached_property
    def groups(self) -> list[Group]:
        """Those channels that may go, layers that hang together in a group, in graph order."""
        made = [slot for slot in self.slots if slot.role == "makes"]
        owners: dict[int, int] = {}
        parent = list(range(len(made)))

        def root(place: int) -> int:
            while parent[place] != place:
                place = parent[place]
            return place

        for place, slot in enumerate(made):
            for channel in np.unique(self.classes[slot.ids]).tolist():
                if channel != LOCKED:
                    one, other = root(owners.setdefault(channel, place)), root(place)
                    parent[max(one, other)] = min(one, other)
        found: dict[int, list[Slot]] = {}
        for place, slot in enumerate(made):
            found.setdefault(root(place), []).append(slot)
        return [
            Group(tuple(slots), channels)
            for slots in found.values()
            if len(channels := self._channels(slots))
        ]

    def _channels(self, slots: Sequence[Slot]) -> Ids:
        channels = np.unique(np.concatenate([self.classes[slot.ids] for slot in slots]))
        return channels[channels != LOCKED]

    def parameters(self, gone: NDArray[np.bool_]) -> dict[int, int]:
        """The size of each variable, by its id, once these classes are gone."""
        sizes = {id(v): list(v.shape) for v in self.model.variables}
        for slot in self.slots:
            left = int(np.count_nonzero(~gone[self.classes[slot.ids]]))
            sizes[id(slot.variable)][slot.axis] = left
        return {key: int(np.prod(shape)) for key, shape in sizes.items()}


def _training(node: Any) -> bool | None:
    """Whether a call is told to train, always or at times; ``None`` if it is not told."""
    args, kwargs = node.arguments.args, node.arguments.kwargs
    flags = [kwargs.get("training"), *(arg for arg in args[1:] if isinstance(arg, bool))]
    told = [flag for flag in flags if flag is not None]
    return told[0] is not False if told else None


def has_graph(op: Any) -> bool:
    """Whether it is a model of which the graph is all that there is."""
    if isinstance(op, Sequential):
        return op._functional is not None and type(op).call is Sequential.call
    return isinstance(op, Functional) and type(op).call is Functional.call


def functional(model: keras.Model) -> Any:
    """The functional of a model.

    Raises:
        ValueError: if the model has no graph.
    """
    if not has_graph(model):
        without = _without_shape(model)
        if without is not None:
            raise invalid_argument(
                "model",
                "a model whose layers tell their output shapes",
                f"{model.name}, with the layer {without.name} ({type(without).__name__})",
                "It does not, so that the model has no graph to be followed. Prune the model's "
                "weights, which needs none, or use a layer with a compute_output_shape",
            )
        raise invalid_argument(
            "model",
            "a Sequential or Functional model",
            f"{model.name}, a subclassed model",
            "It has no graph to be followed. Write it as keras.Model(inputs, outputs), or prune "
            "its weights, which needs none",
        )
    return model._functional if isinstance(model, Sequential) else model


def _without_shape(model: keras.Model) -> Any:
    """The layer at which a Sequential model stopped to call its layers one after the other."""
    if not isinstance(model, Sequential) or type(model).call is not Sequential.call:
        return None
    return next((layer for layer in model.layers if not layer._inbound_nodes), None)


def nodes_of(model: Any) -> Iterator[Any]:
    """The calls of a functional, each after those that it needs."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.operation is not None and not node.is_input:
                yield node


def values_of(variable: keras.Variable) -> NDArray[Any]:
    """What a variable holds."""
    return ops.convert_to_numpy(variable)
