"""Does a TFLite file run, is it right, how fast is it, and how much memory does it take?

All files run in one process beside this one: a file that crashes the runtime loses nothing.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_l0.export import runner
from keras_l0.export.samples import Arrays


@dataclass(frozen=True)
class Measured:
    """What running a file showed.

    Attributes:
        fault: empty, or why it does not run.
        deviation: from what was expected, the largest over the largest output; with the
            default delegate and without any, the larger of the two.
        outputs: of the default interpreter, each with the batches along the first axis.
        plain_outputs: those without any delegate.
        turns: milliseconds of one invocation, turn by turn, in turns with the other files.
        peak_memory: bytes by which it raised the process' peak; ``None`` where not known.
    """

    fault: str
    deviation: float = float("inf")
    outputs: tuple[NDArray[Any], ...] = ()
    plain_outputs: tuple[NDArray[Any], ...] = ()
    turns: tuple[float, ...] = ()
    peak_memory: int | None = None


@dataclass(frozen=True)
class Samples:
    """What files are run on and held against.

    Attributes:
        inputs: the signature's input names, in the order of the arrays.
        outputs: its output names, in the order of the arrays.
        batches: for each run an array for each input.
        expected: for each run an array for each output.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    batches: list[Arrays]
    expected: list[Arrays]

    def stacked_outputs(self) -> tuple[NDArray[Any], ...]:
        """What is expected of each output, with the batches along the first axis."""
        return tuple(np.stack([y[i] for y in self.expected]) for i in range(len(self.outputs)))

    @property
    def count(self) -> int:
        """How many samples they are."""
        return len(self.batches) * len(self.batches[0][0])

    def save(self, path: Path, largest: int | None = None) -> None:
        """Writes ``samples.npz`` for ``runner``, the first ``largest`` batches of it."""
        arrays = {
            f"input:{name}": np.stack([x[i] for x in self.batches[:largest]])
            for i, name in enumerate(self.inputs)
        }
        arrays |= {
            f"output:{name}": y[:largest]
            for name, y in zip(self.outputs, self.stacked_outputs(), strict=True)
        }
        np.savez(path, allow_pickle=False, **arrays)


def by_sample(outputs: NDArray[Any]) -> NDArray[Any]:
    """Outputs that are stacked by batches, sample by sample."""
    return outputs.reshape(-1, *outputs.shape[2:]) if outputs.ndim > 1 else outputs


def require_finite(expected: list[Arrays]) -> None:
    """Raises a ``RuntimeError`` if outputs are NaN or infinite."""
    if not all(np.isfinite(array).all() for batch in expected for array in batch):
        raise RuntimeError(
            "The Keras model's own outputs are NaN or infinite on the samples to compare on: "
            "no file can be compared with them. Give other `check_data`."
        )


def measure(contents: Mapping[str, bytes], samples: Samples) -> dict[str, Measured]:
    """Runs files in the default interpreter and in the plain one, and times them.

    Args:
        contents: the files by name.
        samples: what they are run on and held against.

    Returns:
        What each file showed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stem, content in contents.items():
            (folder / f"{stem}.tflite").write_bytes(content)
        samples.save(folder / "samples.npz")
        found = run_folder(folder, "--keep-outputs")["files"]
        return {
            stem: _measured(folder / f"{stem}.npz", samples.outputs, found[stem])
            for stem in contents
        }


def run_folder(folder: Path, *options: str) -> dict[str, Any]:
    """What ``runner`` finds in a folder, in a process of its own.

    Raises:
        RuntimeError: if it fails as a whole.
    """
    out = folder / "measured.json"
    done = subprocess.run(
        # -P: the modules beside the script are not what it imports.
        [sys.executable, "-P", runner.__file__, str(folder), "--out", str(out), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"The files could not be run: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def _measured(path: Path, outputs: tuple[str, ...], found: dict[str, Any]) -> Measured:
    if found["fault"]:
        return Measured(found["fault"])
    with np.load(path) as arrays:
        received = tuple(arrays[f"output:{name}"] for name in outputs)
        plain = tuple(arrays[f"plain:{name}"] for name in outputs)
    return Measured(
        fault="",
        deviation=max(found["deviation"], found["plain_deviation"]),
        outputs=received,
        plain_outputs=plain,
        turns=tuple(found.get("turns", ())),
        peak_memory=found.get("peak_memory"),
    )
