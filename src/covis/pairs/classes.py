"""The classes that pairs fall into (positive, soft, zero), of all scenes at once, without a dense row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from covis.labels import TIE, Labels

POSITIVE, SOFT, ZERO = 0, 1, 2
"""Similarity >= the threshold; above 0 and below it; 0. Excluded pairs are in no class."""


class Classes:
    """How many images of each class each query has, and the r-th of them.

    Memory is about 24 bytes for each pair that is stored or excluded.

    Attributes:
        scene: (Q,) int64, the scene of each query; the queries of all scenes, one scene after the other.
        query: (Q,) int64, its row among that scene's queries.
        counts: (Q, 3) int64, images of each class.

    >>> from scipy import sparse
    >>> labels = Labels(sparse.csr_array([[0.0, 0.7, 0.2]]), ("q",), ("a", "b", "c"), rule="by hand")
    >>> classes = Classes([labels], threshold=0.5)
    >>> classes.counts.tolist()
    [[1, 1, 1]]
    >>> [int(classes.take(np.zeros(1, np.int64), np.array([kind]), np.zeros(1, np.int64))[0][0]) for kind in (POSITIVE, SOFT, ZERO)]
    [1, 2, 0]
    """

    def __init__(self, labels: Sequence[Labels], *, threshold: float) -> None:
        sizes = [one.matrix.shape[0] for one in labels]
        self.scene = np.repeat(np.arange(len(labels)), sizes)
        self.query = _joined([np.arange(size) for size in sizes])
        positive = [one.matrix.data >= threshold - TIE for one in labels]
        self._listed = [
            _Entries([one.matrix for one in labels], positive),
            _Entries([one.matrix for one in labels], [~chosen for chosen in positive]),
        ]
        self._free = _Complement([_taken(one) for one in labels])
        self.counts = np.stack([*(listed.count for listed in self._listed), self._free.count], axis=1)

    def take(
        self, row: NDArray[np.int64], kind: NDArray[np.int64], rank: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The database row and the similarity of the rank-th image of a class, for rows of `query`."""
        database, similarity = np.empty(len(row), dtype=np.int64), np.zeros(len(row))
        for number, listed in enumerate(self._listed):
            here = np.flatnonzero(kind == number)
            place = listed.start[row[here]] + rank[here]
            database[here], similarity[here] = listed.column[place], listed.value[place]
        here = np.flatnonzero(kind == ZERO)
        database[here] = self._free.take(row[here], rank[here])
        return database, similarity


def _taken(labels: Labels) -> sparse.csr_array:
    """(q, d): the pairs that are not of class zero: stored, or excluded."""
    assert labels.excluded is not None
    taken = sparse.csr_array(labels.matrix.astype(bool) + labels.excluded)
    taken.sort_indices()
    return taken


class _Entries:
    """The chosen entries of CSR matrices, row after row."""

    def __init__(self, matrices: Sequence[sparse.csr_array], chosen: Sequence[NDArray[np.bool_]]) -> None:
        self.column = _joined([matrix.indices[mine] for matrix, mine in zip(matrices, chosen, strict=True)])
        self.value = np.concatenate([np.zeros(0), *(matrix.data[mine] for matrix, mine in zip(matrices, chosen, strict=True))])
        ends = [np.concatenate([[0], np.cumsum(mine)])[matrix.indptr] for matrix, mine in zip(matrices, chosen, strict=True)]
        self.count = _joined([np.diff(end) for end in ends])
        self.start = np.cumsum(self.count) - self.count


class _Complement:
    """The columns that a row does not hold, in order.

    The r-th free column of a row is r + the number of held columns c_j (j-th of the row) with c_j - j <= r. One sorted
    key over all rows answers that for any mix of rows by one binary search.
    """

    def __init__(self, taken: Sequence[sparse.csr_array]) -> None:
        held = [np.diff(one.indptr) for one in taken]
        width = _joined([np.full(one.shape[0], one.shape[1]) for one in taken])
        self._stride = int(width.max(initial=0)) + 1
        counts = _joined(held)
        self._start = np.cumsum(counts) - counts
        self.count = width - counts
        row = np.repeat(np.arange(len(counts)), counts)
        position = np.arange(len(row)) - self._start[row]
        self._key = row * self._stride + (_joined([one.indices for one in taken]) - position)

    def take(self, row: NDArray[np.int64], rank: NDArray[np.int64]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = rank + np.searchsorted(self._key, row * self._stride + rank, side="right") - self._start[row]
        return found


def _joined(parts: Sequence[NDArray[np.integer]]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts]).astype(np.int64, copy=False)
