"""Patterns that know their own blur: every one fades into its mean where a pixel covers more than it repeats."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats: TypeAlias = NDArray[np.floating[Any]]
Integers: TypeAlias = NDArray[np.integer[Any]]

_PERIOD = 512
_SPOT = 8  # cells of the table that one soft spot is wide


def band(x: Floats, width: Floats, *, low: Floats | float, high: Floats | float) -> Floats:
    """The share of [x - width / 2, x + width / 2] that lies in [low, high].

    >>> band(single([0, 1, 3]), single([2, 2, 2]), low=1, high=9).tolist()
    [0.0, 0.5, 1.0]
    """
    reach = width * np.float32(0.5)
    inside: Floats = np.maximum(np.minimum(x + reach, high) - np.maximum(x - reach, low), 0) / width
    return inside


def edge(x: Floats, width: Floats) -> Floats:
    """A step from 0 to 1 at x = 0, as wide as the pixel.

    >>> edge(single([-1, 0, 1]), single([1, 1, 1])).tolist()
    [0.0, 0.5, 1.0]
    """
    step: Floats = np.clip(x / width + np.float32(0.5), 0, 1)
    return step


def pulse(x: Floats, width: Floats, duty: Floats | float) -> Floats:
    """The share of [x - width / 2, x + width / 2] that lies in the middle `duty` of a unit period.

    >>> pulse(single([0.5, 0.0, 0.3]), single([0.1, 0.1, 100]), 0.5).round(2).tolist()
    [1.0, 0.0, 0.5]
    """
    half = width * np.float32(0.5)
    covered: Floats = (_pulses_before(x + half, duty) - _pulses_before(x - half, duty)) / width
    return covered


def cells(column: Integers, row: Integers, salt: Integers | int = 0) -> Floats:
    """A random number in [0, 1) for each cell of a grid, the same wherever that cell is seen again; (n,) float32."""
    found: Floats = _white().take(((row + 53 * salt) & (_PERIOD - 1)) * _PERIOD + ((column + 97 * salt) & (_PERIOD - 1)))
    return found


def mottle(x: Floats, y: Floats, width: Floats, *, size: float, salt: Integers | int = 0) -> Floats:
    """Soft spots of `size` metres, mean 0 and deviation 1, weaker where a pixel's `width` (metres) exceeds them."""
    fine = np.float32(_SPOT / size)
    column, row = whole(x * fine), whole(y * fine)
    spots = _soft().take(((row + 53 * salt) & (_PERIOD - 1)) * _PERIOD + ((column + 97 * salt) & (_PERIOD - 1)))
    faded: Floats = spots * np.minimum(np.float32(size) / np.maximum(width, np.float32(1e-3)), 1)
    return faded


def whole(x: Floats) -> NDArray[np.int32]:
    """Rounded down to whole numbers."""
    return np.floor(x).astype(np.int32)


def blend(colour: Floats, over: Floats, share: Floats) -> Floats:
    """Cover `share` (n,) of `colour` (n, 3) with `over` (3,) or (n, 3)."""
    mixed = np.empty(colour.shape, np.float32)
    for k in range(3):  # column by column: numpy is slow where the last axis is as short as a colour
        base = colour[:, k]
        mixed[:, k] = base + share * (over[..., k] - base)
    return mixed


def tint(colour: Floats, share: Floats) -> Floats:
    """`share` (n,) times one `colour` (3,): (n, 3)."""
    tinted = np.empty((len(share), 3), np.float32)
    for k in range(3):
        np.multiply(share, colour[k], out=tinted[:, k], casting="unsafe")
    return tinted


def dot(a: Floats, b: Floats) -> Floats:
    """(n,) the inner products of rows (n, 3), column by column: several times as fast as over a last axis of three."""
    product: Floats = a[:, 0] * b[:, 0]
    product += a[:, 1] * b[:, 1]
    product += a[:, 2] * b[:, 2]
    return product


def single(values: Any) -> NDArray[np.float32]:
    """An array of float32."""
    return np.asarray(values, np.float32)


def linear(colour: Any) -> NDArray[np.float32]:
    """A colour as one sees it (sRGB, 0 to 1) as the light that makes it.

    >>> linear([0.0, 0.5, 1.0]).round(3).tolist()
    [0.0, 0.21799999475479126, 1.0]
    """
    return np.asarray(np.clip(np.asarray(colour, np.float64), 0, None) ** 2.2, np.float32)


def _pulses_before(x: Floats, duty: Floats | float) -> Floats:
    turn = np.floor(x)
    before: Floats = turn * duty + np.clip(x - turn - (1 - duty) * np.float32(0.5), 0, duty)
    return before


@cache
def _white() -> NDArray[np.float32]:
    return np.random.default_rng(1).random(_PERIOD * _PERIOD, dtype=np.float32)


@cache
def _soft() -> NDArray[np.float32]:
    """Smoothed noise, periodic, mean 0 and deviation 1."""
    noise = ndimage.gaussian_filter(np.random.default_rng(2).standard_normal((_PERIOD, _PERIOD)), _SPOT / 2.7, mode="wrap")
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32).ravel()
