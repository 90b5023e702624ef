"""A recipe's whole chain, step by step, in one folder: what is done and unchanged is skipped.

RUN/recipe.toml                        the recipe, every field written out
    steps/<step>.json                  the settings and inputs of each step that is done
    scenes/<split>/<scene>/            what was read
    labels/<split>/<scene>.npz
    untrained/   train/                the network before, and after (train/model)
    rgb/   teacher/   partition/       where the recipe has a structure: covis.stages
    descriptors/<arm>/<scene>/         database and queries
    whitening.npz
    rankings/<arm>/<scene>.npz          or joint/rankings.npz, where a protocol searches one index over all scenes
    scores/<arm>/<protocol>.json
    table.txt    picture.png
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from covis.config import load_recipe, to_table, to_toml
from covis.descriptors import Descriptors
from covis.errors import InvalidInputError
from covis.evaluation import evaluate
from covis.extraction import extract, tiny_images
from covis.files import file_digest, write_text
from covis.images import Scene
from covis.labels import Labels
from covis.leaks import check_no_leak
from covis.lookup import resolve
from covis.materials import Given, Materials
from covis.metrics import NEEDS
from covis.models.checkpoints import load, save
from covis.models.place import PlaceModel, model_card
from covis.protocols import Protocol, protocol
from covis.rankings import Rankings
from covis.reports.sheets import retrieval_sheet
from covis.reports.tables import score_table
from covis.scores import Scores
from covis.searching import search_depths, search_scenes
from covis.settings import Recipe
from covis.stages import Stages
from covis.steps import Say
from covis.structure.partition import Partition
from covis.training.fitting import fit
from covis.training.preparation import start_from_data
from covis.verification import check_evaluation, check_learning, check_network
from covis.whitening import Whitening, fit_whitening

ARMS = {
    "tiny": "tiny grey image",
    "untrained": "before training",
    "rgb": "stage I, photographs",
    "teacher": "stage I, label maps",
    "trained": "trained",
    "whitened": "trained, whitened",
}
"""What is scored, and what the table calls it; "rgb" and "teacher" where the recipe has a structure."""

GRADED = [name for name, parts in NEEDS.items() if "similarity" in parts]
"""Metrics that are asked of graded labels."""


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    Attributes:
        out: the run's folder.
        scores: arm -> its scores under the recipe's first protocol.
        table: the table, as text.
        picture: the PNG; None where the trained network was not scored.
    """

    out: Path
    scores: Mapping[str, Scores]
    table: str
    picture: Path | None

    def __str__(self) -> str:
        return self.table


def run(
    recipe: str | Path | Recipe,
    data: str | Path,
    *,
    out: str | Path,
    weights: str | Path | None = None,
    layout: str | None = None,
    maps: str | Path | None = None,
    arms: Sequence[str] | None = None,
    shared: str | Path | None = None,
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
        maps: a folder of label maps (`covis segment`), in place of those that the layout gives.
        arms: what is scored, names of `ARMS`; a picture is drawn where "trained" is among them. Default: all that the recipe and the
            data have.
        shared: a folder for what several runs have in common; default: nothing is shared.
        overwrite: do steps again whose settings differ.
        say: takes a line of progress.

    Raises:
        UnknownNameError: an arm has no such name.
        LeakError: an image that is asked would also teach, or choose the model.
        SettingsDifferError: a step was done with other settings; the message shows the difference.
        CovisError: whatever a step finds wrong, with the file it found it in.
    """
    given = Given(weights, None, maps, shared)
    chain = _Chain(_resolved(recipe, layout), Path(data), Path(out), given=given, overwrite=overwrite, say=say)
    check_evaluation(chain.recipe)
    check_learning(chain.recipe, weights=weights)
    for arm in arms or ():
        resolve(arm, ARMS, what="arm")
    arms = chain.arms() if arms is None else arms
    chain.train()
    scores = {arm: chain.score(arm) for arm in arms}
    result = RunResult(Path(out), scores, chain.table(scores), chain.picture() if "trained" in arms else None)
    write_text(Path(out) / "recipe.toml", to_toml(chain.recipe))
    return result


def train(
    recipe: str | Path | Recipe,
    data: str | Path,
    *,
    out: str | Path,
    labels: str | Path | None = None,
    weights: str | Path | None = None,
    layout: str | None = None,
    maps: str | Path | None = None,
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
        maps: a folder of label maps, in place of those that the layout gives.
        overwrite: do steps again whose settings differ.
        say: takes a line of progress.

    Raises:
        CovisError: as in `run`.
    """
    given = Given(weights, labels, maps)
    return _taught(_Chain(_resolved(recipe, layout), Path(data), Path(out), given=given, overwrite=overwrite, say=say))


@dataclass(frozen=True)
class Distilled:
    """What `distill` left behind.

    Attributes:
        model: the student, which lies in RUN/train/model.
        pairs: the training pairs, ranked under both branches.
        table: their groups, shares and weights, as text.
        files: the table, and the pictures that could be drawn.
    """

    model: PlaceModel
    pairs: Partition
    table: str
    files: tuple[Path, ...]

    def __str__(self) -> str:
        return self.table


def distill(
    recipe: str | Path | Recipe,
    data: str | Path,
    *,
    out: str | Path,
    labels: str | Path | None = None,
    weights: str | Path | None = None,
    layout: str | None = None,
    maps: str | Path | None = None,
    overwrite: bool = False,
    say: Say = lambda _: None,
) -> Distilled:
    """Both stages of StructVPR: branches trained on photographs and on label maps, pairs partitioned and weighted, the student drawn.

    The same steps as in `run`, without what is asked; a run that was killed goes on where it was.

    Args:
        recipe: with a `[structure]` that names classes: the name of a shipped recipe, a TOML file, or a `Recipe`.
        data: the data set's folder.
        out: the run's folder.
        labels: as in `train`.
        weights: a local file with the backbone's weights.
        layout: of the data, in place of the recipe's.
        maps: a folder of label maps (`covis segment`), in place of those that the layout gives.
        overwrite: do steps again whose settings differ.
        say: takes a line of progress.

    Raises:
        InvalidInputError: the recipe has no structure, or the data no label maps.
        CovisError: as in `run`.
    """
    found = _resolved(recipe, layout)
    if not found.structure.classes:
        raise InvalidInputError(
            f"A recipe that distils must have a [structure] that names classes; {found.name!r} has none. Take structvpr-town as an "
            "example, or covis train."
        )
    given = Given(weights, labels, maps)
    chain = _Chain(found, Path(data), Path(out), given=given, overwrite=overwrite, say=say)
    model = _taught(chain)
    pairs, table, files = chain.stages().report(chain.learn())
    return Distilled(model, pairs, table, files)


class _Chain(Materials):
    """What a recipe asks for, made when it is asked for, each part once."""

    known_stages: Stages | None = None

    def untrained(self) -> PlaceModel:
        """The network as it goes into training."""
        settings, scenes = self.recipe.model, self.scenes("train")
        source = (
            {"file": Path(self.weights).name, "digest": file_digest(self.weights)} if self.weights else {"pretrained": settings.pretrained}
        )

        cards = {"model": model_card(settings), "weights": source, "seed": self.recipe.train.seed, "after": self.steps.after("read-train")}
        folder = self.shelf.place("untrained", cards)

        def make() -> None:
            with self.shelf.hold(folder, say=self.say):
                if self.shelf.shared is not None and folder.exists():
                    return
                model = PlaceModel(settings, seed=self.recipe.train.seed, weights=self.weights)
                start_from_data(model, scenes, seed=self.recipe.train.seed)
                save(model, folder, overwrite=True)

        self.steps.do("model", cards, make, made=[folder], owned=self.shelf.owned(folder))
        return load(folder)

    def train(self) -> PlaceModel:
        """The trained network: after the only stage, or after stage II."""
        if not self.recipe.structure.classes:
            return self.learn()
        check_network(self.recipe, weights=self.weights)  # both networks, and all maps, before the first of several trainings
        self.stages().survey()
        rgb, settings = self.learn(), self.recipe.structure
        validation, after = self._validation()
        start = rgb if settings.start == "rgb" else self.untrained()
        return self.stages().student(rgb, start, validation=validation, after=after)

    def learn(self) -> PlaceModel:
        """The network that has learnt from photographs alone: stage I, or the only one."""
        scenes, labels = self.scenes("train"), self.label("train")
        validation, after = self._validation()
        check_no_leak(scenes, [scene for scene, _ in validation])
        if self.recipe.data.test:
            check_no_leak(scenes, self.scenes("test"), [scene for scene, _ in validation])
        model = self.untrained()
        settings = {"train": to_table(self.recipe.train), "after": self.steps.after("read-train", "label-train", "model", *after)}
        first = bool(self.recipe.structure.classes)
        folder = self.shelf.place("rgb" if first else "train", settings)

        def make() -> None:
            with self.shelf.hold(folder, say=self.say):
                fit(model, scenes, labels, self.recipe.train, out=folder, validation=validation)

        self.steps.do("train-rgb" if first else "train", settings, make, made=[folder / "model"], owned=self.shelf.owned(folder))
        return load(folder / "model")

    def stages(self) -> Stages:
        """What the recipe's structure adds."""
        if self.known_stages is None:
            scenes, labels = self.scenes("train"), self.label("train")
            self.known_stages = Stages(
                self.recipe, self.steps, self.shelf, scenes=scenes, labels=labels, weights=self.weights, say=self.say
            )
        return self.known_stages

    def arms(self) -> list[str]:
        """What can be scored: the branches of stage I only where there are stages, the teacher only where what is asked has label maps."""
        structured = bool(self.recipe.structure.classes)
        sides = [side for scene in self.scenes("test") for side in (scene.database, scene.queries)] if structured else []
        mapped = structured and all(side.segmentation is not None for side in sides)
        return [arm for arm in ARMS if not ((arm == "rgb" and not structured) or (arm == "teacher" and not mapped))]

    def _validation(self) -> tuple[list[tuple[Scene, Labels | None]], list[str]]:
        """The scenes that choose the model, with labels where their protocol asks for similarity; and the steps they come from."""
        settings = self.recipe.train.validate
        if not settings.protocol:
            return [], []
        scenes = self.scenes("val")
        if protocol(settings.protocol).positive != "similarity" and settings.metric.partition("@")[0] not in GRADED:
            return [(scene, None) for scene in scenes], ["read-val"]
        return list(zip(scenes, self.label("val"), strict=True)), ["read-val", "label-val"]

    def describe(self, arm: str) -> list[tuple[Descriptors, Descriptors]]:
        """(queries, database) descriptors of each test scene."""
        if arm == "whitened":
            return self._whitened()
        scenes = self.scenes("test")
        folders = [self.out / "descriptors" / arm / scene.name for scene in scenes]
        model = self._network(arm)

        def make() -> None:
            for scene, folder in zip(scenes, folders, strict=True):
                for side, images in (("database", scene.database), ("queries", scene.queries)):
                    if model is None:
                        tiny_images(images).save(folder / side, overwrite=True)
                    else:
                        extract(model, images, out=folder / side)

        made_by = {"tiny": [], "untrained": ["model"], "rgb": ["train-rgb"], "teacher": ["train-teacher"], "trained": ["train"]}[arm]
        sides = [folder / side for folder in folders for side in ("database", "queries")]
        read = ["read-test", *(["read-maps-test"] if arm == "teacher" else [])]
        self.steps.do(f"extract-{arm}", {"after": self.steps.after(*read, *made_by)}, make, made=sides)
        return [(Descriptors.load(folder / "queries"), Descriptors.load(folder / "database")) for folder in folders]

    def _network(self, arm: str) -> PlaceModel | None:
        """What describes in an arm; None: nothing that learns."""
        if arm in ("rgb", "teacher") and not self.recipe.structure.classes:
            raise InvalidInputError(f"The arm {arm!r} needs a recipe with a [structure] that names classes; {self.recipe.name!r} has none.")
        made: dict[str, Callable[[], PlaceModel | None]] = {
            "tiny": lambda: None,
            "untrained": self.untrained,
            "rgb": self.learn,
            "teacher": lambda: self.stages().teacher(),
            "trained": self.train,
        }
        return made[arm]()

    def search(self, arm: str, scope: str = "scene") -> tuple[list[Rankings], list[tuple[Descriptors, Descriptors]]]:
        """The rankings of each test scene, or ("joint") the one over all of them, and the descriptors they came from."""
        described, k = self.describe(arm), self.recipe.evaluate.k
        scenes, labels = self.scenes("test"), self.label("test")
        given = [protocol(name) for name in self.recipe.evaluate.protocols]
        rules = [rule for rule in given if rule.scope == scope] or [self._alone(given[0])]
        depths = search_depths(scenes, rules, labels, k=k)
        folder = self.out / "rankings" / arm
        files = [folder / f"{scene.name}.npz" for scene in scenes] if scope == "scene" else [folder / "joint" / "rankings.npz"]

        def make() -> None:
            for found, file in zip(search_scenes(scenes, described, protocol=rules, labels=labels, k=k), files, strict=True):
                found.save(file, overwrite=True)

        after = self.steps.after("whiten" if arm == "whitened" else f"extract-{arm}")
        deeper = {"depths": depths} if set(depths) != {k} else {}  # where something takes no rank
        self.steps.do(_search_step(arm, scope), {"k": k, **deeper, "after": after}, make, made=files)
        return [Rankings.load(file) for file in files], described

    @staticmethod
    def _alone(rule: Protocol) -> Protocol:
        """A protocol of a joint index, asked of each scene alone: for the picture."""
        return rule if rule.scope == "scene" else replace(rule, name=f"{rule.name}, each scene alone", scope="scene")

    def score(self, arm: str) -> Scores:
        """The scores under every protocol of the recipe; those of the first are returned."""
        settings, scenes, labels = self.recipe.evaluate, self.scenes("test"), self.label("test")
        rules = [protocol(name) for name in settings.protocols]
        searched = {scope: self.search(arm, scope) for scope in sorted({rule.scope for rule in rules})}
        files = [self.out / "scores" / arm / f"{rule.name.replace('/', '-')}.json" for rule in rules]

        def make() -> None:
            for rule, file in zip(rules, files, strict=True):
                rankings, described = searched[rule.scope]
                scores = evaluate(
                    rankings, scenes, labels=labels, protocol=rule, descriptors=described, samples=settings.samples, seed=settings.seed
                )
                scores.save(file, overwrite=True)

        cards = {"evaluate": to_table(settings), "protocols": [rule.as_dict() for rule in rules]}
        after = self.steps.after("label-test", *(_search_step(arm, scope) for scope in searched))
        self.steps.do(f"evaluate-{arm}", {**cards, "after": after}, make, made=files)
        return Scores.load(files[0])

    def table(self, scores: Mapping[str, Scores]) -> str:
        """One row an arm, with the card of the protocol below."""
        widths = {ARMS[arm]: self.describe(arm)[0][1].dim for arm in scores}
        text = score_table({ARMS[arm]: one for arm, one in scores.items()}, dims=widths)
        write_text(self.out / "table.txt", text + "\n")
        return text

    def picture(self) -> Path:
        """Queries, what the trained network found for them, right or wrong."""
        rule = self._alone(protocol(self.recipe.evaluate.protocols[0]))
        return retrieval_sheet(
            self.scenes("test"), self.search("trained")[0], self.label("test"), protocol=rule, out=self.out / "picture.png"
        )

    def _whitened(self) -> list[tuple[Descriptors, Descriptors]]:
        """The trained descriptors, whitened on the databases that are searched."""
        described, file = self.describe("trained"), self.out / "whitening.npz"
        settings = self.recipe.whiten

        def make() -> None:
            shrinkage: float | Literal["ledoit-wolf"] = "ledoit-wolf" if settings.shrinkage == -1 else settings.shrinkage
            fitted = fit_whitening(
                [database for _, database in described], dim=settings.dim, power=settings.power, kind=settings.kind, shrinkage=shrinkage
            )
            fitted.save(file, overwrite=True)

        self.steps.do("whiten", {"whiten": to_table(settings), "after": self.steps.after("extract-trained")}, make, made=[file])
        whiten = Whitening.load(file)
        return [(whiten(queries), whiten(database)) for queries, database in described]


def _taught(chain: _Chain) -> PlaceModel:
    """The trained network, after a look at all that can be judged before; the recipe stands beside it."""
    check_learning(chain.recipe, weights=chain.weights)
    model = chain.train()
    write_text(chain.out / "recipe.toml", to_toml(chain.recipe))
    return model


def _search_step(arm: str, scope: str) -> str:
    return f"search-{arm}" if scope == "scene" else f"search-{arm}-{scope}"


def _resolved(recipe: str | Path | Recipe, layout: str | None) -> Recipe:
    found = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    return found if layout is None else replace(found, data=replace(found.data, layout=layout))
