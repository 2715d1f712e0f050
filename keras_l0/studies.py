"""Where a search keeps its trials: a study of Optuna's, in a file or a database."""

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_l0.errors import invalid_argument
from keras_l0.files import naming

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.storages.journal import BaseJournalBackend

FAILED = "failed"
_SPACE = "space"
_STEP = b'{"op_code":'
# What a process that was killed in a step has locked is free after so many seconds.
_LOCKED_SECONDS = 30


def open_study(
    place: str | os.PathLike[str], name: str, larger: bool, seed: int, space: dict[str, Any]
) -> "Study":
    """The study of this name, begun or gone on with.

    Raises:
        ValueError: if it searches something else.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a line for each trial is printed here
    storage = _storage(place)
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:  # there is none; another process may make it at this moment
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            directions=["maximize" if larger else "minimize", "maximize"],
            load_if_exists=True,
        )
    wanted = json.loads(json.dumps(space))
    if not study.trials and _SPACE not in study.user_attrs:
        study.set_user_attr(_SPACE, wanted)
    there = study.user_attrs.get(_SPACE, {})
    if there != wanted:
        differ = [key for key in wanted if there.get(key) != wanted[key]]
        raise invalid_argument(
            "storage",
            f"one whose study {name!r} searches the same space",
            ", ".join(f"{key} {there.get(key)}" for key in differ),
            "Name another study or another storage: this one is left as it is",
        )
    # A search that goes on draws what it has not drawn before.
    state = np.random.SeedSequence((seed, len(study.trials))).generate_state(1)
    study.sampler = optuna.samplers.TPESampler(seed=int(state[0]))
    return study


def finished(study: "Study") -> list[Any]:
    """The trials that have values, whichever process made them."""
    return [one for one in study.get_trials(deepcopy=False) if one.values is not None]


def done(study: "Study") -> int:
    """How many trials are over; interrupted ones, and those that a killed process left, are not."""
    trials = study.get_trials(deepcopy=False)
    return sum(one.values is not None or FAILED in one.user_attrs for one in trials)


def _storage(place: str | os.PathLike[str]) -> "BaseStorage":
    """What Optuna keeps a study in: a file to which each step is appended, or a database."""
    if "://" in os.fspath(place):
        return _database(os.fspath(place))
    from optuna.storages import JournalStorage

    # Optuna's lock is a link to the path: a relative one it would wait for without end.
    path = Path(place).absolute()
    if path.is_dir() or not path.parent.is_dir():
        raise invalid_argument("storage", "a file in an existing folder, or a URL", str(place))
    _check_journal(path)
    try:
        return JournalStorage(_journal(path))
    except Exception as error:  # a damaged file fails in as many ways as it has steps
        reason = str(error) or type(error).__name__
        raise invalid_argument("storage", "a whole file of a search", str(place), reason) from error


def _journal(path: Path) -> "BaseJournalBackend":
    """The file of a study, in which a step that was cut off is dropped before the next one."""
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    lock = JournalFileSymlinkLock(str(path), grace_period=_LOCKED_SECONDS)

    class Journal(JournalFileBackend):
        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            lock.acquire()
            try:
                _drop_cut_step(path)
            finally:
                lock.release()
            with naming(path):
                super().append_logs(logs)

    return Journal(str(path), lock)


def _drop_cut_step(path: Path) -> None:
    """Takes off what follows the last line break: a process was killed, or the disk was full."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        if file.read() not in (b"", b"\n"):
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def _database(url: str) -> "BaseStorage":
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import DBAPIError

    try:
        return RDBStorage(url)
    except DBAPIError:  # another process is making the tables at this moment, or it fails again
        time.sleep(1)
        return RDBStorage(url)


def _check_journal(path: Path) -> None:
    """Raises a ``ValueError`` if there is a file whose first line is no step of a study."""
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            line = file.readline()
        # Of the first step a part may be there.
        known = _STEP.startswith(line[: len(_STEP)]) and (line[-1:] != b"\n" or json.loads(line))
    except (OSError, ValueError, RecursionError):
        known = False
    if not known:
        raise invalid_argument("storage", "a file of an earlier search, or a new one", str(path))
