"""Average precision over pairs against scikit-learn; the curve of best matches and quantiles against loops and numpy."""

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse
from sklearn.metrics import average_precision_score

from covis import metrics
from covis.curves import MatchCurve, PooledPrecision, match_curve, weighted_quantile
from covis.descriptors import Descriptors
from covis.errors import InvalidInputError
from covis.hits import hits
from covis.rankings import Rankings


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
    assert np.isnan(metrics.PooledPrecision([], [], excluded=[]).value())  # also found where it was
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


@st.composite
def matches(draw):
    """(distances, correct, counted, weights) of best matches with ties; a query without a match has no distance."""
    n = draw(st.integers(0, 12))
    distances = draw(arrays.arrays(float, n, elements=st.sampled_from([0.1, 0.2, 0.3, 0.4, np.inf, np.nan])))
    correct, counted = (draw(arrays.arrays(bool, n)) for _ in range(2))
    weights = draw(arrays.arrays(float, n, elements=st.sampled_from([0, 1, 1, 2, 3])))
    return distances, correct & ~np.isnan(distances), counted, weights


def slow_curve(distances, correct, counted, weights):
    """(points, AP, recall at full precision), each query as often as its weight says, threshold by threshold."""
    drawn = [query for query in range(len(distances)) for _ in range(int(weights[query])) if counted[query]]
    points, area, before, full, clean = [], 0.0, 0.0, 0.0, True
    for threshold in sorted({float(distances[query]) for query in drawn if not np.isnan(distances[query])}):
        believed = [query for query in drawn if distances[query] <= threshold]
        right = sum(bool(correct[query]) for query in believed)
        precision, recalled = right / len(believed), right / len(drawn)
        area += (recalled - before) * precision
        clean = clean and right == len(believed)
        full = recalled if clean else full
        before = recalled
        points.append((threshold, precision, recalled))
    return points, area if drawn else np.nan, full if drawn else np.nan


@given(case=matches())
def test_the_match_curve_is_what_loops_say(case):
    distances, correct, counted, weights = case
    curve = MatchCurve(distances, correct, counted)
    points, area, full = slow_curve(distances, correct, counted, np.ones(len(distances)))
    np.testing.assert_allclose(np.array(curve.points()).T.reshape(-1, 3), np.reshape(points, (-1, 3)))
    assert curve.average_precision() == pytest.approx(area, nan_ok=True)
    assert curve.recall_at_full_precision() == pytest.approx(full, nan_ok=True)
    _, area, full = slow_curve(*case)
    assert curve.average_precision(weights) == pytest.approx(area, nan_ok=True)
    assert curve.recall_at_full_precision(weights) == pytest.approx(full, nan_ok=True)


@given(case=matches())
def test_laws_of_the_match_curve(case):
    """Bounds; scikit-learn's AP times the share that is right; any growing function of distance; the order of queries."""
    distances, correct, counted, weights = case
    curve = MatchCurve(distances, correct, counted)
    area, full = curve.average_precision(weights), curve.recall_at_full_precision(weights)
    if not (weights * counted).any():
        assert np.isnan([area, full]).all()
        return
    ends = float((weights * counted * correct).sum() / (weights * counted).sum())
    assert 0 <= full <= area + 1e-12 <= ends + 2e-12 <= 1 + 2e-12
    part = counted & np.isfinite(distances)
    if (weights * correct)[part].any() and not np.isinf(distances[counted]).any():
        theirs = average_precision_score(correct[part], -distances[part], sample_weight=weights[part])
        assert area == pytest.approx(theirs * ends)
    order = np.arange(len(distances))[::-1]
    other = MatchCurve(np.exp(distances[order]), correct[order], counted[order])
    assert other.average_precision(weights[order]) == pytest.approx(area)
    assert other.recall_at_full_precision(weights[order]) == pytest.approx(full)


def test_ties_are_taken_conservatively():
    """A right match at the distance of the first wrong one is not before it."""
    tied = MatchCurve([0.1, 0.2, 0.2, 0.3], [True, True, False, True], [True] * 4)
    assert tied.recall_at_full_precision() == 0.25
    assert [part.tolist() for part in tied.points()] == [[0.1, 0.2, 0.3], [1, 2 / 3, 3 / 4], [0.25, 0.5, 0.75]]
    assert tied.recall_at_full_precision([1, 1, 0, 1]) == 1
    assert tied.recall_at_full_precision([0, 1, 1, 1]) == 0
    assert MatchCurve([0.1, 0.2], [True, True], [True, True]).recall_at_full_precision() == 1


def view(rows, distances, positives, **options):
    names = [tuple(f"{side}{i}" for i in range(n)) for side, n in zip("qd", positives.shape, strict=True)]
    return hits(Rankings(rows, distances, *names), sparse.csr_array(positives), **options)


def test_scenes_are_pooled_in_one_curve():
    one = view([[0, 1], [1, 0], [0, 1]], [[0.1, 0.2], [0.2, 0.3], [0.15, 0.9]], np.array([[1, 0], [1, 0], [0, 0]], dtype=bool))
    two = view([[2]], [[0.3]], np.array([[0, 0, 1]], dtype=bool))
    curve = match_curve([one, two])
    np.testing.assert_array_equal(curve.distances, np.float32([0.1, 0.2, 0.15, 0.3]))
    assert curve.correct.tolist() == [True, False, False, True]
    assert curve.counted.tolist() == [True, True, False, True]
    assert curve.points()[2][-1] == pytest.approx(np.nanmean(np.concatenate([metrics.recall(one, k=1), metrics.recall(two, k=1)])))
    everyone = match_curve([one, two], counted=[True] * 4)
    assert [round(p, 3) for p in everyone.points()[1]] == [1, 0.5, 0.333, 0.5]
    assert everyone.average_precision() == pytest.approx((1 + 0.5) / 4)
    assert np.isnan(match_curve([]).average_precision())


def test_queries_without_a_match_are_misses():
    truth = np.array([[1, 0], [1, 0]], dtype=bool)
    excluded = sparse.csr_array(np.array([[0, 0], [0, 1]], dtype=bool))
    curve = match_curve([view([[0], [1]], [[0.1], [0.2]], truth, excluded=excluded, short="use")])
    assert (curve.average_precision(), curve.recall_at_full_precision()) == (0.5, 0.5)
    stranger = match_curve([view([[0], [-1]], [[0.1], [0.05]], truth)])
    assert (stranger.average_precision(), stranger.recall_at_full_precision()) == (0.25, 0)
    nothing = match_curve([view(np.zeros((2, 0), dtype=int), np.zeros((2, 0)), truth, short="use")])
    assert (nothing.average_precision(), nothing.recall_at_full_precision()) == (0, 0)


def test_inputs_of_match_curves_are_checked():
    truth = np.array([[1, 0], [1, 0]], dtype=bool)
    with pytest.raises(InvalidInputError, match=r"that of q1 is unknown\..*prediction text"):
        match_curve([view([[0], [1]], [[0.1], [np.nan]], truth)])
    with pytest.raises(InvalidInputError, match=r"\(2,\), \(2,\) and \(3,\)"):
        match_curve([view([[0], [1]], [[0.1], [0.2]], truth)], counted=[True] * 3)
    with pytest.raises(InvalidInputError, match="for each query"):
        MatchCurve([[0.1]], [[True]], [[True]])
    curve = MatchCurve([0.1], [True], [True])
    for statistic in (curve.average_precision, curve.recall_at_full_precision, weighted_quantile([0.1], level=0.5)):
        with pytest.raises(InvalidInputError, match=r"one weight for each of 1 queries; got \(2,\)"):
            statistic([1, 1])


@given(
    values=arrays.arrays(float, st.integers(0, 30), elements=st.sampled_from([0, 1, 2.5, 7, 1e6, np.nan])),
    level=st.sampled_from([0.05, 0.1, 0.5, 0.75, 0.9, 0.95, 1]),
    seed=st.integers(0, 100),
)
def test_quantiles_are_those_of_repeated_values(values, level, seed):
    weights = np.random.default_rng(seed).integers(0, 4, size=len(values))
    repeated = np.sort(np.repeat(values, weights))
    repeated = repeated[~np.isnan(repeated)].tolist()
    expected = next((v for n, v in enumerate(repeated, start=1) if n >= level * len(repeated) - 1e-9), np.nan)
    quantile = weighted_quantile(values, level=level)
    assert quantile(weights) == pytest.approx(expected, nan_ok=True)
    assert quantile(weights * 0.1) == pytest.approx(expected, nan_ok=True)


def test_quantiles_by_hand():
    values = np.arange(1.0, 21)
    assert [weighted_quantile(values, level=level)(np.ones(20)) for level in (0.05, 0.5, 0.75, 0.95, 1)] == [1, 10, 15, 19, 20]
    assert weighted_quantile(np.arange(1.0, 101), level=0.07)(np.ones(100)) == 7  # although 0.07 * 100 is 7.000000000000001
    assert weighted_quantile(values, level=0.33)(np.ones(20)) == np.quantile(values, 0.33, method="inverted_cdf")
    for level in (0, 1.1, np.nan):
        with pytest.raises(InvalidInputError, match=r"in \(0, 1\]"):
            weighted_quantile(values, level=level)
