"""Cars, vans, buses and lorries of a few shapes: body, cabin, wheels, lamps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.town.meshes import Builder, Kind, Label
from covis.town.patterns import linear
from covis.town.solids import placed

PAINTS = linear(
    [
        (0.80, 0.81, 0.82), (0.10, 0.11, 0.12), (0.93, 0.93, 0.92), (0.60, 0.08, 0.08), (0.12, 0.22, 0.48), (0.38, 0.40, 0.42),
        (0.62, 0.63, 0.64), (0.20, 0.22, 0.25), (0.85, 0.72, 0.15), (0.15, 0.32, 0.22), (0.55, 0.40, 0.28), (0.40, 0.62, 0.72),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """A vehicle's outline, metres, x from its middle to the front.

    Attributes:
        size: length and width.
        belt: (x, z) from the back to the front, the upper edge of the body.
        cabin: x of the rear window's foot and head, the windscreen's head and foot; and the roof's height. Empty: no cabin.
        wheel: radius.
        axles: x of the wheels.
        label: its class.
    """

    size: tuple[float, float]
    belt: tuple[tuple[float, float], ...]
    cabin: tuple[float, float, float, float, float] | tuple[()]
    wheel: float = 0.32
    axles: tuple[float, ...] = (-1.25, 1.3)
    label: Label = Label.CAR


SHAPES: Mapping[str, Shape] = {
    "hatch": Shape((3.95, 1.70), ((-1.97, 0.75), (-1.9, 0.95), (0.75, 0.93), (1.75, 0.78), (1.97, 0.6)), (-1.85, -1.35, 0.0, 0.85,
        1.47), axles=(-1.2, 1.25)),
    "sedan": Shape((4.6, 1.78), ((-2.3, 0.72), (-2.2, 0.92), (-1.3, 0.95), (0.9, 0.92), (2.1, 0.76), (2.3, 0.58)), (-1.75, -0.95, 0.15,
        1.0, 1.44), axles=(-1.4, 1.4)),
    "estate": Shape((4.6, 1.78), ((-2.3, 0.75), (-2.25, 0.93), (0.9, 0.92), (2.1, 0.77), (2.3, 0.58)), (-2.2, -1.85, 0.15, 1.0, 1.48),
        axles=(-1.4, 1.4)),
    "suv": Shape((4.5, 1.88), ((-2.25, 0.85), (-2.2, 1.08), (0.85, 1.08), (2.0, 0.98), (2.25, 0.75)), (-2.12, -1.75, 0.05, 0.85, 1.72),
        0.37, (-1.35, 1.4)),
    "van": Shape((5.2, 1.98), ((-2.6, 2.2), (-2.55, 2.3), (1.35, 2.28), (1.9, 1.35), (2.5, 1.05), (2.6, 0.7)), (), 0.34, (-1.6, 1.75)),
    "bus": Shape((11.5, 2.5), ((-5.75, 2.9), (-5.7, 3.1), (5.5, 3.1), (5.7, 2.9), (5.75, 1.0)), (), 0.48, (-3.0, 3.6), Label.BUS),
    "truck": Shape((7.2, 2.35), ((-3.6, 3.2), (1.5, 3.2), (1.55, 2.3), (3.0, 2.3), (3.5, 1.3), (3.6, 0.8)), (), 0.45, (-2.2, 2.5),
        Label.TRUCK),
}  # fmt: skip

_LOW = 0.24


def park(builder: Builder, shape: Shape, *, at: NDArray[np.float64], angle: NDArray[np.float64], rng: np.random.Generator) -> None:
    """Vehicles of one shape at (k, 3) metres (the ground below their middle), their fronts towards `angle` (k,) radians."""
    count = len(at)
    if not count:
        return
    number = builder.things(count)
    paint = PAINTS[rng.choice(len(PAINTS), size=count, p=_WEIGHTS)] * rng.uniform(0.85, 1.1, (count, 1)).astype(np.float32)
    if shape.label is Label.BUS:
        paint = linear([[0.75, 0.12, 0.1], [0.9, 0.75, 0.15], [0.12, 0.35, 0.6]])[rng.integers(3, size=count)]
    way = np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
    frame: dict[str, Any] = {
        "origin": at,
        "across": way,
        "label": shape.label,
        "instance": number,
        "salt": rng.integers(1 << 12, size=count),
    }
    car = _Car(builder, at, angle, frame)
    car.add(_body(shape), kind=Kind.CAR, colour=paint)
    car.add(_skirt(shape), kind=Kind.PLAIN, colour=(0.02, 0.02, 0.022))
    if shape.cabin:
        glass, roof = _cabin(shape)
        car.add(glass, kind=Kind.GLASS, colour=(0.02, 0.022, 0.026))
        car.add(roof, kind=Kind.CAR, colour=paint)
    else:
        car.add(_windows(shape), kind=Kind.GLASS, colour=(0.02, 0.022, 0.026))
    car.add(_lamps(shape, front=True), kind=Kind.LAMP, colour=(0.6, 0.6, 0.6))
    car.add(_lamps(shape, front=False), kind=Kind.TAIL, colour=(0.35, 0.02, 0.02))
    car.add(_plates(shape), kind=Kind.PLAIN, colour=(0.7, 0.7, 0.62))
    _wheels(builder, shape, at=at, angle=angle, number=number)
    length, width = shape.size
    x, y, z = length / 2 + 0.25, width / 2 + 0.3, 0.012
    shade = [[[-x, -y, z], [x, -y, z], [x, y, z], [-x, y, z]]]
    builder.quads(
        placed(np.reshape(shade, (-1, 3)), at=at, angle=angle),
        kind=Kind.SHADE,
        label=Label.ROAD,
        instance=0,
        origin=at,
        across=way,
        colour=(x, y, 0.0),
    )


_WEIGHTS = np.array([4, 4, 3, 1.2, 1.6, 2.5, 2.5, 2.0, 0.5, 0.5, 0.5, 0.5])
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class _Car:
    builder: Builder
    at: NDArray[np.float64]
    angle: NDArray[np.float64]
    frame: dict[str, Any]

    def add(self, quads: list[list[list[float]]], *, colour: Any, **look: Any) -> None:
        """The quads (m, 4, 3) of one vehicle, for every vehicle."""
        local = np.asarray(quads, np.float64)
        corners = placed(local.reshape(-1, 3), at=self.at, angle=self.angle).reshape(-1, 4, 3)
        each: dict[str, Any] = {name: np.repeat(value, len(local), 0) if np.ndim(value) else value for name, value in self.frame.items()}
        tint = np.repeat(colour, len(local), 0) if np.ndim(colour) == 2 else colour
        self.builder.quads(corners, colour=tint, **each, **look)


def _mirrored(quad: list[list[float]]) -> list[list[float]]:
    """The same on the other side of the vehicle, still counter-clockwise from outside."""
    return [[x, -y, z] for x, y, z in (quad[1], quad[0], quad[3], quad[2])]


def _body(shape: Shape) -> list[list[list[float]]]:
    half, quads = shape.size[1] / 2, []
    for (x0, z0), (x1, z1) in zip(shape.belt[:-1], shape.belt[1:], strict=True):
        low0, low1 = min(_LOW + 0.1, z0), min(_LOW + 0.1, z1)
        side = [[x0, -half, low0], [x1, -half, low1], [x1, -half, z1], [x0, -half, z0]]
        quads += [side, _mirrored(side), [[x0, -half, z0], [x1, -half, z1], [x1, half, z1], [x0, half, z0]]]
    (xb, zb), (xf, zf) = shape.belt[0], shape.belt[-1]
    quads.append([[xb, half, _LOW], [xb, -half, _LOW], [xb, -half, zb], [xb, half, zb]])
    quads.append([[xf, -half, _LOW], [xf, half, _LOW], [xf, half, zf], [xf, -half, zf]])
    return quads


def _skirt(shape: Shape) -> list[list[list[float]]]:
    half, (xb, xf) = shape.size[1] / 2 - 0.01, (shape.belt[0][0], shape.belt[-1][0])
    side = [[xb, -half, _LOW - 0.06], [xf, -half, _LOW - 0.06], [xf, -half, _LOW + 0.1], [xb, -half, _LOW + 0.1]]
    ends = [
        [[xf + 0.03, -half, _LOW - 0.06], [xf + 0.03, half, _LOW - 0.06], [xf + 0.03, half, _LOW + 0.12], [xf + 0.03, -half, _LOW + 0.12]],
        [[xb - 0.03, half, _LOW - 0.06], [xb - 0.03, -half, _LOW - 0.06], [xb - 0.03, -half, _LOW + 0.12], [xb - 0.03, half, _LOW + 0.12]],
    ]
    return [side, _mirrored(side), *ends]


def _cabin(shape: Shape) -> tuple[list[list[list[float]]], list[list[list[float]]]]:
    foot_back, head_back, head_front, foot_front, top = shape.cabin  # type: ignore[misc]
    half, roof = shape.size[1] / 2 - 0.06, shape.size[1] / 2 - 0.24
    xs, zs = zip(*shape.belt, strict=True)
    back, front = (float(np.interp(x, xs, zs)) - 0.01 for x in (foot_back, foot_front))
    a, b, c, d = [foot_back, -half, back], [foot_front, -half, front], [head_front, -roof, top], [head_back, -roof, top]
    side = [a, b, c, d]
    flipped = [[x, -y, z] for x, y, z in side]
    windscreen = [b, flipped[1], flipped[2], c]
    rear = [flipped[0], a, d, flipped[3]]
    pillar = (foot_back + foot_front) / 2 - 0.1
    low, high = [pillar, -half - 0.005, (back + front) / 2], [pillar, -roof - 0.005, top]
    post = [[low[0] - 0.05, *low[1:]], [low[0] + 0.05, *low[1:]], [high[0] + 0.05, *high[1:]], [high[0] - 0.05, *high[1:]]]
    return [side, _mirrored(side), windscreen, rear], [[d, c, flipped[2], flipped[3]], post, _mirrored(post)]


def _windows(shape: Shape) -> list[list[list[float]]]:
    """Panes on the body of what has no cabin: a van's front, a bus all around."""
    half, (length, _) = shape.size[1] / 2 + 0.012, shape.size
    if shape.label is Label.BUS:
        panes = []
        for x in np.arange(-length / 2 + 0.4, length / 2 - 1.6, 1.5).tolist():
            side = [[x, -half, 1.35], [x + 1.38, -half, 1.35], [x + 1.38, -half, 2.6], [x, -half, 2.6]]
            panes += [side, _mirrored(side)]
        x = length / 2 + 0.012
        return [*panes, [[x, -half + 0.1, 1.1], [x, half - 0.1, 1.1], [x, half - 0.1, 2.85], [x, -half + 0.1, 2.85]]]
    (xa, za), (xb, zb) = next(
        (a, b) for a, b in zip(shape.belt[:-1], shape.belt[1:], strict=True) if a[1] - b[1] > 0.6 and b[0] - a[0] > 0.3
    )
    lift, side_x = 0.015, xa - 0.75
    screen = [
        [xb + lift, -half + 0.15, zb + 0.05],
        [xb + lift, half - 0.15, zb + 0.05],
        [xa + lift, half - 0.2, za - 0.1],
        [xa + lift, -half + 0.2, za - 0.1],
    ]
    side = [[side_x, -half, zb + 0.1], [xb - 0.15, -half, zb + 0.1], [xa - 0.05, -half, za - 0.3], [side_x, -half, za - 0.3]]
    return [screen, side, _mirrored(side)]


def _lamps(shape: Shape, *, front: bool) -> list[list[list[float]]]:
    half, (x, z) = shape.size[1] / 2, shape.belt[-1] if front else shape.belt[0]
    x, z = (x + 0.012, min(z, 0.95) - 0.02) if front else (x - 0.012, min(z, 1.15))
    tall, wide = (0.15, 0.42) if front else (0.28, 0.22)
    quads = []
    for low, high in ((-half + 0.06, -half + 0.06 + wide), (half - 0.06 - wide, half - 0.06)):
        quad = [[x, low, z - tall], [x, high, z - tall], [x, high, z], [x, low, z]]
        quads.append(quad if front else [quad[1], quad[0], quad[3], quad[2]])
    return quads


def _plates(shape: Shape) -> list[list[list[float]]]:
    front, back = shape.belt[-1][0] + 0.04, shape.belt[0][0] - 0.04
    quad = [[front, -0.26, 0.34], [front, 0.26, 0.34], [front, 0.26, 0.46], [front, -0.26, 0.46]]
    rear = [[back, 0.26, 0.5], [back, -0.26, 0.5], [back, -0.26, 0.62], [back, 0.26, 0.62]]
    return [quad, rear]


def _wheels(builder: Builder, shape: Shape, *, at: NDArray[np.float64], angle: NDArray[np.float64], number: NDArray[np.int32]) -> None:
    turn, radius, half = 2 * np.pi * np.arange(12) / 12, shape.wheel, shape.size[1] / 2
    ring = np.column_stack([np.cos(turn), np.zeros(12), np.sin(turn)]) * radius
    for x in shape.axles:
        for side in (-1, 1):
            middle = np.array([x, side * (half + 0.012), radius])
            disc = np.stack([np.broadcast_to(middle, ring.shape), middle + ring, middle + np.roll(ring, -1, 0)], 1)
            disc = disc[:, :: side * -1] if side > 0 else disc
            corners = placed(disc.reshape(-1, 3), at=at, angle=angle).reshape(-1, 3, 3)
            hub = np.repeat(placed(middle[None], at=at, angle=angle)[:, 0], 12, 0)
            owner = np.repeat(number, 12)
            builder.triangles(corners, kind=Kind.WHEEL, label=shape.label, instance=owner, origin=hub, colour=(radius, 0.0, 0.0))
            inner = middle - [0, side * 0.2, 0]
            tread = np.stack([middle + ring, inner + ring, inner + np.roll(ring, -1, 0), middle + np.roll(ring, -1, 0)], 1)
            builder.quads(
                placed(tread.reshape(-1, 3), at=at, angle=angle).reshape(-1, 4, 3),
                kind=Kind.PLAIN,
                label=shape.label,
                instance=owner,
                colour=(0.015, 0.015, 0.015),
            )
