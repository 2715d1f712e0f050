"""Putting a regularizer on the kernels of a model that exists already."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
from keras.regularizers import Regularizer

from keras_l0.errors import invalid_argument
from keras_l0.pruning.targets import check_built, layer_path, matches, walk

SCALES = {"layer_size": ("l2", "l1", "l0"), "layer_size_l0": ("l0",)}

# Attention layers make their projections from one regularizer, which is all they save.
_SHARED = "_kernel_regularizer"


@dataclass(frozen=True)
class Attachment:
    """What ``regularize`` did, layer by layer.

    Args:
        penalized: the regularizer of each kernel it looked after, by the kernel's path;
            ``None`` where the penalty is off.
        skipped: paths of layers left alone, with the reason.
        unsaved: kernels whose regularizer stands in no layer's configuration: a model that is
            loaded from a file needs ``regularize`` again for these.
    """

    penalized: dict[str, Regularizer | None]
    skipped: dict[str, str]
    unsaved: list[str]

    def __str__(self) -> str:
        lines = [f"{path}: {penalty or 'no penalty'}" for path, penalty in self.penalized.items()]
        lines += [f"{path}: skipped, {reason}" for path, reason in self.skipped.items()]
        lines += [
            f"{path}: not kept in files, regularize again after load" for path in self.unsaved
        ]
        return "\n".join(lines)


@dataclass
class _Unit:
    """Kernels that share one regularizer, and every place that holds it."""

    lineage: tuple[keras.Layer, ...]
    variables: list[keras.Variable] = field(default_factory=list)
    places: list[tuple[keras.Layer, str]] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        if self.variables:
            return [variable.path for variable in self.variables]
        return [f"{layer_path(self.lineage[-1])}/{name}" for _, name in self.places[:1]]

    @property
    def size(self) -> int:
        return max(math.prod(variable.shape) for variable in self.variables)

    @property
    def kind(self) -> str:
        """Layers are compared in size with their like: dense, conv or recurrent."""
        names = {c.__name__ for layer in self.lineage for c in type(layer).__mro__}
        if any("Conv" in name for name in names):
            return "conv"
        return "recurrent" if any("RNN" in name for name in names) else "dense"


def regularize(
    model: keras.Model,
    regularizer: Regularizer | None,
    *,
    scale: str | None = None,
    overrides: Mapping[str, Regularizer | None] | None = None,
) -> Attachment:
    """Puts a regularizer on the kernels of a model, built or not, in place of what they had.

    It takes effect in the very next ``fit``, and stands in the configuration of the layers, so
    that it is saved and loaded with the model. Frozen layers, and those without a kernel, are
    left alone.

    With ``scale="layer_size"`` (the paper's NORM, by our reading of section 4.2) the factors
    of a layer are multiplied by ``sqrt(n / n_largest)``: n is the number of weights of its
    kernel, n_largest that of the largest one of its kind (dense, convolutional, recurrent).
    ``"layer_size_l0"`` does so for ``l0`` alone, as the authors' code does.

    Args:
        model: a Keras model; built if ``scale`` is given.
        regularizer: such as ``L2L0``; ``None`` takes the penalty off.
        scale: ``None``, ``"layer_size"`` or ``"layer_size_l0"``.
        overrides: the paper's SEP: a regularizer for each layer, or ``None`` to leave it out,
            by ``fnmatch`` patterns on its path or name; the first that matches counts. These
            are not scaled.

    Returns:
        What was done, layer by layer; ``print`` shows it.

    Raises:
        ValueError: if an argument is out of its range, a pattern matches no layer with a
            kernel, or ``scale`` is given for a model not built.

    Example:

    >>> from keras_l0 import L2L0, regularize
    >>> layers = [keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2, name="out")]
    >>> model = keras.Sequential(layers, name="net")
    >>> print(regularize(model, L2L0(l0=1e-5), overrides={"out": None}))
    net/dense/kernel: L2L0(l2=0, l0=1e-05, beta=10)
    net/out/kernel: no penalty

    Source: the paper, sections 3.3 and 4.2.
    """
    overrides = dict(overrides or {})
    for name, value in [("regularizer", regularizer), *overrides.items()]:
        if value is not None and not isinstance(value, Regularizer):
            argument = name if name == "regularizer" else f"overrides[{name!r}]"
            raise invalid_argument(argument, "None or a keras.regularizers.Regularizer", value)
    if scale is not None:
        _check_scale(model, regularizer, scale)
    elif not isinstance(model, keras.Model):
        check_built(model)
    units, skipped = _find_units(model)
    chosen = _choose(units, regularizer, overrides)
    if scale is not None and regularizer is not None:
        largest: dict[str, int] = {}
        for unit, (penalty, _) in zip(units, chosen, strict=True):
            if penalty is not None:
                largest[unit.kind] = max(unit.size, largest.get(unit.kind, 0))
        chosen = [
            (penalty, given)
            if given or penalty is None
            else (_scaled(penalty, math.sqrt(unit.size / largest[unit.kind]), scale), given)
            for unit, (penalty, given) in zip(units, chosen, strict=True)
        ]
    penalized: dict[str, Regularizer | None] = {}
    unsaved: list[str] = []
    for unit, (penalty, _) in zip(units, chosen, strict=True):
        for variable in unit.variables:
            variable.regularizer = penalty
        for layer, attribute in unit.places:
            setattr(layer, attribute, penalty)
        penalized.update(dict.fromkeys(unit.paths, penalty))
        if penalty is not None and not _is_saved(model, unit):
            unsaved += unit.paths
    # Both are traced with the penalties of before; Keras makes them anew.
    model.train_function = None
    model.test_function = None
    return Attachment(penalized, skipped, unsaved)


def _check_scale(model: keras.Model, regularizer: Regularizer | None, scale: str) -> None:
    if scale not in SCALES:
        raise invalid_argument("scale", 'None, "layer_size" or "layer_size_l0"', scale)
    check_built(model)
    if regularizer is not None and not set(SCALES[scale]) & set(regularizer.get_config()):
        raise invalid_argument(
            "scale", "None, since the regularizer has no factor that it scales", scale
        )


def _find_units(model: keras.Model) -> tuple[list[_Unit], dict[str, str]]:
    """The kernels that can have a penalty, and the layers that are left alone."""
    units: dict[object, _Unit] = {}
    skipped: dict[str, str] = {}
    for lineage, variables in walk(model):
        layer = lineage[-1]
        group = next((outer for outer in lineage if _SHARED in vars(outer)), None)
        kernels = [variable for variable in variables if variable.name.endswith("kernel")]
        reason = f"{type(layer).__name__} has no kernel" if variables and not kernels else ""
        names: list[tuple[str | None, keras.Variable | None]]
        if layer.built:
            names = [(_attribute(layer, variable), variable) for variable in kernels]
        else:
            names = [(name, None) for name in _attributes(layer)]
        for attribute, variable in names:
            if variable is not None and not keras.backend.is_float_dtype(variable.dtype):
                reason = f"its {variable.name} is quantized ({variable.dtype})"
                continue
            if not (layer.trainable if variable is None else variable.trainable):
                reason = "it is frozen"
                continue
            key = (id(layer), attribute) if group is None else id(group)
            unit = units.setdefault(key, _Unit(lineage))
            if variable is not None:
                unit.variables.append(variable)
            if attribute is not None:
                unit.places.append((layer, attribute))
            if group is not None and (group, _SHARED) not in unit.places:
                unit.places.append((group, _SHARED))
        if reason:
            skipped[layer_path(layer)] = reason
    return list(units.values()), skipped


def _attribute(layer: keras.Layer, variable: keras.Variable) -> str | None:
    """The attribute that says a variable's regularizer, as the layer's configuration does."""
    own = f"{variable.name.removesuffix('_kernel')}_regularizer"
    return next((name for name in (own, *_attributes(layer)) if name in vars(layer)), None)


def _attributes(layer: keras.Layer) -> list[str]:
    """The attributes of a layer that hold a kernel's regularizer."""
    stems = ("kernel", "recurrent", "depthwise", "pointwise")
    names = [f"{stem}_regularizer" for stem in stems] + [_SHARED]
    return [name for name in names if name in vars(layer)]


def _choose(
    units: list[_Unit],
    regularizer: Regularizer | None,
    overrides: Mapping[str, Regularizer | None],
) -> list[tuple[Regularizer | None, bool]]:
    """The regularizer of each unit, and whether an override gave it."""
    chosen = []
    used = set()
    for unit in units:
        hits = [pattern for pattern in overrides if matches(unit.lineage, pattern)]
        used.update(hits)
        chosen.append((overrides[hits[0]], True) if hits else (regularizer, False))
    for pattern in overrides:
        if pattern not in used:
            raise invalid_argument(
                "overrides",
                "patterns that match a layer with a kernel",
                pattern,
                f"These have one: {', '.join(layer_path(unit.lineage[-1]) for unit in units)}",
            )
    return chosen


def _scaled(regularizer: Regularizer, factor: float, scale: str) -> Regularizer:
    config = regularizer.get_config()
    scaled = {name: factor * config[name] for name in SCALES[scale] if name in config}
    return type(regularizer).from_config({**config, **scaled})


def _is_saved(model: keras.Model, unit: _Unit) -> bool:
    """Whether a file of the model will name this regularizer."""
    models = [model, *(layer for layer in unit.lineage[:-1] if isinstance(layer, keras.Model))]
    if not all(isinstance(m, keras.Sequential) or hasattr(m, "operations") for m in models):
        return False
    return any(_configures(layer, attribute) for layer, attribute in unit.places)


def _configures(layer: keras.Layer, attribute: str) -> bool:
    try:
        config: dict[str, Any] = layer.get_config()
    except NotImplementedError:  # what Keras raises for a layer without a configuration
        return False
    return config.get(attribute.lstrip("_")) is not None
