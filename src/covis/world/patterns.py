"""Patterns that know their own blur: every one fades into its mean where a pixel covers more than it repeats."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage

from covis.world.shapes import Floats, Integers

_PERIOD = 256


def band(x: Floats, width: Floats, *, low: Floats | float, high: Floats | float) -> Floats:
    """The share of [x - width / 2, x + width / 2] that lies in [low, high].

    >>> band(np.float32([0, 1, 3]), np.float32([2, 2, 2]), low=1, high=9).tolist()
    [0.0, 0.5, 1.0]
    """
    reach = width / 2
    inside: Floats = np.maximum(np.minimum(x + reach, high) - np.maximum(x - reach, low), 0) / width
    return inside


def pulse(x: Floats, width: Floats, duty: Floats | float) -> Floats:
    """The share of [x - width / 2, x + width / 2] that lies in the middle `duty` of a unit period.

    >>> pulse(np.float32([0.5, 0.0, 0.3]), np.float32([0.1, 0.1, 100]), 0.5).round(2).tolist()
    [1.0, 0.0, 0.5]
    """
    half = width / 2
    covered: Floats = (_pulses_before(x + half, duty) - _pulses_before(x - half, duty)) / width
    return covered


def cells(column: Integers, row: Integers, salt: Integers | int) -> Floats:
    """A random number in [0, 1) for each cell of a grid, the same wherever that cell is seen again; (n,) float32."""
    table = _white()
    found: Floats = table[(row + 53 * salt) % _PERIOD * _PERIOD + (column + 97 * salt) % _PERIOD]
    return found


def mottle(x: Floats, y: Floats, width: Floats, *, size: float, salt: Integers | int = 0) -> Floats:
    """Soft spots of `size` metres, mean 0 and deviation 1, weaker where a pixel's `width` (metres) exceeds them."""
    fine = 4 / size  # the table's spots are about four cells wide
    column, row = whole(x * fine), whole(y * fine)
    spots = _soft()[(row + 53 * salt) % _PERIOD * _PERIOD + (column + 97 * salt) % _PERIOD]
    faded: Floats = spots * np.minimum(size / np.maximum(width, 1e-3), 1)
    return faded


def whole(x: Floats) -> Integers:
    """Rounded down to whole numbers."""
    return np.floor(x).astype(np.int32)


def _pulses_before(x: Floats, duty: Floats | float) -> Floats:
    turn = np.floor(x)
    before: Floats = turn * duty + np.clip(x - turn - (1 - duty) / 2, 0, duty)
    return before


@cache
def _white() -> Floats:
    return np.random.default_rng(1).random(_PERIOD * _PERIOD, dtype=np.float32)


@cache
def _soft() -> Floats:
    """Smoothed noise, periodic, mean 0 and deviation 1."""
    noise = ndimage.gaussian_filter(np.random.default_rng(2).standard_normal((_PERIOD, _PERIOD)), 1.5, mode="wrap")
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32).ravel()
