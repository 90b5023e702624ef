"""Ranks: how many database images stand before a positive of a query, counted exactly and in bounded memory."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from covis.descriptors import Descriptors
from covis.errors import InvalidInputError, UnknownNameError
from covis.labels import TIE, Labels
from covis.lookup import suggest

Side: TypeAlias = Descriptors | ArrayLike
"""The descriptors of one side: `Descriptors`, or an (n, d) array of numbers."""

RANKS = {
    "non-positive": "1 + the number of non-positive images that are closer to the query than this positive",
    "raw": "1 + the number of all other images that are closer to the query than this positive",
    "best-positive": "the non-positive rank of the query's nearest positive, the same for all of its positives",
    "graded": "1 + the number of images of lower similarity than this positive that are closer to the query (ours)",
}
"""What a rank counts. Excluded pairs never count, and an image that is as far as the positive is not closer."""

BLOCK = 4_000_000
"""Numbers of 8 bytes that are in memory at once, a few times over: 32 MB each."""
HEIGHT = 1024  # queries a block: beyond that a product of matrices is no faster
LARGEST = 1e150  # of a vector's length: the squares of larger ones leave float64

Vectors: TypeAlias = NDArray[Any]
Numbers: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.int64]


def ranks(
    labels: Labels, queries: Side, database: Side, *, rank: str = "non-positive", positive_threshold: float = 0.5, block: int = BLOCK
) -> NDArray[np.int32]:
    """The rank of each positive pair under a branch's descriptors, from 1.

    A distance is the sum of the squared differences, in float64. A product of matrices tells on which side of a positive's distance an
    image lies; where rounding could decide, that sum is taken itself. So the counts are those of a plain loop, ties included, whatever
    the block. Beside the labels and the result, memory is a few times 8 · `block` bytes; time grows as queries · database · d.

    StructVPR (CVPR 2023) ranks pairs under both of its branches, and its poster does not say what counts. "non-positive" is our reading,
    since a query has several positives. "graded" is ours; on labels of 0 and 1 the two are the same.

    Args:
        labels: of q queries and d database images.
        queries: (q, dim) descriptors, memory-mapped or not; those of `Descriptors` must have the labels' names, in their order.
        database: (d, dim), likewise.
        rank: what it counts: a name of `RANKS`.
        positive_threshold: pairs of similarity >= it are positive, as in `Labels.positives`.
        block: numbers in memory at once; the result does not depend on it.

    Returns:
        (n,) int32, of the entries of `labels.positives(positive_threshold)`, row after row.

    Raises:
        UnknownNameError: there is no such rank.
        InvalidInputError: the descriptors are not those of the labels' images, the two sides do not belong together, or one is not finite.

    >>> labels = Labels(sparse.csr_array([[0.9, 0.0, 0.6, 0.1]]), ("q",), ("a", "b", "c", "d"), rule="by hand")
    >>> ranks(labels, [[0.0]], [[2.0], [1.0], [4.0], [3.0]])
    array([2, 3], dtype=int32)
    >>> ranks(labels, [[0.0]], [[2.0], [1.0], [4.0], [3.0]], rank="raw")
    array([2, 4], dtype=int32)
    """
    if rank not in RANKS:
        raise UnknownNameError(f"There is no rank called {rank!r}. {suggest(rank, RANKS)}")
    _check_together(queries, database)
    asked, held = _vectors(queries, labels.query_names, "query"), _vectors(database, labels.database_names, "database image")
    if asked.shape[1] != held.shape[1]:
        raise InvalidInputError(f"Queries and database must have descriptors of one length; got {asked.shape[1]} and {held.shape[1]}.")
    positives = labels.positives(positive_threshold)
    count, branch = np.diff(positives.indptr), _Branch(asked, held, block)
    query = np.repeat(np.arange(len(count)), count)
    apart = branch.apart(query, positives.indices)
    assert labels.excluded is not None
    barred = labels.excluded + (labels.matrix.astype(bool) if rank == "graded" else positives)  # these are counted below, where they count
    closer = branch.closer(positives.indptr, apart, barred=sparse.csr_array(barred))
    if rank == "raw":
        closer += _less(apart, query)
    if rank == "graded":
        closer += branch.closer_and_lower(positives, apart, labels.matrix)
    if rank == "best-positive" and len(closer):
        having = count > 0
        closer = np.repeat(np.minimum.reduceat(closer, positives.indptr[:-1][having]), count[having])
    return (1 + closer).astype(np.int32)


def _less(apart: Numbers, query: Rows) -> Rows:
    """(n,) how many values of the same query are less than each; `query` ascends."""
    order, number = np.lexsort((apart, query)), np.arange(len(query))
    values, first = apart[order], np.searchsorted(query, query)
    fresh = np.concatenate([[True], values[1:] != values[:-1]])[: len(query)] | (number == first)
    less = np.empty(len(query), dtype=np.int64)
    less[order] = np.maximum.accumulate(np.where(fresh, number, 0)) - first
    return less


class _Branch:
    """Distances between queries (q, d) and database images (n, d), and how many of them are less than others."""

    def __init__(self, queries: Vectors, database: Vectors, block: int) -> None:
        self.queries, self.database, self.block, self.dim = queries, database, max(1, block), queries.shape[1]
        self.height = max(1, min(HEIGHT, math.isqrt(self.block), self.block // (self.dim + 1)))
        self.width = max(1, min(self.block // self.height, self.block // (self.dim + 1)))

    def apart(self, query: Rows, database: Rows) -> Numbers:
        """(n,) sums of squared differences of these rows: the same pair gives the same number, whatever stands beside it."""
        found = np.empty(len(query))
        step = max(1, self.block // max(1, self.dim))
        for begin in range(0, len(query), step):
            part = slice(begin, begin + step)
            # rows that are contiguous: else numpy adds a lone row up in another order than rows together
            difference = np.array(self.queries[query[part]], dtype=np.float64, order="C")
            difference -= self.database[database[part]]
            found[part] = np.square(difference, out=difference).sum(axis=1)
        return found

    def closer(self, starts: Rows, apart: Numbers, *, barred: sparse.csr_array) -> Rows:
        """(n,) how many database images that are not barred are closer to its query than each positive.

        Positives stand query after query: `starts` (q + 1,) says where each query's begin, `apart` (n,) how far they are.
        """
        count = np.diff(starts)
        order = np.lexsort((apart, np.repeat(np.arange(len(count)), count)))
        limits = apart[order]
        found = np.zeros(len(apart), dtype=np.int64)
        having = np.flatnonzero(count)
        for begin in range(0, len(having), self.height):
            rows = having[begin : begin + self.height]
            vectors = np.asarray(self.queries[rows], dtype=np.float64)
            squares = np.square(vectors).sum(axis=1)
            factor = np.column_stack([-2 * vectors, np.ones(len(rows))])
            out = barred[rows]
            out_row = np.repeat(np.arange(len(rows)), np.diff(out.indptr))
            for left in range(0, len(self.database), self.width):
                others = np.asarray(self.database[left : left + self.width], dtype=np.float64)
                norms = np.square(others).sum(axis=1)
                near = factor @ np.column_stack([others, norms]).T  # squared distances, less the query's square
                inside = (out.indices >= left) & (out.indices < left + len(others))
                near[out_row[inside], out.indices[inside] - left] = np.inf
                slack = _rounding(self.dim, squares + norms.max())
                for number, row in enumerate(rows):
                    mine = slice(starts[row], starts[row + 1])
                    found[mine] += self._below(row, left, limits[mine], (near[number], squares[number], slack[number]))
        closer = np.empty(len(apart), dtype=np.int64)
        closer[order] = found
        return closer

    def _below(self, row: int, left: int, limits: Numbers, distances: tuple[Numbers, float, float]) -> Rows:
        """(p,) how many images of a part of the database are nearer than each of a query's limits, which ascend."""
        near, square, slack = distances
        ahead = limits - square
        within = near <= ahead[-1] + slack
        value = np.sort(near[within])
        surely: Rows = np.searchsorted(value, ahead - slack, side="left")
        if (surely == np.searchsorted(value, ahead + slack, side="right")).all():
            return surely
        columns = np.flatnonzero(within)
        value = near[columns]
        place = np.searchsorted(ahead, value - slack, side="right")  # how many positives are surely nearer
        unsure = np.flatnonzero(place != np.searchsorted(ahead, value + slack, side="left"))
        if unsure.size:
            theirs = self.apart(np.full(len(unsure), row), left + columns[unsure])
            place[unsure] = np.searchsorted(limits, theirs, side="right")
        return np.cumsum(np.bincount(place, minlength=len(limits) + 1)[: len(limits)])

    def closer_and_lower(self, positives: sparse.csr_array, apart: Numbers, matrix: sparse.csr_array) -> Rows:
        """(n,) how many images that share something with the query are closer than each positive, and share less than it does."""
        starts, closer = positives.indptr, np.zeros(len(apart), dtype=np.int64)
        for row in np.flatnonzero(np.diff(starts)):
            stored, similarity = (part[matrix.indptr[row] : matrix.indptr[row + 1]] for part in (matrix.indices, matrix.data))
            theirs = self.apart(np.full(len(stored), row), stored)
            step = max(1, self.block // len(stored))
            for begin in range(starts[row], starts[row + 1], step):
                mine = slice(begin, min(begin + step, starts[row + 1]))
                own = similarity[np.searchsorted(stored, positives.indices[mine])]
                before = (theirs < apart[mine, None]) & (similarity < own[:, None] - TIE)
                closer[mine] = before.sum(axis=1)
        return closer


def _rounding(dim: int, scale: Numbers) -> Numbers:
    """By how much |b|² - 2 a·b in float64 and a direct sum can differ, where |a|² + |b|² is at most `scale`: several times the bound."""
    limits = np.finfo(np.float64)
    rounding: Numbers = 4 * (dim + 8) * (limits.eps * scale + limits.tiny)  # the least normal number: for squares that vanish
    return rounding


def _vectors(side: Side, names: tuple[str, ...], what: str) -> Vectors:
    """An (n, d) array of the descriptors of these images, all of them finite."""
    if isinstance(side, Descriptors):
        if side.names != names:
            raise InvalidInputError(_differing(side.names, names, what))
        side.check_finite()
        return side.vectors
    try:
        vectors = np.asarray(side)
    except ValueError as error:
        raise InvalidInputError(f"The descriptors of the {what} side must be an (n, d) array of numbers; {error}.") from error
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or vectors.dtype.itemsize > 8:
        raise InvalidInputError(
            f"The descriptors of the {what} side must be an (n, d) array of numbers; got {vectors.dtype} of shape {vectors.shape}."
        )
    if len(vectors) != len(names):
        raise InvalidInputError(f"There must be one descriptor a {what} of the labels; got {len(vectors)} for {len(names)}.")
    step = max(1, BLOCK // max(1, vectors.shape[1]))
    for begin in range(0, len(vectors), step):
        with np.errstate(over="ignore"):
            length = np.sqrt(np.square(vectors[begin : begin + step], dtype=np.float64).sum(axis=1))
        bad = np.flatnonzero(~(length < LARGEST))
        if bad.size:
            raise InvalidInputError(
                f"Every descriptor must be finite and shorter than {LARGEST:g}; that of the {what} {names[begin + bad[0]]} is not. "
                "Extract it again, or mend the model."
            )
    return vectors


def _check_together(queries: Side, database: Side) -> None:
    """Both sides must be of one model, and the same must have been done to them since."""
    if not (isinstance(queries, Descriptors) and isinstance(database, Descriptors)):
        return
    if queries.model != database.model:
        raise InvalidInputError(
            f"Both sides must be described by one model; the queries are of {queries.model}, the database of {database.model}. "
            "Extract one of them again."
        )
    if queries.history.get("whitened") != database.history.get("whitened"):
        raise InvalidInputError("Both sides must be whitened alike; one is whitened in another way than the other.")


def _differing(found: tuple[str, ...], names: tuple[str, ...], what: str) -> str:
    """How names differ, in a sentence."""
    described = set(found)
    if missing := next((name for name in names if name not in described), None):
        said = f"{missing} has none ({len(found)} descriptors for {len(names)})"
    else:
        place = next((place for place, (a, b) in enumerate(zip(found, names, strict=False)) if a != b), len(names))
        said = f"at place {place} they have {found[place]}" + (
            f", the labels {names[place]}" if place < len(names) else ", the labels none"
        )
    images = "queries" if what == "query" else "database images"
    return f"The descriptors must be those of the labels' {images}, in their order; {said}. Describe the images that were labelled."
