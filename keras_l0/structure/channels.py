"""Channels that must go together: what a graph's rules write down, and its equivalence classes."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.intp]

LOCKED = 0
"""The id of what may not go."""


@dataclass(eq=False)
class Value:
    """A tensor of the graph: its shape with the batch, and its channels, along one axis.

    ``ids`` are the channels' ids by position along ``axis``; ``axis`` is ``None`` where nothing
    in the tensor can go.
    """

    shape: tuple[int | None, ...]
    axis: int | None = None
    ids: Ids = field(default_factory=lambda: np.zeros(0, np.intp))

    def like(self, shape: Sequence[int | None], axis: int) -> "Value":
        """Another tensor with the same channels."""
        return Value(tuple(shape), axis, self.ids)


@dataclass(eq=False)
class Call:
    """One use of an operation: what goes in, and what comes out once its rule has said so.

    ``others`` are outputs beside the first, whose channels stay. ``read`` are the channels that
    its filters read, by position, if it has filters. ``trains`` says that it computes as in
    training, at inference too.
    """

    node: Any
    inputs: list[Value]
    shape: tuple[int | None, ...]
    rule: Any
    trains: bool = False
    output: Value = field(default_factory=lambda: Value(()))
    others: list[Value] = field(default_factory=list)
    read: Ids | None = None

    @property
    def op(self) -> Any:
        """The layer, or the operation of ``keras.ops``."""
        return self.node.operation

    @property
    def outputs(self) -> list[Value]:
        """All that comes out."""
        return [self.output, *self.others]

    def outputs_in(self, chosen: Container[int]) -> bool:
        """Whether one of the outputs is among these ids."""
        return any(id(value) in chosen for value in self.outputs)

    def on(self, *tensors: Any) -> Any:
        """The operation's result on other tensors, with the call's further arguments."""
        given = zip(self.node.arguments.keras_tensors, tensors, strict=True)
        args, kwargs = self.node.arguments.fill_in({id(old): new for old, new in given})
        return self.op.call(*args, **kwargs)


@dataclass
class Slot:
    """An axis of a variable whose entries are channels.

    ``role`` is ``"makes"`` for the outputs of a kernel, ``"shifts"`` for what is added to or
    multiplied with a channel, as a bias is, and ``"reads"`` for all else.
    """

    variable: keras.Variable
    axis: int
    ids: Ids
    role: str


class Book:
    """Takes down which channels are tied to which while a graph is walked."""

    def __init__(self) -> None:
        self.slots: dict[tuple[int, int], Slot] = {}
        self.left: list[tuple[Call, str]] = []
        self._count = 1  # 0 is the locked one
        self._pairs: list[tuple[Ids, Ids]] = []

    def fresh(self, count: int) -> Ids:
        """So many new channels."""
        self._count += count
        return np.arange(self._count - count, self._count)

    def tie(self, one: Ids, other: Ids | int) -> None:
        """These go together, position by position."""
        self._pairs.append((one, np.broadcast_to(other, one.shape)))

    def lock(self, value: Value) -> None:
        """None of these may go."""
        self.tie(value.ids, LOCKED)

    def leave(self, call: Call, why: str) -> None:
        """The channels that go into this call stay."""
        self.left.append((call, why))

    def along(self, call: Call, value: Value, axis: int) -> Ids:
        """An input's channels by position along this axis; locked if they are along another."""
        if value.axis == axis:
            return value.ids
        if value.axis is not None:
            self.leave(call, "it reads along another axis")
        self.lock(value)
        return np.full(value.shape[axis] or 0, LOCKED)

    def attach(self, variable: keras.Variable, axis: int, ids: Ids, role: str = "reads") -> Ids:
        """An axis of a variable goes with these channels."""
        slot = self.slots.setdefault((id(variable), axis), Slot(variable, axis, ids, role))
        if slot.ids is not ids:
            self.tie(slot.ids, ids)
        return slot.ids

    def makes(self, variable: keras.Variable, axis: int, ids: Ids | None = None) -> Ids:
        """An axis of a kernel makes these channels; new ones, or those of an earlier call."""
        if ids is None:
            slot = self.slots.get((id(variable), axis))
            ids = slot.ids if slot else self.fresh(variable.shape[axis])
        return self.attach(variable, axis, ids, "makes")

    def classes(self) -> Ids:
        """For each id the number of its class: what is tied has the same; 0 is locked."""
        label = np.arange(self._count)
        if not self._pairs:
            return label
        one = np.concatenate([pair[0] for pair in self._pairs])
        other = np.concatenate([pair[1] for pair in self._pairs])
        while np.any(label[one] != label[other]):
            low = np.minimum(label[one], label[other])
            np.minimum.at(label, label[one], low)
            np.minimum.at(label, label[other], low)
            while np.any(label[label] != label):
                label = label[label]
        return np.unique(label, return_inverse=True)[1]


@dataclass
class Known:
    """What is known of a tensor's channels: which hold a constant at all places, and which one.

    Where ``constant`` is False, ``value`` is 0.
    """

    constant: NDArray[np.bool_]
    value: NDArray[np.float64]

    def __post_init__(self) -> None:
        self.value = np.where(self.constant, self.value, 0.0)

    @property
    def zero(self) -> NDArray[np.bool_]:
        """Which channels are zero everywhere."""
        return self.constant & (self.value == 0)

    def at(self, places: Any) -> "Known":
        """What is known of channels at these positions."""
        return Known(self.constant[places], self.value[places])


def unknown(count: int) -> Known:
    """Nothing is known of so many channels."""
    return Known(np.zeros(count, bool), np.zeros(count))
