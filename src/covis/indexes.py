"""Indexes: vectors in, rankings out. The exact one, through FAISS (imported here alone)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

import numpy as np
from numpy.typing import NDArray

from covis.descriptors import Descriptors
from covis.errors import DamagedFileError, InvalidInputError, MissingExtraError
from covis.files import atomic_path, check_absent, read_json, write_json
from covis.lookup import resolve
from covis.rankings import Rankings

FORMAT, VERSION = "covis-index", 1


class Index(Interface):
    """What every index can do."""

    def add(self, descriptors: Descriptors) -> None:
        """Take in more vectors."""

    def search(self, queries: Descriptors, *, k: int) -> Rankings:
        """The k nearest of each query, best first."""

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write it to a folder."""

    def __len__(self) -> int: ...


class ExactIndex:
    """Exact search by Euclidean distance, straight from the descriptors' memory maps.

    >>> index = ExactIndex()
    >>> index.add(Descriptors(np.eye(3, dtype=np.float32), ("a", "b", "c"), model="none"))
    >>> found = index.search(Descriptors(np.float32([[0.1, 0.9, 0.0]]), ("q",), model="none"), k=2)
    >>> [found.database_names[row] for row in found.rows[0]]
    ['b', 'a']
    """

    def __init__(self) -> None:
        self.shards: list[Descriptors] = []

    def __len__(self) -> int:
        return sum(len(shard) for shard in self.shards)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order of the rows."""
        return tuple(name for shard in self.shards for name in shard.names)

    def add(self, descriptors: Descriptors) -> None:
        """Take in more vectors of the same model and whitening; nothing is copied.

        Raises:
            InvalidInputError: another model, whitening or dimension, a name that is there already, or a vector that is not finite.
        """
        if self.shards:
            _check_alike(self.shards[0], descriptors)
            known = set(self.names)
            twice = next((name for name in descriptors.names if name in known), None)
            if twice is not None:
                raise InvalidInputError(f"Every image must be in the index once; {twice!r} is there already.")
        descriptors.check_finite()
        self.shards.append(descriptors)

    def search(self, queries: Descriptors, *, k: int) -> Rankings:
        """The k nearest database images of each query, best first; all of them where there are fewer than k.

        Raises:
            InvalidInputError: k < 1, an empty index, or queries of another model, whitening or dimension.
            MissingExtraError: faiss is not installed.
        """
        if k < 1 or not len(self):
            raise InvalidInputError(f"A search needs k >= 1 and an index that is not empty; got k = {k}, {len(self)} vectors.")
        _check_alike(self.shards[0], queries)
        queries.check_finite()
        asked = np.ascontiguousarray(queries.vectors, dtype=np.float32)
        distances, rows = _merged(
            [_nearest(asked, shard, min(k, len(shard))) for shard in self.shards if len(shard)],
            [len(shard) for shard in self.shards if len(shard)],
            min(k, len(self)),
        )
        history = {"model": queries.model, "database": dict(self.shards[0].history), "index": "exact", "distance": "euclidean"}
        return Rankings(rows, np.sqrt(np.maximum(distances, 0)), queries.names, self.names, history)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write a folder: `index.json` and a folder of descriptors a shard; returns the path.

        Raises:
            OutputExistsError: the folder is there and `overwrite` is false.
        """
        path = check_absent(path, overwrite=overwrite)
        with atomic_path(path) as folder:
            folder.mkdir()
            for number, shard in enumerate(self.shards):
                shard.save(folder / f"shard-{number:04d}")
            write_json(folder / "index.json", {"format": FORMAT, "version": VERSION, "kind": "exact", "shards": len(self.shards)})
        return path

    @classmethod
    def load(cls, path: str | Path) -> ExactIndex:
        """The inverse of `save`; vectors stay memory-mapped.

        Raises:
            MissingFileError: a file is not there.
            DamagedFileError: a file is truncated or foreign.
        """
        header = read_json(Path(path) / "index.json", kind=FORMAT, version=VERSION)
        index = cls()
        if not isinstance(header.get("shards"), int):
            raise DamagedFileError(f"{Path(path) / 'index.json'} must say how many shards there are; it says {header.get('shards')!r}.")
        for number in range(header["shards"]):
            index.add(Descriptors.load(Path(path) / f"shard-{number:04d}"))
        return index


def index(descriptors: Descriptors | Sequence[Descriptors], *, kind: str = "exact") -> Index:
    """Make an index of descriptors.

    Args:
        descriptors: of one model and whitening; several sets become one index.
        kind: a name of `INDEXES`, or `module:class`.

    Raises:
        UnknownNameError: no index has that name.
        InvalidInputError: the sets do not belong together.
    """
    made = resolve(kind, INDEXES, what="index")()
    for one in [descriptors] if isinstance(descriptors, Descriptors) else descriptors:
        made.add(one)
    return made


def load_index(path: str | Path) -> Index:
    """Open a saved index of any kind.

    Raises:
        MissingFileError: there is no index.
        DamagedFileError: a file is truncated or foreign.
    """
    header = read_json(Path(path) / "index.json", kind=FORMAT, version=VERSION)
    kind = header.get("kind")
    if kind not in INDEXES:  # a file must not choose what code is imported, so no `module:class` here
        raise DamagedFileError(f"{path} must be an index of a kind that covis knows ({', '.join(INDEXES)}); its header says {kind!r}.")
    return INDEXES[kind].load(path)


def _check_alike(first: Descriptors, other: Descriptors) -> None:
    def settings(one: Descriptors) -> tuple[Any, ...]:
        whitened: Mapping[str, Any] | None = one.history.get("whitened")
        return one.model, one.dim, None if whitened is None else dict(whitened)

    if settings(first) != settings(other):
        raise InvalidInputError(
            "All descriptors of a search must come from one model, one whitening and have one dimension; got "
            f"{settings(first)} and {settings(other)}."
        )


def _nearest(queries: NDArray[np.float32], shard: Descriptors, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("Searching needs the library faiss, which is not installed; `pip install faiss-cpu` brings it.") from error
    squared, rows = faiss.knn(queries, np.ascontiguousarray(shard.vectors, dtype=np.float32), k)
    return squared, rows


def _merged(
    found: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]], sizes: Sequence[int], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    first = np.cumsum([0, *sizes[:-1]])
    squared = np.concatenate([part[0] for part in found], axis=1)
    rows = np.concatenate([part[1] + start for part, start in zip(found, first, strict=True)], axis=1)
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(squared, order, axis=1), np.take_along_axis(rows, order, axis=1)


INDEXES: dict[str, type[ExactIndex]] = {"exact": ExactIndex}
"""Name -> index class."""
