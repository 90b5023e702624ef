"""Scenes described and searched as a protocol asks: each alone, or all in one joint index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.descriptors import Descriptors
from covis.errors import InvalidInputError, SettingsDifferError
from covis.evaluation import skipped_images
from covis.files import digest
from covis.images import Images, Scene
from covis.indexes import Index, index
from covis.labels import Labels
from covis.protocols import Protocol
from covis.protocols import protocol as protocol_by_name
from covis.rankings import Rankings
from covis.truths import depth, join

if TYPE_CHECKING:
    from covis.models.describers import Describer

Pair: TypeAlias = tuple[Descriptors, Descriptors]
SAMPLE = 1000
"""Queries that an approximate index is held against the exact one on."""


def describe_scenes(
    model: Describer,
    scenes: Sequence[Scene],
    *,
    work: str | Path,
    batch: int = 32,
    damaged: Literal["stop", "skip"] = "stop",
    say: Callable[[str], None] = lambda _: None,
    progress: bool = False,
) -> list[Pair]:
    """Describe both sides of scenes into a work folder, where a second call with the same model and images finds them.

    The folder of a side is `WORK/<model>/<split>-<scene>-<hash of its names>/<side>`; one that was begun and killed goes on.

    Args:
        model: any describer.
        scenes: whose images are described.
        work: the folder, made where it is not there.
        batch: images that the network sees at once.
        damaged: of images that are missing or do not decode: "stop", or "skip", which leaves them without a descriptor.
        say: takes a line about each side.
        progress: show a bar on stderr.

    Returns:
        (queries, database) a scene, memory-mapped.

    Raises:
        SettingsDifferError: the work folder holds descriptors of other photographs under the same names.
        CovisError: as of `covis.extract`.
    """
    from covis.extraction import extract  # and torch: who brings descriptors searches without

    described = []
    for scene in scenes:
        names = digest([scene.split, scene.name, scene.queries.names, scene.database.names])[:8]
        folder = Path(work) / model.digest / f"{scene.split}-{scene.name}-{names}"
        made = {}
        once = _files(scene.queries, model) == _files(scene.database, model)
        for side in ("database",) if once else ("queries", "database"):
            images: Images = getattr(scene, side)
            there = (folder / side).exists()
            say(
                f"{scene.name} {side}: {len(images)} images, " + ("described before" if there else "described now") + f" in {folder / side}"
            )
            try:
                made[side] = extract(model, images, out=folder / side, batch=batch, damaged=damaged, progress=progress)
            except SettingsDifferError as error:
                said = str(error).partition(" Choose another")[0]
                raise SettingsDifferError(f"{said} Choose another --work, or remove {folder}.") from error
        described.append((made.get("queries", made["database"]), made["database"]))
    return described


def _files(images: Images, model: Describer) -> tuple[Any, ...]:
    """What a model reads of a table; two tables of the same are described once."""
    return images.root, images.names, images.segmentation if model.resize == "labels" else None


def search_scenes(
    scenes: Sequence[Scene],
    described: Sequence[Pair],
    *,
    protocol: str | Protocol | Sequence[str | Protocol],
    labels: Sequence[Labels] | None = None,
    k: int = 25,
    kind: str = "exact",
    options: Mapping[str, Any] | None = None,
) -> list[Rankings]:
    """Search scenes as a protocol asks, deep enough that k images are left after those that take no rank under it.

    An image that was skipped when the scene was described stays in the ranking's names: as a query it finds nothing (rows of
    -1, at infinity), as a database image it is never found. Both are counted in the history ("without a descriptor").

    Args:
        scenes: whose images were described.
        described: (queries, database) a scene, in the order of its images.
        protocol: a name of `PROTOCOLS`, a TOML file, a `Protocol`; or several of one scope, and the search is deep enough for each.
        labels: one a scene, where the protocol asks for them.
        k: how many images are wanted for each query.
        kind: of the index, a name of `INDEXES`. What an approximate one finds is held against the exact index on up to 1,000
            of the queries, and the share of the k nearest, and of the first, that it found stands in the history ("recall against exact").
        options: of the index.

    Returns:
        A ranking a scene; under a protocol of scope "joint" one in all, named as `covis.truths.join` names it.

    Raises:
        InvalidInputError: the descriptors are not those of the scenes' images, the protocols are of two scopes, k < 1, or
            the parts of a search do not belong together.

    >>> images = Images("photos", ["a.jpg", "b.jpg"], xy=[[0, 0], [9, 0]])
    >>> here = Descriptors(np.eye(2, dtype=np.float32), images.names, model="none")
    >>> search_scenes([Scene("s", "test", images, images)], [(here, here)], protocol="radius/25", k=1)[0].rows.tolist()
    [[0, 1], [1, 0]]
    """
    rules = _rules(protocol)
    if len(described) != len(scenes):
        raise InvalidInputError(f"One pair of descriptors a scene must be given; got {len(described)} for {len(scenes)} scenes.")
    asked = [_placed(queries, scene.queries, scene.name) for scene, (queries, _) in zip(scenes, described, strict=True)]
    there = [_placed(database, scene.database, scene.name) for scene, (_, database) in zip(scenes, described, strict=True)]
    depths = search_depths(scenes, rules, labels, k=k)
    making = {"kind": kind, **({} if options is None else {"options": options})}
    if rules[0].scope == "scene":
        return [
            _whole(_search([queries], [database], making, k=k, deep=deep), scene, asked=here, there=found)
            for scene, (queries, database), here, found, deep in zip(scenes, described, asked, there, depths, strict=True)
        ]
    whole = join(scenes)
    asked, there = (
        [rows + before for rows, before in zip(side, np.cumsum([0, *lengths]), strict=False)]
        for side, lengths in ((asked, [len(scene.queries) for scene in scenes]), (there, [len(scene.database) for scene in scenes]))
    )
    queries = [_named(pair[0], whole.queries, rows) for pair, rows in zip(described, asked, strict=True)]
    databases = [_named(pair[1], whole.database, rows) for pair, rows in zip(described, there, strict=True)]
    found = _search(queries, databases, making, k=k, deep=k + sum(one - k for one in depths))
    found = replace(found, history={**found.history, "scope": "joint"})
    return [_whole(found, whole, asked=np.concatenate(asked), there=np.concatenate(there))]


def search_depths(
    scenes: Sequence[Scene], protocol: str | Protocol | Sequence[str | Protocol], labels: Sequence[Labels] | None = None, *, k: int = 25
) -> list[int]:
    """How many images each scene's search must give, so that k are left under each of these protocols."""
    given: Sequence[Labels | None] = [None] * len(scenes) if labels is None else labels
    return [max(depth(scene, rule, label, k=k) for rule in _rules(protocol)) for scene, label in zip(scenes, given, strict=True)]


def _rules(protocol: str | Protocol | Sequence[str | Protocol]) -> list[Protocol]:
    given = [protocol] if isinstance(protocol, (str, Protocol)) else list(protocol)
    rules = [one if isinstance(one, Protocol) else protocol_by_name(one) for one in given]
    if len({rule.scope for rule in rules}) != 1:
        raise InvalidInputError(
            f"The protocols of one search must be of one scope; got {', '.join(f'{rule.name} ({rule.scope})' for rule in rules)}."
        )
    return rules


def _placed(described: Descriptors, images: Images, scene: str) -> NDArray[np.int64]:
    """(n,) the image of each descriptor; those without one must have been skipped."""
    if described.names == images.names:
        return np.arange(len(images))
    row = {name: place for place, name in enumerate(images.names)}
    rows = np.array([row.get(name, -1) for name in described.names], dtype=np.int64)
    lacking = set(images.names) - set(described.names) - skipped_images(described)
    if lacking or (rows < 0).any() or (np.diff(rows) < 0).any():
        raise InvalidInputError(
            f"The descriptors must be those of the images of scene {scene!r}, in their order; {described} are not those of {images}. "
            "Were they made from other data, or another split?"
        )
    return rows


def _named(described: Descriptors, images: Images, rows: NDArray[np.int64]) -> Descriptors:
    return replace(described, names=tuple(images.names[row] for row in rows))


def _search(queries: Sequence[Descriptors], databases: Sequence[Descriptors], making: Mapping[str, Any], *, k: int, deep: int) -> Rankings:
    made = index(list(databases), **making)
    found = [made.search(one, k=deep) for one in queries]
    history = dict(found[0].history)
    if history.setdefault("index", making["kind"]) != "exact":
        history["recall against exact"] = _recall(found, queries, index(list(databases), kind="exact"), k=k)
    rows, distances = (np.concatenate([getattr(one, name) for one in found]) for name in ("rows", "distances"))
    return Rankings(rows, distances, tuple(name for one in found for name in one.query_names), found[0].database_names, history)


def _recall(found: Sequence[Rankings], queries: Sequence[Descriptors], exact: Index, *, k: int) -> dict[str, Any]:
    """The share of the exact k nearest, and of the exact nearest, that was found, mean over up to SAMPLE queries, evenly spaced."""
    count = sum(map(len, queries))
    chosen = np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(np.int64))
    k, shared, first = min(k, len(exact)), [], 0
    for one, asked, start in zip(found, queries, np.cumsum([0, *map(len, queries)]), strict=False):
        rows = chosen[(chosen >= start) & (chosen < start + len(asked))] - start
        some = replace(asked, vectors=np.asarray(asked.vectors[rows]), names=tuple(asked.names[row] for row in rows))
        nearest = exact.search(some, k=k).rows if len(rows) else np.zeros((0, k), dtype=np.int64)
        first += int(np.count_nonzero(one.rows[rows, :1] == nearest[:, :1]))
        shared += [len(np.intersect1d(a[:k], b)) for a, b in zip(one.rows[rows], nearest, strict=True)]
    found_of = {"recall": float(np.mean(shared)) / k, "first": first / len(shared)} if shared else {}
    return {"k": k, **found_of, "queries": len(shared)}


def _whole(found: Rankings, scene: Scene, *, asked: NDArray[np.int64], there: NDArray[np.int64]) -> Rankings:
    """The ranking over all images of a scene, from one over those that have a descriptor."""
    queries, database = scene.queries.names, scene.database.names
    lacking = {"queries": len(queries) - len(asked), "database": len(database) - len(there)}
    if not any(lacking.values()):
        return found
    rows = np.full((len(queries), found.k + lacking["database"]), -1, dtype=np.int64)
    distances = np.full(rows.shape, np.inf, dtype=np.float32)
    rows[asked, : found.k] = np.append(there, -1)[found.rows]
    distances[asked, : found.k] = found.distances
    return Rankings(rows, distances, queries, database, {**found.history, "without a descriptor": lacking})
