"""The texts of scores that GCL's reference leaves, in and out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from covis.errors import DamagedFileError, InvalidInputError
from covis.files import check_absent, read_text, write_text


def read_scores(path: str | Path) -> dict[str, float]:
    r"""Read a `_scores.txt`, `_recall.txt` or `_result.txt`, which is told by its lines: metric -> share in [0, 1].

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: a line is of another kind, holds no number in its range, or a metric stands twice; the message names the line.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "x_scores.txt")
    ...     _ = file.write_text("1,79.93\n5,90.0\n")
    ...     read_scores(file)
    {'recall@1': 0.7993000000000001, 'recall@5': 0.9}
    """
    found: dict[str, float] = {}
    text = read_text(path).removeprefix("\ufeff")
    shares = text.lstrip().startswith("#")
    for number, line in enumerate(text.split("\n"), start=1):
        if not (said := line.partition("#")[0].strip()):
            continue
        name, value = _score(said, shares=shares)
        if not name or not 0 <= value <= 1 or name in found:
            raise DamagedFileError(
                f"{path}, line {number}: a line must be k,percent (of _scores.txt), k,share (of _recall.txt) or all_recall@k: share (of "
                f"_result.txt), each k once; found {said[:60]!r}."
            )
        found[name] = value
    if not found:
        raise DamagedFileError(f"{path} must hold scores; it holds no line of them.")
    return found


def write_scores(values: Mapping[str, NDArray[np.float64]], path: str | Path, *, overwrite: bool = False) -> Path:
    """Write per-query values as the reference writes its scores, by the file's name: the inverse of `read_scores`, rounded as there.

    Args:
        values: `recall@k`, and for a `_result.txt` `mAP@k` -> (q,) values in [0, 1], NaN for a query that is not counted
            (`Scores.per_query`).
        path: `…_scores.txt` (k,percent with two decimals), `…_recall.txt` (k,share), or `…_result*.txt` (three decimals).
        overwrite: replace a file that is there.

    Raises:
        InvalidInputError: the name is of none of them, or there is no recall.
        OutputExistsError: the file is there and `overwrite` is false.
    """
    path = check_absent(path, overwrite=overwrite)
    means = {name: float(np.nansum(one) / max(1, int(np.count_nonzero(~np.isnan(one))))) for name, one in values.items()}
    recalls, maps = (
        {int(name.partition("@")[2]): mean for name, mean in means.items() if name.startswith(f"{kind}@")} for kind in ("recall", "mAP")
    )
    if not recalls:
        raise InvalidInputError(f"Scores must have recall@k to be written to {path}; got {', '.join(values) or 'none'}.")
    if path.name.endswith("_scores.txt"):
        lines = [f"{k},{float(np.round(np.float64(mean) * 100, 2))}" for k, mean in sorted(recalls.items())]
    elif path.name.endswith("_recall.txt"):
        lines = ["# k,r", *(f"{k:.18e},{mean:.18e}" for k, mean in sorted(recalls.items()))]
    elif "_result" in path.name and path.suffix == ".txt":
        lines = [f"all_{kind}@{k}: {mean:.3f}" for kind, found in (("recall", recalls), ("map", maps)) for k, mean in sorted(found.items())]
    else:
        raise InvalidInputError(
            f"The name must end in _scores.txt, _recall.txt or _result.txt, which says what is written; got {path.name!r}."
        )
    return write_text(path, "\n".join(lines) + "\n")


_LINE = re.compile(r"(?:(?P<k>\d[\d.e+]*),|[A-Za-z0-9]+_(?P<kind>recall|map)@(?P<at>\d+):)\s*(?P<value>\S+)")


def _score(line: str, *, shares: bool) -> tuple[str, float]:
    """(metric, share); the metric is "" where the line is none."""
    found = _LINE.fullmatch(line)
    try:
        value = float(found["value"]) if found else float("nan")
        k = float(found["at"] or found["k"]) if found else 0.0
    except ValueError:
        return "", 0.0
    if not found or k < 1 or k != int(k):
        return "", 0.0
    kind = "mAP" if found["kind"] == "map" else "recall"
    return f"{kind}@{int(k)}", value / 100 if found["k"] and not shares else value
