"""What TFLite cannot express, told of a model before any work is done."""

from collections.abc import Iterator

import keras

from keras_l0.errors import invalid_argument
from keras_l0.structure.graph import functional, has_graph, nodes_of
from keras_l0.text import listed


def check_expressible(model: keras.Model) -> None:
    """Raises a ``ValueError`` if a file cannot express the model.

    That is, if it takes or gives text, keeps a state between calls, or is made for another backend.
    """
    _check_text(model)
    _check_wrappers(model)
    _check_stateful(model)


def _check_text(model: keras.Model) -> None:
    texts = [one.name for one in getattr(model, "inputs", None) or [] if one.dtype == "string"]
    layers = _layers_for_text(model)
    if not texts and not layers:
        return
    parts = [f"text input {listed(texts)}"] if texts else []
    parts += [f"layer for text {listed(layers)}"] if layers else []
    behind = list(_behind_text(model)) if texts else []
    advice = (
        f"Export the part behind the text, keras.Model({_as_written(behind)}, model.outputs), "
        "and compute its inputs with the layers in front"
        if behind
        else "Build a model of the layers that take and give numbers, and export that one"
    )
    raise invalid_argument(
        "model",
        "a model of numbers, since a TFLite file takes and gives numbers only",
        f"{model.name}, with the {' and the '.join(parts)}",
        advice,
    )


def _layers_for_text(model: keras.Model) -> list[str]:
    layers = model._flatten_layers()
    found = [
        layer
        for layer in layers
        if isinstance(layer, keras.layers.TextVectorization | keras.layers.StringLookup)
    ]
    inner = {id(one) for layer in found for one in layer._flatten_layers(include_self=False)}
    return [f"{one.name} ({type(one).__name__})" for one in found if id(one) not in inner]


def _behind_text(model: keras.Model) -> Iterator[str]:
    """The tensors of numbers that a part of the model without text starts from, as code.

    None if they cannot be written as the outputs of layers, for example inside a nested model.
    """
    if not has_graph(model):
        return
    graph = functional(model)
    found = []
    for node in nodes_of(graph):
        reads = any(tensor.dtype == "string" for tensor in node.arguments.keras_tensors)
        if reads and all(tensor.dtype != "string" for tensor in node.outputs):
            op = node.operation
            if not isinstance(op, keras.Layer) or has_graph(op) or len(op._inbound_nodes) != 1:
                return
            found.append(f'model.get_layer("{op.name}").output')
    numbers = [place for place, one in enumerate(graph.inputs) if one.dtype != "string"]
    yield from found
    yield from (f"model.inputs[{place}]" for place in numbers if found)


def _as_written(tensors: list[str]) -> str:
    return tensors[0] if len(tensors) == 1 else f"[{', '.join(tensors)}]"


def _check_stateful(model: keras.Model) -> None:
    names = [
        layer.name
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.RNN) and layer.stateful
    ]
    if names:
        raise invalid_argument(
            "model",
            "a model without a state, since a TFLite file starts from the same values at each call",
            f"{model.name}, whose layers {listed(names)} have stateful=True",
            "Build the model once more with stateful=False, give it the weights of this one by "
            "set_weights(model.get_weights()), and call the file on whole sequences",
        )


def _check_wrappers(model: keras.Model) -> None:
    """TensorFlow converts; what is inside a wrapper it computes on its own backend only."""
    if keras.config.backend() == "tensorflow":
        return
    remedies = {
        keras.layers.TorchModuleWrapper: "Build that part of the model of Keras layers",
        keras.layers.JaxLayer: "Build the model on the TensorFlow backend, KERAS_BACKEND="
        "tensorflow, which computes JaxLayer too, and export it there",
    }
    for layer in model._flatten_layers():
        for kind, remedy in remedies.items():
            if isinstance(layer, kind):
                raise invalid_argument(
                    "model",
                    "a model that TensorFlow computes, since it converts the model",
                    f"{model.name}, with the layer {layer.name} ({type(layer).__name__})",
                    remedy,
                )
