"""The bytes of a submission as lines of words, and what is wrong with the bytes."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

Found: TypeAlias = tuple[str, int | None, str]
"""A problem: its kind, its line, a sentence."""
MOST_BYTES = 1 << 30
"""A csv in a zip that is larger is not unpacked: that of all MSLS test queries is under a megabyte."""
_BEGINS = (b"PK\x03\x04", b"PK\x05\x06")
"""The first four bytes of a zip, and of one that holds nothing; a key or a name may begin with PK too."""
ALL_UNKNOWN = "no line is of a query of the data: is it the right data, and the right split (--split)?"
"""What is remarked of a file that has nothing in common with the data."""


class Line(NamedTuple):
    """A line that is neither empty nor a comment: its number from 1, and its words."""

    number: int
    words: tuple[str, ...]


def is_zip(path: Path, data: bytes) -> bool:
    """By what it begins with, whatever it is called; or by its name."""
    return data[:4] in _BEGINS or path.suffix.lower() == ".zip"


def csv_of(path: Path) -> tuple[bytes, list[Found]]:
    """What a zip's one csv holds; nothing, and why, where it does not hold just that."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if len(entries) != 1 or not names[0].endswith(".csv"):
                listed = ", ".join(map(repr, names[:5])) + (" …" if len(names) > 5 else "")
                return b"", [("file", None, f"the zip must hold one csv and nothing else; it holds {listed or 'nothing'}.")]
            if entries[0].file_size > MOST_BYTES:
                return b"", [("file", None, f"the csv must be a few megabytes; it says that it has {entries[0].file_size:,} bytes.")]
            inside = "/" in names[0] or "\\" in names[0]
            problems: list[Found] = [("file", None, f"the csv must not be in a folder of the zip; it is {names[0]!r}.")] if inside else []
            return archive.read(entries[0]), problems
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        return b"", [("file", None, f"the file must be a zip that opens; {error}.")]


def lines_of(data: bytes, *, comments: bool) -> tuple[list[Line], list[Found]]:
    """The lines of a text, and what is wrong with its bytes.

    Args:
        data: the bytes.
        comments: whether # begins a comment, blanks may be any, and lines may be empty.
    """
    problems: list[Found] = []
    if data.startswith(b"\xef\xbb\xbf"):
        problems.append(("bytes", 1, "the file must not begin with a byte order mark: a reader takes it for a part of the first name."))
        data = data[3:]
    if data and not data.endswith(b"\n"):
        problems.append(("bytes", data.count(b"\n") + 1, "the last line must end with a line break; is the file cut off?"))
    carriage = [number for number, raw in enumerate(data.split(b"\n"), start=1) if b"\r" in raw]
    if carriage:
        problems.append(
            ("bytes", carriage[0], f"lines must end with LF alone; {len(carriage)} have a carriage return (CR), this is the first.")
        )
    lines = []
    for number, raw in enumerate(data.removesuffix(b"\n").split(b"\n") if data else (), start=1):
        try:
            text = raw.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            problems.append(("bytes", number, f"the line must be UTF-8; byte {error.start + 1} of it is not."))
            continue
        problems += [("bytes", number, what) for what in _blanks(text, comments=comments)]
        words = tuple((text.partition("#")[0] if comments else text).split())
        if words and not (words[0].startswith("#") and not comments):
            lines.append(Line(number, words))
    return lines, problems


def _blanks(text: str, *, comments: bool) -> Iterator[str]:
    if "\0" in text:
        yield "the line must be text; it holds a zero byte."
    if comments:
        return
    if not text.strip():
        yield "a pose file must not have an empty line."
    elif text.startswith("#"):
        yield "a pose file must not have comments."
    elif text != " ".join(text.split()):
        yield "words must be separated by single blanks, with none before or behind."
