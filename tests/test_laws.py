"""Laws that hold for any network, seed and setting, through the public functions.

Those of one function alone stand with it: ``test_masks``, ``test_once``, ``test_schedules``.
"""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import layers, ops
from numpy.typing import NDArray
from strategies import (
    assert_same_bits,
    blocks,
    dense_network,
    eighth_kernels,
    holders,
    kernels,
    numpy_weights,
    seeds,
    sparsities,
    weights,
)

from keras_l0 import (
    L2L0,
    Composite,
    GlobalPrune,
    GradientCount,
    IterativePrune,
    KeepZeros,
    LayerwisePrune,
    NeuronPrune,
    RandomPrune,
    RedundancyPenalty,
    RelevanceDecay,
    prune,
    regularize,
    shrink,
    summarize,
    sweep,
)
from keras_l0.export.encodings import decode, encode, encode_blocks, encode_rows
from keras_l0.pruning import plan, quota
from keras_l0.pruning.schedules import check_ramp, resolve
from keras_l0.pruning.scores import NAMED
from keras_l0.pruning.targets import find_targets
from keras_l0.pruning.units import choose_unit

Arrays = list[NDArray[np.float32]]
FEW = settings(max_examples=12)

HOW: dict[str, dict[str, Any]] = {
    "global": {"score": "magnitude"},
    "lamp": {"score": "lamp"},
    "layerwise": {"method": "layerwise"},
    "random": {"method": "random", "seed": 5},
}


def kernels_of(model: keras.Model) -> Arrays:
    """The kernels, in the model's order."""
    return [np.array(ops.convert_to_numpy(v)) for v in model.weights if v.name.endswith("kernel")]


def zeros_in(arrays: Arrays) -> int:
    return sum(int(np.sum(array == 0)) for array in arrays)


def never_back(less: Arrays, more: Arrays) -> bool:
    """Whether all that is zero in the first is so in the second."""
    return all(np.all((b == 0) | (a != 0)) for a, b in zip(less, more, strict=True))


# Exact counts, and nothing twice.


@pytest.mark.parametrize("how", HOW)
@given(arrays=weights(), sparsity=sparsities)
@FEW
def test_kernels_of_any_shape_lose_just_what_was_asked_for(
    how: str, arrays: Arrays, sparsity: float
) -> None:
    """Empty ones, scalars, all equal, all zero, denormals."""
    model = holders(arrays)
    found = prune(model, sparsity, **HOW[how])
    after = kernels_of(model)
    if how == "layerwise":
        wanted = [max(round(sparsity * a.size), int(np.sum(a == 0))) for a in arrays]
        assert [int(np.sum(a == 0)) for a in after] == wanted
    else:
        wanted = [max(round(sparsity * sum(a.size for a in arrays)), zeros_in(arrays))]
    assert found.zeros == zeros_in(after) == sum(wanted) == summarize(model).zeros
    for before, now in zip(arrays, after, strict=True):
        assert before[now != 0].tobytes() == now[now != 0].tobytes()


@pytest.mark.parametrize("how", HOW)
@given(arrays=kernels(), data=st.data())
@FEW
def test_for_a_compression_too_twice_is_once_and_more_keeps_none_that_less_dropped(
    how: str, arrays: Arrays, data: st.DataObject
) -> None:
    model = dense_network(arrays)
    most = model.count_params() / (model.count_params() - sum(a.size for a in arrays))
    low, high = sorted(data.draw(st.lists(st.floats(1.0, most), min_size=2, max_size=2)))
    first = prune(model, compression=low, **HOW[how])
    less = kernels_of(model)
    assert prune(model, compression=low, **HOW[how]) == first
    assert_same_bits(kernels_of(model), less)
    prune(model, compression=high, **HOW[how])
    stepwise = kernels_of(model)
    assert never_back(less, stepwise)
    at_once = dense_network(arrays)
    assert prune(at_once, compression=high, **HOW[how]).compression >= high * (1 - 1e-12)
    for one, other in zip(kernels_of(at_once), stepwise, strict=True):
        np.testing.assert_array_equal(one, other)


@given(
    arrays=eighth_kernels(),
    unit=st.one_of(
        blocks.map(lambda block: choose_unit(block, None)),
        st.sampled_from(["1:2", "2:4", "3:5"]).map(lambda pattern: choose_unit(None, pattern)),
    ),
    shares=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=2),
)
@settings(max_examples=25)
def test_blocks_and_patterns_go_once_and_further_along_the_ramp_keep_none_that_went(
    arrays: Arrays, unit: Any, shares: list[float]
) -> None:
    model = holders(arrays)
    quotas = plan.global_plan(model, find_targets(model), None, unit)
    low, high = sorted(shares)
    found = []
    for share in (low, low, high, high):
        quota.prune_to(quotas, share, NAMED["magnitude"])
        found.append(kernels_of(model))
    assert_same_bits(found[0], found[1])
    assert_same_bits(found[2], found[3])
    assert never_back(found[0], found[2])


@given(
    units=st.lists(st.integers(2, 7), min_size=1, max_size=2),
    fractions=st.lists(st.floats(0.0, 0.95), min_size=2, max_size=2),
    seed=seeds,
    scope=st.sampled_from(["layer", "global"]),
)
@FEW
def test_neurons_go_once_and_more_keeps_none_that_less_dropped_and_shrink_changes_no_output(
    units: list[int], fractions: list[float], seed: int, scope: str
) -> None:
    generator = np.random.default_rng(seed)
    hidden = [layers.Dense(n, "relu") for n in units]
    model = keras.Sequential([keras.Input((4,)), *hidden, layers.Dense(2)])
    model.set_weights([generator.normal(size=w.shape) for w in model.get_weights()])
    low, high = sorted(fractions)
    found = []
    for fraction in (low, low, high, high):
        prune(model, method="neuron", fraction=fraction, scope=scope)
        found.append(numpy_weights(model))
    assert_same_bits(found[0], found[1])
    assert_same_bits(found[2], found[3])
    assert never_back(found[0], found[2])
    small = shrink(model)
    x = generator.normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(
        ops.convert_to_numpy(small(x)), ops.convert_to_numpy(model(x)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("how", [*HOW, "neuron", "sweep", "shrink"])
def test_what_is_not_finite_is_refused_and_nothing_is_changed(how: str, bad: float) -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.Dense(2)])
    model.compile("sgd", "mse", run_eagerly=True)
    kernel = np.ones((3, 2), np.float32)
    kernel[1, 1] = bad
    model.layers[1].kernel.assign(kernel)
    before = numpy_weights(model)
    act: dict[str, Callable[[], Any]] = {
        "neuron": lambda: prune(model, method="neuron", fraction=0.5),
        "sweep": lambda: sweep(model, (np.ones((2, 3)), np.ones((2, 2))), compressions=[2]),
        "shrink": lambda: shrink(model),
    }
    with pytest.raises(ValueError, match="Expected finite weights"):
        act.get(how, lambda: prune(model, 0.5, **HOW[how]))()
    assert_same_bits(numpy_weights(model), before)


# Schedules.


@given(
    begin=st.one_of(st.none(), st.integers(0, 10**9)),
    length=st.one_of(st.none(), st.integers(0, 10**9)),
    every=st.one_of(st.integers(1, 9), st.just(10**12)),
    power=st.one_of(st.floats(0, 1e6, exclude_min=True, exclude_max=True), st.just(3)),
    epochs=st.integers(1, 10**9),
    units=st.integers(0, 10**12),
    sparsity=sparsities,
)
@settings(max_examples=200)
def test_any_ramp_that_is_accepted_counts_upwards_from_none_to_just_the_target(
    begin: int | None,
    length: int | None,
    every: int,
    power: float,
    epochs: int,
    units: int,
    sparsity: float,
) -> None:
    end = None if begin is None or length is None else begin + length
    check_ramp(begin, end, every, power, regrow=False)
    ramp = resolve(begin, end, every, power, epochs)
    assert 0 <= ramp.begin <= ramp.last_tenth <= ramp.end
    if begin is None:
        assert ramp.end < epochs
    asked = quota.Quota([], sparsity * units)
    around = [ramp.begin - 1, *np.linspace(ramp.begin, ramp.end, 30).astype(int).tolist()]
    counts = [asked.count(ramp.share(epoch)) for epoch in (*around, ramp.end + 1)]
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] == counts[-2] == round(sparsity * units)


CALLBACKS: dict[str, Callable[..., keras.callbacks.Callback]] = {
    "global": lambda **ramp: GlobalPrune(0.7, **ramp),
    "compression": lambda **ramp: GlobalPrune(compression=2.5, **ramp),
    "blocks": lambda **ramp: GlobalPrune(0.7, block=(2, 1), **ramp),
    "pattern": lambda **ramp: GlobalPrune(pattern="1:4", **ramp),
    "lamp": lambda **ramp: GlobalPrune(0.7, score="lamp", **ramp),
    "layerwise": lambda **ramp: LayerwisePrune(0.7, **ramp),
    "erk": lambda **ramp: LayerwisePrune(0.7, distribution="erk", **ramp),
    "random": lambda **ramp: RandomPrune(0.7, seed=3, **ramp),
    "neurons": lambda **ramp: NeuronPrune(0.5, **ramp),
}
X, Y = np.ones((4, 6), np.float32), np.ones((4, 2), np.float32)


def still_network() -> keras.Model:
    """A network that training does not move, with the same weights each time."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(2)])
    generator = np.random.default_rng(11)
    model.set_weights([generator.normal(size=w.shape) for w in model.get_weights()])
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    return model


def masks_after(name: str, **ramp: Any) -> tuple[list[NDArray[np.bool_]], list[float]]:
    """Which weights are zero after a fit of five epochs, and the sparsity at each one's end."""
    model = still_network()
    history = model.fit(
        X, Y, epochs=5, batch_size=4, verbose=0, callbacks=[CALLBACKS[name](**ramp)]
    )
    return [w == 0 for w in numpy_weights(model)], history.history["sparsity"]


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_ramp_in_steps_ends_with_the_very_zeros_of_pruning_at_once(name: str) -> None:
    """Where training moves nothing; on the way the sparsity never falls."""
    stepwise, track = masks_after(name, begin=0, end=4)
    at_once, (first, *_) = masks_after(name, begin=0)
    for one, other in zip(stepwise, at_once, strict=True):
        np.testing.assert_array_equal(one, other)
    assert track == sorted(track)
    assert 0 < track[0] < track[-1] == first


# The same seed, the same result.

# What a first run gave; every backend has to give it again.
DIGESTS = {
    "prune random": "d862335e9a31a56f",
    "prune global": "83173eb3f1f0b355",
    "prune lamp": "a2b7f1e004884cd1",
    "prune layerwise": "0ce418371ba62ada",
    "prune neuron": "7bfb942b1405f93a",
    "prune redundancy": "f95b6986de60df97",
    "fit random": "f759dad74a3c343c",
    "fit erk": "4947dd54666d0a52",
    "fit neurons": "7bfb942b1405f93a",
}


def pruned_by(name: str) -> list[NDArray[np.bool_]]:
    kind, _, how = name.partition(" ")
    if kind == "fit":
        return masks_after(how, begin=0, end=4)[0]
    model = still_network()
    if how in HOW:
        prune(model, 0.6, **HOW[how])
    else:
        by = "redundancy" if how == "redundancy" else "norm"
        prune(model, method="neuron", fraction=0.5, score=by)
    return [w == 0 for w in numpy_weights(model)]


@pytest.mark.parametrize("name", DIGESTS)
def test_the_same_seed_prunes_the_same_weights_on_every_backend(name: str) -> None:
    found = hashlib.sha256(b"".join(np.packbits(mask).tobytes() for mask in pruned_by(name)))
    assert found.hexdigest()[:16] == DIGESTS[name]


@given(seed=st.one_of(seeds, st.just(2**70)), arrays=kernels())
@FEW
def test_a_seed_is_enough_to_do_it_again_whatever_else_was_drawn(seed: int, arrays: Arrays) -> None:
    found = []
    for other in (0, 1):
        keras.utils.set_random_seed(other)
        model = dense_network(arrays)
        prune(model, 0.5, method="random", seed=seed)
        found.append(kernels_of(model))
    assert_same_bits(*found)
    assert RandomPrune(0.5, seed=seed).seed == seed


# Configurations.

strengths = st.one_of(st.just(0.0), st.floats(0.0, 1e3))
betas = st.floats(1.0, 1e6)
axis = st.sampled_from([-1, -2])
plain = st.one_of(
    st.builds(L2L0, l2=strengths, l0=strengths, beta=betas),
    st.builds(
        GradientCount,
        weight=strengths,
        beta=betas,
        axes=st.sampled_from(["spatial", "filters"]),
        axis=axis,
    ),
    st.builds(RedundancyPenalty, weight=strengths, axis=axis),
    st.builds(keras.regularizers.L1, strengths),
)
regularizers = st.recursive(
    plain, lambda inner: st.lists(inner, min_size=1, max_size=3).map(Composite), max_leaves=5
)


def arguments_of(regularizer: Any) -> Any:
    """What it was made of, by its attributes, not by its configuration."""
    if isinstance(regularizer, Composite):
        return [arguments_of(one) for one in regularizer.regularizers]
    return {key: value for key, value in vars(regularizer).items() if not key.startswith("_")}


@given(regularizer=regularizers)
@settings(max_examples=60)
def test_any_regularizer_comes_back_from_json_the_same(regularizer: Any) -> None:
    config = keras.regularizers.serialize(regularizer)
    again = keras.regularizers.deserialize(json.loads(json.dumps(config)))
    assert type(again) is type(regularizer)
    assert keras.regularizers.serialize(again) == config
    assert arguments_of(again) == arguments_of(regularizer)
    direct = type(regularizer).from_config(regularizer.get_config())
    assert keras.regularizers.serialize(direct) == config


@given(regularizer=regularizers)
@settings(max_examples=8)
def test_any_regularizer_comes_back_from_a_file_with_the_same_penalty(
    regularizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("model") / "m.keras"
    model = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(3, 2, name="conv")])
    regularize(model, regularizer)
    model.save(path)
    loaded = keras.saving.load_model(path)
    kernel = loaded.get_layer("conv").kernel
    assert_same_bits(loaded.get_weights(), model.get_weights())
    before = float(ops.convert_to_numpy(regularizer(model.get_layer("conv").kernel)))
    assert float(ops.convert_to_numpy(kernel.regularizer(kernel))) == before


optimizers = st.one_of(
    st.builds(keras.optimizers.SGD, st.floats(0, 1), momentum=st.floats(0, 1)),
    st.builds(keras.optimizers.Adam, st.floats(0, 1)),
    st.sampled_from(["adamw", "lion", "rmsprop"]),
)


@given(data=st.data())
@settings(max_examples=25)
def test_any_relevance_decay_comes_back_from_json_the_same(data: st.DataObject) -> None:
    alpha = data.draw(st.one_of(st.just("auto"), st.floats(1e-12, 1e6)))
    optimizer = RelevanceDecay(
        data.draw(optimizers),
        data.draw(st.floats(0, 1e3)),
        alpha,
        variables=data.draw(st.sampled_from(["prunable", "all"])),
        rule=data.draw(st.sampled_from(["relevance", "lobster"])),
        quantile=data.draw(st.floats(0.01, 0.99)) if alpha == "auto" else 0.5,
        gamma_steps=data.draw(st.one_of(st.none(), st.integers(1, 10**9))),
    )
    config = keras.optimizers.serialize(optimizer)
    again = keras.optimizers.deserialize(json.loads(json.dumps(config)))
    assert type(again) is RelevanceDecay
    assert keras.optimizers.serialize(again) == config


def test_callbacks_have_no_configuration_as_keras_own_have_none() -> None:
    """Keras saves no callbacks; were it to, ours would want a ``get_config``."""
    assert not hasattr(keras.callbacks.Callback, "get_config")
    for kind in (GlobalPrune, LayerwisePrune, RandomPrune, NeuronPrune, IterativePrune, KeepZeros):
        assert not hasattr(kind, "get_config")


# Encodings.


def bits_of(dtype: type) -> st.SearchStrategy[NDArray[Any]]:
    """Arrays of whatever bits, NaN, infinities and denormals among them, half of them zero."""
    unsigned = np.dtype(f"u{np.dtype(dtype).itemsize}")
    whole = st.integers(0, int(np.iinfo(unsigned).max))
    return hnp.arrays(
        unsigned,
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=6),
        elements=st.one_of(st.just(0), whole),
    ).map(lambda array: array.view(dtype))


def assert_decoded(back: NDArray[Any], array: NDArray[Any]) -> None:
    """The same bits, but for the sign of zero, which has one form in a file."""
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == np.where(array == 0, np.zeros((), array.dtype), array).tobytes()


@given(array=st.one_of(*map(bits_of, (np.float32, np.float16, np.int8))))
@settings(max_examples=150)
def test_any_bits_come_back_from_their_encoding(array: NDArray[Any]) -> None:
    assert_decoded(decode(encode(array)), array)
    matrix = array.reshape(array.shape[0], -1)
    assert_decoded(decode(encode_rows(matrix)), matrix)
    for size in (1, 4):
        if matrix.shape[1] % size == 0:
            assert_decoded(decode(encode_blocks(matrix, size)), matrix)


@given(arrays=kernels(), sparsity=sparsities)
@FEW
def test_a_pruned_kernel_comes_back_from_its_encoding_as_sparse(
    arrays: Arrays, sparsity: float
) -> None:
    model = dense_network(arrays)
    found = prune(model, sparsity)
    back = [decode(encode(kernel)) for kernel in kernels_of(model)]
    assert zeros_in(back) == found.zeros
    for kernel, decoded in zip(kernels_of(model), back, strict=True):
        np.testing.assert_array_equal(decoded, kernel)
