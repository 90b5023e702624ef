"""Folders of images whose names hold their position: `@UTM_east@UTM_north@…@.jpg`.

    <root>/images/{train,val,test}/{database,queries}/**    or <root>/{train,val,test}/…, or <root>/{database,queries}/**,
                                                             or <root>/** (one side)
    <folder>_images_paths.txt                                beside a folder: its images, one path a line, and their order

Splitting a file's name (never its folder's) at "@" gives these fields; only east and north must be there:

    1 east  2 north     metres -> xy
    3 zone  4 letter    UTM zone and latitude band -> crs (EPSG:326zz north, 327zz south)
    9 heading           degrees clockwise from north -> heading; empty: unknown
    13 timestamp        YYYYMMDD_hhmmss or a beginning of it, taken as UTC and as that moment's start -> time
    5 lat 6 lon 7 pano_id 8 tile 10 pitch 11 roll 12 height 14 note     not read (the position is that of 1 and 2)

The format is that of the VPR-datasets-downloader, read by VPR-methods-evaluation and CosPlace, all of G. Berton.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields as attributes
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from covis.coordinates import to_degrees
from covis.datasets.catalogue import DATASETS, Sizes, check_sizes
from covis.datasets.drafts import EXAMPLES, Draft, Invalid, Missing, SceneDraft
from covis.datasets.filing import Files, check_targets, place_file
from covis.errors import CovisWarning, InvalidInputError, MissingFileError, UnknownNameError
from covis.files import atomic_path, read_text, write_text
from covis.images import Images, Scene
from covis.lookup import suggest

SPLITS = ("train", "val", "test")

_SUFFIXES = (".jpg", ".jpeg", ".png")
_EAST, _NORTH, _ZONE, _LETTER, _PANO, _TILE, _HEADING, _PITCH, _TIME, _NOTE = 1, 2, 3, 4, 7, 8, 9, 10, 13, 14
_FIELDS = 16
_BANDS = "CDEFGHJKLMNPQRSTUVWX"
_HELD = ("root", "names", "xy", "heading", "time", "crs", "flags", "_")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_STAMP = re.compile(r"(\d{4})(?:(\d\d)(?:(\d\d)(?:_(?:(\d\d)(?:(\d\d)(\d\d)?)?)?)?)?)?", re.ASCII)
_BREAKS = re.compile("[@\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")  # no "@" in a field, and one name a line whoever reads the list


def read_utm(
    root: str | Path,
    *,
    split: str = "test",
    missing: Missing = "stop",
    invalid: Invalid = "stop",
    database: str = "database",
    queries: str = "queries",
    dataset: str | None = None,
    sizes: Sizes = "stop",
) -> list[Scene]:
    """Read a folder of images with their position in their names as one scene, called as the set's folder.

    Names are relative to the folder that holds `database` and `queries`. Without a list beside a folder its .jpg, .jpeg and
    .png files (also in subfolders) count, sorted by their path as text; hidden files do not.

    Args:
        root: the data set's folder.
        split: "train", "val" or "test". "train": the images of both folders of `train` against each other; in a set without
            split folders those of `database` alone, so that no query teaches.
        missing: listed images that have no file: "stop", "skip" (leave out and say so) or "ignore" (look nothing up).
        invalid: names with a heading outside [0, 360), or listed twice: "stop" or "skip". 360 is taken as 0.
        database: the name of the folder of the database.
        queries: the name of the folder of the queries (SF-XL has "queries_v1" and "queries_v2").
        dataset: which benchmark this is, a name of `covis.datasets.catalogue.DATASETS`: its sizes are asserted.
        sizes: what to do where they differ: "stop", "warn" or "ignore".

    Returns:
        One scene. Its `crs` is None where the names say no zone, an impossible one, or several (then with a warning: the
        numbers are kept, since published results on such sets take them as they are).

    Raises:
        MissingFileError: there is no such folder, split, or no image in it.
        InvalidInputError: a name holds no position, or a policy says stop; the message names the file.
        UnknownNameError: there is no such benchmark.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     name = "@0381523.71@3946790.15@54@S@035.65786@0139.69112@00685.jpg@@@@@@@@.jpg"
    ...     (Path(folder) / name).touch()
    ...     (scene,) = read_utm(folder)
    >>> scene.queries.xy.tolist(), scene.queries.crs
    ([[381523.71, 3946790.15]], 'EPSG:32654')
    """
    drafts = draft_utm(root, split=split, database=database, queries=queries, dataset=dataset, sizes=sizes)
    return [draft.scene(missing=missing, invalid=invalid) for draft in drafts]


def draft_utm(
    root: str | Path,
    *,
    split: str = "test",
    database: str = "database",
    queries: str = "queries",
    dataset: str | None = None,
    sizes: Sizes = "stop",
) -> list[SceneDraft]:
    """What the names say, for `read_utm` and for checks.

    Raises:
        MissingFileError: there is no such folder, split, or no image in it.
        InvalidInputError: a name holds no position; the message names the file.
    """
    if split not in SPLITS:
        raise InvalidInputError(f"The split of a folder of UTM names must be 'train', 'val' or 'test'; got {split!r}.")
    root = Path(root).absolute()
    if not root.is_dir():
        raise MissingFileError(f"{root} must be a folder of images with UTM names; there is no such folder.")
    base, of_split = _base(root, split, (database, queries))
    _refuse_several(base, (database, queries))
    folders = [base / side for side in (database, queries) if _is_side(base / side)]
    if split == "train" and not of_split:
        folders = folders[:1]
    apart = [[folder] for folder in folders] if len(folders) > 1 and split != "train" else [folders or [base]]
    read = [_draft(base, together) for together in apart]
    _set_frame([draft for draft, _ in read], [zones for _, zones in read], base)
    if dataset is not None:
        if dataset not in DATASETS:
            raise UnknownNameError(f"There is no benchmark called {dataset!r} (covis ls datasets). {suggest(dataset, DATASETS)}")
        if not any(size.split == split for size in DATASETS[dataset].sizes):
            warnings.warn(f"{base}: no size of the {split} split of {dataset} is known; nothing is asserted.", CovisWarning, stacklevel=3)
        counts = [len(draft.names) for draft, _ in read]
        check_sizes(dataset, split=split, queries=counts[-1], database=counts[0], policy=sizes, where=base)
    return [SceneDraft(_scene_name(root, base, (database, queries)), split, *(draft for draft, _ in read))]


def write_utm(scenes: Sequence[Scene], out: str | Path, *, overwrite: bool = False, files: Files = "copy") -> list[Path]:
    """Write scenes as folders of images with their position in their names: the inverse of `read_utm`.

        <scene>/images/<split>/{database,queries}/**                    `database` alone for a training scene
        <scene>/images/<split>/{database,queries}_images_paths.txt      which keep the order

    What is read back are the printed digits: xy to 0.01 m (rounded), heading to whole degrees (cut off, as the format's
    authors do), time to whole seconds (cut off), and the UTM zone; written again, these come back exactly. Latitude and
    longitude are printed where the zone is known. An image keeps its subfolder and suffix; its name becomes the pano_id,
    with "@" and line breaks as "_"; a UTM name's pano_id, tile, pitch and note are kept. Everything else that the images
    have is left out, with a warning.

    Args:
        scenes: scenes of the splits train, val or test, with different names.
        out: the folder for the scenes' folders.
        overwrite: replace a scene's folder that is there.
        files: "copy" the images, "link" to them, or "none": lists of names alone (to be read with missing="ignore").

    Returns:
        The scenes' folders; `read_utm(folder, split=…)` gives the scene.

    Raises:
        InvalidInputError: images lack positions, are neither JPEG nor PNG, would share a name, or are in a frame that is no UTM
            zone; two scenes share a name, a training split has two sides, or a split is unknown.
        MissingFileError: an image is not there.
        OutputExistsError: a scene's folder is there and `overwrite` is false.
    """
    out = Path(out)
    if len({scene.name for scene in scenes}) != len(scenes):
        raise InvalidInputError("Scenes written to one folder must have different names.")
    check_targets(scenes, out, overwrite=overwrite)
    for scene in scenes:
        if scene.split not in SPLITS or (scene.split == "train" and not scene.training):
            raise InvalidInputError(
                f"A scene with UTM names must be of the split train (the same images on both sides), val or test; got {scene!r}."
            )
        sides = {"database": scene.database} if scene.training else {"database": scene.database, "queries": scene.queries}
        names = {side: _written_names(images, side) for side, images in sides.items()}
        with atomic_path(out / scene.name) as folder:
            for side, images in sides.items():
                place = folder / "images" / scene.split / side
                place.mkdir(parents=True)
                for row, name in enumerate(names[side]):
                    place_file(images.path(row), place / name, files)
                write_text(place.with_name(f"{side}_images_paths.txt"), "".join(f"{name}\n" for name in names[side]))
    return [out / scene.name for scene in scenes]


def _base(root: Path, split: str, sides: Sequence[str]) -> tuple[Path, bool]:
    """The folder that holds the sides (or is the one side), and whether it is that of the split."""
    for folder in (root / "images" / split, root / split):
        if folder.is_dir():
            return folder, True
    for folder in (root, root / "images"):
        if any(_is_side(folder / side) for side in sides):
            return folder, False
    others = [path for folder in (root / "images", root) for path in (folder / other for other in SPLITS) if path.is_dir()]
    if others:
        raise MissingFileError(f"{root} must hold the split {split!r}; found {', '.join(path.name for path in others)}.")
    return root, False


def _refuse_several(base: Path, sides: tuple[str, str]) -> None:
    """A folder of several data sets must not read as one side that holds the queries of all."""
    if any(_is_side(base / side) for side in sides):
        return
    below = [found for side in sides for depth in ("*", "*/*", "*/*/*") for found in base.glob(f"{depth}/{side}") if found.is_dir()]
    if below:
        raise InvalidInputError(
            f"{base} must be one data set; it holds sides further down, as in {min(below)}. Point to the folder of one set "
            f"({min(below).relative_to(base).parts[0]}, say)."
        )


def _list_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}_images_paths.txt")


def _is_side(folder: Path) -> bool:
    return folder.is_dir() or _list_of(folder).is_file()


def _scene_name(root: Path, base: Path, sides: Sequence[str]) -> str:
    """The data set's folder: that of the root, unless the root is a part of the set by its name."""
    if base.parent.parent == root and base.parent.name == "images":
        return root.name
    parts = [root, *root.parents]
    return next((part.name for part in parts if part.name and part.name not in ("images", *SPLITS, *sides)), root.name)


def _draft(base: Path, folders: Sequence[Path]) -> tuple[Draft, list[str]]:
    """The images of one or more folders as one side, and the zone that each name says."""
    names: list[str] = []
    lines: list[int] = []
    for folder in folders:
        within = "" if folder == base else f"{folder.name}/"
        if _list_of(folder).is_file():
            found, numbers = _listed(_list_of(folder))
            lines += numbers
        else:
            found = _globbed(folder)
            if not found:
                raise MissingFileError(
                    f"{folder} must hold images named @easting@northing@…@.jpg (or .png); found none. Is this the folder?"
                )
        names += [within + name for name in found]
    one = len(folders) == 1
    listed = one and _list_of(folders[0]).is_file()
    draft = Draft(base, names, _list_of(folders[0]) if listed else folders[0] if one else base)
    draft.lines = np.array(lines, dtype=np.int64) if listed else None
    return draft, _read_names(draft)


def _listed(path: Path) -> tuple[list[str], list[int]]:
    """The names in a list, and the line of each."""
    numbered = [(name, number) for number, name in enumerate(read_text(path).removeprefix("\ufeff").split("\n"), start=1) if name]
    bad = [number for name, number in numbered if "\0" in name]
    if bad:
        raise InvalidInputError(f"{path}, line {bad[0]}: a line must be an image's path; found a zero byte. Write the list again.")
    return [name for name, _ in numbered], [number for _, number in numbered]


def _globbed(folder: Path) -> list[str]:
    """The images below a folder, linked folders too, hidden ones not, sorted as text."""
    names, seen = [], set()
    for path, below, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:  # a link that leads back
            below.clear()
            continue
        seen.add(real)
        below[:] = [name for name in below if not name.startswith(".")]
        inside = os.path.relpath(path, folder)
        prefix = "" if inside == "." else f"{inside}/"
        names += [prefix + name for name in files if name.lower().endswith(_SUFFIXES) and not name.startswith(".")]
    return sorted(names)


def _read_names(draft: Draft) -> list[str]:
    """Fill a draft from its names; returns the zone that each name says."""
    xy = np.empty((len(draft.names), 2))
    said: dict[str, list[str]] = {"heading": [], "time": []}
    zones = []
    for row, name in enumerate(draft.names):
        parts = _split(name)
        if len(parts) <= _NORTH or not (_NUMBER.fullmatch(parts[_EAST]) and _NUMBER.fullmatch(parts[_NORTH])):
            raise InvalidInputError(
                f"{draft.where(row)}: an image's name must begin with its position in metres, @easting@northing@; found "
                f"{str(draft.root / name)!r}. Rename it, or take it out of the folder."
            )
        xy[row] = float(parts[_EAST]), float(parts[_NORTH])
        said["heading"].append(parts[_HEADING])
        said["time"].append(parts[_TIME])
        zones.append(_zone(parts[_ZONE], parts[_LETTER]))
    draft.columns["xy"] = xy
    for column, read in (("heading", _heading), ("time", _moment)):
        if any(said[column]):
            draft.columns[column] = values = np.array([read(text) for text in said[column]], dtype=np.float64)
            unread = np.flatnonzero(np.isnan(values) & np.array([text != "" for text in said[column]])).tolist()
            _warn(draft, unread, f"a {column} that does not read")
    longer = [row for row, name in enumerate(draft.names) if name.rpartition("/")[2].count("@") >= _FIELDS]
    _warn(draft, longer, "an '@' too many, heading and time")
    return zones


def _split(name: str) -> list[str]:
    """The 16 fields of a name; "" for those that are not there, and behind a pano_id or note with an "@" in it."""
    parts = name.rpartition("/")[2].split("@")
    if len(parts) == _FIELDS or len(parts) <= _NORTH:
        return parts
    sure = parts[: _LETTER + 1] if len(parts) > _FIELDS else parts[:-1]
    return sure + [""] * (_FIELDS - len(sure))


def _warn(draft: Draft, rows: Sequence[int], what: str) -> None:
    if rows:
        examples = ", ".join(draft.names[row] for row in rows[:EXAMPLES]) + (" …" if len(rows) > EXAMPLES else "")
        said = f"{len(rows)} of {len(draft.names)} names in {draft.source} have {what}, taken as unknown: {examples}"
        warnings.warn(said, CovisWarning, stacklevel=5)


@lru_cache(maxsize=1 << 12)
def _heading(text: str) -> float:
    value = float(text) if _NUMBER.fullmatch(text) else np.nan
    return 0.0 if value == 360 else value


@lru_cache(maxsize=1 << 16)
def _moment(text: str) -> float:
    """Seconds since 1970 of the start of what a timestamp says, NaN where it says nothing that there is.

    >>> _moment("19700102"), _moment("19700101_0001")
    (86400.0, 60.0)
    """
    found = _STAMP.fullmatch(text)
    if not found:
        return float("nan")
    year, month, day, hour, minute, second = (
        int(part) if part else least for part, least in zip(found.groups(), (1, 1, 1, 0, 0, 0), strict=True)
    )
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        return float("nan")


@lru_cache(maxsize=1 << 12)
def _zone(zone: str, letter: str) -> str:
    """The EPSG code, nothing where a name says no zone, or the two fields in quotes where there is no such zone."""
    if not zone and not letter:
        return ""
    band = letter.upper()
    if not (zone.isascii() and zone.isdecimal() and len(zone) <= 2 and 1 <= int(zone) <= 60 and len(band) == 1 and band in _BANDS):
        return repr(zone + letter)
    return f"EPSG:{(32700 if band < 'N' else 32600) + int(zone)}"


def _set_frame(sides: Sequence[Draft], zones: Sequence[Sequence[str]], base: Path) -> None:
    """One frame for all sides, where all names say the same zone."""
    said = Counter(zone for side in zones for zone in side)
    if len(said) == 1 and next(iter(said)).startswith("EPSG"):
        for side in sides:
            side.crs = next(iter(said))
    elif set(said) - {""}:
        most = sorted(said.items(), key=lambda item: (-item[1], item[0] or "none"))
        counted = ", ".join(f"{zone or 'none'} ({count})" for zone, count in most[:5]) + (" …" if len(most) > 5 else "")
        warnings.warn(
            f"The names in {base} must all say one UTM zone for their frame to be known; they say {counted}. The numbers are taken as they "
            "are, distances across zones mean nothing, and the frame stays unknown (crs None).",
            CovisWarning,
            stacklevel=4,
        )


def _written_names(images: Images, side: str) -> list[str]:
    """The names that hold what the images say, each with its subfolder."""
    (xy,) = images.need("xy")
    lost = [field.name for field in attributes(images) if field.name not in _HELD and getattr(images, field.name) is not None]
    if lost or images.flags:
        said = f"A UTM name holds position, heading and time; of the images in {images.root} it does not keep "
        warnings.warn(said + ", ".join([*lost, *images.flags]) + ".", CovisWarning, stacklevel=3)
    printed = np.array([[float(f"{value:.2f}") for value in row] for row in xy]).reshape(-1, 2) + 0.0  # no minus before a zero
    frames = _frame_fields(printed, images.crs)
    names: dict[str, str] = {}
    for row, name in enumerate(images.names):
        folder, pano, tile, pitch, note, suffix = _kept(name, side)
        heading = "" if images.heading is None or np.isnan(images.heading[row]) else f"{int(images.heading[row]):03d}"
        stamp = "" if images.time is None or np.isnan(images.time[row]) else _stamp(float(images.time[row]), name)
        position = f"{printed[row, 0]:010.2f}@{printed[row, 1]:010.2f}@{frames[row]}"
        written = f"{folder}@{position}@{pano}@{tile}@{heading}@{pitch}@@@{stamp}@{note}@{suffix}"
        if written in names:
            raise InvalidInputError(
                f"Images must have different UTM names; {names[written]!r} and {name!r} would both be {written!r}. Rename one."
            )
        names[written] = name
    return list(names)


def _frame_fields(xy: NDArray[np.float64], crs: str | None) -> list[str]:
    """The fields zone, letter, lat and lon of each position."""
    if crs is None:
        return ["@@@"] * len(xy)
    known = re.fullmatch(r"EPSG:32([67])(\d\d)", crs)
    if not known or not 1 <= int(known[2]) <= 60:
        raise InvalidInputError(
            f"A UTM name can hold positions in a UTM zone (EPSG:326zz, EPSG:327zz) or in no known frame; these are in {crs}."
        )
    degrees = to_degrees(xy, crs=crs) if len(xy) else np.zeros((0, 2))
    north = _BANDS.index("N")
    least, most = (north, len(_BANDS) - 1) if known[1] == "6" else (0, north - 1)  # the letter says the hemisphere of the frame
    bands = np.clip((degrees[:, 0] + 80) // 8, least, most).astype(int)
    return [f"{known[2]}@{_BANDS[band]}@{lat:09.5f}@{lon:010.5f}" for band, (lat, lon) in zip(bands, degrees, strict=True)]


def _kept(name: str, side: str) -> tuple[str, str, str, str, str, str]:
    """Of an image's name: its subfolder, pano_id, tile, pitch, note and suffix."""
    path = PurePosixPath(name)
    folders = path.parts[:-1]
    if path.is_absolute() or ".." in folders or path.suffix.lower() not in _SUFFIXES:
        raise InvalidInputError(f"An image with a UTM name must be a .jpg, .jpeg or .png inside its folder; got {name!r}.")
    folder = "".join(_BREAKS.sub("_", part) + "/" for part in (folders[1:] if folders[:1] == (side,) else folders))
    parts = path.name.split("@")
    if len(parts) == _FIELDS and _NUMBER.fullmatch(parts[_EAST]) and _NUMBER.fullmatch(parts[_NORTH]):
        pano, tile, pitch, note = (_BREAKS.sub("_", parts[place]) for place in (_PANO, _TILE, _PITCH, _NOTE))
        return folder, pano, tile, pitch, note, path.suffix
    return folder, _BREAKS.sub("_", path.stem), "", "", "", path.suffix


def _stamp(time: float, name: str) -> str:
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=np.floor(time))
    except OverflowError:
        raise InvalidInputError(f"A UTM name holds a time of the years 1 to 9999; that of {name!r} is {time:g} s since 1970.") from None
    return f"{moment.year:04d}{moment:%m%d_%H%M%S}"
