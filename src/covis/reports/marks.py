"""What charts put on axes: intervals, lines with their names, ticks. The axes come from `plots.py`; nothing of matplotlib is imported."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.reports.charts import CostPoint, ForestRow, Panel, Series, spread

INK, FAINT, HAIR = "#222831", "#6e7681", "#d0d7de"
COLOURS = ("#1f6fb2", "#d1701a", "#2a8f5b", "#8a4fa3", "#b8324f", "#14868c", "#8d6e1f", "#6e7681", "#d36ba6", "#27408b")
VERDICTS = {"holds": ("#2a8f5b", "o"), "does not hold": ("#c8501a", "D"), "cannot be told apart": ("#6e7681", "o")}
"""Colour and shape of a verdict; another one is drawn like the last."""
DOTS_PER_INCH = 160
MOST_TICKS = 10
"""At values of a logarithmic axis; where there are more, at powers of ten."""
STEP = 0.012
"""Between series and their seeds on a numeric axis, a part of its length."""


def wrapped(text: str, width: int) -> str:
    """Text in lines of so many characters at most."""
    return "\n".join(textwrap.wrap(text, width))


def logarithmic(values: Collection[float]) -> bool:
    """Whether they span more than a decade, all above 0."""
    return min(values) > 0 and max(values) > 10 * min(values)


def shifts(values: Collection[float]) -> Callable[[float, float], float]:
    """What moves a value by so many steps, each the same small part of the axis."""
    if logarithmic(values):
        ratio = (max(values) / min(values)) ** STEP
        return lambda value, steps: value * ratio**steps
    span = max(values) - min(values) or 1.0
    return lambda value, steps: value + span * STEP * steps


def round_ticks(values: Sequence[float]) -> list[float]:
    """Of a logarithmic axis, from below the values to above them: powers of ten, twice and five times them too where they are few.

    >>> round_ticks([0.003, 0.04]), round_ticks([0.003, 40.0])
    ([0.002, 0.005, 0.01, 0.02, 0.05], [0.001, 0.01, 0.1, 1.0, 10.0, 100.0])
    """
    low, high = min(values), max(values)
    steps = (1, 2, 5) if high < 100 * low else (1,)
    powers = range(math.floor(math.log10(low)) - 1, math.floor(math.log10(high)) + 2)
    ticks = [float(f"{step}e{power}") for power in powers for step in steps]
    first = max([number for number, tick in enumerate(ticks) if tick <= low], default=0)
    last = min(number for number, tick in enumerate(ticks) if tick >= high)
    return ticks[first : last + 1]


def plain(axes: Any, *, grid: str) -> None:
    """Thin axes, and a faint grid along one of them."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(HAIR)
    axes.tick_params(labelsize=9, color=HAIR, labelcolor=INK)
    axes.set_axisbelow(True)
    (axes.yaxis if grid == "y" else axes.xaxis).grid(visible=True, color=HAIR, linewidth=0.6)


def difference(axes: Any, row: ForestRow, place: tuple[float, float], least: float | None) -> None:
    """A line of a forest at a height, so high: band, interval, dot, seeds."""
    y, high = place
    if least is not None:
        axes.fill_between([-least, least], y - high / 2, y + high / 2, color=HAIR, alpha=0.45, linewidth=0, zorder=0)
    colour, shape = VERDICTS.get(row.verdict, (FAINT, "o"))
    axes.plot([row.low, row.high], [y, y], color=colour, linewidth=2.4, solid_capstyle="butt", zorder=3)
    axes.plot(list(row.seeds), [y + 0.075] * len(row.seeds), "o", color=colour, alpha=0.45, markersize=2.6, markeredgewidth=0, zorder=3)
    axes.plot(row.value, y, shape, color=colour, markersize=6 if shape == "o" else 5, zorder=4)


def curve_colours(panels: Sequence[Panel]) -> dict[str, str]:
    """Name of a series -> its colour, the same in all panels.

    >>> curve_colours([Panel("", "", "", [Series("a", [1], [1]), Series("b", [1], [1], like="a")])])
    {'a': '#1f6fb2', 'b': '#1f6fb2'}
    """
    colours: dict[str, str] = {}
    for panel in panels:
        for one in sorted(panel.series, key=lambda one: bool(one.like)):
            # of a colour of its own in this panel, where there are enough
            taken = {colours.get(other.name) for other in panel.series}
            free = [colour for colour in COLOURS if colour not in taken] or [COLOURS[len(colours) % len(COLOURS)]]
            colours.setdefault(one.name, colours.get(one.like, free[0]))
    return colours


def curve(axes: Any, one: Series, colour: str) -> None:
    """A line with its band; a line of reference is dashed, without dots."""
    if one.low is not None and one.high is not None:
        axes.fill_between(one.x, one.low, one.high, color=colour, alpha=0.16, linewidth=0, zorder=1)
    style: dict[str, Any] = {"linestyle": (0, (4, 3)), "linewidth": 1.2} if one.dashed else {"marker": "o", "markersize": 4.5}
    axes.plot(one.x, one.y, color=colour, zorder=3, label=wrapped(one.name, 24), **style)
    axes.plot([x for x, _ in one.points], [y for _, y in one.points], "o", color=colour, alpha=0.35, markersize=2.6, markeredgewidth=0)


def with_zero(axes: Any, places: Sequence[float]) -> None:
    """A logarithmic axis with a tick where there are values; 0 stands half a decade left of the least number above it."""
    above = [value for value in places if value > 0]
    if above and len(above) < len(places):
        axes.set_xscale("symlog", linthresh=above[0], linscale=0.45)
        axes.set_xlim(-0.25 * above[0], above[-1] * 1.15)
    elif above:
        axes.set_xscale("log")
    axes.set_xticks([], minor=True)
    if len(places) <= MOST_TICKS:
        axes.set_xticks(places, [f"{value:,g}" for value in places])


def name_lines(figure: Any, grid: Sequence[Any], panels: Sequence[Panel], colours: Mapping[str, str]) -> None:
    """Names at the right ends of the lines, once where all panels have the same; a legend where they would stand too far off."""
    named = list(zip(grid, panels, strict=True))
    if all({one.name for one in panel.series} == set(colours) for panel in panels):
        named = named[-1:]
    figure.draw_without_rendering()
    line, texts = 9.5 * DOTS_PER_INCH / 72, []
    for axes, panel in named:
        ends = {one.name: one.end for one in panel.series if one.end is not None}
        wanted = [float(axes.transData.transform(end)[1]) for end in ends.values()]
        placed = spread(wanted, [line * len(wrapped(name, 22).splitlines()) for name in ends])
        if any(abs(one - other) > line for one, other in zip(wanted, placed, strict=True)):
            handles = {text: handle for one in grid for handle, text in zip(*one.get_legend_handles_labels(), strict=True)}
            place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.02), "frameon": False, "labelcolor": INK}
            grid[-1].legend(handles.values(), handles.keys(), fontsize=8.5, **place)
            return
        texts += [(axes, name, end[1], up - at) for (name, end), at, up in zip(ends.items(), wanted, placed, strict=True)]
    for axes, name, y, shift in texts:
        where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "annotation_clip": False}
        moved = (5, shift * 72 / DOTS_PER_INCH)
        axes.annotate(wrapped(name, 22), (1, y), moved, color=colours[name], fontsize=8.5, va="center", **where)


def label_points(figure: Any, axes: Any, points: Sequence[CostPoint], colours: Mapping[str, str]) -> None:
    """A label beside each point, where it covers least of points, lines and other labels."""
    figure.draw_without_rendering()
    shown = [one for one in points if not math.isnan(one.value)]
    taken = [_around(axes.transData.transform((one.seconds, one.value))) for one in shown]
    for line in axes.lines:
        ends = axes.transData.transform(line.get_xydata()[~np.isnan(line.get_ydata())])
        taken += [_around(start + part * (end - start)) for start, end in pairwise(ends) for part in np.linspace(0, 1, 12)]
    if axes.get_legend():
        taken.append(axes.get_legend().get_window_extent().extents)
    for one in (one for one in shown if one.label):
        found: list[tuple[float, Any]] = []
        for (across, up), (right, above) in product(((8, 6), (0, 14), (4, 28)), ((1, 1), (1, -1), (-1, 1), (-1, -1))):
            place = {"textcoords": "offset points", "ha": _SIDES[right * (across > 0)], "va": "bottom" if above > 0 else "top"}
            spot = (across * right, up * above)
            text = axes.annotate(one.label, (one.seconds, one.value), spot, fontsize=8, color=colours[one.series], **place)
            box = text.get_window_extent().extents
            outside = _covered(box, box) - _covered(box, axes.get_window_extent().extents)
            found.append((outside + sum(_covered(box, other) for other in taken), text))
        found.sort(key=lambda one: one[0])
        taken.append(found[0][1].get_window_extent().extents)
        for _, text in found[1:]:
            text.remove()


_SIDES = {1: "left", 0: "center", -1: "right"}


def _around(spot: NDArray[np.float64], half: float = 6.0) -> NDArray[np.float64]:
    """(left, bottom, right, top) of what a point takes, in pixels."""
    return np.concatenate([spot - half, spot + half])


def _covered(box: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """How many square pixels two boxes share."""
    return float(np.prod(np.maximum(0, np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]))))
