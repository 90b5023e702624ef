"""Rides through the town: where a camera stands and looks, frame by frame, along the lanes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.town.cameras import Camera, look
from covis.town.plans import Plan
from covis.town.towns import Town
from covis.town.visits import Visit

View: TypeAlias = Literal["forward", "backward", "sideways"]
LANE = {"alley": 0.0, "street": 1.75, "avenue": 5.5}
"""Metres to the right of a street's middle where one drives, by its kind."""
_TURN: dict[str, float] = {"forward": 0.0, "backward": 180.0, "sideways": 90.0}
_MARGIN = 7.0  # metres that a ride keeps from the ends of its routes
_EASE = 5.0  # metres over which a camera turns with its street


@dataclass(frozen=True)
class Ride:
    """One way of going through the town with a camera.

    Attributes:
        number: of the ride; draws its own jitter.
        visit: what the town is like then.
        condition: a name in `covis.town.conditions.CONDITIONS`.
        frames: how many pictures.
        spacing: metres between two.
        view: which way the camera looks, seen from the way it goes; "sideways" is to the right.
        reverse: whether routes are gone the other way.
        start: the number of the first route.
        lateral: metres to the left of the lane's middle.
        sway: metres, deviation of the way around that line, smooth along it.
        yaw, pitch, roll: degrees, deviations from frame to frame.
        eye: metres above the ground.
        fov: horizontal opening angle, degrees.

    Raises:
        InvalidInputError: a value is out of its range.
    """

    number: int
    visit: Visit
    condition: str
    frames: int
    spacing: float = 3.0
    view: View = "forward"
    reverse: bool = False
    start: int = 0
    lateral: float = 0.0
    sway: float = 0.3
    yaw: float = 4.0
    pitch: float = 1.0
    roll: float = 0.7
    eye: float = 1.8
    fov: float = 75.0

    def __post_init__(self) -> None:
        if self.view not in _TURN:
            raise InvalidInputError(f"A ride's view must be one of {', '.join(_TURN)}; got {self.view!r}.")
        if self.frames < 1 or self.spacing < 0.05 or not 0.5 <= self.eye <= 3 or not 10 <= self.fov <= 150:
            raise InvalidInputError(f"A ride must have frames, spacing >= 0.05 m, eye 0.5 to 3 m and fov 10 to 150 degrees; got {self}.")
        if abs(self.lateral) + 2 * self.sway > 1.6 or min(self.sway, self.yaw, self.pitch, self.roll) < 0:
            raise InvalidInputError(
                f"A ride's |lateral| + 2 sway must be at most 1.6 m, where cars are parked, and no deviation below 0; got {self}."
            )


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture to be taken.

    Attributes:
        camera: from where and how.
        ride: whose.
        leg: how many routes of the ride were gone before; each is a sequence.
        frame: its number in the sequence.
        along: metres from the beginning of the ride.
    """

    camera: Camera
    ride: Ride
    leg: int
    frame: int
    along: float


def routes(plan: Plan) -> list[list[int]]:
    """Ways through the town as lists of nodes: every street once, going on as straight as possible, longest first."""
    left = {frozenset((street.start, street.stop)) for street in plan.streets}
    around: dict[int, list[int]] = {}
    for street in plan.streets:
        around.setdefault(street.start, []).append(street.stop)
        around.setdefault(street.stop, []).append(street.start)
    found = []
    for street in plan.streets:
        if frozenset((street.start, street.stop)) not in left:
            continue
        way = [street.start, street.stop]
        left.discard(frozenset(way))
        for _ in range(2):
            while (ahead := _ahead(plan, way, around, left)) is not None:
                left.discard(frozenset((way[-1], ahead)))
                way.append(ahead)
            way.reverse()
        found.append(way)
    return sorted(found, key=lambda way: (-round(_length(plan.nodes[way]), 3), way))


def shots(town: Town, ride: Ride, *, size: tuple[int, int] = (240, 320)) -> list[Shot]:
    """Every picture of a ride, in the order of the way; the same town and ride give the same poses to the last bit.

    The routes are gone one after the other from `ride.start` on; a ride longer than all of them begins again, half a spacing
    further.

    Args:
        town: where.
        ride: how.
        size: (height, width) pixels.
    """
    rng = np.random.default_rng([town.seed, 41, ride.number])
    ways = routes(town.plan)
    found: list[Shot] = []
    number, shift, done = ride.start, 0.0, 0.0
    while len(found) < ride.frames:
        way = ways[number % len(ways)]
        line = _Line(town.plan, way[::-1] if ride.reverse else way)
        places = np.arange(_MARGIN + shift, line.length - _MARGIN, ride.spacing)[: ride.frames - len(found)]
        places = places + rng.uniform(-0.15, 0.15, len(places)) * ride.spacing
        if ride.reverse:  # the same stretch of street, gone the other way
            places = (line.length - places)[::-1]
        phase = rng.uniform(0, 2 * np.pi, 2)
        for frame, along in enumerate(places.tolist()):
            sway = ride.sway * (math.sin(along / 7 + phase[0]) + 0.6 * math.sin(along / 2.9 + phase[1]))
            camera = _camera(line, along, ride, sway, rng, size)
            found.append(Shot(camera, ride, number - ride.start, frame, round(done + along, 6)))
        done += line.length
        number += 1
        shift += ride.spacing / 2 if number % len(ways) == ride.start % len(ways) else 0.0
    return found


def _camera(line: _Line, along: float, ride: Ride, sway: float, rng: np.random.Generator, size: tuple[int, int]) -> Camera:
    at, turn = line.at(along)
    left = np.array([-math.cos(turn), math.sin(turn)])
    where = at + left * (ride.lateral + sway)
    yaw, pitch, roll, lift = rng.normal(0, 1, 4).tolist()
    heading = math.degrees(turn) + _TURN[ride.view] + ride.yaw * max(-2.5, min(2.5, yaw))
    return look(
        (float(where[0]), float(where[1]), ride.eye + 0.03 * lift), heading=heading % 360, pitch=ride.pitch * pitch, roll=ride.roll * roll,
        fov=ride.fov, size=size,
    )  # fmt: skip


class _Line:
    """A route's lane: places by the metres along the street's middle."""

    def __init__(self, plan: Plan, way: Sequence[int]) -> None:
        self.points = plan.nodes[list(way)]
        steps = np.linalg.norm(np.diff(self.points, axis=0), axis=1)
        self.starts = np.concatenate([[0.0], np.cumsum(steps)])
        self.length = float(self.starts[-1])
        kind = {frozenset((street.start, street.stop)): street.kind for street in plan.streets}
        self.aside = [LANE[kind[frozenset(pair)]] for pair in itertools.pairwise(way)]

    def at(self, along: float) -> tuple[NDArray[np.float64], float]:
        """The lane's place (2,) and direction (radians clockwise from north), eased over corners."""
        before, after = self._middle(along - _EASE), self._middle(along + _EASE)
        turn = math.atan2(*(after - before))
        right = np.array([math.cos(turn), -math.sin(turn)])
        aside = sum(self._aside(along + step * _EASE) for step in (-1.0, -0.5, 0.0, 0.5, 1.0)) / 5
        eased = (before + after + 2 * self._middle(along)) / 4
        return eased + right * aside, turn

    def _middle(self, along: float) -> NDArray[np.float64]:
        share = min(max(along, 0.0), self.length)
        return np.array([np.interp(share, self.starts, self.points[:, k]) for k in (0, 1)])

    def _aside(self, along: float) -> float:
        row = int(np.searchsorted(self.starts, min(max(along, 0.0), self.length - 1e-9), side="right")) - 1
        return self.aside[row]


def _ahead(plan: Plan, way: list[int], around: dict[int, list[int]], left: set[frozenset[int]]) -> int | None:
    """The node to go on to: the straightest street not yet taken, if it turns by less than 50 degrees."""
    here, back = way[-1], plan.nodes[way[-1]] - plan.nodes[way[-2]]
    best, found = math.cos(math.radians(50)), None
    for other in around[here]:
        step = plan.nodes[other] - plan.nodes[here]
        straight = float(step @ back / (np.linalg.norm(step) * np.linalg.norm(back)))
        if frozenset((here, other)) in left and straight > best:
            best, found = straight, other
    return found


def _length(points: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
