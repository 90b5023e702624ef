"""Poses as rows of seven numbers: in which order data sets write translation and quaternion, and what these do.

`FORMS` is the table of all layouts and files with poses; a reader takes its order and convention from there, so that the table that is
printed is the one that counts. Whatever a file holds, `Images.pose` is camera-to-world with OpenCV axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from covis.errors import InvalidInputError, UnknownNameError
from covis.geometry import invert
from covis.lookup import suggest

ORDERS = {
    "7scenes": "tx ty tz qw qx qy qz",
    "tb-places": "tx ty tz qx qy qz qw",
    "robotcar": "qw qx qy qz tx ty tz",
    "cmu": "qw qx qy qz tx ty tz",
}
"""Data set -> what the seven numbers of a pose are in GCL's JSON indexes; the data sets' own files are in `FORMS`."""

CONVENTIONS = ("camera-to-world", "world-to-camera", "centre")
"""What a pose's rotation and translation do: both camera-to-world; both world-to-camera; rotation world-to-camera, camera's centre."""

UNIT = 1e-2
"""How far a quaternion's length may be from 1, since files hold four to eight digits; it is brought to 1."""

_OPENCV = "x right, y down, z forward"


@dataclass(frozen=True)
class PoseForm:
    """How a layout or file writes a pose.

    Attributes:
        order: what the numbers are, in their order: seven names ("qw qx qy qz tx ty tz"), or what else stands there.
        convention: one of `CONVENTIONS`; "centre" means a rotation world-to-camera and the camera's centre in the world.
        axes: the camera's axes.
    """

    order: str
    convention: str
    axes: str = _OPENCV

    def __str__(self) -> str:
        return f"{self.order}; {self.convention}; camera axes {self.axes}"


FORMS: dict[str, PoseForm] = {
    "7scenes": PoseForm("4x4 matrix, row by row", "camera-to-world"),
    "tb-places": PoseForm("tx ty tz qx qy qz qw", "camera-to-world"),
    "robotcar": PoseForm("qw qx qy qz tx ty tz", "camera-to-world"),
    "robotcar-v2": PoseForm("4x4 matrix, row by row", "camera-to-world"),
    "cmu": PoseForm("qw qx qy qz tx ty tz", "centre"),
    "colmap": PoseForm("qw qx qy qz tx ty tz", "world-to-camera"),
    "kapture": PoseForm("qw qx qy qz tx ty tz", "world-to-camera"),
    "kitti": PoseForm("3x4 matrix, row by row", "camera-to-world"),
    "tum": PoseForm("tx ty tz qx qy qz qw", "camera-to-world"),
    "opensfm": PoseForm("rx ry rz tx ty tz, r the axis times the angle in radians", "world-to-camera"),
    "nvm": PoseForm("qw qx qy qz tx ty tz", "centre"),
    "submission": PoseForm("qw qx qy qz tx ty tz", "world-to-camera"),
}
"""Layout or file -> its form. "robotcar" is GCL's index of RobotCar Seasons, "robotcar-v2" the data set's list of training poses; "cmu"
the data set's own files; "submission" the result files of visuallocalization.net."""


def poses_of(rows: ArrayLike, *, order: str, convention: str = "camera-to-world") -> NDArray[np.float64]:
    """Camera-to-world matrices of rows of seven numbers.

    Args:
        rows: (n, 7), metres and a unit quaternion.
        order: what the seven are, as in `ORDERS`.
        convention: one of `CONVENTIONS`.

    Returns:
        (n, 4, 4), camera-to-world.

    Raises:
        UnknownNameError: the convention is none of `CONVENTIONS`.
        InvalidInputError: a quaternion's length is not 1, within `UNIT`; the message names the row.

    >>> poses_of([[1, 2, 3, 0, 0, 0, 1]], order="tx ty tz qw qx qy qz")[0].astype(int).tolist()
    [[-1, 0, 0, 1], [0, -1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]
    """
    _known(convention)
    from scipy.spatial.transform import Rotation  # here, because it takes longer to import than most indexes to read

    rows = np.asarray(rows, dtype=np.float64).reshape(-1, 7)
    place = order.split()
    quaternions = rows[:, [place.index(name) for name in ("qx", "qy", "qz", "qw")]]
    wrong = np.flatnonzero(~(np.abs(np.linalg.norm(quaternions, axis=1) - 1) <= UNIT))
    if wrong.size:
        raise InvalidInputError(
            f"A pose's quaternion must have the length 1, within {UNIT:g}; row {wrong[0]} ({order}) is {rows[wrong[0]].tolist()}."
        )
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    if len(rows):
        poses[:, :3, :3] = Rotation.from_quat(quaternions).as_matrix()
        poses[:, :3, 3] = rows[:, [place.index(name) for name in ("tx", "ty", "tz")]]
    if convention == "world-to-camera":
        return invert(poses)
    if convention == "centre":
        poses[:, :3, :3] = poses[:, :3, :3].transpose(0, 2, 1)
    return poses


def rows_of(poses: NDArray[np.float64], *, order: str, convention: str = "camera-to-world") -> NDArray[np.float64]:
    """(n, 7) rows of camera-to-world matrices (n, 4, 4): the inverse of `poses_of`, with qw >= 0.

    A quaternion holds an exact rotation alone: a matrix that is one within `geometry.RIGID_TOLERANCE` gives the nearest. The camera's
    centre is kept in every convention.

    Raises:
        UnknownNameError: the convention is none of `CONVENTIONS`.

    >>> turned = poses_of([[1, 0, 0, 0, 4, 5, 6]], order="qw qx qy qz tx ty tz", convention="world-to-camera")
    >>> rows_of(turned, order="qw qx qy qz tx ty tz", convention="centre")[0].tolist()
    [1.0, 0.0, 0.0, 0.0, -4.0, -5.0, -6.0]
    """
    from scipy.spatial.transform import Rotation

    _known(convention)
    poses = np.array(poses, dtype=np.float64).reshape(-1, 4, 4)  # a copy: scipy takes no read-only array
    rows = np.zeros((len(poses), 7))
    if not len(poses):
        return rows
    rotation = Rotation.from_matrix(poses[:, :3, :3])
    centre = poses[:, :3, 3]
    if convention != "camera-to-world":
        rotation = rotation.inv()
    # of the rotation that is written, not of the matrix: far from the origin the two would put the camera metres apart
    place = order.split()
    rows[:, [place.index(name) for name in ("tx", "ty", "tz")]] = (
        -rotation.apply(centre) + 0.0 if convention == "world-to-camera" else centre
    )
    rows[:, [place.index(name) for name in ("qx", "qy", "qz", "qw")]] = rotation.as_quat(canonical=True) + 0.0  # no -0.0
    return rows


def _known(convention: str) -> None:
    if convention not in CONVENTIONS:
        raise UnknownNameError(f"A convention of poses must be one of {', '.join(CONVENTIONS)}. {suggest(convention, CONVENTIONS)}")
