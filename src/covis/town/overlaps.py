"""The exact overlap of what two pictures see: the one's visible surface, looked for by rays from the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.geometry import invert, transform
from covis.town.cameras import Camera
from covis.town.towns import Town, visit_town
from covis.town.visits import Visit

_SAME = 0.02
"""Metres (and a thousandth of the distance) by which a ray may end before or behind a point and still have met it."""


@dataclass(frozen=True, eq=False)
class Sight:
    """A camera, and the visit at which it looks."""

    camera: Camera
    visit: Visit


def surface_overlap(town: Town, a: Sight, b: Sight, *, nearest: float = 0.1, reach: float = 30.0, step: int = 4) -> float:
    """Overlap of the surfaces that two pictures see: psi = 1 / (1/fa + 1/fb - 1), 0 if fa or fb is 0.

    fa is the share of A's visible surface that B sees too. Every step-th pixel of A whose depth is in [nearest, reach] is a
    point of surface; it counts with its depth squared, the surface (seen face on) that a pixel covers. B sees it where it lies
    in B's picture, within B's range, and the ray from B to it meets nothing before: no depth map, no tolerance of pixels. A
    car that is gone at B's visit is not seen, nor is what another car hides. `covis.surfaces.reprojection_overlap` estimates
    the same from depth maps.

    Args:
        town: where both are.
        a: the one; fa is of its surface.
        b: the other.
        nearest: least depth that counts, metres.
        reach: largest depth that counts, metres.
        step: pixels between samples.

    Returns:
        psi in [0, 1]; the same for (a, b) and (b, a).

    Raises:
        InvalidInputError: the range is empty or step is below 1.
    """
    if not 0 <= nearest < reach or step < 1:
        raise InvalidInputError(f"The range must have 0 <= nearest < reach and step be 1 or more; got {nearest}, {reach} and {step}.")
    first = seen_share(town, a, b, nearest=nearest, reach=reach, step=step)
    second = seen_share(town, b, a, nearest=nearest, reach=reach, step=step)
    return 0.0 if first == 0 or second == 0 else 1 / (1 / first + 1 / second - 1)


def surface_overlaps(
    town: Town, queries: Sequence[Sight], database: Sequence[Sight], *, nearest: float = 0.1, reach: float = 30.0, step: int = 8
) -> NDArray[np.float64]:
    """(q, n) `surface_overlap` of every query with every database picture; pairs further apart than twice the reach are 0 unasked."""
    found = np.zeros((len(queries), len(database)))
    for row, query in enumerate(queries):
        for column, other in enumerate(database):
            if np.linalg.norm(query.camera.at - other.camera.at) < 2 * reach:
                found[row, column] = surface_overlap(town, query, other, nearest=nearest, reach=reach, step=step)
    return found


def seen_share(town: Town, a: Sight, b: Sight, *, nearest: float = 0.1, reach: float = 30.0, step: int = 4) -> float:
    """fa: the share of A's visible surface in range that B sees too; 0 where A sees none. See `surface_overlap`."""
    points, weights, _ = _surface(town, a, nearest=nearest, reach=reach, step=step)
    seen = _sees(town, b, points, nearest=nearest, reach=reach)
    return float(weights[seen].sum() / weights.sum()) if len(points) else 0.0


def seen_pixels(town: Town, a: Sight, b: Sight, *, nearest: float = 0.1, reach: float = 30.0) -> NDArray[np.bool_]:
    """(height, width) which of A's pixels show surface in range that B sees too."""
    points, _, pixels = _surface(town, a, nearest=nearest, reach=reach, step=1)
    found = np.zeros(a.camera.size, bool)
    found.ravel()[pixels[_sees(town, b, points, nearest=nearest, reach=reach)]] = True
    return found


def _sees(town: Town, sight: Sight, points: NDArray[np.float64], *, nearest: float, reach: float) -> NDArray[np.int64]:
    """The rows of those points (n, 3) that a camera sees: in its picture, in range, and nothing before them."""
    rows = np.flatnonzero(_in_picture(sight.camera, points, nearest=nearest, reach=reach))
    caster, origin = visit_town(town, sight.visit).caster, sight.camera.at
    ways = points[rows] - origin
    faces = caster.first(np.broadcast_to(origin, ways.shape), ways)
    share = np.full(len(rows), np.inf)
    met = np.flatnonzero(faces >= 0)
    share[met] = caster.distances(faces[met], origin, ways[met])
    far = np.linalg.norm(ways, axis=1)
    return np.asarray(rows[np.abs(share - 1) * far < _SAME + 0.001 * far])


def _surface(
    town: Town, sight: Sight, *, nearest: float, reach: float, step: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """The points (n, 3) that every step-th pixel sees, in the world, their weights (n,), and the pixels' places in the picture."""
    camera = sight.camera
    height, width = camera.size
    fx, fy, cx, cy = camera.intrinsics
    v, u = (grid.ravel() for grid in np.meshgrid(np.arange(step // 2, height, step), np.arange(step // 2, width, step), indexing="ij"))
    turn = camera.pose[:3, :3]
    ways = ((u - cx) / fx)[:, None] * turn[:, 0] + ((v - cy) / fy)[:, None] * turn[:, 1] + turn[:, 2]
    caster = visit_town(town, sight.visit).caster
    faces = caster.first(np.broadcast_to(camera.at, ways.shape), ways)
    met = np.flatnonzero(faces >= 0)
    depth = caster.distances(faces[met], camera.at, ways[met])
    kept = (depth >= nearest) & (depth <= reach)
    pixels = (v * width + u)[met][kept]
    return camera.at + ways[met][kept] * depth[kept, None], depth[kept] ** 2, pixels


def _in_picture(camera: Camera, points: NDArray[np.float64], *, nearest: float, reach: float) -> NDArray[np.bool_]:
    local = transform(invert(camera.pose), points)
    z = local[:, 2]
    fx, fy, cx, cy = camera.intrinsics
    safe = np.maximum(z, 1e-6)
    u, v = local[:, 0] / safe * fx + cx, local[:, 1] / safe * fy + cy
    height, width = camera.size
    return np.asarray((z >= nearest) & (z <= reach) & (u >= -0.5) & (u < width - 0.5) & (v >= -0.5) & (v < height - 0.5))
