"""What one walks and drives on: roads with their marks, kerbs, side-walks, the square, the park and the yards."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.town.meshes import Builder, Kind, Label, Table
from covis.town.plans import HALF, Block, Plan, Points, Street
from covis.town.polygons import inset, rounded, triangulated

KERB = 0.13
"""Metres that a side-walk lies above the road."""
STRIP = 0.004
"""Metres that a road lies above the ground plane below all, so that the two never coincide."""

ROAD = np.dtype([(name, np.float32) for name in ("half", "length", "lanes", "parking", "zebra_start", "zebra_stop", "middle", "wear")])
"""One stretch of road, u along it and v from its middle to the left, metres; `lanes` each way, `parking` a strip's width.

`zebra_start` and `zebra_stop` are where crossings have their middle, -99 for none; `middle` is 1 for dashes, 2 for a line, 0 for none.
"""


def lay_ground(builder: Builder, plan: Plan, rng: np.random.Generator) -> Table:
    """Add the ground of the whole town; returns a row of `ROAD` for each street."""
    (x0, y0), (x1, y1) = plan.low, plan.high
    builder.quads([[[x0, y0, 0], [x1, y0, 0], [x1, y1, 0], [x0, y1, 0]]], kind=Kind.ASPHALT, label=Label.ROAD, across=(1.0, 0, 0))
    rows = _roads(builder, plan, rng)
    for block in plan.blocks:
        _block(builder, block)
    return rows


def trims(plan: Plan) -> NDArray[np.float64]:
    """(n, 2) metres by which each street's road ends before its start and stop node, where others cross."""
    around: dict[int, list[tuple[Points, float]]] = {}
    for street in plan.streets:
        for here, there in ((street.start, street.stop), (street.stop, street.start)):
            way = plan.nodes[there] - plan.nodes[here]
            around.setdefault(here, []).append((way / np.linalg.norm(way), HALF[street.kind]))
    found = np.zeros((len(plan.streets), 2))
    for row, street in enumerate(plan.streets):
        for side, (here, there) in enumerate(((street.start, street.stop), (street.stop, street.start))):
            way = plan.nodes[there] - plan.nodes[here]
            way = way / np.linalg.norm(way)
            cuts = [0.0]
            for other, half in around[here]:
                cos, sin = float(way @ other), abs(float(way[0] * other[1] - way[1] * other[0]))
                if cos < 0.999 and sin > 0.35 and len(around[here]) > 2:
                    cuts.append((half + HALF[street.kind] * cos) / sin + 2.5)
            found[row, side] = max(cuts)
    return found


def _roads(builder: Builder, plan: Plan, rng: np.random.Generator) -> Table:
    rows = np.zeros(len(plan.streets), ROAD)
    degree, cut = plan.degree(), trims(plan)
    for number, street in enumerate(plan.streets):
        start, stop = plan.nodes[street.start], plan.nodes[street.stop]
        way = (stop - start) / np.linalg.norm(stop - start)
        left, half = np.array([-way[1], way[0]]), HALF[street.kind]
        first, last = start + way * cut[number, 0], stop - way * cut[number, 1]
        length = float(np.linalg.norm(stop - start))
        ends = [first - left * half, last - left * half, last + left * half, first + left * half]
        corners = np.array([[*point, STRIP] for point in ends])
        builder.quads(corners, kind=Kind.ROAD, label=Label.ROAD, owner=number, origin=[*start, 0], salt=number)
        rows[number] = _road(street, length, degree, cut[number], rng)
    return rows


def _road(street: Street, length: float, degree: NDArray[np.int64], cut: NDArray[np.float64], rng: np.random.Generator) -> Table:
    row = np.zeros((), ROAD)
    row["half"], row["length"] = HALF[street.kind], length
    row["lanes"], row["parking"] = {"alley": (0, 0.0), "street": (1, 2.1), "avenue": (2, 2.1)}[street.kind]
    row["middle"] = {"alley": 0, "street": rng.choice([1, 1, 0]), "avenue": 2}[street.kind]
    busy = street.kind != "alley"
    row["zebra_start"] = cut[0] + 2.2 if busy and degree[street.start] > 2 and rng.random() < 0.75 else -99
    row["zebra_stop"] = length - cut[1] - 2.2 if busy and degree[street.stop] > 2 and rng.random() < 0.75 else -99
    row["wear"] = rng.uniform(0.2, 1)
    return row


def _block(builder: Builder, block: Block) -> None:
    edge = rounded(block.kerb, 4.0)
    _wall_and_top(builder, edge)
    top = inset(edge, 0.16)
    way = block.kerb[1] - block.kerb[0]
    across = [*(way / np.linalg.norm(way)), 0.0]
    kind = Kind.COBBLES if block.kind == "square" else Kind.PAVING
    _flat(builder, top, KERB, kind=kind, label=Label.SIDEWALK, across=across, salt=block.number)
    if block.kind in ("built", "rim", "park"):
        label = Label.TERRAIN
        _flat(builder, inset(block.front, 0.4), KERB + 0.02, kind=Kind.GRASS, label=label, across=across, salt=block.number)


def _wall_and_top(builder: Builder, edge: Points) -> None:
    """The kerb: its upright side and a stone's width on top."""
    after, inner = np.roll(edge, -1, 0), inset(edge, 0.16)

    def at(points: Points, z: float) -> Points:
        return np.column_stack([points, np.full(len(points), z)])

    side = np.stack([at(edge, 0), at(after, 0), at(after, KERB), at(edge, KERB)], 1)
    stone = np.stack([at(edge, KERB), at(after, KERB), at(np.roll(inner, -1, 0), KERB), at(inner, KERB)], 1)
    builder.quads(np.concatenate([side, stone]), kind=Kind.PLAIN, label=Label.SIDEWALK, colour=(0.30, 0.29, 0.28), salt=7)


def _flat(builder: Builder, polygon: Points, z: float, **look: Any) -> None:
    corners = np.column_stack([polygon, np.full(len(polygon), z)])
    builder.polygon(corners[triangulated(polygon)], **look)
