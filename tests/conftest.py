"""Fixtures that several test files share."""

import keras
import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # no test is about seconds
settings.load_profile("any machine")

if keras.config.backend() == "torch":
    import torch

    # PyTorch 2.13's oneDNN, on one thread and without AVX-512, writes past the input's gradient of
    # a strided 1 x 1 convolution of fewer than 8 channels: the process aborts, some calls later.
    torch.backends.mkldnn.enabled = False


@pytest.fixture(autouse=True)
def fresh_keras() -> None:
    """Every test starts from the same seed, default precision and layer names."""
    keras.config.set_dtype_policy("float32")
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
