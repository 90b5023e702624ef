"""How far off poses are, in metres and degrees, and how many are right: of all queries, and by condition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.images import Images, Scene
from covis.intervals import Units, bootstrap_means, resampling_units
from covis.localisation.poses import Poses
from covis.localisation.protocols import ALL_QUERIES, TIE, PoseProtocol, pose_protocol
from covis.localisation.scores import GroupRates, PoseScores
from covis.scores import Metric

LEVEL = 0.95

Values: TypeAlias = NDArray[np.float64]


def pose_differences(estimated: Values, truth: Values) -> tuple[Values, Values]:
    """How far apart poses are: metres between the centres, and the angle of the rotation between them.

    |C_est - C_gt|, and arccos((trace(R_gt^T R_est) - 1) / 2) in degrees. The angle is computed as 2 atan2(|v|, |w|) of the
    rotation's quaternion (w, v), which is the same angle without the loss of digits near 0 and 180 degrees; and of the nearest exact
    rotations, since of matrices that are rotations to 1e-3 (those of 7-Scenes, say) the trace alone makes a degree out of nothing.

    Args:
        estimated: (n, 4, 4) camera-to-world; NaN where there is none.
        truth: (n, 4, 4) camera-to-world.

    Returns:
        (n,) metres and (n,) degrees in [0, 180]; infinity and 180 where there is no estimate.

    >>> there, here = np.eye(4)[None], np.eye(4)[None].copy()
    >>> here[0, :3, 3] = 3, 4, 0
    >>> here[0, :3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    >>> [float(one[0].round(9)) for one in pose_differences(here, there)]
    [5.0, 90.0]
    """
    from scipy.spatial.transform import Rotation  # here, because it takes longer to import than most poses to read

    metres, degrees = np.full(len(truth), np.inf), np.full(len(truth), 180.0)
    known = ~np.isnan(estimated).any(axis=(1, 2))
    if known.any():
        metres[known] = np.linalg.norm(estimated[known, :3, 3] - truth[known, :3, 3], axis=1)
        between = Rotation.from_matrix(truth[known, :3, :3]).inv() * Rotation.from_matrix(estimated[known, :3, :3])
        quaternion = between.as_quat()
        degrees[known] = np.rad2deg(2 * np.arctan2(np.linalg.norm(quaternion[:, :3], axis=1), np.abs(quaternion[:, 3])))
    return metres, degrees


def pose_errors(estimated: Poses, truth: Images) -> tuple[Values, Values]:
    """The errors of estimated poses, one a query of the truth; pairs are by exact name.

    Args:
        estimated: in any order; a query that is not among them counts as one without a pose.
        truth: queries with poses.

    Returns:
        (q,) metres and (q,) degrees, in the truth's order; infinity and 180 for a query without a pose.

    Raises:
        InvalidInputError: the truth has no poses, or an estimated name is none of its queries.

    >>> truth = Images("r", ["a.jpg", "b.jpg"], pose=np.tile(np.eye(4), (2, 1, 1)))
    >>> metres, degrees = pose_errors(Poses(("b.jpg",), np.eye(4)[None]), truth)
    >>> metres.tolist(), degrees.tolist()
    ([inf, 0.0], [180.0, 0.0])
    """
    (pose,) = truth.need("pose")
    row = {name: place for place, name in enumerate(truth.names)}
    unknown = [name for name in estimated.names if name not in row]
    if unknown:
        raise InvalidInputError(
            f"Poses must be of queries of the truth, by exact name; {len(unknown)} are not, the first is {unknown[0]!r}. Those of "
            f"{truth.root} are named like {truth.names[0] if truth.names else 'nothing'!r}."
        )
    placed = np.full(pose.shape, np.nan)
    placed[[row[name] for name in estimated.names]] = estimated.pose
    return pose_differences(placed, pose)


def score_poses(
    estimated: Poses | Sequence[Poses],
    scenes: Scene | Sequence[Scene],
    *,
    protocol: str | PoseProtocol = "poses",
    samples: int = 1000,
    seed: int = 0,
) -> PoseScores:
    """Judge poses under a protocol: rates within its bins, with bootstrap intervals, and median errors.

    Args:
        estimated: one a scene, in their order.
        scenes: whose queries have poses.
        protocol: a name of `POSE_PROTOCOLS`, or a `PoseProtocol`.
        samples: of the bootstrap, which draws what `covis.intervals.resampling_units` says.
        seed: of the bootstrap.

    Raises:
        InvalidInputError: there is not one set of poses a scene, a scene's queries have no poses, or a name is none of its queries.

    >>> truth = Images("r", ["a.jpg", "b.jpg"], pose=np.tile(np.eye(4), (2, 1, 1)))
    >>> scores = score_poses(Poses(("b.jpg",), np.eye(4)[None]), Scene("s", "test", truth, truth), protocol="poses/0.25/2")
    >>> scores.groups[0].rates[0].value, scores.groups[0].without_pose
    (0.5, 1)
    """
    rule = protocol if isinstance(protocol, PoseProtocol) else pose_protocol(protocol)
    given = [estimated] if isinstance(estimated, Poses) else list(estimated)
    places = [scenes] if isinstance(scenes, Scene) else list(scenes)
    if len(given) != len(places) or not places:
        raise InvalidInputError(f"One set of poses a scene must be given, and at least one; got {len(given)} for {len(places)} scenes.")
    errors = [pose_errors(one, scene.queries) for one, scene in zip(given, places, strict=True)]
    metres, degrees = (np.concatenate(column) for column in zip(*errors, strict=True))
    if not len(metres):
        raise InvalidInputError("Poses are scored by query; the scenes have none.")
    units = resampling_units([scene.queries for scene in places])
    groups = _measured(rule, dict(_groups(places, rule)), metres, degrees, (units, samples, seed))
    unit = {"unit": units.what, "count": units.count, "samples": samples, "seed": seed, "level": LEVEL}
    history = {"scenes": [{"name": scene.name, "poses": dict(one.history)} for one, scene in zip(given, places, strict=True)]}
    names = tuple(name for scene in places for name in scene.queries.names)
    return PoseScores(
        rule,
        groups,
        tuple(scene.name for scene in places for _ in scene.queries.names),
        names,
        metres,
        degrees,
        {"method": "percentile bootstrap", **unit},
        history,
    )


def _groups(scenes: Sequence[Scene], rule: PoseProtocol) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each group that has a query: its label, and (q,) who is in it; a flag that is called like another group is "flag" and its name."""
    sizes = [len(scene.queries) for scene in scenes]
    flags = dict.fromkeys(name for scene in scenes for name in scene.queries.flags)
    without = [np.zeros(size, dtype=bool) for size in sizes]
    flagged = {
        name: np.concatenate([scene.queries.flags.get(name, no) for scene, no in zip(scenes, without, strict=True)]) for name in flags
    }
    yield ALL_QUERIES, np.ones(sum(sizes), dtype=bool)
    for label, names in rule.groups:
        there = np.any([flagged[name] for name in names if name in flagged] or [np.zeros(sum(sizes), dtype=bool)], axis=0)
        if there.any():
            yield label, there
    places = [f"scene {scene.name}" for scene in scenes] if len(scenes) > 1 else []
    taken = {ALL_QUERIES, *(label for label, _ in rule.groups), *places}
    for name, there in flagged.items():
        label = name
        while label in taken:
            label = f"flag {label}"
        taken.add(label)
        if there.any():
            yield label, there
    place = np.repeat(np.arange(len(scenes)), sizes)
    yield from ((label, place == number) for number, label in enumerate(places) if sizes[number])


def _measured(
    rule: PoseProtocol,
    members: Mapping[str, NDArray[np.bool_]],
    metres: Values,
    degrees: Values,
    drawn: tuple[Units, int, int],
) -> tuple[GroupRates, ...]:
    units, samples, seed = drawn
    inside = [_within(rule, metres, degrees, pair) for pair in rule.bins]
    columns = {
        f"{group}/{place}": np.where(there, right, np.nan)
        for group, there in enumerate(members.values())
        for place, right in enumerate(inside)
    }
    intervals = bootstrap_means(columns, units, samples=samples, seed=seed, level=LEVEL)
    groups = []
    for group, (label, there) in enumerate(members.items()):
        n = int(np.count_nonzero(there))
        rates = tuple(Metric(float(right[there].mean()), *intervals[f"{group}/{place}"], n) for place, right in enumerate(inside))
        without = int(np.count_nonzero(np.isinf(metres[there])))
        groups.append(GroupRates(label, n, without, float(np.median(metres[there])), float(np.median(degrees[there])), rates))
    return tuple(groups)


def _within(rule: PoseProtocol, metres: Values, degrees: Values, pair: tuple[float, float]) -> Values:
    """(q,) 1 where both errors are within; errors are of rounded poses, so within TIE of the limit they are just it."""
    tie = -TIE if rule.comparison == "<" else TIE
    compare = np.less if rule.comparison == "<" else np.less_equal
    return np.asarray(compare(metres, pair[0] + tie) & compare(degrees, pair[1] + tie), dtype=np.float64)
