"""What the layouts of posed images share: ground positions where the user knows which way is up, who asks, and names to be written."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields as attributes
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.datasets.drafts import Draft, SceneDraft
from covis.datasets.text_lines import inner_name, lines_of
from covis.errors import CovisWarning, InvalidInputError, MissingFileError, UnknownNameError
from covis.geometry import ground_heading
from covis.images import Images, Scene
from covis.lookup import suggest
from covis.rasters import image_size

SPLITS = ("train", "val", "test")
SIDES = ("database", "queries")

UPS = {
    "z": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "y": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
    "-y": ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)),
}
"""The world's axis that points up -> the rotation that turns it to z: east, north, up are x, y, z; x, -z, y; or x, z, -y."""


def ground_columns(poses: NDArray[np.float64], up: str | None) -> dict[str, Any]:
    """`xy` and `heading` of poses in a metric world whose upward axis is known; nothing where it is not.

    Args:
        poses: (n, 4, 4) camera-to-world.
        up: a name of `UPS`, or None. East and north are then the world's own axes, true north or not.

    Raises:
        UnknownNameError: `up` is another.

    >>> pose = np.eye(4)[None]  # looks along z of a world whose y points down: the world of KITTI
    >>> ground_columns(pose, "-y")["heading"]
    array([0.])
    """
    if up is None:
        return {}
    if up not in UPS:
        raise UnknownNameError(f"The axis that points up must be one of {', '.join(UPS)}. {suggest(str(up), UPS)}")
    turned = np.array(poses, dtype=np.float64)
    turned[:, :3] = np.array(UPS[up]) @ turned[:, :3]
    return {"xy": turned[:, :2, 3].copy(), "heading": ground_heading(turned)}


def check_split(split: str, layout: str) -> None:
    """Hold that a split is one of train, val and test.

    Raises:
        InvalidInputError: it is another.
    """
    if split not in SPLITS:
        raise InvalidInputError(f"The split of a {layout} folder must be 'train', 'val' or 'test'; got {split!r}.")


def who_asks(names: Sequence[str], queries: str | Path | None, *, beside: Path, source: Path) -> NDArray[np.bool_] | None:
    """(n,) which images ask; None where the same images stand on both sides.

    Args:
        names: of the images.
        queries: a text file with a name a line (absolute, from the working folder, or beside the data), or the folder that the queries'
            names begin with. None: the images in `queries/` where all names begin with `database/` or `queries/`, as covis writes.
        beside: the folder of the data.
        source: for messages.

    Raises:
        InvalidInputError: a listed name is none of the images; or none, or all of the images ask.
    """
    if queries is None:
        folders = {name.partition("/")[0] for name in names}
        return np.array([name.startswith("queries/") for name in names], dtype=np.bool_) if folders == set(SIDES) else None
    listed = next((path for path in (Path(queries), beside / queries) if path.is_file()), None)
    if listed is not None:
        asks = _listed(names, listed, source)
    else:
        asks = np.array([name.startswith(f"{str(queries).strip('/')}/") for name in names], dtype=np.bool_)
    if not asks.any() or asks.all():
        some = "every" if asks.any() else "no"
        raise InvalidInputError(
            f"queries={str(queries)!r} must single out some images of {source}, by a file of names or a folder's name; {some} image of "
            f"{len(names)} is among them (the first is {names[0]!r})."
        )
    return asks


def _listed(names: Sequence[str], listed: Path, source: Path) -> NDArray[np.bool_]:
    known, wanted = set(names), set()
    for line in lines_of(listed):
        text = line.text.strip()
        name = next((found for word in (text, text.split()[0]) if (found := inner_name(word, line.where)) in known), None)
        if name is None:
            raise InvalidInputError(f"{line.where}: a query must be an image of {source}; found {text!r}. Is it the list of this set?")
        wanted.add(name)
    return np.array([name in wanted for name in names], dtype=np.bool_)


def scene_draft(name: str, split: str, draft: Draft, asks: NDArray[np.bool_] | None) -> SceneDraft:
    """A draft as a scene; with the split train the database alone, so that no query teaches."""
    if asks is None:
        return SceneDraft(name, split, draft)
    return SceneDraft(name, split, draft.select(~asks), None if split == "train" else draft.select(asks))


def sequence_drafts(
    root: Path, split: str, known: Sequence[str], *, asked: tuple[str | None, str | None], draft: Callable[[str], Draft]
) -> list[SceneDraft]:
    """A scene for each sequence that is known, or one of the two that are asked for as (database, queries).

    Raises:
        InvalidInputError: queries are asked for without a database.
        MissingFileError: one that is asked for is not known.
    """
    database, queries = asked
    if queries is not None and database is None:
        raise InvalidInputError(f"queries={queries!r} must come with the sequence that is searched: pass database= too.")
    unknown = [name for name in asked if name is not None and name not in known]
    if unknown:
        raise MissingFileError(f"{root} must hold the sequence {unknown[0]!r} with poses; it holds {', '.join(known)}.")
    if database is None:
        return [SceneDraft(name, split, draft(name)) for name in known]
    both = queries is not None and queries != database and split != "train"
    return [SceneDraft(root.name if queries else database, split, draft(database), draft(str(queries)) if both else None)]


def sides_to_write(scenes: Sequence[Scene], *, layout: str, held: Sequence[str]) -> list[dict[str, Images]]:
    """For each scene its sides by name, one for a training scene; what the layout does not hold is said in one warning.

    Args:
        scenes: to be written to one folder.
        layout: for messages.
        held: the columns that the layout keeps.

    Raises:
        InvalidInputError: two scenes share a name, a split is unknown, or a side has no image.
    """
    if len({scene.name for scene in scenes}) != len(scenes):
        raise InvalidInputError("Scenes written to one folder must have different names.")
    sides: list[dict[str, Images]] = []
    columns = [f.name for f in attributes(Images) if f.name not in ("root", "names", "flags", "_")]
    lost: list[str] = []
    flags: list[str] = []
    for scene in scenes:
        check_split(scene.split, layout)
        found = {"database": scene.database} if scene.training else {"database": scene.database, "queries": scene.queries}
        sides.append(found)
        for side, images in found.items():
            if not len(images):
                raise InvalidInputError(
                    f"Each side of a scene must have an image to be written as {layout}; the {side} of {scene.name!r} has none."
                )
            lost += [name for name in columns if name not in held and getattr(images, name) is not None]
            flags += [name for name, value in images.flags.items() if value.any() and name not in held]
    if flags:
        named = list(dict.fromkeys(flags))
        lost.append(f"{len(named)} flags ({', '.join(named[:3])}{' …' if len(named) > 3 else ''})")
    if lost:
        warnings.warn(f"The layout {layout} does not keep {', '.join(dict.fromkeys(lost))}.", CovisWarning, stacklevel=3)
    return sides


def names_to_write(sides: Mapping[str, Images], *, layout: str, forbidden: str, folders: bool = True) -> dict[str, list[str]]:
    """The name that each image gets: its own; with `folders`, where there are two sides, in `database/` or `queries/`.

    Raises:
        InvalidInputError: a name leads outside its folder, or has a character that the layout cannot hold.
    """
    for images in sides.values():
        for name in images.names:
            if re.search(forbidden, inner_name(name, str(images.root))):
                raise InvalidInputError(
                    f"A name in the layout {layout} must have none of {forbidden}; found {name!r} in {images.root}. Rename it."
                )
    given = {side: [inner_name(name, str(images.root)) for name in images.names] for side, images in sides.items()}
    if not folders:
        return given
    if len(given) == 1:  # both folders in a set whose images stand on both sides would be read as two sides
        names = given["database"]
        return {"database": [f"all/{name}" for name in names] if {name.partition("/")[0] for name in names} == set(SIDES) else names}
    return {
        side: names if all(name.startswith(f"{side}/") for name in names) else [f"{side}/{name}" for name in names]
        for side, names in given.items()
    }


Camera = tuple[int, int, tuple[float, float, float, float] | None]
"""Width, height, and fx, fy, cx, cy in covis' pixels."""


def cameras_to_write(sides: Mapping[str, Images]) -> tuple[list[Camera], dict[str, list[int]]]:
    """The distinct cameras (image size and intrinsics), and for each side which of them took each image.

    Raises:
        MissingFileError: an image is not there to be measured.
    """
    known: dict[Camera, int] = {}
    took: dict[str, list[int]] = {}
    for side, images in sides.items():
        took[side] = []
        for row in range(len(images)):
            if not images.path(row).is_file():
                raise MissingFileError(f"{images.path(row)} must be there: its size is a part of what is written. There is no such file.")
            height, width = image_size(images.path(row))
            fx, fy, cx, cy = (0.0,) * 4 if images.intrinsics is None else images.intrinsics[row].tolist()
            camera = (width, height, None if images.intrinsics is None else (fx, fy, cx, cy))
            took[side].append(known.setdefault(camera, len(known)))
    return list(known), took
