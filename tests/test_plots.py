"""Plots show what they were given, on plain ticks, without pyplot."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_l0.report.plots import plot_tradeoff, save_figure

pytest.importorskip("matplotlib", reason="plots need matplotlib (keras_l0[plot])")

from matplotlib.figure import Figure

POINTS = [(10.0, 0.97), (1.0, 0.98), (50.0, 0.9)]


def ticks(ax: Any) -> list[str]:
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    labels = ax.get_xticklabels()
    return [label.get_text() for label in labels if low <= label.get_position()[0] <= high]


def test_the_curve_runs_through_the_points_in_order_of_compression() -> None:
    ax = plot_tradeoff(POINTS, metric="accuracy")
    (line,) = ax.lines
    assert line.get_xydata().tolist() == [[1.0, 0.98], [10.0, 0.97], [50.0, 0.9]]
    assert ax.get_xscale() == "log"
    assert ax.get_ylabel() == "accuracy"
    assert ax.get_xlabel() == "compression (all parameters / parameters left)"
    assert ax.get_legend() is None


def test_ticks_are_plain_numbers() -> None:
    assert ticks(plot_tradeoff(POINTS, metric="accuracy")) == ["1", "2", "5", "10", "20", "50"]


def test_close_compressions_have_ticks_between_them() -> None:
    ax = plot_tradeoff([(1, 0.9), (1.5, 0.8), (3.8, 0.7)], metric="accuracy")
    assert ticks(ax) == ["1", "1.5", "2", "2.5", "3", "3.5", "4"]


def test_one_point_has_a_tick() -> None:
    assert "10" in ticks(plot_tradeoff([(10, 0.9)], metric="accuracy"))


def test_calls_on_one_axes_add_curves_of_different_colors() -> None:
    ax = plot_tradeoff(POINTS, metric="accuracy", label="global", baseline=0.98)
    assert plot_tradeoff(POINTS, metric="accuracy", label="random", ax=ax) is ax
    curves = [line for line in ax.lines if line.get_linestyle() == "-"]
    assert len({line.get_color() for line in curves}) == 2
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["global", "random", "not pruned"]


def test_the_baseline_is_a_level_line_across() -> None:
    ax = plot_tradeoff(POINTS, metric="accuracy", baseline=0.98)
    line = ax.lines[1]
    assert set(line.get_ydata()) == {0.98}
    assert list(line.get_xdata()) == [0, 1]


@pytest.mark.parametrize("points", [[], [(0.0, 1.0)], [(2.0, float("nan"))], [(np.inf, 0.1)]])
def test_bad_points_are_refused(points: list[tuple[float, float]]) -> None:
    message = (
        "Invalid value for argument `points`. Expected one or more pairs (compression above 0, "
        f"value), all finite. Received: points={points!r}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        plot_tradeoff(points, metric="accuracy")


def test_a_baseline_that_is_no_number_is_refused() -> None:
    message = (
        "Invalid value for argument `baseline`. Expected None or a finite number. "
        "Received: baseline=inf"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        plot_tradeoff(POINTS, metric="accuracy", baseline=float("inf"))


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_a_figure_is_written_in_the_suffix_format(
    tmp_path: Path, suffix: str, start: bytes
) -> None:
    path = tmp_path / f"plot.{suffix}"
    save_figure(plot_tradeoff(POINTS, metric="accuracy"), path)
    assert path.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [path]


def test_axes_in_a_subfigure_write_the_whole_figure(tmp_path: Path) -> None:
    ax = Figure().subfigures(1, 2)[0].add_subplot()
    save_figure(plot_tradeoff(POINTS, metric="accuracy", ax=ax), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 0


def test_a_figure_that_fails_to_draw_leaves_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plot.png"
    path.write_text("older")
    ax = plot_tradeoff(POINTS, metric="accuracy")

    def half(file: Path, **_: Any) -> None:
        file.write_text("ha")
        raise OSError("disk full")

    monkeypatch.setattr(ax.figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        save_figure(ax, path)
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    ax = plot_tradeoff(POINTS, metric="accuracy")
    known = ", ".join(f".{name}" for name in sorted(ax.figure.canvas.get_supported_filetypes()))
    path = tmp_path / "plot"
    message = (
        f"Invalid value for argument `path`. Expected a path that ends in one of {known}. "
        f"Received: path={str(path)!r}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        save_figure(ax, path)


def test_without_matplotlib_the_error_tells_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError) as error:
        plot_tradeoff(POINTS, metric="accuracy")
    assert str(error.value) == "Plots need matplotlib. Run `pip install keras_l0[plot]`."


def test_plots_are_drawn_and_saved_without_pyplot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An import of a module that is None fails.
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    ax = plot_tradeoff(POINTS, metric="accuracy", label="global", baseline=0.98)
    save_figure(ax, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").exists()
