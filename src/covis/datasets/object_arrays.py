"""Arrays in .npy files, those of objects too, read without unpickling anything.

numpy stores an array of objects (lists of different lengths, say) as a pickle, and a pickle is a program: loading one from a
stranger can run anything. Here the instructions are walked one by one, by a machine that knows only those which an array of
numbers, of text, or of lists of them needs. It imports nothing and calls nothing: where a pickle names a function, the name is
compared with a handful that make arrays, and what they would have made is built here. Anything else is refused in words.
"""

from __future__ import annotations

import math
import pickletools
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.errors import DamagedFileError, MissingFileError

MOST = 5_000_000
"""Entries of lists and of arrays of objects in one file: a few bytes of a pickle can stand for any number of references to one list."""
SPARE = 64 << 20
"""Bytes that all arrays and texts of one file may take beyond the file's own size, each reference to one counted as the whole."""
_DEEPEST = 4
_LONGEST = 64
"""Characters of any name or type in a file that is no bomb."""

_HEADER = re.compile(r"\{\s*'descr':\s*'([^']*)',\s*'fortran_order':\s*(True|False),\s*'shape':\s*\(([0-9L,\s]*)\),?\s*\}\s*", re.ASCII)
_PLAIN = re.compile(r"([<>|=]?)(b1|[iu][1248]|f[248]|[SU][1-9]\d{0,6})", re.ASCII)
Order: TypeAlias = Literal["C", "F"]
_ARRAY, _NDARRAY, _DTYPE, _SCALAR, _BUFFER, _ENCODE, _EMPTY = "array", "ndarray", "dtype", "scalar", "buffer", "encode", "empty"
_KNOWN = {
    "numpy ndarray": _NDARRAY,
    "numpy dtype": _DTYPE,
    "_codecs encode": _ENCODE,
    "__builtin__ bytes": _EMPTY,
    **{f"numpy.{core}.multiarray _reconstruct": _ARRAY for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray scalar": _SCALAR for core in ("core", "_core")},
    **{f"numpy.{core}.numeric _frombuffer": _BUFFER for core in ("core", "_core")},
}
"""Every name that a pickle may say, and what it stands for."""


def read_array(path: str | Path) -> NDArray[Any]:
    """Read one .npy file of numbers, text, or objects; nothing of it is ever executed.

    Args:
        path: the file, of numpy's format 1.0 to 3.0, written by any Python and any numpy.

    Returns:
        The array as it is stored. In an array of objects an entry is an int, a str, a list of such, or an array of numbers,
        text, or such entries again.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is truncated, no .npy file, or its pickle asks for anything but arrays, numbers, text and lists.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "gt.npy"
    ...     np.save(file, np.array([np.array([3, 4]), [5]], dtype=object))
    ...     read_array(file).tolist()
    [array([3, 4]), [5]]
    """
    path = Path(path)
    try:
        stored = path.read_bytes()
    except FileNotFoundError:
        raise MissingFileError(f"{path} must exist; there is no such file.") from None
    except OSError as error:
        raise DamagedFileError(f"{path} must be a .npy file that can be read; {error.strerror or error}.") from error
    try:
        kind, shape, order, body = _header(stored)
        if kind not in ("|O", "O"):
            return _numbers(kind, shape, order, body)
        found = _Machine(body).result()
    except _RefusedError as error:
        raise DamagedFileError(
            f"{path} must hold an array of numbers, text, or lists of them; {error}. Nothing of it was run. Take the file from "
            "its authors again, or write it as plain arrays."
        ) from None
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError, RecursionError, AttributeError) as error:
        raise DamagedFileError(
            f"{path} must be a whole .npy file; it is truncated or foreign ({str(error)[:200] or type(error).__name__})."
        ) from error
    if not isinstance(found, np.ndarray) or found.dtype != np.dtype(object) or found.shape != shape:
        raise DamagedFileError(f"{path} must hold an array of objects of the shape {shape}, as its header says; it holds something else.")
    return found


class _RefusedError(Exception):
    """The pickle asks for something that no array of numbers and text needs."""


@dataclass(frozen=True)
class _Name:
    """A function or class that a pickle names; never the thing itself."""

    stands_for: str


@dataclass(eq=False)
class _Type:
    """A dtype: its letters, and its byte order once that has been said."""

    letters: str
    order: str = ""

    def dtype(self) -> np.dtype[Any]:
        return _dtype(self.order + self.letters)


@dataclass(eq=False)
class _Array:
    """An array that is being made: its state, once that has been said."""

    state: tuple[Any, ...] | None = None


def _header(stored: bytes) -> tuple[str, tuple[int, ...], Order, bytes]:
    """The dtype's letters, the shape, the order, and the bytes behind the header."""
    if stored[:6] != b"\x93NUMPY" or len(stored) < 10 or stored[6] not in (1, 2, 3) or stored[7] != 0:
        raise ValueError("it does not begin as a .npy file of format 1.0 to 3.0")
    wide = 2 if stored[6] == 1 else 4
    end = 8 + wide + int.from_bytes(stored[8 : 8 + wide], "little")
    if end > len(stored):
        raise ValueError("its header is cut off")
    found = _HEADER.fullmatch(stored[8 + wide : end].decode("latin-1"))
    if not found:
        raise ValueError("its header does not say dtype, order and shape of one plain array")
    shape = tuple(int(size.strip().removesuffix("L")) for size in found[3].split(",") if size.strip())
    _check_shape(shape)
    return found[1], shape, "F" if found[2] == "True" else "C", stored[end:]


def _short(text: Any) -> str:
    """A text of the file that may stand in a message. What else a pickle makes is never printed: nested, it can be without end."""
    if type(text) is not str:
        raise _RefusedError("its pickle names something by what is no text")
    if len(text) > _LONGEST:
        raise _RefusedError(f"its pickle has a name of {len(text):,} characters, which no such array needs")
    return text


def _dtype(letters: str) -> np.dtype[Any]:
    if not _PLAIN.fullmatch(_short(letters)):
        raise _RefusedError(f"it holds values of the type {letters!r}")
    return np.dtype(letters)


def _numbers(kind: str, shape: tuple[Any, ...], order: Order, body: bytes) -> NDArray[Any]:
    dtype = _dtype(kind)
    _check_shape(shape)
    if len(body) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{math.prod(shape):,} values of {dtype.itemsize} bytes must follow; {len(body):,} bytes do")
    values = np.frombuffer(body, dtype=dtype) if body else np.zeros(0, dtype=dtype)
    if dtype.kind == "U" and np.frombuffer(body, dtype=f"{dtype.str[0]}u4").max(initial=0) > sys.maxunicode:
        raise ValueError("a character of its text is none")
    return values.reshape(shape, order=order).copy()


def _check_shape(shape: object) -> None:
    if type(shape) is not tuple or len(shape) > 32 or not all(type(size) is int and 0 <= size < 1 << 63 for size in shape):
        raise ValueError("a shape must be at most 32 whole numbers from 0 on, below 2^63")


def _as_bytes(value: object) -> bytes:
    """Bytes, as Python 3 stores them, or as the text in which Python 2 stores them."""
    if isinstance(value, str):
        return value.encode("latin-1")
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    raise ValueError("the bytes of an array are no bytes")


class _Machine:
    """Walks the instructions of a pickle, and builds the arrays, lists, numbers and texts that they describe."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.entries = 0
        self.left = SPARE + len(body)
        self.made: dict[int, NDArray[Any]] = {}

    def result(self) -> Any:
        """What the pickle describes."""
        for instruction, argument, position in pickletools.genops(self.body):
            step = _STEPS.get(instruction.name)
            if step is None:
                raise _RefusedError(f"its pickle has the instruction {instruction.name} at byte {position}, which no such array needs")
            step(self, argument)
            if instruction.name == "STOP" and position is not None and position + 1 != len(self.body):
                raise ValueError("more stands behind the array")
        (value,) = self.stack
        return self.settled(value, 0)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("an instruction of its pickle finds nothing to work on")
        return self.stack.pop()

    def pops(self, count: int) -> tuple[Any, ...]:
        return tuple([self.pop() for _ in range(count)][::-1])

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def keep(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError("its pickle appends to what is no list")
        target.extend(values)

    def spend(self, size: int) -> None:
        """Count what is about to be made."""
        self.left -= size
        if self.left < 0:
            raise _RefusedError(f"what it describes takes more than {SPARE >> 20} MiB beyond its own size")

    def name(self, words: str) -> None:
        if _short(words) not in _KNOWN:
            raise _RefusedError(f"its pickle names {words.replace(' ', '.')!r}, which makes no array")
        self.push(_Name(_KNOWN[words]))

    def named(self) -> None:
        module, word = self.pops(2)
        self.name(f"{_short(module)} {_short(word)}")

    def call(self) -> None:
        """What numpy's functions would give, made here."""
        target, arguments = self.pops(2)
        if not isinstance(target, _Name) or not isinstance(arguments, tuple):
            raise _RefusedError("its pickle calls what is no function of arrays")
        made = _MAKERS[target.stands_for](*arguments)
        if isinstance(made, (bytes, str)):
            self.spend(sys.getsizeof(made))
        self.push(made)

    def build(self) -> None:
        target, state = self.stack[-2], self.stack[-1]
        self.pop()
        if not isinstance(state, tuple):
            raise _RefusedError("its pickle sets a state that is none of an array")
        if isinstance(target, _Type):
            if len(state) < 8 or state[1] not in ("<", ">", "|") or any(part is not None for part in (*state[2:5], *state[8:])):
                raise _RefusedError("it holds values of a compound type")
            target.order = state[1]
        elif isinstance(target, _Array) and target.state is None and len(state) == 5 and isinstance(state[2], _Type):
            target.state = state[1:]
        else:
            raise _RefusedError("its pickle sets the state of something that is no array")

    def settled(self, value: Any, depth: int) -> Any:
        """The value with arrays in place of what describes them."""
        self.entries += 1
        if depth > _DEEPEST or self.entries > MOST:
            raise _RefusedError(f"lists stand in lists more than {_DEEPEST} deep, or hold more than {MOST:,} entries together")
        if type(value) in (int, str):
            return value
        if type(value) is list or type(value) is tuple:
            return [self.settled(entry, depth + 1) for entry in value]
        if isinstance(value, _Array) and value.state is not None:
            return self.array(value, value.state, depth)
        kind = "nothing" if value is None else f"of the type {type(value).__name__.lower()}"
        raise _RefusedError(f"one of its entries is {kind}")

    def array(self, described: _Array, state: tuple[Any, ...], depth: int) -> NDArray[Any]:
        """An array of numbers or text once for all references to it; one of objects anew, so that its entries are counted again."""
        shape, kind, fortran, content = state
        if not isinstance(kind, _Type):
            raise _RefusedError("its pickle makes an array of what is no type")
        order: Order = "F" if fortran is True and kind.letters[0] != "O" else "C"  # a list of objects is row by row in either case
        if kind.letters not in ("O8", "O4", "O"):
            self.spend(len(content) if isinstance(content, (str, bytes, bytearray)) else 0)
            if id(described) not in self.made:
                self.made[id(described)] = _numbers(kind.order + kind.letters, shape, order, _as_bytes(content))
            return self.made[id(described)]
        _check_shape(shape)
        if type(content) is not list or len(content) != math.prod(shape):
            raise ValueError("an array of objects has not as many entries as its shape says")
        entries = np.empty(len(content), dtype=object)
        for place, entry in enumerate(content):
            entries[place] = self.settled(entry, depth + 1)
        return entries.reshape(shape)


def _make_array(kind: Any, *_: Any) -> _Array:
    if not isinstance(kind, _Name) or kind.stands_for != _NDARRAY:
        raise _RefusedError("its pickle makes an array of a special class")
    return _Array()


def _make_type(letters: Any, *_: Any) -> _Type:
    if not _short(letters):
        raise _RefusedError("it holds values without a type")
    return _Type(letters)


def _make_scalar(kind: Any, content: Any) -> int | str:
    if not isinstance(kind, _Type):
        raise _RefusedError("its pickle makes a number of what is no type")
    value = _numbers(kind.order + kind.letters, (), "C", _as_bytes(content)).item()
    if not isinstance(value, (int, str)) or isinstance(value, bool):
        raise _RefusedError(f"one of its entries is of the type {type(value).__name__}")
    return value


def _make_buffer(content: Any, kind: Any, shape: Any, order: Any) -> _Array:
    return _Array((shape, kind, type(order) is str and order == "F", content))


def _make_bytes(text: Any, encoding: Any) -> bytes:
    if encoding != "latin1":
        raise _RefusedError("its pickle encodes text in another way than arrays do")
    return _as_bytes(text)


def _refuse_call(*_: Any) -> Any:
    raise _RefusedError("its pickle makes an array in a way that numpy does not")


_MAKERS: dict[str, Callable[..., Any]] = {
    _ARRAY: _make_array,
    _NDARRAY: _refuse_call,
    _DTYPE: _make_type,
    _SCALAR: _make_scalar,
    _BUFFER: _make_buffer,
    _ENCODE: _make_bytes,
    _EMPTY: lambda: b"",
}


def _pushes(constant: Any) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(constant)


_PUSHED = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "BINSTRING", "SHORT_BINSTRING"),
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}

_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, argument: None),
    **dict.fromkeys(_PUSHED, lambda machine, argument: machine.push(argument)),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda machine, place: machine.keep(place)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, place: machine.push(machine.memo[place])),
    **{name: _pushes(constant) for name, constant in _CONSTANTS.items()},
    "TUPLE1": lambda machine, _: machine.push(machine.pops(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.pops(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.pops(3)),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "MEMOIZE": lambda machine, _: machine.keep(len(machine.memo)),
    "GLOBAL": lambda machine, words: machine.name(words),
    "STACK_GLOBAL": lambda machine, _: machine.named(),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}
"""Every instruction that a pickle of such an array has; there are others, and none of them is followed."""
