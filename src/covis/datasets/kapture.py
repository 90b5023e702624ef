"""kapture: sensors, rigs, trajectories and records in comma-separated files, as of its format 1.1.

    <root>/{mapping,query}/sensors/…      two sides: mapping is searched, query asks; or
    <root>/sensors/…                      one kapture
      sensors.txt         id, name, type, [params]: for cameras COLMAP's model, width, height, and the model's parameters
      rigs.txt            rig, sensor, qw, qx, qy, qz, tx, ty, tz           rig to sensor
      trajectories.txt    timestamp, device, qw, qx, qy, qz, tx, ty, tz     world to device (a sensor or a rig)
      records_camera.txt  timestamp, device, image                          relative to records_data/
      records_gnss.txt    timestamp, device, x, y, z, utc, dop              EPSG:4326: longitude, latitude, altitude
      records_data/**     images

https://github.com/naver/kapture, kapture_format.adoc. A timestamp is any whole number (a time or a count): it becomes `frame`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.datasets.camera_models import ModelCamera, intrinsics_of
from covis.datasets.colmap_files import camera_of
from covis.datasets.drafts import EXAMPLES, Draft, Invalid, Missing, SceneDraft
from covis.datasets.pose_orders import FORMS, poses_of
from covis.datasets.posed import check_split, ground_columns
from covis.datasets.text_lines import Line, all_lines, inner_name, lines_of, numbers, whole
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError, MissingFileError
from covis.images import Scene

Gaps: TypeAlias = Literal["stop", "skip", "none"]
Positions: TypeAlias = Literal["none", "gnss"]

VERSIONS = ("1.0", "1.1")

_FORM = FORMS["kapture"]
DATA = "sensors/records_data"
"""Where a kapture's images lie."""
_Poses = dict[tuple[str, str], NDArray[np.float64]]


def read_kapture(
    root: str | Path,
    *,
    split: str = "test",
    missing: Missing = "stop",
    invalid: Invalid = "stop",
    gaps: Gaps = "stop",
    positions: Positions = "none",
    up: str | None = None,
) -> list[Scene]:
    """Read a kapture, or a folder of the kaptures `mapping` and `query`, as one scene.

    Columns: `frame` (the timestamp); `pose`, rigs composed, on a side that has trajectories; `intrinsics`, less 0.5 as for COLMAP and
    without distortion, on a side whose cameras are all known; with `positions` or `up` also `xy`, and `heading` with `up`.

    Args:
        root: the folder that holds `sensors`, or `mapping` and `query`.
        split: "val" and "test": query asks mapping; a single kapture stands on both sides. "train": mapping against itself.
        missing: images that have no file: "stop", "skip" or "ignore".
        invalid: names that stand twice, positions that cannot be used: "stop" or "skip".
        gaps: a side where some images have a pose and others none: "stop", "skip" (those are left out, with a warning) or "none" (the
            side goes without poses). A side without any pose is read without.
        positions: "gnss": positions from records_gnss.txt, the record of the image's timestamp.
        up: the world's axis that points up, "z", "y" or "-y", where the world is metric: `xy` and `heading` from poses.

    Raises:
        MissingFileError: there is no such folder, kapture, or file that must be there.
        DamagedFileError: a file is of another format or version, or a line does not read.
        InvalidInputError: a policy says stop, a name leads outside, or options contradict each other.
    """
    drafts = draft_kapture(root, split=split, gaps=gaps, positions=positions, up=up)
    return [draft.scene(missing=missing, invalid=invalid) for draft in drafts]


def draft_kapture(
    root: str | Path, *, split: str = "test", gaps: Gaps = "stop", positions: Positions = "none", up: str | None = None
) -> list[SceneDraft]:
    """What the files say, for `read_kapture` and for checks. Raises what `read_kapture` raises, but for the policies."""
    check_split(split, "kapture")
    if gaps not in ("stop", "skip", "none") or positions not in ("none", "gnss") or (positions == "gnss" and up is not None):
        raise InvalidInputError(
            f"gaps must be 'stop', 'skip' or 'none', positions 'none' or 'gnss', and up is for poses, not with positions='gnss'; got "
            f"gaps={gaps!r}, positions={positions!r}, up={up!r}."
        )
    root = Path(root).absolute()
    parts = [part for part in (root / "mapping", root / "query") if (part / "sensors").is_dir()]
    if not parts and not (root / "sensors").is_dir():
        raise MissingFileError(f"{root} must be a kapture (a folder with sensors/sensors.txt), or hold mapping and query; found neither.")
    if parts and not (root / "mapping" / "sensors").is_dir():
        raise MissingFileError(
            f"{root} holds the kapture query; it must hold mapping too, which is searched. Or point to {root / 'query'}."
        )
    sides = [_Kapture(part).draft(gaps, positions, up) for part in (parts or [root])]
    return [SceneDraft(root.name, split, sides[0], sides[1] if len(sides) > 1 and split != "train" else None)]


@dataclass(frozen=True)
class _Kapture:
    root: Path

    def path(self, name: str) -> Path:
        return self.root / "sensors" / f"{name}.txt"

    def draft(self, gaps: Gaps, positions: Positions, up: str | None) -> Draft:
        cameras, receivers = self._sensors()
        times, names, devices, lines = self._records(cameras)
        draft = Draft(self.root / DATA, names, self.path("records_camera"), lines=np.array(lines, dtype=np.int64))
        draft.columns["frame"] = np.array([int(time) for time in times], dtype=np.int64)
        intrinsics = intrinsics_of([cameras[device] for device in devices], self.path("sensors"))
        if intrinsics is not None:
            draft.columns["intrinsics"] = intrinsics
        if positions == "gnss":
            draft.degrees = self._degrees(times, receivers)
        found = self._posed(list(zip(times, devices, strict=True)))
        has = np.array([pose is not None for pose in found], dtype=np.bool_)
        if not has.any():
            if up is not None:
                raise InvalidInputError(f"{self.root} must have poses for up={up!r}; it has no trajectory of a camera.")
            return draft
        if not has.all():
            draft, found = _gap(draft, found, has, gaps)
            if not found:
                return draft
        draft.columns["pose"] = poses = np.array(found, dtype=np.float64)
        draft.columns |= ground_columns(poses, up)
        return draft

    def _rows(self, name: str, what: str, count: int, *, more: bool = False) -> list[tuple[Line, list[str]]]:
        rows = []
        for line in lines_of(self.path(name)):
            cells = [cell.strip() for cell in line.text.split(",")]
            if len(cells) < count or (len(cells) > count and not more):
                raise DamagedFileError(
                    f"{line.where}: a line must be {what}, separated by commas; found {len(cells)} fields: {line.text[:80]!r}. Is the line "
                    "cut, or a comma in a name?"
                )
            rows.append((line, cells))
        return rows

    def _sensors(self) -> tuple[dict[str, ModelCamera], dict[str, str]]:
        """The cameras, and the GNSS receivers with their coordinate frame."""
        path = self.path("sensors")
        said = re.fullmatch(r"#\s*kapture format:\s*(\S+)\s*", all_lines(path)[0].text)
        if not said or said[1] not in VERSIONS:
            raise DamagedFileError(
                f"{path}, line 1: the file must begin with '# kapture format: ' and one of {', '.join(VERSIONS)}; found "
                f"{all_lines(path)[0].text[:80]!r}. Convert it with kapture's own tools, or point to a kapture."
            )
        cameras: dict[str, ModelCamera] = {}
        receivers: dict[str, str] = {}
        for line, cells in self._rows("sensors", "sensor_device_id, name, sensor_type, [sensor_params]", 3, more=True):
            if cells[0] in cameras or cells[0] in receivers:
                raise DamagedFileError(f"{line.where}: a sensor's id must stand once; {cells[0]!r} stands again.")
            if cells[2] == "camera":
                cameras[cells[0]] = _camera(line, cells[3:])
            elif cells[2] == "gnss":
                receivers[cells[0]] = cells[3] if len(cells) > 3 and cells[3] else "EPSG:4326"
        return cameras, receivers

    def _records(self, cameras: Mapping[str, ModelCamera]) -> tuple[list[str], list[str], list[str], list[int]]:
        times, names, devices, lines = [], [], [], []
        for line, (time, device, name) in self._rows("records_camera", "timestamp, device_id, image_path", 3):
            if device not in cameras:
                raise DamagedFileError(f"{line.where}: the camera {device!r} must stand in sensors.txt as a camera; it does not.")
            times.append(str(whole(time, line, "a timestamp")))
            names.append(inner_name(name, line.where))
            devices.append(device)
            lines.append(line.number)
        if not names:
            raise DamagedFileError(f"{self.path('records_camera')} must hold an image; it holds none.")
        return times, names, devices, lines

    def _moves(self, name: str, keys: str, *, partial: bool) -> _Poses:
        """The poses of a file by their first two fields; those with empty fields, which kapture allows in trajectories, are none."""
        found: _Poses = {}
        if not self.path(name).is_file():
            return found
        known: list[tuple[tuple[str, str], list[float]]] = []
        seen: set[tuple[str, str]] = set()
        for line, cells in self._rows(name, f"{keys}, qw, qx, qy, qz, tx, ty, tz", 9):
            key = (str(whole(cells[0], line, "a timestamp")) if partial else cells[0], cells[1])
            if key in seen:
                raise DamagedFileError(f"{line.where}: {keys} must stand once; {', '.join(key)} stands again.")
            seen.add(key)
            if partial and "" in cells[2:]:
                continue
            row = numbers(cells[2:], line, "a pose")
            if not abs(np.linalg.norm(row[:4]) - 1) <= 1e-2:
                raise DamagedFileError(f"{line.where}: a quaternion must have the length 1; qw qx qy qz are {row[:4]}.")
            known.append((key, row))
        poses = poses_of([row for _, row in known], order=_FORM.order, convention=_FORM.convention)
        return {key: pose for (key, _), pose in zip(known, poses, strict=True)}

    def _posed(self, records: Sequence[tuple[str, str]]) -> list[NDArray[np.float64] | None]:
        """For each (timestamp, camera) its pose: its own, or that of a rig that carries it (rigs may carry rigs)."""
        moves = self._moves("trajectories", "timestamp, device_id", partial=True)
        mounts: dict[str, list[tuple[str, NDArray[np.float64]]]] = {}
        for (rig, sensor), mount in self._moves("rigs", "rig_device_id, sensor_device_id", partial=False).items():
            mounts.setdefault(sensor, []).append((rig, mount))

        def pose_of(time: str, device: str, below: tuple[str, ...]) -> NDArray[np.float64] | None:
            if (time, device) in moves:
                return moves[time, device]
            if device in below:
                raise DamagedFileError(f"{self.path('rigs')}: no rig may carry itself; {' carries '.join((*below, device)[::-1])}.")
            for rig, mount in mounts.get(device, []):
                carried = pose_of(time, rig, (*below, device))
                if carried is not None:
                    return np.asarray(carried @ mount)
            return None

        return [pose_of(time, device, ()) for time, device in records]

    def _degrees(self, times: Sequence[str], receivers: Mapping[str, str]) -> NDArray[np.float64]:
        """(n, 2) latitude and longitude of the record of each timestamp; NaN where there is none."""
        at: dict[str, tuple[float, float]] = {}
        for line, cells in self._rows("records_gnss", "timestamp, device_id, x, y, z, utc, dop", 7):
            if receivers.get(cells[1]) != "EPSG:4326":
                raise DamagedFileError(
                    f"{line.where}: the receiver {cells[1]!r} must stand in sensors.txt as gnss with EPSG:4326, to be read; found "
                    f"{receivers.get(cells[1])!r}."
                )
            time = str(whole(cells[0], line, "a timestamp"))
            longitude, latitude = numbers(cells[2:4], line, "a position")
            if at.setdefault(time, (latitude, longitude)) != (latitude, longitude):
                raise DamagedFileError(f"{line.where}: one timestamp must have one position; {time} has another before.")
        return np.array([at.get(time, (np.nan, np.nan)) for time in times], dtype=np.float64)


def _camera(line: Line, cells: Sequence[str]) -> ModelCamera:
    if len(cells) < 3:
        raise DamagedFileError(f"{line.where}: a camera must have a model, width and height; found {', '.join(cells)!r}.")
    width, height = (int(value) for value in numbers(cells[1:3], line, "a camera's width and height"))
    params = numbers(cells[3:], line, "a camera's parameter")
    if cells[0] == "UNKNOWN_CAMERA":
        return ModelCamera(cells[0], width, height, tuple(params))
    return camera_of(cells[0], width, height, params, where=line.where)


def _gap(
    draft: Draft, found: list[NDArray[np.float64] | None], has: NDArray[np.bool_], gaps: Gaps
) -> tuple[Draft, list[NDArray[np.float64] | None]]:
    without = [draft.names[row] for row in np.flatnonzero(~has).tolist()]
    some = f"{', '.join(without[:EXAMPLES])}{' …' if len(without) > EXAMPLES else ''}"
    text = f"{len(without)} of {len(has)} images of {draft.source} have no pose in trajectories.txt: {some}."
    if gaps == "stop":
        raise InvalidInputError(f"{text} Pass gaps='skip' to leave them out, or gaps='none' to read that side without poses.")
    if gaps == "none":
        warnings.warn(f"{text} All are read without.", CovisWarning, stacklevel=4)
        return draft, []
    warnings.warn(f"{text} They are left out.", CovisWarning, stacklevel=4)
    return draft.select(has), [pose for pose in found if pose is not None]
