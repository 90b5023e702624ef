"""Perceptual hashes: a picture's gradients as bits, and the exact search for hashes that differ in few of them.

The difference hash (dHash, N. Krawetz 2013): the grey picture is averaged to n rows of n + 1 cells, and each bit says whether a cell is
lighter than the one to its left. Brightness and contrast cancel; size and compression change few bits. 64 bits find, 256 bits confirm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from covis.audits.blocks import Found, Near, in_blocks, joined

Bits: TypeAlias = NDArray[np.uint64]
DENSE = 8
"""Where more than one pair of so many passes the short hash, the long ones of a whole block are compared without gathering any."""


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
class Hashes:
    """Short hashes, and longer ones that must agree too.

    Attributes:
        coarse: (n,) uint64.
        fine: (n, w) uint64; None: there are none.
    """

    coarse: Bits
    fine: Bits | None = None

    def take(self, rows: NDArray[np.int64]) -> Hashes:
        """Those of some rows."""
        return Hashes(self.coarse[rows], None if self.fine is None else self.fine[rows])

    def words(self) -> NDArray[Any]:
        """(n,) values that compare equal where all bits are."""
        parts = [self.coarse[:, None]] if self.fine is None else [self.coarse[:, None], self.fine]
        together = np.ascontiguousarray(np.concatenate(parts, axis=1))
        return together.view(np.dtype((np.void, together.shape[1] * 8))).reshape(-1)


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

    Equal hashes (a frozen video) are compared once. With `most` the memory grows with n times `most`, and not with the pairs.

    Args:
        a: (n,) uint64.
        b: (m,) uint64.
        within: bits.
        fine: (n, w) and (m, w) uint64: longer hashes that must agree too.
        fine_within: bits of those.
        one_set: a and b are one set: each pair once (row < column), none with itself.
        most: partners of a row that are kept, the nearest, of those equally near the first; None: all.

    >>> near_hashes(np.array([7], dtype=np.uint64), np.array([0, 3, 15], dtype=np.uint64), within=1).columns.tolist()
    [1, 2]
    """
    here, there = Hashes(a, None if fine is None else fine[0]), Hashes(b, None if fine is None else fine[1])
    if one_set:
        return _near_in_one(here, (within, fine_within), most)
    _, first, ids = np.unique(here.words(), return_index=True, return_inverse=True)
    ids = ids.reshape(-1)  # numpy 2.0 gave it another shape
    block = _comparison(here.take(first), there, (within, fine_within))
    near = in_blocks(len(first), len(b), block, most=most, weights=np.bincount(ids, minlength=len(first)))
    lengths = np.bincount(near.rows, minlength=len(first))
    rows = np.repeat(np.arange(len(a)), lengths[ids])
    places = _ranges((np.cumsum(lengths) - lengths)[ids], lengths[ids])
    return Near(rows, near.columns[places], near.distances[places], (near.counts[0][ids], near.counts[1]))


def _ranges(first: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """first[0], first[0] + 1, … so many, then those from first[1]."""
    return np.asarray(np.arange(int(lengths.sum())) + np.repeat(first - (np.cumsum(lengths) - lengths), lengths))


def _near_in_one(hashes: Hashes, within: tuple[int, int], most: int | None) -> Near:
    """Each pair once; rows with `most` later equals are not searched: their nearest are at 0, and are found a group at a time."""
    n = len(hashes.coarse)
    _, ids = np.unique(hashes.words(), return_inverse=True)
    ids = ids.reshape(-1)
    place = np.empty(n, dtype=np.int64)
    place[np.argsort(ids, kind="stable")] = np.arange(n)  # group by group, each ascending
    later = np.cumsum(np.bincount(ids))[ids] - place - 1 if n else place
    searched = np.flatnonzero(later < most) if most is not None else np.arange(n)
    near = in_blocks(len(searched), n, _comparison(hashes.take(searched), hashes, within), after=searched, most=most)
    counts = np.zeros(n, dtype=np.int64), near.counts[1]
    counts[0][searched] = near.counts[0]
    parts: list[Found] = [(searched[near.rows], near.columns, near.distances)]
    if most is not None:
        given = np.flatnonzero(later >= most)
        given = given[np.argsort(ids[given], kind="stable")]
        for group in np.split(given, np.flatnonzero(np.diff(ids[given])) + 1) if len(given) else ():
            agree = _agreeing(hashes, int(group[0]), within)
            counts[0][group] = (agree[::-1].cumsum()[::-1] - agree)[group]
            earlier = np.zeros(n, dtype=np.int64)
            earlier[group] = 1
            counts[1][:] += np.where(agree, earlier.cumsum() - earlier, 0)
            equal = np.flatnonzero(agree & (hashes.coarse == hashes.coarse[group[0]]))
            first = np.searchsorted(equal, group, side="right")
            columns = equal[_ranges(first, np.full(len(group), most))]
            parts.append((np.repeat(group, most), columns, np.zeros(len(columns))))
    rows, columns, distances = joined(parts)
    ascending = np.argsort(rows, kind="stable")
    return Near(rows[ascending], columns[ascending], distances[ascending], counts)


def _agreeing(hashes: Hashes, row: int, within: tuple[int, int]) -> NDArray[np.bool_]:
    """(n,) which hashes are near that of a row."""
    agree = popcount(hashes.coarse ^ hashes.coarse[row]) <= within[0]
    if hashes.fine is not None:
        agree &= popcount(hashes.fine ^ hashes.fine[row]).sum(axis=1, dtype=np.int64) <= within[1]
    return np.asarray(agree)


def _comparison(here: Hashes, there: Hashes, within: tuple[int, int]) -> Callable[[slice, slice], Found]:
    """What finds the near pairs of a block."""

    def block(rows: slice, columns: slice) -> Found:
        apart = popcount(here.coarse[rows, None] ^ there.coarse[None, columns])
        near = apart <= within[0]
        dense = DENSE * int(np.count_nonzero(near)) > near.size
        if here.fine is not None and there.fine is not None and dense:
            bits = np.zeros(near.shape, dtype=np.uint16)
            for word in range(here.fine.shape[1]):
                bits += popcount(here.fine[rows, word, None] ^ there.fine[None, columns, word])
            near &= bits <= within[1]
        row, column = np.nonzero(near)
        found = apart[row, column].astype(np.float64)
        row, column = row + rows.start, column + columns.start
        if here.fine is not None and there.fine is not None and not dense:
            agree = popcount(here.fine[row] ^ there.fine[column]).sum(axis=1, dtype=np.int64) <= within[1]
            row, column, found = row[agree], column[agree], found[agree]
        return row, column, found

    return block
