"""Runs TFLite files in the aarch64 build of LiteRT, emulated on another processor."""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2] / ".arm"
"""The folder that ``make test-arm`` has ``setup.sh`` make."""

PROCESSOR = "cortex-a76"
"""Of the first large cores with the half-precision and dot-product instructions that the
runtime's kernels ask for; ``setup.sh`` describes the same one to the runtime."""

_GUEST = Path(__file__).with_name("guest.py")
_COUNT = re.compile(r"^instructions executed: (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class OnArm:
    """What running a file on the emulated processor showed.

    Attributes:
        fault: empty, or why it does not run.
        deviation: from what was expected, the largest over the largest output, with the
            default delegate.
        plain_deviation: likewise without any delegate.
        instructions: executed in an invocation with the default delegate; ``None`` if it
            does not run, or nothing could count them.
        milliseconds: of such an invocation: no latency, but the stand-in for what cannot be
            counted.
    """

    fault: str
    deviation: float = float("inf")
    plain_deviation: float = float("inf")
    instructions: int | None = None
    milliseconds: float | None = None

    def is_right(self, tolerance: float) -> bool:
        """Whether it runs and deviates by no more, with the delegate and without."""
        return not self.fault and max(self.deviation, self.plain_deviation) <= tolerance

    def work_over(self, other: "OnArm") -> float:
        """Instructions of an invocation over another file's, or milliseconds if not counted."""
        if self.instructions and other.instructions:
            return self.instructions / other.instructions
        assert self.milliseconds, "only a file that runs does work"
        assert other.milliseconds, "only a file that runs does work"
        return self.milliseconds / other.milliseconds


def run_on_arm(file: Path, samples: Path, *, timeout: float = 300.0) -> OnArm:
    """Runs a file in a process of its own, so that a crash is a result.

    Args:
        file: a TFLite file with one signature.
        samples: its inputs and expected outputs, as ``keras_l0.export.check.save_samples``
            writes them.
        timeout: the seconds it may take.

    Raises:
        FileNotFoundError: if there is no emulated system.
        subprocess.TimeoutExpired: if it takes longer.
        RuntimeError: if it is not the file that fails.
    """
    if not (ROOT / ".complete").is_file():
        raise FileNotFoundError(f"{ROOT} is not there: run these tests by `make test-arm`.")
    counter = ROOT / "count.so"
    plugin = ["-plugin", str(counter)] if counter.is_file() else []
    # Without a limit, each crash would leave a core file in the working folder.
    emulator = ["prlimit", "--core=0", "qemu-aarch64", "-cpu", PROCESSOR, "-L", str(ROOT), *plugin]
    done = subprocess.run(
        [*emulator, str(ROOT / "usr/bin/python3"), "-s", str(_GUEST), str(file), str(samples)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "wheels"), "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    if done.returncode < 0:
        return OnArm(f"the interpreter crashed (signal {-done.returncode})")
    if done.returncode > 0:
        raise RuntimeError(f"{_GUEST.name} failed on {file}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if marks := [int(mark) for mark in _COUNT.findall(done.stderr)]:
        first, second, third = marks
        found["instructions"] = (third - second) - (second - first)
    return OnArm(**found)
