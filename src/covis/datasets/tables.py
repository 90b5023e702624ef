"""The plain table: one row an image, in CSV or Parquet, with positions in metres or degrees and whatever else is known.

    database.csv  queries.csv     two tables in a folder; or one table, whose column `side` may say which row asks
    images/                       the files, or wherever `images` says

Columns are found by their names, those in `covis.datasets.columns`, or by the option `columns`. A table that `Images.write`
wrote is a plain table too; its header gives the frame and the images' folder.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.datasets.columns import block, find_columns, poses, values
from covis.datasets.drafts import EXAMPLES, Draft, Invalid, Missing, SceneDraft, files_present
from covis.datasets.filing import Files, check_targets, place_file
from covis.datasets.sheets import Sheet, is_time_format, read_sheet
from covis.errors import CovisWarning, InvalidInputError, MissingFileError
from covis.files import atomic_path
from covis.geometry import check_rigid
from covis.images import Images, Scene

PoseConvention: TypeAlias = Literal["c2w", "w2c", "centre"]

_ASKS = {"query": True, "queries": True, "database": False, "db": False, "map": False, "reference": False}
_SPLITS = {"training": "train", "validation": "val", "testing": "test"}
_IMAGE = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_TABLE = (".csv", ".parquet")
_EARTH = 6_371_008.8  # mean radius, metres


@dataclass(frozen=True, kw_only=True)
class _Options:
    columns: Mapping[str, str] | None
    queries: str | Path | None
    header: bool
    scale: float
    crs: str | None
    zone: str | None
    images: str | Path | None
    match: str
    pose: str | None
    within: float | None
    time_format: str | None
    look: bool

    def __post_init__(self) -> None:
        columns, zone = self.columns, self.zone
        rules = (
            ("columns", columns is None or (isinstance(columns, Mapping) and columns), "a table, covis' name = the table's column"),
            ("queries", isinstance(self.queries, str | Path | None), "the path of a table"),
            ("header", isinstance(self.header, bool), "true or false"),
            ("scale", _is_number(self.scale) and self.scale != 0, "a number other than 0"),
            ("crs", isinstance(self.crs, str | None), "text, as 'EPSG:32633'"),
            ("zone", zone is None or (isinstance(zone, str) and re.fullmatch(r"EPSG:\d+", zone)), "text, as 'EPSG:32633'"),
            ("images", isinstance(self.images, str | Path | None), "the path of a folder"),
            ("match", self.match in ("name", "stem"), "'name' or 'stem'"),
            ("pose", self.pose in (None, "c2w", "w2c", "centre"), "'c2w', 'w2c' or 'centre'"),
            ("within", self.within is None or (_is_number(self.within) and self.within > 0), "metres above 0"),
            ("time_format", self.time_format is None or is_time_format(self.time_format), "as of strptime, '%Y-%m-%d %H:%M:%S'"),
        )
        for name, holds, rule in rules:
            if not holds:
                raise InvalidInputError(f"The option {name} must be {rule}; got {getattr(self, name)!r}.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def read_table(
    root: str | Path,
    *,
    split: str = "test",
    missing: Missing = "stop",
    invalid: Invalid = "stop",
    columns: Mapping[str, str] | None = None,
    queries: str | Path | None = None,
    header: bool = True,
    delimiter: str = ",",
    scale: float = 1.0,
    crs: str | None = None,
    zone: str | None = None,
    images: str | Path | None = None,
    match: Literal["name", "stem"] = "name",
    pose: PoseConvention | None = None,
    within: float | None = None,
    time_format: str | None = None,
) -> list[Scene]:
    r"""Read tables of images, each as one scene, called as the table (without its suffix) or the folder.

    Latitude and longitude become metres in the UTM zone where most of the images lie. Paths among the options are taken
    from the table's folder unless they are absolute.

    Args:
        root: a table; or a folder with `database.csv|parquet` and perhaps `queries.csv|parquet`, or with a single table; or a folder
            of such folders, each a scene. Where some of these have queries and some none, those without are of the split train, and
            the others of val and test.
        split: which rows, where the table has a column `split`. "train": images against each other (the same on both
            sides): those of that split, or, where nothing says a split, the database alone, so that no query teaches.
        missing: images that have no file: "stop", "skip" (leave out and say so) or "ignore": nothing is looked up, names
            stay as they are, and the images' folder is the table's own unless `images` says another.
        invalid: rows without a position, with a heading outside [0, 360), or whose name stands again: "stop" or "skip".
        columns: which of the table's columns is which, as {"name": "file", "lat": "Breite"}; exactly these are read.
            Default: those with the names in `covis.datasets.columns`.
        queries: a second table, of the queries, read with the same options.
        header: whether the first line names the columns; else they are called "1", "2", … (and `columns` is needed).
        delimiter: between the cells of a text table.
        scale: a factor for x and y, or lat and lon (1e-6 for degrees in millionths).
        crs: the frame of x and y ("EPSG:32633"), to be kept with them.
        zone: the frame in which lat and lon become metres ("EPSG:25832"), in place of the UTM zone that fits.
        images: the folder that names are relative to. Default: the table's, or its subfolder `images` if files of these
            names are only there.
        match: "name", or "stem": a name without a file stands for the one image file of the same stem in its folder
            (`a.jpeg` in the table, `a.jpg` on the disk).
        pose: what tx … qw are. "c2w": the camera in the world (rotation camera-to-world, position); "w2c": the world in the
            camera (rotation world-to-camera and its translation, as COLMAP); "centre": rotation world-to-camera, and
            the camera's position in the world (as Extended CMU Seasons). Metres; the quaternion has norm 1.
        within: metres; images farther than this from the median position are left out, with a warning that names them.
        time_format: how times are written, in the codes of Python's `strptime`; a "*" at the end stands for whatever
            follows; UTC where it says no zone. A time in the file's name is read from the column of names: columns =
            {"name": "file", "time": "file"} and "%Y%m%d_%H%M%S*". Default: seconds since 1970 or ISO 8601.

    Returns:
        One scene, or one a folder; with the same images on both sides for a training split, and where nothing says which images ask.

    Raises:
        MissingFileError: there is no such table or folder.
        DamagedFileError: a table does not read, or a cell is not what its column must hold; the message has the line.
        InvalidInputError: a column is not there or could be two, an option does not fit the table, a policy says stop, or
            the positions span more than one frame can hold.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = Path(folder) / "walk.csv"
    ...     _ = table.write_text("File;Longitude;Latitude;Bearing\na.jpg;12.4924;41.8902;90\nb.jpg;12.4925;41.8902;360\n")
    ...     (scene,) = read_table(table, delimiter=";", missing="ignore")
    >>> scene, scene.queries.crs, scene.queries.heading.tolist(), scene.queries.xy.round().tolist()
    (Scene('walk', 'test': 2 queries, 2 database), 'EPSG:32633', [90.0, 0.0], [[291963.0, 4640626.0], [291971.0, 4640626.0]])
    """
    drafts = draft_table(
        root,
        split=split,
        missing=missing,
        columns=columns,
        queries=queries,
        header=header,
        delimiter=delimiter,
        scale=scale,
        crs=crs,
        zone=zone,
        images=images,
        match=match,
        pose=pose,
        within=within,
        time_format=time_format,
    )
    return [draft.scene(missing=missing, invalid=invalid) for draft in drafts]


def draft_table(
    root: str | Path,
    *,
    split: str = "test",
    missing: Missing = "stop",
    columns: Mapping[str, str] | None = None,
    queries: str | Path | None = None,
    header: bool = True,
    delimiter: str = ",",
    scale: float = 1.0,
    crs: str | None = None,
    zone: str | None = None,
    images: str | Path | None = None,
    match: Literal["name", "stem"] = "name",
    pose: PoseConvention | None = None,
    within: float | None = None,
    time_format: str | None = None,
) -> list[SceneDraft]:
    """What a table says, for `read_table` and for checks; the options are those of `read_table` (`missing` only as "ignore").

    Raises:
        MissingFileError: there is no such table or folder.
        DamagedFileError: a table does not read, or a cell is not what its column must hold.
        InvalidInputError: a column is not there or could be two, or an option does not fit the table.
    """
    options = _Options(
        columns=columns, queries=queries, header=header, scale=scale, crs=crs, zone=zone,
        images=images, match=match, pose=pose, within=within, time_format=time_format, look=missing != "ignore",
    )  # fmt: skip
    return [_scene_draft(name, paths, split, options, delimiter) for name, paths in _scenes(Path(root).absolute(), queries, split)]


def _scene_draft(name: str, paths: list[Path], split: str, options: _Options, delimiter: str) -> SceneDraft:
    """What the one or two tables of a scene say."""
    columns, header, within = options.columns, options.header, options.within
    if split == "train":
        paths = paths[:1]
    sheets = [read_sheet(path, header=header, delimiter=delimiter) for path in paths]
    fields = [find_columns(sheet, columns) for sheet in sheets]
    chosen = [_of_split(sheet, found, split) for sheet, found in zip(sheets, fields, strict=True)]
    sides = [_draft(sheet, found, options) for sheet, found in zip(chosen, fields, strict=True)]
    if len(sides) > 1:
        _check_alike(sides)
        if any("side" in found for found in fields):
            raise InvalidInputError(
                f"A table with a column 'side' holds both sides; {paths[0]} comes with {paths[1]}. Read one, or map the columns without it."
            )
    elif "side" in fields[0] and (split != "train" or "split" not in fields[0]):
        sides = _by_side(sides[0], chosen[0], fields[0]["side"])
    if split == "train":
        sides = sides[:1]
    return SceneDraft(name, split, *(sides if within is None else _near(sides, within)))


def write_table(scenes: Sequence[Scene], out: str | Path, *, overwrite: bool = False, files: Files = "copy") -> list[Path]:
    """Write scenes as tables with their images, one folder each: the inverse of `read_table`.

        <scene>/database.csv, queries.csv   as `Images.write` writes them: the header has the frame, and the images' folder
        <scene>/images/                     the images, depth and label maps under their own names; images/database/ and
                                            images/queries/ where the two sides come from different folders

    A training scene has `database.csv` alone. Every number comes back to the last bit. The folder can be moved; with
    files="none" the tables name the folder where the images are now.

    Args:
        scenes: scenes of the splits train, val or test, with different names.
        out: the folder for the scenes' folders.
        overwrite: replace a scene's folder that is there.
        files: "copy" the images, "link" to them, or "none": tables alone.

    Returns:
        The scenes' folders; `read_table(folder, split=…)` gives the scene.

    Raises:
        InvalidInputError: a scene would not be read back: two share a name, a training split has two sides, a split is
            unknown, or a file's name leads out of its folder.
        MissingFileError: an image is not there.
        OutputExistsError: a scene's folder is there and `overwrite` is false.
    """
    out = Path(out)
    if len({scene.name for scene in scenes}) != len(scenes):
        raise InvalidInputError("Scenes written to one folder must have different names.")
    check_targets(scenes, out, overwrite=overwrite)
    for scene in scenes:
        if scene.split not in _SPLITS.values() or (scene.split == "train" and not scene.training):
            raise InvalidInputError(
                f"A scene in tables must be of the split train (the same images on both sides), val or test; got {scene!r}."
            )
        with atomic_path(out / scene.name) as folder:
            folder.mkdir()
            sides = {"database": scene.database} if scene.training else {"database": scene.database, "queries": scene.queries}
            apart = scene.database.root.absolute() != scene.queries.root.absolute()
            for side, images in sides.items():
                root = images.root.absolute() if files == "none" else Path("images", side) if apart else Path("images")
                if files != "none":
                    place_images(images, folder / root, files)
                replace(images, root=root).write(folder / f"{side}.csv")
    return [out / scene.name for scene in scenes]


def _scenes(root: Path, queries: str | Path | None, split: str) -> list[tuple[str, list[Path]]]:
    """Each scene's name and tables: of the table, of the folder, or of each folder in it that has a table of its database."""

    def listed(folder: Path) -> list[Path]:
        return [path for path in folder.iterdir() if path.suffix.lower() in _TABLE and path.is_file()] if folder.is_dir() else []

    within = sorted(path for path in root.iterdir() if any(one.stem == "database" for one in listed(path))) if root.is_dir() else []
    if not within or listed(root):
        return [_tables(root, queries)]
    found = [_tables(path, queries) for path in within]
    if len({len(paths) for _, paths in found}) > 1:  # as `write_table` leaves them, a folder without queries teaches
        found = [(name, paths) for name, paths in found if (len(paths) == 1) == (split == "train")]
    return found


def _tables(root: Path, queries: str | Path | None) -> tuple[str, list[Path]]:
    """The scene's name and its one or two tables."""
    if not root.exists():
        raise MissingFileError(f"The table {root} must exist; there is no such file or folder.")
    if not root.is_dir():
        return root.stem, [root, root.parent / queries] if queries else [root]
    found = sorted(path for path in root.iterdir() if path.suffix.lower() in _TABLE and path.is_file())
    parts = {side: [path for path in found if path.stem == side] for side in ("database", "queries")}
    for side, paths in parts.items():
        if len(paths) > 1:
            raise InvalidInputError(f"{root} must have one table of its {side}; found {paths[0].name} and {paths[1].name}. Remove one.")
    if parts["database"]:
        given = [root / queries] if queries else parts["queries"]
        return root.name, [*parts["database"], *given]
    if not found:
        raise MissingFileError(
            f"{root} must hold database.csv or .parquet, or a single table; found none. Is this the right folder and layout?"
        )
    if len(found) > 1:
        listed = ", ".join(path.name for path in found)
        raise InvalidInputError(f"{root} must hold database.csv or .parquet, or a single table; found {listed}. Name one of them.")
    return root.name, [found[0], root / queries] if queries else found


def _of_split(sheet: Sheet, found: Mapping[str, str], split: str) -> Sheet:
    if "split" not in found:
        if split not in _SPLITS.values():
            raise InvalidInputError(
                f"The split of a table without a column 'split' must be 'train', 'val' or 'test'; got {split!r} for {sheet.path}."
            )
        return sheet
    said = [_SPLITS.get(text.strip().lower(), text.strip().lower()) for text in sheet.texts(found["split"])]
    rows = np.array([text == split.lower() for text in said], dtype=np.bool_)
    if not rows.any():
        raise InvalidInputError(
            f"{sheet.path} must have rows of the split {split!r}; its column {found['split']!r} says {sorted(set(said))}."
        )
    return sheet.select(rows)


def _by_side(draft: Draft, sheet: Sheet, column: str) -> list[Draft]:
    said = [_ASKS.get(text.strip().lower()) for text in sheet.texts(column)]
    sheet.check(column, np.array([one is not None for one in said], dtype=np.bool_), f"one of {', '.join(_ASKS)}")
    asks = np.array(said, dtype=np.bool_)
    return [draft] if asks.all() or not asks.any() else [draft.select(~asks), draft.select(asks)]


def _check_alike(sides: Sequence[Draft]) -> None:
    kinds = ["lat and lon" if side.degrees is not None else "x and y" if "xy" in side.columns else "no position" for side in sides]
    if kinds[0] != kinds[1]:
        raise InvalidInputError(
            f"Both tables must give positions in one way; {sides[0].source} gives {kinds[0]}, {sides[1].source} {kinds[1]}. Convert one."
        )


def _draft(sheet: Sheet, found: Mapping[str, str], options: _Options) -> Draft:
    names = sheet.names(found["name"])
    root, names = _placed(sheet, names, options)
    given = None if sheet.covis is None else sheet.covis.get("crs")
    frame = options.zone if "lat" in found else options.crs if options.crs is not None else given
    for option, field, columns in (("crs", "x", "x and y"), ("zone", "lat", "lat and lon"), ("time_format", "time", "a column of times")):
        if getattr(options, option) is not None and field not in found:
            raise InvalidInputError(f"The option {option} is for tables with {columns}; {sheet.path} has none.")
    if given is not None and frame != given:
        raise InvalidInputError(f"The frame of {sheet.path} must be {given}, as its header says; the options say {frame}. Leave them out.")
    position = block(sheet, found, ("x", "y") if "x" in found else ("lat", "lon"), empty=True)
    draft = Draft(root, names, sheet.path, values(sheet, found, time_format=options.time_format), crs=frame, lines=sheet.lines)
    draft.flags = {field.removeprefix("flag_"): sheet.truths(column) for field, column in found.items() if field.startswith("flag_")}
    if position is not None and "x" in found:
        draft.columns["xy"] = position * options.scale
    elif position is not None:
        draft.degrees = position * options.scale
    pose = poses(sheet, found, options.pose)
    if pose is not None:
        check_rigid(pose, names=[f"{name} ({draft.where(row)})" for row, name in enumerate(names)])
        draft.columns["pose"] = pose
    return draft


def _placed(sheet: Sheet, names: list[str], options: _Options) -> tuple[Path, list[str]]:
    """The images' folder, and their names in it."""
    home = sheet.path.parent
    said = options.images if options.images is not None else None if sheet.covis is None else sheet.covis["root"]
    folders = [home / said] if said is not None else [home, *([home / "images"] if options.look and (home / "images").is_dir() else [])]
    if not options.look:
        return folders[0], names
    if options.images is not None and not folders[0].is_dir():
        raise MissingFileError(f"The images' folder {folders[0]} must exist (option images, taken from the table's folder); there is none.")
    for folder in folders:
        matched = names if options.match == "name" else _by_stem(folder, names, sheet)
        if len(folders) == 1 or files_present(folder, matched).any():
            return folder, matched
    return folders[0], names


def _by_stem(root: Path, names: Sequence[str], sheet: Sheet) -> list[str]:
    """Each name, or the one image file of its stem in its folder."""
    listed: dict[str, dict[str, list[str]]] = {}
    matched = []
    for row, name in enumerate(names):
        parent, slash, file = name.rpartition("/")
        if parent not in listed:
            listed[parent] = _stems(root / parent)
        files = listed[parent].get(_stem(file), [])
        if len(files) > 1 and file not in files:
            raise InvalidInputError(
                f"{sheet.where(row)}: {name!r} must have one image of its stem in {root / parent}; found {' and '.join(files)}. Remove one."
            )
        matched.append(parent + slash + files[0] if files and file not in files else name)
    return matched


def _stems(folder: Path) -> dict[str, list[str]]:
    stems: dict[str, list[str]] = {}
    try:
        files = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _IMAGE and path.is_file())
    except OSError:
        files = []
    for file in files:
        stems.setdefault(_stem(file), []).append(file)
    return stems


def _stem(file: str) -> str:
    """The name up to an image's suffix; another dot is part of the stem."""
    stem, _, suffix = file.rpartition(".")
    return stem if f".{suffix.lower()}" in _IMAGE else file


def _near(sides: Sequence[Draft], within: float) -> list[Draft]:
    """The drafts without the images that lie too far from the median position of all."""
    positions = [side.degrees if side.degrees is not None else side.columns.get("xy") for side in sides]
    known = [position for position in positions if position is not None]
    if not known:
        raise InvalidInputError(f"The option within is for tables with positions; {sides[0].source} has none.")
    finite = np.concatenate(known)
    finite = finite[np.isfinite(finite).all(axis=1)]
    if not len(finite):
        return list(sides)
    median, kept = np.median(finite, axis=0), []
    for side, position in zip(sides, known, strict=True):
        metres = _sphere(position, median) if side.degrees is not None else np.linalg.norm(position - median, axis=1)
        far = metres > within
        kept.append(side.select(~far) if far.any() else side)
        if far.any():
            rows = np.flatnonzero(far)[:EXAMPLES].tolist()
            examples = "; ".join(f"{side.names[row]} ({side.where(row)}): {metres[row]:.0f} m" for row in rows)
            said = f"{far.sum()} of {len(far)} images of {side.source} lie more than {within:g} m from the median position"
            more = " …" if far.sum() > EXAMPLES else ""
            warnings.warn(f"{said} {median.round(6).tolist()}: {examples}{more}. They are left out.", CovisWarning, stacklevel=4)
    return kept


def _sphere(degrees: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) metres from a position over a sphere (haversine), within 0.6 % of those over the ellipsoid; NaN where it is not finite."""
    with np.errstate(invalid="ignore"):
        a, b = np.radians(degrees), np.radians(centre)
        half = np.sin((a - b) / 2) ** 2
        squared = half[:, 0] + np.cos(a[:, 0]) * np.cos(b[0]) * half[:, 1]
        metres: NDArray[np.float64] = 2 * _EARTH * np.arcsin(np.sqrt(np.clip(squared, 0, 1)))
        return metres


def place_images(images: Images, folder: Path, files: Files) -> None:
    """Put a table's images, depth and label maps under their own names into a folder, once each.

    Raises:
        InvalidInputError: a name leads out of the folder, or `files` is no policy.
        MissingFileError: a file is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys((*images.names, *(images.depth or ()), *(images.segmentation or ()))):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\0" in name:
            raise InvalidInputError(f"A file's name must lie in the images' folder to be written; got {name!r}.")
        if name and not (folder / name).is_symlink() and not (folder / name).exists():
            place_file(images.root / name, folder / name, files)
