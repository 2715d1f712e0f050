"""Importing the package costs nothing that was not asked for, and all its names are documented."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_l0

# Keras itself imports the last two where they are installed: what counts is what we add.
HEAVY = ["tensorflow", "ai_edge_litert", "matplotlib", "sklearn"]
NAMES = (
    "Composite DeadNetworkWarning GlobalPrune GradientCount IterativePrune KeepZeros L2L0 "
    "LayerwisePrune NeuronPrune RandomPrune RedundancyPenalty RelevanceDecay compress "
    "explain_sparsity export_tflite largest_alpha prune regularize scaling_factor shrink "
    "summarize sweep zero_attraction"
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
    public = [name for name in dir(keras_l0) if not is_hidden(name)]
    assert sorted(public) == sorted(NAMES)
    assert sorted(keras_l0.__all__) == sorted(NAMES)
    with pytest.raises(AttributeError, match="module 'keras_l0' has no attribute 'Pruner'"):
        _ = keras_l0.Pruner


def is_hidden(name: str) -> bool:
    return name.startswith("_") or type(getattr(keras_l0, name)).__name__ == "module"


def test_what_a_file_may_name_is_there_after_the_import_and_all_else_comes_when_asked_for() -> None:
    code = "import json, sys, keras_l0; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = [name for name in json.loads(run.stdout) if name.partition(".")[0] == "keras_l0"]
    own = "composite errors filter_penalties fusion optimizers regularizers"
    assert found == ["keras_l0", *(f"keras_l0.{name}" for name in own.split())]


@pytest.mark.parametrize(("name", "home"), keras_l0._HOMES.items())
def test_type_checkers_and_python_find_a_name_in_the_same_place(name: str, home: str) -> None:
    source = Path(keras_l0.__file__).read_text()
    assert f"    from keras_l0.{home} import {name} as {name}\n" in source
    assert getattr(keras_l0, name).__module__ == f"keras_l0.{home}"


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_a_docstring_with_an_example(name: str) -> None:
    public = getattr(keras_l0, name)
    text = public.__doc__ or ""
    assert text.splitlines()[0].endswith(".")
    assert "Args:" in text or issubclass(public, Warning)
    assert "Example:" in text
    assert ">>> " in text
    if isinstance(public, type) and issubclass(public, keras.callbacks.Callback):
        assert "Raises:" in text
