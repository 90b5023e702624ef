"""A folder of images as one side of a set whose truth is an index: what is in it, in which order, and the inverse.

A list beside the folder, `<folder>_images_paths.txt`, one path a line, says what is in it where it is there, and in which order.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as attributes
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from covis.datasets.drafts import Draft
from covis.datasets.filing import Files, place_file
from covis.errors import CovisError, CovisWarning, InvalidInputError, MissingFileError
from covis.files import read_text, write_text
from covis.images import Images, Scene

SUFFIXES = (".jpg", ".jpeg", ".png")
LARGEST = 1 << 62
"""Frames are below: any number of nanoseconds since 1970 is, and so is its sum with any threshold of a protocol in 64 bits."""
_TEXT = 10**40
_DIGITS = re.compile(r"(\d{1,40})", re.ASCII)


@dataclass(frozen=True)
class Pictures:
    """The images of one folder.

    Attributes:
        root: the data set's folder.
        side: the folder inside it where they lie.
        names: relative to it, in the list's order; without a list in the order of their numbers: image-9 before image-10.
        source: the folder, or the list beside it.
        lines: the line of each in the list; None where there is none.
    """

    root: Path
    side: str
    names: tuple[str, ...]
    source: Path
    lines: NDArray[np.int64] | None = None

    def stems(self) -> tuple[str, ...]:
        """The names without folder and suffix."""
        return tuple(PurePosixPath(name).stem for name in self.names)

    def numbers(self) -> tuple[int, ...] | None:
        """The number that each stem is; None where one is more than a number, or a number from `LARGEST` on."""
        return None if self.odd() else tuple(map(int, self.stems()))

    def odd(self) -> str | None:
        """The first name that is no number which can be a frame."""
        numbered = ((name, _DIGITS.fullmatch(stem)) for name, stem in zip(self.names, self.stems(), strict=True))
        return next((name for name, found in numbered if not found or int(found[0]) >= LARGEST), None)

    def draft(self, frames: Sequence[int] | None) -> Draft:
        """One side, whose names begin with the folder's; no frame stands twice.

        Raises:
            InvalidInputError: two images have one frame.
        """
        names = [f"{self.side}/{name}" for name in self.names]
        if frames is not None and len(set(frames)) < len(frames):
            first: dict[int, str] = {}
            a, b = next((first[frame], name) for name, frame in zip(names, frames, strict=True) if first.setdefault(frame, name) != name)
            raise InvalidInputError(f"{self.source}: a frame must have one image; {a} and {b} are both one. Take one away.")
        columns = {} if frames is None else {"frame": np.array(frames, dtype=np.int64)}
        return Draft(self.root, names, self.source, columns, lines=self.lines)


def is_side(folder: Path) -> bool:
    """Whether there is such a folder, or a list of what is in it."""
    return folder.is_dir() or list_of(folder).is_file()


def list_of(folder: Path) -> Path:
    """The list beside a folder."""
    return folder.with_name(f"{folder.name}_images_paths.txt")


def pictures(root: Path, side: str, *, layout: str, only: Sequence[str] | None = None) -> Pictures:
    """The .jpg, .jpeg and .png files of a folder (not of its subfolders), or those that the list beside it names.

    Args:
        root: the data set's folder.
        side: the folder inside it.
        layout: what it is to be, for messages.
        only: file names; no others count, and each of them is there (whether the file is, is looked at later).

    Raises:
        MissingFileError: there is no such folder, or no image in it.
        InvalidInputError: a line of the list is no name of an image, or the folder lies outside.
    """
    folder = root / inside(side)
    if list_of(folder).is_file():
        names, lines = read_names_list(list_of(folder))
        found = Pictures(root, side, tuple(names), list_of(folder), np.array(lines, dtype=np.int64))
    elif folder.is_dir():
        found = Pictures(root, side, tuple(sorted(_listed(folder), key=in_order)), folder)
    else:
        raise MissingFileError(f"{root} must hold the folder {side!r} ({layout}); there is none. Is this the data set's folder?")
    if only is not None:
        suffix = {PurePosixPath(name).stem: name for name in found.names}
        names = [suffix.get(PurePosixPath(name).stem, name) for name in only]
        found = replace(found, names=tuple(sorted(names, key=in_order)), source=folder, lines=None)
    if not found.names:
        raise MissingFileError(f"{found.source} must hold images (.jpg, .png) of {layout}; found none. Is this the right folder?")
    return found


def first_picture(folder: Path) -> Path | None:
    """The first image of a folder, or of the list beside it; None where there is none, for guesses."""
    try:
        names = read_names_list(list_of(folder))[0] if list_of(folder).is_file() else sorted(_listed(folder))
    except (CovisError, OSError):
        return None
    return folder / names[0] if names else None


def _listed(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]


def data_folder(root: str | Path, what: str) -> Path:
    """A data set's folder, absolute.

    Raises:
        MissingFileError: there is no such folder, or it is a file; `what` says what it must be.
    """
    root = Path(root).absolute()
    if not root.is_dir():
        raise MissingFileError(f"{root} must be {what}; {'it is a file' if root.exists() else 'there is no such folder'}.")
    return root


def check_apart(root: Path, database: str, queries: str) -> None:
    """Refuse one folder as both sides: every query would find itself.

    Raises:
        InvalidInputError: they are one folder, or not inside the data set's.
    """
    if (root / inside(database)).resolve() == (root / inside(queries)).resolve():
        raise InvalidInputError(f"The database's and the queries' folder must be two; {root / queries} is given as both. Say another.")


def check_written(database: str, queries: str) -> None:
    """Refuse folders to write into that are one, or one inside the other.

    Raises:
        InvalidInputError: they are, or lie outside the data set's folder.
    """
    here, there = PurePosixPath(inside(queries)), PurePosixPath(inside(database))
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise InvalidInputError(
            f"The database and the queries must be written to two folders, neither inside the other; got {database!r} and {queries!r}."
        )


def inside(side: str) -> str:
    """The name of a side's folder, which lies inside the data set's.

    Raises:
        InvalidInputError: it does not.
    """
    path = PurePosixPath(side)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise InvalidInputError(f"The database's and the queries' folder must be a folder inside the data set's; got {side!r}.")
    return side


def in_order(name: str) -> list[tuple[int, str]]:
    """A key that sorts names with their numbers as numbers.

    >>> sorted(["10.jpg", "9.jpg", "a2.jpg"], key=in_order)
    ['9.jpg', '10.jpg', 'a2.jpg']
    """
    parts = _DIGITS.split(name)
    keys = [(int(part), "") if place % 2 else (_TEXT, part) for place, part in enumerate(parts) if place % 2 or part]
    return [*keys, (_TEXT, name)]


def read_names_list(path: Path) -> tuple[list[str], list[int]]:
    """The names of a list, one a line, and the line of each; blank lines do not count.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is no text.
        InvalidInputError: a line leads out of the folder, names no image, or names one again.
    """
    names: dict[str, int] = {}
    for number, line in enumerate(read_text(path).removeprefix("\ufeff").split("\n"), start=1):
        name = line.strip().replace("\\", "/").removeprefix("./")
        if not name:
            continue
        parts = PurePosixPath(name)
        if not name.isprintable() or parts.is_absolute() or ".." in parts.parts or parts.suffix.lower() not in SUFFIXES:
            raise InvalidInputError(f"{path}, line {number}: a line must be the path of a .jpg or .png inside the folder; found {line!r}.")
        if name in names:
            raise InvalidInputError(f"{path}, line {number}: an image must be listed once; {name} stands on line {names[name]} too.")
        names[name] = number
    return list(names), list(names.values())


def frames_of(images: Images, *, what: str) -> list[int]:
    """The frame of each image, its row where it has none, for a layout that says nothing else but names.

    Raises:
        InvalidInputError: two images have one frame, or one is below 0.

    Warns:
        CovisWarning: the images have more than that.
    """
    frames = list(range(len(images))) if images.frame is None else images.frame.tolist()
    if len(set(frames)) < len(frames) or min(frames, default=0) < 0:
        raise InvalidInputError(
            f"{what} holds one image a frame, from 0 on; those in {images.root} have frames twice or below 0. Number them."
        )
    known = ("root", "names", "flags", "frame", "_")
    lost = [field.name for field in attributes(images) if field.name not in known and getattr(images, field.name) is not None]
    if lost or images.flags:
        said = f"{what} holds frames; of the images in {images.root} it does not keep "
        warnings.warn(said + ", ".join([*lost, *images.flags]) + ".", CovisWarning, stacklevel=4)
    return frames


def check_writable(scenes: Sequence[Scene], *, what: str) -> None:
    """Refuse scenes that a layout of two folders cannot hold.

    Raises:
        InvalidInputError: two share a name, or one is no test scene with two sides.
    """
    if len({scene.name for scene in scenes}) != len(scenes):
        raise InvalidInputError("Scenes written to one folder must have different names.")
    for scene in scenes:
        if scene.training or scene.split != "test":
            raise InvalidInputError(f"{what} holds a database and queries of the split 'test'; got {scene!r}.")


def suffix_of(images: Images, row: int) -> str:
    """An image's suffix.

    Raises:
        InvalidInputError: it is neither JPEG nor PNG.
    """
    suffix = images.path(row).suffix
    if suffix.lower() not in SUFFIXES:
        raise InvalidInputError(f"{images.path(row)} must be a .jpg, .jpeg or .png to be written. Convert it.")
    return suffix


def write_pictures(folder: Path, images: Images, stems: Sequence[str], files: Files) -> None:
    """Place images in a folder under these names, each with its own suffix; without files a list beside it says them."""
    folder.mkdir(parents=True)
    names = [stem + suffix_of(images, row) for row, stem in enumerate(stems)]
    for row, name in enumerate(names):
        place_file(images.path(row), folder / name, files)
    if files == "none":
        write_text(list_of(folder), "".join(f"{name}\n" for name in names))
