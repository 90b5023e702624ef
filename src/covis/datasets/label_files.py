"""Labels as files: covis's own `.npz`, GCL's `.h5`, and where those of several scenes lie."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from covis.datasets.gcl.h5 import read_labels as read_h5_labels
from covis.datasets.gcl.h5 import write_labels as write_h5_labels
from covis.errors import CovisWarning, InvalidInputError
from covis.images import Scene
from covis.labels import Labels


def save_labels(labels: Labels, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write labels as covis's `.npz`, or with the suffix .h5 as GCL's ground truth (dense, key `fov`); returns the path."""
    if Path(path).suffix == ".h5":
        if labels.excluded is not None and labels.excluded.nnz:
            warnings.warn(
                f"{path}: {labels.excluded.nnz:,} excluded pairs (an image with itself, one that the rule leaves out) are plain zeros in "
                "an .h5: scores by it count them as wrong. Keep the .npz for covis.",
                CovisWarning,
                stacklevel=2,
            )
        return write_h5_labels(labels, path, overwrite=overwrite)
    return labels.save(path, overwrite=overwrite)


def label_files(path: str | Path, scenes: Sequence[Scene]) -> list[Path]:
    """Where the labels of scenes lie: one file for a single scene, else in a folder `<scene>.npz`, or GCL's `<scene>_gt.h5`."""
    path, _ = _keyed(Path(path))
    if path.is_file() and len(scenes) == 1:
        return [path]
    places = [(path / f"{scene.name}.npz", path / f"{scene.name}_gt.h5") for scene in scenes]
    return [theirs if theirs.is_file() and not own.is_file() else own for own, theirs in places]


def load_labels(path: str | Path, scenes: Sequence[Scene]) -> list[Labels]:
    """The labels of scenes: one file for a single scene (.npz, or .h5 of GCL), else a folder with one for each.

    Of an .h5 the key `fov` is read, else `sim`; behind a colon another one is named: `W18_W17_gt.h5:sim`, or `train_val:sim` for
    the `<scene>_gt.h5` of a folder.

    Raises:
        MissingFileError: a file is not there.
        InvalidInputError: labels are not those of the scene's images, or a key is named of an .npz.
    """
    files, key = label_files(path, scenes), _keyed(Path(path))[1]
    if key and any(file.suffix != ".h5" for file in files):
        raise InvalidInputError(f"A key behind a colon is one of an .h5; {path} leads to {', '.join(map(str, files))}. Leave out :{key}.")
    loaded = [
        read_h5_labels(file, scene.queries, scene.database, key=key or "auto") if file.suffix == ".h5" else Labels.load(file)
        for file, scene in zip(files, scenes, strict=True)
    ]
    for file, scene, label in zip(files, scenes, loaded, strict=True):
        if label.query_names != scene.queries.names or label.database_names != scene.database.names:
            raise InvalidInputError(
                f"{file} must label the images of scene {scene.name!r} ({scene.split}), in their order; it holds "
                f"{label}. Label again, or choose the other split."
            )
    return loaded


def _keyed(path: Path) -> tuple[Path, str]:
    """A path, and the key of an .h5 that stands behind a colon; "" for none."""
    before, colon, key = path.name.rpartition(":")
    if not colon or not before or path.exists():
        return path, ""
    return path.with_name(before), key
