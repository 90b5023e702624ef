"""How walls look: brick, plaster and stone; windows with depth, frames and reflections; doors, shops, signs and scrawls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from covis.town.meshes import Kind
from covis.town.painting import Paint, Painter, Points, Rows, Scenery
from covis.town.patterns import Floats, Integers, band, blend, cells, edge, linear, mottle, pulse, single, whole
from covis.town.styles import MATERIALS

_PLASTER, _BRICK, _STONE, _PANELS, _BOARDS, _GLASS = range(len(MATERIALS))
_WARM, _COLD = single([1.0, 0.66, 0.32]), single([0.8, 0.9, 1.0])
_SCRAWLS = linear([[0.1, 0.1, 0.12], [0.75, 0.1, 0.3], [0.1, 0.35, 0.75], [0.9, 0.9, 0.9], [0.15, 0.6, 0.3]])


def paint_wall(points: Points, _scenery: Scenery) -> Paint:
    """A wall without openings; `owner` is its material."""
    tone = _texture(points.owner, points.u, points.v, points.du, points.dv, points.salt)
    return Paint(points.colour * tone[:, None])


def paint_facade(points: Points, scenery: Scenery) -> Paint:
    """A house's wall with all that is on it."""
    house = scenery.rows("facades", points.owner)
    cell = _cell(points, house)
    colour = _surface(points, house, cell)
    share = _within(points, cell, cell.x, cell.y)
    _surround(colour, points, house, cell)
    gloss, glow = np.full(len(points), 0.01, np.float32), np.zeros((len(points), 3), np.float32)
    rows = np.flatnonzero(share > 0)  # most of a wall is wall: what is behind it is only painted where it is open
    if len(rows):
        _open(colour, gloss, glow, _Part(points.take(rows), house.take(rows), cell.take(rows), share[rows], rows), scenery)
    _board(colour, points, house, cell)
    _scrawl(colour, points, house, share)
    return Paint(colour, gloss, glow)


_NONE, _WINDOW, _SHOPWINDOW, _DOOR = range(4)


@dataclass(frozen=True)
class _Cell:
    """The bay and floor that each point is in, and what opening it has; lengths in metres.

    `x` is from the middle of the bay, `y` from the floor; the opening reaches `half` to both sides and from `low` to `high`.
    """

    column: Integers
    row: Integers
    x: Floats
    y: Floats
    kind: Integers
    half: Floats
    low: Floats
    high: Floats
    floor: Floats

    def take(self, rows: Integers) -> _Cell:
        """Some of them."""
        return _Cell(*(getattr(self, field.name).take(rows) for field in fields(self)))


@dataclass(frozen=True)
class _Part:
    """The points of a wall where it is open: `share` of the pixel, and their `rows` among all points."""

    points: Points
    house: Rows
    cell: _Cell
    share: Floats
    rows: Integers


def _cell(points: Points, house: Rows) -> _Cell:
    u, v = points.u, points.v
    bay, ground, floor, margin = house["bay"], house["ground"], house["floor"], house["margin"]
    across = (u - margin) / bay
    column = whole(across)
    count = np.rint((house["width"] - 2 * margin) / bay).astype(np.int32)
    row = np.where(v < ground, -1, whole((v - ground) / floor))
    base = np.where(row < 0, 0, ground + row * floor)
    tall = np.where(row < 0, ground, floor)
    salt, openness = house["salt"], house["openness"]
    present = (
        (column >= 0) & (column < count) & (base + tall * np.float32(0.9) < house["height"]) & (cells(column, row * 0, salt + 5) < openness)
    )
    street = row < 0
    door = street & (column == salt % np.maximum(count, 1)) & (openness == 1)
    shop = street & ~door & (cells(column // 2, column * 0, salt + 3) < house["shop"])
    kind = np.where(present, np.where(door, _DOOR, np.where(shop, _SHOPWINDOW, _WINDOW)), _NONE)
    half = np.where(
        kind == _DOOR, np.float32(0.62), np.where(kind == _SHOPWINDOW, bay * np.float32(0.46), bay * house["pane"] * np.float32(0.5))
    )
    half = np.minimum(half, bay * np.float32(0.48))
    rise = house["rise"] * floor
    low = np.where(
        kind == _DOOR,
        0,
        np.where(kind == _SHOPWINDOW, np.float32(0.45), np.where(street, np.float32(1.0), (floor - rise) * np.float32(0.55))),
    )
    high = np.where(
        kind == _DOOR, np.float32(2.45), np.where(kind == _SHOPWINDOW, ground - np.float32(0.95), low + rise * np.where(street, 0.95, 1))
    )
    x = (across - column - np.float32(0.5)) * bay
    return _Cell(column, row, x, v - base, kind, half, low.astype(np.float32), high.astype(np.float32), floor)


def _surface(points: Points, house: Rows, cell: _Cell) -> Floats:
    """Wall, plinth, courses between floors, corner stones, weather."""
    u, v, du, dv, salt = points.u, points.v, points.du, points.dv, house["salt"]
    tone = _texture(house["material"], u, v, du, dv, salt)
    base = edge(np.float32(0.55) - v, dv) + (cell.row < 0) * np.float32(0.45) * (house["shop"] > 0)
    colour = blend(house["wall"], house["base"], np.minimum(base, 1))
    width = np.maximum(du, dv)
    rain = mottle(u * 3, v * np.float32(0.35), width, size=1.0, salt=salt)
    foot = np.exp(-np.maximum(v, 0) * np.float32(0.9))
    weather = 1 + house["grime"] * (0.07 * rain - 0.22 * foot + 0.05 * mottle(u, v, width, size=3.0, salt=salt))
    colour = colour * (tone * np.clip(weather, 0.4, 1.3))[:, None]
    course = band(cell.y, dv, low=-0.02, high=0.16) * (cell.row >= 0) * house["band"]
    shadow = band(cell.y, dv, low=cell.floor - 0.09, high=cell.floor) * (cell.row >= 0) * house["band"]
    brick = whole(v / np.float32(0.32)) & 1
    reach = np.where(brick, np.float32(0.42), np.float32(0.28))
    stones = np.maximum(edge(reach - u, du), edge(u - house["width"] + reach, du)) * house["quoin"]
    colour = blend(colour, house["trim"] * np.float32(0.9), np.maximum(course, stones))
    shown: Floats = colour * (1 - 0.45 * shadow)[:, None]
    return shown


def _texture(material: Integers, u: Floats, v: Floats, du: Floats, dv: Floats, salt: Integers) -> Floats:
    """How bright the wall is at each point, about 1."""
    wide = single([2.0, 0.22, 0.9, 1.6, 5.0, 1.4])[material]
    tall = single([2.0, 0.075, 0.42, 1.1, 0.16, 1.7])[material]
    gap_u = single([1.0, 0.94, 0.975, 0.985, 1.0, 0.97])[material]
    gap_v = single([1.0, 0.82, 0.95, 0.98, 0.88, 0.97])[material]
    depth = single([0.0, -0.35, 0.35, 0.4, 0.45, 0.5])[material]
    spread = single([0.0, 0.3, 0.16, 0.08, 0.08, 0.0])[material]
    row = whole(v / tall)
    shift = np.where(material == _PANELS, 0, np.float32(0.5)) * (row & 1)
    joint = 1 - pulse(u / wide + shift, du / wide, gap_u) * pulse(v / tall, dv / tall, gap_v)
    mean = 1 - gap_u * gap_v
    stone = (cells(whole(u / wide + shift), row, salt) - np.float32(0.5)) * np.minimum(tall / np.maximum(du, dv), 1)
    fine = mottle(u, v, np.maximum(du, dv), size=0.16, salt=salt)
    tone: Floats = 1 - depth * (joint - mean) + spread * stone + np.float32(0.035) * fine
    return tone


def _within(points: Points, cell: _Cell, x: Floats, y: Floats) -> Floats:
    """The share of each pixel that lies in its cell's opening."""
    inside: Floats = edge(cell.half - np.abs(x), points.du) * edge(y - cell.low, points.dv) * edge(cell.high - y, points.dv)
    inside *= cell.kind != _NONE
    return inside


def _open(colour: Floats, gloss: Floats, glow: Floats, part: _Part, scenery: Scenery) -> None:
    """Paint what is seen through openings into `colour`, `gloss` and `glow` of the whole wall."""
    points, house, cell, rows = part.points, part.house, part.cell, part.rows
    recess = np.where(cell.kind == _SHOPWINDOW, np.float32(0.12), house["recess"])
    deeper = recess / np.maximum(-points.wn, np.float32(0.12))
    x, y = cell.x + points.wu * deeper, cell.y + points.wv * deeper  # where the view goes through the pane, behind the wall's thickness
    seen, frame = part.share * _within(points, cell, x, y), _frame(points, house, cell, x, y)
    pane, light = _pane(points, house, cell, x, y, scenery)
    pane *= (1 - np.float32(0.55) * np.exp(-np.maximum(cell.high - y, 0) * np.float32(4)))[:, None]
    reveal = house["trim"] * np.float32(0.35)
    painted = blend(blend(colour[rows], reveal, part.share), pane, seen)
    door = cell.kind == _DOOR
    colour[rows] = blend(painted, np.where(door[:, None], house["door"], house["frame_colour"]), seen * frame)
    gloss[rows] += seen * (1 - frame) * np.where(door, np.float32(0.01), np.float32(0.13))
    glow[rows] = light * (seen * (1 - 0.8 * frame))[:, None]


def _frame(points: Points, house: Rows, cell: _Cell, x: Floats, y: Floats) -> Floats:
    """How much of each pixel of an opening is frame and bars; of a door, the leaf."""
    du, dv, wide, tall = points.du, points.dv, 2 * cell.half, np.maximum(cell.high - cell.low, np.float32(0.3))
    thick, shop = house["frame"], cell.kind == _SHOPWINDOW
    inner = edge(cell.half - thick - np.abs(x), du) * edge(y - cell.low - thick, dv) * edge(cell.high - thick - y, dv)
    across = wide / np.where(shop, np.maximum(np.rint(wide / np.float32(1.6)), 1), house["mullions"])
    up = tall / np.where(shop, 1, house["transoms"])
    bars = pulse((x + cell.half) / across, du / across, np.maximum(1 - thick / across, 0.3))
    bars = bars * pulse((y - cell.low) / up, dv / up, np.maximum(1 - thick / up, 0.3))
    leaf = edge(np.float32(2.05) - y, dv) * np.float32(0.97)
    return np.where(cell.kind == _DOOR, leaf, 1 - inner * bars).astype(np.float32)


def _surround(colour: Floats, points: Points, house: Rows, cell: _Cell) -> None:
    """Lintels, sills and shutters around windows, painted into `colour`."""
    near = (
        (np.abs(cell.x) < 2 * cell.half + np.float32(0.2)) & (cell.y > cell.low - np.float32(0.4)) & (cell.y < cell.high + np.float32(0.4))
    )
    rows = np.flatnonzero(near & (cell.kind == _WINDOW))
    if not len(rows):
        return
    house, cell = house.take(rows), cell.take(rows)
    du, dv, aside = points.du.take(rows), points.dv.take(rows), np.abs(cell.x)
    over, under = cell.y - cell.low, cell.high - cell.y
    around = edge(cell.half + np.float32(0.13) - aside, du) * edge(over + np.float32(0.02), dv) * edge(under + np.float32(0.17), dv)
    shown = blend(colour.take(rows, axis=0), house["trim"] * np.float32(0.95), around * house["lintel"])
    leaf = band(aside - cell.half, du, low=0.03, high=0.12 + 0.45 * cell.half) * edge(over, dv) * edge(under, dv)
    slats = np.float32(0.75) + np.float32(0.25) * pulse(cell.y / np.float32(0.09), dv / np.float32(0.09), 0.6)
    shown = blend(shown, house["blind"] * slats[:, None], leaf * house["shutter"] * (cell.row >= 0))
    sill = band(over, dv, low=-0.11, high=0.0) * edge(cell.half + np.float32(0.1) - aside, du)
    below = band(over, dv, low=-0.24, high=-0.11) * edge(cell.half + np.float32(0.06) - aside, du)
    shown = blend(shown, house["trim"], sill * (house["gloss"] == 0))
    colour[rows] = shown * (1 - np.float32(0.35) * below)[:, None]


def _pane(points: Points, house: Rows, cell: _Cell, across: Floats, above: Floats, scenery: Scenery) -> tuple[Floats, Floats]:
    """What is behind the glass by day, and its light by night."""
    salt = house["salt"]
    chance, other = cells(cell.column, cell.row, salt), cells(cell.row + 5, cell.column, salt + 11)
    x, y = across / np.maximum(cell.half, np.float32(0.2)), (above - cell.low) / np.maximum(cell.high - cell.low, np.float32(0.3))
    curtain = (np.abs(x) > np.float32(0.35) + other * np.float32(0.8)) * np.float32(0.22) * (chance > 0.35)
    blind = (y > other) * (chance > 0.78) * np.float32(0.34)
    room = np.float32(0.018) + np.float32(0.03) * other + np.maximum(curtain, blind)
    colour = room[:, None] * np.where((other > 0.5)[:, None], single([1.0, 0.96, 0.88]), single([0.95, 1.0, 1.05]))
    colour = colour * np.where(house["gloss"] > 0, np.float32(0.5), 1)[:, None]
    shop = cell.kind == _SHOPWINDOW
    goods, tint = _goods(points, house, cell, across, above)
    colour = np.where(shop[:, None], goods, colour).astype(np.float32)
    if not scenery.lit and not scenery.lamps:
        return colour, np.where(shop[:, None], goods * np.float32(0.25) + np.float32(0.012), np.float32(0)).astype(np.float32)
    lamp = np.where((other > 0.75)[:, None], _COLD, _WARM)
    on = (cells(cell.column, cell.row, salt + 7) < scenery.lit) & ~shop
    light = on * (np.float32(0.35) + np.float32(0.5) * chance) * (np.float32(0.45) + np.float32(0.55) * y) + curtain * on
    bright = shop * (tint > 0.25) * (np.float32(0.5) + tint)
    ceiling = np.clip((above - cell.low) * np.float32(0.35), 0.15, 1)
    glow = lamp * light[:, None] + (goods * np.float32(1.7) + ceiling[:, None] * single([0.15, 0.12, 0.08])) * bright[:, None]
    return colour, glow.astype(np.float32)


def _goods(points: Points, house: Rows, cell: _Cell, across: Floats, above: Floats) -> tuple[Floats, Floats]:
    """What a shop shows, and a number for each shop."""
    salt = house["shop_salt"]
    shop = cells(cell.column // 2, cell.column * 0, salt)
    near = np.minimum(np.float32(0.3) / np.maximum(points.du, points.dv), 1)
    x, y = across + cell.column * np.float32(3.1), above
    thing = cells(whole(x / np.float32(0.42)), whole(y / np.float32(0.5)), salt)
    shelf = thing * (y < np.float32(1.0) + np.float32(0.9) * cells(whole(x / np.float32(0.42)), cell.column, salt + 2))
    hue = np.stack([thing, cells(whole(x / np.float32(0.42)), whole(y / np.float32(0.5)), salt + 1), 1 - thing], 1)
    back = np.float32(0.045) + np.float32(0.09) * shop
    goods = back[:, None] + (shelf * near * np.float32(0.35))[:, None] * (np.float32(0.3) + hue)
    poster = (cells(cell.column, cell.column * 0, salt + 4) > 0.7) * (np.abs(across) < 0.5) * band(y, points.dv, low=1.1, high=2.1)
    return blend(goods.astype(np.float32), house["awning"] * np.float32(0.8), poster * np.float32(0.9)), shop


def _board(colour: Floats, points: Points, house: Rows, cell: _Cell) -> None:
    """The signs over shops: boards with letters, painted into `colour`."""
    top = house["ground"]
    rows = np.flatnonzero((points.v < top - 0.1) & (points.v > top - 1.0) & (house["shop"] > 0) & (house["openness"] == 1))
    if not len(rows):
        return
    house, column = house.take(rows), cell.column[rows] // 2
    u, v, du, dv, top = points.u[rows], points.v[rows], points.du[rows], points.dv[rows], top[rows]
    salt = house["shop_salt"]
    board = band(v, dv, low=top - 0.85, high=top - 0.22) * (cells(column, column * 0, house["salt"] + 3) < house["shop"])
    size = np.float32(0.34) + np.float32(0.12) * cells(column, salt, 1)
    letter = pulse(u / size, du / size, 0.72) * band(v, dv, low=top - 0.72, high=top - 0.36)
    strokes = cells(whole(u / size * 5), whole((v - top) * 9), salt) > 0.38
    word = cells(whole(u / np.float32(2.6)), salt, 6) > 0.3
    ink = letter * np.where(np.maximum(du, dv) < 0.09, strokes, np.float32(0.6)) * word
    painted = blend(colour[rows], house["sign"], board * np.float32(0.95))
    colour[rows] = blend(painted, house["letter"], board * ink)


def _scrawl(colour: Floats, points: Points, house: Rows, opening: Floats) -> None:
    """Graffiti within reach of an arm, painted into `colour`."""
    u, v = points.u, points.v
    salt = house["salt"]
    where = house["width"] * (np.float32(0.15) + np.float32(0.6) * cells(salt, salt, 2))
    size = np.float32(0.8) + np.float32(1.6) * cells(salt, salt, 4)
    inside = (np.abs(u - where) < size) & (np.abs(v - np.float32(1.25)) < np.float32(0.75)) & (house["graffiti"] > 0)
    rows = np.flatnonzero(inside)
    if not len(rows):
        return
    x, y, width, seed = u[rows], v[rows], points.du[rows], salt[rows]
    line = np.abs(mottle(x, y, width, size=0.55, salt=seed)) < 0.22
    fill = mottle(x, y, width, size=0.55, salt=seed) > 0.5
    ink, second = _SCRAWLS[seed % 5], _SCRAWLS[(seed // 5) % 5]
    changed = blend(colour[rows], second, fill * np.float32(0.75))
    changed = blend(changed, ink, line * np.minimum(np.float32(0.15) / width, 1) * np.float32(0.9))
    colour[rows] = blend(changed, colour[rows], opening[rows] * np.float32(0.8))


FRONTS: Mapping[Kind, Painter] = {Kind.FACADE: paint_facade, Kind.WALL: paint_wall}
