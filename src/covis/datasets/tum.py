"""TUM RGB-D: sequences of images and a motion capture's poses, each with its own times.

    <sequence>/rgb.txt            timestamp file           relative to the sequence's folder
    <sequence>/groundtruth.txt    timestamp tx ty tz qx qy qz qw     camera-to-world, metres

Timestamps are seconds since 1970; each image gets the pose of the nearest time.
https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from covis.datasets.drafts import EXAMPLES, Draft, Invalid, Missing, SceneDraft
from covis.datasets.filing import Files, check_targets, place_file
from covis.datasets.pose_orders import FORMS, poses_of, rows_of
from covis.datasets.posed import check_split, ground_columns, names_to_write, sequence_drafts, sides_to_write
from covis.datasets.text_lines import Line, inner_name, lines_of, number, numbers
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError, MissingFileError
from covis.files import atomic_path, write_text
from covis.geometry import check_intrinsics
from covis.images import Images, Scene

Depth: TypeAlias = Literal["warn", "ignore"]

_FORM = FORMS["tum"]


def read_tum(
    root: str | Path,
    *,
    split: str = "test",
    missing: Missing = "stop",
    invalid: Invalid = "stop",
    tolerance: float = 0.02,
    database: str | None = None,
    queries: str | None = None,
    intrinsics: Sequence[float] | None = None,
    depth: Depth = "warn",
    up: str | None = None,
) -> list[Scene]:
    """Read TUM RGB-D sequences: a scene each, or two sequences of one world as database and queries.

    Columns: `pose`, `time`, `sequence`; with `intrinsics` and `up` those too. Depth maps are not read: theirs are 5000 a metre, and
    covis' are 1000 a metre.

    Args:
        root: a sequence's folder, or one that holds sequences.
        split: "val" and "test"; with "train" the database against itself.
        missing: images of rgb.txt that have no file: "stop", "skip" or "ignore".
        invalid: images that stand twice: "stop" or "skip".
        tolerance: seconds between an image and its pose; images without one are left out, with a warning.
        database: the sequence's folder that is searched; default `database` where `database` and `queries` are there.
        queries: the sequence's folder that asks. To name two says that their poses are of one world.
        intrinsics: fx, fy, cx, cy in pixels, for all images; the files have none.
        depth: "warn" where a sequence has depth.txt, or "ignore".
        up: the axis that points up in the motion capture's world: "z", "y" or "-y"; default: neither `xy` nor `heading`.

    Raises:
        MissingFileError: there is no such folder, or no sequence in it.
        DamagedFileError: a line does not read.
        InvalidInputError: no image has a pose in time, or a policy says stop.
    """
    drafts = draft_tum(
        root, split=split, tolerance=tolerance, database=database, queries=queries, intrinsics=intrinsics, depth=depth, up=up
    )
    return [draft.scene(missing=missing, invalid=invalid) for draft in drafts]


def draft_tum(
    root: str | Path,
    *,
    split: str = "test",
    tolerance: float = 0.02,
    database: str | None = None,
    queries: str | None = None,
    intrinsics: Sequence[float] | None = None,
    depth: Depth = "warn",
    up: str | None = None,
) -> list[SceneDraft]:
    """What the files say, for `read_tum` and for checks. Raises what `read_tum` raises, but for the policies."""
    check_split(split, "TUM")
    if not tolerance >= 0 or depth not in ("warn", "ignore"):
        raise InvalidInputError(f"tolerance must be 0 seconds or more, and depth 'warn' or 'ignore'; got {tolerance!r} and {depth!r}.")
    camera = None if intrinsics is None else check_intrinsics(intrinsics)
    root = Path(root).absolute()
    if not root.is_dir():
        raise MissingFileError(f"{root} must be a folder with a TUM sequence; there is no such folder.")
    if _is_sequence(root):
        if database is not None or queries is not None:
            raise InvalidInputError(f"{root} is one sequence; to name database and queries, point to the folder that holds the sequences.")
        known, home = [root.name], root.parent
    else:
        known, home = sorted(path.name for path in root.iterdir() if path.is_dir() and _is_sequence(path)), root
    if not known:
        raise MissingFileError(f"{root} must be, or hold, a TUM sequence (rgb.txt and groundtruth.txt); found none. Is this the folder?")
    if database is None and queries is None and known == ["database", "queries"]:
        database, queries = known

    def draft(name: str) -> Draft:
        read = _draft(home / name, tolerance, depth)
        if camera is not None:
            read.columns["intrinsics"] = np.tile(camera, (len(read.names), 1))
        read.columns |= ground_columns(read.columns["pose"], up)
        return read

    return sequence_drafts(root, split, known, asked=(database, queries), draft=draft)


def write_tum(scenes: Sequence[Scene], out: str | Path, *, overwrite: bool = False, files: Files = "copy") -> list[Path]:
    """Write scenes as TUM RGB-D sequences: the inverse of `read_tum`.

        <scene>/{database,queries}/{rgb.txt, groundtruth.txt, rgb/**}     <scene>/rgb.txt … for a training scene

    An image has the timestamp of its pose, to the last bit. Depth and everything else is left out, with a warning.

    Raises:
        InvalidInputError: images lack poses or times, two of a side have one time, a name has a blank or leads outside; two scenes share a
            name.
        MissingFileError: an image is not there.
        OutputExistsError: a scene's folder is there and `overwrite` is false.
    """
    out = Path(out)
    check_targets(scenes, out, overwrite=overwrite)
    for scene, sides in zip(scenes, sides_to_write(scenes, layout="tum", held=("pose", "time")), strict=True):
        names = names_to_write(sides, layout="tum", forbidden=r"\s|^#", folders=False)
        texts = {side: _texts(images, names[side]) for side, images in sides.items()}
        with atomic_path(out / scene.name) as folder:
            for side, images in sides.items():
                sequence = folder if len(sides) == 1 else folder / side
                sequence.mkdir(parents=True, exist_ok=True)
                for name, text in texts[side].items():
                    write_text(sequence / name, text)
                for row, name in enumerate(names[side]):
                    place_file(images.path(row), sequence / "rgb" / name, files)
    return [out / scene.name for scene in scenes]


def _is_sequence(folder: Path) -> bool:
    return (folder / "rgb.txt").is_file() and (folder / "groundtruth.txt").is_file()


def _draft(folder: Path, tolerance: float, depth: Depth) -> Draft:
    times, names, lines = [], [], []
    for line in lines_of(folder / "rgb.txt"):
        time, name = line.words("an image", 2, rest=True)
        times.append(number(time, line, "a timestamp"))
        names.append(inner_name(name, line.where))
        lines.append(line.number)
    moments, poses = _truth(folder / "groundtruth.txt")
    if not times:
        raise DamagedFileError(f"{folder / 'rgb.txt'} must hold an image; it holds none.")
    nearest, apart = _nearest(np.array(times), moments)
    near = apart <= tolerance
    draft = Draft(folder, names, folder / "rgb.txt", {"time": np.array(times), "pose": poses[nearest]}, lines=np.array(lines))
    draft.columns["sequence"] = [folder.name] * len(names)
    if not near.any():
        raise InvalidInputError(
            f"{folder}: no image of rgb.txt has a pose within {tolerance:g} s; the nearest is {apart.min():g} s away. Are both clocks the "
            "same?"
        )
    if not near.all():
        far = [f"{names[row]} ({apart[row]:.3g} s)" for row in np.flatnonzero(~near).tolist()]
        warnings.warn(
            f"{len(far)} of {len(names)} images of {folder / 'rgb.txt'} have no pose within {tolerance:g} s: {', '.join(far[:EXAMPLES])}"
            f"{' …' if len(far) > EXAMPLES else ''}. They are left out.",
            CovisWarning,
            stacklevel=5,
        )
    if depth == "warn" and (folder / "depth.txt").is_file():
        warnings.warn(
            f"{folder} has depth maps of 5000 a metre, and covis' are of 1000 a metre; they are not read (depth='ignore' says nothing).",
            CovisWarning,
            stacklevel=5,
        )
    return draft.select(near)


def _truth(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times in ascending order, and the pose of each."""
    lines = lines_of(path)
    table = np.array([_pose_line(line) for line in lines], dtype=np.float64).reshape(-1, 8)
    if not len(table):
        raise DamagedFileError(f"{path} must hold a pose; it holds none.")
    table = table[np.argsort(table[:, 0], kind="stable")]
    return table[:, 0], poses_of(table[:, 1:], order=_FORM.order, convention=_FORM.convention)


def _pose_line(line: Line) -> list[float]:
    row = numbers(line.words("a pose, timestamp tx ty tz qx qy qz qw,", 8), line, "a pose")
    if not abs(np.linalg.norm(row[4:]) - 1) <= 1e-2:
        raise DamagedFileError(f"{line.where}: a quaternion must have the length 1; qx qy qz qw are {row[4:]}.")
    return row


def _nearest(times: ArrayLike, moments: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each time the row of the nearest moment (of two as near the earlier), and the seconds between.

    >>> _nearest([0.0, 1.4, 9.0], np.array([1.0, 2.0]))[0].tolist()
    [0, 0, 1]
    """
    asked = np.asarray(times, dtype=np.float64)
    after = np.clip(np.searchsorted(moments, asked), 0, len(moments) - 1)
    before = np.maximum(after - 1, 0)
    row = np.where(np.abs(moments[before] - asked) <= np.abs(moments[after] - asked), before, after)
    return row, np.abs(moments[row] - asked)


def _texts(images: Images, names: Sequence[str]) -> dict[str, str]:
    poses, times = images.need("pose", "time")
    if not np.isfinite(times).all():
        raise InvalidInputError(f"Every image of a TUM sequence must have a time; one of {images.root} has none.")
    order = np.argsort(times, kind="stable")
    for first, second in itertools.pairwise(order.tolist()):
        if times[first] == times[second]:
            raise InvalidInputError(
                f"Each image of a TUM sequence must have a time of its own; {names[first]} and {names[second]} of {images.root} share one."
            )
    rows = rows_of(poses, order=_FORM.order, convention=_FORM.convention).tolist()
    stamps = [repr(time) for time in times.tolist()]
    return {
        "rgb.txt": "# timestamp filename\n" + "".join(f"{stamp} rgb/{name}\n" for stamp, name in zip(stamps, names, strict=True)),
        "groundtruth.txt": "# timestamp tx ty tz qx qy qz qw\n"
        + "".join(f"{stamp} {' '.join(map(repr, row))}\n" for stamp, row in zip(stamps, rows, strict=True)),
    }
