"""Augmented batches: all examples, in another order, changed, and alike for a seed."""

import numpy as np
import pytest

from keras_l0.experiments.augmentation import AUGMENTATIONS, Augmented

X = np.random.default_rng(0).random((10, 32, 32, 3), np.float32)
Y = np.arange(10)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_epoch_has_each_example_once_in_an_order_of_its_own(name: str) -> None:
    batches = Augmented(X, Y, 4, name, seed=1)
    first = np.concatenate([batches[place][1] for place in range(len(batches))])
    batches.on_epoch_begin()
    second = np.concatenate([batches[place][1] for place in range(len(batches))])
    assert sorted(first) == sorted(second) == list(Y)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_images_are_changed_by_the_seed_and_stay_images(name: str) -> None:
    (one, labels), (same, _) = (Augmented(X, Y, 10, name, seed=1)[0] for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert one.shape == X.shape
    assert one.dtype == np.float32
    assert one.min() >= 0
    assert one.max() <= 1 + 1e-5
    changed = np.abs(one - X[labels]).max(axis=(1, 2, 3)) > 0
    assert changed.any() == (name != "none")


def test_images_without_channels_are_changed_like_others_and_left_as_they_were() -> None:
    x = X[..., 0].copy()
    one, labels = Augmented(x, Y, 10, "nudged", seed=1)[0]
    whole, _ = Augmented(x[..., None], Y, 10, "nudged", seed=1)[0]
    np.testing.assert_array_equal(one, whole[..., 0])
    np.testing.assert_array_equal(x, X[..., 0])
    middles = [np.average(np.arange(32), weights=batch.sum((0, 2))) for batch in (one, x[labels])]
    assert abs(middles[0] - middles[1]) < 2


def test_an_augmentation_that_is_none() -> None:
    with pytest.raises(ValueError, match="augmentation"):
        Augmented(X, Y, 4, "mirrored", seed=0)
