"""A summary as text."""

import math
import textwrap
from typing import TYPE_CHECKING

from rich import filesize
from rich.table import Table

from keras_l0.text import by_reason, plain, table

if TYPE_CHECKING:
    from keras_l0.report.summary import Summary


def as_text(summary: "Summary") -> str:
    """A table of the weights, the totals, and what is not pruned by default."""
    lines = [
        textwrap.fill(
            line, 80, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
        )
        for line in by_reason(summary.skipped)
    ]
    rest = ["Not pruned by default:", *lines] if lines else []
    return "\n".join([_weight_table(summary), plain(_totals_table(summary), *rest)])


def _count(figure: int | None) -> str:
    return "unknown" if figure is None else f"{figure:,}"


def _weight_table(summary: "Summary") -> str:
    header = "weight shape dtype weights zeros sparsity compression dense".split()
    header += ["entropy bound", "multiply-adds", "non-zero"]
    rows = [
        [
            # The title has the model's name already.
            row.path.removeprefix(f"{summary.name}/") + " (frozen)" * row.frozen,
            "×".join(map(str, row.shape)),
            row.dtype,
            f"{row.weights:,}",
            f"{row.zeros:,}",
            f"{row.sparsity:.2%}",
            f"{row.compression:.2f}×",
            filesize.decimal(row.bytes_dense),
            filesize.decimal(math.ceil(row.bytes_entropy_bound)),
            _count(row.flops),
            _count(row.flops_nonzero),
        ]
        for row in summary.weights
    ]
    return table(header, rows, title=f"{summary.name}: prunable weights")


def _totals_table(summary: "Summary") -> Table:
    table = Table(box=None, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, figure in (
        ("parameters", f"{summary.parameters:,}"),
        ("parameters left", f"{summary.left:,}"),
        ("prunable weights", f"{summary.prunable:,}"),
        ("zeros", f"{summary.zeros:,}"),
        ("sparsity (zeros / prunable weights)", f"{summary.sparsity:.2%}"),
        ("compression (all parameters)", f"{summary.compression:.2f}×"),
        ("weight compression (prunable weights)", f"{summary.weight_compression:.2f}×"),
        ("size, dense", filesize.decimal(summary.bytes_dense)),
        (
            "size at the entropy bound",
            filesize.decimal(math.ceil(summary.bytes_entropy_bound)),
        ),
        ("multiply-adds for one sample", _count(summary.flops)),
        ("multiply-adds without zeros", _count(summary.flops_nonzero)),
        ("multiply-adds after shrink", _count(summary.flops_shrunk)),
        ("parameters after shrink", _count(summary.parameters_shrunk)),
    ):
        table.add_row(name, figure)
    return table
