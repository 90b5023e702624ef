"""The search for near pairs, and the sectors' search on top of it: against all pairs, in any blocks and threads, in little memory."""

import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis.errors import InvalidInputError
from covis.neighbours import CHUNK, Neighbours, cores
from covis.sectors import Sectors, overlap, overlaps

points = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), max_size=12).map(
    lambda given: np.array(given, dtype=float).reshape(-1, 2)
)
some_points = points.filter(len)


def flat(near, size):
    """All pairs, block after block."""
    found = [near.pairs(rows) for rows in near.blocks(size)]
    return [(int(q), int(d)) for rows, columns in found for q, d in zip(rows, columns, strict=True)]


def all_pairs(queries, database, within):
    """The definition."""
    within = np.broadcast_to(within, len(queries))
    return [(q, d) for q in range(len(queries)) for d in range(len(database)) if np.hypot(*(queries[q] - database[d])) <= within[q]]


# ------------------------------------------------------------------------------------------------------------------------ points


@given(points, some_points, st.sampled_from([0.0, 1.2, 2.6, 5.05]), st.integers(1, 200))
def test_the_pairs_are_all_pairs_in_any_blocks(queries, database, within, size):
    assert flat(Neighbours(queries, database, within), size) == all_pairs(queries, database, within)


@given(some_points, some_points)
def test_each_query_may_have_its_own_radius(queries, database):
    within = np.arange(len(queries)) % 4 + 0.3
    assert flat(Neighbours(queries, database, within), 3) == all_pairs(queries, database, within)


def test_the_radius_is_inclusive_wherever_the_database_lies():
    """As the class says: whole metres, exactly 5 apart, whatever else is in the database."""
    queries, database = np.zeros((1, 2)), np.array([[3.0, 4.0], [-18, 18], [-4, -24], [3, -45], [39, -47], [34, 48]])
    near = Neighbours(queries, database, 5.0)
    assert flat(near, 10) == [(0, 0)]
    assert near.distances(np.array([0]), np.array([0])).tolist() == [5.0]


@given(points, some_points, st.integers(1, 40))
def test_blocks_are_all_rows_in_order_and_about_as_large_as_asked(queries, database, size):
    near = Neighbours(queries, database, 4.0)
    blocks = list(near.blocks(size))
    assert np.array_equal(np.concatenate([np.zeros(0), *blocks]), np.arange(len(queries)))
    counts = [[len(near.pairs(np.array([row]))[0]) for row in block] for block in blocks]
    assert all(block for block in counts)
    assert all(sum(block) < size + max(block) for block in counts)


def test_more_queries_than_are_counted_at_once():
    queries = np.column_stack([np.arange(CHUNK + 10.0), np.zeros(CHUNK + 10)])
    near = Neighbours(queries, queries[[0, CHUNK - 1, CHUNK, CHUNK + 9]], 1.0)
    assert flat(near, 1000) == [
        *((q, 0) for q in (0, 1)),
        (CHUNK - 2, 1),
        *((q, d) for q in (CHUNK - 1, CHUNK) for d in (1, 2)),
        (CHUNK + 1, 2),
        *((q, 3) for q in (CHUNK + 8, CHUNK + 9)),
    ]
    assert np.array_equal(np.concatenate(list(near.blocks(2))), np.arange(CHUNK + 10))


def test_coordinates_as_large_as_utms_cost_no_digits():
    """5 m apart at northings of millions, where a float64 still counts nanometres."""
    queries = np.array([[500_000.0, 5_000_000.0]])
    database = queries + np.array([[3.0, 4.0], [3.0, 4.0 + 2**-20], [-4.0, 3.0]])
    near = Neighbours(queries, database, 5.0 + 1e-7)
    assert flat(near, 10) == [(0, 0), (0, 2)]
    assert near.distances(np.array([0, 0, 0]), np.arange(3)) == pytest.approx([5, 5 + 0.8 * 2**-20, 5], abs=1e-8)


@pytest.mark.parametrize("workers", [1, 2, None])
def test_work_comes_back_in_order_from_so_many_threads(workers):
    queries = np.column_stack([np.arange(100.0), np.zeros(100)])
    near, seen = Neighbours(queries, queries, 2.0), set()

    def work(rows):
        seen.add(threading.get_ident())
        return rows.tolist()

    found = near.each(work, block=7, workers=workers)
    assert len(found) > 10
    assert [row for rows in found for row in rows] == list(range(100))
    assert len(seen) <= (workers or cores())
    assert threading.get_ident() not in seen


def test_an_error_in_a_thread_is_not_lost():
    near = Neighbours([[0.0, 0.0]], [[0.0, 0.0]], 1.0)
    with pytest.raises(ZeroDivisionError):
        near.each(lambda rows: 1 // (len(rows) - 1), block=1)


def test_arguments_are_left_alone():
    queries, database = np.array([[3.0, 4.0]]), np.array([[1.0, 1.0], [5.0, 9.0]])
    before = queries.copy(), database.copy()
    flat(Neighbours(queries, database, 10.0), 5)
    assert np.array_equal(queries, before[0])
    assert np.array_equal(database, before[1])


# ----------------------------------------------------------------------------------------------------------------------- sectors


def city(n, seed, *, size=300.0, mixed=True):
    """n sectors in a square; `mixed`: openings and reaches of their own, some of them all round or twice the same."""
    random = np.random.default_rng(seed)
    xy = np.array([500_000.0, 5_000_000.0]) + random.uniform(0, size, (n, 2)).round(1)
    xy[n // 2 : n // 2 + n // 10] = xy[: n // 10]
    heading = random.choice([0.0, 30.0, 90.0, 123.4, 180.0, 300.5], n)
    if not mixed:
        return Sectors.of(xy, heading=heading, fov=90, reach=50)
    return Sectors.of(xy, heading=heading, fov=random.choice([20.0, 60, 90, 200, 360], n), reach=random.choice([5.0, 20, 50, 70], n))


def every_pair(queries, database, *, measure="iou", gate=None):
    """(q, d) similarities, pair by pair."""
    q, d = (axis.ravel() for axis in np.indices((len(queries), len(database))))
    value = overlap(queries.take(q), database.take(d), measure=measure)
    if gate is not None:
        turn = np.abs(queries.heading[q] - database.heading[d]) % 360
        all_round = (queries.fov[q] == 360) | (database.fov[d] == 360)  # no heading, so no gate
        value = np.where((np.minimum(turn, 360 - turn) > gate + 1e-9) & ~all_round, 0, value)
    return value.reshape(len(queries), len(database))


def dense(found, queries, database):
    matrix = np.zeros((len(queries), len(database)))
    matrix[found.rows, found.columns] = found.values
    return matrix


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("measure", ["iou", "fraction"])
@pytest.mark.parametrize("gate", [None, 0, 60, 90, 180])
def test_the_search_finds_what_all_pairs_find(mixed, measure, gate):
    queries, database = city(60, 1, mixed=mixed), city(90, 2, mixed=mixed)
    found = overlaps(queries, database, measure=measure, max_heading_difference=gate, block=500, workers=1)
    np.testing.assert_array_equal(dense(found, queries, database), every_pair(queries, database, measure=measure, gate=gate))
    assert len(found.rows) > 50
    assert found.values.min() > 0
    order = found.rows * len(database) + found.columns
    assert (np.diff(order) > 0).all()  # ascending, no pair twice
    assert found.rows.dtype == found.columns.dtype == np.int64


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12), st.sampled_from([None, 45.0]))
def test_the_search_finds_what_all_pairs_find_in_small_sets(seed, q, d, gate):
    queries, database = city(q, seed, size=90), city(d, seed + 1, size=90)
    found = overlaps(queries, database, max_heading_difference=gate, workers=1)
    np.testing.assert_array_equal(dense(found, queries, database), every_pair(queries, database, gate=gate))


@pytest.mark.parametrize("workers", [1, 2, None])
@pytest.mark.parametrize("block", [1, 7, 1000, 10**9])
def test_neither_blocks_nor_threads_change_a_bit(block, workers):
    queries, database = city(120, 3), city(150, 4)
    first, other = overlaps(queries, database), overlaps(queries, database, block=block, workers=workers)
    assert first.candidates == other.candidates
    for name in ("rows", "columns", "values"):
        np.testing.assert_array_equal(getattr(first, name), getattr(other, name))


def test_exchanged_sides_give_the_same_bits():
    queries, database = city(60, 5), city(80, 6)
    there, back = overlaps(queries, database), overlaps(database, queries)
    np.testing.assert_array_equal(dense(there, queries, database), dense(back, database, queries).T)
    own = dense(overlaps(queries, queries), queries, queries)
    np.testing.assert_array_equal(own, own.T)
    np.testing.assert_array_equal(np.diag(own), 1.0)


def test_candidates_are_the_pairs_whose_least_circles_meet():
    """Sectors of one size: the circles' radius is 35.36 m, not 50, around a point 35.36 m ahead."""
    queries, database = city(60, 7, mixed=False), city(90, 8, mixed=False)
    (centres, radii), (others, _) = queries.circles(), database.circles()
    gap = np.hypot(*(centres[:, None] - others[None]).transpose(2, 0, 1))
    found = overlaps(queries, database)
    assert radii[0] == pytest.approx(50 * np.sqrt(0.5))
    assert found.candidates == (gap <= 2 * radii[0]).sum()
    near = np.hypot(*(queries.xy[:, None] - database.xy[None]).transpose(2, 0, 1)) <= 100
    assert len(found.rows) < found.candidates < near.sum()


def test_a_gate_is_inclusive_and_goes_around_north():
    def at(*headings):
        return Sectors.of(np.zeros((len(headings), 2)), heading=np.array(headings, dtype=float), fov=300, reach=10)

    found = overlaps(at(350), at(350, 320, 20, 319.9, 20.1, 30 + 350 - 360 - 720), max_heading_difference=30)
    assert found.columns.tolist() == [0, 1, 2, 5]


def test_no_queries_or_no_database_give_no_pairs():
    none, some = city(20, 9).take(np.zeros(0, dtype=int)), city(20, 9)
    for queries, database in ((none, some), (some, none), (none, none)):
        found = overlaps(queries, database)
        assert (len(found.rows), len(found.columns), len(found.values), found.candidates) == (0, 0, 0, 0)
        assert found.rows.dtype == np.int64
    away = Sectors(some.xy + 10_000, some.heading, some.fov, some.reach)
    assert overlaps(some, away).candidates == len(overlaps(some, away).rows) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"measure": "IoU"},
        {"block": 0},
        {"workers": 0},
        {"max_heading_difference": -1},
        {"max_heading_difference": 180.5},
        {"max_heading_difference": np.nan},
    ],
)
def test_parameters_out_of_range_are_refused(change):
    some, none = city(3, 1), city(3, 1).take(np.zeros(0, dtype=int))
    for side in (some, none):
        with pytest.raises(InvalidInputError):
            overlaps(some, side, **change)


def peak(work):
    tracemalloc.start()
    try:
        result = work()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_bounded_by_the_block():
    """12,000 x 12,000: dense 1.15 GB of float64; a block of 5,000 candidates needs about 1 MB beside the sectors and the result."""
    side = city(12_000, 10, size=3_000, mixed=False)
    found, small = peak(lambda: overlaps(side, side, block=5_000, workers=1))
    again, large = peak(lambda: overlaps(side, side, block=200_000, workers=1))
    assert found.candidates == again.candidates > 150_000
    result = 3 * (found.rows.nbytes + found.columns.nbytes + found.values.nbytes)
    assert small < result + 10e6
    assert large > small + 5e6  # the block is what matters
    assert large < result + 10e6 + 250 * found.candidates
