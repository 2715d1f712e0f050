"""A training that is killed and started again ends as one that was not."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keras
import killing
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
    keras.config.backend() == "torch", reason="promised on TensorFlow and JAX"
)

Whole = Callable[[killing.Training], dict[str, Any]]
# Places that a run is killed at one after another: it goes on from each to the next.
PLACES = {
    killing.by_checkpoint_dir: [
        ("fsync", 1),
        ("replace run.json", 1),
        ("replaced run.json", 1),
        ("replace training.npz", 1),
        ("replaced training.npz", 3),
        ("fsync", 5),
        ("pruning", 1),
        ("on_epoch_begin, last", 3),
        ("pruning", 3),
        ("replace training.npz", 2),
        ("replaced training.npz", 3),
        ("on_train_batch_end, last", 30),
        ("replaced tuning.npz", 2),
        ("fsync", 4),
        ("replace tuning.npz", 3),
    ],
    killing.by_program: [
        ("replace training.npz", 12),
        ("pruning", 2),
        ("replaced tuning.npz", 3),
        ("replace model.keras", 1),
        ("replaced model.keras", 1),
        ("replace model.tflite", 1),
        ("replaced report.json", 1),
        ("unlinked", 1),
    ],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What comes of a training that nobody kills, and, as ``seconds``, how long it lived."""

    @cache
    def found(training: killing.Training) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("whole")
        return killing.run(training, folder) | {"seconds": killing.seconds(folder)}

    return found


def assert_same(killed: dict[str, Any], whole: dict[str, Any]) -> None:
    """The same zeros, and the same weights bit for bit."""
    whole = {name: value for name, value in whole.items() if name != "seconds"}
    assert killed.keys() == whole.keys()
    assert sum(np.count_nonzero(value == 0) for value in whole.values()) > 0
    for name, value in whole.items():
        np.testing.assert_array_equal(killed[name], value, strict=True)


def test_compress_goes_on_where_it_was_killed(whole: Whole, tmp_path: Path) -> None:
    killed, times = killing.run_killed(killing.by_checkpoint_dir, tmp_path / "run", 1, 0, 0.5)
    assert times == 1
    assert_same(killed, whole(killing.by_checkpoint_dir))


def test_compress_goes_on_from_the_writing_of_a_file_and_from_a_pruning(
    whole: Whole, tmp_path: Path
) -> None:
    training = killing.by_checkpoint_dir
    for place, times in (("replace training.npz", 7), ("pruning", 4), ("fsync", 8)):
        killing.kill_at(training, tmp_path, place, times)
    assert_same(killing.run(training, tmp_path), whole(training))


@pytest.mark.slow
@pytest.mark.parametrize("training", PLACES, ids=lambda one: one.__name__)
def test_a_kill_at_any_place_changes_nothing(
    training: killing.Training, whole: Whole, tmp_path: Path
) -> None:
    for place, times in PLACES[training]:
        killing.kill_at(training, tmp_path, place, times)
    assert_same(killing.run(training, tmp_path), whole(training))


@pytest.mark.slow
@pytest.mark.parametrize(
    "training",
    [
        killing.by_checkpoint_dir,
        killing.by_program,
        killing.by_backup,
        killing.by_backup_first,
        killing.by_model_file,
        killing.by_model_file_first,
    ],
    ids=lambda one: one.__name__,
)
def test_twenty_kills_change_nothing(
    training: killing.Training, whole: Whole, tmp_path: Path
) -> None:
    unkilled = whole(training)
    # Keras writes its files in place: not to be killed in the midst of that.
    # Of the program more than half: what it goes on with takes less than the whole.
    within = {killing.by_checkpoint_dir: 0.5, killing.by_program: 0.6 * unkilled["seconds"]}
    times = 0
    for seed in range(20):
        folder = tmp_path / f"{seed}"
        killed, more = killing.run_killed(training, folder, 20 - times, seed, within.get(training))
        assert_same(killed, unkilled)
        times += more
        if times == 20:
            return
    pytest.fail(f"killed {times} times only")
