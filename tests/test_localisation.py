"""Localisation: poses by weights, errors by hand, rates under a protocol, and the files of both."""

from __future__ import annotations

import dataclasses
import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from covis.datasets import read
from covis.descriptors import Descriptors
from covis.errors import DamagedFileError, InvalidInputError, OutputExistsError, UnknownNameError
from covis.images import Images, Scene
from covis.localisation import (
    METHODS,
    POSE_PROTOCOLS,
    PoseProtocol,
    Poses,
    PoseScores,
    localise,
    pose_differences,
    pose_errors,
    pose_protocol,
    score_poses,
)
from covis.rankings import Rankings


def pose(centre=(0.0, 0.0, 0.0), *, degrees=0.0, axis=(0, 0, 1)):
    """Camera-to-world, turned about an axis."""
    made = np.eye(4)
    made[:3, :3] = Rotation.from_rotvec(np.deg2rad(degrees) * np.array(axis, dtype=float)).as_matrix()
    made[:3, 3] = centre
    return made


def line(*, database=4, queries=2):
    """A scene of cameras 10 m apart on a line, each turned 10 degrees more about the vertical; queries at 1 m and 11 m."""
    there = np.stack([pose((10 * i, 0, 0), degrees=10 * i) for i in range(database)])
    here = np.stack([pose((10 * i + 1, 0, 0), degrees=10 * i) for i in range(queries)])
    names = [f"q{i}.jpg" for i in range(queries)]
    return Scene("line", "test", Images("r", [f"d{i}.jpg" for i in range(database)], pose=there), Images("r", names, pose=here))


def ranked(scene, rows, distances=None):
    rows = np.array(rows)
    distances = np.sort(np.linspace(0.1, 0.5, rows.size).reshape(rows.shape)) if distances is None else distances
    return Rankings(rows, distances, scene.queries.names, scene.database.names, {"index": "by hand"})


def described(queries, database, scene):
    return (
        Descriptors(np.array(queries, dtype=np.float32), scene.queries.names, "m"),
        Descriptors(np.array(database, dtype=np.float32), scene.database.names, "m"),
    )


def random_poses(random, count):
    made = np.tile(np.eye(4), (count, 1, 1))
    made[:, :3, :3] = Rotation.random(count, random_state=random).as_matrix()
    made[:, :3, 3] = random.uniform(-50, 50, size=(count, 3))
    return made


# Poses from rankings.


def test_the_nearest_is_taken_to_the_bit():
    scene = line()
    found = localise(ranked(scene, [[2, 0], [1, 3]]), scene)
    np.testing.assert_array_equal(found.pose, scene.database.pose[[2, 1]])
    assert found.rows.tolist() == [[2], [1]]
    assert found.weights.tolist() == [[1.0], [1.0]]
    assert found.history == {"method": "nearest", "k": 1, "rankings": {"index": "by hand"}}
    assert (found.names, found.missing) == (scene.queries.names, ())


@pytest.mark.parametrize("method", sorted(METHODS))
def test_k_1_is_the_nearest_whatever_the_method(method):
    scene = line()
    vectors = described(np.eye(2, 3), np.eye(4, 3) + 0.1, scene)
    found = localise(ranked(scene, [[2, 0], [1, 3]]), scene, method=method, k=1, descriptors=vectors)
    np.testing.assert_array_equal(found.pose, scene.database.pose[[2, 1]])


def test_equal_weights_by_hand():
    """Centres 0, 10 and 20 m, headings 0, 10 and 20 degrees: 10 m and 10 degrees."""
    scene = line()
    found = localise(ranked(scene, [[0, 1, 2], [3, 2, 1]]), scene, method="ewb", k=3)
    np.testing.assert_allclose(found.pose[0], pose((10, 0, 0), degrees=10), atol=1e-12)
    np.testing.assert_allclose(found.pose[1], pose((20, 0, 0), degrees=20), atol=1e-12)
    np.testing.assert_allclose(found.weights, 1 / 3)
    assert found.history["k"] == 3


def test_cosine_weights_by_hand():
    """Cosines 0.8 and 0.6 to the second power: 0.64 and 0.36, so 3.6 m; from unit descriptors and from their distances alike."""
    scene = line(queries=1)
    vectors = described([[1, 0]], [[0.8, 0.6], [0.6, 0.8], [-1, 0], [0, 1]], scene)
    distances = np.sqrt(2 - 2 * np.array([[0.8, 0.6]]))
    for given_vectors, said in ((vectors, "descriptors"), (None, "1 - distance^2 / 2, which holds of descriptors of length 1")):
        found = localise(ranked(scene, [[0, 1]], distances), scene, method="csi", k=2, alpha=2, descriptors=given_vectors)
        np.testing.assert_allclose(found.weights, [[0.64, 0.36]], atol=1e-6)
        assert found.pose[0, 0, 3] == pytest.approx(3.6, abs=1e-5)
        assert (found.history["alpha"], found.history["cosines"]) == (2, said)
    longer = described([[3, 0]], [[4, 3], [0.6, 0.8], [-1, 0], [0, 1]], scene)
    assert localise(ranked(scene, [[0, 1]]), scene, method="csi", k=2, alpha=2, descriptors=longer).weights[0, 0] == pytest.approx(0.64)
    negative = localise(ranked(scene, [[1, 2]]), scene, method="csi", k=2, alpha=3, descriptors=vectors)
    assert negative.weights.tolist() == [[1.0, 0.0]], "a cosine below 0 has no weight"
    none = localise(ranked(scene, [[2, 3]]), scene, method="csi", k=2, descriptors=vectors)
    assert none.weights.tolist() == [[1.0, 0.0]], "where none is above 0, the first image alone"
    sharp = localise(ranked(scene, [[0, 1]]), scene, method="csi", k=2, alpha=5000, descriptors=vectors)
    assert sharp.weights[0].tolist() == [1.0, 0.0], "a high power does not run out of numbers"


def test_barycentric_weights_by_hand():
    """A query a quarter of the way between two descriptors; one beyond them, whose weights are 2 and -1; one that is a descriptor."""
    scene = line(queries=3)
    vectors = described([[0.25, 1], [-1, 1], [1, 1]], [[0, 1], [1, 1], [5, 5], [9, 9]], scene)
    found = localise(ranked(scene, [[0, 1]] * 3), scene, method="bdi", k=2, descriptors=vectors)
    np.testing.assert_allclose(found.weights, [[0.75, 0.25], [2, -1], [0, 1]], atol=1e-6)
    np.testing.assert_allclose(found.pose[:, 0, 3], [2.5, -10, 10], atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(2, 8))
def test_barycentric_weights_are_the_best_there_are(seed, count, dim):
    random = np.random.default_rng(seed)
    scene = line(queries=1, database=count)
    query, database = random.normal(size=(1, dim)), random.normal(size=(count, dim))
    vectors = described(query, database, scene)
    (weights,) = localise(ranked(scene, [range(count)]), scene, method="bdi", k=count, descriptors=vectors).weights
    assert weights.sum() == pytest.approx(1)

    def away(w):
        return float(np.sum((vectors[0].vectors[0].astype(float) - w @ vectors[1].vectors.astype(float)) ** 2))

    best = minimize(away, np.full(count, 1 / count), constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, options={"maxiter": 500})
    assert away(weights) <= best.fun + 1e-6


def test_alike_descriptors_share_their_weight():
    scene = line(queries=1)
    vectors = described([[1, 0]], [[1, 0], [1, 0], [1, 0], [0, 1]], scene)
    found = localise(ranked(scene, [[0, 1, 2]]), scene, method="bdi", k=3, descriptors=vectors)
    np.testing.assert_allclose(found.weights, 1 / 3)


@given(st.integers(0, 2**32 - 1), st.integers(2, 7))
def test_the_average_is_scipys(seed, count):
    """An oracle: `Rotation.mean` is the eigenvector method too."""
    random = np.random.default_rng(seed)
    poses = random_poses(random, count)
    poses[:, :3, :3] = (Rotation.from_rotvec(0.3 * random.normal(size=(count, 3)))).as_matrix()
    scene = Scene("s", "test", Images("r", [f"{i}" for i in range(count)], pose=poses), Images("r", ["q"]))
    cosines = np.sort(random.uniform(0.2, 1, size=(1, count)))[:, ::-1]
    found = localise(ranked(scene, [range(count)], np.sqrt(2 - 2 * cosines)), scene, method="csi", k=count, alpha=2)
    weights = cosines[0] ** 2 / np.sum(cosines**2)
    expected = Rotation.from_matrix(poses[:, :3, :3]).mean(weights).as_matrix()
    np.testing.assert_allclose(found.pose[0, :3, :3], expected, atol=1e-5)
    np.testing.assert_allclose(found.pose[0, :3, 3], weights @ poses[:, :3, 3], atol=1e-4)


def test_signs_of_quaternions_do_not_matter():
    """Turned by 179 and by -179 degrees: quaternions of nearly opposite sign, whose plain mean would look the other way; it is 180."""
    poses = np.stack([pose(degrees=179), pose(degrees=-179)])
    scene = Scene("s", "test", Images("r", ["a", "b"], pose=poses), Images("r", ["q"]))
    found = localise(ranked(scene, [[0, 1]]), scene, method="ewb", k=2)
    np.testing.assert_allclose(found.pose[0], pose(degrees=180), atol=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_a_moved_world_moves_the_poses(seed):
    random = np.random.default_rng(seed)
    poses, moved = random_poses(random, 5), random_poses(random, 1)[0]
    vectors = random.normal(size=(6, 4))
    made = []
    for there in (poses, moved @ poses):
        scene = Scene("s", "test", Images("r", [f"{i}" for i in range(5)], pose=there), Images("r", ["q"]))
        pair = described(vectors[:1], vectors[1:], scene)
        made.append(localise(ranked(scene, [range(5)]), scene, method="bdi", k=3, descriptors=pair).pose[0])
    near = np.linalg.norm(made[1] - moved @ made[0], axis=None)
    assert near < 1e-6 * (1 + np.abs(made[1]).max())


def test_what_is_no_image_takes_no_part():
    scene = line(queries=3)
    rows = [[-1, 2, 1], [-1, -1, -1], [0, -1, 1]]
    distances = [[0.1, 0.2, 0.3], [np.inf] * 3, [0.1, 0.2, 0.3]]
    found = localise(ranked(scene, rows, distances), scene, method="ewb", k=2)
    assert found.rows.tolist() == [[2, 1], [-1, -1], [0, 1]]
    assert found.weights.tolist() == [[0.5, 0.5], [0, 0], [0.5, 0.5]]
    assert found.missing == ("q1.jpg",)
    assert np.isnan(found.pose[1]).all()


def test_an_image_does_not_locate_itself():
    images = line().database
    scene = Scene("s", "test", images, images)
    rows = [[i, (i + 1) % 4] for i in range(4)]
    assert localise(ranked(scene, rows), scene).rows.ravel().tolist() == [1, 2, 3, 0]
    with pytest.raises(InvalidInputError, match="must be 3 deep for k 2; they are 2"):
        localise(ranked(scene, rows), scene, method="ewb", k=2)


def test_queries_without_a_line_have_no_pose_and_keys_are_names():
    scene = line()
    found = localise(Rankings([[1]], [[0.5]], ("q1",), ("d3", "d2", "d1", "d0")), scene)
    assert found.missing == ("q0.jpg",)
    np.testing.assert_array_equal(found.pose[1], scene.database.pose[2])


@pytest.mark.parametrize(("change", "said"), [
    ({"k": 2}, "k must be .* 1 for the method nearest; got 2"),
    ({"method": "ewb", "k": 0}, "at least 1"),
    ({"method": "ewb", "k": 3}, r"must be 3 deep for k 3; they are 2\. Search for more"),
    ({"method": "ewb"}, "must be 4 deep for k 20"),
    ({"method": "csi", "k": 2, "alpha": float("nan")}, "alpha must be a finite number"),
    ({"method": "bdi", "k": 2}, "bdi must have the descriptors"),
])  # fmt: skip
def test_what_cannot_be_is_refused(change, said):
    scene = line()
    with pytest.raises(InvalidInputError, match=said):
        localise(ranked(scene, [[0, 1], [1, 2]]), scene, **change)


def test_what_does_not_belong_is_refused():
    scene = line()
    with pytest.raises(UnknownNameError, match=r"There is no method of localisation called 'evb'\. Did you mean 'ewb'"):
        localise(ranked(scene, [[0], [1]]), scene, method="evb")
    with pytest.raises(InvalidInputError, match="must have pose"):
        localise(ranked(scene, [[0], [1]]), Scene("s", "test", Images("r", scene.database.names), scene.queries))
    with pytest.raises(InvalidInputError, match="database of scene 'line'; 'x' is none"):
        localise(Rankings([[0]], [[0.1]], ("q0",), ("x", "d1", "d2", "d3")), scene)
    with pytest.raises(InvalidInputError, match="two of their names mean the same one"):
        localise(Rankings([[0]], [[0.1]], ("q0",), ("d1", "d1.jpg", "d2", "d3")), scene)
    with pytest.raises(InvalidInputError, match="unknown or larger ones"):
        localise(ranked(scene, [[0, 1], [1, 2]], [[0.1, 3], [0.1, 3]]), scene, method="csi", k=2)
    short = described(np.eye(2), np.eye(4, 2), scene)
    short = (short[0], dataclasses.replace(short[1], vectors=short[1].vectors[:3], names=short[1].names[:3]))
    with pytest.raises(InvalidInputError, match=r"must have a descriptor; 'd3\.jpg' has none"):
        localise(ranked(scene, [[0, 3], [1, 2]]), scene, method="bdi", k=2, descriptors=short)
    with pytest.raises(InvalidInputError, match="must be as wide"):
        localise(ranked(scene, [[0], [1]]), scene, descriptors=(short[0], described(np.eye(2), np.eye(4), scene)[1]))


# Errors.


def test_errors_by_hand():
    truth = np.stack([pose(), pose((1, 2, 3), degrees=30), pose(degrees=170, axis=(1, 0, 0)), pose()])
    here = np.stack(
        [pose((3, 4, 12), degrees=90, axis=(0, 1, 0)), pose((1, 2, 3), degrees=-15), pose(degrees=-170, axis=(1, 0, 0)), pose()]
    )
    here[3] = np.nan
    metres, degrees = pose_differences(here, truth)
    np.testing.assert_allclose(metres, [13, 0, 0, np.inf])
    np.testing.assert_allclose(degrees, [90, 45, 20, 180])


@given(st.integers(0, 2**32 - 1))
def test_the_angle_is_that_of_the_trace(seed):
    random = np.random.default_rng(seed)
    a, b = random_poses(random, 5), random_poses(random, 5)
    trace = np.trace(b[:, :3, :3].transpose(0, 2, 1) @ a[:, :3, :3], axis1=1, axis2=2)
    np.testing.assert_allclose(pose_differences(a, b)[1], np.rad2deg(np.arccos(np.clip((trace - 1) / 2, -1, 1))), atol=1e-5)
    np.testing.assert_allclose(pose_differences(a, b)[1], pose_differences(b, a)[1], atol=1e-9)
    assert pose_differences(a, a)[1].max() < 1e-9


def test_matrices_that_are_rotations_to_a_thousandth_make_no_angle():
    """The trace alone would say 2.6 degrees of a matrix against itself."""
    rough = pose()
    rough[:3, :3] *= 1 - 5e-4
    trace = np.trace(rough[:3, :3].T @ rough[:3, :3])
    assert np.rad2deg(np.arccos((trace - 1) / 2)) > 1
    assert pose_differences(rough[None], rough[None])[1][0] < 1e-9


def test_errors_are_by_exact_name():
    scene = line(queries=3)
    estimated = Poses(("q2.jpg", "q0.jpg"), scene.queries.pose[[2, 0]])
    metres, degrees = pose_errors(estimated, scene.queries)
    assert metres.tolist() == [0, math.inf, 0]
    assert degrees.tolist() == [0, 180, 0]
    with pytest.raises(InvalidInputError, match=r"1 are not, the first is 'q2'\. Those of r are named like 'q0\.jpg'"):
        pose_errors(Poses(("q2",), scene.queries.pose[:1]), scene.queries)
    with pytest.raises(InvalidInputError, match="must have pose"):
        pose_errors(estimated, Images("r", scene.queries.names))


# Rates.


def flagged(scene, **flags):
    queries = dataclasses.replace(scene.queries, flags={name: np.array(value) for name, value in flags.items()})
    return dataclasses.replace(scene, queries=queries)


def off(scene, errors):
    """The queries' poses, off by (metres, degrees) each; None: without one."""
    made = np.full((len(errors), 4, 4), np.nan)
    for row, error in enumerate(errors):
        if error is not None:
            made[row] = scene.queries.pose[row] @ pose((0, 0, error[0]), degrees=error[1], axis=(0, 1, 0))
    return Poses(scene.queries.names, made)


def test_rates_by_hand():
    scene = flagged(line(queries=6), night=[True, True, False, False, False, False], sun=[False] * 6)
    estimated = off(scene, [(0.1, 1), (0.2, 3), (0.4, 4), (4, 9), (0.1, 20), None])
    scores = score_poses(estimated, scene)
    whole, night = scores.groups
    assert [rate.value for rate in whole.rates] == pytest.approx([1 / 6, 3 / 6, 4 / 6])
    assert (whole.label, whole.n, whole.without_pose) == ("all queries", 6, 1)
    assert (whole.metres, whole.degrees) == (pytest.approx(0.3), pytest.approx(6.5))
    assert (night.label, night.n, night.without_pose) == ("night", 2, 0)
    assert [rate.value for rate in night.rates] == [0.5, 1, 1]
    assert (night.metres, night.degrees) == (pytest.approx(0.15), pytest.approx(2))
    assert scores.metres[-1] == math.inf
    assert scores.interval["unit"] == "queries"
    assert all(rate.low <= rate.value <= rate.high for rate in whole.rates)
    assert "0.500 [" in str(scores)


def test_half_without_a_pose_has_no_median():
    scene = line(queries=2)
    scores = score_poses(off(scene, [(1, 1), None]), scene)
    assert scores.groups[0].metres == math.inf
    assert scores.as_dict()["groups"][0]["median_metres"] is None
    assert "inf" in str(scores)


@pytest.mark.parametrize(("name", "value"), [("poses/0.5/2", 1.0), ("poses/0.5/2/strict", 0.0), ("poses/0.5001/2.01/strict", 1.0)])
def test_the_threshold_itself(name, value):
    """Half a metre and two degrees off, which float64 holds to 1e-14."""
    scene = line(queries=1)
    estimated = Poses(scene.queries.names, np.stack([pose((1.5, 0, 0), degrees=2)]))
    assert score_poses(estimated, scene, protocol=name).groups[0].rates[0].value == value


@pytest.mark.parametrize("metres", [0.25, 0.1 + 0.2 - 0.05])
def test_metres_at_the_threshold_are_as_degrees(metres):
    """Steps of 0.25 m in any direction, which float64 makes 0.25000000000000006 as often as 0.24999999999999994."""
    scene = line(queries=200)
    steps = np.random.default_rng(0).normal(size=(200, 3))
    moved = scene.queries.pose.copy()
    moved[:, :3, 3] += metres * steps / np.linalg.norm(steps, axis=1, keepdims=True)
    found = Poses(scene.queries.names, moved)
    assert len(set(pose_errors(found, scene.queries)[0].tolist())) > 1
    assert score_poses(found, scene, protocol="poses/0.25/2", samples=2).groups[0].rates[0].value == 1
    assert score_poses(found, scene, protocol="poses/0.25/2/strict", samples=2).groups[0].rates[0].value == 0
    assert "an error within 1e-09 of its limit counts as equal to it" in pose_protocol("ecmu").card()
    assert score_poses(found, scene, protocol="poses/0.249999/2", samples=2).groups[0].rates[0].value == 0


def test_a_flag_called_like_a_group_does_not_replace_it():
    scene = flagged(
        line(queries=4), **{"all queries": [True, False, False, False], "day all": [True] * 4, "sun": [True, True, False, False]}
    )
    scores = score_poses(off(scene, [(0, 0), None, None, None]), scene, protocol="robotcar-v2")
    rates = [(group.label, group.n, group.rates[0].value) for group in scores.groups]
    assert rates == [
        *(("all queries", 4, 0.25), ("day all", 2, 0.5), ("flag all queries", 1, 1.0), ("flag day all", 4, 0.25), ("sun", 2, 0.5)),
    ]
    scenes = [dataclasses.replace(flagged(line(queries=1), **{"scene a": [True]}), name=name) for name in "ab"]
    labels = [group.label for group in score_poses([off(one, [(0, 0)]) for one in scenes], scenes).groups]
    assert labels == ["all queries", "flag scene a", "scene a", "scene b"]
    with pytest.raises(InvalidInputError, match="must have labels of their own; got all queries, all queries"):
        PoseProtocol("mine", groups=(("all queries", ("night",)),))


def test_both_errors_must_be_within():
    scene = line(queries=2)
    assert score_poses(off(scene, [(0.1, 30), (30, 0.1)]), scene).groups[0].rates[2].value == 0


def test_days_and_nights_of_robotcar():
    scene = flagged(line(queries=4), **{"night": [True, False, False, False], "night-rain": [False, True, False, False],
                                        "sun": [False, False, True, False], "dawn": [False, False, False, True]})  # fmt: skip
    scores = score_poses(off(scene, [(0, 0), None, (0, 0), (9, 0)]), scene, protocol="robotcar-v2")
    rates = {group.label: (group.n, group.rates[0].value) for group in scores.groups}
    expected = {"all queries": (4, 0.5), "day all": (2, 0.5), "night all": (2, 0.5), "night": (1, 1.0), "night-rain": (1, 0.0)}
    assert rates == {**expected, "sun": (1, 1.0), "dawn": (1, 0.0)}


def test_several_scenes_are_pooled_and_apart(town):
    estimated = [Poses(scene.queries.names, scene.queries.pose) for scene in town]
    estimated[1] = Poses(town[1].queries.names[:4], town[1].queries.pose[:4])
    scores = score_poses(estimated, town, protocol="ecmu")
    rates = {group.label: (group.n, group.rates[0].value) for group in scores.groups}
    assert rates["all queries"] == (32, 20 / 32)
    assert (rates["scene miami"], rates["scene athens"]) == ((16, 1.0), (16, 0.25))
    assert rates["dusk"] == (32, 20 / 32)
    assert "night" not in rates
    assert scores.interval["unit"] == "blocks of 10 consecutive frames"
    with pytest.raises(InvalidInputError, match=r"One set of poses a scene.*got 1 for 2"):
        score_poses(estimated[0], town)


@pytest.mark.parametrize("method", ["nearest", "ewb", "csi"])
def test_the_town_is_localised_from_where_it_was_seen(town, method):
    """Found by true distance: the nearest camera is a metre or two away, and looks the same way."""
    for scene in town:
        away = np.linalg.norm(scene.queries.pose[:, None, :3, 3] - scene.database.pose[None, :, :3, 3], axis=2)
        rows = np.argsort(away, axis=1, kind="stable")
        distances = np.take_along_axis(away, rows, axis=1) / away.max()
        found = localise(
            Rankings(rows, distances, scene.queries.names, scene.database.names), scene, method=method, k=1 if method == "nearest" else 2
        )
        metres, degrees = pose_errors(found, scene.queries)
        if method == "nearest":
            np.testing.assert_allclose(metres, away.min(axis=1))
        assert np.median(metres) < 3
        assert np.median(degrees) < 8
        assert score_poses(found, scene).groups[0].rates[2].value > 0.8


def test_the_red_kitchen_by_the_true_nearest(covis_data):
    (scene,) = read("7scenes", covis_data / "7scenes" / "redkitchen")
    away = np.linalg.norm(scene.queries.pose[:, None, :3, 3] - scene.database.pose[None, :, :3, 3], axis=2)
    rows = np.argsort(away, axis=1, kind="stable")[:, :5]
    ranking = Rankings(rows, np.take_along_axis(away, rows, axis=1), scene.queries.names, scene.database.names)
    metres, degrees = pose_errors(localise(ranking, scene), scene.queries)
    np.testing.assert_allclose(metres, away.min(axis=1))
    assert 0.02 < np.median(metres) < 0.5
    assert degrees.min() > 0.1
    truth = Poses(scene.queries.names, scene.queries.pose)
    assert pose_errors(truth, scene.queries)[1].max() < 1e-6
    scores = score_poses(truth, scene, protocol="poses/0.05/5")
    assert scores.groups[0].rates[0].value == 1


# Protocols.


def test_protocols_by_name():
    cards = {name: pose_protocol(name.replace("M/D", "0.05/5")).card() for name in POSE_PROTOCOLS}
    assert len(set(cards.values())) == len(cards)
    assert cards["robotcar-v2"].startswith("robotcar-v2\n")
    assert "<= 0.25 m and <= 2 degrees; <= 0.5 m and <= 5 degrees; <= 5 m and <= 10 degrees, both at once" in cards["poses"]
    assert "'night all' (night, night-rain)" in cards["robotcar-v2"]
    strict = pose_protocol("ecmu/strict")
    assert (strict.name, strict.comparison) == ("ecmu/strict", "<")
    assert "< 0.25 m and < 2 degrees" in strict.card()
    two = pose_protocol("poses/0.05/5/0.1/10")
    assert (two.name, two.bins) == ("poses/0.05/5/0.1/10", ((0.05, 5), (0.1, 10)))
    for made in (*map(pose_protocol, ("poses", "ecmu", "robotcar-v2/strict")), two):
        assert PoseProtocol.from_dict(json.loads(json.dumps(made.as_dict()))) == made


@pytest.mark.parametrize(("name", "said"), [
    ("robotcar", "no pose protocol called 'robotcar'. Did you mean 'robotcar-v2'"), ("radius/25", "Known: ecmu"),
    ("poses/1", "takes metres above 0"), ("poses/0/5", "takes metres above 0"), ("poses/M/D", "takes metres above 0"),
    ("poses/1/nan", "takes metres above 0"), ("poses/1/181", "takes metres above 0"), ("poses/", "takes metres"), ("strict", "Known"),
])  # fmt: skip
def test_unknown_protocols_are_refused(name, said):
    with pytest.raises(UnknownNameError, match=said):
        pose_protocol(name)


def test_a_protocol_by_hand_must_fit():
    with pytest.raises(InvalidInputError, match="must be '<=' or '<'; got '=<'"):
        PoseProtocol("mine", comparison="=<")
    with pytest.raises(InvalidInputError, match="different pairs"):
        PoseProtocol("mine", ((1, 2), (1, 2)))


# Files.


def test_poses_come_back(tmp_path, never_wrong, refuses_every_cut):
    scene = line(queries=3)
    found = localise(ranked(scene, [[0, 1], [-1, -1], [2, 3]]), scene, method="ewb", k=2)
    path = found.save(tmp_path / "poses.npz")
    again = Poses.load(path)
    for name in ("pose", "rows", "weights"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    assert (again.names, again.database_names, again.history) == (found.names, found.database_names, found.history)
    assert repr(again) == "Poses(3 queries, 1 without a pose)"
    with pytest.raises(OutputExistsError):
        found.save(path)
    found.save(path, overwrite=True)
    refuses_every_cut(path, lambda: Poses.load(path))
    Poses((), np.zeros((0, 4, 4))).save(tmp_path / "none.npz")
    assert len(Poses.load(tmp_path / "none.npz")) == 0

    def same(other):
        return other.names == again.names and np.array_equal(other.pose, again.pose, equal_nan=True)

    never_wrong(path, lambda: Poses.load(path), same)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_poses_that_another_program_compressed_are_refused_where_damaged(method, tmp_path):
    scene = line(queries=2)
    path = localise(ranked(scene, [[0], [1]]), scene).save(tmp_path / "poses.npz")
    with zipfile.ZipFile(path) as plain:
        entries = {name: plain.read(name) for name in plain.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
        inside = archive.getinfo("pose.npy")
    np.testing.assert_array_equal(Poses.load(path).pose, scene.database.pose[:2])
    whole, start, refused = path.read_bytes(), inside.header_offset + 30 + len("pose.npy"), 0
    for place in range(start, start + inside.compress_size):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            np.testing.assert_array_equal(Poses.load(path).pose, scene.database.pose[:2])  # a byte of LZMA's version does not matter
        except DamagedFileError as error:
            refused += "truncated or foreign" in str(error)
    assert refused > inside.compress_size / 2


@pytest.mark.parametrize(("change", "said"), [
    ({"names": ("a", "a")}, "'a' stands twice"), ({"pose": np.eye(4)[None]}, r"must be \(2, 4, 4\)"),
    ({"pose": np.tile(np.diag([1.0, 1, -1, 1]), (2, 1, 1))}, "no reflection.*that of a"), ({"rows": [[2], [0]]}, r"must be in \[0, 2\)"),
    ({"rows": [[0], [-1]], "weights": [[1], [1]]}, "0 where no image"), ({"rows": [[0], [1]], "weights": [[np.nan], [1]]}, "finite"),
    ({"pose": np.where(np.eye(4) > 0, np.nan, 0)[None].repeat(2, axis=0)}, "must be finite"), ({"rows": [[0]]}, "with rows and weights"),
])  # fmt: skip
def test_poses_by_hand_must_fit(change, said):
    usual = {"names": ("a", "b"), "pose": np.tile(np.eye(4), (2, 1, 1)), "database_names": ("x", "y")}
    with pytest.raises(InvalidInputError, match=said):
        Poses(**usual | change)


def test_scores_come_back(tmp_path):
    scene = flagged(line(queries=4), night=[True, True, False, False])
    scores = score_poses(off(scene, [(0.1, 1), (3, 3), None, None]), scene, protocol="robotcar-v2/strict", samples=50)
    path = scores.save(tmp_path / "scores.json")
    again = PoseScores.load(path)
    assert again.protocol == scores.protocol
    assert again.groups == scores.groups
    assert str(again) == str(scores)
    np.testing.assert_array_equal(again.metres, scores.metres)
    assert (again.queries, again.scenes, again.degrees.tolist()) == (scores.queries, scores.scenes, scores.degrees.tolist())
    with pytest.raises(OutputExistsError):
        scores.save(path)
    whole = json.loads(path.read_text())
    for change in ({"metres": [1.0]}, {"degrees": ["x"] * 4}, {"groups": [{}]}, {"protocol": {"name": "x", "bins": []}}, {"queries": 7}):
        path.write_text(json.dumps(whole | change))
        with pytest.raises(DamagedFileError, match="must hold scores of poses"):
            PoseScores.load(path)


def test_a_single_query_has_no_interval(tmp_path):
    scene = line(queries=1)
    scores = score_poses(off(scene, [(0, 0)]), scene)
    assert math.isnan(scores.groups[0].rates[0].low)
    assert math.isnan(PoseScores.load(scores.save(Path(tmp_path, "s.json"))).groups[0].rates[0].low)
    with pytest.raises(InvalidInputError, match="the scenes have none"):
        score_poses(Poses((), np.zeros((0, 4, 4))), dataclasses.replace(scene, queries=Images("r", [], pose=np.zeros((0, 4, 4)))))
