"""The plan of a town: a graph of streets, the blocks between them, and what each block is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.town.polygons import area, inset

Points: TypeAlias = NDArray[np.float64]
Generator: TypeAlias = np.random.Generator

HALF = {"none": 0.0, "corner": 0.0, "alley": 3.1, "street": 5.6, "avenue": 9.4}
"""Metres from the middle of a street to its kerb, by its kind; "none" is a border of blocks without a street, "corner" the cut corner
of a block that touches the streets with its corner alone."""
SIDEWALK = {"none": 0.0, "corner": 3.0, "alley": 1.7, "street": 3.0, "avenue": 4.4}
"""Metres from the kerb to the line of the houses."""


@dataclass(frozen=True)
class Street:
    """A stretch of street between two nodes of the graph.

    Attributes:
        start, stop: the nodes.
        kind: a key of `HALF`.
    """

    start: int
    stop: int
    kind: str


@dataclass(frozen=True)
class Block:
    """What lies between streets.

    Attributes:
        kerb: (k, 2) metres, counter-clockwise, the line of the kerb.
        front: (k, 2) metres, the line of the houses.
        streets: k kinds; side i runs from corner i to the next.
        kind: "built", "park", "square" or "rim" (beyond the last street).
        district: its number.
        number: of the block.
    """

    kerb: Points
    front: Points
    streets: tuple[str, ...]
    kind: str
    district: int
    number: int


@dataclass(frozen=True)
class Plan:
    """Streets and blocks.

    Attributes:
        nodes: (n, 2) metres, x east and y north.
        streets: where one may drive.
        blocks: what lies between.
        low, high: (2,) metres, the corners of what is paved at all.
    """

    nodes: Points
    streets: tuple[Street, ...]
    blocks: tuple[Block, ...]
    low: Points
    high: Points

    def degree(self) -> NDArray[np.int64]:
        """(n,) how many streets end at each node."""
        ends = [node for street in self.streets for node in (street.start, street.stop)]
        return np.bincount(ends, minlength=len(self.nodes))


def plan_town(blocks: tuple[int, int], block: tuple[float, float], rng: Generator) -> Plan:
    """Lay out streets around `blocks` (east, north) blocks with sides of `block` (least, most) metres, some merged, cut or bent."""
    columns, rows = blocks
    nodes, edges = _grid(columns, rows, block, rng)
    _merge(edges, columns, rows, rng)
    _cut(nodes, edges, columns, rows, rng)
    nodes, edges = _bend(nodes, edges, rng)
    streets = tuple(Street(a, b, kind) for (a, b), kind in edges.items() if kind != "none")
    inside = _inside(columns, rows)
    blocks_found = _blocks(nodes, edges, inside, rng)
    return Plan(nodes, streets, blocks_found, nodes.min(0) - 30, nodes.max(0) + 30)


_Edges: TypeAlias = dict[tuple[int, int], str]


def _grid(columns: int, rows: int, block: tuple[float, float], rng: Generator) -> tuple[Points, _Edges]:
    """A grid with a rim of one more block all around, where no street leads."""
    xs, ys = (np.cumsum([0.0, *rng.uniform(*block, count + 2)]) for count in (columns, rows))
    x, y = np.meshgrid(xs - xs.mean(), ys - ys.mean())
    nodes = np.stack([x.ravel(), y.ravel()], 1)
    nodes += rng.uniform(-0.09, 0.09, nodes.shape) * block[0]
    width = columns + 3
    avenues = {("x", int(rng.integers(1, rows + 2))), ("y", int(rng.integers(1, columns + 2)))}
    edges: _Edges = {}
    for row in range(rows + 3):
        for column in range(columns + 3):
            here = row * width + column
            for way, (right, up) in (("x", (1, 0)), ("y", (0, 1))):
                if column + right < width and row + up < rows + 3:
                    inner = column >= 1 and column + right <= columns + 1 and row >= 1 and row + up <= rows + 1
                    line = row if way == "x" else column
                    kind = "avenue" if (way, line) in avenues else "street" if rng.random() < 0.8 else "alley"
                    edges[here, here + right + up * width] = kind if inner else "none"
    return nodes, edges


def _inside(columns: int, rows: int) -> set[int]:
    """The nodes that streets lead to."""
    return {row * (columns + 3) + column for row in range(1, rows + 2) for column in range(1, columns + 2)}


def _merge(edges: _Edges, columns: int, rows: int, rng: Generator) -> None:
    """Take out some inner streets, so that two blocks become one and streets end at others."""
    width = columns + 3
    inner = [
        (a, b)
        for a, b in edges
        if edges[a, b] not in ("none", "avenue") and all(1 < n % width < columns + 1 or 1 < n // width < rows + 1 for n in (a, b))
    ]
    taken: set[int] = set()
    for key in rng.permutation(len(inner))[: max(1, len(inner) // 9) if len(inner) > 4 else 0]:
        a, b = inner[int(key)]
        on_rim = all(n % width in (1, columns + 1) for n in (a, b)) or all(n // width in (1, rows + 1) for n in (a, b))
        if not on_rim and not {a, b} & taken:
            del edges[a, b]
            taken |= {a, b, a + 1, a - 1, b + 1, b - 1, a + width, a - width, b + width, b - width}


def _cut(nodes: Points, edges: _Edges, columns: int, rows: int, rng: Generator) -> None:
    """Cut a block or two with a street from corner to corner."""
    width = columns + 3
    whole = [
        row * width + column
        for row in range(1, rows + 1)
        for column in range(1, columns + 1)
        if all(
            key in edges
            for key in (
                (row * width + column, row * width + column + 1),
                (row * width + column, (row + 1) * width + column),
                ((row + 1) * width + column, (row + 1) * width + column + 1),
                (row * width + column + 1, (row + 1) * width + column + 1),
            )
        )
    ]
    for key in rng.permutation(len(whole))[: len(whole) // 7]:
        corner = whole[int(key)]
        ends = (corner, corner + width + 1) if rng.random() < 0.5 else (corner + 1, corner + width)
        if float(np.linalg.norm(nodes[ends[0]] - nodes[ends[1]])) > 95:
            edges[ends] = "street"


def _bend(nodes: Points, edges: _Edges, rng: Generator) -> tuple[Points, _Edges]:
    """Put a bend into some streets."""
    bent: _Edges = {}
    more = list(nodes)
    for (a, b), kind in edges.items():
        way = nodes[b] - nodes[a]
        if kind in ("street", "alley") and rng.random() < 0.4 and np.linalg.norm(way) > 60:
            side = np.array([-way[1], way[0]]) / np.linalg.norm(way)
            more.append(nodes[a] + way * rng.uniform(0.4, 0.6) + side * rng.uniform(2.5, 5.0) * rng.choice([-1, 1]))
            bent[a, len(more) - 1] = bent[len(more) - 1, b] = kind
        else:
            bent[a, b] = kind
    return np.array(more), bent


def _blocks(nodes: Points, edges: _Edges, inside: set[int], rng: Generator) -> tuple[Block, ...]:
    found = [face for face in _faces(nodes, edges) if area(nodes[face]) > 0]
    middles = np.array([nodes[face].mean(0) for face in found])
    seeds = middles[rng.permutation(len(found))[: min(4, len(found))]]
    districts = np.argmin(((middles[:, None] - seeds) ** 2).sum(-1), 1)
    built = [k for k, face in enumerate(found) if all(n in inside or n >= max(inside) + 1 for n in face) and not _on_rim(face, edges)]
    kinds = dict.fromkeys(range(len(found)), "rim") | dict.fromkeys(built, "built")
    special = [built[int(k)] for k in rng.permutation(len(built))]
    if len(built) >= 3:
        kinds[special[0]] = "square"
        kinds[special[1]] = "park"
    blocks = []
    for number, face in enumerate(found):
        outline, streets = _outline(nodes, face, edges)
        kerb = inset(outline, [HALF[kind] for kind in streets])
        front = inset(kerb, [SIDEWALK[kind] for kind in streets])
        blocks.append(Block(kerb, front, streets, kinds[number], int(districts[number]), number))
    return tuple(blocks)


def _outline(nodes: Points, face: list[int], edges: _Edges) -> tuple[Points, tuple[str, ...]]:
    """The corners of a face and the streets along its sides; a corner that would stick out into a junction is cut off."""
    points, streets = [], []
    for place, node in enumerate(face):
        before, after = face[place - 1], face[(place + 1) % len(face)]
        kinds = [edges[_key(edges, node, other)] for other in (before, after)]
        met = [(nodes[sum(pair) - node] - nodes[node], HALF[kind]) for pair, kind in edges.items() if node in pair and kind != "none"]
        if kinds == ["none", "none"] and met:
            for other in (before, after):
                way = (nodes[other] - nodes[node]) / np.linalg.norm(nodes[other] - nodes[node])
                sines = [abs(float(way[0] * step[1] - way[1] * step[0])) / float(np.linalg.norm(step)) for step, _ in met]
                points.append(nodes[node] + way * max(half / max(sine, 0.5) for sine, (_, half) in zip(sines, met, strict=True)))
            streets += ["corner", kinds[1]]
        else:
            points.append(nodes[node])
            streets.append(kinds[1])
    return np.array(points), tuple(streets)


def _on_rim(face: list[int], edges: _Edges) -> bool:
    return any(edges[_key(edges, a, b)] == "none" for a, b in zip(face, [*face[1:], face[0]], strict=True))


def _key(edges: _Edges, a: int, b: int) -> tuple[int, int]:
    return (a, b) if (a, b) in edges else (b, a)


def _faces(nodes: Points, edges: _Edges) -> list[list[int]]:
    """The faces of the planar graph, each as its nodes; inner ones run counter-clockwise."""
    around: dict[int, list[int]] = {}
    for a, b in edges:
        around.setdefault(a, []).append(b)
        around.setdefault(b, []).append(a)
    turn: dict[tuple[int, int], int] = {}
    for node, others in around.items():
        ordered = sorted(others, key=lambda other: math.atan2(*(nodes[other] - nodes[node])[::-1]))
        for place, other in enumerate(ordered):
            turn[other, node] = ordered[place - 1]  # arriving from `other`, the next edge clockwise keeps the face on the left
    left = dict.fromkeys(turn)
    faces = []
    while left:
        first = next(iter(left))
        face, step = [], first
        while step in left:
            del left[step]
            face.append(step[1])
            step = (step[1], turn[step])
        faces.append(face)
    return faces
