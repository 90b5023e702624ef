"""What a batch shows, for the log and for messages: sums over its parts, and its items in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import distributed

from covis.images import Scene
from covis.training.feeds import Part


@dataclass(frozen=True, eq=False)
class Seen:
    """What the loss saw of some items, without gradients.

    Attributes:
        a: (P, D) descriptors of the queries.
        b: (P, D) or (P, M, D) of their database images.
        similarity: (P,) or (P, M).
        weight: (P,).
        losses: (P,).
        floor: like `similarity`, the least value that the loss could have.
        guided: (P,) what a guide adds to `losses`; 0 where there is none.
    """

    a: torch.Tensor
    b: torch.Tensor
    similarity: torch.Tensor
    weight: torch.Tensor
    losses: torch.Tensor
    floor: torch.Tensor
    guided: torch.Tensor


class Tally:
    """The means of a batch, from those of its parts, over all processes."""

    def __init__(self) -> None:
        self._sums: list[torch.Tensor] = []

    def add(self, seen: Seen) -> None:
        """Take in some items."""
        distance = torch.linalg.vector_norm((seen.a if seen.b.ndim == 2 else seen.a[:, None]) - seen.b, dim=-1)
        unrelated = seen.similarity == 0
        items, entries = (torch.tensor(float(one.numel()), device=seen.a.device) for one in (seen.losses, seen.similarity))
        sums = (items, entries, (seen.weight * (seen.losses + seen.guided)).sum(), seen.floor.sum(), (seen.losses == 0).sum())
        added = (seen.weight * seen.guided).sum()
        self._sums.append(torch.stack([one.to(seen.a) for one in (*sums, distance[unrelated].sum(), unrelated.sum(), added)]))

    def means(self) -> dict[str, float]:
        """Loss, floor, null, spread and guided of the whole batch.

        Loss is weighted, as it is learnt from; guided is what of it a guide added; null is the share of losses that are exactly 0,
        before a guide; spread is the mean distance of images of similarity 0, NaN where there are none. Where processes train
        together, all must ask for it.
        """
        total = torch.stack(self._sums).sum(dim=0)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(total)
        items, entries, loss, floor, null, apart, unrelated, added = total.tolist()
        spread = apart / unrelated if unrelated else float("nan")
        return {"loss": loss / items, "floor": floor / entries, "null": null / items, "spread": spread, "guided": added / items}


def in_words(scenes: Sequence[Scene], part: Part, row: int) -> str:
    """A pair, or a list, of a part, by its files."""
    pairs = part.pairs
    scene = scenes[int(pairs.scene[row])]
    similarity, database = np.atleast_1d(pairs.similarity[row]), np.atleast_1d(pairs.database[row])
    paths = ", ".join(map(str, [scene.queries.path(int(pairs.query[row])), *(scene.database.path(int(one)) for one in database)]))
    numbers = ", ".join(f"{one:.3f}" for one in similarity)
    return f"the {'pair' if len(database) == 1 else 'list'} {paths} (similarity {numbers})"
