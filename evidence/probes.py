"""What is asked of a cell beside the study's own scores: fewer dimensions, and photographs of other places."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from covis.descriptors import Descriptors
from covis.errors import CovisWarning, InvalidInputError
from covis.evaluation import evaluate
from covis.extraction import extract, tiny_images
from covis.files import read_json
from covis.images import Images, Scene
from covis.labels import Labels
from covis.models.checkpoints import load
from covis.models.place import PlaceModel
from covis.pixels import PhotoResize
from covis.protocols import Protocol, protocol
from covis.scores import Scores
from covis.searching import search_scenes
from covis.settings import Recipe, WhitenSettings
from covis.whitening import Whitening, fit_whitening
from evidence.photographs import TestSet, shrunk, test_set

Pair = tuple[Descriptors, Descriptors]
Size = tuple[int, int, PhotoResize]
"""Of a network's input: height, width, and how photographs get there."""
ASKED = ("corridor", "seasons", "campus")
"""The photographs that a network is asked of, after it has learnt elsewhere."""
COMPARED = 32
"""The dimension at which ways to whiten are compared."""


def dimensions(run: Path, recipe: Recipe, dims: Sequence[int] = (128, 64, 32, 16, 8)) -> dict[str, Scores]:
    """A run's trained descriptors whitened to several dimensions, scored under the recipe's first protocol.

    Whitening is PCA with the recipe's power and shrinkage, fitted on the databases that are searched, as the chain does: where the
    recipe whitens to 32 dimensions by PCA, "whitened 32" is its arm "whitened".

    Args:
        run: the folder of a finished run, its descriptors still there.
        recipe: what was run.
        dims: how many dimensions, each > 0.

    Returns:
        "whitened 128" and so on, without those that the descriptors do not carry; "half-whitened 32": with power 0.5;
        "whitened 32, fitted on training images": the map fitted on the photographs that taught, described by the trained network.
        The last two are of the largest dimension there is where that is below 32, and are called so.

    Raises:
        InvalidInputError: no dimension is asked for.
        CovisError: the run's folder does not hold what a finished run has.
    """
    if not dims or min(dims) < 1:
        raise InvalidInputError(f"At least one dimension > 0 must be asked for; got {list(dims)}.")
    scenes = scenes_of(run, "test")
    labels = [Labels.load(run / "labels" / "test" / f"{scene.name}.npz") for scene in scenes]
    described = [_stored(run / "descriptors" / "trained" / scene.name) for scene in scenes]
    database = [pair[1] for pair in described]
    whole = _fitted(database, recipe.whiten, power=recipe.whiten.power)
    made = {f"whitened {dim}": whole.at(dim) for dim in dims if dim <= whole.dim}
    dim = min(COMPARED, whole.dim)
    made[f"half-whitened {dim}"] = _fitted(database, recipe.whiten, power=0.5).at(dim)
    taught = _fitted(_taught(run), recipe.whiten, power=recipe.whiten.power, on="training images")
    least = min(dim, taught.dim)
    made[f"whitened {least}, fitted on training images"] = taught.at(least)
    rule = protocol(recipe.evaluate.protocols[0])
    return {name: _scored(scenes, [(map_(q), map_(d)) for q, d in described], rule, labels) for name, map_ in made.items()}


def transfer(model: Path | None, data: Path, work: Path, *, only: Sequence[str] = ASKED) -> dict[str, Scores]:
    """A network that has learnt elsewhere, asked on photographs: VPR-Bench's corridor, five places in twelve seasons, a campus at night.

    What each set asks and counts is said at `evidence.photographs.test_set`.

    Args:
        model: the folder of a network, trained or not (RUN/train/model, RUN/untrained); None: the tiny grey image.
        data: the folder of the public sources.
        work: where the photographs are kept in the network's size, so that the next network of that size is asked in a second.
        only: some of `ASKED`.

    Returns:
        "on corridor", "on seasons", "on campus".

    Raises:
        CovisError: the network or a set is not there, or damaged.
    """
    network = None if model is None else load(model)
    scores = {}
    for name in only:
        given = test_set(name, data, work)
        described = describe(given, network, work)
        scores[f"on {name}"] = _scored(given.scenes, described, given.protocol, given.labels)
    return scores


def describe(given: TestSet, network: PlaceModel | None, work: Path | None = None) -> list[Pair]:
    """(queries, database) descriptors of a test set, each photograph described once; None: the tiny grey image.

    With `work` photographs are made small once, and read from there.
    """
    known = {images.root: _described(images, network, work) for images in _tables(given)}
    return [(_of(known[scene.queries.root], scene.queries), _of(known[scene.database.root], scene.database)) for scene in given.scenes]


def ready(sizes: Iterable[Size], data: Path, work: Path, *, only: Sequence[str] = ASKED) -> None:
    """Cut what is cut and make the photographs small, for networks of these sizes, before several processes ask for them at once.

    Args:
        sizes: (height, width, how photographs get there) of a network.
        data: the folder of the public sources.
        work: as in `transfer`.
        only: some of `ASKED`.

    Raises:
        CovisError: a set is not there, or damaged.
    """
    wanted = list(dict.fromkeys(sizes))
    for name in only:
        for images in _tables(test_set(name, data, work)):
            for height, width, resize in wanted:
                shrunk(images, work, height=height, width=width, resize=resize)


def _tables(given: TestSet) -> list[Images]:
    """A folder's photographs as one table, each once."""
    sides = [side for scene in given.scenes for side in (scene.queries, scene.database)]
    roots = dict.fromkeys(side.root for side in sides)
    return [Images(root, tuple(dict.fromkeys(name for side in sides if side.root == root for name in side.names))) for root in roots]


def _of(described: Descriptors, images: Images) -> Descriptors:
    """The rows of a table's images."""
    row = {name: at for at, name in enumerate(described.names)}
    return replace(described, vectors=described.vectors[[row[name] for name in images.names]], names=images.names)


def _described(images: Images, network: PlaceModel | None, work: Path | None) -> Descriptors:
    if network is None:
        return tiny_images(images)
    if network.resize == "labels":
        raise InvalidInputError("A network that is asked photographs must read photographs; this one reads label maps.")
    if work is None:
        return extract(network, images)
    small = shrunk(images, work, height=network.height, width=network.width, resize=network.resize)
    return replace(extract(network, small), names=images.names)


def scenes_of(run: Path, split: Literal["train", "test"]) -> list[Scene]:
    """The scenes of a split as a run has read them, in its order: its scores are of the same queries."""
    names = read_json(run / "steps" / f"read-{split}.json")["settings"]["contents"]
    return [Scene.read(run / "scenes" / split / name) for name in names]


def _stored(folder: Path) -> Pair:
    return Descriptors.load(folder / "queries"), Descriptors.load(folder / "database")


def _fitted(sets: Sequence[Descriptors], settings: WhitenSettings, *, power: float, on: str = "database") -> Whitening:
    """PCA of all dimensions that are carried; that the last of them are noise is what is measured."""
    shrinkage: float | Literal["ledoit-wolf"] = "ledoit-wolf" if settings.shrinkage == -1 else settings.shrinkage
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CovisWarning)
        return fit_whitening(sets, power=power, shrinkage=shrinkage, fitted_on=on)


def _taught(run: Path) -> list[Descriptors]:
    """The photographs that taught, described by the trained network, each scene's sides once."""
    network = load(run / "train" / "model")
    sides = {(one.root, one.names): one for scene in scenes_of(run, "train") for one in (scene.database, scene.queries)}
    return [extract(network, images) for images in sides.values()]


def _scored(scenes: Sequence[Scene], described: Sequence[Pair], rule: Protocol, labels: Sequence[Labels] | None) -> Scores:
    found = search_scenes(scenes, described, protocol=rule, labels=labels, k=max(rule.ks))
    return evaluate(found, scenes, labels=labels, protocol=rule, descriptors=described)
