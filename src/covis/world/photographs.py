"""Photographing streets into files: the 7-Scenes layout, frame by frame, by several processes, resumable."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from covis.datasets.seven_scenes import write_frame, write_splits
from covis.errors import DamagedFileError, InvalidInputError, SettingsDifferError
from covis.files import read_json, write_json
from covis.lookup import resolve
from covis.world.streets import DATABASE, PRESETS, QUERIES, Street, StreetSettings, build_street, intrinsics, poses, render

FORMAT, VERSION = "covis-world", 1
FRAMES_A_TASK = 25


@dataclass(frozen=True)
class _Task:
    """Some frames of one visit, and the folder they go to."""

    settings: StreetSettings
    index: int
    seed: int
    visit: int
    frames: range
    folder: Path


def write_streets(
    out: str | Path,
    *,
    preset: str | StreetSettings = "demo",
    seed: int = 7,
    workers: int = 1,
    progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Build streets and photograph them in the 7-Scenes layout, one folder a street.

    `train-00`, `train-01`, …: both visits teach. `test-00`, …: the visit by day is the database, the one at dusk asks.
    The same settings and seed give the same bytes, whatever the number of processes. A street that is complete is left
    as it is, and a killed run goes on at the frame where it was.

    Args:
        out: the folder; `world.json` in it keeps the settings and the seed.
        preset: a name of `PRESETS`, or settings of your own.
        seed: of the town.
        workers: processes.
        progress: takes a line a finished street.

    Returns:
        The streets' folders.

    Raises:
        UnknownNameError: no preset has that name.
        InvalidInputError: `workers` is less than 1, or the seed less than 0.
        SettingsDifferError: the folder holds streets of other settings or another seed.
    """
    out = Path(out)
    settings = preset if isinstance(preset, StreetSettings) else resolve(preset, PRESETS, what="preset")
    if workers < 1 or seed < 0:
        raise InvalidInputError(f"workers must be 1 or more and the seed 0 or more; got {workers} and {seed}.")
    _hold(out, settings, seed)
    folders = [out / _name(settings, index) for index in range(settings.train + settings.test)]
    todo = [index for index, folder in enumerate(folders) if not (folder / "TrainSplit.txt").exists()]
    tasks = {index: list(_tasks(settings, index, seed, folders[index])) for index in todo}
    with _Mapping(workers) as mapped:
        finished = mapped([task for index in todo for task in tasks[index]])
        for index in todo:
            for _ in tasks[index]:
                next(finished)
            teaches, asks = ([1, 2], []) if index < settings.train else ([1], [2])
            write_splits(folders[index], train=teaches, test=asks, intrinsics=intrinsics(settings))
            if progress:
                progress(f"{folders[index].name}: {settings.database + settings.queries} frames")
    return folders


def _hold(out: Path, settings: StreetSettings, seed: int) -> None:
    """Keep what the streets are made of beside them, or hold this call against what is kept."""
    wanted = {**asdict(settings), "conditions": list(settings.conditions), "seed": seed}
    path = out / "world.json"
    if not path.exists():
        write_json(path, {"format": FORMAT, "version": VERSION, "settings": wanted})
        return
    stored = read_json(path, kind=FORMAT, version=VERSION).get("settings")
    if not isinstance(stored, dict):
        raise DamagedFileError(f"{path} must hold the settings of its streets; it holds none. Remove the folder, or choose another.")
    different = [f"{key}: {stored.get(key)} there, {wanted[key]} asked for" for key in wanted if stored.get(key) != wanted[key]]
    if different:
        raise SettingsDifferError(f"{out} holds other streets ({'; '.join(different)}). Choose another folder, or remove it.")


def _name(settings: StreetSettings, index: int) -> str:
    return f"train-{index:02d}" if index < settings.train else f"test-{index - settings.train:02d}"


def _tasks(settings: StreetSettings, index: int, seed: int, folder: Path) -> Iterator[_Task]:
    for visit, count in ((DATABASE, settings.database), (QUERIES, settings.queries)):
        for start in range(0, count, FRAMES_A_TASK):
            frames = range(start, min(start + FRAMES_A_TASK, count))
            yield _Task(settings, index, seed, visit, frames, folder / f"seq-{visit + 1:02d}")


def _photograph(task: _Task) -> None:
    street = _built(task.settings, task.index, task.seed)
    seen_from = poses(street, task.visit)
    for number in task.frames:
        if not (task.folder / f"frame-{number:06d}.pose.txt").exists():  # the last of a frame's files to be written
            frame = render(street, task.visit, number)
            write_frame(task.folder, number, rgb=frame.rgb, depth=frame.depth, pose=seen_from[number])


@functools.lru_cache(maxsize=2)
def _built(settings: StreetSettings, index: int, seed: int) -> Street:
    return build_street(settings, index, seed=seed)


class _Mapping:
    """`map` over the tasks, in this process or in several new ones; results come in the order of the tasks."""

    def __init__(self, workers: int) -> None:
        self.pool = None if workers == 1 else ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))

    def __enter__(self) -> Callable[[list[_Task]], Iterator[None]]:
        return self._map

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def _map(self, tasks: list[_Task]) -> Iterator[None]:
        return map(_photograph, tasks) if self.pool is None else self.pool.map(_photograph, tasks)
