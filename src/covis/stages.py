"""Stages: what StructVPR adds to a chain: a teacher that reads label maps, the partition of the pairs, and stage II.

RUN/maps/survey.txt                   what the label maps hold
    rgb/                              stage I on photographs (covis.chain), rgb/model
    untrained-teacher/   teacher/     stage I on label maps, teacher/model
    partition/<branch>/<scene>/       descriptors of the training images, of both branches
              partition.npz           the rank of each pair under both, its weight, and what was counted
              table.txt  pairs.png  ranks.png
    train/                            stage II, train/model: the network that is deployed

Under a sweep, what several arms have in common lies once, in folders named by a hash of all that decides them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.config import to_table
from covis.descriptors import Descriptors
from covis.errors import CovisWarning, MissingExtraError
from covis.extraction import extract
from covis.files import file_digest, read_text, write_text
from covis.images import Images, LabelMaps, Scene
from covis.labels import Labels
from covis.models.checkpoints import load, save
from covis.models.place import PlaceModel, model_card
from covis.reports.label_maps import map_sheet
from covis.reports.partitions import group_sheet, partition_text
from covis.reports.plots import rank_plot
from covis.semantics.encodings import encoding
from covis.semantics.maps import corrupted
from covis.semantics.surveys import survey_maps
from covis.settings import Recipe
from covis.shelves import Shelf
from covis.steps import Say, Steps
from covis.structure.distillation import distillation
from covis.structure.label_guides import LabelGuide
from covis.structure.label_losses import feature_masks, feature_size
from covis.structure.partition import Partition, partition
from covis.structure.stages import LABEL_FEATURES, check_dims, positive_threshold, student_training, teacher_model, teacher_training
from covis.structure.targets import Targets, check_images, shuffled
from covis.structure.weights import weigh
from covis.training.fitting import fit
from covis.training.guides import Guide
from covis.training.preparation import start_from_data
from covis.training.validation import Validation

Sides = tuple[Descriptors, Descriptors]


class Stages:
    """The teacher, the partition and stage II of one recipe; each is made when it is asked for, once.

    Args:
        recipe: with a `[structure]` that names classes.
        steps: the run's records; those of reading, labelling and stage I stand in it.
        shelf: where networks lie.
        scenes: that teach, with label maps.
        labels: one a scene.
        weights: a local file with the weights of the recipe's backbone; a teacher of another one does not take them.
        say: takes a line of progress.
    """

    def __init__(
        self, recipe: Recipe, steps: Steps, shelf: Shelf, *, scenes: Sequence[Scene], labels: Sequence[Labels], weights: Any, say: Say
    ) -> None:
        self.recipe, self.steps, self.shelf, self.weights, self.say = recipe, steps, shelf, weights, say
        self.labels, self.settings, self.seed = list(labels), recipe.structure, recipe.train.seed
        self.given, self.scenes = list(scenes), [corrupted(scene, self.settings.corrupt, seed=self.seed) for scene in scenes]

    def teacher(self, *, trained: bool = True) -> PlaceModel:
        """The network that reads label maps, after stage I; or before, as a control."""
        settings, training = teacher_model(self.recipe), teacher_training(self.recipe)
        weights = self.weights if settings.backbone == self.recipe.model.backbone else None
        source = file_digest(weights) if weights else settings.pretrained
        maps = {"corrupt": self.settings.corrupt, "after": self.steps.after("read-train", "read-maps")}
        read = encoding(self.settings.encoding()).digest()
        cards = {"model": model_card(settings), "encoding": read, "weights": source, "seed": self.seed, **maps}
        untrained = self.shelf.place("untrained-teacher", cards)

        def begin() -> None:
            with self.shelf.hold(untrained, say=self.say):
                if self.shelf.shared is not None and untrained.exists():
                    return
                model = PlaceModel(settings, seed=self.seed, weights=weights)
                start_from_data(model, self.scenes, seed=self.seed)
                save(model, untrained, overwrite=True)

        self.steps.do("model-teacher", cards, begin, made=[untrained], owned=self.shelf.owned(untrained))
        if not trained:
            return load(untrained)
        cards = {"train": to_table(training), "maps": maps, "after": self.steps.after("label-train", "model-teacher")}
        folder = self.shelf.place("teacher", cards)

        def learn() -> None:
            with self.shelf.hold(folder, say=self.say):
                fit(load(untrained), self.scenes, self.labels, training, out=folder)

        self.steps.do("train-teacher", cards, learn, made=[folder / "model"], owned=self.shelf.owned(folder))
        return load(folder / "model")

    def partition(self, rgb: PlaceModel) -> Partition:
        """The training pairs, ranked under both branches.

        Args:
            rgb: the network after stage I.
        """
        teacher = self.teacher()
        check_dims(teacher, rgb, loss=self.settings.loss)
        described = {"rgb": self.describe(rgb, "rgb", "train-rgb"), "teacher": self.describe(teacher, "teacher", "train-teacher")}
        positive = positive_threshold(self.recipe.train)
        settings = {"threshold": self.settings.threshold, "rank": self.settings.rank, "positive_threshold": positive}
        cards = {**settings, "after": self.steps.after("label-train", "describe-rgb", "describe-teacher")}
        file = self.shelf.place("partition", cards) / "partition.npz"

        def make() -> None:
            with self.shelf.hold(file.parent, say=self.say):
                if self.shelf.shared is not None and file.exists():
                    return
                names = [scene.name for scene in self.scenes]
                made = partition(self.labels, described["teacher"], described["rgb"], scenes=names, **settings)  # type: ignore[arg-type]
                made.save(file, overwrite=True)

        self.steps.do("partition", cards, make, made=[file], owned=self.shelf.owned(file))
        return Partition.load(file)

    def weights_of(self, pairs: Partition) -> list[NDArray[np.float64]]:
        """How much each pair teaches, one array a scene."""
        return weigh(pairs, self.settings.weighting, self.settings.weighting_options)

    def guide(self, rgb: PlaceModel) -> Guide:
        """What draws the student in stage II.

        Args:
            rgb: the network after stage I.
        """
        pairs = self.partition(rgb)
        settings, targets = self.settings, self._targets()
        check_images(targets, self.scenes)
        kind = "feature" if settings.loss == LABEL_FEATURES else settings.loss
        drawn = distillation(pairs, self.weights_of(pairs), targets, loss=kind, strength=settings.strength, negatives=settings.negatives)
        return drawn if settings.loss != LABEL_FEATURES else LabelGuide(drawn, self._masks(rgb), **settings.loss_options)

    def student(self, rgb: PlaceModel, start: PlaceModel, *, validation: Validation, after: Sequence[str]) -> PlaceModel:
        """Stage II: the network on photographs goes on learning, drawn to the teacher.

        Args:
            rgb: the network after stage I.
            start: where stage II begins.
            validation: as of `fit`.
            after: the steps that the validation comes from.
        """
        self.partition(rgb)
        made_by = ["train-rgb", "partition", *after]
        if self.settings.targets == "random":
            self._targets()  # a step of its own; the other targets come with the partition
            made_by.append("describe-random")
        training, folder = student_training(self.recipe), self.shelf.out / "train"

        def learn() -> None:
            guide = self.guide(rgb)
            fit(start, self.scenes, self.labels, training, out=folder, validation=validation, guide=guide)

        cards = {"train": to_table(training), "structure": to_table(self.settings), "after": self.steps.after(*made_by)}
        self.steps.do("train", cards, learn, made=[folder / "model"], owned=[folder])
        return load(folder / "model")

    def report(self, rgb: PlaceModel) -> tuple[Partition, str, tuple[Path, ...]]:
        """The partition, its table, and the files: the table, pairs of each group, label maps, and the plane of ranks.

        Args:
            rgb: the network after stage I.
        """
        pairs = self.partition(rgb)
        weights, folder = self.weights_of(pairs), self.shelf.out / "partition"
        table = partition_text(pairs, weights)
        files = [write_text(folder / "table.txt", table + "\n")]
        files.append(map_sheet(self.scenes[0].database, self.settings.encoding(), out=folder / "maps.png"))
        files.append(group_sheet(self.scenes, pairs, out=folder / "pairs.png", weights=weights, settings=self.settings.encoding()))
        try:
            files.append(rank_plot(pairs, out=folder / "ranks.png", weights=weights))
        except MissingExtraError as error:
            warnings.warn(f"The plane of ranks is not drawn: {error}", CovisWarning, stacklevel=2)
        return pairs, table, tuple(files)

    def describe(self, model: PlaceModel, branch: str, made_by: str) -> list[Sides]:
        """(queries, database) descriptors of the training scenes by a branch, kept: stage II reads them, and no label map."""
        cards = {"model": model.digest, "after": self.steps.after("read-train", made_by)}
        root = self.shelf.place(f"partition/{branch}", cards)
        folders = [root / scene.name for scene in self.scenes]

        def make() -> None:
            with self.shelf.hold(root, say=self.say):
                for scene, folder in zip(self.scenes, folders, strict=True):
                    extract(model, scene.database, out=folder / "database")
                    if not scene.training:
                        extract(model, scene.queries, out=folder / "queries")

        made = [folder / "database" for folder in folders]
        self.steps.do(f"describe-{branch}", cards, make, made=made, owned=self.shelf.owned(*folders))
        return [_sides(folder, scene) for folder, scene in zip(folders, self.scenes, strict=True)]

    def _targets(self) -> Targets:
        if self.settings.targets == "random":
            return self.describe(self.teacher(trained=False), "random", "model-teacher")
        targets = self.describe(self.teacher(), "teacher", "train-teacher")
        return shuffled(targets, seed=self.seed) if self.settings.targets == "shuffled" else targets

    def _masks(self, model: PlaceModel) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """What the label maps show at each position of the network's last map, of both sides of each scene."""
        size, encoded = feature_size(model), encoding(self.settings.encoding())

        def of(side: Images) -> NDArray[Any]:
            files = LabelMaps(side)
            return feature_masks([files.path(row) for row in range(len(files))], encoded, size)

        found = []
        for scene in self.scenes:
            database = of(scene.database)
            found.append((database if scene.training else of(scene.queries), database))
        return found

    def survey(self) -> None:
        """Read every label map once: what its numbers are must be known before anything is learnt, stage I on photographs included."""
        settings = self.settings.encoding()
        cards = {"encoding": encoding(settings).digest(), "after": self.steps.after("read-train", "read-maps")}
        file = self.shelf.place("maps", cards) / "survey.txt"

        def make() -> None:
            with self.shelf.hold(file.parent, say=self.say):
                if self.shelf.shared is None or not file.exists():
                    write_text(file, survey_maps(self.given, settings).summary() + "\n")

        self.steps.do("survey-maps", cards, make, made=[file], owned=self.shelf.owned(file))
        self.say(read_text(file).rstrip())


def _sides(folder: Path, scene: Scene) -> Sides:
    database = Descriptors.load(folder / "database")
    return (database if scene.training else Descriptors.load(folder / "queries")), database
