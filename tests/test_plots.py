"""The figures: drawn, readable in their parts, the same each time, without touching matplotlib's state."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from made_cells import cell, drawn, relation
from PIL import Image

from covis.errors import InvalidInputError, MissingExtraError
from covis.reports import plots
from covis.reports.charts import Column, CostPoint, ForestRow, Panel, Series, lines, spread
from covis.reports.marks import COLOURS, VERDICTS, curve_colours, wrapped
from covis.reports.plots import cost_plot, curves_plot, dots_plot, forest_plot, latent_plot, study_plot
from covis.reports.studies import Summary, summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

pytest.importorskip("matplotlib")
NAN = float("nan")
SAID = {"title": "what is compared", "subtitle": "five seeds"}
LONG = "similarities rounded to 0, ½ and 1, on campus"
ARMS = ("gcl", "contrastive", "an arm whose name is much longer than the others'")


def summary(arms: tuple[str, ...] = ARMS, *, title: str = "loss: what is compared") -> Summary:
    cells = [
        cell(arm, seed, {"trained": drawn(0.4 + 0.1 * number, seed), "whitened": drawn(0.5 + 0.1 * number, seed)})
        for number, arm in enumerate(arms)
        for seed in (0, 1, 2)
    ]
    return summarise(
        cells, arms=arms, baseline=arms[0], metric="recall@1", descriptors=("trained", "whitened"), also=["AP"], title=title, recipe="town"
    )


def inked(path: Path) -> float:
    """The share of the pixels that are not white; the edges must be white, or something is cut off."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    edges = np.concatenate(
        [pixels[:, :2].reshape(-1, 3), pixels[:, -2:].reshape(-1, 3), pixels[:2].reshape(-1, 3), pixels[-2:].reshape(-1, 3)]
    )
    assert (edges == 255).all(), "something is cut off at the edge"
    return float((pixels != 255).any(axis=2).mean())


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, in their order."""
    kept: list[Figure] = []
    saved = plots._saved

    def keep(figure: Figure, out: Path) -> Path:
        kept.append(figure)
        return saved(figure, out)

    monkeypatch.setattr(plots, "_saved", keep)
    return kept


def test_arms_by_name(tmp_path: Path) -> None:
    path = study_plot(summary(), tmp_path / "plot.png")
    assert 0.02 < inked(path) < 0.3
    again = study_plot(summary(), tmp_path / "again.png")
    assert path.read_bytes() == again.read_bytes()
    other = study_plot(summary(title="another " * 30), tmp_path / "other.png")
    assert inked(other) > 0.02, "a long title is wrapped"


def test_a_numeric_axis(tmp_path: Path) -> None:
    arms = ("margin 0.3", "margin 0.5", "margin 1")
    path = study_plot(summary(arms), tmp_path / "plot.png", axis=("margin", dict(zip(arms, (0.3, 0.5, 1.0), strict=True))))
    assert 0.01 < inked(path) < 0.3
    alone = study_plot(summary(arms[:1]), tmp_path / "alone.png", axis=("margin", {"margin 0.3": 0.3}))
    assert inked(alone) > 0.01


def test_a_numeric_axis_over_decades(tmp_path: Path, figures: list[Figure]) -> None:
    values = (1e-5, 1e-4, 1e-3, 1e-2)
    arms = tuple(f"rate {value:g}" for value in values)
    assert inked(study_plot(summary(arms), tmp_path / "plot.png", axis=("rate", dict(zip(arms, values, strict=True))))) > 0.01
    axes = figures[0].axes[0]
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.00001", "0.0001", "0.001", "0.01"]
    first, second = (line.get_xdata() for line in axes.lines if len(line.get_xdata()) == len(values))
    apart = np.log(np.array(second) / np.array(first))
    np.testing.assert_allclose(apart, apart[0])
    study_plot(summary(arms[:3]), tmp_path / "near.png", axis=("margin", dict(zip(arms, (0.3, 0.5, 3.0), strict=False))))
    study_plot(summary(arms[:3]), tmp_path / "zero.png", axis=("margin", dict(zip(arms, (0.0, 1.0, 100.0), strict=False))))
    assert [figure.axes[0].get_xscale() for figure in figures[1:]] == ["linear", "linear"]


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_the_line_at_the_foot_has_room_of_its_own(tmp_path: Path, figures: list[Figure], count: int) -> None:
    relations = {f"arm {number}": relation(number) for number in range(count)}
    latent_plot(relations, tmp_path / "aimed.png", margins=dict.fromkeys(relations, 0.5))
    study_plot(summary(title="short"), tmp_path / "plot.png")
    for figure in figures:
        foot = figure.texts[-1]
        top = foot.get_window_extent().y1
        below = [axes.xaxis.label.get_window_extent().y0 for axes in figure.axes if axes.get_xlabel()]
        assert foot.get_window_extent().y0 >= 0
        assert below
        assert top < min(below), "it is printed over a label"
    assert "τ\u00a0(1\u00a0−\u00a0ψ)" in figures[0].texts[-1].get_text(), "the formula stands on one line"


@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_panel_a_set_of_descriptors(tmp_path: Path, count: int) -> None:
    relations = {f"arm {number}": relation(number) for number in range(count)}
    plain = latent_plot(relations, tmp_path / "plain.png")
    aimed = latent_plot(relations, tmp_path / "aimed.png", margins={"arm 0": 0.5})
    assert 0.02 < inked(plain) < 0.5
    assert 0.02 < inked(aimed) < 0.5
    assert plain.read_bytes() != aimed.read_bytes()
    with pytest.raises(InvalidInputError, match=r"got none"):
        latent_plot({}, tmp_path / "none.png")


def test_nothing_global_is_touched(tmp_path: Path) -> None:
    code = (
        "import sys, matplotlib; before = matplotlib.rcParams.copy()\n"
        "from made_cells import relation; from covis.reports.plots import latent_plot\n"
        f"latent_plot({{'one': relation(0)}}, {str(tmp_path / 'a.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules\n"
        "assert matplotlib.rcParams.copy() == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"covis\[plots\]"):
        latent_plot({"one": relation(0)}, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def texts(axes: Axes) -> dict[str, Text]:
    return {text.get_text(): text for text in axes.texts}


def apart(found: list[Text]) -> bool:
    """Whether no text covers another one."""
    boxes = [text.get_window_extent() for text in found]
    return not any(one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[:number])


def forest() -> list[ForestRow]:
    said = (*VERDICTS, "cannot be told apart")
    rows = [
        ForestRow(f"{name}{number} {LONG}", value, value - 0.03, value + 0.02, (value, value - 0.01), said[number], heading)
        for name, heading in (("G", "GCL"), ("V", "StructVPR"), ("R", "Two stages"))
        for number, value in enumerate((0.05, -0.31, 0.0, -0.02))
    ]
    return [
        *rows,
        ForestRow("V9", NAN, NAN, NAN, (), "not run", "StructVPR"),
        ForestRow("one unit", 0.1, NAN, NAN, (0.1,), "cannot be told apart"),
    ]


def test_a_forest_says_each_row_with_its_verdict(tmp_path: Path, figures: list[Figure]) -> None:
    path = forest_plot(forest(), tmp_path / "forest.png", **SAID, least=0.02)
    assert 0.02 < inked(path) < 0.3
    left, axes, right = figures[0].axes
    labels = list(texts(left))
    assert labels[0] == "one unit"
    assert labels.index("V9") == labels.index("Two stages") - 1, "rows stand below their heading"
    assert apart(left.texts)
    assert apart(right.texts)
    assert "−0.310" in texts(right)
    assert texts(right)["not run"].get_color() == plots.FAINT
    assert texts(right)["does not hold"].get_color() == VERDICTS["does not hold"][0]
    assert max(text.get_window_extent().x1 for text in left.texts) < axes.get_window_extent().x0
    assert max(text.get_window_extent().x1 for text in right.texts) < figures[0].bbox.x1
    low, high = axes.get_xlim()
    assert low < -0.34
    assert high > 0.1
    assert axes.get_xlabel() == "difference of recall@1"
    assert "shaded" in figures[0].texts[-1].get_text()


def test_what_is_too_small_to_matter_is_shaded_row_by_row(tmp_path: Path, figures: list[Figure]) -> None:
    rows = [ForestRow("wide", 0.1, 0.05, 0.2, (), "holds", least=0.05), ForestRow("narrow", 0.1, 0.05, 0.2, (), "holds")]
    forest_plot(rows, tmp_path / "both.png", **SAID, least=0.01)
    forest_plot(rows[1:], tmp_path / "none.png", **SAID)
    widths = [round(float(band.get_paths()[0].get_extents().x1), 9) for band in figures[0].axes[1].collections]
    assert widths == [0.05, 0.01]
    assert not figures[1].axes[1].collections
    assert "shaded" not in figures[1].texts[-1].get_text()


def test_the_same_forest_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (forest_plot(forest(), tmp_path / f"{name}.png", **SAID) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def series(name: str, y: tuple[float, ...], **more: object) -> Series:
    x = (0.0, 1.0, 2.0, 5.0, 10.0)[: len(y)]
    low, high = ([value + by for value in y] for by in (-0.02, 0.03))
    return Series(name, x, y, low, high, points=[(x[0], y[0] + 0.01)], **more)  # type: ignore[arg-type]


def test_lines_are_named_at_their_ends(tmp_path: Path, figures: list[Figure]) -> None:
    one, other = series("GCL", (0.6, 0.58, 0.5, 0.4, 0.3)), series("CL", (0.5, 0.48, 0.4, 0.2, NAN))
    panels = [Panel(f"errors, {unit}", unit, "recall@1", (one, other), log_x=True) for unit in ("metres", "degrees")]
    path = curves_plot(panels, tmp_path / "curves.png", **SAID)
    assert 0.02 < inked(path) < 0.4
    left, right = figures[0].axes
    assert not left.texts, "both panels have the same lines: named once"
    assert list(texts(right)) == ["GCL", "CL"]
    assert right.get_legend() is None
    assert texts(right)["CL"].xy[1] == 0.2, "at the last value that there is"
    assert [label.get_text() for label in left.get_xticklabels()] == ["0", "1", "2", "5", "10"]
    places = left.transData.transform([(x, 0.5) for x in (0, 1, 2, 5, 10)])[:, 0]
    assert (np.diff(places) > 20).all(), "0 has a place of its own"
    assert left.get_shared_y_axes().joined(left, right)
    assert (left.get_ylabel(), right.get_ylabel()) == ("recall@1", "")


def test_lines_that_end_together_have_a_legend(tmp_path: Path, figures: list[Figure]) -> None:
    many = [series(f"{number} {LONG}", (0.5, 0.5 + number / 1000)) for number in range(9)]
    path = curves_plot([Panel("", "x", "recall@1", many)], tmp_path / "curves.png", **SAID)
    assert inked(path) > 0.02
    axes = figures[0].axes[0]
    assert not axes.texts
    assert len(axes.get_legend().get_texts()) == 9
    assert apart(axes.get_legend().get_texts())
    assert axes.get_legend().get_window_extent().x1 < figures[0].bbox.x1


def test_names_near_each_other_are_moved_apart(tmp_path: Path, figures: list[Figure]) -> None:
    pair = [series("GCL", (0.2, 0.5)), series("CL", (0.1, 0.495)), series("far", (0.1, 0.0))]
    curves_plot([Panel("", "x", "recall@1", pair)], tmp_path / "curves.png", **SAID)
    axes = figures[0].axes[0]
    assert axes.get_legend() is None
    assert apart(axes.texts)


def test_panels_of_other_measures_have_axes_of_their_own(tmp_path: Path, figures: list[Figure]) -> None:
    ends = (Panel("a", "x", "recall@1", [series("GCL", (0.2, 0.5))]), Panel("b", "x", "distance", [series("CL", (10.0, 20.0))]))
    curves_plot(ends, tmp_path / "curves.png", **SAID)
    left, right = figures[0].axes
    assert not left.get_shared_y_axes().joined(left, right)
    assert (left.get_ylabel(), right.get_ylabel()) == ("recall@1", "distance")
    assert [list(texts(axes)) for axes in (left, right)] == [["GCL"], ["CL"]]


@pytest.mark.parametrize("x", [(0.0,), (5.0,), (0.0, 5.0), (8.0, 16.0, 128.0), tuple(range(30))])
def test_any_logarithmic_axis(tmp_path: Path, figures: list[Figure], x: tuple[float, ...]) -> None:
    panel = Panel("", "x", "y", [Series("GCL", x, [0.5] * len(x)), Series("none", x, [NAN] * len(x))], log_x=True)
    assert inked(curves_plot([panel], tmp_path / "curves.png", **SAID)) > 0.01
    axes = figures[0].axes[0]
    assert axes.get_xlim()[0] < min(x)
    assert max(x) < axes.get_xlim()[1]
    assert list(texts(axes)) == ["GCL"]


def test_a_name_has_one_colour(tmp_path: Path) -> None:
    panels = [
        Panel("", "", "", [series("a", (1.0,)), series("b", (1.0,), like="a", dashed=True)]),
        Panel("", "", "", [series("c", (1.0,)), series("a", (2.0,))]),
        Panel("", "", "", [series(str(number), (1.0,)) for number in range(2 * len(COLOURS))]),
    ]
    found = curve_colours(panels)
    assert found["a"] == found["b"] == COLOURS[0]
    assert found["c"] == COLOURS[1]
    assert {found[str(number)] for number in range(len(COLOURS))} == set(COLOURS)


def test_values_by_condition(tmp_path: Path, figures: list[Figure]) -> None:
    columns = [
        Column("night", {LONG: (0.4, 0.3, 0.5), "all pairs": (0.5, 0.45, 0.6)}),
        Column("snow", {LONG: (0.6, 0.5, 0.7), "all pairs": (NAN, NAN, NAN)}),
    ]
    path = dots_plot(columns, tmp_path / "dots.png", **SAID, against="all pairs")
    assert 0.01 < inked(path) < 0.3
    night, snow = figures[0].axes
    assert [label.get_text() for label in night.get_yticklabels()] == [wrapped(LONG, 40), "all pairs"]
    assert list(texts(snow)) == ["not run"]
    assert not night.texts
    coloured = [line.get_ydata()[0] for line in night.lines if line.get_marker() == "o" and line.get_color() == COLOURS[0]]
    assert coloured == [1]
    assert [line.get_xdata()[0] for line in night.lines if line.get_linestyle() == "--"] == [0.5]


def test_points_of_cost_are_labelled_apart(tmp_path: Path, figures: list[Figure]) -> None:
    points = [
        CostPoint(label, seconds, value + less, value + less - 0.03, value + less + 0.03, name)
        for name, less in (("GCL", 0.0), ("CL", -0.02))
        for label, seconds, value in (("global alone", 0.001, 0.6), ("10 re-ranked", 0.03, 0.66), ("25 re-ranked", 0.05, 0.66))
    ]
    path = cost_plot([*points, CostPoint("unknown", 0.01, NAN, NAN, NAN, "CL")], tmp_path / "cost.png", **SAID)
    assert 0.01 < inked(path) < 0.3
    axes = figures[0].axes[0]
    assert axes.get_xscale() == "log"
    assert len(axes.texts) == 6
    assert apart([*axes.texts, *axes.get_legend().get_texts()])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.001", "0.002", "0.005", "0.01", "0.02", "0.05"]
    frame = axes.get_window_extent()
    assert all(frame.x0 < text.get_window_extent().x0 and text.get_window_extent().x1 < frame.x1 for text in axes.texts)


@pytest.mark.parametrize("draw", [forest_plot, curves_plot, dots_plot, cost_plot])
def test_nothing_to_draw_is_refused(tmp_path: Path, draw) -> None:
    with pytest.raises(InvalidInputError, match=r"got none"):
        draw([], tmp_path / "a.png", **SAID)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ForestRow("G1", 0.1, 0.2, 0.1, (), "holds"), r"must not end below its start; the row 'G1' has 0.2 to 0.1"),
        (lambda: ForestRow("G1", float("inf"), 0, 0, (), "holds"), r"the row 'G1' holds an infinity"),
        (lambda: ForestRow("G1", 0.1, 0.0, 0.2, (), "holds", least=0.0), r"must be > 0; got 0.0"),
        (lambda: Series("GCL", [1, 2], [1]), r"one value an x; the series 'GCL' has \[1, 2\]"),
        (lambda: Series("GCL", [1], [1], low=[0]), r"both its ends"),
        (lambda: Series("GCL", [1], [1], low=[2], high=[1]), r"must not end below its start"),
        (lambda: Series("GCL", [NAN], [1]), r"an x that is NaN"),
        (lambda: Panel("p", "", "", []), r"'p' has \[\]"),
        (lambda: Panel("p", "", "", [Series("GCL", [1], [1])] * 2), r"a name of its own"),
        (lambda: Panel("p", "", "", [Series("GCL", [-1], [1])], log_x=True), r"no place for -1.0"),
        (lambda: Column("night", {"GCL": (0.1, 0.2, 0.1)}), r"'GCL' of the column 'night'"),
        (lambda: CostPoint("top 10", 0.0, 0.1, 0.1, 0.1, "GCL"), r"has 0.0 seconds"),
        (lambda: CostPoint("top 10", NAN, 0.1, 0.1, 0.1, "GCL"), r"has nan seconds"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        make()


def test_lines_of_a_forest() -> None:
    rows = forest()
    found = lines(rows)
    assert [one for one in found if isinstance(one, str)] == ["GCL", "StructVPR", "Two stages"]
    assert sorted(one.label for one in found if not isinstance(one, str)) == sorted(row.label for row in rows)


def test_labels_are_spread_as_little_as_it_needs() -> None:
    random = np.random.default_rng(3)
    for _ in range(50):
        heights, sizes = random.uniform(0, 10, 6), random.uniform(0.5, 2, 6)
        placed = np.array(spread(heights.tolist(), sizes.tolist()))
        order = np.argsort(heights)
        gaps = np.diff(placed[order]) - (sizes[order][1:] + sizes[order][:-1]) / 2
        assert (gaps > -1e-9).all()
        cost = ((placed - heights) ** 2).sum()
        for number in range(6):  # no single label, nor all above it, stand better a little higher or lower
            for step in (-1e-3, 1e-3):
                moved = placed.copy()
                moved[order[number:]] += step
                if (np.diff(moved[order]) - (sizes[order][1:] + sizes[order][:-1]) / 2 > -1e-9).all():
                    assert ((moved - heights) ** 2).sum() >= cost - 1e-9
    assert spread([], []) == []
