"""Materials: the scenes and labels of a recipe, read and made when they are asked for, each with the record of its step."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from covis.config import to_table
from covis.datasets import read
from covis.datasets.label_files import label_files, load_labels
from covis.errors import InvalidInputError, MissingFileError, OutputExistsError
from covis.files import digest, file_digest
from covis.images import Images, Scene
from covis.labelling import LABEL_RULES
from covis.labels import Labels
from covis.lookup import chosen, resolve, with_options
from covis.placebos import disturbed_labels
from covis.semantics.maps import attach_maps, check_own_maps
from covis.settings import LabelSettings, Recipe
from covis.shelves import Shelf
from covis.steps import Say, Steps
from covis.verification import label_changes, training_label


@dataclass(frozen=True)
class Given:
    """Files that the caller hands in, where there are any."""

    weights: str | Path | None = None
    labels: str | Path | None = None
    maps: str | Path | None = None
    shared: str | Path | None = None


class Materials:
    """What a recipe learns from and is asked: scenes by split, and their labels.

    Args:
        recipe: what is to be done.
        data: the data set's folder.
        out: the run's folder.
        given: files that the caller hands in.
        overwrite: do steps again whose settings differ.
        say: takes a line of progress.

    Raises:
        OutputExistsError: `out` is a file.
        InvalidInputError: labels are handed in, and the recipe asks for noise or a placebo in those that it makes.
    """

    def __init__(self, recipe: Recipe, data: Path, out: Path, *, given: Given, overwrite: bool, say: Say) -> None:
        if out.exists() and not out.is_dir():
            raise OutputExistsError(f"A run's --out must be a folder; {out} is a file. Choose another.")
        if given.labels is not None and (changes := label_changes(recipe.train_label)):
            raise InvalidInputError(
                f"Labels that are handed in are taken as they are, so [train_label] must have no {', '.join(changes)}; the recipe "
                f"{recipe.name!r} has. Leave the labels out, or those settings."
            )
        self.recipe, self.data, self.out, self.say = recipe, data, out, say
        self.weights, self.labels, self.maps = given.weights, given.labels, given.maps
        self.shelf = Shelf(out, None if given.shared is None else Path(given.shared))
        self.steps = Steps(out, overwrite=overwrite, say=say)
        self.known_scenes: dict[str, list[Scene]] = {}
        self.known_labels: dict[str, list[Labels]] = {}

    def scenes(self, split: str) -> list[Scene]:
        """The scenes that teach ("train"), choose the model ("val") or are asked ("test"), as the recipe's patterns choose them."""
        if split not in self.known_scenes:
            self.known_scenes[split] = self._read(split)
        return self.known_scenes[split]

    def label(self, split: str) -> list[Labels]:
        """Graded labels of the scenes of a split."""
        if split not in self.known_labels:
            given = self.labels is not None and split == "train"
            self.known_labels[split] = self._given_labels() if given else self._label(split)
        return self.known_labels[split]

    def _read(self, split: str) -> list[Scene]:
        settings = self.recipe.data
        pattern, named = getattr(settings, split), getattr(settings, f"{split}_split")
        scenes = [scene for scene in read(settings.layout, self.data, split=named, **settings.options) if chosen(scene.name, pattern)]
        if self.maps is not None:
            scenes = [self._mapped(scene, needed=split == "train") for scene in scenes]
            check_own_maps([*(scene for others in self.known_scenes.values() for scene in others), *scenes])
        if not scenes:
            raise InvalidInputError(
                f"{self.data} must hold a scene with a {named} split whose name fits {pattern!r}; it holds none. "
                'Look at the recipe\'s [data] (test = "" where nothing is asked).'
            )
        folders = [self.out / "scenes" / split / scene.name for scene in scenes]

        def write() -> None:
            for scene, folder in zip(photographed, folders, strict=True):
                scene.write(folder, overwrite=True)

        photographed = scenes
        if self.recipe.structure.classes:  # label maps are of the teacher's steps alone: with others, stage I on photographs stands
            photographed = [_unmapped(scene) for scene in scenes]
            self.steps.given(f"read-maps{'' if split == 'train' else f'-{split}'}", [_mapped(scene) for scene in scenes])
        contents = {scene.name: [_contents(side) for side in (scene.database, scene.queries)] for scene in photographed}
        self.steps.do(f"read-{split}", {"data": to_table(settings), "contents": contents}, write, made=folders)
        return scenes

    def _mapped(self, scene: Scene, *, needed: bool) -> Scene:
        """A scene with the label maps that were handed in; what is asked may lack them."""
        assert self.maps is not None
        try:
            database = attach_maps(scene.database, self.maps, base=self.data)
            queries = database if scene.training else attach_maps(scene.queries, self.maps, base=self.data)
            return replace(scene, database=database, queries=queries)
        except MissingFileError as error:
            if needed:
                raise
            self.say(f"{scene.name}: asked without label maps ({error})")
            return _unmapped(scene)

    def _label(self, split: str) -> list[Labels]:
        scenes, seed = self.scenes(split), self.recipe.train.seed
        settings = training_label(self.recipe) if split == "train" else self.recipe.label
        rule = with_options(resolve(settings.rule, LABEL_RULES, what="label rule"), settings.options, what="label rule")
        cards = {"label": label_card(settings, seed), "after": self.steps.after(f"read-{split}")}
        folder = self.shelf.place("labels/train", cards) if split == "train" else self.out / "labels" / split
        files = [folder / f"{scene.name}.npz" for scene in scenes]

        def make() -> None:
            with self.shelf.hold(folder, say=self.say) if split == "train" else nullcontext():
                for scene, file in zip(scenes, files, strict=True):
                    if self.shelf.shared is None or split != "train" or not file.exists():
                        graded = disturbed_labels(scene, partial(rule, **settings.options), seed=seed, **label_changes(settings))
                        graded.save(file, overwrite=True)

        self.steps.do(f"label-{split}", cards, make, made=files, owned=self.shelf.owned(*files) if split == "train" else files)
        labels = load_labels(folder, scenes)
        for scene, one in zip(scenes, labels, strict=True):
            self.say(f"{scene.name}: {one.summary()}")
            if warning := one.summary().warning:
                self.say(f"warning: {warning}")
        return labels

    def _given_labels(self) -> list[Labels]:
        assert self.labels is not None
        scenes = self.scenes("train")
        self.steps.given("label-train", [file_digest(file) for file in label_files(self.labels, scenes)])
        return load_labels(self.labels, scenes)


def label_card(settings: LabelSettings, seed: int) -> dict[str, Any]:
    """What labels depend on beside the images: rule and options, and with noise or a placebo those and the seed.

    Labels without them have the card that they had before there were any, so that what was made then still counts.

    >>> label_card(LabelSettings("view"), 3)
    {'rule': 'view', 'options': {}}
    >>> label_card(LabelSettings("view", position_noise=5.0), 3)
    {'rule': 'view', 'options': {}, 'position_noise': 5.0, 'seed': 3}
    """
    changes = label_changes(settings)
    return {"rule": settings.rule, "options": to_table(settings)["options"], **changes, **({"seed": seed} if changes else {})}


def _unmapped(scene: Scene) -> Scene:
    """A scene without label maps."""
    database = replace(scene.database, segmentation=None)
    return replace(scene, database=database, queries=database if scene.training else replace(scene.queries, segmentation=None))


def _mapped(scene: Scene) -> str:
    """A hash of a scene's label maps: their names, sizes and times."""
    files = [side.root / name for side in (scene.database, scene.queries) for name in side.segmentation or ()]
    stats = [(path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else None for path in files]
    return digest([scene.name, scene.database.segmentation, scene.queries.segmentation, stats])


def _contents(images: Images) -> str:
    """A hash of a table of images and of the size and time of each of its files: what a step depends on."""
    files = [images.path(row) for row in range(len(images))] + [images.root / name for name in images.depth or ()]
    stats = [path.stat() for path in files if path.exists()]
    return digest([images.digest(), len(files), [(stat.st_size, stat.st_mtime_ns) for stat in stats]])
