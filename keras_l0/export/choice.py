"""Which of the candidates are right, and which of those is best."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from keras_l0.errors import invalid_argument
from keras_l0.export import runner
from keras_l0.export.candidates import Candidate
from keras_l0.export.check import Measured, Samples
from keras_l0.export.device import Device
from keras_l0.export.figures import CandidateFigures, ExportReport
from keras_l0.export.runtime import DENSIFY
from keras_l0.export.samples import Arrays
from keras_l0.versions import versions

# A sparse file computes with the dense one's very weights, and differs at most by the order
# of additions. Weights read wrong can hide below a tolerance that is meant for rounding.
_SAME_WEIGHTS_TOLERANCE = 1e-4
# Where sparse kernels compute in int8, by some steps of rounding.
_SAME_INT8_TOLERANCE = 0.02
_TOLERANCES = {"float32": 1e-3, "float16": 1e-2, "dynamic": 0.1, "int8": 0.1}
_AUTO_TOLERANCE = 0.01
# How far a row of probabilities may be from a sum of 1.
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Limits:
    """How far a file may be from the model.

    Attributes:
        deviation: for each kind, the largest deviation over the largest output.
        disagreement: the largest share of samples with another class; ``None`` where classes
            do not count.
    """

    deviation: Mapping[str, float]
    disagreement: float | None = None

    @classmethod
    def of(
        cls,
        quantize: str | None,
        tolerance: float | None,
        kinds: Sequence[str],
        expected: list[Arrays],
    ) -> "Limits":
        """The limits that ``export_tflite``'s arguments mean for outputs like these."""
        if quantize != "auto":
            return cls({kind: tolerance or _TOLERANCES[kind] for kind in kinds})
        limit = tolerance or _AUTO_TOLERANCE
        if _are_probabilities(expected):
            return cls({kind: _TOLERANCES[kind] for kind in kinds}, limit)
        return cls(dict.fromkeys(kinds, limit))


@dataclass(frozen=True)
class Judged:
    """A candidate, what running it showed, and why it cannot be chosen, if it cannot."""

    candidate: Candidate
    measured: Measured
    disagreement: float | None
    refusal: str


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
        disagreement = None
        if limits.disagreement is not None and not found.fault:
            wanted = samples.stacked_outputs()[0].argmax(axis=-1)
            disagreement = float(np.mean(found.outputs[0].argmax(axis=-1) != wanted))
        refusal = _refusal(one, measured, limits, disagreement)
        if device is not None and not refusal:
            refusal = _refusal_there(one, device, limits)
        judged.append(Judged(one, found, disagreement, refusal))
    return judged


def choose(
    judged: Sequence[Judged], optimize_for: str, target: str, limits: Limits, device: Device | None
) -> Judged:
    """The best of the candidates that are right.

    Raises:
        RuntimeError: if none is, with the one that came closest.
    """
    right = [one for one in judged if not one.refusal]
    if not right:
        raise RuntimeError(_none_is_right(judged, limits))

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
        return (_ratio(one.measured, right[0].measured), size)

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
    chosen: Judged, judged: Sequence[Judged], *, limits: Limits, **fields: Any
) -> ExportReport:
    """The report of the file that was chosen, beside the dense file of its kind."""
    figures = {one.candidate.name: _figures(one) for one in judged}
    kind = chosen.candidate.kind
    dense = next(one for one in judged if one.candidate.kind == kind and not one.candidate.sparse)
    of, of_dense = figures[chosen.candidate.name], figures[dense.candidate.name]
    return ExportReport(
        chosen=of.name,
        candidates=tuple(figures.values()),
        bytes=of.bytes,
        gzip_bytes=of.gzip_bytes,
        dense_bytes=of_dense.bytes,
        dense_gzip_bytes=of_dense.gzip_bytes,
        latency_ms=of.latency_ms,
        dense_latency_ms=of_dense.latency_ms,
        latency_ratio=_ratio(chosen.measured, dense.measured),
        deviation=chosen.measured.deviation,
        tolerance=limits.deviation[kind],
        sparse=chosen.candidate.sparse,
        versions=versions(),
        processor=runner.processor(),
        **fields,
    )


def _are_probabilities(expected: list[Arrays]) -> bool:
    if any(len(batch) != 1 or batch[0].ndim != 2 or batch[0].shape[1] < 2 for batch in expected):
        return False
    rows = np.concatenate([batch[0] for batch in expected]).astype(np.float64)
    return bool((rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) < _SUM_TOLERANCE).all())


def _refusal(
    one: Candidate,
    measured: Mapping[str, Measured],
    limits: Limits,
    disagreement: float | None,
) -> str:
    found, limit = measured[one.name], limits.deviation[one.kind]
    if found.fault:
        return f"the runtime does not run it: {found.fault}"
    if found.deviation > limit:
        return (
            f"its outputs deviate from the Keras model's by {found.deviation:.3g} "
            f"of the largest, and {limit:.3g} is allowed"
        )
    if disagreement is not None and disagreement > (limits.disagreement or 0.0):
        return (
            f"it names another class than the Keras model for {disagreement:.2%} of the "
            f"samples, and {limits.disagreement:.2%} is allowed"
        )
    if one.same_as and not measured[one.same_as].fault:
        apart = runner.deviation(measured[one.same_as].outputs, found.outputs)
        in_int8 = one.kind == "int8" and any(tensor.form != DENSIFY for tensor in one.sparse)
        if apart > (_SAME_INT8_TOLERANCE if in_int8 else _SAME_WEIGHTS_TOLERANCE):
            return f"its outputs deviate from the dense file's by {apart:.3g} of the largest"
    return ""


def _refusal_there(one: Candidate, device: Device, limits: Limits) -> str:
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
    if apart > limits.deviation[one.kind]:
        return f"its outputs deviate by {apart:.3g} of the largest on {device.processor}"
    return ""


def _none_is_right(judged: Sequence[Judged], limits: Limits) -> str:
    running = [one for one in judged if not one.measured.fault]
    far = [one for one in running if one.measured.deviation > limits.deviation[one.candidate.kind]]
    if not running or (not far and limits.disagreement is None):
        return f"No file was written. {judged[0].candidate.name}: {judged[0].refusal}."
    closest = min(running, key=lambda one: one.measured.deviation)
    return (
        f"No file was written: none is within the tolerance. The closest, "
        f"{closest.candidate.name}, deviates by {closest.measured.deviation:.3g}: "
        f"{closest.refusal}. Allow more by `tolerance`, or choose another `quantize`."
    )


def _by_rule(target: str) -> bool:
    return target == "arm" and not runner.is_arm()


def _ratio(measured: Measured, other: Measured) -> float:
    """Latency over another file's, the median over turns; NaN if one of them does not run."""
    if not measured.turns or not other.turns:
        return float("nan")
    return median(a / b for a, b in zip(measured.turns, other.turns, strict=True))


def _figures(one: Judged) -> CandidateFigures:
    found = one.measured
    return CandidateFigures(
        name=one.candidate.name,
        kind=one.candidate.kind,
        bytes=len(one.candidate.content),
        gzip_bytes=one.candidate.gzip_bytes,
        latency_ms=median(found.turns) if found.turns else None,
        arm_instructions=one.candidate.arm_instructions,
        peak_memory=found.peak_memory,
        deviation=None if found.fault else found.deviation,
        disagreement=one.disagreement,
        refusal=one.refusal,
    )
