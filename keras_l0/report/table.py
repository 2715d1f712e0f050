"""Tables as text."""

import io
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table


def render(header: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> str:
    """A table in plain text, its first column to the left and the others to the right.

    Example:

    >>> print(render(["layer", "zeros"], [["dense", "3"]]))
    ┌───────┬───────┐
    │ layer │ zeros │
    ├───────┼───────┤
    │ dense │     3 │
    └───────┴───────┘
    """
    table = Table(box=box.SQUARE, title=title, title_justify="left", title_style="")
    for place, name in enumerate(header):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # As wide as it needs to be: a table cut to a terminal's width loses figures.
    console = Console(file=io.StringIO(), width=1000, color_system=None)
    with console.capture() as capture:
        console.print(table, markup=False)
    return capture.get().rstrip("\n")
