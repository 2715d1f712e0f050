"""Sequences of digits: one occurs twice, the others differ, and the seed says which."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import invalid

from keras_l0.experiments.sequences import draw_sequences

LABELS = np.arange(30) % 10
IMAGES = (8 * np.arange(30)).astype(np.uint8).reshape(30, 1, 1) * np.ones((1, 2, 3), np.uint8)


@given(length=st.integers(2, 11), seed=st.integers(0, 5))
def test_one_digit_occurs_twice_and_is_the_class(length: int, seed: int) -> None:
    found = draw_sequences(IMAGES, LABELS, 20, seed, length)
    assert found.x.shape == (20, length, 6)
    assert found.x.dtype == np.float32
    assert found.y.dtype == np.int32
    shown = LABELS[np.rint(found.x[:, :, 0] * 255 / 8).astype(int)]
    for digits, label in zip(shown, found.y, strict=True):
        assert np.count_nonzero(digits == label) == 2
        assert len(set(digits)) == length - 1


def test_a_seed_gives_the_same_again_and_another_one_others() -> None:
    one, same, other = (draw_sequences(IMAGES, LABELS, 50, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.x, same.x)
    assert (one.x != other.x).any()
    assert len({tuple(row) for row in one.x[:, :, 0]}) > 40


def test_each_digit_must_be_there() -> None:
    with pytest.raises(ValueError, match=r"each digit among them.*none of \[3\]"):
        draw_sequences(IMAGES, np.where(LABELS == 3, 4, LABELS), 5, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, invalid("count", "an integer >= 1", 0)),
        ({"seed": -1}, invalid("seed", "an integer >= 0", -1)),
        ({"length": 1}, invalid("length", "an integer >= 2", 1)),
        (
            {"length": 12},
            invalid("length", "an integer <= 11, since 10 digits are different", 12),
        ),
    ],
)
def test_what_is_wrong_is_told(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_sequences(IMAGES, LABELS, **{"count": 5, "seed": 0, **arguments})


def test_what_is_no_image_of_a_digit_is_told() -> None:
    for images, labels, message in (
        (IMAGES / 255.0, LABELS, "Expected uint8 of shape"),
        (IMAGES[..., None], LABELS, "Expected uint8 of shape"),
        (IMAGES.tolist(), LABELS, "Expected uint8 of shape"),
        (IMAGES, LABELS[:-1], f"Expected {len(IMAGES)} integers from 0 to 9"),
        (IMAGES, LABELS + 1, f"Expected {len(IMAGES)} integers from 0 to 9"),
    ):
        with pytest.raises(ValueError, match=message):
            draw_sequences(images, labels, 1, 0)
