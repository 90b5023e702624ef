"""The writer of RobotCar Seasons' layout: the inverse of `read_robotcar_seasons`."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from covis.datasets.filing import Files, check_targets, place_file
from covis.datasets.pose_lists import STAMPED, write_list, write_nvm
from covis.datasets.robotcar import CONDITIONS, IMAGE, LISTS, LOCATIONS, NVM, REFERENCE, positions_of
from covis.errors import CovisWarning, InvalidInputError
from covis.files import atomic_path, write_text
from covis.images import Images, Scene

UNKNOWN = "unknown"
"""The condition of a query whose flags say none."""

_SUFFIXES = (".jpg", ".jpeg", ".png")


def write_robotcar_seasons(scenes: Sequence[Scene], out: str | Path, *, overwrite: bool = False, files: Files = "copy") -> list[Path]:
    """Write scenes in the layout of RobotCar Seasons, a folder each: the inverse of `read_robotcar_seasons`.

    Pose, intrinsics, time (to the microsecond), the queries' place and condition come back; xy and heading follow from the pose as in that
    data set (z down), with a warning where the images' own differ. An image with a name of the layout keeps condition, camera and time
    stamp. Any other is of the rear camera; its stamp is its time, or its frame (its row, where there is none), which reads back as no time;
    the database is `overcast-reference`, and a query's condition is its one true flag among `CONDITIONS` ("night-rain" before "night" and
    "rain"), else its one true flag, else "unknown". Queries of the split "test" leave their poses behind, with a warning. Everything else
    that images have is lost; without its file (`files="none"`) an image reads back as a .jpg.

    Args:
        scenes: of the splits "test" and "val", with poses, with different names.
        out: the folder for the scenes' folders.
        overwrite: replace a scene's folder that is there.
        files: "copy" the images, "link" to them, or "none": lists alone (to be read with missing="ignore").

    Returns:
        The scenes' folders; camera="all" reads back what is not of the rear camera.

    Raises:
        InvalidInputError: images lack poses, are neither JPEG nor PNG, have two conditions, or would share a name; a camera has two
            intrinsics; a scene is of another split, or two share a name.
        MissingFileError: an image is not there.
        OutputExistsError: a scene's folder is there and `overwrite` is false.
    """
    out = Path(out)
    if len({scene.name for scene in scenes}) != len(scenes):
        raise InvalidInputError("Scenes written to one folder must have different names.")
    check_targets(scenes, out, overwrite=overwrite)
    for scene in scenes:
        if scene.split not in LISTS or scene.training:
            raise InvalidInputError(
                f"A scene of RobotCar Seasons must have a database and queries of the split 'test' or 'val'; got {scene!r}."
            )
        names = _names(scene.database, database=True), _names(scene.queries, database=False)
        cameras = _intrinsics(scene, names)
        with atomic_path(out / scene.name) as folder:
            for images, listed in zip((scene.database, scene.queries), names, strict=True):
                for row, name in enumerate(listed):
                    place_file(images.path(row), folder / "images" / name, files)
            _write_lists(scene, folder, names=names, cameras=cameras)
    return [out / scene.name for scene in scenes]


def _write_lists(scene: Scene, folder: Path, *, names: tuple[list[str], list[str]], cameras: Mapping[str, tuple[float, ...]]) -> None:
    (poses,) = scene.database.need("pose")
    _say_if_moved(scene.database)
    focals = [cameras[name.split("/")[1]][0] if cameras else 1.0 for name in names[0]]
    (folder / NVM).parent.mkdir(parents=True)
    write_nvm(folder / NVM, [f"./{name}" for name in names[0]], focals=focals, poses=poses)
    if cameras:
        (folder / "intrinsics").mkdir()
    for camera, values in cameras.items():
        lines = [f"{key} {value!r}\n" for key, value in zip(("fx", "fy", "cx", "cy"), values, strict=True)]
        write_text(folder / "intrinsics" / f"{camera}_intrinsics.txt", "".join(lines))
    if scene.queries.place is not None:
        (folder / LOCATIONS).mkdir(parents=True)
        for place in np.unique(scene.queries.place).tolist():
            listed = [name for name, its in zip(names[1], scene.queries.place.tolist(), strict=True) if its == place]
            write_list(folder / LOCATIONS / f"queries_location_{place:03d}.txt", listed)
    if scene.split == "test":
        if scene.queries.pose is not None:
            said = f"The poses of the queries of {scene.name!r} are not written, for the benchmark keeps its own; the split 'val' has them."
            warnings.warn(said, CovisWarning, stacklevel=3)
        write_list(folder / LISTS["test"], names[1])
    else:
        (asked,) = scene.queries.need("pose")
        _say_if_moved(scene.queries)
        write_list(folder / LISTS["val"], names[1], asked.reshape(-1, 16))


def _names(images: Images, *, database: bool) -> list[str]:
    """The names in the layout, relative to images/."""
    if not database and images.place is not None and ((images.place < 0) | (images.place >= 10**6)).any():
        raise InvalidInputError(
            f"A location must be a number from 0 to 999999; the images in {images.root} have others. Number the places."
        )
    names: dict[str, str] = {}
    for row, name in enumerate(images.names):
        suffix = images.path(row).suffix
        if suffix.lower() not in _SUFFIXES:
            raise InvalidInputError(f"An image of RobotCar Seasons must be a .jpg or .png; got {images.path(row)}. Convert it.")
        known = IMAGE.fullmatch(name)
        if known and (known["condition"] == REFERENCE) == database:
            stem = f"{known['condition']}/{known['camera']}/{known['stamp']}"
        else:
            stem = f"{REFERENCE if database else _condition(images, row)}/rear/{_stamp(images, row)}"
        if stem in names:
            raise InvalidInputError(f"Images must have different names; {names[stem]!r} and {name!r} would both be {stem!r}. Rename one.")
        names[stem] = name
    return [stem + images.path(row).suffix.lower() for row, stem in enumerate(names)]


def _stamp(images: Images, row: int) -> int:
    """An image's time in microseconds, or a number too small to be one."""
    time = np.nan if images.time is None else float(images.time[row])
    if STAMPED <= time * 1e6 < 1e17:
        return round(time * 1e6)
    number = row if images.frame is None else int(images.frame[row])
    if not (np.isnan(time) and 0 <= number < STAMPED):
        raise InvalidInputError(
            f"An image's name can hold a time from 12 January 1970 on, or where the time is unknown a frame from 0 on; {images.path(row)} "
            f"has the time {time:g} s and the frame {number}."
        )
    return number


def _condition(images: Images, row: int) -> str:
    """A query's condition, by its flags."""
    true = [name for name, flag in images.flags.items() if flag[row] and name != REFERENCE]
    known = [name for name in CONDITIONS if name in true]
    if "night-rain" in known:
        known = ["night-rain"]
    if len(known) > 1:
        raise InvalidInputError(f"A query must have one condition; {images.path(row)} has {', '.join(known)}. Leave one flag.")
    chosen = known or (true if len(true) == 1 and re.fullmatch(r"[A-Za-z0-9_-]+", true[0], re.ASCII) else [])
    return chosen[0] if chosen else UNKNOWN


def _intrinsics(scene: Scene, names: tuple[list[str], list[str]]) -> dict[str, tuple[float, ...]]:
    """The intrinsics of each camera; empty where there are none."""
    cameras: dict[str, tuple[float, ...]] = {}
    for images, listed in zip((scene.database, scene.queries), names, strict=True):
        for row, name in enumerate(listed):
            values = () if images.intrinsics is None else tuple(images.intrinsics[row].tolist())
            camera = name.split("/")[1]
            if cameras.setdefault(camera, values) != values:
                raise InvalidInputError(
                    f"A camera must have one set of intrinsics; {images.path(row)} has {list(values)}, another image of that camera "
                    f"({camera}) {list(cameras[camera])}. Write them apart."
                )
    if () in cameras.values() and any(cameras.values()):
        raise InvalidInputError(f"All cameras of scene {scene.name!r} must have intrinsics, or none.")
    return {camera: values for camera, values in sorted(cameras.items()) if values}


def _say_if_moved(images: Images) -> None:
    """Positions and headings are not written: they follow from the poses."""
    (poses,) = images.need("pose")
    follow = positions_of(poses)
    off = images.xy is not None and bool((np.abs(images.xy - follow["xy"]) > 1e-3).any())
    turned = images.heading is not None and bool((np.abs((images.heading - follow["heading"] + 180) % 360 - 180) > 1e-2).any())
    if off or turned:
        said = f"The positions and headings of the images in {images.root} are not those of their poses in the world of RobotCar Seasons"
        warnings.warn(f"{said} (z down, xy = (y, x)); the poses alone are written.", CovisWarning, stacklevel=4)
