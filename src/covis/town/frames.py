"""Frames of a survey as files: every truth of every picture, by several processes, going on where a killed run was."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from covis.town.conditions import CONDITIONS
from covis.town.photographs import Photograph, photograph
from covis.town.rides import Shot, shots
from covis.town.surveys import City, Survey
from covis.town.towns import Town, TownSettings, build_town

FRAMES_A_TASK = 25
SUFFIXES = (".jpg", ".depth.png", ".classes.png", ".things.png")
"""What a frame's files end in: picture, depth (millimetres), Cityscapes train ids, numbers of things. The last is written last."""
FARTHEST = 65.534
"""Metres that 16 bits of millimetres hold; what is further has no depth in a file."""


@dataclass(frozen=True)
class Task:
    """Some frames of one ride, and the folder they go to."""

    survey: Survey
    city: City
    seed: int
    side: str
    ride: int
    frames: range
    folder: Path


def town_seed(seed: int, city: City) -> int:
    """The seed of a city's town: no two cities of one seed share one, nor do cities of two seeds."""
    return seed * 1000 + city.number


def city_town(survey: Survey, city: City, seed: int) -> Town:
    """The town of a city; the last two are kept."""
    return _town(survey.town, town_seed(seed, city))


def city_shots(survey: Survey, city: City, seed: int, side: str) -> list[Shot]:
    """Every picture of a side, ride by ride."""
    return [shot for number in range(len(getattr(survey, side))) for shot in _shots(survey, city, seed, side, number)]


def frame_name(ride: int, number: int) -> str:
    """What a frame's files are called, without suffix.

    >>> frame_name(3, 41)
    'ride03-00041'
    """
    return f"ride{ride:02d}-{number:05d}"


def tasks(out: Path, survey: Survey, city: City, seed: int) -> Iterator[Task]:
    """Everything to be photographed in a city, in pieces."""
    for side, rides in survey.rides().items():
        for number, ride in enumerate(rides):
            for start in range(0, ride.frames, FRAMES_A_TASK):
                frames = range(start, min(start + FRAMES_A_TASK, ride.frames))
                yield Task(survey, city, seed, side, number, frames, out / "truth" / city.name / side)


def photograph_task(task: Task) -> None:
    """Take and write the frames of a task that are not there yet."""
    town = city_town(task.survey, task.city, task.seed)
    ride = task.survey.rides()[task.side][task.ride]
    taken = _shots(task.survey, task.city, task.seed, task.side, task.ride)
    task.folder.mkdir(parents=True, exist_ok=True)
    for number in task.frames:
        stem = task.folder / frame_name(ride.number, number)
        if Path(f"{stem}{SUFFIXES[-1]}").exists():
            continue
        picture = photograph(
            town,
            taken[number].camera,
            visit=ride.visit,
            condition=ride.condition,
            seed=town.seed * 1_000_000 + ride.number * 10_000 + number,
            samples=task.survey.samples,
        )
        write_picture(stem, picture, quality=CONDITIONS[ride.condition].quality)


def write_picture(stem: Path, picture: Photograph, *, quality: int = 92) -> None:
    """Write a picture and its truths beside each other, as `SUFFIXES` says; each file is whole or not there."""
    millimetres = np.where(picture.depth <= FARTHEST, np.rint(picture.depth * np.float32(1000)), 0).astype(np.uint16)
    images: tuple[NDArray[Any], ...] = (picture.rgb, millimetres, picture.classes, picture.instances.astype(np.uint16))
    for suffix, pixels in zip(SUFFIXES, images, strict=True):
        options: dict[str, Any] = {"format": "JPEG", "quality": quality} if suffix == ".jpg" else {"format": "PNG", "compress_level": 2}
        temporary = stem.with_name(f".{stem.name}{suffix}.partial")
        Image.fromarray(pixels).save(temporary, **options)
        # Not synced to the disk: after a kill nothing is lost, and ten thousands of frames cannot wait for the disk.
        os.replace(temporary, f"{stem}{suffix}")


class Workers:
    """`map` over tasks, in this process or in several new ones; results come in the order of the tasks."""

    def __init__(self, count: int) -> None:
        self.pool = None if count == 1 else ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def run(self, todo: Sequence[Task]) -> Iterator[None]:
        """Do them all."""
        return map(photograph_task, todo) if self.pool is None else self.pool.map(photograph_task, todo)


@functools.lru_cache(maxsize=2)
def _town(settings: TownSettings, seed: int) -> Town:
    return build_town(settings, seed=seed)


@functools.lru_cache(maxsize=32)
def _shots(survey: Survey, city: City, seed: int, side: str, ride: int) -> list[Shot]:
    return shots(city_town(survey, city, seed), survey.rides()[side][ride], size=survey.size)
