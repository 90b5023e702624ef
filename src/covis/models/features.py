"""Features: what a backbone hands to an aggregator."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Features(NamedTuple):
    """What a backbone gives.

    Attributes:
        maps: feature maps (B, channels, height, width), the last one last.
        token: (B, channels), the class token of a transformer that has one.
        masks: (B, C, H, W) float, in [0, 1], which class each pixel of a label map shows, for a network that reads label maps
            and an aggregator that says `needs_masks`; zero in all channels where it shows none. Otherwise there is none.
    """

    maps: tuple[torch.Tensor, ...]
    token: torch.Tensor | None = None
    masks: torch.Tensor | None = None
