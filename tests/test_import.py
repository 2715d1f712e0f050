"""Importing the package costs nothing that was not asked for, and all its names are documented."""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import pytest

import keras_l0

# Keras itself imports the last two where they are installed: what counts is what we add.
HEAVY = ["tensorflow", "ai_edge_litert", "matplotlib", "sklearn"]
NAMES = (
    "Composite GlobalPrune GradientCount IterativePrune KeepZeros L2L0 LayerwisePrune NeuronPrune "
    "RandomPrune RedundancyPenalty RelevanceDecay compress explain_sparsity export_tflite "
    "largest_alpha prune regularize scaling_factor shrink summarize sweep zero_attraction"
).split()

PROBE = """
import json, os, sys
import keras
modules, environment = set(sys.modules), dict(os.environ)
import keras_l0
changed = sorted(set(environment.items()) ^ set(os.environ.items()))
new = {name.partition(".")[0] for name in set(sys.modules) - modules}
print(json.dumps([sorted(new), changed, keras.backend.backend()]))
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_import_brings_no_other_package_and_changes_no_environment_variable(
    backend: str,
) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    run = subprocess.run(
        [sys.executable, "-c", PROBE],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    assert run.returncode == 0, run.stderr
    modules, changed, found = json.loads(run.stdout.splitlines()[-1])
    assert found == backend
    assert "keras_l0" in modules
    assert [name for name in HEAVY if name in modules] == []
    assert changed == []


def test_every_public_name_of_the_design_is_there_and_no_other() -> None:
    public = [name for name, value in vars(keras_l0).items() if not is_hidden(name, value)]
    assert sorted(public) == sorted(NAMES)


def is_hidden(name: str, value: object) -> bool:
    return name.startswith("_") or type(value).__name__ == "module"


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_a_docstring_with_an_example(name: str) -> None:
    public = getattr(keras_l0, name)
    text = public.__doc__ or ""
    assert text.splitlines()[0].endswith(".")
    assert "Args:" in text
    assert "Example:" in text
    assert ">>> " in text
    if isinstance(public, type) and issubclass(public, keras.callbacks.Callback):
        assert "Raises:" in text
