"""Extraction of many images: peak memory against their number, and images a second of everything but the network.

    OMP_NUM_THREADS=1 python benchmarks/extraction_memory.py

Images are tiny, names are long (hard links to a few files, in a temporary folder), and the describer is the mean colour repeated, so
that what is measured is the plumbing: paths, names, decoding, the file. Each count runs in a process of its own. Peak memory is
the largest resident set; what grows with the number of images is the slope between two counts. Vectors lie in the page cache, which
the system takes back when it needs it: pages of a file that is written and not mapped do not count as resident.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measuring import status
from PIL import Image

from covis.extraction import extract
from covis.images import Images

FILES = 16
FOLDER = 1000  # images a folder


class Mean:
    """The mean colour, repeated."""

    digest, engine, height, width, resize = "mean", "none", 16, 16, "pil"

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def describe_pixels(self, pixels: torch.Tensor) -> np.ndarray:
        """(B, 3, height, width) to (B, dim)."""
        return np.repeat(pixels.float().mean(dim=(1, 2, 3)).numpy()[:, None] / 255, self.dim, axis=1)


def generated(root: Path, count: int) -> None:
    """So many names, of a few files."""
    random = np.random.default_rng(0)
    for number in range(FILES):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(root / f"{number}.jpg")
    for number in range(count):
        file = root / name(number)
        if number % FOLDER == 0:
            file.parent.mkdir()
        os.link(root / f"{number % FILES}.jpg", file)


def name(number: int) -> str:
    """42 characters, as photographs of a survey are called."""
    return f"survey-{number // FOLDER:06d}/photograph-{number:013d}.jpg"


def one(root: Path, count: int, dim: int, batch: int) -> None:
    """Describe, in this process, and print the megabytes before, at most, and the seconds."""
    extract(Mean(dim), Images(root, [f"{number}.jpg" for number in range(FILES)]), batch=batch)  # what is loaded once is loaded now
    images = Images(root, [name(number) for number in range(count)])
    before, begun = status("VmHWM"), time.perf_counter()
    extract(Mean(dim), images, out=root / f"out-{count}", batch=batch)
    seconds = time.perf_counter() - begun
    print(before, status("VmHWM"), seconds)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    arguments.add_argument("--dim", type=int, default=512)
    arguments.add_argument("--batch", type=int, default=32)
    arguments.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.folder:
        return one(given.folder, given.counts[0], given.dim, given.batch)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        generated(Path(folder), max(given.counts))
        for count in given.counts:
            command = [sys.executable, __file__, "--folder", folder, "--counts", str(count)]
            command += ["--dim", str(given.dim), "--batch", str(given.batch)]
            rows[count] = [float(value) for value in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()]
    print(f"{'images':>9} {'vectors':>10} {'before':>10} {'peak':>10} {'images/s':>9}")
    for count, (before, peak, seconds) in rows.items():
        print(f"{count:>9,} {count * given.dim * 4 / 2**20:>7.1f} MB {before:>7.1f} MB {peak:>7.1f} MB {count / seconds:>9,.0f}")
    least, most = min(rows), max(rows)
    if most > least:
        grown = (rows[most][1] - rows[least][1]) * 2**20 / (most - least)
        print(f"growth of the peak: {grown:.0f} bytes an image; its name in memory takes {sys.getsizeof(name(0)) + 8}")
    return None


if __name__ == "__main__":
    main()
