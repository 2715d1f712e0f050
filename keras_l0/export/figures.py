"""What an export brought: the figures, as a table and as JSON."""

import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_l0.export.sparse import SparseTensor
from keras_l0.text import table


@dataclass(frozen=True)
class ExportReport:
    """The figures of one exported file, beside those of the dense file it replaces.

    Attributes:
        path: where the file is.
        quantize: ``None`` for float32 weights, or ``"float16"``.
        bytes: the file's size.
        gzip_bytes: its size after zlib at level 9, as app packages hold it.
        dense_bytes: the size of the same network with dense weights of that type.
        dense_gzip_bytes: that after zlib at level 9.
        latency_ms: milliseconds of one invocation, one thread, median.
        dense_latency_ms: that of the dense file, measured in turns with it.
        latency_ratio: this file's latency over the dense one's, the median of the turns'
            ratios, which a drift of the machine's speed leaves alone.
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
    bytes: int
    gzip_bytes: int
    dense_bytes: int
    dense_gzip_bytes: int
    latency_ms: float
    dense_latency_ms: float
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
        fields["sparse"] = [asdict(t) | {"shape": list(t.shape)} for t in self.sparse]
        return fields

    def __str__(self) -> str:
        """A small table."""
        rows = [
            ["bytes", f"{self.bytes:,}", f"{self.dense_bytes:,}"],
            ["after gzip", f"{self.gzip_bytes:,}", f"{self.dense_gzip_bytes:,}"],
            ["latency", f"{self.latency_ms:.4f} ms", f"{self.dense_latency_ms:.4f} ms"],
        ]
        title = f"{self.path} ({self.quantize or 'float32'})"
        lines = [
            table(["", "this file", "dense file"], rows, title=title),
            f"latency over the dense file's: {self.latency_ratio:.2f}",
            f"deviation {self.deviation:.2g} of at most {self.tolerance:.2g} "
            f"on {self.checked_samples} samples",
            f"{len(self.sparse)} sparse tensors",
            *self.notes,
        ]
        return "\n".join(lines)


def processor() -> str:
    """The processor's model name, or what the platform tells of it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
