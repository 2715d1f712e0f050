"""The README is true: every block of it runs, every name in it is there."""

import importlib.metadata
import inspect
import re
import shlex
import subprocess
from pathlib import Path

import keras
import pytest

import keras_l0
from keras_l0 import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.S)


def test_every_block_is_of_a_kind_that_is_run_here() -> None:
    assert {kind for kind, _ in BLOCKS} == {"python", "sh"}


@pytest.mark.filterwarnings("ignore:.*saved with a sparsity:UserWarning")
def test_the_code_and_the_program_run_in_the_order_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    keras.config.disable_interactive_logging()
    names: dict[str, object] = {}
    for kind, text in BLOCKS:
        if kind == "python":
            exec(compile(text, "README.md", "exec"), names)
            continue
        for line in text.splitlines():
            words = shlex.split(line)
            if words[0] == "keras-l0":
                assert cli.main(words[1:]) == 0, capfd.readouterr().err
            elif words[0] == "make":
                subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True)
            else:
                extras = re.findall(r"\[(.*?)\]", words[-1])[0].split(",")
                known = importlib.metadata.metadata("keras_l0").get_all("Provides-Extra") or []
                assert words[:2] == ["pip", "install"]
                assert set(extras) <= set(known)
    assert {path.name for path in tmp_path.iterdir()} >= {"model.tflite", "small.tflite", "small"}


def test_the_table_of_public_names_is_whole() -> None:
    table = README.split("## Public names")[1]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = re.findall(r"`(\w+)`", "".join(rows))
    public = [
        name
        for name in dir(keras_l0)
        if not name.startswith("_") and not inspect.ismodule(getattr(keras_l0, name))
    ]
    assert sorted(named) == sorted(map(str, public))
    assert all(hasattr(keras_l0, name) for name in named)
