"""The town: pictures a second and core with all truths and files, with one and four samples a pixel; memory; the hash of `tiny`.

    OMP_NUM_THREADS=1 python benchmarks/town.py

Each figure is taken in a process of its own, by processor time, on the preset `small` (320 x 240): building the towns apart, as the
difference between photographing some frames and three times as many.
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

from covis.town import SURVEYS, fingerprint, write_town


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=30, help="pictures of each side of a city, at least")
    arguments = parser.parse_args()
    print(f"{'what':<34} {'ms a picture':>13} {'a second and core':>18} {'peak MB':>8}")
    for samples in (1, 2):
        few, more = (alone(photographed, arguments.frames * times, samples) for times in (1, 3))
        one = (more[0] - few[0]) / (more[1] - few[1])
        name = f"small, 320 x 240, {samples**2} sample{'s' * (samples > 1)} a pixel"
        print(f"{name:<34} {1000 * one:>13.0f} {1 / one:>18.1f} {more[2]:>8.0f}")
    taken, count, hashed = alone(tiny)
    print(f"tiny, MSLS layout, 1 process: {count} pictures in {taken:.1f} s by the clock; hash with seed 7: {hashed}")


def photographed(frames: int, samples: int) -> tuple[float, int, float]:
    """(processor seconds, pictures, peak megabytes) of one validation city, by day and in the morning."""
    survey = SURVEYS["small"]
    sides = {side: tuple(replace(outing, frames=frames) for outing in getattr(survey, side)[:1]) for side in ("database", "queries")}
    survey = replace(survey, train=0, val=1, test=0, samples=samples, **sides)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        write_town(Path(folder) / "town", preset=survey)
        taken = time.process_time() - start
    return taken, 2 * frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


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
