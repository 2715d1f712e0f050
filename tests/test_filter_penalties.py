"""GradientCount counts changes inside kernels, RedundancyPenalty filters that are alike."""

import itertools
import math
import warnings
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import layers, ops
from numpy.typing import NDArray
from strategies import invalid

from keras_l0 import GradientCount, RedundancyPenalty


@pytest.fixture(autouse=True)
def fresh_keras() -> None:
    """In place of conftest's: no layer is named here, and clearing a session takes long."""
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)


def value(penalty: Any, w: NDArray[Any]) -> float:
    return float(ops.convert_to_numpy(penalty(ops.convert_to_tensor(w))))


def count_oracle(w: NDArray[Any], beta: float, axes: str) -> float:
    """The sum over all weights, one by one, in float64."""
    w = w.astype(np.float64)
    along = [w.ndim - 1] if axes == "filters" else list(range(w.ndim - 2))
    total = 0.0
    for place in itertools.product(*map(range, w.shape)):
        change = 0.0
        for axis in along:
            if place[axis] + 1 < w.shape[axis]:
                ahead = (*place[:axis], place[axis] + 1, *place[axis + 1 :])
                change += abs(w[ahead] - w[place])
        total += 1 - math.exp(-beta * change)
    return total


kernels = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=3, max_dims=5, min_side=1, max_side=3),
    elements=st.floats(-2, 2, width=32),
)


@given(w=kernels, beta=st.floats(1, 20), axes=st.sampled_from(["spatial", "filters"]))
@settings(max_examples=40)
def test_changes_are_counted(w: NDArray[Any], beta: float, axes: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = value(GradientCount(0.5, beta, axes), w)
    assert found == pytest.approx(0.5 * count_oracle(w, beta, axes), rel=1e-4, abs=1e-4)


def test_a_constant_kernel_counts_nothing_and_an_edge_its_length() -> None:
    penalty = GradientCount(1.0, beta=50.0)
    constant = np.full((5, 4, 2, 3), 0.7, "float32")
    assert value(penalty, constant) == 0
    edge = np.zeros((5, 4, 1, 1), "float32")
    edge[:, 2:] = 3.0
    assert value(penalty, edge) == pytest.approx(5)
    assert value(penalty, np.swapaxes(edge, 0, 1)) == pytest.approx(5)
    line = np.zeros((6, 1, 1), "float32")
    line[3:] = -2.0
    assert value(penalty, line) == pytest.approx(1)


def test_along_filters_equal_neighbours_count_nothing() -> None:
    penalty = GradientCount(1.0, beta=50.0, axes="filters")
    w = np.zeros((1, 1, 4, 6), "float32")
    w[..., 3:] = 2.0
    assert value(penalty, w) == pytest.approx(4)


def test_filters_may_stand_on_the_axis_before_the_last() -> None:
    w = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], np.float32).reshape(1, 1, 2, 3)
    assert value(GradientCount(1.0, axes="filters", axis=-2), w) == 0
    assert value(GradientCount(1.0, axes="filters"), w) == pytest.approx(4, rel=1e-3)


def test_where_there_is_one_place_it_says_once_what_to_do() -> None:
    penalty = GradientCount(1.0)
    with pytest.warns(UserWarning, match='counts nothing. Use axes="filters"'):
        found = value(penalty, np.ones((1, 1, 3, 4), "float32"))
    assert found == 0
    assert value(penalty, np.ones((3, 4), "float32")) == 0  # a warning would be an error
    with pytest.warns(UserWarning, match='Use axes="spatial"'):
        found = value(GradientCount(1.0, axes="filters"), np.ones((3, 3, 2, 1), "float32"))
    assert found == 0


def alike_oracle(w: NDArray[Any], axis: int) -> float:
    filters = np.moveaxis(w.astype(np.float64), axis, 0).reshape(w.shape[axis], -1)
    n = len(filters)
    total = 0.0
    for one, other in itertools.permutations(filters, 2):
        size = np.linalg.norm(one) * np.linalg.norm(other)
        total += (one @ other / size) ** 2 if size else 0.0
    return total / (n * (n - 1)) if n > 1 else 0.0


@given(
    shape=hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=4),
    axis=st.sampled_from([-1, -2]),
    seed=st.integers(0, 99),
    zeros=st.booleans(),
)
@settings(max_examples=40)
def test_alike_filters_are_penalized(
    shape: tuple[int, ...], axis: int, seed: int, zeros: bool
) -> None:
    w = np.random.default_rng(seed).normal(size=shape).astype("float32")
    if zeros:
        np.moveaxis(w, axis, 0)[0] = 0
    found = value(RedundancyPenalty(2.0, axis), w)
    assert found == pytest.approx(2 * alike_oracle(w, axis), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("penalty", [GradientCount(0.1), RedundancyPenalty(5.0)])
def test_training_lessens_the_penalty_and_zeros_do_no_harm(penalty: Any) -> None:
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Conv2D(5, 3, kernel_regularizer=penalty), layers.Flatten()]
    )
    kernel = model.layers[0].kernel
    w = np.array(ops.convert_to_numpy(kernel))
    w[..., 0] = 0
    w[..., 1] = w[..., 2] + 0.01
    kernel.assign(w)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    before = value(penalty, w)
    x = np.zeros((4, 6, 6, 2), "float32")
    model.fit(x, np.zeros((4, 80), "float32"), epochs=20, verbose=0)
    after = ops.convert_to_numpy(kernel)
    assert np.isfinite(after).all()
    assert value(penalty, after) < 0.9 * before


def test_they_can_be_saved(tmp_path: Any) -> None:
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(5, 3, kernel_regularizer=GradientCount(0.1, 7.0)),
            layers.DepthwiseConv2D(3, depthwise_regularizer=RedundancyPenalty(0.2, -2)),
        ]
    )
    model.save(tmp_path / "m.keras")
    first, second = keras.saving.load_model(tmp_path / "m.keras").layers
    assert first.kernel_regularizer.get_config() == {
        "weight": 0.1,
        "beta": 7.0,
        "axes": "spatial",
        "axis": -1,
    }
    assert second.depthwise_regularizer.get_config() == {"weight": 0.2, "axis": -2}


BAD: dict[str, tuple[Any, str]] = {
    "weight": (lambda: GradientCount(-1), invalid("weight", "a finite float >= 0", -1)),
    "beta": (lambda: GradientCount(1, 0.5), invalid("beta", "a finite float >= 1", 0.5)),
    "axes": (
        lambda: GradientCount(1, axes="all"),
        invalid("axes", '"spatial" or "filters"', "'all'"),
    ),
    "infinite": (
        lambda: RedundancyPenalty(math.inf),
        invalid("weight", "a finite float >= 0", math.inf),
    ),
    "axis": (lambda: RedundancyPenalty(1, 0), invalid("axis", "-1 or -2", 0)),
    "axes' axis": (lambda: GradientCount(1, axis=-3), invalid("axis", "-1 or -2", -3)),
    "an array": (lambda: RedundancyPenalty(1, np.arange(2)), "Expected -1 or -2"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_told(name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()
