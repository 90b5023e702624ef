"""A recipe's whole chain, step by step, in one folder: what is done and unchanged is skipped.

RUN/recipe.toml                        the recipe, every field written out
    steps/<step>.json                  the settings and inputs of each step that is done
    scenes/<split>/<scene>/            what was read
    labels/<split>/<scene>.npz
    untrained/   train/                the network before, and after (train/model)
    descriptors/<arm>/<scene>/         database and queries
    whitening.npz
    rankings/<arm>/<scene>.npz
    scores/<arm>/<protocol>.json
    table.txt    picture.png
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from covis import __version__
from covis.config import Recipe, load_recipe, to_table, to_toml
from covis.datasets import read
from covis.descriptors import Descriptors
from covis.errors import InvalidInputError, LeakError, SettingsDifferError
from covis.evaluation import evaluate
from covis.extraction import extract, tiny_images
from covis.files import digest, file_digest, read_json, write_json, write_text
from covis.images import Images, Scene
from covis.indexes import index
from covis.labels import LABEL_RULES, Labels
from covis.lookup import resolve
from covis.models.checkpoints import load, save
from covis.models.place import PlaceModel
from covis.protocols import protocol
from covis.rankings import Rankings
from covis.reports.sheets import retrieval_sheet
from covis.reports.tables import score_table
from covis.scores import Scores
from covis.training import fit
from covis.whitening import Whitening, fit_whitening

STEP_FORMAT, STEP_VERSION = "covis-step", 1
ARMS = {"tiny": "tiny grey image", "untrained": "before training", "trained": "trained", "whitened": "trained, whitened"}
"""What is scored, and what the table calls it."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    Attributes:
        out: the run's folder.
        scores: arm -> its scores under the recipe's first protocol.
        table: the table, as text.
        picture: the PNG.
    """

    out: Path
    scores: Mapping[str, Scores]
    table: str
    picture: Path

    def __str__(self) -> str:
        return self.table


def run(
    recipe: str | Path | Recipe,
    data: str | Path,
    *,
    out: str | Path,
    weights: str | Path | None = None,
    layout: str | None = None,
    overwrite: bool = False,
    say: Say = lambda _: None,
) -> RunResult:
    """Read, label, train, extract, whiten, search, evaluate and draw, as a recipe says.

    A run that was killed goes on where it was and ends with the same result. A finished step is skipped; one whose
    settings or inputs differ from those stored beside its output stops, or is done again with `overwrite`.

    Args:
        recipe: the name of a shipped recipe, a TOML file, or a `Recipe`.
        data: the data set's folder.
        out: the run's folder.
        weights: a local file with the backbone's weights.
        layout: of the data, in place of the recipe's.
        overwrite: do steps again whose settings differ.
        say: takes a line of progress.

    Raises:
        LeakError: an image that is asked would also teach.
        SettingsDifferError: a step was done with other settings; the message shows the difference.
        CovisError: whatever a step finds wrong, with the file it found it in.
    """
    chain = _Chain(_resolved(recipe, layout), Path(data), Path(out), weights=weights, overwrite=overwrite, say=say)
    chain.train()
    scores = {arm: chain.score(arm) for arm in ARMS}
    return RunResult(Path(out), scores, chain.table(scores), chain.picture())


def train(
    recipe: str | Path | Recipe,
    data: str | Path,
    *,
    out: str | Path,
    labels: str | Path | None = None,
    weights: str | Path | None = None,
    layout: str | None = None,
    overwrite: bool = False,
    say: Say = lambda _: None,
) -> PlaceModel:
    """The first part of `run`: read, label and train; returns the model, which lies in `out/train/model`.

    Args:
        recipe: the name of a shipped recipe, a TOML file, or a `Recipe`.
        data: the data set's folder.
        out: the run's folder.
        labels: a folder with the labels of the training scenes (`<scene>.npz`), or the file of a single one, in place
            of those that the recipe's rule would make.
        weights: a local file with the backbone's weights.
        layout: of the data, in place of the recipe's.
        overwrite: do steps again whose settings differ.
        say: takes a line of progress.

    Raises:
        CovisError: as in `run`.
    """
    chain = _Chain(
        _resolved(recipe, layout),
        Path(data),
        Path(out),
        weights=weights,
        overwrite=overwrite,
        say=say,
        labels=None if labels is None else Path(labels),
    )
    return chain.train()


def load_labels(path: str | Path, scenes: Sequence[Scene]) -> list[Labels]:
    """The labels of scenes: one file for a single scene, else a folder with `<scene>.npz` for each.

    Raises:
        MissingFileError: a file is not there.
        InvalidInputError: labels are not those of the scene's images.
    """
    path = Path(path)
    files = [path] if path.is_file() and len(scenes) == 1 else [path / f"{scene.name}.npz" for scene in scenes]
    loaded = [Labels.load(file) for file in files]
    for file, scene, label in zip(files, scenes, loaded, strict=True):
        if label.query_names != scene.queries.names or label.database_names != scene.database.names:
            raise InvalidInputError(
                f"{file} must label the images of scene {scene.name!r} ({scene.split}), in their order; it holds "
                f"{label}. Label again, or choose the other split."
            )
    return loaded


def check_no_leak(training: Sequence[Scene], asked: Sequence[Scene]) -> None:
    """Hold that no image that is asked also teaches.

    Raises:
        LeakError: one does; the message names it.
    """
    for scene in asked:
        for teacher in training:
            shared = (scene.queries.same_files(teacher.database) >= 0) | (scene.queries.same_files(teacher.queries) >= 0)
            if shared.any():
                name = scene.queries.path(int(shared.argmax()))
                raise LeakError(
                    f"No evaluated query may enter training; {name} is asked in scene {scene.name!r} and teaches in "
                    f"{teacher.name!r}. Separate the splits."
                )


@dataclass
class _Chain:
    """The steps of one run. Each is done at most once, however often it is asked for."""

    recipe: Recipe
    data: Path
    out: Path
    weights: str | Path | None
    overwrite: bool
    say: Say
    labels: Path | None = None
    read_scenes: dict[str, list[Scene]] = field(default_factory=dict)
    labelled: dict[str, list[Labels]] = field(default_factory=dict)
    stored: dict[str, str] = field(default_factory=dict)

    def step(
        self,
        name: str,
        settings: Mapping[str, Any],
        make: Callable[[], object],
        *,
        made: Sequence[Path],
        owned: Sequence[Path] | None = None,
    ) -> None:
        """Do a step unless its record shows that it was done with the same settings; leave a record.

        Args:
            name: of the step.
            settings: all that its output depends on.
            make: does it; goes on where a killed one was, refuses what was begun with other settings.
            made: what is there once it is done.
            owned: what to remove before it is done anew; by default what it makes.
        """
        settings = _as_json({"format": STEP_VERSION, **settings})
        if self.stored.get(name) == digest(settings):
            return
        record = self.out / "steps" / f"{name}.json"
        before = read_json(record, kind=STEP_FORMAT, version=STEP_VERSION)["settings"] if record.exists() else None
        if before not in (None, settings) and not self.overwrite:
            raise SettingsDifferError(
                f"The step {name!r} in {self.out} was done with other settings:\n{_difference(before, settings)}\nChoose "
                "another --out, or pass --overwrite to do it again."
            )
        if before == settings and all(path.exists() for path in made):
            self.say(f"{name}: done before")
        else:
            begun = time.perf_counter()
            record.unlink(missing_ok=True)
            self._redo(make, owned or made, anew=before not in (None, settings))
            write_json(record, {"format": STEP_FORMAT, "version": STEP_VERSION, "step": name, "made_by": __version__, "settings": settings})
            self.say(f"{name}: {time.perf_counter() - begun:.1f} s")
        self.stored[name] = digest(settings)

    def _redo(self, make: Callable[[], object], owned: Sequence[Path], *, anew: bool) -> None:
        if anew:
            _remove(owned)
        try:
            make()
        except SettingsDifferError:  # begun with other settings, and killed
            if not self.overwrite:
                raise
            _remove(owned)
            make()

    def after(self, *names: str) -> dict[str, str]:
        """The digests of earlier steps, so that a change there changes this step's settings."""
        return {name: self.stored[name] for name in names}

    def scenes(self, split: str) -> list[Scene]:
        """The scenes that teach ("train") or are asked ("test"), as the recipe's patterns choose them."""
        if split in self.read_scenes:
            return self.read_scenes[split]
        settings = self.recipe.data
        pattern = settings.train if split == "train" else settings.test
        scenes = [scene for scene in read(settings.layout, self.data, split=split, **settings.options) if fnmatchcase(scene.name, pattern)]
        if not scenes:
            raise InvalidInputError(
                f"{self.data} must hold a scene with a {split} split whose name fits {pattern!r}; it holds none. Look at "
                "the recipe's [data]."
            )
        folders = [self.out / "scenes" / split / scene.name for scene in scenes]

        def write() -> None:
            for scene, folder in zip(scenes, folders, strict=True):
                scene.write(folder, overwrite=True)

        contents = {scene.name: [_contents(side) for side in (scene.database, scene.queries)] for scene in scenes}
        self.step(f"read-{split}", {"data": to_table(settings), "contents": contents}, write, made=folders)
        self.read_scenes[split] = scenes
        return scenes

    def label(self, split: str) -> list[Labels]:
        """Graded labels of the scenes of a split."""
        if split not in self.labelled:
            self.labelled[split] = self._label(split)
        return self.labelled[split]

    def _label(self, split: str) -> list[Labels]:
        scenes = self.scenes(split)
        if self.labels is not None and split == "train":
            found = load_labels(self.labels, scenes)
            self.stored["label-train"] = digest([label.matrix.data.tolist() for label in found])
            return found
        settings = self.recipe.label
        rule = resolve(settings.rule, LABEL_RULES, what="label rule")
        folder = self.out / "labels" / split
        files = [folder / f"{scene.name}.npz" for scene in scenes]

        def make() -> None:
            for scene, file in zip(scenes, files, strict=True):
                rule(scene.queries, scene.database, **settings.options).save(file, overwrite=True)

        self.step(f"label-{split}", {"label": to_table(settings), "after": self.after(f"read-{split}")}, make, made=files)
        labels = load_labels(folder, scenes)
        for scene, one in zip(scenes, labels, strict=True):
            self.say(f"{scene.name}: {one.summary()}")
            if warning := one.summary().warning:
                self.say(f"warning: {warning}")
        return labels

    def untrained(self) -> PlaceModel:
        """The network as it goes into training."""
        folder, settings = self.out / "untrained", self.recipe.model
        source = (
            {"file": Path(self.weights).name, "digest": file_digest(self.weights)} if self.weights else {"pretrained": settings.pretrained}
        )

        def make() -> None:
            save(PlaceModel(settings, seed=self.recipe.train.seed, weights=self.weights), folder, overwrite=True)

        self.step("model", {"model": to_table(settings), "weights": source, "seed": self.recipe.train.seed}, make, made=[folder])
        return load(folder)

    def train(self) -> PlaceModel:
        """The trained network."""
        scenes, labels = self.scenes("train"), self.label("train")
        if self.recipe.data.test:
            check_no_leak(scenes, self.scenes("test"))
        model = self.untrained()
        folder = self.out / "train"

        def make() -> None:
            fit(model, scenes, labels, self.recipe.train, out=folder)

        self.step(
            "train",
            {"train": to_table(self.recipe.train), "after": self.after("read-train", "label-train", "model")},
            make,
            made=[folder / "model"],
            owned=[folder],
        )
        write_text(self.out / "recipe.toml", to_toml(self.recipe))
        return load(folder / "model")

    def describe(self, arm: str) -> list[tuple[Descriptors, Descriptors]]:
        """(queries, database) descriptors of each test scene."""
        scenes = self.scenes("test")
        if arm == "whitened":
            return self.whitened()
        folders = [self.out / "descriptors" / arm / scene.name for scene in scenes]
        model = None if arm == "tiny" else self.untrained() if arm == "untrained" else self.train()

        def make() -> None:
            for scene, folder in zip(scenes, folders, strict=True):
                for side, images in (("database", scene.database), ("queries", scene.queries)):
                    if model is None:
                        tiny_images(images).save(folder / side, overwrite=True)
                    else:
                        extract(model, images, out=folder / side)

        made_by = ["train"] if arm == "trained" else ["model"] if arm == "untrained" else []
        self.step(
            f"extract-{arm}",
            {"after": self.after("read-test", *made_by)},
            make,
            made=folders,
            owned=[folder / side for folder in folders for side in ("database", "queries")],
        )
        return [(Descriptors.load(folder / "queries"), Descriptors.load(folder / "database")) for folder in folders]

    def whitened(self) -> list[tuple[Descriptors, Descriptors]]:
        """The trained descriptors, whitened on the databases that are searched."""
        described, file = self.describe("trained"), self.out / "whitening.npz"
        settings = self.recipe.whiten

        def make() -> None:
            joint = [
                replace(database, names=tuple(f"{number}/{name}" for name in database.names))
                for number, (_, database) in enumerate(described)
            ]
            fit_whitening(joint, dim=settings.dim, power=settings.power).save(file, overwrite=True)

        self.step("whiten", {"whiten": to_table(settings), "after": self.after("extract-trained")}, make, made=[file])
        whiten = Whitening.load(file)
        return [(whiten(queries), whiten(database)) for queries, database in described]

    def search(self, arm: str) -> tuple[list[Rankings], list[tuple[Descriptors, Descriptors]]]:
        """The rankings of each test scene, and the descriptors they came from."""
        described, scenes = self.describe(arm), self.scenes("test")
        files = [self.out / "rankings" / arm / f"{scene.name}.npz" for scene in scenes]
        k = self.recipe.evaluate.k

        def make() -> None:
            for (queries, database), file in zip(described, files, strict=True):
                index(database).search(queries, k=k).save(file, overwrite=True)

        self.step(f"search-{arm}", {"k": k, "after": self.after("whiten" if arm == "whitened" else f"extract-{arm}")}, make, made=files)
        return [Rankings.load(file) for file in files], described

    def score(self, arm: str) -> Scores:
        """The scores under every protocol of the recipe; those of the first are returned."""
        settings, scenes, labels = self.recipe.evaluate, self.scenes("test"), self.label("test")
        rankings, described = self.search(arm)
        files = [self.out / "scores" / arm / f"{name.replace('/', '-')}.json" for name in settings.protocols]

        def make() -> None:
            for name, file in zip(settings.protocols, files, strict=True):
                evaluate(
                    rankings,
                    scenes,
                    labels=labels,
                    protocol=protocol(name),
                    descriptors=described,
                    samples=settings.samples,
                    seed=settings.seed,
                ).save(file, overwrite=True)

        self.step(f"evaluate-{arm}", {"evaluate": to_table(settings), "after": self.after("label-test", f"search-{arm}")}, make, made=files)
        return Scores.load(files[0])

    def table(self, scores: Mapping[str, Scores]) -> str:
        """One row an arm, with the card of the protocol below."""
        widths = {arm: self.describe(arm)[0][1].dim for arm in scores}
        text = score_table({ARMS[arm]: one for arm, one in scores.items()}, dims={ARMS[arm]: width for arm, width in widths.items()})
        write_text(self.out / "table.txt", text + "\n")
        return text

    def picture(self) -> Path:
        """Queries, what the trained network found for them, right or wrong."""
        path = self.out / "picture.png"
        rule = protocol(self.recipe.evaluate.protocols[0])
        return retrieval_sheet(self.scenes("test"), self.search("trained")[0], self.label("test"), protocol=rule, out=path)


def _resolved(recipe: str | Path | Recipe, layout: str | None) -> Recipe:
    found = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    return found if layout is None else replace(found, data=replace(found.data, layout=layout))


def _contents(images: Images) -> str:
    """A hash of a table of images and of the size and time of each of its files: what a step depends on."""
    files = [images.path(row) for row in range(len(images))] + [images.root / name for name in images.depth or ()]
    stats = [path.stat() for path in files if path.exists()]
    return digest([images.digest(), len(files), [(stat.st_size, stat.st_mtime_ns) for stat in stats]])


def _remove(paths: Sequence[Path]) -> None:
    for path in (p for one in paths for p in (one, one.with_name(f".{one.name}.unfinished"))):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def _difference(before: Any, now: Any, *, path: str = "") -> str:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return "\n".join(_difference(before.get(key), now.get(key), path=f"{path}.{key}" if path else key) for key in keys)
    return f"  {path}: {before} stored, {now} asked for"
