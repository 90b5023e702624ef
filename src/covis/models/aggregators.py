"""Aggregators: from feature maps to one vector an image.

An aggregator is `(channels, *, …) -> Module` with `.dim`; it is called with `Features` and returns (B, dim). A built-in
is a class here and a line in `AGGREGATORS`; one's own is `package.module:Class` in the recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from covis.errors import InvalidInputError


class Features(NamedTuple):
    """What a backbone gives.

    Attributes:
        maps: feature maps (B, channels, height, width), the last one last.
        token: (B, channels), the class token of a transformer that has one.
    """

    maps: tuple[torch.Tensor, ...]
    token: torch.Tensor | None = None


class GeM(nn.Module):
    """Generalised mean over the positions of the last map: mean(clamp(x, eps)^p)^(1/p), p learnable.

    p = 1 is the average, p to infinity the maximum. Radenović, Tolias, Chum: "Fine-tuning CNN Image Retrieval with No
    Human Annotation", TPAMI 2019.

    Args:
        channels: of the maps that the backbone gives.
        p: the exponent at the start, > 0.
        eps: activations below it count as it, > 0.

    Raises:
        InvalidInputError: `p` or `eps` is not above 0.

    >>> pool = GeM((2,), p=1.0)
    >>> pool.dim, pool(Features((torch.tensor([[[[1.0, 3.0]], [[2.0, 2.0]]]]),))).tolist()
    (2, [[2.0, 2.0]])
    """

    def __init__(self, channels: tuple[int, ...], *, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        if not p > 0 or not eps > 0:
            raise InvalidInputError(f"GeM's exponent and eps must be above 0; got p={p}, eps={eps}.")
        self.dim = channels[-1]
        self.eps = eps
        self.p = nn.Parameter(torch.tensor(float(p)))

    def forward(self, features: Features) -> torch.Tensor:
        """(B, channels) from the last map."""
        powers = features.maps[-1].clamp(min=self.eps).pow(self.p)
        return powers.mean(dim=(-2, -1)).pow(1 / self.p)


AGGREGATORS: dict[str, Callable[..., Any]] = {"gem": GeM}
"""Name -> aggregator: `(channels: tuple[int, ...], *, …) -> Module` with `.dim`."""
