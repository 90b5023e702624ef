"""Writing kaptures: the inverse of `covis.datasets.kapture`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from covis.datasets.camera_models import HALF
from covis.datasets.filing import Files, check_targets, place_file
from covis.datasets.kapture import DATA
from covis.datasets.pose_orders import FORMS, rows_of
from covis.datasets.posed import cameras_to_write, names_to_write, sides_to_write
from covis.errors import CovisWarning
from covis.files import atomic_path, write_text
from covis.images import Images, Scene

_FORM = FORMS["kapture"]


def write_kapture(scenes: Sequence[Scene], out: str | Path, *, overwrite: bool = False, files: Files = "copy") -> list[Path]:
    """Write scenes as kaptures, one folder each: the inverse of `read_kapture`.

        <scene>/{mapping,query}/sensors/{sensors,trajectories,records_camera}.txt, records_data/**     <scene>/sensors/… for training

    A camera of its own for each image size and intrinsics, PINHOLE, or UNKNOWN_CAMERA without intrinsics; no rigs. `frame` becomes the
    timestamp where it is there, not negative and each once in its side; else images are counted, and the frame is lost. Without poses
    there are no trajectories. Everything else is left out, with a warning.

    Raises:
        InvalidInputError: a name has a comma, begins or ends with a blank, or leads outside; two scenes share a name; a side is empty.
        MissingFileError: an image is not there (its size is written).
        OutputExistsError: a scene's folder is there and `overwrite` is false.
    """
    out = Path(out)
    check_targets(scenes, out, overwrite=overwrite)
    for scene, sides in zip(scenes, sides_to_write(scenes, layout="kapture", held=("pose", "intrinsics", "frame")), strict=True):
        names = names_to_write(sides, layout="kapture", forbidden=r",|^\s|\s$|^#", folders=False)
        texts = {side: _texts(images, names[side]) for side, images in sides.items()}
        with atomic_path(out / scene.name) as folder:
            for side, images in sides.items():
                part = folder if len(sides) == 1 else folder / {"database": "mapping", "queries": "query"}[side]
                (part / DATA).mkdir(parents=True)
                for name, text in texts[side].items():
                    write_text(part / "sensors" / name, f"# kapture format: 1.1\n{text}")
                for row, name in enumerate(names[side]):
                    place_file(images.path(row), part / DATA / name, files)
    return [out / scene.name for scene in scenes]


def _texts(images: Images, names: Sequence[str]) -> dict[str, str]:
    """The files of one side, without their first line."""
    known, took = cameras_to_write({"side": images})
    sensors = "# sensor_device_id, name, sensor_type, [sensor_params]+\n"
    for key, (width, height, values) in enumerate(known):
        model, params = "UNKNOWN_CAMERA", ""
        if values is not None:
            model, params = "PINHOLE", "".join(f", {value!r}" for value in (values[0], values[1], values[2] + HALF, values[3] + HALF))
        sensors += f"cam{key}, , camera, {model}, {width}, {height}{params}\n"
    times = _times(images)
    stands = [f"{time}, cam{camera}" for time, camera in zip(times, took["side"], strict=True)]
    records = "".join(f"{stand}, {name}\n" for stand, name in zip(stands, names, strict=True))
    texts = {"sensors.txt": sensors, "records_camera.txt": f"# timestamp, device_id, image_path\n{records}"}
    if images.pose is not None:
        rows = rows_of(images.pose, order=_FORM.order, convention=_FORM.convention).tolist()
        poses = "".join(f"{stand}, {', '.join(map(repr, row))}\n" for stand, row in zip(stands, rows, strict=True))
        texts["trajectories.txt"] = f"# timestamp, device_id, qw, qx, qy, qz, tx, ty, tz\n{poses}"
    return texts


def _times(images: Images) -> list[int]:
    frames = None if images.frame is None else images.frame.tolist()
    if frames is not None and (len(set(frames)) < len(frames) or min(frames) < 0):
        warnings.warn(
            f"The frames of {images.root} cannot be kapture's timestamps, since two are the same or one is negative; images are counted.",
            CovisWarning,
            stacklevel=4,
        )
        frames = None
    return list(range(len(images))) if frames is None else frames
