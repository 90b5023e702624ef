"""EXIF of one photograph: what it says of place, direction, time and opening angle; and new GPS tags in a copy of its bytes.

Which tags are read is said in `covis.datasets.photographs`. Nothing here decodes or encodes pixels.
"""

from __future__ import annotations

import math
import re
import struct
import warnings
import zlib
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from covis.errors import DamagedFileError, InvalidInputError, MissingFileError

DATUMS = ("", "WGS84", "WGS1984", "JGD2000", "JGD2011", "ETRS89")  # agree within a metre; others (TOKYO) are off by hundreds

_GPS, _TAGS, _PNG, _JPEG = ExifTags.GPS, ExifTags.Base, b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_POSITION = (_GPS.GPSLatitudeRef, _GPS.GPSLatitude, _GPS.GPSLongitudeRef, _GPS.GPSLongitude, _GPS.GPSMapDatum)
_REPLACED = {*_POSITION, _GPS.GPSImgDirectionRef, _GPS.GPSImgDirection, _GPS.GPSDateStamp, _GPS.GPSTimeStamp}
_FILM_HALF_DIAGONAL = float(np.hypot(36, 24)) / 2
_STEP = 10**7  # denominator of the rationals written: 3 micrometres of latitude, 1e-7 degrees of heading, 1e-7 seconds


class Record(NamedTuple):
    """What one photograph says; NaN where it says nothing. `kind` and `fault` say why it cannot be used."""

    position: tuple[float, float] = (np.nan, np.nan)
    heading: float = np.nan
    magnetic: bool = False
    time: float = np.nan
    fov: float = np.nan
    kind: str = "position"
    fault: str = ""


def read_record(path: Path) -> Record:
    """What a photograph's header says, or why it cannot be used; any file may be asked."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            try:
                main, photo, gps = _directories(image, path)
            except Exception as error:  # Pillow has no one error for damaged EXIF: struct, Type, Key, Syntax and more were seen
                return Record(fault=f"its EXIF does not read ({type(error).__name__}: {error}), so it has no position")
    except Exception as error:  # likewise for what is no image
        return Record(kind="image", fault=f"it does not open as an image ({error}); fetch it again or remove it")
    (position, fault), heading = _position(gps), _number(gps.get(_GPS.GPSImgDirection))
    return Record(
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


def gps_tags(degrees: tuple[float, float], *, heading: float, time: float, name: str) -> dict[int, Any]:
    """The GPS tags of a latitude and longitude, and of the heading and time that are no NaN; `name` is for errors."""
    north, east = degrees
    if not -80 <= north <= 84 or max(abs(north), abs(east)) < 1e-10:
        text = f"in [-80, 84] degrees, and not be 0, 0, which stands for none; {name} has {north}, {east}."
        raise InvalidInputError(f"A position in EXIF must have a latitude {text}")
    place = "NS"[north < 0], _sixtieths(abs(north)), "EW"[east < 0], _sixtieths(abs(east)), "WGS-84"
    tags: dict[int, Any] = {_GPS.GPSVersionID: b"\2\3\0\0", **dict(zip(_POSITION, place, strict=True))}
    if not math.isnan(heading):
        tags |= {_GPS.GPSImgDirectionRef: "T", _GPS.GPSImgDirection: IFDRational(round(heading * _STEP) % (360 * _STEP), _STEP)}
    if not math.isnan(time):
        tags |= _clock(time, name)
    return tags


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


def stamped(path: Path, tags: dict[int, Any]) -> bytes:
    """The file's bytes with these GPS tags in its EXIF, in place of those that say the same; all else stays as it is."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MissingFileError(f"{path} must be there to be written; {error.strerror or error}.") from None
    if data.startswith(_PNG):
        before, tiff, after = _split_png(data, path)
        if b"Raw profile type exif" in before:
            raise InvalidInputError(f"{path} must hold its EXIF as PNG has it since 2017, not as 'Raw profile type exif'. Convert a copy.")
        chunk = b"eXIf" + _with_gps(tiff, tags, path)
        return before + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + after
    if data.startswith(_JPEG):
        before, tiff, after = _split_jpeg(data, path)
        segment = b"Exif\0\0" + _with_gps(tiff, tags, path)
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


def _with_gps(tiff: bytes, tags: dict[int, Any], path: Path) -> bytes:
    """The TIFF block as it is, since maker's notes point into it, and at its end new GPS and main directories, in place of the old."""
    tiff = tiff or b"II*\0\10\0\0\0" + bytes(6)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Pillow reads with a remark would be lost in the copy
            kept = {tag: value for tag, value in _parsed(tiff).get_ifd(ExifTags.IFD.GPSInfo).items() if tag not in _REPLACED}
            tiff += bytes(len(tiff) % 2)
            gps = ImageFileDirectory_v2(tiff[:4] + bytes(4), group=ExifTags.IFD.GPSInfo)
            for tag, value in (kept | tags).items():
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
