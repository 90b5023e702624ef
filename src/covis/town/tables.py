"""The pictures of a city as `Images`: exact poses and truths, and what a phone would have measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.images import Images
from covis.town.conditions import CONDITIONS
from covis.town.frames import SUFFIXES, frame_name
from covis.town.rides import Shot
from covis.town.surveys import City, Survey

REACH = 50.0
"""Metres: the radius of a picture's view sector, as in Leyva-Vallina et al., CVPR 2023."""

_HOURS = {"morning": 8, "evening": 19, "dusk": 21, "night": 23, "night-rain": 22, "fog": 9}
_OLD, _NEW = 2014, 2019


def describe(root: Path, city: City, shots: Sequence[Shot], side: str) -> Images:
    """The exact table of one side of a city: names `<side>/<frame>.jpg` relative to `root`, positions in the city's frame."""
    stems = _stems(shots, side)
    shift = np.array([*city.corner, 0.0])
    pose = np.array([shot.camera.pose for shot in shots]).reshape(-1, 4, 4)
    pose[:, :3, 3] += shift
    jpg, depth, classes, _ = ([f"{stem}{suffix}" for stem in stems] for suffix in SUFFIXES)
    return Images(
        root,
        tuple(jpg),
        xy=pose[:, :2, 3],
        heading=np.array([shot.camera.heading for shot in shots]),
        fov=np.array([shot.camera.fov for shot in shots]),
        reach=np.full(len(shots), REACH),
        pose=pose,
        intrinsics=np.array([shot.camera.intrinsics for shot in shots]).reshape(-1, 4),
        depth=tuple(depth),
        segmentation=tuple(classes),
        time=np.array([_moment(shot) for shot in shots]),
        sequence=tuple(f"{city.name}-{side}-ride{shot.ride.number:02d}-{shot.leg:02d}" for shot in shots),
        frame=np.array([shot.frame for shot in shots], dtype=np.int64),
        crs=city.crs,
        flags=_flags(shots, side),
    )


def measured(images: Images, survey: Survey, *, seed: int) -> Images:
    """The same pictures with the errors of a GPS receiver (which drift slowly) and of a compass."""
    if not (survey.gps or survey.compass) or images.xy is None or images.heading is None:
        return images
    rng = np.random.default_rng([seed, 51])
    drift = rng.normal(0, 1, (len(images) + 30, 2))
    smooth = np.stack([np.convolve(drift[:, k], np.ones(31) / 31**0.5, "valid") for k in (0, 1)], 1)
    turned = (images.heading + rng.normal(0, survey.compass, len(images))) % 360
    return replace(images, xy=images.xy + survey.gps * smooth, heading=np.where(turned >= 360, 0.0, turned))


def together(first: Images, second: Images) -> Images:
    """The rows of both tables, which have the same root and columns."""
    columns: dict[str, Any] = {}
    for name in ("xy", "heading", "fov", "reach", "pose", "intrinsics", "time", "frame", "depth", "segmentation", "sequence"):
        a, b = getattr(first, name), getattr(second, name)
        if a is not None:
            columns[name] = a + b if isinstance(a, tuple) else np.concatenate([a, b])
    flags = {name: np.concatenate([values, second.flags[name]]) for name, values in first.flags.items()}
    return Images(first.root, first.names + second.names, crs=first.crs, flags=flags, **columns)


def _stems(shots: Sequence[Shot], side: str) -> list[str]:
    count: dict[int, int] = {}
    stems = []
    for shot in shots:
        number = count.get(shot.ride.number, 0)
        count[shot.ride.number] = number + 1
        stems.append(f"{side}/{frame_name(shot.ride.number, number)}")
    return stems


def _moment(shot: Shot) -> float:
    """Seconds since 1970 at which a picture was taken: the ride's day and hour, and its way at 8 m/s."""
    ride = shot.ride
    light = CONDITIONS[ride.condition]
    month = 7 if light.season == 1 else 10 if light.season > 0 else 1
    year = _OLD if ride.visit.year == 0 else _NEW + ride.visit.year - 1
    day = datetime(year, month, 1 + ride.number % 28, _HOURS.get(ride.condition, 13), tzinfo=UTC)
    return day.timestamp() + shot.along / 8


def _flags(shots: Sequence[Shot], side: str) -> dict[str, NDArray[np.bool_]]:
    """Conditions, view, and MSLS's subtasks: the first letter is the query's condition, so both sides' flags mirror each other."""

    def each(values: list[bool]) -> NDArray[np.bool_]:
        return np.array(values, dtype=np.bool_)

    lights = [CONDITIONS[shot.ride.condition] for shot in shots]
    night, winter = each([light.night for light in lights]), each([light.season == 0 for light in lights])
    new = each([shot.ride.visit.year > 0 for shot in shots])
    asks = side == "queries"
    flags = {"panorama": np.zeros(len(shots), dtype=np.bool_), "night": night, "all": np.ones(len(shots), dtype=np.bool_)}
    for first, last, later in (("s", "w", winter), ("o", "n", new), ("d", "n", night)):
        flags[f"{first}2{last}"] = ~later if asks else later
        flags[f"{last}2{first}"] = later if asks else ~later
    flags |= {view: each([shot.ride.view == view for shot in shots]) for view in ("forward", "backward", "sideways")}
    flags |= {name: each([shot.ride.condition == name for shot in shots]) for name in CONDITIONS if name != "night"}
    return flags
