"""How grounds look: asphalt, roads with their marks, slabs, cobbles, grass and gravel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from covis.town.meshes import Kind
from covis.town.painting import Paint, Painter, Points, Scenery
from covis.town.patterns import Floats, band, blend, cells, edge, mottle, pulse, single, whole

_WHITE = single([0.58, 0.58, 0.56])


def paint_asphalt(points: Points, _scenery: Scenery) -> Paint:
    """Bare asphalt: grain, patches, seams."""
    x, y = points.xyz[:, 0], points.xyz[:, 1]
    return Paint(_asphalt(x, y, np.maximum(points.du, points.dv)), 0.02)


def paint_road(points: Points, scenery: Scenery) -> Paint:
    """Asphalt with lane marks, crossings, parking bays and covers."""
    road = scenery.rows("roads", points.owner)
    u, v, du, dv = points.u, points.v, points.du, points.dv
    x, y, aside = points.xyz[:, 0], points.xyz[:, 1], np.abs(points.v)
    width = np.maximum(du, dv)
    colour = _asphalt(x, y, width)
    half, parking, lanes = road["half"], road["parking"], road["lanes"]
    wheel = np.exp(-np.square((np.abs(aside - (half - parking) * np.float32(0.5)) - np.float32(0.75)) * 2.2))
    colour *= (1 - np.float32(0.16) * wheel * (lanes > 0))[:, None]
    middle = road["middle"]
    dashes = np.where(middle == 1, pulse(u / np.float32(6), du / np.float32(6), 0.5), 1.0)
    centre = band(v, dv, low=-0.07, high=0.07) * dashes * (middle == 1)
    centre += (band(aside, dv, low=0.08, high=0.2)) * (middle == 2)
    between = (half - parking) * np.float32(0.5)
    lane = band(aside - between, dv, low=-0.06, high=0.06) * pulse(u / np.float32(6), du / np.float32(6), 0.5) * (lanes > 1)
    bays = band(aside - (half - parking), dv, low=-0.06, high=0.06) * (parking > 0)
    bays = np.maximum(bays, (aside > half - parking) * (1 - pulse(u / np.float32(5.7), du / np.float32(5.7), 0.982)) * (parking > 0))
    start, stop = u - road["zebra_start"], u - road["zebra_stop"]
    zebra = np.maximum(band(start, du, low=-1.5, high=1.5), band(stop, du, low=-1.5, high=1.5))
    halts = band(start, du, low=2.3, high=2.7) * (v > 0) + band(stop, du, low=-2.7, high=-2.3) * (v < 0)
    near = np.maximum(band(start, du, low=-4, high=2.5), band(stop, du, low=-2.5, high=4))
    marks = np.maximum(centre, np.maximum(lane, bays)) * (1 - near) + zebra * pulse(v, dv, 0.5) * (aside < half - 0.3)
    marks = np.clip(marks + halts * (aside < half - parking), 0, 1)
    worn = np.clip(0.92 - road["wear"] * (0.25 + 0.3 * mottle(x, y, width, size=0.3, salt=5)), 0.15, 1)
    colour = blend(colour, _WHITE, marks * worn)
    return Paint(_covers(colour, u, v, width), 0.02)


def _covers(colour: Floats, u: Floats, v: Floats, width: Floats) -> Floats:
    """Round iron covers here and there, and the gutter's dirt is left to the kerb."""
    column = whole(u / np.float32(23))
    away = np.hypot(u - 23 * column - 4 - 15 * cells(column, column, 3), v - 2.6 * cells(column, column, 8) + 1.2)
    return blend(colour, single([0.055, 0.052, 0.048]), edge(np.float32(0.31) - away, width) * np.float32(0.75))


def paint_paving(points: Points, _scenery: Scenery) -> Paint:
    """Slabs with joints, stains and chewing gum."""
    u, v, du, dv = points.u, points.v, points.du, points.dv
    size = np.where(points.salt % 3 == 0, np.float32(0.45), np.float32(0.75))
    joints = np.minimum(pulse(u / size, du / size, 0.955), pulse(v / size + 0.5 * (whole(u / size) & 1), dv / size, 0.955))
    slab = cells(whole(u / size), whole(v / size), points.salt) - np.float32(0.5)
    fade = np.minimum(size / np.maximum(du, dv), 1)
    tone = (0.58 + 0.42 * joints) * (1 + 0.16 * slab * fade)
    tone = tone * (1 + 0.10 * mottle(u, v, np.maximum(du, dv), size=2.0, salt=points.salt) + 0.05 * mottle(u, v, du, size=0.25, salt=4))
    hues = single([[0.27, 0.26, 0.245], [0.23, 0.225, 0.22], [0.30, 0.275, 0.235]])
    return Paint(hues[points.salt % 3] * tone[:, None], 0.02)


def paint_cobbles(points: Points, _scenery: Scenery) -> Paint:
    """Small stones in rows."""
    u, v, du, dv = points.u, points.v, points.du, points.dv
    size = np.float32(0.22)
    row = whole(v / size)
    joints = np.minimum(pulse(u / size + 0.5 * (row & 1), du / size, 0.84), pulse(v / size, dv / size, 0.84))
    stone = cells(whole(u / size + 0.5 * (row & 1)), row) * np.minimum(size / np.maximum(du, dv), 1)
    band_ = pulse(u / np.float32(6), du / np.float32(6), 0.9) * pulse(v / np.float32(6), dv / np.float32(6), 0.9)
    tone = (0.5 + 0.5 * joints) * (0.85 + 0.3 * stone) * (1 + 0.1 * mottle(u, v, du, size=3.0)) * (0.7 + 0.3 * band_)
    return Paint(tone[:, None] * single([0.23, 0.215, 0.20]), 0.02)


def paint_grass(points: Points, scenery: Scenery) -> Paint:
    """A lawn: blades, patches, and less green in winter."""
    x, y = points.xyz[:, 0], points.xyz[:, 1]
    width = np.maximum(points.du, points.dv)
    fine, large = mottle(x, y, width, size=0.1), mottle(x, y, width, size=2.2, salt=3)
    green = single([0.07, 0.13, 0.03]) * scenery.season + single([0.12, 0.115, 0.05]) * (1 - scenery.season)
    colour = green * np.clip(1 + 0.25 * fine + 0.2 * large, 0.3, 2)[:, None]
    bare = np.clip(mottle(x, y, width, size=3.5, salt=8) * 0.6 - 0.7, 0, 0.7)
    return Paint(blend(colour.astype(np.float32), single([0.14, 0.10, 0.065]), bare))


def paint_gravel(points: Points, _scenery: Scenery) -> Paint:
    """Gravel, soil and roofing felt, by their tint."""
    x, y = points.xyz[:, 0], points.xyz[:, 1]
    grain = mottle(x, y, points.du, size=0.06) * np.float32(0.2) + mottle(x, y, points.du, size=1.0, salt=2) * np.float32(0.12)
    return Paint(points.colour * np.clip(1 + grain, 0.4, 1.8)[:, None])


def _asphalt(x: Floats, y: Floats, width: Floats) -> Floats:
    tone = np.float32(0.105) * (1 + 0.09 * mottle(x, y, width, size=0.07) + 0.10 * mottle(x, y, width, size=1.6, salt=9))
    patch = cells(whole(x / np.float32(7.3)), whole(y / np.float32(5.9)), 31)
    tone = tone * np.where(patch > 0.86, np.float32(0.8), np.where(patch < 0.1, np.float32(1.18), 1))
    crack = np.clip(1 - np.abs(mottle(x, y, width, size=3.1, salt=77)) * 40, 0, 1) * (mottle(x, y, width, size=9.0, salt=6) > 0.4)
    tone = tone * (1 - 0.35 * crack * np.minimum(np.float32(0.05) / width, 1))
    colour: Floats = (tone[:, None] * single([0.98, 1.0, 1.04])).astype(np.float32)
    return colour


FLOORS: Mapping[Kind, Painter] = {
    Kind.ASPHALT: paint_asphalt,
    Kind.ROAD: paint_road,
    Kind.PAVING: paint_paving,
    Kind.COBBLES: paint_cobbles,
    Kind.GRASS: paint_grass,
    Kind.GRAVEL: paint_gravel,
}
