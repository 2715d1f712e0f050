"""From dense files to the best of all that could be made of them, run and found right."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from keras_l0.export import check
from keras_l0.export.candidates import candidates
from keras_l0.export.choice import Judged, choose, judge
from keras_l0.export.device import Device, keep
from keras_l0.export.limits import Limits, weakness

# The name under which the file to compare with is measured, unless it is a candidate itself.
_REFERENCE = "reference"


@dataclass(frozen=True)
class Best:
    """The best file, and what it was chosen of and compared with.

    Attributes:
        chosen: the best file.
        judged: all candidates.
        reference: the dense float32 file of the model as given, and what running it showed, in
            turns with the candidates; ``None`` if there is none.
    """

    chosen: Judged
    judged: list[Judged]
    reference: tuple[bytes, check.Measured] | None


def best_of(
    dense: Mapping[str, bytes],
    samples: check.Samples,
    limits: Limits,
    optimize_for: str,
    target: str,
    *,
    compared_on: str,
    reference: bytes | None = None,
    device: Device | None = None,
    kept: Path | None = None,
) -> Best:
    """The best file, and all that it was chosen of.

    Args:
        dense: as ``candidates`` takes them.
        samples: what files are run on and compared with.
        limits: how far they may be from that.
        optimize_for: ``"size"``, ``"download"`` or ``"latency"``.
        target: where the file is to run, ``"arm"`` or ``"host"``.
        compared_on: what the samples are, for errors.
        reference: the dense float32 file of the model as given, to be measured too.
        device: what was measured on a device.
        kept: a folder for all candidates.

    Raises:
        RuntimeError: if none is right.
    """
    built = candidates(dense, optimize_for)
    with ThreadPoolExecutor() as threads:  # zlib lets the others run
        list(threads.map(lambda one: one.gzip_bytes, built))
    contents = {one.name: one.content for one in built}
    same = next((one.name for one in built if one.content == reference), _REFERENCE)
    if reference is not None:
        contents[same] = reference
    measured = check.measure(contents, samples)
    judged = judge(built, measured, samples, limits, device)
    if kept is not None:
        keep(kept, built, samples)
    return Best(
        chosen=choose(judged, optimize_for, target, device, compared_on),
        judged=judged,
        reference=None if reference is None else (reference, measured[same]),
    )


def notes_on(chosen: Judged, judged: Sequence[Judged], samples: check.Samples) -> list[str]:
    """What the user should know of a choice."""
    weak = weakness(chosen.candidate.kind, samples)
    notes = [weak] if weak else []
    sparse = [one for one in judged if one.candidate.sparse]
    if not chosen.candidate.sparse and sparse and all(one.refusal for one in sparse):
        names = ", ".join(one.candidate.name for one in sparse)
        notes.append(f"The dense file was kept, since the sparse ones were refused: {names}.")
    return notes
