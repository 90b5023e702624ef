"""Photographs become label maps: any segmenter over any images, map by map, resumable."""

from __future__ import annotations

import os
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from covis.errors import CovisError, CovisWarning, DamagedFileError, InvalidInputError, MissingFileError
from covis.images import Images, Scene
from covis.progress import showing
from covis.rasters import read_image, write_label_map
from covis.segmentation.opening import open_segmenter
from covis.segmentation.records import Task, begin, done_already, finish, settings_digest, tasks_of
from covis.segmentation.segmenters import Segmenter, check_maps, palette_of
from covis.semantics.maps import outer_folder

Damaged = Literal["stop", "skip"]
Given = TypeVar("Given", Images, Scene, list[Scene])

_AHEAD = 2  # batches that are being decoded while the network works on another


def segment(
    given: Given,
    model: Segmenter | str | Path,
    *,
    out: str | Path,
    classes: str | None = None,
    options: Mapping[str, Any] | None = None,
    base: str | Path | None = None,
    batch: int = 4,
    damaged: Damaged = "stop",
    overwrite: bool = False,
    progress: bool = False,
    spec: str | None = None,
) -> Given:
    """Write a label map of every photograph: a PNG of class numbers at the photograph's own size, upright.

    A map is called as its photograph, with the suffix .png (`map_names`). It has a palette, and a note of its photograph, of what
    made it and of how many pixels each number has. Beside the maps stands `segmentation.json`. A killed run goes on where it was.

    Args:
        given: a table of photographs, a scene, or scenes; a photograph that occurs several times is segmented once.
        model: a segmenter, or a spec as `open_segmenter` takes it.
        out: the folder of the maps.
        classes: of a spec: the name of a numbering (`covis.semantics.numberings`); absent: found by the network's class names.
        options: of a spec: what else it takes.
        base: the folder that maps' names are relative to; absent: the photographs' root; of several roots, or of names that lead out of
            theirs (`../photos/a.jpg`), the lowest folder above roots and photographs.
        batch: photographs that the segmenter sees at once.
        damaged: what becomes of a photograph that is missing or does not decode. "stop": an error; what was segmented before is
            kept. "skip": it has no map and no row in what is returned; the record has its name and the reason, and a
            CovisWarning says how many there are.
        overwrite: segment anew what is there, and replace the record.
        progress: show on stderr how many are done, how fast, and how long it still takes.
        spec: what the record calls a model that was opened before.

    Returns:
        What was given, with the maps in the column `segmentation`, relative to the root.

    Raises:
        MissingFileError: a photograph is not there.
        DamagedFileError: a photograph does not decode, or none of them does.
        SettingsDifferError: the folder's maps were made by another model, with other settings, or of photographs that have changed.
        OutputExistsError: the folder holds something else.
        InvalidInputError: the segmenter breaks its contract, a map would replace a photograph, or an argument is none.
        OutputFailedError: the disk is full, or does not let itself be written.
    """
    if batch < 1:
        raise InvalidInputError(f"A batch must hold at least 1 photograph; got {batch}.")
    if damaged not in get_args(Damaged):
        raise InvalidInputError(f"What becomes of damaged photographs must be 'stop' or 'skip'; got {damaged!r}.")
    tables, out = _tables(given), Path(out)
    segmenter = open_segmenter(model, classes=classes, options=options) if isinstance(model, (str, Path)) else model
    places = _places(tables)
    files = list(dict.fromkeys(photograph for images in tables for photograph in places.photographs(images)))
    tasks = tasks_of(files, base=places.base(tables, base), out=out, made=settings_digest(segmenter))
    if damaged == "stop" and (missing := [task for task in tasks if task.size < 0]):
        raise MissingFileError(
            f"Every photograph must exist; {len(missing)} of {len(tasks)} do not. The first: {missing[0].photograph}. "
            "Check the data folder, or skip what is damaged (--damaged skip)."
        )
    named = spec or (str(model) if isinstance(model, (str, Path)) else type(model).__name__)
    there = Path(named).expanduser()
    named = there.resolve().name if there.exists() else named  # a folder of maps is passed on: no paths of this machine
    begin(out, segmenter, model=named, overwrite=overwrite)
    run = _Run(segmenter, tasks, skips=damaged == "skip")
    run.go(batch=batch, overwrite=overwrite, progress=progress)
    finish(out, segmenter, pixels=run.pixels, images=len(tasks) - len(run.skipped), skipped=list(run.skipped.values()))
    if run.skipped:
        first = next(iter(run.skipped.values()))["reason"]
        warnings.warn(f"{len(run.skipped)} of {len(tasks)} photographs have no label map. The first: {first}", CovisWarning, stacklevel=2)
    above = Path(os.path.realpath(out))
    targets = {task.photograph: above / task.target.relative_to(out) for at, task in enumerate(tasks) if at not in run.skipped}
    mapped: Given = _with_column(given, targets, places)
    return mapped


@dataclass
class _Run:
    """One pass over the tasks, with what comes of it."""

    segmenter: Segmenter
    tasks: Sequence[Task]
    skips: bool

    def __post_init__(self) -> None:
        self.pixels: Counter[int] = Counter()
        self.skipped: dict[int, dict[str, str]] = {}
        self._palette = palette_of(self.segmenter.classes)

    def go(self, *, batch: int, overwrite: bool, progress: bool) -> None:
        there = done_already(self.tasks, overwrite=overwrite)
        for counts in there.values():
            self.pixels.update(counts)
        left = [position for position in range(len(self.tasks)) if position not in there]
        done = len(there)
        with showing(len(self.tasks), done=done, what=f"photographs ({self.segmenter.engine})", shown=progress) as tell:
            for positions, photographs in _decoded(self.tasks, left, batch):
                self._batch(positions, photographs)
                done += len(positions)
                tell(done)
        if self.tasks and len(self.skipped) == len(self.tasks):
            raise DamagedFileError(
                f"At least one photograph must decode; none of the {len(self.tasks)} does. The first: {self.skipped[0]['reason']}"
            )

    def _batch(self, positions: Sequence[int], decoded: Sequence[NDArray[np.uint8] | CovisError]) -> None:
        good: dict[int, NDArray[np.uint8]] = {}
        for position, photograph in zip(positions, decoded, strict=True):
            if isinstance(photograph, CovisError):
                self._skip(position, photograph)
            else:
                good[position] = photograph
        if not good:
            return
        maps = self.segmenter.segment(list(good.values()))
        check_maps(maps, list(good.values()), self.segmenter)
        for position, numbers in zip(good, maps, strict=True):
            counts = np.bincount(numbers.ravel())
            there = {int(number): int(counts[number]) for number in np.flatnonzero(counts)}
            task = self.tasks[position]
            write_label_map(task.target, numbers, palette=self._palette, note=task.note(there))
            self.pixels.update(there)

    def _skip(self, position: int, error: CovisError) -> None:
        task, cause = self.tasks[position], error.__cause__
        # A disk that went away damages no photograph.
        gone = task.size >= 0 and (isinstance(error, MissingFileError) or (isinstance(cause, OSError) and cause.errno is not None))
        if not self.skips or gone:
            raise error
        self.skipped[position] = {"name": task.name, "reason": str(error).replace(str(task.photograph), task.name)}


def _decoded(
    tasks: Sequence[Task], left: Sequence[int], batch: int
) -> Iterator[tuple[Sequence[int], list[NDArray[np.uint8] | CovisError]]]:
    """Batches of positions and photographs; the next ones are decoded while the caller works on one."""
    waiting: deque[tuple[Sequence[int], list[Future[NDArray[np.uint8] | CovisError]]]] = deque()
    pool = ThreadPoolExecutor(2)
    try:
        for start in range(0, len(left), batch):
            positions = left[start : start + batch]
            waiting.append((positions, [pool.submit(_read, tasks[one].photograph) for one in positions]))
            if len(waiting) > _AHEAD:
                ready, futures = waiting.popleft()
                yield ready, [future.result() for future in futures]
        while waiting:
            ready, futures = waiting.popleft()
            yield ready, [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)


def _read(path: Path) -> NDArray[np.uint8] | CovisError:
    try:
        return read_image(path)
    except (MissingFileError, DamagedFileError) as error:
        return error


def _tables(given: Images | Scene | list[Scene]) -> list[Images]:
    if isinstance(given, Images):
        return [given]
    scenes = [given] if isinstance(given, Scene) else given
    return [side for scene in scenes for side in ((scene.database,) if scene.training else (scene.database, scene.queries))]


@dataclass(frozen=True)
class _Places:
    """Where photographs lie.

    Attributes:
        real: whether links are followed: where a name leads out of a root that is a link, ".." counts from where the link points to.
    """

    real: bool

    def root(self, images: Images) -> str:
        return os.path.realpath(images.root) if self.real else os.path.abspath(images.root)

    def photographs(self, images: Images) -> list[Path]:
        root = self.root(images)
        return [Path(os.path.normpath(os.path.join(root, name))) for name in images.names]

    def base(self, tables: Sequence[Images], base: str | Path | None) -> Path:
        """The folder that maps are named by."""
        if base is not None:
            return Path(os.path.realpath(base) if self.real else os.path.abspath(base))
        folders = [outer_folder(self.root(images), images.names) for images in tables]
        return Path(os.path.commonpath(folders)) if folders else Path.cwd()


def _places(tables: Sequence[Images]) -> _Places:
    return _Places(any(".." in name for images in tables for name in images.names))


def _with_column(given: Any, targets: Mapping[Path, Path], places: _Places) -> Any:
    def mapped(images: Images) -> Images:
        photographs, root = places.photographs(images), os.path.realpath(images.root)
        kept = [row for row, photograph in enumerate(photographs) if photograph in targets]
        column = tuple(Path(os.path.relpath(targets[photographs[row]], root)).as_posix() for row in kept)
        return replace(images if len(kept) == len(images) else images.select(kept), segmentation=column)

    def scene_of(scene: Scene) -> Scene:
        database = mapped(scene.database)
        return replace(scene, database=database, queries=database if scene.training else mapped(scene.queries))

    if isinstance(given, Images):
        return mapped(given)
    if isinstance(given, Scene):
        return scene_of(given)
    return [scene_of(scene) for scene in given]
