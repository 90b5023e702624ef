"""Images that two sets share: the same file, the same bytes, the same pixels, nearly the same picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.audits.blocks import Near
from covis.audits.hashes import near_hashes, popcount
from covis.audits.prints import FLAT, USABLE, Fingerprints, fingerprints
from covis.errors import InvalidInputError
from covis.images import Images

KINDS: dict[str, str] = {
    "file": "the same file",
    "bytes": "the same bytes in another file",
    "pixels": "the same pixels in another file",
    "near": "nearly the same picture",
    "mirror": "nearly the mirror image",
    "descriptor": "nearly the same descriptor",
}
"""Kind -> what it means, the strongest first; a pair is listed under the first that holds."""
HAMMING, FINE = 10, 32
"""Bits of 64 and of 256 by which two pictures may differ and count as nearly the same; where they come from: docs/audit.md."""
MOST = 50
"""Partners of an image that are listed."""
Marks: TypeAlias = tuple[NDArray[np.bool_], NDArray[np.bool_]]
Rows: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Pairs of images that are copies of each other.

    Attributes:
        names: of the two sets.
        rows: (p,) int64, in the first set.
        columns: (p,) int64, in the second.
        kinds: p of `KINDS`.
        distances: (p,) 0 for the same bytes or pixels; bits of 64 that differ; or the distance of the descriptors.
        fine: (p,) int64, bits of 256 that differ; of kinds that are not told by a hash -1.
        total: kind -> pairs in all, of which at most `MOST` an image are listed.
        paired: kind -> (n,) and (m,) bool: which images of each set are in such a pair, listed or not (of mirror images: listed).
        unreadable: of each set row -> reason.
        flat: images of each set that show nothing that could be compared (a black night).
        parameters: how they were found.
    """

    names: tuple[tuple[str, ...], tuple[str, ...]]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    kinds: tuple[str, ...]
    distances: NDArray[np.float64]
    fine: NDArray[np.int64]
    total: Mapping[str, int]
    paired: Mapping[str, Marks]
    unreadable: tuple[Mapping[int, str], Mapping[int, str]]
    flat: tuple[int, int]
    parameters: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.rows)

    def without(self, *kinds: str) -> Duplicates:
        """The pairs of all other kinds."""
        kept = np.array([kind not in kinds for kind in self.kinds], dtype=bool)
        return Duplicates(
            self.names,
            self.rows[kept],
            self.columns[kept],
            tuple(kind for kind in self.kinds if kind not in kinds),
            self.distances[kept],
            self.fine[kept],
            {kind: count for kind, count in self.total.items() if kind not in kinds},
            {kind: marks for kind, marks in self.paired.items() if kind not in kinds},
            self.unreadable,
            self.flat,
            self.parameters,
        )

    @property
    def in_a_pair(self) -> tuple[int, int]:
        """Images of each set that are in any pair; of one set those that are on either side, twice."""
        marks = list(self.paired.values())
        sides = [np.any([np.zeros(len(names), dtype=bool), *(two[n] for two in marks)], axis=0) for n, names in enumerate(self.names)]
        if self.parameters.get("one set"):
            sides = [sides[0] | sides[1]] * 2
        return int(sides[0].sum()), int(sides[1].sum())

    def pairs(self) -> list[dict[str, Any]]:
        """The pairs as plain values, the strongest kinds first; those told by a hash with the bits of both that differ."""
        rank = np.array([list(KINDS).index(kind) for kind in self.kinds], dtype=np.int64)
        order = np.lexsort((self.columns, self.rows, self.distances, rank))
        return [
            {
                "kind": self.kinds[p],
                "a": self.names[0][self.rows[p]],
                "b": self.names[1][self.columns[p]],
                "distance": round(float(self.distances[p]), 6),
                **({"fine": int(self.fine[p])} if self.fine[p] >= 0 else {}),
            }
            for p in order.tolist()
        ]

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {
            "images": [len(names) for names in self.names],
            "pairs": {kind: self.total[kind] for kind in KINDS if kind in self.total},
            "in a pair": list(self.in_a_pair),
            "unreadable": [{names[row]: why for row, why in bad.items()} for names, bad in zip(self.names, self.unreadable, strict=True)],
            "flat": list(self.flat),
            "parameters": dict(self.parameters),
            "list": self.pairs(),
        }


def near_duplicates(
    images: Images | Fingerprints,
    other: Images | Fingerprints | None = None,
    *,
    hamming: int = HAMMING,
    fine: int = FINE,
    mirrored: bool = False,
    cache: str | Path | None = None,
    progress: bool = False,
) -> Duplicates:
    """Pairs of images that are copies: by path, by bytes, by decoded pixels, and by the difference hash of the grey picture.

    Two pictures are nearly the same where their 64-bit hashes differ in at most `hamming` bits and their 256-bit hashes in at most
    `fine`. It finds copies that were encoded again, resized, made darker or lighter, and nearly all that lost 1 % at each edge; of those
    that lost 2 % a quarter to nearly all, of those that lost 5 % almost none (docs/audit.md). Two frames of a video at nearly one place
    count too.

    Args:
        images: a table, or its fingerprints.
        other: another; None: pairs within the first, each once.
        hamming: bits of 64, in [0, 64]; the search is exact.
        fine: bits of 256, in [0, 256].
        mirrored: look for mirror images too.
        cache: as `fingerprints` takes it.
        progress: show it on stderr.

    Raises:
        InvalidInputError: a number of bits is out of its range.
        DamagedFileError: the cache is none.

    >>> near_duplicates(Images("nowhere", [])).pairs()
    []
    """
    check_bits(hamming, fine)
    a = images if isinstance(images, Fingerprints) else fingerprints(images, cache=cache, progress=progress)
    b = a if other is None else other if isinstance(other, Fingerprints) else fingerprints(other, cache=cache, progress=progress)
    one_set = other is None
    found = _copies(a, b, one_set=one_set)
    usable = _rows(a, b, USABLE)
    sizes = len(a), len(b)
    same = _equal(*(_keys(side.records["pixels"][rows]) for side, rows in zip((a, b), usable, strict=True)), one_set=one_set)
    for kind, mirror in (("near", ""), *((("mirror", "mirror_"),) if mirrored else ())):
        near = near_hashes(
            a.records["coarse"][usable[0]],
            b.records[mirror + "coarse"][usable[1]],
            within=hamming,
            fine=(a.records["fine"][usable[0]], b.records[mirror + "fine"][usable[1]]),
            fine_within=fine,
            one_set=one_set,
            most=MOST,
        )
        found.append((kind, _placed(near, usable, sizes), _placed(same, usable, sizes)))
    return _together(a, b, found, {"hamming": hamming, "fine": fine, "mirrored": mirrored, "one set": one_set})


def check_bits(hamming: int, fine: int) -> None:
    """Refuse numbers of bits that hashes do not have.

    Raises:
        InvalidInputError: one is out of its range.
    """
    if not (0 <= hamming <= 64 and 0 <= fine <= 256):
        raise InvalidInputError(f"hamming must be in [0, 64] bits and fine in [0, 256]; got {hamming} and {fine}.")


def _keys(rows: NDArray[np.uint8]) -> NDArray[Any]:
    """(n, 32) bytes as (n,) values that compare equal where all bytes are."""
    return np.ascontiguousarray(rows).view(np.dtype((np.void, 32))).reshape(-1)


def _equal(a: NDArray[Any], b: NDArray[Any], *, one_set: bool) -> Near:
    """Pairs of equal keys."""
    _, ids = np.unique(np.concatenate([a, b]), return_inverse=True) if len(a) + len(b) else (a, np.zeros(0, dtype=np.int64))
    ids = ids.reshape(-1)
    here, there = ids[: len(a)], ids[len(a) :]
    order = np.argsort(there, kind="stable")
    first, last = (np.searchsorted(there[order], here, side=side) for side in ("left", "right"))
    partners = np.bincount(here, minlength=int(ids.max(initial=-1)) + 1)[there]
    if one_set:  # those of the same key that come later, and for a column those that come earlier
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        partners = place - first
        first = place + 1
    listed = np.minimum(last - first, MOST)
    rows = np.repeat(np.arange(len(a)), listed)
    places = np.repeat(first, listed) + np.arange(len(rows)) - np.repeat(np.cumsum(listed) - listed, listed)
    return Near(rows, order[places].astype(np.int64), np.zeros(len(rows)), (last - first, partners))


def _placed(near: Near, chosen: Rows, sizes: tuple[int, int]) -> Near:
    """Rows of the chosen ones as rows of all."""
    counts = np.zeros(sizes[0], dtype=np.int64), np.zeros(sizes[1], dtype=np.int64)
    for side in (0, 1):
        counts[side][chosen[side]] = near.counts[side]
    return Near(chosen[0][near.rows], chosen[1][near.columns], near.distances, counts)


def _rows(a: Fingerprints, b: Fingerprints, state: int) -> Rows:
    """The images of both that are at least so usable."""
    return np.flatnonzero(a.records["state"] >= state), np.flatnonzero(b.records["state"] >= state)


def _copies(a: Fingerprints, b: Fingerprints, *, one_set: bool) -> list[tuple[str, Near, Near | None]]:
    """(kind, pairs, those of them that are of a stronger kind): the same file is the same bytes, and those are the same pixels."""
    found: list[tuple[str, Near, Near | None]] = []
    readable, sizes = _rows(a, b, FLAT), (len(a), len(b))
    stronger: Near | None = None
    if not one_set:
        paths = [np.array(side.paths, dtype=object) for side in (a, b)]
        found.append(("file", _equal(paths[0], paths[1], one_set=False), None))
        stronger = _placed(_equal(paths[0][readable[0]], paths[1][readable[1]], one_set=False), readable, sizes)
    for kind in ("bytes", "pixels"):
        keys = [_keys(side.records[kind][rows]) for side, rows in zip((a, b), readable, strict=True)]
        near = _placed(_equal(keys[0], keys[1], one_set=one_set), readable, sizes)
        found.append((kind, near, stronger))
        stronger = near
    return found


def _together(
    a: Fingerprints, b: Fingerprints, found: Sequence[tuple[str, Near, Near | None]], parameters: Mapping[str, Any]
) -> Duplicates:
    """Each pair once, under its strongest kind."""
    rows, columns, distances = (np.concatenate([getattr(near, name) for _, near, _ in found]) for name in ("rows", "columns", "distances"))
    rank = np.repeat(np.arange(len(found)), [len(near.rows) for _, near, _ in found])
    _, first = np.unique(rows * max(1, len(b)) + columns, return_index=True)
    first.sort()
    rows, columns, distances, rank = rows[first], columns[first], distances[first], rank[first]
    bits = np.full(len(rows), -1, dtype=np.int64)
    total: dict[str, int] = {}
    paired: dict[str, Marks] = {}
    for place, (kind, near, stronger) in enumerate(found):
        listed = rank == place
        if kind in ("near", "mirror"):
            there = b.records["mirror_fine" if kind == "mirror" else "fine"][columns[listed]]
            bits[listed] = popcount(a.records["fine"][rows[listed]] ^ there).sum(axis=1, dtype=np.int64)
        counts = near.counts
        if kind == "mirror":  # those of a stronger kind are known of the listed alone
            counts = np.bincount(rows[listed], minlength=len(a)), np.bincount(columns[listed], minlength=len(b))
        elif stronger is not None:
            counts = counts[0] - stronger.counts[0], counts[1] - stronger.counts[1]
        total[kind] = int(counts[0].sum())
        paired[kind] = counts[0] > 0, counts[1] > 0
    flat = tuple(int((side.records["state"] == FLAT).sum()) for side in (a, b))
    return Duplicates(
        (a.names, b.names),
        rows,
        columns,
        tuple(found[one][0] for one in rank.tolist()),
        distances,
        bits,
        total,
        paired,
        (a.damaged, b.damaged),
        (flat[0], flat[1]),
        parameters,
    )
