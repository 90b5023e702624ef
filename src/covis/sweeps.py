"""Sweeps: the runs of a study one after another, each kept as a cell; what is done is skipped, what failed is named.

OUT/study.toml                 the study, as it was run
    <arm>/<seed>/              a run (covis.chain)
    shared/                    where recipes have a structure: what several arms have in common (covis.stages)
    cells/<arm>/<seed>/        what it left (covis.cells): enough for all below
    table.txt  table.csv       means, differences, verdicts
    plot.png   latent.png      the metric of each arm; distance against similarity
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from covis import chain
from covis.cells import Cell, read_log
from covis.config import to_table, to_toml
from covis.datasets import read
from covis.descriptors import Descriptors
from covis.errors import (
    CovisError,
    CovisWarning,
    DamagedFileError,
    InvalidInputError,
    MissingExtraError,
    MissingFileError,
    OutputExistsError,
    SettingsDifferError,
)
from covis.files import digest, file_digest, read_json, write_text
from covis.images import Images
from covis.labels import Labels
from covis.latent import Relation, averaged, relate
from covis.lookup import chosen as fitting
from covis.losses import LOSSES
from covis.materials import label_card
from covis.models.place import model_card
from covis.protocols import protocol
from covis.reports.plots import latent_plot, study_plot
from covis.reports.studies import Summary, summarise
from covis.reports.study_tables import study_csv, study_rows, study_text
from covis.scores import Scores
from covis.semantics.encodings import encoding
from covis.settings import Recipe
from covis.steps import Say
from covis.studies import Study, check_study, chosen, folder_name, load_study
from covis.verification import trainings
from covis.whitening import Whitening


@dataclass(frozen=True)
class StudyResult:
    """What a sweep left behind.

    Attributes:
        out: the sweep's folder.
        summary: the numbers; None where no cell is done.
        failed: (arm, seed) -> why.
        files: what was written: tables and, where the extra `plots` is installed, pictures.
    """

    out: Path
    summary: Summary | None
    failed: Mapping[tuple[str, int], str]
    files: tuple[Path, ...]

    def __str__(self) -> str:
        said = [f"failed: {arm}, seed {seed}: {message}" for (arm, seed), message in self.failed.items()]
        return "\n".join([*([] if self.summary is None else [f"{study_text(self.summary)}\n"]), *said]).rstrip()

    def as_dict(self) -> dict[str, Any]:
        """Plain values; NaN is None."""
        failed = [{"arm": arm, "seed": seed, "message": message} for (arm, seed), message in self.failed.items()]
        rows = [] if self.summary is None else study_rows(self.summary)
        return {"out": str(self.out), "files": [str(file) for file in self.files], "rows": rows, "failed": failed}


def sweep(
    study: str | Path | Study,
    data: str | Path,
    *,
    out: str | Path,
    weights: str | Path | None = None,
    layout: str | None = None,
    maps: str | Path | None = None,
    recipe: str | None = None,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] | None = None,
    overwrite: bool = False,
    say: Say = lambda _: None,
) -> StudyResult:
    """Run every arm of a study with every seed, and compare them: a table, and pictures.

    Everything is checked before the first run. A sweep that was killed goes on where it was; one whose cells are all
    done only draws the results again, and needs neither data nor run folders. A run that fails is recorded with its
    message, and the rest goes on; it is tried again by the next call, with other settings too: it left nothing to protect.

    Args:
        study: the name of a shipped study, a TOML file, or a `Study`.
        data: the data set's folder.
        out: the sweep's folder.
        weights: a local file with the backbone's weights.
        layout: of the data, in place of the recipe's.
        maps: a folder of label maps, in place of those that the layout gives.
        recipe: below all arms, in place of the study's: the same arms on other data.
        seeds: in place of the study's.
        only: arms to run; the table shows all that are done. Default: all.
        overwrite: run cells again whose settings differ.
        say: takes a line of progress.

    Raises:
        SettingsDifferError: a cell was run with other settings, or asked of other data, and `overwrite` is false.
        MissingFileError: a cell is to be run, and the data are not there.
        CovisError: whatever is wrong with the study; a run's own failure is no error here.
    """
    plan = _planned(study if isinstance(study, Study) else load_study(study), seeds, recipe)
    sweeping = _Sweep(plan, Path(data), Path(out), given=_Given(weights, layout, maps), overwrite=overwrite, say=say)
    arms = chosen(plan, only)
    asked = [(arm, seed) for seed in plan.seeds for arm in arms]  # seed by seed: a sweep cut short still has every arm
    open_cells = sweeping.open(asked)
    write_text(sweeping.out / "study.toml", to_toml(replace(plan, folder="")))
    failed: dict[tuple[str, int], str] = {}
    for number, (arm, seed) in enumerate(open_cells, start=1):
        say(f"[{number}/{len(open_cells)}] {arm}, seed {seed}")
        cell = sweeping.run(arm, seed)
        if cell.state == "failed":
            failed[arm, seed] = cell.message
        say(sweeping.told(cell))
        if number < len(open_cells) and open_cells[number][1] != seed:
            sweeping.write(pictures=False)  # what is known after each seed
    summary, files = sweeping.write(pictures=True)
    return StudyResult(sweeping.out, summary, failed, tuple(files))


@dataclass(frozen=True)
class _Given:
    """What the caller hands in for all cells, where there is anything."""

    weights: str | Path | None
    layout: str | None
    maps: str | Path | None


class _Sweep:
    """A study that is being run: its recipes, its folders, its cells."""

    def __init__(self, study: Study, data: Path, out: Path, *, given: _Given, overwrite: bool, say: Say) -> None:
        self.study, self.data, self.out, self.overwrite, self.say = study, data, out, overwrite, say
        self.weights, self.maps = given.weights, given.maps
        if out.exists() and not out.is_dir():
            raise OutputExistsError(f"A sweep's --out must be a folder; {out} is a file. Choose another.")
        self.recipes = check_study(study, weights=given.weights, layout=given.layout)
        self.rule = protocol(study.judged_by())
        self.heard: set[str] = set()
        self.asked: str | None = None  # the digest of what is asked; None where the data were not looked at
        self.weights_digest = None if given.weights is None else file_digest(given.weights)
        self.maps_digest = None if given.maps is None else _listed(Path(given.maps))

    def open(self, asked: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """The cells that are still to be run; refuses where one was run with other settings."""
        for arm, seed in asked:
            cell, settings = self.known(arm, seed), self.settings(arm, seed)
            if cell is not None and not cell.message and cell.settings != settings and not self.overwrite:
                raise SettingsDifferError(
                    f"The cell {arm!r}, seed {seed}, in {self.out} was run with other settings: {_difference(cell.settings, settings)}. "
                    "Choose another --out, or pass --overwrite to run it again."
                )
        self.look(needed=not all(self.finished(arm, seed, self.known(arm, seed)) for arm, seed in asked))
        left = []
        for arm, seed in asked:
            if not self.finished(arm, seed, self.known(arm, seed)):
                left.append((arm, seed))
            else:
                self.say(f"{arm}, seed {seed}: done before")
        return left

    def look(self, *, needed: bool) -> None:
        """Read what is asked, and hold that it is what all cells were asked; data may be away where no cell needs them."""
        if not self.data.exists():
            if needed:
                raise MissingFileError(f"--data must be the data set's folder; there is no {self.data}.")
            self.say(f"{self.data} is not there: it was not looked whether the cells are of these data")
            return
        try:
            self.asked = _asked(next(iter(self.recipes.values())), self.data)
        except CovisError as error:
            if needed:
                raise
            self.say(f"it was not looked whether the cells are of these data, for they cannot be read: {error}")
            return
        for arm in self.recipes:
            for seed in self.study.seeds:
                cell = self.known(arm, seed)
                if cell is not None and not cell.message and self.moved(cell) and not self.overwrite:
                    raise SettingsDifferError(
                        f"The cell {arm!r}, seed {seed}, in {self.out} was asked the queries and databases of other data than {self.data}. "
                        "Choose another --out, or pass --overwrite to run it again."
                    )

    def moved(self, cell: Cell) -> bool:
        """Whether a cell was asked of other data; False where that is not known."""
        return self.asked is not None and cell.data.get("asked", self.asked) != self.asked

    def finished(self, arm: str, seed: int, cell: Cell | None) -> bool:
        """Whether a cell is done, with these settings, and holds all that the study asks for."""
        if cell is None or cell.state != "done" or cell.settings != self.settings(arm, seed) or self.moved(cell):
            return False
        return all(name in cell.scores and cell.scores[name].protocol == self.rule for name in self.study.scores)

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        """All that a cell depends on, as plain values; the recipe's name and description do not count."""
        whole = self.recipe(arm, seed)
        labels = {side: label_card(getattr(whole, side), seed) for side in ("label", "train_label")}
        recipe = {**to_table(whole), "model": model_card(whole.model), **labels}
        del recipe["name"], recipe["description"]
        if not whole.structure.classes:
            del recipe["structure"]
            return {"recipe": _plain(recipe), "weights": self.weights_digest}
        read = encoding(whole.structure.encoding()).digest()
        return {"recipe": _plain(recipe), "weights": self.weights_digest, "maps": self.maps_digest, "encoding": read}

    def recipe(self, arm: str, seed: int) -> Recipe:
        """An arm's recipe with a seed."""
        recipe = self.recipes[arm]
        return replace(recipe, name=f"{self.study.name}: {arm}, seed {seed}", train=replace(recipe.train, seed=seed))

    def folder(self, arm: str, seed: int) -> Path:
        """Where a cell's files lie."""
        return self.out / "cells" / folder_name(arm) / str(seed)

    def known(self, arm: str, seed: int) -> Cell | None:
        """The cell as it is on disk, None where it was not begun."""
        folder = self.folder(arm, seed)
        try:
            return Cell.load(folder) if (folder / "cell.json").exists() else None
        except (DamagedFileError, MissingFileError) as error:
            raise type(error)(f"{error} Or remove {folder}: the cell {arm!r}, seed {seed}, is then run again.") from error

    def run(self, arm: str, seed: int) -> Cell:
        """Run one cell and keep what it left; of a failure the message."""
        recipe, folder = self.recipe(arm, seed), self.out / folder_name(arm) / str(seed)
        before = self.known(arm, seed)
        message = "" if before is None else before.message  # stays until it is done: what a failed cell began protects nothing
        begun = Cell(arm, seed, self.settings(arm, seed), "begun", message, data={} if self.asked is None else {"asked": self.asked})
        begun.save(self.folder(arm, seed))
        overwrite = self.overwrite or bool(message)
        try:
            chain.run(
                recipe,
                self.data,
                out=folder,
                weights=self.weights,
                maps=self.maps,
                arms=self.study.scores,
                shared=self.out / "shared" if recipe.structure.classes else None,
                overwrite=overwrite,
                say=self.hear,
            )
            cell = self.collected(begun, recipe, folder)
        except SettingsDifferError as error:
            raise SettingsDifferError(f"The cell {arm!r}, seed {seed}: {error}") from error
        except Exception as error:  # whatever one run dies of, the night's other runs go on; the message is kept and said
            cell = replace(begun, state="failed", message=f"{type(error).__name__}: {error}")
        cell.save(self.folder(arm, seed))
        return cell

    def hear(self, text: str) -> None:
        """Of what a run says only the warnings, each once."""
        if text.startswith("warning") and text not in self.heard:
            self.heard.add(text)
            self.say(text)

    def told(self, cell: Cell) -> str:
        """A line on a cell."""
        if cell.state == "failed":
            return f"  failed: {cell.message}"
        metric = self.study.metric
        return f"  {metric} " + ", ".join(f"{one.metrics[metric].value:.3f} {name}" for name, one in cell.scores.items())

    def collected(self, begun: Cell, recipe: Recipe, folder: Path) -> Cell:
        """What a finished run left, as a cell."""
        file = f"{self.rule.name.replace('/', '-')}.json"
        scores = {name: Scores.load(folder / "scores" / name / file) for name in self.study.scores}
        scenes = list(_contents(folder, "test"))
        labels = [Labels.load(folder / "labels" / "test" / f"{scene}.npz") for scene in scenes]
        last = trainings(recipe)[-1]
        training = read_log(folder / "train" / "log.csv", steps=last.steps, batch=last.batch)
        data = {**begun.data, **{side: digest(_contents(folder, side)) for side in ("train", "test")}}
        latent = {name: relate(_described(folder, name, scenes), labels) for name in self.study.scores}
        return replace(begun, state="done", message="", scores=scores, latent=latent, training=training, data=data)

    def write(self, *, pictures: bool) -> tuple[Summary | None, list[Path]]:
        """Write tables, and pictures, of all cells that are done with the study's settings."""
        known = [(arm, seed, self.known(arm, seed)) for arm in self.recipes for seed in self.study.seeds]
        cells = [cell for arm, seed, cell in known if cell is not None and self.finished(arm, seed, cell)]
        if not cells:
            return None, []
        study = self.study
        summary = summarise(
            cells,
            arms=list(self.recipes),
            baseline=study.compared_with(),
            metric=study.metric,
            descriptors=study.scores,
            also=study.also,
            title=f"{study.name}: {study.description}" if study.description else study.name,
            recipe=study.recipe,
        )
        summary = replace(summary, notes=(*summary.notes, *self.missing(known)))
        files = [write_text(self.out / "table.txt", f"{study_text(summary)}\n"), write_text(self.out / "table.csv", study_csv(summary))]
        if pictures:
            files += self.draw(summary, cells)
        return summary, files

    def missing(self, known: Sequence[tuple[str, int, Cell | None]]) -> list[str]:
        """Notes on the cells that are not in the table: those that failed, and those that were not run."""
        notes, open_cells = [], []
        for arm, seed, cell in known:
            if cell is not None and cell.state == "failed" and cell.settings == self.settings(arm, seed):
                notes.append(f"Not in the table, for it failed: {arm}, seed {seed}: {(cell.message.splitlines() or [''])[0]}")
            elif not self.finished(arm, seed, cell):
                open_cells.append(f"{arm}, seed {seed}")
        return [*notes, f"Not in the table, for they are not done: {'; '.join(open_cells)}."] if open_cells else notes

    def draw(self, summary: Summary, cells: Sequence[Cell]) -> list[Path]:
        """The two pictures; none, and a warning, where the extra is not installed."""
        shown = next(name for name in ("trained", *self.study.scores) if name in self.study.scores)
        latent: dict[str, Relation] = {}
        for arm in self.recipes:
            if members := [cell.latent[shown] for cell in cells if cell.arm == arm]:
                latent[arm] = averaged(members)
        margins = {arm: _margin(self.recipes[arm]) for arm in latent if shown == "trained"}
        try:
            return [
                study_plot(summary, self.out / "plot.png", axis=self.study.axis()),
                latent_plot(latent, self.out / "latent.png", margins=margins),
            ]
        except MissingExtraError as error:
            warnings.warn(f"The study's pictures are not drawn: {error}", CovisWarning, stacklevel=2)
            return []


def _planned(study: Study, seeds: Sequence[int] | None, recipe: str | None) -> Study:
    planned = study if seeds is None else replace(study, seeds=tuple(seeds))
    return planned if recipe is None else replace(planned, recipe=recipe, folder="")


def _described(folder: Path, name: str, scenes: Sequence[str]) -> list[tuple[Descriptors, Descriptors]]:
    """(queries, database) of each test scene; those that are whitened are made of the trained ones, as the run does."""
    stored = folder / "descriptors" / ("trained" if name == "whitened" else name)
    sides = [(Descriptors.load(stored / scene / "queries"), Descriptors.load(stored / scene / "database")) for scene in scenes]
    if name != "whitened":
        return sides
    whiten = Whitening.load(folder / "whitening.npz")
    return [(whiten(queries), whiten(database)) for queries, database in sides]


def _margin(recipe: Recipe) -> float | None:
    """The margin of GCL's loss; other losses ask for no distance in between."""
    if recipe.train.loss != "gcl":
        return None
    return float(recipe.train.loss_options.get("margin", inspect.signature(LOSSES["gcl"]).parameters["margin"].default))


def _listed(folder: Path) -> str:
    """A hash of a folder's label maps, by their names and sizes: the same in a copy."""
    if not folder.is_dir():
        raise MissingFileError(f"The folder of label maps {folder} must exist; there is no such folder.")
    return digest(sorted([path.relative_to(folder).as_posix(), path.stat().st_size] for path in folder.rglob("*.png")))


def _asked(recipe: Recipe, data: Path) -> str:
    """A digest of the test scenes: their tables and the sizes of their files, the same in a moved copy."""
    settings = recipe.data
    scenes = read(settings.layout, data, split=settings.test_split, **settings.options)
    asked = [scene for scene in scenes if fitting(scene.name, settings.test)]
    if not asked:
        raise InvalidInputError(
            f"{data} must hold a scene with a {settings.test_split} split whose name fits {settings.test!r}; it holds none. "
            "Look at the recipe's [data]."
        )
    return digest({scene.name: [_sized(side) for side in (scene.database, scene.queries)] for scene in asked})


def _sized(images: Images) -> list[Any]:
    paths = [images.path(row) for row in range(len(images))]
    return [images.digest(), [path.stat().st_size if path.exists() else None for path in paths]]


def _contents(folder: Path, side: str) -> dict[str, Any]:
    """Scene -> digests of its images and their files, as the run's record of reading has them."""
    contents: dict[str, Any] = read_json(folder / "steps" / f"read-{side}.json")["settings"]["contents"]
    return contents


def _plain(value: Any) -> Any:
    """Values as JSON gives them back."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _difference(before: Any, now: Any, path: str = "") -> str:
    """What differs, with its keys: `recipe.train.steps 10 there, 20 now`."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return "; ".join(_difference(before.get(key), now.get(key), f"{path}.{key}" if path else key) for key in keys)
    return f"{path} {before!r} there, {now!r} now"
