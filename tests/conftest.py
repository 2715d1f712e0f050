"""Fixtures that several test files share."""

import keras
import pytest


@pytest.fixture(autouse=True)
def fresh_keras() -> None:
    """Every test starts from the same seed, default precision and layer names."""
    keras.config.set_dtype_policy("float32")
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
