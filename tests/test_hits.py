"""The ranked view against plain loops: who takes a rank, what is correct, and rankings that are too short to know."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse

from covis.errors import InvalidInputError
from covis.hits import hits
from covis.rankings import Rankings


def ranked(rows, database, distances=None):
    rows = np.asarray(rows, dtype=int)
    distances = np.full(rows.shape, np.nan) if distances is None else distances
    return Rankings(rows, distances, tuple(f"q{i}" for i in range(len(rows))), tuple(f"d{i}" for i in range(database)))


@st.composite
def cases(draw):
    """Rankings that may hold -1 and be short, dense positives, excluded pairs and similarities, and who is searched."""
    queries, database = draw(st.integers(0, 4)), draw(st.integers(0, 7))
    found = draw(st.integers(0, database + 2))
    rows = [draw(st.permutations([*range(database), -1, -1]))[:found] for _ in range(queries)]
    shape = (queries, database)
    positives, excluded = (draw(arrays.arrays(bool, shape)) for _ in range(2))
    similarity = draw(arrays.arrays(float, shape, elements=st.sampled_from([0, 0, 0.25, 0.5, 0.7, 1])))
    searched = draw(arrays.arrays(bool, database))
    return np.array(rows, dtype=int).reshape(queries, found), positives, excluded, similarity, searched


def viewed(case, **options):
    rows, positives, excluded, similarity, searched = case
    distances = np.tile(np.arange(rows.shape[1], dtype=float), (len(rows), 1))
    return hits(
        ranked(rows, len(searched), distances),
        sparse.csr_array(positives),
        excluded=sparse.csr_array(excluded),
        similarity=sparse.csr_array(similarity),
        searched=searched,
        **options,
    )


@given(case=cases())
def test_what_stands_at_each_rank_is_what_loops_say(case):
    rows, positives, excluded, similarity, searched = case
    view = viewed(case)
    for query in range(len(rows)):
        stays = [(rank, d) for rank, d in enumerate(rows[query]) if d < 0 or (searched[d] and not excluded[query, d])]
        fill = rows.shape[1] - len(stays)
        assert view.rows[query].tolist() == [d for _, d in stays] + [-1] * fill
        assert view.filled[query].tolist() == [True] * len(stays) + [False] * fill
        assert view.correct[query].tolist() == [d >= 0 and bool(positives[query, d]) for _, d in stays] + [False] * fill
        assert view.similarity[query].tolist() == [similarity[query, d] if d >= 0 else 0 for _, d in stays] + [0] * fill
        np.testing.assert_array_equal(view.distances[query], [rank for rank, _ in stays] + [np.nan] * fill)
        may = searched & ~excluded[query]
        assert view.positives[query] == (positives[query] & may).sum()
        assert view.available[query] == may.sum()
        kept = sorted((similarity[query] * may), reverse=True)
        for k in (1, 3, 9):
            best = view.best(k)[query].tolist()
            assert best == kept[: len(best)]
            assert not any(kept[len(best) : k])
    assert len(view) == len(rows)


@given(case=cases(), k=st.integers(1, 9))
def test_a_short_ranking_is_refused_or_used(case, k):
    rows, _, excluded, _, searched = case
    view = viewed(case)
    short = [
        query
        for query in range(len(rows))
        if sum(d < 0 or bool(searched[d] and not excluded[query, d]) for d in rows[query]) < min(k, (searched & ~excluded[query]).sum())
    ]
    if short:
        with pytest.raises(InvalidInputError, match=rf"a metric@{k} needs the first {k} .* q{short[0]} has \d+\. Search with a larger k"):
            view.depth(k)
    else:
        assert view.depth(k) == min(k, rows.shape[1])
    assert viewed(case, short="use").depth(k) == min(k, rows.shape[1])


def test_a_minus_one_takes_its_rank_and_is_never_correct():
    """Also where the pair before it in storage, the last image of the query before, is a positive and excluded."""
    everything = sparse.csr_array(np.ones((2, 2), dtype=bool))
    view = hits(ranked([[1, -1], [-1, 0]], 2), everything, similarity=everything.astype(float))
    assert view.correct.tolist() == [[True, False], [False, True]]
    assert view.similarity.tolist() == [[1, 0], [0, 1]]
    assert view.filled.all()
    none = hits(ranked([[1, -1], [-1, 0]], 2), everything, excluded=everything)
    assert none.filled.tolist() == [[True, False], [True, False]]
    assert none.available.tolist() == none.positives.tolist() == [0, 0]


def test_matrices_in_any_order_are_understood_and_left_alone():
    """Columns that are not sorted, a stored false, a pair stored twice."""
    parts = np.array([True, True, False, True, True]), np.array([5, 1, 3, 2, 2]), np.array([0, 3, 3, 5])
    matrix = sparse.csr_array(parts, shape=(3, 6))
    view = hits(ranked([[1, 3, 5, 0], [1, 3, 5, 0], [2, 1, 3, 5]], 6), matrix)
    assert view.correct.tolist() == [[True, False, True, False], [False] * 4, [True, False, False, False]]
    assert view.positives.tolist() == [2, 0, 1]
    assert [part.tolist() for part in (matrix.data, matrix.indices, matrix.indptr)] == [part.tolist() for part in parts]
    assert hits(ranked([[0]], 1), sparse.coo_array([[True]])).correct.tolist() == [[True]]


def test_long_rankings_keep_their_order():
    random = np.random.default_rng(0)
    rows, excluded = random.permutation(400)[None], random.random((1, 400)) < 0.5
    view = hits(ranked(rows, 400), sparse.csr_array((1, 400), dtype=bool), excluded=sparse.csr_array(excluded))
    left = [d for d in rows[0].tolist() if not excluded[0, d]]
    assert view.rows[0].tolist() == left + [-1] * (400 - len(left))


def test_more_pairs_than_32_bits_count():
    """70,000 x 70,000: each query finds itself and the next; itself alone is correct."""
    n = 70_000
    own = np.arange(n)
    view = hits(ranked(np.stack([own, (own + 1) % n], axis=1), n), sparse.eye_array(n, dtype=bool, format="csr"))
    assert view.correct.sum(axis=0).tolist() == [n, 0]


def test_what_the_hits_know():
    found, positives = ranked([[0, 1, 2]], 3, [[0.1, np.nan, np.nan]]), sparse.csr_array([[True, False, False]])
    excluded = sparse.csr_array([[False, True, True]])
    assert hits(found, positives).has()
    assert not hits(found, positives).has("similarity")
    assert not hits(found, positives).has("distances")
    assert hits(found, positives, excluded=excluded).has("distances")
    assert hits(found, positives, excluded=excluded, similarity=positives).has("similarity", "distances")
    assert not hits(found, positives, similarity=positives).has("similarity", "distances")
    assert repr(hits(found, positives)) == "Hits(1 queries, first 3 of 3)"


def test_the_best_match():
    positives = sparse.csr_array([[True, False], [True, False], [False, False]])
    view = hits(ranked([[0, 1], [1, 0], [-1, 0]], 2, [[0.5, 1], [0.25, 1], [0.125, 1]]), positives)
    assert [part.tolist() for part in view.match()] == [[0, 1, -1], [0.5, 0.25, 0.125], [True, False, False]]
    none = hits(ranked(np.zeros((3, 0)), 2), positives, short="use").match()
    assert none[0].tolist() == [-1, -1, -1]
    assert np.isnan(none[1]).all()
    assert not none[2].any()
    with pytest.raises(InvalidInputError, match="match@1 needs the first 1"):
        hits(ranked(np.zeros((3, 0)), 2), positives).match()


def test_inputs_are_checked():
    found = ranked([[0]], 2)
    positives, wrong = sparse.csr_array((1, 2), dtype=bool), sparse.csr_array((2, 2), dtype=bool)
    with pytest.raises(InvalidInputError, match=r"positives must be .*\(1, 2\).*\(2, 2\)"):
        hits(found, wrong)
    with pytest.raises(InvalidInputError, match="excluded pairs must be"):
        hits(found, positives, excluded=wrong)
    with pytest.raises(InvalidInputError, match="similarities must be"):
        hits(found, positives, similarity=wrong)
    for bad in (1.5, -0.5, np.nan):
        with pytest.raises(InvalidInputError, match=rf"number in \[0, 1\]; one is {bad}"):
            hits(found, positives, similarity=sparse.csr_array([[0.5, bad]]))
    for searched in (np.ones(3, dtype=bool), np.ones(2)):
        with pytest.raises(InvalidInputError, match="true or false for each of 2 database images"):
            hits(found, positives, searched=searched)
    with pytest.raises(InvalidInputError, match="'refuse', 'use'; got 'skip'"):
        hits(found, positives, short="skip")
    with pytest.raises(InvalidInputError, match="needs graded similarity"):
        hits(found, positives).best(1)


@st.composite
def grouped(draw):
    """Rankings of five queries over a database of up to a dozen images in up to four places, and what is correct, left out, searched."""
    size = draw(st.integers(1, 12))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    width = draw(st.integers(1, size))
    rows = np.stack([random.permutation(size)[:width] for _ in range(5)])
    rows[random.random(rows.shape) < 0.1] = -1
    matrices = [sparse.csr_array(random.random((5, size)) < share) for share in (0.4, 0.2)]
    similarity = sparse.csr_array(np.round(random.random((5, size)), 1) * (random.random((5, size)) < 0.7))
    return rows, *matrices, random.random(size) < 0.8, similarity, random.integers(-2, 2, size)


@given(grouped())
def test_one_image_a_place_keeps_its_rank(case):
    """Against a loop over each ranking."""
    rows, right, left_out, searched, similarity, groups = case
    positives = sparse.csr_array(right.astype(int) - right.multiply(left_out).astype(int)).astype(bool)
    found = hits(
        ranked(rows, len(groups)), positives, excluded=left_out, searched=searched, groups=groups, similarity=similarity, short="use"
    )
    for query, line in enumerate(rows):
        seen, expected = set(), []
        for row in line:
            if row >= 0 and (not searched[row] or left_out.toarray()[query, row] or groups[row] in seen):
                continue
            seen |= {groups[row]} if row >= 0 else set()
            expected.append(row)
        assert found.rows[query, found.filled[query]].tolist() == expected
        assert found.correct[query, found.filled[query]].tolist() == [
            bool(row >= 0 and positives.toarray()[query, row]) for row in expected
        ]
        open_rows = [row for row in range(len(groups)) if searched[row] and not left_out.toarray()[query, row]]
        assert found.available[query] == len({groups[row] for row in open_rows})
        assert found.positives[query] == len({groups[row] for row in open_rows if positives.toarray()[query, row]})
        best = {}
        for row in open_rows:
            best[groups[row]] = max(best.get(groups[row], 0), similarity.toarray()[query, row])
        ideal = sorted((value for value in best.values() if value), reverse=True)[:3]
        assert found.best(3)[query].tolist() == pytest.approx(ideal + [0.0] * (found.best(3).shape[1] - len(ideal)))


def test_groups_are_one_a_database_image():
    with pytest.raises(InvalidInputError, match=r"place for each of 3 database images; got the shape \(2,\)"):
        hits(ranked([[0, 1]], 3), sparse.csr_array((1, 3), dtype=bool), groups=np.array([0, 1]))
