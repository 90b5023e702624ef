"""View sectors and the exact area that two of them share.

A camera on the ground sees a circular sector: apex (its position), heading, opening angle (`fov`) and radius (`reach`). The
shared area is exact, in closed form: no polygon stands for an arc.

It is a walk along the boundary of the intersection (Green's theorem, ½∮ x dy - y dx) with the origin at the apex of the
sector of smaller radius, A. A's two edges then add nothing, and what remains are A's arc inside B, B's two edges inside A
and B's arc inside A. An arc is cut down by at most four circular intervals, an edge by three linear ones. Where two
boundaries cross, the same square root gives the angle on the arc and the length on the edge (or the angle on both
arcs), so that the pieces meet and rounding moves the area by no more than about 1e-16 of the product of the radii. A sector of more
than 180 degrees is a disc less a sector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.neighbours import Neighbours

Measure: TypeAlias = Literal["iou", "fraction"]
Floats: TypeAlias = NDArray[np.float64]
SNAP = 1e-12
"""A shared fraction closer than this to 0 or 1 is 0 or 1: touching sectors leave residues of 1e-16."""
BLOCK = 8192
"""Pairs computed at once: their intermediate arrays stay in the processor's cache."""


@dataclass(frozen=True)
class Sectors:
    """n view sectors.

    Attributes:
        xy: (n, 2) float64, apexes, metres east and north.
        heading: (n,) degrees clockwise from north.
        fov: (n,) opening angle, degrees in (0, 360].
        reach: (n,) radius, metres, > 0.

    >>> Sectors.of([[0, 0]], heading=0, fov=90, reach=50).area.round(3)
    array([1963.495])
    """

    xy: Floats
    heading: Floats
    fov: Floats
    reach: Floats

    @classmethod
    def of(cls, xy: Any, *, heading: Any, fov: Any, reach: Any) -> Sectors:
        """Sectors from numbers or arrays; a single number holds for all.

        Raises:
            InvalidInputError: a value is not finite or out of its range, or the lengths differ.
        """
        try:
            apex = np.asarray(xy, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"The positions of sectors must be numbers; {error}.") from error
        if apex.ndim != 2 or apex.shape[1] != 2:
            raise InvalidInputError(f"The positions of sectors must be (n, 2), metres east and north; got shape {apex.shape}.")
        try:
            columns = [np.broadcast_to(np.asarray(value, dtype=np.float64), (len(apex),)) for value in (heading, fov, reach)]
        except ValueError as error:
            raise InvalidInputError(f"heading, fov and reach must be one number or one for each of the {len(apex)} sectors.") from error
        rules = (("fov", "in (0, 360] degrees", (columns[1] > 0) & (columns[1] <= 360)), ("reach", "more than 0 metres", columns[2] > 0))
        for name, values in (("xy", apex), ("heading", columns[0]), ("reach", columns[2])):
            if not np.isfinite(values).all():
                raise InvalidInputError(f"Every {name} of a sector must be finite; got {values[~np.isfinite(values)][0]}.")
        for name, rule, holds in rules:
            if not holds.all():
                raise InvalidInputError(f"Every {name} of a sector must be {rule}; got {columns[1 if name == 'fov' else 2][~holds][0]}.")
        return cls(apex, *columns)

    def __len__(self) -> int:
        return len(self.xy)

    def take(self, rows: Any) -> Sectors:
        """The sectors of these rows."""
        return Sectors(self.xy[rows], self.heading[rows], self.fov[rows], self.reach[rows])

    @property
    def area(self) -> Floats:
        """(n,) square metres."""
        return np.deg2rad(self.fov) / 2 * self.reach**2

    def circles(self) -> tuple[Floats, Floats]:
        """The least circles around the sectors: (n, 2) centres and (n,) radii; sectors share nothing where these are apart."""
        half = np.deg2rad(self.fov) / 2
        narrow, wide = half <= np.pi / 4, half >= np.pi / 2
        inside = np.cos(np.clip(half, 0, np.pi / 2))
        along = np.where(narrow, self.reach / (2 * np.cos(np.where(narrow, half, 0))), np.where(wide, 0, self.reach * inside))
        radius = np.where(narrow, along, np.where(wide, self.reach, self.reach * np.sin(half)))
        angle = np.deg2rad(self.heading)
        return self.xy + along[:, None] * np.column_stack([np.sin(angle), np.cos(angle)]), radius


def shared_area(a: Sectors, b: Sectors) -> Floats:
    """(n,) square metres that sector i of `a` and sector i of `b` share; the same bits for (a, b) and (b, a).

    Exact to a few 1e-12 of the smaller sector for openings of half a degree and more and radii up to 25 times apart.

    >>> here = Sectors.of([[0, 0]], heading=0, fov=90, reach=50)
    >>> ahead = Sectors.of([[0, 10]], heading=0, fov=90, reach=50)
    >>> (shared_area(here, ahead) / here.area).round(6)
    array([0.666542])
    """
    if len(a) != len(b):
        raise InvalidInputError(f"Sectors are compared row by row; got {len(a)} and {len(b)}.")
    return _Table(a, b).shared(np.arange(len(a)), np.arange(len(b)))


def overlap(a: Sectors, b: Sectors, *, measure: Measure = "iou") -> Floats:
    """(n,) similarity in [0, 1] of sector i of `a` and sector i of `b`.

    Args:
        a: the queries' sectors; "fraction" is of their area.
        b: the database's.
        measure: "iou": intersection over union; "fraction": intersection over the area of the query's sector.

    Raises:
        InvalidInputError: the measure is neither, or the lengths differ.
    """
    if measure not in ("iou", "fraction"):
        raise InvalidInputError(f"The measure of two sectors must be 'iou' or 'fraction'; got {measure!r}.")
    return _similarity(shared_area(a, b), a.area, b.area, measure)


def _similarity(shared: Floats, mine: Floats, theirs: Floats, measure: Measure) -> Floats:
    least = np.minimum(mine, theirs)
    shared = np.where(shared < SNAP * least, 0.0, np.where(shared > (1 - SNAP) * least, least, shared))
    value = shared / (mine + theirs - shared) if measure == "iou" else shared / mine
    return np.where(value > 1 - SNAP, 1.0, value)


class _Table:
    """Two sets of sectors side by side, with what the area needs of each sector computed once, not once a pair."""

    def __init__(self, a: Sectors, b: Sectors) -> None:
        self.first = len(a)
        xy = np.concatenate([a.xy, b.xy])
        heading, half = (np.deg2rad(np.concatenate([getattr(a, name), getattr(b, name)])) for name in ("heading", "fov"))
        half /= 2
        # The plane is mirrored (x north, y east), so that an angle is a heading in radians.
        sector = (np.concatenate([a.reach, b.reach]), xy[:, 1], xy[:, 0], heading, half)
        cos, sin = np.cos(heading - half), np.sin(heading - half)
        # Both edges of 180 degrees lie on one line; if they rounded apart, an arc that touches it would lose 1e-8 of the area.
        straight = np.abs(half - np.pi / 2) < 1e-12
        half[straight] = np.pi / 2
        edges = (cos, sin, np.where(straight, -cos, np.cos(heading + half)), np.where(straight, -sin, np.sin(heading + half)))
        self.columns = np.array([*sector, *edges])
        self.convex = bool(((half <= np.pi / 2) | (half >= np.pi)).all())
        self.rank: NDArray[np.int64] | None = None

    def order(self) -> None:
        """Rank the sectors once, where each is compared many times."""
        order = np.lexsort(self.columns[4::-1])
        new = (np.diff(self.columns[:5, order], axis=1) != 0).any(axis=0)
        self.rank = np.empty(len(order), dtype=np.int64)
        self.rank[order] = np.concatenate([[0], np.cumsum(new)])

    def shared(self, row: NDArray[np.int64], column: NDArray[np.int64]) -> Floats:
        """(p,) the shared area of sectors `row` of the first set and `column` of the second."""
        result = np.empty(len(row))
        for start in range(0, len(row), BLOCK):
            part = slice(start, start + BLOCK)
            one, two = row[part], column[part] + self.first
            # The sector of smaller radius becomes A; ties are ordered, so that exchanged arguments give the same bits.
            swap = self._after(one, two) if self.rank is None else self.rank[two] < self.rank[one]
            result[part] = self._block(np.where(swap, two, one), np.where(swap, one, two))
        return result

    def _after(self, one: NDArray[np.int64], two: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the first comes after the second: by radius, then position, then heading, then opening."""
        after, tied = np.zeros(len(one), dtype=bool), np.ones(len(one), dtype=bool)
        for column in self.columns[:5]:
            after |= tied & (column[two] < column[one])
            tied &= column[two] == column[one]
        return after

    def _block(self, one: NDArray[np.int64], two: NDArray[np.int64]) -> Floats:
        a, b = np.take(self.columns, one, axis=1), np.take(self.columns, two, axis=1)
        x, y = b[1] - a[1], b[2] - a[2]
        if self.convex:
            return np.maximum(_convex(x, y, a, b), 0)
        total = np.zeros(len(x))
        for sign_a, part_a, where_a in _convex_parts(a):
            for sign_b, part_b, where_b in _convex_parts(b):
                rows = np.flatnonzero(where_a & where_b)
                if rows.size:
                    total[rows] += sign_a * sign_b * _convex(x[rows], y[rows], part_a[:, rows], part_b[:, rows])
        return np.maximum(total, 0)


def _convex_parts(sector: Floats) -> list[tuple[int, Floats, NDArray[np.bool_]]]:
    """(sign, columns, where): sectors of up to 180 degrees and discs, which add up to those given."""
    half = sector[4]
    reflex = (half > np.pi / 2) & (half < np.pi)
    if not reflex.any():
        return [(1, sector, np.ones(len(half), dtype=bool))]
    outer, inner = sector.copy(), sector.copy()
    outer[4, reflex] = np.pi
    inner[3], inner[4] = sector[3] + np.pi, np.pi - half
    inner[5:] = sector[[7, 8, 5, 6]]  # its first edge is the other's last
    return [(1, outer, np.ones(len(half), dtype=bool)), (-1, inner, reflex)]


def _convex(x: Floats, y: Floats, a: Floats, b: Floats) -> Floats:
    """The area that A (apex at the origin, the smaller radius) and B (apex at x, y) share; openings up to 180 degrees, or discs."""
    radius_a, heading_a, half_a, radius_b, heading_b, half_b = a[0], a[3], a[4], b[0], b[3], b[4]
    edges_a, edges_b = _edges(a), _edges(b)
    distance = np.sqrt(x * x + y * y)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # The circles cross at `along` from A on the line to B, `aside` from that line.
        along = (distance + (radius_a - radius_b) * (radius_a + radius_b) / distance) / 2
        along[distance == 0] = -np.inf
        aside = np.sqrt(np.maximum(0, (radius_a - along) * (radius_a + along)))
        toward = np.arctan2(y, x)
        area = radius_a**2 / 2 * _arc(heading_a, half_a, [(toward, np.arctan2(aside, along)), *_cuts(edges_b, x, y, radius_a, sign=1)])[0]
        near = (toward + np.pi, np.arctan2(aside, distance - along))
        area += _arc(heading_b, half_b, [near, *_cuts(edges_a, x, y, radius_b, sign=-1)], moment=(x, y, radius_b))[1]
        for sign, (_, cos, sin, disc) in zip((1, -1), edges_b, strict=True):
            height = x * sin - y * cos
            length = _clipped(x, y, cos, sin, height, radius_a=radius_a, radius_b=radius_b, edges=edges_a)
            area += np.where(disc, 0, sign * height * length / 2)
    return np.asarray(area)


_Edge: TypeAlias = tuple[Floats, Floats, Floats, NDArray[np.bool_]]


def _edges(sector: Floats) -> tuple[_Edge, _Edge]:
    """(angle of the inner normal, cosine and sine of the edge's direction, whether it is a disc without edges) of both edges."""
    heading, half, cos_first, sin_first, cos_last, sin_last = sector[3:]
    disc = half >= np.pi
    turned = np.pi / 2 - half
    return (heading + turned, cos_first, sin_first, disc), (heading - turned, cos_last, sin_last, disc)


def _cuts(edges: tuple[_Edge, _Edge], x: Floats, y: Floats, radius: Floats, *, sign: int) -> list[tuple[Floats, Floats]]:
    """The circular intervals (centre, half) of an arc of that radius that lie on the inner side of each edge of the other sector."""
    cuts = []
    for side, (normal, cos, sin, disc) in zip((1, -1), edges, strict=True):
        height = side * (y * cos - x * sin)  # of the other apex over the edge's line, along the inner normal
        reach = np.sqrt(np.maximum(0, (radius - height) * (radius + height)))
        cuts.append((normal, np.where(disc, np.pi, np.arctan2(reach, sign * height))))
    return cuts


def _arc(
    heading: Floats, half: Floats, cuts: list[tuple[Floats, Floats]], *, moment: tuple[Floats, Floats, Floats] | None = None
) -> tuple[Floats, Floats]:
    """What all circular intervals leave of an arc [heading ± half]: (n,) its angle, and with `moment` its part of Green's integral."""
    size = len(heading)
    row, low, high = np.arange(size), heading - half, heading + half
    for centre, width in cuts:
        c, w, middle = centre[row], width[row], (low + high) / 2
        c = c - 2 * np.pi * np.round((c - middle) / (2 * np.pi))  # the turn nearest to the piece
        again = np.flatnonzero(w + (high - low) / 2 > 2 * np.pi - np.abs(c - middle))
        first, last = np.maximum(low, c - w), np.minimum(high, c + w)
        if again.size:  # the piece reaches around the interval's gap
            other = c[again] - 2 * np.pi * np.where(c[again] >= middle[again], 1, -1)
            row = np.concatenate([row, row[again]])
            first = np.concatenate([first, np.maximum(low[again], other - w[again])])
            last = np.concatenate([last, np.minimum(high[again], other + w[again])])
        kept = np.flatnonzero(last > first)
        row, low, high = row[kept], first[kept], last[kept]
    angle = np.asarray(np.bincount(row, weights=high - low, minlength=size), dtype=np.float64)
    if moment is None:
        return angle, angle
    x, y, radius = (value[row] for value in moment)
    step, middle = (high - low) / 2, (low + high) / 2
    part = radius * (radius * step + np.sin(step) * (x * np.cos(middle) + y * np.sin(middle)))
    return angle, np.asarray(np.bincount(row, weights=part, minlength=size), dtype=np.float64)


def _clipped(
    x: Floats,
    y: Floats,
    cos: Floats,
    sin: Floats,
    height: Floats,
    *,
    radius_a: Floats,
    radius_b: Floats,
    edges: tuple[_Edge, _Edge],
) -> Floats:
    """(n,) the length of an edge of B (from x, y along cos, sin) that lies within A."""
    chord = np.sqrt(np.maximum(0, (radius_a - height) * (radius_a + height)))
    foot = -(x * cos + y * sin)
    low, high = np.maximum(0, foot - chord), np.minimum(radius_b, foot + chord)
    for side, (_, edge_cos, edge_sin, disc) in zip((1, -1), edges, strict=True):
        start = side * (y * edge_cos - x * edge_sin)
        slope = side * (sin * edge_cos - cos * edge_sin)
        at = -start / slope
        low = np.where(~disc & (slope > 0), np.maximum(low, at), low)
        high = np.where(~disc & (slope < 0), np.minimum(high, at), high)
        high = np.where(~disc & (slope == 0) & (start < 0), low, high)
    return np.asarray(np.maximum(0, high - low))


@dataclass(frozen=True)
class Overlaps:
    """What `overlaps` found: the pairs of similarity above 0, and how many candidates were looked at.

    Attributes:
        rows: (p,) int64 query rows, ascending.
        columns: (p,) int64 database rows.
        values: (p,) float64 in (0, 1].
        candidates: pairs that the k-d tree over the least circles hands on to be looked at.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: Floats
    candidates: int


def overlaps(
    queries: Sectors,
    database: Sectors,
    *,
    measure: Measure = "iou",
    max_heading_difference: float | None = None,
    block: int = 500_000,
    workers: int | None = None,
) -> Overlaps:
    """Every pair of a query and a database sector that share something.

    Candidates come from a k-d tree over the least circles around the sectors; nothing of size queries × database is made.

    Args:
        queries: q sectors.
        database: d sectors.
        measure: as in `overlap`.
        max_heading_difference: pairs whose headings differ by more share nothing, degrees; None: no such gate. An all-round view
            (360 degrees) has no heading and passes.
        block: candidate pairs in memory at once and worker (about 100 bytes each).
        workers: threads; default: all cores.

    Raises:
        InvalidInputError: a parameter is out of its range.
    """
    if max_heading_difference is not None and not 0 <= max_heading_difference <= 180:
        raise InvalidInputError(f"The heading gate must be in [0, 180] degrees, or none; got {max_heading_difference}.")
    if measure not in ("iou", "fraction") or block < 1 or (workers is not None and workers < 1):
        raise InvalidInputError(f"measure must be 'iou' or 'fraction', block and workers >= 1; got {measure!r}, {block}, {workers}.")
    if not len(queries) or not len(database):
        return Overlaps(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0), 0)
    search = _Search(queries, database, measure, max_heading_difference)
    parts = search.neighbours.each(search.pairs, block=block, workers=workers)
    rows, columns, values = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return Overlaps(rows, columns, values, sum(part[3] for part in parts))


class _Search:
    """Candidate pairs of two sets of sectors, and what they share."""

    def __init__(self, queries: Sectors, database: Sectors, measure: Measure, gate: float | None) -> None:
        self.queries, self.database, self.measure, self.gate = queries, database, measure, gate
        (centres, self.radii), (others, self.other_radii) = queries.circles(), database.circles()
        self.neighbours = Neighbours(centres, others, self.radii + self.other_radii.max(), exact=False)
        self.same_size = bool((self.other_radii == self.other_radii[0]).all())
        self.table, self.areas, self.other_areas = _Table(queries, database), queries.area, database.area
        self.table.order()

    def pairs(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, int]:
        """(query rows, database rows, similarities, candidates) of the pairs above 0 of these queries."""
        row, column = self.neighbours.pairs(rows)
        candidates = len(row)
        kept = np.ones(candidates, dtype=bool)
        if not self.same_size:
            kept = self.neighbours.distances(row, column) < self.radii[row] + self.other_radii[column]
        if self.gate is not None:
            turn = np.abs((self.queries.heading[row] - self.database.heading[column] + 180) % 360 - 180)
            all_round = (self.queries.fov[row] >= 360) | (self.database.fov[column] >= 360)  # which has no heading
            kept &= (turn <= self.gate + 1e-9) | all_round
        if not kept.all():
            row, column = row[kept], column[kept]
        values = _similarity(self.table.shared(row, column), self.areas[row], self.other_areas[column], self.measure)
        above = values > 0
        return row[above], column[above], values[above], candidates
