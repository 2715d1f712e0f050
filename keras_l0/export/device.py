"""Candidates taken to the device that they are for, and what it said of them."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_l0.errors import invalid_argument, is_number
from keras_l0.export import runner
from keras_l0.export.candidates import Candidate
from keras_l0.export.check import Samples
from keras_l0.files import replacing, write_bytes

SCRIPT = "measure.py"
"""The script beside kept candidates."""

KEPT_BATCHES = 16
"""Batches of samples beside kept candidates: small devices are slow, and wrong files show early."""


@dataclass(frozen=True)
class Device:
    """What a device said of files that were taken to it.

    Attributes:
        processor: its name.
        files: as ``runner.measure`` gives them, by candidate.
    """

    processor: str
    files: dict[str, dict[str, Any]]


def keep(folder: Path, candidates: Sequence[Candidate], samples: Samples) -> None:
    """Writes candidates, samples and the script that measures them into a folder."""
    for one in candidates:
        write_bytes(folder / f"{one.name}.tflite", one.content)
    with replacing(folder / "samples.npz") as temporary:
        samples.save(temporary, KEPT_BATCHES)
    with replacing(folder / SCRIPT) as temporary:
        shutil.copyfile(runner.__file__, temporary)


def read_timings(path: str | os.PathLike[str]) -> Device:
    """Reads what the script wrote on a device.

    Raises:
        ValueError: if the file is missing or something else.
    """
    expected = f"a file that {SCRIPT} wrote with --out"
    try:
        found = json.loads(Path(path).read_text())
        device = Device(str(found["processor"]), dict(found["files"]))
        for one in device.files.values():
            wanted = () if one["fault"] else ("latency_ms", "deviation", "plain_deviation")
            numbers = [one[name] for name in wanted]
            if not isinstance(one["sha256"], str) or not all(map(is_number, numbers)):
                raise ValueError(f"a file's figures are {one}")
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise invalid_argument("timings", expected, str(path), f"{error}") from error
    return device
