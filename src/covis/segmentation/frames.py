"""From a photograph to a network's input, and from what comes out back to the photograph's own pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.pixels import check_size, decode

Fit: TypeAlias = Literal["stretch", "pad"]
"""How a photograph fills the network's input. "stretch": both sides are resized, the aspect ratio is not kept. "pad": it is kept; the
photograph stands at the upper left, and the rest is grey."""

LARGEST = 255
"""The largest number that a map of 8 bits holds; most numberings call it unlabelled."""

_BAND = 1 << 25  # values of a band of rows of scores that is resized at once: 128 MB


@dataclass(frozen=True)
class Frame:
    """A network's input of one size, and how a photograph fills it.

    Attributes:
        height: pixels.
        width: pixels.
        fit: "stretch" or "pad".
        grey: of "pad": the value of what the photograph does not fill, in [0, 255].

    Raises:
        InvalidInputError: the size is no positive number, or there is no such way to fill it.

    >>> frame = Frame(4, 4, fit="pad")
    >>> frame.extent(2, 4), frame.filled(np.full((2, 4, 3), 9, dtype=np.uint8))[:, 0, 0].tolist()
    ((0.5, 1.0), [9, 9, 127, 127])
    """

    height: int
    width: int
    fit: Fit = "stretch"
    grey: int = 127

    def __post_init__(self) -> None:
        check_size(self.height, self.width, "pil")
        if self.fit not in get_args(Fit):
            raise InvalidInputError(f"The way to fill a network's input must be one of {', '.join(get_args(Fit))}; got {self.fit!r}.")

    def filled(self, photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 to (height, width, 3), by Pillow's antialiased bilinear filter."""
        rows, columns = self._occupied(*photograph.shape[:2])
        resized = decode(photograph, height=rows, width=columns).transpose(1, 2, 0)
        if (rows, columns) == (self.height, self.width):
            return np.ascontiguousarray(resized)
        whole = np.full((self.height, self.width, 3), self.grey, dtype=np.uint8)
        whole[:rows, :columns] = resized
        return whole

    def extent(self, height: int, width: int) -> tuple[float, float]:
        """Which share of the input's rows and columns a photograph of this size fills."""
        rows, columns = self._occupied(height, width)
        return rows / self.height, columns / self.width

    def _occupied(self, height: int, width: int) -> tuple[int, int]:
        if self.fit == "stretch":
            return self.height, self.width
        scale = min(self.height / height, self.width / width)
        return min(self.height, max(1, round(height * scale))), min(self.width, max(1, round(width * scale)))


def best_numbers(scores: torch.Tensor, height: int, width: int, *, extent: tuple[float, float] = (1.0, 1.0)) -> NDArray[np.uint8]:
    """The class with the largest score at each pixel of a photograph; scores are resized first, bilinearly, and compared then.

    The resizing is that of `torch.nn.functional.interpolate(align_corners=False)`, in bands of rows: the scores of 150
    classes at every pixel of a photograph of 12 megapixels would take 7 GB. Of equal scores the first class wins.

    Args:
        scores: (C, h, w) of any type of numbers, C <= 256.
        height: pixels of the photograph.
        width: pixels of the photograph.
        extent: the share of the scores' rows and columns that is the photograph (`Frame.extent`).

    Returns:
        (height, width) uint8.

    Raises:
        InvalidInputError: the scores are no such volume, or one is NaN.

    >>> best_numbers(torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]]), 1, 4)
    array([[0, 0, 1, 1]], dtype=uint8)
    """
    if scores.ndim != 3 or not 1 <= scores.shape[0] <= LARGEST + 1 or not scores.numel():
        raise InvalidInputError(f"Scores must be (classes, height, width) of at most {LARGEST + 1} classes; got {tuple(scores.shape)}.")
    if scores.is_floating_point() and not bool(torch.isfinite(scores).all()):
        raise InvalidInputError("A segmentation network must give finite scores; it gave a NaN or infinity. Are its weights whole?")
    whole = scores.detach().to("cpu", torch.float32)
    left, right, part = _neighbours(width, whole.shape[2], extent[1])
    whole = torch.lerp(whole[:, :, left], whole[:, :, right], part)
    above, below, share = _neighbours(height, whole.shape[1], extent[0])
    step = max(1, _BAND // (whole.shape[0] * width))
    found = np.empty((height, width), dtype=np.uint8)
    for start in range(0, height, step):
        rows = slice(start, start + step)
        band = torch.lerp(whole[:, above[rows]], whole[:, below[rows]], share[rows, None])
        found[rows] = band.argmax(dim=0).to(torch.uint8).numpy()
    return found


def nearest_numbers(
    numbers: NDArray[np.integer], height: int, width: int, *, extent: tuple[float, float] = (1.0, 1.0)
) -> NDArray[np.uint8]:
    """A map of class numbers at a photograph's size: each pixel has the number of the nearest.

    Args:
        numbers: (h, w) of whole numbers from 0 to 255.
        height: pixels of the photograph.
        width: pixels of the photograph.
        extent: the share of the map's rows and columns that is the photograph (`Frame.extent`).

    Returns:
        (height, width) uint8.

    Raises:
        InvalidInputError: the numbers are none, or leave the range.

    >>> nearest_numbers(np.array([[3, 7]]), 1, 4)
    array([[3, 3, 7, 7]], dtype=uint8)
    """
    if numbers.ndim != 2 or not numbers.size or not np.issubdtype(numbers.dtype, np.integer):
        raise InvalidInputError(f"A map must be (height, width) of whole numbers; got {numbers.dtype} {numbers.shape}.")
    if numbers.min() < 0 or numbers.max() > LARGEST:
        raise InvalidInputError(
            f"Class numbers must be from 0 to {LARGEST}; the network gave {int(numbers.min())} to {int(numbers.max())}."
        )
    rows, columns = (_nearest(*sizes) for sizes in ((height, numbers.shape[0], extent[0]), (width, numbers.shape[1], extent[1])))
    return numbers[rows[:, None], columns[None]].astype(np.uint8)


def _places(count: int, there: int, share: float) -> NDArray[np.float64]:
    """Where the centres of `count` pixels lie among the first `share` of `there` pixels, in units of those."""
    return (np.arange(count, dtype=np.float64) + 0.5) * np.float64(there * share / count)


def _nearest(count: int, there: int, share: float) -> NDArray[np.int64]:
    return np.minimum(_places(count, there, share).astype(np.int64), there - 1)


def _neighbours(count: int, there: int, share: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The two pixels that each one lies between, and how far it is from the first."""
    places = np.clip(_places(count, there, share) - 0.5, 0, there - 1)
    first = np.floor(places).astype(np.int64)
    return (
        torch.from_numpy(first),
        torch.from_numpy(np.minimum(first + 1, there - 1)),
        torch.from_numpy((places - first).astype(np.float32)),
    )
