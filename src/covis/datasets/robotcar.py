"""The layout of RobotCar Seasons, with the lists of its version 2.

    <root>/images/<condition>/{left,rear,right}/<microseconds>.jpg    "overcast-reference" is the database, the others ask
    <root>/intrinsics/<camera>_intrinsics.txt           lines "fx v", "fy v", "cx v", "cy v", pixels; the images are undistorted
    <root>/extrinsics/<camera>_extrinsics.txt           4x4, commas between the numbers, camera -> car
    <root>/3D-models/all-merged/all.nvm                 poses of the database: rotation world-to-camera, and the camera's centre
    <root>/3D-models/individual/queries_per_location/queries_location_<NNN>.txt    "<condition>/<camera>/<microseconds>.jpg" a line
    <root>/robotcar_v2_train.txt                        name and 4x4 camera-to-world, row by row, of queries whose pose is public
    <root>/robotcar_v2_test.txt                         names of the queries that the benchmark asks

Models and lists may say "./" and .png where the file is a .jpg: an image is its condition, camera and time stamp. The world's z points
down (as in the navigation solution of RobotCar), so that the ground as seen from above has y to the right of x: xy is (y, x), and
headings count from the x axis. That x is north is not established. Poses stay in the benchmark's own world, as its server wants them.

Sattler et al., Benchmarking 6DOF outdoor visual localization in changing conditions, CVPR 2018; facts from the README of the data set.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.datasets.catalogue import Sizes, check_sizes
from covis.datasets.drafts import Draft, Invalid, Missing, SceneDraft
from covis.datasets.pose_lists import STAMPED, ListedDraft, Listing, matrix_poses, read_list, read_nvm_cameras, seven_poses
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError, MissingFileError
from covis.files import read_text
from covis.geometry import check_rigid, ground_heading
from covis.images import Scene

BenchmarkCamera: TypeAlias = Literal["rear", "left", "right", "all"]

BENCHMARK = "robotcar-seasons-v2"
REFERENCE = "overcast-reference"
"""The condition of the database."""

CONDITIONS = ("dawn", "dusk", "night", "night-rain", "overcast-summer", "overcast-winter", "rain", "snow", "sun")
"""Those of the queries, each a flag."""

CAMERAS = ("left", "rear", "right")
NVM = "3D-models/all-merged/all.nvm"
LOCATIONS = "3D-models/individual/queries_per_location"
LISTS = {"test": "robotcar_v2_test.txt", "val": "robotcar_v2_train.txt"}
MATRIX = "a 4x4 camera-to-world matrix, row by row"

IMAGE = re.compile(r"(?:images/)?(?P<condition>[A-Za-z0-9_-]+)/(?P<camera>left|rear|right)/(?P<stamp>\d{1,17})\.(?:jpg|jpeg|png)", re.ASCII)
_UP = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])
_SUFFIXES = (".jpg", ".jpeg", ".png")


def read_robotcar_seasons(
    root: str | Path,
    *,
    split: str = "test",
    camera: BenchmarkCamera = "rear",
    model: str = NVM,
    missing: Missing = "stop",
    invalid: Invalid = "stop",
    sizes: Sizes = "stop",
) -> list[Scene]:
    """Read RobotCar Seasons as one scene, called as its folder.

    The database is `overcast-reference`, posed by the NVM model. Both sides have time, sequence ("<condition>/<camera>"), intrinsics where
    intrinsics/ is there, and a flag for each condition; queries have place, the number of their location, where queries_per_location/ lists
    them all. Names are relative to images/.

    Args:
        root: the data set's folder.
        split: "test": the queries of robotcar_v2_test.txt ask; they have neither pose nor position, for the benchmark keeps those. "val":
            those of robotcar_v2_train.txt, whose poses are public, to score at home.
        camera: the images of one camera, or "all"; only the rear one is evaluated.
        model: the NVM model of the database, relative to the root.
        missing: listed images that have no file: "stop", "skip" or "ignore" (look nothing up).
        invalid: images listed twice on one side: "stop" or "skip" (the first stays).
        sizes: counts other than the benchmark's (of the rear camera): "stop", "warn" or "ignore".

    Raises:
        MissingFileError: there is no such folder, model or list, a condition's folder is not unpacked (and missing is "stop"), or there is
            no query.
        DamagedFileError: a file does not read; the message names it and the line.
        InvalidInputError: a policy says stop, a pose is no rigid motion, or the split or camera is unknown.
    """
    drafts = draft_robotcar_seasons(root, split=split, camera=camera, model=model, sizes=sizes)
    if missing == "stop":
        _check_unpacked(drafts)
    return [draft.scene(missing=missing, invalid=invalid) for draft in drafts]


def draft_robotcar_seasons(
    root: str | Path, *, split: str = "test", camera: BenchmarkCamera = "rear", model: str = NVM, sizes: Sizes = "stop"
) -> list[SceneDraft]:
    """What the files say, for `read_robotcar_seasons` and for checks.

    Raises:
        MissingFileError: there is no such folder, model or list, or no query.
        DamagedFileError: a file does not read; the message names it and the line.
        InvalidInputError: the sizes are not the benchmark's, a pose is no rigid motion, or the split or camera is unknown.
    """
    if split not in LISTS:
        raise InvalidInputError(
            f"The split of RobotCar Seasons must be 'test' or 'val' (robotcar_v2_train.txt, whose queries have poses); got {split!r}."
        )
    if camera not in (*CAMERAS, "all"):
        raise InvalidInputError(f"camera must be one of {', '.join(CAMERAS)}, all; got {camera!r}.")
    root = Path(root).absolute()
    if not root.is_dir():
        raise MissingFileError(f"{root} must be the folder of RobotCar Seasons (images/, 3D-models/, …); there is no such folder.")
    reference = read_nvm_cameras(root / model)
    asked = read_list(root / LISTS[split], numbers=16 if split == "val" else 0, what=MATRIX)
    queries = _side(root, asked, camera, poses=matrix_poses(asked) if split == "val" else None)
    database = _side(root, reference, camera, poses=seven_poses(reference, form="nvm", first=1))
    for side in (database, queries):
        if not side.names:
            raise MissingFileError(f"{side.source} must list images of the camera {camera!r}; it lists none. Unpack it again.")
    _set_places(queries, read_locations(root / LOCATIONS))
    if camera == "rear":
        counts = len(queries.names), len(database.names)
        check_sizes(BENCHMARK, split=split, queries=counts[0], database=counts[1], policy=sizes, where=root)
    return [SceneDraft(root.name, split, database, queries)]


def read_locations(folder: str | Path) -> dict[str, int]:
    """The location of each query, by "<condition>/<camera>/<time stamp>", of the lists in a folder; empty where there is none.

    Raises:
        DamagedFileError: a line is no image of the data set.
        InvalidInputError: an image is in two locations.
    """
    found: dict[str, int] = {}
    for path in sorted(Path(folder).glob("queries_location_*.txt")):
        number = re.fullmatch(r"queries_location_(\d{1,6})\.txt", path.name, re.ASCII)
        if not number:
            continue
        listing = read_list(path)
        for row, key in enumerate(_keys(listing)):
            if found.setdefault(key, int(number[1])) != int(number[1]):
                raise InvalidInputError(
                    f"{listing.where(row)}: an image must be in one location; {key} is in location {found[key]} too. Unpack them again."
                )
    return found


def read_intrinsics(path: str | Path) -> tuple[float, float, float, float]:
    """Fx, fy, cx, cy in pixels of a camera's `<camera>_intrinsics.txt`.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it holds anything but those four, each once, focal lengths above 0.
    """
    listing = read_list(path, numbers=1, what="pixels")
    values = dict(zip(listing.names, listing.values[:, 0].tolist(), strict=True))
    if sorted(listing.names) != ["cx", "cy", "fx", "fy"] or min(values["fx"], values["fy"]) <= 0:
        raise DamagedFileError(f"{path} must hold the lines 'fx v', 'fy v', 'cx v', 'cy v', fx and fy above 0; found {values}.")
    return values["fx"], values["fy"], values["cx"], values["cy"]


def read_extrinsics(path: str | Path) -> NDArray[np.float64]:
    """(4, 4) camera -> car of a camera's `<camera>_extrinsics.txt`; known to be imprecise (visuallocalizationbenchmark, issue 31).

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it holds no 4x4 matrix, commas between the numbers.
        InvalidInputError: the matrix is no rigid motion.
    """
    rows = [line.split(",") for line in read_text(path).removeprefix("\ufeff").split("\n") if line.strip()]
    try:
        matrix = np.array([[float(word) for word in row if word.strip()] for row in rows])
    except ValueError as error:
        raise DamagedFileError(f"{path} must hold a 4x4 matrix, commas between the numbers; {error}.") from error
    if matrix.shape != (4, 4):
        raise DamagedFileError(f"{path} must hold a 4x4 matrix, commas between the numbers; found {len(rows)} lines.")
    check_rigid(matrix[None], names=[str(path)])
    return matrix


def positions_of(poses: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The columns xy and heading that poses in the world of RobotCar Seasons (z down) have: xy is (y, x), headings count from x."""
    upright = _UP @ poses
    return {"xy": upright[:, :2, 3].copy(), "heading": ground_heading(upright)}


def _keys(listing: Listing) -> list[str]:
    """What identifies each listed image: "<condition>/<camera>/<time stamp>"."""
    found = [IMAGE.fullmatch(name) for name in listing.names]
    bad = next((row for row, match in enumerate(found) if match is None), None)
    if bad is not None:
        raise DamagedFileError(
            f"{listing.where(bad)}: an image must be called <condition>/<left|rear|right>/<microseconds>.jpg (or .png); found "
            f"{listing.names[bad][:100]!r}."
        )
    return [f"{match['condition']}/{match['camera']}/{match['stamp']}" for match in found if match is not None]


def _side(root: Path, listing: Listing, camera: str, *, poses: NDArray[np.float64] | None) -> Draft:
    """The images of a list that are of the camera."""
    keys = _keys(listing)
    rows = [row for row, key in enumerate(keys) if camera in ("all", key.split("/")[1])]
    keys = [keys[row] for row in rows]
    draft = ListedDraft(root / "images", _files(root / "images", keys), listing.path, places=[listing.where(row) for row in rows])
    if poses is not None:
        check_rigid(poses[rows], names=[f"{key} ({place})" for key, place in zip(keys, draft.places, strict=True)])
        draft.columns |= {"pose": poses[rows], **positions_of(poses[rows])}
    parts = [key.split("/") for key in keys]
    stamps = np.array([int(stamp) for _, _, stamp in parts], dtype=np.int64)
    if (stamps >= STAMPED).any():
        draft.columns["time"] = np.where(stamps >= STAMPED, stamps / 1e6, np.nan)
    draft.columns["sequence"] = [f"{condition}/{owner}" for condition, owner, _ in parts]
    if (root / "intrinsics").is_dir():
        values = {
            owner: read_intrinsics(root / "intrinsics" / f"{owner}_intrinsics.txt") for owner in sorted({owner for _, owner, _ in parts})
        }
        draft.columns["intrinsics"] = np.array([values[owner] for _, owner, _ in parts]).reshape(-1, 4)
    conditions = dict.fromkeys([REFERENCE, *CONDITIONS, *sorted({condition for condition, _, _ in parts})])
    draft.flags = {name: np.array([condition == name for condition, _, _ in parts], dtype=bool) for name in conditions}
    return draft


def _files(images: Path, keys: Sequence[str]) -> list[str]:
    """The name of each image's file: with the suffix that is there, else .jpg."""
    there: Mapping[str, set[str]] = {folder: _names_in(images / folder) for folder in {key.rpartition("/")[0] for key in keys}}
    names = []
    for key in keys:
        folder, _, stem = key.rpartition("/")
        names.append(key + next((suffix for suffix in _SUFFIXES if stem + suffix in there[folder]), ".jpg"))
    return names


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _set_places(queries: Draft, locations: Mapping[str, int]) -> None:
    """Each query's location, where all have one."""
    found = [locations.get(name.rpartition(".")[0], -1) for name in queries.names]
    without = [name for name, location in zip(queries.names, found, strict=True) if location < 0]
    if not without:
        queries.columns["place"] = np.array(found, dtype=np.int64)
    elif locations:
        said = f"{len(without)} of {len(found)} queries of {queries.source} are in no list of {LOCATIONS}, {without[0]} say"
        warnings.warn(f"{said}; no query gets a place.", CovisWarning, stacklevel=4)


def _check_unpacked(drafts: Iterable[SceneDraft]) -> None:
    """A condition whose folder is not there is said as what it is, not as thousands of missing files."""
    for draft in drafts:
        for side in draft.sides:
            folders = sorted({name.rpartition("/")[0] for name in side.names})
            absent = [folder for folder in folders if not (side.root / folder).is_dir()]
            if absent:
                raise MissingFileError(
                    f"{side.root} must hold the images of {', '.join(absent)}, since {side.source} names them; there is no such folder. "
                    "Unpack the conditions' archives there, or pass missing='skip' to leave their images out."
                )
