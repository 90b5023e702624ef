"""How every writer places image files: copied, linked, or not at all. The user's own files are never moved or renamed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal, TypeAlias

from covis.errors import InvalidInputError, MissingFileError

Files: TypeAlias = Literal["copy", "link", "none"]


def place_file(source: Path, target: Path, files: Files = "copy") -> None:
    """Put a file at `target`: a copy, a symbolic link to the original, or ("none") nothing, for metadata alone.

    Raises:
        MissingFileError: there is no such source.
        InvalidInputError: `files` is none of the three.
    """
    if files not in ("copy", "link", "none"):
        raise InvalidInputError(f"files must be 'copy', 'link' or 'none'; got {files!r}.")
    if files == "none":
        return
    if not source.is_file():
        raise MissingFileError(f"{source} must be there to be written; there is no such file.")
    target.parent.mkdir(parents=True, exist_ok=True)
    if files == "copy":
        shutil.copyfile(source, target)
    else:
        os.symlink(source.absolute(), target)
