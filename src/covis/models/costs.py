"""Costs: what a network takes for one image, counted and not timed."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from covis.models.place import PlaceModel, evaluating
from covis.pixels import channels_of


@dataclass(frozen=True)
class Cost:
    """What describing one image takes; two networks of equal cost differ in the values of their weights alone, as far as this sees.

    Attributes:
        parameters: numbers that were or could be learnt; buffers (BatchNorm's statistics) are not counted.
        flops: floating point operations of matrix products and convolutions, a multiplication and an addition being two. What
            torch counts: norms, activations and pooling are left out.
        dim: dimensions of the descriptor.
        image: (channels, height, width) of what it reads, uint8.
        signature: the arguments of `forward`.

    >>> print(Cost(parameters=2_223_872, flops=600_000_000, dim=448, image=(3, 240, 320), signature="(pixels)"))
    2.224 million parameters, 0.600 GFLOP an image of 3 x 240 x 320, 448-D, forward(pixels)
    """

    parameters: int
    flops: int
    dim: int
    image: tuple[int, int, int]
    signature: str

    def __str__(self) -> str:
        size = " x ".join(map(str, self.image))
        counted = f"{self.parameters / 1e6:.3f} million parameters, {self.flops / 1e9:.3f} GFLOP"
        return f"{counted} an image of {size}, {self.dim}-D, forward{self.signature}"


def cost(model: PlaceModel) -> Cost:
    """Count what a network takes for one image of its size, where its weights are; nothing of it changes.

    >>> from covis.settings import ModelSettings
    >>> cost(PlaceModel(ModelSettings(backbone="resnet10t", height=32, width=32))).image
    (3, 32, 32)
    """
    image = (channels_of(model.resize), model.settings.height, model.settings.width)
    pixels = torch.zeros((1, *image), dtype=torch.uint8, device=model.device)
    with evaluating(model), torch.no_grad(), FlopCounterMode(display=False) as counter:
        described = model(pixels)
    return Cost(
        parameters=sum(one.numel() for one in model.parameters()),
        flops=int(counter.get_total_flops()),
        dim=int(described.shape[1]),
        image=image,
        signature=f"({', '.join(inspect.signature(model.forward).parameters)})",
    )
