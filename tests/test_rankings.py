"""Rankings: two files that come back, and every line that is wrong is named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError, OutputFailedError
from covis.files import load_arrays, save_arrays
from covis.predictions import Predictions
from covis.rankings import Rankings

NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), min_size=1)
WORD = st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"], exclude_characters="#\ufeff"), min_size=1).filter(
    lambda s: s.split() == [s]
)


@st.composite
def rankings(draw, name=NAME, least=0):
    queries, database = (
        draw(st.lists(name, unique=True, min_size=least, max_size=4)),
        draw(st.lists(name, unique=True, min_size=1, max_size=5)),
    )
    k = draw(st.integers(least, len(database)))
    rows = np.array([draw(st.permutations(range(len(database))))[:k] for _ in queries]).reshape(len(queries), k)
    distances = np.sort(draw(st.lists(st.floats(0, 9, width=32), min_size=rows.size, max_size=rows.size))).reshape(rows.shape)
    if least == 0 and draw(st.booleans()):  # what is no image of the database, its distance known or not
        strange = np.array(draw(st.lists(st.booleans(), min_size=rows.size, max_size=rows.size)), dtype=bool).reshape(rows.shape)
        rows, distances = np.where(strange, -1, rows), np.where(strange & draw(st.booleans()), np.nan, distances)
    if draw(st.booleans()):
        distances = np.full(rows.shape, np.nan)
    return Rankings(
        rows,
        distances,
        queries,
        database,
        draw(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(), max_size=2)),
    )


def same(a, b):
    return (
        np.array_equal(a.rows, b.rows)
        and np.array_equal(a.distances, b.distances, equal_nan=True)
        and (a.query_names, a.database_names, dict(a.history)) == (b.query_names, b.database_names, dict(b.history))
    )


@given(found=rankings())
def test_rankings_come_back_and_give_the_same_bytes(tmp_path_factory, found):
    folder = tmp_path_factory.mktemp("r")
    path = found.save(folder / "a.npz")
    assert same(Rankings.load(path), found)
    assert Rankings.load(path).save(folder / "b.npz").read_bytes() == path.read_bytes()


@given(found=rankings(WORD, least=1))
def test_a_prediction_text_comes_back(tmp_path_factory, found):
    path = found.save(tmp_path_factory.mktemp("r") / "a.txt")
    again = Predictions.read(path).rankings(found.query_names, found.database_names)
    assert again.rows.tolist() == found.rows.tolist()
    assert again.query_names == found.query_names
    assert np.isnan(again.distances).all()
    assert again.save(path.with_name("b.txt")).read_text() == path.read_text()


FOUND = Rankings([[2, 0], [1, 2]], [[0.1, 0.5], [0.2, 0.2]], ("0012", "q2"), ("a", "b", "c"), {"model": "m"})


@pytest.mark.parametrize("name", ["a b", "a\tb", "a#1", "#", "", "a\u2028b", "\x1c"])
def test_names_that_a_text_cannot_hold_are_refused(tmp_path, name):
    for queries, database in (((name,), ("a",)), (("q",), (name,))):
        with pytest.raises(InvalidInputError, match=r"Write \.npz instead"):
            Rankings([[0]], [[0.0]], queries, database).save(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_damaged_rankings_are_refused(tmp_path, refuses_every_cut, never_wrong):
    path = FOUND.save(tmp_path / "a.npz")
    refuses_every_cut(path, lambda: Rankings.load(path))
    never_wrong(path, lambda: Rankings.load(path), lambda found: same(found, FOUND))
    header, stored = load_arrays(path, kind="covis-rankings", version=1, names=())
    for change in (
        {"rows": np.array([[9, 0], [1, 2]])},
        {"rows": np.zeros((1, 2), dtype=int)},
        {"distances": np.array([[2.0, 1], [0, 0]])},
    ):
        save_arrays(path, header, stored | change)
        with pytest.raises(DamagedFileError, match=r"a\.npz.*Search again"):
            Rankings.load(path)
    for change in ({"version": 2}, {"format": "covis-labels"}):
        save_arrays(path, header | change, stored)
        with pytest.raises(DamagedFileError, match=r"a\.npz"):
            Rankings.load(path)
    with pytest.raises(MissingFileError):
        Rankings.load(tmp_path / "none.npz")


@pytest.mark.parametrize("suffix", ["npz", "txt"])
def test_nothing_is_overwritten_unasked(tmp_path, suffix, full_disk):
    path = FOUND.save(tmp_path / f"a.{suffix}")
    before = path.read_bytes()
    with pytest.raises(OutputExistsError):
        FOUND.save(path)
    many = Rankings(np.tile(np.arange(99), (99, 1)), np.zeros((99, 99)), tuple(map(str, range(99))), tuple(map(str, range(99))))
    with full_disk(2000), pytest.raises(OutputFailedError):
        many.save(path, overwrite=True)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("rows", "distances", "said"), [
    ([[0, 1]], [[0, 1]], "for 2 queries"),
    ([[0, 1], [1, 2]], [[0], [1]], r"\(2, 2\) and \(2, 1\)"),
    ([[0, 1], [1, 3]], [[0, 1], [0, 1]], r"in \[0, 3\), or -1; that of q2 holds \[1, 3\]"),
    ([[0, 1], [1, -2]], [[0, 1], [0, 1]], "that of q2"),
    ([[0, 1], [2, 2]], [[0, 1], [0, 1]], "q2 names one twice"),
    ([[0, -1, -1], [2, -1, 2]], [[0, 1, 1], [0, 1, 1]], "q2 names one twice"),
    ([[0, 1], [1, 2]], [[0, 1], [1, 0]], "those of q2 do"),
    ([[0, -1, 1], [1, -1, 2]], [[0, np.nan, 0], [1, np.nan, 0]], "those of q2 do"),
])  # fmt: skip
def test_every_rule_names_the_query(rows, distances, said):
    with pytest.raises(InvalidInputError, match=said):
        Rankings(rows, distances, ("q1", "q2"), ("a", "b", "c"))


def test_a_text_cannot_hold_what_has_no_name(tmp_path):
    found = Rankings([[0, 1], [-1, 0]], np.full((2, 2), np.nan), ("q1", "q2"), ("a", "b"))
    assert Rankings.load(found.save(tmp_path / "a.npz")).rows.tolist() == [[0, 1], [-1, 0]]
    with pytest.raises(InvalidInputError, match=r"ranking of q2 holds.*Write \.npz"):
        found.save(tmp_path / "a.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_what_it_says_of_itself():
    assert (len(FOUND), FOUND.k) == (2, 2)
    assert repr(FOUND) == "Rankings(2 queries, first 2 of 3)"
