"""What GCL's reference leaves in its results folder, in and out: features and predictions, and where files lie.

| file | what | here |
|---|---|---|
| `<name>[_<city>]_{queryfeats,mapfeats}[_whiten_<d>].npy` | (n, d) float64 that holds float32 values | `Descriptors` |
| `<name>[_<city>]_distances.npy` (2021) | (queries, map) float16 Euclidean distances | `covis.datasets.gcl.distances` |
| `<name>_predictions.npy` | (queries, 30) whole numbers: rows of the map, best first | `Rankings` |
| `<name>_predictions.txt`, `<name>_retrieved*.csv` | a line a query: its key, then those found | `covis.predictions.Predictions` |
| `<name>_scores.txt` | `k,percent` a line, two decimals | `covis.datasets.gcl.scores` |
| `<name>_recall.txt` (2021) | `k,share` a line, `#` begins a comment | the same |
| `<name>_result*.txt`, `<name>_val_results.txt` | `all_recall@1: 0.703` a line | the same |

None of the arrays has names: rows are the images of the JSON indexes, in their order, panoramas included. Here they are those of a
scene in the order in which it was read, and the counts must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.datasets.gcl.distances import check_rows, matrix_of, read_distances
from covis.descriptors import Descriptors
from covis.errors import InvalidInputError, MissingFileError
from covis.files import atomic_path, check_absent, digest, file_digest, write_text
from covis.images import Scene
from covis.rankings import Rankings

K = 30
"""How many the reference's predictions name."""
Kind: TypeAlias = Literal["predictions", "distances"]
Pair: TypeAlias = tuple[Descriptors, Descriptors]


def result_files(path: str | Path, scenes: Sequence[Scene], kind: Kind) -> list[Path]:
    """The files of one kind, one a scene: the file itself, or those in a folder, or what their names begin with.

    Raises:
        MissingFileError: a scene has none.
        InvalidInputError: a scene has several, or one file is given for several scenes.
    """
    path = Path(path)
    if path.is_file():
        if len(scenes) != 1:
            raise InvalidInputError(
                f"{path} is of one scene; the data has {len(scenes)}: {', '.join(scene.name for scene in scenes)}. Give what the names of "
                "their files begin with, or choose one scene."
            )
        return [path]
    folder, start = (path, "*_") if path.is_dir() else (path.parent, f"{_literal(path.name)}_")
    files = []
    for scene in scenes:
        patterns = [f"{start}{_literal(scene.name)}_{kind}.npy", *([f"{start}{kind}.npy"] if len(scenes) == 1 else [])]
        found = next((sorted(folder.glob(one)) for one in patterns if any(folder.glob(one))), [])
        if not found:
            raise MissingFileError(f"{path} must lead to {' or '.join(patterns)}, for scene {scene.name!r}; there is none in {folder}.")
        if len(found) > 1:
            said = ", ".join(one.name for one in found)
            raise InvalidInputError(
                f"{path} must lead to one file for scene {scene.name!r}; it leads to {said}. Give the start of its name."
            )
        files += found
    return files


def read_rankings(path: str | Path, scenes: Sequence[Scene], *, k: int | Sequence[int]) -> list[Rankings]:
    """Read the predictions or distances of scenes, which the end of the file's name tells apart.

    Args:
        path: `…_predictions.npy` or `…_distances.npy`; of several scenes what stands before `_<scene>_distances.npy`, or their folder.
        scenes: whose images are ranked.
        k: of distances, how many of the nearest; one number, or one a scene.

    Returns:
        A ranking a scene.

    Raises:
        CovisError: as of `result_files`, `read_predictions` and `read_distances`.
    """
    path = Path(path)
    depths = [k] * len(scenes) if isinstance(k, int) else list(k)
    kind: Kind = "predictions" if path.name.endswith("predictions.npy") else "distances"
    files = result_files(path, scenes, kind)
    if kind == "predictions":
        return [read_predictions(file, scene) for file, scene in zip(files, scenes, strict=True)]
    return [read_distances(file, scene).rankings(deep) for file, scene, deep in zip(files, scenes, depths, strict=True)]


def read_predictions(path: str | Path, scene: Scene) -> Rankings:
    """Read a `_predictions.npy`: rows of the database, best first; -1 is what FAISS has for nothing found.

    Returns:
        Rankings of the scene's images, without distances.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is truncated or foreign, or holds objects: no pickle is ever loaded.
        InvalidInputError: it holds no whole numbers, another number of rows than there are queries, or a row of the database that
            there is not, or twice.
    """
    array = matrix_of(path, "iu", "whole numbers, (queries, k)")
    check_rows(path, array, scene.queries, "queries")
    try:
        rows = np.asarray(array).astype(np.int64)
        history = {"predictions": Path(path).name}
        return Rankings(rows, np.full(rows.shape, np.nan), scene.queries.names, scene.database.names, history)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error} Is it of scene {scene.name!r}?") from error


def write_predictions(rankings: Rankings, path: str | Path, *, k: int = K, overwrite: bool = False) -> Path:
    """Write rankings as a `_predictions.npy`, (queries, k) int64: the inverse of `read_predictions` but for the distances.

    Raises:
        InvalidInputError: the rankings hold what is no image of the database (-1), or fewer than k though the database has more.
        OutputExistsError: the file is there and `overwrite` is false.
    """
    return _save(_full(rankings, k), path, overwrite=overwrite)


def write_retrieved(rankings: Sequence[Rankings], path: str | Path, *, k: int = K, overwrite: bool = False) -> Path:
    """Write rankings of cities as one `_predictions.txt`: a line a query, keys alone, the cities one after the other.

    A key is a file's name up to its first dot, as the reference has it.

    Raises:
        InvalidInputError: two images have one key, or a key has white space or a #; or as in `write_predictions`.
        OutputExistsError: the file is there and `overwrite` is false.
    """
    path = check_absent(path, overwrite=overwrite)
    queries: list[str] = []
    searched: list[str] = []
    lines = []
    for found in rankings:
        asked, there = (_keys(names) for names in (found.query_names, found.database_names))
        queries += asked
        searched += there
        lines += [" ".join([one, *(there[row] for row in rows)]) for one, rows in zip(asked, _full(found, k).tolist(), strict=True)]
    for keys in (queries, searched):
        _check_keys(keys)
    return write_text(path, "\n".join(lines) + "\n")


def read_features(path: str | Path, scenes: Sequence[Scene], *, whitened: int | None = None) -> list[Pair]:
    """Read features in the order of the images, `<path>[_<scene>]_queryfeats.npy` and `_mapfeats.npy`.

    `covis.vector_files.read_vectors` reads the plain ones too, and by names where there are any; this also those that `apply_pca.py`
    whitened, which say so in their history and are not whitened again.

    Args:
        path: what the names begin with (`results/MSLS/val/MSLS_resnet50_GeM_480_GCL`).
        scenes: whose images they describe.
        whitened: the number of dimensions, of `…_whiten_<d>.npy`; None: those that were not whitened.

    Returns:
        (queries, database) a scene; float64 becomes float32.

    Raises:
        MissingFileError: a file is not there.
        DamagedFileError: one is truncated or foreign, or holds objects: no pickle is ever loaded.
        InvalidInputError: one holds no floats, another number of rows than there are images, or a number that is not finite.
    """
    end = "" if whitened is None else f"_whiten_{whitened}"
    files = [_feature_files(Path(path), scene, end, single=len(scenes) == 1) for scene in scenes]
    model = "foreign:" + digest([file_digest(file) for pair in files for file in pair])
    dtype = str(matrix_of(files[0][0], "f", "floats, a vector a row").dtype) if files else ""
    history: dict[str, Any] = {"foreign": {"file": f"{Path(path).name}{end}", "found": "in order", "dtype": dtype, "others": 0}}
    if whitened is not None:
        history["whitened"] = {"fitted_on": "database, by GCL's apply_pca.py", "dim": whitened}
    made = []
    for pair, scene in zip(files, scenes, strict=True):
        sides = []
        for file, images in zip(pair, (scene.queries, scene.database), strict=True):
            array = matrix_of(file, "f", "floats, a vector a row")
            check_rows(file, array, images, "images")
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused with its name
                sides.append(Descriptors(np.asarray(array).astype(np.float32), images.names, model, history))
            sides[-1].check_finite()
        made.append((sides[0], sides[1]))
    return made


def write_features(
    described: Sequence[Pair], scenes: Sequence[Scene], path: str | Path, *, by_scene: bool | None = None, overwrite: bool = False
) -> list[Path]:
    """Write descriptors as the reference's features, float64: the inverse of `read_features`.

    Args:
        described: (queries, database) a scene, in the order of its images.
        scenes: theirs.
        path: what the names begin with.
        by_scene: `<path>_<scene>_queryfeats.npy`, as the reference has for MSLS; None: where there are several scenes.
        overwrite: replace files that are there.

    Returns:
        The paths; of whitened descriptors they end in `_whiten_<d>.npy`.

    Raises:
        InvalidInputError: descriptors are not those of a scene's images, in their order, or one is not finite.
        OutputExistsError: a file is there and `overwrite` is false.
    """
    named = len(scenes) > 1 if by_scene is None else by_scene
    if len(scenes) > 1 and not named:
        raise InvalidInputError("The features of several scenes must go to files of their own; give by_scene=True.")
    texts: list[tuple[Path, Descriptors]] = []
    for pair, scene in zip(described, scenes, strict=True):
        for one, images, side in zip(pair, (scene.queries, scene.database), ("queryfeats", "mapfeats"), strict=True):
            if one.names != images.names:
                raise InvalidInputError(
                    f"{one} must describe all images of scene {scene.name!r} ({side}), in their order: the files have no names."
                )
            one.check_finite()
            end = f"_whiten_{one.dim}" if "whitened" in one.history else ""
            file = Path(f"{path}_{scene.name}_{side}{end}.npy" if named else f"{path}_{side}{end}.npy")
            texts.append((check_absent(file, overwrite=overwrite), one))
    return [_save(np.asarray(one.vectors).astype(np.float64), file, overwrite=overwrite) for file, one in texts]


def _feature_files(path: Path, scene: Scene, end: str, *, single: bool) -> tuple[Path, Path]:
    found = []
    for side in ("queryfeats", "mapfeats"):
        names = [f"{path.name}_{scene.name}_{side}{end}.npy", *([f"{path.name}_{side}{end}.npy"] if single else [])]
        file = next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)
        if file is None:
            raise MissingFileError(
                f"{path.parent} must hold {' or '.join(names)}; it does not. Give what the names of the files begin with."
            )
        found.append(file)
    return found[0], found[1]


def _full(rankings: Rankings, k: int) -> NDArray[np.int64]:
    """(q, k) rows, or as many as the database has."""
    rows = rankings.rows[:, :k]
    if rows.shape[1] < min(k, len(rankings.database_names)):
        raise InvalidInputError(f"Rankings must name {k} images a query to be written so; {rankings} do not. Search deeper (--k {k}).")
    nothing = np.flatnonzero((rows < 0).any(axis=1))
    if nothing.size:
        raise InvalidInputError(
            f"The ranking of {rankings.query_names[nothing[0]]} holds what is no image of the database (-1), which the reference cannot "
            "read."
        )
    return rows


def _keys(names: Sequence[str]) -> list[str]:
    return [name.rpartition("/")[2].partition(".")[0] for name in names]


def _check_keys(keys: Sequence[str]) -> None:
    """Each key must be one word, and stand once."""
    seen: set[str] = set()
    for key in keys:
        if key in seen or len(key.split()) != 1 or "#" in key:
            raise InvalidInputError(
                f"A prediction text of the reference holds keys, files' names up to their first dot, each one word and of one image; "
                f"{key!r} is not. Write a _predictions.npy."
            )
        seen.add(key)


def _save(array: NDArray[Any], path: str | Path, *, overwrite: bool) -> Path:
    with atomic_path(check_absent(path, overwrite=overwrite)) as temporary, temporary.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
    return Path(path)


def _literal(name: str) -> str:
    """A name as a pattern that fits nothing else."""
    return "".join(f"[{one}]" if one in "*?[" else one for one in name)
