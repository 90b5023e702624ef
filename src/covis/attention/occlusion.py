"""Occlusion: how much a descriptor changes, or a similarity falls, when a place of the image is covered."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from covis.attention.inputs import as_pixels, mean_colour
from covis.errors import InvalidInputError
from covis.models.describers import Describer
from covis.pixels import ImageLike

ROUNDING = 1e-6
"""A change of the cosine that is smaller comes from rounding, and counts as none."""


def occlusion_map(
    model: Describer,
    image: ImageLike,
    *,
    other: ImageLike | None = None,
    patch: int | None = None,
    stride: int | None = None,
    batch: int = 32,
) -> NDArray[np.float32]:
    """Cover the image with a square, here and there, and describe it each time.

    With d the descriptor of the whole image and d_j that of the image whose square j has the image's mean colour, square j
    has 1 - cos(d_j, d), or cos(d, o) - cos(d_j, o) where o is the other image's descriptor. A pixel has the mean of
    the squares that cover it, weighted by how near their centres are: 1 at the centre, falling linearly towards 0 beyond the edge, along
    rows times along columns. The squares begin at 0, `stride`, 2 `stride`, …, and the last one ends with the image. Zeiler, Fergus:
    "Visualizing and Understanding Convolutional Networks", ECCV 2014.

    Args:
        model: any that describes.
        image: a path, a uint8 array or a Pillow image.
        other: another, for what the two share.
        patch: pixels of the square's side, of the network's input; absent, a sixth of the shorter side (rounded down, at least 1).
        stride: pixels from one square to the next, at most `patch`; absent, half of it (rounded down, at least 1).
        batch: images that the network sees at once.

    Returns:
        (height, width) float32 at the size of the network's input; negative where covering makes two images more similar.

    Raises:
        InvalidInputError: patch, stride or batch is out of range.
        MissingFileError: a file is not there.
        DamagedFileError: a file does not decode.
    """
    size = model.height, model.width
    patch = max(1, min(size) // 6) if patch is None else patch
    stride = max(1, patch // 2) if stride is None else stride
    if not 1 <= stride <= patch <= min(size) or batch < 1:
        raise InvalidInputError(
            "Occlusion needs 1 <= stride <= patch <= the shorter side of the network's input, and a batch of at least 1; "
            f"got stride={stride}, patch={patch}, batch={batch} for {size[0]} x {size[1]} pixels."
        )
    pixels = as_pixels(model, image)
    whole = _unit(model.describe_pixels(pixels))
    towards = whole if other is None else _unit(model.describe_pixels(as_pixels(model, other)))
    corners = [(top, left) for top in _starts(size[0], patch, stride) for left in _starts(size[1], patch, stride)]
    cosines = _covered(model, pixels, corners, patch=patch, batch=batch) @ towards[0]
    changes = (whole @ towards[0]) - cosines
    changes[np.abs(changes) < ROUNDING] = 0
    return _mean_of_squares(changes, corners, patch=patch, size=size)


def _starts(length: int, patch: int, stride: int) -> list[int]:
    return [*range(0, length - patch, stride), length - patch]


def _covered(model: Describer, pixels: torch.Tensor, corners: list[tuple[int, int]], *, patch: int, batch: int) -> NDArray[np.float64]:
    """Unit descriptors of the image with each square covered, (squares, dim)."""
    colour, found = mean_colour(pixels)[0], []
    for start in range(0, len(corners), batch):
        some = corners[start : start + batch]
        images = pixels.repeat(len(some), 1, 1, 1)
        for row, (top, left) in enumerate(some):
            images[row, :, top : top + patch, left : left + patch] = colour
        found.append(_unit(model.describe_pixels(images)))
    return np.concatenate(found)


def _mean_of_squares(
    values: NDArray[np.float64], corners: list[tuple[int, int]], *, patch: int, size: tuple[int, int]
) -> NDArray[np.float32]:
    total, weights = np.zeros(size), np.zeros(size)
    tent = 1 - np.abs(np.arange(patch) - (patch - 1) / 2) / ((patch + 1) / 2)
    tent = tent[:, None] * tent
    for value, (top, left) in zip(values, corners, strict=True):
        square = np.s_[top : top + patch, left : left + patch]
        total[square] += value * tent
        weights[square] += tent
    return (total / weights).astype(np.float32)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return unit
