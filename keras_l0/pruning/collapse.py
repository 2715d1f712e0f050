"""Networks that pruning has left without a function: found, and said at once."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_l0.models import layer_path
from keras_l0.pruning import scores
from keras_l0.pruning.measure import penalty
from keras_l0.pruning.targets import Targets
from keras_l0.pruning.variation import Variation, of_validation
from keras_l0.structure.channels import Call
from keras_l0.structure.dead import Facts
from keras_l0.structure.graph import Graph, has_graph, values_of
from keras_l0.text import listed


class DeadNetworkWarning(UserWarning):
    """Pruning has left outputs that depend on no input, or hardly vary, or an empty kernel.

    Example:

    >>> import warnings
    >>> from keras_l0 import DeadNetworkWarning
    >>> warnings.simplefilter("error", DeadNetworkWarning)  # ends a long run at once
    """


def find_dead(model: keras.Model, targets: Targets, graph: Graph | None = None) -> list[str]:
    """What pruning has left without a function.

    In a model with a graph, each output that no input reaches any more: on every path there is a
    layer whose weights that depend on the inputs are all zero. In a subclassed model, each kernel
    of zeros alone.

    Args:
        model: a built model.
        targets: its weights that were pruned.
        graph: that of the model, if it is at hand.

    Returns:
        A sentence for each, without a full stop; none if the network is alive.
    """
    empty = {id(weight.variable) for weight in targets.weights if weight.size and not _any(weight)}
    if not has_graph(model):
        paths = [weight.path for weight in targets.weights if id(weight.variable) in empty]
        return [f"all weights of {listed(paths)} are zero"] if paths else []
    graph = graph or Graph(model)
    kernels = {
        id(weight.variable)
        for weight in targets.weights
        if weight.variable.name != "recurrent_kernel"
    }

    def is_empty(call: Call) -> bool:
        """Whether all kernels of a layer are zero, whatever it computes."""
        own = {id(variable) for variable in getattr(call.op, "variables", ())} & kernels
        return bool(own) and own <= empty

    exact = _constant(graph, Facts(graph, values_of))
    found = [
        f"{_outputs(places)} the same for any input, since what layer {layer} gives is constant"
        for layer, places in exact.items()
    ]
    assumed = _constant(graph, Facts(graph, values_of, is_empty)) if empty else {}
    said = {place for places in exact.values() for place in places}
    for layer, places in assumed.items():
        if left := [place for place in places if place not in said]:
            found.append(
                f"{_outputs(left)} computed from layer {layer} on every path, all kernels of "
                "which are zero"
            )
    return found


def _constant(graph: Graph, facts: Facts) -> dict[str, list[int]]:
    """The outputs that depend on no input, by the layer that gives a constant."""
    found: dict[str, list[int]] = {}
    for place, value in enumerate(graph.outputs):
        if not facts.is_live(value):
            layer = layer_path(facts.first_constant[id(value)].op)
            found.setdefault(layer, []).append(place)
    return found


def _outputs(places: Sequence[int]) -> str:
    named = listed(map(str, places))
    return f"outputs {named} are" if len(places) > 1 else f"output {named} is"


def _any(weight: Any) -> bool:
    return any(np.count_nonzero(part) for _, part in weight.parts())


def warn_of_dead(who: str, found: Sequence[str], remedy: str = "", stacklevel: int = 3) -> None:
    """Warns of what ``find_dead`` or ``Variation.lost`` has found, if it has found anything.

    Args:
        who: what pruned, or looked.
        found: the sentences.
        remedy: what helps, besides, with what was chosen.
        stacklevel: as in ``warnings.warn``.
    """
    if found:
        advice = f"Prune less or more slowly, or keep such layers dense by `layers`{remedy}."
        text = f"{who}: pruning went too far: {listed(found, 2)}. {advice}"
        warnings.warn(text, DeadNetworkWarning, stacklevel=stacklevel)


def remedy_for(score: scores.Ranking | None) -> str:
    """What helps where all weights are ranked together by this score."""
    return "" if score == "lamp" else '; score="lamp" leaves a weight or more in each kernel'


class DeadCheck:
    """Looks after each pruning of one ``fit`` whether the network is dead, and warns once.

    ``IterativePrune`` looks at no outputs: the metric that it bounds says whether they are good.

    Args:
        who: the callback's name.
        remedy: what helps, as in ``warn_of_dead``.
    """

    def __init__(self, who: str, remedy: str = "") -> None:
        self._who, self._remedy = who, remedy
        self._said = self._begun = self._due = False
        self._variation: Variation | None = None

    def pruned(self, model: keras.Model, targets: Targets, graph: Graph | None) -> None:
        """Looks at the weights, just after a pruning."""
        self._begun = self._due = True
        if not self._said:
            self._say(find_dead(model, targets, graph))

    def validated(self, model: keras.Model, logs: Mapping[str, Any] | None) -> None:
        """Looks at the outputs, at the end of an epoch, if that has validated the model.

        Args:
            model: the model.
            logs: the epoch's.
        """
        loss = (logs or {}).get("val_loss")
        if self._said or loss is None or (self._begun and not self._due):
            return
        if self._variation is None:
            self._variation = of_validation(model)
        if self._variation is None:
            return
        loss = float(loss) - penalty(model)
        if self._due:
            self._due = False
            self._say(self._variation.lost(model, loss))
        else:
            self._variation.note(model, loss)

    def _say(self, found: list[str]) -> None:
        self._said = bool(found)
        warn_of_dead(self._who, found, self._remedy, stacklevel=5)
