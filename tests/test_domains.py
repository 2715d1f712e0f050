"""Random samples are of the values that a model takes, as far as its first layers tell."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_l0.export.domains import Ids, Normal, Range, input_domains
from keras_l0.export.samples import described, read_inputs


class Tokens(layers.Layer):
    """A layer of a user's own that adds embeddings of tokens and of their places."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.token, self.place = layers.Embedding(50, 4), layers.Embedding(7, 4)

    def build(self, shape: Any) -> None:
        self.token.build(shape)
        self.place.build(shape)

    def call(self, x: Any) -> Any:
        return self.token(x) + self.place(ops.arange(7))

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape, 4)


def of(*stack: Any, shape: tuple[int | None, ...], dtype: str = "float32") -> keras.Model:
    return keras.Sequential([keras.Input(shape, dtype=dtype), *stack])


def called(function: Callable[[Any], Any], shape: tuple[int | None, ...], dtype: str) -> Any:
    x = keras.Input(shape, dtype=dtype)
    return keras.Model(x, function(x))


def samples_of(model: keras.Model) -> list[Any]:
    inputs, batches = read_inputs(model, None)
    joined = [np.concatenate(arrays) for arrays in zip(*batches, strict=True)]
    assert [array.dtype.name for array in joined] == list(inputs.dtypes)
    return joined


EMBEDDED: dict[str, Callable[[], keras.Model]] = {
    "int32": lambda: of(layers.Embedding(40, 3), shape=(None,), dtype="int32"),
    "float inputs": lambda: of(layers.Embedding(40, 3), shape=(9,)),
    "after dropout and a reshape": lambda: of(
        layers.Dropout(0.5), layers.Reshape((3, 3)), layers.Embedding(40, 3), shape=(9,)
    ),
    "in a model inside": lambda: of(
        keras.Sequential([keras.Input((9,)), layers.Identity(), layers.Embedding(40, 3)]),
        layers.Flatten(),
        shape=(9,),
    ),
    "after a subtraction": lambda: called(
        lambda x: layers.Embedding(41, 3)(ops.add(x, 1)), (9,), "int32"
    ),
    "two readers": lambda: called(
        lambda x: ops.add(layers.Embedding(40, 3)(x), layers.Embedding(90, 3)(x)), (9,), "int32"
    ),
    "category encoding": lambda: of(
        layers.CategoryEncoding(40, output_mode="multi_hot"), shape=(9,), dtype="int32"
    ),
    "one-hot": lambda: called(lambda x: ops.one_hot(x, 40), (9,), "int32"),
}


@pytest.mark.parametrize("name", EMBEDDED)
def test_ids_cover_the_vocabulary(name: str) -> None:
    (ids,) = samples_of(EMBEDDED[name]())
    low = -1 if name == "after a subtraction" else 0
    assert (ids.min(), ids.max()) == (low, 39)
    assert len(np.unique(ids)) > 35
    np.testing.assert_array_equal(ids, np.rint(ids))


def test_masked_ids_end_in_zeros_and_never_are_zeros_alone() -> None:
    model = of(layers.Embedding(40, 3, mask_zero=True), shape=(None,), dtype="int32")
    (ids,) = samples_of(model)
    zero = ids == 0
    assert zero.any()
    assert not zero[:, 0].any()
    assert (np.diff(zero.astype(int), axis=1) >= 0).all()
    assert ids.max() == 39


def test_a_layer_of_embeddings_gets_ids_that_all_of_them_have() -> None:
    (ids,) = samples_of(of(Tokens(), shape=(7,)))
    assert set(np.unique(ids)) == set(range(7))


RESCALED: dict[str, tuple[Callable[[], keras.Model], float, float]] = {
    "to [0, 1]": (lambda: of(layers.Rescaling(1 / 255), shape=(8, 8, 3)), 0, 255),
    "to [-1, 1]": (lambda: of(layers.Rescaling(1 / 127.5, -1), shape=(8, 8, 3)), 0, 255),
    "bytes": (lambda: of(layers.Rescaling(1 / 255), shape=(8, 8, 3), dtype="uint8"), 0, 255),
    "after augmentation": (
        lambda: of(
            keras.Sequential([layers.RandomFlip(), layers.RandomRotation(0.1)]),
            layers.Rescaling(1 / 255),
            shape=(8, 8, 3),
        ),
        0,
        255,
    ),
    "there and back": (
        lambda: of(layers.Rescaling(255.0), layers.Rescaling(1 / 127.5, -1), shape=(8, 8, 3)),
        0,
        1,
    ),
    "from both sides": (lambda: of(layers.Rescaling(0.5, 0.5), shape=(8, 8, 3)), -1, 1),
    "inverted": (lambda: of(layers.Rescaling(-1 / 255, 1.0), shape=(8, 8, 3)), 0, 255),
    "preprocess_input of [-1, 1]": (
        lambda: called(keras.applications.mobilenet_v2.preprocess_input, (8, 8, 3), "float32"),
        0,
        255,
    ),
    "preprocess_input by mean": (
        lambda: called(keras.applications.resnet50.preprocess_input, (8, 8, 3), "float32"),
        0,
        255,
    ),
    "preprocess_input by mean and deviation": (
        lambda: called(keras.applications.densenet.preprocess_input, (8, 8, 3), "float32"),
        0,
        255,
    ),
    "EfficientNet": (
        lambda: keras.applications.EfficientNetB0(
            weights=None, input_shape=(96, 96, 3), include_top=False
        ),
        0,
        255,
    ),
}


@pytest.mark.parametrize("name", RESCALED)
def test_images_cover_the_range_that_is_rescaled(name: str) -> None:
    build, low, high = RESCALED[name]
    model = build()
    # Some of the models end with the layer in question: a reader has to come after it.
    model = keras.Model(model.inputs, layers.Conv2D(2, 3)(model.outputs[0]))
    (x,) = samples_of(model)
    span = high - low
    assert low <= x.min() < low + 0.02 * span
    assert high - 0.02 * span < x.max() <= high


def test_features_have_the_mean_and_deviation_of_a_normalization() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(500, 3)) * [1, 100, 1e4] + [0, 50, -1e5]
    layer = layers.Normalization()
    layer.adapt(data)
    (x,) = samples_of(of(layer, layers.Dense(2), shape=(3,)))
    np.testing.assert_allclose(x.mean(0), data.mean(0), atol=0.8 * data.std(0).max())
    assert (np.abs(x.mean(0) - data.mean(0)) < data.std(0)).all()
    assert (x.std(0) / data.std(0) > 0.4).all()
    assert (x.std(0) / data.std(0) < 2).all()


def test_features_have_the_mean_and_variance_of_a_first_batch_normalization() -> None:
    model = of(layers.BatchNormalization(), layers.Dense(2), shape=(3,))
    model.layers[0].moving_mean.assign([10.0, -10.0, 0.0])
    model.layers[0].moving_variance.assign([1.0, 1.0, 100.0])
    (domain,) = input_domains(model)
    assert isinstance(domain, Normal)
    np.testing.assert_allclose(domain.mean.ravel(), [10, -10, 0])
    np.testing.assert_allclose(domain.deviation.ravel(), [1, 1, 10])


@pytest.mark.parametrize(
    "build",
    [
        lambda: of(layers.Dense(3), shape=(4,)),
        lambda: called(lambda x: layers.Dense(3)(ops.multiply(x, 2.0)), (4,), "float32"),
        lambda: called(lambda x: layers.Dense(3)(ops.add(x, layers.ReLU()(x))), (4,), "float32"),
    ],
)
def test_what_tells_nothing_gets_normal_samples(build: Callable[[], keras.Model]) -> None:
    model = build()
    assert input_domains(model) == [None]
    (x,) = samples_of(model)
    assert -4 < x.min() < -1
    assert 1 < x.max() < 4


def test_each_input_has_its_own_values_and_the_report_names_them() -> None:
    words, pixels = keras.Input((5,), dtype="int32", name="words"), keras.Input((4,), name="pixels")
    flag = keras.Input((1,), name="flag", dtype="int32")
    parts = [
        layers.Flatten()(layers.Embedding(40, 3)(words)),
        layers.Dense(2)(layers.Rescaling(1 / 255)(pixels)),
        layers.Dense(2)(ops.cast(flag, "float32")),
    ]
    model = keras.Model([words, pixels, flag], layers.Concatenate()(parts))
    assert [type(one) for one in input_domains(model)] == [Ids, Range, type(None)]
    inputs, _ = read_inputs(model, None)
    assert described(model, inputs, 16, None) == (
        "16 random samples (words: ids 0 to 39, pixels: values 0 to 255, flag: integers 0 and 1)"
    )
    assert described(model, inputs, 64, "check_data") == "64 samples of `check_data`"
