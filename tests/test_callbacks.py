"""Pruning during fit: how much at which epoch, from where, and what it refuses."""

import math
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from strategies import (
    block_oracle,
    blocks_of,
    dense_network,
    pattern_oracle,
    smallest_oracle,
)

from keras_l0 import L2L0, GlobalPrune, KeepZeros, LayerwisePrune, RandomPrune, prune
from keras_l0.pruning.scores import lamp
from keras_l0.pruning.unpruned import UNFREEZE

Kernels = dict[str, np.ndarray]
rng = np.random.default_rng(0)
X = rng.normal(size=(32, 12)).astype("float32")
Y = rng.normal(size=(32, 3)).astype("float32")
FIT: dict[str, Any] = {"batch_size": 16, "shuffle": False, "verbose": 0}
SIZES = {"first": 96, "second": 24}
WEIGHTS = 120
PARAMETERS = 131


def net(**dense: Any) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(8, "tanh", name="first", **dense),
            layers.Dense(3, name="second", **dense),
        ],
        name="net",
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def kernels(model: keras.Model) -> Kernels:
    """Every kernel by its layer, read through the model: JAX keeps only that up to date."""
    return {
        weight.path.split("/")[-2]: ops.convert_to_numpy(weight)
        for weight in model.weights
        if weight.name == "kernel"
    }


def zeros(model: keras.Model) -> dict[str, int]:
    return {name: int((w == 0).sum()) for name, w in kernels(model).items()}


class Recorder(keras.callbacks.Callback):
    """Keeps the kernels as each epoch begins, is validated and ends."""

    def __init__(self) -> None:
        super().__init__()
        self.began: list[Kernels] = []
        self.tested: list[int] = []
        self.ended: list[Kernels] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began.append(kernels(self.model))

    def on_test_begin(self, logs: Any = None) -> None:
        self.tested.append(sum(zeros(self.model).values()))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.ended.append(kernels(self.model))


def zeros_at(epoch: int, begin: int, end: int, every: int, power: float, sparsity: float) -> int:
    """The design's formula, written down again."""
    if epoch < begin:
        return 0
    last = epoch - (epoch - begin) % every
    if epoch >= end:
        last = end
    way = (last - begin + 1) / (end - begin + 1)
    return round(sparsity * (1 - (1 - way) ** power) * WEIGHTS)


@pytest.mark.parametrize(
    ("arguments", "ramp"),
    [
        pytest.param({"begin": 0, "end": 4}, (0, 4, 1, 3.0), id="cubic"),
        pytest.param({"begin": 2, "end": 5, "power": 1.0}, (2, 5, 1, 1.0), id="linear"),
        pytest.param({"begin": 1, "end": 6, "every": 2}, (1, 6, 2, 3.0), id="every second epoch"),
        pytest.param({"begin": 3}, (3, 3, 1, 3.0), id="begin alone prunes once"),
        pytest.param({"begin": 0}, (0, 0, 1, 3.0), id="begin=0 prunes at once"),
        pytest.param({}, (2, 7, 1, 3.0), id="from 20 % to 75 % of 10 epochs"),
    ],
)
def test_the_sparsity_of_each_epoch_is_the_formulas_in_logs_weights_and_validation(
    arguments: dict[str, Any], ramp: tuple[int, int, int, float]
) -> None:
    model = net()
    recorder = Recorder()
    history = model.fit(
        X,
        Y,
        epochs=10,
        validation_data=(X, Y),
        callbacks=[recorder, GlobalPrune(0.8, **arguments)],  # validation: even listed before
        **FIT,
    ).history
    expected = [zeros_at(epoch, *ramp, 0.8) for epoch in range(10)]
    assert history["sparsity"] == [count / WEIGHTS for count in expected]
    assert [sum(int((w == 0).sum()) for w in k.values()) for k in recorder.ended] == expected
    assert recorder.tested == expected
    assert history["compression"] == [PARAMETERS / (PARAMETERS - count) for count in expected]


@pytest.mark.parametrize("epochs", [1, 2, 3, 4])
def test_the_default_ramp_reaches_its_target_in_a_short_fit(epochs: int) -> None:
    model = net()
    history = model.fit(X, Y, epochs=epochs, callbacks=[GlobalPrune(0.8)], **FIT).history
    assert history["sparsity"][-1] == 0.8


def test_logs_hold_the_penalty_of_the_regularizers() -> None:
    model = net(kernel_regularizer=L2L0(l2=1e-2, l0=1e-2))
    history = model.fit(X, Y, epochs=2, callbacks=[KeepZeros()], **FIT).history
    penalties = [float(ops.convert_to_numpy(loss)) for loss in model.losses]
    assert len(penalties) == 2
    assert history["penalty"][-1] == pytest.approx(sum(penalties), rel=1e-5)
    plain = net().fit(X, Y, epochs=1, callbacks=[KeepZeros()], **FIT).history
    assert plain["penalty"] == [0]


@pytest.mark.filterwarnings("ignore:GlobalPrune:UserWarning")  # the first half ends too early
@pytest.mark.parametrize("every", [1, 2])
def test_a_fit_resumed_at_an_epoch_equals_one_that_was_not_interrupted(every: int) -> None:
    whole, halves = net(), net()
    halves.set_weights(whole.get_weights())
    arguments = {"begin": 1, "end": 6, "every": every}
    expected = whole.fit(X, Y, epochs=8, callbacks=[GlobalPrune(0.8, **arguments)], **FIT).history
    found = []
    for begin, end in ((0, 4), (4, 8)):
        callbacks = [GlobalPrune(0.8, **arguments)]
        history = halves.fit(X, Y, epochs=end, initial_epoch=begin, callbacks=callbacks, **FIT)
        found += history.history["sparsity"]
    assert found == expected["sparsity"]
    for ours, theirs in zip(halves.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(ours == 0, theirs == 0)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("regrow", [False, True])
def test_a_fit_that_begins_after_the_end_prunes_all_at_once(regrow: bool) -> None:
    model = net()
    callback = GlobalPrune(0.8, begin=0, end=3, regrow=regrow)
    history = model.fit(X, Y, epochs=7, initial_epoch=5, callbacks=[callback], **FIT)
    assert history.history["sparsity"] == [0.8, 0.8]


def test_weights_grow_back_until_the_last_tenth_of_the_ramp_and_not_after() -> None:
    model = net()
    model.compile(keras.optimizers.Adam(0.3), "mse")  # so that weights grow back far
    recorder = Recorder()
    callback = GlobalPrune(0.8, begin=1, end=10, power=1.0, regrow=True)  # its last tenth is 10
    history = model.fit(X, Y, epochs=13, callbacks=[callback, recorder], **FIT).history
    for epoch, (began, ended) in enumerate(zip(recorder.began, recorder.ended, strict=True)):
        was = sum(int((w == 0).sum()) for w in began.values())
        assert was == zeros_at(epoch, 1, 10, 1, 1.0, 0.8)
        for name in began:
            if epoch < 10:
                assert not (ended[name] == 0).any()
            else:
                np.testing.assert_array_equal(ended[name] == 0, began[name] == 0)
    assert history["sparsity"] == [0.0] * 10 + [0.8] * 3
    # What was gone at one pruning is ranked anew at the next: some of it stays.
    pairs = list(zip(recorder.began[1:10], recorder.began[2:11], strict=True))
    assert any(((was[n] == 0) & (now[n] != 0)).any() for was, now in pairs for n in SIZES)


def test_without_regrow_a_zero_stays() -> None:
    recorder = Recorder()
    net().fit(X, Y, epochs=6, callbacks=[GlobalPrune(0.8, begin=0, end=5), recorder], **FIT)
    for earlier, later in zip(recorder.began, recorder.began[1:], strict=False):
        for name in SIZES:
            assert ((later[name] == 0) | (earlier[name] != 0)).all()


def first_masks(callback: keras.callbacks.Callback) -> tuple[Kernels, dict[str, np.ndarray]]:
    """The kernels before, and which of them are gone when the first epoch begins."""
    model = net()
    before = kernels(model)
    recorder = Recorder()
    model.fit(X, Y, epochs=1, callbacks=[callback, recorder], **FIT)
    return before, {name: w == 0 for name, w in recorder.began[0].items()}


def test_by_magnitude_it_takes_the_smallest_of_the_whole_network() -> None:
    before, gone = first_masks(GlobalPrune(0.6, begin=0, score="magnitude"))
    sizes = np.concatenate([np.abs(before[name]).ravel() for name in SIZES])
    mask = np.concatenate([gone[name].ravel() for name in SIZES])
    assert mask.sum() == 72
    assert sizes[mask].max() < sizes[~mask].min()


@pytest.mark.parametrize("score", ["lamp", lambda w: -np.abs(w)])
def test_global_pruning_goes_by_the_score(score: Any) -> None:
    callback = GlobalPrune(0.5, begin=0, score=score)
    before, masks = first_masks(callback)
    ranks = {
        name: next(lamp([w])) if score == "lamp" else np.where(w == 0, -np.inf, score(w))
        for name, w in before.items()
    }
    gone = np.concatenate([ranks[name][masks[name]] for name in ranks])
    stay = np.concatenate([ranks[name][~masks[name]] for name in ranks])
    assert len(gone) == WEIGHTS // 2
    assert gone.max() <= stay.min()


def pruned(kernel: Any, callback: keras.callbacks.Callback) -> Any:
    """A kernel after an epoch of ``fit`` that changes no weight."""
    model = dense_network([np.array(kernel, np.float32)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    rows, columns = np.shape(kernel)
    x, y = np.ones((2, rows), np.float32), np.ones((2, columns), np.float32)
    model.fit([x], [y], epochs=1, callbacks=[callback], verbose=0)
    return ops.convert_to_numpy(model.weights[0]).tolist()


def test_a_zero_in_a_block_does_not_make_the_block_go_by_a_users_score() -> None:
    nines, ones, fives, sixes = [[9, 9], [9, 0]], [[1, 1]] * 2, [[5, 5]] * 2, [[6, 6]] * 2
    callback = GlobalPrune(0.25, block=(2, 2), begin=0, score=np.abs)
    wanted = [*nines, [0, 0], [0, 0], *fives, *sixes]
    assert pruned([*nines, *ones, *fives, *sixes], callback) == wanted
    callback = GlobalPrune(0.25, block=(2, 2), begin=0, score=np.abs)
    as_it_was = [*nines, [0, 0], [0, 0], *fives, *sixes]
    assert pruned(as_it_was, callback) == as_it_was


def test_zeros_in_an_incomplete_group_leave_the_pattern_by_a_users_score() -> None:
    kernel = [[value] for value in (4, 1, 2, 3, 0, 0, 3)]
    found = pruned(kernel, GlobalPrune(pattern="2:4", begin=0, score=np.abs))
    assert found == [[value] for value in (4, 0, 0, 3, 0, 0, 3)]


def test_a_score_that_is_none() -> None:
    with pytest.raises(ValueError, match='"lamp" or "magnitude"'):
        GlobalPrune(0.5, score="norm")


def test_uniform_pruning_takes_the_smallest_of_each_layer() -> None:
    before, gone = first_masks(LayerwisePrune(0.61, begin=0))
    for name, size in SIZES.items():
        assert gone[name].sum() == round(0.61 * size)
        assert np.abs(before[name][gone[name]]).max() < np.abs(before[name][~gone[name]]).min()


def test_erk_keeps_densities_in_proportion_to_the_dimensions_and_the_total_exact() -> None:
    _, gone = first_masks(LayerwisePrune(0.61, distribution="erk", begin=0))
    assert sum(int(mask.sum()) for mask in gone.values()) == round(0.61 * WEIGHTS)
    # The second layer would be denser than 1, so it is not pruned at 0.61; it is at 0.9.
    _, gone = first_masks(LayerwisePrune(0.9, distribution="erk", begin=0))
    assert sum(int(mask.sum()) for mask in gone.values()) == round(0.9 * WEIGHTS)
    left = {name: int((~mask).sum()) for name, mask in gone.items()}
    factor = 12 / ((12 + 8) + (8 + 3))
    assert left["first"] == pytest.approx(factor * (12 + 8), abs=1)
    assert left["second"] == pytest.approx(factor * (8 + 3), abs=1)


def test_each_layer_has_the_sparsity_given_to_it_and_the_others_none() -> None:
    for sparsities, expected in (
        ({"first": 0.25, "*": 0.5}, {"first": 24, "second": 12}),
        ({"sec*": 0.75}, {"first": 0, "second": 18}),
    ):
        _, gone = first_masks(LayerwisePrune(sparsities=sparsities, begin=0))
        assert {name: int(mask.sum()) for name, mask in gone.items()} == expected


def test_random_pruning_is_its_seeds_and_not_by_magnitude() -> None:
    before, one = first_masks(RandomPrune(0.5, seed=3, begin=0))
    keras.utils.set_random_seed(0)
    _, same = first_masks(RandomPrune(0.5, seed=3, begin=0))
    _, other = first_masks(RandomPrune(0.5, seed=4, begin=0))
    assert sum(int(mask.sum()) for mask in one.values()) == 60
    for name in SIZES:
        np.testing.assert_array_equal(one[name], same[name])
    assert any((one[name] != other[name]).any() for name in SIZES)
    sizes = np.concatenate([np.abs(before[name]).ravel() for name in SIZES])
    mask = np.concatenate([one[name].ravel() for name in SIZES])
    assert sizes[mask].max() > sizes[~mask].min()


def test_random_pruning_in_steps_ends_with_the_count_asked_for() -> None:
    history = net().fit(
        X, Y, epochs=5, callbacks=[RandomPrune(0.77, seed=1, begin=0, end=3)], **FIT
    )
    expected = [zeros_at(epoch, 0, 3, 1, 3.0, 0.77) / WEIGHTS for epoch in range(5)]
    assert history.history["sparsity"] == expected


@pytest.mark.parametrize("kind", [GlobalPrune, LayerwisePrune, RandomPrune])
@pytest.mark.parametrize("compression", [1, 2.5, 10])
def test_compression_counts_all_parameters(kind: Any, compression: float) -> None:
    model = net()
    history = model.fit(
        X, Y, epochs=1, callbacks=[kind(compression=compression, begin=0)], **FIT
    ).history
    left = math.floor(PARAMETERS / compression)
    assert sum(zeros(model).values()) == PARAMETERS - left
    assert history["compression"] == [PARAMETERS / left]


@pytest.mark.parametrize("layers", ["second", ["sec*"], "net/second"])
def test_only_the_layers_named_are_pruned_and_counted(layers: Any) -> None:
    model = net()
    history = model.fit(X, Y, epochs=2, callbacks=[GlobalPrune(0.5, begin=0, layers=layers)], **FIT)
    assert zeros(model) == {"first": 0, "second": 12}
    assert history.history["sparsity"] == [0.5, 0.5]


@pytest.mark.parametrize("keep_first", [True, False])
def test_two_callbacks_in_one_fit_each_do_their_part(keep_first: bool) -> None:
    model = net()
    prune(model, 0.5, layers="first")
    before = kernels(model)["first"]
    callbacks = [KeepZeros(), GlobalPrune(0.75, begin=1, layers="second")]
    model.fit(X, Y, epochs=4, callbacks=callbacks if keep_first else callbacks[::-1], **FIT)
    assert zeros(model) == {"first": 48, "second": 18}
    np.testing.assert_array_equal(kernels(model)["first"] == 0, before == 0)
    assert [v.name for v in model.optimizer.variables if "hold" in v.name] == []
    model.fit(X, Y, epochs=1, **FIT)
    assert zeros(model) == {"first": 0, "second": 0}


def test_two_pruners_in_one_fit_reach_a_target_each() -> None:
    model = net()
    callbacks = [
        GlobalPrune(0.25, begin=0, end=2, layers="first"),
        GlobalPrune(0.75, begin=1, end=3, layers="second", regrow=True),
    ]
    model.fit(X, Y, epochs=5, callbacks=callbacks, **FIT)
    assert zeros(model) == {"first": 24, "second": 18}


def test_a_callback_can_be_used_for_another_fit() -> None:
    callback = GlobalPrune(0.5)
    for _ in range(2):
        model = net()
        history = model.fit(X, Y, epochs=3, callbacks=[callback], **FIT)
        assert history.history["sparsity"][-1] == 0.5


# Blocks and N:M.


def dead_blocks(model: keras.Model, block: tuple[int, int] = (4, 1)) -> dict[str, int]:
    """How many of each kernel's blocks are zero, by its layer; of net()'s 24 and 6."""
    found = {}
    for name, w in kernels(model).items():
        places = [places for _, places in blocks_of(w.shape, block)]
        found[name] = sum(not any(w[place] for place in each) for each in places)
    return found


@pytest.mark.parametrize("kind", [GlobalPrune, LayerwisePrune])
def test_blocks_go_step_by_step_and_stay_zero(kind: Any) -> None:
    model = net()
    recorder = Recorder()
    score = {"score": "magnitude"} if kind is GlobalPrune else {}
    callback = kind(0.8, begin=1, end=4, block=(4, 1), **score)
    history = model.fit(X, Y, epochs=6, callbacks=[callback, recorder], **FIT).history
    shares = [0, *(1 - (1 - step / 4) ** 3 for step in range(1, 5)), 1]
    for epoch, share in enumerate(shares):
        ours = recorder.began[epoch]
        if kind is GlobalPrune:
            counts = [round(share * 0.8 * 30)]
            before = [list(recorder.ended[epoch - 1].values())] if epoch else [list(ours.values())]
        else:
            counts = [round(share * 0.8 * 24), round(share * 0.8 * 6)]
            before = [[w] for w in (recorder.ended[epoch - 1] if epoch else ours).values()]
        gone = [
            mask
            for arrays, count in zip(before, counts, strict=True)
            for mask in block_oracle(arrays, (4, 1), count)
        ]
        for name, mask in zip(SIZES, gone, strict=True):
            np.testing.assert_array_equal(ours[name] == 0, mask)
            np.testing.assert_array_equal(recorder.ended[epoch][name] == 0, mask)
        assert history["sparsity"][epoch] == 4 * sum(counts) / WEIGHTS
    assert sum(dead_blocks(model).values()) == 24


def test_blocks_are_ranked_by_lamp_of_their_norms() -> None:
    model, recorder = net(), Recorder()
    before = kernels(model)
    pruner = GlobalPrune(0.5, begin=0, block=(4, 1))
    model.fit(X, Y, epochs=1, callbacks=[pruner, recorder], **FIT)
    scores = []
    for w in before.values():
        norms = np.sqrt(np.square(w, dtype=np.float64).reshape(-1, 4, w.shape[1]).sum(1))
        scores.append(next(lamp([norms])))
    for w, gone in zip(recorder.began[0].values(), smallest_oracle(scores, 15), strict=True):
        np.testing.assert_array_equal(w == 0, np.repeat(gone, 4, axis=0))


def test_each_layer_has_the_share_of_blocks_given_to_it() -> None:
    model = net()
    callback = LayerwisePrune(sparsities={"first": 0.25, "*": 0.5}, block=(4, 1), begin=0)
    model.fit(X, Y, epochs=1, callbacks=[callback], **FIT)
    assert dead_blocks(model) == {"first": 6, "second": 3}


def test_blocks_cut_short_by_the_edge_go_as_blocks() -> None:
    model = net()
    model.fit(X, Y, epochs=2, callbacks=[GlobalPrune(0.5, block=(5, 99), begin=0)], **FIT)
    assert sum(dead_blocks(model, (5, 99)).values()) == 2  # of three and two
    for w in kernels(model).values():
        assert np.array_equal((w == 0).all(axis=1), (w == 0).any(axis=1))


@pytest.mark.parametrize("how", [{}, {"distribution": "uniform"}, {"distribution": "erk"}])
@pytest.mark.parametrize("compression", [1.5, 2.5, 10])
def test_blocks_reach_a_compression_and_hardly_more(how: Any, compression: float) -> None:
    model = net()
    kind = LayerwisePrune if how else GlobalPrune
    callback = kind(compression=compression, **how, block=(4, 1), begin=0, end=2)
    history = model.fit(X, Y, epochs=4, callbacks=[callback], **FIT).history
    left = PARAMETERS - sum(zeros(model).values())
    assert history["compression"][-1] == PARAMETERS / left >= compression
    assert PARAMETERS / (left + 4) < compression  # with one block less
    assert sum(zeros(model).values()) == 4 * sum(dead_blocks(model).values())


def test_blocks_grow_back_until_the_last_tenth_of_the_ramp_and_not_after() -> None:
    model = net()
    model.compile(keras.optimizers.Adam(0.3), "mse")  # so that weights grow back far
    for layer in model.layers:
        layer.kernel.assign(layer.kernel * 0.01)  # and that the others are not far ahead
    recorder = Recorder()
    ramp = {"begin": 1, "end": 10, "power": 1.0, "regrow": True}
    callback = GlobalPrune(0.8, **ramp, block=(4, 1), score="magnitude")
    history = model.fit(X, Y, epochs=13, callbacks=[callback, recorder], **FIT).history
    assert history["sparsity"] == [0.0] * 10 + [0.8] * 3
    for epoch, (began, ended) in enumerate(zip(recorder.began, recorder.ended, strict=True)):
        count = round(0.8 * min(epoch, 10) / 10 * 30)
        assert sum(int((w == 0).sum()) for w in began.values()) == 4 * count
        if 1 <= epoch <= 10:
            before = list(recorder.ended[epoch - 1].values())
            gone = block_oracle(before, (4, 1), count)
            for w, mask in zip(began.values(), gone, strict=True):
                np.testing.assert_array_equal(w == 0, mask)
        if epoch >= 10:
            for name in began:
                np.testing.assert_array_equal(ended[name] == 0, began[name] == 0)
    pairs = list(zip(recorder.began[1:10], recorder.began[2:11], strict=True))
    assert any(((was[n] == 0) & (now[n] != 0)).any() for was, now in pairs for n in SIZES)


@pytest.mark.parametrize("regrow", [False, True])
@pytest.mark.parametrize("kind", [GlobalPrune, LayerwisePrune])
def test_a_pattern_is_reached_step_by_step_and_kept(kind: Any, regrow: bool) -> None:
    model = net()
    recorder = Recorder()
    callback = kind(pattern="2:4", begin=0, end=3, power=1.0, regrow=regrow)
    history = model.fit(X, Y, epochs=6, callbacks=[callback, recorder], **FIT).history
    at_beginnings = [sum(int((w == 0).sum()) for w in k.values()) for k in recorder.began]
    assert at_beginnings == [15, 30, 45, 60, 60, 60]
    assert history["sparsity"][3:] == [0.5] * 3
    for epoch in range(1, 6):
        for name, began in recorder.began[epoch].items():
            may_go = pattern_oracle(recorder.ended[epoch - 1][name], 2, 4)
            assert may_go[began == 0].all()
            if epoch >= 3:
                np.testing.assert_array_equal(began == 0, may_go)
    for w in kernels(model).values():
        assert ((w.reshape(-1, 4, w.shape[1]) == 0).sum(axis=1) == 2).all()


def convolutional() -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(5, 3, name="conv"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Flatten(),
            layers.Dense(2, name="dense"),
        ]
    )
    model.compile("adam", "mse")
    return model


@pytest.mark.parametrize("how", ["sparsity", "compression", "pattern"])
def test_networks_of_convolutions_are_pruned_by_block_and_pattern(how: str) -> None:
    model = convolutional()
    x, y = rng.normal(size=(8, 6, 6, 3)), rng.normal(size=(8, 2))
    arguments: dict[str, Any] = {
        "sparsity": {"sparsity": 0.6, "block": (2, 2)},
        "compression": {"compression": 3, "block": (2, 2)},
        "pattern": {"pattern": "1:3"},
    }[how]
    history = model.fit(x, y, epochs=3, callbacks=[GlobalPrune(**arguments)], **FIT).history
    count = sum(int((ops.convert_to_numpy(w) == 0).sum()) for w in model.weights if w.ndim > 1)
    if how == "sparsity":  # kernels of 9 × (3, 5), 9 × (5, 1) and (20, 2)
        dead = dead_blocks(model, (2, 2))
        assert sum(dead.values()) == round(0.6 * (9 * 6 + 9 * 3 + 10))
    elif how == "compression":
        assert history["compression"][-1] == 232 / (232 - count) >= 3
        assert 232 / (232 - count + 4) < 3
    else:
        assert count == 9 * 5 * 2 + 9 * (2 + 1) + 2 * (6 * 2 + 1)


# What is refused.

INVALID: dict[str, tuple[Callable[[], Any], str]] = {
    "sparsity of 1": (
        lambda: GlobalPrune(1.0),
        "Invalid value for argument `sparsity`. Expected a float in [0, 1). Received: sparsity=1.0",
    ),
    "negative sparsity": (
        lambda: RandomPrune(-0.5),
        "Invalid value for argument `sparsity`. Expected a float in [0, 1). "
        "Received: sparsity=-0.5",
    ),
    "NaN": (
        lambda: GlobalPrune(float("nan")),
        "Invalid value for argument `sparsity`. Expected a float in [0, 1). Received: sparsity=nan",
    ),
    "compression below 1": (
        lambda: LayerwisePrune(compression=0.5),
        "Invalid value for argument `compression`. Expected a finite float >= 1. "
        "Received: compression=0.5",
    ),
    "neither": (
        lambda: GlobalPrune(),
        "Invalid value for argument `sparsity`. Expected just one of `sparsity` and "
        "`compression`. Received: sparsity=None. And compression=None.",
    ),
    "both": (
        lambda: GlobalPrune(0.5, compression=2),
        "Invalid value for argument `sparsity`. Expected just one of `sparsity` and "
        "`compression`. Received: sparsity=0.5. And compression=2.",
    ),
    "begin after end": (
        lambda: GlobalPrune(0.5, begin=3, end=2),
        "Invalid value for argument `begin`. Expected an epoch <= end=2. Received: begin=3",
    ),
    "end alone": (
        lambda: GlobalPrune(0.5, end=2),
        "Invalid value for argument `begin`. Expected an epoch <= end=2. Received: begin=None",
    ),
    "negative begin": (
        lambda: GlobalPrune(0.5, begin=-1),
        "Invalid value for argument `begin`. Expected None or an epoch, an integer >= 0. "
        "Received: begin=-1",
    ),
    "every=0": (
        lambda: GlobalPrune(0.5, every=0),
        "Invalid value for argument `every`. Expected an integer >= 1. Received: every=0",
    ),
    "power=0": (
        lambda: GlobalPrune(0.5, power=0),
        "Invalid value for argument `power`. Expected a float in (0, 1e6). Received: power=0",
    ),
    "regrow without a ramp": (
        lambda: GlobalPrune(0.5, begin=1, regrow=True),
        "Invalid value for argument `regrow`. Expected False, since begin without a later end "
        "prunes once. Received: regrow=True. Give `end`.",
    ),
    "regrow of blocks without a ramp": (
        lambda: GlobalPrune(0.5, begin=1, regrow=True, block=(4, 1)),
        "Invalid value for argument `regrow`. Expected False, since begin without a later end "
        "prunes once. Received: regrow=True. Give `end`.",
    ),
    "block": (
        lambda: GlobalPrune(0.5, block=(4, 0)),
        "Invalid value for argument `block`. Expected None or a pair of integers >= 1. "
        "Received: block=(4, 0)",
    ),
    "block and pattern": (
        lambda: LayerwisePrune(block=(4, 1), pattern="2:4"),
        "Invalid value for argument `block`. Expected None beside `pattern`. "
        "Received: block=(4, 1)",
    ),
    "block alone": (
        lambda: GlobalPrune(block=(4, 1)),
        "Invalid value for argument `sparsity`. Expected just one of `sparsity` and "
        "`compression`. Received: sparsity=None. And compression=None.",
    ),
    "pattern": (
        lambda: LayerwisePrune(pattern="4:2"),
        'Invalid value for argument `pattern`. Expected None or "N:M" with integers 0 < N < M. '
        "Received: pattern='4:2'",
    ),
    "pattern and sparsity": (
        lambda: GlobalPrune(0.5, pattern="2:4"),
        "Invalid value for argument `pattern`. Expected None beside `sparsity` or "
        "`compression`. Received: pattern='2:4'. It fixes the sparsity.",
    ),
    "pattern and compression": (
        lambda: LayerwisePrune(compression=2, pattern="2:4"),
        "Invalid value for argument `pattern`. Expected None beside `sparsity` or "
        "`compression`. Received: pattern='2:4'. It fixes the sparsity.",
    ),
    "pattern and sparsities": (
        lambda: LayerwisePrune(sparsities={"first": 0.5}, pattern="2:4"),
        "Invalid value for argument `pattern`. Expected None beside `distribution` or "
        "`sparsities`. Received: pattern='2:4'. It fixes the sparsity.",
    ),
    "distribution": (
        lambda: LayerwisePrune(0.5, distribution="even"),
        'Invalid value for argument `distribution`. Expected "uniform" or "erk". '
        "Received: distribution='even'",
    ),
    "sparsities and sparsity": (
        lambda: LayerwisePrune(0.5, sparsities={"first": 0.5}),
        "Invalid value for argument `sparsities`. Expected None beside `sparsity`, "
        "`compression` or `distribution`. Received: sparsities={'first': 0.5}",
    ),
    "a sparsity of sparsities": (
        lambda: LayerwisePrune(sparsities={"first": 1}),
        "Invalid value for argument `sparsities['first']`. Expected a float in [0, 1). "
        "Received: sparsities['first']=1",
    ),
    "seed": (
        lambda: RandomPrune(0.5, seed=-1),
        "Invalid value for argument `seed`. Expected None or an integer >= 0. Received: seed=-1",
    ),
    "layers": (
        lambda: KeepZeros(layers=[]),
        "Invalid value for argument `layers`. Expected None, a pattern or a list of patterns. "
        "Received: layers=[]",
    ),
}


@pytest.mark.parametrize("case", INVALID)
def test_a_bad_argument_is_refused_at_once(case: str) -> None:
    make, message = INVALID[case]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


class NoTraining(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        pytest.fail("training began")


UNREACHABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "pattern": (
        lambda: GlobalPrune(0.5, begin=0, layers="third"),
        "Invalid value for argument `layers`. Expected patterns that match a layer with "
        "weights. Received: layers='third'. The layers with weights are: net/first, net/second.",
    ),
    "pattern of sparsities": (
        lambda: LayerwisePrune(sparsities={"first": 0.5, "third": 0.5}, begin=0),
        "Invalid value for argument `sparsities`. Expected patterns that match a layer that "
        "can be pruned. Received: sparsities='third'. These can be: second/kernel.",
    ),
    "sparsity": (
        lambda: GlobalPrune(0.5, begin=0),
        "Invalid value for argument `sparsity`. Expected at most 0.2, the largest reachable. "
        f"Received: sparsity=0.5. {UNFREEZE}: 96 of 120 prunable weights are frozen, in first.",
    ),
    "compression": (
        lambda: LayerwisePrune(compression=2, begin=0),
        "Invalid value for argument `compression`. Expected at most 1.2243, the largest "
        f"reachable. Received: compression=2. {UNFREEZE}: 96 of 120 prunable weights are frozen, "
        "in first.",
    ),
}


@pytest.mark.parametrize("case", UNREACHABLE)
def test_what_cannot_be_reached_is_refused_before_training_and_a_later_fit_works(case: str) -> None:
    make, message = UNREACHABLE[case]
    if case == "pattern of sparsities":
        message = message.replace("sparsities='third'", "sparsities='first'")
    model = net()
    model.get_layer("first").trainable = case == "pattern"
    model.compile("adam", "mse")
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        model.fit(X, Y, epochs=2, callbacks=[make(), NoTraining()], **FIT)
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    model.fit(X, Y, epochs=1, callbacks=[KeepZeros()], **FIT)
    model.fit(X, Y, epochs=1, **FIT)


def test_a_weight_that_is_not_finite_is_refused_by_name() -> None:
    model = net()
    kernel = model.get_layer("second").kernel
    values = ops.convert_to_numpy(kernel).copy()
    values[0, 0] = np.nan
    kernel.assign(values)
    message = (
        "Invalid value for argument `model`. Expected finite weights. Received: "
        "model='net/second/kernel'. 1 of its 24 weights are NaN or infinite."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        model.fit(X, Y, epochs=1, callbacks=[GlobalPrune(0.5, begin=0)], **FIT)


def test_frozen_layers_are_left_alone_counted_as_left_and_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = net()
    model.get_layer("first").trainable = False
    model.compile("adam", "mse")
    before = kernels(model)["first"]
    arguments = {**FIT, "verbose": 2}
    callbacks = [GlobalPrune(0.1, begin=0)]
    history = model.fit(X, Y, epochs=1, callbacks=callbacks, **arguments)
    assert history.history["sparsity"] == [0.1]
    assert zeros(model) == {"first": 0, "second": 12}
    np.testing.assert_array_equal(kernels(model)["first"], before)
    told = capsys.readouterr().out.splitlines()
    assert "GlobalPrune: frozen, left alone and counted as left: first." in told


def test_frozen_layers_that_are_named_are_pruned() -> None:
    model = net()
    model.get_layer("first").trainable = False
    model.compile("adam", "mse")
    model.fit(X, Y, epochs=2, callbacks=[GlobalPrune(0.5, begin=0, layers="first")], **FIT)
    assert zeros(model) == {"first": 48, "second": 0}


# On real data.


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16).astype("float32"), y[order]
    return x[:1400], y[:1400], x[1400:], y[1400:]


def classifier() -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(32, "relu", name="body"),
            layers.Dense(10, "softmax", name="head"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def test_the_default_ramp_beats_pruning_at_once_on_digits(digits: Any) -> None:
    x_train, y_train, x_test, y_test = digits
    accuracy = {}
    for name, callbacks in (
        ("ramp", [GlobalPrune(0.9)]),
        ("first", [GlobalPrune(0.9, begin=0)]),
        ("last", []),
    ):
        keras.utils.set_random_seed(1)
        model = classifier()
        fit = {"batch_size": 100, "epochs": 12, "verbose": 0}
        model.fit(x_train, y_train, callbacks=callbacks, **fit)
        if name == "last":
            prune(model, 0.9)
        assert sum(zeros(model).values()) == round(0.9 * (64 * 32 + 32 * 10))
        accuracy[name] = model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"]
    assert accuracy["ramp"] > accuracy["last"] + 0.1, accuracy
    assert accuracy["ramp"] > accuracy["first"] + 0.02, accuracy


def test_a_network_pretrained_then_frozen_then_unfrozen_is_pruned_as_expected(digits: Any) -> None:
    x, y, _, _ = digits
    model = classifier()
    fit = {"batch_size": 100, "verbose": 0}
    model.fit(x[y < 5], y[y < 5], epochs=2, **fit)
    body = model.get_layer("body")
    body.trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    frozen = kernels(model)["body"]
    model.fit(x[y >= 5], y[y >= 5], epochs=2, **fit)
    np.testing.assert_array_equal(kernels(model)["body"], frozen)
    body.trainable = True
    model.compile("adam", "sparse_categorical_crossentropy")
    history = model.fit(x[y >= 5], y[y >= 5], epochs=5, callbacks=[GlobalPrune(0.8)], **fit).history
    size = 64 * 32 + 32 * 10
    assert history["sparsity"][-1] == round(0.8 * size) / size
    assert zeros(model)["body"] > 0
    assert (kernels(model)["body"] != frozen)[kernels(model)["body"] != 0].mean() > 0.5
