"""Putting a regularizer on the kernels of a model that exists already."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras.regularizers import Regularizer

from keras_l0.errors import invalid_argument
from keras_l0.models import check_built, layer_path
from keras_l0.pruning import lora
from keras_l0.pruning.targets import (
    is_unnamed_matrix,
    matches,
    names_variable,
    quantized,
    walk,
)
from keras_l0.text import by_reason, listed

UNNAMED = 'its name does not end in "kernel"; overrides={"*/NAME": ...} penalizes it by name'

SCALES = {"layer_size": ("l2", "l1", "l0"), "layer_size_l0": ("l0",)}

# Where layers keep a kernel's regularizer.
_ATTRIBUTES = (
    "kernel_regularizer",
    "recurrent_regularizer",
    "depthwise_regularizer",
    "pointwise_regularizer",
    "_kernel_regularizer",
)


@dataclass(frozen=True)
class Attachment:
    """What ``regularize`` did, layer by layer.

    Args:
        penalized: the regularizer of each kernel it looked after, by the kernel's path;
            ``None`` where the penalty is off.
        skipped: paths of layers and matrices left alone, with the reason.
        unsaved: kernels whose regularizer the model's configuration cannot hold: a model that
            is loaded from a file needs ``regularize`` again for these.
    """

    penalized: dict[str, Regularizer | None]
    skipped: dict[str, str]
    unsaved: list[str]

    def __str__(self) -> str:
        lines = [f"{path}: {penalty or 'no penalty'}" for path, penalty in self.penalized.items()]
        lines += [f"skipped, {line}" for line in by_reason(self.skipped)]
        if self.unsaved:
            lines.append(f"not kept in files, regularize again after load: {listed(self.unsaved)}")
        return "\n".join(lines)


Place = tuple[keras.Layer, str]


@dataclass(frozen=True)
class _Kernel:
    """A kernel, and the attributes that say its regularizer.

    Args:
        lineage: the layers that lead to it.
        variable: the kernel, or ``None`` as long as the layer is not built.
        place: the attribute of its own layer, if there is one.
        owner: that of a layer around it, which makes and saves its sublayers by it.
    """

    lineage: tuple[keras.Layer, ...]
    variable: keras.Variable | None
    place: Place | None
    owner: Place | None

    @property
    def path(self) -> str:
        if self.variable is not None:
            return str(self.variable.path)
        assert self.place is not None, "a layer not built is known by its attribute"
        return f"{layer_path(self.place[0])}/{self.place[1]}"

    def matches(self, pattern: str) -> bool:
        """Whether a pattern means its layer, or itself."""
        return matches(self.lineage, pattern) or (
            self.variable is not None and names_variable(pattern, self.lineage, self.variable)
        )

    @property
    def kind(self) -> str:
        """Layers are compared in size with their like: dense, conv or recurrent."""
        names = [c.__name__ for c in type(self.lineage[-1]).__mro__]
        if any("Conv" in name for name in names):
            return "conv"
        return "recurrent" if any(name.endswith("Cell") for name in names) else "dense"


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
    left alone; so are further matrices of custom layers, unless an override names them.

    With ``scale="layer_size"`` (the paper's NORM, by our reading of section 4.2) the factors
    of a layer are multiplied by ``sqrt(n / n_largest)``: n is the number of weights of its
    kernel, n_largest that of the largest one of its kind (dense, convolutional, recurrent).
    ``"layer_size_l0"`` does so for ``l0`` alone, as the authors' code does.

    Args:
        model: the Keras model that is fitted, not one inside it; built if ``scale`` is given.
        regularizer: such as ``L2L0``; ``None`` takes the penalty off.
        scale: ``None``, ``"layer_size"`` or ``"layer_size_l0"``.
        overrides: the paper's SEP: a regularizer for each layer, or ``None`` to leave it out,
            by ``fnmatch`` patterns on its name, its path or the names that lead to it from the
            model down, or on those of one kernel or matrix of a built layer, as
            ``"lstm/recurrent_kernel"``; the first that matches counts. These are not scaled.

    Returns:
        What was done, layer by layer; ``print`` shows it.

    Raises:
        ValueError: if an argument is out of its range, a pattern matches no layer with a
            kernel, or ``scale`` is given for a model not built.

    Example:

    >>> from keras_l0 import L2L0, regularize
    >>> dense = keras.layers.Dense
    >>> layers = [keras.Input((4,)), dense(8, name="hidden"), dense(2, name="out")]
    >>> model = keras.Sequential(layers, name="net")
    >>> print(regularize(model, L2L0(l0=1e-5), overrides={"out": None}))
    net/hidden/kernel: L2L0(l2=0, l0=1e-05, beta=10)
    net/out/kernel: no penalty

    Source: the paper, sections 3.3 and 4.2.
    """
    if not isinstance(overrides, Mapping | None):
        raise invalid_argument("overrides", "None or a dict from pattern to regularizer", overrides)
    overrides = dict(overrides or {})
    for name, value in [("regularizer", regularizer), *overrides.items()]:
        if value is not None and not isinstance(value, Regularizer):
            argument = name if name == "regularizer" else f"overrides[{name!r}]"
            raise invalid_argument(argument, "None or a keras.regularizers.Regularizer", value)
    if scale is not None:
        _check_scale(model, regularizer, scale)
    elif not isinstance(model, keras.Model):
        check_built(model)
    kernels, skipped = _find_kernels(model, overrides)
    chosen = _choose(kernels, regularizer, overrides)
    if scale is not None:
        chosen = _scale(kernels, chosen, scale)
    owners: dict[Place, list[Regularizer | None]] = {}
    for kernel, (penalty, _) in zip(kernels, chosen, strict=True):
        if kernel.variable is not None:
            kernel.variable.regularizer = penalty
        if kernel.place is not None:
            setattr(*kernel.place, penalty)
        if kernel.owner is not None:
            owners.setdefault(kernel.owner, []).append(penalty)
    for owner, penalties in owners.items():
        alike = all(_config(penalty) == _config(penalties[0]) for penalty in penalties)
        setattr(*owner, penalties[0] if alike else None)
    # Both are traced with the penalties of before; Keras makes them anew.
    model.train_function = None
    model.test_function = None
    return Attachment(
        penalized={k.path: penalty for k, (penalty, _) in zip(kernels, chosen, strict=True)},
        skipped=skipped,
        unsaved=[
            kernel.path
            for kernel, (penalty, _) in zip(kernels, chosen, strict=True)
            if penalty is not None and not _is_saved(model, kernel, penalty)
        ],
    )


def _check_scale(model: keras.Model, regularizer: Regularizer | None, scale: str) -> None:
    if not isinstance(scale, str) or scale not in SCALES:
        raise invalid_argument("scale", 'None, "layer_size" or "layer_size_l0"', scale)
    check_built(model)
    if regularizer is None or not set(SCALES[scale]) & set(regularizer.get_config()):
        raise invalid_argument(
            "scale", "None, since the regularizer has no factor that it scales", scale
        )


def _find_kernels(
    model: keras.Model, overrides: Iterable[str]
) -> tuple[list[_Kernel], dict[str, str]]:
    """The kernels that can have a penalty, matrices that are named, and what is left alone."""
    kernels: list[_Kernel] = []
    skipped: dict[str, str] = {}
    for lineage, variables in walk(model):
        layer = lineage[-1]
        owner = _owner(lineage)
        if not layer.built:
            reason = "" if layer.trainable else "it is frozen"
            places = [(layer, name) for name in _ATTRIBUTES if name in vars(layer)]
            if not reason:
                kernels += [_Kernel(lineage, None, place, owner) for place in places]
            elif places:
                skipped[layer_path(layer)] = reason
            continue
        unnamed = [variable for variable in variables if is_unnamed_matrix(layer, variable)]
        asked = [
            variable
            for variable in unnamed
            if any(names_variable(pattern, lineage, variable) for pattern in overrides)
        ]
        chosen = {id(variable) for variable in asked}
        found = [v for v in variables if v.name.endswith("kernel") or id(v) in chosen]
        for variable in unnamed:
            if id(variable) not in chosen:
                skipped[variable.path] = UNNAMED if variable.trainable else "it is frozen"
        if variables and not found and not unnamed:
            skipped[layer_path(layer)] = f"{type(layer).__name__} has no kernel"
        for variable in found:
            if not keras.backend.is_float_dtype(variable.dtype):
                skipped[layer_path(layer)] = quantized(layer, variable)
            elif lora.is_changed(layer, variable):
                skipped[layer_path(layer)] = "LoRA is enabled"
            elif not variable.trainable:
                skipped[layer_path(layer)] = "it is frozen"
            else:
                kernels.append(_Kernel(lineage, variable, _place(layer, variable), owner))
    return kernels, skipped


def _owner(lineage: tuple[keras.Layer, ...]) -> Place | None:
    """The layer that makes this one by a regularizer of its own, as attention layers do."""
    for layer in lineage[:-1]:
        for name in _ATTRIBUTES:
            if name in vars(layer):
                return layer, name
    return None


def _place(layer: keras.Layer, variable: keras.Variable) -> Place | None:
    """The attribute that says a variable's regularizer, as the layer's configuration does."""
    own = f"{variable.name.removesuffix('_kernel')}_regularizer"
    others = _ATTRIBUTES if variable.name.endswith("kernel") else ()
    return next(((layer, name) for name in (own, *others) if name in vars(layer)), None)


def _choose(
    kernels: list[_Kernel],
    regularizer: Regularizer | None,
    overrides: Mapping[str, Regularizer | None],
) -> list[tuple[Regularizer | None, bool]]:
    """The regularizer of each kernel, and whether an override gave it."""
    chosen = []
    used = set()
    for kernel in kernels:
        hits = [pattern for pattern in overrides if kernel.matches(pattern)]
        used.update(hits)
        chosen.append((overrides[hits[0]], True) if hits else (regularizer, False))
    for pattern in overrides:
        if pattern not in used:
            names = dict.fromkeys(layer_path(kernel.lineage[-1]) for kernel in kernels)
            raise invalid_argument(
                "overrides",
                "patterns that match a layer with a kernel to train",
                pattern,
                f"These have one: {listed(names, most=8)}",
            )
    return chosen


def _scale(
    kernels: list[_Kernel], chosen: list[tuple[Regularizer | None, bool]], scale: str
) -> list[tuple[Regularizer | None, bool]]:
    """NORM. Projections that one layer makes count as the largest of them: it saves one factor."""
    sizes = [
        math.prod(kernel.variable.shape) if kernel.variable is not None else 0 for kernel in kernels
    ]
    together: dict[object, int] = {}
    for kernel, size in zip(kernels, sizes, strict=True):
        key = kernel.owner or kernel.path
        together[key] = max(size, together.get(key, 0))
    sizes = [together[kernel.owner or kernel.path] for kernel in kernels]
    largest: dict[str, int] = {}
    for kernel, size, (penalty, _) in zip(kernels, sizes, chosen, strict=True):
        if penalty is not None:
            largest[kernel.kind] = max(size, largest.get(kernel.kind, 0))
    scaled = []
    for kernel, size, (penalty, given) in zip(kernels, sizes, chosen, strict=True):
        if penalty is not None and not given and size:
            factor = math.sqrt(size / largest[kernel.kind])
            config = penalty.get_config()
            factors = {name: factor * config[name] for name in SCALES[scale] if name in config}
            penalty = type(penalty).from_config({**config, **factors})
        scaled.append((penalty, given))
    return scaled


def _is_saved(model: keras.Model, kernel: _Kernel, penalty: Regularizer) -> bool:
    """Whether a file of the model will name this regularizer for this kernel."""
    models = [model, *(layer for layer in kernel.lineage if isinstance(layer, keras.Model))]
    if not all(isinstance(m, keras.Sequential) or hasattr(m, "operations") for m in models):
        return False
    saved = next((layer for layer in kernel.lineage if not isinstance(layer, keras.Model)), None)
    if saved is None:
        return False
    try:
        return _holds(saved.get_config(), _config(penalty))
    except NotImplementedError:  # what Keras raises for a layer without a configuration
        return False


def _holds(config: Any, wanted: Any) -> bool:
    """Whether a nested configuration holds another one."""
    if config == wanted:
        return True
    inside = config.values() if isinstance(config, Mapping) else config
    return isinstance(config, Mapping | list | tuple) and any(_holds(c, wanted) for c in inside)


def _config(penalty: Regularizer | None) -> Any:
    return None if penalty is None else keras.regularizers.serialize(penalty)
