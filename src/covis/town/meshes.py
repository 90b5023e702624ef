"""What a town is made of: triangles, and for each flat patch what it is, whose it is and how it is painted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
Table: TypeAlias = NDArray[Any]
GRID = 4
"""Decimals of a metre that corners are rounded to, so that every machine builds the same triangles."""


class Label(IntEnum):
    """What a surface belongs to: the train ids of Cityscapes, and 255 for what has none."""

    ROAD = 0
    SIDEWALK = 1
    BUILDING = 2
    WALL = 3
    FENCE = 4
    POLE = 5
    TRAFFIC_LIGHT = 6
    TRAFFIC_SIGN = 7
    VEGETATION = 8
    TERRAIN = 9
    SKY = 10
    PERSON = 11
    RIDER = 12
    CAR = 13
    TRUCK = 14
    BUS = 15
    TRAIN = 16
    MOTORCYCLE = 17
    BICYCLE = 18
    VOID = 255


ADE20K: Mapping[Label, str] = {
    Label.ROAD: "road, route",
    Label.SIDEWALK: "sidewalk, pavement",
    Label.BUILDING: "building, edifice",
    Label.WALL: "wall",
    Label.FENCE: "fence, fencing",
    Label.POLE: "pole",
    Label.TRAFFIC_LIGHT: "traffic light, traffic signal, stoplight",
    Label.TRAFFIC_SIGN: "signboard, sign",
    Label.VEGETATION: "tree",
    Label.TERRAIN: "grass",
    Label.SKY: "sky",
    Label.PERSON: "person, individual, someone, somebody, mortal, soul",
    Label.RIDER: "person, individual, someone, somebody, mortal, soul",
    Label.CAR: "car, auto, automobile, machine, motorcar",
    Label.TRUCK: "truck, motortruck",
    Label.BUS: "bus, autobus, coach, charabanc, double-decker, jitney, motorbus, motorcoach, omnibus, passenger vehicle",
    Label.MOTORCYCLE: "minibike, motorbike",
    Label.BICYCLE: "bicycle, bike, wheel, cycle",
}
"""The class of ADE20K's 150 that each label is nearest to; trains have none, nor what is void."""


class Kind(IntEnum):
    """How a patch is painted; one painter each."""

    PLAIN = 0
    ASPHALT = 1
    ROAD = 2
    PAVING = 3
    COBBLES = 4
    GRASS = 5
    GRAVEL = 6
    FACADE = 7
    WALL = 8
    TILES = 9
    BARK = 10
    LEAVES = 11
    HEDGE = 12
    CAR = 13
    GLASS = 14
    WHEEL = 15
    LAMP = 16
    SIGNAL = 17
    SIGN = 18
    CLOTH = 19
    STRIPES = 20
    BOARDS = 21
    SHADE = 22
    POSTER = 23
    TAIL = 24
    NET = 25


PATCH = np.dtype(
    [
        ("kind", np.uint8),
        ("label", np.uint8),
        ("instance", np.int32),
        ("owner", np.int32),
        ("salt", np.int32),
        ("colour", np.float32, 3),
        ("origin", np.float32, 3),
        ("across", np.float32, 3),
        ("up", np.float32, 3),
        ("normal", np.float32, 3),
        ("round", np.float32),
    ]
)
"""A patch: `owner` is a row of its kind's table, `colour` its own tint (linear), and (u, v) = (p - origin) · (across, up) metres.

`round` is 1 where light falls as on a ball around `origin` (crowns, heads), 0 where it falls as on the flat patch.
"""


@dataclass(frozen=True)
class Mesh:
    """Triangles and their patches.

    Attributes:
        corners: (n, 3, 3) float32, metres, counter-clockwise seen from outside.
        patch: (n,) int32, each triangle's row in `patches`.
        patches: of the type `PATCH`.
        tables: what painters look up, by name.
    """

    corners: NDArray[np.float32]
    patch: NDArray[np.int32]
    patches: Table
    tables: Mapping[str, Table] = field(default_factory=dict)

    def __add__(self, other: Mesh) -> Mesh:
        """Both together; where both have a table of one name, the other's counts."""
        return Mesh(
            np.concatenate([self.corners, other.corners]),
            np.concatenate([self.patch, other.patch + np.int32(len(self.patches))]),
            np.concatenate([self.patches, other.patches]),
            {**self.tables, **other.tables},
        )


class Builder:
    """Collects patches; every shape takes arrays, so that a thousand boxes cost one call.

    Args:
        instances: the number of things before the first one added here; things are numbered from there.
    """

    def __init__(self, instances: int = 0) -> None:
        self.instances = instances
        self._corners: list[Floats] = []
        self._sizes: list[NDArray[np.int64]] = []
        self._patches: list[Table] = []
        self._edges: list[Floats] = []

    def things(self, count: int) -> NDArray[np.int32]:
        """Numbers for that many new things."""
        first = self.instances + 1
        self.instances += count
        return np.arange(first, first + count, dtype=np.int32)

    def quads(self, corners: ArrayLike, **look: Any) -> None:
        """Quadrangles (k, 4, 3), flat, counter-clockwise from the lower left seen from outside; `look` as in `_rows`."""
        given = np.asarray(corners, np.float64).reshape(-1, 4, 3)
        if len(given):
            self._add(given[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3, 3), 2, given, look)

    def triangles(self, corners: ArrayLike, **look: Any) -> None:
        """Triangles (k, 3, 3), each a patch of its own."""
        given = np.asarray(corners, np.float64).reshape(-1, 3, 3)
        if len(given):
            self._add(given, 1, given, look)

    def polygon(self, triangles: ArrayLike, **look: Any) -> None:
        """Triangles (k, 3, 3) of one plane as one patch."""
        given = np.asarray(triangles, np.float64).reshape(-1, 3, 3)
        self._add(given, len(given), given[:1], look)

    def finish(self, tables: Mapping[str, Table] | None = None) -> Mesh:
        """The mesh of everything added."""
        if not self._corners:
            return Mesh(np.zeros((0, 3, 3), np.float32), np.zeros(0, np.int32), np.zeros(0, PATCH), dict(tables or {}))
        corners = np.round(np.concatenate(self._corners), GRID).astype(np.float32)
        patches, sizes = np.concatenate(self._patches), np.concatenate(self._sizes)
        _set_frames(patches, np.concatenate(self._edges))
        owner = np.repeat(np.arange(len(patches), dtype=np.int32), sizes)
        return Mesh(corners, owner, patches, dict(tables or {}))

    def _add(self, triangles: Floats, size: int, polygons: Floats, look: dict[str, Any]) -> None:
        """Triangles, `size` of them for each of the polygons (k, corners, 3) that give the patches their frames."""
        self._corners.append(triangles)
        self._sizes.append(np.full(len(polygons), size))
        self._edges.append(polygons[:, [0, 1, -1]])
        self._patches.append(_rows(polygons, **look))


def _rows(
    corners: Floats,
    *,
    kind: ArrayLike,
    label: ArrayLike,
    instance: ArrayLike = 0,
    owner: ArrayLike = 0,
    salt: ArrayLike = 0,
    colour: ArrayLike = (0.5, 0.5, 0.5),
    origin: ArrayLike | None = None,
    across: ArrayLike | None = None,
    centre: ArrayLike | None = None,
) -> Table:
    """A row of `PATCH` for each polygon; u runs along its first edge unless `across` says otherwise."""
    rows = np.zeros(len(corners), PATCH)
    for name, value in (("kind", kind), ("label", label), ("instance", instance), ("owner", owner), ("salt", salt), ("colour", colour)):
        rows[name] = value
    rows["origin"] = corners[:, 0] if origin is None else origin
    rows["across"] = np.nan if across is None else across
    if centre is not None:
        rows["origin"], rows["round"] = centre, 1
    return rows


def _set_frames(patches: Table, edges: Floats) -> None:
    """The axes of patches, from the first, second and last corner (k, 3, 3) of each; all at once, since one by one it takes seconds."""
    first = edges[:, 1] - edges[:, 0]
    normal = _unit(np.cross(first, edges[:, 2] - edges[:, 0]))
    along = np.where(np.isnan(patches["across"]), _unit(first), patches["across"])
    patches["normal"], patches["across"], patches["up"] = normal, along, np.cross(normal, along)


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return unit
