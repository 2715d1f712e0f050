"""The paper's experiments made again: files, claims, and what is wrong told."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keras_l0 import cli
from keras_l0.experiments.ablation import ABLATION
from keras_l0.experiments.records import Cell, Values, read
from keras_l0.experiments.reproduce import STUDIES, reproduce
from keras_l0.experiments.study import name_of
from keras_l0.experiments.tables import TABLE_2
from keras_l0.experiments.training import NETWORKS

pytest.importorskip("matplotlib")


@pytest.mark.parametrize("what", ["figure1", "figure2", "table1"])
def test_a_file_a_table_and_a_plot_are_written_and_the_claims_hold(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["reproduce", what, "--quick", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / f"{what}_quick.json").read_text())
    assert written["what"] == f"{what}_quick"
    assert written["checks"]
    assert all(written["checks"].values())
    page = (tmp_path / f"{what}_quick.md").read_text()
    assert page.startswith(f"# {STUDIES[what].title}\n\n|")
    assert page.count("- Holds: ") == len(written["checks"])
    assert page in capsys.readouterr().out
    assert (tmp_path / f"{what}_quick.png").read_bytes().startswith(b"\x89PNG")


def test_the_curves_of_figure_1_begin_alike(tmp_path: Path) -> None:
    reproduce("figure1", tmp_path, quick=True)
    cells = json.loads((tmp_path / "figure1_quick.json").read_text())["cells"]
    steps = [one["result"]["steps"][1] for one in cells]
    falls = [1 - one["result"]["w"][1] for one in cells]
    assert len(set(steps)) == 1
    np.testing.assert_allclose(falls, falls[1], rtol=0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["figure10"], "argument WHAT: invalid choice: 'figure10' (choose from"),
        (["figure1", "--workers", "0"], "Expected an integer >= 1"),
    ],
)
def test_what_is_wrong_is_told(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = cli.main(["reproduce", *arguments, "--out", str(tmp_path)])
    except SystemExit as stop:  # of a usage error
        status = int(stop.code or 0)
    assert status == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_result_of_another_version_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "figure1.json").write_text('{"format": 0}')
    assert cli.main(["reproduce", "figure1", "--out", str(tmp_path)]) == 2
    assert "in format 1" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["figure1.json"]
    assert (tmp_path / "figure1.json").read_text() == '{"format": 0}'


CELLS = [Cell(row, seed) for seed in (0, 1) for row in ("first", "second")]


def test_what_follows_is_written_after_each_run_from_whole_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Cell] = []

    def run(cell: Cell) -> Values:
        made.append(cell)
        if len(made) == 4:
            raise KeyboardInterrupt
        return {"error": 2.0 + cell.seed, "compression": 9.0, "weight_compression": 10.0}

    monkeypatch.setitem(STUDIES, "ablation", replace(ABLATION, cells=lambda _: CELLS, run=run))
    with pytest.raises(KeyboardInterrupt):
        reproduce("ablation", tmp_path)
    path = tmp_path / "ablation.json"
    assert len(read(path, "ablation")) == 3
    assert [row["seeds"] for row in json.loads(path.read_text())["rows"]] == [[0], [0]]
    assert "3 of 4 runs are done" in (tmp_path / "ablation.md").read_text()
    assert (tmp_path / "ablation.png").exists()
    assert "runs are done" not in reproduce("ablation", tmp_path)
    assert [row["seeds"] for row in json.loads(path.read_text())["rows"]] == [[0, 1], [0, 1]]
    assert len(made) == 5


def test_the_files_beside_a_table_are_those_of_the_row_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compressions = {"first": 100.0, "second": 90.0, "without a file": 200.0, "third": 50.0}

    def run(cell: Cell, folder: Path) -> Values:
        if cell.row != "without a file":
            (folder / f"{name_of(cell.key)}.tflite").write_text(f"{cell.row} {cell.seed}")
        compression = compressions[cell.row]
        return {"error": 1.9, "compression": compression, "weight_compression": compression}

    def published(cells: list[Cell]) -> dict[str, str]:
        monkeypatch.setitem(STUDIES, "table2", replace(TABLE_2, cells=lambda _: cells, run=run))
        reproduce("table2", tmp_path)
        return {path.name[7:12]: path.read_text() for path in tmp_path.glob("table2_*.tflite")}

    assert published(CELLS) == {"seed0": "first 0", "seed1": "first 1"}
    assert published([*CELLS, Cell("without a file", 0), Cell("without a file", 1)]) == {}
    files = {"seed0": "first 0", "seed1": "first 1"}
    assert published(CELLS) == files
    shutil.rmtree(tmp_path / "networks")  # as where results are published, and no networks
    with pytest.raises(KeyError, match="broken off"):  # after a run with which no seed is whole
        published(
            [*CELLS, *(Cell(row, seed) for seed in (0, 1) for row in ("third", "broken off"))]
        )
    assert published(CELLS) == files


@pytest.mark.slow
@pytest.mark.parametrize("what", ["table4", "table7", "figure7", "figure8", "figure9"])
def test_what_needs_a_gpu_runs_through_on_few_images_and_a_small_network(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for large in ("vgg_16", "resnet_20", "resnet_50"):  # which compile for minutes
        monkeypatch.setitem(NETWORKS, large, NETWORKS["lenet_5_caffe"])
    rng = np.random.default_rng(0)
    for name, classes in (("cifar10", 10), ("cifar100", 100)):
        images = rng.integers(0, 256, (200, 32, 32, 3), np.uint8)
        labels = np.arange(200) % classes
        arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
        np.savez(tmp_path / f"{name}.npz", **arrays)
    monkeypatch.setenv("KERAS_L0_DATA", str(tmp_path))
    reproduce(what, tmp_path / "out", quick=True)
    written = json.loads((tmp_path / f"out/{what}_quick.json").read_text())
    assert len(written["rows"]) > 3
    assert written["checks"]
    assert (tmp_path / f"out/{what}_quick.png").exists()
