"""OpenCV, imported here alone: the local features SIFT and ORB, and RANSAC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError, MissingExtraError
from covis.reranking.matchers import Prepared, counted, share
from covis.reranking.nearest import mutual_nearest, squared_distances

SMALLEST = 8
"""Pixels of the shorter side from which on points are looked for."""

EXACT = {"fundamental": 7, "homography": 4}
"""How many correspondences a model always fits: as many support it by chance."""


def opencv() -> ModuleType:
    """The library.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import cv2 as library
    except ImportError as error:
        raise MissingExtraError("Local features and RANSAC need OpenCV, which is not installed: pip install covis[local]") from error
    module: ModuleType = library
    return module


@dataclass(frozen=True)
class Ransac:
    """Geometric verification by OpenCV's USAC: uniform sampling, MAGSAC's score and its local optimisation (Barath et al., 2020).

    Attributes:
        model: "fundamental": two views of any scene; "homography": of a plane, or from one spot.
        threshold: pixels of the images as they were matched, > 0: how far an inlier may lie from what the model says.
        confidence: in (0, 1): the search ends when a better model is less likely than the rest to 1.
        iterations: samples at most, >= 1.
        minimum: inliers; fewer count as none. 0: one more than any model of the kind fits, 8 and 5.
        seed: of the samples, >= 0.

    Raises:
        InvalidInputError: a value is outside its range.

    >>> Ransac("homography").least
    5
    """

    model: Literal["fundamental", "homography"] = "fundamental"
    threshold: float = 3.0
    confidence: float = 0.999
    iterations: int = 1000
    minimum: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model not in EXACT:
            raise InvalidInputError(f"The model must be one of {', '.join(EXACT)}; got {self.model!r}.")
        if not 0 < self.threshold < np.inf or not 0 < self.confidence < 1:
            raise InvalidInputError(
                f"The threshold must be pixels > 0 and the confidence in (0, 1); got {self.threshold} and {self.confidence}."
            )
        if 0 < self.minimum <= EXACT[self.model]:
            raise InvalidInputError(
                f"The option minimum must be 0, or more than the {EXACT[self.model]} points that any {self.model} matrix fits; "
                f"got {self.minimum}."
            )
        for name, low in (("iterations", 1), ("minimum", 0), ("seed", 0)):
            if not low <= getattr(self, name) < 2**31:
                raise InvalidInputError(f"The option {name} must be a whole number of {low} or more; got {getattr(self, name)}.")

    @property
    def least(self) -> int:
        """The smallest number of inliers that is counted."""
        return self.minimum or EXACT[self.model] + 1

    def inliers(self, correspondences: NDArray[np.float32]) -> int:
        """How many correspondences (m, 4) one model explains; 0 where that is below `least`. The same on every call.

        >>> grid = np.stack(np.meshgrid(np.arange(6.0), np.arange(5.0)), axis=-1).reshape(-1, 2).astype(np.float32) * 40
        >>> Ransac("homography").inliers(np.hstack([grid, 2 * grid + 7]))
        30
        """
        if len(correspondences) < max(self.least, EXACT[self.model] + 1):
            return 0
        cv2 = opencv()
        chosen = cv2.UsacParams()
        chosen.threshold, chosen.confidence, chosen.maxIterations = self.threshold, self.confidence, self.iterations
        chosen.sampler, chosen.score, chosen.loMethod = cv2.SAMPLING_UNIFORM, cv2.SCORE_METHOD_MAGSAC, cv2.LOCAL_OPTIM_SIGMA
        chosen.randomGeneratorState, chosen.isParallel = self.seed, False  # parallel, it would draw in another order every time
        fit = cv2.findFundamentalMat if self.model == "fundamental" else cv2.findHomography
        first, second = (np.ascontiguousarray(correspondences[:, side], dtype=np.float32) for side in (slice(0, 2), slice(2, 4)))
        try:
            found, mask = fit(first, second, chosen)
        except cv2.error:  # it has no model where the points are degenerate: all in one spot, say
            return 0
        count = 0 if found is None or mask is None else int(np.count_nonzero(mask))
        return count if count >= self.least else 0


class _Detected:
    """A detector of OpenCV: points, and vectors of bytes."""

    width: int

    def __init__(self, features: int, ratio: float) -> None:
        self.features, self.ratio = counted(features), share(ratio, "ratio")
        if not ratio:
            raise InvalidInputError("The option ratio must be above 0; 0 lets no match pass.")
        self.libraries = {"opencv": str(opencv().__version__)}

    def prepare(self, image: NDArray[np.uint8]) -> Prepared:
        """`points` (n, 2) float32 and `vectors` (n, width) uint8 of an image (height, width, 3)."""
        cv2 = opencv()
        # Fewer pixels than the least window of a detector hold no point, and OpenCV fails on some such images.
        small = min(image.shape[:2]) < SMALLEST
        keypoints, vectors = ((), None) if small else self._described(cv2, cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY))
        if vectors is None or not len(keypoints):
            return {"points": np.zeros((0, 2), dtype=np.float32), "vectors": np.zeros((0, self.width), dtype=np.uint8)}
        # SIFT's values are whole numbers up to 255 kept as float32: bytes lose nothing, and take a quarter.
        vectors = np.rint(vectors).clip(0, 255).astype(np.uint8)
        points = np.array([one.pt for one in keypoints], dtype=np.float32)
        return {"points": points[: self.features], "vectors": vectors[: self.features]}

    def correspondences(self, a: Prepared, b: Prepared) -> NDArray[np.float32]:
        """(m, 4) float32: mutual nearest neighbours that pass the ratio test."""
        pairs = self._pairs(a["vectors"], b["vectors"])
        return np.hstack([a["points"][pairs[:, 0]], b["points"][pairs[:, 1]]])

    def _described(self, cv2: ModuleType, grey: NDArray[np.uint8]) -> tuple[Sequence[Any], NDArray[Any] | None]:
        raise NotImplementedError

    def _pairs(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.int64]:
        raise NotImplementedError


class RootSift(_Detected):
    """SIFT (Lowe, 2004) compared by the Hellinger kernel: RootSIFT (Arandjelović and Zisserman, CVPR 2012).

    A vector is divided by its sum, and the square root is taken of each element; the Euclidean distance of two such unit
    vectors is what nearest neighbours and the ratio test go by.

    Args:
        features: at most so many of an image, those of the strongest contrast.
        ratio: of the ratio test, in (0, 1]; 0.8 is Lowe's.
        contrast: OpenCV's contrastThreshold; lower finds more in flat regions.
        edge: OpenCV's edgeThreshold; higher keeps more points on edges.
        upright: patches are taken as they stand, not turned to their strongest gradient: for cameras held level.

    Raises:
        InvalidInputError: an option is outside its range.
        MissingExtraError: OpenCV is not installed.
    """

    width = 128

    def __init__(
        self, *, features: int = 1000, ratio: float = 0.8, contrast: float = 0.04, edge: float = 10.0, upright: bool = False
    ) -> None:
        super().__init__(features, ratio)
        for name, value in (("contrast", contrast), ("edge", edge)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < np.inf:
                raise InvalidInputError(f"The option {name} must be a number of 0 or more; got {value!r}.")
        if not isinstance(upright, bool):
            raise InvalidInputError(f"The option upright must be true or false; got {upright!r}.")
        self.contrast, self.edge, self.upright = contrast, edge, upright

    def _described(self, cv2: ModuleType, grey: NDArray[np.uint8]) -> tuple[Sequence[Any], NDArray[Any] | None]:
        detector = cv2.SIFT_create(nfeatures=self.features, contrastThreshold=self.contrast, edgeThreshold=self.edge)
        if not self.upright:
            found: tuple[Sequence[Any], NDArray[Any] | None] = detector.detectAndCompute(grey, None)
            return found
        spots = {(*one.pt, one.size): one for one in detector.detect(grey, None)}  # OpenCV gives a point for each orientation of a spot
        for one in spots.values():
            one.angle = 0.0
        if not spots:
            return (), None
        keypoints, vectors = detector.compute(grey, list(spots.values()))
        return keypoints, vectors

    def _pairs(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.int64]:
        return mutual_nearest(squared_distances(rooted(a), rooted(b)), ratio=self.ratio**2)


class Orb(_Detected):
    """ORB (Rublee et al., ICCV 2011): corners with binary vectors of 256 bits, by Hamming distance; quicker and weaker than SIFT.

    Args:
        features: at most so many of an image.
        ratio: of the ratio test, in (0, 1].

    Raises:
        InvalidInputError: an option is outside its range.
        MissingExtraError: OpenCV is not installed.
    """

    width = 32

    def __init__(self, *, features: int = 1000, ratio: float = 0.8) -> None:
        super().__init__(features, ratio)

    def _described(self, cv2: ModuleType, grey: NDArray[np.uint8]) -> tuple[Sequence[Any], NDArray[Any] | None]:
        found: tuple[Sequence[Any], NDArray[Any] | None] = cv2.ORB_create(nfeatures=self.features).detectAndCompute(grey, None)
        return found

    def _pairs(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.int64]:
        signs = [np.unpackbits(one, axis=1).astype(np.float32) * 2 - 1 for one in (a, b)]
        return mutual_nearest((8 * self.width - signs[0] @ signs[1].T) / 2, ratio=self.ratio)


def rooted(vectors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """RootSIFT of SIFT's vectors: each divided by its sum, and the square root of each element; unit vectors, float32.

    >>> rooted(np.array([[1, 3, 0, 0]], dtype=np.uint8)).round(3).tolist()
    [[0.5, 0.8659999966621399, 0.0, 0.0]]
    """
    values = vectors.astype(np.float32)
    roots: NDArray[np.float32] = np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1))
    return roots
