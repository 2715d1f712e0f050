"""What the benchmarks share: rows that are kept whole, tables that can be pointed at, peers."""

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import page
import page_plots
import peers
import pytest
import records
from tables import from_text, step_ratios, table

README = Path(__file__).parents[1] / "README.md"
PAGE = Path(__file__).parents[1] / "benchmarks/README.md"
LINK = re.compile(r"\[([^\]]*)\]\(benchmarks/README\.md#([^)]*)\)")
MADE = {"day": "2026-11-27", "processor": "Some, 2 cores", "versions": {"keras": "3"}}


def test_a_row_takes_the_place_of_the_one_that_it_measures_again(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for name, value in (("a", 1), ("b", 2), ("a", 3)):
        records.update(path, ("name",), {"name": name, "value": value}, peer="1.0")
    rows = records.earlier(path)
    assert [(row["name"], row["value"]) for row in rows] == [("a", 3), ("b", 2)]
    assert all(row["versions"]["peer"] == "1.0" and row["day"] and row["processor"] for row in rows)


def test_an_update_that_is_broken_off_leaves_the_former_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    records.update(path, ("name",), {"name": "a"})
    before = path.read_bytes()

    def broken(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(KeyboardInterrupt):
        records.update(path, ("name",), {"name": "b"})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_peer_is_skipped_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "PYTHON", tmp_path / "none")
    assert peers.versions() == {}
    assert capsys.readouterr().out == "tfmot is skipped: `make peers` installs it.\n"


def test_rows_have_ids_of_small_letters() -> None:
    (row,) = table("t", ["a", "b"], [("LeNet, 90 %", ["x", "1"])]).splitlines()[2:]
    assert row == '| <a id="t-lenet-90"></a>x | 1 |'


def test_tables_of_a_text_are_numbered_through() -> None:
    boxes = "┌───┐\n│ a │\n├───┤\n│ 1 │\n│ 2 │\n└───┘\nwords\n"
    lines = "| b | c |\n|---|---:|\n| 3 | 4 |\n"
    rows = [line for line in from_text("t", boxes + lines).splitlines() if "id=" in line]
    assert rows == [
        '| <a id="t-1"></a>1 |',
        '| <a id="t-2"></a>2 |',
        '| <a id="t-3"></a>3 | 4 |',
    ]


def test_a_step_is_held_against_l2_on_its_own_keras_turn_by_turn() -> None:
    seconds = {
        "l2 jax": [[1.0, 2.0, 9.0], [4.0]],
        "l2l0-held jax": [[3.0], [4.0, 4.0, 1.0]],
        "tf_keras-l2": [[5.0], [5.0]],
        "tfmot": [[10.0], [5.0]],
        "plain tensorflow": [[1.0], [1.0]],
    }
    assert step_ratios({"seconds": seconds}) == {
        "l2 jax": [1.0, 1.0],
        "l2l0-held jax": [1.5, 1.0],
        "tf_keras-l2": [1.0, 1.0],
        "tfmot": [2.0, 1.0],
    }


def results(folder: Path) -> None:
    """A result file for each part of the page."""
    cell = {"network": "net", "seed": 0, "reached": 0.9, "accuracy": 0.98, **MADE}
    methods = [("l2-l0", 0.9), ("l2", 0.9), ("tfmot", 0.9), ("hard-concrete", 1e-5)]
    used = {"traces": 1, "retraces": 0, "peak_mib": 100.0}
    step = {"l2 jax": [[1.0]], "l2l0 jax": [[1.0]], "tf_keras-l2": [[1.0]], "tfmot": [[2.0]]}
    prune = {"dtype": "float32", "backend": "jax", "peak_mib": 9.0, **MADE}
    start = {name: [1.0, 2.0] for name in ("import keras", "import keras_l0", "keras-l0 --help")}
    found: dict[str, Any] = {
        "accuracy": [{**cell, "method": name, "asked": asked} for name, asked in methods],
        "step_cost": [
            {"network": "net", "seconds": step, "used": dict.fromkeys(step, used), **MADE}
        ],
        "pruning_cost": [
            {
                **prune,
                "size": size,
                "weights": size,
                "seconds": {"copy": [size / 4], "obvious": [size / 1.0], "global": [size / 2]},
                "extra_mib": {"copy": [1.0], "obvious": [4.0], "global": [1.0]},
            }
            for size in (1000, 10_000)
        ],
        "start_up": [{"backend": "jax", "seconds": {**start, "added": [0.1, 0.1]}, **MADE}],
        "export_time": [
            {
                "network": "net",
                "parameters": 9,
                "stock_seconds": [1.0],
                "export_seconds": [3.0],
                "stock_bytes": 10,
                "export_bytes": 5,
                **MADE,
            }
        ],
    }
    for name, rows in found.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))


def test_the_page_has_every_part_and_no_id_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    results(tmp_path)
    for name in ("export.json", *(f"{name}.*[mt][dx]*" for name in page.TEXTS)):
        for path in page.RESULTS.glob(name):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    monkeypatch.setattr(page_plots, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "PAGE", tmp_path / "README.md")
    page.main()
    text = (tmp_path / "README.md").read_text()
    ids = re.findall(r'id="([^"]*)"', text)
    assert len(ids) == len(set(ids)) > 300
    assert {"accuracy-net-0.9", "step-net-tfmot", "start-keras-l0-help-jax"} <= set(ids)
    assert '<a id="step-net-tfmot"></a>net, tfmot | tf_keras | 2.00 |' in text
    assert "to the power of 1.000 " in text
    for name in re.findall(r"\(results/(.*?)\)", text):
        assert (tmp_path / name).stat().st_size > 1000


def test_the_committed_page_is_made_of_the_committed_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    monkeypatch.setattr(page, "PAGE", tmp_path / "README.md")
    monkeypatch.setattr(page_plots, "save_figure", lambda *_: None)
    page.main()
    assert (tmp_path / "README.md").read_text() == PAGE.read_text()


def numbers(text: str) -> list[Decimal]:
    return [Decimal(found.replace(",", "")) for found in re.findall(r"[\d.,]*\d", text)]


def rounded(claim: Decimal, figure: Decimal) -> bool:
    """Whether a claim is a figure, or a figure with fewer digits; a half goes either way."""
    last = Decimal((0, (1,), claim.as_tuple().exponent))
    return abs(claim - figure) <= last / 2


@pytest.mark.parametrize(
    ("claim", "figure", "same"),
    [
        ("0.73", "0.731", True),
        ("0.718", "0.7185", True),
        ("0.719", "0.7185", True),
        ("0.72", "0.731", False),
        ("49", "48.5", True),
        ("12,400", "12401", False),
    ],
)
def test_a_claim_may_be_rounded_and_nothing_else(claim: str, figure: str, same: bool) -> None:
    assert rounded(*numbers(claim), *numbers(figure)) == same


def test_what_the_readme_claims_stands_in_the_row_that_it_points_at() -> None:
    links = LINK.findall(README.read_text())
    rows = {
        m[1]: line for line in PAGE.read_text().splitlines() if (m := re.search('id="(.*?)"', line))
    }
    assert links
    for text, name in links:
        assert name in rows, name
        figures = numbers(re.sub("<a .*?>", "", rows[name]))
        (claim,) = numbers(text)
        assert any(rounded(claim, figure) for figure in figures), (text, rows[name])


def test_gates_are_drawn_in_training_and_fixed_afterwards() -> None:
    from hard_concrete import GatedDense

    layer = GatedDense(3, strength=0.5)
    x = np.ones((2, 4), np.float32)
    one, other = (keras.ops.convert_to_numpy(layer(x, training=True)) for _ in range(2))
    assert not np.array_equal(one, other)
    one, other = (keras.ops.convert_to_numpy(layer(x, training=False)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(one, x @ layer.folded(), rtol=1e-6)
    layer.slow_log_alpha.assign(np.full((4, 3), -2.0))
    assert not layer.folded().any()
    layer(x, training=False)
    assert keras.ops.convert_to_numpy(sum(layer.losses)) < 1e-6
    layer.slow_log_alpha.assign(np.full((4, 3), 2.0))
    layer(x, training=False)
    penalty = keras.ops.convert_to_numpy(sum(layer.losses))
    np.testing.assert_allclose(penalty, 0.5 * 12, rtol=1e-6)
