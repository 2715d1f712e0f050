"""Composite adds penalties up, and the redundancy scheme's fit each kernel."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from strategies import invalid

from keras_l0 import L2L0, Composite, GradientCount, RedundancyPenalty, regularize
from keras_l0.composite import constraints
from keras_l0.pruning.neurons import Neurons
from keras_l0.pruning.targets import find_targets

NAMES = ("axis", "axes", "axis")
KERNEL = np.random.default_rng(0).normal(size=(3, 3, 4, 6)).astype("float32")


def value(penalty: Any, w: Any = KERNEL) -> float:
    return float(ops.convert_to_numpy(penalty(ops.convert_to_tensor(w))))


def test_penalties_are_added_up() -> None:
    parts = [RedundancyPenalty(0.1), GradientCount(0.01), L2L0(l2=0.5)]
    assert value(Composite(parts)) == pytest.approx(sum(map(value, parts)), rel=1e-5)
    assert value(Composite(parts[:1])) == pytest.approx(value(parts[0]))


def test_it_can_be_saved(tmp_path: Path) -> None:
    penalty = Composite([RedundancyPenalty(0.1, -2), keras.regularizers.L1(0.5)])
    model = keras.Sequential([keras.Input((6,)), layers.Dense(2, kernel_regularizer=penalty)])
    model.save(tmp_path / "m.keras")
    (loaded,) = keras.saving.load_model(tmp_path / "m.keras").layers
    assert loaded.kernel_regularizer.get_config() == penalty.get_config()
    assert isinstance(loaded.kernel_regularizer.regularizers[1], keras.regularizers.L1)


@pytest.mark.parametrize("given", [[], [0.5], L2L0(), None])
def test_what_is_no_list_of_regularizers_is_refused(given: Any) -> None:
    wanted = "a list of keras.regularizers.Regularizer"
    with pytest.raises(ValueError, match=invalid("regularizers", wanted, given)):
        Composite(given)


def test_each_kernel_whose_filters_can_go_has_constraints_that_fit_it() -> None:
    x = inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(6, 3, name="conv")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2D(5, 1, name="pointwise")(x)
    x = layers.SeparableConv2D(7, 3, name="separable")(x)
    x = layers.Conv2DTranspose(4, 3, name="transpose")(x)
    x = layers.Dense(8, name="dense")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(2, name="top")(x), name="net")
    done = regularize(model, None, overrides=constraints(Neurons(model, find_targets(model))))
    found = {
        path.removeprefix("net/"): tuple(
            getattr(one, name)
            for one, name in zip(
                (*penalty.regularizers, penalty.regularizers[1]), NAMES, strict=True
            )
        )
        for path, penalty in done.penalized.items()
        if isinstance(penalty, Composite)
    }
    assert found == {
        "conv/kernel": (-1, "spatial", -1),
        "depthwise/kernel": (-2, "spatial", -2),
        "pointwise/kernel": (-1, "filters", -1),
        "separable/pointwise_kernel": (-1, "filters", -1),
        "transpose/kernel": (-2, "spatial", -2),
        "dense/kernel": (-1, "filters", -1),
    }


def test_what_no_penalty_can_move_has_none() -> None:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Embedding(9, 6, name="table"),
            layers.Dense(5, name="frozen", trainable=False),
            layers.Dense(5, name="trained"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2, name="top"),
        ]
    )
    neurons = Neurons(model, find_targets(model, ["table", "frozen", "trained"]))
    assert len(neurons.groups) == 3
    done = regularize(model, None, overrides=constraints(neurons))
    wanted = [path for path, penalty in done.penalized.items() if penalty is not None]
    assert [path.split("/")[-2] for path in wanted] == ["trained"]
