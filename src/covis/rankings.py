"""Rankings: for each query the database images found, best first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import DamagedFileError, InvalidInputError
from covis.files import check_absent, decode_names, encode_names, load_arrays, save_arrays, write_text

FORMAT, VERSION = "covis-rankings", 1


@dataclass(frozen=True, eq=False)
class Rankings:
    """What a search found.

    Attributes:
        rows: (q, k) int64 database rows, best first, each at most once a query; -1 for what is no image of the database: it
            takes its rank and is never correct.
        distances: (q, k) float32, non-decreasing along a row; NaN where unknown.
        query_names: q names.
        database_names: n names, what `rows` index.
        history: how it was made: the descriptors' model, their whitening, the index.

    Raises:
        InvalidInputError: a shape does not fit, a row is outside the database or stands twice; the message names the query.

    >>> found = Rankings([[1, 0]], [[0.1, 0.5]], ("q.jpg",), ("a.jpg", "b.jpg"))
    >>> found.database_names[found.rows[0, 0]]
    'b.jpg'
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.float32]
    query_names: tuple[str, ...]
    database_names: tuple[str, ...]
    history: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = np.ascontiguousarray(self.rows, dtype=np.int64)
        distances = np.ascontiguousarray(self.distances, dtype=np.float32)
        if rows.ndim != 2 or rows.shape != distances.shape or len(rows) != len(self.query_names):
            raise InvalidInputError(
                f"Rankings must be (queries, k) rows and distances for {len(self.query_names)} queries; got {rows.shape} "
                f"and {distances.shape}."
            )
        outside = np.flatnonzero(((rows < -1) | (rows >= len(self.database_names))).any(axis=1))
        if outside.size:
            query = self.query_names[outside[0]]
            raise InvalidInputError(
                f"A ranking's rows must be in [0, {len(self.database_names)}), or -1; that of {query} holds {rows[outside[0]].tolist()}."
            )
        ordered = np.sort(rows, axis=1)
        twice = np.flatnonzero(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1))
        if twice.size:
            raise InvalidInputError(
                f"A ranking must name a database image once; that of {self.query_names[twice[0]]} names one twice. Remove the repeats."
            )
        # The largest so far, unknown ones apart: those between two unknown distances are compared too.
        falling = np.flatnonzero((distances[:, 1:] < np.fmax.accumulate(distances, axis=1)[:, :-1]).any(axis=1))
        if falling.size:
            raise InvalidInputError(
                f"Distances must not decrease along a ranking (best first); those of {self.query_names[falling[0]]} do."
            )
        values = {
            "rows": rows,
            "distances": distances,
            "query_names": tuple(self.query_names),
            "database_names": tuple(self.database_names),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Rankings({len(self)} queries, first {self.k} of {len(self.database_names)})"

    @property
    def k(self) -> int:
        """How many were asked for."""
        return int(self.rows.shape[1])

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write one `.npz` without pickle, or with the suffix .txt the prediction text of MSLS; returns the path.

        The text holds a line a query: its name, then the names found, best first, separated by spaces. Distances and
        history are not in it; `covis.predictions.Predictions` reads it.

        Raises:
            OutputExistsError: the file is there and `overwrite` is false.
            InvalidInputError: a name has white space or a #, or a row is -1, which the text format cannot hold.
        """
        path = check_absent(path, overwrite=overwrite)
        if path.suffix == ".txt":
            return self._save_text(path)
        arrays: dict[str, NDArray[Any]] = {"rows": self.rows, "distances": self.distances}
        arrays |= {"names_queries": encode_names(self.query_names), "names_database": encode_names(self.database_names)}
        return save_arrays(path, {"format": FORMAT, "version": VERSION, "history": dict(self.history)}, arrays)

    def _save_text(self, path: Path) -> Path:
        unfit = [name for name in (*self.query_names, *self.database_names) if len(name.split()) != 1 or "#" in name]
        if unfit:
            raise InvalidInputError(
                f"A prediction text separates names by spaces, and # begins a comment; {unfit[0]!r} cannot stand in it. Write .npz instead."
            )
        if (self.rows < 0).any():
            raise InvalidInputError(
                f"A prediction text holds names; the ranking of {self.query_names[int(np.argwhere(self.rows < 0)[0, 0])]} holds what is "
                "no image of the database. Write .npz instead."
            )
        lines = [
            " ".join([query, *(self.database_names[row] for row in rows)]) for query, rows in zip(self.query_names, self.rows, strict=True)
        ]
        return write_text(path, "\n".join(lines) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Rankings:
        """Read the `.npz` that `save` wrote.

        Raises:
            MissingFileError: there is no such file.
            DamagedFileError: it is truncated, foreign or inconsistent.
        """
        header, arrays = load_arrays(path, kind=FORMAT, version=VERSION, names=("rows", "distances", "names_queries", "names_database"))
        try:
            return cls(
                arrays["rows"],
                arrays["distances"],
                decode_names(arrays["names_queries"]),
                decode_names(arrays["names_database"]),
                dict(header["history"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedFileError(f"{path} must hold rankings; its parts do not fit ({error}). Search again.") from error
