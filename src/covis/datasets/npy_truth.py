"""Ground truth as numpy arrays of indices: which database images are right for each query, by their places in two lists.

    (q,) objects        the indices of each query (gsv-cities, OpenVPRLab, SALAD, VLAD-BuFF): a list or an array each
    (q, 1) numbers      one index a query
    (q, w) numbers      the indices of each query, filled up with -1; never two columns. Ours: no pickle is needed
    (n, 2) objects      VPR-Bench's: the query's index, and its list
    (q, d) truths       a matrix

An array of objects that is rectangular is taken for what it holds: whole numbers, or (q, 1) lists. How it is read:
`covis.datasets.object_arrays`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from covis.datasets.object_arrays import read_array
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError
from covis.files import atomic_path
from covis.images import Scene
from covis.labels import Labels, self_pairs

Form: TypeAlias = Literal["auto", "lists", "matrix", "vpr-bench"]
Beyond: TypeAlias = Literal["stop", "drop"]
FORMS = ("auto", "lists", "matrix", "vpr-bench")
RULE = "ground-truth"


def read_truth(
    path: str | Path, *, queries: int, database: int, form: Form = "auto", transposed: bool = False, beyond: Beyond = "stop"
) -> sparse.csr_array:
    """Read which database images are right for each query from a .npy file, without trusting a pickle.

    Args:
        path: the file.
        queries: how many queries it must speak of.
        database: how many database images there are; every index must be below.
        form: "lists" of indices, a "matrix" of truths, or "vpr-bench" (pairs of a query's index and its list); "auto" takes
            truths as a matrix, objects in two columns with lists in the second as VPR-Bench's, everything else as lists; what may be
            two of these is refused.
        transposed: the matrix is database x queries; no other form can be.
        beyond: indices that no database image has (those of VPR-Bench's 17 Places and Gardens Point run over the end):
            "stop" or "drop".

    Returns:
        (queries, database) CSR bool.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is no .npy file of numbers, text and lists.
        InvalidInputError: it speaks of another number of queries, an index is none or stands twice in a list, or two forms would
            fit; the message says where.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "gt.npy"
    ...     np.save(file, np.array([[1], [0]]))
    ...     read_truth(file, queries=2, database=3).toarray()
    array([[False,  True, False],
           [ True, False, False]])
    """
    for name, value, known in (("form", form, FORMS), ("policy beyond", beyond, ("stop", "drop"))):
        if value not in known:
            raise InvalidInputError(f"The {name} must be one of {', '.join(known)}; got {value!r}.")
    array = _plain(read_array(path))
    if form == "auto":
        form = _form_of(array, path, (queries, database), transposed=transposed)
    if transposed and form != "matrix":
        raise InvalidInputError(f"Only a matrix can be transposed; {path} is read as {form}. Say form=matrix, or leave transposed out.")
    if form == "matrix":
        return _matrix(array, path, (queries, database), transposed=transposed)
    rows = _by_query(array, path, queries) if form == "vpr-bench" else list(np.atleast_1d(array))
    if len(rows) != queries or not array.ndim:
        raise InvalidInputError(
            f"{path} must say the right images of {queries:,} queries; its shape is {array.shape}. Is it the truth of these queries? Where "
            "it is of some of them alone, say which (asked: the file called …_qIdx.npy)."
        )
    return _checked([_indices(row, path, place) for place, row in enumerate(rows)], path, (queries, database), beyond)


def write_truth(path: str | Path, positives: sparse.csr_array) -> Path:
    """Write which database images are right as one plain array, (q, w) int64: indices in order, filled up with -1.

    One index a query makes one column, as others write it. There are never two columns, which could be pairs: two indices
    at most make three columns, the last of -1.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = write_truth(Path(folder) / "gt.npy", sparse.csr_array([[True, True], [False, True]]))
    ...     np.load(file).tolist()
    [[0, 1, -1], [1, -1, -1]]
    """
    positives = sparse.csr_array(positives, dtype=bool, copy=True)
    positives.eliminate_zeros()
    positives.sort_indices()
    counts = np.diff(positives.indptr)
    width = max(1, int(counts.max(initial=0)))
    table = np.full((len(counts), 3 if width == 2 else width), -1, dtype=np.int64)
    rows = np.repeat(np.arange(len(counts)), counts)
    table[rows, np.arange(positives.nnz) - positives.indptr[rows]] = positives.indices
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, table, allow_pickle=False)
    return Path(path)


def read_indices(path: str | Path, *, among: int) -> NDArray[np.int64]:
    """Read a list of places in another list (…_qIdx.npy): different whole numbers below `among`.

    Raises:
        InvalidInputError: it is no such list; the message says where.
    """
    array = read_array(path)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InvalidInputError(f"{path} must be one list of whole numbers; it is {array.dtype} of the shape {array.shape}.")
    bad = np.flatnonzero((array < 0) | (array >= among))
    if bad.size:
        raise InvalidInputError(f"{path}: every index must be one of the {among:,} images, from 0 on; entry {bad[0]} is {array[bad[0]]}.")
    if len(np.unique(array)) != len(array):
        raise InvalidInputError(f"{path} must name each image once; it names {len(array) - len(np.unique(array))} again.")
    return array.astype(np.int64)


def read_names(path: str | Path) -> tuple[str, ...]:
    """Read a list of names from a .npy file: an array of text, or of objects that are all text.

    Raises:
        DamagedFileError: it is no one-dimensional array of text; the message says where.
    """
    array = read_array(path)
    names = tuple(np.atleast_1d(array).tolist())
    odd = next((f"entry {place} is {_shown(name)}" for place, name in enumerate(names) if not _is_text(name)), None)
    if array.ndim != 1 or array.dtype.kind not in "UO" or odd:
        what = odd if array.ndim == 1 and odd else f"it is {array.dtype} of the shape {array.shape}"
        raise DamagedFileError(f"{path} must be one list of image names; {what}.")
    return names


def truth_labels(
    path: str | Path,
    scenes: Sequence[Scene],
    *,
    asked: NDArray[np.int64] | None = None,
    form: Form = "auto",
    transposed: bool = False,
    beyond: Beyond = "stop",
) -> list[Labels]:
    """Labels of 1 where a .npy file says that a database image is right, and 0 elsewhere.

    Its rows and indices count images as they were listed: the scenes must have been read without leaving any out.

    Args:
        path: the file, as `read_truth` takes it.
        scenes: one, or several in the order in which its rows and its indices count on from one to the next.
        asked: the queries that its rows are of, as places among those of all scenes; the others have no right image. Default: all.
        form: as in `read_truth`.
        transposed: as in `read_truth`.
        beyond: as in `read_truth`.

    Returns:
        For each scene its labels; an image is never right for itself.

    Raises:
        InvalidInputError: an image of another scene is right for a query, or as in `read_truth`.
        CovisError: as in `read_truth`.
    """
    counts = np.array([[len(scene.queries), len(scene.database)] for scene in scenes]).reshape(-1, 2)
    queries, database = counts.sum(axis=0).tolist()
    rows = np.arange(queries) if asked is None else asked
    found = read_truth(path, queries=len(rows), database=database, form=form, transposed=transposed, beyond=beyond).tocoo()
    matrix = sparse.csr_array((np.ones(found.nnz), (rows[found.coords[0]], found.coords[1])), shape=(queries, database))
    ends = np.cumsum(counts, axis=0)
    parameters = {"file": Path(path).name, "form": form, "asked": len(rows), "transposed": transposed, "beyond": beyond}
    labels = []
    for scene, (q, d), (query_end, database_end) in zip(scenes, counts, ends, strict=True):
        mine = matrix[query_end - q : query_end]
        part = mine[:, database_end - d : database_end]
        if part.nnz < mine.nnz:
            raise InvalidInputError(
                f"{path}: {mine.nnz - part.nnz} of the images that are right for queries of scene {scene.name!r} are of other scenes. Is "
                "this the truth of these scenes, in their order?"
            )
        excluded = self_pairs(scene.queries, scene.database)
        made = Labels(part, scene.queries.names, scene.database.names, rule=RULE, parameters=parameters, excluded=excluded)
        labels.append(made)
    return labels


def _is_text(name: object) -> bool:
    return isinstance(name, str) and name.isprintable()


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """Objects in a rectangle as what they are: one column is a list of its entries, whole numbers throughout are numbers."""
    if array.dtype != np.dtype(object):
        return array
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim > 1 and all(type(entry) is int and abs(entry) < 1 << 63 for entry in array.flat):
        return array.astype(np.int64)
    return array


def _form_of(array: NDArray[Any], path: str | Path, shape: tuple[int, int], *, transposed: bool) -> Form:
    two = array.ndim == 2 and array.shape[1] == 2
    if array.dtype == np.bool_:
        return "matrix"
    wide = array.dtype.kind in "iu" and array.ndim == 2 and array.shape[1] > 1 and array.size > 0
    fits = wide and (transposed or array.shape in (shape, shape[::-1]) or array.shape[1] > 2)
    if fits and np.isin(array, (0, 1)).all():
        raise InvalidInputError(
            f"{path} holds 0 and 1 alone, in {array.shape[0]:,} rows of {array.shape[1]:,}: a matrix of truths, or lists of the images "
            "0 and 1. Say which: form=matrix or form=lists."
        )
    if two and wide and array[:, 0].min() in (0, 1) and (np.diff(np.sort(array[:, 0])) == 1).all():  # counted from 0, or from 1
        raise InvalidInputError(
            f"{path} may be two indices a query, or pairs of a query's index and its image; both fit. Say which: form=lists or "
            "form=vpr-bench."
        )
    lists = two and array.dtype == np.dtype(object) and all(isinstance(entry, (list, np.ndarray)) for entry in array[:, 1])
    return "vpr-bench" if lists and all(isinstance(entry, int) for entry in array[:, 0]) else "lists"


def _matrix(array: NDArray[Any], path: str | Path, shape: tuple[int, int], *, transposed: bool) -> sparse.csr_array:
    found = array.T if transposed else array
    if found.dtype.kind not in "biu" or not np.isin(found, (0, 1)).all():
        raise InvalidInputError(f"{path} must be a matrix of truths (or of 0 and 1); it is {array.dtype}.")
    if found.shape != shape:
        turned = " It would fit the other way round: say transposed=true." if found.shape == shape[::-1] and not transposed else ""
        raise InvalidInputError(f"{path} must be {shape[0]:,} queries x {shape[1]:,} database images; its shape is {found.shape}.{turned}")
    return sparse.csr_array(found.astype(bool))


def _by_query(array: NDArray[Any], path: str | Path, queries: int) -> list[Any]:
    """VPR-Bench's pairs in the order of their queries."""
    if array.ndim != 2 or array.shape[1] != 2 or not all(isinstance(number, (int, np.integer)) for number in array[:, 0]):
        raise InvalidInputError(f"{path} must be pairs of a query's index and its list; its shape is {array.shape}.")
    numbers = array[:, 0].tolist()
    if len(numbers) == queries and sorted(numbers) != list(range(queries)):
        raise InvalidInputError(f"{path} must speak of each of {queries:,} queries once, from 0 on; its first column does not.")
    return [row for _, row in sorted(zip(numbers, array[:, 1].tolist(), strict=True), key=lambda pair: pair[0])]


def _indices(row: Any, path: str | Path, place: int) -> NDArray[np.int64]:
    """One query's indices, without the -1 that fills up; in the file's own type until it is known that none stands again."""
    if isinstance(row, np.ndarray):
        values = row if row.ndim == 1 and (row.dtype.kind in "iu" or not row.size) else None
    else:
        entries = row if isinstance(row, list) else [row]
        whole = all(isinstance(entry, (int, np.integer)) and abs(int(entry)) < 1 << 63 for entry in entries)
        values = np.array(entries, dtype=np.int64) if whole else None
    if values is None or (values.dtype.kind == "u" and values.max(initial=0) >= 1 << 63):
        raise InvalidInputError(f"{path}, row {place}: the right images must be one list of whole numbers; found {_shown(row)}.")
    values = np.sort(values[values != -1])
    again = values[1:][values[1:] == values[:-1]]
    if again.size:
        raise InvalidInputError(
            f"{path}, row {place}: a list of right images has each once; {again[0]} stands again. Is it a matrix of 0 and 1 (form=matrix)?"
        )
    return values.astype(np.int64)


def _shown(value: Any) -> str:
    """What was found, in few words: a file can hold values that no message has room for."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of the shape {value.shape}"
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) in (str, bytes):
        return repr(value[:60])
    if isinstance(value, int) and abs(value) >= 1 << 128:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, (int, float)):
        return repr(value)
    if type(value) is list and value:
        return f"a list of {len(value):,} that begins with {_shown(value[0]) if type(value[0]) is not list else 'a list'}"
    return "an empty list" if value == [] else f"a value of the type {type(value).__name__}"


def _checked(rows: Sequence[NDArray[np.int64]], path: str | Path, shape: tuple[int, int], beyond: Beyond) -> sparse.csr_array:
    """The matrix of rows of indices."""
    query = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    image = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
    bad = np.flatnonzero((image < 0) | (image >= shape[1]))
    negative = bad[image[bad] < 0]
    if negative.size or (bad.size and beyond == "stop"):
        first = negative[0] if negative.size else bad[0]
        advice = "" if negative.size else " Is it of this database? Pass beyond=drop to leave out what is over the end."
        raise InvalidInputError(
            f"{path}, row {query[first]}: an index must be one of the {shape[1]:,} database images, from 0 on; found {image[first]} "
            f"({len(bad)} such in all).{advice}"
        )
    if bad.size:
        warnings.warn(f"{path}: {bad.size} indices are of no database image and are left out.", CovisWarning, stacklevel=4)
    kept = image < shape[1]
    query, image = query[kept], image[kept]
    found = sparse.csr_array((np.ones(len(query), dtype=np.int32), (query, image)), shape=shape)
    return found.astype(bool)
