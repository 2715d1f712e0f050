"""A summary as text."""

import math
from typing import TYPE_CHECKING

from rich import box, filesize
from rich.table import Table

from keras_l0.text import by_reason, plain

if TYPE_CHECKING:
    from keras_l0.report.summary import Summary


def as_text(summary: "Summary") -> str:
    """A table of the weights, the totals, and what is not pruned by default."""
    lines = [f"  {line}" for line in by_reason(summary.skipped)]
    rest = ["Not pruned by default:", *lines] if lines else []
    return plain(_weight_table(summary), _totals_table(summary), *rest)


def _count(figure: int | None) -> str:
    return "unknown" if figure is None else f"{figure:,}"


def _weight_table(summary: "Summary") -> Table:
    table = Table(title=f"{summary.name}: prunable weights", title_justify="left", box=box.SIMPLE)
    table.add_column("weight")
    for column in ("shape", "dtype"):
        table.add_column(column)
    for column in (
        "weights",
        "zeros",
        "sparsity",
        "compression",
        "dense",
        "entropy bound",
        "multiply-adds",
        "non-zero",
    ):
        table.add_column(column, justify="right")
    for row in summary.weights:
        # The title has the model's name already.
        path = row.path.removeprefix(f"{summary.name}/")
        table.add_row(
            f"{path} (frozen)" if row.frozen else path,
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
        )
    return table


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
