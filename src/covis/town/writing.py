"""Whole surveys as data sets: towns built and photographed, and written in a layout by the package's own writers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from covis.datasets import WRITERS, read
from covis.errors import InvalidInputError, SettingsDifferError
from covis.files import read_json, write_json
from covis.images import Images, Scene
from covis.lookup import resolve
from covis.town.frames import Workers, city_shots, tasks, town_seed
from covis.town.surveys import SURVEYS, City, Survey
from covis.town.tables import describe, measured, together

FORMAT, VERSION = "covis-town", 1
LAYOUTS = ("msls", "utm", "7scenes", "table")
Progress = Callable[[str], None]


def write_town(
    out: str | Path,
    *,
    layout: str = "msls",
    preset: str | Survey = "tiny",
    seed: int = 7,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Path]:
    """Build the towns of a survey, photograph them, and write them in a layout.

        <out>/…                        the layout's own files, as `covis.datasets.write` writes them
        <out>/truth/<city>/            database.csv and queries.csv: exact poses, intrinsics and every file's name; a plain table
        <out>/truth/<city>/<side>/     <frame>.depth.png, <frame>.classes.png, <frame>.things.png, where the layout holds none
        <out>/town.json                what it was made from

    Positions and headings in the layout have the survey's GPS and compass noise; those in `truth` are exact. In the layouts
    utm, table and 7scenes a training scene has both sides' pictures on one side. The same arguments and versions give the
    same bytes, whatever the number of processes. A killed run goes on at the frame where it was.

    Args:
        out: the folder.
        layout: "msls", "utm", "7scenes" (one camera a scene: every field of view is that of the first outing), or "table".
        preset: a name of `SURVEYS`, or a survey of your own.
        seed: of the towns.
        workers: processes.
        progress: takes a line now and then.

    Returns:
        The folders of the scenes in the layout.

    Raises:
        UnknownNameError: no preset has that name.
        InvalidInputError: there is no such layout, `workers` is less than 1 or the seed less than 0.
        SettingsDifferError: the folder holds a survey of other settings.
        MissingExtraError: embreex is not installed.
    """
    out = Path(out)
    if layout not in LAYOUTS:
        raise InvalidInputError(f"The layout must be one of {', '.join(LAYOUTS)}; got {layout!r}.")
    if workers < 1 or seed < 0:
        raise InvalidInputError(f"workers must be 1 or more and the seed 0 or more; got {workers} and {seed}.")
    survey = preset if isinstance(preset, Survey) else resolve(preset, SURVEYS, what="preset")
    survey = _one_lens(survey) if layout == "7scenes" else survey
    _hold(out, survey, layout=layout, seed=seed)
    chosen = survey.chosen()
    _photograph(out, survey, [city for _, city in chosen if not _state(out, city)], seed=seed, workers=workers, progress=progress)
    written = []
    for split, city in chosen:
        written.append(_lay_out(out, survey, city, layout=layout, split=split, seed=seed))
        if progress:
            progress(f"{city.name}: {split}, in the layout {layout}")
    return written


def fingerprint(out: str | Path) -> str:
    """16 hex digits that change with any byte of any file below a folder, or its name."""
    hashed = hashlib.sha256()
    for path in sorted(path for path in Path(out).rglob("*") if path.is_file()):
        hashed.update(path.relative_to(out).as_posix().encode("utf-8") + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return hashed.hexdigest()[:16]


def _one_lens(survey: Survey) -> Survey:
    fov = survey.database[0].fov
    sides = {side: tuple(replace(outing, fov=fov) for outing in getattr(survey, side)) for side in ("database", "queries")}
    return replace(survey, **sides)  # type: ignore[arg-type]


def _hold(out: Path, survey: Survey, *, layout: str, seed: int) -> None:
    """Keep what the towns are made of beside them, or hold this call against what is kept."""
    wanted = json.loads(json.dumps({**asdict(survey), "layout": layout, "seed": seed}))
    path = out / "town.json"
    if not path.exists():
        write_json(path, {"format": FORMAT, "version": VERSION, "settings": wanted})
        return
    stored = read_json(path, kind=FORMAT, version=VERSION).get("settings")
    stored = stored if isinstance(stored, dict) else {}
    different = [f"{key}: {stored.get(key)} there, {wanted[key]} asked for" for key in wanted if stored.get(key) != wanted[key]]
    if different:
        raise SettingsDifferError(f"{out} holds other towns ({'; '.join(different)[:400]}). Choose another folder, or remove it.")


def _photograph(out: Path, survey: Survey, cities: list[City], *, seed: int, workers: int, progress: Progress | None) -> None:
    todo = [task for city in cities for task in tasks(out, survey, city, seed)]
    total, done = sum(len(task.frames) for task in todo), 0
    with Workers(workers) as pool:
        for task, _ in zip(todo, pool.run(todo), strict=True):
            done += len(task.frames)
            if progress:
                progress(f"{task.city.name}: {done} of {total} frames")


def _lay_out(out: Path, survey: Survey, city: City, *, layout: str, split: str, seed: int) -> Path:
    """Write one city in the layout, move what lies twice, and write its exact tables."""
    folder = out / "truth" / city.name
    exact = [describe(folder, city, city_shots(survey, city, seed, side), side) for side in ("database", "queries")]
    noisy = [measured(images, survey, seed=town_seed(seed, city) * 10 + k) for k, images in enumerate(exact)]
    scene = _scene([_named_alone(images) for images in noisy] if layout == "utm" else noisy, city.name, split, layout)
    target = _target(out, city.name, split, layout)
    if not _state(out, city):
        options: dict[str, Any] = {} if layout == "7scenes" else {"files": "copy"}
        WRITERS[layout]([scene], out, overwrite=True, **options)
        _set_state(out, city, "written")
    if _state(out, city) == "written":
        placed = _read_back(out, city.name, scene.split, layout)
        for side, images in zip(("database", "queries"), _truths(out, exact, placed, scene), strict=True):
            replace(images, root=Path("../..")).write(folder / f"{side}.csv", overwrite=True)
        _set_state(out, city, "done")
    return target


def _scene(sides: list[Images], name: str, split: str, layout: str) -> Scene:
    if split == "train" and layout != "msls":
        both = together(*sides)
        return Scene(name, "train", both, both)
    return Scene(name, "test" if layout == "7scenes" else split, *sides)


def _named_alone(images: Images) -> Images:
    """What a UTM name can hold; its writer warns of anything more, which here lies in the truth beside."""
    return Images(images.root, images.names, xy=images.xy, heading=images.heading, time=images.time, crs=images.crs)


def _target(out: Path, name: str, split: str, layout: str) -> Path:
    return out / ("test" if split == "test" else "train_val") / name if layout == "msls" else out / name


def _read_back(out: Path, name: str, split: str, layout: str) -> Scene:
    """The scene as the layout's reader gives it: the rows are those that were written, in their order."""
    if layout == "msls":
        return read(layout, out, split=split, cities=name)[0]
    return read(layout, out / name, split=split)[0]


def _truths(out: Path, exact: list[Images], placed: Scene, written: Scene) -> list[Images]:
    """The exact tables with the names of where files lie now, relative to `out`; staged files that lie twice take their copy's place."""
    there = [placed.database] if written.training else [placed.database, placed.queries]
    names: dict[str, list[str]] = {"names": [], "depth": [], "segmentation": []}
    staged: dict[str, list[str]] = {column: [name for images in exact for name in getattr(images, column)] for column in names}
    root = exact[0].root
    for column, collected in names.items():
        moved = [images.root / name for images in there for name in (getattr(images, column) or ())]
        if moved and len(moved) != len(staged[column]):
            raise InvalidInputError(f"{out} must hold the {len(staged[column])} pictures that were written; found {len(moved)}. Remove it.")
        for row, name in enumerate(staged[column]):
            source, target = root / name, moved[row] if moved else root / name
            if moved and source.exists():
                os.replace(source, target)
            collected.append(target.relative_to(out.absolute() if target.is_absolute() else out).as_posix())
    split, tables = len(exact[0]), []
    for images, rows in zip(exact, (slice(0, split), slice(split, None)), strict=True):
        columns = {column: tuple(collected[rows]) for column, collected in names.items()}
        tables.append(replace(images, root=out, **columns))  # type: ignore[arg-type]
    return tables


def _state(out: Path, city: City) -> str:
    """What has been done of a city: "", "written" (the layout is there, pictures may lie twice) or "done"."""
    path = out / "truth" / city.name / "state.json"
    return str(read_json(path, kind=FORMAT, version=VERSION).get("state")) if path.exists() else ""


def _set_state(out: Path, city: City, state: str) -> None:
    write_json(out / "truth" / city.name / "state.json", {"format": FORMAT, "version": VERSION, "state": state})
