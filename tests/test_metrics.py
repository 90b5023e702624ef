"""recall@k against plain loops; average precision against scikit-learn."""

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse
from sklearn.metrics import average_precision_score

from covis.descriptors import Descriptors
from covis.errors import InvalidInputError
from covis.metrics import METRICS, PooledPrecision, recall_at
from covis.rankings import Rankings


def ranked(rows, database):
    rows = np.asarray(rows)
    return Rankings(rows, np.full(rows.shape, np.nan), tuple(f"q{i}" for i in range(len(rows))), tuple(f"d{i}" for i in range(database)))


@st.composite
def cases(draw):
    queries, database = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    rows = [draw(st.permutations(range(database))) for _ in range(queries)]
    positives, excluded = (draw(arrays.arrays(bool, (queries, database))) for _ in range(2))
    return rows, positives, excluded


@given(case=cases(), k=st.integers(1, 10))
def test_recall_is_what_loops_say(case, k):
    rows, positives, excluded = case
    found = recall_at(ranked(rows, positives.shape[1]), sparse.csr_array(positives), k=k, excluded=sparse.csr_array(excluded))
    np.testing.assert_array_equal(found, oracles.recall(rows, positives, excluded, k))
    none = recall_at(ranked(rows, positives.shape[1]), sparse.csr_array(positives), k=k)
    np.testing.assert_array_equal(none, oracles.recall(rows, positives, np.zeros_like(excluded), k))


@given(case=cases())
def test_recall_only_grows_with_k_and_is_one_at_the_end(case):
    rows, positives, excluded = case
    found = ranked(rows, positives.shape[1])
    curve = np.array([recall_at(found, sparse.csr_array(positives), k=k, excluded=sparse.csr_array(excluded)) for k in range(1, 9)])
    counted = ~np.isnan(curve[0])
    assert (np.diff(curve[:, counted], axis=0) >= 0).all()
    assert (curve[-1, counted] == 1).all()
    assert (np.isnan(curve) == ~counted).all()


def test_excluded_pairs_take_no_rank():
    found = ranked([[0, 1, 2]], 3)
    positives, excluded = sparse.csr_array([[False, True, False]]), sparse.csr_array([[True, False, False]])
    assert recall_at(found, positives, k=1).tolist() == [0]
    assert recall_at(found, positives, k=1, excluded=excluded).tolist() == [1]
    assert np.isnan(recall_at(found, excluded, k=1, excluded=excluded)).all()


def test_rankings_that_are_too_short_are_refused():
    positives = sparse.csr_array(np.ones((2, 5), dtype=bool))
    found = ranked([[0, 1, 2], [3, 4, 0]], 5)
    recall_at(found, positives, k=3)
    with pytest.raises(InvalidInputError, match=r"recall@4 needs the first 4.*q0 has 3\. Search with a larger k"):
        recall_at(found, positives, k=4)
    excluded = sparse.csr_array(np.array([[0, 0, 0, 0, 0], [0, 0, 0, 1, 0]], dtype=bool))
    with pytest.raises(InvalidInputError, match="q1 has 2"):
        recall_at(found, positives, k=3, excluded=excluded)
    everything = ranked([[0, 1], [1, 0]], 2)
    assert recall_at(everything, sparse.csr_array(np.ones((2, 2), dtype=bool)), k=25).tolist() == [1, 1]


def test_inputs_of_recall_are_checked():
    found = ranked([[0]], 2)
    with pytest.raises(InvalidInputError, match=">= 1; got 0"):
        recall_at(found, sparse.csr_array((1, 2), dtype=bool), k=0)
    with pytest.raises(InvalidInputError, match=r"\(1, 2\).*\(2, 2\)"):
        recall_at(found, sparse.csr_array((2, 2), dtype=bool), k=1)
    wrong = sparse.csr_array(np.ones((1, 3), dtype=bool))
    with pytest.raises(InvalidInputError, match="excluded"):
        recall_at(found, sparse.csr_array((1, 2), dtype=bool), k=1, excluded=wrong)


def test_every_metric_of_the_table_follows_the_seam():
    assert {"recall": recall_at} == METRICS
    for metric in METRICS.values():
        value = metric(ranked([[0], [0]], 1), sparse.csr_array(np.array([[True], [False]])), k=1, excluded=None)
        assert value.shape == (2,)
        assert value.dtype == np.float64
        assert value[0] == 1
        assert np.isnan(value[1])


def described(vectors, side):
    vectors = np.asarray(vectors, dtype=np.float32)
    return Descriptors(vectors, tuple(f"{side}{i}" for i in range(len(vectors))), "m")


def place(random, queries, database, dim=4, share=0.2):
    q, d = (random.normal(size=(n, dim)).astype(np.float32) for n in (queries, database))
    return (described(q, "q"), described(d, "d")), random.random((queries, database)) < share, random.random((queries, database)) < 0.1


def flat(sides, positives, excluded, dtype, repeats=None):
    """scores and truth of all pairs, as scikit-learn takes them; each query as often as `repeats` says."""
    scores, truth = [], []
    start = 0
    for (q, d), marks, out in zip(sides, positives, excluded, strict=True):
        distances = oracles.all_distances(q.vectors, d.vectors, dtype)
        for row in range(len(q)):
            times = 1 if repeats is None else int(repeats[start + row])
            scores += [distances[row][~out[row]]] * times
            truth += [marks[row][~out[row]]] * times
        start += len(q)
    return np.concatenate(truth), -np.concatenate(scores).astype(np.float64)


def pooled(sides, positives, excluded, dtype):
    return PooledPrecision(
        sides, [sparse.csr_array(p) for p in positives], excluded=[sparse.csr_array(e) for e in excluded], distances=dtype
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_scikit_learn(dtype, seed):
    random = np.random.default_rng(seed)
    sides, positives, excluded = zip(*(place(random, *size) for size in ((30, 40), (7, 300), (300, 5))), strict=True)
    truth, score = flat(sides, positives, excluded, dtype)
    assert dtype == "float32" or len(np.unique(score)) < 0.9 * len(score)
    found = pooled(sides, positives, excluded, dtype)
    assert found.value() == pytest.approx(average_precision_score(truth, score), abs=1e-12 if dtype == "float16" else 1e-6)
    assert found.value() == pytest.approx(oracles.average_precision(-score[::1], truth), abs=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_query_weights_are_repeated_queries(dtype):
    random = np.random.default_rng(9)
    sides, positives, excluded = zip(*(place(random, *size) for size in ((12, 40), (9, 30))), strict=True)
    unit = np.array([0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 6, 6, 6, 7, 7, 8, 8, 9, 10])
    found = pooled(sides, positives, excluded, dtype)
    statistic = found.by_unit(unit)
    assert statistic(np.ones(21)) == pytest.approx(found.value(), abs=1e-12)
    for _ in range(10):
        weights = np.bincount(random.integers(11, size=11), minlength=11)[unit]
        truth, score = flat(sides, positives, excluded, dtype, repeats=weights)
        assert statistic(weights.astype(float)) == pytest.approx(average_precision_score(truth, score), abs=1e-6)
    assert np.isnan(statistic(np.zeros(21)))


def test_more_positives_than_bins():
    """6,000 positives: the value stays exact, and its binned form comes within a thousandth."""
    random = np.random.default_rng(3)
    sides, positives, excluded = place(random, 150, 200)
    found = pooled([sides], [positives], [excluded], "float32")
    assert len(found.edges) > 4096
    truth, score = flat([sides], [positives], [excluded], "float32")
    assert found.value() == pytest.approx(average_precision_score(truth, score), abs=1e-6)
    assert found.by_unit(np.arange(150))(np.ones(150)) == pytest.approx(found.value(), abs=1e-3)


def test_average_precision_by_hand():
    """Distances 1, 2, 3, 4; right, wrong, right, wrong: (1 + 2/3) / 2."""
    q, d = described([[0.0]], "q"), described([[1.0], [2.0], [3.0], [4.0]], "d")
    marks = np.array([[True, False, True, False]])
    none = np.zeros_like(marks)
    assert pooled([(q, d)], [marks], [none], "float32").value() == pytest.approx((1 + 2 / 3) / 2)
    assert pooled([(q, d)], [marks], [np.array([[True, False, False, False]])], "float32").value() == pytest.approx(1 / 2)
    assert np.isnan(pooled([(q, d)], [none], [none], "float32").value())
    assert np.isnan(PooledPrecision([], [], excluded=[]).value())
    tied = described([[1.0], [1.0], [1.0], [1.0]], "d")
    assert pooled([(q, tied)], [marks], [none], "float32").value() == pytest.approx(0.5)


def test_distances_beyond_float16_tie():
    """Descriptors that are not normalised may lie further apart than float16 holds: those pairs tie, none is lost."""
    q, d = described([[0.0]], "q"), described([[1.0], [1e5], [2e5], [3e5]], "d")
    marks = np.array([[True, True, False, False]])
    none = np.zeros_like(marks)
    assert pooled([(q, d)], [marks], [none], "float16").value() == pytest.approx((1 + 2 / 4) / 2)
    assert pooled([(q, d)], [marks], [none], "float32").value() == 1


def test_inputs_of_precision_are_checked():
    q, d = described(np.zeros((2, 2)), "q"), described(np.zeros((3, 2)), "d")
    with pytest.raises(InvalidInputError, match=r"\(2, 3\).*\(3, 2\)"):
        PooledPrecision([(q, d)], [sparse.csr_array((3, 2), dtype=bool)], excluded=[None])
    with pytest.raises(InvalidInputError, match="q1 is not"):
        PooledPrecision([(described([[0, 0], [0, np.nan]], "q"), d)], [sparse.csr_array((2, 3), dtype=bool)], excluded=[None])
