"""Whether a model's descriptor of an image depends on the images that it is described with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError

if TYPE_CHECKING:  # torch is imported when a model is audited, and not for the other audits
    import torch

    from covis.models.describers import Describer
    from covis.pixels import ImageLike

TOLERANCE = 1e-5
"""Of a descriptor's length: sums in another order differ by less (1e-7 to 1e-6 in float32), statistics of a batch by far more."""


@dataclass(frozen=True, eq=False)
class BatchDependence:
    """Descriptors of a sample, made in several ways, against those made one image at a time.

    Attributes:
        images: how many.
        engine: of the model.
        ways: a row each: "way" (words), "batch", "largest" (of |difference| of a value), "relative" (the largest distance between the
            two descriptors of an image, by the length of the one made alone), "neighbours" (images whose nearest other image changed).
        tolerance: of "relative".
    """

    images: int
    engine: str
    ways: Sequence[Mapping[str, Any]]
    tolerance: float

    @property
    def relative(self) -> float:
        """The largest relative difference of all ways."""
        return max((float(way["relative"]) for way in self.ways), default=0.0)

    @property
    def depends(self) -> bool:
        """Whether any way differs by more than the tolerance."""
        return not self.relative <= self.tolerance  # NaN depends

    @property
    def verdict(self) -> str:
        """In words.

        >>> BatchDependence(2, "torch", [{"relative": 3e-7}], 1e-5).verdict
        'equal to 3e-07 of their length, however the images are batched'
        """
        if not self.depends:
            return f"equal to {self.relative:.1g} of their length, however the images are batched"
        if float(self.ways[0]["relative"]) > self.tolerance:
            return f"not repeatable: described twice alone, descriptors differ by {float(self.ways[0]['relative']):.2g} of their length"
        changed = max(int(way["neighbours"]) for way in self.ways)
        return (
            f"depends on the batch: descriptors differ by up to {self.relative:.2g} of their length, and {changed} of {self.images} images "
            "have another nearest neighbour"
        )

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "images": self.images,
            "engine": self.engine,
            "depends": self.depends,
            "verdict": self.verdict,
            "tolerance": self.tolerance,
            "ways": [dict(way) for way in self.ways],
        }


def batch_dependence(
    model: Describer, images: Sequence[ImageLike], *, sizes: Sequence[int] = (2, 8, 32), tolerance: float = TOLERANCE, seed: int = 0
) -> BatchDependence:
    """Describe a sample alone, alone again, in batches of several sizes, and in batches of other companions; compare.

    A BatchNorm that takes the statistics of the batch, a scale of int8 that is taken from the batch, or a layer that mixes images make a
    score depend on the order of the files and on the batch. A module of torch has its weights and buffers as they were afterwards.

    Args:
        model: any that `covis.open_model` opens.
        images: at least 2, of the kind that the model reads (photographs or label maps), decoded once and kept in memory: some dozens.
        sizes: images in a batch; those beyond the sample are one batch of all.
        tolerance: see `TOLERANCE`.
        seed: of the other companions.

    Raises:
        InvalidInputError: there are fewer than 2 images, a size is below 2, or a descriptor is not finite.
        MissingFileError: a file is not there.
        DamagedFileError: a file does not decode.

    >>> from torch import nn
    >>> from covis.models.foreign import ForeignModel
    >>> from covis.settings import ModelSettings
    >>> means = ForeignModel(nn.Sequential(nn.AvgPool2d(8), nn.Flatten()), name="means", settings=ModelSettings(height=16, width=8))
    >>> batch_dependence(means, list(np.random.default_rng(0).integers(0, 256, (4, 16, 8, 3), dtype=np.uint8))).depends
    False
    """
    if len(images) < 2 or any(size < 2 for size in sizes):
        raise InvalidInputError(f"At least 2 images, in batches of at least 2, must be compared; got {len(images)} and {list(sizes)}.")
    pixels = _decoded(model, images)
    count, random = len(pixels), np.random.default_rng(seed)
    in_order, other = np.arange(count), random.permutation(count)
    with _as_it_was(model):
        alone = _described(model, pixels, in_order, 1)
        ways = [_compared("one at a time, again", 1, alone, _described(model, pixels, in_order, 1))]
        for size in sorted({min(size, count) for size in sizes}):
            for said, order in (("in order", in_order), ("in another order", other)):
                ways.append(_compared(f"batches of {size}, {said}", size, alone, _described(model, pixels, order, size)))
    return BatchDependence(count, model.engine, ways, tolerance)


def _decoded(model: Describer, images: Sequence[ImageLike]) -> torch.Tensor:
    import torch

    from covis.pixels import decode

    return torch.from_numpy(np.stack([decode(one, height=model.height, width=model.width, resize=model.resize) for one in images]))


def _described(model: Describer, pixels: torch.Tensor, order: NDArray[np.int64], batch: int) -> NDArray[np.float64]:
    """(n, d) in the order of the pixels."""
    found = np.empty((len(pixels), model.dim))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        block = model.describe_pixels(pixels[rows])
        if block.shape != (len(rows), model.dim) or not np.isfinite(block).all():
            raise InvalidInputError(
                f"A model must give ({len(rows)}, {model.dim}) finite numbers for {len(rows)} images; it gave {block.shape}, "
                f"{int((~np.isfinite(block)).sum())} of them not finite."
            )
        found[rows] = block
    return found


def _compared(way: str, batch: int, alone: NDArray[np.float64], together: NDArray[np.float64]) -> dict[str, Any]:
    apart = np.linalg.norm(alone - together, axis=1)
    lengths = np.linalg.norm(alone, axis=1)
    relative = np.divide(apart, lengths, out=np.where(apart > 0, np.inf, 0.0), where=lengths > 0)
    return {
        "way": way,
        "batch": batch,
        "largest": float(np.abs(alone - together).max(initial=0.0)),
        "relative": float(min(relative.max(initial=0.0), np.finfo(np.float64).max)),
        "neighbours": int((_neighbour(alone) != _neighbour(together)).sum()),
    }


def _neighbour(vectors: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n,) the nearest other."""
    squared = ((vectors[:, None] - vectors[None]) ** 2).sum(axis=2)
    np.fill_diagonal(squared, np.inf)
    return np.asarray(squared.argmin(axis=1))


@contextmanager
def _as_it_was(model: Describer) -> Iterator[None]:
    """A module's weights and buffers, running statistics among them, are put back."""
    from torch import nn

    if not isinstance(model, nn.Module):
        yield
        return
    kept = {name: value.detach().clone() for name, value in [*model.named_parameters(), *model.named_buffers()]}
    try:
        yield
    finally:
        import torch

        with torch.no_grad():
            for name, value in [*model.named_parameters(), *model.named_buffers()]:
                if name in kept and kept[name].shape == value.shape:
                    value.copy_(kept[name])
