"""Scores: the file that people keep, NaN as null."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError
from covis.protocols import protocol
from covis.scores import Metric, Scores

VALUE = st.floats(0, 1) | st.just(float("nan"))
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
INTERVAL = {"method": "percentile bootstrap", "unit": "sequences", "count": 12, "samples": 10, "level": 0.95, "seed": 0}


@st.composite
def scores(draw):
    queries = tuple(draw(st.lists(TEXT, max_size=4)))
    metrics = draw(st.dictionaries(TEXT, st.builds(Metric, VALUE, VALUE, VALUE, st.integers(0, 9)), max_size=2))
    columns = draw(st.dictionaries(TEXT, st.lists(VALUE, min_size=len(queries), max_size=len(queries)).map(np.array), max_size=2))
    return Scores(protocol("7scenes/gcl"), metrics, queries, columns, draw(st.sampled_from([{}, INTERVAL])), {"ü": [1]})


def same(a, b):
    return (
        a.protocol == b.protocol
        and a.metrics.keys() == b.metrics.keys()
        and all(np.array_equal([*vars(a.metrics[k]).values()], [*vars(b.metrics[k]).values()], equal_nan=True) for k in a.metrics)
        and (a.queries, dict(a.interval), dict(a.history)) == (b.queries, dict(b.interval), dict(b.history))
        and a.per_query.keys() == b.per_query.keys()
        and all(np.array_equal(a.per_query[k], b.per_query[k], equal_nan=True) for k in a.per_query)
    )


@given(before=scores())
def test_scores_come_back(tmp_path_factory, before):
    path = before.save(tmp_path_factory.mktemp("s") / "a.json")
    assert same(Scores.load(path), before)
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


ONE = Scores(
    protocol("graded/0.5"), {"recall@1": Metric(0.5, 0.25, 0.75, 2)}, ("a", "b", "c"), {"recall@1": np.array([1.0, 0.0, np.nan])}, INTERVAL
)


def test_damaged_scores_are_refused(tmp_path, refuses_every_cut):
    path = ONE.save(tmp_path / "a.json")
    refuses_every_cut(path, lambda: Scores.load(path), harmless=1)
    stored = json.loads(path.read_text())
    assert stored["per_query"]["recall@1"] == [1, 0, None]
    for change in (
        {"version": 2}, {"format": "x"}, {"queries": ["a"]}, {"queries": None}, {"metrics": [1]}, {"metrics": {"x": {"value": 1}}},
        {"metrics": {"x": 3}}, {"per_query": {"x": ["a", 1, 2]}}, {"per_query": 5},
        {"protocol": {"name": "x"}}, {"protocol": 5}, {"protocol": None}, {"interval": None}, {"history": 3},
    ):  # fmt: skip
        path.write_text(json.dumps(stored | change))
        with pytest.raises(DamagedFileError, match=r"a\.json"):
            Scores.load(path)
    for key in ("protocol", "metrics", "queries", "per_query", "interval", "history"):
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


def test_the_protocol_stands_beside_the_number():
    text = str(ONE)
    assert ONE.protocol.card() in text
    assert "0.500 [0.250, 0.750]" in text
    assert "95% , " not in text
    assert "percentile bootstrap over 12 sequences" in text
    assert str(Scores(ONE.protocol, {}, (), {})) == ONE.protocol.card()
