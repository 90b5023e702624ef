"""Pairs and triplets for training, drawn from Labels: across scenes, never a dense matrix, resumable at any batch."""

from __future__ import annotations

from collections.abc import Callable

from covis.pairs.batches import Pairs, Sampler
from covis.pairs.sampling import BinarySampler, GradedSampler, SoftNegativeFreeSampler
from covis.pairs.triplets import TripletSampler

__all__ = ["SAMPLERS", "BinarySampler", "GradedSampler", "Pairs", "Sampler", "SoftNegativeFreeSampler", "TripletSampler"]

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "binary": BinarySampler,
    "graded": GradedSampler,
    "soft-negative-free": SoftNegativeFreeSampler,
    "triplets": TripletSampler,
}
"""Name -> sampler: `(labels, *, batch, seed, describe=None, …) -> Iterator[Pairs]` with `state` and `restore`."""
