"""Readers and their inverse writers, one file a layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from covis.datasets.seven_scenes import read_7scenes, write_7scenes
from covis.errors import InvalidInputError, MissingFileError
from covis.images import Scene
from covis.lookup import resolve, with_options

Reader = Callable[..., list[Scene]]
Writer = Callable[..., list[Path]]


def read(layout: str, root: str | Path, *, split: str = "test", **options: Any) -> list[Scene]:
    """Read a data set: one scene for each place with a coordinate frame of its own.

    Args:
        layout: a name of `READERS`, "auto" to guess it from what is there, or `module:function`.
        root: the data set's folder or file.
        split: what the layout calls its splits ("train", "test").
        **options: the reader's own.

    Raises:
        UnknownNameError: no reader has that name.
        InvalidInputError: the reader does not take an option.
        CovisError: whatever the reader finds wrong, with the file it found it in.
    """
    name = guess_layout(root) if layout == "auto" else layout
    reader = with_options(resolve(name, READERS, what="layout"), {"split": split, **options}, what="reader")
    scenes: list[Scene] = reader(root, split=split, **options)
    return scenes


def guess_layout(root: str | Path) -> str:
    """The layout of a folder, where it is plain.

    Raises:
        MissingFileError: there is no such folder.
        InvalidInputError: it is not plain.
    """
    root = Path(root)
    if not root.exists():
        raise MissingFileError(f"The data {root} must exist; there is no such file or folder.")
    if (root / "TrainSplit.txt").is_file() or any(root.glob("*/TrainSplit.txt")):
        return "7scenes"
    raise InvalidInputError(f"The layout of {root} is not plain; say it with --layout. Known: {', '.join(sorted(READERS))}.")


READERS: dict[str, Reader] = {"7scenes": read_7scenes}
"""Name -> reader: `(root, *, split, …) -> list[Scene]`."""

WRITERS: dict[str, Writer] = {"7scenes": write_7scenes}
"""Name -> the inverse: `(scenes, out) -> list[Path]`."""
