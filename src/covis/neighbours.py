"""Pairs of near points, a block at a time: what keeps labels and radius protocols from ever making a dense matrix."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

T = TypeVar("T")
CHUNK = 65_536


class Neighbours:
    """The database points within a radius of each query point, found by a k-d tree.

    For the tree, coordinates are taken relative to the database's centre: a UTM northing of millions of metres would cost it seven
    digits. What lies near the radius is decided by the difference of the coordinates as they are.

    Args:
        queries: (q, 2) metres.
        database: (d, 2) metres, d >= 1.
        within: metres (inclusive), one number or (q,).
        exact: decide near the radius; false: pairs a hair too far may come too, a quarter faster.

    >>> near = Neighbours([[0.0, 0.0], [9.0, 0.0]], [[3.0, 4.0], [10.0, 0.0]], 5.0)
    >>> [(row.tolist(), column.tolist()) for row, column in map(near.pairs, near.blocks(10))]
    [([0, 1], [0, 1])]
    """

    def __init__(self, queries: ArrayLike, database: ArrayLike, within: ArrayLike, *, exact: bool = True) -> None:
        self.queries, self.database = np.asarray(queries, dtype=np.float64), np.asarray(database, dtype=np.float64)
        self.within = np.broadcast_to(np.asarray(within, dtype=np.float64), (len(self.queries),))
        self.exact = exact
        self.origin = self.database.mean(axis=0)
        self.tree = cKDTree(self.database - self.origin)

    def blocks(self, size: int) -> Iterator[NDArray[np.int64]]:
        """Rows of queries that have about `size` neighbours together."""
        for start in range(0, len(self.queries), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(self.queries)))
            found = np.cumsum(self.tree.query_ball_point(*self._ball(rows), return_length=True))
            yield from (part for part in np.split(rows, np.flatnonzero(np.diff(found // size)) + 1) if part.size)

    def pairs(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(query rows, database rows), ascending, of the neighbours of these queries."""
        listed = self.tree.query_ball_point(*self._ball(rows), return_sorted=True)
        counts = np.fromiter(map(len, listed), dtype=np.int64, count=len(rows))
        row = np.repeat(rows, counts)
        column = np.fromiter(chain.from_iterable(listed), dtype=np.int64, count=int(counts.sum()))
        if not self.exact:
            return row, column
        near = ((self.queries[row] - self.database[column]) ** 2).sum(axis=1) <= self.within[row] ** 2
        return row[near], column[near]

    def _ball(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.queries[rows] - self.origin, self.within[rows] * (1 + 1e-9) + 1e-6

    def distances(self, row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.float64]:
        """(p,) metres between query `row` and database image `column`."""
        gap = self.queries[row] - self.database[column]
        return np.asarray(np.hypot(gap[:, 0], gap[:, 1]))

    def each(self, work: Callable[[NDArray[np.int64]], T], *, block: int, workers: int | None = None) -> list[T]:
        """What `work` makes of each block of queries, in order; the blocks are shared among threads (default: one a core)."""
        with ThreadPoolExecutor(workers or cores()) as pool:
            return list(pool.map(work, self.blocks(block)))


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
