"""A layer's counterpart in the other Keras: its class, its configuration, its weights."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import keras
import numpy as np

from keras_l0.errors import invalid_argument
from keras_l0.regularizers import L2L0
from keras_l0.tfmot import activations, regularizer
from keras_l0.tfmot.legacy import legacy_keras

_NOT_ARGUMENTS = {
    "batch_input_shape",
    "query_shape",
    "key_shape",
    "value_shape",
    "implementation",
    "input_length",
    "vocabulary_size",
    "rng_type",
}
"""What configurations have that changes no output."""

_RECURRENT = {"time_major": False, "zero_output_for_mask": False}
"""What tf_keras' recurrent layers take though their signatures do not tell."""

_OTHER_NAMES = {"LeakyReLU": {"alpha": "negative_slope"}}
"""Arguments that Keras 3 named anew, by tf_keras' names."""

_NAMES = {"silu": "swish"}
"""Activations that tf_keras has by another name; Keras 3 knows both."""

_DIFFERENT = {"hard_sigmoid": activations.hard_sigmoid.__doc__}
"""Activations of one name and two formulas."""


@dataclass(frozen=True)
class Side:
    """One of the two, as where layers come from or where they go to."""

    keras: ModuleType | Any
    name: str

    def find(self, class_name: str) -> type | None:
        """The class of a name, of those that layers and their configurations are made of."""
        if class_name == "L2L0":
            return L2L0 if self is NEW else regularizer.L2L0
        for part in ("layers", "regularizers", "initializers", "constraints", "losses"):
            found = getattr(getattr(self.keras, part), class_name, None)
            if inspect.isclass(found):
                return found
        return None


NEW = Side(keras, "Keras 3")
OLD = Side(legacy_keras(), "tf_keras")


def counterpart(layer: Any, source: Side, target: Side) -> Any:
    """A layer made anew in the other Keras, without its weights.

    Raises:
        ValueError: if the other has no such layer, or not with what this one is set to.
    """
    with named(layer, target):
        for one in layer._flatten_layers():
            _check_own(one, source)
        return rebuilt(type(layer), layer.get_config(), source, target)


@contextmanager
def named(layer: Any, target: Side) -> Iterator[None]:
    """Errors of the other Keras, as ours that name the layer."""
    try:
        yield
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        if str(error).startswith("Invalid value for argument"):
            raise
        raise invalid_argument(
            "model",
            f"layers that {target.name} has too",
            f"{layer.name}, a {type(layer).__name__}",
            " ".join(str(error).split()),
        ) from None


def copy_weights(old: Any, new: Any) -> None:
    """Gives a layer the weights of its counterpart, in the order in which they were made.

    Those that tfmot's pruning holds at zero are zero, whatever the last step made of them.

    Raises:
        ValueError: if they are not as many, or of other shapes.
    """
    masks = {id(weight): mask for weight, mask, _ in getattr(old, "pruning_vars", ())}
    old = unwrapped(old)
    weights, others = as_made(old), as_made(new)
    shapes = [tuple(weight.shape) for weight in weights]
    if shapes != [tuple(weight.shape) for weight in others]:
        raise invalid_argument(
            "model",
            "layers whose weights have the same shapes in Keras 3 and in tf_keras",
            f"{old.name}, a {type(old).__name__}, with {shapes}",
        )
    for weight, other in zip(weights, others, strict=True):
        values = weight.numpy()
        mask = masks.get(id(weight))
        other.assign(values if mask is None else values * mask.numpy())
    if hasattr(new, "finalize_state"):  # what a Normalization computes from its weights
        new.finalize_state()


def unwrapped(layer: Any) -> Any:
    """The layer that ``prune_low_magnitude`` wrapped, or the layer itself."""
    return layer.layer if type(layer).__name__ == "PruneLowMagnitude" else layer


def rebuilt(kind: type, config: Mapping[str, Any], source: Side, target: Side) -> Any:
    """An object of the class of the same name, in the other Keras."""
    if kind.__name__ == "Lambda":
        raise ValueError("what a Lambda computes is code for one Keras: write it as layers")
    if source.find(kind.__name__) is not kind:
        raise ValueError(f"{kind.__name__} is not {source.name}'s own")
    found = target.find(kind.__name__)
    if found is None:
        raise ValueError(f"{target.name} has no {kind.__name__}")
    renamed = _OTHER_NAMES.get(kind.__name__, {})
    if target is OLD:
        renamed = {new: old for old, new in renamed.items()}
    accepted, defaults = _arguments(found), _arguments(kind)
    given = {}
    for name, value in config.items():
        key = renamed.get(name, name)
        if key in accepted:
            given[key] = _translated(key, value, source, target)
        elif not _is_idle(name, value, defaults):
            raise ValueError(f"{target.name} has no {name}={value!r} there")
    return found(**given)


def _translated(name: str, value: Any, source: Side, target: Side) -> Any:
    """A value of a configuration, in the other Keras."""
    if name == "dtype":
        policy = keras.dtype_policies.get(value).name if source is NEW else value
        return policy["config"]["name"] if isinstance(policy, Mapping) else policy
    if name.endswith("activation"):
        return activation_of(value, target)
    if isinstance(value, Mapping) and "class_name" in value:
        if value["class_name"] == "__numpy__":
            return np.array(value["config"]["value"], value["config"]["dtype"])
        package, _, name_of = (value.get("registered_name") or value["class_name"]).rpartition(">")
        module = str(value.get("module") or "keras").partition(".")[0]
        kind = source.find(name_of)
        if kind is None or not (package == "keras_l0" or module in ("keras", "tf_keras")):
            raise ValueError(
                f"{value['class_name']} is none of {source.name}'s own that can go over"
            )
        if name.endswith("initializer"):
            return _initializer(kind, value["config"], source, target)
        return rebuilt(kind, value["config"], source, target)
    if isinstance(value, list | tuple):
        if name == "axis" and len(value) == 1:  # a list in tf_keras' BatchNormalization alone
            return value[0]
        return [_translated("", one, source, target) for one in value]
    if name == "name" and target is NEW:
        return value.replace("/", "_")  # which Keras 3 takes in no name
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _initializer(kind: type, config: Mapping[str, Any], source: Side, target: Side) -> Any:
    """Weights are copied: where the other has no such initializer, zeros serve."""
    try:
        return rebuilt(kind, config, source, target)
    except ValueError:
        return "zeros"


def activation_of(value: Any, target: Side) -> Any:
    """An activation's name, or a function where tf_keras has none of that name."""
    if value is None:
        return None
    name = value["config"] if isinstance(value, Mapping) else value
    if not isinstance(name, str):
        raise ValueError("an activation that is a layer has no counterpart: make it a layer behind")
    ours = name.startswith("keras_l0>")
    name = name.removeprefix("keras_l0>")
    if target is OLD and name in activations.FUNCTIONS:
        return activations.FUNCTIONS[name]
    if name in _DIFFERENT and not ours:
        raise ValueError(f"activation {name} has another formula there: {_DIFFERENT[name]}")
    if target is OLD:
        name = _NAMES.get(name, name)
    if not hasattr(target.keras.activations, name):
        raise ValueError(f"{target.name} has no activation {name}")
    return name


@cache
def _arguments(kind: type) -> Mapping[str, Any]:
    """The arguments of a class and of those above it, with their defaults."""
    found: dict[str, Any] = {}
    if issubclass(kind, OLD.keras.layers.RNN):
        found |= _RECURRENT
    for above in kind.__mro__:
        if "__init__" in vars(above):
            given = inspect.signature(above.__init__).parameters  # type: ignore[misc]
            found = {**{name: one.default for name, one in given.items()}, **found}
            if all(one.kind is not one.VAR_KEYWORD for one in given.values()):
                break  # what those above take, it does not
    return found


def _is_idle(name: str, value: Any, defaults: Mapping[str, Any]) -> bool:
    """Whether a layer without this argument is the same once it has its weights."""
    if name in _NOT_ARGUMENTS or name.endswith("initializer"):
        return True
    if (name, value) == ("data_format", "channels_last"):
        return True
    default = defaults.get(name)
    return value is default or value is False is not default or bool(np.all(value == default))


def as_made(layer: Any) -> list[Any]:
    """A layer's weights as they were made: tf_keras itself lists those that train first."""
    if isinstance(layer, keras.Layer):
        return list(layer.weights)
    inner = layer._flatten_layers()
    return [w for one in inner for w in one._trainable_weights + one._non_trainable_weights]


def _check_own(layer: Any, source: Side) -> None:
    """Raises a ``ValueError`` for what a configuration does not tell, or not whose it is."""
    if type(layer).__name__ == "Discretization" and layer.num_bins:
        raise ValueError("the bins that it adapted to are not in its configuration")
    for name, value in vars(layer).items():
        function = getattr(value, "__name__", "")
        if not name.endswith("activation") or not callable(value) or not function:
            continue
        own = value.__module__.startswith(("tensorflow.", "keras_l0."))
        if not own and getattr(source.keras.activations, function, None) is not value:
            raise ValueError(f"{name} is a function of your own, {function}")
