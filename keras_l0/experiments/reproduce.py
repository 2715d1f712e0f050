"""The paper's experiments, made again: ``keras-l0 reproduce``."""

import os
from functools import partial
from pathlib import Path

from keras_l0.errors import invalid_argument, whole_at_least
from keras_l0.experiments.ablation import ABLATION
from keras_l0.experiments.attraction import FIGURE_1, FIGURE_2, TABLE_1
from keras_l0.experiments.figures import (
    FIGURE_5,
    FIGURE_6,
    FIGURE_7,
    FIGURE_7_SMALL,
    FIGURE_8,
    FIGURE_8_SMALL,
    FIGURE_9,
    FIGURE_9_SMALL,
    TABLE_4,
)
from keras_l0.experiments.norms import EXPERIMENT_1
from keras_l0.experiments.records import Values, run_cells, write
from keras_l0.experiments.structural import TABLE_7
from keras_l0.experiments.study import Study, name_of
from keras_l0.experiments.tables import TABLE_2, TABLE_3
from keras_l0.files import check_folder, write_bytes, write_text
from keras_l0.report.plots import require_matplotlib, save_figure

STUDIES: dict[str, Study] = {
    "figure1": FIGURE_1,
    "figure2": FIGURE_2,
    "table1": TABLE_1,
    "experiment1": EXPERIMENT_1,
    "table2": TABLE_2,
    "table3": TABLE_3,
    "table4": TABLE_4,
    "table5": FIGURE_7,
    "table6": FIGURE_8,
    "table7": TABLE_7,
    "figure5": FIGURE_5,
    "figure6": FIGURE_6,
    "figure7": FIGURE_7,
    "figure8": FIGURE_8,
    "figure9": FIGURE_9,
    "ablation": ABLATION,
    "figure7_small": FIGURE_7_SMALL,
    "figure8_small": FIGURE_8_SMALL,
    "figure9_small": FIGURE_9_SMALL,
}


def reproduce(
    what: str, out: str | os.PathLike[str], *, quick: bool = False, workers: int = 1
) -> str:
    """Makes one of the paper's experiments again, and writes what came of it.

    ``OUT/WHAT.json`` has every run with its settings, seed, versions and duration, and what
    follows from them; ``WHAT.md`` the table, ``WHAT.png`` the plot. A quick one's are called
    ``WHAT_quick``. The JSON is written after each run, and a run that it has is not made again.
    ``OUT/networks/`` has what runs keep on the way: trained weights, and of the tables 2 and 3 a
    ``.tflite`` file of each network that is to reach a target. ``WHAT_seed0.tflite`` … are those
    of the most compressed row that reaches the first one.

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
    networks = path.with_name("networks")
    run = partial(study.run, folder=check_folder(networks, "out")) if study.folder else study.run
    cells = run_cells(study.cells(quick), run, path, name, workers)
    values: Values = {"title": study.title, **study.conclude(cells), "cells": cells}
    write(path, name, values)
    for cell in cells if study.folder else ():
        _publish(cell, values.get("exported"), networks, path.with_suffix(""))
    text = _page(study, values)
    write_text(path.with_suffix(".md"), text + "\n")
    save_figure(study.draw(values), path.with_suffix(".png"))
    return text


def _publish(cell: Values, row: str | None, networks: Path, results: Path) -> None:
    """Puts the file of a run of this row beside the results, in the place of an older one."""
    published = results.with_name(f"{results.name}_seed{cell['seed']}.tflite")
    made = networks / f"{name_of(cell)}.tflite"
    if cell["row"] == row and made.exists():
        write_bytes(published, made.read_bytes())
    elif row is None:
        published.unlink(missing_ok=True)


def _page(study: Study, values: Values) -> str:
    checks = [
        f"- {'Holds' if holds else 'Does not hold'}: {claim}."
        for claim, holds in values.get("checks", {}).items()
    ]
    return "\n\n".join([f"# {study.title}", study.report(values), "\n".join(checks)]).strip()
