"""The lines of a pose file, by themselves and against the data that they are of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from covis.datasets.pose_orders import poses_of
from covis.errors import InvalidInputError
from covis.images import Scene
from covis.submissions.contents import ALL_UNKNOWN, Found, Line
from covis.submissions.poses import CONVENTION, ORDER, REAR, bare, line_problems, submission_names

MISTAKES = (
    "the last three numbers are camera centres C, where the translation t = -R C must stand; look whether the rotation is world-to-camera",
    "the quaternions turn from the camera to the world, where world-to-camera must stand",
    "the quaternions are qx qy qz qw, where qw qx qy qz must stand",
)
"""What a file may hold by mistake."""
PART = 0.5
"""A mistake is remarked where under it the cameras are nearer to the database's by this factor, at the median."""


def check_poses(lines: Sequence[Line], kind: str, scenes: Sequence[Scene] | None) -> tuple[list[Found], list[str]]:
    """What is wrong with the lines of a pose file, and what is suspicious."""
    problems: list[Found] = [(of, line.number, what) for line in lines for of, what in line_problems(line.words)]
    whole = {line.number for line in lines} - {number for _, number, _ in problems}
    first: dict[str, int] = {}
    for line in lines:
        name = line.words[0]
        problems += [("name", line.number, what) for what in _names(name, kind)]
        if bare(name) in first:
            problems.append(("twice", line.number, f"a query must have one line; {name!r} has another at line {first[bare(name)]}."))
        first.setdefault(bare(name), line.number)
    if scenes is None:
        return problems, []
    expected, shared, more = _expected(scenes, kind)
    problems += more
    said = (
        f"{shared:,} queries of the data share their name with another: one line stands for both, as it must where they are one photograph"
    )
    for name, number in first.items():
        if name not in expected:
            problems.append(("unknown", number, f"a name must be that of a query of the data; {name!r} is none."))
    problems += [("missing", None, f"the query {asked!r} has no line.") for name, (asked, _) in expected.items() if name not in first]
    suspicions = _suspicions([line for line in lines if line.number in whole], expected, scenes)
    strange = bool(first) and expected.keys().isdisjoint(first)
    return problems, [said] * bool(shared) + [ALL_UNKNOWN] * strange + suspicions


def _names(name: str, kind: str) -> Iterator[str]:
    if kind == "robotcar":
        if not REAR.fullmatch(name):
            yield (
                "a name must be rear/<timestamp>.jpg or .png, the timestamp in digits: the rear camera is the one that is evaluated; "
                f"found {name!r}."
            )
        return
    last = name.rpartition("/")[2]
    if last != name:
        yield f"a name must be the file's alone; found {name!r}."
    stem, _, suffix = last.rpartition(".")
    if not stem or suffix.lower() not in ("jpg", "png"):
        yield f"a name must end in .jpg or .png, with something before it; found {name!r}."


def _expected(scenes: Sequence[Scene], kind: str) -> tuple[dict[str, tuple[str, int]], int, list[Found]]:
    """What queries are called, without suffix: (as it is written, the scene's number) each; how many share a name; problems."""
    expected: dict[str, tuple[str, int]] = {}
    problems: list[Found] = []
    shared = 0
    for number, scene in enumerate(scenes):
        for name in scene.queries.names:
            try:
                (written,) = submission_names([name], style=kind)
            except InvalidInputError as error:
                problems.append(("name", None, str(error)))
                continue
            shared += bare(written) in expected
            expected.setdefault(bare(written), (written, number))
    return expected, shared, problems


def _suspicions(lines: Sequence[Line], expected: dict[str, tuple[str, int]], scenes: Sequence[Scene]) -> list[str]:
    """A remark where cameras would stand much nearer to those of the database under another convention."""
    from scipy.spatial import KDTree  # here, because it takes longer to import than most files to read

    away: list[NDArray[np.float64]] = []
    for number, scene in enumerate(scenes):
        here = [line.words[1:] for line in lines if expected.get(bare(line.words[0]), ("", -1))[1] == number]
        if here and scene.database.pose is not None and len(scene.database):
            tree = KDTree(scene.database.pose[:, :3, 3])
            away.append(np.stack([tree.query(centres)[0] for centres in _readings(np.array(here, dtype=np.float64))]))
    if not away:
        return []
    stated, *others = np.median(np.concatenate(away, axis=1), axis=1).tolist()
    least = int(np.argmin(others))
    if others[least] >= PART * stated:
        return []
    return [
        f"it looks as if {MISTAKES[least]}: cameras would be {others[least]:.3g} m from the nearest camera of the database, at the median; "
        f"as the file stands they are {stated:.3g} m away"
    ]


def _readings(rows: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """(n, 3) camera centres, as the file states them and under each of `MISTAKES`."""
    turned = rows * [1, -1, -1, -1, 1, 1, 1]
    yield poses_of(rows, order=ORDER, convention=CONVENTION)[:, :3, 3]
    yield rows[:, 4:]
    yield poses_of(turned, order=ORDER, convention=CONVENTION)[:, :3, 3]
    yield poses_of(rows, order="qx qy qz qw tx ty tz", convention=CONVENTION)[:, :3, 3]
