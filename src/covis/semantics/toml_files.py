"""TOML tables of semantics: those that covis ships, and a user's own files of the same form."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Generic, TypeVar

from covis.errors import DamagedFileError, InvalidInputError, UnknownNameError
from covis.files import read_text
from covis.lookup import suggest

T = TypeVar("T")
_NEAR = 3


class Shipped(Mapping[str, T], Generic[T]):
    """Names of what covis ships, each read when it is first asked for.

    Args:
        names: in the order in which they are listed.
        read: name -> the thing.
    """

    def __init__(self, names: Iterable[str], read: Callable[[str], T]) -> None:
        self._names, self._read = tuple(names), read
        self._found: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._found:
            self._found[name] = self._read(name)
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def shipped_table(folder: str, name: str) -> dict[str, Any]:
    """The TOML table of that name under `tables/`."""
    file = resources.files("covis.semantics") / "tables" / folder / f"{name}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def own_table(path: str | Path, *, what: str, keys: Iterable[str]) -> dict[str, Any]:
    """The TOML table of a user's file.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is no TOML; TOML itself refuses a key that stands twice.
        InvalidInputError: it has a key that is none of `keys`.
    """
    try:
        table = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        twice = " A key stands twice." if "overwrite" in str(error).lower() else ""
        raise DamagedFileError(f"The {what} {path} must be TOML;{twice} {error}.") from error
    for key in table:
        if key not in keys:
            raise InvalidInputError(f"The {what} {path} has no setting {key!r}. {suggest(key, keys)}")
    return table


def found(name_or_path: str | Path, shipped: Mapping[str, T], read: Callable[[Path], T], *, what: str) -> T:
    """A shipped thing by its name, or a user's by the path of its TOML file.

    Raises:
        UnknownNameError: neither; the nearest name is suggested.
    """
    name = str(name_or_path)
    if name in shipped:
        return shipped[name]
    if Path(name).suffix == ".toml":
        return read(Path(name))
    raise UnknownNameError(f"There is no {what} called {name!r} (a path must end in .toml). {suggest(name, shipped)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The few names that are nearest: there are hundreds of classes, and a list of all helps nobody.

    >>> nearest("buildin", ["road", "building", "sky"])
    "Did you mean 'building'?"
    """
    near = difflib.get_close_matches(name.lower(), list(known), n=_NEAR, cutoff=0.6)
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else "No known name is near it."
