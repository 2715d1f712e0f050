"""``compress(checkpoint_dir=)``: a run that was broken off goes on, or says why it cannot."""

import errno
import json
import os
import random
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_l0 import cli, compress, resuming
from keras_l0.batches import Shuffled
from keras_l0.checkpoint import read_tree, write_tree
from keras_l0.identity import identity

SHORT: dict[str, Any] = {"compression": 2.5, "warmup": 1, "ramp": 2, "finetune": 2}
WAYS: dict[str, dict[str, Any]] = {
    "one fit": SHORT,
    "two fits": SHORT | {"compression": 1.7, "shrink": True, "rewind": 1, "regrow": True},
    "random": {"sparsity": 0.7, "warmup": 2, "ramp": 0, "finetune": 3, "method": "random"},
    "bound": {"bound": {"val_accuracy": 0.2}, "warmup": 1, "ramp": 2, "finetune": 2},
    "redundancy": SHORT | {"scheme": "redundancy"},
}


class Breaks(keras.callbacks.Callback):
    """Breaks a training off after so many steps, in whichever epoch."""

    def __init__(self, after: int | None = None) -> None:
        super().__init__()
        self._left = [after, "steps"]  # no plain numbers: those are given back

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._left[0] is not None:
            self._left[0] -= 1
            if self._left[0] < 0:
                raise KeyboardInterrupt


def network(
    units: int = 16,
    activation: str = "relu",
    optimizer: Any = "adam",
    loss: Any = "sparse_categorical_crossentropy",
) -> keras.Model:
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(units, activation),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def examples(seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(40, 6)), rng.integers(0, 3, 40)


def run(folder: Path, after: int | None = None, **arguments: Any) -> Any:
    given = {"train": examples(), "validation": examples(1), "batch_size": 8, "verbose": 0}
    model = arguments.pop("model", None) or network()
    callbacks = [*arguments.pop("callbacks", ()), Breaks(after)]
    return compress(model, **given | arguments, callbacks=callbacks, checkpoint_dir=folder)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has ended."""
    folder = tmp_path_factory.mktemp("run")
    run(folder, **SHORT)
    return folder


@pytest.fixture
def ended(kept: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(kept, tmp_path / "ended"))


RARE = ("random", "bound", "redundancy")


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=pytest.mark.slow if way in RARE else ()) for way in WAYS]
)
def test_a_run_that_is_broken_off_ends_as_one_that_is_not(way: str, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", **WAYS[way])
    for after in (8, 6):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "broken", after, **WAYS[way])
    broken = run(tmp_path / "broken", **WAYS[way])
    for one, other in zip(whole.model.get_weights(), broken.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert broken.history.epoch == whole.history.epoch == [0, 1, 2, 3, 4]
    assert broken.history.history == whole.history.history
    assert broken.report.before == whole.report.before
    assert broken.report.after == whole.report.after


def test_a_run_that_has_ended_trains_no_more(tmp_path: Path) -> None:
    first = run(tmp_path, **SHORT)
    model = network()
    model.set_weights([value + 1 for value in model.get_weights()])
    again = run(tmp_path, 0, model=model, **SHORT)  # the first step would break it off
    for one, other in zip(first.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.report.before == first.report.before
    assert again.report.seconds > 0


def test_a_run_that_has_ended_says_so(ended: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keras.config.enable_interactive_logging()
    run(ended, 0, **SHORT, verbose=2)
    last = sum(SHORT[name] for name in ("warmup", "ramp", "finetune"))
    told = capsys.readouterr().out
    assert f"finished at epoch {last}, nothing is left to train." in told
    assert "goes on" not in told


class Batches(keras.utils.PyDataset):
    """Batches that Keras shuffles, for a network with dropout."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        x, y = examples()
        part = slice(8 * index, 8 * index + 8)
        return x[part].astype("float32"), y[part]


@pytest.mark.parametrize("arguments", [{}, {"method": "random"}, {"ramp": 0}])
def test_a_data_set_gives_the_weights_of_a_run_without_a_folder(
    arguments: dict[str, Any], tmp_path: Path
) -> None:
    found = []
    for folder in None, tmp_path:
        model = network()
        keras.utils.set_random_seed(3)
        given = {"train": Batches(), "batch_size": None, **SHORT, **arguments}
        seed = {"seed": 5} if "method" in arguments else {}
        found.append(run(folder, model=model, **given, **seed).model.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_callbacks_get_back_what_they_counted(tmp_path: Path) -> None:
    def stops() -> list[keras.callbacks.Callback]:
        # min_delta: no epoch is better than the first.
        return [keras.callbacks.EarlyStopping("loss", patience=3, min_delta=9, verbose=0)]

    whole = run(tmp_path / "whole", callbacks=stops(), **SHORT | {"finetune": 9})
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", 12, callbacks=stops(), **SHORT | {"finetune": 9})
    broken = run(tmp_path / "broken", callbacks=stops(), **SHORT | {"finetune": 9})
    assert broken.history.epoch == whole.history.epoch == [0, 1, 2, 3]
    assert run(tmp_path / "broken", 0, callbacks=stops(), **SHORT | {"finetune": 9})


def test_generators_of_the_user_go_on(tmp_path: Path) -> None:
    class Noisy(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            x, y = examples()
            noise = np.random.normal(size=(8, 6)) + random.random()
            return x[8 * index : 8 * index + 8] + noise, y[8 * index : 8 * index + 8]

    def noisy(folder: Path, after: int | None = None) -> Any:
        return run(folder, after, train=Noisy(), batch_size=None, **SHORT)

    if keras.config.backend() == "tensorflow":
        reason = "a tf.data pipeline draws batches ahead of the step, in a thread of its own"
        pytest.skip(reason)
    whole = noisy(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        noisy(tmp_path / "broken", 9)
    broken = noisy(tmp_path / "broken")
    assert broken.history.history == whole.history.history


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"warmup": 2}, "warmup"),
        ({"train": examples(5)}, "train"),
        ({"model": {"units": 17}}, "model"),
        ({"callbacks": [keras.callbacks.TerminateOnNaN()]}, "callbacks"),
        ({"model": {"activation": "tanh"}}, "network"),
        ({"model": {"optimizer": keras.optimizers.Adam(beta_1=0.8)}}, "optimizer"),
        ({"model": {"optimizer": "sgd"}}, "optimizer"),
        ({"model": {"loss": keras.losses.SparseCategoricalCrossentropy(ignore_class=9)}}, "loss"),
    ],
)
def test_another_run_is_refused(change: dict[str, Any], name: str, ended: Path) -> None:
    before = {path.name: path.read_bytes() for path in ended.iterdir()}
    changed = dict(change)
    if "model" in changed:
        changed["model"] = network(**changed["model"])
    with pytest.raises(ValueError, match=rf"`checkpoint_dir`.*Its run has {name}="):
        run(ended, **SHORT | changed)
    assert before == {path.name: path.read_bytes() for path in ended.iterdir()}


def test_the_same_run_is_known_with_another_rate_or_names(tmp_path: Path) -> None:
    """Callbacks change the rate of a model that is at hand, and Keras counts names up."""
    first = run(tmp_path, model=network(optimizer=keras.optimizers.Adam(0.5)), **SHORT)
    again = run(tmp_path, 0, **SHORT)
    np.testing.assert_array_equal(again.model.get_weights()[0], first.model.get_weights()[0])


def test_no_file_of_another_run_is_taken(ended: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    run(other, train=examples(5), **SHORT)
    (ended / "training.npz").replace(other / "training.npz")
    with pytest.raises(ValueError, match=r"`checkpoint_dir`.*the state of this run.*training\.npz"):
        run(other, train=examples(5), **SHORT)
    (other / "run.json").unlink()
    with pytest.raises(ValueError, match=r"`checkpoint_dir`.*a whole run\.json"):
        run(other, train=examples(5), **SHORT)


@pytest.mark.parametrize(
    "text", ["[]", '{"identity": [], "before": {}, "seed": 1}', '{"digest": "0"}', "[" * 10**5]
)
def test_a_strange_run_file_is_refused(text: str, ended: Path) -> None:
    (ended / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"`checkpoint_dir`.*run\.json"):
        run(ended, **SHORT)


def test_a_run_of_an_earlier_version_is_refused_with_the_reason(ended: Path) -> None:
    path = ended / "run.json"
    noted = json.loads(path.read_text())
    del noted["format"]
    path.write_text(json.dumps(noted | {"digest": resuming._digest(noted)}))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"`checkpoint_dir`.*0\.1\.0 began it.*by magnitude"):
        run(ended, **SHORT)
    assert path.read_bytes() == before


def test_each_digit_of_the_run_file_counts(ended: Path) -> None:
    path = ended / "run.json"
    noted = json.loads(path.read_text())
    path.write_text(json.dumps(noted | {"seed": noted["seed"] + 1}))
    with pytest.raises(ValueError, match=r"`checkpoint_dir`.*not as it was written"):
        run(ended, **SHORT)


def test_a_run_without_an_epoch_begins_anew(tmp_path: Path) -> None:
    """Its model is another one, if no seed was set, and so is what it began with."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 0, **SHORT)
    model = network()
    model.layers[0].kernel.assign(2 * model.layers[0].kernel)
    before = model.evaluate(*examples(1), verbose=0, return_dict=True)
    assert run(tmp_path, model=model, **SHORT).report.before == pytest.approx(before)


@pytest.mark.parametrize("name", ["run.json", "training.npz"])
@pytest.mark.parametrize("keep", [0, 100, -3])
def test_a_damaged_file_is_refused(name: str, keep: int, ended: Path) -> None:
    path = ended / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"`checkpoint_dir`.*{name}"):
        run(ended, **SHORT)


def test_a_full_disk_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 6, **SHORT)
    before = (tmp_path / "training.npz").read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patch.setattr(os, "fsync", full)
        result = run(tmp_path, **SHORT)
    assert result.report.summary.compression >= 2.5
    told = [str(one.message) for one in caught]
    reason = f"{os.strerror(errno.ENOSPC)}. If the run is killed"
    assert any("is not kept in" in one and reason in one for one in told)
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "training.npz"}
    assert (tmp_path / "training.npz").read_bytes() == before
    assert run(tmp_path, **SHORT).history.history == result.history.history


@pytest.mark.parametrize("trouble", ["the folder is gone", "no file can be made", "elsewhere"])
def test_nothing_about_the_folder_ends_the_training(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Troubles(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1 and trouble == "elsewhere":
                os.chdir(tmp_path)
            elif epoch == 1 and trouble == "the folder is gone":
                shutil.rmtree(tmp_path / "in" / "run")
            elif epoch == 1:
                monkeypatch.setattr(tempfile, "TemporaryFile", none)

    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = run(Path("run"), callbacks=[Troubles()], **SHORT)
    assert result.report.summary.compression >= 2.5
    told = [str(one.message) for one in caught if "is not kept in" in str(one.message)]
    assert len(told) == (0 if trouble == "elsewhere" else 4)
    assert (tmp_path / "in/run/training.npz").exists() == (trouble != "the folder is gone")


def test_files_half_written_are_taken_away_and_no_others(tmp_path: Path) -> None:
    (tmp_path / ".0123abcd-training.npz").write_bytes(b"half")
    own = {".xsession-errors", ".my_notes-2026.txt", ".12345678-folder"}
    for name in own:
        (tmp_path / name).write_text("mine")
    run(tmp_path, **SHORT)
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "training.npz", *own}


def test_a_folder_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`checkpoint_dir`. Expected a folder's path"):
        run("", **SHORT)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["lists", pytest.param("dicts", marks=pytest.mark.slow)])
def test_models_of_several_inputs_and_outputs_go_on(kind: str, tmp_path: Path) -> None:
    def two() -> keras.Model:
        keras.utils.set_random_seed(3)
        a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
        joined = keras.layers.Concatenate()([a, b])
        p, q = (keras.layers.Dense(3, name=name)(joined) for name in "pq")
        named = kind == "dicts"
        model = keras.Model([a, b], {"p": p, "q": q} if named else [p, q])
        model.compile("adam", {"p": "mse", "q": "mae"} if named else ["mse", "mae"])
        return model

    def both(names: str, one: Any, other: Any) -> Any:
        return dict(zip(names, (one, other), strict=True)) if kind == "dicts" else [one, other]

    x, _ = examples()
    y = np.ones((40, 3))
    data = both("ab", x, x[::-1]), both("pq", y, 2 * y), both("pq", np.ones(40), np.arange(40.0))
    given = SHORT | {"compression": 1.5, "train": data, "validation": data}
    whole = run(tmp_path / "whole", model=two(), **given)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", 8, model=two(), **given)
    broken = run(tmp_path / "broken", model=two(), **given)
    for one, other in zip(whole.model.get_weights(), broken.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_weight_of_none_is_none(tmp_path: Path) -> None:
    x, y = examples()
    assert run(tmp_path, train=(x, y, None), **SHORT).report.summary.compression >= 2.5


@pytest.mark.parametrize(
    "x", [np.array(["a"] * 40), np.array([None] * 40), scipy.sparse.csr_matrix(np.ones((40, 6)))]
)
def test_arrays_of_other_things_than_numbers_are_refused(x: Any, tmp_path: Path) -> None:
    model = network()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"`train`. Expected arrays of numbers beside `checkpoint"):
        run(tmp_path, model=model, train=(x, examples()[1]), **SHORT)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


class Odd(keras.callbacks.Callback):
    """Remembers what a file of numbers does not hold, and logs it."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.kept = [np.array([1.5], ">f8"), np.array([2])]
        self.texts, self.complex = np.array(["a", "bb"]), np.complex64(1j)
        self.things = np.array([None])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["note"] = "x"


def test_callbacks_may_remember_and_log_anything(tmp_path: Path) -> None:
    given = {"callbacks": [Odd(), keras.callbacks.CSVLogger(tmp_path / "log.csv", append=True)]}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", 8, **given, **SHORT)
    state = read_tree(tmp_path / "run/training.npz")
    odd = next(one for one in state["callbacks"] if "kept" in one)
    np.testing.assert_array_equal(odd["kept"][0], np.array([1.5], ">f8"), strict=True)
    assert run(tmp_path / "run", **given, **SHORT).history.epoch == [0, 1, 2, 3, 4]
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "0", "1", "2", "3", "4"]


def test_two_who_put_weights_back_are_refused(tmp_path: Path) -> None:
    backup = [keras.callbacks.BackupAndRestore(tmp_path / "backup")]
    with pytest.raises(ValueError, match=r"`checkpoint_dir`\. Expected None beside BackupAndRes"):
        run(tmp_path, callbacks=backup, **SHORT)


def test_the_folder_is_known_by_what_makes_a_run() -> None:
    model = network()
    known = identity(model, {"ramp": 2}, [], train=examples())
    assert json.loads(json.dumps(known)) == known
    assert known == identity(network(), {"ramp": 2}, [], train=examples())
    assert known["train"] != identity(model, {}, [], train=examples(1))["train"]
    texts = np.array(["a", "b" * 9], object)
    again = np.array(["a", "".join(["b"] * 9)], object)
    assert identity(model, {}, [], train=(texts,)) == identity(model, {}, [], train=(again,))
    assert identity(model, {}, [], train=Shuffled((np.ones(3),), 2, 0))["train"] == ("Shuffled")


@given(
    count=st.integers(1, 50),
    batch_size=st.integers(1, 60),
    seed=st.integers(0, 2**31),
    steps=st.none() | st.integers(1, 9),
    epoch=st.integers(0, 5),
)
def test_each_pass_has_every_example_once(
    count: int, batch_size: int, seed: int, steps: int | None, epoch: int
) -> None:
    passes = Shuffled((np.arange(count),), batch_size, seed, steps)
    drawn: list[int] = []
    while len(drawn) < count * (epoch + 1):
        for (batch,) in (passes[index] for index in range(len(passes))):
            assert 0 < len(batch) <= batch_size
            drawn += batch.tolist()
        passes.epoch += 1
    for one in range(epoch + 1):
        assert sorted(drawn[count * one : count * (one + 1)]) == list(range(count))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        passes = Shuffled((np.arange(50),), 50, seed)
        passes.epoch = epoch
        return passes[0][0].tolist()

    assert order(1, 3) == order(1, 3)
    assert order(1, 3) != order(1, 4)
    assert order(1, 3) != order(2, 3)


ARRAYS = hnp.arrays(
    st.sampled_from(["float16", "float32", "float64", "int32", "uint32", "bool"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text() | ARRAYS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=60)
@given(tree=TREES)
def test_a_tree_comes_back(tree: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("trees") / "tree.npz"
    write_tree(path, tree)
    assert_equal(read_tree(path), tree)


def assert_equal(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_equal(found[name], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    else:
        np.testing.assert_array_equal(found, expected, strict=isinstance(expected, np.ndarray))


def test_a_tree_holds_bfloat16(tmp_path: Path) -> None:
    import ml_dtypes

    value = np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3)
    write_tree(tmp_path / "tree.npz", {"one": value})
    np.testing.assert_array_equal(read_tree(tmp_path / "tree.npz")["one"], value, strict=True)


def test_the_program_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = network()
    given.optimizer.build(given.trainable_variables)  # else Keras warns when it loads the file
    given.save(tmp_path / "model.keras")
    x, y = examples()
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y)
    short = ["--compression", "2", "--warmup", "1", "--ramp", "1", "--finetune", "1"]
    model, data = str(tmp_path / "model.keras"), str(tmp_path / "data.npz")

    def call(out: str, *more: str) -> int:
        folder = str(tmp_path / out)
        return cli.main(["compress", model, "--data", data, "--out", folder, *short, *more])

    assert call("whole") == 0
    assert not (tmp_path / "whole" / "checkpoint").exists()

    def broken(path: Path, tree: Any) -> None:
        write_tree(path, tree)
        if tree["epoch"] == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resuming, "write_tree", broken)
        assert call("broken") == 130
    capsys.readouterr()
    assert call("broken") == 2
    assert "by --resume, or begin anew with --overwrite" in capsys.readouterr().err
    assert call("broken", "--resume") == 0
    assert "goes on after epoch 2" in capsys.readouterr().out
    whole, other = (
        keras.models.load_model(tmp_path / out / "model.keras").get_weights()
        for out in ("whole", "broken")
    )
    for one, again in zip(whole, other, strict=True):
        assert np.array_equal(one, again)
