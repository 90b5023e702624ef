"""Places without houses: the park and the square; and the list of what has been planted and hung up on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.town.ground import KERB
from covis.town.meshes import Builder, Kind, Label, Table
from covis.town.patterns import linear
from covis.town.plans import Block
from covis.town.plants import TREE, draw_trees, plant_hedge, stand_fence
from covis.town.polygons import inset, inside
from covis.town.solids import add_boxes, add_prisms, box_corners

_UP = np.array([0.0, 0.0, 1.0])


@dataclass
class Standing:
    """What furnishing found out on its way: every tree, and every lamp's light (k, 3) metres."""

    trees: list[Table] = field(default_factory=list)
    lamps: list[NDArray[np.float64]] = field(default_factory=list)

    def all_trees(self) -> Table:
        """A row of `TREE` for each."""
        return np.concatenate([np.zeros(0, TREE), *self.trees])

    def all_lamps(self) -> NDArray[np.float64]:
        """(k, 3) metres."""
        return np.concatenate([np.zeros((0, 3)), *self.lamps])


def lay_out_park(builder: Builder, block: Block, standing: Standing, rng: np.random.Generator) -> None:
    """Trees on a lawn, paths to the middle, a fence or a hedge around."""
    within, border, z = inset(block.front, 3.0), inset(block.front, 0.5), KERB + 0.02
    low, high = within.min(0), within.max(0)
    points = rng.uniform(low, high, (int((high - low).prod() / 70), 2))
    points, middle = points[inside(points, within)], within.mean(0)
    for k in range(len(border)):
        a, b = (np.array([*corner, z]) for corner in (border[k], border[(k + 1) % len(border)]))
        way, gate = (b - a) / np.linalg.norm(b - a), (a + b) / 2
        fenced = rng.random() < 0.6
        for start, stop in ((a, gate - 1.8 * way), (gate + 1.8 * way, b)):
            if fenced:
                stand_fence(builder, start, stop, height=1.3, colour=linear([0.08, 0.16, 0.1]))
            else:
                plant_hedge(builder, start, stop, height=1.1, salt=3)
        centre, half = np.array([*middle, z]), 1.4 * way
        path = np.array([gate - half, gate + half, centre + half, centre - half]) + 0.01 * _UP
        builder.quads([path], kind=Kind.GRAVEL, label=Label.SIDEWALK, colour=(0.36, 0.29, 0.2))
        line = (gate - centre)[:2]
        away = np.abs((points - middle) @ np.array([-line[1], line[0]])) / np.linalg.norm(line)
        points = points[away > 2.2]
    places = np.column_stack([points, np.full(len(points), z)])
    for part in np.array_split(places, 3):
        if len(part):
            standing.trees.append(draw_trees(part, (6, 13), builder.things(len(part)), rng))


def lay_out_square(builder: Builder, block: Block, standing: Standing, rng: np.random.Generator) -> None:
    """A monument in the middle, trees around it, stalls."""
    middle = np.array([*block.front.mean(0), KERB])
    look: dict[str, Any] = {"kind": Kind.WALL, "label": Label.BUILDING, "instance": int(builder.things(1)[0]), "owner": 2}
    look["colour"] = (0.34, 0.32, 0.29)
    steps = np.array([[3.0, 0, 0.3], [2.2, 0.3, 0.6], [1.1, 0.6, 3.0]])
    half = np.repeat(steps[:, :1], 2, 1)
    low, high = np.hstack([-half, steps[:, 1:2]]), np.hstack([half, steps[:, 2:]])
    add_boxes(builder, box_corners(middle + low, middle + high), **look)
    add_prisms(builder, middle + 3.0 * _UP, middle + 11 * _UP, radius=0.55, taper=0.5, cap=True, **look)
    ring = inset(block.front, 6.0)
    for k in range(len(ring)):
        a, b = ring[k], ring[(k + 1) % len(ring)]
        count = int(np.linalg.norm(b - a) / 9)
        if count:
            points = a + (b - a) * ((np.arange(count) + 0.5) / count)[:, None]
            standing.trees.append(draw_trees(np.column_stack([points, np.full(count, KERB)]), (6, 7), builder.things(count), rng))
    for _ in range(5):
        at = middle + np.array([*rng.uniform(-14, 14, 2), 0.0])
        if np.linalg.norm(at - middle) > 5:
            _stall(builder, at, rng)


def _stall(builder: Builder, at: NDArray[np.float64], rng: np.random.Generator) -> None:
    """A market stall: a table below a striped roof on four posts."""
    colour = linear(rng.choice([[0.75, 0.15, 0.12], [0.15, 0.4, 0.25], [0.9, 0.8, 0.3], [0.2, 0.35, 0.65]]))
    look: dict[str, Any] = {"label": Label.VOID, "instance": int(builder.things(1)[0]), "salt": 5}
    table = box_corners(at + np.array([-1.4, -0.9, 0]), at + np.array([1.4, 0.9, 0.9]))
    add_boxes(builder, table, kind=Kind.PLAIN, colour=(0.2, 0.13, 0.08), **look)
    roof = box_corners(at + np.array([-1.7, -1.3, 2.2]), at + np.array([1.7, 1.3, 2.75]))
    roof[4:, 1] = at[1]
    add_boxes(builder, roof, bottom=True, kind=Kind.STRIPES, colour=colour, **look)
    posts = at + np.array([[-1.5, -1, 0], [1.5, -1, 0], [-1.5, 1, 0], [1.5, 1, 0]])
    add_prisms(builder, posts, posts + 2.2 * _UP, radius=0.03, sides=4, kind=Kind.PLAIN, colour=(0.3, 0.3, 0.3), **look)
