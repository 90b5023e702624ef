"""The plan: which studies are run, on which data, and what is measured of each run besides its scores."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from covis.config import from_table, overlaid
from covis.errors import InvalidInputError, UnknownNameError
from covis.files import read_text
from covis.lookup import suggest
from covis.studies import Study, load_study

HERE = Path(__file__).resolve().parent
QUICK_STEPS = 6
"""Optimiser steps of a quick run: it shows that everything works, its numbers mean nothing."""


@dataclass(frozen=True)
class Source:
    """Where images come from: a synthetic world, or photographs below the folder of real data.

    Attributes:
        preset: of `covis world`; empty: photographs.
        seed: of the world.
        photographs: a name that `evidence.photographs.prepare` knows.
    """

    preset: str = ""
    seed: int = 0
    photographs: str = ""


@dataclass(frozen=True)
class Experiment:
    """A study, what it is run on, and what is measured besides.

    Attributes:
        study: the name of a file in `studies/`; of something that is no study, of its records.
        data: a name in `Plan.data`; empty for what finds its own.
        probes: what is measured of every run after it: "dimensions", "transfer".
        weights: of the backbone, below the folder of real data; empty: the recipe's.
        maps: label maps that `evidence.photographs.prepare` makes; empty: those of the data.
        quick: the arms of a quick run; empty: it is left out there.
        measure: `module:function` in place of a study.
    """

    study: str
    data: str = ""
    probes: tuple[str, ...] = ()
    weights: str = ""
    maps: str = ""
    quick: tuple[str, ...] = ()
    measure: str = ""


@dataclass(frozen=True)
class Cell:
    """One arm of an experiment with one seed."""

    experiment: Experiment
    study: Study
    arm: str
    seed: int


@dataclass(frozen=True)
class Plan:
    """All experiments.

    Attributes:
        data: name -> where images come from.
        experiments: in the order in which they are run.
        quick: whether this is a quick run.
    """

    data: dict[str, Source] = field(default_factory=dict)
    experiments: tuple[Experiment, ...] = ()
    quick: bool = False

    def chosen(self, only: Sequence[str]) -> tuple[Experiment, ...]:
        """The experiments of these studies, in the plan's order; all where none is named.

        Raises:
            UnknownNameError: a name is no study's.
        """
        names = [one.study for one in self.experiments]
        for name in only:
            if name not in names:
                raise UnknownNameError(f"There is no study {name!r} in the plan. {suggest(name, names)}")
        return tuple(one for one in self.experiments if not only or one.study in only)

    def study(self, experiment: Experiment) -> Study:
        """An experiment's study; of a quick run a few arms, steps and images."""
        study = load_study(HERE / "studies" / f"{experiment.study}.toml")
        return _hurried(study, experiment.quick) if self.quick else study

    def cells(self, only: Sequence[str] = (), *, arms: Sequence[str] = (), seeds: Sequence[int] = ()) -> Iterator[Cell]:
        """Every cell, experiment by experiment, seed by seed: what is cut short still has every arm.

        Args:
            only: studies; empty: all.
            arms: names of arms, or shell patterns of them; empty: all.
            seeds: of the training; empty: all.
        """
        for experiment in self.chosen(only):
            if not experiment.measure:
                study = self.study(experiment)
                for seed in study.seeds:
                    if not seeds or seed in seeds:
                        named = [arm for arm in study.variants() if not arms or any(fnmatchcase(arm, one) for one in arms)]
                        yield from (Cell(experiment, study, arm, seed) for arm in named)


def load_plan(*, quick: bool = False, path: Path = HERE / "plan.toml") -> Plan:
    """The plan, or its quick version: a tiny world, a few steps, two seeds.

    Raises:
        InvalidInputError: a key is unknown, or an experiment names data that there are not.

    >>> [one.study for one in load_plan(quick=True).experiments][:2]
    ['start', 'graded']
    """
    table = tomllib.loads(read_text(path))
    sources = {name: from_table(Source, one, where=f"{path}: data.{name}") for name, one in table["data"].items()}
    plan = Plan(sources, tuple(from_table(Experiment, one, where=f"{path}: an experiment") for one in table["experiments"]))
    for one in plan.experiments:
        if one.data and one.data not in plan.data:
            raise InvalidInputError(f"{path}: the experiment {one.study!r} must name data of the plan; there is no {one.data!r}.")
    if not quick:
        return plan
    data = {name: replace(source, preset="tiny") for name, source in plan.data.items() if source.preset}
    return Plan(data, tuple(one for one in plan.experiments if one.quick), quick=True)


def _hurried(study: Study, arms: Sequence[str]) -> Study:
    """A study with a few arms, two seeds and a few steps."""
    hurry: dict[str, Any] = {"train": {"steps": QUICK_STEPS, "batch": 4}}
    if study.base().structure.classes:
        hurry["structure"] = {"threshold": 1000, "student": {"train": {"steps": QUICK_STEPS, "batch": 4}}}
    return replace(study, seeds=(0, 1), arms={name: overlaid(study.variants()[name], hurry) for name in arms}, baseline="")
