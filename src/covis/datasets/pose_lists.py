"""Text lists of images and their poses, as benchmarks of visual localisation write them.

A line is a name and so many numbers, apart by blanks or tabs; CRLF, a byte-order mark, empty lines, lines that begin with "#", "./"
before a name and three-digit exponents are read as what they mean, and an empty file is an empty list. Everything else stops, with
file and line. NVM models (VisualSFM) are read as far as their cameras go, so that millions of points cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from covis.datasets.drafts import Draft
from covis.datasets.pose_orders import FORMS, UNIT, poses_of, rows_of
from covis.errors import DamagedFileError, MissingFileError
from covis.files import read_text, write_text

SEVEN = "qw qx qy qz x y z"
"""The numbers of a pose in these lists; what they do is said by `FORMS`."""

STAMPED = 10**12
"""Microseconds since 1970 from which on a number in a name is a time (12 January 1970), and below which it is no more than a number."""

_NVM_FIELDS = "focal length, qw qx qy qz, x y z, distortion, 0"


@dataclass(frozen=True)
class Listing:
    """What a list says, in its order; names may stand twice.

    Attributes:
        path: the file.
        names: n names, without "./" before them.
        values: (n, m) numbers, all finite.
        lines: (n,) the line of each row, from 1.
    """

    path: Path
    names: tuple[str, ...]
    values: NDArray[np.float64]
    lines: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    def where(self, row: int) -> str:
        """File and line of a row."""
        return f"{self.path}, line {self.lines[row]}"


@dataclass
class ListedDraft(Draft):
    """A draft whose rows are from several files: `places` says for each row file and line."""

    places: Sequence[str] = field(default_factory=list)

    def where(self, row: int) -> str:
        """The file and line that a row comes from."""
        return self.places[row]


def read_list(path: str | Path, *, numbers: int = 0, what: str = "") -> Listing:
    r"""Read a list: on each line a name and so many numbers.

    Args:
        path: the file.
        numbers: how many follow the name; 0 for a list of names.
        what: what the numbers are, for messages ("qw qx qy qz x y z").

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is no text, or a line has another count of fields, or something that is no finite number.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "poses.txt"
    ...     _ = path.write_bytes(b"./a.png\t1.5e+000 2\r\n\r\n# end\r\n")
    ...     listing = read_list(path, numbers=2)
    >>> listing.names, listing.values.tolist(), listing.lines.tolist()
    (('a.png',), [[1.5, 2.0]], [1])
    """
    path = Path(path)
    return _parse(path, enumerate(read_text(path).removeprefix("\ufeff").split("\n"), start=1), numbers=numbers, what=what)


def read_nvm_cameras(path: str | Path) -> Listing:
    """Read the cameras of the first model of an NVM file: values (n, 10) are focal length, quaternion, centre, distortion, 0.

    The rotation is world-to-camera, the three numbers behind it are the camera's centre: `seven_poses(listing, first=1)`.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is no NVM file of version 3 with quaternions, a camera's line does not read, or there are fewer cameras than
            it says.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig") as lines:
            numbered = enumerate(lines, start=1)
            count = _nvm_count(path, numbered)
            listing = _parse(path, _filled(numbered, count), numbers=10, what=_NVM_FIELDS, comments=False)
    except FileNotFoundError:
        raise MissingFileError(f"{path} must exist; there is no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedFileError(f"{path} must be a readable NVM text file; {error}.") from error
    if len(listing) < count:
        raise DamagedFileError(f"{path} says that it holds {count} cameras; found {len(listing)}. The file is truncated: unpack it again.")
    return listing


def seven_poses(listing: Listing, *, form: str, first: int = 0) -> NDArray[np.float64]:
    """(n, 4, 4) camera-to-world poses of a list's seven numbers.

    Args:
        listing: what `read_list` or `read_nvm_cameras` gave.
        form: a name of `FORMS`, which says order and convention.
        first: the column of the first of the seven.

    Raises:
        DamagedFileError: a quaternion's length is not 1, within `UNIT`; the message names the line.
    """
    rows = listing.values[:, first : first + 7]
    order = FORMS[form].order.split()
    lengths = np.linalg.norm(rows[:, [place for place, name in enumerate(order) if name.startswith("q")]], axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT))
    if wrong.size:
        raise DamagedFileError(
            f"{listing.where(wrong[0])}: a quaternion must have the length 1, within {UNIT:g}; that of {listing.names[wrong[0]]} has "
            f"{lengths[wrong[0]]:g}. Are the numbers {' '.join(order)}?"
        )
    return poses_of(rows, order=" ".join(order), convention=FORMS[form].convention)


def matrix_poses(listing: Listing) -> NDArray[np.float64]:
    """(n, 4, 4) matrices of sixteen numbers a line, row by row.

    Raises:
        DamagedFileError: the last row of one is not 0 0 0 1: it is transposed, or no pose.
    """
    poses = listing.values.reshape(-1, 4, 4)
    wrong = np.flatnonzero((poses[:, 3] != (0, 0, 0, 1)).any(axis=1))
    if wrong.size:
        raise DamagedFileError(
            f"{listing.where(wrong[0])}: a pose must be a 4x4 matrix, row by row, with the last row 0 0 0 1; that of "
            f"{listing.names[wrong[0]]} ends in {poses[wrong[0], 3].tolist()}. Is it transposed?"
        )
    return poses


def seven_rows(poses: NDArray[np.float64], *, form: str) -> NDArray[np.float64]:
    """(n, 7) numbers of camera-to-world poses: the inverse of `seven_poses`."""
    return rows_of(poses, order=FORMS[form].order, convention=FORMS[form].convention)


def write_list(path: Path, names: Sequence[str], values: NDArray[np.float64] | None = None) -> Path:
    """Write a list that `read_list` reads back to the last bit; returns the path."""
    rows = [[]] * len(names) if values is None else values.tolist()
    return write_text(path, "".join(" ".join([name, *map(repr, row)]) + "\n" for name, row in zip(names, rows, strict=True)))


def write_nvm(path: Path, names: Sequence[str], *, focals: Sequence[float], poses: NDArray[np.float64]) -> Path:
    """Write cameras as an NVM model without points; returns the path."""
    rows = np.column_stack([focals, seven_rows(poses, form="nvm"), np.zeros((len(names), 2))]).tolist()
    lines = [" ".join([name, *(repr(value) for value in row[:-1]), "0"]) for name, row in zip(names, rows, strict=True)]
    return write_text(path, "\n".join(["NVM_V3", "", str(len(names)), *lines, "", "0", "0", ""]))


def plain_name(name: str) -> str:
    r"""A listed name without "./" before it, with "/" between folders.

    >>> plain_name("././dawn\\rear/1.png")
    'dawn/rear/1.png'
    """
    name = name.replace("\\", "/")
    while name.startswith("./"):
        name = name[2:]
    return name


def _parse(path: Path, numbered: Iterable[tuple[int, str]], *, numbers: int, what: str, comments: bool = True) -> Listing:
    names, values, lines = [], [], []
    for line, text in numbered:
        words = text.split()
        if not words or (comments and words[0].startswith("#")):
            continue
        if len(words) != 1 + numbers:
            asked = f"a name and {numbers} numbers ({what})" if numbers else "one name"
            raise DamagedFileError(f"{path}, line {line}: a line must hold {asked}; found {len(words)} fields: {text.strip()[:80]!r}.")
        if "\0" in words[0]:
            raise DamagedFileError(f"{path}, line {line}: a name must be text; found a zero byte. Unpack the file again.")
        names.append(plain_name(words[0]))
        values.append([_number(word, path, line) for word in words[1:]])
        lines.append(line)
    return Listing(path, tuple(names), np.array(values, dtype=np.float64).reshape(len(names), numbers), np.array(lines, dtype=np.int64))


def _number(word: str, path: Path, line: int) -> float:
    try:
        value = float("nan" if "_" in word else word)  # Python takes 1_000 for a number, no other program does
    except ValueError:
        value = float("nan")
    if not math.isfinite(value):
        raise DamagedFileError(f"{path}, line {line}: a finite number must stand behind the name; found {word[:40]!r}.")
    return value


def _filled(numbered: Iterator[tuple[int, str]], count: int) -> Iterator[tuple[int, str]]:
    return islice(((line, text) for line, text in numbered if text.strip()), count)


def _nvm_count(path: Path, numbered: Iterator[tuple[int, str]]) -> int:
    """The number of cameras, which stands behind the header line."""
    head = [(line, text.split()) for line, text in _filled(numbered, 2)]
    if not head or head[0][1][0] != "NVM_V3":
        found = head[0][1][0][:40] if head else "an empty file"
        raise DamagedFileError(f"{path} must be an NVM file that begins with NVM_V3 (cameras with quaternions); found {found!r}.")
    if len(head) < 2 or len(head[1][1]) != 1 or not (head[1][1][0].isascii() and head[1][1][0].isdecimal() and len(head[1][1][0]) < 10):
        found = "the end of the file" if len(head) < 2 else f"line {head[1][0]}: {' '.join(head[1][1])[:60]!r}"
        raise DamagedFileError(f"{path} must say behind its header how many cameras it holds; found {found}.")
    return int(head[1][1][0])
