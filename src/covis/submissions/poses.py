"""Pose files of visuallocalization.net: a line a query, `name qw qx qy qz tx ty tz`, world to camera.

The quaternion rotates the world into the camera (x right, y down, z forward), w first. The last three are the translation t = -R C in
metres, not the camera's centre C. All conditions, slices or scenes stand in one file; a query without a line is a failure.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

import numpy as np

from covis.datasets.pose_orders import FORMS, poses_of, rows_of
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError, UnknownNameError
from covis.files import check_absent, read_text, write_text
from covis.images import Scene
from covis.localisation import Poses
from covis.lookup import suggest

ORDER, CONVENTION = FORMS["submission"].order, FORMS["submission"].convention
STYLES = {
    "cmu": "Extended CMU Seasons, and others that go by the file's name: img_00119_c1_1303398474779439us.jpg",
    "robotcar": "RobotCar Seasons: the rear camera's folder and the file's name: rear/1418133732744920.jpg",
}
"""How queries are named in a pose file."""
UNIT = 1e-3
"""How far a quaternion's length may be from 1."""
Repeated: TypeAlias = Literal["stop", "same"]
"""What it means that two queries have one name in a pose file: an error, or that they are the same photograph."""
REAR = re.compile(r"rear/[0-9]+\.(jpg|png)")
"""A name in a pose file of RobotCar Seasons."""
_PICTURES = (".jpg", ".jpeg", ".png")


def submission_names(names: Sequence[str], *, style: str) -> tuple[str, ...]:
    """What queries are called in a pose file; repeats are left to the caller.

    Raises:
        UnknownNameError: there is no such style.
        InvalidInputError: under "robotcar" an image is not of the rear camera, the only one that the server evaluates, or not called by
            digits; or a name has white space.

    >>> submission_names(["images/night/rear/1418133732744920.jpg"], style="robotcar")
    ('rear/1418133732744920.jpg',)
    >>> submission_names(["slice2/query/img_00119_c1_1303398474779439us.jpg"], style="cmu")
    ('img_00119_c1_1303398474779439us.jpg',)
    """
    if style not in STYLES:
        raise UnknownNameError(f"There is no style of submission called {style!r}. {suggest(style, STYLES)}")
    made = []
    for name in names:
        parts = PurePosixPath(name).parts
        if style == "robotcar" and parts[-2:-1] != ("rear",):
            raise InvalidInputError(
                f"A query of RobotCar Seasons must be of the rear camera, the only one that is evaluated (…/rear/<timestamp>.jpg); got "
                f"{name!r}. Read the data with camera=rear."
            )
        made.append("/".join(parts[-2:]) if style == "robotcar" else parts[-1])
        if style == "robotcar" and not REAR.fullmatch(made[-1]):
            raise InvalidInputError(
                f"A query of RobotCar Seasons must be called by its timestamp, rear/<digits>.jpg or .png; got {name!r}. Rename the image."
            )
        if len(name.split()) != 1 or "#" in made[-1]:
            raise InvalidInputError(f"A name in a pose file must have no white space and no #; got {name!r}. Rename the image.")
    return tuple(made)


def write_submission(
    poses: Poses | Sequence[Poses], path: str | Path, *, style: str, repeated: Repeated = "stop", overwrite: bool = False
) -> Path:
    r"""Write a pose file, of one scene or of several together; the same poses give the same bytes. Returns the path.

    Queries without a pose have no line. Numbers have as many digits as give the same float64 back; qw >= 0.

    Args:
        poses: one a scene; lines are in their order.
        path: a .txt file.
        style: of `STYLES`.
        repeated: queries that would have one name: "stop", or "same": they are the same photograph, which gets one line, with the first
            pose that it has. The slices of Extended CMU Seasons share the photographs at their borders.
        overwrite: replace a file that is there.

    Raises:
        InvalidInputError: the name does not end in .txt, no query has a pose, or two would have one name and `repeated`
            is "stop".
        UnknownNameError: there is no such style.
        OutputExistsError: the file is there and `overwrite` is false.

    Warns:
        CovisWarning: queries shared a name, and `repeated` is "same".

    >>> import tempfile
    >>> found = Poses(("slice2/query/a.jpg",), np.eye(4)[None] + np.eye(4, k=3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_submission(found, Path(folder) / "cmu.txt", style="cmu").read_text()
    'a.jpg 1.0 0.0 0.0 0.0 -1.0 0.0 0.0\n'
    """
    path = Path(path)
    given = [poses] if isinstance(poses, Poses) else list(poses)
    if path.suffix != ".txt":
        raise InvalidInputError(f"A pose file must be called .txt; got {path.name!r}.")
    check_absent(path, overwrite=overwrite)
    lines: dict[str, str] = {}
    before, again = name_lines([one.names for one in given], style=style, repeated=repeated)
    for one in given:
        known = np.flatnonzero(one.located)
        rows = rows_of(one.pose[known], order=ORDER, convention=CONVENTION) + 0.0  # no minus before a zero
        named = submission_names([one.names[row] for row in known], style=style)
        for name, row in zip(named, rows.tolist(), strict=True):
            lines.setdefault(name, " ".join([name, *map(repr, row)]))
    if not lines:
        raise InvalidInputError(f"A pose file must hold a pose; none of the {len(before)} queries has one.")
    if again:
        said = f"{path}: {again} queries are taken for photographs that stand under another query too; each photograph has one line."
        warnings.warn(said, CovisWarning, stacklevel=2)
    return write_text(path, "".join(f"{line}\n" for line in lines.values()))


def name_lines(names: Sequence[Sequence[str]], *, style: str, repeated: Repeated = "stop") -> tuple[dict[str, str], int]:
    """The lines that a pose file of these queries could have: what is written -> the first query of it; and how many share one.

    Args:
        names: of the queries of each scene.
        style: of `STYLES`.
        repeated: as in `write_submission`.

    Raises:
        InvalidInputError: a name cannot be written, or two queries would have one and `repeated` is "stop".
        UnknownNameError: there is no such style.

    >>> name_lines([("slice2/query/a.jpg",), ("slice3/query/a.jpg",)], style="cmu", repeated="same")
    ({'a.jpg': 'slice2/query/a.jpg'}, 1)
    """
    before: dict[str, str] = {}
    again = 0
    for scene in names:
        for name, written in zip(scene, submission_names(scene, style=style), strict=True):
            if written in before and repeated != "same":
                raise InvalidInputError(
                    f"Queries must have different names in a pose file; {before[written]!r} and {name!r} would both be {written!r}. "
                    'If they are the same photograph, as at the borders of slices, choose repeated "same" (--repeated same); else write '
                    "a file for each scene."
                )
            again += written in before
            before.setdefault(written, name)
    return before, again


def read_submission(path: str | Path) -> Poses:
    """Read a pose file, of covis or of any other program; `check_submission` lists all that is wrong with one.

    CRLF, a BOM, empty lines and lines that begin with # are read over.

    Returns:
        The poses by the names in the file; `match_submission` finds the queries that they are of.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: a line has other than eight columns, a number is not finite, a quaternion's length is not 1 within 1e-3, a name
            stands twice, or there is no line; the message names the line.
    """
    first: dict[str, int] = {}
    rows = []
    for number, line in enumerate(read_text(path).removeprefix("\ufeff").split("\n"), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        for _, what in line_problems(words):
            raise DamagedFileError(f"{path}, line {number}: {what}")
        if words[0] in first:
            raise DamagedFileError(
                f"{path}, line {number}: a query must have one line; {words[0]!r} has another at line {first[words[0]]}. Remove one."
            )
        first[words[0]] = number
        rows.append([float(word) for word in words[1:]])
    if not rows:
        raise DamagedFileError(f"{path} must hold a line a query, 'name {ORDER}'; it holds none.")
    return Poses(tuple(first), poses_of(rows, order=ORDER, convention=CONVENTION), history={"submission": Path(path).name})


def match_submission(found: Poses, scenes: Sequence[Scene], *, repeated: Repeated = "stop") -> list[Poses]:
    """The poses of a pose file as those of scenes' queries: by the name that a submission gives them, whatever picture's suffix it has.

    Args:
        found: as `read_submission` gives them.
        scenes: whose queries they are of.
        repeated: a line whose name is that of two queries: "stop", or "same": they are the same photograph, in one frame.

    Raises:
        InvalidInputError: a name is that of no query, or of two and `repeated` is "stop".

    >>> from covis.images import Images
    >>> scene = Scene("s", "test", Images("r", []), Images("r", ["slice2/query/a.jpg", "slice2/query/b.jpg"]))
    >>> match_submission(Poses(("b.png",), np.eye(4)[None]), [scene])[0].missing
    ('slice2/query/a.jpg',)
    """
    place = {bare(name): row for row, name in enumerate(found.names)}
    if len(place) < len(found):
        raise InvalidInputError("The names of a pose file must differ in more than a picture's suffix; two do not.")
    style = style_of(found.names)
    matched: dict[str, str] = {}
    made = []
    for scene in scenes:
        pose = np.full((len(scene.queries), 4, 4), np.nan)
        for row, (name, written) in enumerate(zip(scene.queries.names, submission_names(scene.queries.names, style=style), strict=True)):
            key = bare(written)
            if key in place:
                if key in matched and repeated != "same":
                    raise InvalidInputError(
                        f"A line must be of one query; {written!r} is that of {matched[key]!r} and of {name!r}. If they are the same "
                        'photograph, choose repeated "same" (--repeated same).'
                    )
                matched[key] = name
                pose[row] = found.pose[place[key]]
        made.append(Poses(scene.queries.names, pose, history=found.history))
    unknown = [name for name in found.names if bare(name) not in matched]
    if unknown:
        said = f"Every line must be of a query of the data; {len(unknown)} of {len(found)} are not, the first is {unknown[0]!r}."
        raise InvalidInputError(f"{said} Is it the right data, and the right split?" if len(unknown) == len(found) else said)
    return made


def style_of(names: Sequence[str]) -> str:
    """The style that names of a pose file are in: "robotcar" where one has a folder."""
    return "robotcar" if any("/" in name for name in names) else "cmu"


def bare(name: str) -> str:
    """A name without a picture's suffix: lists of these benchmarks say .png where the file is a .jpg."""
    stem, dot, suffix = name.rpartition(".")
    return stem if (dot + suffix).lower() in _PICTURES else name


def line_problems(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What is wrong with the words of a line: (kind, sentence) each."""
    if len(words) != 8:
        yield "columns", f"a line must have eight columns, name {ORDER}; this one has {len(words)}."
        return
    values = []
    for column, word in zip(ORDER.split(), words[1:], strict=True):
        try:
            value = float(word) if word.isascii() and "_" not in word else math.nan  # float takes other scripts' digits too
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            yield "number", f"{column} must be a finite number; found {word!r}."
        values.append(value)
    length = math.hypot(*values[:4])
    if math.isfinite(length) and abs(length - 1) > UNIT:
        yield "quaternion", f"the quaternion {' '.join(words[1:5])} must have length 1, within {UNIT:g}; it has {length:.6g}."
