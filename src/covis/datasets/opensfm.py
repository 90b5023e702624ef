"""OpenSfM: reconstruction.json, with shots whose poses are world-to-camera and a reference that says where on earth they lie.

    <root>/reconstruction.json     a list of reconstructions, each in a frame of its own: a scene each
    <root>/images/<shot>           the images; or the files of image_list.txt, by their base name

A shot has `rotation` (axis times angle, radians) and `translation`, world-to-camera. A camera's focal length and principal point are
fractions of the larger of width and height, from the image's middle. `reference_lla` is the origin of the world: x east, y north, z up,
metres, in the plane that touches the earth there. https://opensfm.org/docs/dataset.html, opensfm/io.py
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.datasets.drafts import Draft, Invalid, Missing, SceneDraft
from covis.datasets.posed import check_split, ground_columns, scene_draft, who_asks
from covis.datasets.text_lines import inner_name, lines_of
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError, MissingFileError
from covis.files import read_text
from covis.geometry import invert
from covis.images import Scene

DISTORTION = ("k1", "k2", "k3", "p1", "p2")
"""A camera's coefficients; those that a type lacks are 0."""

_ONE_FOCAL = ("perspective", "fisheye", "dual")
_TWO_FOCALS = ("brown", "radial", "simple_radial", "fisheye_opencv", "fisheye62", "fisheye624")
_BENT = ("fisheye", "dual", "fisheye_opencv", "fisheye62", "fisheye624")
_PANORAMAS = ("spherical", "equirectangular")
_CRS = "+proj=aeqd +lat_0={} +lon_0={} +datum=WGS84 +units=m +no_defs"


def read_opensfm(
    root: str | Path,
    *,
    split: str = "test",
    missing: Missing = "stop",
    invalid: Invalid = "stop",
    images: str | Path | None = None,
    queries: str | Path | None = None,
    up: str | None = None,
) -> list[Scene]:
    """Read OpenSfM's reconstructions, a scene each.

    Columns: `pose`; `intrinsics` in pixels, without distortion (with a warning), unless a camera is spherical; `time` where a shot has
    one; the flag "panorama" where a camera is spherical. Where `reference_lla` is there (and not 0, 0, 0, which stands for none) also
    `xy`, metres east and north of the reference, `heading`, and the `crs`: an azimuthal equidistant frame about the reference, from which
    the tangent plane of the file differs by 1 part in 60,000 for each 100 m of altitude (2 cm at 1 km) and, 10 km away, by 4 mm.

    Args:
        root: the project's folder, or its reconstruction.json.
        split: "val" and "test" are all shots; "train" is the database against itself.
        missing: shots that have no file: "stop", "skip" or "ignore".
        invalid: positions that cannot be used: "stop" or "skip".
        images: the folder of the images; default `images` beside the file, or where image_list.txt says.
        queries: who asks: as for `read_colmap`.
        up: the axis that points up, for a reconstruction without reference: "z", "y" or "-y".

    Raises:
        MissingFileError: there is no such file or folder.
        DamagedFileError: the file is truncated, foreign, or lacks what a shot or camera must have.
        InvalidInputError: a shot's name leads outside, or a policy says stop.
    """
    drafts = draft_opensfm(root, split=split, images=images, queries=queries, up=up)
    return [draft.scene(missing=missing, invalid=invalid) for draft in drafts]


def draft_opensfm(
    root: str | Path,
    *,
    split: str = "test",
    images: str | Path | None = None,
    queries: str | Path | None = None,
    up: str | None = None,
) -> list[SceneDraft]:
    """What the file says, for `read_opensfm` and for checks. Raises what `read_opensfm` raises, but for the policies."""
    check_split(split, "OpenSfM")
    path = Path(root).absolute()
    path = path / "reconstruction.json" if path.is_dir() else path
    listed = _reconstructions(path)
    folder, files = _files(path.parent, images)
    drafts = []
    for place, value in enumerate(listed):
        draft = _Reconstruction(path, f"{path}, reconstruction {place + 1} of {len(listed)}", value).draft(folder, files, up)
        asks = who_asks(draft.names, queries, beside=path.parent, source=path)
        name = path.parent.name if len(listed) == 1 else f"{path.parent.name}-{place}"
        drafts.append(scene_draft(name, split, draft, asks))
    return drafts


@dataclass(frozen=True)
class _Reconstruction:
    path: Path
    where: str
    value: Mapping[str, Any]

    def draft(self, folder: Path, files: Mapping[str, str], up: str | None) -> Draft:
        cameras = self._table(self.value, "cameras")
        shots = self._table(self.value, "shots")
        if not shots:
            raise DamagedFileError(f"{self.where}: there must be a shot; there is none.")
        keys = list(shots)
        draft = Draft(folder, [files.get(key, inner_name(key, self.where)) for key in keys], self.path)
        used = [self._text(shots, key, "camera") for key in keys]
        for key, camera in zip(keys, used, strict=True):
            if camera not in cameras:
                raise DamagedFileError(f"{self.where}, shot {key!r}: its camera {camera!r} must stand among the cameras; it does not.")
        poses = _poses(*(np.array([self._three(shots, key, name) for key in keys]) for name in ("rotation", "translation")))
        draft.columns["pose"] = poses
        reference = self._reference()
        if reference is not None:
            draft.crs = _CRS.format(*reference)
        draft.columns |= ground_columns(poses, "z" if reference is not None and up is None else up)
        times = [self._number(shots[key], "capture_time", f"shot {key!r}", 0.0) for key in keys]
        if any(times):
            draft.columns["time"] = np.array([time or np.nan for time in times])
        self._cameras(draft, cameras, used)
        return draft

    def _cameras(self, draft: Draft, cameras: Mapping[str, Any], used: Sequence[str]) -> None:
        """Fill in the intrinsics and the panoramas; each camera is looked at once."""
        pinholes = {name: self._pinhole(cameras, name) for name in dict.fromkeys(used)}
        panoramas = np.array([pinholes[name] is None for name in used], dtype=np.bool_)
        if panoramas.any():
            draft.flags["panorama"] = panoramas
            if not panoramas.all():
                _say(f"{panoramas.sum()} of {len(used)} shots of {self.path} are panoramas; the images are read without intrinsics.")
            return
        bent = {name for name, pinhole in pinholes.items() if pinhole is not None and pinhole[1]}
        if bent:
            count = sum(name in bent for name in used)
            _say(
                f"{count} of {len(used)} images of {self.path} have a camera with distortion ({', '.join(sorted(bent)[:3])}). Its focal "
                "lengths and principal point are kept, its distortion is dropped: undistort the images where pixels count."
            )
        draft.columns["intrinsics"] = np.array([pinhole[0] for name in used if (pinhole := pinholes[name]) is not None])

    def _pinhole(self, cameras: Mapping[str, Any], name: str) -> tuple[tuple[float, ...], bool] | None:
        """fx, fy, cx, cy in covis' pixels and whether there is distortion; None for a panorama."""
        camera, what = self._table(cameras, name), f"camera {name!r}"
        kind = camera.get("projection_type", "perspective")
        if kind in _PANORAMAS:
            return None
        if kind not in (*_ONE_FOCAL, *_TWO_FOCALS):
            raise DamagedFileError(f"{self.where}, {what}: its projection_type must be one of OpenSfM's; found {kind!r}.")
        width, height = (self._number(camera, side, what) for side in ("width", "height"))
        focals = [self._number(camera, key, what) for key in (("focal_x", "focal_y") if kind in _TWO_FOCALS else ("focal", "focal"))]
        if min(width, height, *focals) <= 0:
            raise DamagedFileError(f"{self.where}, {what}: width, height and focal length must be more than 0; found {dict(camera)}.")
        size = max(width, height)
        middle = [self._number(camera, key, what, 0.0) if kind in _TWO_FOCALS else 0.0 for key in ("c_x", "c_y")]
        values = (
            focals[0] * size,
            focals[1] * size,
            middle[0] * size + (width - 1) / 2,  # OpenSfM's pixels have their centres at integers, as ours
            middle[1] * size + (height - 1) / 2,
        )
        return values, kind in _BENT or any(self._number(camera, key, what, 0.0) for key in DISTORTION)

    def _reference(self) -> tuple[float, float] | None:
        value = self.value.get("reference_lla")
        if value is None:
            return None
        table = self._table(self.value, "reference_lla")
        lla = [self._number(table, key, "reference_lla") for key in ("latitude", "longitude", "altitude")]
        if not any(lla):
            return None
        if not (-80 <= lla[0] <= 84 and -180 <= lla[1] <= 180):
            raise DamagedFileError(f"{self.where}: reference_lla must be latitude in [-80, 84] and longitude in [-180, 180]; found {lla}.")
        return lla[0], lla[1]

    def _table(self, value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        found = value.get(key)
        if not isinstance(found, dict):
            raise DamagedFileError(f"{self.where}: {key!r} must be a JSON object; found {type(found).__name__}. Is it OpenSfM's file?")
        return found

    def _text(self, shots: Mapping[str, Any], key: str, name: str) -> str:
        found = self._table(shots, key).get(name)
        if not isinstance(found, str):
            raise DamagedFileError(f"{self.where}, shot {key!r}: {name!r} must be text; found {found!r}.")
        return found

    def _three(self, shots: Mapping[str, Any], key: str, name: str) -> list[float]:
        found = self._table(shots, key).get(name)
        if not isinstance(found, list) or len(found) != 3 or not all(_is_number(value) for value in found):
            raise DamagedFileError(f"{self.where}, shot {key!r}: {name!r} must be three finite numbers; found {found!r}.")
        return [float(value) for value in found]

    def _number(self, table: Mapping[str, Any], key: str, what: str, default: float | None = None) -> float:
        found = table.get(key, default)
        if found is None and default is not None:
            return default
        if not _is_number(found):
            raise DamagedFileError(f"{self.where}, {what}: {key!r} must be a finite number; found {found!r}.")
        return float(found)


def _is_number(value: Any) -> bool:
    """A finite number that float64 holds; a text of hundreds of digits is none."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _say(text: str) -> None:
    warnings.warn(text, CovisWarning, stacklevel=6)


def _reconstructions(path: Path) -> list[dict[str, Any]]:
    try:
        value = json.loads(read_text(path).removeprefix("\ufeff"), object_pairs_hook=lambda pairs: _once(pairs, path))
    except (ValueError, RecursionError) as error:  # a JSONDecodeError, or a number of too many digits
        raise DamagedFileError(f"{path} must be JSON; it is truncated or of another kind ({error}). Write it again.") from error
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) and "shots" in one for one in value):
        raise DamagedFileError(
            f"{path} must be a JSON list of reconstructions, each with shots; found something else. Is it OpenSfM's file?"
        )
    return value


def _once(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):  # Python's reader would keep the last without a word
        twice = next(key for row, (key, _) in enumerate(pairs) if key in dict(pairs[:row]))
        raise DamagedFileError(f"{path}: a name must stand once in a JSON object; {twice!r} stands again. Keep one.")
    return found


def _files(root: Path, images: str | Path | None) -> tuple[Path, dict[str, str]]:
    """The images' folder, and the file of each shot where image_list.txt says so."""
    if images is not None:
        folder = Path(images).absolute()
        if not folder.is_dir():
            raise MissingFileError(f"images={str(images)!r} must be the folder of the images; there is no such folder.")
        return folder, {}
    listed = root / "image_list.txt"
    if (root / "images").is_dir() or not listed.is_file():
        return root / "images", {}
    files: dict[str, str] = {}
    for line in lines_of(listed, comments=False):
        text = line.text.strip()
        path = Path(text)
        if path.is_absolute():
            if not path.is_relative_to(root):
                raise InvalidInputError(f"{line.where}: an image must lie inside {root}; found {text!r}. Pass its folder with images=.")
            text = path.relative_to(root).as_posix()
        name = inner_name(text, line.where)
        if files.setdefault(Path(name).name, name) != name:
            raise DamagedFileError(f"{line.where}: a base name must stand once, since shots go by it; {Path(name).name!r} stands again.")
    return root, files


def _poses(rotations: NDArray[np.float64], translations: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.spatial.transform import Rotation  # here, because it takes longer to import than most files to read

    there = np.tile(np.eye(4), (len(rotations), 1, 1))
    there[:, :3, :3] = Rotation.from_rotvec(rotations).as_matrix()
    there[:, :3, 3] = translations
    return invert(there)
