r"""COLMAP's model files, cameras and images, as text and as binary, parsed by hand.

    cameras.txt   CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]
    images.txt    IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then a line of 2D points (X Y POINT3D_ID)*, which may be empty
    cameras.bin   uint64 count; each int32 id, int32 model, uint64 width, uint64 height, double params[]
    images.bin    uint64 count; each int32 id, double qw qx qy qz tx ty tz, int32 camera, name\0, uint64 n, n x (double, double, uint64)

Little-endian throughout. https://colmap.github.io/format.html. Points, rigs and frames are not read: an image's line has its whole pose.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from covis.datasets.camera_models import MODELS, ModelCamera
from covis.datasets.text_lines import Line, all_lines, inner_name, lines_of, number, numbers, whole
from covis.errors import DamagedFileError, MissingFileError

_NUMBERS = list(MODELS)
_CAMERA, _IMAGE, _COUNT = struct.Struct("<iiQQ"), struct.Struct("<i7di"), struct.Struct("<Q")
_POINT = 24


@dataclass(frozen=True, eq=False)
class Model:
    """A model's images with their cameras.

    Attributes:
        source: the file of the images.
        names: n names.
        rows: (n, 7) qw qx qy qz tx ty tz, world-to-camera.
        cameras: n cameras.
        lines: (n,) the line of each image; None in a binary file.
    """

    source: Path
    names: list[str]
    rows: NDArray[np.float64]
    cameras: list[ModelCamera]
    lines: NDArray[np.int64] | None


def has_model(folder: Path, suffix: str) -> bool:
    """Whether the folder holds the two files with that suffix (".bin" or ".txt")."""
    return all((folder / f"{stem}{suffix}").is_file() for stem in ("cameras", "images"))


def read_model(folder: Path, suffix: str) -> Model:
    """Read a model's two files with that suffix.

    Raises:
        MissingFileError: one is not there.
        DamagedFileError: one is truncated, foreign, or has a line or record that does not read; the message has its place.
        InvalidInputError: an image's name leads outside the images' folder.
    """
    read_cameras, read_images = (_cameras_binary, _images_binary) if suffix == ".bin" else (_cameras_text, _images_text)
    cameras = read_cameras(folder / f"cameras{suffix}")
    path = folder / f"images{suffix}"
    found = read_images(path)
    rows = np.array([row for _, row, _, _ in found], dtype=np.float64).reshape(-1, 7)
    if not found:
        raise DamagedFileError(f"{path} must hold an image; it holds none. Is it the model that was meant?")
    for name, row, camera, where in found:
        if camera not in cameras:
            raise DamagedFileError(
                f"{where}: the camera {camera} of {name} must stand in cameras{suffix}; it does not. Do the files belong together?"
            )
        if not abs(np.linalg.norm(row[:4]) - 1) <= 1e-2:
            raise DamagedFileError(f"{where}: the quaternion of {name} must have the length 1; qw qx qy qz are {row[:4]}.")
    lines = None if suffix == ".bin" else np.array([int(where.rpartition(" ")[2]) for *_, where in found], dtype=np.int64)
    return Model(path, [name for name, *_ in found], rows, [cameras[camera] for _, _, camera, _ in found], lines)


_Image = tuple[str, list[float], int, str]
"""Name, row, camera's number, where it stands."""


def _cameras_text(path: Path) -> dict[int, ModelCamera]:
    cameras: dict[int, ModelCamera] = {}
    for line in lines_of(path):
        words = line.words("a camera")
        if len(words) < 4:
            raise DamagedFileError(f"{line.where}: a camera must be CAMERA_ID MODEL WIDTH HEIGHT PARAMS; found {line.text[:80]!r}.")
        key = whole(words[0], line, "a camera's id")
        width, height = (whole(word, line, "a camera's width and height") for word in words[2:4])
        _add(
            cameras, key, camera_of(words[1], width, height, numbers(words[4:], line, "a camera's parameter"), where=line.where), line.where
        )
    return cameras


def camera_of(model: str, width: int, height: int, params: Sequence[float], *, where: str) -> ModelCamera:
    """A camera of one of COLMAP's models.

    Raises:
        DamagedFileError: the model is unknown, has another number of parameters, or a size or focal length is not above 0.
    """
    if model not in MODELS:
        raise DamagedFileError(f"{where}: a camera's model must be one of COLMAP's ({', '.join(MODELS)}); found {model!r}.")
    if len(params) != len(MODELS[model].split()):
        raise DamagedFileError(f"{where}: a camera of model {model} must have the parameters {MODELS[model]}; found {len(params)} numbers.")
    camera = ModelCamera(model, width, height, tuple(params))
    if width <= 0 or height <= 0 or not np.isfinite(params).all() or (camera.pinhole is not None and min(camera.pinhole[:2]) <= 0):
        raise DamagedFileError(f"{where}: a camera's size and focal length must be more than 0 pixels; found {width} x {height}, {params}.")
    return camera


def _add(cameras: dict[int, ModelCamera], key: int, camera: ModelCamera, where: str) -> None:
    if key in cameras:
        raise DamagedFileError(f"{where}: a camera's id must stand once; {key} stands again.")
    cameras[key] = camera


def _images_text(path: Path) -> list[_Image]:
    found: list[_Image] = []
    points_next = False
    for line in all_lines(path):
        text = line.text.strip()
        if points_next:  # an empty line counts here: it is that of an image without points
            points_next = False
            _check_points(line)
        elif text and not text.startswith("#"):
            found.append(_image_of(line))
            points_next = True
    return found


def _image_of(line: Line) -> _Image:
    words = line.words("an image's line, IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME,", 10, rest=True)
    whole(words[0], line, "an image's id")
    row = numbers(words[1:8], line, "an image's pose")
    return inner_name(words[9], line.where), row, whole(words[8], line, "an image's camera"), line.where


def _check_points(line: Line) -> None:
    words = line.text.split()
    try:
        if len(words) % 3:
            raise DamagedFileError(f"{line.where}: 2D points come by threes")
        if words:
            number(words[0], line, "a 2D point")
            whole(words[-1], line, "a 3D point's id")
    except DamagedFileError as error:
        raise DamagedFileError(
            f"{line.where}: every second line must hold an image's 2D points, X Y POINT3D_ID each, and may be empty; found "
            f"{line.text[:80]!r}. Is the empty line behind each image gone?"
        ) from error


class _Bytes:
    """A binary file and how far it is read."""

    def __init__(self, path: Path) -> None:
        self.path, self.at = path, 0
        try:
            with path.open("rb") as stream:
                self.data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise MissingFileError(f"{path} must exist; there is no such file.") from None
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise DamagedFileError(f"{path} must be a binary file of COLMAP; it cannot be read ({error}).") from error

    def take(self, form: struct.Struct) -> tuple[float, ...]:
        if self.at + form.size > len(self.data):
            raise self.cut()
        values = form.unpack_from(self.data, self.at)
        self.at += form.size
        return values

    def cut(self) -> DamagedFileError:
        return DamagedFileError(
            f"{self.path}, byte {self.at}: a binary file of COLMAP must hold all that it announces; it ends before, at {len(self.data)}. "
            "It is truncated, or of another kind."
        )

    def name(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise self.cut()
        raw = self.data[self.at : end]
        self.at = end + 1
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DamagedFileError(f"{self.path}, byte {self.at}: an image's name must be UTF-8; {error}.") from error

    def skip(self, size: int) -> None:
        if self.at + size > len(self.data):
            raise self.cut()
        self.at += size

    def close(self) -> None:
        if self.at != len(self.data):
            raise DamagedFileError(f"{self.path}: {len(self.data) - self.at} bytes stand behind the last record. Is it of another kind?")
        self.data.close()


def _cameras_binary(path: Path) -> dict[int, ModelCamera]:
    data = _Bytes(path)
    cameras: dict[int, ModelCamera] = {}
    (count,) = data.take(_COUNT)
    for record in range(int(count)):
        where = f"{path}, camera {record + 1}"
        key, model, width, height = (int(value) for value in data.take(_CAMERA))
        if not 0 <= model < len(_NUMBERS):
            raise DamagedFileError(f"{where}: a camera's model must be one of COLMAP's, 0 to {len(_NUMBERS) - 1}; found {model}.")
        params = data.take(struct.Struct(f"<{len(MODELS[_NUMBERS[model]].split())}d"))
        _add(cameras, key, camera_of(_NUMBERS[model], width, height, params, where=where), where)
    data.close()
    return cameras


def _images_binary(path: Path) -> list[_Image]:
    data = _Bytes(path)
    found: list[_Image] = []
    (count,) = data.take(_COUNT)
    for record in range(int(count)):
        _, *row, camera = data.take(_IMAGE)
        where = f"{path}, image {record + 1}"
        if not np.isfinite(row).all():
            raise DamagedFileError(f"{where}: an image's pose must be finite numbers; found {row}.")
        name = inner_name(data.name(), where)
        (points,) = data.take(_COUNT)
        data.skip(int(points) * _POINT)
        found.append((name, row, int(camera), where))
    data.close()
    return found


def model_bytes(cameras: Mapping[int, ModelCamera], images: Sequence[tuple[str, Sequence[float], int]], suffix: str) -> dict[str, bytes]:
    """The files of a model, by name, in text (".txt") or binary (".bin"): cameras, images (name, row, camera) and no points.

    >>> {name: len(content) for name, content in model_bytes({}, [], ".bin").items()}
    {'cameras.bin': 8, 'images.bin': 8, 'points3D.bin': 8}
    """
    numbered = list(enumerate(images, start=1))
    if suffix == ".bin":
        return {
            "cameras.bin": _COUNT.pack(len(cameras))
            + b"".join(
                _CAMERA.pack(key, _NUMBERS.index(one.model), one.width, one.height) + struct.pack(f"<{len(one.params)}d", *one.params)
                for key, one in cameras.items()
            ),
            "images.bin": _COUNT.pack(len(images))
            + b"".join(_IMAGE.pack(key, *row, camera) + name.encode() + b"\0" + _COUNT.pack(0) for key, (name, row, camera) in numbered),
            "points3D.bin": _COUNT.pack(0),
        }
    shown = [f"{key} {c.model} {c.width} {c.height} {' '.join(map(repr, c.params))}\n" for key, c in cameras.items()]
    posed = [f"{key} {' '.join(repr(float(value)) for value in row)} {camera} {name}\n\n" for key, (name, row, camera) in numbered]
    return {
        "cameras.txt": f"# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]; number of cameras: {len(cameras)}\n{''.join(shown)}".encode(),
        "images.txt": (
            "# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then a line of 2D points (X Y POINT3D_ID)*; number of images: "
            f"{len(images)}\n{''.join(posed)}"
        ).encode(),
        "points3D.txt": b"# POINT3D_ID X Y Z R G B ERROR TRACK[]; number of points: 0\n",
    }
