"""KITTI odometry: sequences of rectified images with the poses of camera 0.

    <root>/sequences/<NN>/image_2/<NNNNNN>.png     or image_0, 1, 3; and calib.txt, times.txt beside them
    <root>/poses/<NN>.txt                          12 numbers a line, 3x4, row by row: camera 0 to the world

The world is camera 0 of the first frame: x right, y down, z forward. calib.txt has P0 to P3, 3x4 projections from camera 0's axes; the
pose of image_2 is moved by what P2 says. https://www.cvlibs.net/datasets/kitti/eval_odometry.php
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from covis.datasets.drafts import Draft, Invalid, Missing, SceneDraft
from covis.datasets.filing import Files, check_targets, place_file
from covis.datasets.posed import check_split, ground_columns, sequence_drafts, sides_to_write
from covis.datasets.text_lines import lines_of, number, numbers
from covis.errors import DamagedFileError, InvalidInputError, MissingFileError
from covis.files import atomic_path, write_text
from covis.images import Images, Scene

_FRAME = re.compile(r"(\d{6,})\.(png|jpg|jpeg)", re.ASCII | re.IGNORECASE)


def read_kitti(
    root: str | Path,
    *,
    split: str = "test",
    missing: Missing = "stop",
    invalid: Invalid = "stop",
    camera: int | None = None,
    database: str | None = None,
    queries: str | None = None,
    one_world: bool = False,
    up: str | None = None,
) -> list[Scene]:
    """Read KITTI odometry: each sequence that has poses as a scene, or two sequences as database and queries.

    Columns: `pose` of the camera that took the images; `intrinsics` where calib.txt is there (cx and cy as written: the benchmark does
    not say where a pixel's centre lies); `time` from times.txt: seconds since the sequence's first frame; `sequence`, `frame`; with `up`
    also `xy` and `heading`, of the first frame's axes.

    Args:
        root: the folder that holds `sequences` and `poses`.
        split: "val" and "test"; with "train" the database against itself.
        missing: frames that have a pose and no file: "stop", "skip" or "ignore".
        invalid: as everywhere; nothing here can break it.
        camera: 0 to 3, as in image_0 to image_3; default 2 where all sequences have image_2, else 0.
        database: the sequence that is searched ("00").
        queries: the sequence that asks. Both need `one_world`.
        one_world: say that the two sequences' poses are of one world. Those of the benchmark are not: each begins at its own first frame.
        up: "-y" for the benchmark's poses (x right, y down, z forward of the first frame: xy is x, z, and 0 degrees is the first view).
            Default: neither `xy` nor `heading`.

    Raises:
        MissingFileError: there is no such folder, sequence with poses, or (for a camera other than 0) calib.txt.
        DamagedFileError: a line does not read, or there are fewer poses than images.
        InvalidInputError: two sequences are asked for without `one_world`, or a policy says stop.
    """
    drafts = draft_kitti(root, split=split, camera=camera, database=database, queries=queries, one_world=one_world, up=up)
    return [draft.scene(missing=missing, invalid=invalid) for draft in drafts]


def draft_kitti(
    root: str | Path,
    *,
    split: str = "test",
    camera: int | None = None,
    database: str | None = None,
    queries: str | None = None,
    one_world: bool = False,
    up: str | None = None,
) -> list[SceneDraft]:
    """What the files say, for `read_kitti` and for checks. Raises what `read_kitti` raises, but for the policies."""
    check_split(split, "KITTI")
    if camera not in (None, 0, 1, 2, 3):
        raise InvalidInputError(f"A camera of KITTI must be 0, 1, 2 or 3; got {camera!r}.")
    root = Path(root).absolute()
    if not (root / "sequences").is_dir() or not (root / "poses").is_dir():
        raise MissingFileError(f"{root} must hold sequences and poses, as KITTI odometry does; it does not. Is this the folder?")
    if queries is not None and not one_world:
        raise InvalidInputError(
            f"Each sequence of KITTI has a world of its own, so that {queries} cannot ask another. If yours share one, pass one_world=true."
        )
    known = sorted(path.stem for path in (root / "poses").glob("*.txt") if (root / "sequences" / path.stem).is_dir())
    if not known:
        raise MissingFileError(f"{root} must hold a sequence with poses (sequences/00 and poses/00.txt); found none.")

    read = [name for name in (database, queries) if name is not None] or known
    if camera is None:  # one for all that is read: sequences of two cameras would not be comparable
        camera = 2 if all((root / "sequences" / name / "image_2").is_dir() for name in read) else 0
    chosen = camera

    def draft(name: str) -> Draft:
        return _draft(root, name, chosen, up)

    return sequence_drafts(root, split, known, asked=(database, queries), draft=draft)


def write_kitti(scenes: Sequence[Scene], out: str | Path, *, overwrite: bool = False, files: Files = "copy") -> list[Path]:
    """Write scenes as KITTI odometry, one folder each: the inverse of `read_kitti`.

        <scene>/sequences/00/{image_0/<NNNNNN>.<suffix>, calib.txt, times.txt}, poses/00.txt     the database
        <scene>/sequences/01/…, poses/01.txt                                                     the queries

    `read_kitti(folder, database="00", queries="01", one_world=True)` reads it back; a training scene has 00 alone. Images are numbered in
    their order and written as camera 0, so that nothing is moved. Poses are written as they are: in the scene's world, which is not that
    of the first frame, as the benchmark's is. times.txt and calib.txt are there where every time, or the intrinsics, are known. Everything
    else is left out, with a warning; with `files="none"` suffixes too, and the names read back end in .png.

    Raises:
        InvalidInputError: images lack poses, are neither PNG nor JPEG, or a side has several intrinsics; two scenes share a name.
        MissingFileError: an image is not there.
        OutputExistsError: a scene's folder is there and `overwrite` is false.
    """
    out = Path(out)
    check_targets(scenes, out, overwrite=overwrite)
    for scene, sides in zip(scenes, sides_to_write(scenes, layout="kitti", held=("pose", "intrinsics", "time")), strict=True):
        texts = [_texts(images) for images in sides.values()]
        with atomic_path(out / scene.name) as folder:
            for place, (images, written) in enumerate(zip(sides.values(), texts, strict=True)):
                sequence = folder / "sequences" / f"{place:02d}"
                sequence.mkdir(parents=True)
                write_text(folder / "poses" / f"{place:02d}.txt", written.pop("poses"))
                for name, text in written.items():
                    write_text(sequence / name, text)
                for row in range(len(images)):
                    place_file(images.path(row), sequence / "image_0" / f"{row:06d}{images.path(row).suffix.lower()}", files)
    return [out / scene.name for scene in scenes]


def _draft(root: Path, name: str, camera: int, up: str | None) -> Draft:
    sequence, path = root / "sequences" / name, root / "poses" / f"{name}.txt"
    lines = lines_of(path)
    rows = [numbers(line.words("a pose", 12), line, "a pose") for line in lines]
    if not rows:
        raise DamagedFileError(f"{path} must hold a pose a line; it is empty.")
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = np.array(rows).reshape(-1, 3, 4)
    names = _frames(sequence / f"image_{camera}", len(rows), path)
    draft = Draft(sequence, [f"image_{camera}/{one}" for one in names], path, lines=np.array([line.number for line in lines]))
    draft.columns |= {"sequence": [name] * len(rows), "frame": np.arange(len(rows), dtype=np.int64)}
    projection = _projection(sequence / "calib.txt", camera)
    if projection is not None:
        intrinsics, offset = projection
        draft.columns["intrinsics"] = np.tile(intrinsics, (len(rows), 1))
        poses = poses @ offset
    draft.columns |= {"pose": poses, **ground_columns(poses, up)}
    if (sequence / "times.txt").is_file():
        times = [number(line.words("a time", 1)[0], line, "a time") for line in lines_of(sequence / "times.txt")]
        if len(times) != len(rows):
            raise DamagedFileError(f"{sequence / 'times.txt'} must hold a time for each of {len(rows)} poses; it holds {len(times)}.")
        draft.columns["time"] = np.array(times)
    return draft


def _frames(folder: Path, count: int, poses: Path) -> list[str]:
    """The file of each frame; .png for a frame that has none."""
    files: dict[int, str] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        found = _FRAME.fullmatch(path.name)
        if found and files.setdefault(int(found[1]), path.name) != path.name:
            raise DamagedFileError(f"{folder}: a frame must have one file; found {files[int(found[1])]} and {path.name}. Remove one.")
    if files and max(files) >= count:
        raise DamagedFileError(
            f"{poses} must hold a pose for each image of {folder}; it holds {count}, and the last image is {files[max(files)]}. Is it "
            "truncated?"
        )
    return [files.get(frame, f"{frame:06d}.png") for frame in range(count)]


def _projection(path: Path, camera: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """fx, fy, cx, cy of a camera, and the matrix that takes its axes to camera 0's."""
    if not path.is_file():
        if camera:
            raise MissingFileError(
                f"{path} must be there for image_{camera}: poses are camera 0's, and it says where the other is. Unpack it, or take "
                "camera=0."
            )
        return None
    found = [line for line in lines_of(path) if line.text.split()[0] == f"P{camera}:"]
    if len(found) != 1:
        raise DamagedFileError(f"{path} must hold one line 'P{camera}: ' with 12 numbers; found {len(found)}.")
    p = np.array(numbers(found[0].words("a projection", 13)[1:], found[0], "a projection")).reshape(3, 4)
    if (p[2, :3] != (0, 0, 1)).any() or p[0, 1] or p[1, 0] or min(p[0, 0], p[1, 1]) <= 0:
        raise DamagedFileError(
            f"{found[0].where}: a projection must be fx 0 cx . 0 fy cy . 0 0 1 ., focal lengths above 0; found {p.tolist()}."
        )
    offset = np.eye(4)
    offset[:3, 3] = -np.linalg.solve(p[:, :3], p[:, 3])  # P = K [I | b] puts the camera's centre at -b of camera 0's axes
    return np.array([p[0, 0], p[1, 1], p[0, 2], p[1, 2]]), offset


def _texts(images: Images) -> dict[str, str]:
    (poses,) = images.need("pose")
    bad = [name for name in images.names if not _FRAME.fullmatch(f"000000{Path(name).suffix}")]
    if bad:
        raise InvalidInputError(f"An image of KITTI must be a PNG or JPEG; {images.root / bad[0]} is neither. Convert it.")
    texts = {"poses": "".join(f"{' '.join(map(repr, pose[:3].reshape(-1).tolist()))}\n" for pose in poses)}
    if images.intrinsics is not None:
        if (images.intrinsics != images.intrinsics[0]).any():
            raise InvalidInputError(f"KITTI holds one camera a sequence; the intrinsics of {images.root} differ. Write each apart.")
        fx, fy, cx, cy = images.intrinsics[0].tolist()
        line = f"{fx!r} 0.0 {cx!r} 0.0 0.0 {fy!r} {cy!r} 0.0 0.0 0.0 1.0 0.0\n"
        texts["calib.txt"] = "".join(f"P{camera}: {line}" for camera in range(4))
    if images.time is not None and np.isfinite(images.time).all():
        texts["times.txt"] = "".join(f"{time!r}\n" for time in images.time.tolist())
    return texts
