"""Random networks of all kinds of layers, with channels killed, for the laws of structured pruning.

What is killed is decided here, from the layers' own axes, and not by the library's graph.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers, ops
from numpy.typing import NDArray

Tensor = Any
Draw = Callable[[st.SearchStrategy[Any]], Any]
ACTIVATIONS = (
    "linear relu leaky_relu relu6 elu selu softplus softsign silu gelu tanh sigmoid hard_sigmoid "
    "hard_silu mish hard_tanh log_sigmoid softmax"
).split()
KINDS = "none filters whole readers".split()
SHARES = (0.0, 0.3, 0.6, 0.9, 1.0)


@dataclass
class Network:
    """A model with killed channels, and the inputs to ask it with."""

    model: keras.Model
    inputs: list[NDArray[Any]]
    other: list[NDArray[Any]]
    spread: float

    def outputs(self, model: keras.Model, inputs: list[NDArray[Any]]) -> list[NDArray[np.floating]]:
        """What a model, this one or a smaller one, gives."""
        found = model(inputs if len(inputs) > 1 else inputs[0], training=False)
        return [ops.convert_to_numpy(tensor) for tensor in keras.tree.flatten(found)]


def draw_network(draw: Draw) -> Network:
    """A Functional model of any supported layers, its weights random, some of its channels killed.

    This is no strategy but is called by a test with ``data.draw``, since the initializers of
    Keras draw random seeds, which Hypothesis forbids inside strategies.
    """
    builder = Builder(draw)
    model, shapes = builder.model()
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    randomize(model, generator)
    given = [builder.batch(generator, shape, tokens) for shape, tokens in shapes]
    other = [builder.batch(generator, shape, tokens) for shape, tokens in shapes]
    network = Network(model, given, other, 0.0)
    intact = network.outputs(model, given)
    network.spread = min(spread(output) for output in intact)
    kill(draw, model, generator)
    return network


def spread(output: NDArray[np.floating]) -> float:
    """How far an output differs from example to example, relative to its largest."""
    return float(np.ptp(output, axis=0).max(initial=0) / max(np.abs(output).max(initial=0), 1e-12))


def randomize(model: keras.Model, generator: np.random.Generator) -> None:
    """Weights of no special value, such that the outputs stay of the order of 1."""
    for variable in model.weights:
        shape, name = variable.shape, variable.name
        if "float" not in keras.backend.standardize_dtype(variable.dtype) or "seed" in name:
            continue
        if name in ("moving_variance", "gamma"):
            value = generator.uniform(0.5, 1.5, shape)
        elif name in ("bias", "beta", "moving_mean", "alpha"):
            value = generator.normal(size=shape) * 0.5
        else:
            inputs = np.prod(shape) / max(shape[-1], 1) if len(shape) > 1 else 1
            value = generator.normal(size=shape) * (1.5 / np.sqrt(max(inputs, 1)))
        variable.assign(value)


def kill(draw: Draw, model: keras.Model, generator: np.random.Generator) -> None:
    """Zeroes filters, whole channels or what reads them; layers of one width lose the same.

    That they do is what makes the channels of a sum of branches die together.
    """
    share = draw(st.sampled_from(SHARES))
    lost: dict[int, NDArray[np.bool_]] = {}
    for layer in model._flatten_layers(include_self=False):
        kind = draw(st.sampled_from(KINDS)) if share and _axes(layer) else "none"
        for variable, makes, reads in _axes(layer) if kind != "none" else ():
            axis = reads if kind == "readers" else makes
            filtering = variable.name.endswith(("kernel", "embeddings"))
            if axis is None or (kind == "filters" and not filtering):
                continue
            size = variable.shape[axis]
            if size not in lost:
                lost[size] = generator.random(size) < share
            value = np.array(ops.convert_to_numpy(variable))
            np.moveaxis(value, axis, 0)[lost[size]] = 0
            variable.assign(value)


def _axes(layer: keras.Layer) -> list[tuple[keras.Variable, int | None, int | None]]:
    """The variables with channels: the axes of those that are made and of those that are read."""
    found: list[tuple[keras.Variable, int | None, int | None]] = []
    kind = type(layer).__name__
    if kind in ("LSTM", "GRU", "SimpleRNN"):
        return [(layer.cell.kernel, None, 0)]
    for variable in layer.variables if not getattr(layer, "layers", None) else ():
        rank = len(variable.shape)
        if variable.name == "embeddings":
            found.append((variable, 1, None))
        elif variable.name == "depthwise_kernel" or kind.startswith("Depthwise"):
            found.append((variable, max(rank - 2, 0), None))
        elif "kernel" in variable.name and rank > 1:
            swapped = kind.endswith("Transpose")
            found.append((variable, rank - 1 - swapped, rank - 2 + swapped))
        elif variable.name in ("bias", "beta") or (variable.name, kind) == (
            "gamma",
            "BatchNormalization",
        ):
            found.append((variable, rank - 1, None))
    return found


class Builder:
    """Draws a network step by step."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.format = "channels_last"
        self.depth = 0

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def flag(self) -> bool:
        return self.pick(False, True)

    def batch(
        self, generator: np.random.Generator, shape: Sequence[int], tokens: bool
    ) -> NDArray[Any]:
        """Six examples of this shape."""
        if tokens:
            return generator.integers(0, 9, (6, *shape)).astype("int32")
        return generator.normal(size=(6, *shape)).astype("float32")

    def model(self) -> tuple[keras.Model, list[tuple[tuple[int, ...], bool]]]:
        """The model, with the shapes of its inputs and whether they are tokens."""
        starts = [self.start() for _ in range(self.pick(1, 1, 1, 2))]
        ends = [self.vector(self.steps(x, self.pick(1, 2, 3, 4, 5))) for _, x, _ in starts]
        x = ends[0] if len(ends) == 1 else self.merged(ends[0], self.fitting(ends[1], ends[0]))
        x = self.steps(x, self.pick(0, 1, 2))
        activation = self.pick(None, "softmax", "sigmoid")
        heads = [layers.Dense(3, activation=activation, use_bias=self.flag())(self.vector(x))]
        if self.pick(False, False, True):
            heads.append(layers.Dense(2)(self.vector(self.steps(x, 1))))
        shapes = [(tuple(tensor.shape[1:]), tokens) for tensor, _, tokens in starts]
        inputs = [tensor for tensor, _, _ in starts]
        return keras.Model(inputs if len(inputs) > 1 else inputs[0], heads), shapes

    def start(self) -> tuple[Tensor, Tensor, bool]:
        """An input, what is computed of it first, and whether it is of tokens."""
        kind = self.pick("vector", "image", "image", "sequence", "tokens", "volume")
        if kind == "tokens":
            inputs = keras.Input((6,), dtype="int32")
            return inputs, layers.Embedding(9, self.pick(4, 6))(inputs), True
        sizes = {"vector": (5,), "image": (6, 6, 3), "sequence": (6, 4), "volume": (4, 4, 4, 2)}
        inputs = keras.Input(sizes[kind])
        return inputs, inputs, False

    # Steps. Each takes a tensor and gives another.

    def steps(self, x: Tensor, count: int) -> Tensor:
        for _ in range(count):
            x = self.step(x)
        return x

    def step(self, x: Tensor) -> Tensor:
        chosen: list[Callable[[Tensor], Tensor]] = [
            self.filters,
            self.filters,
            self.normalized,
            self.activated,
            self.combined,
            self.elementwise,
        ]
        if self.depth < 1:
            chosen += [self.nested, self.shared, self.wrapped]
        chosen += [self.spread_out] if len(x.shape) == 2 else [self.spatial, self.spatial]
        return self.pick(*chosen)(x)

    def filters(self, x: Tensor, units: int | None = None, keeping: bool = False) -> Tensor:
        """A layer with filters; ``keeping`` the sizes beside the channels'."""
        rank = len(x.shape) - 2
        units = units or self.pick(4, 6)
        kinds = ["dense", "einsum"]
        if rank:
            kinds += ["convolution"] * 3
            kinds += [] if keeping else ["transposed"]
            kinds += ["depthwise", "separable"] if rank < 3 and not keeping else []
        kind = self.pick(*kinds)
        activation = self.pick(None, *ACTIVATIONS)
        common = {"use_bias": self.flag(), "activation": activation}
        if kind == "dense":
            return layers.Dense(units, **common)(x)
        if kind == "einsum":
            bias = "c" if common["use_bias"] else None
            shape = (*x.shape[1:-1], units)
            names = "xyz"[:rank]
            layer = layers.EinsumDense(
                f"a{names}b,bc->a{names}c", shape, bias_axes=bias, activation=activation
            )
            return layer(x)
        size = self.pick(1, 2, 3)
        padding = self.pick("same", *(["causal"] if rank == 1 else []))
        if not keeping:
            padding = self.pick("valid", padding)
        if padding == "valid" and min(x.shape[1:-1]) < 3:
            size = 1
        strides = 1 if keeping else self.pick(1, 1, 2)
        if kind == "transposed":
            layer = getattr(layers, f"Conv{rank}DTranspose")
            return layer(
                units,
                size,
                strides=strides,
                padding=padding if padding != "causal" else "same",
                **common,
            )(x)
        if kind == "convolution":
            channels = x.shape[-1]
            groups = self.pick(1, 1, *(g for g in (2, 3, channels) if channels % g == 0))
            groups = groups if units % groups == 0 else 1
            common["groups"] = groups
            if strides == 1 and size == 2 and padding != "valid":
                common["dilation_rate"] = self.pick(1, 2)
            layer = getattr(layers, f"Conv{rank}D")
            return layer(units, size, strides=strides, padding=padding, **common)(x)
        common["depth_multiplier"] = self.pick(1, 2)
        padding = padding if padding != "causal" else "same"
        if kind == "depthwise":
            layer = getattr(layers, f"DepthwiseConv{rank}D")
            return layer(size, strides=strides, padding=padding, **common)(x)
        layer = getattr(layers, f"SeparableConv{rank}D")
        return layer(units, size, strides=strides, padding=padding, **common)(x)

    def normalized(self, x: Tensor) -> Tensor:
        kind = self.pick("batch", "batch", "batch", "other axis", "layer")
        if kind == "layer":
            return layers.LayerNormalization()(x)
        axis = 1 if kind == "other axis" else -1
        return layers.BatchNormalization(axis=axis, scale=self.flag(), center=self.flag())(x)

    def activated(self, x: Tensor) -> Tensor:
        kind = self.pick("layer", "function", "prelu", "relu", "leaky", "softmax")
        if kind == "layer":
            return layers.Activation(self.pick(*ACTIVATIONS))(x)
        if kind == "function":
            return getattr(ops, self.pick("relu", "tanh", "sigmoid", "silu", "square"))(x)
        if kind == "prelu":
            axes = list(range(1, len(x.shape) - 1))
            shared = self.pick(None, axes or None, [len(x.shape) - 1])
            return layers.PReLU(shared_axes=shared)(x)
        if kind == "softmax":
            return layers.Softmax()(x)
        if kind == "relu":
            return layers.ReLU(max_value=self.pick(None, 6.0), negative_slope=self.pick(0.0, 0.1))(
                x
            )
        return layers.LeakyReLU(0.2)(x)

    def elementwise(self, x: Tensor) -> Tensor:
        numbers = (np.arange(1, x.shape[-1] + 1) / 4).astype("float32")
        return self.pick(
            lambda x: x * 2.0,
            lambda x: x + 0.5,
            lambda x: 1.0 - x,
            lambda x: x + numbers,
            lambda x: x * numbers,
            layers.Dropout(0.5),
            layers.Rescaling(0.5, 0.25),
            layers.Rescaling(numbers, -numbers),
            layers.GaussianNoise(0.1),
        )(x)

    def spread_out(self, x: Tensor) -> Tensor:
        """Makes a vector a map."""
        size = x.shape[-1]
        if self.flag():
            return layers.RepeatVector(3)(x)
        return layers.Reshape((size // 2, 2) if size % 2 == 0 else (1, size))(x)

    def spatial(self, x: Tensor) -> Tensor:
        """Moves elements, or takes several as one."""
        rank = len(x.shape) - 2
        small = min(x.shape[1:-1])
        kinds = ["zeros", "global", "flatten", "reshape", "permute"]
        kinds += ["pool", "crop"] if small >= 3 else []
        kinds += ["up"] if max(x.shape[1:-1]) <= 6 and rank < 3 else []
        kind = self.pick(*kinds)
        if kind == "pool":
            name = self.pick("Max", "Average")
            layer = getattr(layers, f"{name}Pooling{rank}D")
            return layer(2, strides=self.pick(1, 2), padding=self.pick("valid", "same"))(x)
        if kind == "zeros":
            return getattr(layers, f"ZeroPadding{rank}D")(1)(x)
        if kind == "crop":
            return getattr(layers, f"Cropping{rank}D")(1)(x)
        if kind == "up":
            return getattr(layers, f"UpSampling{rank}D")(2)(x)
        if kind == "global":
            name = self.pick("Max", "Average")
            return getattr(layers, f"Global{name}Pooling{rank}D")(keepdims=self.flag())(x)
        if kind == "flatten":
            return layers.Flatten()(x)
        if kind == "permute":
            return layers.Permute(
                self.pick((2, 1, *range(3, rank + 2)), tuple(range(rank + 1, 0, -1)))
            )(x)
        if self.flag():
            return layers.Reshape((-1, x.shape[-1]))(x)
        return layers.Reshape((int(np.prod(x.shape[1:])),))(x)

    def fitting(self, x: Tensor, like: Tensor) -> Tensor:
        """A branch from a vector to the shape of another vector."""
        return self.filters(x, units=like.shape[-1])

    def branch(self, x: Tensor, units: int | None = None) -> Tensor:
        """A branch with the same sizes but for the channels."""
        y = self.filters(x, units or x.shape[-1], keeping=True)
        if self.flag():
            y = layers.BatchNormalization(scale=self.flag(), center=self.flag())(y)
        if self.flag():
            y = layers.Activation(self.pick(*ACTIVATIONS))(y)
        return y

    def merged(self, one: Tensor, other: Tensor) -> Tensor:
        merge = self.pick(
            *"Add Add Subtract Multiply Average Maximum Minimum Concatenate".split(), "+", "*", "-"
        )
        if merge in "+*-":
            return {"+": one + other, "*": one * other, "-": one - other}[merge]
        return getattr(layers, merge)()([one, other])

    def combined(self, x: Tensor) -> Tensor:
        kind = self.pick("skip", "branches", "gate", "wide", "three")
        if kind == "skip":
            return self.merged(x, self.branch(x))
        if kind == "branches":
            units = self.pick(4, 6)
            return self.merged(self.branch(x, units), self.branch(x, units))
        if kind == "three":
            merge = self.pick("Add", "Average", "Multiply", "Concatenate")
            return getattr(layers, merge)()([x, self.branch(x), self.branch(x)])
        if kind == "wide":
            return layers.Concatenate()([x, self.branch(x, self.pick(4, 6))])
        rank = len(x.shape) - 2
        gate = x
        if rank:
            gate = getattr(layers, f"GlobalAveragePooling{rank}D")(keepdims=True)(x)
        gate = layers.Dense(self.pick(4, 6), "relu")(gate)
        return layers.Multiply()([x, layers.Dense(x.shape[-1], "sigmoid")(gate)])

    def shared(self, x: Tensor) -> Tensor:
        """A layer that is used twice."""
        layer = layers.Dense(self.pick(4, 6), self.pick(*ACTIVATIONS), use_bias=self.flag())
        one, other = layer(x), layer(self.branch(x))
        if self.flag():  # of one of the two only a part is used
            other = self.branch(other)
        return self.merged(one, other)

    def wrapped(self, x: Tensor) -> Tensor:
        """A layer of which no rule is known, or a recurrent one."""
        if len(x.shape) != 3:
            return layers.UnitNormalization()(x)
        return self.pick(
            layers.LSTM(4),
            layers.GRU(4, return_sequences=True),
            layers.SimpleRNN(4),
            layers.Bidirectional(layers.LSTM(2)),
            layers.TimeDistributed(layers.Dense(4)),
        )(x)

    def nested(self, x: Tensor) -> Tensor:
        """A model inside, used once or twice."""
        self.depth += 1
        if self.flag():
            inner = keras.Sequential([keras.Input(x.shape[1:])])
            inner.add(layers.Dense(self.pick(4, 6), self.pick(*ACTIVATIONS)))
            inner.add(layers.BatchNormalization())
        else:
            inputs = keras.Input(x.shape[1:])
            inner = keras.Model(inputs, self.steps(inputs, self.pick(1, 2)))
        self.depth -= 1
        if self.flag():
            return inner(x)
        y, z = inner(x), inner(self.branch(x))
        return self.merged(self.branch(y), self.branch(z)) if self.flag() else self.merged(y, z)

    def vector(self, x: Tensor) -> Tensor:
        """Whatever it is, as a vector."""
        rank = len(x.shape) - 2
        if not rank:
            return x
        kinds = ["flatten", "average", "max"] + (["lstm", "gru"] if rank == 1 else [])
        kind = self.pick(*kinds)
        if kind in ("lstm", "gru"):
            return (layers.LSTM if kind == "lstm" else layers.GRU)(4)(x)
        if kind == "flatten":
            return layers.Flatten()(x)
        name = {"average": "Average", "max": "Max"}[kind]
        return getattr(layers, f"Global{name}Pooling{rank}D")()(x)


def zero(
    layer: keras.Layer, channels: Sequence[int] | None = None, bias: float | None = None
) -> None:
    """Zeroes filters of a layer, all by default; sets all its biases if a number is given."""
    kernel = np.array(ops.convert_to_numpy(layer.kernel))
    kernel[..., slice(None) if channels is None else channels] = 0
    layer.kernel.assign(kernel)
    if bias is not None:
        layer.bias.assign(np.full(layer.bias.shape, bias))
