"""What the tests of indexes share: descriptors of places, and options of approximate indexes with which they miss something."""

from __future__ import annotations

import numpy as np

from covis.descriptors import Descriptors

CHEAP = {
    "prefix": {"dims": 8, "rescore": 30},
    "pq": {"rescore": 30},
    "ivf-pq": {"lists": 16, "probes": 2, "rescore": 30},
    "hnsw": {"links": 4, "build_ef": 10, "ef": 8, "rescore": 20},
    "sq": {"rescore": 20},
    "binary": {"rescore": 30},
}
"""Options that miss some neighbours, so that a test can see it."""


def places(count: int, *, dim: int = 32, seed: int = 0, side: str = "d") -> Descriptors:
    """Descriptors of places with ten images each."""
    random = np.random.default_rng(seed)
    spectrum = (1 + np.arange(dim)) ** -0.5
    centres = np.random.default_rng(99).normal(size=(200, dim)) * spectrum
    vectors = centres[random.integers(0, 200, count)] + 0.7 * random.normal(size=(count, dim)) * spectrum
    return Descriptors(vectors.astype(np.float32), tuple(f"{side}{i}" for i in range(count)), "m")
