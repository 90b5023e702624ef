"""Lists of images as numpy arrays, with their ground truth: the form of gsv-cities, OpenVPRLab, SALAD and VLAD-BuFF.

    <folder>/<set>_dbImages.npy     the names of the database images
             <set>_qImages.npy      those of the queries
             <set>_gt.npy           which database images are right (also _gt_25m.npy): `covis.datasets.npy_truth`
             <set>_qIdx.npy         MSLS: the queries that are asked, as places in _qImages
             <set>_pIdx.npy         MSLS: which database images are right for each of those
    <images>/…                      the files that the names are relative to

Nothing in most of these files says where or when an image was taken. Their truth becomes `Labels`, which `graded/0.5` scores.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields as attributes
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from covis.datasets.catalogue import DATASETS, Sizes, check_sizes
from covis.datasets.drafts import Draft, Invalid, Missing, SceneDraft
from covis.datasets.filing import Files, check_targets, place_file
from covis.datasets.label_files import load_labels
from covis.datasets.npy_truth import read_indices, read_names, truth_labels, write_truth
from covis.datasets.picture_folders import data_folder
from covis.errors import CovisWarning, InvalidInputError, MissingFileError
from covis.files import atomic_path
from covis.images import Images, Scene
from covis.labels import Labels

SPLITS = ("train", "val", "test")
TRUTHS = ("_pIdx.npy", "_gt.npy", "_gt_25m.npy")
"""How a file with the truth may end, in the order in which they are looked for."""

_BENCHMARKS: dict[str, tuple[str, str, int]] = {
    "crossseason": ("crossseason", "", 0),
    "essex": ("essex3in1", "", 1),
    "inria": ("holidays", "", 0),
    "msls_val": ("msls", "gsv", 0),
    "nordland": ("nordland", "vpr-bench", 10),
    "sped": ("sped", "", 1),
}
"""The set's name in small letters -> the benchmark and its part, for the sizes; and frames from query to query, 0 for no frames.

Frames are given to lists of the benchmark's sizes alone: another set may be called the same.
"""


def read_npy(
    root: str | Path,
    *,
    split: str = "test",
    missing: Missing = "stop",
    invalid: Invalid = "stop",
    sizes: Sizes = "stop",
    name: str = "",
    images: str | Path = "",
    queries: Literal["asked", "all"] = "asked",
) -> list[Scene]:
    """Read lists of images in numpy arrays as one scene, called as the set; its truth: `read_npy_labels`.

    Args:
        root: the folder of the .npy files.
        split: "train", "val" or "test". A set whose name ends in one of these is of that split, any other of "test".
        missing: listed images that have no file: "stop", "skip" (leave out and say so; the truth then no longer fits) or
            "ignore" (look nothing up).
        invalid: names that stand twice in a list: "stop" or "skip".
        sizes: lists of a known benchmark that are not as long as they must be: "stop", "warn" or "ignore".
        name: of the set, where the folder has files of several.
        images: the folder that the names are relative to, itself relative to `root`; default `root`.
        queries: "asked": where there is a `_qIdx.npy`, its queries alone, in its order; "all": every listed one.

    Returns:
        One scene, with names; of SPED, ESSEX3IN1 and Nordland, where they are as large as they must be, also `frame`, the place in
        the list (of Nordland's queries ten times that), so that their own protocols apply.

    Raises:
        MissingFileError: there is no such folder, or no lists in it.
        DamagedFileError: a list is no .npy file of text.
        InvalidInputError: there are several sets and no name, the set is of another split, a name leads out of the folder of
            images, or a policy says stop.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(Path(folder) / "SQUARE_dbImages.npy", ["ref/0.jpg", "ref/1.jpg"])
    ...     np.save(Path(folder) / "SQUARE_qImages.npy", ["query/0.jpg"])
    ...     (scene,) = read_npy(folder, missing="ignore")
    >>> scene.name, scene.database.names
    ('SQUARE', ('ref/0.jpg', 'ref/1.jpg'))
    """
    drafts = draft_npy(root, split=split, name=name, images=images, queries=queries, sizes=sizes)
    return [draft.scene(missing=missing, invalid=invalid) for draft in drafts]


def draft_npy(
    root: str | Path,
    *,
    split: str = "test",
    name: str = "",
    images: str | Path = "",
    queries: Literal["asked", "all"] = "asked",
    sizes: Sizes = "stop",
) -> list[SceneDraft]:
    """What the lists say, for `read_npy` and for checks.

    Raises:
        CovisError: as `read_npy`.
    """
    if queries not in ("asked", "all"):
        raise InvalidInputError(f"The queries must be 'asked' or 'all'; got {queries!r}.")
    found = _found(Path(root).absolute(), split, name)
    folder = found.folder / images
    database = _draft(found.file("_dbImages.npy"), folder)
    listed = _draft(found.file("_qImages.npy"), folder)
    asked = found.asked(len(listed.names)) if queries == "asked" else None
    benchmark, part, step = _BENCHMARKS.get(found.name.lower(), ("", "", 0))
    count = len(listed.names) if asked is None else len(asked)
    if step and (split, part, len(listed.names), len(database.names)) in _sizes_of(benchmark):
        for side, apart in ((database, 1), (listed, step)):
            side.columns["frame"] = apart * np.arange(len(side.names))
    check_sizes(
        benchmark, split=split, queries=count, database=len(database.names), part=part, policy=sizes, where=found.file("_dbImages.npy")
    )
    return [SceneDraft(found.name, split, database, listed if asked is None else listed.select(asked))]


def read_npy_labels(root: str | Path, *, split: str = "test", name: str = "", queries: Literal["asked", "all"] = "asked") -> list[Labels]:
    """The truth that lies beside the lists, as labels of the scene that `read_npy` gives with the same options.

    With queries="all" those that `_qIdx.npy` does not name have no right image.

    Raises:
        MissingFileError: there is no file with the truth.
        CovisError: as `read_npy` and `read_truth`.
    """
    found = _found(Path(root).absolute(), split, name)
    (scene,) = read_npy(root, split=split, name=name, queries=queries, missing="ignore", sizes="ignore")
    asked = found.asked(len(read_names(found.file("_qImages.npy")))) if queries == "all" else None
    return truth_labels(found.truth(), [scene], asked=asked)


def write_npy(
    scenes: Sequence[Scene],
    out: str | Path,
    *,
    overwrite: bool = False,
    files: Files = "copy",
    labels: str | Path | Sequence[Labels] | None = None,
    threshold: float = 0.5,
) -> list[Path]:
    """Write scenes as lists in numpy arrays, a folder each: the inverse of `read_npy`.

        <scene>/<scene>_dbImages.npy, <scene>_qImages.npy       names below database/ and queries/
        <scene>/<scene>_gt.npy                                  where labels are given; plain numbers, no pickle
        <scene>/{database,queries}/**                           the images

    Only names are kept, with a warning where the images have more. A name that is not below its side's folder is put there.

    Args:
        scenes: scenes with two sides, of different names.
        out: the folder for the scenes' folders.
        overwrite: replace a scene's folder that is there.
        files: "copy" the images, "link" to them, or "none": lists alone.
        labels: of the scenes, or the file or folder that holds them, for the truth; None: no truth is written.
        threshold: from which similarity on an image is right.

    Returns:
        The scenes' folders; `read_npy(folder)` gives the scene, `read_npy_labels(folder)` its truth.

    Raises:
        InvalidInputError: a scene has one side, two scenes or two images share a name, or labels are of other images.
        MissingFileError: an image is not there.
        OutputExistsError: a scene's folder is there and `overwrite` is false.
    """
    if len({scene.name for scene in scenes}) != len(scenes):
        raise InvalidInputError("Scenes written to one folder must have different names.")
    given = load_labels(labels, scenes) if isinstance(labels, (str, Path)) else labels
    truths = [None] * len(scenes) if given is None else list(given)
    folders, plans = check_targets(scenes, out, overwrite=overwrite), []
    for scene, label in zip(scenes, truths, strict=True):
        if scene.training or _split_of(scene.name) != scene.split:
            raise InvalidInputError(
                f"Lists in numpy arrays hold a database and queries of the split test, or of the split that the scene's name ends in; got "
                f"{scene.name!r}, split {scene.split!r}{', with one side' if scene.training else ''}."
            )
        if label is not None and (label.query_names, label.database_names) != (scene.queries.names, scene.database.names):
            raise InvalidInputError(f"The labels of scene {scene.name!r} must be of its images, in their order; they are {label}.")
        plans.append([_written_names(scene.database, "database"), _written_names(scene.queries, "queries")])
    for scene, label, names, target in zip(scenes, truths, plans, folders, strict=True):
        with atomic_path(target) as folder:
            folder.mkdir(parents=True)
            for images, listed, ending in zip((scene.database, scene.queries), names, ("dbImages", "qImages"), strict=True):
                np.save(folder / f"{scene.name}_{ending}.npy", np.array(listed, dtype=np.str_))
                for row, name in enumerate(listed):
                    place_file(images.path(row), folder / name, files)
            if label is not None:
                write_truth(folder / f"{scene.name}_gt.npy", label.positives(threshold))
    return folders


@dataclass(frozen=True)
class _Found:
    """The files of one set."""

    folder: Path
    name: str

    def file(self, ending: str) -> Path:
        return self.folder / (self.name + ending)

    def asked(self, among: int) -> NDArray[np.int64] | None:
        """The queries that are asked, None for all."""
        return read_indices(self.file("_qIdx.npy"), among=among) if self.file("_qIdx.npy").is_file() else None

    def truth(self) -> Path:
        found = [self.file(ending) for ending in TRUTHS if self.file(ending).is_file()]
        if not found:
            raise MissingFileError(f"{self.folder} must hold the truth of {self.name!r} ({self.name + TRUTHS[1]}, say); there is none.")
        if len(found) > 1:
            names = " and ".join(file.name for file in found)
            raise InvalidInputError(
                f"{self.folder} must hold one truth of {self.name!r}; found {names}. Take one away, or convert one alone."
            )
        return found[0]


def _sizes_of(benchmark: str) -> list[tuple[str, str, int | None, int | None]]:
    return [(size.split, size.part, size.queries, size.database) for size in DATASETS[benchmark].sizes]


def _split_of(name: str) -> str:
    return next((split for split in SPLITS if name.lower().endswith(f"_{split}")), "test")


def _found(root: Path, split: str, name: str) -> _Found:
    """The set that is meant: the only one there is, of that split or of that name."""
    if split not in SPLITS:
        raise InvalidInputError(f"The split of lists in numpy arrays must be 'train', 'val' or 'test'; got {split!r}.")
    data_folder(root, "a folder with …_dbImages.npy and …_qImages.npy")
    sets = sorted(path.name.removesuffix("_dbImages.npy") for path in root.glob("*_dbImages.npy"))
    if not sets:
        raise MissingFileError(f"{root} must hold …_dbImages.npy and …_qImages.npy; found no …_dbImages.npy. Is this the folder?")
    chosen = [one for one in sets if (not name or one == name) and _split_of(one) == split]
    if len(chosen) != 1:
        wanted = f"the set {name!r}" if name else "one set"
        raise InvalidInputError(
            f"{root} must hold {wanted} of the split {split!r}; it has "
            + ", ".join(f"{one} ({_split_of(one)})" for one in sets)
            + ". Say split, or name."
        )
    return _Found(root, chosen[0])


def _draft(path: Path, folder: Path) -> Draft:
    names = [name.replace("\\", "/").removeprefix("./") for name in read_names(path)]
    for place, name in enumerate(names):
        if not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InvalidInputError(f"{path}, entry {place}: an image's name must lie inside the folder of images; found {name!r}.")
    return Draft(folder, names, path)


def _written_names(images: Images, side: str) -> list[str]:
    lost = [field.name for field in attributes(images) if field.name not in ("root", "names", "flags", "_")]
    lost = [column for column in lost if getattr(images, column) is not None]
    if lost or images.flags:
        said = f"Lists in numpy arrays hold names; of the images in {images.root} they do not keep "
        warnings.warn(said + ", ".join([*lost, *images.flags]) + ".", CovisWarning, stacklevel=3)
    names = [name if name.startswith(f"{side}/") else f"{side}/{name}" for name in images.names]
    for name in names:
        if not name.isprintable() or ".." in PurePosixPath(name).parts or "//" in name:
            raise InvalidInputError(f"An image's name must be one inside its folder, in plain characters; got {name!r}.")
    if len(set(names)) < len(names):
        raise InvalidInputError(f"Images must have different names below {side}/; two of {images.root} would share one. Rename one.")
    return names
