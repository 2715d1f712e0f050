"""Weights in clusters, zeros kept: tfmot's sparsity-preserving clustering for Keras 3."""

import warnings
from importlib import import_module
from typing import Any

import keras
import numpy as np

from keras_l0.errors import whole_at_least
from keras_l0.export.convert import computing_in_float32
from keras_l0.pruning.targets import Weight, find_targets
from keras_l0.text import by_reason
from keras_l0.tfmot.legacy import legacy_keras, toolkit, undisturbed
from keras_l0.tfmot.rebuild import from_tf_keras, to_tf_keras
from keras_l0.tfmot.training import Schedule, Training


def cluster(
    model: keras.Model,
    clusters: int,
    data: Any = None,
    *,
    epochs: int = 1,
    learning_rate: float = 1e-4,
) -> keras.Model:
    """The model with at most ``clusters`` values in each kernel, its zeros still zero.

    One value is zero; the others are chosen among the weights by k-means++, and each weight
    takes the nearest. With data they are trained, the sum of its weights' gradients moving each;
    a weight may change to a value that has come nearer. Fewer values make a smaller file once
    it is compressed.

    tfmot clusters no kernels of depthwise convolutions, of 16 bits, and of layers it does not know:
    these stay as they are, and are named.

    Args:
        model: a built model of Keras 3 that ``to_tf_keras`` takes; with ``data``, compiled.
        clusters: values a kernel, >= 3.
        data: what ``fit`` takes: a tuple ``(x, y)`` or ``(x, y, sample_weight)`` of arrays, or a
            data set of batches. ``None``: the values are not trained.
        epochs: passes over the data, >= 1.
        learning_rate: Adam's, >= 0.

    Returns:
        A model of Keras 3, not compiled. The given model is unchanged.

    Raises:
        ImportError: if tfmot is not installed; the command that installs it.
        ValueError: if an argument is out of its range, the model has no counterpart in tf_keras
            or does not take the data.
        RuntimeError: if weights are NaN or infinite in the end.

    Source: the clustering is that of tensorflow-model-optimization.
    """
    number = whole_at_least("clusters", clusters, 3)
    how = Schedule(epochs, learning_rate)
    training = None if data is None else Training(model, data, how)
    with computing_in_float32(model):  # tfmot's wrappers mix no precisions
        old = to_tf_keras(model)
    note_dense(model)
    found = copied(model)
    with undisturbed():
        _cluster(old, number, training)
        for one, other in zip(found.weights, from_tf_keras(old).weights, strict=True):
            one.assign(other)
    if not all(np.isfinite(keras.ops.convert_to_numpy(one)).all() for one in found.weights):
        raise RuntimeError(
            "Weights of the clustered model are NaN or infinite: see that those of `model` and "
            "`data` are not, or take a smaller `learning_rate`."
        )
    left = {}
    for weight, new in zip(prunable(model), prunable(found), strict=True):
        values = np.where(weight.values() == 0, np.zeros((), weight.dtype), new.values())
        new.variable.assign(values)
        if weight.variable.name.endswith("kernel") and len(np.unique(values)) > number:
            left[weight.name] = f"tfmot clusters no {weight.variable.name} of {_where(weight)}"
    if left:
        warnings.warn(f"Not clustered: {'; '.join(by_reason(left))}.", stacklevel=2)
    return found


def prunable(model: keras.Model) -> list[Weight]:
    """The weights whose zeros are kept: all that pruning may reach, kernels and embeddings."""
    return find_targets(model, "*").weights if model.weights else []


def copied(model: keras.Model) -> keras.Model:
    """The model anew; not by ``clone_model``: it makes two layers of one that two models share."""
    return from_tf_keras(to_tf_keras(model))


def note_dense(model: keras.Model) -> None:
    """Warns where there are no zeros to keep."""
    if not any((one.values() == 0).any() for one in prunable(model)):
        warnings.warn(
            f"{model.name} has no zeros that could be kept: prune it first.", stacklevel=3
        )


def _cluster(old: Any, clusters: int, training: Training | None) -> None:
    """Clusters a model of tf_keras in place, its layers for that time in tfmot's wrappers.

    Not by tfmot's own ``strip_clustering``: it makes two layers of one that two models share.
    """
    keras_2, tfmot = legacy_keras(), toolkit()
    inner = "tensorflow_model_optimization.python.core.clustering.keras"
    registry = import_module(f"{inner}.clustering_registry").ClusteringRegistry
    cluster_weights = import_module(f"{inner}.experimental.cluster").cluster_weights

    made: dict[int, Any] = {}
    lists = [(one, [*one._trainable_weights]) for one in old._flatten_layers()]

    def wrap(layer: Any) -> Any:
        if id(layer) not in made:  # a layer of several models is one in all
            made[id(layer)] = anew(layer)
        return made[id(layer)]

    def anew(layer: Any) -> Any:
        if isinstance(layer, keras_2.Model):
            return keras_2.models.clone_model(layer, clone_function=wrap)
        if not registry.supports(layer):
            return layer
        kernels = [w.numpy() for w in layer.weights if w.name.rpartition("kernel")[2] == ":0"]
        if not any(w.dtype == np.float32 and len(np.unique(w)) > clusters for w in kernels):
            return layer
        start = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
        return cluster_weights(layer, clusters, start, preserve_sparsity=True)

    wrapped = wrap(old)
    if training:
        training.run(wrapped)
    for wrapper in (one for one in made.values() if hasattr(one, "original_clusterable_weights")):
        wrapper.update_clustered_weights_associations()
        for name, weight in wrapper.original_clusterable_weights.items():
            weight.assign(wrapper.get_weight_from_layer(name))
            wrapper.set_weight_to_layer(name, weight)
    for layer, weights in lists:  # whose order that changed
        layer._trainable_weights = weights


def _where(weight: Weight) -> str:
    """What a kernel is in that was not clustered."""
    kinds = [type(layer).__name__ for layer in weight.lineage if not isinstance(layer, keras.Model)]
    frozen = "a frozen " if weight.frozen else ""
    return f"{frozen}{' in '.join(reversed(kinds))} ({weight.variable.dtype})"
