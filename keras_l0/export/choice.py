"""Which of the candidates are right, and which of those is best."""

import hashlib
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import numpy as np

from keras_l0.errors import invalid_argument
from keras_l0.export import runner
from keras_l0.export.candidates import Candidate
from keras_l0.export.check import Measured, Samples, by_sample
from keras_l0.export.device import KEPT_BATCHES, Device
from keras_l0.export.figures import CandidateFigures, ExportReport
from keras_l0.export.limits import Limits, Refusal, disagreement, share_of_others
from keras_l0.export.runtime import DENSIFY
from keras_l0.versions import versions

# This checks our encoding of zeros and the runtime's reading of it, not quantization: a sparse file
# has the weights of a dense one, and its outputs differ at most by the order of additions. Weights
# that are read wrong can hide below the limits of `limits`, which are meant for rounding.
_SAME_WEIGHTS_TOLERANCE = 1e-4
# Sparse kernels that compute in int8 differ by some steps of rounding.
_SAME_INT8_TOLERANCE = 0.02


@dataclass(frozen=True)
class Judged:
    """A candidate, what running it showed, and why it cannot be chosen, if it cannot.

    ``tolerable`` if a higher ``tolerance`` would be a sound way to accept it.
    """

    candidate: Candidate
    measured: Measured
    disagreement: float | None
    refusal: str
    tolerable: bool = False


def judge(
    candidates: Sequence[Candidate],
    measured: Mapping[str, Measured],
    samples: Samples,
    limits: Limits,
    device: Device | None,
) -> list[Judged]:
    """Finds for each candidate whether it may be chosen."""
    judged = []
    for one in candidates:
        found = measured[one.name]
        refusal = _refusal(one, measured, samples, limits)
        comparable = limits.of_classes and not found.fault
        share = disagreement(one.kind, found, samples) if comparable else None
        if device is not None and not refusal.reason:
            refusal = Refusal(_refusal_there(one, device, samples, limits))
        judged.append(Judged(one, found, share, refusal.reason, refusal.tolerable))
    return judged


def choose(
    judged: Sequence[Judged],
    optimize_for: str,
    target: str,
    device: Device | None,
    compared_on: str,
) -> Judged:
    """The best of the candidates that are right.

    Raises:
        RuntimeError: if none is, with the one that came closest.
    """
    right = [one for one in judged if not one.refusal]
    if not right:
        raise RuntimeError(_none_is_right(judged, compared_on))

    def rank(one: Judged) -> tuple[float, ...]:
        size = len(one.candidate.content)
        if optimize_for == "size":
            return size, one.candidate.gzip_bytes
        if optimize_for == "download":
            return one.candidate.gzip_bytes, size
        if device is not None:
            return (float(device.files[one.candidate.name]["latency_ms"]), size)
        if _by_rule(target):
            return (one.candidate.arm_instructions, size)
        return (_middle(_ratios(one.measured, right[0].measured)), size)

    return min(right, key=rank)


def chosen_by(optimize_for: str, target: str, device: Device | None) -> str:
    """What the choice went by, for the report."""
    if optimize_for != "latency":
        return "bytes after gzip" if optimize_for == "download" else "bytes"
    if device is not None:
        return f"latency measured on {device.processor}"
    if _by_rule(target):
        return "instructions estimated for ARM"
    return f"latency measured on {runner.processor()}"


def report_on(
    chosen: Judged,
    judged: Sequence[Judged],
    reference: tuple[bytes, Measured] | None,
    *,
    limits: Limits,
    checked_samples: int,
    **fields: Any,
) -> ExportReport:
    """The report of the chosen file, beside the dense files that it is compared with."""
    figures = {one.candidate.name: _figures(one) for one in judged}
    kind = chosen.candidate.kind
    dense = next(one for one in judged if one.candidate.kind == kind and not one.candidate.sparse)
    of, of_dense = figures[chosen.candidate.name], figures[dense.candidate.name]
    content, measured = reference or (None, Measured("it was not built"))
    ratios = _ratios(chosen.measured, dense.measured)
    float32_ratios = _ratios(chosen.measured, measured)
    return ExportReport(
        chosen=of.name,
        candidates=tuple(figures.values()),
        bytes=of.bytes,
        gzip_bytes=of.gzip_bytes,
        dense_bytes=of_dense.bytes,
        dense_gzip_bytes=of_dense.gzip_bytes,
        dense_float32_bytes=None if content is None else len(content),
        dense_float32_gzip_bytes=None if content is None else len(zlib.compress(content, 9)),
        latency_ms=of.latency_ms,
        dense_latency_ms=of_dense.latency_ms,
        dense_float32_latency_ms=_latency(measured),
        latency_ratio=_middle(ratios),
        latency_ratio_quartiles=quartiles(ratios),
        float32_latency_ratio=_middle(float32_ratios),
        float32_latency_ratio_quartiles=quartiles(float32_ratios),
        deviation=chosen.measured.deviation,
        disagreement=chosen.disagreement,
        tolerance=limits.of_kind(kind, checked_samples),
        checked_samples=checked_samples,
        sparse=chosen.candidate.sparse,
        versions=versions(),
        processor=runner.processor(),
        **fields,
    )


def _refusal(
    one: Candidate, measured: Mapping[str, Measured], samples: Samples, limits: Limits
) -> Refusal:
    found = measured[one.name]
    if found.fault:
        return Refusal(f"the runtime does not run it: {found.fault}")
    if one.same_as and not measured[one.same_as].fault:
        apart = runner.deviation(measured[one.same_as].outputs, found.outputs)
        in_int8 = one.kind == "int8" and any(tensor.form != DENSIFY for tensor in one.sparse)
        if apart > (_SAME_INT8_TOLERANCE if in_int8 else _SAME_WEIGHTS_TOLERANCE):
            text = f"its outputs deviate from the dense file's by {apart:.3g} of the largest"
            return limits.refusal(one.kind, found, samples) if apart == math.inf else Refusal(text)
    return limits.refusal(one.kind, found, samples)


def _refusal_there(one: Candidate, device: Device, samples: Samples, limits: Limits) -> str:
    found = device.files.get(one.name)
    if found is None:
        return f"{device.processor} was not asked"
    if found["sha256"] != hashlib.sha256(one.content).hexdigest():
        raise invalid_argument(
            "timings",
            "timings of the files that this export builds",
            f"timings of another {one.name}",
            "Export with `keep_candidates` again, and measure those",
        )
    if found["fault"]:
        return f"{device.processor} does not run it: {found['fault']}"
    apart = max(found["deviation"], found["plain_deviation"])
    if not np.isfinite(apart) or (not limits.of_classes and apart > limits.deviation(one.kind)):
        return f"its outputs deviate by {apart:.3g} of the largest on {device.processor}"
    if not limits.of_classes:
        return ""
    rows = by_sample(samples.stacked_outputs()[0][:KEPT_BATCHES])
    for classes in (found.get("classes"), found.get("plain_classes")):
        if not isinstance(classes, list) or len(classes) != len(rows):
            return f"{device.processor} was not asked for its classes: measure it again"
        share = share_of_others(one.kind, rows, np.array(classes))
        if share > limits.share(len(rows)):
            return f"it gives another class for {share:.2%} of the samples on {device.processor}"
    return ""


def _none_is_right(judged: Sequence[Judged], compared_on: str) -> str:
    """Why nothing was written, by the file that came closest, and what may help."""
    # With a higher tolerance first: there the user can do something at once.
    closest = min(judged, key=lambda one: (not one.tolerable, one.measured.deviation))
    remedies = []
    if closest.tolerable:
        remedies.append("allow more by `tolerance` if that is good enough")
    if closest.candidate.kind != "float32":
        remedies.append("choose another `quantize`")
    if "random" in compared_on and not closest.measured.fault:
        remedies.append("give `check_data`")
    advice = f" You can {', or '.join(remedies)}." if remedies else ""
    return (
        f"No file was written: none is right on {compared_on}. The closest is "
        f"{closest.candidate.name}: {closest.refusal}.{advice}"
    )


def _by_rule(target: str) -> bool:
    return target == "arm" and not runner.is_arm()


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third quartile; NaN if there are no values."""
    if not values:
        return float("nan"), float("nan")
    low, _, high = quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return low, high


def _ratios(measured: Measured, other: Measured) -> list[float]:
    """For each turn the latency over another file's; none if one of them does not run."""
    if not measured.turns or not other.turns:
        return []
    return [a / b for a, b in zip(measured.turns, other.turns, strict=True)]


def _middle(values: Sequence[float]) -> float:
    return median(values) if values else float("nan")


def _latency(measured: Measured) -> float | None:
    return median(measured.turns) if measured.turns else None


def _figures(one: Judged) -> CandidateFigures:
    found = one.measured
    return CandidateFigures(
        name=one.candidate.name,
        kind=one.candidate.kind,
        bytes=len(one.candidate.content),
        gzip_bytes=one.candidate.gzip_bytes,
        latency_ms=_latency(found),
        arm_instructions=one.candidate.arm_instructions,
        peak_memory=found.peak_memory,
        deviation=None if found.fault else found.deviation,
        disagreement=one.disagreement,
        refusal=one.refusal,
    )
