"""Perceptual hashes: a picture's gradients as bits, and the exact search for hashes that differ in few of them.

The difference hash (dHash, N. Krawetz 2013): the grey picture is averaged to n rows of n + 1 cells, and each bit says whether a cell is
lighter than the one to its left. Brightness and contrast cancel; size and compression change few bits. 64 bits find, 256 bits confirm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bits: TypeAlias = NDArray[np.uint64]
Found: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Rows, columns and distances of pairs."""
BLOCK = 4_000_000
"""Pairs of hashes that are compared at once: 32 MB of them."""


def difference_hash(grey: NDArray[np.uint8]) -> Bits:
    """(n² / 64,) uint64: whether each cell is lighter than the one to its left, row by row, the first bit highest.

    Args:
        grey: (n, n + 1) uint8, n a multiple of 8.

    >>> [f"{int(word):016x}" for word in difference_hash(np.tile(np.array([9, 1, 2, 3, 4, 5, 6, 7, 8], dtype=np.uint8), (8, 1)))]
    ['7f7f7f7f7f7f7f7f']
    """
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    return bits.view(">u8").astype(np.uint64)


def cells(picture: Image.Image, n: int) -> NDArray[np.uint8]:
    """(n, n + 1) uint8: the grey picture, averaged."""
    return np.asarray(picture.convert("L").resize((n + 1, n), Image.Resampling.BOX), dtype=np.uint8)


def popcount(words: Bits) -> NDArray[np.uint8]:
    """The bits that are set in each word.

    >>> popcount(np.array([0, 255, 2**64 - 1], dtype=np.uint64)).tolist()
    [0, 8, 64]
    """
    if hasattr(np, "bitwise_count"):
        found: NDArray[np.uint8] = np.bitwise_count(words)
        return found
    return _popcount(words)


def _popcount(words: Bits) -> NDArray[np.uint8]:
    """The same for numpy before 2.0: sums of neighbouring groups of bits."""
    one, two, four = (np.uint64(mask) for mask in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F))
    found: Bits = words - ((words >> np.uint64(1)) & one)
    found = (found & two) + ((found >> np.uint64(2)) & two)
    found = (found + (found >> np.uint64(4))) & four
    for shift in (8, 16, 32):  # a product would overflow, of which numpy warns
        found = found + (found >> np.uint64(shift))
    return (found & np.uint64(0x7F)).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Near:
    """Pairs that were found.

    Attributes:
        rows: (p,) int64, ascending.
        columns: (p,) int64.
        distances: (p,) bits, or whatever was compared.
        total: pairs in all; more than p where a row had more partners than were asked for.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    distances: NDArray[np.float64]
    total: int


def near_hashes(
    a: Bits,
    b: Bits,
    *,
    within: int,
    fine: tuple[Bits, Bits] | None = None,
    fine_within: int = 0,
    one_set: bool = False,
    most: int | None = None,
) -> Near:
    """All pairs whose 64-bit hashes differ in at most `within` bits: exact, by comparing all, in blocks of bounded memory.

    Args:
        a: (n,) uint64.
        b: (m,) uint64.
        within: bits.
        fine: (n, w) and (m, w) uint64: longer hashes that must agree too.
        fine_within: bits of those.
        one_set: a and b are one set: each pair once (row < column), none with itself.
        most: partners of a row that are kept, the nearest; None: all.

    >>> near_hashes(np.array([7], dtype=np.uint64), np.array([0, 3, 15], dtype=np.uint64), within=1).columns.tolist()
    [1, 2]
    """

    def block(rows: slice, columns: slice) -> Found:
        apart = popcount(a[rows, None] ^ b[None, columns])
        row, column = np.nonzero(apart <= within)
        found = apart[row, column].astype(np.float64)
        row, column = row + rows.start, column + columns.start
        if fine is not None:
            agree = popcount(fine[0][row] ^ fine[1][column]).sum(axis=1, dtype=np.int64) <= fine_within
            row, column, found = row[agree], column[agree], found[agree]
        return row, column, found

    return in_blocks(len(a), len(b), block, one_set=one_set, most=most)


def in_blocks(
    n: int,
    m: int,
    block: Callable[[slice, slice], Found],
    *,
    one_set: bool = False,
    most: int | None = None,
    size: int = BLOCK,
) -> Near:
    """What `block` finds in each block of an n x m table, put together; of each row the `most` nearest."""
    width = max(1, min(m, size // 64))
    height = max(1, size // width)
    nothing = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    found: list[Found] = [nothing]
    total = 0
    for start in range(0, n, height):
        rows = slice(start, min(start + height, n))
        parts = []
        for first in range(0, m, width):
            columns = slice(first, min(first + width, m))
            if one_set and columns.stop <= rows.start + 1:
                continue
            row, column, distance = block(rows, columns)
            if one_set:
                once = row < column
                row, column, distance = row[once], column[once], distance[once]
            total += len(row)
            parts.append(_nearest(row, column, distance, most))
        if parts:
            found.append(_nearest(*_joined(parts), most))
    return Near(*_joined(found), total)


def _joined(parts: list[Found]) -> Found:
    return np.concatenate([one[0] for one in parts]), np.concatenate([one[1] for one in parts]), np.concatenate([one[2] for one in parts])


def _nearest(row: NDArray[np.int64], column: NDArray[np.int64], distance: NDArray[np.float64], most: int | None) -> Found:
    """By row, distance and column; of each row the first `most`."""
    order = np.lexsort((column, distance, row))
    row, column, distance = row[order], column[order], distance[order]
    if most is None or not len(row):
        return row, column, distance
    begins = np.flatnonzero(np.diff(row, prepend=row[0] - 1))
    place = np.arange(len(row)) - np.repeat(begins, np.diff(np.append(begins, len(row))))
    return row[place < most], column[place < most], distance[place < most]
