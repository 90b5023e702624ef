"""Rigid poses and the pinhole camera: the few formulas that labels, surfaces and pose estimates share.

Conventions, everywhere in covis:

* A pose is a 4x4 camera-to-world matrix in metres; camera axes as in OpenCV (x right, y down, z forward).
* Intrinsics are (fx, fy, cx, cy) in pixels; pixel (u, v) = (column, row) has its centre at integer coordinates, so an
  image of width w covers u in [-0.5, w - 0.5).
* Depth is the distance along the optical axis (z), not along the ray; 0 means unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from covis.errors import InvalidInputError

RIGID_TOLERANCE = 2e-3
"""How far R^T R may be from I (largest entry) and det R from 1.

Pose files are not exact: those of the 7-Scenes red kitchen are off by up to 3.8e-4 and 5.3e-4. At the tolerance, a point
at 6 m moves by less than 1 cm.
"""

_LAST_ROW = np.array([0.0, 0.0, 0.0, 1.0])


def check_rigid(poses: ArrayLike, *, names: Sequence[str] | None = None, tolerance: float = RIGID_TOLERANCE) -> None:
    """Check that every pose is a rigid motion.

    Finite, last row 0 0 0 1, |R^T R - I| <= tolerance in every entry and |det R - 1| <= tolerance (so no reflection).

    Args:
        poses: (n, 4, 4), camera-to-world.
        names: what the message calls each pose (file names, say); the row number where absent.
        tolerance: see `RIGID_TOLERANCE`.

    Raises:
        InvalidInputError: the shape is another, or a pose is no rigid motion; the message names the first and how it fails.

    >>> check_rigid(np.eye(4)[None])
    >>> check_rigid(np.diag([1.0, 1.0, -1.0, 1.0])[None], names=["a.jpg"])
    Traceback (most recent call last):
    covis.errors.InvalidInputError: A pose must have a rotation with det R = +1 (no reflection), within 0.002; that of a.jpg ...
    """
    poses = _numbers(poses, "poses")
    if poses.ndim != 3 or poses.shape[1:] != (4, 4):
        raise InvalidInputError(f"Poses must have the shape (n, 4, 4), camera-to-world matrices; got {poses.shape}.")
    if names is not None and len(names) != len(poses):
        raise InvalidInputError(f"There must be one name a pose; got {len(names)} names for {len(poses)} poses.")
    finite = np.isfinite(poses).reshape(-1, 16).all(axis=1)
    safe = np.where(np.reshape(finite, (-1, 1, 1)), poses, np.eye(4))
    rotation = safe[:, :3, :3]
    skew = np.abs(rotation.transpose(0, 2, 1) @ rotation - np.eye(3)).max(axis=(1, 2), initial=0.0)
    rules = (
        ("be finite", finite),
        ("have the last row 0 0 0 1 (is it transposed?)", (safe[:, 3] == _LAST_ROW).all(axis=1)),
        (f"have a rotation with R^T R = I, within {tolerance:g} (is there a scale in it?)", skew <= tolerance),
        (f"have a rotation with det R = +1 (no reflection), within {tolerance:g}", np.abs(np.linalg.det(rotation) - 1) <= tolerance),
    )
    for rule, holds in rules:
        if not holds.all():
            row = int(np.argmin(holds))
            named = f"row {row}" if names is None else names[row]
            raise InvalidInputError(f"A pose must {rule}; that of {named} is {poses[row].round(4).tolist()}.")


def check_intrinsics(intrinsics: ArrayLike) -> NDArray[np.float64]:
    """Check one camera's (fx, fy, cx, cy) in pixels and return it as a (4,) float64 array.

    Raises:
        InvalidInputError: not four finite numbers, or a focal length is not above 0.

    >>> check_intrinsics((585, 585, 320, 240)).tolist()
    [585.0, 585.0, 320.0, 240.0]
    """
    values = _numbers(intrinsics, "intrinsics")
    if values.shape != (4,) or not np.isfinite(values).all() or (values[:2] <= 0).any():
        raise InvalidInputError(f"Intrinsics must be four finite numbers fx, fy, cx, cy in pixels, fx and fy above 0; got {intrinsics!r}.")
    return values


def invert(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn camera-to-world poses into world-to-camera, or back: (..., 4, 4) -> (..., 4, 4).

    The general inverse, not the transpose: poses are rigid only within `RIGID_TOLERANCE`, and `invert(p) @ p` should still be I.
    """
    return np.linalg.inv(poses).astype(np.float64, copy=False)


def transform(pose: NDArray[Any], points: NDArray[Any]) -> NDArray[Any]:
    """Move points by a pose: p -> R p + t.

    Args:
        pose: (4, 4).
        points: (n, 3), metres.

    Returns:
        (n, 3), metres. A camera's points go to the world by its pose, and from the world into a camera by the inverse.

    >>> pose = np.eye(4)
    >>> pose[:3, 3] = 1, 2, 3
    >>> transform(pose, np.zeros((1, 3))).tolist()
    [[1.0, 2.0, 3.0]]
    """
    moved: NDArray[Any] = points @ pose[:3, :3].T + pose[:3, 3]
    return moved


def ground_heading(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) degrees clockwise from north in [0, 360): each camera's optical axis projected on the ground (x east, y north, z up).

    NaN for a camera that looks straight up or down (within 0.01 degrees), which has no heading.

    Args:
        poses: (n, 4, 4) camera-to-world.

    >>> east = [[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]
    >>> ground_heading(np.array([east]))
    array([90.])
    """
    axis = np.asarray(poses, dtype=np.float64)[:, :3, 2]
    heading = np.rad2deg(np.arctan2(axis[:, 0], axis[:, 1])) % 360
    heading[heading >= 360] = 0.0
    return np.where(np.hypot(axis[:, 0], axis[:, 1]) > np.deg2rad(0.01), heading, np.nan)


def unproject(depth: NDArray[np.float32], intrinsics: ArrayLike, *, step: int = 1) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn every step-th pixel of a depth map, in both directions, into a 3D point; pixels of depth 0 are left out.

    x = (u - cx) z / fx, y = (v - cy) z / fy. The grid starts step // 2 pixels inside, so that it lies centred.

    Args:
        depth: (height, width), metres along the optical axis, 0 where unknown.
        intrinsics: (fx, fy, cx, cy), pixels.
        step: pixels between samples, at least 1.

    Returns:
        Points (n, 3) in camera axes, metres, row by row; and their weights (n,), z^2: the surface (seen face on) that one
        pixel covers grows with the square of its depth; 1 / (fx fy), the same for every pixel, is left out.

    Raises:
        InvalidInputError: the map is not two-dimensional, step is below 1, or the intrinsics are no camera's.

    >>> points, weights = unproject(np.full((1, 2), 2, np.float32), (4, 4, 0, 0))
    >>> points.tolist(), weights.tolist()
    ([[0.0, 0.0, 2.0], [0.5, 0.0, 2.0]], [4.0, 4.0])
    """
    fx, fy, cx, cy = check_intrinsics(intrinsics)
    if depth.ndim != 2:
        raise InvalidInputError(f"A depth map must be (height, width); got the shape {depth.shape}.")
    if step < 1 or step != int(step):
        raise InvalidInputError(f"step must be a whole number of pixels, at least 1; got {step}.")
    v, u = (np.arange(min(step // 2, max(size - 1, 0) // 2), size, step) for size in depth.shape)
    sampled = depth[np.ix_(v, u)].astype(np.float64)
    row, column = np.nonzero(sampled > 0)
    z = sampled[row, column]
    points = np.stack([(u[column] - cx) * z / fx, (v[row] - cy) * z / fy, z], axis=1)
    return points, z**2


def project(points: NDArray[Any], intrinsics: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Project camera points to pixels: u = fx x / z + cx, v = fy y / z + cy. The inverse of `unproject`.

    Args:
        points: (n, 3) in camera axes, metres, z above 0 (a point behind the camera has no pixel: select before).
        intrinsics: (fx, fy, cx, cy), pixels.

    Returns:
        u and v, each (n,), pixels, of the points' own float type; they may lie outside the image.

    >>> u, v = project(np.array([[0.5, 0.0, 2.0]]), (4, 4, 0, 0))
    >>> u.tolist(), v.tolist()
    ([1.0], [0.0])
    """
    # float() keeps float32 points in float32: a numpy float64 scalar would widen them.
    fx, fy, cx, cy = (float(value) for value in check_intrinsics(intrinsics))
    x, y, z = points.T
    return x / z * fx + cx, y / z * fy + cy


def _numbers(values: ArrayLike, what: str) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"The {what} must be numbers; {error}.") from error
