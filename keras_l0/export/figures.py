"""What an export brought: the figures, as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from keras_l0.export.sparse import SparseTensor
from keras_l0.text import table


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
        disagreement: the share of samples for which it names another class than the model;
            ``None`` where that was not asked.
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
    """The figures of one exported file, beside those of the dense file it replaces.

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
        dense_parameters: of the whole network.
        dense_bytes: the size of the whole network with dense weights of that type; of the
            shrunk one, if less than a tenth was taken out.
        dense_gzip_bytes: that after zlib at level 9.
        latency_ms: milliseconds of one invocation, one thread, median.
        dense_latency_ms: that of the dense file, measured in turns with it; ``None`` if the
            dense file does not run.
        latency_ratio: this file's latency over the dense one's, the median of the turns'
            ratios, which a drift of the machine's speed leaves alone; NaN likewise.
        deviation: largest deviation from the Keras model over its largest output.
        tolerance: what ``deviation`` was held against.
        checked_samples: how many samples were compared.
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
    latency_ms: float | None
    dense_latency_ms: float | None
    latency_ratio: float
    deviation: float
    tolerance: float
    checked_samples: int
    sparse: tuple[SparseTensor, ...]
    notes: tuple[str, ...]
    versions: dict[str, str]
    processor: str

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain dicts, lists, strings and numbers, ready for JSON."""
        fields = asdict(self)
        fields["notes"] = list(self.notes)
        fields["candidates"] = [asdict(candidate) for candidate in self.candidates]
        fields["sparse"] = [asdict(t) | {"shape": list(t.shape)} for t in self.sparse]
        return fields

    def __str__(self) -> str:
        """A small table."""
        rows = [
            ["parameters", f"{self.parameters:,}", f"{self.dense_parameters:,}"],
            ["bytes", f"{self.bytes:,}", f"{self.dense_bytes:,}"],
            ["after gzip", f"{self.gzip_bytes:,}", f"{self.dense_gzip_bytes:,}"],
            ["latency, ms", _text(self.latency_ms, ".4f"), _text(self.dense_latency_ms, ".4f")],
        ]
        lines = [
            f"{self.path}: {self.chosen}",
            table(["", "this file", "dense file"], rows),
            f"chosen by {self.chosen_by}; latency over the dense file's: {self.latency_ratio:.2f}",
            f"deviation {self.deviation:.2g} of at most {self.tolerance:.2g} "
            f"on {self.checked_samples} samples",
            f"{len(self.sparse)} sparse tensors",
        ]
        if len(self.candidates) > 2:
            lines.append(candidate_table(self.candidates))
        return "\n".join([*lines, *self.notes])


def candidate_table(candidates: Sequence[CandidateFigures]) -> str:
    """The candidates' figures, and why some were refused."""
    rows = [
        [
            one.name,
            f"{one.bytes:,}",
            f"{one.gzip_bytes:,}",
            _text(one.latency_ms, ".4f"),
            f"{one.arm_instructions:.2g}",
            _text(one.peak_memory, ","),
            _text(one.deviation, ".2g"),
            _text(one.disagreement, ".2%"),
        ]
        for one in candidates
    ]
    header = ["candidate", "bytes", "gzip", "latency, ms", "ARM instructions", "peak memory"]
    header += ["deviation", "other class"]
    refusals = [f"{one.name} was refused: {one.refusal}." for one in candidates if one.refusal]
    return "\n".join([table(header, rows), *refusals])


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
