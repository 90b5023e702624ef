"""What describes images: a network of ours, anyone's, or an exported file. One contract for extraction, search and service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.pixels import ImageLike, Resize, decode_ahead
from covis.settings import ModelSettings


class Describer(Protocol):
    """Makes one vector of each image; near vectors mean the same place."""

    @property
    def dim(self) -> int:
        """Dimensions of a descriptor."""

    @property
    def digest(self) -> str:
        """A hash of all that decides a descriptor (16 hex digits); engines that differ by rounding alone have the same."""

    @property
    def engine(self) -> str:
        """What computes: "torch" or "onnx"."""

    @property
    def height(self) -> int:
        """Pixels of the network's input."""

    @property
    def width(self) -> int:
        """Pixels of the network's input."""

    @property
    def resize(self) -> Resize:
        """How images get there."""

    def describe_pixels(self, pixels: torch.Tensor) -> NDArray[np.float32]:
        """(B, 3, height, width) uint8 to (B, dim); a row does not depend on the others (to 1e-6)."""


class OfTorch:
    """What a describer of torch says of itself from its settings."""

    settings: ModelSettings

    @property
    def engine(self) -> str:
        """What computes."""
        return "torch"

    @property
    def height(self) -> int:
        """Pixels of the network's input."""
        return self.settings.height

    @property
    def width(self) -> int:
        """Pixels of the network's input."""
        return self.settings.width

    @property
    def resize(self) -> Resize:
        """How images get to that size."""
        return self.settings.resize


def check_reads_photographs(describer: Describer, *, what: str, instead: str) -> None:
    """Raise where a describer reads label maps and what is asked for is for photographs.

    Args:
        describer: any.
        what: what is asked for, as a sentence begins.
        instead: what to do, a sentence.

    Raises:
        InvalidInputError: it reads label maps (`resize` is "labels").
    """
    if describer.resize == "labels":
        raise InvalidInputError(f"{what} is for networks that read photographs; this one ({describer.digest}) reads label maps. {instead}")


def describe(describer: Describer, images: Sequence[ImageLike], *, batch: int = 32) -> NDArray[np.float32]:
    """Describe images; the images ahead are decoded meanwhile.

    Args:
        describer: any.
        images: n paths, uint8 arrays (height, width, 3) or (height, width), or Pillow images, of any size.
        batch: images that the network sees at once.

    Returns:
        (n, dim) float32.

    Raises:
        InvalidInputError: an image is none, or `batch` is less than 1.
        MissingFileError: a file is not there.
        DamagedFileError: a file does not decode.
    """
    if isinstance(images, str):
        raise InvalidInputError(f"describe takes a sequence of images; got the one path {images!r}. Put it in a list.")
    blocks = list(describe_blocks(describer, images, batch=batch))
    return np.concatenate(blocks) if blocks else np.zeros((0, describer.dim), dtype=np.float32)


def describe_blocks(describer: Describer, images: Sequence[ImageLike], *, batch: int = 32) -> Iterator[NDArray[np.float32]]:
    """What `describe` returns, `batch` rows at a time."""
    size = {"height": describer.height, "width": describer.width, "resize": describer.resize}
    for pixels in decode_ahead(images, batch=batch, **size):  # type: ignore[arg-type] # the keys are its own
        yield describer.describe_pixels(pixels)
