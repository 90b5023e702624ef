"""How an approximate index compares with exact search: recall, queries a second, bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from covis.descriptors import Descriptors
from covis.errors import InvalidInputError
from covis.indexes.engine import Found, threads
from covis.indexes.nearest import nearest
from covis.indexes.shards import Shards, check_alike, squared_norms

if TYPE_CHECKING:
    from covis.indexes.stored import StoredIndex

SAMPLE = 500
"""Queries that are asked."""
K = 25
"""The recall is of the first one and of the first so many."""
OWN = "its own vectors"
"""Where no queries are given."""
OPTIMISTIC = "each without itself: optimistic where queries look different (--queries measures on yours)"
"""Of a recall on an index's own vectors."""

REPORTED = {
    "queries_per_second", "exact_queries_per_second", "k", "queries", "of", "count", "changed", "threads", "build_seconds", "memory_bytes",
    "disk_bytes",
}  # fmt: skip
"""What every report holds beside the recalls."""

_AGAIN = 2.0  # seconds: what takes less is timed twice, so that a first touch of the disk does not count


@dataclass(frozen=True)
class Sample:
    """Queries, and the rows of the same images in the index, which are not counted; -1 where there is none."""

    vectors: NDArray[np.float32]
    own: NDArray[np.int64]
    of: str

    @property
    def beside(self) -> int:
        """How many more are searched for: 1 where a query may find itself."""
        return int((self.own >= 0).any())


@dataclass(frozen=True)
class Truth:
    """Squared distances of the first k exact neighbours of a sample, without the query itself, and how many queries a second that took."""

    squared: NDArray[np.float32]
    rate: float

    @property
    def k(self) -> int:
        """How many neighbours."""
        return int(self.squared.shape[1])


def of_rows(shards: Shards, rows: NDArray[np.int64]) -> Sample:
    """Some of the index's own vectors."""
    rows = np.sort(rows)
    return Sample(shards.take(rows), rows, OWN)


def sample(shards: Shards, queries: Descriptors | None = None) -> Sample:
    """At most `SAMPLE` queries: of those given, or of the index's own living vectors.

    Raises:
        InvalidInputError: queries of another model, whitening or dimension, or not finite.
    """
    random = np.random.default_rng(0)
    if queries is None:
        alive = np.flatnonzero(~shards.dead)
        return of_rows(shards, random.choice(alive, size=min(SAMPLE, len(alive)), replace=False))
    check_alike(shards.sets[0], queries)
    squared_norms(queries)
    if not len(queries):
        raise InvalidInputError("The recall is measured on queries; the set given holds none.")
    chosen = np.sort(random.choice(len(queries), size=min(SAMPLE, len(queries)), replace=False))
    wanted = {queries.names[row]: position for position, row in enumerate(chosen)}
    own = np.full(len(chosen), -1, dtype=np.int64)
    alive = np.flatnonzero(~shards.dead)
    for row, name in zip(alive, shards.names, strict=True):
        if name in wanted:
            own[wanted[name]] = row
    return Sample(np.asarray(queries.vectors[chosen], dtype=np.float32), own, "queries given")


def truth(shards: Shards, asked: Sample, k: int) -> Truth:
    """What exact search finds."""
    allowed = shards.allowed(None)
    k = min(k, len(shards) - asked.beside)
    seconds, found = _timed(lambda: nearest(shards, asked.vectors, k + asked.beside, allowed=allowed))
    return Truth(_without(found, asked.own, k), len(asked.vectors) / seconds)


def compared(index: StoredIndex, asked: Sample, exact: Truth) -> dict[str, Any]:
    """Recall of the first one and of the first k, and queries a second.

    recall@k is the mean share of the first k found that are no farther than the k-th exact neighbour: equal distances are as good.
    """
    allowed = index.shards.allowed(None)
    seconds, found = _timed(lambda: index.nearest(asked.vectors, exact.k + asked.beside, allowed))
    squared = _without(found, asked.own, exact.k)
    shares = {f"recall@{k}": float((squared[:, :k] <= exact.squared[:, k - 1 : k]).mean()) for k in (1, exact.k) if exact.squared.size}
    return {**shares, "queries_per_second": len(asked.vectors) / seconds}


def report(index: StoredIndex, asked: Sample, exact: Truth, *, build_seconds: float) -> dict[str, Any]:
    """What is stored with an index: `compared`, the exact rate, of how many queries, seconds of building, bytes.

    `memory_bytes` are those of its own structures; `disk_bytes` those and the vectors. `changed` counts the vectors that were added
    and deleted since.
    """
    own = index.own_bytes()
    return {
        **compared(index, asked, exact),
        "exact_queries_per_second": exact.rate,
        "k": exact.k,
        "queries": len(asked.vectors),
        "of": asked.of,
        "count": len(index),
        "changed": 0,
        "threads": threads(),
        "build_seconds": build_seconds,
        "memory_bytes": own,
        "disk_bytes": own + sum(int(one.vectors.nbytes) for one in index.shards.sets),
    }


def told(kind: str, options: dict[str, Any], report: dict[str, Any]) -> str:
    """A report in a sentence."""
    recalls = ", ".join(f"{name} {value:.3f}" for name, value in report.items() if name.startswith("recall@")) or "too few to measure"
    settings = ", ".join(f"{name} {value}" for name, value in options.items())
    changed = f", {report['changed']:,} added or deleted since" if report["changed"] else ""
    rates = f"{report['queries_per_second']:,.0f} queries/s (exact {report['exact_queries_per_second']:,.0f}, {report['threads']} threads)"
    sizes = f"{report['memory_bytes'] / 1e6:,.0f} MB of memory, {report['disk_bytes'] / 1e6:,.0f} MB on disk"
    own = f", {'each a node of the graph that is searched, and ' if kind == 'hnsw' else ''}{OPTIMISTIC}" if report["of"] == OWN else ""
    return (
        f"{kind} ({settings}) of {report['count']:,} vectors{changed}: approximate, {recalls} against exact search for "
        f"{report['queries']} of {report['of']}{own}; {rates}; built in {report['build_seconds']:.1f} s; {sizes}"
    )


def _without(found: Found, own: NDArray[np.int64], k: int) -> NDArray[np.float32]:
    """The first k squared distances of others than the query itself."""
    squared, rows = found
    order = np.argsort(rows == own[:, None], axis=1, kind="stable")[:, :k]
    return np.take_along_axis(squared, order, axis=1)


def _timed(function: Callable[[], Found]) -> tuple[float, Found]:
    begun = time.perf_counter()
    found = function()
    seconds = time.perf_counter() - begun
    if seconds < _AGAIN:
        begun = time.perf_counter()
        found = function()
        seconds = min(seconds, time.perf_counter() - begun)
    return max(seconds, 1e-9), found
