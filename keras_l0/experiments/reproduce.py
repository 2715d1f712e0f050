"""The paper's experiments, made again: ``keras-l0 reproduce``."""

import json
import os
from collections import Counter
from collections.abc import Sequence
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
from keras_l0.experiments.records import Cell, Values, run_cells, write
from keras_l0.experiments.structural import TABLE_7
from keras_l0.experiments.study import Study, name_of
from keras_l0.experiments.tables import TABLE_2, TABLE_3, TABLE_3_FURTHER
from keras_l0.files import check_folder, write_bytes, write_text
from keras_l0.report.plots import require_matplotlib, save_figure

STUDIES: dict[str, Study] = {
    "figure1": FIGURE_1,
    "figure2": FIGURE_2,
    "table1": TABLE_1,
    "experiment1": EXPERIMENT_1,
    "table2": TABLE_2,
    "table3": TABLE_3,
    "table3_further": TABLE_3_FURTHER,
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
    ``WHAT_quick``. They are written after each run, from the seeds that every row has by then, and
    a run that the JSON has is not made again; one whose settings have changed since goes to
    ``WHAT_old.json``.
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
    cells = study.cells(quick)

    def keep(done: list[Values]) -> str:
        whole = _of_whole_seeds(done, cells)
        follows = study.conclude(whole) if whole else {"exported": _exported(path)}
        values: Values = {"title": study.title, **follows, "cells": done}
        if study.folder and whole:
            _publish(values.get("exported"), whole, path, networks)
        write(path, name, values)
        if not whole:
            return ""
        text = _page(study, values, len(cells))
        write_text(path.with_suffix(".md"), text + "\n")
        save_figure(study.draw(values), path.with_suffix(".png"))
        return text

    return keep(run_cells(cells, run, path, name, workers, keep=keep))


def _of_whole_seeds(done: Sequence[Values], cells: Sequence[Cell]) -> list[Values]:
    """The runs of the seeds that every row has: rows of other seeds could not be compared."""
    missing = Counter(cell.seed for cell in cells)
    missing.subtract(one["seed"] for one in done)
    return [one for one in done if not missing[one["seed"]]]


def _exported(path: Path) -> str | None:
    """The row whose files are published by now."""
    return json.loads(path.read_text()).get("exported") if path.exists() else None


def _publish(row: str | None, done: Sequence[Values], path: Path, networks: Path) -> None:
    """Puts the files of this row's runs beside the results, instead of another row's."""
    if row != _exported(path):
        for older in path.parent.glob(f"{path.stem}_seed*.tflite"):
            older.unlink()
    for cell in done:
        made = networks / f"{name_of(cell)}.tflite"
        if cell["row"] == row and made.exists():
            published = path.with_name(f"{path.stem}_seed{cell['seed']}.tflite")
            write_bytes(published, made.read_bytes())


def _page(study: Study, values: Values, runs: int) -> str:
    checks = [
        f"- {'Holds' if holds else 'Does not hold'}: {claim}."
        for claim, holds in values.get("checks", {}).items()
    ]
    done = len(values["cells"])
    so_far = f"{done} of {runs} runs are done; this is of the seeds that every row has."
    parts = [f"# {study.title}", study.report(values), "\n".join(checks)]
    return "\n\n".join([*parts, *([so_far] if done < runs else [])]).strip()
