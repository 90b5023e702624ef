"""GCL's JSON indexes, written: the inverse of `covis.datasets.gcl`, for each data set that its authors' code asks for."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from covis.datasets.drafts import files_present
from covis.datasets.filing import Files, place_file
from covis.datasets.gcl.indexes import ORDERS, PAIRED, home
from covis.datasets.msls import city_folder
from covis.datasets.pose_orders import rows_of
from covis.errors import CovisWarning, InvalidInputError, MissingFileError
from covis.files import atomic_path, check_absent, write_text
from covis.images import Images, Scene

WRITTEN = ("msls", "7scenes", "tb-places", "robotcar", "cmu", *PAIRED)
"""The data sets that an index can be written for."""


def write_gcl(
    scenes: Sequence[Scene], out: str | Path, *, dataset: str = "msls", overwrite: bool = False, files: Files = "copy"
) -> list[Path]:
    """Write scenes as GCL's JSON indexes, with its keys in its order: the inverse of `read_gcl`.

    | dataset | a scene becomes | and in it |
    |---|---|---|
    | `msls` | `train_val/<scene>/{query,database}.json`, test cities in `test` | `loc` |
    | `7scenes` | `<scene>/{train,test}.json` | `poses` |
    | `tb-places` | `<scene>.json`, or with two sides `<scene>/{query,database}.json` | `poses` |
    | `robotcar`, `cmu` | `<scene>/{reference,test}.json` | `poses` in reference.json alone |
    | `pitts` | `<scene>/<scene>_<split>_{q,db}.json` | `loc`, which GCL's code does not look at |
    | `tokyo247` | `<scene>/{query,database}.json` | the same |
    | `tokyotm` | `<scene>/<split>_{q,db}.json` | the same |

    A test.json with poses would stop GCL's code, so it has none. Poses are camera-to-world, those of `cmu` world-to-camera with their
    translation, because GCL's code hands them in as they stand: the data set's own files hold the camera's centre.

    An image whose name does not begin in its folder gets a name that does. A heading that is unknown is null. Everything but
    positions or poses is left out; say `crs`, and `convention` of `cmu`, when reading.

    Args:
        scenes: the scenes.
        out: the folder that `im_paths` begin in; of the last four rows `out/<scene>`, which is then GCL's `--root_dir`.
        dataset: a row of the table.
        overwrite: replace indexes, and image files other than the scene's own, that are there.
        files: "copy" or "link" the images, or "none": the indexes alone, with the images' own names, and their folder as `im_prefix`.

    Returns:
        For each scene the city's or room's folder, or the index: what `read_gcl` reads it from.

    Raises:
        InvalidInputError: images lack poses, a scene for `msls` has one side, two files would become one, or a name leaves the folder.
        MissingFileError: an image is not there.
        OutputExistsError: an index or another image is there and `overwrite` is false.

    Warns:
        CovisWarning: GCL's code could not use the queries' names (`robotcar`, `cmu`, `tokyotm`).
    """
    out = Path(os.path.abspath(out))
    if dataset not in WRITTEN or files not in ("copy", "link", "none"):
        raise InvalidInputError(
            f"dataset must be one of {', '.join(WRITTEN)}, and files 'copy', 'link' or 'none'; got dataset={dataset!r} and files={files!r}."
        )
    if len({scene.name for scene in scenes}) != len(scenes):
        raise InvalidInputError("Scenes written to one folder must have different names.")
    sides = [side for scene in scenes for side in _sides(scene, out, dataset)]
    texts = {check_absent(side.index, overwrite=overwrite): side.text(dataset, files) for side in sides}
    moves = _moves(sides, dataset, overwrite=overwrite) if files != "none" else {}
    for target, source in moves.items():
        with atomic_path(target) as temporary:
            place_file(source, temporary, files)
    for index, text in texts.items():  # last, so that what an index names is there
        write_text(index, text)
    _warn_of_names(sides, dataset, files)
    single = [dataset == "tb-places" and scene.training for scene in scenes]
    places = [city_folder(out, scene.name) if dataset == "msls" else out / scene.name for scene in scenes]
    return [place.with_name(f"{place.name}.json") if alone else place for place, alone in zip(places, single, strict=True)]


@dataclass(frozen=True)
class _Side:
    """One index to be written: which images, what their names begin with, and what stands beside them."""

    index: Path
    images: Images
    prefix: str
    inside: str = ""
    key: Literal["loc", "poses", ""] = "poses"

    def names(self) -> list[str]:
        return [name if name.startswith(self.prefix) else f"{self.prefix}{self.inside}{name}" for name in self.images.names]

    def text(self, dataset: str, files: Files) -> str:
        names = list(self.images.names) if files == "none" else self.names()
        prefix = Path(os.path.abspath(self.images.root)) if files == "none" else home(self.index, dataset)
        value: dict[str, Any] = {"im_prefix": f"{prefix.as_posix()}/", "im_paths": names}
        if self.key == "poses":
            convention = "world-to-camera" if dataset == "cmu" else "camera-to-world"
            value["poses"] = rows_of(self.images.need("pose")[0], order=ORDERS[dataset], convention=convention).tolist()
        elif self.key == "loc" and self.images.xy is not None:
            heading = [None] * len(names) if self.images.heading is None else self.images.heading.tolist()
            angles = [None if angle is None or angle != angle else angle for angle in heading]
            value["loc"] = [[*position, angle] for position, angle in zip(self.images.xy.tolist(), angles, strict=True)]
        return json.dumps(value, allow_nan=False)


def _sides(scene: Scene, out: Path, dataset: str) -> list[_Side]:
    """The indexes of a scene: that of the database, and that of the queries where they are other images."""
    folder = out / scene.name
    if dataset == "msls":
        return _city(scene, out)
    if dataset == "7scenes":
        both = [_Side(folder / f"{name}.json", images, f"{scene.name}/") for name, images in _named(scene, "train", "test")]
    elif dataset == "tb-places":
        names = (scene.name, "") if scene.training else ("database", "query")
        home = out if scene.training else folder
        both = [_Side(home / f"{name}.json", images, f"{name}/") for name, images in _named(scene, *names)]
    else:
        stem = scene.name if scene.name.endswith(f"_{scene.split}") else f"{scene.name}_{scene.split}"
        names = {
            "robotcar": ("reference", "test"),
            "cmu": ("reference", "test"),
            "pitts": (f"{stem}_db", f"{stem}_q"),
            "tokyo247": ("database", "query"),
            "tokyotm": (f"{scene.split}_db", f"{scene.split}_q"),
        }[dataset]
        one_root = Path(os.path.abspath(scene.database.root)) == Path(os.path.abspath(scene.queries.root))
        keys: tuple[Literal["loc", "poses", ""], ...] = ("loc", "loc") if dataset in PAIRED else ("poses", "")
        both = [
            _Side(folder / f"{name}.json", images, "" if one_root else f"{name}/", key=key)
            for (name, images), key in zip(_named(scene, *names), keys, strict=True)
        ]
    return both[:1] if scene.training else both


def _named(scene: Scene, database: str, queries: str) -> tuple[tuple[str, Images], tuple[str, Images]]:
    return (database, scene.database), (queries, scene.queries)


def _city(scene: Scene, out: Path) -> list[_Side]:
    if scene.training:
        raise InvalidInputError(
            f"A scene written in the layout of MSLS must have two sides; those of {scene.name!r} are the same images. Use another dataset=."
        )
    city = city_folder(out, scene.name)
    prefix = city.relative_to(out).as_posix()
    return [
        _Side(city / f"{side}.json", images, f"{prefix}/{side}/", "images/", "loc") for side, images in _named(scene, "database", "query")
    ]


def _moves(sides: Sequence[_Side], dataset: str, *, overwrite: bool) -> dict[Path, Path]:
    """Target -> source of each image that is not there yet, after a look that all can be written."""
    moves: dict[Path, Path] = {}
    for side in sides:
        folder = home(side.index, dataset)
        absent = np.flatnonzero(~files_present(side.images.root, side.images.names))
        if absent.size:
            raise MissingFileError(f"{side.images.path(int(absent[0]))} must be there to be written; there is no such file.")
        for row, name in enumerate(side.names()):
            source, target = side.images.path(row), folder / name
            if {"", ".", ".."} & set(name.split("/")):
                raise InvalidInputError(f"An image's name must be a plain relative path to be written; got {name!r} in {side.images.root}.")
            if not moves.setdefault(target, source).samefile(source):
                raise InvalidInputError(
                    f"{moves[target]} and {source} would both be written as {target}. Give the two sides different names."
                )
    there = {target for target, source in moves.items() if target.exists() and target.samefile(source)}
    return {check_absent(target, overwrite=overwrite): source for target, source in moves.items() if target not in there}


def _is_stamped(name: str) -> bool:
    parts = name.split("/")
    return len(parts) > 3 and parts[3][1:].isdigit()


_FIT: dict[str, tuple[Callable[[str], bool], str, int]] = {
    "robotcar": (lambda name: "/rear/" in f"/{name}", "hold rear/, where its submission begins", 1),
    "cmu": (lambda name: "/img" in f"/{name}", "have a part that begins with img, as its submission does", 1),
    "tokyotm": (_is_stamped, "have a time stamp as their fourth part, behind one letter (a/b/c/x201107/…)", 0),
}
"""What GCL's code asks of names, in words, and from which side on: 1 is the queries alone."""


def _warn_of_names(sides: Sequence[_Side], dataset: str, files: Files) -> None:
    fits, said, first = _FIT.get(dataset, (lambda _: True, "", 0))
    for side in sides:
        if first and side.key:
            continue
        unfit = [name for name in (side.images.names if files == "none" else side.names()) if not fits(name)]
        if unfit:
            text = f"{side.index}: names for GCL's code must {said}; {len(unfit)} do not, the first is {unfit[0]!r}."
            warnings.warn(f"{text} It stops there; covis reads them.", CovisWarning, stacklevel=3)
            return
