"""GCL's JSON indexes as files: which of them belong together, by their names or as the caller says, and what one holds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.datasets.msls import CITIES, city_folder
from covis.datasets.pose_orders import ORDERS as POSES
from covis.errors import CovisError, CovisWarning, DamagedFileError, InvalidInputError, MissingFileError
from covis.files import read_json

ORDERS = {name: POSES[name] for name in ("7scenes", "tb-places", "robotcar", "cmu")}
"""Data set whose indexes hold poses -> what the seven numbers of one are."""
DATASETS = ("msls", *ORDERS, "pairs")
PAIRED = ("pitts", "tokyo247", "tokyotm")
"""What a writer calls those of `pairs`, which differ by their files' names alone."""
_PLAIN = {"7scenes": [("train", "test", "")], "robotcar": [("reference", "test", "")], "cmu": [("reference", "test", "")]}


@dataclass(frozen=True)
class Pair:
    """The indexes of one scene; `queries` is None where the database asks itself."""

    name: str
    database: Path
    queries: Path | None


def dataset_of(root: Path) -> str:
    """The data set, where the names of its files tell it."""

    def has(*patterns: str) -> bool:
        return any(any(root.glob(pattern)) for pattern in patterns)

    city = root.parent.name in ("train_val", "test") and has("database.json", "query.json")
    if city or has("train_val/*/database.json", "test/*/database.json"):
        return "msls"
    if not has("reference.json"):
        if has("train.json", "*/train.json"):
            return "7scenes"
        if has("database.json", "*_db.json"):
            return "pairs"
    raise InvalidInputError(
        f"The data set of {root} must be said, dataset= one of {', '.join(DATASETS)}: its files' names do not tell it, and the orders "
        "of their poses differ."
    )


def city_pairs(root: Path, split: str, cities: str | Sequence[str] | None) -> list[Pair]:
    """The pairs of the cities of MSLS that are named, or that are there of the split's."""
    if (root / "database.json").is_file() or (root / "query.json").is_file():
        return [Pair(root.name, _there(root / "database.json"), _there(root / "query.json"))]
    named = [part.strip() for part in cities.split(",") if part.strip()] if isinstance(cities, str) else list(cities or ())
    found = sorted(path.parent.name for part in ("train_val", "test") for path in root.glob(f"{part}/*/database.json"))
    chosen = named or [city for city in CITIES[split] if city in found]
    if not chosen:
        raise MissingFileError(
            f"{root} must hold indexes of a city of the {split} split, as {CITIES[split][0]}; found those of "
            f"{', '.join(found) or 'none'}. Say another split, or cities= for what is there."
        )
    if not named and split != "train" and len(chosen) < len(CITIES[split]):
        text = f"{root} holds {', '.join(chosen)} of the {split} split ({', '.join(CITIES[split])}); scores are not the benchmark's."
        warnings.warn(f"{text} Name the cities to say that this is meant.", CovisWarning, stacklevel=3)
    folders = [city_folder(root, city) for city in dict.fromkeys(chosen)]
    return [Pair(folder.name, _there(folder / "database.json"), _there(folder / "query.json")) for folder in folders]


def file_pairs(root: Path, split: str, dataset: str) -> list[Pair]:
    """The files that belong together, by their names, in a folder and those in it."""
    pairs: list[Pair] = []
    others = {"train", "val", "test"} - {split}
    for folder in [root, *sorted(root.glob("*/"))]:
        files = {path.stem: path for path in sorted(folder.glob("*.json"))}
        stems = [stem.removesuffix("_db") for stem in files if stem.endswith("_db") and not others & set(stem.split("_"))]
        known = _PLAIN.get(dataset) or [("database", "query", folder.name), *((f"{stem}_db", f"{stem}_q", stem) for stem in stems)]
        for database, queries, name in known:
            if database not in files or (dataset == "7scenes" and split != "train" and queries not in files):
                continue  # a room without a test split is nothing to test on
            asked = None if split == "train" else _there(folder / f"{queries}.json")
            pairs.append(Pair(name or folder.name, files[database], asked))
        if dataset == "tb-places" and folder == root:
            taken = {"database", "query"} | {f"{stem[:-3]}_{side}" for stem in files if stem.endswith("_db") for side in ("db", "q")}
            pairs += [Pair(stem, path, None) for stem, path in files.items() if stem not in taken]
    if not pairs:
        held = sorted(path.relative_to(root).as_posix() for pattern in ("*.json", "*/*.json") for path in root.glob(pattern))
        raise MissingFileError(
            f"{root} must hold indexes of {dataset} for the {split} split; found {', '.join(held[:6]) or 'no JSON file'}. Is this the "
            "right folder, split and dataset?"
        )
    return pairs


def named_pair(root: Path, split: str, database: str | None, queries: str | None) -> Pair:
    """The files that the caller names."""
    folder = root if root.is_dir() else root.parent
    if root.is_file() == (database is not None):
        raise InvalidInputError("The database's index must be said once: as the root itself, or as database= in the root's folder.")
    searched = root if database is None else _there(folder / database)
    asked = None if queries is None or split == "train" else _there(folder / queries)
    return Pair(searched.stem if queries is None else f"{Path(queries).stem}_{searched.stem}", searched, asked)


def _there(path: Path) -> Path:
    if not path.is_file():
        raise MissingFileError(f"The index {path} must be there; there is no such file. Make it, or name another.")
    return path


def home(index: Path, dataset: str) -> Path:
    """The folder that an index's paths begin in."""
    above = index.parents
    return above[min({"msls": 2, "7scenes": 1}.get(dataset, 0), len(above) - 1)]


def index_of(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        return read_json(path)
    except CovisError:
        raise
    except ValueError as error:  # a whole number of thousands of digits
        raise DamagedFileError(f"{path} must be a JSON object; {error}. Make the index again.") from error


def names_of(path: Path, index: dict[str, Any]) -> list[str]:
    """The names in `im_paths`, each of them text in one line."""
    names = index.get("im_paths")
    if not isinstance(names, list):
        raise DamagedFileError(f"{path} must hold a list 'im_paths', as GCL's indexes do; it holds {', '.join(index) or 'nothing'}.")
    for row, name in enumerate(names):
        if not isinstance(name, str) or not name or "\n" in name or "\0" in name or name.encode("utf-8", "ignore").decode() != name:
            raise DamagedFileError(f"{path}, row {row} of im_paths (from 0): a path must be text in one line; found {name!r}.")
    return names


def stamps_of(path: Path, names: list[str]) -> NDArray[np.float64]:
    """The month of each name in seconds, of the fourth part of its path behind one letter: year and month, six digits."""
    months = np.empty(len(names))
    for row, name in enumerate(names):
        stamp = [*name.split("/"), "", "", "", ""][3][1:]
        if not (stamp.isascii() and stamp.isdigit() and len(stamp) == 6 and 1 <= int(stamp[4:]) <= 12 and int(stamp[:4]) >= 1):
            raise DamagedFileError(
                f"{path}, row {row} of im_paths (from 0): a path of Tokyo Time Machine must have year and month as its fourth part, behind "
                f"one letter (a/b/c/x201107/…); found {name!r}. Read it as dataset=pairs to do without."
            )
        months[row] = datetime(int(stamp[:4]), int(stamp[4:]), 1, tzinfo=UTC).timestamp()
    return months


def numbers_of(path: Path, index: dict[str, Any], names: list[str], *, key: str, order: str) -> NDArray[np.float64]:
    """The rows of numbers under a key, one for each name; null is NaN in the last place of `loc`."""
    rows, width = index[key], len(order.split())
    if not isinstance(rows, list) or len(rows) != len(names):
        found = f"{len(rows)} rows" if isinstance(rows, list) else f"a {type(rows).__name__}"
        raise DamagedFileError(f"{path}: {key} must be a list with a row for each of the {len(names)} im_paths; found {found}.")
    values = np.empty((len(rows), width))
    for number, row in enumerate(rows):
        known = (
            [np.nan if value is None and key == "loc" and i == 2 else value for i, value in enumerate(row)] if isinstance(row, list) else []
        )
        try:
            if len(known) != width or not all(type(value) in (int, float) for value in known):
                raise ValueError
            values[number] = known
        except (ValueError, OverflowError):
            raise DamagedFileError(
                f"{path}, row {number} of {key} (from 0; {names[number]}): a row must be {width} numbers, {order}; found {repr(row)[:80]}."
            ) from None
    return values
