"""The exact index."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from covis.indexes.engine import Found
from covis.indexes.nearest import nearest
from covis.indexes.stored import StoredIndex


class ExactIndex(StoredIndex):
    """Exact search by Euclidean distance, straight from the descriptors' memory maps.

    >>> from covis.descriptors import Descriptors
    >>> index = ExactIndex()
    >>> index.add(Descriptors(np.eye(3, dtype=np.float32), ("a", "b", "c"), model="none"))
    >>> found = index.search(Descriptors(np.float32([[0.1, 0.9, 0.0]]), ("q",), model="none"), k=2)
    >>> [found.database_names[row] for row in found.rows[0]]
    ['b', 'a']
    """

    kind: ClassVar[str] = "exact"

    def nearest(self, queries: NDArray[np.floating[Any]], k: int, allowed: NDArray[np.bool_] | None) -> Found:
        """(q, min(k, allowed)) squared distances and rows of `shards`, best first."""
        return nearest(self.shards, queries, k, allowed=allowed)
