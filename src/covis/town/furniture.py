"""What stands along streets: lamps, trees, signs, bins, benches, fences and hedges; always in the same place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.town.ground import KERB
from covis.town.lots import Lot
from covis.town.meshes import Builder, Kind, Label
from covis.town.patterns import linear
from covis.town.places import Standing, lay_out_park, lay_out_square
from covis.town.plans import SIDEWALK, Block, Points
from covis.town.plants import draw_trees, plant_hedge, stand_fence, stand_wall
from covis.town.solids import add_balls, add_boxes, add_prisms, box_corners, placed

_UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class _Side:
    """One side of a block, as a frame: u metres along the kerb, w from it towards the houses."""

    start: Points
    way: Points
    inward: Points
    length: float
    street: str

    def at(self, u: NDArray[np.float64] | float, w: float, z: float = KERB) -> NDArray[np.float64]:
        u = np.atleast_1d(np.asarray(u, np.float64))
        flat = self.start + u[:, None] * self.way + w * self.inward
        return np.column_stack([flat, np.full(len(u), z)])

    @property
    def angle(self) -> float:
        return float(np.arctan2(self.way[1], self.way[0]))


def sides(block: Block) -> list[_Side]:
    """The sides of a block along streets."""
    found = []
    for k, street in enumerate(block.streets):
        a, b = block.kerb[k], block.kerb[(k + 1) % len(block.kerb)]
        length = float(np.linalg.norm(b - a))
        if SIDEWALK[street] > 0 and length > 12:
            way = (b - a) / length
            found.append(_Side(a, way, np.array([-way[1], way[0]]), length, street))
    return found


def furnish_block(builder: Builder, block: Block, standing: Standing, rng: np.random.Generator) -> None:
    """Everything along the sides of a block, and inside a park or a square."""
    for side in sides(block):
        _lamps(builder, side, standing, rng)
        if side.street != "alley" and rng.random() < (0.65 if side.street == "street" else 0.9):
            _street_trees(builder, side, standing, rng)
        _signs(builder, side, rng)
        _clutter(builder, side, rng)
    if block.kind == "park":
        lay_out_park(builder, block, standing, rng)
    if block.kind == "square":
        lay_out_square(builder, block, standing, rng)


def furnish_lot(builder: Builder, lot: Lot, standing: Standing, rng: np.random.Generator) -> None:
    """The front garden of a house that stands back, or what closes a gap."""
    left, right = (np.array([*corner, KERB]) for corner in lot.corners[:2])
    inward = lot.corners[3] - lot.corners[0]
    inward = np.array([*(inward / np.linalg.norm(inward)), 0.0])
    if lot.facade is not None and lot.yard < 0.5:
        return
    if lot.facade is None:
        _border(builder, left + inward * 0.2, right + inward * 0.2, float(rng.uniform(1.6, 2.4)), rng)
        back = (left + right) / 2 + inward * rng.uniform(3.5, 6)
        standing.trees.append(draw_trees(back[None], (6, 10), builder.things(1), rng))
        return
    front_left, front_right = left - inward * lot.yard, right - inward * lot.yard
    door = 0.35 + 0.3 * rng.random()
    way, height = front_right - front_left, float(rng.uniform(0.6, 1.3))
    _border(builder, front_left + inward * 0.3, front_left + inward * 0.3 + way * (door - 0.07), height, rng)
    _border(builder, front_left + inward * 0.3 + way * (door + 0.07), front_right + inward * 0.3, height, rng)
    lawn = [front_left + 0.022 * _UP, front_right + 0.022 * _UP, right + 0.022 * _UP, left + 0.022 * _UP]
    builder.quads([lawn], kind=Kind.GRASS, label=Label.TERRAIN, salt=int(rng.integers(999)))
    if rng.random() < 0.4:
        place = front_left + way * rng.uniform(0.15, 0.85) + inward * lot.yard * 0.45
        number = builder.things(1)
        size = rng.uniform(0.5, 0.9)
        add_balls(
            builder, [place + size * 0.7 * _UP], radius=[[size, size, size]], kind=Kind.LEAVES, label=Label.VEGETATION, instance=number,
            colour=(0.05, 0.09, 0.03), rough=rng.uniform(0.8, 1.15, (1, 42)),
        )  # fmt: skip


def _border(builder: Builder, start: NDArray[np.float64], stop: NDArray[np.float64], height: float, rng: np.random.Generator) -> None:
    if np.linalg.norm(stop - start) < 0.4:
        return
    kind, salt = rng.choice(["hedge", "wall", "fence", "brick"]), int(rng.integers(1 << 12))
    if kind == "hedge":
        plant_hedge(builder, start, stop, height=height * 1.1, salt=salt)
    elif kind == "fence":
        stand_fence(
            builder, start, stop, height=height, colour=linear(rng.choice([[0.1, 0.1, 0.11], [0.85, 0.84, 0.8], [0.3, 0.22, 0.16]]))
        )
    else:
        brick = kind == "brick"
        stand_wall(
            builder, start, stop, height=height, colour=(0.22, 0.10, 0.07) if brick else (0.42, 0.39, 0.34), salt=salt, owner=int(brick)
        )


def _lamps(builder: Builder, side: _Side, standing: Standing, rng: np.random.Generator) -> None:
    if side.street == "alley" and rng.random() < 0.5:
        return
    height, out = (8.0, 2.2) if side.street == "avenue" else (5.4, 1.1)
    u = np.arange(rng.uniform(5, 14), side.length - 4, rng.uniform(24, 30))
    if not len(u):
        return
    number, foot = builder.things(len(u)), side.at(u, 0.55)
    grey = linear(rng.choice([[0.22, 0.25, 0.24], [0.45, 0.46, 0.47], [0.12, 0.13, 0.14]]))
    look: dict[str, Any] = {"label": Label.POLE, "instance": number, "colour": grey}
    add_prisms(builder, foot, foot + height * _UP, radius=0.075, taper=0.7, kind=Kind.PLAIN, **look)
    reach = np.array([*(-side.inward * out), 0.25])
    add_prisms(builder, foot + (height - 0.1) * _UP, foot + (height - 0.1) * _UP + reach, radius=0.04, sides=4, kind=Kind.PLAIN, **look)
    head = foot + (height + 0.05) * _UP + reach
    low, high = np.array([-0.16, -0.38, -0.05]), np.array([0.16, 0.22, 0.1])
    add_boxes(builder, placed(box_corners(low, high), at=head, angle=side.angle), bottom=True, kind=Kind.LAMP, **look)
    standing.lamps.append(head - 0.1 * _UP)


def _street_trees(builder: Builder, side: _Side, standing: Standing, rng: np.random.Generator) -> None:
    u = np.arange(rng.uniform(8, 13), side.length - 8, rng.uniform(8, 14))
    u = u[rng.random(len(u)) < 0.85] + 0.0
    if not len(u):
        return
    places = side.at(u, 0.9)
    large = side.street == "avenue"
    standing.trees.append(draw_trees(places, (8, 11) if large else (5.5, 8), builder.things(len(u)), rng))
    pit = placed([[-0.6, -0.6, 0.006], [0.6, -0.6, 0.006], [0.6, 0.6, 0.006], [-0.6, 0.6, 0.006]], at=places, angle=side.angle)
    builder.quads(pit, kind=Kind.GRAVEL, label=Label.SIDEWALK, colour=(0.10, 0.075, 0.05))


def _signs(builder: Builder, side: _Side, rng: np.random.Generator) -> None:
    """Signs near both ends, traffic lights on avenues; they face those who drive on this side."""
    turn = side.angle + np.pi
    for u in (rng.uniform(4.5, 7), side.length - rng.uniform(4.5, 7)):
        if rng.random() < 0.35:
            continue
        number, foot = int(builder.things(1)[0]), side.at(u, 0.5)
        lights = side.street == "avenue" and rng.random() < 0.7
        top = foot + (3.4 if lights else float(rng.uniform(2.3, 2.8))) * _UP
        grey = linear([0.35, 0.36, 0.37])
        add_prisms(builder, foot, top, radius=0.04, sides=5, kind=Kind.PLAIN, label=Label.POLE, instance=number, colour=grey)
        if lights:
            corners = placed(box_corners([-0.24, -0.14, -0.85], [-0.02, 0.14, 0.05]), at=top, angle=turn)
            look: dict[str, Any] = {"kind": Kind.SIGNAL, "label": Label.TRAFFIC_LIGHT, "instance": number}
            add_boxes(builder, corners, bottom=True, salt=int(rng.integers(3)), **look)
        else:
            _sign(builder, top, turn, number, rng)


def _sign(builder: Builder, top: NDArray[np.float64], turn: float, number: int, rng: np.random.Generator) -> None:
    """A round, three-sided or square plate below the top of its pole; `salt` tells the painter which."""
    shape, size = int(rng.integers(4)), float(rng.uniform(0.28, 0.36))
    angle = np.linspace(0, 2 * np.pi, {0: 9, 1: 4, 2: 5, 3: 9}[shape])[:-1] + (np.pi / 4 if shape == 2 else np.pi / 2)
    disc = np.column_stack([np.full(len(angle), -0.06), np.cos(angle) * size, np.sin(angle) * size])
    fan = np.stack([np.broadcast_to([-0.06, 0, 0], disc.shape), disc, np.roll(disc, -1, 0)], 1)[:, ::-1]
    at = top - size * _UP
    corners = placed(fan.reshape(-1, 3), at=at, angle=turn).reshape(-1, 3, 3)
    across = [np.sin(turn), -np.cos(turn), 0.0]
    look: dict[str, Any] = {"kind": Kind.SIGN, "label": Label.TRAFFIC_SIGN, "instance": number, "salt": shape * 16 + int(rng.integers(16))}
    builder.polygon(corners, origin=at[0], across=across, colour=(size, size, size), **look)


def _clutter(builder: Builder, side: _Side, rng: np.random.Generator) -> None:
    """Bins, post boxes, cabinets, bollards, benches and columns with posters."""
    for u in np.arange(rng.uniform(6, 16), side.length - 6, rng.uniform(14, 24)):
        kind, place = rng.choice(["bin", "box", "cabinet", "bollards", "bench", "column", "none"]), side.at(u, 0.7)
        turn, number = side.angle, int(builder.things(1)[0])
        look: dict[str, Any] = {"label": Label.VOID, "instance": number, "salt": int(rng.integers(1 << 12))}
        if kind == "bin":
            add_prisms(
                builder,
                place,
                place + 0.95 * _UP,
                radius=0.24,
                sides=8,
                cap=True,
                kind=Kind.PLAIN,
                colour=linear([0.2, 0.28, 0.22]),
                **look,
            )
        elif kind == "box":
            post = placed(box_corners([-0.25, -0.2, 0.0], [0.25, 0.2, 1.35]), at=place, angle=turn)
            add_boxes(
                builder, post, kind=Kind.PLAIN, colour=linear(rng.choice([[0.75, 0.1, 0.08], [0.92, 0.75, 0.1], [0.1, 0.25, 0.55]])), **look
            )
        elif kind == "cabinet":
            grey = placed(box_corners([-0.6, -0.2, 0], [0.6, 0.25, 1.15]), at=place, angle=turn)
            add_boxes(builder, grey, kind=Kind.POSTER, colour=linear([0.55, 0.57, 0.54]), **look)
        elif kind == "bollards":
            row = side.at(u + np.arange(4) * 1.4, 0.35)
            look |= {"label": Label.POLE}
            add_prisms(builder, row, row + 0.85 * _UP, radius=0.06, cap=True, kind=Kind.PLAIN, colour=linear([0.16, 0.16, 0.17]), **look)
        elif kind == "bench":
            _bench(builder, place, turn, look)
        elif kind == "column" and side.street == "avenue":
            add_prisms(
                builder,
                place + 0.5 * _UP,
                place + 3.0 * _UP,
                radius=0.6,
                sides=10,
                cap=True,
                kind=Kind.POSTER,
                colour=(0.3, 0.3, 0.3),
                **look,
            )
            add_prisms(builder, place, place + 0.5 * _UP, radius=0.65, sides=10, kind=Kind.PLAIN, colour=(0.1, 0.1, 0.1), **look)


def _bench(builder: Builder, place: NDArray[np.float64], turn: float, look: dict[str, Any]) -> None:
    parts = box_corners(
        [[-0.8, 0.0, 0.42], [-0.8, 0.42, 0.5], [-0.7, 0, 0], [0.62, 0, 0]],
        [[0.8, 0.45, 0.48], [0.8, 0.47, 0.9], [-0.62, 0.4, 0.42], [0.7, 0.4, 0.42]],
    )
    for part in parts:
        add_boxes(builder, placed(part, at=place, angle=turn), bottom=True, kind=Kind.PLAIN, colour=linear([0.42, 0.28, 0.16]), **look)
