"""What the reader and the writer of the MSLS layout share: cities, tables and their columns, and how text becomes values.

What a column means: `covis.datasets.msls`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from covis.coordinates import to_metres, utm_zones
from covis.errors import DamagedFileError

CITIES: dict[str, tuple[str, ...]] = {
    "train": (
        *("trondheim", "london", "boston", "melbourne", "amsterdam", "helsinki", "tokyo", "toronto", "saopaulo", "moscow", "zurich"),
        *("paris", "bangkok", "budapest", "austin", "berlin", "ottawa", "phoenix", "goa", "amman", "nairobi", "manila"),
    ),
    "val": ("cph", "sf"),
    "test": ("miami", "athens", "buenosaires", "stockholm", "bengaluru", "kampala"),
}
"""Split -> its cities, in the benchmark's order."""

SIDES = ("database", "query")

SUBTASKS = ("all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d")
VIEWS = ("forward", "backward", "sideways")
TABLES: dict[str, tuple[str, ...]] = {
    "seq_info.csv": ("key", "sequence_key", "frame_number"),
    "subtask_index.csv": ("key", *SUBTASKS),
    "raw.csv": ("key", "lon", "lat", "ca", "captured_at", "pano"),
    "postprocessed.csv": ("key", "easting", "northing", "unique_cluster", "control_panel", "night", "view_direction"),
}
"""File -> its columns after the index, in the order that programs which count columns rely on."""

KEY = r"^[A-Za-z0-9_.~@+=-]+$"
"""What a key may be: it names a file, and stands in prediction files between blanks and commas."""

AGREE, STRAY = 50.0, 0.05
"""Metres by which lon and lat may differ from easting and northing, and the share of rows that may differ by more."""

DAY = 86400.0
_ALSO = {"sequence_key": "sequence_id"}  # what the benchmark's README calls it
_REMEDY = "Unpack the benchmark's metadata again"


def city_folder(root: Path, city: str) -> Path:
    """Where a city lies: its own split decides, whatever split it is read as."""
    return root / ("test" if city in CITIES["test"] else "train_val") / city


def utm_frame(xy: NDArray[np.float64], degrees: NDArray[np.float64]) -> tuple[str | None, NDArray[np.int64]]:
    """The UTM zone in which latitude and longitude agree with these metres, and the rows that differ there by more than 50 m.

    Rows where either is unknown say nothing. Where no zone has nineteen rows of twenty agree, the frame is None.

    >>> utm_frame(np.array([[500000.0, 0.0]]), np.array([[0.0, 3.0]]))
    ('EPSG:32631', array([], dtype=int64))
    """
    latitude, longitude = degrees[:, 0], degrees[:, 1]
    known = np.isfinite(xy).all(axis=1) & (latitude >= -80) & (latitude <= 84) & (np.abs(longitude) <= 180)
    rows = np.flatnonzero(known)
    if not rows.size:
        return None, rows
    zones, counts = np.unique(utm_zones(latitude[rows], longitude[rows]), return_counts=True)
    own = [int(zone) for zone in zones[np.argsort(-counts, kind="stable")]]
    beside = [zone // 100 * 100 + (zone % 100 - 1 + step) % 60 + 1 for zone in own for step in (-1, 1)]
    for zone in dict.fromkeys([*own, *beside]):
        there = to_metres(latitude[rows], longitude[rows], crs=f"EPSG:{zone}")
        off = rows[np.hypot(*(there - xy[rows]).T) > AGREE]
        if off.size <= STRAY * rows.size:
            return f"EPSG:{zone}", off
    return None, rows


@dataclass(frozen=True)
class Table:
    """A table's cells as text, without blanks around them; empty where there is nothing. Row r stands in line r + 2.

    A column without one value is absent: its values are None.
    """

    path: Path
    cells: pl.DataFrame

    def __len__(self) -> int:
        return self.cells.height

    def texts(self, name: str) -> list[str] | None:
        """Texts, none of them empty."""
        text = self._text(name)
        if text is None:
            return None
        self._refuse(name, text == "", "must not be empty in some rows alone")
        return list(text.to_list())

    def numbers(self, name: str) -> NDArray[np.float64] | None:
        """(n,) float64; NaN where empty."""
        text = self._text(name)
        if text is None:
            return None
        values = text.cast(pl.Float64, strict=False)
        self._refuse(name, values.is_null() & (text != ""), "must be a number")
        return values.fill_null(float("nan")).to_numpy()

    def whole(self, name: str) -> NDArray[np.int64] | None:
        """(n,) int64, none of them empty."""
        text = self._text(name)
        if text is None:
            return None
        plain = text.str.replace(r"\.0+$", "")  # pandas writes 12.0 where a column once had a gap
        values = plain.cast(pl.Int64, strict=False)
        self._refuse(name, values.is_null(), "must be a whole number")
        return values.to_numpy()

    def truths(self, name: str) -> NDArray[np.bool_] | None:
        """(n,) bool of the texts True and False in any case, none of them empty."""
        text = self._text(name)
        if text is None:
            return None
        low = text.str.to_lowercase()
        self._refuse(name, ~low.is_in(["true", "false"]), "must be True or False")
        return (low == "true").to_numpy()

    def days(self, name: str) -> NDArray[np.float64] | None:
        """(n,) float64, seconds since 1970-01-01 UTC of the dates' midnights; NaN where empty."""
        text = self._text(name)
        if text is None:
            return None
        values = text.str.to_date("%Y-%m-%d", strict=False)
        self._refuse(name, values.is_null() & (text != ""), "must be a date, YYYY-MM-DD")
        return (values.cast(pl.Int32).cast(pl.Float64) * DAY).fill_null(float("nan")).to_numpy()

    def views(self, name: str) -> dict[str, NDArray[np.bool_]]:
        """One flag for each of forward, backward and sideways; an empty cell is none of them."""
        text = self._text(name)
        if text is None:
            return {}
        low = text.str.to_lowercase()
        self._refuse(name, ~low.is_in([*VIEWS, ""]), "must be Forward, Backward or Sideways")
        return {view: (low == view).to_numpy() for view in VIEWS}

    def fault(self, row: int, what: str) -> DamagedFileError:
        """The error that says what is wrong with a row."""
        return DamagedFileError(f"{self.path}, line {row + 2}: {what}. Mend the line. {_REMEDY} if it is not your edit.")

    def _text(self, name: str) -> pl.Series | None:
        text = self.cells[name]
        return None if len(text) and (text == "").all() else text

    def _refuse(self, name: str, bad: pl.Series, rule: str) -> None:
        if bad.any():
            row = int(bad.arg_true()[0])
            raise self.fault(row, f"{name} {rule}; found {self.cells[name][row]!r}")


def read_table(path: Path) -> Table:
    """Read one of `TABLES` by the name of the file; other columns than its own are not looked at.

    Raises:
        DamagedFileError: the file is no UTF-8, its last line has no end, a line has more or fewer values than the header,
            or a column is not there, or twice.
    """
    columns = TABLES[path.name]
    data = _plain_bytes(path)
    first = data[: data.index(b"\n")]
    header = [name.strip() for name in first.decode("utf-8").split(",")]
    places = [_place(path, header, name) for name in columns]
    if len(data) == len(first) + 1:
        return Table(path, pl.DataFrame(schema=dict.fromkeys(columns, pl.String)))
    numbered = [str(place) for place in range(len(header))]  # the header's own names may stand twice, or be empty
    wanted = sorted({*places, len(header) - 1})
    try:
        table = pl.read_csv(
            ",".join(numbered).encode("ascii") + data[len(first) :],
            columns=[numbered[place] for place in wanted],
            infer_schema=False,
            quote_char=None,
        )
    except pl.exceptions.PolarsError as error:
        _check_lines(path, data)
        raise DamagedFileError(f"{path} must be a table of {', '.join(columns)}; {error}. {_REMEDY}.") from error
    lines = data.count(b"\n")
    # polars pads a short line, which is what truncation looks like; where its last value is there, no line is short
    if len(table) != lines - 1 or data.count(b",") != lines * (len(header) - 1) or table[numbered[-1]].null_count():
        _check_lines(path, data)
    cells = table.select(pl.col(numbered[place]).alias(name) for place, name in zip(places, columns, strict=True))
    blanks = b" " in data or b"\t" in data
    return Table(path, cells.with_columns((pl.all().str.strip_chars() if blanks else pl.all()).fill_null("")))


def aligned(tables: Sequence[Table]) -> list[str]:
    """The keys that all tables of a folder have, row by row.

    Raises:
        DamagedFileError: two tables differ in a key or in their number of rows, or a key cannot be a file's name.
    """
    first, keys = tables[0], tables[0].cells["key"]
    for table in tables[1:]:
        theirs = table.cells["key"]
        rows = min(len(keys), len(theirs))
        differ = (keys.head(rows) != theirs.head(rows)).arg_true()
        if len(differ):
            row = int(differ[0])
            raise table.fault(row, f"the key must be that of the same line of {first.path.name}, {keys[row]!r}; found {theirs[row]!r}")
        if len(keys) != len(theirs):
            raise table.fault(rows, f"there must be a row for each of the {len(keys)} of {first.path.name}; the table has {len(theirs)}")
    unfit = ~keys.str.contains(KEY)
    if unfit.any():
        row = int(unfit.arg_true()[0])
        raise first.fault(row, f"a key must be letters, digits and any of _ . ~ @ + = -; found {keys[row]!r}")
    return list(keys.to_list())


def _check_lines(path: Path, data: bytes) -> None:
    """Every line must have as many values as the header."""
    lines = data.removesuffix(b"\n").split(b"\n")
    commas = lines[0].count(b",")
    for number, line in enumerate(lines, start=1):
        if line.count(b",") != commas:
            raise DamagedFileError(
                f"{path}, line {number}: a line must have {commas + 1} values, as the header has; found {line.count(b',') + 1}. The file "
                f"is truncated or edited. {_REMEDY}."
            )


def _place(path: Path, header: Sequence[str], name: str) -> int:
    places = [place for place, found in enumerate(header) if found in (name, _ALSO.get(name))]
    if len(places) != 1:
        raise DamagedFileError(
            f"{path}, line 1: there must be one column {name!r}; found {len(places) or 'none'} among "
            f"{', '.join(repr(found) for found in header)}. {_REMEDY}, or add the column: it may be empty, except the key."
        )
    return places[0]


def _plain_bytes(path: Path) -> bytes:
    """The file as UTF-8 without byte order mark and quotes; its last line has an end (LF or CRLF)."""
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DamagedFileError(f"{path} must be a readable file; {error.strerror or error}.") from error
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DamagedFileError(f"{path}, line {line}: the file must be UTF-8 text; {error}. {_REMEDY}.") from error
    if not data.endswith(b"\n"):
        line = data.count(b"\n") + 1
        raise DamagedFileError(f"{path}, line {line}: the last line must have an end; the file is empty or truncated. {_REMEDY}.")
    return _unquoted(data, path) if b'"' in data else data


def _unquoted(data: bytes, path: Path) -> bytes:
    """Lines without the quotes that some programs put round every text; a line stays a line."""
    reader = csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True)
    lines = []
    try:
        for cells in reader:
            if any(char in cell for cell in cells for char in ',"\r\n'):
                raise csv.Error("a value holds a comma, a quote or a line break")
            lines.append(",".join(cells))
    except csv.Error as error:
        raise DamagedFileError(
            f"{path}, line {reader.line_num}: a line must read as comma-separated values; {error}. {_REMEDY}."
        ) from error
    return ("\n".join(lines) + "\n").encode("utf-8")
