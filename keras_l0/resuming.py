"""A training that is killed, started again, and ends as one that was not."""

import contextlib
import json
import os
import random
import re
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_l0.batches import Shuffled, arrays_of
from keras_l0.checkpoint import read_tree, write_tree
from keras_l0.errors import invalid_argument
from keras_l0.files import check_folder, write_text
from keras_l0.identity import digest
from keras_l0.pruning.holding import own_variables
from keras_l0.remembering import remembered, remind
from keras_l0.result import joined

_ARGUMENT = "checkpoint_dir"
_STAGES = ("training", "tuning")
_FORMAT = 2  # of the files; 0.1.0 noted none
# What a kill leaves of a file half written.
_HALF = re.compile(rf"\.[0-9a-f]{{8}}-(run\.json|({'|'.join(_STAGES)})\.npz)")


class Run:
    """Calls of ``fit`` whose state is kept in a folder, epoch by epoch.

    ``run.json`` says what the run is, ``STAGE.npz`` where each of its calls of ``fit`` is: weights,
    optimizer, logs, generators of random numbers, and what callbacks remember. Each is replaced
    as a whole, so that a kill leaves the state of the last epoch that ended. All have the digest
    of the run's beginning, so that no file of another one is taken for its own.

    Args:
        folder: where, made if it is missing; ``None`` to keep nothing: plain ``fit``.
        identity: gives what has to be the same when the run goes on, as JSON can hold it.
        before: metrics of the model as it was given, to be told again at the end.

    Attributes:
        before: those that the run began with.
        seed: what shuffles, and what prunes at random if no other seed was given.
        seconds: how long the parts that earlier processes did have taken.

    Raises:
        ValueError: if the folder cannot be written, or holds another run or a damaged file.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        identity: Callable[[], Mapping[str, Any]],
        before: Mapping[str, float],
    ) -> None:
        self.before, self.seconds = dict(before), 0.0
        self.folder: Path | None = None
        self.seed: int | None = None
        if folder is None:
            return
        self.folder = check_folder(folder, _ARGUMENT).absolute()
        # Of the global generator's state, which stays: else data sets and layers that draw from it
        # would get other numbers than in a run without a folder.
        generator = random.Random()
        generator.setstate(random.getstate())
        self.seed = generator.randrange(2**31)
        path = self.folder / "run.json"
        ours = json.loads(json.dumps(identity()))
        if any((self.folder / f"{stage}.npz").exists() for stage in _STAGES):
            noted = _read_run(path)
            if "format" not in noted:
                raise invalid_argument(
                    _ARGUMENT,
                    "a run of this version",
                    str(self.folder),
                    "keras_l0 0.1.0 began it, which ranks weights by magnitude unless told and "
                    "keeps other states: end it with that version, or remove the folder",
                )
            _check_same(noted["identity"], ours, path)
            self.before, self.seed = noted["before"], noted["seed"]
        else:  # not an epoch of a run that may have begun here is left
            noted = {"identity": ours, "before": self.before, "seed": self.seed, "format": _FORMAT}
            noted["digest"] = _digest(noted)
            write_text(path, json.dumps(noted, indent=1))
        self.digest: str = noted["digest"]
        for left in self.folder.iterdir():
            if _HALF.fullmatch(left.name):
                left.unlink()

    def fit(
        self,
        model: keras.Model,
        stage: str,
        data: dict[str, Any],
        *,
        begin: int,
        end: int,
        callbacks: Sequence[keras.callbacks.Callback],
        **arguments: Any,
    ) -> keras.callbacks.History:
        """``model.fit`` from epoch ``begin`` to ``end``, or from where it was killed.

        Args:
            model: compiled; its weights and optimizer are put where the run was.
            stage: the call's name among those of the run.
            data: ``x``, ``y``, ``sample_weight`` and ``shuffle`` of ``fit``; arrays are shuffled
                by ``Shuffled``.
            begin: the first epoch.
            end: the epoch after the last one.
            callbacks: they are given back what they remembered.
            arguments: others of ``fit``.

        Returns:
            The history from ``begin`` on.
        """
        if self.folder is None or self.seed is None:
            return model.fit(
                **data, initial_epoch=begin, epochs=end, callbacks=[*callbacks], **arguments
            )
        path = self.folder / f"{stage}.npz"
        state = read_tree(path, _ARGUMENT) if path.exists() else None
        if state is not None and state.get("run") != self.digest:
            raise _not_its_own(path)
        arrays = arrays_of(data, "train")
        if arrays is not None:
            size = arguments.pop("batch_size") or 32
            shuffled = Shuffled(arrays, size, self.seed, arguments.pop("steps_per_epoch"))
            data = {"x": shuffled, "shuffle": False}
            arguments["validation_batch_size"] = size
        if state is not None:
            _put(state["weights"], model.variables, path)
            done = state["epoch"] + 1
            begin = end if state["stopped"] else done
            if arguments.get("verbose") and keras.config.is_interactive_logging_enabled():
                ended = f"finished at epoch {done}, nothing is left to train"
                print(f"{path}: {f'goes on after epoch {done}' if begin < end else ended}.")
        saving = Saving(path, self.digest, callbacks, data["x"], state)
        history = model.fit(
            **data, initial_epoch=begin, epochs=end, callbacks=[*callbacks, saving], **arguments
        )
        self.seconds += state["seconds"] if state else 0.0
        return joined(_history(state["logs"]), history) if state else history


class Saving(keras.callbacks.Callback):
    """Writes the whole state of a ``fit`` at each epoch's end. To stand last.

    Args:
        path: the file.
        run: the digest of the run's beginning.
        others: the callbacks before it, whose plain attributes are part of the state.
        data: what is trained on; ``Shuffled`` is told the epoch.
        state: what an earlier process left, or ``None``.
    """

    def __init__(
        self,
        path: Path,
        run: str,
        others: Sequence[keras.callbacks.Callback],
        data: Any,
        state: Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        self._path, self._run, self._others = path, run, others
        self._data, self._state = data, state
        self._logs: list[Any] = list(state["logs"]) if state else []
        self._earlier = state["seconds"] if state else 0.0
        self._began = time.perf_counter()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Gives optimizer, callbacks and generators what they had."""
        if self._state is None:
            return
        if len(self._state["callbacks"]) != len(self._others):
            raise _not_its_own(self._path)
        optimizer = self.model.optimizer  # under a strategy, it is ``fit`` that has built it
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        _put(self._state["optimizer"], own_variables(optimizer), self._path)
        for callback, found in zip(self._others, self._state["callbacks"], strict=True):
            remind(callback, found)
        version, words, gauss = self._state["random"]
        random.setstate((version, tuple(words), gauss))
        np.random.set_state(self._state["numpy"])
        if (torch := _torch()) and self._state["torch"] is not None:
            torch.set_rng_state(torch.from_numpy(self._state["torch"].copy()))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Tells the data the epoch, which their order depends on."""
        if isinstance(self._data, Shuffled):
            self._data.epoch = epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the state; a full disk is no reason to lose the training."""
        self._logs.append([epoch, _figures(logs or {})])
        state = {
            "run": self._run,
            "epoch": epoch,
            "stopped": bool(self.model.stop_training),
            "seconds": self._earlier + time.perf_counter() - self._began,
            "weights": _values(self.model.variables),
            "optimizer": _values(own_variables(self.model.optimizer)),
            "logs": self._logs,
            "callbacks": [remembered(callback) for callback in self._others],
            "random": random.getstate(),
            "numpy": np.random.get_state(legacy=False),
            "torch": torch.get_rng_state().numpy() if (torch := _torch()) else None,
        }
        try:
            write_tree(self._path, state)
        except (OSError, ValueError) as error:  # ValueError: the folder is gone, say
            reason = f"{error.strerror}." if isinstance(error, OSError) else str(error)
            warnings.warn(
                f"The state after epoch {epoch + 1} is not kept in {self._path}: {reason} "
                "If the run is killed, it goes on from an earlier one.",
                stacklevel=2,
            )


def check_restored_once(callbacks: Sequence[keras.callbacks.Callback], **arguments: object) -> None:
    """Raises a ``ValueError`` for an argument that puts weights back, beside who does so too."""
    if not any(isinstance(one, keras.callbacks.BackupAndRestore) for one in callbacks):
        return
    for name, value in arguments.items():
        if value is not None:
            reason = "It would put back the weights of an epoch by itself"
            raise invalid_argument(name, "None beside BackupAndRestore", value, reason)


def _read_run(path: Path) -> dict[str, Any]:
    try:
        noted: dict[str, Any] = json.loads(path.read_bytes())
        if noted["digest"] != _digest(noted):
            raise ValueError("It is not as it was written")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise invalid_argument(
            _ARGUMENT, "a folder with a whole run.json", str(path), str(error)
        ) from error
    return noted


def _digest(noted: Mapping[str, Any]) -> str:
    """Of all that run.json says beside it."""
    said = {name: value for name, value in noted.items() if name != "digest"}
    return digest([json.dumps(said, sort_keys=True).encode()])


def _check_same(kept: Mapping[str, Any], ours: Mapping[str, Any], path: Path) -> None:
    """Raises a ``ValueError`` unless this is the run that was begun."""
    for name in {**kept, **ours}:
        if kept.get(name) != ours.get(name):
            raise invalid_argument(
                _ARGUMENT,
                "a new folder, or that of this run",
                str(path.parent),
                f"Its run has {name}={kept.get(name)!r}, this one {ours.get(name)!r}: call it as "
                "then, or remove the folder to begin anew",
            )


def _put(kept: Sequence[Any], variables: Sequence[keras.Variable], path: Path) -> None:
    """Gives variables the values of a state, if they are of its shapes."""
    shapes = [tuple(variable.shape) for variable in variables]
    if [value.shape for value in kept] != shapes:
        raise _not_its_own(path)
    for variable, value in zip(variables, kept, strict=True):
        variable.assign(value)


def _not_its_own(path: Path) -> ValueError:
    expected = "a folder with the state of this run, its model and optimizer"
    return invalid_argument(_ARGUMENT, expected, str(path), "Remove the folder to begin anew")


def _torch() -> Any:
    """PyTorch, if it is in use: its generator draws dropout there, and may draw a user's data."""
    return sys.modules.get("torch")


def _values(variables: Sequence[keras.Variable]) -> list[Any]:
    return [ops.convert_to_numpy(variable) for variable in variables]


def _figures(logs: Mapping[str, Any]) -> dict[str, float]:
    """The logs that are numbers; callbacks may add what is none."""
    found = {}
    for name, value in logs.items():
        with contextlib.suppress(TypeError, ValueError):
            found[name] = float(value)
    return found


def _history(logs: Sequence[Any]) -> keras.callbacks.History:
    history = keras.callbacks.History()
    history.on_train_begin()
    for epoch, found in logs:
        history.epoch.append(epoch)
        for name, value in found.items():
            history.history.setdefault(name, []).append(value)
    return history
