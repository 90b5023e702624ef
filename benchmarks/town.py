"""The town: pictures a second with all truths and files, with one and four samples a pixel; memory; the hash of `tiny`.

    OMP_NUM_THREADS=1 python benchmarks/town.py

Each figure is taken in a process of its own. Two processes photograph towns of the preset `small` (320 x 240) at the same time where
there are two cores, as `covis world --workers 2` does.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from covis.neighbours import cores
from covis.town import SURVEYS, fingerprint, write_town


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=60, help="pictures of each side of a city")
    arguments = parser.parse_args()
    workers = min(2, cores())
    print(f"{'what':<44} {'pictures':>8} {'wall s':>7} {'a second':>9} {'peak MB':>8}")
    for samples in (1, 2):
        frames = arguments.frames if samples == 1 else arguments.frames // 4
        taken, count, peak = alone(photographed, frames, samples, workers)
        name = f"small, 320 x 240, {samples**2} sample{'s' * (samples > 1)}, {workers} processes"
        print(f"{name:<44} {count:>8} {taken:>7.1f} {count / taken:>9.1f} {peak:>8.0f}")
    taken, count, hashed = alone(tiny)
    print(f"{'tiny, MSLS layout, 1 process':<44} {count:>8} {taken:>7.1f} {count / taken:>9.1f}")
    print(f"hash of tiny, seed 7: {hashed}")


def photographed(frames: int, samples: int, workers: int) -> tuple[float, int, float]:
    """(wall seconds, pictures, peak megabytes of a process) of two validation cities."""
    survey = SURVEYS["small"]
    sides = {side: tuple(replace(outing, frames=frames) for outing in getattr(survey, side)[:1]) for side in ("database", "queries")}
    survey = replace(survey, train=0, test=0, samples=samples, **sides)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_town(Path(folder) / "town", preset=survey, workers=workers)
        taken = time.perf_counter() - start
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return taken, survey.val * 2 * frames, peak / 1024


def tiny() -> tuple[float, int, str]:
    """(wall seconds, pictures, hash) of the preset `tiny`."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_town(Path(folder) / "town", preset="tiny", seed=7)
        return time.perf_counter() - start, len(list((Path(folder) / "town").rglob("*.jpg"))), fingerprint(Path(folder) / "town")


def alone(work, *arguments):
    """What a function gives in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


if __name__ == "__main__":
    main()
