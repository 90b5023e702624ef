"""The inverse of `covis.datasets.msls`: scenes that are called as cities of MSLS become its tree."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from covis.coordinates import to_degrees
from covis.datasets.filing import Files, place_file
from covis.datasets.msls_tables import CITIES, DAY, KEY, SIDES, SUBTASKS, TABLES, VIEWS, city_folder, utm_frame
from covis.errors import InvalidInputError, UnknownNameError
from covis.files import atomic_path, check_absent
from covis.images import Images, Scene
from covis.lookup import suggest

_MSLS_KEY = re.compile(r"[A-Za-z0-9_-]{22}")
_YEARS = (-62135596800.0, 253402300800.0)
"""Seconds since 1970 at which the years 1 and 10000 begin: what YYYY-MM-DD can say."""


def write_msls(scenes: Sequence[Scene], out: str | Path, *, overwrite: bool = False, files: Files = "copy") -> list[Path]:
    """Write scenes as cities of MSLS: the inverse of `read_msls`.

    A table is written where the images have anything that stands in it (`seq_info.csv` always); what they do not have stays
    empty there, and reads as absent again. Columns stand in the benchmark's order.

    * A file `<22 letters, digits, "-", "_">.jpg`, and one whose name is already that of the layout, keeps its key. Any other
      gets the first 22 characters of the URL-safe base64 of the SHA-256 of "<city>/<side>/<name>": the same name gives the
      same key in every run, and two cities never share one.
    * `xy` is easting and northing to the last bit; longitude and latitude are computed from it where `crs` is a UTM zone, and
      stay empty where it is None.
    * `time` keeps its day alone. Left out, since the layout has no place for them: opening angles, reach, poses, intrinsics,
      depth, segmentation, and flags that are not in the layout's table of columns.

    Args:
        scenes: each called as a city of MSLS, which decides between `train_val` and `test`; the split is not stored.
        out: the folder that `train_val` and `test` come to lie in.
        overwrite: replace a city's folder that is there, as a whole.
        files: "copy" the images, "link" to them, or "none": the tables alone.

    Returns:
        The cities' folders. A city is there as a whole or not at all.

    Raises:
        UnknownNameError: a scene is not called as a city of MSLS.
        InvalidInputError: two scenes share a name; the same file stands on both sides (as in a training scene); an image is no
            .jpg, looks in two directions, or would share its key; a frame is no UTM zone that the positions fit in; a sequence's
            name or a time cannot stand in the table; or the scene's own files lie in the folder to be replaced.
        MissingFileError: an image to copy or link is not there.
        OutputExistsError: a city's folder is there and `overwrite` is false.
    """
    out = Path(out)
    if files not in ("copy", "link", "none"):
        raise InvalidInputError(f"files must be 'copy', 'link' or 'none'; got {files!r}.")
    if len({scene.name for scene in scenes}) != len(scenes):
        raise InvalidInputError("Scenes written to one folder must have different names.")
    written = [(check_absent(_target(scene, out), overwrite=overwrite), _sides(scene)) for scene in scenes]
    for target, sides in written:
        with atomic_path(target) as folder:
            for side in sides:
                _write_side(side, folder, files)
    return [target for target, _ in written]


@dataclass(frozen=True)
class _Side:
    name: str
    images: Images
    keys: list[str]
    tables: dict[str, pl.DataFrame]


def _target(scene: Scene, out: Path) -> Path:
    """The city's folder, after a look that the scene may become it."""
    known = [city for cities in CITIES.values() for city in cities]
    if scene.name not in known:
        raise UnknownNameError(
            f"A scene written in the MSLS layout must be called as one of its cities; got {scene.name!r}. {suggest(scene.name, known)}"
        )
    called = [{name.rpartition("/")[2] for name in images.names} for images in (scene.database, scene.queries)]
    both = np.flatnonzero(scene.queries.same_files(scene.database) >= 0) if called[0] & called[1] else np.zeros(0)
    if both.size:
        raise InvalidInputError(
            f"Queries and database of {scene.name!r} must be different files, since MSLS keeps two copies, which would then find each "
            f"other; {both.size} stand on both sides, as {scene.queries.names[int(both[0])]!r}. Split the images into two sides."
        )
    target = city_folder(out, scene.name)
    folders = {
        images.root / folder for images in (scene.database, scene.queries) for folder in {n.rpartition("/")[0] for n in images.names}
    }
    for folder in folders if target.exists() else ():
        if folder.resolve().is_relative_to(target.resolve()):
            raise InvalidInputError(f"{target} cannot be replaced by a scene whose own images lie in it ({folder}). Choose another folder.")
    return target


def _sides(scene: Scene) -> list[_Side]:
    sides = dict(zip(SIDES, (scene.database, scene.queries), strict=True))
    degrees = _degrees(scene)
    built = []
    for name, images in sides.items():
        keys = _keys(images.names, scene.name, name)
        taken: dict[str, str] = {}
        for key, image in zip(keys, images.names, strict=True):
            if taken.setdefault(key, image) != image:
                raise InvalidInputError(f"{taken[key]!r} and {image!r} of {scene.name!r} would share the key {key!r}. Rename one.")
        built.append(_Side(name, images, keys, _tables(images, keys, degrees.get(name))))
    return built


def _keys(names: Sequence[str], city: str, side: str) -> list[str]:
    own = f"{city_folder(Path(), city).as_posix()}/{side}/images/"
    keys = []
    for name in names:
        stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
        if not dot or suffix.lower() not in ("jpg", "jpeg"):
            raise InvalidInputError(f"The images of MSLS are JPEG files, .jpg; {name!r} of {city!r} is not. Convert the images first.")
        if not (_MSLS_KEY.fullmatch(stem) or (name == f"{own}{stem}.jpg" and re.fullmatch(KEY, stem))):
            hashed = hashlib.sha256(f"{city}/{side}/{name}".encode("utf-8", "surrogatepass")).digest()
            stem = base64.urlsafe_b64encode(hashed).decode("ascii")[:22]
        keys.append(stem)
    return keys


def _degrees(scene: Scene) -> dict[str, NDArray[np.float64]]:
    """Latitude and longitude of each side that has positions in a known frame; a reader must find that frame again."""
    crs = scene.database.crs
    xy = {name: images.xy for name, images in zip(SIDES, (scene.database, scene.queries), strict=True) if images.xy is not None}
    if crs is None or not xy:
        return {}
    degrees = {name: to_degrees(values, crs=crs) for name, values in xy.items()}
    joined = np.concatenate(list(xy.values()))
    if len(joined) and utm_frame(joined, np.concatenate(list(degrees.values())))[0] != crs:
        raise InvalidInputError(
            f"The positions of {scene.name!r} must lie in or beside a UTM zone of WGS84, as in EPSG:32633; they do not fit {crs}. Bring "
            "them into their zone, or set crs to None: longitude and latitude then stay empty."
        )
    return degrees


def _tables(images: Images, keys: Sequence[str], degrees: NDArray[np.float64] | None) -> dict[str, pl.DataFrame]:
    xy = images.xy
    flags = {name: _truth(images.flags.get(name)) for name in (*SUBTASKS, "control_panel", "night")}
    values: dict[str, Any] = {
        "sequence_key": _sequence(images),
        "frame_number": images.frame,
        "lon": None if degrees is None else degrees[:, 1],
        "lat": None if degrees is None else degrees[:, 0],
        "ca": None if images.heading is None else pl.Series(images.heading).fill_nan(None),
        "captured_at": _days(images),
        "pano": _truth(images.flags.get("panorama")),
        "easting": None if xy is None else xy[:, 0],
        "northing": None if xy is None else xy[:, 1],
        "unique_cluster": images.place,
        "view_direction": _views(images),
        **flags,
    }
    tables = {}
    for file, columns in TABLES.items():
        if file == "seq_info.csv" or any(values[name] is not None for name in columns[1:]):
            empty = pl.Series([None] * len(keys), dtype=pl.String)
            cells = {name: empty if values[name] is None else values[name] for name in columns[1:]}
            tables[file] = pl.DataFrame({"index": np.arange(len(keys)), "key": pl.Series(keys, dtype=pl.String), **cells})
    return tables


def _truth(flag: NDArray[np.bool_] | None) -> pl.Series | None:
    return None if flag is None else pl.Series(np.where(flag, "True", "False").tolist(), dtype=pl.String)


def _sequence(images: Images) -> pl.Series | None:
    if images.sequence is None:
        return None
    for name in dict.fromkeys(images.sequence):
        if not name or name != name.strip() or not name.isprintable() or "," in name or '"' in name:
            raise InvalidInputError(
                f"A sequence's name must be one printable line without commas, quotes and blanks around it, to stand in a table of MSLS; "
                f"{images.names[images.sequence.index(name)]!r} is of {name!r}. Rename the sequence."
            )
    return pl.Series(images.sequence, dtype=pl.String)


def _days(images: Images) -> pl.Series | None:
    if images.time is None:
        return None
    bad = np.flatnonzero((images.time < _YEARS[0]) | (images.time >= _YEARS[1]))
    if bad.size:
        raise InvalidInputError(
            f"A time must lie in the years 1 to 9999; {images.names[bad[0]]!r} has {images.time[bad[0]]:g} seconds since 1970."
        )
    days = pl.Series(np.floor(images.time / DAY)).fill_nan(None).cast(pl.Int32).cast(pl.Date)
    return days.dt.strftime("%Y-%m-%d")


def _views(images: Images) -> pl.Series | None:
    given = [images.flags.get(view, np.zeros(len(images), dtype=bool)) for view in VIEWS]
    if not any(view in images.flags for view in VIEWS):
        return None
    several = np.flatnonzero(np.sum(given, axis=0) > 1)
    if several.size:
        raise InvalidInputError(f"An image must look forward, backward or sideways; {images.names[several[0]]!r} has two of these flags.")
    texts = np.select(given, [view.capitalize() for view in VIEWS], default="")
    return pl.Series(texts.tolist(), dtype=pl.String)


def _write_side(side: _Side, folder: Path, files: Files) -> None:
    into = folder / side.name
    (into / "images").mkdir(parents=True)
    for file, table in side.tables.items():
        header = ",".join(["", *TABLES[file]])
        body = table.write_csv(include_header=False, quote_style="never")
        (into / file).write_text(f"{header}\n{body}", encoding="utf-8", newline="")
    for row, key in enumerate(side.keys if files != "none" else ()):
        place_file(side.images.path(row), into / "images" / f"{key}.jpg", files)
