"""Light: the sky, how much of it each place sees, the sun's shadows, street lamps, and what glass and wet roads mirror."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covis.town.conditions import Condition
from covis.town.patterns import Floats, blend, dot, mottle, single, tint
from covis.town.rays import Caster

_LAYERS = np.array([0.8, 4.0, 9.0, 18.0])
"""Metres above the ground at which it is known how much of the sky is open."""
_STEP = 3.0
_LAMPS_NEAR = 4


@dataclass(frozen=True)
class Openness:
    """The share of the sky that is open, on a grid.

    Attributes:
        low: (2,) metres, the grid's corner.
        shares: (layers, rows, columns) float32 in [0, 1], at the heights `_LAYERS`, every `_STEP` metres.
    """

    low: NDArray[np.float64]
    shares: NDArray[np.float32]

    def at(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """(n,) the share at points, between the grid's."""
        layers, rows, columns = self.shares.shape
        layer = np.interp(z, _LAYERS, np.arange(layers)).astype(np.float32)
        column = np.clip((x - np.float32(self.low[0])) / np.float32(_STEP), 0, columns - 1.01).astype(np.float32)
        row = np.clip((y - np.float32(self.low[1])) / np.float32(_STEP), 0, rows - 1.01).astype(np.float32)
        i, j, k = (np.minimum(value.astype(np.int32), top) for value, top in ((layer, layers - 2), (row, rows - 2), (column, columns - 2)))
        a, b, c = layer - i, row - j, column - k
        flat, first = self.shares.ravel(), (i * rows + j) * columns + k
        upper = rows * columns

        def plane(start: NDArray[np.int32]) -> Floats:
            near = flat.take(start) * (1 - c) + flat.take(start + 1) * c
            far = flat.take(start + columns) * (1 - c) + flat.take(start + columns + 1) * c
            level: Floats = near + (far - near) * b
            return level

        bottom = plane(first)
        found: Floats = bottom + (plane(first + upper) - bottom) * a
        return found


def find_openness(caster: Caster, low: NDArray[np.float64], high: NDArray[np.float64], *, rays: int = 12) -> Openness:
    """How much of the sky each place sees: `rays` rays a place, the same directions everywhere."""
    columns, rows = (int(np.ceil((high - low)[k] / _STEP)) + 1 for k in (0, 1))
    x, y = np.meshgrid(low[0] + _STEP * np.arange(columns), low[1] + _STEP * np.arange(rows))
    turn = 2.399963 * np.arange(rays)  # the golden angle spreads them evenly
    climb = np.arcsin(0.15 + 0.83 * (np.arange(rays) + 0.5) / rays)
    ways = np.stack([np.cos(turn) * np.cos(climb), np.sin(turn) * np.cos(climb), np.sin(climb)], 1)
    shares = np.zeros((len(_LAYERS), rows, columns), np.float32)
    for layer, z in enumerate(_LAYERS):
        places = np.stack([x.ravel(), y.ravel(), np.full(x.size, z)], 1)
        for way in ways:
            shares[layer] += ~caster.blocked(places, np.broadcast_to(way, places.shape)).reshape(rows, columns)
    return Openness(low, single(shares / rays))


@dataclass(frozen=True)
class LampGrid:
    """Which street lamps are nearest to each place: (rows, columns, 4) numbers, -1 for none, every `_STEP` metres."""

    low: NDArray[np.float64]
    lamps: NDArray[np.float32]
    nearest: NDArray[np.int32]

    @classmethod
    def of(cls, lamps: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> LampGrid:
        """Those of lamps (k, 3) between two corners of the ground."""
        columns, rows = (int(np.ceil((high - low)[k] / _STEP)) + 1 for k in (0, 1))
        x, y = np.meshgrid(low[0] + _STEP * np.arange(columns), low[1] + _STEP * np.arange(rows))
        count = min(_LAMPS_NEAR, len(lamps))
        far = (x.ravel()[:, None] - lamps[None, :, 0]) ** 2 + (y.ravel()[:, None] - lamps[None, :, 1]) ** 2
        order = np.argsort(far, axis=1, kind="stable")[:, :count].astype(np.int32)
        return cls(low, lamps.astype(np.float32), order.reshape(rows, columns, count))

    def light(self, xyz: Floats, normal: Floats) -> Floats:
        """(n,) how brightly lamps light points with those normals; 1 is a metre or two below a lamp."""
        rows, columns, count = self.nearest.shape
        column = np.clip((xyz[:, 0] - self.low[0]) / _STEP + 0.5, 0, columns - 1).astype(np.int32)
        row = np.clip((xyz[:, 1] - self.low[1]) / _STEP + 0.5, 0, rows - 1).astype(np.int32)
        total = np.zeros(len(xyz), np.float32)
        near = self.nearest.reshape(-1, count).take(row * columns + column, axis=0)
        for k in range(count):
            way = self.lamps.take(near[:, k], axis=0) - xyz
            square = dot(way, way)
            facing = dot(way, normal) / np.sqrt(square)
            down = np.clip(way[:, 2] / np.sqrt(square), 0.05, 1)  # lamps shine downwards
            total += np.maximum(facing, 0.08) * down * 36 / (square + 16)
        return total


def sky(ways: Floats, condition: Condition, *, drift: float) -> Floats:
    """The sky's light (n, 3) in directions (n, 3) of any length; its clouds have moved by `drift`."""
    flat = np.hypot(ways[:, 0], ways[:, 1])
    length = np.sqrt(flat * flat + ways[:, 2] ** 2)
    rise = np.clip(ways[:, 2] / length, 0, 1).astype(np.float32)
    low, top = single(condition.horizon), single(condition.zenith)
    share = np.power(rise, np.float32(0.55))
    colour = low + share[:, None] * (top - low)
    if condition.clouds:
        climb = np.maximum(rise, np.float32(0.04))
        x, y = (ways[:, k] / length / (climb + np.float32(0.12)) for k in (0, 1))
        x, y = x.astype(np.float32), y.astype(np.float32)
        width = np.float32(0.006) / climb
        heap = mottle(x + drift, y, width, size=1.3) + 0.55 * mottle(x * 2 + drift, y * 2 + 3, width * 2, size=1.1, salt=3)
        heap = heap + 0.3 * mottle(x * 4 + drift, y * 4, width * 4, size=1.0, salt=5)
        cover = np.clip((heap / np.float32(1.2) + np.float32(condition.clouds * 3.2 - 1.9)) * np.float32(0.8), 0, 1) * np.clip(
            climb * 5, 0, 1
        )
        white = low * np.float32(0.75) + np.float32(0.35) * (single(condition.sun) + single(condition.sky)) * np.float32(0.9)
        shade = np.float32(1) - np.float32(0.28) * np.clip(heap * 0.5, 0, 1)
        colour = colour + (cover * np.float32(0.85))[:, None] * (white * shade[:, None] - colour)
    if any(condition.sun):
        toward = (ways @ condition.toward_sun.astype(ways.dtype) / length).astype(np.float32)
        halo = np.power(np.clip(toward, 0, 1), 24) * np.float32(0.35) + np.power(np.clip(toward, 0, 1), 900) * np.float32(6)
        colour = colour + halo[:, None] * single(condition.sun) * np.float32(1 - 0.7 * condition.clouds)
    return np.asarray(colour, np.float32)


def mirrored(ways: Floats, openness: Floats, condition: Condition, *, sharp: Floats) -> Floats:
    """What a mirror shows (n, 3) in directions (n, 3) of unit length: sky above the roofs across the street, walls below.

    `sharp` (n,) is 8 for glass; less where the mirror is rough.
    """
    rise = ways[:, 2]
    roofs = np.float32(0.75) - np.float32(0.65) * openness
    wobble = np.float32(0.10) * mottle(ways[:, 0] * 6, ways[:, 1] * 6, single([0.05]), size=1.0)
    above = np.clip((rise - roofs - wobble) * sharp + np.float32(0.5), 0, 1)
    low, top = single(condition.horizon), single(condition.zenith)
    bright = low + tint(top - low, np.sqrt(np.clip(rise, 0, 1)))
    walls = single(condition.sky) * np.float32(0.20) + single(condition.sun) * np.float32(0.10)
    if condition.lamps:
        walls = walls + single([0.05, 0.035, 0.02]) * np.float32(condition.lamps)
    return blend(np.broadcast_to(walls, bright.shape), bright, above)
