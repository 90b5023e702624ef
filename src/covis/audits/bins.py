"""Similarities by bins of distance or of turn, counted in little memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.labels import TIE

LEVELS = 1000
"""Similarities are counted to a thousandth, from which quantiles are read."""


class Bins:
    """Counts of similarities in thousandths, by bins of something else; a bin holds its upper edge, the first both.

    >>> bins = Bins((0.0, 5.0, 10.0), 0.5)
    >>> bins.add(np.array([0.0, 5.0, 5.1]), np.array([1.0, 0.5, 0.0]))
    >>> [(row["pairs"], row.get("mean"), row.get("positive")) for row in bins.rows()]
    [(2, 0.75, 1.0), (1, 0.0, 0.0)]
    """

    def __init__(self, edges: Sequence[float], threshold: float) -> None:
        self.edges = np.asarray(edges)
        self.threshold = threshold
        self.counts = np.zeros((len(edges) - 1, LEVELS + 1), dtype=np.int64)
        self.sums = np.zeros(len(edges) - 1)
        self.positive = np.zeros(len(edges) - 1, dtype=np.int64)

    def add(self, values: NDArray[np.float64], similarity: NDArray[np.float64]) -> None:
        """Count pairs: (n,) of what is binned, and their similarities."""
        places = np.clip(np.searchsorted(self.edges, values, side="left") - 1, 0, len(self.edges) - 2)  # the upper edge is in
        levels = np.ceil(similarity * LEVELS - TIE).astype(np.int64).clip(0, LEVELS)
        self.counts += np.bincount(places * (LEVELS + 1) + levels, minlength=self.counts.size).reshape(self.counts.shape)
        self.sums += np.bincount(places, weights=similarity, minlength=len(self.sums))
        self.positive += np.bincount(places[similarity >= self.threshold - TIE], minlength=len(self.positive))

    def rows(self) -> list[dict[str, Any]]:
        """A mapping a bin; none where nothing was counted."""
        if not self.counts.any():
            return []
        found = []
        for place, counts in enumerate(self.counts):
            count = int(counts.sum())
            to = float(self.edges[place + 1])
            row: dict[str, Any] = {"from": float(self.edges[place]), "to": to if np.isfinite(to) else None, "pairs": count}
            if count:
                reached = np.cumsum(counts)
                row["mean"] = round(float(self.sums[place]) / count, 6)
                row |= {f"q{100 * q:02.0f}": int(np.searchsorted(reached, q * count)) / LEVELS for q in (0.05, 0.5, 0.95)}
                row["positive"] = round(int(self.positive[place]) / count, 6)
            found.append(row)
        return found
