"""Solids as patches: boxes, prisms, balls and their like, placed by the thousand."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from covis.town.meshes import Builder, Floats

_SIDES = np.array([[0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7], [4, 5, 6, 7]])


def placed(points: ArrayLike, *, at: ArrayLike, angle: ArrayLike = 0.0) -> NDArray[np.float64]:
    """Points (..., m, 3) turned by `angle` (k,) radians around the vertical and moved to `at` (k, 3): (k, m, 3)."""
    local = np.asarray(points, np.float64)
    where = np.asarray(at, np.float64).reshape(-1, 3)
    turn = np.broadcast_to(np.asarray(angle, np.float64), (len(where),))
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    local = np.broadcast_to(local, (len(where), *local.shape[-2:]))
    x, y = local[..., 0] * cos - local[..., 1] * sin, local[..., 0] * sin + local[..., 1] * cos
    return np.stack([x, y, local[..., 2]], -1) + where[:, None]


def box_corners(low: ArrayLike, high: ArrayLike) -> NDArray[np.float64]:
    """The eight corners (..., 8, 3) of boxes: the bottom counter-clockwise from above, then the top."""
    a, b = np.broadcast_arrays(np.asarray(low, np.float64), np.asarray(high, np.float64))
    x0, y0, z0 = np.moveaxis(a, -1, 0)
    x1, y1, z1 = np.moveaxis(b, -1, 0)
    bottom = [[x0, y0, z0], [x1, y0, z0], [x1, y1, z0], [x0, y1, z0]]
    return np.moveaxis(np.array([*bottom, *([x, y, z1] for x, y, _ in bottom)]), (0, 1), (-2, -1))


def add_boxes(builder: Builder, corners: ArrayLike, *, bottom: bool = False, **look: Any) -> None:
    """The five or six faces of solids (k, 8, 3) that are boxes up to a bend; per-solid looks (k,) are repeated for each face."""
    given = np.asarray(corners, np.float64).reshape(-1, 8, 3)
    sides = np.vstack([_SIDES, [[3, 2, 1, 0]]]) if bottom else _SIDES
    faces = given[:, sides].reshape(-1, 4, 3)
    builder.quads(faces, **_looks(look, len(given), len(sides)))


def add_prisms(
    builder: Builder,
    low: ArrayLike,
    high: ArrayLike,
    *,
    radius: ArrayLike,
    sides: int = 6,
    taper: float = 1.0,
    cap: bool = False,
    **look: Any,
) -> None:
    """Prisms with `sides` faces around the segments from `low` to `high`, (k, 3) each; the far end is `taper` times as thick."""
    a, b = np.asarray(low, np.float64).reshape(-1, 3), np.asarray(high, np.float64).reshape(-1, 3)
    thick = np.broadcast_to(np.asarray(radius, np.float64), (len(a),))[:, None, None]
    axis = (b - a) / np.maximum(np.linalg.norm(b - a, axis=1, keepdims=True), 1e-9)
    helper = np.where(np.abs(axis[:, 2:]) > 0.9, [[1.0, 0, 0]], [[0, 0, 1.0]])
    right = np.cross(helper, axis)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    front = np.cross(axis, right)
    angle = 2 * np.pi * np.arange(sides) / sides
    ring = right[:, None] * np.cos(angle)[None, :, None] + front[:, None] * np.sin(angle)[None, :, None]
    start, stop = a[:, None] + ring * thick, b[:, None] + ring * thick * taper
    faces = np.stack([start, np.roll(start, -1, 1), np.roll(stop, -1, 1), stop], 2).reshape(-1, 4, 3)
    builder.quads(faces, **_looks(look, len(a), sides))
    if cap:
        fan = np.stack([np.broadcast_to(stop.mean(1)[:, None], stop.shape), stop, np.roll(stop, -1, 1)], 2).reshape(-1, 3, 3)
        builder.triangles(fan, **_looks(look, len(a), sides))


def add_balls(builder: Builder, centre: ArrayLike, *, radius: ArrayLike, level: int = 1, rough: Floats | None = None, **look: Any) -> None:
    """Ellipsoids of triangles with half axes `radius` (k, 3) around `centre` (k, 3); `rough` (k, corners) stretches each corner."""
    middle = np.asarray(centre, np.float64).reshape(-1, 3)
    points, faces = ball(level)
    half = np.broadcast_to(np.asarray(radius, np.float64), middle.shape)
    grown = points[None] * half[:, None] * (1.0 if rough is None else rough[..., None])
    corners = (middle[:, None] + grown)[:, faces].reshape(-1, 3, 3)
    builder.triangles(corners, centre=np.repeat(middle, len(faces), 0), **_looks(look, len(middle), len(faces)))


@cache
def ball(level: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Corners (m, 3) on the unit sphere and faces (f, 3) of an icosahedron whose faces are split `level` times.

    >>> [len(part) for part in ball(1)]
    [42, 80]
    """
    g = (1 + 5**0.5) / 2
    points = [(-1, g, 0), (1, g, 0), (-1, -g, 0), (1, -g, 0), (0, -1, g), (0, 1, g), (0, -1, -g), (0, 1, -g), (g, 0, -1), (g, 0, 1)]
    points += [(-g, 0, -1), (-g, 0, 1)]
    text = (
        "0 11 5 0 5 1 0 1 7 0 7 10 0 10 11 1 5 9 5 11 4 11 10 2 10 7 6 7 1 8 3 9 4 3 4 2 3 2 6 3 6 8 3 8 9 4 9 5 2 4 11 6 2 10 8 6 7 9 8 1"
    )
    faces = np.array(text.split(), np.int64).reshape(-1, 3)
    corners = np.array(points, np.float64)
    for _ in range(level):
        corners, faces = _split(corners, faces)
    return corners / np.linalg.norm(corners, axis=1, keepdims=True), faces


def _split(corners: NDArray[np.float64], faces: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    sides = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    unique, number = np.unique(sides, axis=0, return_inverse=True)
    middle = corners[unique].mean(1)
    middle *= np.linalg.norm(corners[0]) / np.linalg.norm(middle, axis=1, keepdims=True)
    ab, bc, ca = (number.reshape(-1, 3) + len(corners)).T
    a, b, c = faces.T
    new = np.stack([a, ab, ca, b, bc, ab, c, ca, bc, ab, bc, ca], 1).reshape(-1, 3)
    return np.concatenate([corners, middle]), new


def _looks(look: dict[str, Any], count: int, times: int) -> dict[str, Any]:
    """Looks of each solid as looks of each of its faces; what is the same for all stays as it is."""
    looks = {}
    for name, value in look.items():
        each = np.asarray(value).ndim == (2 if name in ("colour", "origin", "across") else 1)
        looks[name] = np.repeat(np.broadcast_to(value, (count, *np.shape(value)[1:])), times, 0) if each else value
    return looks
