"""Networks and images for segmentation: sizes, determinism, and that channels go."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from strategies import invalid

from keras_l0 import prune, shrink
from keras_l0.experiments import scenes, segmentation

DIGITS = np.zeros((3, 8, 8), np.uint8)
for place in range(3):
    DIGITS[place, 2:6, place : place + 3] = 200
LABELS = np.array([0, 4, 9])


@pytest.mark.parametrize(
    ("make", "parameters"),
    [(segmentation.u_net, 489_291), (segmentation.mobile_segmenter, 284_235)],
)
def test_each_pixel_has_probabilities_and_half_of_the_channels_can_go(
    make: Any, parameters: int
) -> None:
    model = make()
    assert model.count_params() == parameters
    x = np.random.default_rng(0).random((2, 64, 64, 1), np.float32)
    found = ops.convert_to_numpy(model(x))
    assert found.shape == (2, 64, 64, 11)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    found = prune(model, method="neuron", fraction=0.5)
    assert not [why for why in found.skipped.values() if "no kernel" not in why]
    small = shrink(model)
    assert small.count_params() < 0.35 * parameters
    np.testing.assert_allclose(
        ops.convert_to_numpy(small(x)), ops.convert_to_numpy(model(x)), rtol=1e-4, atol=1e-5
    )


def test_a_penalty_is_on_every_kernel() -> None:
    for make in (segmentation.u_net, segmentation.mobile_segmenter):
        model = make((32, 32, 1), kernel_regularizer=keras.regularizers.L2(0.1))
        kernels = [v for v in model.trainable_variables if v.name.endswith("kernel")]
        assert all(kernel.regularizer is not None for kernel in kernels)


def test_scenes_are_digits_on_a_canvas_and_the_same_by_seed() -> None:
    one, same, other = (scenes.draw_scenes(DIGITS, LABELS, 6, seed, size=20) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.x, same.x)
    np.testing.assert_array_equal(one.y, same.y)
    assert (one.x != other.x).any()
    assert one.x.shape == (6, 20, 20, 1)
    assert one.x.dtype == np.float32
    assert one.y.dtype == np.int32
    assert set(np.unique(one.y)) <= {0, 1, 5, 10}
    np.testing.assert_array_equal(one.x[..., 0] > 0, one.y > 0)
    assert all(0 < (y > 0).sum() <= 4 * 12 for y in one.y)


def test_training_and_test_scenes_are_of_their_own_digits() -> None:
    from keras_l0.experiments.reading import Dataset

    data = Dataset("own", DIGITS[:1], LABELS[:1], DIGITS[2:], LABELS[2:], 10, 255)
    train, test = scenes.scenes_of(data, 4, 3, seed=0, size=16)
    assert set(np.unique(train.y)) == {0, 1}
    assert set(np.unique(test.y)) == {0, 10}
    assert (len(train.x), len(test.x)) == (4, 3)


def test_overlaps_are_measured_for_each_class_that_occurs() -> None:
    wanted, found = np.array([[0, 0, 2, 2, 2, 2]]), np.array([[0, 2, 2, 2, 0, 0]])
    counts = scenes.overlaps(wanted, found, 4)
    np.testing.assert_array_equal(counts[[0, 0, 2, 2], [0, 2, 0, 2]], [1, 1, 2, 2])
    assert scenes.mean_iou(counts) == pytest.approx((1 / 4 + 2 / 5) / 2)
    assert scenes.mean_dice(counts) == pytest.approx((2 / 5 + 4 / 7) / 2)
    same = scenes.overlaps(wanted, wanted, 4)
    assert scenes.mean_iou(same) == scenes.mean_dice(same) == 1


def test_what_is_wrong_is_told() -> None:
    with pytest.raises(ValueError, match=invalid("count", "an integer >= 1", 0)):
        scenes.draw_scenes(DIGITS, LABELS, 0, 0)
    with pytest.raises(ValueError, match=invalid("size", "an integer >= 8", 7)):
        scenes.draw_scenes(DIGITS, LABELS, 1, 0, size=7)
    with pytest.raises(ValueError, match="multiples of 8"):
        segmentation.u_net((30, 32, 1))
    with pytest.raises(ValueError, match=invalid("width", "a finite float > 0", 0)):
        segmentation.mobile_segmenter(width=0)
    with pytest.raises(ValueError, match="n >= 1"):
        scenes.draw_scenes(DIGITS[:0], LABELS[:0], 1, 0)
    with pytest.raises(ValueError, match="integers from 0 to 9"):
        scenes.draw_scenes(DIGITS, LABELS - 10, 1, 0)
    with pytest.raises(ValueError, match=r"Expected the shape of `wanted`, \(2,\)"):
        scenes.overlaps(np.zeros(2, int), np.zeros(3, int))
    with pytest.raises(ValueError, match="Expected classes from 0 to 10"):
        scenes.overlaps(np.zeros(2, int), np.array([0, 11]))
    with pytest.raises(ValueError, match="multiples of 32"):
        segmentation.mobile_segmenter((48, 32, 1))
