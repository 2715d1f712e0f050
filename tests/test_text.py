"""Tables fit 80 columns, whatever stands in them, and no figure is cut."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_l0 import prune, summarize, sweep
from keras_l0.pruning.once import Pruned
from keras_l0.text import shortened, table

LONG = [f"separable_block_{number}_expand/depthwise_{number}/kernel" for number in (1, 12, 13)]


def width(text: str) -> int:
    return max(map(len, text.splitlines()))


@pytest.mark.parametrize("columns", [1, 3, 8, 20])
@pytest.mark.parametrize("names", [["a", "b", "c"], LONG, ["x" * 300, "y" * 300, "x" * 299 + "z"]])
def test_a_table_fits_and_has_every_figure(columns: int, names: list[str]) -> None:
    header = ["weight", *(f"column {number}" for number in range(columns))]
    rows = [
        [name, *(f"{row}{number:,}" for number in range(10**6, 10**6 + columns))]
        for row, name in enumerate(names)
    ]
    text = table(header, rows, title="of a long title " * 10)
    assert width(text) <= 80
    for row in rows:
        assert all(figure in text for figure in row[1:])
    assert all(name in text for name in header)
    shown = {line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")}
    assert len(shown - {"weight"}) == len(names)


def test_a_narrow_table_is_one() -> None:
    text = table(["layer", "zeros", "sparsity"], [["dense", "3", "50 %"], ["dense_1", "4", ""]])
    assert text.count("┌") == 1
    assert "dense_1" in text


def test_a_name_is_shortened_in_the_middle() -> None:
    assert shortened("block_1", 7) == "block_1"
    assert shortened("block_1/depthwise/kernel", 17) == "block_1/…e/kernel"
    assert len(shortened("x" * 100, 20)) == 20


def network(name: str = "") -> keras.Model:
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, name=f"{name}first")(inputs)
    x = layers.BatchNormalization(name=f"{name}normalization")(x)
    x = layers.DepthwiseConv2D(3, name=f"{name}middle")(x)
    x = layers.Flatten(name=f"{name}flatten")(x)
    model = keras.Model(inputs, layers.Dense(5, name=f"{name}last")(x), name=f"{name}net")
    metrics = ["accuracy", "sparse_categorical_crossentropy", "sparse_top_k_categorical_accuracy"]
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True), metrics=metrics)
    return model


@pytest.mark.parametrize("name", ["", "a_rather_long_prefix_of_every_name_" * 2])
def test_what_is_printed_of_a_model_fits(name: str) -> None:
    model = network(name)
    model.get_layer(f"{name}middle").trainable = False
    pruned = prune(model, 0.5)
    assert width(str(pruned)) <= 80
    assert width(str(summarize(model))) <= 80
    found = sweep(
        model,
        (np.zeros((4, 16, 16, 3), "float32"), np.arange(4) % 2),
        compressions=[2, 1.5],
        by="layer",
    )
    assert width(str(found)) <= 80
    assert "loss without penalties" in str(found)
    assert "1.50x" in str(found)


def test_what_was_pruned_is_a_small_table() -> None:
    model = network()
    model.get_layer("middle").trainable = False
    pruned = prune(model, 0.5)
    text = str(pruned)
    assert f"{pruned.zeros:,}" in text
    assert "50.00%" in text
    assert f"{pruned.compression:.2f}x" in text
    assert f"{pruned.weight_compression:.2f}x" in text
    assert "1 frozen weights: " in text
    assert len(text.splitlines()) < 12


def test_long_lists_of_what_was_left_alone_are_cut() -> None:
    paths = [f"{name}{number}" for name in LONG for number in range(30)]
    text = str(Pruned(1, 0.5, 2.0, float("inf"), paths, dict.fromkeys(paths, "frozen " * 20), []))
    assert width(text) <= 80
    assert text.count("and 88 more") == 2
    assert "infx" in text
