"""Rays against triangles: the town's only door to the ray-casting library (Embree, through embreex)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import MissingExtraError
from covis.town.patterns import dot

Floats = NDArray[np.floating[Any]]


class Caster:
    """Triangles made ready for rays: which one a ray meets first, and whether anything stands in its way.

    The library computes in float32; it only says *which* triangle is met. How far away that is, is computed from the
    triangle's plane in float64 (`distances`), so that depth does not depend on the machine.

    Args:
        corners: (n, 3, 3) float32, metres: three corners a triangle, counter-clockwise seen from outside.

    Raises:
        MissingExtraError: embreex is not installed.
    """

    def __init__(self, corners: NDArray[np.float32]) -> None:
        try:
            from embreex import rtcore_scene
            from embreex.mesh_construction import TriangleMesh
        except ImportError as error:
            raise MissingExtraError("The town needs the ray-casting library embreex. Install it: pip install covis[world].") from error
        self._scene = rtcore_scene.EmbreeScene()
        TriangleMesh(self._scene, np.ascontiguousarray(corners, np.float32))
        exact = corners.astype(np.float64)
        normals = np.cross(exact[:, 1] - exact[:, 0], exact[:, 2] - exact[:, 0])
        self.normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        self.offsets = (self.normals * exact[:, 0]).sum(1)

    def first(self, origins: Floats, directions: Floats) -> NDArray[np.int32]:
        """(m,) the triangle that each ray meets first, -1 where it meets none."""
        found: NDArray[np.int32] = self._scene.run(_single(origins), _single(directions), query="INTERSECT")
        return found

    def blocked(self, origins: Floats, directions: Floats) -> NDArray[np.bool_]:
        """(m,) whether anything stands in each ray's way, however far."""
        if not len(origins):
            return np.zeros(0, bool)
        found = self._scene.run(_single(origins), _single(directions), query="OCCLUDED")
        return np.asarray(found >= 0)

    def distances(self, faces: NDArray[np.integer[Any]], origin: Floats, directions: Floats) -> NDArray[np.float64]:
        """(m,) float64: how many lengths of its direction each ray goes from `origin` (3,) or (m, 3) to the plane of its triangle."""
        normals = self.normals.take(faces, axis=0)
        toward = dot(normals, directions)
        gap = self.offsets.take(faces) - (normals @ origin if origin.ndim == 1 else dot(normals, origin))
        safe = np.where(np.abs(toward) > 1e-12, toward, 1e-12)
        return np.asarray(gap / safe, np.float64)


def _single(values: Floats) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, np.float32)
