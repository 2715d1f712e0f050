"""What an export brought: the figures, as a table and as JSON."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from keras_l0.export.sparse import SparseTensor
from keras_l0.text import table

_NAME_WIDTH = 24


@dataclass(frozen=True)
class CandidateFigures:
    """One of the files that were built, run and compared.

    Attributes:
        name: such as ``"float16-sparse"``.
        kind: how its weights are stored: ``"float32"``, ``"float16"``, ``"dynamic"``, ``"int8"``.
        bytes: the file's size.
        gzip_bytes: after zlib at level 9.
        latency_ms: milliseconds of one invocation, one thread, median; ``None`` if it does not
            run.
        arm_instructions: that one invocation executes on a 64-bit ARM processor for its
            multiplications, estimated.
        peak_memory: bytes by which loading and running it raised its process' peak; ``None``
            where the system does not tell.
        deviation: as in ``ExportReport``; ``None`` if it does not run.
        disagreement: as in ``ExportReport``; ``None`` likewise.
        refusal: empty, or why it could not be chosen.
    """

    name: str
    kind: str
    bytes: int
    gzip_bytes: int
    latency_ms: float | None
    arm_instructions: float
    peak_memory: int | None
    deviation: float | None
    disagreement: float | None
    refusal: str


@dataclass(frozen=True)
class ExportReport:
    """The figures of one exported file, beside those of the dense files it can be compared with.

    All latencies are of one thread and of the same turns: the files are timed one after the
    other, many times, and a ratio is the median of the turns' ratios.

    Attributes:
        path: where the file is.
        quantize: as it was asked for.
        optimize_for: what the file was chosen for.
        target: where it is to run.
        chosen_by: the figure by which it was chosen.
        chosen: the candidate that became the file.
        candidates: all files that were built, the chosen one among them.
        bytes: the file's size.
        gzip_bytes: its size after zlib at level 9, as app packages hold it.
        parameters: of the network in the file, without what was taken out of it.
        dense_parameters: of the model as given.
        dense_bytes: the size of the dense file of the same kind: of the model as given, or of the
            shrunk one if less than a tenth was taken out and the kind is not float32.
        dense_gzip_bytes: that after zlib at level 9.
        dense_float32_bytes: the size of the dense float32 file of the model as given; ``None`` if
            it cannot be converted to that.
        dense_float32_gzip_bytes: that after zlib at level 9.
        latency_ms: milliseconds of one invocation, the median of the turns.
        dense_latency_ms: that of the dense file of the same kind; ``None`` if it does not run.
        dense_float32_latency_ms: that of the dense float32 file; ``None`` likewise.
        latency_ratio: this file's latency over that of the dense file of the same kind; NaN if one
            of them does not run.
        latency_ratio_quartiles: the first and third quartile of the turns' ratios; NaN likewise.
        float32_latency_ratio: this file's latency over the dense float32 file's; NaN likewise.
        float32_latency_ratio_quartiles: the first and third quartile of that; NaN likewise.
        deviation: largest deviation from the Keras model over its largest output.
        disagreement: for a classifier the share of samples whose class changes; ``None`` for any
            other model.
        tolerance: the limit of ``disagreement`` for a classifier, of ``deviation`` otherwise.
        checked_samples: how many samples were compared.
        compared_on: what they were, such as ``"64 samples of `check_data`"``.
        sparse: the tensors held in sparse form; empty if the file is dense.
        notes: what was done otherwise than asked for, and why.
        versions: of keras_l0 and what it converted and ran with.
        processor: on which the latencies were measured.
    """

    path: str
    quantize: str | None
    optimize_for: str
    target: str
    chosen_by: str
    chosen: str
    candidates: tuple[CandidateFigures, ...]
    bytes: int
    gzip_bytes: int
    parameters: int
    dense_parameters: int
    dense_bytes: int
    dense_gzip_bytes: int
    dense_float32_bytes: int | None
    dense_float32_gzip_bytes: int | None
    latency_ms: float | None
    dense_latency_ms: float | None
    dense_float32_latency_ms: float | None
    latency_ratio: float
    latency_ratio_quartiles: tuple[float, float]
    float32_latency_ratio: float
    float32_latency_ratio_quartiles: tuple[float, float]
    deviation: float
    disagreement: float | None
    tolerance: float
    checked_samples: int
    compared_on: str
    sparse: tuple[SparseTensor, ...]
    notes: tuple[str, ...]
    versions: dict[str, str]
    processor: str

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain dicts, lists, strings and numbers, ready for JSON."""
        fields = asdict(self)
        fields["notes"] = list(self.notes)
        fields["latency_ratio_quartiles"] = list(self.latency_ratio_quartiles)
        fields["float32_latency_ratio_quartiles"] = list(self.float32_latency_ratio_quartiles)
        fields["candidates"] = [asdict(candidate) for candidate in self.candidates]
        fields["sparse"] = [asdict(t) | {"shape": list(t.shape)} for t in self.sparse]
        return fields

    @property
    def kind(self) -> str:
        """How the file's weights are stored."""
        return next(one.kind for one in self.candidates if one.name == self.chosen)

    def __str__(self) -> str:
        """A small table."""
        columns = [
            [
                "this file",
                f"{self.parameters:,}",
                f"{self.bytes:,}",
                f"{self.gzip_bytes:,}",
                _text(self.latency_ms, ".4g"),
                "",
                "",
            ],
            [
                "dense float32",
                f"{self.dense_parameters:,}",
                _text(self.dense_float32_bytes, ","),
                _text(self.dense_float32_gzip_bytes, ","),
                _text(self.dense_float32_latency_ms, ".4g"),
                *_ratio(self.float32_latency_ratio, self.float32_latency_ratio_quartiles),
            ],
        ]
        if self.kind != "float32":
            columns.append(
                [
                    f"dense {self.kind}",
                    "",
                    f"{self.dense_bytes:,}",
                    f"{self.dense_gzip_bytes:,}",
                    _text(self.dense_latency_ms, ".4g"),
                    *_ratio(self.latency_ratio, self.latency_ratio_quartiles),
                ]
            )
        labels = ["parameters", "bytes", "after gzip", "latency, ms", "this file's over it"]
        rows = zip([*labels, "quartiles"], *(column[1:] for column in columns), strict=True)
        lines = [
            f"{self.path}: {self.chosen}",
            table(["", *(column[0] for column in columns)], list(map(list, rows))),
            f"chosen by {self.chosen_by}",
            f"compared on {self.compared_on}",
            self._comparison(),
            f"{len(self.sparse)} sparse tensors",
        ]
        if len(self.candidates) > 2:
            lines.append(candidate_table(self.candidates))
        return "\n".join([*lines, *self.notes])

    def _comparison(self) -> str:
        if self.disagreement is None:
            return f"deviation {self.deviation:.2g} of at most {self.tolerance:.2g}"
        return (
            f"another class for {self.disagreement:.2%} of at most {self.tolerance:.2%}; "
            f"deviation {self.deviation:.2g}"
        )


def candidate_table(candidates: Sequence[CandidateFigures]) -> str:
    """The candidates' figures, in two tables of 80 columns, and why some were refused."""
    sizes = [
        [
            wrapped(one.name, _NAME_WIDTH),
            f"{one.bytes:,}",
            f"{one.gzip_bytes:,}",
            _text(one.latency_ms, ".4g"),
            f"{one.arm_instructions:.2g}",
        ]
        for one in candidates
    ]
    checks = [
        [
            wrapped(one.name, _NAME_WIDTH),
            _text(one.deviation, ".2g"),
            _text(one.disagreement, ".2%"),
            _text(one.peak_memory, ","),
        ]
        for one in candidates
    ]
    header = ["candidate", "bytes", "after gzip", "ms", "ARM instr."]
    refusals = [f"{one.name} was refused: {one.refusal}." for one in candidates if one.refusal]
    return "\n".join(
        [
            table(header, sizes),
            table(["candidate", "deviation", "other class", "peak memory"], checks),
            *refusals,
        ]
    )


def wrapped(name: str, width: int) -> str:
    """A name in lines of at most so many characters, broken at hyphens and slashes if it can be.

    Example:

    >>> wrapped("gathered-dynamic-per-tensor", 20).splitlines()
    ['gathered-dynamic-', 'per-tensor']
    """
    lines = [""]
    for part in re.findall(r"[^-/\\]+[-/\\]*|[-/\\]+", name):
        pieces = [part[start : start + width] for start in range(0, len(part), width)]
        for piece in pieces:
            if len(lines[-1]) + len(piece) > width:
                lines.append("")
            lines[-1] += piece
    return "\n".join(lines)


def _ratio(ratio: float, quartiles: tuple[float, float]) -> list[str]:
    low, high = quartiles
    return [f"{ratio:.2f}", f"{low:.2f} to {high:.2f}"] if math.isfinite(ratio) else ["", ""]


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
