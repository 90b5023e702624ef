"""GSV-Cities: street-view images labelled by place, a table and a folder for each city. It has no queries and no database.

    <root>/Dataframes/<City>.csv     place_id,year,month,northdeg,city_id,lat,lon,panoid
    <root>/Images/<city_id>/<city_id>_<place, 7>_<year, 4>_<month, 2>_<northdeg, 3>_<lat>_<lon>_<panoid>.jpg

| column | becomes |
|---|---|
| place_id | `place`, plus 100,000 times the city's position in the list of cities |
| year, month | `time`, the month's start, UTC; empty is unknown |
| northdeg | `heading`, modulo 360 (names with 406 and 584 are published); empty is unknown |
| lat, lon | `xy`, metres in the city's UTM zone |
| city_id, panoid | parts of the image's name |

The format is that of amaralibey/gsv-cities.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.coordinates import to_degrees
from covis.datasets.drafts import Draft, Invalid, Missing, SceneDraft
from covis.datasets.filing import Files, place_file, refuse_in_place
from covis.datasets.sheets import Sheet, read_sheet
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError, MissingFileError, UnknownNameError
from covis.files import atomic_path, check_absent
from covis.images import Images, Scene
from covis.lookup import suggest

Numbering: TypeAlias = Literal["joint", "own"]

TRAIN_CITIES = (
    *("Bangkok", "BuenosAires", "LosAngeles", "MexicoCity", "OSL", "Rome", "Barcelona", "Chicago", "Madrid", "Miami", "Phoenix", "TRT"),
    *("Boston", "Lisbon", "Medellin", "Minneapolis", "PRG", "WashingtonDC", "Brussels", "London", "Melbourne", "Osaka", "PRS"),
)
"""The cities that models are trained on, in the order that numbers their places."""
COLUMNS = ("place_id", "year", "month", "northdeg", "city_id", "lat", "lon", "panoid")
STEP = 100_000
"""What the place numbers of one city and of the next are apart."""

_SPLITS = ("train", "val", "test")
_SUFFIXES = (".jpg", ".jpeg", ".png")
_NAME = re.compile(r".+?_(\d+)_(\d+)_(\d+)_(\d+)_[^_]*_[^_]*_(.+)", re.DOTALL)
_CITY = re.compile(r"[A-Za-z0-9.-]*[A-Za-z0-9-][A-Za-z0-9.-]*")
_PANOID = re.compile(r"[A-Za-z0-9_.~-]+")


def read_gsv_cities(
    root: str | Path,
    *,
    split: str = "train",
    missing: Missing = "stop",
    invalid: Invalid = "stop",
    cities: str | Sequence[str] | None = None,
    minimum: int = 1,
    numbering: Numbering = "joint",
) -> list[Scene]:
    """Read GSV-Cities: one training scene a city, its images against each other.

    An image's file is the one that the row's text names. Where there is none, as when a program wrote the numbers anew, it is the one
    file of the same place, date, heading and panorama, in any of .jpg, .JPG, .jpeg, .png.

    Args:
        root: the folder that holds `Dataframes` and `Images`; images' names are relative to it.
        split: "train", "val" or "test": the set has none, so it only names the scenes.
        missing: images without a file: "stop", "skip" them and say so, or "ignore".
        invalid: rows whose values cannot be used: "stop", or "skip" them and say so.
        cities: a list, or names joined by commas; default the 23 training cities that are there, then all others by name.
        minimum: leave out places with fewer images than this in the table (the authors train with 4).
        numbering: "joint": 100,000 times a city's position among those read is added to its places' numbers, as the authors do, so
            that no two cities share one; "own": the table's numbers.

    Raises:
        MissingFileError: there is no such folder, no table, or not that of a city asked for.
        DamagedFileError: a table lacks a column, is truncated, or a cell is no number; the message names file and line.
        UnknownNameError: there is no table of a city asked for.
        InvalidInputError: an option is none of the above, or a policy is "stop" and there is something to stop for.
    """
    drafts = draft_gsv_cities(root, split=split, cities=cities, minimum=minimum, numbering=numbering)
    return [draft.scene(missing=missing, invalid=invalid) for draft in drafts]


def draft_gsv_cities(
    root: str | Path,
    *,
    split: str = "train",
    cities: str | Sequence[str] | None = None,
    minimum: int = 1,
    numbering: Numbering = "joint",
) -> list[SceneDraft]:
    """What the tables say, before anyone has vouched for it; arguments and errors as those of `read_gsv_cities`."""
    if split not in _SPLITS:
        raise InvalidInputError(f"The split of GSV-Cities must be 'train', 'val' or 'test'; got {split!r}.")
    if numbering not in ("joint", "own"):
        raise InvalidInputError(f"numbering must be 'joint' or 'own'; got {numbering!r}.")
    if isinstance(minimum, bool) or not isinstance(minimum, int) or minimum < 1:
        raise InvalidInputError(f"minimum must be a whole number of images from 1; got {minimum!r}.")
    root = Path(root).absolute()
    step = STEP if numbering == "joint" else 0
    return [
        SceneDraft(city, split, _draft(root, city, first=number * step, minimum=minimum, most=step or None))
        for number, city in enumerate(_chosen(root, cities))
    ]


def write_gsv_cities(scenes: Sequence[Scene], out: str | Path, *, overwrite: bool = False, files: Files = "copy") -> list[Path]:
    """Write scenes as cities of GSV-Cities: the inverse of `read_gsv_cities`. All must have `place`, `xy` and a known frame.

    Kept are `place` (modulo 100,000, less what the scenes' order adds again), position, heading to whole degrees (rounded), and of
    `time` the month. A scene's two sides become one list, the database first, since the layout has no sides; an image that
    stands on both is written once. A name becomes the panorama's id: that of the layout is kept, of any other its path
    with "-" for what stands between letters, digits, "_" and ".". Everything else is left out, with a warning.

    Args:
        scenes: called as their cities: letters, digits, "-" and ".".
        out: the folder for `Dataframes` and `Images`.
        overwrite: replace the folder that is there, as a whole.
        files: "copy" the images, "link" to them, or "none": the tables alone.

    Returns:
        The folder; `read_gsv_cities(folder, cities=[the scenes' names])` gives the scenes.

    Raises:
        InvalidInputError: images lack a place, a position or a known frame, are neither JPEG nor PNG, or would share a name; a place's
            number does not fit; two scenes share a name, or a name is none for a city.
        MissingFileError: an image is not there.
        OutputExistsError: the folder is there and `overwrite` is false.
    """
    out = Path(out)
    for scene in scenes:
        if not _CITY.fullmatch(scene.name):
            raise InvalidInputError(f"A city of GSV-Cities must be called by letters, digits, '-' and '.'; got {scene.name!r}.")
    if len({scene.name for scene in scenes}) != len(scenes):
        raise InvalidInputError("Scenes written to one folder must have different names.")
    if files not in ("copy", "link", "none"):
        raise InvalidInputError(f"files must be 'copy', 'link' or 'none'; got {files!r}.")
    cities = {scene.name: _written(scene) for scene in scenes}
    refuse_in_place(scenes, [check_absent(out, overwrite=overwrite)])
    if foreign := sorted(path.name for path in (out.iterdir() if out.is_dir() else ()) if path.name not in ("Dataframes", "Images")):
        raise InvalidInputError(
            f"A folder that is replaced must hold Dataframes and Images alone; {out} also holds {foreign[0]}. Choose another folder."
        )
    with atomic_path(out) as folder:
        (folder / "Dataframes").mkdir(parents=True)
        for city, rows in cities.items():
            (folder / "Images" / city).mkdir(parents=True)
            lines = [",".join(COLUMNS), *(",".join(cells) for cells, _, _ in rows)]
            (folder / "Dataframes" / f"{city}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
            for _, name, source in rows:
                place_file(source, folder / name, files)
    return [out]


def _chosen(root: Path, cities: str | Sequence[str] | None) -> list[str]:
    folder = root / "Dataframes"
    if not folder.is_dir():
        raise MissingFileError(f"{root} must hold the folders Dataframes and Images of GSV-Cities; there is no {folder}.")
    there = sorted(path.stem for path in folder.glob("*.csv") if not path.name.startswith("."))
    if not there:
        raise MissingFileError(f"{folder} must hold a table for each city, as Boston.csv; found none.")
    if cities is None:
        return [*(city for city in TRAIN_CITIES if city in there), *(city for city in there if city not in TRAIN_CITIES)]
    if not isinstance(cities, (str, list, tuple)):
        raise InvalidInputError(f"cities must be a list of names, or names joined by commas; got {cities!r}.")
    named = [part.strip() for part in cities.split(",") if part.strip()] if isinstance(cities, str) else list(cities)
    for city in named:
        if city not in there:
            raise UnknownNameError(f"There is no table of {city!r} in {folder}. {suggest(str(city), there)}")
    if len(set(named)) != len(named) or not named:
        raise InvalidInputError(f"Each city must be named once, and one at least; got {', '.join(named) or 'none'}.")
    return named


def _draft(root: Path, city: str, *, first: int, minimum: int, most: int | None) -> Draft:
    path = root / "Dataframes" / f"{city}.csv"
    sheet = _sheet(path)
    place = sheet.integers("place_id")
    sheet.check("place_id", (place >= 0) & (place < (most or STEP)), f"a whole number from 0 to {(most or STEP) - 1}")
    kept = np.unique(place, return_inverse=True, return_counts=True)[1:]
    chosen = (kept[1] >= minimum)[kept[0]] if len(place) else np.zeros(0, dtype=bool)
    sheet, place = sheet.select(chosen), place[chosen]
    degrees = np.column_stack([sheet.numbers("lat", empty=True), sheet.numbers("lon", empty=True)])
    heading = sheet.numbers("northdeg", empty=True)
    sheet.check("northdeg", np.isnan(heading) | ((heading == np.trunc(heading)) & (np.abs(heading) < STEP)), "whole degrees, or empty")
    turned = np.count_nonzero(heading >= 360)
    if turned:
        said = f"{path}: northdeg of {turned} of {len(sheet)} rows is 360 or more; it is taken modulo 360."
        warnings.warn(said, CovisWarning, stacklevel=4)
    months = _months(sheet)
    columns: dict[str, NDArray[Any]] = {"place": place + first}
    for name, values in (("heading", np.where(heading >= 360, heading % 360, heading)), ("time", months)):
        if not np.isnan(values).all():
            columns[name] = values
    return Draft(root, _names(root, city, sheet), path, columns, degrees=degrees, lines=sheet.lines)


def _sheet(path: Path) -> Sheet:
    sheet = read_sheet(path)
    lacking = [name for name in COLUMNS if name not in sheet.frame.columns]
    if lacking:
        raise DamagedFileError(
            f"{path} must have the columns {', '.join(COLUMNS)}; it has no {', '.join(lacking)}. Is it a table of GSV-Cities? "
            "Unpack it again."
        )
    return sheet


def _months(sheet: Sheet) -> NDArray[np.float64]:
    year, month = (sheet.numbers(name, empty=True) for name in ("year", "month"))
    for name, values, (least, most) in (("year", year, (1900, 9999)), ("month", month, (1, 12))):
        fits = np.isnan(values) | ((values == np.trunc(values)) & (values >= least) & (values <= most))
        sheet.check(name, fits, f"a whole number from {least} to {most}, or empty")
    moments = [
        np.nan if np.isnan(y) else datetime(int(y), 1 if np.isnan(m) else int(m), 1, tzinfo=UTC).timestamp()
        for y, m in zip(year, month, strict=True)
    ]
    return np.array(moments, dtype=np.float64)


_Files: TypeAlias = tuple[set[str], dict[tuple[int | str, ...], list[str]]]


def _names(root: Path, city: str, sheet: Sheet) -> list[str]:
    """The images' names: as the rows' text says where that file is there, else the one file of the same place, date, heading, panorama."""
    texts = {name: [text.strip() for text in sheet.texts(name)] for name in ("city_id", "lat", "lon", "panoid")}
    for name, pattern in (("city_id", _CITY), ("panoid", _PANOID)):
        sheet.check(name, np.array([pattern.fullmatch(text) is not None for text in texts[name]], dtype=bool), "a part of a file's name")
    whole = [np.nan_to_num(sheet.numbers(name, empty=True)).astype(np.int64).tolist() for name in COLUMNS[:4]]
    folders: dict[str, _Files] = {}
    names = []
    for row, home in enumerate(texts["city_id"]):
        folder = next((one for one in (home, city) if (root / "Images" / one).is_dir()), home)
        if folder not in folders:
            folders[folder] = _listed(root / "Images" / folder)
        numbers, lat, lon, panoid = [column[row] for column in whole], texts["lat"][row], texts["lon"][row], texts["panoid"][row]
        file = _found(folders[folder], home, numbers, (lat, lon, panoid))
        names.append(f"Images/{folder}/{file or f'{_stem(home, numbers, lat=lat, lon=lon, panoid=panoid)}.jpg'}")
    return names


def _found(files: _Files, city: str, numbers: Sequence[int], texts: tuple[str, str, str]) -> str | None:
    """The file of a row: by its text, then with the numbers as the authors' reader writes them, then by all but the position."""
    lat, lon, panoid = texts
    there, known = files
    stems = [_stem(city, numbers, lat=a, lon=o, panoid=panoid) for a, o in ((lat, lon), (_shortest(lat), _shortest(lon)))]
    exact = next((f"{stem}{suffix}" for stem in stems for suffix in (".jpg", ".JPG", ".jpeg", ".png") if f"{stem}{suffix}" in there), None)
    alike = known.get((*numbers, panoid), []) if exact is None else []
    return exact or (alike[0] if len(alike) == 1 else None)


def _stem(city: str, numbers: Sequence[int], *, lat: str, lon: str, panoid: str) -> str:
    """A file's name without its suffix; numbers are place, year, month and heading, 0 where unknown."""
    padded = [str(number).zfill(width) for number, width in zip(numbers, (7, 4, 2, 3), strict=True)]
    return "_".join([city, *padded, lat, lon, panoid])


def _listed(folder: Path) -> _Files:
    """The files of a folder, and those of each place, year, month, heading and panorama."""
    try:
        with os.scandir(folder) as entries:
            files = {entry.name for entry in entries if entry.name.lower().endswith(_SUFFIXES)}
    except OSError:
        files = set()
    known: dict[tuple[int | str, ...], list[str]] = {}
    for file in sorted(files):
        found = _NAME.fullmatch(file.rpartition(".")[0])
        if found:
            known.setdefault((*(int(part) for part in found.groups()[:4]), found[5]), []).append(file)
    return files, known


def _shortest(text: str) -> str:
    return str(float(text)) if text else ""


def _written(scene: Scene) -> list[tuple[list[str], str, Path]]:
    """The cells, the name and the source of each image of a scene, each file once."""
    sides = [scene.database] if scene.training else [scene.database, scene.queries]
    if len(sides) == 2:
        sides[1] = scene.queries.select(scene.queries.same_files(scene.database) < 0)
    places = np.concatenate([side.need("place")[0] for side in sides])
    if places.size and (places.min() < 0 or len(np.unique(places // STEP)) > 1):
        raise InvalidInputError(
            f"The places of {scene.name!r} must be numbers from 0 within one step of {STEP:,}, which the layout adds to tell cities apart; "
            f"they go from {places.min()} to {places.max()}."
        )
    rows = [row for side in sides for row in _side_rows(side, scene.name)]
    twice = [name for name, count in Counter(name for _, name, _ in rows).items() if count > 1]
    if twice:
        raise InvalidInputError(f"Images of {scene.name!r} must have different names in GSV-Cities; two would be {twice[0]!r}. Rename one.")
    _say_lost(scene, sides)
    return rows


def _side_rows(side: Images, city: str) -> list[tuple[list[str], str, Path]]:
    place, xy = side.need("place", "xy")
    if side.crs is None:
        raise InvalidInputError(f"GSV-Cities holds latitude and longitude; the frame of the images in {side.root} is not known. Say crs.")
    degrees = to_degrees(xy, crs=side.crs) if len(side) else np.zeros((0, 2))
    rows = []
    for row, name in enumerate(side.names):
        suffix = PurePosixPath(name).suffix
        if suffix.lower() not in _SUFFIXES:
            raise InvalidInputError(f"The images of GSV-Cities are .jpg, .jpeg or .png; {name!r} of {city!r} is not. Convert it first.")
        year, month = _month(None if side.time is None else float(side.time[row]), name)
        turned = None if side.heading is None or np.isnan(side.heading[row]) else round(float(side.heading[row])) % 360
        heading = "" if turned is None else str(turned)
        lat, lon = (repr(float(value)) for value in degrees[row])
        cells = [str(int(place[row]) % STEP), year, month, heading, city, lat, lon, _panoid(name)]
        stem = _stem(city, [int(cell or 0) for cell in cells[:4]], lat=lat, lon=lon, panoid=cells[7])
        rows.append((cells, f"Images/{city}/{stem}{suffix}", side.path(row)))
    return rows


def _month(time: float | None, name: str) -> tuple[str, str]:
    if time is None or np.isnan(time):
        return "", ""
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=time)
    except OverflowError:
        moment = datetime(1, 1, 1, tzinfo=UTC)
    if moment.year < 1900:
        raise InvalidInputError(f"GSV-Cities holds the years 1900 to 9999; the time of {name!r} is {time:g} s since 1970.")
    return str(moment.year), str(moment.month)


def _panoid(name: str) -> str:
    stem = name.rpartition(".")[0]
    found = _NAME.fullmatch(stem.rpartition("/")[2])
    return found[5] if found and _PANOID.fullmatch(found[5]) else re.sub(r"[^A-Za-z0-9_.]+", "-", stem).strip("-") or "image"


def _say_lost(scene: Scene, sides: Sequence[Images]) -> None:
    held = ("xy", "heading", "time", "place")
    lost = list(dict.fromkeys(name for side in sides for name in [*side._columns(), *side.flags] if name not in held))
    if len(sides) == 2:
        lost.append("who asks")
    if lost:
        said = f"GSV-Cities holds place, position, heading and month; of {scene.name!r} it does not keep {', '.join(lost)}."
        warnings.warn(said, CovisWarning, stacklevel=4)
