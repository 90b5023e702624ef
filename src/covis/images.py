"""Images and Scene: what was photographed, from where, and who asks whom.

Both are frozen and validated on construction; neither opens an image. Units: metres, degrees clockwise from north,
pixels, seconds. Poses are camera-to-world with OpenCV axes (x right, y down, z forward).
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from covis.errors import DamagedFileError, InvalidInputError, MissingFileError
from covis.files import atomic_path, check_absent, check_header, digest, read_json, write_json
from covis.geometry import check_rigid

IMAGES_FORMAT, IMAGES_VERSION = "covis-images", 1
SCENE_FORMAT, SCENE_VERSION = "covis-scene", 1

_FLOATS = {"xy": 2, "heading": 0, "fov": 0, "reach": 0, "intrinsics": 4, "time": 0}
_INTEGERS = ("frame", "place")
_TEXTS = ("depth", "segmentation", "sequence")
_MAY_BE_UNKNOWN = ("heading", "time")
_UNITS = {
    "xy": "metres (east, north)",
    "heading": "degrees clockwise from north, [0, 360); NaN where unknown",
    "fov": "degrees, (0, 360]",
    "reach": "metres",
    "pose": "camera-to-world 4x4, row by row, metres; camera axes x right, y down, z forward",
    "intrinsics": "pixels (fx, fy, cx, cy)",
    "time": "seconds since 1970-01-01 UTC; NaN where unknown",
}


@dataclass(frozen=True, eq=False)
class Images:
    """A table of images; anything but `root` and `names` may be absent.

    Attributes:
        root: the folder that `names`, `depth` and `segmentation` are relative to.
        names: n file names, each once.
        xy: (n, 2) float64, metres east and north.
        heading: (n,) float64, degrees clockwise from north, in [0, 360); NaN where it is unknown.
        fov: (n,) float64, opening angle in degrees, in (0, 360].
        reach: (n,) float64, metres, > 0.
        pose: (n, 4, 4) float64, camera-to-world.
        intrinsics: (n, 4) float64, pixels: fx, fy, cx, cy.
        depth: n file names of depth maps.
        segmentation: n file names of label maps.
        time: (n,) float64, seconds since 1970-01-01 UTC; NaN where it is unknown.
        sequence: n names of the sequences that the images belong to.
        frame: (n,) int64, the number within its sequence.
        place: (n,) int64, the number of the place, for sets labelled by place.
        crs: the coordinate frame of `xy` ("EPSG:32633"), if it is known.
        flags: name -> (n,) bool, anything else that is true or false of an image ("panorama", "night").

    Raises:
        InvalidInputError: a column has the wrong length or shape, a value is not finite or out of its range, a name
            stands twice, or a pose is no rigid motion. The message names the image.

    >>> images = Images("photos", ["a.jpg", "b.jpg"], heading=[0, 90])
    >>> len(images), str(images.path(1)), float(images.select([1]).heading[0])
    (2, 'photos/b.jpg', 90.0)
    """

    root: Path
    names: tuple[str, ...]
    _: KW_ONLY
    xy: NDArray[np.float64] | None = None
    heading: NDArray[np.float64] | None = None
    fov: NDArray[np.float64] | None = None
    reach: NDArray[np.float64] | None = None
    pose: NDArray[np.float64] | None = None
    intrinsics: NDArray[np.float64] | None = None
    depth: tuple[str, ...] | None = None
    segmentation: tuple[str, ...] | None = None
    time: NDArray[np.float64] | None = None
    sequence: tuple[str, ...] | None = None
    frame: NDArray[np.int64] | None = None
    place: NDArray[np.int64] | None = None
    crs: str | None = None
    flags: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._set("root", Path(self.root))
        self._set("names", self._texts("names", self.names))
        _check_names(self.names, self.root)
        for name, width in _FLOATS.items():
            self._set(name, self._numbers(name, (width,) if width else ()))
        self._set("pose", self._numbers("pose", (4, 4)))
        for name in _INTEGERS:
            self._set(name, self._integers(name))
        for name in _TEXTS:
            if getattr(self, name) is not None:
                self._set(name, self._texts(name, getattr(self, name)))
        self._set("flags", {name: self._truths(name, value) for name, value in self.flags.items()})
        self._check_ranges()

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Images) and self.root == other.root and _same_columns(self, other)

    def __hash__(self) -> int:
        return hash((self.root, self.names))

    def __repr__(self) -> str:
        present = [
            f.name
            for f in dataclasses.fields(self)
            if f.name not in ("root", "names") and getattr(self, f.name) is not None and f.name != "flags"
        ]
        return f"Images({len(self)} in {str(self.root)!r}: {', '.join([*present, *self.flags]) or 'names alone'})"

    def path(self, row: int) -> Path:
        """Where the image of that row lies."""
        return self.root / self.names[row]

    def need(self, *columns: str) -> tuple[Any, ...]:
        """The columns that a function cannot do without, in the order asked for.

        Raises:
            InvalidInputError: one is absent; the message names it.
        """
        absent = [name for name in columns if getattr(self, name) is None]
        if absent:
            raise InvalidInputError(
                f"The images in {self.root} must have {' and '.join(absent)} for this; the layout they were read from gives none."
            )
        return tuple(getattr(self, name) for name in columns)

    def select(self, rows: ArrayLike) -> Images:
        """The images of these rows (indices or a boolean mask), in that order."""
        chosen = np.arange(len(self))[np.asarray(rows) if np.size(rows) else np.zeros(0, dtype=np.int64)]
        columns: dict[str, Any] = {}
        for name, value in self._columns().items():
            columns[name] = tuple(value[row] for row in chosen) if isinstance(value, tuple) else value[chosen]
        flags = {name: value[chosen] for name, value in self.flags.items()}
        return Images(self.root, tuple(self.names[row] for row in chosen), crs=self.crs, flags=flags, **columns)

    def same_files(self, other: Images) -> NDArray[np.int64]:
        """(n,) for each image here the row of the same file there, -1 where it is not there."""
        mine, theirs = (images.root.absolute().as_posix() for images in (self, other))
        if mine == theirs:  # the usual case, and names are all there is to compare
            there = {name: row for row, name in enumerate(other.names)}
            return np.array([there.get(name, -1) for name in self.names], dtype=np.int64)
        there = {f"{theirs}/{name}": row for row, name in enumerate(other.names)}
        return np.array([there.get(f"{mine}/{name}", -1) for name in self.names], dtype=np.int64)

    def digest(self) -> str:
        """A short hash of everything in the table except the root, so that a moved folder is the same set."""
        return digest(
            [self.names, self.crs, {k: _plain(v) for k, v in self._columns().items()}, {k: v.tolist() for k, v in self.flags.items()}]
        )

    def write(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the table as Parquet or CSV, as the suffix says, with version, root and units in its header; returns the path.

        Raises:
            InvalidInputError: the suffix is neither .parquet nor .csv.
            OutputExistsError: the file is there and `overwrite` is false.
        """
        path = check_absent(path, overwrite=overwrite)
        header = {
            "format": IMAGES_FORMAT,
            "version": IMAGES_VERSION,
            "rows": len(self),
            "root": self.root.as_posix(),
            "crs": self.crs,
            "units": _UNITS,
        }
        text = json.dumps(header, ensure_ascii=False)
        with atomic_path(path) as temporary:
            if path.suffix == ".parquet":
                buffer = io.BytesIO()  # polars has no one error for a full disk; Python has
                self._table().write_parquet(buffer, metadata={"covis": text})
                temporary.write_bytes(buffer.getbuffer())
            elif path.suffix == ".csv":
                temporary.write_text(f"# {text}\n{self._table().write_csv(quote_style='non_numeric')}", encoding="utf-8")
            else:
                raise InvalidInputError(f"A table of images must be called .parquet or .csv; got {path.name!r}.")
        return path

    @classmethod
    def read(cls, path: str | Path, *, root: str | Path | None = None) -> Images:
        """The inverse of `write`; `root` replaces the stored one where the folder was moved.

        Raises:
            MissingFileError: there is no such file.
            DamagedFileError: it is truncated, foreign, or of a newer version.
            InvalidInputError: a value breaks a rule of `Images`.
        """
        header, table = _read_table(Path(path))
        return cls(Path(header["root"] if root is None else root), crs=header.get("crs"), **_from_table(table, Path(path)))

    def _columns(self) -> dict[str, Any]:
        names = [*_FLOATS, "pose", *_INTEGERS, *_TEXTS]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def _table(self) -> pl.DataFrame:
        table: dict[str, Any] = {"name": self.names}
        for name, value in self._columns().items():
            if isinstance(value, np.ndarray) and value.ndim > 1:
                flat = value.reshape(len(self), np.prod(value.shape[1:], dtype=int))
                table |= {f"{name}_{i}": flat[:, i] for i in range(flat.shape[1])}
            else:
                table[name] = value
        return pl.DataFrame(table | {f"flag_{name}": value for name, value in self.flags.items()}, schema_overrides={"name": pl.String})

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _texts(self, name: str, value: Sequence[str]) -> tuple[str, ...]:
        texts = tuple(value)
        if isinstance(value, str) or not all(isinstance(text, str) for text in texts):
            raise InvalidInputError(f"The column {name} must be a sequence of str; got {type(value).__name__}.")
        if name != "names" and len(texts) != len(self.names):
            raise InvalidInputError(f"The column {name} must have one value for each of the {len(self.names)} images; got {len(texts)}.")
        return texts

    def _numbers(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
        value = getattr(self, name)
        if value is None:
            return None
        column = self._column(name, value, np.float64, shape)
        fit = np.isfinite(column) | (np.isnan(column) if name in _MAY_BE_UNKNOWN else False)
        bad = np.flatnonzero(~fit.all(axis=tuple(range(1, column.ndim))))
        if bad.size:
            raise InvalidInputError(
                f"Every {name} must be finite; {name} of {self.names[bad[0]]} in {self.root} is "
                f"{column[bad[0]].tolist()}. Mend the source or leave the image out."
            )
        return column

    def _integers(self, name: str) -> NDArray[np.int64] | None:
        value = getattr(self, name)
        if value is None:
            return None
        if not np.issubdtype(np.asarray(value).dtype, np.integer) and len(self):
            raise InvalidInputError(f"The column {name} must hold whole numbers; got {np.asarray(value).dtype}.")
        column: NDArray[np.int64] = self._column(name, value, np.int64, ())
        return column

    def _truths(self, name: str, value: ArrayLike) -> NDArray[np.bool_]:
        if not name or any(c in name for c in '"\r\n'):
            raise InvalidInputError(f"A flag's name must be one line without quotes; got {name!r}.")
        if np.asarray(value).dtype != np.bool_ and len(self):
            raise InvalidInputError(f"The flag {name!r} must hold true or false; got {np.asarray(value).dtype}.")
        flag: NDArray[np.bool_] = self._column(f"flags[{name!r}]", value, np.bool_, ())
        return flag

    def _column(self, name: str, value: ArrayLike, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
        try:
            column: NDArray[Any] = np.array(value, dtype=dtype)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"The column {name} must be numbers; {error}.") from error
        if column.shape != (len(self.names), *shape):
            raise InvalidInputError(
                f"The column {name} must have the shape {(len(self.names), *shape)}, one row an image; got {column.shape}."
            )
        column.setflags(write=False)
        return column

    def _check_ranges(self) -> None:
        rules: dict[str, tuple[str, Callable[[NDArray[np.float64]], Any]]] = {
            "heading": ("in [0, 360) degrees, or NaN where unknown", lambda v: np.isnan(v) | ((v >= 0) & (v < 360))),
            "fov": ("in (0, 360] degrees", lambda v: (v > 0) & (v <= 360)),
            "reach": ("more than 0 metres", lambda v: v > 0),
            "intrinsics": ("with focal lengths of more than 0 pixels", lambda v: (v[:, :2] > 0).all(axis=1)),
        }
        for name, (rule, holds) in rules.items():
            column = getattr(self, name)
            bad = np.flatnonzero(~holds(column)) if column is not None else np.array([], dtype=int)
            if bad.size:
                raise InvalidInputError(f"Every {name} must be {rule}; {self.names[bad[0]]} in {self.root} has {column[bad[0]]}.")
        if self.pose is not None:
            check_rigid(self.pose, names=[str(self.path(row)) for row in range(len(self))])


@dataclass(frozen=True)
class Scene:
    """Database and queries in one coordinate frame, with a name and a split.

    A training scene has the same images on both sides; a pair of an image with itself is never a pair.

    Raises:
        InvalidInputError: the two sides' coordinate frames differ, or the name is no plain word.
    """

    name: str
    split: str
    database: Images
    queries: Images

    def __post_init__(self) -> None:
        if self.database.crs != self.queries.crs:
            raise InvalidInputError(
                f"Both sides of scene {self.name!r} must share one coordinate frame; got {self.database.crs} and {self.queries.crs}."
            )
        if self.name in ("", ".", "..") or any(c in self.name for c in "/\\\n\0"):
            raise InvalidInputError(f"A scene's name must be usable as a folder name; got {self.name!r}.")

    @property
    def training(self) -> bool:
        """True where the same images stand on both sides."""
        return self.database is self.queries or self.database == self.queries

    def __repr__(self) -> str:
        return f"Scene({self.name!r}, {self.split!r}: {len(self.queries)} queries, {len(self.database)} database)"

    def write(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write a folder: `scene.json`, `database.parquet`, and `queries.parquet` unless it is a training scene; returns the path.

        Raises:
            OutputExistsError: the folder is there and `overwrite` is false.
        """
        path = check_absent(path, overwrite=overwrite)
        header = {"format": SCENE_FORMAT, "version": SCENE_VERSION, "name": self.name, "split": self.split, "training": self.training}
        with atomic_path(path) as folder:
            folder.mkdir()
            write_json(folder / "scene.json", header)
            self.database.write(folder / "database.parquet")
            if not self.training:
                self.queries.write(folder / "queries.parquet")
        return path

    @classmethod
    def read(cls, path: str | Path) -> Scene:
        """The inverse of `write`.

        Raises:
            MissingFileError: the folder, or one of its files, is not there.
            DamagedFileError: a file is truncated or foreign.
        """
        path = Path(path)
        header = read_json(path / "scene.json", kind=SCENE_FORMAT, version=SCENE_VERSION)
        database = Images.read(path / "database.parquet")
        queries = database if header.get("training") else Images.read(path / "queries.parquet")
        if not isinstance(header.get("name"), str) or not isinstance(header.get("split"), str):
            raise DamagedFileError(f"{path / 'scene.json'} must say the scene's name and split. Write the scene again.")
        return cls(header["name"], header["split"], database, queries)


_TO_GIVE_MAPS = (
    "Name them in the column segmentation of a table (the layout table); covis train, run, distill and sweep take the folder that "
    "covis segment wrote, too (--maps)."
)


class LabelMaps:
    """The label maps of a table of images, to be read in the photographs' place: `names` are those of the photographs.

    Args:
        images: with the column segmentation.

    Raises:
        InvalidInputError: the column is absent, or an image has no map; the message names it.

    >>> LabelMaps(Images("photos", ["a.jpg"], segmentation=["a.png"])).path(0).as_posix()
    'photos/a.png'
    """

    def __init__(self, images: Images) -> None:
        if images.segmentation is None:
            raise InvalidInputError(
                f"The images in {images.root} must have label maps (the column segmentation) for a network that reads them; they have "
                f"none. {_TO_GIVE_MAPS}"
            )
        if lacking := [name for name, file in zip(images.names, images.segmentation, strict=True) if not file]:
            raise InvalidInputError(
                f"Every image in {images.root} must have a label map; {len(lacking)} of {len(images)} have none, the first {lacking[0]}. "
                f"{_TO_GIVE_MAPS}"
            )
        self.root, self.names, self._files = images.root, images.names, images.segmentation

    def __len__(self) -> int:
        return len(self.names)

    def path(self, row: int) -> Path:
        """Where the label map of that row lies."""
        return self.root / self._files[row]


def files_of(images: Images, resize: str) -> Images | LabelMaps:
    """The files that a network reads: label maps where it brings them to its size as "labels" (`covis.pixels.Resize`), else photographs."""
    return LabelMaps(images) if resize == "labels" else images


def _check_names(names: tuple[str, ...], root: Path) -> None:
    if len(set(names)) == len(names) and all(names) and "\n" not in "".join(names):
        return
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidInputError(f"Every image must be named once; {name!r} stands twice among the images of {root}. Remove one.")
        if not name or "\n" in name:
            raise InvalidInputError(f"An image's name must be a file name in one line; got {name!r} among the images of {root}.")
        seen.add(name)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _same_columns(a: Images, b: Images) -> bool:
    mine, theirs = a._columns(), b._columns()
    if a.names != b.names or a.crs != b.crs or mine.keys() != theirs.keys() or a.flags.keys() != b.flags.keys():
        return False
    pairs = [(mine[k], theirs[k]) for k in mine] + [(a.flags[k], b.flags[k]) for k in a.flags]
    return all(np.array_equal(x, y, equal_nan=x.dtype.kind == "f") if isinstance(x, np.ndarray) else x == y for x, y in pairs)


def _read_table(path: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    if path.suffix not in (".parquet", ".csv"):
        raise InvalidInputError(f"A table of images must be called .parquet or .csv; got {path}.")
    try:
        if path.suffix == ".parquet":
            header = json.loads(pl.read_parquet_metadata(path).get("covis", "{}"))
            table = pl.read_parquet(path)
        else:
            first, _, rest = path.read_bytes().decode("utf-8").partition("\n")
            header = json.loads(first.removeprefix("#"))
            if not rest.endswith("\n"):
                raise ValueError("its last line has no end")
            overrides = dict.fromkeys(("name", *_TEXTS), pl.String)
            table = pl.read_csv(rest.encode("utf-8"), schema_overrides=overrides, infer_schema_length=None)
    except FileNotFoundError:
        raise MissingFileError(f"The table of images {path} must exist; there is no such file.") from None
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise DamagedFileError(f"{path} must be a covis table of images; it is truncated or foreign ({error}). Write it again.") from error
    check_header(header, path, kind=IMAGES_FORMAT, version=IMAGES_VERSION)
    if "root" not in header or header.get("rows", len(table)) != len(table):  # a table by hand may leave out how many rows it has
        raise DamagedFileError(
            f"{path} must say its root, and hold as many rows as its header says; it holds {len(table)}, the header says "
            f"{header.get('rows')}. It is truncated or edited: write it again."
        )
    return header, table


def _from_table(table: pl.DataFrame, path: Path) -> dict[str, Any]:
    if "name" not in table.columns or "root" in table.columns:
        raise DamagedFileError(f"{path} must have a column 'name'; found {', '.join(table.columns)}.")
    columns: dict[str, Any] = {"names": tuple(table["name"].to_list())}
    for name in (*_FLOATS, "pose"):
        width = 16 if name == "pose" else _FLOATS[name]
        parts = [f"{name}_{i}" for i in range(width)] if width else [name]
        lacking = [part for part in parts if part not in table.columns]
        if lacking and len(lacking) < len(parts):
            raise DamagedFileError(f"{path} must have all of the columns {', '.join(parts)} or none; {', '.join(lacking)} is missing.")
        if not lacking:
            block = table.select(parts).to_numpy()
            columns[name] = block.reshape(-1, 4, 4) if name == "pose" else block if width else block[:, 0]
    columns |= {name: table[name].to_numpy() for name in _INTEGERS if name in table.columns}
    columns |= {name: tuple(table[name].to_list()) for name in _TEXTS if name in table.columns}
    flags = {c.removeprefix("flag_"): table[c].to_numpy() for c in table.columns if c.startswith("flag_")}
    return columns | {"flags": flags}
