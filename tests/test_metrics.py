"""Every metric against plain loops, scikit-learn and scipy where they define the same, and the laws that hold for all."""

import math

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, ndcg_score

from covis.errors import InvalidInputError
from covis.hits import hits
from covis.metrics import METRICS, NEEDS, average_precision, graded_recall, ndcg, position_error, rank_correlation, recall, recall_at
from covis.rankings import Rankings

CONVENTIONS = ("msls", "relevant", "found")
NAN = float("nan")


def ranked(rows, database, distances=None):
    rows = np.asarray(rows, dtype=int)
    distances = np.full(rows.shape, np.nan) if distances is None else distances
    return Rankings(rows, distances, tuple(f"q{i}" for i in range(len(rows))), tuple(f"d{i}" for i in range(database)))


@st.composite
def cases(draw, odd=True):
    """(rows, distances), positives, excluded, similarity, searched; plain ones rank everything and leave nothing out."""
    queries, database = draw(st.integers(0, 4)), draw(st.integers(0, 7))
    found = draw(st.integers(0, database + 2)) if odd else database
    rows = [draw(st.permutations([*range(database), *([-1, -1] if odd else [])]))[:found] for _ in range(queries)]
    shape = (queries, database)
    similarity = draw(arrays.arrays(float, shape, elements=st.sampled_from([0, 0, 0.25, 0.5, 0.7, 1])))
    positives = draw(arrays.arrays(bool, shape))
    excluded = draw(arrays.arrays(bool, shape)) if odd else np.zeros(shape, dtype=bool)
    searched = draw(arrays.arrays(bool, database)) if odd else np.ones(database, dtype=bool)
    steps = draw(arrays.arrays(float, (queries, found), elements=st.sampled_from([0, 0.5, 1])))
    return (np.array(rows, dtype=int).reshape(queries, found), np.cumsum(steps, axis=1)), positives, excluded, similarity, searched


def viewed(case, **options):
    (rows, distances), positives, excluded, similarity, searched = case
    matrices = {"excluded": sparse.csr_array(excluded), "similarity": sparse.csr_array(similarity), "searched": searched}
    return hits(ranked(rows, len(searched), distances), sparse.csr_array(positives), **(matrices | {"short": "use"} | options))


def listed(case):
    """For each query: [(database image or -1, distance)] without what takes no rank, its positives, its similarities."""
    (rows, distances), positives, excluded, similarity, searched = case
    for query, found in enumerate(rows):
        may = {d for d in range(len(searched)) if searched[d] and not excluded[query, d]}
        stays = [(int(d), float(distances[query, rank])) for rank, d in enumerate(found) if d < 0 or d in may]
        yield stays, {d for d in may if positives[query, d]}, {d: float(similarity[query, d]) for d in may}


def loops(case, k):
    """Every metric, query by query, from its definition."""
    values = {name: [] for name in (*METRICS, *CONVENTIONS)}
    for stays, positives, similarity in listed(case):
        first = stays[:k]
        gains = [similarity.get(d, 0.0) for d, _ in first]
        seen, total = 0, 0.0
        for rank, (d, _) in enumerate(first, start=1):
            if d in positives:
                seen += 1
                total += seen / rank
        values["recall"].append(float(seen > 0) if positives else NAN)
        values["msls"].append(total / min(len(positives), k) if positives else NAN)
        values["relevant"].append(total / len(positives) if positives else NAN)
        values["found"].append((total / seen if seen else 0.0) if positives else NAN)
        values["mAP"].append(values["msls"][-1])
        ideal = sorted(similarity.values(), reverse=True)[:k]
        gained, possible = (sum(gain / math.log2(rank + 2) for rank, gain in enumerate(part)) for part in (gains, ideal))
        values["graded-recall"].append(max(gains, default=0.0) if possible else NAN)
        values["nDCG"].append(gained / possible if possible else NAN)
        varied = len(first) >= 3 and len(set(gains)) > 1 and len({far for _, far in first}) > 1
        values["rank-correlation"].append(spearmanr([-far for _, far in first], gains).statistic if varied else NAN)
    return values


@given(case=cases(), k=st.integers(1, 10))
def test_every_metric_is_what_loops_say(case, k):
    view, expected = viewed(case), loops(case, k)
    for name, metric in METRICS.items():
        np.testing.assert_allclose(metric(view, k=k), expected[name], atol=1e-12, err_msg=name)
    for name in CONVENTIONS:
        np.testing.assert_allclose(average_precision(view, k=k, convention=name), expected[name], atol=1e-12, err_msg=name)


@given(case=cases(odd=False))
def test_what_others_define_alike(case):
    """Over whole rankings: AP of "relevant" is scikit-learn's, nDCG too."""
    (rows, _), positives, _, similarity, searched = case
    view, n = viewed(case), len(searched)
    precision, gain = (metric(view, k=max(n, 1)) for metric in (lambda v, k: average_precision(v, k=k, convention="relevant"), ndcg))
    for query, found in enumerate(rows):
        score = -np.argsort(found)
        if positives[query].any():
            assert precision[query] == pytest.approx(average_precision_score(positives[query], score))
        if similarity[query].any() and n > 1:
            assert gain[query] == pytest.approx(ndcg_score(similarity[[query]], score[None]))
            assert ndcg(view, k=3)[query] == pytest.approx(ndcg_score(similarity[[query]], score[None], k=3))


@given(case=cases(), k=st.integers(1, 10))
def test_bounds(case, k):
    view = viewed(case)
    for name, metric in METRICS.items():
        values = metric(view, k=k)
        values = values[~np.isnan(values)]
        assert ((values >= (-1 if name == "rank-correlation" else 0)) & (values <= 1)).all(), name
    msls, relevant, found = (average_precision(view, k=k, convention=convention) for convention in CONVENTIONS)
    counted = ~np.isnan(msls)
    assert (relevant <= msls + 1e-12)[counted].all()
    assert (msls <= found + 1e-12)[counted].all()
    assert (found <= recall(view, k=k))[counted].all()


@given(case=cases())
def test_recalls_only_grow_with_k(case):
    view = viewed(case)
    for metric in (recall, graded_recall, lambda v, k: average_precision(v, k=k, convention="relevant")):
        curve = np.array([metric(view, k=k) for k in range(1, 11)])
        counted = ~np.isnan(curve[0])
        assert (np.diff(curve[:, counted], axis=0) >= -1e-12).all()
        assert (np.isnan(curve) == ~counted).all()


@given(case=cases(odd=False), beyond=st.integers(1, 5))
def test_everything_is_found_in_the_end(case, beyond):
    """Also for a k beyond the database, which is no short ranking."""
    view, similarity = viewed(case, short="refuse"), case[3]
    found, best = (metric(view, k=len(case[4]) + beyond) for metric in (recall, graded_recall))
    np.testing.assert_array_equal(found, np.where(case[1].any(axis=1), 1, NAN))
    np.testing.assert_array_equal(best, np.where(similarity.any(axis=1), similarity.max(axis=1, initial=0), NAN))


@given(case=cases())
def test_at_one_precision_is_recall(case):
    view = viewed(case)
    np.testing.assert_array_equal(average_precision(view, k=1), recall(view, k=1))
    np.testing.assert_array_equal(average_precision(view, k=1, convention="found"), recall(view, k=1))


@given(case=cases(), k=st.integers(1, 10))
def test_graded_recall_of_zeros_and_ones_is_recall(case, k):
    view = viewed(case, similarity=sparse.csr_array(case[1].astype(float)))
    np.testing.assert_array_equal(graded_recall(view, k=k), recall(view, k=k))


@given(case=cases(), k=st.integers(1, 10))
def test_the_order_of_queries_does_not_matter(case, k):
    (rows, distances), positives, excluded, similarity, searched = case
    order = np.arange(len(rows))[::-1]
    turned = (rows[order], distances[order]), positives[order], excluded[order], similarity[order], searched
    for name, metric in METRICS.items():
        np.testing.assert_array_equal(metric(viewed(turned), k=k), metric(viewed(case), k=k)[order], err_msg=name)


@given(case=cases(), k=st.integers(1, 10), known=st.booleans())
def test_an_irrelevant_image_at_the_end_changes_nothing(case, k, known):
    """Nor within the first k, where the ranking was short: it overlaps nothing, or is no database image."""
    (rows, distances), positives, excluded, similarity, searched = case
    wide = [np.pad(part, ((0, 0), (0, 1))) for part in (positives, excluded, similarity)]
    column = np.full((len(rows), 1), len(searched) if known else -1)
    last = distances[:, -1:] if rows.shape[1] else np.zeros((len(rows), 1))
    more = (np.hstack([rows, column]), np.hstack([distances, last])), *wide, np.append(searched, np.True_)
    view, wider = viewed(case), viewed(more)
    for name in ("recall", "mAP", "graded-recall", "nDCG"):
        np.testing.assert_array_equal(METRICS[name](wider, k=k), METRICS[name](view, k=k), err_msg=name)


@given(similarity=arrays.arrays(float, (3, 6), elements=st.sampled_from([0, 0.1, 0.5, 0.7, 1])), k=st.integers(1, 8))
def test_the_ideal_order_has_ndcg_one_and_correlation_one(similarity, k):
    rows = np.argsort(-similarity, axis=1, kind="stable")
    distances = 1 - np.take_along_axis(similarity, rows, axis=1)
    view = hits(ranked(rows, 6, distances), sparse.csr_array((3, 6), dtype=bool), similarity=sparse.csr_array(similarity))
    overlap = similarity.any(axis=1)
    assert ndcg(view, k=k)[overlap] == pytest.approx(1, abs=1e-15)
    assert np.isnan(ndcg(view, k=k)[~overlap]).all()
    rho = rank_correlation(view, k=k)
    assert rho[~np.isnan(rho)] == pytest.approx(1, abs=1e-12)
    turned = hits(ranked(rows[:, ::-1], 6, 1 - distances[:, ::-1]), sparse.csr_array((3, 6), dtype=bool), similarity=view.graded)
    assert rank_correlation(turned, k=6)[~np.isnan(rank_correlation(turned, k=6))] == pytest.approx(-1, abs=1e-12)


def test_ndcg_is_never_more_than_one():
    """Sums of other lengths round otherwise: of the ideal order's DCG over 30 found and 20 that overlap, some quotients are above 1."""
    similarity = np.pad(-np.sort(-np.random.default_rng(0).random((300, 20)), axis=1), ((0, 0), (0, 10)))
    rows = np.tile(np.arange(30), (300, 1))
    view = hits(ranked(rows, 30), sparse.csr_array((300, 30), dtype=bool), similarity=sparse.csr_array(similarity))
    assert 1 - 1e-12 < ndcg(view, k=30).min() <= ndcg(view, k=30).max() <= 1


def test_three_conventions():
    """Hits at 1 and 3, four relevant, k = 3: what ranx, the MSLS script and torchmetrics say."""
    view = hits(ranked([[0, 4, 1, 5]], 6), sparse.csr_array([[True] * 4 + [False] * 2]))
    found = [round(float(average_precision(view, k=3, convention=name)[0]), 3) for name in ("relevant", "msls", "found")]
    assert found == [0.417, 0.556, 0.833]
    assert average_precision(view, k=3)[0] == average_precision(view, k=3, convention="msls")[0]
    with pytest.raises(InvalidInputError, match="'msls', 'relevant', 'found'; got 'trec'"):
        average_precision(view, k=3, convention="trec")


def test_short_rankings_divide_by_k_as_the_msls_script():
    """Three positives, two columns, k = 5: min(3, 5) divides, although only two could be found."""
    positives = sparse.csr_array([[True, True, True, False, False, False]])
    view = hits(ranked([[0, 1]], 6), positives, short="use")
    assert average_precision(view, k=5).tolist() == [2 / 3]
    assert recall(view, k=5).tolist() == [1]
    assert recall_at(ranked([[5, 4]], 6), positives, k=5, short="use").tolist() == [0]


def test_graded_metrics_by_hand():
    """Found 0.2, a stranger, 0.6; in the database 0.6, 0.4, 0.2."""
    found = ranked([[2, -1, 0, 3]], 4, [[0.1, 0.2, 0.3, 0.4]])
    view = hits(found, sparse.csr_array((1, 4), dtype=bool), similarity=sparse.csr_array([[0.6, 0.4, 0.2, 0]]))
    assert [graded_recall(view, k=k)[0] for k in (1, 2, 3, 4)] == [0.2, 0.2, 0.6, 0.6]
    assert ndcg(view, k=1)[0] == pytest.approx(0.2 / 0.6)
    assert ndcg(view, k=3)[0] == pytest.approx((0.2 + 0.6 / 2) / (0.6 + 0.4 / math.log2(3) + 0.2 / 2))
    # ranks of -distance 4 3 2 1, of similarity 3, 1.5, 4, 1.5
    assert rank_correlation(view, k=4)[0] == pytest.approx(spearmanr([4, 3, 2, 1], [0.2, 0, 0.6, 0]).statistic)
    assert np.isnan(recall(view, k=4)).all()


def test_correlation_is_undefined_without_order():
    similarity = sparse.csr_array([[0.1, 0.2, 0.3]] * 4 + [[0.5, 0.5, 0.5]])
    distances = np.array([[1, 2, 3], [1, 1, 1], [1, 2, np.nan], [np.nan] * 3, [1, 2, 3]])
    view = hits(ranked([[0, 1, 2]] * 5, 3, distances), sparse.csr_array((5, 3), dtype=bool), similarity=similarity)
    np.testing.assert_allclose(rank_correlation(view, k=3), [-1, np.nan, np.nan, np.nan, np.nan])
    assert np.isnan(rank_correlation(view, k=2)).all()
    infinite = hits(ranked([[0, 1, 2]], 3, [[1, np.inf, np.inf]]), sparse.csr_array((1, 3), dtype=bool), similarity=similarity[:1])
    assert rank_correlation(infinite, k=3)[0] == pytest.approx(spearmanr([-1, -2, -2], [1, 2, 3]).statistic)


def test_position_errors():
    view = hits(ranked([[1, 0], [0, 1], [-1, 0], [0, 1]], 2), sparse.csr_array((4, 2), dtype=bool), short="use")
    queries, database = [[0, 0], [0, 0], [0, 0], [NAN, 0]], [[3, 4], [1e6, 0]]
    np.testing.assert_array_equal(position_error(view, queries, database), [1e6, 5, NAN, NAN])
    nothing = hits(ranked(np.zeros((4, 0)), 2), sparse.csr_array((4, 2), dtype=bool), short="use")
    assert np.isnan(position_error(nothing, queries, database)).all()
    for wrong in ((queries[:3], database), (queries, [*database, [0, 0]]), (queries, [[1, 2, 3]] * 2), (queries, [])):
        with pytest.raises(InvalidInputError, match=r"\(queries, 2\) = \(4, 2\) and \(database, 2\) = \(2, 2\)"):
            position_error(view, *wrong)


@pytest.mark.parametrize("shape", [(0, 0, 0), (0, 3, 2), (2, 0, 0), (2, 3, 0), (2, 3, 2)])
def test_nothing_to_find_is_nan(shape):
    """No query, no database, no column; or all that was found, and all that was correct, is excluded."""
    queries, database, found = shape
    everything = sparse.csr_array(np.ones((queries, database), dtype=bool))
    for out in ({"excluded": everything}, {"searched": np.zeros(database, dtype=bool)}):
        rows = np.tile(np.arange(found), (queries, 1))
        view = hits(ranked(rows, database, np.zeros(rows.shape)), everything, similarity=everything, **out)
        for metric in METRICS.values():
            assert metric(view, k=3).shape == (queries,)
            assert np.isnan(metric(view, k=3)).all()
        assert np.isnan(position_error(view, np.zeros((queries, 2)), np.zeros((database, 2)))).all()


@given(case=cases(odd=False), k=st.integers(1, 10))
def test_recall_in_one_call(case, k):
    (rows, _), positives, _, _, searched = case
    excluded = np.random.default_rng(k).random(positives.shape) < 0.3
    found = recall_at(ranked(rows, len(searched)), sparse.csr_array(positives), k=k, excluded=sparse.csr_array(excluded))
    np.testing.assert_array_equal(found, oracles.recall(rows, positives, excluded, k))


def test_every_metric_of_the_table_follows_the_seam():
    """One value a query, NaN where there is nothing to find; refused by its name where k or the ranking is too small."""
    assert list(METRICS) == list(NEEDS) == ["recall", "mAP", "graded-recall", "nDCG", "rank-correlation"]
    truth = sparse.csr_array([[True, False, True, False], [False] * 4])
    found = ranked([[0, 2, 1], [0, 1, 2]], 4, [[0.1, 0.2, 0.3]] * 2)
    view, bare = (hits(found, truth, similarity=one) for one in (truth.astype(float), None))
    for name, metric in METRICS.items():
        values = metric(view, k=3)
        assert (values.shape, values.dtype) == ((2,), np.float64)
        assert values[0] == pytest.approx(3**0.5 / 2 if name == "rank-correlation" else 1)
        assert np.isnan(values[1])
        with pytest.raises(InvalidInputError, match=f"{name}@k must be >= 1; got 0"):
            metric(view, k=0)
        with pytest.raises(InvalidInputError, match=f"{name}@4 needs .* q0 has 3"):
            metric(view, k=4)
        if "similarity" in NEEDS[name]:
            with pytest.raises(InvalidInputError, match="needs graded similarity"):
                metric(bare, k=3)
        else:
            np.testing.assert_array_equal(metric(bare, k=3), values)
