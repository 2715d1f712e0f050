"""Result files: cell by cell, resumed, and never lost."""

import json
from pathlib import Path
from typing import Any

import keras
import pytest
from strategies import invalid

from keras_l0.experiments import records
from keras_l0.experiments.records import Cell, read, read_points, run_cells

CELLS = [Cell("a", 0, {"rate": 0.1}), Cell("a", 1, {"rate": 0.1}), Cell("b", 0)]


def double(cell: Cell) -> dict[str, Any]:
    """The figures of a cell."""
    return {"double": 2 * cell.seed}


def silent(_: str) -> None:
    """Says nothing."""


def test_each_cell_is_written_as_it_is_done_and_not_made_again(tmp_path: Path) -> None:
    path, made = tmp_path / "x.json", []

    def run(cell: Cell) -> dict[str, Any]:
        made.append(cell)
        if len(made) == 3:
            raise KeyboardInterrupt
        return double(cell)

    with pytest.raises(KeyboardInterrupt):
        run_cells(CELLS, run, path, "x", tell=silent)
    assert [one["row"] for one in read(path, "x")] == ["a", "a"]
    done = run_cells(CELLS, run, path, "x", tell=silent)
    assert made == [*CELLS, CELLS[2]]
    assert [one["result"] for one in done] == [{"double": 0}, {"double": 2}, {"double": 0}]
    assert done == json.loads(path.read_text())["cells"]
    assert all(one["seconds"] >= 0 and "keras" in one["versions"] for one in done)
    assert all(one["backend"] == keras.backend.backend() and one["device"] for one in done)


def test_a_cell_of_other_settings_is_made_again_and_the_old_one_kept_aside(tmp_path: Path) -> None:
    run_cells(CELLS, double, tmp_path / "x.json", "x", tell=silent)
    changed = [Cell("a", 0, {"rate": 0.2}), CELLS[1]]
    done = run_cells(changed, double, tmp_path / "x.json", "x", tell=silent)
    assert [one["settings"] for one in done] == [{"rate": 0.2}, {"rate": 0.1}]
    assert read(tmp_path / "x.json", "x") == done
    old = read(tmp_path / "x_old.json", "x")
    assert [(one["row"], one["settings"]) for one in old] == [("a", {"rate": 0.1}), ("b", {})]
    run_cells(CELLS, double, tmp_path / "x.json", "x", tell=silent)
    assert len(read(tmp_path / "x_old.json", "x")) == 3


def test_what_another_process_has_written_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.json"

    def run(cell: Cell) -> dict[str, Any]:
        if cell == CELLS[0]:
            run_cells(CELLS[1:], double, tmp_path / "other.json", "x", tell=silent)
            path.write_bytes((tmp_path / "other.json").read_bytes())
        return double(cell)

    assert len(run_cells(CELLS, run, path, "x", tell=silent)) == 3


def fails(cell: Cell) -> dict[str, Any]:
    """The figures of all cells but the first."""
    if cell == CELLS[0]:
        raise ValueError("no network")
    return double(cell)


def test_a_cell_that_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no network"):
        run_cells(CELLS, fails, tmp_path / "x.json", "x", workers=2, tell=silent)
    assert [one["seed"] for one in read(tmp_path / "x.json", "x")] == [1, 0]


def test_workers_find_what_one_process_does(tmp_path: Path) -> None:
    told: list[str] = []
    done = run_cells(CELLS, double, tmp_path / "x.json", "x", workers=2, tell=told.append)
    alone = run_cells(CELLS, double, tmp_path / "y.json", "y", tell=silent)
    assert [(one["row"], one["seed"], one["result"]) for one in done] == [
        (one["row"], one["seed"], one["result"]) for one in alone
    ]
    assert len(told) == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": 1}',
        '{"format": 0, "what": "x", "cells": []}',
        '{"format": 1, "what": "y", "cells": []}',
    ],
)
def test_a_file_that_is_another_is_refused_and_left_as_it_is(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"Expected a folder whose x.json is a result of x in "):
        run_cells(CELLS, double, path, "x", tell=silent)
    assert path.read_text() == text


def test_no_file_has_no_cells(tmp_path: Path) -> None:
    assert read(tmp_path / "x.json", "x") == []
    assert records.FORMAT == 1


@pytest.mark.parametrize("none", [[], {}])
def test_points_are_read_as_they_were_kept_and_none_without_a_file(
    tmp_path: Path, none: Any
) -> None:
    path = tmp_path / "points.json"
    assert read_points(path, none) == none
    whole = [1.5] if isinstance(none, list) else {"NP": [1.5]}
    path.write_text(json.dumps(whole))
    assert read_points(path, none) == whole
    for damaged in ("", "[1.5", "\\0", "null", "1", "[" * 100_000):
        path.write_text(damaged)
        told = "a folder whose points.json is whole", repr(str(tmp_path))
        advice = "Remove that file: its points are made again"
        with pytest.raises(ValueError, match=invalid("out", *told, advice)):
            read_points(path, none)
        assert path.read_text() == damaged
