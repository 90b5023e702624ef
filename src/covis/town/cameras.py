"""Cameras: a pose, a lens and a size; and the rays through their pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.geometry import check_intrinsics, check_rigid

DECIMALS = 9
"""Poses are rounded to so many decimals, so that the last bits of a machine's sines do not matter."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera; pixel (u, v) has its centre at integer coordinates.

    Attributes:
        pose: (4, 4) float64, camera-to-world, metres; camera axes x right, y down, z forward, world x east, y north, z up.
        intrinsics: (fx, fy, cx, cy) pixels.
        size: (height, width) pixels.

    Raises:
        InvalidInputError: the pose is no rigid motion, the intrinsics are no camera's, or the size is not positive.
    """

    pose: NDArray[np.float64]
    intrinsics: tuple[float, float, float, float]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        check_rigid(np.asarray(self.pose)[None])
        check_intrinsics(self.intrinsics)
        if min(self.size) < 1:
            raise InvalidInputError(f"A camera's size must be at least 1 x 1 pixels; got {self.size}.")

    @property
    def at(self) -> NDArray[np.float64]:
        """(3,) metres, where it is."""
        return self.pose[:3, 3]

    @property
    def heading(self) -> float:
        """Degrees clockwise from north, in [0, 360)."""
        x, y = self.pose[:2, 2]
        return round(math.degrees(math.atan2(x, y)), 6) % 360

    @property
    def fov(self) -> float:
        """The horizontal opening angle, degrees."""
        fx, _, cx, _ = self.intrinsics
        width = self.size[1]
        return math.degrees(math.atan((cx + 0.5) / fx) + math.atan((width - 0.5 - cx) / fx))

    def rays(self, samples: int = 1) -> NDArray[np.float64]:
        """(height samples * width samples, 3) world directions with 1 along the optical axis, symmetric around pixel centres."""
        height, width = self.size
        fx, fy, cx, cy = self.intrinsics
        inside = (np.arange(samples) + 0.5) / samples - 0.5
        u = ((np.arange(width)[:, None] + inside).ravel() - cx) / fx
        v = ((np.arange(height)[:, None] + inside).ravel() - cy) / fy
        turn = self.pose[:3, :3]
        ways = u[None, :, None] * turn[:, 0] + v[:, None, None] * turn[:, 1] + turn[:, 2]
        return np.asarray(ways.reshape(-1, 3))


def look(
    at: NDArray[np.float64] | tuple[float, float, float],
    *,
    heading: float,
    pitch: float = 0.0,
    roll: float = 0.0,
    fov: float = 75.0,
    size: tuple[int, int] = (240, 320),
) -> Camera:
    """A camera at a place, by angles.

    Args:
        at: metres, x east, y north, z up.
        heading: degrees clockwise from north.
        pitch: degrees upwards.
        roll: degrees, clockwise as the camera sees itself.
        fov: horizontal opening angle, degrees.
        size: (height, width) pixels.

    >>> camera = look((0.0, 0.0, 2.0), heading=90)
    >>> camera.heading, round(camera.fov, 6)
    (90.0, 75.0)
    """
    turn, climb, lean = (math.radians(value) for value in (heading, pitch, roll))
    forward = np.array([math.sin(turn) * math.cos(climb), math.cos(turn) * math.cos(climb), math.sin(climb)])
    right = np.array([math.cos(turn), -math.sin(turn), 0.0])
    down = np.cross(forward, right)
    pose = np.eye(4)
    pose[:3, 0] = math.cos(lean) * right + math.sin(lean) * down
    pose[:3, 1] = math.cos(lean) * down - math.sin(lean) * right
    pose[:3, 2], pose[:3, 3] = forward, at
    focal = size[1] / 2 / math.tan(math.radians(fov) / 2)
    focal = round(focal, DECIMALS)
    return Camera(np.round(pose, DECIMALS), (focal, focal, (size[1] - 1) / 2, (size[0] - 1) / 2), size)
