"""Where the images of a `dbStruct` lie: the trees that users have, and files whose suffix is not the listed one."""

from __future__ import annotations

import filecmp
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from covis.datasets.dbstruct.matlab import holds_variable, is_matlab
from covis.errors import InvalidInputError, MissingFileError

STRUCTS = ("", "datasets", "raw", "raw/datasets", "raw_data/datasets")
"""Where a data set's .mat lies, below its folder."""
DATABASE = ("", "images", "database", "database_gsv_vga")
"""Folders of the database, in the order tried."""
QUERIES = ("queries_real", "queries", "query", "247query_subset_v2", "queries/247query_subset_v2", "query/247query_subset_v2")
"""Folders of the queries."""

_PICTURES = (".jpg", ".jpeg", ".png")
_PROBES = 7


def find_struct(root: Path, *, split: str, name: str | None) -> Path:
    """The .mat file of a split: the root itself, or the one below it whose name fits.

    Raises:
        MissingFileError: there is no such file or folder, no .mat in it, or none of that split or name.
        InvalidInputError: several fit, and are not copies of one file.
    """
    if root.is_file():
        return root
    if not root.is_dir():
        raise MissingFileError(f"{root} must be a dbStruct .mat file, or a folder that holds it; there is no such file or folder.")
    found = _structs(root)
    if not found:
        raise MissingFileError(
            f"{root} must hold a dbStruct .mat file, in itself or in {', '.join(STRUCTS[1:])}; found none. Download it, or point to it."
        )
    listed = ", ".join(str(path.relative_to(root)) for path in found[:12]) + (" …" if len(found) > 12 else "")
    called = [path for path in found if name is None or _plain(name) in (_plain(path.stem), _plain(split_name(path)[0]))]
    fits = [path for path in called if split_name(path)[1] == split] or [path for path in called if split_name(path)[1] is None]
    if not fits:
        of = "" if name is None else f" called {name!r}"
        raise MissingFileError(f"{root} must hold a dbStruct{of} of the split {split!r}; it holds {listed}.")
    if any(path.name != fits[0].name or not filecmp.cmp(path, fits[0], shallow=False) for path in fits[1:]):
        raise InvalidInputError(
            f"{root} holds several dbStruct files for the split {split!r}: {listed}. Say which with name={split_name(fits[0])[0]}, or "
            "point to the file."
        )
    return fits[0]


def is_dbstruct(root: Path) -> bool:
    """Whether a file, or the first MATLAB file where a data set has it, holds a `dbStruct`."""
    found = [root] if root.is_file() else _structs(root)[:1]
    return any(holds_variable(path, "dbStruct") for path in found)


def split_name(path: Path) -> tuple[str, str | None]:
    """A file's name without the split at its end, and that split.

    >>> split_name(Path("datasets/pitts30k_val.mat")), split_name(Path("tokyo247.mat"))
    (('pitts30k', 'val'), ('tokyo247', None))
    """
    found = re.fullmatch(r"(.+)_(train|val|test)", path.stem)
    return (found[1], found[2]) if found else (path.stem, None)


def bases(root: Path, struct: Path, folder: str) -> list[Path]:
    """The folders that may hold a set's images: the root, that of the .mat, those above `datasets` and `raw`; in them that of the set."""
    above = [struct.parent]
    while above[-1].name in ("datasets", "raw", "raw_data") and above[-1] != root:
        above.append(above[-1].parent)
    places = [*([root] if root.is_dir() else []), *reversed(above)]
    named = [below for one in places for below in _folders(one) if folder and below.name.lower().startswith(folder)]
    return list(dict.fromkeys([*places, *named]))


def find_side(places: Sequence[Path], folders: Iterable[str], names: Sequence[str], files: FilesByStem) -> Path:
    """The folder in which most of some names have a file, the first of several; without any, the first named folder that is there."""
    probes = [names[row * (len(names) - 1) // max(_PROBES - 1, 1)] for row in range(_PROBES)]
    candidates = list(dict.fromkeys(place / folder for folder in folders for place in places if (place / folder).is_dir()))
    hits = [sum(bool(files.find(folder, name)) for name in probes) for folder in candidates]
    if any(hits):
        return candidates[hits.index(max(hits))]
    return next((folder for folder in candidates if folder not in places), places[0])


class FilesByStem:
    """Which files stand for a listed name; every folder is listed once."""

    def __init__(self) -> None:
        self._listed: dict[Path, tuple[set[str], dict[str, list[str]]]] = {}

    def find(self, root: Path, name: str) -> list[str]:
        """The name itself where its file is there, else the images that differ from it in the suffix alone."""
        folder, _, file = name.rpartition("/")
        place = root / folder
        if place not in self._listed:
            self._listed[place] = _images_in(place)
        files, stems = self._listed[place]
        if file in files:
            return [name]
        return [f"{folder}/{other}" if folder else other for other in stems.get(_stem(file), [])]

    def resolve(self, root: Path, names: Sequence[str], source: Path) -> list[str]:
        """The files of listed names; a name without any stays as it is.

        Raises:
            InvalidInputError: two files could stand for one name.
        """
        resolved = []
        for row, name in enumerate(names, start=1):
            found = self.find(root, name)
            if len(found) > 1:
                raise InvalidInputError(
                    f"{source}, row {row}: {name!r} has no file in {root}, and {' and '.join(sorted(found))} could both stand for it. "
                    "Remove one."
                )
            resolved.append(found[0] if found else name)
        return resolved


def _plain(name: str) -> str:
    """tokyo-tm is tokyoTM."""
    return name.lower().replace("-", "")


def _structs(root: Path) -> list[Path]:
    """The .mat files where data sets have them; without any, files of seqNet's suffix."""
    found = [path for below in STRUCTS for path in sorted((root / below).glob("*.mat"))]
    return found or [path for below in STRUCTS for path in sorted((root / below).glob("*.db")) if is_matlab(path)]


def _images_in(folder: Path) -> tuple[set[str], dict[str, list[str]]]:
    try:
        with os.scandir(folder) as entries:
            files = {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set(), {}
    stems: dict[str, list[str]] = {}
    for file in sorted(files):
        if PurePosixPath(file).suffix.lower() in _PICTURES:
            stems.setdefault(_stem(file), []).append(file)
    return files, stems


def _stem(file: str) -> str:
    """Without an image's suffix; names of cutouts hold dots elsewhere."""
    path = PurePosixPath(file)
    return path.stem if path.suffix.lower() in _PICTURES else file


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(path for path in place.iterdir() if path.is_dir())
    except OSError:
        return []
