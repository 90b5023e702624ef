"""What the methods share: pixels of an image, its blank twin, and a model that is left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from covis.models.describers import Describer, check_reads_photographs
from covis.models.place import evaluating
from covis.pixels import ImageLike, decode


def check_attended(model: Describer) -> None:
    """Raise where a model reads label maps: class numbers have no mean colour to cover a place with, and no photograph lies below.

    Raises:
        InvalidInputError: it does.
    """
    check_reads_photographs(model, what="Attention", instead="Look at the student that it taught, RUN/train/model.")


def as_pixels(model: Describer, image: ImageLike) -> torch.Tensor:
    """(1, 3, height, width) uint8, as the model expects it.

    Raises:
        InvalidInputError: the model reads label maps.
    """
    check_attended(model)
    pixels = decode(image, height=model.height, width=model.width, resize=model.resize)
    return torch.from_numpy(pixels.copy())[None]


def mean_colour(pixels: torch.Tensor) -> torch.Tensor:
    """(1, 3, height, width) uint8 to its mean colour, (1, 3, 1, 1) uint8, rounded."""
    return pixels.double().mean(dim=(-2, -1), keepdim=True).round().to(torch.uint8)


@contextmanager
def working(model: nn.Module) -> Iterator[None]:
    """Eval mode, and gradients to be had even if the caller has switched them off; both as before afterwards."""
    with evaluating(model), torch.inference_mode(mode=False), torch.enable_grad():
        yield
