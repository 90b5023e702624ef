"""The latent space: how far apart descriptors lie, against how much their images share.

A network that has learnt graded similarity puts pairs at distances that fall evenly as they share more. GCL's loss asks
for τ (1 − ψ) (`target_distance`); this module measures what came out, over all pairs that labels name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.descriptors import Descriptors
from covis.errors import DamagedFileError, InvalidInputError
from covis.labels import Labels
from covis.scores import aligned

BINS = 10
"""Of similarity, equally wide."""

ZERO_PAIRS = 200_000
"""Of the pairs that share nothing about so many are drawn at most; there are millions, and all say the same."""

BUFFER_BYTES = 32_000_000
"""What is held at once of gathered vectors, and as much of a block of queries."""

COLUMNS = ("similarity", "mean", "lower", "median", "upper")


@dataclass(frozen=True, eq=False)
class Relation:
    """Distances of descriptors by the similarity of their images.

    Attributes:
        edges: (b + 1,) of the bins; a bin holds its upper edge, not its lower one.
        count: (b + 1,) pairs: first those of similarity 0, then those of each bin.
        similarity: (b + 1,) mean similarity of the pairs, 0 first; NaN where there is none, as below.
        mean: (b + 1,) mean distance.
        lower: (b + 1,) lower quartile of the distances.
        median: (b + 1,) their median.
        upper: (b + 1,) their upper quartile.
        spearman: rank correlation of distance and similarity over the pairs above 0, in [-1, 1]: -1 where distances fall
            without exception; NaN where there are fewer than two pairs, or one of the two is constant.

    Raises:
        InvalidInputError: the lengths do not fit.
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    similarity: NDArray[np.float64]
    mean: NDArray[np.float64]
    lower: NDArray[np.float64]
    median: NDArray[np.float64]
    upper: NDArray[np.float64]
    spearman: float

    def __post_init__(self) -> None:
        lengths = {len(self.edges), len(self.count), *(len(getattr(self, name)) for name in COLUMNS)}
        if len(lengths) != 1 or len(self.edges) < 2:
            raise InvalidInputError(f"A relation must have one value a bin, and one for the pairs that share nothing; got {lengths}.")

    def __str__(self) -> str:
        names = ["0", *(f"{low:g} to {high:g}" for low, high in zip(self.edges[:-1], self.edges[1:], strict=True))]
        rows = [["similarity", "pairs", "mean distance", "quartiles"]]
        rows += [
            [name, f"{int(count):,}", f"{mean:.3f}", f"{low:.3f} {middle:.3f} {high:.3f}"]
            for name, count, mean, low, middle, high in zip(names, self.count, self.mean, self.lower, self.median, self.upper, strict=True)
            if count
        ]
        said = f"Spearman's rank correlation over the {self.pairs:,} pairs above 0: {self.spearman:+.3f}"
        return f"{aligned(rows, right=(1, 2))}\n  {said}"

    @property
    def pairs(self) -> int:
        """How many pairs share something."""
        return int(self.count[1:].sum())

    def as_dict(self) -> dict[str, Any]:
        """Plain values; NaN is None."""
        columns = {name: [_null(value) for value in getattr(self, name).tolist()] for name in COLUMNS}
        return {"edges": self.edges.tolist(), "count": self.count.tolist(), **columns, "spearman": _null(self.spearman)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], *, where: str) -> Relation:
        """The inverse of `as_dict`.

        Raises:
            DamagedFileError: the values are none of a relation; the message says where.
        """
        try:
            columns = {name: np.array([_nan(value) for value in stored[name]]) for name in COLUMNS}
            count = np.array(stored["count"], dtype=np.int64)
            return cls(np.array(stored["edges"], dtype=np.float64), count, **columns, spearman=_nan(stored["spearman"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(f"{where} must hold distances by similarity; its parts do not fit ({error}). Measure again.") from error


def relate(
    descriptors: Sequence[tuple[Descriptors, Descriptors]],
    labels: Sequence[Labels],
    *,
    bins: int = BINS,
    zero_pairs: int = ZERO_PAIRS,
    seed: int = 0,
) -> Relation:
    """Measure distances against similarities, over the pairs of one or more scenes.

    All pairs above 0 count. Of those that share nothing about `zero_pairs` are drawn where there are more. Excluded
    pairs never count. Memory: under 100 bytes a pair that counts, and a block.

    Args:
        descriptors: (queries, database) a scene.
        labels: one a scene, of the same images in the same order.
        bins: of similarity, equally wide, >= 1.
        zero_pairs: of the pairs that share nothing, about how many are drawn at most; 0: none.
        seed: of that draw.

    Raises:
        InvalidInputError: descriptors and labels are of other images, or a parameter is out of its range.

    Follows methods D.1 G5: the study of the latent space in "Data-efficient Large Scale Place Recognition with Graded
    Similarity Supervision", CVPR 2023.

    >>> from scipy import sparse
    >>> asked = Descriptors(np.array([[0.0, 0.0]], dtype=np.float32), ("q",), model="none")
    >>> found = Descriptors(np.array([[0.1, 0.0], [0.3, 0.0], [0.5, 0.0]], dtype=np.float32), ("a", "b", "c"), model="none")
    >>> labels = Labels(sparse.csr_array([[0.8, 0.4, 0.0]]), ("q",), ("a", "b", "c"), rule="by hand")
    >>> found = relate([(asked, found)], [labels], bins=2)
    >>> found.mean.round(3).tolist(), round(found.spearman, 6)
    ([0.5, 0.3, 0.1], -1.0)
    """
    if bins < 1 or zero_pairs < 0 or seed < 0:
        raise InvalidInputError(f"bins must be >= 1, zero_pairs and seed >= 0; got {bins}, {zero_pairs} and {seed}.")
    _check(descriptors, labels)
    similarity = np.concatenate([np.zeros(0), *(one.matrix.data for one in labels)])
    distance = np.concatenate([np.zeros(0), *(_above(*sides, one) for sides, one in zip(descriptors, labels, strict=True))])
    apart = _sharing_nothing(descriptors, labels, zero_pairs=zero_pairs, seed=seed)
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges, similarity, side="left")
    order = np.argsort(place, kind="stable")
    cuts = np.searchsorted(place[order], np.arange(1, bins + 2))
    groups = [order[start:stop] for start, stop in pairwise(cuts)]
    parts = [apart, *(distance[group] for group in groups)]
    shared = [np.zeros(len(apart)), *(similarity[group] for group in groups)]
    lower, median, upper = np.array([np.quantile(part, [0.25, 0.5, 0.75]) if len(part) else [np.nan] * 3 for part in parts]).T
    count = np.array([len(part) for part in parts])
    means, distances = (np.array([_mean(one) for one in values]) for values in (shared, parts))
    return Relation(edges, count, means, distances, lower, median, upper, rank_correlation(distance, similarity))


def averaged(relations: Sequence[Relation]) -> Relation:
    """The mean of relations over the same pairs (those of several seeds), value by value; counts are those of the first.

    Raises:
        InvalidInputError: there is none, or their bins differ.
    """
    if not relations or any(one.edges.shape != relations[0].edges.shape or (one.edges != relations[0].edges).any() for one in relations):
        raise InvalidInputError(f"Relations must have the same bins to be averaged; got {[len(one.edges) - 1 for one in relations]} bins.")
    columns = {name: np.mean([getattr(one, name) for one in relations], axis=0) for name in COLUMNS}
    return Relation(relations[0].edges, relations[0].count, **columns, spearman=float(np.mean([one.spearman for one in relations])))


def target_distance(similarity: NDArray[np.float64], *, margin: float = 0.5) -> NDArray[np.float64]:
    """The distance at which GCL's loss is least: τ (1 − ψ), where ψ > 0; pairs of ψ = 0 lie anywhere from τ on.

    >>> target_distance(np.array([0.25, 1.0]), margin=0.5).tolist()
    [0.375, 0.0]
    """
    return margin * (1 - np.asarray(similarity, dtype=np.float64))


def rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's rank correlation; equal values share their mean rank; NaN of fewer than two values, or of constant ones.

    >>> round(rank_correlation(np.array([1.0, 2, 3]), np.array([0.1, 0.3, 0.2])), 6)
    0.5
    """
    from scipy.stats import rankdata  # half a second: not at import

    if len(a) < 2:
        return float("nan")
    x, y = (rankdata(values) - (len(values) + 1) / 2 for values in (a, b))
    scale = np.sqrt(np.dot(x, x) * np.dot(y, y))
    return float(np.dot(x, y) / scale) if scale > 0 else float("nan")


def _check(descriptors: Sequence[tuple[Descriptors, Descriptors]], labels: Sequence[Labels]) -> None:
    if len(descriptors) != len(labels) or not labels:
        raise InvalidInputError(f"There must be one Labels a scene, and a scene; got {len(descriptors)} scenes and {len(labels)} labels.")
    for (queries, database), one in zip(descriptors, labels, strict=True):
        if queries.names != one.query_names or database.names != one.database_names:
            raise InvalidInputError(
                f"Labels must be of the images that are described, in their order; {one!r} is of others than {queries!r} and {database!r}."
            )
        if queries.model != database.model or queries.dim != database.dim:
            raise InvalidInputError(
                f"Queries and database must be described by one model; got {queries!r} and {database!r}. Extract both with the same."
            )


def _above(queries: Descriptors, database: Descriptors, labels: Labels) -> NDArray[np.float64]:
    """The distances of the pairs above 0, in the order of the matrix."""
    rows = np.repeat(np.arange(len(queries)), np.diff(labels.matrix.indptr))
    return _distances(queries, database, rows, labels.matrix.indices)


def _distances(queries: Descriptors, database: Descriptors, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float64]:
    """(p,) of the pairs (row, column), gathered so many at once that the buffer holds them."""
    distances = np.empty(len(rows))
    step = max(1, BUFFER_BYTES // (16 * queries.dim))
    for start in range(0, len(rows), step):
        here = slice(start, start + step)
        between = queries.vectors[rows[here]].astype(np.float64) - database.vectors[columns[here]]
        distances[here] = np.sqrt(np.einsum("pd,pd->p", between, between))
    return distances


def _sharing_nothing(
    descriptors: Sequence[tuple[Descriptors, Descriptors]], labels: Sequence[Labels], *, zero_pairs: int, seed: int
) -> NDArray[np.float64]:
    """The distances of pairs of similarity 0: all, or each with the same chance, so that about `zero_pairs` are drawn."""
    total = sum(one.matrix.shape[0] * one.matrix.shape[1] - one.matrix.nnz - _excluded(one).nnz for one in labels)
    share = min(1.0, zero_pairs / max(total, 1))
    random, parts = np.random.default_rng(seed), [np.zeros(0)]
    for (queries, database), one in zip(descriptors, labels, strict=True):
        step = max(1, BUFFER_BYTES // (16 * max(len(database), 1)))
        for start in range(0, len(queries) if share > 0 else 0, step):
            here = slice(start, start + step)
            free = np.ones((len(queries.names[here]), len(database)), dtype=bool)
            for taken in (one.matrix[here], _excluded(one)[here]):
                free[taken.nonzero()] = False
            if share < 1:
                free &= random.random(free.shape) < share
            rows, columns = np.nonzero(free)
            parts.append(_distances(queries, database, start + rows, columns))
    return np.concatenate(parts)


def _excluded(labels: Labels) -> Any:
    assert labels.excluded is not None  # Labels sets it where none is given
    return labels.excluded


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _null(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _nan(value: Any) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise ValueError(f"a value must be a finite number or null; found {value!r}")
    return float(value)
