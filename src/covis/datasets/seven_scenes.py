"""The 7-Scenes layout: RGB-D frames with camera-to-world poses, in sequences, split into train and test.

    <scene>/TrainSplit.txt, TestSplit.txt           a line "sequence<N>" each
    <scene>/seq-<NN>/frame-<NNNNNN>.color.png|.jpg  colour
                     frame-<NNNNNN>.depth.png       16-bit millimetres, 0 and 65535 unknown
                     frame-<NNNNNN>.pose.txt        4x4 camera-to-world, metres
    <scene>/intrinsics.txt                          "fx fy cx cy" in pixels; ours, the benchmark has none

The files of the benchmark hold CRLF, tabs, leading blanks and three-digit exponents. Its intrinsics are the Kinect's
(585, 585, 320, 240) and depth is not registered to colour.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from covis.datasets.filing import Files, check_targets, place_file
from covis.errors import DamagedFileError, InvalidInputError, MissingFileError
from covis.files import atomic_path, read_text, write_text
from covis.images import Images, Scene
from covis.rasters import write_depth, write_image

KINECT = (585.0, 585.0, 320.0, 240.0)
"""fx, fy, cx, cy in pixels, for scenes without `intrinsics.txt`."""

_FRAME = re.compile(r"frame-(\d+)\.(color|depth|pose)\.(png|jpg|jpeg|txt)")


def read_7scenes(root: str | Path, *, split: str = "test", intrinsics: Sequence[float] | None = None) -> list[Scene]:
    """Read RGB-D frames with poses in the 7-Scenes layout: one scene's folder, or a folder of such.

    Args:
        root: a folder that holds `TrainSplit.txt`, or whose subfolders do.
        split: "test": the frames of TestSplit ask, those of TrainSplit are searched. "train": the frames of TrainSplit
            against each other.
        intrinsics: fx, fy, cx, cy in pixels of the depth maps; default `intrinsics.txt` where present, else the
            Kinect's 585, 585, 320, 240.

    Returns:
        The scenes in the order of their names; those without a frame to ask (or to learn from) are left out.

    Raises:
        MissingFileError: there is no such folder, no scene in it, a sequence, an image, a depth map or a pose is missing.
        DamagedFileError: a split, pose or intrinsics file does not read.
        InvalidInputError: a pose is no rigid motion, or `split` is neither.
    """
    if split not in ("train", "test"):
        raise InvalidInputError(f"The split of a 7-Scenes folder must be 'train' or 'test'; got {split!r}.")
    root = Path(root).absolute()
    if not root.is_dir():
        raise MissingFileError(f"{root} must be a folder in the 7-Scenes layout; there is no such folder.")
    folders = [root] if _is_scene(root) else sorted(path for path in root.iterdir() if path.is_dir() and _is_scene(path))
    scenes = [scene for folder in folders if (scene := _read_scene(folder, split, intrinsics)) is not None]
    if not scenes:
        raise MissingFileError(
            f"{root} must hold a 7-Scenes scene with a {split} split (TrainSplit.txt, TestSplit.txt); found none. Is "
            "this the right folder and layout?"
        )
    return scenes


def write_7scenes(scenes: Sequence[Scene], out: str | Path, *, overwrite: bool = False, files: Files = "copy") -> list[Path]:
    """Write scenes in the 7-Scenes layout, one folder each: the inverse of `read_7scenes`.

    Image and depth files are copied as they are, or linked (`files="link"`); "none" is refused, since a frame is its files. A
    sequence that is not called `seq-<NN>`, or whose number is taken, gets the next free number.

    Raises:
        InvalidInputError: images lack poses, are neither PNG nor JPEG, differ in their intrinsics, or would share a file
            name; or two scenes share a name.
        MissingFileError: an image or depth map is not there.
        OutputExistsError: a scene's folder is there and `overwrite` is false.
    """
    if files == "none":
        raise InvalidInputError("A frame of 7-Scenes is its files; files must be 'copy' or 'link'.")
    out = Path(out)
    if len({scene.name for scene in scenes}) != len(scenes):
        raise InvalidInputError("Scenes written to one folder must have different names.")
    written = []
    check_targets(scenes, out, overwrite=overwrite)
    for scene in scenes:
        sides = [scene.database] if scene.training else [scene.database, scene.queries]
        intrinsics = _one_camera(scene.name, sides)
        numbers = _sequence_numbers(sides)
        with atomic_path(out / scene.name) as folder:
            for images, numbered in zip(sides, numbers, strict=True):
                _write_side(images, folder, numbered, files)
            test = numbers[1].values() if len(numbers) > 1 else []
            write_splits(folder, train=list(numbers[0].values()), test=list(test), intrinsics=intrinsics)
        written.append(out / scene.name)
    return written


def write_frame(folder: Path, number: int, *, rgb: NDArray[np.uint8], depth: NDArray[np.float32], pose: ArrayLike) -> None:
    """Write one frame's colour (PNG), depth (metres, 0 unknown) and camera-to-world pose into a sequence's folder."""
    stem = folder / f"frame-{number:06d}"
    write_image(f"{stem}.color.png", rgb)
    write_depth(f"{stem}.depth.png", depth)
    _write_pose(Path(f"{stem}.pose.txt"), np.asarray(pose, dtype=np.float64))


def write_splits(folder: Path, *, train: Sequence[int], test: Sequence[int], intrinsics: ArrayLike) -> None:
    """Write which sequences teach and which ask, and the intrinsics; a scene counts as complete once TrainSplit.txt is there."""
    values = np.asarray(intrinsics, dtype=np.float64)
    write_text(folder / "intrinsics.txt", " ".join(repr(float(value)) for value in values) + "\n")
    write_text(folder / "TestSplit.txt", "".join(f"sequence{number}\n" for number in test))
    write_text(folder / "TrainSplit.txt", "".join(f"sequence{number}\n" for number in train))


def _is_scene(folder: Path) -> bool:
    return (folder / "TrainSplit.txt").is_file() or (folder / "TestSplit.txt").is_file()


def _read_scene(folder: Path, split: str, intrinsics: Sequence[float] | None) -> Scene | None:
    train = _split_sequences(folder / "TrainSplit.txt")
    test = _split_sequences(folder / "TestSplit.txt") if split == "test" else []
    if not train or (split == "test" and not test):
        return None
    values = _intrinsics(folder) if intrinsics is None else np.asarray(intrinsics, dtype=np.float64)
    if values.shape != (4,):
        raise InvalidInputError(f"Intrinsics must be four numbers, fx fy cx cy; got {values.tolist()}.")
    database = _read_side(folder, train, values)
    return Scene(folder.absolute().name, split, database, _read_side(folder, test, values) if split == "test" else database)


def _split_sequences(path: Path) -> list[str]:
    names = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        found = re.fullmatch(r"\s*sequence(\d+)\s*", line)
        if found:
            names.append(f"seq-{int(found[1]):02d}")
        elif line.strip():
            raise DamagedFileError(f"{path}, line {number}: a line must read 'sequence<number>'; found {line.strip()!r}.")
    return names


def _intrinsics(folder: Path) -> NDArray[np.float64]:
    path = folder / "intrinsics.txt"
    return _numbers(path, 4) if path.is_file() else np.array(KINECT)


def _read_side(folder: Path, sequences: Sequence[str], intrinsics: NDArray[np.float64]) -> Images:
    names, depths, frames, poses, owner = [], [], [], [], []
    for sequence in sequences:
        for frame, files in sorted(_frames(folder / sequence).items()):
            missing = {"color", "pose"} - files.keys()
            if missing:
                kind = " and ".join(sorted(missing))
                raise MissingFileError(
                    f"{folder / sequence}: frame-{frame:06d} must have a colour image and a pose; its {kind} is missing. "
                    "Unpack the sequence again, or remove the frame's other files."
                )
            names.append(f"{sequence}/{files['color']}")
            depths.append(f"{sequence}/{files['depth']}" if "depth" in files else "")
            poses.append(_numbers(folder / sequence / files["pose"], 16).reshape(4, 4))
            frames.append(frame)
            owner.append(sequence)
    lacking = [name for name, depth in zip(names, depths, strict=True) if not depth]
    if lacking and len(lacking) < len(names):
        raise MissingFileError(
            f"{folder / lacking[0]} must have a depth map beside it, as the other frames have; {len(lacking)} of "
            f"{len(names)} have none. Unpack the sequence again."
        )
    return Images(
        folder,
        tuple(names),
        pose=np.array(poses).reshape(-1, 4, 4),
        intrinsics=np.tile(intrinsics, (len(names), 1)),
        depth=None if lacking else tuple(depths),
        sequence=tuple(owner),
        frame=np.array(frames, dtype=np.int64),
    )


def _frames(folder: Path) -> dict[int, dict[str, str]]:
    if not folder.is_dir():
        raise MissingFileError(f"The sequence {folder} must be there, since a split file names it; there is no such folder. Unpack it.")
    frames: dict[int, dict[str, str]] = {}
    for path in folder.iterdir():
        found = _FRAME.fullmatch(path.name)
        if found:
            files = frames.setdefault(int(found[1]), {})
            if found[2] in files:
                raise InvalidInputError(
                    f"{folder}: a frame must have one {found[2]} file; found {files[found[2]]} and {path.name}. Remove one."
                )
            files[found[2]] = path.name
    return frames


def _numbers(path: Path, count: int) -> NDArray[np.float64]:
    text = read_text(path).split()
    try:
        values = np.array([float(word) for word in text])
    except ValueError as error:
        raise DamagedFileError(f"{path} must hold {count} numbers; {error}.") from error
    if len(values) != count:
        raise DamagedFileError(f"{path} must hold {count} numbers; it holds {len(values)}. The file is truncated or of another kind.")
    return values


def _one_camera(name: str, sides: Sequence[Images]) -> NDArray[np.float64]:
    """The intrinsics of all images, since the layout holds one camera a scene."""
    found = [images.intrinsics for images in sides if images.intrinsics is not None and len(images)]
    if not found:
        return np.array(KINECT)
    if len(found) < len(sides) or any((one != found[0][0]).any() for one in found):
        raise InvalidInputError(f"The 7-Scenes layout holds one camera a scene; the intrinsics of scene {name!r} differ. Split the scene.")
    return np.asarray(found[0][0])


def _sequence_numbers(sides: Sequence[Images]) -> list[dict[str, int]]:
    """For each side the number of each of its sequences, no number twice; `seq-<NN>` keeps its own where it is free."""
    names = [list(dict.fromkeys(images.sequence or ("",) * len(images))) for images in sides]
    number: dict[tuple[int, str], int] = {}
    for key in [(side, name) for side, listed in enumerate(names) for name in listed]:
        plain = re.fullmatch(r"seq-(\d+)", key[1])
        if plain and int(plain[1]) not in number.values():
            number[key] = int(plain[1])
    for side, listed in enumerate(names):
        for name in listed:
            if (side, name) not in number:
                number[side, name] = next(place for place in itertools.count(1) if place not in number.values())
    return [{name: number[side, name] for name in listed} for side, listed in enumerate(names)]


def _write_side(images: Images, folder: Path, numbers: Mapping[str, int], files: Files) -> None:
    (poses,) = images.need("pose")
    for row, owner in enumerate(images.sequence or ("",) * len(images)):
        frame = row if images.frame is None else int(images.frame[row])
        stem = folder / f"seq-{numbers[owner]:02d}" / f"frame-{frame:06d}"
        colour = Path(f"{stem}.color{images.path(row).suffix.lower()}")
        if not _FRAME.fullmatch(colour.name) or Path(f"{stem}.pose.txt").exists():
            raise InvalidInputError(
                f"{images.path(row)} cannot be frame {frame} of sequence {owner!r}: it must be a PNG or JPEG, numbered from 0, the only "
                "frame of its number. Number the frames, or convert the image."
            )
        stem.parent.mkdir(parents=True, exist_ok=True)
        place_file(images.path(row), colour, files)
        if images.depth is not None:
            place_file(images.root / images.depth[row], Path(f"{stem}.depth.png"), files)
        _write_pose(Path(f"{stem}.pose.txt"), poses[row])


def _write_pose(path: Path, pose: NDArray[np.float64]) -> None:
    write_text(path, "".join("\t".join(f"{value:.16e}" for value in row) + "\n" for row in pose))
