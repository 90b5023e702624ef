"""Surface labels of the red kitchen (250 x 250): covis against a plain loop over pairs, both forms, one thread each.

    OMP_NUM_THREADS=1 python benchmarks/surface_labels.py --data /path/to/7scenes/redkitchen

The loops are what one writes first: numpy inside a pair, Python over pairs. They are timed on a random sample of pairs, and
the time for all pairs is scaled from it; the same sample checks that both find the same numbers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from covis.rasters import read_depth
from covis.surfaces import View, reprojection_overlap, voxel_overlap

INTRINSICS = (585.0, 585.0, 320.0, 240.0)
NEAREST, REACH = 0.1, 6.0
VOXEL, VOXEL_STEP = 0.1, 2
TOLERANCE, RELATIVE_TOLERANCE = 0.05, 0.01


def read_views(root: Path) -> list[View]:
    files = sorted(root.glob("seq-*/*.pose.txt"))
    if not files:
        raise SystemExit(f"--data must be the folder that holds seq-01 and seq-02; {root} holds no seq-*/*.pose.txt.")
    return [View(read_depth(file.with_name(file.name.replace("pose.txt", "depth.png"))), np.loadtxt(file), INTRINSICS) for file in files]


def camera_points(view: View, step: int) -> np.ndarray:
    """(n, 3) camera points of every step-th pixel in range."""
    fx, fy, cx, cy = view.intrinsics
    v, u = np.mgrid[step // 2 : view.depth.shape[0] : step, step // 2 : view.depth.shape[1] : step]
    z = view.depth[v, u].astype(np.float64)
    kept = (z >= NEAREST) & (z <= REACH)
    v, u, z = v[kept], u[kept], z[kept]
    return np.stack([(u - cx) * z / fx, (v - cy) * z / fy, z], axis=1)


def loop_voxels(views: list[View]) -> Callable[[int, int], float]:
    """Sets made once, then one intersection a pair."""
    sets = []
    for view in views:
        world = camera_points(view, VOXEL_STEP) @ view.pose[:3, :3].T + view.pose[:3, 3]
        sets.append(set(map(tuple, np.unique(np.floor(world / VOXEL).astype(np.int64), axis=0).tolist())))

    def pair(i: int, j: int) -> float:
        shared = len(sets[i] & sets[j])
        return shared / (len(sets[i]) + len(sets[j]) - shared)

    return pair


def loop_reprojection(views: list[View], step: int) -> Callable[[int, int], float]:
    """Points made once, then two projections a pair, in float64."""
    points = [camera_points(view, step) for view in views]

    def fraction(i: int, j: int) -> float:
        a, b = views[i], views[j]
        motion = np.linalg.inv(b.pose) @ a.pose
        x, y, z = (points[i] @ motion[:3, :3].T + motion[:3, 3]).T
        weights = points[i][:, 2] ** 2
        front = z > 0
        x, y, z = x[front], y[front], z[front]
        fx, fy, cx, cy = b.intrinsics
        u, v = np.floor(fx * x / z + cx + 0.5).astype(int), np.floor(fy * y / z + cy + 0.5).astype(int)
        inside = (u >= 0) & (u < b.depth.shape[1]) & (v >= 0) & (v < b.depth.shape[0])
        seen = b.depth[v[inside], u[inside]]
        agree = (seen >= NEAREST) & (seen <= REACH) & (np.abs(z[inside] - seen) < TOLERANCE + RELATIVE_TOLERANCE * seen)
        return float(weights[front][inside][agree].sum() / weights.sum())

    def pair(i: int, j: int) -> float:
        fa, fb = fraction(i, j), fraction(j, i)
        return 1 / (1 / fa + 1 / fb - 1) if fa > 0 and fb > 0 else 0.0

    return pair


def compare(name: str, views: list[View], *, ours: Callable[[], np.ndarray], loop: Callable, sample: int, tolerance: float) -> None:
    """Print both times for all unordered pairs; fail if the numbers differ by more than the tolerance."""
    start = time.perf_counter()
    found = ours()
    our_time = time.perf_counter() - start

    start = time.perf_counter()
    pair = loop(views)
    setup_time = time.perf_counter() - start
    rows, columns = np.triu_indices(len(views))
    chosen = np.random.default_rng(0).choice(len(rows), min(sample, len(rows)), replace=False)
    start = time.perf_counter()
    expected = np.array([pair(i, j) for i, j in zip(rows[chosen], columns[chosen], strict=True)])
    loop_time = setup_time + (time.perf_counter() - start) * len(rows) / len(chosen)

    difference = float(np.abs(found[rows[chosen], columns[chosen]] - expected).max())
    scaled = "all pairs run" if len(chosen) == len(rows) else f"scaled from {len(chosen)} random pairs"
    print(f"{name}: {len(rows)} unordered pairs of {len(views)} views")
    print(f"  covis {our_time:8.2f} s  {len(rows) / our_time:10,.0f} pairs/s")
    print(f"  loop  {loop_time:8.2f} s  {len(rows) / loop_time:10,.0f} pairs/s  ({scaled})")
    print(f"  ratio {loop_time / our_time:8.1f}    largest difference {difference:.1e} (allowed {tolerance:.0e})")
    if difference > tolerance:
        raise SystemExit(f"{name}: the two must agree within {tolerance}; they differ by {difference}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with seq-01 and seq-02")
    parser.add_argument("--sample", type=int, default=3000, help="pairs that the loops are timed on")
    arguments = parser.parse_args()
    views = read_views(arguments.data)

    def voxels() -> np.ndarray:
        return voxel_overlap(views, views, voxel=VOXEL, nearest=NEAREST, reach=REACH, step=VOXEL_STEP).toarray()

    compare("voxels", views, ours=voxels, loop=loop_voxels, sample=arguments.sample, tolerance=1e-12)

    settings = {"nearest": NEAREST, "reach": REACH, "tolerance": TOLERANCE, "relative_tolerance": RELATIVE_TOLERANCE}
    small = [View(view.depth[::5, ::5], view.pose, view.intrinsics / 5) for view in views]
    for title, some, step in (("640x480, step 8", views, 8), ("128x96, step 4", small, 4)):
        # A point that float32 rounds to the neighbouring pixel, at the edge of an object, changes a pair by up to 1 in 1,000.
        compare(
            f"reprojection, {title}",
            some,
            ours=lambda some=some, step=step: reprojection_overlap(some, some, step=step, **settings).toarray(),
            loop=lambda some, step=step: loop_reprojection(some, step),
            sample=arguments.sample,
            tolerance=2e-3,
        )


if __name__ == "__main__":
    main()
