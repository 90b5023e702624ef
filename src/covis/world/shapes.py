"""What a street is made of: axis-aligned rectangles and ellipsoids in one table, each with a material and an owner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
Integers: TypeAlias = NDArray[np.integer[Any]]

ELLIPSOID = 3
"""The `axis` of a shape that is no rectangle: the ellipsoid inscribed in its box."""

_LIFT = 0.01  # metres: what lies on the ground hovers by this much, so that no two shapes coincide


class Material(IntEnum):
    """How a shape is painted; its `owner` is a row of the table that belongs to the material."""

    GROUND = 0
    PAVEMENT = 1
    FACADE = 2
    PLAIN = 3
    LEAVES = 4
    CAR = 5
    SHADE = 6


@dataclass(frozen=True)
class Shapes:
    """A table of rectangles and ellipsoids, in the street's own frame (x along it, y to its left, z up; metres).

    Args:
        centre: (n, 3) float32, metres.
        half: (n, 3) float32, half the extent along each axis; 0 along a rectangle's normal.
        axis: (n,) int32, the axis of a rectangle's normal (0, 1, 2), or `ELLIPSOID`.
        side: (n,) int32, the sign of that normal; a rectangle is seen from its own side only.
        material: (n,) int32, a `Material`.
        owner: (n,) int32, the row in the material's table.
    """

    centre: Floats
    half: Floats
    axis: Integers
    side: Integers
    material: Integers
    owner: Integers

    def __len__(self) -> int:
        return len(self.axis)


def boxes(low: ArrayLike, high: ArrayLike, *, material: Material, owner: ArrayLike) -> Shapes:
    """The five visible faces of each box (none has a bottom).

    Args:
        low: (n, 3) metres, the smallest corner of each box.
        high: (n, 3) metres, the largest.
        material: of every face.
        owner: (n,) the row in the material's table.

    >>> shapes = boxes([[0, 0, 0]], [[2, 2, 2]], material=Material.PLAIN, owner=[0])
    >>> len(shapes), shapes.centre[0].tolist(), shapes.half[0].tolist()
    (5, [0.0, 1.0, 1.0], [0.0, 1.0, 1.0])
    """
    low, high = np.asarray(low, np.float32).reshape(-1, 3), np.asarray(high, np.float32).reshape(-1, 3)
    owner = np.asarray(owner, np.int32)
    faces = []
    for axis, side in ((0, -1), (0, 1), (1, -1), (1, 1), (2, 1)):
        centre, half = (low + high) / 2, (high - low) / 2
        centre[:, axis] = (high if side > 0 else low)[:, axis]
        half[:, axis] = 0
        faces.append(_table(centre, half, axis=axis, side=side, material=material, owner=owner))
    return concatenate(faces)


def floors(low: ArrayLike, high: ArrayLike, *, height: float, material: Material) -> Shapes:
    """Horizontal rectangles seen from above, one owner each.

    Args:
        low: (n, 2) metres, the smallest corner.
        high: (n, 2) metres, the largest.
        height: metres above the road; raised by a centimetre where it is 0 and something may lie below.
        material: of every rectangle.
    """
    low, high = np.asarray(low, np.float32).reshape(-1, 2), np.asarray(high, np.float32).reshape(-1, 2)
    level = np.full((len(low), 1), height + (_LIFT if material is Material.SHADE else 0), np.float32)
    centre, half = np.hstack([(low + high) / 2, level]), np.hstack([(high - low) / 2, level * 0])
    return _table(centre, half, axis=2, side=1, material=material, owner=np.arange(len(low), dtype=np.int32))


def ellipsoids(centre: ArrayLike, radius: ArrayLike, *, material: Material, owner: ArrayLike) -> Shapes:
    """Ellipsoids with half axes `radius` (n, 3) metres around `centre` (n, 3) metres."""
    centre, radius = np.asarray(centre, np.float32).reshape(-1, 3), np.asarray(radius, np.float32).reshape(-1, 3)
    return _table(centre, radius, axis=ELLIPSOID, side=1, material=material, owner=np.asarray(owner, np.int32))


def concatenate(parts: Sequence[Shapes]) -> Shapes:
    """All rows of several tables as one, in their order."""
    return Shapes(
        centre=np.concatenate([part.centre for part in parts]),
        half=np.concatenate([part.half for part in parts]),
        axis=np.concatenate([part.axis for part in parts]),
        side=np.concatenate([part.side for part in parts]),
        material=np.concatenate([part.material for part in parts]),
        owner=np.concatenate([part.owner for part in parts]),
    )


def _table(centre: Floats, half: Floats, *, axis: int, side: int, material: Material, owner: Integers) -> Shapes:
    def column(value: int) -> Integers:
        return np.full(len(centre), value, np.int32)

    return Shapes(centre.astype(np.float32), half.astype(np.float32), column(axis), column(side), column(material), owner.reshape(-1))
