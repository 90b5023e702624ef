"""Prediction files of the MSLS challenge: a zip that holds one csv, a line a query, its key and then the keys found, best first."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from covis.errors import InvalidInputError
from covis.files import atomic_path, check_absent
from covis.predictions import key
from covis.rankings import Rankings

HEADER = (
    "# the key of a query image (of a sequence: its frames' keys, joined by commas), then the keys found, best first\n"
    "# written by covis; the format is that of mapillary_sls\n"
)


def write_msls_submission(rankings: Rankings | Sequence[Rankings], path: str | Path, *, k: int = 25, overwrite: bool = False) -> Path:
    """Write rankings of one or more cities as the MSLS challenge takes them; returns the path.

    The zip holds one csv of the same stem, not compressed and without a date, so that the same rankings give the same bytes. Every line
    names as many images: k, or as many as the shallowest ranking holds.

    Args:
        rankings: one a city; queries are written in their order.
        path: a .zip file, or a .csv for the file inside alone.
        k: how many images a line names at most; the official script looks at 20.
        overwrite: replace a file that is there.

    Raises:
        InvalidInputError: the suffix is another, there is no query, k < 1, two queries or two images of a database share a key, a key
            has white space or a #, or a line would name what is no image of the database.
        OutputExistsError: the file is there and `overwrite` is false.

    >>> import tempfile
    >>> found = Rankings([[1, 0]], [[0.1, 0.5]], ("cph/query/q.jpg",), ("cph/database/a.jpg", "cph/database/b.jpg"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_msls_submission(found, Path(folder) / "found.csv").read_text().splitlines()[2:]
    ['q b a']
    """
    path = Path(path)
    given = [rankings] if isinstance(rankings, Rankings) else list(rankings)
    if path.suffix not in (".zip", ".csv"):
        raise InvalidInputError(f"A submission to the MSLS challenge must be called .zip (or .csv, for what it holds); got {path.name!r}.")
    check_absent(path, overwrite=overwrite)
    if k < 1 or not sum(map(len, given)):
        raise InvalidInputError(f"There must be a query, and k at least 1; got {sum(map(len, given))} queries and k {k}.")
    depth = min(k, *(one.k for one in given))
    lines = [line for one in given for line in _lines(one, depth)]
    queries = [line.partition(" ")[0] for line in lines]
    _once(queries, "query")
    text = (HEADER + "".join(f"{line}\n" for line in lines)).encode("utf-8")
    with atomic_path(path) as temporary:
        if path.suffix == ".csv":
            temporary.write_bytes(text)
        else:
            entry = zipfile.ZipInfo(f"{path.stem}.csv", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            with zipfile.ZipFile(temporary, "w") as archive:
                archive.writestr(entry, text)
    return path


def _lines(found: Rankings, depth: int) -> list[str]:
    rows = found.rows[:, :depth]
    lacking = np.flatnonzero((rows < 0).any(axis=1))
    if lacking.size:
        raise InvalidInputError(
            f"Every line must name {depth} images of the database; the ranking of {found.query_names[lacking[0]]} holds fewer among its "
            f"first {depth}. Lower k, or search for more."
        )
    keys = [key(name) for name in found.database_names]
    _once(keys, "database image")
    asked = [key(name) for name in found.query_names]
    for word in (*asked, *keys):
        if len(word.split()) != 1 or word.split()[0] != word or "#" in word:
            raise InvalidInputError(f"A key must have no white space and no #; got {word!r}. Rename the image.")
    return [" ".join([query, *(keys[row] for row in here)]) for query, here in zip(asked, rows.tolist(), strict=True)]


def _once(keys: Sequence[str], what: str) -> None:
    seen: set[str] = set()
    for one in keys:
        if one in seen:
            raise InvalidInputError(f"Every {what} must have a key of its own, the stem of its name; {one!r} is that of two.")
        seen.add(one)
