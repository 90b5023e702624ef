"""Drafts: what a layout's files say of its images before anyone has vouched for it.

A reader makes drafts; `covis.datasets.checks` lists everything that is wrong with them, and `SceneDraft.scene` makes the `Scene`, by a
policy for images that are not there ("stop", "skip" and say so, or "ignore": nothing is looked up) and for rows whose
values cannot be used ("stop" or "skip").
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.coordinates import common_zone, to_metres
from covis.errors import CovisWarning, InvalidInputError
from covis.images import Images, Scene

Missing: TypeAlias = Literal["stop", "skip", "ignore"]
Invalid: TypeAlias = Literal["stop", "skip"]
EXAMPLES = 3


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one image.

    Attributes:
        kind: "missing image", "duplicate name", "position", "heading", "zones", "image" (does not decode) or "data".
        name: of the image, or of the file.
        where: the file, and the line where there are lines.
        what: what is wrong and what to do, in a sentence.
    """

    kind: str
    name: str
    where: str
    what: str


@dataclass
class Draft:
    """One side's images as their source gives them: values may be missing, wrong or stand twice.

    Attributes:
        root: the folder that names are relative to.
        names: n names.
        source: the file (or folder) that says so, for messages.
        columns: `Images`' columns by name, n values each; positions and headings may be NaN.
        flags: name -> n truths.
        degrees: (n, 2) latitude and longitude where the source has those in place of `columns["xy"]`.
        crs: of `columns["xy"]`.
        first_line: the line of the first row in the source; None where the source has no lines.
        lines: (n,) the line of each row, where they do not follow one another.
    """

    root: Path
    names: Sequence[str]
    source: Path
    columns: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, Any] = field(default_factory=dict)
    degrees: NDArray[np.float64] | None = None
    crs: str | None = None
    first_line: int | None = None
    lines: NDArray[np.int64] | None = None

    def where(self, row: int) -> str:
        """The place in the source that a row comes from."""
        line = int(self.lines[row]) if self.lines is not None else None if self.first_line is None else self.first_line + row
        return str(self.source) if line is None else f"{self.source}, line {line}"

    def select(self, rows: NDArray[Any]) -> Draft:
        """The rows of a boolean mask or of indices."""
        chosen = np.arange(len(self.names))[rows]
        kept = {
            key: np.asarray(value)[chosen] if isinstance(value, np.ndarray) else [value[i] for i in chosen]
            for key, value in self.columns.items()
        }
        lines = self.lines if self.lines is not None else None if self.first_line is None else self.first_line + np.arange(len(self.names))
        return Draft(
            self.root,
            [self.names[i] for i in chosen],
            self.source,
            kept,
            {key: np.asarray(value)[chosen] for key, value in self.flags.items()},
            None if self.degrees is None else self.degrees[chosen],
            self.crs,
            None,
            None if lines is None else lines[chosen],
        )

    def duplicates(self) -> list[tuple[int, int]]:
        """(first row, later row) of each name that stands again."""
        if len(set(self.names)) == len(self.names):
            return []
        first: dict[str, int] = {}
        return [(first[name], row) for row, name in enumerate(self.names) if first.setdefault(name, row) != row]

    def invalid(self) -> list[tuple[int, Problem]]:
        """(row, problem) of every row whose values cannot be used."""
        found = [
            (row, Problem("duplicate name", self.names[row], self.where(row), f"the name stands at {self.where(first)} too; keep one"))
            for first, row in self.duplicates()
        ]
        for row in np.flatnonzero(~self.positioned()).tolist():
            value = self.degrees[row] if self.degrees is not None else self.columns["xy"][row]
            what = f"the position is {np.asarray(value).tolist()}; it must be finite and on the globe"
            found.append((row, Problem("position", self.names[row], self.where(row), what)))
        heading = self.columns.get("heading")
        if heading is not None:
            heading = np.asarray(heading, dtype=np.float64)
            for row in np.flatnonzero(np.isinf(heading) | (heading < 0) | (heading >= 360)).tolist():
                what = f"the heading is {heading[row]:g}; it must be in [0, 360) degrees, or empty where unknown"
                found.append((row, Problem("heading", self.names[row], self.where(row), what)))
        return found

    def missing(self) -> list[tuple[int, Problem]]:
        """(row, problem) of every image whose file is not there."""
        return [
            (row, Problem("missing image", self.names[row], self.where(row), f"there is no file {self.root / self.names[row]}"))
            for row in np.flatnonzero(~files_present(self.root, self.names)).tolist()
        ]

    def settled(self, *, missing: Missing, invalid: Invalid) -> Draft:
        """The draft without the rows that the policies leave out; what is left out is said in a warning.

        Raises:
            InvalidInputError: a policy is "stop" and there is something to stop for; the message counts and names it.
        """
        for name, policy, known in (("missing", missing, ("stop", "skip", "ignore")), ("invalid", invalid, ("stop", "skip"))):
            if policy not in known:
                raise InvalidInputError(f"The policy {name} must be one of {', '.join(known)}; got {policy!r}.")
        out: set[int] = set()
        for what, policy, found in (
            ("have no file", missing, [] if missing == "ignore" else self.missing()),
            ("have values that cannot be used", invalid, self.invalid()),
        ):
            if not found:
                continue
            rows = {row for row, _ in found}
            examples = "; ".join(f"{problem.name} ({problem.where}): {problem.what}" for _, problem in found[:EXAMPLES])
            text = f"{len(rows)} of {len(self.names)} images of {self.source} {what}: {examples}{' …' if len(found) > EXAMPLES else ''}."
            if policy == "stop":
                option = "missing" if what == "have no file" else "invalid"
                raise InvalidInputError(f"{text} Mend them, or pass {option}='skip' to leave them out (covis check lists all).")
            warnings.warn(f"{text} They are left out.", CovisWarning, stacklevel=3)
            out |= rows
        return self if not out else self.select(~np.isin(np.arange(len(self.names)), list(out)))

    def positioned(self) -> NDArray[np.bool_]:
        """(n,) whether each position is finite and on the globe; true throughout where there are none."""
        if self.degrees is not None:
            lat, lon = self.degrees[:, 0], self.degrees[:, 1]
            return (lat >= -80) & (lat <= 84) & (lon >= -180) & (lon <= 180)
        if self.columns.get("xy") is None:
            return np.ones(len(self.names), dtype=bool)
        return np.asarray(np.isfinite(np.asarray(self.columns["xy"], dtype=np.float64)).all(axis=1), dtype=np.bool_)


@dataclass
class SceneDraft:
    """Two drafts in one frame; `queries` is None for a set whose images stand on both sides."""

    name: str
    split: str
    database: Draft
    queries: Draft | None = None

    @property
    def sides(self) -> list[Draft]:
        """The one or two drafts."""
        return [self.database] if self.queries is None else [self.database, self.queries]

    def frame(self) -> tuple[str | None, str | None]:
        """(coordinate frame, remark or None): both sides share one; latitude and longitude get the UTM zone where most of them lie.

        Raises:
            InvalidInputError: the positions span more than one frame can hold, or the sides' frames differ.
        """
        known = {side.crs for side in self.sides if side.columns.get("xy") is not None or side.crs is not None}
        if len(known) > 1:
            raise InvalidInputError(f"Both sides of scene {self.name!r} must be in one frame; got {', '.join(map(str, known))}.")
        frame = next(iter(known), None)
        if all(side.degrees is None for side in self.sides):
            return frame, None
        if frame is not None:
            return frame, None
        if known:
            raise InvalidInputError(
                f"One side of scene {self.name!r} has latitude and longitude, the other metres in a frame that is not said; say it (crs)."
            )
        where = np.concatenate([side.degrees[side.positioned()] for side in self.sides if side.degrees is not None])
        if not len(where):
            return None, None
        return common_zone(where[:, 0], where[:, 1])

    def scene(self, *, missing: Missing = "stop", invalid: Invalid = "stop") -> Scene:
        """Make the scene.

        Raises:
            InvalidInputError: a policy is "stop" and there is something to stop for, or a value breaks a rule of `Images`.
        """
        sides = [side.settled(missing=missing, invalid=invalid) for side in self.sides]
        settled = SceneDraft(self.name, self.split, *sides)
        try:
            crs, remark = settled.frame()
        except InvalidInputError as error:
            raise InvalidInputError(f"{self.database.source}: {error}") from error
        if remark:
            warnings.warn(f"{self.database.source}: {remark}", CovisWarning, stacklevel=2)
        images = [_images(side, crs) for side in sides]
        return Scene(self.name, self.split, images[0], images[-1])


def files_present(root: Path, names: Sequence[str]) -> NDArray[np.bool_]:
    """(n,) whether each named file is there; every folder is listed once."""
    listed: dict[str, set[str]] = {}
    present = np.zeros(len(names), dtype=bool)
    for row, name in enumerate(names):
        folder, _, file = name.rpartition("/")
        if folder not in listed:
            listed[folder] = _files_in(root / folder)
        present[row] = file in listed[folder]
    return present


def _files_in(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def _images(side: Draft, crs: str | None) -> Images:
    columns = dict(side.columns)
    if side.degrees is not None and crs is not None:
        columns["xy"] = to_metres(side.degrees[:, 0], side.degrees[:, 1], crs=crs) if len(side.names) else np.zeros((0, 2))
    return Images(side.root, tuple(side.names), crs=crs, flags=side.flags, **columns)
