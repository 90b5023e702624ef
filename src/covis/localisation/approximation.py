"""The pose of a query from those of the images found for it: the nearest one's, or an average of the first k by weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.descriptors import Descriptors
from covis.errors import InvalidInputError
from covis.images import Scene
from covis.localisation.poses import Poses
from covis.lookup import resolve
from covis.predictions import Lookup
from covis.rankings import Rankings

Pair: TypeAlias = tuple[Descriptors, Descriptors]
Rows: TypeAlias = NDArray[np.int64]
Values: TypeAlias = NDArray[np.float64]

K = 20
"""How many images are averaged where nothing is said: the default of kapture-localization."""
ALPHA = 8.0
"""The exponent of cosine similarities (`csi`) where nothing is said: the default of kapture-localization."""
RANK = 1e-6
"""Directions of the descriptors' differences below this part of the largest do not move the weights of `bdi`: descriptors are float32."""


def localise(
    rankings: Rankings,
    scene: Scene,
    *,
    method: str = "nearest",
    k: int | None = None,
    alpha: float = ALPHA,
    descriptors: Pair | None = None,
) -> Poses:
    """Give each query the pose of the first image found, or the weighted average of the poses of the first k.

    Centres are averaged linearly. Rotations are averaged as quaternions by the eigenvector method: the unit q that makes
    sum_i w_i (q . q_i)^2 greatest, so that q_i and -q_i are the same (Markley et al., Averaging quaternions, 2007). The weights,
    1 together, are those of kapture-localization (Pion et al., Benchmarking image retrieval for visual localization, 3DV 2020;
    Humenberger et al., IJCV 2022):

    * "nearest": k = 1; the pose itself, to the bit.
    * "ewb", equal weighted barycentre: w_i = 1 / k.
    * "bdi", barycentric descriptor interpolation: the w that make |d_q - sum_i w_i d_i| least (Torii et al., Visual
      localization by linear combination of image descriptors, 2011). A weight may be negative; where several w are as
      good, the one nearest to equal weights.
    * "csi", cosine similarity interpolation: w_i proportional to max(cos(d_q, d_i), 0)^alpha; the first image alone where no
      cosine is above 0.

    What is found and is no image of the database takes no part, nor does an image with itself. A query for which nothing is
    left, or that the rankings do not hold, has no pose.

    Args:
        rankings: of the scene's database; names as `covis.evaluate` takes them.
        scene: its database must have poses.
        method: a name of `METHODS`.
        k: how many images are averaged; default 20, and 1 for "nearest". Fewer where fewer were found.
        alpha: of "csi", >= 0.
        descriptors: (queries, database); needed for "bdi". Without them "csi" takes cos = 1 - distance^2 / 2 from the rankings,
            which holds of descriptors of length 1.

    Returns:
        The poses of the scene's queries, in their order; the history says method, k and where cosines are from.

    Raises:
        InvalidInputError: the database has no poses, the rankings are of other images or too short for k, or descriptors are
            needed and absent.
        UnknownNameError: there is no such method.

    >>> from covis.images import Images
    >>> pose = np.tile(np.eye(4), (2, 1, 1))
    >>> pose[1, 0, 3] = 10.0
    >>> scene = Scene("s", "test", Images("r", ["a.jpg", "b.jpg"], pose=pose), Images("r", ["q.jpg"]))
    >>> found = Rankings([[1, 0]], [[0.1, 0.3]], ("q.jpg",), ("a.jpg", "b.jpg"))
    >>> [float(localise(found, scene, method=name, k=k).pose[0, 0, 3]) for name, k in (("nearest", 1), ("ewb", 2))]
    [10.0, 5.0]
    """
    weigh = resolve(method, METHODS, what="method of localisation")
    (pose,) = scene.database.need("pose")
    depth = _depth(method, k, alpha)
    rows, distances = _found(rankings, scene, depth)
    given = None if descriptors is None else _Vectors(descriptors, scene)
    if method == "bdi" and given is None:
        raise InvalidInputError("The method bdi must have the descriptors of queries and database; got none. Give them, or choose csi.")
    weights = weigh(rows, distances, given, alpha)
    history: dict[str, Any] = {"method": method, "k": depth, "rankings": dict(rankings.history)}
    if method == "csi":
        cosines = "descriptors" if given else "1 - distance^2 / 2, which holds of descriptors of length 1"
        history |= {"alpha": alpha, "cosines": cosines}
    return Poses(scene.queries.names, _averages(pose, rows, weights), rows, weights, scene.database.names, history)


def _depth(method: str, k: int | None, alpha: float) -> int:
    depth = (1 if method == "nearest" else K) if k is None else k
    if depth < 1 or depth != int(depth) or (method == "nearest" and depth != 1):
        raise InvalidInputError(f"k must be a whole number of images, at least 1, and 1 for the method nearest; got {k} for {method}.")
    if not (np.isfinite(alpha) and alpha >= 0):
        raise InvalidInputError(f"alpha must be a finite number, at least 0; got {alpha}.")
    return int(depth)


def _found(rankings: Rankings, scene: Scene, depth: int) -> tuple[Rows, Values]:
    """(q, k) database rows of the scene's queries, best first, -1 behind the last; and their distances."""
    database = _rows_of(rankings.database_names, scene.database.names, f"database of scene {scene.name!r}")
    queries = _rows_of(rankings.query_names, scene.queries.names, f"queries of scene {scene.name!r}")
    own = scene.queries.same_files(scene.database)
    needed = min(depth + bool((own >= 0).any()), len(scene.database))
    if rankings.k < needed:
        raise InvalidInputError(
            f"The rankings of scene {scene.name!r} must be {needed} deep for k {depth}; they are {rankings.k}. Search for more, or lower k."
        )
    rows = np.append(database, -1)[rankings.rows]
    rows[rows == own[queries][:, None]] = -1
    order = np.argsort(rows < 0, axis=1, kind="stable")[:, :depth]
    here = (np.full((len(scene.queries), order.shape[1]), -1, dtype=np.int64), np.full((len(scene.queries), order.shape[1]), np.nan))
    here[0][queries] = np.take_along_axis(rows, order, axis=1)
    here[1][queries] = np.take_along_axis(rankings.distances, order, axis=1)
    return here


def _rows_of(names: tuple[str, ...], known: tuple[str, ...], what: str) -> Rows:
    if names == known:
        return np.arange(len(known))
    rows = Lookup(known).rows(names)
    unknown = np.flatnonzero(rows < 0)
    if unknown.size:
        raise InvalidInputError(
            f"The rankings must name images of the {what}; {names[unknown[0]]!r} is none, by name or by key. Were they made from "
            "other data?"
        )
    if len(np.unique(rows)) < len(rows):
        raise InvalidInputError(f"The rankings must name each image of the {what} once; two of their names mean the same one.")
    return rows


class _Vectors:
    """Descriptors by the rows of a scene's images."""

    def __init__(self, descriptors: Pair, scene: Scene) -> None:
        sides = (scene.queries.names, scene.database.names)
        self.vectors = [one.vectors for one in descriptors]
        self.names = sides
        self.places = [_places(one.names, names) for one, names in zip(descriptors, sides, strict=True)]
        if descriptors[0].dim != descriptors[1].dim:
            raise InvalidInputError(
                f"The descriptors of queries and database must be as wide; got {descriptors[0].dim} and {descriptors[1].dim}."
            )

    def take(self, side: int, rows: Rows) -> Values:
        """(n, d) float64."""
        places = self.places[side][rows]
        lacking = rows[places < 0]
        if lacking.size:
            raise InvalidInputError(f"Every image that is ranked must have a descriptor; {self.names[side][lacking[0]]!r} has none.")
        return np.asarray(self.vectors[side][places], dtype=np.float64)


def _places(names: tuple[str, ...], images: tuple[str, ...]) -> Rows:
    row = {name: place for place, name in enumerate(names)}
    return np.array([row.get(name, -1) for name in images], dtype=np.int64)


def _equal(rows: Rows, distances: Values, vectors: _Vectors | None, alpha: float) -> Values:
    """The first image's pose (nearest), or equal weights of the first k (ewb)."""
    there = rows >= 0
    return np.where(there, 1.0 / np.maximum(there.sum(axis=1, keepdims=True), 1), 0.0)


def _barycentric(rows: Rows, distances: Values, vectors: _Vectors | None, alpha: float) -> Values:
    """The weights whose sum of database descriptors is nearest to the query's (bdi); they may be negative."""
    weights = np.zeros(rows.shape)
    assert vectors is not None  # localise has looked
    for query, found in enumerate(rows):
        chosen = found[found >= 0]
        if len(chosen):
            away = vectors.take(1, chosen) - vectors.take(0, np.array([query]))
            weights[query, : len(chosen)] = _least(away)
    return weights


def _least(away: Values) -> Values:
    """(n,) the w of sum 1 that make |sum_i w_i a_i| least, and of those the nearest to equal weights."""
    count = len(away)
    equal = np.full(count, 1.0 / count)
    free = np.eye(count) - 1.0 / count  # moves within the weights of sum 1
    moved = np.linalg.lstsq(away.T @ free, -away.T @ equal, rcond=RANK)[0]
    weights: Values = equal + free @ moved
    return weights


def _by_cosine(rows: Rows, distances: Values, vectors: _Vectors | None, alpha: float) -> Values:
    """Weights by the power alpha of the cosine similarity of descriptors (csi)."""
    there = rows >= 0
    cosines = np.zeros(rows.shape)
    if vectors is None:
        if np.isnan(distances[there]).any() or (distances[there] > 2 + 1e-3).any():
            raise InvalidInputError(
                "The method csi must have descriptors, or rankings with the distances of descriptors of length 1 (at most 2); these have "
                "unknown or larger ones. Give the descriptors."
            )
        cosines[there] = 1 - distances[there] ** 2 / 2
    else:
        for query in np.flatnonzero(there.any(axis=1)):
            asked, found = vectors.take(0, np.array([query]))[0], vectors.take(1, rows[query, there[query]])
            norms = np.linalg.norm(found, axis=1) * np.linalg.norm(asked)
            cosines[query, there[query]] = np.divide(found @ asked, norms, out=np.zeros(len(norms)), where=norms > 0)
    cosines = np.where(there, np.maximum(cosines, 0), 0)
    largest = cosines.max(axis=1, initial=0)[:, None]
    powers = np.where(there, np.divide(cosines, largest, out=np.zeros(rows.shape), where=largest > 0) ** alpha, 0)
    none = there[:, :1] & (largest <= 0)
    powers = np.where(none, np.arange(rows.shape[1]) == 0, powers)
    total = powers.sum(axis=1, keepdims=True)
    weights: Values = np.divide(powers, total, out=np.zeros(rows.shape), where=total > 0)
    return weights


Weigher: TypeAlias = Callable[[Rows, Values, "_Vectors | None", float], Values]
METHODS: dict[str, Weigher] = {"bdi": _barycentric, "csi": _by_cosine, "ewb": _equal, "nearest": _equal}
"""Name -> the weights of the images found: `(rows (q, k), distances (q, k), descriptors, alpha) -> (q, k)`, 1 together."""


def _averages(poses: Values, rows: Rows, weights: Values) -> Values:
    """(q, 4, 4) the weighted average of the poses in each row; NaN where there is none."""
    from scipy.spatial.transform import Rotation  # here, because it takes longer to import than most rankings to read

    averaged = np.full((len(rows), 4, 4), np.nan)
    alone = (weights == 1) & (rows >= 0)
    single = alone.any(axis=1) & (np.count_nonzero(weights, axis=1) == 1)
    averaged[single] = poses[rows[single][alone[single]]]  # to the bit: quaternions would round it
    several = np.flatnonzero((rows >= 0).any(axis=1) & ~single)
    if len(several):
        quaternions, centres = Rotation.from_matrix(poses[:, :3, :3]).as_quat(), poses[:, :3, 3]
        shares, found = weights[several], rows[several]
        here = quaternions[found]
        moments = np.einsum("qk,qki,qkj->qij", shares, here, here)
        averaged[several] = np.eye(4)
        averaged[several, :3, :3] = Rotation.from_quat(np.linalg.eigh(moments)[1][:, :, -1]).as_matrix()
        averaged[several, :3, 3] = np.einsum("qk,qki->qi", shares, centres[found])
    return averaged
