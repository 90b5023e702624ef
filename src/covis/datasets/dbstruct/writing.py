"""The inverse of `read_dbstruct`: a .mat as NetVLAD's for each split of a scene, with its images."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields as attributes
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from covis.datasets.dbstruct.files import DbStruct, write_struct
from covis.datasets.dbstruct.reading import SPLITS
from covis.datasets.dbstruct.sets import KNOWN, known_set, places_of
from covis.datasets.dbstruct.times import seconds
from covis.datasets.filing import Files, check_targets, place_file
from covis.errors import CovisWarning, InvalidInputError
from covis.files import atomic_path
from covis.images import Images, Scene

_HELD = ("root", "names", "xy", "_", "flags")


def write_dbstruct(scenes: Sequence[Scene], out: str | Path, *, overwrite: bool = False, files: Files = "copy") -> list[Path]:
    """Write scenes as `dbStruct` .mat files with their images: the inverse of `read_dbstruct`.

        <scene>/datasets/<scene>_<split>.mat      as NetVLAD calls them: pitts30k_test.mat, tokyo247.mat, tokyoTM_val.mat
        <scene>/images/**, <scene>/queries/**     both sides in images/ where an image stands on both

    Scenes of one name and different splits share a folder. Positions are kept exactly (float64), and so are order, names, and
    times where both sides have them (seconds since 1970, in the twelve fields of Tokyo Time Machine; else there are ten). The
    same scenes give the same bytes. Lost, with a warning: headings, poses, intrinsics, depth, segmentation, sequences, frames,
    flags, opening angles and reaches, times of one side alone, and where the reader does not know them by the names (as it does for
    the four benchmarks) `place` and `crs`: read such a set with `crs=`.

    Args:
        scenes: scenes of the splits train, val or test, none twice.
        out: the folder for the scenes' folders.
        overwrite: replace a scene's folder that is there.
        files: "copy" the images, "link" to them, or "none": the .mat alone (to be read with missing="ignore").

    Returns:
        The .mat files, one a scene; `read_dbstruct(path, split=…)` gives the scene.

    Raises:
        InvalidInputError: images lack positions or names do not stay in their folder; a side has no image; two different images
            would share a file; a scene is there twice or of another split; or times would be read back as another date.
        MissingFileError: an image is not there.
        OutputExistsError: a scene's folder is there and `overwrite` is false.
    """
    out = Path(out)
    twice = [scene for scene, count in Counter((scene.name, scene.split) for scene in scenes).items() if count > 1]
    if twice:
        raise InvalidInputError(
            f"Scenes written to one folder must differ in name or split; {twice[0][0]!r} ({twice[0][1]}) is there twice."
        )
    check_targets(scenes, out, overwrite=overwrite)
    held = {(scene.name, scene.split): _held(scene) for scene in scenes}
    for name in dict.fromkeys(scene.name for scene in scenes):
        with atomic_path(out / name) as folder:
            (folder / "datasets").mkdir(parents=True)
            placed: dict[Path, Path] = {}
            for scene in (scene for scene in scenes if scene.name == name):
                write_struct(folder / "datasets" / _file_name(scene), held[scene.name, scene.split])
                below = "images" if _shares(scene) else "queries"
                for images, place in ((scene.database, "images"), (scene.queries, below)):
                    _place(images, folder / place, files, placed)
    return [out / scene.name / "datasets" / _file_name(scene) for scene in scenes]


def _file_name(scene: Scene) -> str:
    """As NetVLAD calls the files of its sets."""
    known = next((known for known in KNOWN if known.name == scene.name), None)
    if known is not None and known.name == "tokyo247" and scene.split == "test":
        return "tokyo247.mat"
    return f"{scene.name if known is None else known.file}_{scene.split}.mat"


def _shares(scene: Scene) -> bool:
    """Whether an image stands on both sides: it must then be one file, or it would no longer be left out as a query's own."""
    return scene.training or bool((scene.queries.same_files(scene.database) >= 0).any())


def _held(scene: Scene) -> DbStruct:
    """What the file will say of a scene."""
    if scene.split not in SPLITS:
        raise InvalidInputError(f"A dbStruct must be of the split train, val or test; got {scene!r}.")
    if re.search(r"_(train|val|test)$", scene.name):
        raise InvalidInputError(f"A scene's name must not end as a split does, since the file's name would; got {scene.name!r}.")
    for images in (scene.database, scene.queries):
        images.need("xy")
        _check_names(images)
    if not len(scene.database) or not len(scene.queries):
        raise InvalidInputError(f"A dbStruct must have database images and queries; got {scene!r}.")
    times = [scene.database.time, scene.queries.time]
    if times[0] is None or times[1] is None:
        times = [None, None]
    else:
        _check_times(scene.name, times[0], times[1])
    lost = _lost(scene, timed=times[0] is not None)
    if lost:
        said = f"A dbStruct holds names, positions and times; of scene {scene.name!r} it does not keep "
        warnings.warn(said + ", ".join(lost) + ".", CovisWarning, stacklevel=3)
    xy = np.asarray(scene.database.xy), np.asarray(scene.queries.xy)
    return DbStruct(scene.split, scene.database.names, scene.queries.names, *xy, times[0], times[1])


def _check_names(images: Images) -> None:
    for name in images.names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.as_posix() != name or "\\" in name or name[1:2] == ":" or name != name.strip():
            raise InvalidInputError(f"An image of a dbStruct must have a plain name inside its folder; got {name!r} in {images.root}.")


def _lost(scene: Scene, *, timed: bool) -> list[str]:
    """What the reader will not find again."""
    file = Path(_file_name(scene))
    known = known_set(file)
    held = {*_HELD, *(["time"] if timed else [])}
    if scene.database.crs == (None if known is None else known.crs):
        held.add("crs")
    places = places_of(file, scene.database.names, known)
    if places is not None and scene.queries.place is None and np.array_equal(places, np.asarray(scene.database.place)):
        held.add("place")
    sides = (scene.database, scene.queries)
    lost = [field.name for field in attributes(Images) if any(getattr(images, field.name) is not None for images in sides)]
    return [name for name in lost if name not in held] + list(dict.fromkeys(flag for images in sides for flag in images.flags))


def _check_times(name: str, database: NDArray[np.float64], queries: NDArray[np.float64]) -> None:
    """Seconds of the first years after 1970 look like other dates."""
    back, _ = seconds([database, queries], kind="auto", where=name)
    if not all(np.array_equal(one, other, equal_nan=True) for one, other in zip(back, (database, queries), strict=True)):
        raise InvalidInputError(
            f"The times of scene {name!r} would be read as another kind of date (YYYYMM, say); they must be seconds since 1970, after 1973."
        )


def _place(images: Images, folder: Path, files: Files, placed: dict[Path, Path]) -> None:
    """Put the images into a folder; one that another split has put there stays."""
    folder.mkdir(exist_ok=True)
    for row, name in enumerate(images.names):
        source, target = images.path(row).absolute(), folder / name
        if target not in placed:
            place_file(source, target, files)
        elif placed[target] != source:
            both = f"{placed[target]} and {source}"
            raise InvalidInputError(f"{both} would both be {folder.name}/{name}. Rename one, or write the scenes apart.")
        placed[target] = source
