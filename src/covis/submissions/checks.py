"""All that is wrong with a submission, at once, before a server says so after a day, or counts it as failures without a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from covis.errors import DamagedFileError, MissingFileError, UnknownNameError
from covis.images import Scene
from covis.lookup import suggest
from covis.submissions.contents import Line, csv_of, is_zip, lines_of
from covis.submissions.pose_checks import check_poses
from covis.submissions.poses import bare, style_of
from covis.submissions.prediction_checks import check_predictions

KINDS = ("cmu", "msls", "robotcar")
"""What a submission may be: pose files by their styles, and predictions for the MSLS challenge."""
_HELP = {
    "file": "the file itself",
    "bytes": "encoding, line ends and blanks",
    "columns": "lines that have too many or too few",
    "number": "what is no finite number",
    "quaternion": "not of length 1",
    "name": "names as the server does not know them",
    "twice": "what stands twice: keep one",
    "unknown": "names that the data does not have",
    "missing": "queries of the data without a line: each counts as a failure",
}


@dataclass(frozen=True)
class SubmissionProblem:
    """One thing wrong with a submission.

    Attributes:
        kind: "file", "bytes", "columns", "number", "quaternion", "name", "twice", "unknown" or "missing".
        line: from 1; None where it is no line's.
        what: a sentence.
    """

    kind: str
    line: int | None
    what: str


@dataclass(frozen=True)
class SubmissionReport:
    """What a look at a submission found.

    Attributes:
        path: the file.
        kind: as what it was read: "cmu", "robotcar" or "msls".
        entries: lines that are neither empty nor a comment.
        problems: everything that is wrong, by line.
        remarks: what is allowed, and probably not what was meant.
    """

    path: Path
    kind: str
    entries: int
    problems: tuple[SubmissionProblem, ...] = field(default=())
    remarks: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        lines = [f"{self.path} (submission, {self.kind})", f"  {self.entries:,} lines of queries"]
        lines += [f"  remark: {remark}" for remark in self.remarks]
        for kind, count in Counter(problem.kind for problem in self.problems).most_common():
            lines.append(f"  {kind}: {count:,} ({_HELP[kind]})")
            found = [problem for problem in self.problems if problem.kind == kind]
            lines += [f"    {'' if one.line is None else f'line {one.line}: '}{one.what}" for one in found[:5]]
            lines += [f"    … and {count - 5:,} more (--json lists all)"] if count > 5 else []
        count = len(self.problems)
        lines.append(f"  {count:,} problem{'s'[: count != 1]}" if count else "  no problem found")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        problems = [asdict(problem) for problem in self.problems]
        return {"path": str(self.path), "kind": self.kind, "entries": self.entries, "problems": problems, "remarks": list(self.remarks)}


def check_submission(path: str | Path, *, kind: str = "auto", scenes: Sequence[Scene] | None = None) -> SubmissionReport:
    r"""Look at every byte, line and number of a submission, and list all that is wrong.

    Pose files ("cmu", "robotcar"): the suffix .txt; UTF-8 without a BOM; LF; single blanks; no empty line, no comment; eight columns;
    finite numbers; quaternions of length 1 within 1e-3; each name once, without folders but for `rear/`. Predictions ("msls"): a zip
    with one csv and nothing else, or that csv alone; as many keys in every line; keys without folder and suffix; each query once, and no
    image twice in its line.

    Args:
        path: the file.
        kind: one of `KINDS`; "auto": msls for a .zip or .csv; else robotcar where the queries of `scenes` are of a rear camera. Without
            scenes the names are looked at, which is remarked: robotcar where one has a folder or all are digits, else cmu.
        scenes: whose queries are asked. Names are then held against theirs; and where a database has poses, positions against its
            cameras: a file that holds camera centres, or turns the wrong way, reads as far from all of them, which is remarked.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is a folder, or cannot be read.
        UnknownNameError: there is no such kind.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "found.txt"
    ...     _ = file.write_text("a.jpg 1 0 0 0 4 5 6\nb.jpg 2 0 0 0 4 5 nan\n")
    ...     report = check_submission(file)
    >>> [(problem.kind, problem.line) for problem in report.problems]
    [('number', 2), ('quaternion', 2)]
    """
    path = Path(path)
    if kind != "auto" and kind not in KINDS:
        raise UnknownNameError(f"There is no kind of submission called {kind!r}. {suggest(kind, KINDS)}")
    data = _bytes(path)
    zipped = is_zip(path, data)
    if kind == "auto" and (zipped or path.suffix.lower() == ".csv"):
        kind = "msls"
    found: list[tuple[str, int | None, str]] = []
    remarks: list[str] = []
    if kind == "msls":
        found += _names_of_file(path, (".zip",) if zipped else (".csv",), "predictions")
        if zipped:
            data, problems = csv_of(path)
            found += problems
        else:
            remarks.append("the challenge takes a zip that holds this csv and nothing else")
    else:
        found += _names_of_file(path, (".txt",), "a pose file")
    lines, problems = lines_of(data, comments=kind == "msls")
    found += problems
    if kind == "auto":
        kind, guessed = _style(lines, scenes)
        remarks += [f"read as {kind}, by the names in it; say what it is (--kind), or what it is of (--data)"] * guessed
    check = check_predictions if kind == "msls" else check_poses
    problems, more = check(lines, kind, scenes)
    found += problems
    if not lines and not found:
        found.append(("file", None, "the file must hold a line a query; it holds none."))
    ordered = sorted(found, key=lambda one: (one[1] is None, one[1] or 0))
    return SubmissionReport(path, kind, len(lines), tuple(SubmissionProblem(*one) for one in ordered), (*remarks, *more))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise MissingFileError(f"{path} must exist; there is no such file.") from None
    except OSError as error:
        raise DamagedFileError(f"{path} must be a file that can be read; {error.strerror or error}.") from None


def _names_of_file(path: Path, suffixes: tuple[str, ...], what: str) -> Iterator[tuple[str, int | None, str]]:
    if path.suffix not in suffixes:
        yield "file", None, f"{what} must be called {' or '.join(suffixes)}; the file is called {path.name!r}."


def _style(lines: Sequence[Line], scenes: Sequence[Scene] | None) -> tuple[str, bool]:
    """The style that the data asks for; without data, or where it asks for both, that of the names, and whether it was guessed by them."""
    rear = {PurePosixPath(name).parent.name == "rear" for scene in scenes or () for name in scene.queries.names}
    if len(rear) == 1:
        return ("robotcar" if rear.pop() else "cmu"), False
    names = [bare(line.words[0]) for line in lines]
    stamps = bool(names) and all(name.isascii() and name.isdigit() for name in names)
    return ("robotcar" if stamps else style_of(names)), bool(names)
