"""What a ranking is worth, one value a query; and average precision over all pairs, which has one value in all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from covis.descriptors import Descriptors
from covis.errors import InvalidInputError
from covis.rankings import Rankings

Positives: TypeAlias = sparse.csr_array
FINEST_BINS = 4096
"""Distances that the interval of an average precision tells apart; its value tells all apart."""


def recall_at(rankings: Rankings, positives: Positives, *, k: int, excluded: Positives | None = None) -> NDArray[np.float64]:
    """recall@k: 1 where a positive is among the first k, else 0; NaN for a query without any positive.

    The field's meaning of the word: whether one positive is found, not which share of them. Excluded pairs (an image
    with itself) take no rank.

    Args:
        rankings: (q, found) best first.
        positives: (q, d) CSR bool.
        k: >= 1.
        excluded: (q, d) CSR bool.

    Returns:
        (q,) float64.

    Raises:
        InvalidInputError: the shapes differ, or the ranking is too short to know (fewer than k found of a database
            that has more).

    >>> found = Rankings([[2, 0]], [[0.1, 0.5]], ("q",), ("a", "b", "c"))
    >>> near = sparse.csr_array([[True, False, False]])
    >>> recall_at(found, near, k=1), recall_at(found, near, k=2)
    (array([0.]), array([1.]))
    """
    shape = (len(rankings), len(rankings.database_names))
    if positives.shape != shape:
        raise InvalidInputError(f"The positives must be (queries, database) = {shape} like the ranking; got {positives.shape}.")
    if excluded is not None and excluded.nnz:
        if excluded.shape != shape:
            raise InvalidInputError(f"The excluded pairs must be (queries, database) = {shape} like the ranking; got {excluded.shape}.")
        positives = sparse.csr_array(positives > excluded)
    counted = np.ones(rankings.rows.shape, dtype=bool) if excluded is None or not excluded.nnz else ~_marked(rankings.rows, excluded)
    _check_depth(rankings, counted, k, excluded)
    within = counted & (np.cumsum(counted, axis=1) <= k)
    hits = (_marked(rankings.rows, positives) & within).any(axis=1)
    return np.where(np.diff(positives.indptr) == 0, np.nan, hits)


def _marked(rows: NDArray[np.int64], marks: Positives) -> NDArray[np.bool_]:
    """(q, k) whether each ranked pair is among the marked ones."""
    width = marks.shape[1]
    query = np.repeat(np.arange(marks.shape[0], dtype=np.int64), np.diff(marks.indptr))
    return np.isin(np.arange(len(rows))[:, None] * width + rows, query * width + marks.indices)


def _check_depth(rankings: Rankings, counted: NDArray[np.bool_], k: int, excluded: Positives | None) -> None:
    if k < 1:
        raise InvalidInputError(f"The k of recall@k must be >= 1; got {k}.")
    available = len(rankings.database_names) - (0 if excluded is None else np.diff(excluded.indptr))
    short = np.flatnonzero(counted.sum(axis=1) < np.minimum(k, available))
    if short.size:
        raise InvalidInputError(
            f"recall@{k} needs the first {k} database images of every query; {rankings.query_names[short[0]]} has "
            f"{int(counted[short[0]].sum())}. Search with a larger k."
        )


class PooledPrecision:
    """Average precision over all query × database pairs of one or more scenes, as a function of query weights.

    Pairs are ordered by descriptor distance; AP = Σ (R_n - R_(n-1)) P_n over the distinct distances, as scikit-learn's
    `average_precision_score` has it. Descriptors are streamed: memory grows with the positives, not with the pairs.

    Args:
        sides: (queries, database) descriptors a scene.
        positives: (q, d) CSR bool a scene.
        excluded: (q, d) CSR bool a scene: pairs left out.
        distances: the type that distances are rounded to; "float16" makes ties, as in the reference's evaluation.

    Raises:
        InvalidInputError: shapes differ, or a descriptor is not finite.
    """

    def __init__(
        self,
        sides: Sequence[tuple[Descriptors, Descriptors]],
        positives: Sequence[Positives],
        *,
        excluded: Sequence[Positives | None],
        distances: Literal["float16", "float32"] = "float32",
    ) -> None:
        for (queries, database), marked in zip(sides, positives, strict=True):
            if marked.shape != (len(queries), len(database)):
                raise InvalidInputError(
                    f"The positives must be (queries, database) = {(len(queries), len(database))} like the descriptors; got {marked.shape}."
                )
            queries.check_finite()
            database.check_finite()
        self._inputs = (sides, positives, excluded, np.dtype(distances))
        found = [block[marks] for _, block, marks, _ in self._blocks()]
        self.edges = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=distances)

    def value(self) -> float:
        """The average precision; NaN where there is no positive at all."""
        correct, every = self._histogram(self.edges, np.zeros(self._queries(), dtype=np.int64))
        return _average_precision(correct.sum(axis=0), every.sum(axis=0))

    def by_unit(self, unit: NDArray[np.int64]) -> Callable[[NDArray[np.float64]], float]:
        """A function of (q,) query weights, equal within a unit, for the bootstrap; distances fall into at most 4,096 bins."""
        edges = self.edges
        if len(edges) > FINEST_BINS:
            edges = edges[np.linspace(0, len(edges) - 1, FINEST_BINS).round().astype(int)]
        correct, every = self._histogram(edges, unit)
        first = np.unique(unit, return_index=True)[1]
        return lambda weights: _average_precision(weights[first] @ correct, weights[first] @ every)

    def _queries(self) -> int:
        return sum(len(queries) for queries, _ in self._inputs[0])

    def _histogram(self, edges: NDArray[Any], unit: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Per unit and bin (up to and including each edge): correct pairs and all pairs; pairs beyond the last edge are left out."""
        bins = len(edges) + 1
        shape = (int(unit.max(initial=-1)) + 1, bins)
        correct, every = np.zeros(shape), np.zeros(shape)
        for first, block, marks, kept in self._blocks():
            rows = unit[first : first + len(block)]
            cell = rows[:, None] * bins + np.searchsorted(edges, block)
            every += np.bincount(cell[kept], minlength=every.size).reshape(shape)
            correct += np.bincount(cell[marks], minlength=every.size).reshape(shape)
        return correct[:, :-1], every[:, :-1]

    def _blocks(self, rows: int = 256) -> Iterator[tuple[int, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]]:
        """(number of the first query, (rows, d) distances, (rows, d) positives, (rows, d) pairs that are not excluded)."""
        sides, positives, excluded, dtype = self._inputs
        first = 0
        for (queries, database), marked, left_out in zip(sides, positives, excluded, strict=True):
            other = np.asarray(database.vectors, dtype=np.float64)
            squares = (other**2).sum(axis=1)
            for start in range(0, len(queries), rows):
                mine = np.asarray(queries.vectors[start : start + rows], dtype=np.float64)
                squared = (mine**2).sum(axis=1)[:, None] + squares - 2 * mine @ other.T
                with np.errstate(over="ignore"):  # beyond float16's 65,504 all distances tie at infinity
                    block = np.sqrt(np.maximum(squared, 0)).astype(dtype)
                kept = np.ones(block.shape, dtype=bool)
                if left_out is not None and left_out.nnz:
                    kept = ~left_out[start : start + rows].toarray().astype(bool)
                yield first + start, block, marked[start : start + rows].toarray().astype(bool) & kept, kept
            first += len(queries)


def _average_precision(correct: NDArray[np.float64], every: NDArray[np.float64]) -> float:
    total = correct.sum()
    if total == 0:
        return float("nan")
    hits, seen = np.cumsum(correct), np.cumsum(every)
    return float((correct * hits / np.maximum(seen, 1e-300)).sum() / total)


METRICS: dict[str, Callable[..., NDArray[np.float64]]] = {"recall": recall_at}
"""Name -> metric: `(rankings, positives, *, k, …) -> (q,)`, NaN where it is not defined; reported as `name@k`."""
