"""Approximate indexes: a cheap look names candidates, and the candidates' exact distances rank them.

Distances that come out are exact; what may be missing is a neighbour that was no candidate. How often is measured when an index is
made (`covis.indexes.measures`), and stands in the history of every ranking.
"""

from __future__ import annotations

import time
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from covis.descriptors import Descriptors
from covis.errors import CovisWarning
from covis.indexes import measures
from covis.indexes.engine import Found
from covis.indexes.nearest import nearest, rescored
from covis.indexes.stored import Option, StoredIndex
from covis.rankings import Rankings

RESCORE = Option(100, "candidates whose exact distances are computed; more in proportion beyond the k that the recall is of", searches=True)
FEW_ALLOWED = 4
"""Where only one in so many rows may be found, the search is exact among those: that is as quick, and misses none."""
STALE = 0.1
"""The recall is measured anew when so large a share of the vectors was added or deleted since."""

_CANDIDATES = 2 << 20  # candidates of a block of queries, all together


class ApproximateIndex(StoredIndex):
    """What approximate indexes share; a subclass names candidates.

    Attributes:
        k: the recall is of the first one and of the first so many, and the candidates are those for so many.
        build_seconds: of its structures, since it was made or opened.
    """

    SEARCHES: ClassVar[Sequence[Mapping[str, int]]] = ()
    """What the tuner tries of the options of searching, quickest first."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.build_seconds = 0.0
        self.k = measures.K

    @classmethod
    def builds(cls, dim: int) -> list[dict[str, Any]]:
        """What the tuner tries of the options of building, for so many dimensions."""
        return [{}]

    @abstractmethod
    def candidates(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """(q, count) rows of `shards`, dead ones among them, each at most once a query; -1 for none."""

    @abstractmethod
    def build(self) -> None:
        """Take in the vectors that are not in the structures yet."""

    def ready(self) -> None:
        """Build what is missing, and measure the recall where it is not known."""
        self.build_now()
        if self.report is None and len(self):
            self.measure(k=self.k)

    def build_now(self) -> None:
        """Build what is missing, and note how long it took."""
        begun = time.perf_counter()
        self.build()
        self.build_seconds += time.perf_counter() - begun

    def measure(self, queries: Descriptors | None = None, *, k: int = measures.K) -> dict[str, Any]:
        """Hold the index against exact search, and keep the report.

        Args:
            queries: default: a sample of its own vectors, each without itself.
            k: the recall is of the first one and of the first k.

        Raises:
            InvalidInputError: queries of another model, whitening or dimension.
        """
        self.k = k
        sample = measures.sample(self.shards, queries)
        self.report = measures.report(self, sample, measures.truth(self.shards, sample, k), build_seconds=self.build_seconds)
        return self.report

    def add(self, descriptors: Descriptors) -> None:
        """Take in more vectors; what is learned of the first ones (codes, lists) stays as it is, and the recall is measured anew in time.

        Raises:
            InvalidInputError: another model, whitening or dimension, a name that is there already, or a vector that is not finite.
        """
        super().add(descriptors)
        self._changed(len(descriptors))

    def delete(self, names: Sequence[str]) -> None:
        """Take images out; their codes stay, and are never found.

        Raises:
            InvalidInputError: a name is not in the index; then none is taken out.
        """
        super().delete(names)
        self._changed(len(names))

    def search(self, queries: Descriptors, *, k: int, among: Sequence[str] | NDArray[np.bool_] | None = None) -> Rankings:
        """The k nearest that are found; as `StoredIndex.search`, with a CovisWarning where k is beyond that of the measured recall.

        Raises:
            InvalidInputError: k is no whole number >= 1, an empty index, queries of another model, whitening or dimension, or `among`
                keeps none.
        """
        found = super().search(queries, k=k, among=among)
        total, measured = found.history.get("among", len(self)), (self.report or {}).get("k", 0)
        if found.k > measured and not self._exact_among(total, found.k):
            warnings.warn(
                f"The recall of this {self.kind} index was measured at k = {measured}, not at k = {found.k}, where it may be lower. "
                f"Measure it there (k={found.k} when it is made), or search exactly.",
                CovisWarning,
                stacklevel=2,
            )
        return found

    def wanted(self, k: int) -> int:
        """Candidates for k: `rescore`, and in proportion more where k is beyond that of the recall (and the query itself)."""
        return int(self.options["rescore"]) if k <= self.k + 1 else max(-(-int(self.options["rescore"]) * k // self.k), k)

    def _exact_among(self, total: int, k: int) -> bool:
        """Whether a search for k among so many is exact."""
        return total <= max(self.wanted(k), k, self.shards.rows // FEW_ALLOWED)

    def nearest(self, queries: NDArray[np.floating[Any]], k: int, allowed: NDArray[np.bool_] | None) -> Found:
        """(q, min(k, allowed)) squared distances and rows of `shards`, best first; exact where few rows are allowed."""
        total, every = self.shards.rows if allowed is None else int(allowed.sum()), self.shards.rows
        k = min(k, total)
        want = max(self.wanted(k), k)
        if self._exact_among(total, k):
            return nearest(self.shards, queries, k, allowed=allowed)
        self.build()
        count = min(-(-want * every // total), every)
        squared, rows = np.empty((len(queries), k), dtype=np.float32), np.empty((len(queries), k), dtype=np.int64)
        step = max(1, _CANDIDATES // count)
        for start in range(0, len(queries), step):
            block = np.ascontiguousarray(queries[start : start + step], dtype=np.float32)
            found = self.candidates(block, count)
            if allowed is not None:
                found = np.where((found >= 0) & allowed[found], found, -1)
            squared[start : start + step], rows[start : start + step] = rescored(self.shards, block, found, k)
        short = np.flatnonzero(rows[:, -1] < 0) if k else np.zeros(0, dtype=np.int64)
        if short.size:  # a few lists, or neighbours that are dead: no fewer than k, whatever it takes
            squared[short], rows[short] = nearest(self.shards, queries[short], k, allowed=allowed)
        return squared, rows

    def restore(self, report: dict[str, Any] | None) -> None:
        """Take the report that was saved, and its k, unless that was all there were."""
        self.report = report
        if isinstance(report, dict) and report["k"] < report["count"] - 1:
            self.k = int(report["k"])

    def described(self) -> dict[str, Any]:
        """The options and the measured recall, for a ranking's history."""
        told = ("k", "queries", "of", "count", "changed")
        report = self.report or {}
        recall = {name: value for name, value in report.items() if name in told or name.startswith("recall@")}
        return {"options": dict(self.options), "recall": recall}

    def _changed(self, count: int) -> None:
        if self.report is not None:
            changed = self.report["changed"] + count
            self.report = None if changed > STALE * self.report["count"] else {**self.report, "changed": changed}
