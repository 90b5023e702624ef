"""Writing OpenSfM projects: the inverse of `covis.datasets.opensfm`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from covis.datasets.filing import Files, check_targets, place_file
from covis.datasets.opensfm import DISTORTION
from covis.datasets.posed import Camera, cameras_to_write, names_to_write, sides_to_write
from covis.files import atomic_path, write_text
from covis.images import Images, Scene

_REFERENCE = re.compile(r"\+proj=aeqd \+lat_0=(\S+) \+lon_0=(\S+) \+datum=WGS84 \+units=m \+no_defs")


def write_opensfm(scenes: Sequence[Scene], out: str | Path, *, overwrite: bool = False, files: Files = "copy") -> list[Path]:
    """Write scenes as OpenSfM projects with one reconstruction each: the inverse of `read_opensfm`.

        <scene>/reconstruction.json
        <scene>/images/{database,queries}/**     `images/**` for a training scene

    Cameras are of the type "brown" without distortion, one for each image size and intrinsics; there are no points. `time` is kept where
    it is known and not 0 (which means unknown there). A reference is written where the `crs` is one that `read_opensfm` gave, at altitude
    0; `xy` and `heading` then come back from the poses. Without one they come back with the option `up="z"` where the world is east,
    north and up. Everything else is left out, with a warning.

    Raises:
        InvalidInputError: images lack poses or intrinsics, a name leads outside, two scenes share a name, or a side is empty.
        MissingFileError: an image is not there (its size is written).
        OutputExistsError: a scene's folder is there and `overwrite` is false.
    """
    out = Path(out)
    check_targets(scenes, out, overwrite=overwrite)
    for scene, sides in zip(scenes, sides_to_write(scenes, layout="opensfm", held=_held(scenes)), strict=True):
        for given in sides.values():
            given.need("pose", "intrinsics")
        names = names_to_write(sides, layout="opensfm", forbidden=r"[\n\r]")
        known, took = cameras_to_write(sides)
        value: dict[str, Any] = {"cameras": {f"camera {key}": _camera_value(camera) for key, camera in enumerate(known)}, "shots": {}}
        for side, given in sides.items():
            value["shots"] |= _shots(given, names[side], took[side])
        reference = _REFERENCE.fullmatch(scene.database.crs or "")
        if reference:
            value["reference_lla"] = {"latitude": float(reference[1]), "longitude": float(reference[2]), "altitude": 0.0}
        with atomic_path(out / scene.name) as folder:
            folder.mkdir(parents=True)
            write_text(folder / "reconstruction.json", json.dumps([value | {"points": {}}], allow_nan=False, ensure_ascii=False, indent=1))
            for side, given in sides.items():
                for row, name in enumerate(names[side]):
                    place_file(given.path(row), folder / "images" / name, files)
    return [out / scene.name for scene in scenes]


def _shots(images: Images, names: Sequence[str], took: Sequence[int]) -> dict[str, Any]:
    from scipy.spatial.transform import Rotation

    poses = np.array(images.need("pose")[0])  # a copy: scipy takes no read-only array
    there = Rotation.from_matrix(poses[:, :3, :3]).inv()
    moved = -there.apply(poses[:, :3, 3])
    shots: dict[str, Any] = {}
    for row, (name, rotation) in enumerate(zip(names, there.as_rotvec().tolist(), strict=True)):
        shots[name] = {"rotation": rotation, "translation": moved[row].tolist(), "camera": f"camera {took[row]}"}
        if images.time is not None and np.isfinite(images.time[row]):
            shots[name]["capture_time"] = float(images.time[row])
    return shots


def _camera_value(camera: Camera) -> dict[str, Any]:
    width, height, values = camera
    fx, fy, cx, cy = values or (0.0,) * 4  # there are some: need() asked
    size = max(width, height)
    value = {"projection_type": "brown", "width": width, "height": height, "focal_x": fx / size, "focal_y": fy / size}
    value |= {"c_x": (cx - (width - 1) / 2) / size, "c_y": (cy - (height - 1) / 2) / size}
    return value | dict.fromkeys(DISTORTION, 0.0)


def _held(scenes: Sequence[Scene]) -> tuple[str, ...]:
    ours = all(_REFERENCE.fullmatch(scene.database.crs or "") for scene in scenes)
    return ("pose", "intrinsics", "time", *(("xy", "heading", "crs") if ours else ()))
