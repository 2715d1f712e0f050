"""Which weights of a model can be pruned."""

import contextlib
import fnmatch
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_l0.errors import invalid_argument
from keras_l0.models import check_built, layer_path
from keras_l0.pruning import lora
from keras_l0.text import listed

UNNAMED = 'its name does not end in "kernel"; layers=["*/*kernel", "*/NAME"] prunes it'
LORA = "LoRA is enabled: training changes its zeros"

Part = tuple[tuple[slice, ...], NDArray[Any]]
"""Where a part of a tensor stands in the whole, and what it holds; ``()`` for the whole."""


@dataclass(frozen=True)
class Weight:
    """One weight tensor of a layer; ``lineage`` leads from the model's layer down to it."""

    variable: keras.Variable
    lineage: tuple[keras.Layer, ...]

    @property
    def layer(self) -> keras.Layer:
        """The layer that owns the variable."""
        return self.lineage[-1]

    @property
    def path(self) -> str:
        """The variable's path in the model, ``"sequential/dense/kernel"``."""
        return self.variable.path

    @property
    def name(self) -> str:
        """The layer's and the variable's name, ``"dense/kernel"``."""
        return f"{self.layer.name}/{self.variable.name}"

    def matches(self, pattern: str) -> bool:
        """Whether a pattern means its layer, or itself."""
        return matches(self.lineage, pattern) or names_variable(
            pattern, self.lineage, self.variable
        )

    @property
    def frozen(self) -> bool:
        """Whether training leaves it alone."""
        return not self.variable.trainable

    @property
    def size(self) -> int:
        """The number of weights in it."""
        return math.prod(self.variable.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the weights in NumPy."""
        return ops.convert_to_numpy(ops.zeros((0,), self.variable.dtype)).dtype

    @property
    def has_lora(self) -> bool:
        """Whether the layer computes with other values than the variable's, by LoRA."""
        return lora.is_changed(self.layer, self.variable)

    def values(self) -> NDArray[np.floating]:
        """The weights, as a NumPy array of their own dtype, that is not to be written to.

        Those that the layer computes with: with LoRA enabled, the sum of kernel and product.
        """
        if self.has_lora:
            return lora.merged(self.layer, self.variable)
        value = self.variable.value
        read = getattr(value, "value", lambda: value)  # of TensorFlow's variables, their tensor
        with contextlib.suppress(TypeError, ValueError, BufferError):  # bfloat16 has no buffer
            return np.asarray(memoryview(read()))  # TensorFlow's own conversions copy
        return np.asarray(self.variable)

    def parts(self) -> list[Part]:
        """The weights where they lie: the whole, or on JAX each part of one cut over devices.

        Raises:
            ValueError: if parts of it lie in other processes.
        """
        value = self.variable.value
        shards = getattr(value, "addressable_shards", ())
        if shards and not (value.is_fully_addressable or value.is_fully_replicated):
            raise invalid_argument(
                "model",
                "weights of which this process has all",
                self.path,
                "It is cut over several processes: train with DataParallel, or on the devices of "
                "one process",
            )
        found = {str(shard.index): (shard.index, shard.data) for shard in shards}
        if len(found) < 2 or self.has_lora:
            return [((), self.values())]
        return [(place, np.asarray(part)) for place, part in found.values()]

    def assign(self, parts: Sequence[Part]) -> None:
        """Puts parts in the place of those that ``parts`` gave."""
        if len(parts) == 1:
            self.variable.assign(parts[0][1])
            return
        import jax

        by_place = {str(place): part for place, part in parts}
        value = self.variable.value
        self.variable.assign(
            jax.make_array_from_callback(
                value.shape, value.sharding, lambda place: by_place[str(place)]
            )
        )


@dataclass(frozen=True)
class Targets:
    """The weights chosen for pruning.

    Args:
        live: those that pruning may zero, in the model's order, as are the following.
        frozen: those that count but are not pruned: they do not train, or LoRA is enabled.
        skipped: why layers and variables are left out, by path.
        quantized: kernels of integers, which are left out.
        unnamed: weights of rank 2 or more that are pruned only by name, and are left out.
    """

    live: list[Weight]
    frozen: list[Weight]
    skipped: dict[str, str]
    quantized: list[Weight] = field(default_factory=list)
    unnamed: list[Weight] = field(default_factory=list)

    @property
    def weights(self) -> list[Weight]:
        """All the weights that count."""
        return self.live + self.frozen

    @property
    def size(self) -> int:
        """The number of weights that count, frozen ones included."""
        return sum(weight.size for weight in self.weights)


def find_targets(model: keras.Model, layers: str | Sequence[str] | None = None) -> Targets:
    """Finds the prunable weights of a model.

    Prunable are the kernels: floating-point variables whose name ends in ``kernel``, those of
    Dense, the convolutions, EinsumDense, recurrent and attention layers, wherever in the model
    the layer stands; a shared layer counts once. Biases, normalization and embeddings are not.
    Other trainable matrices of custom layers are pruned only by name, and listed as skipped.

    Args:
        model: a built model.
        layers: ``fnmatch`` patterns on a layer's path or name, or one; a layer stands for all
            inside it. Then only the layers that match count, frozen ones are pruned too, and
            so is an ``Embedding`` that matches. A pattern that ends in a variable's name, as
            in ``"*/bias"``, asks for that variable, and one that ends in ``"/*kernel"`` for
            kernels: ``["*/*kernel", "*/w2"]`` is every kernel and every ``w2``.

    Returns:
        The weights that pruning may zero, those it counts as left, and what was skipped.

    Raises:
        ValueError: if the model is not built, or a pattern matches no layer that has weights.
    """
    check_built(model)
    patterns = as_patterns(layers)
    unmatched = set(patterns)
    targets = Targets([], [], {})
    owners = [(lineage, variables) for lineage, variables in walk(model) if variables]
    for lineage, variables in owners:
        layer = lineage[-1]
        hits = {pattern for pattern in patterns if matches(lineage, pattern)}
        unmatched -= hits
        told = False
        reason = f"{type(layer).__name__} has no kernel"
        if patterns and not hits:
            reason = "no pattern matches it"
        for variable in variables:
            weight = Weight(variable, lineage)
            asked = {pattern for pattern in patterns if names_variable(pattern, lineage, variable)}
            unmatched -= asked
            kernel = variable.name.endswith("kernel") and (hits or not patterns)
            embedding = hits and is_embedding(layer, variable)
            if not (asked or kernel or embedding):
                if is_unnamed_matrix(layer, variable) and (hits or not patterns):
                    told = True
                    targets.unnamed.append(weight)
                    targets.skipped[weight.path] = UNNAMED
                continue
            if not keras.backend.is_float_dtype(variable.dtype):
                reason = quantized(layer, variable)
                targets.quantized.append(weight)
                continue
            told = True
            if weight.has_lora:
                targets.frozen.append(weight)
                targets.skipped[weight.path] = LORA
            else:
                (targets.frozen if weight.frozen and not patterns else targets.live).append(weight)
        if not told:
            targets.skipped[layer_path(layer)] = reason
    if unmatched:
        names = listed((layer_path(lineage[-1]) for lineage, _ in owners), most=8)
        raise invalid_argument(
            "layers",
            "patterns that match a layer with weights",
            min(unmatched),
            f"The layers with weights are: {names}",
        )
    return targets


def is_embedding(layer: keras.Layer, variable: keras.Variable) -> bool:
    """Whether it is the table of an ``Embedding``: no factor of LoRA, no scale of ``quantize``."""
    name = variable.name
    table = name.endswith("embeddings") and not name.startswith("lora_")
    return table and isinstance(layer, keras.layers.Embedding)


def is_unnamed_matrix(layer: keras.Layer, variable: keras.Variable) -> bool:
    """Whether a variable is a trainable matrix of another name than Keras gives its own.

    Keras' are kernels, biases (some have rank 2), embeddings, gamma, beta, PReLU's alpha and
    LoRA's factors. A vector with axes of size 1 is no matrix.
    """
    name = variable.name
    return (
        sum(size > 1 for size in variable.shape) >= 2
        and any(variable is own for own in layer._trainable_variables)
        and keras.backend.is_float_dtype(variable.dtype)
        and not name.endswith(("kernel", "gamma", "beta", "alpha"))
        and not any(part in name for part in ("bias", "embedding", "lora_"))
    )


def quantized(layer: keras.Layer, variable: keras.Variable) -> str:
    """Why a kernel that ``quantize`` made is left out."""
    mode = getattr(layer, "quantization_mode", None) or variable.dtype
    return f"its {variable.name} is quantized ({mode})"


def walk(
    model: keras.Model,
) -> Iterator[tuple[tuple[keras.Layer, ...], list[keras.Variable]]]:
    """Every layer, as the lineage that leads to it, with the variables that are its own.

    A shared layer comes once, where it is met first.
    """
    seen: set[int] = set()

    def visit(
        layer: keras.Layer, lineage: tuple[keras.Layer, ...]
    ) -> Iterator[tuple[tuple[keras.Layer, ...], list[keras.Variable]]]:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        own = []
        for variable in layer._trainable_variables + layer._non_trainable_variables:
            if id(variable) not in seen:
                seen.add(id(variable))
                own.append(variable)
        yield lineage or (layer,), own
        for inner in layer._layers:
            yield from visit(inner, (*lineage, inner))

    yield from visit(model, ())


def as_patterns(layers: str | Sequence[str] | None) -> list[str]:
    """The patterns as a list; ``None`` gives none."""
    if layers is None:
        return []
    patterns = [layers] if isinstance(layers, str) else layers
    if (
        not isinstance(patterns, Sequence)
        or not patterns
        or not all(isinstance(pattern, str) for pattern in patterns)
    ):
        raise invalid_argument("layers", "None, a pattern or a list of patterns", layers)
    return list(patterns)


def matches(lineage: Sequence[keras.Layer], pattern: str) -> bool:
    """Whether an ``fnmatch`` pattern matches the name or path of a layer or one around it.

    The path is Keras' own, or the names from the model down: Keras' has the model's name in front
    only where the model was built by its layers' first call, not where it was loaded.
    """
    return any(
        fnmatch.fnmatchcase(known, pattern)
        for depth, layer in enumerate(lineage, 1)
        for known in (layer.name, layer_path(layer), names_down(lineage[:depth]))
    )


def names_down(lineage: Sequence[keras.Layer]) -> str:
    """The names that lead from the model to a layer: the same in every copy of the model."""
    return "/".join(layer.name for layer in lineage)


def names_variable(pattern: str, lineage: Sequence[keras.Layer], variable: keras.Variable) -> bool:
    """Whether a pattern names this very variable: ``"dense/bias"``, or kernels: ``"*/*kernel"``."""
    stem, _, last = pattern.rpartition("/")
    named = last == variable.name or (
        last.endswith("kernel")
        and variable.name.endswith("kernel")
        and fnmatch.fnmatchcase(variable.name, last)
    )
    return named and bool(stem) and matches(lineage, stem)
