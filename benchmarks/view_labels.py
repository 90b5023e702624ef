"""Labels by view: exact sectors against shapely's polygons on real street poses, and a city whose dense matrix no memory would hold.

    OMP_NUM_THREADS=1 python benchmarks/view_labels.py --data /path/to/pitts30k_test.npz

1. A generated city in a process of its own: time, pairs, peak memory, and the size of a dense float64 matrix.
2. Pitts30k's test poses (utmQ, utmDb; beside the file lie the name lists, whose yaw index 1 to 12 stands for a heading of 0 to 330
   degrees). covis searches and grades all candidate pairs; shapely intersects sectors with 64 points on the arc, made once an
   image and not timed, for a random sample of the very same candidates. One core each by processor time, then all cores by the clock.
3. The largest difference between the two on that sample.

A candidate is a pair that must be looked at. By position alone those are the pairs within twice the reach; the k-d tree over the least
circles around the sectors hands on fewer. Rates are given for both counts, as the first is what a search by position would have to grade.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from scipy.spatial import cKDTree

from covis.neighbours import Neighbours, cores
from covis.sectors import Overlaps, Sectors, overlap, overlaps

FOV, REACH, POINTS = 90.0, 50.0, 64
BLOCK_OF_HOUSES = 100.0  # metres between two streets


def read_pittsburgh(path: Path) -> tuple[Sectors, Sectors]:
    """Queries and database."""
    lists = [path.with_name(f"pitts30k_imageNames_{side}.txt") for side in ("query", "index")]
    if not path.is_file() or not all(file.is_file() for file in lists):
        raise SystemExit(f"--data must be pitts30k_test.npz with {lists[0].name} and {lists[1].name} beside it; got {path}.")
    sides = []
    with np.load(path) as table:
        for key, file in zip(("utmQ", "utmDb"), lists, strict=True):
            yaw = np.array([int(index) for index in re.findall(r"_yaw(\d+)\.jpg", file.read_text())])
            sides.append(Sectors.of(table[key], heading=(yaw - 1) * 30.0, fov=FOV, reach=REACH))
    return sides[0], sides[1]


def polygons(sectors: Sectors) -> np.ndarray:
    """Sectors as polygons, POINTS of them on the arc."""
    angle = np.deg2rad(sectors.heading[:, None] + FOV * np.linspace(-0.5, 0.5, POINTS))
    arc = sectors.xy[:, None] + REACH * np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    return shapely.polygons(np.concatenate([sectors.xy[:, None], arc], axis=1))


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """(what it gives, seconds by the clock, seconds of processor time of all threads)."""
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - clock, time.process_time() - processor


def sampled(queries: Sectors, database: Sectors, sample: int) -> tuple[np.ndarray, np.ndarray]:
    """Random candidates of the k-d tree: random queries, all of whose candidates are drawn from."""
    (centres, radii), (others, other_radii) = queries.circles(), database.circles()
    near = Neighbours(centres, others, radii + other_radii.max())
    random = np.random.default_rng(0)
    rows, columns = near.pairs(np.sort(random.choice(len(queries), min(2000, len(queries)), replace=False)))
    chosen = random.choice(len(rows), min(sample, len(rows)), replace=False)
    return rows[chosen], columns[chosen]


def by_polygons(a: np.ndarray, b: np.ndarray, *, workers: int) -> np.ndarray:
    """Shared areas pair by pair, shapely's own loop in C; it lets other threads run."""
    if workers == 1:
        return shapely.area(shapely.intersection(a, b))
    with ThreadPoolExecutor(workers) as pool:
        parts = pool.map(
            lambda part: shapely.area(shapely.intersection(*part)), zip(np.array_split(a, 64), np.array_split(b, 64), strict=True)
        )
        return np.concatenate(list(parts))


def pittsburgh(path: Path, sample: int) -> None:
    queries, database = read_pittsburgh(path)
    origin = database.xy.mean(axis=0)
    tree = cKDTree(database.xy - origin)
    by_position = int(tree.query_ball_point(queries.xy - origin, 2 * REACH, return_length=True).sum())
    rows, columns = sampled(queries, database, sample)
    mine, theirs = polygons(queries)[rows], polygons(database)[columns]
    overlaps(queries.take(slice(100)), database)  # what is imported and allocated once

    print(f"\nPittsburgh: {len(queries):,} x {len(database):,} sectors of {FOV:g} degrees and {REACH:g} m, {cores()} cores")
    rates = {}
    for workers in sorted({1, cores()}):
        found, clock, processor = timed(lambda workers=workers: overlaps(queries, database, workers=workers))
        shared, their_clock, their_processor = timed(lambda workers=workers: by_polygons(mine, theirs, workers=workers))
        seconds, their_seconds = (processor, their_processor) if workers == 1 else (clock, their_clock)
        rates[workers] = found.candidates / seconds, len(rows) / their_seconds
        if workers == 1:
            print(
                f"  {by_position:,} pairs by position alone, {found.candidates:,} candidates of the k-d tree, {len(found.rows):,} overlap"
            )
        print("  one core, processor time" if workers == 1 else f"  {workers} cores, by the clock (whatever else runs on them)")
        print(
            f"    covis   {seconds:8.2f} s  {found.candidates / seconds:11,.0f} candidates/s  {by_position / seconds:11,.0f} by position/s"
        )
        print(f"    shapely {their_seconds:8.2f} s  {len(rows) / their_seconds:11,.0f} candidates/s  ({len(rows):,} random ones of them)")
        print(f"    ratio   {rates[workers][0] / rates[workers][1]:8.1f}")
    compare(queries.take(rows), database.take(columns), shared)


def compare(a: Sectors, b: Sectors, shared: np.ndarray) -> None:
    """Both similarities on the sample, and the time of the exact form alone, without any search."""
    iou, _, seconds = timed(lambda: overlap(a, b))
    area = FOV / 360 * np.pi * REACH**2
    polygon = (POINTS - 1) / 2 * REACH**2 * np.sin(np.deg2rad(FOV) / (POINTS - 1))
    difference = np.abs(iou - shared / (2 * polygon - shared)).max()
    fraction = np.abs(overlap(a, b, measure="fraction") - shared / area).max()
    print(f"  the sample again, pair by pair without a search, one core: {len(a) / seconds:,.0f} pairs/s")
    print(
        f"  largest difference from shapely on the sample: IoU {difference:.1e}, fraction {fraction:.1e} (its polygons', {POINTS} points)"
    )
    if difference > 1e-3:
        raise SystemExit("The two must agree within the polygons' error of about 1e-4.")


def city(n: int, *, side: float, seed: int) -> Sectors:
    """Images along the streets of a grid: anywhere on them, 3 m to either side, along the street in either sense, 5 degrees off."""
    random = np.random.default_rng(seed)
    street = BLOCK_OF_HOUSES * random.integers(0, round(side / BLOCK_OF_HOUSES) + 1, n) + random.normal(0, 3, n)
    along, north = random.uniform(0, side, n), random.random(n) < 0.5
    xy = np.where(north[:, None], np.column_stack([street, along]), np.column_stack([along, street]))
    heading = np.where(north, 0, 90) + random.choice([0, 180], n) + random.normal(0, 5, n)
    return Sectors.of(xy + np.array([500_000.0, 5_000_000.0]), heading=heading, fov=FOV, reach=REACH)


def megabytes() -> float:
    """The most memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def grade_city(queries: int, database: int, side: float) -> tuple[Overlaps, float, float, float, float]:
    """(pairs, clock, processor time, megabytes before, megabytes at the peak)."""
    asked, searched = city(queries, side=side, seed=1), city(database, side=side, seed=2)
    before = megabytes()
    found, clock, processor = timed(lambda: overlaps(asked, searched))
    return found, clock, processor, before, megabytes()


def generated(queries: int, database: int, side: float) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found, clock, processor, before, peak = pool.submit(grade_city, queries, database, side).result()
    streets = 2 * (round(side / BLOCK_OF_HOUSES) + 1) * side
    result, dense = (found.rows.nbytes + found.columns.nbytes + found.values.nbytes) / 1e6, queries * database * 8 / 1e6
    size = f"{side / 1000:g} x {side / 1000:g} km, a street every {BLOCK_OF_HOUSES:g} m"
    print(f"Generated city: {queries:,} x {database:,} sectors of {FOV:g} degrees and {REACH:g} m on {size}, {cores()} cores")
    print(f"  {streets / 1000:,.0f} km of streets, a database image every {streets / database:.1f} m")
    print(
        f"  {found.candidates:,} candidates of the k-d tree, {len(found.rows):,} overlap, {(found.values >= 0.5).sum():,} with IoU >= 0.5"
    )
    print(f"  {clock:.1f} s by the clock, {processor:.1f} s of processor time, {found.candidates / processor:,.0f} candidates/s and core")
    print(f"  memory: {before:,.0f} MB before, {peak:,.0f} MB at the peak ({result:,.0f} MB are the result)")
    print(f"  a dense matrix: {dense:,.0f} MB, {dense / peak:,.0f} times the peak")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="pitts30k_test.npz; without it the city alone is graded")
    parser.add_argument("--sample", type=int, default=100_000, help="candidates that shapely is timed on")
    parser.add_argument("--queries", type=int, default=50_000, help="of the city; 0 leaves the city out")
    parser.add_argument("--database", type=int, default=500_000, help="of the city")
    parser.add_argument("--side", type=float, default=10_000.0, help="of the city, metres")
    arguments = parser.parse_args()
    if arguments.queries:  # first: on Linux a new process starts with its parent's peak
        generated(arguments.queries, arguments.database, arguments.side)
    if arguments.data is not None:
        pittsburgh(arguments.data, arguments.sample)


if __name__ == "__main__":
    main()
