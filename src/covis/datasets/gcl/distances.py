"""The matrix of distances that GCL's reference of 2021 leaves, in and out: rankings of it, and its average precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.curves import PooledPrecision
from covis.descriptors import Descriptors
from covis.errors import InvalidInputError
from covis.files import atomic_path, check_absent, map_array
from covis.images import Images, Scene
from covis.rankings import Rankings
from covis.truths import Truth

ROWS = 256
"""Queries whose distances are in memory together."""


@dataclass(frozen=True, eq=False)
class Distances:
    """A matrix of distances, queries × database, on the disk.

    Attributes:
        path: the file.
        array: (q, d) memory map, float16 as the reference writes it, or wider.
        query_names: q names.
        database_names: d names.
    """

    path: Path
    array: NDArray[np.floating[Any]]
    query_names: tuple[str, ...]
    database_names: tuple[str, ...]

    def rankings(self, k: int) -> Rankings:
        """The k nearest of each query; of equal distances, which float16 has many of, the first row of the database goes first.

        The reference orders with numpy's default sort, which promises no order among equals: where a positive ties with a negative
        its recall may be another one.
        """
        rows = np.empty((len(self.array), min(k, self.array.shape[1])), dtype=np.int64)
        distances = np.empty(rows.shape, dtype=np.float32)
        for first, block in self.blocks():
            order = np.argsort(block, axis=1, kind="stable")[:, : rows.shape[1]]
            rows[first : first + len(block)] = order
            distances[first : first + len(block)] = np.take_along_axis(block, order, axis=1)
        history = {"distances": {"file": self.path.name, "dtype": str(self.array.dtype)}}
        return Rankings(rows, distances, self.query_names, self.database_names, history)

    def blocks(self) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
        """(number of the first query, distances) of some queries, after a look that they are distances.

        Raises:
            InvalidInputError: one is NaN or below 0; the message names the pair. Beyond float16's 65,504 they are infinite.
        """
        for first in range(0, len(self.array), ROWS):
            block = np.asarray(self.array[first : first + ROWS])
            bad = np.argwhere(~(block >= 0))
            if bad.size:
                row, column = bad[0]
                raise InvalidInputError(
                    f"{self.path} must hold distances, 0 or more; row {first + row} ({self.query_names[first + row]}), column {column} "
                    f"({self.database_names[column]}) holds {block[row, column]}."
                )
            yield first, block


def stored_precision(stored: Sequence[Distances], truths: Sequence[Truth]) -> float:
    """The average precision over all query × database pairs of scenes, of distances as they are stored; NaN without any positive.

    The reference's `eval_AP.py`, with all pairs of a protocol that asks and searches all. Of one scene or of several, pooled.

    Args:
        stored: of each scene.
        truths: what a protocol says of it: its positives, its excluded pairs, and who is asked and searched.

    Raises:
        InvalidInputError: a matrix is not of its scene, or holds what is no distance.
    """
    return _StoredPrecision(stored, truths).value()


class _StoredPrecision(PooledPrecision):
    """The average precision over all pairs, of distances that are not computed but read."""

    def __init__(self, stored: Sequence[Distances], truths: Sequence[Truth]) -> None:
        for one, true in zip(stored, truths, strict=True):
            if true.positives.shape != one.array.shape:
                raise InvalidInputError(f"{one.path} must be (queries, database) = {true.positives.shape}; its shape is {one.array.shape}.")
        self._parts = list(zip(stored, truths, strict=True))
        found = [block[marks] for _, block, marks, _ in self._blocks()]
        self.edges = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.float16)

    def _queries(self) -> int:
        return sum(len(one.array) for one, _ in self._parts)

    def _blocks(self, rows: int = ROWS) -> Iterator[tuple[int, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]]:
        before = 0
        for one, true in self._parts:
            for first, block in one.blocks():
                chosen = slice(first, first + len(block))
                kept = ~true.excluded[chosen].toarray().astype(bool) & true.asked[chosen, None] & true.searched
                yield before + first, block, true.positives[chosen].toarray().astype(bool) & kept, kept
            before += len(one.array)


def read_distances(path: str | Path, scene: Scene) -> Distances:
    """Open a `_distances.npy`; its numbers are looked at as they are used.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is truncated or foreign, or holds objects: no pickle is ever loaded.
        InvalidInputError: it holds no floats, or its shape is not (queries, database).
    """
    array = matrix_of(path, "f", "floats, (queries, database)")
    check_rows(path, array, scene.queries, "queries")
    if array.shape[1] != len(scene.database):
        raise InvalidInputError(
            f"{path} must hold a column for each of the {len(scene.database)} database images of scene {scene.name!r}; its shape is "
            f"{array.shape}. Was it made with other images, or without the panoramas?"
        )
    return Distances(Path(path), array, scene.queries.names, scene.database.names)


def write_distances(described: tuple[Descriptors, Descriptors], path: str | Path, *, overwrite: bool = False) -> Path:
    """Write the distances of descriptors as a `_distances.npy`: Euclidean, in float64, stored as float16 (queries, database).

    Raises:
        InvalidInputError: the two sides are of different models or widths, or one vector is not finite.
        OutputExistsError: the file is there and `overwrite` is false.
    """
    from scipy.spatial.distance import cdist

    queries, database = described
    if (queries.model, queries.dim) != (database.model, database.dim):
        raise InvalidInputError(f"Both sides must be of one model; got {queries} and {database}.")
    for side in described:
        side.check_finite()
    with atomic_path(check_absent(path, overwrite=overwrite)) as temporary:
        if not len(queries) * len(database):
            with temporary.open("wb") as stream:
                np.save(stream, np.zeros((len(queries), len(database)), dtype=np.float16))
            return Path(path)
        out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=(len(queries), len(database)))
        first = 0
        for block in queries.blocks(ROWS):
            column = 0
            for other in database.blocks():
                with np.errstate(over="ignore"):  # what float16 cannot hold is infinite, as in the reference
                    out[first : first + len(block), column : column + len(other)] = cdist(block, other)
                column += len(other)
            first += len(block)
        out.flush()
    return Path(path)


def matrix_of(path: str | Path, kinds: str, what: str) -> np.memmap[Any, Any]:
    """The memory map of a file that must hold a matrix of numbers of these kinds."""
    array = map_array(path)
    if array.dtype.kind not in kinds or array.ndim != 2:
        raise InvalidInputError(f"{path} must hold {what}; it holds {array.dtype} of shape {array.shape}.")
    return array


def check_rows(path: str | Path, array: NDArray[Any], images: Images, what: str) -> None:
    """A row must stand for each image."""
    if len(array) != len(images):
        raise InvalidInputError(
            f"{path} must hold a row for each of the {len(images)} {what} of {images.root}; its shape is {array.shape}. Are these the "
            "images that it was made for, panoramas included?"
        )
