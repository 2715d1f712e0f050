"""A model of tf_keras as it will compute in int8: tfmot's quantization-aware form of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import tensorflow as tf

from keras_l0.errors import invalid_argument
from keras_l0.export.convert import signature
from keras_l0.export.samples import Arrays, ModelInputs
from keras_l0.text import first_line
from keras_l0.tfmot.legacy import legacy_keras, toolkit

_keras_2 = legacy_keras()
_quantization = toolkit().quantization.keras

_FUSED = {"linear", "relu", "swish", "gelu", "softmax", "sigmoid", "tanh"}
"""Activations of layers that compute something else too, as far as tfmot rounds their results."""

_COUNTING = {"Embedding", "CategoryEncoding", "Discretization"}
"""Layers that take whole numbers, also as floats."""

_ACTIVATIONS = {*_FUSED, "relu6"}
"""Those that it rounds where they are layers."""


class _Rounded(_quantization.QuantizeConfig):  # type: ignore[name-defined]
    """Of a layer that computes in float32, the result is rounded."""

    def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
        return []

    def set_quantize_weights(self, layer: Any, quantize_weights: Any) -> None:
        pass

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
        return []

    def set_quantize_activations(self, layer: Any, quantize_activations: Any) -> None:
        pass

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        average = _quantization.quantizers.MovingAverageQuantizer
        return [average(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)]

    def get_config(self) -> dict[str, Any]:
        return {}


def rounding(flat: Any) -> tuple[Any, dict[str, str]]:
    """The quantization-aware form of a model, its outputs' names the same.

    Args:
        flat: of tf_keras, functional, without models inside.

    Returns:
        The model, its weights those of the given one; and the layers whose weights it does not
        round, with the reason.

    Raises:
        ValueError: if tfmot does not take the model; its reason.
    """
    scheme = _quantization.default_8bit.Default8BitQuantizeScheme()
    registry = scheme.get_quantize_registry()
    reasons = {layer.name: _stays(layer, registry) for layer in flat.layers}
    left = {name: reason for name, reason in reasons.items() if reason}
    trains = {layer.name: layer.trainable for layer in flat.layers}
    known = registry.supports
    # It would ask the layers that stay for ranges which they cannot tell.
    registry.supports = lambda layer: layer.name not in left and known(layer)
    scheme.get_quantize_registry = lambda: registry

    def annotated(layer: Any) -> Any:
        if layer.name not in left:
            return _quantization.quantize_annotate_layer(layer)
        if _has_one_result(layer):
            return _quantization.quantize_annotate_layer(layer, _Rounded())
        return layer

    layout = scheme.get_layout_transformer()
    exact = {one.name for one in flat.layers if _is_exact(one)}
    apply = layout.apply
    layout.apply = lambda model, configs: apply(
        model, {name: config for name, config in configs.items() if name not in exact}
    )
    scheme.get_layout_transformer = lambda: layout
    try:
        with _inputs_in_order(), _quantization.quantize_scope({"_Rounded": _Rounded}):
            found = _quantization.quantize_apply(
                _keras_2.models.clone_model(flat, clone_function=annotated),
                scheme,
                quantized_layer_name_prefix="",
            )
    except Exception as error:  # of many kinds
        raise invalid_argument(
            "model",
            "a model that tfmot's quantization takes",
            flat.name,
            f"{type(error).__name__}: {first_line(error)}",
        ) from error
    for layer in found.layers:
        if hasattr(layer, "layer") and not trains[layer.layer.name]:
            layer.trainable = False
            layer._non_trainable_weights += layer._trainable_weights  # which it trains even so
            layer._trainable_weights = []
    return found, {name: reason for name, reason in left.items() if flat.get_layer(name).weights}


@contextmanager
def _inputs_in_order() -> Iterator[None]:
    """Connects a Concatenate as it was: tfmot takes its inputs as their layers were made."""
    transformer = import_module(
        "tensorflow_model_optimization.python.core.quantization.keras.graph_transformations"
        ".model_transformer"
    ).ModelTransformer
    as_it_is = transformer._get_layers

    def in_order(self: Any, names: Sequence[str]) -> list[Any]:
        by_name = {one["config"]["name"]: one for one in as_it_is(self, names)}
        return [by_name[name] for name in dict.fromkeys(names)]

    transformer._get_layers = in_order
    try:
        yield
    finally:
        transformer._get_layers = as_it_is


def _stays(layer: Any, registry: Any) -> str:
    """Why a layer computes in float32; empty for those that are quantized."""
    kind = type(layer).__name__
    if isinstance(layer, _keras_2.layers.InputLayer):
        return ""
    if kind == "BatchNormalization":
        return "" if _folds(layer) else f"{kind} that follows no linear Conv2D or Dense alone"
    if not registry.supports(layer):
        return f"tfmot quantizes no {kind}"
    if not all(map(_is_plain, _tensors(layer))):
        return f"{kind} behind a mask or not of float32"
    activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
    if activation not in (_ACTIVATIONS if kind == "Activation" else _FUSED):
        return f"tfmot quantizes no {kind} with {activation}"
    return ""


def _folds(layer: Any) -> bool:
    """Whether a normalization becomes part of the layer before.

    tfmot drops that layer's activation where there is one.
    """
    before = layer.inbound_nodes[0].inbound_layers
    return (
        type(before).__name__ in ("Conv2D", "DepthwiseConv2D", "Dense")
        and before.activation.__name__ == "linear"
        and len(before.outbound_nodes) == len(layer.inbound_nodes) == 1
    )


def _tensors(layer: Any) -> list[Any]:
    """What a layer takes and gives, at all of its calls."""
    return tf.nest.flatten(_calls(layer))


def _is_plain(tensor: Any) -> bool:
    return tensor.dtype == tf.float32 and getattr(tensor, "_keras_mask", None) is None


def _has_one_result(layer: Any) -> bool:
    """Whether tfmot's wrapper can call it: with one argument, for one tensor, without a mask."""
    return all(
        len(call.call_args) == 1 and not call.call_kwargs and tf.is_tensor(call.outputs)
        for call in layer.inbound_nodes
    ) and all(_is_plain(one) or one.dtype.is_integer for one in _tensors(layer))


def _is_exact(layer: Any) -> bool:
    """Whether a layer is an input of whole numbers, which rounding would change."""
    if not isinstance(layer, _keras_2.layers.InputLayer):
        return False
    readers = {type(call.outbound_layer).__name__ for call in layer.outbound_nodes}
    return not layer.output.dtype.is_floating or bool(readers & _COUNTING)


def begin_ranges(form: Any, flat: Any, inputs: ModelInputs, batches: list[Arrays]) -> None:
    """Gives inputs and activations the ranges that they have at first.

    tfmot's begin at nothing and at ±6, and move by a thousandth a batch.
    """
    ranges = []
    for layer in form.layers:
        of_input = type(layer).__name__ == "QuantizeLayer"
        inner = layer.inbound_nodes[0].inbound_layers if of_input else layer
        parts = {w.name.rpartition("/")[2].removesuffix(":0"): w for w in layer.weights}
        for name in (layer.name, "output", "post_activation", "pre_activation"):
            if f"{name}_min" in parts:
                bounds = parts[f"{name}_min"], parts[f"{name}_max"]
                ranges.append((flat.get_layer(getattr(inner, "layer", inner).name), name, *bounds))
    probe = _keras_2.Model(flat.inputs, [_calls(layer) for layer, *_ in ranges])
    linear = _keras_2.activations.linear

    def before(layer: Any, given: Any) -> Any:
        """What a layer gives to its activation."""
        activation, layer.activation = layer.activation, linear
        result = layer(given)
        layer.activation = activation
        return result

    def extremes(*tensors: Any) -> Any:
        found = []
        calls = probe(inputs.pack(list(tensors)), training=False)
        for (layer, name, _, _), of in zip(ranges, calls, strict=True):
            inner = name == "pre_activation"
            results = [before(layer, given) if inner else made for given, made in of]
            found.append((tf.reduce_min(results), tf.reduce_max(results)))
        return found

    traced = tf.function(extremes, input_signature=signature(inputs), autograph=False)
    found = np.array([[[*map(float, one)] for one in traced(*batch)] for batch in batches])
    for place, (_, _, least, largest) in enumerate(ranges):
        bounds = min(found[:, place, 0].min(), 0.0), max(found[:, place, 1].max(), 0.0)
        if bounds != (0.0, 0.0):  # a range of nothing would cut off all that is learned
            least.assign(bounds[0])
            largest.assign(bounds[1])


def _calls(layer: Any) -> list[tuple[Any, Any]]:
    """What a layer takes and what it gives, at each of its calls."""
    if isinstance(layer, _keras_2.layers.InputLayer):
        return [(layer.output, layer.output)]
    return [(call.input_tensors, call.outputs) for call in layer.inbound_nodes]
