"""From dense files to the best of all that could be made of them, run and found right."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_l0.export import check
from keras_l0.export.candidates import candidates
from keras_l0.export.choice import Judged, Limits, choose, judge
from keras_l0.export.device import Device, keep


def best_of(
    dense: Mapping[str, bytes],
    samples: check.Samples,
    limits: Limits,
    optimize_for: str,
    target: str,
    device: Device | None = None,
    kept: Path | None = None,
) -> tuple[Judged, list[Judged]]:
    """The best file, and all that it was chosen of.

    Args:
        dense: as ``candidates`` takes them.
        samples: what files are run on and held against.
        limits: how far they may be from that.
        optimize_for: ``"size"``, ``"download"`` or ``"latency"``.
        target: where the file is to run, ``"arm"`` or ``"host"``.
        device: what was measured on a device.
        kept: a folder for all candidates.

    Raises:
        RuntimeError: if none is right.
    """
    built = candidates(dense, optimize_for)
    with ThreadPoolExecutor() as threads:  # zlib lets the others run
        list(threads.map(lambda one: one.gzip_bytes, built))
    measured = check.measure({one.name: one.content for one in built}, samples)
    judged = judge(built, measured, samples, limits, device)
    if kept is not None:
        keep(kept, built, samples)
    return choose(judged, optimize_for, target, limits, device), judged


def notes_on(
    chosen: Judged, judged: Sequence[Judged], samples: check.Samples, limits: Limits
) -> list[str]:
    """What the user should know of a choice."""
    notes = []
    spread = _spread(samples)
    if spread < limits.deviation[chosen.candidate.kind]:
        notes.append(
            f"The model's outputs differ by {spread:.2g} of the largest from sample to sample, "
            "less than the tolerance: the comparison says little. Give other `check_data`, or a "
            "trained model."
        )
    sparse = [one for one in judged if one.candidate.sparse]
    if not chosen.candidate.sparse and sparse and all(one.refusal for one in sparse):
        names = ", ".join(one.candidate.name for one in sparse)
        notes.append(f"The dense file was kept, since the sparse ones were refused: {names}.")
    return notes


def _by_sample(outputs: NDArray[Any]) -> NDArray[Any]:
    """Outputs that are stacked by batches, sample by sample."""
    return outputs.reshape(-1, *outputs.shape[2:]) if outputs.ndim > 1 else outputs


def _spread(samples: check.Samples) -> float:
    """How much an output differs between samples, over its largest, where it differs most."""
    return max(
        float(np.ptp(y, axis=0).max() / (np.abs(y).max() or 1.0))
        for y in (_by_sample(array.astype(np.float64)) for array in samples.stacked_outputs())
        if y.size
    )
