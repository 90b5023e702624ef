"""Exact nearest neighbours: a fast float32 pass for candidates, then their distances anew, then a check that none was missed.

Matrix products give ||q||² + ||x||² - 2 q·x, whose rounding depends on the number of queries and can swap near neighbours. The
candidates' distances are therefore computed again as Σ (q - x)², in one order of summing; ties are resolved by row. Where the last
candidate is not clearly farther than the last neighbour, more candidates are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.indexes import engine
from covis.indexes.engine import Found
from covis.indexes.shards import Piece, Shards

FEW = 16
"""Up to so many queries numpy's products of narrow matrices are quicker than FAISS."""
QUERIES = 2048
"""Queries that FAISS takes at once, at most: its buffer is then 32 MB."""
SPARE = 16
"""Candidates beyond k."""
ROUNDING = 4 * 2.0**-24
"""Of a float32 product of d terms, by the square root of d: four times what errors of random sign add up to."""

_ASKED = 16 << 20  # bytes of queries in one step
_CACHED = 2 << 20  # bytes of vectors in one step: what stays in a processor's cache is ten times quicker to subtract and square


def nearest(shards: Shards, queries: NDArray[np.floating[Any]], k: int, *, allowed: NDArray[np.bool_] | None = None) -> Found:
    """Squared distances and rows of the k nearest among the rows that are allowed, best first, ties by row.

    Args:
        shards: the vectors.
        queries: (q, dim) finite.
        k: at most as many as are allowed.
        allowed: a mask over the rows; None: all.
    """
    total = shards.rows if allowed is None else int(allowed.sum())
    k = min(k, total)
    squared, rows = np.empty((len(queries), k), dtype=np.float32), np.empty((len(queries), k), dtype=np.int64)
    open_, wide = np.arange(len(queries)), k + SPARE
    for _ in range(2):
        asked = queries if len(open_) == len(queries) else queries[open_]
        bounds, candidates = scan(lambda few: shards.pieces(allowed, norms=few), asked, min(wide, total))
        squared[open_], rows[open_] = rescored(shards, asked, candidates, k)
        if wide >= total or not len(open_):
            return squared, rows
        open_ = open_[_beyond(asked, squared[open_, -1]) >= bounds[:, -1]]
        wide *= 8
    for query in open_:
        asked = np.asarray(queries[query], dtype=np.float32)
        squared[query], rows[query] = _within(shards, asked, k, squared=squared[query, -1], allowed=allowed)
    return squared, rows


def scan(pieces: Callable[[bool], Iterable[Piece]], queries: NDArray[np.floating[Any]], k: int) -> Found:
    """Squared distances as matrix products give them, and rows, of the k nearest of all pieces; a piece is read once.

    Args:
        pieces: gives the pieces; asked with true it gives their norms too.
        queries: (q, dim).
        k: at most as many as the pieces hold.
    """
    few = len(queries) <= FEW
    step = min(QUERIES, max(256, _ASKED // (4 * queries.shape[1])))
    best = np.full((len(queries), k), np.inf, dtype=np.float32), np.full((len(queries), k), -1, dtype=np.int64)
    for piece in pieces(few):
        for start in range(0, len(queries), step):
            block = np.ascontiguousarray(queries[start : start + step], dtype=np.float32)
            squared, rows = (_few if few else _many)(piece, block, min(k + len(piece.hidden), len(piece.rows)))
            window = slice(start, start + step)
            best[0][window], best[1][window] = _merged((best[0][window], best[1][window]), (squared, rows), k)
    return best


def rescored(shards: Shards, queries: NDArray[np.floating[Any]], rows: NDArray[np.int64], k: int) -> Found:
    """The k nearest of each query's candidates (q, c) by Σ (q - x)², ties by row; infinite and -1 where there are fewer (rows of -1)."""
    rows = np.sort(rows, axis=1)
    squared = np.full(rows.shape, np.inf, dtype=np.float32)
    flat_rows, flat_squared = rows.reshape(-1), squared.reshape(-1)
    step = max(1, _CACHED // (4 * queries.shape[1]))

    def one(start: int) -> None:
        window = start + np.flatnonzero(flat_rows[start : start + step] >= 0)
        apart = shards.take(flat_rows[window])
        apart -= queries[window // rows.shape[1]]
        flat_squared[window] = np.einsum("ij,ij->i", apart, apart)

    starts = range(0, rows.size, step)
    if len(starts) < 2 or engine.threads() == 1:
        for start in starts:
            one(start)
    else:
        with ThreadPoolExecutor(engine.threads()) as pool:  # numpy holds no lock while it gathers, subtracts and sums
            list(pool.map(one, starts))
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(squared, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _many(piece: Piece, queries: NDArray[np.float32], k: int) -> Found:
    squared, rows = engine.knn(queries, piece.vectors, k)
    if len(piece.hidden):
        hidden = np.zeros(len(piece.rows), dtype=np.bool_)
        hidden[piece.hidden] = True
        squared[hidden[rows]] = np.inf
    return squared, piece.rows[rows]


def _few(piece: Piece, queries: NDArray[np.float32], k: int) -> Found:
    norms = np.einsum("ij,ij->i", piece.vectors, piece.vectors) if piece.norms is None else piece.norms
    values = np.empty((len(queries), len(norms)), dtype=np.float32)
    step, asked = max(1, _CACHED // (4 * queries.shape[1])), np.ascontiguousarray(queries.T)
    for start in range(0, len(norms), step):
        values[:, start : start + step] = (piece.vectors[start : start + step] @ asked).T
    values *= -2
    values += norms
    values += np.einsum("ij,ij->i", queries, queries)[:, None]
    values[:, piece.hidden] = np.inf
    rows = np.argpartition(values, k - 1, axis=1)[:, :k] if k < values.shape[1] else np.tile(np.arange(k), (len(values), 1))
    return np.take_along_axis(values, rows, axis=1), piece.rows[rows]


def _merged(best: Found, more: Found, k: int) -> Found:
    squared, rows = np.concatenate([best[0], more[0]], axis=1), np.concatenate([best[1], more[1]], axis=1)
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    rows = np.take_along_axis(rows, order, axis=1)
    squared = np.take_along_axis(squared, order, axis=1)
    return squared, np.where(np.isinf(squared), -1, rows)


def _beyond(queries: NDArray[np.floating[Any]], squared: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a matrix product gives at most for a vector that is as near as `squared`."""
    lengths = np.sqrt(np.einsum("ij,ij->i", queries, queries, dtype=np.float32))
    scale = (2 * lengths + np.sqrt(squared)) ** 2  # (|q| + |x|)², since |x| <= |q| + |q - x|
    return np.asarray(squared + ROUNDING * np.sqrt(queries.shape[1] + 1) * scale, dtype=np.float32)


def _within(shards: Shards, query: NDArray[np.float32], k: int, *, squared: np.float32, allowed: NDArray[np.bool_] | None) -> Found:
    """The k nearest of one query, of which so many are known to be within a squared distance: all that may be are looked at."""
    bound = _beyond(query[None], np.full(1, squared, dtype=np.float32))[0]
    best = np.full((1, k), np.inf, dtype=np.float32), np.full((1, k), -1, dtype=np.int64)
    for rows in _rows_within(shards, query, bound, allowed):
        best = _merged(best, rescored(shards, query[None], rows[None], k), k)  # the earlier rows stand first in a stable sort
    return best


def _rows_within(
    shards: Shards, query: NDArray[np.float32], bound: np.float32, allowed: NDArray[np.bool_] | None
) -> Iterator[NDArray[np.int64]]:
    for piece in shards.pieces(allowed, norms=True):
        values, rows = _few(piece, query[None], len(piece.rows))
        found = np.sort(rows[values <= bound])
        step = max(1, _CACHED // (4 * len(query)))
        for start in range(0, len(found), step):
            yield found[start : start + step]
