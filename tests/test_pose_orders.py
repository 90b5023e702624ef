"""Poses as rows of numbers: the table of forms, each convention by hand, and the conventions of real files."""

import numpy as np
import pytest
from made_poses import of_quaternion, view_of_world_to_camera

from covis.datasets import READERS
from covis.datasets.pose_orders import CONVENTIONS, FORMS, ORDERS, PoseForm, poses_of, rows_of
from covis.datasets.posed import UPS, ground_columns
from covis.errors import InvalidInputError, UnknownNameError

SEVEN = {"qw", "qx", "qy", "qz", "tx", "ty", "tz"}


def test_every_form_is_whole():
    assert set(FORMS) >= {
        "7scenes", "tb-places", "robotcar", "cmu", "colmap", "kapture", "kitti", "tum", "opensfm", "nvm", "submission",
    }  # fmt: skip
    assert {"7scenes", "colmap", "kapture", "kitti", "tum", "opensfm"} <= set(READERS)
    for name, form in FORMS.items():
        assert isinstance(form, PoseForm)
        assert form.convention in CONVENTIONS, name
        assert set(form.order.split()) == SEVEN or "matrix" in form.order or "axis" in form.order, name
        assert form.axes == "x right, y down, z forward"
    assert set(ORDERS) == {"7scenes", "tb-places", "robotcar", "cmu"}  # GCL's indexes; a name there must not depend on the table
    assert ORDERS["tb-places"] == FORMS["tb-places"].order


HALF = np.sqrt(0.5)


@pytest.mark.parametrize(("convention", "centre"), [
    ("camera-to-world", (1, 2, 3)),
    ("centre", (1, 2, 3)),
    ("world-to-camera", (3, -2, -1)),
])  # fmt: skip
def test_a_quarter_turn_by_hand(convention, centre):
    """A turn by 90 degrees about y takes z to x and x to -z; so -R^T (1, 2, 3) is (3, -2, -1)."""
    (pose,) = poses_of([[1, 2, 3, HALF, 0, HALF, 0]], order="tx ty tz qw qx qy qz", convention=convention)
    np.testing.assert_allclose(pose[:3, 3], centre, atol=1e-12)
    looks = (1, 0, 0) if convention == "camera-to-world" else (-1, 0, 0)
    np.testing.assert_allclose(pose[:3, 2], looks, atol=1e-12)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_rounded_rotation_keeps_the_centre_far_from_the_origin(convention):
    """In UTM metres a rotation that is off by 1e-6 would put the camera 5 m away, if matrix and quaternion were mixed."""
    pose = poses_of([[580970.8, 2849962.3, 1.8, 0.5, 0.5, -0.5, 0.5]], order="tx ty tz qw qx qy qz")
    pose[0, :3, :3] += np.random.default_rng(0).normal(scale=1e-6, size=(3, 3))
    order = "qx qy qz qw tx ty tz"
    back = poses_of(rows_of(pose, order=order, convention=convention), order=order, convention=convention)
    np.testing.assert_allclose(back[:, :3, 3], pose[:, :3, 3], rtol=0, atol=1e-8)
    np.testing.assert_allclose(back[:, :3, :3], pose[:, :3, :3], atol=1e-5)


def test_what_is_no_rotation_or_no_convention_is_refused():
    with pytest.raises(InvalidInputError, match=r"length 1.*row 1"):
        poses_of([[0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 2]], order=FORMS["tum"].order)
    with pytest.raises(InvalidInputError, match=r"row 0"):
        poses_of([[0, 0, 0, 0, 0, 0, np.nan]], order=FORMS["tum"].order)
    with pytest.raises(UnknownNameError, match=r"world-to-camera"):
        poses_of(np.zeros((0, 7)), order=FORMS["tum"].order, convention="w2c")


@pytest.mark.parametrize(("up", "east", "north"), [("z", 0, 1), ("y", 0, 2), ("-y", 0, 2)])
def test_which_way_is_up_by_hand(up, east, north):
    """A camera at (1, 2, 3): z up reads (1, 2); y up (1, -3); y down, as in KITTI, (1, 3)."""
    pose = np.eye(4)[None].copy()
    pose[0, :3, 3] = 1, 2, 3
    found = ground_columns(pose, up)
    signs = {"z": (1, 1), "y": (1, -1), "-y": (1, 1)}[up]
    assert found["xy"].tolist() == [[signs[0] * pose[0, east, 3], signs[1] * pose[0, north, 3]]]
    expected = {"z": np.nan, "y": 180.0, "-y": 0.0}[up]  # it looks along z: up, to the south, to the north
    np.testing.assert_array_equal(found["heading"], [expected])
    assert np.linalg.det(np.array(UPS[up])) == pytest.approx(1)
    assert ground_columns(pose, None) == {}
    with pytest.raises(UnknownNameError, match=r"z, y, -y"):
        ground_columns(pose, "north")


@pytest.mark.parametrize("slice_", [6, 7, 8, 22])
def test_the_poses_of_cmu_seasons_are_centres(covis_data, slice_):
    """Read so, adjacent frames are about 1 m apart, cameras stand upright, and look 44 degrees off the way that the car goes.

    The last three as a translation give steps of 3 m and more in one of ten, and cameras that look anywhere.
    """
    path = covis_data / "metadata" / "cmu_poses" / str(slice_) / "c0_db.txt"
    rows = np.array([line.split()[1:] for line in path.read_text().splitlines()], dtype=np.float64)
    form = FORMS["cmu"]

    def measured(poses):
        moves = np.diff(poses[:, :3, 3], axis=0)
        steps = np.linalg.norm(moves, axis=1)
        ahead = (poses[:-1, :3, 2] * moves).sum(axis=1) / steps
        return np.median(steps), np.quantile(steps, 0.9), np.ptp(np.quantile(ahead, (0.1, 0.9)))

    poses = poses_of(rows, order=form.order, convention=form.convention)
    step, long_step, spread = measured(poses)
    assert 0.5 < step < 1.3
    assert long_step < 2.3
    assert spread < 0.05
    assert np.median(poses[:, 2, 1]) < -0.99  # the camera's y axis points down in a world whose z points up
    _, long_step, spread = measured(poses_of(rows, order=form.order, convention="world-to-camera"))
    assert long_step > 3.4
    assert spread > 1
    view = of_quaternion(*rows[0, :4])[2]  # by hand: the third row of a rotation world-to-camera is where the camera looks
    np.testing.assert_allclose(poses[0, :3, 2], view, atol=2e-6)
    np.testing.assert_array_equal(poses[0, :3, 3], rows[0, 4:])
    centre, _ = view_of_world_to_camera(
        of_quaternion(*rows[0, :4]), rows_of(poses[:1], order=form.order, convention="world-to-camera")[0, 4:]
    )
    np.testing.assert_allclose(centre, rows[0, 4:], atol=1e-2)  # the file's quaternions have six digits, and the centre is 1.5 km away
