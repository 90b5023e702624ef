"""Weights: the numbers of the formula worked by hand, the laws that are asked of it, and what is refused."""

import inspect

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from covis.errors import InvalidInputError, UnknownNameError
from covis.structure.partition import Partition, grouped
from covis.structure.weights import WEIGHTINGS, takes_similarity, weigh, weigh_function, weigh_groups, weigh_none, weigh_selected

RANK, N = st.integers(1, 60), st.integers(1, 20)
OPTION = st.floats(0, 3)


def grid(side):
    """Every pair of ranks from 1 to side."""
    x, y = (part.ravel() for part in np.mgrid[1 : side + 1, 1 : side + 1])
    return x, y, np.ones(len(x))


def means(side, **options):
    x, y, similarity = grid(side)
    weights, groups = weigh_function(x, y, similarity, threshold=10, **options), grouped(x, y, 10)
    return [weights[groups == group].mean() for group in (1, 2, 3, 4)]


def one(weighting, x, y, **options):
    return float(weighting(np.array([x]), np.array([y]), np.ones(1), **options)[0])


def test_the_means_of_the_groups_on_the_grids():
    """StructVPR in the open: the literal numbers of the formula with N_t = 10, a = b = 1."""
    np.testing.assert_allclose(means(30, normalise=False), [2.33, 1.02, 0.28, 0], atol=0.005)
    np.testing.assert_allclose(means(30), [1.308, 0.572, 0.155, 0], atol=0.0005)
    np.testing.assert_allclose(means(20, normalise=False), [1.86, 1.02, 0.28, 0], atol=0.005)
    x, y, similarity = grid(30)
    before, after = (weigh_function(x, y, similarity, threshold=10, normalise=normalise) for normalise in (False, True))
    assert before[x <= 10].mean() == pytest.approx(1.78328, abs=5e-6)
    np.testing.assert_allclose(after, before / 1.78328, rtol=5e-6)
    at = {pair: place for place, pair in enumerate(zip(x.tolist(), y.tolist(), strict=True))}
    assert before[at[10, 11]] == pytest.approx(0.11, abs=0.005)
    assert before[at[1, 1]] == 1
    assert after[at[10, 11]] == pytest.approx(0.0620, abs=5e-5)
    assert after[at[1, 1]] == pytest.approx(0.5608, abs=5e-5)


@given(x=RANK, y=RANK, threshold=N, a=OPTION, b=OPTION)
def test_the_function_is_the_formula_and_its_clip_never_acts(x, y, threshold, a, b):
    gap = (min(y, 2 * threshold) - x) / threshold
    expected = ((threshold + 1 - x) / threshold) ** a * np.exp(b * gap) if x <= threshold else 0.0
    assert one(weigh_function, x, y, threshold=threshold, a=a, b=b, normalise=False) == pytest.approx(expected, rel=1e-12)
    assert x > threshold or -1 <= gap <= 2


@given(x=RANK, y=RANK, threshold=N, a=OPTION, b=OPTION, more=st.integers(1, 30))
def test_the_function_falls_with_the_teachers_rank_and_rises_with_the_students(x, y, threshold, a, b, more):
    options = {"threshold": threshold, "a": a, "b": b, "normalise": False}
    here = one(weigh_function, x, y, **options)
    assert one(weigh_function, x + more, y, **options) <= here
    assert one(weigh_function, x, y + more, **options) >= here
    assert (here == 0) == (x > threshold)


def any_ranks(least=1):
    return st.integers(least, 40).flatmap(lambda n: st.tuples(*[arrays.arrays(np.int32, n, elements=st.integers(1, 30))] * 2))


@given(ranks=any_ranks(), threshold=N, a=OPTION, b=OPTION)
def test_divided_by_its_mean_the_function_has_mean_1_where_the_teacher_is_right(ranks, threshold, a, b):
    x, y = ranks
    assume((x <= threshold).any())
    weights, plain = (weigh_function(x, y, np.ones(len(x)), threshold=threshold, a=a, b=b, normalise=each) for each in (True, False))
    assert weights[x <= threshold].mean() == pytest.approx(1)
    assert (weights[x > threshold] == 0).all()
    np.testing.assert_allclose(weights * plain[x <= threshold].mean(), plain)


@given(ranks=any_ranks(), threshold=N)
def test_select_keeps_whom_a_branch_ranks_well(ranks, threshold):
    x, y = ranks
    similarity = np.ones(len(x))
    by_teacher = weigh_selected(x, y, similarity, threshold=threshold)
    assert by_teacher.tolist() == [float(rank <= threshold) for rank in x]
    assert weigh_selected(x, y, similarity, threshold=threshold, by="student").tolist() == [float(rank <= threshold) for rank in y]
    for by in ("teacher", "student"):
        others = weigh_selected(x, y, similarity, threshold=threshold, by=by, wrong=True)
        assert others.tolist() == [float(rank > threshold) for rank in (x if by == "teacher" else y)]
    matched = weigh_selected(x, y, similarity, threshold=threshold, by="student", matched=True)
    assert set(matched.tolist()) <= {0.0, 1.0}
    assert matched.sum() == by_teacher.sum()
    if 0 < matched.sum() < len(matched):
        assert y[matched == 1].max() <= y[matched == 0].min()
    np.testing.assert_array_equal(matched, weigh_selected(x, y, similarity, threshold=threshold, by="student", matched=True))


def test_pairs_of_one_rank_are_drawn_from_anywhere():
    """Else the first scenes alone would teach."""
    x, y = np.repeat([1, 20], 500), np.ones(1000, dtype=int)
    first, second = (weigh_selected(x, y, np.ones(1000), threshold=10, by="student", matched=True, seed=seed) for seed in (0, 1))
    assert first.sum() == second.sum() == 500
    assert 200 < first[:500].sum() < 300
    assert (first != second).any()


@given(ranks=any_ranks(), threshold=N, constants=st.tuples(*[OPTION] * 4))
def test_groups_take_their_constants(ranks, threshold, constants):
    x, y = ranks
    given_names = dict(zip(("D1", "D2", "D3", "D4"), constants, strict=True))
    weights = weigh_groups(x, y, np.ones(len(x)), threshold=threshold, **given_names)
    assert weights.tolist() == [constants[group - 1] for group in grouped(x, y, threshold)]
    usual = weigh_groups(x, y, np.ones(len(x)), threshold=threshold)
    assert usual.tolist() == [(2.0, 1.0, 0.5, 0.0)[group - 1] for group in grouped(x, y, threshold)]


# the graded similarity


@pytest.mark.parametrize("name", sorted(WEIGHTINGS))
@given(ranks=any_ranks(), gamma=st.floats(0, 4), data=st.data())
def test_gamma_multiplies_by_the_similarity_and_keeps_the_mean(name, ranks, gamma, data):
    x, y = ranks
    assume((x <= 10).any())
    similarity = data.draw(arrays.arrays(float, len(x), elements=st.floats(0.3, 1)))
    plain = WEIGHTINGS[name](x, y, similarity, threshold=10)
    graded = WEIGHTINGS[name](x, y, similarity, threshold=10, gamma=gamma)
    assert ((graded > 0) == (plain > 0)).all()
    taught = plain > 0
    assert graded[taught].mean() == pytest.approx(plain[taught].mean())
    ratio = graded[taught] / (plain[taught] * similarity[taught] ** gamma)
    np.testing.assert_allclose(ratio, ratio[0])
    if gamma == 0 or (similarity == 1).all():
        np.testing.assert_allclose(graded, plain, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(WEIGHTINGS))
def test_without_gamma_the_similarity_is_not_looked_at(name):
    x, y, _ = grid(12)
    results = [WEIGHTINGS[name](x, y, similarity, threshold=10) for similarity in (np.ones(144), np.linspace(0.1, 1, 144))]
    np.testing.assert_array_equal(*results)
    parameters = inspect.signature(WEIGHTINGS[name]).parameters
    assert list(parameters)[:4] == ["teacher", "student", "similarity", "threshold"]
    assert parameters["gamma"].default == 0


def test_similarities_too_small_for_gamma_are_refused():
    with pytest.raises(InvalidInputError, match=r"gamma = 20 every weight is 0"):
        weigh_none(np.ones(2), np.ones(2), np.full(2, 1e-100), threshold=10, gamma=20)
    for gamma in (-1.0, np.nan, np.inf, "1", True):
        with pytest.raises(InvalidInputError, match=r"gamma must be a finite number, at least 0"):
            weigh_none(np.ones(2), np.ones(2), np.ones(2), threshold=10, gamma=gamma)


# weigh: by name, over a partition


def made(teacher=((1, 12, 3), (), (4,)), student=((11, 1, 2), (), (4,)), **options):
    rows = [list(range(len(part))) for part in teacher]
    similarity = [[0.5 + 0.1 * row for row in part] for part in rows]
    return Partition(rows, rows, similarity, teacher, student, scenes=tuple(f"s{i}" for i in range(len(rows))), **options)


@pytest.mark.parametrize("name", sorted(WEIGHTINGS))
def test_the_weights_of_several_scenes_are_those_of_all_at_once(name):
    found = weigh(made(threshold=9), name, {"gamma": 0.5})
    assert [len(part) for part in found] == [3, 0, 1]
    assert {part.dtype for part in found} == {np.dtype(np.float64)}
    joined = WEIGHTINGS[name](
        np.array([1, 12, 3, 4]), np.array([11, 1, 2, 4]), np.array([0.5, 0.6, 0.7, 0.5]), threshold=9, gamma=0.5
    )  # fmt: skip
    np.testing.assert_allclose(np.concatenate(found), joined)


def test_the_function_is_what_is_taken_unasked():
    np.testing.assert_array_equal(
        np.concatenate(weigh(made())), np.concatenate(weigh(made(), "function", {"a": 1, "b": 1, "normalise": True}))
    )


def by_similarity(teacher, student, similarity, *, threshold, power=1):
    return np.where(teacher <= threshold, similarity**power, 0)


own_graded = takes_similarity(by_similarity)


def gives(kind):
    return lambda teacher, student, similarity, *, threshold: {
        "short": np.ones(1), "nan": np.full(len(teacher), np.nan), "negative": np.full(len(teacher), -1.0), "text": ["x"] * len(teacher),
        "infinite": np.full(len(teacher), np.inf), "nothing": np.zeros(len(teacher)),
    }[kind]  # fmt: skip


short, nan, negative, text, infinite, nothing = (gives(kind) for kind in ("short", "nan", "negative", "text", "infinite", "nothing"))


def test_a_weighting_of_ones_own(monkeypatch):
    monkeypatch.syspath_prepend("tests")
    found = weigh(made(), f"{__name__}:by_similarity", {"power": 2})
    np.testing.assert_allclose(np.concatenate(found), [0.25, 0, 0.49, 0.25])
    found = weigh(made(), f"{__name__}:own_graded", {"power": 2, "gamma": 1.0})
    np.testing.assert_allclose(np.concatenate(found), np.array([0.125, 0, 0.343, 0.125]) * 0.99 / 0.593)


@pytest.mark.parametrize(("kind", "said"), [
    ("short", r"must give a number a pair, \(4,\); got float64 \(1,\)"),
    ("text", r"must give a number a pair"),
    ("nan", r"finite and at least 0; .*gives nan to a pair of rank 1 under the teacher and 11 under the student"),
    ("negative", r"finite and at least 0"),
    ("infinite", r"finite and at least 0"),
    ("nothing", r"gives 0 to all 4\. Choose other options"),
])  # fmt: skip
def test_weights_that_cannot_be_are_refused(kind, said):
    with pytest.raises(InvalidInputError, match=said):
        weigh(made(), f"{__name__}:{kind}")


def test_where_the_teacher_is_never_right_there_is_nothing_to_teach():
    wrong = made(teacher=((11, 12, 30), (), (40,)))
    for name in ("function", "select", "group"):
        with pytest.raises(InvalidInputError, match=r"rank of at most N_t = 10 under the teacher; of 4 none has.*has not learnt"):
            weigh(wrong, name)
    with pytest.raises(InvalidInputError, match=r"gives 0 to all 4.*none has"):
        weigh(wrong, "function", {"normalise": False})
    assert np.concatenate(weigh(wrong, "none")).tolist() == [1] * 4
    assert np.concatenate(weigh(wrong, "group", {"D4": 1.0})).tolist() == [1] * 4


@pytest.mark.parametrize(("name", "options", "said"), [
    ("function", {"c": 1}, r"The weighting 'function' does not take the options.*c is none of a, b, normalise, gamma"),
    ("function", {"threshold": 3}, r"threshold is none of a, b"),
    ("function", {"a": -1}, r"a must be a finite number, at least 0"),
    ("function", {"b": "x"}, r"b must be a finite number, at least 0"),
    ("function", {"b": 1e6}, r"b = 1e\+06 the weights have the mean inf"),
    ("function", {"b": 1e6, "normalise": False}, r"finite and at least 0"),
    ("select", {"by": "both"}, r"by must be 'teacher' or 'student'"),
    ("select", {"by": "student", "seed": -1}, r"seed must be a whole number"),
    ("select", {"by": "student", "seed": True}, r"seed must be a whole number"),
    ("select", {"by": "student", "matched": "yes"}, r"matched must be true or false; got 'yes'"),
    ("select", {"by": "student", "matched": 1}, r"matched must be true or false; got 1"),
    ("select", {"wrong": "no"}, r"wrong must be true or false; got 'no'"),
    ("select", {"matched": True}, r"set by = 'student' too"),
    ("function", {"normalise": "yes"}, r"normalise must be true or false; got 'yes'"),
    ("function", {"a": 10**400}, r"a must be a finite number, at least 0"),
    ("group", {"D1": -2}, r"D1 must be a finite number"),
    ("group", {"D1": 1e308, "D2": 1e308, "D3": 1e308, "gamma": 1.0}, r"weights are not finite|finite and at least 0"),
    ("group", {"D1": 0, "D2": 0, "D3": 0}, r"gives 0 to all 4\. Choose other options"),
    ("none", {"a": 1}, r"does not take the options"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(name, options, said):
    with pytest.raises(InvalidInputError, match=said):
        weigh(made(), name, options)


def test_an_unknown_weighting_is_refused():
    with pytest.raises(UnknownNameError, match=r"no weighting called 'funktion'. Did you mean 'function'"):
        weigh(made(), "funktion")
