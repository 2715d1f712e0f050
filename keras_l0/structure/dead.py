"""Which channels are dead: what is constant, what is read by no one, and what needs neither."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from keras_l0.errors import invalid_argument
from keras_l0.structure.channels import LOCKED, Call, Ids, Known, Value, unknown
from keras_l0.structure.filters import DenseRule, Filters
from keras_l0.structure.graph import Graph
from keras_l0.structure.rules import Averaging, Concatenating, Merging, Moving, Weights

Gone = NDArray[np.bool_]


@dataclass(frozen=True)
class Reader:
    """A call whose filters read channels: what of them it could do without."""

    call: Call
    filters: Filters
    known: Known
    foldable: NDArray[np.bool_]
    read: Ids
    made: Ids


class Facts:
    """What is known of a network's channels when its variables hold what ``w`` says.

    Args:
        graph: the network's.
        w: what its variables hold.
        is_fixed: what is taken to give a constant besides.
    """

    def __init__(
        self, graph: Graph, w: Weights, is_fixed: Callable[[Call], bool] = lambda _: False
    ) -> None:
        self.graph = graph
        self.known: dict[int, Known] = {}
        self._live: set[int] = {id(value) for value in (*graph.inputs, *graph.constants)}
        self.first_constant: dict[int, Call] = {}
        for call in graph.calls:
            found = [self.of(value) for value in call.inputs]
            if call.output.axis is None:
                known, fixed = unknown(0), call.rule.is_fixed(call, found, w)
            else:
                known = call.rule.known(call, found, w)
                fixed = bool(known.constant.all())
            self.known[id(call.output)] = known
            self._follow(call, fixed or is_fixed(call))
        self._w = w

    @cached_property
    def readers(self) -> list[Reader]:
        """The calls whose filters read channels, in graph order."""
        return self._readers(self._w)

    def of(self, value: Value) -> Known:
        """What is known of a tensor's channels."""
        return self.known.get(id(value), unknown(len(value.ids)))

    def is_live(self, value: Value) -> bool:
        """Whether a tensor depends on the model's inputs."""
        return id(value) in self._live

    def _follow(self, call: Call, fixed: bool) -> None:
        live = [value for value in call.inputs if self.is_live(value)]
        for value in call.outputs:
            if live and not (fixed and value is call.output):
                self._live.add(id(value))
            else:
                source = call if live else self.first_constant[id(call.inputs[0])]
                self.first_constant[id(value)] = source

    def _readers(self, w: Weights) -> list[Reader]:
        cache: dict[int, Filters] = {}
        readers = []
        for call in self.graph.calls:
            if call.read is None:
                continue
            if id(call.op) not in cache:
                cache[id(call.op)] = call.rule.filters(call.op, w)
            filters = cache[id(call.op)]
            known = call.rule.known_inputs(call, [self.of(value) for value in call.inputs])
            made = self.graph.classes_of(call.output)
            if not len(made):
                made = np.full(filters.reads.shape[1], LOCKED)
            read = self.graph.classes[call.read]
            readers.append(Reader(call, filters, known, filters.passes(known), read, made))
        # A layer that is used twice has one bias: both uses must want the same in it.
        by_layer: dict[int, list[Reader]] = {}
        for reader in readers:
            by_layer.setdefault(id(reader.call.op), []).append(reader)
        for uses in by_layer.values():
            for reader in uses:
                for other in uses:
                    same = reader.known.value == other.known.value
                    reader.foldable[:] &= other.filters.passes(other.known) & same
        return readers

    def removable(self, needed: set[int]) -> Gone:
        """The classes of channels without which the outputs are the same, to a fixed point.

        Only what the tensors of ``needed`` are computed from counts.
        """
        readers = [reader for reader in self.readers if id(reader.call.output) in needed]
        alive = np.zeros(self.graph.count, bool)
        alive[LOCKED] = True
        before = 0
        while before != (count := int(np.count_nonzero(alive))):
            before = count
            for reader in readers:
                rows = np.flatnonzero(~reader.foldable & ~alive[reader.read])
                columns = np.flatnonzero(alive[reader.made])
                reads = reader.filters.reads[np.ix_(rows, columns)]
                alive[reader.read[rows[reads.any(axis=1)]]] = True
        return ~alive


@dataclass(frozen=True)
class Cut:
    """What is taken out of a network.

    Attributes:
        gone: whether a class of channels goes.
        needed: ids of the tensors that are still computed.
        spared: for a node, by its id, the operands that it does without: their positions.
    """

    graph: Graph
    facts: Facts
    gone: Gone
    needed: set[int]
    spared: dict[int, set[int]]

    def removes_anything(self) -> bool:
        """Whether the network is any smaller without it."""
        outputs = {id(value) for call in self.graph.calls for value in call.outputs}
        return bool(self.gone.any()) or bool(self.spared) or not outputs <= self.needed

    def kept(self, value: Value) -> NDArray[np.bool_]:
        """Which of a tensor's channels stay, by position."""
        return ~self.gone[self.graph.classes_of(value)]


def find_cut(graph: Graph, w: Weights) -> Cut:
    """Everything that can be taken out of a network with no change to its outputs.

    Raises:
        ValueError: if an output depends on no input.
    """
    facts = Facts(graph, w)
    for place, value in enumerate(graph.outputs):
        if not facts.is_live(value):
            layer = facts.first_constant[id(value)].op.name
            which = f"output {place} of {len(graph.outputs)}, which is the same for any input"
            raise invalid_argument(
                "model",
                "outputs that depend on the inputs",
                f"{which}, since the layer {layer} gives constants only",
                "Prune less",
            )
    needed = {id(value) for call in graph.calls for value in call.outputs}
    while True:
        gone = facts.removable(needed)
        while (empty := _empty(graph, gone, needed, _spared(graph, facts, gone))) is not None:
            # A layer has one channel at least: of those that nobody needs, the first stays.
            gone[graph.classes_of(empty)[0]] = False
        spared = _spared(graph, facts, gone)
        left = _needed(graph, spared)
        if left == needed:
            return Cut(graph, facts, gone, needed, spared)
        needed = left


def inputs_read(cut: Cut) -> dict[int, NDArray[np.intp]]:
    """Where a ``Dense`` layer reads the model's inputs, but not all: by its id, those it reads."""
    raw = {id(value) for value in cut.graph.inputs}
    found = {}
    for call in cut.graph.calls:
        if isinstance(call.rule, Moving) and id(call.inputs[0]) in raw:
            raw.add(id(call.output))
    for reader in cut.facts.readers:
        op = reader.call.op
        once = sum(other.call.op is op for other in cut.facts.readers) == 1
        if isinstance(reader.call.rule, DenseRule) and once and id(reader.call.inputs[0]) in raw:
            read = np.asarray(reader.filters.reads[:, ~cut.gone[reader.made]].any(axis=1))
            if 0 < np.count_nonzero(read) < len(read):
                found[id(op)] = np.flatnonzero(read)
    return found


def _empty(graph: Graph, gone: Gone, needed: set[int], spared: dict[int, set[int]]) -> Value | None:
    """A tensor that is needed though none of its channels is."""
    for call in graph.calls:
        if call.outputs_in(needed):
            for place, value in enumerate(call.inputs):
                if place in spared.get(id(call.node), ()) or value.axis is None:
                    continue
                if gone[graph.classes_of(value)].all():
                    return value
    for nested in graph.nested:
        if any(id(value) in needed for value in nested.outputs):
            for value in nested.outputs:
                if value.axis is not None and gone[graph.classes_of(value)].all():
                    return value
    return None


def _spared(graph: Graph, facts: Facts, gone: Gone) -> dict[int, set[int]]:
    """Operands that calls do without: those that are constant, or have no channel left."""
    by_node: dict[int, list[set[int]]] = {}
    outputs = {id(value) for value in graph.outputs}
    if graph.has_masks:  # a sum of fewer operands would have another mask
        return {}
    for call in graph.calls:
        places: set[int] = set()
        kept = [~gone[graph.classes_of(value)] for value in call.inputs]
        if isinstance(call.rule, Concatenating) and call.output.axis is not None:
            places = {place for place, stay in enumerate(kept) if len(stay) and not stay.any()}
        elif can_spare(call):
            places = {
                place
                for place, (value, stay) in enumerate(zip(call.inputs, kept, strict=True))
                if value.axis is not None and facts.of(value).constant[stay].all()
            }
            shapes = [v.shape for place, v in enumerate(call.inputs) if place not in places]
            # What is left has the output's size: nothing broadcasts it any more.
            # And one layer alone can bear an output's name.
            if call.shape not in shapes or (id(call.output) in outputs and len(shapes) > 1):
                places = set()
        by_node.setdefault(id(call.node), []).append(places)
    found = {}
    for node, uses in by_node.items():
        # In a model that is used twice, constants may differ.
        found[node] = uses[0] if len(uses) == 1 else set()
    return {node: places for node, places in found.items() if places}


def can_spare(call: Call) -> bool:
    """Whether a constant operand can be an offset or a factor instead."""
    rule = call.rule
    return (
        call.output.axis is not None
        and len(call.inputs) > 1
        and isinstance(rule, Merging)
        and rule.function in (np.add, np.multiply)
        and not isinstance(rule, Averaging)
    )


def _needed(graph: Graph, spared: dict[int, set[int]]) -> set[int]:
    """Ids of the tensors from which the outputs are computed."""
    needed = {id(value) for value in graph.outputs}
    count = 0
    while count != len(needed):
        count = len(needed)
        for call in reversed(graph.calls):
            if call.outputs_in(needed):
                left_out = spared.get(id(call.node), set())
                needed |= {id(v) for i, v in enumerate(call.inputs) if i not in left_out}
                needed |= {id(value) for value in call.outputs}
        for nested in graph.nested:
            if any(id(value) in needed for value in nested.outputs):
                tensors = (*nested.inputs, *nested.others, *nested.outputs)
                needed |= {id(value) for value in tensors}
    return needed
