"""Samplers that mine nothing: for each query a class, then one database image of that class, uniformly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.labels import TIE, Labels
from covis.pairs.batches import Pairs, joined
from covis.pairs.classes import POSITIVE, SOFT, ZERO, Classes

OnEmpty: TypeAlias = Literal["skip", "resample"]
Balance: TypeAlias = Literal["queries", "scenes"]


class _ClassSampler:
    """Draws by groups of classes: pass after pass over all queries, each pass from its own number."""

    _option = "composition"

    def __init__(
        self,
        labels: Sequence[Labels],
        *,
        batch: int,
        seed: int,
        groups: Mapping[str, tuple[int, ...]],
        shares: Sequence[float],
        on_empty: OnEmpty,
        threshold: float,
        balance: Balance,
        binarize: bool,
    ) -> None:
        self._shares = _checked_shares(shares, list(groups), option=self._option)
        if batch < 1 or on_empty not in ("skip", "resample"):
            raise InvalidInputError(f"batch must be >= 1 and on_empty 'skip' or 'resample'; got {batch} and {on_empty!r}.")
        if not 0 < threshold <= 1:
            raise InvalidInputError(f"The threshold between positive and soft must be a similarity in (0, 1]; got {threshold}.")
        if balance not in ("queries", "scenes"):
            raise InvalidInputError(f"balance must be 'queries' or 'scenes'; got {balance!r}.")
        self.batch, self.seed, self.on_empty, self.balance = batch, seed, on_empty, balance
        self._cut = threshold - TIE if binarize else None
        self._classes = Classes(labels, threshold=threshold)
        self._groups = list(groups.values())
        self._counts = np.stack([self._classes.counts[:, list(kinds)].sum(axis=1) for kinds in self._groups], axis=1)
        drawable = ((self._counts > 0) & (self._shares > 0)).any(axis=1)
        if not drawable.any():
            raise InvalidInputError(
                f"The labels hold no pair of any class in {self._option} = {list(shares)} ({', '.join(groups)}); "
                f"{len(self._counts)} queries in {len(labels)} scenes. Look at the labels' summary."
            )
        self._members = [np.flatnonzero(self._classes.scene == one) for one in np.unique(self._classes.scene[drawable])]
        self._number, self._start = 0, 0
        self._drawn = self._draw(0)

    def __iter__(self) -> Iterator[Pairs]:
        return self

    def __next__(self) -> Pairs:
        parts: list[Pairs] = []
        missing = self.batch
        while missing:
            taken = self._drawn[self._start : self._start + missing]
            self._start += len(taken)
            missing -= len(taken)
            parts.append(taken)
            if missing:
                self._number, self._start = self._number + 1, 0
                self._drawn = self._draw(self._number)
        return joined(parts)

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
        order = self._order(random)
        group_draw, pick_draw = random.random(len(order)), random.random(len(order))
        counts = self._counts[order]
        shares = np.broadcast_to(self._shares, counts.shape)
        if self.on_empty == "resample":
            shares = np.where(counts > 0, shares, 0)
            shares = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-300)
        group = (group_draw[:, None] >= np.cumsum(shares, axis=1)[:, :-1]).sum(axis=1)
        # A class without a share is never drawn, not even where a query has no other.
        available = np.where(self._shares[group] > 0, counts[np.arange(len(order)), group], 0)
        kept = np.flatnonzero(available > 0)
        rank = np.minimum((pick_draw[kept] * available[kept]).astype(np.int64), available[kept] - 1)
        return self._pairs(order[kept], group[kept], rank)

    def _order(self, random: np.random.Generator) -> NDArray[np.int64]:
        """The queries of one pass: each once, or as many of each scene."""
        count = len(self._counts)
        if self.balance == "queries":
            return random.permutation(count)
        turn = random.permutation(count) % len(self._members)
        places = np.split(np.argsort(turn, kind="stable"), np.cumsum(np.bincount(turn, minlength=len(self._members)))[:-1])
        order = np.empty(count, dtype=np.int64)
        for place, members in zip(places, self._members, strict=True):
            order[place] = np.concatenate([random.permutation(members) for _ in range(-(-len(place) // len(members)))] or [place])[
                : len(place)
            ]
        return order

    def _pairs(self, row: NDArray[np.int64], group: NDArray[np.int64], rank: NDArray[np.int64]) -> Pairs:
        kind = np.array([kinds[0] for kinds in self._groups])[group]
        # A group of two classes lists the soft images before those that share nothing.
        soft = self._classes.counts[row, SOFT]
        beyond = (kind == SOFT) & (rank >= soft)
        kind, rank = np.where(beyond, ZERO, kind), np.where(beyond, rank - soft, rank)
        database, similarity = self._classes.take(row, kind, rank)
        if self._cut is not None:
            similarity = (similarity >= self._cut).astype(np.float64)
        return Pairs(self._classes.scene[row], self._classes.query[row], database, similarity, np.ones(len(row)))


class GradedSampler(_ClassSampler):
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
        binarize: give similarities of 1 (>= threshold) and 0 instead of the graded ones: the control that has this
            sampler and binary labels.
        balance: "queries": every query once a pass; "scenes": every scene equally often, the queries of a small one
            several times a pass, those of a large one not all.
        describe: not used; samplers that mine call it.

    Raises:
        InvalidInputError: no pair can be drawn at all, or a parameter is out of its range.

    From Leyva-Vallina, Strisciuglio, Petkov: "Data-efficient Large Scale Place Recognition with Graded Similarity Supervision", CVPR 2023.

    >>> from scipy import sparse
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
        on_empty: OnEmpty = "skip",
        threshold: float = 0.5,
        binarize: bool = False,
        balance: Balance = "queries",
        describe: object = None,
    ) -> None:
        super().__init__(
            labels,
            batch=batch,
            seed=seed,
            groups={"positive": (POSITIVE,), "soft": (SOFT,), "zero": (ZERO,)},
            shares=composition,
            on_empty=on_empty,
            threshold=threshold,
            balance=balance,
            binarize=binarize,
        )


class SoftNegativeFreeSampler(GradedSampler):
    """`GradedSampler` without soft negatives: half of the pairs positive, half of those that share nothing.

    The ablation of GCL's composition. The similarities of the positives are still graded.

    >>> from scipy import sparse
    >>> labels = Labels(sparse.csr_array([[0.0, 0.7, 0.2], [0.9, 0.0, 0.0]]), ("q", "r"), ("a", "b", "c"), rule="by hand")
    >>> sorted(set(next(SoftNegativeFreeSampler([labels], batch=50, seed=1)).similarity.tolist()))
    [0.0, 0.7, 0.9]
    """

    def __init__(
        self,
        labels: Sequence[Labels],
        *,
        batch: int,
        seed: int,
        composition: Sequence[float] = (0.5, 0.0, 0.5),
        on_empty: OnEmpty = "skip",
        threshold: float = 0.5,
        binarize: bool = False,
        balance: Balance = "queries",
        describe: object = None,
    ) -> None:
        super().__init__(
            labels,
            batch=batch,
            seed=seed,
            composition=composition,
            on_empty=on_empty,
            threshold=threshold,
            binarize=binarize,
            balance=balance,
        )


class BinarySampler(_ClassSampler):
    """Positives and all others, similarities 1 and 0: how the field samples pairs where labels are not graded.

    A negative is any database image below the threshold, uniformly: soft and zero ones come in the proportion in which
    the query has them, so soft ones are rare. Passes, exclusion and resumption are those of `GradedSampler`.

    Args:
        labels: one a scene.
        batch: pairs a batch.
        seed: of all draws.
        shares: of positive and of negative pairs.
        on_empty: as in `GradedSampler`.
        threshold: similarities from here on are 1, those below are 0.
        balance: as in `GradedSampler`.
        describe: not used.

    Raises:
        InvalidInputError: no pair can be drawn at all, or a parameter is out of its range.

    >>> from scipy import sparse
    >>> labels = Labels(sparse.csr_array([[0.0, 0.7, 0.2], [0.9, 0.0, 0.0]]), ("q", "r"), ("a", "b", "c"), rule="by hand")
    >>> sorted(set(next(BinarySampler([labels], batch=50, seed=1)).similarity.tolist()))
    [0.0, 1.0]
    """

    _option = "shares"

    def __init__(
        self,
        labels: Sequence[Labels],
        *,
        batch: int,
        seed: int,
        shares: Sequence[float] = (0.5, 0.5),
        on_empty: OnEmpty = "skip",
        threshold: float = 0.5,
        balance: Balance = "queries",
        describe: object = None,
    ) -> None:
        super().__init__(
            labels,
            batch=batch,
            seed=seed,
            groups={"positive": (POSITIVE,), "negative": (SOFT, ZERO)},
            shares=shares,
            on_empty=on_empty,
            threshold=threshold,
            balance=balance,
            binarize=True,
        )


def _checked_shares(shares: Sequence[float], names: Sequence[str], *, option: str) -> NDArray[np.float64]:
    try:
        found = np.asarray(shares, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if found.shape != (len(names),) or not (found >= 0).all() or abs(found.sum() - 1) > 1e-6:
        number = {2: "two", 3: "three"}[len(names)]
        raise InvalidInputError(f"{option} must be {number} shares ({', '.join(names)}) that add up to 1; got {shares}.")
    return found
