"""Scores: the file that people keep, NaN as null."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError
from covis.protocols import protocol
from covis.scores import Metric, Scores, aligned, lower_is_better, unit_of, what_was_scored

VALUE = st.floats(0, 1) | st.floats(0, 1e9) | st.just(float("nan"))
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
INTERVAL = {"method": "percentile bootstrap", "unit": "sequences", "count": 12, "samples": 10, "level": 0.95, "seed": 0}


@st.composite
def scores(draw):
    queries = tuple(draw(st.lists(TEXT, max_size=4)))
    metrics = draw(st.dictionaries(TEXT, st.builds(Metric, VALUE, VALUE, VALUE, st.integers(0, 9)), max_size=2))
    columns = draw(st.dictionaries(TEXT, st.lists(VALUE, min_size=len(queries), max_size=len(queries)).map(np.array), max_size=2))
    units = draw(st.none() | st.lists(st.integers(0, 3), min_size=len(queries), max_size=len(queries)).map(numbered))
    return Scores(protocol("7scenes/gcl"), metrics, queries, columns, draw(st.sampled_from([{}, INTERVAL])), {"ü": [1]}, units)


def numbered(keys):
    return np.unique(np.array(keys, dtype=np.int64), return_inverse=True)[1]


def same(a, b):
    return (
        a.protocol == b.protocol
        and a.metrics.keys() == b.metrics.keys()
        and all(np.array_equal([*vars(a.metrics[k]).values()], [*vars(b.metrics[k]).values()], equal_nan=True) for k in a.metrics)
        and (a.queries, dict(a.interval), dict(a.history)) == (b.queries, dict(b.interval), dict(b.history))
        and a.per_query.keys() == b.per_query.keys()
        and all(np.array_equal(a.per_query[k], b.per_query[k], equal_nan=True) for k in a.per_query)
        and (a.units is None) == (b.units is None)
        and (a.units is None or np.array_equal(a.units, b.units))
    )


@given(before=scores())
def test_scores_come_back(tmp_path_factory, before):
    path = before.save(tmp_path_factory.mktemp("s") / "a.json")
    assert same(Scores.load(path), before)
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


METRIC = {"value": 0.5, "low": 0.25, "high": None, "n": 2}
VERSION_1 = """{
  "format": "covis-scores", "version": 1,
  "protocol": {
    "name": "graded/0.5", "threshold": 0.5, "strict": false, "denominator": "with-positive", "scope": "scene", "ks": [1, 5],
    "distances": "float32", "source": "covis"
  },
  "metrics": {"recall@1": {"value": 0.5, "low": 0.0, "high": null, "n": 2}, "AP": {"value": 0.25, "low": 0.125, "high": 0.5, "n": 3}},
  "interval": {"method": "percentile bootstrap", "unit": "queries", "count": 3, "samples": 10, "level": 0.95, "seed": 0},
  "history": {"scenes": []},
  "queries": ["a.jpg", "b.jpg", "c.jpg"],
  "per_query": {"recall@1": [1.0, 0.0, null]}
}
"""


def test_files_of_version_1_still_read(tmp_path):
    path = tmp_path / "old.json"
    path.write_text(VERSION_1)
    old = Scores.load(path)
    assert old.units is None
    assert (old.protocol.name, old.protocol.ks, old.queries) == ("graded/0.5", (1, 5), ("a.jpg", "b.jpg", "c.jpg"))
    assert old.metrics["AP"] == Metric(0.25, 0.125, 0.5, 3)
    assert np.isnan(old.metrics["recall@1"].high)
    np.testing.assert_array_equal(old.per_query["recall@1"], [1, 0, np.nan])
    new = old.save(tmp_path / "new.json")
    assert json.loads(new.read_text())["version"] == 2
    assert same(Scores.load(new), old)


ONE = Scores(
    protocol("graded/0.5"), {"recall@1": Metric(0.5, 0.25, 0.75, 2)}, ("a", "b", "c"), {"recall@1": np.array([1.0, 0.0, np.nan])}, INTERVAL,
    units=np.array([0, 1, 1]),
)  # fmt: skip


def test_damaged_scores_are_refused(tmp_path, refuses_every_cut):
    path = ONE.save(tmp_path / "a.json")
    refuses_every_cut(path, lambda: Scores.load(path), harmless=1)
    stored = json.loads(path.read_text())
    assert stored["per_query"]["recall@1"] == [1, 0, None]
    for change in (
        {"version": 3}, {"version": 0}, {"version": "2"}, {"format": "x"}, {"queries": ["a"]}, {"queries": None}, {"metrics": [1]},
        {"metrics": {"x": {"value": 1}}}, {"metrics": {"x": 3}}, {"per_query": {"x": ["a", 1, 2]}}, {"per_query": 5},
        {"protocol": {"name": "x"}}, {"protocol": 5}, {"protocol": None}, {"interval": None}, {"history": 3}, {"queries": "abc"},
        {"queries": ["a", "b", 3]}, {"units": [0, 1]}, {"units": [0, 1, 3]}, {"units": [0, 1, -1]}, {"units": [0, 2, 2]},
        {"units": [0, 1, 1.0]}, {"units": [0, 1, True]}, {"units": "011"}, {"units": [0, 1, 2**70]}, {"units": [0, 10**15, 1]},
        {"per_query": {"x": ["1", 1, 2]}}, {"per_query": {"x": [True, 1, 2]}}, {"per_query": {"x": [float("inf"), 1, 2]}},
        {"per_query": {"x": [float("nan"), 1, 2]}}, {"per_query": {"x": [10**400, 1, 2]}}, {"per_query": {"x": "123"}},
        {"per_query": {"x": [[1], [2], [3]]}}, {"metrics": {"x": METRIC | {"n": 2.5}}}, {"metrics": {"x": METRIC | {"n": -1}}},
        {"metrics": {"x": METRIC | {"n": True}}}, {"metrics": {"x": METRIC | {"value": "0.5"}}},
        {"metrics": {"x": METRIC | {"low": float("inf")}}}, {"interval": {"level": 0.95}}, {"interval": INTERVAL | {"level": "95"}},
        {"interval": INTERVAL | {"count": None}}, {"interval": [1]},
    ):  # fmt: skip
        path.write_text(json.dumps(stored | change))
        with pytest.raises(DamagedFileError, match=r"a\.json"):
            Scores.load(path)
    for key in ("protocol", "metrics", "queries", "units", "per_query", "interval", "history"):
        path.write_text(json.dumps({k: v for k, v in stored.items() if k != key}))
        with pytest.raises(DamagedFileError, match=key):
            Scores.load(path)
    with pytest.raises(MissingFileError):
        Scores.load(tmp_path / "none.json")


def test_nothing_is_overwritten_unasked(tmp_path):
    path = ONE.save(tmp_path / "a.json")
    with pytest.raises(OutputExistsError):
        ONE.save(path)
    ONE.save(path, overwrite=True)


def test_infinity_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"a\.json"):
        Scores(ONE.protocol, {"x": Metric(float("inf"), 0, 1, 1)}, (), {}).save(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_columns_have_a_value_a_query():
    with pytest.raises(InvalidInputError, match=r"recall@1 must have one value for each of the 2 queries; got shape \(3,\)"):
        Scores(ONE.protocol, {}, ("a", "b"), {"recall@1": np.zeros(3)})


@pytest.mark.parametrize("units", [[0, 1], [0, 0, 2], [-1, 0, 1], [0.0, 1.0, 2.0], [[0, 0, 0]], [0, 1, 10**12]])
def test_units_are_numbered_without_a_gap(units):
    with pytest.raises(InvalidInputError, match="units"):
        Scores(ONE.protocol, {}, ("a", "b", "c"), {}, units=units)


def test_units_are_whole_numbers_that_nobody_changes():
    given = np.array([1, 0, 1], dtype=np.int32)
    units = Scores(ONE.protocol, {}, ("a", "b", "c"), {}, units=given).units
    assert (units.dtype, units.tolist(), units.flags.writeable) == (np.int64, [1, 0, 1], False)
    assert given.flags.writeable
    assert Scores(ONE.protocol, {}, (), {}, units=[]).units.tolist() == []


def test_the_protocol_stands_beside_the_number():
    text = str(ONE)
    assert ONE.protocol.card() in text
    assert "0.500 [0.250, 0.750]" in text
    assert "queries asked: 3, counted: n; intervals: 95%, percentile bootstrap over 12 sequences" in text
    assert str(Scores(ONE.protocol, {}, (), {})) == ONE.protocol.card()
    assert str(Scores(ONE.protocol, ONE.metrics, ("a",), {})).endswith("  queries asked: 1, counted: n")


def test_the_table_has_a_row_a_k_and_a_column_a_metric():
    metrics = {
        "recall@10": Metric(0.75, 0.7, 0.8, 90), "recall@1": Metric(0.5, 0.4, 0.6, 90), "AP": Metric(0.25, 0.2, 0.3, 100),
        "rank-correlation@10": Metric(-0.125, -0.2, 0.1, 8), "rank-correlation@5": Metric(float("nan"), float("nan"), float("nan"), 0),
        "recall@100%precision": Metric(0.1, 0, 0.2, 90), "error@50%": Metric(12.345, 10, 1234.5, 80),
    }  # fmt: skip
    text = str(Scores(ONE.protocol, metrics, ("a",), {}, INTERVAL))
    assert text.split("\n\n")[1:-1] == [
        "   k  recall@k              rank-correlation@k\n"
        "   1  0.500 [0.400, 0.600]\n"
        "   5                        nan [nan, nan]\n"
        "  10  0.750 [0.700, 0.800]  -0.125 [-0.200, 0.100]\n"
        "   n  90                    0-8",
        "  AP                    0.250 [0.200, 0.300]      n = 100\n"
        "  recall@100%precision  0.100 [0.000, 0.200]      n = 90\n"
        "  error@50%             12.35 [10.00, 1234.50] m  n = 80",
    ]


def test_wide_tables_are_broken_into_several():
    names = ("recall", "mAP", "graded-recall", "nDCG", "rank-correlation")
    metrics = {f"{name}@{k}": Metric(0.5, 0.25, 0.75, 7) for name in names for k in (1, 5, 20)}
    text = str(Scores(ONE.protocol, metrics, ("a",), {})).removeprefix(ONE.protocol.card())
    assert max(map(len, text.splitlines())) <= 88
    assert text.count("   1  0.500 [0.250, 0.750]") == 2
    assert all(text.count(f"{name}@k") == (2 if name == "recall" else 1) for name in names), "graded-recall@k ends in recall@k"


def test_errors_are_metres_and_better_when_lower():
    assert unit_of("error@95%") == unit_of("error") == "m"
    assert unit_of("recall@1") == unit_of("AP") == ""
    assert lower_is_better("error")
    assert not lower_is_better("recall@1")
    assert str(Metric(0.5, 0.25, 0.75, 2)) == Metric(0.5, 0.25, 0.75, 2).text() == "0.500 [0.250, 0.750]"
    assert aligned([["a", "1"], ["bbb", "22"]], right=[1]) == "  a     1\n  bbb  22"


WHITENED = {"dim": 32, "power": 0.5, "fitted_on": "database of x", "count": 900}
MADE = {"model": {"spec": "my:net", "dim": 64, "height": 240, "width": 320, "engine": "torch"}}


BY = "database, by GCL's apply_pca.py"
THEIRS = {"dim": 8, "fitted_on": BY}
ON_SEARCHED = {"dim": 8, "power": 1, "fitted_on": "database", "count": 24}
TRANSDUCTIVE = "fitted on the database (24 descriptors, transductive)"
EXTRACTED = {"engine": ["torch", "onnx"]}
RANKED = {"model": "4f", "database": {"whitened": WHITENED, "extracted": EXTRACTED}}
FIRST = {
    "index": "hnsw",
    "recall against exact": {"recall": 0.99, "first": 1.0, "k": 25},
    "without a descriptor": {"queries": 1, "database": 2},
}
SECOND = {"index": "hnsw", "recall against exact": {"recall": 0.75, "first": 0.5, "k": 25}, "without a descriptor": {"queries": 3}}


@pytest.mark.parametrize(
    ("ranked", "said"),
    [
        ([], ""),
        ([{}], ""),
        ([{"predictions": "p.txt", "policy": "stop"}], "predictions p.txt, read as stop"),
        ([{"model": "4f", "database": {}, "index": "exact"}], "model 4f; not whitened; index exact"),
        (
            [RANKED],
            "model my:net (4f), 64 dimensions, 240 x 320 pixels, torch and onnx; whitened to 32 dimensions (power 0.5), "
            "fitted on the database of x (900 descriptors)",
        ),
        ([{"model": "4f", "database": {"whitened": ON_SEARCHED}}], "model 4f; whitened to 8 dimensions (power 1), " + TRANSDUCTIVE),
        ([{"model": "4f", "database": {"whitened": THEIRS}}], f"model 4f; whitened to 8 dimensions, fitted on the {BY} (transductive)"),
        ([{"model": "4f", "database": {"whitened": {"dim": 8}}}], "model 4f; whitened"),
        (
            [FIRST, SECOND],
            "index hnsw, which finds 75.0% of the exact 25 nearest and 50.0% of the exact first; "
            "4 queries and 2 database images have no descriptor and find, or are found by, nothing",
        ),
    ],
)
def test_what_was_scored_in_a_sentence(ranked, said):
    history = {"scenes": [{"rankings": one} for one in ranked], "made": MADE if ranked == [RANKED] else {}}
    assert what_was_scored(history) == said
    assert what_was_scored({}) == ""


@pytest.mark.parametrize(("fitted_on", "searched"), [
    ("database", True), ("database of sf", True), ("database of sf, miami", True), (BY, True), ("database of miami", False),
    ("database of trained", False), ("database of sf of trained", False), ("database of miami, sf of trained", False),
    ("some queries", False), (None, False), (3, False),
])  # fmt: skip
def test_scores_whitened_on_the_searched_database_are_called_transductive(fitted_on, searched):
    scenes = [
        {"scene": name, "rankings": {"model": "4f", "database": {"whitened": {**ON_SEARCHED, "fitted_on": fitted_on}}}}
        for name in ("cph", "sf")
    ]
    assert (", transductive)" in what_was_scored({"scenes": scenes})) == searched
    of_a_file = what_was_scored({"scenes": scenes, "made": {"whitening": {"file": "w.npz"}}})
    assert ("(24 descriptors, transductive if w.npz was fitted on what is searched)" in of_a_file) == searched


@given(
    history=st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda part: (
            st.lists(part, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "scenes",
                        "rankings",
                        "model",
                        "made",
                        "database",
                        "whitened",
                        "fitted_on",
                        "file",
                        "whitening",
                        "scene",
                        "extracted",
                        "engine",
                        "index",
                        "recall against exact",
                        "recall",
                        "first",
                        "without a descriptor",
                        "queries",
                        "dim",
                        "power",
                        "predictions",
                    ]
                ),
                part,
                max_size=4,
            )
        ),
        max_leaves=30,
    )
)
def test_a_history_of_anything_is_printed(history):  # fmt: skip
    """Scores are read from a file, whose history may hold what it likes."""
    what_was_scored({"scenes": [history, {"rankings": history}], "made": history})
