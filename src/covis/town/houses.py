"""Houses as patches: walls, roofs, and what stands out from a wall."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.town.ground import KERB
from covis.town.lots import Lot
from covis.town.meshes import Builder, Kind, Label, Table
from covis.town.plans import Points
from covis.town.solids import add_boxes, box_corners, placed
from covis.town.styles import MATERIALS, fitted

_Z = np.array([0.0, 0.0, 1.0])


def build_house(builder: Builder, lot: Lot, facades: list[Table], rng: np.random.Generator) -> None:
    """Add a house; the rows of `FACADE` of its walls go to the end of `facades`."""
    if lot.facade is None:
        return
    number = int(builder.things(1)[0])
    height = KERB + float(lot.facade["height"][0])
    look: dict[str, Any] = {"label": Label.BUILDING, "instance": number}
    _walls(builder, lot, height, facades, look)
    trim, roof = lot.facade["trim"][0], lot.facade["roof"][0]
    eaves = np.column_stack([lot.corners, np.full(4, height)])
    _ROOFS[lot.roof](builder, eaves, lot, look, rng)
    front = _Front(lot, number)
    front.box(builder, (0.0, front.width), (-0.28, 0.0), (height - 0.28, height + 0.02), colour=trim, salt=number)
    if lot.roof in ("gable", "hip", "mansard"):
        _chimneys(builder, eaves, roof, look, rng)
    _relief(builder, front, lot, rng)


class _Front:
    """The front of a house as a frame of its own: u along it from the left, w inwards, z up."""

    def __init__(self, lot: Lot, number: int) -> None:
        way = lot.corners[1] - lot.corners[0]
        self.width = float(np.linalg.norm(way))
        self.angle = float(np.arctan2(way[1], way[0]))
        self.at = np.array([*lot.corners[0], 0.0])
        self.number = number

    def solid(self, builder: Builder, local: NDArray[np.float64], **look: Any) -> None:
        """Solids (k, 8, 3) in the front's frame."""
        moved = placed(local.reshape(-1, 3), at=self.at, angle=self.angle).reshape(-1, 8, 3)
        add_boxes(builder, moved, bottom=True, **{"kind": Kind.PLAIN, "label": Label.BUILDING, "instance": self.number, **look})

    def box(self, builder: Builder, u: tuple[float, float], w: tuple[float, float], z: tuple[float, float], **look: Any) -> None:
        self.solid(builder, box_corners([[u[0], w[0], z[0]]], [[u[1], w[1], z[1]]]), **look)

    def quad(self, builder: Builder, local: object, **look: Any) -> None:
        builder.quads(placed(np.asarray(local, np.float64).reshape(-1, 3), at=self.at, angle=self.angle).reshape(-1, 4, 3), **look)


def _walls(builder: Builder, lot: Lot, height: float, facades: list[Table], look: dict[str, Any]) -> None:
    """Front with all its windows; sides and back with fewer or none."""
    assert lot.facade is not None
    corners = lot.corners
    for side, openness in enumerate((1.0, 0.0 if lot.ends[1] else 0.5, 0.7, 0.0 if lot.ends[0] else 0.5)):
        a, b = corners[side], corners[(side + 1) % 4]
        width = float(np.linalg.norm(b - a))
        row = lot.facade.copy() if side == 0 else fitted(lot.facade, max(width, 1.0))
        row["openness"] = openness
        if side:
            row["shop"], row["graffiti"] = 0, 0
        facades.append(row)
        quad = [[*a, KERB], [*b, KERB], [*b, height], [*a, height]]
        builder.quads([quad], kind=Kind.FACADE, owner=len(facades) - 1, colour=row["wall"][0], salt=row["salt"][0], **look)


def _relief(builder: Builder, front: _Front, lot: Lot, rng: np.random.Generator) -> None:
    assert lot.facade is not None
    row, style = lot.facade[0], lot.style
    bays = round((front.width - 2 * float(row["margin"])) / float(row["bay"]))
    levels = np.arange(float(row["ground"]), float(row["height"]) - float(row["floor"]) * 0.7, float(row["floor"])) + KERB
    if rng.random() < style.balcony and bays >= 2:
        _balconies(builder, front, row, bays, levels, rng)
    elif rng.random() < style.bow and bays >= 2 and row["shop"] == 0:
        _bow(builder, front, row, rng)
    if row["shop"] > 0.4:
        _shop(builder, front, row, rng)
    elif rng.random() < 0.6:
        u = float(row["margin"] + row["bay"] * (int(row["salt"]) % max(bays, 1) + 0.5))
        front.box(builder, (u - 0.8, u + 0.8), (-0.45, 0), (KERB, KERB + 0.14), colour=(0.3, 0.29, 0.27), salt=3)


def _balconies(builder: Builder, front: _Front, row: Table, bays: int, levels: NDArray[np.float64], rng: np.random.Generator) -> None:
    period, first = int(rng.integers(1, 4)), int(rng.integers(0, 2))
    columns = np.arange(first, bays, period)
    u, z = (grid.ravel() for grid in np.meshgrid(float(row["margin"]) + float(row["bay"]) * (columns + 0.5), levels[:6]))
    half, out = float(row["bay"]) * rng.uniform(0.32, 0.46), rng.uniform(0.6, 1.1)
    low, high = np.stack([u - half, u * 0 - out, z - 0.14], 1), np.stack([u + half, u * 0, z + 0.02], 1)
    front.solid(builder, box_corners(low, high), colour=row["trim"], salt=5)
    solid = rng.random() < 0.5
    colour = row["blind"] if solid else (0.03, 0.03, 0.035)
    for side in range(3):
        a, b = [((-half, 0), (-half, -out)), ((-half, -out), (half, -out)), ((half, -out), (half, 0))][side]
        corner = [np.stack([u + p[0], u * 0 + p[1], z + lift], 1) for p, lift in ((a, 0.02), (b, 0.02), (b, 1.0), (a, 1.0))]
        look: dict[str, Any] = {"label": Label.BUILDING, "instance": front.number, "colour": colour, "salt": 5}
        if solid:
            front.quad(builder, np.stack(corner, 1), kind=Kind.PLAIN, **look)
        else:
            _bars(builder, front, np.stack(corner, 1), look)


def _bars(builder: Builder, front: _Front, panels: NDArray[np.float64], look: dict[str, Any]) -> None:
    """A hand rail and a few upright bars for each panel (k, 4, 3)."""
    low, high = panels[:, :2], panels[:, [3, 2]]
    rail = np.stack([high[:, 0] - 0.06 * _Z, high[:, 1] - 0.06 * _Z, high[:, 1], high[:, 0]], 1)
    count = max(2, int(np.linalg.norm(panels[0, 1] - panels[0, 0]) / 0.16))
    share = (np.arange(count) + 0.5) / count
    foot = low[:, :1] + (low[:, 1:] - low[:, :1]) * share[None, :, None]
    along = (low[:, 1:] - low[:, :1]) / np.linalg.norm(low[:, 1:] - low[:, :1], axis=2, keepdims=True) * 0.012
    bar = np.stack([foot - along, foot + along, foot + along + 0.95 * _Z, foot - along + 0.95 * _Z], 2).reshape(-1, 4, 3)
    front.quad(builder, np.concatenate([rail, bar]), kind=Kind.PLAIN, **look)


def _bow(builder: Builder, front: _Front, row: Table, rng: np.random.Generator) -> None:
    """A bay window over all floors, slanted at its sides."""
    bay, top = float(row["bay"]), float(row["height"]) - rng.uniform(0.3, 2.5)
    u = float(row["margin"]) + bay * (int(rng.integers(0, 2)) + 0.5)
    half, out, z = bay * 0.46, 0.75, (KERB, KERB + top)
    plan = [(u - half, 0.0), (u - half * 0.6, -out), (u + half * 0.6, -out), (u + half, 0.0)]
    for (a, b), kind in zip(itertools.pairwise(plan), ("side", "face", "side"), strict=True):
        corners = [[*a, z[0]], [*b, z[0]], [*b, z[1]], [*a, z[1]]]
        look: dict[str, Any] = {"label": Label.BUILDING, "instance": front.number, "colour": row["trim"]}
        front.quad(builder, corners, kind=Kind.BOARDS if kind == "side" else Kind.PLAIN, salt=11, **look)
        floors = np.arange(KERB + 0.9, KERB + top - 1.2, float(row["floor"]))
        p, q = np.array([*a, 0.0]), np.array([*b, 0.0])
        out_of = np.array([b[1] - a[1], -(b[0] - a[0]), 0.0])
        out_of = out_of / np.linalg.norm(out_of) * 0.02
        left, right = p + (q - p) * 0.12 + out_of, p + (q - p) * 0.88 + out_of
        panes = np.array([[left + f * _Z, right + f * _Z, right + (f + 1.45) * _Z, left + (f + 1.45) * _Z] for f in floors])
        front.quad(builder, panes, kind=Kind.GLASS, salt=13, **{**look, "colour": (0.03, 0.035, 0.04)})
    lid = [[*p, z[1]] for p in plan]
    front.quad(builder, lid, kind=Kind.PLAIN, label=Label.BUILDING, instance=front.number, colour=row["roof"], salt=2)


def _shop(builder: Builder, front: _Front, row: Table, rng: np.random.Generator) -> None:
    top = KERB + float(row["ground"])
    if rng.random() < 0.4:
        u0, u1 = (0.3, front.width - 0.3) if rng.random() < 0.5 else sorted(rng.uniform(0.2, front.width - 0.2, 2))
        if u1 - u0 > 1.5:
            z = top - rng.uniform(0.7, 1.0)
            out = rng.uniform(0.9, 1.6)
            corners = [[u0, -out, z - 0.55], [u1, -out, z - 0.55], [u1, -0.03, z], [u0, -0.03, z]]
            flap = [[u0, -out, z - 0.8], [u1, -out, z - 0.8], [u1, -out, z - 0.55], [u0, -out, z - 0.55]]
            front.quad(
                builder,
                [corners, flap],
                kind=Kind.STRIPES,
                label=Label.BUILDING,
                instance=front.number,
                colour=row["awning"],
                salt=row["salt"],
            )
    if rng.random() < 0.6:
        u, z = float(rng.uniform(0.5, front.width - 0.5)), top + float(rng.uniform(-0.1, 0.9))
        size = float(rng.uniform(0.5, 0.9))
        front.box(builder, (u - 0.06, u + 0.06), (-0.1 - size, -0.1), (z, z + size), kind=Kind.POSTER, colour=row["sign"], salt=row["salt"])


def _gable(builder: Builder, eaves: Points, lot: Lot, look: dict[str, Any], rng: np.random.Generator, *, hip: float = 0.0) -> None:
    assert lot.facade is not None
    a, b, c, d = eaves
    rise = min(0.5 * float(np.linalg.norm(d - a)) * rng.uniform(0.7, 1.0), 4.5) * _Z
    left, right = (a + d) / 2 + rise, (b + c) / 2 + rise
    left, right = left + (right - left) * hip, right + (left - right) * hip
    tiles: dict[str, Any] = {"kind": Kind.TILES, "colour": lot.facade["roof"][0], "salt": lot.facade["salt"][0], **look}
    builder.quads([[a, b, right, left], [c, d, left, right]], **tiles)
    ends = tiles if hip else {"kind": Kind.WALL, "colour": lot.facade["wall"][0], "owner": lot.facade["material"][0], "salt": 1, **look}
    builder.triangles([[b, c, right], [d, a, left]], **ends)


def _hip(builder: Builder, eaves: Points, lot: Lot, look: dict[str, Any], rng: np.random.Generator) -> None:
    _gable(builder, eaves, lot, look, rng, hip=0.28)


def _front_gable(builder: Builder, eaves: Points, lot: Lot, look: dict[str, Any], rng: np.random.Generator) -> None:
    turned = Lot(np.roll(lot.corners, -1, 0), lot.style, lot.facade, lot.roof, lot.ends, yard=lot.yard, block=lot.block)
    _gable(builder, np.roll(eaves, -1, 0), turned, look, rng)


def _mansard(builder: Builder, eaves: Points, lot: Lot, look: dict[str, Any], rng: np.random.Generator) -> None:
    assert lot.facade is not None
    rise, middle = rng.uniform(2.4, 3.0), eaves.mean(0)
    share = 1.1 / max(float(np.linalg.norm(eaves[0] - middle)), 4)
    top = eaves + (middle - eaves) * share * 1.4 + rise * _Z
    peak = top + (middle - eaves) * 0.5 + 0.9 * _Z
    tiles: dict[str, Any] = {"kind": Kind.TILES, "colour": lot.facade["roof"][0], "salt": lot.facade["salt"][0], **look}
    for low, high in ((eaves, top), (top, peak)):
        builder.quads(np.stack([low, np.roll(low, -1, 0), np.roll(high, -1, 0), high], 1), **tiles)
    builder.quads([peak], **tiles)
    front, row = _Front(lot, int(str(look["instance"]))), lot.facade[0]
    bays = round((front.width - 2 * float(row["margin"])) / float(row["bay"]))
    z = float(eaves[0, 2])
    for column in range(bays):
        u = float(row["margin"]) + float(row["bay"]) * (column + 0.5)
        front.box(builder, (u - 0.6, u + 0.6), (0.15, 2.0), (z + 0.35, z + 2.1), colour=row["trim"], salt=4)
        pane = [[u - 0.42, 0.14, z + 0.5], [u + 0.42, 0.14, z + 0.5], [u + 0.42, 0.14, z + 1.9], [u - 0.42, 0.14, z + 1.9]]
        front.quad(builder, pane, kind=Kind.GLASS, label=Label.BUILDING, instance=front.number, colour=(0.03, 0.035, 0.04), salt=9)


def _flat_roof(builder: Builder, eaves: Points, lot: Lot, look: dict[str, Any], rng: np.random.Generator) -> None:
    """A flat roof behind a parapet, with boxes of lifts and air."""
    assert lot.facade is not None
    builder.quads([eaves + 0.01 * _Z], kind=Kind.GRAVEL, colour=(0.2, 0.2, 0.2), **look)
    middle, wall = eaves.mean(0), lot.facade["wall"][0]
    inner = eaves + (middle - eaves) * 0.03
    after, inner_after = np.roll(eaves, -1, 0), np.roll(inner, -1, 0)
    up = 0.7 * _Z
    outside, back = np.stack([eaves, after, after + up, eaves + up], 1), np.stack([inner_after, inner, inner + up, inner_after + up], 1)
    top = np.stack([eaves + up, after + up, inner_after + up, inner + up], 1)
    builder.quads(np.concatenate([outside, back, top]), kind=Kind.PLAIN, colour=wall * 0.95, salt=6, **look)
    for _ in range(int(rng.integers(1, 4))):
        at = middle + (eaves[int(rng.integers(4))] - middle) * rng.uniform(0.0, 0.5)
        size = rng.uniform([1.2, 1.2, 1.0], [3.5, 3.0, 2.6])
        add_boxes(
            builder,
            box_corners(at - size * [0.5, 0.5, 0], at + size * [0.5, 0.5, 1]),
            kind=Kind.PLAIN,
            colour=wall * rng.uniform(0.5, 1),
            salt=8,
            **look,
        )


def _chimneys(builder: Builder, eaves: Points, roof: NDArray[np.float32], look: dict[str, Any], rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(0, 3))):
        side = int(rng.integers(2))
        a, d = (eaves[0], eaves[3]) if side == 0 else (eaves[1], eaves[2])
        at = a + (d - a) * rng.uniform(0.3, 0.7) + (eaves.mean(0) - (a + d) / 2) * 0.1
        size = np.array([0.6, 0.9, 4.6 + rng.uniform(0, 1.2)])
        add_boxes(
            builder,
            box_corners(at - size * [0.5, 0.5, 0], at + size * [0.5, 0.5, 1]),
            kind=Kind.WALL,
            owner=MATERIALS.index("brick"),
            colour=(0.16, 0.08, 0.06),
            salt=12,
            **look,
        )


_ROOFS = {"gable": _gable, "hip": _hip, "front": _front_gable, "mansard": _mansard, "flat": _flat_roof, "parapet": _flat_roof}
