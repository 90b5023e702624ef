"""Descriptors that other programs wrote: .npy and .h5 files with names, as Descriptors of a scene's images.

Where vectors are looked for, and how a row finds its image, is the table of docs/evaluating.md.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.descriptors import Descriptors
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError, MissingFileError
from covis.files import digest, file_digest, map_array, read_text
from covis.hdf5 import opened
from covis.images import Images, Scene
from covis.predictions import Lookup, key

BLOCK = 4096
"""Rows that are read at a time."""
SUFFIXES = (".npy", ".h5", ".hdf5")
VECTORS, IN_GROUP = ("descriptors", "features", "vectors"), "global_descriptor"
"""What the array of vectors of an HDF5 file is called, beside one of names; and the one in a group an image (hloc)."""
FEATURES = {"queries": "queryfeats", "database": "mapfeats"}
"""How GCL's reference ends the names of its files."""

Vectors: TypeAlias = NDArray[np.floating[Any]]
Pair: TypeAlias = tuple[Descriptors, Descriptors]


def read_vectors(path: str | Path, scenes: Sequence[Scene]) -> list[Pair]:
    r"""Read the descriptors of scenes: a folder of covis, or the .npy or .h5 files of any other program.

    A row belongs to the image that its name names: exactly, as the end of the image's path (so that names may be relative
    to any folder above), or by key, the stem of both, where it is one image's alone. Rows of other images are left out, and
    counted in the history.

    Args:
        path: a folder, a file, or what the names of GCL's files begin with.
        scenes: whose images are described.

    Returns:
        (queries, database) a scene, in the order of its images. float64 becomes float32, float16 stays. Rows of an .npy that
        stand in that order stay a memory map; others are gathered into memory. The model is "foreign:" and a hash of the files.

    Raises:
        MissingFileError: no file of a known form is there.
        DamagedFileError: a file is truncated or foreign, holds objects (no pickle is ever loaded), or has not a name a row.
        InvalidInputError: an image has no vector or several, a vector is not finite, or a type or a width does not fit.
        MissingExtraError: an .h5 is given, and h5py is not installed.

    Warns:
        CovisWarning: a file has no names, so that its rows are taken to be a scene's images in their order.

    >>> import tempfile
    >>> images = Images("photos", ["a.jpg", "b.jpg"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(Path(folder, "descriptors.npy"), np.array([[2.0, 0.0], [1.0, 0.0]]))
    ...     _ = Path(folder, "descriptors.txt").write_text("b.jpg\na.jpg\n")
    ...     _, database = read_vectors(folder, [Scene("s", "test", images, images)])[0]
    >>> database.vectors.tolist(), database.names
    ([[1.0, 0.0], [2.0, 0.0]], ('a.jpg', 'b.jpg'))
    """
    path, sides = Path(path), _sides(scenes)
    folders = [path / side.scene.name / side.name for side in sides]
    if any((folder / "header.json").is_file() for folder in folders):
        return _paired(scenes, [Descriptors.load(folder) for folder in folders])
    files = _places(path, sides)
    groups = {file: [side for side, other in zip(sides, files, strict=True) if other == file] for file in dict.fromkeys(files)}
    sources = {file: _source(file) for file in groups}
    model = "foreign:" + digest([file_digest(file) for source in sources.values() for file in source.files])
    made = {id(side): one for file, group in groups.items() for side, one in zip(group, _read(sources[file], group, model), strict=True)}
    described = [made[id(side)] for side in sides]
    if len({one.dim for one in described}) > 1:
        widths = ", ".join(f"{file.name} {one.dim}" for file, one in zip(files, described, strict=True))
        raise InvalidInputError(f"All descriptors of an evaluation must be as wide; those in {path} are not: {widths}.")
    return _paired(scenes, described)


@dataclass(frozen=True, eq=False)
class _Side:
    """The images that a file must describe."""

    scene: Scene
    name: str

    @property
    def images(self) -> Images:
        return self.scene.database if self.name == "database" else self.scene.queries

    def __str__(self) -> str:
        return f"the {self.name} of scene {self.scene.name!r}"


@dataclass(frozen=True, eq=False)
class _Source:
    """A file of vectors as it stands.

    Attributes:
        files: it, and the one that holds its names.
        names: n; None where it has none.
        shape: (n, d).
        dtype: as stored.
        array: the memory map of an .npy; None of an .h5.
        inside: where the vectors are in an .h5: the name of one array, or one a row.
    """

    files: tuple[Path, ...]
    names: tuple[str, ...] | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    array: Vectors | None = None
    inside: str | tuple[str, ...] = ""

    def __post_init__(self) -> None:
        path, where = self.files[0], self.files[-1]
        if self.dtype.kind != "f" or self.dtype.itemsize not in (2, 4, 8):
            raise InvalidInputError(f"{path} must hold float64, float32 or float16 vectors; it holds {self.dtype}. Write floats.")
        if len(self.shape) != 2 or not self.shape[1]:
            raise InvalidInputError(f"{path} must hold one vector a row, (n, d); its shape is {tuple(self.shape)}.")
        if self.names is not None and len(self.names) != len(self):
            raise DamagedFileError(f"{where} must name each of the {len(self)} vectors of {path.name}; it holds {len(self.names)} names.")
        if self.names is not None and len(set(self.names)) < len(self):
            twice, count = Counter(self.names).most_common(1)[0]
            raise DamagedFileError(f"{where} must name every image once; {twice!r} stands {count} times. Remove the repeats.")

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, rows: NDArray[np.int64]) -> Vectors:
        """(m, d) float32 or float16: a piece of the memory map where that is all, else gathered, in the order of the file."""
        kind = np.dtype(np.float16 if self.dtype.itemsize == 2 else np.float32)
        if self.array is not None and self.array.dtype == kind and len(rows) and (np.diff(rows) == 1).all():
            return self.array[rows[0] : rows[-1] + 1]
        out = np.empty((len(rows), self.shape[1]), dtype=kind)
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused with its name
            if self.array is not None:
                _gather(self.array, rows, out)
            else:
                with opened(self.files[0], what="The descriptors") as file:
                    if isinstance(self.inside, str):
                        _gather(file[self.inside], rows, out)
                    else:
                        for place, row in enumerate(rows.tolist()):
                            out[place] = np.reshape(file[self.inside[row]][()], -1)
        return out


def _gather(array: Any, rows: NDArray[np.int64], out: Vectors) -> None:
    """Read the blocks of a file that hold any of these rows, one after the other."""
    order = np.argsort(rows, kind="stable")
    ordered, at = rows[order], 0
    while at < len(order):
        start = int(ordered[at])
        end = int(np.searchsorted(ordered, start + BLOCK))
        block = np.asarray(array[start : int(ordered[end - 1]) + 1])
        out[order[at:end]] = block[ordered[at:end] - start]
        at = end


def _sides(scenes: Sequence[Scene]) -> list[_Side]:
    return [_Side(scene, name) for scene in scenes for name in (("database",) if scene.training else ("queries", "database"))]


def _paired(scenes: Sequence[Scene], described: Sequence[Descriptors]) -> list[Pair]:
    left = iter(described)
    return [(one, one if scene.training else next(left)) for scene in scenes for one in (next(left),)]


def _places(path: Path, sides: Sequence[_Side]) -> list[Path]:
    """The file of each side."""
    if path.is_file():
        return [path] * len(sides)
    folder, start = (path, "*_") if path.is_dir() else (path.parent, f"{_literal(path.name)}_")  # what GCL's files begin with
    by_gcl = [[f"{start}{_literal(side.scene.name)}_{FEATURES[side.name]}.npy"] for side in sides]
    ways = [by_gcl, [[f"{start}{FEATURES[side.name]}.npy"] for side in sides]]
    if path.is_dir():
        own = [[f"{_literal(side.scene.name)}/{side.name}{suffix}" for suffix in SUFFIXES] for side in sides]
        of_all = [[f"{side.name}{suffix}" for suffix in SUFFIXES] for side in sides]
        ways = [own, by_gcl, of_all, ways[1], [[f"descriptors{suffix}" for suffix in SUFFIXES]] * len(sides)]
    for patterns in ways:
        found = [sorted(file for one in these for file in folder.glob(one)) for these in patterns]
        if not any(found):
            continue
        for files, these, side in zip(found, patterns, sides, strict=True):
            if len(files) != 1:
                raise InvalidInputError(
                    f"{path} must hold one file of descriptors for {side} ({' or '.join(these)}); it holds "
                    f"{', '.join(file.name for file in files) or 'none'}. Give the file itself, or what GCL's names begin with."
                )
        return [files[0] for files in found]
    scene = sides[0].scene.name if sides else "<scene>"
    raise MissingFileError(
        f"{path} must hold descriptors: {scene}/database/header.json (covis), {scene}/database.npy or .h5, database.npy or .h5, "
        f"descriptors.npy or .h5, or *_{scene}_mapfeats.npy (GCL's), and the same for queries; none of these is there. "
        "Look at the table in docs/evaluating.md."
    )


def _literal(name: str) -> str:
    """A name as a pattern that fits nothing else."""
    return "".join(f"[{one}]" if one in "*?[" else one for one in name)


def _source(path: Path) -> _Source:
    if path.suffix in SUFFIXES[1:]:
        return _h5_source(path)
    if path.suffix != ".npy":
        raise InvalidInputError(f"Descriptors of other programs must be an .npy or an .h5 file; got {path}.")
    array = map_array(path)
    listed = _names_file(path)
    files = (path,) if listed is None else (path, listed)
    return _Source(files, None if listed is None else _names(listed), array.shape, array.dtype, array)


def _names_file(path: Path) -> Path | None:
    """The names of an .npy: a text or JSON of the same stem; of one file of all, also names.txt."""
    stems = (path.stem, f"{path.stem}_names", *(("names",) if path.stem == "descriptors" else ()))
    return next((file for stem in stems for suffix in (".txt", ".json") if (file := path.with_name(stem + suffix)).is_file()), None)


def _names(path: Path) -> tuple[str, ...]:
    """A name a line; of a JSON a list, or the `im_paths` of GCL's index files."""
    text = read_text(path).removeprefix("\ufeff")
    if path.suffix == ".txt":
        return tuple(line.strip() for line in text.rstrip("\n").split("\n"))
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DamagedFileError(f"{path} must be a JSON list of names; it is truncated or of another kind ({error}).") from error
    names = value.get("im_paths") if isinstance(value, dict) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DamagedFileError(f"{path} must be a JSON list of names, or hold one as im_paths; it does not.")
    return tuple(names)


def _h5_source(path: Path) -> _Source:
    with opened(path, what="The descriptors") as file:
        arrays = dict(_arrays(file, deep=False))
        vectors = [name for name in VECTORS if name in arrays]
        if "names" in arrays and vectors:
            if len(vectors) > 1:
                raise InvalidInputError(f"{path} must hold one array of vectors beside its names; it holds {' and '.join(vectors)}.")
            names = tuple(_text(path, one) for one in np.reshape(arrays["names"][()], -1).tolist())
            stored = arrays[vectors[0]]
            return _Source((path,), names, stored.shape, stored.dtype, inside=vectors[0])
        inside, shapes = [], Counter[Any]()
        for name, one in _arrays(file):
            if name.endswith(f"/{IN_GROUP}"):
                inside.append(name)
                shapes[one.shape[one.shape[:1] == (1,) and len(one.shape) > 1 :], one.dtype] += 1
    if not inside:
        raise InvalidInputError(
            f"{path} must hold an array names and one of {', '.join(VECTORS)}, or a group an image with the array {IN_GROUP}; it holds "
            "neither. Write one of these."
        )
    if len(shapes) > 1:
        raise InvalidInputError(f"{path} must hold vectors of one width and type; it holds {', '.join(f'{s} {t}' for s, t in shapes)}.")
    (shape, dtype), *_ = shapes
    return _Source((path,), tuple(name.removesuffix(f"/{IN_GROUP}") for name in inside), (len(inside), *shape), dtype, inside=tuple(inside))


def _arrays(group: Any, prefix: str = "", *, deep: bool = True) -> Iterator[tuple[str, Any]]:
    """(path, array) of what a group holds; links out of the file, or back into it, are not followed."""
    for name in group:
        one = group[name] if type(group.get(name, getlink=True)).__name__ == "HardLink" else None
        if getattr(one, "shape", None) is not None:
            yield prefix + name, one
        elif deep and hasattr(one, "keys"):
            yield from _arrays(one, f"{prefix}{name}/")


def _text(path: Path, name: Any) -> str:
    try:
        return name.decode("utf-8") if isinstance(name, bytes) else str(name)
    except UnicodeDecodeError as error:
        raise DamagedFileError(f"{path}: a name must be UTF-8 text; {name!r} is not.") from error


def _read(source: _Source, sides: Sequence[_Side], model: str) -> list[Descriptors]:
    """The descriptors of all images that a file must describe."""
    rows = [_in_order(source, sides)] if source.names is None else [_by_name(source, side) for side in sides]
    story = {"file": source.files[0].name, "found": "in order" if source.names is None else "by name", "dtype": str(source.dtype)}
    story |= {"others": len(source) - len(np.unique(np.concatenate(rows)))}  # type: ignore[dict-item] # a count beside words
    if source.names is not None:
        _check_apart(source, sides, rows)
    made = [Descriptors(source.take(one), side.images.names, model, {"foreign": story}) for one, side in zip(rows, sides, strict=True)]
    for one in made:
        one.check_finite()
    return made


def _in_order(source: _Source, sides: Sequence[_Side]) -> NDArray[np.int64]:
    path, side = source.files[0], sides[0]
    if len(sides) > 1 or len(source) != len(side.images):
        wanted = " and ".join(f"{side} ({len(side.images)} images)" for side in sides)
        raise InvalidInputError(
            f"{path} must come with names, a line a row, in {path.with_suffix('.txt').name}: it holds {len(source)} vectors, and is to "
            f"describe {wanted}. Only the images of one side, all of them and in their order, need none."
        )
    warnings.warn(
        f"{path} has no names ({path.with_suffix('.txt').name}); its {len(source)} rows are taken to be {side} in the order that the "
        "data was read in. In another order every score is wrong.",
        CovisWarning,
        stacklevel=4,
    )
    return np.arange(len(source))


_ELSEWHERE = -4
_WHY = {-3: "its key is that of several vectors", _ELSEWHERE: "the one of its key lies in another folder"}


def _by_name(source: _Source, side: _Side) -> NDArray[np.int64]:
    """(n,) the row of each image."""
    assert source.names is not None
    images, table = side.images, dict(zip(source.names, range(len(source)), strict=True))
    rows = np.array([table.get(name, -1) for name in images.names], dtype=np.int64)
    for place in np.flatnonzero(rows < 0).tolist():
        rows[place] = next((table[end] for end in _ends(images.path(place)) if end in table), -1)
    left = np.flatnonzero(rows < 0)
    if len(left):
        rows[left] = Lookup(source.names).rows([key(images.names[place]) for place in left])
        # A key says nothing against a folder: night/001.jpg is not the vector of day/001.jpg.
        elsewhere = [place for place in left.tolist() if rows[place] >= 0 and "/" in source.names[rows[place]]]
        rows[elsewhere] = _ELSEWHERE
    lacking = np.flatnonzero(rows < 0)
    if lacking.size:
        first = int(lacking[0])
        why = _WHY.get(int(rows[first]), "by its name, its path and its key there is none")
        raise InvalidInputError(
            f"{source.files[-1]} must name every image of {side}; {lacking.size} of {len(images)} have no vector, the first is "
            f"{images.names[first]!r} ({why}; the file's first name is {source.names[0] if source.names else ''!r}). Describe them too, "
            "or read the data without them."
        )
    return rows


def _ends(path: Path) -> Iterator[str]:
    """The path, then what is left of it from each folder on."""
    parts = path.absolute().as_posix().split("/")
    return ("/".join(parts[start:]) for start in range(len(parts)))


def _check_apart(source: _Source, sides: Sequence[_Side], rows: Sequence[NDArray[np.int64]]) -> None:
    """No vector may be that of two images."""
    owner: dict[int, Path] = {}
    for side, found in zip(sides, rows, strict=True):
        for place, row in enumerate(found.tolist()):
            path = side.images.path(place)
            if owner.setdefault(row, path) != path:
                raise InvalidInputError(
                    f"{source.files[-1]}: {source.names[row] if source.names else row!r} must mean one image; it could be {owner[row]} and "
                    f"{path}. Write names that tell them apart, such as paths relative to a folder above both."
                )
