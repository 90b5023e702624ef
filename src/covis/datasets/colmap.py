"""COLMAP models: images with world-to-camera poses and the cameras that took them.

    <root>/cameras.bin images.bin (or .txt)     the root is a model; or
    <root>/sparse/…                             it holds one; or
    <root>/sparse/0/…, 1/…                      it holds several, each in a frame of its own: a scene each
    images/ beside it                           the images: in the model's folder, or one or two above

Poses are world-to-camera, qw qx qy qz tx ty tz. The world's axes and its scale are the model's own: nothing in the files says whether
it is in metres or which way is up. https://colmap.github.io/format.html
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from covis.datasets.camera_models import HALF, ModelCamera, intrinsics_of
from covis.datasets.colmap_files import has_model, model_bytes, read_model
from covis.datasets.drafts import Draft, Invalid, Missing, SceneDraft
from covis.datasets.filing import Files, check_targets, place_file
from covis.datasets.pose_orders import FORMS, poses_of, rows_of
from covis.datasets.posed import cameras_to_write, check_split, ground_columns, names_to_write, scene_draft, sides_to_write, who_asks
from covis.errors import CovisWarning, InvalidInputError, MissingFileError
from covis.files import atomic_path
from covis.images import Scene

Form: TypeAlias = Literal["binary", "text"]

_SUFFIXES = {"binary": ".bin", "text": ".txt"}
_FORM = FORMS["colmap"]


def read_colmap(
    root: str | Path,
    *,
    split: str = "test",
    missing: Missing = "stop",
    invalid: Invalid = "stop",
    images: str | Path | None = None,
    queries: str | Path | None = None,
    form: Form | None = None,
    up: str | None = None,
) -> list[Scene]:
    """Read a COLMAP model, or each of several, as a scene of posed images.

    Columns: `pose`; `intrinsics` (any camera model's focal lengths and principal point, less 0.5 since COLMAP puts the corner of the
    first pixel at (0, 0); distortion is dropped, with a warning); with `up` also `xy` and `heading`.

    Args:
        root: a model's folder, or the folder of a project that has `sparse`.
        split: "val" and "test" are the whole model; "train" is the database against itself.
        missing: images of the model that have no file: "stop", "skip" or "ignore".
        invalid: names that stand twice: "stop" or "skip".
        images: the folder that names are relative to; default `images` in the model's folder or one or two above.
        queries: who asks: a text file with a name a line (what follows the name is left alone), or the folder that the queries' names
            begin with. Default: `queries/` where all names begin with `database/` or `queries/`; else all images, on both sides.
        form: "binary" or "text"; default binary where there are both (as COLMAP does), with a warning.
        up: the axis that points up, "z", "y" or "-y", in a model that was aligned to the ground in metres: x (and y, -z or z) are then
            east and north. Default: no `xy` and no `heading`, since a model does not say.

    Raises:
        MissingFileError: there is no such folder, or no model in it.
        DamagedFileError: a file is truncated, foreign, or does not read.
        InvalidInputError: a name leads outside, the queries are none of the images, or a policy says stop.
    """
    drafts = draft_colmap(root, split=split, images=images, queries=queries, form=form, up=up)
    return [draft.scene(missing=missing, invalid=invalid) for draft in drafts]


def draft_colmap(
    root: str | Path,
    *,
    split: str = "test",
    images: str | Path | None = None,
    queries: str | Path | None = None,
    form: Form | None = None,
    up: str | None = None,
) -> list[SceneDraft]:
    """What the models say, for `read_colmap` and for checks. Raises what `read_colmap` raises, but for the policies."""
    check_split(split, "COLMAP")
    if form not in (None, *_SUFFIXES):
        raise InvalidInputError(f"The form of a COLMAP model must be 'binary' or 'text'; got {form!r}.")
    root = Path(root).absolute()
    models = _models(root)
    base = _base(models[0], root)
    drafts = []
    for folder in models:
        model = read_model(folder, _suffix(folder, form))
        poses = poses_of(model.rows, order=_FORM.order, convention=_FORM.convention)
        draft = Draft(_image_folder(folder, model.names[0], images), model.names, model.source, lines=model.lines)
        draft.columns = {"pose": poses, **ground_columns(poses, up)}
        intrinsics = intrinsics_of(model.cameras, model.source)
        if intrinsics is not None:
            draft.columns["intrinsics"] = intrinsics
        asks = who_asks(model.names, queries, beside=base, source=model.source)
        drafts.append(scene_draft(base.name if len(models) == 1 else f"{base.name}-{folder.name}", split, draft, asks))
    return drafts


def write_colmap(
    scenes: Sequence[Scene], out: str | Path, *, overwrite: bool = False, files: Files = "copy", form: Form = "text"
) -> list[Path]:
    """Write scenes as COLMAP models, one folder each: the inverse of `read_colmap`.

        <scene>/sparse/0/{cameras,images,points3D}.txt (or .bin)     a PINHOLE camera for each image size and intrinsics; no points
        <scene>/images/{database,queries}/**                         `images/**` for a training scene

    Poses and intrinsics come back up to the rounding of floats; a pose's rotation becomes the nearest exact one. Everything else is left
    out, with a warning; `xy` and `heading` come back from poses where they are theirs, with the option `up` (`up="z"` for a world of
    east, north and up). `files="none"` writes the model alone, to be read with `images` or missing="ignore".

    Raises:
        InvalidInputError: images lack poses or intrinsics, a name has a blank (COLMAP's text would cut it) or leads outside, two scenes
            share a name, or a side is empty.
        MissingFileError: an image is not there (its size stands in the model, so it must be there for "none" too).
        OutputExistsError: a scene's folder is there and `overwrite` is false.
    """
    if form not in _SUFFIXES:
        raise InvalidInputError(f"The form of a COLMAP model must be 'binary' or 'text'; got {form!r}.")
    out = Path(out)
    check_targets(scenes, out, overwrite=overwrite)
    for scene, sides in zip(scenes, sides_to_write(scenes, layout="colmap", held=("pose", "intrinsics")), strict=True):
        for given in sides.values():
            given.need("pose", "intrinsics")
        names = names_to_write(sides, layout="colmap", forbidden=r"\s")
        known, took = cameras_to_write(sides)
        cameras = {}
        for key, (width, height, values) in enumerate(known, start=1):
            fx, fy, cx, cy = values or (0.0,) * 4  # there are some: need() asked
            cameras[key] = ModelCamera("PINHOLE", width, height, (fx, fy, cx + HALF, cy + HALF))
        posed = []
        for side, given in sides.items():
            rows = rows_of(given.need("pose")[0], order=_FORM.order, convention=_FORM.convention)
            posed += [(name, row, camera + 1) for name, row, camera in zip(names[side], rows.tolist(), took[side], strict=True)]
        with atomic_path(out / scene.name) as folder:
            (folder / "sparse" / "0").mkdir(parents=True)
            for name, content in model_bytes(cameras, posed, _SUFFIXES[form]).items():
                (folder / "sparse" / "0" / name).write_bytes(content)
            for side, given in sides.items():
                for row, name in enumerate(names[side]):
                    place_file(given.path(row), folder / "images" / name, files)
    return [out / scene.name for scene in scenes]


def _models(root: Path) -> list[Path]:
    if not root.is_dir():
        raise MissingFileError(f"{root} must be a folder with a COLMAP model; there is no such folder.")
    for folder in (root, root / "sparse"):
        if _is_model(folder):
            return [folder]
    for folder in (root / "sparse", root):
        found = [path for path in sorted(folder.iterdir()) if path.is_dir() and _is_model(path)] if folder.is_dir() else []
        if found:
            return found
    raise MissingFileError(
        f"{root} must hold a COLMAP model (cameras.bin and images.bin, or .txt), in itself, in sparse or in sparse/0; found none."
    )


def _is_model(folder: Path) -> bool:
    return any(has_model(folder, suffix) for suffix in _SUFFIXES.values())


def _base(model: Path, root: Path) -> Path:
    """The project's folder, which gives the scene its name: the model's, or the one above `sparse` and `0`."""
    if model != root:
        return root
    above = [folder for folder in (root, *root.parents) if folder.name and folder.name != "sparse" and not folder.name.isdigit()]
    return above[0] if above else root


def _suffix(folder: Path, form: Form | None) -> str:
    if form is not None:
        if not has_model(folder, _SUFFIXES[form]):
            raise MissingFileError(
                f"{folder} must hold cameras{_SUFFIXES[form]} and images{_SUFFIXES[form]} for form={form!r}; it does not."
            )
        return _SUFFIXES[form]
    if has_model(folder, ".bin"):
        if has_model(folder, ".txt"):
            warnings.warn(
                f"{folder} holds a model in binary and in text; the binary one is read (form='text' for the other).",
                CovisWarning,
                stacklevel=4,
            )
        return ".bin"
    return ".txt"


def _image_folder(model: Path, name: str, images: str | Path | None) -> Path:
    """The folder that names are relative to: the first that holds the first image, else the first that is there."""
    if images is not None:
        folder = Path(images).absolute()
        if not folder.is_dir():
            raise MissingFileError(f"images={str(images)!r} must be the folder of the images; there is no such folder.")
        return folder
    beside = [folder / "images" for folder in (model, model.parent, model.parent.parent)]
    holds = [folder for folder in beside if (folder / name).is_file()] or [folder for folder in beside if folder.is_dir()]
    return holds[0] if holds else beside[-1] if model.parent.name == "sparse" else beside[0]
