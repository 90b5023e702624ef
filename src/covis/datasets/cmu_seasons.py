"""The layout of the Extended CMU Seasons: slices of one route, a database and queries of other seasons in each, with poses.

    <root>/intrinsics.txt                                     "c0 OPENCV w h fx fy cx cy k1 k2 p1 p2", a line a camera; "#" comments
    <root>/slice<N>/database/img_<number>_c<camera>_<microseconds>us.jpg
                    query/img_<number>_c<camera>_<microseconds>us.jpg
                    ground-truth-database-images-slice<N>.txt  "name qw qx qy qz x y z"
                    test-images-slice<N>.txt                   names of the queries that the benchmark asks
                    camera-poses/*.txt                         poses of about half of the queries; some files are empty

The quaternion is the rotation world-to-camera, the last three numbers are the camera's centre (not the translation). The world's z
points up, x and y lie on the ground: the reference poses of slices 6, 7, 8 and 22 show it (`docs/layouts/localisation.md`). That y
is north is not established.

Sattler et al., Benchmarking 6DOF outdoor visual localization in changing conditions, CVPR 2018; facts from the README of the data set.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from covis.datasets.catalogue import Sizes, check_sizes
from covis.datasets.drafts import Draft, Invalid, Missing, SceneDraft
from covis.datasets.pose_lists import SEVEN, STAMPED, ListedDraft, Listing, read_list, seven_poses
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError, MissingFileError
from covis.files import read_text
from covis.geometry import ground_heading
from covis.images import Scene

BENCHMARK = "extended-cmu-seasons"
SLICES = tuple(range(2, 26))
"""The slices of the data set."""

TEST_SLICES = (2, 3, 4, 5, 6, 13, 14, 15, 16, 17, 18, 19, 20, 21)
"""What `slices="test"` stands for: those that the pipelines of HLOC localise."""

CONDITIONS: dict[str, tuple[str, ...]] = {
    "2010-09-01": ("sunny", "foliage"),
    "2010-09-15": ("sunny", "foliage"),
    "2010-10-01": ("cloudy", "foliage"),
    "2010-10-19": ("sunny", "foliage"),
    "2010-10-26": ("overcast", "mixed-foliage"),
    "2010-11-03": ("low-sun", "mixed-foliage"),
    "2010-11-12": ("low-sun", "mixed-foliage"),
    "2010-11-22": ("cloudy", "mixed-foliage"),
    "2010-12-21": ("low-sun", "no-foliage", "snow"),
    "2011-03-04": ("low-sun", "foliage"),
    "2011-04-21": ("sunny", "no-foliage"),
    "2011-07-28": ("overcast", "foliage"),
}
"""Day (UTC, by the names' time stamps) -> condition. The README has 28 October 2010 and 4 April 2011 (the reference) for the images whose
stamps say the 26th and the 21st."""

SCENERY = {"urban": range(2, 9), "suburban": range(9, 18), "park": range(18, 26)}
"""Group of the benchmark's results -> its slices."""

IMAGE = re.compile(
    r"(?:(?:(?P<slice>slice\d+)/)?(?P<side>database|query)/)?"
    r"(?P<name>img_(?P<number>\d{1,9})_c(?P<camera>\d{1,4})_(?P<stamp>\d{1,17})us(?:_rect)?\.(?:jpg|jpeg|png))",
    re.ASCII | re.IGNORECASE,
)
_MODELS = {"OPENCV": 8, "PINHOLE": 4}


@dataclass(frozen=True)
class Camera:
    """A line of `intrinsics.txt`.

    Attributes:
        name: "c0".
        width: pixels.
        height: pixels.
        intrinsics: fx, fy, cx, cy in pixels.
        distortion: k1, k2, p1, p2 of OpenCV's model; empty where the model has none. The images are distorted, and `Images` has no column
            for this: undistort them for anything that needs exact rays.
    """

    name: str
    width: int
    height: int
    intrinsics: tuple[float, ...]
    distortion: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Slice:
    number: int
    folder: Path

    def file(self, kind: str) -> Path:
        return self.folder / f"{kind}-images-slice{self.number}.txt"


def read_cmu_seasons(
    root: str | Path,
    *,
    split: str = "test",
    slices: Literal["test"] | int | Sequence[int] | None = None,
    missing: Missing = "stop",
    invalid: Invalid = "stop",
    sizes: Sizes = "stop",
) -> list[Scene]:
    """Read slices of the Extended CMU Seasons, a scene each, called `slice<N>`.

    The database has pose, xy, heading, time, sequence (the day) and frame; intrinsics where `intrinsics.txt` is there; and, on days and in
    slices of the data set, a flag for each part of the condition (`CONDITIONS`) and for the group of the slice (`SCENERY`).

    Args:
        root: the folder of the slices, or one slice's.
        split: "test": the queries of test-images-slice<N>.txt ask; they have neither pose nor position, for the benchmark keeps those.
            "val": the images ask whose pose camera-poses/ gives, to score at home.
        slices: numbers, or "test" for `TEST_SLICES`; default all that are there. A slice without queries of the split is left out with a
            warning, unless it was asked for by number.
        missing: listed images that have no file: "stop", "skip" or "ignore" (look nothing up).
        invalid: images listed twice on one side: "stop" or "skip" (the first stays).
        sizes: counts other than the benchmark's: "stop", "warn" or "ignore".

    Raises:
        MissingFileError: there is no such folder, slice, list, or no query of that split.
        DamagedFileError: a list or `intrinsics.txt` does not read; the message names file and line.
        InvalidInputError: a policy says stop, the split is neither, or an image's camera is not in `intrinsics.txt`.
    """
    drafts = draft_cmu_seasons(root, split=split, slices=slices, sizes=sizes)
    return [draft.scene(missing=missing, invalid=invalid) for draft in drafts]


def draft_cmu_seasons(
    root: str | Path, *, split: str = "test", slices: Literal["test"] | int | Sequence[int] | None = None, sizes: Sizes = "stop"
) -> list[SceneDraft]:
    """What the files say, for `read_cmu_seasons` and for checks.

    Raises:
        MissingFileError: there is no such folder, slice, list, or no query of that split.
        DamagedFileError: a list or `intrinsics.txt` does not read.
        InvalidInputError: the sizes are not the benchmark's, the split is neither, or a camera is not in `intrinsics.txt`.
    """
    if split not in ("val", "test"):
        raise InvalidInputError(
            f"The split of the CMU Seasons must be 'test' (queries without poses) or 'val' (those of camera-poses/); got {split!r}."
        )
    root = Path(root).absolute()
    drafts, without = [], []
    found = _slices(root, slices)
    for one in found:
        cameras = _cameras(one.folder)
        listings = _query_lists(one, split)
        if not sum(map(len, listings)):
            without.append(one)
            continue
        database = _side(one, [read_list(one.file("ground-truth-database"), numbers=7, what=SEVEN)], "database", cameras)
        draft = SceneDraft(f"slice{one.number}", split, database, _side(one, listings, "query", cameras))
        _check_sizes(split, [draft], part=draft.name, sizes=sizes, where=one.folder)
        drafts.append(draft)
    _say_without(root, split, without, asked=isinstance(slices, (int, Sequence)) and slices != "test", none=not drafts)
    if tuple(one.number for one in found) == SLICES and not without:
        _check_sizes(split, drafts, part="", sizes=sizes, where=root)
    return drafts


def read_cameras(path: str | Path) -> dict[int, Camera]:
    r"""Number -> camera of an `intrinsics.txt`.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: a line is none of a known camera model, a number does not read, or a camera stands twice.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "intrinsics.txt"
    ...     _ = path.write_text("# camera model w h fx fy cx cy k1 k2 p1 p2\nc0 OPENCV 640 480 500 501 320 240 -0.4 0.2 0 0\n")
    ...     camera = read_cameras(path)[0]
    >>> camera.intrinsics, camera.distortion
    ((500.0, 501.0, 320.0, 240.0), (-0.4, 0.2, 0.0, 0.0))
    """
    cameras: dict[int, Camera] = {}
    for number, text in enumerate(read_text(path).removeprefix("\ufeff").split("\n"), start=1):
        words = text.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"{path}, line {number}"
        if not re.fullmatch(r"c\d{1,4}", words[0], re.ASCII) or len(words) < 2 or len(words) != 4 + _MODELS.get(words[1], -9):
            known = ", ".join(f"{model} w h and {count} numbers" for model, count in _MODELS.items())
            raise DamagedFileError(f"{where}: a camera must be c<number> and one of {known}; found {text.strip()[:100]!r}.")
        try:
            width, height, *values = (int(words[2]), int(words[3]), *map(float, words[4:]))
        except ValueError as error:
            raise DamagedFileError(f"{where}: a camera must be given in numbers; {error}.") from error
        if not (np.isfinite(values).all() and min(width, height, *values[:2]) > 0):
            raise DamagedFileError(f"{where}: size and focal lengths must be finite and above 0; found {text.strip()[:100]!r}.")
        if int(words[0][1:]) in cameras:
            raise DamagedFileError(f"{where}: a camera must be given once; {words[0]} stands twice. Remove one.")
        cameras[int(words[0][1:])] = Camera(words[0], int(width), int(height), tuple(values[:4]), tuple(values[4:]))
    return cameras


def _slices(root: Path, asked: Literal["test"] | int | Sequence[int] | None) -> list[_Slice]:
    """The slices to read, in the order of their numbers."""
    if not root.is_dir():
        raise MissingFileError(f"{root} must be a folder of the CMU Seasons (slice2, slice3 …, or one of them); there is no such folder.")
    lists = [path for kind in ("ground-truth-database", "test") for path in root.glob(f"{kind}-images-slice*.txt")]
    single = sorted({int(found[1]) for path in lists if (found := re.fullmatch(r".*-slice(\d{1,4})\.txt", path.name, re.ASCII))})
    if len(single) > 1:
        raise InvalidInputError(f"{root} must be one slice, or hold a folder a slice; it holds lists of slices {single}.")
    folders = [(path, re.fullmatch(r"slice(\d{1,4})", path.name, re.ASCII)) for path in root.iterdir() if path.is_dir()]
    there = {single[0]: root} if single else {int(found[1]): path for path, found in folders if found}
    if not there:
        raise MissingFileError(f"{root} must hold slices of the CMU Seasons (slice2, slice3 …), or be one; found none. Unpack them here.")
    if asked is None:
        wanted = sorted(there)
    elif asked == "test":
        wanted = sorted(there.keys() & set(TEST_SLICES)) or list(TEST_SLICES)
    else:
        numbers = [asked] if isinstance(asked, int) else list(asked) if isinstance(asked, (list, tuple, range)) else []
        if not numbers or not all(isinstance(number, int) for number in numbers):
            raise InvalidInputError(f"slices must be numbers, or 'test'; got {asked!r}.")
        wanted = sorted(set(numbers))
    absent = [number for number in wanted if number not in there]
    if absent:
        raise MissingFileError(f"{root} must hold slice {absent[0]}; found {', '.join(map(str, sorted(there)))}. Unpack it here.")
    return [_Slice(number, there[number]) for number in wanted]


def _cameras(folder: Path) -> dict[int, Camera] | None:
    """The cameras of a slice: beside it, or in it; None where there is no file."""
    path = next((path for path in (folder.parent / "intrinsics.txt", folder / "intrinsics.txt") if path.is_file()), None)
    return None if path is None else read_cameras(path)


def _query_lists(one: _Slice, split: str) -> list[Listing]:
    if split == "val":
        return [read_list(path, numbers=7, what=SEVEN) for path in sorted((one.folder / "camera-poses").glob("*.txt"))]
    return [read_list(one.file("test"))] if one.file("test").is_file() else []


def _side(one: _Slice, listings: Sequence[Listing], side: str, cameras: Mapping[int, Camera] | None) -> Draft:
    """The images of some lists as one side."""
    names, places, numbers, owners, stamps = [], [], [], [], []
    for listing in listings:
        for row, name in enumerate(listing.names):
            found = IMAGE.fullmatch(name)
            if (
                not found
                or (found["side"] or side) != side
                or (found["slice"] or one.folder.name) not in (one.folder.name, f"slice{one.number}")
            ):
                raise DamagedFileError(
                    f"{listing.where(row)}: an image must be called img_<number>_c<camera>_<microseconds>us.jpg, in {side}/ of slice "
                    f"{one.number}; found {name[:100]!r}."
                )
            names.append(f"{one.folder.name}/{side}/{found['name']}")
            places.append(listing.where(row))
            numbers.append(int(found["number"]))
            owners.append(int(found["camera"]))
            stamps.append(int(found["stamp"]))
    draft = ListedDraft(one.folder.parent, names, listings[0].path if len(listings) == 1 else listings[0].path.parent, places=places)
    draft.columns["frame"] = np.array(numbers, dtype=np.int64)
    if listings[0].values.shape[1]:
        draft.columns["pose"] = pose = np.concatenate([seven_poses(listing, form="cmu") for listing in listings])
        draft.columns |= {"xy": pose[:, :2, 3].copy(), "heading": ground_heading(pose)}
    _set_times(draft, np.array(stamps, dtype=np.int64), one.number)
    if cameras is not None:
        lacking = [row for row, camera in enumerate(owners) if camera not in cameras]
        if lacking:
            raise InvalidInputError(
                f"{places[lacking[0]]}: {names[lacking[0]]} is of camera c{owners[lacking[0]]}, which intrinsics.txt does not give; "
                f"it gives {', '.join(camera.name for camera in cameras.values()) or 'none'}."
            )
        draft.columns["intrinsics"] = np.array([cameras[camera].intrinsics for camera in owners]).reshape(-1, 4)
    return draft


def _set_times(draft: Draft, stamps: NDArray[np.int64], number: int) -> None:
    """Time, day and condition, where the names say them."""
    if not (stamps >= STAMPED).any():
        return
    days = [datetime.fromtimestamp(stamp // 10**6, tz=UTC).strftime("%Y-%m-%d") if stamp >= STAMPED else "" for stamp in stamps.tolist()]
    draft.columns["time"] = np.where(stamps >= STAMPED, stamps / 1e6, np.nan)
    draft.columns["sequence"] = days
    if any(day in CONDITIONS for day in days):
        known = dict.fromkeys(word for words in CONDITIONS.values() for word in words)
        draft.flags |= {word: np.array([word in CONDITIONS.get(day, ()) for day in days]) for word in known}
        draft.flags |= {group: np.full(len(days), number in members) for group, members in SCENERY.items()}


def _check_sizes(split: str, drafts: Sequence[SceneDraft], *, part: str, sizes: Sizes, where: Path) -> None:
    queries = sum(len(side.names) for draft in drafts for side in draft.sides[1:])
    database = sum(len(draft.database.names) for draft in drafts)
    check_sizes(BENCHMARK, split=split, queries=queries, database=database, part=part, policy=sizes, where=where)


def _say_without(root: Path, split: str, without: Sequence[_Slice], *, asked: bool, none: bool) -> None:
    """Slices that have no query of the split: an error where they were asked for or nothing is left, else a warning."""
    if not without:
        return
    file = "test-images-slice<N>.txt names none" if split == "test" else "camera-poses/ holds no pose"
    said = f"{root}: {file} in slice {', '.join(str(one.number) for one in without)}, so that there is no query of the split {split!r}"
    if asked or none:
        raise MissingFileError(f"{said}. Unpack it again, or read other slices.")
    warnings.warn(f"{said}; left out.", CovisWarning, stacklevel=4)
