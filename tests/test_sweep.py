"""A sweep tells the metrics at each compression and leaves the model as it was."""

import json
from typing import Any

import keras
import numpy as np
import pytest
from strategies import assert_same_bits, invalid, numpy_weights

from keras_l0 import prune
from keras_l0.pruning.unpruned import UNFREEZE
from keras_l0.report.sweep import sweep

METHODS = ["global", "layerwise", "random"]
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(12, 6)).astype(np.float32)
Y = GENERATOR.integers(0, 3, 12)


class Batches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return X[4 * index : 4 * index + 4], Y[4 * index : 4 * index + 4]


def network(metrics: Any = ("accuracy",), **first: Any) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu", name="a", **first),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(3, activation="softmax", name="b"),
        ],
        name="net",
    )
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=list(metrics))
    return model


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("by", ["network", "layer"])
def test_the_weights_are_left_bit_for_bit_as_they_were(method: str, by: str) -> None:
    model = network()
    kernel = numpy_weights(model)[0]
    kernel[0, :3] = [-0.0, 0.0, 1e-45]
    model.layers[0].kernel.assign(kernel)
    before = numpy_weights(model)
    seed = 3 if method == "random" else None
    found = sweep(model, (X, Y), compressions=[1, 1.5, 2], method=method, by=by, seed=seed)
    assert_same_bits(numpy_weights(model), before)
    assert len(found.points) == (3 if by == "network" else 6)


@pytest.mark.parametrize("by", ["network", "layer"])
def test_the_weights_are_left_as_they_were_though_evaluate_raises(
    by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    before = numpy_weights(model)
    evaluate, calls = model.evaluate, []

    def failing(**arguments: Any) -> dict[str, float]:
        calls.append(numpy_weights(model))
        if len(calls) == 3:
            raise RuntimeError("no more data")
        return evaluate(**arguments)

    monkeypatch.setattr(model, "evaluate", failing)
    with pytest.raises(RuntimeError, match=r"^no more data$"):
        sweep(model, (X, Y), compressions=[1.5, 2, 2.5], by=by)
    assert any(np.any(now != was) for now, was in zip(calls[-1], before, strict=True))
    assert_same_bits(numpy_weights(model), before)


@pytest.mark.parametrize("method", METHODS)
def test_a_point_is_what_prune_and_evaluate_give(method: str) -> None:
    model = network()
    seed = {"seed": 3} if method == "random" else {}
    found = sweep(model, (X, Y), compressions=[2.5, 1.5], method=method, **seed)
    plain = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert found.baseline == pytest.approx(plain)
    weights = model.get_weights()
    for point, compression in zip(found.points, [2.5, 1.5], strict=True):
        model.set_weights(weights)
        pruned = prune(model, compression=compression, method=method, **seed)
        expected = model.evaluate(X, Y, verbose=0, return_dict=True)
        assert point.metrics == pytest.approx(expected)
        assert point.weight is None
        assert point.compression == pruned.compression >= compression
        assert point.weight_compression == pruned.weight_compression


def test_by_layer_each_kernel_is_pruned_alone() -> None:
    model = network()
    found = sweep(model, (X, Y), compressions=[1, 2, 4], by="layer")
    parameters = model.count_params()
    expected = [("net/a/kernel", 48, zeros) for zeros in (0, 24, 36)]
    expected += [("net/b/kernel", 24, zeros) for zeros in (0, 12, 18)]
    for point, (path, size, zeros) in zip(found.points, expected, strict=True):
        assert point.weight == path
        assert point.weight_compression == size / (size - zeros)
        assert point.compression == parameters / (parameters - zeros)
    model.layers[0].kernel.assign(np.where(False, 0, model.get_weights()[0]))
    prune(model, 0.75, layers="a")
    assert found.points[2].metrics == pytest.approx(
        model.evaluate(X, Y, verbose=0, return_dict=True)
    )


def test_frozen_layers_are_not_swept() -> None:
    found = sweep(network(trainable=False), (X, Y), compressions=[2], by="layer")
    assert [point.weight for point in found.points] == ["net/b/kernel"]


def test_layers_chosen_are_swept_alone() -> None:
    found = sweep(network(), (X, Y), compressions=[2], by="layer", layers="a")
    assert [point.weight for point in found.points] == ["net/a/kernel"]


def test_metrics_come_by_name_from_batches_as_from_arrays() -> None:
    model = network(["accuracy", keras.metrics.SparseCategoricalCrossentropy(name="nats")])
    arrays = sweep(model, (X, Y), compressions=[2], batch_size=4)
    batches = sweep(model, Batches(), compressions=[2])
    assert set(arrays.baseline) == {"loss", "accuracy", "nats"}
    assert batches.baseline == pytest.approx(arrays.baseline)
    assert batches.points[0].metrics == pytest.approx(arrays.points[0].metrics)


def test_steps_stop_each_evaluation() -> None:
    model = network()
    found = sweep(model, Batches(), compressions=[1], steps=1)
    expected = model.evaluate(X[:4], Y[:4], verbose=0, return_dict=True)
    assert found.points[0].metrics == pytest.approx(expected)


@pytest.mark.parametrize(("by", "lines"), [("network", 1), ("layer", 2)])
def test_a_plot_returns_axes_with_a_line_for_each_thing_swept(by: str, lines: int) -> None:
    axes = pytest.importorskip("matplotlib.axes")
    found = sweep(network(), (X, Y), compressions=[1, 2], by=by)
    ax = found.plot()
    assert isinstance(ax, axes.Axes)
    curves = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(curves) == lines
    assert curves[0].get_xdata()[1] == pytest.approx(2.0, abs=0.1)
    assert found.plot("loss", ax=ax) is ax


@pytest.mark.parametrize("metrics", [["accuracy"], ["sparse_categorical_crossentropy"], []])
def test_a_plot_shows_a_metric_that_is_no_loss_where_there_is_one(metrics: list[str]) -> None:
    pytest.importorskip("matplotlib")
    ax = sweep(network(metrics), (X, Y), compressions=[1, 2]).plot()
    assert ax.get_ylabel() == (metrics[0] if metrics else "loss")


def test_a_kernel_pruned_to_nothing_can_be_plotted_and_written_as_json() -> None:
    pytest.importorskip("matplotlib")
    found = sweep(network(), (X, Y), compressions=[2, 1000], by="layer")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads(found.to_json(), parse_constant=refuse)
    found.plot()


def test_a_metric_that_is_not_there_is_refused() -> None:
    found = sweep(network(["sparse_categorical_crossentropy"]), (X, Y), compressions=[1])
    expected = f"one of {', '.join(found.baseline)}"
    with pytest.raises(ValueError, match=invalid("metric", expected, "'accuracy'")):
        found.plot("accuracy")


def test_the_table_and_the_json_hold_every_point() -> None:
    found = sweep(network(), (X, Y), compressions=[1.5, 2], by="layer")
    table = str(found)
    assert all(path in table for path in ("as it is", "net/a/kernel", "net/b/kernel", "accuracy"))
    again = json.loads(found.to_json())
    assert again["baseline"] == found.baseline
    assert [point["metrics"] for point in again["points"]] == [p.metrics for p in found.points]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"compressions": []}, invalid("compressions", "at least one number >= 1", "[]")),
        (
            {"compressions": [2, 0.5]},
            invalid("compression", "a finite float >= 1", "0.5"),
        ),
        ({"by": "kernel"}, invalid("by", '"network" or "layer"', "'kernel'")),
        ({"seed": 3}, invalid("seed", 'None with method="global"', "3")),
        (
            {"compressions": [2, 1e6]},
            invalid(
                "compression",
                "at most 2.67442, the largest reachable",
                "1000000.0",
                "Biases, normalization and embeddings count as left",
            ),
        ),
        (
            {"validation": None},
            invalid(
                "validation",
                "a tuple (x, y) or (x, y, sample_weight), or a data set of batches",
                "None",
            ),
        ),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    model = network()
    before = numpy_weights(model)
    with pytest.raises(ValueError, match=message):
        sweep(**{"model": model, "validation": (X, Y), "compressions": [2]} | arguments)
    assert_same_bits(numpy_weights(model), before)


def test_a_model_not_compiled_is_refused() -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)], name="net")
    advice = "Call `model.compile(optimizer, loss, metrics)` first"
    message = invalid("model", "a compiled model", "'net'", advice)
    with pytest.raises(ValueError, match=message):
        sweep(model, (X, Y), compressions=[2])


@pytest.mark.parametrize("by", ["network", "layer"])
def test_a_model_with_every_kernel_frozen_is_refused(by: str) -> None:
    model = network()
    model.trainable = False
    advice = f"{UNFREEZE}: 72 of 72 prunable weights are frozen, in a, b"
    expected = "a model with weights that can be pruned"
    with pytest.raises(ValueError, match=invalid("model", expected, "'net'", advice)):
        sweep(model, (X, Y), compressions=[2], by=by)


def test_one_number_in_place_of_several_is_refused_in_the_one_form() -> None:
    with pytest.raises(ValueError, match=r"^Invalid value for argument `compressions`\. Expected "):
        sweep(network(), (X, Y), compressions=5)
