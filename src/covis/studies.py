"""Studies: TOML files that lay variants over one recipe, each to be run with several seeds; checked whole before one starts.

A variant is called an arm. Arms differ in what teaches and how, never in what is asked: labels of the test scenes,
protocols and test data are those of the recipe, so that their scores can be compared query by query.
"""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from covis.config import from_table, load_recipe, overlaid, to_table
from covis.errors import CovisError, DamagedFileError, InvalidInputError, UnknownNameError
from covis.files import read_text
from covis.lookup import resolve, suggest
from covis.metrics import METRICS
from covis.protocols import protocol
from covis.settings import Recipe

COMPARED = ("recall", "mAP", "graded-recall", "nDCG")
"""Metrics that labels alone say of which queries they are defined: the same ones with every seed and in every arm."""

POOLED = ("AP", "match-AP", "recall@100%precision", "error@50%", "error@75%", "error@95%")
"""Metrics without a value a query: the table can show their mean over the seeds, no difference is tested."""


@dataclass(frozen=True)
class Study:
    """A recipe, what is changed in it, and how the results are judged.

    Attributes:
        name: of the study.
        recipe: the base: a shipped recipe, or a file (looked for beside the study's).
        description: one line.
        seeds: of the training; each arm is run once with each.
        scores: what is scored of each arm.
        protocol: the results' protocol; empty: the recipe's first.
        metric: what arms are compared in: one of `COMPARED` at a k, as recall@1.
        also: metrics whose mean the table shows too.
        baseline: the arm that the others are compared with; empty: the first.
        common: tables laid over the recipe in every arm.
        arms: name -> tables laid over that.
        grid: key with dots -> values, in place of arms: one arm for each combination.
        folder: where the study's file lies, for a recipe beside it.

    Raises:
        InvalidInputError: there is no arm, or arms and a grid; the baseline is no arm; a seed is negative or stands twice; a
            value stands twice in the grid.
    """

    name: str
    recipe: str
    description: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)
    scores: tuple[str, ...] = ("trained", "whitened")
    protocol: str = ""
    metric: str = "recall@1"
    also: tuple[str, ...] = ()
    baseline: str = ""
    common: dict[str, Any] = field(default_factory=dict)
    arms: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, Any] = field(default_factory=dict)
    folder: str = ""

    def __post_init__(self) -> None:
        if bool(self.arms) == bool(self.grid):
            raise InvalidInputError(f"The study {self.name!r} must have arms, or a grid that makes them; it has {self._said()}.")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise InvalidInputError(f"The study {self.name!r} must have seeds >= 0, each once; got {list(self.seeds)}.")
        for key, values in self.grid.items():
            if not isinstance(values, list) or not values:
                raise InvalidInputError(f"The study {self.name!r}: the grid must list values for {key}; got {values!r}.")
            _check_differ(values, where=f"The study {self.name!r}: the values of {key} in the grid")
        if self.baseline and self.baseline not in self.variants():
            raise InvalidInputError(
                f"The baseline of the study {self.name!r} must be one of its arms; there is no {self.baseline!r}. "
                f"{suggest(self.baseline, self.variants())}"
            )
        self._check_folders()

    def variants(self) -> dict[str, dict[str, Any]]:
        """Arm -> the tables that are laid over the recipe, in the order of the file; a grid varies its last key fastest.

        >>> list(Study("margins", "town", grid={"train.loss_options.margin": [0.3, 0.5]}).variants())
        ['margin 0.3', 'margin 0.5']
        """
        if self.arms:
            return dict(self.arms)
        made = {}
        for values in itertools.product(*self.grid.values()):
            table: dict[str, Any] = {}
            for key, value in zip(self.grid, values, strict=True):
                table = overlaid(table, _nested(key, value))
            made[", ".join(f"{_short(key)} {_plain(value)}" for key, value in zip(self.grid, values, strict=True))] = table
        return made

    def compared_with(self) -> str:
        """The arm that the others are compared with."""
        return self.baseline or next(iter(self.variants()))

    def axis(self) -> tuple[str, dict[str, float]] | None:
        """What a single numeric key of a grid is called, and its value in each arm; None of other studies.

        >>> Study("margins", "town", grid={"train.loss_options.margin": [0.3, 0.5]}).axis()
        ('margin', {'margin 0.3': 0.3, 'margin 0.5': 0.5})
        """
        if len(self.grid) != 1:
            return None
        (key, values), *_ = self.grid.items()
        if not all(isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) for value in values):
            return None
        return _short(key), dict(zip(self.variants(), map(float, values), strict=True))

    def base(self) -> Recipe:
        """The recipe below all arms."""
        beside = Path(self.folder) / self.recipe
        return load_recipe(beside if self.recipe.endswith(".toml") and self.folder and beside.exists() else self.recipe)

    def recipes(self, *, layout: str | None = None) -> dict[str, Recipe]:
        """Arm -> its recipe, with the study's protocol among those that are evaluated; the seed is still the recipe's.

        Args:
            layout: of the data, in place of the recipe's.

        Raises:
            InvalidInputError: an arm's tables make no recipe; the message names it.
        """
        _check_no_seed(self.common, where=f"The study {self.name!r}, [common]")
        below = overlaid(to_table(self.base()), self.common)
        made = {}
        for arm, changes in self.variants().items():
            where = f"The study {self.name!r}, arm {arm!r}"
            if not isinstance(changes, Mapping):
                raise InvalidInputError(f"{where} must be a table of what it changes in the recipe; got {changes!r}.")
            _check_no_seed(changes, where=where)
            recipe = from_table(Recipe, overlaid(below, changes), where=where)
            if self.protocol and self.protocol not in recipe.evaluate.protocols:
                recipe = replace(recipe, evaluate=replace(recipe.evaluate, protocols=(*recipe.evaluate.protocols, self.protocol)))
            made[arm] = recipe if layout is None else replace(recipe, data=replace(recipe.data, layout=layout))
        return made

    def judged_by(self) -> str:
        """The name of the protocol of the results.

        Raises:
            InvalidInputError: neither the study nor its recipe names one.
        """
        protocols = (self.protocol,) if self.protocol else next(iter(self.recipes().values())).evaluate.protocols
        if not protocols:
            raise InvalidInputError(f"The study {self.name!r} must name a protocol; neither it nor its recipe does.")
        return protocols[0]

    def _said(self) -> str:
        return "both" if self.arms else "neither"

    def _check_folders(self) -> None:
        folders: dict[str, str] = {}
        for arm in self.variants():
            other = folders.setdefault(folder_name(arm).lower(), arm)
            if other != arm:
                raise InvalidInputError(
                    f"The arms of the study {self.name!r} must differ in their folders' names; {other!r} and {arm!r} do not."
                )


def study_names() -> list[str]:
    """The studies that covis ships."""
    return sorted(entry.name.removesuffix(".toml") for entry in _shipped().iterdir() if entry.name.endswith(".toml"))


def load_study(name_or_path: str | Path) -> Study:
    """A shipped study by its name, or a TOML file by its path.

    Raises:
        MissingFileError: the path ends in .toml and there is no such file.
        UnknownNameError: no shipped study has that name; the nearest is suggested.
        DamagedFileError: the file is no TOML.
        InvalidInputError: a key is unknown or a value has the wrong type; the message names it.

    >>> list(load_study("margin").variants())
    ['margin 0.3', 'margin 0.5', 'margin 0.7', 'margin 1']
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        text, folder = read_text(path), str(path.parent)
    elif str(name_or_path) in study_names():
        text, folder = (_shipped() / f"{name_or_path}.toml").read_text(encoding="utf-8"), ""
    else:
        raise UnknownNameError(
            f"There is no study called {str(name_or_path)!r} (a path must end in .toml). {suggest(str(name_or_path), study_names())}"
        )
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DamagedFileError(f"The study {name_or_path} must be TOML; {error}.") from error
    return from_table(Study, {"name": path.stem, **table, "folder": folder}, where=f"The study {name_or_path}")


def check_study(study: Study, *, weights: str | Path | None = None, layout: str | None = None) -> dict[str, Recipe]:
    """Look at every arm before the first is run: settings, names, options, the network, loss and sampler; returns arm -> recipe.

    Args:
        study: what is to be run.
        weights: a local file with the backbone's weights.
        layout: of the data, in place of the recipe's.

    Raises:
        CovisError: what is wrong; the message names the arm.
    """
    from covis.chain import ARMS  # with the network: a study's file is read without
    from covis.verification import check_evaluation, check_learning, check_loss_and_sampler, check_network

    if not study.scores or not set(study.scores) <= set(ARMS):
        raise InvalidInputError(f"The study {study.name!r} must score some of {', '.join(ARMS)}; got {list(study.scores)}.")
    recipes = study.recipes(layout=layout)
    rule = protocol(study.judged_by())
    names = [f"{name}@{k}" for name in METRICS for k in rule.ks]
    _check_metric(study, names, rule.name)
    for name in study.also:
        if name not in (*names, *POOLED):
            raise InvalidInputError(
                f"The study {study.name!r} must show metrics that {rule.name} gives; {name!r} is none. {suggest(name, [*names, *POOLED])}"
            )
    first_name, first = next(iter(recipes.items()))
    built: list[Any] = []
    for arm, recipe in recipes.items():
        try:
            check_evaluation(recipe)
            _check_asked_alike(recipe, first, first_name)
            check_learning(recipe)
            check_loss_and_sampler(recipe.train)
            network = (recipe.model, recipe.structure.encoding(), recipe.structure.teacher, recipe.structure.loss)
            if network not in built:
                check_network(recipe, weights=weights)
                built.append(network)
        except CovisError as error:
            raise type(error)(f"The study {study.name!r}, arm {arm!r}: {error}") from error
    return recipes


def chosen(study: Study, only: Sequence[str] | None) -> list[str]:
    """The arms that are to be run, in the order of the study.

    Raises:
        UnknownNameError: a name is no arm's.
    """
    for name in only or ():
        resolve(name, study.variants(), what=f"arm of the study {study.name!r}")
    return [arm for arm in study.variants() if only is None or arm in only]


def folder_name(arm: str) -> str:
    """A folder's name for an arm: letters, digits, dots, underscores and hyphens; "cells" belongs to the records.

    >>> folder_name("margin 0.5"), folder_name("GCL / soft"), folder_name("cells")
    ('margin-0.5', 'GCL-soft', 'cells-arm')
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", arm).strip("-.") or "arm"
    return f"{name}-arm" if name.lower() == "cells" else name


def _check_asked_alike(recipe: Recipe, first: Recipe, name: str) -> None:
    """What is asked, and how it is judged, must not differ between arms."""
    for what, remedy in (("evaluate", ""), ("label", " Labels for training alone are set in [train_label].")):
        if getattr(recipe, what) != getattr(first, what):
            raise InvalidInputError(f"What is judged must be the same in all arms; [{what}] differs from that of {name!r}.{remedy}")
    for key in ("layout", "test", "test_split", "options"):
        if getattr(recipe.data, key) != getattr(first.data, key):
            raise InvalidInputError(f"What is asked must be the same in all arms; data.{key} differs from that of {name!r}.")


def _check_metric(study: Study, names: Sequence[str], rule: str) -> None:
    """Hold that the metric has a value a query, and of the same queries in all cells: seeds and arms are paired query by query."""
    compared = [name for name in names if name.partition("@")[0] in COMPARED]
    if study.metric in names and study.metric not in compared:
        raise InvalidInputError(
            f"The study {study.name!r} must compare a metric that is defined of the same queries in every arm and with every seed; "
            f"{study.metric!r} depends on what was found, so its queries could not be paired. It can be shown: name it in `also`."
        )
    if study.metric not in compared:
        raise InvalidInputError(
            f"The study {study.name!r} must compare a metric that has a value a query under {rule}; "
            f"{study.metric!r} is none. {suggest(study.metric, compared)}"
        )


def _check_no_seed(changes: Mapping[str, Any], *, where: str) -> None:
    if isinstance(changes.get("train"), Mapping) and "seed" in changes["train"]:
        raise InvalidInputError(f"{where}: train.seed must not be set; the study's seeds are run.")


def _check_differ(values: Sequence[Any], *, where: str) -> None:
    """Hold that no two values of a grid are equal, or would give their arms one name."""
    for one, other in itertools.combinations(values, 2):
        equal = one == other and isinstance(one, bool) == isinstance(other, bool)
        if equal or _plain(one) == _plain(other):
            raise InvalidInputError(f"{where} must differ, for each is an arm; {one!r} and {other!r} are the same.")


def _shipped() -> Any:
    return resources.files("covis") / "recipes" / "studies"


def _nested(key: str, value: Any) -> dict[str, Any]:
    """{"a.b": 1} as {"a": {"b": 1}}."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _short(key: str) -> str:
    return key.rpartition(".")[2]


def _plain(value: Any) -> str:
    """A value in an arm's name: short where that is exact."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return " ".join(map(_plain, value)) if isinstance(value, list) else str(value)
