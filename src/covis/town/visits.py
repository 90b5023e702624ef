"""What changes between visits, and only that: leaves, parked cars, people, building works, shops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.town.furniture import sides
from covis.town.ground import KERB, trims
from covis.town.lots import Lot
from covis.town.meshes import Builder, Kind, Label, Table
from covis.town.people import ride, walk
from covis.town.plans import HALF, SIDEWALK, Plan
from covis.town.plants import grow_leaves
from covis.town.solids import add_boxes, add_prisms, box_corners, placed
from covis.town.vehicles import SHAPES, park

_UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Visit:
    """A time at which the town is photographed: everything that may differ from another time, except light and weather.

    Attributes:
        number: which cars stand where and who walks about; the same number gives the same.
        year: which shops are there and where people build; year 0 is how the town was built.
        leaves: whether trees have leaves.
        cars: the share of parking places that are taken, in [0, 1].
        people: how busy side-walks are; 1 is about one person for every 12 m of a side-walk.

    Raises:
        InvalidInputError: a value is out of its range.
    """

    number: int = 0
    year: int = 0
    leaves: bool = True
    cars: float = 0.6
    people: float = 0.5

    def __post_init__(self) -> None:
        if self.number < 0 or self.year < 0:
            raise InvalidInputError(f"A visit's number and year must be 0 or more; got {self.number} and {self.year}.")
        if not 0 <= self.cars <= 1 or not 0 <= self.people <= 5:
            raise InvalidInputError(f"A visit's cars must be in [0, 1] and its people in [0, 5]; got {self.cars} and {self.people}.")


def grow(builder: Builder, trees: Table, seed: int) -> None:
    """Leaves on every tree, the same every summer."""
    grow_leaves(builder, trees, np.random.default_rng([seed, 21]))


def park_cars(builder: Builder, plan: Plan, visit: Visit, seed: int) -> None:
    """Cars along the kerbs, a few vans, lorries and buses among them, and cars under way on the inner lanes of avenues."""
    rng = np.random.default_rng([seed, 22, visit.number])
    at, angle = _places(plan, visit.cars, rng)
    names = ["hatch", "sedan", "estate", "suv", "van"]
    which = rng.choice(len(names), size=len(at), p=[0.34, 0.24, 0.12, 0.18, 0.12])
    for number, name in enumerate(names):
        park(builder, SHAPES[name], at=at[which == number], angle=angle[which == number], rng=rng)
    for name, share in (("sedan", 0.5), ("suv", 0.25), ("bus", 0.25), ("truck", 0.15)):
        at, angle = _under_way(plan, share, rng)
        park(builder, SHAPES[name], at=at, angle=angle, rng=rng)


def send_people(builder: Builder, plan: Plan, visit: Visit, seed: int) -> None:
    """People on the side-walks, and some cyclists beside the parked cars."""
    rng = np.random.default_rng([seed, 23, visit.number])
    spots, turns = [np.zeros((0, 3))], [np.zeros(0)]
    for block in plan.blocks:
        for side in sides(block):
            count = int(rng.poisson(visit.people * side.length / 12))
            wide = SIDEWALK[side.street]
            u, w = rng.uniform(2, side.length - 2, count), rng.uniform(min(1.3, wide * 0.6), max(wide - 0.4, 1.2), count)
            spots.append(side.at(u, 0.0) + w[:, None] * np.array([*side.inward, 0.0]))
            turns.append(side.angle + np.pi * rng.integers(0, 2, count) + rng.normal(0, 0.2, count))
    walk(builder, at=np.concatenate(spots), angle=np.concatenate(turns), rng=rng)
    riders = [
        (street, rng.uniform(0.25, 0.75), rng.choice([-1, 1])) for street in plan.streets if street.kind == "avenue" and rng.random() < 0.3
    ]
    if riders:
        where = [_on(plan, street.start, street.stop, share, way * -0.35) for street, share, way in riders]
        angles = np.array([turn + (0 if way > 0 else np.pi) for (_, turn), (_, _, way) in zip(where, riders, strict=True)])
        ride(builder, at=np.array([at for at, _ in where]), angle=angles, rng=rng)


def build_works(builder: Builder, lots: Sequence[Lot], year: int, seed: int) -> None:
    """Scaffolds with nets before some fronts, other ones every year; none in year 0."""
    if year == 0:
        return
    rng = np.random.default_rng([seed, 24, year])
    for lot in lots:
        if lot.facade is None or rng.random() > 0.07:
            continue
        way = lot.corners[1] - lot.corners[0]
        width = float(np.linalg.norm(way))
        angle, at = float(np.arctan2(way[1], way[0])), np.array([*lot.corners[0], KERB])
        number, top = int(builder.things(1)[0]), float(lot.facade["height"][0]) + 0.8
        green = [(0.10, 0.28, 0.14), (0.55, 0.55, 0.52), (0.08, 0.18, 0.4)][int(rng.integers(3))]
        net = [[0.1, -1.0, 2.4], [width - 0.1, -1.0, 2.4], [width - 0.1, -1.0, top], [0.1, -1.0, top]]
        look: dict[str, Any] = {"label": Label.FENCE, "instance": number}
        builder.quads(placed(net, at=at, angle=angle), kind=Kind.NET, colour=green, salt=3, **look)
        boards = box_corners([[0.1, -1.05, 0.0]], [[width - 0.1, -0.95, 2.1]])
        add_boxes(builder, placed(boards[0], at=at, angle=angle), kind=Kind.BOARDS, colour=(0.3, 0.2, 0.1), salt=4, **look)
        u = np.arange(0.1, width, 2.0)
        foot = placed(np.column_stack([u, np.full(len(u), -1.02), u * 0]), at=at, angle=angle)[0]
        add_prisms(builder, foot, foot + top * _UP, radius=0.04, sides=4, kind=Kind.PLAIN, colour=(0.3, 0.3, 0.3), **look)


def _places(plan: Plan, share: float, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places (k, 3) and directions (k,) of parked cars."""
    spots, turns = [np.zeros((0, 3))], [np.zeros(0)]
    cut = trims(plan)
    for number, street in enumerate(plan.streets):
        start, stop = plan.nodes[street.start], plan.nodes[street.stop]
        length = float(np.linalg.norm(stop - start))
        way = (stop - start) / length
        left = np.array([-way[1], way[0]])
        for side in (-1, 1):
            if street.kind == "alley":
                continue
            u = np.arange(cut[number, 0] + 9.0, length - cut[number, 1] - 8.5, 5.7)
            u = (u + rng.uniform(-0.35, 0.35, len(u)))[rng.random(len(u)) < share]
            v = side * (HALF[street.kind] - 1.12 + rng.uniform(-0.12, 0.12, len(u)))
            flat = start + u[:, None] * way + v[:, None] * left
            spots.append(np.column_stack([flat, np.full(len(u), 0.004)]))
            backwards = (side > 0) ^ (rng.random(len(u)) < 0.08)
            turns.append(np.arctan2(way[1], way[0]) + np.where(backwards, np.pi, 0.0) + rng.normal(0, 0.02, len(u)))
    return np.concatenate(spots), np.concatenate(turns)


def _under_way(plan: Plan, share: float, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places and directions on the inner lanes of avenues, where no camera drives."""
    found = []
    for street in plan.streets:
        for side in (-1, 1):
            if street.kind == "avenue" and rng.random() < share:
                at, turn = _on(plan, street.start, street.stop, rng.uniform(0.15, 0.85), side * 1.75)
                found.append((at, turn + (np.pi if side > 0 else 0.0)))
    if not found:
        return np.zeros((0, 3)), np.zeros(0)
    return np.array([at for at, _ in found]), np.array([turn for _, turn in found])


def _on(plan: Plan, start: int, stop: int, share: float, aside: float) -> tuple[NDArray[np.float64], float]:
    a, b = plan.nodes[start], plan.nodes[stop]
    way = (b - a) / np.linalg.norm(b - a)
    flat = a + (b - a) * share + aside * np.array([-way[1], way[0]])
    return np.array([*flat, 0.004]), float(np.arctan2(way[1], way[0]))
