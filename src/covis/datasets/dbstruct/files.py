"""The MATLAB file of NetVLAD's data sets: one variable `dbStruct`, read by its fields' names, and its inverse.

    whichSet                                  "train", "val" or "test"
    dbImageFns, qImageFns                     cells of relative names
    utmDb, utmQ                               2 x N metres, east then north
    dbTimeStamp, qTimeStamp                   of Tokyo Time Machine alone
    numImages, numQueries                     how many there are
    posDistThr, posDistSqThr                  25 m, and its square
    nonTrivPosDistSqThr                       square of the training radius, 100

Count and order of the fields differ between files, so that a field's place says nothing as long as it has its name. Only
where no name is known (a file that Python wrote from a tuple) the two orders of NetVLAD's own files count: 10 fields, and
12 with the time stamps. The fields are those of R. Arandjelović's NetVLAD (dbBase.m, dbTokyoTimeMachine.m).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.datasets.dbstruct.matlab import read_variable, write_variable
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError

Stamps: TypeAlias = NDArray[np.float64] | tuple[str, ...]

_TEN = (
    "whichSet", "dbImageFns", "utmDb", "qImageFns", "utmQ",
    "numImages", "numQueries", "posDistThr", "posDistSqThr", "nonTrivPosDistSqThr",
)  # fmt: skip
_TWELVE = (*_TEN[:3], "dbTimeStamp", *_TEN[3:5], "qTimeStamp", *_TEN[5:])
_ALSO = {"dbImage": "dbImageFns", "qImage": "qImageFns", "numDb": "numImages", "numQ": "numQueries"}
"""What Python programs call the same fields."""
_NEEDED = ("dbImageFns", "utmDb", "qImageFns", "utmQ")


@dataclass(frozen=True)
class DbStruct:
    """What one file says; numbers as they stand there.

    Attributes:
        which: the split that the file names; "" where it names none.
        database: names of the images that are searched.
        queries: names of the images that ask.
        database_xy: (n, 2) metres.
        queries_xy: (q, 2) metres.
        database_times: n time stamps, numbers or text; None where the file has none.
        queries_times: likewise.
        radius: posDistThr, metres; None where the file does not say.
        training_radius_squared: nonTrivPosDistSqThr, square metres.
        dataset: the name of the set, where the file says one.
        fields: the file's own fields, in their order.
    """

    which: str
    database: tuple[str, ...]
    queries: tuple[str, ...]
    database_xy: NDArray[np.float64]
    queries_xy: NDArray[np.float64]
    database_times: Stamps | None = None
    queries_times: Stamps | None = None
    radius: float | None = 25.0
    training_radius_squared: float | None = 100.0
    dataset: str = ""
    fields: tuple[str, ...] = ()


def read_struct(path: str | Path) -> DbStruct:
    """Read the variable `dbStruct` of a MATLAB 5 file (what MATLAB saves with -v7 and -v6, and scipy.io.savemat).

    A position array of 2 x N or N x 2 is told by the number of names; with two names it is taken as 2 x N, MATLAB's own. A single
    coordinate is taken as east, on a line.
    Text cells and numbers alone are read: nothing is ever unpickled.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is empty, truncated, of another kind (MATLAB 7.3 too), has no `dbStruct`, or its fields do not fit.
        InvalidInputError: a name leads out of the data set's folder.

    Warns:
        CovisWarning: the fields are taken by their place, or positions have one coordinate.
    """
    path = Path(path)
    values, fields = _fields(read_variable(path, "dbStruct"), path)
    missing = [name for name in _NEEDED if name not in values]
    if missing:
        raise DamagedFileError(f"{path}: dbStruct must have the fields {', '.join(missing)}; it has {', '.join(fields)}.")
    names = {field: _names(values[field], path, field) for field in ("dbImageFns", "qImageFns")}
    for count, field in (("numImages", "dbImageFns"), ("numQueries", "qImageFns")):
        said = _number(values, count, path)
        if said is not None and said != len(names[field]):
            raise DamagedFileError(f"{path}: {count} must be the number of names in {field}, {len(names[field])}; found {said:g}.")
    counts = len(names["dbImageFns"]), len(names["qImageFns"])
    return DbStruct(
        _text(values, "whichSet", path),
        names["dbImageFns"],
        names["qImageFns"],
        _positions(values["utmDb"], counts[0], path, "utmDb"),
        _positions(values["utmQ"], counts[1], path, "utmQ"),
        _stamps(values.get("dbTimeStamp"), counts[0], path, "dbTimeStamp"),
        _stamps(values.get("qTimeStamp"), counts[1], path, "qTimeStamp"),
        _number(values, "posDistThr", path),
        _number(values, "nonTrivPosDistSqThr", path),
        _text(values, "dataset", path),
        fields,
    )


def write_struct(path: str | Path, held: DbStruct) -> Path:
    """Write `dbStruct` as NetVLAD's files have it: 12 fields where both sides have time stamps, else 10; returns the path.

    The same content gives the same bytes: the date that the format's header usually holds is left out.

    Raises:
        OutputFailedError: the system refused the write.
    """
    radius, training = 25.0 if held.radius is None else held.radius, held.training_radius_squared
    value: dict[str, Any] = {
        "whichSet": held.which,
        "dbImageFns": _cells(held.database),
        "utmDb": held.database_xy.T,
        "dbTimeStamp": held.database_times,
        "qImageFns": _cells(held.queries),
        "utmQ": held.queries_xy.T,
        "qTimeStamp": held.queries_times,
        "numImages": float(len(held.database)),  # MATLAB counts in doubles
        "numQueries": float(len(held.queries)),
        "posDistThr": radius,
        "posDistSqThr": radius**2,
        "nonTrivPosDistSqThr": 100.0 if training is None else training,
    }
    order = _TEN if held.database_times is None or held.queries_times is None else _TWELVE
    return write_variable(path, "dbStruct", {name: value[name] for name in order})


def _cells(names: Sequence[str]) -> NDArray[Any]:
    """A column of text cells."""
    cells = np.empty((len(names), 1), dtype=object)
    cells[:, 0] = names
    return cells


def _fields(variable: Any, path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The fields by their MATLAB names, and what the file calls them."""
    if isinstance(variable, dict):
        values = {str(_ALSO.get(name, name)): value for name, value in variable.items()}
        if len(values) < len(variable):
            raise DamagedFileError(f"{path}: dbStruct must have each field once; it has {', '.join(variable)}.")
        if set(values) & {*_NEEDED, *_ALSO.values()}:
            return values, tuple(variable)
        return _by_place(list(variable.values()), path), tuple(variable)
    if variable.dtype == object:
        return _by_place(list(variable.ravel()), path), tuple(f"cell {place}" for place in range(variable.size))
    raise DamagedFileError(f"{path}: dbStruct must be one struct; found {_kind(variable)}.")


def _by_place(values: Sequence[Any], path: Path) -> dict[str, Any]:
    """The fields by their place: Tokyo Time Machine's order is told by its twelve fields, of which the fifth holds names."""
    order = {len(_TEN): _TEN, len(_TWELVE): _TWELVE}.get(len(values))
    if order is None:
        raise DamagedFileError(
            f"{path}: dbStruct must have fields of the names {', '.join(_NEEDED)}, or none that are known and {len(_TEN)} or "
            f"{len(_TWELVE)} of them in NetVLAD's order; it has {len(values)}. Save it again with its fields' names."
        )
    warnings.warn(
        f"{path}: dbStruct has no field by a known name; its {len(values)} fields are taken in NetVLAD's order, {', '.join(order)}.",
        CovisWarning,
        stacklevel=4,
    )
    return dict(zip(order, values, strict=True))


def _names(value: Any, path: Path, field: str) -> tuple[str, ...]:
    rows: list[Any] = []
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":  # a matrix of characters: a row a name, filled with blanks
        rows = [str(text).rstrip() for text in value.ravel()]
    elif isinstance(value, np.ndarray) and value.dtype == object and (value.ndim < 2 or min(value.shape) <= 1):
        rows = [_one_text(cell) for cell in value.ravel()]
    if not rows:
        raise DamagedFileError(f"{path}: {field} must be a column of names; found {_kind(value)}.")
    for row, name in enumerate(rows, start=1):
        if not isinstance(name, str) or not name or any(c in name for c in "\n\r\0"):
            raise DamagedFileError(f"{path}: {field}, row {row}: a name must be text in one line, and not empty; found {name!r}.")
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or name[1:2] == ":":
            raise InvalidInputError(f"{path}: {field}, row {row}: a name must stay in the data set's folder; found {name!r}.")
    return tuple(name.removeprefix("./") for name in rows)


def _one_text(cell: Any) -> Any:
    """The text in a cell, or what else is there."""
    if isinstance(cell, np.ndarray) and cell.dtype.kind == "U" and cell.size <= 1:
        return str(cell.ravel()[0]) if cell.size else ""
    return cell


def _positions(value: Any, count: int, path: Path, field: str) -> NDArray[np.float64]:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.shape in ((1, count), (count, 1)):
        warnings.warn(
            f"{path}: {field} has one coordinate for each name, as seqNet's Nordland has; it is taken as east, and north is 0.",
            CovisWarning,
            stacklevel=3,
        )
        value = np.stack([value.ravel(), np.zeros(count)])
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or value.shape not in ((2, count), (count, 2)):
        raise DamagedFileError(f"{path}: {field} must be 2 x {count} numbers, a column for each name; found {_kind(value)}.")
    return np.ascontiguousarray(value.T if value.shape == (2, count) else value, dtype=np.float64)


def _stamps(value: Any, count: int, path: Path, field: str) -> Stamps | None:
    if value is None or not isinstance(value, np.ndarray) or value.size == 0:
        return None
    if value.dtype == object:
        cells = [_one_text(cell) for cell in value.ravel()]
        if all(isinstance(cell, np.ndarray) and cell.dtype.kind in "fiu" and cell.size == 1 for cell in cells):
            value = np.array([float(cell.ravel()[0]) for cell in cells])
        elif all(isinstance(cell, str) for cell in cells):
            value = np.array(cells)
    if value.dtype.kind not in "fiuU" or value.size != count:
        raise DamagedFileError(f"{path}: {field} must be {count} numbers or texts, one for each name; found {_kind(value)}.")
    return tuple(str(text).strip() for text in value.ravel()) if value.dtype.kind == "U" else value.ravel().astype(np.float64)


def _number(values: Mapping[str, Any], field: str, path: Path) -> float | None:
    value = values.get(field)
    if value is None or (isinstance(value, np.ndarray) and value.size == 0):
        return None
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or value.size != 1 or not np.isfinite(value).all():
        raise DamagedFileError(f"{path}: {field} must be one number; found {_kind(value)}.")
    return float(value.ravel()[0])


def _text(values: Mapping[str, Any], field: str, path: Path) -> str:
    text = _one_text(values.get(field, np.array([], dtype=str)))
    if not isinstance(text, str):
        raise DamagedFileError(f"{path}: {field} must be text; found {_kind(text)}.")
    return text


def _kind(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return "a struct" if isinstance(value, dict) else f"a {type(value).__name__}"
    what = {"U": "text", "O": "cells", "c": "complex numbers"}.get(value.dtype.kind, "numbers")
    return f"{' x '.join(map(str, value.shape)) or 'one'} {what}"
