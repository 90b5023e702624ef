"""Label maps beside photographs: found in a folder, put into a table of images, and given to other places as a control."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError, MissingFileError
from covis.images import Images, Scene
from covis.semantics.notes import read_note

FRAMES = 10
"""Consecutive images that are one place where positions are not known."""
_SHOWN = 3


def attach_maps(images: Images, folder: str | Path, *, base: str | Path | None = None) -> Images:
    """The images with the label maps of a folder in their column `segmentation`.

    Of an image `day/0001.jpg` the map is `<folder>/day/0001.jpg.png`, or `<folder>/day/0001.png`. With `base`, the image's path from
    there is looked for first: so `covis segment` names maps where a data set has several roots. Where names lead out of the images'
    root (`../photos/0001.jpg`), they are counted from the lowest folder above the root that has all of them (`photos/0001.jpg`).

    A map that `covis segment` wrote says of which photograph it is; one of another photograph is not taken. Headers alone are read.

    Args:
        images: whose names the maps have.
        folder: of the maps; anywhere, the column holds the path relative to `images.root`.
        base: the data set's folder.

    Raises:
        MissingFileError: there is no such folder, or an image has no map; the message says how many, and the first three.
        InvalidInputError: a map is of another photograph, or two images would have the same (`a.jpg` and `a.png`).
        DamagedFileError: a map does not open.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(f"The folder of label maps {folder} must exist; there is no such folder.")
    # of a root that is a link, ".." leads out of where the link points to
    root, real = os.path.realpath(images.root), os.path.realpath(folder)
    bases = [outer_folder(root, images.names), root]
    if base is not None:
        bases.insert(0, os.path.realpath(base))
    found = [_map_of(os.path.normpath(os.path.join(root, name)), real, bases) for name in images.names]
    missing = [name for name, path in zip(images.names, found, strict=True) if path is None]
    if missing:
        candidates = _candidates(_names_of(os.path.normpath(os.path.join(root, missing[0])), bases))
        raise MissingFileError(
            f"Every image of {root} must have a label map in {os.path.normpath(folder)}; {len(missing)} of {len(images)} have none: "
            f"{', '.join(missing[:_SHOWN])}{', …' if len(missing) > _SHOWN else ''}. Looked there for {' and '.join(candidates)}. "
            "Make them (covis segment), or name the folder that they are in."
        )
    files = tuple(Path(os.path.relpath(path, root)).as_posix() for path in found if path is not None)
    owner: dict[str, str] = {}
    for name, file in zip(images.names, files, strict=True):
        if file in owner:
            raise InvalidInputError(
                f"Every image must have a label map of its own in {folder}; {owner[file]} and {name} would share {Path(file).name}. "
                f"Call the maps {Path(owner[file]).name}.png and {Path(name).name}.png."
            )
        owner[file] = name
    return replace(images, segmentation=files)


def outer_folder(root: str, names: Iterable[str]) -> str:
    """The root; where names lead out of it, the lowest folder above it that has all of them.

    Args:
        root: absolute, no link.
        names: relative to it.

    >>> outer_folder("/data/tables", ["a.jpg"]), outer_folder("/data/tables", ["../photos/a.jpg"])
    ('/data/tables', '/data')
    """
    outside = {os.path.dirname(os.path.normpath(os.path.join(root, name))) for name in names if ".." in name}
    return os.path.commonpath([root, *outside])


def _names_of(photograph: str, bases: Sequence[str]) -> list[str]:
    """What a photograph is called from each of the folders that it lies in, each name once."""
    names = [Path(os.path.relpath(photograph, base)).as_posix() for base in bases]
    return list(dict.fromkeys(name for name in names if not name.startswith("../")))


def _candidates(names: Sequence[str]) -> list[str]:
    """What a photograph's map may be called, the longer name first: it tells `a.jpg` from `a.png`."""
    return [one for name in names for one in (f"{name}.png", PurePosixPath(name).with_suffix(".png").as_posix())]


def _map_of(photograph: str, folder: str, bases: Sequence[str]) -> str | None:
    """The map's path. An image is not its own map, and the map of another photograph is nobody's here.

    Raises:
        InvalidInputError: what is there is of other photographs alone.
    """
    names = _names_of(photograph, bases)
    foreign: list[tuple[str, object]] = []
    for candidate in _candidates(names):
        path = os.path.join(folder, candidate)
        if path == photograph or not os.path.isfile(path):
            continue
        said = (read_note(path) or {}).get("photograph")
        if said is None or said in names:
            return path
        foreign.append((path, said))
    if foreign:
        raise InvalidInputError(
            f"{foreign[0][0]} must be the label map of {' or '.join(names)}; its note says that it is of {foreign[0][1]}. Is it of another "
            "data set, or was the folder of the maps moved into another? Make the maps of these photographs (covis segment)."
        )
    return None


def check_own_maps(scenes: Sequence[Scene]) -> None:
    """Hold that no two photographs of different scenes have one label map, as those of one name in two folders might.

    Raises:
        InvalidInputError: two have.
    """
    owners: dict[str, Path] = {}
    for scene in scenes:
        for side in [scene.database] if scene.training else [scene.database, scene.queries]:
            for row, file in enumerate(side.segmentation or ()):
                photograph = Path(os.path.normpath(side.path(row).absolute()))
                other = owners.setdefault(os.path.normpath(side.root.absolute() / file), photograph)
                if other != photograph:
                    raise InvalidInputError(
                        f"Every photograph must have a label map of its own; {other} and {photograph} would share {file}. Name the maps by "
                        "the photographs' paths from the data set's folder, as covis segment does."
                    )


def corrupted(scene: Scene, share: float, *, seed: int, cell: float = 25.0, frames: int = FRAMES) -> Scene:
    """The scene with the label maps of other places in a share of its places: a control, ours, of what maps teach.

    A place is a square of `cell` metres, on both sides the same. Where a side has no positions a place is `frames` consecutive
    numbers of `frame` within a sequence (Nordland's sides, whose frames correspond, share places), and where there are no
    frames either, `frames` consecutive rows of a side. In `round(share * places)` places, drawn by `seed`, every image gets the
    map of an image drawn from all images, of both sides, that are of another place. With the same seed a larger share spoils the
    places of a smaller one, in the same way, and more. Nothing on the disk changes.

    Args:
        scene: with the column segmentation on both sides.
        share: of the places, in [0, 1]; 0 gives the scene itself.
        seed: of the draw.
        cell: side of a place, metres.
        frames: images of a place where there are no positions.

    Returns:
        the same scene but for the column segmentation; of a training scene both sides are one object.

    Raises:
        InvalidInputError: a side has no maps, the share is not in [0, 1], a size is not above 0, or there is one place alone.
    """
    if not 0 <= share <= 1:
        raise InvalidInputError(f"The share of places with maps of others must lie in [0, 1]; got {share}.")
    if not (np.isfinite(cell) and cell > 0) or frames < 1:
        raise InvalidInputError(f"A place must be more than 0 metres and at least 1 image; got cell={cell}, frames={frames}.")
    if share == 0:
        return scene
    sides = (scene.database,) if scene.training else (scene.database, scene.queries)
    places, count = places_of(sides, cell=cell, frames=frames)
    if count < 2:
        raise InvalidInputError(
            f"Scene {scene.name!r} must have at least two places, so that one can have the maps of another; it has {count}. "
            f"Choose a smaller cell than {cell} m, or fewer frames than {frames}."
        )
    random = np.random.default_rng(seed)
    order = random.permutation(count)  # before anything that depends on the share
    donor = _donors(places, random)
    spoiled = np.isin(places, order[: round(share * count)])
    maps = [(images.root, file) for images in sides for file in images.need("segmentation")[0]]
    changed, start = [], 0
    for images in sides:
        rows = range(start, start + len(images))
        files = tuple(_from_root(maps[donor[row]], images.root) if spoiled[row] else maps[row][1] for row in rows)
        changed.append(replace(images, segmentation=files))
        start += len(images)
    return Scene(scene.name, scene.split, changed[0], changed[-1])


def places_of(sides: tuple[Images, ...], *, cell: float, frames: int) -> tuple[NDArray[np.int64], int]:
    """The place of each image of each side, one side after the other, and how many places there are.

    Args:
        sides: one table of images, or two.
        cell: side of a square place, metres.
        frames: images of a place where a side has no positions.

    Returns:
        (n,) int64 from 0, and their number.
    """
    keys: list[tuple[str, int, int]] = []
    by_position, by_frame = (all(getattr(images, column) is not None for images in sides) for column in ("xy", "frame"))
    for side, images in enumerate(sides):
        if by_position:
            squares = np.floor(np.asarray(images.xy) / cell).astype(np.int64)
            keys += [("", int(east), int(north)) for east, north in squares]
        elif by_frame:
            numbers = np.asarray(images.frame) // frames
            keys += [(sequence, 0, int(number)) for sequence, number in zip(images.sequence or [""] * len(images), numbers, strict=True)]
        else:
            keys += [("", side, row // frames) for row in range(len(images))]
    number = {key: place for place, key in enumerate(sorted(set(keys)))}
    return np.array([number[key] for key in keys], dtype=np.int64), len(number)


def _donors(places: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """(n,) for each image a random one of another place, all equally likely."""
    by_place = np.argsort(places, kind="stable")
    sizes = np.bincount(places)
    begins = np.cumsum(sizes) - sizes
    drawn = random.integers(0, len(places) - sizes[places])
    return by_place[np.where(drawn < begins[places], drawn, drawn + sizes[places])]


def _from_root(found: tuple[Path, str], root: Path) -> str:
    """A map of one root as seen from another."""
    if found[0] == root:
        return found[1]
    return Path(os.path.relpath(os.path.realpath(found[0] / found[1]), os.path.realpath(root))).as_posix()
