"""What surfaces look like: a painter for each kind of patch turns points into colours, gloss and glow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.town.meshes import Kind, Table
from covis.town.patterns import Floats, Integers, band, blend, cells, edge, linear, mottle, pulse, single, whole


@dataclass(frozen=True)
class Points:
    """Points on patches of one kind, seen by a camera; all arrays (n,) float32 unless said.

    Attributes:
        xyz: (n, 3) metres.
        u, v: metres in the patch's frame.
        du, dv: the metres of u and v that one pixel covers.
        wu, wv, wn: the view's direction along the patch's axes and its normal (wn < 0).
        colour: (n, 3) the patch's own tint.
        owner: (n,) int32 rows of the kind's table.
        salt: (n,) int32.
    """

    xyz: Floats
    u: Floats
    v: Floats
    du: Floats
    dv: Floats
    wu: Floats
    wv: Floats
    wn: Floats
    colour: Floats
    owner: Integers
    salt: Integers

    def __len__(self) -> int:
        return len(self.u)

    def take(self, rows: Integers) -> Points:
        """Some of them."""
        return Points(*(getattr(self, field.name).take(rows, axis=0) for field in fields(self)))


@dataclass
class Paint:
    """What a painter gives; all arrays are its own.

    Attributes:
        albedo: (n, 3) the share of light that is thrown back, linear.
        gloss: (n,) or one number: the share that is mirrored, face on.
        glow: (n, 3) light of its own, or None.
    """

    albedo: Floats
    gloss: Floats | float = 0.0
    glow: Floats | None = None


@dataclass(frozen=True)
class Scenery:
    """What painters look up.

    Attributes:
        tables: by name, see `Rows`.
        lit: the share of windows with a lamp on.
        lamps: whether the street lamps are on.
        season: 1 in summer to 0 in winter: how green grass and leaves are.
    """

    tables: Mapping[str, Table]
    lit: float
    lamps: bool
    season: float

    def rows(self, name: str, owner: Integers) -> Rows:
        """The rows of a table that points belong to."""
        return Rows(self.tables[name], owner)


@dataclass(frozen=True)
class Rows:
    """Rows of a structured table; a field is only gathered when it is asked for."""

    table: Table
    owner: Integers

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.table[name].take(self.owner, axis=0)

    def take(self, rows: Integers) -> Rows:
        """Those of some points."""
        return Rows(self.table, self.owner.take(rows))


Painter = Callable[[Points, Scenery], Paint]


def paint_plain(points: Points, _scenery: Scenery) -> Paint:
    """One colour with faint spots."""
    spots = 1 + np.float32(0.07) * mottle(points.u, points.v, points.du, size=0.6, salt=points.salt)
    return Paint(points.colour * spots[:, None], 0.01)


def paint_tiles(points: Points, _scenery: Scenery) -> Paint:
    """Rows of roof tiles or slates."""
    rows = pulse(points.v / np.float32(0.32), points.dv / np.float32(0.32), 0.8)
    columns = pulse(points.u / np.float32(0.25) + 0.5 * (whole(points.v / np.float32(0.32)) & 1), points.du / np.float32(0.25), 0.88)
    tone = (0.65 + 0.35 * rows * columns) * (1 + 0.14 * mottle(points.u, points.v, points.du, size=1.2, salt=points.salt))
    return Paint(points.colour * tone[:, None])


def paint_bark(points: Points, _scenery: Scenery) -> Paint:
    """Bark in upright streaks."""
    streaks = mottle(points.u * 4, points.v, points.du * 4, size=0.3, salt=points.salt)
    return Paint(points.colour * np.clip(1 + 0.3 * streaks, 0.4, 1.8)[:, None])


def paint_leaves(points: Points, scenery: Scenery) -> Paint:
    """Foliage in clumps of light and dark."""
    x, y, z = points.xyz.T
    fine = mottle(x + 0.6 * y, z + 0.7 * y, points.du, size=0.16, salt=points.salt)
    large = mottle(x - 0.5 * y, z - 0.4 * y, points.du, size=1.1, salt=points.salt)
    tone = np.clip(1 + 0.42 * fine + 0.2 * large, 0.22, 2)
    colour = points.colour
    if 0 < scenery.season < 1:  # autumn: some trees yellow, some red, some green still
        turned = (points.salt % 7).astype(np.float32) / 6
        hue = single([0.30, 0.15, 0.02]) - turned[:, None] * single([0.05, 0.10, 0.0])
        colour = blend(colour, hue, np.clip(turned * 1.6 - 0.2, 0, 0.9))
    return Paint(colour * tone[:, None])


def paint_hedge(points: Points, _scenery: Scenery) -> Paint:
    """Clipped leaves, darker in holes."""
    fine = mottle(points.u, points.v, points.du, size=0.12, salt=points.salt)
    holes = mottle(points.u, points.v, points.du, size=0.5, salt=points.salt + 3)
    return Paint(points.colour * np.clip(1 + 0.35 * fine + 0.25 * holes, 0.25, 2)[:, None])


def paint_car(points: Points, _scenery: Scenery) -> Paint:
    """Lacquer with the lines of doors and a dirty lower edge."""
    along = np.abs(points.u + np.float32(0.15))
    line = band(np.abs(along - np.float32(0.55)), points.du, low=0, high=0.012) * (points.wn < 0)
    z = points.xyz[:, 2]
    dirt = np.clip(1.25 - z * np.float32(1.6), 0, 0.6)
    colour = blend(points.colour * (1 - 0.5 * line * (np.abs(points.wv) > 0))[:, None], single([0.12, 0.11, 0.1]), dirt * np.float32(0.4))
    return Paint(colour, 0.06)


def paint_glass(points: Points, _scenery: Scenery) -> Paint:
    """Dark panes that mirror what is around."""
    inside = 1 + 0.6 * mottle(points.u, points.v, points.du, size=0.8, salt=points.salt)
    return Paint(points.colour * np.clip(inside, 0.3, 2.5)[:, None], 0.11)


def paint_wheel(points: Points, _scenery: Scenery) -> Paint:
    """A tyre around a rim with spokes; `colour` holds the radius."""
    u, v = points.u, points.v
    radius = np.sqrt(u * u + v * v)
    width = np.maximum(points.du, points.dv)
    rim = edge(points.colour[:, 0] * np.float32(0.66) - radius, width)
    spokes = 0.5 + 0.5 * np.cos(5 * np.arctan2(v, u))
    metal = np.float32(0.10) + np.float32(0.30) * np.clip(spokes * 2 - 0.6, 0, 1)
    tone = np.float32(0.016) + rim * (metal - np.float32(0.016))
    return Paint(np.repeat(tone[:, None], 3, 1).astype(np.float32))


def paint_lamp(points: Points, scenery: Scenery) -> Paint:
    """The heads of street lamps, and the front lamps of cars."""
    down = points.wn < 0
    glow = np.where(down[:, None], single([3.2, 2.5, 1.5]), 0) if scenery.lamps else None
    return Paint(points.colour * np.float32(0.9), 0.06, glow)


def paint_tail(points: Points, _scenery: Scenery) -> Paint:
    """Rear lamps."""
    return Paint(points.colour.copy(), 0.05)


def paint_signal(points: Points, scenery: Scenery) -> Paint:
    """A traffic light: three lamps on a dark box, one of them on."""
    across = np.abs(points.u - np.float32(0.14))
    place = points.v / np.float32(0.3)
    inside = edge(np.float32(0.09) - np.hypot(across, (place - np.floor(place) - 0.5) * 0.3), points.du) * (np.abs(points.wv) < 0.9)
    which = np.clip(2 - whole(place), 0, 2)
    lamps = single([[1.0, 0.05, 0.03], [1.0, 0.6, 0.05], [0.05, 0.9, 0.35]])[which]
    on = inside * (which == np.where(points.salt % 3 == 1, 2, points.salt % 3))
    dark = np.full((len(points), 3), 0.012, np.float32)
    return Paint(blend(dark, lamps * np.float32(0.25), inside), 0.02, lamps * (on * np.float32(1.4 if scenery.lamps else 0.8))[:, None])


def paint_sign(points: Points, _scenery: Scenery) -> Paint:
    """Road signs by shape: round with a ring, triangle, square, round and blue. `colour` holds the size."""
    size, shape = points.colour[:, 0], points.salt // 16
    u, v, width = points.u / size, points.v / size, points.du / size
    round_ = np.hypot(u, v)
    triangle = np.maximum(np.abs(u) * np.float32(0.866) * 2 + v, -2 * v)
    square = np.maximum(np.abs(u), np.abs(v)) * np.float32(1.414)
    reach = np.where(shape == 1, triangle, np.where(shape == 2, square, round_))
    inner = edge(np.float32(0.74) - reach, width)
    rim = single([[0.55, 0.02, 0.03], [0.55, 0.02, 0.03], [0.02, 0.09, 0.42], [0.02, 0.09, 0.42]])[shape]
    face = single([[0.8, 0.8, 0.78], [0.8, 0.8, 0.78], [0.03, 0.12, 0.5], [0.03, 0.12, 0.5]])[shape]
    mark = edge(np.float32(0.42) - reach, width) * (cells(whole(u * 4) + 8, whole(v * 4) + 8, points.salt) > 0.5)
    ink = np.where((shape >= 2)[:, None], single([0.8, 0.8, 0.8]), single([0.02, 0.02, 0.02]))
    colour = blend(blend(rim, face, inner), ink, mark * np.minimum(0.25 / width, 1))
    behind = (points.wn > 0)[:, None]
    return Paint(np.where(behind, np.float32(0.28), colour).astype(np.float32), 0.02)


def paint_cloth(points: Points, _scenery: Scenery) -> Paint:
    """Cloth and skin."""
    folds = 1 + 0.15 * mottle(points.u, points.v, points.du, size=0.15, salt=points.salt)
    return Paint(points.colour * folds[:, None])


def paint_stripes(points: Points, _scenery: Scenery) -> Paint:
    """Awnings: striped or of one colour."""
    share = pulse(points.u / np.float32(0.7), points.du / np.float32(0.7), 0.5) * (points.salt % 2)
    return Paint(blend(points.colour * 1.0, single([0.75, 0.73, 0.68]), share))


def paint_boards(points: Points, _scenery: Scenery) -> Paint:
    """Upright boards."""
    gap = pulse(points.u / np.float32(0.18), points.du / np.float32(0.18), 0.93)
    tone = (0.6 + 0.4 * gap) * (1 + 0.2 * cells(whole(points.u / np.float32(0.18)), points.salt, 5) - 0.1)
    return Paint(points.colour * tone[:, None])


def paint_shade(points: Points, _scenery: Scenery) -> Paint:
    """The dark below a car, soft at its edges; `colour` holds its half sizes."""
    inside = np.minimum(points.colour[:, 0] - np.abs(points.u), points.colour[:, 1] - np.abs(points.v))
    tone = np.float32(0.105) - np.float32(0.085) * np.clip(inside / np.float32(0.4), 0, 1)
    return Paint(np.repeat(tone[:, None], 3, 1))


def paint_poster(points: Points, scenery: Scenery) -> Paint:
    """Printed paper: fields of colour, and lines that might be words."""
    salt = points.salt + whole(points.v / np.float32(1.3)) + 7 * whole(points.u / np.float32(0.95))
    field = cells(whole(points.u / np.float32(0.32)), whole(points.v / np.float32(0.4)), salt)
    hue = linear([[0.85, 0.2, 0.15], [0.95, 0.85, 0.3], [0.15, 0.35, 0.65], [0.92, 0.92, 0.9], [0.2, 0.5, 0.35], [0.1, 0.1, 0.12]])
    colour = blend(points.colour * 1.0, hue[(field * 6).astype(np.int32)], np.minimum(np.float32(0.3) / points.du, 0.75))
    words = cells(whole(points.u / np.float32(0.05)), whole(points.v / np.float32(0.09)), salt + 9) > 0.5
    row = pulse(points.v / np.float32(0.18), points.dv / np.float32(0.18), 0.45)
    colour = blend(colour, single([0.9, 0.9, 0.88]), words * row * np.minimum(np.float32(0.05) / points.du, 1) * np.float32(0.7))
    return Paint(colour, 0.02, colour * np.float32(0.35) if scenery.lamps else None)


def paint_net(points: Points, _scenery: Scenery) -> Paint:
    """The net of a scaffold in panels, with its floors showing through."""
    seam = pulse(points.u / np.float32(2.0), points.du / np.float32(2.0), 0.97) * pulse(
        points.v / np.float32(2.0), points.dv / np.float32(2.0), 0.94
    )
    folds = 1 + 0.12 * mottle(points.u * 2, points.v, points.du, size=1.2, salt=points.salt)
    return Paint(points.colour * ((0.55 + 0.45 * seam) * folds)[:, None])


SIMPLE: Mapping[Kind, Painter] = {
    Kind.PLAIN: paint_plain,
    Kind.TILES: paint_tiles,
    Kind.BARK: paint_bark,
    Kind.LEAVES: paint_leaves,
    Kind.HEDGE: paint_hedge,
    Kind.CAR: paint_car,
    Kind.GLASS: paint_glass,
    Kind.WHEEL: paint_wheel,
    Kind.LAMP: paint_lamp,
    Kind.TAIL: paint_tail,
    Kind.SIGNAL: paint_signal,
    Kind.SIGN: paint_sign,
    Kind.CLOTH: paint_cloth,
    Kind.STRIPES: paint_stripes,
    Kind.BOARDS: paint_boards,
    Kind.SHADE: paint_shade,
    Kind.POSTER: paint_poster,
    Kind.NET: paint_net,
}
"""Painters of everything but grounds (`covis.town.floors`) and walls (`covis.town.fronts`)."""
