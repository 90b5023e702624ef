"""How many altered copies the hashes of covis audit find, and how many different photographs they take for copies.

python benchmarks/copies.py FOLDER...
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from covis.audits import Fingerprints, fingerprints
from covis.audits.hashes import popcount
from covis.datasets import PICTURES
from covis.images import Images
from covis.rasters import read_picture


def cropped(picture: Image.Image, share: float) -> Image.Image:
    wide, high = (round(share * length) for length in picture.size)
    return picture.crop((wide, high, picture.width - wide, picture.height - high))


CHANGES: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "JPEG quality 50": (lambda p: p, 50),
    "JPEG quality 20": (lambda p: p, 20),
    "half the size": (lambda p: p.resize((p.width // 2, p.height // 2), Image.Resampling.BICUBIC), 90),
    "squeezed to 224 x 224": (lambda p: p.resize((224, 224), Image.Resampling.BICUBIC), 90),
    "brightness x 1.3": (lambda p: ImageEnhance.Brightness(p).enhance(1.3), 90),
    "brightness x 0.7": (lambda p: ImageEnhance.Brightness(p).enhance(0.7), 90),
    "contrast x 1.3": (lambda p: ImageEnhance.Contrast(p).enhance(1.3), 90),
    "1 % cut off each edge": (lambda p: cropped(p, 0.01), 90),
    "2 % cut off each edge": (lambda p: cropped(p, 0.02), 90),
    "5 % cut off each edge": (lambda p: cropped(p, 0.05), 90),
    "mirrored": (ImageOps.mirror, 90),
}
"""What is done to a photograph, and the quality of the JPEG that it becomes."""


def share_found(images: Images, prints: Fingerprints, change: str, *, hamming: int, fine: int) -> float:
    """Of the changed copies those that are found."""
    make, quality = CHANGES[change]
    mirror = "mirror_" if change == "mirrored" else ""
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{row:06d}.jpg" for row in range(len(images))]
        for row, name in enumerate(names):
            make(read_picture(images.path(row))).save(f"{folder}/{name}", quality=quality)
        copies = fingerprints(Images(folder, names)).records
    coarse = popcount(prints.records["coarse"] ^ copies[mirror + "coarse"])
    long = popcount(prints.records["fine"] ^ copies[mirror + "fine"]).sum(axis=1, dtype=np.int64)
    return float(((coarse <= hamming) & (long <= fine)).mean())


def main() -> None:
    """Print both for each folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--hamming", type=int, default=10)
    parser.add_argument("--fine", type=int, default=32)
    given = parser.parse_args()
    for folder in given.folders:
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
        images = Images(folder, names)
        prints = fingerprints(images)
        a, b = np.triu_indices(len(images), 1)
        records = prints.records
        other = (records["pixels"][a] != records["pixels"][b]).any(axis=1)
        coarse = popcount(records["coarse"][a] ^ records["coarse"][b])
        long = popcount(records["fine"][a] ^ records["fine"][b]).sum(axis=1, dtype=np.int64)
        print(f"{folder}: {len(images)} photographs, {np.count_nonzero(other)} pairs of different pixels, taken for copies:")
        for hamming, fine in ((given.hamming, 256), (10, 16), (10, 24), (10, 32), (10, 40), (10, 64)):
            print(f"  up to {hamming} of 64 and {fine} of 256 bits: {np.count_nonzero(other & (coarse <= hamming) & (long <= fine))}")
        for change in CHANGES:
            print(f"  {change}: {100 * share_found(images, prints, change, hamming=given.hamming, fine=given.fine):.1f} % found")


if __name__ == "__main__":
    main()
