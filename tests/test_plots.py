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
from covis.reports.plots import latent_plot, study_plot
from covis.reports.studies import Summary, summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

pytest.importorskip("matplotlib")
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
