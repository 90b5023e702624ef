"""Nordland: one railway line in several seasons, frame by frame, in the three arrangements that papers use.

    pnv         <root>/summer/images-00202.png …  <root>/winter/images-00202.png …       Patch-NetVLAD
                <root>/cleanImageNames.txt                        the frames that count, where the folders hold others too
    gmberton    <root>/images/test/{database,queries}/@0@<2.381 n>@@@@@<n>@@@@@@@@.jpg    VPR-datasets-downloader
    vpr-bench   <root>/ref/0000000.jpg …          <root>/query/0000000.jpg …             VPR-Bench, gsv-cities

In the first two winter asks summer, 27,592 frames each. In the third summer asks winter, and query i is frame 10 i: 2,760
queries. A number under one of them says nothing under another; each has its protocol, `nordland/<arrangement>`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.datasets.catalogue import Sizes, check_sizes
from covis.datasets.drafts import Draft, Invalid, Missing, SceneDraft
from covis.datasets.filing import Files, check_targets
from covis.datasets.picture_folders import (
    LARGEST,
    check_apart,
    check_writable,
    check_written,
    data_folder,
    first_picture,
    frames_of,
    in_order,
    is_side,
    pictures,
    read_names_list,
    write_pictures,
)
from covis.datasets.utm_names import draft_utm
from covis.errors import InvalidInputError, MissingFileError
from covis.files import atomic_path
from covis.images import Images, Scene

Arrangement: TypeAlias = Literal["pnv", "gmberton", "vpr-bench"]
ARRANGEMENTS: dict[str, tuple[str, str]] = {
    "pnv": ("summer", "winter"),
    "gmberton": ("database", "queries"),
    "vpr-bench": ("ref", "query"),
}
"""Name -> folder of the database, folder of the queries."""
SPACING = 25 / 10.5
"""Metres between two frames in the arrangement gmberton, so that 10 frames are within 25 m and 11 are not."""
STEP = 10
"""Frames between two queries of the arrangement vpr-bench."""
CLEAN = "cleanImageNames.txt"
WHAT = "Nordland"

_LIKE = {"pnv": r"images-\d{5}\.", "gmberton": "@0@", "vpr-bench": r"\d{7}\."}
"""How the names of each arrangement begin."""
_TOLERANCE = 0.06
"""Metres: positions are printed to 0.1."""


def read_nordland(
    root: str | Path,
    *,
    split: str = "test",
    missing: Missing = "stop",
    invalid: Invalid = "stop",
    sizes: Sizes = "stop",
    arrangement: Arrangement | Literal["auto"] = "auto",
    database: str = "",
    queries: str = "",
    names: str | Path = "",
) -> list[Scene]:
    """Read Nordland as one scene with `frame` numbers, called as its folder.

    Frames count from 0. pnv: the place among the names of both seasons, in order, as the ground truth there counts frames
    (the numbers in the names have gaps). gmberton: the field behind the position, which must agree with it; `xy` is kept, so that
    radius/25 gives the same as nordland/gmberton. vpr-bench: the number in the name, of queries ten times that.

    Args:
        root: the data set's folder.
        split: "test"; papers that learn from Nordland each cut it in their own way.
        missing: listed images that have no file: "stop", "skip" (leave out and say so) or "ignore" (look nothing up).
        invalid: as in the other readers.
        sizes: other than 27,592 against 27,592 (2,760 queries in vpr-bench): "stop", "warn" or "ignore".
        arrangement: "pnv", "gmberton", "vpr-bench", or "auto": by the folders that are there.
        database: the folder of the database; pnv: the season, default "summer" (spring and fall are used too).
        queries: the folder of the queries; pnv: default "winter".
        names: pnv: a list of the frames that count, relative to `root`; default `cleanImageNames.txt` where that is there. Of its
            paths the last part counts.

    Returns:
        One scene.

    Raises:
        MissingFileError: there is no such folder or list, or no image in it.
        InvalidInputError: a name says no frame, two images are the same frame, most frames of pnv stand in one season alone, one
            folder is both sides, or a policy says stop.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("ref/0000009.jpg", "ref/0000010.jpg", "query/0000001.jpg"):
    ...         (Path(folder) / name).parent.mkdir(exist_ok=True)
    ...         (Path(folder) / name).touch()
    ...     (scene,) = read_nordland(folder, sizes="ignore")
    >>> scene.database.frame.tolist(), scene.queries.frame.tolist()
    ([9, 10], [10])
    """
    drafts = draft_nordland(root, split=split, sizes=sizes, arrangement=arrangement, database=database, queries=queries, names=names)
    return [draft.scene(missing=missing, invalid=invalid) for draft in drafts]


def draft_nordland(
    root: str | Path,
    *,
    split: str = "test",
    sizes: Sizes = "stop",
    arrangement: Arrangement | Literal["auto"] = "auto",
    database: str = "",
    queries: str = "",
    names: str | Path = "",
) -> list[SceneDraft]:
    """What the folders say, for `read_nordland` and for checks.

    Raises:
        CovisError: as `read_nordland`.
    """
    if split != "test":
        raise InvalidInputError(f"{WHAT} has the split 'test' alone; got {split!r}.")
    root = data_folder(root, "a folder of Nordland's images")
    chosen = arrangement if arrangement != "auto" else _arrangement(root, (database, queries))
    if chosen not in ARRANGEMENTS:
        raise InvalidInputError(f"The arrangement of Nordland must be auto, {', '.join(ARRANGEMENTS)}; got {arrangement!r}.")
    if names and chosen != "pnv":
        raise InvalidInputError(f"A list of the frames that count goes with the arrangement pnv; {root} is {chosen}.")
    sides = (database or ARRANGEMENTS[chosen][0], queries or ARRANGEMENTS[chosen][1])
    check_apart(root, *sides)
    if chosen == "gmberton":
        (scene,) = draft_utm(root, split=split, database=sides[0], queries=sides[1])
        if scene.queries is None:
            raise MissingFileError(f"{root} must hold the folders {sides[0]!r} and {sides[1]!r} of Nordland; one is missing.")
        for side in scene.sides:
            side.columns["frame"] = _frames_on_a_line(side)
    else:
        found = _by_season(root, sides, names) if chosen == "pnv" else _numbered(root, sides)
        scene = SceneDraft(root.name, split, *found)
    here, there = scene.sides[1], scene.sides[0]
    check_sizes("nordland", split=split, part=chosen, queries=len(here.names), database=len(there.names), policy=sizes, where=root)
    return [scene]


def write_nordland(
    scenes: Sequence[Scene],
    out: str | Path,
    *,
    overwrite: bool = False,
    files: Files = "copy",
    arrangement: Arrangement = "pnv",
    database: str = "",
    queries: str = "",
) -> list[Path]:
    """Write scenes in an arrangement of Nordland, a folder each: the inverse of `read_nordland`.

    An image without a `frame` gets its row. Frames alone are kept, with a warning where the images have more, and names are made
    from them. In pnv the frames of both sides together must run from 0 without a gap, since the place is all it says; in
    vpr-bench those of the queries must be multiples of 10.

    Args:
        scenes: test scenes with two sides, of different names.
        out: the folder for the scenes' folders.
        overwrite: replace a scene's folder that is there.
        files: "copy" the images, "link" to them, or "none": lists beside the folders (to be read with missing="ignore").
        arrangement: "pnv", "gmberton" or "vpr-bench".
        database: the folder of the database; default that of the arrangement.
        queries: the folder of the queries.

    Returns:
        The scenes' folders; `read_nordland(folder, sizes="ignore")` gives the scene.

    Raises:
        InvalidInputError: a scene has one side, its frames are not as the arrangement needs them, or an image is neither JPEG nor
            PNG.
        MissingFileError: an image is not there.
        OutputExistsError: a scene's folder is there and `overwrite` is false.
    """
    if arrangement not in ARRANGEMENTS:
        raise InvalidInputError(f"The arrangement of Nordland must be one of {', '.join(ARRANGEMENTS)}; got {arrangement!r}.")
    check_writable(scenes, what=WHAT)
    sides = (database or ARRANGEMENTS[arrangement][0], queries or ARRANGEMENTS[arrangement][1])
    check_written(*sides)
    folders = check_targets(scenes, out, overwrite=overwrite)
    stems = [_stems(scene.name, (scene.database, scene.queries), arrangement) for scene in scenes]
    for scene, target, names in zip(scenes, folders, stems, strict=True):
        with atomic_path(target) as folder:
            base = folder / "images" / "test" if arrangement == "gmberton" else folder
            for one, side, written in zip((scene.database, scene.queries), sides, names, strict=True):
                write_pictures(base / side, one, written, files)
    return folders


def is_nordland(root: Path) -> bool:
    """Whether a folder is plainly Nordland: its list of clean frames, or one of the arrangements with the names that it has there.

    pnv: images-00202. gmberton: "nordland" in the folder's name, names that begin with @0@. vpr-bench: a folder called nordland…,
    seven digits.
    """
    if (root / CLEAN).is_file():
        return True
    called = root.absolute().name.lower()
    arrangement, place = _fitting(root, ("", "")) or ("", root)
    first = [first_picture(place / side) for side in ARRANGEMENTS.get(arrangement, ())]
    fits = bool(first) and all(path is not None and re.match(_LIKE[arrangement], path.name, re.ASCII) for path in first)
    return fits and {"pnv": True, "gmberton": "nordland" in called, "vpr-bench": called.startswith("nordland")}[arrangement]


def _fitting(root: Path, sides: tuple[str, str]) -> tuple[str, Path] | None:
    """The arrangement that a folder has, by the folders in it, and the folder where those lie."""
    for name, usual in ARRANGEMENTS.items():
        places = (root, root / "images" / "test", root / "test") if name == "gmberton" else (root,)
        wanted = [said or folder for said, folder in zip(sides, usual, strict=True)]
        for place in places:
            if all(is_side(place / folder) for folder in wanted):
                return name, place
    return None


def _arrangement(root: Path, sides: tuple[str, str]) -> str:
    found = _fitting(root, sides)
    if found is not None:
        return found[0]
    raise MissingFileError(
        f"{root} must hold Nordland: the folders summer and winter (pnv), ref and query (vpr-bench), or database and queries (gmberton); "
        f"found {', '.join(sorted(path.name for path in root.iterdir() if path.is_dir())[:6]) or 'no folder'}. Say database and queries "
        "where the seasons are others, or point to the data set's folder."
    )


def _by_season(root: Path, sides: tuple[str, str], names: str | Path) -> list[Draft]:
    """Database and queries: the frame is the place among the names of both."""
    clean = root / (names or CLEAN)
    only = None
    if names or clean.is_file():
        only = [PurePosixPath(name).name for name in read_names_list(clean)[0]]
        if len(set(only)) < len(only):
            raise InvalidInputError(f"{clean} must list each frame once; {len(only) - len(set(only))} stand again in another folder.")
    found = [pictures(root, side, layout=WHAT, only=only) for side in sides]
    here, there = (set(side.stems()) for side in found)
    if 2 * len(here & there) < len(here | there):
        raise InvalidInputError(
            f"{root}: the same frame must have the same name in both seasons; of {len(here | there):,} names {len(here & there):,} stand "
            f"in {sides[0]} and in {sides[1]}. Are these the seasons of one ride? Say which names count (names), or number the files alike."
        )
    place = {stem: frame for frame, stem in enumerate(sorted({stem for side in found for stem in side.stems()}, key=in_order))}
    return [side.draft([place[stem] for stem in side.stems()]) for side in found]


def _numbered(root: Path, sides: tuple[str, str]) -> list[Draft]:
    """Database and queries: the frame is the number in the name, of queries ten times that."""
    drafts = []
    for side, step in zip(sides, (1, STEP), strict=True):
        found = pictures(root, side, layout=WHAT)
        numbers = found.numbers()
        if numbers is None:
            raise InvalidInputError(
                f"{found.source}: in the arrangement vpr-bench every name must be a number below 2^62; found {found.odd()!r}."
            )
        if max(numbers) * step >= LARGEST:
            raise InvalidInputError(
                f"{found.source}: in the arrangement vpr-bench query i is frame {STEP} i, which must be below 2^62; found {max(numbers)}."
            )
        drafts.append(found.draft([step * number for number in numbers]))
    return drafts


def _frames_on_a_line(side: Draft) -> NDArray[np.int64]:
    """The frame of each UTM name, from its field and held against its position."""
    xy = side.columns["xy"]
    frames: NDArray[np.int64] = np.rint(np.clip(xy[:, 1] / SPACING, -1, 1e9)).astype(np.int64)
    for row, name in enumerate(side.names):
        fields = PurePosixPath(name).name.split("@")
        said = int(fields[7]) if len(fields) > 7 and re.fullmatch(r"\d{1,9}", fields[7], re.ASCII) else int(frames[row])
        if xy[row, 0] != 0 or abs(xy[row, 1] - said * SPACING) > _TOLERANCE or said < 0:
            raise InvalidInputError(
                f"{side.where(row)}: a frame of Nordland must lie at (0, {SPACING:.3f} m times its number); {name!r} does not. Is this "
                "Nordland as VPR-datasets-downloader writes it?"
            )
        frames[row] = said
    return frames


def _stems(name: str, images: tuple[Images, Images], arrangement: str) -> list[list[str]]:
    """What the images of each side are called, without their suffix."""
    frames = [frames_of(one, what=WHAT) for one in images]
    if arrangement == "pnv":
        both = sorted({*frames[0], *frames[1]})
        if both != list(range(len(both))):
            raise InvalidInputError(
                f"In the arrangement pnv a frame is its place: those of scene {name!r} must run from 0 without a gap, and do not. Number "
                "them anew, or write vpr-bench or gmberton."
            )
        if 2 * len(set(frames[0]) & set(frames[1])) < len(both):
            raise InvalidInputError(
                f"In the arrangement pnv most frames stand in both seasons; of the {len(both):,} of scene {name!r} fewer than half do. "
                "Write vpr-bench or gmberton."
            )
        return [[f"images-{frame:05d}" for frame in side] for side in frames]
    if arrangement == "gmberton":
        return [[f"@0@{frame * SPACING:07.1f}@@@@@{frame}@@@@@@@@" for frame in side] for side in frames]
    odd = [frame for frame in frames[1] if frame % STEP]
    if odd:
        raise InvalidInputError(f"In the arrangement vpr-bench query i is frame {STEP} i; scene {name!r} has a query of frame {odd[0]}.")
    return [[f"{frame:07d}" for frame in frames[0]], [f"{frame // STEP:07d}" for frame in frames[1]]]
