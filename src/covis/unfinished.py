"""Descriptors in the making: rows gather on the disk until they are whole, and a kill at any moment loses a second of them.

.NAME.unfinished/begun.json        what the rows depend on
                 progress.json     how many images are dealt with; written after their bytes are on the disk
                 whole/            what becomes NAME, by one rename: vectors.npy, and header.json at the end
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from covis.descriptors import Descriptors, descriptors_header
from covis.errors import CovisError, InvalidInputError, OutputExistsError, OutputFailedError, SettingsDifferError
from covis.files import map_array, read_json, write_json

FORMAT, VERSION = "covis-descriptors-unfinished", 1

_RECORD_EVERY = 1.0
"""Seconds between two records of progress: waiting for the disk after each block would hold up a fast network."""


class DescriptorWriter:
    """Writes descriptors block by block, so that a killed extraction goes on where it was.

    The space for all rows is reserved at the start, where the system can. Bytes count only once they are on the disk.

    Args:
        path: the folder to be made.
        names: the images' names, in order.
        dim: dimensions.
        model: the hash of the model.
        dtype: "float32" or "float16".
        settings: whatever else the vectors depend on.
        sizes: (n,) of each image a number that says whether it is still the same one (its file's size).
        engine: what computes the rows that are appended; noted, not compared.
        overwrite: begin anew where other rows were begun; at the end, replace the folder.

    Attributes:
        done: how many images are dealt with: their rows were appended, or they were skipped.
        rows: how many rows were appended.
        skipped: name and reason of each image that has no row.

    Raises:
        SettingsDifferError: rows were begun for other names, another model, other settings or other images.
        OutputExistsError: the path is no folder of descriptors.
        OutputFailedError: the space is not there, or the folder cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        names: Sequence[str],
        *,
        dim: int,
        model: str,
        dtype: Literal["float32", "float16"] = "float32",
        settings: Mapping[str, Any],
        sizes: NDArray[np.int64] | None = None,
        engine: str = "",
        overwrite: bool = False,
    ) -> None:
        self.path, self.names = Path(path).absolute(), tuple(names)
        self.dim, self.dtype, self.model, self.settings = dim, np.dtype(dtype), model, dict(settings)
        self.sizes = np.zeros(len(self.names), dtype=np.int64) if sizes is None else sizes
        self.folder = unfinished_folder(self.path)
        self.done = self.rows = 0
        self.skipped: list[dict[str, str]] = []
        self.engines: list[str] = []
        self._finished = False
        _check_replaceable(self.path)
        try:
            if not self._resumed(overwrite=overwrite):
                self._begin()
            self._file = (self.folder / "whole" / "vectors.npy").open("r+b", buffering=0)
        except OSError as error:
            raise self._failed(error) from error
        self._engine = engine
        self._recorded = time.monotonic()

    def append(self, block: NDArray[np.floating[Any]], *, skipped: Sequence[Mapping[str, str]] = ()) -> None:
        """Write the next rows, and note the images among them that have none.

        Raises:
            InvalidInputError: the rows have another dimension, or there are more of them than were announced.
            OutputFailedError: the disk is full.
        """
        left = len(self.names) - self.done - len(skipped)
        if np.ndim(block) != 2 or block.shape[1] != self.dim or len(block) > left:
            raise InvalidInputError(
                f"A block for {self.path} must be (n, {self.dim}) with n <= {left}, the rows that are missing; got {np.shape(block)}."
            )
        try:
            _write_at(self._file.fileno(), np.ascontiguousarray(block, dtype=self.dtype).tobytes(), self._end(self.rows))
        except OSError as error:
            raise self._failed(error) from error
        self.rows += len(block)
        self.done += len(block) + len(skipped)
        self.skipped += [dict(one) for one in skipped]
        if self._engine not in self.engines and len(block):
            self.engines.append(self._engine)
        if time.monotonic() - self._recorded >= _RECORD_EVERY:
            self.record()

    def record(self) -> None:
        """Wait until the rows are on the disk, and note that they are."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failed(error) from error
        self._write_progress()
        self._recorded = time.monotonic()

    def finish(self) -> Descriptors:
        """Put the folder in place and open it.

        Raises:
            InvalidInputError: rows are missing.
            OutputFailedError: the disk is full.
        """
        if self.done != len(self.names):
            raise InvalidInputError(f"{len(self.names)} descriptors were announced for {self.path}; {self.done} were written.")
        without = {one["name"] for one in self.skipped}
        names = tuple(name for name in self.names if name not in without) if without else self.names
        history = {"extracted": {**_plain(self.settings), "engine": self.engines} | ({"skipped": self.skipped} if without else {})}
        self.record()
        try:
            _write_at(self._file.fileno(), _npy_header(self.rows, self.dim, self.dtype), 0)
            os.ftruncate(self._file.fileno(), self._end(self.rows))
            os.fsync(self._file.fileno())
            self.close()
            header = descriptors_header(names, self.dim, str(self.dtype), self.model, history)
            write_json(self.folder / "whole" / "header.json", header)
            _put_in_place(self.folder / "whole", self.path)
        except OSError as error:
            raise self._failed(error) from error
        clear_traces(self.path)
        return Descriptors(map_array(self.path / "vectors.npy"), names, self.model, history)

    def close(self) -> None:
        """Let the file go; what was recorded stays."""
        self._finished = True
        self._file.close()

    def discard(self) -> None:
        """Remove what was begun."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> DescriptorWriter:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if not self._finished:
                with suppress(CovisError):  # the error that led here is the one to be told
                    self.record()
        finally:
            self.close()

    def _begin(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            whole = self.folder / "whole"
            whole.mkdir(parents=True)
            with (whole / "vectors.npy").open("wb") as stream:
                _reserve(stream.fileno(), self._end(len(self.names)))
                stream.write(_npy_header(len(self.names), self.dim, self.dtype))
            write_json(self.folder / "begun.json", {"format": FORMAT, "version": VERSION, **self._begun()})
            self._write_progress()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _resumed(self, *, overwrite: bool) -> bool:
        """Take up what is there; false where there is nothing that could be."""
        try:
            begun = read_json(self.folder / "begun.json", kind=FORMAT, version=VERSION)
            progress = read_json(self.folder / "progress.json")
            done, rows, sizes = int(progress["images"]), int(progress["rows"]), str(progress["sizes"])
            skipped, engines = list(progress["skipped"]), list(progress["engine"])
            if (self.folder / "whole" / "vectors.npy").stat().st_size < self._end(rows) or rows + len(skipped) != done:
                return False
        except (CovisError, OSError, KeyError, TypeError, ValueError):
            return False
        wanted = self._begun()
        different = [f"{key}: {begun.get(key)!r} there, {wanted[key]!r} now" for key in wanted if begun.get(key) != wanted[key]]
        if not different and self._sizes_of(done) != sizes:
            different = ["files: the sizes of those that are described already differ"]
        if different and overwrite:
            return False
        if different:
            raise SettingsDifferError(
                f"{self.folder} was begun with other settings ({'; '.join(different)}). Finish it with those, choose another --out, "
                "or pass --overwrite to begin anew."
            )
        self.done, self.rows, self.skipped, self.engines = done, rows, skipped, engines
        return True

    def _begun(self) -> dict[str, Any]:
        """What rows must have in common to lie in one file."""
        names = hashlib.sha256()
        for name in self.names:
            try:
                names.update(name.encode("utf-8") + b"\0")
            except UnicodeEncodeError:
                raise InvalidInputError(f"The name of an image must be Unicode to be stored; got {name!r}. Rename the file.") from None
        settings = {key: value for key, value in _plain(self.settings).items() if key != "files"}  # compared as far as they are described
        return {
            "model": self.model,
            "dtype": str(self.dtype),
            "dim": self.dim,
            "settings": settings,
            "images": len(self.names),
            "names": names.hexdigest()[:16],
        }

    def _sizes_of(self, count: int) -> str:
        return hashlib.sha256(self.sizes[:count].astype("<i8").tobytes()).hexdigest()[:16]

    def _end(self, rows: int) -> int:
        """Where so many rows end in the file."""
        return len(_npy_header(len(self.names), self.dim, self.dtype)) + rows * self.dim * self.dtype.itemsize

    def _write_progress(self) -> None:
        progress = {"images": self.done, "rows": self.rows, "sizes": self._sizes_of(self.done)}
        write_json(self.folder / "progress.json", {**progress, "engine": self.engines, "skipped": self.skipped})

    def _failed(self, error: OSError) -> OSError:
        if isinstance(error, CovisError):
            return error
        need = self._end(len(self.names)) / 1e6
        return OutputFailedError(
            f"{self.path} could not be written: {error.strerror or error}. It takes {need:,.1f} MB. Free the disk or choose another "
            "place, and start again; what was described is kept."
        )


def unfinished_folder(path: str | Path) -> Path:
    """Where the rows of a folder gather before it is there."""
    path = Path(path).absolute()
    return path.with_name(f".{path.name}.unfinished")


def clear_traces(path: str | Path) -> None:
    """Remove what a kill may have left once the folder was in place."""
    path = Path(path).absolute()
    if path.exists() and not (unfinished_folder(path) / "whole").exists():
        for trace in (unfinished_folder(path), _aside(path)):
            shutil.rmtree(trace, ignore_errors=True)


def _check_replaceable(path: Path) -> None:
    """A folder of something else is never replaced, whatever was asked for."""
    if path.exists() and not path.is_dir():
        raise OutputExistsError(f"Descriptors are a folder; {path} is a file. Choose another --out, or remove it.")
    foreign = sorted(one.name for one in path.iterdir() if one.name not in ("vectors.npy", "header.json")) if path.exists() else []
    if foreign:
        raise OutputExistsError(
            f"{path} must hold descriptors to be replaced by descriptors; it holds {foreign[0]!r}, too. Choose another --out."
        )


def _put_in_place(whole: Path, path: Path) -> None:
    """One rename; an older folder goes aside first, and a kill in between leaves the new one to be put in place by the next run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        shutil.rmtree(_aside(path), ignore_errors=True)
        path.replace(_aside(path))
    _sync_folder(whole)
    whole.replace(path)
    _sync_folder(path.parent)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def _sync_folder(folder: Path) -> None:
    """Ask for the folder's entries to be put on the disk; not every system lets a folder be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _reserve(handle: int, size: int) -> None:
    """Take the space now: a full disk is an error at the start, not hours later."""
    try:
        os.posix_fallocate(handle, 0, size)
    except (AttributeError, OSError) as error:
        if getattr(error, "errno", errno.ENOSYS) not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        os.ftruncate(handle, size)  # not every system can


def _write_at(handle: int, data: bytes, start: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, start)
        view, start = view[written:], start + written


def _npy_header(rows: int, dim: int, dtype: np.dtype[Any]) -> bytes:
    """As `np.save` writes it; it has room for any number of rows, so that its length does not depend on it."""
    stream = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows, dim)}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As they are stored: a tuple is a list."""
    found: dict[str, Any] = json.loads(json.dumps(settings))
    return found
