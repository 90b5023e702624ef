"""COLMAP's camera models as pinholes: their focal lengths and principal point, which is all that `Images.intrinsics` holds.

COLMAP puts the corner of the first pixel at (0, 0), so that its centre is at (0.5, 0.5); in covis the centre is at (0, 0). Hence
cx and cy are less by 0.5 here. kapture names the same models and puts (0, 0) at the same corner.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from covis.errors import CovisWarning

HALF = 0.5
"""What COLMAP's cx and cy are more than covis'."""

MODELS: dict[str, str] = {
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fx fy cx cy",
    "SIMPLE_RADIAL": "f cx cy k",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fx fy cx cy k1 k2 p1 p2",
    "OPENCV_FISHEYE": "fx fy cx cy k1 k2 k3 k4",
    "FULL_OPENCV": "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6",
    "FOV": "fx fy cx cy omega",
    "SIMPLE_RADIAL_FISHEYE": "f cx cy k",
    "RADIAL_FISHEYE": "f cx cy k1 k2",
    "THIN_PRISM_FISHEYE": "fx fy cx cy k1 k2 p1 p2 k3 k4 sx1 sy1",
    "RAD_TAN_THIN_PRISM_FISHEYE": "fx fy cx cy k0 k1 k2 k3 k4 k5 p0 p1 s0 s1 s2 s3",
    "SIMPLE_DIVISION": "f cx cy k",
    "DIVISION": "fx fy cx cy k",
    "SIMPLE_FISHEYE": "f cx cy",
    "FISHEYE": "fx fy cx cy",
    "EUCM": "fx fy cx cy alpha beta",
    "EQUIRECTANGULAR": "w h",
}
"""Model -> its parameters, in the order of COLMAP's numbers for them (0 SIMPLE_PINHOLE, 1 PINHOLE, …; as of COLMAP 4.2)."""


@dataclass(frozen=True)
class ModelCamera:
    """A camera as its file gives it.

    Attributes:
        model: a name of `MODELS`, or "UNKNOWN_CAMERA" (kapture's).
        width: of its images, pixels.
        height: of its images, pixels.
        params: the model's, as `MODELS` lists them.
    """

    model: str
    width: int
    height: int
    params: tuple[float, ...]

    @property
    def pinhole(self) -> tuple[float, float, float, float] | None:
        """fx, fy, cx, cy in covis' pixels; None for a camera that has none.

        >>> ModelCamera("SIMPLE_RADIAL", 640, 480, (500.0, 320.0, 240.0, 0.1)).pinhole
        (500.0, 500.0, 319.5, 239.5)
        """
        if self.model in ("EQUIRECTANGULAR", "UNKNOWN_CAMERA"):
            return None
        at = dict(zip(MODELS[self.model].split(), self.params, strict=True))
        fx, fy = (at["f"], at["f"]) if "f" in at else (at["fx"], at["fy"])
        return fx, fy, at["cx"] - HALF, at["cy"] - HALF

    @property
    def distorted(self) -> bool:
        """Whether its images are other than a pinhole's."""
        if self.model == "EUCM":
            return self.params[4] != 0
        first = 3 if MODELS.get(self.model, "").startswith("f ") else 4
        return "FISHEYE" in self.model or any(self.params[first:])


def intrinsics_of(cameras: Sequence[ModelCamera], source: Path) -> NDArray[np.float64] | None:
    """(n, 4) fx, fy, cx, cy of the camera of each image; None where one has none. What is dropped is said.

    >>> intrinsics_of([ModelCamera("PINHOLE", 4, 4, (3.0, 3.0, 2.0, 2.0))], Path("cameras.txt")).tolist()
    [[3.0, 3.0, 1.5, 1.5]]
    """
    pinholes = [camera.pinhole for camera in cameras]
    found = [pinhole for pinhole in pinholes if pinhole is not None]
    if len(found) < len(cameras):
        if found or any(camera.model != "UNKNOWN_CAMERA" for camera in cameras):
            models = sorted({camera.model for camera in cameras if camera.pinhole is None})
            warnings.warn(
                f"{len(cameras) - len(found)} of {len(cameras)} images of {source} have a camera without focal length "
                f"({', '.join(models)}); the images are read without intrinsics.",
                CovisWarning,
                stacklevel=2,
            )
        return None
    bent = [camera for camera in cameras if camera.distorted]
    if bent:
        models = sorted({camera.model for camera in bent})
        warnings.warn(
            f"{len(bent)} of {len(cameras)} images of {source} have a camera with distortion ({', '.join(models)}). Its "
            "focal lengths and principal point are kept, its distortion is dropped: undistort the images where pixels count.",
            CovisWarning,
            stacklevel=2,
        )
    return np.array(found, dtype=np.float64).reshape(-1, 4)
