"""What a ranking is worth, one value a query.

A metric is a function `(hits, *, k, …) -> (q,)`, NaN where it is not defined. `Hits` is what `hits` makes of a ranking and
of what is correct: once a scene, for all metrics and every k.

    view = hits(rankings, positives, excluded=…, searched=…, similarity=…, short=…)
    values = {f"{name}@{k}": metric(view, k=k) for name, metric in METRICS.items() if view.has(*NEEDS[name]) for k in ks}

A metric of your own reads `view.correct[:, : view.depth(k)]`, and is a line of METRICS and one of NEEDS. NaN means for
recall and mAP that the query has no positive (a miss, where a protocol counts all queries), for the others that the question
has no answer. What has one value for all queries together is in `covis.curves`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from covis.curves import PooledPrecision as PooledPrecision
from covis.errors import InvalidInputError
from covis.hits import Hits, Part, Positives, Short, hits, needed
from covis.rankings import Rankings

Values: TypeAlias = NDArray[np.float64]


def recall_at(rankings: Rankings, positives: Positives, *, k: int, excluded: Positives | None = None, short: Short = "refuse") -> Values:
    """recall@k of a ranking in one call: `recall(hits(rankings, positives, …), k=k)`.

    Args:
        rankings: (q, found) best first.
        positives: (q, d) CSR bool.
        k: >= 1.
        excluded: (q, d) CSR bool: pairs that take no rank (an image with itself).
        short: where fewer than k were found of a database that has more, an error ("refuse"), or what is there ("use").

    Returns:
        (q,) float64.

    Raises:
        InvalidInputError: the shapes differ, or the ranking is too short to know.

    >>> from scipy import sparse
    >>> found = Rankings([[2, 0]], [[0.1, 0.5]], ("q",), ("a", "b", "c"))
    >>> near = sparse.csr_array([[True, False, False]])
    >>> recall_at(found, near, k=1), recall_at(found, near, k=2)
    (array([0.]), array([1.]))
    """
    return recall(hits(rankings, positives, excluded=excluded, short=short), k=k)


def recall(hits: Hits, *, k: int) -> Values:
    """recall@k: 1 where a positive is among the first k, else 0; NaN for a query without any positive.

    The field's meaning of the word (Arandjelović et al., "NetVLAD", CVPR 2016): whether one positive is found, not which
    share of them.

    Raises:
        InvalidInputError: `Hits.depth` refuses; so do all metrics.
    """
    found = hits.correct[:, : hits.depth(k, metric="recall")].any(axis=1)
    return np.where(hits.positives == 0, np.nan, found)


def average_precision(hits: Hits, *, k: int, convention: Literal["msls", "relevant", "found"] = "msls") -> Values:
    """AP@k, whose mean is mAP@k; NaN for a query without any positive.

    AP@k = 1/n Σ_(i <= k) [rank i is correct] · (correct among the first i) / i, where n is

        "msls"      min(positives, k): the MSLS script (mapillary_sls, utils/eval.py). 1 is always in reach
        "relevant"  positives: TREC's, as ranx and pytorch-metric-learning have it. 1 needs k >= positives
        "found"     correct among the first k, and 0 where there is none: torchmetrics. Missing positives cost nothing

    In [0, 1]; at k = 1 "msls" and "found" are recall@1.

    Raises:
        InvalidInputError: the convention is none of these.

    >>> from scipy import sparse
    >>> found = Rankings([[0, 4, 1]], [[0.1, 0.2, 0.3]], ("q",), tuple("abcde"))
    >>> view = hits(found, sparse.csr_array([[True, True, True, True, False]]))
    >>> [round(float(average_precision(view, k=3, convention=c)[0]), 3) for c in ("relevant", "msls", "found")]
    [0.417, 0.556, 0.833]
    """
    correct = hits.correct[:, : hits.depth(k, metric="mAP")]
    total: Values = (correct * np.cumsum(correct, axis=1) / np.arange(1, correct.shape[1] + 1)).sum(axis=1)
    divisors = {"msls": np.minimum(hits.positives, k), "relevant": hits.positives, "found": np.count_nonzero(correct, axis=1)}
    if convention not in divisors:
        raise InvalidInputError(f"The convention of mAP@k must be one of {', '.join(map(repr, divisors))}; got {convention!r}.")
    return np.where(hits.positives == 0, np.nan, total / np.maximum(divisors[convention], 1))


def graded_recall(hits: Hits, *, k: int) -> Values:
    """Graded recall@k: the best similarity among the first k, in [0, 1]; recall@k where similarity is 0 or 1.

    0 where none of them overlaps the query. NaN for a query that overlaps no image that may take a rank: there was
    nothing to find. It is not divided by the best similarity that the database offers, which bounds it: 0.4 is what one
    sees of the place in the best image found, whether or not a better one was there (nDCG@1 is the quotient).
    """
    found: Values = needed(hits.similarity)[:, : hits.depth(k, metric="graded-recall")].max(axis=1, initial=0)
    return np.where(np.diff(needed(hits.graded).indptr) == 0, np.nan, found)


def ndcg(hits: Hits, *, k: int) -> Values:
    """nDCG@k with similarity s as gain: DCG / IDCG, DCG = Σ_(i <= k) s_i / log2(i + 1), in [0, 1].

    IDCG is the DCG of the best k images that may take a rank: 1 means that no order and no choice is better. NaN for a
    query that overlaps none of them. Linear gain, after Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR
    techniques", TOIS 2002, with the discount of scikit-learn's `ndcg_score`.
    """
    gains = needed(hits.similarity)[:, : hits.depth(k, metric="nDCG")]
    found, ideal = ((part / np.log2(np.arange(2, part.shape[1] + 2))).sum(axis=1) for part in (gains, hits.best(k)))
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is meant
        quotient: Values = np.minimum(found / ideal, 1.0)
    return quotient


def rank_correlation(hits: Hits, *, k: int) -> Values:
    """Spearman's rho between -distance and similarity within the first k, in [-1, 1]: does nearer mean more overlap?

    Equal values share the mean of their ranks; rho is Pearson's correlation of the ranks. NaN where distances or
    similarities are all equal, one of the distances is unknown, or fewer than three images were found.
    """
    columns = slice(hits.depth(k, metric="rank-correlation"))
    filled, distances, similarity = hits.filled[:, columns], hits.distances[:, columns], needed(hits.similarity)[:, columns]
    counts = np.count_nonzero(filled, axis=1)
    falling = np.where(filled, -similarity, np.nan)
    order = np.argsort(falling, axis=1)
    near, alike = _ranks(distances), np.empty(filled.shape)
    np.put_along_axis(alike, order, _ranks(np.take_along_axis(falling, order, axis=1)), axis=1)
    middle = (counts[:, None] + 1) / 2  # the mean of the ranks 1 … n, ties or not
    near, alike = (np.where(filled, ranks - middle, 0) for ranks in (near, alike))
    with np.errstate(invalid="ignore"):  # 0 / 0 where one of them is constant
        rho = (near * alike).sum(axis=1) / np.sqrt((near**2).sum(axis=1) * (alike**2).sum(axis=1))
    unknown = (np.isnan(distances) & filled).any(axis=1)
    return np.where(unknown | (counts < 3), np.nan, np.clip(rho, -1, 1))


def position_error(hits: Hits, queries: ArrayLike, database: ArrayLike) -> Values:
    """Metres between each query and its best match (rank 1); NaN where there is none, or it is no database image.

    Args:
        hits: of one scene, whose positions are in one frame.
        queries: (q, 2) metres.
        database: (d, 2) metres.

    Raises:
        InvalidInputError: the shapes are not those of the hits.
    """
    asked, searched = (np.asarray(side, dtype=np.float64) for side in (queries, database))
    shapes = (len(hits), 2), (len(hits.database_names), 2)
    if (asked.shape, searched.shape) != shapes:
        raise InvalidInputError(
            f"Positions must be (queries, 2) = {shapes[0]} and (database, 2) = {shapes[1]}; got {asked.shape} and {searched.shape}."
        )
    rows, _, _ = hits.match()
    east, north = (asked - np.vstack([searched, [[np.nan, np.nan]]])[rows]).T  # a row of -1 reads the last
    error: Values = np.hypot(east, north)
    return error


def _ranks(ordered: NDArray[np.floating]) -> Values:
    """(q, n) the rank from 1 of each value of a sorted row; equal values share the mean of theirs, NaN is equal to none."""
    begins = np.ones(ordered.shape, dtype=bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    ends = np.roll(begins, -1, axis=1)  # a run ends where the next begins; the first one's True is carried to the end
    place = np.arange(1, ordered.shape[1] + 1)
    first = np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    last = np.minimum.accumulate(np.where(ends, place, len(place))[:, ::-1], axis=1)[:, ::-1]
    ranks: Values = (first + last) / 2
    return ranks


METRICS: dict[str, Callable[..., Values]] = {
    "recall": recall,
    "mAP": average_precision,
    "graded-recall": graded_recall,
    "nDCG": ndcg,
    "rank-correlation": rank_correlation,
}
"""Name -> metric: `(hits, *, k, …) -> (q,)`, NaN where it is not defined; reported as `name@k`. mAP also takes a `convention`."""

NEEDS: dict[str, tuple[Part, ...]] = {
    "recall": (),
    "mAP": (),
    "graded-recall": ("similarity",),
    "nDCG": ("similarity",),
    "rank-correlation": ("similarity", "distances"),
}
"""Name -> what the metric needs of the hits beside what is correct, for `Hits.has`."""
