"""Augmentation: images are changed before they teach, a whole micro-batch at once, on the device where they are.

What happens to an image depends on the seed, the step and the image's place in the batch alone: not on micro-batches,
on devices, or on whether the run was resumed. A similarity stays what it is.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.settings import AugmentSettings

GREY = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue in an image's grey (ITU-R 601), as torchvision rounds them."""

ERASED_AREA = (0.02, 0.2)
"""The share of an image that a rectangle hides."""

ERASED_RATIO = 3.3
"""A rectangle's share of the height is at most so many times its share of the width, and the other way round."""


@dataclass(frozen=True, eq=False)
class Draws:
    """What happens to each of n images.

    Attributes:
        mirror: (n,) bool.
        brightness: (n,) factor, 1: as it is.
        contrast: (n,) the same.
        saturation: (n,) the same.
        grey: (n,) bool.
        noise: (n,) standard deviation, of values in [0, 1].
        noise_seed: (n,) uint64.
        erase: (n, 4) top, left, height and width of a rectangle, in shares of the image; height 0: none.
    """

    mirror: NDArray[np.bool_]
    brightness: NDArray[np.float32]
    contrast: NDArray[np.float32]
    saturation: NDArray[np.float32]
    grey: NDArray[np.bool_]
    noise: NDArray[np.float32]
    noise_seed: NDArray[np.uint64]
    erase: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.mirror)

    def part(self, first: int, items: int, *, images: int) -> Draws:
        """Those of some items of a batch, as their images lie in memory: the first image of each item, then the others of each.

        Args:
            first: the place of the first item in the batch.
            items: how many.
            images: an item.
        """
        place = np.arange(first * images, (first + items) * images).reshape(items, images)
        rows = np.concatenate([place[:, 0], place[:, 1:].ravel()])
        return Draws(*(getattr(self, one.name)[rows] for one in dataclasses.fields(self)))


def draw(settings: AugmentSettings, *, seed: int, step: int, items: int, images: int = 2) -> Draws:
    """Draw what happens to each image of a batch, item by item; all images of an item are mirrored, or none.

    Args:
        settings: the shares and ranges.
        seed: of the run.
        step: its number.
        items: pairs, or lists, of the whole batch.
        images: an item: 2 for pairs.

    >>> drawn = draw(AugmentSettings(mirror=True), seed=0, step=1, items=4)
    >>> bool((drawn.mirror[0::2] == drawn.mirror[1::2]).all()), float(drawn.brightness[0])
    (True, 1.0)
    """
    random = np.random.default_rng([seed, step, 1])
    count = items * images
    # Every number is drawn, whether it is used or not: one setting does not change what another one draws.
    mirror = np.repeat(random.random(items) < 0.5, images)
    factors = [1 + (2 * random.random(count) - 1) * share for share in (settings.brightness, settings.contrast, settings.saturation)]
    grey, noise = random.random(count) < settings.grey, random.random(count) * settings.noise
    noise_seed = random.integers(0, 2**63, count, dtype=np.uint64)
    erase = _rectangles(random.random((count, 5)), settings.erase)
    brightness, contrast, saturation = (factor.astype(np.float32) for factor in factors)
    return Draws(mirror & settings.mirror, brightness, contrast, saturation, grey, noise.astype(np.float32), noise_seed, erase)


def augment(pixels: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Change images as was drawn: mirror, brightness, contrast, saturation, grey, noise, erase, in this order.

    Brightness, contrast, saturation and grey are those of torchvision's functional operations on values in [0, 1]:
    a factor f makes f x, f x + (1 − f) m and f x + (1 − f) g of a value x, where m is the mean of the image's grey and
    g the pixel's grey, each clamped to [0, 1].

    Args:
        pixels: (n, 3, height, width) uint8, on any device; not written into.
        draws: of the n images.

    Returns:
        (n, 3, height, width) uint8 on the same device.

    Raises:
        InvalidInputError: there are not as many draws as images.

    >>> black = torch.zeros((2, 3, 4, 4), dtype=torch.uint8)
    >>> augment(black, draw(AugmentSettings(erase=1.0), seed=0, step=1, items=1)).unique().tolist()
    [0, 128]
    """
    if len(draws) != len(pixels):
        raise InvalidInputError(f"There must be one draw an image; got {len(draws)} for {len(pixels)} images.")
    if draws.mirror.any():
        pixels = torch.where(_each(draws.mirror, pixels), pixels.flip(3), pixels)
    if not _changes_values(draws):
        return pixels
    return _adjusted(pixels.float().div_(255), draws).mul_(255).round_().to(torch.uint8)


def _adjusted(values: torch.Tensor, draws: Draws) -> torch.Tensor:
    """The same of float values in [0, 1]; what is nowhere drawn is not computed."""
    if (draws.brightness != 1).any():
        values = (values * _each(draws.brightness, values)).clamp_(0, 1)
    if (draws.contrast != 1).any():
        values = _blended(values, _grey(values).mean(dim=(1, 2, 3), keepdim=True), draws.contrast)
    if (draws.saturation != 1).any():
        values = _blended(values, _grey(values), draws.saturation)
    if draws.grey.any():
        values = torch.where(_each(draws.grey, values), _grey(values), values)
    if (draws.noise > 0).any():
        values = (values + _noise(values, draws)).clamp_(0, 1)
    if (draws.erase[:, 2] > 0).any():
        values = torch.where(_inside(draws.erase, values), torch.full_like(values[:1, :1, :1, :1], 0.5), values)
    return values


def _changes_values(draws: Draws) -> bool:
    factors = (draws.brightness, draws.contrast, draws.saturation)
    return any((factor != 1).any() for factor in factors) or bool(draws.grey.any() or (draws.noise > 0).any() or draws.erase[:, 2].any())


def _each(values: NDArray[Any], images: torch.Tensor) -> torch.Tensor:
    """One value an image, to be combined with (n, 3, height, width)."""
    return torch.from_numpy(values).to(images.device)[:, None, None, None]


def _grey(values: torch.Tensor) -> torch.Tensor:
    """(n, 1, height, width)."""
    red, green, blue = values.unbind(dim=1)
    return (GREY[0] * red + GREY[1] * green + GREY[2] * blue)[:, None]


def _blended(values: torch.Tensor, others: torch.Tensor, factor: NDArray[np.float32]) -> torch.Tensor:
    share = _each(factor, values)
    return (share * values + (1 - share) * others).clamp_(0, 1)


def _noise(values: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Gaussian noise, each image's from a seed of its own, so that it does not depend on the images beside it."""
    fields = []
    for seed in draws.noise_seed.tolist():
        generator = torch.Generator(values.device)
        generator.manual_seed(seed)
        fields.append(torch.randn(values.shape[1:], generator=generator, device=values.device))
    return torch.stack(fields) * _each(draws.noise, values)


def _inside(rectangles: NDArray[np.float32], values: torch.Tensor) -> torch.Tensor:
    """(n, 1, height, width) bool: the pixel's centre is in the image's rectangle."""
    top, left, height, width = torch.from_numpy(rectangles).to(values.device).T[:, :, None]
    rows, columns = ((torch.arange(size, device=values.device) + 0.5) / size for size in values.shape[2:])
    tall, wide = (rows >= top) & (rows < top + height), (columns >= left) & (columns < left + width)
    inside: torch.Tensor = tall[:, :, None] & wide[:, None, :]
    return inside[:, None]


def _rectangles(numbers: NDArray[np.float64], share: float) -> NDArray[np.float32]:
    """(n, 4) from (n, 5) numbers in [0, 1): whether, the area, the ratio (log-uniform), and where."""
    area = ERASED_AREA[0] + numbers[:, 1] * (ERASED_AREA[1] - ERASED_AREA[0])
    ratio = np.exp((2 * numbers[:, 2] - 1) * math.log(ERASED_RATIO))
    height, width = np.sqrt(area * ratio), np.sqrt(area / ratio)  # below 1 for every area and ratio drawn
    found = np.stack([numbers[:, 3] * (1 - height), numbers[:, 4] * (1 - width), height, width], axis=1)
    return np.where(numbers[:, :1] < share, found, 0).astype(np.float32)
