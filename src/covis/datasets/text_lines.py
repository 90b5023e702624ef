"""Lines of text files that know where they stand: numbers and names are asked for, and what is none is refused with file and line."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from covis.errors import DamagedFileError, InvalidInputError
from covis.files import read_text

_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)


@dataclass(frozen=True)
class Line:
    """One line of a file.

    Attributes:
        path: the file.
        number: from 1.
        text: without the line break.
    """

    path: Path
    number: int
    text: str

    @property
    def where(self) -> str:
        """The file and the line, for messages."""
        return f"{self.path}, line {self.number}"

    def words(self, what: str, count: int | None = None, *, rest: bool = False) -> list[str]:
        """The words between blanks: `count` of them; with `rest` the last takes all that follows, blanks too.

        Raises:
            DamagedFileError: there are fewer, or more.
        """
        words = self.text.split(maxsplit=count - 1) if rest and count else self.text.split()
        if count is not None and len(words) != count:
            raise DamagedFileError(
                f"{self.where}: {what} must have {count} fields; found {len(words)}: "
                f"{self.text[:80]!r}. Is the line cut, or of another kind?"
            )
        return [*words[:-1], words[-1].rstrip()] if words else words


def lines_of(path: Path, *, comments: bool = True) -> list[Line]:
    """The lines of a UTF-8 file that are not blank; with `comments`, without those that begin with "#". CRLF and a BOM are taken.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is no UTF-8 text.
    """
    return [line for line in all_lines(path) if line.text.strip() and not (comments and line.text.lstrip().startswith("#"))]


def all_lines(path: Path) -> list[Line]:
    """Every line, blank ones and comments too: for files in which a blank line means something."""
    text = read_text(path).removeprefix("\ufeff")
    return [Line(path, number, line) for number, line in enumerate(text.split("\n"), start=1)]


def number(word: str, line: Line, what: str) -> float:
    """A finite number.

    Raises:
        DamagedFileError: it is none.
    """
    try:
        value = math.nan if "_" in word else float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DamagedFileError(f"{line.where}: {what} must be a finite number; found {word.strip()!r}. Mend the line.")
    return value


def numbers(words: Sequence[str], line: Line, what: str) -> list[float]:
    """Finite numbers.

    Raises:
        DamagedFileError: one is none.
    """
    return [number(word, line, what) for word in words]


def whole(word: str, line: Line, what: str) -> int:
    """A whole number of at most 18 digits.

    Raises:
        DamagedFileError: it is none.
    """
    if not _WHOLE.fullmatch(word.strip()):
        raise DamagedFileError(f"{line.where}: {what} must be a whole number; found {word.strip()!r}. Mend the line.")
    return int(word)


def inner_name(name: str, where: str) -> str:
    """A file's name inside the images' folder, without "./".

    Raises:
        InvalidInputError: it leads outside, is absolute, or no name at all.

    >>> inner_name("./a/b.jpg", "list.txt, line 1")
    'a/b.jpg'
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or any(c in name for c in "\0\n\r"):
        raise InvalidInputError(f"{where}: an image's name must lie inside the images' folder, in one line; found {name!r}.")
    return str(path)
