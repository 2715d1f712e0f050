"""Files timed against each other on this machine."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from keras_l0.errors import invalid_argument, is_number, whole_at_least
from keras_l0.export.check import run_folder
from keras_l0.export.choice import quartiles
from keras_l0.export.convert import require_tensorflow
from keras_l0.export.figures import wrapped
from keras_l0.export.flatfile import is_flatbuffer
from keras_l0.text import table

# A file of a stranger's, or a damaged one, may go on without end.
_LIMIT_SECONDS = 300
_NAME_WIDTH = 14


@dataclass(frozen=True)
class Timing:
    """How fast one file is.

    Attributes:
        path: the file.
        bytes: its size.
        fault: empty, or why it does not run.
        latency_ms: milliseconds of one invocation, the median of the turns; NaN with a fault.
        quartiles_ms: the first and the third quartile of the turns.
        ratio: latency over the first file's, the median over turns; NaN with a fault.
        peak_memory: bytes by which it raised its process' peak; ``None`` where not known.
    """

    path: str
    bytes: int
    fault: str
    latency_ms: float = float("nan")
    quartiles_ms: tuple[float, float] = (float("nan"), float("nan"))
    ratio: float = float("nan")
    peak_memory: int | None = None


@dataclass(frozen=True)
class Bench:
    """Timings of files that took turns on one processor.

    Attributes:
        timings: in the order of the files.
        threads: of the interpreter.
        processor: on which they were measured.
    """

    timings: tuple[Timing, ...]
    threads: int
    processor: str

    def __str__(self) -> str:
        common = os.path.commonpath([Path(one.path).absolute().parent for one in self.timings])
        rows = [
            [
                wrapped(os.path.relpath(one.path, common), _NAME_WIDTH),
                f"{one.bytes:,}",
                f"{one.latency_ms:.4g}",
                f"{one.quartiles_ms[0]:.4g} to {one.quartiles_ms[1]:.4g}",
                f"{one.ratio:.2f}",
                "" if one.peak_memory is None else f"{one.peak_memory / 2**20:.1f}",
            ]
            for one in self.timings
        ]
        header = ["file", "bytes", "ms", "quartiles", "ratio", "peak MiB"]
        faults = [f"{one.path} does not run: {one.fault}" for one in self.timings if one.fault]
        where = f"{self.processor}, {self.threads} thread{'s' * (self.threads > 1)}"
        return "\n".join([table(header, rows), *faults, where])


def bench(
    paths: Sequence[str | os.PathLike[str]], *, threads: int = 1, seconds: float = 2.0
) -> Bench:
    """Times TFLite files in turns, in the default interpreter, on random inputs.

    Each turn of a file is as many invocations as take some milliseconds, since the clock is
    coarse for a network of microseconds. Each file is first run in a process of its own.

    Args:
        paths: the files, one or more; each with one signature.
        threads: of the interpreter, ≥ 1.
        seconds: that the timing may take, > 0; each file has one turn at least.

    Returns:
        The timings.

    Raises:
        ValueError: if an argument is wrong, or a file is missing or no TFLite file.
        ImportError: if LiteRT is not installed.
    """
    whole_at_least("threads", threads, 1)
    if not is_number(seconds) or not seconds > 0:
        raise invalid_argument("seconds", "a positive number", seconds)
    if not paths:
        raise invalid_argument("paths", "one file or more", paths)
    files = [_flatbuffer(path) for path in paths]
    require_tensorflow()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for place, path in enumerate(files):
            shutil.copyfile(path, folder / f"{place:03}.tflite")
        options = {"threads": threads, "seconds": seconds, "limit": _LIMIT_SECONDS}
        found = run_folder(folder, *(f"--{name}={value}" for name, value in options.items()))
    results = [found["files"][f"{place:03}"] for place in range(len(files))]
    first: list[float] = next((one["turns"] for one in results if one.get("turns")), [])
    return Bench(
        timings=tuple(
            _timing(path, result, first) for path, result in zip(files, results, strict=True)
        ),
        threads=threads,
        processor=found["processor"],
    )


def _flatbuffer(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    expected = "an existing .tflite file"
    if not file.is_file():
        raise invalid_argument("paths", expected, str(path))
    with file.open("rb") as opened:
        if not is_flatbuffer(opened.read(8)):
            raise invalid_argument("paths", expected, str(path), "It is no TFLite flatbuffer")
    return file


def _timing(path: Path, result: dict[str, Any], first: Sequence[float]) -> Timing:
    size = path.stat().st_size
    turns = result.get("turns")
    if result["fault"] or not turns:
        return Timing(str(path), size, result["fault"] or "it was not timed")
    return Timing(
        path=str(path),
        bytes=size,
        fault="",
        latency_ms=median(turns),
        quartiles_ms=quartiles(turns),
        ratio=median(a / b for a, b in zip(turns, first, strict=True)),
        peak_memory=result.get("peak_memory"),
    )
