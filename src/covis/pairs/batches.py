"""What a sampler gives: Pairs, batch after batch; and what any sampler can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError

_COLUMNS = ("scene", "query", "database", "similarity", "weight")


@dataclass(frozen=True, eq=False)
class Pairs:
    """A batch of P pairs, or of P lists: a query with one positive and several negatives.

    Attributes:
        scene: (P,) int64, which scene of the list.
        query: (P,) int64, the row among that scene's queries.
        database: (P,) int64, the row among that scene's database images; (P, 1 + negatives) for lists, the positive first.
        similarity: like `database`, float64 in [0, 1].
        weight: (P,) float64, >= 0.

    Raises:
        InvalidInputError: the lengths or shapes differ, or a value is out of its range.
    """

    scene: NDArray[np.int64]
    query: NDArray[np.int64]
    database: NDArray[np.int64]
    similarity: NDArray[np.float64]
    weight: NDArray[np.float64]

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in _COLUMNS}
        if len(lengths) != 1:
            raise InvalidInputError(f"The columns of Pairs must have one length; got {sorted(lengths)}.")
        if self.database.ndim not in (1, 2) or self.database.shape != self.similarity.shape:
            raise InvalidInputError(
                "database and similarity of Pairs must both be (P,) or both (P, 1 + negatives); "
                f"got {self.database.shape} and {self.similarity.shape}."
            )
        if not ((self.similarity >= 0) & (self.similarity <= 1)).all() or not (self.weight >= 0).all():
            raise InvalidInputError("The similarities of Pairs must be in [0, 1] and their weights >= 0.")

    def __len__(self) -> int:
        return len(self.query)

    def __getitem__(self, rows: slice) -> Pairs:
        return Pairs(*(getattr(self, name)[rows] for name in _COLUMNS))


class Sampler(Protocol):
    """Pairs without end, and where in them it is."""

    def __iter__(self) -> Iterator[Pairs]: ...

    def __next__(self) -> Pairs: ...

    def state(self) -> dict[str, Any]:
        """Where it is, as plain numbers, strings and lists."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there; the labels, the seed and the settings must be the same."""
        ...


def joined(parts: Sequence[Pairs]) -> Pairs:
    """One batch of several, in their order."""
    return parts[0] if len(parts) == 1 else Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS))
