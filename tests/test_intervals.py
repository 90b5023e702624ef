"""Intervals: what is drawn again, and how often the interval covers the truth."""

import numpy as np
import pytest

from covis.errors import InvalidInputError
from covis.images import Images
from covis.intervals import Units, bootstrap, draws, resampling_units


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
