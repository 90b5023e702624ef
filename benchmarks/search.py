"""Search: exact against the processor's peak and against plain products, approximate kinds against exact, filters, changes on disk.

    OMP_NUM_THREADS=2 python benchmarks/search.py --count 1000000 --dim 512

The descriptors are generated: places of 20 images, directions whose spread falls as (1 + j)^-0.35, noise of 0.7 of that around a
place's centre, 0.9 for queries, unit length. Centres of places are independent of one another, which is hard for graphs. They lie in
a memory map, written block by block. The peak is that of a 4096 x 4096 product of numpy on all threads, in the same run. Memory is
the largest anonymous memory (RssAnon) while a search runs, less that before: pages of the map are not counted. Run it on a quiet
machine, and do not read the recalls as those of a network.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import faiss
import numpy as np
import torch
from measuring import measured

from covis.descriptors import Descriptors
from covis.indexes import INDEXES, index, load_index
from covis.indexes.measures import K

GOAL = 0.75
PLACE = 20  # images
KINDS = ("prefix", "pq", "ivf-pq", "binary")


def generated(folder: Path, *, count: int, dim: int, asked: int) -> tuple[Descriptors, Descriptors]:
    """A database in a memory map, and queries of some of its places."""
    random = np.random.default_rng(0)
    spectrum = ((1 + np.arange(dim)) ** -0.35).astype(np.float32)
    places = np.sort(np.random.default_rng(1).choice(count // PLACE, asked, replace=count // PLACE < asked))
    centres, names = [], tuple(f"d{row}" for row in range(count // PLACE * PLACE))
    vectors = np.lib.format.open_memmap(folder / "database.npy", mode="w+", dtype=np.float32, shape=(len(names), dim))
    for start in range(0, count // PLACE, 1000):
        size = min(1000, count // PLACE - start)
        middle = random.standard_normal((size, dim), dtype=np.float32) * spectrum
        centres.append(middle[places[(places >= start) & (places < start + size)] - start])
        noise = 0.7 * spectrum * random.standard_normal((size * PLACE, dim), dtype=np.float32)
        vectors[start * PLACE : (start + size) * PLACE] = unit(np.repeat(middle, PLACE, axis=0) + noise)
    vectors.flush()
    queries = unit(np.concatenate(centres) + 0.9 * spectrum * random.standard_normal((asked, dim), dtype=np.float32))
    database = np.load(folder / "database.npy", mmap_mode="r", allow_pickle=False)
    return Descriptors(database, names, "generated"), Descriptors(queries, tuple(f"q{row}" for row in range(asked)), "generated")


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def peak() -> float:
    """GFLOP/s of a product of numpy."""
    a = np.random.default_rng(0).standard_normal((4096, 4096), dtype=np.float32)
    return 2 * 4096**3 / measured(lambda: a @ a, repeat=4)[1] / 1e9


def by_numpy(database: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Rows of the K largest products, a block at a time, those below the K-th so far left out."""
    best, rows = np.full((len(queries), K), -np.inf, np.float32), np.zeros((len(queries), K), np.int64)
    for start in range(0, len(database), 8192):
        products = queries @ np.asarray(database[start : start + 8192]).T
        part = np.argpartition(-products, min(K, products.shape[1]) - 1, axis=1)[:, :K]
        values = np.concatenate([best, np.take_along_axis(products, part, axis=1)], axis=1)
        order = np.argsort(-values, axis=1)[:, :K]
        rows = np.take_along_axis(np.concatenate([rows, part + start], axis=1), order, axis=1)
        best = np.take_along_axis(values, order, axis=1)
    return rows


def by_torch(database: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The same through torch."""
    asked = torch.from_numpy(queries)
    best, rows = torch.full((len(queries), K), -torch.inf), torch.zeros((len(queries), K), dtype=torch.int64)
    for start in range(0, len(database), 8192):
        block = np.frombuffer(database[start : start + 8192].data, dtype=np.float32).reshape(-1, database.shape[1])
        values, part = torch.topk(asked @ torch.tensor(block).T, min(K, len(block)), dim=1)
        best, order = torch.topk(torch.cat([best, values], dim=1), K, dim=1)
        rows = torch.gather(torch.cat([rows, part + start], dim=1), 1, order)
    return rows.numpy()


def exact(database: Descriptors, queries: Descriptors) -> np.ndarray:
    made = index(database, kind="exact")
    most = peak()
    made.search(queries, k=K)  # the map is in memory from here on
    found, seconds, megabytes = measured(lambda: made.search(queries, k=K), repeat=2)
    work = 2 * len(database) * database.dim * len(queries) / 1e9
    print(f"exact, {len(queries)} queries, first {K}; peak of a product {most:.0f} GFLOP/s, {faiss.omp_get_max_threads()} threads")
    print(f"{'covis':<22}{len(queries) / seconds:9.1f} q/s {work / seconds:6.0f} GFLOP/s {work / seconds / most:5.0%} (goal {GOAL:.0%})"
          f" {megabytes:7.0f} MB beyond the map")  # fmt: skip
    vectors = np.asarray(database.vectors)
    for name, function in (("numpy matmul, top k", by_numpy), ("torch mm, topk", by_torch)):
        rows, seconds, megabytes = measured(lambda function=function: function(vectors, queries.vectors))
        same = (rows == found.rows).mean()
        print(f"{name:<22}{len(queries) / seconds:9.1f} q/s {work / seconds:6.0f} GFLOP/s {work / seconds / most:5.0%}"
              f" {megabytes:16.0f} MB beyond the map; {same:.2%} the same rows")  # fmt: skip
    for few in (1, 4, 16):
        part = Descriptors(queries.vectors[:few], queries.names[:few], queries.model, queries.history)
        made.search(part, k=K)
        seconds = measured(lambda part=part: made.search(part, k=K), repeat=5)[1]
        direct = measured(lambda part=part: faiss.knn(part.vectors, vectors, K), repeat=3)[1]
        print(f"{few:>3} at once            {few / seconds:9.1f} q/s, faiss.knn {few / direct:9.1f} q/s")
    return found.rows


def approximate(database: Descriptors, queries: Descriptors, truth: np.ndarray, *, kinds: list[str], folder: Path) -> None:
    print(f"\n{'kind':<8} {'build s':>8} {'MB memory':>10} {'MB disk':>8} {'q/s':>8} {'recall@1':>9} {f'recall@{K}':>9}  own: @1, @{K}")
    for kind in kinds:
        made = index(database, kind=kind)
        found, seconds, _ = measured(lambda made=made: made.search(queries, k=K), repeat=2)
        shared = [len(np.intersect1d(a, b)) / K for a, b in zip(found.rows, truth, strict=True)]
        path = made.save(folder / kind)
        disk = sum(file.stat().st_size for file in path.glob("part-*")) / 1e6
        report = made.report or {}
        first = (found.rows[:, 0] == truth[:, 0]).mean()
        cost = f"{report['build_seconds']:8.1f} {report['memory_bytes'] / 1e6:10.0f} {disk:8.0f} {len(queries) / seconds:8.0f}"
        own = f"{report['recall@1']:.3f}, {report[f'recall@{K}']:.3f}"
        print(f"{kind:<8} {cost} {first:9.3f} {np.mean(shared):9.3f}  {own}  {made.options}")
        del made


def filters(database: Descriptors, queries: Descriptors) -> None:
    made = index(database, kind="exact")
    flat = faiss.IndexFlatL2(database.dim)
    for block in database.blocks(1 << 16):
        flat.add(np.ascontiguousarray(block))
    print("\nfilter       gathered q/s   FAISS selector q/s   ratio   same rows")
    for share in (0.01, 0.1, 0.5):
        mask = np.random.default_rng(0).random(len(database)) < share
        found, ours, _ = measured(lambda mask=mask: made.search(queries, k=K, among=mask), repeat=2)
        bits = np.packbits(mask, bitorder="little")
        chosen = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        (_, rows), theirs, _ = measured(lambda chosen=chosen: flat.search(queries.vectors, K, params=chosen))
        same = (rows == found.rows).mean()
        print(f"{share:>5.0%} kept {len(queries) / ours:15.0f} {len(queries) / theirs:20.0f} {theirs / ours:7.1f} {same:11.2%}")


def changes(database: Descriptors, folder: Path) -> None:
    print("\non disk: exact index")
    made = index(database, kind="exact")
    path, seconds, megabytes = measured(lambda: made.save(folder / "exact"))
    print(f"save {seconds:8.2f} s, {megabytes:.0f} MB beyond the map")
    opened, seconds, _ = measured(lambda: load_index(path))
    print(f"open {seconds:8.2f} s")
    more = Descriptors(np.asarray(database.vectors[:1000]), tuple(f"n{row}" for row in range(1000)), database.model, database.history)
    _, seconds, _ = measured(lambda: (opened.add(more), opened.update()))
    print(f"add 1000 and write     {seconds:8.2f} s")
    _, seconds, _ = measured(lambda: (opened.delete(database.names[:1000]), opened.update()))
    print(f"delete 1000 and write  {seconds:8.2f} s")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--count", type=int, default=1_000_000)
    arguments.add_argument("--dim", type=int, default=512)
    arguments.add_argument("--queries", type=int, default=1000)
    arguments.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(INDEXES)}; separated by commas, or none")
    arguments.add_argument(
        "--folder", type=Path, help="where a temporary folder is made (4 GB for a million x 512); default: that of the system"
    )
    given = arguments.parse_args()
    kinds = [kind for kind in given.kinds.split(",") if kind not in ("", "none", "exact")]
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        folder = Path(temporary)
        database, queries = generated(folder, count=given.count, dim=given.dim, asked=given.queries)
        print(f"{len(database):,} x {database.dim}")
        truth = exact(database, queries)
        approximate(database, queries, truth, kinds=kinds, folder=folder)
        filters(database, queries)
        changes(database, folder)


if __name__ == "__main__":
    main()
