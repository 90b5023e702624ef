"""Descriptors: vectors on disk, memory-mapped, with the names they belong to and the hash of the model that made them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import DamagedFileError, InvalidInputError
from covis.files import atomic_path, check_absent, map_array, read_json, write_json

FORMAT, VERSION = "covis-descriptors", 1


@dataclass(frozen=True, eq=False)
class Descriptors:
    """One vector an image.

    Attributes:
        vectors: (n, d) float32 or float16, usually a memory map.
        names: n image names, in the order of the rows.
        model: the hash of the model that made them.
        history: what was done to them since, and with which settings (whitening and its fit set).

    Raises:
        InvalidInputError: the shapes or the type are wrong, or a name stands twice.

    >>> d = Descriptors(np.eye(2, 3, dtype=np.float32), ("a.jpg", "b.jpg"), model="none")
    >>> len(d), d.dim
    (2, 3)
    """

    vectors: NDArray[np.floating[Any]]
    names: tuple[str, ...]
    model: str
    history: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        if self.vectors.ndim != 2 or self.vectors.dtype not in (np.float32, np.float16):
            raise InvalidInputError(f"Descriptors must be (n, d) float32 or float16; got {self.vectors.dtype} {self.vectors.shape}.")
        if len(self.names) != len(self.vectors):
            raise InvalidInputError(f"Descriptors must have one name a row; got {len(self.names)} names for {len(self.vectors)} rows.")
        if len(set(self.names)) != len(self.names):
            twice = Counter(self.names).most_common(1)[0][0]
            raise InvalidInputError(f"Every image must have one descriptor; {twice!r} stands twice.")

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Descriptors({len(self)} x {self.dim} {self.vectors.dtype}, model {self.model})"

    @property
    def dim(self) -> int:
        """The number of dimensions."""
        return int(self.vectors.shape[1])

    def blocks(self, rows: int = 4096) -> Iterator[NDArray[np.floating[Any]]]:
        """Consecutive blocks of at most `rows` vectors, so that no more need be in memory."""
        for start in range(0, len(self), rows):
            yield np.asarray(self.vectors[start : start + rows])

    def check_finite(self) -> None:
        """Look at every vector.

        Raises:
            InvalidInputError: one holds a NaN or infinity; the message names the image.
        """
        row = 0
        for block in self.blocks():
            bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
            if bad.size:
                raise InvalidInputError(
                    f"Every descriptor must be finite; that of {self.names[row + int(bad[0])]} is not. Extract it again, or mend the model."
                )
            row += len(block)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the folder `vectors.npy` + `header.json`, atomically; returns the path.

        Raises:
            OutputExistsError: the folder is there and `overwrite` is false.
        """
        path = check_absent(path, overwrite=overwrite)
        with atomic_path(path) as folder:
            folder.mkdir()
            np.save(folder / "vectors.npy", self.vectors, allow_pickle=False)
            write_json(folder / "header.json", descriptors_header(self.names, self.dim, str(self.vectors.dtype), self.model, self.history))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Descriptors:
        """Open a folder as a memory map; nothing is read before it is asked for.

        Raises:
            MissingFileError: the folder or a file of it is not there.
            DamagedFileError: a file is truncated or foreign, or the two do not fit.
        """
        path = Path(path)
        header = read_json(path / "header.json", kind=FORMAT, version=VERSION)
        vectors = map_array(path / "vectors.npy")
        try:
            announced = ((len(header["names"]), header["dim"]), header["dtype"])
            if (vectors.shape, str(vectors.dtype)) != announced:
                raise ValueError(f"the vectors are {vectors.dtype} {vectors.shape}, the header says {announced}")
            return cls(vectors, tuple(header["names"]), header["model"], dict(header["history"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(f"{path} must hold descriptors; its parts do not fit ({error}). Extract again.") from error


def descriptors_header(names: tuple[str, ...], dim: int, dtype: str, model: str, history: Mapping[str, Any]) -> dict[str, Any]:
    """What `header.json` holds."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "dim": dim,
        "dtype": dtype,
        "model": model,
        "history": dict(history),
        "names": list(names),
    }
