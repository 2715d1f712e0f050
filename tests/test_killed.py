"""A training that is killed and started again ends as one that was not."""

from pathlib import Path
from typing import Any

import keras
import killing
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
    keras.config.backend() == "torch", reason="promised on TensorFlow and JAX"
)


def assert_same(killed: dict[str, Any], whole: dict[str, Any]) -> None:
    """The same zeros, and the same weights bit for bit."""
    assert killed.keys() == whole.keys()
    assert sum(np.count_nonzero(value == 0) for value in whole.values()) > 0
    for name, value in whole.items():
        np.testing.assert_array_equal(killed[name], value, strict=True)


def test_compress_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    whole = killing.run(killing.by_checkpoint_dir, tmp_path / "whole")
    killed, times = killing.run_killed(killing.by_checkpoint_dir, tmp_path / "killed", 1, 0, True)
    assert times == 1
    assert_same(killed, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "training",
    [
        killing.by_checkpoint_dir,
        killing.by_backup,
        killing.by_backup_first,
        killing.by_model_file,
        killing.by_model_file_first,
    ],
    ids=lambda one: one.__name__,
)
def test_twenty_kills_change_nothing(training: killing.Training, tmp_path: Path) -> None:
    whole = killing.run(training, tmp_path / "whole")
    anywhere = training is killing.by_checkpoint_dir  # Keras writes its files in place
    times = 0
    for seed in range(20):
        folder = tmp_path / f"{seed}"
        killed, more = killing.run_killed(training, folder, 20 - times, seed, anywhere)
        assert_same(killed, whole)
        times += more
        if times == 20:
            return
    pytest.fail(f"killed {times} times only")
