"""Data sets that come as a MATLAB `dbStruct`: Pittsburgh 30k and 250k, Tokyo 24/7, Tokyo Time Machine, and sets made like them.

    <set>/datasets/pitts30k_test.mat, …         the .mat; also beside the images, or in raw/
    <set>/000/…  <set>/queries_real/000/…       images, as pytorch-NetVlad has them
    <set>/images/…  <set>/{queries,query}/…     as NetVLAD has them; Tokyo Time Machine has images/ for both sides
    raw/Pittsburgh/{images,queries}/…           as OpenIBL has them, and raw/tokyo247/…, raw/tokyoTM/…

The .mat names the images and gives their positions in metres (`files`). It does not say their UTM zone, which is
known for the four benchmarks alone, by the file's name.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from covis.datasets.catalogue import Sizes, check_sizes
from covis.datasets.dbstruct.files import DbStruct, read_struct
from covis.datasets.dbstruct.folders import DATABASE, QUERIES, FilesByStem, bases, find_side, find_struct, split_name
from covis.datasets.dbstruct.sets import Known, known_set, places_of
from covis.datasets.dbstruct.times import Times, seconds
from covis.datasets.drafts import Draft, Invalid, Missing, SceneDraft
from covis.errors import CovisWarning, InvalidInputError, MissingFileError
from covis.images import Scene

Axes: TypeAlias = Literal["east-north", "north-east"]
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class _Options:
    database: str | None
    queries: str | None
    crs: str | None
    times: Times
    axes: Axes


def read_dbstruct(
    root: str | Path,
    *,
    split: str = "test",
    missing: Missing = "stop",
    invalid: Invalid = "stop",
    sizes: Sizes = "stop",
    name: str | None = None,
    database: str | None = None,
    queries: str | None = None,
    crs: str | None = None,
    times: Times = "auto",
    axes: Axes = "east-north",
) -> list[Scene]:
    """Read a `dbStruct` .mat and the images that it names as one scene, called as the set.

    A listed name without a file stands for the one file that differs from it in its suffix (Tokyo 24/7 lists .jpg, and its
    database is .png). Where the same images, at the same positions, stand on both sides, they are one table.

    Args:
        root: the .mat (also with another suffix, as seqNet's .db), or a folder that holds it: in itself, in `datasets` or in `raw`.
        split: "train", "val" or "test": which file, and what it must say of itself. The sides stay apart in all splits.
        missing: images without a file: "stop", "skip" (leave out and say so), or "ignore" (metadata alone: names as listed).
        invalid: positions that are not finite, and names that stand twice: "stop" or "skip".
        sizes: where a benchmark's file has other numbers of images than the benchmark: "stop", "warn" or "ignore".
        name: which set, where a folder holds several ("pitts30k").
        database: the folder of the database images, where it is called otherwise than above.
        queries: the folder of the query images.
        crs: the frame of the positions; default EPSG:32617 for Pittsburgh, EPSG:32654 for both sets of Tokyo, else unknown.
        times: what time stamps are: "auto" (told by their values), "month", "datenum", "day", "seconds", "text", or "none".
        axes: which coordinate comes first in the file: "east-north", or "north-east" (seqNet's RobotCar).

    Returns:
        One scene with `xy`; `time` where the file has time stamps; `place` of the database where the names say the panorama (24 views
        of Pittsburgh, 12 cutouts of Tokyo 24/7), or where it is Tokyo 24/7 in its order: row // 12. Queries have no `place`: their
        numbers would mean other panoramas.

    Raises:
        MissingFileError: there is no such file or folder, or none of that split.
        DamagedFileError: the .mat is truncated, foreign, or its fields do not fit.
        InvalidInputError: several files fit, the split is another, the sizes are not the benchmark's, or a policy says stop.

    Warns:
        CovisWarning: posDistThr is not 25 m, fields are taken by their place, or time stamps are no known date.

    The fields are R. Arandjelović's (NetVLAD, CVPR 2016).

    >>> import tempfile
    >>> from covis.datasets.dbstruct.files import write_struct
    >>> xy = np.array([[585000.0, 4477000.0], [585010.0, 4477000.0]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_struct(f"{folder}/mine.mat", DbStruct("test", ("a.jpg", "b.jpg"), ("q.jpg",), xy, xy[:1]))
    ...     (scene,) = read_dbstruct(path, missing="ignore", crs="EPSG:32617")
    >>> scene, scene.database.names, scene.queries.xy.tolist()
    (Scene('mine', 'test': 1 queries, 2 database), ('a.jpg', 'b.jpg'), [[585000.0, 4477000.0]])
    """
    options = _Options(database, queries, crs, times, axes)
    draft = _draft(Path(root), split, name, options, sizes=sizes, look=missing != "ignore")
    return [draft.scene(missing=missing, invalid=invalid)]


def draft_dbstruct(
    root: str | Path,
    *,
    split: str = "test",
    sizes: Sizes = "stop",
    name: str | None = None,
    database: str | None = None,
    queries: str | None = None,
    crs: str | None = None,
    times: Times = "auto",
    axes: Axes = "east-north",
) -> list[SceneDraft]:
    """What the file says, for `read_dbstruct` and for checks; the options are those of `read_dbstruct`.

    Raises:
        MissingFileError: there is no such file or folder, or none of that split.
        DamagedFileError: the .mat is truncated, foreign, or its fields do not fit.
        InvalidInputError: several files fit, the split is another, or the sizes are not the benchmark's.
    """
    return [_draft(Path(root), split, name, _Options(database, queries, crs, times, axes), sizes=sizes, look=True)]


def _draft(root: Path, split: str, name: str | None, options: _Options, *, sizes: Sizes, look: bool) -> SceneDraft:
    if split not in SPLITS:
        raise InvalidInputError(f"The split of a dbStruct must be 'train', 'val' or 'test'; got {split!r}.")
    if options.axes not in ("east-north", "north-east"):
        raise InvalidInputError(f"axes must be 'east-north' or 'north-east'; got {options.axes!r}.")
    root = root.absolute()
    path = find_struct(root, split=split, name=name)
    held = read_struct(path)
    _check_split(path, held, split)
    known = known_set(path)
    if known is not None:
        check_sizes(known.name, split=split, queries=len(held.queries), database=len(held.database), policy=sizes, where=path)
    columns = _columns(path, held, known, options)
    _remark_on_radius(path, held)
    roots = _roots(root, path, held, known=known, options=options)
    sides = []
    files = FilesByStem()
    for place, names, filled in zip(roots, (held.database, held.queries), columns, strict=True):
        draft = Draft(place, files.resolve(place, names, path) if look else names, path, filled)
        draft.crs = options.crs if options.crs is not None else None if known is None else known.crs
        sides.append(draft)
    called = split_name(path)[0] if known is None else known.name
    same = roots[0] == roots[1] and _same(held)
    return SceneDraft(called, split, sides[0], None if same else sides[1])


def _check_split(path: Path, held: DbStruct, split: str) -> None:
    """The file's name says its split, else whichSet does; another than was asked for is never read in its place."""
    by_name = split_name(path)[1]
    said = by_name or (held.which if held.which in SPLITS else None)
    if by_name and held.which in SPLITS and held.which != by_name:
        warnings.warn(
            f"{path}: whichSet says {held.which!r}, the file's name {by_name!r}; the name counts. Was the file renamed?",
            CovisWarning,
            stacklevel=4,
        )
    if said is not None and said != split:
        raise InvalidInputError(f"{path} holds the split {said!r}; got split={split!r}. Ask for {said!r}, or point to another file.")


def _columns(path: Path, held: DbStruct, known: Known | None, options: _Options) -> list[dict[str, Any]]:
    """The columns of database and queries."""
    step = 1 if options.axes == "east-north" else -1
    columns: list[dict[str, Any]] = [{"xy": xy[:, ::step].copy()} for xy in (held.database_xy, held.queries_xy)]
    first, second = np.median(np.nan_to_num(held.database_xy), axis=0).tolist()
    if step == 1 and first >= 1e6 > second >= 1e5:
        warnings.warn(
            f"{path}: the first coordinate is {first:.0f} m at the median, the second {second:.0f} m: no easting of UTM is a million "
            "metres. The file seems to say north before east; read it with axes='north-east'. Distances are the same either way.",
            CovisWarning,
            stacklevel=4,
        )
    if options.times != "none" and held.database_times is not None and held.queries_times is not None:
        times, remark = seconds([held.database_times, held.queries_times], kind=options.times, where=str(path))
        if remark:
            warnings.warn(remark, CovisWarning, stacklevel=4)
        for column, values in zip(columns, times, strict=True):
            column["time"] = values
    places = places_of(path, held.database, known)
    if places is not None:
        columns[0]["place"] = places
    return columns


def _remark_on_radius(path: Path, held: DbStruct) -> None:
    if held.radius is not None and held.radius != 25:
        warnings.warn(
            f"{path}: posDistThr is {held.radius:g} m, not the 25 m of Pittsburgh and Tokyo: its authors call an image within that a "
            f"positive. A protocol says its own radius; theirs is radius/{held.radius:g}.",
            CovisWarning,
            stacklevel=4,
        )


def _same(held: DbStruct) -> bool:
    """Whether both sides are the same images."""
    here, there = held.database_times, held.queries_times
    if isinstance(here, np.ndarray) and isinstance(there, np.ndarray):
        timed = np.array_equal(here, there, equal_nan=True)
    else:
        timed = type(here) is type(there) and here == there
    return timed and held.database == held.queries and np.array_equal(held.database_xy, held.queries_xy, equal_nan=True)


def _roots(root: Path, path: Path, held: DbStruct, *, known: Known | None, options: _Options) -> tuple[Path, Path]:
    """The folders that the names of database and queries are relative to."""
    places = bases(root, path, "" if known is None else known.folder)
    files = FilesByStem()
    given = {"database": options.database, "queries": options.queries}
    found = {side: _given(places, side, folder) for side, folder in given.items() if folder is not None}
    if "database" not in found:
        found["database"] = find_side(places, DATABASE, held.database, files)
    if "queries" not in found:
        if _may_share(held, known):
            if _same(held):
                found["queries"] = found["database"]
            else:
                found["queries"] = find_side(places, (*QUERIES, *DATABASE), held.queries, files)
        else:
            found["queries"] = find_side(places, QUERIES, held.queries, files)
    return found["database"], found["queries"]


def _may_share(held: DbStruct, known: Known | None) -> bool:
    """Whether one folder may hold both sides: a name of both is then the same image, and stands at one position."""
    if known is not None and known.apart:
        return False
    there = {name: row for row, name in enumerate(held.database)}
    both = [(row, there[name]) for row, name in enumerate(held.queries) if name in there]
    return all(np.array_equal(held.queries_xy[row], held.database_xy[other], equal_nan=True) for row, other in both)


def _given(places: Sequence[Path], side: str, folder: str) -> Path:
    """The folder that an option names."""
    for place in places:
        if (place / folder).is_dir():
            return place / folder
    raise MissingFileError(f"{side}={folder!r} must be a folder in {' or '.join(map(str, places))}; there is none.")
