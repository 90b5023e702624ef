"""Lots: the fronts of blocks cut into pieces, each for one house or a gap."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from covis.town.meshes import Table
from covis.town.plans import SIDEWALK, Block, Points
from covis.town.polygons import area, inset
from covis.town.styles import STYLES, Style, draw_facade, fitted


@dataclass(frozen=True)
class Lot:
    """Ground for one house.

    Attributes:
        corners: (4, 2) metres, counter-clockwise from the front's left end as one sees it from the street.
        style: of its district.
        facade: the front's row of `FACADE`; None for a gap.
        roof: a word of `Style.roofs`.
        ends: whether the left and the right neighbour stands in the same line (then that side is a party wall).
        yard: metres between the side-walk and the front.
        block: its number.
    """

    corners: Points
    style: Style
    facade: Table | None
    roof: str
    ends: tuple[bool, bool]
    yard: float
    block: int


def cut_lots(block: Block, style_name: str, rng: np.random.Generator) -> list[Lot]:
    """Lots along every side of a block that faces a street, corner lots cut along the bisector."""
    style = STYLES[style_name]
    depth = min(rng.uniform(9, 12), 0.42 * _breadth(block.front))
    inner = inset(block.front, depth)
    lots: list[Lot] = []
    sides = len(block.front)
    for side in range(sides):
        if SIDEWALK[block.streets[side]] == 0:
            continue
        faced = [SIDEWALK[block.streets[other % sides]] > 0 for other in (side - 1, side + 1)]
        ends = block.front[side], block.front[(side + 1) % sides]
        backs = inner[side], inner[(side + 1) % sides]
        lots += _cut_side(ends, backs, depth, faced, style, block.number, rng)
    return lots


def _cut_side(
    ends: tuple[Points, Points],
    backs: tuple[Points, Points],
    depth: float,
    faced: list[bool],
    style: Style,
    block: int,
    rng: np.random.Generator,
) -> list[Lot]:
    way = ends[1] - ends[0]
    length = float(np.linalg.norm(way))
    way = way / length
    inward = np.array([-way[1], way[0]])
    cuts = _cuts(length, style, rng)
    yard = rng.uniform(*style.setback)
    lots: list[Lot] = []
    before: Lot | None = None
    for number, (start, stop) in enumerate(itertools.pairwise(cuts)):
        first, last = number == 0, number == len(cuts) - 2
        corners = np.array(
            [ends[0] + way * start, ends[0] + way * stop, ends[0] + way * stop + inward * depth, ends[0] + way * start + inward * depth]
        )
        if first and faced[0]:
            corners[3] = backs[0]
        if last and faced[1]:
            corners[2] = backs[1]
        gap = not first and not last and rng.random() < style.gap
        moved = 0.0 if first or last or gap else yard
        corners[:2] += inward * moved
        facade, roof = (None, "") if gap else _house(before, style, float(stop - start), rng)
        lot = Lot(corners, style, facade, roof, (not first, not last), yard=moved, block=block)
        lots.append(lot)
        before = before if gap else lot
    return _with_neighbours(lots)


def _house(before: Lot | None, style: Style, width: float, rng: np.random.Generator) -> tuple[Table, str]:
    """A new facade, or that of the house before: rows of equal houses are what confuses places."""
    if before is not None and before.facade is not None and rng.random() < style.repeat:
        row = fitted(before.facade, width)
        row["salt"], row["shop_salt"] = rng.integers(1 << 16, size=2)
        return row, before.roof
    return draw_facade(style, width, rng), str(rng.choice(style.roofs))


def _with_neighbours(lots: list[Lot]) -> list[Lot]:
    """Sides towards a gap are no party walls."""
    known = [lot.facade is not None for lot in lots]
    return [replace(lot, ends=(lot.ends[0] and known[k - 1], lot.ends[1] and known[(k + 1) % len(lots)])) for k, lot in enumerate(lots)]


def _cuts(length: float, style: Style, rng: np.random.Generator) -> NDArray[np.float64]:
    """Where lots begin and end, 0 and `length` included."""
    widths: list[float] = []
    while sum(widths) < length:
        widths.append(float(rng.uniform(*style.width)))
    if len(widths) > 1 and sum(widths) - length > widths[-1] / 2:
        widths.pop()
    return np.concatenate([[0.0], np.cumsum(widths)]) * (length / sum(widths))


def _breadth(polygon: Points) -> float:
    """About the diameter of the largest circle inside, metres: twice the area over half the outline."""
    outline = float(np.linalg.norm(np.roll(polygon, -1, 0) - polygon, axis=1).sum())
    return 4 * area(polygon) / outline
