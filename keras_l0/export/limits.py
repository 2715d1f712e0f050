"""When a file is right: the acceptance rule that the docstring of ``export_tflite`` states."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_l0.export.check import Measured, Samples, by_sample

RESOLUTIONS = {"float32": 1e-6, "float16": 2.0**-11, "dynamic": 2.0**-8, "int8": 2.0**-8}
"""For each kind, the step between two numbers of its format over the largest number.

For float32 a few steps, since the order of additions changes the last bits.
"""

# The rounding of several layers adds up: so many steps are no difference between samples.
_STEPS = 4
_DEVIATIONS = {"float32": 1e-3, "float16": 1e-2, "dynamic": 0.1, "int8": 0.1}
_SHARE = 0.01
# From so many samples on, one may have another class where a share of 0.01 would allow none.
_ENOUGH_SAMPLES = 10
# How far a row of probabilities may be from a sum of 1.
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Refusal:
    """Why a file is not right.

    Attributes:
        reason: empty if it is right.
        tolerable: whether a higher ``tolerance`` would be a sound way to accept it.
    """

    reason: str = ""
    tolerable: bool = False


@dataclass(frozen=True)
class Limits:
    """How far a file may be from the model.

    Attributes:
        tolerance: as the user gave it, or ``None``.
        of_classes: whether the model is a classifier: its one output has rows of probabilities.
    """

    tolerance: float | None
    of_classes: bool

    @classmethod
    def of(cls, tolerance: float | None, samples: Samples) -> "Limits":
        """The limits that ``tolerance`` means for outputs like these."""
        return cls(tolerance, _are_probabilities(samples.stacked_outputs()))

    def deviation(self, kind: str) -> float:
        """The largest deviation over the largest output, for a model that is no classifier."""
        given = None if self.of_classes else self.tolerance
        return given or _DEVIATIONS[kind]

    def share(self, count: int) -> float:
        """The largest share of so many samples that may have another class, for a classifier."""
        least = 1 / count if count >= _ENOUGH_SAMPLES else 0.0
        return self.tolerance or max(_SHARE, least)

    def of_kind(self, kind: str, count: int) -> float:
        """The limit of whichever of the two counts."""
        return self.share(count) if self.of_classes else self.deviation(kind)

    def refusal(self, kind: str, found: Measured, samples: Samples) -> Refusal:
        """Why a file that ran is not right, or an empty refusal."""
        expected = samples.stacked_outputs()
        for outputs in (found.outputs, found.plain_outputs):
            different = _different(samples.outputs, expected, outputs)
            if different:
                return Refusal(different)
            for name, y, y_hat in zip(samples.outputs, expected, outputs, strict=True):
                spread, error = variation(y), root_mean_square(y_hat, y)
                if not is_weak(y, kind) and error >= spread:
                    return Refusal(
                        f"its output {name} deviates from the Keras model's by {error:.3g} (root "
                        f"mean square), as much as that differs between samples ({spread:.3g})"
                    )
        limit = self.of_kind(kind, samples.count)
        if not self.of_classes:
            if found.deviation <= limit:
                return Refusal()
            return Refusal(
                f"its outputs deviate from the Keras model's by {found.deviation:.3g} "
                f"of the largest, and {limit:.3g} is allowed",
                tolerable=True,
            )
        share = disagreement(kind, found, samples)
        if share <= limit:
            return Refusal()
        return Refusal(
            f"it gives another class than the Keras model for {share:.2%} of the {samples.count} "
            f"samples, and {limit:.2%} is allowed"
        )


def disagreement(kind: str, found: Measured, samples: Samples) -> float:
    """The share of samples whose class changes, the larger of both interpreters'."""
    (expected,) = samples.stacked_outputs()
    if any(outputs[0].shape != expected.shape for outputs in (found.outputs, found.plain_outputs)):
        return 1.0
    rows = by_sample(expected)
    return max(
        share_of_others(kind, rows, by_sample(outputs[0]).argmax(axis=-1))
        for outputs in (found.outputs, found.plain_outputs)
    )


def share_of_others(kind: str, rows: NDArray[Any], named: NDArray[Any]) -> float:
    """The share of rows of probabilities for which another class was named.

    Not counted is a class whose probability differs from the largest by less than the kind's
    resolution: the format cannot tell them apart.

    Args:
        kind: of the file.
        rows: the Keras model's probabilities, a row for each sample.
        named: the file's class of each sample.
    """
    lost = rows.max(axis=-1) - np.take_along_axis(rows, named[:, None], axis=-1)[:, 0]
    return float(np.mean((named != rows.argmax(axis=-1)) & (lost >= RESOLUTIONS[kind])))


def variation(y: NDArray[Any]) -> float:
    """How much an output differs between samples: the root mean square from its mean sample."""
    rows = by_sample(y).astype(np.float64)
    return float(np.sqrt(np.mean((rows - rows.mean(axis=0)) ** 2))) if rows.size else 0.0


def root_mean_square(y_hat: NDArray[Any], y: NDArray[Any]) -> float:
    """Of the difference of two arrays."""
    if not y.size:
        return 0.0
    return float(np.sqrt(np.mean((y_hat.astype(np.float64) - y.astype(np.float64)) ** 2)))


def is_weak(y: NDArray[Any], kind: str) -> bool:
    """Whether an output differs between samples by no more than a few steps of the format."""
    largest = float(np.abs(y.astype(np.float64)).max(initial=0.0))
    return variation(y) <= _STEPS * RESOLUTIONS[kind] * largest


def weakness(kind: str, samples: Samples) -> str:
    """What makes the comparison weak, for the report; or an empty text."""
    weak = [
        name
        for name, y in zip(samples.outputs, samples.stacked_outputs(), strict=True)
        if y.size and is_weak(y, kind)
    ]
    if not weak:
        return ""
    if samples.count == 1:
        return "The comparison is weak: there is one sample. Give more `check_data`."
    which = "outputs" if len(weak) == len(samples.outputs) else f"output {', '.join(weak)}"
    return (
        f"The comparison is weak: the Keras model's {which} differ between samples by less than "
        f"{_STEPS * RESOLUTIONS[kind]:.2g} of the largest, four times the resolution of {kind}. "
        "Give `check_data` that differ more, or train the model."
    )


def _different(names: Sequence[str], expected: Sequence[Any], received: Sequence[Any]) -> str:
    """What is wrong with outputs whose numbers need no comparison."""
    for name, y, y_hat in zip(names, expected, received, strict=True):
        if y.shape != y_hat.shape:
            return (
                f"its output {name} has the shape {y_hat.shape[1:]}, the Keras model's "
                f"{y.shape[1:]}"
            )
        if not np.isfinite(y_hat).all():
            return f"its output {name} is NaN or infinite"
    return ""


def _are_probabilities(outputs: Sequence[NDArray[Any]]) -> bool:
    if len(outputs) != 1 or outputs[0].ndim != 3 or outputs[0].shape[-1] < 2:
        return False
    rows = by_sample(outputs[0]).astype(np.float64)
    return bool((rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) < _SUM_TOLERANCE).all())
