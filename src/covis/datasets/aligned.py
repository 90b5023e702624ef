"""Two folders whose images correspond: SPED, ESSEX3IN1, Gardens Point and the like as VPR-Bench has them, AmsterTime.

    <root>/ref/0000000.jpg …       <root>/query/0000000.jpg …      VPR-Bench: the same number, the same place
    <root>/new/<pair>.png          <root>/old/<pair>.jpg           AmsterTime: the same name, the same place
    <folder>_images_paths.txt                                      beside a folder: its images, where it is not to be listed

What corresponds gets the same `frame`, so that the protocols `frames/N` and the sets' own apply.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from covis.datasets.catalogue import Sizes, check_sizes
from covis.datasets.drafts import Invalid, Missing, SceneDraft
from covis.datasets.filing import Files, check_targets
from covis.datasets.picture_folders import (
    Pictures,
    check_apart,
    check_writable,
    check_written,
    data_folder,
    first_picture,
    frames_of,
    in_order,
    is_side,
    pictures,
    write_pictures,
)
from covis.errors import CovisError, CovisWarning, InvalidInputError, UnknownNameError
from covis.files import atomic_path
from covis.images import Scene
from covis.lookup import suggest
from covis.rasters import has_gps

Match: TypeAlias = Literal["auto", "number", "name", "order", "none"]
MATCHES = ("auto", "number", "name", "order", "none")
WHAT = "The layout of two folders whose images correspond"

SETS: dict[str, tuple[str, str, Match]] = {
    "17places": ("ref", "query", "number"),
    "amstertime": ("new", "old", "name"),
    "corridor": ("ref", "query", "number"),
    "crossseason": ("ref", "query", "none"),
    "essex3in1": ("ref", "query", "number"),
    "gardenspoint": ("ref", "query", "number"),
    "holidays": ("ref", "query", "none"),
    "livingroom": ("ref", "query", "number"),
    "sped": ("ref", "query", "number"),
}
"""Name -> folder of the database, folder of the queries, and how they correspond; "none" where only a file of truth says it."""

_FOLDERS = {
    "amstertime-v1.0": "amstertime",
    "crossseason_cohog_dataset": "crossseason",
    "essex3in1_dataset": "essex3in1",
    "gardenspointwalking": "gardenspoint",
    "inria_holidays": "holidays",
    "living": "livingroom",
    "spedtest": "sped",
    "sped_test": "sped",
}
"""What the sets' authors call their folders, in small letters."""
_USUAL = (("ref", "query"), ("new", "old"), ("database", "queries"))


def read_aligned(
    root: str | Path,
    *,
    split: str = "test",
    missing: Missing = "stop",
    invalid: Invalid = "stop",
    sizes: Sizes = "stop",
    dataset: str = "",
    database: str = "",
    queries: str = "",
    match: Match | Literal[""] = "",
) -> list[Scene]:
    """Read two folders whose images correspond as one scene, called as the set's folder.

    The .jpg, .jpeg and .png files of a folder count, not those of its subfolders, in the order of their numbers; a list beside the
    folder (`<folder>_images_paths.txt`) says instead what counts, in which order.

    Args:
        root: the folder that holds both.
        split: "test"; these sets have nothing to learn from.
        missing: images of a list that have no file: "stop", "skip" (leave out and say so) or "ignore" (look nothing up).
        invalid: as in the other readers; a folder cannot name an image twice.
        sizes: folders of a known set that are not as large as they must be: "stop", "warn" or "ignore".
        dataset: one of `SETS`, for its folders, its match and its sizes; default: known by the folder's name, if it is.
        database: the folder of the database; default that of the set, else ref, new or database.
        queries: the folder of the queries; default that of the set, else query, old or queries.
        match: what corresponds. "number": files whose name is the same number (which becomes `frame`); "name": files of the same
            name but for the suffix (`frame` is the place among all names, in order; each query must have its counterpart);
            "order": the first to the first and so on, of equally many; "none": nothing, without `frame`. "auto": "number" where all
            names are the same numbers on both sides, "name" where they are the same; "order", with a warning, where they share
            none and are equally many; anything else is refused. Default that of the set, else "auto".

    Returns:
        One scene, with names and `frame`.

    Raises:
        MissingFileError: there is no such folder, or no image in it.
        InvalidInputError: the images do not correspond as they must, nothing says how, two are the same frame, one folder is both
            sides, or a policy says stop.
        UnknownNameError: no set has that name.

    Warns:
        CovisWarning: "auto" took them in order.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("ref/0.jpg", "ref/1.jpg", "query/0.jpg", "query/1.jpg"):
    ...         (Path(folder) / name).parent.mkdir(exist_ok=True)
    ...         (Path(folder) / name).touch()
    ...     (scene,) = read_aligned(folder)
    >>> scene.queries.names, scene.queries.frame.tolist()
    (('query/0.jpg', 'query/1.jpg'), [0, 1])
    """
    drafts = draft_aligned(root, split=split, sizes=sizes, dataset=dataset, database=database, queries=queries, match=match)
    return [draft.scene(missing=missing, invalid=invalid) for draft in drafts]


def draft_aligned(
    root: str | Path,
    *,
    split: str = "test",
    sizes: Sizes = "stop",
    dataset: str = "",
    database: str = "",
    queries: str = "",
    match: Match | Literal[""] = "",
) -> list[SceneDraft]:
    """What the folders say, for `read_aligned` and for checks.

    Raises:
        CovisError: as `read_aligned`.
    """
    if split != "test":
        raise InvalidInputError(f"{WHAT} has the split 'test' alone; got {split!r}.")
    root = data_folder(root, "a folder that holds two, of the database and of the queries")
    name = dataset or _set_of(root.name)
    if dataset and dataset not in SETS:
        raise UnknownNameError(f"There is no set of corresponding images called {dataset!r}. {suggest(dataset, SETS)}")
    folders = SETS[name][:2] if name in SETS else next((pair for pair in _USUAL if all(is_side(root / side) for side in pair)), _USUAL[0])
    chosen = match or (SETS[name][2] if name in SETS else "auto")
    if chosen not in MATCHES:
        raise InvalidInputError(f"The match must be one of {', '.join(MATCHES)}; got {chosen!r}.")
    sides = (database or folders[0], queries or folders[1])
    check_apart(root, *sides)
    here, there = (pictures(root, side, layout="a set of corresponding images") for side in sides[::-1])
    check_sizes(name, split=split, queries=len(here.names), database=len(there.names), policy=sizes, where=root)
    frames = _frames(here, there, chosen)
    return [SceneDraft(root.name, split, there.draft(frames[1]), here.draft(frames[0]))]


def write_aligned(
    scenes: Sequence[Scene],
    out: str | Path,
    *,
    overwrite: bool = False,
    files: Files = "copy",
    database: str = "",
    queries: str = "",
) -> list[Path]:
    """Write scenes as two folders whose images correspond by number, a folder each: the inverse of `read_aligned`.

        <scene>/ref/<frame, 7 digits>.jpg       <scene>/query/<frame, 7 digits>.jpg

    An image without a `frame` gets its row. Frames alone are kept, with a warning where the images have more; names become
    numbers. Where the two sides have not the same frames, or the scene is called as a set that is matched otherwise (`SETS`), they
    are read with match="number"; a scene called as a known set is held to its sizes, too.

    Args:
        scenes: test scenes with two sides, of different names.
        out: the folder for the scenes' folders.
        overwrite: replace a scene's folder that is there.
        files: "copy" the images, "link" to them, or "none": lists beside the folders (to be read with missing="ignore").
        database: the folder of the database; default that of the set that the scene is called as, else ref.
        queries: the folder of the queries; default that of the set, else query.

    Returns:
        The scenes' folders; `read_aligned(folder)` gives the scene.

    Raises:
        InvalidInputError: a scene has one side, a frame stands twice or is negative, an image is neither JPEG nor PNG, or the two
            folders are not apart.
        MissingFileError: an image is not there.
        OutputExistsError: a scene's folder is there and `overwrite` is false.
    """
    check_writable(scenes, what=WHAT)
    folders = check_targets(scenes, out, overwrite=overwrite)
    plans = []
    for scene in scenes:
        usual = SETS.get(_set_of(scene.name), _USUAL[0])
        sides = (database or usual[0], queries or usual[1])
        check_written(*sides)
        plans.append((sides, [[f"{frame:07d}" for frame in frames_of(one, what=WHAT)] for one in (scene.database, scene.queries)]))
    for scene, target, (sides, stems) in zip(scenes, folders, plans, strict=True):
        with atomic_path(target) as folder:
            for images, side, names in zip((scene.database, scene.queries), sides, stems, strict=True):
                write_pictures(folder / side, images, names, files)
    return folders


def is_aligned(root: Path) -> bool:
    """Whether a folder looks like this layout: ref and query, or a known set's folders in one of its name.

    Images that say more are of other layouts: positions in their names ("@"), or GPS.
    """
    usual = SETS.get(_set_of(root.absolute().name), _USUAL[0])
    first = [first_picture(root / side) for side in usual[:2] if is_side(root / side)]
    return len(first) == 2 and all(path is not None and "@" not in path.name and not _has_gps(path) for path in first)


def _has_gps(path: Path) -> bool:
    try:
        return has_gps(path)
    except CovisError:
        return False  # whoever reads the folder says what is wrong with the image


def _set_of(folder: str) -> str:
    """The name of the set that a folder's name stands for; the folder's own where it is none."""
    return _FOLDERS.get(folder.lower(), folder.lower())


def _frames(queries: Pictures, database: Pictures, match: str) -> tuple[Sequence[int] | None, Sequence[int] | None]:
    """The frame of each query and of each database image."""
    if match == "none":
        return None, None
    numbers, stems = (queries.numbers(), database.numbers()), (queries.stems(), database.stems())
    if match == "auto":
        match = _plain(queries, database)
    if match == "number":
        for side, found in zip((queries, database), numbers, strict=True):
            if found is None:
                raise InvalidInputError(
                    f"{side.source}: with match=number every file's name must be a number below 2^62; found {side.odd()!r}. Try match=name."
                )
        return numbers
    if match == "name":
        lacking = sorted(set(stems[0]) - set(stems[1]), key=in_order)
        if lacking:
            raise InvalidInputError(
                f"{queries.source}: with match=name every query must have an image of its name in {database.source}; {len(lacking)} of "
                f"{len(stems[0])} have none: {', '.join(lacking[:3])}{' …' if len(lacking) > 3 else ''}."
            )
        place = {stem: frame for frame, stem in enumerate(sorted({*stems[0], *stems[1]}, key=in_order))}
        return [place[stem] for stem in stems[0]], [place[stem] for stem in stems[1]]
    if len(stems[0]) != len(stems[1]):
        raise InvalidInputError(
            f"{queries.root}: with match=order both folders must hold equally many images; {queries.side} has "
            f"{len(stems[0]):,}, {database.side} {len(stems[1]):,}. Is one missing?"
        )
    return range(len(stems[0])), range(len(stems[1]))


def _plain(queries: Pictures, database: Pictures) -> str:
    """How the images correspond, where nobody says it."""
    here, there = queries.numbers(), database.numbers()
    if here is not None and there is not None:
        if set(here) == set(there):
            return "number"
        only = sorted(set(here) ^ set(there))
        raise InvalidInputError(
            f"{queries.root}: both folders must hold the same numbers; {len(only):,} stand in one alone, the first is {only[0]}. "
            "Is an image missing? Where they need not be the same, say how they correspond: match=number, order or none."
        )
    names, others = set(queries.stems()), set(database.stems())
    if names == others:
        return "name"
    if names & others or len(queries.names) != len(database.names):
        raise InvalidInputError(
            f"{queries.root}: nothing says how the images correspond; of {len(names):,} names in {queries.side} and {len(others):,} in "
            f"{database.side} {len(names & others):,} stand in both. Is an image missing? Say match=name (each query has an image of its "
            "name), match=order (the first is the first's, of equally many) or match=none."
        )
    warnings.warn(
        f"{queries.root}: no name stands in both folders; the images are taken to correspond in order, {queries.names[0]} to "
        f"{database.names[0]}. If so, say match=order.",
        CovisWarning,
        stacklevel=5,
    )
    return "order"
