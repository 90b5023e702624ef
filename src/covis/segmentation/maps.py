"""The names of label maps, after their photographs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

RECORD = "segmentation.json"
"""The file beside the maps that says what made them."""


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
