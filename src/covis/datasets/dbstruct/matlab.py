"""MATLAB 5 files (.mat): one variable out, one in; only whole files are read, and the same content gives the same bytes.

Read here and not by scipy, whose reader ends the process with a segmentation fault on some damaged files. The format is
that of "MAT-File Format" (The MathWorks): elements of a type, a length and contents, padded to 8 bytes, nested in cells and
structs. Numbers, text, cells and structs are read, which is all that data sets hold; code, objects and sparse arrays are not.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import CovisError, DamagedFileError, MissingFileError
from covis.files import atomic_path

_HEADER, _SIGN = 128, b"MATLAB 5.0 MAT-file"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_CELL, _STRUCT, _CHARACTERS, _OPAQUE = 1, 2, 4, 17
_COMPLEX = 0x0800
_DEEPEST = 16


class _DamageError(Exception):
    """What is wrong with a file's contents, in a few words."""


def read_variable(path: Path, name: str) -> Any:
    """One variable of a MATLAB 5 file (what MATLAB saves with -v7 and -v6, and scipy.io.savemat).

    Returns:
        Numbers as an array (m, n); text as an array (m,) of str, one a row; cells as an array (m, n) of these; a struct as a dict.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is empty, truncated, of another kind (MATLAB 7.3 too), or lacks the variable.
    """
    contents, order = _contents(path, name)
    found: list[str] = []
    try:
        elements = _Elements(memoryview(contents)[_HEADER:], order)
        while elements.more() or not found:
            matrix = _variable(elements)
            if matrix.name == name:
                _check_rest(elements)
                return matrix.value(0)
            found.append(matrix.name or "an object")
    except (_DamageError, struct.error, ValueError, ArithmeticError) as error:
        raise DamagedFileError(
            f"{path} must be a whole MATLAB 5 file with the variable {name}; it is truncated or damaged ({error}). Download it again."
        ) from error
    raise DamagedFileError(f"{path} must hold the variable {name}; it holds {', '.join(found)}.")


def holds_variable(path: Path, name: str) -> bool:
    """Whether a file is MATLAB's and has that variable; a file that does not read has not."""
    if not is_matlab(path):
        return False
    try:
        contents, order = _contents(path, name)
        elements = _Elements(memoryview(contents)[_HEADER:], order)
        while elements.more():
            if _variable(elements).name == name:
                return True
    except (CovisError, _DamageError, struct.error, ValueError, ArithmeticError):
        return False
    return False


def write_variable(path: str | Path, name: str, value: Any) -> Path:
    """Write one variable, compressed, which gives the file a checksum; the date that the header usually holds is left out.

    Raises:
        OutputFailedError: the system refused the write.
    """
    from scipy.io import savemat

    stream = io.BytesIO()
    savemat(stream, {name: value}, do_compression=True, oned_as="row")
    contents = _SIGN + b", written by covis".ljust(116 - len(_SIGN)) + stream.getvalue()[116:]
    with atomic_path(path) as temporary:
        temporary.write_bytes(contents)
    return Path(path)


def is_matlab(path: Path) -> bool:
    """Whether a file begins as MATLAB's files do."""
    try:
        with path.open("rb") as stream:
            return stream.read(6) == b"MATLAB"
    except OSError:
        return False


def _contents(path: Path, name: str) -> tuple[bytes, str]:
    """The file's bytes and their order."""
    try:
        contents = path.read_bytes()
    except FileNotFoundError:
        raise MissingFileError(f"{path} must exist; there is no such file.") from None
    except OSError as error:
        raise DamagedFileError(f"{path} must be a readable MATLAB file; {error.strerror or error}.") from error
    wanted = f"{path} must be a MATLAB 5 file with the variable {name}; "
    if not contents:
        raise DamagedFileError(f"{wanted}it is empty. Download it again.")
    if contents.startswith((b"MATLAB 7.3", _HDF5)) or contents[512:520] == _HDF5:
        raise DamagedFileError(f"{wanted}it is of MATLAB 7.3 (HDF5). Load it in MATLAB and save it with -v7.")
    order = {b"IM": "<", b"MI": ">"}.get(contents[126:128])
    if order is None or not contents.startswith(b"MATLAB"):
        raise DamagedFileError(f"{wanted}it is {'truncated' if contents.startswith(b'MATLAB') else 'of another kind'}. Download it again.")
    return contents, order


class _Elements:
    """The elements of a block, one after the other."""

    def __init__(self, data: memoryview, order: str) -> None:
        self._data, self.order, self._place = data, order, 0

    def more(self) -> bool:
        return self._place < len(self._data)

    def take(self) -> tuple[int, memoryview]:
        """Type and contents of the next element."""
        if len(self._data) < self._place + 8:
            raise _DamageError("it ends within an element")
        kind, size = struct.unpack_from(f"{self.order}2I", self._data, self._place)
        start, step = self._place + 8, 8
        if kind >> 16:  # up to four bytes stand in the tag itself
            kind, size, start = kind & 0xFFFF, kind >> 16, self._place + 4
            if size > 4:
                raise _DamageError(f"a short element of {size} bytes")
        else:
            step += size if kind == _COMPRESSED else size + -size % 8
        if start + size > len(self._data):
            raise _DamageError("it ends within an element")
        self._place += step
        return kind, self._data[start : start + size]

    def integers(self) -> tuple[int, ...]:
        """Four bytes each, as flags and shapes are: many small arrays are read, and numpy takes its time to make each."""
        kind, data = self.take()
        if kind not in (5, 6) or len(data) % 4:
            raise _DamageError(f"an element of type {kind} where whole numbers must stand")
        return struct.unpack(f"{self.order}{len(data) // 4}{'i' if kind == 5 else 'I'}", data)

    def numbers(self) -> NDArray[Any]:
        kind, data = self.take()
        if kind not in _TYPES:
            raise _DamageError(f"an element of type {kind} where numbers must stand")
        return np.frombuffer(data, dtype=f"{self.order}{_TYPES[kind]}")


class _Matrix:
    """An array of any class: its name, and its value when it is asked for."""

    def __init__(self, data: memoryview, order: str) -> None:
        self._elements = _Elements(data, order)
        flags = self._elements.integers()
        if len(flags) != 2:
            raise _DamageError("an array without a class")
        self.name, self._class, self._complex = "", flags[0] & 0xFF, bool(flags[0] & _COMPLEX)
        if self._class == _OPAQUE:  # a table or an object of MATLAB, of a form of its own
            return
        shape = self._elements.integers()
        if len(shape) < 2 or min(shape) < 0:
            raise _DamageError("an array without a shape")
        self._shape = shape
        self._count = math.prod(self._shape)
        self.name = bytes(self._elements.take()[1]).decode("latin-1")

    def value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise _DamageError(f"more than {_DEEPEST} arrays within each other")
        if self._class == _CELL:
            return self._cells(depth)
        if self._class == _STRUCT:
            return self._struct(depth)
        if self._class == _CHARACTERS:
            return self._text()
        if self._class not in _CLASSES:
            raise _DamageError(f"an array of class {self._class}, which is neither numbers, text, cells nor a struct")
        numbers = self._part().astype(_CLASSES[self._class])
        return numbers + 1j * self._part() if self._complex else numbers

    def _part(self) -> NDArray[Any]:
        found = self._elements.numbers()
        if len(found) != self._count:
            raise _DamageError(f"{len(found)} numbers in an array of {' x '.join(map(str, self._shape))}")
        return found.reshape(self._shape, order="F")

    def _inner(self, depth: int) -> Any:
        kind, data = self._elements.take()
        if kind != _MATRIX:
            raise _DamageError(f"an element of type {kind} where an array must stand")
        return _Matrix(data, self._elements.order).value(depth + 1) if len(data) else np.zeros((0, 0))

    def _cells(self, depth: int) -> NDArray[Any]:
        inner = []
        for _ in range(self._count):  # a count that is too large ends with the data
            inner.append(self._inner(depth))
        cells = np.empty(self._count, dtype=object)
        for place, value in enumerate(inner):
            cells[place] = value
        return cells.reshape(self._shape, order="F")

    def _struct(self, depth: int) -> dict[str, Any]:
        if self._count != 1:
            raise _DamageError(f"{self._count} structs where one is read")
        length = self._elements.integers()
        text = bytes(self._elements.take()[1])
        if len(length) != 1 or length[0] < 1 or len(text) % length[0]:
            raise _DamageError("a struct whose fields have no names")
        step = length[0]
        names = [text[place : place + step].split(b"\0")[0].decode("latin-1") for place in range(0, len(text), step)]
        if len(set(names)) < len(names):
            raise _DamageError(f"a struct with a field twice ({', '.join(names)})")
        return {name: self._inner(depth) for name in names}

    def _text(self) -> NDArray[Any]:
        """(m,) the rows of a matrix of characters."""
        kind, data = self._elements.take()
        little = self._elements.order == "<"
        wide = {4: "utf-16", 17: "utf-16", 18: "utf-32", 6: "utf-32"}
        codec = {1: "latin-1", 2: "latin-1", 16: "utf-8"}.get(kind) or (kind in wide and f"{wide[kind]}-{'le' if little else 'be'}")
        if not codec:
            raise _DamageError(f"an element of type {kind} where text must stand")
        text = bytes(data).decode(codec)
        rows = self._shape[0]
        if rows == 1 or not self._count:  # lengths are counted in units of the code, which may be more than characters
            return np.array([text] if self._count else [], dtype=np.str_)
        if len(text) != self._count:
            raise _DamageError(f"{len(text)} characters in a matrix of {self._count}")
        return np.array([text[row::rows] for row in range(rows)], dtype=np.str_)


def _variable(elements: _Elements) -> _Matrix:
    """The next variable of a file."""
    kind, data = elements.take()
    if kind == _COMPRESSED:
        kind, data = _Elements(memoryview(_inflated(data)), elements.order).take()
    if kind != _MATRIX:
        raise _DamageError(f"an element of type {kind} where a variable must stand")
    return _Matrix(data, elements.order)


def _check_rest(elements: _Elements) -> None:
    """What stands behind the variable must be whole too: a file cut there was cut."""
    while elements.more():
        kind, data = elements.take()
        if kind == _COMPRESSED:
            _inflated(data)


def _inflated(data: memoryview) -> bytes:
    reader = zlib.decompressobj()
    try:
        contents = reader.decompress(data)
    except zlib.error as error:
        raise _DamageError(str(error)) from None
    if not reader.eof or reader.unused_data:
        raise _DamageError("it ends within compressed data")
    return contents
