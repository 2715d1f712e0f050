"""Networks that pruning has left without a function: found, and said at once."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.trainers import data_adapters  # the only reader of all forms of data
from keras.src.trainers.data_adapters.generator_data_adapter import GeneratorDataAdapter

from keras_l0.models import layer_path
from keras_l0.pruning.targets import Targets
from keras_l0.structure.dead import Facts
from keras_l0.structure.graph import Graph, has_graph, values_of
from keras_l0.text import listed

# The outputs' standard deviation over samples that counts as none: beside that before pruning, and
# beside the largest output where it was not measured before.
_OF_BEFORE = 0.05
_OF_LARGEST = 1e-3

_ADVICE = (
    'Prune less or more slowly, keep this layer dense by `layers`, or choose score="lamp" or '
    "LayerwisePrune, which leave weights in every layer."
)


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
    if not has_graph(model):
        empty = [weight.path for weight in targets.weights if weight.size and not _any(weight)]
        return [f"all weights of {listed(empty)} are zero"] if empty else []
    facts = Facts(graph or Graph(model), values_of)
    dead: dict[str, list[int]] = {}
    for place, value in enumerate(facts.graph.outputs):
        if not facts.is_live(value):
            layer = layer_path(facts.first_constant[id(value)].op)
            dead.setdefault(layer, []).append(place)
    return [
        f"output {listed(map(str, places))} of the model is the same for any input, since what "
        f"layer {layer} gives is constant"
        for layer, places in dead.items()
    ]


def warn_of_dead(who: str, found: Sequence[str], stacklevel: int = 3) -> None:
    """Warns of what ``find_dead`` or ``Variation.lost`` has found, if it has found anything."""
    if found:
        text = f"{who}: the pruned network is dead: {listed(found, 2)}. {_ADVICE}"
        warnings.warn(text, DeadNetworkWarning, stacklevel=stacklevel)


class Variation:
    """How much a model's outputs vary between samples, before pruning and after.

    For each output, the largest standard deviation over the samples, of all its entries.

    Args:
        batch: inputs of the model, as it takes them, more than one sample.
    """

    def __init__(self, batch: Any) -> None:
        self._batch = keras.tree.map_structure(ops.convert_to_tensor, batch)
        self._before: list[float] | None = None

    def note(self, model: keras.Model) -> None:
        """Notes how much they vary now, before pruning."""
        self._before = [spread for spread, _ in self._measure(model)]

    def lost(self, model: keras.Model) -> list[str]:
        """A sentence for each output that hardly varies any more, without a full stop."""
        found = []
        for place, (spread, largest) in enumerate(self._measure(model)):
            if self._before is None:
                if spread < _OF_LARGEST * largest or not largest:
                    found.append(
                        f"output {place} varies between samples by {spread:.2g}, its largest "
                        f"value being {largest:.2g}"
                    )
            elif spread < _OF_BEFORE * self._before[place]:
                found.append(
                    f"output {place} varies between samples by {spread:.2g}, before pruning by "
                    f"{self._before[place]:.2g}"
                )
        return found

    def _measure(self, model: keras.Model) -> list[tuple[float, float]]:
        outputs = keras.tree.flatten(model(self._batch, training=False))
        arrays = [ops.convert_to_numpy(ops.cast(y, "float32")) for y in outputs]
        with np.errstate(all="ignore"):  # what is not finite varies as NaN, and that is not little
            return [
                (float(y.std(axis=0).max(initial=0.0)), float(np.abs(y).max(initial=0.0)))
                for y in arrays
            ]


def variation(model: keras.Model, data: dict[str, Any]) -> Variation | None:
    """How much the outputs vary between the samples of the first batch of data.

    Args:
        model: a built model.
        data: ``x`` and what goes with it, as ``keras_l0.data.unpack`` gives them.

    Returns:
        Nothing noted yet; ``None`` where ``validation_inputs`` would be.
    """
    if _has_own_test(model):
        return None
    inputs = _inputs_of(data_adapters.get_data_adapter(batch_size=32, **data))
    return None if inputs is None else Variation(inputs)


def validation_inputs(model: keras.Model) -> Any:
    """The inputs of the first batch that the running ``fit`` validates on.

    Returns:
        A structure of arrays; ``None`` where there are no validation data, the model has a
        ``test_step`` of its own, which may take other inputs, or reading would use them up.
    """
    iterator = getattr(model, "_eval_epoch_iterator", None)
    if iterator is None or _has_own_test(model):
        return None
    return _inputs_of(iterator.data_adapter)


def _has_own_test(model: keras.Model) -> bool:
    return getattr(model.test_step, "__func__", None) is not keras.Model.test_step


def _inputs_of(adapter: Any) -> Any:
    if isinstance(adapter, GeneratorDataAdapter):
        return None
    batch = next(iter(adapter.get_numpy_iterator()), None)
    if batch is None:
        return None
    x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
    arrays = [np.asarray(array) for array in keras.tree.flatten(x)]
    numeric = all(array.dtype.kind not in "OSU" for array in arrays)
    return x if numeric and len(arrays[0]) > 1 else None


def _any(weight: Any) -> bool:
    return any(np.count_nonzero(part) for _, part in weight.parts())
