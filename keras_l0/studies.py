"""Where a search keeps its trials: a study of Optuna's, in a file or a database."""

import itertools
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_l0.errors import invalid_argument

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

FAILED = "failed"
_SPACE = "space"


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
    from optuna.storages.journal import JournalFileBackend

    path = Path(place)
    if path.is_dir() or not path.parent.is_dir():
        raise invalid_argument("storage", "a file in an existing folder, or a URL", str(place))
    _check_journal(path)
    return JournalStorage(JournalFileBackend(str(path)))


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
        with path.open() as lines:
            known = all("op_code" in json.loads(line) for line in itertools.islice(lines, 1))
    except (OSError, ValueError, TypeError):
        known = False
    if not known:
        raise invalid_argument("storage", "a file of an earlier search, or a new one", str(path))
