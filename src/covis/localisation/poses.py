"""Poses: where each query was taken, as it is estimated, and which database images say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import DamagedFileError, InvalidInputError
from covis.files import check_absent, decode_names, encode_names, load_arrays, save_arrays
from covis.geometry import check_rigid

FORMAT, VERSION = "covis-poses", 1
_ARRAYS = ("pose", "rows", "weights", "names_queries", "names_database")


@dataclass(frozen=True, eq=False)
class Poses:
    """Estimated poses of queries; one that could not be localised is missing.

    Attributes:
        names: q names of queries, each once.
        pose: (q, 4, 4) float64 camera-to-world, metres, OpenCV axes; NaN throughout where the pose is missing.
        rows: (q, k) int64 the database images that each was made of, best first; -1 for none. (q, 0) where that is not known.
        weights: (q, k) float64, 1 together; 0 where the row is -1.
        database_names: what `rows` index.
        history: how they were made: method, k, and what the rankings say of themselves.

    Raises:
        InvalidInputError: a name stands twice, a shape does not fit, or a pose is neither missing nor a rigid motion.

    >>> found = Poses(("a.jpg", "b.jpg"), np.stack([np.eye(4), np.full((4, 4), np.nan)]))
    >>> found, found.missing
    (Poses(2 queries, 1 without a pose), ('b.jpg',))
    """

    names: tuple[str, ...]
    pose: NDArray[np.float64]
    rows: NDArray[np.int64] | None = None
    weights: NDArray[np.float64] | None = None
    database_names: tuple[str, ...] = ()
    history: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names, count = tuple(self.names), len(self.names)
        pose = np.array(self.pose, dtype=np.float64)
        rows = np.zeros((count, 0), dtype=np.int64) if self.rows is None else np.array(self.rows, dtype=np.int64)
        weights = np.zeros(rows.shape) if self.weights is None else np.array(self.weights, dtype=np.float64)
        if len(set(names)) < count:
            raise InvalidInputError(f"Each query must have one pose; {Counter(names).most_common(1)[0][0]!r} stands twice. Remove one.")
        if pose.shape != (count, 4, 4) or rows.ndim != 2 or len(rows) != count or weights.shape != rows.shape:
            raise InvalidInputError(
                f"Poses of {count} queries must be ({count}, 4, 4), with rows and weights ({count}, k); got {pose.shape}, {rows.shape} and "
                f"{weights.shape}."
            )
        if rows.size and not -1 <= rows.min() <= rows.max() < len(self.database_names):
            raise InvalidInputError(f"The rows that poses were made of must be in [0, {len(self.database_names)}), or -1.")
        if not np.isfinite(weights).all() or weights[rows < 0].any():
            raise InvalidInputError("The weights of poses must be finite, and 0 where no image stands.")
        known: NDArray[np.bool_] = np.asarray(~np.isnan(pose).reshape(count, 16).all(axis=1))
        check_rigid(pose[known], names=[name for name, one in zip(names, known.tolist(), strict=True) if one])
        values = {"names": names, "pose": pose, "rows": rows, "weights": weights, "database_names": tuple(self.database_names)}
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Poses({len(self)} queries, {len(self.missing)} without a pose)"

    @property
    def located(self) -> NDArray[np.bool_]:
        """(q,) bool: has a pose."""
        return np.asarray(~np.isnan(self.pose[:, 0, 0]))

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of the queries without a pose."""
        return tuple(name for name, there in zip(self.names, self.located, strict=True) if not there)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write one `.npz` without pickle; returns the path.

        Raises:
            OutputExistsError: the file is there and `overwrite` is false.
        """
        path = check_absent(path, overwrite=overwrite)
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in ("pose", "rows", "weights")}
        arrays |= {"names_queries": encode_names(self.names), "names_database": encode_names(self.database_names)}
        header = {"format": FORMAT, "version": VERSION, "convention": "camera-to-world", "history": dict(self.history)}
        return save_arrays(path, header, arrays)

    @classmethod
    def load(cls, path: str | Path) -> Poses:
        """The inverse of `save`.

        Raises:
            MissingFileError: there is no such file.
            DamagedFileError: it is truncated, foreign or inconsistent.
        """
        header, arrays = load_arrays(path, kind=FORMAT, version=VERSION, names=_ARRAYS)
        try:
            names, database = (decode_names(arrays[side]) for side in ("names_queries", "names_database"))
            return cls(names, arrays["pose"], arrays["rows"], arrays["weights"], database, dict(header["history"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedFileError(f"{path} must hold poses; its parts do not fit ({error}). Localise again.") from error
