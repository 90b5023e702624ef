"""The search for near pairs, block by block, in memory that does not grow with the pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Found: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Rows, columns and distances of pairs."""
BLOCK = (256, 2048)
"""Hashes of both sides that are compared at once: 4 MB of pairs, which stay in a processor's cache."""


@dataclass(frozen=True, eq=False)
class Near:
    """Pairs that were found.

    Attributes:
        rows: (p,) int64, ascending.
        columns: (p,) int64.
        distances: (p,) bits, or whatever was compared.
        counts: (n,) and (m,) int64: partners of each row and of each column, before any cut.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    distances: NDArray[np.float64]
    counts: tuple[NDArray[np.int64], NDArray[np.int64]]

    @property
    def total(self) -> int:
        """Pairs in all; more than p where a row had more partners than were asked for."""
        return int(self.counts[0].sum())


def in_blocks(
    n: int,
    m: int,
    block: Callable[[slice, slice], Found],
    *,
    after: NDArray[np.int64] | None = None,
    most: int | None = None,
    shape: tuple[int, int] = BLOCK,
    weights: NDArray[np.int64] | None = None,
) -> Near:
    """What `block` finds in each block of an n x m table, put together; of each row the `most` nearest.

    Args:
        n: rows.
        m: columns.
        block: gives the pairs of some rows and columns, by row and then by column. The columns stay while the rows pass.
        after: (n,) ascending: the column behind which a row's partners stand; None: all count.
        most: partners of a row that are kept, of those equally near the first; None: all.
        shape: rows and columns of a block.
        weights: (n,) how often a row counts for its columns; None: once.
    """
    kept = _Kept(n, m, most, weights)
    for first in range(0, m, shape[1]):
        columns = slice(first, min(first + shape[1], m))
        for start in range(0, n, shape[0]):
            rows = slice(start, min(start + shape[0], n))
            if after is not None and columns.stop <= after[start] + 1:
                break  # of the rows below too
            row, column, distance = block(rows, columns)
            if after is not None and columns.start <= after[rows.stop - 1]:
                counts = column > after[row]
                row, column, distance = row[counts], column[counts], distance[counts]
            if len(row):
                kept.add(rows, columns, (row, column, distance))
    return kept.near()


class _Kept:
    """The pairs that are kept so far, and how many there were."""

    def __init__(self, n: int, m: int, most: int | None, weights: NDArray[np.int64] | None) -> None:
        self.most, self.weights = most, weights
        self.counts = np.zeros(n, dtype=np.int64), np.zeros(m, dtype=np.int64)
        self.limits = np.full(n, np.inf)
        """Of rows that have `most` partners, the distance of the last: what comes later must be nearer."""
        self.parts: dict[int, list[Found]] = {}

    def add(self, rows: slice, columns: slice, found: Found) -> None:
        row, column, _ = found
        self.counts[0][rows] += np.bincount(row - rows.start, minlength=rows.stop - rows.start)
        often = None if self.weights is None else self.weights[row]
        self.counts[1][columns] += np.bincount(column - columns.start, often, minlength=columns.stop - columns.start).astype(np.int64)
        parts = self.parts.setdefault(rows.start, [])
        if self.most is None:
            parts.append(found)
            return
        nearer = found[2] < self.limits[row]
        found = _fewer(found[0][nearer], found[1][nearer], found[2][nearer], self.most)
        if len(found[0]):
            found = _nearest(*joined([*parts, found]), self.most)
            parts[:] = [found]
            ends = np.flatnonzero(np.diff(found[0], append=-1))
            full = ends[np.diff(ends, prepend=-1) == self.most]
            self.limits[found[0][full]] = found[2][full]

    def near(self) -> Near:
        nothing = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
        blocks = [_nearest(*joined(parts), self.most) for _, parts in sorted(self.parts.items()) if parts]
        return Near(*joined([nothing, *blocks]), self.counts)


def joined(parts: list[Found]) -> Found:
    """Several as one."""
    return np.concatenate([one[0] for one in parts]), np.concatenate([one[1] for one in parts]), np.concatenate([one[2] for one in parts])


def _fewer(row: NDArray[np.int64], column: NDArray[np.int64], distance: NDArray[np.float64], most: int) -> Found:
    """Of each row the `most` nearest, of equals the first, without sorting; given and left by row and column."""
    if not len(row):
        return row, column, distance
    local = row - row[0]
    counts = np.bincount(local)
    if counts.max() <= most:
        return row, column, distance
    begins = np.cumsum(counts) - counts
    table = np.full((len(counts), counts.max()), np.inf)
    table[local, np.arange(len(row)) - begins[local]] = distance
    limit = np.partition(table, most - 1, axis=1)[:, most - 1][local]
    nearer, equal = distance < limit, distance == limit
    room = most - np.bincount(local[nearer], minlength=len(counts))
    before = np.concatenate([[0], np.cumsum(equal)])
    kept = nearer | (equal & (before[1:] - before[begins[local]] <= room[local]))
    return row[kept], column[kept], distance[kept]


def _nearest(row: NDArray[np.int64], column: NDArray[np.int64], distance: NDArray[np.float64], most: int | None) -> Found:
    """By row, distance and column; of each row the first `most`."""
    order = np.lexsort((column, distance, row))
    row, column, distance = row[order], column[order], distance[order]
    if most is None or not len(row):
        return row, column, distance
    begins = np.flatnonzero(np.diff(row, prepend=row[0] - 1))
    place = np.arange(len(row)) - np.repeat(begins, np.diff(np.append(begins, len(row))))
    return row[place < most], column[place < most], distance[place < most]
