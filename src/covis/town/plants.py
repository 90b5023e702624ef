"""Trees and hedges: trunks and branches that always stand, and leaves that are there in summer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.town.meshes import Builder, Kind, Label, Table
from covis.town.patterns import linear
from covis.town.solids import add_balls, add_boxes, add_prisms, ball

TREE = np.dtype(
    [
        ("at", np.float64, 3),
        ("height", np.float64),
        ("spread", np.float64),
        ("green", np.float32, 3),
        ("instance", np.int32),
        ("salt", np.int32),
    ]
)
"""One tree: where it stands (metres), how high and wide its crown is, its green, and its number."""

_UP = np.array([0.0, 0.0, 1.0])
_LEAVES = 360
_BRANCHES = 7


def draw_trees(places: NDArray[np.float64], height: tuple[float, float], instances: NDArray[np.int32], rng: np.random.Generator) -> Table:
    """A row of `TREE` for each place (k, 3); trees of one call are of one kind."""
    trees = np.zeros(len(places), TREE)
    trees["at"], trees["instance"] = places, instances
    trees["height"] = rng.uniform(*height, len(places))
    trees["spread"] = trees["height"] * rng.uniform(0.24, 0.34)
    green = np.array([0.29, 0.38, 0.17]) * rng.uniform(0.85, 1.15) + rng.uniform(0, 0.06, 3) * [1, 0.6, 0]
    trees["green"] = linear(green * rng.uniform(0.9, 1.1, (len(places), 1)))
    trees["salt"] = rng.integers(1 << 16, size=len(places))
    return trees


def grow_wood(builder: Builder, trees: Table, rng: np.random.Generator) -> None:
    """Trunks and two orders of branches."""
    if not len(trees):
        return
    at, height, spread = trees["at"], trees["height"][:, None], trees["spread"][:, None]
    look: dict[str, Any] = {"kind": Kind.BARK, "label": Label.VEGETATION, "colour": (0.075, 0.055, 0.042)}
    fork, top = at + _UP * height * 0.38, at + _UP * height * 0.9
    add_prisms(
        builder, at - [0, 0, 0.1], fork, radius=height[:, 0] * 0.021, taper=0.75, instance=trees["instance"], salt=trees["salt"], **look
    )
    add_prisms(builder, fork, top, radius=height[:, 0] * 0.014, sides=4, taper=0.2, instance=trees["instance"], salt=trees["salt"], **look)
    many = np.repeat(np.arange(len(trees)), _BRANCHES)
    start = fork[many] + (top - fork)[many] * rng.uniform(0.0, 0.6, (len(many), 1))
    tip = start + _spread(many, spread, rng) * [1, 1, 0.9]
    number, salt = trees["instance"][many], trees["salt"][many]
    add_prisms(builder, start, tip, radius=height[many, 0] * 0.007, sides=3, taper=0.3, instance=number, salt=salt, **look)
    more = np.repeat(np.arange(len(many)), 4)
    share = rng.uniform(0.25, 0.95, (len(more), 1))
    begin = start[more] + (tip - start)[more] * share
    end = begin + _spread(many[more], spread, rng) * 0.5
    add_prisms(
        builder, begin, end, radius=height[many[more], 0] * 0.0035, sides=3, taper=0.4, instance=number[more], salt=salt[more], **look
    )


def grow_leaves(builder: Builder, trees: Table, rng: np.random.Generator) -> None:
    """Crowns: a dark core and loose tufts around it."""
    if not len(trees):
        return
    height, spread = trees["height"][:, None], trees["spread"][:, None]
    middle, half = trees["at"] + _UP * height * 0.68, np.hstack([spread, spread, height * 0.31])
    look: dict[str, Any] = {"kind": Kind.LEAVES, "label": Label.VEGETATION}
    rough = rng.uniform(0.55, 0.85, (len(trees), len(ball(1)[0])))
    add_balls(
        builder, middle, radius=half, rough=rough, instance=trees["instance"], salt=trees["salt"], colour=trees["green"] * 0.7, **look
    )
    many = np.repeat(np.arange(len(trees)), _LEAVES)
    way = rng.normal(size=(len(many), 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    bumps = (
        1 + 0.16 * np.sin(3 * way[:, 0] + trees["salt"][many]) + 0.14 * np.sin(4 * way[:, 1] + 2 * way[:, 2] + 1.7 * trees["salt"][many])
    )
    centre = middle[many] + way * half[many] * (bumps * rng.uniform(0.72, 1.02, len(many)))[:, None]
    a, b = (rng.normal(size=(len(many), 3)) for _ in range(2))
    size = rng.uniform(0.16, 0.34, (len(many), 1)) * (1 + 0.03 * height[many])
    a *= size / np.linalg.norm(a, axis=1, keepdims=True)
    b *= size / np.linalg.norm(b, axis=1, keepdims=True)
    corners = np.stack([centre - a - 0.5 * b, centre + a - 0.5 * b, centre + b], 1)
    tint = trees["green"][many] * rng.uniform(0.75, 1.3, (len(many), 1)).astype(np.float32)
    builder.triangles(corners, instance=trees["instance"][many], salt=trees["salt"][many], colour=tint, centre=middle[many], **look)


def plant_hedge(builder: Builder, start: NDArray[np.float64], stop: NDArray[np.float64], *, height: float, salt: int) -> None:
    """A clipped hedge between two points (3,) on the ground, metres."""
    way = (stop - start) / np.linalg.norm(stop - start)
    side = np.array([-way[1], way[0], 0.0]) * 0.3
    foot = np.array([start - side, stop - side, stop + side, start + side])
    corners = np.concatenate([foot, foot + height * _UP])
    number = int(builder.things(1)[0])
    add_boxes(builder, corners, kind=Kind.HEDGE, label=Label.VEGETATION, instance=number, salt=salt, colour=(0.045, 0.085, 0.025))


def stand_wall(
    builder: Builder, start: NDArray[np.float64], stop: NDArray[np.float64], *, height: float, colour: object, salt: int, owner: int = 0
) -> None:
    """A garden wall between two points (3,) on the ground, metres; `owner` is its material."""
    way = (stop - start) / np.linalg.norm(stop - start)
    side = np.array([-way[1], way[0], 0.0]) * 0.12
    foot = np.array([start - side, stop - side, stop + side, start + side])
    number = int(builder.things(1)[0])
    corners = np.concatenate([foot, foot + height * _UP])
    add_boxes(builder, corners, kind=Kind.WALL, label=Label.WALL, instance=number, salt=salt, colour=colour, owner=owner)


def stand_fence(builder: Builder, start: NDArray[np.float64], stop: NDArray[np.float64], *, height: float, colour: object) -> None:
    """Upright bars and two rails between two points (3,) on the ground, metres."""
    length = float(np.linalg.norm(stop - start))
    way = (stop - start) / length
    number = int(builder.things(1)[0])
    look: dict[str, Any] = {"kind": Kind.PLAIN, "label": Label.FENCE, "instance": number, "colour": colour}
    at = start + way * np.arange(0.1, length, 0.22)[:, None]
    bar = np.stack([at - way * 0.03, at + way * 0.03, at + way * 0.03 + [0, 0, height], at - way * 0.03 + [0, 0, height]], 1)
    builder.quads(bar, **look)
    for z in (0.2 * height, 0.85 * height):
        rail = [start + z * _UP, stop + z * _UP, stop + (z + 0.06) * _UP, start + (z + 0.06) * _UP]
        builder.quads([rail], **look)


def _spread(trees: NDArray[np.int64], spread: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """(k, 3) ways outwards and upwards, about as long as the crown of each branch's tree is wide."""
    turn, climb = rng.uniform(0, 2 * np.pi, len(trees)), rng.uniform(0.2, 1.1, len(trees))
    way = np.stack([np.cos(turn) * np.cos(climb), np.sin(turn) * np.cos(climb), np.sin(climb)], 1)
    return np.asarray(way * spread[trees] * rng.uniform(0.7, 1.15, (len(trees), 1)))
