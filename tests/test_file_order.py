"""Inputs and outputs of every file are in the model's order, by position as by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

pytest.importorskip("tensorflow", reason="exporting needs TensorFlow")
pytest.importorskip("ai_edge_litert", reason="exporting needs LiteRT")

from keras_l0.export.tflite import export_tflite

only_on_tensorflow = pytest.mark.skipif(
    keras.config.backend() != "tensorflow",
    reason="what it covers does not depend on the backend, and each conversion off "
    "TensorFlow starts a process of 10 s",
)


def three_heads() -> keras.Model:
    x = keras.Input((6,))
    heads = [layers.Dense(n, name=name)(x) for n, name in ((4, "z"), (2, "m"), (3, "a"))]
    return keras.Model(x, heads)


def dict_of_heads() -> keras.Model:
    x = keras.Input((6,))
    return keras.Model(x, {"z": layers.Dense(4)(x), "a": layers.Dense(3)(x), "m": layers.ReLU()(x)})


def twelve_heads() -> keras.Model:
    """Where an order of names as text would put the tenth before the second."""
    x = keras.Input((6,))
    return keras.Model(x, [layers.Dense(i + 1)(x) for i in range(12)])


def split() -> keras.Model:
    x = keras.Input((6,))
    return keras.Model(x, ops.split(layers.Dense(7)(x), [1, 3], axis=-1)[::-1])


def top_k() -> keras.Model:
    x = keras.Input((6,))
    values, places = ops.top_k(layers.Dense(9)(x), 2)
    return keras.Model(x, [places, values])


def states() -> keras.Model:
    x = keras.Input((5, 6))
    y, hidden, carried = layers.LSTM(4, return_sequences=True, return_state=True, unroll=True)(x)
    return keras.Model(x, [carried, y, hidden])


def output_twice() -> keras.Model:
    x = keras.Input((6,))
    twice = layers.Dense(4)(x)
    return keras.Model(x, [twice, layers.Dense(3)(x), twice])


def output_is_input() -> keras.Model:
    x = keras.Input((6,))
    return keras.Model(x, [layers.Dense(3)(x), x])


def two_inputs() -> keras.Model:
    first, second = keras.Input((6,), name="z"), keras.Input((4,), name="a")
    return keras.Model([first, second], [layers.Dense(3)(second), layers.Dense(2)(first)])


def two_inputs_reversed() -> keras.Model:
    """Reads them in the other order than it lists them."""
    first, second = keras.Input((4,), name="a"), keras.Input((6,), name="z")
    joined = layers.Concatenate()([layers.Dense(2)(second), layers.Dense(2)(first)])
    return keras.Model([second, first], [joined, layers.Dense(5)(first)])


def dict_of_inputs() -> keras.Model:
    inputs = {"z": keras.Input((6,), name="z"), "a": keras.Input((4,), name="a")}
    return keras.Model(inputs, [layers.Dense(3)(inputs["z"]), layers.Dense(2)(inputs["a"])])


def dead_units() -> keras.Model:
    """Shrunk and gathered: inputs that nothing reads, and units that are always zero."""
    x = keras.Input((60,))
    hidden = layers.Dense(40, activation="relu")
    y = hidden(x)
    model = keras.Model(x, [layers.Dense(n, name=f"head_{9 - n}")(y) for n in (5, 2, 7)])
    kernel = np.random.default_rng(0).normal(size=(60, 40))
    kernel[8:], kernel[:, 20:] = 0, 0
    hidden.kernel.assign(kernel)
    return model


def outputs_by_position(path: Path, x: list[Any], plain: bool) -> list[Any]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if plain else OpResolverType.AUTO
    interpreter = Interpreter(str(path), experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), x, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()]


def require_the_order(path: Path, model: keras.Model, tolerance: float = 1e-4) -> None:
    """By position, with the default delegate and without, and by the signature's names."""
    from ai_edge_litert.interpreter import Interpreter

    rng = np.random.default_rng(3)
    x = [rng.normal(size=(1, *one.shape[1:])).astype(np.float32) for one in model.inputs]
    names = [one.name for one in model.inputs]
    given = dict(zip(names, x, strict=True)) if isinstance(model.input, dict) else x
    result = model(given if len(x) > 1 else x[0], training=False)
    expected = [ops.convert_to_numpy(y) for y in keras.tree.flatten(result)]
    for plain in (False, True):
        received = outputs_by_position(path, x, plain)
        assert [y.shape for y in received] == [y.shape for y in expected]
        for y, y_hat in zip(expected, received, strict=True):
            np.testing.assert_allclose(y_hat, y, atol=tolerance * (np.abs(y).max() + 1))
    interpreter = Interpreter(str(path))
    signature = interpreter.get_signature_runner()
    by_position = {one["index"]: place for place, one in enumerate(interpreter.get_input_details())}
    places = {n: by_position[one["index"]] for n, one in signature.get_input_details().items()}
    assert sorted(places.values()) == list(range(len(x)))
    named = signature(**{name: x[place] for name, place in places.items()})
    assert sorted(y.shape for y in named.values()) == sorted(y.shape for y in expected)


@pytest.mark.parametrize(
    "build",
    [
        three_heads,
        *(
            pytest.param(build, marks=only_on_tensorflow)
            for build in (
                dict_of_heads,
                twelve_heads,
                split,
                top_k,
                states,
                output_twice,
                output_is_input,
                two_inputs,
                two_inputs_reversed,
                dict_of_inputs,
            )
        ),
    ],
)
def test_outputs_and_inputs_by_position_are_those_of_the_model(
    build: Callable[[], keras.Model], tmp_path: Path
) -> None:
    keras.utils.set_random_seed(0)
    model = build()
    export_tflite(model, tmp_path / "m.tflite")
    require_the_order(tmp_path / "m.tflite", model)


@only_on_tensorflow
@pytest.mark.parametrize("quantize", [None, "float16", "dynamic", "int8"])
def test_every_candidate_has_the_order(quantize: str | None, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = dead_units()
    x = np.random.default_rng(0).normal(size=(64, 60)).astype(np.float32)
    how: dict[str, Any] = {"quantize": quantize, "optimize_for": "latency"}
    report = export_tflite(
        model, tmp_path / "m.tflite", **how, calibration=x, keep_candidates=tmp_path / "kept"
    )
    kept = sorted((tmp_path / "kept").glob("*.tflite"))
    assert {one.stem.partition("-")[0] for one in kept} >= {"shrunk", "gathered"}
    assert len(kept) == len(report.candidates)
    for path in (tmp_path / "m.tflite", *kept):
        require_the_order(path, model, 1e-3 if quantize is None else 0.1)
