"""Classes and functions of the user's own in a saved model, for a process that is to load it."""

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import keras

from keras_l0.errors import invalid_argument

Places = dict[str, tuple[str, str]]
"""By the name in the saved model the module and the name in it."""


def places_of(path: Path, model: str) -> Places:
    """Where another process can import the user's own classes and functions of a saved model.

    Args:
        path: a file with the suffix ``.keras``.
        model: the model's name, for the error.

    Raises:
        ValueError: if another process cannot import one of them.
    """
    with ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    config.pop("compile_config", None)  # not loaded
    places = {}
    for name, found, layer in _own(config, model):
        module, inner = getattr(found, "__module__", None), getattr(found, "__qualname__", "")
        if not _can_be_imported(found, module, inner):
            shown = name.rpartition(">")[2]  # behind the package's
            raise invalid_argument(
                "model",
                "a model that TensorFlow can load in a process of its own, which converts it",
                f"{model}, where {layer} uses {shown}",
                f"{shown} cannot be imported there: define it at the top level of a module other "
                "than the script that runs, with @keras.saving.register_keras_serializable(); or "
                "save the model and export it on the TensorFlow backend, "
                "KERAS_BACKEND=tensorflow",
            )
        places[name] = (str(module), inner)
    return places


def imported(places: Places) -> dict[str, Any]:
    """The classes and functions, as ``custom_objects`` for loading."""
    return {
        name: attrgetter(inner)(import_module(module)) for name, (module, inner) in places.items()
    }


def _can_be_imported(found: Any, module: str | None, inner: str) -> bool:
    if module in (None, "__main__") or "<" in inner or module not in sys.modules:
        return False
    try:
        return find_spec(module) is not None and attrgetter(inner)(sys.modules[module]) is found
    except (AttributeError, ImportError, ValueError):
        return False


def _own(config: Any, layer: str) -> Iterator[tuple[str, Any, str]]:
    """What is not Keras': the name, the class or function if it is known, and the layer."""
    if isinstance(config, list):
        for each in config:
            yield from _own(each, layer)
    if not isinstance(config, dict):
        return
    inner = config.get("config")
    if isinstance(inner, dict) and isinstance(inner.get("name"), str):
        layer = inner["name"]
    kind, module = config.get("class_name"), config.get("module")
    if kind == "__lambda__":
        yield "a lambda", None, layer
        return
    if kind == "function":
        found = _registered(config)
        if not getattr(found, "__module__", "").startswith("keras."):
            yield str(inner), found, layer
    elif "registered_name" in config and str(module).partition(".")[0] not in ("keras", "builtins"):
        name = str(config["registered_name"] or kind)
        own = keras.saving.get_registered_object(name)
        yield name, own or getattr(sys.modules.get(str(module)), str(kind), None), layer
    for name, each in config.items():
        if name.endswith("activation") and isinstance(each, dict) and set(each) == {"value"}:
            yield "a lambda", None, layer
        else:
            yield from _own(each, layer)


def _registered(function: dict[str, Any]) -> Any:
    try:
        return keras.saving.deserialize_keras_object(function)
    except (TypeError, ValueError):
        return None
