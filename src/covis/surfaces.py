"""How much of one 3D surface two depth images both see, as intersection over union (IoU) in [0, 1].

Two forms of one idea, for views with a depth map, a pose and intrinsics:

* `voxel_overlap`: each view's back-projected surface as a set of voxels; IoU of the sets. Fast, exact, for rooms: the
  number depends on the voxel's edge, which must exceed the noise of depth and pose.
* `reprojection_overlap`: each view's depth carried into the other, with an occlusion test. Slower, for streets too,
  where voxels large enough to meet again would be larger than the things seen.

A view's surface is what its depth map holds between `nearest` and `reach` metres of depth; the rest counts as unknown.
Views are taken from any sequence, one at a time: one that decodes its depth maps on demand never has them all in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from covis.errors import InvalidInputError
from covis.geometry import check_intrinsics, check_rigid, invert, project, transform, unproject

Overlap: TypeAlias = Literal["iou", "fraction", "database-fraction"]
_Rows: TypeAlias = NDArray[np.intp]
_Points: TypeAlias = NDArray[np.float64]
_Matrix: TypeAlias = sparse.csr_array[np.float64, tuple[int, int]]
_WEIGHT_LEVELS = 2**24  # whole numbers up to here are exact in float32
_VOXEL_BITS = 21  # for each axis: three fit into an int64
_IN_FRONT = np.float32(1e-6)  # metres


@dataclass(frozen=True, eq=False)
class View:
    """One posed depth image.

    Attributes:
        depth: (height, width) float32, metres along the optical axis, 0 where unknown.
        pose: (4, 4) float64, camera-to-world, metres; camera axes x right, y down, z forward.
        intrinsics: (4,) float64, pixels of this depth map: fx, fy, cx, cy.

    Raises:
        InvalidInputError: a shape is another, a depth is negative or not finite, the pose is no rigid motion, or a focal
            length is not above 0.
    """

    depth: NDArray[np.float32]
    pose: NDArray[np.float64]
    intrinsics: NDArray[np.float64]

    def __post_init__(self) -> None:
        depth = np.asarray(self.depth, dtype=np.float32)
        if depth.ndim != 2 or not depth.size:
            raise InvalidInputError(f"A view's depth must be (height, width) with at least one pixel; got the shape {depth.shape}.")
        if not (np.isfinite(depth).all() and depth.min() >= 0):
            raise InvalidInputError(
                "A view's depth must be finite and >= 0 metres, 0 where unknown; it holds negative or non-finite values."
            )
        pose = np.asarray(self.pose, dtype=np.float64)
        check_rigid(pose[None], names=["the view"])
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "pose", pose)
        object.__setattr__(self, "intrinsics", check_intrinsics(self.intrinsics))


def voxel_overlap(
    queries: Sequence[View],
    database: Sequence[View],
    *,
    voxel: float = 0.1,
    nearest: float = 0.1,
    reach: float = 6.0,
    step: int = 2,
    overlap: Overlap = "iou",
) -> _Matrix:
    """Overlap of the voxels that each query and each database view see: |A n B| / |A u B|, or over |A| or |B| alone.

    Every step-th pixel in range is back-projected, and marks the voxel that it falls into, on one grid through the world's
    origin: where the grid lies moves the numbers a little. Keep step * depth / focal length at half the voxel's edge or less,
    or a surface is seen with holes and the overlap comes out too low.

    Each view is read once. Memory: 8 bytes for each voxel of each view, and the result.

    Args:
        queries: q views. Passing the same object twice gives all pairs of one set, exactly symmetric, 1 on the diagonal.
        database: n views, in the same world; sizes and intrinsics may differ.
        voxel: edge, metres. Several times the error of depth and pose: 0.05 to 0.2 for a Kinect in a room.
        nearest: least depth that counts, metres.
        reach: largest depth that counts, metres.
        step: pixels between samples.
        overlap: "iou", "fraction" (of the query's voxels), or "database-fraction".

    Returns:
        (q, n) float64, in [0, 1]; pairs that share nothing are absent.

    Raises:
        InvalidInputError: voxel or step is not above 0, the range is empty, a view has no sample with a depth in range, or
            the views lie further than 2^20 voxels apart.

    >>> wall = View(np.full((48, 64), 2, np.float32), np.eye(4), (50, 50, 31.5, 23.5))
    >>> voxel_overlap([wall], [wall]).toarray().tolist()
    [[1.0]]
    """
    _check_settings(nearest, reach, overlap=overlap, voxel=voxel)
    if not len(queries) or not len(database):
        return sparse.csr_array((len(queries), len(database)), dtype=np.float64)
    origin = np.floor(database[0].pose[:3, 3] / voxel)
    sides = [("database", database)] if queries is database else [("database", database), ("queries", queries)]
    keys = [
        _voxel_keys(transform(view.pose, points), origin, voxel=voxel, name=name)
        for side, views in sides
        for name, view, points, _ in _sampled(views, side, nearest=nearest, reach=reach, step=step)
    ]
    sizes = np.array([len(one) for one in keys])
    columns = np.unique(np.concatenate(keys), return_inverse=True)[1]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    seen = sparse.csr_array((np.ones(len(columns), np.int32), columns, starts))
    n = len(database)
    first, other = (slice(None), slice(None)) if queries is database else (slice(n, None), slice(0, n))
    shared = (seen[first] @ seen[other].T).tocoo()
    row, column = shared.row, shared.col
    mine, theirs = sizes[first][row], sizes[other][column]
    whole = {"iou": mine + theirs - shared.data, "fraction": mine, "database-fraction": theirs}[overlap]
    return _csr(row, column, shared.data / whole, shape=(len(queries), n))


def reprojection_overlap(
    queries: Sequence[View],
    database: Sequence[View],
    *,
    nearest: float = 0.1,
    reach: float = 6.0,
    tolerance: float = 0.05,
    relative_tolerance: float = 0.01,
    step: int = 8,
    overlap: Overlap = "iou",
    block: int = 2**16,
) -> _Matrix:
    """Overlap of the surfaces that two views see, from what each sees of the other: psi = 1 / (1/fa + 1/fb - 1), 0 if fa or fb is 0.

    fa is the share of A's surface that B sees too, fb the reverse. Were the shared surface S the same from both sides, so
    fa = S/A and fb = S/B, then psi = S / (A + B - S), the IoU.

    For fa, every step-th pixel of A with a depth in [nearest, reach] is carried into B by the two poses. It is seen there if
    it lies before the camera, the pixel nearest to it is inside the image and has a depth z_b in range, and
    |z - z_b| < tolerance + relative_tolerance * z_b: nothing stands before it, and no gap. A pixel counts with its depth
    squared, that is by the surface that it covers; without that, what is near outweighs all else.

    Computed in float32, positions relative to the camera. Pairs whose views cannot meet (bounding sphere against viewing
    pyramid) are left out beforehand, which changes no number. Memory: 16 bytes for each sample of one side's views, about
    80 bytes for each of `block`, one depth map at a time, and the result. Each view is read twice.

    Args:
        queries: q views. The same object on both sides gives all pairs of one set: exactly symmetric, 1 on the diagonal.
        database: n views, in the same world; sizes and intrinsics may differ.
        nearest: least depth that counts, metres.
        reach: largest depth that counts, metres; 6 suits a room, 30 a street.
        tolerance: how far two depths of one surface may differ, metres.
        relative_tolerance: what is added to it for each metre of depth.
        step: pixels between samples, about 1,000 a view suffice; depths are looked up at full resolution.
        overlap: "iou" (psi), "fraction" (fa: of the query's surface), or "database-fraction" (fb).
        block: samples handled at once; no number depends on it.

    Returns:
        (q, n) float64, in [0, 1]; pairs that share nothing are absent.

    Raises:
        InvalidInputError: a setting is out of range, or a view has no sample with a depth in range; the message names it.

    >>> wall = View(np.full((48, 64), 2, np.float32), np.eye(4), (50, 50, 31.5, 23.5))
    >>> aside = np.eye(4)
    >>> aside[0, 3] = 32 * 2 / 50  # half the width of what the first one sees
    >>> reprojection_overlap([wall], [View(wall.depth, aside, wall.intrinsics)]).toarray().round(3).tolist()
    [[0.333]]
    """
    settings = _Settings(nearest, reach, tolerance, relative_tolerance, step=step, block=block)
    _check_settings(nearest, reach, overlap=overlap)
    if overlap == "fraction":
        return _fractions(queries, database, settings, sides=("queries", "database"))
    if overlap == "database-fraction":
        return _fractions(database, queries, settings, sides=("database", "queries")).T.tocsr()
    one_set = queries is database
    forward = _fractions(queries, database, settings, sides=("queries", "database"))
    backward = forward if one_set else _fractions(database, queries, settings, sides=("database", "queries"))
    return _iou(forward, backward.T.tocsr())


@dataclass(frozen=True)
class _Settings:
    """Those of `reprojection_overlap`, checked."""

    nearest: float
    reach: float
    tolerance: float
    relative_tolerance: float
    step: int
    block: int

    def __post_init__(self) -> None:
        _check_settings(self.nearest, self.reach, block=self.block, tolerance=self.tolerance)
        if not 0 <= self.relative_tolerance < np.inf:
            raise InvalidInputError(f"relative_tolerance must be at least 0; got {self.relative_tolerance}.")


@dataclass(frozen=True, eq=False)
class _Cloud:
    """The sampled surfaces of n views, one behind the other.

    Points are relative to their own camera and turned to world axes, so that float32 suffices wherever the world's origin
    lies. Weights are whole numbers: their float64 sums are exact in any order, so a view seen whole has the share 1.
    """

    points: NDArray[np.float32]  # (3, total)
    weights: NDArray[np.float32]  # (total,)
    starts: _Rows  # (n + 1,)
    cameras: NDArray[np.float64]  # (n, 3)
    middles: NDArray[np.float64]  # (n, 3), of the bounding spheres, in the world
    radii: NDArray[np.float64]  # (n,)

    @property
    def sizes(self) -> _Rows:
        return self.starts[1:] - self.starts[:-1]


def _cloud(views: Sequence[View], settings: _Settings, *, side: str) -> _Cloud:
    points, weights, cameras, spheres = [], [], [], []
    for _, view, seen, squares in _sampled(views, side, nearest=settings.nearest, reach=settings.reach, step=settings.step):
        turned = (seen @ view.pose[:3, :3].T).T
        middle = (turned.min(axis=1) + turned.max(axis=1)) / 2
        spheres.append([*middle, np.linalg.norm(turned.T - middle, axis=1).max()])
        cameras.append(view.pose[:3, 3])
        points.append(turned.astype(np.float32))
        weights.append(np.ceil(squares / settings.reach**2 * _WEIGHT_LEVELS).astype(np.float32))
    starts = np.cumsum([0, *(len(one) for one in weights)])
    centres, sphere = np.array(cameras), np.array(spheres)
    return _Cloud(np.concatenate(points, axis=1), np.concatenate(weights), starts, centres, centres + sphere[:, :3], sphere[:, 3])


def _fractions(sources: Sequence[View], targets: Sequence[View], settings: _Settings, *, sides: tuple[str, str]) -> _Matrix:
    """The share fa of every source in every target: the sources' samples are held, one target's depth map at a time looked up."""
    shape = (len(sources), len(targets))
    if not all(shape):
        return sparse.csr_array(shape, dtype=np.float64)
    cloud = _cloud(sources, settings, side=sides[0])
    totals = np.add.reduceat(cloud.weights, cloud.starts[:-1], dtype=np.float64)
    tree = cKDTree(cloud.middles)
    found: list[tuple[_Rows, _Rows, NDArray[np.float64]]] = []
    for column, (_, view, depth) in enumerate(_in_range(targets, sides[1], nearest=settings.nearest, reach=settings.reach)):
        far = float(depth.max()) * (1 + settings.relative_tolerance) + settings.tolerance
        for rows in _blocks(_candidates(cloud, tree, view, far), cloud.sizes, settings.block):
            share = _agreeing(cloud, rows, view, depth=depth, settings=settings) / totals[rows]
            found.append((rows, np.full_like(rows, column), share))
    if not found:
        return sparse.csr_array(shape, dtype=np.float64)
    row, column_of, shares = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return _csr(row, column_of, shares, shape=shape)


def _candidates(cloud: _Cloud, tree: cKDTree, view: View, far: float) -> _Rows:
    """Rows of the cloud whose bounding sphere meets the view's pyramid, cut off at the depth `far`; none that matters is left out."""
    fx, fy, cx, cy = view.intrinsics
    height, width = view.depth.shape
    left, right, top, bottom = cx + 0.5, width - 0.5 - cx, cy + 0.5, height - 0.5 - cy
    slack = 1e-3  # metres, far above the rounding of float32
    corners = far * np.array([[u / fx, v / fy, 1] for u in (-left, right) for v in (-top, bottom)])
    ray = np.linalg.norm(corners @ view.pose[:3, :3].T, axis=1).max() + slack
    close = np.array(tree.query_ball_point(view.pose[:3, 3], ray + cloud.radii.max(), return_sorted=True), dtype=np.intp)
    # Inward normals of the pyramid's sides, of the plane through the camera and of the far plane.
    normals = np.array([[fx, 0, left], [-fx, 0, right], [0, fy, top], [0, -fy, bottom], [0, 0, 1], [0, 0, -1]])
    normals = normals @ invert(view.pose)[:3, :3]
    lengths = np.linalg.norm(normals, axis=1)
    inside = ((cloud.middles[close] - view.pose[:3, 3]) @ normals.T + np.array([0, 0, 0, 0, 0, far])) / lengths
    met: NDArray[np.bool_] = (inside >= -(cloud.radii[close, None] + slack)).all(axis=1)
    return close[met]


def _blocks(rows: _Rows, sizes: _Rows, block: int) -> list[_Rows]:
    """Cut rows into runs of about `block` samples, at least one row each."""
    if not rows.size:
        return []
    filled = np.cumsum(sizes[rows]) // block
    return np.split(rows, np.flatnonzero(np.diff(filled)) + 1)


def _agreeing(cloud: _Cloud, rows: _Rows, view: View, *, depth: NDArray[np.float32], settings: _Settings) -> NDArray[np.float64]:
    """Summed weight, for each of the cloud's rows, of the samples that the view sees too."""
    spans = [slice(cloud.starts[row], cloud.starts[row + 1]) for row in rows]
    owner = np.repeat(np.arange(len(rows)), cloud.sizes[rows])
    weights = np.concatenate([cloud.weights[span] for span in spans])
    turn = invert(view.pose)[:3, :3]
    shift = ((cloud.cameras[rows] - view.pose[:3, 3]) @ turn.T).astype(np.float32)
    points = turn.astype(np.float32) @ np.concatenate([cloud.points[:, span] for span in spans], axis=1)
    points += np.repeat(shift.T, cloud.sizes[rows], axis=1)
    ahead = points[2] > _IN_FRONT
    # Points behind are moved before the camera rather than taken out, and masked: copying the rest costs more.
    np.maximum(points[2], _IN_FRONT, out=points[2])
    u, v = project(points.T, view.intrinsics)
    u += 0.5
    v += 0.5
    height, width = depth.shape
    # take() with row numbers is several times faster than a boolean mask.
    kept = np.flatnonzero(ahead & (u >= 0) & (u < width) & (v >= 0) & (v < height))
    seen = depth.ravel().take(v.take(kept).astype(np.int32) * width + u.take(kept).astype(np.int32))
    far_apart = np.abs(points[2].take(kept) - seen) >= settings.tolerance + settings.relative_tolerance * seen
    agree = kept[(seen > 0) & ~far_apart]
    return np.bincount(owner[agree], weights[agree], minlength=len(rows)).astype(np.float64, copy=False)


def _iou(forward: _Matrix, backward: _Matrix) -> _Matrix:
    """1 / (1/fa + 1/fb - 1), where both are above 0."""
    # Multiplying by the other's pattern keeps the entries that both have, in the same order.
    fa = forward.multiply(backward.sign()).tocoo()
    fb = backward.multiply(forward.sign()).tocoo()
    return _csr(fa.row, fa.col, 1 / (1 / fa.data + 1 / fb.data - 1), shape=forward.shape)


def _csr(row: NDArray[Any], column: NDArray[Any], values: NDArray[np.float64], *, shape: tuple[int, int]) -> _Matrix:
    kept = values > 0
    made: _Matrix = sparse.coo_array((values[kept], (row[kept], column[kept])), shape=shape).tocsr()
    made.sort_indices()
    return made


def _in_range(views: Sequence[View], side: str, *, nearest: float, reach: float) -> Iterator[tuple[str, View, NDArray[np.float32]]]:
    """Each view's name, itself, and its depth map with 0 wherever the depth is out of range."""
    for row in range(len(views)):
        view, name = views[row], f"{side}[{row}]"
        depth = np.where((view.depth >= nearest) & (view.depth <= reach), view.depth, np.float32(0))
        if not depth.any():
            rule = f"Every view must have a pixel with a depth in [{nearest:g}, {reach:g}] m"
            raise InvalidInputError(f"{rule}; {name} has none. Leave it out, or widen the range.")
        yield name, view, depth


def _sampled(views: Sequence[View], side: str, *, nearest: float, reach: float, step: int) -> Iterator[tuple[str, View, _Points, _Points]]:
    """Each view's name, itself, every step-th of its pixels in range as points (n, 3) in camera axes, and their weights (n,)."""
    for name, view, depth in _in_range(views, side, nearest=nearest, reach=reach):
        points, weights = unproject(depth, view.intrinsics, step=step)
        if not len(points):
            raise InvalidInputError(f"Every view must have a sample with a known depth; {name} has none at step {step}. Lower the step.")
        yield name, view, points, weights


def _voxel_keys(points: NDArray[np.float64], origin: NDArray[np.float64], *, voxel: float, name: str) -> NDArray[np.int64]:
    """The distinct voxels of some world points, each as one integer: 21 bits an axis, from `origin` (in voxels)."""
    half = 2 ** (_VOXEL_BITS - 1)
    cells = np.floor(points / voxel) - origin + half
    if cells.min() < 0 or cells.max() >= 2 * half:
        raise InvalidInputError(
            f"All views must lie within {half * voxel:g} m of the first of the database; {name} does not. Are its units metres?"
        )
    x, y, z = cells.astype(np.int64).T
    return np.unique((x << 2 * _VOXEL_BITS) | (y << _VOXEL_BITS) | z)


def _check_settings(nearest: float, reach: float, *, overlap: str = "iou", **positive: float) -> None:
    if overlap not in ("iou", "fraction", "database-fraction"):
        raise InvalidInputError(f"overlap must be 'iou', 'fraction' or 'database-fraction'; got {overlap!r}.")
    if not 0 <= nearest < reach < np.inf:
        raise InvalidInputError(f"The range must have 0 <= nearest < reach, metres; got nearest {nearest} and reach {reach}.")
    for name, value in positive.items():
        if not 0 < value < np.inf:
            raise InvalidInputError(f"{name} must be above 0; got {value}.")
