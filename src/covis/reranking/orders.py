"""The first results in the order of their inliers: a pure function of arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def reorder(rows: ArrayLike, distances: ArrayLike, inliers: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Order the first results of each query by their inliers, most first; equal ones stay in the order they had.

    What has none keeps its order behind, and what lies beyond the inliers' columns keeps its place. A row of -1, no image of the
    database, cannot be looked at and keeps its rank.

    The distance of a result with inliers is minus their number; all others keep their own, so that over all queries what is
    verified comes first, by its inliers, and the rest follows by distance. A -1 among what moved has no known distance (NaN).

    Args:
        rows: (q, k) database rows, -1 for none.
        distances: (q, k), as `Rankings` has them.
        inliers: (q, t) whole numbers, t <= k; 0 is not verified.

    Returns:
        (q, k) int64 rows and (q, k) float32 distances.

    >>> rows, distances = reorder([[7, 8, 9]], [[0.1, 0.2, 0.3]], [[0, 12]])
    >>> rows.tolist(), distances.round(2).tolist()
    ([[8, 7, 9]], [[-12.0, 0.10000000149011612, 0.30000001192092896]])
    """
    new_rows, new_distances = np.array(rows, dtype=np.int64), np.array(distances, dtype=np.float32)
    counts = np.asarray(inliers, dtype=np.int64)
    for query in np.flatnonzero((counts > 0).any(axis=1)):
        first = new_rows[query, : counts.shape[1]]
        free = np.flatnonzero(first >= 0)
        picked = free[np.argsort(-counts[query, free], kind="stable")]
        found = counts[query, picked]
        values = np.where(found > 0, -found, new_distances[query, picked])
        new_rows[query, free] = first[picked]
        fixed = np.flatnonzero(first < 0)
        new_distances[query, free] = values
        new_distances[query, fixed[fixed < free[-1]]] = np.nan
    return new_rows, new_distances
