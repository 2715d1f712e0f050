"""The paper's experiments, made again: ``keras-l0 reproduce``."""

import os

from keras_l0.errors import invalid_argument, whole_at_least
from keras_l0.experiments.attraction import FIGURE_1, FIGURE_2, TABLE_1
from keras_l0.experiments.records import Values, run_cells, write
from keras_l0.experiments.study import Study
from keras_l0.experiments.tables import TABLE_2
from keras_l0.files import check_folder, write_text
from keras_l0.report.plots import require_matplotlib, save_figure

STUDIES: dict[str, Study] = {
    "figure1": FIGURE_1,
    "figure2": FIGURE_2,
    "table1": TABLE_1,
    "table2": TABLE_2,
}


def reproduce(
    what: str, out: str | os.PathLike[str], *, quick: bool = False, workers: int = 1
) -> str:
    """Makes one of the paper's experiments again, and writes what came of it.

    ``OUT/WHAT.json`` has every run with its settings, seed, versions and duration, and what
    follows from them; ``WHAT.md`` the table, ``WHAT.png`` the plot. A quick one's are called
    ``WHAT_quick``. The JSON is written after each run, and a run that it has is not made again.

    Args:
        what: a name of ``STUDIES``.
        out: the folder, made where it is missing.
        quick: whether few epochs will do.
        workers: processes that train side by side, ≥ 1.

    Returns:
        The table, and for each of the paper's claims whether it holds, as Markdown.

    Raises:
        ValueError: if there is no such experiment, an argument is out of its range, or a file
            there is another experiment's or of another version.
        ImportError: if matplotlib is missing.
    """
    if what not in STUDIES:
        raise invalid_argument("what", f"one of {', '.join(STUDIES)}", what)
    whole_at_least("workers", workers, 1)
    require_matplotlib()
    study, name = STUDIES[what], f"{what}_quick" if quick else what
    path = check_folder(out, "out") / f"{name}.json"
    cells = run_cells(study.cells(quick), study.run, path, name, workers)
    values: Values = {"title": study.title, **study.conclude(cells), "cells": cells}
    write(path, name, values)
    text = _page(study, values)
    write_text(path.with_suffix(".md"), text + "\n")
    save_figure(study.draw(values), path.with_suffix(".png"))
    return text


def _page(study: Study, values: Values) -> str:
    checks = [
        f"- {'Holds' if holds else 'Does not hold'}: {claim}."
        for claim, holds in values.get("checks", {}).items()
    ]
    return "\n\n".join([f"# {study.title}", study.report(values), "\n".join(checks)]).strip()
