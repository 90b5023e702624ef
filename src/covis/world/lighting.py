"""The light of a visit: sun and sky, shadows of the houses, haze, and the sensor that takes the picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from covis.world.patterns import mottle
from covis.world.plans import FRONT
from covis.world.shapes import Floats

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Condition:
    """How a visit is lit and taken.

    Args:
        sun: its colour at a surface that faces it; black after sunset.
        ambient: the colour of the light from everywhere else.
        zenith, horizon: the sky's colours.
        haze: metres in which the horizon takes over most of a colour.
        lit: the share of windows with a lamp on.
        noise: deviation of each pixel's read-out, of the full scale.
        exposure: deviation of a frame's exposure, as a share of it.
    """

    sun: Colour
    ambient: Colour
    zenith: Colour
    horizon: Colour
    haze: float
    lit: float
    noise: float
    exposure: float


CONDITIONS: Mapping[str, Condition] = {
    "day": Condition(
        sun=(0.78, 0.72, 0.60), ambient=(0.50, 0.54, 0.60), zenith=(0.32, 0.53, 0.86), horizon=(0.80, 0.87, 0.94),
        haze=160, lit=0.0, noise=0.008, exposure=0.04,
    ),
    "dusk": Condition(
        sun=(0.0, 0.0, 0.0), ambient=(0.46, 0.44, 0.52), zenith=(0.14, 0.18, 0.38), horizon=(0.80, 0.52, 0.42),
        haze=120, lit=0.25, noise=0.02, exposure=0.1,
    ),
}  # fmt: skip

GLOW = np.array([1.0, 0.78, 0.42], np.float32)


def sky(directions: tuple[Floats, Floats, Floats], condition: Condition, *, drift: float) -> Floats:
    """The sky's colour (n, 3) along directions of any length; its clouds have moved by `drift` metres."""
    x, y, z = directions
    flat = np.sqrt(x**2 + y**2)
    climb = np.clip(z / flat * 1.4, 0.02, 1)
    clouds = mottle(x / climb * 1.5 + drift, y / climb * 1.5, 0.1 / climb, size=2.0) + mottle(
        x / climb + drift, y / climb, 0.1 / climb, size=5.0
    )
    cover = np.clip(clouds * 0.35, 0, 0.7) * np.minimum(climb * 2, 1)
    low, top = np.array(condition.horizon, np.float32), np.array(condition.zenith, np.float32)
    colour = low + (np.sqrt(climb) * (1 - cover))[:, None] * (top - low)
    return np.asarray(colour, np.float32)


def shadowed(points: tuple[Floats, Floats, Floats], *, sun: tuple[float, float, float], skyline: Floats) -> Floats:
    """1 where the row of houses on the sun's side stands before the sun, else 0; (n,).

    Args:
        points: x, y, z in the street's frame, metres.
        sun: the unit direction towards the sun.
        skyline: (2, m) heights of the right and the left row, from 20 m before the street's zero on.
    """
    x, y, z = points
    way = np.maximum((FRONT * np.sign(sun[1]) - y) / sun[1], 0)  # metres along the ray to the line of houses
    column = np.clip(x + way * sun[0] + 20, 0, skyline.shape[1] - 1).astype(np.int32)
    row = skyline[int(sun[1] > 0)]
    return np.where((way > 0.05) & (z + way * sun[2] < row[column]), np.float32(1), np.float32(0))


def expose(colour: Floats, condition: Condition, rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """What the sensor makes of (height, width, 3) light: exposure, noise, 8 bits."""
    gain = np.float32(np.exp(rng.normal(0, condition.exposure)))
    noise = rng.standard_normal(colour.shape, dtype=np.float32) * np.float32(condition.noise)
    return np.asarray(np.rint(np.clip(colour * gain + noise, 0, 1) * 255), np.uint8)
