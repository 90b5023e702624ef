"""How every writer places image files: copied, linked, or not at all. The user's own files are never moved or renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from covis.errors import InvalidInputError, MissingFileError
from covis.files import check_absent
from covis.images import Images, Scene

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


def require_files(images: Images) -> None:
    """Every image must be there, which is known before the first is written.

    Raises:
        MissingFileError: one is not.
    """
    for row in range(len(images)):
        if not images.path(row).is_file():
            raise MissingFileError(f"{images.path(row)} must be there to be written; there is no such file.")


def check_targets(scenes: Sequence[Scene], out: str | Path, *, overwrite: bool) -> list[Path]:
    """The folder that each scene is written to, `out/<name>`; all may be written, which is known before the first is.

    Raises:
        OutputExistsError: one is there and `overwrite` is false.
        InvalidInputError: images of the scenes lie in a folder that would be replaced.
    """
    folders = [check_absent(Path(out) / scene.name, overwrite=overwrite) for scene in scenes]
    refuse_in_place(scenes, folders)
    return folders


def refuse_in_place(scenes: Sequence[Scene], folders: Sequence[Path]) -> None:
    """Writing a folder anew must not take away the images that are being written.

    Raises:
        InvalidInputError: images of the scenes lie in one of the folders.
    """
    sides = [images for scene in scenes for images in (scene.database, scene.queries)]
    below = {(images.root, name.rpartition("/")[0]) for images in sides for name in images.names}
    sources = sorted({(root / inner).resolve() for root, inner in below})
    for folder in folders:
        inside = next((source for source in sources if source.is_relative_to(folder.resolve())), None)
        if inside is not None and folder.exists():
            raise InvalidInputError(
                f"A data set must be written beside the one that it is made of; {inside} lies in {folder}, which would be replaced. "
                "Choose another folder."
            )
