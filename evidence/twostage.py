"""One stage against two: a global descriptor alone, and its first results looked at again by local features and geometry.

The second stage is covis's own, with OpenCV's SIFT (as RootSIFT) and ORB and covis's defaults (images of 640 pixels at most,
1,000 features, a fundamental matrix by RANSAC): there are no weights here for learned matchers. `docs/reranking.md` says what happens.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from covis.config import load_recipe
from covis.descriptors import Descriptors
from covis.evaluation import evaluate
from covis.extraction import extract, tiny_images
from covis.files import locked
from covis.images import Images
from covis.indexes import index
from covis.models.checkpoints import load
from covis.models.place import PlaceModel
from covis.rankings import Rankings
from covis.reranking import rerank
from covis.scores import Scores
from covis.searching import search_scenes
from covis.settings import DataSettings
from evidence.photographs import BACKBONE, TestSet, of_recipe, test_set

Measured = tuple[str, Scores, dict[str, float]]
MATCHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "SIFT": ("rootsift", {}),
    "SIFT, homography": ("rootsift", {"model": "homography"}),
    "SIFT, 15 inliers": ("rootsift", {"minimum": 15}),
    "ORB": ("orb", {}),
}
"""What an arm calls a second stage: the matcher, and what differs from the defaults."""
NETWORKS = {"campus": "gcl-campus", "headings": "gcl-headings", "kitchen": "gcl-7scenes", "corridor": "gcl-7scenes", "town": "gcl-7scenes"}
"""Set -> the recipe whose network, with ImageNet weights and not trained, is the global descriptor."""
KS = (5, 10, 25)
DEEP = 25
"""How many results the first stage gives."""
QUERIES = 60
"""Of a town, evenly spread over its rides."""
LOCAL = "local"
"""The folder in `work` where local features and matches are kept, with the seconds that they took."""
TOWN_SEED = 12
TOWNS = "miami,athens"
"""The two test towns of `covis world`; the layout "table" itself tells no val towns from those that are asked."""


@dataclass(frozen=True)
class First:
    """A global descriptor.

    Attributes:
        name: what arms call it; empty where a set has one alone.
        network: what describes; None: the tiny grey image.
    """

    name: str
    network: PlaceModel | None

    def describe(self, images: Images) -> Descriptors:
        """The descriptors of a table."""
        return tiny_images(images) if self.network is None else extract(self.network, images)


def measure(
    *,
    data: Path,
    work: Path,
    say: Callable[[str], object] = print,
    town: Path | None = None,
    models: Mapping[str, Path] | None = None,
    sets: Sequence[str] = tuple(NETWORKS),
    ks: Sequence[int] = KS,
    limit: int = QUERIES,
    known: Collection[str] = (),
    overwrite: bool = False,
) -> Iterator[Measured]:
    """Recall and seconds of one stage and of two, on real photographs and in a town of 320 x 240 pixels.

    All times are seconds of one thread, means over the queries: describing the query and searching by the processor's clock,
    the second stage's parts by the clock on the wall: run it on a quiet machine. What the database costs once, its descriptors and
    its local features, is not in them; an image of it costs what a query's does. What was matched is kept in `work` with its seconds,
    so that a run that was killed goes on; `overwrite` removes it, and measures seconds again.

    Args:
        data: the folder of the public sources, with the weights.
        work: where what is made is kept.
        say: takes a line of progress.
        town: a folder of towns in the layout "table", of which `TOWNS` are asked; None: two towns of the preset "small" with exact
            positions are built in `work`.
        models: name -> folder of a trained network, which is asked in the town too.
        sets: some of `NETWORKS`.
        ks: how many results the second stage looks at, each from 1 to 25.
        limit: queries of each town, evenly spread; 0: all.
        known: arms that are not measured again.
        overwrite: measure all of them again, nothing of an earlier run is used.

    Yields:
        (arm, scores, values) of each set, descriptor, second stage and k, one by one; arms are called "campus, k = 0" (one stage
        alone), "campus, SIFT, k = 10", "town, tiny image, ORB, k = 5". Values: "k"; "seconds a query", and its parts: "seconds describing",
        "seconds searching", and of two stages "seconds local features" (of the query), "seconds matching" and "seconds verifying"
        (with all k).

    Raises:
        CovisError: the weights or a set are not there, or OpenCV is not installed.
    """
    if overwrite:
        shutil.rmtree(work / LOCAL, ignore_errors=True)
    done = frozenset() if overwrite else frozenset(known)
    with one_thread():
        for name in sets:
            given = _town(town, work, limit=limit, say=say) if name == "town" else test_set(name, data, work)
            recipe = load_recipe(NETWORKS[name])
            firsts = [First("ImageNet" if name == "town" else "", PlaceModel(recipe.model, weights=data / BACKBONE))]
            if name == "town":
                firsts += [First("tiny image", None), *(First(one, load(path)) for one, path in (models or {}).items())]
            for first in firsts:
                yield from _measured(given, first, work, ks=ks, say=say, known=done)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch, OpenCV and FAISS; then as many as before."""
    import cv2
    import faiss

    before = torch.get_num_threads(), cv2.getNumThreads(), faiss.omp_get_max_threads()
    setters: tuple[Callable[[int], object], ...] = (torch.set_num_threads, cv2.setNumThreads, faiss.omp_set_num_threads)
    try:
        for setter in setters:
            setter(1)
        yield
    finally:
        for setter, count in zip(setters, before, strict=True):
            setter(count)


def _measured(
    given: TestSet, first: First, work: Path, *, ks: Sequence[int], say: Callable[[str], object], known: Collection[str] = ()
) -> Iterator[Measured]:
    """One descriptor on one set: alone, and with each second stage; without those that are known."""
    called = ", ".join(part for part in (given.name, first.name) if part)
    stages = {f"{called}, {name}, k = {k}": (*stage, k) for name, stage in MATCHERS.items() for k in ks}
    left = {arm: stage for arm, stage in stages.items() if arm not in known}
    if not left and f"{called}, k = 0" in known:
        return
    rule = replace(given.protocol, ks=(1, 5, 10, DEEP))
    found, cost = _searched(given, first)
    say(f"{called}: {cost['seconds describing']:.4f} s to describe a query, {cost['seconds searching']:.6f} s to search")
    alone = evaluate(found, given.scenes, labels=given.labels, protocol=rule)
    if f"{called}, k = 0" not in known:
        yield f"{called}, k = 0", alone, {"k": 0.0, **cost, "seconds a query": sum(cost.values())}
    for arm, (matcher, options, k) in left.items():
        again = [
            rerank(one, scene, matcher=matcher, top=k, options=options, cache=work / LOCAL, workers=1)
            for one, scene in zip(found, given.scenes, strict=True)
        ]
        scores = evaluate(again, given.scenes, labels=given.labels, protocol=rule)
        parts = {**cost, **_seconds(again)}
        say(f"{arm}: recall@1 {alone.metrics['recall@1'].value:.3f} to {scores.metrics['recall@1'].value:.3f}")
        yield arm, scores, {"k": float(k), **parts, "seconds a query": sum(parts.values())}


def _searched(given: TestSet, first: First) -> tuple[list[Rankings], dict[str, float]]:
    """The first stage's rankings, and its seconds a query."""
    first.describe(given.scenes[0].queries.select(range(min(4, len(given.scenes[0].queries)))))  # what is done once is done
    database = [first.describe(scene.database) for scene in given.scenes]
    begun = time.process_time()
    queries = [first.describe(scene.queries) for scene in given.scenes]
    described = time.process_time() - begun
    indexes = [index(one) for one in database]
    begun, times = time.process_time(), 10
    for _ in range(times):
        for one, asked in zip(indexes, queries, strict=True):
            one.search(asked, k=min(DEEP, len(one)))
    searched = (time.process_time() - begun) / times
    count = sum(len(one) for one in queries)
    described_pairs = list(zip(queries, database, strict=True))
    found = search_scenes(given.scenes, described_pairs, protocol=given.protocol, labels=given.labels, k=DEEP)
    return found, {"seconds describing": described / count, "seconds searching": searched / count}


def _seconds(found: Sequence[Rankings]) -> dict[str, float]:
    """Of the second stage, means over all queries."""
    named = {"features": "seconds local features", "matching": "seconds matching", "verification": "seconds verifying"}
    total = sum(len(one) for one in found)
    return {said: sum(len(one) * one.history["reranked"]["seconds"][part] for one in found) / total for part, said in named.items()}


def _town(folder: Path | None, work: Path, *, limit: int, say: Callable[[str], object]) -> TestSet:
    """The test towns, labelled by view as the recipe `town` does."""
    recipe = replace(load_recipe("town"), data=DataSettings(layout="table", test=TOWNS))
    return of_recipe("town", recipe, folder or _built(work / "towns", say), limit=limit)


def _built(out: Path, say: Callable[[str], object]) -> Path:
    """Two towns of the preset "small", which nobody learns in, with exact positions."""
    from covis.town import SURVEYS, write_town

    with locked(out.parent / f".{out.name}.lock"):
        if not (out / "done").exists():
            say("building two towns")
            out.mkdir(parents=True, exist_ok=True)
            write_town(out, layout="table", preset=replace(SURVEYS["small"], train=0, val=0, gps=0.0, compass=0.0), seed=TOWN_SEED)
            (out / "done").touch()
    return out
