"""What the benchmarks share: rows that are kept whole, tables that can be pointed at, peers."""

import itertools
import json
import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import accuracy
import accuracy_worker
import keras
import numpy as np
import page
import page_plots
import peers
import pruning_cost
import pytest
import records
import step_cost
from tables import from_text, step_ratios, table

README = Path(__file__).parents[1] / "README.md"
PAGE = Path(__file__).parents[1] / "benchmarks/README.md"
LINK = re.compile(r'\[([^\]]*)\]\(benchmarks/README\.md#([^) ]*)(?: "([^"]*)")?\)')
"""A claim, the row that it points at, and its column where it is named."""
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
    bare = tmp_path / "bare"  # as a Python where tfmot is not installed
    bare.write_text("#!/bin/sh\nexit 1\n")
    bare.chmod(0o755)
    for python in (tmp_path / "none", bare):
        monkeypatch.setattr(peers, "PYTHON", python)
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
    by = {"images": 9, "batch": 3, "epochs": 4, "begin": 1, "end": 2}
    cell = {"network": "net", "seed": 0, "reached": 0.9, "accuracy": 0.98, "settings": by, **MADE}
    methods = [("l2-l0", 0.9), ("l2", 0.9), ("tfmot", 0.9), ("hard-concrete", 1e-5)]
    used = {"traces": 1, "retraces": 0, "peak_mib": 100.0}
    step = {"l2 jax": [[1.0]], "l2l0-held jax": [[1.0]], "tf_keras-l2": [[1.0]], "tfmot": [[2.0]]}
    prune = {"dtype": "float32", "backend": "jax", "peak_mib": 9.0, **MADE}
    starts = ("import keras", "import keras_l0", "keras-l0 --help", "import keras_l0, added")
    start = {name: [1.0, 2.0] for name in starts}
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
            for size in (1000, 10**7, 10**8)
        ],
        "start_up": [{"backend": "jax", "seconds": start, **MADE}],
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
    file = {"network": "net", "bytes": 9, "gzip_bytes": 8, "zeros": 0.5, "zeros_lost": 3, **MADE}
    found["after_pruning"] = [
        {**file, "kind": "PQAT", "seed": seed, "accuracy": 0.5 + seed / 10} for seed in range(3)
    ]
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
    assert '<a id="step-net-l2l0-held-jax"></a>net, l2l0-held | jax | 1.00 | 0.50 |' in text
    assert '<a id="growth-global"></a>global | 1.000 |' in text
    assert (
        '<a id="after-net-pqat"></a>net, PQAT | 3 | 60.00 ± 10.00 | 9 | 8 | 50.00 ± 0.00 | 9 |'
        in text
    )
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
    rows: dict[str, dict[str, str]] = {}
    head: list[str] = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if found := re.search('id="(.*?)"', line):
            rows[found[1]] = dict(zip(head[1:], cells[1:], strict=True))
        elif cells and not set(line) <= set("|-: "):
            head = cells
    assert links
    for text, name, column in links:
        assert name in rows, name
        cells = [rows[name][column]] if column else list(rows[name].values())
        figures = numbers("|".join(re.sub(r"±.*|\(.*?\)", "", cell) for cell in cells))
        (claim,) = numbers(text)
        assert any(rounded(claim, figure) for figure in figures), (text, rows[name])


@pytest.mark.parametrize(
    ("program", "arguments", "results", "row"),
    [
        (
            step_cost,
            ["--networks", "vgg_9", "--kinds", "l2"],
            "step_cost",
            {"network": "vgg_9", "seconds": {"l2 jax": [[1.0]], "plain jax": [[1.0]]}},
        ),
        (  # where there are no peers
            step_cost,
            ["--networks", "vgg_9"],
            "step_cost",
            {"network": "vgg_9", "seconds": {"l2 jax": [[1.0]], "tfmot": [[1.0]]}},
        ),
        (
            pruning_cost,
            ["--sizes", "1000", "--dtypes", "float32", "--ways", "global"],
            "pruning_cost",
            {"size": 1000, "dtype": "float32", "backend": keras.config.backend()},
        ),
    ],
)
def test_a_part_does_not_take_the_place_of_the_whole(
    program: Any,
    arguments: list[str],
    results: str,
    row: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / f"{results}.json"
    records.keep(out, [row])
    monkeypatch.setattr(sys, "argv", [results, *arguments, "--out", str(out)])
    monkeypatch.setattr(peers, "versions", dict)
    with pytest.raises(SystemExit):
        program.main()
    assert "give another --out" in capsys.readouterr().err
    assert records.earlier(out) == [row]


def test_a_run_elsewhere_leaves_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "PAGE", tmp_path / "README.md")
    page.update(tmp_path / "other.json")
    assert not page.PAGE.exists()


def test_each_epoch_has_its_own_order_the_same_wherever_it_is_trained() -> None:
    pytest.importorskip("tensorflow", reason="the batches are tf.data's")
    x = np.arange(10, dtype=np.float32)[:, None]
    seen: list[float] = []

    class Look(keras.losses.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            seen.extend(keras.ops.convert_to_numpy(y_true).ravel().tolist())
            return (y_true - y_pred) ** 2

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", Look(), run_eagerly=True)
    job = {"seed": 3, "epochs": 3, "steps": 3, "batch": 3}
    data = accuracy_worker.batches(x, 2 * x, job)
    model.fit(data, epochs=3, steps_per_epoch=3, shuffle=False, verbose=0)
    orders = [np.random.default_rng((3, epoch)).permutation(10)[:9] for epoch in range(3)]
    assert seen == (2.0 * np.concatenate(orders)).tolist()


def test_strengths_are_chosen_of_all_tries_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "CHOICE", tmp_path / "choice.json")
    tries = list(accuracy.tries("lenet_300_100", "l2-l0"))
    tries += accuracy.tries("lenet_300_100", "l2")
    rows = [
        {"settings": one, **one, "asked": one["sparsity"], "accuracy": (n % 12) / 10}
        for n, one in enumerate(tries)
    ]
    monkeypatch.setattr(peers, "PYTHON", tmp_path / "none")
    records.keep(accuracy.CHOICE, rows[1:])
    assert not accuracy.is_chosen("lenet_300_100")
    records.keep(accuracy.CHOICE, rows)
    assert accuracy.is_chosen("lenet_300_100")
    monkeypatch.setattr(peers, "PYTHON", Path(sys.executable))  # whose tries are missing
    assert not accuracy.is_chosen("lenet_300_100")
    cell = {"network": "lenet_300_100", "method": "l2-l0", "asked": 0.9, "seed": 1}
    found = accuracy.settings(cell)
    assert (found["l2"], found["l0"]) == (tries[11]["l2"], tries[11]["l0"])

    out = tmp_path / "accuracy.json"
    records.keep(out, [{**cell, "settings": found}, {**cell, "seed": 2, "settings": {}}])
    assert accuracy.is_there(out, cell)
    assert not accuracy.is_there(out, {**cell, "seed": 2})  # was measured by others


def test_each_method_has_as_many_tries() -> None:
    pairs = itertools.product(accuracy.SETUPS, accuracy.METHODS[:-1])
    assert {len(accuracy.strengths(*pair)) for pair in pairs} == {6}


def test_images_of_twice_the_size_are_shown_by_the_means_of_their_pixels() -> None:
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(accuracy.shown(x, (2, 2, 1)).ravel(), [2.5, 4.5, 10.5, 12.5])
    np.testing.assert_array_equal(accuracy.shown(x, (4, 4, 1)), x)
    assert accuracy.shown(x, (16,)).shape == (1, 16)


def test_networks_without_their_data_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(name: str) -> Any:
        raise ValueError(f"no {name}")

    monkeypatch.setattr(accuracy, "load", load)
    assert accuracy.written(["resnet_8_halved"], tmp_path) == {}
    assert capsys.readouterr().out == "resnet_8_halved is skipped: no cifar10\n"


def test_gates_begin_the_same_with_a_seed() -> None:
    job = {"seed": 4, "network": "lenet_300_100", "strength": 1e-5}
    models = [accuracy_worker.gates(job)[1] for _ in range(2)]
    for one, other in zip(*(model.weights for model in models), strict=True):
        np.testing.assert_array_equal(one, other)


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


def test_means_are_of_seeds_that_all_methods_have(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    by = {"images": 9, "batch": 3, "epochs": 4, "begin": 1, "end": 2}
    seeds = {"l2": [0, 1], "l2-l0": [0, 1], "tfmot": [1]}
    rows = [
        {"network": "net", "method": method, "asked": 0.9, "seed": seed, "settings": by}
        | {"accuracy": 0.5 + seed / 10, "reached": 0.9}
        for method, of in seeds.items()
        for seed in of
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_plots, "RESULTS", tmp_path)
        table, *_ = page.accuracy(rows)
    assert "| 1 | 60.00 | 60.00 |  | 60.00 |" in table


def test_a_cell_by_other_layers_than_ours_ended_with_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "settings", lambda cell: {"method": cell["method"]})
    out = tmp_path / "accuracy.json"
    cell = {"network": "net", "asked": 0.9, "seed": 0}
    for method, layers in (("l2-l0", [0.9, 0.5]), ("tfmot-layers", [0.901, 0.5])):
        row = {**cell, "method": method, "settings": {"method": method}, "layers": layers}
        records.update(out, accuracy.CELL, row)
    theirs = {**cell, "method": "tfmot-layers"}
    assert accuracy.is_there(out, theirs)
    again = {**cell, "method": "l2-l0", "settings": {"method": "l2-l0"}, "layers": [0.8, 0.6]}
    records.update(out, accuracy.CELL, again)
    assert not accuracy.is_there(out, theirs)


def test_a_cell_drops_those_that_it_cannot_be_held_against() -> None:
    one = accuracy.job("lenet_300_100", "l2", 0.9, 0, l2=1e-4, l0=0.0, beta=10.0)

    def agree(**other: Any) -> bool:
        old = {"network": one["network"], "method": "l2", "asked": 0.9, **other}
        new = {"network": one["network"], "method": "l2", "asked": 0.9, "settings": one}
        return accuracy.agree({"settings": {**one, **other}, **old}, new)

    assert agree(seed=1)
    assert agree(asked=0.5, l2=1e-5)
    assert agree(method="tfmot", l2=1e-5)
    assert agree(network="lenet_5_caffe", epochs=3)
    assert not agree(l2=1e-5)
    assert not agree(method="tfmot", epochs=3)
