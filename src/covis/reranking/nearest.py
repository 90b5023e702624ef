"""Nearest neighbours that are each other's, and clearly nearer than the next: which local features match."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def mutual_nearest(distances: NDArray[np.floating[Any]], *, ratio: float = 1.0) -> NDArray[np.int64]:
    """The pairs that are each other's nearest, where the second nearest is clearly farther.

    A pair (i, j) is kept where j is the nearest of i, i the nearest of j, and d(i, j) < ratio × d(i, second nearest of i):
    the ratio test of Lowe (2004), from the first image to the second. Among equal distances the first counts. Where the second
    image has one feature alone there is no second nearest, and nothing is kept.

    Args:
        distances: (n, m), >= 0; of squared distances the ratio must be given squared.
        ratio: in (0, 1]; 1 leaves out exact ties alone.

    Returns:
        (p, 2) int64 rows and columns, by row.

    >>> mutual_nearest(np.array([[0.1, 0.9, 0.8], [0.7, 0.6, 0.65]]), ratio=0.8).tolist()
    [[0, 0]]
    """
    n, m = distances.shape
    if n == 0 or m < 2:
        return np.zeros((0, 2), dtype=np.int64)
    rows = np.arange(n)
    nearest = distances.argmin(axis=1)
    best = distances[rows, nearest]
    others = distances.copy()
    others[rows, nearest] = np.inf
    kept = (distances.argmin(axis=0)[nearest] == rows) & (best < ratio * others.min(axis=1))
    return np.column_stack([rows[kept], nearest[kept]]).astype(np.int64)


def squared_distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, m) squared Euclidean distances of unit vectors (n, d) and (m, d): 2 - 2 a·b, not below 0.

    >>> squared_distances(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)).tolist()
    [[0.0, 2.0], [2.0, 0.0]]
    """
    squared: NDArray[np.float32] = a @ b.T
    squared *= -2
    squared += 2
    return np.maximum(squared, 0, out=squared)
