"""Figures: metrics of a study's arms, distance against similarity, the plane of ranks, comparisons. The only file that imports matplotlib.

Figures are drawn on a canvas of their own: no window, no pyplot, and no setting of matplotlib's is changed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError, MissingExtraError
from covis.files import atomic_path
from covis.latent import Relation, target_distance
from covis.reports.charts import Column, CostPoint, ForestRow, Panel, lines
from covis.reports.marks import (
    COLOURS,
    DOTS_PER_INCH,
    FAINT,
    HAIR,
    INK,
    VERDICTS,
    curve,
    curve_colours,
    difference,
    label_points,
    logarithmic,
    name_lines,
    plain,
    round_ticks,
    shifts,
    with_zero,
    wrapped,
)
from covis.reports.partitions import GROUP_COLOURS, mean_weights
from covis.reports.studies import Row, Summary
from covis.structure.partition import GROUPS, Partition

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_INSIDE = 3
"""Series of costs, whose legend stands within the axes."""
MOST_COLUMNS = 4
"""Of panels, beside each other."""
CELLS = 26
"""Of a rank's logarithmic axis; ranks are whole, so that the first are cells of their own."""
FOOT_LINE = 0.135
"""Inches of a line at the foot."""


def study_plot(summary: Summary, out: str | Path, *, axis: tuple[str, Mapping[str, float]] | None = None) -> Path:
    """Draw each arm's mean with its interval, the seeds beside it as dots; returns the path of the PNG.

    Args:
        summary: the study's numbers.
        out: the PNG.
        axis: what a numeric axis is called, and where each arm stands on it; None: arms by name, in their order.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    groups = [[row for row in summary.rows if row.descriptor == name] for name in dict.fromkeys(row.descriptor for row in summary.rows)]
    arms = list(dict.fromkeys(row.arm for row in summary.rows))
    figure = _figure(7.2, 4.4) if axis else _figure(7.2, 1.25 + len(arms) * (0.34 + 0.2 * len(groups)))
    axes = figure.add_subplot()
    if axis is not None:
        _numeric(axes, groups, summary.metric, axis)
    else:
        _by_name(axes, groups, arms, summary)
    _title(figure, summary.title, f"{summary.facts}; bars: 95 % over queries, dots: seeds")
    return _saved(figure, out)


def latent_plot(relations: Mapping[str, Relation], out: str | Path, *, margins: Mapping[str, float | None] | None = None) -> Path:
    """Draw the distances of descriptors by similarity, a panel for each set; returns the path of the PNG.

    Args:
        relations: name -> distances by similarity.
        out: the PNG.
        margins: name -> the margin τ of GCL's loss, whose target τ (1 − ψ) is drawn; None, or left out: no line.

    Raises:
        InvalidInputError: there is no panel to draw.
        MissingExtraError: matplotlib is not installed.
    """
    if not relations:
        raise InvalidInputError("A figure of the latent space needs descriptors; got none.")
    rows = math.ceil(len(relations) / MOST_COLUMNS)
    columns = math.ceil(len(relations) / rows)
    figure = _figure(max(4.8, 0.6 + 2.5 * columns), 1.1 + 2.4 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for number, (axes, (name, one)) in enumerate(zip(grid, relations.items(), strict=False)):
        _distances(axes, one, (margins or {}).get(name))
        axes.set_title(
            f"{wrapped(name, 30)}\nSpearman {'-' if math.isnan(one.spearman) else f'{one.spearman:+.3f}'}",
            fontsize=9,
            color=INK,
            loc="left",
        )
        if number % columns == 0:
            axes.set_ylabel("distance", fontsize=9, color=INK)
        if number + columns >= len(relations):
            axes.set_xlabel("similarity ψ", fontsize=9, color=INK)
            axes.tick_params(labelbottom=True)
    for axes in grid[len(relations) :]:
        axes.set_axis_off()
    grid[0].set_ylim(bottom=0)
    said = "median and quartiles by similarity; at 0: pairs that share nothing"
    aimed = any(margin is not None for margin in (margins or {}).values())
    _title(figure, "Distance against similarity", f"{said}; dashed: GCL's target τ\u00a0(1\u00a0−\u00a0ψ)" if aimed else said)
    return _saved(figure, out)


def rank_plot(partition: Partition, *, out: str | Path, weights: Sequence[NDArray[np.float64]] | None = None) -> Path:
    """Draw the plane of ranks, teacher's across, student's up, with the groups in it and their shares beside; returns the PNG's path.

    Args:
        partition: the pairs with their ranks.
        out: the PNG.
        weights: how much each pair teaches, one array a scene; the mean of each group is drawn too.

    Raises:
        InvalidInputError: the weights are not of the partition's pairs.
        MissingExtraError: matplotlib is not installed.
    """
    means = mean_weights(partition, weights)
    figure = _figure(8.6 if means is None else 9.6, 4.6)
    plane, *bars = figure.subplots(1, 2 if means is None else 3, width_ratios=[4.2, 2.4] if means is None else [4.2, 2.2, 1.5])
    _plane(figure, plane, partition)
    shares = {name: 100 * share for name, share in partition.shares().items()}
    _bars(bars[0], shares, "% of the pairs", "{:.1f}")
    bars[0].set_yticks(range(len(GROUPS)), [f"{name}\n{wrapped(meaning, 17)}" for name, meaning in GROUPS.items()])
    if means is not None:
        _bars(bars[1], means, "mean weight", "{:.2f}")
        bars[1].set_yticks([])
    pairs, scenes = len(partition), len(partition.scenes)
    facts = f"{pairs:,} pair{'s' * (pairs != 1)} of similarity ≥ {partition.positive_threshold:g} in {scenes} scene{'s' * (scenes != 1)}"
    _title(
        figure,
        "Pairs by their ranks under both branches",
        f"{facts}; rank: {partition.rank}; lines: N_t = {partition.threshold}, and equal ranks",
    )
    return _saved(figure, out)


def forest_plot(
    rows: Sequence[ForestRow], out: str | Path, *, title: str, subtitle: str, unit: str = "recall@1", least: float | None = None
) -> Path:
    """Draw paired differences with their intervals, a line each, and what they say; returns the path of the PNG.

    Args:
        rows: the comparisons, from top to bottom; rows of one heading stand together.
        out: the PNG.
        title: what is compared.
        subtitle: what it was measured on.
        unit: what the differences are of.
        least: the smallest difference that matters, where a row does not name its own; differences below it are shaded.

    Raises:
        InvalidInputError: there is no row to draw.
        MissingExtraError: matplotlib is not installed.
    """
    _some(rows, "A forest plot needs rows")
    texts = [(row, row if isinstance(row, str) else wrapped(row.label, 46)) for row in lines(rows)]
    tall = np.array([0.34 if isinstance(row, str) else 0.15 + 0.145 * max(1, len(text.splitlines())) for row, text in texts])
    figure = _figure(9.6, 1.05 + tall.sum())
    left, axes, right = figure.subplots(1, 3, sharey=True, width_ratios=[3.1, 4.5, 1.75])
    for (row, text), y, high in zip(texts, np.cumsum(tall) - tall / 2, tall, strict=True):
        if isinstance(row, str):
            left.text(0, y + 0.03, text, fontsize=9.5, fontweight="bold", color=INK, va="center")
            continue
        left.text(0.02, y, text, fontsize=8.5, color=INK, va="center")
        difference(axes, row, (y, high), row.least if row.least is not None else least)
        known, colour = not math.isnan(row.value), VERDICTS.get(row.verdict, (FAINT, ""))[0]
        weight = "bold" if known and colour != FAINT else "normal"
        said = f"{round(row.value, 3) + 0.0:+.3f}".replace("-", "−") if known else "–"  # no minus before nothing
        right.text(0.27, y, said, fontsize=8.5, color=INK, va="center", ha="right")
        right.text(0.34, y, row.verdict if known else "not run", fontsize=8.5, color=colour, va="center", fontweight=weight)
    axes.axvline(0, color=INK, linewidth=0.9, zorder=2)
    axes.margins(x=0.04)
    axes.set_ylim(tall.sum(), 0)
    axes.set_xlabel(f"difference of {unit}", fontsize=9.5, color=INK)
    plain(axes, grid="x")
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.spines["left"].set_visible(False)
    for beside in (left, right):
        beside.set_axis_off()
    shaded = "; shaded: too small to matter" if least or any(row.least for row in rows) else ""
    _title(figure, title, f"{subtitle}; bars: 95 % intervals, small dots: seeds{shaded}")
    return _saved(figure, out)


def curves_plot(panels: Sequence[Panel], out: str | Path, *, title: str, subtitle: str) -> Path:
    """Draw lines with their bands, a panel beside the other; returns the path of the PNG.

    Lines are named at their right ends; in a legend where the names would stand too far from them.

    Args:
        panels: from left to right.
        out: the PNG.
        title: what is shown.
        subtitle: what it was measured on.

    Raises:
        InvalidInputError: there is no panel to draw.
        MissingExtraError: matplotlib is not installed.
    """
    _some(panels, "A figure of curves needs panels")
    shared = len({panel.y_label for panel in panels}) == 1
    figure = _figure(min(12, 7.6 if len(panels) == 1 else 2.6 + 3.5 * len(panels)), 4.2)
    grid = figure.subplots(1, len(panels), sharey=shared, squeeze=False)[0]
    colours = curve_colours(panels)
    for number, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
        for one in panel.series:
            curve(axes, one, colours[one.name])
        axes.set_title(wrapped(panel.title, 44), fontsize=9.5, color=INK, loc="left")
        axes.set_xlabel(panel.x_label, fontsize=9.5, color=INK)
        if not shared or not number:
            axes.set_ylabel(panel.y_label, fontsize=9.5, color=INK)
        plain(axes, grid="y")
        if panel.log_x:
            with_zero(axes, panel.places)
    _title(figure, title, subtitle)
    name_lines(figure, grid, panels, colours)
    return _saved(figure, out)


def dots_plot(columns: Sequence[Column], out: str | Path, *, title: str, subtitle: str, unit: str = "recall@1", against: str = "") -> Path:
    """Draw values by name with their intervals, a panel a condition; returns the path of the PNG.

    Args:
        columns: from left to right; a name stands on the same line in all.
        out: the PNG.
        title: what is shown.
        subtitle: what it was measured on.
        unit: what the values are.
        against: a name whose values are in colour, with a line through every panel to hold the others against; empty: none.

    Raises:
        InvalidInputError: there is no column to draw.
        MissingExtraError: matplotlib is not installed.
    """
    _some(columns, "A figure of values by condition needs columns")
    names = list(dict.fromkeys(name for column in columns for name in column.values))
    figure = _figure(9.6, 1.3 + 0.3 * len(names))
    grid = figure.subplots(1, len(columns), sharex=True, sharey=True, squeeze=False)[0]
    for axes, column in zip(grid, columns, strict=True):
        if against in column.values:
            axes.axvline(column.values[against][0], color=COLOURS[0], linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for name, (value, low, high) in column.values.items():
            colour, y = COLOURS[0] if name == against else FAINT, names.index(name)
            if math.isnan(value):
                axes.text(0.5, y, "not run", transform=axes.get_yaxis_transform(), fontsize=8, color=FAINT, ha="center", va="center")
            axes.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="butt", alpha=0.75)
            axes.plot(value, y, "o", color=colour, markersize=5)
        axes.set_title(wrapped(column.title, 80 // len(columns)), fontsize=9.5, color=INK, loc="left")
        axes.set_xlabel(unit, fontsize=9, color=INK)
        axes.locator_params(axis="x", nbins=4)
        plain(axes, grid="x")
        axes.tick_params(axis="y", length=0, labelsize=8.5)
        axes.spines["left"].set_visible(False)
    grid[0].set_yticks(range(len(names)), [wrapped(name, 40) for name in names])
    grid[0].set_ylim(len(names) - 0.5, -0.5)
    _title(figure, title, f"{subtitle}; bars: 95 % intervals{f'; dashed: {against}' if against else ''}")
    return _saved(figure, out)


def cost_plot(points: Sequence[CostPoint], out: str | Path, *, title: str, subtitle: str) -> Path:
    """Draw recall against seconds a query, the points of a series joined; returns the path of the PNG.

    Args:
        points: what was measured.
        out: the PNG.
        title: what is shown.
        subtitle: what it was measured on.

    Raises:
        InvalidInputError: there is no point to draw.
        MissingExtraError: matplotlib is not installed.
    """
    _some(points, "A figure of cost needs points")
    names = list(dict.fromkeys(point.series for point in points))
    figure = _figure(7.6 if len(names) <= MOST_INSIDE else 9.6, 4.8)
    axes = figure.add_subplot()
    for name, colour in zip(names, itertools.cycle(COLOURS), strict=False):
        mine = sorted((point for point in points if point.series == name), key=lambda point: point.seconds)
        axes.plot([one.seconds for one in mine], [one.value for one in mine], "o-", color=colour, linewidth=1.4, markersize=6, label=name)
        for one in mine:
            axes.plot([one.seconds] * 2, [one.low, one.high], color=colour, linewidth=2, solid_capstyle="butt", alpha=0.5)
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.1)
    ticks = round_ticks([point.seconds for point in points])
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel("seconds a query", fontsize=10, color=INK)
    axes.set_ylabel("recall@1", fontsize=10, color=INK)
    plain(axes, grid="y")
    axes.tick_params(axis="x", which="minor", color=HAIR, labelbottom=False)
    if len(names) > 1:
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1)} if len(names) > MOST_INSIDE else {"loc": "lower right"}
        axes.legend(frameon=False, fontsize=9, labelcolor=INK, **place)
    _title(figure, title, f"{subtitle}; bars: 95 % intervals")
    label_points(figure, axes, points, dict(zip(names, itertools.cycle(COLOURS), strict=False)))
    return _saved(figure, out)


def _plane(figure: Figure, axes: Axes, partition: Partition) -> None:
    """How many pairs have which ranks, on logarithmic axes, and where the groups lie."""
    limit, x, y = partition.threshold, np.concatenate(partition.teacher), np.concatenate(partition.student)
    # each region keeps some room, whatever the ranks
    end = max(int(x.max()), int(y.max()), 8 * limit) + 1
    edges = np.unique([*np.rint(np.geomspace(1, end, CELLS)), limit + 1, end]) - 0.5
    counts = np.histogram2d(x, y, bins=(edges, edges))[0].T
    mesh = axes.pcolormesh(edges, edges, np.where(counts, counts, np.nan), norm="log", vmin=0.4, vmax=max(counts.max(), 4), cmap="Blues")
    bar = figure.colorbar(mesh, ax=axes, pad=0.04, shrink=0.7, aspect=24)
    decades = [10**power for power in range(int(math.log10(counts.max())) + 1)]
    bar.set_ticks(decades, labels=[f"{tick:,}" for tick in decades])
    bar.ax.set_yticks([], minor=True)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, color=HAIR, labelcolor=FAINT)
    bar.ax.set_title("pairs", fontsize=8, color=FAINT)
    line: dict[str, Any] = {"color": INK, "linewidth": 1}
    axes.plot([limit + 0.5] * 2, [edges[0], edges[-1]], **line)
    axes.plot([edges[0], limit + 0.5], [limit + 0.5] * 2, **line)
    axes.plot([edges[0], limit + 0.5], [edges[0], limit + 0.5], linestyle=(0, (4, 3)), **line)
    ticks = sorted({*(10**power for power in range(int(math.log10(end)) + 1)), limit})
    for axis, scale, name in ((axes.xaxis, axes.set_xscale, "teacher"), (axes.yaxis, axes.set_yscale, "student")):
        scale("log")
        axis.set_ticks(ticks, [f"{tick:,}" for tick in ticks])
        axis.set_ticks([], minor=True)
        axis.set_label_text(f"rank under the {name}", fontsize=10, color=INK)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(edges[0], edges[-1])
    axes.set_box_aspect(1)
    plain(axes, grid="y")
    axes.grid(visible=False)
    _regions(axes, partition, (edges[0], limit + 0.5, edges[-1]))


def _regions(axes: Axes, partition: Partition, bounds: tuple[float, float, float]) -> None:
    """The groups' names in the plane, with their shares where there is room."""
    low, middle, high = (math.log10(value) for value in bounds)
    square = (middle - low) / (high - low)
    across = {"D1": square / 2, "D2": square * 0.3, "D3": square * 0.72, "D4": (1 + square) / 2}
    up = {"D1": (1 + square) / 2, "D2": square * 0.8, "D3": square * 0.18, "D4": 0.5}
    for name, share in partition.shares().items():
        said = f"{name}\n{100 * share:.1f} %" if square > 0.3 else name
        box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": _hex(name), "alpha": 0.9}
        axes.text(across[name], up[name], said, transform=axes.transAxes, ha="center", va="center", fontsize=8.5, color=INK, bbox=box)


def _bars(axes: Axes, values: Mapping[str, float], label: str, form: str) -> None:
    """A horizontal bar for each group, its value at the end; a dash where there is none."""
    most = max([value for value in values.values() if not math.isnan(value)], default=0) or 1
    for place, (name, value) in enumerate(values.items()):
        axes.barh(place, 0 if math.isnan(value) else value, color=_hex(name), height=0.55)
        axes.text(
            (0 if math.isnan(value) else value) + 0.03 * most,
            place,
            "-" if math.isnan(value) else form.format(value),
            va="center",
            fontsize=9,
            color=INK,
        )
    axes.set_xlim(0, 1.45 * most)
    axes.locator_params(axis="x", nbins=4)
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= most])
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlabel(label, fontsize=10, color=INK)
    plain(axes, grid="x")
    axes.tick_params(axis="y", length=0)


def _hex(group: str) -> str:
    return "#{:02x}{:02x}{:02x}".format(*GROUP_COLOURS[group])


def _numeric(axes: Axes, groups: Sequence[Sequence[Row]], metric: str, axis: tuple[str, Mapping[str, float]]) -> None:
    """The metric over a number; over its logarithm where it spans more than a decade."""
    name, places = axis
    moved = shifts(list(places.values()))
    if logarithmic(places.values()):
        axes.set_xscale("log")
        axes.set_xticks([], minor=True)
    for number, rows in enumerate(groups):
        colour, steps = COLOURS[number % len(COLOURS)], number - (len(groups) - 1) / 2
        x = [moved(places[row.arm], steps) for row in rows]
        axes.plot(x, [row.metric.value for row in rows], color=colour, linewidth=1.2, alpha=0.5, zorder=2)
        for place, row in zip(x, rows, strict=True):
            axes.plot([place] * 2, [row.metric.low, row.metric.high], color=colour, linewidth=2.2, solid_capstyle="butt", zorder=3)
            axes.plot(place, row.metric.value, "o", color=colour, markersize=7, zorder=4)
            axes.plot([moved(place, 1)] * len(row.values), list(row.values.values()), ".", color=colour, alpha=0.6, markersize=4)
        axes.plot([], [], "o-", color=colour, label=rows[0].descriptor)
    ticks = sorted(set(places.values()))
    axes.set_xticks(ticks, [np.format_float_positional(value, trim="-") for value in ticks])
    axes.set_xlabel(name, fontsize=10, color=INK)
    axes.set_ylabel(metric, fontsize=10, color=INK)
    plain(axes, grid="y")
    _legend(axes, groups)


def _by_name(axes: Axes, groups: Sequence[Sequence[Row]], arms: Sequence[str], summary: Summary) -> None:
    """The metric of each arm, from top to bottom."""
    for number, rows in enumerate(groups):
        colour, shift = COLOURS[number % len(COLOURS)], 0.3 * (number - (len(groups) - 1) / 2)
        for row in rows:
            y, one = arms.index(row.arm) + shift, row.metric
            axes.plot([one.low, one.high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt", zorder=3)
            axes.plot(one.value, y, "o", color=colour, markersize=6.5, zorder=4)
            axes.plot(list(row.values.values()), [y + 0.11] * len(row.values), ".", color=colour, alpha=0.6, markersize=4, zorder=3)
            said = "baseline" if row.arm == summary.baseline else row.verdict.partition(":")[0]
            beside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "fontsize": 7.5, "va": "center", "annotation_clip": False}
            axes.annotate(f"{one.value:.3f}", (1.01, y), color=colour, **beside)
            axes.annotate(said, (1.01, y), (24, 0), textcoords="offset points", color=_strength(said, colour), **beside)
        axes.plot([], [], "o-", color=colour, label=rows[0].descriptor)
        if base := [row.metric.value for row in rows if row.arm == summary.baseline]:
            axes.axvline(base[0], color=colour, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
    axes.set_yticks(range(len(arms)), [wrapped(arm, 26) for arm in arms])
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.set_xlabel(summary.metric, fontsize=10, color=INK)
    plain(axes, grid="x")
    axes.tick_params(axis="y", length=0, labelsize=9.5)
    axes.spines["left"].set_visible(False)
    _legend(axes, groups)


def _strength(verdict: str, colour: str) -> str:
    """What was told apart stands in colour."""
    return colour if verdict.startswith(("higher", "lower")) else FAINT


def _distances(axes: Axes, one: Relation, margin: float | None) -> None:
    """Median and quartiles of the distance, at the mean similarity of each bin."""
    shown = one.count[1:] > 0
    x = one.similarity[1:][shown]
    lower, median, upper = (values[1:][shown] for values in (one.lower, one.median, one.upper))
    axes.fill_between(x, lower, upper, color=COLOURS[0], alpha=0.22, linewidth=0)
    axes.plot(x, median, "o-", color=COLOURS[0], linewidth=1.6, markersize=3.5)
    if one.count[0]:
        axes.plot([0, 0], [one.lower[0], one.upper[0]], color=FAINT, linewidth=2.2, solid_capstyle="butt")
        axes.plot(0, one.median[0], "s", color=FAINT, markersize=5)
    if margin is not None:
        ends = np.array([0.0, 1.0])
        axes.plot(ends, target_distance(ends, margin=margin), color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlim(-0.05, 1.05)
    plain(axes, grid="y")


def _some(what: Sequence[object], need: str) -> None:
    if not what:
        raise InvalidInputError(f"{need}; got none.")


def _legend(axes: Axes, groups: Sequence[Sequence[Row]]) -> None:
    if len(groups) > 1:
        axes.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(groups), frameon=False, fontsize=9, labelcolor=INK, borderaxespad=0.2
        )


def _title(figure: Figure, title: str, facts: str) -> None:
    """What is shown, at the top left; what it was measured on below, in room of its own."""
    figure.suptitle(wrapped(title, round(12 * figure.get_figwidth())), x=0.01, ha="left", fontsize=11, color=INK, fontweight="bold")
    foot = wrapped(facts, round(17 * figure.get_figwidth()))
    figure.text(0.01, 0.03 / figure.get_figheight(), foot, ha="left", va="bottom", fontsize=7.5, color=FAINT)
    room = (0.06 + FOOT_LINE * len(foot.splitlines())) / figure.get_figheight()
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, room, 1, 1 - room))


def _figure(width: float, height: float) -> Figure:
    """A figure of so many inches, on a canvas of its own."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(f"Figures need the extra `plots`: pip install 'covis[plots]' ({error}).") from error
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white", layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.06, h_pad=0.06)
    FigureCanvasAgg(figure)
    return figure


def _saved(figure: Figure, out: str | Path) -> Path:
    """The PNG, whole or not there; the same content gives the same bytes."""
    with atomic_path(out) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return Path(out)
