"""Trainings in processes of their own, which are killed; for ``test_killed.py``."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_l0 import L2L0, GlobalPrune, compress

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


class Life(keras.callbacks.Callback):
    """Tells that the training has begun, and ends the process at a step, if it is to."""

    def __init__(self, folder: Path, kill_at: int | None) -> None:
        super().__init__()
        self._alive, self._steps, self._kill_at = folder / "alive", [0], [kill_at]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._alive.touch()
        self._steps[0] += 1
        if self._kill_at[0] is not None and self._steps[0] > self._kill_at[0]:
            os.kill(os.getpid(), signal.SIGKILL)


def by_checkpoint_dir(folder: Path, kill_at: int | None) -> None:
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
        callbacks=[stops, Life(folder, kill_at)],
        checkpoint_dir=folder / "run",
        verbose=0,
    )
    save(folder, result.model, result.history.history["loss"])


def by_backup(folder: Path, kill_at: int | None, first: bool = False) -> None:
    """``BackupAndRestore``, before or behind our callback."""
    model = network()
    backup = keras.callbacks.BackupAndRestore(folder / "backup")
    prune = GlobalPrune(0.8, begin=EPOCHS // 4, end=EPOCHS // 2)
    both = [backup, prune] if first else [prune, backup]
    _fit(model, [*both, Life(folder, kill_at)], 0)
    save(folder, model)


def by_backup_first(folder: Path, kill_at: int | None) -> None:
    by_backup(folder, kill_at, first=True)


def by_model_file(folder: Path, kill_at: int | None, first: bool = False) -> None:
    """``ModelCheckpoint`` and ``load_model``, before or behind our callback."""
    files = sorted(folder.glob("*.keras"))
    keras.utils.set_random_seed(5)
    model = keras.models.load_model(files[-1]) if files else network()
    writes = keras.callbacks.ModelCheckpoint(folder / "{epoch:04d}.keras")
    prune = GlobalPrune(0.8, begin=EPOCHS // 4, end=EPOCHS // 2)
    both = [writes, prune] if first else [prune, writes]
    _fit(model, [*both, Life(folder, kill_at)], int(files[-1].stem) if files else 0)
    save(folder, model)


def by_model_file_first(folder: Path, kill_at: int | None) -> None:
    by_model_file(folder, kill_at, first=True)


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


def save(folder: Path, model: keras.Model, losses: Any = ()) -> None:
    """The end of a run: its weights, one after another."""
    np.savez(folder / "end.npz", *model.get_weights(), losses=losses)


Training = Callable[[Path, int | None], None]


def start(training: Training, folder: Path, kill_at: int | None = None) -> Any:
    """The training in a process of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "alive").unlink(missing_ok=True)
    process = CLEAN.Process(target=training, args=(folder, kill_at))
    process.start()
    return process


def run(training: Training, folder: Path) -> dict[str, Any]:
    """What comes of it if nobody kills it."""
    process = start(training, folder)
    process.join()
    assert process.exitcode == 0
    with np.load(folder / "end.npz") as end:
        return dict(end)


def run_killed(
    training: Training, folder: Path, kills: int, seed: int, anywhere: bool
) -> tuple[dict[str, Any], int]:
    """What comes of it if it is killed again and again, and how often that was.

    Args:
        training: one of those above.
        folder: for its files.
        kills: how often at most.
        seed: of the moments.
        anywhere: killed from outside, in the first half second of training, at whatever it is
            doing; else by itself, after one of its first twelve steps.
    """
    moments = random.Random(seed)
    killed = 0
    while killed < kills:
        process = start(training, folder, None if anywhere else moments.randrange(1, 40))
        while anywhere and process.is_alive() and not (folder / "alive").exists():
            time.sleep(0.002)
        if anywhere:
            process.join(moments.uniform(0, 0.5))
            process.kill()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        killed += 1
    return run(training, folder), killed
