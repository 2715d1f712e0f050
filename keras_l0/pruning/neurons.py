"""Neurons and filters: which of them matter least, and taking whole channels to zero."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_l0.errors import at_least, choice, invalid_argument, is_number, whole_at_least
from keras_l0.models import layer_path
from keras_l0.pruning.channel_scores import SCORES
from keras_l0.pruning.targets import Targets
from keras_l0.pruning.unpruned import UNFREEZE
from keras_l0.structure.dead import Facts
from keras_l0.structure.flops import Uses, uses_of_weights
from keras_l0.structure.graph import Graph, Group, values_of
from keras_l0.structure.rules import Weights
from keras_l0.text import by_reason

Gone = NDArray[np.bool_]

SCOPES = ("layer", "global")

FROZEN = "some of what makes its channels is frozen"


@dataclass(frozen=True)
class NeuronGoal:
    """How many channels are to go: a share of them, of the multiply-adds, or of the parameters.

    Raises:
        ValueError: unless just one of ``fraction``, ``flops`` and ``compression`` is given, in
            its range.
    """

    fraction: float | None = None
    flops: float | None = None
    compression: float | None = None
    scope: str = "layer"
    minimum: int = 1
    score: object = "norm"
    round_to: int = 1

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.fraction, self.flops, self.compression)) != 1:
            raise invalid_argument(
                "fraction",
                "just one of `fraction`, `flops` and `compression`",
                self.fraction,
                f"And flops={self.flops!r}, compression={self.compression!r}",
            )
        for name in ("fraction", "flops"):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and 0 <= value < 1):
                raise invalid_argument(name, "a number in [0, 1)", value)
        if self.compression is not None:
            at_least("compression", self.compression, 1.0)
        choice("scope", self.scope, SCOPES)
        for name in ("minimum", "round_to"):
            whole_at_least(name, getattr(self, name), 1)
        if not isinstance(self.score, str) or self.score not in SCORES:
            raise invalid_argument("score", " or ".join(f'"{name}"' for name in SCORES), self.score)


class Neurons:
    """The channels of a model that can be pruned, and the choice among them.

    A group of layers that hang together is left alone where one of its kernels is not among the
    weights to be pruned, or where ``shrink`` could not take its channels out.

    Attributes:
        groups: those that can be pruned.
        left_alone: layers whose channels stay, by path, with the reason.

    Args:
        model: a built Sequential or Functional model.
        targets: its prunable weights.

    Raises:
        ValueError: if the model has no graph, or no channel that can go.
    """

    def __init__(self, model: keras.Model, targets: Targets) -> None:
        self.graph = Graph(model)
        self.left_alone = dict(self.graph.left_alone)
        live = {id(weight.variable) for weight in targets.live}
        self.groups = [group for group in self.graph.groups if self._chosen(group, live)]
        self.groups = self._removable()
        if not self.groups:
            reasons = "; ".join(by_reason(self.left_alone)[:3]) or "Those of its outputs stay"
            if FROZEN in self.left_alone.values():
                reasons = f"{UNFREEZE}. {reasons}"
            raise invalid_argument(
                "model", "a model with channels that can go", model.name, reasons
            )
        self._uses: Uses | None = None

    def _chosen(self, group: Group, live: set[int]) -> bool:
        strange = [slot.variable for slot in group.slots if id(slot.variable) not in live]
        if not strange:
            return True
        if all(variable.trainable for variable in strange):
            return self._leave(group, "not all that makes its channels is to be pruned")
        return self._leave(group, FROZEN)

    def _leave(self, group: Group, reason: str) -> bool:
        for slot in group.slots:
            self.left_alone[slot.variable.path.rpartition("/")[0]] = reason
        return False

    def _removable(self) -> list[Group]:
        """The groups of which ``shrink`` could take out all that is zero."""
        gone = np.zeros(self.graph.count, bool)
        for group in self.groups:
            gone[group.channels] = True
        facts = Facts(self.graph, zeroed(self.graph, gone))
        found = []
        for group in self.groups:
            reader = next(
                (
                    reader.call.op
                    for reader in facts.readers
                    if np.isin(reader.read[~reader.foldable], group.channels).any()
                ),
                None,
            )
            if reader is not None:
                self._leave(group, f"what reaches {layer_path(reader)} is no constant that folds")
            elif all(slot.variable.shape[slot.axis] < 2 for slot in group.slots):
                self._leave(group, "it has one filter only")
            elif len(group.channels) < 2:
                self._leave(group, "its channels all hang together")
            else:
                found.append(group)
        return found

    def choose(self, goal: NeuronGoal, share: float = 1.0) -> Gone:
        """The classes of channels that are gone once ``share`` of the goal is reached.

        Raises:
            ValueError: if so much cannot go, or the multiply-adds are not known.
        """
        ranks = SCORES[str(goal.score)](self.graph, values_of)
        if goal.fraction is not None:
            return self._lowest(ranks, goal.fraction * share, goal)
        if goal.flops is not None:
            return self._until(ranks, self.flops, goal.flops * share, goal)
        assert goal.compression is not None, "a goal has one of the three"
        return self._until(ranks, self.parameters, (1 - 1 / goal.compression) * share, goal)

    def _lowest(self, ranks: NDArray[np.float64], fraction: float, goal: NeuronGoal) -> Gone:
        gone = np.zeros(self.graph.count, bool)
        together = [[group] for group in self.groups] if goal.scope == "layer" else [self.groups]
        for groups in together:
            self._take(gone, groups, ranks, fraction, goal)
        return gone

    def _take(
        self,
        gone: Gone,
        groups: Sequence[Group],
        ranks: NDArray[np.float64],
        fraction: float,
        goal: NeuronGoal,
    ) -> None:
        """Marks this share of the groups' channels, the lowest, leaving each layer its minimum.

        Within a layer only those are ranked together that the same layers make: where maps of two
        layers stand side by side before a depthwise convolution, each loses its own share. Then
        channels come back, the best first, until all layers' counts are multiples.
        """
        channels = np.concatenate([group.channels for group in groups])
        places = [self.graph.classes[slot.ids] for group in groups for slot in group.slots]
        counts = np.stack([np.bincount(ids, minlength=self.graph.count) for ids in places])
        left = counts[:, channels].sum(1)
        order = channels[np.argsort(ranks[channels], kind="stable")]
        for part in _alike(counts > 0, order) if goal.scope == "layer" else [order]:
            wanted = round(fraction * len(part))
            for channel in part:
                if wanted == 0:
                    break
                fewer = left - counts[:, channel]
                if (fewer[counts[:, channel] > 0] >= goal.minimum).all():
                    gone[channel] = True
                    left = fewer
                    wanted -= 1
        while len(back := self._back(order[gone[order]], counts, left % goal.round_to > 0)):
            gone[back[-1]] = False
            left = left + counts[:, back[-1]]

    @staticmethod
    def _back(gone: NDArray[np.intp], counts: NDArray[np.intp], odd: Gone) -> NDArray[np.intp]:
        """Those of ``gone`` that an odd layer wants back; if there are, such as no other holds."""
        wanted = gone[counts[odd][:, gone].any(axis=0)]
        harmless = wanted[~counts[~odd][:, wanted].any(axis=0)]
        return harmless if len(harmless) else wanted

    def _until(
        self,
        ranks: NDArray[np.float64],
        size: Callable[[Gone], int],
        share: float,
        goal: NeuronGoal,
    ) -> Gone:
        """The smallest fraction of the channels that takes this share of the network's size."""
        before = size(np.zeros(self.graph.count, bool)) or 1

        def removed(fraction: float) -> tuple[float, Gone]:
            gone = self._lowest(ranks, fraction, goal)
            return 1 - size(gone) / before, gone

        reached, gone = removed(1.0)
        if reached < share:
            name = "compression" if goal.flops is None else "flops"
            most = reached if goal.compression is None else 1 / (1 - reached)
            raise invalid_argument(
                name,
                f"at most {math.floor(most * 1e4) / 1e4}, the largest reachable",
                getattr(goal, name),
                "What is left alone stays, and `minimum` and `round_to` in each layer",
            )
        low, high = 0.0, 1.0
        for _ in range(30):  # to a billionth: finer than any layer is wide
            middle = (low + high) / 2
            reached, found = removed(middle)
            low, high, gone = (low, middle, found) if reached >= share else (middle, high, gone)
        return gone

    def parameters(self, gone: Gone) -> int:
        """All parameters of the network without these channels."""
        sizes = self.graph.parameters(gone)
        return sum(sizes[key] for key in {id(weight) for weight in self.graph.model.weights})

    def gone(self) -> Gone:
        """The classes of channels all of whose weights are zero now."""
        ranks = SCORES["norm"](self.graph, values_of)
        found = np.zeros(self.graph.count, bool)
        for group in self.groups:
            found[group.channels] = ranks[group.channels] == 0
        return found

    def flops(self, gone: Gone) -> int:
        """Multiply-adds for one sample, without these channels.

        Raises:
            ValueError: if the model's input sizes are open.
        """
        if self._uses is None:
            self._uses = uses_of_weights(self.graph.model)
        if self._uses is None:
            raise invalid_argument(
                "flops",
                "None for a model whose multiply-adds are not known",
                [tuple(tensor.shape) for tensor in self.graph.model.inputs],
                "Give `fraction`, or build the model with a fixed input size",
            )
        sizes = self.graph.parameters(gone)
        return sum(uses * sizes[key] for key, uses in self._uses.items())

    def zero(self, gone: Gone) -> None:
        """Sets all that makes these channels to zero: filters, biases, γ and β."""
        values = zeroed(self.graph, gone)
        for variable in {id(s.variable): s.variable for s in self.graph.slots}.values():
            new = values(variable)
            if not np.array_equal(new, values_of(variable)):
                variable.assign(new)

    def missing(self, gone: Gone) -> int:
        """How many weights of these channels are not zero."""
        values = zeroed(self.graph, gone)
        kernels = {id(s.variable): s.variable for s in self.graph.slots if s.role == "makes"}
        return sum(
            int(np.count_nonzero(values_of(kernel)) - np.count_nonzero(values(kernel)))
            for kernel in kernels.values()
        )


def _alike(made: NDArray[np.bool_], channels: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """The channels parted by the layers that make them, in their order."""
    _, part = np.unique(made[:, channels], axis=1, return_inverse=True)
    part = part.ravel()
    return [channels[part == place] for place in range(part.max() + 1)]


def zeroed(graph: Graph, gone: Gone) -> Weights:
    """What variables hold once all that makes these channels is zero."""
    slots: dict[int, list[Any]] = {}
    for slot in graph.slots:
        if slot.role != "reads":
            slots.setdefault(id(slot.variable), []).append(slot)

    def value(variable: keras.Variable) -> NDArray[Any]:
        found = values_of(variable)
        for slot in slots.get(id(variable), ()):
            dead = gone[graph.classes[slot.ids]]
            if dead.any():
                found = np.array(found)
                np.moveaxis(found, slot.axis, 0)[dead] = 0
        return found

    return value


def pinned(graph: Graph, live: set[int]) -> list[tuple[keras.Variable, NDArray[np.bool_]]]:
    """Biases, γ and β of channels that are pruned, with True where they are zero and stay so.

    A channel is pruned if all that makes it is zero, and it is zero itself.
    """
    dead = np.ones(graph.count, bool)
    dead[0] = False
    for slot in graph.slots:
        if slot.role == "makes":
            values = np.moveaxis(values_of(slot.variable), slot.axis, 0)
            there = (values != 0).reshape(len(values), -1).any(1) | (id(slot.variable) not in live)
            dead[graph.classes[slot.ids][there]] = False
    return [
        (slot.variable, dead[graph.classes[slot.ids]] & (values_of(slot.variable) == 0))
        for slot in graph.slots
        if slot.role == "shifts"
    ]
