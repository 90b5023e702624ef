"""Running: cells of the plan that have no record are run, and what they left is kept as records.

WORK/<data>/           a synthetic world, or photographs as a study reads them
     studies/<study>/  the runs of a study (covis.sweeps); a cell's folder is removed once its record is written
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np

from covis.cells import Cell as SweptCell
from covis.config import to_table
from covis.errors import InvalidInputError, SettingsDifferError
from covis.files import digest, locked, read_json, write_text
from covis.images import Images, Scene
from covis.latent import Relation
from covis.lookup import resolve
from covis.scores import Scores
from covis.studies import folder_name
from evidence.plan import Cell, Experiment, Plan, Source
from evidence.preparing import TRANSFER, Places, Say, asked_sets, below, prepare, prepared
from evidence.records import Asked, Record, Scored, Store

__all__ = ["Places", "differing", "lacking", "machine", "measured", "open_cells", "prepare", "run", "settings"]

FREE = ("data", "teacher", "student", "weights")
"""Tables of settings whose keys are given or not, as those that end in "options"; others have every key, with its default."""
NEWER = ("data.survey",)
"""Settings that older records do not hold: where one is missing it is not known, and nothing differs."""
STUDIES = "studies"
"""The folder in `Places.work` where studies run: one may be called as the data that it is run on."""
WINDOWS_WORKERS = 61
"""More processes a pool cannot have on Windows."""
Measure = Callable[..., Iterable[tuple[str, Scores, Mapping[str, float]]]]
"""`(*, data, work, say, known, overwrite)`: what is measured by a function of its own, one by one: (arm, scores, pooled numbers).

Arms in `known` are left out; with `overwrite` nothing of an earlier run is used.
"""


def open_cells(plan: Plan, places: Places, cells: Iterable[Cell], *, overwrite: bool = False, say: Say = lambda _: None) -> list[Cell]:
    """The cells that have no record yet, or one that lacks what can be measured now: it was made where there were no photographs.

    Raises:
        SettingsDifferError: a record was made with other settings than the plan has now, and `overwrite` is false.
    """
    store, left, lacks = Store(places.cells), [], Counter[tuple[str, str]]()
    for cell in cells:
        record = store.known(cell.study.name, cell.arm, cell.seed)
        if record is not None and not overwrite:
            if found := differing(record.settings, settings(cell, plan)):
                raise SettingsDifferError(
                    f"{store.path(cell.study.name, cell.arm, cell.seed)} was made with other settings: {found}. "
                    "Remove it, or pass --overwrite, to run that cell again."
                )
            if not (found := lacking(record, cell, places)):
                continue
            lacks[cell.study.name, found] += 1
        left.append(cell)
    for (study, found), count in lacks.items():
        say(f"{study}: {count} cells are run again: their records lack {found}")
    return left


def lacking(record: Record, cell: Cell, places: Places) -> str:
    """What of a cell's probes its record does not hold, though it can be measured; empty where nothing."""
    if not cell.experiment.probes:
        return ""
    sets = [f"on {name}" for name in asked_sets(places)] if "transfer" in cell.experiment.probes else []
    parts = [name for name in sets if name not in record.scored]
    if "dimensions" in cell.experiment.probes and not any(re.match(r"whitened \d", name) for name in record.scored):
        parts.insert(0, "fewer dimensions")
    return ", ".join(parts)


def run(plan: Plan, places: Places, *, cells: Sequence[Cell], workers: int = 1, say: Say = print) -> dict[tuple[str, str, int], str]:
    """Run cells, each in a process with one thread, and keep their records; returns what failed and why.

    A cell that another study has run with the same settings is not run again: its record is taken over. One that another process is
    running now comes last, and is waited for.

    Args:
        plan: the plan that they are of.
        places: where things lie.
        cells: what is to be run.
        workers: processes, at least 1.
        say: takes a line of progress.

    Raises:
        InvalidInputError: there is no worker.
    """
    if workers < 1:
        raise InvalidInputError(f"At least 1 worker must run the cells; got {workers}.")
    workers = min(workers, WINDOWS_WORKERS) if sys.platform == "win32" else workers
    failed: dict[tuple[str, str, int], str] = {}
    store = Store(places.cells)
    places.work.mkdir(parents=True, exist_ok=True)
    cells = prepared(plan, places, cells, workers=workers, say=say)
    # One thread in the processes that are started now: the same sums in the same order on every machine.
    with _environment("OMP_NUM_THREADS", "1"), _pool(workers) as pool:
        left = [(cell, store.known(cell.study.name, cell.arm, cell.seed) is not None) for cell in cells]
        for wait in (False, True):
            begun = {pool.submit(_run_one, cell, plan, places, again=again, wait=wait): (cell, again) for cell, again in left}
            done, left = len(cells) - len(left), []
            for future in as_completed(begun):
                cell, again = begun[future]
                try:
                    said = future.result()
                except Exception as error:  # whatever one cell dies of, the others go on; the message is kept and said
                    failed[cell.study.name, cell.arm, cell.seed] = f"{type(error).__name__}: {error}"
                    said = f"failed: {error}"
                if said is None:
                    left.append((cell, again))
                    continue
                done += 1
                say(f"[{done}/{len(cells)}] {cell.study.name}: {cell.arm}, seed {cell.seed}: {said}")
    return failed


def measured(experiment: Experiment, places: Places, *, overwrite: bool = False, say: Say = print) -> None:
    """Run what is measured by a function of its own, where it has no record yet; each record is kept as soon as it is there.

    Raises:
        CovisError: whatever is wrong with what it needs.
    """
    store = Store(places.cells)
    whole = places.cells / experiment.study / "whole"  # written last: a run that was killed in between goes on
    if whole.exists() and not overwrite:
        return
    if places.data is None:
        say(f"left out: {experiment.study}: it needs real photographs and weights below --data (or $COVIS_DATA); neither was given")
        return
    measure: Measure = resolve(experiment.measure, {}, what="measurement")
    known = frozenset() if overwrite else frozenset(store.records(experiment.study))
    work = places.work / STUDIES / experiment.study
    for arm, scores, values in measure(data=places.data, work=work, say=say, known=known, overwrite=overwrite):
        scored = Scored.of(scores, store.keep(Asked.of(scores)), values=values)
        store.save(Record(experiment.study, arm, 0, {"trained": scored}, machine=machine()))
    write_text(whole, "measured\n")


def settings(cell: Cell, plan: Plan) -> dict[str, Any]:
    """All that a cell's numbers depend on, as plain values."""
    recipe = to_table(cell.recipe())
    del recipe["name"], recipe["description"]
    source = plan.data[cell.experiment.data]
    data = {key: value for key, value in vars(source).items() if value}
    if source.preset:
        from covis.town.surveys import SURVEYS

        data["survey"] = digest(asdict(SURVEYS[source.preset]))  # what the preset holds: its name alone says nothing of it
    others = {"weights": Path(cell.experiment.weights).name, "maps": cell.experiment.maps}
    return {"recipe": recipe, "data": data, **{key: value for key, value in others.items() if value}}


def differing(before: Any, now: Any, where: str = "") -> str:
    """What a record's settings have otherwise than those of now, with its keys; empty where nothing.

    A setting that covis did not have when the record was made does not count, nor does one of `NEWER` that a record lacks; an option
    that was not given then does.

    >>> differing({"train": {"steps": 1}}, {"train": {"steps": 2, "new": 3}})
    'train.steps 1 there, 2 now'
    >>> differing({"loss_options": {}}, {"loss_options": {"margin": 0.3}})
    'loss_options.margin None there, 0.3 now'
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        free = not where or any(part.endswith("options") or part in FREE for part in where.split("."))
        named = {key: f"{where}.{key}" if where else str(key) for key in (*before, *now)}
        keys = [*before, *(key for key in now if free and key not in before and named[key] not in NEWER)]
        parts = (differing(before.get(key), now.get(key), named[key]) for key in keys)
        return "; ".join(part for part in parts if part)
    return "" if _as_json(before) == _as_json(now) else f"{where} {before!r} there, {now!r} now"


def machine() -> str:
    """What this runs on, in words."""
    import torch

    return f"{platform.machine()}, one thread a cell, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(max_workers=workers, mp_context=get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    """In a worker: end where the process that started it was killed; else it would go on unseen."""
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _HeldError(Exception):
    """Another process runs this cell."""


def _run_one(cell: Cell, plan: Plan, places: Places, *, again: bool, wait: bool) -> str | None:
    """In a process of its own: run a cell and keep its record, unless another has meanwhile; returns a line on it.

    None where another process is running it and `wait` is false.
    """
    store = Store(places.cells)

    def held() -> None:
        if not wait:
            raise _HeldError

    try:
        with locked(places.work / f".{digest([cell.study.name, cell.arm, cell.seed])}.lock", waiting=held):
            if not again and store.known(cell.study.name, cell.arm, cell.seed) is not None:
                return "another process has run it"
            return _run_alone(cell, plan, places, again=again)
    except _HeldError:
        return None


def _run_alone(cell: Cell, plan: Plan, places: Places, *, again: bool) -> str:
    store, begun = Store(places.cells), time.perf_counter()
    if not again and (same := _same(cell, plan, store)) is not None:
        store.save(replace(same, study=cell.study.name, arm=cell.arm))
        return f"as {same.study}: {same.arm}"
    run_folder, kept = _folders(cell, places)
    if not run_folder.exists():
        shutil.rmtree(kept, ignore_errors=True)  # what an earlier record left: the sweep would take it for done; a killed run goes on
    record = _swept(cell, plan, places, store)
    store.save(record)
    for folder in (kept, run_folder):  # in this order: a run without what it left is not taken for a cell that is done
        _remove(folder)
    said = ", ".join(f"{name} {_mean(one):.3f}" for name, one in record.scored.items() if name in cell.study.scores)
    return f"recall@1 {said} ({time.perf_counter() - begun:.0f} s)"


def _remove(folder: Path) -> None:
    """Remove a folder; where this is killed, what is left of it has another name and is taken for nothing."""
    gone = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(gone, ignore_errors=True)
    with suppress(OSError):
        folder.replace(gone)
    for one in (gone, folder):
        shutil.rmtree(one, ignore_errors=True)


def _folders(cell: Cell, places: Places) -> tuple[Path, Path]:
    """Where a cell runs, and where the sweep keeps what it left."""
    out, name = places.work / STUDIES / cell.study.name, folder_name(cell.arm)
    return out / name / str(cell.seed), out / "cells" / name / str(cell.seed)


def _swept(cell: Cell, plan: Plan, places: Places, store: Store) -> Record:
    """Run a cell as a sweep of one arm and one seed; returns its record."""
    from covis.sweeps import sweep

    experiment, folder = cell.experiment, places.work / STUDIES / cell.study.name
    alone = replace(cell.study, arms={cell.arm: cell.study.variants()[cell.arm]}, grid={}, baseline="", seeds=(cell.seed,))
    result = sweep(
        alone,
        prepare(plan.data[experiment.data], experiment.data, places),
        out=folder,
        weights=None if not experiment.weights else below(places, experiment.weights),
        maps=None if not experiment.maps else prepare(Source(photographs=experiment.maps), experiment.maps, places),
        overwrite=True,
    )
    if result.failed:
        raise InvalidInputError(next(iter(result.failed.values())))
    run_folder, kept = _folders(cell, places)
    swept = SweptCell.load(kept)
    order = read_json(run_folder / "steps" / "read-test.json")["settings"]["contents"]
    queries = {name: Scene.read(run_folder / "scenes" / "test" / name).queries for name in order}
    scored = {name: _kept(scores, store, queries, latent=swept.latent.get(name)) for name, scores in swept.scores.items()}
    for probe in experiment.probes:
        for name, (scores, values) in _probed(probe, cell, run_folder, places).items():
            scored[name] = _kept(scores, store, queries, values=values)
    training = {} if swept.training is None else {key: float(value) for key, value in vars(swept.training).items()}
    return Record(cell.study.name, cell.arm, cell.seed, scored, training, settings(cell, plan), machine())


def _same(cell: Cell, plan: Plan, store: Store) -> Record | None:
    """A record of another study with the same settings and all that is scored here."""
    if cell.experiment.probes:
        return None  # the other study has not measured them
    wanted = settings(cell, plan)
    for study in sorted(path.name for path in store.folder.iterdir()) if store.folder.is_dir() else ():
        for records in store.records(study).values() if study not in ("asked", cell.study.name) else ():
            record = records.get(cell.seed)
            if record is not None and not differing(record.settings, wanted) and set(cell.study.scores) <= set(record.scored):
                return record
    return None


def _kept(
    scores: Scores,
    store: Store,
    queries: Mapping[str, Images],
    *,
    latent: Relation | None = None,
    values: Mapping[str, float] | None = None,
) -> Scored:
    """What is kept of scores; where they are of the cell's own queries (of several scenes, named with their scene), with the conditions."""
    names = [tuple(f"{before}{name}" for name in images.names) for scene, images in queries.items() for before in ("", f"{scene}/")]
    own = any(sum(names[way::2], ()) == scores.queries for way in (0, 1))
    return Scored.of(scores, store.keep(Asked.of(scores, tuple(queries.values()) if own else ())), latent=latent, values=values)


def _probed(probe: str, cell: Cell, run_folder: Path, places: Places) -> dict[str, tuple[Scores, dict[str, float]]]:
    """What is measured of a run besides: name -> scores, pooled numbers."""
    from evidence import probes

    if probe == "dimensions":
        return {name: (scores, {}) for name, scores in probes.dimensions(run_folder, cell.recipe()).items()}
    sets = asked_sets(places)
    if places.data is None or not sets:
        return {}
    folder = places.work / TRANSFER
    if "trained" in cell.study.scores:
        found = probes.transfer(run_folder / "train" / "model", places.data, folder, only=sets)
    else:
        found = probes.transfer(run_folder / "untrained", places.data, folder, only=sets)
        tiny = probes.transfer(None, places.data, folder, only=sets)
        found |= {f"tiny image {name}": scores for name, scores in tiny.items()}
    return {name: (scores, {}) for name, scores in found.items()}


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """A variable of the environment, for what is started meanwhile; then as before."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _mean(scored: Scored) -> float:
    return float(np.nanmean(scored.hits["recall@1"]))


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, (list, tuple)) else value
