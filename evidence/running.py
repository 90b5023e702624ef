"""Running: cells of the plan that have no record are run, and what they left is kept as records.

WORK/<data>/           a synthetic world, or photographs as a study reads them
     <study>/          the runs of a study (covis.sweeps); a cell's folder is removed once its record is written
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from covis.cells import Cell as SweptCell
from covis.config import to_table
from covis.errors import CovisError, InvalidInputError, MissingFileError, SettingsDifferError
from covis.files import locked, read_json, write_text
from covis.images import Images, Scene
from covis.latent import Relation
from covis.lookup import resolve
from covis.scores import Scores
from covis.settings import Recipe
from covis.studies import folder_name
from evidence.plan import Cell, Experiment, Plan, Source
from evidence.records import Asked, Record, Scored, Store

Say = Callable[[str], None]
Measure = Callable[..., Iterable[tuple[str, Scores, Mapping[str, float]]]]
"""`(*, data, work, say)`: what is measured by a function of its own: (arm, scores, pooled numbers)."""


@dataclass(frozen=True)
class Places:
    """Where things lie.

    Attributes:
        cells: the records.
        work: what is large and can be made again.
        data: real photographs and weights; None where there are none.
    """

    cells: Path
    work: Path
    data: Path | None = None


def open_cells(plan: Plan, places: Places, cells: Iterable[Cell], *, overwrite: bool = False) -> list[Cell]:
    """The cells that have no record yet.

    Raises:
        SettingsDifferError: a record was made with other settings than the plan has now, and `overwrite` is false.
    """
    store, left = Store(places.cells), []
    for cell in cells:
        record = store.known(cell.study.name, cell.arm, cell.seed)
        if record is not None and not overwrite:
            if found := differing(record.settings, settings(cell, plan)):
                raise SettingsDifferError(
                    f"{store.path(cell.study.name, cell.arm, cell.seed)} was made with other settings: {found}. "
                    "Remove it, or pass --overwrite, to run that cell again."
                )
            continue
        left.append(cell)
    return left


def run(plan: Plan, places: Places, *, cells: Sequence[Cell], workers: int = 1, say: Say = print) -> dict[tuple[str, str, int], str]:
    """Run cells, each in a process with one thread, and keep their records; returns what failed and why.

    A cell that another study has run with the same settings is not run again: its record is taken over.

    Args:
        plan: the plan that they are of.
        places: where things lie.
        cells: what is to be run.
        workers: processes.
        say: takes a line of progress.
    """
    failed: dict[tuple[str, str, int], str] = {}
    for name in dict.fromkeys(cell.experiment.data for cell in cells):
        try:
            prepare(plan.data[name], name, places, workers=workers, say=say)
        except CovisError as error:
            say(f"left out: what is measured on {name}: {error}")
            cells = [cell for cell in cells if cell.experiment.data != name]
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started now: the same sums in the same order on every machine
    with ProcessPoolExecutor(max_workers=workers, mp_context=get_context("spawn")) as pool:
        begun = {pool.submit(_run_one, cell, plan, places): cell for cell in cells}
        for number, (cell, future) in enumerate(_finished(begun), start=1):
            where = f"[{number}/{len(cells)}] {cell.study.name}: {cell.arm}, seed {cell.seed}"
            try:
                say(f"{where}: {future.result()}")
            except CovisError as error:
                failed[cell.study.name, cell.arm, cell.seed] = str(error)
                say(f"{where}: failed: {error}")
    return failed


def measured(experiment: Experiment, places: Places, *, overwrite: bool = False, say: Say = print) -> None:
    """Run what is measured by a function of its own, where it has no record yet."""
    store = Store(places.cells)
    whole = places.cells / experiment.study / "whole"  # written last: a run that was killed in between is done again
    if (whole.exists() and not overwrite) or places.data is None:
        return
    measure: Measure = resolve(experiment.measure, {}, what="measurement")
    for arm, scores, values in measure(data=places.data, work=places.work / experiment.study, say=say):
        scored = Scored.of(scores, store.keep(Asked.of(scores)), values=values)
        store.save(Record(experiment.study, arm, 0, {"trained": scored}, machine=machine()))
    write_text(whole, "measured\n")


def prepare(source: Source, name: str, places: Places, *, workers: int = 1, say: Say = print) -> Path:
    """Make or find the data of an experiment; returns their folder.

    Raises:
        MissingFileError: real photographs are asked for, and there are none.
    """
    if source.preset:
        from covis.town import write_town  # embreex

        out = places.work / name
        out.mkdir(parents=True, exist_ok=True)
        with locked(places.work / f".{name}.lock", waiting=lambda: say(f"waiting for another process that builds {name}")):
            if not (out / "done").exists():
                say(f"building {name}")
                write_town(out, layout="table", preset=source.preset, seed=source.seed, workers=workers)
                (out / "done").touch()
        return out
    if places.data is None:
        raise MissingFileError("Real photographs must be below --data (or $COVIS_DATA); neither was given.")
    from evidence.photographs import prepare as photographs

    return photographs(source.photographs, places.data, places.work)


def settings(cell: Cell, plan: Plan) -> dict[str, Any]:
    """All that a cell's numbers depend on, as plain values."""
    recipe = to_table(_recipe(cell))
    del recipe["name"], recipe["description"]
    source = plan.data[cell.experiment.data]
    data = {key: value for key, value in vars(source).items() if value}
    others = {"weights": Path(cell.experiment.weights).name, "maps": cell.experiment.maps}
    return {"recipe": recipe, "data": data, **{key: value for key, value in others.items() if value}}


def differing(before: Any, now: Any, where: str = "") -> str:
    """What a record's settings have otherwise than those of now, with its keys; empty where nothing. New settings do not count.

    >>> differing({"a": {"b": 1}}, {"a": {"b": 2, "c": 3}})
    'a.b 1 there, 2 now'
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        parts = (differing(value, now.get(key), f"{where}.{key}" if where else str(key)) for key, value in before.items())
        return "; ".join(part for part in parts if part)
    return "" if _as_json(before) == _as_json(now) else f"{where} {before!r} there, {now!r} now"


def machine() -> str:
    """What this runs on, in words."""
    import torch

    return f"{platform.machine()}, one thread a cell, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"


def _recipe(cell: Cell) -> Recipe:
    recipe = cell.study.recipes()[cell.arm]
    return replace(recipe, train=replace(recipe.train, seed=cell.seed))


def _run_one(cell: Cell, plan: Plan, places: Places) -> str:
    """In a process of its own: run a cell and keep its record; returns a line on it."""
    store, begun = Store(places.cells), time.perf_counter()
    if (same := _same(cell, plan, store)) is not None:
        store.save(replace(same, study=cell.study.name, arm=cell.arm))
        return f"as {same.study}: {same.arm}"
    record, out = _swept(cell, plan, places, store)
    store.save(record)
    shutil.rmtree(out, ignore_errors=True)
    said = ", ".join(f"{name} {_mean(one):.3f}" for name, one in record.scored.items() if name in cell.study.scores)
    return f"recall@1 {said} ({time.perf_counter() - begun:.0f} s)"


def _swept(cell: Cell, plan: Plan, places: Places, store: Store) -> tuple[Record, Path]:
    """Run a cell as a sweep of one arm and one seed; returns its record, and the folder of its run."""
    from covis.sweeps import sweep

    experiment, folder = cell.experiment, places.work / cell.study.name
    alone = replace(cell.study, arms={cell.arm: cell.study.variants()[cell.arm]}, grid={}, baseline="", seeds=(cell.seed,))
    result = sweep(
        alone,
        prepare(plan.data[experiment.data], experiment.data, places),
        out=folder,
        weights=None if not experiment.weights else _below(places, experiment.weights),
        maps=None if not experiment.maps else prepare(Source(photographs=experiment.maps), experiment.maps, places),
        overwrite=True,
    )
    if result.failed:
        raise InvalidInputError(next(iter(result.failed.values())))
    run_folder = folder / folder_name(cell.arm) / str(cell.seed)
    swept = SweptCell.load(folder / "cells" / folder_name(cell.arm) / str(cell.seed))
    order = read_json(run_folder / "steps" / "read-test.json")["settings"]["contents"]
    queries = tuple(Scene.read(run_folder / "scenes" / "test" / name).queries for name in order)
    scored = {name: _kept(scores, store, queries, swept.latent.get(name)) for name, scores in swept.scores.items()}
    for probe in experiment.probes:
        for name, (scores, values) in _probed(probe, cell, run_folder, places).items():
            scored[name] = _kept(scores, store, queries, None, values)
    training = {} if swept.training is None else {key: float(value) for key, value in vars(swept.training).items()}
    return Record(cell.study.name, cell.arm, cell.seed, scored, training, settings(cell, plan), machine()), run_folder


def _same(cell: Cell, plan: Plan, store: Store) -> Record | None:
    """A record of another study with the same settings and all that is scored here."""
    wanted = settings(cell, plan)
    for study in sorted(path.name for path in store.folder.iterdir()) if store.folder.is_dir() else ():
        for records in store.records(study).values() if study not in ("asked", cell.study.name) else ():
            record = records.get(cell.seed)
            if record is not None and not differing(record.settings, wanted) and set(cell.study.scores) <= set(record.scored):
                return record
    return None


def _kept(
    scores: Scores, store: Store, queries: tuple[Images, ...], latent: Relation | None, values: Mapping[str, float] | None = None
) -> Scored:
    own = queries if tuple(name for images in queries for name in images.names) == scores.queries else ()
    return Scored.of(scores, store.keep(Asked.of(scores, own)), latent=latent, values=values)


def _probed(probe: str, cell: Cell, run_folder: Path, places: Places) -> dict[str, tuple[Scores, dict[str, float]]]:
    """What is measured of a run besides: name -> scores, pooled numbers."""
    from evidence import probes

    if probe == "dimensions":
        return {name: (scores, {}) for name, scores in probes.dimensions(run_folder, _recipe(cell)).items()}
    if places.data is None:
        return {}
    folder = places.work / "transfer"
    if "trained" in cell.study.scores:
        found = probes.transfer(run_folder / "train" / "model", places.data, folder)
    else:
        found = probes.transfer(run_folder / "untrained", places.data, folder)
        found |= {f"tiny image {name}": scores for name, scores in probes.transfer(None, places.data, folder).items()}
    return {name: (scores, {}) for name, scores in found.items()}


def _below(places: Places, name: str) -> Path:
    if places.data is None:
        raise MissingFileError("Weights must be below --data (or $COVIS_DATA); neither was given.")
    return places.data / name


def _mean(scored: Scored) -> float:
    return float(np.nanmean(scored.hits["recall@1"]))


def _finished(begun: Mapping[Future[str], Cell]) -> Iterator[tuple[Cell, Future[str]]]:
    for future in as_completed(begun):
        yield begun[future], future


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, (list, tuple)) else value
