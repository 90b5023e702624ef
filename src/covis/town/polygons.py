"""Polygons on the ground: area, insets, rounded corners and triangles. Counter-clockwise, metres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points: TypeAlias = NDArray[np.float64]


def area(polygon: Points) -> float:
    """Square metres; negative for a clockwise polygon.

    >>> area(np.array([[0.0, 0], [2, 0], [2, 2], [0, 2]]))
    4.0
    """
    x, y = polygon.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def inset(polygon: ArrayLike, distances: Sequence[float] | float) -> Points:
    """Move side i (from corner i to the next) inwards by its distance; corners are where the moved sides meet.

    >>> inset([[0, 0], [10, 0], [10, 10], [0, 10]], [1, 2, 0, 0]).tolist()
    [[0.0, 1.0], [8.0, 1.0], [8.0, 10.0], [0.0, 10.0]]
    """
    corners = np.asarray(polygon, np.float64)
    way = np.roll(corners, -1, 0) - corners
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    inward = np.stack([-way[:, 1], way[:, 0]], 1)
    far = np.broadcast_to(np.asarray(distances, np.float64), (len(corners),))
    moved = np.empty_like(corners)
    for k in range(len(corners)):
        before = k - 1
        turn = way[before, 0] * way[k, 1] - way[before, 1] * way[k, 0]
        if abs(turn) < 0.08:  # almost straight: the mean of both sides
            moved[k] = corners[k] + (inward[before] + inward[k]) / 2 * (far[before] + far[k]) / 2
        else:
            moved[k] = corners[k] + (far[before] * way[k] - far[k] * way[before]) / turn
    return moved


def rounded(polygon: Points, radius: float, *, steps: int = 4) -> Points:
    """Corners as arcs of `steps` points where the polygon turns left by enough."""
    points: list[Points] = []
    for k in range(len(polygon)):
        here, back, ahead = polygon[k], polygon[k - 1] - polygon[k], polygon[(k + 1) % len(polygon)] - polygon[k]
        a, b = back / np.linalg.norm(back), ahead / np.linalg.norm(ahead)
        turn = -(a[0] * b[1] - a[1] * b[0])
        if turn < 0.15:
            points.append(here[None])
            continue
        half = np.arccos(np.clip(a @ b, -1, 1)) / 2
        cut = min(radius / np.tan(half), 0.3 * np.linalg.norm(back), 0.3 * np.linalg.norm(ahead))
        share = np.linspace(0, 1, steps)[:, None]
        start, stop = here + a * cut, here + b * cut
        points.append((1 - share) ** 2 * start + 2 * share * (1 - share) * here + share**2 * stop)  # a quadratic curve is round enough
    return np.concatenate(points)


def triangulated(polygon: Points) -> NDArray[np.int64]:
    """Triangles (m, 3) of corner numbers that fill a simple polygon, by cutting off ears."""
    left = list(range(len(polygon)))
    found = []
    while len(left) > 3:
        for place in range(len(left)):
            a, b, c = left[place - 1], left[place], left[(place + 1) % len(left)]
            others = polygon[[k for k in left if k not in (a, b, c)]]
            if _cross(polygon[a], polygon[b], polygon[c]) > 1e-9 and not _within(others, polygon[[a, b, c]]).any():
                break
        else:
            place = 0  # nothing but straight corners: any will do
            a, b, c = left[-1], left[0], left[1]
        found.append([a, b, c])
        del left[place]
    return np.array([*found, left], np.int64)


def inside(points: Points, polygon: Points) -> NDArray[np.bool_]:
    """(n,) whether each point lies inside a simple polygon."""
    x, y = points[:, :1], points[:, 1:]
    x0, y0 = polygon.T
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossed = ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return np.asarray(crossed.sum(1) % 2 == 1)


def _cross(a: Points, b: Points, c: Points) -> float:
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def _within(points: Points, triangle: Points) -> NDArray[np.bool_]:
    result = np.ones(len(points), bool)
    for k in range(3):
        a, b = triangle[k], triangle[(k + 1) % 3]
        result &= (b[0] - a[0]) * (points[:, 1] - a[1]) - (b[1] - a[1]) * (points[:, 0] - a[0]) > 1e-9
    return result
