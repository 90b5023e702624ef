"""The plan of a street: where its houses, trees, lamps and parked cars stand, drawn from a generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.world.shapes import Floats, Material, Shapes, boxes, concatenate, ellipsoids, floors

Table = NDArray[Any]
"""A structured array: one row per house, car or plain thing, one field per property."""

ROAD = 4.2
"""Metres from the middle of the road to its kerb; cars stand on the outer two metres."""
FRONT = 7.4
"""Metres from the middle of the road to the line that houses keep, before their setback."""
KERB = 0.12
"""Metres that the pavement rises above the road."""
BEYOND = 45.0
"""Metres that the street goes on after the last camera, to the house across its end."""

FACADE = np.dtype(
    [
        *((name, np.float32, 3) for name in ("wall", "trim", "glass", "base", "sign", "door", "poster", "ink")),
        *((name, np.float32) for name in ("width", "depth", "height", "bay", "floor", "ground")),
        *((name, np.float32) for name in ("pane", "rise", "frame", "shutter", "brick", "band", "awning", "shop", "door_at")),
        ("poster_at", np.float32, 4),
        ("salt", np.int32),
    ]
)
"""A house's face. Lengths are in metres, colours in [0, 1]; `pane` and `rise` are a window's share of its bay and its floor."""

PLAIN = np.dtype([("colour", np.float32, 3), ("mottle", np.float32), ("glow", np.float32), ("salt", np.int32)])
CAR = np.dtype([("colour", np.float32, 3), ("low", np.float32, 3), ("high", np.float32, 3), ("cabin", np.float32), ("salt", np.int32)])

# Few styles and many colours: streets repeat themselves, houses do not.
#          bay  floor pane rise frame shutter brick band
STYLES = (
    (2.4, 3.0, 0.46, 0.56, 0.10, 0.0, 1.0, 0.0),  # brick terrace
    (2.9, 3.4, 0.40, 0.62, 0.14, 1.0, 0.0, 0.6),  # plaster with shutters
    (3.4, 3.1, 0.82, 0.50, 0.06, 0.0, 0.0, 0.9),  # ribbon windows, concrete
    (1.9, 3.6, 0.52, 0.66, 0.12, 0.0, 0.6, 0.5),  # narrow and tall
    (4.2, 3.0, 0.60, 0.48, 0.08, 0.0, 0.3, 0.0),  # wide panes
    (2.6, 2.8, 0.34, 0.44, 0.12, 0.6, 0.0, 0.2),  # small windows
    (1.5, 3.3, 0.84, 0.86, 0.05, 0.0, 0.0, 0.3),  # curtain wall
)
WALLS = np.array(
    [
        (0.62, 0.30, 0.24), (0.48, 0.26, 0.20), (0.74, 0.46, 0.34), (0.86, 0.76, 0.58), (0.90, 0.86, 0.78), (0.80, 0.66, 0.36),
        (0.66, 0.70, 0.72), (0.50, 0.56, 0.52), (0.58, 0.64, 0.76), (0.82, 0.60, 0.56), (0.44, 0.42, 0.42), (0.72, 0.74, 0.58),
        (0.92, 0.92, 0.90), (0.56, 0.44, 0.36),
    ]
)  # fmt: skip
ACCENTS = np.array(
    [
        (0.75, 0.12, 0.12), (0.10, 0.30, 0.62), (0.10, 0.45, 0.25), (0.92, 0.72, 0.10), (0.85, 0.40, 0.08), (0.40, 0.15, 0.45),
        (0.08, 0.50, 0.52), (0.15, 0.15, 0.17), (0.90, 0.88, 0.84), (0.35, 0.20, 0.12),
    ]
)  # fmt: skip
CAR_COLOURS = np.array(
    [
        (0.75, 0.76, 0.78),
        (0.12, 0.13, 0.15),
        (0.85, 0.85, 0.84),
        (0.55, 0.10, 0.10),
        (0.14, 0.24, 0.48),
        (0.40, 0.42, 0.44),
        (0.75, 0.62, 0.2),
    ]
)


@dataclass(frozen=True)
class Plan:
    """Everything that stands in a street whatever the visit.

    Args:
        shapes: the geometry.
        facades: a row of `FACADE` for each house.
        things: a row of `PLAIN` for each trunk, crown, pole, wall and roof.
        zebras: (n,) metres along the street, the middle of each crossing.
        skyline: (2, m) float32, the height in metres of the right and the left row of houses at each metre along the street.
    """

    shapes: Shapes
    facades: Table
    things: Table
    zebras: Floats
    skyline: Floats


@dataclass(frozen=True)
class Cars:
    """The cars of one visit: their geometry, and a row of `CAR` for each."""

    shapes: Shapes
    table: Table


def plan_street(length: float, rng: np.random.Generator) -> Plan:
    """Lay out a street of `length` metres (from the first camera to the last) and what lies beyond its end."""
    rows = [plan_row(length, side, rng) for side in (-1, 1)]
    house_table, low, high = (np.concatenate(parts) for parts in zip(*rows, _across(length, rng), strict=True))
    owner = np.arange(len(house_table))
    zebras = np.arange(rng.uniform(8, 20), length + BEYOND - 15, 38.0) + rng.uniform(-6, 6)
    things = _Things(rng)
    things.roofs(low, high)
    things.gardens(low, high)
    things.trees_and_lamps(length)
    plain_shapes, table = things.finish()
    ends = [-20.0, length + BEYOND - 12]
    kerbs = boxes(
        [[ends[0], -60, -1], [ends[0], ROAD, -1]], [[ends[1], -ROAD, KERB], [ends[1], 60, KERB]], material=Material.PAVEMENT, owner=[0, 0]
    )
    road = floors([[-20, -90]], [[length + BEYOND + 40, 90]], height=0.0, material=Material.GROUND)
    shapes = concatenate([boxes(low, high, material=Material.FACADE, owner=owner), plain_shapes, kerbs, road])
    return Plan(shapes, house_table, table, zebras.astype(np.float32), _skyline(low, high, length))


def plan_row(length: float, side: int, rng: np.random.Generator) -> tuple[Table, Floats, Floats]:
    """One side's houses: their table and the (n, 3) lowest and highest corners of their boxes, metres."""
    facades, low, high = [], [], []
    x = rng.uniform(-12, -6)
    while x < length + BEYOND - 20:
        width, depth = rng.uniform(6, 15), rng.uniform(8, 12)
        house = draw_facade(rng, width, depth)
        front = FRONT + rng.choice([0.0, 0.0, 0.0, 1.0, 2.4])
        corners = [[x, side * front], [x + width, side * (front + depth)]]
        facades.append(house)
        low.append([*np.min(corners, 0), 0])
        high.append([*np.max(corners, 0), house["height"][0]])
        x += width + (rng.uniform(2.5, 7) if rng.random() < 0.28 else 0)
    return np.concatenate(facades), np.array(low, np.float32), np.array(high, np.float32)


def draw_facade(rng: np.random.Generator, width: float, depth: float) -> Table:
    """One row of `FACADE`: a style, its colours and what makes this house itself."""
    row = np.zeros(1, FACADE)
    bay, floor, *shares = np.array(STYLES[rng.integers(len(STYLES))]) * np.append(rng.uniform(0.92, 1.08, 6), [1, 1])
    stories, ground = rng.integers(1, 5), rng.uniform(3.3, 4.2)
    row["bay"], row["floor"] = width / max(round(width / bay), 1), floor
    for name, share in zip(("pane", "rise", "frame", "shutter", "brick", "band"), shares, strict=True):
        row[name] = min(share, 0.9)
    row["width"], row["depth"], row["ground"] = width, depth, ground
    row["height"] = ground + stories * floor + rng.uniform(0.3, 1.0)
    row["wall"] = np.clip(WALLS[rng.integers(len(WALLS))] * rng.uniform(0.85, 1.1) + rng.normal(0, 0.03, 3), 0.05, 1)
    row["trim"] = np.clip(row["wall"] * 0.5 + rng.choice([0.05, 0.48]), 0, 1)
    row["glass"] = np.array([0.16, 0.20, 0.25]) * rng.uniform(0.7, 1.5)
    row["base"] = row["wall"] * rng.choice([0.6, 0.8, 1.0])
    for name in ("sign", "door", "poster", "ink"):
        row[name] = np.clip(ACCENTS[rng.integers(len(ACCENTS))] + rng.normal(0, 0.04, 3), 0, 1)
    row["shop"], row["awning"] = rng.random() < 0.5, rng.random() < 0.4
    row["door_at"] = rng.uniform(0.6, width - 1.8)
    large = rng.random() < 0.3  # a mural, else a poster or a tag
    size = rng.uniform([2.5, 2.0], [5, 5]) if large else rng.uniform([0.8, 0.7], [2.4, 1.6])
    row["poster_at"] = [rng.uniform(0.2, max(width - size[0], 0.4)), rng.uniform(0.3, 1.4) + large * rng.uniform(1, 4), *size]
    row["salt"] = rng.integers(1 << 16)
    return row


def plan_cars(length: float, density: float, rng: np.random.Generator) -> Cars:
    """Park cars along both kerbs.

    Args:
        length: metres of street with cameras.
        density: share of the parking places that are taken.
        rng: differs between visits; nothing else of the street does.
    """
    x, side = (grid.ravel() for grid in np.meshgrid(np.arange(-4, length + BEYOND - 16, 6.0), [-1, 1]))
    taken = rng.random(len(x)) < density
    x, side = x[taken] + rng.uniform(0, 1, taken.sum()), side[taken]
    table = np.zeros(len(x), CAR)
    van = rng.random(len(x)) < 0.15
    size = np.where(van[:, None], [4.9, 1.9, 2.0], [4.2, 1.75, 0.92]) * rng.uniform(0.94, 1.06, (len(x), 3))
    y = side * (ROAD - 0.25 - size[:, 1] / 2 - rng.uniform(0, 0.25, len(x)))
    table["low"] = np.stack([x, y - size[:, 1] / 2, np.full(len(x), 0.18)], 1)
    table["high"] = table["low"] + size - [0, 0, 0.18]
    table["colour"] = CAR_COLOURS[rng.integers(len(CAR_COLOURS), size=len(x))] * rng.uniform(0.85, 1.1, (len(x), 1))
    table["cabin"], table["salt"] = ~van, rng.integers(1 << 16, size=len(x))
    low, high, rows = table["low"], table["high"], np.arange(len(x))
    shade = floors(low[:, :2] - 0.1, high[:, :2] + 0.1, height=0.0, material=Material.SHADE)
    cabins = rows[~van]
    inset = np.array([0.85, 0.14, 0], np.float32)
    cabin_low, cabin_high = low[cabins] + inset, high[cabins] - inset + [0.25, 0, 0]
    cabin_low[:, 2], cabin_high[:, 2] = high[cabins, 2], high[cabins, 2] + 0.56
    body = boxes(low, high, material=Material.CAR, owner=rows)
    return Cars(concatenate([body, boxes(cabin_low, cabin_high, material=Material.CAR, owner=cabins), shade]), table)


def _across(length: float, rng: np.random.Generator) -> tuple[Table, Floats, Floats]:
    """The houses across the far end, which close the view."""
    facades = [draw_facade(rng, 12.0, 12.0) for _ in range(5)]
    low = np.array([[length + BEYOND, 12.0 * k - 30, 0] for k in range(5)], np.float32)
    high = low + [[12, 12, float(house["height"][0])] for house in facades]
    return np.concatenate(facades), low, high.astype(np.float32)


def _skyline(low: Floats, high: Floats, length: float) -> Floats:
    heights = np.zeros((2, int(length + BEYOND) + 40), np.float32)
    for corner, top in zip(low, high, strict=True):
        if abs(corner[1]) < 40 and corner[0] < length + BEYOND - 1:
            heights[int(corner[1] > 0), max(int(corner[0]) + 20, 0) : int(top[0]) + 20] = top[2]
    return heights


class _Things:
    """Collects the plain things of a street, each a shape and a row of `PLAIN`."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.parts: list[Shapes] = []
        self.rows: list[Table] = []

    def finish(self) -> tuple[Shapes, Table]:
        return concatenate(self.parts), np.concatenate(self.rows)

    def add(self, colour: Floats, *, mottle: float = 0.08, glow: float = 0.0) -> int:
        row = np.zeros(1, PLAIN)
        row["colour"], row["mottle"], row["glow"], row["salt"] = colour, mottle, glow, self.rng.integers(1 << 16)
        self.rows.append(row)
        return len(self.rows) - 1

    def box(self, low: list[float], high: list[float], colour: Floats, *, mottle: float = 0.08, glow: float = 0.0) -> None:
        self.parts.append(boxes([low], [high], material=Material.PLAIN, owner=[self.add(colour, mottle=mottle, glow=glow)]))

    def roofs(self, low: Floats, high: Floats) -> None:
        """A cornice, and on some houses an attic behind it and a chimney."""
        for corner, top in zip(low.tolist(), high.tolist(), strict=True):
            x, y, z = top
            tone = np.array([0.36, 0.35, 0.37]) * self.rng.uniform(0.7, 1.3)
            self.box([corner[0] - 0.15, corner[1] - 0.25, z], [x + 0.15, y + 0.25, z + 0.3], tone + 0.25)
            if self.rng.random() < 0.6:
                tone = tone if self.rng.random() < 0.5 else np.array([0.50, 0.26, 0.18])
                self.box([corner[0] + 0.3, corner[1] + 1, z + 0.3], [x - 0.3, y - 1, z + self.rng.uniform(1.5, 3)], tone, mottle=0.15)
            for chimney in self.rng.uniform(corner[0] + 0.5, x - 1.2, self.rng.integers(0, 3)):
                self.box(
                    [chimney, (corner[1] + y) / 2 - 3, z], [chimney + 0.7, (corner[1] + y) / 2 - 2.2, z + 4], np.array([0.45, 0.28, 0.22])
                )

    def gardens(self, low: Floats, high: Floats) -> None:
        """Close each gap between two neighbours with a wall or a hedge."""
        for (_, y, _), (x, _, _), (stop, other, _) in zip(low[:-1].tolist(), high[:-1].tolist(), low[1:].tolist(), strict=True):
            if 1 < stop - x < 10 and y * other > 0:
                near = FRONT if y > 0 else -FRONT - 0.4
                hedge = self.rng.random() < 0.5
                colour = np.array([0.20, 0.34, 0.14]) if hedge else np.array([0.62, 0.56, 0.50])
                self.box([x, near, 0], [stop, near + 0.4, self.rng.uniform(1.2, 2.2)], colour * self.rng.uniform(0.8, 1.2), mottle=0.3)
                self.tree((x + stop) / 2, near + np.sign(y) * 5, self.rng.uniform(5, 8))

    def trees_and_lamps(self, length: float) -> None:
        for side in (-1, 1):
            leafy = self.rng.random() < 0.75
            x = self.rng.uniform(-5, 10)
            while x < length + BEYOND - 16:
                y = side * (ROAD + 0.7)
                if leafy and self.rng.random() < 0.55:
                    self.tree(x, y, self.rng.uniform(3.4, 6))
                else:
                    self.lamp(x, y, side)
                x += self.rng.uniform(9, 18)

    def tree(self, x: float, y: float, height: float) -> None:
        self.box([x - 0.13, y - 0.13, 0], [x + 0.13, y + 0.13, height * 0.6], np.array([0.30, 0.23, 0.17]), mottle=0.3)
        green = np.array([0.24, 0.40, 0.14]) * self.rng.uniform(0.75, 1.25) + self.rng.uniform(0, 0.08, 3) * [1, 0.5, 0]
        for _ in range(3):
            centre = np.array([x, y, height * 0.8]) + self.rng.uniform(-0.5, 0.5, 3)
            radius = self.rng.uniform(0.22, 0.32, 3) * height
            self.parts.append(ellipsoids([centre], [radius], material=Material.LEAVES, owner=[self.add(green)]))

    def lamp(self, x: float, y: float, side: int) -> None:
        grey = np.array([0.25, 0.27, 0.28])
        self.box([x - 0.07, y - 0.07, 0], [x + 0.07, y + 0.07, 5.0], grey)
        ends = sorted([y, y - side * 1.2])
        self.box([x - 0.05, ends[0], 4.95], [x + 0.05, ends[1], 5.05], grey)
        head = sorted([y - side * 0.7, y - side * 1.3])
        self.box([x - 0.15, head[0], 4.82], [x + 0.15, head[1], 4.95], grey + 0.5, mottle=0.0, glow=1.0)
