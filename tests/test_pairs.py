"""The samplers: only pairs of the class drawn, uniformly, never an excluded one, never a dense matrix, resumable anywhere."""

import copy
import itertools
import time
import tracemalloc

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse, stats

from covis.errors import InvalidInputError
from covis.labels import Labels
from covis.pairs import SAMPLERS, BinarySampler, GradedSampler, Pairs, SoftNegativeFreeSampler
from covis.pairs.classes import Classes


def labelled(matrix, excluded=None):
    matrix = np.asarray(matrix, dtype=float)
    queries, database = (tuple(f"{side}{i}" for i in range(n)) for side, n in zip("qd", matrix.shape, strict=True))
    mask = None if excluded is None else sparse.csr_array(np.asarray(excluded, dtype=bool))
    return Labels(sparse.csr_array(matrix), queries, database, rule="by hand", excluded=mask)


def random_labels(seed, queries=40, database=30):
    """Every query has all three classes, and some pairs are excluded."""
    random = np.random.default_rng(seed)
    matrix = random.choice([0, 0, 0, 0.1, 0.3, 0.5, 0.8, 1.0], size=(queries, database))
    matrix[:, :3] = 0.9, 0.2, 0
    excluded = random.random(matrix.shape) < 0.1
    excluded[:, :3] = False
    return labelled(matrix, excluded)


def drawn(sampler, pairs):
    """At least so many pairs, as rows (scene, query, database, similarity)."""
    batches = list(itertools.islice(sampler, -(-pairs // sampler.batch)))
    return tuple(np.concatenate([getattr(one, name) for one in batches]) for name in ("scene", "query", "database", "similarity"))


def kinds(similarity):
    return np.where(similarity >= 0.5 - 1e-9, 0, np.where(similarity > 0, 1, 2))


@pytest.mark.parametrize("composition", [(0.5, 0.25, 0.25), (0.1, 0.6, 0.3), (1, 0, 0), (0, 0, 1), (0.5, 0.5, 0)])
def test_the_shares_are_the_composition(composition):
    count = 20_000
    sampler = GradedSampler([random_labels(0)], batch=500, seed=3, composition=composition)
    found = np.bincount(kinds(drawn(sampler, count)[3]), minlength=3)
    for seen, share in zip(found, composition, strict=True):
        assert abs(seen - share * count) <= 4.5 * np.sqrt(count * share * (1 - share)), composition


@given(
    matrix=arrays.arrays(float, (4, 6), elements=st.sampled_from([0, 0, 0.2, 0.49999999999999994, 0.5, 1])),
    excluded=arrays.arrays(bool, (4, 6)),
    on_empty=st.sampled_from(["skip", "resample"]),
    seed=st.integers(0, 9),
)
def test_only_pairs_of_the_labels_are_drawn(matrix, excluded, on_empty, seed):
    labels = labelled(matrix, excluded)
    classes = oracles.bands(labels.matrix.toarray(), excluded, 0.5)
    if excluded.all():
        with pytest.raises(InvalidInputError, match="hold no pair"):
            GradedSampler([labels], batch=5, seed=seed)
        return
    _, query, database, similarity = drawn(GradedSampler([labels], batch=50, seed=seed, on_empty=on_empty), 200)
    assert not excluded[query, database].any()
    np.testing.assert_array_equal(similarity, labels.matrix.toarray()[query, database])
    seen = set(zip(query.tolist(), database.tolist(), strict=True))
    assert seen <= {(q, d) for q, listed in enumerate(classes) for one in listed for d in one}


@given(matrix=arrays.arrays(float, (5, 7), elements=st.sampled_from([0, 0, 0.3, 0.7])), excluded=arrays.arrays(bool, (5, 7)))
def test_the_zero_class_is_the_complement(matrix, excluded):
    """Every rank of every query against a list of the columns that are neither stored nor excluded."""
    second = np.array([[0, 0.7, 0.3], [0, 0, 0.5]])
    labels = labelled(matrix, excluded)
    classes = Classes([labels, labelled(second)], threshold=0.5)
    assert classes.scene.tolist() == [0] * 5 + [1] * 2
    assert classes.query.tolist() == [*range(5), 0, 1]
    expected = oracles.bands(labels.matrix.toarray(), excluded, 0.5) + oracles.bands(second, second < 0, 0.5)
    dense = [*labels.matrix.toarray(), *second]
    for kind in range(3):
        assert classes.counts[:, kind].tolist() == [len(listed[kind]) for listed in expected]
        asked = [(row, rank, d) for row, listed in enumerate(expected) for rank, d in enumerate(listed[kind])]
        np.random.default_rng(0).shuffle(asked)
        row, rank, wanted = np.array(asked, dtype=np.int64).reshape(-1, 3).T
        found, similarity = classes.take(row, np.full(len(row), kind), rank)
        assert found.tolist() == wanted.tolist()
        assert similarity.tolist() == [dense[r][d] for r, d in zip(row, wanted, strict=True)]


@pytest.mark.parametrize("kind", range(3))
def test_draws_are_uniform_within_a_class(kind):
    """Chi-square over all pairs of a class: no query and no database image is favoured."""
    matrix = np.zeros((30, 12))
    matrix[:, [1, 4, 5]], matrix[:, [0, 7, 8, 11]] = 0.7, 0.3
    excluded = np.zeros((30, 12), dtype=bool)
    excluded[:, 2] = True
    _, query, database, _ = drawn(GradedSampler([labelled(matrix, excluded)], batch=600, seed=11, composition=np.eye(3)[kind]), 30_000)
    counts = np.zeros((30, 12))
    np.add.at(counts, (query, database), 1)
    members = oracles.bands(matrix, excluded, 0.5)[0][kind]
    assert counts[:, [d for d in range(12) if d not in members]].sum() == 0
    assert stats.chisquare(counts[:, members].ravel()).pvalue > 1e-3


def test_every_query_comes_once_a_pass():
    labels = [random_labels(1, queries=17), random_labels(2, queries=8)]
    sampler = GradedSampler(labels, batch=25, seed=4)
    orders = []
    for _ in range(4):
        pairs = next(sampler)
        seen = list(zip(pairs.scene.tolist(), pairs.query.tolist(), strict=True))
        assert sorted(seen) == [(0, q) for q in range(17)] + [(1, q) for q in range(8)]
        orders.append(tuple(seen))
    assert len(set(orders)) == 4


def test_scenes_keep_to_themselves():
    """Each pair's similarity is the one in its own scene's labels; the scenes differ in size."""
    labels = [random_labels(1, queries=9, database=5), random_labels(2, queries=14, database=31)]
    scene, query, database, similarity = drawn(GradedSampler(labels, batch=64, seed=0), 2000)
    for number, one in enumerate(labels):
        here = scene == number
        assert database[here].max() < one.matrix.shape[1]
        np.testing.assert_array_equal(similarity[here], one.matrix.toarray()[query[here], database[here]])
        assert not one.excluded.toarray()[query[here], database[here]].any()


def test_ties_with_the_threshold_are_positive():
    labels = labelled([[0.49999999999999994, 0.4, 0]])
    _, _, database, _ = drawn(GradedSampler([labels], batch=10, seed=0, composition=(1, 0, 0)), 50)
    assert set(database.tolist()) == {0}
    _, _, database, _ = drawn(GradedSampler([labels], batch=10, seed=0, composition=(0, 1, 0)), 50)
    assert set(database.tolist()) == {1}


EMPTY = np.zeros((20, 6))
EMPTY[:10, 0] = 0.8  # ten queries have a positive, none has a soft pair, all have zeros


def test_a_query_without_the_class_is_dropped():
    """skip: a pass is shorter, shares deviate. Of the queries with a positive 3/4 of the draws hit a class they have."""
    sampler = GradedSampler([labelled(EMPTY)], batch=10_000, seed=2)
    _, query, _, similarity = drawn(sampler, 10_000)
    with_positive = query < 10
    assert abs(with_positive.mean() - 3 / 4) < 0.03  # 0.75 of ten queries against 0.25 of the other ten
    assert abs((similarity[with_positive] > 0).mean() - 2 / 3) < 0.03
    assert (similarity[~with_positive] == 0).all()


def test_or_draws_among_the_classes_it_has():
    sampler = GradedSampler([labelled(EMPTY)], batch=20, seed=2, on_empty="resample")
    for _ in range(5):
        assert sorted(next(sampler).query.tolist()) == list(range(20))
    _, query, _, similarity = drawn(sampler, 10_000)
    assert abs((similarity[query < 10] > 0).mean() - 2 / 3) < 0.03


def test_a_class_without_a_share_is_never_drawn():
    for on_empty in ("skip", "resample"):
        _, query, _, similarity = drawn(
            GradedSampler([labelled(EMPTY)], batch=10, seed=2, composition=(0.5, 0.5, 0), on_empty=on_empty), 500
        )
        assert (similarity > 0).all()
        assert (query < 10).all()


@pytest.mark.parametrize("batch", [1, 7, 33, 100])
@pytest.mark.parametrize("stop", [0, 1, 2, 5, 13])
def test_a_restored_sampler_draws_what_would_have_come(batch, stop):
    labels = [random_labels(1, queries=20), random_labels(2, queries=13)]
    whole = GradedSampler(labels, batch=batch, seed=5)
    for _ in range(stop):
        next(whole)
    restored = GradedSampler(labels, batch=batch, seed=5)
    restored.restore({str(k): int(v) for k, v in whole.state().items()})
    for _ in range(12):
        mine, theirs = next(whole), next(restored)
        for name in ("scene", "query", "database", "similarity", "weight"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))


def test_the_seed_is_all_that_changes_the_draws():
    labels = [random_labels(1)]
    first, again, other = (drawn(GradedSampler(labels, batch=10, seed=seed), 100) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[2], other[2])
    small = drawn(GradedSampler(labels, batch=5, seed=1), 100)
    assert all(np.array_equal(a, b) for a, b in zip(first, small, strict=True))


def test_a_batch_is_full_however_small_the_pass():
    assert len(next(GradedSampler([labelled([[0.7, 0]])], batch=64, seed=0))) == 64


def test_no_matrix_becomes_dense():
    """Labels of 200,000 x 200,000, a few positives each: a dense row mask would be 40 GB."""
    n, random = 200_000, np.random.default_rng(0)
    rows = np.repeat(np.arange(n), 3)
    columns = (rows + np.tile([0, 1, 5], n)) % n
    matrix = sparse.csr_array((random.uniform(0.1, 1, size=3 * n), (rows, columns)), shape=(n, n))
    names = tuple(map(str, range(n)))
    tracemalloc.start()
    begun = time.process_time()
    labels = Labels(
        matrix, names, names, rule="x", excluded=sparse.csr_array((np.ones(n, dtype=bool), (np.arange(n), np.arange(n))), shape=(n, n))
    )
    pairs = next(GradedSampler([labels], batch=1000, seed=0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 400e6
    assert time.process_time() - begun < 20
    assert (pairs.query != pairs.database).all()
    assert 0.1 < (pairs.similarity == 0).mean() < 0.5


@pytest.mark.parametrize(("options", "said"), [
    ({"composition": (0.5, 0.5)}, "three shares"),
    ({"composition": (0.5, 0.5, 0.5)}, "add up to 1"),
    ({"composition": (1.5, -0.5, 0)}, "three shares"),
    ({"composition": ("much", 0, 0)}, "three shares"),
    ({"composition": None}, "three shares"),
    ({"balance": "images"}, "'images'"),
    ({"composition": (np.nan, 0.5, 0.5)}, "three shares"),
    ({"batch": 0}, "batch must be >= 1"),
    ({"on_empty": "drop"}, "'drop'"),
    ({"threshold": 0}, "threshold"),
    ({"threshold": np.nan}, "threshold"),
    ({"composition": (0, 1, 0)}, "no pair of any class"),
])  # fmt: skip
def test_parameters_are_checked(options, said):
    with pytest.raises(InvalidInputError, match=said):
        GradedSampler([labelled([[0.7, 0]])], **({"batch": 4, "seed": 0} | options))


def test_no_labels_are_refused():
    with pytest.raises(InvalidInputError, match="0 queries in 0 scenes"):
        GradedSampler([], batch=4, seed=0)


def test_pairs_are_checked():
    one = np.zeros(1, dtype=np.int64)
    with pytest.raises(InvalidInputError, match=r"one length"):
        Pairs(one, one, one, np.zeros(2), np.ones(1))
    for similarity, weight in ((1.5, 1), (np.nan, 1), (0.5, -1), (0.5, np.nan)):
        with pytest.raises(InvalidInputError, match=r"in \[0, 1\]"):
            Pairs(one, one, one, np.array([similarity]), np.array([weight]))
    lists = np.zeros((1, 3), dtype=np.int64)
    assert len(Pairs(one, one, lists, np.zeros((1, 3)), np.ones(1))) == 1
    for database, similarity in ((lists, np.zeros(1)), (one, np.zeros((1, 3))), (lists[None], np.zeros((1, 1, 3)))):
        with pytest.raises(InvalidInputError, match=r"both \(P, 1 \+ negatives\)"):
            Pairs(one, one, database, similarity, np.ones(1))


# -- binary labels --


def test_binarize_changes_the_similarities_and_nothing_else():
    labels = [random_labels(1), random_labels(2)]
    graded, binary = (next(GradedSampler(labels, batch=300, seed=5, binarize=flag, threshold=0.3)) for flag in (False, True))
    for name in ("scene", "query", "database"):
        np.testing.assert_array_equal(getattr(graded, name), getattr(binary, name))
    np.testing.assert_array_equal(binary.similarity, graded.similarity >= 0.3 - 1e-9)


def test_binary_negatives_are_uniform_over_all_that_are_not_positive():
    """Soft and zero images come as they are: 2 soft and 7 zero ones of 9 each get a ninth of the negatives."""
    matrix = np.zeros((50, 12))
    matrix[:, [1, 4]], matrix[:, [0, 8]] = 0.7, 0.3
    excluded = np.zeros((50, 12), dtype=bool)
    excluded[:, 2] = True
    _, query, database, similarity = drawn(BinarySampler([labelled(matrix, excluded)], batch=500, seed=4), 30_000)
    np.testing.assert_array_equal(similarity, matrix[query, database] >= 0.5)
    assert abs(similarity.mean() - 0.5) < 0.015
    counts = np.bincount(database[similarity == 0], minlength=12)
    assert counts[[1, 2, 4]].sum() == 0
    assert stats.chisquare(counts[[0, 3, 5, 6, 7, 8, 9, 10, 11]]).pvalue > 1e-3


def test_binary_shares_are_an_option():
    _, _, _, similarity = drawn(BinarySampler([random_labels(0)], batch=500, seed=4, shares=(0.2, 0.8)), 10_000)
    assert abs(similarity.mean() - 0.2) < 0.02
    with pytest.raises(InvalidInputError, match=r"shares must be two shares \(positive, negative\)"):
        BinarySampler([random_labels(0)], batch=5, seed=4, shares=(0.5, 0.25, 0.25))


def test_without_soft_negatives():
    _, _, _, similarity = drawn(SoftNegativeFreeSampler([random_labels(0)], batch=500, seed=4), 5000)
    found = np.bincount(kinds(similarity), minlength=3) / 5000
    assert found[1] == 0
    assert abs(found[0] - 0.5) < 0.03
    same = GradedSampler([random_labels(0)], batch=500, seed=4, composition=(0.5, 0, 0.5))
    np.testing.assert_array_equal(next(same).database, next(SoftNegativeFreeSampler([random_labels(0)], batch=500, seed=4)).database)


# -- scenes --


def test_balanced_scenes_come_equally_often():
    """By queries a scene of 4 gets a thirteenth of the pairs, by scenes a third; in both each of its queries comes equally often."""
    sizes = (40, 8, 4)
    labels = [random_labels(seed, queries=size) for seed, size in enumerate(sizes)]
    for balance, shares in (("queries", np.array(sizes) / 52), ("scenes", np.full(3, 1 / 3))):
        scene, query, _, _ = drawn(GradedSampler(labels, batch=52, seed=1, balance=balance), 5200)
        np.testing.assert_allclose(np.bincount(scene) / 5200, shares, atol=0.02)
        for number, size in enumerate(sizes):
            counts = np.bincount(query[scene == number], minlength=size)
            assert stats.chisquare(counts).pvalue > 1e-3


def test_a_scene_with_nothing_to_draw_takes_no_turn():
    labels = [labelled(np.zeros((9, 4))), random_labels(1, queries=3)]
    scene, *_ = drawn(GradedSampler(labels, batch=6, seed=1, balance="scenes", composition=(1, 0, 0)), 60)
    assert set(scene.tolist()) == {1}


# -- every sampler of the table --

OF_PAIRS = {"graded": (0.5, 0.25, 0.25), "soft-negative-free": (0.5, 0, 0.5), "binary": None}


def training_labels():
    """Three scenes, each image against each; one without any positive; some pairs excluded."""
    made = []
    for number, size in enumerate((30, 9, 17)):
        random = np.random.default_rng(number)
        matrix = random.choice([0, 0, 0, 0, 0.1, 0.3, 0.5, 0.8], size=(size, size))
        excluded = (random.random(matrix.shape) < 0.05) | np.eye(size, dtype=bool)
        names = tuple(f"{number}/{i}" for i in range(size))
        matrix = np.minimum(matrix, 0.4) if number == 1 else matrix
        made.append(Labels(sparse.csr_array(matrix), names, names, rule="by hand", excluded=sparse.csr_array(excluded)))
    return made


def describe(scene, queries, database):
    return np.random.default_rng([7, scene]).normal(size=(30, 8))[np.r_[queries, database]].astype(np.float32)


def made(name, labels=None, **options):
    if name == "triplets":
        options = {"negatives": 3, "cache": 8, "pool": 12} | options
    return SAMPLERS[name](training_labels() if labels is None else labels, describe=describe, **({"batch": 5, "seed": 2} | options))


def same(mine, theirs):
    return all(
        np.array_equal(getattr(mine, name), getattr(theirs, name)) for name in ("scene", "query", "database", "similarity", "weight")
    )


def test_the_table():
    assert set(SAMPLERS) == {"binary", "graded", "soft-negative-free", "triplets"}


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_gives_pairs_of_the_labels(name):
    labels, sampler = training_labels(), made(name, batch=40)
    assert iter(sampler) is sampler
    scenes = set()
    for pairs in itertools.islice(sampler, 30):
        assert isinstance(pairs, Pairs)
        assert len(pairs) == 40
        assert pairs.database.shape == ((40, 4) if name == "triplets" else (40,))
        for number, one in enumerate(labels):
            here = np.flatnonzero(pairs.scene == number)
            query = pairs.query[here] if pairs.database.ndim == 1 else pairs.query[here, None]
            graded = one.matrix.toarray()[query, pairs.database[here]]
            np.testing.assert_array_equal(pairs.similarity[here], graded >= 0.5 if name == "binary" else graded)
            assert not one.excluded.toarray()[query, pairs.database[here]].any()
        scenes |= set(pairs.scene.tolist())
    assert scenes == ({0, 2} if name == "triplets" else {0, 1, 2})


@pytest.mark.parametrize("name", sorted(OF_PAIRS))
def test_every_sampler_of_pairs_keeps_its_composition(name):
    _, _, _, similarity = drawn(made(name, on_empty="resample", labels=[random_labels(0)], batch=500), 10_000)
    shares = OF_PAIRS[name] or (0.5, 0, 0.5)
    np.testing.assert_allclose(np.bincount(kinds(similarity), minlength=3) / 10_000, shares, atol=0.025)


@pytest.mark.parametrize("stop", [0, 1, 4, 7])
@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_goes_on_where_it_was(name, stop, tmp_path):
    """The state survives a checkpoint that is loaded without running code."""
    import torch

    whole = made(name)
    for _ in range(stop):
        next(whole)
    torch.save({"sampler": whole.state()}, tmp_path / "state")
    restored = made(name)
    restored.restore(torch.load(tmp_path / "state", weights_only=True)["sampler"])
    assert restored.state() == whole.state()
    for _ in range(12):
        assert same(next(whole), next(restored))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_state_stays_what_it_was(name):
    """Training keeps the state of some batches ago: drawing on does not change it."""
    sampler = made(name)
    next(sampler)
    kept = sampler.state()
    copied = copy.deepcopy(kept)
    following = [next(sampler) for _ in range(9)]
    assert kept == copied
    sampler.restore(kept)
    assert all(same(next(sampler), one) for one in following)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_depends_on_its_seed_alone(name):
    first, again, other = (next(made(name, seed=seed)) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_the_batch_is_only_a_cut(name):
    """The stream of items is the same whatever the batch (of a network that does not change)."""
    small, large = made(name, batch=3), made(name, batch=12)
    parts = [next(small) for _ in range(4)]
    assert np.array_equal(np.concatenate([one.database for one in parts]), next(large).database)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_refuses_labels_without_a_pair(name):
    nothing = Labels(sparse.csr_array((2, 2)), ("a", "b"), ("a", "b"), rule="x", excluded=sparse.csr_array(np.ones((2, 2), dtype=bool)))
    with pytest.raises(InvalidInputError, match=r"(?s)hold no pair|No query of 2 in 1 scenes"):
        made(name, [nothing])
    with pytest.raises(InvalidInputError, match=r"in 0 scenes"):
        made(name, [])
