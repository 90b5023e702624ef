"""Images that two sets share: the same file, the same bytes, the same pixels, nearly the same picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.audits.hashes import Near, near_hashes
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


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Pairs of images that are copies of each other.

    Attributes:
        names: of the two sets.
        rows: (p,) int64, in the first set.
        columns: (p,) int64, in the second.
        kinds: p of `KINDS`.
        distances: (p,) 0 for the same bytes or pixels; bits of 64 that differ; or the distance of the descriptors.
        total: kind -> pairs in all, of which at most `MOST` an image are listed.
        unreadable: of each set row -> reason.
        flat: images of each set that show nothing that could be compared (a black night).
        parameters: how they were found.
    """

    names: tuple[tuple[str, ...], tuple[str, ...]]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    kinds: tuple[str, ...]
    distances: NDArray[np.float64]
    total: Mapping[str, int]
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
            {kind: count for kind, count in self.total.items() if kind not in kinds},
            self.unreadable,
            self.flat,
            self.parameters,
        )

    def pairs(self) -> list[dict[str, Any]]:
        """The pairs as plain values, the strongest kinds first."""
        order = sorted(range(len(self)), key=lambda p: (list(KINDS).index(self.kinds[p]), self.distances[p], self.rows[p], self.columns[p]))
        return [
            {
                "kind": self.kinds[p],
                "a": self.names[0][self.rows[p]],
                "b": self.names[1][self.columns[p]],
                "distance": round(float(self.distances[p]), 6),
            }
            for p in order
        ]

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {
            "images": [len(names) for names in self.names],
            "pairs": {kind: self.total[kind] for kind in KINDS if kind in self.total},
            "in a pair": [len(np.unique(self.rows)), len(np.unique(self.columns))],
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
    if not (0 <= hamming <= 64 and 0 <= fine <= 256):
        raise InvalidInputError(f"hamming must be in [0, 64] bits and fine in [0, 256]; got {hamming} and {fine}.")
    a = images if isinstance(images, Fingerprints) else fingerprints(images, cache=cache, progress=progress)
    b = a if other is None else other if isinstance(other, Fingerprints) else fingerprints(other, cache=cache, progress=progress)
    one_set = other is None
    found = _copies(a, b, one_set=one_set)
    usable = _rows(a, b, USABLE)
    same = _equal(*(_keys(side.records["pixels"][rows]) for side, rows in zip((a, b), usable, strict=True)), one_set=one_set).total
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
        found.append((kind, _placed(near, *usable), same if kind == "near" else 0))
    return _together(a, b, found, {"hamming": hamming, "fine": fine, "mirrored": mirrored, "one set": one_set})


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
    if one_set:  # those of the same key that come later
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        first = place + 1
    listed = np.minimum(last - first, MOST)
    rows = np.repeat(np.arange(len(a)), listed)
    places = np.repeat(first, listed) + np.arange(len(rows)) - np.repeat(np.cumsum(listed) - listed, listed)
    return Near(rows, order[places].astype(np.int64), np.zeros(len(rows)), int((last - first).sum()))


def _placed(near: Near, here: NDArray[np.int64], there: NDArray[np.int64]) -> Near:
    """Rows of the chosen ones as rows of all."""
    return Near(here[near.rows], there[near.columns], near.distances, near.total)


def _rows(a: Fingerprints, b: Fingerprints, state: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The images of both that are at least so usable."""
    return np.flatnonzero(a.records["state"] >= state), np.flatnonzero(b.records["state"] >= state)


def _copies(a: Fingerprints, b: Fingerprints, *, one_set: bool) -> list[tuple[str, Near, int]]:
    """(kind, pairs, how many of them are of a stronger kind): the same file is the same bytes, and those are the same pixels."""
    found: list[tuple[str, Near, int]] = []
    readable = _rows(a, b, FLAT)
    stronger = 0
    if not one_set:
        paths = [np.array(side.paths, dtype=object) for side in (a, b)]
        found.append(("file", _equal(paths[0], paths[1], one_set=False), 0))
        stronger = _equal(paths[0][readable[0]], paths[1][readable[1]], one_set=False).total
    for kind in ("bytes", "pixels"):
        keys = [_keys(side.records[kind][rows]) for side, rows in zip((a, b), readable, strict=True)]
        near = _equal(keys[0], keys[1], one_set=one_set)
        found.append((kind, _placed(near, *readable), stronger))
        stronger = near.total
    return found


def _together(a: Fingerprints, b: Fingerprints, found: Sequence[tuple[str, Near, int]], parameters: Mapping[str, Any]) -> Duplicates:
    """Each pair once, under its strongest kind."""
    seen: set[tuple[int, int]] = set()
    pairs: list[tuple[int, int, str, float]] = []
    total: dict[str, int] = {}
    for kind, near, stronger in found:
        listed = 0
        for row, column, distance in zip(near.rows.tolist(), near.columns.tolist(), near.distances.tolist(), strict=True):
            if (row, column) in seen:
                continue
            seen.add((row, column))
            pairs.append((row, column, kind, distance))
            listed += 1
        total[kind] = listed if kind == "mirror" else near.total - stronger
    flat = tuple(int((side.records["state"] == FLAT).sum()) for side in (a, b))
    return Duplicates(
        (a.names, b.names),
        np.array([pair[0] for pair in pairs], dtype=np.int64),
        np.array([pair[1] for pair in pairs], dtype=np.int64),
        tuple(pair[2] for pair in pairs),
        np.array([pair[3] for pair in pairs], dtype=np.float64),
        total,
        (a.damaged, b.damaged),
        (flat[0], flat[1]),
        parameters,
    )
