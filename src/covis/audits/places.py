"""Places that two sets share, by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from covis.errors import InvalidInputError
from covis.images import Images


@dataclass(frozen=True, eq=False)
class SharedPlaces:
    """How near the images of a set lie to those of another.

    Attributes:
        within: metres.
        nearest: (n,) metres from each image to the nearest of the other set.
        columns: (n,) which it is.
        names: of the two sets.
    """

    within: float
    nearest: NDArray[np.float64]
    columns: NDArray[np.int64]
    names: tuple[tuple[str, ...], tuple[str, ...]]

    def as_dict(self) -> dict[str, Any]:
        """Counts, and the nearest pairs first."""
        near = np.flatnonzero(self.nearest <= self.within)
        listed = near[np.argsort(self.nearest[near], kind="stable")]
        return {
            "within": self.within,
            "images": len(self.nearest),
            "near": len(near),
            "nearest": float(self.nearest.min()) if len(self.nearest) else None,
            "list": [
                {"a": self.names[0][row], "b": self.names[1][self.columns[row]], "metres": round(float(self.nearest[row]), 3)}
                for row in listed.tolist()
            ],
        }


def shared_places(images: Images, other: Images, *, within: float = 25.0) -> SharedPlaces:
    """For each image the nearest of another set: a place in both is not new to who has learnt it.

    Distances lie in the plane where both have `xy`; where one has poses alone, between the cameras' centres in space, since which axis
    of a pose is the vertical is not known.

    Args:
        images: with `xy` or `pose`.
        other: likewise, in the same frame, at least one image.
        within: metres, inclusive.

    Raises:
        InvalidInputError: there are no positions, the frames differ, the other set is empty, or `within` is negative.

    >>> shared_places(Images("r", ["a"], xy=[[0, 0]]), Images("s", ["b"], xy=[[3, 4]]), within=5).as_dict()["near"]
    1
    """
    if images.crs != other.crs:
        raise InvalidInputError(f"Places can be compared within one frame; got {images.crs} and {other.crs}.")
    check_within(within)
    if not len(other):
        raise InvalidInputError("The other set must have images; it is empty.")
    both = common_positions(images, other)
    if both is None:
        raise InvalidInputError(
            f"Images must both have xy, or both have poses, for their places to be compared; those of {images.root} have "
            f"{_has(images)}, those of {other.root} {_has(other)}."
        )
    here, there = both
    origin = there.mean(axis=0)  # a northing of millions of metres would cost the tree its last digits
    _, columns = cKDTree(there - origin).query(here - origin)
    columns = np.asarray(columns, dtype=np.int64).reshape(-1)
    gap = here - there[columns]
    return SharedPlaces(within, np.linalg.norm(gap, axis=1), columns, (images.names, other.names))


def check_within(within: float) -> None:
    """Refuse what are no metres.

    Raises:
        InvalidInputError: `within` is negative or not finite.
    """
    if not (np.isfinite(within) and within >= 0):
        raise InvalidInputError(f"within must be metres from 0; got {within}.")


def common_positions(images: Images, other: Images) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Positions of both, (n, 2) where both have `xy`, (n, 3) where both have poses; None where they have nothing in common.

    >>> common_positions(Images("r", ["a"], xy=[[0, 0]]), Images("r", ["b"])) is None
    True
    """
    if images.xy is not None and other.xy is not None:
        return images.xy, other.xy
    if images.pose is not None and other.pose is not None:
        return images.pose[:, :3, 3], other.pose[:, :3, 3]
    return None


def _has(images: Images) -> str:
    return " and ".join(name for name in ("xy", "pose") if getattr(images, name) is not None) or "neither"
