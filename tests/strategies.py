"""Hypothesis generators, and the oracles in NumPy that more than one test file asks."""

import itertools
import re
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from keras_l0.pruning.selection import by_value, find_cut, marked

FLOAT32_MAX = float(np.finfo(np.float32).max)

sparsities = st.one_of(
    st.sampled_from([0.0, 0.5, 0.999, np.nextafter(1.0, 0.0)]),
    st.floats(0.0, 1.0, exclude_max=True),
)
seeds = st.integers(0, 2**32 - 1)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)

# Few values, so that many are equal; and all that float32 holds, denormals among them.
elements = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, -0.5]),
    st.sampled_from([1e-45, -1e-45, 1e-40, 1e-30, 1e30, FLOAT32_MAX, -FLOAT32_MAX]),
    st.floats(-10.0, 10.0, width=32),
)


@st.composite
def weights(draw: st.DrawFn) -> list[NDArray[np.float32]]:
    """Weight tensors of a network, of any shapes, some empty, with many equal values."""
    chosen = draw(st.lists(shapes, min_size=1, max_size=4))
    return [draw(hnp.arrays(np.float32, shape, elements=elements)) for shape in chosen]


# Eighths, so that sums are exact in whatever order, and many are equal.
eighths = st.integers(-8, 8).map(lambda n: n / 8)
blocks = st.tuples(*[st.one_of(st.integers(1, 7), st.just(10**30))] * 2)


@st.composite
def eighth_kernels(draw: st.DrawFn) -> list[NDArray[np.float32]]:
    """Kernels of rank 1 to 4 whose sums are exact."""
    chosen = draw(
        st.lists(hnp.array_shapes(min_dims=1, max_dims=4, max_side=5), min_size=1, max_size=3)
    )
    return [draw(hnp.arrays(np.float32, shape, elements=eighths)) for shape in chosen]


@st.composite
def kernels(draw: st.DrawFn, count: int = 3) -> list[NDArray[np.float32]]:
    """Kernels of Dense layers, from 1 to 5 inputs and outputs."""
    sides = st.integers(1, 5)
    return [
        draw(hnp.arrays(np.float32, (draw(sides), draw(sides)), elements=elements))
        for _ in range(draw(st.integers(1, count)))
    ]


def dense_network(kernels: Sequence[NDArray[np.floating]], **layer: object) -> keras.Model:
    """A network of Dense layers side by side, named d0, d1 …, with these kernels."""
    inputs, outputs = [], []
    for i, kernel in enumerate(kernels):
        inputs.append(keras.Input((kernel.shape[0],)))
        dense = keras.layers.Dense(kernel.shape[1], name=f"d{i}", **layer)
        outputs.append(dense(inputs[-1]))
        dense.kernel.assign(kernel)
    return keras.Model(inputs, outputs, name="net")


def small_classifier() -> keras.Model:
    """A compiled classifier of 8x8 images into three classes, with layers of several kinds."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.DepthwiseConv2D(3),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(20, activation="relu"),
            layers.Dense(3),
        ],
        name="net",
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


class Holder(keras.layers.Layer):
    """A layer whose kernel has any shape, and does nothing."""

    def __init__(self, kernel: NDArray[np.floating], **layer: object) -> None:
        super().__init__(**layer)
        self.kernel = self.add_weight(shape=kernel.shape, name="kernel")
        self.kernel.assign(kernel)
        self.bias = self.add_weight(shape=(3,), name="bias")

    def call(self, inputs: object) -> object:
        return inputs


def holders(kernels: Sequence[NDArray[np.floating]]) -> keras.Model:
    """A network of layers named h0, h1 … with these kernels and three biases each."""
    inputs = keras.Input((1,))
    outputs = [Holder(kernel, name=f"h{i}")(inputs) for i, kernel in enumerate(kernels)]
    return keras.Model(inputs, outputs, name="net")


def blocks_of(
    shape: Sequence[int], block: tuple[int, int]
) -> Iterator[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    """Each block of a kernel, as its place in the grid and the places of its weights."""
    matrix = tuple(shape) if len(shape) > 1 else (int(np.prod(shape)), 1)
    members: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for place in itertools.product(*map(range, matrix)):
        *leading, i, j = place
        own = (*leading, i // block[0], j // block[1])
        members.setdefault(own, []).append(place[: len(shape)])
    yield from sorted(members.items())


def block_oracle(
    arrays: Sequence[NDArray[np.floating]], block: tuple[int, int], count: int
) -> list[NDArray[np.bool_]]:
    """The ``count`` blocks of least magnitude of all the arrays, as masks of weights."""
    found = [
        (sum(abs(float(array[place])) for place in places), which, places)
        for which, array in enumerate(arrays)
        for _, places in blocks_of(array.shape, block)
    ]
    masks = [np.zeros(array.shape, bool) for array in arrays]
    for _, which, places in sorted(found, key=lambda each: each[0])[:count]:
        for place in places:
            masks[which][place] = True
    return masks


def pattern_oracle(array: NDArray[np.floating], keep: int, of: int) -> NDArray[np.bool_]:
    """All but the ``keep`` largest of each ``of`` along the input axis, as a mask."""
    mask = np.zeros(array.shape, bool)
    for _, places in blocks_of(array.shape, (of, 1)):
        ranked = sorted(places, key=lambda place: abs(array[place]))
        for place in ranked[: max(0, len(places) - keep)]:
            mask[place] = True
    return mask


def smallest(scores: Sequence[NDArray[np.floating]], count: int) -> list[NDArray[np.bool_]]:
    """What is marked of all scores taken together, as those of a plan are."""
    wide = [score.astype(np.result_type(np.float32, *scores), copy=False) for score in scores]
    total = sum(score.size for score in wide)
    return list(marked(wide, find_cut(lambda: wide, total, count, by_value), by_value))


def smallest_oracle(scores: Sequence[NDArray[np.floating]], count: int) -> list[NDArray[np.bool_]]:
    """The first ``count`` of a stable sort of all scores, as masks."""
    flat = np.concatenate([np.ravel(score) for score in scores])
    gone = np.zeros(flat.size, bool)
    gone[np.argsort(flat, kind="stable")[:count]] = True
    masks = []
    for score in scores:
        masks.append(gone[: score.size].reshape(score.shape))
        gone = gone[score.size :]
    return masks


def numpy_weights(model: keras.Model) -> list[NDArray[np.floating]]:
    """Copies of all weights of a model."""
    return [np.array(weight) for weight in model.get_weights()]


def assert_same_bits(
    left: Sequence[NDArray[np.floating]], right: Sequence[NDArray[np.floating]]
) -> None:
    """Fails unless two lists of arrays are equal to the last bit, signs of zero included."""
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def whole(message: str) -> str:
    """A pattern for ``pytest.raises`` that only the whole message matches."""
    return f"^{re.escape(message)}$"


def invalid(argument: str, expected: str, received: str, advice: str = "") -> str:
    """A pattern that only the whole message of an invalid argument matches."""
    text = f"Invalid value for argument `{argument}`. Expected {expected}. "
    text += f"Received: {argument}={received}"
    return whole(f"{text}. {advice}." if advice else text)


# JAX has no float64 unless a switch is thrown before it starts; Keras warns and takes float32.
FLOAT64 = pytest.param(
    "float64",
    marks=pytest.mark.skipif(
        keras.backend.backend() == "jax", reason="JAX takes float64 for float32"
    ),
)
