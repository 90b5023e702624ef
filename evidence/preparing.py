"""Preparing: data, weights and photographs, made or found once before the cells that need them are run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from covis.errors import CovisError, MissingFileError
from covis.files import locked
from evidence.plan import Cell, Experiment, Plan, Source

Say = Callable[[str], None]
TRANSFER = "transfer"
"""The folder in `Places.work` where the photographs of that probe are kept."""


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


def prepared(plan: Plan, places: Places, cells: Sequence[Cell], *, workers: int, say: Say) -> list[Cell]:
    """Make all that cells share, here, before processes ask for it at once; the cells that have what they need, the others are named."""
    whys: dict[Any, str] = {}

    def why(what: Any, make: Callable[[], object]) -> str:
        if what not in whys:
            try:
                make()
                whys[what] = ""
            except CovisError as error:
                whys[what] = str(error)
        return whys[what]

    left: dict[Experiment, str] = {}
    for one in dict.fromkeys(cell.experiment for cell in cells):
        found = why(one.data, partial(prepare, plan.data[one.data], one.data, places, workers=workers, say=say))
        if one.maps and not found:
            found = why(("maps", one.maps), partial(prepare, Source(photographs=one.maps), one.maps, places))
        if one.weights and not found:
            found = why(("weights", one.weights), partial(below, places, one.weights))
        if "transfer" in one.probes and not found:
            asking = [cell for cell in cells if cell.experiment == one]
            found = why(("transfer", one.study), partial(_ready, places, asking))
        left[one] = found
        if found:
            say(f"left out: {one.study}: {found}")
    asked = [one for one, found in left.items() if "transfer" in one.probes and not found]
    if asked and (absent := _absent(places)):
        say(f"left out of {', '.join(one.study for one in asked)}: {absent}")
    return [cell for cell in cells if not left[cell.experiment]]


def asked_sets(places: Places) -> list[str]:
    """The photographs that networks are asked, as far as they are there."""
    if places.data is None:
        return []
    from evidence.photographs import there
    from evidence.probes import ASKED

    return there(ASKED, places.data)


def below(places: Places, name: str) -> Path:
    """Weights below the folder of real data.

    Raises:
        MissingFileError: there is no such folder, or no such file in it.
    """
    if places.data is None:
        raise MissingFileError("Weights must be below --data (or $COVIS_DATA); neither was given.")
    if not (places.data / name).is_file():
        raise MissingFileError(f"The backbone's weights must be {places.data / name}; there is no such file.")
    return places.data / name


def _ready(places: Places, cells: Sequence[Cell]) -> None:
    """The photographs that networks are asked, in the sizes of these cells."""
    from evidence import probes

    if places.data is not None and (sets := asked_sets(places)):
        models = [cell.recipe().model for cell in cells]
        sizes = [(model.height, model.width, model.resize) for model in models]
        probes.ready(sizes, places.data, places.work / TRANSFER, only=sets)


def _absent(places: Places) -> str:
    """Which photographs no network is asked, and why; empty where all are there."""
    from evidence.probes import ASKED

    missing = [f"on {name}" for name in ASKED if name not in asked_sets(places)]
    where = "no --data (or $COVIS_DATA) was given" if places.data is None else f"their photographs are not in {places.data}"
    return f"the scores {', '.join(missing)}: {where}" if missing else ""
