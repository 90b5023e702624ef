"""The writer of the CMU Seasons' layout: the inverse of `read_cmu_seasons`."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from covis.datasets.cmu_seasons import IMAGE, Camera, read_cameras
from covis.datasets.filing import Files, place_file, refuse_in_place, require_files
from covis.datasets.pose_lists import seven_rows, write_list
from covis.errors import CovisWarning, InvalidInputError
from covis.files import atomic_path, check_absent, read_text, write_text
from covis.geometry import ground_heading
from covis.images import Images, Scene
from covis.rasters import image_size

_SUFFIXES = (".jpg", ".jpeg", ".png")


def write_cmu_seasons(scenes: Sequence[Scene], out: str | Path, *, overwrite: bool = False, files: Files = "copy") -> list[Path]:
    """Write scenes as slices of the CMU Seasons: the inverse of `read_cmu_seasons`, which reads each folder back with the scene's split.

    Pose, intrinsics, time (to the microsecond) and frame come back; xy and heading follow from the pose, sequence (the day) and flags
    (the conditions of the data set) from the time and the slice. An image with a name of the layout keeps it; any other is called by its
    frame (its row, where there is none) and its time (0, where there is none). A scene that is not called `slice<N>` becomes the next free
    slice from 2. Queries of the split "test" leave their poses behind, with a warning. Everything else that images have is lost.

    `intrinsics.txt` takes size and distortion from that of the data the images are from, where it is the same camera; else the size of the
    first image (twice the principal point, where no file is there) and no distortion.

    Args:
        scenes: of the splits "test" and "val", with poses.
        out: the folder of the slices.
        overwrite: replace slices and `intrinsics.txt` that are there.
        files: "copy" the images, "link" to them, or "none": lists alone (to be read with missing="ignore").

    Returns:
        The slices' folders.

    Raises:
        InvalidInputError: images lack poses, are neither JPEG nor PNG, or would share a name; a scene is of another split;
            two scenes are one slice; one camera has two intrinsics.
        MissingFileError: an image is not there.
        OutputExistsError: a slice, or another `intrinsics.txt`, is there and `overwrite` is false.
    """
    out = Path(out)
    for scene in scenes:
        if scene.split not in ("test", "val") or scene.training:
            raise InvalidInputError(f"A slice must have a database and queries of the split 'test' or 'val'; got {scene!r}.")
        for images in (scene.database, *([scene.queries] if scene.split == "val" else [])):
            images.need("pose")
    numbers = _slice_numbers([scene.name for scene in scenes])
    cameras, owners = _cameras([images for scene in scenes for images in (scene.database, scene.queries)])
    named = [_names(images, row) for images, row in zip((i for s in scenes for i in (s.database, s.queries)), owners, strict=True)]
    folders = [check_absent(out / f"slice{number}", overwrite=overwrite) for number in numbers]
    refuse_in_place(scenes, folders)
    table = _checked_cameras(out, _camera_table(cameras), folders=folders, overwrite=overwrite)
    for scene in scenes if files != "none" else ():
        for images in (scene.database, scene.queries):
            require_files(images)  # before a slice is replaced: all of them share the intrinsics that come last
    for scene, number, target, database, queries in zip(scenes, numbers, folders, named[::2], named[1::2], strict=True):
        with atomic_path(target) as folder:
            _write_slice(scene, number, folder, names=(database, queries), files=files)
    if table is not None:
        write_text(out / "intrinsics.txt", table)
    return folders


def _write_slice(scene: Scene, number: int, folder: Path, *, names: tuple[list[str], list[str]], files: Files) -> None:
    for images, side, listed in zip((scene.database, scene.queries), ("database", "query"), names, strict=True):
        (folder / side).mkdir(parents=True)
        for row, name in enumerate(listed):
            place_file(images.path(row), folder / side / name, files)
    (poses,) = scene.database.need("pose")
    write_list(folder / f"ground-truth-database-images-slice{number}.txt", names[0], seven_rows(poses, form="cmu"))
    _say_if_moved(scene.database)
    if scene.split == "test":
        if scene.queries.pose is not None:
            said = f"The poses of the queries of {scene.name!r} are not written, for the benchmark keeps its own; the split 'val' has them."
            warnings.warn(said, CovisWarning, stacklevel=3)
        write_list(folder / f"test-images-slice{number}.txt", names[1])
        return
    (poses,) = scene.queries.need("pose")
    _say_if_moved(scene.queries)
    (folder / "camera-poses").mkdir()
    write_list(folder / "camera-poses" / f"query-images-slice{number}.txt", names[1], seven_rows(poses, form="cmu"))


def _checked_cameras(out: Path, table: str, *, folders: Sequence[Path], overwrite: bool) -> str | None:
    """What `intrinsics.txt` is to hold, None where it holds it; all slices share it, and those that stay must not come under others."""
    path = out / "intrinsics.txt"
    if (read_text(path) if path.is_file() else "") == table:
        return None
    if table:
        check_absent(path, overwrite=overwrite)
    others = [folder for folder in sorted(out.glob("slice*")) if folder not in folders]
    if others or not table:
        stay = others[0] if others else path
        raise InvalidInputError(f"All slices of a folder share intrinsics.txt; {stay} is there, of other cameras. Write to another folder.")
    return table


def _slice_numbers(names: Sequence[str]) -> list[int]:
    """The number of each scene's slice; `slice<N>` keeps its own."""
    kept = [int(found[1]) if (found := re.fullmatch(r"slice(\d{1,4})", name, re.ASCII)) else None for name in names]
    taken = [number for number in kept if number is not None]
    if len(set(taken)) != len(taken):
        raise InvalidInputError(f"Scenes written to one folder must be different slices; got {', '.join(names)}.")
    free = (number for number in itertools.count(2) if number not in taken)
    return [next(free) if number is None else number for number in kept]


def _cameras(sides: Sequence[Images]) -> tuple[dict[int, tuple[Images, int]], list[list[int]]]:
    """For each camera an image of it (side and row), and for each side the camera of each image.

    A name of the layout says the camera; any other image is of the first camera that has its intrinsics, or of a new one.
    """
    owners = [[int(found["camera"]) if (found := _known(name)) else -1 for name in images.names] for images in sides]
    if len({images.intrinsics is None for images in sides if len(images)}) > 1:
        raise InvalidInputError("All images written to one folder must have intrinsics, or none.")
    cameras: dict[int, tuple[Images, int]] = {}
    values: dict[int, tuple[float, ...]] = {}
    for named in (True, False):
        for images, owner in zip(sides, owners, strict=True):
            for row in range(len(images)):
                if (owner[row] >= 0) != named:
                    continue
                mine = () if images.intrinsics is None else tuple(images.intrinsics[row].tolist())
                if not named:
                    owner[row] = next((one for one, theirs in values.items() if theirs == mine), max(values, default=-1) + 1)
                if values.setdefault(owner[row], mine) != mine:
                    raise InvalidInputError(
                        f"A camera must have one set of intrinsics; {images.path(row)} of camera c{owner[row]} has {list(mine)}, another "
                        f"image {list(values[owner[row]])}. Rename the images, or write them apart."
                    )
                cameras.setdefault(owner[row], (images, row))
    return cameras, owners


def _known(name: str) -> re.Match[str] | None:
    return IMAGE.fullmatch(name.rpartition("/")[2])


def _names(images: Images, cameras: Sequence[int]) -> list[str]:
    """The file names in the layout."""
    names: dict[str, str] = {}
    for row, name in enumerate(images.names):
        suffix = images.path(row).suffix
        if suffix.lower() not in _SUFFIXES:
            raise InvalidInputError(f"An image of the CMU Seasons must be a .jpg or .png; got {images.path(row)}. Convert it.")
        number = row if images.frame is None else int(images.frame[row])
        time = 0.0 if images.time is None or np.isnan(images.time[row]) else float(images.time[row])
        if not (0 <= number < 10**9 and 0 <= time < 1e11):
            raise InvalidInputError(
                f"An image's name can hold a frame from 0 to 999999999 and a time from 1970 on; {images.path(row)} has the frame {number} "
                f"and the time {time:g} s."
            )
        found = _known(name)
        written = found[0] if found else f"img_{number:05d}_c{cameras[row]}_{round(time * 1e6)}us{suffix}"
        if written in names:
            raise InvalidInputError(
                f"Images must have different names; {names[written]!r} and {name!r} would both be {written!r}. Rename one."
            )
        names[written] = name
    return list(names)


def _camera_table(cameras: dict[int, tuple[Images, int]]) -> str:
    """The text of `intrinsics.txt`; "" where there are no intrinsics."""
    lines = ["# camera, model, width, height, fx, fy, cx, cy, k1, k2, p1, p2; pixels"]
    for number, (images, row) in sorted(cameras.items()):
        if images.intrinsics is None:
            return ""
        camera = _camera(images, row, number)
        numbers = [*camera.intrinsics, *(camera.distortion or (0.0,) * 4)]
        lines.append(" ".join([f"c{number} OPENCV {camera.width} {camera.height}", *map(repr, numbers)]))
    return "\n".join([*lines, ""]) if cameras else ""


def _camera(images: Images, row: int, number: int) -> Camera:
    """What is known of the camera of an image."""
    (intrinsics,) = images.need("intrinsics")
    values = tuple(intrinsics[row].tolist())
    theirs = images.root / "intrinsics.txt"
    camera = read_cameras(theirs).get(number) if theirs.is_file() and _known(images.names[row]) else None
    if camera is not None and camera.intrinsics == values:
        return camera
    centred = (max(1, round(2 * values[3] + 1)), max(1, round(2 * values[2] + 1)))  # pixel centres are integers
    height, width = image_size(images.path(row)) if images.path(row).is_file() else centred
    return Camera(f"c{number}", width, height, values)


def _say_if_moved(images: Images) -> None:
    """Positions and headings are not written: they follow from the poses."""
    (poses,) = images.need("pose")
    off = images.xy is not None and bool((np.abs(images.xy - poses[:, :2, 3]) > 1e-3).any())
    turned = images.heading is not None and bool((np.abs((images.heading - ground_heading(poses) + 180) % 360 - 180) > 1e-2).any())
    if off or turned:
        said = f"The positions and headings of the images in {images.root} are not those of their poses, which alone are written (z up)."
        warnings.warn(said, CovisWarning, stacklevel=4)
