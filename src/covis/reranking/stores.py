"""What matchers prepared, computed once an image: in memory up to a bound, and on the disk if asked; and the results so far."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from covis.errors import DamagedFileError
from covis.files import Arrays, digest, file_digest, load_arrays, save_arrays
from covis.rasters import read_image
from covis.reranking.matchers import Matcher, Prepared, checked_prepared

FEATURES, FEATURES_VERSION = "covis-local-features", 1
INLIERS, INLIERS_VERSION = "covis-inliers", 1


def bounded(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The image (height, width, 3) made smaller, where its longer side has more than `size` pixels; antialiased, never enlarged.

    >>> bounded(np.zeros((600, 800, 3), dtype=np.uint8), 640).shape
    (480, 640, 3)
    """
    height, width = image.shape[:2]
    if max(height, width) <= size:
        return image
    scale = size / max(height, width)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BILINEAR))


class Store:
    """What a matcher prepared of images, by their paths; safe to ask from several threads.

    A stored file is found again by the image's bytes, so that another image under the same name is never taken for it, and a
    moved folder stays known.

    Args:
        matcher: what prepares.
        identity: all that decides what it prepares, plain values: name, options, libraries.
        size: the longer side of an image at most, pixels.
        folder: where prepared images are kept, a file each; None: in memory alone.
        memory: bytes of prepared images in memory at most; the one asked for is always held.
    """

    def __init__(self, matcher: Matcher, identity: Mapping[str, Any], *, size: int, folder: Path | None, memory: int) -> None:
        self.matcher, self.identity, self.size, self.folder, self.memory = matcher, {**identity, "size": size}, size, folder, memory
        self.seconds: dict[Path, float] = {}  # what each image took when it was prepared, in this run or before
        self.computed = self.read = 0
        self._held: OrderedDict[Path, Prepared] = OrderedDict()
        self._bytes = 0
        self._digests: dict[Path, str] = {}
        self._doors: dict[Path, threading.Lock] = {}
        self._lock = threading.Lock()

    def prepared(self, path: Path) -> Prepared:
        """What the matcher prepared of the image.

        Raises:
            MissingFileError: there is no such file.
            DamagedFileError: it does not decode.
            InvalidInputError: the matcher gave no mapping of arrays.
        """
        with self._lock:
            door = self._doors.setdefault(path, threading.Lock())
        with door:  # a second thread that wants the same image waits, and finds it
            with self._lock:
                if path in self._held:
                    self._held.move_to_end(path)
                    return self._held[path]
            found, seconds = self._fetched(path)
            with self._lock:
                self.seconds[path] = seconds
                self._hold(path, found)
        return found

    def digest(self, path: Path) -> str:
        """A hash of the image's bytes; each file is read once."""
        if path not in self._digests:
            self._digests[path] = file_digest(path)
        return self._digests[path]

    def _fetched(self, path: Path) -> tuple[Prepared, float]:
        file = None if self.folder is None else self.folder / f"{digest([self.identity, self.digest(path)])}.npz"
        if file is not None:
            with suppress(OSError, DamagedFileError):  # absent or damaged: it is made again
                header, arrays = load_arrays(file, kind=FEATURES, version=FEATURES_VERSION, names=())
                with self._lock:
                    self.read += 1
                return arrays, float(header["seconds"])
        begun = time.perf_counter()
        found = checked_prepared(self.matcher.prepare(bounded(read_image(path), self.size)), matcher=self.identity["matcher"], path=path)
        seconds = time.perf_counter() - begun
        with self._lock:
            self.computed += 1
        if file is not None:
            write_apart(file, {"format": FEATURES, "version": FEATURES_VERSION, "seconds": seconds, **self.identity}, found)
        return found, seconds

    def _hold(self, path: Path, found: Prepared) -> None:
        self._held[path] = found
        self._bytes += _bytes(found)
        while self._bytes > self.memory and len(self._held) > 1:
            _, oldest = self._held.popitem(last=False)
            self._bytes -= _bytes(oldest)


class Ledger:
    """The inliers of blocks of queries that are done, so that a killed run goes on.

    Args:
        folder: a file a block; None: nothing is remembered.
        identity: all that decides the number of inliers, the images' bytes apart.
        store: knows the images' bytes.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any], store: Store) -> None:
        self.folder, self.identity, self.store = folder, dict(identity), store

    def file(self, asked: Sequence[tuple[Path, Sequence[Path | None]]]) -> Path | None:
        """Where the results of these queries and their candidates belong; None where nothing is remembered."""
        if self.folder is None:
            return None
        images = [[self.store.digest(query), [path and self.store.digest(path) for path in paths]] for query, paths in asked]
        return self.folder / f"{digest([self.identity, images])}.npz"

    @staticmethod
    def load(file: Path | None, shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
        """(b, top) inliers and (b, stages) seconds of a block, or None where it is not done."""
        if file is not None:
            with suppress(OSError, DamagedFileError):
                _, arrays = load_arrays(file, kind=INLIERS, version=INLIERS_VERSION, names=("inliers", "seconds"))
                if arrays["inliers"].shape == shape and arrays["seconds"].shape[:1] == shape[:1]:
                    return arrays["inliers"].astype(np.int64), arrays["seconds"].astype(np.float64)
        return None

    def save(self, file: Path | None, inliers: NDArray[np.int64], seconds: NDArray[np.float64]) -> None:
        """Remember a block."""
        if file is not None:
            header = {"format": INLIERS, "version": INLIERS_VERSION, **self.identity}
            write_apart(file, header, {"inliers": inliers, "seconds": seconds})


def write_apart(file: Path, header: Mapping[str, Any], arrays: Arrays) -> None:
    """Write a file that other processes may write at the same moment: under a name of this thread's own, then put in place."""
    own = file.with_name(f"{file.stem}.{os.getpid()}-{threading.get_ident()}.npz")
    try:
        save_arrays(own, header, arrays)
        own.replace(file)
    finally:
        own.unlink(missing_ok=True)


def _bytes(prepared: Prepared) -> int:
    return sum(array.nbytes for array in prepared.values())
