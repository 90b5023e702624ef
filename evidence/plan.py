"""The plan: which studies are run, on which data, and what is measured of each run besides its scores."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from covis.config import from_table, overlaid
from covis.errors import DamagedFileError, InvalidInputError, UnknownNameError
from covis.files import read_text
from covis.lookup import suggest
from covis.settings import Recipe
from covis.studies import Study, load_study

HERE = Path(__file__).resolve().parent
PROBES = ("dimensions", "transfer")
"""What can be measured of a run besides."""
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

    def recipe(self) -> Recipe:
        """What is run: the arm's recipe with the seed."""
        recipe = replace(self.study, arms={self.arm: self.study.variants()[self.arm]}, grid={}, baseline="").recipes()[self.arm]
        return replace(recipe, train=replace(recipe.train, seed=self.seed))


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

        Raises:
            UnknownNameError: a name or pattern fits no arm of these studies.
            InvalidInputError: no study has such a seed, or none has these arms with these seeds.
        """
        studies = [(experiment, self.study(experiment)) for experiment in self.chosen(only) if not experiment.measure]
        _check_asked([study for _, study in studies], arms, seeds)
        for experiment, study in studies:
            named = [arm for arm in study.variants() if not arms or any(_fits(arm, one) for one in arms)]
            for seed in study.seeds:
                if not seeds or seed in seeds:
                    yield from (Cell(experiment, study, arm, seed) for arm in named)


def _fits(arm: str, pattern: str) -> bool:
    return arm == pattern or fnmatchcase(arm, pattern)


def _check_asked(studies: Sequence[Study], arms: Sequence[str], seeds: Sequence[int]) -> None:
    """That what is asked for by name is there: a name that is misspelt must not end as nothing to run."""
    known = {study.name: list(study.variants()) for study in studies}
    for pattern in arms:
        every = list(dict.fromkeys(arm for names in known.values() for arm in names))
        if not any(_fits(arm, pattern) for arm in every):
            raise UnknownNameError(f"There is no arm {pattern!r} in {', '.join(known) or 'what is chosen'}. {suggest(pattern, every)}")
    there = sorted({seed for study in studies for seed in study.seeds})
    for seed in seeds:
        if seed not in there:
            raise InvalidInputError(f"A seed must be one that a chosen study has: {', '.join(map(str, there)) or 'none'}; got {seed}.")
    if (arms or seeds) and not any(
        any(_fits(arm, one) for one in arms or ("*",)) and (not seeds or set(seeds) & set(study.seeds))
        for study in studies
        for arm in known[study.name]
    ):
        raise InvalidInputError(f"A chosen study must have the arms {list(arms)} with the seeds {list(seeds)}; none has both.")


def load_plan(*, quick: bool = False, path: Path = HERE / "plan.toml") -> Plan:
    """The plan, or its quick version: a tiny world, a few steps, one seed.

    Raises:
        DamagedFileError: the file is no TOML.
        InvalidInputError: a key is unknown or missing, or an experiment names data or probes that there are not.

    >>> [one.study for one in load_plan(quick=True).experiments][:2]
    ['start', 'graded']
    """
    plan = _read(path)
    for name, source in plan.data.items():
        if bool(source.preset) == bool(source.photographs):
            raise InvalidInputError(
                f"{path}: data.{name} must have either a preset or photographs; it has {'both' if source.preset else 'none'}."
            )
    for one in plan.experiments:
        _check(one, plan, path)
    if not quick:
        return plan
    data = {name: replace(source, preset="tiny") for name, source in plan.data.items() if source.preset}
    return Plan(data, tuple(one for one in plan.experiments if one.quick), quick=True)


def _read(path: Path) -> Plan:
    """A plan's file, its names not looked at yet."""
    try:
        table = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise DamagedFileError(f"The plan {path} must be TOML; {error}.") from error
    data, experiments = table.get("data"), table.get("experiments")
    whole = (
        isinstance(data, dict) and isinstance(experiments, list) and all(isinstance(one, dict) for one in [*data.values(), *experiments])
    )
    if not whole or set(table) != {"data", "experiments"}:
        raise InvalidInputError(
            f"{path} must hold tables [data.NAME] and [[experiments]], and nothing else; it holds {', '.join(table) or 'nothing'}."
        )
    sources = {name: from_table(Source, one, where=f"{path}: data.{name}") for name, one in table["data"].items()}
    return Plan(sources, tuple(from_table(Experiment, one, where=f"{path}: an experiment") for one in table["experiments"]))


def _check(one: Experiment, plan: Plan, path: Path) -> None:
    """That an experiment names what there is."""
    said = f"{path}: the experiment {one.study!r}"
    if bool(one.data) == bool(one.measure):
        raise InvalidInputError(
            f"{said} must have either data (of a study) or measure (of what is none); it has {'both' if one.data else 'none'}."
        )
    if one.data and one.data not in plan.data:
        raise InvalidInputError(f"{said} must name data of the plan; there is no {one.data!r}. {suggest(one.data, plan.data)}")
    for probe in one.probes:
        if probe not in PROBES:
            raise InvalidInputError(f"{said} must name probes; there is no {probe!r}. {suggest(probe, PROBES)}")
    if one.quick and not (one.data and plan.data[one.data].preset):
        raise InvalidInputError(f"{said} has arms of a quick run, and so must be run on a synthetic world.")


def _hurried(study: Study, arms: Sequence[str]) -> Study:
    """A study with a few arms, one seed and a few steps."""
    hurry: dict[str, Any] = {"train": {"steps": QUICK_STEPS, "batch": 4}}
    if study.base().structure.classes:
        hurry["structure"] = {"threshold": 1000, "student": {"train": {"steps": QUICK_STEPS, "batch": 4}}}
    return replace(study, seeds=(0,), arms={name: overlaid(study.variants()[name], hurry) for name in arms}, baseline="")
