"""Everything that is wrong with a data set, at once, before an hour of work finds it one by one."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from covis.datasets.drafts import Draft, Problem, SceneDraft, files_present
from covis.errors import CovisError, CovisWarning
from covis.images import Images, Scene
from covis.neighbours import cores
from covis.rasters import read_image

Progress = Callable[[int, int], None]
_HELP = {
    "data": "the layout itself cannot be read",
    "missing image": "named, but not there: unpack again, or read with missing='skip'",
    "duplicate name": "named twice: keep one, or read with invalid='skip' (the first stays)",
    "position": "no usable position: mend, or read with invalid='skip'",
    "heading": "outside [0, 360): mend, or read with invalid='skip'",
    "zones": "positions that do not fit into one frame",
    "image": "do not decode: fetch again, or leave out",
}


@dataclass(frozen=True)
class Report:
    """What a look at a data set found.

    Attributes:
        root: the data set.
        layout: as which it was read.
        scenes: (name, database images, queries) each; queries are None where one set stands on both sides.
        problems: everything that is wrong.
        remarks: what is allowed and worth knowing.
        decoded: how many images were decoded.
    """

    root: Path
    layout: str
    scenes: tuple[tuple[str, int, int | None], ...]
    problems: tuple[Problem, ...]
    remarks: tuple[str, ...]
    decoded: int

    def __str__(self) -> str:
        lines = [f"{self.root} ({self.layout})"]
        for name, database, queries in self.scenes:
            lines.append(f"  {name}: {database:,} database images, " + ("the same ask" if queries is None else f"{queries:,} queries"))
        lines += [f"  remark: {remark}" for remark in self.remarks]
        for kind, count in Counter(problem.kind for problem in self.problems).most_common():
            lines.append(f"  {kind}: {count:,} ({_HELP[kind]})")
            found = [problem for problem in self.problems if problem.kind == kind]
            lines += [f"    {problem.name} ({problem.where}): {problem.what}" for problem in found[:5]]
            lines += [f"    … and {count - 5:,} more (--json lists all)"] if count > 5 else []
        said = f"{self.decoded:,} images decoded" if self.decoded else "no image decoded"
        count = len(self.problems)
        lines.append(f"  {count:,} problem{'s'[: count != 1]}, {said}" if count else f"  no problem found, {said}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "root": str(self.root),
            "layout": self.layout,
            "scenes": [{"name": name, "database": database, "queries": queries} for name, database, queries in self.scenes],
            "problems": [asdict(problem) for problem in self.problems],
            "remarks": list(self.remarks),
            "decoded": self.decoded,
        }


def inspect(
    read: Callable[[], Sequence[SceneDraft] | Sequence[Scene]],
    root: Path,
    *,
    layout: str,
    decode: bool = True,
    files: bool = True,
    progress: Progress = lambda _done, _of: None,
) -> Report:
    """Look at every name, number and file of what `read` gives, and list all that is wrong.

    Args:
        read: gives drafts, or for a layout without drafts scenes; an error of covis that it raises becomes a problem.
        root: the data set.
        layout: its name, for the report.
        decode: decode every image (the slow part; all cores work on it).
        files: look whether the images are there; false for metadata alone.
        progress: takes (images decoded, images in all).
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", CovisWarning)
        try:
            drafts = [found if isinstance(found, SceneDraft) else _draft(found) for found in read()]
        except CovisError as error:
            return Report(root, layout, (), (Problem("data", str(root), str(root), str(error)),), (), 0)
    problems: list[Problem] = []
    remarks = [str(warning.message) for warning in said if issubclass(warning.category, CovisWarning)]
    for draft in drafts:
        for side in draft.sides:
            problems += [problem for _, problem in [*(side.missing() if files else []), *side.invalid()]]
        try:
            _, remark = draft.frame()
            remarks += [f"{draft.name}: {said}" for said in (remark, *map(_outliers, draft.sides)) if said]
        except CovisError as error:
            problems.append(Problem("zones", draft.name, str(draft.database.source), str(error)))
    present = _present(drafts) if decode else {}
    looks = list(_looks(present, progress))
    problems += [look for look in looks if isinstance(look, Problem)]
    remarks += _shapes([look for look in looks if not isinstance(look, Problem)])
    sizes = tuple((d.name, len(d.database.names), None if d.queries is None else len(d.queries.names)) for d in drafts)
    return Report(root, layout, sizes, tuple(problems), tuple(remarks), len(present))


def _present(drafts: Sequence[SceneDraft]) -> dict[Path, tuple[str, str]]:
    """(name, where) of each image file that is there, each file once."""
    files: dict[Path, tuple[str, str]] = {}
    for draft in drafts:
        for side in draft.sides:
            for row in files_present(side.root, side.names).nonzero()[0].tolist():
                files.setdefault(side.root / side.names[row], (side.names[row], side.where(row)))
    return files


def _looks(files: dict[Path, tuple[str, str]], progress: Progress) -> Iterator[Problem | tuple[int, int]]:
    """Each image's (height, width), or what is wrong with it."""

    def look(item: tuple[Path, tuple[str, str]]) -> Problem | tuple[int, int]:
        path, (name, where) = item
        try:
            height, width, _ = read_image(path).shape
        except CovisError as error:
            return Problem("image", name, where, str(error))
        return height, width

    with ThreadPoolExecutor(cores()) as pool:
        for done, found in enumerate(pool.map(look, files.items()), start=1):
            progress(done, len(files))
            yield found


def _shapes(sizes: Sequence[tuple[int, int]]) -> list[str]:
    """A remark where some images stand and others lie: a network sees them squeezed, and some may lie on their side."""
    tall = sum(height > width for height, width in sizes)
    wide = sum(height < width for height, width in sizes)
    if not tall or not wide:
        return []
    return [
        f"{tall:,} images are taller than wide and {wide:,} wider than tall (EXIF orientation applied): "
        "look whether some lie on their side, since nothing in a file without EXIF says so"
    ]


def _outliers(side: Draft) -> str | None:
    """A remark on positions far from all others: more than ten times as far from the median as nine in ten of them."""
    if not len(side.names) or (side.degrees is None and side.columns.get("xy") is None):
        return None
    if side.degrees is not None:
        where = side.degrees * 111_320.0 * [1.0, np.cos(np.deg2rad(np.nanmedian(side.degrees[:, 0])))]
    else:
        where = np.asarray(side.columns["xy"])
    rows = np.flatnonzero(side.positioned() & np.isfinite(where).all(axis=1))
    if len(rows) < 10:
        return None
    away = np.linalg.norm(where[rows] - np.median(where[rows], axis=0), axis=1)
    far = rows[away > 10 * np.quantile(away, 0.9)]
    if not far.size or not np.quantile(away, 0.9):
        return None
    worst, limit = int(rows[away.argmax()]), 10 * np.quantile(away, 0.9)
    return (
        f"{len(far)} of {len(side.names):,} positions lie more than {limit:,.0f} m from the median, ten times as far as nine in ten of "
        f"them; {side.names[worst]} ({side.where(worst)}) lies {away.max():,.0f} m away. "
        "A table is read without them by within=METRES"
    )


def _draft(scene: Scene) -> SceneDraft:
    def side(images: Images) -> Draft:
        return Draft(images.root, images.names, images.root, {"xy": images.xy, "heading": images.heading}, crs=images.crs)

    return SceneDraft(scene.name, scene.split, side(scene.database), None if scene.training else side(scene.queries))
