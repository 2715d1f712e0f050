"""Of a layer with LoRA enabled the kernel counts that it computes with."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_l0 import L2L0, GlobalPrune, KeepZeros, prune, regularize, shrink, summarize
from keras_l0.pruning.targets import LORA, find_targets

RNG = np.random.default_rng(0)


def dense() -> keras.Model:
    return keras.Sequential(
        [keras.Input((8,)), layers.Dense(12, "relu", name="body"), layers.Dense(2, name="out")],
        name="net",
    )


def einsum() -> keras.Model:
    body = layers.EinsumDense("ab,bc->ac", 12, activation="relu", name="body")
    return keras.Sequential([keras.Input((8,)), body, layers.Dense(2, name="out")], name="net")


def conv() -> keras.Model:
    parts = [layers.Conv2D(6, 3, name="body"), layers.Flatten(), layers.Dense(2, name="out")]
    return keras.Sequential([keras.Input((4, 4, 3)), *parts], name="net")


def embedding() -> keras.Model:
    parts = [layers.Embedding(9, 8, name="body"), layers.Flatten(), layers.Dense(2, name="out")]
    return keras.Sequential([keras.Input((3,), dtype="int32"), *parts], name="net")


def samples(model: keras.Model) -> tuple[Any, Any]:
    shape = (16, *model.input_shape[1:])
    x = RNG.integers(0, 9, shape) if model.inputs[0].dtype == "int32" else RNG.normal(size=shape)
    return x.astype(model.inputs[0].dtype), RNG.normal(size=(16, 2)).astype("float32")


def adapted(make: Callable[[], keras.Model]) -> keras.Model:
    """Pruned to 90 %, then with LoRA."""
    model = make()
    prune(model, 0.9, layers="*")
    model.get_layer("body").enable_lora(2)
    model.compile(keras.optimizers.Adam(0.05), "mse")
    return model


def computed(model: keras.Model) -> int:
    """The zeros of what the layers compute with."""
    body = model.get_layer("body")
    kernels = [model.get_layer("out").kernel, getattr(body, "embeddings", None)]
    kernels[1] = body.kernel if kernels[1] is None else kernels[1]
    return sum(int(np.sum(ops.convert_to_numpy(kernel) == 0)) for kernel in kernels)


@pytest.mark.parametrize("make", [dense, einsum, conv, embedding])
def test_logs_and_summary_count_zeros_of_what_the_layers_compute_with(
    make: Callable[[], keras.Model], tmp_path: Path
) -> None:
    model = adapted(make)
    before = computed(model)
    assert summarize(model, "*").zeros == before
    with pytest.warns(UserWarning, match="LoRA") as told:
        history = model.fit(
            *samples(model), epochs=3, callbacks=[KeepZeros("*")], verbose=0
        ).history
    (text,) = [str(one.message) for one in told if one.category is UserWarning]
    assert text.startswith("KeepZeros: LoRA is enabled on body: they compute with kernel + ")
    assert "Merge LoRA first: save_weights" in text
    after = computed(model)
    assert after < before
    size = find_targets(model, "*").size
    assert history["sparsity"][-1] == after / size
    assert summarize(model, "*").zeros == after
    # The zeros of a layer without LoRA are held, and the remedy of the message works.
    kernel = ops.convert_to_numpy(model.get_layer("out").kernel)
    model.save_weights(tmp_path / "merged.weights.h5")
    plain = make()
    plain.load_weights(tmp_path / "merged.weights.h5")
    x, _ = samples(model)
    np.testing.assert_allclose(plain.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
    assert summarize(plain, "*").zeros == after
    assert np.array_equal(kernel, ops.convert_to_numpy(plain.get_layer("out").kernel))
    assert prune(plain, 0.9, layers="*").sparsity == pytest.approx(0.9, abs=0.01)


def test_the_zeros_of_layers_without_lora_are_held_beside_it() -> None:
    model = adapted(dense)
    zero = ops.convert_to_numpy(model.get_layer("out").kernel) == 0
    with pytest.warns(UserWarning, match="LoRA is enabled on body"):
        model.fit(*samples(model), epochs=2, callbacks=[KeepZeros()], verbose=0)
    kernel = ops.convert_to_numpy(model.get_layer("out").kernel)
    assert np.array_equal(kernel == 0, zero)


@pytest.mark.parametrize("loaded", [False, True])
def test_a_kernel_with_lora_is_not_pruned_and_the_error_says_why(
    loaded: bool, tmp_path: Path
) -> None:
    model = adapted(dense)
    if loaded:
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras", compile=False)
    before = model.get_weights()
    for layers_named in ("body", ["body/kernel"]):
        with pytest.raises(ValueError, match=r"Merge LoRA first.*enabled on body") as raised:
            prune(model, 0.5, layers=layers_named)
        assert len(str(raised.value)) <= 400
    with pytest.raises(ValueError, match=r"Merge LoRA first.*enabled on body"):
        prune(model, 0.99)
    with pytest.raises(ValueError, match=r"Dense: LoRA is enabled: .*body"):
        prune(model, method="neuron", fraction=0.5)
    assert all(map(np.array_equal, model.get_weights(), before))
    done = regularize(model, L2L0(l0=1e-3))
    assert done.skipped == {model.get_layer("body").path: "LoRA is enabled"}
    found = find_targets(model)
    assert found.skipped == {model.get_layer("body").path + "/kernel": LORA}
    assert [weight.name for weight in found.live] == ["out/kernel"]
    assert np.array_equal(shrink(model).get_weights()[0], before[0])


def test_momentum_of_a_loaded_optimizer_is_warned_of(tmp_path: Path) -> None:
    """The factors of a loaded model are zero, and so are their gradients."""
    model = adapted(dense)
    data = samples(model)
    model.fit(*data, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.get_layer("body")._kernel.assign(np.eye(8, 12))
    with pytest.warns(UserWarning, match="LoRA is enabled on body"):
        history = loaded.fit(*data, epochs=2, callbacks=[KeepZeros()], verbose=0).history
    assert history["sparsity"][-1] == computed(loaded) / find_targets(loaded).size


def test_factors_that_are_zero_and_frozen_change_nothing(tmp_path: Path) -> None:
    adapted(dense).save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras", compile=False)
    model.trainable = False
    assert find_targets(model).skipped == {}
    assert prune(model, 0.95, layers="*").sparsity == pytest.approx(0.95, abs=0.01)


def test_without_zeros_there_is_a_note_and_no_warning(capsys: pytest.CaptureFixture[str]) -> None:
    model = dense()
    model.get_layer("body").enable_lora(2)
    model.compile("adam", "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(*samples(model), callbacks=[GlobalPrune(0.1, begin=0)], verbose=2)
    assert "GlobalPrune: not pruned, LoRA is enabled: body." in capsys.readouterr().out
    assert find_targets(model).live[0].name == "out/kernel"
