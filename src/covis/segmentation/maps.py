"""Label maps beside their photographs: their names, and PNG files that say of which photograph and by what they were made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from os.path import relpath
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from covis.errors import DamagedFileError, MissingFileError
from covis.files import atomic_path
from covis.images import Images

RECORD = "segmentation.json"
"""The file beside the maps that says what made them."""

_KEY = "covis"


def map_names(names: Iterable[str]) -> dict[str, str]:
    """The name of each photograph's map: its own, with the suffix .png; photographs that would share one keep theirs before it.

    Args:
        names: relative paths, each once.

    Returns:
        photograph -> map, no two the same.

    >>> map_names(["a/b.jpg", "c.jpg", "c.png"])
    {'a/b.jpg': 'a/b.png', 'c.jpg': 'c.jpg.png', 'c.png': 'c.png.png'}
    """
    short = {name: PurePosixPath(name).with_suffix(".png").as_posix() for name in names}
    found = dict(short)
    while crowded := {one for one, count in Counter(found.values()).items() if count > 1}:
        found = {name: f"{name}.png" if there in crowded else there for name, there in found.items()}
    return found


def write_map(path: str | Path, numbers: NDArray[np.uint8], *, palette: NDArray[np.uint8], note: Mapping[str, object]) -> Path:
    """Write class numbers as a PNG with a palette and a note in its text, atomically; returns the path.

    Args:
        path: ending in .png.
        numbers: (height, width) uint8; they stay what they are, the palette is only for looking.
        palette: (256, 3) uint8.
        note: what `read_note` gives back.
    """
    image = Image.fromarray(numbers)
    image.putpalette(palette.ravel().tolist())
    text = PngInfo()
    text.add_text(_KEY, json.dumps(note, sort_keys=True))  # ASCII, which is all that such a text holds
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=text)
    return Path(path)


def read_note(path: str | Path) -> dict[str, object] | None:
    """The note in a PNG, without decoding its pixels; None where there is no such file, or it holds none.

    Raises:
        DamagedFileError: what is there cannot be opened as an image.
    """
    try:
        with Path(path).open("rb") as stream, Image.open(stream) as image:
            found = json.loads(getattr(image, "text", {}).get(_KEY, "null"))
    except FileNotFoundError:
        return None
    except Exception as error:  # decoders of damaged files raise anything
        raise DamagedFileError(f"{path} must be a label map; it does not open ({error}). Remove it.") from error
    return found if isinstance(found, dict) else None


def with_maps(images: Images, folder: str | Path, *, base: str | Path | None = None, missing: bool = False) -> Images:
    """The table with the maps of a folder that `covis segment` wrote in its column `segmentation`.

    Args:
        images: photographs, all of which were segmented.
        folder: of the maps.
        base: the folder that the maps' names are relative to, as `segment` had it; absent, the images' root.
        missing: whether photographs without a map are left out of the table; otherwise they are an error.

    Returns:
        The table, its `segmentation` relative to its root.

    Raises:
        MissingFileError: a photograph has no map.
    """
    base = Path(images.root if base is None else base).absolute()
    names = [relpath(images.path(row).absolute(), base) for row in range(len(images))]
    return attached(images, [_found(Path(folder), name) for name in names], missing=missing)


def attached(images: Images, files: Sequence[Path | None], *, missing: bool = False) -> Images:
    """The table with these files in its column `segmentation`; rows without one are left out, or are an error.

    Raises:
        MissingFileError: a photograph has no map, and `missing` is false.
    """
    kept = [row for row, file in enumerate(files) if file is not None]
    if len(kept) < len(images) and not missing:
        lacking = next(row for row, file in enumerate(files) if file is None)
        raise MissingFileError(
            f"Every photograph must have a label map; {len(images) - len(kept)} of {len(images)} have none, the first "
            f"{images.names[lacking]}. Make them (covis segment)."
        )
    root = images.root.absolute()
    column = tuple(Path(relpath(Path(file).absolute(), root)).as_posix() for file in files if file is not None)
    return replace(images if len(kept) == len(images) else images.select(kept), segmentation=column)


def _found(folder: Path, name: str) -> Path | None:
    """The map of a photograph, by either of the two names that it may have."""
    for there in (folder / PurePosixPath(Path(name).as_posix()).with_suffix(".png"), folder / f"{name}.png"):
        note = read_note(there)
        if note is not None and note.get("photograph") == Path(name).as_posix():
            return there
    return None
