"""Intervals: what is drawn again, and how often the interval covers the truth."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import covis.intervals
from covis.errors import InvalidInputError
from covis.images import Images
from covis.intervals import Units, bootstrap, bootstrap_means, draws, resampling_units


def images(n, *, sequences=None, frames=None):
    return Images("r", [f"{i}.png" for i in range(n)], sequence=sequences, frame=frames)


def mean(values):
    return lambda weights: float(weights @ values / weights.sum()) if weights.sum() else float("nan")


def test_ten_sequences_are_the_units():
    sequences = [f"s{i % 10}" for i in range(40)]
    units = resampling_units([images(40, sequences=sequences, frames=range(40))])
    assert (units.what, units.count) == ("sequences", 10)
    assert units.unit.tolist() == [i % 10 for i in range(40)]


def test_nine_sequences_give_blocks_within_each():
    sequences = [f"s{i % 9}" for i in range(9 * 12)]
    frames = [100 - i // 9 for i in range(9 * 12)]  # backwards: neighbours are by number, not by row
    units = resampling_units([images(108, sequences=sequences, frames=frames)])
    assert (units.what, units.count) == ("blocks of 10 consecutive frames", 18)
    for unit in range(18):
        rows = np.flatnonzero(units.unit == unit)
        assert len({sequences[row] for row in rows}) == 1
        numbers = sorted(frames[row] for row in rows)
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert len(rows) in (10, 2)


def test_frames_without_sequences_give_blocks_of_a_scene():
    units = resampling_units([images(15, frames=range(15)), images(5, frames=range(5))])
    assert units.what == "blocks of 10 consecutive frames"
    assert units.unit.tolist() == [0] * 10 + [1] * 5 + [2] * 5
    assert resampling_units([images(15, frames=range(15))], block=5).count == 3


def test_unnumbered_images_are_units_themselves():
    units = resampling_units([images(3), images(4, frames=range(4))])
    assert (units.what, units.count) == ("queries", 7)
    units = resampling_units([images(12, sequences=[f"s{i}" for i in range(12)]), images(2)])
    assert (units.what, units.count) == ("queries", 14)


def test_sequences_of_different_scenes_are_different():
    units = resampling_units([images(5, sequences=list("abcde")), images(5, sequences=list("abcde"))])
    assert (units.what, units.count) == ("sequences", 10)


def test_a_draw_has_whole_units():
    units = Units(np.array([0, 0, 1, 2, 2, 2]), "sequences")
    for weights in draws(units, samples=50, seed=1):
        assert weights[0] == weights[1]
        assert weights[3] == weights[4] == weights[5]
        assert weights[0] + weights[2] + weights[3] == 3
    first, again, other = (np.array(list(draws(units, samples=9, seed=seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """300 samples of 40 coin flips: a 90 % interval holds the truth 90 % of the time, within what 300 trials can tell."""
    random = np.random.default_rng(0)
    units = Units(np.arange(40), "queries")
    covered = 0
    for trial in range(300):
        values = (random.random(40) < 0.6).astype(float)
        low, high = bootstrap(mean(values), units, samples=200, seed=trial, level=0.9)
        covered += low <= 0.6 <= high
    assert 0.82 <= covered / 300 <= 0.96


def test_units_widen_the_interval_of_neighbours_that_agree():
    values = np.repeat(np.random.default_rng(0).integers(0, 2, size=20), 10).astype(float)
    low, high = bootstrap(mean(values), Units(np.arange(200), "queries"))
    wide_low, wide_high = bootstrap(mean(values), Units(np.repeat(np.arange(20), 10), "sequences"))
    assert wide_high - wide_low > 2 * (high - low)
    assert wide_low <= values.mean() <= wide_high


def test_degenerate_cases():
    for count in (0, 1):
        assert np.isnan(bootstrap(mean(np.ones(count)), Units(np.zeros(count, dtype=np.int64), "queries"))).all()
    assert np.isnan(bootstrap(lambda _: float("nan"), Units(np.arange(5), "queries"))).all()
    assert bootstrap(mean(np.ones(5)), Units(np.arange(5), "queries")) == (1, 1)
    assert resampling_units([]).count == 0
    assert resampling_units([images(0, frames=[], sequences=[])]).count == 0


@pytest.mark.parametrize("options", [{"samples": 0}, {"level": 0}, {"level": 1}, {"level": float("nan")}])
def test_parameters_are_checked(options):
    with pytest.raises(InvalidInputError, match="samples must be"):
        bootstrap(mean(np.ones(3)), Units(np.arange(3), "queries"), **options)


def plain_units(tables, block):
    """Plain loops: a key a query, numbered as they come."""
    keys = [
        (number, table.sequence[row] if table.sequence is not None else "")
        for number, table in enumerate(tables)
        for row in range(len(table))
    ]
    if all(table.sequence is not None for table in tables) and len(set(keys)) >= 10:
        what = "sequences"
    elif any(table.frame is None for table in tables):
        keys, what = list(range(len(keys))), "queries"
    else:
        frames = [int(frame) for table in tables for frame in table.frame]
        before = [
            sum(1 for other in range(len(keys)) if keys[other] == keys[row] and (frames[other], other) < (frames[row], row))
            for row in range(len(keys))
        ]
        keys, what = [(key, place // block) for key, place in zip(keys, before, strict=True)], f"blocks of {block} consecutive frames"
    seen = []
    for key in keys:
        if key not in seen:
            seen.append(key)
    return [seen.index(key) for key in keys], what


@st.composite
def tables(draw):
    n = draw(st.integers(0, 14))
    sequences = draw(st.none() | st.lists(st.sampled_from("abcdefgh"), min_size=n, max_size=n))
    frames = draw(st.none() | st.lists(st.integers(-3, 9), min_size=n, max_size=n))
    return images(n, sequences=sequences, frames=frames)


@given(scenes=st.lists(tables(), max_size=3), block=st.integers(1, 4))
def test_units_are_those_of_plain_loops(scenes, block):
    units = resampling_units(scenes, block=block)
    assert (units.unit.tolist(), units.what) == plain_units(scenes, block)


def test_the_asked_among_a_scene_are_blocked_among_themselves():
    """Every third frame asks: ten of those are a block, though their numbers are 30 apart."""
    asked = images(90, frames=range(90)).select(np.arange(0, 90, 3))
    units = resampling_units([asked])
    assert units.unit.tolist() == [0] * 10 + [1] * 10 + [2] * 10


def test_a_hundred_thousand_queries_take_no_time():
    many = images(100_000, frames=range(100_000))
    start = time.perf_counter()
    assert resampling_units([many]).count == 10_000
    assert time.perf_counter() - start < 2  # 0.02 s; a loop over pairs of queries would take hours


def test_blocks_have_a_frame():
    with pytest.raises(InvalidInputError, match="at least one frame; got 0"):
        resampling_units([images(3, frames=range(3))], block=0)


def plain_interval(values, unit, *, samples, seed, level):
    """Plain loops over samples, draws and queries, with the same random numbers."""
    random = np.random.default_rng(seed)
    count = max(unit) + 1
    means = []
    for _ in range(samples):
        drawn = random.integers(count, size=count).tolist()
        kept = [value for one in drawn for value, owner in zip(values, unit, strict=True) if owner == one and value == value]
        if kept:
            means.append(sum(kept) / len(kept))
    return tuple(np.quantile(means, [(1 - level) / 2, (1 + level) / 2])) if means and count > 1 else (float("nan"),) * 2


@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 1.0, 0.25, 7.5, -2.0, float("nan")])), min_size=1, max_size=12),
    seed=st.integers(0, 3),
    level=st.sampled_from([0.5, 0.9]),
)
def test_the_means_of_many_columns_have_the_intervals_of_each(rows, seed, level):
    unit = np.unique([owner for owner, _ in rows], return_inverse=True)[1]
    values = np.array([value for _, value in rows])
    columns = {"a": values, "b": np.nan_to_num(values), "c": -values, "none": np.full(len(values), np.nan)}
    units = Units(unit, "sequences")
    found = bootstrap_means(columns, units, samples=30, seed=seed, level=level)
    assert list(found) == list(columns)
    for name, column in columns.items():
        expected = plain_interval(column.tolist(), unit.tolist(), samples=30, seed=seed, level=level)
        np.testing.assert_allclose(found[name], expected, rtol=1e-12, atol=1e-12)
        counted, filled = ~np.isnan(column), np.nan_to_num(column)
        one = bootstrap(lambda w, c=counted, f=filled: w @ f / (w @ c) if w @ c else np.nan, units, samples=30, seed=seed, level=level)
        np.testing.assert_allclose(found[name], one, rtol=1e-12, atol=1e-12)


def test_blocks_of_samples_and_of_columns_change_nothing(monkeypatch):
    random = np.random.default_rng(2)
    columns = {str(i): np.where(random.random(60) < 0.2, np.nan, random.random(60)) for i in range(7)}
    units = Units(np.arange(60) // 3, "sequences")
    whole = bootstrap_means(columns, units, samples=50, seed=4)
    for size in (1, 16 * 20 * 2, 16 * 20 * 3 + 5):
        monkeypatch.setattr(covis.intervals, "BUFFER_BYTES", size)
        for name, interval in bootstrap_means(columns, units, samples=50, seed=4).items():
            np.testing.assert_allclose(interval, whole[name], rtol=1e-12)
    assert bootstrap_means(columns, units, samples=50, seed=5) != whole


def test_many_units_need_little_memory():
    columns = {str(i): np.random.default_rng(i).random(50_000) for i in range(20)}
    tracemalloc.start()
    bootstrap_means(columns, Units(np.arange(50_000), "queries"), samples=400)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # all draws at once would be 160 MB


def test_the_interval_of_a_mean_covers_the_truth_as_often_as_it_says():
    """200 draws of 60 queries in 20 sequences that agree within: units cover, single queries do not."""
    random = np.random.default_rng(7)
    units, alone = Units(np.repeat(np.arange(20), 3), "sequences"), Units(np.arange(60), "queries")
    covered = {"sequences": 0, "queries": 0}
    for trial in range(200):
        column = np.repeat(random.normal(2.0, 1.0, size=20), 3) + random.normal(0, 0.2, size=60)
        for one in (units, alone):
            low, high = bootstrap_means({"x": column}, one, samples=100, seed=trial, level=0.9)["x"]
            covered[one.what] += low <= 2.0 <= high
    assert 0.78 <= covered["sequences"] / 200 <= 0.96
    assert covered["queries"] / 200 < 0.75


def test_degenerate_means():
    nothing = (pytest.approx(float("nan"), nan_ok=True),) * 2
    assert bootstrap_means({}, Units(np.arange(3), "queries")) == {}
    assert bootstrap_means({"x": np.ones(4)}, Units(np.zeros(4, dtype=np.int64), "sequences")) == {"x": nothing}
    assert bootstrap_means({"x": np.zeros(0)}, Units(np.zeros(0, dtype=np.int64), "queries")) == {"x": nothing}
    assert bootstrap_means({"x": np.ones(4)}, Units(np.arange(4), "queries")) == {"x": (1, 1)}


@pytest.mark.parametrize(
    ("column", "what"),
    [(np.ones(2), r"recall@1 must have one value for each of the 3 queries; got shape \(2,\)"), ([0, np.inf, 1], "row 1 is infinite")],
)
def test_columns_are_checked(column, what):
    with pytest.raises(InvalidInputError, match=what):
        bootstrap_means({"recall@1": column}, Units(np.arange(3), "queries"))


@pytest.mark.parametrize("options", [{"samples": 0}, {"level": 0}, {"level": float("nan")}, {"seed": -1}])
def test_parameters_of_means_are_checked(options):
    with pytest.raises(InvalidInputError, match="samples must be"):
        bootstrap_means({"x": np.ones(3)}, Units(np.arange(3), "queries"), **options)
