"""Synthetic streets with exact depth and poses: small, quick to render, and hard enough to teach place recognition.

Each street is seen twice: a database visit by day and a query visit at dusk, from other places, in other directions
and with other cars along the kerb. Poses are camera-to-world in the OpenCV convention (x right, y down, z forward);
the world is east-north-up in metres; pixel (u, v) has its centre at the integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.lookup import resolve
from covis.world.casting import Camera
from covis.world.lighting import CONDITIONS, expose
from covis.world.painting import Scenery
from covis.world.plans import Cars, Plan, plan_cars, plan_street
from covis.world.rendering import see_colour, see_depth
from covis.world.shapes import Shapes, concatenate

DATABASE, QUERIES = 0, 1
"""The two visits of a street."""

_PLAN, _CARS, _PATH, _SENSOR = range(4)  # the last part of each generator's seed: what it draws


@dataclass(frozen=True)
class StreetSettings:
    """What is built, and how it is photographed.

    Args:
        train: number of streets to learn from.
        test: number of streets to be tested on; they share no house with the others.
        database: frames of each street's first visit.
        queries: frames of its second.
        spacing: metres along the street from one database frame to the next; the queries cover the same stretch.
        height: of a picture, pixels.
        width: of a picture, pixels.
        fov: horizontal field of view, degrees.
        lateral: greatest distance of a camera from the middle of the road, metres.
        yaw: greatest angle between a camera and the street, degrees.
        eye: height of the camera above the road, metres.
        far: metres beyond which the depth is unknown; at most 65 for the millimetres of 7-Scenes.
        cars: share of the parking places that are taken, drawn anew for each visit.
        conditions: names in `CONDITIONS` of the light of both visits.

    Raises:
        InvalidInputError: a value is out of its range.

    >>> StreetSettings(fov=200)
    Traceback (most recent call last):
    ...
    covis.errors.InvalidInputError: fov must be from 10 to 150 (degrees); got 200. Change it in StreetSettings.
    """

    train: int = 8
    test: int = 2
    database: int = 120
    queries: int = 80
    spacing: float = 1.0
    height: int = 96
    width: int = 128
    fov: float = 75.0
    lateral: float = 1.0
    yaw: float = 15.0
    eye: float = 1.6
    far: float = 60.0
    cars: float = 0.5
    conditions: tuple[str, str] = ("day", "dusk")

    def __post_init__(self) -> None:
        for name, (low, high, unit) in _LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidInputError(f"{name} must be from {low:g} to {high:g} ({unit}); got {value!r}. Change it in StreetSettings.")
        for name in ("train", "test", "database", "queries", "height", "width"):
            if int(getattr(self, name)) != getattr(self, name):
                raise InvalidInputError(f"{name} must be a whole number; got {getattr(self, name)!r}. Change it in StreetSettings.")
        if len(self.conditions) != 2:
            raise InvalidInputError(
                f"conditions must name the light of two visits; got {self.conditions!r}. Known: {', '.join(CONDITIONS)}."
            )
        for name in self.conditions:
            resolve(name, CONDITIONS, what="condition")

    @property
    def length(self) -> float:
        """Metres from the first database frame to the place where one more would stand."""
        return self.database * self.spacing


_LIMITS: Mapping[str, tuple[float, float, str]] = {
    "train": (0, 1000, "streets"),
    "test": (0, 1000, "streets"),
    "database": (1, 100_000, "frames"),
    "queries": (1, 100_000, "frames"),
    "spacing": (0.05, 20, "metres"),
    "height": (8, 4096, "pixels"),
    "width": (8, 4096, "pixels"),
    "fov": (10, 150, "degrees"),
    "lateral": (0, 1.5, "metres: the road is free of cars that far"),
    "yaw": (0, 60, "degrees"),
    "eye": (0.5, 3, "metres"),
    "far": (1, 65, "metres"),
    "cars": (0, 1, "a share"),
}

PRESETS: Mapping[str, StreetSettings] = {
    "demo": StreetSettings(),
    "tiny": StreetSettings(train=2, test=1, database=24, queries=16, height=48, width=64),
}


@dataclass(frozen=True)
class Frame:
    """One picture: `rgb` (height, width, 3) uint8 and `depth` (height, width) float32 metres, 0 where unknown."""

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]


@dataclass(frozen=True)
class Street:
    """A street that is built: what always stands there, and what each visit finds parked.

    Args:
        settings: what it was built from.
        index: its number.
        seed: of the town.
        plan: houses, trees and lamps.
        cars: of each visit.
        placement: (4, 4) float64, from the street's frame (x along it, y to its left, z up) to the world.
        sun: unit direction towards the sun by day, in the street's frame.
    """

    settings: StreetSettings
    index: int
    seed: int
    plan: Plan
    cars: tuple[Cars, Cars]
    placement: NDArray[np.float64]
    sun: tuple[float, float, float]

    def shapes(self, visit: int, *, cars: bool = True) -> Shapes:
        """Everything that stands there at a visit, or what stands there at every visit."""
        return concatenate([self.plan.shapes, self.cars[visit].shapes]) if cars else self.plan.shapes


def build_street(settings: StreetSettings, index: int, *, seed: int) -> Street:
    """Build street number `index` of the town `seed`; the same numbers give the same street.

    Raises:
        InvalidInputError: the index or the seed is negative.
    """
    for name, value in (("index", index), ("seed", seed)):
        if value < 0:
            raise InvalidInputError(f"{name} must be 0 or more; got {value}.")
    rng = np.random.default_rng([seed, index, _PLAN])
    plan = plan_street(settings.length, rng)
    parked = [
        plan_cars(settings.length, settings.cars, np.random.default_rng([seed, index, _CARS, visit])) for visit in (DATABASE, QUERIES)
    ]
    heading, climb, turn = (
        rng.uniform(0, 2 * np.pi),
        np.deg2rad(rng.uniform(38, 55)),
        np.deg2rad(rng.uniform(30, 150) * rng.choice([-1, 1])),
    )
    placement = np.eye(4)
    placement[:2, :2] = [[np.sin(heading), -np.cos(heading)], [np.cos(heading), np.sin(heading)]]
    placement[:2, 3] = 1000.0 * index, 0.0  # streets of one town lie a kilometre apart
    sun = np.cos(climb) * np.cos(turn), np.cos(climb) * np.sin(turn), np.sin(climb)
    return Street(settings, index, seed, plan, (parked[0], parked[1]), placement, (float(sun[0]), float(sun[1]), float(sun[2])))


def intrinsics(settings: StreetSettings) -> tuple[float, float, float, float]:
    """(fx, fy, cx, cy) in pixels, the principal point in the middle of the picture.

    >>> [round(value, 3) for value in intrinsics(StreetSettings(width=64, height=48, fov=90))]
    [32.0, 32.0, 31.5, 23.5]
    """
    focal = settings.width / 2 / np.tan(np.deg2rad(settings.fov) / 2)
    return float(focal), float(focal), (settings.width - 1) / 2, (settings.height - 1) / 2


def poses(street: Street, visit: int) -> NDArray[np.float64]:
    """Camera-to-world poses of a visit, (n, 4, 4) float64, in the order in which the street is walked."""
    count = _count(street.settings, visit)
    return np.stack([street.placement @ _local_pose(street, visit, frame) for frame in range(count)])


def render(street: Street, visit: int, frame: int, *, condition: str | None = None, cars: bool = True) -> Frame:
    """Photograph one frame of a visit.

    Args:
        street: what `build_street` gave.
        visit: `DATABASE` or `QUERIES`.
        frame: its number in the visit.
        condition: a name in `CONDITIONS`; the visit's own unless said.
        cars: whether anybody has parked.

    Raises:
        InvalidInputError: there is no such visit or frame.
        UnknownNameError: there is no such condition.
    """
    settings = street.settings
    if not 0 <= frame < _count(settings, visit):
        raise InvalidInputError(f"frame must be from 0 to {_count(settings, visit) - 1} at visit {visit}; got {frame}.")
    light = resolve(condition or settings.conditions[visit], CONDITIONS, what="condition")
    fx, fy, cx, cy = intrinsics(settings)
    pose = _local_pose(street, visit, frame)
    camera = Camera(pose[:3, 3], pose[:3, :3], (fx, fy), (cx, cy), (settings.height, settings.width))
    rng = np.random.default_rng([street.seed, street.index, visit, frame, _SENSOR])
    scenery = Scenery(street.plan.facades, street.plan.things, street.cars[visit].table, street.plan.zebras, light.lit)
    shapes = street.shapes(visit, cars=cars)
    colour = see_colour(shapes, camera, scenery=scenery, skyline=street.plan.skyline, condition=light, sun=street.sun, drift=37.0 * visit)
    return Frame(expose(colour, light, rng), see_depth(shapes, camera, far=settings.far))


def _count(settings: StreetSettings, visit: int) -> int:
    if visit not in (DATABASE, QUERIES):
        raise InvalidInputError(f"visit must be {DATABASE} (database) or {QUERIES} (queries); got {visit!r}.")
    return (settings.database, settings.queries)[visit]


def _local_pose(street: Street, visit: int, frame: int) -> NDArray[np.float64]:
    """Camera to street: the frame's place along the road with its jitter, looking down the road."""
    settings = street.settings
    rng = np.random.default_rng([street.seed, street.index, visit, frame, _PATH])
    step = settings.length / _count(settings, visit)
    along = (frame + rng.uniform(-0.25, 0.25)) * step
    yaw, pitch = np.deg2rad(rng.uniform(-1, 1) * settings.yaw), np.deg2rad(rng.uniform(-1.5, 1.5))
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    pose[:3, 3] = along, rng.uniform(-1, 1) * settings.lateral, settings.eye + rng.uniform(-0.05, 0.05)
    return pose
