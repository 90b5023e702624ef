"""Encoders: maps of class numbers become a network's input channels, on the device where the network is."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from covis.semantics.encodings import Encoding


class LabelEncoder(nn.Module):
    """One channel a class or cluster, its weight where the map shows it and 0 elsewhere: StructVPR's encoding, step 3.

    It has nothing to learn and nothing to store: it is made from the settings.

    Args:
        encoding: which channel each number belongs to, and the channels' weights.

    >>> from covis.semantics.encodings import encoding
    >>> from covis.settings import EncodingSettings
    >>> encoder = LabelEncoder(encoding(EncodingSettings("cityscapes-train")))
    >>> encoder(torch.tensor([[[[2, 10]]]], dtype=torch.uint8))[0, :, 0, :].tolist()  # a building and the sky
    [[2.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    """

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        count = len(encoding)
        table = np.zeros((256, count), dtype=np.float32)
        shown = np.flatnonzero(encoding.lookup >= 0)
        table[shown, encoding.lookup[shown]] = 1
        self.table: torch.Tensor
        self.weights: torch.Tensor
        self.register_buffer("table", torch.from_numpy(table), persistent=False)
        self.register_buffer(
            "weights", torch.from_numpy(np.asarray(encoding.weights, dtype=np.float32)).reshape(count, 1, 1), persistent=False
        )

    def masks(self, numbers: torch.Tensor) -> torch.Tensor:
        """(B, 1, height, width) uint8 class numbers to (B, C, height, width), 1 where a pixel is of the channel, else 0."""
        return self.table[numbers[:, 0].long()].permute(0, 3, 1, 2)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """(B, 1, height, width) uint8 class numbers to (B, C, height, width), the channel's weight where a pixel is of it, else 0."""
        return self.weighted(self.masks(numbers))

    def weighted(self, masks: torch.Tensor) -> torch.Tensor:
        """What `masks` gives, each channel times its weight: what `forward` gives of the same numbers."""
        return masks * self.weights
