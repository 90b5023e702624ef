"""Hits: a ranking as metrics see it, once what takes no rank is gone and what is correct is known."""

from __future__ import annotations

import itertools
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from covis.errors import InvalidInputError
from covis.rankings import Rankings

Positives: TypeAlias = sparse.csr_array
Short: TypeAlias = Literal["refuse", "use"]
Part: TypeAlias = Literal["similarity", "distances"]
_Part = TypeVar("_Part")
SHORT: tuple[Short, ...] = ("refuse", "use")


@dataclass(frozen=True, eq=False)
class Hits:
    """What stands at each rank, best first; entries that take no rank are gone and the others have moved up.

    Attributes:
        rows: (q, n) int64 database rows; -1 for what is no database image, and where nothing is left.
        filled: (q, n) bool: whether something stands there; the filled come first. A -1 of the ranking is filled.
        correct: (q, n) bool: whether it is a positive.
        distances: (q, n) float32; NaN where unknown.
        positives: (q,) int64: how many positives each query has in the database; places with one, where a place takes one rank.
        available: (q,) int64: how many database images, or places, may take a rank.
        query_names: q names.
        database_names: d names, what `rows` index.
        short: what `depth` does where fewer than k are filled although more are available: "refuse", or "use" what is there.
        similarity: (q, n) float64 graded similarity, 0 for a -1 and where nothing is left; None without labels.
        graded: (q, d) CSR float64: the similarities above 0 of all pairs that may take a rank, the best of a place where a place takes
            one; None without labels.
    """

    rows: NDArray[np.int64]
    filled: NDArray[np.bool_]
    correct: NDArray[np.bool_]
    distances: NDArray[np.float32]
    _: KW_ONLY
    positives: NDArray[np.int64]
    available: NDArray[np.int64]
    query_names: tuple[str, ...]
    database_names: tuple[str, ...]
    short: Short = "refuse"
    similarity: NDArray[np.float64] | None = None
    graded: sparse.csr_array | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Hits({len(self)} queries, first {self.rows.shape[1]} of {len(self.database_names)})"

    def has(self, *parts: Part) -> bool:
        """Whether the "similarity" and the "distances" of all that was found are known."""
        known = {"similarity": self.similarity is not None, "distances": not np.isnan(self.distances[self.filled]).any()}
        return all(known[part] for part in parts)

    def depth(self, k: int, *, metric: str = "a metric") -> int:
        """How many columns hold the first k: k, or fewer where the ranking has fewer. `metric` is named in the error.

        Raises:
            InvalidInputError: k < 1; or, with short = "refuse", a query has fewer than k although more are available.
        """
        if k < 1:
            raise InvalidInputError(f"The k of {metric}@k must be >= 1; got {k}.")
        lacking = np.flatnonzero(self._found < np.minimum(k, self.available)) if self.short == "refuse" else np.zeros(0, dtype=np.int64)
        if lacking.size:
            raise InvalidInputError(
                f"{metric}@{k} needs the first {k} database images of every query; {self.query_names[lacking[0]]} has "
                f"{self._found[lacking[0]]}. Search with a larger k."
            )
        return min(k, int(self.rows.shape[1]))

    def match(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """(q,) the row of each query's best match, -1 for none; its distance, NaN for none or unknown; whether it is correct."""
        if not self.depth(1, metric="match"):
            return np.full(len(self), -1), np.full(len(self), np.nan), np.zeros(len(self), dtype=bool)
        return self.rows[:, 0], self.distances[:, 0].astype(np.float64), self.correct[:, 0]

    def best(self, k: int) -> NDArray[np.float64]:
        """(q, at most k) the best similarities that a ranking could hold, best first, 0 where a query overlaps fewer images.

        Raises:
            InvalidInputError: there are no labels.
        """
        values, starts = self._sorted
        columns = np.arange(min(k, int(np.diff(starts).max(initial=0))))
        place = starts[:-1, None] + columns
        there = place < starts[1:, None]
        best = np.zeros(there.shape)
        best[there] = values[place[there]]
        return best

    @cached_property
    def _found(self) -> NDArray[np.int64]:
        return np.asarray(np.count_nonzero(self.filled, axis=1))

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The similarities of each query, best first, one query behind the other; and where each query's begin."""
        graded = needed(self.graded)
        values = graded.data.copy()
        for begin, end in itertools.pairwise(graded.indptr.tolist()):  # ten times faster than one sort of (query, similarity)
            values[begin:end] = np.sort(values[begin:end])[::-1]
        return values, graded.indptr


def hits(
    rankings: Rankings,
    positives: Positives,
    *,
    excluded: Positives | None = None,
    searched: NDArray[np.bool_] | None = None,
    groups: NDArray[np.int64] | None = None,
    similarity: sparse.csr_array | None = None,
    short: Short = "refuse",
) -> Hits:
    """See a ranking as metrics do: what stands at each rank, and whether it is correct.

    Args:
        rankings: (q, n) best first; a row of -1 takes its rank and is never correct.
        positives: (q, d) CSR bool: what is correct.
        excluded: (q, d) CSR bool: pairs that take no rank and are never correct (an image with itself).
        searched: (d,) bool: the database images that may take a rank; the others are never correct. Default all.
        groups: (d,) int64 the place of each database image, where only the best found of each place keeps its rank (the cutouts of a
            panorama); default: all keep theirs.
        similarity: (q, d) CSR in [0, 1], what is absent is 0: for the graded metrics.
        short: where fewer than k are left although the database has more, a metric is refused ("refuse"), or computed
            from what is there ("use", as the MSLS script does).

    Raises:
        InvalidInputError: the shapes differ, or a similarity is outside [0, 1].

    >>> found = Rankings([[2, -1, 0, 1]], [[0.1, 0.2, 0.5, 0.6]], ("q",), ("a", "b", "c"))
    >>> view = hits(found, sparse.csr_array([[True, False, False]]), excluded=sparse.csr_array([[False, False, True]]))
    >>> view.rows.tolist(), view.filled.tolist(), view.correct.tolist()
    ([[-1, 0, 1, -1]], [[True, True, True, False]], [[False, True, False, False]])
    """
    shape = (len(rankings), len(rankings.database_names))
    for what, matrix in (("positives", positives), ("excluded pairs", excluded), ("similarities", similarity)):
        if matrix is not None and matrix.shape != shape:
            raise InvalidInputError(f"The {what} must be (queries, database) = {shape} like the ranking; got {matrix.shape}.")
    if short not in SHORT:
        raise InvalidInputError(f"What to do with a short ranking must be one of {', '.join(map(repr, SHORT))}; got {short!r}.")
    searched = np.ones(shape[1], dtype=bool) if searched is None else np.asarray(searched)
    if searched.shape != shape[1:] or searched.dtype != np.bool_:
        raise InvalidInputError(
            f"`searched` must be true or false for each of {shape[1]} database images; got {searched.dtype} of shape {searched.shape}."
        )
    places = None if groups is None else _members(groups, shape[1])
    left_out = _counted(sparse.csr_array(shape, dtype=bool) if excluded is None else excluded, searched, None)
    right = _counted(positives, searched, left_out)
    graded = None if similarity is None else _graded(similarity, searched, left_out)
    rows, distances, filled = _ranked(rankings, searched, left_out, groups)
    available = np.count_nonzero(searched) - np.diff(left_out.indptr).astype(np.int64)
    return Hits(
        rows,
        filled,
        _look_up(right, rows) != 0,
        distances,
        positives=np.diff((right if places is None else sparse.csr_array(right.astype(np.int32) @ places)).indptr).astype(np.int64),
        available=available if places is None else _open_places(searched, left_out, places),
        query_names=rankings.query_names,
        database_names=rankings.database_names,
        short=short,
        similarity=None if graded is None else _look_up(graded, rows),
        graded=graded if graded is None or groups is None else _best_of_places(graded, groups),
    )


def needed(part: _Part | None) -> _Part:
    """The similarity of hits, for a metric that cannot do without.

    Raises:
        InvalidInputError: there is none.
    """
    if part is None:
        raise InvalidInputError("A graded metric needs graded similarity; give the labels' matrix to `hits(…, similarity=…)`.")
    return part


def _counted(matrix: sparse.csr_array, searched: NDArray[np.bool_], left_out: sparse.csr_array | None) -> sparse.csr_array:
    """What a matrix stores of searched images and pairs that are not left out; sorted, without zeros."""
    given = sparse.csr_array(matrix)
    if not given.has_canonical_format:
        given = given.copy()
        given.sum_duplicates()
    stays = (given.data != 0) & searched[given.indices]
    if left_out is not None and left_out.nnz:
        stays &= ~np.isin(_pairs(given), _pairs(left_out), assume_unique=True)
    if stays.all():
        return given
    starts = np.concatenate([[0], np.cumsum(stays)])[given.indptr]
    return sparse.csr_array((given.data[stays], given.indices[stays], starts), shape=given.shape)


def _graded(similarity: sparse.csr_array, searched: NDArray[np.bool_], left_out: sparse.csr_array) -> sparse.csr_array:
    graded = _counted(similarity, searched, left_out).astype(np.float64, copy=False)
    bad = np.flatnonzero(~((graded.data > 0) & (graded.data <= 1)))
    if bad.size:
        raise InvalidInputError(f"A similarity must be a number in [0, 1]; one is {graded.data[bad[0]]}. Give the matrix of Labels.")
    return graded


def _ranked(
    rankings: Rankings, searched: NDArray[np.bool_], left_out: sparse.csr_array, groups: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """(q, n) rows, distances and what is filled, once entries that take no rank are gone."""
    rows, distances = rankings.rows, rankings.distances
    kept = np.append(searched, np.True_)[rows] & (_look_up(left_out, rows) == 0)  # a row of -1 reads that last True
    if groups is not None:
        kept &= ~_again(rows, kept & (rows >= 0), groups)
    if kept.all():
        return rows, distances, kept
    order = np.argsort(~kept, axis=1, kind="stable")
    rows, distances, kept = (np.take_along_axis(part, order, axis=1) for part in (rows, distances, kept))
    return np.where(kept, rows, -1), np.where(kept, distances, np.float32(np.nan)), kept


def _members(groups: NDArray[np.int64], count: int) -> sparse.csr_array:
    """(d, places) CSR: 1 where an image is of a place."""
    if groups.shape != (count,):
        raise InvalidInputError(f"`groups` must be a place for each of {count} database images; got the shape {groups.shape}.")
    names, code = np.unique(groups, return_inverse=True)
    return sparse.csr_array((np.ones(count, dtype=np.int32), code.reshape(-1), np.arange(count + 1)), shape=(count, len(names)))


def _again(rows: NDArray[np.int64], counts: NDArray[np.bool_], groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(q, n) bool: an entry that counts, of a place that has stood before it."""
    code = np.append(np.unique(groups, return_inverse=True)[1].reshape(-1), -1)[rows]
    code = np.where(counts, code, -1 - np.arange(rows.shape[1]))  # each of the others is a place of its own
    order = np.argsort(code, axis=1, kind="stable")
    ordered = np.take_along_axis(code, order, axis=1)
    again = np.zeros(rows.shape, dtype=bool)
    np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return again


def _open_places(searched: NDArray[np.bool_], left_out: sparse.csr_array, places: sparse.csr_array) -> NDArray[np.int64]:
    """(q,) how many places have an image that may take a rank."""
    sizes = searched.astype(np.int64) @ places
    closed = sparse.csr_array(left_out.astype(np.int32) @ places)
    rows = np.repeat(np.arange(closed.shape[0]), np.diff(closed.indptr))
    full = np.bincount(rows[closed.data == sizes[closed.indices]], minlength=closed.shape[0])
    return (np.count_nonzero(sizes) - full).astype(np.int64)


def _best_of_places(graded: sparse.csr_array, groups: NDArray[np.int64]) -> sparse.csr_array:
    """Of each query's images of one place the most similar."""
    query = np.repeat(np.arange(graded.shape[0]), np.diff(graded.indptr))
    order = np.lexsort((-graded.data, groups[graded.indices], query))
    query, place = query[order], groups[graded.indices][order]
    first = np.append(True, (query[1:] != query[:-1]) | (place[1:] != place[:-1])) if len(order) else np.zeros(0, dtype=bool)
    kept = order[first]
    return sparse.csr_array((graded.data[kept], (query[first], graded.indices[kept])), shape=graded.shape)


def _look_up(matrix: sparse.csr_array, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """(q, n) what the matrix stores of each ranked pair; 0 for a pair that it lacks and for a row of -1."""
    if not matrix.nnz:
        return np.zeros(rows.shape)
    pairs = _pairs(matrix)
    wanted = np.where(rows < 0, -1, np.arange(len(rows), dtype=np.int64)[:, None] * matrix.shape[1] + rows)
    place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    return np.where(pairs[place] == wanted, matrix.data[place], 0.0)


def _pairs(matrix: sparse.csr_array) -> NDArray[np.int64]:
    """(nnz,) query · d + database row of what the matrix stores: one number a pair, ascending."""
    query = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    return np.asarray(query * matrix.shape[1] + matrix.indices)
