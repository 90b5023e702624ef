"""Folders of photographs: with positions from their EXIF (layout `exif`), or without any (layout `folder`).

    <root>/**/*.jpg …                               one set: the same photographs on both sides
    <root>/database/**/*.jpg … and queries/**/…     two sides; names are relative to the side's folder

A photograph is a file called .jpg, .jpeg, .png, .webp, .tif or .tiff (in any case) in no hidden folder; the order is that of the
names. From EXIF, by its standard: latitude and longitude (WGS84) in degrees, minutes and seconds with N, S, E or W; the heading
from GPSImgDirection; the time from GPSDateStamp and GPSTimeStamp (UTC), else from DateTimeOriginal, which is local time and
counts as UTC where OffsetTimeOriginal is absent; the opening angle from FocalLengthIn35mmFilm. Only headers are read.

`write_exif` copies photographs and gives the copies a position. Pixels are not encoded again, and of the copy's EXIF only the GPS
directory is made anew: every other tag, with orientation, thumbnail and maker's note, stays byte for byte where it was.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from covis.coordinates import to_degrees
from covis.datasets.drafts import Draft, Invalid, Missing, Problem, SceneDraft
from covis.datasets.exif import Record, gps_tags, read_record, stamped
from covis.datasets.filing import Files, place_file
from covis.errors import CovisWarning, InvalidInputError, MissingFileError
from covis.files import atomic_path, check_absent
from covis.images import Images, Scene

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
SIDES = ("database", "queries")


def read_exif(
    root: str | Path,
    *,
    split: str = "test",
    missing: Missing = "stop",
    invalid: Invalid = "stop",
    positions: str = "exif",
    fov: str = "exif",
    crs: str | None = None,
) -> list[Scene]:
    """Read a folder of photographs with GPS in their EXIF: one scene.

    Args:
        root: a folder of photographs, or of the two folders `database` and `queries`.
        split: "test" or "val": the queries ask the database. "train": the photographs of the database ask each other.
        missing: photographs whose file is gone: "stop", "skip" or "ignore".
        invalid: photographs without a position that can be used: "stop" names them, "skip" leaves them out and says so.
        positions: "exif", or "none" to leave positions out (heading, time and opening angle are read all the same).
        fov: "exif": the horizontal opening angle of the upright photograph, from FocalLengthIn35mmFilm by the film's diagonal of
            43.27 mm, so that a landscape of 3:2 has 2 atan(18 / f); only where all photographs of a side say it. "none".
        crs: the frame of the metres ("EPSG:32633"); default the UTM zone where most photographs lie.

    Returns:
        One scene with `xy` (metres), `heading` (degrees, NaN where unknown), `time` (seconds, NaN where unknown) and `fov`
        (degrees); a column that no photograph of a side has is absent.

    Raises:
        MissingFileError: there is no such folder, or no photograph in it.
        InvalidInputError: an option is none of the above, photographs have no usable position, or they span UTM zones.

    Warns:
        CovisWarning: headings are magnetic (read as they are; the declination is yours to add), or photographs lie beside the two
            sides' folders and are left out.
    """
    drafts = draft_exif(root, split=split, positions=positions, fov=fov, crs=crs)
    return [draft.scene(missing=missing, invalid=invalid) for draft in drafts]


def draft_exif(
    root: str | Path, *, split: str = "test", positions: str = "exif", fov: str = "exif", crs: str | None = None
) -> list[SceneDraft]:
    """What `read_exif` reads, before anything is held against it: a photograph without a usable position has NaN degrees and a reason."""
    for option, value in (("positions", positions), ("fov", fov)):
        if value not in ("exif", "none"):
            raise InvalidInputError(f"{option} must be 'exif' or 'none'; got {value!r}.")
    root = Path(os.path.abspath(root))
    found = _sides(root, split)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd EXIF; what cannot be used becomes a reason of ours
        records = [[read_record(folder / name) for name in names] for folder, names in found]
    if magnetic := sum(record.magnetic for side in records for record in side):
        text = f"{root}: {magnetic} of {sum(map(len, records))} photographs have a heading from magnetic north, read as it is."
        warnings.warn(f"{text} Add the place's declination where a few degrees matter.", CovisWarning, stacklevel=2)
    options = {"positions": positions == "exif", "fov": fov == "exif"}
    drafts = [_draft(folder, names, side, crs=crs, **options) for (folder, names), side in zip(found, records, strict=True)]
    return [SceneDraft(root.name, split, *drafts)]


def read_folder(root: str | Path, *, split: str = "test", missing: Missing = "stop", invalid: Invalid = "stop") -> list[Scene]:
    """Read a folder of photographs without any position, to describe and to search: one scene of names alone.

    No file is opened. Arguments and sides as in `read_exif`.

    Raises:
        MissingFileError: there is no such folder, or no photograph in it.
        InvalidInputError: `split` is none of the three.
    """
    return [draft.scene(missing=missing, invalid=invalid) for draft in draft_folder(root, split=split)]


def draft_folder(root: str | Path, *, split: str = "test") -> list[SceneDraft]:
    """What `read_folder` reads, before anything is held against it."""
    folder = Path(os.path.abspath(root))
    return [SceneDraft(folder.name, split, *(Draft(side, names, side) for side, names in _sides(folder, split)))]


def write_exif(scenes: Sequence[Scene], out: str | Path, *, overwrite: bool = False, files: Files = "copy") -> list[Path]:
    """Write scenes as folders of photographs with their positions in EXIF, one folder each: the inverse of `read_exif`.

    Position (within 0.01 mm), heading and time replace what the photograph said; an unknown heading is taken out, and so is an
    unknown time's GPS stamp (DateTimeOriginal and XMP stay). All else of the table is left out. Read it with the same `crs`.

    Raises:
        InvalidInputError: images lack positions or a frame (crs), a file is neither JPEG nor PNG (no other format takes EXIF here
            without being encoded again), a name cannot be a photograph's in this layout, or `files` is not "copy".
        MissingFileError: an image is not there.
        DamagedFileError: an image, or its EXIF, does not parse.
        OutputExistsError: a scene's folder is there and `overwrite` is false.
    """
    if files != "copy":
        raise InvalidInputError(
            f"The layout 'exif' must copy files, since positions go into them and yours stay as they are; got {files!r}."
        )
    stamps = {id(images): _stamps(images) for scene in scenes for images in (scene.database, scene.queries)}

    def place(images: Images, row: int, target: Path) -> None:
        target.write_bytes(stamped(images.path(row), stamps[id(images)][row]))

    return _write(scenes, Path(out), overwrite=overwrite, place=place)


def write_folder(scenes: Sequence[Scene], out: str | Path, *, overwrite: bool = False, files: Files = "copy") -> list[Path]:
    """Write scenes as folders of photographs, one folder each: the inverse of `read_folder`. Everything but names is left out.

    Raises:
        InvalidInputError: a name cannot be a photograph's in this layout, or `files` is neither "copy" nor "link".
        MissingFileError: an image is not there.
        OutputExistsError: a scene's folder is there and `overwrite` is false.
    """
    if files == "none":
        raise InvalidInputError("The layout 'folder' must have its files, 'copy' or 'link': it holds nothing else; got files='none'.")
    return _write(scenes, Path(out), overwrite=overwrite, place=lambda images, row, target: place_file(images.path(row), target, files))


def _sides(root: Path, split: str) -> list[tuple[Path, list[str]]]:
    """(folder, names in it) of the database and, where there are two sides and they are asked for, of the queries."""
    if split not in ("train", "val", "test"):
        raise InvalidInputError(f"The split of a folder of photographs must be 'train', 'val' or 'test'; got {split!r}.")
    if not root.is_dir():
        raise MissingFileError(f"{root} must be a folder of photographs; there is no such folder.")
    names = sorted(_walk(root, "", ()))
    if unfit := [name for name in names if name.encode("utf-8", "ignore").decode() != name]:
        raise InvalidInputError(f"A photograph's name must be UTF-8 text; {unfit[0]!r} in {root} is not. Rename a copy.")
    sides = [(root, names)]
    if all((root / side).is_dir() for side in SIDES):
        sides = [(root / side, [name[len(side) + 1 :] for name in names if name.startswith(f"{side}/")]) for side in SIDES]
    if beside := len(names) - sum(len(found) for _, found in sides):
        text = f"{root} has the folders database and queries; {beside} photographs that lie in neither are left out."
        warnings.warn(text, CovisWarning, stacklevel=3)
    for folder, found in sides:
        if not found:
            raise MissingFileError(f"{folder} must hold a photograph ({', '.join(SUFFIXES)}); found none. Is this the right folder?")
    return sides[:1] if split == "train" else sides


def _walk(folder: Path, prefix: str, above: tuple[str, ...]) -> Iterator[str]:
    """The names of all photographs below a folder. Links to folders are followed, except to one that we are in."""
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        with os.scandir(folder) as listed:
            entries = [entry for entry in listed if not entry.name.startswith(".")]
    except OSError as error:
        raise MissingFileError(f"{folder} must be a folder that can be listed; {error.strerror}.") from error
    for entry in entries:
        if entry.is_dir():
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", (*above, real))
        elif entry.name.lower().endswith(SUFFIXES):
            yield prefix + entry.name


@dataclass
class _PhotographDraft(Draft):
    """A draft that knows for each unusable row what is wrong with the photograph."""

    faults: dict[int, Problem] = field(default_factory=dict)

    def invalid(self) -> list[tuple[int, Problem]]:
        """As `Draft.invalid`, with the photograph's own reason where there is one."""
        return [(row, problem) for row, problem in super().invalid() if row not in self.faults] + list(self.faults.items())


def _draft(folder: Path, names: list[str], records: list[Record], *, positions: bool, fov: bool, crs: str | None) -> _PhotographDraft:
    columns = {name: np.array([getattr(record, name) for record in records]) for name in ("heading", "time", "fov")}
    if not fov or np.isnan(columns["fov"]).any():
        del columns["fov"]
    columns = {name: column for name, column in columns.items() if not np.isnan(column).all()}
    faulty = [row for row, record in enumerate(records) if record.fault and (positions or record.kind == "image")]
    faults = {row: Problem(records[row].kind, names[row], str(folder), records[row].fault) for row in faulty}
    degrees = np.array([record.position for record in records]).reshape(-1, 2) if positions else None
    return _PhotographDraft(folder, names, folder, columns, degrees=degrees, crs=crs if positions else None, faults=faults)


def _write(scenes: Sequence[Scene], out: Path, *, overwrite: bool, place: Callable[[Images, int, Path], None]) -> list[Path]:
    if len({scene.name for scene in scenes}) != len(scenes):
        raise InvalidInputError("Scenes written to one folder must have different names.")
    for scene in scenes:
        _check_fits(scene, check_absent(out / scene.name, overwrite=overwrite))
    for scene in scenes:
        sides = {"": scene.database} if scene.training else {"database": scene.database, "queries": scene.queries}
        with atomic_path(out / scene.name) as folder:
            for side, images in sides.items():
                for row, name in enumerate(images.names):
                    (folder / side / name).parent.mkdir(parents=True, exist_ok=True)
                    place(images, row, folder / side / name)
    return [out / scene.name for scene in scenes]


def _check_fits(scene: Scene, target: Path) -> None:
    """Refuse what would not come back from the folder, or would change files that are the user's."""
    for images in (scene.database, scene.queries):
        if not len(images):
            raise InvalidInputError(f"Each side of scene {scene.name!r} must hold an image to be written as photographs; one is empty.")
        if unfit := [n for n in images.names if not n.lower().endswith(SUFFIXES) or any(p[:1] in ("", ".") for p in n.split("/"))]:
            text = f"relative to its folder, in no hidden one, and end in {', '.join(SUFFIXES)}; got {unfit[0]!r} in {images.root}."
            raise InvalidInputError(f"The name of an image written as a photograph must be {text}")
        inside = [path for path in map(images.path, range(len(images))) if target.exists() and target.resolve() in path.resolve().parents]
        if inside:
            raise InvalidInputError(f"{target} must not be replaced, since {inside[0]} lies in it. Choose another --out.")
    folders = {name.partition("/")[0] for name in scene.database.names if "/" in name}
    if scene.training and folders.issuperset(SIDES):
        raise InvalidInputError(f"Scene {scene.name!r} has one side; its folders 'database' and 'queries' would be read as two.")


def _stamps(images: Images) -> list[dict[int, Any]]:
    """For each image the GPS tags that say its position, heading and time."""
    (xy,) = images.need("xy")
    unknown = np.full(len(images), np.nan)
    headings, times = ((unknown if column is None else column).tolist() for column in (images.heading, images.time))
    rows = zip(images.names, to_degrees(xy, crs=images.crs).tolist(), headings, times, strict=True)
    return [gps_tags(degrees, heading=heading, time=time, name=f"{name} in {images.root}") for name, degrees, heading, time in rows]
