"""Runs TFLite files on the machine it is on: right? how fast? how much memory?

It needs NumPy and LiteRT alone, so that it goes to a device as one file::

    python runner.py FOLDER [--threads 1] [--seconds 1] [--out measured.json]

FOLDER holds ``*.tflite`` files of one signature each and, unless the inputs are to be random,
``samples.npz``: its arrays ``input:NAME`` hold batches for the signature's inputs along their
first axis, ``output:NAME`` what is expected of each output. Each file runs in a process of
its own, so that a crash is a result like any other.
"""

import argparse
import hashlib
import importlib.metadata
import json
import math
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

Samples = Mapping[str, Any]

_ROUNDS = 15
_ROUND_SECONDS = 0.004
_RANDOM_BATCHES = 4
# Stands for an open dimension in random inputs.
_OPEN_SIZE = 32
# Of all random batches of an input; a damaged file asks for any size.
_LARGEST_INPUT = 2**27
_LIMIT_SECONDS = 3600.0


def measure(
    folder: Path,
    threads: int = 1,
    seconds: float = 1.0,
    keep_outputs: bool = False,
    limit: float = _LIMIT_SECONDS,
) -> dict[str, Any]:
    """Runs, compares and times all files of a folder.

    Args:
        folder: with the ``.tflite`` files and, if there are, ``samples.npz``.
        threads: of the interpreter.
        seconds: that the timing may take, at least one turn of each file.
        keep_outputs: whether to leave the outputs of each file in ``NAME.npz`` beside it.
        limit: seconds after which a file that has not come to an end does not run.

    Returns:
        ``processor``, ``machine``, ``threads``, ``litert``, and under ``files`` for each file
        ``sha256``, ``bytes``, ``fault`` (empty, or why it does not run), ``deviation`` and
        ``plain_deviation`` (with the default delegate and without; absent without samples),
        likewise ``classes`` and ``plain_classes`` (of one output, for each sample the place of
        its largest number),
        ``peak_memory`` (bytes by which loading and running it raised the process' peak, where
        the system tells), ``turns`` and their median ``latency_ms`` (milliseconds).
    """
    paths = sorted(folder.glob("*.tflite"))
    samples = folder / "samples.npz"
    files: dict[str, dict[str, Any]] = {}
    given = samples if samples.is_file() else None
    together = max(1, (os.cpu_count() or 1) // threads)
    for start in range(0, len(paths), together):
        started = [
            (path, _start(_examine, path, given, threads, keep_outputs))
            for path in paths[start : start + together]
        ]
        for path, process in started:
            content = path.read_bytes()
            about = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            files[path.stem] = about | _finish(process, limit)
    running = [path for path in paths if not files[path.stem]["fault"]]
    for path, found in zip(running, _timed(running, given, threads, seconds, limit), strict=True):
        files[path.stem] |= found
    return {
        "processor": processor(),
        "machine": platform.machine(),
        "threads": threads,
        "litert": importlib.metadata.version("ai-edge-litert"),
        "files": files,
    }


def _timed(
    paths: Sequence[Path], samples: Path | None, threads: int, seconds: float, limit: float
) -> list[dict[str, Any]]:
    """For each file its ``turns`` and their median, or a ``fault``."""

    def timed(some: Sequence[Path], seconds: float) -> dict[str, Any]:
        return _finish(_start(_time, some, samples, threads, seconds), limit + seconds)

    each = [timed(paths, seconds)]
    if "turns" not in each[0]:  # one has broken the process of all: now each has one of its own
        each = [timed([path], seconds / len(paths)) for path in paths]
    least = min((len(turns) for one in each for turns in one.get("turns", [])), default=0)
    return [
        {"turns": turns[:least], "latency_ms": median(turns[:least])} if turns else one
        for one in each
        for turns in one.get("turns", [[]])
    ]


def deviation(expected: Sequence[Any], received: Sequence[Any]) -> float:
    r"""The largest deviation over the largest output.

    .. math:: \max |y - \hat y| \; / \; \max |y|

    over all elements of an output, the largest of the outputs; the numerator alone where all
    :math:`y` of an output are 0.

    Args:
        expected: the outputs :math:`y`, finite arrays.
        received: the outputs :math:`\hat y`, in the same order.

    Returns:
        The deviation; infinite where ``received`` has another shape or is not finite.
    """
    worst = 0.0
    for y, y_hat in zip(expected, received, strict=True):
        if y.shape != y_hat.shape or not np.isfinite(y_hat).all():
            return float("inf")
        if y.size:
            y, y_hat = y.astype(np.float64), y_hat.astype(np.float64)
            scale = float(np.abs(y).max()) or 1.0
            worst = max(worst, float(np.abs(y - y_hat).max()) / scale)
    return worst


def processor() -> str:
    """The processor's model name, or what the platform tells of it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def is_arm() -> bool:
    """Whether this machine's processor is one of ARM's."""
    return platform.machine().lower() in ("aarch64", "arm64", "armv7l", "armv8l")


def _start(function: Any, *arguments: Any) -> tuple[Any, Any]:
    """A process that calls ``function``, and where it tells the result."""
    # A fork costs no import and lets the peak of memory be the file's own.
    context: Any = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(sender, function, arguments))
    process.start()
    sender.close()
    return process, receiver


def _finish(started: tuple[Any, Any], limit: float) -> dict[str, Any]:
    """What a started process returned, or a ``fault`` if it raised, crashed or went on too long."""
    process, receiver = started
    try:
        if not receiver.poll(limit):
            process.kill()
            process.join()
            return {"fault": f"it has not come to an end in {limit:g} seconds"}
        result: dict[str, Any] = receiver.recv()
    except EOFError:
        result = {}
    process.join()
    return result or {"fault": f"the interpreter crashed (exit status {process.exitcode})"}


def _report(sender: Any, function: Any, arguments: tuple[Any, ...]) -> None:
    try:
        sender.send(function(*arguments))
    except (RuntimeError, ValueError, MemoryError) as error:
        sender.send({"fault": " ".join(str(error).split()) or type(error).__name__})


def _examine(path: Path, samples: Path | None, threads: int, keep_outputs: bool) -> dict[str, Any]:
    arrays = dict(np.load(samples)) if samples else _random_samples(path)
    content = path.read_bytes()
    before = _peak_memory()
    outputs = _outputs(content, arrays, threads, plain=False)
    after = _peak_memory()
    without = _outputs(content, arrays, threads, plain=True)
    found: dict[str, Any] = {"fault": ""}
    if before is not None and after is not None:
        found["peak_memory"] = after - before
    wanted = {name: y for name, y in arrays.items() if name.startswith("output:")}
    if wanted:
        expected = list(wanted.values())
        found["deviation"] = deviation(expected, [outputs[name] for name in wanted])
        found["plain_deviation"] = deviation(expected, [without[name] for name in wanted])
        for name, found_there in (("classes", outputs), ("plain_classes", without)):
            if len(found_there) == 1:
                found[name] = _classes(*found_there.values())
    if keep_outputs:
        plain = {name.replace("output:", "plain:", 1): y for name, y in without.items()}
        np.savez(path.with_suffix(".npz"), allow_pickle=False, **outputs, **plain)
    return found


def _classes(rows: Any) -> list[int]:
    """For each sample the place of the largest number; none if a sample is not one row."""
    return [int(c) for c in rows.argmax(axis=-1).ravel()] if rows.ndim == 3 else []


def _outputs(content: bytes, samples: Samples, threads: int, plain: bool) -> dict[str, Any]:
    runner = _interpreter(content, threads, plain).get_signature_runner()
    inputs = {name[6:]: array for name, array in samples.items() if name.startswith("input:")}
    count = len(next(iter(inputs.values())))
    batches = [
        {
            f"output:{name}": np.array(array)
            for name, array in runner(**{name: x[i] for name, x in inputs.items()}).items()
        }
        for i in range(count)
    ]
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


def _time(
    paths: Sequence[Path], samples: Path | None, threads: int, seconds: float
) -> dict[str, Any]:
    """Milliseconds of one invocation for each file and turn.

    The files take turns, so that a slow moment of the machine meets all of them, and each
    turn is as many invocations as take some milliseconds, the clock being coarse for a small
    network. Compare two files by the ratios of their turns.
    """
    interpreters = [
        _prepared(path, dict(np.load(samples)) if samples else _random_samples(path), threads)
        for path in paths
    ]
    counts = [max(1, round(_ROUND_SECONDS / max(_seconds(it, 1), 1e-7))) for it in interpreters]
    turns: list[list[float]] = [[] for _ in paths]
    start = time.perf_counter()
    for _ in range(_ROUNDS):
        for turn, interpreter, count in zip(turns, interpreters, counts, strict=True):
            turn.append(_seconds(interpreter, count) / count * 1e3)
        if time.perf_counter() - start > seconds:
            break
    return {"turns": turns}


def _prepared(path: Path, samples: Samples, threads: int) -> Any:
    interpreter = _interpreter(path.read_bytes(), threads)
    details = interpreter.get_signature_runner().get_input_details()
    for name, detail in details.items():
        interpreter.resize_tensor_input(detail["index"], samples[f"input:{name}"][0].shape)
    interpreter.allocate_tensors()
    for name, detail in details.items():
        interpreter.set_tensor(detail["index"], samples[f"input:{name}"][0])
    interpreter.invoke()
    return interpreter


def _seconds(interpreter: Any, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        interpreter.invoke()
    return time.perf_counter() - start


def _interpreter(content: bytes, threads: int, plain: bool = False) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if plain else OpResolverType.AUTO
    return Interpreter(
        model_content=content, num_threads=threads, experimental_op_resolver_type=kind
    )


def _random_samples(path: Path) -> dict[str, Any]:
    """Standard normal inputs, or 0 and 1 for integers, which are in every vocabulary."""
    rng = np.random.default_rng(0)
    details = _interpreter(path.read_bytes(), 1).get_signature_runner().get_input_details()
    samples = {}
    for name, detail in details.items():
        signature = detail.get("shape_signature", detail["shape"])
        shape = [int(size) if size > 0 else _OPEN_SIZE for size in signature]
        shape = [_RANDOM_BATCHES, *(max(1, int(size)) for size in detail["shape"][:1]), *shape[1:]]
        if math.prod(shape) > _LARGEST_INPUT:
            raise ValueError(f"its input {name} of shape {shape[1:]} is too large to try")
        floating = np.issubdtype(detail["dtype"], np.floating)
        values = rng.normal(size=shape) if floating else rng.integers(0, 2, size=shape)
        samples[f"input:{name}"] = values.astype(detail["dtype"])
    return samples


def _peak_memory() -> int | None:
    """The process' peak resident set in bytes, where the system tells it."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    for line in status.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures a folder's files, and prints or writes what was found as JSON."""
    parser = argparse.ArgumentParser(description="Runs, compares and times TFLite files.")
    parser.add_argument("folder", type=Path, help="with .tflite files and samples.npz")
    parser.add_argument("--threads", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of timing (%(default)s)")
    parser.add_argument(
        "--limit", type=float, default=_LIMIT_SECONDS, help="of each file, in seconds (%(default)s)"
    )
    parser.add_argument("--keep-outputs", action="store_true", help="in NAME.npz for each file")
    parser.add_argument("--out", type=Path, help="where the figures go; else they are printed")
    options = parser.parse_args(arguments)
    found = measure(
        options.folder, options.threads, options.seconds, options.keep_outputs, options.limit
    )
    text = json.dumps(found, indent=2)
    if options.out:
        # Whole or not at all; this script goes to devices without the rest of the library.
        temporary = options.out.with_name(f".{os.getpid()}-{options.out.name}")
        try:
            temporary.write_text(text)
            temporary.replace(options.out)
        except OSError as error:
            parser.exit(2, f"{options.out} is not written: {error.strerror}\n")
        finally:
            temporary.unlink(missing_ok=True)
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
