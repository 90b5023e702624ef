"""Splits by place: which of one collection's images teach, choose and judge, so that nothing judged was seen in training.

Photographs of one place resemble each other whoever took them. A split at random puts neighbours on both sides of it and
measures memory; a split by place, with a buffer between its parts, measures what was learnt.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from covis.errors import InvalidInputError
from covis.images import Images, Scene
from covis.neighbours import Neighbours

Direction: TypeAlias = Literal["east", "north", "west", "south"]
Teaching: TypeAlias = Literal["all", "database", "queries"]
Numbering: TypeAlias = Literal["data", "time", "order"]

TRAIN, VAL, TEST, BUFFER, UNTAUGHT = range(5)
"""What becomes of an image: one of the three splits, left out near a split that judges, or left out since it may not teach."""
NAMES = ("train", "val", "test", "buffer", "untaught")
RADII = (10.0, 25.0)
"""Metres within which a summary counts positives."""

_DIRECTIONS = {"east": (0, 1.0), "north": (1, 1.0), "west": (0, -1.0), "south": (1, -1.0)}


@dataclass(frozen=True, eq=False)
class PlaceSplit:
    """One collection, cut.

    Attributes:
        images: all of it.
        part: (n,) int64, `TRAIN`, `VAL`, `TEST`, `BUFFER` or `UNTAUGHT` of each image.
        asks: (n,) bool, whether an image asks; None: where images judge, each asks all others.
        parameters: how it was cut.
    """

    images: Images
    part: NDArray[np.int64]
    asks: NDArray[np.bool_] | None
    parameters: Mapping[str, Any]

    def rows(self, split: str, side: Literal["both", "database", "queries"] = "both") -> NDArray[np.int64]:
        """The rows of a split ("train", "val", "test"; "buffer", "untaught"), ascending; of val and test also those of one side."""
        chosen = self.part == NAMES.index(split)
        if side != "both" and self.asks is not None:
            chosen = chosen & (self.asks == (side == "queries"))
        return np.flatnonzero(chosen)

    def summary(self) -> dict[str, Any]:
        """What came out, as plain values.

        `images`, `train`, `buffer`, `untaught`: counts. `val`, `test`: {"database", "queries"} and `positives`: for each
        of `RADII` the mean number of database images of a query (never itself) within so many metres, and how many queries
        have none. `distance`: metres between the nearest images of two splits, None where one is empty.
        """
        xy = positions(self.images)
        counts: dict[str, Any] = {"images": len(xy)} | {name: len(self.rows(name)) for name in ("train", "buffer", "untaught")}
        for split in ("val", "test"):
            queries, database = self.rows(split, "queries"), self.rows(split, "database")
            positives = {f"{radius:g}": _positives(xy, queries, database, radius) for radius in RADII}
            counts[split] = {"database": len(database), "queries": len(queries), "positives": positives}
        pairs = (("train", "test"), ("train", "val"), ("val", "test"))
        counts["distance"] = {f"{a}-{b}": _gap(xy[self.rows(a)], xy[self.rows(b)]) for a, b in pairs}
        return counts


def split_by_place(
    scene: Scene,
    *,
    cell: float | None = None,
    along: Direction | None = None,
    shares: Sequence[float] = (0.6, 0.15, 0.25),
    buffer: float = 25.0,
    ask: str = "sides",
    teach: Teaching = "all",
    utc_offset: float = 0.0,
    frames: Numbering = "data",
    seed: int = 0,
) -> PlaceSplit:
    """Cut a scene into train, val and test by place.

    No training image lies within `buffer` metres of one that judges (val or test), and none of val within it of one of
    test: images that would are left out, and counted.

    Args:
        scene: both of its sides are cut, as one collection; with positions (or poses).
        cell: edge of the square cells, metres, that go to one split as a whole, at random. Exactly one of `cell` and `along`.
        along: "east", "north", "west" or "south": two straight cuts instead; the splits follow each other in that
            direction, train first. Fewer images fall into the buffer.
        shares: of train, val and test among the images, before the buffer. They add up to 1; that of val may be 0.
        buffer: metres.
        ask: who asks in val and test: "sides", as the data has it; "every:N", each N-th image in the data's order;
            "flag:NAME", those of a flag; "time:HH:MM-HH:MM", those taken at that time of day (over midnight, if it ends
            earlier than it begins; the end is not in it).
        teach: which images may teach: "all", or, by the same rule, "database" or "queries" alone.
        utc_offset: hours by which local time is ahead of the data's times, which are UTC; 0 where they were local already.
        frames: how the images' `frame` comes to be: "data", as it has it; "time" or "order", from 0 in the order of their times
            or of the data. With frames, intervals of scores are over blocks of consecutive photographs, which see much
            the same, and are the wider for it.
        seed: of the cells' draw.

    Raises:
        InvalidInputError: there are no positions, an option makes no sense, or a split would be empty.

    >>> walk = Images("r", [f"{i}.jpg" for i in range(10)], xy=[[10.0 * i, 0.0] for i in range(10)])
    >>> split = split_by_place(Scene("walk", "test", walk, walk), along="east", shares=(0.5, 0, 0.5), buffer=10, ask="every:2")
    >>> split.rows("train").tolist(), split.rows("buffer").tolist(), split.rows("test", "queries").tolist()
    ([0, 1, 2, 3], [4], [6, 8])
    """
    images, sides = collection(scene)
    if len(images) == 0:
        raise InvalidInputError(f"There must be images to be split; scene {scene.name!r} has none.")
    if (cell is None) == (along is None):
        raise InvalidInputError(f"A split by place must say either cell (metres) or along (a direction); got {cell} and {along}.")
    if teach not in ("all", "database", "queries"):
        raise InvalidInputError(f"teach must be 'all', 'database' or 'queries'; got {teach!r}.")
    xy = positions(images)
    asks = who_asks(images, ask, sides=sides, utc_offset=utc_offset)
    if teach != "all" and asks is None:
        raise InvalidInputError(f"teach = {teach!r} needs images that ask and others that do not; here all ask. Say who asks (ask).")
    part = cut_along(xy, direction=along, shares=shares) if cell is None else cut_by_cell(xy, cell=cell, shares=shares, seed=seed)
    if teach != "all" and asks is not None:
        part = np.where((part == TRAIN) & (asks != (teach == "queries")), UNTAUGHT, part)
    how = {"cell": cell, "seed": seed} if along is None else {"along": along}
    rest = {"shares": list(shares), "buffer": buffer, "ask": ask, "teach": teach, "utc_offset": utc_offset, "frames": frames}
    split = PlaceSplit(numbered(images, frames), keep_apart(xy, part, buffer=buffer), asks, how | rest)
    _check_filled(split, judged=["val", "test"] if shares[1] else ["test"])
    return split


def cut_by_cell(xy: ArrayLike, *, cell: float, shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """(n,) TRAIN, VAL or TEST: whole square cells, drawn at random until test, then val, have their share of the images.

    Cells are counted from 0, 0 of the frame, so that a place's cell does not depend on which images there are; the order
    of the images does not matter.

    Raises:
        InvalidInputError: `cell` is not above 0, or the shares are none.
    """
    points, shares = np.asarray(xy, dtype=np.float64), _checked_shares(shares)
    if not (np.isfinite(cell) and cell > 0):
        raise InvalidInputError(f"The edge of a cell must be more than 0 metres; got {cell}.")
    cells, of, count = np.unique(np.floor(points / cell), axis=0, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(cells))
    before = np.cumsum(count[order]) - count[order]
    part = np.empty(len(cells), dtype=np.int64)
    n = len(points) * (1 - 1e-12)  # a share that is filled exactly takes no further cell
    part[order] = np.where(before < shares[2] * n, TEST, np.where(before < (shares[1] + shares[2]) * n, VAL, TRAIN))
    found: NDArray[np.int64] = part[of.reshape(-1)]
    return found


def cut_along(xy: ArrayLike, *, direction: Direction | None, shares: Sequence[float]) -> NDArray[np.int64]:
    """(n,) TRAIN, VAL or TEST: two straight cuts across a direction, train first; images at one coordinate stay together.

    Raises:
        InvalidInputError: there is no such direction, or the shares are none.
    """
    if direction not in _DIRECTIONS:
        raise InvalidInputError(f"The direction of a cut must be one of {', '.join(_DIRECTIONS)}; got {direction!r}.")
    shares = _checked_shares(shares)
    axis, sign = _DIRECTIONS[direction]
    along = sign * np.asarray(xy, dtype=np.float64)[:, axis]
    ordered = np.append(np.sort(along), np.inf)
    first, second = (ordered[round(len(along) * share)] for share in (shares[0], shares[0] + shares[1]))
    part: NDArray[np.int64] = np.where(along < first, TRAIN, np.where(along < second, VAL, TEST))
    return part


def keep_apart(xy: ArrayLike, part: ArrayLike, *, buffer: float) -> NDArray[np.int64]:
    """The parts, but BUFFER for an image of val within `buffer` metres of test, and then for one of train within it of val or test.

    Raises:
        InvalidInputError: the buffer is negative.
    """
    if not (np.isfinite(buffer) and buffer >= 0):
        raise InvalidInputError(f"The buffer must be 0 metres or more; got {buffer}.")
    points, kept = np.asarray(xy, dtype=np.float64), np.array(part, dtype=np.int64)
    for yields, to in ((VAL, (TEST,)), (TRAIN, (VAL, TEST))):
        mine, theirs = np.flatnonzero(kept == yields), np.flatnonzero(np.isin(kept, to))
        kept[mine[_nearest(points[mine], points[theirs]) <= buffer]] = BUFFER
    return kept


def who_asks(images: Images, rule: str, *, sides: NDArray[np.bool_] | None = None, utc_offset: float = 0.0) -> NDArray[np.bool_] | None:
    """(n,) whether an image asks, by a rule of `split_by_place`; None: all ask all others.

    Args:
        images: the collection.
        rule: "sides", "every:N", "flag:NAME" or "time:HH:MM-HH:MM".
        sides: what "sides" means.
        utc_offset: hours, added to the images' times.

    Raises:
        InvalidInputError: the rule reads as none of these, or the images lack what it needs.
    """
    kind, _, value = rule.partition(":")
    if rule == "sides":
        return sides
    if kind == "every" and re.fullmatch(r"\d{1,9}", value) and int(value) >= 2:
        chosen: NDArray[np.bool_] = np.arange(len(images)) % int(value) == 0
        return chosen
    if kind == "flag" and value:
        if value not in images.flags:
            raise InvalidInputError(
                f"The images must have the flag {value!r} for ask = {rule!r}; they have {', '.join(images.flags) or 'none'}."
            )
        return np.array(images.flags[value])
    window = re.fullmatch(r"(\d\d):(\d\d)-(\d\d):(\d\d)", value) if kind == "time" else None
    if window is None:
        raise InvalidInputError(
            f"ask must be 'sides', 'every:N' (N from 2), 'flag:NAME' or 'time:HH:MM-HH:MM', as 'time:17:00-06:00'; got {rule!r}."
        )
    hours = [int(part) for part in window.groups()]
    begin, end = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
    if begin == end or max(begin, end) > 24 * 60 or max(hours[1], hours[3]) > 59:
        raise InvalidInputError(f"The time of day in ask must be two different times up to 24:00; got {rule!r}.")
    return _taken_at(images, begin, end, utc_offset)


def collection(scene: Scene) -> tuple[Images, NDArray[np.bool_] | None]:
    """All images of a scene in one table, database first, and which of them ask; None where its two sides are the same.

    Columns that only one side has are left out. Names become relative to a folder that holds both sides.

    Raises:
        InvalidInputError: a part of the images stands on both sides.
    """
    database, queries = scene.database, scene.queries
    if scene.training:
        return database, None
    both = queries.same_files(database) >= 0
    if both.any():
        raise InvalidInputError(
            f"An image must stand on one side to be split; {both.sum()} of {len(queries)} queries of scene {scene.name!r} are in its "
            f"database too ({queries.names[int(both.argmax())]} first). Read one of the two sides alone, and say who asks (ask)."
        )
    return _together(database, queries), np.arange(len(database) + len(queries)) >= len(database)


def numbered(images: Images, by: Numbering) -> Images:
    """The images with frames from 0, in the order of their times ("time") or as they stand ("order"); "data": as they are.

    Raises:
        InvalidInputError: a time is unknown, or there is no such order.
    """
    if by not in ("data", "time", "order"):
        raise InvalidInputError(f"frames must be 'data', 'time' or 'order'; got {by!r}.")
    if by == "data":
        return images
    order = np.argsort(_times(images, "frames = 'time'"), kind="stable") if by == "time" else np.arange(len(images))
    return dataclasses.replace(images, frame=np.argsort(order))


def positions(images: Images) -> NDArray[np.float64]:
    """(n, 2) metres: `xy`, or where there is none the cameras' x and y.

    Raises:
        InvalidInputError: there is neither.
    """
    if images.xy is None and images.pose is not None:
        return images.pose[:, :2, 3]
    if images.xy is None:
        raise InvalidInputError(f"Images must have positions to be split by place; those in {images.root} have none.")
    return images.xy


def _taken_at(images: Images, begin: int, end: int, utc_offset: float) -> NDArray[np.bool_]:
    """Whether an image was taken between two minutes of the day."""
    if not np.isfinite(utc_offset):
        raise InvalidInputError(f"utc_offset must be a number of hours; got {utc_offset}.")
    minute = (_times(images, "ask = 'time:…'") / 60 + utc_offset * 60) % (24 * 60)
    late, early = minute >= begin, minute < end
    return late & early if begin < end else late | early


def _times(images: Images, what: str) -> NDArray[np.float64]:
    if images.time is None or np.isnan(images.time).any():
        lacking = "none has" if images.time is None else f"{images.names[int(np.isnan(images.time).argmax())]} has none"
        raise InvalidInputError(
            f"Images must have times for {what}; of those in {images.root} {lacking}. Read them (option time_format of a table)."
        )
    return images.time


def _together(a: Images, b: Images) -> Images:
    here, there = a.root.absolute(), b.root.absolute()
    root = a.root if here == there else Path(os.path.commonpath([here, there]))

    def placed(field: str) -> tuple[str, ...]:
        texts = [(side, text) for side in (a, b) for text in getattr(side, field)]
        if here == there:
            return tuple(text for _, text in texts)
        return tuple((side.root.absolute() / text).relative_to(root).as_posix() if text else text for side, text in texts)

    columns: dict[str, Any] = {}
    for field in (one.name for one in dataclasses.fields(Images) if one.name not in ("root", "names", "crs", "flags")):
        left, right = getattr(a, field), getattr(b, field)
        if left is not None and right is not None:
            whole = placed(field) if field in ("depth", "segmentation") else None
            columns[field] = whole or (left + right if isinstance(left, tuple) else np.concatenate([left, right]))
    flags = {name: np.concatenate([a.flags[name], b.flags[name]]) for name in a.flags if name in b.flags}
    return Images(root, placed("names"), crs=a.crs, flags=flags, **columns)


def _checked_shares(shares: Sequence[float]) -> tuple[float, float, float]:
    found = np.asarray(shares, dtype=np.float64)
    if found.shape != (3,) or not (found >= 0).all() or abs(found.sum() - 1) > 1e-6 or found[0] == 0 or found[2] == 0:
        raise InvalidInputError(
            "The shares must be three numbers for train, val and test that add up to 1, those of train and test above 0; "
            f"got {list(shares)}."
        )
    return float(found[0]), float(found[1]), float(found[2])


def _check_filled(split: PlaceSplit, *, judged: Sequence[str]) -> None:
    counts = ", ".join(f"{name} {len(split.rows(name))}" for name in NAMES)
    if not len(split.rows("train")):
        raise InvalidInputError(
            f"Some images must be left to teach; none of {len(split.part)} is ({counts}). Take a smaller buffer, cells of another size, "
            "straight cuts (along), or a larger share of train."
        )
    for name in judged:
        for side in ("database", "queries"):
            rows = split.rows(name, side)
            if not len(rows):
                raise InvalidInputError(
                    f"The split {name!r} must have {side}; it has none ({counts}). Take another share or size of cell, a smaller "
                    f"buffer, or another rule of who asks (ask = {split.parameters['ask']!r})."
                )


def _nearest(points: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) metres from each point to the nearest of the others, infinite where there is none."""
    if not len(points) or not len(others):
        return np.full(len(points), np.inf)
    origin = others.mean(axis=0)  # a northing of millions of metres would cost the tree its last digits
    _, which = cKDTree(others - origin).query(points - origin)
    gap = points - others[which]
    return np.asarray(np.hypot(gap[:, 0], gap[:, 1]))


def _gap(points: NDArray[np.float64], others: NDArray[np.float64]) -> float | None:
    return float(_nearest(points, others).min()) if len(points) and len(others) else None


def _positives(xy: NDArray[np.float64], queries: NDArray[np.int64], database: NDArray[np.int64], radius: float) -> dict[str, Any]:
    if not len(queries) or not len(database):
        return {"mean": 0.0, "none": len(queries)}
    near = Neighbours(xy[queries], xy[database], radius)
    found = np.zeros(len(queries), dtype=np.int64)
    for rows in near.blocks(500_000):
        row, column = near.pairs(rows)
        found += np.bincount(row[queries[row] != database[column]], minlength=len(queries))
    return {"mean": float(found.mean()), "none": int((found == 0).sum())}
