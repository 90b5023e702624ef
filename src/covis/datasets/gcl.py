"""GCL's JSON indexes: lists of image paths with positions or poses, as its authors' code reads and makes them.

    {"im_prefix": "/data/msls/", "im_paths": ["train_val/cph/query/images/<key>.jpg", …], "loc" or "poses": [[…], …]}

| dataset | files | key and row | rotation |
|---|---|---|---|
| `msls` | `train_val/<city>/{query,database}.json`, test cities in `test` | `loc`: easting, northing, compass angle | – |
| `7scenes` | `<scene>/{train,test}.json` | `poses`: tx ty tz qw qx qy qz | camera-to-world |
| `tb-places` | `<name>.json` | `poses`: tx ty tz qx qy qz qw | camera-to-world |
| `robotcar` | `reference.json`, `test.json` (no poses) | `poses`: qw qx qy qz tx ty tz | camera-to-world |
| `cmu` | the same | the same | not known: say it (`convention`) |
| `pairs` | `query.json` and `database.json`, or `<name>_q.json` and `<name>_db.json` (Pittsburgh, Tokyo) | – | – |

Three orders of a pose in one author's files: nothing in the numbers tells them apart, so that the data set is seen by its files'
names or said (`dataset`), never guessed. Image names are `im_paths`. They are relative to the folder that the paths of the data
set begin in (for `msls` the one that holds `train_val`, for `7scenes` the one that holds the scenes, else the index's own), or to
`root_dir`. `im_prefix`, a path on the machine of whoever made the index, is not used, as GCL's loader does not use it; the one of
TB-Places does: `root_dir="im_prefix"`. Panoramas are in the lists, unmarked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.datasets.drafts import Draft, Invalid, Missing, SceneDraft, files_present
from covis.datasets.filing import Files, place_file
from covis.datasets.gcl_indexes import DATASETS, city_pairs, dataset_of, file_pairs, home, index_of, named_pair, names_of, numbers_of
from covis.datasets.msls import city_folder
from covis.datasets.pose_orders import CONVENTIONS, ORDERS, poses_of, rows_of
from covis.errors import DamagedFileError, InvalidInputError, MissingFileError
from covis.files import atomic_path, check_absent, write_text
from covis.images import Images, Scene

UNIT = 1e-3
"""How far a quaternion's length may be from 1."""


def read_gcl(
    root: str | Path,
    *,
    split: str = "test",
    missing: Missing = "stop",
    invalid: Invalid = "stop",
    dataset: str = "auto",
    database: str | None = None,
    queries: str | None = None,
    cities: str | Sequence[str] | None = None,
    convention: str | None = None,
    root_dir: str | None = None,
    crs: str | None = None,
) -> list[Scene]:
    """Read GCL's JSON indexes: one scene for each city, room or pair of files.

    Args:
        root: the data set's folder, or one city's, one room's, or one index.
        split: "train", "val" or "test". Cities of MSLS are those of the split, with both sides in each. Elsewhere "train" is the
            database (7-Scenes: train.json) against itself, and "test" and "val" let the queries ask it.
        missing: images without a file: "stop", "skip" or "ignore".
        invalid: rows of `loc` that cannot be used: "stop" or "skip".
        dataset: one of the table above; "auto" sees `msls`, `7scenes` and `pairs` by the files' names. The others must be said.
        database: the map's index, and
        queries: the queries' index, relative to the root, where their names are of one's own (TB-Places: W17.json and W18.json).
        cities: of MSLS: a list, or names joined by commas, whatever their split; default those of the split that are there.
        convention: what poses are: "camera-to-world", "world-to-camera" or "centre" (rotation world-to-camera, with the camera's
            centre). Default as the table has it; `cmu` must be told.
        root_dir: the folder that `im_paths` are relative to; "im_prefix": each index says it itself, relative to where it lies.
        crs: the frame of the metres in `loc` ("EPSG:32633"), which the index does not say.

    Returns:
        Scenes with `xy` (metres) and `heading` (degrees; 360 is 0, NaN where unknown) from `loc`, `pose` from `poses`, or names alone.

    Raises:
        MissingFileError: there is no such folder, no index of the split, or one of a pair is missing.
        DamagedFileError: an index is no JSON, lacks a key, or a row has another length or holds something else than numbers; the
            message names file and row.
        InvalidInputError: the data set or the convention must be said, a quaternion is not of length 1, or a value cannot be used.
    """
    drafts = draft_gcl(
        root,
        split=split,
        dataset=dataset,
        database=database,
        queries=queries,
        cities=cities,
        convention=convention,
        root_dir=root_dir,
        crs=crs,
    )
    return [draft.scene(missing=missing, invalid=invalid) for draft in drafts]


def draft_gcl(
    root: str | Path,
    *,
    split: str = "test",
    dataset: str = "auto",
    database: str | None = None,
    queries: str | None = None,
    cities: str | Sequence[str] | None = None,
    convention: str | None = None,
    root_dir: str | None = None,
    crs: str | None = None,
) -> list[SceneDraft]:
    """What the indexes say, before anyone has vouched for it; arguments and errors as those of `read_gcl`."""
    root = Path(os.path.abspath(root))
    for what, value, known in (
        ("dataset", dataset, ("auto", *DATASETS)),
        ("split", split, ("train", "val", "test")),
        ("convention", convention, (None, *CONVENTIONS)),
    ):
        if value not in known:
            raise InvalidInputError(f"The {what} of GCL's indexes must be one of {', '.join(map(str, known))}; got {value!r}.")
    if cities is not None and not (isinstance(cities, (str, list, tuple)) and all(isinstance(city, str) for city in cities)):
        raise InvalidInputError(f"cities must be a list of names, or names joined by commas; got {cities!r}.")
    if not root.exists():
        raise MissingFileError(f"{root} must be a folder of GCL's JSON indexes, or one of them; there is no such file or folder.")
    if database is None and queries is None and root.is_dir():
        dataset = dataset_of(root) if dataset == "auto" else dataset
        if (dataset, split) == ("7scenes", "val"):
            raise InvalidInputError("The split of 7-Scenes must be 'train' or 'test'; got 'val'.")
        pairs = city_pairs(root, split, cities) if dataset == "msls" else file_pairs(root, split, dataset)
    else:
        pairs = [named_pair(root, split, database, queries)]
    source = _Source(dataset, convention, root_dir, crs)
    return [
        SceneDraft(pair.name, split, source.draft(pair.database), None if pair.queries is None else source.draft(pair.queries, asked=True))
        for pair in pairs
    ]


def write_gcl(
    scenes: Sequence[Scene], out: str | Path, *, dataset: str = "msls", overwrite: bool = False, files: Files = "copy"
) -> list[Path]:
    """Write scenes as GCL's JSON indexes, with its keys in its order: the inverse of `read_gcl`.

    A scene becomes a city (`msls`), a room (`7scenes`), or for `tb-places` one index, and a folder with query.json and
    database.json where it has two sides. An image whose name does not begin in that folder gets a name that does. A heading that is
    unknown is null. Everything but positions (`msls`) or poses (the others) is left out; say `crs` again when reading.

    Args:
        scenes: the scenes.
        out: the folder that `im_paths` are relative to.
        dataset: "msls", "7scenes" or "tb-places".
        overwrite: replace indexes, and image files other than the scene's own, that are there.
        files: "copy" or "link" the images, or "none": the indexes alone, with the images' own names, and their folder as `im_prefix`.

    Returns:
        For each scene the city's or room's folder, or the index: what `read_gcl` reads it from.

    Raises:
        InvalidInputError: images lack poses, a scene for `msls` has one side, two files would become one, or a name leaves the folder.
        MissingFileError: an image is not there.
        OutputExistsError: an index or another image is there and `overwrite` is false.
    """
    out = Path(os.path.abspath(out))
    if dataset not in ("msls", "7scenes", "tb-places") or files not in ("copy", "link", "none"):
        raise InvalidInputError(
            "dataset must be 'msls', '7scenes' or 'tb-places', and files 'copy', 'link' or 'none'; got "
            f"dataset={dataset!r} and files={files!r}."
        )
    if len({scene.name for scene in scenes}) != len(scenes):
        raise InvalidInputError("Scenes written to one folder must have different names.")
    sides = [side for scene in scenes for side in _sides(scene, out, dataset)]
    texts = {check_absent(side.index, overwrite=overwrite): side.text(dataset, files) for side in sides}
    moves = _moves(sides, dataset, overwrite=overwrite) if files != "none" else {}
    for target, source in moves.items():
        with atomic_path(target) as temporary:
            place_file(source, temporary, files)
    for index, text in texts.items():  # last, so that what an index names is there
        write_text(index, text)
    single = [dataset == "tb-places" and scene.training for scene in scenes]
    places = [city_folder(out, scene.name) if dataset == "msls" else out / scene.name for scene in scenes]
    return [place.with_name(f"{place.name}.json") if alone else place for place, alone in zip(places, single, strict=True)]


@dataclass(frozen=True)
class _Source:
    """What is known of all indexes of a data set."""

    dataset: str
    convention: str | None
    root_dir: str | None
    crs: str | None

    def draft(self, path: Path, *, asked: bool = False) -> Draft:
        index = index_of(path)
        names = names_of(path, index)
        columns: dict[str, Any] = {}
        if "loc" in index:
            loc = numbers_of(path, index, names, key="loc", order="easting northing angle")
            columns["xy"] = loc[:, :2]
            if not np.isnan(loc[:, 2]).all():
                columns["heading"] = np.where(loc[:, 2] == 360, 0.0, loc[:, 2])
        if "poses" in index:
            columns["pose"] = self._poses(path, index, names)
        elif self.dataset in ORDERS and not (asked and self.dataset in ("robotcar", "cmu")):
            raise DamagedFileError(f"{path} must hold 'poses', as indexes of {self.dataset} do; it holds {', '.join(index)}.")
        root = home(path, self.dataset) if self.root_dir is None else Path(os.path.abspath(self.root_dir))
        if self.root_dir == "im_prefix":
            prefix = index.get("im_prefix")
            if not isinstance(prefix, str) or "\0" in prefix:
                raise DamagedFileError(
                    f"{path} must hold the folder of its images in 'im_prefix' for root_dir='im_prefix'; found {prefix!r}."
                )
            root = Path(os.path.abspath(path.parent / prefix))
        return Draft(root, names, path, columns, crs=self.crs)

    def _poses(self, path: Path, index: dict[str, Any], names: list[str]) -> NDArray[np.float64]:
        order = ORDERS.get(self.dataset)
        convention = self.convention or ("" if self.dataset == "cmu" else "camera-to-world")
        if order is None or not convention:
            option = f"dataset= one of {', '.join(ORDERS)}" if order is None else f"convention= one of {', '.join(CONVENTIONS)}"
            raise InvalidInputError(f"{path} holds poses; say what they are, {option}: it does not tell, and orders and rotations differ.")
        rows = numbers_of(path, index, names, key="poses", order=order)
        length = np.linalg.norm(rows[:, [i for i, name in enumerate(order.split()) if name.startswith("q")]], axis=1)
        bad = np.flatnonzero(~(np.isfinite(rows).all(axis=1) & (np.abs(length - 1) <= UNIT)))
        if bad.size:
            raise InvalidInputError(
                f"{path}, row {bad[0]} of poses (from 0; {names[bad[0]]}): a pose must be finite with a quaternion of length 1, within "
                f"{UNIT:g}; {order} are {rows[bad[0]].tolist()}. Is it an index of {self.dataset}?"
            )
        return poses_of(rows, order=order, convention=convention)


@dataclass(frozen=True)
class _Side:
    """One index to be written: which images, and what their names begin with."""

    index: Path
    images: Images
    prefix: str
    inside: str = ""

    def names(self) -> list[str]:
        return [name if name.startswith(self.prefix) else f"{self.prefix}{self.inside}{name}" for name in self.images.names]

    def text(self, dataset: str, files: Files) -> str:
        names = list(self.images.names) if files == "none" else self.names()
        prefix = Path(os.path.abspath(self.images.root)) if files == "none" else home(self.index, dataset)
        value: dict[str, Any] = {"im_prefix": f"{prefix.as_posix()}/", "im_paths": names}
        if dataset != "msls":
            value["poses"] = rows_of(self.images.need("pose")[0], order=ORDERS[dataset]).tolist()
        elif self.images.xy is not None:
            heading = [None] * len(names) if self.images.heading is None else self.images.heading.tolist()
            angles = [None if angle is None or angle != angle else angle for angle in heading]
            value["loc"] = [[*position, angle] for position, angle in zip(self.images.xy.tolist(), angles, strict=True)]
        return json.dumps(value, allow_nan=False)


def _sides(scene: Scene, out: Path, dataset: str) -> list[_Side]:
    database, queries = scene.database, scene.queries
    if dataset == "7scenes":
        sides = [_Side(out / scene.name / "train.json", database, f"{scene.name}/")]
        return sides if scene.training else [*sides, _Side(out / scene.name / "test.json", queries, f"{scene.name}/")]
    if dataset == "tb-places" and scene.training:
        return [_Side(out / f"{scene.name}.json", database, f"{scene.name}/")]
    if scene.training:
        raise InvalidInputError(
            f"A scene written in the layout of MSLS must have two sides; those of {scene.name!r} are the same images. Use another dataset=."
        )
    if dataset == "tb-places":
        return [
            _Side(out / scene.name / f"{side}.json", images, f"{side}/") for side, images in (("database", database), ("query", queries))
        ]
    city = city_folder(out, scene.name)
    prefix = city.relative_to(out).as_posix()
    both = (("database", database), ("query", queries))
    return [_Side(city / f"{side}.json", images, f"{prefix}/{side}/", "images/") for side, images in both]


def _moves(sides: Sequence[_Side], dataset: str, *, overwrite: bool) -> dict[Path, Path]:
    """Target -> source of each image that is not there yet, after a look that all can be written."""
    moves: dict[Path, Path] = {}
    for side in sides:
        folder = home(side.index, dataset)
        absent = np.flatnonzero(~files_present(side.images.root, side.images.names))
        if absent.size:
            raise MissingFileError(f"{side.images.path(int(absent[0]))} must be there to be written; there is no such file.")
        for row, name in enumerate(side.names()):
            source, target = side.images.path(row), folder / name
            if {"", ".", ".."} & set(name.split("/")):
                raise InvalidInputError(f"An image's name must be a plain relative path to be written; got {name!r} in {side.images.root}.")
            if not moves.setdefault(target, source).samefile(source):
                raise InvalidInputError(
                    f"{moves[target]} and {source} would both be written as {target}. Give the two sides different names."
                )
    there = {target for target, source in moves.items() if target.exists() and target.samefile(source)}
    return {check_absent(target, overwrite=overwrite): source for target, source in moves.items() if target not in there}
