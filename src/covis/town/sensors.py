"""From light to a picture: lens, shutter, exposure, tone curve, noise, and what falls before the lens."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from covis.town.conditions import Condition
from covis.town.patterns import Floats, single

_LEVELS = 4096
_WHITE = 4.0  # light that the tone curve makes (almost) white


def develop(light: Floats, condition: Condition, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 from linear light of that shape."""
    height, width = light.shape[:2]
    gain = np.float32(_metered(light) * condition.exposure * np.exp(rng.normal(0, 0.08)))
    picture = light * (gain * _vignette(height, width))[..., None]
    if condition.falling:
        picture = _falling(picture, condition, rng)
    pixels = condition.blur * width / 320
    if pixels >= 0.5:
        picture = ndimage.uniform_filter1d(picture, 2 * round(pixels) + 1, axis=1, mode="nearest")
    table = _tone()
    level = np.clip(picture * np.float32(_LEVELS / _WHITE), 0, _LEVELS - 1).astype(np.int16)
    shown = table.take(level)
    shown += _grain(shown.shape, rng) * np.float32(condition.noise * 255)
    shown += np.float32(0.5)
    return np.clip(shown, 0, 255, out=shown).astype(np.uint8)


def _grain(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Noise of deviation 1.1, partly common to the colours: pieces of two long tapes, since drawing it anew costs five times as much."""
    count = int(np.prod(shape))
    tapes = []
    for size in (count // 3, count):
        tape = _tape(1 << max(17, (2 * size).bit_length()))
        start = int(rng.integers(len(tape) - size))
        tapes.append(tape[start : start + size])
    grain: Floats = tapes[1].reshape(shape) * np.float32(0.5)
    grain += tapes[0].reshape(*shape[:2], 1)
    return grain


@cache
def _tape(length: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).standard_normal(length, dtype=np.float32)


def _metered(light: Floats) -> float:
    """What the camera's meter multiplies light by: it goes half the way to a middling grey."""
    bright = np.clip(light[::4, ::4].mean(-1), 0.004, 1.5)
    return float(np.clip((0.26 / np.exp(np.log(bright).mean())) ** 0.5, 0.6, 2.6))


@cache
def _tone() -> NDArray[np.float32]:
    """Linear light to 0 ... 255: a film-like curve (Narkowicz's fit of ACES), then the display's gamma."""
    x = np.linspace(0, _WHITE, _LEVELS) * 0.8
    film = np.clip(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 0, 1)
    return np.asarray(255 * film ** (1 / 2.2), np.float32)


@cache
def _vignette(height: int, width: int) -> NDArray[np.float32]:
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.asarray(1 - 0.10 * (x**2 + y**2 * (height / width) ** 2), np.float32)


def _falling(picture: Floats, condition: Condition, rng: np.random.Generator) -> Floats:
    """Streaks of rain or flakes of snow over the picture."""
    height, width = picture.shape[:2]
    rain = condition.falling == "rain"
    layer = np.zeros((height, width), np.float32)
    count = int(height * width / (520 if rain else 260))
    rows, columns = rng.integers(0, height, count), rng.integers(0, width, count)
    layer[rows, columns] = rng.uniform(0.3, 1.0, count)
    if rain:
        layer = ndimage.uniform_filter1d(layer, max(3, height // 14), axis=0, mode="constant") * np.float32(5)
    else:
        size = max(height / 480, 0.35)
        layer = ndimage.gaussian_filter(layer, size) * np.float32(6 * size)
    colour = single(condition.mist) * np.float32(1.3) + np.float32(0.06)
    veil = np.clip(layer, 0, 0.55 if rain else 0.85)[..., None] * np.float32(0.5 if rain else 1.0)
    veiled: Floats = picture + veil * (colour - picture)
    return veiled
