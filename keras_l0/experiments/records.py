"""Result files of experiments: written cell by cell, so that a run goes on where it stopped."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import keras

from keras_l0.errors import invalid_argument
from keras_l0.files import write_text
from keras_l0.versions import versions
from keras_l0.workers import worker_pool

FORMAT = 1
"""Of the result files. A file of another one is refused, and left as it is."""

Values = dict[str, Any]
Points = TypeVar("Points", list[Any], dict[str, Any])


@dataclass(frozen=True)
class Cell:
    """One run of an experiment: a row of its table, with one seed.

    Args:
        row: what the row is called.
        seed: of the run.
        settings: all else that decides it, plain values.
    """

    row: str
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Values:
        """What it is told from others by, as a result file has it."""
        return {
            "row": self.row,
            "seed": self.seed,
            "settings": json.loads(json.dumps(dict(self.settings))),
        }


def read(path: Path, what: str) -> list[Values]:
    """The cells of a result file, none if there is no file.

    Raises:
        ValueError: if it is no result file of this format and experiment.
    """
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_text())
        known = (found["format"], found["what"]) == (FORMAT, what)
        cells = found["cells"] if known else []
        known = known and isinstance(cells, list) and all(map(_is_cell, cells))
    except (ValueError, KeyError, TypeError, RecursionError):
        known = False
    if not known:
        raise invalid_argument(
            "out",
            f"a folder whose {path.name} is a result of {what} in format {FORMAT}",
            str(path.parent),
            "Move that file away, or name another folder",
        )
    return cells


def read_points(path: Path, none: Points) -> Points:
    """What a run kept of its points, or ``none`` where there is no file.

    Raises:
        ValueError: if the file is damaged.
    """
    if not path.exists():
        return none
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, type(none)):
        raise invalid_argument(
            "out",
            f"a folder whose {path.name} is whole",
            str(path.parent),
            "Remove that file: its points are made again",
        )
    return found


def run_cells(
    cells: Sequence[Cell],
    run: Callable[[Cell], Values],
    path: Path,
    what: str,
    workers: int = 1,
    tell: Callable[[str], None] = print,
    keep: Callable[[list[Values]], object] | None = None,
) -> list[Values]:
    """Runs the cells that the file does not have, and writes it after each.

    Another process may do so at the same time: what it has written meanwhile stays. What the file
    has beside these cells, of other settings, goes to ``WHAT_old.json``.

    Args:
        cells: all of the experiment.
        run: from a cell to its figures, plain values; a function of a module, if there are
            several workers.
        path: the result file.
        what: the experiment's name.
        workers: processes that run cells side by side, each on its share of the processors.
        tell: shows a line for each cell that is done.
        keep: writes the file, from the cells that are done: with what follows from them, say.

    Returns:
        For each cell, in order, its key, ``result``, ``seconds``, ``backend``, ``device`` and
        ``versions``.

    Raises:
        ValueError: if the file is not this experiment's.
        RuntimeError: if a worker's process died.
        Exception: the first that a cell raised; with several workers, after all others.
    """
    keys = [cell.key for cell in cells]
    keep = keep or (lambda found: write(path, what, {"cells": found}))

    def in_order(found: list[Values]) -> list[Values]:
        return sorted(found, key=lambda one: keys.index(_key(one)))

    def done() -> list[Values]:
        return in_order([one for one in read(path, what) if _key(one) in keys])

    def add(cell: Cell, figures: Values) -> None:
        others = [one for one in done() if _key(one) != cell.key]
        found = in_order([*others, {**cell.key, **figures}])
        keep(found)
        tell(f"{what}: {cell.row}, seed {cell.seed}: {figures['seconds']:.0f} s")

    _set_aside([one for one in read(path, what) if _key(one) not in keys], path, what)
    there = [_key(one) for one in done()]
    missing = [cell for cell in cells if cell.key not in there]
    if workers == 1 or len(missing) < 2:
        for cell in missing:
            add(cell, _timed(run, cell))
        return done()
    with worker_pool(min(workers, len(missing))) as pool:
        futures: dict[Future[Values], Cell] = {
            pool.submit(_timed, run, cell): cell for cell in missing
        }
        failed: list[Exception] = []
        try:
            for future in as_completed(futures):
                try:
                    figures = future.result()
                except BrokenProcessPool as error:
                    raise RuntimeError(
                        f"A worker of {what} died, of too little memory perhaps. "
                        "What was done is kept: run it again, with fewer workers."
                    ) from error
                except Exception as error:  # one cell's, which takes no other with it
                    failed.append(error)
                else:
                    add(futures[future], figures)
        finally:
            pool.shutdown(cancel_futures=True)
    if failed:
        raise failed[0]
    return done()


def _set_aside(strange: list[Values], path: Path, what: str) -> None:
    """Keeps cells that are to leave a result file, since a recipe has changed, in one beside it."""
    if strange:
        old = path.with_name(f"{path.stem}_old.json")
        there = read(old, what)
        write(old, what, {"cells": [*there, *(one for one in strange if one not in there)]})


def write(path: Path, what: str, values: Values) -> None:
    """Writes a result file, whole or not at all."""
    write_text(path, json.dumps({"format": FORMAT, "what": what, **values}, indent=1) + "\n")


def _is_cell(one: Any) -> bool:
    return isinstance(one, dict) and {*Cell("").key, "result"} <= one.keys()


def _key(found: Mapping[str, Any]) -> Values:
    return {name: found.get(name) for name in ("row", "seed", "settings")}


def _timed(run: Callable[[Cell], Values], cell: Cell) -> Values:
    began = time.perf_counter()
    result = run(cell)
    return {
        "result": result,
        "seconds": time.perf_counter() - began,
        "backend": keras.backend.backend(),
        "device": str(keras.ops.zeros(1).device),
        "versions": versions(),
    }
