"""Poses as rows of seven numbers: in which order data sets write translation and quaternion, and what these do."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from covis.geometry import invert

ORDERS = {
    "7scenes": "tx ty tz qw qx qy qz",
    "tb-places": "tx ty tz qx qy qz qw",
    "robotcar": "qw qx qy qz tx ty tz",
    "cmu": "qw qx qy qz tx ty tz",
}
"""Data set -> what the seven numbers of a pose are."""

CONVENTIONS = ("camera-to-world", "world-to-camera", "centre")
"""What a pose's rotation and translation do: both camera-to-world; both world-to-camera; rotation world-to-camera, camera's centre."""


def poses_of(rows: ArrayLike, *, order: str, convention: str = "camera-to-world") -> NDArray[np.float64]:
    """Camera-to-world matrices of rows of seven numbers.

    Args:
        rows: (n, 7), metres and a unit quaternion.
        order: what the seven are, as in `ORDERS`.
        convention: one of `CONVENTIONS`.

    Returns:
        (n, 4, 4), camera-to-world.

    >>> poses_of([[1, 2, 3, 0, 0, 0, 1]], order="tx ty tz qw qx qy qz")[0].astype(int).tolist()
    [[-1, 0, 0, 1], [0, -1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]
    """
    from scipy.spatial.transform import Rotation  # here, because it takes longer to import than most indexes to read

    rows = np.asarray(rows, dtype=np.float64).reshape(-1, 7)
    place = order.split()
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    if len(rows):
        poses[:, :3, :3] = Rotation.from_quat(rows[:, [place.index(name) for name in ("qx", "qy", "qz", "qw")]]).as_matrix()
        poses[:, :3, 3] = rows[:, [place.index(name) for name in ("tx", "ty", "tz")]]
    if convention == "world-to-camera":
        return invert(poses)
    if convention == "centre":
        poses[:, :3, :3] = poses[:, :3, :3].transpose(0, 2, 1)
    return poses


def rows_of(poses: NDArray[np.float64], *, order: str) -> NDArray[np.float64]:
    """(n, 7) rows of camera-to-world matrices (n, 4, 4): the inverse of `poses_of`, with qw >= 0.

    A quaternion holds an exact rotation alone: a matrix that is one within `geometry.RIGID_TOLERANCE` gives the nearest.
    """
    from scipy.spatial.transform import Rotation

    rows = np.zeros((len(poses), 7))
    place = order.split()
    if len(poses):
        rows[:, [place.index(name) for name in ("tx", "ty", "tz")]] = poses[:, :3, 3]
        quaternions = Rotation.from_matrix(poses[:, :3, :3]).as_quat(canonical=True)
        rows[:, [place.index(name) for name in ("qx", "qy", "qz", "qw")]] = quaternions
    return rows
