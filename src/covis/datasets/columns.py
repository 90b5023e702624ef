"""The columns of a plain table: which is which, and their values as those of `Images`.

Columns are found by name, whatever the case, under these names (the canonical one first):

    name          name filename file_name file image image_name image_path path
    x, y          x xy_0 easting utm_east utm_e · y xy_1 northing utm_north utm_n           metres
    lat, lon      lat latitude · lon lng long longitude                                     degrees (WGS84)
    heading       heading bearing azimuth compass compass_angle                             degrees clockwise from north
    fov, reach    fov hfov · reach                                                          degrees, metres
    time          time timestamp datetime               seconds since 1970 or ISO 8601 text (UTC where it says no zone)
    sequence, frame, place        sequence sequence_id sequence_key · frame frame_number · place place_id
    pose_0 … pose_15              camera-to-world, row by row
    tx ty tz qx qy qz qw          a pose as `pose` says
    fx fy cx cy                   fx intrinsics_0 · fy intrinsics_1 · …                     pixels
    depth segmentation            file names
    flag_<name>                   true or false, yes or no, 1 or 0
    side          query, queries · database, db, map, reference
    split         train (training), val (validation), test (testing), or a name of your own

Every other column is left alone. A table that `Images.write` wrote is a plain table too, and its header gives the frame
and the images' folder.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from covis.datasets.sheets import Sheet
from covis.errors import CovisWarning, InvalidInputError
from covis.geometry import invert
from covis.lookup import suggest

_MATRIX = tuple(f"pose_{number}" for number in range(16))
_QUATERNION = ("tx", "ty", "tz", "qx", "qy", "qz", "qw")
_CAMERA = ("fx", "fy", "cx", "cy")
_TOGETHER = (("x", "y"), ("lat", "lon"), _CAMERA, _MATRIX, _QUATERNION)
_ALIASES = {
    "name": "filename file_name file image image_name image_path path",
    "x": "xy_0 easting utm_east utm_e",
    "y": "xy_1 northing utm_north utm_n",
    "lat": "latitude",
    "lon": "lng long longitude",
    "heading": "bearing azimuth compass compass_angle",
    "fov": "hfov",
    "time": "timestamp datetime",
    "sequence": "sequence_id sequence_key",
    "frame": "frame_number",
    "place": "place_id",
    **{name: f"intrinsics_{number}" for number, name in enumerate(_CAMERA)},
    **dict.fromkeys(("reach", "depth", "segmentation", "side", "split", *_QUATERNION, *_MATRIX), ""),
}
_CANONICAL = {alias: name for name, aliases in _ALIASES.items() for alias in (name, *aliases.split())}
_LATEST = 1e11  # seconds: the year 5138


def find_columns(sheet: Sheet, columns: Mapping[str, str] | None) -> dict[str, str]:
    """Which of a table's columns is which.

    Args:
        sheet: the table.
        columns: canonical name (or an alias) -> the table's column; exactly these are read. None: by their names.

    Returns:
        Canonical name -> the table's column; `flag_<name>` as it stands.

    Raises:
        InvalidInputError: a column is not there, could be two, or lacks its fellows (x without y); or nothing says what the
            images are called or where they are.
    """
    found: dict[str, str] = {}
    wanted = {column: column for column in sheet.frame.columns} if columns is None else columns
    for key, column in ((str(key), str(value)) for key, value in wanted.items()):
        field = key if key.startswith("flag_") else _CANONICAL.get(key.lower())
        if field is None and columns is not None:
            raise InvalidInputError(
                f"The option columns maps covis' names to the table's; {key!r} is none of covis. {suggest(key, _ALIASES)}"
            )
        if column not in sheet.frame.columns:
            raise InvalidInputError(
                f"{sheet.path} must have the column {column!r} (for {key}); it has not. {suggest(column, sheet.frame.columns)}"
            )
        if field is not None and found.setdefault(field, column) != column:
            raise InvalidInputError(
                f"{sheet.path} must have one column for {field}; {found[field]!r} and {column!r} could be it. {_say(field)}"
            )
    for group in _TOGETHER:
        lacking = [field for field in group if field not in found]
        if 0 < len(lacking) < len(group):
            raise InvalidInputError(
                f"{sheet.path} must have all of {', '.join(group)}, or none; nothing gives {', '.join(lacking)}. "
                f"{_say(lacking[0])} Columns: {', '.join(sheet.frame.columns)}."
            )
    _check_found(sheet, found)
    return found


def _check_found(sheet: Sheet, found: Mapping[str, str]) -> None:
    listed = ", ".join(sheet.frame.columns)
    if "name" not in found:
        single = sheet.frame.columns[0] if sheet.frame.width == 1 else ""
        other = next((mark for mark in ";\t|" if mark in single), None)
        hint = f" Is the delimiter {other!r}? Pass delimiter={other!r}." if other else ""
        raise InvalidInputError(f"{sheet.path} must have a column with the images' names. {_say('name')} Columns: {listed}.{hint}")
    if {"x", "lat"} <= found.keys():
        raise InvalidInputError(
            f"{sheet.path} gives positions twice, as {found['x']}, {found['y']} and as {found['lat']}, {found['lon']}. {_say('lat')}"
        )
    if {"pose_0", "tx"} <= found.keys():
        raise InvalidInputError(f"{sheet.path} gives poses twice, as pose_0 … pose_15 and as tx … qw. {_say('pose_0')}")
    if sheet.covis is None and not {"x", "lat", "pose_0", "tx", "place", "frame"} & found.keys():
        raise InvalidInputError(
            f"{sheet.path} must say where its images are: x and y, lat and lon, a pose, a place, or a frame. {_say('lat')} "
            f"Columns: {listed}."
        )


def _say(field: str) -> str:
    return f"Say which is which with the option columns, as columns = {{{field} = '…', …}}."


def values(sheet: Sheet, found: Mapping[str, str], *, time_format: str | None = None) -> dict[str, Any]:
    """`Images`' columns, but for positions and poses; `time_format` says how times are written, where not as usual.

    Raises:
        DamagedFileError: a cell is not what its column must hold.
    """
    values: dict[str, Any] = {field: sheet.texts(found[field]) for field in ("sequence", "depth", "segmentation") if field in found}
    values |= {field: sheet.integers(found[field]) for field in ("frame", "place") if field in found}
    if "heading" in found:
        heading = sheet.numbers(found["heading"], empty=True)
        values["heading"] = np.where(heading == 360, 0.0, heading)
    if "time" in found:
        values["time"] = time = sheet.times(found["time"], written=time_format)
        late = np.flatnonzero(np.abs(time) > _LATEST)
        if late.size:
            said = f"{time[late[0]]:.0f} s since 1970 is thousands of years away; are these milliseconds?"
            warnings.warn(f"{sheet.where(int(late[0]))}: {said}", CovisWarning, stacklevel=4)
    for field, most in (("fov", 360.0), ("reach", np.inf)):
        if field in found:
            values[field] = sheet.numbers(found[field])
            sheet.check(
                found[field], (values[field] > 0) & (values[field] <= most), f"above 0{' and at most 360' if field == 'fov' else ''}"
            )
    camera = block(sheet, found, _CAMERA)
    if camera is not None:
        values["intrinsics"] = camera
        for number in (0, 1):
            sheet.check(found[_CAMERA[number]], camera[:, number] > 0, "a focal length above 0 pixels")
    return values


def block(sheet: Sheet, found: Mapping[str, str], fields: Sequence[str], *, empty: bool = False) -> NDArray[np.float64] | None:
    """(n, fields) numbers, None where the table does not have them; with `empty`, cells may be empty."""
    return np.column_stack([sheet.numbers(found[field], empty=empty) for field in fields]) if fields[0] in found else None


def poses(sheet: Sheet, found: Mapping[str, str], convention: str | None) -> NDArray[np.float64] | None:
    """(n, 4, 4) camera-to-world poses, None where the table has none.

    From R = rotation of (qx, qy, qz, qw) (Hamilton, scalar last) and t = (tx, ty, tz): "c2w" is [R | t], "w2c" its inverse
    [R' | -R' t], and "centre" [R' | t].

    Raises:
        DamagedFileError: a cell is no number, or a quaternion's norm is not 1 within 0.01.
        InvalidInputError: the convention is not said, or does not fit.
    """
    matrix, parts = block(sheet, found, _MATRIX), block(sheet, found, _QUATERNION)
    if matrix is None and parts is None and convention is None:
        return None
    if matrix is not None and convention in (None, "c2w"):
        return matrix.reshape(-1, 4, 4)
    if parts is None or convention is None:
        rule = "fit the table: 'c2w', 'w2c' or 'centre' for tx … qw, nothing (or 'c2w') for pose_0 … pose_15"
        raise InvalidInputError(f"The option pose must {rule}; got {convention!r} for {sheet.path}.")
    norm = np.linalg.norm(parts[:, 3:], axis=1)
    sheet.check(found["qw"], np.abs(norm - 1) <= 0.01, "part of a quaternion of norm 1 (qx, qy, qz, qw)")
    pose = np.tile(np.eye(4), (len(parts), 1, 1))
    if len(parts):
        pose[:, :3, :3] = Rotation.from_quat(parts[:, 3:]).as_matrix()
    pose[:, :3, 3] = parts[:, :3]
    if convention == "w2c":
        return invert(pose)
    if convention == "centre":
        pose[:, :3, :3] = pose[:, :3, :3].transpose(0, 2, 1)
    return pose
