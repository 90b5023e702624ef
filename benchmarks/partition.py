"""Ranks of training pairs: covis, streamed, against the plain dense way (`cdist` and a comparison a pair), time and peak memory.

    OMP_NUM_THREADS=2 python benchmarks/partition.py

Images of places: each has 20 positives, which are those of its place; a training scene has the same images on both sides, and an image
with itself is no pair. The descriptors are generated, unit vectors of a place plus noise, float32 in a memory map; "weak" ones have so
much noise that most positives stand far behind, which is the slow case, since then most images must be counted. The dense way holds the
whole matrix of distances in float64. Both are run where it fits, and must agree to the last rank; then covis alone at the full size,
where the matrix is what it would need. Memory is the most that no file holds, less what there was before. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from measuring import measured
from scipy import sparse
from scipy.spatial.distance import cdist

from covis.descriptors import Descriptors
from covis.labels import Labels
from covis.structure.ranks import ranks

PLACE = 21  # images: each has the other 20 as positives
NOISE = {"good": 1.0, "weak": 4.0}
"""Of a vector, in lengths of its place's centre."""


def generated(folder: Path, *, count: int, dim: int, noise: float) -> tuple[Labels, Descriptors]:
    """A training scene: which images share a place, and descriptors in a memory map."""
    random = np.random.default_rng(0)
    place = np.arange(count) // PLACE
    centres = random.standard_normal((place[-1] + 1, dim), dtype=np.float32)
    vectors = centres[place] + noise * random.standard_normal((count, dim), dtype=np.float32)
    names = tuple(f"{row}.jpg" for row in range(count))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    path = Descriptors(unit.astype(np.float32), names, model="generated").save(folder / f"{count}-{noise:g}")
    blocks = sparse.block_diag([np.ones((size, size)) for size in np.bincount(place)], format="csr")
    itself = sparse.csr_array(sparse.eye_array(count, format="csr", dtype=bool))
    return Labels(blocks, names, names, rule="generated", excluded=itself), Descriptors.load(path)


def dense(labels: Labels, described: Descriptors) -> np.ndarray:
    """All distances at once; of each positive, how many non-positive images are nearer."""
    assert labels.excluded is not None
    vectors = np.asarray(described.vectors, dtype=np.float64)
    far = cdist(vectors, vectors, "sqeuclidean")
    positives = labels.positives(0.5)
    query, database = positives.nonzero()
    apart = far[query, database]
    far[(positives + labels.excluded).nonzero()] = np.inf
    return np.array([1 + np.count_nonzero(far[q] < limit) for q, limit in zip(query, apart, strict=True)], dtype=np.int32)


def one(way: str, folder: Path, settings: tuple[int, int, float]) -> tuple[np.ndarray, float, float]:
    """The ranks, seconds and megabytes of one way."""
    count, dim, noise = settings
    labels, described = generated(folder, count=count, dim=dim, noise=noise)
    return measured(lambda: dense(labels, described) if way == "dense" else ranks(labels, described, described))


def alone(way: str, *settings: float) -> tuple[np.ndarray, float, float]:
    """The same in a process of its own, so that no way finds memory that another left."""
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(one, way, Path(folder), settings).result()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--count", type=int, default=20_000)
    arguments.add_argument("--dense", type=int, default=5_000, help="images, where both ways are run")
    arguments.add_argument("--dim", type=int, default=256)
    given = arguments.parse_args()
    for kind, noise in NOISE.items():
        plain, streamed = (alone(way, given.dense, given.dim, noise) for way in ("dense", "covis"))
        print(f"{kind} descriptors, {given.dense:,} images x {given.dim}: {len(plain[0]):,} pairs, mean rank {plain[0].mean():.1f}")
        for way, (_, seconds, megabytes) in (("dense", plain), ("covis", streamed)):
            print(f"  {way:<6} {seconds:7.1f} s {megabytes:8.0f} MB")
        print(f"  ratio  {plain[1] / streamed[1]:.1f} of time, {plain[2] / max(streamed[2], 1):.1f} of memory")
        if differing := int((plain[0] != streamed[0]).sum()):
            raise SystemExit(f"The two must agree to the last rank; {differing} differ.")
        found, seconds, megabytes = alone("covis", given.count, given.dim, noise)
        matrix = 8 * given.count**2 / 2**20
        print(f"  covis, {given.count:,} images: {len(found):,} pairs, {seconds:.1f} s, {megabytes:.0f} MB")
        print(f"  a dense matrix: {matrix:,.0f} MB, {matrix / max(megabytes, 1):.0f} times that")


if __name__ == "__main__":
    main()
