"""The vectors of an index: sets of descriptors one after the other, and which of their rows are alive.

A *row* here counts all vectors ever added. What a search gives out counts the living alone: see `Shards.living`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.descriptors import Descriptors
from covis.errors import InvalidInputError
from covis.indexes import pieces
from covis.indexes.pieces import Piece, gathered

LONGEST = 1e18
"""The squared distance of two vectors of this length is a float32."""


class Shards:
    """Sets of descriptors of one model and whitening, added in turn, deleted by name; nothing is copied."""

    def __init__(self) -> None:
        self.sets: list[Descriptors] = []
        self.dead: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)
        self._norms: list[NDArray[np.float32] | None] = []
        self._names: tuple[str, ...] | None = ()
        self._known: set[str] | None = None
        self._starts: NDArray[np.int64] | None = None
        self._living: NDArray[np.int64] | None = None

    @property
    def rows(self) -> int:
        """How many vectors were ever added."""
        return len(self.dead)

    def __len__(self) -> int:
        return self.rows - int(self.dead.sum())

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the living, in the order in which they were added."""
        if self._names is None:
            whole = self.sets[0].names if len(self.sets) == 1 else tuple(name for one in self.sets for name in one.names)
            self._names = tuple(name for name, dead in zip(whole, self.dead, strict=True) if not dead) if self.dead.any() else whole
        return self._names

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first row of each set, and behind them the number of all rows."""
        if self._starts is None:
            self._starts = np.cumsum([0, *(len(one) for one in self.sets)], dtype=np.int64)
        return self._starts

    def living(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows as positions in `names`."""
        if not self.dead.any():
            return rows
        if self._living is None:
            self._living = np.cumsum(~self.dead) - 1
        return np.asarray(self._living[rows])

    @classmethod
    def restored(cls, sets: Sequence[Descriptors], dead: NDArray[np.integer[Any]]) -> Shards:
        """Sets that were checked when they were added, and the rows that were deleted since; no vector is read.

        Raises:
            InvalidInputError: the sets do not belong together, or a name stands twice among the living.
            ValueError: a row is none of theirs.
        """
        made = cls()
        for one in sets:
            check_alike(sets[0], one)
        made.sets, made._norms = list(sets), [None] * len(sets)
        made.dead = np.zeros(sum(len(one) for one in sets), dtype=np.bool_)
        if dead.ndim != 1 or dead.dtype.kind not in "iu" or (dead.size and (dead.min() < 0 or dead.max() >= made.rows)):
            raise ValueError(f"deleted rows must be in [0, {made.rows})")
        made.dead[dead] = True
        made._names = None
        if len(set(made.names)) < len(made):
            raise InvalidInputError("every living image must be in the index once; one stands twice")
        return made

    def add(self, descriptors: Descriptors) -> None:
        """Take in a set.

        Raises:
            InvalidInputError: another model, whitening or dimension, a name that is there, or a vector that is not finite.
        """
        if self.sets:
            check_alike(self.sets[0], descriptors)
            if self._known is None:
                self._known = set(self.names)
            if not self._known.isdisjoint(descriptors.names):
                name = next(name for name in descriptors.names if name in self._known)
                raise InvalidInputError(f"Every image must be in the index once; {name!r} is there already. Delete it first.")
        norms = squared_norms(descriptors)
        if len(descriptors) == 0 and self.sets:
            return
        self.sets.append(descriptors)
        self._norms.append(norms)
        self.dead = np.concatenate([self.dead, np.zeros(len(descriptors), dtype=np.bool_)])
        if self._known is not None:
            self._known.update(descriptors.names)
        self._names = self._starts = self._living = None

    def delete(self, names: Sequence[str]) -> None:
        """Take images out; their rows stay, dead.

        Raises:
            InvalidInputError: a name is not in the index.
        """
        rows = self.rows_of(names)
        self.dead = self.dead.copy()
        self.dead[rows] = True
        if self._known is not None:
            self._known.difference_update(names)
        self._names = self._living = None

    def rows_of(self, names: Sequence[str]) -> NDArray[np.int64]:
        """The rows of living images, ascending.

        Raises:
            InvalidInputError: a name is not in the index.
        """
        if isinstance(names, str):
            raise InvalidInputError(f"Names must be a sequence of names; got the text {names!r}.")
        wanted = set(names)
        found = [position for position, name in enumerate(self.names) if name in wanted]
        if len(found) < len(wanted):
            known = set(self.names)
            missing = [name for name in names if name not in known]
            raise InvalidInputError(f"Every name must be in the index; {len(set(missing))} are not, the first is {missing[0]!r}.")
        return np.flatnonzero(~self.dead)[np.asarray(found, dtype=np.int64)]

    def allowed(self, among: Sequence[str] | NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        """A mask over the rows, of the living that may be found; None: all rows, and none is dead.

        Raises:
            InvalidInputError: `among` is no mask over `names` and no names of the index, or keeps none.
        """
        if among is None:
            return ~self.dead if self.dead.any() else None
        mask = np.zeros(self.rows, dtype=np.bool_)
        if isinstance(among, np.ndarray) and among.dtype == np.bool_:
            if among.shape != (len(self),):
                raise InvalidInputError(f"A mask must have one entry a name of the index, ({len(self)},); got {among.shape}.")
            mask[np.flatnonzero(~self.dead)[among]] = True
        else:
            mask[self.rows_of([str(name) for name in among] if not isinstance(among, str) else among)] = True
        if not mask.any():
            raise InvalidInputError("A search among some images needs at least one; `among` keeps none.")
        return mask

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, dim) float32 copies of the vectors of some rows."""
        return gathered([np.asarray(one.vectors) for one in self.sets], self.starts, rows)

    def pieces(self, allowed: NDArray[np.bool_] | None, *, few: bool = False) -> Iterator[Piece]:
        """All vectors that may be found, in the order of the rows, for few queries or for many; views where little is left out."""
        return pieces.in_pieces([np.asarray(one.vectors) for one in self.sets], allowed, norms=self._norms_of if few else None)

    def blocks(self, first: int = 0) -> Iterator[NDArray[np.float32]]:
        """All vectors from a row on, as float32, in blocks of bounded size."""
        step = max(1, pieces.COPIED // (4 * max(1, self.sets[0].dim))) if self.sets else 1
        for start in range(first, self.rows, step):
            yield self.take(np.arange(start, min(start + step, self.rows)))

    def _norms_of(self, number: int) -> NDArray[np.float32]:
        known = self._norms[number]
        if known is None:
            known = self._norms[number] = squared_norms(self.sets[number])
        return known


def squared_norms(descriptors: Descriptors) -> NDArray[np.float32]:
    """(n,) squared lengths; a look at every vector.

    Raises:
        InvalidInputError: a vector is not finite, or so long that its square is not.
    """
    norms = by_block(descriptors.vectors, lambda block: np.einsum("ij,ij->i", block, block))
    if not (norms < LONGEST**2).all():
        descriptors.check_finite()
        name = descriptors.names[int(np.argmin(norms < LONGEST**2))]
        raise InvalidInputError(
            f"Every descriptor must be shorter than {LONGEST:g}, so that float32 holds squared distances; that of {name} is not."
        )
    return norms


def by_block(vectors: NDArray[np.floating[Any]], function: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> NDArray[np.float32]:
    """(n,) what a function says of each vector, read in blocks."""
    values = np.empty(len(vectors), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(vectors), 4096):
            values[start : start + 4096] = function(np.asarray(vectors[start : start + 4096], dtype=np.float32))
    return values


def check_alike(first: Descriptors, other: Descriptors) -> None:
    """Hold two sets against each other.

    Raises:
        InvalidInputError: they are of another model, whitening or dimension.
    """

    def settings(one: Descriptors) -> tuple[Any, ...]:
        whitened: Mapping[str, Any] | None = one.history.get("whitened")
        return one.model, one.dim, None if whitened is None else dict(whitened)

    if settings(first) != settings(other):
        raise InvalidInputError(
            "All descriptors of a search must come from one model, one whitening and have one dimension; got "
            f"{settings(first)} and {settings(other)}."
        )
