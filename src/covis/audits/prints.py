"""Fingerprints of image files: the bytes', the pixels' and the picture's hash, made once and kept in a cache."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.audits.hashes import cells, difference_hash
from covis.errors import CovisError, DamagedFileError, InvalidInputError
from covis.files import decode_names, encode_names, load_arrays, save_arrays
from covis.images import Images
from covis.neighbours import cores
from covis.progress import showing
from covis.rasters import read_picture

FORMAT, VERSION = "covis-fingerprints", 1
UNREADABLE, FLAT, USABLE = 0, 1, 2
FLAT_BELOW = 2.0
"""Grey levels: a picture whose 16 x 17 cells have a smaller standard deviation (a black night, a lens cap) shows nothing to compare."""
SAVE_EVERY = 30.0
"""Seconds between two writings of the cache."""
TOGETHER = 256
"""Images that are given to the threads at once: an interrupted call waits for no more."""
RECORD = np.dtype(
    [
        ("bytes", "u1", 32),
        ("pixels", "u1", 32),
        ("coarse", "<u8"),
        ("fine", "<u8", 4),
        ("mirror_coarse", "<u8"),
        ("mirror_fine", "<u8", 4),
        ("state", "u1"),
    ]
)


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """What says of image files whether they are copies of each other.

    Attributes:
        names: n names.
        paths: n absolute paths.
        records: (n,) of `RECORD`: SHA-256 of the file's bytes and of its upright RGB pixels with their size; the difference hash of the
            grey picture (64 and 256 bits) and that of its mirror image; and whether it could be read.
        damaged: row -> why it could not.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]
    records: NDArray[Any]
    damaged: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Fingerprints({len(self)}, {len(self.damaged)} unreadable, {int((self.records['state'] == FLAT).sum())} flat)"


def fingerprints(images: Images, *, cache: str | Path | None = None, progress: bool = False, workers: int | None = None) -> Fingerprints:
    """Hash every image of a table; one that is missing or does not decode is noted, and is no error.

    Args:
        images: the table.
        cache: an .npz that keeps what was hashed, by path, size and time of change; begun where it is not there, written every half
            minute, so that a killed call goes on. Several tables may share it.
        progress: show it on stderr.
        workers: threads; None: one a core.

    Raises:
        DamagedFileError: the cache is no such file. Remove it.
        InvalidInputError: its name does not end in .npz.

    >>> fingerprints(Images("nowhere", ["a.jpg"])).damaged[0].startswith("The image nowhere/a.jpg must exist")
    True
    """
    paths = tuple(images.path(row).absolute().as_posix() for row in range(len(images)))
    kept = _Cache(cache)
    records = np.zeros(len(images), dtype=RECORD)
    stamps = [_stamp(path) for path in paths]
    todo = [row for row, (path, stamp) in enumerate(zip(paths, stamps, strict=True)) if not kept.fill(records, row, path, stamp)]
    damaged: dict[int, str] = {}
    done = len(images) - len(todo)
    with (
        showing(len(images), done=done, what="images hashed", shown=progress and bool(todo)) as tell,
        kept,
        ThreadPoolExecutor(workers or cores()) as pool,
    ):
        for start in range(0, len(todo), TOGETHER):
            some = todo[start : start + TOGETHER]
            for row, (record, reason) in zip(some, pool.map(lambda row: _hashed(images.path(row)), some), strict=True):
                records[row] = record
                if reason is None:
                    kept.add(paths[row], stamps[row], record)
                else:
                    damaged[row] = reason
            kept.save(at_once=False)
            tell(done + start + len(some))
    return Fingerprints(images.names, paths, records, damaged)


def _hashed(path: Path) -> tuple[Any, str | None]:
    record = np.zeros((), dtype=RECORD)
    try:
        picture = read_picture(path)
        with path.open("rb") as stream:
            record["bytes"] = np.frombuffer(hashlib.file_digest(stream, "sha256").digest(), dtype=np.uint8)
    except CovisError as error:
        return record, str(error)
    except OSError as error:
        return record, f"The image {path} cannot be read: {error.strerror or error}."
    size = f"{picture.width} {picture.height} ".encode()
    record["pixels"] = np.frombuffer(hashlib.sha256(size + picture.tobytes()).digest(), dtype=np.uint8)
    grey = picture.convert("L")
    for n, name in ((8, "coarse"), (16, "fine")):
        averaged = cells(grey, n)
        for mirror, given in (("", averaged), ("mirror_", averaged[:, ::-1])):
            words = difference_hash(given)
            record[mirror + name] = words[0] if n == 8 else words
    record["state"] = FLAT if float(averaged.std()) < FLAT_BELOW else USABLE
    return record, None


def _stamp(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return -1, 0
    return found.st_size, found.st_mtime_ns


class _Cache:
    """Records by path, valid while size and time of change are the same."""

    def __init__(self, path: str | Path | None) -> None:
        self._path = None if path is None else Path(path)
        self._known: dict[str, tuple[tuple[int, int], Any]] = {}
        self._new, self._saved = 0, time.monotonic()
        if self._path is not None and self._path.suffix != ".npz":
            raise InvalidInputError(f"A cache of fingerprints must be called .npz; got {self._path.name!r}.")
        if self._path is not None and self._path.exists():
            self._known = _read(self._path)

    def fill(self, records: NDArray[Any], row: int, path: str, stamp: tuple[int, int]) -> bool:
        known = self._known.get(path)
        if known is None or known[0] != stamp or stamp[0] < 0:
            return False
        records[row] = known[1]
        return True

    def add(self, path: str, stamp: tuple[int, int], record: Any) -> None:
        self._known[path] = (stamp, record)
        self._new += 1

    def __enter__(self) -> _Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.save(at_once=True)

    def save(self, *, at_once: bool) -> None:
        if self._path is None or not self._new or not (at_once or time.monotonic() - self._saved > SAVE_EVERY):
            return
        usual = {path: value for path, value in self._known.items() if _storable(path)}
        arrays: dict[str, NDArray[Any]] = {
            "paths": encode_names(tuple(usual)),
            "stamps": np.array([stamp for stamp, _ in usual.values()], dtype=np.int64).reshape(-1, 2),
            "records": np.array([record for _, record in usual.values()], dtype=RECORD),
        }
        save_arrays(self._path, {"format": FORMAT, "version": VERSION}, arrays)
        self._new, self._saved = 0, time.monotonic()


def _storable(path: str) -> bool:
    """Whether a path is one line of UTF-8; the few that are not are hashed anew each time."""
    return "\n" not in path and path.encode("utf-8", "replace").decode("utf-8") == path


def _read(path: Path) -> dict[str, tuple[tuple[int, int], Any]]:
    _, arrays = load_arrays(path, kind=FORMAT, version=VERSION, names=("paths", "stamps", "records"))
    names, stamps, records = decode_names(arrays["paths"]), arrays["stamps"], arrays["records"]
    if records.dtype != RECORD or stamps.shape != (len(names), 2) or records.shape != (len(names),):
        raise DamagedFileError(f"{path} must hold a stamp and a record for each path; its parts do not fit. Remove it.")
    return {name: ((int(size), int(at)), record) for name, (size, at), record in zip(names, stamps.tolist(), records, strict=True)}
