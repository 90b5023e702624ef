"""Sheets: a CSV or Parquet file as named columns of cells that know the line they stand in.

A cell becomes a number, a time or a truth only where a reader asks for one; a cell that is none is one error that names
the file, the line, the column and what stands there.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from covis.errors import DamagedFileError, InvalidInputError, MissingFileError
from covis.files import check_header
from covis.images import IMAGES_FORMAT, IMAGES_VERSION

_REFUSED = (pl.exceptions.PolarsError, pl.exceptions.PanicException)  # polars panics on some damaged files; that is no Exception
_TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, eq=False)
class Sheet:
    """A table as its file gives it: nothing is checked until a column is asked for.

    Attributes:
        path: the file.
        frame: the cells by column; a text file's are all text, "" where empty.
        lines: (n,) the line that each row begins in; None for a Parquet file, which has none.
        covis: the header of a table that `Images.write` wrote, else None.
    """

    path: Path
    frame: pl.DataFrame
    lines: NDArray[np.int64] | None = None
    covis: dict[str, Any] | None = None

    def __len__(self) -> int:
        return self.frame.height

    def where(self, row: int) -> str:
        """The file, and the row's line in it (in a Parquet file: which row it is, from 1)."""
        return f"{self.path}, row {row + 1}" if self.lines is None else f"{self.path}, line {self.lines[row]}"

    def select(self, rows: NDArray[np.bool_]) -> Sheet:
        """The rows of a mask."""
        return replace(self, frame=self.frame.filter(pl.Series(rows)), lines=None if self.lines is None else self.lines[rows])

    def check(self, column: str, good: NDArray[np.bool_], rule: str) -> None:
        """Hold that every cell of a column is good.

        Raises:
            DamagedFileError: one is not; the message has its place, the rule and the cell.
        """
        if not good.all():
            row = int(np.argmin(good))
            cell = self.frame[column][row]
            found = "the cell is empty" if cell is None or cell == "" else f"found {cell!r}"
            raise DamagedFileError(f"{self.where(row)}: {column!r} must be {rule}; {found}. Mend the cell, or map another column.")

    def texts(self, column: str) -> list[str]:
        """The cells as text, as they stand; "" where empty."""
        texts: list[str] = self._text(column).to_list()
        return texts

    def names(self, column: str) -> list[str]:
        """The cells as names of files: none empty, each in one line."""
        texts = self._text(column)
        self.check(column, ((texts != "") & ~texts.str.contains("[\n\x00]")).to_numpy(), "a file's name in one line")
        names: list[str] = texts.to_list()
        return names

    def numbers(self, column: str, *, empty: bool = False) -> NDArray[np.float64]:
        """(n,) the cells as numbers; with `empty`, a cell may be empty or NaN, else each must be finite."""
        series = self._plain(column)
        if series.dtype == pl.String:
            values = series.cast(pl.Float64, strict=False)
            self.check(column, ((series == "") | values.is_not_null()).to_numpy(), "a number (with a decimal point)")
        else:
            values = series.cast(pl.Float64)
        numbers: NDArray[np.float64] = values.fill_null(np.nan).to_numpy().astype(np.float64)
        if not empty:
            self.check(column, np.isfinite(numbers), "a finite number")
        return numbers

    def integers(self, column: str) -> NDArray[np.int64]:
        """(n,) the cells as whole numbers; "3.0" is one."""
        series = self._plain(column)
        whole = series.cast(pl.Int64, strict=False)
        if whole.null_count() or not (series.dtype == pl.String or series.dtype.is_integer()):
            numbers = self.numbers(column)
            self.check(column, (numbers == np.trunc(numbers)) & (np.abs(numbers) < 2.0**63), "a whole number of 64 bits")
            whole = whole.fill_null(pl.Series(numbers).cast(pl.Int64))
        integers: NDArray[np.int64] = whole.to_numpy().astype(np.int64)
        return integers

    def truths(self, column: str) -> NDArray[np.bool_]:
        """(n,) the cells as truths: true or false, yes or no, 1 or 0."""
        texts = self._text(column).str.strip_chars().str.to_lowercase()
        self.check(column, texts.is_in(list(_TRUTHS)).to_numpy(), "true or false, yes or no, 1 or 0")
        truths: NDArray[np.bool_] = texts.is_in([text for text, truth in _TRUTHS.items() if truth]).to_numpy().astype(np.bool_)
        return truths

    def times(self, column: str, *, written: str | None = None) -> NDArray[np.float64]:
        """(n,) seconds since 1970-01-01 UTC, NaN where empty: a number is seconds, other text ISO 8601 (UTC where it says no zone).

        With `written`, every cell is text in that format of `strptime`; a "*" at its end stands for whatever follows.
        """
        if written is not None:
            cells = self._text(column).str.strip_chars()
            parsed = {text: _parsed(text, written) for text in cells.unique().to_list()}
            found: NDArray[np.float64] = np.array([parsed[text] for text in cells.to_list()], dtype=np.float64)
            self.check(column, ~np.isnan(found) | (cells == "").to_numpy(), f"a time written as {written!r}")
            return found
        dtype = self.frame[column].dtype
        if dtype in (pl.Date, pl.Datetime):
            moments: NDArray[np.float64] = self.frame[column].cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64).to_numpy()
            return moments / 1e6
        series = self._plain(column)
        if series.dtype != pl.String:
            return self.numbers(column, empty=True)
        seconds = series.cast(pl.Float64, strict=False)
        worded = (seconds.is_null() & (series != "")).to_numpy()
        values: NDArray[np.float64] = seconds.fill_null(np.nan).to_numpy().astype(np.float64)
        if worded.any():
            texts = series.filter(pl.Series(worded))
            known = {text: _seconds(text) for text in texts.unique().to_list()}
            values[worded] = [known[text] for text in texts.to_list()]
            self.check(column, ~(worded & np.isnan(values)), "seconds since 1970 or ISO 8601 text (2020-12-31T23:59:59Z)")
        return values

    def _text(self, column: str) -> pl.Series:
        series = self.frame[column]
        if not (series.dtype.is_numeric() or series.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Null)):
            raise InvalidInputError(f"{self.path}: the column {column!r} must hold texts or numbers; its type is {series.dtype}.")
        return series.cast(pl.String).fill_null("")

    def _plain(self, column: str) -> pl.Series:
        """The column if it is of numbers, else its texts without the blanks around them."""
        series = self.frame[column]
        return series if series.dtype.is_numeric() else self._text(column).str.strip_chars()


def read_sheet(path: str | Path, *, header: bool = True, delimiter: str = ",") -> Sheet:
    r"""Read a Parquet file, or (under any other name) a text file with one row a line: UTF-8, LF or CRLF, texts in "" where needed.

    Rows whose cells are all empty are left out. A table that `Images.write` wrote says itself how it is to be read.

    Args:
        path: the file.
        header: whether a text file's first line names the columns; if not they are called "1", "2", …
        delimiter: what stands between the cells of a text file.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is no UTF-8 text or no Parquet, a line has more or fewer cells than the first, or a column
            is named twice; the message has the line.
        InvalidInputError: the delimiter is not one character.
    """
    path = Path(path)
    if not isinstance(delimiter, str) or len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
        raise InvalidInputError(f"The delimiter must be one ASCII character and no quote, as ',' or '\\t'; got {delimiter!r}.")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MissingFileError(f"The table {path} must exist; there is no such file.") from None
    except OSError as error:
        raise DamagedFileError(f"The table {path} must be a file that can be read; {error.strerror or error}.") from error
    return _parquet(path, data) if path.suffix.lower() == ".parquet" else _text(path, data, header=header, delimiter=delimiter)


def _parquet(path: Path, data: bytes) -> Sheet:
    try:
        text = pl.read_parquet_metadata(io.BytesIO(data)).get("covis")
        frame = pl.read_parquet(io.BytesIO(data))
    except (OSError, ValueError, *_REFUSED) as error:
        raise DamagedFileError(f"{path} must be a Parquet file; it is truncated or of another kind ({error}). Write it again.") from error
    return Sheet(path, frame, None, None if text is None else _covis_header(path, text, frame.height))


def _text(path: Path, data: bytes, *, header: bool, delimiter: str) -> Sheet:
    text = _decoded(path, data)
    line, first = 1, text[: text.find("\n") + 1]
    ours = text.startswith("# {")
    if ours:
        text, line, header, delimiter = text[len(first) :], 2, True, ","
        if not first or not text.endswith("\n"):
            raise DamagedFileError(f"{path} must end with a line break; it is truncated. Write it again.")
    columns, taken = _first_record(path, text, delimiter, line=line)
    if not header:
        columns = [str(number + 1) for number in range(len(columns))]
    else:
        columns = _column_names(path, columns if ours else [column.strip() for column in columns], line)
        text, line = _after_lines(text, taken), line + taken
    frame, lines = _body(path, text, columns, delimiter, line=line)
    if not ours and not frame.height:
        raise DamagedFileError(f"{path} must hold a table; it is empty, or has no row below its header.")
    return Sheet(path, frame, lines, _covis_header(path, first.removeprefix("#"), len(lines)) if ours else None)


def _decoded(path: Path, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DamagedFileError(f"{path}, line {line}: the table must be UTF-8 text; {error}. Save it as UTF-8.") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DamagedFileError(f"{path}, line {line}: the table must be text; found a zero byte. Is it of another kind, or UTF-16?")
    return text


def _covis_header(path: Path, text: str, rows: int) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} must begin with a covis header; it does not read ({error}). Write it again.") from error
    check_header(header, path, kind=IMAGES_FORMAT, version=IMAGES_VERSION)
    if not isinstance(header.get("root"), str) or not isinstance(header.get("crs"), str | None):
        raise DamagedFileError(f"{path} must say its root and its frame in its header; it does not. Write it again.")
    if header.get("rows", rows) != rows:
        raise DamagedFileError(
            f"{path} must hold {header['rows']} rows, as its header says; it holds {rows}. It is truncated: write it again."
        )
    return header


def _first_record(path: Path, text: str, delimiter: str, *, line: int) -> tuple[list[str], int]:
    """The first row that is not blank, and how many lines there are to its end."""
    reader = csv.reader(_lines(text), delimiter=delimiter, strict=True)
    try:
        for record in reader:
            if any(record):
                return record, reader.line_num
    except csv.Error as error:
        raise DamagedFileError(f"{path}, line {line + max(reader.line_num, 1) - 1}: {error}. Is a quote not closed?") from error
    raise DamagedFileError(f"{path} must hold a table; it is empty, or has no row below its header.")


def _column_names(path: Path, columns: list[str], line: int) -> list[str]:
    named = [column or f"(column {number})" for number, column in enumerate(columns, start=1)]
    twice = sorted({column for column in named if named.count(column) > 1})
    if twice:
        raise DamagedFileError(
            f"{path}, line {line}: every column must be named once; {', '.join(map(repr, twice))} stands twice. Rename one."
        )
    return named


def _body(path: Path, text: str, columns: list[str], delimiter: str, *, line: int) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """The cells below the header and each row's line.

    polars is quick and lenient (it fills a short line up) and cannot say where it stumbled; Python's own reader, thirty
    times slower, takes over wherever a line might not be what it seems, and has the last word.
    """
    frame = _quickly(text, columns, delimiter)
    if frame is None:
        return _slowly(path, text, columns, delimiter, line=line)
    frame = frame.fill_null("")
    lines = np.arange(line, line + frame.height, dtype=np.int64)
    filled = frame.select(pl.any_horizontal(pl.all() != "")).to_series().to_numpy()
    return (frame, lines) if filled.all() else (frame.filter(pl.Series(filled)), lines[filled])


def _quickly(text: str, columns: list[str], delimiter: str) -> pl.DataFrame | None:
    schema = dict.fromkeys(columns, pl.String)
    count = text.count("\n") + (not text.endswith("\n"))
    if not text:
        return pl.DataFrame(schema=schema)
    try:
        frame = pl.read_csv(text.encode("utf-8"), has_header=False, schema=schema, separator=delimiter)
    except (OSError, ValueError, *_REFUSED):
        return None
    if frame.height != count or frame.width != len(columns):
        return None  # a text with a line break in it: rows are not lines
    whole = text.count(delimiter) == (len(columns) - 1) * count and '"' not in text
    return frame if whole or not frame[columns[-1]].null_count() else None


def _slowly(path: Path, text: str, columns: list[str], delimiter: str, *, line: int) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    rows: list[list[str]] = []
    lines: list[int] = []
    reader = csv.reader(_lines(text), delimiter=delimiter, strict=True)
    while True:
        here = line + reader.line_num
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise DamagedFileError(f"{path}, line {here}: {error}. Is a quote not closed?") from error
        if record is None:
            break
        if not any(record):
            continue
        if len(record) != len(columns):
            raise DamagedFileError(
                f"{path}, line {here}: every line must have as many cells as the first, {len(columns)}; found {len(record)}. "
                "Mend the line, or put a text that holds the delimiter in quotes."
            )
        rows.append(record)
        lines.append(here)
    cells = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    data = {column: pl.Series(column, values, dtype=pl.String) for column, values in zip(columns, cells, strict=True)}
    return pl.DataFrame(data), np.array(lines, dtype=np.int64)


def _lines(text: str) -> Iterator[str]:
    """Lines with their end; only a line feed ends one (a StringIO would end one at a lone carriage return, too)."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end + 1
        yield text[start:end]
        start = end


def _after_lines(text: str, count: int) -> str:
    start = 0
    for _ in range(count):
        end = text.find("\n", start)
        if end < 0:
            return ""
        start = end + 1
    return text[start:]


def is_time_format(written: object) -> bool:
    """Whether a text is a format of `strptime` that says something: times written in it can be read back.

    >>> is_time_format("%Y%m%d_%H%M%S*"), is_time_format("YYYYMMDD"), is_time_format("%Y%Y")
    (True, False, False)
    """
    if not isinstance(written, str) or "%" not in written:
        return False
    written = written.removesuffix("*")
    try:
        datetime.strptime(datetime(2020, 12, 31, 23, 59, 58, tzinfo=UTC).strftime(written), written)
    except (ValueError, re.error):  # a code twice is an error of the pattern that strptime makes
        return False
    return True


def _seconds(text: str) -> float:
    try:
        return _since_1970(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return float("nan")


def _parsed(text: str, written: str) -> float:
    shortest = 1 if written.endswith("*") else len(text)
    for end in range(len(text), shortest - 1, -1):  # the longest beginning that is a time
        try:
            return _since_1970(datetime.strptime(text[:end], written.removesuffix("*")))
        except (ValueError, OverflowError):
            continue
    return float("nan")


def _since_1970(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
