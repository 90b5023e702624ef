"""Pairs for training, drawn from Labels: no mining, never a dense matrix, resumable at any batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from covis.errors import InvalidInputError
from covis.labels import TIE, Labels


@dataclass(frozen=True, eq=False)
class Pairs:
    """A batch of P pairs.

    Attributes:
        scene: (P,) int64, which scene of the list.
        query: (P,) int64, the row among that scene's queries.
        database: (P,) int64, the row among that scene's database images; (P, 1 + negatives) for triplets.
        similarity: (P,) float64 in [0, 1].
        weight: (P,) float64, >= 0.

    Raises:
        InvalidInputError: the lengths differ, or a value is out of its range.
    """

    scene: NDArray[np.int64]
    query: NDArray[np.int64]
    database: NDArray[np.int64]
    similarity: NDArray[np.float64]
    weight: NDArray[np.float64]

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in ("scene", "query", "database", "similarity", "weight")}
        if len(lengths) != 1:
            raise InvalidInputError(f"The columns of Pairs must have one length; got {sorted(lengths)}.")
        if not ((self.similarity >= 0) & (self.similarity <= 1)).all() or not (self.weight >= 0).all():
            raise InvalidInputError("The similarities of Pairs must be in [0, 1] and their weights >= 0.")

    def __len__(self) -> int:
        return len(self.query)


class GradedSampler:
    """GCL's sampler: for each query a class, then one database image of that class, uniformly.

    The classes are positive (similarity >= 0.5), soft (above 0, below 0.5) and zero. All queries of all scenes come
    once a pass, in a new order each pass. Excluded pairs are never drawn. What is drawn depends only on the labels,
    the seed and the number of the batch, so a resumed run draws what an uninterrupted one would have.

    Args:
        labels: one a scene.
        batch: pairs a batch.
        seed: of all draws.
        composition: the share of positive, soft and zero pairs.
        on_empty: where a query has no image of the class drawn: "skip" drops the query for this pass (the paper's
            way; shares then deviate from the composition), "resample" draws among the classes that it has.
        threshold: the cut between positive and soft.
        describe: not used; samplers that mine call it.

    Raises:
        InvalidInputError: no pair can be drawn at all, or a parameter is out of its range.

    Follows methods A.4: "Data-efficient Large Scale Place Recognition with Graded Similarity Supervision", CVPR 2023.

    >>> labels = Labels(sparse.csr_array([[0.0, 0.7, 0.2], [0.9, 0.0, 0.0]]), ("q", "r"), ("a", "b", "c"), rule="by hand")
    >>> pairs = next(GradedSampler([labels], batch=4, seed=1))
    >>> bool((pairs.similarity == labels.matrix.toarray()[pairs.query, pairs.database]).all())
    True
    """

    def __init__(
        self,
        labels: Sequence[Labels],
        *,
        batch: int,
        seed: int,
        composition: Sequence[float] = (0.5, 0.25, 0.25),
        on_empty: Literal["skip", "resample"] = "skip",
        threshold: float = 0.5,
        describe: object = None,
    ) -> None:
        shares = np.asarray(composition, dtype=np.float64)
        if shares.shape != (3,) or not (shares >= 0).all() or abs(shares.sum() - 1) > 1e-6:
            raise InvalidInputError(
                f"The composition must be three shares (positive, soft, zero) that add up to 1; got {list(composition)}."
            )
        if batch < 1 or on_empty not in ("skip", "resample"):
            raise InvalidInputError(f"batch must be >= 1 and on_empty 'skip' or 'resample'; got {batch} and {on_empty!r}.")
        if not 0 < threshold <= 1:
            raise InvalidInputError(f"The threshold between positive and soft must be a similarity in (0, 1]; got {threshold}.")
        self.batch, self.seed, self.on_empty = batch, seed, on_empty
        self._shares = shares
        self._classes = [_SceneClasses(one, threshold) for one in labels]
        self._counts = np.concatenate([one.counts for one in self._classes]) if labels else np.zeros((0, 3), dtype=np.int64)
        self._scene = np.repeat(np.arange(len(self._classes)), [len(one.counts) for one in self._classes])
        self._query = np.concatenate([np.arange(len(one.counts)) for one in self._classes]) if labels else np.zeros(0, dtype=np.int64)
        if not ((self._counts > 0) & (shares > 0)).any():
            raise InvalidInputError(
                f"The labels hold no pair of any class in the composition {list(composition)}; {len(self._counts)} "
                f"queries in {len(labels)} scenes. Look at the labels' summary."
            )
        self._number, self._start = 0, 0
        self._drawn = self._draw(0)

    def __iter__(self) -> Iterator[Pairs]:
        return self

    def __next__(self) -> Pairs:
        parts: list[Pairs] = []
        missing = self.batch
        while missing:
            taken = _rows(self._drawn, slice(self._start, self._start + missing))
            self._start += len(taken)
            missing -= len(taken)
            parts.append(taken)
            if missing:
                self._number, self._start = self._number + 1, 0
                self._drawn = self._draw(self._number)
        return parts[0] if len(parts) == 1 else _joined(parts)

    def state(self) -> dict[str, int]:
        """Where the sampler is: enough to go on from there."""
        return {"pass": self._number, "start": self._start}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from `state()` of a sampler with the same labels, seed and settings."""
        self._number, self._start = int(state["pass"]), int(state["start"])
        self._drawn = self._draw(self._number)

    def _draw(self, number: int) -> Pairs:
        """All pairs of one pass, in their order."""
        random = np.random.default_rng([self.seed, number])
        order = random.permutation(len(self._counts))
        kind_draw, pick_draw = random.random(len(order)), random.random(len(order))
        counts = self._counts[order]
        shares = np.broadcast_to(self._shares, counts.shape)
        if self.on_empty == "resample":
            shares = np.where(counts > 0, shares, 0)
            shares = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-300)
        kind = (kind_draw[:, None] >= np.cumsum(shares, axis=1)[:, :2]).sum(axis=1)
        # A class without a share is never drawn, not even where a query has no other.
        available = np.where(self._shares[kind] > 0, counts[np.arange(len(order)), kind], 0)
        kept = np.flatnonzero(available > 0)
        rank = np.minimum((pick_draw[kept] * available[kept]).astype(np.int64), available[kept] - 1)
        return self._pairs(order[kept], kind[kept], rank)

    def _pairs(self, rows: NDArray[np.int64], kind: NDArray[np.int64], rank: NDArray[np.int64]) -> Pairs:
        scene, query = self._scene[rows], self._query[rows]
        database, similarity = np.empty(len(rows), dtype=np.int64), np.empty(len(rows))
        for number, classes in enumerate(self._classes):
            here = np.flatnonzero(scene == number)
            database[here], similarity[here] = classes.take(query[here], kind[here], rank[here])
        return Pairs(scene, query, database, similarity, np.ones(len(rows)))


class _SceneClasses:
    """One scene's pairs by class: how many each query has, and the r-th of them without a dense row."""

    def __init__(self, labels: Labels, threshold: float) -> None:
        matrix = labels.matrix
        positive = matrix.data >= threshold - TIE
        self.listed = [_Rows(matrix, positive), _Rows(matrix, ~positive)]
        assert labels.excluded is not None
        taken = sparse.csr_array(matrix.astype(bool) + labels.excluded)
        taken.sort_indices()
        queries, database = matrix.shape
        self.width = database
        taken_count = np.diff(taken.indptr)
        self.counts = np.stack([self.listed[0].count, self.listed[1].count, database - taken_count], axis=1)
        # The r-th free column of a row is r + the number of taken columns c_j (j-th of the row) with c_j - j <= r.
        # One sorted key over all rows answers that for any mix of rows by one binary search.
        row = np.repeat(np.arange(queries), taken_count)
        position = np.arange(taken.nnz) - taken.indptr[row]
        self.key = row * (database + 1) + (taken.indices - position)
        self.start = taken.indptr

    def take(
        self, query: NDArray[np.int64], kind: NDArray[np.int64], rank: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The database row and similarity of the rank-th pair of that class of each query."""
        database, similarity = np.empty(len(query), dtype=np.int64), np.zeros(len(query))
        for number, listed in enumerate(self.listed):
            here = np.flatnonzero(kind == number)
            place = listed.start[query[here]] + rank[here]
            database[here], similarity[here] = listed.column[place], listed.value[place]
        here = np.flatnonzero(kind == 2)
        before = np.searchsorted(self.key, query[here] * (self.width + 1) + rank[here], side="right") - self.start[query[here]]
        database[here] = rank[here] + before
        return database, similarity


class _Rows:
    """The chosen entries of a CSR matrix, row after row."""

    def __init__(self, matrix: sparse.csr_array, chosen: NDArray[np.bool_]) -> None:
        self.column, self.value = matrix.indices[chosen].astype(np.int64), matrix.data[chosen]
        self.start = np.concatenate([[0], np.cumsum(chosen)])[matrix.indptr]
        self.count = np.diff(self.start)


def _rows(pairs: Pairs, rows: slice) -> Pairs:
    return Pairs(pairs.scene[rows], pairs.query[rows], pairs.database[rows], pairs.similarity[rows], pairs.weight[rows])


def _joined(parts: Sequence[Pairs]) -> Pairs:
    names = ("scene", "query", "database", "similarity", "weight")
    return Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


SAMPLERS: dict[str, type[GradedSampler]] = {"graded": GradedSampler}
"""Name -> sampler: `(labels, *, batch, seed, describe=None, …) -> Iterator[Pairs]` with `state` and `restore`."""
