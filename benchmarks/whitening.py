"""Fitting PCA whitening: covis against the reference's way (`numpy.linalg.eig` of the whole matrix in memory), time and peak memory.

    OMP_NUM_THREADS=2 python benchmarks/whitening.py

Each of the two runs in a process of its own and reads the same memory-mapped float32 descriptors. Memory is the most
that no file holds, less what there was before. Both must give the same whitened vectors, up to signs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import measured

from covis.descriptors import Descriptors
from covis.whitening import fit_whitening

GOAL = 3.0
SHOWN = 50  # vectors that are compared


def generated(count: int, dim: int) -> Descriptors:
    """Unit vectors whose spectrum falls off, as those of networks do."""
    random = np.random.default_rng(0)
    turn = np.linalg.qr(random.normal(size=(dim, dim)))[0] * (1 + np.arange(dim)) ** -0.35
    vectors = np.concatenate([random.normal(size=(1000, dim)) @ turn.T for _ in range(count // 1000)]).astype(np.float32)
    return Descriptors(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), tuple(map(str, range(len(vectors)))), "generated")


def reference(descriptors: Descriptors, dim: int) -> np.ndarray:
    """The whitened first vectors, everything at once in float64 by `eig`."""
    samples = np.asarray(descriptors.vectors, dtype=np.float64).T
    mean = samples.mean(axis=1, keepdims=True)
    centred = samples - mean
    covariance = centred @ centred.T
    values, vectors = np.linalg.eig((covariance + covariance.T) / (2 * samples.shape[1]))
    order = values.real.argsort()[::-1][:dim]
    whitened = (vectors.real[:, order] / np.sqrt(values.real[order])).T @ centred[:, :SHOWN]
    return (whitened / (np.linalg.norm(whitened, axis=0) + 1e-6)).T


def streamed(descriptors: Descriptors, dim: int) -> np.ndarray:
    """The same through covis."""
    whitening = fit_whitening(descriptors, dim=dim)
    return whitening(Descriptors(np.asarray(descriptors.vectors[:SHOWN]), descriptors.names[:SHOWN], descriptors.model)).vectors


def one(way: str, folder: Path, dim: int) -> None:
    """Fit, in this process, and print seconds and megabytes."""
    descriptors = Descriptors.load(folder / "descriptors")
    busy = time.process_time()
    found, seconds, megabytes = measured(lambda: {"eig": reference, "covis": streamed}[way](descriptors, dim))
    busy = time.process_time() - busy
    np.save(folder / f"{way}.npy", found, allow_pickle=False)
    print(seconds, busy, megabytes)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--count", type=int, default=20_000)
    arguments.add_argument("--dim", type=int, default=2048)
    arguments.add_argument("--keep", type=int, default=1024)
    arguments.add_argument("--way", choices=("eig", "covis"), help=argparse.SUPPRESS)
    arguments.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.way:
        return one(given.way, given.folder, given.keep)
    with tempfile.TemporaryDirectory() as folder:
        generated(given.count, given.dim).save(Path(folder) / "descriptors")
        rows = {}
        for way in ("eig", "covis"):
            command = [sys.executable, __file__, "--way", way, "--folder", folder, "--keep", str(given.keep)]
            rows[way] = [float(value) for value in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()]
        vectors = [np.load(Path(folder) / f"{way}.npy", allow_pickle=False) for way in rows]
    signs = np.sign((vectors[0] * vectors[1]).sum(axis=0))
    apart = float(np.abs(vectors[0] - vectors[1] * signs).max())
    print(f"{given.count:,} x {given.dim}, {given.keep} dimensions kept")
    for way, (seconds, busy, megabytes) in rows.items():
        print(f"{way:<6} {seconds:7.1f} s by the clock {busy:7.1f} s of processors {megabytes:8.0f} MB")
    ratios = [rows["eig"][i] / max(rows["covis"][i], 1e-3) for i in range(3)]
    print(f"ratio  {ratios[0]:.1f} by the clock (goal {GOAL}), {ratios[1]:.1f} of processors, {ratios[2]:.1f} of memory")
    print(f"largest difference, up to signs: {apart:.1e}")
    if apart > 1e-5:
        raise SystemExit("The two must agree to 1e-5.")
    return None


if __name__ == "__main__":
    main()
