"""From what the rays met to light: each hit painted once, lit once, and seen through the air."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covis.town.conditions import Condition
from covis.town.floors import FLOORS
from covis.town.fronts import FRONTS
from covis.town.lighting import mirrored, sky
from covis.town.meshes import Kind
from covis.town.painting import SIMPLE, Paint, Painter, Points, Scenery
from covis.town.patterns import Floats, blend, dot, edge, mottle, single, tint
from covis.town.towns import Setting

PAINTERS: Mapping[Kind, Painter] = {**SIMPLE, **FLOORS, **FRONTS}
_GROUND = (Kind.ASPHALT, Kind.ROAD, Kind.PAVING, Kind.COBBLES, Kind.GRASS, Kind.GRAVEL, Kind.SHADE)
_BLOCK = 40_000
"""Rays shaded at once: their arrays then stay in the processor's cache."""
_LAMPLIGHT = single([1.0, 0.72, 0.42])
_SNOW = single([0.80, 0.83, 0.88])


@dataclass(frozen=True, eq=False)
class Rig:
    """What a picture is taken of, and in which light.

    Attributes:
        setting: town and visit.
        condition: the light.
        at: (3,) metres, the camera.
        focal: pixels (of rays, not of the picture).
        drift: how far the clouds have moved.
    """

    setting: Setting
    condition: Condition
    at: NDArray[np.float64]
    focal: float
    drift: float


def shade(rig: Rig, depth: NDArray[np.float64], faces: NDArray[np.int32], ways: NDArray[np.float64]) -> Floats:
    """The light (n, 3) float32 that comes along each ray.

    Args:
        rig: town and light.
        depth: (n,) metres along the optical axis.
        faces: (n,) what each ray met, -1 for the sky.
        ways: (n, 3) directions with 1 along the optical axis.
    """
    light = np.empty((len(faces), 3), np.float32)
    for start in range(0, len(faces), _BLOCK):
        part = slice(start, start + _BLOCK)
        light[part] = _shade(rig, depth[part], faces[part], ways[part])
    return light


def _shade(rig: Rig, depth: NDArray[np.float64], faces: NDArray[np.int32], ways: NDArray[np.float64]) -> Floats:
    """`shade` for a block of rays."""
    condition = rig.condition
    light = np.empty((len(faces), 3), np.float32)
    missed = np.flatnonzero(faces < 0)
    light[missed] = single(condition.mist) if condition.haze < 100 else sky(ways[missed].astype(np.float32), condition, drift=rig.drift)
    hits = _Hits.of(rig, np.flatnonzero(faces >= 0), depth, faces, ways)
    if len(hits.rays):
        thick = 1 - np.exp(hits.far * np.float32(-1 / condition.haze))
        light[hits.rays] = blend(_lit(rig, hits, _painted(rig, hits)), single(condition.mist), thick)
    return light


@dataclass(frozen=True, eq=False)
class _Hits:
    """Hits sorted by kind, so that each painter's are a slice."""

    rays: NDArray[np.int64]
    rows: NDArray[np.int32]
    kinds: NDArray[np.uint8]
    xyz: NDArray[np.float32]
    ways: NDArray[np.float32]
    frames: NDArray[np.float32]
    normal: NDArray[np.float32]
    depth: NDArray[np.float32]
    far: NDArray[np.float32]

    @classmethod
    def of(cls, rig: Rig, met: NDArray[np.int64], depth: NDArray[np.float64], faces: NDArray[np.int32], ways: NDArray[np.float64]) -> _Hits:
        mesh, looks = rig.setting.mesh, rig.setting.looks
        rows = mesh.patch.take(faces.take(met))
        kinds = looks.kind.take(rows)
        order = np.argsort(kinds, kind="stable")
        met, rows, kinds = met.take(order), rows.take(order), kinds.take(order)
        near, single = ways.astype(np.float32).take(met, axis=0), depth.astype(np.float32).take(met)
        xyz = near * single[:, None] + rig.at.astype(np.float32)
        frames = looks.frames.take(rows, axis=0)
        facing = dot(frames[:, 9:12], near)
        normal = frames[:, 9:12] * np.where(facing > 0, np.float32(-1), np.float32(1))[:, None]
        round_ = np.flatnonzero(frames[:, 15] > 0)
        if len(round_):
            out = xyz[round_] - frames[round_, :3]
            normal[round_] = out / np.maximum(np.sqrt(dot(out, out)), np.float32(1e-4))[:, None]
        return cls(met, rows, kinds, xyz, near, frames, normal, single, single * np.sqrt(dot(near, near)))

    def slices(self) -> list[tuple[Kind, slice]]:
        found, first = np.unique(self.kinds, return_index=True)
        stops = [*first[1:].tolist(), len(self.kinds)]
        return [(Kind(kind), slice(start, stop)) for kind, start, stop in zip(found.tolist(), first.tolist(), stops, strict=True)]

    def points(self, part: slice, rig: Rig) -> Points:
        frames, ways, looks = self.frames[part], self.ways[part], rig.setting.looks
        away = self.xyz[part] - frames[:, :3]
        u, v = dot(away, frames[:, 3:6]), dot(away, frames[:, 6:9])
        wu, wv, wn = (dot(ways, frames[:, start : start + 3]) for start in (3, 6, 9))
        spread = self.depth[part] / np.float32(rig.focal)
        slant = 1 / np.maximum(np.abs(wn), np.float32(0.03))
        du, dv = spread * (1 + np.abs(wu) * slant), spread * (1 + np.abs(wv) * slant)
        rows = self.rows[part]
        return Points(self.xyz[part], u, v, du, dv, wu, wv, wn, frames[:, 12:15], looks.owner.take(rows), looks.salt.take(rows))


def _painted(rig: Rig, hits: _Hits) -> Paint:
    """The paint of every hit, in the hits' order, snow and wet included."""
    condition, count = rig.condition, len(hits.rays)
    scenery = Scenery(rig.setting.mesh.tables, condition.lit, condition.lamps > 0, condition.season)
    albedo, gloss = np.empty((count, 3), np.float32), np.empty(count, np.float32)
    glow = np.zeros((count, 3), np.float32)
    for kind, part in hits.slices():
        points = hits.points(part, rig)
        paint = PAINTERS[kind](points, scenery)
        if condition.wet and kind in _GROUND:
            paint = _wet(paint, points, condition.wet)
        if condition.snow:
            paint = _snowed(paint, points, hits.normal[part], kind, condition.snow)
        albedo[part], gloss[part] = paint.albedo, paint.gloss
        if paint.glow is not None:
            glow[part] = paint.glow
    return Paint(albedo, gloss, glow)


def _wet(paint: Paint, points: Points, wet: float) -> Paint:
    """Darker, and mirroring in puddles."""
    x, y = points.xyz[:, 0], points.xyz[:, 1]
    pool = np.clip(0.45 + 0.45 * mottle(x, y, points.du, size=2.4, salt=21) + 0.15 * mottle(x, y, points.du, size=0.5, salt=22), 0, 1)
    soaked = np.float32(wet) * (np.float32(0.55) + np.float32(0.45) * pool)
    return Paint(paint.albedo * (1 - np.float32(0.55) * soaked)[:, None], paint.gloss + np.float32(0.055) * soaked, paint.glow)


def _snowed(paint: Paint, points: Points, normal: Floats, kind: Kind, snow: float) -> Paint:
    """White on what looks up, except where wheels have been."""
    x, y = points.xyz[:, 0], points.xyz[:, 1]
    width = np.maximum(points.du, points.dv)
    spots = mottle(x, y, width, size=1.1, salt=31) * np.float32(0.22)
    share = np.clip((normal[:, 2] - np.float32(0.25)) * 3, 0, 1) * np.clip(np.float32(snow * 1.25) + spots - np.float32(0.1), 0, 1)
    if kind is Kind.ROAD:
        track = np.abs(np.abs(np.abs(points.v) - np.float32(1.75)) - np.float32(0.75))
        share = share * (
            1 - np.float32(0.75) * edge(np.float32(0.32) - track + spots * np.float32(0.12), np.maximum(points.dv, np.float32(0.15)))
        )
    elif kind in (Kind.SHADE, Kind.CLOTH, Kind.GLASS):
        share = share * np.float32(0.1 if kind is Kind.SHADE else 0.4)
    elif kind is Kind.PAVING:
        share = share * np.clip(np.float32(0.85) + mottle(x, y, width, size=0.4, salt=33) * np.float32(0.15), 0, 1)
    elif kind is Kind.LEAVES:
        share = share * np.float32(0.5)
    return Paint(blend(paint.albedo, _SNOW, share), paint.gloss * (1 - share), paint.glow)


def _lit(rig: Rig, hits: _Hits, paint: Paint) -> Floats:
    """Sun, sky, what comes back from the ground, lamps, and mirrors."""
    condition, setting = rig.condition, rig.setting
    xyz, normal = hits.xyz, hits.normal
    x, y, z = xyz[:, 0], xyz[:, 1], xyz[:, 2]
    out = np.float32(1.6)
    openness = setting.town.openness.at(x + normal[:, 0] * out, y + normal[:, 1] * out, z + normal[:, 2] * out)
    up = normal[:, 2]
    seen = openness * (np.float32(0.62) + np.float32(0.38) * up)
    foot = np.where(up < 0.5, np.float32(0.72) + np.float32(0.28) * np.clip(z * np.float32(0.55), 0, 1), np.float32(1))
    bounce = (np.float32(0.30) - np.float32(0.24) * up) * (np.float32(0.25) + openness)
    back = single(condition.sun) * np.float32(0.22) + single(condition.sky) * np.float32(0.10 + 0.5 * condition.snow)
    total = tint(single(condition.sky), (np.float32(0.14) + np.float32(1.15) * seen) * foot)
    total += tint(back, bounce * foot)
    if any(condition.sun):
        total += tint(single(condition.sun), _sun(rig, hits))
    if condition.lamps:
        total += tint(_LAMPLIGHT * np.float32(condition.lamps), setting.town.lamp_grid.light(xyz, normal))
    total *= paint.albedo
    _mirror(rig, hits, paint, openness, into=total)
    if paint.glow is not None:
        total += paint.glow * np.float32(0.35 if condition.lamps else 1.0)
    return total


def _sun(rig: Rig, hits: _Hits) -> Floats:
    """(n,) how much of the sun's light falls on each hit: one shadow ray for each that faces it."""
    toward = rig.condition.toward_sun
    facing = hits.normal @ toward.astype(np.float32)
    leaves = hits.kinds == Kind.LEAVES
    facing = np.where(leaves, np.float32(0.35) + np.float32(0.5) * facing, facing)
    rows = np.flatnonzero(facing > 0.01)
    start = hits.xyz.take(rows, axis=0) + hits.normal.take(rows, axis=0) * np.float32(0.02)
    start[leaves[rows]] += toward.astype(np.float32) * np.float32(0.5)
    blocked = rig.setting.caster.blocked(start, np.broadcast_to(toward, start.shape))
    sun = np.zeros(len(facing), np.float32)
    sun[rows] = facing[rows] * np.where(blocked, np.where(leaves[rows], np.float32(0.25), 0), 1)
    return sun


def _mirror(rig: Rig, hits: _Hits, paint: Paint, openness: Floats, *, into: Floats) -> None:
    """Add what shiny surfaces mirror."""
    gloss = np.asarray(paint.gloss, np.float32)
    rows = np.flatnonzero(gloss > 0.025)  # what mirrors less is not seen to
    if not len(rows):
        return
    way = hits.ways.take(rows, axis=0) * (hits.depth.take(rows) / hits.far.take(rows))[:, None]
    normal = hits.normal.take(rows, axis=0)
    cos = np.clip(-dot(way, normal), 0, 1)
    back = way + 2 * cos[:, None] * normal
    base = gloss[rows]
    fresnel = base + (1 - base) * np.power(1 - cos, 5) * np.clip(base * 9, 0, 1)
    rough = normal[:, 2] > np.float32(0.9)  # wet roads, and roofs of cars
    shown = mirrored(back, openness[rows], rig.condition, sharp=np.where(rough, np.float32(1.6), np.float32(8)))
    into[rows] += shown * fresnel[:, None]
