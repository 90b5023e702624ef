"""Light, weather and sensor of a visit: everything about a picture that does not change what stands where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from covis.errors import InvalidInputError

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Condition:
    """How a picture is lit, what falls from the sky, and how it is taken. Light is linear; 1 is about a white wall in full sun.

    Attributes:
        azimuth: of the sun, degrees clockwise from north.
        elevation: of the sun, degrees above the horizon.
        sun: the light of a surface that faces the sun; black when there is none.
        sky: the light from a whole open sky.
        zenith, horizon: the sky's colours.
        clouds: the share of the sky that they cover.
        haze: metres in which most of a colour is taken over by the haze.
        mist: the haze's colour.
        wet: how wet the ground is, in [0, 1].
        snow: how much lies on what looks up, in [0, 1].
        falling: "", "rain" or "snow".
        season: 1 summer to 0 winter, for the colour of grass and leaves.
        lit: the share of windows with a lamp on.
        lamps: the strength of the street lamps; 0 off.
        exposure: what light is multiplied by.
        noise: deviation of each read-out, of the full scale, in the dark.
        blur: pixels (of a picture 320 wide) that the camera moves while the shutter is open.
        quality: of the JPEG.
        night: whether a person would call it night.

    Raises:
        InvalidInputError: a value is out of its range.
    """

    azimuth: float = 150.0
    elevation: float = 42.0
    sun: Colour = (1.05, 0.98, 0.86)
    sky: Colour = (0.34, 0.42, 0.54)
    zenith: Colour = (0.10, 0.24, 0.58)
    horizon: Colour = (0.52, 0.68, 0.86)
    clouds: float = 0.35
    haze: float = 900.0
    mist: Colour = (0.55, 0.66, 0.78)
    wet: float = 0.0
    snow: float = 0.0
    falling: str = ""
    season: float = 1.0
    lit: float = 0.0
    lamps: float = 0.0
    exposure: float = 1.0
    noise: float = 0.006
    blur: float = 0.0
    quality: int = 92
    night: bool = False

    def __post_init__(self) -> None:
        for name in ("clouds", "wet", "snow", "season", "lit"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidInputError(f"A condition's {name} must be in [0, 1]; got {getattr(self, name)}.")
        for name in ("haze", "exposure"):
            if not getattr(self, name) > 0:
                raise InvalidInputError(f"A condition's {name} must be above 0; got {getattr(self, name)}.")
        if self.falling not in ("", "rain", "snow") or not 1 <= self.quality <= 100 or min(self.noise, self.blur, self.lamps) < 0:
            raise InvalidInputError("A condition's falling must be '', 'rain' or 'snow', its quality 1 to 100, the rest 0 or more.")

    @property
    def toward_sun(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """(3,) the unit direction to the sun, x east, y north, z up."""
        turn, climb = np.deg2rad(self.azimuth), np.deg2rad(self.elevation)
        return np.array([np.sin(turn) * np.cos(climb), np.cos(turn) * np.cos(climb), np.sin(climb)])

    def __str__(self) -> str:
        light = "night" if self.night else "sun" if any(self.sun) else "dusk" if self.lamps else "no sun"
        trees = {1.0: "trees in leaf", 0.0: "bare trees"}.get(self.season, "autumn leaves")
        said = [
            light,
            trees,
            self.falling and f"{self.falling} falling",
            "wet ground" * (self.wet > 0.5),
            "snow on the ground" * (self.snow > 0),
        ]
        return ", ".join([*filter(None, said), f"sight {self.haze:g} m"])


_DAY = Condition()
_GREY: Mapping[str, Any] = {
    "sun": (0.0, 0.0, 0.0),
    "sky": (0.62, 0.66, 0.70),
    "zenith": (0.50, 0.54, 0.58),
    "horizon": (0.66, 0.69, 0.71),
}
_OVERCAST = replace(_DAY, **_GREY, clouds=0.9, haze=500, mist=(0.62, 0.65, 0.67), exposure=1.0)
_NIGHT = replace(
    _DAY, sun=(0.0, 0.0, 0.0), sky=(0.016, 0.020, 0.032), zenith=(0.006, 0.009, 0.020), horizon=(0.045, 0.036, 0.034), clouds=0.3, haze=500,
    mist=(0.03, 0.026, 0.026), lit=0.38, lamps=1.0, exposure=2.0, noise=0.022, blur=1.2, quality=80, night=True,
)  # fmt: skip

CONDITIONS: Mapping[str, Condition] = {
    "day": _DAY,
    "morning": replace(
        _DAY, azimuth=95, elevation=21, sun=(1.10, 0.88, 0.62), sky=(0.30, 0.36, 0.48), horizon=(0.78, 0.72, 0.62), clouds=0.2, haze=450,
        mist=(0.66, 0.64, 0.60), exposure=1.1,
    ),
    "evening": replace(
        _DAY, azimuth=262, elevation=14, sun=(1.15, 0.72, 0.40), sky=(0.28, 0.32, 0.44), zenith=(0.12, 0.22, 0.48), horizon=(0.86,
            0.62, 0.42),
        clouds=0.45, haze=500, mist=(0.66, 0.54, 0.44), exposure=1.25, noise=0.009, lit=0.05,
    ),
    "overcast": _OVERCAST,
    "fog": replace(_OVERCAST, sky=(0.60, 0.62, 0.64), haze=42, mist=(0.62, 0.64, 0.66), horizon=(0.62, 0.64, 0.66), zenith=(0.62, 0.64,
        0.66), clouds=0.0, wet=0.3, lit=0.06),
    "rain": replace(
        _OVERCAST, sky=(0.36, 0.39, 0.43), zenith=(0.30, 0.33, 0.37), horizon=(0.42, 0.45, 0.48), haze=220, mist=(0.42, 0.45, 0.48),
            wet=1.0,
        falling="rain", lit=0.15, exposure=1.35, noise=0.012, quality=85,
    ),
    "autumn": replace(_OVERCAST, sun=(0.35, 0.31, 0.25), azimuth=215, elevation=24, sky=(0.5, 0.52, 0.54), clouds=0.7, wet=0.35,
        season=0.5, haze=600),
    "winter": replace(
        _DAY, azimuth=190, elevation=15, sun=(0.92, 0.78, 0.58), sky=(0.34, 0.42, 0.54), horizon=(0.70, 0.74, 0.78), clouds=0.25,
            season=0.0,
        mist=(0.62, 0.66, 0.72), haze=600, exposure=1.1,
    ),
    "snow": replace(
        _OVERCAST, sky=(0.52, 0.55, 0.60), zenith=(0.52, 0.55, 0.60), horizon=(0.66, 0.69, 0.72), haze=160, mist=(0.66, 0.69, 0.72),
            snow=0.85, season=0.0,
        falling="snow", lit=0.1, exposure=0.95,
    ),
    "dusk": replace(
        _DAY, sun=(0.0, 0.0, 0.0), sky=(0.13, 0.15, 0.24), zenith=(0.045, 0.075, 0.20), horizon=(0.50, 0.30, 0.24), clouds=0.4, haze=450,
        mist=(0.20, 0.16, 0.20), lit=0.28, lamps=0.7, exposure=1.7, noise=0.014, blur=0.6, quality=85,
    ),
    "night": _NIGHT,
    "night-rain": replace(_NIGHT, wet=1.0, falling="rain", haze=160, mist=(0.05, 0.045, 0.045), sky=(0.022, 0.024, 0.03), exposure=2.1,
        noise=0.026),
}  # fmt: skip
"""Conditions by name."""
