"""From what the rays met to colours: each sample painted once, lit, and seen through haze."""

from __future__ import annotations

import numpy as np

from covis.world.casting import Camera, Hits, cast
from covis.world.lighting import GLOW, Condition, shadowed, sky
from covis.world.painting import PAINTERS, Points, Scenery
from covis.world.shapes import ELLIPSOID, Floats, Integers, Material, Shapes

SAMPLES = 2
"""Rays along each side of a pixel whose colours are averaged."""


def see_depth(shapes: Shapes, camera: Camera, *, far: float) -> Floats:
    """Metres along the optical axis at each pixel's centre, (height, width) float32, 0 beyond `far`."""
    depth = cast(shapes, camera).depth
    return np.where(depth <= far, depth, np.float32(0))


def see_colour(
    shapes: Shapes,
    camera: Camera,
    *,
    scenery: Scenery,
    skyline: Floats,
    condition: Condition,
    sun: tuple[float, float, float],
    drift: float,
) -> Floats:
    """The light that reaches each pixel, (height, width, 3) float32, the mean over its samples.

    Args:
        shapes: what stands there.
        camera: who looks.
        scenery: the tables of what the shapes look like.
        skyline: heights of the houses, for their shadows.
        condition: the light.
        sun: unit direction towards the sun, in the street's frame.
        drift: metres by which the clouds have moved.
    """
    finer = camera.finer(SAMPLES)
    hits = cast(shapes, finer, smallest=8 * SAMPLES**2)
    flat = _Samples(shapes, finer, hits)
    light = np.empty((hits.shape.size, 3), np.float32)
    missed = np.flatnonzero(flat.shape < 0)
    light[missed] = sky(tuple(d.ravel()[missed] for d in hits.directions), condition, drift=drift)  # type: ignore[arg-type]
    for material, rows in flat.by_material():
        points = flat.points(rows)
        colour, glow = PAINTERS[material](points, scenery)
        lit = colour * _irradiance(points, flat, rows, condition=condition, sun=sun, skyline=skyline) + glow[:, None] * GLOW
        clear = np.exp(-flat.depth[rows] / condition.haze)[:, None]
        light[rows] = lit * clear + (1 - clear) * np.array(condition.horizon, np.float32)
    height, width = camera.size
    mean: Floats = light.reshape(height, SAMPLES, width, SAMPLES, 3).mean((1, 3))
    return mean


class _Samples:
    """All samples of a picture in a row, and what is to be known of some of them."""

    def __init__(self, shapes: Shapes, camera: Camera, hits: Hits) -> None:
        self.shapes, self.camera = shapes, camera
        self.depth, self.shape = hits.depth.ravel(), hits.shape.ravel()
        self.directions = tuple(d.ravel() for d in hits.directions)

    def by_material(self) -> list[tuple[Material, Integers]]:
        material = np.where(self.shape >= 0, self.shapes.material[self.shape], -1)
        rows = [(kind, np.flatnonzero(material == kind).astype(np.int32)) for kind in Material]
        return [(kind, found) for kind, found in rows if len(found)]

    def points(self, rows: Integers) -> Points:
        depth, shape = self.depth[rows], self.shape[rows]
        way = [d[rows] for d in self.directions]
        x, y, z = (np.float32(o) + depth * w for o, w in zip(self.camera.origin, way, strict=True))
        axis = self.shapes.axis[shape]
        upright = axis == 0  # a wall across the street: its u is y; else u is x. A floor's v is y; else v is z
        level = axis == 2
        low = (self.shapes.centre - self.shapes.half)[shape]
        u = np.where(upright, y - low[:, 1], x - low[:, 0])
        v = np.where(level, y - low[:, 1], z - low[:, 2])
        across = np.where(upright, way[0], np.where(level, way[2], way[1]))  # along the normal
        slant = 1 / np.maximum(np.abs(across), 0.02)
        spread = depth / np.float32(self.camera.focal[0])
        du = spread * (1 + np.abs(np.where(upright, way[1], way[0])) * slant)
        dv = spread * (1 + np.abs(np.where(level, way[1], way[2])) * slant)
        return Points(x, y, z, u, v, du, dv, axis, self.shapes.owner[shape])

    def normals(self, points: Points, rows: Integers) -> Floats:
        shape = self.shape[rows]
        where = np.stack([points.x, points.y, points.z], 1)
        round_ = (where - self.shapes.centre[shape]) / np.maximum(self.shapes.half[shape], 1e-3) ** 2
        round_ /= np.linalg.norm(round_, axis=1, keepdims=True)
        return np.asarray(round_, np.float32)


def _irradiance(
    points: Points, samples: _Samples, rows: Integers, *, condition: Condition, sun: tuple[float, float, float], skyline: Floats
) -> Floats:
    """Sun and sky on each point, (n, 3); surfaces that look up see more of the sky."""
    towards = np.array(sun, np.float32)
    if points.axis[0] == ELLIPSOID:
        normal = samples.normals(points, rows)
        facing, up = np.maximum(normal @ towards, 0), 0.75 + 0.25 * normal[:, 2]
    else:
        shape = samples.shape[rows]
        facing = np.maximum(samples.shapes.side[shape] * towards[points.axis], 0)
        up = np.array([0.86, 0.80, 1.0], np.float32)[points.axis]
    ambient = up[:, None] * np.array(condition.ambient, np.float32)
    if not any(condition.sun):
        return np.asarray(ambient, np.float32)
    direct = facing * (1 - 0.92 * shadowed((points.x, points.y, points.z), sun=sun, skyline=skyline))
    total: Floats = ambient + direct[:, None].astype(np.float32) * np.array(condition.sun, np.float32)
    return total
