"""Guides: what may draw a network somewhere while it learns, besides its loss; a teacher does (`covis.structure.distillation`)."""

from __future__ import annotations

from typing import Protocol

import torch

from covis.models.place import PlaceModel
from covis.pairs import Pairs


class Guide(Protocol):
    """Adds to the loss of each item; it is sent to every process that trains.

    One with the attribute `upright` true knows the images as they lie on the disk: training must not mirror them.
    """

    @property
    def digest(self) -> str:
        """A hash of all that decides what it adds."""

    def attach(self, model: PlaceModel) -> None:
        """Look at the network that is about to learn; called once, before the first step of a process.

        Raises:
            InvalidInputError: it cannot guide this network.
        """

    def loss(self, pairs: Pairs, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """What is added to the loss of each item.

        Args:
            pairs: the P items.
            a: (P, D) float32 descriptors of the queries.
            b: (P, D), or (P, 1 + N, D) of lists, of the database images.

        Returns:
            (P,) one value an item, weighted already.
        """
