"""Trainings in processes of their own, which are killed; for ``test_killed.py``."""

import contextlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np

from keras_l0 import L2L0, GlobalPrune, cli, compress
from keras_l0.pruning import quota

EPOCHS = 40

# A process that has imported Keras and not begun to compute: its children start at once.
CLEAN = multiprocessing.get_context("forkserver")
CLEAN.set_forkserver_preload(["keras", "keras_l0", "killing"])


def network(dropout: bool = False) -> keras.Model:
    """A small network with everything that has a state.

    Keras' own files do not hold the state of random layers, such as dropout: only ours can have it.
    """
    keras.utils.set_random_seed(5)
    penalty = L2L0(l2=1e-4, l0=1e-4)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(24, "relu", kernel_regularizer=penalty),
            keras.layers.BatchNormalization(),
            *([keras.layers.Dropout(0.2)] if dropout else []),
            keras.layers.Dense(3, "softmax", kernel_regularizer=penalty),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    return model


def data() -> tuple[Any, Any]:
    """Sixty-four examples of three classes."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 12)).astype("float32"), rng.integers(0, 3, 64)


class Kill:
    """Ends the process by SIGKILL, at a place that it passes.

    Args:
        place: its name; ``None`` to let the process live.
        time: of the times that it is passed, counted from 1.
    """

    def __init__(self, place: str | None = None, time: int = 1) -> None:
        self.place, self.time = place, time

    def at(self, place: str) -> None:
        """Tells that the process passes this place."""
        if place == self.place:
            self.time -= 1
            if not self.time:
                os.kill(os.getpid(), signal.SIGKILL)


HOOKS = ("on_epoch_begin", "on_train_batch_begin", "on_train_batch_end", "on_epoch_end")
ENDS = ("first", "last")


class Life(keras.callbacks.Callback):
    """Tells that the training has begun, and passes ``HOOK, first`` or ``HOOK, last``.

    One of each stands around the other callbacks, which a kill then meets before or after what
    they do at an epoch's beginning and end, but not in it.
    """

    def __init__(self, folder: Path, kill: Kill, end: str) -> None:
        super().__init__()
        self._alive, self._kill, self._end = folder / "alive", kill, end

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._kill.at(f"on_epoch_begin, {self._end}")

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._kill.at(f"on_train_batch_begin, {self._end}")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._alive.touch()
        self._kill.at(f"on_train_batch_end, {self._end}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._kill.at(f"on_epoch_end, {self._end}")


def between(folder: Path, kill: Kill, *callbacks: Any) -> list[Any]:
    """The callbacks, a ``Life`` before and behind them."""
    first, last = (Life(folder, kill, end) for end in ENDS)
    return [first, *callbacks, last]


def watch(kill: Kill) -> None:
    """Has this process pass more places, until it ends.

    They are ``fsync``; ``replace FILE`` and ``replaced FILE``, before and after the file is put in
    its place; ``pruning``, where the first of several kernels has been pruned; and ``unlinked``,
    where a file of a ``checkpoint`` folder is gone.
    """
    fsync, replace, prune_to, assign = os.fsync, Path.replace, quota.prune_to, keras.Variable.assign
    rmtree, unlink = shutil.rmtree, os.unlink

    def fsync_told(file: int) -> None:
        kill.at("fsync")
        fsync(file)

    def replace_told(path: Path, target: Path) -> Path:
        kill.at(f"replace {target.name}")
        found = replace(path, target)
        kill.at(f"replaced {target.name}")
        return found

    def prune_told(*arguments: Any) -> None:
        pruned = []

        def assign_told(variable: Any, value: Any) -> Any:
            if len(pruned) == 1:  # before the second one, so that there is one
                kill.at("pruning")
            pruned.append(variable)
            return assign(variable, value)

        with mock.patch.object(keras.Variable, "assign", assign_told):
            prune_to(*arguments)

    def unlink_told(*arguments: Any, **options: Any) -> None:
        unlink(*arguments, **options)
        kill.at("unlinked")

    def rmtree_told(path: Any, *arguments: Any, **options: Any) -> None:
        told = unlink_told if "checkpoint" in Path(path).name else unlink
        with mock.patch.object(os, "unlink", told):
            rmtree(path, *arguments, **options)

    os.fsync, Path.replace, quota.prune_to = fsync_told, replace_told, prune_told
    shutil.rmtree = rmtree_told


def by_checkpoint_dir(folder: Path, kill: Kill) -> None:
    """``compress``, shuffling; two calls of ``fit``, with ``EarlyStopping`` beside."""
    stops = keras.callbacks.EarlyStopping("loss", patience=EPOCHS, restore_best_weights=True)
    result = compress(
        network(dropout=True),
        data(),
        data(),
        compression=2,
        warmup=EPOCHS // 4,
        ramp=EPOCHS // 4,
        finetune=EPOCHS // 2,
        shrink=True,
        batch_size=8,
        callbacks=between(folder, kill, stops),
        checkpoint_dir=folder / "run",
        verbose=0,
    )
    save(folder, result.model, losses=result.history.history["loss"])


def by_program(folder: Path, _: Kill) -> None:
    """``keras-l0 compress``, gone on with by ``--resume`` for as long as it has not ended."""
    given, out = given_to_program(folder), folder / "out"
    (folder / "alive").touch()
    ended = (out / "report.json").exists() and not (out / "checkpoint").exists()
    if not ended:
        files = {name: str(given / name) for name in ("model.keras", "data.npz", "settings.json")}
        call = ["compress", files["model.keras"], "--data", files["data.npz"]]
        call += ["--settings", files["settings.json"], "--out", str(out)]
        resume = ["--resume"] if (out / "checkpoint").exists() else []
        with contextlib.redirect_stdout(io.StringIO()):
            status = cli.main([*call, *resume])
        assert status == 0, "what is wrong stands on stderr"
    assert {"export", "test_after"} <= json.loads((out / "report.json").read_text()).keys()
    exported = np.frombuffer((out / "model.tflite").read_bytes(), np.uint8)
    save(folder, keras.models.load_model(out / "model.keras"), exported=exported)


def given_to_program(folder: Path) -> Path:
    """A folder with the program's model, data and settings, whole or absent."""
    given, half = folder / "given", folder / "half"
    if not given.exists():
        half.mkdir(exist_ok=True)
        network(dropout=True).save(half / "model.keras")
        x, y = data()
        np.savez(half / "data.npz", x_train=x, y_train=y)
        epochs = {"warmup": EPOCHS // 4, "ramp": EPOCHS // 4, "finetune": EPOCHS // 2}
        settings = {"compression": 2, "shrink": True, "batch_size": 8, **epochs}
        (half / "settings.json").write_text(json.dumps(settings))
        half.rename(given)
    return given


def by_backup(folder: Path, kill: Kill, first: bool = False) -> None:
    """``BackupAndRestore``, before or behind our callback."""
    model = network()
    backup = keras.callbacks.BackupAndRestore(folder / "backup")
    prune = GlobalPrune(0.8, begin=EPOCHS // 4, end=EPOCHS // 2)
    both = [backup, prune] if first else [prune, backup]
    _fit(model, between(folder, kill, *both), 0)
    save(folder, model)


def by_backup_first(folder: Path, kill: Kill) -> None:
    by_backup(folder, kill, first=True)


def by_model_file(folder: Path, kill: Kill, first: bool = False) -> None:
    """``ModelCheckpoint`` and ``load_model``, before or behind our callback."""
    files = sorted(folder.glob("*.keras"))
    keras.utils.set_random_seed(5)
    model = keras.models.load_model(files[-1]) if files else network()
    writes = keras.callbacks.ModelCheckpoint(folder / "{epoch:04d}.keras")
    prune = GlobalPrune(0.8, begin=EPOCHS // 4, end=EPOCHS // 2)
    both = [writes, prune] if first else [prune, writes]
    _fit(model, between(folder, kill, *both), int(files[-1].stem) if files else 0)
    save(folder, model)


def by_model_file_first(folder: Path, kill: Kill) -> None:
    by_model_file(folder, kill, first=True)


def _fit(model: keras.Model, callbacks: list[Any], begin: int) -> None:
    model.fit(
        *data(),
        batch_size=8,
        epochs=EPOCHS,
        initial_epoch=begin,
        callbacks=callbacks,
        shuffle=False,
        verbose=0,
    )


def save(folder: Path, model: keras.Model, **more: Any) -> None:
    """The end of a run: its weights, one after another, and what else it is known by."""
    np.savez(folder / "end.npz", *model.get_weights(), **more)


Training = Callable[[Path, Kill], None]


def start(training: Training, folder: Path, kill: Kill | None = None) -> Any:
    """The training in a process of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "alive").unlink(missing_ok=True)
    process = CLEAN.Process(target=_train, args=(training, folder, kill or Kill()))
    process.start()
    return process


def _train(training: Training, folder: Path, kill: Kill) -> None:
    watch(kill)
    training(folder, kill)


def run(training: Training, folder: Path) -> dict[str, Any]:
    """What comes of it if nobody kills it."""
    process = start(training, folder)
    process.join()
    assert process.exitcode == 0
    with np.load(folder / "end.npz") as end:
        return dict(end)


def seconds(folder: Path) -> float:
    """How long a training lived that has ended."""
    alive, end = (folder / name for name in ("alive", "end.npz"))
    return end.stat().st_mtime - alive.stat().st_mtime


def kill_at(training: Training, folder: Path, place: str, time: int = 1) -> None:
    """The training, until it is killed at a place that it passes."""
    process = start(training, folder, Kill(place, time))
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"it has not passed {place} {time} times"


def run_killed(
    training: Training, folder: Path, kills: int, seed: int, within: float | None = None
) -> tuple[dict[str, Any], int]:
    """What comes of it if it is killed again and again, and how often that was.

    Args:
        training: one of those above.
        folder: for its files.
        kills: how often at most.
        seed: of the moments.
        within: killed from outside, in the first so many seconds of training, at whatever it is
            doing; ``None`` for by itself, at one of the first forty passes of a hook of batches
            or the first six of one of epochs, before or after the other callbacks.
    """
    moments = random.Random(seed)
    killed = 0
    while killed < kills:
        process = start(training, folder, None if within else _moment(moments))
        while within and process.is_alive() and not (folder / "alive").exists():
            time.sleep(0.002)
        if within:
            process.join(moments.uniform(0, within))
            process.kill()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        killed += 1
    return run(training, folder), killed


def _moment(moments: random.Random) -> Kill:
    hook, end = moments.choice(HOOKS), moments.choice(ENDS)
    return Kill(f"{hook}, {end}", moments.randint(1, 40 if "batch" in hook else 6))
