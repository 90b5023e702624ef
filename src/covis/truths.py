"""Truth: what a protocol says of a scene, before anything is searched; and several scenes made one.

Nothing dense is ever built: candidates come from a k-d tree or from sorted frame numbers, and stay sparse.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from covis.errors import InvalidInputError
from covis.images import Images, Scene
from covis.labels import TIE, Labels, self_pairs
from covis.neighbours import Neighbours
from covis.protocols import Protocol
from covis.protocols import protocol as protocol_by_name
from covis.sequences import window_names, windows

Pairs: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]
BLOCK_PAIRS = 1_000_000
"""Candidate pairs that are looked at together."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What is correct in a scene under a protocol. A row is an image or, under a protocol with windows, a window.

    Attributes:
        query_names: q names; a window's are those of its frames, joined by commas.
        database_names: d names.
        asked: (q,) bool.
        searched: (d,) bool: takes a rank.
        eligible: (d,) bool: is searched and may be a positive, as the protocol's flags have it.
        positives: (q, d) CSR bool; none of a query that is not asked, of an image that is not eligible, or excluded.
        excluded: (q, d) CSR bool: an image with itself, windows that share one and, where similarity decides, what the labels leave out.
        query_rows: (q,) int64 the image, or the window's middle one, in the scene's queries.
        windows: frames in a query and in a database entry.
        similarity: (q, d) CSR float64 in [0, 1]; None without labels, and for windows.
        queries_xy: (q, 2) metres, of the middle images; None where unknown.
        database_xy: (d, 2) metres.
        groups: (d,) int64 the place of each entry, where the protocol lets one image a place keep its rank; else None.
        has_positive: (q,) bool, those of the query's own time included, where the protocol gives them no rank; else None.
    """

    query_names: tuple[str, ...]
    database_names: tuple[str, ...]
    asked: NDArray[np.bool_]
    searched: NDArray[np.bool_]
    eligible: NDArray[np.bool_]
    positives: sparse.csr_array
    excluded: sparse.csr_array
    query_rows: NDArray[np.int64]
    windows: tuple[int, int] = (1, 1)
    similarity: sparse.csr_array | None = None
    queries_xy: NDArray[np.float64] | None = None
    database_xy: NDArray[np.float64] | None = None
    groups: NDArray[np.int64] | None = None
    has_positive: NDArray[np.bool_] | None = None

    def __repr__(self) -> str:
        asked, searched = np.count_nonzero(self.asked), np.count_nonzero(self.searched)
        return f"Truth({asked} of {len(self.asked)} asked, {searched} of {len(self.searched)} searched, {self.positives.nnz} positives)"

    @property
    def answerable(self) -> NDArray[np.bool_]:
        """(q,) bool: is asked and has a positive, be it of its own time: then it counts, and is a miss."""
        return np.asarray(np.diff(self.positives.indptr) > 0) if self.has_positive is None else self.has_positive & self.asked


def truth(scene: Scene, protocol: str | Protocol, labels: Labels | None = None) -> Truth:
    """What a protocol says of a scene: who is asked, what takes a rank, and what is correct.

    By "distance" a database image is correct up to the radius, inclusive, from differences in float64; a window where any of
    its frames is that near to any frame of the query's (the rule of MSLS). Flags are those of a window's middle frame.

    Args:
        scene: its database and queries, in one frame.
        protocol: a name of `PROTOCOLS`, a TOML file, or a `Protocol`.
        labels: of the scene's images; needed where similarity decides. They also say which pairs are left out.

    Raises:
        InvalidInputError: the scene lacks what the protocol looks at (labels, positions, headings, frame numbers, flags), or
            the labels are not of its images.

    >>> there = Images("r", ["a.jpg", "b.jpg"], xy=[[0, 0], [100, 0]])
    >>> truth(Scene("s", "test", there, Images("r", ["q.jpg"], xy=[[3, 4]])), "radius/5").positives.toarray()
    array([[ True, False]])
    """
    rule = protocol if isinstance(protocol, Protocol) else protocol_by_name(protocol)
    _check_labels(scene, rule, labels)
    queries, database = (_Side(images, length) for images, length in zip((scene.queries, scene.database), rule.windows, strict=True))
    asked = _flagged(queries, rule.asked, what=f"asks the queries of scene {scene.name!r}", rule=rule)
    searched = _flagged(database, rule.searched, what=f"searches the database of scene {scene.name!r}", rule=rule)
    eligible = searched & _flagged(database, rule.correct, what=f"scores the database of scene {scene.name!r}", rule=rule)
    # What a label rule leaves out (panoramas, say) is no business of a protocol that does not judge by labels.
    graded = labels if rule.positive == "similarity" else None
    excluded = _lifted(_excluded(scene, graded, rule), queries, database)
    if rule.positive == "similarity" and labels is not None:
        near = labels.positives(rule.threshold, strict=rule.strict)
    else:
        near = _near(scene, rule, queries.images_of(asked), database.images_of(eligible))
    positives = _only(_lifted(near, queries, database), rows=asked, columns=eligible, without=excluded)
    counts = positives
    if rule.moments == "other":  # as NetVLAD and GCL have it: only the list loses them, not the denominator
        counts = _only(near, rows=asked, columns=eligible, without=_excluded(scene, graded, dataclasses.replace(rule, moments="any")))
    return Truth(
        queries.names(),
        database.names(),
        asked,
        searched,
        eligible,
        positives,
        excluded,
        query_rows=queries.middle,
        windows=rule.windows,
        similarity=labels.matrix if labels is not None and rule.windows == (1, 1) else None,
        queries_xy=None if scene.queries.xy is None else scene.queries.xy[queries.middle],
        database_xy=None if scene.database.xy is None else scene.database.xy[database.middle],
        groups=_places(scene, rule)[1][database.middle] if rule.duplicates == "place" else None,
        has_positive=np.diff(counts.indptr) > 0 if rule.moments == "other" else None,
    )


def depth(scene: Scene, protocol: str | Protocol, labels: Labels | None = None, *, k: int) -> int:
    """How many images must be searched for, so that k are left for every query after those that take no rank.

    Those are images that the protocol does not search, an image itself, pairs that labels or the same time leave out and, where one
    image a place keeps its rank, the others of its place.

    >>> both = Images("r", ["a.jpg", "b.jpg", "c.jpg"], xy=[[0, 0], [1, 0], [9, 0]])
    >>> depth(Scene("s", "test", both, both), "radius/5", k=1)
    2
    """
    found = truth(scene, protocol, labels)
    again = 0
    if found.groups is not None:  # at worst all images of the k - 1 largest places come first
        again = int(np.sort(np.unique(found.groups[found.searched], return_counts=True)[1] - 1)[::-1][: k - 1].sum())
    return k + again + int(np.count_nonzero(~found.searched)) + int(np.diff(found.excluded.indptr).max(initial=0))


def joint_truth(scenes: Sequence[Scene], truths: Sequence[Truth]) -> Truth:
    """The truths of several scenes, searched through one index: named as in `join`; positives never cross scenes.

    Positions stay where the scenes share one known frame; `query_rows` still count within each scene.

    Raises:
        InvalidInputError: two scenes hold an image of the same name.
    """
    if len(truths) == 1:
        return truths[0]
    graded = [one.similarity for one in truths if one.similarity is not None]
    here = [one.queries_xy for one in truths if one.queries_xy is not None]
    there = [one.database_xy for one in truths if one.database_xy is not None]
    groups = [one.groups for one in truths if one.groups is not None]
    placed = _one_frame(scenes) and len(here) == len(there) == len(truths)
    return Truth(
        _joint_names("queries", scenes, truths),
        _joint_names("database", scenes, truths),
        np.concatenate([one.asked for one in truths]),
        np.concatenate([one.searched for one in truths]),
        np.concatenate([one.eligible for one in truths]),
        _stacked([one.positives for one in truths]),
        _stacked([one.excluded for one in truths]),
        query_rows=np.concatenate([one.query_rows for one in truths]),
        windows=truths[0].windows,
        similarity=_stacked(graded) if len(graded) == len(truths) else None,
        queries_xy=np.concatenate(here) if placed else None,
        database_xy=np.concatenate(there) if placed else None,
        groups=_apart(groups) if groups else None,
        has_positive=None if any(one.has_positive is None for one in truths) else np.concatenate([one.answerable for one in truths]),
    )


def join(scenes: Sequence[Scene]) -> Scene:
    """Several scenes as one, for an index over all of them.

    Names are relative to the common parent of the scenes' folders; where all lie in one folder they stay as they are.
    Columns and flags that every scene has stay. Positions and poses stay only where all share one known frame.
    Sequences and places of different scenes stay apart: their names begin with the scene's, their numbers follow on.

    Raises:
        InvalidInputError: there is no scene, the splits differ, or two scenes hold an image of the same name.

    >>> cph, sf = (Scene(name, "val", one, one) for name, one in (("cph", Images("r/cph", ["a.jpg"])), ("sf", Images("r/sf", ["a.jpg"]))))
    >>> join([cph, sf]).name, join([cph, sf]).database.names
    ('cph+sf', ('cph/a.jpg', 'sf/a.jpg'))
    """
    if not scenes or len({scene.split for scene in scenes}) != 1:
        raise InvalidInputError(f"Scenes that are joined must be one or more, of one split; got {[scene.split for scene in scenes]}.")
    if len(scenes) == 1:
        return scenes[0]
    frame = scenes[0].database.crs if _one_frame(scenes) else None
    database = _joined([scene.database for scene in scenes], [scene.name for scene in scenes], frame)
    training = all(scene.training for scene in scenes)
    queries = database if training else _joined([scene.queries for scene in scenes], [scene.name for scene in scenes], frame)
    return Scene("+".join(scene.name for scene in scenes), scenes[0].split, database, queries)


class _Side:
    """One side's entries: images, or windows of consecutive frames."""

    def __init__(self, images: Images, length: int) -> None:
        self.images = images
        self.rows = np.arange(len(images), dtype=np.int64)[:, None] if length == 1 else windows(images, length)
        self.middle: NDArray[np.int64] = self.rows[:, length // 2]
        self.single = length == 1

    def names(self) -> tuple[str, ...]:
        return self.images.names if self.single else window_names(self.images, self.rows)

    def images_of(self, entries: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The images that stand in any of these entries, ascending."""
        return np.unique(self.rows[entries])

    def members(self) -> sparse.csr_array:
        """(entries, images) CSR: 1 where an image stands in an entry."""
        starts = np.arange(len(self.rows) + 1) * self.rows.shape[1]
        return sparse.csr_array((np.ones(self.rows.size, dtype=np.int32), self.rows.ravel(), starts), (len(self.rows), len(self.images)))


def _check_labels(scene: Scene, rule: Protocol, labels: Labels | None) -> None:
    if labels is None:
        if rule.positive == "similarity":
            raise InvalidInputError(
                f"The protocol {rule.name} looks at graded similarity, and scene {scene.name!r} comes without labels. Give its labels "
                "(covis label makes them), or choose a protocol by distance, such as radius/25."
            )
        return
    for side, mine, theirs in (
        ("queries", labels.query_names, scene.queries.names),
        ("database", labels.database_names, scene.database.names),
    ):
        if mine != theirs:
            pairs = zip(mine, theirs, strict=False)
            where = next((f"{a!r} against {b!r}" for a, b in pairs if a != b), f"{len(mine)} against {len(theirs)} images")
            raise InvalidInputError(
                f"The labels of scene {scene.name!r} must name its {side} in their order; they differ: {where}. Were they made from other "
                "data?"
            )


def _flagged(side: _Side, flags: Sequence[str], *, what: str, rule: Protocol) -> NDArray[np.bool_]:
    """(entries,) bool: whether the middle image has every flag; "-x" is the lack of x, and holds where nobody knows of x."""
    holds = np.ones(len(side.images), dtype=bool)
    for flag in flags:
        name = flag.removeprefix("-")
        if name in side.images.flags:
            holds &= side.images.flags[name] != flag.startswith("-")
        elif not flag.startswith("-"):
            raise InvalidInputError(
                f"The protocol {rule.name} {what} for the flag {flag!r}; those images have {', '.join(side.images.flags) or 'no flags'}. "
                "Read the data with a layout that gives it, or choose another protocol."
            )
    return holds[side.middle]


def _excluded(scene: Scene, labels: Labels | None, rule: Protocol) -> sparse.csr_array:
    """(images, images) the pairs that are no pairs."""
    here, there = (_paths(images) for images in (scene.queries, scene.database))
    parts = [] if here.isdisjoint(there) else [self_pairs(scene.queries, scene.database)]  # which looks at each path, and takes longer
    parts += [] if labels is None else [labels.excluded]
    parts += [_same(*_moments(scene, rule))] if rule.moments == "other" else []
    if not parts:
        return sparse.csr_array((len(scene.queries), len(scene.database)), dtype=bool)
    return parts[0] if len(parts) == 1 else sparse.csr_array(sum(parts[1:], start=parts[0]))


def _moments(scene: Scene, rule: Protocol) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    (here,), (there,) = scene.queries.need("time"), scene.database.need("time")
    unknown = int(np.count_nonzero(np.isnan(here))) + int(np.count_nonzero(np.isnan(there)))
    if unknown:
        raise InvalidInputError(
            f"The protocol {rule.name} leaves out images of the query's own time, which must be known; in scene {scene.name!r} it is not "
            f"for {unknown} images. Leave these images out, or choose another protocol."
        )
    return here, there


def _places(scene: Scene, rule: Protocol) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The places of queries (where they are needed) and database."""
    if scene.database.place is None or (rule.positive == "place" and scene.queries.place is None):
        lacking = "database" if scene.database.place is None else "queries"
        raise InvalidInputError(
            f"The protocol {rule.name} looks at the places of images (the panorama of a cutout, say); the {lacking} of scene "
            f"{scene.name!r} have none. Read the data with a layout that gives them, or choose another protocol."
        )
    return scene.database.place if scene.queries.place is None else scene.queries.place, scene.database.place


def _same(here: NDArray[Any], there: NDArray[Any]) -> sparse.csr_array:
    """(images, images) CSR bool: which pairs have the same value."""
    values, code = np.unique(np.concatenate([here, there]), return_inverse=True)
    ones, columns = np.ones(len(code), dtype=np.int32), code.reshape(-1)
    belongs = sparse.csr_array((ones, columns, np.arange(len(code) + 1)), shape=(len(code), len(values)))
    return sparse.csr_array(belongs[: len(here)] @ belongs[len(here) :].T).astype(bool)


def _paths(images: Images) -> set[str]:
    root = images.root.absolute().as_posix()
    return {f"{root}/{name}" for name in images.names}


def _near(scene: Scene, rule: Protocol, asked: NDArray[np.int64], searched: NDArray[np.int64]) -> sparse.csr_array:
    """(images, images) CSR bool: which of these images are near enough to each other."""
    if rule.positive == "place":
        return _same(*_places(scene, rule))
    blocks = _by_distance(scene, rule, asked, searched) if rule.positive == "distance" else _by_frames(scene, rule, asked, searched)
    rows, columns = (np.concatenate([np.zeros(0, dtype=np.int64), *parts]) for parts in zip(*blocks, strict=True)) if blocks else ((), ())
    shape = (len(scene.queries), len(scene.database))
    return sparse.csr_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=shape)


def _by_distance(scene: Scene, rule: Protocol, asked: NDArray[np.int64], searched: NDArray[np.int64]) -> list[Pairs]:
    (here,), (there,) = scene.queries.need("xy"), scene.database.need("xy")
    headings = None if rule.heading is None else _headings(scene, rule, asked, searched)
    if not len(searched):
        return []
    near = Neighbours(here[asked], there[searched], rule.threshold)
    found = []
    for block in near.blocks(BLOCK_PAIRS):
        rows, columns = near.pairs(block)
        rows, columns = asked[rows], searched[columns]
        kept = np.ones(len(rows), dtype=bool)
        if rule.strict:
            kept = ((here[rows] - there[columns]) ** 2).sum(axis=1) < rule.threshold**2
        if headings is not None and rule.heading is not None:
            turn = np.abs(headings[0][rows] - headings[1][columns])
            kept &= np.minimum(turn, 360 - turn) <= rule.heading + TIE
        found.append((rows[kept], columns[kept]))
    return found


def _headings(
    scene: Scene, rule: Protocol, asked: NDArray[np.int64], searched: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    (here,), (there,) = scene.queries.need("heading"), scene.database.need("heading")
    unknown = []
    for side, names, heading, rows in (
        ("queries", scene.queries.names, here, asked),
        ("database images", scene.database.names, there, searched),
    ):
        without = rows[np.isnan(heading[rows])]
        if len(without):
            unknown.append(f"{len(without)} of {len(rows)} {side} (the first is {names[without[0]]!r})")
    if unknown:
        raise InvalidInputError(
            f"The protocol {rule.name} compares headings, which must be known; in scene {scene.name!r} they are not for "
            f"{' and '.join(unknown)}. Leave these images out, or choose a protocol without a limit of heading."
        )
    return here, there


def _by_frames(scene: Scene, rule: Protocol, asked: NDArray[np.int64], searched: NDArray[np.int64]) -> list[Pairs]:
    (here,), (there,) = scene.queries.need("frame"), scene.database.need("frame")
    for side, images in (("queries", scene.queries), ("database", scene.database)):
        if len(set(images.sequence or ())) > 1:
            raise InvalidInputError(
                f"The protocol {rule.name} compares frame numbers, which must run through a whole side; the {side} of scene {scene.name!r} "
                f"are {len(set(images.sequence or ()))} sequences. Split the scene, one sequence a side."
            )
    columns = searched[np.argsort(there[searched], kind="stable")]
    # Whole numbers: less than 7.5 apart is at most 7, strictly less than 7 is at most 6.
    apart = math.ceil(rule.threshold) - 1 if rule.strict else math.floor(rule.threshold)
    low = np.searchsorted(there[columns], here[asked] - apart, "left")
    counts = np.maximum(np.searchsorted(there[columns], here[asked] + apart, "right") - low, 0)
    place = np.arange(counts.sum()) + np.repeat(low - (np.cumsum(counts) - counts), counts)
    return [(np.repeat(asked, counts), columns[place])]


def _lifted(pairs: sparse.csr_array, queries: _Side, database: _Side) -> sparse.csr_array:
    """From pairs of images to pairs of entries: those with a pair of images in them."""
    if queries.single and database.single:
        return pairs
    return sparse.csr_array(queries.members() @ pairs.astype(np.int32) @ database.members().T).astype(bool)


def _only(pairs: sparse.csr_array, *, rows: NDArray[np.bool_], columns: NDArray[np.bool_], without: sparse.csr_array) -> sparse.csr_array:
    """The pairs of some queries and some database images, less those left out; sorted."""
    kept = sparse.csr_array(pairs - pairs.multiply(without)) if without.nnz else pairs
    kept.sort_indices()
    row = np.repeat(np.arange(kept.shape[0]), np.diff(kept.indptr))
    stays = (kept.data != 0) & rows[row] & columns[kept.indices]
    starts = np.concatenate([[0], np.cumsum(stays)])[kept.indptr]
    return sparse.csr_array((np.ones(np.count_nonzero(stays), dtype=bool), kept.indices[stays], starts), shape=kept.shape)


def _stacked(blocks: Sequence[sparse.csr_array]) -> sparse.csr_array:
    """Block-diagonal."""
    return sparse.csr_array(sparse.block_diag(blocks, format="csr"), dtype=blocks[0].dtype)


def _one_frame(scenes: Sequence[Scene]) -> bool:
    return scenes[0].database.crs is not None and len({scene.database.crs for scene in scenes}) == 1


def _prefixes(images: Sequence[Images]) -> tuple[Path, list[str]]:
    """The common parent of the images' folders, and what stands before each one's names there."""
    if len({one.root for one in images}) == 1:
        return images[0].root, [""] * len(images)
    roots = [one.root.absolute() for one in images]
    parent = Path(os.path.commonpath(roots))
    return parent, ["" if root == parent else f"{root.relative_to(parent).as_posix()}/" for root in roots]


def _joint_names(side: str, scenes: Sequence[Scene], truths: Sequence[Truth]) -> tuple[str, ...]:
    single = truths[0].windows[side == "database"] == 1
    _, prefixes = _prefixes([getattr(scene, side) for scene in scenes])
    joined: list[str] = []
    for one, prefix in zip(truths, prefixes, strict=True):
        names = one.database_names if side == "database" else one.query_names
        if prefix and single:
            names = tuple(prefix + name for name in names)
        elif prefix:
            names = tuple(",".join(prefix + part for part in name.split(",")) for name in names)
        joined += names
    if len(set(joined)) < len(joined):
        twice = next(name for name, count in Counter(joined).items() if count > 1)
        raise InvalidInputError(f"Scenes that are searched together must not share images; {twice!r} stands in two. Score scene by scene.")
    return tuple(joined)


def _joined(images: Sequence[Images], names: Sequence[str], frame: str | None) -> Images:
    """The tables one below the other; what not every one has is left out."""
    root, prefixes = _prefixes(images)
    columns: dict[str, Any] = {}
    for column in dataclasses.fields(Images):
        values = [getattr(one, column.name) for one in images]
        if column.name in ("root", "names", "crs", "flags") or any(value is None for value in values):
            continue
        if column.name in ("depth", "segmentation"):
            columns[column.name] = tuple(prefix + text for prefix, texts in zip(prefixes, values, strict=True) for text in texts)
        elif column.name == "sequence":
            columns[column.name] = tuple(f"{name}/{text}" for name, texts in zip(names, values, strict=True) for text in texts)
        elif column.name == "place":
            columns[column.name] = _apart(values)
        elif frame is not None or column.name not in ("xy", "pose"):
            columns[column.name] = np.concatenate(values)
    flags = {
        flag: np.concatenate([one.flags[flag] for one in images]) for flag in images[0].flags if all(flag in one.flags for one in images)
    }
    listed = tuple(prefix + name for prefix, one in zip(prefixes, images, strict=True) for name in one.names)
    return Images(root, listed, crs=frame, flags=flags, **columns)


def _apart(numbers: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Numbers of several scenes, renumbered from 0 so that no two scenes share one."""
    scene = np.repeat(np.arange(len(numbers)), [len(one) for one in numbers])
    return np.unique(np.column_stack([scene, np.concatenate(numbers)]), axis=0, return_inverse=True)[1].reshape(-1)
