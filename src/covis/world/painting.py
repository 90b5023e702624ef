"""What things look like: a painter for each material turns points on surfaces into colours and glow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from covis.world.patterns import band, cells, mottle, pulse, whole
from covis.world.plans import FRONT, ROAD, Table
from covis.world.shapes import Floats, Integers, Material

Paint = tuple[Floats, Floats]
"""Colour (n, 3) in [0, 1] by white light, and glow (n,): how much of it shines by itself at night."""


@dataclass(frozen=True)
class Points:
    """Points on surfaces of one material, all arrays (n,).

    Args:
        x, y, z: metres in the street's frame.
        u, v: metres along the surface from its lower corner.
        du, dv: the metres of u and v that one ray covers.
        axis: of the surface's normal.
        owner: rows of the material's table.
    """

    x: Floats
    y: Floats
    z: Floats
    u: Floats
    v: Floats
    du: Floats
    dv: Floats
    axis: Integers
    owner: Integers


@dataclass(frozen=True)
class Scenery:
    """The tables that the painters look up: `facades`, `things`, `cars`, the `zebras`, and the share of `lit` windows."""

    facades: Table
    things: Table
    cars: Table
    zebras: Floats
    lit: float


def paint_ground(points: Points, scenery: Scenery) -> Paint:
    """Asphalt with lane marks, parking bays, zebra crossings and patches."""
    x, y, du, dv = points.x, points.y, points.du, points.dv
    tone = 0.36 + 0.03 * mottle(x, y, np.maximum(du, dv), size=0.5) + 0.03 * mottle(x, y, du, size=6.0, salt=9)
    lane = pulse(x / 5, du / 5, 0.45) * band(y, dv, low=-0.08, high=0.08)
    bays = band(np.abs(y), dv, low=ROAD - 2.15, high=ROAD - 2.05)
    nearest = np.abs(x[:, None] - scenery.zebras).min(1) if len(scenery.zebras) else np.full_like(x, np.inf)
    crossing = band(nearest, du, low=-1.5, high=1.5) * (np.abs(y) < ROAD)
    marks = np.maximum(np.maximum(lane, bays) * (1 - crossing), crossing * pulse(y, dv, 0.5))
    colour = tone[:, None] * np.array([0.97, 0.98, 1.02], np.float32)
    return _blend(colour, np.array([0.85, 0.85, 0.82], np.float32), marks * 0.9), np.zeros_like(x)


def paint_pavement(points: Points, _scenery: Scenery) -> Paint:
    """Slabs between kerb and houses, grass behind them; the kerb itself is paler."""
    x, y, du, dv = points.x, points.y, points.du, points.dv
    joints = np.minimum(pulse(x / 0.9, du / 0.9, 0.94), pulse(y / 0.9, dv / 0.9, 0.94))
    tone = (0.50 + 0.08 * joints) * (1 + 0.10 * cells(whole(x / 0.9), whole(y / 0.9), 3)) + 0.02 * mottle(x, y, du, size=3.0)
    colour = tone[:, None] * np.array([1.02, 1.0, 0.95], np.float32)
    colour = _blend(colour, np.array([0.72, 0.71, 0.69], np.float32), np.where(np.abs(y) < ROAD + 0.18, 0.9, 0))
    grass = np.array([0.26, 0.38, 0.16], np.float32) * (1 + 0.2 * mottle(x, y, du, size=0.7, salt=5))[:, None]
    return np.where((np.abs(y) > FRONT + 0.2)[:, None], grass, colour), np.zeros_like(x)


def paint_facade(points: Points, scenery: Scenery) -> Paint:
    """Walls with windows by bay and floor, a ground floor with doors or a shop, and what is stuck on them."""
    house = scenery.facades[points.owner]
    u, v, du, dv = points.u, points.v, points.du, points.dv
    colour = _wall(points, house)
    upper = np.clip((v - house["ground"]) / dv + 0.5, 0, 1)
    front = (points.axis == 1).astype(np.float32)
    colour, light = _windows(points, house, colour, upper * front, scenery.lit)
    colour, shop_light = _ground_floor(points, house, colour, (1 - upper) * front)
    left, low, width, height = house["poster_at"].T
    poster = band(u, du, low=left, high=left + width) * band(v, dv, low=low, high=low + height)
    strokes = cells(whole((u - left) / width * 5), whole((v - low) / height * 5), house["salt"]) > 0.55
    colour = _blend(colour, np.where(strokes[:, None], house["ink"], house["poster"]), poster * 0.92)
    return colour, np.maximum(light, shop_light if scenery.lit else 0) * (1 - poster)


def paint_plain(points: Points, scenery: Scenery) -> Paint:
    """One colour with spots."""
    thing = scenery.things[points.owner]
    spots = 1 + thing["mottle"] * mottle(points.x + points.y, points.z + points.y, points.du, size=0.5, salt=thing["salt"])
    return thing["colour"] * spots[:, None], thing["glow"] if scenery.lit else np.zeros_like(points.x)


def paint_leaves(points: Points, scenery: Scenery) -> Paint:
    """Foliage: clumps, darker below."""
    thing = scenery.things[points.owner]
    clumps = mottle(points.x + points.y, points.z + 0.7 * points.y, points.du, size=0.6, salt=thing["salt"])
    return thing["colour"] * np.clip(0.9 + 0.28 * clumps, 0.3, 2)[:, None], np.zeros_like(points.x)


def paint_car(points: Points, scenery: Scenery) -> Paint:
    """Body colour, wheels on the sides, windows around the cabin, lamps at both ends."""
    car = scenery.cars[points.owner]
    (x0, y0, z0), (x1, y1, z1) = car["low"].T, car["high"].T
    top = points.axis == 2
    side, end = points.axis == 1, points.axis == 0
    du, dv = points.du, points.dv
    cabin = points.z > z1 + 0.01
    van = (car["cabin"] == 0) & (points.z > z0 + 1.0) & (points.z < z1 - 0.25)
    colour = car["colour"] * np.where(points.z < z0 + 0.15, 0.5, 1)[:, None].astype(np.float32)
    pane = np.where(van, (end | (points.x < x0 + 0) | (points.x > x1 - 1.3)), cabin & (points.z < z1 + 0.48)) & ~top
    pillars = np.where(side, pulse((points.x - x0 - 0.9) / 1.3, du / 1.3, 0.9), 1.0)
    colour = _blend(colour, np.array([0.10, 0.12, 0.15], np.float32), pane * pillars)
    axle = np.minimum(np.abs(points.x - x0 - 0.75), np.abs(points.x - x1 + 0.75))
    radius = np.sqrt(axle**2 + (points.z - 0.32) ** 2)
    colour = _blend(colour, np.array([0.06, 0.06, 0.06], np.float32), side * np.clip((0.34 - radius) / du + 0.5, 0, 1))
    colour = _blend(colour, np.array([0.5, 0.5, 0.5], np.float32), side * np.clip((0.16 - radius) / du + 0.5, 0, 1))
    lamps = (
        end
        * band(points.z, dv, low=z0 + 0.38, high=z0 + 0.55)
        * (band(points.y, du, low=y0, high=y0 + 0.35) + band(points.y, du, low=y1 - 0.35, high=y1))
    )
    colour = _blend(colour, np.array([0.7, 0.12, 0.08], np.float32), lamps)
    plate = end * band(points.z, dv, low=z0 + 0.2, high=z0 + 0.32) * band(points.y, du, low=(y0 + y1) / 2 - 0.26, high=(y0 + y1) / 2 + 0.26)
    return _blend(colour, np.array([0.9, 0.9, 0.85], np.float32), plate), np.zeros_like(points.x)


def paint_shade(points: Points, _scenery: Scenery) -> Paint:
    """The dark below a car."""
    return np.full((len(points.x), 3), 0.09, np.float32), np.zeros_like(points.x)


PAINTERS: Mapping[Material, Callable[[Points, Scenery], Paint]] = {
    Material.GROUND: paint_ground,
    Material.PAVEMENT: paint_pavement,
    Material.FACADE: paint_facade,
    Material.PLAIN: paint_plain,
    Material.LEAVES: paint_leaves,
    Material.CAR: paint_car,
    Material.SHADE: paint_shade,
}


def _wall(points: Points, house: Table) -> Floats:
    u, v, du, dv = points.u, points.v, points.du, points.dv
    mortar = 1 - np.minimum(pulse(v / 0.25, dv / 0.25, 0.8), pulse(u / 0.6 + 0.5 * np.floor(v / 0.25), du / 0.6, 0.93))
    stains = mottle(u, v, np.maximum(du, dv), size=2.5, salt=house["salt"])
    tone = 1 + 0.35 * house["brick"] * (mortar - 0.25) + 0.06 * stains
    course = pulse((v - house["ground"]) / house["floor"] + 0.5, dv / house["floor"], 0.09) * (v > house["ground"] - 0.3)
    lower = np.where((v < house["ground"])[:, None], house["base"], house["wall"])
    return _blend(lower * tone[:, None], house["trim"], course * house["band"])


def _windows(points: Points, house: Table, colour: Floats, where: Floats, lit: float) -> Paint:
    """Panes with frames and shutters, each lit or curtained by its own cell."""
    across, above = points.u / house["bay"], (points.v - house["ground"]) / house["floor"]
    wide, tall = points.du / house["bay"], points.dv / house["floor"]
    column, row = whole(across), whole(above)
    above = np.where(above < np.floor((house["height"] - house["ground"]) / house["floor"]), above, 0)
    across_pane, up_pane = pulse(across, wide, house["pane"]), pulse(above, tall, house["rise"])
    framed = pulse(across, wide, house["pane"] + 2 * house["frame"] / house["bay"]) * pulse(
        above, tall, house["rise"] + 2 * house["frame"] / house["floor"]
    )
    blind = pulse(across, wide, np.minimum(house["pane"] * 1.9, 0.98)) * up_pane * house["shutter"]
    colour = _blend(_blend(colour, house["door"], where * blind), house["trim"], where * framed)
    cell = cells(column, row, house["salt"])
    drawn = np.where(cell > 0.7, 0.55, 0.0) + 0.25 * (above - np.floor(above))
    glass = house["glass"] + drawn[:, None].astype(np.float32) * np.array([0.6, 0.6, 0.58], np.float32)
    pane = where * across_pane * up_pane * (1 - 0.5 * (1 - pulse(across, wide, 0.96)))
    return _blend(colour, glass, pane), pane * (cells(row, column, house["salt"] + 1) < lit)


def _ground_floor(points: Points, house: Table, colour: Floats, where: Floats) -> Paint:
    """A shop with its sign and awning, or small windows; and a door."""
    u, v, du, dv = points.u, points.v, points.du, points.dv
    top, shop = house["ground"], where * house["shop"]
    across, wide = u / house["bay"], du / house["bay"]
    display = shop * band(v, dv, low=0.5, high=top - 1.0) * pulse(across, wide, 0.88)
    goods = cells(whole(u / 0.6), whole(v / 0.6), house["salt"])[:, None] * np.array([0.5, 0.42, 0.3], np.float32)
    small = where * (1 - house["shop"]) * band(v, dv, low=1.1, high=2.5) * pulse(across, wide, house["pane"])
    colour = _blend(colour, house["glass"] + goods * np.minimum(0.6 / du, 1)[:, None], display)
    colour = _blend(colour, house["glass"], small)
    board = shop * band(v, dv, low=top - 0.85, high=top - 0.1) * band(u, du, low=0.3, high=house["width"] - 0.3)
    letters = (cells(whole(u / 0.35), whole(v * 0), house["salt"] + 2) > 0.4) * band(v, dv, low=top - 0.65, high=top - 0.3)
    letters = letters * band(u, du, low=house["width"] * 0.25, high=house["width"] * 0.75)
    colour = _blend(colour, house["sign"], board)
    colour = _blend(colour, 0.95 - 0.6 * house["sign"], board * letters * np.minimum(0.5 / du, 1))
    awning = shop * house["awning"] * band(v, dv, low=top - 1.5, high=top - 0.85)
    stripes = pulse(u / 0.8, du / 0.8, 0.5)[:, None]
    colour = _blend(colour, house["sign"] * stripes + 0.9 * (1 - stripes), awning)
    door = where * band(u, du, low=house["door_at"], high=house["door_at"] + 1.1) * band(v, dv, low=0, high=2.3)
    return _blend(colour, house["door"], door), np.maximum(display * 0.8, small * 0.3) * (1 - door)


def _blend(colour: Floats, over: Floats, share: Floats) -> Floats:
    """Cover `share` (n,) of `colour` with `over`."""
    mixed: Floats = colour + share[:, None].astype(np.float32) * (over - colour)
    return mixed
