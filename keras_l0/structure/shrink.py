"""Takes the dead channels out of a network."""

import warnings
from collections.abc import Mapping

import keras
import numpy as np
from numpy.typing import NDArray

from keras_l0.models import check_built, check_finite, compile_like, same_place
from keras_l0.structure.dead import Cut, find_cut
from keras_l0.structure.graph import Graph, values_of
from keras_l0.structure.rebuild import Rebuilder


def shrink(model: keras.Model) -> keras.Model:
    """A new model without the dead channels: smaller, with the same outputs for any input.

    A channel (a neuron, a filter) is dead if nothing that flows into it depends on the input, so
    that it is a constant, or if nothing reads it. A constant v of input channel i is folded into
    the biases of the layers that read it::

        b_o ← b_o + v · Σ w[…, i, o]

    where that is exact: in a convolution that pads, v must be 0. Where a layer has no bias, the
    moving mean of the batch normalization behind it takes the constant instead, or it is given
    a bias. A branch that is constant beside a skip is folded away whole. All this goes on until
    nothing is dead any more.

    The model's inputs and outputs stay as they are; so do weights, names, regularizers, dtype
    policies and the compile configuration. The optimizer starts anew. A layer of unknown kind
    keeps its channels; without a ``get_config`` it is shared with ``model``, which a warning says.

    Args:
        model: a built Sequential or Functional model. It is left as it is.

    Returns:
        The new model.

    Raises:
        ValueError: if the model is not built, has no graph (a subclassed one), has weights that
            are not finite, has layers that share a weight (tied ones), or has an output that
            depends on no input any more.

    Example:

    >>> from keras_l0 import prune, shrink
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6, "relu"),
    ...                           keras.layers.Dense(2)])
    >>> _ = prune(model, method="neuron", fraction=0.5)
    >>> [layer.units for layer in shrink(model).layers]
    [3, 2]

    Source: ours; the graph and its groups after Fang et al., "DepGraph: Towards Any Structural
    Pruning" (2023).
    """
    check_built(model)
    check_finite(model)
    with same_place(model):
        cut = last_cut(model)
        small = rebuilt(cut) if cut.graph.model is model else cut.graph.model
    if model.compiled:
        _compile(model, small)
    return small


def last_cut(model: keras.Model) -> Cut:
    """What can be taken out of the model's smallest form: nothing; ``graph.model`` is that form.

    It is ``model`` itself if nothing in it is dead.
    """
    cut = find_cut(Graph(model), values_of)
    # What layers that are gone tied together, or groups of a convolution, may go then too.
    while cut.removes_anything():
        before = cut
        cut = find_cut(Graph(rebuilt(before)), values_of)
        if _size(cut.graph) >= _size(before.graph):  # that it ends does not rest on the rules
            break
    return cut


def _size(graph: Graph) -> tuple[int, int]:
    return graph.model.count_params(), len(graph.calls)


def rebuilt(cut: Cut, gathered: Mapping[int, NDArray[np.intp]] | None = None) -> keras.Model:
    """The model without what is cut out, not compiled."""
    return Rebuilder(cut, dict(gathered or {})).model()


def _compile(old: keras.Model, new: keras.Model) -> None:
    try:
        compile_like(old, new)
    except (AttributeError, TypeError, ValueError) as error:
        warnings.warn(
            f"The model is shrunk, but not compiled: {error} Call compile() on it.", stacklevel=3
        )
