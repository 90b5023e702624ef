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
from covis.indexes.pieces import Piece, as_float32
from covis.indexes.shards import Shards

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
_TOGETHER = 16_384  # queries of one pass over the vectors, at most
_ENTRIES = 1 << 20  # candidates of one pass, of all its queries


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
    open_, wide = np.arange(len(queries)), min(k + SPARE, total)
    for _ in range(2):
        left = [open_[:0]]
        for some in _together(open_, wide, queries.shape[1]):
            asked = queries[some]
            bounds, candidates = scan(lambda few: shards.pieces(allowed, few=few), asked, wide)
            squared[some], rows[some] = rescored(shards, asked, candidates, k)
            if wide < total:
                left.append(some[_beyond(asked, squared[some, -1]) >= bounds[:, -1]])
        open_, wide = np.concatenate(left), min(8 * wide, total)
    for some in _together(open_, _ENTRIES // 256, queries.shape[1]):
        asked = np.asarray(queries[some], dtype=np.float32)
        squared[some], rows[some] = _within(shards, asked, k, squared=squared[some, -1], allowed=allowed)
    return squared, rows


def _together(queries: NDArray[np.int64], wide: int, dim: int) -> Iterator[NDArray[np.int64]]:
    """Queries in parts that are asked at once: their vectors and candidates take a bounded memory, however many there are."""
    step = max(64, min(_TOGETHER, _ENTRIES // max(1, wide), _ASKED // (4 * dim)))
    for start in range(0, len(queries), step):
        yield queries[start : start + step]


def scan(pieces: Callable[[bool], Iterable[Piece]], queries: NDArray[np.floating[Any]], k: int) -> Found:
    """Squared distances as matrix products give them, and rows, of the k nearest of all pieces; a piece is read once.

    Args:
        pieces: gives the pieces; asked with true it gives those for few queries.
        queries: (q, dim).
        k: at most as many as the pieces hold.
    """
    few = len(queries) <= FEW
    step = min(QUERIES, max(256, _ASKED // (4 * queries.shape[1])))
    best = np.full((len(queries), k), np.inf, dtype=np.float32), np.full((len(queries), k), -1, dtype=np.int64)
    for piece in pieces(few):
        for start in range(0, len(queries), step):
            block = np.ascontiguousarray(queries[start : start + step], dtype=np.float32)
            squared, rows = (_few if few else _many)(piece, block, k)
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
    k = min(k + len(piece.hidden), len(piece.rows))
    squared, rows = engine.knn(queries, piece.vectors, k)
    if len(piece.hidden):
        hidden = np.zeros(len(piece.rows), dtype=np.bool_)
        hidden[piece.hidden] = True
        squared[hidden[rows]] = np.inf
    return squared, piece.rows[rows]


def _few(piece: Piece, queries: NDArray[np.float32], k: int) -> Found:
    values, k = _values(piece, queries, 0, len(piece.rows)), min(k, len(piece.rows))
    rows = np.argpartition(values, k - 1, axis=1)[:, :k] if k < values.shape[1] else np.tile(np.arange(k), (len(values), 1))
    return np.take_along_axis(values, rows, axis=1), piece.rows[rows]


def _values(piece: Piece, queries: NDArray[np.float32], first: int, last: int) -> NDArray[np.float32]:
    """(q, last - first) squared distances as products give them; infinite of what is hidden."""
    assert piece.norms is not None  # those for few queries have them
    values = np.empty((len(queries), last - first), dtype=np.float32)
    step, asked = max(1, _CACHED // (4 * queries.shape[1])), np.ascontiguousarray(queries.T)
    for start in range(first, last, step):
        stop = min(start + step, last)
        values[:, start - first : stop - first] = (as_float32(piece.vectors[start:stop]) @ asked).T
    values *= -2
    values += piece.norms[first:last]
    values += np.einsum("ij,ij->i", queries, queries)[:, None]
    hidden = piece.hidden[(piece.hidden >= first) & (piece.hidden < last)]
    values[:, hidden - first] = np.inf
    return values


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


def _within(
    shards: Shards, queries: NDArray[np.float32], k: int, *, squared: NDArray[np.float32], allowed: NDArray[np.bool_] | None
) -> Found:
    """The k nearest of queries of which so many are known to be within a squared distance each: all that may be are looked at."""
    bounds = _beyond(queries, squared)
    best = np.full((len(queries), k), np.inf, dtype=np.float32), np.full((len(queries), k), -1, dtype=np.int64)
    step = max(1, _ENTRIES // len(queries))
    for piece in shards.pieces(allowed, few=True):
        for start in range(0, len(piece.rows), step):
            near = _values(piece, queries, start, min(start + step, len(piece.rows))) <= bounds[:, None]
            if not near.any():
                continue
            found = _padded(near, piece.rows[start : start + step])
            best = _merged(best, rescored(shards, queries, found, k), k)  # the earlier rows stand first in a stable sort
            bounds[best[0][:, -1] == 0] = -np.inf  # no later row is before those
    return best


def _padded(near: NDArray[np.bool_], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(q, most of a query) the rows that a mask names, -1 behind them."""
    query, position = np.nonzero(near)
    counts = np.bincount(query, minlength=len(near))
    found = np.full((len(near), int(counts.max())), -1, dtype=np.int64)
    found[query, np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)] = rows[position]
    return found
