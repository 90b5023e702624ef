"""The index: exact, in shards, saved, and for descriptors of one kind alone."""

import inspect
import json

import numpy as np
import oracles
import pytest

from covis.descriptors import Descriptors
from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError, UnknownNameError
from covis.indexes import INDEXES, ExactIndex, index, load_index
from covis.rankings import Rankings
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


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_shards_change_nothing(shards):
    database, queries = described(97), described(11, seed=1, side="q")
    cuts = np.array_split(np.arange(97), shards)
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
    assert all(isinstance(shard.vectors, np.memmap) for shard in found.shards)
    with pytest.raises(OutputExistsError):
        made.save(tmp_path / "i")
    made.save(tmp_path / "i", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["i"]


def test_damaged_indexes_are_refused(tmp_path, refuses_every_cut):
    path = index([described(20), described(30, seed=2, side="e")]).save(tmp_path / "i")
    refuses_every_cut(path / "index.json", lambda: load_index(path), harmless=1)
    refuses_every_cut(path / "shard-0001" / "vectors.npy", lambda: load_index(path), cuts=20)
    header = json.loads((path / "index.json").read_text())
    for change in ({"shards": None}, {"shards": "2"}, {"version": 2}, {"format": "covis-descriptors"}):
        (path / "index.json").write_text(json.dumps(header | change))
        with pytest.raises(DamagedFileError, match=r"index\.json"):
            load_index(path)
    (path / "index.json").write_text(json.dumps(header | {"shards": 3}))
    with pytest.raises(MissingFileError, match="shard-0002"):
        load_index(path)
    (path / "index.json").write_text(json.dumps(header | {"kind": "exactt"}))
    with pytest.raises(DamagedFileError, match=r"knows \(exact\)"):
        load_index(path)
    with pytest.raises(MissingFileError):
        load_index(tmp_path / "none")


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


def test_every_index_of_the_table_follows_the_seam(tmp_path):
    assert set(INDEXES) == {"exact"}
    for kind in INDEXES:
        made = index(described(5), kind=kind)
        assert isinstance(made.search(described(2, side="q", seed=1), k=2), Rankings)
        assert "k" in inspect.signature(made.search).parameters
        assert len(load_index(made.save(tmp_path / kind))) == len(made) == 5
