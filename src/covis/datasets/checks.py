"""Everything that is wrong with a data set, at once, before an hour of work finds it one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from covis.datasets.drafts import Draft, Problem, SceneDraft, files_present
from covis.errors import CovisError
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
        lines.append(f"  {len(self.problems):,} problems, {said}" if self.problems else f"  no problem found, {said}")
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
    try:
        drafts = [found if isinstance(found, SceneDraft) else _draft(found) for found in read()]
    except CovisError as error:
        return Report(root, layout, (), (Problem("data", str(root), str(root), str(error)),), (), 0)
    problems: list[Problem] = []
    remarks: list[str] = []
    for draft in drafts:
        for side in draft.sides:
            problems += [problem for _, problem in [*(side.missing() if files else []), *side.invalid()]]
        try:
            _, remark = draft.frame()
            remarks += [f"{draft.name}: {remark}"] if remark else []
        except CovisError as error:
            problems.append(Problem("zones", draft.name, str(draft.database.source), str(error)))
    present = _present(drafts) if decode else {}
    problems += [problem for problem in _undecodable(present, progress) if problem is not None]
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


def _undecodable(files: dict[Path, tuple[str, str]], progress: Progress) -> Iterator[Problem | None]:
    def look(item: tuple[Path, tuple[str, str]]) -> Problem | None:
        path, (name, where) = item
        try:
            read_image(path)
        except CovisError as error:
            return Problem("image", name, where, str(error))
        return None

    with ThreadPoolExecutor(cores()) as pool:
        for done, problem in enumerate(pool.map(look, files.items()), start=1):
            progress(done, len(files))
            yield problem


def _draft(scene: Scene) -> SceneDraft:
    def side(images: Images) -> Draft:
        return Draft(images.root, images.names, images.root, {"xy": images.xy, "heading": images.heading}, crs=images.crs)

    return SceneDraft(scene.name, scene.split, side(scene.database), None if scene.training else side(scene.queries))
