"""Vectors of several arrays in pieces that a search can take: views where they can be, copies of bounded size where they cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE = 1 << 17
"""Rows of a memory map that are searched at once, without a copy."""
COPIED = 16 << 20
"""Bytes of vectors that are copied at once: where rows are picked, small sets joined, or float16 becomes float32."""
SMALL = 1 << 20
"""Bytes of a set up to which it is joined with its neighbours: a step for each would take longer than the copy."""
SKIPPED = 256
"""Rows of a piece that many queries may find and drop; where more are left out, the others are copied. Few queries skip up to half."""
CONVERTED = 1 << 16
"""Numbers of float16 that become float32 at once, so that they stay in a processor's cache."""


@dataclass(frozen=True)
class Piece:
    """Some vectors, C-contiguous, with their rows and the positions of those that must not be found.

    Those for few queries have squared norms too, and may be float16; others are float32.
    """

    vectors: NDArray[Any]
    rows: NDArray[np.int64]
    hidden: NDArray[np.int64]
    norms: NDArray[np.float32] | None = None


def in_pieces(
    arrays: Sequence[NDArray[np.floating[Any]]],
    kept: NDArray[np.bool_] | None,
    *,
    norms: Callable[[int], NDArray[np.float32]] | None = None,
) -> Iterator[Piece]:
    """Arrays, one after the other, in pieces: views where little is left out, copies of bounded size where much is; small ones are joined.

    Args:
        arrays: (n, dim) each.
        kept: a mask over all rows; None: all.
        norms: the squared norms of an array by its number, for few queries; None: many are asked.
    """
    first = 0
    for group in groups([4 * one.size for one in arrays]):
        some = [arrays[number] for number in group]
        vectors = some[0] if len(some) == 1 else np.concatenate(some, dtype=np.float32)
        lengths = None if norms is None else np.concatenate([norms(number) for number in group])
        for start in range(0, len(vectors), PIECE):
            rows = np.arange(first + start, first + min(start + PIECE, len(vectors)))
            part = None if lengths is None else lengths[start : start + PIECE]
            yield from _shown(vectors[start : start + PIECE], rows, None if kept is None else kept[rows], part)
        first += len(vectors)


def _shown(
    vectors: NDArray[np.floating[Any]], rows: NDArray[np.int64], kept: NDArray[np.bool_] | None, norms: NDArray[np.float32] | None
) -> Iterator[Piece]:
    """Some vectors as one piece with some hidden, or as copies of the others."""
    chosen = np.arange(len(rows)) if kept is None else np.flatnonzero(kept)
    hidden = chosen[:0] if kept is None else np.flatnonzero(~kept)
    most = len(chosen) if norms is not None else min(SKIPPED, len(chosen))
    if vectors.flags.c_contiguous and (norms is not None or vectors.dtype == np.float32) and len(hidden) <= most:
        yield Piece(vectors, rows, hidden, norms)
        return
    step = max(1, COPIED // max(4 * vectors.shape[1], 1))
    for start in range(0, len(chosen), step):
        part = chosen[start : start + step]
        whole = part[-1] - part[0] + 1 == len(part)
        picked = as_float32(vectors[part[0] : part[-1] + 1] if whole else vectors[part])
        yield Piece(picked, rows[part], part[:0], None if norms is None else norms[part])


def groups(sizes: Sequence[int]) -> list[list[int]]:
    """Neighbours that are taken together: small ones up to `COPIED` bytes, each other one alone.

    >>> groups([3, 4, SMALL + 1, 5, SMALL + 1])
    [[0, 1], [2], [3], [4]]
    """
    found: list[list[int]] = []
    total = 0
    for number, size in enumerate(sizes):
        if found and size <= SMALL and sizes[number - 1] <= SMALL and total + size <= COPIED:
            found[-1].append(number)
            total += size
        else:
            found.append([number])
            total = size
    return found


def as_float32(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """C-contiguous float32 of finite vectors; of float16 by shifting bits, four times as quick as numpy's cast, and equal to it.

    >>> as_float32(np.float16([[0.1, -65504, 6e-8]])) == np.float16([[0.1, -65504, 6e-8]])
    array([[ True,  True,  True]])
    """
    if vectors.dtype != np.float16:
        return np.ascontiguousarray(vectors, dtype=np.float32)
    made = np.empty(vectors.shape, dtype=np.float32)
    bits, halves = made.reshape(-1).view(np.int32), np.ascontiguousarray(vectors).reshape(-1).view(np.int16)
    for start in range(0, len(bits), CONVERTED):
        some = bits[start : start + CONVERTED]
        some[:] = halves[start : start + CONVERTED]  # the sign is extended
        some <<= 13
        some &= np.int32(-0x70002000)  # sign, exponent of 5 bits in the place of 8, fraction
        numbers = some.view(np.float32)
        numbers *= np.float32(2.0**112)  # the exponent's other origin; exact, of the smallest too
    return made


def gathered(arrays: Sequence[NDArray[np.floating[Any]]], starts: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Rows of several arrays, that are one after the other, as float32; starts: the first row of each, and the number of all."""
    if len(arrays) == 1:
        return np.take(arrays[0], rows, axis=0).astype(np.float32, copy=False)
    found = np.empty((len(rows), arrays[0].shape[1]), dtype=np.float32)
    which = np.searchsorted(starts, rows, side="right") - 1
    order = np.argsort(which, kind="stable")
    cuts = np.flatnonzero(np.diff(which[order], prepend=-1))
    for cut, stop in zip(cuts, [*cuts[1:], len(order)], strict=True):
        mine, number = order[cut:stop], which[order[cut]]
        found[mine] = arrays[number][rows[mine] - starts[number]]
    return found
