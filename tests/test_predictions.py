"""Predictions: what a line may say, and what its names mean in a data set under each policy."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis.errors import CovisError, CovisWarning, DamagedFileError, InvalidInputError, MissingFileError
from covis.predictions import POLICIES, Lookup, Predictions, Side, key
from covis.rankings import Rankings

QUERIES = ("city/query/images/q1.jpg", "city/query/images/q2.jpg")
DATABASE = ("city/database/images/a.jpg", "city/database/images/b.jpg", "city/database/images/c.jpg")


@pytest.fixture
def file(tmp_path):
    def write(text):
        (tmp_path / "p.txt").write_text(text, encoding="utf-8")
        return tmp_path / "p.txt"

    return write


def rows(path, *, queries=QUERIES, database=DATABASE, quiet=False, **options):
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore", CovisWarning)
        return Predictions.read(path).rankings(queries, database, **options)


# What is written.


def test_a_text_by_hand_is_read(tmp_path):
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbf# made by hand\r\n\r\n0012  c a # best two\r\n#\r\nq2\tb\tc\r\n")
    found = Predictions.read(tmp_path / "p.txt")
    assert (found.queries, found.found, found.lines.tolist()) == (("0012", "q2"), (("c", "a"), ("b", "c")), [3, 5])
    assert (len(found), found.k, repr(found)) == (2, 2, "Predictions(2 queries, first 2, of 'p.txt')")


@pytest.mark.parametrize(("text", "said"), [
    ("q a b\nr a\n", r"p\.txt, line 2.*this one names 1, the first names 2\. Mend the line"),
    ("q a b\n\nr a b c\n", "line 3.*this one names 3, the first names 2"),
    ("q\nr a\n", "line 1.*this one names 0"),
    ("q a\nr # nothing yet\n", "line 2.*this one names 0"),
    ("q a b\n# more\nq b a\n", r"line 3.*'q' has another at line 1\. Remove one"),
    ("", r"p\.txt must hold a line a query.*none"),
    ("# nothing\n\n", "holds none"),
])  # fmt: skip
def test_every_wrong_line_is_named(file, text, said):
    with pytest.raises(DamagedFileError, match=said):
        Predictions.read(file(text))


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.txt"):
        Predictions.read(tmp_path / "none.txt")
    (tmp_path / "p.txt").write_bytes(b"q a\n\xff\xfe b\n")
    with pytest.raises(DamagedFileError, match="UTF-8"):
        Predictions.read(tmp_path / "p.txt")
    with pytest.raises(DamagedFileError, match="readable"):
        Predictions.read(tmp_path)


@pytest.mark.parametrize("parts", [((), (), ()), (("q", "q"), (("a",), ("b",)), (1, 2)), (("q",), (("a",), ("b",)), (1, 2)),
                                   (("q", "r"), (("a",), ("b", "c")), (1, 2)), (("q",), (("a",),), ())])  # fmt: skip
def test_predictions_by_hand_must_fit(parts):
    with pytest.raises(InvalidInputError, match="Predictions must"):
        Predictions(Path("p.txt"), *parts)


WORDS = st.sampled_from(["q1", "q2", "r", "a", "b", "c", "city/database/images/a.jpg", "x", "#", "", "\ufeff", "q1,q2", "\x1c", "ü"])


@given(st.lists(st.lists(WORDS, max_size=4).map(" ".join), max_size=4).map("\n".join), st.sampled_from(POLICIES))
def test_any_text_is_read_or_refused_by_one_of_our_errors(tmp_path_factory, text, unknown):
    path = tmp_path_factory.mktemp("p") / "p.txt"
    path.write_text(text, encoding="utf-8")
    refused = ""
    try:
        found = rows(path, unknown=unknown, quiet=True)
    except CovisError as error:
        refused = str(error)
    assert "p.txt" in refused or (found.query_names == QUERIES and found.rows.min() >= -1)


# What the names mean.


def test_names_keys_and_both_are_found_in_any_order_of_lines(file):
    by_key = rows(file("q2 c a b\nq1 b a c\n"))
    assert by_key.rows.tolist() == [[1, 0, 2], [2, 0, 1]]
    assert (by_key.query_names, by_key.database_names) == (QUERIES, DATABASE)
    assert np.isnan(by_key.distances).all()
    assert by_key.history == {"predictions": "p.txt", "policy": "stop", "dropped": {}}
    by_name = Rankings(by_key.rows, by_key.distances, QUERIES, DATABASE).save(file("").with_name("n.txt"))
    assert rows(by_name).rows.tolist() == by_key.rows.tolist()
    assert rows(file(f"q1 {DATABASE[1]} a c\n{QUERIES[1]} c {DATABASE[0]} b\n")).rows.tolist() == by_key.rows.tolist()


def test_sequences_are_their_frames_joined_by_commas(file):
    windows = ("i/1.jpg,i/2.jpg,i/3.jpg", "i/2.jpg,i/3.jpg,i/4.jpg")
    found = rows(file("q1 2,3,4 1,2,3\nq2 1,2,3 2,3,4\n"), database=windows)
    assert found.rows.tolist() == [[1, 0], [0, 1]]
    with pytest.raises(InvalidInputError, match=r"line 1.*'3,2,1' is none"):
        rows(file("q1 3,2,1\nq2 1,2,3\n"), database=windows)


@pytest.mark.parametrize(("text", "said"), [
    ("q1 a b\n\nq2 x a\n", r"p\.txt, line 3.*'x' is none, by name or by key.*strict_file or strip_unknown"),
    ("q1 a b\nq2 b A\n", "line 2.*'A' is none"),
    ("q1 a b\nq2 a a\n", "line 2.*'city/database/images/a.jpg' stands again"),
    ("q1 a city/database/images/a.jpg\nq2 a b\n", "line 1.*stands again"),
    ("q1 a b\nq2 a b\nq3 a b\n", "line 3.*'q3' is none"),
    ("q1 a b\n", "must hold a line for every query.*1 have none, the first is 'city/query/images/q2.jpg'"),
    ("q1 a b\nq2 b a\ncity/query/images/q2.jpg a b\n", r"line 3.*line 2 is of the same query, 'city/query/images/q2.jpg'"),
])  # fmt: skip
def test_stop_names_the_line_and_the_name(file, text, said):
    with pytest.raises(InvalidInputError, match=said):
        rows(file(text))


def test_a_key_of_several_images_is_refused(file):
    database = ("seq-01/000.png", "seq-02/000.png", "seq-02/001.png")
    assert rows(file("q1 001\nq2 seq-02/000.png\n"), database=database).rows.tolist() == [[2], [1]]
    for unknown in POLICIES:
        with pytest.raises(InvalidInputError, match="line 2: '000' must mean one database image; it is the key of several"):
            rows(file("q1 001\nq2 000\n"), database=database, unknown=unknown)
        with pytest.raises(InvalidInputError, match="line 1: '000' must mean one query"):
            rows(file("000 a\n001 b\n"), queries=database, unknown=unknown)


def test_strict_file_keeps_ranks(file):
    path = file("q3 a b c\nq1 x a y\nq2 x y z\n")
    with pytest.warns(CovisWarning, match=r"read as strict_file: 1 unknown queries, 5 names that .*, 1 lines without any") as said:
        found = rows(path, unknown="strict_file")
    assert len(said) == 1
    assert found.rows.tolist() == [[-1, 0, -1], [-1, -1, -1]]
    dropped = {"unknown queries": 1, "names that are no database image": 5, "lines without any database image": 1}
    assert found.history == {"predictions": "p.txt", "policy": "strict_file", "dropped": dropped}


def test_strip_unknown_moves_up(file):
    with pytest.warns(CovisWarning, match="strip_unknown.*the rest moves up"):
        found = rows(file("q1 x b y a\nq2 z c x y\n"), unknown="strip_unknown")
    assert found.rows.tolist() == [[1, 0, -1, -1], [2, -1, -1, -1]]


def test_strict_file_looks_for_repeats_where_the_script_does(file):
    """In the file's first lines, as many as queries are needed, whoever's they are, and whether or not the name is known."""
    for early in ("q1 a b a\nq2 a b c\n", "q9 x b x\nq1 a b c\nq2 a b c\n", "q1 a b c\nq2 x b x\n"):
        with pytest.raises(InvalidInputError, match=r"must be named once; '[ax]' stands again"):
            rows(file(early), unknown="strict_file", quiet=True)
    late = file("q8 a b c\nq9 a b c\nq1 a b a\nq2 c c a\n")
    with pytest.warns(CovisWarning, match="2 names that stand again in their line"):
        found = rows(late, unknown="strict_file")
    assert found.rows.tolist() == [[0, 1, -1], [2, -1, 0]]
    with pytest.raises(InvalidInputError, match=r"line 3.*stands again"):
        rows(late, unknown="strip_unknown", quiet=True)
    one_needed = {"unknown": "strict_file", "quiet": True, "needed": np.array([True, False])}
    assert rows(file("q1 a b c\nq9 x x x\nq2 a b c\n"), **one_needed).rows.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_only_needed_queries_must_have_a_line(file):
    path = file("q2 a b\n")
    found = rows(path, needed=np.array([False, True]))
    assert (found.query_names, found.rows.tolist()) == (QUERIES[1:], [[0, 1]])
    for unknown in POLICIES:
        with pytest.raises(InvalidInputError, match="must hold a line for every query"):
            rows(path, unknown=unknown)


def test_an_unknown_policy_is_refused(file):
    with pytest.raises(InvalidInputError, match="'stop', 'strict_file', 'strip_unknown'; got 'skip'"):
        rows(file("q1 a\n"), unknown="skip")


def test_one_file_for_several_scenes(file):
    """A name of another scene's database is a wrong answer, not an unknown one: it keeps its rank even where others are removed."""
    sides = [Side(("q1", "q2"), ("a", "b")), Side(("r1",), ("c", "d"))]
    path = file("r1 c x a\nq2 b d x\nq1 c a b\n")
    expected = {"strict_file": [[[-1, 0, 1], [1, -1, -1]], [[0, -1, -1]]], "strip_unknown": [[[-1, 0, 1], [1, -1, -1]], [[0, -1, -1]]]}
    for unknown, blocks in expected.items():
        with pytest.warns(CovisWarning, match="2 names that are no database image"):
            found = Predictions.read(path).by_scene(sides, unknown=unknown)
        assert [one.rows.tolist() for one in found] == blocks
        assert [one.query_names for one in found] == [("q1", "q2"), ("r1",)]
        assert found[0].history == found[1].history
    with pytest.raises(InvalidInputError, match=r"line 3.*'c' is none"):
        Predictions.read(path).by_scene(sides)
    with pytest.raises(InvalidInputError, match="line 1: 'r1' must mean one query"):
        Predictions.read(path).by_scene([*sides, Side(("r1",), ("c",))])


@given(data=st.data(), unknown=st.sampled_from(["strict_file", "strip_unknown"]))
def test_the_order_of_lines_changes_nothing(tmp_path_factory, data, unknown):
    """But for where the script looks for repeats, so there are none."""
    lines = [
        " ".join([query, *data.draw(st.permutations(["a", "b", "c", "x", "y"]))[:3]])
        for query in data.draw(st.permutations(["q1", "q2", "q3", "q4"]))
    ]
    path = tmp_path_factory.mktemp("p") / "p.txt"
    made = []
    for order in (lines, data.draw(st.permutations(lines))):
        path.write_text("\n".join(order))
        made.append(rows(path, unknown=unknown, quiet=True))
    assert made[0].rows.tolist() == made[1].rows.tolist()
    assert dict(made[0].history) == dict(made[1].history)


# Keys.


@pytest.mark.parametrize(("name", "expected"), [
    ("train_val/cph/query/images/-a_B.jpg", "-a_B"), ("a", "a"), ("x/a", "a"), ("a.b.c", "a.b"), ("x.y/a", "a"), (".hidden", ".hidden"),
    ("x/1.jpg,y/2.jpg", "1,2"), ("@05@06@.jpg@@.jpg", "@05@06@.jpg@@"),
])  # fmt: skip
def test_the_key_is_the_stem(name, expected):
    assert key(name) == expected


def test_a_name_wins_over_a_key():
    table = Lookup(["x/a", "a", "b/c.jpg"])
    assert table.rows(["a", "x/a", "c", "d"]).tolist() == [1, 0, 2, -2]
    assert "c" in table
    assert "d" not in table


@pytest.mark.parametrize(("task", "count", "lengths"), [("im2im", 105, (1, 1)), ("im2seq", 104, (1, 3)), ("seq2im", 103, (3, 1)),
                                                        ("seq2seq", 102, (3, 3))])  # fmt: skip
def test_the_official_examples_are_read(covis_data, task, count, lengths):
    found = Predictions.read(covis_data / "metadata" / "msls_predictions" / f"example_msls_{task}_prediction.csv")
    assert (len(found), found.k, found.lines.tolist()) == (count, 5, list(range(5, 5 + count)))
    assert {len(query.split(",")) for query in found.queries} == {lengths[0]}
    assert {len(name.split(",")) for names in found.found for name in names} == {lengths[1]}
