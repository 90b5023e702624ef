"""What figures of comparisons show, as plain data: rows of a forest, series of a panel, points of cost. `plots.py` draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from covis.errors import InvalidInputError


@dataclass(frozen=True)
class ForestRow:
    """A line of a forest plot: one paired difference.

    Attributes:
        label: what is compared.
        value: the difference; NaN: not run.
        low: of its interval, NaN where there is none.
        high: of it.
        seeds: the difference of each seed.
        verdict: in words: "holds", "does not hold", "cannot be told apart", "not run".
        heading: rows of the same heading stand below it.
        least: the smallest difference that matters to this row, > 0; None: that of the figure.

    Raises:
        InvalidInputError: a number is infinite, the interval is upside down, or `least` <= 0.
    """

    label: str
    value: float
    low: float
    high: float
    seeds: Sequence[float]
    verdict: str
    heading: str = ""
    least: float | None = None

    def __post_init__(self) -> None:
        _check_numbers(f"the row {self.label!r}", [self.value, self.low, self.high, *self.seeds])
        _check_order(f"the row {self.label!r}", [self.low], [self.high])
        if self.least is not None and not self.least > 0:
            raise InvalidInputError(f"The smallest difference that matters must be > 0; got {self.least} in the row {self.label!r}.")


@dataclass(frozen=True)
class Series:
    """A line of a panel.

    Attributes:
        name: of the line; the same name has the same colour in all panels.
        x: where, finite.
        y: value at each, NaN: none.
        low: of the band, one value an x; None: no band.
        high: of it.
        dashed: a line of reference.
        points: (x, y) of single seeds.
        like: the name of a series whose colour it has; empty: a colour of its own.

    Raises:
        InvalidInputError: the lengths do not fit, a number is infinite, an x is NaN, or the band is upside down.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dashed: bool = False
    points: Sequence[tuple[float, float]] = ()
    like: str = ""

    def __post_init__(self) -> None:
        where, lengths = f"the series {self.name!r}", {len(self.x), len(self.y)}
        if (self.low is None) != (self.high is None):
            raise InvalidInputError(f"A band must have both its ends; {where} has one.")
        low, high = self.low or (), self.high or ()
        if self.low is not None:
            lengths |= {len(low), len(high)}
        if len(lengths) != 1:
            raise InvalidInputError(f"A series must have one value an x; {where} has {sorted(lengths)} of them.")
        _check_numbers(where, [*self.x, *self.y, *low, *high, *(value for point in self.points for value in point)])
        _check_order(where, low, high)
        if any(math.isnan(value) for value in [*self.x, *(x for x, _ in self.points)]):
            raise InvalidInputError(f"Each value must stand somewhere; {where} has an x that is NaN.")

    @property
    def end(self) -> tuple[float, float] | None:
        """The last point that has a value; None where there is none.

        >>> Series("GCL", [1.0, 2.0, 3.0], [0.5, 0.6, float("nan")]).end
        (2.0, 0.6)
        """
        known = [(x, y) for x, y in zip(self.x, self.y, strict=True) if not math.isnan(y)]
        return max(known) if known else None


@dataclass(frozen=True)
class Panel:
    """Lines over one axis.

    Attributes:
        title: above it.
        x_label: of the axis.
        y_label: of the values; panels of one label share their axis.
        series: the lines.
        log_x: a logarithmic axis, on which 0 may stand too, left of all others.

    Raises:
        InvalidInputError: there is no series, two have one name, or an x below 0 is to stand on a logarithmic axis.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False

    def __post_init__(self) -> None:
        names = [one.name for one in self.series]
        if not names or len(set(names)) < len(names):
            raise InvalidInputError(f"A panel must have series, each of a name of its own; {self.title!r} has {names}.")
        if self.log_x and any(value < 0 for value in self.places):
            raise InvalidInputError(f"A logarithmic axis has no place for {min(self.places)}; found in the panel {self.title!r}.")

    @property
    def places(self) -> list[float]:
        """Each x at which a line has a point, rising."""
        return sorted({float(value) for one in self.series for value in one.x})


@dataclass(frozen=True)
class Column:
    """A panel of values by name: recall under one condition, say.

    Attributes:
        title: above it.
        values: name -> (value, low, high); NaN where not known.

    Raises:
        InvalidInputError: a number is infinite, or an interval upside down.
    """

    title: str
    values: dict[str, tuple[float, float, float]]

    def __post_init__(self) -> None:
        for name, (value, low, high) in self.values.items():
            _check_numbers(f"{name!r} of the column {self.title!r}", [value, low, high])
            _check_order(f"{name!r} of the column {self.title!r}", [low], [high])


@dataclass(frozen=True)
class CostPoint:
    """What a way to search finds, and what it costs.

    Attributes:
        label: of the point; empty: none.
        seconds: a query, > 0.
        value: what it finds.
        low: of its interval, NaN where there is none.
        high: of it.
        series: points of one series are joined, in the order of their cost.

    Raises:
        InvalidInputError: `seconds` <= 0, a number is infinite, or the interval is upside down.
    """

    label: str
    seconds: float
    value: float
    low: float
    high: float
    series: str

    def __post_init__(self) -> None:
        where = f"the point {self.label!r} of {self.series!r}"
        _check_numbers(where, [self.seconds, self.value, self.low, self.high])
        _check_order(where, [self.low], [self.high])
        if not self.seconds > 0:
            raise InvalidInputError(f"A query must cost some time; {where} has {self.seconds} seconds.")


def lines(rows: Sequence[ForestRow]) -> list[ForestRow | str]:
    """The lines of a forest from top to bottom: each heading, then its rows; headings as they first appear, rows without one first.

    >>> row = ForestRow("GCL against CL", 0.06, 0.03, 0.09, (), "holds", heading="GCL")
    >>> lines([row, row])[0]
    'GCL'
    """
    found: list[ForestRow | str] = [row for row in rows if not row.heading]
    for heading in dict.fromkeys(row.heading for row in rows if row.heading):
        found += [heading, *(row for row in rows if row.heading == heading)]
    return found


def spread(heights: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Move labels up and down until none covers the next, as little as this needs (least squares).

    Args:
        heights: where their middles should stand, any unit.
        sizes: how high each is, the same unit, >= 0.

    Returns:
        Where their middles stand, in the order of `heights`.

    >>> spread([0.0, 1.0, 10.0], [3.0, 3.0, 3.0])
    [-1.0, 2.0, 10.0]
    """
    order = sorted(range(len(heights)), key=lambda one: heights[one])
    tops = np.cumsum([sizes[one] for one in order])
    middles = [float(top) - sizes[one] / 2 for top, one in zip(tops, order, strict=True)]
    # what is left after the labels below are taken off must only not fall: pooled neighbours are its least-squares fit
    pools: list[list[float]] = []
    for number, middle in zip(order, middles, strict=True):
        pools.append([heights[number] - middle])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    flat = [float(np.mean(pool)) for pool in pools for _ in pool]
    placed = {number: rest + middle for number, rest, middle in zip(order, flat, middles, strict=True)}
    return [placed[number] for number in range(len(heights))]


def _check_numbers(where: str, values: Iterable[float]) -> None:
    if any(math.isinf(value) for value in values):
        raise InvalidInputError(f"What is drawn must be finite, or NaN where it is not known; {where} holds an infinity.")


def _check_order(where: str, low: Iterable[float], high: Iterable[float]) -> None:
    for one, other in zip(low, high, strict=True):
        if one > other:
            raise InvalidInputError(f"An interval must not end below its start; {where} has {one} to {other}.")
