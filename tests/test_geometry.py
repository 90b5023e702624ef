"""Poses and the pinhole camera: what must be refused, and the laws that tie the functions together."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from covis.errors import InvalidInputError
from covis.geometry import RIGID_TOLERANCE, check_intrinsics, check_rigid, invert, project, transform, unproject

CAMERA = np.array([80.0, 90.0, 31.0, 22.0])


def random_pose(seed):
    rng = np.random.default_rng(seed)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.random(random_state=rng).as_matrix()
    pose[:3, 3] = rng.normal(0, 5, 3)
    return pose


def spoilt(row, column, value):
    pose = np.eye(4)
    pose[row, column] = value
    return pose


@pytest.mark.parametrize(
    ("pose", "rule"),
    [
        (spoilt(0, 3, np.nan), "finite"),
        (spoilt(1, 1, np.inf), "finite"),
        (spoilt(3, 0, 1.0), "last row"),
        (spoilt(0, 0, 1.1), "R\\^T R = I"),
        (np.diag([2.0, 2.0, 2.0, 1.0]), "scale"),
        (np.diag([1.0, 1.0, -1.0, 1.0]), "reflection"),
        (np.zeros((4, 4)), "last row"),
    ],
)
def test_what_is_no_rigid_motion_is_refused_and_named(pose, rule):
    poses = np.stack([np.eye(4), pose, pose])
    with pytest.raises(InvalidInputError, match=f"{rule}.*that of row 1 "):
        check_rigid(poses)
    with pytest.raises(InvalidInputError, match=r"that of b\.jpg is"):
        check_rigid(poses, names=["a.jpg", "b.jpg", "c.jpg"])


def test_a_pose_within_the_tolerance_passes_and_one_beyond_does_not():
    check_rigid(spoilt(0, 0, 1 + 0.4 * RIGID_TOLERANCE)[None])
    with pytest.raises(InvalidInputError):
        check_rigid(spoilt(0, 0, 1 + 0.6 * RIGID_TOLERANCE)[None])
    check_rigid(spoilt(0, 0, 1.1)[None], tolerance=0.5)


@pytest.mark.parametrize("poses", [np.eye(4), np.zeros((2, 3, 4)), "poses", [[1.0], [1.0, 2.0]], 3.0])
def test_poses_of_another_shape_are_refused(poses):
    with pytest.raises(InvalidInputError, match=r"[Pp]oses must"):
        check_rigid(poses)


def test_no_poses_are_rigid_and_names_must_match():
    check_rigid(np.empty((0, 4, 4)))
    with pytest.raises(InvalidInputError, match="one name a pose"):
        check_rigid(np.eye(4)[None], names=["a", "b"])


@pytest.mark.parametrize("intrinsics", [(585, 585, 320), (0, 585, 320, 240), (585, -1, 320, 240), (585, np.nan, 0, 0), None, "camera"])
def test_what_is_no_camera_is_refused(intrinsics):
    with pytest.raises(InvalidInputError, match=r"[Ii]ntrinsics must be"):
        check_intrinsics(intrinsics)


@pytest.mark.parametrize("step", [0, -1, 1.5])
def test_a_step_of_no_whole_pixel_is_refused(step):
    with pytest.raises(InvalidInputError, match="step must be"):
        unproject(np.ones((4, 4), np.float32), CAMERA, step=step)


def test_depth_must_be_a_map():
    with pytest.raises(InvalidInputError, match="height, width"):
        unproject(np.ones(4, np.float32), CAMERA)


def test_a_pixel_unprojects_to_the_point_worked_out_by_hand():
    depth = np.zeros((3, 3), np.float32)
    depth[2, 1] = 4
    points, weights = unproject(depth, (2, 4, 0, 1))
    assert points.tolist() == [[2.0, 1.0, 4.0]]
    assert weights.tolist() == [16.0]


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_project_undoes_unproject(seed, step):
    rng = np.random.default_rng(seed)
    depth = (rng.uniform(0.5, 9, (17, 23)) * (rng.random((17, 23)) < 0.7)).astype(np.float32)
    points, weights = unproject(depth, CAMERA, step=step)
    u, v = project(points, CAMERA)
    np.testing.assert_allclose(u, np.rint(u), atol=1e-9)
    np.testing.assert_allclose(v, np.rint(v), atol=1e-9)
    at = depth[np.rint(v).astype(int), np.rint(u).astype(int)]
    assert (at > 0).all()
    np.testing.assert_array_equal(points[:, 2], at)
    np.testing.assert_array_equal(weights, points[:, 2] ** 2)
    rows, columns = min(step // 2, 8), min(step // 2, 11)
    assert len(points) == np.count_nonzero(depth[rows::step, columns::step])


def test_a_step_larger_than_the_image_takes_its_middle():
    points, _ = unproject(np.full((5, 7), 2, np.float32), (1, 1, 3, 2), step=100)
    assert points.tolist() == [[0.0, 0.0, 2.0]]


@given(st.integers(0, 2**32 - 1))
def test_a_pose_and_its_inverse_cancel_and_keep_lengths(seed):
    pose = random_pose(seed)
    check_rigid(pose[None])
    points = np.random.default_rng(seed + 1).normal(0, 3, (6, 3))
    moved = transform(pose, points)
    np.testing.assert_allclose(transform(invert(pose), moved), points, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(np.diff(moved, axis=0), axis=1), np.linalg.norm(np.diff(points, axis=0), axis=1))


def test_many_poses_invert_at_once():
    poses = np.stack([random_pose(seed) for seed in range(3)])
    np.testing.assert_allclose(invert(poses) @ poses, np.broadcast_to(np.eye(4), (3, 4, 4)), atol=1e-9)


def test_float32_points_stay_float32():
    u, v = project(np.ones((2, 3), np.float32), CAMERA)
    assert u.dtype == v.dtype == np.float32


def test_real_pose_files_are_rigid_within_the_tolerance():
    folder = Path(os.environ.get("COVIS_DATA", "")) / "7scenes" / "redkitchen"
    if "COVIS_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("set COVIS_DATA to the folder that holds 7scenes/redkitchen")
    files = sorted(folder.glob("seq-*/*.pose.txt"))
    check_rigid(np.stack([np.loadtxt(file) for file in files]), names=[file.name for file in files])
    assert len(files) == 250
