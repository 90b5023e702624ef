"""Triplets with mined negatives: the costly way of training, kept to be compared with.

The network describes a part of the training images every so often, and each query learns from those that it confuses
most. It follows the loader of the MSLS benchmark: Warburg et al., "Mapillary Street-Level Sequences: A Dataset for
Lifelong Place Recognition", CVPR 2020; before it NetVLAD, CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError, TrainingDivergedError
from covis.labels import TIE, Labels
from covis.pairs.batches import Pairs, joined
from covis.pairs.classes import POSITIVE, Classes

Describe: TypeAlias = Callable[[int, NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""`(scene, queries, database) -> (q + d, D)`: descriptors by the network as it is now, of these rows of the scene's queries, and
then of these rows of its database."""

BLOCK = 4_000_000
"""Distances that are in memory at once."""


class TripletSampler:
    """Each query with its nearest positive and its hardest negatives, mined anew every `cache` queries.

    At a refresh the next `cache` queries (of those with a positive and `negatives` negatives, in random order, each once
    a pass) are described, with `positives` random positives of each, and `pool` random database images. Of each query,
    its described positive that is nearest and the `negatives` images of the pool that are nearest and are negatives
    become one list of `Pairs`: `database` and `similarity` are (P, 1 + negatives), the positive first, then the
    negatives from hard to easy. All images of a list are of the query's own scene. The pool is shared out among the
    scenes in proportion to their cached queries, at least twice `negatives` images a scene; where it holds too few
    negatives of a query, the rest are random ones that were not described.

    A refresh describes at most cache · (1 + positives) + pool images (and the least pools of small scenes), scene by
    scene: that, times the dimension, times 8 bytes is the memory it needs, and 200 MB for distances.

    What is drawn depends on the labels, the seed and the network at each refresh. `state()` holds the lists mined last,
    so a resumed training draws what an uninterrupted one would have.

    Args:
        labels: one a scene.
        batch: lists a batch.
        seed: of all draws.
        describe: `(scene, queries, database) -> (q + d, D)` float32, descriptors of those rows of that scene's queries, and then
            of those of its database. An image that is asked for on both sides need be described once.
        negatives: of each query.
        cache: queries a refresh.
        pool: random database images described a refresh.
        positives: of each query that are described a refresh; 0: all.
        positive_threshold: similarities from here on are positive.
        negative_threshold: similarities up to here are negative; below `positive_threshold`.
        margin: of `keep`, in the units of the distance.
        keep: "all" queries of a refresh, or only the "violating": those with a negative that is less than `margin`
            further than the positive, so that their triplet loss is above 0. Where none violates, all are kept.

    Raises:
        InvalidInputError: `describe` is missing, no query has a positive and enough negatives, or a parameter is out of
            its range.
        TrainingDivergedError: a descriptor is not finite.

    >>> from scipy import sparse
    >>> names = ("a", "b", "c", "d")
    >>> labels = Labels(sparse.csr_array([[0, 0.8, 0, 0], [0.8, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]), names, names, rule="by hand",
    ...     excluded=sparse.eye_array(4, format="csr"))
    >>> line = np.array([[0.0], [0.1], [0.5], [0.3]], dtype=np.float32)
    >>> described = lambda scene, queries, database: line[np.r_[queries, database]]
    >>> sampler = TripletSampler([labels], batch=2, seed=0, negatives=2, describe=described)
    >>> pairs = next(sampler)
    >>> sorted(zip(pairs.query.tolist(), pairs.database.tolist()))
    [(0, [1, 3, 2]), (1, [0, 3, 2])]
    """

    def __init__(
        self,
        labels: Sequence[Labels],
        *,
        batch: int,
        seed: int,
        describe: Describe | None = None,
        negatives: int = 5,
        cache: int = 1000,
        pool: int = 1000,
        positives: int = 5,
        positive_threshold: float = 0.5,
        negative_threshold: float = 0.0,
        margin: float = 0.1,
        keep: Literal["all", "violating"] = "all",
    ) -> None:
        if describe is None:
            raise InvalidInputError(
                "Triplets are mined with the network: pass describe, a function of a scene's number and of rows of its images that gives "
                "their (n, D) descriptors. Training passes its own."
            )
        _check_least({"batch": batch, "negatives": negatives, "cache": cache, "pool": pool}, 1)
        _check_least({"positives": positives, "margin": margin}, 0)
        if not 0 <= negative_threshold < positive_threshold <= 1:
            raise InvalidInputError(
                "The thresholds must be 0 <= negative_threshold < positive_threshold <= 1; "
                f"got {negative_threshold} and {positive_threshold}."
            )
        if keep not in ("all", "violating"):
            raise InvalidInputError(f"keep must be 'all' or 'violating'; got {keep!r}.")
        self.batch, self.seed, self.negatives, self.cache, self.pool, self.positives = batch, seed, negatives, cache, pool, positives
        self.margin, self.keep = margin, keep
        self._describe = describe
        self._classes = Classes(labels, threshold=positive_threshold)
        self._scenes = [_Negatives(one, negative_threshold) for one in labels]
        enough = np.concatenate([np.zeros(0, dtype=np.int64), *(one.count for one in self._scenes)]) >= negatives
        self._eligible = np.flatnonzero(enough & (self._classes.counts[:, POSITIVE] > 0))
        if not len(self._eligible):
            raise InvalidInputError(
                f"No query of {len(enough)} in {len(labels)} scenes has a positive (similarity >= {positive_threshold}) and {negatives} "
                f"negatives (<= {negative_threshold}). Look at the labels' summary, or ask for fewer negatives."
            )
        self._refreshes, self._start = 0, 0
        self._hold(None)

    def __iter__(self) -> Iterator[Pairs]:
        return self

    def __next__(self) -> Pairs:
        parts: list[Pairs] = []
        missing = self.batch
        while missing:
            if self._mined is None or self._start == len(self._mined):
                self._hold(self._mine(self._refreshes))
                self._refreshes, self._start = self._refreshes + 1, 0
            assert self._mined is not None
            taken = self._mined[self._start : self._start + missing]
            self._start += len(taken)
            missing -= len(taken)
            parts.append(taken)
        return joined(parts)

    def state(self) -> dict[str, Any]:
        """Where the sampler is, and the lists mined last."""
        return {"refreshes": self._refreshes, "start": self._start, **self._lists}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()` of a sampler with the same labels, seed and settings."""
        self._refreshes, self._start = int(state["refreshes"]), int(state["start"])
        scene, query, database = (np.array(state[name], dtype=np.int64) for name in ("scene", "query", "database"))
        self._hold(Pairs(scene, query, database, np.array(state["similarity"]), np.ones(len(query))) if len(query) else None)

    def _hold(self, mined: Pairs | None) -> None:
        """Keep what was mined, as arrays, and once as the lists that every `state()` gives."""
        self._mined = mined
        names = ("scene", "query", "database", "similarity")
        self._lists: dict[str, list[Any]] = {name: [] if mined is None else getattr(mined, name).tolist() for name in names}

    def _mine(self, number: int) -> Pairs:
        """The lists of one refresh."""
        random = np.random.default_rng([self.seed, number, 1])
        rows = self._queries(number)
        scene, query = self._classes.scene[rows], self._classes.query[rows]
        database = np.empty((len(rows), 1 + self.negatives), dtype=np.int64)
        similarity = np.empty(database.shape)
        violating = np.empty(len(rows), dtype=bool)
        for one in np.unique(scene):
            here = np.flatnonzero(scene == one)
            database[here], similarity[here], violating[here] = self._mine_scene(int(one), rows[here], len(here) / len(rows), random)
        kept = violating if self.keep == "violating" and violating.any() else np.ones(len(rows), dtype=bool)
        return Pairs(scene[kept], query[kept], database[kept], similarity[kept], np.ones(int(kept.sum())))

    def _queries(self, number: int) -> NDArray[np.int64]:
        """The queries of a refresh: the next part of a pass over all that are eligible."""
        parts = -(-len(self._eligible) // self.cache)
        order = np.random.default_rng([self.seed, number // parts, 0]).permutation(self._eligible)
        return np.array_split(order, parts)[number % parts]

    def _mine_scene(
        self, scene: int, rows: NDArray[np.int64], share: float, random: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """Database rows and similarities (n, 1 + negatives) of the queries of one scene, and which of them violate the margin."""
        negatives = self._scenes[scene]
        query = self._classes.query[rows]
        owner, positive, positive_similarity = self._positives(rows, random)
        size = min(negatives.width, max(2 * self.negatives, round(self.pool * share)))
        pool = np.sort(random.choice(negatives.width, size, replace=False))
        images = np.union1d(positive, pool)
        at, vectors = self._described(scene, query, images)
        apart = np.linalg.norm(at[owner] - vectors[np.searchsorted(images, positive)], axis=1)
        first = np.lexsort((apart, owner))[np.searchsorted(owner, np.arange(len(rows)))]  # owner ascends: each query's nearest
        database, similarity, near = negatives.hardest(query, at, pool, vectors[np.searchsorted(images, pool)], self.negatives)
        for row in np.flatnonzero(database[:, -1] < 0):
            database[row], similarity[row] = negatives.filled(int(query[row]), database[row], similarity[row], random)
        return (
            np.column_stack([positive[first], database]),
            np.column_stack([positive_similarity[first], similarity]),
            near < apart[first] + self.margin,
        )

    def _positives(
        self, rows: NDArray[np.int64], random: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Random positives of each query: whose they are (a place in `rows`, ascending), their database rows and similarities."""
        counts = self._classes.counts[rows, POSITIVE]
        asked = np.minimum(counts, self.positives) if self.positives else counts
        ranks = [random.choice(of, number, replace=False) for of, number in zip(counts, asked, strict=True)]
        owner = np.repeat(np.arange(len(rows)), asked)
        return owner, *self._classes.take(rows[owner], np.full(len(owner), POSITIVE), np.concatenate(ranks))

    def _described(
        self, scene: int, queries: NDArray[np.int64], database: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The descriptors of these queries, and of these database images."""
        found, rows = np.asarray(self._describe(scene, queries, database), dtype=np.float64), np.concatenate([queries, database])
        if found.ndim != 2 or len(found) != len(rows):
            raise InvalidInputError(f"describe must give (n, D) descriptors for n rows; for {len(rows)} rows it gave {found.shape}.")
        bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if bad.size:
            side = "query" if bad[0] < len(queries) else "database image"
            raise TrainingDivergedError(
                f"The descriptor of {side} {rows[bad[0]]} of training scene {scene} is not finite, so nothing can be mined. "
                "Lower the learning rate, or clip the gradient (gradient_clip = 1)."
            )
        return found[: len(queries)], found[len(queries) :]


def _check_least(values: Mapping[str, float], bound: int) -> None:
    for name, value in values.items():
        if not value >= bound:
            raise InvalidInputError(f"{name} must be at least {bound}; got {value}.")


class _Negatives:
    """Which database images of a scene are a query's negatives, and the hardest of them in a pool."""

    def __init__(self, labels: Labels, threshold: float) -> None:
        assert labels.excluded is not None
        barred = labels.matrix.copy()
        barred.data = (barred.data > threshold + TIE).astype(np.float64)
        self._matrix, self._barred = labels.matrix, barred.astype(bool) + labels.excluded
        self._barred.eliminate_zeros()
        self.width = labels.matrix.shape[1]
        self.count = self.width - np.diff(self._barred.indptr)

    def hardest(
        self, query: NDArray[np.int64], at: NDArray[np.float64], pool: NDArray[np.int64], vectors: NDArray[np.float64], negatives: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Each query's nearest negatives of the pool, nearest first, -1 where there are no more; their similarities; the least distance."""
        database = np.full((len(query), negatives), -1)
        similarity, near = np.zeros(database.shape), np.empty(len(query))
        squares = (vectors**2).sum(axis=1)
        step = max(1, BLOCK // len(pool))
        for start in range(0, len(query), step):
            part = slice(start, start + step)
            distance = squares - 2 * at[part] @ vectors.T + (at[part] ** 2).sum(axis=1)[:, None]
            distance[self._barred[query[part]][:, pool].toarray()] = np.inf
            order = np.argpartition(distance, min(negatives, len(pool)) - 1, axis=1)[:, :negatives]
            order = np.take_along_axis(order, np.argsort(np.take_along_axis(distance, order, axis=1), axis=1, kind="stable"), axis=1)
            found = np.take_along_axis(distance, order, axis=1)
            width = order.shape[1]
            database[part, :width] = np.where(np.isfinite(found), pool[order], -1)
            graded = self._matrix[query[part]][:, pool].toarray()
            similarity[part, :width] = np.where(np.isfinite(found), np.take_along_axis(graded, order, axis=1), 0)
            near[part] = np.sqrt(np.maximum(found[:, 0], 0))
        return database, similarity, near

    def filled(
        self, query: int, database: NDArray[np.int64], similarity: NDArray[np.float64], random: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """A query's list with random negatives where the pool held too few."""
        held = self._barred.indices[self._barred.indptr[query] : self._barred.indptr[query + 1]]
        free = np.setdiff1d(np.arange(self.width), np.concatenate([held, database]))
        missing = database < 0
        more = random.choice(free, int(missing.sum()), replace=False)
        graded = self._matrix[[query]].toarray()[0, more]
        return np.concatenate([database[~missing], more]), np.concatenate([similarity[~missing], graded])
