"""Images whose descriptors are nearly the same."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from covis.audits.blocks import Found, in_blocks
from covis.audits.duplicates import MOST, Duplicates
from covis.descriptors import Descriptors
from covis.errors import InvalidInputError

BLOCK = (2048, 4096)
"""Descriptors of both sides that are compared at once: 32 MB of products, so square that the product is what takes long."""
ROUNDING = 1e-5
"""Of a float32 product of long vectors, generously; candidates are computed again."""


def near_descriptors(
    descriptors: Descriptors, other: Descriptors | None = None, *, within: float, measure: Literal["cosine", "l2"] = "cosine"
) -> Duplicates:
    """Pairs of images whose descriptors are nearly the same: all of them, exactly, in blocks.

    Products in float32 find candidates, with room for their rounding; the distances of those are computed again in float64.

    Args:
        descriptors: of a set.
        other: of another, by the same model; None: pairs within the first.
        within: largest distance, inclusive: of "cosine" 1 - the cosine; of "l2" the Euclidean one. There is no default: how far copies
            are apart differs from model to model.
        measure: the distance.

    Raises:
        InvalidInputError: the dimensions differ, `within` is no distance, or a descriptor is not finite, or 0 for "cosine".

    >>> made = Descriptors(np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32), ("a", "b", "c"), model="none")
    >>> near_descriptors(made, within=0.25, measure="cosine").pairs()
    [{'kind': 'descriptor', 'a': 'b', 'b': 'c', 'distance': 0.2}]
    """
    b = descriptors if other is None else other
    if descriptors.dim != b.dim:
        raise InvalidInputError(f"Descriptors that are compared must have the same dimensions; got {descriptors.dim} and {b.dim}.")
    check_distance(within, measure)
    x, y = _Vectors(descriptors, measure), _Vectors(b, measure)
    # The squared distance of unit vectors is 2 - 2 cosine.
    limit = 2 * within if measure == "cosine" else within**2

    def block(rows: slice, columns: slice) -> Found:
        (here, squares), (there, others) = x.take(rows), y.take(columns)
        apart = here @ there.T  # in one array, since it is the largest
        apart *= -2
        apart += (1 - ROUNDING) * squares[:, None]
        apart += (1 - ROUNDING) * others[None]
        row, column = np.nonzero(apart <= limit)
        exact = np.empty(len(row))
        for start in range(0, len(row), 4096):
            some = slice(start, start + 4096)
            exact[some] = ((here[row[some]].astype(np.float64) - there[column[some]]) ** 2).sum(axis=1)
        near = exact <= limit * (1 + 1e-6)
        row, column, exact = row[near] + rows.start, column[near] + columns.start, exact[near]
        return row, column, exact / 2 if measure == "cosine" else np.sqrt(exact)

    after = np.arange(len(descriptors)) if other is None else None
    found = in_blocks(len(descriptors), len(b), block, after=after, most=MOST, shape=BLOCK)
    return Duplicates(
        (descriptors.names, b.names),
        found.rows,
        found.columns,
        ("descriptor",) * len(found.rows),
        found.distances,
        np.full(len(found.rows), -1, dtype=np.int64),
        {"descriptor": found.total},
        {"descriptor": (found.counts[0] > 0, found.counts[1] > 0)},
        ({}, {}),
        (0, 0),
        {"within": within, "measure": measure, "model": descriptors.model, "one set": other is None},
    )


def check_distance(within: float, measure: str) -> None:
    """Refuse what is no distance.

    Raises:
        InvalidInputError: `within` is negative or not finite, or there is no such measure.
    """
    if measure not in ("cosine", "l2") or not (np.isfinite(within) and within >= 0):
        raise InvalidInputError(f"measure must be 'cosine' or 'l2', and within a number from 0; got {measure!r} and {within}.")


class _Vectors:
    """Descriptors, a block at a time; of length 1 for the cosine."""

    def __init__(self, descriptors: Descriptors, measure: str) -> None:
        descriptors.check_finite()
        self._vectors, self._unit, self._names = descriptors.vectors, measure == "cosine", descriptors.names
        self._last: tuple[slice, tuple[NDArray[np.float32], NDArray[np.float32]]] | None = None

    def take(self, rows: slice) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(n, d) and (n,) float32, vectors and their squared lengths; the block that was asked for last is at hand."""
        if self._last is None or self._last[0] != rows:
            self._last = rows, self._prepared(rows)
        return self._last[1]

    def _prepared(self, rows: slice) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        vectors = np.asarray(self._vectors[rows], dtype=np.float32)
        squares = np.einsum("ij,ij->i", vectors, vectors)
        if not self._unit:
            return vectors, squares
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if (lengths == 0).any():
            where = self._names[rows.start + int((lengths[:, 0] == 0).argmax())]
            raise InvalidInputError(f"A descriptor must not be 0 for the cosine; that of {where} is. Use the distance l2.")
        unit = np.asarray(vectors / lengths)
        return unit, np.einsum("ij,ij->i", unit, unit)
