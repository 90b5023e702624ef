"""The MSLS layout (Mapillary Street-Level Sequences): a folder for each city, with queries and database apart.

    train_val/<city>/{query,database}/images/<key>.jpg      key: 22 letters, digits, "-" and "_"
                                      seq_info.csv          key,sequence_key,frame_number
                                      subtask_index.csv     key,all,s2w,w2s,o2n,n2o,d2n,n2d
                                      raw.csv               key,lon,lat,ca,captured_at,pano
                                      postprocessed.csv     key,easting,northing,unique_cluster,control_panel,night,view_direction
    test/<city>/{query,database}/     the same; the benchmark came without raw.csv and postprocessed.csv, which are read where they are

The six test cities lie in `test`, all others in `train_val`. Every table begins with an unnamed column, the row's number,
which is not read. Columns are found by name; the tables of a folder have the same keys in the same rows.

| column | becomes |
|---|---|
| key | the image's name, `train_val/<city>/query/images/<key>.jpg` |
| easting, northing | `xy`; `crs` is the UTM zone in which lon and lat agree with them |
| lon, lat | `xy` in the UTM zone where most of them lie, where no table of the city has easting and northing |
| ca | `heading`; 360 is 0, empty or NaN is unknown |
| captured_at | `time`, midnight UTC |
| sequence_key, frame_number, unique_cluster | `sequence`, `frame`, `place` |
| pano, night, control_panel, all … n2d | flags: `panorama`, `night`, `control_panel`, `all` … `n2d` |
| view_direction | flags: `forward`, `backward`, `sideways`; empty is none of them |

A column without one value is absent, and so are those of a table that is not there. A test city has positions where its ground
truth, public since 2026, was put into its folders; it is read as split "test" alone, never among the validation cities.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.datasets.catalogue import DATASETS, Sizes, check_sizes
from covis.datasets.drafts import Draft, Invalid, Missing, SceneDraft
from covis.datasets.msls_tables import AGREE, CITIES, SIDES, SUBTASKS, TABLES, Table, aligned, city_folder, read_table, utm_frame
from covis.datasets.msls_writer import write_msls
from covis.errors import CovisWarning, InvalidInputError, MissingFileError, UnknownNameError
from covis.images import Scene
from covis.lookup import suggest

Panoramas: TypeAlias = Literal["keep", "drop"]

__all__ = ["CITIES", "city_folder", "draft_msls", "read_msls", "utm_frame", "write_msls"]


def read_msls(
    root: str | Path,
    *,
    split: str = "test",
    missing: Missing = "stop",
    invalid: Invalid = "stop",
    cities: str | Sequence[str] | None = None,
    panoramas: Panoramas = "keep",
    sizes: Sizes = "warn",
) -> list[Scene]:
    """Read MSLS: one scene for each city, its queries against its database.

    Queries and database are folders of their own in training cities too, and stay two sides: a training scene is no
    self-comparison here.

    Args:
        root: the folder that holds `train_val` and `test`; images' names are relative to it.
        split: "train" (22 cities), "val" (cph, sf) or "test" (the other six, whose positions the benchmark withheld until 2026).
        missing: images without a file: "stop", "skip" them and say so, or "ignore" (nothing is looked up: metadata alone).
        invalid: rows whose values cannot be used: "stop", or "skip" them and say so.
        cities: a list, or names joined by commas; default the split's cities that are there, in the benchmark's order. "val"
            takes training cities too (zurich is the benchmark's sample).
        panoramas: "keep" them as rows with the flag `panorama` (the benchmark's windows of frames need them), or "drop" them.
        sizes: where all cities of val or test are read and are not far smaller than the benchmark's, their rows are held against its
            sizes: "warn", "stop" (only for sizes that were counted in a primary source) or "ignore".

    Returns:
        The cities' scenes, in the order asked for.

    Raises:
        MissingFileError: there is no such folder, none of the split's cities in it, a city asked for is not there, or a side
            has none of the four tables (any three may be absent).
        DamagedFileError: a table is truncated, no UTF-8, lacks a column, or holds a value of another kind; or two tables of
            a folder differ in their keys. The message names file and line.
        UnknownNameError: MSLS has no such city.
        InvalidInputError: an option is none of the above, or a policy is "stop" and there is something to stop for.
    """
    drafts = draft_msls(root, split=split, cities=cities, panoramas=panoramas, sizes=sizes)
    return [draft.scene(missing=missing, invalid=invalid) for draft in drafts]


def draft_msls(
    root: str | Path,
    *,
    split: str = "test",
    cities: str | Sequence[str] | None = None,
    panoramas: Panoramas = "keep",
    sizes: Sizes = "warn",
) -> list[SceneDraft]:
    """What the tables say, before anyone has vouched for it; arguments and errors as those of `read_msls`."""
    if panoramas not in ("keep", "drop"):
        raise InvalidInputError(f"panoramas must be 'keep' or 'drop'; got {panoramas!r}.")
    root = Path(root).absolute()
    whole = []
    for city in _chosen(root, split, cities):
        sides = [_read_side(root, city, side) for side in SIDES]
        _set_frame(sides)
        whole.append(SceneDraft(city, split, *(side.draft for side in sides)))
    _check_sizes(whole, split, root, policy=sizes)
    if panoramas == "keep":
        return whole
    return [SceneDraft(one.name, split, *(_without_panoramas(side) for side in one.sides)) for one in whole]


@dataclass(frozen=True)
class _Side:
    draft: Draft
    degrees: NDArray[np.float64]


def _chosen(root: Path, split: str, cities: str | Sequence[str] | None) -> list[str]:
    """The cities to read, after a look that MSLS has them and that they are there."""
    if split not in tuple(CITIES):
        raise InvalidInputError(f"The split of MSLS must be 'train', 'val' or 'test'; got {split!r}.")
    if not root.is_dir():
        raise MissingFileError(f"{root} must be a folder in the MSLS layout; there is no such folder.")
    named = _named(split, cities)
    there = {name: [city for city in CITIES[name] if city_folder(root, city).is_dir()] for name in CITIES}
    for city in named:
        if not city_folder(root, city).is_dir():
            raise MissingFileError(f"The city {city} must lie in {city_folder(root, city)}; there is no such folder. Unpack it there.")
    if named or there[split]:
        absent = [city for city in CITIES[split] if city not in there[split]]
        if not named and absent and split != "train":  # scores of a part are not the benchmark's
            warnings.warn(
                f"{root} holds {', '.join(there[split])} of the {split} split; {', '.join(absent)} is not there, so that scores are not "
                "the benchmark's. Name the cities to say that this is meant.",
                CovisWarning,
                stacklevel=4,
            )
        return named or there[split]
    found = "; ".join(f"{name}: {', '.join(names)}" for name, names in there.items() if names)
    raise MissingFileError(
        f"{root} must hold a city of the {split} split, as in {city_folder(root, CITIES[split][0])}; found "
        f"{f'those of other splits ({found})' if found else 'none'}. Is this the right folder, split and layout?"
    )


def _named(split: str, cities: str | Sequence[str] | None) -> list[str]:
    if not isinstance(cities, (str, list, tuple, type(None))):
        raise InvalidInputError(f"cities must be a list of names, or names joined by commas; got {cities!r}.")
    named = [part.strip() for part in cities.split(",") if part.strip()] if isinstance(cities, str) else list(cities or ())
    for city in named:
        home = next((name for name, members in CITIES.items() if city in members), None)
        if home is None:
            known = [member for members in CITIES.values() for member in members]
            raise UnknownNameError(f"MSLS has no city called {city!r}. {suggest(str(city), known)}")
        if home != split and (split, home) != ("val", "train"):
            raise InvalidInputError(
                f"The city {city} is of the split {home!r}, not of {split!r}. Read it as split={home!r}, or leave it out."
            )
    if len(set(named)) != len(named):
        raise InvalidInputError(f"Each city must be named once; got {', '.join(named)}.")
    return named


def _read_side(root: Path, city: str, side: str) -> _Side:
    folder = city_folder(root, city) / side
    if not folder.is_dir():
        raise MissingFileError(f"The city {city} must have its {side} images in {folder}; there is no such folder. Unpack it there.")
    tables = {name: read_table(folder / name) for name in TABLES if (folder / name).exists()}
    if not tables:
        raise MissingFileError(
            f"{folder} must hold one at least of {', '.join(TABLES)}; found none. Unpack the benchmark's metadata there."
        )
    keys = aligned(list(tables.values()))
    prefix = f"{folder.relative_to(root).as_posix()}/images/"
    names = [f"{prefix}{key}.jpg" for key in keys]
    columns, flags = _columns(tables)
    raw = tables.get("raw.csv")
    place = [None if raw is None else raw.numbers(name) for name in ("lat", "lon")]
    degrees = np.column_stack([np.full(len(keys), np.nan) if values is None else values for values in place])
    # the tables are row-aligned: a line is the same image in each
    source = folder / ("*.csv" if len(tables) > 1 else next(iter(tables)))
    return _Side(Draft(root, names, source, columns, flags, first_line=2), degrees)


def _columns(tables: dict[str, Table]) -> tuple[dict[str, Any], dict[str, NDArray[np.bool_]]]:
    columns: dict[str, Any] = {}
    flags: dict[str, Any] = {}
    if (table := tables.get("seq_info.csv")) is not None:
        columns |= {"sequence": table.texts("sequence_key"), "frame": table.whole("frame_number")}
    if (table := tables.get("subtask_index.csv")) is not None:
        flags |= {name: table.truths(name) for name in SUBTASKS}
    if (table := tables.get("raw.csv")) is not None:
        heading = table.numbers("ca")
        columns |= {"heading": None if heading is None else np.where(heading == 360, 0.0, heading), "time": table.days("captured_at")}
        flags["panorama"] = table.truths("pano")
    if (table := tables.get("postprocessed.csv")) is not None:
        parts = [table.numbers(name) for name in ("easting", "northing")]
        if any(part is not None for part in parts):
            columns["xy"] = np.column_stack([np.full(len(table), np.nan) if part is None else part for part in parts])
        columns["place"] = table.whole("unique_cluster")
        flags |= {"control_panel": table.truths("control_panel"), "night": table.truths("night"), **table.views("view_direction")}
    return {key: value for key, value in columns.items() if value is not None}, {k: v for k, v in flags.items() if v is not None}


def _set_frame(sides: Sequence[_Side]) -> None:
    """Give both sides the UTM zone in which their lon and lat agree with their easting and northing."""
    placed = [side for side in sides if "xy" in side.draft.columns]
    if not placed:
        _place_by_degrees(sides)
        return
    crs, off = utm_frame(np.concatenate([side.draft.columns["xy"] for side in placed]), np.concatenate([side.degrees for side in placed]))
    for side in sides:
        side.draft.crs = crs
    if off.size:
        split = len(placed[0].draft.names)
        side, row = (placed[0], int(off[0])) if off[0] < split else (placed[1], int(off[0]) - split)
        remark = f"The frame is {crs}." if crs else "The frame (crs) stays unknown; easting and northing are used as they are."
        total = sum(len(one.draft.names) for one in placed)
        warnings.warn(
            f"{side.draft.where(row)}: lon and lat must agree within {AGREE:g} m with easting and northing in one UTM zone; {off.size} of "
            f"{total} rows do not, this one first. {remark}",
            CovisWarning,
            stacklevel=4,
        )


def _place_by_degrees(sides: Sequence[_Side]) -> None:
    """Where no side has easting and northing: positions from longitude and latitude, if there are any."""
    for side in sides:
        if np.isfinite(side.degrees).any():
            side.draft.degrees = side.degrees
            warnings.warn(
                f"{side.draft.source} has no easting and northing; positions are computed from lon and lat, so that a pair near a "
                "protocol's radius may differ from the benchmark's.",
                CovisWarning,
                stacklevel=4,
            )


_FAR_SMALLER = 0.1
"""Share of the benchmark's database below which a set is another one in its layout (a synthetic town, a sample), not a damaged copy."""


def _check_sizes(drafts: Sequence[SceneDraft], split: str, root: Path, *, policy: Sizes) -> None:
    """Hold whole validation and test sets against the benchmark's sizes: all rows, and those that its protocols ask and search."""
    if policy not in ("stop", "warn", "ignore"):
        raise InvalidInputError(f"The policy sizes must be one of stop, warn, ignore; got {policy!r}.")
    if split == "train" or {draft.name for draft in drafts} != set(CITIES[split]):
        return
    sides = {draft.name: draft.sides for draft in drafts}
    found = {name: (len(queries.names), len(database.names)) for name, (database, queries) in sides.items()}
    if split == "test":
        asked = [_count(queries, "all") for _, queries in sides.values()]
        found = {"": (sum(asked), sum(count for _, count in found.values()))}
    expected = sum(size.database or 0 for size in DATASETS["msls"].sizes if size.split == split and size.part in found)
    if sum(count for _, count in found.values()) < _FAR_SMALLER * expected:
        return
    for name, (queries, database) in found.items():
        check_sizes("msls", split=split, part=name, queries=queries, database=database, policy=policy, where=root)
    for name, (there, here) in sides.items():
        if split == "val" and "all" in here.flags and all("panorama" in side.flags for side in (there, here)):
            counts = {"queries": _count(here, "all", "-panorama"), "database": _count(there, "-panorama")}
            check_sizes("msls", split=split, part=f"{name}, as asked", policy=policy, where=root, **counts)


def _count(side: Draft, *flags: str) -> int:
    """How many images have all these flags ("-x": not x); a flag that the tables lack holds of all."""
    chosen = np.ones(len(side.names), dtype=bool)
    for flag in flags:
        name = flag.removeprefix("-")
        if name in side.flags:
            chosen &= np.asarray(side.flags[name]) != flag.startswith("-")
    return int(np.count_nonzero(chosen))


def _without_panoramas(draft: Draft) -> Draft:
    if "panorama" not in draft.flags:
        raise InvalidInputError(
            f"{draft.source}: panoramas can be dropped where raw.csv says which they are (pano); it does not. Keep them."
        )
    return draft.select(~np.asarray(draft.flags["panorama"]))
