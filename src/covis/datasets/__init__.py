"""Readers and their inverse writers, one file a layout; and the check of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from covis.datasets.aligned import draft_aligned, is_aligned, read_aligned, write_aligned
from covis.datasets.checks import Progress, Report, inspect
from covis.datasets.cmu_seasons import draft_cmu_seasons, read_cmu_seasons
from covis.datasets.cmu_seasons_writer import write_cmu_seasons
from covis.datasets.colmap import draft_colmap, read_colmap, write_colmap
from covis.datasets.dbstruct import draft_dbstruct, is_dbstruct, read_dbstruct, write_dbstruct
from covis.datasets.drafts import SceneDraft
from covis.datasets.gcl import draft_gcl, read_gcl, write_gcl
from covis.datasets.gsv_cities import draft_gsv_cities, read_gsv_cities, write_gsv_cities
from covis.datasets.kapture import draft_kapture, read_kapture
from covis.datasets.kapture_writer import write_kapture
from covis.datasets.kitti import draft_kitti, read_kitti, write_kitti
from covis.datasets.msls import draft_msls, read_msls
from covis.datasets.msls_writer import write_msls
from covis.datasets.nordland import draft_nordland, is_nordland, read_nordland, write_nordland
from covis.datasets.npy_lists import draft_npy, read_npy, write_npy
from covis.datasets.opensfm import draft_opensfm, read_opensfm
from covis.datasets.opensfm_writer import write_opensfm
from covis.datasets.photographs import draft_exif, draft_folder, read_exif, read_folder, write_exif, write_folder
from covis.datasets.robotcar import draft_robotcar_seasons, read_robotcar_seasons
from covis.datasets.robotcar_writer import write_robotcar_seasons
from covis.datasets.seven_scenes import read_7scenes, write_7scenes
from covis.datasets.tables import draft_table, read_table, write_table
from covis.datasets.tum import draft_tum, read_tum, write_tum
from covis.datasets.utm_names import draft_utm, read_utm, write_utm
from covis.errors import CovisError, InvalidInputError, MissingFileError
from covis.images import Scene
from covis.lookup import resolve, typed_options, with_options
from covis.rasters import has_gps

Reader = Callable[..., list[Scene]]
Writer = Callable[..., list[Path]]
Drafter = Callable[..., list[SceneDraft]]
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")


def read(layout: str, root: str | Path, *, split: str = "test", **options: Any) -> list[Scene]:
    """Read a data set: one scene for each place with a coordinate frame of its own.

    Args:
        layout: a name of `READERS`, "auto" to guess it from what is there, or `module:function`.
        root: the data set's folder or file.
        split: what the layout calls its splits ("train", "val", "test").
        **options: the reader's own.

    Raises:
        UnknownNameError: no reader has that name.
        InvalidInputError: the reader does not take an option.
        CovisError: whatever the reader finds wrong, with the file it found it in.
    """
    name = guess_layout(root) if layout == "auto" else layout
    reader = with_options(resolve(name, READERS, what="layout"), {"split": split, **options}, what="reader")
    scenes: list[Scene] = reader(root, split=split, **typed_options(reader, options, what="reader"))
    return scenes


def write(layout: str, scenes: Scene | Sequence[Scene], out: str | Path, **options: Any) -> list[Path]:
    """Write scenes in a layout; returns the paths written. The originals are left as they are.

    Args:
        layout: a name of `WRITERS`, or `module:function`.
        scenes: what `read` gives, or your own.
        out: the folder to write into.
        **options: the writer's own: `overwrite`, and mostly `files` ("copy", "link" for symbolic links, "none" for metadata alone).

    Raises:
        UnknownNameError: no writer has that name.
        InvalidInputError: the writer does not take an option, or the scenes lack what the layout holds.
        CovisError: whatever else the writer cannot do.
    """
    writer = with_options(resolve(layout, WRITERS, what="layout"), options, what="writer")
    given = typed_options(writer, options, what="writer")
    written: list[Path] = writer([scenes] if isinstance(scenes, Scene) else list(scenes), out, **given)
    return written


def check(
    layout: str,
    root: str | Path,
    *,
    split: str = "test",
    decode: bool = True,
    progress: Progress = lambda _done, _of: None,
    **options: Any,
) -> Report:
    """Look at every name, number and file of a data set, and list all problems at once.

    Missing images, names that stand twice, positions that are not finite, headings outside [0, 360), positions that do not
    fit into one frame, images that do not decode.

    Args:
        layout: a name of `READERS`, "auto", or `module:function`.
        root: the data set's folder or file.
        split: of the layout.
        decode: decode every image (the slow part).
        progress: takes (images decoded, images in all).
        **options: the reader's own.

    Raises:
        UnknownNameError: no reader has that name.
        InvalidInputError: the reader does not take an option.
        MissingFileError: there is no such folder or file.
    """
    name = guess_layout(root) if layout == "auto" else layout
    policies = {key: options.pop(key) for key in ("missing", "invalid") if key in options and name in DRAFTS}
    reader = with_options(DRAFTS.get(name) or resolve(name, READERS, what="layout"), {"split": split, **options}, what="reader")
    unseen = policies.get("missing") == "ignore"
    given = typed_options(reader, options, what="reader")
    return inspect(
        lambda: reader(root, split=split, **given),
        Path(root),
        layout=name,
        decode=decode and not unseen,
        files=not unseen,
        progress=progress,
    )


def guess_layout(root: str | Path) -> str:
    """The layout of a folder or file, where it is plain.

    Raises:
        MissingFileError: there is no such folder.
        InvalidInputError: it is not plain.
    """
    root = Path(root)
    if not root.exists():
        raise MissingFileError(f"The data {root} must exist; there is no such file or folder.")
    for name, fits in _SIGNS:
        if fits(root):
            return name
    raise InvalidInputError(f"The layout of {root} is not plain; say it with --layout. Known: {', '.join(sorted(READERS))}.")


def _holds(*patterns: str) -> Callable[[Path], bool]:
    return lambda root: root.is_dir() and any(next(root.glob(pattern), None) is not None for pattern in patterns)


def _first_picture(root: Path) -> Path | None:
    found = (path for path in root.rglob("*") if path.suffix.lower() in PICTURES) if root.is_dir() else iter(())
    return next(found, None)


def _first_has_gps(root: Path) -> bool:
    picture = _first_picture(root)
    try:
        return picture is not None and has_gps(picture)
    except CovisError:  # it does not decode: whichever layout this is says so, when it is read
        return False


_MODELS = tuple((at, form) for at in ("", "sparse/", "sparse/*/") for form in ("bin", "txt"))
"""Where a model of COLMAP lies, and in which form."""

_SIGNS: tuple[tuple[str, Callable[[Path], bool]], ...] = (
    ("7scenes", _holds("TrainSplit.txt", "*/TrainSplit.txt")),
    ("cmu-seasons", _holds("*-images-slice*.txt", "slice*/*-images-slice*.txt")),
    ("robotcar-seasons", _holds("robotcar_v2_test.txt", "robotcar_v2_train.txt", "3D-models/all-merged/all.nvm")),
    ("colmap", lambda root: any(_holds(f"{at}cameras.{form}")(root) and _holds(f"{at}images.{form}")(root) for at, form in _MODELS)),
    ("kapture", _holds("sensors/sensors.txt", "mapping/sensors/sensors.txt")),
    ("kitti", lambda root: all(_holds(pattern)(root) for pattern in ("sequences/*", "poses/*.txt"))),
    ("opensfm", lambda root: root.name == "reconstruction.json" or _holds("reconstruction.json")(root)),
    ("tum", lambda root: any(_holds(f"{at}rgb.txt")(root) and _holds(f"{at}groundtruth.txt")(root) for at in ("", "*/"))),
    ("dbstruct", is_dbstruct),
    ("table", lambda root: root.is_file() and root.suffix in (".csv", ".parquet")),
    ("gsv-cities", _holds("Dataframes/*.csv")),
    ("msls", _holds("train_val/*/*/seq_info.csv", "test/*/*/seq_info.csv", "train_val/*/*/postprocessed.csv")),
    (
        "gcl",
        lambda root: (root.is_file() and root.suffix == ".json") or _holds("train_val/*/query.json", "*/test.json", "query.json")(root),
    ),
    ("table", _holds("database.csv", "database.parquet", "*/database.csv", "*/database.parquet")),
    ("npy", _holds("*_dbImages.npy")),
    ("nordland", is_nordland),
    ("utm", lambda root: (first := _first_picture(root)) is not None and first.name.startswith("@")),
    ("table", lambda root: root.is_dir() and len([*root.glob("*.csv"), *root.glob("*.parquet")]) == 1),
    ("exif", _first_has_gps),
    ("aligned", is_aligned),
    ("folder", lambda root: _first_picture(root) is not None),
)
"""(layout, whether a root looks like it), in the order in which they are tried."""

READERS: dict[str, Reader] = {
    "7scenes": read_7scenes,
    "aligned": read_aligned,
    "cmu-seasons": read_cmu_seasons,
    "colmap": read_colmap,
    "dbstruct": read_dbstruct,
    "exif": read_exif,
    "folder": read_folder,
    "gcl": read_gcl,
    "gsv-cities": read_gsv_cities,
    "kapture": read_kapture,
    "kitti": read_kitti,
    "msls": read_msls,
    "nordland": read_nordland,
    "npy": read_npy,
    "opensfm": read_opensfm,
    "robotcar-seasons": read_robotcar_seasons,
    "table": read_table,
    "tum": read_tum,
    "utm": read_utm,
}
"""Name -> reader: `(root, *, split, …) -> list[Scene]`."""

DRAFTS: dict[str, Drafter] = {
    "aligned": draft_aligned,
    "cmu-seasons": draft_cmu_seasons,
    "colmap": draft_colmap,
    "dbstruct": draft_dbstruct,
    "exif": draft_exif,
    "folder": draft_folder,
    "gcl": draft_gcl,
    "gsv-cities": draft_gsv_cities,
    "kapture": draft_kapture,
    "kitti": draft_kitti,
    "msls": draft_msls,
    "nordland": draft_nordland,
    "npy": draft_npy,
    "opensfm": draft_opensfm,
    "robotcar-seasons": draft_robotcar_seasons,
    "table": draft_table,
    "tum": draft_tum,
    "utm": draft_utm,
}
"""Name -> what the reader makes its scenes of, which `check` looks at: `(root, *, split, …) -> list[SceneDraft]`."""

WRITERS: dict[str, Writer] = {
    "7scenes": write_7scenes,
    "aligned": write_aligned,
    "cmu-seasons": write_cmu_seasons,
    "colmap": write_colmap,
    "dbstruct": write_dbstruct,
    "exif": write_exif,
    "folder": write_folder,
    "gcl": write_gcl,
    "gsv-cities": write_gsv_cities,
    "kapture": write_kapture,
    "kitti": write_kitti,
    "msls": write_msls,
    "nordland": write_nordland,
    "npy": write_npy,
    "opensfm": write_opensfm,
    "robotcar-seasons": write_robotcar_seasons,
    "table": write_table,
    "tum": write_tum,
    "utm": write_utm,
}
"""Name -> the inverse: `(scenes, out, *, overwrite, …) -> list[Path]`."""
