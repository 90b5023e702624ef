"""Mined triplets: the nearest positive, the hardest negatives, what mining costs, and never more images than was said."""

import itertools
import tracemalloc

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from covis.errors import InvalidInputError, TrainingDivergedError
from covis.labels import Labels
from covis.pairs import TripletSampler


def labelled(matrix, excluded=None, *, scene="s"):
    matrix = np.asarray(matrix, dtype=float)
    names = tuple(f"{scene}/{i}" for i in range(len(matrix)))
    out = np.eye(len(matrix), dtype=bool) if excluded is None else np.asarray(excluded, dtype=bool) | np.eye(len(matrix), dtype=bool)
    return Labels(sparse.csr_array(matrix), names, names, rule="by hand", excluded=sparse.csr_array(out))


def random_labels(seed, size=24):
    random = np.random.default_rng(seed)
    matrix = random.choice([0, 0, 0, 0, 0.2, 0.4, 0.5, 0.9], size=(size, size))
    return labelled(matrix, random.random(matrix.shape) < 0.05, scene=str(seed))


class Network:
    """Fixed descriptors, and a note of what was asked."""

    def __init__(self, *sizes, dim=6, scale=1.0):
        self.vectors = [np.random.default_rng([3, i]).normal(size=(size, dim)).astype(np.float32) * scale for i, size in enumerate(sizes)]
        self.asked, self.first_of_database = [], 0

    def __call__(self, scene, queries, database):
        assert queries.dtype == database.dtype == np.int64
        assert len(set(queries)) == len(queries)  # each image once
        assert (np.diff(database) > 0).all()
        rows = np.r_[queries, database + self.first_of_database]
        self.asked.append((scene, len(np.unique(rows))))
        return self.vectors[scene][rows]


def sampler(labels, network, **options):
    return TripletSampler(labels, describe=network, **({"batch": 4, "seed": 1, "negatives": 3, "cache": 100, "pool": 100} | options))


@given(seed=st.integers(0, 30), threshold=st.sampled_from([0.0, 0.2, 0.3]))
def test_the_positive_is_the_nearest_and_the_negatives_are_the_hardest(seed, threshold):
    """With all positives and the whole database described: against a list made one by one."""
    labels, network = random_labels(seed), Network(24)
    mined = next(sampler([labels], network, batch=60, pool=24, positives=0, negative_threshold=threshold, seed=seed))
    matrix, excluded, vectors = labels.matrix.toarray(), labels.excluded.toarray(), network.vectors[0]
    for query, database, similarity in zip(mined.query, mined.database, mined.similarity, strict=True):
        positives = np.flatnonzero(matrix[query] >= 0.5)
        assert database[0] == min(positives, key=lambda row: ((vectors[query] - vectors[row]) ** 2).sum())
        barred = set(np.flatnonzero((matrix[query] > threshold + 1e-9) | excluded[query]))
        assert database[1:].tolist() == oracles.hardest(query, range(24), vectors, barred, 3)
        np.testing.assert_array_equal(similarity, matrix[query, database])


def test_every_query_with_a_positive_comes_once_a_pass():
    labels = [random_labels(1), labelled(np.zeros((9, 9))), random_labels(2, size=11)]
    whole = sampler(labels, Network(24, 9, 11), cache=7, batch=1)
    expected = sorted((s, int(q)) for s in (0, 2) for q in np.flatnonzero((labels[s].matrix.toarray() >= 0.5).any(axis=1)))
    orders = []
    for _ in range(3):
        seen = [(int(one.scene[0]), int(one.query[0])) for one in itertools.islice(whole, len(expected))]
        assert sorted(seen) == expected
        orders.append(tuple(seen))
    assert len(set(orders)) == 3


def test_it_is_mined_only_when_the_cache_is_used_up():
    network = Network(24)
    whole = sampler([labelled(np.eye(24)[:, ::-1])], network, cache=8, batch=2)  # each image has one positive: three parts of 8 queries
    assert not network.asked
    for _ in range(4):
        next(whole)
    assert len(network.asked) == 1
    next(whole)
    assert len(network.asked) == 2


def test_no_more_images_are_described_than_was_said():
    size = 400
    matrix = np.zeros((size, size))
    near = np.abs(np.arange(size)[:, None] - np.arange(size)) % size
    matrix[(near > 0) & (near <= 30)] = 0.8
    for positives in (1, 3):
        network = Network(size)
        next(sampler([labelled(matrix)], network, cache=20, pool=40, positives=positives))
        assert sum(number for _, number in network.asked) <= 20 * (1 + positives) + 40


def test_a_change_of_the_network_shows_at_the_next_refresh_only():
    """And a resumed sampler gives the lists mined before, though the network has moved on."""
    labels, network = [random_labels(1)], Network(24)
    whole = sampler(labels, network, cache=12, batch=4)
    first = next(whole)
    state = whole.state()
    network.vectors[0] = network.vectors[0][::-1].copy()
    second = next(whole)
    resumed = sampler(labels, network, cache=12, batch=4)
    resumed.restore(state)
    np.testing.assert_array_equal(next(resumed).database, second.database)
    old = sampler(labels, Network(24), cache=12, batch=4)
    np.testing.assert_array_equal(next(old).database, first.database)
    np.testing.assert_array_equal(next(old).database, second.database)


def test_queries_that_violate_nothing_can_be_left_out():
    """Two places, far apart: of the queries 0 to 3 only 2 has a negative nearer than its positive and the margin."""
    matrix = np.zeros((8, 8))
    for i in range(0, 4, 2):
        matrix[i, i + 1] = matrix[i + 1, i] = 1
    line = np.array([0, 0.1, 5, 6, 5.5, 9, 10, 11], dtype=np.float32)[:, None]
    options = {"negatives": 2, "margin": 0.1, "positives": 0, "batch": 1}

    def queries(**more):
        whole = TripletSampler([labelled(matrix)], describe=lambda _, q, d: line[np.r_[q, d]], seed=0, **(options | more))
        return {int(next(whole).query[0]) for _ in range(12)}

    assert queries() == {0, 1, 2, 3}
    assert queries(keep="violating") == {2, 3}
    assert queries(keep="violating", margin=20) == {0, 1, 2, 3}
    far = np.array([0, 0.1, 50, 50.1, 100, 200, 300, 400], dtype=np.float32)[:, None]
    whole = TripletSampler([labelled(matrix)], describe=lambda _, q, d: far[np.r_[q, d]], seed=0, keep="violating", **options)
    assert {int(next(whole).query[0]) for _ in range(4)} == {0, 1, 2, 3}  # none violates: all are kept, and nothing waits for ever


def test_violating_is_having_a_triplet_loss_above_zero():
    import torch

    from covis.losses import triplet

    labels, network = [random_labels(3)], Network(24, scale=0.3)
    every = next(sampler(labels, network, batch=100, cache=1000))
    vectors = torch.from_numpy(network.vectors[0])
    loss = triplet(vectors[every.query], vectors[every.database], torch.from_numpy(every.similarity), margin=0.1)
    expected = set(every.query[loss.numpy() > 1e-5].tolist())
    kept = next(sampler(labels, network, batch=100, cache=1000, keep="violating", margin=0.1))
    assert set(kept.query.tolist()) == expected
    assert 0 < len(expected) < len(set(every.query.tolist()))


def test_a_pool_with_too_few_negatives_is_filled_up_from_the_others():
    """Only three images are negatives of anything; a pool of 8 of 40 rarely holds them."""
    matrix = np.full((40, 40), 0.3)
    matrix[:, 0] = 0.9
    matrix[:, [5, 17, 31]] = 0
    network = Network(40)
    whole = sampler([labelled(matrix)], network, pool=1, negatives=3, batch=30)
    mined = next(whole)
    assert all(sorted(row) == [5, 17, 31] for row in mined.database[:, 1:].tolist() if len(set(row)) == 3)
    assert {tuple(sorted(row)) for row in mined.database[:, 1:].tolist()} == {(5, 17, 31)}
    assert (mined.similarity[:, 0] == 0.9).all()
    assert not set(mined.query.tolist()) & {0, 5, 17, 31}  # the first has no positive, the others two negatives only


def test_memory_is_bounded():
    """A scene of 100,000 images and labels to match: a dense row a cached query alone would be 800 MB."""
    n, random = 100_000, np.random.default_rng(0)
    rows = np.repeat(np.arange(n), 2)
    matrix = sparse.csr_array((np.full(2 * n, 0.8), (rows, (rows + np.tile([1, n - 1], n)) % n)), shape=(n, n))
    names = tuple(map(str, range(n)))
    labels = Labels(matrix, names, names, rule="x", excluded=sparse.csr_array((np.ones(n, dtype=bool), (np.arange(n),) * 2), shape=(n, n)))
    vectors = random.normal(size=(n, 8)).astype(np.float32)
    whole = TripletSampler([labels], batch=8, seed=0, cache=1000, pool=20_000, describe=lambda _, q, d: vectors[np.r_[q, d]])
    tracemalloc.start()
    next(whole)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 250e6


@pytest.mark.parametrize(("options", "said"), [
    ({"describe": None}, r"pass describe, a function"),
    ({"negatives": 0}, r"negatives must be at least 1"),
    ({"cache": 0}, r"cache must be at least 1"),
    ({"pool": 0}, r"pool must be at least 1"),
    ({"batch": 0}, r"batch must be at least 1"),
    ({"positives": -1}, r"positives must be at least 0"),
    ({"margin": -0.1}, r"margin must be at least 0"),
    ({"margin": np.nan}, r"margin must be at least 0"),
    ({"keep": "hard"}, r"'hard'"),
    ({"negative_threshold": 0.5}, r"negative_threshold < positive_threshold"),
    ({"positive_threshold": 1.5}, r"negative_threshold < positive_threshold"),
    ({"negatives": 24}, r"No query of 24 in 1 scenes has a positive \(similarity >= 0.5\) and 24 negatives"),
])  # fmt: skip
def test_parameters_are_checked(options, said):
    with pytest.raises(InvalidInputError, match=said):
        TripletSampler([random_labels(1)], **({"batch": 4, "seed": 0, "describe": Network(24)} | options))


def test_two_sides_are_described_one_after_the_other():
    """Each side by its own rows."""
    random = np.random.default_rng(5)
    matrix = random.choice([0, 0, 0, 0.2, 0.9], size=(7, 20))
    labels = Labels(sparse.csr_array(matrix), [f"q{i}" for i in range(7)], [f"d{i}" for i in range(20)], rule="by hand")
    network = Network(27)
    network.first_of_database = 7
    mined = next(sampler([labels], network, batch=7, pool=20, positives=0))
    asked, searched = network.vectors[0][:7], network.vectors[0][7:]
    for query, database in zip(mined.query, mined.database, strict=True):
        distance = np.linalg.norm(asked[query] - searched, axis=1)
        assert database[0] == min(np.flatnonzero(matrix[query] >= 0.5), key=lambda row: distance[row])
        assert database[1:].tolist() == sorted(np.flatnonzero(matrix[query] == 0), key=lambda row: distance[row])[:3]


@pytest.mark.parametrize("wrong", [np.zeros((3, 2)), np.zeros(24)])
def test_a_wrong_describe_is_said(wrong):
    with pytest.raises(InvalidInputError, match=r"describe must give \(n, D\)"):
        next(sampler([random_labels(1)], lambda scene, queries, database: wrong))


def test_a_network_that_is_no_longer_finite_is_said():
    network = Network(24)
    network.vectors[0][7] = np.nan
    with pytest.raises(TrainingDivergedError, match=r"7 of training scene 0 is not finite"):
        next(sampler([random_labels(1)], network))
