"""Rays against shapes: which shape each pixel sees first, and how far along the optical axis it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covis.world.shapes import ELLIPSOID, Floats, Integers, Shapes

NEAR = 0.1
"""Metres along the optical axis before which nothing is seen."""

_CORNERS = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], np.float32) * 2 - 1
_EDGES = np.array([(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit])


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in the street's frame; pixel (u, v) has its centre at the integers.

    Args:
        origin: (3,) metres.
        rotation: (3, 3), columns right, down, forward.
        focal: (fx, fy) pixels.
        principal: (cx, cy) pixels.
        size: (height, width) pixels.
    """

    origin: NDArray[np.float64]
    rotation: NDArray[np.float64]
    focal: tuple[float, float]
    principal: tuple[float, float]
    size: tuple[int, int]

    def finer(self, samples: int) -> Camera:
        """The same view with `samples` × `samples` rays a pixel, placed symmetrically around the pixel's centre."""
        fx, fy = self.focal
        cx, cy = (samples * c + (samples - 1) / 2 for c in self.principal)
        height, width = self.size
        return Camera(self.origin, self.rotation, (samples * fx, samples * fy), (cx, cy), (samples * height, samples * width))

    def directions(self) -> tuple[Floats, Floats, Floats]:
        """The x, y and z of every ray, (height, width) each, scaled so that a ray's parameter is its depth."""
        height, width = self.size
        right = ((np.arange(width) - self.principal[0]) / self.focal[0]).astype(np.float32)
        down = ((np.arange(height) - self.principal[1]) / self.focal[1]).astype(np.float32)
        turn = self.rotation.astype(np.float32)
        x, y, z = (turn[k, 0] * right[None, :] + turn[k, 1] * down[:, None] + turn[k, 2] for k in range(3))
        return x, y, z


@dataclass(frozen=True)
class Hits:
    """What the rays of a camera met.

    Args:
        depth: (height, width) float32, metres along the optical axis, infinite where nothing was met.
        shape: (height, width) int32, the row of the shape, -1 where nothing was met.
        directions: the rays that were cast, as `Camera.directions` gives them.
    """

    depth: Floats
    shape: Integers
    directions: tuple[Floats, Floats, Floats]


def cast(shapes: Shapes, camera: Camera, *, smallest: int = 8) -> Hits:
    """Find the nearest shape along every ray.

    Each shape is tested inside the window of rays that its corners span, near shapes first, so that a shape wholly
    behind what was found already costs one comparison. A shape whose window holds fewer than `smallest` rays is left
    out: it would be a speck.
    """
    directions = camera.directions()
    depth = np.full(camera.size, np.inf, np.float32)
    found = np.full(camera.size, -1, np.int32)
    with np.errstate(divide="ignore", invalid="ignore"):  # a ray along a plane meets it at infinity: no hit
        inverse = tuple(1 / d for d in directions)
        for row, nearest, window in _visible(shapes, camera, smallest):
            best = depth[window]
            if nearest >= best.max():
                continue
            rays = tuple(d[window] for d in directions)
            offset = shapes.centre[row] - camera.origin.astype(np.float32)
            axis = int(shapes.axis[row])
            if axis == ELLIPSOID:
                met, inside = _meet_ellipsoid(rays, offset, shapes.half[row])
            else:
                met, inside = _meet_rectangle(rays, inverse[axis][window], offset, shapes.half[row], axis=axis)
            inside &= (met < best) & (met > NEAR)
            np.copyto(best, met, where=inside)
            np.copyto(found[window], np.int32(row), where=inside)
    return Hits(depth, found, directions)


def _meet_rectangle(
    rays: tuple[Floats, ...], inverse: Floats, offset: Floats, half: Floats, *, axis: int
) -> tuple[Floats, NDArray[np.bool_]]:
    a, b = (k for k in range(3) if k != axis)
    half = half + np.float32(1e-4)  # metres: neighbours overlap by a hair, so that no ray slips between two of them
    met = offset[axis] * inverse
    inside = np.abs(met * rays[a] - offset[a]) <= half[a]
    inside &= np.abs(met * rays[b] - offset[b]) <= half[b]
    return met, inside


def _meet_ellipsoid(rays: tuple[Floats, ...], offset: Floats, half: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    # Divided by the half axes the ellipsoid is the unit sphere: |t r - c|² = 1.
    scaled, centre = [ray / h for ray, h in zip(rays, half, strict=True)], offset / half
    square = scaled[0] ** 2 + scaled[1] ** 2 + scaled[2] ** 2
    along = scaled[0] * centre[0] + scaled[1] * centre[1] + scaled[2] * centre[2]
    root = along**2 - square * (np.dot(centre, centre) - 1)
    return (along - np.sqrt(np.maximum(root, 0))) / square, root >= 0


def _visible(shapes: Shapes, camera: Camera, smallest: int) -> list[tuple[int, float, tuple[slice, slice]]]:
    """Row, least depth and window of every shape that may be seen and is not smaller than that, the nearest first."""
    away = shapes.centre - camera.origin.astype(np.float32)
    ahead = away @ camera.rotation[:, 2].astype(np.float32) + np.sqrt((shapes.half**2).sum(1)) > NEAR
    gap = -away * shapes.side[:, None]
    facing = (shapes.axis == ELLIPSOID) | (np.take_along_axis(gap, np.minimum(shapes.axis, 2)[:, None], 1)[:, 0] > 0)
    rows = np.flatnonzero(ahead & facing)
    least, low, high = _spans(away[rows], shapes.half[rows], camera)
    kept = np.flatnonzero(np.maximum(high - low, 0).prod(1) >= max(smallest, 1))
    kept = kept[np.argsort(least[kept], kind="stable")]
    corners = np.hstack([low[kept], high[kept]]).tolist()
    return [
        (row, near, (slice(top, bottom), slice(left, right)))
        for row, near, (left, top, right, bottom) in zip(rows[kept].tolist(), least[kept].tolist(), corners, strict=True)
    ]


def _spans(centre: Floats, half: Floats, camera: Camera) -> tuple[Floats, Integers, Integers]:
    """Least depth (n,) and the pixels [low, high) (n, 2) that the part of each box before the camera spans."""
    corners = centre[:, None] + half[:, None] * _CORNERS
    turn = camera.rotation.astype(np.float32)
    seen = np.stack([(corners * turn[:, k]).sum(-1) for k in range(3)], -1)  # (n, 8, 3) right, down, forward
    start, stop = seen[:, _EDGES[:, 0]], seen[:, _EDGES[:, 1]]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = ((NEAR - start[..., 2]) / (stop[..., 2] - start[..., 2]))[..., None]
        cut = start + share * (stop - start)
        crosses = (share[..., 0] >= 0) & (share[..., 0] <= 1)
        points = np.concatenate([seen, cut], 1)
        before = np.concatenate([seen[..., 2] >= NEAR, crosses], 1)
        pixels = points[..., :2] / np.maximum(points[..., 2:], NEAR) * np.array(camera.focal, np.float32)
    pixels += np.array(camera.principal, np.float32)
    limit = np.array(camera.size[::-1], np.float32)
    low = np.where(before[..., None], pixels, np.inf).min(1, initial=np.inf)
    high = np.where(before[..., None], pixels, -np.inf).max(1, initial=-np.inf)
    first = np.clip(np.floor(low), 0, limit).astype(np.int32)
    last = np.clip(np.ceil(high) + 1, 0, limit).astype(np.int32)
    return np.maximum(seen[..., 2].min(1, initial=np.inf), NEAR), first, last
