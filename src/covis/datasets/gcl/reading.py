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

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.datasets.catalogue import Sizes, check_sizes
from covis.datasets.drafts import Draft, Invalid, Missing, SceneDraft
from covis.datasets.gcl.indexes import (
    DATASETS,
    ORDERS,
    PAIRED,
    Pair,
    city_pairs,
    dataset_of,
    file_pairs,
    home,
    index_of,
    named_pair,
    names_of,
    numbers_of,
    stamps_of,
)
from covis.datasets.pose_orders import CONVENTIONS, poses_of
from covis.errors import DamagedFileError, InvalidInputError, MissingFileError
from covis.images import Scene

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
    sizes: Sizes = "stop",
) -> list[Scene]:
    """Read GCL's JSON indexes: one scene for each city, room or pair of files.

    Args:
        root: the data set's folder, or one city's, one room's, or one index.
        split: "train", "val" or "test". Cities of MSLS are those of the split, with both sides in each. Elsewhere "train" is the
            database (7-Scenes: train.json) against itself, and "test" and "val" let the queries ask it.
        missing: images without a file: "stop", "skip" or "ignore".
        invalid: rows of `loc` that cannot be used: "stop" or "skip".
        dataset: one of the table above; "auto" sees `msls`, `7scenes` and `pairs` by the files' names. The others must be said;
            `pitts`, `tokyo247` and `tokyotm`, which `write_gcl` tells apart, are `pairs` here, and `tokyotm` gives `time` too, the
            month that the fourth part of each path says, as the reference reads it ("…/…/…/x201107/…").
        database: the map's index, and
        queries: the queries' index, relative to the root, where their names are of one's own (TB-Places: W17.json and W18.json).
        cities: of MSLS: a list, or names joined by commas, whatever their split; default those of the split that are there.
        convention: what poses are: "camera-to-world", "world-to-camera" or "centre" (rotation world-to-camera, with the camera's
            centre). Default as the table has it; `cmu` must be told.
        root_dir: the folder that `im_paths` are relative to; "im_prefix": each index says it itself, relative to where it lies.
        crs: the frame of the metres in `loc` ("EPSG:32633"), which the index does not say.
        sizes: of `tb-places`, indexes called W16, W17, W18 or R17 that hold another number of images than the benchmark's: "stop",
            "warn" or "ignore". Of other data sets nothing is held against.

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
        sizes=sizes,
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
    sizes: Sizes = "stop",
) -> list[SceneDraft]:
    """What the indexes say, before anyone has vouched for it; arguments and errors as those of `read_gcl`."""
    root = Path(os.path.abspath(root))
    for what, value, known in (
        ("dataset", dataset, ("auto", *DATASETS, *PAIRED)),
        ("split", split, ("train", "val", "test")),
        ("convention", convention, (None, *CONVENTIONS)),
    ):
        if value not in known:
            raise InvalidInputError(f"The {what} of GCL's indexes must be one of {', '.join(map(str, known))}; got {value!r}.")
    if cities is not None and not (isinstance(cities, (str, list, tuple)) and all(isinstance(city, str) for city in cities)):
        raise InvalidInputError(f"cities must be a list of names, or names joined by commas; got {cities!r}.")
    if not root.exists():
        raise MissingFileError(f"{root} must be a folder of GCL's JSON indexes, or one of them; there is no such file or folder.")
    stamped = dataset == "tokyotm"
    dataset = "pairs" if dataset in PAIRED else dataset
    if database is None and queries is None and root.is_dir():
        dataset = dataset_of(root) if dataset == "auto" else dataset
        if (dataset, split) == ("7scenes", "val"):
            raise InvalidInputError("The split of 7-Scenes must be 'train' or 'test'; got 'val'.")
        pairs = city_pairs(root, split, cities) if dataset == "msls" else file_pairs(root, split, dataset)
    else:
        pairs = [named_pair(root, split, database, queries)]
    source = _Source(dataset, convention, root_dir, crs, stamped)
    drafts = [
        SceneDraft(pair.name, split, source.draft(pair.database), None if pair.queries is None else source.draft(pair.queries, asked=True))
        for pair in pairs
    ]
    if dataset == "tb-places":
        _hold_sizes(pairs, drafts, sizes)
    return drafts


def _hold_sizes(pairs: Sequence[Pair], drafts: Sequence[SceneDraft], sizes: Sizes) -> None:
    """Each recording of TB-Places has its size, on whichever side it stands."""
    sides = [
        (path, side)
        for pair, draft in zip(pairs, drafts, strict=True)
        for path, side in ((pair.database, draft.database), (pair.queries, draft.queries))
    ]
    for path, side in sides:
        if path is not None and side is not None:
            check_sizes("tb-places", split="test", queries=None, database=len(side.names), part=path.stem, policy=sizes, where=path)


@dataclass(frozen=True)
class _Source:
    """What is known of all indexes of a data set."""

    dataset: str
    convention: str | None
    root_dir: str | None
    crs: str | None
    stamped: bool = False

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
        if self.stamped:
            columns["time"] = stamps_of(path, names)
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
