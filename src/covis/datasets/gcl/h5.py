"""GCL's ground truth in HDF5: similarities of queries × database, in and out as `Labels`.

| file | key | shape |
|---|---|---|
| MSLS `train_val/<city>_gt.h5` | `fov` graded, `sim` binary | (queries, database), in the order of query.json and database.json |
| Pittsburgh, Tokyo `gt.h5` and the like | `sim` | the same |
| 7-Scenes `<scene>_gt.h5` | `fov` | (test, train) |
| TB-Places `<name>_similarity.h5`, and what its training reads | `sim`, `fov` | condensed: n (n - 1) / 2, flat or as one row |

A condensed file is of one set against itself: the pairs i < j row by row, as scipy's `squareform` has them. `squareform` puts 0 on the
diagonal, so that GCL's sampler can draw an image as its own hard negative; here an image with itself is excluded, in both shapes.

Files are read and written in blocks: memory holds the pairs above 0 and 4 MB more. What is written carries checksums, and chunks
without a similarity above 0 take no space.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from covis.errors import CovisError, DamagedFileError, InvalidInputError, MissingFileError
from covis.files import atomic_path, check_absent
from covis.hdf5 import h5py
from covis.images import Images
from covis.labels import Labels, self_pairs

BLOCK = 1 << 19
"""Values that are in memory at a time."""
CHUNK = 1 << 15
"""Values in a chunk of the file, at least a row of a dense one, since rows are what is read."""

Compression: TypeAlias = Literal["gzip", "none"]
_Entries = tuple[NDArray[np.int64], NDArray[np.float64]]


def read_labels(path: str | Path, queries: Images, database: Images, *, key: str = "auto") -> Labels:
    """Read labels from GCL's HDF5.

    A file of queries × database values is dense, whether it has that shape, is flat or is one row; where both sides are the same
    images, a file of n (n - 1) / 2 values is condensed. The two counts are never the same.

    Args:
        path: the file.
        queries: the images of its rows, in their order.
        database: the images of its columns; the same as `queries` for a condensed file.
        key: "fov" (graded), "sim" (binary), or whatever the file calls it; "auto" is "fov" where the file has it, else "sim".

    Returns:
        Labels of rule "gcl-h5" with the parameters `key` and `file`. Stored float16 and float32 become the float64 of that value.

    Raises:
        MissingExtraError: h5py is not installed.
        MissingFileError: there is no such file.
        DamagedFileError: it is no HDF5 file, or truncated.
        InvalidInputError: the key is not there, holds no numbers or another count of them, or a value is not in [0, 1].
    """
    path = Path(path)
    with _opened(path) as file:
        if key == "auto":
            key = "sim" if "sim" in file and "fov" not in file else "fov"
        stored = _stored(path, file, key)
        shape = (len(queries), len(database))
        condensed = _is_condensed(path, key, stored.shape, sides=(queries, database))
        place = _triangle(len(queries)) if condensed else lambda flat: np.divmod(flat, max(1, shape[1]))
        parts = [_checked(path, key, *block, place=place, sides=(queries, database)) for block in _blocks(stored)]
    flat, values = (np.concatenate(part) for part in zip(*parts, strict=True)) if parts else (np.zeros(0, np.int64), np.zeros(0))
    rows, found = (index.astype(np.int32) for index in place(flat))
    if condensed:
        rows, found, values = np.concatenate([rows, found]), np.concatenate([found, rows]), np.concatenate([values, values])
    matrix = sparse.csr_array((values, (rows, found)), shape=shape)
    parameters = {"key": key, "file": path.name}
    return Labels(matrix, queries.names, database.names, rule="gcl-h5", parameters=parameters, excluded=self_pairs(queries, database))


def write_labels(
    labels: Labels,
    path: str | Path,
    *,
    key: str = "fov",
    condensed: bool = False,
    also_binary: float | None = None,
    dtype: Literal["float64", "float32"] = "float64",
    compression: Compression = "gzip",
    overwrite: bool = False,
) -> Path:
    """Write labels as GCL's HDF5, atomically: the inverse of `read_labels`; returns the path.

    Args:
        labels: excluded pairs become 0, since the format has no place for them.
        path: where to.
        key: the name that the similarities get; GCL reads "fov".
        condensed: the pairs i < j alone, as one row: for labels of one set against itself.
        also_binary: a similarity in (0, 1]: under the key "sim" is written 1 where it is reached, else 0. GCL's binary training needs
            both keys.
        dtype: "float64" is exact. "float32" is half as large, and 0.49999999999999994 becomes 0.5, which then counts as positive (GCL
            compares in float32 whatever is stored).
        compression: "gzip" or "none".
        overwrite: replace a file that is there.

    Raises:
        MissingExtraError: h5py is not installed.
        InvalidInputError: an option is none of the above, or `condensed` and the labels are not of one set against itself, not
            symmetric, or say something of an image and itself.
        OutputExistsError: the file is there and `overwrite` is false.
        OutputFailedError: the system refused the write.
    """
    library = h5py()
    path = check_absent(path, overwrite=overwrite)
    if not key or "/" in key or "\0" in key or key == "." or (key == "sim" and also_binary is not None):
        raise InvalidInputError(f"The key must be a name without '/', other than 'sim' beside also_binary; got {key!r}.")
    if dtype not in ("float64", "float32") or compression not in ("gzip", "none"):
        raise InvalidInputError(f"dtype must be 'float64' or 'float32', compression 'gzip' or 'none'; got {dtype!r} and {compression!r}.")
    entries: dict[str, tuple[_Entries, str]] = {key: (_condensed(labels, labels.matrix) if condensed else _dense(labels.matrix), dtype)}
    if also_binary is not None:
        positives = sparse.csr_array(labels.positives(also_binary), dtype=np.float64)
        entries["sim"] = (_condensed(labels, positives) if condensed else _dense(positives), "uint8")
    n = len(labels.query_names)
    shape = (1, n * (n - 1) // 2) if condensed else labels.matrix.shape
    with atomic_path(path) as temporary, _Patient(temporary, "w+") as stream:
        # the format of 2018 has checksums in its own structures too
        with library.File(stream, "w", libver=("v110", "v110")) as file:
            for name, (entry, kind) in entries.items():
                _store(file, name, entry, shape=shape, kind=kind, compression=compression)
        if stream.failure is not None:
            raise stream.failure
    return path


class _Patient(io.FileIO):
    """A file that keeps a failed write to itself until it is asked, since HDF5 crashes the process on a full disk."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        left = memoryview(data).cast("B")
        try:
            while left and self.failure is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.failure = error
        return len(data)

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, opened to be read; whatever HDF5 finds wrong inside is an error of ours that names it."""
    library = h5py()
    if not path.is_file():
        raise MissingFileError(f"The ground truth {path} must exist; there is no such file.")
    try:
        with library.File(path, "r", rdcc_nbytes=1 << 25) as file:
            yield file
    except CovisError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise DamagedFileError(f"{path} must be a whole HDF5 file; it is truncated or foreign ({error}). Fetch it again.") from error


def _stored(path: Path, file: Any, key: str) -> Any:
    """The array of numbers under that key."""
    keys = sorted(file.keys())
    if key not in keys:
        raise InvalidInputError(f"{path} must hold the key {key!r}; it holds {', '.join(keys) or 'none'}. Name one of them.")
    stored = file[key]
    if getattr(stored, "shape", None) is None or stored.dtype.kind not in "fiub":
        kind = getattr(stored, "dtype", type(stored).__name__)
        raise InvalidInputError(f"{path}: {key!r} must be an array of numbers in [0, 1]; it is {kind}. Name another key.")
    return stored


def _is_condensed(path: Path, key: str, shape: tuple[int, ...], *, sides: tuple[Images, Images]) -> bool:
    queries, database = sides
    n, d = len(queries), len(database)
    count = int(np.prod(shape, dtype=object))
    line = len(shape) == 1 or (len(shape) == 2 and 1 in shape)  # flat, or one row or column
    if shape == (n, d) or (line and count == n * d):
        return False
    if n == d and line and count == n * (n - 1) // 2:
        if (queries.same_files(database) != np.arange(n)).any():
            raise InvalidInputError(f"{path}: {key!r} is condensed, so that both sides must be the same images in the same order.")
        return True
    turned = " It has the two sides exchanged: rows must be the queries." if shape == (d, n) else ""
    whole = f", or {n * (n - 1) // 2} condensed" if n == d else ""
    raise InvalidInputError(
        f"{path}: {key!r} must hold {n} queries x {d} database images{whole}; its shape is {shape}.{turned} Are these the images that it "
        "was made for, panoramas included?"
    )


def _blocks(stored: Any) -> Iterator[tuple[int, NDArray[Any]]]:
    """(how many values come before it, values) of each block, in the order of the file."""
    shape = stored.shape
    if len(shape) == 2 and shape[0] > 1:
        high = max(1, BLOCK // max(1, shape[1]))
        if stored.chunks and stored.chunks[0] <= high:
            high -= high % stored.chunks[0]  # whole chunks, so that each is decompressed once
        for row in range(0, shape[0], high):
            yield row * shape[1], stored[row : row + high].reshape(-1)
    else:
        for start in range(0, shape[-1], BLOCK):
            yield start, stored[..., start : start + BLOCK].reshape(-1)


def _checked(
    path: Path, key: str, before: int, values: NDArray[Any], *, place: Callable[[NDArray[np.int64]], Any], sides: tuple[Images, Images]
) -> _Entries:
    """The places and values above 0 of a block, after a look that all are in [0, 1]."""
    bad = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if bad.size:
        row, column = (int(index[0]) for index in place(before + bad[:1]))
        names = sides[0].names[row], sides[1].names[column]
        raise InvalidInputError(
            f"{path}: {key!r} must hold numbers in [0, 1]; row {row} ({names[0]}), column {column} ({names[1]}) holds {values[bad[0]]}."
        )
    found = np.flatnonzero(values)
    return found + before, values[found].astype(np.float64)


def _triangle(n: int) -> Callable[[NDArray[np.int64]], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """From a place in the condensed form to row and column."""
    i = np.arange(n, dtype=np.int64)
    first = i * n - i * (i + 1) // 2  # where row i begins

    def split(flat: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        row = np.searchsorted(first, flat, side="right") - 1
        return row, flat - first[row] + row + 1

    return split


def _dense(matrix: sparse.csr_array) -> _Entries:
    rows, columns = matrix.tocoo().coords
    return rows.astype(np.int64) * matrix.shape[1] + columns, matrix.data


def _condensed(labels: Labels, matrix: sparse.csr_array) -> _Entries:
    n = matrix.shape[0]
    if labels.query_names != labels.database_names:
        raise InvalidInputError("Labels written condensed must be of one set against itself; their queries and database differ.")
    differ = sparse.coo_array(matrix != matrix.T)
    if differ.nnz:
        a, b = (labels.query_names[int(index[0])] for index in differ.coords)
        raise InvalidInputError(f"Labels written condensed must be symmetric; that of {a} and {b} is not that of {b} and {a}.")
    if matrix.diagonal().any():
        name = labels.query_names[int(np.flatnonzero(matrix.diagonal())[0])]
        raise InvalidInputError(f"Labels written condensed can say nothing of an image with itself; {name} does. Exclude these pairs.")
    upper = sparse.coo_array(sparse.triu(matrix, 1, format="csr"))
    i, j = (index.astype(np.int64) for index in upper.coords)
    return i * n - i * (i + 1) // 2 + (j - i - 1), upper.data


def _store(file: Any, name: str, entries: _Entries, *, shape: tuple[int, int], kind: str, compression: Compression) -> None:
    """Make one array, block by block; what holds no value above 0 is never written, and reads as 0."""
    flat, values = entries
    height, width = shape
    options: dict[str, Any] = {}
    if height * width:
        tall = max(1, min(height, CHUNK // width))
        wide = min(width, CHUNK) if height == 1 else width
        options = {"chunks": (tall, wide), "fletcher32": True}
        options |= {"compression": "gzip", "compression_opts": 1} if compression == "gzip" else {}
    stored = file.create_dataset(name, shape=shape, dtype=kind, track_times=False, **options)
    if not height * width:
        return
    tall, wide = options["chunks"]
    step = wide if height == 1 else tall * width
    for start in range(0, height * width, step):
        stop = min(start + step, height * width)
        first, last = np.searchsorted(flat, [start, stop])
        if first == last:
            continue
        block = np.zeros(stop - start, dtype=kind)
        block[flat[first:last] - start] = values[first:last]
        if height == 1:
            stored[0, start:stop] = block
        else:
            stored[start // width : stop // width] = block.reshape(-1, width)
