"""Exact search: equal to an oracle to the last neighbour, ties by row, however many queries and shards, straight from the map."""

import subprocess
import sys
import threading
from pathlib import Path

import faiss
import numpy as np
import oracles
import pytest

from covis.descriptors import Descriptors
from covis.errors import InvalidInputError, OutputExistsError, UnknownNameError
from covis.indexes import ExactIndex, engine, index, load_index, nearest, pieces, shards
from covis.whitening import fit_whitening


def described(n, *, dim=16, seed=0, side="d", model="m", dtype="float32"):
    vectors = np.random.default_rng(seed).normal(size=(n, dim))
    return Descriptors(
        (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(dtype), tuple(f"{side}{i}" for i in range(n)), model
    )


def exact(found, queries, database, k):
    rows, distances = oracles.nearest(queries.vectors, database.vectors, k)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, distances, atol=2e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("dim", [1, 3, 16, 200])
def test_the_search_is_exact(dtype, dim):
    random = np.random.default_rng(dim)
    # distances on a grid, far enough apart for float32: no near ties that an order of summing could swap
    spread = np.sort(random.choice(10_000, size=300, replace=False)) / 1000
    directions = random.normal(size=(300, dim))
    vectors = directions / np.linalg.norm(directions, axis=1, keepdims=True) * spread[:, None]
    order = random.permutation(300)
    database = Descriptors(vectors[order].astype(np.float32), tuple(map(str, range(300))), "m")
    origin = Descriptors(np.zeros((1, dim), dtype=dtype), ("q",), "m")
    exact(index(database).search(origin, k=50), origin, database, 50)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_change_nothing(count):
    database, queries = described(97), described(11, seed=1, side="q")
    cuts = np.array_split(np.arange(97), count)
    parts = [Descriptors(database.vectors[c], tuple(database.names[i] for i in c), "m") for c in cuts]
    made = ExactIndex()
    for part in parts:
        made.add(part)
    assert len(made) == 97
    assert made.names == database.names
    found = made.search(queries, k=20)
    exact(found, queries, database, 20)
    assert found.database_names == database.names
    assert found.query_names == queries.names
    assert index(parts).search(queries, k=20).rows.tolist() == found.rows.tolist()


def test_all_are_found_where_fewer_than_k_are_there():
    database, queries = described(5), described(3, seed=1, side="q")
    found = index(
        [Descriptors(database.vectors[:1], database.names[:1], "m"), Descriptors(database.vectors[1:], database.names[1:], "m")]
    ).search(queries, k=25)
    assert found.k == 5
    exact(found, queries, database, 5)
    assert (np.sort(found.rows, axis=1) == np.arange(5)).all()


def test_empty_shards_and_no_queries():
    database = described(5)
    made = index([described(0), database])
    assert made.search(described(2, seed=1), k=3).k == 3
    assert len(made.search(described(0, side="q"), k=3)) == 0


def test_itself_is_at_no_distance():
    database = described(50)
    found = index(database).search(database, k=1)
    assert found.rows[:, 0].tolist() == list(range(50))
    np.testing.assert_allclose(found.distances, 0, atol=1e-3)


def test_an_index_comes_back(tmp_path):
    parts, queries = [described(20), described(30, seed=2, side="e")], described(4, seed=1, side="q")
    made = index(parts)
    found = load_index(made.save(tmp_path / "i"))
    assert len(found) == 50
    assert found.names == made.names
    again, before = found.search(queries, k=9), made.search(queries, k=9)
    assert again.rows.tolist() == before.rows.tolist()
    assert again.distances.tolist() == before.distances.tolist()
    assert again.history == before.history
    assert all(isinstance(shard.vectors, np.memmap) for shard in found.shards.sets)
    with pytest.raises(OutputExistsError):
        made.save(tmp_path / "i")
    made.save(tmp_path / "i", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["i"]


def test_descriptors_of_another_kind_are_refused():
    database = described(40)
    whitened = fit_whitening(database, dim=4)(database)
    elsewhere = Descriptors(described(40, seed=8).vectors, database.names, "m")
    others = [
        (database, described(3, model="other")),
        (database, described(3, dim=15)),
        (database, fit_whitening(database, dim=16)(described(3))),
        (whitened, described(3, dim=4)),
        (whitened, fit_whitening(database, dim=4, power=0.5)(described(3))),
        (whitened, fit_whitening(elsewhere, dim=4)(described(3))),
    ]
    for there, queries in others:
        renamed = Descriptors(queries.vectors, tuple(f"q{i}" for i in range(len(queries))), queries.model, queries.history)
        with pytest.raises(InvalidInputError, match="one model, one whitening"):
            index(there).search(renamed, k=1)
        with pytest.raises(InvalidInputError, match="one model, one whitening"):
            index([there, renamed])
    assert len(index(whitened).search(fit_whitening(database, dim=4)(described(3)), k=1)) == 3


def test_inputs_are_checked():
    database = described(5)
    bad = described(3, seed=1, side="q").vectors.copy()
    bad[1, 0] = np.nan
    broken = Descriptors(bad, ("x", "y", "z"), "m")
    with pytest.raises(InvalidInputError, match="of y is not"):
        index(database).search(broken, k=1)
    with pytest.raises(InvalidInputError, match="of y is not"):
        index(broken)
    with pytest.raises(InvalidInputError, match="k >= 1"):
        index(database).search(database, k=0)
    with pytest.raises(InvalidInputError, match="not empty"):
        ExactIndex().search(database, k=1)
    with pytest.raises(InvalidInputError, match="'d0' is there already"):
        index([database, described(2, seed=3)])
    with pytest.raises(UnknownNameError, match="'exact'"):
        index(database, kind="exat")


def crowded(n, dim, *, spread, seed=0, side="d"):
    """Descriptors that are nearly the same: products of matrices alone cannot put them in order."""
    random = np.random.default_rng(seed)
    vectors = np.ones(dim) / np.sqrt(dim) + spread * random.normal(size=(n, dim))
    return Descriptors(vectors.astype(np.float32), tuple(f"{side}{i}" for i in range(n)), "m")


@pytest.mark.parametrize("asked", [1, 3, 60])
@pytest.mark.parametrize("spread", [1e-1, 1e-3, 1e-4])
def test_neighbours_that_float32_products_cannot_tell_apart_are_in_order(spread, asked):
    database, queries = crowded(3000, 64, spread=spread), crowded(asked, 64, spread=spread, seed=1, side="q")
    found = index(database).search(queries, k=10)
    rows, distances = oracles.nearest(queries.vectors, database.vectors, 10)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-5)


def test_a_product_alone_would_get_them_wrong():
    """Else the test above shows nothing."""
    database, queries = crowded(3000, 64, spread=1e-4), crowded(60, 64, spread=1e-4, seed=1)
    assert (engine.knn(queries.vectors, database.vectors, 10)[1] != oracles.nearest(queries.vectors, database.vectors, 10)[0]).any()


@pytest.mark.parametrize("asked", [1, 30])
@pytest.mark.parametrize("copies", [5, 60, 2000])
def test_equal_distances_stand_in_the_order_of_the_rows(copies, asked):
    vectors = np.random.default_rng(0).normal(size=(4, 32)).astype(np.float32)
    database = Descriptors(np.tile(vectors, (copies, 1)), tuple(map(str, range(4 * copies))), "m")
    queries = Descriptors(np.tile(vectors[2:3], (asked, 1)), tuple(f"q{i}" for i in range(asked)), "m")
    found = index(database).search(queries, k=20)
    same = 2 + 4 * np.arange(copies)
    assert (found.rows[:, : len(same)] == same[:20]).all()
    assert (found.distances[:, : len(same)] == 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_number_of_queries_changes_no_bit(dtype):
    database, queries = described(5000, dim=48, dtype=dtype), described(70, dim=48, seed=1, side="q", dtype=dtype)
    made = index([database, described(300, dim=48, seed=2, side="e", dtype=dtype)])
    whole = made.search(queries, k=15)
    for part in (slice(0, 1), slice(3, 5), slice(10, 18), slice(20, 29)):
        few = made.search(Descriptors(queries.vectors[part], queries.names[part], "m"), k=15)
        assert few.rows.tolist() == whole.rows[part].tolist()
        assert few.distances.tolist() == whole.distances[part].tolist()


@pytest.mark.parametrize("asked", [2, 33])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98, 1.0])
def test_small_pieces_give_what_the_whole_gives(monkeypatch, share, dtype, asked):
    monkeypatch.setattr(pieces, "PIECE", 64)
    monkeypatch.setattr(pieces, "SKIPPED", 4)
    monkeypatch.setattr(pieces, "COPIED", 10 * 4 * 16)
    monkeypatch.setattr(nearest, "QUERIES", 7)
    database, queries = described(500, dtype=dtype), described(asked, seed=1, side="q", dtype=dtype)
    mask = np.random.default_rng(2).random(500) < share
    found = index([database, described(90, seed=3, side="e", dtype=dtype)]).search(
        queries, k=12, among=np.concatenate([mask, np.zeros(90, dtype=bool)])
    )
    rows, distances = oracles.nearest(queries.vectors, database.vectors[mask], 12)
    np.testing.assert_array_equal(found.rows, np.flatnonzero(mask)[rows])
    np.testing.assert_allclose(found.distances, distances, atol=2e-6)


def test_vectors_on_disk_are_searched_where_they_are(tmp_path):
    found = Descriptors.load(described(300).save(tmp_path / "d"))
    made = ExactIndex()
    made.add(found)
    (piece,) = made.shards.pieces(None)
    assert np.shares_memory(piece.vectors, found.vectors)
    made.delete(["d7"])
    (piece,) = made.shards.pieces(made.shards.allowed(None))
    assert np.shares_memory(piece.vectors, found.vectors)
    assert piece.hidden.tolist() == [7]


def test_many_deleted_rows_are_hidden_from_few_queries_without_a_copy():
    made = index(described(3000))
    made.delete([f"d{row}" for row in range(0, 2900, 2)])
    (piece,) = made.shards.pieces(made.shards.allowed(None), few=True)
    assert np.shares_memory(piece.vectors, made.shards.sets[0].vectors)
    assert len(piece.hidden) == 1450
    (piece,) = made.shards.pieces(made.shards.allowed(None))
    assert len(piece.rows) == 1550
    many = made.search(described(40, seed=1, side="q"), k=30)
    few = made.search(described(4, seed=1, side="q"), k=30)
    assert few.rows.tolist() == many.rows[:4].tolist()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("asked", [2, 40])
def test_many_small_sets_are_searched_as_one(asked, dtype):
    database, queries = described(3000, dtype=dtype), described(asked, seed=1, side="q")
    made = ExactIndex()
    for at in range(0, 3000, 10):
        made.add(Descriptors(database.vectors[at : at + 10], database.names[at : at + 10], "m"))
    assert len(list(made.shards.pieces(None))) == 1
    whole = ExactIndex()
    whole.add(database)
    for gone in ([], [f"d{row}" for row in range(0, 3000, 3)], [f"d{row}" for row in range(1, 3000, 3)]):
        made.delete(gone)
        whole.delete(gone)
        assert made.search(queries, k=9).rows.tolist() == whole.search(queries, k=9).rows.tolist()
        assert made.search(queries, k=9).distances.tolist() == whole.search(queries, k=9).distances.tolist()
    with pytest.raises(InvalidInputError, match="'d2' is there already"):
        made.add(Descriptors(database.vectors[:3], database.names[:3], "m"))
    made.add(Descriptors(database.vectors[:1], database.names[:1], "m"))
    with pytest.raises(InvalidInputError, match="'d0' is there already"):
        made.add(Descriptors(database.vectors[:1], database.names[:1], "m"))


def test_every_float16_becomes_its_float32():
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)].reshape(-1, 2)
    found = pieces.as_float32(every)
    assert found.tobytes() == every.astype(np.float32).tobytes()
    assert pieces.as_float32(every[::2]).tobytes() == every[::2].astype(np.float32).tobytes()


def test_queries_among_duplicates_are_answered_together(monkeypatch):
    """Some passes over the vectors, not one a query."""
    database = described(10)
    copies = Descriptors(np.repeat(database.vectors, 400, axis=0), tuple(map(str, range(4000))), "m")
    queries = Descriptors(np.repeat(database.vectors + np.float32(1e-3), 6, axis=0), tuple(map(str, range(60))), "m")
    made, passes, real = index(copies), [], shards.Shards.pieces
    monkeypatch.setattr(shards.Shards, "pieces", lambda self, *given, **more: passes.append(1) or real(self, *given, **more))
    found = made.search(queries, k=25)
    assert len(passes) <= 3
    rows, distances = oracles.nearest(queries.vectors, copies.vectors, 25)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, distances, atol=2e-6)


def test_blocks_of_queries_change_nothing(monkeypatch):
    made, queries = index(described(2000)), described(900, seed=1, side="q")
    whole = made.search(queries, k=20)
    monkeypatch.setattr(nearest, "_TOGETHER", 70)
    found = made.search(queries, k=20)
    assert found.rows.tolist() == whole.rows.tolist()
    assert found.distances.tolist() == whole.distances.tolist()


def test_faiss_gets_its_block_size_back():
    before = faiss.cvar.distance_compute_blas_database_bs
    with engine._variables(engine.PRODUCTS), engine._variables(engine.PRODUCTS):
        assert faiss.cvar.distance_compute_blas_database_bs == 4096 != before
    with pytest.raises(AssertionError):
        engine.knn(np.zeros((1, 3), dtype=np.float32), np.zeros((5, 2), dtype=np.float32), 1)
    assert faiss.cvar.distance_compute_blas_database_bs == before
    made, queries = index(described(2000)), described(50, seed=1, side="q")
    found = []
    workers = [threading.Thread(target=lambda: found.append(made.search(queries, k=5).rows.tolist())) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 6
    assert all(rows == found[0] for rows in found)
    assert faiss.cvar.distance_compute_blas_database_bs == before


def test_vectors_too_long_for_float32_are_refused():
    vectors = np.ones((3, 4), dtype=np.float32)
    vectors[1] *= 1e18
    with pytest.raises(InvalidInputError, match=r"shorter than 1e\+18.*that of b is not"):
        index(Descriptors(vectors, ("a", "b", "c"), "m"))


def test_threads_change_no_bit(monkeypatch):
    made, queries = index(described(3000, dim=64)), described(900, dim=64, seed=1, side="q")
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(engine, "threads", lambda threads=threads: threads)
        found.append(made.search(queries, k=30))
    assert found[0].rows.tolist() == found[1].rows.tolist()
    assert found[0].distances.tolist() == found[1].distances.tolist()


MEMORY = """
import sys, threading
from pathlib import Path
import numpy as np
from covis.descriptors import Descriptors
from covis.indexes import ExactIndex
database, queries = Descriptors.load(sys.argv[1]), Descriptors.load(sys.argv[2])
def anonymous():
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")).split()[1]) / 1024
made = ExactIndex()
made.add(database)
made.search(Descriptors(queries.vectors[:100], queries.names[:100], "m"), k=5)
before, most, done = anonymous(), 0, threading.Event()
def watch():
    global most
    while not done.wait(0.002):
        most = max(most, anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
found = made.search(queries, k=5)
many = most
made.delete(database.names[::2])
made.search(Descriptors(queries.vectors[:300], queries.names[:300], "m"), k=5)
done.set()
watcher.join()
print(many - before, most - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's own account of memory")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_search_takes_less_than_100_megabytes_beyond_the_map(tmp_path, dtype):
    """Of 123 MB of vectors (of float16, half) and 10 MB of queries; half of the rows deleted in the second search."""
    random = np.random.default_rng(0)
    for name, count in (("database", 60_000), ("queries", 5_000)):
        vectors = random.standard_normal((count, 512), dtype=np.float32).astype(dtype)
        Descriptors(vectors, tuple(f"{name}{i}" for i in range(count)), "m").save(tmp_path / name)
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "database"), str(tmp_path / "queries")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(float(megabytes) < 100 for megabytes in done.stdout.split()), done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's own account of memory")
@pytest.mark.parametrize("k", [1, 25])
def test_a_search_takes_less_than_100_megabytes_however_many_queries(tmp_path, k):
    """Beyond its results, which are a small part of it here."""
    random = np.random.default_rng(0)
    for name, count in (("database", 2000), ("queries", 400_000 if k == 1 else 100_000)):
        vectors = random.standard_normal((count, 8), dtype=np.float32)
        Descriptors(vectors, tuple(f"{name}{i}" for i in range(count)), "m").save(tmp_path / name)
    command = [sys.executable, "-c", MEMORY.replace("k=5", f"k={k}"), str(tmp_path / "database"), str(tmp_path / "queries")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    results = 12 * k * (400_000 if k == 1 else 100_000) / 1e6
    assert all(float(megabytes) < 100 + results for megabytes in done.stdout.split()), done.stdout
