"""`TimeDistributed` over an unknown number of steps is exported as a file for any number."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

pytest.importorskip("tensorflow", reason="exporting needs TensorFlow")
pytest.importorskip("ai_edge_litert", reason="exporting needs LiteRT")

from keras_l0.export import convert
from keras_l0.export.tflite import export_tflite

ON_TENSORFLOW = keras.config.backend() == "tensorflow"
only_on_tensorflow = pytest.mark.skipif(
    not ON_TENSORFLOW,
    reason="off TensorFlow each conversion starts a process of 10 s; one case covers it",
)
each = layers.TimeDistributed


def frames() -> keras.Model:
    inner = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(2, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
        ]
    )
    return keras.Sequential([keras.Input((None, 6, 6, 1)), each(inner), layers.LSTM(3)])


def shared() -> keras.Model:
    """A layer in a nested model and in the outer one."""
    dense = each(layers.Dense(4))
    inner_input, outer_input = keras.Input((None, 4)), keras.Input((None, 4))
    inner = keras.Model(inner_input, dense(inner_input))
    return keras.Model(outer_input, layers.Add()([inner(outer_input), dense(outer_input)]))


def masked() -> keras.Model:
    return keras.Sequential(
        [keras.Input((None, 4)), layers.Masking(), each(layers.Dense(4)), layers.LSTM(3)]
    )


def masked_inside() -> keras.Model:
    """The inner layer is given the mask."""
    return keras.Sequential(
        [
            keras.Input((None, 3), dtype="int32"),
            layers.Embedding(9, 4, mask_zero=True),
            each(layers.GlobalAveragePooling1D()),
            layers.Dense(2),
        ]
    )


def normalized() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((None, 4)),
            each(layers.BatchNormalization()),
            each(layers.Dropout(0.5)),
            each(layers.Dense(2)),
        ]
    )


def steps_of_steps() -> keras.Model:
    return keras.Sequential([keras.Input((None, None, 4)), each(each(layers.Dense(2)))])


def fixed_batch() -> keras.Model:
    return keras.Sequential([keras.Input(batch_shape=(3, None, 4)), each(layers.Dense(2))])


def unrolled() -> keras.Model:
    return keras.Sequential([keras.Input((None, 3, 4)), each(layers.LSTM(2, unroll=True))])


def randomized(model: keras.Model) -> keras.Model:
    rng = np.random.default_rng(1)
    for variable in model.weights:
        values = rng.normal(size=variable.shape)
        variable.assign(np.abs(values) + 0.5 if "variance" in variable.path else values)
    return model


def samples(model: keras.Model, count: int, steps: int) -> Any:
    rng = np.random.default_rng(steps)
    shape = (count, steps, *(size or 2 for size in model.inputs[0].shape[2:]))
    if "int" in model.inputs[0].dtype:
        tokens = rng.integers(0, 9, shape)
        tokens[..., 0] = 1  # no step is masked altogether
        return tokens.astype("int32")
    values = rng.normal(size=shape).astype("float32")
    values[:, steps // 2 + 1 :] = 0  # for models that mask
    return values


def outputs_of_file(path: Path, x: Any, batch: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    file = Interpreter(str(path))
    place = file.get_input_details()[0]["index"]
    file.resize_tensor_input(place, (batch, *x.shape[1:]))
    file.allocate_tensors()
    found = []
    for start in range(0, len(x), batch):
        file.set_tensor(place, x[start : start + batch])
        file.invoke()
        found.append(file.get_tensor(file.get_output_details()[0]["index"]))
    return np.concatenate(found)


@pytest.mark.parametrize(
    "build",
    [
        masked,
        *(
            pytest.param(build, marks=only_on_tensorflow)
            for build in (
                frames,
                shared,
                masked_inside,
                normalized,
                steps_of_steps,
                fixed_batch,
                unrolled,
            )
        ),
    ],
)
def test_the_file_computes_all_steps_of_any_number(
    build: Callable[[], keras.Model], tmp_path: Path
) -> None:
    model = randomized(build())
    export_tflite(model, tmp_path / "m.tflite", check_data=samples(model, 6, 5))
    for steps in (1, 2, 7):
        x = samples(model, 3, steps)
        expected = keras.ops.convert_to_numpy(model(x, training=False))
        actual = outputs_of_file(tmp_path / "m.tflite", x, model.inputs[0].shape[0] or 1)
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@only_on_tensorflow
def test_a_recurrent_layer_inside_is_refused_with_the_layer_and_the_way_out(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((None, 3, 4)), each(layers.Bidirectional(layers.GRU(2)), name="words")]
    )
    with pytest.raises(RuntimeError, match=r"the layer words, .*keras\.Input\(\(steps, \.\.\.\)\)"):
        export_tflite(model, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


@only_on_tensorflow
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = masked()
    if fails:

        def refuse(*_: Any) -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr(convert, "signature", refuse)
        with pytest.raises(KeyboardInterrupt):
            export_tflite(model, tmp_path / "m.tflite")
    else:
        export_tflite(model, tmp_path / "m.tflite")
    assert not [layer for layer in model._flatten_layers() if "call" in vars(layer)]
