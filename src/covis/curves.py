"""What many queries are worth together: average precision over pairs, the curve of best matches, quantiles.

Each has one value in all, as a function of (q,) query weights: how often the bootstrap has drawn each query. What has one
value a query is in `covis.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from covis.descriptors import Descriptors
from covis.errors import InvalidInputError
from covis.hits import Hits, Positives

FINEST_BINS = 4096
"""Distances that the interval of an average precision tells apart; its value tells all apart."""
ROUNDING = 1e-12
"""How much less than a share of the weights still counts as that share: 0.95 is no binary fraction."""


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


@dataclass(frozen=True, eq=False)
class MatchCurve:
    """Precision and recall of best matches, as the distance up to which a match is believed grows.

    Every query has one match, its rank 1. At a threshold the matches at most that far are believed: precision is the
    share of them that is correct; recall is the share of the counted queries that is believed and correct. So recall
    ends at recall@1, and a method gains nothing by matching fewer queries. Matches of one distance are believed
    together, which takes ties as they are, not as they happen to be ordered.

    Attributes:
        distances: (q,) float64 of each query's best match; NaN for a query without any match, which is never believed.
        correct: (q,) bool.
        counted: (q,) bool: the queries that take part, as the protocol's denominator says.

    Raises:
        InvalidInputError: the shapes differ.

    >>> curve = MatchCurve([0.1, 0.2, 0.3, 0.4], [True, True, False, True], [True] * 4)
    >>> curve.recall_at_full_precision(), curve.average_precision()
    (0.5, 0.6875)
    """

    distances: NDArray[np.float64]
    correct: NDArray[np.bool_]
    counted: NDArray[np.bool_]

    def __post_init__(self) -> None:
        for name, dtype in (("distances", np.float64), ("correct", np.bool_), ("counted", np.bool_)):
            object.__setattr__(self, name, np.array(getattr(self, name), dtype=dtype))
        if self.distances.ndim != 1 or not self.distances.shape == self.correct.shape == self.counted.shape:
            raise InvalidInputError(
                "A match curve takes a distance, a truth and a mark of who is counted for each query; got the shapes "
                f"{self.distances.shape}, {self.correct.shape} and {self.counted.shape}."
            )

    def points(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """(t,) thresholds, smallest first, and the precision and the recall at each."""
        weights, total = self._weights(None)
        right, wrong = self._sums(weights)
        found = np.cumsum(right)
        return self._steps[0], found / np.cumsum(right + wrong), found / total

    def average_precision(self, weights: ArrayLike | None = None) -> float:
        """Σ (R_n - R_(n-1)) P_n over the distinct distances; NaN where no query is counted."""
        given, total = self._weights(weights)
        right, wrong = self._sums(given)
        believed = np.cumsum(right + wrong)
        return float((right * np.cumsum(right) / np.where(believed > 0, believed, 1)).sum() / total) if total else float("nan")

    def recall_at_full_precision(self, weights: ArrayLike | None = None) -> float:
        """The share of the counted queries matched correctly at less than the first wrong match's distance; NaN where none is counted."""
        given, total = self._weights(weights)
        right, wrong = self._sums(given)
        before = np.cumsum(wrong) == 0
        return float(right[before].sum() / total) if total else float("nan")

    @cached_property
    def _steps(self) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """(t,) distinct distances, the queries that take part with a match, and the step that each of them enters at."""
        chosen = np.flatnonzero(self.counted & ~np.isnan(self.distances))
        thresholds, step = np.unique(self.distances[chosen], return_inverse=True)
        return thresholds, chosen, step.reshape(-1)

    def _sums(self, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(t,) weight of the correct and of the wrong matches that enter at each distance."""
        thresholds, chosen, step = self._steps
        correct, entering = self.correct[chosen], weights[chosen]
        right, wrong = (
            np.bincount(step, weights=entering * one, minlength=len(thresholds)).astype(np.float64) for one in (correct, ~correct)
        )
        return right, wrong

    def _weights(self, weights: ArrayLike | None) -> tuple[NDArray[np.float64], float]:
        """(q,) weights, and that of all counted queries."""
        given = np.ones(len(self.distances)) if weights is None else _one_each(weights, len(self.distances))
        return given, float(given[self.counted].sum())


def match_curve(views: Sequence[Hits], *, counted: ArrayLike | None = None) -> MatchCurve:
    """The curve of best matches over the queries of one or more scenes, in their order.

    Args:
        views: one a scene.
        counted: (q,) bool: the queries that take part; default those with a positive. One without can only be matched
            wrongly; it takes part where a protocol counts all queries.

    Raises:
        InvalidInputError: the distance of a match is unknown, or `counted` has another length.
    """
    for one in views:
        unknown = np.flatnonzero(one.filled[:, :1].any(axis=1) & np.isnan(one.match()[1]))
        if unknown.size:
            raise InvalidInputError(
                f"A match curve orders best matches by their distance; that of {one.query_names[unknown[0]]} is unknown. "
                "Rankings from a search have distances; a prediction text has none."
            )
    nothing: tuple[NDArray[Any], ...] = (np.zeros(0), np.zeros(0, dtype=bool), np.zeros(0, dtype=bool))
    parts = [(distances, correct, one.positives > 0) for one in views for _, distances, correct in [one.match()]]
    distances, correct, answerable = (np.concatenate(column) for column in zip(nothing, *parts, strict=True))
    return MatchCurve(distances, correct, answerable if counted is None else np.asarray(counted))


def weighted_quantile(values: ArrayLike, *, level: float) -> Callable[[ArrayLike], float]:
    """The quantile of values, as a function of (q,) weights: the least value up to which the weights reach the share `level`.

    No value is made up between two: with whole weights it is numpy's `quantile(…, method="inverted_cdf")` (definition 1 of
    Hyndman and Fan, "Sample quantiles in statistical packages", 1996) of each value as often as its weight says.

    Args:
        values: (q,); NaN is left out, with its weight.
        level: in (0, 1].

    Returns:
        A function (q,) weights -> value; NaN where nothing has a weight. What depends on the values alone is done once.

    Raises:
        InvalidInputError: the level is outside (0, 1]; and the function: there is not one weight a value.

    >>> median = weighted_quantile([3.0, 1.0, float("nan"), 2.0], level=0.5)
    >>> median([1, 1, 1, 1]), median([2, 1, 0, 0])
    (2.0, 3.0)
    """
    values = np.asarray(values, dtype=np.float64).reshape(-1)
    if not 0 < level <= 1:
        raise InvalidInputError(f"The level of a quantile must be in (0, 1]; got {level}.")
    order = np.argsort(values, kind="stable")[: np.count_nonzero(~np.isnan(values))]  # NaN sorts last
    ordered = values[order]

    def quantile(weights: ArrayLike) -> float:
        below = np.cumsum(_one_each(weights, len(values))[order])
        if not len(below) or below[-1] <= 0:
            return float("nan")
        return float(ordered[np.searchsorted(below, level * below[-1] * (1 - ROUNDING))])

    return quantile


def _one_each(weights: ArrayLike, count: int) -> NDArray[np.float64]:
    given = np.asarray(weights, dtype=np.float64)
    if given.shape != (count,):
        raise InvalidInputError(f"There must be one weight for each of {count} queries; got {given.shape}.")
    return given
