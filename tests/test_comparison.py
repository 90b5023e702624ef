"""Comparison: paired by query, resampled by unit, and one test is one test."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import covis.intervals
from covis.comparison import Comparison, compare
from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError
from covis.intervals import Units, sign_flips
from covis.protocols import protocol
from covis.scores import Scores

RULE = protocol("graded/0.5")
UNKNOWN = float("nan")
VALUE = st.sampled_from([0.0, 0.25, 0.5, 1.0, UNKNOWN])


def scores(columns, *, units=None, queries=None, **changes):
    count = len(next(iter(columns.values())))
    names = tuple(f"q{row}.jpg" for row in range(count)) if queries is None else queries
    interval = {"method": "percentile bootstrap", "unit": "sequences", "count": 0, "samples": 10, "level": 0.95, "seed": 0}
    numbers = None if units is None else np.asarray(units)
    return Scores(
        RULE, {}, names, {name: np.array(values, dtype=float) for name, values in columns.items()}, interval, {}, numbers, **changes
    )


@st.composite
def paired(draw):
    count = draw(st.integers(1, 10))
    a, b = (draw(st.lists(VALUE, min_size=count, max_size=count)) for _ in range(2))
    keys = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    return a, b, np.unique(keys, return_inverse=True)[1]


# -- oracles --


def mean(values):
    return sum(values) / len(values) if values else UNKNOWN


def plain_comparison(a, b, unit, *, samples, seed, level):
    """Plain loops over queries, draws and all sign flips."""
    both = [row for row in range(len(a)) if a[row] == a[row] and b[row] == b[row]]
    difference = [b[row] - a[row] for row in both]
    found = {"n": len(both), "won": [row for row in both if b[row] > a[row]], "lost": [row for row in both if b[row] < a[row]]}
    found |= {"a": mean([a[row] for row in both]), "b": mean([b[row] for row in both]), "difference": mean(difference)}
    count, means, random = int(max(unit)) + 1, [], np.random.default_rng(seed)
    for _ in range(samples):
        drawn = random.integers(count, size=count).tolist()
        again = [b[row] - a[row] for one in drawn for row in both if unit[row] == one]
        if again:
            means.append(mean(again))
    found["interval"] = np.quantile(means, [(1 - level) / 2, (1 + level) / 2]) if means and count > 1 else [UNKNOWN] * 2
    sums = [sum(b[row] - a[row] for row in both if unit[row] == one) for one in range(count)]
    flips = [abs(sum(sign * one for sign, one in zip(signs, sums, strict=True))) for signs in itertools.product((1, -1), repeat=count)]
    found["p"] = sum(flip >= abs(sum(sums)) - 1e-9 for flip in flips) / len(flips) if both else UNKNOWN
    return found


@given(parts=paired(), seed=st.integers(0, 2), level=st.sampled_from([0.5, 0.95]))
def test_a_comparison_is_that_of_plain_loops(parts, seed, level):
    a, b, unit = parts
    found = compare(scores({"x": a}, units=unit), scores({"x": b}, units=unit), samples=40, seed=seed, level=level)
    expected, one = plain_comparison(a, b, unit, samples=40, seed=seed, level=level), found.differences["x"]
    for key in ("a", "b", "difference", "p"):
        np.testing.assert_allclose(getattr(one, key), expected[key], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose([one.low, one.high], expected["interval"], rtol=1e-12, atol=1e-12)
    assert (one.n, one.wins, one.losses) == (expected["n"], len(expected["won"]), len(expected["lost"]))
    assert one.won == tuple(f"q{row}.jpg" for row in expected["won"])
    assert one.lost == tuple(f"q{row}.jpg" for row in expected["lost"])
    assert one.ties == one.n - one.wins - one.losses
    assert found.interval["count"] == max(unit) + 1


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (5, 1), (9, 2), (12, 3)])
def test_the_exact_test_is_scipys(count, seed):
    difference = np.random.default_rng(seed).normal(0.3, 1, size=count).round(1)
    theirs = stats.permutation_test((difference,), np.sum, permutation_type="samples", n_resamples=np.inf) if count > 1 else None
    mine = sign_flips({"x": difference}, Units(np.arange(count), "queries"))["x"]
    assert mine == (1.0 if theirs is None else pytest.approx(theirs.pvalue, abs=1e-12))


@pytest.mark.parametrize("shift", [0.0, 0.3, 3.0])
def test_random_flips_agree_with_plain_loops(shift):
    """Of 70 sums, so that the random bits fill more than one word; other random numbers, so only nearly the same p."""
    difference, random = np.random.default_rng(4).normal(shift, 1, size=70), np.random.default_rng(1)
    reached = 0
    for _ in range(4000):
        flipped = sum(one if random.random() < 0.5 else -one for one in difference.tolist())
        reached += abs(flipped) >= abs(difference.sum())
    mine = sign_flips({"x": difference}, Units(np.arange(70), "queries"), samples=20_000)["x"]
    assert mine == pytest.approx((1 + reached) / 4001, abs=5 * np.sqrt(0.25 / 4000))
    assert (mine == 1 / 20_001) == (shift == 3.0), "no p is 0"


def test_random_flips_are_near_the_exact_ones():
    """15 units are too many to enumerate here, and few enough to enumerate in the test."""
    difference = np.random.default_rng(8).normal(0.35, 1, size=15)
    flips = np.array(list(itertools.product((1, -1), repeat=15))) @ difference
    exact = np.mean(np.abs(flips) >= abs(difference.sum()) - 1e-9)
    mine = sign_flips({"x": difference}, Units(np.arange(15), "queries"), samples=40_000, seed=3)["x"]
    assert mine != exact
    assert mine == pytest.approx(exact, abs=5 * np.sqrt(exact * (1 - exact) / 40_000))


def test_units_that_differ_by_rounding_alone_do_not_count():
    """40 units sum to 5.6e-17 each; three differ, so eight flips tell everything."""
    difference = np.array([0.1, 0.2, -0.3] * 40 + [1.0] * 3)
    unit = np.concatenate([np.arange(120) // 3, np.arange(40, 43)])
    assert sum(difference[:3].tolist()) != 0
    assert sign_flips({"x": difference}, Units(unit, "sequences"))["x"] == 0.25


# -- laws --


def columns_of(seed, *, count=60, gain=0.0):
    random = np.random.default_rng(seed)
    a = np.where(random.random(count) < 0.1, np.nan, (random.random(count) < 0.5).astype(float))
    b = np.where(random.random(count) < 0.1, np.nan, (random.random(count) < 0.5 + gain).astype(float))
    return a, b


@given(parts=paired())
def test_nothing_differs_from_itself(parts):
    a, _, unit = parts
    one = compare(scores({"x": a}, units=unit), scores({"x": a}, units=unit), samples=20).differences["x"]
    if one.n:
        assert (one.difference, one.p, one.won, one.lost, one.ties) == (0, 1, (), (), one.n)
        assert one.a == one.b
    else:
        assert np.isnan([one.a, one.b, one.difference, one.low, one.high, one.p]).all()
    assert one.verdict == "cannot be told apart"


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["recall@1", "error"])
def test_exchanging_the_two_mirrors_everything(name, seed):
    a, b = columns_of(seed, gain=0.3)
    there = compare(scores({name: a}), scores({name: b}), samples=500)
    back = compare(scores({name: b}), scores({name: a}), samples=500)
    one, other = there.differences[name], back.differences[name]
    assert (one.a, one.b, one.difference, one.p) == (other.b, other.a, -other.difference, other.p)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-12)
    assert (one.won, one.lost, one.n) == (other.lost, other.won, other.n)
    assert {one.verdict, other.verdict} == {"a is better", "b is better"}


@pytest.mark.parametrize(("count", "p"), [(10, 2 / 2**10), (30, 1 / 2001)])
def test_better_on_every_query_is_a_small_p(count, p):
    one = compare(scores({"recall@1": [0] * count}), scores({"recall@1": [1] * count}), samples=2000).differences["recall@1"]
    assert (one.difference, one.low, one.high, one.wins, one.p) == (1, 1, 1, count, p)
    assert one.verdict == "b is better"


def test_an_error_in_metres_is_better_when_it_is_lower():
    found = compare(scores({"error": [10.0] * 12}), scores({"error": [4.0] * 11 + [16.0]}))
    one = found.differences["error"]
    assert (one.verdict, one.wins, one.losses, one.lost) == ("b is better", 11, 1, ("q11.jpg",))
    assert one.high < 0
    assert "error (m)  10.00  5.00  -5.00" in str(found)


def test_units_flip_together():
    """Three sequences of 20 queries each that agree: three flips, so p is 2/8, though 60 queries say the same."""
    a, b = [0.0] * 60, [1.0] * 60
    assert compare(scores({"x": a}, units=np.arange(60) // 20), scores({"x": b}, units=np.arange(60) // 20)).differences["x"].p == 0.25
    assert compare(scores({"x": a}), scores({"x": b}), samples=999).differences["x"].p == 0.001


def test_the_seed_says_it_all():
    a, b = columns_of(5)
    one, again, other = (compare(scores({"x": a}), scores({"x": b}), samples=300, seed=seed).as_dict() for seed in (1, 1, 2))
    assert one == again
    assert one["differences"]["x"]["p"] != other["differences"]["x"]["p"]


def test_a_metric_is_tested_alike_with_others_and_alone(monkeypatch):
    names = {f"m{i}": columns_of(i, count=70) for i in range(5)}  # more signs than a word of random bits holds
    a, b = (scores({name: pair[side] for name, pair in names.items()}) for side in (0, 1))
    everything = compare(a, b, samples=300)
    for name in names:
        alone = compare(a, b, metrics=[name], samples=300).differences[name]
        together = everything.differences[name]
        assert (alone.p, alone.won, alone.n) == (together.p, together.won, together.n)
        assert (alone.low, alone.high) == pytest.approx((together.low, together.high), abs=1e-12)
    monkeypatch.setattr(covis.intervals, "BUFFER_BYTES", 8 * 70 * 7)  # seven samples a block
    assert [one.p for one in compare(a, b, samples=300).differences.values()] == [one.p for one in everything.differences.values()]


def test_the_order_of_the_second_scores_does_not_matter():
    a, b = columns_of(3)
    units, rows = np.arange(60) // 4, np.random.default_rng(0).permutation(60)
    names = np.array([f"q{row}.jpg" for row in range(60)])
    shuffled = scores({"x": b[rows]}, queries=tuple(names[rows].tolist()), units=np.unique(units[rows][::-1], return_inverse=True)[1][::-1])
    straight = compare(scores({"x": a}, units=units), scores({"x": b}, units=units), samples=200)
    assert compare(scores({"x": a}, units=units), shuffled, samples=200).as_dict() == straight.as_dict()


def test_what_differs_by_rounding_is_equal():
    a, b = [0.1 + 0.2, 0.5], [0.3, 0.5]
    assert a[0] != b[0]
    one = compare(scores({"mAP@5": a}), scores({"mAP@5": b})).differences["mAP@5"]
    assert (one.wins, one.losses, one.ties, one.difference, one.p) == (0, 0, 2, 0, 1)


def test_the_interval_covers_and_the_test_errs_as_often_as_they_say():
    """200 comparisons of 25 sequences; the truth differs by 0.1, or not at all."""
    random = np.random.default_rng(11)
    units, covered, wrong = np.arange(75) // 3, 0, 0
    for trial in range(200):
        shared, own = np.repeat(random.normal(0, 1, size=25), 3), np.repeat(random.normal(0.1, 0.3, size=25), 3)
        a = shared + random.normal(0, 0.1, size=75)
        one = compare(scores({"x": a}, units=units), scores({"x": a + own}, units=units), samples=100, seed=trial, level=0.9)
        covered += one.differences["x"].low <= 0.1 <= one.differences["x"].high
        wrong += sign_flips({"x": own - 0.1}, Units(units, "sequences"), samples=99, seed=trial)["x"] <= 0.1
    assert 0.80 <= covered / 200 <= 0.96
    assert 0.04 <= wrong / 200 <= 0.17


# -- refusals --


def test_different_protocols_are_refused_with_what_differs():
    a = scores({"x": [0, 1]})
    b = replace(a, protocol=replace(RULE, name="mine", threshold=0.3))
    with pytest.raises(
        InvalidInputError, match=r"'graded/0.5' and 'mine' differ in name: .*; threshold: 0.5 against 0.3\. Evaluate"
    ) as refused:
        compare(a, b)
    assert "strict" not in str(refused.value)


@pytest.mark.parametrize(
    ("queries", "what"),
    [
        (("q0.jpg", "other.jpg", "q2.jpg"), "'q1.jpg' is asked in the first alone"),
        (("q0.jpg", "q1.jpg", "q2.jpg", "more.jpg"), r"'more.jpg' is asked in the second alone \(3 and 4 queries\)"),
        (("q2.jpg", "q1.jpg", "q0.jpg", "q0.jpg"), "stands twice"),
    ],
)
def test_different_queries_are_refused_by_name(queries, what):
    with pytest.raises(InvalidInputError, match=what):
        compare(scores({"x": [0, 1, 1]}), scores({"x": [1.0] * len(queries)}, queries=queries))


def test_different_units_are_refused_by_name():
    a, b = scores({"x": [0, 1, 1, 0]}, units=[0, 0, 1, 1]), scores({"x": [0, 1, 1, 0]}, units=[0, 0, 1, 2])
    with pytest.raises(InvalidInputError, match=r"2 sequences and 3 sequences, and differ from 'q3.jpg' on"):
        compare(a, b)
    renamed = replace(a, units=np.array([1, 1, 0, 0]))
    assert compare(a, renamed).differences["x"].p == 1, "the same groups by other numbers"


def test_units_that_one_does_not_know_are_the_others():
    known, unknown = scores({"x": [0, 0, 0, 0]}, units=[0, 0, 1, 1]), scores({"x": [1, 1, 1, 1]})
    for found in (compare(known, unknown), compare(unknown, known)):
        assert (found.interval["count"], found.interval["unit"], found.differences["x"].p) == (2, "sequences", 0.5)
    neither = compare(replace(known, units=None), unknown)
    assert (neither.interval["count"], neither.interval["unit"], neither.differences["x"].p) == (4, "queries", 0.125)


def test_a_metric_must_be_in_both():
    a, b = scores({"recall@1": [0, 1], "mAP@5": [0, 1]}), scores({"recall@1": [0, 1], "nDCG@5": [0, 1]})
    assert list(compare(a, b).differences) == ["recall@1"]
    assert list(compare(a, b, metrics=["recall@1", "recall@1"]).differences) == ["recall@1"]
    for name in ("mAP@5", "nDCG@5", "recal@1"):
        with pytest.raises(InvalidInputError, match=rf"per-query values of '{name}'; they do not\..*recall@1"):
            compare(a, b, metrics=[name])
    with pytest.raises(InvalidInputError, match=r"must share a metric .*first have mAP@5, the second nDCG@5"):
        compare(scores({"mAP@5": [0, 1]}), scores({"nDCG@5": [0, 1]}))


def test_infinite_values_are_refused_by_query():
    with pytest.raises(InvalidInputError, match=r"error must be finite.*'q1.jpg'"):
        compare(scores({"error": [1, 2]}), scores({"error": [1, np.inf]}))


@pytest.mark.parametrize("options", [{"samples": 0}, {"seed": -1}, {"level": 1.0}])
def test_parameters_are_checked(options):
    with pytest.raises(InvalidInputError, match="samples must be"):
        compare(scores({"x": [0, 1]}), scores({"x": [0, 1]}), **options)


@pytest.mark.parametrize(
    ("column", "options", "what"),
    [([1.0], {}, "one value for each of the 3"), ([1, np.inf, 0], {}, "row 1 is infinite"), ([1, 0, 0], {"samples": 0}, "samples must be")],
)
def test_sign_flips_check_what_they_get(column, options, what):
    with pytest.raises(InvalidInputError, match=what):
        sign_flips({"x": np.array(column)}, Units(np.arange(3), "queries"), **options)


def test_no_queries_are_no_error():
    one = compare(scores({"x": []}), scores({"x": []})).differences["x"]
    assert one.n == 0
    assert np.isnan(one.p)


# -- print and file --


def test_the_table_says_what_it_tested():
    a, b = columns_of(1, gain=0.3)
    found = compare(scores({"recall@1": a, "recall@5": a}), scores({"recall@1": b, "recall@5": a}), samples=400)
    text, one = str(found), found.differences["recall@1"]
    assert RULE.card() in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "metric a b b - a 95% interval p n won lost equal" in lines
    shown = f"recall@1 {one.a:.3f} {one.b:.3f} +{one.difference:.3f} [{one.low:+.3f}, {one.high:+.3f}] {one.p:.4f}"
    assert f"{shown} {one.n} {one.wins} {one.losses} {one.ties} b is better" in lines
    same = found.differences["recall@5"]
    assert f"recall@5 {same.a:.3f} {same.b:.3f} +0.000 [+0.000, +0.000] 1.0000 {same.n} 0 0 {same.n} cannot be told apart" in lines
    assert "60 queries; percentile bootstrap over 60 queries (400 samples, seed 0)." in lines
    assert "2 metrics are 2 tests" in text
    assert "Few units" not in text
    few = str(compare(scores({"x": [0, 0, 0]}), scores({"x": [1, 1, 1]})))
    assert "Few units (3): the interval may be too narrow, and no p is below 0.25. Go by p." in few
    assert "tests" not in few.split("won: b is better.")[1]


@given(parts=paired())
def test_a_comparison_comes_back(tmp_path_factory, parts):
    a, b, unit = parts
    found = compare(scores({"x": a, "error": b}, units=unit), scores({"x": b, "error": a}, units=unit), samples=9)
    path = found.save(tmp_path_factory.mktemp("c") / "a.json")
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    back = Comparison.load(path)
    assert back.as_dict() == found.as_dict()
    assert (str(back), back.protocol, back.differences.keys()) == (str(found), found.protocol, found.differences.keys())


def test_damaged_comparisons_are_refused(tmp_path, refuses_every_cut):
    found = compare(scores({"x": [0, 0, 1, UNKNOWN]}), scores({"x": [1, 1, 0, 1]}), samples=9)
    path = found.save(tmp_path / "a.json")
    refuses_every_cut(path, lambda: Comparison.load(path), harmless=1)
    stored = json.loads(path.read_text())
    one = stored["differences"]["x"]
    assert (one["n"], one["wins"], one["losses"], one["won"], one["lost"]) == (3, 2, 1, ["q0.jpg", "q1.jpg"], ["q2.jpg"])
    changes = [{"version": 2}, {"format": "covis-scores"}, {"protocol": 3}, {"queries": -1}, {"queries": "4"}, {"differences": [1]}]
    changes += [{"interval": stored["interval"] | change} for change in ({"level": 2}, {"level": None}, {"count": 1.5}, {"unit": 3})]
    edits = (
        {"wins": 1}, {"verdict": "b is better"}, {"n": 2}, {"n": True}, {"won": ["q0.jpg"]}, {"won": "q0"}, {"won": [1, 2]}, {"p": "0.5"},
        {"p": float("inf")}, {"a": True}, {"low": {}}, {"lower_is_better": 0}, {"other": 1}, {"ties": None},
        {"n": 1, "ties": -2},
    )  # fmt: skip
    changes += [{"differences": {"x": one | edit}} for edit in edits]
    for change in changes:
        path.write_text(json.dumps(stored | change))
        with pytest.raises(DamagedFileError, match=r"a\.json"):
            Comparison.load(path)
    for key in stored.keys() - {"format", "version"}:
        path.write_text(json.dumps({k: v for k, v in stored.items() if k != key}))
        with pytest.raises(DamagedFileError, match=key):
            Comparison.load(path)
    with pytest.raises(MissingFileError):
        Comparison.load(tmp_path / "none.json")


def test_nothing_is_overwritten_unasked(tmp_path):
    found = compare(scores({"x": [0, 1]}), scores({"x": [1, 1]}))
    path = found.save(tmp_path / "a.json")
    with pytest.raises(OutputExistsError):
        found.save(path)
    assert found.save(path, overwrite=True) == path


def test_other_labels_are_not_compared_where_labels_decide():
    def scores(half, protocol_name):
        history = {"scenes": [{"labels": {"rule": "distance", "parameters": {"half": half}}}]}
        columns = {"recall@1": np.array([1.0, 0.0]), "nDCG@1": np.array([0.5, 0.25])}
        return Scores(protocol(protocol_name), {}, ("p", "q"), columns, history=history)

    with pytest.raises(InvalidInputError, match=r"same labels.*nDCG@1.*40.*10"):
        compare(scores(40, "radius/25"), scores(10, "radius/25"))
    assert compare(scores(40, "radius/25"), scores(10, "radius/25"), metrics=["recall@1"]).differences["recall@1"].ties == 2
    with pytest.raises(InvalidInputError, match="same labels"):
        compare(scores(40, "graded/0.5"), scores(10, "graded/0.5"), metrics=["recall@1"])
    assert compare(scores(40, "graded/0.5"), scores(40, "graded/0.5")).differences
