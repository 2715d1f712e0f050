"""The files that a model could become, of each kind of weights."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from keras_l0.export.clusters import disarm, would_crash
from keras_l0.export.convert import PER_TENSOR
from keras_l0.export.cost import PROCESSORS, arm_instructions
from keras_l0.export.rewrites import convolved, small_in_float32, widened
from keras_l0.export.sparse import SparseTensor, sparse_file

WHOLE, SHRUNK, GATHERED = "", "shrunk-", "gathered-"
"""Before a setting's name: the network as it is, without its dead channels, and with those inputs
alone that its first layer reads."""

KINDS = ("float32", "float16", "dynamic", "int8")
"""How weights are stored, from the most exact to the least."""


@dataclass(frozen=True)
class Candidate:
    """A file that may be exported.

    Attributes:
        name: such as ``"float16-sparse"``; the same at every export.
        kind: of ``KINDS``.
        content: the file.
        sparse: what is sparse in it.
        same_as: the name of the candidate that computes with the same weights in the same way,
            so that nothing but the order of additions may differ; or ``None``.
        notes: what its user should know.
    """

    name: str
    kind: str
    content: bytes
    sparse: tuple[SparseTensor, ...] = ()
    same_as: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def variant(self) -> str:
        """What was taken out of the network, as the beginning of its name."""
        return next((one for one in (SHRUNK, GATHERED) if self.name.startswith(one)), WHOLE)

    @cached_property
    def gzip_bytes(self) -> int:
        """Its size after zlib at level 9."""
        return len(zlib.compress(self.content, 9))

    @cached_property
    def arm_instructions(self) -> float:
        """That an invocation executes on a phone, estimated."""
        return arm_instructions(self.content)


def settings_of(kind: str) -> tuple[str, ...]:
    """What a model is to be converted with for this kind."""
    return (kind, f"{kind}{PER_TENSOR}") if kind in ("dynamic", "int8") else (kind,)


def candidates(dense: Mapping[str, bytes], optimize_for: str) -> list[Candidate]:
    """The files to choose from.

    Args:
        dense: dense files, by the setting they were converted with, with ``SHRUNK`` or
            ``GATHERED`` before it; the whole network's, beside shrunk ones, stay dense.
        optimize_for: ``"size"``, ``"download"`` or ``"latency"``.

    Returns:
        The dense files and their sparse forms, each different from the others.
    """
    found: dict[bytes, Candidate] = {}
    shrunk = any(setting.startswith(SHRUNK) for setting in dense)
    for setting, content in dense.items():
        kind = setting.removesuffix(PER_TENSOR).rpartition("-")[2]
        first = Candidate(f"{setting}-dense", kind, content)
        found.setdefault(content, first)
        if first.variant == WHOLE and shrunk:
            continue
        rewrite = {"float16": small_in_float32, "dynamic": widened, "int8": convolved}
        rewritten = rewrite.get(kind, bytes)(content)
        # A widened file computes in float32 what the dense one computes in int8.
        same_as = None if kind == "dynamic" else first.name
        ways = ("size", *PROCESSORS) if optimize_for == "latency" else ("size",)
        for prefer in ways:
            packed, tensors = sparse_file(rewritten if prefer == "size" else content, prefer)
            packed, taken_apart = disarm(packed)
            name = f"{setting}-sparse" if prefer == "size" else f"{setting}-fast-{prefer}"
            if tensors and not would_crash(packed):
                notes = tuple(
                    f"No sparse convolutions on ARM, where they would go wrong: {why}."
                    for why in taken_apart
                )
                found.setdefault(
                    packed, Candidate(name, kind, packed, tuple(tensors), same_as, notes)
                )
    return list(found.values())
