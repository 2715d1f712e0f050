"""A search tries, keeps, goes on, shares, and refuses what is another's."""

from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from strategies import invalid

from keras_l0 import L2L0, compress
from keras_l0 import search as module
from keras_l0.report.plots import require_matplotlib
from keras_l0.search import Found, SearchResult, Space, plot_front, read_settings, search
from keras_l0.workers import worker_pool

SPACE = Space(compression=(1.5, 4.0), ramp=(1, 2))
DEFAULTS = {"warmup": 10, "finetune": 20, "batch_size": None}
SHORT: dict[str, Any] = {"warmup": 1, "finetune": 1, "batch_size": 20, "verbose": 0}


def data() -> tuple[Any, Any]:
    """Three classes that the largest of three inputs tells."""
    x = np.random.default_rng(0).random((60, 8), np.float32)
    return x, x[:, :3].argmax(1)


def net() -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, "relu", name="hidden"),
            layers.Dense(3, "softmax", name="out"),
        ],
        name="net",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def found(storage: Path | str, trials: int = 2, **changes: Any) -> SearchResult:
    arguments = {"train": data(), "space": SPACE, "storage": storage, **SHORT, **changes}
    return search(net(), validation=data(), trials=trials, **arguments)


def take_part(storage: str, seed: int) -> list[int]:
    """What a worker does: the numbers of the trials that it saw in the end."""
    return [one.number for one in found(storage, 4, seed=seed).trials]


def test_settings_that_were_found_give_the_same_network_again(tmp_path: Path) -> None:
    for one in found(tmp_path / "s.log").trials:
        model = net()
        keras.utils.set_random_seed(0)
        settings = read_settings(one.settings)
        report = compress(model, data(), data(), **settings, verbose=0).report
        assert report.after["accuracy"] == one.value
        assert 1.5 <= settings["compression"] <= 4.0
        assert 1 <= settings["ramp"] <= 2
        # What was dead may be gone with more than was asked for, but never with less.
        assert one.compression >= report.summary.compression


def test_a_search_goes_on_where_it_was(tmp_path: Path) -> None:
    first = found(tmp_path / "s.log", 2)
    more = found(tmp_path / "s.log", 4)
    assert more.trials[:2] == first.trials
    assert len({str(one.settings) for one in more.trials}) == 4  # none is drawn again
    assert found(tmp_path / "s.log", 1) == more


def test_a_trial_that_was_interrupted_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "compress", stopped)
        patch.setattr(module, "read_settings", lambda settings: settings)
        with pytest.raises(KeyboardInterrupt):
            found(tmp_path / "s.log", 1)
    assert len(found(tmp_path / "s.log", 1).trials) == 1


def test_a_loss_of_ones_own_needs_no_name(tmp_path: Path) -> None:
    def own(y: Any, p: Any) -> Any:
        return keras.losses.sparse_categorical_crossentropy(y, p)

    model = net()
    model.compile("adam", own, metrics=["accuracy"])
    options = {"space": SPACE, "storage": tmp_path / "s", **SHORT}
    assert len(search(model, data(), data(), trials=1, **options).trials) == 1


def test_the_model_is_left_as_it_is(tmp_path: Path) -> None:
    model = net()
    before = model.get_weights()
    search(model, data(), data(), trials=1, space=SPACE, storage=tmp_path / "s", **SHORT)
    assert all(map(np.array_equal, before, model.get_weights()))
    assert model.layers[0].kernel.regularizer is None


START: dict[str, Any] = {
    "regularizer": {"l2": 1e-5, "l0": 1e-4, "beta": 10.0},
    "scale": "layer_size",
    "warmup": 1,
    "ramp": 1,
    "finetune": 0,
    "power": 1.0,
    "learning_rate": 1e-3,
}


def test_sep_gives_each_layer_its_own_penalty_around_the_start(tmp_path: Path) -> None:
    sep = found(tmp_path / "s.log", 2, start=START, name="sep", **DEFAULTS)
    for one in sep.trials:
        overrides = read_settings(one.settings)["overrides"]
        assert sorted(overrides) == ["hidden/kernel", "out/kernel"]
        # The last layer's 48 weights are 48/128 of the largest one's.
        for path, norm in (
            ("hidden/kernel", 1e-4),
            ("out/kernel", 1e-4 * (48 / 128) ** 0.5),
        ):
            assert norm / 4 <= overrides[path].l0 <= norm * 4
        assert one.settings["learning_rate"] == 1e-3
    assert "layer by layer" in str(sep)


def test_what_sep_finds_holds_for_the_model_of_a_file_too(tmp_path: Path) -> None:
    (one,) = found(tmp_path / "s.log", 1, start=START, name="sep", **DEFAULTS).trials
    model = net()
    model.optimizer.build(model.trainable_variables)  # else Keras warns when it loads the file
    model.save(tmp_path / "net.keras")
    model = keras.models.load_model(tmp_path / "net.keras")
    settings = read_settings(one.settings)
    compress(model, data(), data(), **settings, verbose=0)
    for layer in model.layers:
        expected = settings["overrides"][f"{layer.name}/kernel"]
        assert layer.kernel_regularizer.get_config() == expected.get_config()


def test_sep_tells_layers_of_one_name_apart(tmp_path: Path) -> None:
    inside = keras.Sequential([keras.Input((8,)), layers.Dense(8, "relu", name="d")], name="inside")
    parts = [layers.Dense(8, "relu", name="d"), inside, layers.Dense(3, "softmax", name="out")]
    model = keras.Sequential([keras.Input((8,)), *parts])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    arguments: dict[str, Any] = {"start": START, "trials": 1, "storage": tmp_path / "s"}
    arguments |= {"space": Space(compression=(1.5, 2.0)), "verbose": 0}
    (one,) = search(model, data(), data(), **arguments).trials
    settings = read_settings(one.settings)
    assert len(settings["overrides"]) == 3
    compress(model, data(), data(), **settings, verbose=0)
    for name, layer in (("d", parts[0]), ("inside/d", inside.layers[0]), ("out", parts[2])):
        expected = settings["overrides"][f"{name}/kernel"]
        assert layer.kernel_regularizer.get_config() == expected.get_config()


def test_a_layer_whose_weights_are_zero_to_begin_with_may_be_searched(tmp_path: Path) -> None:
    head = layers.Dense(3, "softmax", kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8, "relu"), head])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    space = Space(compression=(1.1, 1.1), ramp=(1, 1), learning_rate=(0.05, 0.05))
    arguments: dict[str, Any] = {"trials": 1, "storage": tmp_path / "s", "space": space, **SHORT}
    assert len(search(model, data(), data(), **arguments).trials) == 1


@keras.saving.register_keras_serializable("test_search")
class Around(keras.layers.Layer):
    """A layer around a dense one, which it names or not."""

    def __init__(self, named: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self.named = named
        self.inner = layers.Dense(3, "softmax", name="inner" if named else None)

    def build(self, shape: Any) -> None:
        self.inner.build(shape)

    def call(self, x: Any) -> Any:
        return self.inner(x)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "named": self.named}


@pytest.mark.parametrize("named", [True, False])
def test_sep_wants_layers_that_keep_their_names(named: bool, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8,)), Around(named, name="around")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    arguments: dict[str, Any] = {"start": START, "trials": 1, "storage": tmp_path / "s"}
    arguments |= {"space": Space(compression=(1.5, 2.0)), "verbose": 0}
    if named:
        (one,) = search(model, data(), data(), **arguments).trials
        assert list(one.settings["overrides"]) == ["around/inner/kernel"]
    else:
        with pytest.raises(ValueError, match="layers with names that its copies keep"):
            search(model, data(), data(), **arguments)


class Called(keras.Model):
    """A model that is only a call, which nothing can shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.out = layers.Dense(3, "softmax")

    def call(self, x: Any) -> Any:
        return self.out(x)


def test_a_model_that_no_trial_could_shrink_is_refused_at_once(tmp_path: Path) -> None:
    model = Called()
    model(data()[0])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    with pytest.raises(ValueError, match="model"):
        search(model, data(), data(), trials=1, storage=tmp_path / "s", verbose=0)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "storage", ["{}/shared.log", pytest.param("sqlite:///{}/shared.db", marks=pytest.mark.slow)]
)
def test_two_processes_share_one_study(storage: str, tmp_path: Path) -> None:
    place = storage.format(tmp_path)
    with worker_pool(2) as pool:
        seen = list(pool.map(partial(take_part, place), (1, 2)))
    result = found(place, 4)
    assert {number for numbers in seen for number in numbers} <= set(range(5))
    # One of them may have begun its last while the other ended the fourth.
    assert 4 <= len(result.trials) <= 5
    assert len({str(one.settings) for one in result.trials}) == len(result.trials)


@pytest.mark.parametrize(
    "changes",
    [
        {"space": Space(compression=(1.5, 3.0), ramp=(1, 2))},
        {"finetune": 2},
        {"metric": "loss"},
        {"train": (data()[0][:40], data()[1][:40])},
    ],
)
def test_a_study_of_another_space_is_refused_and_left_as_it_is(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "s.log"
    found(path, 1)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"whose study 'search' searches the same space"):
        found(path, 1, **changes)
    assert path.read_bytes() == before


def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("a night's notes\n")
    with pytest.raises(ValueError, match="a file of an earlier search, or a new one"):
        found(path, 1)
    assert path.read_text() == "a night's notes\n"


def test_a_trial_that_fails_counts_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = Space(compression=(2.0, 2.0), ramp=(1, 1), learning_rate=(1e30, 1e30))
    result = found(tmp_path / "s.log", 2, space=space, verbose=1)
    assert result.trials == ()
    assert capsys.readouterr().out.count("failed: ") == 2
    with pytest.raises(ValueError, match="one or more that were finished"):
        result.best(0.9)


def no_number(_: Any, predicted: Any) -> Any:
    """A metric."""
    return ops.mean(predicted) * np.nan


def test_a_metric_that_is_no_number_fails_the_trial(tmp_path: Path) -> None:
    model = net()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=[no_number])
    options = {"space": SPACE, "storage": tmp_path / "s.log", "metric": "no_number", **SHORT}
    assert search(model, data(), data(), trials=2, mode="min", **options).trials == ()


def result(*pairs: tuple[float, float], larger: bool = True) -> SearchResult:
    trials = (Found("s", n, value, by, {}) for n, (value, by) in enumerate(pairs))
    return SearchResult("m", larger, tuple(trials))


def test_the_front_has_what_nothing_beats_in_both() -> None:
    pairs = [(0.9, 10.0), (0.8, 20.0), (0.85, 5.0), (0.8, 15.0), (0.95, 2.0)]
    assert [one.number for one in result(*pairs).front] == [4, 0, 1]
    turned = [(1 - value, by) for value, by in pairs]
    assert [one.number for one in result(*turned, larger=False).front] == [4, 0, 1]


def test_the_best_is_the_most_compressed_that_holds_or_else_the_nearest() -> None:
    tried = result((0.9, 10.0), (0.8, 20.0), (0.95, 2.0))
    assert [tried.best(bound).number for bound in (0.8, 0.85, 0.9, 0.93, 0.99)] == [1, 0, 0, 2, 2]
    assert result((float(np.float32(0.95)), 10.0), (0.99, 1.0)).best(0.95).number == 0


def test_the_plot_has_all_and_the_front() -> None:
    require_matplotlib()
    ax = plot_front(result((0.9, 10.0), (0.8, 20.0), (0.7, 5.0)))
    assert [len(line.get_xdata()) for line in ax.lines] == [3, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, invalid("trials", "an integer >= 1", "0")),
        ({"seed": -1}, invalid("seed", "an integer >= 0", "-1")),
        ({"mode": "Max"}, "mode"),
        ({"scale": "layersize"}, "scale"),
        ({"warmup": -1}, invalid("warmup", "an integer >= 0", "-1")),
        ({"start": {"regularizer": {"l0": 1e-4}}}, "what `start` says"),
        ({"metric": "auc"}, invalid("metric", "one of accuracy, loss", "'auc'")),
        ({"start": {"regularizer": None}, **DEFAULTS}, "settings with a regularizer"),
        ({"space": Space(compression=(2, 1e9))}, "the largest reachable"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        found(tmp_path / "s.log", **{"trials": 1, **changes})
    assert not (tmp_path / "s.log").exists()


@pytest.mark.parametrize("storage", ["{}", "{}/no/s.log"])
def test_a_storage_that_can_be_no_file(storage: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a file in an existing folder, or a URL"):
        found(storage.format(tmp_path))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("l0", (1e-3, 1e-4)),
        ("l2", (-1.0, 1.0)),
        ("beta", (0.5, 2.0)),
        ("ramp", (1.0, 2.5)),
        ("power", (0.0, 1.0)),
        ("compression", (0.5, 2.0)),
        ("learning_rate", (float("nan"), 1.0)),
        ("factor", 2.0),
    ],
)
def test_a_range_that_is_none(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"space\.{name}"):
        Space(**{name: value})


def test_settings_are_read_from_a_file_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    path.write_text('{"overrides": {"out*": {"l0": 1e-4}}, "ramp": 3}')
    settings = read_settings(path)
    assert settings["overrides"]["out*"].get_config() == L2L0(l0=1e-4).get_config()
    assert settings["score"] == "magnitude"  # what ranked when none was noted
    path.write_text('{"score": "lamp", "ramp": 3}')
    assert read_settings(path)["score"] == "lamp"
    path.write_text('{"method": "layerwise"}')
    assert "score" not in read_settings(path)
    for text in (
        *("no JSON", "[1]", '{"trials": []}', '{"regularizer": {"l3": 1}}'),
        '{"export": "elsewhere.tflite"}',  # files that strangers name
        '{"checkpoint_dir": "elsewhere"}',
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match="those of a trial"):
            read_settings(path)
    with pytest.raises(ValueError, match="those of a trial"):
        read_settings(tmp_path / "none.json")
