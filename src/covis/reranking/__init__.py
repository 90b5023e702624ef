"""Two-stage search: the first results of a global descriptor looked at again by local features and geometry.

A matcher prepares each image once and gives corresponding points of two images; RANSAC counts how many of them one geometry
explains; the first results are put in the order of that number. `MATCHERS` are the built-in ones.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from covis.config import from_table
from covis.errors import InvalidInputError, MissingFileError
from covis.images import Images, Scene
from covis.predictions import Lookup
from covis.rankings import Rankings
from covis.reranking.matchers import Matcher, Prepared, checked_correspondences, identity, open_matcher
from covis.reranking.networks import Disk, LightGlue, Loftr, XFeat
from covis.reranking.opencv import Orb, Ransac, RootSift, opencv
from covis.reranking.orders import reorder
from covis.reranking.stores import Ledger, Store

__all__ = ["MATCHERS", "Matcher", "Prepared", "Ransac", "reorder", "rerank"]

MATCHERS: dict[str, Callable[..., Matcher]] = {
    "disk": Disk,
    "lightglue": LightGlue,
    "loftr": Loftr,
    "orb": Orb,
    "rootsift": RootSift,
    "xfeat": XFeat,
}
"""Name -> function of keyword options that gives a `Matcher`. Learned ones need `weights`, a local file."""

SIZE = 640
"""The longer side of an image at most, pixels, where `size` is not among the options."""
BLOCK = 16
"""Queries whose results are remembered together."""

_SHARED = ("size", *(field.name for field in dataclasses.fields(Ransac)))
STAGES = ("features", "matching", "verification")
"""What a query's seconds are measured of: its own features, and both steps over all its candidates."""

_Asked = tuple[Path, tuple[Path | None, ...]]
_Seen = tuple[list[int], tuple[float, ...]]


def rerank(
    rankings: Rankings,
    scene: Scene,
    *,
    matcher: str = "rootsift",
    top: int = 100,
    options: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    workers: int | None = None,
    memory: int = 1024,
    progress: bool = False,
) -> Rankings:
    """Put the first results of each query in the order of their geometrically verified matches, most first.

    Each query is matched with each of its first `top` database images; RANSAC counts the correspondences that one fundamental
    matrix, or homography, explains (`Ransac`). Equal numbers stay in the order they had; what is not verified keeps its order
    behind, what lies beyond `top` its place, and a row of -1 its rank. A query with nothing verified keeps its ranking.

    Distances become minus the number of inliers where there are any; all others keep theirs (`reorder`). The result does not
    depend on the number of workers, nor on whether there is a cache.

    Args:
        rankings: of single images; rows may be fewer than the scene's queries.
        scene: whose images they name, by name or by key; for a joint ranking `covis.truths.join` of the scenes.
        matcher: a name of `MATCHERS`, or `module:function` of your own (`Matcher`).
        top: how many results of each query are looked at.
        options: of the matcher; and `size` (longer side of the images at most, pixels; 640), `model`, `threshold`,
            `confidence`, `iterations`, `minimum`, `seed` of `Ransac`.
        cache: a folder where prepared images and the results of finished blocks of queries stay; with it a killed run goes on.
        workers: threads; None: as many as processors.
        memory: MiB of prepared images held at most.
        progress: show a bar on stderr.

    Returns:
        The rankings re-ordered, with all settings, versions and mean seconds in `history["reranked"]`.

    Raises:
        InvalidInputError: an option is unknown or outside its range, a name is none of the scene's, or of a window of frames.
        UnknownNameError: there is no such matcher.
        MissingExtraError: the matcher's library, or OpenCV, is not installed.
        MissingFileError: an image is not there.
        DamagedFileError: an image does not decode; the message names it.
    """
    for name, value in (("top", top), ("memory", memory), ("workers", 1 if workers is None else workers)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidInputError(f"The option {name} must be a whole number of 1 or more; got {value!r}.")
    begun = time.perf_counter()
    own, size, ransac = _settings(options or {})
    opened = open_matcher(matcher, MATCHERS, own, shared=_SHARED)
    asked = _asked(rankings, scene, min(top, rankings.k))
    _check_files(asked)
    decides = identity(matcher, opened, own)
    folder = None if cache is None else Path(cache)
    store = Store(opened, decides, size=size, folder=folder and folder / "features", memory=memory * 2**20)
    whole = {**store.identity, "ransac": dataclasses.asdict(ransac), "opencv": str(opencv().__version__)}
    ledger = Ledger(folder and folder / "inliers", whole, store)
    threads = workers or _processors()
    inliers, seconds = _looked(asked, _Looker(store, ransac), ledger=ledger, workers=threads, progress=progress)
    rows, distances = reorder(rankings.rows, rankings.distances, inliers)
    spent = seconds.mean(axis=0).tolist() if len(asked) else [None] * len(STAGES)
    story = {
        **whole,
        "top": min(top, rankings.k),
        "seconds": dict(zip(STAGES, spent, strict=True)),
        "images": {"prepared": store.computed, "read": store.read},
        "pairs": int(sum(path is not None for _, paths in asked for path in paths)),
        "workers": threads,
        "elapsed": time.perf_counter() - begun,
    }
    return dataclasses.replace(rankings, rows=rows, distances=distances, history={**rankings.history, "reranked": story})


def _settings(options: Mapping[str, Any]) -> tuple[dict[str, Any], int, Ransac]:
    """The matcher's own options, the images' size, and the verification's settings."""
    size = options.get("size", SIZE)
    if isinstance(size, bool) or not isinstance(size, int) or size < 16:
        raise InvalidInputError(f"The option size must be a whole number of pixels, 16 or more; got {size!r}.")
    shared = {name: value for name, value in options.items() if name in _SHARED and name != "size"}
    return {name: value for name, value in options.items() if name not in _SHARED}, size, from_table(Ransac, shared, where="options")


def _asked(rankings: Rankings, scene: Scene, top: int) -> list[_Asked]:
    """For each query its file and those of its first results, None for what is no image of the database."""
    rows = rankings.rows[:, :top]
    used = np.unique(rows[rows >= 0])
    queries = _files(rankings.query_names, scene.queries, scene, "queries")
    database = dict(
        zip(used.tolist(), _files([rankings.database_names[row] for row in used], scene.database, scene, "database"), strict=True)
    )
    return [(query, tuple(database.get(row) for row in found)) for query, found in zip(queries, rows.tolist(), strict=True)]


def _files(names: Sequence[str], images: Images, scene: Scene, side: str) -> list[Path]:
    rows = Lookup(images.names).rows(names)
    for place in np.flatnonzero(rows < 0)[:1]:
        name = names[int(place)]
        if "," in name:
            raise InvalidInputError(
                f"Re-ranking looks at single images; {name!r} in the ranking names a window of frames. Search the images themselves, "
                "under a protocol without windows."
            )
        raise InvalidInputError(
            f"The ranking must name images of the scene {scene.name!r}; {name!r} is none of its {len(images)} {side}, by name or by key. "
            "Was it made from other data?"
        )
    return [images.path(int(row)) for row in rows]


def _check_files(asked: Sequence[_Asked]) -> None:
    """Every image must be there before the first is looked at."""
    for path in dict.fromkeys(path for query, paths in asked for path in (query, *paths) if path is not None):
        if not path.is_file():
            raise MissingFileError(
                f"The image {path} must exist; there is no such file. Check the data folder, or that it was unpacked whole."
            )


class _Looker:
    """Matches and verifies a query with its candidates, in any thread, until it is stopped."""

    def __init__(self, store: Store, ransac: Ransac) -> None:
        self.store, self.ransac, self.stopped = store, ransac, threading.Event()

    def __call__(self, one: _Asked) -> _Seen:
        """The inliers of a query with each of its candidates, and its seconds by `STAGES`."""
        query, paths = one
        mine = self.store.prepared(query)
        counts, matching, verifying = [0] * len(paths), 0.0, 0.0
        for place, path in enumerate(paths):
            if path is None or self.stopped.is_set():
                continue
            theirs = self.store.prepared(path)
            begun = time.perf_counter()
            found = checked_correspondences(self.store.matcher.correspondences(mine, theirs), matcher=self.store.identity["matcher"])
            matched = time.perf_counter()
            counts[place] = self.ransac.inliers(found)
            matching, verifying = matching + matched - begun, verifying + time.perf_counter() - matched
        return counts, (self.store.seconds[query], matching, verifying)


def _looked(
    asked: Sequence[_Asked], look: _Looker, *, ledger: Ledger, workers: int, progress: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(q, top) inliers, and (q, 3) seconds by `STAGES`; blocks that are done are not looked at again."""
    width = len(asked[0][1]) if asked else 0
    inliers, seconds = np.zeros((len(asked), width), dtype=np.int64), np.zeros((len(asked), len(STAGES)))
    with ThreadPoolExecutor(workers) as pool, _bar(len(asked), shown=progress) as bar:
        try:
            begun: list[tuple[slice, Path | None, list[Future[_Seen]]]] = []
            for start in range(0, len(asked), BLOCK):
                part = slice(start, start + BLOCK)
                file = ledger.file(asked[part])
                known = ledger.load(file, (len(asked[part]), width))
                if known is None:
                    begun.append((part, file, [pool.submit(look, one) for one in asked[part]]))
                else:
                    inliers[part], seconds[part] = known
                    bar.advance(bar.task_ids[0], len(asked[part]))
            for part, file, futures in begun:
                for row, future in enumerate(futures, start=part.start):
                    inliers[row], seconds[row] = future.result()
                    bar.advance(bar.task_ids[0])
                ledger.save(file, inliers[part], seconds[part])
        except BaseException:  # the first error stops the rest, and so does an interruption
            look.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return inliers, seconds


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _bar(total: int, *, shown: bool) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        bar.add_task("queries", total=total)
        yield bar
