"""Summaries: one arm, scored one way, over its seeds."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.town import CONDITIONS
from evidence.formatting import natural, several
from evidence.records import Asked, Record, Store
from evidence.verdicts import SAMPLES, mean_interval

STUDIES = Path(__file__).parent / "studies"


@dataclass(frozen=True)
class Summary:
    """One arm, scored one way.

    Attributes:
        arm: its name.
        scored: how.
        seeds: those that it was run with, in order.
        hits: metric -> (seeds, queries), NaN where a query is not counted.
        asked: the queries.
        values: pooled metrics and what training cost, means over the seeds that have them.
    """

    arm: str
    scored: str
    seeds: tuple[int, ...]
    hits: Mapping[str, NDArray[np.float64]]
    asked: Asked
    values: Mapping[str, float] = field(default_factory=dict)

    def counted(self, metric: str = "recall@1", group: str = "") -> NDArray[np.bool_]:
        """(q,) which queries count with every seed, of one condition or of all."""
        known: NDArray[np.bool_] = np.logical_not(np.isnan(self.hits[metric]).any(axis=0))
        if group:
            known = np.logical_and(known, self.asked.groups[group])
        return known

    def conditions(self) -> list[str]:
        """The conditions of the queries, as towns name them; else all groups. Of two with the same queries the longer name is kept."""
        groups = self.asked.groups
        named = [name for name in CONDITIONS if name in groups] or list(groups)
        same = {name: [other for other in named if np.array_equal(groups[name], groups[other])] for name in named}
        return [name for name in named if name == max(same[name], key=len)]

    def by_seed(self, metric: str = "recall@1", group: str = "") -> list[float]:
        """The mean over queries, a seed each; empty where the metric was not measured or nothing counts."""
        if metric not in self.hits or not (counted := self.counted(metric, group)).any():
            return []
        return [float(value) for value in self.hits[metric][:, counted].mean(axis=1)]

    def mean(self, metric: str = "recall@1", group: str = "") -> float:
        """Over seeds and queries; NaN where there is none."""
        values = self.by_seed(metric, group)
        return float(np.mean(values)) if values else float("nan")

    def spread(self, metric: str = "recall@1") -> float:
        """Standard deviation over seeds; NaN with one."""
        values = self.by_seed(metric)
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")

    def interval(self, metric: str = "recall@1", group: str = "", *, samples: int = SAMPLES) -> tuple[float, float]:
        """95 %, over seeds and units of queries; NaN where the metric was not measured or nothing counts."""
        if not self.by_seed(metric, group):
            return float("nan"), float("nan")
        counted = self.counted(metric, group)
        _, units = np.unique(self.asked.units[counted], return_inverse=True)
        return mean_interval(self.hits[metric][:, counted], units.astype(np.int64), samples=samples)

    def said(self, metric: str = "recall@1") -> str:
        """How many were asked, in words."""
        counted = self.counted(metric)
        units = several(len(np.unique(self.asked.units[counted])), self.asked.what)
        return f"{several(int(counted.sum()), 'queries')}, {units}"


def summary(records: Mapping[int, Record], scored: str, store: Store) -> Summary | None:
    """Sum up the records of one arm, a seed each; None where none was scored so.

    Raises:
        InvalidInputError: not all seeds were asked the same queries.
    """
    found = {seed: record for seed, record in sorted(records.items()) if scored in record.scored}
    if not found:
        return None
    sides = [record.scored[scored] for record in found.values()]
    first = next(iter(found.values()))
    if len({side.asked for side in sides}) > 1:
        raise InvalidInputError(
            f"All seeds of {first.arm!r} in {first.study!r} must be asked the same queries ({scored!r}); they were not. Run the older anew."
        )
    metrics = [name for name in sides[0].hits if all(name in side.hits for side in sides)]
    pooled = [{**record.training, **side.values} for record, side in zip(found.values(), sides, strict=True)]
    names = dict.fromkeys(name for values in pooled for name in values)
    values = {name: _mean([one[name] for one in pooled if name in one]) for name in names}
    hits = {name: np.array([side.hits[name] for side in sides]) for name in metrics}
    return Summary(first.arm, scored, tuple(found), hits, store.asked(sides[0].asked), values)


def arms(study: str, store: Store) -> dict[str, dict[int, Record]]:
    """The records of a study, arms in the order of its file, others behind them."""
    known = store.records(study)
    order = {name: at for at, name in enumerate(_written(study).get("arms", {}))}
    return {name: known[name] for name in sorted(known, key=lambda name: (order.get(name, len(order)), natural(name)))}


def studies(store: Store) -> list[str]:
    """The studies that have records."""
    folders = store.folder.iterdir() if store.folder.is_dir() else ()
    return sorted(path.name for path in folders if path.is_dir() and path.name != "asked")


def baseline(study: str) -> str:
    """The arm that a study's file holds the others against; empty where it names none."""
    return str(_written(study).get("baseline", ""))


@functools.cache
def _written(study: str) -> Mapping[str, Any]:
    """A study's file; empty where there is none."""
    path = STUDIES / f"{study}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _mean(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
