"""On several devices, and in several processes, the zeros and weights are those of one device.

Devices are made before a backend starts: each run is a process of its own.
"""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

BACKEND = keras.config.backend()
SCRIPTS = Path(__file__).parent / "distributed"
GUIDE = (Path(__file__).parent.parent / "docs/more_than_one_machine.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", GUIDE, re.S)
FILES = {text.splitlines()[0].strip("# "): text for kind, text in BLOCKS if kind == "python"}
COMMANDS = [text for kind, text in BLOCKS if kind == "sh"]

on_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="tf.distribute's strategies are TensorFlow's"
)
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution is JAX's alone")

PRUNING = ["global", "regrow", "layerwise", "random"]
RAMP = [0, 0, 596, 596, 902, 902, 1014, 1014, 1030, 1030, 1030, 1030]
"""Zeros at each epoch's beginning and end; 1030 are 80 % of 1288 weights."""


def environment(**changes: str) -> dict[str, str]:
    """This process's, with the backend named and the programs of this Python in reach."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    return {**os.environ, **quiet, "KERAS_BACKEND": BACKEND, "PATH": programs, **changes}


def start(script: str, *arguments: Any, **changes: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPTS / f"{script}.py"), *map(str, arguments)]
    streams: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment(**changes), **streams)


def printed(run: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What a script printed, one object for each line of JSON."""
    out, err = run.communicate(timeout=1200)
    assert run.returncode == 0, err[-3000:]
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def ports(number: int) -> list[int]:
    """Ports of this machine that are free."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return found


def check(seen: dict[str, Any], copies: int) -> None:
    """Every copy had the zeros of one device at every epoch, and the weights in the end."""
    assert seen["copies"] == copies
    assert seen["copies_that_differ"] == 0
    assert seen["same_zeros"]
    assert seen["apart"] <= 1e-5
    assert seen["zeros"][-1] > 900


def mirrored(devices: int, optimizer: str, *callbacks: str) -> list[dict[str, Any]]:
    return printed(start("mirrored", devices, optimizer, *callbacks))


def parallel(kind: str, optimizer: str, *callbacks: str) -> list[dict[str, Any]]:
    four = "--xla_force_host_platform_device_count=4"
    return printed(start("devices", kind, optimizer, *callbacks, XLA_FLAGS=four))


@on_tensorflow
def test_two_mirrored_devices_have_the_zeros_and_weights_of_one() -> None:
    (seen,) = mirrored(2, "sgd", "global")
    check(seen, 2)
    assert seen["zeros"] == RAMP


@on_tensorflow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "optimizer", "callbacks"),
    [
        (2, "sgd", PRUNING),
        (2, "adam", ["global", "compress"]),
        (4, "sgd", ["global", "compress"]),
        (4, "adam", ["regrow", "layerwise"]),
    ],
)
def test_mirrored_devices_agree_under_each_pruning(
    devices: int, optimizer: str, callbacks: list[str]
) -> None:
    found = mirrored(devices, optimizer, *callbacks)
    assert len(found) == len(callbacks)
    for seen in found:
        check(seen, devices)


@on_tensorflow
@pytest.mark.slow
def test_a_copy_of_a_mirrored_model_is_mirrored_and_so_is_its_shrunk_form() -> None:
    assert mirrored(2, "adam", "copy") == [{"copies": [2, 2]}]


@on_tensorflow
@pytest.mark.slow
def test_two_workers_of_tensorflow_fail_in_keras_itself_as_the_guide_says() -> None:
    """keras-team/keras#20585."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports(2)]}
    tasks = [{"type": "worker", "index": place} for place in range(2)]
    says = [json.dumps({"cluster": cluster, "task": task}) for task in tasks]
    for worker in [start("two_workers", TF_CONFIG=one) for one in says]:
        _, err = worker.communicate(timeout=1200)
        error = err[err.index("ValueError: Attempt to convert") :]
        (quoted,) = [text for kind, text in BLOCKS if kind == "text"]
        first, second, _, last = quoted.strip().splitlines()
        assert worker.returncode == 1
        assert error.startswith(f"{first}\n{second}\n")
        assert error.rstrip().endswith(last)


@on_jax
def test_four_devices_have_the_zeros_and_weights_of_one() -> None:
    (seen,) = parallel("data", "sgd", "global")
    check(seen, 4)
    assert seen["zeros"] == RAMP
    assert set(seen["cut"]) == {1}


@on_jax
@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_data_parallel_devices_agree_under_each_pruning(optimizer: str) -> None:
    found = parallel("data", optimizer, *PRUNING, "compress")
    assert len(found) == 5
    for seen in found:
        check(seen, 4)


@on_jax
@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_kernels_that_are_cut_agree_and_stay_cut(optimizer: str) -> None:
    found = parallel("model", optimizer, *PRUNING, "compress")
    assert len(found) == 5
    for seen in found:
        check(seen, 2)
        assert set(seen["cut"]) == {2}


@on_jax
@pytest.mark.slow
def test_kernels_that_are_cut_are_pruned_counted_and_shrunk_like_whole_ones() -> None:
    whole, cut = parallel("model", "adam", "shrink")
    assert (whole.pop("cut"), cut.pop("cut")) == ([[1] * 3] * 2, [[2] * 3] * 2)
    assert max(whole.pop("apart"), cut.pop("apart")) < 1e-5
    # Three filters are not to be halved, as the guide says.
    assert (whole.pop("odd"), "should evenly divide the shape" in cut.pop("odd")) == ("", True)
    assert re.sub(r"_\d+", "", json.dumps(whole)) == re.sub(r"_\d+", "", json.dumps(cut))
    assert whole["shapes"][0] == [3, 3, 1, 4]


@on_jax
def test_the_smallest_of_kernels_that_are_cut_are_found_without_bringing_them_together() -> None:
    whole, cut = parallel("model", "sgd", "ties")
    assert (whole["cut"], cut["cut"]) == ([1] * 3, [2] * 3)
    assert whole["gathered"] > cut["gathered"] == 0
    assert whole["found"] == cut["found"]
    assert [zeros for zeros, _ in cut["found"]][-1] == round(0.95 * 1288)


@on_jax
@pytest.mark.slow
def test_two_processes_have_the_zeros_and_weights_of_one() -> None:
    names = ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
    where = f"127.0.0.1:{ports(1)[0]}"
    runs = []
    for place in ("0", "1"):
        says = zip(names, (where, "2", place), strict=True)
        changes = {f"KERAS_DISTRIBUTION_{name}": value for name, value in says}
        runs.append(start("processes", "adam", *PRUNING, **changes))
    first, second = (printed(run) for run in runs)
    assert len(first) == len(second) == 4
    for place, found in enumerate((first, second)):
        for seen in found:
            check(seen, 1)
            assert (seen["process"], seen["of"]) == (place, 2)
    # Bit by bit, at each epoch's beginning and end.
    assert [seen["digest"] for seen in first] == [seen["digest"] for seen in second]


def run_command(command: str, folder: Path) -> str:
    """What a command of the guide prints, run where its files are, at a port that is free."""
    for name, text in FILES.items():
        (folder / name).write_text(text)
    command = command.replace(":12345", f":{ports(1)[0]}")
    done = subprocess.run(
        ["sh", "-ec", command],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_command_of_the_guide_is_run_here() -> None:
    assert {kind for kind, _ in BLOCKS} == {"python", "sh", "text"}
    named = [name for name in FILES for text in COMMANDS if name in text]
    assert sorted(named) == sorted(FILES.keys() - {"digits.py"})
    training = [text for text in COMMANDS if "KERAS_BACKEND=" in text]
    assert len(training) == len(TRAINING)
    assert len(COMMANDS) - len(training) == 2, "a search by the program, and one in Python"


TRAINING = {"mirrored.py": on_tensorflow, "parallel.py": on_jax, "cut.py": on_jax}
TRAINING["together.py"] = on_jax


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=on) for name, on in TRAINING.items()])
def test_what_the_guide_trains_is_small_and_right(name: str, tmp_path: Path) -> None:
    (command,) = [text for text in COMMANDS if name in text]
    out = run_command(command, tmp_path)
    digits: dict[str, Any] = {}
    exec(FILES["digits.py"], digits)
    model = keras.models.load_model(tmp_path / "small.keras")
    x, y = digits["data"]()
    assert (model.predict(x, verbose=0).argmax(1) == y).mean() > 0.9
    kernels = [layer.kernel for layer in model.layers]
    if name == "cut.py":
        assert [kernel.shape[-1] for kernel in kernels] == [50, 10]
    else:
        zeros = sum(int(np.sum(np.asarray(keras.ops.equal(one, 0)))) for one in kernels)
        assert model.count_params() / (model.count_params() - zeros) == pytest.approx(10, rel=0.01)
    if name in ("mirrored.py", "parallel.py"):
        assert {"mirrored.py": "2 devices", "parallel.py": "4 devices"}[name] in out


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "jax", reason="a search is the same on each backend: once is enough")
def test_the_searches_of_the_guide_share_their_trials(tmp_path: Path) -> None:
    import optuna

    program, script = (text for text in COMMANDS if "KERAS_BACKEND=" not in text)
    run_command(program, tmp_path)
    run_command(script, tmp_path)
    for storage, trials in (("search.db", 3), ("trials.db", 4)):
        (summary,) = optuna.get_all_study_summaries(url := f"sqlite:///{tmp_path / storage}")
        study = optuna.load_study(study_name=summary.study_name, storage=url)
        # The other may have begun its last one when this was done.
        assert trials <= len(study.trials) <= trials + 1
    # With seeds of their own no two draw the same.
    drawn = [json.dumps(one.user_attrs["settings"]) for one in study.trials]
    assert len(set(drawn)) == len(drawn)
    best = [json.loads((tmp_path / one / "search.json").read_text()) for one in ("first", "second")]
    assert max(len(one["trials"]) for one in best) >= 3
    assert (tmp_path / "first/best.json").exists()
