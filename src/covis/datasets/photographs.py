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

import math
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from covis.coordinates import to_degrees
from covis.datasets.drafts import Draft, Invalid, Missing, Problem, SceneDraft
from covis.datasets.filing import Files, place_file
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError, MissingFileError
from covis.files import atomic_path, check_absent
from covis.images import Images, Scene

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
SIDES = ("database", "queries")
DATUMS = ("", "WGS84", "WGS1984", "JGD2000", "JGD2011", "ETRS89")  # agree within a metre; others (TOKYO) are off by hundreds

_GPS, _TAGS, _PNG, _JPEG = ExifTags.GPS, ExifTags.Base, b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_POSITION = (_GPS.GPSLatitudeRef, _GPS.GPSLatitude, _GPS.GPSLongitudeRef, _GPS.GPSLongitude, _GPS.GPSMapDatum)
_REPLACED = {*_POSITION, _GPS.GPSImgDirectionRef, _GPS.GPSImgDirection, _GPS.GPSDateStamp, _GPS.GPSTimeStamp}
_FILM_HALF_DIAGONAL = float(np.hypot(36, 24)) / 2
_STEP = 10**7  # denominator of the rationals written: 3 micrometres of latitude, 1e-7 degrees of heading, 1e-7 seconds


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
        records = [[_read(folder / name) for name in names] for folder, names in found]
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
        target.write_bytes(_stamped(images.path(row), stamps[id(images)][row]))

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


class _Record(NamedTuple):
    """What one photograph says; NaN where it says nothing. `kind` and `fault` say why it cannot be used."""

    position: tuple[float, float] = (np.nan, np.nan)
    heading: float = np.nan
    magnetic: bool = False
    time: float = np.nan
    fov: float = np.nan
    kind: str = "position"
    fault: str = ""


@dataclass
class _PhotographDraft(Draft):
    """A draft that knows for each unusable row what is wrong with the photograph."""

    faults: dict[int, Problem] = field(default_factory=dict)

    def invalid(self) -> list[tuple[int, Problem]]:
        """As `Draft.invalid`, with the photograph's own reason where there is one."""
        return [(row, problem) for row, problem in super().invalid() if row not in self.faults] + list(self.faults.items())


def _draft(folder: Path, names: list[str], records: list[_Record], *, positions: bool, fov: bool, crs: str | None) -> _PhotographDraft:
    columns = {name: np.array([getattr(record, name) for record in records]) for name in ("heading", "time", "fov")}
    if not fov or np.isnan(columns["fov"]).any():
        del columns["fov"]
    columns = {name: column for name, column in columns.items() if not np.isnan(column).all()}
    faulty = [row for row, record in enumerate(records) if record.fault and (positions or record.kind == "image")]
    faults = {row: Problem(records[row].kind, names[row], str(folder), records[row].fault) for row in faulty}
    degrees = np.array([record.position for record in records]).reshape(-1, 2) if positions else None
    return _PhotographDraft(folder, names, folder, columns, degrees=degrees, crs=crs if positions else None, faults=faults)


def _read(path: Path) -> _Record:
    try:
        with Image.open(path) as image:
            width, height = image.size
            try:
                main, photo, gps = _directories(image, path)
            except Exception as error:  # Pillow has no one error for damaged EXIF: struct, Type, Key, Syntax and more were seen
                return _Record(fault=f"its EXIF does not read ({type(error).__name__}: {error}), so it has no position")
    except Exception as error:  # likewise for what is no image
        return _Record(kind="image", fault=f"it does not open as an image ({error}); fetch it again or remove it")
    (position, fault), heading = _position(gps), _number(gps.get(_GPS.GPSImgDirection))
    return _Record(
        position,
        0.0 if heading == 360 else heading,
        bool(np.isfinite(heading)) and _text(gps.get(_GPS.GPSImgDirectionRef)) == "M",
        _time(gps, photo),
        _fov(photo, (height, width) if main.get(_TAGS.Orientation) in (5, 6, 7, 8) else (width, height)),
        fault=fault,
    )


def _directories(image: Image.Image, path: Path) -> tuple[dict[int, Any], dict[int, Any], dict[int, Any]]:
    """The image's own EXIF tags, those of the photograph and those of the GPS."""
    exif = Image.Image.getexif(image)  # not PngImageFile's own, which decodes all pixels to see what follows them
    if image.format == "PNG" and image.info.keys().isdisjoint(("exif", "Raw profile type exif")):
        exif = _parsed(_split_png(path.read_bytes(), path)[1])
    return dict(exif), dict(exif.get_ifd(ExifTags.IFD.Exif)), dict(exif.get_ifd(ExifTags.IFD.GPSInfo))


def _position(gps: dict[int, Any]) -> tuple[tuple[float, float], str]:
    """Latitude and longitude, and what is wrong with them ("" where nothing is)."""
    unknown = (np.nan, np.nan)
    north, latitude, east, longitude, datum = (gps.get(tag) for tag in _POSITION)
    if latitude is None and longitude is None:
        return unknown, "its EXIF holds no GPS position; add one, or give positions in a table"
    found = _angle(latitude, _text(north), "NS", 90), _angle(longitude, _text(east), "EW", 180)
    if any(map(math.isnan, found)):
        return unknown, f"its GPS position does not read: latitude {latitude} {north!r}, longitude {longitude} {east!r}"
    if not any(found):
        return unknown, "its GPS position is 0, 0, which stands for none; mend it"
    if re.sub(r"[^A-Z0-9]", "", _text(datum).upper()) not in DATUMS:
        return unknown, f"its GPS position is in the frame {_text(datum)!r}; it must be in WGS84"
    return found, ""


def _angle(value: Any, letter: str, letters: str, most: float) -> float:
    """Degrees from one to three numbers (degrees, minutes, seconds) and a letter, the second of which means minus; NaN where unfit."""
    parts = [_number(part) for part in (value if isinstance(value, tuple) else (value,))]
    if not 1 <= len(parts) <= 3 or letter not in tuple(letters):
        return np.nan
    degrees, minutes, seconds = (*parts, 0.0, 0.0)[:3]
    total = (degrees * 3600 + minutes * 60 + seconds) / 3600
    fits = degrees >= 0 and 0 <= minutes <= 60 and 0 <= seconds <= 60 and total <= most
    return (-total if letter == letters[1] else total) if fits else np.nan


def _time(gps: dict[int, Any], photo: dict[int, Any]) -> float:
    day = _stamp(_text(gps.get(_GPS.GPSDateStamp)), "%Y:%m:%d")
    clock = gps.get(_GPS.GPSTimeStamp)
    if isinstance(clock, tuple) and len(clock) == 3 and not np.isnan(day):
        hours, minutes, seconds = (_number(part) for part in clock)
        if 0 <= hours < 24 and 0 <= minutes < 60 and 0 <= seconds <= 60:
            return day + (hours * 3600 + minutes * 60) + seconds
    fraction, offset = _text(photo.get(_TAGS.SubsecTimeOriginal)), _text(photo.get(_TAGS.OffsetTimeOriginal))
    taken = _stamp(_text(photo.get(_TAGS.DateTimeOriginal)), "%Y:%m:%d %H:%M:%S")
    if east := re.fullmatch(r"([+-])([01][0-9]):([0-5][0-9])", offset):
        taken -= float(f"{east[1]}{int(east[2]) * 3600 + int(east[3]) * 60}")
    return taken + (float(f"0.{fraction}") if re.fullmatch(r"[0-9]+", fraction) else 0.0)


def _stamp(text: str, form: str) -> float:
    with suppress(ValueError):
        return datetime.strptime(re.sub(r"[-/]", ":", text), form).replace(tzinfo=UTC).timestamp()
    return np.nan


def _fov(photo: dict[int, Any], size: tuple[int, int]) -> float:
    """The horizontal opening angle in degrees; the film's diagonal stands for the photograph's, as makers have it."""
    focal = _number(photo.get(_TAGS.FocalLengthIn35mmFilm))
    if not 0 < focal < np.inf:  # the standard: 0 means unknown
        return np.nan
    return float(np.degrees(2 * np.arctan(_FILM_HALF_DIAGONAL * size[0] / np.hypot(*size) / focal)))


def _number(value: Any) -> float:
    with suppress(TypeError, ValueError, ArithmeticError):
        return float(value)
    return np.nan


def _text(value: Any) -> str:
    value = value.decode("latin-1") if isinstance(value, bytes) else value
    return value.strip(" \0") if isinstance(value, str) else ""


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
    heading, time = ((unknown if column is None else column).tolist() for column in (images.heading, images.time))
    stamps: list[dict[int, Any]] = []
    for name, (north, east), turned, taken in zip(images.names, to_degrees(xy, crs=images.crs).tolist(), heading, time, strict=True):
        if not -80 <= north <= 84 or max(abs(north), abs(east)) < 1e-10:
            text = f"in [-80, 84] degrees, and not be 0, 0, which stands for none; {name} in {images.root} has {north}, {east}."
            raise InvalidInputError(f"A position in EXIF must have a latitude {text}")
        place = "NS"[north < 0], _sixtieths(abs(north)), "EW"[east < 0], _sixtieths(abs(east)), "WGS-84"
        stamps.append({_GPS.GPSVersionID: b"\2\3\0\0", **dict(zip(_POSITION, place, strict=True))})
        if not math.isnan(turned):
            stamps[-1] |= {_GPS.GPSImgDirectionRef: "T", _GPS.GPSImgDirection: IFDRational(round(turned * _STEP) % (360 * _STEP), _STEP)}
        if not math.isnan(taken):
            stamps[-1] |= _clock(taken, f"{name} in {images.root}")
    return stamps


def _sixtieths(value: float | Fraction) -> tuple[IFDRational, IFDRational, IFDRational]:
    """Degrees, minutes and seconds of a value in degrees, or hours, minutes and seconds of one in hours."""
    minutes, seconds = divmod(round(Fraction(value) * 3600 * _STEP), 60 * _STEP)
    return IFDRational(minutes // 60, 1), IFDRational(minutes % 60, 1), IFDRational(seconds, _STEP)


def _clock(time: float, name: str) -> dict[int, Any]:
    # exact: at 1.7e9 seconds a product in float64 would lose the last digits
    days, ticks = divmod(round(Fraction(time) * _STEP), 86400 * _STEP)
    try:
        day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=days)).strftime("%Y:%m:%d").rjust(10, "0")
    except OverflowError:
        raise InvalidInputError(f"A time must lie in the years 1 to 9999 to be written to EXIF; that of {name} is {time} s.") from None
    return {_GPS.GPSDateStamp: day, _GPS.GPSTimeStamp: _sixtieths(Fraction(ticks, 3600 * _STEP))}


def _stamped(path: Path, stamp: dict[int, Any]) -> bytes:
    """The file's bytes with that position in its EXIF."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MissingFileError(f"{path} must be there to be written; {error.strerror or error}.") from None
    if data.startswith(_PNG):
        before, tiff, after = _split_png(data, path)
        if b"Raw profile type exif" in before:
            raise InvalidInputError(f"{path} must hold its EXIF as PNG has it since 2017, not as 'Raw profile type exif'. Convert a copy.")
        chunk = b"eXIf" + _with_gps(tiff, stamp, path)
        return before + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + after
    if data.startswith(_JPEG):
        before, tiff, after = _split_jpeg(data, path)
        segment = b"Exif\0\0" + _with_gps(tiff, stamp, path)
        if len(segment) > 65533:
            raise InvalidInputError(f"{path} must have EXIF of at most 64 KiB with its position, as JPEG has it; got {len(segment)} bytes.")
        return before + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + after
    raise InvalidInputError(f"{path} must be a JPEG or PNG file to take a position without being encoded again. Convert a copy.")


def _split_jpeg(data: bytes, path: Path) -> tuple[bytes, bytes, bytes]:
    """What stands before the EXIF (or where it belongs: after the JFIF header), the EXIF's own TIFF block, and what follows."""
    kept, tiff, place, position = [data[:2]], b"", 0, 2
    try:
        while True:
            start = position
            while data[position + 1] == 0xFF:  # bytes of padding before a marker
                position += 1
            marker = data[position + 1]
            if data[position] != 0xFF:
                raise ValueError(f"no marker at byte {start}")
            if marker in (0xD9, 0xDA):  # the pixels begin
                place = place or (2 if kept[1:] and b"\xe0" in kept[1][:2] else 1)
                return b"".join(kept[:place]), tiff, b"".join(kept[place:]) + data[start:]
            (size,) = struct.unpack_from(">H", data, position + 2)
            position += 2 + size
            if size < 2 or position > len(data):
                raise ValueError(f"the segment at byte {start} has no end")
            body = data[position - size + 2 : position]
            if marker == 0xE1 and body.startswith(b"Exif\0\0"):
                place, tiff = place or len(kept), tiff + body[6:]  # a second segment continues the first
            else:
                kept.append(data[start:position])
    except (IndexError, struct.error, ValueError) as error:
        raise DamagedFileError(f"{path} must be a whole JPEG file; {error}. Fetch it again.") from error


def _split_png(data: bytes, path: Path) -> tuple[bytes, bytes, bytes]:
    """What stands before the EXIF chunk (or the pixels), the EXIF's TIFF block, and what follows."""
    before, tiff, position, kind = [data[:8]], b"", 8, b""
    after: list[bytes] = []
    try:
        while kind != b"IEND":
            start = position
            size, kind = struct.unpack_from(">I4s", data, start)
            position += 12 + size
            if position > len(data):
                raise ValueError(f"the chunk at byte {start} has no end")
            if kind == b"IEND" and not after:
                raise ValueError("it holds no pixels")
            if kind == b"eXIf":
                tiff = data[start + 8 : position - 4].removeprefix(b"Exif\0\0")
            else:
                (after if after or kind == b"IDAT" else before).append(data[start:position])
    except (struct.error, ValueError) as error:
        raise DamagedFileError(f"{path} must be a whole PNG file; {error}. Fetch it again.") from error
    return b"".join(before), tiff, b"".join(after) + data[position:]


def _with_gps(tiff: bytes, stamp: dict[int, Any], path: Path) -> bytes:
    """The TIFF block as it is, since maker's notes point into it, and at its end new GPS and main directories, in place of the old."""
    tiff = tiff or b"II*\0\10\0\0\0" + bytes(6)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Pillow reads with a remark would be lost in the copy
            kept = {tag: value for tag, value in _parsed(tiff).get_ifd(ExifTags.IFD.GPSInfo).items() if tag not in _REPLACED}
            tiff += bytes(len(tiff) % 2)
            gps = ImageFileDirectory_v2(tiff[:4] + bytes(4), group=ExifTags.IFD.GPSInfo)
            for tag, value in (kept | stamp).items():
                gps[tag] = value
            directory = gps.tobytes(len(tiff))
        order = {b"II*\0": "<", b"MM\0*": ">"}[tiff[:4]]
        (first,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, first)
        entries = [struct.unpack_from(f"{order}HHI4s", tiff, first + 2 + 12 * i) for i in range(count)]
        (following,) = struct.unpack_from(f"{order}I", tiff, first + 2 + 12 * count)
    except Exception as error:  # Pillow has no one error for damaged EXIF
        raise DamagedFileError(f"{path} must have EXIF that reads, to keep it; {type(error).__name__}: {error}.") from error
    pointer = (int(ExifTags.IFD.GPSInfo), 4, 1, struct.pack(f"{order}I", len(tiff)))
    entries = sorted([*(entry for entry in entries if entry[0] != pointer[0]), pointer])
    directory += bytes(len(directory) % 2)
    main = struct.pack(f"{order}H", len(entries)) + b"".join(struct.pack(f"{order}HHI4s", *entry) for entry in entries)
    at = struct.pack(f"{order}I", len(tiff) + len(directory))
    return tiff[:4] + at + tiff[8:] + directory + main + struct.pack(f"{order}I", following)


def _parsed(tiff: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + tiff if tiff else b"")
    return exif
